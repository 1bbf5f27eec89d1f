//! The counters that `app state` and `/metrics` show: one region of memory that the master shares with its workers, so
//! that asking costs a worker nothing, any worker can answer for all, and the counts outlive worker deaths and restarts.
#![forbid(unsafe_code)]

use crate::sys::atomic::Word;
use crate::sys::memory::{self, Region};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

/// Tells this layout from those of other versions.
const LAYOUT: u64 = 0x6861_6465_0000_0005;
/// Words of a worker's slot: a cache line of the gate's, one of the handlers', two that change rarely, and those of the
/// answers, so that they do not slow each other down.
const SLOT: usize = 64;
/// Slots: 64 workers at most, twice during a restart.
pub const SLOTS: usize = 128;

/// No count is higher: whatever a worker that runs wild writes there, sums of all slots and thousands of them stay far
/// from the end of their type. A million a second reaches it in nine years.
const MOST: u64 = 1 << 48;
/// The same for bytes and microseconds, of which there are more: ten gigabytes a second reach it in three months.
const MOST_OF_SUMS: u64 = 1 << 56;

// Before the slots.
const MAGIC: usize = 0;
const PAST_REQUESTS: usize = 1;
const PAST_ACCEPTED: usize = 2;
const DEATHS: usize = 3;
const PAST_REFUSED: usize = 4;
const MASTER: usize = 10;
const GENERATION: usize = 11;
const STARTED: usize = 12;
const CALENDAR: usize = 13;
const RESTARTED: usize = 14;
const WENT_WELL: usize = 15;
const PAST_ANSWERS: usize = 16;
/// How many slots were ever asked for: those behind them are no memory yet, and who adds up need not make them so.
const USED: usize = PAST_ANSWERS + ROW;

// In a slot; the gate's line first.
const OPEN: usize = 0;
const LENT: usize = 1;
const ACCEPTED: usize = 2;
const ROUNDS: usize = 3;
const ANSWERED: usize = 8;
const OVERDUE: usize = 16;
const LONGEST: usize = 17;
const REFUSED: usize = 18;
const PID: usize = 24;
const STATE: usize = 25;
const ANSWERS: usize = 32;

// In the row of the answers, which a slot has, and the past.
const CODES: usize = 0;
const TIMES: usize = 4;
const BYTES: usize = 18;
const MICROS: usize = 19;
const ROW: usize = 20;

/// The first digits of a status.
pub const CLASSES: [u16; 4] = [2, 3, 4, 5];

/// The microseconds up to which an answer belongs to each part of the histogram but the last.
pub const LIMITS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// What a worker may be doing, as the master sees it.
pub const STATES: [&str; 4] = ["starting", "serving", "late", "draining"];

/// Why clients were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// What was sent is no request: 400.
    Malformed,
    /// Too long a head or body: 413, 414, 431.
    TooLarge,
    /// A method, version, coding or expectation that is not served: 417, 501, 505.
    Unsupported,
    /// A head or body that took too long, 408, or an answer that was not read.
    TooSlow,
    /// More work, or more memory for slow clients, than there is room for: 503, or closed.
    Overloaded,
    /// Too many connections from one address: 429.
    TooMany,
}

/// How many causes there are.
pub const CAUSES: usize = Cause::ALL.len();

impl Cause {
    /// All, in the order of their counters.
    pub const ALL: [Cause; 6] = [
        Cause::Malformed,
        Cause::TooLarge,
        Cause::Unsupported,
        Cause::TooSlow,
        Cause::Overloaded,
        Cause::TooMany,
    ];

    /// The words for it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::TooLarge => "too large",
            Cause::Unsupported => "unsupported",
            Cause::TooSlow => "too slow",
            Cause::Overloaded => "overloaded",
            Cause::TooMany => "too many",
        }
    }
}

/// The master's side.
pub struct Ledger {
    fd: OwnedFd,
    page: Page,
}

/// All of it, to read; cheap to copy.
#[derive(Clone, Copy)]
pub struct Page(Region);

/// What the answers of one worker, or of all, come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// By the class of the status, as [`CLASSES`] has them; refusals are among them.
    pub codes: [u64; CLASSES.len()],
    /// Requests by the time they took, as [`LIMITS`] has it, and at last those that took longer.
    pub times: [u64; LIMITS.len() + 1],
    /// Bytes sent, heads included.
    pub bytes: u64,
    /// What the times come to.
    pub micros: u64,
}

