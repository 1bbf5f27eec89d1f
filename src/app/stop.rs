//! `app stop`: TERM to the master, and a wait until it is gone. The pid file is the master's to empty.
#![forbid(unsafe_code)]

use super::running::Running;
use super::{Service, print, who};
use crate::error::{Error, Result, exit};
use crate::pidfile::{Content, Runs};
use crate::settings::Settings;
use crate::supervisor::control::{self, Answer, Question};
use crate::sys::process::Pid;
use crate::sys::signal::Signal;
use std::time::{Duration, Instant};

/// A stop is given up after twice `close_wait`, but a master deserves this long in any case.
const LEAST_WAIT: Duration = Duration::from_secs(2);

pub fn stop(service: &Service, settings: &Settings, force: bool) -> Result<u8> {
    print(&format!("{}: {}\n", service.name, end(settings, force)?));
    Ok(exit::DONE)
}

/// Ends the running master, if there is one, and says what came of it.
pub fn end(settings: &Settings, force: bool) -> Result<String> {
    let begun = Instant::now();
    let runs = who(settings)?;
    if runs == Runs::Hidden {
        return Err(Error::failed(hidden(settings)));
    }
    let Some(running) = Running::open(settings, runs)? else {
        let content = if let Runs::Nobody(content) = runs {
            content
        } else {
            Content::Empty
        };
        return Ok(not_running(settings, content));
    };
    let pid = running.pid;
    // What came of it is written to this connection before the master leaves. Where there is none it is not known.
    let question = if pid.is_init() {
        Question::Stop
    } else {
        Question::Report
    };
    let mut report = control::ask(&settings.place.socket, &question);
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
    let mut wait = (settings.close_wait * 2).max(LEAST_WAIT);
    let mut is_gone = running.wait_gone(wait)?;
    // It may have been started with more patience than this command knows of.
    let more = report
        .as_mut()
        .map(|report| close_wait(&report.so_far()))
        .unwrap_or_default()
        * 2;
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
    let told = close_wait(&report.so_far()).max(settings.close_wait);
    let said = report.read((told * 2).max(LEAST_WAIT)).map_err(failed)?;
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

/// How long the running one takes at most, as it told.
pub fn close_wait(told: &[Vec<String>]) -> Duration {
    let line = told
        .iter()
        .find(|line| line.first().is_some_and(|word| word == "close_wait"));
    let millis = line.and_then(|line| line.get(1)?.parse().ok());
    Duration::from_millis(millis.unwrap_or(0))
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
        text += &format!("; {finished} requests finished, {cut} cut");
    }
    let named: Vec<&str> = of("cut")
        .filter_map(|line| line.get(1))
        .map(String::as_str)
        .collect();
    if !named.is_empty() {
        text += &format!(" ({})", named.join("; "));
    }
    text
}

/// The words for "nobody runs".
pub fn not_running(settings: &Settings, content: Content) -> String {
    let path = settings.place.pid_file.display();
    match content {
        Content::Empty => "not running".to_owned(),
        Content::Pid(pid) => format!("not running; {path} names pid {pid}, which is not it"),
        Content::Garbage => format!("not running; {path} holds no pid"),
    }
}

/// The words for a lock whose holder has no number here.
pub fn hidden(settings: &Settings) -> String {
    let path = settings.place.pid_file.display();
    format!(
        "{path} is locked by a process that cannot be seen from here (another container or host); ask there"
    )
}
