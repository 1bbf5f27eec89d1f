//! The front door: one thread with epoll owns every client socket. This file has its loop, the table of connections,
//! accepting, and every limit and deadline; `receive.rs` reads and checks what comes in, `send.rs` answers and closes,
//! `leave.rs` ends it all. Checked requests go on in one stream to the server behind it (`server.rs`).
#![forbid(unsafe_code)]

use super::Checked;
use super::exchange::{Client, Exchange, Loan, Token};
use super::head::{Limits, Parser, Refusal};
use super::output::Output;
use super::receive::Incoming;
use super::routes::Routes;
use super::server::{Pool, Seen, Watch};
use super::upload::{BODY_TOO_SLOW, LEAST_RATE};
use crate::ledger::Cause;
use crate::log;
use crate::settings::Settings;
use crate::sys::epoll::{Events, Interest};
use crate::sys::fd::raise_file_limit;
use crate::sys::{Errno, is_errno, memory, socket};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
pub(super) const STREAM: u64 = u64::MAX - 2;
pub(super) const SOURCE: u64 = u64::MAX - 3;
pub(super) const HEIR: u64 = u64::MAX - 4;

/// Bytes read at a time.
pub(super) const SCRATCH: usize = 64 * 1024;
/// Connections accepted before those that are open get their turn.
const ACCEPT_ROUND: usize = 64;
/// Milliseconds after which accepting is tried again when the kernel had no descriptor or memory to give.
const ACCEPT_PAUSE: u64 = 100;
/// Milliseconds that a client has to read the last answer and close (RFC 9112 §9.6).
pub(super) const LINGER: u64 = 2000;
/// The most that it can make of them by what it still sends, which buys a second for every so many bytes.
pub(super) const LINGER_MOST: u64 = 30_000;
pub(super) const LINGER_RATE: u64 = 16 * 1024;
/// The same while the worker is leaving.
const LINGER_DRAINING: u64 = 500;
/// Milliseconds between two looks at the least.
const LOOK_STEP: u64 = 100;
/// Milliseconds between looks at connections that are on loan and may have come back unannounced.
const LOAN_LOOK: u64 = 1000;
/// Milliseconds after which a connection that has not said anything may have to make room for another.
const SILENT: u64 = 1000;
/// Time after which a new tiny_http is tried again.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);
/// Descriptors kept for everything that is not a client.
const RESERVE: usize = 64;
/// Bytes of an answer that the kernel takes before the network does.
const UNSENT: i32 = 128 * 1024;
/// Bytes of answers that waited for slow readers, after which the memory that they took is given back to the kernel.
const TRIM: usize = 16 << 20;
/// Clients may hold a quarter of the memory by what they have sent or not yet read, and never less than this.
const LEAST_MEMORY: usize = 4 << 20;

/// The settings the gate works by; times in milliseconds.
pub(crate) struct Bounds {
    pub(super) limits: Limits,
    pub(super) max_body: u64,
    pub(super) max_connections: usize,
    max_per_address: usize,
    /// Requests that handlers may have or that may wait for one.
    pub(super) room: u64,
    pub(super) head: u64,
    pub(super) idle: u64,
    pub(super) progress: u64,
    /// `u64::MAX` for never.
    handler_warn: u64,
    pub(super) memory: usize,
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
            max_body: settings.max_body as u64,
            max_connections,
            max_per_address: match settings.max_per_address {
                0 => usize::MAX,
                most => most,
            },
            room: (settings.threads + settings.queue) as u64,
            head: millis(settings.header_timeout),
            idle: millis(settings.idle_timeout),
            progress: millis(settings.io_timeout),
            handler_warn: match settings.handler_warn {
                Duration::ZERO => u64::MAX,
                time => millis(time),
            },
            memory: (memory_there_is() / 4 / settings.workers).max(LEAST_MEMORY),
        }
    }

    /// When a transfer that began then, and has come so far, is over for want of progress: after `app.io_timeout`
    /// without any, and sooner if it is slower on the whole than the least rate.
    pub(super) fn transfer(&self, now: u64, begun: u64, bytes: u64) -> u64 {
        let bought = bytes.saturating_mul(1000) / LEAST_RATE;
        (now + self.progress).min((begun + self.progress).saturating_add(bought))
    }
}

