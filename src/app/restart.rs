//! `app restart`: the running master is asked to replace itself, and says how it went. With `--cold`: stop, then start
//! as a daemon. Either way with what `start` was given, unless told otherwise. Not running: start.
#![forbid(unsafe_code)]

use super::stop::{self, close_wait, hidden};
use super::{Service, print, who};
use crate::cli::{self, Command, Parsed};
use crate::error::{Error, Result, exit};
use crate::pidfile::Runs;
use crate::settings::{Overrides, Settings};
use crate::supervisor::control::{self, Question};
use crate::supervisor::handover;
use crate::supervisor::master::Start;
use crate::supervisor::plan::BOOT_TIME;
use crate::sys::process::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

/// A master answers a plain question within this time.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much longer than its own limits the master is given to answer.
const SLACK: Duration = Duration::from_secs(5);

pub fn restart(service: Service, settings: Settings, own: Overrides, cold: bool) -> Result<u8> {
    let pid = match who(&settings)? {
        Runs::Master(pid) | Runs::ByNumber(pid) => pid,
        Runs::Hidden => return Err(Error::failed(hidden(&settings))),
        Runs::Nobody(_) => {
            let start = Start {
                service,
                settings,
                overrides: own,
                passed: None,
                ready: None,
            };
            return super::start::launch(start);
        }
    };
    // The flags of the start, then what is in this command's environment, then its flags. The directory is this
    // command's, for there the running one was found.
    let ours = Overrides::from_environment(&|name| std::env::var_os(name))?.then(own);
    if cold {
        return restart_cold(&service, &settings, pid, ours);
    }
    let socket = settings.place.socket.display();
    let flags = Overrides {
        base_dir: None,
        ..ours
    }
    .to_args();
    // A master that does not even say how it is would keep this command waiting for nothing.
    let is_there = control::ask_until_heard(&settings.place.socket, &Question::State, PATIENCE);

    let question = Question::Restart(flags);
    let answer = is_there.and_then(|facts| {
        // Checking, booting and draining have their limits; the master keeps them.
        let patience = close_wait(&facts).max(settings.close_wait);
        control::ask_until_heard(
            &settings.place.socket,
            &question,
            BOOT_TIME * 2 + patience + SLACK,
        )
    });
    let answer = answer.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "it runs as another user",
            _ => "\"app restart --cold\" does without",
        };
        Error::failed(format!(
            "cannot ask pid {pid} to restart: {socket}: {error}; {hint}"
        ))
    })?;
    let word = |index: usize| {
        answer
            .first()
            .and_then(|line| line.get(index))
            .map_or("", String::as_str)
    };
    match word(0) {
        "done" => {
            let cut: Vec<&str> = answer[1..]
                .iter()
                .filter_map(|line| line.get(1))
                .map(String::as_str)
                .collect();
            let cut = if cut.is_empty() {
                String::new()
            } else {
                format!(" ({})", cut.join("; "))
            };
            print(&format!("{}: {}{cut}\n", service.name, word(1)));
            Ok(exit::DONE)
        }
        "refused" => Err(Error::failed(format!(
            "no restart of pid {pid}: {}",
            word(1)
        ))),
        _ => Err(Error::failed(format!("restart given up: {}", word(1)))),
    }
}

/// Stop, then start as a daemon.
fn restart_cold(service: &Service, settings: &Settings, pid: Pid, ours: Overrides) -> Result<u8> {
    if pid.is_init() {
        let text = "pid 1 cannot be stopped and started again from inside its container; restart the container";
        return Err(Error::failed(text));
    }
    let given = given_to_start(&service.name, pid, &settings.place.socket)?;
    let base = std::path::absolute(&settings.place.base).map_err(|error| {
        Error::failed(format!(
            "cannot find {}: {error}",
            settings.place.base.display()
        ))
    })?;
    let base_dir = Some(base.to_string_lossy().into_owned());
    let overrides = Overrides {
        base_dir,
        ..given.overrides.then(ours)
    };
    // Before anything is stopped: what will be started must have good settings.
    let environment = given.environment;
    Settings::load(&overrides, &|name| {
        environment.get(&OsString::from(name)).cloned()
    })?;

    print(&format!(
        "{}: {}\n",
        service.name,
        stop::end(settings, false)?
    ));
    // A new process rather than a fork of this one, so that its command line is that of a start for the next restart.
    let mut command = std::process::Command::new(&service.program);
    command
        .args(["app", "start", "--daemon"])
        .args(overrides.to_args())
        .env_clear()
        .envs(environment);
    let error = command.exec();
    Err(Error::failed(format!(
        "stopped, but cannot start {}: {error}",
        service.program.display()
    )))
}

/// What the running master was started with.
struct Given {
    overrides: Overrides,
    environment: BTreeMap<OsString, OsString>,
}

/// Asks the master, and reads the rest from `proc(5)`.
fn given_to_start(name: &str, pid: Pid, socket: &Path) -> Result<Given> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read(&path).map_err(|error| {
            Error::failed(format!(
                "cannot read what pid {pid} was started with: {path}: {error}; use stop, then start"
            ))
        })
    };
    let split = |bytes: Vec<u8>| -> Vec<OsString> {
        let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        text.split(|byte| *byte == 0)
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect()
    };
    // The master knows best: the command line of a restart that was given up has flags that do not hold.
    let facts = control::ask_until_heard(socket, &Question::State, PATIENCE).unwrap_or_default();
    let flags = facts
        .into_iter()
        .find(|line| line.first().is_some_and(|word| word == "flags"));
    let overrides = match flags.map(|flags| Overrides::from_args(flags[1..].to_vec())) {
        Some(Ok(overrides)) => overrides,
        _ => match cli::parse(name, split(read("cmdline")?).into_iter().skip(1)) {
            Ok(Parsed::Run(cli)) if matches!(cli.command, Command::Start { .. }) => cli.overrides,
            _ => Overrides::default(),
        },
    };
    let mut environment = BTreeMap::new();
    for pair in split(read("environ")?) {
        let text = pair.as_encoded_bytes();
        if let Some(at) = text.iter().position(|byte| *byte == b'=') {
            let (name, value) = (text[..at].to_vec(), text[at + 1..].to_vec());
            environment.insert(OsString::from_vec(name), OsString::from_vec(value));
        }
    }
    // Of the restart in place that made this process what it is, and no business of the next.
    environment.remove(&OsString::from(handover::VARIABLE));
    Ok(Given {
        overrides,
        environment,
    })
}
