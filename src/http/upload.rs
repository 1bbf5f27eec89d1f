//! A request's body as the handler reads it: what the gate collected, and of a longer one the rest, straight from the
//! client's socket, through the same framing and under the same bounds. The handler's thread waits for it; how many
//! threads may do so at once is the gate's to see to.
#![forbid(unsafe_code)]

use super::body::{Chunked, Progress};
use super::client::Client;
use super::head::Refusal;
use super::permits::Permit;
use crate::sys::fd::{self, Wait};
use crate::sys::socket;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes per second that a client has to send, or to take of its answer, once it has had `app.io_timeout` for a start.
pub(crate) const LEAST_RATE: u64 = 500;
/// Bytes asked of the socket at a time.
const PIECE: usize = 16 * 1024;
/// Longest wait at a time, so that it is known when it was far longer than it should be.
const STEP: Duration = Duration::from_secs(1);
/// Bytes of a body nobody read that are taken from the socket to save the connection, if they are there already.
const SKIP: usize = 64 * 1024;

/// The refusal of a client that stops sending its body, or drips it.
pub(crate) const BODY_TOO_SLOW: Refusal = Refusal::new(408, "the request body took too long");

/// What a handler is told that reads the body of a client that is gone.
pub(crate) const GONE: &str = "the client is gone";

/// How the end of what is still to come is found.
pub(crate) enum Framing {
    /// So many bytes are left.
    Known(u64),
    Chunked(Chunked),
}

/// Why the rest of a body cannot be had.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    /// The client is to be told.
    Refused(Refusal),
    /// The client is gone.
    Gone,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        match failure {
            Failure::Gone => io::Error::new(ErrorKind::UnexpectedEof, GONE),
            Failure::Refused(why) if why.status == 408 => {
                io::Error::new(ErrorKind::TimedOut, why.reason)
            }
            Failure::Refused(why) => io::Error::new(ErrorKind::InvalidData, why.reason),
        }
    }
}

/// The part of a long body that is still to come.
pub(crate) struct Rest {
    pub client: Arc<Client>,
    pub framing: Framing,
    /// Most bytes of the whole body.
    pub max: u64,
    /// Longest time without progress.
    pub progress: Duration,
    /// When the body began, and how much of it has come.
    pub since: Instant,
    pub received: u64,
    /// To read at the same time as others; given back as soon as the body is complete.
    pub _permit: Permit,
}

/// A body: what has arrived, and what is still to come.
#[derive(Default)]
pub(crate) struct Body {
    arrived: Vec<u8>,
    /// How much of it the handler has read.
    at: usize,
    rest: Option<Box<Rest>>,
    failure: Option<Failure>,
    /// Not a byte of it was asked for, and none will be: the client was not told to go on, or not listened to.
    unwanted: bool,
    /// What came after the body: the next request, which is the gate's.
    surplus: Vec<u8>,
}

impl Body {
    pub fn new(arrived: Vec<u8>, rest: Option<Box<Rest>>) -> Body {
        Body {
            arrived,
            rest,
            ..Body::default()
        }
    }

    /// One that was refused when it had come so far: it is too long, or it is not what a body may be.
    pub fn refused(why: Refusal) -> Body {
        Body {
            failure: Some(Failure::Refused(why)),
            ..Body::unwanted()
        }
    }

    /// One that is refused unread.
    pub fn unwanted() -> Body {
        Body {
            unwanted: true,
            ..Body::default()
        }
    }

    /// Everything that was not read yet, in memory.
    pub fn whole(&mut self) -> io::Result<&[u8]> {
        if let (Some(Framing::Known(left)), true) = (
            self.rest.as_ref().map(|rest| &rest.framing),
            self.failure.is_none(),
        ) {
            let left = usize::try_from(*left).unwrap_or(usize::MAX);
            self.arrived
                .try_reserve_exact(left)
                .map_err(|_| ErrorKind::OutOfMemory)?;
        }
        while self.wait_for_more()? {}
        Ok(&self.arrived[self.at..])
    }

