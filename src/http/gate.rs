//! The gate: one thread with epoll owns every client socket. This file has its loop: it waits, and says who is to act.
//! `door` has the listener, `desk` the connections, `leave` the end.
#![forbid(unsafe_code)]

use super::bounds::Bounds;
use super::client::Token;
use super::desk::Desk;
use super::door::{Door, is_transient};
use super::exchange::Exchange;
use super::expire::{SILENT, Terms};
use super::leave::{Leaving, Passed};
use super::orders::{Drained, Leave, Order, Why};
use super::routes::Routes;
use super::server::Pool;
use crate::sys::epoll::{Events, Interest};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Connections accepted before those that are open get their turn.
const ACCEPT_ROUND: usize = 64;
/// Time to wait after an epoll that failed, so that the loop does not spin.
const EPOLL_PAUSE: Duration = Duration::from_millis(100);
/// Milliseconds after which passing connections on is tried again.
const HAND_OVER_AGAIN: u64 = 100;
/// Milliseconds by which the gate may wake too late. What is more, it was kept from running: SIGSTOP, a frozen container.
const LATE: u64 = 1000;
/// Milliseconds that it sleeps at the most while it leaves, so that it knows how long it was kept.
const DRAIN_STEP: u64 = 1000;

/// The gate's whole state; it lives on the gate's thread.
pub(crate) struct Gate {
    exchange: Arc<Exchange>,
    desk: Desk,
    door: Door,
    leaving: Leaving,
    orders: Receiver<Order>,
}

impl Gate {
    /// # Errors
    /// Epoll does not take one of the descriptors.
    pub fn new(
        exchange: Arc<Exchange>,
        pool: (Arc<Pool>, UnixStream),
        routes: Arc<Routes>,
        bounds: Bounds,
        listener: OwnedFd,
        orders: Receiver<Order>,
    ) -> io::Result<Gate> {
        exchange
            .epoll
            .add(&*exchange.bell, Token::BELL.0, Interest::ReadableEdge)?;
        Ok(Gate {
            desk: Desk::new(Arc::clone(&exchange), pool, routes, bounds)?,
            door: Door::new(Arc::clone(&exchange), listener)?,
            leaving: Leaving::new(Arc::clone(&exchange)),
            exchange,
            orders,
        })
    }

