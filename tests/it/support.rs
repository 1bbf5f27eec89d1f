//! A directory of its own for every test, the real binary in it, and conditions to wait for. The one sleep is here.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The ready binary.
pub const HADE: &str = env!("CARGO_BIN_EXE_hade");

/// The application with handlers that are slow, large, wrong or deadly.
pub fn demo() -> PathBuf {
    let path = Path::new(HADE).with_file_name("examples").join("demo");
    assert!(
        path.exists(),
        "{} is missing: \"cargo test\" builds it, a single target does not",
        path.display()
    );
    path
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    fn of(output: Output) -> Done {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Done {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Exit status 0 and nothing on standard error; the standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            (self.code, self.err.as_str()),
            (Some(0), ""),
            "stdout: {}",
            self.out
        );
        self.out
    }

    /// This exit status and nothing on standard output; the standard error.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(
            (self.code, self.out.as_str()),
            (Some(code), ""),
            "stderr: {}",
            self.err
        );
        self.err
    }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory. When it goes, what still runs in it is stopped, by TERM, then by KILL; where the test
/// failed, the log is shown first.
pub struct Place {
    pub dir: PathBuf,
    program: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        Place::of(Path::new(HADE))
    }

    pub fn demo() -> Place {
        Place::of(&demo())
    }

    pub fn of(program: &Path) -> Place {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hade-it-{}-{number}", std::process::id()));
        fs::create_dir(&dir).expect("a fresh directory");
        Place {
            dir,
            program: program.to_owned(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        self.read("run/app.log")
    }

    /// The program with nothing of this process's environment but PATH.
    pub fn command(&self, args: &[&str]) -> Command {
        self.wrapped(&[], args)
    }

    /// The program behind others that execute it: `unshare`, `strace`, a shell.
    pub fn wrapped(&self, before: &[&str], args: &[&str]) -> Command {
        let program = self.program.to_str().unwrap();
        let mut words = before
            .iter()
            .copied()
            .chain([program])
            .chain(args.iter().copied());
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(&self.dir).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null());
        command
    }

    /// Runs `<program> app <args>` to its end.
    pub fn app(&self, args: &[&str]) -> Done {
        let args: Vec<&str> = ["app"].into_iter().chain(args.iter().copied()).collect();
        run(&mut self.command(&args))
    }

    /// Starts a daemon on a free port of 127.0.0.1, with more flags; where it is.
    #[track_caller]
    pub fn start(&self, more: &[&str]) -> Site {
        let args: Vec<&str> = ["start", "--daemon", "--address", "127.0.0.1:0"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        Site::of(&self.app(&args).ok())
    }

    /// The number in the pid file.
    pub fn pid(&self) -> Option<u32> {
        self.read("run/app.pid").trim().parse().ok()
    }

    /// Starts `<program> app start <args>` in the foreground and waits for its word.
    #[track_caller]
    pub fn foreground(&self, args: &[&str]) -> Foreground {
        let args: Vec<&str> = ["app", "start", "--address", "127.0.0.1:0"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        Foreground::of(self.command(&args))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- run/app.log in {}\n{}---",
                self.dir.display(),
                self.log()
            );
        }
        // Whatever works in this directory is this test's: masters, workers, and what they left behind.
        for signal in ["-TERM", "-KILL"] {
            let ours = working_in(&self.dir);
            if ours.is_empty() {
                break;
            }
            let _ = Command::new("kill")
                .arg(signal)
                .args(ours.iter().map(u32::to_string))
                .stderr(Stdio::null())
                .status();
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until && !working_in(&self.dir).is_empty() {
                pause();
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Live processes whose working directory this is, or one below it.
pub fn working_in(dir: &Path) -> Vec<u32> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&dir))
    })
    .collect()
}

/// A process in the foreground, ended with the test.
pub struct Foreground {
    pub child: Child,
    pub site: Site,
}

