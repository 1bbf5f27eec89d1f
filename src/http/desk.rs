//! The desk behind the door: every connection that is in, taken a step further at a time until it waits or is with a
//! handler. `receive` and `send` name the step; this file takes it, for it has the table, the link and the limits.
#![forbid(unsafe_code)]

use super::bounds::{Bounds, LINGER};
use super::checked::Checked;
use super::client::{Client, Loan, Token, Watched};
use super::connection::{Connection, Incoming, Reading, Step};
use super::exchange::{After, Exchange, Job, Loaned, Note, Work};
use super::expire::{LOAN_LOOK, LOOK_STEP, Phase, Terms, Verdict};
use super::head::Refusal;
use super::link::Link;
use super::output::Output;
use super::permits::Permit;
use super::receive::Receiver;
use super::record::Known;
use super::request::Request;
use super::routes::{Ready, Routes, health};
use super::send::{self, Room};
use super::server::Pool;
use super::sweep;
use super::table::Table;
use super::upload::BODY_TOO_SLOW;
use crate::ledger::Cause;
use crate::log;
use crate::sys::epoll::Interest;
use crate::sys::{memory, socket};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of answers that waited for slow readers, after which the memory that they took is given back to the kernel.
const TRIM: usize = 16 << 20;

/// Everything that is done for connections; it lives on the gate's thread.
pub(super) struct Desk {
    exchange: Arc<Exchange>,
    routes: Arc<Routes>,
    bounds: Bounds,
    table: Table,
    link: Link,
    /// Long bodies that wait for a thread that may read them.
    uploads: VecDeque<Token>,
    /// What waits for a thread that may wait for a disk.
    fetches: VecDeque<(Token, Work)>,
    /// Connections that have more to read, which epoll will not report again, or have been accepted a moment ago, or whose
    /// next request has come with the last one, which was answered at once.
    again: Vec<Token>,
    /// Connections that epoll has reported while they were on loan.
    early: Vec<Token>,
    /// Connections that are answered, while the worker leaves, and whose next request may be here unread: the next worker's,
    /// if it takes them.
    unread: Vec<Token>,
    /// Bytes that clients have made us keep since all that they hold was last added up.
    grown: usize,
    /// Bytes of answers that waited here for their readers since freed memory was last given back to the kernel.
    waited: usize,
    room: Room,
    /// The time of this round, on the exchange's clock.
    now: u64,
    /// The same in microseconds.
    micros: u64,
    next_sweep: u64,
    /// A connection is idle or gone, so that there may be room for another.
    has_room: bool,
    /// Answers of this time and later are counted.
    counts_from: u64,
    finished: u64,
    last_warning: Option<Instant>,
}

impl Desk {
    /// # Errors
    /// Epoll does not take the private stream.
    pub fn new(
        exchange: Arc<Exchange>,
        (pool, stream): (Arc<Pool>, UnixStream),
        routes: Arc<Routes>,
        bounds: Bounds,
    ) -> io::Result<Desk> {
        Ok(Desk {
            link: Link::new(Arc::clone(&exchange), pool, stream)?,
            table: Table::new(Arc::clone(&exchange)),
            now: exchange.clock(),
            micros: exchange.micros(),
            exchange,
            routes,
            bounds,
            uploads: VecDeque::new(),
            fetches: VecDeque::new(),
            again: Vec::new(),
            early: Vec::new(),
            unread: Vec::new(),
            grown: 0,
            waited: 0,
            room: Room::new(),
            next_sweep: u64::MAX,
            has_room: false,
            counts_from: u64::MAX,
            finished: 0,
            last_warning: None,
        })
    }

    /// The connections, to look at.
    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn is_full(&self) -> bool {
        self.table.open_count() >= self.bounds.max_connections
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    /// A new round begins at this time.
    pub fn start_round(&mut self, now: u64) {
        self.now = now;
        self.micros = self.exchange.micros();
    }

    /// The round is over, and the next one begins when something has come.
    pub fn end_round(&self) {
        self.routes.end_round();
    }

    /// When the next sweep is due; `u64::MAX` for never.
    pub fn next_sweep(&self) -> u64 {
        self.next_sweep
    }

    /// Whether a connection became idle or was closed since this was last asked.
    pub fn take_room(&mut self) -> bool {
        std::mem::take(&mut self.has_room)
    }

    /// Answers are counted from now on.
    pub fn start_counting(&mut self) {
        self.counts_from = self.now;
    }

    /// How many there were since then.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    fn add_finished(&mut self, at: u64) {
        self.finished += u64::from(at >= self.counts_from);
    }

