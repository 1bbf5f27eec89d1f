//! The master: one thread and one poll loop. It names what happened, asks [`Plan`], and does what that says, by way of
//! what it holds (`holdings`) and of its workers (`roster`). It never runs a handler, so nothing a request does can
//! hurt it.
#![forbid(unsafe_code)]

use super::check::Check;
use super::control::{Asker, Question};
use super::holdings::{self, Holdings, cannot};
use super::plan::{Action, Event, Going, Outcome, Plan, Stage};
use super::restart::{Ask, LastRestart, Restart, Step, answer, still_serves};
use super::roster::{Roster, Worker};
use super::wire::{Order, Report, Wire};
use super::worker::{self, Birth};
use crate::clock;
use crate::error::{Error, Result, exit};
use crate::http::bounds::warn_of_file_limit;
use crate::http::orders::{Drained, Why};
use crate::http::record;
use crate::ledger::Reign;
use crate::log;
use crate::memory::OomWatch;
use crate::notify::Notify;
use crate::pidfile::Standing;
use crate::place::Place;
use crate::readiness::Reporter;
use crate::service::Service;
use crate::settings::{Overrides, Settings};
use crate::signals::{self, Meaning, SelfPipe};
use crate::sys::epoll::Bell;
use crate::sys::fd::{self, Wait};
use crate::sys::process::{self, Forked, Pid};
use crate::sys::signal::{self, Signal};
use crate::sys::{socket, title};
use crate::syslog::is_system_log;
use crate::user::{Identity, User};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What is left of a loop when the kernel has no memory to wait with.
const POLL_PAUSE: Duration = Duration::from_millis(100);

/// How long PID 1 stays for those who want to hear how its stop went.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// While the plan has a deadline the master looks as often as this. One that comes to a look later by as much was
/// stopped or frozen meanwhile, and so were its workers: that time counts against nobody.
const STEP: Duration = Duration::from_secs(1);
/// How often it is tried to make files anew whose lock another process has: a start that fails has it for a moment.
const RENEWALS: u32 = 60;

/// Everything the master owns.
pub(crate) struct Master {
    pub(super) service: Service,
    pub(super) settings: Settings,
    /// Whom workers become.
    pub(super) identity: Option<Identity>,
    /// The flags that it was started with.
    pub(super) overrides: Overrides,
    pub(super) holdings: Holdings,
    pub(super) signals: SelfPipe,
    pub(super) notify: Notify,
    /// Who waits for the word that this start went well.
    reporter: Option<Reporter>,
    pub(super) is_daemon: bool,
    /// The files as the user named them; those of the settings are absolute.
    shown: Place,
    /// It has a terminal, which it is not to outlive: a hang-up is the end if that is gone.
    pub(super) hang_up_stops: bool,
    pub(super) plan: Plan,
    /// Time that this process slept through; the plan's clock is late by it.
    asleep: Duration,
    pub(super) roster: Roster,
    /// What the workers say of their drains when the master leaves.
    drained: Drained,
    begun: Instant,
    /// On the clock of [`clock::boottime`].
    pub(super) started: Duration,
    pub(super) generation: u64,
    /// Restarts asked for that the plan has not yet had its say on.
    pub(super) asked: VecDeque<Ask>,
    pub(super) restart: Option<Restart>,
    pub(super) last_restart: Option<LastRestart>,
    /// Who waits to hear what came of the stop.
    reports: Vec<Asker>,
    /// From the first time on that there is nothing else to do.
    oom: Option<OomWatch>,
    /// When to try again to make the files of `run/` anew, and how often.
    renewal: Option<(Instant, u32)>,
}

/// What a start is made of.
pub(crate) struct Start {
    pub service: Service,
    pub settings: Settings,
    /// The flags of the command line.
    pub overrides: Overrides,
    /// A socket passed in by whoever started the process (`sd_listen_fds(3)`).
    pub passed: Option<OwnedFd>,
    /// Where to write a newline when it serves (`--ready-fd`).
    pub ready: Option<OwnedFd>,
}

/// What a master is assembled from after an exec.
pub(super) struct Heir {
    pub service: Service,
    pub settings: Settings,
    pub identity: Option<Identity>,
    pub overrides: Overrides,
    pub holdings: Holdings,
    pub signals: SelfPipe,
    pub roster: Roster,
    pub is_daemon: bool,
    pub hang_up_stops: bool,
    pub plan: Plan,
    pub started: Duration,
    pub generation: u64,
    pub restart: Option<Restart>,
    pub last_restart: Option<LastRestart>,
}

