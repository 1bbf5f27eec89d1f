//! Processes: ids, `fork(2)`, sessions, exit statuses, and signals sent through a pidfd where the kernel has one.

use super::signal::Signal;
use super::{check, retry};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process id: never 0 or negative, which `kill(2)` would read as a whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// The id as the kernel gave it.
    pub fn from_raw(raw: i32) -> Option<Pid> {
        NonZeroI32::new(raw).filter(|id| id.get() > 0).map(Pid)
    }

    /// The id as a file gives it: digits for a number above 1, nothing else but white space around them.
    pub fn parse(text: &str) -> Option<Pid> {
        let digits = text.trim_ascii();
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain
            .then(|| digits.parse().ok())
            .flatten()
            .and_then(Pid::from_raw)
            .filter(|pid| !pid.is_init())
    }

    /// This process.
    pub fn own() -> Pid {
        // SAFETY: takes nothing and touches no memory.
        Pid(NonZeroI32::new(unsafe { libc::getpid() }).expect("getpid(2) is never 0"))
    }

    /// Whether it is the first process of its pid namespace.
    pub fn is_init(self) -> bool {
        self.0.get() == 1
    }

    /// The bare number.
    pub fn raw(self) -> i32 {
        self.0.get()
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two sides of a [`fork_single`].
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the id of the new one.
    Parent(Pid),
}

/// `fork(2)`, refused to a process with several threads: a lock that another one holds would stay locked in the
/// child for ever.
pub fn fork_single() -> io::Result<Forked> {
    // Where /proc is not mounted nobody can tell; hade starts no thread in a process that forks.
    if std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) > 1 {
        return Err(io::Error::other(
            "threads were started before; an application starts its own in its boot function",
        ));
    }
    // SAFETY: the process has one thread, so memory and locks are whole in the child too.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent))
}

/// `execve(2)`: this process becomes another program. Unlike std's it leaves the signal mask alone, so that what is
/// blocked stays pending until the new program has its handlers. Returns only the error.
pub fn execute(
    program: &Path,
    args: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Error {
    let string = |bytes: &OsStr| CString::new(bytes.as_bytes());
    let pair = |(name, value): &(OsString, OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
    };
    let program = string(program.as_os_str());
    let args: Result<Vec<CString>, _> = args.iter().map(|arg| string(arg)).collect();
    let environment: Result<Vec<CString>, _> = environment.iter().map(pair).collect();
    let (Ok(program), Ok(args), Ok(environment)) = (program, args, environment) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args_list, environment_list) = (pointers(&args), pointers(&environment));
    // SAFETY: all strings are NUL-terminated, both lists end with a null pointer, and all live through the call.
    unsafe {
        libc::execve(
            program.as_ptr(),
            args_list.as_ptr(),
            environment_list.as_ptr(),
        )
    };
    io::Error::last_os_error()
}

/// Leaves at once, running nothing on the way out: for a forked child, and for a process with threads at work.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: does not return and runs no code of this process.
    unsafe { libc::_exit(i32::from(code)) }
}

/// `setsid(2)`: a session and group of its own, and no controlling terminal.
pub fn setsid() -> io::Result<()> {
    // SAFETY: takes nothing and touches no memory.
    check(unsafe { libc::setsid() }).map(drop)
}

/// `umask(2)`; returns the one before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: takes a number and touches no memory.
    unsafe { libc::umask(mask as libc::mode_t) as u32 }
}

/// The parent process; `None` where it lives in another pid namespace.
pub fn parent() -> Option<Pid> {
    // SAFETY: takes nothing and touches no memory.
    Pid::from_raw(unsafe { libc::getppid() })
}

/// The effective user id.
pub fn euid() -> u32 {
    // SAFETY: takes nothing and touches no memory.
    unsafe { libc::geteuid() }
}

/// Has the kernel kill this process when its parent dies, or no longer: `PR_SET_PDEATHSIG` of `prctl(2)`.
pub fn die_with_parent(on: bool) {
    let signal = if on { libc::SIGKILL } else { 0 };
    // SAFETY: takes numbers and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

/// Takes a variable out of this process's environment, so that no child meets it. For the first moments of a program.
pub fn remove_variable(name: &str) {
    if std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) == 1 {
        // SAFETY: there is one thread, so nobody else reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}

/// Microseconds on CLOCK_MONOTONIC, as `sd_notify(3)` wants them.
pub fn monotonic_micros() -> u64 {
    // SAFETY: timespec is plain integers, for which all zeros is a value.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one timespec that lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exited(status) => write!(f, "exited, status {status}"),
            Ended::Killed(signal) => write!(f, "killed by signal {signal}{}", signal_name(*signal)),
        }
    }
}

fn signal_name(number: i32) -> &'static str {
    match number {
        libc::SIGHUP => " (HUP)",
        libc::SIGINT => " (INT)",
        libc::SIGQUIT => " (QUIT)",
        libc::SIGILL => " (ILL)",
        libc::SIGABRT => " (ABRT)",
        libc::SIGBUS => " (BUS)",
        libc::SIGFPE => " (FPE)",
        libc::SIGKILL => " (KILL)",
        libc::SIGSEGV => " (SEGV)",
        libc::SIGSYS => " (SYS)",
        libc::SIGTERM => " (TERM)",
        libc::SIGXCPU => " (XCPU)",
        _ => "",
    }
}

/// Collects one child that has ended, any child; `None` when there is none at the moment.
pub fn reap() -> Option<(Pid, Ended)> {
    let mut status = 0;
    // SAFETY: the pointer is to an int that lives through the call.
    let pid = retry(|| check(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) })).ok()?;
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    };
    Pid::from_raw(pid).map(|pid| (pid, ended))
}

/// Waits until a child is gone, and collects it.
pub fn wait_child(pid: Pid) {
    // SAFETY: a null status is allowed and means that it is not wanted.
    let _ = retry(|| check(unsafe { libc::waitpid(pid.raw(), std::ptr::null_mut(), 0) }));
}

/// `kill(2)` to one process; for those whose number cannot have been reused: one's own children, and pids that a
/// lock vouches for.
pub fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    // SAFETY: takes two numbers and touches no memory; a `Pid` names one process, never a group.
    check(unsafe { libc::kill(pid.raw(), signal as i32) }).map(drop)
}

/// Whether a process of that id exists, a dead one that nobody has collected yet included. Somebody else's counts.
pub fn exists(pid: Pid) -> bool {
    // SAFETY: signal 0 sends nothing; takes two numbers and touches no memory.
    let result = check(unsafe { libc::kill(pid.raw(), 0) });
    result.map_or_else(|error| error.raw_os_error() == Some(libc::EPERM), |_| true)
}

/// A descriptor that names one process for good, whatever happens to its number: `pidfd_open(2)`, Linux 5.3.
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens it; [`super::is_unsupported`] tells an old kernel by the error.
    pub fn open(pid: Pid) -> io::Result<PidFd> {
        // SAFETY: takes two numbers and touches no memory.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.raw(), 0) })?;
        // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// `pidfd_send_signal(2)`.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null info is allowed and means what kill(2) would send.
        check(unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as i32,
                no_info,
                0,
            )
        })
        .map(drop)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the process is a dead one that its parent has not collected: state Z or X in `/proc/PID/stat`, `proc(5)`.
pub fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state is in brackets and may itself hold brackets and blanks.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}
