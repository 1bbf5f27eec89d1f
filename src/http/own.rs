//! Which files are hade's own: settings, logs and what else it makes, for those who serve files to leave out. They are
//! known by device and inode, so that no link and no second name leads to one.
#![forbid(unsafe_code)]

use crate::settings::OwnFiles;
use crate::sys::file::{self, Cause, Identity, Patience};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// hade's own files, which nobody gets to see: `--root .` is common. What is at their paths changes, for a log is opened
/// anew and settings are replaced.
pub(crate) struct Own {
    files: OwnFiles,
    /// The directory that is served. Not all in it is hade's own, even where hade has its files there.
    root: PathBuf,
    known: RwLock<Known>,
}

/// Who they were when this was last asked.
#[derive(Default)]
struct Known {
    asked: Option<Instant>,
    /// It tells of files that had settled by then.
    time: Option<SystemTime>,
    who: Vec<(u64, u64)>,
    /// Those in the directories.
    held: Vec<Option<Held>>,
}

/// Who was found by reading a directory.
#[derive(Clone)]
struct Held {
    directory: Identity,
    /// When it was read, or was still as it had been then.
    time: SystemTime,
    who: Arc<BTreeSet<(u64, u64)>>,
}

/// For so long it is known who they are, to judge files that have not changed meanwhile. One that was put in the place of
/// an own one has: it was made or renamed, which sets its time of change.
const KNOWN: Duration = Duration::from_secs(1);
/// Times of change are no more exact than this, where file systems are old.
const INEXACT: Duration = Duration::from_secs(3);

impl Own {
    pub fn new(files: OwnFiles, root: PathBuf) -> Own {
        Own {
            files,
            root,
            known: RwLock::default(),
        }
    }

    /// Whether this file, which last changed at that time, is one of them.
    pub fn has(&self, found: &Metadata, patience: Patience) -> io::Result<bool> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.judges(found) {
            return Ok(known.has(found));
        }
        let before = known.held.clone();
        drop(known);
        let known = self.ask(&before, found, patience)?;
        let is_own = known.has(found);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(is_own)
    }

    /// Who they are now, to judge this file. Reading a directory takes patience, so it is read again only where the file
    /// may have come into it since.
    fn ask(
        &self,
        before: &[Option<Held>],
        found: &Metadata,
        patience: Patience,
    ) -> io::Result<Known> {
        let identity = |path: &Path| or_none(file::identity(path, patience));
        // The time of before: what changes while this asks is asked about again.
        let (asked, time) = (Instant::now(), SystemTime::now());
        let (mut who, mut held) = (Vec::new(), Vec::new());
        for path in &self.files.paths {
            who.extend(identity(path)?.map(|own| own.number));
        }
        let root = identity(&self.root)?.map(|root| root.number);
        for (index, (path, log)) in self.files.directories.iter().enumerate() {
            let directory = identity(path)?.filter(|it| log.is_some() || root != Some(it.number));
            let before = before.get(index).cloned().flatten();
            held.push(match (directory, before) {
                (None, _) => None,
                (Some(directory), Some(before)) if before.is_all_of(directory) => {
                    Some(Held { time, ..before })
                }
                (Some(directory), Some(before)) if before.judges(directory, found) => Some(before),
                (Some(_), _) if patience == Patience::Cached => {
                    return Err(ErrorKind::WouldBlock.into());
                }
                (Some(directory), _) => Some(Held {
                    directory,
                    time,
                    who: Arc::new(or_none(read(path, log.as_deref()))?.unwrap_or_default()),
                }),
            });
        }
        let times = held.iter().flatten().map(|held| held.time);
        Ok(Known {
            asked: Some(asked),
            time: times.chain([time]).min(),
            who,
            held,
        })
    }
}

impl Known {
    /// Whether it can be told from this who a file is.
    fn judges(&self, found: &Metadata) -> bool {
        self.asked.is_some_and(|at| at.elapsed() < KNOWN)
            && self
                .time
                .is_some_and(|time| is_settled(found.ctime(), time))
    }

    fn has(&self, found: &Metadata) -> bool {
        let who = (found.dev(), found.ino());
        let mut held = self.held.iter().flatten();
        self.who.contains(&who) || held.any(|held| held.who.contains(&who))
    }
}

impl Held {
    /// Whether it is still the same directory with the same in it.
    fn is_all_of(&self, directory: Identity) -> bool {
        self.directory == directory && is_settled(directory.changed.0, self.time)
    }

