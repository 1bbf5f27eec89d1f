//! Restart in place, the far side of the exec: this program was just executed by a master of before, in the same
//! process. Workers live, so nothing here ends by an error while there is a way to go on, or back.
#![forbid(unsafe_code)]

use super::control::Asker;
use super::handover::{Handover, Inherited, Ticket, Way};
use super::holdings::{Adopted, Holdings, cannot, open_log, sink};
use super::master::{Heir, Master, catch_signals};
use super::plan::{Action, Event, Passed, Plan};
use super::restart::{Back, LastRestart, Restart, Step, answer, still_serves};
use super::roster::{Roster, Worker};
use super::wire::Wire;
use crate::error::{Error, Result};
use crate::http::record;
use crate::log;
use crate::place::Place;
use crate::service::Service;
use crate::settings::{Overrides, Settings, clash};
use crate::sys::epoll::Bell;
use crate::sys::process::{self, Pid};
use crate::sys::signal::{self, Signal};
use crate::syslog::is_system_log;
use crate::user::{Identity, User};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// What is wrong so far; the first thing counts.
#[derive(Default)]
struct Wrong(Option<String>);

impl Wrong {
    fn say(&mut self, why: String) {
        self.0.get_or_insert(why);
    }
}

/// Goes on as the master. `settings` may be an error, for files can change between the check and now; then the restart
/// is given up, as with anything else that is wrong.
pub(crate) fn resume(
    mut service: Service,
    settings: Result<Settings>,
    overrides: Overrides,
    handover: Handover,
) -> Result<()> {
    // 1. What came through. A number that did not must not be taken for one that is opened below.
    let adopted = Adopted::new(&handover);
    let pipe = handover.signals.map(Handover::adopt);
    let inherited_log = handover.log.and_then(Handover::adopt);
    let asker = handover.asker.and_then(Handover::adopt).map(Asker::adopt);
    let workers = adopt_workers(&handover.workers);
    let (mut back, directory) = match &handover.way {
        Way::Onward(ticket) => (Back::adopt(ticket, &handover), None),
        Way::Back { directory, .. } => (None, Handover::adopt(*directory)),
    };
    // A wrapper may have stood between; it is what was started, and what the next restart is to run.
    service.program.clone_from(&handover.program);

    // 2. Signals, by the self-pipe of before.
    let signals = catch_signals(&service, Some(pipe));

    // 3. Settings: those on disk, or on the way back those that held.
    let mut wrong = Wrong::default();
    let is_back = matches!(handover.way, Way::Back { .. });
    let (settings, overrides) = match (is_back, settings) {
        (true, _) => (handover.held.settings(), handover.held.overrides()),
        (false, settings) => (choose_settings(settings, &handover, &mut wrong), overrides),
    };

    let identity = choose_identity(&settings, &handover, &mut wrong);

    // 4. The base directory, by its name, which may lead elsewhere by now; on the way back the very one of before.
    let entered = match &directory {
        Some(directory) => process::enter(directory.as_fd()),
        None => std::env::set_current_dir(&settings.place.base),
    };
    if let Err(error) = entered {
        let base = settings.place.base.display();
        wrong.say(format!("cannot enter the base directory {base}: {error}"));
    }

    // 5. The log: that of before where it is the same file, or where another one is not to be had.
    let log_file = choose_log(&settings, &handover, inherited_log, &mut wrong);
    if handover.is_daemon && (log_file.is_some() || is_system_log(&settings.place.log_file)) {
        let _ = crate::stdio::redirect(log_file.as_ref().map(AsFd::as_fd));
    }
    let sink = sink(&service, &settings, log_file);
    log::init(settings.log_level, sink, handover.is_daemon);
    let access_log = settings.access_log.file();
    let access_log = access_log.map(|path| open_for(&handover, path)).transpose();
    let access_log = access_log.unwrap_or_else(|error| {
        wrong.say(error.to_string());
        None
    });
    record::init(access_log, &settings);

    // 6. Lock, control socket, counters, listener.
    let mut missing = |what: &str| {
        let text = format!("{what} did not come through the restart");
        log::error(format_args!("{text}"));
        wrong.say(text);
    };
    let workers: Vec<Worker> = workers
        .into_iter()
        .filter_map(|(pid, worker)| {
            if worker.is_none() {
                missing(&format!("the wire to worker {pid}"));
            }
            worker
        })
        .collect();
    let holdings = Holdings::adopt(adopted, &handover, &mut missing);
    let (mut holdings, signals) = match (holdings, signals) {
        (Ok(holdings), Ok(signals)) => (holdings, signals),
        (Err(error), _) | (_, Err(error)) => {
            // Workers see that this process is gone, finish what they have, and leave.
            log::error(format_args!("{error}"));
            return Err(error);
        }
    };
    if !is_back {
        move_listener(&mut holdings, &settings, &handover, &mut wrong);
    }
    drop(directory);

    // 7. What is to be done now.
    let now = Instant::now();
    let pids: Vec<Pid> = workers.iter().map(|worker| worker.pid).collect();
    let passed: Vec<Passed> = handover
        .workers
        .iter()
        .filter(|worker| pids.contains(&worker.pid))
        .map(|worker| Passed {
            pid: worker.pid,
            stage: worker.stage,
            kill_in: worker.kill_in,
        })
        .collect();
    let (wanted, close_wait) = (settings.workers, settings.close_wait);
    let (mut restart, mut last_restart) = (None, None);
    let mut actions: Vec<Action>;
    let mut plan;
    match &handover.way {
        Way::Onward(_) => {
            let step = match back.take() {
                Some(back) => Step::Executed(Box::new(back)),
                None => Step::Settled,
            };
            let mut under_way = Restart::new(asker, handover.asked, step);
            under_way.old = pids;
            restart = Some(under_way);
            plan = Plan::resume(wanted, close_wait, now, &passed).delaying(settings.stop_delay);
            actions = match wrong.0 {
                Some(why) => plan.step(now, Event::NotExecuted(why)),
                None => plan.begin(),
            };
        }
        Way::Back { why, .. } => {
            log::error(format_args!("restart given up: {why}"));
            answer(asker, "failed", &still_serves(why));
            last_restart = Some(LastRestart::new(false, why.clone()));
            plan = Plan::returned(wanted, close_wait, now, &passed).delaying(settings.stop_delay);
            actions = plan.begin();
            let again = wrong
                .0
                .map(|wrong| format!("after the restart was given up: {wrong}"));
            actions.extend(again.map(Action::Say));
        }
    }
    let heir = Heir {
        service,
        settings,
        identity,
        overrides,
        holdings,
        signals,
        roster: Roster::new(workers),
        is_daemon: handover.is_daemon,
        hang_up_stops: handover.hang_up_stops,
        plan,
        started: handover.started,
        generation: handover.generation,
        restart,
        last_restart,
    };
    // A child may have died while nobody listened.
    signal::note_again(Signal::Child);
    Master::assemble(heir).run_with(actions)
}

