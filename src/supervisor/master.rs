//! The master: one thread and one poll loop. It owns the pid file's lock, the listener and the workers; it names what
//! happened, asks [`Plan`], and does what that says. It never runs a handler, so nothing a request does can hurt it.
#![forbid(unsafe_code)]

use super::control::{Asker, Control, Question};
use super::plan::{Action, Event, Outcome, Plan};
use super::restart::{Ask, Heir, LastRestart, Restart};
use super::wire::{Heard, Order, Report, Wire};
use super::worker::{self, Birth};
use crate::address::Address;
use crate::app::Service;
use crate::daemon;
use crate::error::{Error, Result, exit};
use crate::http::gate::Drained;
use crate::ledger::{Ledger, SLOTS};
use crate::listener::Listener;
use crate::log;
use crate::notify::Notify;
use crate::pidfile::{Acquired, PidFile, Runs};
use crate::place::Place;
use crate::readiness::Reporter;
use crate::settings::{Overrides, Settings};
use crate::signals::SelfPipe;
use crate::sys::fd::{self, Wait};
use crate::sys::process::{self, Forked, Pid};
use crate::sys::signal::{self, Signal};
use crate::sys::{socket, title};
use std::collections::VecDeque;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// The mode of directories made for the files of `run/`.
const DIRECTORY_MODE: u32 = 0o750;

/// How long the workers of a master that was killed may take to notice it.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// What is left of a loop when the kernel has no memory to wait with.
const POLL_PAUSE: Duration = Duration::from_millis(100);

/// How long PID 1 stays for those who want to hear how its stop went.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A worker from the master's side.
pub(super) struct Worker {
    pub pid: Pid,
    pub wire: Wire,
    /// Its part of the ledger.
    pub slot: usize,
    pub since: SystemTime,
    /// The other end is closed; nothing more is to be heard.
    pub ended: bool,
    /// It has said what its drain came to.
    pub has_reported: bool,
}

/// Everything the master owns.
pub(crate) struct Master {
    pub(super) service: Service,
    pub(super) settings: Settings,
    /// The flags that it was started with.
    pub(super) overrides: Overrides,
    pub(super) pid_file: Option<PidFile>,
    pub(super) listener: Option<Listener>,
    /// During a restart with another address: the one that the old workers still serve.
    pub(super) old_listener: Option<Listener>,
    signals: Option<SelfPipe>,
    pub(super) ledger: Option<Ledger>,
    pub(super) control: Option<Control>,
    pub(super) notify: Notify,
    /// Who waits for the word that this start went well; without one, it is printed.
    reporter: Option<Reporter>,
    pub(super) is_daemon: bool,
    /// The files as the user named them; those of the settings are absolute.
    shown: Place,
    /// A hang-up is the end, for it means that the terminal went away.
    pub(super) hang_up_stops: bool,
    pub(super) plan: Plan,
    pub(super) workers: Vec<Worker>,
    /// What the workers say of their drains when the master leaves.
    drained: Drained,
    announced: bool,
    begun: Instant,
    pub(super) started: SystemTime,
    pub(super) generation: u64,
    /// Restarts asked for that the plan has not yet had its say on.
    pub(super) asked: VecDeque<Ask>,
    pub(super) restart: Option<Restart>,
    pub(super) last_restart: Option<LastRestart>,
    /// Who waits to hear what came of the stop.
    reports: Vec<Asker>,
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
    Master::prepare(start, false)?.run()
}

