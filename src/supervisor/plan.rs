//! What the master decides, without a clock or a system call: something happened, so this is to be done.
//!
//! Policy: as long as one worker serves, or one may be brought up, somebody listens; only a stop or a failed first
//! start ends that. Deaths make the next worker wait longer, up to 8 s, and never make the master give up.
#![forbid(unsafe_code)]

use crate::sys::process::Pid;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

/// A worker must say that it is ready within this time, and the program on disk that its settings are good.
pub(crate) const BOOT_TIME: Duration = Duration::from_secs(10);
/// All new workers of a restart must serve at the same moment within this time, or it is given up.
pub(crate) const SWITCH_TIME: Duration = Duration::from_secs(20);
/// How much longer than `close_wait` a draining worker gets before it is killed: it cuts by itself first.
const KILL_SLACK: Duration = Duration::from_millis(500);
/// Deaths count together for this long; after such a time without one the waits begin anew.
const WINDOW: Duration = Duration::from_secs(60);
/// Workers that die within this time of the first of them died of the same thing: that counts once.
const MOMENT: Duration = Duration::from_secs(1);
/// From so many deaths within the window on, the next worker has to wait.
const PATIENCE: usize = 5;
/// How soon it is tried again to give a worker an heir.
const HEIR_AGAIN: Duration = Duration::from_millis(100);
/// It waits 1 s, then 2, 4, 8, and 8 from then on.
const LONGEST_WAIT: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A worker was forked, as [`Action::Spawn`] asked.
    Spawned(Pid),
    /// It could not be.
    NotSpawned(String),
    /// A worker says that it serves.
    Ready(Pid),
    /// A worker says why it could not start; its death follows.
    Failed(Pid, String),
    /// A worker leaves within this time although nobody here told it to: somebody sent it TERM.
    Leaves(Pid, Duration),
    /// A worker has no way to its heir, as [`Action::Drain`] or [`Action::Inherit`] asked: there were no descriptors.
    NoWay(Pid),
    /// A worker makes no progress, in these words.
    Late(Pid, String),
    /// A child is gone, in these words.
    Died(Pid, String),
    /// Somebody wants a restart.
    Restart,
    /// The program on disk was tried, as [`Action::Check`] asked: good, or why not.
    Checked(Result<(), String>),
    /// It could not be executed, or what it needs did not come through, and why.
    NotExecuted(String),
    /// The program of before could not be executed again, as [`Action::Return`] asked, and why.
    NotReturned(String),
    /// Something that a start cannot do without.
    Broken(String),
    /// Somebody wants it to end.
    Stop,
    /// The same by somebody at its terminal, or by one that is gone: nobody waits for a balancer to notice.
    Interrupt,
    /// A deadline may have passed.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Spawn,
    /// All workers serve for the first time: tell the world.
    Announce,
    /// A stop is coming: the worker serves on, and says so to everybody who asks.
    Prepare(Pid),
    /// Nothing new is to be accepted by anybody.
    Unlisten,
    Drain {
        pid: Pid,
        within: Duration,
        why: Going,
    },
    /// This worker, which leaves at a restart, passes its connections on to that one from now on.
    Inherit {
        pid: Pid,
        heir: Pid,
    },
    Kill(Pid),
    /// A worker died unasked.
    CountDeath,
    /// Something for the log.
    Say(String),
    /// Try the program on disk.
    Check,
    /// Its outcome is no longer wanted: it took too long, or the master leaves.
    KillCheck,
    /// Become the program on disk.
    Execute,
    /// Become the program of before again: the restart is given up, and why.
    Return(String),
    /// Another restart is not possible now, and why.
    Refuse(String),
    /// The new workers serve and the old ones are gone.
    Restarted,
    /// The old workers go on, and why.
    NotRestarted(String),
    Leave(Outcome),
}

impl Action {
    /// Takes the one that is to be done next. An exec forgets all that is yet to be done, so it comes last.
    pub fn next(actions: &mut VecDeque<Action>) -> Option<Action> {
        let is_exec = |action: &Action| matches!(action, Action::Execute | Action::Return(_));
        let next = actions.iter().position(|action| !is_exec(action));
        actions.remove(next.unwrap_or(0))
    }
}

