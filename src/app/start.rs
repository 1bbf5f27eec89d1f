//! `app start`: in the foreground this very process becomes the master; with `--daemon` a forked one does, and this
//! one waits for its word.
#![forbid(unsafe_code)]

use super::{Service, print};
use crate::daemon::{self, Side};
use crate::error::{Error, Result, exit};
use crate::settings::{Overrides, Settings};
use crate::supervisor::master::{self, Start};
use crate::sys::fd;
use crate::sys::process::{self, Pid, exit_now, remove_variable};
use std::io::Write;
use std::os::fd::OwnedFd;

pub fn start(
    service: Service,
    settings: Settings,
    overrides: Overrides,
    daemon: bool,
    ready_fd: Option<i32>,
) -> Result<u8> {
    let name = service.name.clone();
    let passed = passed_socket()?;
    if passed.is_some() && ready_fd == Some(FIRST_PASSED) {
        let text = "--ready-fd 3: this descriptor is the socket that LISTEN_FDS passes";
        return Err(Error::usage(text));
    }
    let ready = ready_fd.map(|number| {
        adopt(number).ok_or_else(|| {
            Error::usage(format!("--ready-fd {number}: this descriptor is not open"))
        })
    });
    let ready = ready.transpose()?;
    let start = Start {
        service,
        settings,
        overrides,
        passed,
        ready,
    };
    if daemon && !Pid::own().is_init() {
        return launch(start);
    }
    if daemon {
        let text = "as PID 1 it stays in the foreground, for leaving would end the container; --daemon is ignored";
        let _ = writeln!(std::io::stderr(), "{name}: {text}");
    }
    master::run_foreground(start).map(|()| exit::DONE)
}

/// Starts a daemon, waits until it serves, and prints what it says.
pub fn launch(start: Start) -> Result<u8> {
    let log = start.settings.place.log_file.display().to_string();

    match daemon::detach()
        .map_err(|error| Error::failed(format!("cannot go into the background: {error}")))?
    {
        Side::Daemon(reporter) => exit_now(master::run_daemon(start, reporter)),
        Side::Launcher(waiter, pid) => {
            // The daemon's, which alone is to hold them.
            drop(start);
            let unsaid = || {
                Error::failed(format!(
                    "start failed: pid {pid} died before it was ready; {log} may say why"
                ))
            };
            let said = waiter.wait().unwrap_or_else(|| Err(unsaid()));
            if said.is_err() {
                // Until it is gone it holds the lock, and another start would take it for a running one.
                process::wait_child(pid);
            }
            print(&said?);
            Ok(exit::DONE)
        }
    }
}

fn adopt(number: i32) -> Option<OwnedFd> {
    let found = fd::adopt(number)?;
    fd::set_cloexec(&found, true).ok()?;
    Some(found)
}

/// The first descriptor that a service manager passes, `sd_listen_fds(3)`.
const FIRST_PASSED: i32 = 3;

/// The socket that whoever started this process has bound for it, if the environment says so and means this process.
fn passed_socket() -> Result<Option<OwnedFd>> {
    let variable = |name: &str| std::env::var(name).ok();
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    if pid != Some(Pid::own().to_string()) {
        return Ok(None);
    }
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        remove_variable(name);
    }
    let count = count.unwrap_or_default();
    match count.as_str() {
        "0" => Ok(None),
        "1" => {
            let text = "LISTEN_FDS \"1\": descriptor 3 is not open";
            adopt(FIRST_PASSED)
                .ok_or_else(|| Error::usage(text))
                .map(Some)
        }
        _ => Err(Error::usage(format!(
            "LISTEN_FDS {count:?}: expected 1, for one socket is served"
        ))),
    }
}
