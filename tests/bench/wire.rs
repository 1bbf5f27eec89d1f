//! A connection for clients that look closely: several answers on one connection, of any status, and slow reading.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::watch::{self, CAP, Head};

const PART: usize = 64 * 1024;
/// Reads that a slowly read answer takes.
const SLOW_PARTS: usize = 50;

pub struct Wire {
    stream: TcpStream,
    /// What was received behind the last answer.
    rest: Vec<u8>,
    part: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    /// What the head says of the body's length.
    pub length: usize,
    pub body: Vec<u8>,
    /// The server says that it will close the connection.
    pub closes: bool,
}

impl Wire {
    pub fn to(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&address, CAP).map_err(|e| format!("connect: {e}"));
        let stream = stream?;
        let set = || {
            stream.set_read_timeout(Some(CAP))?;
            stream.set_write_timeout(Some(CAP))?;
            stream.set_nodelay(true)
        };
        set().map_err(|e: io::Error| e.to_string())?;
        Ok(Self {
            stream,
            rest: Vec::new(),
            part: vec![0; PART],
        })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), String> {
        self.stream
            .write_all(bytes.as_ref())
            .map_err(|e| format!("send: {e}"))
    }

    /// Reads one whole answer.
    pub fn answer(&mut self) -> Result<Answer, String> {
        self.read_answer(false, Duration::ZERO)
    }

    /// Reads the answer to HEAD.
    pub fn bodiless_answer(&mut self) -> Result<Answer, String> {
        self.read_answer(true, Duration::ZERO)
    }

    /// Reads one whole answer in this time, evenly.
    pub fn slow_answer(&mut self, time: Duration) -> Result<Answer, String> {
        self.read_answer(false, time)
    }

    /// Reads no more than this many bytes and forgets them.
    pub fn sip(&mut self, most: usize) {
        let most = most.min(self.part.len());
        let _ = self.stream.read(&mut self.part[..most]);
    }

    fn read_answer(&mut self, bodiless: bool, time: Duration) -> Result<Answer, String> {
        let begun = Instant::now();
        let head = loop {
            match watch::read_any_head(&self.rest).map_err(|e| e.to_string())? {
                Some(head) => break head,
                None => self.receive(PART)?,
            }
        };
        let body = if bodiless { 0 } else { head.length };
        let most = match time {
            Duration::ZERO => PART,
            _ => (body / SLOW_PARTS).clamp(1, PART * 4),
        };
        self.part.resize(most.max(PART), 0);
        while self.rest.len() < head.size + body {
            self.receive(most)
                .map_err(|e| format!("{e} of {}", head.size + body))?;
            let share = self.rest.len() as f64 / (head.size + body) as f64;
            thread::sleep(time.mul_f64(share).saturating_sub(begun.elapsed()));
        }
        let Head {
            status,
            size,
            length,
            closes,
        } = head;
        let rest = self.rest.split_off(size + body);
        let body = std::mem::replace(&mut self.rest, rest).split_off(size);
        Ok(Answer {
            status,
            length,
            body,
            closes,
        })
    }

    fn receive(&mut self, most: usize) -> Result<(), String> {
        let fault = match self.stream.read(&mut self.part[..most]) {
            Ok(0) => "closed".to_string(),
            Ok(count) => {
                self.rest.extend_from_slice(&self.part[..count]);
                return Ok(());
            }
            // So it is after this program was stopped and continued.
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(e) => e.to_string(),
        };
        Err(format!("{fault} after {} bytes", self.rest.len()))
    }
}