/// What the master says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reign {
    /// Its process.
    pub master: u64,
    /// Restarts, plus one.
    pub generation: u64,
    /// When it was started, in milliseconds on the clock that nobody sets.
    pub started: u64,
    /// When the last restart was over, likewise; 0 for never.
    pub restarted: u64,
    /// Whether that one went well.
    pub went_well: bool,
}

/// What one worker, or all of them together, has done and is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Open connections.
    pub open: u64,
    /// Requests with a handler, or with an answer that is not sent whole.
    pub in_flight: u64,
    /// Requests answered.
    pub requests: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Handlers that have been at one request for longer than `app.handler_warn`.
    pub overdue: u64,
    /// How long the longest of them has been, in seconds.
    pub longest: u64,
    /// Clients refused, by cause.
    pub refused: [u64; CAUSES],
}

impl Count {
    fn plus(self, other: Count) -> Count {
        let mut refused = self.refused;
        for (sum, more) in refused.iter_mut().zip(other.refused) {
            *sum = sum.saturating_add(more);
        }
        Count {
            open: self.open.saturating_add(other.open),
            in_flight: self.in_flight.saturating_add(other.in_flight),
            requests: self.requests.saturating_add(other.requests),
            accepted: self.accepted.saturating_add(other.accepted),
            overdue: self.overdue.saturating_add(other.overdue),
            longest: self.longest.max(other.longest),
            refused,
        }
    }
}

impl Answers {
    fn of(row: &[Word]) -> Answers {
        let sum = |word: usize| row[word].load(Relaxed).min(MOST_OF_SUMS);
        Answers {
            codes: std::array::from_fn(|class| read(&row[CODES + class])),
            times: std::array::from_fn(|part| read(&row[TIMES + part])),
            bytes: sum(BYTES),
            micros: sum(MICROS),
        }
    }

    fn row(self) -> [u64; ROW] {
        let mut row = [0; ROW];
        row[CODES..TIMES].copy_from_slice(&self.codes);
        row[TIMES..BYTES].copy_from_slice(&self.times);
        (row[BYTES], row[MICROS]) = (self.bytes, self.micros);
        row
    }

    fn plus(mut self, other: Answers) -> Answers {
        let counts = self.codes.iter_mut().chain(&mut self.times);
        for (sum, more) in counts.zip(other.codes.iter().chain(&other.times)) {
            *sum = sum.saturating_add(*more);
        }
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.micros = self.micros.saturating_add(other.micros);
        self
    }
}

/// A worker's own part; cheap to copy.
#[derive(Clone, Copy)]
pub struct Slot {
    own: &'static [Word],
    /// What it is a part of.
    pub page: Page,
}

impl Ledger {
    /// A new one, all zeros.
    pub fn new(directory: &Path) -> io::Result<Ledger> {
        let (fd, region) = memory::new_region(&directory.join(".ledger"))?;
        region[MAGIC].store(LAYOUT, Relaxed);
        let page = Page(region);
        Ok(Ledger { fd, page })
    }

    /// The one of before a restart, if this version can read it.
    pub fn adopt(fd: OwnedFd) -> io::Result<Ledger> {
        let (fd, region) = memory::adopt_region(fd)?;
        match region[MAGIC].load(Relaxed) {
            LAYOUT => Ok(Ledger {
                fd,
                page: Page(region),
            }),
            _ => Err(io::Error::other("it is of another version")),
        }
    }

    /// A worker is gone: what it did is kept, what it was doing is over.
    pub fn close(&self, number: usize) {
        let (slot, region) = (self.slot(number), self.page.0);
        let count = slot.count();
        // Nobody else has to do with these words.
        let add = |word: usize, more: u64| {
            let word = &region[word];
            word.store((read(word) + more).min(MOST), Relaxed);
        };
        add(PAST_REQUESTS, count.requests);
        add(PAST_ACCEPTED, count.accepted);
        for (cause, more) in count.refused.iter().enumerate() {
            add(PAST_REFUSED + cause, *more);
        }
        let past = &region[PAST_ANSWERS..PAST_ANSWERS + ROW];
        let sum = Answers::of(past).plus(slot.answers());
        for (word, sum) in past.iter().zip(sum.row()) {
            word.store(sum, Relaxed);
        }
        for word in slot.own {
            word.store(0, Relaxed);
        }
    }

    /// One more worker that died unasked.
    pub fn add_death(&self) {
        self.page.0[DEATHS].fetch_add(1, Relaxed);
    }