/// The first thing a master does, before anybody can know its pid.
pub(super) fn catch_signals(service: &Service, with_hang_up: bool) -> Result<SelfPipe> {
    let mut caught = vec![
        Signal::Term,
        Signal::Int,
        Signal::Quit,
        Signal::Usr1,
        Signal::Child,
    ];
    if with_hang_up {
        caught.push(Signal::Hup);
    }
    let signals = SelfPipe::new(&caught)
        .map_err(|error| Error::failed(format!("cannot make a pipe: {error}")))?;
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
        // 1. Signals. Whoever started it under nohup(1) wants hang-ups ignored, and it stays so.
        let signals = catch_signals(&service, is_daemon || !signal::is_ignored(Signal::Hup))?;

        // 2. The base directory, which is the working directory of everything to come.
        let shown = settings.place.clone();
        let base = shown.base.display();
        let settings = settings
            .absolute()
            .map_err(|error| Error::failed(format!("cannot find {base}: {error}")))?;
        std::env::set_current_dir(&settings.place.base).map_err(|error| {
            Error::failed(format!("cannot enter the base directory {base}: {error}"))
        })?;

        // 3. The lock. Until it is held nothing of a running instance may be touched.
        make_directory(&settings.place.pid_file, &shown.pid_file)?;
        let pid_file = match PidFile::acquire(&settings.place.pid_file) {
            Ok(Acquired::Ours(pid_file)) => pid_file,
            Ok(Acquired::Held(runs)) => {
                return Err(already_running(&service.name, &shown.pid_file, runs));
            }
            Err(error) => return Err(cannot("write", &shown.pid_file, &error)),
        };

        // 4. The log.
        let log_file = if is_daemon || settings.log_file_is_set {
            make_directory(&settings.place.log_file, &shown.log_file)?;
            Some(
                log::open(&settings.place.log_file)
                    .map_err(|error| cannot("write", &shown.log_file, &error))?,
            )
        } else {
            None
        };

        // 5. The address, or the socket that was passed in; short paths, for their addresses hold 107 bytes.
        let listener = match passed {
            Some(fd) => Listener::adopt(fd, None)?,
            None => bind(
                &settings.address.clone().within(&settings.place.base),
                pid_file.was_left,
            )?,
        };

        // 6. Counters, and the socket that commands ask at.
        let directory = settings.place.pid_file.parent().unwrap_or(Path::new("/"));
        let ledger = Ledger::new(directory).map_err(|error| {
            Error::failed(format!(
                "cannot make shared memory for the counters: {error}"
            ))
        })?;
        make_directory(&settings.place.socket, &shown.socket)?;
        let control = Control::bind(&settings.place.socket)
            .map_err(|error| cannot("bind", &shown.socket, &error))?;

        // From here on the terminal is no longer written to, but through the launcher.
        if is_daemon {
            daemon::redirect(log_file.as_ref()).map_err(|error| {
                Error::failed(format!("cannot redirect the standard output: {error}"))
            })?;
        }
        log::init(settings.log_level, log_file, is_daemon);
        if !pid_file.locked {
            log::warn(format_args!(
                "{}: this file system has no locks; two starts at the same moment would not see each other",
                shown.pid_file.display()
            ));
        }
        Ok(Master {
            plan: Plan::new(settings.workers, settings.close_wait),
            hang_up_stops: !is_daemon && fd::has_terminal(),
            service,
            settings,
            overrides,
            pid_file: Some(pid_file),
            listener: Some(listener),
            old_listener: None,
            signals: Some(signals),
            ledger: Some(ledger),
            control: Some(control),
            notify: Notify::new(ready),
            reporter: None,
            is_daemon,
            shown,
            workers: Vec::new(),
            drained: Drained::default(),
            announced: false,
            begun,
            started: SystemTime::now(),
            generation: 1,
            asked: VecDeque::new(),
            restart: None,
            last_restart: None,
            reports: Vec::new(),
        })
    }

    /// A master after an exec, with what came through it. See `restart.rs`.
    pub(super) fn assemble(heir: Heir) -> Master {
        Master {
            service: heir.service,
            settings: heir.settings,
            overrides: heir.overrides,
            pid_file: heir.pid_file,
            listener: heir.listener,
            old_listener: heir.old_listener,
            signals: Some(heir.signals),
            ledger: heir.ledger,
            control: heir.control,
            notify: Notify::new(None),
            reporter: None,
            is_daemon: heir.is_daemon,
            shown: heir.shown,
            hang_up_stops: heir.hang_up_stops,
            plan: heir.plan,
            workers: heir.workers,
            drained: Drained::default(),
            announced: true,
            begun: Instant::now(),
            started: heir.started,
            generation: heir.generation,
            asked: VecDeque::new(),
            restart: Some(heir.restart),
            last_restart: None,
            reports: Vec::new(),
        }
    }

    fn run(self) -> Result<()> {
        let actions = self.plan.begin();
        self.run_with(actions)
    }

    /// The loop.
    pub(super) fn run_with(mut self, actions: Vec<Action>) -> Result<()> {
        let mut actions: VecDeque<Action> = actions.into();
        loop {
            while let Some(action) = actions.pop_front() {
                if let Action::Leave(outcome) = action {
                    return self.leave(outcome);
                }
                if let Some(event) = self.act(action) {
                    if matches!(event, Event::NotSpawned(_)) {
                        // Where one could not be started the others are not tried: the plan will say what is next.
                        actions.retain(|action| *action != Action::Spawn);
                    }
                    actions.extend(self.plan.step(Instant::now(), event));
                }
            }
            self.wait();
            for event in self.events() {
                actions.extend(self.plan.step(Instant::now(), event));
            }
        }
    }

    /// Sleeps until something happened or is due.
    fn wait(&self) {
        let control = self.control.as_ref().and_then(Control::deadline);
        let due = [self.plan.deadline(), control, self.notify.deadline()]
            .into_iter()
            .flatten()
            .min();
        let timeout = due.map(|at| at.saturating_duration_since(Instant::now()));
        let mut waits: Vec<Wait<'_>> = self.signals.iter().map(Wait::readable).collect();
        waits.extend(
            self.workers
                .iter()
                .filter(|worker| !worker.ended)
                .map(|worker| Wait::readable(&worker.wire)),
        );
        waits.extend(
            self.control
                .iter()
                .flat_map(Control::descriptors)
                .map(Wait::borrowed),
        );
        if let Err(error) = fd::poll(&mut waits, timeout) {
            log::error(format_args!("poll: {error}"));
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// Everything that happened since the last time.
    fn events(&mut self) -> Vec<Event> {
        if let Some(signals) = &self.signals {
            signals.drain();
        }
        let mut events = Vec::new();
        // Whoever is told to leave replaces nobody, so this is heard before deaths, which may be of the same signal.
        for (signal, name) in [
            (Signal::Term, "TERM"),
            (Signal::Int, "INT"),
            (Signal::Quit, "QUIT"),
        ] {
            for _ in 0..signal::take(signal) {
                log::info(format_args!("signal {name}: leaving"));
                events.push(Event::Stop);
            }
        }
        for (question, asker) in self
            .control
            .as_mut()
            .map(Control::questions)
            .unwrap_or_default()
        {
            match question {
                Question::State => asker.answer(&self.status()),
                Question::Report => self.promise_report(asker),
                Question::Stop => {
                    log::info(format_args!("asked to stop: leaving"));
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
        for index in 0..self.workers.len() {
            self.hear(index, &mut events);
        }
        if signal::take(Signal::Child) > 0 {
            self.reap(&mut events);
        }
        if signal::take(Signal::Hup) > 0 {
            if self.hang_up_stops {
                log::info(format_args!("signal HUP: the terminal is gone, leaving"));
                events.push(Event::Stop);
            } else {
                log::info(format_args!("signal HUP: restarting"));
                self.asked.push_back(Ask::new(None, Vec::new()));
                events.push(Event::Restart);
            }
        }
        if signal::take(Signal::Usr1) > 0 {
            self.reopen_log();
        }
        self.notify.tick(Instant::now());
        events.push(Event::Tick);
        events
    }

    /// Somebody wants to hear what comes of the stop, and needs to know how long that may take.
    fn promise_report(&mut self, asker: Asker) {
        let millis = self.settings.close_wait.as_millis().to_string();
        asker.tell(&[vec!["close_wait".to_owned(), millis]]);
        // Those who have hung up wait for nothing.
        self.reports
            .retain(|asker| !socket::has_input(asker.as_fd()));
        self.reports.push(asker);
    }

    /// Collects the dead. As PID 1 the orphans of others are among them; the plan does not know these.
    fn reap(&mut self, events: &mut Vec<Event>) {
        while let Some((pid, ended)) = process::reap() {
            if let Some(index) = self.workers.iter().position(|worker| worker.pid == pid) {
                self.hear(index, events);
                let worker = self.workers.remove(index);
                let slot = self.ledger.as_ref().map(|ledger| ledger.slot(worker.slot));
                let in_hand = slot.map_or(0, |slot| slot.count().in_flight);
                if !worker.has_reported && self.plan.stage(pid) == "draining" {
                    // It was killed before it could say what it cut.
                    self.drained_of(pid).cut += in_hand;
                }
                if let Some(ledger) = &self.ledger {
                    ledger.close(worker.slot);
                }
                events.push(Event::Died(pid, ended.to_string()));
            } else if let Some(result) = self.end_check(pid, ended) {
                events.push(Event::Checked(result));
            }
        }
    }

    fn hear(&mut self, index: usize, events: &mut Vec<Event>) {
        loop {
            let worker = &mut self.workers[index];
            if worker.ended {
                return;
            }
            match worker.wire.next_report() {
                Heard::Message(Report::Ready) => events.push(Event::Ready(worker.pid)),
                Heard::Message(Report::Failed(why)) => events.push(Event::Failed(worker.pid, why)),
                Heard::Message(Report::Drained(drained)) => {
                    worker.has_reported = true;
                    let pid = worker.pid;
                    let whose = self.drained_of(pid);
                    whose.finished += drained.finished;
                    whose.cut += drained.cut;
                    whose.named.extend(drained.named);
                }
                Heard::Nothing => return,
                Heard::End => worker.ended = true,
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
            Action::Spawn => {
                return Some(match self.spawn() {
                    Ok(pid) => Event::Spawned(pid),
                    Err(error) => Event::NotSpawned(error.to_string()),
                });
            }
            Action::Announce => return self.announce(),
            Action::Unlisten => {
                self.notify.stopping();
                for listener in [self.listener.take(), self.old_listener.take()]
                    .into_iter()
                    .flatten()
                {
                    unlisten(listener);
                }
            }
            Action::Drain {
                pid,
                within,
                restart,
            } => self.drain(pid, within, restart),
            Action::Kill(pid) => {
                // Only children that have not been collected are in the plan, so the number is theirs.
                let _ = process::kill(pid, Signal::Kill);
            }
            Action::CountDeath => {
                if let Some(ledger) = &self.ledger {
                    ledger.add_death();
                }
            }
            Action::Say(text) => log::warn(format_args!("{text}")),
            Action::Check => return self.begin_check(),
            Action::KillCheck => self.kill_check(),
            Action::Execute => return Some(self.execute()),
            Action::Refuse(why) => {
                if let Some(ask) = self.asked.pop_front() {
                    ask.refuse(&why);
                }
            }
            Action::Restarted => self.restarted(),
            Action::NotRestarted(why) => {
                let goes_on = !self.plan.is_leaving();
                self.not_restarted(&why, goes_on);
            }
            Action::Leave(_) => {}
        }
        None
    }

    fn drain(&mut self, pid: Pid, within: Duration, restart: bool) {
        let Some(worker) = self.workers.iter().find(|worker| worker.pid == pid) else {
            return;
        };
        if let (true, Some(ledger), Some(under_way)) = (restart, &self.ledger, &mut self.restart) {
            under_way.in_flight += ledger.slot(worker.slot).count().in_flight;
        }
        let order = Order::Drain { restart, within };
        let told = match restart.then(|| self.heir_of(pid)).flatten() {
            // Without the heir connections live on in the old worker, for one more request.
            Some(heir) => worker
                .wire
                .order_with(&order, heir.as_fd())
                .or_else(|_| worker.wire.order(&order)),
            None => worker.wire.order(&order),
        };
        if told.is_err() {
            // Its queue is full, or its end closed. A signal always gets through; it means a stop within the worker's
            // own limit.
            let _ = process::kill(pid, Signal::Term);
        }
    }

    /// A socket by which a worker that leaves passes connections to one that stays.
    fn heir_of(&self, old: Pid) -> Option<OwnedFd> {
        let new: Vec<&Worker> = self
            .workers
            .iter()
            .filter(|worker| !self.plan.is_old(worker.pid))
            .collect();
        let heir = new.get(old.raw() as usize % new.len().max(1))?;
        let (from, to) = socket::message_pair().ok()?;
        heir.wire.order_with(&Order::Adopt, to.as_fd()).ok()?;
        Some(from)
    }

    fn spawn(&mut self) -> io::Result<Pid> {
        let (ours, theirs) = Wire::pair()?;
        let listener = self
            .listener
            .as_ref()
            .ok_or_else(|| io::Error::other("the listener is closed"))?
            .try_clone()?;
        let used: Vec<usize> = self.workers.iter().map(|worker| worker.slot).collect();
        let number = (0..SLOTS)
            .find(|number| !used.contains(number))
            .unwrap_or(SLOTS - 1);
        let slot = self.ledger.as_ref().map(|ledger| ledger.slot(number));
        let slot =
            slot.ok_or_else(|| io::Error::other("there is no shared memory for the counters"))?;
        // No signal may be counted twice, or between two handlers: the child unblocks them when it has its own.
        signal::block_all();
        let master = Pid::own();
        let forked = process::fork_single();
        if let Ok(Forked::Child) = forked {
            // What only a master may hold goes. The lock is not among it: a child never has it.
            drop((
                self.pid_file.take(),
                self.listener.take(),
                self.old_listener.take(),
                self.signals.take(),
            ));
            drop((
                self.reporter.take(),
                self.control.take(),
                self.ledger.take(),
                self.restart.take(),
                ours,
            ));
            drop((
                std::mem::take(&mut self.workers),
                std::mem::take(&mut self.asked),
                std::mem::take(&mut self.reports),
            ));
            self.notify = Notify::default();
            worker::run(
                &self.service,
                &self.settings,
                Birth {
                    master,
                    listener,
                    wire: theirs,
                    slot,
                },
            )
        }
        signal::unblock_all();
        let Forked::Parent(pid) = forked? else {
            return Err(io::ErrorKind::Other.into());
        };
        self.workers.push(Worker {
            pid,
            wire: ours,
            slot: number,
            since: SystemTime::now(),
            ended: false,
            has_reported: false,
        });
        Ok(pid)
    }

    /// The pid is written when there is something to rely on, and not before.
    fn announce(&mut self) -> Option<Event> {
        if let Some(Err(error)) = self.pid_file.as_ref().map(PidFile::publish) {
            return Some(Event::Broken(
                cannot("write", &self.shown.pid_file, &error).to_string(),
            ));
        }
        self.announced = true;
        let url = self
            .listener
            .as_ref()
            .map(Listener::url)
            .unwrap_or_default();
        let took = self.begun.elapsed().as_secs_f64() * 1000.0;
        let workers = match self.workers.len() {
            1 => "1 worker".to_owned(),
            count => format!("{count} workers"),
        };
        log::info(format_args!("started on {url}, {workers}, in {took:.1} ms"));
        let announcement = self.announcement(&url);
        match self.reporter.take() {
            Some(reporter) => {
                if reporter.ready(&announcement).is_err() {
                    log::warn(format_args!("the start command was interrupted: leaving"));
                    return Some(Event::Stop);
                }
            }
            None => crate::app::print(&announcement),
        }
        self.notify.ready(&format!("serving on {url}"));
        None
    }

    /// What `start` prints.
    fn announcement(&self, url: &str) -> String {
        let Service { name, .. } = &self.service;
        let config = match self.settings.place.config.exists() {
            true => self.shown.config.display().to_string(),
            false => format!("{} (not there: defaults)", self.shown.config.display()),
        };
        let log = match self.is_daemon || self.settings.log_file_is_set {
            true => self.shown.log_file.display().to_string(),
            false => "standard output".to_owned(),
        };
        format!(
            "{name}: started, pid {}, on {url}\n  process  {}\n  base     {}\n  config   {config}\n  pid file {}\n  log      {log}\n",
            Pid::own(),
            self.service.title(" app"),
            self.settings.place.base.display(),
            self.shown.pid_file.display(),
        )
    }

    fn reopen_log(&self) {
        match log::reopen(&self.settings.place.log_file) {
            Ok(true) => log::info(format_args!("log reopened")),
            Ok(false) => {}
            Err(error) => log::error(format_args!("cannot reopen the log: {error}")),
        }
        for worker in &self.workers {
            let _ = worker.wire.order(&Order::Reopen);
        }
    }

    fn leave(mut self, outcome: Outcome) -> Result<()> {
        let Drained {
            finished,
            cut,
            named,
        } = &self.drained;
        let result = match outcome {
            Outcome::Stopped => {
                log::info(format_args!(
                    "stopped, {finished} requests finished, {cut} cut"
                ));
                if let Some(pid_file) = &self.pid_file {
                    pid_file.clear();
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
                let error = Error::failed(if self.announced {
                    why
                } else {
                    format!("start failed: {why}")
                });
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
        if let Some(control) = &self.control {
            control.remove();
        }
        result
    }
}

/// Closes a listener; its file, if it has one, goes with it.
pub(super) fn unlisten(listener: Listener) {
    if let Some(path) = listener.path() {
        let _ = std::fs::remove_file(path);
    }
}

/// Binds. The workers of a master that was killed let go of the address as soon as they notice; that is waited for.
fn bind(address: &Address, was_left: bool) -> Result<Listener> {
    let until = Instant::now()
        + if was_left {
            LEFT_BEHIND
        } else {
            Duration::ZERO
        };
    loop {
        match Listener::bind(address) {
            Err(_) if Instant::now() < until => std::thread::sleep(LEFT_BEHIND / 200),
            bound => return bound,
        }
    }
}

pub(super) fn make_directory(file: &Path, shown: &Path) -> Result<()> {
    let Some(directory) = file.parent() else {
        return Ok(());
    };
    make_with_parents(directory).map_err(|error| {
        let shown = shown.parent().unwrap_or(shown);
        Error::failed(format!(
            "cannot make the directory {}: {error}",
            shown.display()
        ))
    })
}

/// Makes what is missing, with exactly this mode whatever the umask.
fn make_with_parents(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Ok(()) => std::fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = directory.parent() else {
                return Err(error);
            };
            make_with_parents(parent)?;
            make_with_parents(directory)
        }
        // Another start may have been quicker.
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    let mut text = format!("cannot {what} {}: {error}", path.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        use std::os::unix::fs::MetadataExt;
        let owner = [Some(path), path.parent()]
            .into_iter()
            .flatten()
            .find_map(|path| path.metadata().ok());
        if let Some(owner) = owner {
            text += &format!(
                "; it belongs to uid {}, this is uid {}",
                owner.uid(),
                process::euid()
            );
        }
    }
    Error::failed(text)
}

fn already_running(name: &str, pid_file: &Path, runs: Runs) -> Error {
    Error::failed(match runs {
        Runs::Master(pid) | Runs::ByNumber(pid) => {
            format!("already running, pid {pid}; use \"{name} app restart\" or \"{name} app stop\"")
        }
        _ => format!(
            "already running: {} is locked by a process that cannot be seen from here (another container or host)",
            pid_file.display()
        ),
    })
}
