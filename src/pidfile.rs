//! The pid file. The lock on it is the truth about who runs, the number in it is information (`sys/lock.rs` has the
//! nature of that lock). The file is never renamed or unlinked, and the master opens it once: a second descriptor of
//! it, closed, would drop the lock.
#![forbid(unsafe_code)]

use crate::sys::fd::{O_NOCTTY, O_NONBLOCK};
use crate::sys::lock::{self, Holder};
use crate::sys::process::{self, Pid};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode of the file, whatever the umask.
pub const MODE: u32 = 0o664;

/// How often a file that is replaced while it is being locked is tried.
const TRIES: usize = 100;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing: never run, or cleanly stopped.
    Empty,
    /// A number above 1.
    Pid(Pid),
    /// Anything else.
    Garbage,
}

/// Who runs, by the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Nobody; what the file says is history.
    Nobody(Content),
    /// This process holds the lock.
    Master(Pid),
    /// A process holds the lock that has no number here: another pid namespace, or another host.
    Hidden,
    /// The file system has no locks: the file names this process, which exists and has a master's name.
    ByNumber(Pid),
}

/// Asks who runs. Never to be called in a master, whose lock it would drop.
pub fn who(path: &Path) -> io::Result<Runs> {
    let mut file = match options(false).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Runs::Nobody(Content::Empty));
        }
        result => result?,
    };
    match lock::holder(&file) {
        Ok(Holder::Process(pid)) => Ok(Runs::Master(pid)),
        Ok(Holder::Hidden) => Ok(Runs::Hidden),
        Ok(Holder::Nobody) => Ok(Runs::Nobody(read(&mut file)?)),
        Err(error) if lock::is_unavailable(&error) => by_number(&mut file),
        Err(error) => Err(error),
    }
}

fn options(write: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(write)
        .create(write)
        .truncate(false)
        .mode(MODE)
        .custom_flags(O_NOCTTY | O_NONBLOCK);
    options
}

fn read(file: &mut File) -> io::Result<Content> {
    let mut bytes = Vec::new();
    // More than a number's worth is garbage however it goes on.
    file.take(64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(match Pid::parse(&text) {
        Some(pid) => Content::Pid(pid),
        None if text.trim_ascii().is_empty() => Content::Empty,
        None => Content::Garbage,
    })
}

/// Without locks a live process under the number is believed only if it bears a master's name and has this very file
/// open. Where one may not look, as with somebody else's process, the name must do; there is no signalling it anyway.
fn by_number(file: &mut File) -> io::Result<Runs> {
    let content = read(file)?;
    let Content::Pid(pid) = content else {
        return Ok(Runs::Nobody(content));
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let looks_right = name.trim_end().ends_with(" app") && has_open(pid, file);
    let alive = process::exists(pid) && !process::is_zombie(pid);
    Ok(if alive && looks_right {
        Runs::ByNumber(pid)
    } else {
        Runs::Nobody(content)
    })
}

/// Whether a path leads to this very file.
fn is_same(file: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    path.metadata()
        .ok()
        .map(identity)
        .is_some_and(|there| file.metadata().ok().map(identity) == Some(there))
}

fn has_open(pid: Pid, file: &File) -> bool {
    match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(mut names) => names.any(|name| name.is_ok_and(|name| is_same(file, &name.path()))),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// The locked file of a running master.
pub struct PidFile {
    file: File,
    /// Whether the file system gave a lock.
    pub locked: bool,
    /// Whether the master before this one died without a word: its workers may still be about to leave.
    pub was_left: bool,
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What came of trying to lock it.
pub enum Acquired {
    /// This process has it now; the file is empty until [`PidFile::publish`].
    Ours(PidFile),
    /// Somebody else has it, and nothing was touched.
    Held(Runs),
}

impl PidFile {
    /// Makes the file if it is missing, locks it and gives it its mode.
    pub fn acquire(path: &Path) -> io::Result<Acquired> {
        for _ in 0..TRIES {
            let mut file = options(true).open(path)?;
            let locked = match lock::try_lock(&file) {
                Ok(true) => true,
                Ok(false) => match lock::holder(&file)? {
                    Holder::Process(pid) => return Ok(Acquired::Held(Runs::Master(pid))),
                    Holder::Hidden => return Ok(Acquired::Held(Runs::Hidden)),
                    Holder::Nobody => continue,
                },
                Err(error) if lock::is_unavailable(&error) => match by_number(&mut file)? {
                    runs @ Runs::ByNumber(_) => return Ok(Acquired::Held(runs)),
                    _ => false,
                },
                Err(error) => return Err(error),
            };
            // Somebody may have put another file in its place between the open and the lock; ours would be invisible.
            if !is_same(&file, path) {
                continue;
            }
            let was_left = read(&mut file)? != Content::Empty;
            file.set_len(0)?;
            // Somebody else's file that we may write to keeps its mode.
            let _ = file.set_permissions(Permissions::from_mode(MODE));
            return Ok(Acquired::Ours(PidFile {
                file,
                locked,
                was_left,
            }));
        }
        Err(io::Error::other("it is replaced again and again"))
    }

    /// The file of before an exec, whose lock this process still holds; `None` if it does not.
    pub fn adopt(fd: OwnedFd, path: &Path, locked: bool) -> Option<PidFile> {
        let file = File::from(fd);
        if !is_same(&file, path) {
            return None;
        }
        // Asking for a lock that is held already changes nothing.
        (!locked || lock::try_lock(&file).is_ok_and(|held| held)).then_some(PidFile {
            file,
            locked,
            was_left: false,
        })
    }

    /// Writes this process's number: from now on others may rely on it.
    pub fn publish(&self) -> io::Result<()> {
        self.file
            .write_all_at(format!("{}\n", Pid::own()).as_bytes(), 0)
    }

    /// Empties the file: cleanly stopped. The lock stays until the process is gone.
    pub fn clear(&self) {
        // It would be a stale number at worst, which the lock shows for what it is.
        let _ = self.file.set_len(0);
    }
}
