//! A name under a directory that is served → the open file, or why there is none. The directory is opened by its path for
//! each request, since deployments turn it, as a link, to the next release; within one request it stays the same. For all
//! requests that one round of the gate finds it is opened once.
//! What is looked at is always what was opened, never what a name stands for a moment later.
#![forbid(unsafe_code)]

use super::own::Own;
use crate::settings::OwnFiles;
use crate::sys::file::{self, Cause, Kind, Patience, Purpose, Volume};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A file that may be sent.
#[derive(Debug)]
pub(crate) struct Opened {
    pub file: File,
    pub size: u64,
    /// When its content last changed: seconds since 1970, and the nanoseconds above them.
    pub modified: (i64, u32),
    /// Device and inode.
    pub identity: (u64, u64),
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found {
    File(Opened),
    Directory,
}

/// Why it leads to nothing.
#[derive(Debug)]
pub(crate) enum Miss {
    /// Nothing is there.
    Absent,
    /// What is there is not to be served: it lies outside, is hade's own, or no regular file.
    Unfit,
    Forbidden,
    /// For the moment: no descriptor is left, or somebody has a lease on the file (`fcntl(2)`).
    Busy,
    /// The directory that is served is not there.
    NoRoot(io::Error),
    /// To be asked again with more patience.
    WouldBlock,
    Broken(io::Error),
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Miss {
        match file::cause(&error) {
            Cause::Absent => Miss::Absent,
            Cause::NotDirectory | Cause::Unfit => Miss::Unfit,
            Cause::Forbidden => Miss::Forbidden,
            Cause::Exhausted => Miss::Busy,
            Cause::WouldBlock => Miss::WouldBlock,
            Cause::Other => Miss::Broken(error),
        }
    }
}

/// A directory that is served.
pub(crate) struct Directory {
    pub path: PathBuf,
    own: Own,
    /// The file system that it is on, and when this was asked, which may take patience.
    volume: RwLock<Option<(Instant, Volume)>>,
    /// Opened in this round of the gate, for those who have no patience.
    opened: Mutex<Option<(Arc<OwnedFd>, Volume)>>,
}

/// After so long whoever has the patience asks again. Who has none goes by what was said last, as long as it is of the same
/// file system: that has to wait for no slow disk.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The same, open, for one request.
pub(crate) struct Root<'a> {
    root: Arc<OwnedFd>,
    directory: &'a Directory,
    /// What may be opened without waiting; `None` for those who have patience.
    volume: Option<Volume>,
}

impl Directory {
    pub fn new(path: PathBuf, own: OwnFiles) -> Directory {
        Directory {
            own: Own::new(own, path.clone()),
            path,
            volume: RwLock::default(),
            opened: Mutex::default(),
        }
    }

    /// The round is over: what comes in the next one may be there since the directory was turned.
    pub fn end_round(&self) {
        *self.opened() = None;
    }

    fn opened(&self) -> MutexGuard<'_, Option<(Arc<OwnedFd>, Volume)>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(&self, patience: Patience) -> Result<Root<'_>, Miss> {
        if patience == Patience::Cached {
            if let Some((root, volume)) = &*self.opened() {
                return Ok(Root {
                    root: Arc::clone(root),
                    directory: self,
                    volume: Some(*volume),
                });
            }
        }
        let known = *self.volume.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.map(|(asked, volume)| (asked.elapsed(), volume));
        let volume = match (patience, known) {
            (Patience::Wait, _) => None,
            (_, Some((_, volume))) if volume.is_at_hand() => Some(volume),
            _ => return Err(Miss::WouldBlock),
        };
        let root = file::open_root(&self.path, patience);
        let root = root.map_err(|error| match file::cause(&error) {
            Cause::Absent | Cause::NotDirectory | Cause::Unfit => Miss::NoRoot(error),
            _ => Miss::from(error),
        })?;
        match &volume {
            // By now it may be somewhere else.
            Some(volume) if !volume.has(root.as_fd())? => return Err(Miss::WouldBlock),
            Some(_) => {}
            None if known.is_none_or(|(age, _)| age > ASK_AGAIN) => {
                let asked = Volume::of(root.as_fd()).ok();
                let asked = asked.map(|volume| (Instant::now(), volume));
                *self.volume.write().unwrap_or_else(PoisonError::into_inner) = asked;
            }
            None => {}
        }
        let root = Arc::new(root);
        if let Some(volume) = volume {
            *self.opened() = Some((Arc::clone(&root), volume));
        }
        Ok(Root {
            root,
            directory: self,
            volume,
        })
    }
}

impl Root<'_> {
    fn patience(&self) -> Patience {
        match self.volume {
            Some(_) => Patience::Cached,
            None => Patience::Wait,
        }
    }

    /// Opens what is there to be read.
    pub fn find(&self, path: &[u8]) -> Result<Found, Miss> {
        self.open_for(path, Purpose::Read)
    }

    /// The same without the right to read it.
    pub fn look(&self, path: &[u8]) -> Result<Found, Miss> {
        self.open_for(path, Purpose::Look)
    }

    fn open_for(&self, path: &[u8], purpose: Purpose) -> Result<Found, Miss> {
        let file = self.open_beneath(path, purpose)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Found::Directory);
        }
        if !metadata.is_file() || self.directory.own.has(&metadata, self.patience())? {
            return Err(Miss::Unfit);
        }
        let notes = self
            .volume
            .as_ref()
            .map(|volume| volume.notes_reading(&metadata));
        if notes == Some(true) {
            return Err(Miss::WouldBlock);
        }
        Ok(Found::File(Opened {
            file,
            size: metadata.len(),
            modified: (
                metadata.mtime(),
                u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            ),
            identity: (metadata.dev(), metadata.ino()),
        }))
    }

    fn open_beneath(&self, path: &[u8], purpose: Purpose) -> Result<File, Miss> {
        let opened = file::open_beneath(self.root.as_fd(), path, purpose, self.patience());
        opened.map_err(|error| match Miss::from(error) {
            // A file that was opened to wait for nothing cannot be had while somebody else has a lease on it.
            Miss::WouldBlock if self.volume.is_none() => Miss::Busy,
            miss => miss,
        })
    }

    /// Calls `each` with the names in a directory until it says that it is enough.
    pub fn names(&self, path: &[u8], each: impl FnMut(&[u8], Kind) -> bool) -> Result<(), Miss> {
        if self.volume.is_some() {
            return Err(Miss::WouldBlock);
        }
        let directory = self.open_beneath(path, Purpose::List)?;
        Ok(file::names(&directory, each)?)
    }
}