    /// Sees to it that the next sweep is no later than this.
    pub fn due(&mut self, at: u64) {
        self.next_sweep = self.next_sweep.min(at);
    }

    /// Says at most once a minute that something is wrong which may go on for long.
    pub fn warn(&mut self, event: std::fmt::Arguments<'_>) {
        if self
            .last_warning
            .is_none_or(|last| last.elapsed() > Duration::from_secs(60))
        {
            self.last_warning = Some(Instant::now());
            log::warn(event);
        }
    }

    // Connections come in.

    /// Takes in who was accepted, unless there are too many from one address.
    pub fn admit(&mut self, client: Client) {
        self.exchange.slot.add_accepted();
        let token = self.take_in(client, Phase::Fresh, self.bounds.head);
        if self.table.count_beside(token) > self.bounds.max_per_address {
            // Answered at once, it is not one of those that may stay.
            self.table.leave_out(token);
            let why = Refusal::new(429, "too many connections from this address");
            self.refuse(token, why, false);
        } else if let Some(connection) = self.table.get_mut(token) {
            // Its request may be here by the end of the round, and epoll need not know of it.
            connection.is_readable = true;
            self.again.push(token);
        }
    }

    /// Takes over a connection without a request from another worker.
    pub fn adopt(&mut self, fd: OwnedFd) {
        if self.is_full() {
            self.evict(&mut None);
        }
        let peer = socket::peer_ip(fd.as_fd());
        let token = self.take_in(Client::new(fd, peer), Phase::Idle, self.bounds.idle);
        self.advance(token, Step::Wait(Interest::ReadableEdge));
    }

    /// Takes a connection into the table, with so much time for its next request.
    fn take_in(&mut self, client: Client, phase: Phase, time: u64) -> Token {
        let deadline = self.now + time;
        let peer = client.peer.map(|peer| peer.ip());
        let counts = self.bounds.max_per_address < usize::MAX && !self.bounds.proxies.trusts(peer);
        let counted_by = peer.filter(|_| counts);
        self.due(deadline);
        self.table
            .open(client, counted_by, phase, self.now, deadline)
    }

    /// Makes room by the connection that is missed least: one that is answered and about to go, or else the one that
    /// has been without a request the longest. One that was accepted a moment ago is spared, so that it can ask. `idle`
    /// keeps the order of them all for the next call in the same round.
    pub fn evict(&mut self, idle: &mut Option<VecDeque<Token>>) -> bool {
        let idle =
            idle.get_or_insert_with(|| sweep::idle_by_age(&self.table, self.now, &self.bounds));
        let (mut gone, mut sending) = (None, VecDeque::new());
        while let (None, Some(token)) = (gone, idle.pop_front()) {
            let Some(connection) = self.table.get(token) else {
                continue;
            };
            if !socket::has_input(connection.client.as_fd()) {
                gone = Some(token);
            } else if connection.phase == Phase::Lingering
                || matches!(connection.client.loan(), Loan::Closing(_))
            {
                // To close on what it still sends is a reset, which may overtake the answer: only if there is no other.
                sending.push_back(token);
            }
            // Any other whose request has come meanwhile is idle no more.
        }
        gone = gone.or_else(|| sending.pop_front());
        idle.append(&mut sending);
        gone.is_some_and(|token| {
            self.close(token);
            true
        })
    }

    // What happens to one: an event, a note.

    /// Whether a connection that epoll reports waits for its next request, and nothing of that has been read.
    pub fn is_between_requests(&mut self, token: Token) -> bool {
        self.come_back(token);
        self.table.get(token).is_some_and(|connection| {
            matches!(connection.phase, Phase::Fresh | Phase::Idle)
                && matches!(connection.reading, Reading::Nothing)
                && connection.input.is_empty()
        })
    }

    /// A connection's socket is ready for what it waited for, or something has come on it. `is_end`: its client sends no
    /// more.
    pub fn on_ready(&mut self, token: Token, is_end: bool) {
        if let Some(connection) = self.table.get_mut(token) {
            connection.is_readable = true;
            connection.is_ended |= is_end;
            self.go_on(token);
        }
    }

