//! Restart in place, the master's doing: try the program on disk in a child, become it by `execve(2)` with everything
//! that must go on, and on the other side start new workers beside the old ones. Whatever fails on the way leaves
//! the old ones serving, and whoever asked is told.
#![forbid(unsafe_code)]

use super::control::{Asker, Control};
use super::handover::{Handover, Inherited, VARIABLE};
use super::master::{Master, Worker, cannot, catch_signals, make_directory, unlisten};
use super::plan::{Event, Plan};
use super::wire::Wire;
use crate::address::Address;
use crate::app::Service;
use crate::error::Result;
use crate::http::gate::Drained;
use crate::ledger::Ledger;
use crate::listener::Listener;
use crate::log;
use crate::pidfile::PidFile;
use crate::place::Place;
use crate::settings::{Overrides, Settings, clash};
use crate::signals::SelfPipe;
use crate::sys::fd;
use crate::sys::process::{self, Ended, Pid};
use crate::sys::signal::{self, Signal};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

/// What `app check` says when all is well. A program that does not say so is not one to become, whatever its status.
pub(crate) const GOOD: &str = "settings are good";

/// What it says further when it sees that it is for a restart: a wrapper that clears the environment would lose all
/// that is to be passed on.
pub(crate) const HEARD: &str = "ready for a restart";
/// The value of the handover's variable for a check.
pub(crate) const CHECK: &str = "check";

/// A restart that somebody wants.
pub(super) struct Ask {
    /// Who waits for the outcome; nobody after a signal.
    asker: Option<Asker>,
    /// On top of what it was started with.
    flags: Vec<String>,
    at: SystemTime,
}

/// The restart under way.
pub(super) struct Restart {
    asker: Option<Asker>,
    asked: SystemTime,
    /// Before the exec the flags of the next start; after it those of before, for when it is given up.
    overrides: Overrides,
    check: Option<Check>,
    /// Whoever asked wants it at a certain address.
    names_address: bool,
    /// On the far side of the exec.
    is_executed: bool,
    /// The workers to be replaced.
    pub old: Vec<Pid>,
    /// What they had in hand when they were told to finish.
    pub in_flight: u64,
    pub drained: Drained,
}

/// The child that tries the program on disk.
struct Check {
    pid: Pid,
    output: OwnedFd,
}

/// How the last restart went.
pub(super) struct LastRestart {
    pub at: SystemTime,
    pub went_well: bool,
    pub text: String,
}

/// What a master is assembled from after an exec.
pub(super) struct Heir {
    pub service: Service,
    pub settings: Settings,
    pub overrides: Overrides,
    pub pid_file: Option<PidFile>,
    pub listener: Option<Listener>,
    pub old_listener: Option<Listener>,
    pub signals: SelfPipe,
    pub ledger: Option<Ledger>,
    pub control: Option<Control>,
    pub is_daemon: bool,
    pub shown: Place,
    pub hang_up_stops: bool,
    pub plan: Plan,
    pub workers: Vec<Worker>,
    pub started: SystemTime,
    pub generation: u64,
    pub restart: Restart,
}

impl Ask {
    pub fn new(asker: Option<Asker>, flags: Vec<String>) -> Ask {
        Ask {
            asker,
            flags,
            at: SystemTime::now(),
        }
    }

    pub fn refuse(self, why: &str) {
        log::warn(format_args!("no restart: {why}"));
        answer(self.asker, "refused", why);
    }
}

fn answer(asker: Option<Asker>, outcome: &str, text: &str) {
    if let Some(asker) = asker {
        asker.answer(&[vec![outcome.to_owned(), text.to_owned()]]);
    }
}

