//! Everything at once, for an hour: clients of all kinds check each byte of each answer while a seeded generator makes
//! trouble (`troubles.rs`). No answer may be wrong or lost.
//!
//! Excused are, each counted by its reason: what was in flight in a worker at the instant it was killed or for good
//! stopped (the connections it held are read from the kernel while it is stopped, so it is known which; those that were
//! on their way between workers at that instant are counted by themselves); what a drain cuts after `close_wait`; and
//! who meets the instant of an address change. A wrong byte is never excused.

mod clients;
mod service;
mod troubles;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::{Stop, StopLater};
use crate::servers::{self, Root};
use crate::watch;
use crate::{Wish, throughput, verdict};
use clients::KINDS;

const SECONDS: u64 = 3600;
const QUICK_SECONDS: u64 = 60;
/// The longest drain, in seconds: longer than any request of these clients takes.
const CLOSE_WAIT: u64 = 5;
/// An answer may be late while no worker can serve, but it comes.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long after the new address answers somebody who does not know it yet may come to the old one.
const CHANGE_GRACE: Duration = Duration::from_millis(100);
/// Failures that are described.
const NOTES: u64 = 100;

/// Why an answer is not there.
pub enum Fault {
    /// Refused, reset, closed or cut.
    Lost(String),
    /// Nothing came, and nobody said why.
    Hangs(String),
    /// Other bytes than those that are right.
    Wrong(String),
}

/// Something that was done to the service, from and to.
struct Window {
    kind: Kind,
    what: String,
    begun: Instant,
    ended: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Trouble,
    Restart,
    AddressChange,
    /// The service was gone, which is a fault of its own, and is started anew.
    Outage,
}

/// The connections that a worker held when it was killed.
struct Killed {
    pid: u32,
    at: Instant,
    held: HashSet<u16>,
    /// Those that no process held: they were being passed on from one worker to another, perhaps to this one.
    passing: HashSet<u16>,
}

#[derive(Default)]
struct Story {
    windows: Vec<Window>,
    killed: Vec<Killed>,
    excused: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<u16, u64>,
}

/// What all threads know.
pub struct Shared {
    begun: Instant,
    stop: Stop,
    /// Where it listens now; clients follow.
    port: AtomicU16,
    answered: [AtomicU64; KINDS.len()],
    failed: AtomicU64,
    /// What went wrong with the service itself.
    faults: AtomicU64,
    story: Mutex<Story>,
    /// The worker that is stopped for good and waits to be replaced: nobody else is to wake or to kill it. 0 for none.
    pub stopped: AtomicU32,
    /// Held by who stops workers, looks at what they hold, kills them or lets them go on: one at a time.
    hands: Mutex<()>,
    /// Nothing is in `run/` at the moment, so that no command finds the service.
    pub cleaned: AtomicBool,
}

/// A connection as its excuses know it.
#[derive(Clone, Copy)]
pub struct Whose {
    pub local: u16,
    pub port: u16,
    pub opened: Instant,
}

impl Shared {
    fn story<T>(&self, tell: impl FnOnce(&mut Story) -> T) -> T {
        let mut story = match self.story.lock() {
            Ok(story) => story,
            Err(poisoned) => poisoned.into_inner(),
        };
        tell(&mut story)
    }

