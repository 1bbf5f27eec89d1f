//! The only place that knows tiny_http: the private stream into it, the pool of handler threads that takes requests
//! from it, and the answers, which go straight to the client's socket.
//!
//! tiny_http meets nothing but what the gate wrote: a request line and the place of the job. Threads take turns in
//! leader-follower order. One waits for the next request; while it works nobody waits, unless the gate sees that a
//! request is not picked up, and has the next thread take the seat. Where tiny_http itself gives out, the gate has a new
//! one built, and what the old one was told is said again.
#![forbid(unsafe_code)]

use super::exchange::{Exchange, Job, Loaned, Note, Work, lock};
use super::output::{Load, Output, Pushed};
use super::response::Response;
use super::routes::{Routes, refusal};
use super::upload::Failure;
use super::{Checked, Request};
use crate::clock::Utc;
use crate::log;
use crate::sys::{process, socket, title};
use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The field that names the place of the job. tiny_http sees no other.
const PLACE: &str = "Place";
/// A request through a tiny_http that has just started is picked up within this time, or never.
const TRIAL: Duration = Duration::from_secs(5);
/// A request that is not picked up for this time while a thread waits for one: tiny_http is at fault.
const STUCK: Duration = Duration::from_secs(5);
/// A thread without work leaves after this time, except the last.
const SPARE_TIME: Duration = Duration::from_secs(10);
/// A leader that is away for longer than this is busy with something slow: the next request needs another thread.
const AWAY: Duration = Duration::from_micros(100);
/// A request that nobody picked up within this time needs another thread, busy leaders or not.
const PATIENCE: Duration = Duration::from_millis(1);
/// The same once it is clear that looking often does not help.
const LONG_PATIENCE: Duration = Duration::from_millis(50);

/// The bytes of one request as tiny_http is to see it.
pub(crate) fn write_request(out: &mut Vec<u8>, checked: &Checked, place: usize) {
    let _ = write!(
        out,
        "{} {} HTTP/1.1\r\n{PLACE}: {place}\r\n\r\n",
        checked.method(),
        checked.path()
    );
}

/// The handler threads and the server that they take requests from.
pub(crate) struct Pool {
    exchange: Arc<Exchange>,
    routes: Arc<Routes>,
    seats: Mutex<Seats>,
    spare: Condvar,
    /// The first request was picked up.
    tried: Condvar,
    most: usize,
    /// Where the private socket is bound for a moment.
    path: PathBuf,
}

struct Seats {
    tiny: Arc<tiny_http::Server>,
    /// Counts the servers, so that who comes back from an old one knows.
    built: u64,
    /// Somebody waits for the next request.
    leader: bool,
    /// When the last leader went off to work, on the exchange's clock.
    left: Duration,
    /// Requests written to tiny_http, and those picked up.
    sent: u64,
    picked: u64,
    /// So many leaders are to call a successor when they go off.
    calls: u64,
    threads: usize,
    spares: usize,
    named: usize,
    last_refusal: Option<Instant>,
}

/// What the gate remembers between two looks at the pool.
#[derive(Default)]
pub(crate) struct Watch {
    sent: u64,
    at: Duration,
    /// How many were picked up when it was first seen that no more were, when that was, and how often it was seen since.
    picked: u64,
    since: Option<Duration>,
    times: u32,
}

/// How the requests that were written fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// None waits, or every thread is at work.
    Nothing,
    /// Some wait; to be looked at again after this time.
    Waiting(Duration),
    /// Some wait, a thread waits for them, and nothing gets through.
    Stuck,
}

/// A tiny_http server and the one connection to it.
fn build(path: &Path) -> io::Result<(tiny_http::Server, UnixStream)> {
    let name =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // A worker that was killed at this very point may have left one under the same number.
    let _ = std::fs::remove_file(path);
    let listener = socket::listen_unix(path, 0o600, 1).map_err(name)?;
    let connected = UnixStream::connect(path).map_err(name);
    std::fs::remove_file(path).map_err(name)?;
    let twin = listener.try_clone()?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(false)?;
    // It panics where it cannot start a thread.
    let tiny = catch_unwind(|| tiny_http::Server::from_listener(listener, None))
        .map_err(|_| io::Error::other("it cannot start a thread"))?
        .map_err(io::Error::other)?;
    let stream = connected?;
    stream.set_nonblocking(true)?;
    // tiny_http writes nothing in our use of it. Should it try, it gets an error instead of a full buffer.
    stream.shutdown(std::net::Shutdown::Read)?;
    // The one connection is in the listener's queue and is taken from there; there will be no other, so the thread
    // that accepts, and those that wait for more connections, may go.
    socket::shutdown(twin.as_fd());
    Ok((tiny, stream))
}

