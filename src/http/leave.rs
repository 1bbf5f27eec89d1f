//! How a worker leaves, and how one takes over from another that leaves. A restart closes no connection: those without a
//! request go to the new worker, sockets and all (SCM_RIGHTS, `unix(7)`), the others when they are answered.
#![forbid(unsafe_code)]

use super::client::{Client, Token};
use super::connection::{Connection, Reading};
use super::exchange::Exchange;
use super::orders::{Drain, Drained, Leave, Why};
use super::table::Table;
use crate::sys::epoll::Interest;
use crate::sys::socket;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Cut requests that the log names one by one; the rest is counted.
const NAMED_CUTS: usize = 10;

/// Milliseconds before the end in which every answer is the last on its connection, where nobody takes them over.
const LAST_ANSWERS: u64 = 2000;
/// The same where somebody does: who reads an answer that the gate has not heard of when the worker ends, and asks for more,
/// would find the connection closed.
const LAST_WITH_HEIR: u64 = 200;

/// The drain, and what goes from one worker to the next.
pub(super) struct Leaving {
    exchange: Arc<Exchange>,
    drain: Option<Drain>,
    /// Who takes connections without a request over, during a restart; and whether it has no room at the moment.
    heir: Option<OwnedFd>,
    heir_is_full: bool,
    /// Workers that leave, whose connections come here.
    sources: Vec<OwnedFd>,
    /// Which of them is heard.
    heard: usize,
    /// What one of them has sent finds no room here at the moment.
    has_no_room: bool,
}

/// What became of a connection that was passed on.
pub(super) enum Passed {
    /// The heir has it.
    Over,
    /// Nothing; it stays for now.
    Kept,
    /// Nothing: too many descriptors are under way between processes (ETOOMANYREFS, `unix(7)`), and they are fewer soon.
    TryLater,
    /// There is no heir any more.
    Failed(io::Error),
}

impl Leaving {
    pub fn new(exchange: Arc<Exchange>) -> Leaving {
        Leaving {
            exchange,
            drain: None,
            heir: None,
            heir_is_full: false,
            sources: Vec::new(),
            heard: 0,
            has_no_room: false,
        }
    }

    /// The drain under way.
    pub fn drain(&self) -> Option<Drain> {
        self.drain
    }

    /// From now on the worker leaves.
    pub fn start(&mut self, leave: Leave, now: u64) {
        let left = leave.deadline.saturating_duration_since(Instant::now());
        self.drain = Some(Drain {
            deadline: now + left.as_millis() as u64,
            why: leave.why,
        });
        if matches!(leave.why, Why::Stop | Why::Orphaned) {
            self.exchange.set_ending();
        }
        self.set_heir(leave.heir);
        self.exchange.set_draining(self.heir.is_none());
    }

    fn set_heir(&mut self, heir: Option<OwnedFd>) {
        let Token(token) = Token::HEIR;
        self.heir_is_full = false;
        self.heir = heir.filter(|heir| {
            let added = self.exchange.epoll.add(heir, token, Interest::Nothing);
            added.is_ok()
        });
    }

    /// Somebody else takes over what is still here.
    pub fn inherit(&mut self, heir: OwnedFd) {
        if matches!(
            self.drain,
            Some(Drain {
                why: Why::Restart | Why::Moved,
                ..
            })
        ) {
            self.set_heir(Some(heir));
            self.exchange.set_draining(self.heir.is_none());
        }
    }

    /// In the end connections end with their answers: what begins later would be cut, and what is answered at the last
    /// moment is not passed on any more.
    pub fn look(&self, now: u64) {
        if self
            .drain
            .is_some_and(|drain| self.last_answers_from(drain) <= now)
        {
            self.exchange.set_draining(true);
        }
    }

    fn last_answers_from(&self, drain: Drain) -> u64 {
        let before = match self.heir {
            Some(_) => LAST_WITH_HEIR,
            None => LAST_ANSWERS,
        };
        drain.deadline.saturating_sub(before)
    }

    /// When there is something to do about the end, even if nothing happens.
    pub fn next_look(&self, now: u64) -> Option<u64> {
        let drain = self.drain?;
        let last_answers = self.last_answers_from(drain);
        match now < last_answers {
            true => Some(last_answers),
            false => Some(drain.deadline),
        }
    }

