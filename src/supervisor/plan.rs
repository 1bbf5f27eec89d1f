//! What the master decides, without a clock or a system call: something happened, so this is to be done.
#![forbid(unsafe_code)]

use crate::sys::process::Pid;
use std::time::{Duration, Instant};

/// A worker must say that it is ready within this time, and the program on disk that its settings are good.
pub(crate) const BOOT_TIME: Duration = Duration::from_secs(10);
/// How much longer than `close_wait` a draining worker gets before it is killed: it cuts by itself first.
const KILL_SLACK: Duration = Duration::from_millis(500);
/// Deaths within this time count together.
const WINDOW: Duration = Duration::from_secs(60);
/// From so many deaths within the window on, the next worker has to wait: 1 s, then 2, 4, 8.
const PATIENCE: usize = 5;
/// So many waits, and then it is given up.
const WAITS: u32 = 4;

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
    /// A child is gone, in these words.
    Died(Pid, String),
    /// Somebody wants a restart.
    Restart,
    /// The program on disk was tried, as [`Action::Check`] asked: good, or why not.
    Checked(Result<(), String>),
    /// It could not be executed, and why.
    NotExecuted(String),
    /// Something that the service cannot do without.
    Broken(String),
    /// TERM, INT or QUIT.
    Stop,
    /// A deadline may have passed.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Spawn,
    /// All workers serve for the first time: tell the world.
    Announce,
    /// Nothing new is to be accepted by anybody.
    Unlisten,
    Drain {
        pid: Pid,
        within: Duration,
        restart: bool,
    },
    Kill(Pid),
    /// A worker died unasked.
    CountDeath,
    /// Something for the log.
    Say(String),
    /// Try the program on disk.
    Check,
    /// It took too long.
    KillCheck,
    /// Become the program on disk.
    Execute,
    /// Another restart is not possible now, and why.
    Refuse(String),
    /// The new workers serve and the old ones are gone.
    Restarted,
    /// The old workers go on, and why.
    NotRestarted(String),
    Leave(Outcome),
}

/// How the master ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Told to.
    Stopped,
    /// It cannot go on, and why.
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Booting,
    Serving,
    Draining,
}

struct Worker {
    pid: Pid,
    stage: Stage,
    /// When this stage began.
    since: Instant,
    /// Of the generation that a restart replaces, or of one that failed to replace it: not to be replaced.
    is_old: bool,
    /// Why it could not start, if it said so.
    why: Option<String>,
    /// When it is killed if it is still there.
    kill_at: Option<Instant>,
    was_killed: bool,
}

impl Worker {
    fn drain(&mut self, now: Instant, within: Duration, restart: bool) -> Action {
        self.stage = Stage::Draining;
        self.kill_at = Some(now + within + KILL_SLACK);
        Action::Drain {
            pid: self.pid,
            within,
            restart,
        }
    }
}

enum Phase {
    /// Until all workers have been ready once.
    Starting,
    Serving,
    Leaving(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    /// The program on disk is being tried until then.
    Checking { until: Instant },
    /// It took too long; its end is awaited.
    Killed,
    /// The new workers are starting, beside the old ones.
    Booting,
    /// The new ones serve, the old ones finish.
    Draining,
}

pub(crate) struct Plan {
    wanted: usize,
    close_wait: Duration,
    phase: Phase,
    restart: Option<Restart>,
    workers: Vec<Worker>,
    deaths: Vec<Instant>,
    /// Waits since a worker last was ready and stayed.
    waits: u32,
    /// When the missing workers are due, after a wait.
    due: Option<Instant>,
}

impl Plan {
    pub fn new(workers: usize, close_wait: Duration) -> Plan {
        Plan {
            wanted: workers,
            close_wait,
            phase: Phase::Starting,
            restart: None,
            workers: Vec::new(),
            deaths: Vec::new(),
            waits: 0,
            due: None,
        }
    }

