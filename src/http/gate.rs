//! The front door: one thread with epoll owns every client socket. It accepts, reads and checks heads, collects
//! bodies, keeps every limit and deadline, refuses what must be refused, sends on what handlers could not send at
//! once, and closes. Checked requests go on in one stream to the server behind it (`server.rs`).
#![forbid(unsafe_code)]

use super::body::{Chunked, Progress};
use super::exchange::{Client, Exchange, Job, Loan, Note, Output, Token};
use super::head::{Length, Limits, Parser, Refusal};
use super::routes::refusal;
use super::server::{self, Pool, Watch};
use super::{Checked, Request};
use crate::error::exit;
use crate::log;
use crate::settings::Settings;
use crate::sys::epoll::{Events, Interest};
use crate::sys::fd::raise_file_limit;
use crate::sys::process::exit_now;
use crate::sys::{Errno, is_errno, socket};
use std::borrow::Cow;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
const STREAM: u64 = u64::MAX - 2;
pub(super) const SOURCE: u64 = u64::MAX - 3;
pub(super) const HEIR: u64 = u64::MAX - 4;

/// Bytes read at a time.
const SCRATCH: usize = 64 * 1024;
/// Connections accepted before those that are open get their turn.
const ACCEPT_ROUND: usize = 64;
/// Milliseconds after which accepting is tried again when the kernel had no descriptor or memory to give.
const ACCEPT_PAUSE: u64 = 100;
/// Milliseconds that a client has to read the last answer and close (RFC 9112 §9.6).
const LINGER: u64 = 2000;
/// The same while the worker is leaving.
const LINGER_DRAINING: u64 = 500;
/// Milliseconds between two looks at the least.
const LOOK_STEP: u64 = 100;
/// Milliseconds between looks at connections that are on loan and may have come back unannounced.
const LOAN_LOOK: u64 = 1000;
/// Descriptors kept for everything that is not a client.
const RESERVE: usize = 64;

/// The settings the gate works by; times in milliseconds.
pub(crate) struct Bounds {
    limits: Limits,
    max_body: usize,
    pub(super) max_connections: usize,
    head: u64,
    pub(super) idle: u64,
    progress: u64,
}

impl Bounds {
    /// Raises the descriptor limit as far as it goes and needs to, and takes connections within it.
    pub fn new(settings: &Settings) -> Bounds {
        let wanted = settings.max_connections + RESERVE;
        let granted = usize::try_from(raise_file_limit(wanted as u64)).unwrap_or(usize::MAX);
        let max_connections = settings
            .max_connections
            .min(granted.saturating_sub(RESERVE).max(16));
        if max_connections < settings.max_connections {
            log::warn(format_args!(
                "at most {max_connections} connections instead of {}: the limit of open files is {granted}",
                settings.max_connections
            ));
        }
        let millis = |time: Duration| time.as_millis() as u64;
        Bounds {
            // A target may fill most of the head, but not all of it.
            limits: Limits {
                line: settings.max_header / 4 * 3,
                head: settings.max_header,
            },
            max_body: settings.max_body,
            max_connections,
            head: millis(settings.header_timeout),
            idle: millis(settings.idle_timeout),
            progress: millis(settings.io_timeout),
        }
    }
}

/// What the worker's main thread tells the gate.
#[derive(Debug)]
pub(crate) enum Order {
    Leave(Leave),
    /// Take over the connections that come through this socket, from a worker that leaves.
    Adopt(OwnedFd),
}

/// Why a worker leaves, and so what becomes of connections without a request, and of those in the kernel's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// They are closed at once; those in the queue are served first.
    Stop,
    /// They go to the next worker by way of the heir, or stay for one more request where there is none; the queue is
    /// left to the next worker.
    Restart,
    /// The master is gone, and nobody else is left: as on a stop, but who has just come gets to ask.
    Orphaned,
}

/// How the worker is to leave.
#[derive(Debug)]
pub(crate) struct Leave {
    /// When what is left is cut.
    pub deadline: Instant,
    pub why: Why,
    /// Who takes connections without a request over, on a restart.
    pub heir: Option<OwnedFd>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub deadline: Instant,
    pub why: Why,
    /// When it began, on the exchange's clock.
    pub since: u64,
}

