//! A simulated world around the plan: workers that boot well, badly, slowly or never, die alone and in groups, hang, and
//! are told to leave by strangers; restarts with programs of every kind; stops. Thousands of random histories, and what
//! must hold after each event. A bad one is shrunk to the acts that it needs, and told with its seed.
#![forbid(unsafe_code)]

use super::*;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// How many worlds a run of the tests goes through.
const WORLDS: u64 = 10_000;
/// Acts from outside end by then, in milliseconds.
const LAST_ACT: u64 = 60_000;
/// By then every worker is back, for from the last act on everything boots.
const QUIET: u64 = LAST_ACT + 60_000;
/// A process that was killed is collected within this time.
const REAP: u64 = 50;

/// xorshift64*: the same history for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// How the workers of a program start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boot {
    Good,
    Slow,
    Fails,
    Hangs,
    /// It serves, and dies after so many milliseconds.
    Dies(u64),
    /// Now like this, now like that.
    Any,
}

#[derive(Debug, Clone, Copy)]
struct Program {
    wanted: usize,
    close_wait: u64,
    stop_delay: u64,
    boot: Boot,
    check: Check,
    executes: bool,
    /// Its settings are good when it reads them after the exec.
    resumes: bool,
    /// The program before it can be executed again.
    returns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Good,
    Bad,
    Hangs,
}

/// What comes from outside.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// So many workers die at the same moment.
    Die(usize),
    Hang,
    /// Somebody sends TERM to a worker.
    Term,
    Restart(Program),
    /// Nothing boots for so long.
    Outage(u64),
    Stop,
    Interrupt,
}

type Script = Vec<(u64, Act)>;

/// What is planted into the plan's words to see whether it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plant {
    Nothing,
    ForgetsToKill,
    ForgetsAnAnswer,
    AnswersTwice,
    UnlistensAtADeath,
    ForgetsItsDeadline,
    ForgetsToSpawn,
    KeepsBothGenerations,
    SkipsTheDelay,
    ForgetsToPrepare,
    ForgetsTheHeir,
    ForgetsThatThereWasNoWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Booting,
    Serving,
    Hanging,
    Draining,
}

struct Process {
    generation: u32,
    state: State,
    /// It was told that a stop is coming.
    is_prepared: bool,
    /// It leaves at a restart and passes its connections on; to whom.
    passes_on: bool,
    heir: Option<Pid>,
    /// Until when it may be without one, where there was no way to it.
    no_way_until: u64,
    is_killed: bool,
    /// When it must be gone.
    until: Option<u64>,
}

#[derive(Debug, Clone)]
enum Happens {
    Act(usize),
    /// A boot comes to its end.
    Booted(Pid, Boot),
    Late(Pid),
    Dies(Pid),
    Checked(Check),
    Quiet,
}

struct World<'a> {
    script: &'a Script,
    plant: Plant,
    random: Random,
    start: Instant,
    now: u64,
    queue: Vec<(u64, Happens)>,
    processes: BTreeMap<i32, Process>,
    next_pid: i32,
    plan: Plan,
    program: Program,
    generation: u32,
    /// What is being restarted to.
    next: Option<Program>,
    before: Option<(Program, u32)>,
    /// A restart was given up and there was no way back: workers of both programs serve side by side.
    is_stranded: bool,
    asked: u64,
    answered: u64,
    is_told_to_stop: bool,
    /// It is to serve on until then, although it was told to stop.
    serves_until: Option<u64>,
    announced: bool,
    unlistened: bool,
    boots_fail_until: u64,
    left: Option<Outcome>,
    history: String,
}

