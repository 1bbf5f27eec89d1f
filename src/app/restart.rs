//! `app restart`: the running master is asked to replace itself, and says how it went. With `--cold`: stop, then start
//! as a daemon. Either way with what `start` was given, unless told otherwise. Not running: start.
#![forbid(unsafe_code)]

use super::running::{PATIENCE, who};
use super::stop::{close_wait, unreachable};
use super::{check_files, cold, shown, tell};
use crate::error::{Error, Result, exit};
use crate::pidfile::{Process, Runs};
use crate::service::Service;
use crate::settings::{Overrides, Settings};
use crate::supervisor::control::{self, Answer, Question};
use crate::supervisor::master::Start;
use crate::supervisor::plan::BOOT_TIME;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// How much longer than its own limits the master is given to answer.
const SLACK: Duration = Duration::from_secs(5);

pub fn restart(service: Service, settings: Settings, own: Overrides, cold: bool) -> Result<u8> {
    let master = match who(&settings)? {
        Runs::Master(master) => master,
        runs @ (Runs::Hidden | Runs::Stranger(..)) => {
            return Err(Error::failed(unreachable(&settings, runs)));
        }
        Runs::Nobody => {
            check_files(&service, &settings)?;
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
        return cold::restart(&service, &settings, master, ours);
    }
    let pid = master.pid;
    let socket = settings.place.socket.display();
    let flags = Overrides {
        base_dir: None,
        ..ours
    }
    .to_args();
    let question = Question::Restart(flags);
    let begun = Instant::now();
    let answer = control::ask_until_heard_and(&settings.place.socket, master, &question, |it| {
        outcome(&settings, master, it)
    });
    let answer = answer.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::TimedOut => {
                let waited = begun.elapsed().as_secs();
                return Error::failed(format!(
                    "pid {pid} was asked to restart, and is not done after {waited} s; \"app state\" tells how it is"
                ));
            }
            ErrorKind::PermissionDenied => "it runs as another user",
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
            .map_or_else(String::new, |word| shown(word))
    };
    match word(0).as_str() {
        "done" => {
            let cut: Vec<String> = answer[1..]
                .iter()
                .filter_map(|line| line.get(1))
                .map(|word| shown(word))
                .collect();
            let cut = if cut.is_empty() {
                String::new()
            } else {
                format!(" ({})", cut.join("; "))
            };
            let text = format!("{}: {}{cut}\n", service.name, word(1));
            tell(&service.name, &text);
            Ok(exit::DONE)
        }
        "refused" => Err(Error::failed(format!(
            "no restart of pid {pid}: {}",
            word(1)
        ))),
        _ => Err(Error::failed(format!("restart given up: {}", word(1)))),
    }
}

/// Waits for what came of it. Checking, booting and draining have their limits; the master keeps them.
///
/// # Errors
/// `TimedOut`: it has heard, and does not come to an end. All others: it was not asked, or has hung up.
fn outcome(
    settings: &Settings,
    master: Process,
    answer: &mut Answer,
) -> io::Result<Vec<Vec<String>>> {
    let is_late = |error: &io::Error| error.kind() == ErrorKind::TimedOut;
    match answer.read(PATIENCE) {
        Err(error) if is_late(&error) && answer.is_heard() => {}
        // It would keep this command waiting for nothing.
        Err(error) if is_late(&error) => return Err(io::Error::other(error)),
        answered => return answered,
    }
    let own = settings.close_wait;
    match answer.read(BOOT_TIME * 2 + own + SLACK) {
        Err(error) if is_late(&error) => {}
        answered => return answered,
    }
    // Its drain may have more patience than this command knows of. It has become the new program by now, and says so.
    let socket = &settings.place.socket;
    let facts = control::ask_until_heard(socket, master, &Question::State, PATIENCE)?;
    answer.read(close_wait(&facts).saturating_sub(own))
}