/// What a drain came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Requests that were in flight when it began, or came on open connections, and were answered.
    pub finished: u64,
    /// Requests that were cut, and the first few of them by name.
    pub cut: u64,
    pub named: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Accepted, nothing received yet.
    Fresh,
    /// Between two requests.
    Idle,
    /// A head has begun.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// On loan to a handler.
    Lent,
    /// The rest of an answer waits for the client to read.
    Writing,
    /// Answered and shut for writing; what still comes is thrown away until the client closes.
    Lingering,
}

pub(super) struct Connection {
    pub client: Arc<Client>,
    pub phase: Phase,
    /// When this phase is over, on the exchange's clock; `u64::MAX` for never.
    deadline: u64,
    /// What was received and not yet sent on.
    pub input: Vec<u8>,
    pub reading: Reading,
    /// The request being answered, and since when.
    pub current: Option<(Arc<Checked>, u64)>,
    output: Option<Box<Output>>,
}

impl Connection {
    /// Whether the client has read on since it was last asked, too little for the socket to take more.
    fn has_read(&mut self) -> bool {
        let Some(output) = &mut self.output else {
            return false;
        };
        let unread = socket::unsent(self.client.as_fd());
        let before = std::mem::replace(&mut output.unread, unread);
        unread.zip(before).is_some_and(|(now, before)| now < before)
    }
}

/// A request that is not complete.
#[derive(Default)]
pub(super) enum Reading {
    #[default]
    Nothing,
    Head(Box<Parser>),
    Body(Box<Incoming>),
}

/// A request whose body is not complete.
pub(super) struct Incoming {
    pub checked: Checked,
    body: Vec<u8>,
    chunked: Chunked,
}

#[derive(Default)]
pub(super) struct Place {
    serial: u32,
    pub connection: Option<Connection>,
}

/// The gate's whole state; it lives on the gate's thread.
pub(crate) struct Gate {
    pub(super) exchange: Arc<Exchange>,
    pool: Arc<Pool>,
    pub(super) bounds: Bounds,
    pub(super) listener: Option<OwnedFd>,
    /// Accepting is paused until this time.
    pub(super) paused: Option<u64>,
    stream: UnixStream,
    /// Bytes for the stream, how many of them are written, and the requests among them.
    outgoing: Vec<u8>,
    written: usize,
    fresh: u64,
    blocked: bool,
    pub(super) places: Vec<Place>,
    free: Vec<u32>,
    pub(super) open: usize,
    scratch: Vec<u8>,
    /// The time of this round, on the exchange's clock.
    pub(super) now: u64,
    next_look: u64,
    pub(super) drain: Option<Drain>,
    /// Who takes connections without a request over, during a restart; and whether it has no room at the moment.
    pub(super) heir: Option<OwnedFd>,
    pub(super) heir_is_full: bool,
    /// Workers that leave, whose connections come here.
    pub(super) sources: Vec<OwnedFd>,
    pub(super) drained: Drained,
    last_warning: Option<Instant>,
    orders: std::sync::mpsc::Receiver<Order>,
}

impl Gate {
    pub fn new(
        exchange: Arc<Exchange>,
        pool: Arc<Pool>,
        bounds: Bounds,
        listener: OwnedFd,
        stream: UnixStream,
        orders: std::sync::mpsc::Receiver<Order>,
    ) -> io::Result<Gate> {
        exchange
            .epoll
            .add(&exchange.bell, BELL, Interest::Readable)?;
        exchange.epoll.add(&stream, STREAM, Interest::Nothing)?;
        exchange
            .epoll
            .add(&listener, LISTENER, Interest::ReadableExclusive)?;
        Ok(Gate {
            exchange,
            pool,
            bounds,
            listener: Some(listener),
            paused: None,
            stream,
            outgoing: Vec::new(),
            written: 0,
            fresh: 0,
            blocked: false,
            places: Vec::new(),
            free: Vec::new(),
            open: 0,
            scratch: vec![0; SCRATCH],
            now: 0,
            next_look: u64::MAX,
            drain: None,
            heir: None,
            heir_is_full: false,
            sources: Vec::new(),
            drained: Drained::default(),
            last_warning: None,
            orders,
        })
    }

