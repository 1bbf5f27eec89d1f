//! The only place that knows tiny_http: the private stream into it, the pool of handler threads that takes requests
//! from it, and the answers, which go straight to the client's socket.
//!
//! tiny_http meets nothing but what the gate wrote: one small request for all that a round of the gate has for the
//! handlers, so that they share its parsing and one wake-up. Threads take turns in leader-follower order. One waits for
//! the next message, and works off what there is; meanwhile nobody waits. What comes then, those who are at work find
//! when they are done; where that takes them too long, the gate has the next thread come. Who has just worked lingers for
//! a moment, in which it is told directly, and then waits for a message again: tiny_http wakes a pool that rests, and is
//! not in the way of one that is busy. Where tiny_http itself gives out, the gate has a new one built.
#![forbid(unsafe_code)]

use super::checked::Checked;
use super::exchange::{After, Exchange, Job, Lent, Work, lock};
use super::output::{Load, Output, Pushed, contain};
use super::record::Known;
use super::request::Request;
use super::response::Response;
use super::routes::Routes;
use super::upload::Failure;
use crate::clock::Utc;
use crate::log;
use crate::sys::{signal, socket, title};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What tiny_http is told: there is work. Which, the exchange knows.
pub(crate) const MESSAGE: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// A request through a tiny_http that has just started is picked up within this time, or never.
const TRIAL: Duration = Duration::from_secs(5);
/// A message that is not picked up for this time while a thread waits for it: tiny_http is at fault.
const STUCK: Duration = Duration::from_secs(5);
/// A thread without work leaves after this time, except the last.
const SPARE_TIME: Duration = Duration::from_secs(10);
/// Who has worked lingers for so long before it waits for a message; a client nearby asks again within that time.
const LINGER: Duration = match cfg!(test) {
    false => Duration::from_millis(1),
    true => Duration::from_secs(60),
};
/// Where nobody has taken a job for longer than this, all who work are busy with something slow: the next job needs another
/// thread.
const AWAY: Duration = Duration::from_micros(100);
/// A job that nobody took within this time needs another thread, busy or not.
const UNPICKED: Duration = Duration::from_millis(1);
/// The same once it is clear that looking often does not help.
const LONG_UNPICKED: Duration = Duration::from_millis(50);

/// The handler threads and the server that they take requests from.
pub(crate) struct Pool {
    exchange: Arc<Exchange>,
    routes: Arc<Routes>,
    seats: Mutex<Seats>,
    spare: Condvar,
    /// The leader lingers no more.
    linger: Condvar,
    /// The first message was picked up.
    tried: Condvar,
    /// So many who take a job are to call another thread for the next.
    calls: AtomicUsize,
    most: usize,
}

/// The thread that the next work is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    /// All are at work, and look for more when they are done.
    Nobody,
    /// It has just worked, and is told directly.
    Lingers,
    /// It was, and is on its way.
    Told,
    /// It waits for a message from tiny_http.
    Waits,
}

/// What a thread does that has found no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It looks again.
    Look,
    /// It rests, for another one leads.
    Rest,
    /// It leads, and lingers first.
    Linger,
    /// It leads, and a message is under way.
    Wait,
}

struct Seats {
    tiny: Arc<Tiny>,
    /// Counts the servers, so that who comes back from an old one knows.
    built: u64,
    leader: Leader,
    /// A message is under way. Whoever picks it up finds all that there is to do by then, so there need not be another.
    is_told: bool,
    /// Messages that were picked up, and times that who lingered was told.
    picked: u64,
    threads: usize,
    spares: usize,
    named: usize,
    last_refusal: Option<Instant>,
}

/// What the gate remembers between two looks at the pool.
#[derive(Default)]
pub(crate) struct Watch {
    /// How many jobs there had been, and when that was.
    put: u64,
    at: Duration,
    /// How many messages were picked up when it was first seen that no more were, when that was, and how often it was seen
    /// since.
    picked: u64,
    since: Option<Duration>,
    times: u32,
}

/// How the jobs fare that the gate has put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// None waits, or every thread is at work.
    Nothing,
    /// Some wait; to be looked at again after this time.
    Waiting(Duration),
    /// Some wait, a thread waits for them, and nothing gets through.
    Stuck,
}

