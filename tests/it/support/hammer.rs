//! Clients that ask while something happens to the application, and count what comes of it.

use crate::support::{Answer, Wire, get, pause, wait_until};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients that ask in a loop until they are told to stop.
pub struct Hammer {
    stop: Arc<AtomicBool>,
    /// Somebody has had an answer, or none.
    begun: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What clients met.
#[derive(Debug)]
pub struct Tally {
    pub answered: u64,
    /// What went wrong.
    pub failed: Vec<String>,
    /// The longest time between two answers to the same client.
    pub gap: Duration,
    last: Instant,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            answered: 0,
            failed: Vec::new(),
            gap: Duration::ZERO,
            last: Instant::now(),
        }
    }

    /// Counts an answer that must be this.
    pub fn count(&mut self, answer: Result<Answer, String>, expected: &[u8]) {
        match answer {
            Ok(answer) if answer.status == 200 && answer.body == expected => {
                self.answered += 1;
                self.gap = self.gap.max(self.last.elapsed());
                self.last = Instant::now();
            }
            Ok(answer) => self.failed.push(format!(
                "{}, {} bytes: {}",
                answer.head,
                answer.body.len(),
                answer.text().chars().take(80).collect::<String>()
            )),
            Err(why) => self.failed.push(why),
        }
    }

    fn add(&mut self, other: Tally) {
        self.answered += other.answered;
        self.failed.extend(other.failed);
        self.gap = self.gap.max(other.gap);
    }
}

impl Default for Hammer {
    fn default() -> Hammer {
        Hammer::new()
    }
}

impl Hammer {
    pub fn new() -> Hammer {
        Hammer {
            stop: Arc::default(),
            begun: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// One client with a new connection for every request and one that keeps its own, at an easy pace.
    pub fn easy(address: &str) -> Hammer {
        let (one, other) = (address.to_owned(), address.to_owned());
        let mut kept = None;
        Hammer::new()
            .with(move |tally| {
                once(&one, "/hello", tally, b"Hello, World!");
                pause();
            })
            .with(move |tally| {
                again(&mut kept, &other, tally);
                pause();
            })
    }

    /// One more client.
    pub fn with(mut self, mut ask: impl FnMut(&mut Tally) + Send + 'static) -> Hammer {
        let (stop, begun) = (Arc::clone(&self.stop), Arc::clone(&self.begun));
        self.threads.push(std::thread::spawn(move || {
            let mut tally = Tally::new();
            // A client that meets nothing but failures need not fill the memory with them.
            while !stop.load(Ordering::SeqCst) && tally.failed.len() < 20 {
                ask(&mut tally);
                if tally.answered > 0 || !tally.failed.is_empty() {
                    begun.store(true, Ordering::SeqCst);
                }
            }
            tally
        }));
        self
    }

    /// Ends it: nothing may have failed.
    #[track_caller]
    pub fn end(self) -> Tally {
        // What went on meanwhile may have been over before a client had its first turn.
        wait_until(10, "a client has had an answer", || {
            self.begun.load(Ordering::SeqCst)
        });
        let tally = self.end_with_failures();
        assert!(
            tally.failed.is_empty(),
            "{} answered, {} failed: {:#?}",
            tally.answered,
            tally.failed.len(),
            tally.failed
        );
        assert!(tally.answered > 0, "nobody asked");
        tally
    }

    pub fn end_with_failures(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut sum = Tally::new();
        for thread in self.threads.drain(..) {
            sum.add(thread.join().expect("a client does not panic"));
        }
        sum
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// One request on a connection of its own, counted.
pub fn once(address: &str, target: &str, tally: &mut Tally, expected: &[u8]) {
    let answer = TcpStream::connect(address)
        .map_err(|error| format!("connect: {error}"))
        .and_then(|stream| {
            let mut wire = Wire::from(stream);
            wire.ask(&format!(
                "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
            ))
        });
    tally.count(answer, expected);
}

/// One more request on a connection that is never to be closed.
pub fn again(kept: &mut Option<Wire>, address: &str, tally: &mut Tally) {
    if kept.is_none() {
        match TcpStream::connect(address) {
            Ok(stream) => *kept = Some(Wire::from(stream)),
            Err(error) => return tally.failed.push(format!("connect: {error}")),
        }
    }
    let Some(wire) = kept else { return };
    let answer = wire.ask("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
    let stays = matches!(&answer, Ok(answer) if answer.header("Connection").is_none());
    if let (false, Ok(answer)) = (stays, &answer) {
        tally
            .failed
            .push(format!("a kept connection is closed: {}", answer.head));
    }
    tally.count(answer, b"Hello, World!");
    if !stays {
        *kept = None;
    }
}

/// Asks on one connection after the other until none is taken any more: how many answers there were, and what was lost.
pub fn asks_to_the_end(address: String) -> JoinHandle<(u64, Vec<String>)> {
    std::thread::spawn(move || {
        let (mut answers, mut losses) = (0, Vec::new());
        while let Ok(stream) = TcpStream::connect(&address) {
            let mut wire = Wire::from(stream);
            wire.try_send(get("/hello"));
            match wire.read_answer(true) {
                Ok(answer) if answer.text() == "Hello, World!" => answers += 1,
                other => losses.push(format!("{other:?}")),
            }
        }
        (answers, losses)
    })
}
