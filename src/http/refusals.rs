//! What was refused, to whom and why: counted by cause for `app state`, and said in the log, where one line per cause
//! stands for all of the next ten seconds. At the level `debug` every one is said.
#![forbid(unsafe_code)]

use super::head::Refusal;
use crate::ledger::{CAUSES, Cause, Slot};
use crate::log;
use crate::proxies::Origin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One line per cause within this time.
const SAMPLE: Duration = Duration::from_secs(10);

/// The cause that a status stands for.
fn cause(status: u16) -> Cause {
    match status {
        408 => Cause::TooSlow,
        413 | 414 | 431 => Cause::TooLarge,
        417 | 421 | 501 | 505 => Cause::Unsupported,
        429 => Cause::TooMany,
        503 => Cause::Overloaded,
        _ => Cause::Malformed,
    }
}

/// When each cause was last said, and how often it came since.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<[(Option<Instant>, u64); CAUSES]>);

impl Refusals {
    /// A request that is answered with a refusal.
    pub fn answered(&self, slot: Slot, from: Origin, why: Refusal) {
        let what = format_args!("refused with {}: {}", why.status, why.reason);
        self.add(slot, cause(why.status), from, what);
    }

    /// A connection that is closed without an answer, or in the middle of one.
    pub fn closed(&self, slot: Slot, cause: Cause, from: Origin, why: &str) {
        self.add(slot, cause, from, format_args!("closed: {why}"));
    }

    fn add(&self, slot: Slot, cause: Cause, from: Origin, what: std::fmt::Arguments<'_>) {
        slot.add_refused(cause);
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, since) = &mut samples[cause as usize];
        if last.is_some_and(|last| last.elapsed() < SAMPLE) {
            *since += 1;
            return log::debug(format_args!("{}: {what}", from));
        }
        *last = Some(Instant::now());
        match std::mem::take(since) {
            0 => log::info(format_args!("{}: {what}", from)),
            more => log::info(format_args!(
                "{}: {what}; {more} more were {} since the last such line",
                from,
                cause.name()
            )),
        }
    }
}