    /// The master tells of itself, and when it was started by the calendar, in milliseconds.
    pub fn tell(&self, reign: Reign, calendar: u64) {
        let region = self.page.0;
        region[MASTER].store(reign.master, Relaxed);
        region[GENERATION].store(reign.generation, Relaxed);
        region[RESTARTED].store(reign.restarted, Relaxed);
        region[WENT_WELL].store(u64::from(reign.went_well), Relaxed);
        // What was said of the calendar stands while the start is the same.
        if region[STARTED].swap(reign.started, Relaxed) != reign.started {
            region[CALENDAR].store(calendar, Relaxed);
        }
    }
}

impl Deref for Ledger {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Page {
    /// The slot of this number.
    pub fn slot(self, number: usize) -> Slot {
        let (number, used) = (number.min(SLOTS - 1), &self.0[USED]);
        if used.load(Relaxed) <= number as u64 {
            used.fetch_max(number as u64 + 1, Relaxed);
        }
        let start = SLOT + number * SLOT;
        Slot {
            own: &self.0[start..start + SLOT],
            page: self,
        }
    }

    /// All that were ever asked for.
    fn slots(self) -> impl Iterator<Item = Slot> {
        let used = self.0[USED].load(Relaxed).min(SLOTS as u64);
        (0..used as usize).map(move |number| self.slot(number))
    }

    /// How many workers died unasked.
    pub fn deaths(self) -> u64 {
        read(&self.0[DEATHS])
    }

    /// Everything since the first start, dead workers and earlier generations included.
    pub fn total(self) -> Count {
        let past = Count {
            requests: read(&self.0[PAST_REQUESTS]),
            accepted: read(&self.0[PAST_ACCEPTED]),
            refused: words(&self.0[PAST_REFUSED..]),
            ..Count::default()
        };
        self.slots().map(Slot::count).fold(past, Count::plus)
    }

    /// All answers since the first start.
    pub fn answers(self) -> Answers {
        let past = Answers::of(&self.0[PAST_ANSWERS..PAST_ANSWERS + ROW]);
        self.slots().map(Slot::answers).fold(past, Answers::plus)
    }

    /// What the master said of itself last.
    pub fn reign(self) -> Reign {
        Reign {
            master: read(&self.0[MASTER]),
            generation: read(&self.0[GENERATION]),
            started: read(&self.0[STARTED]),
            restarted: read(&self.0[RESTARTED]),
            went_well: read(&self.0[WENT_WELL]) == 1,
        }
    }

    /// When it was started by the calendar as it was set then, in milliseconds.
    pub fn calendar(self) -> u64 {
        read(&self.0[CALENDAR])
    }

