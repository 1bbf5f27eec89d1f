//! The log of the service, for what your program has to say: to the file, the terminal or the log of the system that
//! `app.log_file` names, in the same form as hade's own lines, if `app.log_level` says so much.
//!
//! ```
//! hade::log::info("the cache is warm");
//! hade::log::warn(format_args!("{} notes cannot be read", 3));
//! ```
//!
//! An event is one line: other ends of lines in it become blanks, and what is longer than 4096 bytes is cut. Nothing here
//! ever stops or delays the service: a line that cannot be written at once (disk full, reader gone or stuck) is dropped
//! and counted, and the next one that can be written says how many are missing. In a command of the program's own lines
//! go to standard error, and in a test nowhere.

// One line per event, `time level pid event`, one `write(2)` each, so that lines of several processes and threads never
// mix.
//
// A file may have a bound (`rotate.rs`). The master opens and renames; a worker that meets the bound asks it, and keeps
// what it has to say until the new file comes.
#![forbid(unsafe_code)]

use crate::clock::Utc;
use crate::level::Level;
use crate::logfile::{self, Bound};
use crate::stdio;
use crate::sys::atomic::AtomicU64;
use crate::sys::fd::{self, Kind};
use crate::sys::process::Pid;
use crate::syslog::Syslog;
use std::fmt::{Arguments, Display, Write};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The longest line in bytes: what one write to a pipe keeps together (`PIPE_BUF`, `pipe(7)`).
const LONGEST: usize = 4096;

static LOST: AtomicU32 = AtomicU32::new(0);
static TO: OnceLock<To> = OnceLock::new();
static IS_COMMAND: AtomicBool = AtomicBool::new(false);

/// How long a log file was after this process last wrote a line to it. Where it still is, the line is whole.
static LENGTH: AtomicU64 = AtomicU64::new(0);
/// The last line of this process went out in part, and its end is missing.
static TORN: AtomicBool = AtomicBool::new(false);

/// How a worker asks for a new file, with room for so many bytes.
type Ask = Box<dyn Fn(usize) -> io::Result<()> + Send + Sync>;
static ASK: OnceLock<Ask> = OnceLock::new();
/// Lines of a worker that wait for the new file.
static WAITING: Mutex<String> = Mutex::new(String::new());
/// The most that waits, in bytes.
const MOST_WAITING: usize = 64 * 1024;
/// Workers have to be given the file of now.
static IS_NEW: AtomicBool = AtomicBool::new(false);
/// Nobody is left to ask: the bound counts no more.
static IS_ALONE: AtomicBool = AtomicBool::new(false);

struct To {
    level: Level,
    file: Option<File>,
    bound: Option<Bound>,
    syslog: Option<Syslog>,
    /// Standard output, opened anew so as not to wait: the one that was inherited is shared with whoever else writes
    /// there, and how a descriptor waits is a matter of all who share it.
    output: Option<OwnedFd>,
    /// Standard output and error go to the same file.
    with_stdio: bool,
}

/// Where lines go.
pub(crate) enum Sink {
    /// To a file, which may have a bound.
    File(File, Option<Bound>),
    /// To the system's log.
    System(Syslog),
    /// To standard output.
    Output,
}

/// Says where lines go from here on; and whether standard output and error were given to the file too. The first call
/// counts.
pub(crate) fn init(level: Level, sink: Sink, with_stdio: bool) {
    let (file, bound, syslog) = match sink {
        Sink::File(file, bound) => (Some(file), bound, None),
        Sink::System(syslog) => (None, None, Some(syslog)),
        Sink::Output => (None, None, None),
    };
    let is_output = file.is_none() && syslog.is_none();
    let output = is_output.then(|| fd::open_anew(1).ok()).flatten();
    let _ = TO.set(To {
        level,
        file,
        bound,
        syslog,
        output,
        with_stdio,
    });
}

/// Whether lines go to a terminal.
pub(crate) fn is_on_terminal() -> bool {
    let is_output = |to: &To| to.file.is_none() && to.syslog.is_none();
    TO.get().is_some_and(is_output) && fd::is_terminal(1)
}

/// Passes a whole line on that somebody else has made, with its end. False where nobody takes it.
pub(crate) fn pass_on(line: &str) -> bool {
    TO.get().is_some_and(|to| match &to.syslog {
        None => write_within(to, line),
        Some(syslog) => syslog.send(Level::Info, line.trim_end_matches('\n')),
    })
}

