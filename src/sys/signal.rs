//! Signal dispositions and masks, and the handler of the self-pipe: it counts the signal, writes one byte, and
//! leaves `errno` as it found it (`signal-safety(7)`).

use super::{check, fd};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// The signals hade has a use for, or a word. Not among them: those of real faults (SEGV, BUS, ILL, FPE, ABRT, SYS,
/// TRAP), those of job control and the terminal's size, and the real-time signals that the C library keeps to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Kill,
    Usr1,
    Usr2,
    Pipe,
    Alarm,
    Term,
    Child,
    TerminalInput,
    TerminalOutput,
    CpuTime,
    FileSize,
    VirtualAlarm,
    Profile,
    Io,
    Power,
    Continue,
    /// The one so far behind [`FIRST_REAL_TIME`].
    RealTime(u8),
}

/// What those who send `RTMIN+3` count from, whatever C library this is made with: glibc, systemd, Docker and Podman all
/// do. In musl `SIGRTMIN` is 35.
const FIRST_REAL_TIME: i32 = 34;

/// Those with a number of their own, and the name that `kill(1)` knows them by.
const NAMED: [(Signal, i32, &str); 19] = [
    (Signal::Hup, libc::SIGHUP, "HUP"),
    (Signal::Int, libc::SIGINT, "INT"),
    (Signal::Quit, libc::SIGQUIT, "QUIT"),
    (Signal::Kill, libc::SIGKILL, "KILL"),
    (Signal::Usr1, libc::SIGUSR1, "USR1"),
    (Signal::Usr2, libc::SIGUSR2, "USR2"),
    (Signal::Pipe, libc::SIGPIPE, "PIPE"),
    (Signal::Alarm, libc::SIGALRM, "ALRM"),
    (Signal::Term, libc::SIGTERM, "TERM"),
    (Signal::Child, libc::SIGCHLD, "CHLD"),
    (Signal::TerminalInput, libc::SIGTTIN, "TTIN"),
    (Signal::TerminalOutput, libc::SIGTTOU, "TTOU"),
    (Signal::CpuTime, libc::SIGXCPU, "XCPU"),
    (Signal::FileSize, libc::SIGXFSZ, "XFSZ"),
    (Signal::VirtualAlarm, libc::SIGVTALRM, "VTALRM"),
    (Signal::Profile, libc::SIGPROF, "PROF"),
    (Signal::Io, libc::SIGIO, "IO"),
    (Signal::Power, libc::SIGPWR, "PWR"),
    (Signal::Continue, libc::SIGCONT, "CONT"),
];

/// What has a name and no use.
const FAULTS: [(i32, &str); 7] = [
    (libc::SIGILL, "ILL"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGBUS, "BUS"),
    (libc::SIGFPE, "FPE"),
    (libc::SIGSEGV, "SEGV"),
    (libc::SIGSYS, "SYS"),
];

impl Signal {
    /// Every one of them.
    pub fn all() -> impl Iterator<Item = Signal> {
        // The C library takes the first ones away for itself.
        let spare = libc::SIGRTMIN().max(FIRST_REAL_TIME)..=libc::SIGRTMAX();
        NAMED
            .iter()
            .map(|(signal, ..)| *signal)
            .chain(spare.map(|number| Signal::RealTime((number - FIRST_REAL_TIME) as u8)))
    }

    pub(super) fn number(self) -> i32 {
        match self {
            Signal::RealTime(offset) => FIRST_REAL_TIME + i32::from(offset),
            _ => NAMED
                .iter()
                .find_map(|(signal, number, _)| (*signal == self).then_some(*number))
                .unwrap_or(0),
        }
    }
}

/// As `kill(1)` knows it: `TERM`, `RTMIN+3`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self.number()).unwrap_or_default())
    }
}

/// The name of a signal's number, if it has one.
pub(super) fn name(number: i32) -> Option<Cow<'static, str>> {
    let named = NAMED.iter().map(|(_, number, name)| (*number, *name));
    let found = named
        .chain(FAULTS)
        .find_map(|(known, name)| (known == number).then_some(name));
    let real_time = || {
        let offset = number - FIRST_REAL_TIME;
        (offset >= 0).then(|| format!("RTMIN+{offset}").into())
    };
    found.map(Cow::from).or_else(real_time)
}