    /// Nobody else stops or wakes a worker until this is dropped.
    pub fn alone(&self) -> MutexGuard<'_, ()> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, kind: Kind, what: &str) -> usize {
        let window = Window {
            kind,
            what: what.to_owned(),
            begun: Instant::now(),
            ended: None,
        };
        self.story(|story| {
            story.windows.push(window);
            story.windows.len() - 1
        })
    }

    pub fn end(&self, window: usize) {
        self.story(|story| story.windows[window].ended = Some(Instant::now()));
    }

    pub fn killed(&self, pid: u32, held: HashSet<u16>, passing: HashSet<u16>) {
        let at = Instant::now();
        self.story(|story| {
            story.killed.push(Killed {
                pid,
                at,
                held,
                passing,
            });
        });
    }

    pub fn fault(&self, text: &str) {
        self.faults.fetch_add(1, Relaxed);
        println!(
            "FAULT at {:.3} s: {text}",
            self.begun.elapsed().as_secs_f64()
        );
    }

    pub fn say(&self, text: &str) {
        println!("{:8.3} s: {text}", self.begun.elapsed().as_secs_f64());
    }

    fn right(&self, kind: usize, status: u16) {
        self.answered[kind].fetch_add(1, Relaxed);
        self.story(|story| *story.statuses.entry(status).or_default() += 1);
    }

    fn wrong(&self, kind: usize, what: &str, whose: Option<Whose>, from: Instant, fault: &Fault) {
        let now = Instant::now();
        let excuse = self.story(|story| {
            let excuse = story.excuse(whose, from, now, fault);
            if let Some(reason) = excuse {
                *story.excused.entry(reason).or_default() += 1;
            }
            excuse
        });
        if excuse.is_some() || self.failed.fetch_add(1, Relaxed) >= NOTES {
            return;
        }
        let (word, text) = match fault {
            Fault::Lost(text) => ("LOST", text),
            Fault::Hangs(text) => ("HANGS", text),
            Fault::Wrong(text) => ("WRONG", text),
        };
        let at = |when: Instant| when.saturating_duration_since(self.begun).as_secs_f64();
        let connection = whose.map_or("not connected".to_owned(), |whose| {
            format!(
                "from port {} to {}, open since {:.3} s",
                whose.local,
                whose.port,
                at(whose.opened)
            )
        });
        let around = self.story(|story| story.around(from, now, self.begun));
        println!(
            "{word} at {:.3} s: {}: {what}: {text}; begun at {:.3} s, {connection}; meanwhile: {around}",
            at(now),
            KINDS[kind].name,
            at(from)
        );
    }
}

impl Story {
    fn excuse(
        &self,
        whose: Option<Whose>,
        from: Instant,
        now: Instant,
        fault: &Fault,
    ) -> Option<&'static str> {
        let overlaps =
            |window: &Window| window.begun <= now && window.ended.is_none_or(|ended| ended >= from);
        let mut outages = self.windows.iter().filter(|one| one.kind == Kind::Outage);
        if matches!(fault, Fault::Wrong(_)) {
            return None;
        }
        // It took all connections with it that were open before.
        let took = |window: &Window| {
            let ended = window.ended.unwrap_or(now);
            whose.is_some_and(|whose| whose.opened <= ended && window.begun <= now)
        };
        if outages.any(|window| overlaps(window) || took(window)) {
            return Some("the service was down, a fault counted by itself");
        }
        let was_in = |ports: fn(&Killed) -> &HashSet<u16>| {
            let is_it = |whose: Whose, one: &Killed| {
                one.at >= whose.opened && ports(one).contains(&whose.local)
            };
            whose.is_some_and(|whose| self.killed.iter().any(|one| is_it(whose, one)))
        };
        if was_in(|one| &one.held) {
            return Some("held by a worker that was killed");
        }
        if was_in(|one| &one.passing) {
            return Some("on its way to a worker when one was killed");
        }
        if matches!(fault, Fault::Hangs(_)) {
            return None;
        }
        // Who came before it is served to the end.
        let mut changes = self
            .windows
            .iter()
            .filter(|one| one.kind == Kind::AddressChange);
        let is_in = |window: &Window| {
            window.begun <= from
                && window
                    .ended
                    .is_none_or(|ended| from <= ended + CHANGE_GRACE)
        };
        if changes.any(is_in) {
            return Some("the instant of an address change");
        }
        let mut restarts = self.windows.iter().filter(|one| one.kind == Kind::Restart);
        let is_cut = |window: &Window| {
            let drained = window.begun + Duration::from_secs(CLOSE_WAIT);
            from <= window.ended.unwrap_or(now)
                && window.begun <= now
                && drained <= now
                && from < drained
        };
        if restarts.any(is_cut) && now - from >= Duration::from_secs(CLOSE_WAIT) {
            return Some("cut after close_wait");
        }
        None
    }

    /// What was going on from a second before to now.
    fn around(&self, from: Instant, now: Instant, begun: Instant) -> String {
        let at = |when: Instant| when.saturating_duration_since(begun).as_secs_f64();
        let near =
            |begun: Instant, ended: Instant| begun <= now && ended + Duration::from_secs(1) >= from;
        let windows = self
            .windows
            .iter()
            .filter(|one| near(one.begun, one.ended.unwrap_or(now)));
        let mut said = Vec::from_iter(windows.map(|one| {
            let end = one
                .ended
                .map_or("now".to_owned(), |end| format!("{:.3}", at(end)));
            format!("{} ({:.3} to {end})", one.what, at(one.begun))
        }));
        let killed = self.killed.iter().filter(|one| near(one.at, one.at));
        said.extend(killed.map(|one| format!("pid {} killed at {:.3}", one.pid, at(one.at))));
        match said.is_empty() {
            true => "nothing".to_owned(),
            false => said.join(", "),
        }
    }
}