/// Why a worker is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Going {
    Stop,
    /// This one takes over its connections, if one serves.
    Replaced(Option<Pid>),
}

/// How the master ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Told to.
    Stopped,
    /// The first start failed, and why.
    Failed(String),
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Booting,
    Serving,
    /// It is to be gone soon, whoever wanted that.
    Draining,
}

impl Stage {
    pub const ALL: [Stage; 3] = [Stage::Booting, Stage::Serving, Stage::Draining];

    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Booting => "starting",
            Stage::Serving => "serving",
            Stage::Draining => "draining",
        }
    }
}

/// A worker on its way through an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    pub pid: Pid,
    pub stage: Stage,
    /// When it is to be killed if it is still there, from now.
    pub kill_in: Option<Duration>,
}

struct Worker {
    pid: Pid,
    stage: Stage,
    /// When it was forked.
    born: Instant,
    /// When this stage began.
    since: Instant,
    /// Of the generation that a restart replaces, or of one that failed to replace it: when it ends, no other is started
    /// in its place.
    is_old: bool,
    /// Why it could not start, if it said so.
    why: Option<String>,
    /// Where it leaves at a restart: it passes its connections on, and to whom.
    passes_on: bool,
    heir: Option<Pid>,
    /// When it is tried again to give it one.
    heir_at: Option<Instant>,
    /// When it is killed if it is still there.
    kill_at: Option<Instant>,
    was_killed: bool,
}

impl Worker {
    fn drain(&mut self, now: Instant, within: Duration, why: Going) -> Action {
        if self.stage == Stage::Booting {
            // It has nothing to finish, hears nothing before its boot is over, and holds the listener meanwhile.
            self.leave_by(now, Duration::ZERO);
            return self.kill();
        }
        self.leave_by(now, within);
        (self.passes_on, self.heir) = (matches!(why, Going::Replaced(_)), None);
        Action::Drain {
            pid: self.pid,
            within,
            why,
        }
    }

    fn leave_by(&mut self, now: Instant, within: Duration) {
        let until = now + within + KILL_SLACK;
        (self.stage, self.since) = (Stage::Draining, now);
        // Who starts or leaves already has no more time than it had.
        self.kill_at = Some(self.kill_at.map_or(until, |ends| ends.min(until)));
    }

    fn kill(&mut self) -> Action {
        self.was_killed = true;
        Action::Kill(self.pid)
    }

    /// It leaves, and others are to have its connections.
    fn is_passing(&self) -> bool {
        self.passes_on && !self.was_killed
    }

    /// One of those that are to be there.
    fn is_current(&self) -> bool {
        !self.is_old && self.stage != Stage::Draining
    }
}

enum Phase {
    /// Until all workers have been ready once.
    Starting,
    Serving,
    /// Told to stop: it serves on until then, for those who are still sent here.
    Stopping {
        until: Instant,
    },
    Leaving(Outcome),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Restart {
    /// The program on disk is being tried until then.
    Checking { until: Instant },
    /// The new workers are starting, beside the old ones.
    Booting { until: Instant },
    /// It is given up for this reason, and the program of before is about to come back.
    Returning { why: String },
    /// The new ones serve, the old ones finish.
    Draining,
}

pub(crate) struct Plan {
    wanted: usize,
    close_wait: Duration,
    /// How long it serves on when it is told to stop.
    stop_delay: Duration,
    phase: Phase,
    restart: Option<Restart>,
    workers: Vec<Worker>,
    /// When workers died, one entry for all of a moment.
    deaths: Vec<Instant>,
    /// How long the next wait is, as a power of two.
    waits: u32,
    /// When the missing workers are due, after a wait.
    due: Option<Instant>,
    /// What was lost last, while nobody serves.
    trouble: Option<String>,
}

impl Plan {
    pub fn new(workers: usize, close_wait: Duration) -> Plan {
        Plan {
            wanted: workers,
            close_wait,
            stop_delay: Duration::ZERO,
            phase: Phase::Starting,
            restart: None,
            workers: Vec::new(),
            deaths: Vec::new(),
            waits: 0,
            due: None,
            trouble: None,
        }
    }