impl Back {
    /// `None` where it did not come through: then there is no way back.
    fn adopt(ticket: &Ticket, handover: &Handover) -> Option<Back> {
        let executable = Handover::adopt(ticket.executable);
        let directory = Handover::adopt(ticket.directory);
        Some(Back {
            executable: executable?,
            directory: directory?,
            args: ticket.args.clone(),
            environment: ticket.environment.clone(),
            held: handover.held.clone(),
            hang_up_stops: handover.hang_up_stops,
        })
    }
}

fn adopt_workers(all: &[Inherited]) -> Vec<(Pid, Option<Worker>)> {
    let adopt = |worker: &Inherited| {
        // Both are taken before either can be missing: neither number is to be found again by another one.
        let (wire, bell) = (Handover::adopt(worker.wire), Handover::adopt(worker.bell));
        let (wire, bell) = (Wire::adopt(wire?), Bell::adopt(bell?));
        let Inherited {
            pid, slot, since, ..
        } = *worker;
        Some(Worker::new(pid, wire, bell, slot, since).adopted())
    };
    all.iter()
        .map(|worker| (worker.pid, adopt(worker)))
        .collect()
}

/// The settings on disk, if they will do for a service that runs already.
fn choose_settings(settings: Result<Settings>, handover: &Handover, wrong: &mut Wrong) -> Settings {
    let held = &handover.held.place;
    let no_directory = |error| Error::failed(format!("cannot find the base directory: {error}"));
    let settings = settings.and_then(|settings| settings.absolute().map_err(no_directory));
    let mut settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            wrong.say(error.to_string());
            return handover.held.settings();
        }
    };
    // The lock and the socket are where they are, and commands look for them where the settings say.
    let Place {
        pid_file, socket, ..
    } = &mut settings.place;
    for (key, now, then) in [
        ("app.pid_file", pid_file, &held.pid_file),
        ("app.socket", socket, &held.socket),
    ] {
        if now != then {
            let (now, then) = (now.display(), then.display());
            wrong.say(format!(
                "{key} is {now} now, and a service that runs keeps {then}; stop, then start"
            ));
        }
    }
    if let Some(path) = settings.clash() {
        wrong.say(clash(&path).to_string());
    }
    match wrong.0 {
        Some(_) => handover.held.settings(),
        None => settings,
    }
}

