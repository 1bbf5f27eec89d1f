//! What the gate and the handler threads share: the connections that are on loan to a handler, and the way back.
//! At any moment a connection belongs to the gate or to one handler. Its descriptor is closed by whoever lets go of
//! it last, so that a number which the kernel gives out again can never be met by the wrong one.
#![forbid(unsafe_code)]

use super::Request;
use crate::ledger::Slot;
use crate::sys::epoll::{Bell, Epoll, Interest};
use crate::sys::socket;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Names a connection for epoll, for tiny_http and for the way back: place in the gate's table and a serial number
/// that tells its successive users apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(pub u64);

impl Token {
    pub fn new(place: usize, serial: u32) -> Token {
        Token(u64::from(serial) << 32 | place as u64 & 0xffff_ffff)
    }

    pub fn place(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    pub fn serial(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Where a connection stands that was lent to a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loan {
    /// The handler has it.
    Out,
    /// Answered and given back at this time (gate's clock); the next request may come.
    Idle(u64),
    /// Answered and shut for writing at this time; what still comes is thrown away.
    Closing(u64),
}

/// One client's socket.
pub(crate) struct Client {
    fd: OwnedFd,
    pub peer: Option<SocketAddr>,
    /// Packed [`Loan`]: 0 is `Out`, otherwise twice the milliseconds, plus one for `Closing`, plus two.
    loan: AtomicU64,
}

impl Client {
    pub fn new(fd: OwnedFd, peer: Option<SocketAddr>) -> Client {
        Client {
            fd,
            peer,
            loan: AtomicU64::new(0),
        }
    }

    pub fn loan(&self) -> Loan {
        match self.loan.load(Ordering::SeqCst) {
            0 => Loan::Out,
            packed if packed & 1 == 0 => Loan::Idle((packed - 2) >> 1),
            packed => Loan::Closing((packed - 2) >> 1),
        }
    }

    fn set_loan(&self, loan: Loan) {
        let packed = match loan {
            Loan::Out => 0,
            Loan::Idle(at) => (at << 1) + 2,
            Loan::Closing(at) => (at << 1) + 3,
        };
        self.loan.store(packed, Ordering::SeqCst);
    }

    /// Where it comes from, for the log.
    pub fn origin(&self) -> String {
        self.peer
            .map_or_else(|| "unix".to_owned(), |peer| peer.to_string())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A checked request on its way to a handler.
pub(crate) struct Job {
    pub client: Arc<Client>,
    pub token: Token,
    pub request: Request,
    /// The client sent more than this request already; the gate holds it.
    pub more: bool,
}

/// What a handler leaves for the gate to do.
pub(crate) enum Note {
    /// The connection is back; its [`Loan`] says how.
    Back(Token),
    /// What the socket did not take at once.
    Rest(Token, Output),
}

/// Bytes that wait for a slow reader.
pub(crate) struct Output {
    pub bytes: Vec<u8>,
    pub sent: usize,
    /// Bytes in the kernel's hands that the client had not read when it was last asked.
    pub unread: Option<u32>,
    pub close: bool,
}

/// The meeting place.
pub(crate) struct Exchange {
    pub epoll: Epoll,
    pub bell: Bell,
    /// This worker's counters.
    pub slot: Slot,
    jobs: Mutex<Vec<Option<Job>>>,
    inbox: Mutex<Vec<Note>>,
    /// Somebody waits for a place: every connection that comes back is news.
    crowded: AtomicBool,
    draining: AtomicBool,
    closing: AtomicBool,
    started: Instant,
}

impl Exchange {
    pub fn new(slot: Slot) -> std::io::Result<Exchange> {
        Ok(Exchange {
            epoll: Epoll::new()?,
            bell: Bell::new()?,
            slot,
            jobs: Mutex::default(),
            inbox: Mutex::default(),
            crowded: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            started: Instant::now(),
        })
    }

    /// Milliseconds on the clock that all deadlines of this worker are set by; it never jumps.
    pub fn clock(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The same clock for those who want it finer.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the worker is leaving: the gate is told of every connection that comes back.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Whether every answer is the last on its connection.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether somebody waits for a place.
    pub fn set_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Ordering::SeqCst);
    }

    /// The worker leaves; connections end with their answers, or go to another worker.
    pub fn set_draining(&self, closing: bool) {
        self.closing.store(closing, Ordering::SeqCst);
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Lends a connection to whichever handler takes the job.
    pub fn lend(&self, job: Job) {
        job.client.set_loan(Loan::Out);
        let mut jobs = lock(&self.jobs);
        let place = job.token.place();
        if jobs.len() <= place {
            jobs.resize_with(place + 1, || None);
        }
        jobs[place] = Some(job);
    }

    /// The job at a place; `None` when there is none, which only a bug could bring about.
    pub fn take(&self, place: usize) -> Option<Job> {
        lock(&self.jobs).get_mut(place)?.take()
    }

    /// Leaves a note and wakes the gate.
    pub fn leave(&self, note: Note) {
        lock(&self.inbox).push(note);
        self.bell.ring();
    }

    /// Takes all notes. The bell must have been silenced before.
    pub fn notes(&self) -> Vec<Note> {
        std::mem::take(&mut *lock(&self.inbox))
    }

    /// Gives a connection back after its answer went out whole. Usually that is one `epoll_ctl(2)`, and the gate
    /// learns of it by the next thing the client does.
    pub fn give_back(&self, job: &Job, close: bool) {
        let now = self.clock();
        self.slot.add_answered();
        if close {
            socket::shutdown_write(job.client.as_fd());
        }
        job.client.set_loan(if close {
            Loan::Closing(now)
        } else {
            Loan::Idle(now)
        });
        let told = job.more && !close;
        if !told {
            // It fails where the gate has let go of the connection meanwhile, which is as good.
            let _ = self
                .epoll
                .modify(&*job.client, job.token.0, Interest::ReadableOnce);
        }
        // Asked after the loan is set: either the gate's look at all connections, which follows the start of the
        // drain, saw it come back, or the drain is seen here and the gate is told.
        if told || self.is_draining() || self.crowded.load(Ordering::SeqCst) {
            self.leave(Note::Back(job.token));
        }
    }
}

/// A lock that a panicking thread left behind is still good: nothing here is changed halfway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