/// The file, for an exec and for workers to be handed; `None` where there is none.
pub(crate) fn file() -> Option<BorrowedFd<'static>> {
    TO.get()?.file.as_ref().map(AsFd::as_fd)
}

/// From here on this is a worker, which opens and renames nothing itself.
pub(crate) fn ask_for_files(ask: Ask) {
    let _ = ASK.set(ask);
}

/// Somebody needs room for so many bytes more. The file of now, be it the one of before, is to be given to every worker.
pub(crate) fn make_room(bytes: usize) {
    if let Some(to) = TO.get() {
        // No line is longer, whatever a worker says.
        if is_full(to, bytes.min(LONGEST)) {
            rotate(to);
        }
        IS_NEW.store(true, Relaxed);
    }
}

/// Whether workers have to be given the file of now; said once.
pub(crate) fn is_new() -> bool {
    IS_NEW.swap(false, Relaxed)
}

/// They could not be, all of them.
pub(crate) fn is_still_new() {
    IS_NEW.store(true, Relaxed);
}

/// Goes on in a file that somebody else has opened.
pub(crate) fn take_over(new: &OwnedFd) -> io::Result<()> {
    if let Some(to) = TO.get() {
        put_in_place(to, new.as_fd())?;
        write_what_waits();
    }
    Ok(())
}

/// There will be no other file: who opens them is gone, or this process ends.
pub(crate) fn stay_with_this_file() {
    IS_ALONE.store(true, Relaxed);
    write_what_waits();
}

fn put_in_place(to: &To, new: BorrowedFd<'_>) -> io::Result<()> {
    let Some(file) = &to.file else {
        return Ok(());
    };
    fd::replace(file, new)?;
    if let Some(bound) = &to.bound {
        bound.settle(file.as_raw_fd());
    }
    match to.with_stdio {
        true => stdio::redirect(Some(new)),
        false => Ok(()),
    }
}

fn is_full(to: &To, bytes: usize) -> bool {
    let bound = to.file.as_ref().zip(to.bound.as_ref());
    bound.is_some_and(|(file, bound)| bound.is_passed(file.as_raw_fd(), bytes))
}

/// Puts a full file aside. What cannot be helped is said in the one that goes on.
fn rotate(to: &To) {
    let (Some(file), Some(bound)) = (&to.file, &to.bound) else {
        return;
    };
    match bound
        .next(file)
        .and_then(|new| put_in_place(to, new.as_fd()))
    {
        Ok(()) => IS_NEW.store(true, Relaxed),
        Err(error) => {
            bound.settle(file.as_raw_fd());
            let text = bound.failure(&error);
            write(to, &render(Level::Error, format_args!("{text}")));
        }
    }
}

fn waiting() -> MutexGuard<'static, String> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_what_waits() {
    let Some(to) = TO.get() else { return };
    // Kept until all are written: what another thread says meanwhile comes behind them.
    let mut waiting = waiting();
    let waited = std::mem::take(&mut *waiting);
    // One that is small may be full again before they all are in it.
    let lines = waited.split_inclusive('\n');
    let lost = lines.filter(|line| !write_behind(to, &mut waiting, line));
    LOST.fetch_add(lost.count() as u32, Relaxed);
}

/// Writes a line to a file within its bound; in a worker it may have to wait for the next file. False where it is lost.
fn write_within(to: &To, line: &str) -> bool {
    match &to.bound {
        Some(_) => write_behind(to, &mut waiting(), line),
        None => write(to, line),
    }
}

/// The same behind what waits already.
fn write_behind(to: &To, waiting: &mut String, line: &str) -> bool {
    let is_full = || is_full(to, line.len());
    let must_wait = match ASK.get() {
        Some(_) if IS_ALONE.load(Relaxed) => false,
        Some(ask) => !waiting.is_empty() || is_full() && ask(line.len()).is_ok(),
        None => {
            if is_full() {
                rotate(to);
            }
            false
        }
    };
    if !must_wait {
        return write(to, line);
    }
    let has_room = waiting.len() + line.len() <= MOST_WAITING;
    if has_room {
        waiting.push_str(line);
    }
    has_room
}

/// Puts a newly opened file in the place of the old one, in one step for every thread. False where there is none.
pub(crate) fn reopen(path: &Path) -> io::Result<bool> {
    let Some(to @ To { file: Some(_), .. }) = TO.get() else {
        return Ok(false);
    };
    put_in_place(to, logfile::open(path)?.as_fd())?;
    write_what_waits();
    IS_NEW.store(true, Relaxed);
    Ok(true)
}