fn script(seed: u64) -> (Program, Script) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let boot = |random: &mut Random| match random.below(9) {
        0 => Boot::Fails,
        1 => Boot::Hangs,
        2 => Boot::Slow,
        3 => Boot::Any,
        4 => Boot::Dies(random.below(3000)),
        _ => Boot::Good,
    };
    let program = |random: &mut Random| Program {
        wanted: 1 + random.below(4) as usize,
        close_wait: [0, 1000, 5000, 20_000][random.below(4) as usize],
        stop_delay: [0, 0, 1000, 12_000][random.below(4) as usize],
        boot: boot(random),
        check: match random.below(8) {
            0 => Check::Bad,
            1 => Check::Hangs,
            _ => Check::Good,
        },
        executes: !random.one_in(10),
        resumes: !random.one_in(10),
        returns: !random.one_in(5),
    };
    let mut first = program(&mut random);
    if !random.one_in(8) {
        first.boot = Boot::Good;
    }
    let mut acts = Vec::new();
    for _ in 0..random.below(12) {
        let at = match random.below(3) {
            // Several things at one moment, and things just beside each other.
            0 => random.below(40) * 1500,
            1 => random.below(40) * 1500 + random.below(30),
            _ => random.below(LAST_ACT),
        };
        let act = match random.below(16) {
            0..=3 => Act::Die(1 + random.below(9) as usize),
            4 => Act::Hang,
            5 => Act::Term,
            6 => Act::Outage(random.below(30_000)),
            7 => match random.below(6) {
                0 | 1 => Act::Stop,
                2 => Act::Interrupt,
                _ => Act::Restart(program(&mut random)),
            },
            _ => Act::Restart(program(&mut random)),
        };
        acts.push((at, act));
    }
    acts.sort_by_key(|(at, _)| *at);
    (first, acts)
}

type Held = Result<(), String>;

impl<'a> World<'a> {
    fn new(seed: u64, first: Program, script: &'a Script, plant: Plant) -> World<'a> {
        let mut queue: Vec<(u64, Happens)> = (0..script.len())
            .map(|index| (script[index].0, Happens::Act(index)))
            .collect();
        queue.push((LAST_ACT, Happens::Quiet));
        World {
            script,
            plant,
            random: Random(seed | 1),
            start: Instant::now(),
            now: 0,
            queue,
            processes: BTreeMap::new(),
            next_pid: 100,
            plan: Plan::new(first.wanted, Duration::from_millis(first.close_wait))
                .delaying(Duration::from_millis(first.stop_delay)),
            program: first,
            generation: 1,
            next: None,
            before: None,
            is_stranded: false,
            asked: 0,
            answered: 0,
            is_told_to_stop: false,
            serves_until: None,
            announced: false,
            unlistened: false,
            boots_fail_until: 0,
            left: None,
            history: String::new(),
        }
    }

    fn time(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.history, "{:>8} {what}", self.now);
    }

    fn later(&mut self, millis: u64, what: Happens) {
        self.queue.push((self.now + millis, what));
    }

    fn run(mut self) -> Result<(), (String, String)> {
        self.live().map_err(|why| (why, self.history))
    }

    fn live(&mut self) -> Held {
        let first = self.plan.begin();
        self.perform(first)?;
        while self.left.is_none() {
            let due = self.plan.deadline().map(|at| {
                (at.saturating_duration_since(self.start).as_micros() as u64).div_ceil(1000)
            });
            let due = due.filter(|_| self.plant != Plant::ForgetsItsDeadline);
            let next = (0..self.queue.len()).min_by_key(|index| self.queue[*index].0);
            let next_at = next.map(|index| self.queue[index].0);
            match (due, next_at) {
                (Some(due), at) if at.is_none_or(|at| due <= at) => {
                    self.now = self.now.max(due);
                    self.step(Event::Tick)?;
                }
                (_, Some(at)) => {
                    self.now = self.now.max(at);
                    let (_, what) = self.queue.remove(next.unwrap());
                    self.happen(what)?;
                    if self.left.is_none() {
                        self.step(Event::Tick)?;
                    }
                }
                _ => return self.quiet_end(),
            }
            self.holds()?;
        }
        Ok(())
    }

    /// Nothing more happens by itself: everything must be as it should, and then the service is stopped.
    fn quiet_end(&mut self) -> Held {
        if self.is_told_to_stop {
            return Err("it was told to stop, and nothing more happens".into());
        }
        let serving = self.plan.current().count();
        // Without a way back there may be more of the old ones than the new program wants.
        if serving < self.program.wanted || serving > self.program.wanted && !self.is_stranded {
            let wanted = self.program.wanted;
            return Err(format!(
                "{serving} of {wanted} workers, and nothing more happens"
            ));
        }
        self.now = self.now.max(QUIET);
        self.stop()
    }

    fn stop(&mut self) -> Held {
        // The first one, to a service that serves, is put off; each further one ends that.
        let delay = matches!(self.plan.phase, Phase::Serving).then_some(self.program.stop_delay);
        self.serves_until = delay.map(|delay| self.now + delay);
        self.is_told_to_stop = true;
        if self.plant == Plant::SkipsTheDelay {
            return self.step(Event::Interrupt);
        }
        self.step(Event::Stop)
    }