    /// Adds what comes next to `arrived`; false at the end of the body.
    fn wait_for_more(&mut self) -> Result<bool, Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let Some(rest) = &mut self.rest else {
            return Ok(false);
        };
        let came = rest.wait(&mut self.arrived, &mut self.surplus, None);
        self.settle(came).map(|_| true)
    }

    /// Remembers what a read came to; true when the body is complete.
    fn settle(&mut self, came: Result<bool, Failure>) -> Result<bool, Failure> {
        match came {
            Ok(true) => self.rest = None,
            Ok(false) => {}
            Err(failure) => {
                self.failure = Some(failure);
                self.rest = None;
            }
        }
        came
    }

    /// The request is answered. Whether its body is out of the way, so that the next request can follow on the same
    /// connection; and what came of that already. What has not come by now is not waited for.
    pub fn finish(&mut self) -> (bool, Vec<u8>) {
        let mut skipped = Vec::new();
        while let Some(rest) = &mut self.rest {
            let came = rest.wait(&mut skipped, &mut self.surplus, Some(Duration::ZERO));
            if self.settle(came).is_err() || skipped.len() > SKIP {
                break;
            }
        }
        let is_clean = self.rest.is_none() && self.failure.is_none() && !self.unwanted;
        self.rest = None;
        (is_clean, std::mem::take(&mut self.surplus))
    }

    /// Whether all of it has come.
    pub fn is_complete(&self) -> bool {
        self.rest.is_none() && !self.unwanted
    }

    /// Bytes of it that are in memory.
    pub fn held(&self) -> usize {
        self.arrived.len()
    }

    /// What went wrong while it was read.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.arrived.len() {
            self.arrived.clear();
            self.at = 0;
            while self.arrived.is_empty() && self.wait_for_more()? {}
        }
        let count = buffer.len().min(self.arrived.len() - self.at);
        buffer[..count].copy_from_slice(&self.arrived[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Rest {
    /// Waits for the next bytes, as long as the client is allowed to take or as `patience` says, and takes the framing
    /// off. True when the body is complete. What comes after it is left in `surplus`.
    fn wait(
        &mut self,
        out: &mut Vec<u8>,
        surplus: &mut Vec<u8>,
        patience: Option<Duration>,
    ) -> Result<bool, Failure> {
        let mut piece = [0; PIECE];
        let room = match &self.framing {
            Framing::Known(0) => return Ok(true),
            Framing::Known(left) => usize::try_from(*left).unwrap_or(PIECE).min(PIECE),
            Framing::Chunked(_) => PIECE,
        };
        let begun = Instant::now();
        // Beyond the first allowance, what has come buys the time for more.
        let bought = Duration::from_millis(self.received.saturating_mul(1000) / LEAST_RATE);
        let mut deadline = (begun + self.progress).min(self.since + self.progress + bought);
        let count = loop {
            match socket::receive(self.client.as_fd(), &mut piece[..room]) {
                Ok(0) => return Err(Failure::Gone),
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Failure::Gone),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = patience.map_or(left, |patience| left.min(patience));
            if left.is_zero() {
                return Err(Failure::Refused(BODY_TOO_SLOW));
            }
            let (step, before) = (left.min(STEP), Instant::now());
            let _ = fd::poll(&mut [Wait::borrowed(self.client.as_fd())], Some(step));
            let late = before.elapsed().saturating_sub(step);
            if late > STEP {
                // The process was kept from running, and the client's time does not run either.
                self.since += late;
                deadline += late;
            }
        };
        self.received += count as u64;
        match &mut self.framing {
            Framing::Known(left) => {
                out.extend_from_slice(&piece[..count]);
                *left -= count as u64;
                Ok(*left == 0)
            }
            Framing::Chunked(decoder) => {
                let max = usize::try_from(self.max).unwrap_or(usize::MAX);
                let (used, progress) = decoder
                    .decode(&piece[..count], out, max)
                    .map_err(Failure::Refused)?;
                surplus.extend_from_slice(&piece[used..count]);
                Ok(progress == Progress::Done)
            }
        }
    }
}
