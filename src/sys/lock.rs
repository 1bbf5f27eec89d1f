//! POSIX record locks on a whole file, `fcntl(2)` F_SETLK and F_GETLK. Such a lock belongs to the process: `fork`
//! does not inherit it, `execve` keeps it, and closing *any* descriptor of the file in the holder drops it.

use super::process::Pid;
use super::{Errno, check, is_errno, retry};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Who holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody but perhaps the caller itself.
    Nobody,
    /// This process.
    Process(Pid),
    /// A process that cannot be named from here: it lives in another pid namespace, or on another host.
    Hidden,
}

fn whole_file() -> libc::flock {
    // SAFETY: flock is plain integers, for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// Takes the write lock, or says at once that another process has it (`Ok(false)`).
pub fn try_lock(file: &File) -> io::Result<bool> {
    let lock = whole_file();
    // SAFETY: the pointer is to one flock that lives through the call.
    match retry(|| check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) })) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAGAIN)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Asks who holds the write lock; reading permission is enough.
pub fn holder(file: &File) -> io::Result<Holder> {
    let mut lock = whole_file();
    // SAFETY: the pointer is to one flock that lives through the call, which overwrites it.
    retry(|| check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) }))?;
    if lock.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(Holder::Nobody);
    }
    Ok(Pid::from_raw(lock.l_pid).map_or(Holder::Hidden, Holder::Process))
}

/// Whether the error says that this file system has no locks to give.
pub fn is_unavailable(error: &io::Error) -> bool {
    super::is_unsupported(error) || is_errno(error, Errno::NoLocks)
}
