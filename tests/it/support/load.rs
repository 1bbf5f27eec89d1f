//! Clients that ask without a pause, on connections that stay and on fresh ones, until they are told to end. The first
//! request of theirs that fails, or is cut short, ends the test.

use crate::support::{Wire, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Clients of each kind.
const PAIRS: usize = 2;

pub struct Load {
    shared: Arc<Shared>,
    /// Each ends with the longest time between two of its answers.
    clients: Vec<JoinHandle<Duration>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// Answers of each client.
    answers: [AtomicU64; 2 * PAIRS],
}

impl Load {
    pub fn on(address: &str, path: &str) -> Load {
        let shared = Arc::new(Shared::default());
        let clients = (0..2 * PAIRS).map(|number| {
            let (address, path) = (address.to_owned(), path.to_owned());
            let shared = Arc::clone(&shared);
            thread::spawn(move || client(&address, &path, &shared, number))
        });
        let load = Load {
            clients: clients.collect(),
            shared,
        };
        load.goes_on();
        load
    }

    /// Waits until every client has had twenty answers more.
    #[track_caller]
    pub fn goes_on(&self) {
        let seen = self.answers();
        wait_until(20, "twenty answers more for every client", || {
            let ended = self.clients.iter().any(JoinHandle::is_finished);
            assert!(!ended, "a request failed");
            let mut both = self.answers().into_iter().zip(&seen);
            both.all(|(now, before)| now >= before + 20)
        });
    }

    fn answers(&self) -> Vec<u64> {
        let answers = self.shared.answers.iter();
        answers.map(|count| count.load(Relaxed)).collect()
    }

    /// Ends them: how many requests were answered, which are all, and the longest wait for an answer.
    #[track_caller]
    pub fn end(mut self) -> (u64, Duration) {
        self.shared.over.store(true, Relaxed);
        let clients = self.clients.drain(..);
        let waits = clients.map(|client| client.join().expect("no request fails"));
        let longest = waits.max().unwrap_or_default();
        (self.answers().iter().sum(), longest)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

fn client(address: &str, path: &str, shared: &Shared, number: usize) -> Duration {
    let (stays, connection) = match number % 2 {
        0 => (true, "keep-alive"),
        _ => (false, "close"),
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: {connection}\r\n\r\n");
    let mut kept = None;
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while !shared.over.load(Relaxed) {
        let mut wire = kept.take().unwrap_or_else(|| Wire::to(address));
        wire.send(&request);
        let answer = wire.answer();
        assert_eq!(answer.status, 200, "{}", answer.head);
        longest = longest.max(last.elapsed());
        last = Instant::now();
        shared.answers[number].fetch_add(1, Relaxed);
        kept = (stays && answer.header("Connection") != Some("close")).then_some(wire);
    }
    longest
}
