//! Descriptors: pipes, close-on-exec, duplication, `poll(2)`, and writing without waiting.

pub use super::inherited::adopt;
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

/// The three numbers that every program has and nobody owns.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Standard {
    Input = 0,
    Output = 1,
    Error = 2,
}

/// `dup2(2)`: a standard descriptor names what `from` names, and is inherited across `execve(2)`.
pub fn redirect(standard: Standard, from: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes two numbers and touches no memory; the standard three are owned by nobody, so that nobody finds
    // his own replaced.
    retry(|| check(unsafe { libc::dup2(from.as_raw_fd(), standard as RawFd) })).map(drop)
}

/// `dup3(2)` with close-on-exec: `to` names what `from` names, in one step, so that nobody writes into a gap.
pub fn replace(to: &impl AsFd, from: BorrowedFd<'_>) -> io::Result<()> {
    let number = to.as_fd().as_raw_fd();
    // SAFETY: takes numbers and touches no memory; the number stays open, and its owner's.
    retry(|| check(unsafe { libc::dup3(from.as_raw_fd(), number, libc::O_CLOEXEC) })).map(drop)
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

/// Whether a descriptor of this number is open.
pub fn is_open_number(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory, and a number that is not open is an error and nothing more.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Opens a file or directory without reading it: to execute it or to enter it later, whatever its name leads to then
/// (`O_PATH` of `open(2)`).
pub fn open_path(path: &std::path::Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .map(OwnedFd::from)
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

/// What a descriptor leads to, as far as it matters to those who write there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, and how long it is.
    File(u64),
    /// A socket.
    Socket,
    /// A pipe, FIFO or terminal.
    Stream,
    /// Anything else, or nothing.
    Other,
}

/// What a number leads to.
pub fn kind(number: RawFd) -> Kind {
    // SAFETY: stat is plain integers, for which all zeros is a value.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one stat that lives through the call; a number that is not open is EBADF.
    if unsafe { libc::fstat(number, &mut found) } != 0 {
        return Kind::Other;
    }
    match found.st_mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File(found.st_size as u64),
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFIFO => Kind::Stream,
        libc::S_IFCHR if is_terminal(number) => Kind::Stream,
        _ => Kind::Other,
    }
}

/// Writes to a number and does not wait for room; what takes nothing now is an error. A stream that was not opened for
/// that, as [`open_anew`] does, may still fill up between the question and the write.
pub fn write_without_waiting(number: RawFd, kind: Kind, bytes: &[u8]) -> io::Result<usize> {
    let (start, length) = (bytes.as_ptr().cast(), bytes.len());
    if kind == Kind::Socket {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: pointer and length describe `bytes`, which lives through the call; a number not open is EBADF.
        return retry(|| check(unsafe { libc::send(number, start, length, flags) }))
            .map(|count| count as usize);
    }
    let mut entry = libc::pollfd {
        fd: number,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: pointer and count describe the one entry, which lives through the call; one not open is POLLNVAL.
    let count = unsafe { libc::poll(&mut entry, 1, 0) };
    if count != 1 || entry.revents & libc::POLLOUT == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // SAFETY: as for `send`.
    retry(|| check(unsafe { libc::write(number, start, length) })).map(|count| count as usize)
}

/// Opens the pipe, FIFO or terminal behind a number anew for writing, so that this does not wait and nobody who shares
/// the old descriptor notices (`proc(5)`, `/proc/PID/fd`). Nothing else can be, or need be, opened so.
pub fn open_anew(number: RawFd) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    if kind(number) != Kind::Stream {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(format!("/proc/self/fd/{number}"))
        .map(OwnedFd::from)
}

/// [`write_without_waiting`], whatever the number leads to: a stream is opened anew for it.
pub fn write_at_once(number: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let anew = open_anew(number).ok();
    let number_now = anew.as_ref().map_or(number, AsRawFd::as_raw_fd);
    write_without_waiting(number_now, kind(number), bytes)
}

/// Whether a regular file, which need not be open for reading, ends with a line that nobody ends; `None` where that
/// cannot be found out. What another process appends at this moment may be seen by halves, where it crosses a page: it
/// is given time.
pub fn ends_amid_line(number: RawFd) -> Option<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(format!("/proc/self/fd/{number}")).ok()?;
    for _ in 0..10 {
        let mut byte = [0];
        file.seek(SeekFrom::End(-1)).ok()?;
        file.read_exact(&mut byte).ok()?;
        if byte == *b"\n" {
            return Some(false);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Some(true)
}

/// Whether the process has a terminal: the one that controls it or, where `/dev/tty` is missing, one of the standard
/// three descriptors. One that has hung up does not count; where nobody can tell there is one.
pub fn has_terminal() -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open("/dev/tty");
    match opened.map_err(|error| error.raw_os_error()) {
        Ok(_) => true,
        Err(Some(libc::ENXIO | libc::EIO)) => false,
        Err(Some(libc::ENOENT | libc::EACCES | libc::ENODEV)) => (0..3).any(is_terminal),
        Err(_) => true,
    }
}

/// Whether a number names a terminal that has not hung up.
pub fn is_terminal(number: RawFd) -> bool {
    // SAFETY: termios is plain integers, for which all zeros is a value.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one termios that lives through the call; one not open is EBADF.
    unsafe { libc::tcgetattr(number, &mut settings) == 0 }
}

/// For opening what may turn out to be a terminal: it does not become the controlling one (`open(2)`).
pub const O_NOCTTY: i32 = libc::O_NOCTTY;
/// For opening what may turn out to be a FIFO: neither opening nor writing waits for a reader (`open(2)`).
pub const O_NONBLOCK: i32 = libc::O_NONBLOCK;
/// For opening what somebody else may have put there: a symbolic link is an error (`open(2)`).
pub const O_NOFOLLOW: i32 = libc::O_NOFOLLOW;

/// The limits of open files, soft and hard; what is common where the kernel does not tell.
fn file_limit() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 1024,
    };
    // SAFETY: the pointer is to one rlimit that lives through the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit
}

/// How far the soft limit of open files can be raised.
#[allow(clippy::unnecessary_cast)] // The fields are narrower on some 32-bit systems.
pub fn hard_file_limit() -> u64 {
    file_limit().rlim_max as u64
}

/// `prlimit`-style raise of the soft limit of open files towards `wanted`, as far as the hard limit goes.
/// Returns the soft limit then in force.
#[allow(clippy::unnecessary_cast)] // As above.
pub fn raise_file_limit(wanted: u64) -> u64 {
    let mut limit = file_limit();
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