    fn happen(&mut self, what: Happens) -> Held {
        self.tell(format_args!("{what:?}"));
        match what {
            Happens::Act(index) => {
                let act = self.script[index].1;
                self.act(act)
            }
            Happens::Quiet => {
                // From here on everything boots.
                self.boots_fail_until = 0;
                self.program.boot = Boot::Good;
                if let Some((before, _)) = &mut self.before {
                    before.boot = Boot::Good;
                }
                Ok(())
            }
            Happens::Booted(pid, how) => self.booted(pid, how),
            Happens::Late(pid) => {
                let hangs = self.processes.get(&pid.raw());
                let hangs = hangs.is_some_and(|process| process.state == State::Hanging);
                match hangs && self.plan.stage(pid) == Some(Stage::Serving) {
                    true => self.step(Event::Late(pid, "does not move".into())),
                    false => Ok(()),
                }
            }
            Happens::Dies(pid) => match self.processes.remove(&pid.raw()) {
                Some(_) => self.step(Event::Died(pid, "exited, status 1".into())),
                None => Ok(()),
            },
            Happens::Checked(check) => {
                let result = match check {
                    Check::Good => Ok(()),
                    _ => Err("bad settings".to_owned()),
                };
                self.step(Event::Checked(result))
            }
        }
    }

    fn pick(&mut self, wanted: State) -> Option<Pid> {
        let of = |process: &Process| process.state == wanted;
        let all: Vec<i32> = self
            .processes
            .iter()
            .filter(|(_, process)| of(process))
            .map(|(pid, _)| *pid)
            .collect();
        let index = self.random.below(all.len().max(1) as u64) as usize;
        all.get(index).and_then(|pid| Pid::from_raw(*pid))
    }

    fn act(&mut self, act: Act) -> Held {
        self.tell(format_args!("{act:?}"));
        match act {
            Act::Die(count) => {
                let all: Vec<i32> = self.processes.keys().copied().collect();
                for pid in all.into_iter().take(count) {
                    let pid = Pid::from_raw(pid).unwrap();
                    let delay = self.random.below(20);
                    self.later(delay, Happens::Dies(pid));
                }
            }
            Act::Hang => {
                if let Some(pid) = self.pick(State::Serving) {
                    self.processes.get_mut(&pid.raw()).unwrap().state = State::Hanging;
                    let after = 20_000 + self.random.below(20_000);
                    self.later(after, Happens::Late(pid));
                }
            }
            Act::Term => {
                if let Some(pid) = self.pick(State::Serving) {
                    let close_wait = self.program.close_wait;
                    self.drain(pid, close_wait);
                    return self.step(Event::Leaves(pid, Duration::from_millis(close_wait)));
                }
            }
            Act::Restart(program) => {
                self.asked += 1;
                if self.next.is_none() {
                    self.next = Some(program);
                }
                return self.step(Event::Restart);
            }
            Act::Outage(millis) => self.boots_fail_until = self.now + millis,
            Act::Stop => return self.stop(),
            Act::Interrupt => {
                self.is_told_to_stop = true;
                self.serves_until = None;
                return self.step(Event::Interrupt);
            }
        }
        Ok(())
    }

    fn booted(&mut self, pid: Pid, how: Boot) -> Held {
        let Some(process) = self.processes.get_mut(&pid.raw()) else {
            return Ok(());
        };
        match (process.state, how) {
            // It was told to leave before it was there.
            (State::Draining, _) => self.later(0, Happens::Dies(pid)),
            (_, Boot::Fails) => {
                self.later(1, Happens::Dies(pid));
                return self.step(Event::Failed(pid, "no room".into()));
            }
            _ => {
                process.state = State::Serving;
                process.until = None;
                if let Boot::Dies(after) = how {
                    self.later(after, Happens::Dies(pid));
                }
                return self.step(Event::Ready(pid));
            }
        }
        Ok(())
    }

    /// A worker that was told to leave is gone some time before its time is over, unless it hangs.
    fn drain(&mut self, pid: Pid, within: u64) {
        let Some(process) = self.processes.get_mut(&pid.raw()) else {
            return;
        };
        let until = self.now + within + 500 + REAP;
        process.until = Some(process.until.map_or(until, |before| before.min(until)));
        if process.state == State::Serving {
            process.state = State::Draining;
            let after = self.random.below(within + 1);
            let hangs = self.random.one_in(10);
            if !hangs {
                self.later(after, Happens::Dies(pid));
            }
        } else if process.state == State::Booting {
            process.state = State::Draining;
        }
    }