    /// After an exec: the workers of before serve, and are to be replaced.
    pub fn resume(workers: usize, close_wait: Duration, now: Instant, passed: &[Passed]) -> Plan {
        let mut plan = Plan::new(workers, close_wait);
        plan.phase = Phase::Serving;
        plan.restart = Some(Restart::Booting {
            until: now + SWITCH_TIME,
        });
        plan.workers = passed.iter().map(|one| adopted(now, *one, true)).collect();
        plan
    }

    /// After the exec of the program of before, when a restart was given up: its workers are the ones again, and
    /// those of the other program leave.
    pub fn returned(workers: usize, close_wait: Duration, now: Instant, passed: &[Passed]) -> Plan {
        let mut plan = Plan::resume(workers, close_wait, now, passed);
        plan.restart = None;
        for worker in &mut plan.workers {
            worker.is_old = worker.stage == Stage::Draining;
        }
        plan
    }

    /// The same plan, which serves on for so long when it is told to stop.
    pub fn delaying(self, stop_delay: Duration) -> Plan {
        Plan { stop_delay, ..self }
    }

    /// The first thing to do.
    pub fn begin(&self) -> Vec<Action> {
        vec![Action::Spawn; self.missing()]
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let kills = self
            .workers
            .iter()
            .filter(|worker| !worker.was_killed)
            .filter_map(|worker| worker.kill_at);
        let passing = self.workers.iter().filter(|worker| worker.is_passing());
        let heirs = passing.filter_map(|worker| worker.heir_at);
        let restart = match self.restart {
            Some(Restart::Checking { until } | Restart::Booting { until }) => Some(until),
            _ => None,
        };
        let stop = match self.phase {
            Phase::Stopping { until } => Some(until),
            _ => None,
        };
        let others = [restart, stop, self.due].into_iter().flatten();
        kills.chain(heirs).chain(others).min()
    }

    /// Whether the worker is of the generation that is being replaced.
    pub fn is_old(&self, pid: Pid) -> bool {
        self.find(pid).is_some_and(|worker| worker.is_old)
    }

    /// Whether the master is on its way out.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }

    /// How long the next stop is put off.
    pub fn stop_delay(&self) -> Duration {
        match self.phase {
            Phase::Serving => self.stop_delay,
            _ => Duration::ZERO,
        }
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Leaving(_))
    }

    /// Where a worker is in its life; `None` for one that is not known.
    pub fn stage(&self, pid: Pid) -> Option<Stage> {
        self.find(pid).map(|worker| worker.stage)
    }

