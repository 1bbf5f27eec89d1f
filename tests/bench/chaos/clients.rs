//! The clients: what they ask for, and that each byte of the answer is the right one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::{Fault, PATIENCE, Random, Shared, Whose};
use crate::clients::HELLO;

/// Bytes of an upload at the most: below the default of `app.max_body`.
const UPLOAD: usize = 300_000;
const PIPELINED: usize = 8;
const IDLE: usize = 60;
/// What a slow client takes for a body, and in how many parts: less than a drain may last.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_PARTS: usize = 10;
/// More than the kernel's buffers take.
const BIG: usize = 8_000_000;

type Turn = fn(&mut Client) -> Result<(), Fault>;

/// What a client does over and over.
pub struct Kind {
    pub name: &'static str,
    pub clients: u32,
    /// Times per second, each client.
    pace: f64,
    turn: Turn,
}

const fn kind(name: &'static str, clients: u32, pace: f64, turn: Turn) -> Kind {
    Kind {
        name,
        clients,
        pace,
        turn,
    }
}

pub const KINDS: [Kind; 13] = [
    kind("keep-alive", 6, 30.0, Client::keep_alive),
    kind("fresh", 3, 30.0, Client::fresh),
    kind("pipelined", 2, 8.0, Client::pipelined),
    kind("idle keep-alive", 1, 10.0, Client::idle),
    kind("head", 1, 10.0, Client::head),
    kind("upload", 2, 8.0, Client::upload),
    kind("chunked upload", 2, 8.0, Client::chunked_upload),
    kind("slow upload", 2, 0.5, Client::slow_upload),
    kind("slow chunks", 2, 0.5, Client::slow_chunks),
    kind("large", 1, 4.0, Client::large),
    kind("slow download", 2, 0.5, Client::slow_download),
    kind("streamed", 2, 8.0, Client::streamed),
    kind("abrupt", 2, 5.0, Client::abrupt),
];

struct Wire {
    stream: TcpStream,
    whose: Whose,
    rest: Vec<u8>,
}

struct Answer {
    status: u16,
    length: Option<usize>,
    body: Vec<u8>,
    closes: bool,
}

/// One client.
pub struct Client {
    shared: Arc<Shared>,
    kind: usize,
    random: Random,
    kept: Vec<Wire>,
    /// The connection in use, and what it is used for: for the words when it fails.
    whose: Option<Whose>,
    what: String,
    turns: usize,
}

impl Client {
    pub fn new(shared: &Arc<Shared>, kind: usize, number: u32, seed: u64) -> Client {
        Client {
            shared: Arc::clone(shared),
            kind,
            random: Random::new(seed ^ (1 + kind as u64 * 1000 + u64::from(number)) << 20),
            kept: Vec::new(),
            whose: None,
            what: String::new(),
            turns: 0,
        }
    }

