//! `app restart --cold`: stop, then start as a daemon with what the running one was started with. Everything that can be
//! tried before the stop is tried before it. Flags and environment are taken from a process of the same user alone.
#![forbid(unsafe_code)]

use super::running::{PATIENCE, who};
use super::{cannot_enter, check_files, stop, tell};
use crate::address::Address;
use crate::cli::{self, Command, Parsed};
use crate::error::{Error, Result};
use crate::listener;
use crate::owned;
use crate::pidfile::{Process, Runs};
use crate::service::Service;
use crate::settings::{Overrides, Settings};
use crate::stdio;
use crate::supervisor::control::{self, Question};
use crate::supervisor::handover::{self, GOOD};
use crate::supervisor::holdings::{cannot, make_directory, open_log};
use crate::sys::fd::{self, Wait};
use crate::sys::file::may_write;
use crate::sys::process::{self, Pid};
use crate::syslog::is_system_log;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The program on disk has this long to say that its settings are good.
const CHECK_TIME: Duration = Duration::from_secs(10);

/// Stops it, and becomes the start.
pub fn restart(
    service: &Service,
    settings: &Settings,
    master: Process,
    ours: Overrides,
) -> Result<u8> {
    let Process { pid, uid } = master;
    if pid.is_init() {
        let text = "pid 1 cannot be stopped and started again from inside its container; restart the container";
        return Err(Error::failed(text));
    }
    let us = process::euid();
    if uid != us {
        return Err(Error::failed(format!(
            "no cold restart of pid {pid}: it runs as uid {uid}, and what this command starts would run as uid {us}; use \"app restart\", or be that user"
        )));
    }
    let given = given_to_start(&service.name, settings, master)?;
    if !given.is_daemon {
        return Err(Error::failed(format!(
            "no cold restart of pid {pid}: it runs in the foreground, and whoever started it there would find it gone; use \"app restart\""
        )));
    }
    if given.is_passed {
        return Err(Error::failed(format!(
            "no cold restart of pid {pid}: its socket was passed to it by who started it, and nobody else can pass it again; use \"app restart\""
        )));
    }
    let start = Prepared::of(settings, master, given, ours)?;
    start.try_all(service)?;

    let ended = stop::end(settings, false)?;
    tell(&service.name, &format!("{}: {ended}\n", service.name));
    // A new process rather than a fork of this one, so that its command line is that of a start for the next restart.
    let mut command = start.command(service, &["app", "start", "--daemon"]);
    let error = command.exec();
    Err(Error::failed(format!(
        "stopped, but cannot start {}: {error}",
        service.program.display()
    )))
}

/// The start that is to come.
struct Prepared {
    base: PathBuf,
    overrides: Overrides,
    environment: BTreeMap<OsString, OsString>,
    /// Who is to be stopped before it.
    master: Pid,
    /// The Unix socket that it takes with it, if it serves one.
    served: Option<Address>,
}

impl Prepared {
    fn of(settings: &Settings, master: Process, given: Given, ours: Overrides) -> Result<Prepared> {
        let base = &settings.place.base;
        let base = std::path::absolute(base)
            .map_err(|error| Error::failed(format!("cannot find {}: {error}", base.display())))?;
        // Words on a command line are UTF-8; where a directory's name is not, it is entered beforehand.
        let base_dir = base.to_str().unwrap_or(".").to_owned();
        let overrides = Overrides {
            base_dir: Some(base_dir),
            ..given.overrides.then(ours)
        };
        Ok(Prepared {
            base,
            overrides,
            environment: given.environment,
            master: master.pid,
            served: given.served,
        })
    }

    fn command(&self, service: &Service, words: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&service.program);
        let (shown, variables) = self.overrides.hidden();
        command
            .args(words)
            .args(shown.to_args())
            .current_dir(&self.base)
            .env_clear()
            .envs(&self.environment)
            .envs(variables);
        command
    }

    /// What would keep it from starting, as far as it can be found out while the other one runs.
    fn try_all(&self, service: &Service) -> Result<()> {
        // 1. The directory, and the settings as this program reads them.
        std::env::set_current_dir(&self.base).map_err(|error| cannot_enter(&self.base, &error))?;
        let lookup = |name: &str| self.environment.get(&OsString::from(name)).cloned();
        let settings = Settings::load(&self.overrides, &lookup)?;
        check_files(service, &settings)?;
        // 2. The program on disk.
        let program = service.program.display();
        let check = self.command(service, &["app", "check"]);
        let (is_good, text) = said_by(check, CHECK_TIME)
            .map_err(|error| Error::failed(format!("cannot run {program}: {error}")))?;
        if !(is_good && text.contains(GOOD)) {
            let line = text.lines().next().unwrap_or("it says nothing");
            return Err(Error::failed(format!(
                "no cold restart: the check of {program} failed: {line}"
            )));
        }
        // 3. The files that it will write.
        for file in [&settings.place.pid_file, &settings.place.lock_file()] {
            make_directory(file, file)?;
            let directory = file.parent().unwrap_or(file);
            let may_write = match owned::check(file) {
                Ok(()) => may_write(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => may_write(directory),
                Err(error) => Err(error),
            };
            may_write.map_err(|error| cannot("write", file, &error))?;
        }
        let log_file = Some(&settings.place.log_file).filter(|path| !is_system_log(path));
        for log_file in log_file.into_iter().chain(settings.access_log.file()) {
            open_log(log_file, log_file)?;
        }
        // 4. The sockets.
        let socket = &settings.place.socket;
        make_directory(socket, socket)?;
        self.try_address(&Address::Unix(socket.clone()))
            .and_then(|()| may_write(socket.parent().unwrap_or(socket)))
            .map_err(|error| cannot("bind", socket, &error))?;
        let address = &settings.address;
        self.try_address(address)
            .map_err(|error| listener::refused(address, &error))
    }

    /// Whether an address can be had, now or when the one that serves has left it.
    fn try_address(&self, address: &Address) -> io::Result<()> {
        // Its file goes, and is made anew.
        let may_replace = || match address {
            Address::Unix(path) => may_write(path.parent().unwrap_or(path)),
            _ => Ok(()),
        };
        if self.served.as_ref().is_some_and(|own| own.is_same(address)) {
            return may_replace();
        }
        match listener::try_bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && listener::is_freed_by(address, self.master) =>
            {
                may_replace()
            }
            tried => tried,
        }
    }
}