    /// Serves until a drain is over.
    pub fn run(mut self) -> Drained {
        let mut events = Events::with_capacity(256);
        let mut watch = Watch::default();
        let mut look_again = None;
        loop {
            let timeout = self.until_next_look(look_again);
            let count = match self.exchange.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(error) => {
                    self.warn(format_args!("epoll_wait: {error}"));
                    std::thread::sleep(Duration::from_millis(ACCEPT_PAUSE));
                    0
                }
            };
            self.now = self.exchange.clock();
            for index in 0..count {
                match events.token(index) {
                    LISTENER => self.accept(ACCEPT_ROUND),
                    BELL => self.exchange.bell.silence(),
                    STREAM if self.blocked => self.blocked = false,
                    // It was not asked whether it can be written to: the other end is gone.
                    STREAM => broken("its other end is closed"),
                    SOURCE => self.adopt(),
                    HEIR => self.heir_is_full = false,
                    token => self.turn(Token(token)),
                }
            }
            for note in self.exchange.notes() {
                self.take_note(note);
            }
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            if self.now >= self.next_look || self.drain.is_some() {
                self.look();
            }
            self.flush();
            let fresh = std::mem::take(&mut self.fresh);
            if fresh > 0 || look_again.is_some() {
                look_again = self.pool.watch(&mut watch, fresh);
            }
            if self.drain.is_some_and(|drain| self.is_drained(&drain)) {
                return self.drained;
            }
        }
    }

    fn until_next_look(&self, look_again: Option<Duration>) -> Option<Duration> {
        let looks = (self.next_look != u64::MAX)
            .then(|| Duration::from_millis(self.next_look.saturating_sub(self.exchange.clock())));
        let drain = self
            .drain
            .map(|drain| drain.deadline.saturating_duration_since(Instant::now()));
        [looks, drain, look_again].into_iter().flatten().min()
    }

    /// Says at most once a minute that something is wrong which may go on for long.
    pub(super) fn warn(&mut self, event: std::fmt::Arguments<'_>) {
        if self
            .last_warning
            .is_none_or(|last| last.elapsed() > Duration::from_secs(60))
        {
            self.last_warning = Some(Instant::now());
            log::warn(event);
        }
    }

    /// Sees to it that the connections are looked at no later than this.
    pub(super) fn due(&mut self, at: u64) {
        self.next_look = self.next_look.min(at);
    }

    pub(super) fn connection(&mut self, token: Token) -> Option<&mut Connection> {
        let place = self
            .places
            .get_mut(token.place())
            .filter(|place| place.serial == token.serial())?;
        place.connection.as_mut()
    }

    // Accepting.

    pub(super) fn accept(&mut self, most: usize) {
        for _ in 0..most {
            if self.open >= self.bounds.max_connections && self.drain.is_none() {
                // Somebody makes room only for somebody who waits.
                if !self
                    .listener
                    .as_ref()
                    .is_some_and(|listener| socket::has_waiting(listener.as_fd()))
                {
                    return;
                }
                if !self.close_longest_idle() {
                    self.exchange.set_crowded(true);
                    return self.pause(u64::MAX);
                }
            }
            let Some(listener) = &self.listener else {
                return;
            };
            match socket::accept(listener.as_fd()) {
                Ok((fd, peer)) => self.admit(Client::new(fd, peer)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client gave up before its turn; others wait behind it (accept(2)).
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    let open = self.open;
                    self.warn(format_args!(
                        "cannot accept connections for now, {open} open: {error}"
                    ));
                    return self.pause(self.now + ACCEPT_PAUSE);
                }
            }
        }
    }

    fn admit(&mut self, client: Client) {
        self.exchange.slot.add_accepted();
        self.take_in(client, Phase::Fresh, self.now + self.bounds.head);
    }

    /// Gives a connection a place and waits for what it sends.
    pub(super) fn take_in(&mut self, client: Client, phase: Phase, deadline: u64) {
        let place = self
            .free
            .pop()
            .map_or(self.places.len(), |place| place as usize);
        if place == self.places.len() {
            self.places.push(Place::default());
        }
        let token = Token::new(place, self.places[place].serial);
        let client = Arc::new(client);
        if let Err(error) = self
            .exchange
            .epoll
            .add(&*client, token.0, Interest::ReadableOnce)
        {
            self.free.push(place as u32);
            let open = self.open;
            self.warn(format_args!(
                "cannot watch another connection, {open} open: {error}"
            ));
            return;
        }
        self.places[place].connection = Some(Connection {
            client,
            phase,
            deadline,
            input: Vec::new(),
            reading: Reading::Nothing,
            current: None,
            output: None,
        });
        self.open += 1;
        self.exchange.slot.set_open(self.open);
        self.due(deadline);
    }

    /// Leaves new connections in the kernel's queue for a while.
    fn pause(&mut self, until: u64) {
        if let (Some(listener), None) = (&self.listener, self.paused) {
            let _ = self.exchange.epoll.remove(listener);
        }
        self.paused = Some(until);
        self.due(until);
    }

    pub(super) fn resume(&mut self) {
        if self.paused.take().is_none() {
            return;
        }
        self.exchange.set_crowded(false);
        if let Some(listener) = &self.listener {
            if self
                .exchange
                .epoll
                .add(listener, LISTENER, Interest::ReadableExclusive)
                .is_err()
            {
                self.pause(self.now + ACCEPT_PAUSE);
            }
        }
    }

    pub(super) fn close_longest_idle(&mut self) -> bool {
        let idle = self.tokens().filter_map(|token| {
            let connection = self.places[token.place()].connection.as_ref()?;
            match (connection.phase, connection.client.loan()) {
                (Phase::Idle, _) => {
                    Some((connection.deadline.saturating_sub(self.bounds.idle), token))
                }
                (Phase::Lent, Loan::Idle(since)) => Some((since, token)),
                _ => None,
            }
        });
        let mut idle: Vec<(u64, Token)> = idle.collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        // Whose request has come meanwhile is idle no more.
        let longest = idle.into_iter().find(|(_, token)| {
            let connection = self.places[token.place()].connection.as_ref();
            connection.is_some_and(|connection| !socket::has_input(connection.client.as_fd()))
        });
        let Some((_, token)) = longest else {
            return false;
        };
        self.close(token);
        true
    }

    fn tokens(&self) -> impl Iterator<Item = Token> {
        let used = self
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.connection.is_some());
        used.map(|(index, place)| Token::new(index, place.serial))
    }

    /// A connection is idle or gone: somebody who waits in the kernel's queue may have its place.
    fn make_room(&mut self) {
        if self.paused == Some(u64::MAX) {
            self.resume();
        }
    }

    pub(super) fn close(&mut self, token: Token) {
        let place = &mut self.places[token.place()];
        let Some(connection) = place.connection.take() else {
            return;
        };
        place.serial = place.serial.wrapping_add(1) & 0x7fff_ffff;
        // Once more than by closing: a handler may still hold the descriptor for a moment.
        let _ = self.exchange.epoll.remove(&*connection.client);
        self.free.push(token.place() as u32);
        self.open -= 1;
        self.exchange.slot.set_open(self.open);
        if connection.phase == Phase::Writing && connection.current.is_some() {
            self.exchange.slot.add_answered();
        }
        self.make_room();
    }

    // Reading.

    /// Something happened on a connection that waited for it.
    fn turn(&mut self, token: Token) {
        let Some(connection) = self.connection(token) else {
            return;
        };
        match connection.phase {
            // It was answered and given back without a word.
            Phase::Lent => self.come_back(token, true),
            Phase::Fresh | Phase::Idle | Phase::Head | Phase::Body => self.read(token),
            Phase::Writing => self.write(token),
            Phase::Lingering => self.discard(token),
        }
    }

    fn read(&mut self, token: Token) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.connection(token) {
            match socket::receive(connection.client.as_fd(), &mut scratch) {
                Ok(0) => self.close(token),
                Ok(count) => self.receive(token, &scratch[..count]),
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

    fn parse(&mut self, token: Token, mut parser: Parser, input: Cow<'_, [u8]>) {
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
        let (length, expects) = (head.length, head.expects_continue && rest.is_empty());
        let checked = Checked {
            bytes: bytes.to_vec(),
            head,
        };
        match length {
            Length::None => return self.lend(token, checked, Vec::new(), rest.to_vec()),
            Length::Known(length) if length > self.bounds.max_body as u64 => {
                let why = Refusal {
                    status: 413,
                    reason: "body too large",
                };
                return self.refuse(token, why, checked.method() == "HEAD");
            }
            _ => {}
        }
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
        self.collect(
            token,
            Box::new(Incoming {
                checked,
                body: Vec::new(),
                chunked: Chunked::new(),
            }),
            rest,
        );
    }

    /// Adds to a body, and sends the request on when it is complete.
    fn collect(&mut self, token: Token, mut incoming: Box<Incoming>, bytes: &[u8]) {
        let (used, done) = match incoming.checked.head.length {
            Length::Chunked => {
                match incoming
                    .chunked
                    .decode(bytes, &mut incoming.body, self.bounds.max_body)
                {
                    Ok((used, progress)) => (used, progress == Progress::Done),
                    Err(why) => {
                        return self.refuse(token, why, incoming.checked.method() == "HEAD");
                    }
                }
            }
            length => {
                let whole = if let Length::Known(length) = length {
                    length as usize
                } else {
                    0
                };
                let used = bytes.len().min(whole - incoming.body.len());
                incoming.body.extend_from_slice(&bytes[..used]);
                (used, incoming.body.len() == whole)
            }
        };
        if done {
            let Incoming { checked, body, .. } = *incoming;
            return self.lend(token, checked, body, bytes[used..].to_vec());
        }
        let deadline = self.now + self.bounds.progress;
        let Some(connection) = self.connection(token) else {
            return;
        };
        connection.reading = Reading::Body(incoming);
        connection.deadline = deadline;
        self.due(deadline);
        self.arm(token, Interest::ReadableOnce);
    }

    /// Sends a complete request on.
    fn lend(&mut self, token: Token, checked: Checked, body: Vec<u8>, more: Vec<u8>) {
        let (checked, now) = (Arc::new(checked), self.now);
        let Some(connection) = self.connection(token) else {
            return;
        };
        connection.phase = Phase::Lent;
        connection.deadline = u64::MAX;
        connection.current = Some((Arc::clone(&checked), now));
        let client = Arc::clone(&connection.client);
        let request = Request {
            checked: Arc::clone(&checked),
            body,
            peer: client.peer,
            draining: false,
        };
        let job = Job {
            client,
            token,
            request,
            more: !more.is_empty(),
        };
        connection.input = more;
        self.exchange.slot.add_lent();
        self.exchange.lend(job);
        server::write_request(&mut self.outgoing, &checked, token.place());
        self.fresh += 1;
        self.due(now + LOAN_LOOK);
    }

    /// A connection is back from a handler. `readable`: epoll said so, and has disarmed it.
    fn come_back(&mut self, token: Token, readable: bool) {
        let (idle, now, drain) = (self.bounds.idle, self.now, self.drain);
        let Some(connection) = self
            .connection(token)
            .filter(|connection| connection.phase == Phase::Lent)
        else {
            return;
        };
        let (phase, since, deadline) = match connection.client.loan() {
            Loan::Out => return,
            Loan::Idle(since) => (Phase::Idle, since, since + idle),
            Loan::Closing(since) => (Phase::Lingering, since, since + LINGER),
        };
        connection.current = None;
        connection.deadline = deadline;
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

    fn arm(&mut self, token: Token, interest: Interest) {
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

    // Writing.

    fn take_note(&mut self, note: Note) {
        match note {
            Note::Back(token) => self.come_back(token, false),
            Note::Rest(token, output) => self.answer(token, output),
        }
    }

    /// Answers with a refusal, without its body if that is what HEAD asked for, and closes.
    fn refuse(&mut self, token: Token, why: Refusal, is_head: bool) {
        if let Some(connection) = self.connection(token) {
            let origin = connection.client.origin();
            log::debug(format_args!(
                "refused {} with {}: {}",
                origin, why.status, why.reason
            ));
            let bytes = server::render(&refusal(why.status, why.reason), is_head);
            connection.input = Vec::new();
            self.answer(
                token,
                Output {
                    bytes,
                    sent: 0,
                    unread: None,
                    close: true,
                },
            );
        }
    }

    fn answer(&mut self, token: Token, mut output: Output) {
        let deadline = self.now + self.bounds.progress;
        let Some(connection) = self.connection(token) else {
            return;
        };
        connection.phase = Phase::Writing;
        connection.deadline = deadline;
        output.unread = socket::unsent(connection.client.as_fd());
        connection.output = Some(Box::new(output));
        self.due(deadline);
        self.write(token);
    }

    /// Sends on what waits, as far as the socket takes it.
    fn write(&mut self, token: Token) {
        let deadline = self.now + self.bounds.progress;
        let idle = self.now + self.bounds.idle;
        let linger = self.now + LINGER;
        let drain = self.drain.is_some();
        let Some(connection) = self.connection(token) else {
            return;
        };
        let Some(output) = &mut connection.output else {
            return;
        };
        match socket::send(
            connection.client.as_fd(),
            &[IoSlice::new(&output.bytes[output.sent..])],
        ) {
            Ok(sent) => {
                output.sent += sent;
                output.unread = socket::unsent(connection.client.as_fd());
                connection.deadline = deadline;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return self.close(token),
        }
        if output.sent < output.bytes.len() {
            return self.arm(token, Interest::WritableOnce);
        }
        let close = output.close;
        connection.output = None;
        let answered = connection.current.take().is_some();
        if answered {
            self.exchange.slot.add_answered();
            self.drained.finished += u64::from(drain);
        }
        let Some(connection) = self.connection(token) else {
            return;
        };
        if close {
            socket::shutdown_write(connection.client.as_fd());
            connection.phase = Phase::Lingering;
            connection.deadline = linger;
            self.due(linger);
        } else {
            connection.phase = Phase::Idle;
            connection.deadline = idle;
            let input = std::mem::take(&mut connection.input);
            self.due(idle);
            if !input.is_empty() {
                return self.parse(token, Parser::new(), Cow::Owned(input));
            }
        }
        self.arm(token, Interest::ReadableOnce);
    }

    /// Reads and forgets until the client closes, so that the answer before is not lost to a reset.
    fn discard(&mut self, token: Token) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.connection(token) {
            match socket::receive(connection.client.as_fd(), &mut scratch) {
                Ok(count) if count > 0 => self.arm(token, Interest::ReadableOnce),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.arm(token, Interest::ReadableOnce)
                }
                _ => self.close(token),
            }
        }
        self.scratch = scratch;
    }

    /// Writes what goes to the server behind, in one piece if it takes it.
    fn flush(&mut self) {
        while !self.blocked && self.written < self.outgoing.len() {
            match (&self.stream).write(&self.outgoing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    let _ =
                        self.exchange
                            .epoll
                            .modify(&self.stream, STREAM, Interest::WritableOnce);
                }
                Err(error) => {
                    broken(error);
                }
            }
        }
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.outgoing.shrink_to(SCRATCH);
            self.written = 0;
        }
    }

    // Deadlines.

    /// Looks at every connection: ends what is over, and finds out when the next look is due.
    fn look(&mut self) {
        let (now, mut next) = (self.now, u64::MAX);
        let (mut over, mut leaving) = (Vec::new(), Vec::new());
        let has_heir = self.heir.is_some() && !self.heir_is_full;
        match self.paused {
            Some(until) if until <= now => self.resume(),
            // For a place; one that comes free tells, but for a moment before it was known that it should.
            Some(u64::MAX) => {
                self.resume();
                next = now + LOAN_LOOK;
            }
            Some(until) => next = until,
            None => {}
        }
        let draining = self.drain.is_some();
        let why = self.drain.map(|drain| drain.why);
        let closes_idle = matches!(why, Some(Why::Stop | Why::Orphaned));
        for (index, place) in self.places.iter().enumerate() {
            let Some(connection) = &place.connection else {
                continue;
            };
            let deadline = match (connection.phase, connection.client.loan()) {
                (Phase::Fresh, _) if why == Some(Why::Stop) => 0,
                (Phase::Idle, _) | (Phase::Lent, Loan::Idle(_)) if closes_idle => 0,
                // What a connection between two requests may hold is an empty line.
                (Phase::Fresh | Phase::Idle, _) if has_heir => {
                    leaving.push(Token::new(index, place.serial));
                    continue;
                }
                (Phase::Lent, Loan::Idle(_)) if has_heir && connection.input.is_empty() => {
                    leaving.push(Token::new(index, place.serial));
                    continue;
                }
                (Phase::Lent, Loan::Out) => {
                    next = next.min(now + LOAN_LOOK);
                    continue;
                }
                (Phase::Lent, Loan::Idle(since)) => since + self.bounds.idle,
                (Phase::Lent, Loan::Closing(since)) => {
                    since + if draining { LINGER_DRAINING } else { LINGER }
                }
                (Phase::Lingering, _) if draining => {
                    connection.deadline - (LINGER - LINGER_DRAINING)
                }
                _ => connection.deadline,
            };
            if deadline <= now {
                over.push(Token::new(index, place.serial));
            } else {
                next = next.min(deadline);
            }
        }
        // Many small steps are better taken together. What is done below may ask for an earlier look.
        self.next_look = if next == u64::MAX {
            next
        } else {
            next.max(now + LOOK_STEP)
        };
        for token in over {
            self.end(token);
        }
        for token in leaving {
            if self.heir_is_full {
                break;
            }
            self.bequeath(token);
        }
    }

    /// The time of a connection is over.
    fn end(&mut self, token: Token) {
        let head = self.bounds.head / 1000;
        let progress = self.bounds.progress / 1000;
        let next = self.now + self.bounds.progress;
        let Some(connection) = self.connection(token) else {
            return;
        };
        let waits = socket::has_input(connection.client.as_fd());
        match connection.phase {
            // The next request has come at the last moment.
            Phase::Fresh | Phase::Idle if waits => self.read(token),
            Phase::Lent if waits && matches!(connection.client.loan(), Loan::Idle(_)) => {
                self.come_back(token, true)
            }
            Phase::Head => {
                log::debug(format_args!(
                    "{}: head not complete after {head} s",
                    connection.client.origin()
                ));
                let is_head = is_head(&connection.input);
                self.refuse(
                    token,
                    Refusal {
                        status: 408,
                        reason: "the request head took too long",
                    },
                    is_head,
                );
            }
            Phase::Body => {
                log::debug(format_args!(
                    "{}: no more of the body for {progress} s",
                    connection.client.origin()
                ));
                let is_head = matches!(&connection.reading, Reading::Body(body) if body.checked.method() == "HEAD");
                self.refuse(
                    token,
                    Refusal {
                        status: 408,
                        reason: "the request body took too long",
                    },
                    is_head,
                );
            }
            Phase::Writing => {
                if connection.has_read() {
                    connection.deadline = next;
                    return self.due(next);
                }
                log::debug(format_args!(
                    "{}: does not read its answer",
                    connection.client.origin()
                ));
                self.close(token);
            }
            _ => self.close(token),
        }
    }
}

/// Nothing can be served any more. The master starts a new worker at once.
fn broken(why: impl std::fmt::Display) -> ! {
    log::error(format_args!("the private stream to tiny_http broke: {why}"));
    exit_now(exit::FAILED)
}

/// Whether a head that cannot be served, perhaps for being cut, asks for HEAD: its refusal has no body then.
fn is_head(input: &[u8]) -> bool {
    input.trim_ascii_start().starts_with(b"HEAD ")
}

/// Errors of accept(2) that concern one connection and not the next, the network's own included.
fn is_transient(error: &io::Error) -> bool {
    use Errno::{
        ConnectionAborted, HostDown, HostUnreachable, NetDown, NetUnreachable, NotPermitted,
        Protocol,
    };
    [
        ConnectionAborted,
        NetDown,
        Protocol,
        HostDown,
        HostUnreachable,
        NetUnreachable,
        NotPermitted,
    ]
    .into_iter()
    .any(|errno| is_errno(error, errno))
}