/// Bytes of memory of the machine, or of the container if that has less.
fn memory_there_is() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let machine = read("/proc/meminfo").lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.strip_suffix("kB")?;
        number(kilobytes)?.checked_mul(1024)
    });
    let container = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limits = container.iter().filter_map(|path| number(&read(path)));
    limits.chain(machine).min().unwrap_or(usize::MAX)
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
    /// The body is long, and as many long ones are being read by handlers as may be.
    Queued,
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
    pub deadline: u64,
    /// When writing or lingering began.
    pub begun: u64,
    /// What was received and not yet sent on.
    pub input: Vec<u8>,
    pub reading: Reading,
    /// The request being answered, and since when.
    pub current: Option<(Arc<Checked>, u64)>,
    pub output: Option<Box<Output>>,
    /// The log has said that its handler takes long.
    is_named: bool,
    /// It is among the connections of its address.
    is_counted: bool,
}

impl Connection {
    /// Since when it has waited for a request, if it does, and nobody else is about to touch it; 0 for one that is
    /// answered and about to go.
    fn idle_since(&self, bounds: &Bounds) -> Option<u64> {
        match (self.phase, self.client.loan()) {
            (Phase::Lingering, _) => Some(0),
            (Phase::Fresh, _) => Some(self.deadline.saturating_sub(bounds.head)),
            (Phase::Idle, _) => Some(self.deadline.saturating_sub(bounds.idle)),
            (Phase::Lent, _) if self.client.is_being_armed() => None,
            (Phase::Lent, Loan::Idle(since)) => Some(since),
            (Phase::Lent, Loan::Closing(_)) => Some(0),
            _ => None,
        }
    }

    /// Whether what has come of its request asks for the head of the answer alone.
    fn asks_for_head(&self) -> bool {
        match &self.reading {
            Reading::Body(incoming) => incoming.checked.method() == "HEAD",
            _ => is_head(&self.input),
        }
    }