    /// After an exec: the workers of before serve, and are to be replaced.
    pub fn resume(workers: usize, close_wait: Duration, now: Instant, old: &[(Pid, &str)]) -> Plan {
        let mut plan = Plan::new(workers, close_wait);
        plan.phase = Phase::Serving;
        plan.restart = Some(Restart::Booting);
        let stage = |name: &str| match name {
            "starting" => Stage::Booting,
            "draining" => Stage::Draining,
            _ => Stage::Serving,
        };
        let old = old
            .iter()
            .map(|(pid, name)| Plan::worker_since(now, *pid, stage(name), true));
        plan.workers = old.collect();
        plan
    }

    fn worker_since(since: Instant, pid: Pid, stage: Stage, is_old: bool) -> Worker {
        let kill_at = (stage == Stage::Booting).then(|| since + BOOT_TIME);
        Worker {
            pid,
            stage,
            since,
            is_old,
            why: None,
            kill_at,
            was_killed: false,
        }
    }

    /// The first thing to do.
    pub fn begin(&self) -> Vec<Action> {
        vec![Action::Spawn; self.wanted]
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let kills = self
            .workers
            .iter()
            .filter(|worker| !worker.was_killed)
            .filter_map(|worker| worker.kill_at);
        let check = match self.restart {
            Some(Restart::Checking { until }) => Some(until),
            _ => None,
        };
        kills.chain(check).chain(self.due).min()
    }

    /// Whether the worker is of the generation that is being replaced.
    pub fn is_old(&self, pid: Pid) -> bool {
        self.workers
            .iter()
            .any(|worker| worker.pid == pid && worker.is_old)
    }

    /// Whether the master is on its way out.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }

