//! What comes in: reads, heads checked, bodies collected, complete requests sent on. What cannot be served is refused
//! as early as it is known (`send.rs`).
#![forbid(unsafe_code)]

use super::body::{Chunked, Progress};
use super::exchange::{Job, Loan, Loaned, Permit, Token, Work};
use super::gate::{Gate, LINGER, Phase, Reading, STREAM, is_head};
use super::head::{Length, Parser, Refusal};
use super::server;
use super::upload::{Body, Framing, Rest};
use super::{Checked, Request};
use crate::sys::epoll::Interest;
use crate::sys::socket;
use std::borrow::Cow;
use std::io::{ErrorKind, IoSlice, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a body that are collected before a thread is used; a longer one is read on by its handler.
const COLLECT: usize = 64 * 1024;
/// Milliseconds between looks at connections that are on loan.
const LOAN_LOOK: u64 = 1000;

/// A request whose body is not complete.
pub(super) struct Incoming {
    pub checked: Checked,
    pub body: Vec<u8>,
    chunked: Chunked,
    /// Most bytes of the body; `None` where nobody takes a request like this one.
    max: Option<u64>,
    /// When it began, on the exchange's clock, and how many bytes of it have come.
    begun: u64,
    received: u64,
}

impl Gate {
    /// Something happened on a connection that waited for it.
    pub(super) fn turn(&mut self, token: Token) {
        let Some(connection) = self.connection(token) else {
            return;
        };
        match connection.phase {
            // It was answered and given back without a word.
            Phase::Lent => self.come_back(token, true),
            Phase::Fresh | Phase::Idle | Phase::Head | Phase::Body => self.read(token),
            Phase::Queued => {}
            Phase::Writing => self.write(token),
            Phase::Lingering => self.discard(token),
        }
    }

    pub(super) fn read(&mut self, token: Token) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.connection(token) {
            match socket::receive(connection.client.as_fd(), &mut scratch) {
                Ok(0) => self.close(token),
                Ok(count) => {
                    self.receive(token, &scratch[..count]);
                    self.keep(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.arm(token, Interest::ReadableOnce)
                }
                Err(_) => self.close(token),
            }
        }
        self.scratch = scratch;
    }

    fn receive(&mut self, token: Token, bytes: &[u8]) {
        let Some(connection) = self.connection(token) else {
            return;
        };
        match std::mem::take(&mut connection.reading) {
            Reading::Body(incoming) => self.collect(token, incoming, bytes),
            // The usual case: a whole head in one piece, looked at where it lies.
            Reading::Nothing => self.parse(token, Parser::new(), Cow::Borrowed(bytes)),
            Reading::Head(parser) => {
                let mut input = std::mem::take(&mut connection.input);
                input.extend_from_slice(bytes);
                self.parse(token, *parser, Cow::Owned(input));
            }
        }
    }

    pub(super) fn parse(&mut self, token: Token, mut parser: Parser, input: Cow<'_, [u8]>) {
        let head = match parser.advance(&input, &self.bounds.limits) {
            Ok(Some(head)) => head,
            Ok(None) => {
                let deadline = self.now + self.bounds.head;
                let Some(connection) = self.connection(token) else {
                    return;
                };
                connection.input = input.into_owned();
                let is_begun = !parser.is_untouched();
                connection.reading = Reading::Head(Box::new(parser));
                if !is_begun {
                    // An empty line between two requests, which is not worth more than none (RFC 9112 §2.2).
                    if connection.phase == Phase::Lent {
                        connection.phase = Phase::Idle;
                    }
                    return self.arm(token, Interest::ReadableOnce);
                }
                // A new connection has had its time since it was accepted, and a begun head since its first byte.
                if connection.phase == Phase::Idle || connection.phase == Phase::Lent {
                    connection.deadline = deadline;
                }
                connection.phase = Phase::Head;
                self.due(deadline);
                return self.arm(token, Interest::ReadableOnce);
            }
            Err(why) => return self.refuse(token, why, is_head(&input)),
        };
        let (bytes, rest) = input.split_at(head.size);
        let checked = Checked {
            bytes: bytes.to_vec(),
            head,
        };
        if matches!(checked.head.length, Length::None | Length::Known(0)) {
            return self.lend(token, checked, Body::default(), rest.to_vec());
        }
        self.start_body(token, checked, rest);
    }

    /// A head with a body behind it is complete.
    fn start_body(&mut self, token: Token, checked: Checked, rest: &[u8]) {
        let max = self
            .routes
            .body_limit(checked.method(), checked.path(), self.bounds.max_body);
        let is_long = match checked.head.length {
            Length::Known(length) => {
                if max.is_some_and(|max| length > max) {
                    let why = Refusal::new(413, "body too large");
                    return self.refuse(token, why, checked.method() == "HEAD");
                }
                length > COLLECT as u64
            }
            _ => false,
        };
        let expects = checked.head.expects_continue && rest.is_empty();
        if max.is_none() && (expects || is_long) {
            // Nobody takes it, and it is not there yet: the answer need not wait for it (RFC 9110 §10.1.1).
            return self.lend(token, checked, Body::unwanted(), Vec::new());
        }
        let begun = self.now;
        let Some(connection) = self.connection(token) else {
            return;
        };
        connection.phase = Phase::Body;
        if expects {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            // Nothing else waits in this socket, so so few bytes fit, or it is of no use.
            if !socket::send(connection.client.as_fd(), &[IoSlice::new(interim)])
                .is_ok_and(|sent| sent == interim.len())
            {
                return self.close(token);
            }
        }
        let incoming = Incoming {
            checked,
            body: Vec::new(),
            chunked: Chunked::new(),
            max,
            begun,
            received: 0,
        };
        self.collect(token, Box::new(incoming), rest);
    }

    /// Adds to a body, and sends the request on when it is complete, or so long that its handler is to read it.
    fn collect(&mut self, token: Token, mut incoming: Box<Incoming>, bytes: &[u8]) {
        let max = incoming.max.unwrap_or(self.bounds.max_body);
        let (used, done) = match incoming.checked.head.length {
            Length::Chunked => {
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                match incoming.chunked.decode(bytes, &mut incoming.body, max) {
                    Ok((used, progress)) => (used, progress == Progress::Done),
                    Err(why) => {
                        return self.refuse(token, why, incoming.checked.method() == "HEAD");
                    }
                }
            }
            _ => {
                let left = incoming.left();
                let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                incoming.body.extend_from_slice(&bytes[..used]);
                (used, used as u64 == left)
            }
        };
        incoming.received += used as u64;
        if done {
            let Incoming { checked, body, .. } = *incoming;
            return self.lend(
                token,
                checked,
                Body::new(body, None),
                bytes[used..].to_vec(),
            );
        }
        let deadline = self
            .bounds
            .transfer(self.now, incoming.begun, incoming.received);
        let is_long = incoming.body.len() > COLLECT;
        if is_long {
            return self.pass_on(token, incoming);
        }
        let Some(connection) = self.connection(token) else {
            return;
        };
        connection.deadline = deadline;
        connection.reading = Reading::Body(incoming);
        self.due(deadline);
        self.arm(token, Interest::ReadableOnce);
    }

    /// A body is longer than what is collected: its handler reads the rest, when a thread may.
    fn pass_on(&mut self, token: Token, incoming: Box<Incoming>) {
        if incoming.max.is_none() {
            let Incoming { checked, .. } = *incoming;
            return self.lend(token, checked, Body::unwanted(), Vec::new());
        }
        match self.exchange.permit() {
            Some(permit) if self.uploads.is_empty() => self.upload(token, *incoming, permit),
            _ => {
                let deadline = self.now + self.bounds.progress;
                let Some(connection) = self.connection(token) else {
                    return;
                };
                connection.phase = Phase::Queued;
                connection.deadline = deadline;
                connection.reading = Reading::Body(incoming);
                self.due(deadline);
                self.uploads.push_back(token);
            }
        }
    }

    /// Lets those go on that wait to have their long bodies read, first come, first served.
    pub(super) fn next_upload(&mut self) {
        while let Some(token) = self.uploads.front().copied() {
            let is_waiting = self
                .connection(token)
                .is_some_and(|connection| connection.phase == Phase::Queued);
            if is_waiting {
                let Some(permit) = self.exchange.permit() else {
                    return;
                };
                self.uploads.pop_front();
                let reading = self
                    .connection(token)
                    .map(|connection| std::mem::take(&mut connection.reading));
                if let Some(Reading::Body(incoming)) = reading {
                    self.upload(token, *incoming, permit);
                }
            } else {
                self.uploads.pop_front();
            }
        }
    }

    fn upload(&mut self, token: Token, incoming: Incoming, permit: Permit) {
        let left = incoming.left();
        let max = incoming.max.unwrap_or(self.bounds.max_body);
        let Some(connection) = self.connection(token) else {
            return;
        };
        let client = Arc::clone(&connection.client);
        let age = Duration::from_millis(self.now.saturating_sub(incoming.begun));
        let Incoming {
            checked,
            body,
            chunked,
            received,
            ..
        } = incoming;
        let rest = Rest {
            client,
            framing: match checked.head.length {
                Length::Chunked => Framing::Chunked(chunked),
                _ => Framing::Known(left),
            },
            max,
            progress: Duration::from_millis(self.bounds.progress),
            since: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            received,
            _permit: permit,
        };
        self.lend(
            token,
            checked,
            Body::new(body, Some(Box::new(rest))),
            Vec::new(),
        );
    }

    /// Sends a request on that can be answered.
    fn lend(&mut self, token: Token, checked: Checked, body: Body, more: Vec<u8>) {
        if self.lent - self.exchange.done() >= self.bounds.room {
            let why = Refusal::new(503, "too many requests wait already");
            return self.refuse(token, why, checked.method() == "HEAD");
        }
        let size = checked.bytes.len() + body.held() + more.len();
        if self.exchange.waiting() + size > self.bounds.memory {
            let why = Refusal::new(503, "requests that wait fill the memory");
            return self.refuse(token, why, checked.method() == "HEAD");
        }
        let (checked, now) = (Arc::new(checked), self.now);
        let Some(connection) = self.connection(token) else {
            return;
        };
        connection.current = Some((Arc::clone(&checked), now));
        let request = Request {
            checked: Arc::clone(&checked),
            body,
            peer: connection.client.peer,
            draining: false,
        };
        let is_more = !more.is_empty();
        connection.input = more;
        self.exchange.slot.add_lent();
        self.lent += 1;
        self.send_on(token, Work::Answer(Box::new(request)), is_more, size);
    }

    /// Gives work to the handlers, by way of tiny_http.
    pub(super) fn send_on(&mut self, token: Token, work: Work, more: bool, size: usize) {
        let now = self.now;
        let Some(connection) = self.connection(token) else {
            return;
        };
        let Some((checked, _)) = &connection.current else {
            return;
        };
        let checked = Arc::clone(checked);
        connection.phase = Phase::Lent;
        connection.deadline = u64::MAX;
        let client = Arc::clone(&connection.client);
        let loaned = Loaned {
            client,
            token,
            more,
        };
        self.exchange.lend(Job { loaned, work, size });
        self.fresh += 1;
        if self.stream.is_some() {
            server::write_request(&mut self.outgoing, &checked, token.place());
        }
        self.due(now + LOAN_LOOK);
    }

    /// A connection is back from a handler. `readable`: epoll said so, and has disarmed it.
    pub(super) fn come_back(&mut self, token: Token, readable: bool) {
        let (idle, now, drain) = (self.bounds.idle, self.now, self.drain);
        let Some(connection) = self
            .connection(token)
            .filter(|connection| connection.phase == Phase::Lent)
        else {
            return;
        };
        let (phase, since, deadline) = match connection.client.loan() {
            Loan::Waiting | Loan::Working(_) => return,
            Loan::Idle(since) => (Phase::Idle, since, since + idle),
            Loan::Closing(since) => (Phase::Lingering, since, since + LINGER),
        };
        Gate::was_slow(connection, since);
        connection.current = None;
        connection.deadline = deadline;
        connection.begun = since;
        if phase == Phase::Idle && !connection.input.is_empty() {
            let input = std::mem::take(&mut connection.input);
            self.parse(token, Parser::new(), Cow::Owned(input));
        } else {
            connection.phase = phase;
            connection.input = Vec::new();
            self.due(deadline.max(now));
            if readable {
                self.turn(token);
            }
        }
        if drain.is_some_and(|drain| since >= drain.since) {
            self.drained.finished += 1;
        }
        self.make_room();
    }

    pub(super) fn arm(&mut self, token: Token, interest: Interest) {
        let Some(connection) = self.connection(token) else {
            return;
        };
        let client = Arc::clone(&connection.client);
        if self
            .exchange
            .epoll
            .modify(&*client, token.0, interest)
            .is_err()
        {
            self.close(token);
        }
    }

    /// Writes what goes to the server behind, in one piece if it takes it.
    pub(super) fn flush(&mut self) {
        while !self.blocked && self.written < self.outgoing.len() {
            let Some(mut stream) = self.stream.as_ref() else {
                return;
            };
            match stream.write(&self.outgoing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = self
                        .exchange
                        .epoll
                        .modify(stream, STREAM, Interest::WritableOnce)
                        .is_ok();
                    if !self.blocked {
                        return self.rebuild("it cannot be watched");
                    }
                }
                Err(error) => return self.rebuild(error),
            }
        }
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.outgoing.shrink_to(super::gate::SCRATCH);
            self.written = 0;
        }
    }
}

impl Incoming {
    /// Bytes that are still to come of a body whose length is known.
    fn left(&self) -> u64 {
        match self.checked.head.length {
            Length::Known(length) => length.saturating_sub(self.body.len() as u64),
            _ => 0,
        }
    }
}
