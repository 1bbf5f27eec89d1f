//! Who runs. The lock on `run/app.lock` is the truth (`sys/lock.rs` has the nature of that lock): its file is empty, is
//! never renamed or unlinked, and nobody but its owner may open it, so that no stranger can be in its way. The number
//! in `run/app.pid` is information.
#![forbid(unsafe_code)]

use crate::owned;
use crate::sys::lock::{self, Holder};
use crate::sys::memory;
use crate::sys::process::{self, Pid};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The mode of the pid file, whatever the umask.
pub const MODE: u32 = 0o664;
/// The mode of the lock's file: to lock a file for reading it is enough to be able to read it.
const LOCK_MODE: u32 = 0o600;

/// How often a lock that changes hands while one looks is tried.
const TRIES: usize = 100;

/// What the pid file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing: never run, or cleanly stopped.
    Empty,
    /// A number above 1.
    Pid(Pid),
    /// Anything else.
    Garbage,
}

/// A process and the user that it runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    pub uid: u32,
}

/// Who runs, by the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Nobody.
    Nobody,
    /// This process holds the write lock, as the user whose file it is.
    Master(Process),
    /// A process holds it that has no number here: another pid namespace, or another host.
    Hidden,
    /// A process is in the way that is no master: of another user, where that is known, or with no more than a read
    /// lock. It is not to be signalled.
    Stranger(Pid, Option<u32>),
}

/// Asks who runs; `None` where there is no such file. Never to be called in a master, whose lock it would drop.
///
/// # Errors
/// The file cannot be read, is not to be trusted, or stands where there are no locks: nobody can tell.
pub fn who(lock: &Path) -> io::Result<Option<Runs>> {
    let file = match owned::open_to_read(lock) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let found = file.metadata()?;
    let (owner, us) = (found.uid(), process::euid());
    // Root may look after everybody's, and everybody after their own.
    if us != 0 && us != owner && owner != 0 {
        return Err(not_ours(owner, us));
    }
    Ok(Some(match in_the_way(&file, &found)? {
        (Some(runs), true) => runs,
        // A reader keeps a master from starting, but is none.
        _ => Runs::Nobody,
    }))
}

fn not_ours(owner: u32, us: u32) -> io::Error {
    let text = format!("it belongs to uid {owner}, this is uid {us}");
    io::Error::new(ErrorKind::InvalidInput, text)
}

/// Who holds a lock, and whether that is a write lock.
fn in_the_way(file: &File, found: &Metadata) -> io::Result<(Option<Runs>, bool)> {
    for _ in 0..TRIES {
        let holder = lock::holder(file)?;
        let pid = match holder {
            Holder::Nobody => return Ok((None, false)),
            Holder::Writer(None) => return Ok((Some(Runs::Hidden), true)),
            Holder::Reader(None) => return Ok((Some(Runs::Hidden), false)),
            Holder::Writer(Some(pid)) | Holder::Reader(Some(pid)) => pid,
        };
        let uid = user_of(pid, found)?;
        // The number is that of the holder for as long as it is the holder's.
        if lock::holder(file)? != holder {
            continue;
        }
        let writes = matches!(holder, Holder::Writer(_));
        return Ok(match uid {
            // Not anybody else's, root's included: it may be one that another user's file was made to look locked by.
            Some(uid) if writes && uid == found.uid() => {
                (Some(Runs::Master(Process { pid, uid })), true)
            }
            uid => (Some(Runs::Stranger(pid, uid)), writes),
        });
    }
    Err(io::Error::other("its lock changes hands again and again"))
}

/// As whom a process runs. Without /proc the file's mode must do: nobody else could have opened it for writing.
fn user_of(pid: Pid, found: &Metadata) -> io::Result<Option<u32>> {
    let uid = process::user_of(pid)?;
    Ok(uid.or_else(|| {
        let is_private = found.mode() & 0o022 == 0;
        let has_proc = Path::new("/proc/self/status").exists();
        (is_private && !has_proc).then(|| found.uid())
    }))
}

/// The lock of a running master. Closing any descriptor of its file would drop it, so this one stays open until the
/// process is gone.
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// What came of trying to take the lock.
pub enum Acquired {
    /// This process has it now.
    Ours(Lock),
    /// Somebody else has it, and nothing was touched.
    Held(Runs),
}