    /// Why nobody serves, when nobody does.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// What an exec is to know of a worker.
    pub fn pass(&self, now: Instant, pid: Pid) -> Option<Passed> {
        let worker = self.find(pid)?;
        // One that was given up, and all of those that are to leave, are not to be waited for on the other side.
        let is_leaving = matches!(self.restart, Some(Restart::Returning { .. })) && worker.is_old;
        let kill_at = worker.kill_at.filter(|_| !worker.was_killed);
        Some(Passed {
            pid,
            stage: if is_leaving || worker.was_killed {
                Stage::Draining
            } else {
                worker.stage
            },
            kill_in: kill_at.map(|at| at.saturating_duration_since(now)),
        })
    }

    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = match event {
            Event::Spawned(pid) => self.spawned(now, pid),
            Event::NotSpawned(why) => {
                self.lost(now, format!("cannot start a worker: {why}"), None, false)
            }
            Event::Ready(pid) => self.ready(now, pid),
            Event::Failed(pid, why) => {
                if let Some(worker) = self.worker(pid) {
                    worker.why = Some(why);
                }
                vec![]
            }
            Event::Leaves(pid, within) => self.leaves(now, pid, within),
            Event::NoWay(pid) => self.no_way(now, pid),
            Event::Late(pid, how) => self.late(now, pid, &how),
            Event::Died(pid, how) => self.died(now, pid, &how),
            Event::Restart => self.begin_restart(now),
            Event::Checked(result) => self.checked(result),
            Event::NotExecuted(why) => self.keep_old(now, why),
            Event::NotReturned(why) => self.not_returned(now, &why),
            Event::Broken(why) => self.leave(now, Outcome::Failed(why)),
            Event::Stop => self.stop(now, self.stop_delay()),
            Event::Interrupt => self.stop(now, Duration::ZERO),
            Event::Tick => self.tick(now),
        };
        if self
            .workers
            .iter()
            .any(|worker| worker.stage == Stage::Serving)
        {
            self.trouble = None;
        }
        self.name_heirs(now, &mut actions);
        actions
    }

    /// Whoever leaves at a restart passes its connections on to one that serves; when that one leaves itself, or is gone,
    /// to another.
    fn name_heirs(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let serving = self
            .current()
            .filter(|worker| worker.stage == Stage::Serving);
        let serving: Vec<Pid> = serving.map(|worker| worker.pid).collect();
        for worker in self.workers.iter_mut().filter(|worker| worker.is_passing()) {
            if worker.heir_at.is_some_and(|at| now < at) {
                continue;
            }
            worker.heir_at = None;
            if worker.heir.is_some_and(|heir| serving.contains(&heir)) {
                continue;
            }
            let pid = worker.pid;
            // Not all to the same one.
            worker.heir = serving
                .get(pid.raw() as usize % serving.len().max(1))
                .copied();
            let Some(heir) = worker.heir else { continue };
            let drain = actions.iter_mut().find_map(|action| match action {
                Action::Drain {
                    pid: whose, why, ..
                } if *whose == pid => Some(why),
                _ => None,
            });
            match drain {
                Some(why) => *why = Going::Replaced(Some(heir)),
                None => actions.push(Action::Inherit { pid, heir }),
            }
        }
    }

    /// It keeps its connections for now, and is given the same heir or another one soon.
    fn no_way(&mut self, now: Instant, pid: Pid) -> Vec<Action> {
        if let Some(worker) = self.worker(pid) {
            (worker.heir, worker.heir_at) = (None, Some(now + HEIR_AGAIN));
        }
        vec![]
    }

    fn find(&self, pid: Pid) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.pid == pid)
    }

    fn worker(&mut self, pid: Pid) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.pid == pid)
    }

    fn has_old(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_old)
    }

    fn current(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.is_current())
    }

    fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.current().count())
    }

    fn spawned(&mut self, now: Instant, pid: Pid) -> Vec<Action> {
        let booting = Passed {
            pid,
            stage: Stage::Booting,
            kill_in: Some(BOOT_TIME),
        };
        let mut worker = adopted(now, booting, false);
        let too_late = self
            .is_leaving()
            .then(|| worker.drain(now, Duration::ZERO, Going::Stop));
        self.workers.push(worker);
        too_late.into_iter().collect()
    }

    fn ready(&mut self, now: Instant, pid: Pid) -> Vec<Action> {
        let Some(worker) = self
            .worker(pid)
            .filter(|worker| worker.stage == Stage::Booting)
        else {
            return vec![];
        };
        (worker.stage, worker.since, worker.kill_at) = (Stage::Serving, now, None);
        if matches!(self.phase, Phase::Stopping { .. }) {
            return vec![Action::Prepare(pid)];
        }
        let serving = self
            .current()
            .filter(|worker| worker.stage == Stage::Serving)
            .count();
        if serving < self.wanted {
            return vec![];
        }
        match (&self.phase, &self.restart) {
            (Phase::Starting, _) => {
                self.phase = Phase::Serving;
                vec![Action::Announce]
            }
            (Phase::Serving, Some(Restart::Booting { .. })) => {
                self.restart = Some(Restart::Draining);
                let close_wait = self.close_wait;
                let old = self.workers.iter_mut().filter(|worker| worker.is_old);
                let mut actions: Vec<Action> = old
                    .map(|worker| worker.drain(now, close_wait, Going::Replaced(None)))
                    .collect();
                actions.extend(self.replaced());
                actions
            }
            _ => vec![],
        }
    }

    /// The restart is over when the last old worker is gone.
    fn replaced(&mut self) -> Vec<Action> {
        if self.restart != Some(Restart::Draining) || self.has_old() {
            return vec![];
        }
        self.restart = None;
        vec![Action::Restarted]
    }

    /// Somebody told a worker to leave. It finishes what it has, and the next one need not wait for that.
    fn leaves(&mut self, now: Instant, pid: Pid, within: Duration) -> Vec<Action> {
        let Some(worker) = self
            .worker(pid)
            .filter(|worker| worker.stage == Stage::Serving)
        else {
            return vec![];
        };
        worker.leave_by(now, within);
        let (is_old, born) = (worker.is_old, worker.born);
        let what = format!("worker {pid} was told to leave");
        if is_old {
            return vec![Action::Say(what)];
        }
        self.miss(now, what, Some(born), true)
    }

    /// A worker that hangs is killed, and not waited for: the kernel may hold it for longer (a disk, a debugger).
    fn late(&mut self, now: Instant, pid: Pid, how: &str) -> Vec<Action> {
        let Some(worker) = self
            .worker(pid)
            .filter(|worker| worker.stage == Stage::Serving)
        else {
            return vec![];
        };
        worker.leave_by(now, Duration::ZERO);
        let mut actions = vec![worker.kill(), Action::CountDeath];
        let (is_old, born) = (worker.is_old, worker.born);
        let what = format!("worker {pid} {how}, it is killed");
        if is_old {
            actions.push(Action::Say(what));
        } else {
            actions.extend(self.miss(now, what, Some(born), true));
        }
        actions
    }

    fn died(&mut self, now: Instant, pid: Pid, how: &str) -> Vec<Action> {
        let Some(index) = self.workers.iter().position(|worker| worker.pid == pid) else {
            return vec![];
        };
        let worker = self.workers.remove(index);
        let up = now.saturating_duration_since(worker.since).as_secs();
        let mut actions = vec![];
        match (&self.phase, worker.stage) {
            (Phase::Leaving(_), _) => actions.extend(self.left()),
            (_, Stage::Draining) => actions.extend(self.replaced()),
            (_, Stage::Serving) if worker.is_old => {
                actions.push(Action::CountDeath);
                actions.push(Action::Say(format!("old worker {pid} {how}")));
            }
            // One of a generation that was given up.
            (_, Stage::Booting) if worker.is_old => {}
            (_, Stage::Booting) => {
                let early = format!("{how} before it was ready");
                let why = worker.why.unwrap_or(early);
                let what = format!("worker {pid}: {why}");
                actions.extend(self.lost(now, what, Some(worker.born), false));
            }
            (_, Stage::Serving) => {
                actions.push(Action::CountDeath);
                let what = format!("worker {pid} {how}, up {up} s");
                actions.extend(self.lost(now, what, Some(worker.born), true));
            }
        }
        actions
    }

    /// A worker is missing that should be there: at the first start that is the end of it, and at a restart, where
    /// it is one that could not start, the end of that.
    fn lost(
        &mut self,
        now: Instant,
        what: String,
        born: Option<Instant>,
        served: bool,
    ) -> Vec<Action> {
        match (&self.phase, &self.restart) {
            // Nothing serves yet, and somebody waits for the word.
            (Phase::Starting, _) => self.leave(now, Outcome::Failed(what)),
            (Phase::Leaving(_), _) => self.left(),
            (_, Some(Restart::Booting { .. })) if !served => self.keep_old(now, what),
            _ => self.miss(now, what, born, served),
        }
    }

    /// Sees to it that a missing worker is replaced: at once, or after a wait that all who are missing share.
    fn miss(
        &mut self,
        now: Instant,
        what: String,
        born: Option<Instant>,
        served: bool,
    ) -> Vec<Action> {
        self.trouble = Some(what.clone());
        let age = |death: Instant| now.saturating_duration_since(death);
        self.deaths.retain(|death| age(*death) < WINDOW);
        if self.deaths.is_empty() {
            self.waits = 0;
        }
        // Who was forked after the last death did not die of the same thing.
        let is_same = |last: &Instant| age(*last) < MOMENT && born.is_none_or(|born| born < *last);
        if !self.deaths.last().is_some_and(is_same) {
            self.deaths.push(now);
        }
        if self.due.is_none() {
            if served && self.deaths.len() < PATIENCE {
                self.waits = 0;
                return vec![Action::Say(what), Action::Spawn];
            }
            self.due = Some(now + Duration::from_secs(1 << self.waits));
            self.waits = (self.waits + 1).min(LONGEST_WAIT);
        }
        let wait = self.due.unwrap_or(now).saturating_duration_since(now);
        let seconds = wait.as_millis().div_ceil(1000);
        vec![Action::Say(format!(
            "{what}; the next one starts in {seconds} s"
        ))]
    }

    /// Sees to it that workers who are missing for no fault of theirs are started soon.
    fn fill(&mut self, now: Instant) {
        if self.missing() > 0 && self.due.is_none() {
            self.due = Some(now + Duration::from_secs(1 << self.waits));
        }
    }

    fn begin_restart(&mut self, now: Instant) -> Vec<Action> {
        let why = match (&self.phase, &self.restart) {
            (Phase::Serving, None) => {
                self.restart = Some(Restart::Checking {
                    until: now + BOOT_TIME,
                });
                return vec![Action::Check];
            }
            (Phase::Serving, Some(_)) => "a restart is under way",
            (Phase::Starting, _) => "it is starting",
            (Phase::Stopping { .. } | Phase::Leaving(_), _) => "it is stopping",
        };
        vec![Action::Refuse(why.to_owned())]
    }

    fn checked(&mut self, result: Result<(), String>) -> Vec<Action> {
        if !matches!(self.restart, Some(Restart::Checking { .. })) {
            return vec![];
        }
        match result {
            Ok(()) => vec![Action::Execute],
            Err(why) => {
                self.restart = None;
                vec![Action::NotRestarted(why)]
            }
        }
    }

    /// The restart failed: the old workers are the ones again, and what there is of new ones leaves.
    fn keep_old(&mut self, now: Instant, why: String) -> Vec<Action> {
        match self.restart.take() {
            Some(Restart::Booting { .. }) => {}
            // Nothing was begun that would have to be taken back.
            Some(Restart::Checking { .. }) => return vec![Action::NotRestarted(why)],
            other => {
                self.restart = other;
                return vec![];
            }
        }
        let mut actions = vec![];
        for worker in &mut self.workers {
            // One that was leaving already is no more wanted than before.
            worker.is_old = !worker.is_old || worker.stage == Stage::Draining;
            match worker.stage {
                // One of several that was quicker than the one that failed: it has requests.
                Stage::Serving if worker.is_old => {
                    actions.push(worker.drain(now, self.close_wait, Going::Replaced(None)))
                }
                Stage::Booting if worker.is_old && !worker.was_killed => {
                    worker.leave_by(now, Duration::ZERO);
                    actions.push(worker.kill());
                }
                _ => {}
            }
        }
        // What the new program would have started is not wanted either.
        self.due = None;
        self.restart = Some(Restart::Returning { why: why.clone() });
        actions.push(Action::Return(why));
        actions
    }

    /// There is no way back: this program goes on, with the old workers for as long as they live.
    fn not_returned(&mut self, now: Instant, how: &str) -> Vec<Action> {
        let Some(Restart::Returning { why }) = self.restart.take() else {
            return vec![];
        };
        // The old ones may have died meanwhile, or another number of workers may be wanted now.
        self.fill(now);
        let text = format!("{why}; the program of before cannot be executed again: {how}");
        vec![Action::NotRestarted(text)]
    }

    fn stop(&mut self, now: Instant, delay: Duration) -> Vec<Action> {
        if !self.is_leaving() && delay.is_zero() {
            return self.leave(now, Outcome::Stopped);
        }
        if !self.is_leaving() {
            let mut actions = self.end_restart("it was told to stop");
            self.phase = Phase::Stopping { until: now + delay };
            let serving = |worker: &&Worker| worker.stage == Stage::Serving;
            let serving = self.workers.iter().filter(serving);
            actions.extend(serving.map(|worker| Action::Prepare(worker.pid)));
            return actions;
        }
        // The second time: at once.
        let left = self.workers.iter_mut().filter(|worker| !worker.was_killed);
        left.map(|worker| worker.drain(now, Duration::ZERO, Going::Stop))
            .collect()
    }

    /// There is no time left for a restart that may be under way.
    fn end_restart(&mut self, why: &str) -> Vec<Action> {
        let restart = self.restart.take();
        let not_restarted = Action::NotRestarted(why.to_owned());
        match restart {
            Some(Restart::Checking { .. }) => vec![Action::KillCheck, not_restarted],
            Some(_) => vec![not_restarted],
            None => vec![],
        }
    }

    /// Begins to leave.
    fn leave(&mut self, now: Instant, outcome: Outcome) -> Vec<Action> {
        let mut actions = self.end_restart(match &outcome {
            Outcome::Stopped => "it was told to stop",
            Outcome::Failed(why) => why,
        });
        self.phase = Phase::Leaving(outcome);
        self.due = None;
        actions.push(Action::Unlisten);
        let close_wait = self.close_wait;
        let there = self.workers.iter_mut().filter(|worker| !worker.was_killed);
        actions.extend(there.map(|worker| worker.drain(now, close_wait, Going::Stop)));
        actions.extend(self.left());
        actions
    }

    /// Leaves, if nobody is left.
    fn left(&mut self) -> Vec<Action> {
        match &self.phase {
            Phase::Leaving(outcome) if self.workers.is_empty() => {
                vec![Action::Leave(outcome.clone())]
            }
            _ => vec![],
        }
    }

    /// Kills whose time is over. Who was to start is missed from then on, and not only when it is collected.
    fn kill_late(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = vec![];
        let mut not_ready = vec![];
        for worker in &mut self.workers {
            if worker.was_killed || worker.kill_at.is_none_or(|at| at > now) {
                continue;
            }
            actions.push(worker.kill());
            let pid = worker.pid;
            if worker.stage == Stage::Draining {
                actions.push(Action::Say(format!(
                    "worker {pid} did not leave in time and was killed"
                )));
                continue;
            }
            let is_missed = !worker.is_old;
            worker.leave_by(now, Duration::ZERO);
            if is_missed {
                not_ready.push((pid, worker.born));
            }
        }
        for (pid, born) in not_ready {
            // The first of several may have ended the restart that wanted them all.
            if self.is_old(pid) {
                continue;
            }
            let seconds = BOOT_TIME.as_secs();
            let what = format!("worker {pid}: not ready after {seconds} s");
            actions.extend(self.lost(now, what, Some(born), false));
        }
        actions
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = self.kill_late(now);
        match self.restart {
            Some(Restart::Checking { until }) if until <= now => {
                self.restart = None;
                let seconds = BOOT_TIME.as_secs();
                let what = "the check of the program on disk did not end";
                actions.push(Action::KillCheck);
                actions.push(Action::NotRestarted(format!("{what} within {seconds} s")));
            }
            Some(Restart::Booting { until }) if until <= now => {
                let seconds = SWITCH_TIME.as_secs();
                let why = format!("not all new workers serve after {seconds} s");
                actions.extend(self.keep_old(now, why));
            }
            _ => {}
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            actions.extend(self.begin());
        }
        match self.phase {
            Phase::Stopping { until } if until <= now => {
                // Who was to be started above is not to be any more.
                actions.retain(|action| *action != Action::Spawn);
                actions.extend(self.leave(now, Outcome::Stopped));
            }
            _ => {}
        }
        actions
    }
}

/// A worker that is there already.
fn adopted(now: Instant, passed: Passed, is_old: bool) -> Worker {
    let Passed {
        pid,
        stage,
        kill_in,
    } = passed;
    Worker {
        pid,
        stage,
        born: now,
        since: now,
        is_old,
        why: None,
        // To whom, and whether at all, an exec forgets. One that leaves for a stop has no use for an heir.
        passes_on: stage == Stage::Draining,
        heir: None,
        heir_at: None,
        kill_at: kill_in.map(|time| now + time),
        was_killed: false,
    }
}