impl Foreground {
    #[track_caller]
    pub fn of(mut command: Command) -> Foreground {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let mut text = String::new();
        let mut byte = [0];
        let out = child.stdout.as_mut().unwrap();
        // The announcement ends with the line about the log.
        while !(text.ends_with('\n') && text.contains("\n  log ")) {
            match out.read(&mut byte) {
                Ok(1) => text.push(byte[0] as char),
                _ => {
                    let mut err = String::new();
                    let _ = child.stderr.as_mut().unwrap().read_to_string(&mut err);
                    panic!("it ended before it was ready: {text}{err}");
                }
            }
        }
        Foreground {
            child,
            site: Site::of(&text),
        }
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end: the exit status.
    #[track_caller]
    pub fn end(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(20, "the foreground process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running application, as its start announced it.
#[derive(Debug, Clone)]
pub struct Site {
    pub pid: u32,
    /// What stands behind "on": `http://127.0.0.1:4711`.
    pub url: String,
}

impl Site {
    #[track_caller]
    pub fn of(announcement: &str) -> Site {
        // In the foreground the first lines of the log stand before it.
        let mut lines = announcement.lines();
        let line = lines.clone().find(|line| line.contains(": started, pid "));
        let line = line.or_else(|| lines.next()).unwrap_or_default();
        let pid = line
            .split("pid ")
            .nth(1)
            .and_then(|rest| rest.split(',').next()?.parse().ok());
        let url = line.split(" on ").nth(1).map(str::to_owned);
        let (Some(pid), Some(url)) = (pid, url) else {
            panic!("not an announcement: {announcement}")
        };
        Site { pid, url }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub fn port(&self) -> u16 {
        self.url
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .expect("a port")
    }

    #[track_caller]
    pub fn connect(&self) -> Wire {
        Wire::to(self.address())
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        let mut wire = self.connect();
        wire.send(format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        ));
        wire.answer()
    }
}

/// A connection to a server, with a limit on every wait.
pub struct Wire {
    pub stream: TcpStream,
    /// Received and not yet given out.
    rest: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Everything before the blank line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }
}

impl Wire {
    #[track_caller]
    pub fn to(address: impl ToSocketAddrs) -> Wire {
        Wire::from(TcpStream::connect(address).expect("a connection"))
    }

    #[track_caller]
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream
            .write_all(text.as_ref())
            .expect("the request goes out");
    }

    /// The next answer; one to HEAD with `answer_without_body`.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.read_answer(true).expect("an answer")
    }

    #[track_caller]
    pub fn answer_without_body(&mut self) -> Answer {
        self.read_answer(false).expect("an answer")
    }

    /// The next answer, or why there was none.
    pub fn read_answer(&mut self, has_body: bool) -> Result<Answer, String> {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if self.more()? == 0 {
                return Err(format!(
                    "the connection ended after {:?}",
                    String::from_utf8_lossy(&self.rest)
                ));
            }
        };
        let head = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        self.rest.drain(..end + 4);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or(format!("no status in {head:?}"))?;
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let length = answer
            .header("Content-Length")
            .map_or(0, |length| length.parse().unwrap());
        if has_body && answer.header("Transfer-Encoding") == Some("chunked") {
            answer.body = self.chunks()?;
        } else if has_body {
            while self.rest.len() < length {
                if self.more()? == 0 {
                    return Err(format!("{} of {length} body bytes", self.rest.len()));
                }
            }
            answer.body = self.rest.drain(..length).collect();
        }
        Ok(answer)
    }

