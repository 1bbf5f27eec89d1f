//! POSIX record locks on a whole file, `fcntl(2)` F_SETLK and F_GETLK. Such a lock belongs to the process: `fork`
//! does not inherit it, `execve` keeps it, and closing *any* descriptor of the file in the holder drops it.

use super::process::Pid;
use super::{Errno, check, is_errno, retry};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Who holds the lock. A process that cannot be named from here has no number: it lives in another pid namespace, or
/// on another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody but perhaps the caller itself.
    Nobody,
    /// A process that has the write lock.
    Writer(Option<Pid>),
    /// A process that has a read lock, for which permission to read the file is enough.
    Reader(Option<Pid>),
}

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: flock is plain integers, for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// Takes the write lock, or says at once that another process has it (`Ok(false)`).
pub fn try_lock(file: &File) -> io::Result<bool> {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the pointer is to one flock that lives through the call.
    match retry(|| check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) })) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAGAIN)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Asks who holds a lock; permission to read is enough.
pub fn holder(file: &File) -> io::Result<Holder> {
    // What is in the way of a read lock is a write lock. Of several locks the kernel names one, so it is asked first.
    if let Some((_, pid)) = in_the_way_of(libc::F_RDLCK, file)? {
        return Ok(Holder::Writer(pid));
    }
    Ok(match in_the_way_of(libc::F_WRLCK, file)? {
        None => Holder::Nobody,
        Some((libc::F_RDLCK, pid)) => Holder::Reader(pid),
        Some((_, pid)) => Holder::Writer(pid),
    })
}

/// The kind of a lock that keeps this kind from being taken, and who has it.
fn in_the_way_of(kind: i32, file: &File) -> io::Result<Option<(i32, Option<Pid>)>> {
    let mut lock = whole_file(kind);
    // SAFETY: the pointer is to one flock that lives through the call, which overwrites it.
    retry(|| check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) }))?;
    let found = i32::from(lock.l_type);
    Ok((found != libc::F_UNLCK).then(|| (found, Pid::from_raw(lock.l_pid))))
}

/// Whether the error says that this file system has no locks to give.
pub fn is_unavailable(error: &io::Error) -> bool {
    super::is_unsupported(error) || is_errno(error, Errno::NoLocks)
}