    /// Does for a connection what there is to do now that its socket is ready.
    fn go_on(&mut self, token: Token) {
        let now = self.now;
        let Some(connection) = self.table.get_mut(token) else {
            return;
        };
        let step = match connection.phase {
            Phase::Lent => {
                return match connection.client.standing() {
                    // It was answered and given back without a word.
                    (Loan::Idle(_) | Loan::Closing(_), false) => self.come_back(token),
                    // The answer may be on its way, and the handler about to give it back.
                    _ => self.early.push(token),
                };
            }
            Phase::Fresh | Phase::Idle | Phase::Head | Phase::Body => return self.read(token),
            Phase::Queued => return,
            Phase::Parked => match socket::is_gone(connection.client.as_fd()) {
                true => Step::Close,
                // It asks for more already, and has to wait; that it goes is seen at the next sign of life.
                false => Step::Rest,
            },
            Phase::Writing => send::push(connection, now, &self.bounds, &mut self.room),
            Phase::Lingering => send::discard(connection, &mut self.room.scratch, now),
        };
        self.advance(token, step);
    }

    /// Those that epoll has reported too early for anything to be done: handlers that have not given them back by now are
    /// to say so when they do.
    pub fn look_at_early(&mut self) {
        while let Some(token) = self.early.pop() {
            let connection = self.table.get(token).filter(|c| c.phase == Phase::Lent);
            if connection
                .is_some_and(|c| matches!(c.client.see().0, Loan::Idle(_) | Loan::Closing(_)))
            {
                self.come_back(token);
            }
        }
    }

    /// A handler's thread has left this.
    pub fn on_note(&mut self, note: Note) {
        match note {
            Note::Back {
                token,
                is_more,
                surplus,
            } => {
                if is_more {
                    self.take_note(token);
                    self.take_surplus(token, surplus);
                }
                // Otherwise it may have been lent again meanwhile, and is let alone if it is not back, or on its way back
                // with a note that says more.
                self.come_back(token);
            }
            Note::Over(token) => {
                let connection = self.table.get_mut(token);
                let connection = connection.filter(|c| c.phase == Phase::Lent);
                let loan = connection
                    .as_ref()
                    .map(|connection| connection.client.loan());
                if let (Some(connection), Some(Loan::Closing(since))) = (connection, loan) {
                    connection.was_slow(since);
                    connection.current = None;
                    connection.phase = Phase::Lingering;
                    self.add_finished(since);
                    self.close(token);
                }
            }
            Note::Rest {
                token,
                output,
                surplus,
            } => {
                self.take_surplus(token, surplus);
                self.advance(token, Step::Answer(output));
            }
            Note::Wake(token) => {
                let (now, bounds) = (self.now, &self.bounds);
                let connection = self.table.get_mut(token);
                if let Some(connection) = connection.filter(|c| c.phase == Phase::Parked) {
                    let step = send::resume(connection, now, bounds, &mut self.room);
                    self.advance(token, step);
                }
            }
            Note::Broken(token) => {
                if let Some(connection) = self.table.get_mut(token) {
                    connection.phase = Phase::Writing;
                    self.cut(token);
                }
            }
        }
    }

    /// What a handler received beyond its body is the beginning of the next request.
    fn take_surplus(&mut self, token: Token, surplus: Vec<u8>) {
        if surplus.is_empty() {
            return;
        }
        if let Some(connection) = self.table.get_mut(token) {
            connection.input = surplus;
        }
    }

    /// A note has said all that is to be known of a connection.
    fn take_note(&mut self, token: Token) {
        if let Some(connection) = self.table.get(token) {
            connection.client.set_loan(connection.client.loan());
        }
    }

