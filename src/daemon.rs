//! Into the background, by hand: fork, a session of its own, umask 027, nothing left of the caller's signals,
//! terminal and descriptors. `daemon(7)` has the list. What is done in there is not this file's business.
#![forbid(unsafe_code)]

use crate::readiness::{self, Reporter, Waiter};
use crate::sys::process::{self, Forked, Pid};
use crate::sys::{fd, signal};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;

/// The mask of the modes of what a daemon makes.
const UMASK: u32 = 0o027;

/// The two processes after [`detach`].
pub enum Side {
    /// The caller's, which waits for the other's word.
    Launcher(Waiter, Pid),
    /// The background one. Standard output and error are still the caller's: see [`redirect`].
    Daemon(Reporter),
}

/// Forks. The process must have one thread. What it inherited and did not make its own is closed in the daemon.
pub fn detach() -> io::Result<Side> {
    let (waiter, reporter) = readiness::pipe()?;
    // What is buffered would be written by both.
    let _ = io::stdout().flush();
    match process::fork_single()? {
        Forked::Parent(pid) => Ok(Side::Launcher(waiter, pid)),
        Forked::Child => {
            drop(waiter);
            signal::reset_all();
            fd::close_inherited();
            process::umask(UMASK);
            // The forked child leads no group yet, which is the one thing that setsid(2) asks for.
            process::setsid()?;
            let null = File::open("/dev/null")?;
            fd::dup2(null.as_fd(), 0)?;
            Ok(Side::Daemon(reporter))
        }
    }
}

/// Gives standard output and error to the log, or to /dev/null without one.
pub fn redirect(log: Option<&File>) -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    let to = log.unwrap_or(&null);
    fd::dup2(to.as_fd(), 1)?;
    fd::dup2(to.as_fd(), 2)
}
