//! `app start`: in the foreground this very process becomes the master; with `--daemon` a forked one does, and this
//! one waits for its word.
#![forbid(unsafe_code)]

use super::tell;
use crate::address::Address;
use crate::daemon::{self, Side};
use crate::error::{Error, Result, exit};
use crate::listener::Listener;
use crate::place::Place;
use crate::service::Service;
use crate::settings::{Overrides, Settings};
use crate::supervisor::master::{self, Start};
use crate::sys::fd;
use crate::sys::process::{self, Pid, exit_now, remove_variable};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Another start has tried the same address by then.
const PASSING: Duration = Duration::from_millis(100);

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
    warn_of_name(&name, &start.settings.place.base);
    if daemon && !Pid::own().is_init() {
        return launch(start);
    }
    if daemon {
        let text = "as PID 1 it stays in the foreground, for leaving would end the container; --daemon is ignored";
        let _ = writeln!(std::io::stderr(), "{name}: {text}");
    }
    try_address(&start)?;
    let missing = Missing::before(&start.settings.place);
    let ended = master::run_foreground(start);
    ended
        .inspect_err(|_| missing.take_away())
        .map(|()| exit::DONE)
}

/// Where nothing was made yet, nothing is to be made for an address that cannot be had. Behind a `run/` that is there the
/// order is another one: the lock goes first, for whoever holds it has the address.
fn try_address(start: &Start) -> Result<()> {
    let place = &start.settings.place;
    // A Unix socket may have its place in a directory that is still to be made.
    let is_unix = matches!(start.settings.address, Address::Unix(_));
    let is_new = || place.pid_file.parent().is_some_and(|run| !run.exists());
    let address = start.settings.address.clone().within(&place.base);
    let until = Instant::now() + PASSING;
    while start.passed.is_none() && !is_unix && is_new() {
        match Listener::bind(&address) {
            Ok(mut listener) => {
                listener.close();
                break;
            }
            // Another start of this service may be trying it, too: then one of them makes the directory.
            Err(_) if Instant::now() < until => std::thread::sleep(PASSING / 10),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The directories that a start makes for its files.
struct Missing(Vec<PathBuf>);

impl Missing {
    fn before(place: &Place) -> Missing {
        let files = [&place.pid_file, &place.log_file, &place.socket];
        let parents = files.into_iter().flat_map(|file| {
            let file = std::path::absolute(file).unwrap_or_default();
            let above = file.ancestors().skip(1).map(Path::to_owned);
            above
                .take_while(|parent| !parent.exists())
                .collect::<Vec<_>>()
        });
        let mut missing: Vec<PathBuf> = parents.collect();
        // Those below others first.
        missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        missing.dedup();
        Missing(missing)
    }

    /// After a start that failed. One that has a file, such as a log that says why, stays.
    fn take_away(&self) {
        for directory in &self.0 {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// A restart in place hands the directory over as a word of a command line, which is UTF-8.
fn warn_of_name(name: &str, base: &Path) {
    let base = std::path::absolute(base).unwrap_or_default();
    if base.to_str().is_none() {
        let shown = base.display();
        let text = format!(
            "the name of {shown} is not UTF-8: \"app restart\" will refuse, \"app restart --cold\" works"
        );
        let _ = writeln!(std::io::stderr(), "{name}: {text}");
    }
}

/// Starts a daemon, waits until it serves, and prints what it says.
pub fn launch(start: Start) -> Result<u8> {
    let log = start.settings.place.log_file.display().to_string();
    let name = start.service.name.clone();
    try_address(&start)?;
    let missing = Missing::before(&start.settings.place);

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
                missing.take_away();
            }
            tell(&name, &said?);
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