    pub fn work(&mut self) {
        let kind = &KINDS[self.kind];
        let step = Duration::from_secs_f64(1.0 / kind.pace);
        let mut due = Instant::now() + step.mul_f64(self.random.below(1000) as f64 / 1000.0);
        while !self.shared.stop.is_set() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let from = Instant::now();
            due = from.max(due) + step;
            self.turns += 1;
            self.whose = None;
            if let Err(fault) = (kind.turn)(self) {
                self.shared
                    .wrong(self.kind, &self.what, self.whose, from, &fault);
            }
        }
    }

    fn connect(&mut self) -> Result<Wire, Fault> {
        let port = self.shared.port.load(Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let opened = Instant::now();
        let lost = |what: &str, e: std::io::Error| {
            let text = format!("{what}: {e}");
            match e.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Fault::Hangs(text),
                _ => Fault::Lost(text),
            }
        };
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| lost("connect", e))?;
        let local = stream.local_addr().map_err(|e| lost("connect", e))?;
        if local == address {
            return Err(Fault::Lost("connect: refused".to_owned()));
        }
        let set = || {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)
        };
        set().map_err(|e| lost("connect", e))?;
        let whose = Whose {
            local: local.port(),
            port,
            opened,
        };
        self.whose = Some(whose);
        Ok(Wire {
            stream,
            whose,
            rest: Vec::new(),
        })
    }

    /// The connection kept longest, or a new one. Who kept one to the address before follows to the new one.
    fn wire(&mut self) -> Result<Wire, Fault> {
        let port = self.shared.port.load(Relaxed);
        self.kept.retain(|wire| wire.whose.port == port);
        if self.kept.is_empty() {
            return self.connect();
        }
        let wire = self.kept.remove(0);
        self.whose = Some(wire.whose);
        Ok(wire)
    }

    fn keep(&mut self, wire: Wire, answer: &Answer) {
        if !answer.closes {
            self.kept.push(wire);
        }
    }

    /// Compares, counts.
    fn check(&self, answer: &Answer, status: u16, body: &[u8]) -> Result<(), Fault> {
        if answer.status != status {
            let text =
                String::from_utf8_lossy(&answer.body[..answer.body.len().min(80)]).into_owned();
            return Err(Fault::Wrong(format!(
                "answered {} instead of {status}: {text}",
                answer.status
            )));
        }
        if answer.body != body {
            let pairs = answer.body.iter().zip(body);
            let same = pairs.take_while(|(came, due)| came == due).count();
            let text = format!(
                "{} bytes instead of {}, the first {same} are right, then {:?} instead of {:?}",
                answer.body.len(),
                body.len(),
                String::from_utf8_lossy(&answer.body[same..(same + 40).min(answer.body.len())]),
                String::from_utf8_lossy(&body[same..(same + 40).min(body.len())])
            );
            return Err(Fault::Wrong(text));
        }
        self.shared.right(self.kind, status);
        Ok(())
    }

    fn get(&mut self, mut wire: Wire, target: &str, expected: &[u8]) -> Result<(), Fault> {
        self.what = format!("GET {target}");
        wire.send(get(target, ""))?;
        let answer = wire.answer(false, Duration::ZERO)?;
        self.check(&answer, 200, expected)?;
        self.keep(wire, &answer);
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), Fault> {
        self.what = "connect".to_owned();
        let mut wire = self.wire()?;
        if self.turns % 16 != 0 {
            return self.get(wire, "/hello", HELLO);
        }
        self.what = "GET /nowhere".to_owned();
        wire.send(get("/nowhere", ""))?;
        let answer = wire.answer(false, Duration::ZERO)?;
        let body = answer.body.clone();
        self.check(&answer, 404, &body)?;
        self.keep(wire, &answer);
        Ok(())
    }

    fn fresh(&mut self) -> Result<(), Fault> {
        self.what = "GET /hello, a connection for it alone".to_owned();
        let mut wire = self.connect()?;
        wire.send(get("/hello", "Connection: close\r\n"))?;
        let answer = wire.answer(false, Duration::ZERO)?;
        self.check(&answer, 200, HELLO)
    }

    /// What stands behind an answer that announces the end of the connection counts no more.
    fn pipelined(&mut self) -> Result<(), Fault> {
        self.what = "connect".to_owned();
        let mut wire = self.wire()?;
        let sizes: Vec<usize> = (0..PIPELINED).map(|_| self.random.below(3000)).collect();
        let requests = sizes
            .iter()
            .map(|size| get(&format!("/bytes?n={size}"), ""));
        wire.send(requests.collect::<String>())?;
        for (number, size) in sizes.iter().enumerate() {
            self.what = format!("GET /bytes?n={size}, number {number} of {PIPELINED} sent at once");
            let answer = wire.answer(false, Duration::ZERO)?;
            self.check(&answer, 200, &vec![b'x'; *size])?;
            if answer.closes {
                return Ok(());
            }
        }
        self.kept.push(wire);
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Fault> {
        self.what = "connect".to_owned();
        let port = self.shared.port.load(Relaxed);
        self.kept.retain(|wire| wire.whose.port == port);
        if self.kept.len() < IDLE {
            let wire = self.connect()?;
            return self.get(wire, "/hello", HELLO);
        }
        self.keep_alive()
    }

    fn head(&mut self) -> Result<(), Fault> {
        self.what = "HEAD /hello".to_owned();
        let mut wire = self.wire()?;
        wire.send("HEAD /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
        let answer = wire.answer(true, Duration::ZERO)?;
        if answer.length != Some(HELLO.len()) {
            return Err(Fault::Wrong(format!(
                "HEAD with length {:?}",
                answer.length
            )));
        }
        self.check(&answer, 200, b"")?;
        self.keep(wire, &answer);
        Ok(())
    }

    fn upload(&mut self) -> Result<(), Fault> {
        self.send_body(false, Duration::ZERO)
    }

    fn chunked_upload(&mut self) -> Result<(), Fault> {
        self.send_body(true, Duration::ZERO)
    }

    fn slow_upload(&mut self) -> Result<(), Fault> {
        self.send_body(false, SLOW)
    }

    fn slow_chunks(&mut self) -> Result<(), Fault> {
        self.send_body(true, SLOW)
    }

    /// Random bytes, which come back.
    fn send_body(&mut self, chunked: bool, time: Duration) -> Result<(), Fault> {
        let size = 1 + self.random.below(UPLOAD);
        let body: Vec<u8> = (0..size).map(|_| self.random.below(256) as u8).collect();
        let framing = match chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {size}"),
        };
        self.what = format!(
            "POST /echo, {framing}, {size} bytes in {} s",
            time.as_secs()
        );
        let head = format!("POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n");
        let mut wire = match self.turns % 4 {
            0 => self.connect()?,
            _ => self.wire()?,
        };
        wire.send(head)?;
        for part in body.chunks((size / SLOW_PARTS).max(1)) {
            if chunked {
                wire.send([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())?;
            } else {
                wire.send(part)?;
            }
            thread::sleep(time / SLOW_PARTS as u32);
        }
        if chunked {
            wire.send("0\r\n\r\n")?;
        }
        let answer = wire.answer(false, Duration::ZERO)?;
        self.check(&answer, 200, &body)?;
        self.keep(wire, &answer);
        self.kept.truncate(2);
        Ok(())
    }

    fn large(&mut self) -> Result<(), Fault> {
        self.what = "connect".to_owned();
        let wire = self.wire()?;
        let size = 500_000 + self.random.below(2_000_000);
        match self.turns % 2 {
            0 => self.get(wire, "/file?name=large", &super::service::large()),
            _ => self.get(wire, &format!("/bytes?n={size}"), &vec![b'x'; size]),
        }
    }

    fn slow_download(&mut self) -> Result<(), Fault> {
        self.what = format!("GET /bytes?n={BIG}, read in {} s", SLOW.as_secs());
        let mut wire = self.wire()?;
        wire.send(get(&format!("/bytes?n={BIG}"), ""))?;
        let answer = wire.answer(false, SLOW)?;
        self.check(&answer, 200, &vec![b'x'; BIG])?;
        self.keep(wire, &answer);
        Ok(())
    }

    /// Without a length, in chunks, and with one.
    fn streamed(&mut self) -> Result<(), Fault> {
        self.what = "connect".to_owned();
        let (pieces, size) = (self.random.below(200), 1 + self.random.below(5000));
        let length = match self.turns % 2 {
            0 => format!("&length={}", pieces * size),
            _ => String::new(),
        };
        let wire = self.wire()?;
        let target = format!("/stream?pieces={pieces}&size={size}{length}");
        self.get(wire, &target, &vec![b'p'; pieces * size])
    }

    /// Goes away in the middle of something. Only a connection that cannot be made is a failure.
    fn abrupt(&mut self) -> Result<(), Fault> {
        self.what = "connect, and go away".to_owned();
        let mut wire = self.connect()?;
        let big = get("/bytes?n=300000", "");
        let sent: &str = match self.turns % 6 {
            0 => "",
            1 => "GET /hello HTTP/1.1\r\nHost: 127.",
            2 => "GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            3 => {
                "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 200000\r\n\r\nonly this"
            }
            _ => &big,
        };
        let _ = wire.send(sent);
        if self.turns % 6 == 5 {
            let _ = wire.stream.read(&mut [0; 1000]);
        }
        self.shared.right(self.kind, 0);
        Ok(())
    }
}