/// Whom workers become. What was found out before holds where nothing else does.
fn choose_identity(
    settings: &Settings,
    handover: &Handover,
    wrong: &mut Wrong,
) -> Option<Identity> {
    let found = match (&wrong.0, &handover.way) {
        (None, Way::Onward(_)) => settings.user.as_ref().map(User::identify).transpose(),
        _ => return handover.held.identity.clone(),
    };
    found.unwrap_or_else(|error| {
        wrong.say(error.to_string());
        handover.held.identity.clone()
    })
}

fn choose_log(
    settings: &Settings,
    handover: &Handover,
    inherited: Option<OwnedFd>,
    wrong: &mut Wrong,
) -> Option<File> {
    let inherited = inherited.map(File::from);
    let path = &settings.place.log_file;
    if !handover.is_daemon && !settings.log_file_is_set || is_system_log(path) {
        return None;
    }
    let is_over = wrong.0.is_some() && inherited.is_some();
    if is_over || inherited.as_ref().is_some_and(|file| is_at(file, path)) {
        return inherited;
    }
    match open_for(handover, path) {
        Ok(file) => Some(file),
        Err(error) => {
            wrong.say(error.to_string());
            inherited
        }
    }
}

fn open_for(handover: &Handover, path: &Path) -> Result<File> {
    match handover.way {
        Way::Onward(_) => open_log(path, path),
        // Its directory is not made anew: nobody wants a base directory that is gone to be there again, and empty.
        Way::Back { .. } => {
            crate::logfile::open(path).map_err(|error| cannot("write", path, &error))
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    let (open, named) = (file.metadata(), path.metadata());
    open.is_ok_and(|open| named.is_ok_and(|named| identity(open) == identity(named)))
}

/// Binds the new address, if it is another one. The old one stays beside it until the old workers are done.
fn move_listener(
    holdings: &mut Holdings,
    settings: &Settings,
    handover: &Handover,
    wrong: &mut Wrong,
) {
    let now = settings.address.clone().within(&settings.place.base);
    // `None`: a socket that was passed in stays, unless this restart names an address.
    if wrong.0.is_some() || handover.address.is_none() {
        return;
    }
    match holdings.listener.bind_beside(&now) {
        Ok(Some(new)) => holdings.move_to(new),
        Ok(None) => {}
        Err(error) => wrong.say(error.to_string()),
    }
}