    /// In which state a worker is, in a word for people.
    pub fn stage(&self, pid: Pid) -> &'static str {
        match self
            .workers
            .iter()
            .find(|worker| worker.pid == pid)
            .map(|worker| worker.stage)
        {
            Some(Stage::Booting) => "starting",
            Some(Stage::Serving) => "serving",
            Some(Stage::Draining) => "draining",
            None => "gone",
        }
    }

    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Spawned(pid) => {
                let mut worker = Plan::worker_since(now, pid, Stage::Booting, false);
                let too_late = self
                    .is_leaving()
                    .then(|| worker.drain(now, Duration::ZERO, false));
                self.workers.push(worker);
                too_late.into_iter().collect()
            }
            Event::NotSpawned(why) => {
                self.lost(now, format!("cannot start a worker: {why}"), false)
            }
            Event::Ready(pid) => self.ready(now, pid),
            Event::Failed(pid, why) => {
                if let Some(worker) = self.worker(pid) {
                    worker.why = Some(why);
                }
                vec![]
            }
            Event::Died(pid, how) => self.died(now, pid, &how),
            Event::Restart => self.begin_restart(now),
            Event::Checked(result) => self.checked(result),
            Event::NotExecuted(why) => self.keep_old(now, why),
            Event::Broken(why) => self.leave(now, Outcome::Failed(why)),
            Event::Stop => self.stop(now),
            Event::Tick => self.tick(now),
        }
    }

    fn worker(&mut self, pid: Pid) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.pid == pid)
    }

    fn has_old(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_old)
    }

    fn ready(&mut self, now: Instant, pid: Pid) -> Vec<Action> {
        let Some(worker) = self
            .worker(pid)
            .filter(|worker| worker.stage == Stage::Booting)
        else {
            return vec![];
        };
        (worker.stage, worker.since, worker.kill_at) = (Stage::Serving, now, None);
        let serving = self
            .workers
            .iter()
            .filter(|worker| worker.stage == Stage::Serving && !worker.is_old)
            .count();
        if serving < self.wanted {
            return vec![];
        }
        match (&self.phase, self.restart) {
            (Phase::Starting, _) => {
                self.phase = Phase::Serving;
                vec![Action::Announce]
            }
            (Phase::Serving, Some(Restart::Booting)) => {
                self.restart = Some(Restart::Draining);
                let close_wait = self.close_wait;
                let old = self.workers.iter_mut().filter(|worker| worker.is_old);
                let mut actions: Vec<Action> = old
                    .map(|worker| worker.drain(now, close_wait, true))
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

    fn died(&mut self, now: Instant, pid: Pid, how: &str) -> Vec<Action> {
        let Some(index) = self.workers.iter().position(|worker| worker.pid == pid) else {
            return vec![];
        };
        let worker = self.workers.remove(index);
        let up = now.saturating_duration_since(worker.since).as_secs();
        let mut actions = vec![];
        if worker.stage == Stage::Draining && worker.was_killed {
            actions.push(Action::Say(format!(
                "worker {pid} did not leave in time and was killed"
            )));
        }
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
                let late = format!("not ready after {} s", BOOT_TIME.as_secs());
                let early = format!("{how} before it was ready");
                let why = worker
                    .why
                    .unwrap_or(if worker.was_killed { late } else { early });
                actions.extend(self.lost(now, format!("worker {pid}: {why}"), false));
            }
            (_, Stage::Serving) => {
                actions.push(Action::CountDeath);
                actions.extend(self.lost(now, format!("worker {pid} {how}, up {up} s"), true));
            }
        }
        actions
    }

    /// A worker is missing that should be there.
    fn lost(&mut self, now: Instant, what: String, served: bool) -> Vec<Action> {
        match self.phase {
            // Nothing serves yet, and somebody waits for the word.
            Phase::Starting => return self.leave(now, Outcome::Failed(what)),
            Phase::Leaving(_) => return self.left(),
            Phase::Serving => {}
        }
        if self.restart == Some(Restart::Booting) && !served {
            return self.keep_old(now, what);
        }
        self.deaths
            .retain(|death| now.saturating_duration_since(*death) < WINDOW);
        self.deaths.push(now);
        if served && self.deaths.len() < PATIENCE {
            self.waits = 0;
            return vec![Action::Say(what), Action::Spawn];
        }
        if self.waits >= WAITS {
            return self.leave(
                now,
                Outcome::Failed(format!("giving up, workers keep dying; the last: {what}")),
            );
        }
        let wait = Duration::from_secs(1 << self.waits);
        self.waits += 1;
        self.due = Some(now + wait);
        vec![Action::Say(format!(
            "{what}; the next one starts in {} s",
            wait.as_secs()
        ))]
    }

    fn begin_restart(&mut self, now: Instant) -> Vec<Action> {
        let why = match (&self.phase, self.restart) {
            (Phase::Serving, None) => {
                self.restart = Some(Restart::Checking {
                    until: now + BOOT_TIME,
                });
                return vec![Action::Check];
            }
            (Phase::Serving, Some(_)) => "a restart is under way",
            (Phase::Starting, _) => "it is starting",
            (Phase::Leaving(_), _) => "it is stopping",
        };
        vec![Action::Refuse(why.to_owned())]
    }

    fn checked(&mut self, result: Result<(), String>) -> Vec<Action> {
        let restart = self.restart.take();
        match (restart, result) {
            (Some(Restart::Checking { .. }), Ok(())) => {
                self.restart = restart;
                vec![Action::Execute]
            }
            (Some(Restart::Checking { .. }), Err(why)) => vec![Action::NotRestarted(why)],
            (Some(Restart::Killed), _) => {
                let limit = BOOT_TIME.as_secs();
                vec![Action::NotRestarted(format!(
                    "the check of the program on disk did not end within {limit} s"
                ))]
            }
            _ => {
                self.restart = restart;
                vec![]
            }
        }
    }

    /// The restart failed: the old workers are the ones again, and what there is of new ones leaves.
    fn keep_old(&mut self, now: Instant, why: String) -> Vec<Action> {
        let Some(restart) = self.restart.take() else {
            return vec![];
        };
        let mut actions = vec![Action::NotRestarted(why)];
        if restart != Restart::Booting {
            // Nothing was begun that would have to be taken back.
            return actions;
        }
        for worker in &mut self.workers {
            // One that was leaving already is no more wanted than before.
            worker.is_old = !worker.is_old || worker.stage == Stage::Draining;
            match worker.stage {
                // One of several that was quicker than the one that failed: it has requests.
                Stage::Serving if worker.is_old => {
                    actions.push(worker.drain(now, self.close_wait, true))
                }
                Stage::Booting if worker.is_old => worker.kill_at = Some(now),
                _ => {}
            }
        }
        actions.extend(self.kill_late(now));
        // The old ones may have died meanwhile, or another number of workers may be wanted now.
        if self.workers.iter().filter(|worker| !worker.is_old).count() < self.wanted {
            self.due = Some(now + Duration::from_secs(1));
        }
        actions
    }

    fn stop(&mut self, now: Instant) -> Vec<Action> {
        if !matches!(self.phase, Phase::Leaving(_)) {
            return self.leave(now, Outcome::Stopped);
        }
        // The second time: at once.
        self.workers
            .iter_mut()
            .map(|worker| worker.drain(now, Duration::ZERO, false))
            .collect()
    }

    /// Begins to leave.
    fn leave(&mut self, now: Instant, outcome: Outcome) -> Vec<Action> {
        let mut actions = vec![];
        if self.restart.take().is_some() {
            let told = "it was told to stop".to_owned();
            actions.push(Action::NotRestarted(match &outcome {
                Outcome::Stopped => told,
                Outcome::Failed(why) => why.clone(),
            }));
        }
        self.phase = Phase::Leaving(outcome);
        self.due = None;
        actions.push(Action::Unlisten);
        let close_wait = self.close_wait;
        actions.extend(
            self.workers
                .iter_mut()
                .map(|worker| worker.drain(now, close_wait, false)),
        );
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

    fn kill_late(&mut self, now: Instant) -> Vec<Action> {
        let late =
            |worker: &&mut Worker| !worker.was_killed && worker.kill_at.is_some_and(|at| at <= now);
        let kill = |worker: &mut Worker| {
            worker.was_killed = true;
            Action::Kill(worker.pid)
        };
        self.workers.iter_mut().filter(late).map(kill).collect()
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = self.kill_late(now);
        if matches!(self.restart, Some(Restart::Checking { until }) if until <= now) {
            self.restart = Some(Restart::Killed);
            actions.push(Action::KillCheck);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            let there = self.workers.iter().filter(|worker| !worker.is_old).count();
            actions.extend(vec![Action::Spawn; self.wanted.saturating_sub(there)]);
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{
        Announce, Check, CountDeath, Execute, Kill, KillCheck, Leave, NotRestarted, Refuse,
        Restarted, Say, Spawn, Unlisten,
    };

    const CLOSE_WAIT: Duration = Duration::from_secs(5);

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    /// A plan with a clock that the test sets, in milliseconds.
    struct Story {
        plan: Plan,
        start: Instant,
    }

    impl Story {
        fn new(workers: usize) -> Story {
            Story {
                plan: Plan::new(workers, CLOSE_WAIT),
                start: Instant::now(),
            }
        }

        fn serving(workers: usize) -> Story {
            let mut story = Story::new(workers);
            for number in 0..workers as i32 {
                story.at(0, Event::Spawned(pid(100 + number)));
                story.at(0, Event::Ready(pid(100 + number)));
            }
            story
        }

        fn at(&mut self, millis: u64, event: Event) -> Vec<Action> {
            self.plan
                .step(self.start + Duration::from_millis(millis), event)
        }

        fn died(&mut self, millis: u64, number: i32) -> Vec<Action> {
            self.at(millis, Event::Died(pid(number), "exited, status 1".into()))
        }

        fn deadline(&self) -> Option<u64> {
            self.plan
                .deadline()
                .map(|at| (at - self.start).as_millis() as u64)
        }
    }

    fn drain(number: i32) -> Action {
        Action::Drain {
            pid: pid(number),
            within: CLOSE_WAIT,
            restart: false,
        }
    }

    fn replace(number: i32) -> Action {
        Action::Drain {
            pid: pid(number),
            within: CLOSE_WAIT,
            restart: true,
        }
    }

    fn failed(why: &str) -> Action {
        Leave(Outcome::Failed(why.into()))
    }

    #[test]
    fn announces_once_and_only_when_all_serve() {
        let mut story = Story::new(2);
        assert_eq!(story.plan.begin(), [Spawn, Spawn]);
        story.at(0, Event::Spawned(pid(2)));
        story.at(0, Event::Spawned(pid(3)));
        assert_eq!(story.deadline(), Some(10_000));
        assert_eq!(story.at(1, Event::Ready(pid(2))), []);
        assert_eq!(story.at(2, Event::Ready(pid(3))), [Announce]);
        assert_eq!(story.at(3, Event::Ready(pid(3))), []);
        assert_eq!(story.deadline(), None);
    }

    #[test]
    fn a_start_that_fails_ends_at_once_with_the_reason() {
        let mut story = Story::new(1);
        assert_eq!(
            story.at(0, Event::NotSpawned("no".into())),
            [Unlisten, failed("cannot start a worker: no")]
        );

        let mut story = Story::new(1);
        story.at(0, Event::Spawned(pid(2)));
        story.at(1, Event::Failed(pid(2), "no room".into()));
        assert_eq!(story.died(2, 2), [Unlisten, failed("worker 2: no room")]);

        let mut story = Story::new(2);
        story.at(0, Event::Spawned(pid(2)));
        story.at(0, Event::Spawned(pid(3)));
        assert_eq!(story.died(1, 2), [Unlisten, drain(3)]);
        assert_eq!(
            story.died(2, 3),
            [failed("worker 2: exited, status 1 before it was ready")]
        );
    }

    #[test]
    fn a_worker_that_hangs_at_boot_is_killed() {
        let mut story = Story::new(1);
        story.at(0, Event::Spawned(pid(2)));
        assert_eq!(story.at(9_999, Event::Tick), []);
        assert_eq!(story.at(10_000, Event::Tick), [Kill(pid(2))]);
        assert_eq!(story.deadline(), None);
        assert_eq!(
            story.died(10_001, 2),
            [Unlisten, failed("worker 2: not ready after 10 s")]
        );
    }

    #[test]
    fn a_dead_worker_is_replaced_at_once() {
        let mut story = Story::serving(2);
        assert_eq!(
            story.died(7_000, 101),
            [
                CountDeath,
                Say("worker 101 exited, status 1, up 7 s".into()),
                Spawn
            ]
        );
        assert_eq!(story.died(7_000, 99), [], "not a worker");
    }

    #[test]
    fn deaths_in_a_row_are_given_up_in_the_end() {
        let mut story = Story::serving(1);
        let mut now = 0;
        for number in 100..104 {
            assert_eq!(story.died(now, number).last(), Some(&Spawn));
            story.at(now, Event::Spawned(pid(number + 1)));
            story.at(now, Event::Ready(pid(number + 1)));
        }
        for (number, wait) in (104..).zip([1000, 2000, 4000, 8000]) {
            let said = story.died(now, number);
            assert!(
                matches!(&said[..], [CountDeath, Say(text)] if text.ends_with(&format!("in {} s", wait / 1000))),
                "{said:?}"
            );
            assert_eq!(story.deadline(), Some(now + wait));
            assert_eq!(story.at(now + wait - 1, Event::Tick), []);
            now += wait;
            assert_eq!(story.at(now, Event::Tick), [Spawn]);
            story.at(now, Event::Spawned(pid(number + 1)));
            story.at(now, Event::Ready(pid(number + 1)));
        }
        let last = "giving up, workers keep dying; the last: worker 108 exited, status 1, up 0 s";
        assert_eq!(story.died(now, 108), [CountDeath, Unlisten, failed(last)]);
    }

    #[test]
    fn deaths_far_apart_are_no_pattern() {
        let mut story = Story::serving(1);
        for round in 0..20 {
            let number = 100 + round as i32;
            assert_eq!(story.died(round * 20_000, number).last(), Some(&Spawn));
            story.at(round * 20_000, Event::Spawned(pid(number + 1)));
            story.at(round * 20_000, Event::Ready(pid(number + 1)));
        }
    }

    #[test]
    fn a_respawn_that_fails_at_boot_waits_from_the_first_time_on() {
        let mut story = Story::serving(1);
        story.died(0, 100);
        story.at(0, Event::Spawned(pid(101)));
        assert!(
            matches!(&story.died(1, 101)[..], [Say(text)] if text.ends_with("before it was ready; the next one starts in 1 s"))
        );
        assert_eq!(story.at(1001, Event::Tick), [Spawn]);
        let said = story.at(1001, Event::NotSpawned("no".into()));
        assert_eq!(
            said,
            [Say(
                "cannot start a worker: no; the next one starts in 2 s".into()
            )]
        );
        assert_eq!(
            story.at(1500, Event::Stop),
            [Unlisten, Leave(Outcome::Stopped)]
        );
    }

    #[test]
    fn stop_drains_then_kills_and_twice_means_now() {
        let mut story = Story::serving(2);
        assert_eq!(story.at(0, Event::Stop), [Unlisten, drain(100), drain(101)]);
        assert_eq!(story.died(10, 100), []);
        assert_eq!(story.deadline(), Some(5_500));
        assert_eq!(
            story.at(20, Event::Stop),
            [Action::Drain {
                pid: pid(101),
                within: Duration::ZERO,
                restart: false
            }]
        );
        assert_eq!(story.deadline(), Some(520));
        assert_eq!(story.at(520, Event::Tick), [Kill(pid(101))]);
        assert_eq!(story.at(530, Event::Tick), []);
        let said = story.died(540, 101);
        assert_eq!(
            said,
            [
                Say("worker 101 did not leave in time and was killed".into()),
                Leave(Outcome::Stopped)
            ]
        );
    }

    /// As after an exec: 50 and 51 are the old ones.
    fn replacing(workers: usize) -> Story {
        let start = Instant::now();
        let mut story = Story {
            plan: Plan::resume(
                workers,
                CLOSE_WAIT,
                start,
                &[(pid(50), "serving"), (pid(51), "serving")],
            ),
            start,
        };
        assert_eq!(story.plan.begin(), vec![Spawn; workers]);
        for number in 0..workers as i32 {
            story.at(0, Event::Spawned(pid(60 + number)));
        }
        story
    }

    #[test]
    fn a_restart_checks_then_executes_and_there_is_one_at_a_time() {
        let mut story = Story::new(1);
        assert_eq!(
            story.at(0, Event::Restart),
            [Refuse("it is starting".into())]
        );
        let mut story = Story::serving(1);
        assert_eq!(story.at(0, Event::Restart), [Check]);
        assert_eq!(
            story.at(1, Event::Restart),
            [Refuse("a restart is under way".into())]
        );
        assert_eq!(
            story.at(2, Event::Checked(Err("bad".into()))),
            [NotRestarted("bad".into())]
        );
        assert_eq!(story.at(3, Event::Restart), [Check]);
        assert_eq!(story.at(4, Event::Checked(Ok(()))), [Execute]);
        assert_eq!(
            story.at(5, Event::NotExecuted("gone".into())),
            [NotRestarted("gone".into())]
        );
        assert_eq!(story.at(6, Event::Restart), [Check]);
        assert_eq!(story.deadline(), Some(10_006));
        assert_eq!(story.at(10_006, Event::Tick), [KillCheck]);
        let late = "the check of the program on disk did not end within 10 s";
        assert_eq!(
            story.at(10_007, Event::Checked(Err("killed".into()))),
            [NotRestarted(late.into())]
        );
        assert_eq!(story.at(10_008, Event::Restart), [Check]);
        let told = NotRestarted("it was told to stop".into());
        assert_eq!(story.at(10_009, Event::Stop), [told, Unlisten, drain(100)]);
        assert_eq!(story.at(10_010, Event::Checked(Ok(()))), []);
        assert_eq!(
            story.at(10_010, Event::Restart),
            [Refuse("it is stopping".into())]
        );
    }

    #[test]
    fn old_workers_drain_when_all_new_ones_serve() {
        let mut story = replacing(2);
        assert_eq!(story.at(1, Event::Ready(pid(60))), []);
        assert!(story.plan.is_old(pid(50)) && !story.plan.is_old(pid(60)));
        assert_eq!(
            story.at(2, Event::Ready(pid(61))),
            [replace(50), replace(51)]
        );
        assert_eq!(story.deadline(), Some(5_502));
        assert_eq!(story.died(3, 50), []);
        // A new one that dies meanwhile is replaced as ever.
        assert_eq!(story.died(4, 60).last(), Some(&Spawn));
        assert_eq!(story.at(5_502, Event::Tick), [Kill(pid(51))]);
        let said = Say("worker 51 did not leave in time and was killed".into());
        assert_eq!(story.died(5_503, 51), [said, Restarted]);
    }

    #[test]
    fn a_new_worker_that_fails_leaves_the_old_ones_serving() {
        let mut story = replacing(2);
        assert_eq!(story.at(1, Event::Ready(pid(60))), []);
        story.at(2, Event::Failed(pid(61), "no room".into()));
        assert_eq!(
            story.died(3, 61),
            [NotRestarted("worker 61: no room".into()), replace(60)]
        );
        assert_eq!(story.died(4, 60), [], "it left as it was told");
        assert_eq!(
            story.died(5, 50).last(),
            Some(&Spawn),
            "the old ones are the ones again"
        );
        assert_eq!(story.at(6, Event::Restart), [Check]);

        let mut story = replacing(2);
        assert_eq!(
            story.at(10_000, Event::Tick),
            [Kill(pid(60)), Kill(pid(61))]
        );
        assert_eq!(
            story.died(10_001, 60),
            [NotRestarted("worker 60: not ready after 10 s".into())]
        );
        assert_eq!(story.died(10_002, 61), [], "nobody misses it");

        let mut story = replacing(1);
        assert!(matches!(&story.died(1, 50)[..], [CountDeath, Say(_)]));
        assert!(matches!(&story.died(2, 51)[..], [CountDeath, Say(_)]));
        let said = story.died(3, 60);
        assert_eq!(
            said,
            [NotRestarted(
                "worker 60: exited, status 1 before it was ready".into()
            )]
        );
        assert_eq!(
            story.at(1_003, Event::Tick),
            [Spawn],
            "somebody has to serve"
        );
    }

    #[test]
    fn who_died_during_a_restart_that_failed_is_missed_after_it() {
        let mut story = replacing(2);
        assert!(matches!(&story.died(1, 50)[..], [CountDeath, Say(_)]));
        story.at(2, Event::Failed(pid(60), "no room".into()));
        let said = story.died(3, 60);
        assert_eq!(
            said,
            [NotRestarted("worker 60: no room".into()), Kill(pid(61))]
        );
        assert_eq!(story.at(1_003, Event::Tick), [Spawn], "two are wanted");
    }

    #[test]
    fn an_exec_forgets_no_stage() {
        let start = Instant::now();
        let old = [
            (pid(50), "serving"),
            (pid(51), "draining"),
            (pid(52), "starting"),
        ];
        let mut story = Story {
            plan: Plan::resume(1, CLOSE_WAIT, start, &old),
            start,
        };
        story.at(0, Event::Spawned(pid(60)));
        assert_eq!(story.died(1, 51), [], "it left as it was told");
        assert_eq!(
            story.at(10_000, Event::Tick),
            [Kill(pid(52)), Kill(pid(60))],
            "its time to start goes on"
        );
        story.died(10_001, 52);
        let why = "worker 60: not ready after 10 s";
        assert_eq!(story.died(10_002, 60), [NotRestarted(why.into())]);
        assert_eq!(story.plan.stage(pid(50)), "serving");
    }

    #[test]
    fn a_worker_forked_while_leaving_leaves_too() {
        let mut story = Story::new(2);
        story.at(0, Event::Spawned(pid(2)));
        assert_eq!(
            story.at(1, Event::NotSpawned("no".into())),
            [Unlisten, drain(2)]
        );
        let at_once = Action::Drain {
            pid: pid(3),
            within: Duration::ZERO,
            restart: false,
        };
        assert_eq!(story.at(2, Event::Spawned(pid(3))), [at_once]);
    }
}
