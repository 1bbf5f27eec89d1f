//! Which files are hade's own: settings, logs and what else it makes, for those who serve files to leave out.
#![forbid(unsafe_code)]

use crate::sys::file::{self, Cause, Patience};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// hade's own files, which nobody gets to see: `--root .` is common. What is at their paths changes, for a log is opened
/// anew and settings are replaced.
pub(crate) struct Own {
    paths: Vec<PathBuf>,
    known: RwLock<Known>,
}

/// Who they were when this was last asked.
#[derive(Default)]
struct Known {
    asked: Option<(Instant, SystemTime)>,
    who: Vec<(u64, u64)>,
}

/// For so long it is known who they are, to judge files that have not changed meanwhile. One that was put in the place of
/// an own one has: it was made or renamed, which sets its time of change.
const KNOWN: Duration = Duration::from_secs(1);
/// Times of change are no more exact than this, where file systems are old.
const INEXACT: Duration = Duration::from_secs(3);

impl Own {
    pub fn new(paths: Vec<PathBuf>) -> Own {
        Own {
            paths,
            known: RwLock::default(),
        }
    }

    /// Whether this file, which last changed at that time, is one of them.
    pub fn has(&self, found: &Metadata, patience: Patience) -> io::Result<bool> {
        let identity = (found.dev(), found.ino());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.judges(found) {
            return Ok(known.who.contains(&identity));
        }
        drop(known);
        // The time of before: what changes while this asks is asked about again.
        let asked = Some((Instant::now(), SystemTime::now()));
        let mut who = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            match file::identity(path, patience) {
                Ok(own) => who.push(own),
                Err(error) if file::cause(&error) == Cause::WouldBlock => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        let is_own = who.contains(&identity);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { asked, who };
        Ok(is_own)
    }
}

impl Known {
    /// Whether it can be told from this who a file is.
    fn judges(&self, found: &Metadata) -> bool {
        let asked = self.asked.filter(|(at, _)| at.elapsed() < KNOWN);
        let Some((_, time)) = asked else {
            return false;
        };
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let settled = time.saturating_sub(INEXACT).as_secs();
        found.ctime() < i64::try_from(settled).unwrap_or(0)
    }
}