    /// Reads what has come on a connection.
    fn read(&mut self, token: Token) {
        let Some(connection) = self.table.get_mut(token) else {
            return;
        };
        if connection.has_next() {
            // What is here comes first, at the end of the round; then this is read, for it stays readable.
            return;
        }
        match socket::receive(connection.client.as_fd(), &mut self.room.scratch) {
            Ok(0) => self.close(token),
            Ok(count) => {
                connection.is_readable = count == self.room.scratch.len() || connection.is_ended;
                let receiver = Receiver::new(
                    &self.bounds,
                    &self.routes,
                    self.now,
                    self.exchange.is_stopping(),
                );
                let step = receiver.take(connection, &self.room.scratch[..count]);
                self.advance(token, step);
                self.keep(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.is_readable = false;
                self.advance(token, Step::Wait(Interest::ReadableEdge))
            }
            Err(_) => self.close(token),
        }
    }

    /// Goes on with those that have more to read: a piece of each, so that nobody holds up all others. While the worker
    /// leaves, also with a request that came in one piece with the one before: its connection cannot be passed on.
    pub fn read_again(&mut self) {
        loop {
            for token in std::mem::take(&mut self.again) {
                let Some(connection) = self.table.get(token) else {
                    continue;
                };
                if connection.has_next() {
                    self.advance(token, Step::GoOn);
                } else if connection.is_readable {
                    self.go_on(token);
                }
            }
            let has_next = |token: &Token| self.table.get(*token).is_some_and(Connection::has_next);
            if !self.exchange.is_draining() || !self.again.iter().any(has_next) {
                return;
            }
        }
    }

    /// Whether some have more to read.
    pub fn has_more_to_read(&self) -> bool {
        !(self.again.is_empty() && self.unread.is_empty())
    }

    // Its steps.

    /// Does what is next, and what follows from it, until the connection waits or is with a handler.
    fn advance(&mut self, token: Token, mut step: Step) {
        let now = self.now;
        loop {
            let Some(connection) = self.table.get_mut(token) else {
                return;
            };
            step = match step {
                Step::Rest => return,
                Step::Wait(interest) => {
                    let deadline = connection.deadline;
                    self.due(deadline);
                    if let Err(error) = self.table.arm(token, interest) {
                        let open = self.table.open_count();
                        self.warn(format_args!(
                            "cannot watch another connection, {open} open: {error}"
                        ));
                        return self.close(token);
                    }
                    let connection = self.table.get(token);
                    let connection = connection.filter(|connection| connection.is_readable);
                    if let (Interest::ReadableEdge, Some(connection)) = (interest, connection) {
                        match connection.phase == Phase::Idle && self.exchange.is_draining() {
                            true => self.unread.push(token),
                            false => self.again.push(token),
                        }
                    }
                    return;
                }
                Step::GoOn => {
                    let receiver =
                        Receiver::new(&self.bounds, &self.routes, now, self.exchange.is_stopping());
                    receiver.go_on(connection)
                }
                Step::Refuse {
                    why,
                    is_head,
                    checked,
                } => {
                    let input = std::mem::take(&mut connection.input);
                    let reading = std::mem::take(&mut connection.reading);
                    let known = || match (checked, reading) {
                        (Some(checked), _) => Known::Request(checked),
                        (None, Reading::Body(incoming)) => {
                            Known::Request(Arc::new(incoming.checked))
                        }
                        (None, _) => Known::Bytes(input),
                    };
                    let (client, first) = (&connection.client, connection.first);
                    let entry = self.exchange.entry(client, why.status, first, known);
                    let (slot, origin) = (self.exchange.slot, connection.client.origin());
                    slot.add_status(why.status);
                    self.exchange.refusals.answered(slot, origin, why);
                    Step::Answer(send::refused(why, is_head, entry))
                }
                Step::Health { checked, rest } => {
                    let response = health(self.exchange.is_ending());
                    self.at_once(token, checked, Ready::Made(response), rest)
                }
                Step::Numbers {
                    asked,
                    checked,
                    rest,
                } => {
                    let response = asked.answer(self.exchange.slot.page);
                    self.at_once(token, checked, Ready::Made(response), rest)
                }
                Step::Ready {
                    response,
                    checked,
                    rest,
                } => self.at_once(token, checked, response, rest),
                Step::Lend(request) => self.lend(token, request, None),
                Step::Upload(incoming) => self.upload(token, incoming),
                Step::Answer(output) => return self.answer(token, output),
                Step::Refill(output) => return self.send_on(token, Work::Refill(output), 0, None),
                Step::Fetch(work) => self.fetch(token, work),
                Step::Answered { after, sent } => {
                    let (slot, asked) = (self.exchange.slot, connection.asked);
                    if connection.current.take().is_none() {
                        slot.add_bytes(sent);
                    } else {
                        let took = self.exchange.micros().saturating_sub(asked);
                        slot.add_answered(sent, took);
                        self.finished += u64::from(now >= self.counts_from);
                    }
                    match send::finish(connection, after, now, &self.bounds) {
                        Step::GoOn => return self.again.push(token),
                        step => step,
                    }
                }
                Step::Park => {
                    let exchange = Arc::clone(&self.exchange);
                    let wake = move || exchange.post(Note::Wake(token));
                    let output = connection.output.as_ref();
                    match output.is_some_and(|output| output.park(wake)) {
                        true => Step::Wait(Interest::ReadableEdge),
                        false => send::resume(connection, now, &self.bounds, &mut self.room),
                    }
                }
                Step::Cut => return self.cut(token),
                Step::Close => return self.close(token),
            };
        }
    }

    fn refuse(&mut self, token: Token, why: Refusal, is_head: bool) {
        self.advance(
            token,
            Step::Refuse {
                why,
                is_head,
                checked: None,
            },
        );
    }

    fn answer(&mut self, token: Token, output: Box<Output>) {
        let held = output.held();
        let Some(connection) = self.table.get_mut(token) else {
            return;
        };
        let step = send::start(connection, output, self.now, &self.bounds, &mut self.room);
        let deadline = connection.deadline;
        self.due(deadline);
        self.advance(token, step);
        self.waited += held;
        self.keep(held);
    }

    /// Answers a whole request without a handler; `rest` came behind it.
    fn at_once(
        &mut self,
        token: Token,
        checked: Arc<Checked>,
        response: Ready,
        rest: Vec<u8>,
    ) -> Step {
        let Some(connection) = self.table.get_mut(token) else {
            return Step::Rest;
        };
        let (client, status) = (&connection.client, response.status());
        let known = || Known::Request(Arc::clone(&checked));
        let entry = self.exchange.entry(client, status, checked.begun, known);
        let close = self.exchange.is_closing() || !checked.head.keep_alive || response.closes();
        let more = connection.is_readable || !rest.is_empty();
        let after = After::answer(&checked, close, more);
        connection.input = rest;
        connection.phase = Phase::Writing;
        connection.asked = self.micros;
        connection.current = Some((Arc::clone(&checked), self.now));
        self.exchange.slot.add_status(status);
        self.exchange.slot.add_lent();
        send::at_once(connection, response, &checked, after, entry, &mut self.room)
    }

    /// Gives a request to the handlers, if they have room for it.
    fn lend(&mut self, token: Token, request: Box<Request>, leave: Option<Permit>) -> Step {
        let Some(connection) = self.table.get_mut(token) else {
            return Step::Rest;
        };
        let size = request.checked.held() + request.body.held() + connection.input.len();
        let why = if self.link.in_flight() >= self.bounds.room {
            "too many requests wait already"
        } else if self.exchange.waiting() + size > self.bounds.memory {
            "requests that wait fill the memory"
        } else {
            connection.current = Some((Arc::clone(&request.checked), self.now));
            connection.asked = self.micros;
            self.exchange.slot.add_lent();
            self.send_on(token, Work::Answer(request), size, leave);
            return Step::Rest;
        };
        Step::Refuse {
            why: Refusal::new(503, why),
            is_head: request.method() == "HEAD",
            checked: Some(request.checked),
        }
    }

    /// Gives work to the handlers, by way of tiny_http.
    fn send_on(&mut self, token: Token, work: Work, size: usize, leave: Option<Permit>) {
        let Some(connection) = self.table.get_mut(token) else {
            return;
        };
        connection.phase = Phase::Lent;
        connection.deadline = u64::MAX;
        let loaned = Loaned {
            client: Arc::clone(&connection.client),
            token,
            more: !connection.input.is_empty(),
            since: connection.asked,
            watched: connection.watched,
        };
        connection.client.lend(connection.is_readable);
        self.link.lend(Job {
            loaned,
            work,
            size,
            _leave: leave,
        });
        self.due(self.now + LOAN_LOOK);
    }

    /// An answer from a file, or what is left of one, is not at hand: a thread is to wait for it, when one may.
    fn fetch(&mut self, token: Token, work: Work) -> Step {
        let leave = match self.next_to_fetch() {
            None => self.exchange.disks.take(),
            Some(_) => None,
        };
        if leave.is_some() {
            return self.fetch_now(token, work, leave);
        }
        let Some(connection) = self.table.get_mut(token) else {
            return Step::Rest;
        };
        let deadline = self.now + self.bounds.progress;
        connection.phase = Phase::Queued;
        connection.deadline = deadline;
        self.fetches.push_back((token, work));
        self.due(deadline);
        Step::Rest
    }

    fn fetch_now(&mut self, token: Token, work: Work, leave: Option<Permit>) -> Step {
        match work {
            Work::Answer(request) => self.lend(token, request, leave),
            work => {
                self.send_on(token, work, 0, leave);
                Step::Rest
            }
        }
    }

    /// Lets those go on that wait for a disk, first come, first served.
    pub fn next_fetch(&mut self) {
        while self.next_to_fetch().is_some() {
            let Some(leave) = self.exchange.disks.take() else {
                return;
            };
            if let Some((token, work)) = self.fetches.pop_front() {
                let step = self.fetch_now(token, work, Some(leave));
                self.advance(token, step);
            }
        }
    }

    /// Who is to wait for a disk next. Those who left or ran out of time are passed over.
    fn next_to_fetch(&mut self) -> Option<Token> {
        loop {
            let token = self.fetches.front()?.0;
            let connection = self.table.get(token);
            if connection.is_some_and(|connection| connection.phase == Phase::Queued) {
                return Some(token);
            }
            self.fetches.pop_front();
        }
    }

    /// A body is longer than what is collected: its handler reads the rest, when a thread may.
    fn upload(&mut self, token: Token, incoming: Box<Incoming>) -> Step {
        let permit = match self.uploads.is_empty() {
            true => self.exchange.permits.take(),
            false => None,
        };
        let Some(connection) = self.table.get_mut(token) else {
            return Step::Rest;
        };
        if let Some(permit) = permit {
            let receiver = Receiver::new(
                &self.bounds,
                &self.routes,
                self.now,
                self.exchange.is_stopping(),
            );
            return receiver.upload(connection, *incoming, permit);
        }
        let deadline = self.now + self.bounds.progress;
        connection.phase = Phase::Queued;
        connection.deadline = deadline;
        connection.reading = Reading::Body(incoming);
        self.uploads.push_back(token);
        self.due(deadline);
        Step::Rest
    }

    /// Lets those go on that wait to have their long bodies read, first come, first served.
    pub fn next_upload(&mut self) {
        while let Some(token) = self.uploads.front().copied() {
            let connection = self.table.get_mut(token);
            let Some(connection) = connection.filter(|c| c.phase == Phase::Queued) else {
                self.uploads.pop_front();
                continue;
            };
            let Some(permit) = self.exchange.permits.take() else {
                return;
            };
            self.uploads.pop_front();
            if let Reading::Body(incoming) = std::mem::take(&mut connection.reading) {
                let receiver = Receiver::new(
                    &self.bounds,
                    &self.routes,
                    self.now,
                    self.exchange.is_stopping(),
                );
                let step = receiver.upload(connection, *incoming, permit);
                self.advance(token, step);
            }
        }
    }

    /// Takes a connection that is back from a handler. One of which a note has still to say more is not.
    fn come_back(&mut self, token: Token) {
        let connection = self.table.get_mut(token);
        let Some(connection) = connection.filter(|c| c.phase == Phase::Lent) else {
            return;
        };
        let (phase, since, deadline) = match connection.client.standing() {
            (Loan::Waiting | Loan::Working(_), _) | (_, true) => return,
            (Loan::Idle(since), _) => (Phase::Idle, since, since + self.bounds.idle),
            (Loan::Closing(since), _) => (Phase::Lingering, since, since + LINGER),
        };
        if phase == Phase::Idle {
            connection.watched = Watched::Input;
        }
        connection.was_slow(since);
        connection.current = None;
        connection.deadline = deadline;
        connection.begun = since;
        if phase == Phase::Idle && !connection.input.is_empty() {
            self.advance(token, Step::GoOn);
        } else {
            connection.phase = phase;
            connection.input = Vec::new();
            let is_heard = connection.watched == Watched::Input && !connection.is_readable;
            self.due(deadline.max(self.now));
            if !is_heard && phase == Phase::Idle && self.exchange.is_draining() {
                self.unread.push(token);
            } else if !is_heard {
                self.go_on(token);
            }
        }
        self.add_finished(since);
        self.has_room = true;
    }

    /// Reads what nobody else has taken over.
    pub fn read_unread(&mut self) {
        for token in std::mem::take(&mut self.unread) {
            let connection = self.table.get(token);
            if connection.is_some_and(|connection| connection.phase == Phase::Idle) {
                self.go_on(token);
            }
        }
    }

    /// Closes a connection in the middle of an answer, which must not look complete then: the end of the connection
    /// can be the end of the answer.
    fn cut(&mut self, token: Token) {
        if let Some(connection) = self.table.get(token) {
            socket::reset_on_close(connection.client.as_fd());
        }
        self.close(token);
    }

    /// Lets go of a connection that another worker has now.
    pub fn pass_on(&mut self, token: Token) {
        self.table.forget(token);
        self.close(token);
    }

    /// Lets go of a connection.
    pub fn close(&mut self, token: Token) {
        let Some(connection) = self.table.close(token) else {
            return;
        };
        match (connection.phase, connection.client.loan()) {
            (Phase::Writing | Phase::Parked, _) => {
                let sent = connection.output.map_or(0, |output| output.total());
                let took = self.exchange.micros().saturating_sub(connection.asked);
                match connection.current {
                    Some(_) => self.exchange.slot.add_answered(sent, took),
                    None => self.exchange.slot.add_bytes(sent),
                }
            }
            // Answered, and closed or passed on before its note was taken.
            (Phase::Lent, Loan::Idle(since) | Loan::Closing(since)) => self.add_finished(since),
            _ => {}
        }
        self.has_room = true;
    }

    // The link to the handlers.

    /// Writes what was lent in this round, and sees to it that it gets through.
    pub fn flush(&mut self) {
        self.write_on();
        if self.link.is_stuck() {
            self.rebuild("requests do not get through");
            self.write_on();
        }
    }

    fn write_on(&mut self) {
        if let Err(error) = self.link.flush() {
            self.rebuild(error);
        }
    }

    /// Epoll reports the private stream, which happens only where it broke.
    pub fn on_stream(&mut self) {
        self.rebuild("its other end is closed");
    }

    /// After which time the private stream is to be looked after again.
    pub fn look_again(&self) -> Option<Duration> {
        self.link.look_again()
    }

    /// The way to the handlers is closed: has a new one made, and told that there is work.
    fn rebuild(&mut self, why: impl std::fmt::Display) {
        self.warn(format_args!(
            "the private stream to tiny_http broke, a new one is made: {why}"
        ));
        if let Err(error) = self.link.rebuild(self.now) {
            self.warn(format_args!("cannot make another tiny_http: {error}"));
        }
        self.due(self.link.rebuild_due().unwrap_or(self.now));
    }

    // Deadlines.

    /// Does what is due for every connection, and finds out when the next sweep is: at `next` at the latest. Returns those
    /// that are to be handed over.
    pub fn sweep(&mut self, terms: &Terms, next: u64) -> Vec<Token> {
        let now = self.now;
        if self.link.rebuild_due().is_some_and(|at| at <= now) {
            self.rebuild("it could not be made before");
        }
        let due = sweep::due(&self.table, terms, &self.bounds);
        let slot = self.exchange.slot;
        slot.set_overdue(due.overdue, due.longest / 1000);
        if self.waited > TRIM && !due.is_writing {
            self.waited = 0;
            memory::trim();
        }
        let next = next.min(self.link.rebuild_due().unwrap_or(u64::MAX));
        // Many small steps are better taken together. What is done below may ask for an earlier sweep.
        self.next_sweep = match next.min(due.next) {
            u64::MAX => u64::MAX,
            next => next.max(now + LOOK_STEP),
        };
        for token in due.slow {
            if let Some(connection) = self.table.get_mut(token) {
                connection.name_slow(self.bounds.handler_warn / 1000);
            }
        }
        for (token, at) in due.done {
            if let Some(connection) = self.table.get_mut(token) {
                connection.was_slow(at);
            }
        }
        for token in due.expired {
            self.expire(token, terms);
        }
        due.to_hand_over
    }

    /// The time of a connection is over.
    fn expire(&mut self, token: Token, terms: &Terms) {
        let now = self.now;
        let connection = self.table.get(token).filter(|connection| {
            // What was done for another one may have given it a new phase, and time.
            connection.standing().verdict(terms, &self.bounds) == Verdict::Expire
        });
        let Some(connection) = connection else {
            return;
        };
        let has_input = || socket::has_input(connection.client.as_fd());
        match connection.phase {
            // The next request has come at the last moment.
            Phase::Fresh | Phase::Idle if has_input() => self.read(token),
            Phase::Lent if has_input() && matches!(connection.client.loan(), Loan::Idle(_)) => {
                self.on_ready(token, false)
            }
            phase @ (Phase::Head | Phase::Body | Phase::Queued) => {
                // What has come in time counts, if not read in time: it may be we who were late.
                if phase != Phase::Queued && has_input() {
                    self.read(token);
                }
                self.expire_request(token, phase);
            }
            Phase::Parked => {
                let connection = self.table.get_mut(token);
                let step = connection.map(|connection| {
                    if let Some(output) = &connection.output {
                        match terms.why {
                            Some(_) => output.end_feed(),
                            None => output.sign_of_life(),
                        }
                    }
                    send::resume(connection, now, &self.bounds, &mut self.room)
                });
                self.advance(token, step.unwrap_or(Step::Rest));
                if terms.why.is_some() {
                    // It is between two requests now, and may be passed on.
                    self.due(now);
                }
            }
            Phase::Writing => {
                let connection = self.table.get_mut(token);
                let more = connection.and_then(|c| send::new_deadline(c, now, &self.bounds));
                match more {
                    Some(deadline) => self.due(deadline),
                    None => self.cut_answer(token, Cause::TooSlow, "does not read its answer"),
                }
            }
            _ => self.close(token),
        }
    }

    /// Refuses a request that is still not complete, and whose time is still over. `phase`: where it was.
    fn expire_request(&mut self, token: Token, phase: Phase) {
        let connection = self.table.get(token).filter(|connection| {
            matches!(connection.phase, Phase::Head | Phase::Body | Phase::Queued)
                && connection.deadline <= self.now
        });
        let Some(connection) = connection else {
            return;
        };
        let why = match (phase, &connection.reading) {
            (Phase::Head, _) => Refusal::new(408, "the request head took too long"),
            (Phase::Body, _) => BODY_TOO_SLOW,
            (_, Reading::Body(_)) => Refusal::new(503, "too many long bodies at once"),
            _ => return self.give_up_fetch(token),
        };
        let is_head = connection.asks_for_head();
        self.refuse(token, why, is_head);
    }

    /// The disk has not been free in time: a request is refused, and an answer that has begun is cut.
    fn give_up_fetch(&mut self, token: Token) {
        let place = self.fetches.iter().position(|(waits, _)| *waits == token);
        match place.and_then(|place| self.fetches.remove(place)) {
            Some((_, Work::Answer(request))) => self.advance(
                token,
                Step::Refuse {
                    why: Refusal::new(503, "too many files are waited for at once"),
                    is_head: request.method() == "HEAD",
                    checked: Some(request.checked),
                },
            ),
            Some((_, Work::Refill(output))) => {
                if let Some(connection) = self.table.get_mut(token) {
                    connection.phase = Phase::Writing;
                    connection.output = Some(output);
                }
                let why = "too many files are waited for at once";
                self.cut_answer(token, Cause::Overloaded, why);
            }
            None => self.close(token),
        }
    }

    /// Cuts an answer that is not read. A refusal that is not read was counted when it was given.
    fn cut_answer(&mut self, token: Token, cause: Cause, why: &str) {
        let connection = self.table.get(token);
        if let Some(connection) = connection.filter(|connection| connection.current.is_some()) {
            let (slot, origin) = (self.exchange.slot, connection.client.origin());
            self.exchange.refusals.closed(slot, cause, origin, why);
        }
        self.cut(token);
    }

    // Memory.

    /// Adds to what clients make us keep. Now and then all of it is added up, and where it is too much, those go whose
    /// time is over soonest: who sent or read most lately stays, unless its own is more than all may have.
    fn keep(&mut self, bytes: usize) {
        self.grown += bytes;
        if self.grown < self.bounds.memory / 8 {
            return;
        }
        self.grown = 0;
        let most = self.bounds.memory;
        let holders = sweep::holders(&self.table, most);
        let mut sum: usize = holders.iter().map(|(held, _)| held).sum();
        for (held, token) in holders {
            if sum <= most {
                break;
            }
            if self.make_way(token) {
                sum -= held;
            }
        }
    }

    /// Ends a connection for the memory that it holds, unless it is with a handler.
    fn make_way(&mut self, token: Token) -> bool {
        let Some(connection) = self.table.get(token) else {
            return false;
        };
        match connection.phase {
            Phase::Writing => {
                let (slot, origin) = (self.exchange.slot, connection.client.origin());
                let why = "unread answers fill the memory";
                self.exchange
                    .refusals
                    .closed(slot, Cause::Overloaded, origin, why);
                self.cut(token);
            }
            Phase::Queued if !matches!(connection.reading, Reading::Body(_)) => {
                self.give_up_fetch(token);
            }
            Phase::Head | Phase::Body | Phase::Queued => {
                let why = Refusal::new(503, "unfinished requests fill the memory");
                let is_head = connection.asks_for_head();
                self.refuse(token, why, is_head);
            }
            _ => return false,
        }
        true
    }
}
