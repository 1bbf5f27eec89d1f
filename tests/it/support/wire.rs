//! A connection to a server: what is sent on it, and the answers, checked for their framing.

use crate::support::{PATIENCE, pause};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

/// A connection to a server, with a limit on every wait.
pub struct Wire {
    pub stream: TcpStream,
    /// Received and not yet given out.
    rest: Vec<u8>,
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Wire {
        // It may be gone already, which is seen when it is used.
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let _ = stream.set_nodelay(true);
        Wire {
            stream,
            rest: Vec::new(),
        }
    }
}

impl Wire {
    #[track_caller]
    pub fn to(address: impl ToSocketAddrs) -> Wire {
        Wire::from(TcpStream::connect(address).expect("a connection"))
    }

    #[track_caller]
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream
            .write_all(text.as_ref())
            .expect("the request goes out");
    }

    /// The next answer; one to HEAD with `answer_without_body`.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.read_answer(true).expect("an answer")
    }

    #[track_caller]
    pub fn answer_without_body(&mut self) -> Answer {
        self.read_answer(false).expect("an answer")
    }

    /// The next answer, or why there was none.
    pub fn read_answer(&mut self, has_body: bool) -> Result<Answer, String> {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if self.more()? == 0 {
                return Err(format!(
                    "the connection ended after {:?}",
                    String::from_utf8_lossy(&self.rest)
                ));
            }
        };
        let head = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        self.rest.drain(..end + 4);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or(format!("no status in {head:?}"))?;
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let length = answer
            .header("Content-Length")
            .map_or(0, |length| length.parse().unwrap());
        if has_body && answer.header("Transfer-Encoding") == Some("chunked") {
            answer.body = self.chunks()?;
        } else if has_body {
            while self.rest.len() < length {
                if self.more()? == 0 {
                    return Err(format!("{} of {length} body bytes", self.rest.len()));
                }
            }
            answer.body = self.rest.drain(..length).collect();
        }
        Ok(answer)
    }

    /// A chunked body, put together.
    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.rest.windows(2).position(|two| two == b"\r\n") {
                    Some(at) => break at,
                    None if self.more()? == 0 => return Err("the end in a chunk size".to_owned()),
                    None => {}
                }
            };
            let size = String::from_utf8_lossy(&self.rest[..end]).into_owned();
            let size =
                usize::from_str_radix(&size, 16).map_err(|error| format!("{size}: {error}"))?;
            let (start, end) = (end + 2, end + 2 + size + 2);
            while self.rest.len() < end {
                if self.more()? == 0 {
                    return Err(format!("the end after {} body bytes", body.len()));
                }
            }
            if &self.rest[end - 2..end] != b"\r\n" {
                return Err("a chunk does not end where its size says".to_owned());
            }
            body.extend_from_slice(&self.rest[start..end - 2]);
            self.rest.drain(..end);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Everything up to the end of the connection, and whether that was in good order.
    pub fn rest(&mut self) -> (Vec<u8>, bool) {
        let ended = loop {
            match self.more() {
                Ok(0) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        (std::mem::take(&mut self.rest), ended)
    }

    /// Waits until something can be read, and leaves it where it is.
    #[track_caller]
    pub fn wait_begun(&self) {
        let peeked = retry(|| self.stream.peek(&mut [0]));
        assert_eq!(peeked.expect("an answer begins"), 1, "it is closed");
    }

    fn more(&mut self) -> Result<usize, String> {
        let mut buffer = [0; 65536];
        let count = retry(|| self.stream.read(&mut buffer)).map_err(|error| error.to_string())?;
        self.rest.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Whether the server closed the connection in good order, with nothing more on it.
    pub fn is_closed(&mut self) -> bool {
        self.rest.is_empty() && matches!(self.more(), Ok(0))
    }

    /// Asks, and reads the answer; why there was none.
    pub fn ask(&mut self, request: &str) -> Result<Answer, String> {
        self.stream
            .write_all(request.as_bytes())
            .map_err(|error| format!("send: {error}"))?;
        self.read_answer(true)
    }

    /// The answer to one more request on this connection.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(get(target));
        self.answer()
    }

    /// Sends what the server may well not want to read to its end.
    pub fn try_send(&mut self, text: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(text.as_ref());
    }

    /// Sends so many bytes at a time, with a pause after each; stops where the server does not want more.
    pub fn drip(&mut self, text: &str, size: usize, pauses: u32) {
        for piece in text.as_bytes().chunks(size) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
            (0..pauses).for_each(|_| pause());
        }
    }

    /// What is left of an answer and so many bytes more at most, then a pause; nothing at the end.
    pub fn gulp(&mut self, most: usize) -> Result<Vec<u8>, String> {
        let mut taken = std::mem::take(&mut self.rest);
        let before = taken.len();
        taken.resize(before + most, 0);
        let count = retry(|| self.stream.read(&mut taken[before..]));
        taken.truncate(before + count.map_err(|error| error.to_string())?);
        pause();
        Ok(taken)
    }

    /// The same, where it matters only how many they were.
    pub fn sip(&mut self, most: usize) -> Result<usize, String> {
        self.gulp(most).map(|taken| taken.len())
    }

    /// Whether the connection is over, in good order or not, with nothing more on it.
    pub fn is_gone(&mut self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        let mut byte = [0];
        match retry(|| self.stream.read(&mut byte)) {
            Ok(count) => count == 0 && self.rest.is_empty(),
            Err(error) => matches!(error.kind(), ConnectionReset | BrokenPipe),
        }
    }

    /// Whether the connection is open with nothing to read.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.rest.is_empty()
            && read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Everything before the blank line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }
}

/// A read with a time limit is not taken up again by the kernel after a stop or a tracer: signal(7).
fn retry<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A plain request on a connection that stays open.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n")
}

/// A request with a body on a connection that stays open.
pub fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A request with a chunked body, in chunks of this size, on a connection that stays open.
pub fn post_chunked(target: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut text = head.into_bytes();
    for piece in body.chunks(size) {
        text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

/// So many bytes of which no stretch is like the next.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| b'a' + ((at ^ (at >> 7) ^ (at >> 15)) % 23) as u8)
        .collect()
}

/// Turned away at once for want of room, and told when to come again.
#[track_caller]
pub fn assert_overloaded(wire: &mut Wire) {
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Retry-After")),
        (503, Some("1"))
    );
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(wire.is_closed());
}
