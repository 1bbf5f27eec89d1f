//! The control socket: one line asks, the answer ends with the connection. The master's end lives in its poll loop
//! and waits for nobody: who is slow, silent or talks nonsense is dropped. [`ask`] is the commands' end.
#![forbid(unsafe_code)]

use super::words;
use crate::listener;
use crate::pidfile::Process;
use crate::sys::fd::{self, Wait};
use crate::sys::process::{self, Pid};
use crate::sys::socket;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Only the owner may connect; SO_PEERCRED is asked as well.
const MODE: u32 = 0o600;
/// A question must be complete within this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// A question that was dropped is put again for this long.
const AGAIN: Duration = Duration::from_secs(1);
/// Connections at a time; the one that has been asking the longest makes room.
const MOST: usize = 16;
/// How long accepting is given up when the kernel has no descriptor to give.
const DEAF: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Longest question in bytes.
const LONGEST: usize = 16 * 1024;
/// Longest answer in bytes; a master of another user may be anything.
const LONGEST_ANSWER: usize = 1 << 20;

/// What the commands ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// How is it? Answered at once.
    State,
    /// Restart, with these flags on top of what it was started with. Answered when it is over.
    Restart(Vec<String>),
    /// What came of the stop? Told at once how long that may take, and answered at the end.
    Report,
    /// Stop, then report: for a master that is PID 1 and thus not to be signalled.
    Stop,
}

impl Question {
    fn encode(&self) -> String {
        match self {
            Question::State => "state".to_owned(),
            Question::Report => "report".to_owned(),
            Question::Stop => "stop".to_owned(),
            Question::Restart(flags) => words::pack(
                ["restart"]
                    .into_iter()
                    .chain(flags.iter().map(String::as_str)),
            ),
        }
    }

    fn decode(line: &str) -> Option<Question> {
        let mut words = words::unpack_text(line).into_iter();
        match words.next()?.as_str() {
            "state" => Some(Question::State),
            "report" => Some(Question::Report),
            "stop" => Some(Question::Stop),
            "restart" => Some(Question::Restart(words.collect())),
            _ => None,
        }
    }
}

/// A command that waits for an answer.
pub(crate) struct Asker {
    fd: OwnedFd,
    line: Vec<u8>,
    since: Instant,
}