    /// A chunked body, put together.
    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.rest.windows(2).position(|two| two == b"\r\n") {
                    Some(at) => break at,
                    None if self.more()? == 0 => return Err("the end in a chunk size".to_owned()),
                    None => {}
                }
            };
            let size = String::from_utf8_lossy(&self.rest[..end]).into_owned();
            let size =
                usize::from_str_radix(&size, 16).map_err(|error| format!("{size}: {error}"))?;
            let (start, end) = (end + 2, end + 2 + size + 2);
            while self.rest.len() < end {
                if self.more()? == 0 {
                    return Err(format!("the end after {} body bytes", body.len()));
                }
            }
            if &self.rest[end - 2..end] != b"\r\n" {
                return Err("a chunk does not end where its size says".to_owned());
            }
            body.extend_from_slice(&self.rest[start..end - 2]);
            self.rest.drain(..end);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Everything up to the end of the connection, and whether that was in good order.
    pub fn rest(&mut self) -> (Vec<u8>, bool) {
        let ended = loop {
            match self.more() {
                Ok(0) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        (std::mem::take(&mut self.rest), ended)
    }

    /// Waits until something can be read, and leaves it where it is.
    #[track_caller]
    pub fn wait_begun(&self) {
        let peeked = retry(|| self.stream.peek(&mut [0]));
        assert_eq!(peeked.expect("an answer begins"), 1, "it is closed");
    }

    fn more(&mut self) -> Result<usize, String> {
        let mut buffer = [0; 65536];
        let count = retry(|| self.stream.read(&mut buffer)).map_err(|error| error.to_string())?;
        self.rest.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Whether the server closed the connection in good order, with nothing more on it.
    pub fn is_closed(&mut self) -> bool {
        self.rest.is_empty() && matches!(self.more(), Ok(0))
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Done {
    Done::of(command.output().expect("it can be run"))
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// The worker processes of a master.
pub fn workers(master: u32) -> Vec<u32> {
    let children =
        fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Whether a process is there and not merely waiting to be collected.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Waits for a condition, and fails with its name when it does not come.
#[track_caller]
pub fn wait_until(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < until, "never came in {seconds} s: {what}");
        pause();
    }
}

/// Says that a test is skipped and why, past the test runner, which keeps the output of tests that pass to itself. In
/// CI nothing is skipped.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Whether a tool is installed; says out loud what is skipped where it is not. In CI nothing is.
pub fn has(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    if !found {
        crate::support::skip(&format!("needs {tool}"));
    }
    found
}

// Serving and leaving: requests by hand, requests held open, and what a process costs.

/// A plain request on a connection that stays open.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n")
}

/// A request with a body on a connection that stays open.
pub fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}")
}

impl Place {
    /// Waits for these words in the log.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) {
        wait_until(20, &format!("{words:?} in the log"), || {
            self.log().contains(words)
        });
    }

    /// Starts the demo in the foreground with its log in `run/app.log`.
    #[track_caller]
    pub fn foreground_with_log(&self, args: &[&str]) -> Foreground {
        self.foreground(&[&["--set", "app.log_file=run/app.log"], args].concat())
    }

    /// A request that its handler has and will not answer before [`Place::release`].
    #[track_caller]
    pub fn hold(&self, site: &Site, name: &str) -> Wire {
        let mut wire = site.connect();
        wire.send(get(&format!("/hold?name={name}")));
        self.wait_held(name);
        wire
    }

    #[track_caller]
    pub fn wait_held(&self, name: &str) {
        let held = self.path(&format!("{name}.held"));
        wait_until(20, &format!("{name} reaches its handler"), || held.exists());
    }

    pub fn release(&self, name: &str) {
        self.write(&format!("{name}.go"), "");
    }

    /// Begins `<program> app <args>`; [`finish`] waits for its end.
    pub fn begin(&self, args: &[&str]) -> Child {
        let args: Vec<&str> = ["app"].into_iter().chain(args.iter().copied()).collect();
        let mut command = self.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it can be run")
    }

    /// Waits until no process of this test is left.
    #[track_caller]
    pub fn wait_empty(&self, seconds: u64) {
        wait_until(seconds, "no process is left behind", || {
            working_in(&self.dir).into_iter().all(|pid| !is_alive(pid))
        });
    }
}

