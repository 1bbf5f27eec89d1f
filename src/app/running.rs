//! The running master as the commands see it: found by its lock, or by its socket where the lock's file is gone; named
//! by a pidfd; asked, signalled and waited for without ever meeting a stranger, be it under a reused number or at the
//! other end of the socket. Kernels before 5.3 have no pidfd: there the lock is asked again.
#![forbid(unsafe_code)]

use super::stop::unreachable;
use crate::error::{Error, Result, exit};
use crate::owned;
use crate::pidfile::{self, Process, Runs};
use crate::place::resolved;
use crate::settings::{Overrides, Settings};
use crate::supervisor::control::{self, Question};
use crate::sys::fd::{self, Wait};
use crate::sys::process::{self, PidFd};
use crate::sys::signal::Signal;
use crate::sys::{self, Errno, is_errno};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How often an old kernel is asked.
const STEP: Duration = Duration::from_millis(10);
/// A master answers a plain question within this time, on a machine that is very busy, too.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Asks who runs; an error names the file.
pub fn who(settings: &Settings) -> Result<Runs> {
    let path = settings.place.lock_file();
    let found = pidfile::who(&path).map_err(|error| {
        let (file, whose) = (path.display(), owned::whose(&path, &error));
        Error::failed(format!(
            "cannot tell who runs: cannot read {file}: {error}{whose}"
        ))
    })?;
    match found {
        // The file may be gone, or one that was made since, and the master still there.
        None | Some(Runs::Nobody) => match by_socket(settings)? {
            Runs::Nobody if has_nowhere(settings) => Err(nowhere(settings)),
            runs => Ok(runs),
        },
        Some(runs) => Ok(runs),
    }
}

/// Whether the first process here is this same program, in a container with no place for the files by which it could be
/// found. It may belong to another user, of whose program nothing is told.
pub fn has_nowhere(settings: &Settings) -> bool {
    let place = &settings.place;
    let program = |link: &str| {
        let found = std::fs::metadata(link).ok()?;
        Some((found.dev(), found.ino()))
    };
    let first = program("/proc/1/exe");
    owned::has_no_place(&place.lock_file())
        && owned::has_no_place(&place.socket)
        && first.is_none_or(|first| program("/proc/self/exe") == Some(first))
}

fn nowhere(settings: &Settings) -> Error {
    let file = settings.place.lock_file();
    let directory = file.parent().unwrap_or(Path::new("/")).display();
    Error::failed(format!(
        "cannot tell who runs: {directory}/ is read-only, and there is nowhere to meet; mount a tmpfs there"
    ))
    .with_code(exit::UNKNOWN)
}

/// Without the lock: whoever listens at the control socket is the master, if that is the socket of this pid file.
fn by_socket(settings: &Settings) -> Result<Runs> {
    let path = &settings.place.socket;
    let cannot = |error: io::Error| {
        let (path, whose) = (path.display(), owned::whose(path, &error));
        Error::failed(format!(
            "cannot tell who runs: nobody holds the lock, and {path}: {error}{whose}"
        ))
    };
    let Some(process) = control::who(path).map_err(cannot)? else {
        return Ok(Runs::Nobody);
    };
    let facts = control::ask_until_heard(path, process, &Question::State, PATIENCE);
    let facts = facts.map_err(cannot)?;
    let of = |key: &str| facts.iter().find(|line| line[0] == key)?.get(1);
    let Some(told) = of("pid_file") else {
        return Err(Error::failed(format!(
            "cannot tell who runs: {} is that of pid {}, which does not name its pid file; if that is an earlier version, its own \"app stop\" ends it, or TERM",
            path.display(),
            process.pid
        )));
    };
    // Two services that were given one socket by mistake, or app.pid_file was changed since the start.
    if resolved(Path::new(told)) != resolved(&settings.place.pid_file) {
        return Err(Error::failed(format!(
            "cannot tell who runs: {} is that of pid {}, whose pid file is {}; with --set pid_file={} it is meant",
            path.display(),
            process.pid,
            super::shown(told),
            super::shown(told)
        )));
    }
    Ok(Runs::Master(process))
}

/// A master that held the lock after the descriptor on it was opened: it is meant, and nobody else.
pub struct Running<'a> {
    settings: &'a Settings,
    pub process: Process,
    fd: Option<PidFd>,
}

impl<'a> Running<'a> {
    /// Takes hold of the process that was found to run; `None` when it is gone by now.
    pub fn open(settings: &'a Settings, runs: Runs) -> Result<Option<Running<'a>>> {
        let Runs::Master(process) = runs else {
            return Ok(None);
        };
        let pid = process.pid;
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
        match who(settings)? {
            now if now == runs => Ok(Some(Running {
                settings,
                process,
                fd,
            })),
            // It is gone, and perhaps there is another one by now.
            Runs::Nobody | Runs::Master(_) => Ok(None),
            now => Err(Error::failed(unreachable(settings, now))),
        }
    }

    /// Sends a signal. A process that is gone by now is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.process.pid;
        let sent = match &self.fd {
            Some(fd) => match fd.send(signal) {
                Err(error) if sys::is_unsupported(&error) => process::kill(pid, signal),
                sent => sent,
            },
            None => process::kill(pid, signal),
        };
        match sent {
            Err(error) if !is_errno(&error, Errno::NoSuchProcess) => {
                let hint = if is_errno(&error, Errno::NotPermitted) {
                    "; it runs as another user"
                } else {
                    ""
                };
                Err(Error::failed(format!(
                    "cannot signal pid {pid}: {error}{hint}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the process is gone, collected by its parent or not; false when the time is up before.
    pub fn wait_gone(&self, timeout: Duration) -> Result<bool> {
        let (until, pid) = (Instant::now() + timeout, self.process.pid);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let gone = match &self.fd {
                Some(fd) => readable_within(fd, left).map_err(|error| {
                    Error::failed(format!("cannot wait for pid {pid}: {error}"))
                })?,
                None => {
                    // A dead process still answers signal 0 until its parent collects it, but holds no lock.
                    let gone = !process::exists(pid)
                        || process::is_zombie(pid)
                        || matches!(
                            pidfile::who(&self.settings.place.lock_file()),
                            Ok(Some(Runs::Nobody))
                        );
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

/// Settings from what is good in the file, which has a mistake, or without it: good if somebody runs where they point to.
pub fn settings_of_what_runs(overrides: &Overrides) -> Option<Settings> {
    [Settings::from_good_lines, Settings::without_file]
        .into_iter()
        .filter_map(|load| load(overrides, &|name| std::env::var_os(name)).ok())
        .find(|settings| matches!(who(settings), Ok(Runs::Master(_))))
}

fn readable_within(fd: &PidFd, timeout: Duration) -> io::Result<bool> {
    let mut wait = [Wait::readable(fd)];
    fd::poll(&mut wait, Some(timeout))?;
    Ok(wait[0].ready)
}
