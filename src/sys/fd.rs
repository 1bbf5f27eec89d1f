//! Descriptors: pipes, close-on-exec, duplication, `poll(2)`, and the clean-up of inherited ones.

use super::{check, retry};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// `pipe2(2)` with close-on-exec: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(libc::O_CLOEXEC)
}

/// The same with both ends non-blocking.
pub fn pipe_nonblocking() -> io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(libc::O_CLOEXEC | libc::O_NONBLOCK)
}

fn pipe_with(flags: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the pointer is to two ints that live through the call, which writes no more than these.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), flags) })?;
    // SAFETY: the call succeeded, so both numbers are open descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// `dup2(2)` onto a standard descriptor or another number that the caller means to replace.
/// The copy is inherited across `execve(2)`.
pub fn dup2(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: takes two numbers and touches no memory; what `to` named before is the caller's to give up.
    retry(|| check(unsafe { libc::dup2(from.as_raw_fd(), to) })).map(drop)
}

/// `dup3(2)` with close-on-exec: `to` names what `from` names, in one step, so that nobody writes into a gap.
pub fn dup3_cloexec(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: as in `dup2`.
    retry(|| check(unsafe { libc::dup3(from.as_raw_fd(), to, libc::O_CLOEXEC) })).map(drop)
}

/// Sets or clears close-on-exec: `fcntl(F_SETFD)`.
pub fn set_cloexec(fd: &impl AsFd, on: bool) -> io::Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes an int and touches no memory.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFD, flags) }).map(drop)
}

/// Sets or clears close-on-exec on descriptors known by their numbers alone; one that is not open stays that.
pub fn set_cloexec_numbers(numbers: &[RawFd], on: bool) {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    for number in numbers {
        // SAFETY: F_SETFD takes an int and touches no memory.
        unsafe { libc::fcntl(*number, libc::F_SETFD, flags) };
    }
}

/// Takes a descriptor that this process inherited under a number it was told.
/// Returns `None` when the number is not open. The caller must be the only one to claim it.
pub fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD touches no memory; it only tells whether the number is open.
    let open = number > 2 && unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    // SAFETY: the number is open, above the standard three, and by this function's contract claimed once.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes the descriptors above 2 that this process inherited from whoever executed it, and that
/// nobody here has made its own. They are the ones without close-on-exec: what was opened or adopted since has it.
pub fn close_inherited() {
    // The names are collected first: closing while reading would close the directory's own descriptor.
    let open: Vec<RawFd> = match std::fs::read_dir("/proc/self/fd") {
        Ok(names) => names
            .flatten()
            .filter_map(|name| name.file_name().to_str()?.parse().ok())
            .collect(),
        Err(_) => (0..raise_file_limit(0).min(65536) as RawFd).collect(),
    };
    for number in open.into_iter().filter(|number| *number > 2) {
        // SAFETY: F_GETFD touches no memory, and a number that is not open is an error and nothing more.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == 0 {
            // SAFETY: nobody in this process opened it, so nobody in it owns it.
            unsafe { libc::close(number) };
        }
    }
}

/// What one descriptor is waited for, and what came of it.
pub struct Wait<'a> {
    fd: BorrowedFd<'a>,
    /// Set by [`poll`]: there is something to read, an end of file, or an error to be had.
    pub ready: bool,
}

impl<'a> Wait<'a> {
    /// The same for a borrowed descriptor.
    pub fn borrowed(fd: BorrowedFd<'a>) -> Wait<'a> {
        Wait { fd, ready: false }
    }

    /// Waits for something to read.
    pub fn readable(fd: &'a impl AsFd) -> Wait<'a> {
        Wait {
            fd: fd.as_fd(),
            ready: false,
        }
    }
}

/// `poll(2)` for reading. Returns early, with nothing ready, when a signal comes in: to the callers that is news.
pub fn poll(waits: &mut [Wait<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let mut set: Vec<libc::pollfd> = waits
        .iter()
        .map(|wait| libc::pollfd {
            fd: wait.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let timeout = timeout.map_or(-1, millis);
    // SAFETY: pointer and length describe `set`, which lives through the call.
    match check(unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
        _ => {}
    }
    for (wait, entry) in waits.iter_mut().zip(&set) {
        wait.ready = entry.revents != 0;
    }
    Ok(())
}

/// Whole milliseconds, rounded up, so that a wait never ends just before its time and then spins.
pub(super) fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// `read(2)` on any descriptor.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `buffer`, which lives through the call.
    retry(|| check(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }))
        .map(|count| count as usize)
}

/// `write(2)` on any descriptor; may write less than all.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `bytes`, which lives through the call.
    retry(|| check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }))
        .map(|count| count as usize)
}

/// `write(2)` on a descriptor known by its number alone (standard output, the log); a closed number is an error.
pub fn write_to(number: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `bytes`, which lives through the call; a number that is not open is EBADF.
    retry(|| check(unsafe { libc::write(number, bytes.as_ptr().cast(), bytes.len()) }))
        .map(|count| count as usize)
}

/// Whether a write of up to `PIPE_BUF` bytes to this number would go through now without blocking.
pub fn is_writable_number(number: RawFd) -> bool {
    let mut entry = libc::pollfd {
        fd: number,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: pointer and count describe the one entry, which lives through the call; one not open is POLLNVAL.
    let count = unsafe { libc::poll(&mut entry, 1, 0) };
    count == 1 && entry.revents & libc::POLLOUT != 0
}

/// Whether the process has a terminal that can hang up on it.
pub fn has_terminal() -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/tty")
        .is_ok()
}

/// For opening what may turn out to be a terminal: it does not become the controlling one (`open(2)`).
pub const O_NOCTTY: i32 = libc::O_NOCTTY;
/// For opening what may turn out to be a FIFO: neither opening nor writing waits for a reader (`open(2)`).
pub const O_NONBLOCK: i32 = libc::O_NONBLOCK;

/// `prlimit`-style raise of the soft limit of open files towards `wanted`, as far as the hard limit goes.
/// Returns the soft limit then in force.
#[allow(clippy::unnecessary_cast)] // The fields are narrower on some 32-bit systems.
pub fn raise_file_limit(wanted: u64) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to one rlimit that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    if (limit.rlim_cur as u64) < wanted {
        let raised = libc::rlimit {
            rlim_cur: (limit.rlim_max as u64).min(wanted) as _,
            ..limit
        };
        // SAFETY: the pointer is to one rlimit that lives through the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            limit = raised;
        }
    }
    limit.rlim_cur as u64
}