    /// Now and then a worker has no way to its heir, and the plan hears of that.
    fn find_way(&mut self, pid: Pid, actions: &mut VecDeque<Action>) {
        let fails = self.random.one_in(4);
        let Some(process) = self.processes.get_mut(&pid.raw()).filter(|_| fails) else {
            return;
        };
        process.heir = None;
        process.no_way_until = self.now + HEIR_AGAIN.as_millis() as u64;
        if self.plant != Plant::ForgetsThatThereWasNoWay {
            actions.extend(self.plan.step(self.time(), Event::NoWay(pid)));
        }
    }

    fn step(&mut self, event: Event) -> Held {
        if event != Event::Tick {
            self.tell(format_args!("  {event:?}"));
        }
        let actions = self.plan.step(self.time(), event);
        self.perform(actions)
    }

    fn perform(&mut self, actions: Vec<Action>) -> Held {
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            self.tell(format_args!("    {action:?}"));
            let plant = self.plant;
            match action {
                Action::Spawn if plant == Plant::ForgetsToSpawn && self.announced => {}
                Action::Spawn => {
                    let event = self.spawn();
                    if matches!(event, Event::NotSpawned(_)) {
                        actions.retain(|action| *action != Action::Spawn);
                    }
                    actions.extend(self.plan.step(self.time(), event));
                }
                Action::Announce => {
                    if std::mem::replace(&mut self.announced, true) {
                        return Err("announced twice".into());
                    }
                }
                Action::CountDeath if plant == Plant::UnlistensAtADeath => {
                    actions.push_back(Action::Unlisten)
                }
                Action::Prepare(_) if plant == Plant::ForgetsToPrepare => {}
                Action::Prepare(pid) => {
                    if let Some(process) = self.processes.get_mut(&pid.raw()) {
                        process.is_prepared = true;
                    }
                }
                Action::Unlisten if self.serves_until.is_some_and(|until| self.now < until) => {
                    return Err("it stops to listen before its delay is over".into());
                }
                Action::Unlisten => {
                    let may = self.is_told_to_stop || !self.announced;
                    if !may || std::mem::replace(&mut self.unlistened, true) {
                        return Err("it stops to listen".into());
                    }
                }
                Action::Drain { pid, within, why } => {
                    self.drain(pid, within.as_millis() as u64);
                    if let Some(process) = self.processes.get_mut(&pid.raw()) {
                        (process.passes_on, process.heir) = match why {
                            Going::Stop => (false, None),
                            Going::Replaced(heir) => (!process.is_killed, heir),
                        };
                        if process.heir.is_some() {
                            self.find_way(pid, &mut actions);
                        }
                    }
                }
                Action::Inherit { .. } if plant == Plant::ForgetsTheHeir => {}
                Action::Inherit { pid, heir } => {
                    if let Some(process) = self.processes.get_mut(&pid.raw()) {
                        process.heir = Some(heir);
                        self.find_way(pid, &mut actions);
                    }
                }
                Action::Kill(_) if plant == Plant::ForgetsToKill => {}
                Action::Kill(pid) => {
                    let after = self.random.below(REAP);
                    if let Some(process) = self.processes.get_mut(&pid.raw()) {
                        process.until = Some(self.now + REAP);
                        (process.passes_on, process.is_killed) = (false, true);
                        self.later(after, Happens::Dies(pid));
                    }
                }
                Action::Check => {
                    let check = self.next.map_or(Check::Good, |program| program.check);
                    if check != Check::Hangs {
                        let after = self.random.below(3000);
                        self.later(after, Happens::Checked(check));
                    }
                }
                Action::KillCheck => {
                    self.queue
                        .retain(|(_, what)| !matches!(what, Happens::Checked(_)));
                }
                Action::Execute => return self.execute(),
                Action::Return(_) => {
                    let (program, generation) = self.before.take().ok_or("no way back is known")?;
                    if self.program.returns {
                        let passed = self.passed();
                        (self.program, self.generation) = (program, generation);
                        let close_wait = Duration::from_millis(self.program.close_wait);
                        let wanted = self.program.wanted;
                        let stop_delay = Duration::from_millis(self.program.stop_delay);
                        self.plan = Plan::returned(wanted, close_wait, self.time(), &passed)
                            .delaying(stop_delay);
                        self.answer()?;
                        let first = self.plan.begin();
                        return self.perform(first);
                    }
                    self.is_stranded = true;
                    let event = Event::NotReturned("no".into());
                    actions.extend(self.plan.step(self.time(), event));
                }
                Action::Refuse(_) => {
                    self.answered += 1;
                    if self.answered > self.asked {
                        return Err("a restart is refused that nobody asked for".into());
                    }
                }
                Action::NotRestarted(_) if plant == Plant::ForgetsAnAnswer => self.next = None,
                Action::Restarted | Action::NotRestarted(_) => {
                    if action == Action::Restarted && plant != Plant::KeepsBothGenerations {
                        let old = |process: &Process| process.generation != self.generation;
                        let is_old_left = self.processes.values().any(old);
                        if is_old_left && !self.is_stranded {
                            return Err("restarted, and old workers are there".into());
                        }
                    }
                    if plant == Plant::AnswersTwice {
                        self.answered += 1;
                    }
                    self.answer()?;
                }
                Action::Leave(outcome) => {
                    if !self.processes.is_empty() {
                        return Err("it leaves before its workers".into());
                    }
                    if self.asked != self.answered {
                        return Err("it leaves, and a restart has no answer".into());
                    }
                    let may = self.is_told_to_stop || !self.announced;
                    if !may || !self.unlistened {
                        return Err(format!("it leaves by itself: {outcome:?}"));
                    }
                    self.left = Some(outcome);
                    return Ok(());
                }
                Action::CountDeath | Action::Say(_) => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self) -> Held {
        self.answered += 1;
        self.next = None;
        self.before = None;
        match self.answered > self.asked {
            true => Err("a restart is answered twice".into()),
            false => Ok(()),
        }
    }

    fn passed(&self) -> Vec<Passed> {
        let pids = self.processes.keys().filter_map(|pid| Pid::from_raw(*pid));
        pids.filter_map(|pid| self.plan.pass(self.time(), pid))
            .collect()
    }

    fn execute(&mut self) -> Held {
        let next = self.next.ok_or("nothing to execute")?;
        if !next.executes {
            return self.step(Event::NotExecuted("no".into()));
        }
        let passed = self.passed();
        self.before = Some((self.program, self.generation));
        self.program = next;
        if self.now >= LAST_ACT {
            self.program.boot = Boot::Good;
        }
        self.generation = self.next_generation();
        let close_wait = Duration::from_millis(next.close_wait);
        let stop_delay = Duration::from_millis(next.stop_delay);
        self.plan =
            Plan::resume(next.wanted, close_wait, self.time(), &passed).delaying(stop_delay);
        if self.plant == Plant::KeepsBothGenerations {
            for worker in &mut self.plan.workers {
                worker.is_old = false;
            }
        }
        if !next.resumes {
            return self.step(Event::NotExecuted("its settings are bad".into()));
        }
        let first = self.plan.begin();
        self.perform(first)
    }

    fn next_generation(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid as u32
    }

    fn spawn(&mut self) -> Event {
        if self.now < self.boots_fail_until && self.random.one_in(3) {
            return Event::NotSpawned("no memory".into());
        }
        self.next_pid += 1;
        let pid = Pid::from_raw(self.next_pid).unwrap();
        let mut how = self.program.boot;
        if how == Boot::Any {
            let kinds = [Boot::Good, Boot::Fails, Boot::Hangs, Boot::Dies(100)];
            how = kinds[self.random.below(4) as usize];
        }
        if self.now < self.boots_fail_until {
            how = Boot::Fails;
        }
        let after = match how {
            Boot::Hangs => None,
            Boot::Slow => Some(3000 + self.random.below(9000)),
            _ => Some(self.random.below(30)),
        };
        if let Some(after) = after {
            self.later(after, Happens::Booted(pid, how));
        }
        let until = self.now + BOOT_TIME.as_millis() as u64 + REAP;
        self.processes.insert(
            pid.raw(),
            Process {
                generation: self.generation,
                state: State::Booting,
                is_prepared: false,
                passes_on: false,
                heir: None,
                no_way_until: 0,
                is_killed: false,
                until: Some(until),
            },
        );
        Event::Spawned(pid)
    }

    /// What must hold after every event.
    fn holds(&self) -> Held {
        let late = self
            .processes
            .iter()
            .find(|(_, process)| process.until.is_some_and(|until| until < self.now));
        if let Some((pid, _)) = late {
            return Err(format!("worker {pid} is there after its time"));
        }
        let stays = |pid: &Pid| {
            let stage = self.plan.stage(*pid);
            stage == Some(Stage::Serving) && !self.plan.is_old(*pid)
        };
        let somebody_stays = self.plan.workers.iter().any(|worker| stays(&worker.pid));
        let is_alone = |process: &Process| {
            let has_heir = process.heir.is_some_and(|heir| stays(&heir));
            process.passes_on && !has_heir && self.now > process.no_way_until
        };
        if somebody_stays && self.processes.values().any(is_alone) {
            return Err("a worker leaves, another one serves, and it is not its heir".into());
        }
        let mut generations: Vec<u32> = self
            .plan
            .current()
            .filter_map(|worker| self.processes.get(&worker.pid.raw()))
            .map(|process| process.generation)
            .collect();
        generations.sort_unstable();
        generations.dedup();
        if generations.len() > 1 && !self.is_stranded {
            return Err(format!("two generations are current: {generations:?}"));
        }
        if let Phase::Stopping { until } = self.plan.phase {
            if until < self.time() {
                return Err("it serves on after its delay".into());
            }
            let is_prepared = |worker: &Worker| {
                let process = self.processes.get(&worker.pid.raw());
                worker.stage != Stage::Serving || process.is_none_or(|process| process.is_prepared)
            };
            if !self.plan.workers.iter().all(is_prepared) {
                return Err("a worker serves and does not know of the stop".into());
            }
        }
        if self.asked - self.answered > 1 {
            return Err("two restarts wait for an answer".into());
        }
        let is_settled = self.plan.restart.is_none()
            && self.plan.missing() == 0
            && self
                .plan
                .current()
                .all(|worker| worker.stage == Stage::Serving);
        if self.left.is_none() && !is_settled && self.plan.deadline().is_none() {
            let comes = |(_, what): &(u64, Happens)| {
                matches!(
                    what,
                    Happens::Dies(_) | Happens::Booted(..) | Happens::Checked(_)
                )
            };
            if !self.queue.iter().any(comes) {
                return Err("it waits for nothing".into());
            }
        }
        if self.now > QUIET + 120_000 {
            return Err("it comes to no rest".into());
        }
        Ok(())
    }
}

/// Runs one world; a bad one is shrunk to the acts that it needs, and told.
fn try_world(seed: u64, plant: Plant) -> Result<(), String> {
    let (first, script) = script(seed);
    let Err((mut why, mut history)) = World::new(seed, first, &script, plant).run() else {
        return Ok(());
    };
    let mut script = script;
    let mut index = 0;
    while index < script.len() {
        let mut shorter = script.clone();
        shorter.remove(index);
        match World::new(seed, first, &shorter, plant).run() {
            Err((shorter_why, shorter_history)) => {
                (script, why, history) = (shorter, shorter_why, shorter_history);
            }
            Ok(()) => index += 1,
        }
    }
    Err(format!("world {seed}: {why}\n{first:?}\n{history}"))
}

#[test]
fn no_world_ends_a_service_that_could_serve() {
    let bad: Vec<String> = (1..=WORLDS)
        .filter_map(|seed| try_world(seed, Plant::Nothing).err())
        .collect();
    let count = bad.len();
    assert!(
        bad.is_empty(),
        "{count} of {WORLDS} worlds are bad; the shortest history:\n{}",
        bad.iter().min_by_key(|text| text.len()).unwrap()
    );
}

#[test]
fn what_is_planted_is_noticed() {
    for (plant, expected) in [
        (Plant::ForgetsToKill, "is there after its time"),
        (Plant::ForgetsAnAnswer, "has no answer"),
        (Plant::AnswersTwice, "is answered twice"),
        (Plant::UnlistensAtADeath, "it stops to listen"),
        (Plant::ForgetsItsDeadline, "and nothing more happens"),
        (Plant::ForgetsToSpawn, "nothing"),
        (Plant::KeepsBothGenerations, "two generations are current"),
        (Plant::SkipsTheDelay, "before its delay is over"),
        (
            Plant::ForgetsToPrepare,
            "a worker serves and does not know of the stop",
        ),
        (Plant::ForgetsTheHeir, "and it is not its heir"),
        (Plant::ForgetsThatThereWasNoWay, "and it is not its heir"),
    ] {
        let found = (1..=WORLDS).find_map(|seed| {
            let why = try_world(seed, plant).err()?;
            why.lines().next()?.contains(expected).then_some(seed)
        });
        assert!(found.is_some(), "{plant:?} is not noticed as {expected:?}");
    }
}
