//! What the gate and the handler threads share: the connections that are on loan to a handler, and the way back.
//! At any moment a connection belongs to the gate or to one handler. Its descriptor is closed by whoever lets go of
//! it last, so that a number which the kernel gives out again can never be met by the wrong one.
#![forbid(unsafe_code)]

use super::Request;
use super::output::Output;
use super::refusals::Refusals;
use crate::ledger::Slot;
use crate::sys::epoll::{Bell, Epoll, Interest};
use crate::sys::socket;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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

/// Where a connection stands that was lent to a handler. Times are on the exchange's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loan {
    /// No handler has it yet.
    Waiting,
    /// A handler has had it since then.
    Working(u64),
    /// Answered and given back; the next request may come.
    Idle(u64),
    /// Answered and shut for writing; what still comes is thrown away.
    Closing(u64),
}

impl Loan {
    /// One word: what it is in the lowest two bits, [`ARMING`], the time above.
    fn packed(self) -> u64 {
        match self {
            Loan::Waiting => 0,
            Loan::Working(at) => at << 3 | 1,
            Loan::Idle(at) => at << 3 | 2,
            Loan::Closing(at) => at << 3 | 3,
        }
    }

    fn unpacked(word: u64) -> Loan {
        match word & 3 {
            0 => Loan::Waiting,
            1 => Loan::Working(word >> 3),
            2 => Loan::Idle(word >> 3),
            _ => Loan::Closing(word >> 3),
        }
    }
}

/// The handler has given the connection back and has still to arm it, or to say by a note that there is more in it:
/// until then the gate may take it for what epoll or the note reports, and for nothing else.
const ARMING: u64 = 1 << 2;

/// One client's socket.
pub(crate) struct Client {
    fd: OwnedFd,
    pub peer: Option<SocketAddr>,
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
        Loan::unpacked(self.loan.load(Ordering::SeqCst))
    }

    /// Whether a handler has still to arm it, and may yet do so at any moment, or a note says more.
    pub fn is_being_armed(&self) -> bool {
        self.loan.load(Ordering::SeqCst) & ARMING != 0
    }

    fn set_loan(&self, loan: Loan) {
        self.loan.store(loan.packed(), Ordering::SeqCst);
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

/// Work on its way to a handler.
pub(crate) struct Job {
    pub loaned: Loaned,
    pub work: Work,
    /// Bytes of memory that it takes while it waits.
    pub size: usize,
}

/// The connection that a job is for, and that comes back with its answer.
pub(crate) struct Loaned {
    pub client: Arc<Client>,
    pub token: Token,
    /// The client sent more than this request already; the gate holds it.
    pub more: bool,
}

pub(crate) enum Work {
    /// A checked request to answer.
    Answer(Box<Request>),
    /// An answer whose next piece is to be made.
    Refill(Box<Output>),
}

/// What a handler leaves for the gate to do. `surplus` is what it received beyond the end of the body.
pub(crate) enum Note {
    /// The connection is back; its [`Loan`] says how. `is_more`: and not armed, for the next request is here already.
    Back {
        token: Token,
        is_more: bool,
        surplus: Vec<u8>,
    },
    /// The socket did not take all at once.
    Rest {
        token: Token,
        output: Box<Output>,
        surplus: Vec<u8>,
    },
    /// An answer that cannot be completed: the connection has to end.
    Broken(Token),
    /// A thread is done with a long body: another may begin.
    Permit,
}

/// The meeting place.
pub(crate) struct Exchange {
    pub epoll: Epoll,
    pub bell: Bell,
    /// This worker's counters.
    pub slot: Slot,
    pub refusals: Refusals,
    jobs: Mutex<Vec<Option<Job>>>,
    /// Requests that handlers are done with, but for sending the answer.
    done: AtomicU64,
    /// Bytes of the jobs that no handler has taken yet.
    waiting: AtomicUsize,
    /// Threads that may be reading long bodies at once, and those that are.
    permits: usize,
    reading: AtomicUsize,
    inbox: Mutex<Vec<Note>>,
    /// Somebody waits for a place: every connection that comes back is news.
    crowded: AtomicBool,
    draining: AtomicBool,
    closing: AtomicBool,
    started: Instant,
}

impl Exchange {
    /// For so many handler threads.
    pub fn new(slot: Slot, threads: usize) -> std::io::Result<Exchange> {
        Ok(Exchange {
            epoll: Epoll::new()?,
            bell: Bell::new()?,
            slot,
            refusals: Refusals::default(),
            jobs: Mutex::default(),
            done: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            // Those who send slowly must not take all threads from those who do not.
            permits: (threads / 2).max(1),
            reading: AtomicUsize::new(0),
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
        job.loaned.client.set_loan(Loan::Waiting);
        self.waiting.fetch_add(job.size, Ordering::SeqCst);
        let mut jobs = lock(&self.jobs);
        let place = job.loaned.token.place();
        if jobs.len() <= place {
            jobs.resize_with(place + 1, || None);
        }
        jobs[place] = Some(job);
    }

    /// The job at a place; `None` when there is none, because it was asked for twice (see `Pool::rebuild`).
    pub fn take(&self, place: usize) -> Option<Job> {
        let job = lock(&self.jobs).get_mut(place)?.take()?;
        self.waiting.fetch_sub(job.size, Ordering::SeqCst);
        job.loaned.client.set_loan(Loan::Working(self.clock()));
        Some(job)
    }

    /// A handler is done with a request. To be said before its client can know by the answer, and ask for more.
    pub fn add_done(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    /// How many requests handlers are done with.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Bytes of memory that jobs take which no handler has taken yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Leave to have a thread read a long body; `None` while too many do.
    pub fn permit(self: &Arc<Exchange>) -> Option<Permit> {
        // Only the gate adds to it.
        if self.reading.load(Ordering::SeqCst) >= self.permits {
            return None;
        }
        self.reading.fetch_add(1, Ordering::SeqCst);
        Some(Permit(Arc::clone(self)))
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
    pub fn give_back(&self, loaned: &Loaned, close: bool, surplus: Vec<u8>) {
        let now = self.clock();
        self.slot.add_answered();
        if close {
            socket::shutdown_write(loaned.client.as_fd());
        }
        let loan = if close {
            Loan::Closing(now)
        } else {
            Loan::Idle(now)
        };
        let is_more = (loaned.more || !surplus.is_empty()) && !close;
        let arming = loan.packed() | ARMING;
        loaned.client.loan.store(arming, Ordering::SeqCst);
        if !is_more {
            // It fails where the gate has let go of the connection meanwhile, which is as good.
            let _ = self
                .epoll
                .modify(&*loaned.client, loaned.token.0, Interest::ReadableOnce);
            // From here on the gate may have lent it again; then its word is the one that counts.
            let _ = loaned.client.loan.compare_exchange(
                arming,
                loan.packed(),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
        // Asked after the loan is set: either the gate's look at all connections, which follows the start of the
        // drain, saw it come back, or the drain is seen here and the gate is told.
        if is_more || self.is_draining() || self.crowded.load(Ordering::SeqCst) {
            self.leave(Note::Back {
                token: loaned.token,
                is_more,
                surplus,
            });
        }
    }
}

/// Leave to read a long body; dropped when that is done.
pub(crate) struct Permit(Arc<Exchange>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::SeqCst);
        self.0.leave(Note::Permit);
    }
}

/// A lock that a panicking thread left behind is still good: nothing here is changed halfway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