impl Wire {
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        match self.stream.write_all(bytes.as_ref()) {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Err(Fault::Hangs(format!("send: {e}")))
            }
            // What the server had to say before it closed is of more use.
            Err(e) => match self.answer(true, Duration::ZERO) {
                Ok(answer) => Err(Fault::Lost(format!(
                    "send: {e}; answered {}",
                    answer.status
                ))),
                Err(_) => Err(Fault::Lost(format!("send: {e}"))),
            },
        }
    }

    /// One whole answer, as slowly as it is told.
    fn answer(&mut self, bodiless: bool, time: Duration) -> Result<Answer, Fault> {
        let begun = Instant::now();
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.receive("no head")?;
        };
        let head = String::from_utf8_lossy(&self.rest[..end]).to_ascii_lowercase();
        self.rest.drain(..end);
        let field = |name: &str| {
            let line = head
                .split("\r\n")
                .find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        let status = head
            .strip_prefix("http/1.1 ")
            .and_then(|rest| rest[..3].parse().ok());
        let status = status.ok_or_else(|| Fault::Wrong(format!("no answer but {head:?}")))?;
        let length: Option<usize> = field("content-length:").and_then(|value| value.parse().ok());
        let mut answer = Answer {
            status,
            length,
            body: Vec::new(),
            closes: field("connection:").as_deref() == Some("close"),
        };
        if bodiless {
            return Ok(answer);
        }
        if field("transfer-encoding:").as_deref() == Some("chunked") {
            answer.body = self.chunks()?;
            return Ok(answer);
        }
        let Some(length) = length else {
            return Err(Fault::Wrong(format!("neither length nor chunks: {head:?}")));
        };
        while self.rest.len() < length {
            self.receive(&format!("of {length}"))?;
            let share = self.rest.len() as f64 / length as f64;
            thread::sleep(time.mul_f64(share.min(1.0)).saturating_sub(begun.elapsed()));
        }
        let behind = self.rest.split_off(length);
        answer.body = std::mem::replace(&mut self.rest, behind);
        Ok(answer)
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.rest.windows(2).position(|two| two == b"\r\n") {
                    Some(at) => break at,
                    None => self.receive("in a chunk's size")?,
                }
            };
            let text = String::from_utf8_lossy(&self.rest[..end]).into_owned();
            let size = usize::from_str_radix(&text, 16).map_err(|_| {
                Fault::Wrong(format!(
                    "a chunk of size {text:?} after {} bytes",
                    body.len()
                ))
            })?;
            let whole = end + 2 + size + 2;
            while self.rest.len() < whole {
                self.receive("in a chunk")?;
            }
            if &self.rest[whole - 2..whole] != b"\r\n" {
                return Err(Fault::Wrong("a chunk longer than its size".to_owned()));
            }
            body.extend_from_slice(&self.rest[end + 2..whole - 2]);
            self.rest.drain(..whole);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn receive(&mut self, where_: &str) -> Result<(), Fault> {
        let mut part = [0; 64 * 1024];
        let text = |why: &str| format!("{why} after {} bytes {where_}", self.rest.len());
        match self.stream.read(&mut part) {
            Ok(0) => Err(Fault::Lost(text("closed"))),
            Ok(count) => {
                self.rest.extend_from_slice(&part[..count]);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Err(Fault::Hangs(text("nothing more")))
            }
            Err(e) => Err(Fault::Lost(text(&e.to_string()))),
        }
    }
}

fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n")
}