impl Asker {
    /// One that came through an exec, and waits.
    pub fn adopt(fd: OwnedFd) -> Asker {
        Asker {
            fd,
            line: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Sends lines of words, and hangs up with that.
    pub fn answer(self, lines: &[Vec<String>]) {
        self.tell(lines);
        // A wrapper of the program may have left somebody behind who has this socket, too.
        socket::shutdown_write(self.fd.as_fd());
    }

    /// Waits until the other side has read and hung up, or for so long.
    pub fn wait_gone(&self, within: Duration) {
        socket::shutdown_write(self.fd.as_fd());
        let _ = fd::poll(&mut [Wait::readable(&self.fd)], Some(within));
    }

    /// Sends lines of words. What does not fit is the asker's loss.
    pub fn tell(&self, lines: &[Vec<String>]) {
        let text: String = lines.iter().map(|line| words::pack(line) + "\n").collect();
        let _ = socket::send(self.fd.as_fd(), &[IoSlice::new(text.as_bytes())]);
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The master's end.
pub(crate) struct Control {
    listener: OwnedFd,
    path: PathBuf,
    askers: Vec<Asker>,
    /// Nothing can be accepted before this time.
    deaf_until: Option<Instant>,
}

impl Control {
    /// Binds it; one that a master left behind which is gone is replaced, and one that somebody listens on is not.
    pub fn bind(path: &Path) -> io::Result<Control> {
        listener::remove_stale(path)?;
        let listener = socket::listen_unix(path, MODE, BACKLOG)?;
        Ok(Control::adopt(listener, path))
    }

    /// For a container that has no place for it.
    pub fn nowhere(path: &Path) -> io::Result<Control> {
        Ok(Control::adopt(socket::listen_nowhere(BACKLOG)?, path))
    }

    /// The one of before an exec.
    pub fn adopt(listener: OwnedFd, path: &Path) -> Control {
        Control {
            listener,
            path: path.to_owned(),
            askers: Vec::new(),
            deaf_until: None,
        }
    }

    /// Binds it anew where its path does not lead here any more; whether it did. Who has asked already goes on waiting.
    pub fn renew(&mut self) -> io::Result<bool> {
        match socket::connect_unix(&self.path) {
            Ok(fd) if socket::peer(fd.as_fd())?.0 == Some(Pid::own()) => return Ok(false),
            // Its queue is full: somebody listens there.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            _ => {}
        }
        listener::remove_stale(&self.path)?;
        self.listener = socket::listen_unix(&self.path, MODE, BACKLOG)?;
        Ok(true)
    }

    /// Everything to wait on.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = self.deaf_until.is_none().then(|| self.listener.as_fd());
        listener
            .into_iter()
            .chain(self.askers.iter().map(AsFd::as_fd))
    }

    /// The listener, which an exec hands over.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// When the next asker has taken too long, or accepting is worth another try.
    pub fn deadline(&self) -> Option<Instant> {
        self.askers
            .iter()
            .map(|asker| asker.since + PATIENCE)
            .chain(self.deaf_until)
            .min()
    }

    /// Looks at everybody, and returns what was asked.
    pub fn questions(&mut self) -> Vec<(Question, Asker)> {
        let mut questions = Vec::new();
        self.deaf_until = self.deaf_until.filter(|until| *until > Instant::now());
        while self.deaf_until.is_none() {
            match socket::accept(self.listener.as_fd()) {
                Ok((fd, _)) => self.admit(fd, &mut questions),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // No descriptor to be had: asking again at once would be all that the master does.
                Err(_) => self.deaf_until = Some(Instant::now() + DEAF),
            }
        }
        self.listen(&mut questions);
        questions
    }

    fn admit(&mut self, fd: OwnedFd, questions: &mut Vec<(Question, Asker)>) {
        if !socket::peer(fd.as_fd()).is_ok_and(|(_, uid)| uid == 0 || uid == process::euid()) {
            return;
        }
        if self.askers.len() >= MOST {
            self.listen(questions);
        }
        if self.askers.len() >= MOST {
            self.askers.remove(0);
        }
        self.askers.push(Asker {
            fd,
            line: Vec::new(),
            since: Instant::now(),
        });
    }

    fn listen(&mut self, questions: &mut Vec<(Question, Asker)>) {
        for mut asker in std::mem::take(&mut self.askers) {
            match asker.listen() {
                Some(Some(question)) => questions.push((question, asker)),
                Some(None) => self.askers.push(asker),
                None => {}
            }
        }
    }

    /// Removes the socket's file: at the end.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Asker {
    /// `None`: it is of no use any more. `Some(None)`: no whole question yet.
    fn listen(&mut self) -> Option<Option<Question>> {
        let mut buffer = [0; 4096];
        loop {
            match socket::receive(self.fd.as_fd(), &mut buffer) {
                // Whoever has asked may have nothing more to say, or may have given up before anybody listened.
                Ok(0) if self.line.contains(&b'\n') => {
                    if socket::has_hung_up(self.fd.as_fd()) {
                        return None;
                    }
                    break;
                }
                Ok(0) => return None,
                Ok(count) => self.line.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            }
            if self.line.len() > LONGEST {
                return None;
            }
        }
        match self.line.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = std::str::from_utf8(&self.line[..end]).ok()?;
                Question::decode(line).map(Some)
            }
            None => (self.since.elapsed() < PATIENCE).then_some(None),
        }
    }
}

/// A question on its way; reading is [`Answer::read`].
pub(crate) struct Answer {
    stream: UnixStream,
    text: Vec<u8>,
}

/// Who listens there, as the user whose socket it is; `None` where nobody does. A process may have left its socket to
/// another one, and its number too: only one that still runs as that user counts.
///
/// # Errors
/// Nobody can tell, or it is somebody whose word does not count.
pub(crate) fn who(path: &Path) -> io::Result<Option<Process>> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let stream = match socket::connect_unix(path) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::NotFound
            ) =>
        {
            return Ok(None);
        }
        stream => stream?,
    };
    let (pid, uid) = socket::peer(stream.as_fd())?;
    let pid = pid.ok_or_else(|| io::Error::other("it is listened on by a process that cannot be seen from here (another container or host)"))?;
    let us = process::euid();
    let may_tell = us == 0 || us == uid || uid == 0;
    if may_tell && uid == found.uid() && process::user_of(pid)? == Some(uid) {
        return Ok(Some(Process { pid, uid }));
    }
    let text =
        format!("it is listened on by pid {pid} of uid {uid}, which is no master of this service");
    Err(io::Error::other(text))
}

/// Asks the master, and nobody else who may listen there.
pub(crate) fn ask(path: &Path, master: Process, question: &Question) -> io::Result<Answer> {
    let mut stream = UnixStream::from(socket::connect_unix(path)?);
    let (pid, uid) = socket::peer(stream.as_fd())?;
    if pid != Some(master.pid) || (uid != master.uid && uid != 0) {
        let who = pid.map_or_else(
            || "a process that cannot be seen from here".to_owned(),
            |pid| format!("pid {pid} of uid {uid}"),
        );
        let text = format!("it is {who} that listens there, and not the master");
        return Err(io::Error::other(text));
    }
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all((question.encode() + "\n").as_bytes())?;
    Ok(Answer {
        stream,
        text: Vec::new(),
    })
}

/// Asks and waits for the whole answer. See [`ask_until_heard_and`].
pub(crate) fn ask_until_heard(
    path: &Path,
    master: Process,
    question: &Question,
    within: Duration,
) -> io::Result<Vec<Vec<String>>> {
    ask_until_heard_and(path, master, question, |answer| answer.read(within))
}