/// Something broke, and somebody has to act.
///
/// ```
/// hade::log::error("the database is gone");
/// ```
pub fn error(event: impl Display) {
    line(Level::Error, format_args!("{event}"));
}

/// Something broke, and the service goes on.
///
/// ```
/// hade::log::warn("the database answers slowly");
/// ```
pub fn warn(event: impl Display) {
    line(Level::Warn, format_args!("{event}"));
}

/// A step in the life of the service.
///
/// ```
/// hade::log::info("the cache is warm");
/// ```
pub fn info(event: impl Display) {
    line(Level::Info, format_args!("{event}"));
}

/// For those who look into the program.
///
/// ```
/// hade::log::debug("a miss in the cache");
/// ```
pub fn debug(event: impl Display) {
    line(Level::Debug, format_args!("{event}"));
}

/// Says something on the terminal that standard error is, if it is one that takes it now.
pub(crate) fn tell_terminal(text: &str) {
    if fd::is_terminal(2) {
        let _ = fd::write_at_once(2, text.as_bytes());
    }
}

/// From here on this process is no service, and says what it has to say on standard error.
pub(crate) fn to_standard_error() {
    IS_COMMAND.store(true, Relaxed);
}

fn line(level: Level, event: Arguments<'_>) {
    let Some(to) = TO.get() else {
        if IS_COMMAND.load(Relaxed) && level <= Level::Info {
            let mut text = format!("{level} ");
            append(&mut text, event);
            let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        }
        return;
    };
    if level > to.level {
        return;
    }
    let lost = LOST.swap(0, Relaxed);
    let said = format_args!("{lost} log lines before this one were lost");
    if lost > 0 && !send(to, Level::Warn, said) {
        LOST.fetch_add(lost, Relaxed);
    }
    if !send(to, level, event) {
        LOST.fetch_add(1, Relaxed);
    }
}

fn send(to: &To, level: Level, event: Arguments<'_>) -> bool {
    match &to.syslog {
        None => write_within(to, &render(level, event)),
        Some(syslog) => {
            let mut text = String::with_capacity(120);
            append(&mut text, event);
            syslog.send(level, text.trim_end_matches('\n'))
        }
    }
}

fn render(level: Level, event: Arguments<'_>) -> String {
    let mut line = String::with_capacity(160);
    let _ = write!(line, "{} {level} {} ", Utc::now(), Pid::own());
    append(&mut line, event);
    line
}

/// What happened, as the rest of one line that is not too long, and its end.
fn append(line: &mut String, event: Arguments<'_>) {
    let start = line.len();
    let _ = line.write_fmt(event);
    if line[start..].contains(|c: char| c.is_control()) {
        let clean: String = line[start..]
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        line.replace_range(start.., &clean);
    }
    if line.len() >= LONGEST {
        let cut = (0..LONGEST)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        line.truncate(cut);
    }
    line.push('\n');
}

/// Whether the whole line went out. One that a full disk has torn, whoever wrote it, is ended before the next one.
fn write(to: &To, line: &str) -> bool {
    let file = to.file.as_ref().map(File::as_raw_fd);
    let number = file.or(to.output.as_ref().map(OwnedFd::as_raw_fd));
    let number = number.unwrap_or(1);
    let kind = fd::kind(number);
    let is_torn = match kind {
        Kind::File(length) if length == 0 || length == LENGTH.load(Relaxed) => false,
        Kind::File(_) => fd::ends_amid_line(number).unwrap_or_else(|| TORN.load(Relaxed)),
        _ => TORN.load(Relaxed),
    };
    let ended;
    let bytes = if is_torn {
        ended = format!("\n{line}");
        ended.as_bytes()
    } else {
        line.as_bytes()
    };
    let written = fd::write_without_waiting(number, kind, bytes).unwrap_or(0);
    let is_whole = written == bytes.len();
    if written > 0 {
        TORN.store(!is_whole, Relaxed);
    }
    if let (Kind::File(length), true) = (kind, is_whole) {
        LENGTH.store(length + written as u64, Relaxed);
    }
    is_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_bounded() {
        let text = render(
            Level::Warn,
            format_args!("GET /a\r\nfake {}", "ü".repeat(5000)),
        );
        assert!(text.len() <= LONGEST && text.ends_with('\n'));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(
            text.contains(&format!(" warn {} GET /a  fake ü", Pid::own())),
            "{text}"
        );
        assert_eq!(&text[23..25], "Z ");
    }
}