impl Master {
    /// Runs `<program> app check` with the flags of the next start.
    pub(super) fn begin_check(&mut self) -> Option<Event> {
        let ask = self.asked.pop_front()?;
        self.notify.reloading();
        let later = Overrides::from_args(ask.flags);
        let empty = Overrides::default();
        self.restart = Some(Restart {
            asker: ask.asker,
            asked: ask.at,
            overrides: empty,
            check: None,
            names_address: false,
            is_executed: false,
            old: Vec::new(),
            in_flight: 0,
            drained: Drained::default(),
        });
        let later = match later {
            Ok(later) => later,
            Err(error) => return Some(Event::Checked(Err(error.to_string()))),
        };
        let restart = self.restart.as_mut()?;
        restart.names_address = later.names_address();
        restart.overrides = Overrides {
            base_dir: None,
            ..self.overrides.clone()
        }
        .then(later);
        // The check's words come by a pipe that nobody reads before it is over: what it says is short.
        let pipe = fd::pipe_nonblocking()
            .and_then(|(output, input)| Ok((output, input.try_clone()?, input)));
        let (output, error, input) = match pipe {
            Ok(pipe) => pipe,
            Err(error) => {
                return Some(Event::Checked(Err(format!(
                    "cannot make a pipe for the check: {error}"
                ))));
            }
        };
        let mut command = Command::new(&self.service.program);
        command
            .args(["app", "check", "--base-dir"])
            .arg(&self.settings.place.base)
            .args(restart.overrides.to_args());
        command
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(error)
            .env(VARIABLE, CHECK);
        match command.spawn() {
            Ok(child) => {
                // Collected with all other children.
                restart.check = Pid::from_raw(child.id() as i32).map(|pid| Check { pid, output });
                None
            }
            Err(error) => Some(Event::Checked(Err(format!(
                "cannot run {}: {error}",
                self.service.program.display()
            )))),
        }
    }

    pub(super) fn kill_check(&self) {
        if let Some(check) = self
            .restart
            .as_ref()
            .and_then(|restart| restart.check.as_ref())
        {
            let _ = process::kill(check.pid, Signal::Kill);
        }
    }

