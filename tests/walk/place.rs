//! A directory and an address for each injection, the program in it, and what can be seen from outside.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const HADE: &str = env!("CARGO_BIN_EXE_hade");
/// The longest wait for anything. It is longer than every limit of the program's own, on a busy machine too.
pub const LIMIT: Duration = Duration::from_secs(40);
/// What is to be gone after `close_wait` and a second is looked for this long.
pub const GONE: Duration = Duration::from_secs(12);
/// The only thing that is asked for.
const PATH: &str = "/demo/demo";
const BODY: &[u8] = b"\"this is demo for all\"\n";

/// Between two looks. The one sleep of this program.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begun.elapsed() > limit {
            return false;
        }
        pause();
    }
}

/// The shell's own kill, of one process that this program or one of its children started.
pub fn signal(name: &str, pid: u32) {
    let _ = Command::new("/bin/sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "kill", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// A number from a line of `/proc/PID/status`.
pub fn field(status: &str, name: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

pub fn parent(pid: u32) -> Option<u32> {
    field(&status(pid), "PPid:")
}

pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

/// Waits until it is stopped by a signal, and not by a tracer.
pub fn wait_stopped(pid: u32) -> Result<(), String> {
    let is_stopped = || status(pid).contains("State:\tT");
    match wait_until(LIMIT, is_stopped) {
        true => Ok(()),
        false => Err(format!("pid {pid} does not stop")),
    }
}

/// What a command did.
#[derive(Debug, Default, Clone)]
pub struct Done {
    /// None: it was killed by a signal, or it did not end and was killed for it.
    pub code: Option<i32>,
    pub hung: bool,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn words(&self) -> String {
        let status = match (self.hung, self.code) {
            (true, _) => "did not end".to_owned(),
            (_, Some(code)) => format!("exit {code}"),
            (_, None) => "killed by a signal".to_owned(),
        };
        let said = if self.err.is_empty() {
            &self.out
        } else {
            &self.err
        };
        format!(
            "{status}, said: {}",
            said.lines().next().unwrap_or("nothing")
        )
    }
}

/// A command on its way.
pub struct Running {
    pub child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn end(&mut self) -> Done {
        let hung = !wait_until(LIMIT, || self.has_ended());
        if hung {
            let _ = self.child.kill();
        }
        let code = self.child.wait().ok().and_then(|status| status.code());
        Done {
            code,
            hung,
            out: self.out(),
            err: fs::read_to_string(&self.err).unwrap_or_default(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory.
pub struct Place {
    pub dir: PathBuf,
    /// 127.x.y.z: no other injection has it, so a port on it is nobody else's.
    host: String,
    next: AtomicU32,
}

impl Place {
    pub fn new() -> Result<Place, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = std::process::id();
        let dir = std::env::temp_dir().join(format!("hade-walk-{own}-{number}"));
        let make = || {
            fs::create_dir_all(dir.join("site/etc"))?;
            fs::write(dir.join("site/etc/app.conf"), "app.close_wait = 1\n")
        };
        make().map_err(|e: std::io::Error| format!("{}: {e}", dir.display()))?;
        let host = format!(
            "127.{}.{}.{}",
            64 + own % 128,
            number / 250 % 250,
            1 + number % 250
        );
        Ok(Place {
            dir,
            host,
            next: AtomicU32::new(0),
        })
    }

    pub fn any_port(&self) -> String {
        format!("{}:0", self.host)
    }

    /// Starts a command, at once or stopped before its first instruction.
    pub fn spawn(&self, args: &[&str], stopped: bool) -> Result<Running, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (
            self.dir.join(format!("{number}.out")),
            self.dir.join(format!("{number}.err")),
        );
        let script = if stopped {
            "kill -STOP $$; exec \"$@\""
        } else {
            "exec \"$@\""
        };
        let file = |path: &Path| File::create(path).map_err(|e| e.to_string());
        let child = Command::new("/bin/sh")
            .args(["-c", script, "sh", HADE, "app"])
            .args(args)
            .current_dir(self.dir.join("site"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(file(&out)?)
            .stderr(file(&err)?)
            .spawn()
            .map_err(|e| e.to_string())?;
        let running = Running { child, out, err };
        if stopped {
            wait_stopped(running.pid())?;
        }
        Ok(running)
    }

    pub fn app(&self, args: &[&str]) -> Result<Done, String> {
        Ok(self.spawn(args, false)?.end())
    }

    pub fn rotate(&self) {
        let _ = fs::rename(self.dir.join("site/run/app.log"), self.dir.join("old.log"));
    }

    pub fn has_log(&self) -> bool {
        !self.log().is_empty()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("site/run/app.log")).unwrap_or_default()
    }

    /// Live processes that work in this directory, but for those named.
    pub fn processes(&self) -> Vec<u32> {
        let site = fs::canonicalize(self.dir.join("site")).unwrap_or_else(|_| self.dir.clone());
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&site))
            })
            .collect()
    }

    /// The same with their command lines.
    pub fn left(&self) -> String {
        let line = |pid: u32| format!("{pid} ({})", command_line(pid));
        Vec::from_iter(self.processes().into_iter().map(line)).join(", ")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < GONE {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                signal("KILL", pid);
            }
            pause();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `host:port` of what a command announced.
pub fn address(said: &str) -> Option<String> {
    let rest = said.split_once(" on http://")?.1;
    let end = rest.find([',', '\n', ' ']).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

/// The pid in an announcement.
pub fn pid(said: &str) -> Option<u32> {
    let rest = said.split_once("pid ")?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// A kept connection.
pub fn connect(address: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).map_err(|e| format!("connect: {e}"))?;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(8)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(8)));
    Ok(stream)
}

/// One request on it. `Ok(false)`: the connection was closed instead, in good order or by a reset.
pub fn ask(stream: &mut TcpStream) -> Result<bool, String> {
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: t\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return Ok(false);
    }
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) if answer.is_empty() => return Ok(false),
            Ok(0) => return Err("an answer ends early".to_owned()),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                return Err("no answer, and the connection stays open".to_owned());
            }
            Err(_) => return Ok(false),
        }
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        if answer.len() >= end + 4 + BODY.len() {
            let is_right = answer.starts_with(b"HTTP/1.1 200 ") && &answer[end + 4..] == BODY;
            return match is_right {
                true => Ok(true),
                false => Err(format!(
                    "wrong answer: {:?}",
                    String::from_utf8_lossy(&answer)
                )),
            };
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Err(format!(
                "wrong answer: {:?}",
                String::from_utf8_lossy(&answer)
            ));
        }
    }
}

/// Whether a new connection is answered now.
pub fn answers(address: &str) -> bool {
    matches!(
        connect(address).and_then(|mut wire| ask(&mut wire)),
        Ok(true)
    )
}

/// Whether a new connection is answered, within the time in which a worker can be replaced.
pub fn serves(address: &str) -> Result<(), String> {
    let mut last = String::new();
    let good = wait_until(LIMIT, || {
        match connect(address).and_then(|mut wire| ask(&mut wire)) {
            Ok(true) => true,
            Ok(false) => {
                last = "closed without an answer".to_owned();
                false
            }
            Err(why) => {
                last = why;
                false
            }
        }
    });
    if good { Ok(()) } else { Err(last) }
}
