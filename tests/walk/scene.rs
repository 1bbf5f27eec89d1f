//! One command with one fault in one of its processes, and the judgement on what is there afterwards.

use crate::faults;
use crate::place::{self, Done, GONE, LIMIT, Place, Running};
use crate::strace::{self, Births, Call, Strace};
use std::net::TcpStream;
use std::time::Duration;

/// A log that is to be opened anew is waited for this long.
const REOPENED: Duration = Duration::from_secs(2);

/// What is walked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Walk {
    /// `start --daemon`.
    Start,
    /// `start`.
    Foreground,
    Restart,
    Stop,
    State,
    /// A worker was killed, and the next one boots.
    Boot,
    /// USR1.
    Reopen,
}

/// In which process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// The command itself.
    Command,
    Master,
    /// `app check` of the program on disk.
    Check,
    /// The one that boots; at a stop the one that leaves.
    Worker,
    /// The one that a restart replaces.
    Old,
}

pub const SCENES: &[(Walk, Role)] = &[
    (Walk::Start, Role::Command),
    (Walk::Start, Role::Master),
    (Walk::Start, Role::Worker),
    (Walk::Foreground, Role::Command),
    (Walk::Restart, Role::Command),
    (Walk::Restart, Role::Master),
    (Walk::Restart, Role::Check),
    (Walk::Restart, Role::Worker),
    (Walk::Restart, Role::Old),
    (Walk::Stop, Role::Command),
    (Walk::Stop, Role::Master),
    (Walk::Stop, Role::Worker),
    (Walk::State, Role::Command),
    (Walk::State, Role::Master),
    (Walk::Boot, Role::Master),
    (Walk::Reopen, Role::Master),
];

impl Walk {
    pub fn name(self) -> &'static str {
        match self {
            Walk::Start => "start",
            Walk::Foreground => "foreground",
            Walk::Restart => "restart",
            Walk::Stop => "stop",
            Walk::State => "state",
            Walk::Boot => "boot",
            Walk::Reopen => "reopen",
        }
    }
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Command => "command",
            Role::Master => "master",
            Role::Check => "check",
            Role::Worker => "worker",
            Role::Old => "old-worker",
        }
    }
}

/// One injection.
#[derive(Clone, Debug)]
pub struct Case {
    pub walk: Walk,
    pub role: Role,
    pub call: String,
    pub number: usize,
    /// The name of an error, or KILL.
    pub fault: &'static str,
    /// The call as it was recorded, for the reader.
    pub args: String,
}

impl Case {
    pub fn name(&self) -> String {
        format!(
            "{}:{}:{}:{}:{}",
            self.walk.name(),
            self.role.name(),
            self.call,
            self.number,
            self.fault
        )
    }
}