/// A request with a chunked body, in chunks of this size, on a connection that stays open.
pub fn post_chunked(target: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut text = head.into_bytes();
    for piece in body.chunks(size) {
        text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

/// So many bytes of which no stretch is like the next.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| b'a' + ((at ^ (at >> 7) ^ (at >> 15)) % 23) as u8)
        .collect()
}

/// What a command did that was begun before.
pub fn finish(child: Child) -> Done {
    Done::of(child.wait_with_output().expect("it ends"))
}

impl Site {
    /// The worker, where there is one.
    #[track_caller]
    pub fn worker(&self) -> u32 {
        let workers = workers(self.pid);
        assert_eq!(workers.len(), 1, "one worker");
        workers[0]
    }

    /// Waits until new connections are refused, which is what a drain begins with.
    #[track_caller]
    pub fn wait_refused(&self) {
        wait_until(10, "new connections are refused", || {
            TcpStream::connect(self.address())
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
    }

    /// Waits until this worker is replaced; the new ones.
    #[track_caller]
    pub fn wait_replaced(&self, dead: u32, wanted: usize) -> Vec<u32> {
        let mut now = Vec::new();
        wait_until(10, &format!("worker {dead} is replaced"), || {
            now = workers(self.pid);
            !now.contains(&dead) && now.len() == wanted
        });
        now
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Wire {
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        stream.set_write_timeout(limit).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire {
            stream,
            rest: Vec::new(),
        }
    }
}

impl Wire {
    /// The answer to one more request on this connection.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(get(target));
        self.answer()
    }

    /// Sends what the server may well not want to read to its end.
    pub fn try_send(&mut self, text: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(text.as_ref());
    }

    /// Sends so many bytes at a time, with a pause after each; stops where the server does not want more.
    pub fn drip(&mut self, text: &str, size: usize, pauses: u32) {
        for piece in text.as_bytes().chunks(size) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
            (0..pauses).for_each(|_| pause());
        }
    }

    /// Reads so many bytes at most and forgets them, then pauses; how many they were.
    pub fn sip(&mut self, most: usize) -> std::io::Result<usize> {
        let taken = std::mem::take(&mut self.rest).len();
        let mut buffer = vec![0; most];
        let count = retry(|| self.stream.read(&mut buffer))?;
        pause();
        Ok(taken + count)
    }

    /// Whether the connection is over, in good order or not, with nothing more on it.
    pub fn is_gone(&mut self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        let mut byte = [0];
        match retry(|| self.stream.read(&mut byte)) {
            Ok(count) => count == 0 && self.rest.is_empty(),
            Err(error) => matches!(error.kind(), ConnectionReset | BrokenPipe),
        }
    }

    /// Whether the connection is open with nothing to read.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.rest.is_empty()
            && read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// Turned away at once for want of room, and told when to come again.
#[track_caller]
pub fn assert_overloaded(wire: &mut Wire) {
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Retry-After")),
        (503, Some("1"))
    );
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(wire.is_closed());
}

/// Asks on one connection after the other until none is taken any more: how many answers there were, and what was lost.
pub fn asks_to_the_end(address: String) -> JoinHandle<(u64, Vec<String>)> {
    std::thread::spawn(move || {
        let (mut answers, mut losses) = (0, Vec::new());
        while let Ok(stream) = TcpStream::connect(&address) {
            let mut wire = Wire::from(stream);
            wire.try_send(get("/hello"));
            match wire.read_answer(true) {
                Ok(answer) if answer.text() == "Hello, World!" => answers += 1,
                other => losses.push(format!("{other:?}")),
            }
        }
        (answers, losses)
    })
}

/// Stops a process and waits until none of its threads runs any more; CONT lets it go on. Without the wait a signal that is sent
/// next could still be delivered before the STOP.
#[track_caller]
pub fn freeze(pid: u32) {
    signal(pid, "STOP");
    wait_until(5, &format!("{pid} is stopped"), || {
        threads(pid).iter().all(|(id, _)| {
            let path = format!("/proc/{pid}/task/{id}/stat");
            let stat = fs::read_to_string(path).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    });
}

/// Threads of a process by number and name.
pub fn threads(pid: u32) -> Vec<(u32, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let ids = tasks
        .flatten()
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok());
    let named = |id: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/task/{id}/comm")).unwrap_or_default();
        (id, name.trim_end().to_owned())
    };
    ids.map(named).collect()
}

/// A read with a time limit is not taken up again by the kernel after a stop or a tracer: signal(7).
fn retry<T>(mut read: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The same, once nothing has been opened or closed for a tenth of a second.
#[track_caller]
pub fn settled_descriptors(pid: u32) -> usize {
    let (mut last, mut looks) = (0, 0);
    wait_until(5, "descriptors settle", || {
        let now = descriptors(pid);
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        looks == 10
    });
    last
}

/// How often threads of this name went to sleep by themselves: every system call that waits is one. An empty name
/// means all threads.
pub fn sleeps(pid: u32, name: &str) -> u64 {
    let threads = threads(pid)
        .into_iter()
        .filter(|(_, own)| name.is_empty() || own == name);
    let count = |id: u32| {
        let path = format!("/proc/{pid}/task/{id}/status");
        let status = fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("voluntary"));
        line.and_then(|line| line.split_whitespace().last()?.parse().ok())
            .unwrap_or(0)
    };
    threads.map(|(id, _)| count(id)).sum::<u64>()
}

/// Lets some time pass during which something is to hold.
#[track_caller]
pub fn holds_for(millis: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < until {
        assert!(condition(), "no longer so: {what}");
        pause();
    }
}

// For tests of what happens to a running application.

/// Clients that ask in a loop until they are told to stop.
pub struct Hammer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What clients met.
#[derive(Debug)]
pub struct Tally {
    pub answered: u64,
    /// What went wrong.
    pub failed: Vec<String>,
    /// The longest time between two answers to the same client.
    pub gap: Duration,
    last: Instant,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            answered: 0,
            failed: Vec::new(),
            gap: Duration::ZERO,
            last: Instant::now(),
        }
    }

    /// Counts an answer that must be this.
    pub fn count(&mut self, answer: Result<Answer, String>, expected: &[u8]) {
        match answer {
            Ok(answer) if answer.status == 200 && answer.body == expected => {
                self.answered += 1;
                self.gap = self.gap.max(self.last.elapsed());
                self.last = Instant::now();
            }
            Ok(answer) => self.failed.push(format!(
                "{}, {} bytes: {}",
                answer.head,
                answer.body.len(),
                answer.text().chars().take(80).collect::<String>()
            )),
            Err(why) => self.failed.push(why),
        }
    }

    fn add(&mut self, other: Tally) {
        self.answered += other.answered;
        self.failed.extend(other.failed);
        self.gap = self.gap.max(other.gap);
    }
}

