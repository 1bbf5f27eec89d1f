//! The counters that `app state` shows: one region of memory that the master shares with its workers, so that asking
//! costs a worker nothing, and that outlives worker deaths and restarts.
#![forbid(unsafe_code)]

use crate::sys::memory::{self, Region};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tells this layout from those of other versions.
const LAYOUT: u64 = 0x6861_6465_0000_0002;
/// Words of a worker's slot: a cache line of the gate's, one of the handlers', and two that change rarely, so that
/// they do not slow each other down.
const SLOT: usize = 32;
/// Slots: 64 workers at most, twice during a restart.
pub const SLOTS: usize = 128;

// Before the slots.
const MAGIC: usize = 0;
const PAST_REQUESTS: usize = 1;
const PAST_ACCEPTED: usize = 2;
const DEATHS: usize = 3;
const PAST_REFUSED: usize = 4;

// In a slot; the gate's line first.
const OPEN: usize = 0;
const LENT: usize = 1;
const ACCEPTED: usize = 2;
const ANSWERED: usize = 8;
const OVERDUE: usize = 16;
const LONGEST: usize = 17;
const REFUSED: usize = 18;

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
    region: Region,
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
            *sum += more;
        }
        Count {
            open: self.open + other.open,
            in_flight: self.in_flight + other.in_flight,
            requests: self.requests + other.requests,
            accepted: self.accepted + other.accepted,
            overdue: self.overdue + other.overdue,
            longest: self.longest.max(other.longest),
            refused,
        }
    }
}

/// A worker's own part; cheap to copy.
#[derive(Clone, Copy)]
pub struct Slot(&'static [AtomicU64]);

impl Ledger {
    /// A new one, all zeros.
    pub fn new(directory: &Path) -> io::Result<Ledger> {
        let (fd, region) = memory::new_region(&directory.join(".ledger"))?;
        region[MAGIC].store(LAYOUT, Relaxed);
        Ok(Ledger { fd, region })
    }

    /// The one of before a restart, if this version can read it.
    pub fn adopt(fd: OwnedFd) -> io::Result<Ledger> {
        let (fd, region) = memory::adopt_region(fd)?;
        match region[MAGIC].load(Relaxed) {
            LAYOUT => Ok(Ledger { fd, region }),
            _ => Err(io::Error::other("it is of another version")),
        }
    }

    /// The slot of this number.
    pub fn slot(&self, number: usize) -> Slot {
        let start = SLOT + number.min(SLOTS - 1) * SLOT;
        Slot(&self.region[start..start + SLOT])
    }

    /// A worker is gone: what it did is kept, what it was doing is over.
    pub fn close(&self, number: usize) {
        let slot = self.slot(number);
        let count = slot.count();
        self.region[PAST_REQUESTS].fetch_add(count.requests, Relaxed);
        self.region[PAST_ACCEPTED].fetch_add(count.accepted, Relaxed);
        for (cause, more) in count.refused.iter().enumerate() {
            self.region[PAST_REFUSED + cause].fetch_add(*more, Relaxed);
        }
        for word in slot.0 {
            word.store(0, Relaxed);
        }
    }

    /// One more worker that died unasked.
    pub fn add_death(&self) {
        self.region[DEATHS].fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn deaths(&self) -> u64 {
        self.region[DEATHS].load(Relaxed)
    }

    /// Everything since the first start, dead workers and earlier generations included.
    pub fn total(&self) -> Count {
        let past = Count {
            requests: self.region[PAST_REQUESTS].load(Relaxed),
            accepted: self.region[PAST_ACCEPTED].load(Relaxed),
            refused: words(&self.region[PAST_REFUSED..]),
            ..Count::default()
        };
        (0..SLOTS)
            .map(|number| self.slot(number).count())
            .fold(past, Count::plus)
    }
}

/// The counters of all causes, which lie in a row.
fn words(words: &[AtomicU64]) -> [u64; CAUSES] {
    std::array::from_fn(|cause| words[cause].load(Relaxed))
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Slot {
    /// The gate tells how many connections are open.
    pub fn set_open(self, open: usize) {
        self.0[OPEN].store(open as u64, Relaxed);
    }

    /// The gate accepted a connection.
    pub fn add_accepted(self) {
        self.0[ACCEPTED].fetch_add(1, Relaxed);
    }

    /// The gate sent a request on.
    pub fn add_lent(self) {
        self.0[LENT].fetch_add(1, Relaxed);
    }

    /// A request is answered, or its client is gone.
    pub fn add_answered(self) {
        self.0[ANSWERED].fetch_add(1, Relaxed);
    }

    /// One more client was refused.
    pub fn add_refused(self, cause: Cause) {
        self.0[REFUSED + cause as usize].fetch_add(1, Relaxed);
    }

    /// The gate tells how many handlers take too long, and the seconds that the longest has taken so far.
    pub fn set_overdue(self, count: u64, longest: u64) {
        self.0[OVERDUE].store(count, Relaxed);
        self.0[LONGEST].store(longest, Relaxed);
    }

    /// What stands in it now.
    pub fn count(self) -> Count {
        let requests = self.0[ANSWERED].load(Relaxed);
        Count {
            open: self.0[OPEN].load(Relaxed),
            in_flight: self.0[LENT].load(Relaxed).saturating_sub(requests),
            requests,
            accepted: self.0[ACCEPTED].load(Relaxed),
            overdue: self.0[OVERDUE].load(Relaxed),
            longest: self.0[LONGEST].load(Relaxed),
            refused: words(&self.0[REFUSED..]),
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
        slot.add_answered();
        slot.add_refused(Cause::TooMany);
        slot.set_overdue(2, 7);
        let whole = Count {
            open: 3,
            in_flight: 4,
            requests: 1,
            accepted: 5,
            overdue: 2,
            longest: 7,
            refused: [0, 0, 0, 0, 0, 1],
        };
        assert_eq!((slot.count(), ledger.total()), (whole, whole));
        let later = Ledger::adopt(ledger.fd.try_clone().unwrap()).unwrap();
        later.close(127);
        assert_eq!(
            ledger.total(),
            Count {
                requests: 1,
                accepted: 5,
                refused: [0, 0, 0, 0, 0, 1],
                ..Count::default()
            }
        );
        ledger.region[MAGIC].store(7, Relaxed);
        assert!(Ledger::adopt(ledger.fd.try_clone().unwrap()).is_err());
    }
}