/// Asks, and has the answer read. A master that is just becoming the program on disk drops who has not been heard, and
/// where a crowd asks the queue may be full: such a question is put again.
pub(crate) fn ask_until_heard_and(
    path: &Path,
    master: Process,
    question: &Question,
    read: impl Fn(&mut Answer) -> io::Result<Vec<Vec<String>>>,
) -> io::Result<Vec<Vec<String>>> {
    let begun = Instant::now();
    loop {
        let answer = ask(path, master, question).and_then(|mut answer| read(&mut answer));
        let is_dropped = |error: &io::Error| {
            use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof, WouldBlock};
            matches!(
                error.kind(),
                BrokenPipe | ConnectionReset | UnexpectedEof | WouldBlock
            )
        };
        match answer {
            Err(error) if is_dropped(&error) && begun.elapsed() < AGAIN => {
                std::thread::sleep(AGAIN / 100)
            }
            answer => return answer,
        }
    }
}

impl Answer {
    /// Whether the master has taken the question; where the kernel cannot tell it has.
    pub fn is_heard(&self) -> bool {
        socket::unread(self.stream.as_fd()).map_or(true, |bytes| bytes == 0)
    }

    /// What has been told so far.
    pub fn so_far(&mut self) -> Vec<Vec<String>> {
        let mut buffer = [0; 4096];
        while self.text.len() < LONGEST_ANSWER {
            match socket::receive(self.stream.as_fd(), &mut buffer) {
                Ok(count @ 1..) => self.text.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        self.lines()
    }

    fn lines(&self) -> Vec<Vec<String>> {
        String::from_utf8_lossy(&self.text)
            .lines()
            .map(words::unpack_text)
            .collect()
    }

    /// Waits for the whole answer; an error when it does not end within the time, or is empty. After the time it can be
    /// waited for again.
    pub fn read(&mut self, within: Duration) -> io::Result<Vec<Vec<String>>> {
        let until = Instant::now() + within;
        let mut buffer = [0; 4096];
        loop {
            let left = until
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.text.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
            let has_no_end = "it does not come to an end";
            if self.text.len() >= LONGEST_ANSWER {
                return Err(io::Error::other(has_no_end));
            }
            if until <= Instant::now() {
                let text = match self.text.is_empty() {
                    true => format!("no answer within {} s", within.as_secs()),
                    false => has_no_end.to_owned(),
                };
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
        }
        match self.text.is_empty() {
            true => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "it hung up without an answer",
            )),
            false => Ok(self.lines()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_takes_longer_is_whole_in_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut answer = Answer {
            stream: ours,
            text: Vec::new(),
        };
        let mut is_late = |text: &str| {
            let error = answer.read(Duration::ZERO).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (ErrorKind::TimedOut, text)
            );
        };
        is_late("no answer within 0 s");
        theirs.write_all(b"done\ta").unwrap();
        // It is read after the time, and not lost by that.
        is_late("it does not come to an end");
        theirs.write_all(b"b\n").unwrap();
        drop(theirs);
        let said = answer.read(Duration::from_secs(60)).unwrap();
        assert_eq!(said, [["done", "ab"]]);
    }

    #[test]
    fn questions_come_through_in_any_pieces_and_nonsense_does_not() {
        let flags = vec!["--set".to_owned(), "app.log_file=a\tb".to_owned()];
        for question in [
            Question::State,
            Question::Report,
            Question::Stop,
            Question::Restart(flags),
        ] {
            assert_eq!(Question::decode(&question.encode()), Some(question));
        }
        assert_eq!(Question::decode("hello"), None);

        let path = std::env::temp_dir().join(format!("hade-control-{}", std::process::id()));
        let mut control = Control::bind(&path).unwrap();
        let asked = |control: &mut Control| -> Vec<Question> {
            control
                .questions()
                .into_iter()
                .map(|(question, _)| question)
                .collect()
        };
        let mut slow = UnixStream::connect(&path).unwrap();
        slow.write_all(b"sta").unwrap();
        assert_eq!(asked(&mut control), []);
        let mut nonsense = UnixStream::connect(&path).unwrap();
        nonsense.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        slow.write_all(b"te\nmore").unwrap();
        assert_eq!(asked(&mut control), [Question::State]);
        assert_eq!(control.askers.len(), 0);
        // A crowd of silent ones: the last of them is still heard.
        let crowd: Vec<UnixStream> = (0..MOST * 2)
            .map(|_| UnixStream::connect(&path).unwrap())
            .inspect(|_| {
                assert_eq!(asked(&mut control), []);
            })
            .collect();
        assert_eq!(control.askers.len(), MOST);
        (&crowd[MOST * 2 - 1]).write_all(b"report\n").unwrap();
        assert_eq!(asked(&mut control), [Question::Report]);
        control.remove();
        assert!(!path.exists());
    }
}
