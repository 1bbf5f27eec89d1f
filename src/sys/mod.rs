//! The only room with `unsafe` and `libc` in it: one safe function per system call, named after its man page,
//! `OwnedFd`, `BorrowedFd` and `Pid` in, `io::Result` out, no policy.
#![allow(unsafe_code)]

pub mod atomic;
pub mod clock;
pub mod credentials;
pub mod entry;
pub mod epoll;
pub mod fd;
pub mod file;
pub mod inherited;
pub mod lock;
pub mod memory;
pub mod process;
pub mod signal;
pub mod socket;
pub mod title;

use std::io;

/// Turns the -1 of a system call into the error that `errno` names; must follow the call directly.
fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Repeats a call that a signal interrupted. Not for `close(2)`, whose descriptor is already gone on Linux.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether the kernel does not know the call at all (an old one, or a sandbox that says so).
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP))
}

/// Whether the error is the given `errno`.
pub fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// The `errno` values that other floors decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Errno {
    NoSuchProcess = libc::ESRCH,
    NoLocks = libc::ENOLCK,
    NotPermitted = libc::EPERM,
    InvalidArgument = libc::EINVAL,
    AddressFamily = libc::EAFNOSUPPORT,
    AddressNotAvailable = libc::EADDRNOTAVAIL,
    AddressInUse = libc::EADDRINUSE,
    ConnectionRefused = libc::ECONNREFUSED,
    ConnectionAborted = libc::ECONNABORTED,
    NoReader = libc::ENXIO,
    NetDown = libc::ENETDOWN,
    Protocol = libc::EPROTO,
    HostDown = libc::EHOSTDOWN,
    HostUnreachable = libc::EHOSTUNREACH,
    NetUnreachable = libc::ENETUNREACH,
}
