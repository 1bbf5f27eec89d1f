//! The service under chaos: its directory, its files on disk, its commands, its workers and what they hold, and the way
//! back to where all is well.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::troubles::Due;
use super::{CLOSE_WAIT, Kind, PATIENCE, Random, Shared, working_in};
use crate::servers;
use crate::watch;

/// The longest that a command may take before it is a fault: longer than all limits of the program's own.
pub const COMMAND: Duration = Duration::from_secs(90);
/// The size of the file system under `run/`.
const DISK: &str = "size=4m,mode=750";
/// The content of the file that is downloaded.
pub fn large() -> Vec<u8> {
    (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

pub struct Site {
    pub shared: Arc<Shared>,
    /// The base directory.
    pub dir: PathBuf,
    /// The demonstration as it was built, and where the service runs a copy of it.
    pub built: PathBuf,
    pub program: PathBuf,
    pub ports: [u16; 2],
    /// Whoever starts a second one, for it finds no first where `run/` was cleaned, is told of this address by the settings:
    /// it is taken.
    taken: Arc<TcpListener>,
    pub random: Random,
    pub master: u32,
    pub counts: BTreeMap<&'static str, u64>,
    /// Nothing else is done to it at the same time.
    pub is_alone: bool,
    pub has_disk: bool,
    pub has_prlimit: bool,
}

/// What a command said.
pub struct Said {
    pub code: Option<i32>,
    pub text: String,
}

impl Site {
    pub fn new(
        shared: &Arc<Shared>,
        root: &Path,
        built: &Path,
        ports: [u16; 2],
        seed: u64,
    ) -> Result<Site, String> {
        let dir = root.join("chaos");
        let make = || -> std::io::Result<()> {
            fs::create_dir_all(dir.join("run"))?;
            fs::create_dir_all(dir.join("etc"))?;
            fs::write(dir.join("large"), large())
        };
        make().map_err(|e| format!("{}: {e}", dir.display()))?;
        let dir = fs::canonicalize(&dir).map_err(|e| e.to_string())?;
        let is_root = fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0);
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", DISK, "none"])
            .arg(dir.join("run"));
        let has_disk = is_root
            && mount
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        if !has_disk {
            println!("full disks: skipped: needs root and mount");
        }
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
        let has_prlimit = servers::find("prlimit").is_some();
        if !has_prlimit {
            println!("few descriptors: skipped: needs prlimit");
        }
        let site = Site {
            shared: Arc::clone(shared),
            program: dir.join("demo"),
            dir,
            built: built.to_owned(),
            ports,
            taken: Arc::new(taken),
            random: Random::new(seed),
            master: 0,
            counts: BTreeMap::new(),
            is_alone: true,
            has_disk,
            has_prlimit,
        };
        site.install(b"");
        site.settings("");
        Ok(site)
    }

    pub fn master(&self) -> u32 {
        self.master
    }

    pub fn counts(&self) -> String {
        format!("{:?}", self.counts)
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.shared.port.load(Relaxed))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.built);
        command
            .arg("app")
            .args(args)
            .arg("--base-dir")
            .arg(&self.dir);
        command
            .env_clear()
            .env("PATH", servers::PATH)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; one that hangs is killed and is a fault.
    pub fn app(&self, args: &[&str]) -> Said {
        said(&self.shared, self.command(args), args)
    }

    pub fn start(&mut self) -> Result<(), String> {
        let address = self.address();
        // The copy is started, so that it is what a restart executes.
        let mut command = Command::new(&self.program);
        command.args([
            "app",
            "start",
            "--daemon",
            "--address",
            &address,
            "--base-dir",
        ]);
        command.arg(&self.dir);
        command
            .env_clear()
            .env("PATH", servers::PATH)
            .stdin(Stdio::null());
        let said = said(&self.shared, command, &["start"]);
        let pid = said.text.split_once("pid ").and_then(|(_, rest)| {
            rest[..rest.find(|c: char| !c.is_ascii_digit())?]
                .parse()
                .ok()
        });
        match (said.code, pid) {
            (Some(0), Some(pid)) => {
                self.master = pid;
                Ok(())
            }
            _ => Err(format!("cannot start: {}", said.text)),
        }
    }

    /// The same service, for a thread of its own.
    pub fn twin(&self, seed: u64) -> Site {
        Site {
            shared: Arc::clone(&self.shared),
            dir: self.dir.clone(),
            built: self.built.clone(),
            program: self.program.clone(),
            ports: self.ports,
            taken: Arc::clone(&self.taken),
            random: Random::new(seed),
            master: self.master,
            counts: BTreeMap::new(),
            is_alone: false,
            has_disk: self.has_disk,
            has_prlimit: self.has_prlimit,
        }
    }

    /// Good files on disk again, and a service that answers; if it does not, that is a fault, and it is started anew.
    pub fn mend(&mut self) {
        let _ = fs::remove_file(self.dir.join("boot"));
        let _ = fs::remove_file(self.dir.join("run/filler"));
        self.install(b"");
        self.settings("");
        let reason = match (watch::is_gone(self.master), self.answers()) {
            (true, _) => "the master is gone".to_owned(),
            (false, Err(why)) => format!("it does not answer: {why}"),
            _ => return,
        };
        let log = fs::read_to_string(self.dir.join("run/app.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(6).collect();
        self.shared.fault(&format!(
            "{reason}; the last lines of the log, newest first:\n    {}",
            lines.join("\n    ")
        ));
        self.anew();
    }

    /// Whether a new connection is answered, in the time that a worker may need to come back.
    pub fn answers(&self) -> Result<(), String> {
        let address = self
            .address()
            .parse()
            .map_err(|_| "no address".to_owned())?;
        let begun = Instant::now();
        loop {
            if watch::answers(address, "/hello") {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!(
                    "no answer on {address} for {} s",
                    PATIENCE.as_secs()
                ));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// After a fault that it did not survive.
    pub fn anew(&mut self) {
        let window = self
            .shared
            .begin(Kind::Outage, "the service is started anew");
        self.count("started anew");
        for pid in working_in(&self.dir) {
            watch::kill("KILL", &[pid]);
        }
        watch::wait_until(|| working_in(&self.dir).is_empty());
        if let Err(why) = self.start() {
            self.shared.fault(&why);
        }
        self.shared.end(window);
    }

    /// A restart that must be done, with the plain settings: what was left of others is gone after it.
    pub fn settle(&mut self) {
        self.mend();
        self.restart(Due::Done, &[]);
        let _ = self.answers();
    }

    pub fn finish(&mut self) {
        let state = self.app(&["state"]);
        if state.code != Some(0) {
            self.shared.fault(&format!(
                "state at the end: {:?}, {}",
                state.code, state.text
            ));
        }
        let stop = self.app(&["stop"]);
        if stop.code != Some(0) {
            self.shared
                .fault(&format!("stop at the end: {:?}, {}", stop.code, stop.text));
        }
        if !watch::wait_until(|| working_in(&self.dir).is_empty()) {
            let left = working_in(&self.dir);
            let line =
                |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let left = left
                .iter()
                .map(|pid| format!("{pid} ({})", line(pid).replace('\0', " ")));
            let left = Vec::from_iter(left).join(", ");
            self.shared.fault(&format!("left behind: {left}"));
        }
        let of_run = fs::read_dir(self.dir.join("run"))
            .into_iter()
            .flatten()
            .flatten();
        let odd = of_run.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let odd: Vec<String> = odd.filter(|name| !name.starts_with("app.")).collect();
        if !odd.is_empty() {
            self.shared.fault(&format!("left behind in run/: {odd:?}"));
        }
    }

    // What lies on disk.

    /// The program: a copy with something behind it, which nobody reads, put there in one step.
    pub fn install(&self, behind: &[u8]) {
        let mut bytes = fs::read(&self.built).unwrap_or_default();
        bytes.extend_from_slice(behind);
        self.put(&bytes, 0o755);
    }

    pub fn put(&self, bytes: &[u8], mode: u32) {
        let new = self.dir.join("demo.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            drop(file);
            fs::rename(&new, &self.program)
        };
        if let Err(error) = write() {
            self.shared.fault(&format!(
                "chaos itself: {}: {error}",
                self.program.display()
            ));
        }
    }

    pub fn settings(&self, more: &str) {
        let taken = self.taken.local_addr().map_or(0, |address| address.port());
        let text =
            format!("app.close_wait = {CLOSE_WAIT}\napp.address = 127.0.0.1:{taken}\n{more}");
        let new = self.dir.join("etc/app.conf.new");
        let done =
            fs::write(&new, text).and_then(|()| fs::rename(&new, self.dir.join("etc/app.conf")));
        if let Err(error) = done {
            self.shared
                .fault(&format!("chaos itself: etc/app.conf: {error}"));
        }
    }

    pub fn workers(&self) -> Vec<u32> {
        let mut family = watch::family(self.master);
        // The programs that it has checked are its children too.
        let stopped = self.shared.stopped.load(Relaxed);
        family.retain(|pid| {
            *pid != self.master
                && *pid != stopped
                && fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.contains("worker"))
        });
        family
    }

    /// Stops it, notes which connections it holds, and then it dies by this signal: those are excused, and no others.
    pub fn kill_one(&mut self, signal: &str) {
        // Before the choice, so that it is not of one whom somebody else has killed meanwhile.
        let shared = Arc::clone(&self.shared);
        let _alone = shared.alone();
        let workers = self.workers();
        if workers.is_empty() {
            return;
        }
        let pid = workers[self.random.below(workers.len())];
        // Nobody passes a connection on between the look and the death.
        watch::kill("STOP", &workers);
        if self.hold(pid) {
            // A signal that dumps core ends a process when its main thread, the only one here that does not block it, gets
            // to run. On a busy machine others would accept and answer until then what nobody has seen it hold.
            let mut hurry = Command::new("chrt");
            hurry.args(["--fifo", "--pid", "50", &pid.to_string()]);
            let _ = hurry.stdin(Stdio::null()).output();
            watch::kill(signal, &[pid]);
            // It has its signal before it goes on. What it holds is closed when the last of its threads has ended, and what
            // others passed to it until then would go with it.
            watch::kill("CONT", &[pid]);
            watch::wait_until(|| !Path::new(&format!("/proc/{pid}")).exists());
        }
        self.wake(&workers);
    }

    /// Lets them go on, but for the one that somebody has stopped for good meanwhile.
    pub fn wake(&self, workers: &[u32]) {
        let stopped = self.shared.stopped.load(Relaxed);
        for pid in workers.iter().filter(|pid| **pid != stopped) {
            watch::kill("CONT", &[*pid]);
        }
    }

    /// Stops it, and notes its connections. Whether it was there to be stopped.
    pub fn hold(&self, pid: u32) -> bool {
        watch::kill("STOP", &[pid]);
        let state = || {
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            text.rsplit_once(')')
                .and_then(|(_, rest)| rest.trim().chars().next())
        };
        if !watch::wait_until(|| !matches!(state(), Some('R' | 'S' | 'D'))) || state() != Some('T')
        {
            return false;
        }
        let (held, passing) = self.look(pid);
        self.shared.say(&format!(
            "worker {pid} of {:?} is about to die, with {} connections; {} are on their way between workers",
            self.workers(),
            held.len(),
            passing.len()
        ));
        self.shared.killed(pid, held, passing);
        true
    }

    /// The connections of a worker, and those that no process holds.
    pub fn look(&self, pid: u32) -> (HashSet<u16>, HashSet<u16>) {
        let all = self.connections();
        let held = self.held_by(pid, &all);
        let elsewhere = working_in(&self.dir);
        let elsewhere = elsewhere
            .into_iter()
            .flat_map(|other| self.held_by(other, &all));
        let elsewhere: HashSet<u16> = elsewhere.collect();
        let mut passing: HashSet<u16> = all.values().copied().collect();
        passing.retain(|port| !elsewhere.contains(port));
        (held, passing)
    }

    /// The clients' ports of all its accepted connections by the inodes of its ends, from proc_net_tcp(5).
    fn connections(&self) -> HashMap<u64, u16> {
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (local, remote) = (port(words.get(1)?)?, port(words.get(2)?)?);
            // Without an inode it is not accepted yet, or closed.
            let inode: u64 = words.get(9)?.parse().ok().filter(|inode| *inode != 0)?;
            (self.ports.contains(&local) && remote != 0).then_some((inode, remote))
        };
        table.lines().filter_map(line).collect()
    }

    /// Those of them that a process holds.
    fn held_by(&self, pid: u32, all: &HashMap<u64, u16>) -> HashSet<u16> {
        let files = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        let inode = |entry: fs::DirEntry| {
            let link = fs::read_link(entry.path()).ok()?;
            let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            text.parse::<u64>().ok()
        };
        files
            .filter_map(inode)
            .filter_map(|inode| all.get(&inode).copied())
            .collect()
    }

    /// Nothing stays behind.
    pub fn sweep(&self) {
        for pid in working_in(&self.dir) {
            watch::kill("KILL", &[pid]);
        }
        watch::wait_until(|| working_in(&self.dir).is_empty());
        if self.has_disk {
            let _ = Command::new("umount").arg(self.dir.join("run")).status();
        }
    }
}

/// Runs a command to its end; what it said on both outputs.
pub fn said(shared: &Shared, mut command: Command, args: &[&str]) -> Said {
    use std::io::Read;
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            return Said {
                code: None,
                text: error.to_string(),
            };
        }
    };
    let begun = Instant::now();
    while begun.elapsed() < COMMAND && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(2));
    }
    if matches!(child.try_wait(), Ok(None)) {
        shared.fault(&format!("{args:?} did not end in {} s", COMMAND.as_secs()));
        let _ = child.kill();
    }
    let code = child.wait().ok().and_then(|status| status.code());
    // A daemon that holds the pipe would be waited for; it has closed it when its start is over.
    let mut text = String::new();
    if let Some(mut out) = child.stderr.take() {
        let _ = out.read_to_string(&mut text);
    }
    if let Some(mut out) = child.stdout.take() {
        let _ = out.read_to_string(&mut text);
    }
    Said { code, text }
}