/// The two sides of a fork.
enum Side {
    Master(Pid),
    Worker(Birth),
}

/// Starts a daemon's master and runs it to its end; the exit status. Failures go to whoever waits at the pipe.
pub(crate) fn run_daemon(start: Start, reporter: Reporter) -> u8 {
    match Master::prepare(start, true) {
        Ok(mut master) => {
            master.reporter = Some(reporter);
            master
                .run()
                .map_or_else(|error| error.code(), |()| exit::DONE)
        }
        Err(error) => {
            reporter.failed(&error);
            error.code()
        }
    }
}

/// Starts a master in this very process and runs it to its end.
pub(crate) fn run_foreground(start: Start) -> Result<()> {
    let mut master = Master::prepare(start, false)?;
    master.reporter = Some(Reporter::Terminal);
    master.run()
}

/// The first thing a master does, before anybody can know its pid. Behind an exec the pipe is that of before.
pub(super) fn catch_signals(
    service: &Service,
    pipe: Option<[Option<OwnedFd>; 2]>,
) -> Result<SelfPipe> {
    let pipe = match pipe {
        Some([Some(read), Some(write)]) => Some((read, write)),
        _ => None,
    };
    let signals = SelfPipe::of_master(pipe);
    let signals = signals.map_err(|error| Error::failed(format!("cannot make a pipe: {error}")))?;
    signal::unblock_all();
    title::set_name(&service.title(" app"));
    Ok(signals)
}

impl Master {
    /// Everything that can fail before a worker is there, in the order that leaves nothing behind.
    fn prepare(start: Start, is_daemon: bool) -> Result<Master> {
        let begun = Instant::now();
        let Start {
            service,
            settings,
            overrides,
            passed,
            ready,
        } = start;
        // 1. Signals.
        let signals = catch_signals(&service, None)?;

        // 2. The base directory, which is the working directory of everything to come.
        let shown = settings.place.clone();
        let base = shown.base.display();
        let settings = settings
            .absolute()
            .map_err(|error| Error::failed(format!("cannot find {base}: {error}")))?;
        std::env::set_current_dir(&settings.place.base).map_err(|error| {
            Error::failed(format!("cannot enter the base directory {base}: {error}"))
        })?;

        let identity = settings.user.as_ref().map(User::identify).transpose()?;

        // 3. Lock, log, address, counters, control socket.
        let with_log =
            (is_daemon || settings.log_file_is_set) && !is_system_log(&settings.place.log_file);
        let (holdings, log_file) =
            Holdings::acquire(&service.name, &settings, &shown, passed, with_log)?;

        let exposed = holdings::exposed(&settings, &shown);
        if is_daemon {
            for text in &exposed {
                let _ = writeln!(io::stderr(), "{}: {text}", service.name);
            }
        }

        // From here on the terminal is no longer written to, but through the launcher.
        if is_daemon {
            crate::stdio::redirect(log_file.as_ref().map(AsFd::as_fd)).map_err(|error| {
                Error::failed(format!("cannot redirect the standard output: {error}"))
            })?;
        }
        let sink = holdings::sink(&service, &settings, log_file);
        log::init(settings.log_level, sink, is_daemon);
        warn_of_file_limit(&settings);
        let nowhere = holdings::nowhere(&settings.place, &shown);
        for text in exposed.into_iter().chain(nowhere) {
            log::warn(format_args!("{text}"));
        }
        match &identity {
            Some(identity) => log::info(format_args!("workers become {identity}")),
            None if process::euid() == 0 => log::warn(format_args!(
                "workers run as root; with app.user they would not"
            )),
            None => {}
        }
        Ok(Master {
            plan: Plan::new(settings.workers, settings.close_wait).delaying(settings.stop_delay),
            hang_up_stops: !is_daemon && fd::has_terminal(),
            service,
            settings,
            identity,
            overrides,
            holdings,
            signals,
            notify: Notify::new(ready),
            reporter: None,
            asleep: Duration::ZERO,
            is_daemon,
            shown,
            roster: Roster::new(Vec::new()),
            drained: Drained::default(),
            begun,
            started: clock::boottime(),
            generation: 1,
            asked: VecDeque::new(),
            restart: None,
            last_restart: None,
            reports: Vec::new(),
            oom: None,
            renewal: None,
        })
    }

