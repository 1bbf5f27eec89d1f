//! Processes: ids, `fork(2)`, sessions, exit statuses, and signals sent through a pidfd where the kernel has one.

use super::signal::{self, Signal};
use super::{check, inherited, retry};
use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    // Where /proc is not mounted nobody can tell for sure; hade starts no thread in a process that forks.
    if !inherited::is_single_threaded() {
        return Err(io::Error::other(
            "threads were started before; an application starts its own in its boot function",
        ));
    }
    // SAFETY: the program has one thread, so memory and locks are whole in the child too.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent))
}

/// What is to be executed.
#[derive(Debug, Clone, Copy)]
pub enum Executable<'a> {
    /// The file of this name.
    Path(&'a Path),
    /// The file that is open here, whatever has its name by now.
    File(BorrowedFd<'a>),
}

/// `execve(2)`: this process becomes another program, with an environment of `NAME=value`. Unlike std's it leaves the
/// signal mask alone, so that what is blocked stays pending until the new program has its handlers. An open file is
/// executed by `execveat(2)`, or before Linux 3.19 by its name in /proc. Returns only the error.
pub fn execute(
    executable: Executable<'_>,
    args: &[OsString],
    environment: &[OsString],
) -> io::Error {
    let string = |bytes: &OsString| CString::new(bytes.as_bytes());
    let args: Result<Vec<CString>, _> = args.iter().map(string).collect();
    let environment: Result<Vec<CString>, _> = environment.iter().map(string).collect();
    let path = match executable {
        Executable::Path(path) => CString::new(path.as_os_str().as_bytes()),
        Executable::File(fd) => CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())),
    };
    let (Ok(path), Ok(args), Ok(environment)) = (path, args, environment) else {
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
    if let Executable::File(fd) = executable {
        // SAFETY: all strings are NUL-terminated, both lists end with a null pointer, and all live through the call.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd.as_raw_fd(),
                c"".as_ptr(),
                args_list.as_ptr(),
                environment_list.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        let error = io::Error::last_os_error();
        // A sandbox of before 3.19 may say EPERM of what it does not know.
        if !super::is_unsupported(&error) && error.raw_os_error() != Some(libc::EPERM) {
            return error;
        }
    }
    // SAFETY: as above.
    unsafe { libc::execve(path.as_ptr(), args_list.as_ptr(), environment_list.as_ptr()) };
    io::Error::last_os_error()
}

/// The path by which this program was executed, as the kernel keeps it for the program itself: `AT_EXECFN` of
/// `getauxval(3)`, which needs no `/proc`. `None` on kernels before 2.6.27.
pub fn executed_path() -> Option<PathBuf> {
    // SAFETY: takes a number and touches no memory.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    // SAFETY: if it is not null it points to a NUL-terminated string that the kernel has put above the stack.
    let path = (!address.is_null()).then(|| unsafe { CStr::from_ptr(address) })?;
    Some(OsStr::from_bytes(path.to_bytes()).into())
}

/// `fchdir(2)`: makes an open directory the working directory.
pub fn enter(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a number and touches no memory.
    check(unsafe { libc::fchdir(directory.as_raw_fd()) }).map(drop)
}

/// The beginning of `/proc/PID/status` (`proc(5)`), in one read: its lists come last, and may be long.
fn status(pid: Pid, buffer: &mut [u8; 1024]) -> io::Result<Cow<'_, str>> {
    let mut file = std::fs::File::open(format!("/proc/{pid}/status"))?;
    let length = retry(|| io::Read::read(&mut file, buffer))?;
    Ok(String::from_utf8_lossy(&buffer[..length]))
}

/// Whether somebody traces the process, a debugger most likely: `TracerPid` of `proc(5)`.
pub fn is_traced(pid: Pid) -> bool {
    let mut buffer = [0; 1024];
    let status = status(pid, &mut buffer).unwrap_or_default();
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
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

/// The effective group id.
pub fn egid() -> u32 {
    // SAFETY: takes nothing and touches no memory.
    unsafe { libc::getegid() }
}

/// The effective user of a process, from `/proc/PID/status` (`proc(5)`; the owner of `/proc/PID` is root's for one that
/// may not be dumped). `None` where there is no such process, or it may not be seen; an error where that is not known.
pub fn user_of(pid: Pid) -> io::Result<Option<u32>> {
    let mut buffer = [0; 1024];
    let status = match status(pid, &mut buffer) {
        Ok(status) => status,
        Err(error)
            if super::is_errno(&error, super::Errno::NoSuchProcess)
                || matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            let text = format!("/proc/{pid}/status: {error}");
            return Err(io::Error::new(error.kind(), text));
        }
    };
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Ok(line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok()))
}

/// Has the kernel send this process a signal when its parent dies: `PR_SET_PDEATHSIG` of `prctl(2)`.
pub fn signal_at_death_of_parent(signal: Option<Signal>) {
    let signal = signal.map_or(0, Signal::number);
    // SAFETY: takes numbers and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

/// Takes a variable out of this process's environment, so that no child meets it. For the first moments of a program.
pub fn remove_variable(name: &str) {
    if inherited::is_single_threaded() {
        // SAFETY: there is one thread of this program, so nobody else reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// By KILL, which the process cannot have sent to itself by a fault.
    pub fn is_killed(self) -> bool {
        self == Ended::Killed(libc::SIGKILL)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exited(status) => write!(f, "exited, status {status}"),
            Ended::Killed(signal) => match signal::name(*signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
        }
    }
}

/// A child that has ended and was not collected, any child; `None` when there is none at the moment. Its number stays its
/// own until [`collect`]: `waitid(2)` with WNOWAIT.
pub fn ended_child() -> Option<Pid> {
    // SAFETY: siginfo_t is plain data, for which all zeros is a value: no child.
    let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to one siginfo_t that lives through the call.
    retry(|| check(unsafe { libc::waitid(libc::P_ALL, 0, &mut found, options) })).ok()?;
    // SAFETY: the call filled it in for a child, or left the zeros.
    Pid::from_raw(unsafe { found.si_pid() })
}

/// Collects a child that has ended.
pub fn collect(child: Pid) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: the pointer is to an int that lives through the call.
    let pid = retry(|| check(unsafe { libc::waitpid(child.raw(), &mut status, libc::WNOHANG) }));
    if pid.ok()? != child.raw() {
        return None;
    }
    Some(if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    })
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
    check(unsafe { libc::kill(pid.raw(), signal.number()) }).map(drop)
}

/// `kill(2)` to the process group that a child of this process leads, or led until it was collected a moment ago: nobody
/// else can have its number before that, or while anybody is in the group.
pub fn kill_group(leader: Pid, signal: Signal) -> io::Result<()> {
    // SAFETY: takes two numbers and touches no memory. A `Pid` is above 0, so that this names one group.
    check(unsafe { libc::kill(-leader.raw(), signal.number()) }).map(drop)
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
                signal.number(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_process_whose_name_is_no_text_is_known() {
        // A thread has a name and a number of its own, and a place in /proc by it.
        let thread = std::thread::spawn(|| {
            // SAFETY: the name ends with NUL, and is copied by the call.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"\xff\xfe".as_ptr()) };
            // SAFETY: takes nothing and touches no memory.
            Pid::from_raw(unsafe { libc::syscall(libc::SYS_gettid) } as i32).map(user_of)
        });
        let user = thread.join().unwrap().expect("a number");
        assert_eq!(user.unwrap(), Some(euid()));
    }
}