impl Default for Hammer {
    fn default() -> Hammer {
        Hammer::new()
    }
}

impl Hammer {
    pub fn new() -> Hammer {
        Hammer {
            stop: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// One client with a new connection for every request and one that keeps its own, at an easy pace.
    pub fn easy(address: &str) -> Hammer {
        let (one, other) = (address.to_owned(), address.to_owned());
        let mut kept = None;
        Hammer::new()
            .with(move |tally| {
                once(&one, "/hello", tally, b"Hello, World!");
                pause();
            })
            .with(move |tally| {
                again(&mut kept, &other, tally);
                pause();
            })
    }

    /// One more client.
    pub fn with(mut self, mut ask: impl FnMut(&mut Tally) + Send + 'static) -> Hammer {
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || {
            let mut tally = Tally::new();
            // A client that meets nothing but failures need not fill the memory with them.
            while !stop.load(Ordering::SeqCst) && tally.failed.len() < 20 {
                ask(&mut tally);
            }
            tally
        }));
        self
    }

    /// Ends it: nothing may have failed.
    #[track_caller]
    pub fn end(self) -> Tally {
        let tally = self.end_with_failures();
        assert!(
            tally.failed.is_empty(),
            "{} answered, {} failed: {:#?}",
            tally.answered,
            tally.failed.len(),
            tally.failed
        );
        assert!(tally.answered > 0, "nobody asked");
        tally
    }

