//! What the gate and the handler threads share: the connections that are on loan to a handler, and the way back.
//! At any moment a connection belongs to the gate or to one handler. Its descriptor is closed by whoever lets go of
//! it last, so that a number which the kernel gives out again can never be met by the wrong one.
#![forbid(unsafe_code)]

use super::checked::Checked;
use super::client::{Client, Loan, Token, Watched};
use super::head::Length;
use super::output::Output;
use super::permits::{Permit, Permits};
use super::record::{Entry, Known, Record};
use super::refusals::Refusals;
use super::request::{Request, Worker};
use crate::ledger::Slot;
use crate::sys::atomic::AtomicU64;
use crate::sys::epoll::{Bell, Epoll, Interest};
use crate::sys::socket;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Work on its way to a handler.
pub(crate) struct Job {
    pub loaned: Loaned,
    pub work: Work,
    /// Bytes of memory that it takes while it waits.
    pub size: usize,
    /// Leave to wait for a disk, where it may have to.
    pub _leave: Option<Permit>,
}

#[cfg(test)]
impl Job {
    /// A piece of an answer that is to be made, for a client that is gone.
    pub fn of_nobody(index: usize) -> Job {
        let (client, _) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        let nothing = super::output::Load::Bytes(std::borrow::Cow::Borrowed(b""), 0);
        Job {
            loaned: Loaned {
                client: Arc::new(Client::new(client.into(), None)),
                token: Token::new(index, 0),
                more: false,
                since: 0,
                watched: Watched::Input,
            },
            work: Work::Refill(Box::new(Output::new(Vec::new(), nothing, false))),
            size: 0,
            _leave: None,
        }
    }
}

/// The connection that a job is for, and that comes back with its answer.
pub(crate) struct Loaned {
    pub client: Arc<Client>,
    pub token: Token,
    /// The client sent more than this request already; the gate holds it.
    pub more: bool,
    /// When the request was here, by [`Exchange::micros`].
    pub since: u64,
    pub watched: Watched,
}

/// How a connection goes on after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// With the next request.
    Keep,
    /// It ends, and what the client may still send is thrown away until that has closed it, too.
    Linger,
    /// It ends at once: the client has said that it sends no more.
    Close,
}

impl After {
    /// After the answer to this request, which is the last on its connection if that `close`s. `more`: something may have
    /// come behind it.
    pub fn answer(checked: &Checked, close: bool, more: bool) -> After {
        // Nothing can be on its way but for what a client sends against its own word.
        let is_last = !checked.head.keep_alive
            && matches!(checked.head.length, Length::None | Length::Known(0))
            && !more;
        match (close, is_last) {
            (false, _) => After::Keep,
            (true, false) => After::Linger,
            (true, true) => After::Close,
        }
    }
}

pub(crate) enum Work {
    /// A checked request to answer.
    Answer(Box<Request>),
    /// An answer whose next piece is to be made.
    Refill(Box<Output>),
}

/// What a handler leaves for the gate to do. `surplus` is what it received beyond the end of the body.
pub(crate) enum Note {
    /// The connection is back; its [`Loan`] says how. `is_more`: the next request is here already.
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
    /// The connection is back and over: answered, shut for writing, and its client has said that it asks nothing more.
    Over(Token),
    /// An answer that cannot be completed: the connection has to end.
    Broken(Token),
    /// There is something to send where there was nothing.
    Wake(Token),
}

/// The jobs that no handler has taken yet, in the order in which they came, and how many there were.
#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    pace: Pace,
}

/// How many jobs there were, how many of them handlers took, and when one last did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    pub put: u64,
    pub taken: u64,
    pub taken_at: Duration,
}

/// What handlers have left for the gate.
#[derive(Default)]
struct Inbox {
    notes: Vec<Note>,
    /// The gate looks here before it sleeps, or the bell was rung for it.
    is_known: bool,
}