    /// A child is gone: if it was the check, what it found.
    pub(super) fn end_check(
        &mut self,
        pid: Pid,
        ended: Ended,
    ) -> Option<std::result::Result<(), String>> {
        let check = self
            .restart
            .as_mut()?
            .check
            .take_if(|check| check.pid == pid)?;
        let mut bytes = vec![0; 4096];
        let count = fd::read(check.output.as_fd(), &mut bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        if ended == Ended::Exited(0) && text.contains(GOOD) && text.contains(HEARD) {
            return Some(Ok(()));
        }
        let said = text.lines().next().unwrap_or_default();
        let said = said.split_once(": ").map_or(said, |(_, said)| said);
        let program = self.service.program.display();
        Some(Err(match (ended, said) {
            (Ended::Exited(0), _) if text.contains(GOOD) => {
                format!(
                    "{program} loses the environment, which a restart needs to pass on what goes on"
                )
            }
            (Ended::Exited(0), _) => {
                format!("{program} is not a program of this kind: its check did not say that it is")
            }
            (_, "") => format!("the check of {program} {ended}"),
            (_, said) => said.to_owned(),
        }))
    }

    /// Becomes the program on disk; returns only when that failed.
    pub(super) fn execute(&mut self) -> Event {
        let gone = |what: &str| Event::NotExecuted(format!("{what} is gone"));
        let Some(listener) = &self.listener else {
            return gone("the listener");
        };
        let Some(pid_file) = &self.pid_file else {
            return gone("the pid file");
        };
        let (Some(ledger), Some(control)) = (&self.ledger, &self.control) else {
            return gone("the control socket");
        };
        let Some(restart) = &self.restart else {
            return gone("the restart");
        };
        let raw = |fd: &dyn AsFd| fd.as_fd().as_raw_fd();
        let inherited = |worker: &Worker| Inherited {
            pid: worker.pid,
            wire: raw(&worker.wire),
            slot: worker.slot,
            since: worker.since,
            stage: self.plan.stage(worker.pid).to_owned(),
        };
        let place = &self.settings.place;
        let handover = Handover {
            listener: raw(listener),
            address: match listener.address() {
                Some(address) => Some(address.to_string()),
                // A socket that was passed in stays, unless this restart names an address.
                None => restart.names_address.then(String::new),
            },
            pid_file: raw(pid_file),
            is_locked: pid_file.locked,
            ledger: raw(ledger),
            control: control.listener().as_raw_fd(),
            asker: restart.asker.as_ref().map(|asker| raw(asker)),
            workers: self.workers.iter().map(inherited).collect(),
            generation: self.generation,
            started: self.started,
            asked: restart.asked,
            is_daemon: self.is_daemon,
            hang_up_stops: self.hang_up_stops,
            close_wait: self.settings.close_wait,
            flags: self.overrides.to_args(),
            program: self.service.program.clone(),
            base: place.base.clone(),
            pid_path: place.pid_file.clone(),
            log_path: place.log_file.clone(),
            socket_path: place.socket.clone(),
        };
        let program = &self.service.program;
        let mut args: Vec<OsString> = vec![program.into(), "app".into(), "start".into()];
        args.extend(self.is_daemon.then(|| "--daemon".into()));
        args.extend(["--base-dir".into(), place.base.clone().into()]);
        args.extend(restart.overrides.to_args().into_iter().map(OsString::from));
        let (name, value) = handover.to_variable();
        let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        environment.push((name.into(), value.into()));

        log::info(format_args!("restarting as {}", program.display()));
        // Blocked signals stay pending until the new program has its handlers; those counted here are sent again.
        signal::block_all();
        signal::send_again();
        let descriptors = handover.descriptors();
        fd::set_cloexec_numbers(&descriptors, false);
        let error = process::execute(program, &args, &environment);
        fd::set_cloexec_numbers(&descriptors, true);
        signal::unblock_all();
        Event::NotExecuted(format!("cannot execute {}: {error}", program.display()))
    }

    /// The new workers serve, the old ones are gone.
    pub(super) fn restarted(&mut self) {
        let Some(restart) = self.restart.take() else {
            return;
        };
        if let Some(old) = self.old_listener.take() {
            unlisten(old);
        }
        let join = |pids: Vec<Pid>| {
            pids.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        let new = join(self.workers.iter().map(|worker| worker.pid).collect());
        let took = restart.asked.elapsed().unwrap_or_default().as_secs_f64();
        let Drained {
            finished,
            cut,
            named,
        } = &restart.drained;
        let listener = self
            .listener
            .as_ref()
            .map(Listener::url)
            .unwrap_or_default();
        let text = format!(
            "restarted, pid {}, on {listener}, worker {} → {new}, in {took:.3} s; {} requests in flight at the switch, {finished} finished since, {cut} cut",
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
        self.last_restart = Some(LastRestart {
            at: SystemTime::now(),
            went_well: true,
            text,
        });
        self.notify.ready(&format!("serving on {listener}"));
    }

    /// The old workers go on.
    pub(super) fn not_restarted(&mut self, why: &str, goes_on: bool) {
        let Some(restart) = self.restart.take() else {
            return;
        };
        // With another address: the new one is given up, the old one never was.
        if let Some(old) = self.old_listener.take() {
            if let Some(new) = self.listener.replace(old) {
                unlisten(new);
            }
        }
        if restart.is_executed {
            self.overrides = restart.overrides;
        }
        log::error(format_args!("restart given up: {why}"));
        let what = if goes_on {
            format!("{why}; pid {} still serves as before", Pid::own())
        } else {
            why.to_owned()
        };
        answer(restart.asker, "failed", &what);
        self.last_restart = Some(LastRestart {
            at: SystemTime::now(),
            went_well: false,
            text: why.to_owned(),
        });
        self.notify.ready(&format!("restart given up: {why}"));
    }
}

/// The other side of [`Master::execute`]: this program was just executed by a master of before, in the same process.
/// `settings` may be an error, for files can change between the check and now; the workers go on in any case.
pub(crate) fn resume(
    mut service: Service,
    settings: Result<Settings>,
    overrides: Overrides,
    handover: Handover,
) -> Result<()> {
    // First of all: a number that did not come through must not be taken for one that is opened below.
    let adopted = Adopted::new(&handover);
    // A wrapper may have stood between; it is what was started, and what the next restart is to run.
    service.program.clone_from(&handover.program);
    let signals = catch_signals(&service, !signal::is_ignored(Signal::Hup))?;
    let shown = settings
        .as_ref()
        .map_or_else(|_| handover.place(), |settings| settings.place.clone());
    // What is wrong so far; with anything here no new worker is started.
    let mut wrong = settings.as_ref().err().map(ToString::to_string);
    let settings = settings.or_else(|_| handover.fallback())?;
    let mut settings = settings.absolute().unwrap_or(handover.fallback()?);
    // These cannot change under a running master: the lock and the socket are where they are.
    settings.place.pid_file.clone_from(&handover.pid_path);
    settings.place.socket.clone_from(&handover.socket_path);
    if let Some(path) = settings.place.clash() {
        wrong.get_or_insert(clash(path).to_string());
        settings.place.log_file.clone_from(&handover.log_path);
    }

    let with_file = handover.is_daemon || settings.log_file_is_set;
    let (mut log_file, mut log_error) = (None, None);
    if with_file {
        let made = make_directory(&settings.place.log_file, &settings.place.log_file);
        let opened = made.and_then(|()| {
            log::open(&settings.place.log_file)
                .map_err(|error| cannot("write", &settings.place.log_file, &error))
        });
        match opened {
            Ok(file) => log_file = Some(file),
            Err(error) => {
                // The one of before will do, and is told.
                settings.place.log_file.clone_from(&handover.log_path);
                log_file = log::open(&handover.log_path).ok();
                wrong.get_or_insert(error.to_string());
                log_error = Some(error);
            }
        }
    }
    if let (true, Some(file)) = (handover.is_daemon, &log_file) {
        let _ = crate::daemon::redirect(Some(file));
    }
    log::init(settings.log_level, log_file, handover.is_daemon);
    if let Some(error) = log_error {
        log::error(format_args!("{error}"));
    }

    let mut missing = |what: &str| {
        log::error(format_args!("{what} did not come through the restart"));
        wrong.get_or_insert_with(|| format!("{what} did not come through the restart"));
    };
    let pid_file = adopted
        .pid_file
        .and_then(|fd| PidFile::adopt(fd, &handover.pid_path, handover.is_locked));
    let pid_file = pid_file.or_else(|| {
        missing("the pid file's lock");
        match PidFile::acquire(&handover.pid_path) {
            Ok(crate::pidfile::Acquired::Ours(file)) => file.publish().is_ok().then_some(file),
            _ => None,
        }
    });
    let control = adopted
        .control
        .map(|fd| Control::adopt(fd, &handover.socket_path));
    let control = control.or_else(|| {
        missing("the control socket");
        Control::bind(&handover.socket_path).ok()
    });
    // Counters of another version, or none: they begin anew.
    let directory = handover.pid_path.parent().unwrap_or(&handover.base);
    let ledger = adopted.ledger.and_then(|fd| Ledger::adopt(fd).ok());
    let ledger = ledger.or_else(|| Ledger::new(directory).ok());
    let address = handover
        .address
        .as_deref()
        .and_then(|text| Address::parse(text).ok());
    let inherited = adopted
        .listener
        .and_then(|fd| Listener::adopt(fd, address).ok());
    if inherited.is_none() {
        missing("the listener");
    }
    let mut workers = Vec::new();
    for (
        Inherited {
            pid, slot, since, ..
        },
        wire,
    ) in handover.workers.iter().zip(adopted.wires)
    {
        match wire {
            Some(fd) => workers.push(Worker {
                pid: *pid,
                wire: Wire::adopt(fd),
                slot: *slot,
                since: *since,
                ended: false,
                has_reported: false,
            }),
            None => missing(&format!("the wire to worker {pid}")),
        }
    }
    let (listener, old_listener) = match choose_listener(
        &settings,
        inherited,
        handover.address.as_deref(),
        wrong.is_some(),
    ) {
        Ok(both) => both,
        Err((inherited, why)) => {
            wrong.get_or_insert(why);
            (inherited, None)
        }
    };

    let old: Vec<Pid> = workers.iter().map(|worker| worker.pid).collect();
    let stages = handover
        .workers
        .iter()
        .filter(|worker| old.contains(&worker.pid));
    let stages: Vec<(Pid, &str)> = stages
        .map(|worker| (worker.pid, worker.stage.as_str()))
        .collect();
    let mut plan = Plan::resume(
        settings.workers,
        settings.close_wait,
        Instant::now(),
        &stages,
    );
    let actions = match wrong {
        Some(why) => plan.step(Instant::now(), Event::NotExecuted(why)),
        None => plan.begin(),
    };
    let restart = Restart {
        asker: adopted.asker.map(Asker::adopt),
        asked: handover.asked,
        overrides: Overrides::from_args(handover.flags.clone()).unwrap_or_default(),
        check: None,
        names_address: false,
        is_executed: true,
        old,
        in_flight: 0,
        drained: Drained::default(),
    };
    let heir = Heir {
        service,
        settings,
        overrides,
        pid_file,
        listener,
        old_listener,
        signals,
        ledger,
        control,
        is_daemon: handover.is_daemon,
        shown,
        hang_up_stops: handover.hang_up_stops,
        plan,
        workers,
        started: handover.started,
        generation: handover.generation,
        restart,
    };
    // A child may have died while nobody listened.
    signal::note_again(Signal::Child);
    Master::assemble(heir).run_with(actions)
}

/// Every descriptor that came through, as this process's own.
struct Adopted {
    listener: Option<OwnedFd>,
    pid_file: Option<OwnedFd>,
    ledger: Option<OwnedFd>,
    control: Option<OwnedFd>,
    asker: Option<OwnedFd>,
    wires: Vec<Option<OwnedFd>>,
}

impl Adopted {
    fn new(handover: &Handover) -> Adopted {
        Adopted {
            listener: Handover::adopt(handover.listener),
            pid_file: Handover::adopt(handover.pid_file),
            ledger: Handover::adopt(handover.ledger),
            control: Handover::adopt(handover.control),
            asker: handover.asker.and_then(Handover::adopt),
            wires: handover
                .workers
                .iter()
                .map(|worker| Handover::adopt(worker.wire))
                .collect(),
        }
    }
}

type Both = (Option<Listener>, Option<Listener>);

/// The listener to serve on, and the old one if the address changed. The error keeps the old one.
fn choose_listener(
    settings: &Settings,
    inherited: Option<Listener>,
    before: Option<&str>,
    is_hopeless: bool,
) -> std::result::Result<Both, (Option<Listener>, String)> {
    let now = settings.address.clone().within(&settings.place.base);
    if is_hopeless || before.is_none_or(|before| is_same_place(before, &now)) {
        return Ok((inherited, None));
    }
    match Listener::bind(&now) {
        Ok(new) => Ok((Some(new), inherited)),
        Err(error) => Err((inherited, error.to_string())),
    }
}

/// Whether two addresses are one, if written in two ways.
fn is_same_place(before: &str, now: &Address) -> bool {
    let plain = |address: &Address| match address {
        // Of those with port 0 each is another one.
        Address::Localhost { port } if *port != 0 => {
            Address::Ip((Ipv4Addr::LOCALHOST, *port).into())
        }
        other => other.clone(),
    };
    Address::parse(before).is_ok_and(|before| plain(&before) == plain(now))
}

impl Handover {
    fn place(&self) -> Place {
        Place {
            base: self.base.clone(),
            config: Place::under(&self.base, std::path::Path::new(Place::CONFIG)),
            pid_file: self.pid_path.clone(),
            log_file: self.log_path.clone(),
            socket: self.socket_path.clone(),
        }
    }

    /// Settings good enough to keep the old workers, where the real ones cannot be read.
    fn fallback(&self) -> Result<Settings> {
        let pair = |key: &str, path: &std::path::Path| {
            (key.to_owned(), path.to_string_lossy().into_owned())
        };
        let overrides = Overrides {
            base_dir: Some(self.base.to_string_lossy().into_owned()),
            config: Some("/dev/null".to_owned()),
            address: None,
            set: vec![
                pair("pid_file", &self.pid_path),
                pair("log_file", &self.log_path),
                pair("socket", &self.socket_path),
                (
                    "close_wait".to_owned(),
                    self.close_wait.as_secs().to_string(),
                ),
            ],
        };
        Settings::load(&overrides, &|_| None)
    }
}