    /// Whether somebody takes connections over at the moment.
    pub fn has_heir(&self) -> bool {
        self.heir.is_some() && !self.heir_is_full
    }

    /// Epoll reports the heir: it has room again.
    pub fn on_heir(&mut self) {
        self.heir_is_full = false;
    }

    /// Passes a connection without a request on to the next worker.
    pub fn pass_on(&mut self, client: &Client) -> Passed {
        let Some(heir) = self.heir.as_ref().filter(|_| !self.heir_is_full) else {
            return Passed::Kept;
        };
        match socket::send_with_fd(heir.as_fd(), b"c", Some(client.as_fd())) {
            Ok(()) => Passed::Over,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let Token(token) = Token::HEIR;
                let interest = Interest::WritableOnce;
                self.heir_is_full = self.exchange.epoll.modify(heir, token, interest).is_ok();
                Passed::Kept
            }
            Err(error) if socket::is_too_many_refs(&error) => Passed::TryLater,
            Err(error) => {
                self.heir = None;
                Passed::Failed(error)
            }
        }
    }

    /// Another worker leaves, and sends its connections here. False where it cannot be watched.
    pub fn add_source(&mut self, source: OwnedFd) -> bool {
        let Token(token) = Token::SOURCE;
        // On the edge: what finds no room is not to wake anybody.
        let interest = Interest::ReadableEdge;
        let added = self.exchange.epoll.add(&source, token, interest);
        self.sources.push(source);
        added.is_ok()
    }

    /// No more than what has been sent up to now is taken over. Who would send more is told, and keeps it.
    pub fn close_sources(&self) {
        for source in &self.sources {
            socket::shutdown_read(source.as_fd());
        }
    }

    /// The next connection that was sent here; `None` when there are no more for now.
    ///
    /// # Errors
    /// There is no descriptor or memory for it. It stays where it is, to be asked for again.
    pub fn next_adopted(&mut self) -> io::Result<Option<OwnedFd>> {
        self.has_no_room = false;
        while let Some(source) = self.sources.get(self.heard) {
            match socket::take_fd(source.as_fd()) {
                Ok(Some(fd)) => return Ok(Some(fd)),
                Ok(None) => drop(self.sources.remove(self.heard)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.heard += 1,
                Err(error) => {
                    (self.heard, self.has_no_room) = (0, true);
                    return Err(error);
                }
            }
        }
        self.heard = 0;
        Ok(None)
    }

    /// Whether a connection that was sent here waits for a descriptor.
    pub fn has_no_room(&self) -> bool {
        self.has_no_room
    }

    /// What the drain came to, after so many requests that were answered, if it is over: everything is closed, or its time is up, and the rest is cut.
    pub fn over(&self, table: &Table, finished: u64, now: u64) -> Option<Drained> {
        let drain = self.drain?;
        let has_more = table.open_count() > 0 || self.has_no_room;
        if has_more && now < drain.deadline {
            return None;
        }
        let mut drained = Drained {
            finished,
            ..Drained::default()
        };
        for (_, connection) in table.iter() {
            count_cut(&mut drained, connection, now);
        }
        Some(drained)
    }
}

fn count_cut(drained: &mut Drained, connection: &Connection, now: u64) {
    let is_answering = connection.current.is_some();
    if !connection.standing().is_amid_request(is_answering) {
        return;
    }
    if is_answering {
        // The process ends, and with it the connection: not so that a part looks like the whole.
        socket::reset_on_close(connection.client.as_fd());
    }
    let name = match (&connection.current, &connection.reading) {
        (Some((checked, at)), _) => {
            let seconds = now.saturating_sub(*at) as f64 / 1000.0;
            format!("{} {}, {seconds:.1} s", checked.method(), checked.path())
        }
        (None, Reading::Body(incoming)) => {
            let checked = &incoming.checked;
            format!("{} {}, body not complete", checked.method(), checked.path())
        }
        _ => "a request whose head is not complete".to_owned(),
    };
    drained.cut += 1;
    if drained.named.len() < NAMED_CUTS {
        let origin = connection.client.origin();
        drained.named.push(format!("{name}, from {origin}"));
    }
}
