//! Runs a command and watches, from outside, for what it brings about: an HTTP answer, or the end of a process.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for anything.
pub const CAP: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_micros(100);

/// Both times run from just before the spawn.
pub struct Times {
    pub command: Duration,
    /// `None`: not within the cap.
    pub event: Option<Duration>,
}

/// Runs the command with nothing in its environment but `PATH` (cargo's variables are not part of a usual start) and
/// polls for the event meanwhile and afterwards. The output goes to a file, for a daemon may keep a pipe open.
pub fn run_until(
    mut command: Command,
    output: &Path,
    mut seen: impl FnMut() -> bool,
) -> Result<Times, String> {
    let file =
        File::create(output).map_err(|e| format!("cannot write {}: {e}", output.display()))?;
    let twin = file.try_clone().map_err(|e| e.to_string())?;
    command.stdin(Stdio::null()).stdout(file).stderr(twin);
    command.env_clear().env("PATH", crate::servers::PATH);

    let begin = Instant::now();
    let mut child = command
        .spawn()
        .map_err(|e| format!("cannot run {command:?}: {e}"))?;
    let pid = child.id();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let status = child.wait();
        let _ = tell.send((status, begin.elapsed()));
    });

    let mut ended = None;
    let mut event = None;
    while begin.elapsed() < CAP {
        if seen() {
            event = Some(begin.elapsed());
            break;
        }
        if ended.is_none() {
            ended = told.try_recv().ok();
        }
        if matches!(&ended, Some((Ok(status), _)) if !status.success()) {
            break;
        }
        thread::sleep(PAUSE);
    }
    let ended = match ended {
        Some(ended) => ended,
        None => told.recv_timeout(CAP).map_err(|_| {
            kill("KILL", &[pid]);
            format!(
                "{command:?} still ran after {} s",
                begin.elapsed().as_secs()
            )
        })?,
    };
    match ended {
        (Ok(status), time) if status.success() => Ok(Times {
            command: time,
            event,
        }),
        (Ok(status), _) => {
            let said = fs::read_to_string(output).unwrap_or_default();
            Err(format!("{command:?}: {status}: {}", said.trim()))
        }
        (Err(e), _) => Err(format!("cannot wait for {command:?}: {e}")),
    }
}

/// The wall time of a whole command that must succeed.
pub fn run(command: Command, output: &Path) -> Result<Duration, String> {
    // The polling stops at once, so that only the thread which waits is left running.
    Ok(run_until(command, output, || true)?.command)
}

/// Polls for something that needs no command.
pub fn wait_until(condition: impl FnMut() -> bool) -> bool {
    wait_every(PAUSE, condition)
}

/// Polls less often, where clients at work need the processor.
pub fn wait_every(pause: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < CAP {
        if condition() {
            return true;
        }
        thread::sleep(pause);
    }
    false
}

pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    // While nobody listens yet, the kernel may pick the very port as the source and connect the socket to itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_read_timeout(Some(CAP))?;
    Ok(stream)
}

/// Whether a new connection gets a complete answer with status 200.
pub fn answers(address: SocketAddr, path: &str) -> bool {
    connect(address).is_ok_and(|mut stream| get(&mut stream, path, "close").is_ok())
}

/// One request and the whole of its answer; any status but 200 is an error.
pub fn get(stream: &mut TcpStream, path: &str, connection: &str) -> io::Result<()> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        if is_complete(&answer)? {
            return Ok(());
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend_from_slice(&part[..n]),
        }
    }
}

fn is_complete(answer: &[u8]) -> io::Result<bool> {
    let head = read_head(answer)?;
    Ok(head.is_some_and(|head| answer.len() >= head.size + head.length))
}

/// Of an answer.
pub struct Head {
    pub status: u16,
    pub size: usize,
    /// The body's.
    pub length: usize,
    /// The server says that it will close the connection.
    pub closes: bool,
}

/// `None` while it is not complete; any status but 200 is an error.
pub fn read_head(answer: &[u8]) -> io::Result<Option<Head>> {
    match read_any_head(answer)? {
        Some(head) if head.status != 200 => {
            Err(io::Error::other(format!("answered {}", head.status)))
        }
        head => Ok(head),
    }
}

/// `None` while it is not complete.
pub fn read_any_head(answer: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let line = head.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("http/1.1 ")
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("answered \"{line}\"")))?;
    let field = |name: &str| {
        let line = head.split("\r\n").find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let length = field("content-length:")
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| io::Error::other(format!("answered {status} without a length")))?;
    Ok(Some(Head {
        status,
        size: end + 4,
        length,
        closes: field("connection:") == Some("close"),
    }))
}

