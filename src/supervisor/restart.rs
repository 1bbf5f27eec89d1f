//! A restart in place, from the question to the answer: who asked for what, how far it has come, and the way back. Whatever
//! fails on the way leaves the old workers serving, and whoever asked is told. Where it fails after the exec, the program of
//! before is executed again. Only the nouns are here: `plan` decides when a restart is given up; the reasons are found by
//! `master` before the check, by `check`, by `exec`, by `resume` behind the exec, and by the new worker.
#![forbid(unsafe_code)]

use super::check::Check;
use super::control::Asker;
use super::handover::Held;
use crate::clock;
use crate::http::orders::Drained;
use crate::log;
use crate::settings::Overrides;
use crate::sys::process::Pid;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A restart that somebody wants.
pub(super) struct Ask {
    /// Who waits for the outcome; nobody after a signal.
    pub asker: Option<Asker>,
    /// On top of what it was started with.
    pub flags: Vec<String>,
    pub at: Duration,
}

/// The restart under way.
pub(super) struct Restart {
    pub asker: Option<Asker>,
    /// When it was asked for, on the clock of [`clock::boottime`].
    pub asked: Duration,
    /// What it has come to.
    pub step: Step,
    /// The address changes, and the old workers have been told.
    pub is_moving: bool,
    /// The workers to be replaced.
    pub old: Vec<Pid>,
    /// What they had in hand when they were told to finish.
    pub in_flight: u64,
    pub drained: Drained,
}

pub(super) enum Step {
    /// The program on disk is tried; then it gets these flags.
    Checking {
        check: Option<Check>,
        overrides: Overrides,
        /// Whoever asked wants it at a certain address.
        names_address: bool,
    },
    /// This is the new program, and there is a way back.
    Executed(Box<Back>),
    /// Nothing leads back any more.
    Settled,
}

/// The way back to the program of before.
pub(super) struct Back {
    pub executable: OwnedFd,
    pub directory: OwnedFd,
    pub args: Vec<OsString>,
    pub environment: Option<Vec<OsString>>,
    pub held: Held,
    pub hang_up_stops: bool,
}

/// How the last restart went.
pub(super) struct LastRestart {
    /// On the clock of [`clock::boottime`].
    pub at: Duration,
    pub went_well: bool,
    pub text: String,
}

impl LastRestart {
    pub fn new(went_well: bool, text: String) -> LastRestart {
        LastRestart {
            at: clock::boottime(),
            went_well,
            text,
        }
    }
}

impl Ask {
    pub fn new(asker: Option<Asker>, flags: Vec<String>) -> Ask {
        Ask {
            asker,
            flags,
            at: clock::boottime(),
        }
    }

    pub fn refuse(self, why: &str) {
        log::warn(format_args!("no restart: {why}"));
        answer(self.asker, "refused", why);
    }
}

/// Tells the one who asked, if anybody did.
pub(super) fn answer(asker: Option<Asker>, outcome: &str, text: &str) {
    if let Some(asker) = asker {
        asker.answer(&[vec![outcome.to_owned(), text.to_owned()]]);
    }
}

impl Restart {
    pub fn new(asker: Option<Asker>, asked: Duration, step: Step) -> Restart {
        Restart {
            asker,
            asked,
            step,
            is_moving: false,
            old: Vec::new(),
            in_flight: 0,
            drained: Drained::default(),
        }
    }

    /// The check, while there is one.
    pub fn check(&mut self) -> Option<&mut Option<Check>> {
        match &mut self.step {
            Step::Checking { check, .. } => Some(check),
            _ => None,
        }
    }
}

/// The words for who asked, where the old workers go on.
pub(super) fn still_serves(why: &str) -> String {
    format!("{why}; pid {} still serves as before", Pid::own())
}