impl Pool {
    /// Starts tiny_http on a private socket in `directory`, connects to it once, and starts the first handler.
    /// Returns the gate's end of the stream.
    pub fn start(
        directory: &Path,
        exchange: Arc<Exchange>,
        routes: Arc<Routes>,
        most: usize,
    ) -> io::Result<(Arc<Pool>, UnixStream)> {
        let path = directory.join(format!("http-{}.sock", process::Pid::own()));
        // The name is for the threads that it starts, which take it from the one that starts them.
        title::set_name("tiny_http");
        let (tiny, stream) = build(&path)?;
        let seats = Seats {
            tiny: Arc::new(tiny),
            built: 1,
            leader: false,
            left: Duration::ZERO,
            sent: 0,
            picked: 0,
            calls: 0,
            threads: 0,
            spares: 0,
            named: 0,
            last_refusal: None,
        };
        let (seats, spare, tried) = (Mutex::new(seats), Condvar::new(), Condvar::new());
        let pool = Arc::new(Pool {
            exchange,
            routes,
            seats,
            spare,
            tried,
            most,
            path,
        });
        pool.spawn(&mut lock(&pool.seats))?;
        pool.try_out(&stream)?;
        Ok((pool, stream))
    }

    /// Puts a new tiny_http in the place of one that broke or does not move, `waiting` requests being said to it anew
    /// by the gate. What the old one still brings is taken where it is not yet answered, and is otherwise nothing.
    /// The old one's threads end with its stream, which the gate closes.
    pub fn rebuild(self: &Arc<Pool>, waiting: u64) -> io::Result<UnixStream> {
        title::set_name("tiny_http");
        let built = build(&self.path);
        title::set_name("gate");
        let (tiny, stream) = built?;
        let mut seats = lock(&self.seats);
        let old = std::mem::replace(&mut seats.tiny, Arc::new(tiny));
        seats.built += 1;
        seats.sent = seats.picked + waiting;
        if std::mem::take(&mut seats.leader) {
            old.unblock();
        }
        seats.calls = 1;
        self.call(&mut seats);
        Ok(stream)
    }

