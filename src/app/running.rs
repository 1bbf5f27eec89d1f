//! The running master as the commands see it: found by its lock, named by a pidfd, signalled and waited for without
//! ever meeting a stranger under a reused number. Kernels before 5.3 have no pidfd: there the lock is asked again.
#![forbid(unsafe_code)]

use super::who;
use crate::error::{Error, Result};
use crate::pidfile::Runs;
use crate::settings::{Overrides, Settings};
use crate::sys::fd::{self, Wait};
use crate::sys::process::{self, Pid, PidFd};
use crate::sys::signal::Signal;
use crate::sys::{self, Errno, is_errno};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How often an old kernel is asked.
const STEP: Duration = Duration::from_millis(10);

/// A master that held the lock after the descriptor on it was opened: it is meant, and nobody else.
pub struct Running<'a> {
    settings: &'a Settings,
    pub pid: Pid,
    fd: Option<PidFd>,
}

impl<'a> Running<'a> {
    /// Takes hold of the process that was found to run; `None` when it is gone by now.
    pub fn open(settings: &'a Settings, runs: Runs) -> Result<Option<Running<'a>>> {
        let (Runs::Master(pid) | Runs::ByNumber(pid)) = runs else {
            return Ok(None);
        };
        let fd = match PidFd::open(pid) {
            Ok(fd) => Some(fd),
            Err(error) if is_errno(&error, Errno::NoSuchProcess) => return Ok(None),
            // An old kernel, or a sandbox that does not know the call.
            Err(error) if sys::is_unsupported(&error) || is_errno(&error, Errno::NotPermitted) => {
                None
            }
            Err(error) => return Err(Error::failed(format!("cannot watch pid {pid}: {error}"))),
        };
        // The descriptor names one process for good. Does it name the one that holds the lock?
        Ok((who(settings)? == runs).then_some(Running { settings, pid, fd }))
    }

    /// Sends a signal. A process that is gone by now is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let sent = match &self.fd {
            Some(fd) => match fd.send(signal) {
                Err(error) if sys::is_unsupported(&error) => process::kill(self.pid, signal),
                sent => sent,
            },
            None => process::kill(self.pid, signal),
        };
        match sent {
            Err(error) if !is_errno(&error, Errno::NoSuchProcess) => {
                let hint = if is_errno(&error, Errno::NotPermitted) {
                    "; it runs as another user"
                } else {
                    ""
                };
                Err(Error::failed(format!(
                    "cannot signal pid {}: {error}{hint}",
                    self.pid
                )))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the process is gone, collected by its parent or not; false when the time is up before.
    pub fn wait_gone(&self, timeout: Duration) -> Result<bool> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let gone = match &self.fd {
                Some(fd) => readable_within(fd, left).map_err(|error| {
                    Error::failed(format!("cannot wait for pid {}: {error}", self.pid))
                })?,
                None => {
                    // A dead process still answers signal 0 until its parent collects it, but holds no lock.
                    let gone = !process::exists(self.pid)
                        || process::is_zombie(self.pid)
                        || matches!(who(self.settings)?, Runs::Nobody(_));
                    if !gone {
                        thread::sleep(STEP.min(left));
                    }
                    gone
                }
            };
            if gone || left.is_zero() {
                return Ok(gone);
            }
        }
    }
}

/// Settings without the file, which has a mistake: good if somebody runs where they point to.
pub fn settings_of_what_runs(overrides: &Overrides) -> Option<Settings> {
    let overrides = Overrides {
        config: Some("/dev/null".to_owned()),
        ..overrides.clone()
    };
    let settings = Settings::load(&overrides, &|name| std::env::var_os(name)).ok()?;
    matches!(who(&settings), Ok(Runs::Master(_) | Runs::ByNumber(_))).then_some(settings)
}

fn readable_within(fd: &PidFd, timeout: Duration) -> io::Result<bool> {
    let mut wait = [Wait::readable(fd)];
    fd::poll(&mut wait, Some(timeout))?;
    Ok(wait[0].ready)
}
