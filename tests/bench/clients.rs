//! HTTP clients that go on through restarts and count what they miss.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crate::servers::{DOWNLOADS, Server};
use crate::watch::{self, CAP};

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(1);
/// Between the parts of a body, and before its request.
const BODY_PAUSE: Duration = Duration::from_millis(10);
const BODY_PARTS: usize = 8;
const BODY: usize = 65_536;
/// How long a download takes at the least.
const DOWNLOAD_TIME: Duration = Duration::from_millis(300);
const DOWNLOAD_PARTS: usize = 64;
/// Failures that are described.
const NOTES: usize = 8;

#[derive(Clone, Copy)]
pub enum Work {
    /// A connection for each request.
    Fresh,
    /// A new connection only when the server closed the old one.
    KeepAlive,
    /// Bodies sent in parts, on connections that send nothing at first.
    Post,
    /// Answers read slowly.
    Download,
}

impl Work {
    pub const ALL: [Self; 4] = [Self::Fresh, Self::KeepAlive, Self::Post, Self::Download];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "new connections",
            Self::KeepAlive => "keep-alive",
            Self::Post => "POST",
            Self::Download => "download",
        }
    }

    fn threads(self) -> usize {
        match self {
            Self::Fresh | Self::KeepAlive => 4,
            Self::Post | Self::Download => 1,
        }
    }
}

/// What the clients of one server have seen.
#[derive(Default)]
pub struct Tally {
    pub requests: [AtomicU64; 4],
    /// No answer at all, or not 200, or another body than expected.
    pub failed: [AtomicU64; 4],
    /// An answer that ended early.
    pub short: AtomicU64,
    /// Keep-alive connections that the server closed: after it had said so in its last answer, and without a word,
    /// which the client saw before it sent its next request.
    pub closed_told: AtomicU64,
    pub closed_untold: AtomicU64,
    gap_micros: AtomicU64,
    notes: Mutex<Vec<String>>,
}

impl Tally {
    /// The longest time between two answers that one client with small requests got, since this was last asked; in ms.
    pub fn take_gap(&self) -> f64 {
        self.gap_micros.swap(0, Relaxed) as f64 / 1000.0
    }

    pub fn missed(&self) -> u64 {
        let failed: u64 = self.failed.iter().map(|n| n.load(Relaxed)).sum();
        failed + self.short.load(Relaxed)
    }

    pub fn asked(&self) -> u64 {
        self.requests.iter().map(|n| n.load(Relaxed)).sum()
    }

    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().map_or_else(|_| Vec::new(), |n| n.clone())
    }

    fn count(&self, work: Work, begun: Instant, outcome: Result<(), Fault>) -> bool {
        self.requests[work as usize].fetch_add(1, Relaxed);
        let (counter, fault) = match outcome {
            Ok(()) => return true,
            Err(Fault::Failed(fault)) => (&self.failed[work as usize], fault),
            Err(Fault::Short(fault)) => (&self.short, fault),
        };
        counter.fetch_add(1, Relaxed);
        let after = begun.elapsed().as_secs_f64() * 1000.0;
        if let Ok(mut notes) = self.notes.lock() {
            if notes.len() < NOTES {
                notes.push(format!("{}: {fault} ({after:.1} ms)", work.name()));
            }
        }
        false
    }
}

enum Fault {
    Failed(String),
    Short(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What all clients of one server know.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub server: &'a Server,
    pub address: SocketAddr,
    pub tally: &'a Tally,
    pub stop: &'a Stop,
}

#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Stops the clients when it is dropped, for then the scope waits for them.
pub struct StopLater<'a>(pub &'a Stop);

impl Drop for StopLater<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Relaxed);
    }
}

impl<'a> Client<'a> {
    pub fn spawn_all<'scope>(self, scope: &'scope Scope<'scope, 'a>) {
        for work in Work::ALL {
            for _ in 0..work.threads() {
                scope.spawn(move || match work {
                    Work::Fresh => self.fresh(),
                    Work::KeepAlive => self.keep_alive(),
                    Work::Post => self.post(),
                    Work::Download => self.download(),
                });
            }
        }
    }
}