    /// The processes of all workers, and which of [`STATES`] each is in.
    pub fn workers(self) -> Vec<(u64, usize)> {
        let both = self.slots().map(|slot| {
            let state = read(&slot.own[STATE]).min(STATES.len() as u64 - 1);
            (read(&slot.own[PID]), state as usize)
        });
        both.filter(|(pid, _)| *pid != 0).collect()
    }
}

/// The counters of all causes, which lie in a row.
fn words(words: &[Word]) -> [u64; CAUSES] {
    std::array::from_fn(|cause| read(&words[cause]))
}

fn read(word: &Word) -> u64 {
    word.load(Relaxed).min(MOST)
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Slot {
    /// One that no ledger has, for tests.
    #[cfg(test)]
    pub fn of_nobody() -> Slot {
        let region = Box::new([const { Word::new(0) }; memory::WORDS]);
        Page(Box::leak(region)).slot(0)
    }

    /// The gate tells how many connections are open.
    pub fn set_open(self, open: usize) {
        self.own[OPEN].store(open as u64, Relaxed);
    }

    /// The gate accepted a connection.
    pub fn add_accepted(self) {
        self.own[ACCEPTED].fetch_add(1, Relaxed);
    }

    /// The gate sent a request on.
    pub fn add_lent(self) {
        self.own[LENT].fetch_add(1, Relaxed);
    }

    /// The gate has gone through one more round: its sign of life.
    pub fn add_round(self) {
        let rounds = &self.own[ROUNDS];
        rounds.store(rounds.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// How many there were.
    pub fn rounds(self) -> u64 {
        self.own[ROUNDS].load(Relaxed)
    }

    /// A request is answered, or its client is gone, after so many microseconds.
    pub fn add_answered(self, bytes: u64, micros: u64) {
        let part = LIMITS.iter().position(|limit| micros <= *limit);
        let part = part.unwrap_or(LIMITS.len());
        self.own[ANSWERS + TIMES + part].fetch_add(1, Relaxed);
        self.own[ANSWERS + MICROS].fetch_add(micros, Relaxed);
        self.add_bytes(bytes);
        self.own[ANSWERED].fetch_add(1, Relaxed);
    }

    /// So much of an answer went out.
    pub fn add_bytes(self, bytes: u64) {
        self.own[ANSWERS + BYTES].fetch_add(bytes, Relaxed);
    }

    /// An answer with this status begins.
    pub fn add_status(self, status: u16) {
        if let Some(class) = CLASSES.iter().position(|class| *class == status / 100) {
            self.own[ANSWERS + CODES + class].fetch_add(1, Relaxed);
        }
    }

    /// The master tells who has it, and in which of [`STATES`] that one is.
    pub fn tell(self, pid: u64, state: &str) {
        let state = STATES.iter().position(|name| *name == state);
        self.own[STATE].store(state.unwrap_or(0) as u64, Relaxed);
        self.own[PID].store(pid, Relaxed);
    }

    /// What the answers come to.
    pub fn answers(self) -> Answers {
        Answers::of(&self.own[ANSWERS..ANSWERS + ROW])
    }

    /// One more client was refused.
    pub fn add_refused(self, cause: Cause) {
        self.own[REFUSED + cause as usize].fetch_add(1, Relaxed);
    }

    /// The gate tells how many handlers take too long, and the seconds that the longest has taken so far.
    pub fn set_overdue(self, count: u64, longest: u64) {
        self.own[OVERDUE].store(count, Relaxed);
        self.own[LONGEST].store(longest, Relaxed);
    }

    /// What stands in it now.
    pub fn count(self) -> Count {
        let requests = read(&self.own[ANSWERED]);
        Count {
            open: read(&self.own[OPEN]),
            in_flight: read(&self.own[LENT]).saturating_sub(requests),
            requests,
            accepted: read(&self.own[ACCEPTED]),
            overdue: read(&self.own[OVERDUE]),
            longest: read(&self.own[LONGEST]),
            refused: words(&self.own[REFUSED..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_outlives_the_worker_and_the_program() {
        let ledger = Ledger::new(&std::env::temp_dir()).unwrap();
        let slot = ledger.slot(127);
        slot.set_open(3);
        for _ in 0..5 {
            slot.add_accepted();
            slot.add_lent();
        }
        slot.add_status(204);
        slot.add_answered(100, 1_000);
        slot.add_answered(20, 10_000_001);
        slot.add_bytes(3);
        slot.tell(77, "late");
        slot.add_refused(Cause::TooMany);
        slot.set_overdue(2, 7);
        let whole = Count {
            open: 3,
            in_flight: 3,
            requests: 2,
            accepted: 5,
            overdue: 2,
            longest: 7,
            refused: [0, 0, 0, 0, 0, 1],
        };
        assert_eq!((slot.count(), ledger.total()), (whole, whole));
        let mut answers = Answers {
            codes: [1, 0, 0, 0],
            bytes: 123,
            micros: 10_001_001,
            ..Answers::default()
        };
        (answers.times[0], answers.times[13]) = (1, 1);
        assert_eq!(ledger.answers(), answers);
        assert_eq!(ledger.workers(), [(77, 2)]);
        let mut reign = Reign {
            master: 7,
            generation: 3,
            started: 5000,
            restarted: 4000,
            went_well: true,
        };
        for (started, said, stands) in [(5000, 1, 1), (5000, 2, 1), (6000, 3, 3)] {
            reign.started = started;
            ledger.tell(reign, said);
            assert_eq!((ledger.reign(), ledger.calendar()), (reign, stands));
        }
        let later = Ledger::adopt(ledger.fd.try_clone().unwrap()).unwrap();
        later.close(127);
        assert_eq!((ledger.answers(), ledger.workers()), (answers, vec![]));
        let again = ledger.slot(127);
        again.add_answered(7, 0);
        again.add_status(599);
        assert_eq!(ledger.answers().bytes, 130);
        again.own.iter().for_each(|word| word.store(0, Relaxed));
        assert_eq!(
            ledger.total(),
            Count {
                requests: 2,
                accepted: 5,
                refused: [0, 0, 0, 0, 0, 1],
                ..Count::default()
            }
        );
        ledger.page.0[MAGIC].store(7, Relaxed);
        assert!(Ledger::adopt(ledger.fd.try_clone().unwrap()).is_err());
    }
}