/// A tiny_http server. It tries to connect to itself when it is dropped, by a path that it takes for granted.
struct Tiny(Option<tiny_http::Server>);

thread_local! {
    static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread is tiny_http's own way to end, of which nobody needs to hear.
pub(crate) fn is_expected_panic() -> bool {
    IS_DROPPING.get()
}

/// The name of tiny_http's own threads, which they have from the one that starts them.
const NAME: &str = "tiny_http";

thread_local! {
    /// What this handler thread answers.
    static ANSWERED: RefCell<Option<Arc<Checked>>> = const { RefCell::new(None) };
}

/// Which thread panics, for the log, and over which request. Threads that the program started itself may have no name.
pub(crate) fn panicking() -> String {
    let thread = thread::current();
    let name = match thread.name() {
        Some(name) => name,
        None if title::name() == NAME => NAME,
        None => "a thread of the program",
    };
    let answered = ANSWERED.try_with(|answered| answered.try_borrow().ok()?.clone());
    match answered.ok().flatten() {
        Some(checked) => format!("{name}, {} {}", checked.method(), checked.path()),
        None => name.to_owned(),
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let server = self.0.take();
        if thread::panicking() {
            // A second panic would end the process.
            return std::mem::forget(server);
        }
        IS_DROPPING.set(true);
        // Its thread that accepts is long gone: see `build`.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(server)));
        IS_DROPPING.set(false);
    }
}

impl std::ops::Deref for Tiny {
    type Target = tiny_http::Server;

    fn deref(&self) -> &tiny_http::Server {
        self.0.as_ref().expect("it is taken only when dropped")
    }
}

/// A tiny_http server and the one connection to it, which is in the listener's queue and is taken from there; there will
/// be no other, so the thread that accepts, and those that wait for more connections, go.
fn build() -> io::Result<(Tiny, UnixStream)> {
    let (listener, stream) = socket::private_stream()?;
    let (listener, stream) = (UnixListener::from(listener), UnixStream::from(stream));
    listener.set_nonblocking(false)?;
    // tiny_http writes nothing in our use of it. Should it try, it gets an error instead of a full buffer.
    stream.shutdown(std::net::Shutdown::Read)?;
    // It panics where it cannot start a thread.
    let tiny = catch_unwind(|| tiny_http::Server::from_listener(listener, None))
        .map_err(|_| io::Error::other("it cannot start a thread"))?
        .map_err(io::Error::other)?;
    Ok((Tiny(Some(tiny)), stream))
}

impl Pool {
    /// Starts tiny_http behind a private stream, and the first handler, and sends a message of nothing all the way; whether
    /// it comes through, [`Pool::wait_for_trial`] says. Returns the gate's end of the stream.
    pub fn start(
        exchange: Arc<Exchange>,
        routes: Arc<Routes>,
        most: usize,
    ) -> io::Result<(Arc<Pool>, UnixStream)> {
        // The name is for the threads that it starts, which take it from the one that starts them.
        title::set_name(NAME);
        let (tiny, stream) = build()?;
        let seats = Seats {
            tiny: Arc::new(tiny),
            built: 1,
            leader: Leader::Nobody,
            is_told: false,
            picked: 0,
            threads: 0,
            spares: 0,
            named: 0,
            last_refusal: None,
        };
        let pool = Arc::new(Pool {
            exchange,
            routes,
            seats: Mutex::new(seats),
            spare: Condvar::new(),
            linger: Condvar::new(),
            tried: Condvar::new(),
            calls: AtomicUsize::new(0),
            most,
        });
        let mut seats = lock(&pool.seats);
        pool.spawn(&mut seats)?;
        seats.is_told = true;
        drop(seats);
        (&stream).write_all(MESSAGE)?;
        Ok((pool, stream))
    }

    /// Puts a new tiny_http in the place of one that broke or does not move. What waits is to be told to it anew. The old
    /// one's threads end with its stream, which the gate closes.
    pub fn rebuild(self: &Arc<Pool>) -> io::Result<UnixStream> {
        title::set_name(NAME);
        let built = build();
        title::set_name("gate");
        let (tiny, stream) = built?;
        let mut seats = lock(&self.seats);
        let old = std::mem::replace(&mut seats.tiny, Arc::new(tiny));
        seats.built += 1;
        seats.is_told = false;
        match seats.leader {
            Leader::Nobody | Leader::Told => {}
            Leader::Lingers => {
                seats.leader = Leader::Told;
                self.linger.notify_one();
            }
            Leader::Waits => {
                seats.leader = Leader::Nobody;
                old.unblock();
            }
        }
        self.call(&mut seats);
        Ok(stream)
    }

    /// Waits until the first message has come through: tiny_http says nothing when it cannot start its threads.
    ///
    /// # Errors
    /// It has not, for [`TRIAL`].
    pub fn wait_for_trial(&self) -> io::Result<()> {
        let seats = lock(&self.seats);
        let waited = self
            .tried
            .wait_timeout_while(seats, TRIAL, |seats| seats.picked == 0);
        let (seats, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(seats);
        match timeout.timed_out() {
            true => Err(io::Error::other(
                "a request does not come through; its threads may not have started",
            )),
            false => Ok(()),
        }
    }

    /// Most threads at the moment: one at least is to be free of those who send slowly, and of disks.
    fn most(&self) -> usize {
        let (bodies, disks) = (&self.exchange.permits, &self.exchange.disks);
        self.most.max(bodies.taken() + disks.taken() + 1)
    }

    fn spawn(self: &Arc<Pool>, seats: &mut Seats) -> io::Result<()> {
        let pool = Arc::clone(self);
        let name = format!("handler {}", seats.named + 1);
        thread::Builder::new()
            .name(name)
            .spawn(move || pool.work())?;
        seats.named += 1;
        seats.threads += 1;
        Ok(())
    }

    /// Says to whoever leads that there is work in the exchange. True where that one waits for a message from tiny_http,
    /// and none is on its way there yet.
    pub fn tell(&self) -> bool {
        let mut seats = lock(&self.seats);
        match seats.leader {
            // Who leads next looks for it first.
            Leader::Nobody | Leader::Told => {}
            Leader::Lingers => {
                seats.leader = Leader::Told;
                drop(seats);
                self.linger.notify_one();
            }
            Leader::Waits => return !std::mem::replace(&mut seats.is_told, true),
        }
        false
    }

    /// Called by the gate after it put jobs into the exchange, and again when it was told to look again: sees to it that
    /// none waits while a thread could take it.
    pub fn watch(self: &Arc<Pool>, watch: &mut Watch) -> Seen {
        let mut seats = lock(&self.seats);
        let pace = self.exchange.pace();
        if pace.put == pace.taken {
            watch.since = None;
            return Seen::Nothing;
        }
        if seats.threads >= self.most() && seats.spares == 0 && seats.leader == Leader::Nobody {
            // All are at work, and each takes the next one when it is done.
            watch.since = None;
            return Seen::Nothing;
        }
        let now = self.exchange.elapsed();
        let (slow, overdue) = (now - watch.at >= UNPICKED, pace.taken < watch.put);
        let mut is_called = true;
        let has_leader = seats.leader != Leader::Nobody;
        if !has_leader && (now.saturating_sub(pace.taken_at) > AWAY || (slow && overdue)) {
            let waiting = pace.put - pace.taken;
            self.calls.store(waiting as usize - 1, Ordering::SeqCst);
            is_called = self.call(&mut seats);
        }
        if slow {
            (watch.put, watch.at) = (pace.put, now);
        }
        let waited = match watch.since {
            Some(since) if has_leader && watch.picked == seats.picked => now - since,
            _ => {
                (watch.since, watch.picked, watch.times) = (Some(now), seats.picked, 0);
                Duration::ZERO
            }
        };
        watch.times += 1;
        match waited {
            // Seen often, for the whole process may have been stopped for a while.
            _ if waited >= STUCK && watch.times > 20 => Seen::Stuck,
            _ if waited >= LONG_UNPICKED || !is_called => Seen::Waiting(LONG_UNPICKED),
            _ => Seen::Waiting(UNPICKED),
        }
    }

    /// Has a spare thread, or a new one, come for the next job. False when no thread can be had.
    fn call(self: &Arc<Pool>, seats: &mut Seats) -> bool {
        if seats.leader != Leader::Nobody {
            return true;
        }
        if seats.spares > 0 {
            self.spare.notify_one();
        } else if seats.threads < self.most() {
            let Err(error) = self.spawn(seats) else {
                return true;
            };
            // The threads that there are go on; the next look tries again.
            if seats
                .last_refusal
                .is_none_or(|last| last.elapsed() > Duration::from_secs(60))
            {
                seats.last_refusal = Some(Instant::now());
                log::warn(format_args!(
                    "cannot start another handler thread, {} at work: {error}",
                    seats.threads
                ));
            }
            return false;
        }
        true
    }

    /// The next job, if there is one. Who takes it calls the next thread where the gate has asked for that.
    fn take(self: &Arc<Pool>) -> Option<Job> {
        let (job, is_more) = self.exchange.take()?;
        if self.calls.load(Ordering::SeqCst) > 0 {
            match is_more {
                true => {
                    let less = |calls: usize| calls.checked_sub(1);
                    let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
                    // Not where two have seen the last call.
                    if self.calls.fetch_update(set, fetch, less).is_ok() {
                        self.call(&mut lock(&self.seats));
                    }
                }
                false => self.calls.store(0, Ordering::SeqCst),
            }
        }
        Some(job)
    }

    /// What a thread does that has found no work.
    fn next(&self, seats: &Seats) -> Next {
        match seats.leader {
            Leader::Lingers | Leader::Told | Leader::Waits => Next::Rest,
            // It has come since. What comes from now on is told to whoever leads.
            Leader::Nobody if self.exchange.has_jobs() => Next::Look,
            Leader::Nobody if seats.is_told => Next::Wait,
            Leader::Nobody => Next::Linger,
        }
    }

    /// The life of a handler thread.
    fn work(self: Arc<Pool>) {
        // Programs that a handler starts get the mask of its thread, and would be deaf to TERM. The kernel gives signals
        // to the main thread as long as that one takes them; one that comes here after all is noted in the same way.
        signal::unblock_all();
        loop {
            while let Some(job) = self.take() {
                // Whatever happens in there must not cost the thread.
                contain(|| self.serve(job));
                ANSWERED.take();
            }
            let mut seats = lock(&self.seats);
            match self.next(&seats) {
                Next::Look => continue,
                Next::Rest => {
                    seats.spares += 1;
                    let waited = self.spare.wait_timeout(seats, SPARE_TIME);
                    let (back, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                    seats = back;
                    seats.spares -= 1;
                    if timeout.timed_out() && seats.leader != Leader::Nobody {
                        seats.threads -= 1;
                        return;
                    }
                    continue;
                }
                Next::Linger => {
                    seats.leader = Leader::Lingers;
                    let lingers = |seats: &mut Seats| seats.leader == Leader::Lingers;
                    let waited = self.linger.wait_timeout_while(seats, LINGER, lingers);
                    seats = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                    if seats.leader == Leader::Told {
                        seats.leader = Leader::Nobody;
                        seats.picked += 1;
                        continue;
                    }
                }
                Next::Wait => {}
            }
            seats.leader = Leader::Waits;
            let (tiny, built) = (Arc::clone(&seats.tiny), seats.built);
            drop(seats);

            let received = tiny.recv();

            let mut seats = lock(&self.seats);
            if seats.built == built {
                seats.leader = Leader::Nobody;
                if received.is_ok() {
                    // From now on it is somebody else's news: what was put before this is found by this thread.
                    seats.is_told = false;
                    seats.picked += 1;
                    if seats.picked == 1 {
                        self.tried.notify_one();
                    }
                }
            }
            drop(seats);
            if let Ok(request) = received {
                // tiny_http's own answer is never wanted; giving up the writer is how it is told so.
                drop(request.into_writer());
            }
        }
    }

    fn serve(&self, Job { loaned, work, .. }: Job) {
        let loaned = Lent::new(loaned, &self.exchange);
        ANSWERED.set(match &work {
            Work::Answer(request) => Some(Arc::clone(&request.checked)),
            Work::Refill(output) => output.checked.clone(),
        });
        match work {
            Work::Answer(request) => self.answer(loaned, *request),
            Work::Refill(output) => self.pump(loaned, output, Vec::new()),
        }
    }

    fn answer(&self, loaned: Lent<'_>, mut request: Request) {
        request.worker = Some(self.exchange.worker.clone());
        request.connection = Some(Arc::clone(&loaned.client));
        let response = self.routes.answer(&mut request);
        self.exchange.add_done();
        let (is_clean, surplus) = match request.body.failure() {
            None => request.body.finish(),
            Some(Failure::Gone) => return loaned.give_back(After::Linger, Vec::new(), 0),
            Some(Failure::Refused(why)) => {
                let (slot, origin) = (self.exchange.slot, loaned.client.origin());
                self.exchange.refusals.answered(slot, origin, why);
                (false, Vec::new())
            }
        };
        self.exchange.slot.add_status(response.status());
        let checked = &request.checked;
        let minor = checked.head.minor;
        let close = !is_clean
            || !checked.head.keep_alive
            || response.closes()
            || self.exchange.is_closing()
            || (minor == 0 && response.length().is_none());
        let after = After::answer(checked, close, loaned.more);
        let known = || Known::Request(Arc::clone(checked));
        let status = response.status();
        let mut entry = self
            .exchange
            .entry(&loaned.client, status, checked.begun, known);
        let rest = HEAD.with_borrow_mut(|(head, date)| {
            response.render_head(head, date.now(), minor, !close);
            if let Some(entry) = &mut entry {
                entry.head = head.len() as u64;
            }
            if response.is_in_memory() {
                let body = response.body_for(checked.method());
                let parts = [IoSlice::new(head), IoSlice::new(body)];
                let sent = socket::send_more(loaned.client.as_fd(), &parts, after != After::Keep);
                if let (Some(entry), Ok(sent)) = (&mut entry, &sent) {
                    entry.sent = *sent as u64;
                }
                match sent {
                    Ok(sent) if sent == head.len() + body.len() => return Ok((sent, None)),
                    Ok(sent) => {
                        let mut load = response.into_load(checked.method(), minor);
                        if let Load::Bytes(_, at) = &mut load {
                            *at = sent.saturating_sub(head.len());
                        }
                        let head = head.get(sent..).unwrap_or_default().to_vec();
                        let output = Output::new(head, load, close).after(sent);
                        return Ok((0, Some(output.recorded(entry.take()))));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            let load = response.into_load(checked.method(), minor);
            let output = Output::new(head.clone(), load, close).recorded(entry.take());
            Ok((0, Some(output)))
        });
        // One that is out is in the log before the gate can know, and end the worker.
        drop(entry);
        match rest {
            Ok((sent, None)) => loaned.give_back(after, surplus, sent as u64),
            Ok((_, Some(mut output))) => {
                output.checked = Some(request.checked);
                self.pump(loaned, Box::new(output), surplus);
            }
            // The client is gone; so is the connection.
            Err(_) => loaned.give_back(After::Linger, Vec::new(), 0),
        }
    }

    /// Sends what the socket takes, makes the next piece of a stream where there is one, and leaves the rest to the
    /// gate.
    fn pump(&self, loaned: Lent<'_>, mut output: Box<Output>, surplus: Vec<u8>) {
        let why = loop {
            match output.push(loaned.client.as_fd()) {
                Ok(Pushed::Whole) => {
                    output.end_record();
                    let after = match output.close {
                        true => After::Linger,
                        false => After::Keep,
                    };
                    return loaned.give_back(after, surplus, output.total());
                }
                Ok(Pushed::Full | Pushed::Enough | Pushed::Parked) => {
                    return loaned.leave_rest(output, surplus);
                }
                Ok(Pushed::Empty) => match contain(|| output.refill()) {
                    Some(Ok(())) => {}
                    Some(Err(error)) => break Some(error),
                    None => break None,
                },
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    break Some(error);
                }
                Err(_) => {
                    output.end_record();
                    return loaned.give_back(After::Linger, Vec::new(), output.total());
                }
            }
        };
        output.end_record();
        self.exchange.slot.add_bytes(output.total());
        // Of a panic the hook has told.
        if let Some(why) = why {
            let origin = loaned.client.origin();
            log::warn(format_args!("{origin}: its answer broke off: {why}"));
        }
    }
}

thread_local! {
    /// Room for the head being written, and the date in it.
    static HEAD: RefCell<(Vec<u8>, Date)> = const { RefCell::new((Vec::new(), Date { made: None, text: String::new() })) };
}

/// The date, written anew once a second.
pub(crate) struct Date {
    made: Option<Instant>,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        if self
            .made
            .is_none_or(|made| made.elapsed() >= Duration::from_secs(1))
        {
            let now = Utc::now();
            self.text = now.http();
            self.made = Some(Instant::now() - Duration::from_millis(u64::from(now.millis())));
        }
        &self.text
    }
}

/// Writes the head of an answer that the gate gives by itself, replacing what is there.
pub(crate) fn render_head(response: &Response, out: &mut Vec<u8>, minor: u8, keep_alive: bool) {
    HEAD.with_borrow_mut(|(_, date)| response.render_head(out, date.now(), minor, keep_alive));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> (Arc<Pool>, UnixStream) {
        let routes = Arc::new(Routes::default());
        let started = Pool::start(Exchange::of_nobody(), routes, 1).unwrap();
        started.0.wait_for_trial().unwrap();
        started
    }

    /// Waits until the one thread leads in this way, having picked up so much.
    fn wait(pool: &Pool, leader: Leader, picked: u64) {
        let is_there = || {
            let seats = lock(&pool.seats);
            (seats.leader, seats.picked) == (leader, picked)
        };
        let begun = Instant::now();
        while !is_there() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            thread::yield_now();
        }
    }

    #[test]
    fn who_lingers_is_told_without_a_message() {
        let (pool, _stream) = pool();
        for picked in 1..4 {
            wait(&pool, Leader::Lingers, picked);
            assert!(!pool.tell());
            assert!(!lock(&pool.seats).is_told);
        }
        wait(&pool, Leader::Lingers, 4);
    }

    #[test]
    fn nobody_leads_or_rests_while_nobody_looks_for_work() {
        let (pool, _stream) = pool();
        wait(&pool, Leader::Lingers, 1);
        let mut seats = lock(&pool.seats);
        assert_eq!(pool.next(&seats), Next::Rest);
        seats.leader = Leader::Nobody;
        assert_eq!(pool.next(&seats), Next::Linger);
        seats.is_told = true;
        assert_eq!(pool.next(&seats), Next::Wait);
        // Two have come, and another thread has taken the first.
        pool.exchange
            .lend(&mut vec![Job::of_nobody(0), Job::of_nobody(1)]);
        assert!(pool.exchange.take().is_some());
        assert_eq!(pool.next(&seats), Next::Look);
        seats.is_told = false;
        assert_eq!(pool.next(&seats), Next::Look);
        assert!(pool.exchange.take().is_some());
        assert_eq!(pool.next(&seats), Next::Linger);
    }

    #[test]
    fn who_waits_is_told_with_one_message() {
        let (pool, stream) = pool();
        wait(&pool, Leader::Lingers, 1);
        // As if its time were over; the thread itself still lingers.
        lock(&pool.seats).leader = Leader::Waits;
        assert!(pool.tell());
        assert!(!pool.tell(), "it is under way");
        (&stream).write_all(MESSAGE).unwrap();
        pool.linger.notify_one();
        wait(&pool, Leader::Lingers, 2);
        assert!(!lock(&pool.seats).is_told);
    }

    #[test]
    fn a_thread_that_lingers_comes_to_the_tiny_http_that_was_made_anew() {
        let (pool, old) = pool();
        wait(&pool, Leader::Lingers, 1);
        let stream = pool.rebuild().unwrap();
        drop(old);
        wait(&pool, Leader::Lingers, 2);
        let mut seats = lock(&pool.seats);
        seats.is_told = true;
        seats.leader = Leader::Told;
        drop(seats);
        pool.linger.notify_one();
        (&stream).write_all(MESSAGE).unwrap();
        wait(&pool, Leader::Lingers, 4);
    }
}