    /// Serves until a drain is over.
    pub fn run(mut self) -> Drained {
        let mut events = Events::with_capacity(256);
        self.desk.start_round(self.exchange.clock());
        loop {
            let timeout = match self.exchange.may_sleep() {
                true => self.until_next_round(),
                false => Some(Duration::ZERO),
            };
            let count = match self.exchange.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(error) => {
                    self.desk.warn(format_args!("epoll_wait: {error}"));
                    std::thread::sleep(EPOLL_PAUSE);
                    0
                }
            };
            self.tell_time(timeout);
            self.exchange.slot.add_round();
            for index in 0..count {
                self.on_event(Token(events.token(index)), events.is_end(index));
            }
            for note in self.exchange.notes() {
                self.desk.on_note(note);
            }
            self.desk.look_at_early();
            self.desk.next_upload();
            self.desk.next_fetch();
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            self.desk.read_again();
            self.leaving.look(self.desk.now());
            let is_leaving = self.leaving.drain().is_some();
            if is_leaving || self.desk.now() >= self.desk.next_sweep() {
                self.sweep();
                self.desk.read_unread();
                self.desk.read_again();
            }
            self.desk.flush();
            self.desk.end_round();
            self.make_room();
            let (table, now) = (self.desk.table(), self.desk.now());
            if let Some(drained) = self.leaving.over(table, self.desk.finished(), now) {
                return drained;
            }
        }
    }

    fn until_next_round(&self) -> Option<Duration> {
        if self.desk.has_more_to_read() {
            return Some(Duration::ZERO);
        }
        let clock = self.exchange.clock();
        let sweep = Some(self.desk.next_sweep()).filter(|at| *at != u64::MAX);
        let sweep = sweep.map(|at| at.saturating_sub(clock));
        let drain = self.leaving.next_look(clock);
        let drain = drain.map(|at| at.saturating_sub(clock).min(DRAIN_STEP));
        let ours = [sweep, drain].into_iter().flatten().min();
        let ours = ours.map(Duration::from_millis);
        [ours, self.desk.look_again()].into_iter().flatten().min()
    }

    /// A new round begins, after one that was to last no longer than this. Nobody's time runs while the process is kept
    /// from running: clients could not be answered, and what they have sent meanwhile has not been read.
    fn tell_time(&mut self, timeout: Option<Duration>) {
        let (before, now) = (self.desk.now(), self.exchange.clock());
        let took = now.saturating_sub(before);
        if timeout.is_some_and(|timeout| took > timeout.as_millis() as u64 + LATE) {
            self.exchange.leave_out(took);
        } else {
            self.desk.start_round(now.max(before));
        }
    }

    fn on_event(&mut self, token: Token, is_end: bool) {
        match token {
            Token::LISTENER => self.accept(ACCEPT_ROUND),
            // What it rang for is looked for in every round.
            Token::BELL => {}
            Token::STREAM => self.desk.on_stream(),
            Token::SOURCE => self.adopt(),
            Token::HEIR => self.leaving.on_heir(),
            // What has come is the next worker's to read: this one might be out of time before it is answered.
            token if self.leaving.has_heir() && self.desk.is_between_requests(token) => {
                if !self.hand_over(token) {
                    self.desk.on_ready(token, is_end);
                }
            }
            token => self.desk.on_ready(token, is_end),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Leave(leave) => self.leave(leave),
            Order::Inherit(heir) => self.leaving.inherit(heir),
            Order::Adopt(source) => {
                let is_watched = self.leaving.add_source(source);
                if !is_watched || self.leaving.drain().is_some() {
                    self.adopt_last();
                }
            }
        }
    }

    fn leave(&mut self, leave: Leave) {
        let (why, now) = (leave.why, self.desk.now());
        // What is left is from this moment, and the round may have begun a while ago.
        self.leaving.start(leave, self.exchange.clock());
        self.desk.start_counting();
        if why != Why::Restart {
            // What the kernel has accepted on our behalf was promised to be served.
            self.door.resume(now);
            if why == Why::Moved {
                self.door.close_queue();
            }
            self.accept(usize::MAX);
        }
        self.door.close();
        self.adopt_last();
    }

    fn accept(&mut self, most: usize) {
        let mut idle = None;
        for _ in 0..most {
            if self.desk.is_full() && self.leaving.drain().is_none() {
                // Somebody makes room only for somebody who waits.
                if !self.door.has_waiting() {
                    return;
                }
                if !self.desk.evict(&mut idle) {
                    // What became idle before this round's look is no news any more.
                    let _ = self.desk.take_room();
                    self.door.wait_for_place();
                    // One that says nothing has to make room soon.
                    return self.desk.due(self.desk.now() + SILENT);
                }
            }
            match self.door.accept() {
                Ok(client) => self.desk.admit(client),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    let open = self.desk.table().open_count();
                    self.desk.warn(format_args!(
                        "cannot accept connections for now, {open} open: {error}"
                    ));
                    self.door.pause(self.desk.now());
                    return self.desk.due(self.door.due());
                }
            }
        }
    }

    /// Where somebody in the kernel's queue waits for a place, and a connection is idle or gone: accepts again.
    fn make_room(&mut self) {
        if self.desk.take_room() && self.door.waits_for_place() {
            self.door.resume(self.desk.now());
            self.desk.due(self.door.due());
        }
    }

    /// Takes over what workers that leave have sent, as far as there are descriptors.
    fn adopt(&mut self) {
        loop {
            match self.leaving.next_adopted() {
                Ok(Some(fd)) => self.desk.adopt(fd),
                Ok(None) => return,
                Err(error) => {
                    self.desk.warn(format_args!(
                        "connections of the old worker have to wait: {error}"
                    ));
                    return self.desk.due(self.desk.now() + HAND_OVER_AGAIN);
                }
            }
        }
    }

    /// Takes over what has been sent up to now: it was promised to be served, or is passed on like the others.
    fn adopt_last(&mut self) {
        self.leaving.close_sources();
        self.adopt();
    }

    /// Looks at everything that has a deadline.
    fn sweep(&mut self) {
        let terms = Terms {
            now: self.desk.now(),
            why: self.leaving.drain().map(|drain| drain.why),
            has_heir: self.leaving.has_heir(),
        };
        if self.leaving.has_no_room() {
            self.adopt();
        }
        let next = self.door.look(terms.now);
        for token in self.desk.sweep(&terms, next) {
            self.hand_over(token);
        }
        // Now that this look has set when the next one is.
        if self.leaving.has_no_room() {
            self.desk.due(terms.now + HAND_OVER_AGAIN);
        }
    }

    /// Passes a connection without a request on to the next worker; whether it did.
    fn hand_over(&mut self, token: Token) -> bool {
        let Some(connection) = self.desk.table().get(token) else {
            return false;
        };
        let passed = self.leaving.pass_on(&connection.client);
        let is_over = matches!(passed, Passed::Over);
        match passed {
            Passed::Over => self.desk.pass_on(token),
            Passed::Kept => {}
            Passed::TryLater => self.desk.due(self.desk.now() + HAND_OVER_AGAIN),
            Passed::Failed(error) => self.desk.warn(format_args!(
                "the new worker takes no connections, they stay here until another does: {error}"
            )),
        }
        is_over
    }
}