    pub fn end_with_failures(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut sum = Tally::new();
        for thread in self.threads.drain(..) {
            sum.add(thread.join().expect("a client does not panic"));
        }
        sum
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// One request on a connection of its own, counted.
pub fn once(address: &str, target: &str, tally: &mut Tally, expected: &[u8]) {
    let answer = TcpStream::connect(address)
        .map_err(|error| format!("connect: {error}"))
        .and_then(|stream| {
            let mut wire = Wire::over(stream);
            wire.ask(&format!(
                "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
            ))
        });
    tally.count(answer, expected);
}

/// One more request on a connection that is never to be closed.
pub fn again(kept: &mut Option<Wire>, address: &str, tally: &mut Tally) {
    if kept.is_none() {
        match TcpStream::connect(address) {
            Ok(stream) => *kept = Some(Wire::over(stream)),
            Err(error) => return tally.failed.push(format!("connect: {error}")),
        }
    }
    let Some(wire) = kept else { return };
    let answer = wire.ask("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
    let stays = matches!(&answer, Ok(answer) if answer.header("Connection").is_none());
    if let (false, Ok(answer)) = (stays, &answer) {
        tally
            .failed
            .push(format!("a kept connection is closed: {}", answer.head));
    }
    tally.count(answer, b"Hello, World!");
    if !stays {
        *kept = None;
    }
}

impl Wire {
    pub fn over(stream: TcpStream) -> Wire {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let _ = stream.set_nodelay(true);
        Wire {
            stream,
            rest: Vec::new(),
        }
    }

    /// Asks, and reads the answer; why there was none.
    pub fn ask(&mut self, request: &str) -> Result<Answer, String> {
        self.stream
            .write_all(request.as_bytes())
            .map_err(|error| format!("send: {error}"))?;
        self.read_answer(true)
    }

    /// Receives at most this much, slowly.
    pub fn gulp(&mut self, most: usize) -> Result<Vec<u8>, String> {
        pause();
        let mut buffer = vec![0; most];
        let count = self
            .stream
            .read(&mut buffer)
            .map_err(|error| error.to_string())?;
        buffer.truncate(count);
        Ok(buffer)
    }
}

impl Place {
    /// Puts a copy of the demo into the directory, and starts it from there as [`Place::start`] does. Commands go on
    /// to be those of the demo that nobody touches.
    #[track_caller]
    pub fn start_copy(&self, more: &[&str]) -> Site {
        self.put_demo("prog");
        let args: Vec<&str> = ["start", "--daemon", "--address", "127.0.0.1:0"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        Site::of(&self.app_of("prog", &args).ok())
    }

    /// Runs `<dir>/<name> app <args>` to its end.
    pub fn app_of(&self, name: &str, args: &[&str]) -> Done {
        run(&mut self.command_of(name, args))
    }

    pub fn command_of(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.path(name));
        command
            .arg("app")
            .args(args)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    /// Starts the demo where there seems to be so much memory; a quarter of it is what clients may make it keep. Needs
    /// namespaces.
    #[track_caller]
    pub fn start_with_memory(&self, bytes: usize, more: &[&str]) -> Site {
        let script = r#"
            bytes=$1; shift
            mount -t tmpfs none /sys/fs/cgroup
            echo "$bytes" >/sys/fs/cgroup/memory.max
            exec "$@"
        "#;
        let bytes = bytes.to_string();
        let before = ["unshare", "-rm", "sh", "-ec", script, "sh", &bytes];
        let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
        Site::of(&run(&mut self.wrapped(&before, &[&args[..], more].concat())).ok())
    }

    /// Gives the directory to a user that nobody else is, and commands that run as that user: a limit of threads counts
    /// all that a user has.
    pub fn as_new_user(&self) -> impl Fn() -> Command + use<> {
        static USERS: AtomicU32 = AtomicU32::new(0);
        let number = USERS.fetch_add(1, Ordering::Relaxed);
        let user = (1_000_000 + 16 * std::process::id() + number).to_string();
        self.sh(r#"chown "$1" ."#, &[&user]);
        move || {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
            command
        }
    }

    /// Puts the demo under this name in one step, as `mv` does.
    pub fn put_demo(&self, name: &str) {
        let new = self.path(&format!("{name}.new"));
        if fs::hard_link(demo(), &new).is_err() {
            fs::copy(demo(), &new).unwrap();
        }
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Puts an executable file with this content there, in one step. It is a process of its own that writes it: a
    /// file that this process has open for writing may be open in a child of another test's at the same moment, and
    /// could not be executed then (ETXTBSY).
    pub fn put_program(&self, name: &str, content: &str) {
        self.sh(
            r#"printf '%s' "$2" >"$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#,
            &[name, content],
        );
    }

    /// Runs a line of shell in the directory.
    #[track_caller]
    pub fn sh(&self, line: &str, args: &[&str]) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh"]).args(args);
        run(command.current_dir(&self.dir)).ok()
    }

    /// What `state --json` says under a key; of a list or an object the beginning.
    #[track_caller]
    pub fn fact(&self, key: &str) -> String {
        let json = self.app(&["state", "--json"]).ok();
        fact(&json, key)
    }

    #[track_caller]
    pub fn count(&self, key: &str) -> u64 {
        let fact = self.fact(key);
        fact.parse().unwrap_or_else(|_| panic!("{key}: {fact}"))
    }
}

/// The value of a key in one object of JSON.
#[track_caller]
pub fn fact(json: &str, key: &str) -> String {
    let name = format!("\"{key}\":");
    let at = json.find(&name).unwrap_or_else(|| panic!("{key}: {json}"));
    json[at + name.len()..]
        .split([',', '}', '\n'])
        .next()
        .unwrap()
        .trim_matches('"')
        .to_owned()
}

/// The one worker of a master.
#[track_caller]
pub fn worker(master: u32) -> u32 {
    let mut found = Vec::new();
    wait_until(10, "one worker", || {
        found = workers(master);
        found.len() == 1
    });
    found[0]
}

/// A command that runs meanwhile.
pub struct Meanwhile(Option<Child>);

impl Meanwhile {
    pub fn new(mut command: Command) -> Meanwhile {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Meanwhile(Some(child.spawn().expect("it can be run")))
    }

    pub fn is_over(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Its end, which must come in time.
    #[track_caller]
    pub fn end(mut self, seconds: u64) -> Done {
        wait_until(seconds, "the command ends", || self.is_over());
        Done::of(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The effective user of this process.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    let root = fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0);
    if !root {
        crate::support::skip("needs root");
    }
    root
}

impl Site {
    /// As a restart announced it; or a start, for what did not run.
    #[track_caller]
    pub fn after(said: &str) -> Site {
        let line = said.lines().next().unwrap_or_default();
        let Some((_, rest)) = line.split_once(": restarted, pid ") else {
            return Site::of(said);
        };
        let (pid, rest) = rest.split_once(", on ").expect("an announcement");
        let (url, _) = rest.split_once(", worker ").expect("an announcement");
        Site {
            pid: pid.parse().expect("a pid"),
            url: url.to_owned(),
        }
    }
}