pub fn run(hade: Option<&Path>, wish: &Wish) -> Result<(), String> {
    let Some(server) = throughput::demo(hade) else {
        return Ok(());
    };
    let default = if wish.quick { QUICK_SECONDS } else { SECONDS };
    let length = Duration::from_secs(wish.seconds.first().copied().unwrap_or(default));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = wish.seconds.get(1).copied();
    let seed = seed.unwrap_or_else(|| clock.map_or(1, |time| time.as_secs() % 1_000_000));
    println!(
        "{} s of chaos, seed {seed}: repeat with \"-- chaos {} {seed}\"",
        length.as_secs(),
        length.as_secs()
    );

    let root = Root::new([&server])?;
    let ports = [
        servers::free_address()?.port(),
        servers::free_address()?.port(),
    ];
    let shared = Arc::new(Shared {
        begun: Instant::now(),
        stop: Stop::default(),
        port: AtomicU16::new(ports[0]),
        answered: Default::default(),
        failed: AtomicU64::new(0),
        faults: AtomicU64::new(0),
        stopped: AtomicU32::new(0),
        hands: Mutex::default(),
        cleaned: AtomicBool::new(false),
        story: Mutex::default(),
    });
    let mut site = service::Site::new(&shared, &root.path, &server.program, ports, seed)?;
    if let Err(why) = site.start() {
        site.sweep();
        return Err(why);
    }
    // A master that was started is not like one that was restarted.
    site.settle();
    let before = watch::footprint(site.master());
    thread::scope(|scope| {
        let _stop = StopLater(&shared.stop);
        for (number, kind) in KINDS.iter().enumerate() {
            for client in 0..kind.clients {
                let mut client = clients::Client::new(&shared, number, client, seed);
                scope.spawn(move || client.work());
            }
        }
        while shared.begun.elapsed() < length {
            site.trouble(length.saturating_sub(shared.begun.elapsed()));
        }
        site.settle();
    });
    let after = watch::footprint(site.master());
    site.finish();
    let outcome = report(&shared, &site, before.zip(after));
    site.sweep();
    outcome
}

fn report(
    shared: &Shared,
    site: &service::Site,
    footprints: Option<(watch::Footprint, watch::Footprint)>,
) -> Result<(), String> {
    let counts = KINDS.iter().zip(&shared.answered);
    let counts = counts.map(|(kind, count)| format!("{} {}", kind.name, count.load(Relaxed)));
    let total: u64 = shared
        .answered
        .iter()
        .map(|count| count.load(Relaxed))
        .sum();
    println!("answers: {total}: {}", Vec::from_iter(counts).join(", "));
    shared.story(|story| {
        println!("by status: {:?}", story.statuses);
        println!("excused: {:?}", story.excused);
    });
    println!("restarts and troubles: {}", site.counts());
    let failed = shared.failed.load(Relaxed);
    println!("{} {failed} answers wrong or lost", verdict(failed == 0));
    let mut grown = false;
    match footprints {
        None => println!("the master was not there to be looked at"),
        Some((before, after)) => {
            grown = after.descriptors > before.descriptors
                || after.rss_mib > before.rss_mib * 1.1 + 0.25;
            println!(
                "{} master: {:.2} MiB RSS and {} descriptors, then {:.2} and {}",
                verdict(!grown),
                before.rss_mib,
                before.descriptors,
                after.rss_mib,
                after.descriptors
            );
        }
    }
    let faults = shared.faults.load(Relaxed);
    println!("{} {faults} faults of the service", verdict(faults == 0));
    match (failed, faults, grown) {
        (0, 0, false) => Ok(()),
        _ => Err(format!(
            "{failed} answers and {faults} faults, grown: {grown}"
        )),
    }
}

/// Live processes that work in this directory.
fn working_in(dir: &Path) -> Vec<u32> {
    let works =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    watch::all_pids().into_iter().filter(works).collect()
}

/// Xorshift, as in `soak.rs`.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}
