//! An application: how it is put together (`build`), and the commands that every one has. One file per command, told top
//! to bottom.
#![forbid(unsafe_code)]

pub(crate) mod build;
pub(crate) mod call;
mod check;
mod cold;
mod restart;
mod running;
mod start;
mod state;
mod stop;
pub(crate) mod testing;

use crate::cli::{self, Command, Parsed};
use crate::error::{Error, Result, exit};
use crate::service::Service;
use crate::settings::{self, Overrides, Settings};
use crate::supervisor::handover::{self, Handover};
use crate::supervisor::holdings::danger;
use crate::sys::process::Pid;
use crate::user::User;
use std::ffi::OsString;
use std::io::Write;

fn run(service: Service, args: impl Iterator<Item = OsString>) -> Result<u8> {
    let args: Vec<OsString> = args.collect();
    let is_whole = args
        .iter()
        .all(|word| word == "app" || word == "help" || word.as_encoded_bytes().starts_with(b"-"));
    let cli = match cli::parse(&service.name, args.into_iter()) {
        Ok(Parsed::Run(cli)) => cli,
        Ok(Parsed::Help(text)) => {
            // That of the whole program names them all.
            let more = if is_whole {
                service.commands
            } else {
                String::new()
            };
            print(&(text + &more))?;
            return Ok(exit::DONE);
        }
        Ok(Parsed::Version) => {
            let name = &service.name;
            print(&match &service.version {
                Some(version) => format!("{name} {version}\n"),
                None => format!("{name}, made with hade {}\n", env!("CARGO_PKG_VERSION")),
            })?;
            return Ok(exit::DONE);
        }
        // Workers serve, whatever was made of this program's words on their way here: a wrapper may have changed them.
        Err(error) => match Handover::take() {
            Some(handover) => {
                return resume(service, Err(error), Overrides::default(), handover);
            }
            None => return Err(error),
        },
    };
    if matches!(cli.command, Command::Start { daemon, .. } if !daemon || Pid::own().is_init()) {
        // This process becomes the master, and whoever started it knows its pid already.
        let _ = crate::signals::catch_early();
    }
    // Taken once: each look at the environment goes through all of it.
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let variable = |name: &str| {
        let found = environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let settings = Settings::load(&cli.overrides, &variable);
    let is_told = matches!(cli.command, Command::State { .. } | Command::Stop { .. });
    let settings = match service.mistake.as_ref().filter(|_| !is_told) {
        Some(mistake) => Err(Error::failed(mistake.clone())),
        None => settings,
    };
    let is_read = matches!(
        cli.command,
        Command::Start { .. } | Command::Restart { .. } | Command::Check
    );
    // Not for a restart: whoever started what runs was told.
    if is_read && variable(handover::VARIABLE).is_none() {
        for (variable, meant) in settings::misspelled(environment.iter().map(|(name, _)| name)) {
            let text = format!("{variable} is not read; did you mean {meant}?");
            let _ = writeln!(std::io::stderr(), "{}: {}", service.name, shown(&text));
        }
    }
    // A restart of what did not run is a start, and its words are those that a way back executes again.
    let is_start = matches!(cli.command, Command::Start { .. } | Command::Restart { .. });
    if let Some(handover) = is_start.then(Handover::take).flatten() {
        return resume(service, settings, cli.overrides, handover);
    }
    let settings = match (settings, cli.command) {
        // To look at what runs, and to stop it, needs no more of the settings than where it is.
        (Err(wrong), Command::State { .. } | Command::Stop { .. }) => {
            running::settings_of_what_runs(&cli.overrides).ok_or(wrong)?
        }
        (settings, _) => settings?,
    };
    if matches!(cli.command, Command::Start { .. } | Command::Check) {
        check_files(&service, &settings)?;
    }
    match cli.command {
        Command::Start { daemon, ready_fd } => {
            start::start(service, settings, cli.overrides, daemon, ready_fd)
        }
        Command::State { json, probe } => state::state(&service, &settings, json, probe),
        Command::Stop { force } => stop::stop(&service, &settings, force),
        Command::Restart { cold } => self::restart::restart(service, settings, cli.overrides, cold),
        Command::Check => check::check(&service, &settings),
    }
}

/// This process was a master before it became this program, and goes on as one.
fn resume(
    service: Service,
    settings: Result<Settings>,
    overrides: Overrides,
    handover: Handover,
) -> Result<u8> {
    crate::supervisor::resume::resume(service, settings, overrides, handover).map(|()| exit::DONE)
}

/// What is to be served must be there before anything else is done, and the user whom it is left to be harmless.
fn check_files(service: &Service, settings: &Settings) -> Result<()> {
    let checked = service.routes.check_files(settings);
    checked.map_err(Error::failed)?;
    let identity = settings.user.as_ref().map(User::identify).transpose()?;
    let danger = identity.and_then(|identity| danger(&identity, &service.program, settings));
    danger.map_or(Ok(()), |danger| Err(Error::failed(danger)))
}

fn cannot_enter(base: &std::path::Path, error: &std::io::Error) -> Error {
    let base = base.display();
    Error::failed(format!("cannot enter the base directory {base}: {error}"))
}

/// Prints what was asked for. A standard output that is closed is the caller's choice; one that takes nothing, as on a
/// full disk, is a failure: what it holds is not the answer.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    let text = printable(text);
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::failed(
            format!("cannot write to the standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Prints what was done. It is done, whether or not that can be said, and so the exit status stays 0.
pub(crate) fn tell(name: &str, text: &str) {
    if let Err(error) = print(text) {
        let _ = writeln!(std::io::stderr(), "{name}: {error}");
    }
}

/// What a terminal would take for an order, or show in another order than it stands there: control characters, and
/// those of Unicode that turn the direction of writing. Text of others may hold them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of several lines with such characters written out: `\u{1b}`.
fn printable(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(shown).collect();
    lines.join("\n")
}

/// The same for what is to stay on one line.
fn shown(text: &str) -> String {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unprintable(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}