/// The meeting place.
pub(crate) struct Exchange {
    pub epoll: Epoll,
    pub bell: Arc<Bell>,
    /// This worker's counters.
    pub slot: Slot,
    pub refusals: Refusals,
    /// The access log, if there is one.
    pub record: Option<Arc<Record>>,
    jobs: Mutex<Jobs>,
    /// Requests that handlers are done with, but for sending the answer.
    done: AtomicU64,
    /// Bytes of the jobs that no handler has taken yet.
    waiting: AtomicUsize,
    /// Leave for handlers to read long bodies.
    pub permits: Arc<Permits>,
    /// Leave to wait for the disks that files are on.
    pub disks: Arc<Permits>,
    inbox: Mutex<Inbox>,
    /// Somebody waits for a place: every connection that comes back is news.
    crowded: AtomicBool,
    /// Whether it leaves, which answers may want to know.
    pub worker: Worker,
    started: Instant,
    /// Milliseconds that the clock leaves out.
    away: AtomicU64,
}

impl Exchange {
    /// For so many handler threads. The master rings the same bell, to see that the gate moves.
    pub fn new(slot: Slot, bell: Bell, threads: usize) -> std::io::Result<Exchange> {
        let bell = Arc::new(bell);
        Ok(Exchange {
            epoll: Epoll::new()?,
            bell: Arc::clone(&bell),
            slot,
            refusals: Refusals::default(),
            record: None,
            jobs: Mutex::default(),
            done: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            permits: Permits::new(threads, Arc::clone(&bell)),
            disks: Permits::new(threads, bell),
            inbox: Mutex::default(),
            crowded: AtomicBool::new(false),
            worker: Worker::default(),
            started: Instant::now(),
            away: AtomicU64::new(0),
        })
    }

    /// One without a master, for tests.
    #[cfg(test)]
    pub fn of_nobody() -> Arc<Exchange> {
        let bell = Bell::new().expect("an eventfd");
        Arc::new(Exchange::new(Slot::of_nobody(), bell, 2).expect("an epoll instance"))
    }

    /// Milliseconds on the clock that all deadlines of this worker are set by. It follows no change of the date, and
    /// leaves out the time that the worker was kept from running: what a handler saw of it may be ahead of that.
    pub fn clock(&self) -> u64 {
        self.micros() / 1000
    }

    /// The same in microseconds.
    pub fn micros(&self) -> u64 {
        self.micros_at(self.elapsed())
    }

    fn micros_at(&self, elapsed: Duration) -> u64 {
        let away = self.away.load(Ordering::SeqCst) * 1000;
        (elapsed.as_micros() as u64).saturating_sub(away)
    }

    /// Leaves out so much of what has passed. The gate alone knows when.
    pub fn leave_out(&self, millis: u64) {
        self.away.fetch_add(millis, Ordering::SeqCst);
    }

    /// The line of an answer in the access log, if there is one. `begun`: when the request's first byte came.
    pub fn entry(
        &self,
        client: &Client,
        status: u16,
        begun: u64,
        known: impl FnOnce() -> Known,
    ) -> Option<Box<Entry>> {
        let record = self.record.as_ref()?;
        let age = Duration::from_millis(self.clock().saturating_sub(begun));
        let now = Instant::now();
        let begun = now.checked_sub(age).unwrap_or(now);
        let entry = Entry::new(record, client.address(), known(), status, begun);
        Some(Box::new(entry))
    }

    /// The same clock for those who want it finer.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the worker is leaving: the gate is told of every connection that comes back.
    pub fn is_draining(&self) -> bool {
        self.worker.is_leaving()
    }

    /// Whether every answer is the last on its connection.
    pub fn is_closing(&self) -> bool {
        self.worker.is_closing()
    }

    /// Whether the worker is about to leave for good, and serves until then.
    pub fn is_stopping(&self) -> bool {
        self.worker.is_stopping()
    }

    /// Whether the worker leaves for good, or is about to.
    pub fn is_ending(&self) -> bool {
        self.worker.is_ending()
    }

    /// The worker leaves for good.
    pub fn set_ending(&self) {
        self.worker.set_ending();
    }

    /// A stop is coming.
    pub fn set_stopping(&self) {
        self.worker.set_stopping();
    }

