//! Signals as named events: a self-pipe to poll on, and a count of each. The handler itself is in `sys/signal.rs`.
#![forbid(unsafe_code)]

use crate::sys::fd;
use crate::sys::signal::{self, Signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The pipe that wakes a loop when a signal came in.
pub struct SelfPipe {
    read: OwnedFd,
    _write: OwnedFd,
}

impl SelfPipe {
    /// Catches these signals from here on. One per process; a forked child makes its own.
    pub fn new(signals: &[Signal]) -> io::Result<SelfPipe> {
        let (read, write) = fd::pipe_nonblocking()?;
        signal::set_pipe(&write);
        signal::ignore(Signal::Pipe)?;
        for signal in signals {
            signal::catch(*signal)?;
        }
        Ok(SelfPipe {
            read,
            _write: write,
        })
    }

    /// Empties the pipe. First this, then [`signal::take`]: what comes in between wakes the next poll.
    pub fn drain(&self) {
        signal::drain(&self.read);
    }
}

impl AsFd for SelfPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}