/// What came of one.
pub enum Outcome {
    /// All is right: what it was.
    Good(&'static str),
    /// The kind of what is wrong, and what was seen.
    Bad(&'static str, String),
}

use Outcome::{Bad, Good};

/// A service that runs before the command.
struct Service {
    address: String,
    master: u32,
    worker: u32,
    kept: Option<TcpStream>,
}

/// The scene up to the end of the command.
struct Played {
    place: Place,
    /// Where it served before, or where the start said that it does.
    address: Option<String>,
    done: Done,
    /// A foreground service that is ready.
    foreground: Option<Running>,
    kept: Option<TcpStream>,
    trace: String,
}

/// The calls that one process makes, those of its start left out.
pub fn record(walk: Walk, role: Role) -> Result<Vec<Call>, String> {
    let played = play(walk, role, &["-yy", "-e", "trace=all"])?;
    if !played.done.hung && played.done.code.is_some_and(|code| code != 0) {
        return Err(format!("without a fault: {}", played.done.words()));
    }
    let mut calls = strace::calls(&played.trace);
    // A program that was executed: ld.so and libc come first. With the GNU library the last thing before the ready
    // binary is itself is to ignore SIGPIPE; with others std goes on, to take SIGBUS after it has looked at it.
    let (signal, sights) = match cfg!(target_env = "gnu") {
        true => ("SIGPIPE", 1),
        false => ("SIGBUS", 2),
    };
    let mut kept = Vec::new();
    // The check is caught behind its execve; the command's is the shell's.
    let mut starting = (role == Role::Check).then_some(0);
    let mut is_shell = role == Role::Command;
    for call in calls.drain(..) {
        if starting.is_some_and(|sight| sight < sights) {
            let is_sight = call.name == "rt_sigaction" && call.args.starts_with(signal);
            starting = starting.map(|sight| sight + i32::from(is_sight));
            kept.push((call, false));
            continue;
        }
        if call.name == "execve" {
            starting = Some(0);
            kept.push((call, !is_shell));
            is_shell = false;
            continue;
        }
        kept.push((call, !is_shell));
    }
    if starting.is_some_and(|sight| sight < sights) {
        return Err("the end of the program's start was not found in its calls".to_owned());
    }
    // Those of the start keep their places in the count; an empty name is never injected into.
    Ok(kept
        .into_iter()
        .map(|(call, is_ours)| match is_ours {
            true => call,
            false => Call {
                args: String::new(),
                thread: call.thread,
                name: format!("-{}", call.name),
            },
        })
        .collect())
}

/// Injects and judges.
pub fn run(case: &Case) -> Outcome {
    let inject = match case.fault {
        "KILL" => format!("inject={}:signal=KILL:when={}", case.call, case.number),
        error => format!("inject={}:error={error}:when={}", case.call, case.number),
    };
    let trace = format!("trace={}", case.call);
    let played = match play(case.walk, case.role, &["-e", &trace, "-e", &inject]) {
        Ok(played) => played,
        Err(why) => return Bad("no injection", why),
    };
    let is_kill = case.fault == "KILL";
    let struck = match is_kill {
        true => played.trace.contains("+++ killed by SIGKILL +++"),
        false => played.trace.contains("(INJECTED)"),
    };
    let outcome = match is_kill {
        true => after_kill(case, played),
        false => after_error(case, played),
    };
    match (struck, outcome) {
        (false, Good(_)) => Good("not reached"),
        (_, outcome) => outcome,
    }
}

/// Brings it about: the service that is needed, the strace on the process that is meant, the command to its end.
fn play(walk: Walk, role: Role, args: &[&str]) -> Result<Played, String> {
    let place = Place::new()?;
    let any = place.any_port();
    let start = ["start", "--daemon", "--address", &any];
    let mut service = match walk {
        Walk::Start | Walk::Foreground => None,
        _ => Some(service(&place, &start)?),
    };
    let command: Option<Vec<&str>> = match walk {
        Walk::Start => Some(start.to_vec()),
        Walk::Foreground => Some(vec!["start", "--address", &any]),
        Walk::Restart => Some(vec!["restart"]),
        Walk::Stop => Some(vec!["stop"]),
        Walk::State => Some(vec!["state"]),
        Walk::Boot | Walk::Reopen => None,
    };
    let mut running = command.map(|words| place.spawn(&words, true)).transpose()?;
    let cont = |running: &Option<Running>| {
        if let Some(running) = running {
            place::signal("CONT", running.pid());
        }
    };
    let own = running.as_ref().map_or(0, Running::pid);
    let (master, worker) = service
        .as_ref()
        .map_or((0, 0), |service| (service.master, service.worker));
    let trigger = |running: &Option<Running>| match walk {
        Walk::Boot => place::signal("KILL", worker),
        Walk::Reopen => {
            place.rotate();
            place::signal("USR1", master);
        }
        _ => cont(running),
    };
    let attach = |pid, follow| Strace::attach(&place.dir, "fault.strace", pid, follow, args);

    let mut strace = match (walk, role) {
        (_, Role::Command) => {
            let strace = attach(own, false)?;
            cont(&running);
            strace
        }
        (Walk::Start, Role::Master | Role::Worker)
        | (Walk::Restart, Role::Check | Role::Worker) => {
            let top = if walk == Walk::Start { own } else { master };
            let births = Births::below(&place.dir, top)?;
            trigger(&running);
            let pid = births.wait(|pid| match (walk, role) {
                (Walk::Start, Role::Master) => pid != own,
                (Walk::Start, _) => pid != own && place::parent(pid) != Some(own),
                (_, role) => {
                    let is_check = place::command_line(pid).contains(" check");
                    pid != master && is_check == (role == Role::Check)
                }
            })?;
            let strace = attach(pid, role == Role::Worker)?;
            place::signal("CONT", pid);
            strace
        }
        (_, role) => {
            let (pid, follow) = match role {
                Role::Master => (master, false),
                _ => (worker, true),
            };
            let strace = attach(pid, follow)?;
            trigger(&running);
            strace
        }
    };

    // The end of the command, or what stands for it.
    let mut foreground = None;
    let done = match (walk, &mut running) {
        (Walk::Foreground, Some(command)) => {
            place::wait_until(LIMIT, || {
                command.has_ended() || command.out().contains("\n  log ")
            });
            if command.has_ended() {
                command.end()
            } else {
                let done = Done {
                    code: Some(0),
                    out: command.out(),
                    ..Done::default()
                };
                foreground = running.take();
                done
            }
        }
        (_, Some(command)) => command.end(),
        (Walk::Boot, None) => {
            let address = service.as_ref().map(|service| service.address.clone());
            let address = address.unwrap_or_default();
            place::wait_until(LIMIT, || !is_alive(master) || place::answers(&address));
            Done {
                code: Some(0),
                ..Done::default()
            }
        }
        (_, None) => {
            // Whether there is a new log is not judged, where it is the log that fails.
            place::wait_until(REOPENED, || place.has_log() || !is_alive(master));
            Done {
                code: Some(0),
                ..Done::default()
            }
        }
    };
    strace.detach();
    let address = match &service {
        Some(service) => Some(service.address.clone()),
        None => place::address(&done.out),
    };
    Ok(Played {
        address,
        done,
        foreground,
        kept: service.as_mut().and_then(|service| service.kept.take()),
        trace: strace.text(),
        place,
    })
}

fn is_alive(pid: u32) -> bool {
    !place::command_line(pid).is_empty()
}

fn service(place: &Place, start: &[&str]) -> Result<Service, String> {
    let done = place.app(start)?;
    let address = place::address(&done.out);
    let master = place::pid(&done.out);
    let (Some(address), Some(master)) = (address, master) else {
        return Err(format!("without a fault: {}", done.words()));
    };
    let mut kept = place::connect(&address)?;
    place::ask(&mut kept)?;
    let mut workers = place.processes();
    workers.retain(|pid| place::parent(*pid) == Some(master));
    let worker = *workers.first().ok_or("it has no worker")?;
    Ok(Service {
        address,
        master,
        worker,
        kept: Some(kept),
    })
}

/// It serves, says so, stops when told and leaves nothing.
fn serves_and_stops(
    place: &Place,
    address: Option<&str>,
    kept: Option<TcpStream>,
) -> Option<Outcome> {
    let state = place.app(&["state"]).unwrap_or_default();
    let address = address
        .map(str::to_owned)
        .or_else(|| place::address(&state.out));
    let Some(address) = address else {
        return Some(Bad("does not serve", format!("state: {}", state.words())));
    };
    if let Err(why) = place::serves(&address) {
        let state = place.app(&["state"]).unwrap_or_default();
        let text = format!("{why}; state: {}; there: {}", state.words(), place.left());
        return Some(Bad("does not serve", text));
    }
    if let Some(Err(why)) = kept.map(|mut kept| place::ask(&mut kept)) {
        return Some(Bad("a kept connection hangs", why));
    }
    let state = place.app(&["state"]).unwrap_or_default();
    if state.code != Some(0) || !state.out.contains("running, pid ") {
        return Some(Bad("serves, but state does not know", state.words()));
    }
    stops(place)
}

fn stops(place: &Place) -> Option<Outcome> {
    let stop = place.app(&["stop"]).unwrap_or_default();
    if stop.code != Some(0) {
        return Some(Bad("does not stop", stop.words()));
    }
    nothing_left(place).map(|left| Bad("left after a stop", left))
}

/// Nobody works there, and the lock is free.
fn nothing_left(place: &Place) -> Option<String> {
    if !place::wait_until(GONE, || place.processes().is_empty()) {
        return Some(format!("there: {}", place.left()));
    }
    let state = place.app(&["state"]).unwrap_or_default();
    match state.code {
        Some(1 | 3) => None,
        _ => Some(format!("nobody is there, but state: {}", state.words())),
    }
}

/// The message of a command that failed names the cause, itself or by the log that it points to.
fn names_cause(case: &Case, played: &Played) -> bool {
    let (number, words) = faults::cause(case.fault);
    let (number, err) = (format!("(os error {number})"), &played.done.err);
    let names = |text: &str| text.contains(&number) || text.contains(words);
    let is_silent = faults::is_silent(case.role == Role::Worker, &case.call);
    err.starts_with("hade: ")
        && (is_silent || names(err) || (err.contains("app.log") && names(&played.place.log())))
}

fn after_error(case: &Case, mut played: Played) -> Outcome {
    let done = played.done.clone();
    if done.hung {
        return Bad("the command hangs", done.words());
    }
    let failed = done.code == Some(1) || (case.walk == Walk::State && done.code == Some(4));
    let expected = done.code == Some(0) || failed;
    if !expected {
        return Bad(
            if case.walk == Walk::State {
                "a wrong answer"
            } else {
                "the command dies"
            },
            done.words(),
        );
    }
    if failed && !names_cause(case, &played) {
        // What is there is judged first: it weighs more.
        let rest = settle(case, &mut played, failed);
        return match rest {
            Good(_) => Bad("failed without the cause", done.words()),
            bad => bad,
        };
    }
    if !failed
        && done.out.is_empty()
        && done.err.is_empty()
        && !matches!(case.walk, Walk::Boot | Walk::Reopen)
    {
        let rest = settle(case, &mut played, failed);
        return match rest {
            Good(_) => Bad("says nothing, exit 0", done.words()),
            bad => bad,
        };
    }
    settle(case, &mut played, failed)
}

/// After an error: all of it, or nothing.
fn settle(case: &Case, played: &mut Played, failed: bool) -> Outcome {
    let place = &played.place;
    let said = played.done.words();
    match case.walk {
        Walk::Start if failed => match nothing_left(place) {
            Some(left) => Bad("failed, yet there is something", format!("{left}; {said}")),
            None => starts(place, None).unwrap_or(Good("refused, clean")),
        },
        Walk::Foreground => {
            let Some(mut running) = played.foreground.take() else {
                return match (failed, nothing_left(place)) {
                    (_, Some(left)) => {
                        Bad("failed, yet there is something", format!("{left}; {said}"))
                    }
                    (true, None) => starts(place, None).unwrap_or(Good("refused, clean")),
                    (false, None) => Bad("ended without a word, exit 0", said),
                };
            };
            let outcome = serves_and_stops(place, played.address.as_deref(), None);
            if outcome.is_none() && running.end().code != Some(0) {
                return Bad("the command dies", "at its stop".to_owned());
            }
            outcome.unwrap_or(Good("serves"))
        }
        Walk::Stop if !failed => match nothing_left(place) {
            Some(left) => Bad(
                "said stopped, yet there is something",
                format!("{left}; {said}"),
            ),
            None => Good("stopped"),
        },
        Walk::Stop => {
            // It may be on its way out, or have been told and not have heard yet.
            let leaves = || {
                let has_left = || place.processes().is_empty();
                place.log().contains("leaving") && place::wait_until(GONE, has_left)
            };
            if leaves() {
                return Good("failed, said why; stopped");
            }
            let kept = played.kept.take();
            match serves_and_stops(place, played.address.as_deref(), kept) {
                None => Good("failed, said why; serves"),
                Some(Bad("does not serve" | "a kept connection hangs", _)) if leaves() => {
                    Good("failed, said why; stopped")
                }
                Some(outcome) => outcome,
            }
        }
        _ => {
            let kept = played.kept.take();
            let outcome = serves_and_stops(place, played.address.as_deref(), kept);
            let good = match failed {
                true => Good("failed, said why; serves"),
                false => Good("serves"),
            };
            outcome.unwrap_or(good)
        }
    }
}

/// The next start works without help. None: it does.
fn starts(place: &Place, address: Option<&str>) -> Option<Outcome> {
    let any = place.any_port();
    let start = ["start", "--daemon", "--address", address.unwrap_or(&any)];
    let mut done = place.app(&start).unwrap_or_default();
    let mut runs = done.code == Some(1) && done.err.contains("already running");
    // It had been told to leave when whoever told it was killed.
    let has_left = || place.log().contains("leaving") && place.processes().is_empty();
    if runs && place.log().contains("leaving") && place::wait_until(GONE, has_left) {
        done = place.app(&start).unwrap_or_default();
        runs = false;
    }
    if done.code != Some(0) && !runs {
        return Some(Bad("the next start fails", done.words()));
    }
    let address = place::address(&done.out);
    // Those of a master that was killed leave within close_wait and a second: one master, and what is below it.
    let is_one_family = || {
        let all = place.processes();
        let tops = all.iter().filter(|pid| {
            let parent = place::parent(**pid);
            !all.iter().any(|other| Some(*other) == parent)
        });
        tops.count() == 1
    };
    if !place::wait_until(GONE, is_one_family) {
        return Some(Bad("left beside the next one", place.left()));
    }
    serves_and_stops(place, address.as_deref(), None)
}

fn after_kill(case: &Case, mut played: Played) -> Outcome {
    let done = played.done.clone();
    if done.hung {
        return Bad("the command hangs", done.words());
    }
    let place = &played.place;
    let mut foreground = played.foreground.take();
    // A worker that was killed is no reason for anything to end but its own start.
    if matches!(case.role, Role::Worker | Role::Old | Role::Check) && case.walk == Walk::Restart {
        let outcome = serves_and_stops(place, played.address.as_deref(), None);
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
    let outcome = starts(place, played.address.as_deref());
    if let Some(running) = &mut foreground {
        running.end();
    }
    outcome.unwrap_or(Good("the next start works"))
}