/// Whether the lock is where the commands look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    There,
    /// Its file was removed: nobody can find it, and it can be made anew.
    Removed,
    /// Its file was removed, and another one stands at its path since: the files beside it may be another master's.
    Replaced,
    /// Its file has another path now, or another file stands at its path.
    Moved,
    /// Another process holds it.
    Lost,
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Lock {
    /// Makes the file if it is missing, and locks it.
    ///
    /// # Errors
    /// The file cannot be opened or is not to be trusted; or there are no locks here, [`lock::is_unavailable`].
    pub fn acquire(path: &Path) -> io::Result<Acquired> {
        for _ in 0..TRIES {
            let file = owned::open(path, false, LOCK_MODE)?;
            let (owner, us) = (file.metadata()?.uid(), process::euid());
            if owner != us {
                // Of root's: nobody would take another user for a master who holds it.
                return Err(not_ours(owner, us));
            }
            if !lock::try_lock(&file)? {
                match in_the_way(&file, &file.metadata()?)? {
                    (Some(runs), _) => return Ok(Acquired::Held(runs)),
                    (None, _) => continue,
                }
            }
            // Somebody may have put another file in its place between the open and the lock; ours would be invisible.
            if owned::is_same(&file, path) {
                let path = path.to_owned();
                return Ok(Acquired::Ours(Lock { file, path }));
            }
        }
        Err(io::Error::other("it is replaced again and again"))
    }

    /// For a container that has no place for it: nobody else can look for it either. It stands as removed.
    pub fn nowhere(path: &Path) -> io::Result<Lock> {
        let (file, path) = (memory::nameless_file()?, path.to_owned());
        lock::try_lock(&file)?;
        Ok(Lock { file, path })
    }

    /// The one of before an exec. It is kept whatever is odd about it, for to close it would be to drop it;
    /// [`Lock::standing`] tells.
    pub fn adopt(fd: OwnedFd, path: &Path) -> Lock {
        let file = File::from(fd);
        // Whoever read the lock's file under another name and closed it meanwhile, as settings say, dropped it.
        let _ = lock::try_lock(&file);
        let path = path.to_owned();
        Lock { file, path }
    }

    /// How it stands. A lock that is held already can be asked for again, which changes nothing.
    pub fn standing(&self) -> Standing {
        if !lock::try_lock(&self.file).unwrap_or(true) {
            Standing::Lost
        } else if self.file.metadata().is_ok_and(|found| found.nlink() == 0) {
            match fs::symlink_metadata(&self.path) {
                Ok(_) => Standing::Replaced,
                Err(_) => Standing::Removed,
            }
        } else if owned::is_same(&self.file, &self.path) {
            Standing::There
        } else {
            Standing::Moved
        }
    }

    /// Makes the file anew where it was removed, or takes the one that was made since, if nobody holds it; whether it
    /// did.
    ///
    /// # Errors
    /// As for [`Lock::acquire`], or somebody else was faster. The old lock is kept.
    pub fn renew(&mut self) -> io::Result<bool> {
        if !matches!(self.standing(), Standing::Removed | Standing::Replaced) {
            return Ok(false);
        }
        match Lock::acquire(&self.path)? {
            Acquired::Ours(lock) => *self = lock,
            Acquired::Held(Runs::Master(Process { pid, .. }) | Runs::Stranger(pid, _)) => {
                let text = format!("pid {pid} holds another one at the same path");
                return Err(io::Error::other(text));
            }
            Acquired::Held(_) => return Err(io::Error::other("another one is held there")),
        }
        Ok(true)
    }
}

/// The pid file of a running master. It holds no descriptor.
pub struct PidFile {
    path: PathBuf,
    /// Whether the master before this one may have died without a word, for its pid is there, or somebody has cleaned the
    /// file away: its workers may still be about to leave.
    pub was_left: bool,
}

impl PidFile {
    /// Empties it, makes it if it is missing, and gives it its mode. For the holder of the lock.
    pub fn open(path: &Path) -> io::Result<PidFile> {
        let is_new = !path.exists();
        let file = owned::open(path, false, MODE)?;
        let was_left = is_new || content(file.try_clone()?)? != Content::Empty;
        file.set_len(0)?;
        let path = path.to_owned();
        Ok(PidFile { path, was_left })
    }

    /// The one of before an exec.
    pub fn adopt(path: &Path) -> PidFile {
        PidFile {
            path: path.to_owned(),
            was_left: false,
        }
    }

    /// What a pid file says, to anybody. One that is not there says nothing.
    pub fn read(path: &Path) -> io::Result<Content> {
        match owned::open_to_read(path) {
            Ok(file) => content(file),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Content::Empty),
            Err(error) => Err(error),
        }
    }

    /// Writes this process's number: from now on others may rely on it. A file that was removed is made anew.
    pub fn publish(&self) -> io::Result<()> {
        let file = owned::open(&self.path, false, MODE)?;
        let line = format!("{}\n", Pid::own());
        file.write_all_at(line.as_bytes(), 0)?;
        // Not before it is written: there is no moment without the number.
        file.set_len(line.len() as u64)
    }

    /// Publishes the number again where it is gone; whether it was.
    pub fn renew(&self) -> io::Result<bool> {
        // By its text: as the first process of a container it is 1, which no reader takes for a service's number.
        let text = owned::open_to_read(&self.path).and_then(text);
        if text.is_ok_and(|text| text.trim_ascii() == Pid::own().to_string()) {
            return Ok(false);
        }
        self.publish().map(|()| true)
    }

    /// Empties the file: cleanly stopped. The lock stays until the process is gone.
    pub fn clear(&self) {
        // It would be a stale number at worst, which the lock shows for what it is. One that is gone stays that.
        if self.path.exists() {
            let _ = owned::open(&self.path, false, MODE).and_then(|file| file.set_len(0));
        }
    }
}

fn text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    // More than a number's worth is garbage however it goes on.
    file.take(64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn content(file: File) -> io::Result<Content> {
    let text = text(file)?;
    Ok(match Pid::parse(&text) {
        Some(pid) => Content::Pid(pid),
        None if text.trim_ascii().is_empty() => Content::Empty,
        None => Content::Garbage,
    })
}
