//! strace(1) on one process of several: attached to it alone, from its first instruction or while it serves.
//!
//! `-e inject` counts in each traced process for itself, so a fault meant for a worker would strike the master first.
//! A process that is about to be born is therefore caught first: each new one (after fork and after exec) calls
//! set_robust_list(2) before anything of its own, and a strace that watches all of them injects SIGSTOP there. Those
//! not meant go on; the one that is meant is let go of while it is stopped, and a second strace takes it alone.

use crate::place::{self, LIMIT, pause};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A running strace.
pub struct Strace {
    child: Child,
    pub log: PathBuf,
}

impl Strace {
    /// Attaches; when this returns the process is traced, with all its threads.
    pub fn attach(
        dir: &Path,
        name: &str,
        pid: u32,
        follow: bool,
        args: &[&str],
    ) -> Result<Strace, String> {
        let log = dir.join(name);
        let mut command = Command::new("strace");
        command.args(["-q", "-o"]).arg(&log);
        if follow {
            command.arg("-f");
        }
        command.args(args).args(["-p", &pid.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .current_dir("/");
        let child = command.spawn().map_err(|e| format!("strace: {e}"))?;
        let mut strace = Strace { child, log };
        let tracer = strace.child.id();
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if let Ok(Some(status)) = strace.child.try_wait() {
                // A call that it was waiting in begins anew when strace comes, and counts: it may be over already.
                return match strace.text().contains("+++ ") {
                    true => Ok(strace),
                    false => Err(format!("strace of {pid} ended: {status}")),
                };
            }
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            let tasks: Vec<PathBuf> = tasks
                .map(|tasks| tasks.flatten().map(|task| task.path()).collect())
                .unwrap_or_default();
            let is_traced = |task: &PathBuf| {
                let text = fs::read_to_string(task.join("status")).unwrap_or_default();
                place::field(&text, "TracerPid:") == Some(tracer)
            };
            if !tasks.is_empty()
                && (tasks.iter().all(is_traced) || !follow && tasks.iter().any(is_traced))
            {
                return Ok(strace);
            }
            pause();
        }
        Err(format!("strace does not attach to {pid}"))
    }

    pub fn text(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Lets go of all it traces, as they are: those stopped stay stopped.
    pub fn detach(&mut self) {
        place::signal("INT", self.child.id());
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            pause();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.detach();
        }
    }
}

/// Stops everything new below a process.
pub struct Births(Strace);

impl Births {
    pub fn below(dir: &Path, pid: u32) -> Result<Births, String> {
        let args = [
            "-e",
            "trace=set_robust_list",
            "-e",
            "inject=set_robust_list:signal=SIGSTOP:when=1",
        ];
        Strace::attach(dir, "births.strace", pid, true, &args).map(Births)
    }

    /// Waits for the one that is meant: it is stopped and no longer traced when this returns.
    pub fn wait(mut self, is_meant: impl Fn(u32) -> bool) -> Result<u32, String> {
        let mut seen = 0;
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let text = self.0.text();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let stopped: Vec<u32> = whole
                .lines()
                .filter(|line| line.ends_with("--- stopped by SIGSTOP ---"))
                .filter_map(|line| line.split(' ').next()?.parse().ok())
                .collect();
            for pid in &stopped[seen..] {
                if is_meant(*pid) {
                    self.0.detach();
                    place::wait_stopped(*pid)?;
                    return Ok(*pid);
                }
                place::signal("CONT", *pid);
            }
            seen = stopped.len();
            if matches!(self.0.child.try_wait(), Ok(Some(_))) {
                return Err("all ended before the one that is meant was born".to_owned());
            }
            pause();
        }
        Err("the one that is meant was not born".to_owned())
    }
}

/// A call as it was recorded.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number of its thread.
    pub thread: u32,
    pub name: String,
    pub args: String,
}

/// The calls of a log, in order.
pub fn calls(text: &str) -> Vec<Call> {
    let call = |line: &str| {
        let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let thread = line[..digits].parse().unwrap_or(0);
        let rest = line[digits..].trim_start();
        let (name, args) = rest.split_once('(')?;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        Some(Call {
            thread,
            name: name.to_owned(),
            args: args.to_owned(),
        })
    };
    text.lines().filter_map(call).collect()
}