    /// Bytes of memory that it holds by what its client has sent, or has not read. What waits for a handler is
    /// counted where it waits.
    fn held(&self) -> usize {
        if self.phase == Phase::Lent {
            return 0;
        }
        let body = match &self.reading {
            Reading::Body(incoming) => incoming.body.capacity(),
            _ => 0,
        };
        let output = self.output.as_ref().map_or(0, |output| output.held());
        self.input.capacity() + body + output
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

#[derive(Default)]
pub(super) struct Place {
    serial: u32,
    pub connection: Option<Connection>,
}

/// The gate's whole state; it lives on the gate's thread.
pub(crate) struct Gate {
    pub(super) exchange: Arc<Exchange>,
    pool: Arc<Pool>,
    pub(super) routes: Arc<Routes>,
    pub(super) bounds: Bounds,
    pub(super) listener: Option<OwnedFd>,
    /// Accepting is paused until this time.
    pub(super) paused: Option<u64>,
    /// The private stream; without one a new one is tried at the time beside it.
    pub(super) stream: Option<UnixStream>,
    rebuild_at: u64,
    /// It is new, and what was sent on it has yet to be looked after.
    is_rebuilt: bool,
    /// Bytes for the stream, how many of them are written, and the requests among them.
    pub(super) outgoing: Vec<u8>,
    pub(super) written: usize,
    pub(super) fresh: u64,
    pub(super) blocked: bool,
    /// Requests lent since the start.
    pub(super) lent: u64,
    pub(super) places: Vec<Place>,
    free: Vec<u32>,
    pub(super) open: usize,
    /// Connections by address, where their number is bounded.
    addresses: HashMap<IpAddr, usize>,
    /// Long bodies that wait for a thread that may read them.
    pub(super) uploads: VecDeque<Token>,
    /// Bytes that clients have made us keep since all that they hold was last added up.
    grown: usize,
    /// Bytes of answers that waited here for their readers since freed memory was last given back to the kernel.
    pub(super) waited: usize,
    pub(super) scratch: Vec<u8>,
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
        (pool, stream): (Arc<Pool>, UnixStream),
        routes: Arc<Routes>,
        bounds: Bounds,
        listener: OwnedFd,
        orders: std::sync::mpsc::Receiver<Order>,
    ) -> io::Result<Gate> {
        exchange
            .epoll
            .add(&exchange.bell, BELL, Interest::Readable)?;
        exchange.epoll.add(&stream, STREAM, Interest::Nothing)?;
        exchange
            .epoll
            .add(&listener, LISTENER, Interest::ReadableExclusive)?;
        socket::limit_unsent(listener.as_fd(), UNSENT);
        Ok(Gate {
            exchange,
            pool,
            routes,
            bounds,
            listener: Some(listener),
            paused: None,
            stream: Some(stream),
            rebuild_at: 0,
            is_rebuilt: false,
            outgoing: Vec::new(),
            written: 0,
            fresh: 0,
            blocked: false,
            lent: 0,
            places: Vec::new(),
            free: Vec::new(),
            open: 0,
            addresses: HashMap::new(),
            uploads: VecDeque::new(),
            grown: 0,
            waited: 0,
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
                    STREAM if self.blocked => self.unblock(),
                    // It was not asked whether it can be written to: the other end is gone.
                    STREAM => self.rebuild("its other end is closed"),
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
            if fresh > 0 || look_again.is_some() || std::mem::take(&mut self.is_rebuilt) {
                look_again = match self.pool.watch(&mut watch, fresh) {
                    Seen::Nothing => None,
                    Seen::Waiting(time) => Some(time),
                    Seen::Stuck => {
                        self.rebuild("requests do not get through");
                        self.flush();
                        watch = Watch::default();
                        Some(Duration::ZERO)
                    }
                };
            }
            if self.drain.is_some_and(|drain| self.is_drained(&drain)) {
                return self.drained;
            }
        }
    }

    /// The stream takes more. From now on it is to tell only that it broke.
    fn unblock(&mut self) {
        self.blocked = false;
        if let Some(stream) = &self.stream {
            let _ = self
                .exchange
                .epoll
                .modify(stream, STREAM, Interest::Nothing);
        }
    }

    /// The way to the handlers is closed: makes a new one, and sends on what has not been picked up.
    pub(super) fn rebuild(&mut self, why: impl std::fmt::Display) {
        self.warn(format_args!(
            "the private stream to tiny_http broke, a new one is made: {why}"
        ));
        if let Some(stream) = self.stream.take() {
            let _ = self.exchange.epoll.remove(&stream);
        }
        self.outgoing.clear();
        (self.written, self.fresh, self.blocked) = (0, 0, false);
        // One that breaks as soon as it is made, for want of threads perhaps, is not made over and over.
        if self.now < self.rebuild_at {
            return self.due(self.rebuild_at);
        }
        self.rebuild_at = self.now + REBUILD_PAUSE.as_millis() as u64;
        let mut outgoing = Vec::new();
        let mut waiting = 0;
        for (index, place) in self.places.iter().enumerate() {
            let Some(connection) = &place.connection else {
                continue;
            };
            if let (Phase::Lent, Loan::Waiting, Some((checked, _))) = (
                connection.phase,
                connection.client.loan(),
                &connection.current,
            ) {
                super::server::write_request(&mut outgoing, checked, index);
                waiting += 1;
            }
        }
        let built = self.pool.rebuild(waiting).and_then(|stream| {
            self.exchange
                .epoll
                .add(&stream, STREAM, Interest::Nothing)?;
            Ok(stream)
        });
        match built {
            Ok(stream) => {
                self.stream = Some(stream);
                self.outgoing = outgoing;
                self.is_rebuilt = true;
                self.due(self.now);
            }
            Err(error) => {
                self.warn(format_args!("cannot make another tiny_http: {error}"));
                self.due(self.rebuild_at);
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
        let mut idle = None;
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
                if !self.close_longest_idle(&mut idle) {
                    self.exchange.set_crowded(true);
                    // Who says nothing has to make room soon.
                    self.due(self.now + SILENT);
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
        let most = self.bounds.max_per_address;
        let address = client.peer.map(|peer| peer.ip().to_canonical());
        let before = address.and_then(|address| self.addresses.get(&address));
        let is_one_too_many = before.is_some_and(|before| *before >= most);
        let token = self.take_in(client, Phase::Fresh, self.now + self.bounds.head);
        if let (true, Some(token)) = (is_one_too_many, token) {
            // Answered at once, it is not one of those that may stay.
            self.count_out(token);
            let why = Refusal::new(429, "too many connections from this address");
            self.refuse(token, why, false);
        }
    }

    fn count_out(&mut self, token: Token) {
        let Some(connection) = self.connection(token) else {
            return;
        };
        if !std::mem::take(&mut connection.is_counted) {
            return;
        }
        let address = connection.client.peer.map(|peer| peer.ip().to_canonical());
        if let Some(address) = address {
            if let Some(count) = self.addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&address);
                }
            }
        }
    }

    /// Gives a connection a place and waits for what it sends.
    pub(super) fn take_in(&mut self, client: Client, phase: Phase, deadline: u64) -> Option<Token> {
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
            return None;
        }
        let is_counted = match client.peer {
            Some(peer) if self.bounds.max_per_address < usize::MAX => {
                *self.addresses.entry(peer.ip().to_canonical()).or_default() += 1;
                true
            }
            _ => false,
        };
        self.places[place].connection = Some(Connection {
            client,
            phase,
            deadline,
            begun: self.now,
            input: Vec::new(),
            reading: Reading::Nothing,
            current: None,
            output: None,
            is_named: false,
            is_counted,
        });
        self.open += 1;
        self.exchange.slot.set_open(self.open);
        self.due(deadline);
        Some(token)
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

    /// Makes room by the connection that is missed least: one that is answered and about to go, or else the one that
    /// has been without a request the longest. Who has come just now gets to ask. `idle` keeps the order of them all
    /// for the next call in the same round.
    pub(super) fn close_longest_idle(&mut self, idle: &mut Option<VecDeque<Token>>) -> bool {
        let idle = idle.get_or_insert_with(|| self.idle_by_age());
        while let Some(token) = idle.pop_front() {
            let Some(connection) = self.connection(token) else {
                continue;
            };
            let is_going = connection.phase == Phase::Lingering
                || matches!(connection.client.loan(), Loan::Closing(_));
            // Whose request has come meanwhile is idle no more.
            if is_going || !socket::has_input(connection.client.as_fd()) {
                self.close(token);
                return true;
            }
        }
        false
    }

    fn idle_by_age(&self) -> VecDeque<Token> {
        let idle = self.tokens().filter_map(|token| {
            let connection = self.places[token.place()].connection.as_ref()?;
            let since = connection.idle_since(&self.bounds)?;
            let is_new = connection.phase == Phase::Fresh && since + SILENT > self.now;
            (!is_new).then_some((since, token))
        });
        let mut idle: Vec<(u64, Token)> = idle.collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.into_iter().map(|(_, token)| token).collect()
    }

    /// Adds to what clients make us keep. Now and then all of it is added up, and where it is too much, those go whose
    /// time is over soonest: who sent or read most lately stays, unless its own is more than all may have.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.grown += bytes;
        if self.grown < self.bounds.memory / 8 {
            return;
        }
        self.grown = 0;
        let most = self.bounds.memory;
        let mut holders: Vec<(u64, usize, Token)> = self
            .tokens()
            .filter_map(|token| {
                let connection = self.places[token.place()].connection.as_ref()?;
                let held = connection.held();
                let order = if held > most { 0 } else { connection.deadline };
                (held > 0).then_some((order, held, token))
            })
            .collect();
        let mut sum: usize = holders.iter().map(|(_, held, _)| held).sum();
        holders.sort_unstable_by_key(|(order, ..)| *order);
        for (_, held, token) in holders {
            if sum <= most {
                break;
            }
            if self.make_way(token) {
                sum -= held;
            }
        }
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
    pub(super) fn make_room(&mut self) {
        if self.paused == Some(u64::MAX) {
            self.resume();
        }
    }

    pub(super) fn close(&mut self, token: Token) {
        self.count_out(token);
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
        // Answered during a drain, and closed or passed on before its note was taken.
        if let (Phase::Lent, Some(drain)) = (connection.phase, &self.drain) {
            let is_finished = match connection.client.loan() {
                Loan::Idle(since) | Loan::Closing(since) => since >= drain.since,
                Loan::Waiting | Loan::Working(_) => false,
            };
            self.drained.finished += u64::from(is_finished);
        }
        self.make_room();
    }

    // Deadlines.

    /// Looks at every connection: ends what is over, and finds out when the next look is due.
    fn look(&mut self) {
        let (now, mut next) = (self.now, u64::MAX);
        let (mut over, mut leaving) = (Vec::new(), Vec::new());
        let (mut slow, mut done) = (Vec::new(), Vec::new());
        let (mut overdue, mut longest, mut is_writing) = (0, 0, false);
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
        if self.stream.is_none() {
            if self.rebuild_at <= now {
                self.rebuild("it could not be made before");
            }
            next = next.min(self.rebuild_at.max(now + LOOK_STEP));
        }
        let draining = self.drain.is_some();
        let why = self.drain.map(|drain| drain.why);
        let closes_idle = matches!(why, Some(Why::Stop | Why::Orphaned));
        for (index, place) in self.places.iter().enumerate() {
            let Some(connection) = &place.connection else {
                continue;
            };
            let token = Token::new(index, place.serial);
            let loan = connection.client.loan();
            is_writing |= connection.phase == Phase::Writing;
            if let (true, Loan::Idle(at) | Loan::Closing(at)) = (connection.is_named, loan) {
                done.push((token, at));
            }
            let deadline = match (connection.phase, loan) {
                (Phase::Lent, Loan::Waiting) => {
                    next = next.min(now + LOAN_LOOK);
                    continue;
                }
                (Phase::Lent, Loan::Working(since)) => {
                    next = next.min(now + LOAN_LOOK);
                    let warn = since.saturating_add(self.bounds.handler_warn);
                    if warn > now {
                        next = next.min(warn);
                        continue;
                    }
                    overdue += 1;
                    longest = longest.max(now - since);
                    if !connection.is_named {
                        slow.push(token);
                    }
                    continue;
                }
                // A handler may touch it at any moment.
                (Phase::Lent, _) if connection.client.is_being_armed() => {
                    next = next.min(now + LOOK_STEP);
                    continue;
                }
                (Phase::Fresh, _) if why == Some(Why::Stop) => 0,
                (Phase::Idle, _) | (Phase::Lent, Loan::Idle(_)) if closes_idle => 0,
                // What a connection between two requests may hold is an empty line.
                (Phase::Fresh | Phase::Idle, _) if has_heir => {
                    leaving.push(token);
                    continue;
                }
                (Phase::Lent, Loan::Idle(_)) if has_heir && connection.input.is_empty() => {
                    leaving.push(token);
                    continue;
                }
                (Phase::Lent, Loan::Idle(since)) => since + self.bounds.idle,
                (Phase::Lent, Loan::Closing(since)) => {
                    since + if draining { LINGER_DRAINING } else { LINGER }
                }
                (Phase::Lingering, _) if draining => connection.begun + LINGER_DRAINING,
                _ => connection.deadline,
            };
            if deadline <= now {
                over.push(token);
            } else {
                next = next.min(deadline);
            }
        }
        self.exchange.slot.set_overdue(overdue, longest / 1000);
        if self.waited > TRIM && !is_writing {
            self.waited = 0;
            memory::trim();
        }
        // Many small steps are better taken together. What is done below may ask for an earlier look.
        self.next_look = if next == u64::MAX {
            next
        } else {
            next.max(now + LOOK_STEP)
        };
        for token in slow {
            self.name_slow(token);
        }
        for (token, at) in done {
            if let Some(connection) = self.connection(token) {
                Gate::was_slow(connection, at);
            }
        }
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

    /// Says that a handler takes long. It cannot be stopped, but it can be known.
    fn name_slow(&mut self, token: Token) {
        let seconds = self.bounds.handler_warn / 1000;
        if let Some(connection) = self.connection(token) {
            connection.is_named = true;
            if let Some((checked, _)) = &connection.current {
                log::warn(format_args!(
                    "a handler has been at {} {} for {seconds} s, for {}",
                    checked.method(),
                    checked.path(),
                    connection.client.origin()
                ));
            }
        }
    }

    /// The end of what was said by `name_slow`.
    pub(super) fn was_slow(connection: &mut Connection, until: u64) {
        if !std::mem::take(&mut connection.is_named) {
            return;
        }
        if let Some((checked, since)) = &connection.current {
            log::info(format_args!(
                "the handler at {} {} is done after {:.1} s",
                checked.method(),
                checked.path(),
                until.saturating_sub(*since) as f64 / 1000.0
            ));
        }
    }

    /// The time of a connection is over.
    fn end(&mut self, token: Token) {
        let (now, draining) = (self.now, self.drain.is_some());
        let Some(connection) = self.connection(token) else {
            return;
        };
        // What was done for another one may have given it a new phase, and time.
        let has_time = match connection.phase {
            Phase::Writing => connection.deadline > now,
            Phase::Lingering => {
                connection.deadline > now
                    && !(draining && connection.begun + LINGER_DRAINING <= now)
            }
            _ => false,
        };
        if has_time {
            return;
        }
        let waits = socket::has_input(connection.client.as_fd());
        match connection.phase {
            // The next request has come at the last moment.
            Phase::Fresh | Phase::Idle if waits => self.read(token),
            Phase::Lent if waits && matches!(connection.client.loan(), Loan::Idle(_)) => {
                self.come_back(token, true)
            }
            phase @ (Phase::Head | Phase::Body | Phase::Queued) => {
                let why = match phase {
                    Phase::Head => Refusal::new(408, "the request head took too long"),
                    Phase::Body => BODY_TOO_SLOW,
                    _ => Refusal::new(503, "too many long bodies at once"),
                };
                let is_head = connection.asks_for_head();
                self.refuse(token, why, is_head);
            }
            Phase::Writing => {
                let begun = connection.begun;
                let client = Arc::clone(&connection.client);
                if let Some(output) = &mut connection.output {
                    let moved = output.has_moved(client.as_fd());
                    let taken = output.taken();
                    let deadline = self.bounds.transfer(now, begun, taken);
                    if moved && deadline > now {
                        if let Some(connection) = self.connection(token) {
                            connection.deadline = deadline;
                        }
                        return self.due(deadline);
                    }
                }
                // A refusal that is not read was counted when it was given.
                if self.is_answering(token) {
                    let (slot, refusals) = (self.exchange.slot, &self.exchange.refusals);
                    refusals.closed(slot, Cause::TooSlow, &client, "does not read its answer");
                }
                self.cut(token);
            }
            _ => self.close(token),
        }
    }

    fn is_answering(&mut self, token: Token) -> bool {
        self.connection(token)
            .is_some_and(|connection| connection.current.is_some())
    }

    /// Ends a connection for the memory that it holds, unless it is with a handler.
    fn make_way(&mut self, token: Token) -> bool {
        let Some(connection) = self.connection(token) else {
            return false;
        };
        let (phase, client) = (connection.phase, Arc::clone(&connection.client));
        match phase {
            Phase::Writing => {
                let (slot, refusals) = (self.exchange.slot, &self.exchange.refusals);
                let why = "unread answers fill the memory";
                refusals.closed(slot, Cause::Overloaded, &client, why);
                self.cut(token);
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

/// Whether a head that cannot be served, perhaps for being cut, asks for HEAD: its refusal has no body then.
pub(super) fn is_head(input: &[u8]) -> bool {
    let start = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    start.is_some_and(|start| input[start..].starts_with(b"HEAD "))
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