/// Gone, or a zombie that only waits for its parent.
pub fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// State and parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    Some((
        stat_word(pid, 3)?.chars().next()?,
        stat_word(pid, 4)?.parse().ok()?,
    ))
}

/// A word of `/proc/PID/stat`, by its number in proc_pid_stat(5), which is more than 2.
fn stat_word(pid: u32, number: usize) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, a parenthesis too.
    let mut words = text[text.rfind(')')? + 1..].split_whitespace();
    words.nth(number - 3).map(str::to_string)
}

/// What processes have used so far.
pub struct Used {
    /// Processor time, of user and system.
    pub seconds: f64,
    /// Voluntary context switches of the threads that are there.
    pub switches: f64,
    pub threads: usize,
}

pub fn used(pids: &[u32]) -> Used {
    // proc_pid_stat(5) counts in hundredths of a second wherever Linux runs.
    let ticks = |number| move |pid: &u32| stat_word(*pid, number)?.parse::<f64>().ok();
    let sum = |number| pids.iter().filter_map(ticks(number)).sum::<f64>();
    let tasks = pids
        .iter()
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    let tasks: Vec<_> = tasks.flatten().flatten().collect();
    let switches = tasks.iter().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<f64>().ok()
    });
    Used {
        seconds: (sum(14) + sum(15)) / 100.0,
        switches: switches.sum(),
        threads: tasks.len(),
    }
}

/// In clock ticks since the machine's own start.
pub fn started_at(pid: u32) -> Option<u64> {
    stat_word(pid, 22)?.parse().ok()
}

pub fn all_pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The process, its children and theirs, those already dead left out.
pub fn family(pid: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = all_pids()
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| pid));
        next += 1;
    }
    found.retain(|pid| !is_gone(*pid));
    found
}

/// RSS and PSS of these processes together.
pub fn memory_mib(pids: &[u32]) -> Result<(f64, f64), String> {
    let (mut rss, mut pss) = (0.0, 0.0);
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
        let mib = |key: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with(key))?;
            let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib / 1024.0)
        };
        rss += mib("Rss:").ok_or_else(|| format!("{path} has no Rss"))?;
        pss += mib("Pss:").ok_or_else(|| format!("{path} has no Pss"))?;
    }
    Ok((rss, pss))
}

/// What a process costs.
#[derive(Clone, Copy, Default)]
pub struct Footprint {
    pub rss_mib: f64,
    pub pss_mib: f64,
    pub threads: usize,
    pub descriptors: usize,
}

/// `None` for one that is gone.
pub fn footprint(pid: u32) -> Option<Footprint> {
    let count = |list: &str| Some(fs::read_dir(format!("/proc/{pid}/{list}")).ok()?.count());
    let (rss_mib, pss_mib) = memory_mib(&[pid]).ok()?;
    Some(Footprint {
        rss_mib,
        pss_mib,
        threads: count("task")?,
        descriptors: count("fd")?,
    })
}

/// Connections of the server at this IPv4 address that are open at its end, accepted or not.
pub fn open_connections(address: SocketAddr) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = format!(":{:04X}", address.port());
    // Number, local address, remote address, state, where 01 is ESTABLISHED: proc_net_tcp(5).
    let is_one = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        matches!(words[..], [_, local, _, "01"] if local.ends_with(&port))
    };
    table.lines().filter(is_one).count()
}

/// All TCP sockets of the machine together, in pages of 4 KiB by proc_net_sockstat(5); 0 where it is not told.
pub fn tcp_memory_mib() -> f64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TCP: "));
    let pages = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    pages.unwrap_or(0.0) * 4.0 / 1024.0
}

/// The third of `net.ipv4.tcp_mem`: tcp(7).
pub fn tcp_memory_limit_mib() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
    let pages = text.split_whitespace().nth(2);
    pages.and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4 / 1024
}

/// The shell's own `kill`: std has none, and a package may be needed for the program.
pub fn kill_command(signal: &str, pids: &[u32]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -\"$@\"", "kill", signal]);
    command.args(pids.iter().map(u32::to_string));
    command
}

/// Sends the signal; those that are gone already are fine.
pub fn kill(signal: &str, pids: &[u32]) {
    let mut command = kill_command(signal, pids);
    let _ = command.stderr(Stdio::null()).status();
}