    /// Whether somebody waits for a place.
    pub fn set_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Ordering::SeqCst);
    }

    /// The worker leaves; connections end with their answers, or go to another worker.
    pub fn set_draining(&self, closing: bool) {
        self.worker.set_leaving(closing);
    }

    /// A job is made, which handlers get at the end of the round.
    pub fn add_waiting(&self, job: &Job) {
        self.waiting.fetch_add(job.size, Ordering::SeqCst);
    }

    /// Lends connections to whichever handlers take the jobs; none of them is left.
    pub fn lend(&self, round: &mut Vec<Job>) {
        let mut jobs = lock(&self.jobs);
        jobs.pace.put += round.len() as u64;
        jobs.queue.extend(round.drain(..));
    }

    /// The next job, and whether there are more.
    pub fn take(&self) -> Option<(Job, bool)> {
        let elapsed = self.elapsed();
        let mut jobs = lock(&self.jobs);
        let job = jobs.queue.pop_front()?;
        jobs.pace.taken += 1;
        jobs.pace.taken_at = elapsed;
        let is_more = !jobs.queue.is_empty();
        drop(jobs);
        self.waiting.fetch_sub(job.size, Ordering::SeqCst);
        job.loaned.client.start_work(self.micros_at(elapsed) / 1000);
        Some((job, is_more))
    }

    /// Whether there is a job that no handler has taken.
    pub fn has_jobs(&self) -> bool {
        !lock(&self.jobs).queue.is_empty()
    }

    /// How the jobs go.
    pub fn pace(&self) -> Pace {
        lock(&self.jobs).pace
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

    /// Puts a note into the gate's inbox, and wakes it if it sleeps.
    pub fn post(&self, note: Note) {
        let mut inbox = lock(&self.inbox);
        inbox.notes.push(note);
        if !std::mem::replace(&mut inbox.is_known, true) {
            drop(inbox);
            self.bell.ring();
        }
    }

    /// Takes all notes. The gate is awake, and looks again before it sleeps.
    pub fn notes(&self) -> Vec<Note> {
        let mut inbox = lock(&self.inbox);
        inbox.is_known = true;
        std::mem::take(&mut inbox.notes)
    }

    /// Whether the gate may sleep, for there is no note; it is woken for the next one.
    pub fn may_sleep(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        inbox.is_known = !inbox.notes.is_empty();
        !inbox.is_known
    }

    /// Gives a connection back after its answer went out whole. Usually that is no more than a word in memory, and the
    /// gate learns of it by the next thing the client does.
    fn give_back(&self, loaned: &Loaned, mut after: After, surplus: Vec<u8>, sent: u64) {
        let micros = self.micros();
        let now = micros / 1000;
        let took = micros.saturating_sub(loaned.since);
        self.slot.add_answered(sent, took);
        let (client, token) = (&*loaned.client, loaned.token);
        let interest = Interest::ReadableEdge;
        let is_watched = match loaned.watched {
            Watched::Input => Ok(()),
            _ if after == After::Close => Ok(()),
            Watched::No => self.epoll.add(client, token.0, interest),
            Watched::Room => self.epoll.modify(client, token.0, interest),
        };
        if is_watched.is_err() && after == After::Keep {
            after = After::Linger;
        }
        if after != After::Keep {
            socket::shutdown_write(client.as_fd());
        }
        let loan = match after {
            After::Keep => Loan::Idle(now),
            _ => Loan::Closing(now),
        };
        let is_more = (loaned.more || !surplus.is_empty()) && after == After::Keep;
        let is_seen = client.give_back(loan, is_more);
        // Asked after the loan is set: either the gate's look at all connections, which follows the start of the
        // drain, saw it come back, or the drain is seen here and the gate is told.
        let is_awaited = self.is_draining() || self.crowded.load(Ordering::SeqCst);
        if after == After::Close && !is_seen {
            self.post(Note::Over(token));
        } else if is_more || is_seen || is_awaited || is_watched.is_err() {
            self.post(Note::Back {
                token,
                is_more,
                surplus,
            });
        }
    }
}

/// A connection in the hands of a handler's thread. One that is let go of in any other way than by giving it back is
/// broken: part of an answer may be out.
pub(crate) struct Lent<'a> {
    loaned: Loaned,
    exchange: &'a Exchange,
    is_back: bool,
}

