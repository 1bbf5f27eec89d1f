//! The only place that knows tiny_http: the private stream into it, the pool of handler threads that takes requests
//! from it, and the answers, which go straight to the client's socket.
//!
//! tiny_http meets nothing but what the gate wrote: a request line and the place of the job. Threads take turns in
//! leader-follower order. One waits for the next request; while it works nobody waits, unless the gate sees that a
//! request is not picked up, and has the next thread take the seat.
#![forbid(unsafe_code)]

use super::exchange::{Exchange, Job, Note, Output, lock};
use super::routes::{Routes, refusal};
use super::{Checked, Response};
use crate::clock::Utc;
use crate::log;
use crate::sys::{process, socket, title};
use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The field that names the place of the job. tiny_http sees no other.
const PLACE: &str = "Place";
/// A request through a tiny_http that has just started is picked up within this time, or never.
const TRIAL: Duration = Duration::from_secs(5);
/// A thread without work leaves after this time, except the last.
const SPARE_TIME: Duration = Duration::from_secs(10);
/// A leader that is away for longer than this is busy with something slow: the next request needs another thread.
const AWAY: Duration = Duration::from_micros(100);
/// A request that nobody picked up within this time needs another thread, busy leaders or not.
const PATIENCE: Duration = Duration::from_millis(1);

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
    tiny: tiny_http::Server,
    exchange: Arc<Exchange>,
    routes: Arc<Routes>,
    seats: Mutex<Seats>,
    spare: Condvar,
    /// The first request was picked up.
    tried: Condvar,
    most: usize,
}

#[derive(Default)]
struct Seats {
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
        let name =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // A worker that was killed at this very point may have left one under the same number.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::from(socket::listen_unix(&path, 0o600, 1).map_err(name)?);
        let connected = UnixStream::connect(&path).map_err(name);
        std::fs::remove_file(&path).map_err(name)?;
        listener.set_nonblocking(false)?;
        // The name is for the threads that it starts, which take it from the one that starts them.
        title::set_name("tiny_http");
        let tiny = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let stream = connected?;
        stream.set_nonblocking(true)?;
        // tiny_http writes nothing in our use of it. Should it try, it gets an error instead of a full buffer.
        stream.shutdown(std::net::Shutdown::Read)?;
        let (seats, spare, tried) = (Mutex::default(), Condvar::new(), Condvar::new());
        let pool = Arc::new(Pool {
            tiny,
            exchange,
            routes,
            seats,
            spare,
            tried,
            most,
        });
        pool.spawn(&mut lock(&pool.seats))?;
        pool.try_out(&stream)?;
        Ok((pool, stream))
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

    /// Called by the gate after it wrote `count` requests, and again when the time it returned is over: sees to it
    /// that none waits while a thread could take it. `None`: all are picked up.
    pub fn watch(self: &Arc<Pool>, watch: &mut Watch, count: u64) -> Option<Duration> {
        let mut seats = lock(&self.seats);
        seats.sent += count;
        if seats.picked == seats.sent {
            return None;
        }
        if seats.threads >= self.most && seats.spares == 0 {
            // All are at work, and each takes the next one when it is done.
            return None;
        }
        let now = self.exchange.elapsed();
        let (slow, overdue) = (now - watch.at >= PATIENCE, seats.picked < watch.sent);
        if (!seats.leader && now - seats.left > AWAY) || (slow && overdue) {
            seats.calls = seats.sent - seats.picked;
            self.call(&mut seats);
        }
        if slow {
            *watch = Watch {
                sent: seats.sent,
                at: now,
            };
        }
        Some(PATIENCE)
    }

    /// Has a spare thread, or a new one, take the empty seat.
    fn call(self: &Arc<Pool>, seats: &mut Seats) {
        if seats.leader || seats.calls == 0 {
            return;
        }
        seats.calls -= 1;
        if seats.spares > 0 {
            self.spare.notify_one();
        } else if seats.threads < self.most {
            let Err(error) = self.spawn(seats) else {
                return;
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
        }
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
            drop(seats);

            let received = self.tiny.recv();

            let mut seats = lock(&self.seats);
            seats.leader = false;
            let Ok(request) = received else { continue };
            seats.picked += 1;
            if seats.picked == 1 {
                self.tried.notify_one();
            }
            seats.left = self.exchange.elapsed();
            if seats.picked < seats.sent {
                self.call(&mut seats);
            }
            drop(seats);

            let place = request
                .headers()
                .first()
                .and_then(|field| field.value.as_str().parse().ok());
            if let Some(job) = place.and_then(|place| self.exchange.take(place)) {
                self.answer(job);
            }
            // tiny_http's own answer is never wanted; giving up the writer is how it is told so.
            drop(request.into_writer());
        }
    }

    fn answer(&self, mut job: Job) {
        job.request.draining = self.exchange.is_closing();
        let response = catch_unwind(AssertUnwindSafe(|| self.routes.answer(&mut job.request)));
        // The panic hook has logged it.
        let response = response.unwrap_or_else(|_| refusal(500, "this page failed"));
        let checked = Arc::clone(&job.request.checked);
        let close = !checked.head.keep_alive || response.closes() || self.exchange.is_closing();
        HEAD.with_borrow_mut(|(head, date)| {
            response.render_head(head, date.now(), checked.head.minor, !close);
            let body = response.body_for(checked.method());
            let sent = match socket::send(
                job.client.as_fd(),
                &[IoSlice::new(head), IoSlice::new(body)],
            ) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                // The client is gone; so is the connection.
                Err(_) => return self.exchange.give_back(&job, true),
            };
            if sent == head.len() + body.len() {
                return self.exchange.give_back(&job, close);
            }
            let mut bytes = head.get(sent..).unwrap_or_default().to_vec();
            bytes.extend_from_slice(&body[sent.saturating_sub(head.len())..]);
            self.exchange.leave(Note::Rest(
                job.token,
                Output {
                    bytes,
                    sent: 0,
                    unread: None,
                    close,
                },
            ));
        });
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
