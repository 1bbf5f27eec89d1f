//! The access log of a worker: answers that ended become lines in a buffer, and one thread of its own writes these out, a
//! moment later and at the end. Whoever answers waits for no card and for no reader: what does not fit is counted, and the
//! log says how much that was.
//!
//! A file of its own is opened by the master, at its start and for USR1; workers get it from there.
#![forbid(unsafe_code)]

use super::access::{Answered, Asked, line};
use super::checked::Checked;
use crate::access::{AccessLog, Format};
use crate::clock::Utc;
use crate::log;
use crate::logfile::{self, Bound};
use crate::settings::Settings;
use crate::sys::fd::{self, Kind};
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The most that waits to be written, in bytes.
const MOST: usize = 64 * 1024;
/// Lines are collected for so long, unless half of that comes sooner.
const MOMENT: Duration = Duration::from_millis(300);
/// What is lost is said no more often than this.
const SAID: Duration = Duration::from_secs(10);
/// The end of a worker waits no longer than this for the last lines.
const LAST: Duration = Duration::from_secs(1);

/// What is full and is to be replaced is looked for again after so long.
const FULL: Duration = Duration::from_millis(10);

/// The file of this process, where the log has one of its own, and its bound.
static FILE: OnceLock<(File, Option<Bound>)> = OnceLock::new();
/// Workers have to be given the file of now.
static IS_NEW: AtomicBool = AtomicBool::new(false);
/// Nobody is left to ask for another: the bound counts no more.
static IS_ALONE: AtomicBool = AtomicBool::new(false);

/// How a worker asks for a new file, with room for so many bytes.
type Ask = Box<dyn Fn(usize) -> io::Result<()> + Send + Sync>;
static ASK: OnceLock<Ask> = OnceLock::new();

/// Says which file it is, and how long it may become. The first call counts.
pub(crate) fn init(file: Option<File>, settings: &Settings) {
    if let Some((file, path)) = file.zip(settings.access_log.file()) {
        let bound = Bound::new(path, settings.log_max);
        let _ = FILE.set((file, bound));
    }
}

/// From here on this is a worker, which opens and renames nothing itself.
pub(crate) fn ask_for_files(ask: Ask) {
    let _ = ASK.set(ask);
}

/// There will be no other file: who opens them is gone.
pub(crate) fn stay_with_this_file() {
    IS_ALONE.store(true, Relaxed);
}

/// Somebody needs room for so many bytes more. The file of now, be it the one of before, is to be given to every worker.
pub(crate) fn make_room(bytes: usize) {
    let Some((file, Some(bound))) = FILE.get() else {
        return;
    };
    if bound.is_passed(file.as_raw_fd(), bytes) {
        let next = bound.next(file);
        let replaced = next.and_then(|new| fd::replace(file, new.as_fd()));
        bound.settle(file.as_raw_fd());
        if let Err(error) = replaced {
            log::error(format_args!("{}", bound.failure(&error)));
        }
    }
    IS_NEW.store(true, Relaxed);
}

/// The file, for workers to be handed; `None` where there is none.
pub(crate) fn file() -> Option<BorrowedFd<'static>> {
    FILE.get().map(|(file, _)| file.as_fd())
}

/// Puts a newly opened file in the place of the old one, in one step for every thread.
pub(crate) fn reopen(path: &Path) -> io::Result<()> {
    take_over(logfile::open(path)?.as_fd())?;
    IS_NEW.store(true, Relaxed);
    Ok(())
}

/// Goes on in a file that somebody else has opened.
pub(crate) fn take_over(new: BorrowedFd<'_>) -> io::Result<()> {
    let Some((file, bound)) = FILE.get() else {
        return Ok(());
    };
    fd::replace(file, new)?;
    if let Some(bound) = bound {
        bound.settle(file.as_raw_fd());
    }
    Ok(())
}

/// Whether workers have to be given the file of now; said once.
pub(crate) fn is_new() -> bool {
    IS_NEW.swap(false, Relaxed)
}

/// They could not be, all of them.
pub(crate) fn is_still_new() {
    IS_NEW.store(true, Relaxed);
}

/// Where lines go from this worker.
#[derive(Clone, Copy)]
enum To {
    File(&'static File, Option<&'static Bound>),
    Log,
}