impl<'a> Lent<'a> {
    pub fn new(loaned: Loaned, exchange: &'a Exchange) -> Lent<'a> {
        Lent {
            loaned,
            exchange,
            is_back: false,
        }
    }

    /// Its answer is out with so many bytes, or its client is gone.
    pub fn give_back(mut self, after: After, surplus: Vec<u8>, sent: u64) {
        self.is_back = true;
        self.exchange.give_back(&self.loaned, after, surplus, sent);
    }

    /// The gate is to send the rest.
    pub fn leave_rest(mut self, output: Box<Output>, surplus: Vec<u8>) {
        self.is_back = true;
        self.exchange.post(Note::Rest {
            token: self.loaned.token,
            output,
            surplus,
        });
    }
}

impl std::ops::Deref for Lent<'_> {
    type Target = Loaned;

    fn deref(&self) -> &Loaned {
        &self.loaned
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.is_back {
            self.exchange.post(Note::Broken(self.loaned.token));
        }
    }
}

/// A lock that a panicking thread left behind is still good: nothing here is changed halfway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::output::Load;
    use crate::sys::epoll::Events;
    use std::borrow::Cow;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A connection that a handler has, and its client's end.
    fn loaned(exchange: &Exchange, more: bool) -> (Loaned, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = Arc::new(Client::new(ours.into(), None));
        let token = Token::new(3, 7);
        let loaned = Loaned {
            client,
            token,
            more,
            since: 0,
            watched: Watched::No,
        };
        loaned.client.lend(false);
        let work = Work::Refill(output());
        let job = Job {
            loaned,
            work,
            size: 5,
            _leave: None,
        };
        exchange.add_waiting(&job);
        exchange.lend(&mut vec![job]);
        assert_eq!(exchange.waiting(), 5);
        let (job, is_more) = exchange.take().unwrap();
        assert!(!is_more && matches!(job.loaned.client.loan(), Loan::Working(_)));
        assert!(exchange.take().is_none());
        assert_eq!(exchange.waiting(), 0);
        (job.loaned, theirs)
    }

    fn output() -> Box<Output> {
        let nothing = Load::Bytes(Cow::Borrowed(b""), 0);
        Box::new(Output::new(Vec::new(), nothing, false))
    }

    /// The token of what epoll reports at once.
    fn reported(exchange: &Exchange) -> Option<u64> {
        let mut events = Events::with_capacity(4);
        let count = exchange.epoll.wait(&mut events, Some(Duration::ZERO));
        (count.unwrap() > 0).then(|| events.token(0))
    }

    #[test]
    fn only_what_the_client_itself_ends_is_closed_without_waiting_for_it() {
        let head =
            |more: &str| Checked::of_text(&format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        let (open, last) = (head(""), head("Connection: close\r\n"));
        let old = Checked::of_text("GET / HTTP/1.0\r\n\r\n");
        let body = head("Connection: close\r\nContent-Length: 1\r\n");
        for (checked, close, more, expected) in [
            (&open, false, false, After::Keep),
            (&open, true, false, After::Linger),
            (&last, true, false, After::Close),
            (&last, true, true, After::Linger),
            (&old, true, false, After::Close),
            (&body, true, false, After::Linger),
        ] {
            assert_eq!(After::answer(checked, close, more), expected);
        }
    }

    #[test]
    fn what_is_given_back_is_watched_and_nobody_is_told() {
        let exchange = Exchange::of_nobody();
        let (loaned, mut theirs) = loaned(&exchange, false);
        let client = Arc::clone(&loaned.client);
        Lent::new(loaned, &exchange).give_back(After::Keep, Vec::new(), 7);
        assert!(matches!(client.standing(), (Loan::Idle(_), false)));
        assert!(exchange.notes().is_empty() && reported(&exchange).is_none());
        for _ in 0..2 {
            theirs.write_all(b"G").unwrap();
            assert_eq!(reported(&exchange), Some(Token::new(3, 7).0));
            // As often as something comes.
            assert_eq!(reported(&exchange), None);
        }
    }

    #[test]
    fn where_more_has_come_a_note_says_so() {
        for (more, surplus) in [(true, &b""[..]), (false, &b"GET"[..])] {
            let exchange = Exchange::of_nobody();
            let (loaned, _theirs) = loaned(&exchange, more);
            let client = Arc::clone(&loaned.client);
            Lent::new(loaned, &exchange).give_back(After::Keep, surplus.to_vec(), 7);
            assert!(client.standing().1);
            let notes = exchange.notes();
            let [
                Note::Back {
                    token,
                    is_more: true,
                    surplus: left,
                },
            ] = &notes[..]
            else {
                panic!("{} notes", notes.len());
            };
            assert_eq!((*token, &left[..]), (Token::new(3, 7), surplus));
        }
    }

    #[test]
    fn what_epoll_reported_meanwhile_is_told_again() {
        let exchange = Exchange::of_nobody();
        for after in [After::Keep, After::Linger, After::Close] {
            let (loaned, _theirs) = loaned(&exchange, false);
            assert!(matches!(loaned.client.see(), (Loan::Working(_), false)));
            Lent::new(loaned, &exchange).give_back(after, Vec::new(), 7);
            let notes = exchange.notes();
            assert!(matches!(&notes[..], [Note::Back { is_more: false, .. }]));
        }
    }

    #[test]
    fn the_gate_is_told_while_it_leaves_or_somebody_waits_for_a_place() {
        let ways: [fn(&Exchange); 2] = [|e| e.set_draining(false), |e| e.set_crowded(true)];
        for (way, after) in [(0, After::Keep), (1, After::Keep), (0, After::Linger)] {
            let exchange = Exchange::of_nobody();
            ways[way](&exchange);
            let (loaned, _theirs) = loaned(&exchange, false);
            let client = Arc::clone(&loaned.client);
            Lent::new(loaned, &exchange).give_back(after, Vec::new(), 7);
            let notes = exchange.notes();
            assert!(matches!(&notes[..], [Note::Back { is_more: false, .. }]));
            assert!(!client.standing().1);
        }
    }

    #[test]
    fn the_bell_rings_once_for_all_notes_and_only_while_the_gate_sleeps() {
        let exchange = Exchange::of_nobody();
        let bell = Token::BELL.0;
        let interest = Interest::ReadableEdge;
        exchange.epoll.add(&*exchange.bell, bell, interest).unwrap();
        for _ in 0..2 {
            assert!(exchange.may_sleep());
            exchange.post(Note::Broken(Token::new(1, 1)));
            assert_eq!(reported(&exchange), Some(bell));
            exchange.post(Note::Broken(Token::new(2, 1)));
            assert_eq!(reported(&exchange), None);
            assert_eq!(exchange.notes().len(), 2);
            exchange.post(Note::Broken(Token::new(3, 1)));
            assert!(!exchange.may_sleep() && reported(&exchange).is_none());
            assert_eq!(exchange.notes().len(), 1);
        }
    }

    #[test]
    fn the_last_answer_shuts_the_connection_for_writing() {
        for (after, count) in [(After::Linger, 0), (After::Close, 1)] {
            let exchange = Exchange::of_nobody();
            let (loaned, mut theirs) = loaned(&exchange, true);
            let client = Arc::clone(&loaned.client);
            Lent::new(loaned, &exchange).give_back(after, b"GET".to_vec(), 7);
            assert!(matches!(client.standing(), (Loan::Closing(_), false)));
            let notes = exchange.notes();
            assert!(notes.len() == count && notes.iter().all(|n| matches!(n, Note::Over(_))));
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
            assert_eq!(exchange.slot.count().requests, 1);
            assert_eq!(exchange.slot.answers().bytes, 7);
            // Epoll knows only the one that it has still to hear of.
            drop(theirs);
            assert_eq!(reported(&exchange).is_some(), after == After::Linger);
        }
    }

    #[test]
    fn what_is_lost_on_the_way_is_broken_and_what_is_left_to_the_gate_is_not() {
        let exchange = Exchange::of_nobody();
        let (first, _theirs) = loaned(&exchange, false);
        drop(Lent::new(first, &exchange));
        assert!(
            matches!(&exchange.notes()[..], [Note::Broken(token)] if *token == Token::new(3, 7))
        );
        let (second, _theirs) = loaned(&exchange, false);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _lent = Lent::new(second, &exchange);
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err() && matches!(&exchange.notes()[..], [Note::Broken(_)]));
        let (third, _theirs) = loaned(&exchange, false);
        Lent::new(third, &exchange).leave_rest(output(), Vec::new());
        assert!(matches!(&exchange.notes()[..], [Note::Rest { .. }]));
    }
}
