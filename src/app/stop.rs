//! `app stop`: TERM to the master, and a wait until it is gone. The pid file is the master's to empty.
#![forbid(unsafe_code)]

use super::running::{Running, who};
use super::{shown, tell};
use crate::error::{Error, Result, exit};
use crate::pidfile::{Content, PidFile, Runs};
use crate::service::Service;
use crate::settings::Settings;
use crate::supervisor::control::{self, Answer, Question};
use crate::sys::process::Pid;
use crate::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// A stop is given up after `stop_delay` and twice `close_wait`, but a master deserves this long in any case.
const LEAST_WAIT: Duration = Duration::from_secs(2);

/// No `close_wait` is longer, and no `stop_delay`.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub fn stop(service: &Service, settings: &Settings, force: bool) -> Result<u8> {
    let ended = end(settings, force)?;
    tell(&service.name, &format!("{}: {ended}\n", service.name));
    Ok(exit::DONE)
}

/// Ends the running master, if there is one, and says what came of it.
pub fn end(settings: &Settings, force: bool) -> Result<String> {
    let begun = Instant::now();
    let runs = who(settings)?;
    if let Runs::Hidden | Runs::Stranger(..) = runs {
        return Err(Error::failed(unreachable(settings, runs)));
    }
    let Some(running) = Running::open(settings, runs)? else {
        return Ok(not_running(settings).0);
    };
    let pid = running.process.pid;
    // What came of it is written to this connection before the master leaves. Where there is none it is not known.
    let question = if pid.is_init() {
        Question::Stop
    } else {
        Question::Report
    };
    let mut report = control::ask(&settings.place.socket, running.process, &question);
    match (&report, pid.is_init()) {
        (_, false) => running.signal(Signal::Term)?,
        (Ok(_), true) => return last_words(settings, pid, begun, report),
        (Err(error), true) => {
            let socket = settings.place.socket.display();
            return Err(Error::failed(format!(
                "cannot ask pid 1 to stop: {socket}: {error}"
            )));
        }
    }
    let mut wait = (settings.stop_delay + settings.close_wait * 2).max(LEAST_WAIT);
    let mut is_gone = running.wait_gone(wait)?;
    // It may have been started with more patience than this command knows of.
    let more = report
        .as_mut()
        .map(|report| longest(&report.so_far()))
        .unwrap_or_default();
    if !is_gone && more > wait {
        is_gone = running.wait_gone(more - wait)?;
        wait = more;
    }
    if is_gone {
        let said = report
            .and_then(|mut report| report.read(LEAST_WAIT))
            .unwrap_or_default();
        return Ok(stopped(pid, begun.elapsed(), &said));
    }
    let waited = wait.as_secs_f64();
    if !force {
        let text = format!(
            "pid {pid} still there after {waited:.1} s; wait, or end it with \"app stop --force\""
        );
        return Err(Error::failed(text));
    }
    running.signal(Signal::Kill)?;
    if running.wait_gone(LEAST_WAIT)? {
        return Ok(format!(
            "killed pid {pid} after {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
    }
    Err(Error::failed(format!(
        "pid {pid} still there after SIGKILL; the kernel holds it, most likely for a disk"
    )))
}

/// PID 1 takes everybody in its container with it. It waits for this process to have said what it has to say, and
/// knows by the connection, which is why that is left open.
fn last_words(
    settings: &Settings,
    pid: Pid,
    begun: Instant,
    report: std::io::Result<Answer>,
) -> Result<String> {
    let failed = |error: std::io::Error| {
        Error::failed(format!(
            "pid 1 was asked to stop, but says nothing: {error}"
        ))
    };
    let mut report = report.map_err(failed)?;
    let own = settings.stop_delay + settings.close_wait * 2;
    let told = longest(&report.so_far()).max(own);
    let said = report.read(told.max(LEAST_WAIT)).map_err(failed)?;
    std::mem::forget(report);
    if !said
        .iter()
        .any(|line| line.first().is_some_and(|word| word == "stopped"))
    {
        return Err(failed(std::io::Error::other(
            "it hung up; is a restart under way?",
        )));
    }
    Ok(stopped(pid, begun.elapsed(), &said))
}

/// How long the running one drains at most, as it told.
pub fn close_wait(told: &[Vec<String>]) -> Duration {
    time(told, 1)
}

/// How long a stop of the running one is waited for.
fn longest(told: &[Vec<String>]) -> Duration {
    // A master of an earlier version tells no delay, and has none.
    time(told, 2) + time(told, 1) * 2
}

/// A time of those that the running one told, by its place in the line.
fn time(told: &[Vec<String>], place: usize) -> Duration {
    let line = told
        .iter()
        .find(|line| line.first().is_some_and(|word| word == "close_wait"));
    let millis = line.and_then(|line| line.get(place)?.parse().ok());
    // What a master of another user says is no reason to wait for ever.
    Duration::from_millis(millis.unwrap_or(0)).min(LONGEST_WAIT)
}

/// `stopped pid 4711 after 1.3 s; 12 requests finished, 1 cut (GET /slow, 5.0 s)`
fn stopped(pid: Pid, took: Duration, report: &[Vec<String>]) -> String {
    let mut text = format!("stopped pid {pid} after {:.1} s", took.as_secs_f64());
    let of = |key: &'static str| {
        report
            .iter()
            .filter(move |line| line.first().is_some_and(|word| word == key))
    };
    if let Some([_, finished, cut]) = of("stopped").next().map(Vec::as_slice) {
        text += &format!(
            "; {} requests finished, {} cut",
            shown(finished),
            shown(cut)
        );
    }
    let named: Vec<String> = of("cut")
        .filter_map(|line| line.get(1))
        .map(|name| shown(name))
        .collect();
    if !named.is_empty() {
        text += &format!(" ({})", named.join("; "));
    }
    text
}

/// The words for "nobody runs", and the exit status of `state`.
pub fn not_running(settings: &Settings) -> (String, u8) {
    let file = &settings.place.pid_file;
    if !is_there(file) && !is_there(&settings.place.socket) {
        let socket = &settings.place.socket;
        let at = match file.parent() {
            Some(directory) if socket.parent() == Some(directory) && directory != Path::new("") => {
                format!("no pid file and no socket in {}/", directory.display())
            }
            _ => format!("no {} and no {}", file.display(), socket.display()),
        };
        return (format!("not running; {at}"), exit::NOT_RUNNING);
    }
    let path = file.display();
    match PidFile::read(&settings.place.pid_file) {
        Ok(Content::Empty) => ("not running".to_owned(), exit::NOT_RUNNING),
        Ok(Content::Pid(pid)) => (
            format!("not running; {path} names pid {pid}, which is not it"),
            exit::FAILED,
        ),
        Ok(Content::Garbage) => (
            format!("not running; {path} holds no pid"),
            exit::NOT_RUNNING,
        ),
        Err(error) => (
            format!("not running; cannot read {path}: {error}"),
            exit::NOT_RUNNING,
        ),
    }
}

fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// The words for a lock that is held by a process which cannot be asked or signalled.
pub fn unreachable(settings: &Settings, runs: Runs) -> String {
    let path = settings.place.lock_file();
    let path = path.display();
    let Runs::Stranger(pid, uid) = runs else {
        return format!(
            "{path} is locked by a process that cannot be seen from here (another container or host); ask there"
        );
    };
    let whose = uid.map_or_else(String::new, |uid| format!(" of uid {uid}"));
    format!("{path} is locked by pid {pid}{whose}, which is no master of this service")
}