/// The buffer, and whoever empties it.
pub(crate) struct Record {
    format: Format,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Bytes that the thread has taken and not yet written.
    taken: usize,
    /// Lines that did not fit since this was last said.
    lost: u64,
    is_closed: bool,
    is_done: bool,
}

impl Record {
    /// `None` where no answer is to be told of.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(settings: &Settings) -> io::Result<Option<Arc<Record>>> {
        let to = match &settings.access_log {
            AccessLog::On => To::Log,
            AccessLog::Auto if log::is_on_terminal() => To::Log,
            AccessLog::Auto | AccessLog::Off => return Ok(None),
            AccessLog::File(_) => match FILE.get() {
                Some((file, bound)) => To::File(file, bound.as_ref()),
                None => return Ok(None),
            },
        };
        let record = Arc::new(Record::new(settings.access_format));
        let writer = Arc::clone(&record);
        thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || writer.write_out(&mut Out::new(to)))?;
        Ok(Some(record))
    }

    fn new(format: Format) -> Record {
        Record {
            format,
            waiting: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &str) {
        let mut waiting = self.waiting();
        let before = waiting.lines.len();
        if before + waiting.taken + line.len() > MOST {
            waiting.lost += 1;
            return;
        }
        waiting.lines.extend_from_slice(line.as_bytes());
        let after = waiting.lines.len();
        drop(waiting);
        if before == 0 || before < MOST / 2 && after >= MOST / 2 {
            self.wake.notify_one();
        }
    }

    /// The life of the thread that writes.
    fn write_out(&self, out: &mut Out) {
        let mut said: Option<Instant> = None;
        loop {
            let mut waiting = self.waiting();
            let is_stuck = !out.rest.is_empty();
            while !is_stuck && waiting.lines.is_empty() && waiting.lost == 0 && !waiting.is_closed {
                waiting = self
                    .wake
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let moment = if out.is_full { FULL } else { MOMENT };
            let waited = self.wake.wait_timeout_while(waiting, moment, |waiting| {
                !waiting.is_closed && (is_stuck || waiting.lines.len() < MOST / 2)
            });
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            let is_last = waiting.is_closed;
            if out.rest.is_empty() || is_last {
                out.rest.append(&mut waiting.lines);
            }
            waiting.taken = out.rest.len();
            drop(waiting);

            out.is_last = is_last;
            let mut lost = out.write();
            if is_last {
                lost += out.rest.iter().filter(|byte| **byte == b'\n').count() as u64;
            }

            let mut waiting = self.waiting();
            waiting.taken = out.rest.len();
            waiting.lost += lost;
            let is_due = is_last || said.is_none_or(|said| said.elapsed() >= SAID);
            let lost = match is_due {
                true => std::mem::take(&mut waiting.lost),
                false => 0,
            };
            drop(waiting);
            if lost > 0 {
                said = Some(Instant::now());
                out.say_lost(lost);
            }
            if is_last {
                self.waiting().is_done = true;
                return self.done.notify_all();
            }
        }
    }

    /// Has the last lines written, and waits for that; not for ever.
    pub fn finish(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        self.wake.notify_one();
        let _ = self
            .done
            .wait_timeout_while(waiting, LAST, |waiting| !waiting.is_done);
    }
}

/// The way out of the buffer.
struct Out {
    to: To,
    /// Whole lines that are to be written next.
    rest: Vec<u8>,
    /// The last line in the file was written in part.
    is_torn: bool,
    /// How long the file was when a whole line was at its end.
    length: u64,
    /// Why the last ones could not be written.
    failure: Option<io::Error>,
    /// The file takes no more, and another one was asked for.
    is_full: bool,
    asked: Option<Instant>,
    /// Nothing comes after this.
    is_last: bool,
}

impl Out {
    fn new(to: To) -> Out {
        Out {
            to,
            rest: Vec::new(),
            is_torn: false,
            length: 0,
            failure: None,
            is_full: false,
            asked: None,
            is_last: false,
        }
    }

    /// Writes as much as is taken. The number of lines that were lost.
    fn write(&mut self) -> u64 {
        let mut lost = 0;
        while !self.rest.is_empty() {
            let (count, result) = match self.to {
                To::Log => self.first_to_log(),
                To::File(file, bound) => match fd::kind(file.as_raw_fd()) {
                    Kind::File(length) => self.all_to_file(file, length, bound),
                    kind => self.first_to_stream(file, kind),
                },
            };
            // A line that went out in part is lost, for others write there too.
            let is_whole = count == 0 || self.rest[count - 1] == b'\n';
            let end = match is_whole {
                true => count,
                false => count + first_line(&self.rest[count..]),
            };
            self.rest.drain(..end);
            if count > 0 {
                self.is_torn = !is_whole;
                lost += u64::from(!is_whole);
            }
            self.failure = result.err();
            if self.failure.is_some() {
                break;
            }
        }
        self.rest.shrink_to(MOST);
        lost
    }

    fn first_to_log(&self) -> (usize, io::Result<()>) {
        let end = first_line(&self.rest);
        let text = String::from_utf8_lossy(&self.rest[..end]);
        match log::pass_on(&text) {
            true => (end, Ok(())),
            false => (0, Err(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// So many bytes of whole lines that the file has room for.
    fn fitting(&self, file: &File, bound: Option<&Bound>) -> usize {
        let bound = bound.filter(|_| !self.is_last && !IS_ALONE.load(Relaxed));
        let room = bound.and_then(|bound| bound.room(file.as_raw_fd()));
        match (bound, room) {
            (None, _) => self.rest.len(),
            // It is empty.
            (Some(bound), None) => self.whole_lines(bound.most()).max(first_line(&self.rest)),
            (_, Some(room)) => self.whole_lines(room),
        }
    }

    fn whole_lines(&self, room: u64) -> usize {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let within = &self.rest[..self.rest.len().min(room)];
        let end = within.iter().rposition(|byte| *byte == b'\n');
        end.map_or(0, |end| end + 1)
    }

    /// One write, so that lines of several workers do not mix. What a full disk has torn, whichever worker wrote it, is
    /// ended before.
    fn all_to_file(
        &mut self,
        mut file: &File,
        before: u64,
        bound: Option<&Bound>,
    ) -> (usize, io::Result<()>) {
        let fitting = self.fitting(file, bound);
        self.is_full = fitting == 0;
        if self.is_full {
            if self.asked.is_none_or(|asked| asked.elapsed() > MOMENT) {
                self.asked = Some(Instant::now());
                let _ = ASK.get().map(|ask| ask(first_line(&self.rest)));
            }
            return (0, Err(io::ErrorKind::WouldBlock.into()));
        }
        self.asked = None;
        let is_torn = match before {
            0 => false,
            length if length == self.length => false,
            _ => fd::ends_amid_line(file.as_raw_fd()).unwrap_or(self.is_torn),
        };
        if is_torn {
            if let Err(error) = file.write_all(b"\n") {
                return (0, Err(error));
            }
        }
        self.is_torn = false;
        match file.write(&self.rest[..fitting]) {
            Ok(0) => (0, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                if self.rest[count - 1] == b'\n' {
                    self.length = before + u64::from(is_torn) + count as u64;
                }
                (count, Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, Ok(())),
            Err(error) => (0, Err(error)),
        }
    }

    fn first_to_stream(&self, file: &File, kind: Kind) -> (usize, io::Result<()>) {
        let line = &self.rest[..first_line(&self.rest)];
        match fd::write_without_waiting(file.as_raw_fd(), kind, line) {
            Ok(count) => (count, Ok(())),
            Err(error) => (0, Err(error)),
        }
    }

    fn say_lost(&self, lost: u64) {
        let why = match &self.failure {
            Some(error) if error.kind() != io::ErrorKind::WouldBlock => error.to_string(),
            _ => "they are not taken in time".to_owned(),
        };
        log::warn(format_args!(
            "{lost} lines of the access log were lost: {why}"
        ));
    }
}

/// How long the first line is, with its end.
fn first_line(bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    end.map_or(bytes.len(), |end| end + 1)
}

/// What is known of a request.
pub(crate) enum Known {
    Request(Arc<Checked>),
    /// What has come of one that cannot be read, or of none.
    Bytes(Vec<u8>),
}

/// An answer on its way out. However it ends, it is let go of then, and becomes a line.
pub(crate) struct Entry {
    record: Arc<Record>,
    client: Option<IpAddr>,
    known: Known,
    status: u16,
    begun: Instant,
    /// Bytes of the head of the answer.
    pub head: u64,
    /// Bytes that went out.
    pub sent: u64,
}

impl Entry {
    /// `begun`: when its first byte came in.
    pub fn new(
        record: &Arc<Record>,
        client: Option<IpAddr>,
        known: Known,
        status: u16,
        begun: Instant,
    ) -> Entry {
        Entry {
            record: Arc::clone(record),
            client,
            known,
            status,
            begun,
            head: 0,
            sent: 0,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let target;
        let (asked, referer, agent) = match &self.known {
            Known::Request(checked) => {
                if self.status == 200 && checked.path() == "/healthz" {
                    return;
                }
                target = match checked.query() {
                    Some(query) => format!("{}?{query}", checked.path()),
                    None => checked.path().to_owned(),
                };
                let field = |name| checked.head.field(&checked.bytes, name);
                let asked = Asked::Request {
                    method: checked.method(),
                    target: &target,
                    minor: checked.head.minor,
                };
                (asked, field("Referer"), field("User-Agent"))
            }
            Known::Bytes(bytes) => {
                // Empty lines may stand before a request.
                let mut lines = bytes.split(|byte| matches!(byte, b'\r' | b'\n'));
                let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
                (Asked::Line(line), None, None)
            }
        };
        self.record.add(&line(
            self.record.format,
            &Answered {
                at: Utc::now(),
                client: self.client,
                asked,
                status: self.status,
                bytes: self.sent.saturating_sub(self.head),
                millis: self.begun.elapsed().as_millis() as u64,
                referer,
                agent,
            },
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_has_a_bound_and_what_does_not_fit_is_counted() {
        let record = Record::new(Format::Short);
        let line = format!("{}\n", "x".repeat(999));
        record.waiting().taken = 10_000;
        (0..100).for_each(|_| record.add(&line));
        let waiting = record.waiting();
        assert_eq!((waiting.lines.len(), waiting.lost), (55_000, 45));
    }

    #[test]
    fn an_answer_is_told_of_when_it_is_let_go_of() {
        let record = Arc::new(Record::new(Format::Combined));
        let told = |text: &str, status| {
            let known = match text.ends_with("\r\n\r\n") {
                true => Known::Request(Arc::new(Checked::of_text(text))),
                false => Known::Bytes(text.into()),
            };
            let mut entry = Entry::new(&record, None, known, status, Instant::now());
            (entry.head, entry.sent) = (100, 110);
            assert!(record.waiting().lines.is_empty());
            drop(entry);
            String::from_utf8(std::mem::take(&mut record.waiting().lines)).unwrap()
        };
        assert!(
            told("GET /a?b HTTP/1.1\r\nHost: t\r\n\r\n", 200)
                .contains("\"GET /a?b HTTP/1.1\" 200 10 ")
        );
        assert!(told("\r\nGET /a HT", 408).contains("\"GET /a HT\" 408 10 "));
        let health = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
        assert_eq!(told(health, 200), "");
        assert!(told(health, 503).contains("/healthz"));
    }

    #[test]
    fn what_a_full_device_does_not_take_waits_and_is_named() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut out = Out::new(To::File(Box::leak(Box::new(file)), None));
        out.rest = b"one\ntwo\n".to_vec();
        assert_eq!((out.write(), out.rest.len()), (0, 8));
        let failure = out.failure.as_ref().map(ToString::to_string);
        assert!(failure.unwrap().starts_with("No space left on device"));
    }

    #[test]
    fn a_line_that_was_torn_is_ended_before_the_next() {
        let path = std::env::temp_dir().join(format!("hade-torn-{}", std::process::id()));
        std::fs::write(&path, "the begin").unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        let mut out = Out::new(To::File(Box::leak(Box::new(file)), None));
        out.is_torn = true;
        for line in ["two\n", "three\n"] {
            out.rest = line.into();
            assert_eq!(out.write(), 0);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "the begin\ntwo\nthree\n");
    }

    #[test]
    fn a_line_that_another_worker_has_torn_is_ended_too() {
        let path = std::env::temp_dir().join(format!("hade-torn-beside-{}", std::process::id()));
        let open = || {
            let file = File::options().append(true).create(true).open(&path);
            &*Box::leak(Box::new(file.unwrap()))
        };
        let (mut ours, mut theirs) = (Out::new(To::File(open(), None)), open());
        let mut write = |line: &str| {
            ours.rest = line.into();
            assert_eq!(ours.write(), 0);
        };
        write("one\n");
        theirs.write_all(b"the beg").unwrap();
        write("two\n");
        write("three\n");
        theirs.write_all(b"whole\n").unwrap();
        write("four\n");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "one\nthe beg\ntwo\nthree\nwhole\nfour\n");
    }
}