    /// Whether this file, had it come into the directory meanwhile, would have another time of change.
    fn judges(&self, directory: Identity, found: &Metadata) -> bool {
        self.directory.number == directory.number && is_settled(found.ctime(), self.time)
    }
}

/// Whether what last changed at this time, in seconds since 1970, would have another one if it had changed after that.
fn is_settled(changed: i64, time: SystemTime) -> bool {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let settled = time.saturating_sub(INEXACT).as_secs();
    changed < i64::try_from(settled).unwrap_or(0)
}

/// What is not there, or is not for this user to see, is nothing; what cannot be told just now is an error.
fn or_none<T>(told: io::Result<T>) -> io::Result<Option<T>> {
    told.map(Some).or_else(|error| match file::cause(&error) {
        Cause::WouldBlock | Cause::Exhausted => Err(error),
        _ => Ok(None),
    })
}

/// The files in a directory: all, or those that a log of this name has become. A link is none of them, for what it leads
/// to may be a page.
fn read(directory: &Path, log: Option<&OsStr>) -> io::Result<BTreeSet<(u64, u64)>> {
    let is_own = |name: OsString| {
        let rest = log.map(|log| name.as_bytes().strip_prefix(log.as_bytes()));
        rest.is_none_or(|rest| matches!(rest, Some([b'.' | b'-', ..])))
    };
    let mut who = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_own(entry.file_name()) {
            // By now it may be gone.
            let found = entry.metadata().ok().filter(Metadata::is_file);
            who.extend(found.map(|found| (found.dev(), found.ino())));
        }
    }
    Ok(who)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever has no patience knows who is in a directory as long as it stays as it was when somebody read it.
    #[test]
    fn a_directory_that_has_not_changed_is_not_read_again() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = here.join("src/lib.rs").metadata().unwrap();
        let other = here.join("src/http/mod.rs").metadata().unwrap();
        for (root, log, is_own) in [
            (here.to_owned(), None, true),
            (here.to_owned(), Some("lib"), true),
            (here.to_owned(), Some("li"), false),
            (here.to_owned(), Some("lib.rs"), false),
            (here.join("src"), None, false),
            (here.join("src"), Some("lib"), true),
        ] {
            let is_read = log.is_some() || root == here;
            let files = OwnFiles {
                paths: Vec::new(),
                directories: vec![(here.join("src"), log.map(OsString::from))],
            };
            let own = Own::new(files, root);
            let has = |found: &Metadata, patience| own.has(found, patience).ok();
            let at_once = has(&file, Patience::Cached);
            assert_eq!(at_once.filter(|_| is_read), None, "nobody has read it");
            for (found, is_own) in [(&file, is_own), (&other, false)] {
                assert_eq!(has(found, Patience::Wait), Some(is_own), "{log:?}");
            }
            // What is at hand may be taken away at any moment, and comes back by who waits.
            let at_once = || {
                has(&file, Patience::Wait);
                own.known.write().unwrap().asked = None;
                has(&file, Patience::Cached)
            };
            if file::open_root(here, Patience::Cached).is_ok() {
                let told = (0..100).find_map(|_| at_once());
                assert_eq!(told, Some(is_own), "{log:?}");
            }
        }
    }

    /// A file that was renamed has changed: what is known from before does not tell of it, neither of the directory nor
    /// of what was last asked.
    #[test]
    fn what_is_known_tells_of_nothing_that_came_later() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let directory = |number, seconds| Identity {
            number: (1, number),
            changed: (seconds, 0),
        };
        let held = |changed, read| Held {
            directory: directory(7, changed),
            time: at(read),
            who: Arc::default(),
        };
        assert!(held(90, 100).is_all_of(directory(7, 90)));
        assert!(!held(99, 100).is_all_of(directory(7, 99)), "too soon");
        assert!(!held(90, 100).is_all_of(directory(7, 95)), "changed");
        assert!(!held(90, 100).is_all_of(directory(8, 90)), "another one");
        // This one has settled for long, as seen from now.
        let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
        let found = found.metadata().unwrap();
        let changed = u64::try_from(found.ctime()).unwrap();
        for (read, judges) in [
            (changed + 60, true),
            (changed + 1, false),
            (changed - 60, false),
        ] {
            assert_eq!(held(0, read).judges(directory(7, 95), &found), judges);
            assert!(!held(0, read).judges(directory(8, 95), &found));
            let known = Known {
                asked: Some(Instant::now()),
                time: Some(at(read)),
                ..Known::default()
            };
            assert_eq!(known.judges(&found), judges);
        }
    }
}