    /// Sends a request for nobody all the way. tiny_http says nothing when it cannot start its threads.
    fn try_out(&self, mut stream: &UnixStream) -> io::Result<()> {
        let mut seats = lock(&self.seats);
        seats.sent += 1;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
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

    /// Called by the gate after it wrote `count` requests, and again when it was told to look again: sees to it that
    /// none waits while a thread could take it.
    pub fn watch(self: &Arc<Pool>, watch: &mut Watch, count: u64) -> Seen {
        let mut seats = lock(&self.seats);
        seats.sent += count;
        if seats.picked == seats.sent {
            watch.since = None;
            return Seen::Nothing;
        }
        if seats.threads >= self.most && seats.spares == 0 && !seats.leader {
            // All are at work, and each takes the next one when it is done.
            watch.since = None;
            return Seen::Nothing;
        }
        let now = self.exchange.elapsed();
        let (slow, overdue) = (now - watch.at >= PATIENCE, seats.picked < watch.sent);
        let mut is_called = true;
        if (!seats.leader && now - seats.left > AWAY) || (slow && overdue) {
            seats.calls = seats.sent - seats.picked;
            is_called = self.call(&mut seats);
        }
        if slow {
            (watch.sent, watch.at) = (seats.sent, now);
        }
        let waited = match watch.since {
            Some(since) if seats.leader && watch.picked == seats.picked => now - since,
            _ => {
                (watch.since, watch.picked, watch.times) = (Some(now), seats.picked, 0);
                Duration::ZERO
            }
        };
        watch.times += 1;
        match waited {
            // Seen often, for the whole process may have been stopped for a while.
            _ if waited >= STUCK && watch.times > 20 => Seen::Stuck,
            _ if waited >= LONG_PATIENCE || !is_called => Seen::Waiting(LONG_PATIENCE),
            _ => Seen::Waiting(PATIENCE),
        }
    }

    /// Has a spare thread, or a new one, take the empty seat.
    /// False when no thread can be had.
    fn call(self: &Arc<Pool>, seats: &mut Seats) -> bool {
        if seats.leader || seats.calls == 0 {
            return true;
        }
        seats.calls -= 1;
        if seats.spares > 0 {
            self.spare.notify_one();
        } else if seats.threads < self.most {
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

    /// The life of a handler thread.
    fn work(self: Arc<Pool>) {
        loop {
            let mut seats = lock(&self.seats);
            while seats.leader {
                seats.spares += 1;
                let waited = self.spare.wait_timeout(seats, SPARE_TIME);
                let (back, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                seats = back;
                seats.spares -= 1;
                if timeout.timed_out() && seats.leader {
                    seats.threads -= 1;
                    return;
                }
            }
            seats.leader = true;
            let (tiny, built) = (Arc::clone(&seats.tiny), seats.built);
            drop(seats);

            let received = tiny.recv();

            let mut seats = lock(&self.seats);
            let is_current = seats.built == built;
            if is_current {
                seats.leader = false;
            }
            let Ok(request) = received else { continue };
            if is_current {
                seats.picked += 1;
                if seats.picked == 1 {
                    self.tried.notify_one();
                }
                seats.left = self.exchange.elapsed();
                if seats.picked < seats.sent {
                    self.call(&mut seats);
                }
            }
            drop(seats);

            let place = request
                .headers()
                .first()
                .and_then(|field| field.value.as_str().parse().ok());
            if let Some(job) = place.and_then(|place| self.exchange.take(place)) {
                // What a handler's own types do when they are dropped must not cost the thread. The panic hook logs it.
                let _ = catch_unwind(AssertUnwindSafe(|| self.serve(job)));
            }
            // tiny_http's own answer is never wanted; giving up the writer is how it is told so.
            drop(request.into_writer());
        }
    }

    fn serve(&self, Job { loaned, work, .. }: Job) {
        match work {
            Work::Answer(request) => self.answer(loaned, *request),
            Work::Refill(output) => self.pump(loaned, output, Vec::new()),
        }
    }

    fn answer(&self, loaned: Loaned, mut request: Request) {
        request.draining = self.exchange.is_closing();
        let response = catch_unwind(AssertUnwindSafe(|| self.routes.answer(&mut request)));
        self.exchange.add_done();
        // The panic hook has logged it.
        let mut response = response.unwrap_or_else(|_| refusal(500, "this page failed"));
        let (is_clean, surplus) = match request.body.failure() {
            None => request.body.finish(),
            Some(Failure::Gone) => return self.exchange.give_back(&loaned, true, Vec::new()),
            Some(Failure::Refused(why)) => {
                let (slot, client) = (self.exchange.slot, &loaned.client);
                self.exchange.refusals.answered(slot, client, why);
                response = refusal(why.status, why.reason);
                (false, Vec::new())
            }
        };
        let checked = &request.checked;
        let minor = checked.head.minor;
        let close = !is_clean
            || !checked.head.keep_alive
            || response.closes()
            || self.exchange.is_closing()
            || (minor == 0 && response.length().is_none());
        let rest = HEAD.with_borrow_mut(|(head, date)| {
            response.render_head(head, date.now(), minor, !close);
            if response.is_in_memory() {
                let body = response.body_for(checked.method());
                let parts = [IoSlice::new(head), IoSlice::new(body)];
                match socket::send(loaned.client.as_fd(), &parts) {
                    Ok(sent) if sent == head.len() + body.len() => return Ok(None),
                    Ok(sent) => {
                        let mut load = response.into_load(checked.method(), minor);
                        if let Load::Bytes(_, at) = &mut load {
                            *at = sent.saturating_sub(head.len());
                        }
                        let head = head.get(sent..).unwrap_or_default().to_vec();
                        return Ok(Some(Output::new(head, load, close)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            let load = response.into_load(checked.method(), minor);
            Ok(Some(Output::new(head.clone(), load, close)))
        });
        match rest {
            Ok(None) => self.exchange.give_back(&loaned, close, surplus),
            Ok(Some(output)) => self.pump(loaned, Box::new(output), surplus),
            // The client is gone; so is the connection.
            Err(_) => self.exchange.give_back(&loaned, true, Vec::new()),
        }
    }

    /// Sends what the socket takes, makes the next piece of a stream where there is one, and leaves the rest to the
    /// gate.
    fn pump(&self, loaned: Loaned, mut output: Box<Output>, surplus: Vec<u8>) {
        let token = loaned.token;
        let why = loop {
            match output.push(loaned.client.as_fd()) {
                Ok(Pushed::Whole) => {
                    return self.exchange.give_back(&loaned, output.close, surplus);
                }
                Ok(Pushed::Full | Pushed::Enough) => {
                    return self.exchange.leave(Note::Rest {
                        token,
                        output,
                        surplus,
                    });
                }
                Ok(Pushed::Empty) => match catch_unwind(AssertUnwindSafe(|| output.refill())) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break Some(error),
                    // The panic hook has logged it.
                    Err(_) => break None,
                },
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Some(error),
                Err(_) => return self.exchange.give_back(&loaned, true, Vec::new()),
            }
        };
        if let Some(error) = why {
            let origin = loaned.client.origin();
            log::warn(format_args!("{origin}: its answer broke off: {error}"));
        }
        self.exchange.leave(Note::Broken(token));
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

/// The whole bytes of an answer that the gate gives by itself; the connection is closed after it.
pub(crate) fn render(response: &Response, is_head: bool) -> Vec<u8> {
    HEAD.with_borrow_mut(|(head, date)| {
        response.render_head(head, date.now(), 1, false);
        [
            head,
            response.body_for(if is_head { "HEAD" } else { "GET" }),
        ]
        .concat()
    })
}