/// How often each signal came since it was last asked for. A full pipe loses no news: it stands here.
static CAUGHT: [AtomicU32; 129] = [const { AtomicU32::new(0) }; 129];
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(number: libc::c_int) {
    // SAFETY: the location of errno is valid for the running thread.
    let errno = unsafe { *libc::__errno_location() };
    if let Some(count) = CAUGHT.get(number as usize) {
        count.fetch_add(1, Ordering::SeqCst);
    }
    if matches!(number, libc::SIGTTIN | libc::SIGTTOU) {
        // The call that brought it is made again when the handler is over, and would bring it again, for ever. Only
        // where it is ignored may a process in the background write to its terminal.
        let _ = set(number, libc::SIG_IGN);
    }
    // SAFETY: write(2) is async-signal-safe, the byte is static, and the pipe does not block.
    unsafe { libc::write(PIPE.load(Ordering::SeqCst), c"!".as_ptr().cast(), 1) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// For what is nothing but an error of the call that brought it. Unlike with an ignored signal, the programs that this
/// process executes start with its default action.
extern "C" fn pass(_: libc::c_int) {}

/// Makes the handler write to this pipe, which must be non-blocking and stay open as long as handlers are installed.
/// What was caught before wakes its first poll.
pub fn set_pipe(write_end: &OwnedFd) {
    PIPE.store(write_end.as_raw_fd(), Ordering::SeqCst);
    if CAUGHT.iter().any(|count| count.load(Ordering::SeqCst) > 0) {
        use std::os::fd::AsFd;
        let _ = fd::write(write_end.as_fd(), b"!");
    }
}

/// Takes the count of one signal since the last call.
pub fn take(signal: Signal) -> u32 {
    CAUGHT[signal.number() as usize].swap(0, Ordering::SeqCst)
}

fn set(number: i32, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: sigaction is plain data for which all zeros is a value; the mask is then filled.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the pointer is to the mask inside `action`.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    // SAFETY: `action` is filled in and lives through the call; the old one is not asked for.
    check(unsafe { libc::sigaction(number, &action, std::ptr::null_mut()) }).map(drop)
}

/// Catches a signal with the self-pipe's handler: SA_RESTART, everything else masked meanwhile.
pub fn catch(signal: Signal) -> io::Result<()> {
    set(
        signal.number(),
        note as extern "C" fn(libc::c_int) as libc::sighandler_t,
    )
}

/// Catches a signal and does nothing, which leaves its default action to the programs executed by this one.
pub fn let_pass(signal: Signal) -> io::Result<()> {
    set(
        signal.number(),
        pass as extern "C" fn(libc::c_int) as libc::sighandler_t,
    )
}

/// Ignores a signal.
pub fn ignore(signal: Signal) -> io::Result<()> {
    set(signal.number(), libc::SIG_IGN)
}

/// Gives a signal its default action.
pub fn reset(signal: Signal) {
    let _ = set(signal.number(), libc::SIG_DFL);
}

/// Sends what was caught and not yet taken once more: blocked, it stays pending across an `execve(2)`, where the
/// counts would be lost.
pub fn send_again() {
    for (number, count) in CAUGHT.iter().enumerate() {
        if count.swap(0, Ordering::SeqCst) > 0 {
            // SAFETY: takes two numbers and touches no memory; the signal is for this process alone.
            unsafe { libc::kill(libc::getpid(), number as i32) };
        }
    }
}

/// Counts a signal as if it had come, for one that may have come while nobody listened.
pub fn note_again(signal: Signal) {
    note(signal.number());
}

/// Forgets what was caught so far: in a forked child it was meant for the parent.
pub fn forget_all() {
    for count in &CAUGHT {
        count.store(0, Ordering::SeqCst);
    }
}

/// Whether the caller was started with this signal ignored, as `nohup(1)` does.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction is plain data for which all zeros is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the old action into one that lives through the call.
    unsafe {
        libc::sigaction(signal.number(), std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Gives every signal its default action and empties the mask, whatever the caller's were; SIGPIPE stays ignored.
pub fn reset_all() {
    for number in 1..=libc::SIGRTMAX() {
        // Fails for KILL, STOP and those that libc keeps to itself; there is nothing to reset on these.
        let _ = set(number, libc::SIG_DFL);
    }
    let _ = ignore(Signal::Pipe);
    unblock_all();
}

fn mask(how: i32, full: bool) {
    // SAFETY: sigset_t is plain data for which all zeros is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to `set`, which lives through both calls.
    unsafe {
        if full {
            libc::sigfillset(&mut set)
        } else {
            libc::sigemptyset(&mut set)
        };
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// Blocks every signal in the calling thread and in those it will start.
pub fn block_all() {
    mask(libc::SIG_SETMASK, true);
}

/// Unblocks every signal in the calling thread.
pub fn unblock_all() {
    mask(libc::SIG_SETMASK, false);
}

/// Empties the self-pipe. To be done before the counts are taken: whatever comes in between wakes the next poll.
pub fn drain(read_end: &OwnedFd) {
    use std::os::fd::AsFd;
    let mut bytes = [0; 64];
    while matches!(fd::read(read_end.as_fd(), &mut bytes), Ok(count) if count > 0) {}
}
