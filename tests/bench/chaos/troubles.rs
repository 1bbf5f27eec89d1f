//! What is done to the service: restarts with good and broken programs and settings, deaths, full disks, few
//! descriptors, another address. Each says what has to come of it; whatever else comes is a fault.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::service::{COMMAND, Said, Site, said};
use super::{Kind, working_in};
use crate::watch;

/// A worker that is stopped for good is to be replaced within this time: two asks of 10 s that it does not answer, and
/// a machine that is busy.
const REPLACED: Duration = Duration::from_secs(60);
/// What a check that hangs takes, and what was asked for meanwhile.
const CHECKED: Duration = Duration::from_secs(40);

/// What a restart has to come to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Due {
    Done,
    NotDone,
    /// Something else goes on meanwhile.
    Either,
}

type Trouble = (&'static str, fn(&mut Site));

/// In the order in which the generator counts them.
const TROUBLES: &[Trouble] = &[
    ("restart", Site::good_restart),
    ("restart", Site::good_restart),
    ("HUP", Site::hang_up),
    ("several restarts at once", Site::several),
    ("a program that is not executable", Site::not_executable),
    ("a program that exits 1", Site::exits),
    ("a program that hangs in its check", Site::hangs_in_check),
    ("a program that fails at boot", Site::fails_at_boot),
    ("a program that dies at boot", Site::dies_at_boot),
    ("another version", Site::other_version),
    ("broken settings", Site::broken_settings),
    ("other settings", Site::other_settings),
    ("a worker killed", Site::kill),
    ("a worker killed", Site::kill),
    (
        "a worker killed during a restart",
        Site::kill_during_restart,
    ),
    ("a worker with SEGV", Site::fault),
    ("a worker stopped for 2 s", Site::nap),
    ("a worker stopped", Site::stop_worker),
    ("a full disk", Site::full_disk),
    ("few descriptors", Site::few_descriptors),
    ("another address", Site::other_address),
    ("USR1 and a rotated log", Site::rotate),
    ("run/ cleaned", Site::clean),
];

/// What may be done while another trouble goes on. None of them needs good files on disk.
const MEANWHILE: &[Trouble] = &[
    ("meanwhile a worker killed", Site::kill),
    ("meanwhile a worker stopped for 2 s", Site::nap),
    ("meanwhile USR1 and a rotated log", Site::rotate),
    ("meanwhile state", Site::state),
    ("meanwhile a restart", Site::any_restart),
];

/// One of so many troubles is not alone.
const ALONE: usize = 3;

impl Site {
    /// One trouble, or two at once, and the way back to where all is well.
    pub fn trouble(&mut self, left: Duration) {
        let (name, trouble) = TROUBLES[self.random.below(TROUBLES.len())];
        let takes = match name {
            "a worker stopped" => REPLACED * 2,
            "a program that hangs in its check" => CHECKED,
            _ => Duration::ZERO,
        };
        if left < takes {
            return;
        }
        let other = self.random.below(MEANWHILE.len() * ALONE);
        let (other, seed) = (MEANWHILE.get(other), self.random.below(1 << 30) as u64);
        let begin = |site: &mut Site, name| {
            site.count(name);
            site.shared.say(name);
            site.shared.begin(Kind::Trouble, name)
        };
        let window = begin(self, name);
        if let Some((name, other)) = other {
            let window = begin(self, name);
            let mut twin = self.twin(seed);
            self.is_alone = false;
            let twin = thread::scope(|scope| {
                let job = scope.spawn(move || {
                    thread::sleep(Duration::from_millis(twin.random.below(200) as u64));
                    other(&mut twin);
                    twin.counts
                });
                trouble(self);
                job.join().unwrap_or_default()
            });
            for (what, count) in twin {
                *self.counts.entry(what).or_default() += count;
            }
            self.is_alone = true;
            self.shared.end(window);
        } else {
            trouble(self);
        }
        self.mend();
        self.shared.end(window);
        let pause = Duration::from_millis(200 + self.random.below(2000) as u64);
        thread::sleep(pause.min(left));
    }

    // Restarts.

    pub fn restart(&mut self, due: Due, more: &[&str]) -> bool {
        let window = self.shared.begin(Kind::Restart, "restart");
        let said = self.app(&[&["restart"], more].concat());
        self.shared.end(window);
        self.judge(due, &said)
    }

    fn judge(&mut self, due: Due, said: &Said) -> bool {
        let outcome = match said.code {
            Some(0) => "restarts done",
            _ if said.text.contains("given up") => "restarts given up",
            _ if said.text.contains("no restart of") => "restarts refused",
            // The command that asks reads them first.
            _ if said.text.contains("etc/app.conf:") => "restarts refused for their settings",
            // Where run/ has been cleaned nobody is found, and a start is tried.
            _ if ["already running", ": cannot listen on "]
                .iter()
                .any(|text| said.text.contains(text)) =>
            {
                "restarts that became starts, and were refused"
            }
            _ => "restarts failed otherwise",
        };
        self.count(outcome);
        let done = said.code == Some(0);
        let due = match due {
            Due::Done if !self.is_alone => Due::Either,
            due => due,
        };
        let fits = match due {
            Due::Done => done,
            Due::NotDone => !done && outcome != "restarts failed otherwise",
            Due::Either => outcome != "restarts failed otherwise",
        };
        if !fits {
            self.shared.fault(&format!(
                "a restart, due {due:?}: {:?}, {}",
                said.code,
                said.text.trim()
            ));
        }
        done
    }

    fn any_restart(&mut self) {
        self.restart(Due::Either, &[]);
    }

    /// Whatever it says, it says it, and to the end.
    fn state(&mut self) {
        for _ in 0..10 {
            let was_cleaned = self.shared.cleaned.load(Relaxed);
            let state = self.app(&["state"]);
            let is_cleaned = was_cleaned || self.shared.cleaned.load(Relaxed);
            let is_right = match state.code {
                Some(3) => is_cleaned,
                code => matches!(code, Some(0 | 4)),
            };
            if !is_right {
                let text = format!("state: {:?}, {}", state.code, state.text.trim());
                self.shared.fault(&text);
                return;
            }
        }
    }

    fn good_restart(&mut self) {
        self.restart(Due::Done, &[]);
    }

    fn hang_up(&mut self) {
        let before = self.workers();
        let window = self.shared.begin(Kind::Restart, "HUP");
        watch::kill("HUP", &[self.master]);
        let begun = Instant::now();
        let is_over = |site: &Site| {
            let now = site.workers();
            !now.is_empty() && !now.iter().any(|pid| before.contains(pid))
        };
        // Together with another restart it may be refused, and then there is nothing to wait for.
        let limit = if self.is_alone {
            COMMAND
        } else {
            Duration::from_secs(5)
        };
        while begun.elapsed() < limit && !is_over(self) && !watch::is_gone(self.master) {
            thread::sleep(Duration::from_millis(20));
        }
        if !is_over(self) && self.is_alone {
            self.shared.fault("HUP: there are still old workers");
        }
        self.shared.end(window);
    }

    fn several(&mut self) {
        let window = self.shared.begin(Kind::Restart, "several restarts");
        let all = thread::scope(|scope| {
            let site = &*self;
            let jobs: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| site.app(&["restart"])))
                .collect();
            jobs.into_iter()
                .filter_map(|job| job.join().ok())
                .collect::<Vec<Said>>()
        });
        self.shared.end(window);
        let mut done = false;
        for said in &all {
            done |= self.judge(Due::Either, said);
        }
        if !done && self.is_alone {
            self.shared.fault("of several restarts none was done");
        }
    }

    fn not_executable(&mut self) {
        self.put(&fs::read(&self.built).unwrap_or_default(), 0o644);
        self.restart(Due::NotDone, &[]);
    }

    fn exits(&mut self) {
        self.put(b"#!/bin/sh\nexit 1\n", 0o755);
        self.restart(Due::NotDone, &[]);
    }

    fn hangs_in_check(&mut self) {
        self.put(b"#!/bin/sh\nsleep 3600\n", 0o755);
        self.restart(Due::NotDone, &[]);
        let is_left = || {
            working_in(&self.dir).iter().any(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with("sleep\0"))
            })
        };
        if !watch::wait_until(|| !is_left()) {
            self.shared.fault("the child of a check that hung is left");
            for pid in working_in(&self.dir) {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                if line.starts_with("sleep\0") {
                    watch::kill("KILL", &[pid]);
                }
            }
        }
    }

    fn boots_badly(&mut self, how: &str) {
        let _ = fs::write(self.dir.join("boot"), how);
        let due = self.restart(Due::NotDone, &[]);
        // A worker that dies while none can boot: those who come wait until one can again.
        if !due && self.random.below(2) == 0 {
            self.kill_one("KILL");
            thread::sleep(Duration::from_millis(self.random.below(4000) as u64));
        }
        let _ = fs::remove_file(self.dir.join("boot"));
    }

    fn fails_at_boot(&mut self) {
        self.boots_badly("fail");
    }

    fn dies_at_boot(&mut self) {
        self.boots_badly("crash");
    }

    fn other_version(&mut self) {
        let number = self.random.below(1000);
        self.install(format!("version {number}").as_bytes());
        self.restart(Due::Done, &[]);
    }

    fn broken_settings(&mut self) {
        let broken = [
            "app.adress = :1\n",
            "app.threads = many\n",
            "nonsense\n",
            "app.workers = 0\n",
        ];
        let which = self.random.below(broken.len());
        self.settings(broken[which]);
        self.restart(Due::NotDone, &[]);
    }

    fn other_settings(&mut self) {
        let (workers, threads) = (1 + self.random.below(3), 8 + self.random.below(56));
        self.settings(&format!(
            "app.workers = {workers}\napp.threads = {threads}\n"
        ));
        self.restart(Due::Done, &[]);
        if self.random.below(2) == 0 {
            self.kill_one("KILL");
        }
        self.settings("");
        self.restart(Due::Either, &[]);
    }

    fn other_address(&mut self) {
        let old = self.shared.port.load(Relaxed);
        let new = if old == self.ports[0] {
            self.ports[1]
        } else {
            self.ports[0]
        };
        let address = format!("127.0.0.1:{new}");
        let window = self.shared.begin(Kind::AddressChange, "another address");
        let (shared, is_over) = (Arc::clone(&self.shared), AtomicBool::new(false));
        let done = thread::scope(|scope| {
            scope.spawn(|| {
                // Clients follow as soon as somebody answers there.
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, new));
                while !is_over.load(Relaxed) {
                    if watch::answers(to, "/hello") {
                        shared.port.store(new, Relaxed);
                        break;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                shared.end(window);
            });
            let done = self.restart(Due::Done, &["--address", &address]);
            is_over.store(true, Relaxed);
            done
        });
        self.shared
            .port
            .store(if done { new } else { old }, Relaxed);
    }

    // Deaths.

    fn kill(&mut self) {
        self.kill_one("KILL");
    }

    fn fault(&mut self) {
        self.kill_one("SEGV");
    }

    fn kill_during_restart(&mut self) {
        let window = self.shared.begin(Kind::Restart, "restart");
        let pause = Duration::from_millis(self.random.below(40) as u64);
        let (shared, command) = (Arc::clone(&self.shared), self.command(&["restart"]));
        let asked = thread::spawn(move || said(&shared, command, &["restart"]));
        thread::sleep(pause);
        self.kill_one("KILL");
        if let Ok(said) = asked.join() {
            self.judge(Due::Either, &said);
        }
        self.shared.end(window);
    }

    /// Too short to count as hanging: nothing may be lost.
    fn nap(&mut self) {
        let workers = self.workers();
        if workers.is_empty() {
            return;
        }
        let pid = workers[self.random.below(workers.len())];
        watch::kill("STOP", &[pid]);
        thread::sleep(Duration::from_secs(2));
        let shared = Arc::clone(&self.shared);
        let _alone = shared.alone();
        self.wake(&[pid]);
    }

    /// For good: the master notices, and replaces it.
    fn stop_worker(&mut self) {
        let workers = self.workers();
        if workers.is_empty() {
            return;
        }
        let pid = workers[self.random.below(workers.len())];
        self.shared.stopped.store(pid, Relaxed);
        let is_held = {
            let _alone = self.shared.alone();
            self.hold(pid)
        };
        if !is_held {
            self.shared.stopped.store(0, Relaxed);
            return;
        }
        let begun = Instant::now();
        let mut known = HashSet::new();
        while begun.elapsed() < REPLACED && !watch::is_gone(pid) {
            thread::sleep(Duration::from_millis(100));
            // What is passed to it meanwhile goes with it, too.
            let (held, mut passing) = self.look(pid);
            passing.retain(|port| known.insert(*port));
            if !passing.is_empty() {
                self.shared.killed(pid, held, passing);
            }
        }
        if !watch::is_gone(pid) {
            self.shared.fault(&format!(
                "worker {pid} was stopped for {} s, and nobody replaced it",
                REPLACED.as_secs()
            ));
            watch::kill("KILL", &[pid]);
        }
        self.shared.stopped.store(0, Relaxed);
    }

    // What it needs.

    fn full_disk(&mut self) {
        if !self.has_disk {
            return;
        }
        let filler = self.dir.join("run/filler");
        if let Ok(mut file) = File::create(&filler) {
            let block = [0; 4096];
            while file.write_all(&block).is_ok() {}
            // To the last byte.
            while file.write_all(&[0]).is_ok() {}
        }
        match self.random.below(3) {
            0 => self.kill_one("KILL"),
            // Whether it can be done is not laid down; that it serves is.
            1 => {
                self.restart(Due::Either, &[]);
            }
            _ => thread::sleep(Duration::from_secs(1)),
        }
        let _ = fs::remove_file(filler);
    }

    fn few_descriptors(&mut self) {
        if !self.has_prlimit {
            return;
        }
        let pid = self.master.to_string();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        let Some(usual) = line.and_then(|line| line.split_whitespace().next()) else {
            return;
        };
        let open = watch::footprint(self.master).map_or(0, |cost| cost.descriptors);
        let set = |soft: &str| {
            let limit = format!("--nofile={soft}:");
            let _ = Command::new("prlimit")
                .args(["--pid", &pid, &limit])
                .stderr(Stdio::null())
                .status();
        };
        set(&(open + self.random.below(4)).to_string());
        match self.random.below(3) {
            0 => self.kill_one("KILL"),
            1 => {
                self.restart(Due::Either, &[]);
            }
            _ => {
                self.app(&["state"]);
            }
        }
        set(usual);
        // A worker that was born with few is replaced, and with it its limit.
        self.restart(Due::Done, &[]);
    }

    fn rotate(&mut self) {
        let (log, old) = (self.dir.join("run/app.log"), self.dir.join("run/app.log.1"));
        let _ = fs::rename(&log, &old);
        watch::kill("USR1", &[self.master]);
        if !watch::wait_until(|| log.exists()) {
            self.shared.fault("no new log after USR1");
        }
        let _ = fs::remove_file(old);
    }

    /// Everything in `run/` goes, and USR1 brings it back.
    fn clean(&mut self) {
        self.shared.cleaned.store(true, Relaxed);
        for entry in fs::read_dir(self.dir.join("run"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::remove_file(entry.path());
        }
        if self.random.below(2) == 0 {
            self.kill_one("KILL");
        }
        watch::kill("USR1", &[self.master]);
        let back = |name: &str| self.dir.join("run").join(name).exists();
        if !watch::wait_until(|| ["app.pid", "app.log", "app.sock"].into_iter().all(back)) {
            self.shared
                .fault("run/ was cleaned, and USR1 does not make its files anew");
            self.anew();
        }
        self.shared.cleaned.store(false, Relaxed);
    }
}