/// Runs a command: whether it ended well, and what it said. One that takes longer is killed.
fn said_by(mut command: std::process::Command, within: Duration) -> io::Result<(bool, String)> {
    let until = Instant::now() + within;
    let (output, input) = fd::pipe_nonblocking()?;
    let mut child = command
        .stdin(stdio::nothing()?)
        .stdout(input.try_clone()?)
        .stderr(input)
        .spawn()?;
    // The command keeps its ends open, and would keep the pipe from ending.
    drop(command);
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        fd::poll(&mut [Wait::readable(&output)], Some(left))?;
        match fd::read(output.as_fd(), &mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if left.is_zero() => {
                let _ = child.kill();
                let _ = child.wait();
                let text = format!("it takes longer than {} s", within.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(_) => {}
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((child.wait()?.success(), text))
}

/// What the running master was started with.
struct Given {
    overrides: Overrides,
    environment: BTreeMap<OsString, OsString>,
    is_daemon: bool,
    /// It serves a socket that was passed to it.
    is_passed: bool,
    /// The Unix socket that it serves, if it is one.
    served: Option<Address>,
}

/// Asks the master, and reads the rest from `proc(5)`.
fn given_to_start(name: &str, settings: &Settings, master: Process) -> Result<Given> {
    let pid = master.pid;
    let cannot = |path: &str, error: io::Error| {
        Error::failed(format!(
            "cannot read what pid {pid} was started with: {path}: {error}; use stop, then start"
        ))
    };
    // An open directory of a process that is gone stays empty, whoever has its number by then.
    let path = format!("/proc/{pid}");
    let process = File::open(&path).map_err(|error| cannot(&path, error))?;
    if who(settings)? != Runs::Master(master) {
        return Err(Error::failed(format!("pid {pid} is gone; try again")));
    }
    let read = |file: &str| {
        let inside = format!("/proc/self/fd/{}/{file}", process.as_raw_fd());
        std::fs::read(inside).map_err(|error| cannot(&format!("{path}/{file}"), error))
    };
    let split = |bytes: Vec<u8>| -> Vec<OsString> {
        let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        text.split(|byte| *byte == 0)
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect()
    };
    let started = match cli::parse(name, split(read("cmdline")?).into_iter().skip(1)) {
        Ok(Parsed::Run(cli)) => match cli.command {
            Command::Start { daemon, .. } => Some((daemon, cli.overrides)),
            // A restart of nothing is a start.
            Command::Restart { .. } => Some((true, cli.overrides)),
            _ => None,
        },
        _ => None,
    };
    let (was_daemon, words) = started.unwrap_or_default();
    // The master knows best: the command line of a restart that was given up has flags that do not hold.
    let socket = &settings.place.socket;
    let facts = control::ask_until_heard(socket, master, &Question::State, PATIENCE);
    let facts = facts.unwrap_or_default();
    let of = |key: &str| facts.iter().find(|line| line[0] == key);
    let flags = of("flags").map(|flags| Overrides::from_args(flags[1..].to_vec()));
    let overrides = match flags {
        Some(Ok(overrides)) => overrides,
        _ => words,
    };
    let reachable = of("reachable").and_then(|line| line.get(1)?.strip_prefix("unix:"));
    let served = reachable.map(|path| Address::Unix(path.into()));
    let is_daemon = of("daemon").map_or(was_daemon, |line| {
        line.get(1).is_some_and(|word| word == "true")
    });
    let mut environment = BTreeMap::new();
    for pair in split(read("environ")?) {
        let text = pair.as_encoded_bytes();
        if let Some(at) = text.iter().position(|byte| *byte == b'=') {
            let (name, value) = (text[..at].to_vec(), text[at + 1..].to_vec());
            environment.insert(OsString::from_vec(name), OsString::from_vec(value));
        }
    }
    // Of the restart in place that made this process what it is, and no business of the next.
    let handover = environment.remove(&OsString::from(handover::VARIABLE));
    let is_passed = match facts.is_empty() {
        true => {
            let text = handover.as_ref().and_then(|value| value.to_str());
            text.map_or_else(
                || environment.contains_key(&OsString::from("LISTEN_FDS")),
                handover::has_passed,
            )
        }
        false => of("passed").is_some(),
    };
    Ok(Given {
        overrides,
        environment,
        is_daemon,
        is_passed,
        served,
    })
}