    /// A master after an exec, with what came through it. See `resume.rs`.
    pub(super) fn assemble(heir: Heir) -> Master {
        let mut master = Master {
            shown: heir.settings.place.clone(),
            service: heir.service,
            settings: heir.settings,
            identity: heir.identity,
            overrides: heir.overrides,
            holdings: heir.holdings,
            signals: heir.signals,
            notify: Notify::new(None),
            reporter: None,
            asleep: Duration::ZERO,
            is_daemon: heir.is_daemon,
            hang_up_stops: heir.hang_up_stops,
            plan: heir.plan,
            roster: heir.roster,
            drained: Drained::default(),
            begun: Instant::now(),
            started: heir.started,
            generation: heir.generation,
            asked: VecDeque::new(),
            restart: heir.restart,
            last_restart: heir.last_restart,
            reports: Vec::new(),
            oom: None,
            renewal: None,
        };
        if let (None, Some(last)) = (&master.restart, &master.last_restart) {
            let text = format!("restart given up: {}", last.text);
            master.notify.ready(&text);
        }
        master
    }

    fn run(self) -> Result<()> {
        let actions = self.plan.begin();
        self.run_with(actions)
    }

    /// The loop.
    pub(super) fn run_with(mut self, actions: Vec<Action>) -> Result<()> {
        let mut actions: VecDeque<Action> = actions.into();
        loop {
            while let Some(action) = Action::next(&mut actions) {
                let event = match action {
                    Action::Leave(outcome) => return self.leave(outcome),
                    Action::Spawn => match self.fork() {
                        Ok(Side::Master(pid)) => Some(Event::Spawned(pid)),
                        Ok(Side::Worker(birth)) => {
                            let (service, settings) = self.into_worker();
                            worker::run(&service, &settings, birth)
                        }
                        Err(error) => {
                            // Where one could not be started the others are not tried: the plan says what is next.
                            actions.retain(|action| *action != Action::Spawn);
                            Some(Event::NotSpawned(error.to_string()))
                        }
                    },
                    action => self.act(action),
                };
                if let Some(event) = event {
                    actions.extend(self.plan.step(self.now(), event));
                }
            }
            self.tell();
            self.wait();
            for event in self.events() {
                actions.extend(self.plan.step(self.now(), event));
            }
        }
    }

    /// Sleeps until something happened or is due.
    fn wait(&mut self) {
        // Here, while the first worker boots, for which it need not wait.
        self.oom.get_or_insert_with(OomWatch::new);
        self.pass_log();
        self.pass_access_log();
        let control = &self.holdings.control;
        let (before, now) = (Instant::now(), self.now());
        let plan = self.plan.deadline();
        let plan = plan.map(|at| at.saturating_duration_since(now).min(STEP));
        let others = [
            control.deadline(),
            self.notify.deadline(),
            self.roster.deadline(),
            self.renewal.map(|(at, _)| at),
        ];
        let others = others.into_iter().flatten().min();
        let others = others.map(|at| at.saturating_duration_since(before));
        let timeout = plan.into_iter().chain(others).min();
        let mut waits = vec![Wait::readable(&self.signals)];
        waits.extend(self.roster.wires().map(Wait::readable));
        waits.extend(control.descriptors().map(Wait::borrowed));
        if let Err(error) = fd::poll(&mut waits, timeout) {
            log::error(format_args!("poll: {error}"));
            std::thread::sleep(POLL_PAUSE);
        }
        let late = before
            .elapsed()
            .saturating_sub(timeout.unwrap_or(Duration::MAX));
        if late >= STEP {
            self.asleep += late;
        }
    }

    /// Tells in the page that the workers share what only the master knows.
    fn tell(&self) {
        let (ledger, last) = (&self.holdings.ledger, &self.last_restart);
        let last = last.as_ref();
        let reign = Reign {
            master: u64::from(Pid::own().raw().unsigned_abs()),
            generation: self.generation,
            started: self.started.as_millis() as u64,
            restarted: last.map_or(0, |last| last.at.as_millis() as u64),
            went_well: last.is_some_and(|last| last.went_well),
        };
        ledger.tell(reign, clock::calendar(self.started).as_millis() as u64);
        for worker in self.roster.iter() {
            let pid = u64::from(worker.pid.raw().unsigned_abs());
            ledger.slot(worker.slot).tell(pid, self.word_for(worker));
        }
    }

