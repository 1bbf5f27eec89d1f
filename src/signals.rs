//! Signals as named events: what each one means, in one table, a self-pipe to poll on, and a count of each. The handler
//! itself is in `sys/signal.rs`.
#![forbid(unsafe_code)]

use crate::log;
use crate::sys::atomic::AtomicU64;
use crate::sys::fd;
use crate::sys::signal::{self, Signal};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;

/// What a signal means to a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Finish what is in flight and leave; once more, and it leaves at once.
    Leave,
    /// Restart in place. A hang-up may mean that the terminal is gone.
    Restart,
    /// Open the log anew.
    Reopen,
    /// A child is gone.
    Reap,
    /// Nothing, and once in a process's life it says so: a timer, a limit or a terminal of somebody else's.
    Nothing,
    /// Nothing, for the call that brought it fails, which is news enough.
    Error,
    /// It is the kernel's to carry out, whoever it is sent to.
    Fate,
}

/// The table. What is not in it keeps its default action.
pub fn meaning(signal: Signal) -> Meaning {
    match signal {
        // Init systems that go down send PWR; RTMIN+3 is how systemd, and Podman for it, have a container stop.
        Signal::Term | Signal::Int | Signal::Quit | Signal::Power | Signal::RealTime(3) => {
            Meaning::Leave
        }
        Signal::Hup | Signal::Usr2 => Meaning::Restart,
        Signal::Usr1 => Meaning::Reopen,
        Signal::Child => Meaning::Reap,
        Signal::Alarm
        | Signal::VirtualAlarm
        | Signal::Profile
        | Signal::Io
        | Signal::CpuTime
        | Signal::TerminalInput
        | Signal::TerminalOutput
        | Signal::RealTime(_) => Meaning::Nothing,
        Signal::Pipe | Signal::FileSize => Meaning::Error,
        Signal::Kill | Signal::Continue => Meaning::Fate,
    }
}

/// Signals said to mean nothing, by their place in [`Signal::all`].
static SAID: AtomicU64 = AtomicU64::new(0);

/// The pipe that wakes a loop when a signal came in.
pub struct SelfPipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Catches what a master catches, long before it has a loop to wake: until [`SelfPipe::of_master`] it is counted. A
/// hang-up that whoever started this process has ignored, as `nohup(1)` does, stays so.
pub fn catch_early() -> io::Result<()> {
    let hang_up_is_ignored = signal::is_ignored(Signal::Hup);
    for signal in Signal::all().filter(|signal| *signal != Signal::Hup || !hang_up_is_ignored) {
        catch(signal)?;
    }
    Ok(())
}

fn catch(signal: Signal) -> io::Result<()> {
    match meaning(signal) {
        Meaning::Fate => Ok(()),
        // std ignores it too, and gives it back its default action in the programs it starts.
        Meaning::Error if signal == Signal::Pipe => signal::ignore(signal),
        Meaning::Error => signal::let_pass(signal),
        // Who runs this may keep one of these to itself, as valgrind does.
        Meaning::Nothing if matches!(signal, Signal::RealTime(_)) => {
            let _ = signal::catch(signal);
            Ok(())
        }
        _ => signal::catch(signal),
    }
}

impl SelfPipe {
    /// Catches the signals of a master from here on. One per process. Behind an exec the pipe is that of before, which
    /// is there whatever the limit of descriptors.
    pub fn of_master(before: Option<(OwnedFd, OwnedFd)>) -> io::Result<SelfPipe> {
        let pipe = match before {
            Some((read, write)) => SelfPipe::with(read, write),
            None => SelfPipe::new()?,
        };
        catch_early()?;
        Ok(pipe)
    }

    /// For a child forked by a master, whose handlers it has, where only TERM is news: what else reaches a whole process
    /// group is for the master to decide, and a worker must not die of it. What was caught before was meant for the master.
    pub fn of_worker() -> io::Result<SelfPipe> {
        let pipe = SelfPipe::new()?;
        signal::reset(Signal::Child);
        signal::forget_all();
        SAID.store(0, Relaxed);
        Ok(pipe)
    }

    fn new() -> io::Result<SelfPipe> {
        let (read, write) = fd::pipe_nonblocking()?;
        Ok(SelfPipe::with(read, write))
    }

    fn with(read: OwnedFd, write: OwnedFd) -> SelfPipe {
        signal::set_pipe(&write);
        SelfPipe { read, write }
    }

    /// Both ends, which an exec hands over: read end, write end.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.read.as_raw_fd(), self.write.as_raw_fd()]
    }

    /// Empties the pipe. First this, then [`take`]: what comes in between wakes the next poll.
    pub fn drain(&self) {
        signal::drain(&self.read);
    }
}

impl AsFd for SelfPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// What came in with this meaning since it was last asked for; a signal that came twice is there twice.
pub fn take(wanted: Meaning) -> Vec<Signal> {
    Signal::all()
        .filter(|signal| meaning(*signal) == wanted)
        .flat_map(|signal| std::iter::repeat_n(signal, signal::take(signal) as usize))
        .collect()
}

/// Says of those that mean nothing what came in, once each.
pub fn say_what_means_nothing() {
    for (place, signal) in Signal::all().enumerate() {
        let came = meaning(signal) == Meaning::Nothing && signal::take(signal) > 0;
        let bit = 1 << place;
        if came && SAID.fetch_or(bit, Relaxed) & bit == 0 {
            log::warn(format_args!(
                "signal {signal}: means nothing here; ignored, and not said again"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_a_name_and_real_time_signals_are_counted_as_those_who_send_them_do() {
        let names: Vec<String> = Signal::all().map(|signal| signal.to_string()).collect();
        assert_eq!(names[..3], ["HUP", "INT", "QUIT"]);
        for name in ["PWR", "XFSZ", "RTMIN+1", "RTMIN+3", "RTMIN+30"] {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
        assert!(names.iter().all(|name| !name.is_empty()) && names.len() <= 64);
        assert_eq!(meaning(Signal::RealTime(3)), Meaning::Leave);
        assert_eq!(meaning(Signal::RealTime(4)), Meaning::Nothing);
    }
}