impl Client<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.is_set()
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CAP)?;
        stream.set_read_timeout(Some(CAP))?;
        stream.set_write_timeout(Some(CAP))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn request(&self, connection: &str) -> Vec<u8> {
        let path = self.server.path();
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {connection}\r\n\r\n").into()
    }

    fn fresh(&self) {
        let request = self.request("close");
        let mut gap = Gap::default();
        while self.goes_on() {
            let begun = Instant::now();
            let outcome = self.connect().map_err(Fault::from).and_then(|mut stream| {
                stream.write_all(&request)?;
                read_answer(&mut stream, HELLO, Duration::ZERO).map(|_| ())
            });
            if self.tally.count(Work::Fresh, begun, outcome) {
                gap.answer(self.tally);
            }
            thread::sleep(PAUSE);
        }
    }

    fn keep_alive(&self) {
        let request = self.request("keep-alive");
        let mut gap = Gap::default();
        let mut kept: Option<TcpStream> = None;
        while self.goes_on() {
            let begun = Instant::now();
            let outcome = self.ask_again(&mut kept, &request);
            if self.tally.count(Work::KeepAlive, begun, outcome) {
                gap.answer(self.tally);
            }
            thread::sleep(PAUSE);
        }
    }

    fn ask_again(&self, kept: &mut Option<TcpStream>, request: &[u8]) -> Result<(), Fault> {
        let mut looked = Instant::now();
        let mut stream = match kept.take() {
            None => self.connect()?,
            Some(stream) => {
                // Nothing but the look comes between the close that was seen and the request that is sent.
                stream.set_nonblocking(true)?;
                looked = Instant::now();
                match stream.peek(&mut [0]) {
                    Err(e)
                        if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                    {
                        stream
                    }
                    _ => {
                        self.tally.closed_untold.fetch_add(1, Relaxed);
                        self.connect()?
                    }
                }
            }
        };
        let sent = stream.write_all(request);
        let blind = looked.elapsed().as_micros();
        let explain = |fault: Fault| match fault {
            Fault::Failed(fault) => {
                Fault::Failed(format!("{fault}; sent within {blind} us of seeing it open"))
            }
            short => short,
        };
        sent.map_err(|e| explain(e.into()))?;
        stream.set_nonblocking(false)?;
        let closes = read_answer(&mut stream, HELLO, Duration::ZERO).map_err(explain)?;
        if closes {
            self.tally.closed_told.fetch_add(1, Relaxed);
        } else {
            *kept = Some(stream);
        }
        Ok(())
    }

    fn post(&self) {
        let Some(path) = self.server.echo() else {
            return;
        };
        let body: Vec<u8> = (0..BODY).map(|n| b'a' + (n % 23) as u8).collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {BODY}\r\n\r\n"
        );
        let ask = || {
            let mut stream = self.connect()?;
            thread::sleep(BODY_PAUSE);
            stream.write_all(head.as_bytes())?;
            for part in body.chunks(BODY / BODY_PARTS) {
                thread::sleep(BODY_PAUSE);
                stream.write_all(part)?;
            }
            read_answer(&mut stream, &body, Duration::ZERO).map(|_| ())
        };
        while self.goes_on() {
            self.tally.count(Work::Post, Instant::now(), ask());
        }
    }

    fn download(&self) {
        let expected = vec![b'x'; DOWNLOADS[1]];
        let ask = |size: usize| {
            let path = self.server.download(size);
            let mut stream = self.connect()?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            )?;
            read_answer(&mut stream, &expected[..size], DOWNLOAD_TIME).map(|_| ())
        };
        for size in DOWNLOADS.into_iter().cycle() {
            if !self.goes_on() {
                return;
            }
            self.tally.count(Work::Download, Instant::now(), ask(size));
        }
    }
}

pub const HELLO: &[u8] = b"Hello, World!";

/// The times between one client's answers.
#[derive(Default)]
struct Gap(Option<Instant>);

impl Gap {
    fn answer(&mut self, tally: &Tally) {
        let now = Instant::now();
        if let Some(last) = self.0.replace(now) {
            let gap = now.duration_since(last).as_micros() as u64;
            tally.gap_micros.fetch_max(gap, Relaxed);
        }
    }
}

/// Reads one whole answer, as slowly as it is told, and compares its body. Whether the server will close the connection.
fn read_answer(stream: &mut TcpStream, expected: &[u8], time: Duration) -> Result<bool, Fault> {
    let begun = Instant::now();
    let mut part = vec![0; 4096.max(expected.len() / DOWNLOAD_PARTS)];
    let mut answer = Vec::new();
    let mut head = None;
    loop {
        if head.is_none() {
            head = watch::read_head(&answer)?;
        }
        if let Some(head) = &head {
            if head.length != expected.len() {
                let wrong = format!("{} bytes instead of {}", head.length, expected.len());
                return Err(Fault::Failed(wrong));
            }
            if answer.len() >= head.size + head.length {
                return match &answer[head.size..] == expected {
                    true => Ok(head.closes),
                    false => Err(Fault::Failed("another body".to_string())),
                };
            }
        }
        let fault = match stream.read(&mut part) {
            Ok(0) => "closed".to_string(),
            Ok(n) => {
                answer.extend_from_slice(&part[..n]);
                let due = time.mul_f64(answer.len() as f64 / expected.len() as f64);
                thread::sleep(due.saturating_sub(begun.elapsed()));
                continue;
            }
            // So it is after this program was stopped and continued.
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => e.to_string(),
        };
        return Err(match answer.len() {
            0 => Fault::Failed(format!("{fault} without an answer")),
            read => Fault::Short(format!("{fault} after {read} bytes")),
        });
    }
}
