//! Signal dispositions and masks, and the handler of the self-pipe: it counts the signal, writes one byte, and
//! leaves `errno` as it found it (`signal-safety(7)`).

use super::{check, fd};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// The signals hade has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Signal {
    Hup = libc::SIGHUP,
    Int = libc::SIGINT,
    Quit = libc::SIGQUIT,
    Kill = libc::SIGKILL,
    Usr1 = libc::SIGUSR1,
    Pipe = libc::SIGPIPE,
    Term = libc::SIGTERM,
    Child = libc::SIGCHLD,
}

/// How often each signal came since it was last asked for. A full pipe loses no news: it stands here.
static CAUGHT: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(number: libc::c_int) {
    // SAFETY: the location of errno is valid for the running thread.
    let errno = unsafe { *libc::__errno_location() };
    if let Some(count) = CAUGHT.get(number as usize) {
        count.fetch_add(1, Ordering::SeqCst);
    }
    // SAFETY: write(2) is async-signal-safe, the byte is static, and the pipe does not block.
    unsafe { libc::write(PIPE.load(Ordering::SeqCst), c"!".as_ptr().cast(), 1) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Makes the handler write to this pipe, which must be non-blocking and stay open as long as handlers are installed.
pub fn set_pipe(write_end: &OwnedFd) {
    PIPE.store(write_end.as_raw_fd(), Ordering::SeqCst);
}

/// Takes the count of one signal since the last call.
pub fn take(signal: Signal) -> u32 {
    CAUGHT[signal as usize].swap(0, Ordering::SeqCst)
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
        signal as i32,
        note as extern "C" fn(libc::c_int) as libc::sighandler_t,
    )
}

/// Ignores a signal.
pub fn ignore(signal: Signal) -> io::Result<()> {
    set(signal as i32, libc::SIG_IGN)
}

/// Gives a signal its default action.
pub fn reset(signal: Signal) {
    let _ = set(signal as i32, libc::SIG_DFL);
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
    note(signal as i32);
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
        libc::sigaction(signal as i32, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Gives every signal its default action and empties the mask, whatever the caller's were; SIGPIPE stays ignored.
pub fn reset_all() {
    for number in 1..=64 {
        // Fails for KILL, STOP and the two that libc keeps to itself; there is nothing to reset on these.
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
