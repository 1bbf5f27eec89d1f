//! Into the background, by hand: fork, a session of its own, umask 027, nothing left of the caller's signals,
//! terminal and descriptors. `daemon(7)` has the list. What is done in there is not this file's business.
#![forbid(unsafe_code)]

use crate::readiness::{self, Reporter, Waiter};
use crate::stdio;
use crate::sys::fd::{self, Standard};
use crate::sys::process::{self, Forked, Pid};
use crate::sys::{inherited, signal};
use std::io::{self, Write};
use std::os::fd::AsFd;

/// The mask of the modes of what a daemon makes.
const UMASK: u32 = 0o027;

/// The two processes after [`detach`].
pub enum Side {
    /// The caller's, which waits for the other's word.
    Launcher(Waiter, Pid),
    /// The background one. Standard output and error are still the caller's: see [`crate::stdio::redirect`].
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
            inherited::close_unclaimed();
            process::umask(UMASK);
            // The forked child leads no group yet, which is the one thing that setsid(2) asks for.
            process::setsid()?;
            fd::redirect(Standard::Input, stdio::nothing()?.as_fd())?;
            Ok(Side::Daemon(reporter))
        }
    }
}