    /// What a worker is doing, for people.
    pub(super) fn word_for(&self, worker: &Worker) -> &'static str {
        match self.plan.stage(worker.pid) {
            Some(Stage::Serving) if worker.is_late() => "late",
            Some(stage) => stage.name(),
            None => "gone",
        }
    }

    /// The plan's clock.
    pub(super) fn now(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.asleep).unwrap_or(now)
    }

    /// Everything that happened since the last time.
    fn events(&mut self) -> Vec<Event> {
        self.signals.drain();
        let mut events = Vec::new();
        // Whoever is told to leave replaces nobody, so this is heard before deaths, which may be of the same signal.
        for signal in signals::take(Meaning::Leave) {
            // Who sits there and presses Ctrl-C is no balancer that has to notice.
            let by_hand = matches!(signal, Signal::Int | Signal::Quit) && self.hang_up_stops;
            let is_first = events.is_empty();
            if is_first && !by_hand && !self.plan.stop_delay().is_zero() {
                self.say_what_delays(format_args!("signal {signal}"));
            } else {
                log::info(format_args!("signal {signal}: leaving"));
                if is_first {
                    self.say_what_is_waited_for();
                }
            }
            events.push(match by_hand {
                true => Event::Interrupt,
                false => Event::Stop,
            });
        }
        for (question, asker) in self.holdings.control.questions() {
            match question {
                Question::State => asker.answer(&self.status()),
                Question::Report => self.promise_report(asker),
                Question::Stop => {
                    match self.plan.stop_delay().is_zero() {
                        true => log::info(format_args!("asked to stop: leaving")),
                        false => self.say_what_delays(format_args!("asked to stop")),
                    }
                    self.promise_report(asker);
                    events.push(Event::Stop);
                }
                Question::Restart(flags) => {
                    self.asked.push_back(Ask::new(Some(asker), flags));
                    events.push(Event::Restart);
                }
            }
        }
        // Words first: a worker says why before it dies.
        for (pid, report) in self.roster.hear() {
            events.extend(self.note(pid, report));
        }
        if !signals::take(Meaning::Reap).is_empty() {
            self.reap(&mut events);
        }
        // However often one was sent, it is one restart.
        if let Some(signal) = signals::take(Meaning::Restart).pop() {
            if signal == Signal::Hup && self.hang_up_stops && !fd::has_terminal() {
                log::info(format_args!("signal HUP: the terminal is gone, leaving"));
                events.push(Event::Interrupt);
            } else {
                log::info(format_args!("signal {signal}: restarting"));
                self.renew_files();
                self.asked.push_back(Ask::new(None, Vec::new()));
                events.push(Event::Restart);
            }
        }
        if !signals::take(Meaning::Reopen).is_empty() {
            self.reopen_log();
            self.reopen_access_log();
            self.renew_files();
        }
        self.renew_again();
        signals::say_what_means_nothing();
        let now = Instant::now();
        let plan = &self.plan;
        let serves = |pid| plan.stage(pid) == Some(Stage::Serving);
        for (pid, still) in self.roster.look(now, &self.holdings.ledger, serves) {
            let how = format!("has not moved for {} s", still.as_secs());
            events.push(Event::Late(pid, how));
        }
        let is_fresh = self.roster.is_fresh(serves);
        self.notify.tick(now, is_fresh);
        events.push(Event::Tick);
        events
    }

    /// Before a start is over there is nothing to renew.
    fn renew_files(&mut self) {
        if self.reporter.is_some() {
            return;
        }
        // What is to be said of the others would go to a log that nobody finds.
        if !self.settings.place.log_file.exists() {
            self.reopen_log();
        }
        self.renewal = None;
        self.try_to_renew(RENEWALS);
    }

    /// Tries that again, where it is time to.
    fn renew_again(&mut self) {
        let due = self.renewal.filter(|(at, _)| *at <= Instant::now());
        if let Some((_, left)) = due {
            self.try_to_renew(left);
        }
    }

    /// Tries, and so often again while another process holds the lock.
    fn try_to_renew(&mut self, left: u32) {
        let is_again = self.renewal.is_some();
        let is_held = self.holdings.renew(&self.settings.place, is_again);
        self.renewal = (is_held && left > 0).then(|| (Instant::now() + STEP, left - 1));
    }

    /// Whoever ended it at a terminal sees why it is still there.
    fn say_what_is_waited_for(&self) {
        let in_flight = self.holdings.ledger.total().in_flight;
        if in_flight == 0 || self.plan.is_leaving() {
            return;
        }
        let requests = if in_flight == 1 {
            "request"
        } else {
            "requests"
        };
        let text = format!(
            "{in_flight} {requests} in flight, waited for {} s at most; a second signal cuts them",
            self.settings.close_wait.as_secs()
        );
        log::info(format_args!("{text}"));
        if !self.is_daemon && self.settings.log_file_is_set {
            log::tell_terminal(&format!("{}: {text}\n", self.service.name));
        }
    }

    /// The stop begins later.
    fn say_what_delays(&self, what: std::fmt::Arguments<'_>) {
        log::info(format_args!(
            "{what}: leaving in {} s, and serving until then; a signal ends the wait",
            self.plan.stop_delay().as_secs()
        ));
    }

    /// Somebody wants to hear what comes of the stop, and needs to know how long that may take.
    fn promise_report(&mut self, asker: Asker) {
        let Settings {
            close_wait,
            stop_delay,
            ..
        } = &self.settings;
        let times = [close_wait, stop_delay].map(|time| time.as_millis().to_string());
        let [close_wait, stop_delay] = times;
        asker.tell(&[vec!["close_wait".to_owned(), close_wait, stop_delay]]);
        // Those who have hung up wait for nothing.
        self.reports
            .retain(|asker| !socket::has_input(asker.as_fd()));
        self.reports.push(asker);
    }

    /// Collects the dead. As PID 1 the orphans of others are among them; the plan does not know these.
    fn reap(&mut self, events: &mut Vec<Event>) {
        while let Some(pid) = process::ended_child() {
            // What a check may have left behind is not to outlive it. Its group is killed while the number is its own.
            let check = self.restart.as_mut().and_then(Restart::check);
            let check = check.and_then(|check| check.take_if(|check| check.pid == pid));
            check.iter().for_each(Check::kill);
            let Some(ended) = process::collect(pid) else {
                return;
            };
            if let Some((worker, last_words)) = self.roster.remove(pid) {
                for report in last_words {
                    events.extend(self.note(pid, report));
                }
                let in_hand = self.holdings.ledger.slot(worker.slot).count().in_flight;
                if !worker.has_reported && self.plan.stage(pid) == Some(Stage::Draining) {
                    // It was killed before it could say what it cut.
                    let whose = self.drained_of(pid);
                    whose.cut = whose.cut.saturating_add(in_hand);
                }
                self.holdings.ledger.close(worker.slot);
                let mut how = ended.to_string();
                if ended.is_killed() && self.oom.as_mut().is_some_and(OomWatch::has_killed) {
                    how += ", by the kernel for want of memory";
                }
                events.push(Event::Died(pid, how));
            } else if let Some(check) = check {
                let program = &self.service.program;
                events.push(Event::Checked(check.outcome(ended, program)));
            }
        }
    }

    /// What a worker says, as an event where the plan has to know.
    fn note(&mut self, pid: Pid, report: Report) -> Option<Event> {
        match report {
            Report::Ready => Some(Event::Ready(pid)),
            Report::Failed(why) => Some(Event::Failed(pid, why)),
            Report::Leaves(within) => Some(Event::Leaves(pid, within)),
            Report::LogFull(bytes) => {
                log::make_room(bytes);
                None
            }
            Report::AccessLogFull(bytes) => {
                record::make_room(bytes);
                None
            }
            Report::Drained(drained) => {
                let whose = self.drained_of(pid);
                whose.finished = whose.finished.saturating_add(drained.finished);
                whose.cut = whose.cut.saturating_add(drained.cut);
                whose.named.extend(drained.named);
                None
            }
        }
    }

    /// Where to add up what a worker's drain came to.
    fn drained_of(&mut self, pid: Pid) -> &mut Drained {
        match &mut self.restart {
            Some(restart) if restart.old.contains(&pid) => &mut restart.drained,
            _ => &mut self.drained,
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Announce => return self.announce(),
            Action::Prepare(pid) => {
                if let Some(worker) = self.roster.find(pid) {
                    let _ = worker.wire.order(&Order::Prepare);
                }
            }
            Action::Unlisten => {
                self.notify.stopping();
                self.holdings.unlisten();
            }
            Action::Drain { pid, within, why } => return self.drain(pid, within, why),
            Action::Inherit { pid, heir } => {
                let heir = self.way_to(heir);
                let worker = self.roster.find(pid)?;
                let tell = |heir: OwnedFd| worker.wire.order_with(&Order::Inherit, heir.as_fd());
                return heir.and_then(tell).err().map(|_| Event::NoWay(pid));
            }
            Action::Kill(pid) => {
                // Who is in the roster has not been collected, so the number is theirs. The plan may hear of that later.
                if self.roster.find(pid).is_some() {
                    let _ = process::kill(pid, Signal::Kill);
                }
            }
            Action::CountDeath => self.holdings.ledger.add_death(),
            Action::Say(text) => log::warn(format_args!("{text}")),
            Action::Check => return self.begin_check(),
            Action::KillCheck => self.kill_check(),
            // What was done before it may have ended the restart.
            Action::Execute => return self.restart.is_some().then(|| self.execute()),
            Action::Return(why) => return self.restart.is_some().then(|| self.go_back(&why)),
            Action::Refuse(why) => {
                if let Some(ask) = self.asked.pop_front() {
                    ask.refuse(&why);
                }
            }
            Action::Restarted => self.restarted(),
            Action::NotRestarted(why) => self.not_restarted(&why),
            // The loop's.
            Action::Spawn | Action::Leave(_) => {}
        }
        None
    }

    /// Tells a worker to leave. The event: it was to have an heir, and has none yet.
    fn drain(&mut self, pid: Pid, within: Duration, going: Going) -> Option<Event> {
        let (restart, heir) = match going {
            Going::Stop => (false, None),
            Going::Replaced(heir) => (true, heir),
        };
        let way = heir.and_then(|heir| self.way_to(heir).ok());
        let worker = self.roster.find(pid)?;
        if let (true, Some(under_way)) = (restart, &mut self.restart) {
            let count = self.holdings.ledger.slot(worker.slot).count();
            under_way.in_flight += count.in_flight;
        }
        let why = match &mut self.restart {
            Some(under_way) if restart => {
                // The address changes: the one that is left, be it the old one or, where the restart is given up, the
                // new one, is to be nobody's as soon as its workers have accepted who waits.
                if under_way.old.contains(&pid) {
                    under_way.is_moving |= self.holdings.close_old();
                }
                match under_way.is_moving || self.holdings.old_listener.is_some() {
                    true => Why::Moved,
                    false => Why::Restart,
                }
            }
            _ if restart => Why::Restart,
            _ => Why::Stop,
        };
        let order = Order::Drain { why, within };
        let is_told = |way: OwnedFd| worker.wire.order_with(&order, way.as_fd()).is_ok();
        if way.is_some_and(is_told) {
            return None;
        }
        // Without a way to its heir it keeps its connections, for one more request or until there is one.
        if worker.wire.order(&order).is_err() {
            // Its queue is full, or its end closed. A signal always gets through; it means a stop within the worker's
            // own limit.
            let _ = process::kill(pid, Signal::Term);
        }
        heir.map(|_| Event::NoWay(pid))
    }

    /// A socket by which a worker that leaves passes connections to this one, which stays.
    fn way_to(&self, heir: Pid) -> io::Result<OwnedFd> {
        let heir = self.roster.find(heir).ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = socket::message_pair()?;
        heir.wire.order_with(&Order::Adopt, to.as_fd())?;
        Ok(from)
    }

    /// Forks a worker. What only a master may hold is let go of in the child by [`Master::into_worker`].
    fn fork(&mut self) -> io::Result<Side> {
        let (ours, theirs) = Wire::pair()?;
        let bell = Bell::new()?;
        let its_bell = bell.try_clone()?;
        self.holdings.listener.bind_again()?;
        let listener = self.holdings.listener.try_clone()?;
        let number = self.roster.free_slot();
        let slot = self.holdings.ledger.slot(number);
        // No signal may be counted twice, or between two handlers: the child unblocks them when it has its own.
        signal::block_all();
        let master = Pid::own();
        let forked = process::fork_single();
        if let Ok(Forked::Child) = forked {
            return Ok(Side::Worker(Birth {
                master,
                listener,
                wire: theirs,
                bell: its_bell,
                slot,
                identity: self.identity.clone(),
            }));
        }
        signal::unblock_all();
        let Forked::Parent(pid) = forked? else {
            return Err(io::ErrorKind::Other.into());
        };
        let since = clock::boottime();
        self.roster.add(Worker::new(pid, ours, bell, number, since));
        Ok(Side::Master(pid))
    }

    /// The child's part of a master. The rest goes with this: listeners, sockets, the ends of pipes. The lock is not
    /// among it, for a child never has it.
    fn into_worker(self) -> (Service, Settings) {
        let Master {
            service,
            settings,
            overrides,
            plan,
            shown,
            ..
        } = self;
        // Mere memory, which is the master's too: to give it back would be to copy it first.
        std::mem::forget((overrides, plan, shown));
        (service, settings)
    }

    /// The pid is written when there is something to rely on, and not before.
    fn announce(&mut self) -> Option<Event> {
        // Asked before: once the pid is there, others rely on it.
        if self.reporter.as_ref().is_some_and(Reporter::is_alone) {
            log::warn(format_args!("the start command was interrupted: leaving"));
            return Some(Event::Interrupt);
        }
        let published = self.holdings.pid_file.publish();
        if let (Err(error), false) = (published, holdings::is_nowhere(&self.settings.place)) {
            return Some(Event::Broken(
                cannot("write", &self.shown.pid_file, &error).to_string(),
            ));
        }
        let url = self.holdings.listener.whereabouts();
        let took = self.begun.elapsed().as_secs_f64() * 1000.0;
        let workers = match self.roster.len() {
            1 => "1 worker".to_owned(),
            count => format!("{count} workers"),
        };
        log::info(format_args!("started on {url}, {workers}, in {took:.1} ms"));
        let absent = self.holdings.listener.is_not_there_yet();
        if let Some(text) = &absent {
            log::warn(format_args!("{text}"));
        }
        let announcement = self.announcement(&url, absent);
        if let Some(reporter) = self.reporter.take() {
            if reporter.ready(&announcement).is_err() {
                log::warn(format_args!("the start command is gone, and was not told"));
            }
        }
        self.notify.ready(&format!("serving on {url}"));
        None
    }

    /// What `start` prints.
    fn announcement(&self, url: &str, absent: Option<String>) -> String {
        let Service { name, .. } = &self.service;
        let config = match self.settings.place.config.exists() {
            true => self.shown.config.display().to_string(),
            false => format!("{} (not there: defaults)", self.shown.config.display()),
        };
        let log = match self.is_daemon || self.settings.log_file_is_set {
            true => self.shown.log_file.display().to_string(),
            false => "standard output".to_owned(),
        };
        let absent = absent.map_or_else(String::new, |text| format!("  address  {text}\n"));
        format!(
            "{name}: started, pid {}, on {url}\n{absent}  process  {}\n  base     {}\n  config   {config}\n  pid file {}\n  log      {log}\n",
            Pid::own(),
            self.service.title(" app"),
            self.settings.place.base.display(),
            self.shown.pid_file.display(),
        )
    }

    fn reopen_access_log(&self) {
        let Some(path) = self.settings.access_log.file() else {
            return;
        };
        self.holdings.make_directories(&self.settings.place);
        match record::reopen(path) {
            Ok(()) => log::info(format_args!("access log reopened")),
            Err(error) => log::error(format_args!("cannot reopen the access log: {error}")),
        }
    }

    /// Gives the workers the access log that was opened anew, as [`Master::pass_log`] gives them the log.
    fn pass_access_log(&self) {
        let Some(file) = record::file().filter(|_| record::is_new()) else {
            return;
        };
        let order = Order::ReopenAccess;
        let passed = |worker: &&Worker| worker.wire.order_with(&order, file).is_ok();
        if self.roster.iter().filter(passed).count() < self.roster.len() {
            record::is_still_new();
        }
    }

    fn reopen_log(&self) {
        if log::file().is_none() {
            return;
        }
        self.holdings.make_directories(&self.settings.place);
        match log::reopen(&self.settings.place.log_file) {
            Ok(true) => log::info(format_args!("log reopened")),
            Ok(false) => {}
            Err(error) => log::error(format_args!("cannot reopen the log: {error}")),
        }
    }

    /// Workers go on in the file in which this process goes on.
    fn pass_log(&self) {
        let Some(file) = log::file().filter(|_| log::is_new()) else {
            return;
        };
        let passed = |worker: &&Worker| worker.wire.order_with(&Order::Reopen, file).is_ok();
        // One whose queue is full gets it the next time that something happens.
        if self.roster.iter().filter(passed).count() < self.roster.len() {
            log::is_still_new();
        }
    }

    /// Runs `<program> app check` with the flags of the next start.
    fn begin_check(&mut self) -> Option<Event> {
        let ask = self.asked.pop_front()?;
        self.notify.reloading();
        let later = Overrides::from_args(ask.flags);
        let (overrides, names_address, wrong) = match later {
            Ok(later) => {
                let names_address = later.names_address();
                let before = Overrides {
                    base_dir: None,
                    ..self.overrides.clone()
                };
                (before.then(later), names_address, None)
            }
            Err(error) => (Overrides::default(), false, Some(error.to_string())),
        };
        // Whoever may have put another program there is not to see it run by root.
        let identity = self.identity.as_ref();
        let danger = identity
            .and_then(|identity| holdings::danger(identity, &self.service.program, &self.settings));
        let check = match wrong.or(danger) {
            None => {
                let base = &self.settings.place.base;
                Check::start(&self.service.program, base, &overrides)
            }
            Some(why) => Err(why),
        };
        let (check, failed) = match check {
            Ok(check) => (Some(check), None),
            Err(why) => (None, Some(Event::Checked(Err(why)))),
        };
        let step = Step::Checking {
            check,
            overrides,
            names_address,
        };
        self.restart = Some(Restart::new(ask.asker, ask.at, step));
        failed
    }

    /// Its outcome is no longer wanted.
    fn kill_check(&mut self) {
        let check = self.restart.as_mut().and_then(Restart::check);
        if let Some(check) = check.and_then(Option::take) {
            check.kill();
        }
    }

    /// The new workers serve, the old ones are gone.
    fn restarted(&mut self) {
        let Some(restart) = self.restart.take() else {
            return;
        };
        let join = |pids: Vec<Pid>| {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            pids.join(",")
        };
        let new = join(self.roster.iter().map(|worker| worker.pid).collect());
        let took = clock::boottime()
            .saturating_sub(restart.asked)
            .as_secs_f64();
        let Drained {
            finished,
            cut,
            named,
        } = &restart.drained;
        let url = self.holdings.listener.whereabouts();
        let text = format!(
            "restarted, pid {}, on {url}, worker {} → {new}, in {took:.3} s; {} requests in flight at the switch, {finished} finished since, {cut} cut",
            Pid::own(),
            join(restart.old),
            restart.in_flight,
        );
        log::info(format_args!("{text}"));
        self.generation += 1;
        let mut lines = vec![vec!["done".to_owned(), text.clone()]];
        lines.extend(
            named
                .iter()
                .map(|name| vec!["cut".to_owned(), name.clone()]),
        );
        if let Some(asker) = restart.asker {
            asker.answer(&lines);
        }
        self.last_restart = Some(LastRestart::new(true, text));
        self.notify.ready(&format!("serving on {url}"));
    }

    /// The old workers go on.
    fn not_restarted(&mut self, why: &str) {
        let Some(restart) = self.restart.take() else {
            return;
        };
        self.holdings.move_back();
        log::error(format_args!("restart given up: {why}"));
        let text = match self.plan.is_stopping() {
            true => why.to_owned(),
            false => still_serves(why),
        };
        answer(restart.asker, "failed", &text);
        self.last_restart = Some(LastRestart::new(false, why.to_owned()));
        self.notify.ready(&format!("restart given up: {why}"));
    }

    fn leave(mut self, outcome: Outcome) -> Result<()> {
        self.kill_check();
        let Drained {
            finished,
            cut,
            named,
        } = &self.drained;
        // Where the base directory was moved, or its name leads elsewhere, the files there may be another service's.
        let are_ours = matches!(
            self.holdings.lock.standing(),
            Standing::There | Standing::Removed
        );
        let result = match outcome {
            Outcome::Stopped => {
                log::info(format_args!(
                    "stopped, {finished} requests finished, {cut} cut"
                ));
                if are_ours {
                    self.holdings.pid_file.clear();
                }
                if let Some(reporter) = self.reporter.take() {
                    reporter.failed(&Error::failed(
                        "start failed: it was told to stop before it was ready",
                    ));
                }
                Ok(())
            }
            Outcome::Failed(why) => {
                log::error(format_args!("{why}"));
                let error = Error::failed(format!("start failed: {why}"));
                if let Some(reporter) = self.reporter.take() {
                    reporter.failed(&error);
                }
                Err(error)
            }
        };
        let mut report = vec![vec![
            "stopped".to_owned(),
            finished.to_string(),
            cut.to_string(),
        ]];
        report.extend(
            named
                .iter()
                .map(|name| vec!["cut".to_owned(), name.clone()]),
        );
        for asker in &self.reports {
            asker.tell(&report);
        }
        if Pid::own().is_init() {
            // With the first process of a container the kernel kills all others, those who asked included.
            self.reports
                .iter()
                .for_each(|asker| asker.wait_gone(LAST_WORDS));
        }
        if are_ours {
            self.holdings.control.remove();
        }
        result
    }
}
