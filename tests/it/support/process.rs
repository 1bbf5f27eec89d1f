//! Commands and what they did, and what can be seen of and done to a running process.

use crate::support::{Site, wait_until};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Done {
    Done::of(command.output().expect("it can be run"))
}

/// What a command did that was begun before.
pub fn finish(child: Child) -> Done {
    Done::of(child.wait_with_output().expect("it ends"))
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

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// Stops a process and waits until none of its threads runs any more; CONT lets it go on. Without the wait a signal that is sent
/// next could still be delivered before the STOP.
#[track_caller]
pub fn freeze(pid: u32) {
    signal(pid, "STOP");
    wait_until(5, &format!("{pid} is stopped"), || are_all(pid, 'T'));
}

/// Waits until no thread of a process has anything to do.
#[track_caller]
pub fn wait_asleep(pid: u32) {
    let mut looks = 0;
    wait_until(20, &format!("{pid} is asleep"), || {
        looks = if are_all(pid, 'S') { looks + 1 } else { 0 };
        looks == 3
    });
}

/// Whether all threads of a process are in this state, `proc_pid_stat(5)`.
fn are_all(pid: u32, state: char) -> bool {
    threads(pid).iter().all(|(id, _)| {
        let path = format!("/proc/{pid}/task/{id}/stat");
        let stat = fs::read_to_string(path).unwrap_or_default();
        let rest = stat.rsplit_once(") ");
        rest.is_none_or(|(_, rest)| rest.starts_with(state))
    })
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

/// The worker processes of a master.
pub fn workers(master: u32) -> Vec<u32> {
    let children =
        fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
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

/// Whether a process is there and not merely waiting to be collected.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
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

/// What is said of a port that this process has.
pub fn has_it() -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    format!("; pid {} ({}) has it", std::process::id(), name.trim_end())
}
