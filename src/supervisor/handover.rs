//! What crosses the `execve(2)` of a restart: descriptors by number and what belongs to them, in one environment
//! variable that carries the pid, so that nobody but this very process takes it for its own. On the way to the program
//! on disk a ticket back goes along: all that the program of before needs to become itself again.
#![forbid(unsafe_code)]

use super::plan::Stage;
use super::words;
use crate::place::Place;
use crate::settings::{Overrides, Settings};
use crate::sys::process::{self, Pid};
use crate::sys::{fd, inherited};
use crate::user::Identity;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

/// The variable's name.
pub(crate) const VARIABLE: &str = "HADE_HANDOVER";

/// What `app check` says when all is well. A program that does not say so is not one to become, whatever its status.
pub(crate) const GOOD: &str = "settings are good";
/// What it says further when it sees that it is for a restart, environment, descriptors and all, and knows this very
/// form of handing over: a wrapper that clears or closes these would lose all that is to be passed on.
pub(crate) const HEARD: &str = "ready for a restart of form 2";
/// What the value of the variable begins with for a check; the number of a descriptor follows, which must be open.
const CHECK: &str = "check ";

/// An environment that is longer than this, in bytes as they are passed on, is not in the ticket back: what is there then
/// has to do. All of the handover must fit into one string of `execve(2)`, 128 KiB.
const LONGEST_ENVIRONMENT: usize = 48 * 1024;

/// A worker that goes on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inherited {
    pub pid: Pid,
    pub wire: RawFd,
    pub bell: RawFd,
    pub slot: usize,
    /// When it was forked, on the clock of [`crate::clock::boottime`].
    pub since: Duration,
    pub stage: Stage,
    /// When it is to be killed, from the exec.
    pub kill_in: Option<Duration>,
}

/// What a program runs with, final: enough to run with it again whatever the files say by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The flags of its start, for the next restart and for `state`.
    pub flags: Vec<String>,
    /// Every setting that is not the default.
    pub settings: Vec<(String, String)>,
    /// Absolute, by the names that they were given.
    pub place: Place,
    /// Whom its workers became: a name may be somebody else's by now, or nobody's.
    pub identity: Option<Identity>,
}

impl Held {
    pub fn of(settings: &Settings, overrides: &Overrides, identity: Option<&Identity>) -> Held {
        Held {
            flags: overrides.to_args(),
            settings: settings.given(),
            place: settings.place.clone(),
            identity: identity.cloned(),
        }
    }

    /// The same settings again. What this program does not know of them is left out.
    pub fn settings(&self) -> Settings {
        Settings::hold(self.place.clone(), &self.settings)
    }

    pub fn overrides(&self) -> Overrides {
        Overrides::from_args(self.flags.clone()).unwrap_or_default()
    }
}

/// Which way the exec goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the program on disk.
    Onward(Ticket),
    /// Back to the program of before; the restart is given up for this reason.
    Back { why: String, directory: RawFd },
}

/// The ticket back. What its program ran with is [`Handover::held`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The file that was executed, whatever has its name by now.
    pub executable: RawFd,
    /// The working directory, likewise.
    pub directory: RawFd,
    pub args: Vec<OsString>,
    /// `NAME=value`, unless it is very long.
    pub environment: Option<Vec<OsString>>,
}

/// All of it. Times are on the clock of [`crate::clock::boottime`], which both sides share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handover {
    pub way: Way,
    pub held: Held,
    pub lock: RawFd,
    pub listener: RawFd,
    /// The address as the settings had it; `None` for a socket that was passed in from outside.
    pub address: Option<String>,
    pub ledger: RawFd,
    pub control: RawFd,
    pub log: Option<RawFd>,
    /// The self-pipe: read end, write end.
    pub signals: [RawFd; 2],
    /// Who waits for the outcome.
    pub asker: Option<RawFd>,
    pub workers: Vec<Inherited>,
    pub generation: u64,
    pub started: Duration,
    /// When this restart was asked for.
    pub asked: Duration,
    pub is_daemon: bool,
    pub hang_up_stops: bool,
    /// What was started, and is to be executed by the next restart.
    pub program: PathBuf,
}

impl Ticket {
    /// The ticket of this very process, with descriptors that the caller keeps open.
    pub fn new(executable: RawFd, directory: RawFd) -> Ticket {
        let environment: Vec<OsString> = variables().collect();
        // Once for the words, and once more for the line that they are packed into.
        let length = words::pack([words::pack(&environment)]).len();
        Ticket {
            executable,
            directory,
            args: std::env::args_os().collect(),
            environment: (length <= LONGEST_ENVIRONMENT).then_some(environment),
        }
    }
}

/// The environment of this process, `NAME=value`, without a handover of before.
pub(crate) fn variables() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .filter(|(name, _)| name != VARIABLE)
        .map(|(name, value)| [name.as_os_str(), value.as_os_str()].join(OsStr::new("=")))
}

/// The value of the variable for a check that is to see this descriptor.
pub(crate) fn for_a_check(descriptor: RawFd) -> String {
    format!("{CHECK}{descriptor}")
}

/// Whether this process is a check for a restart, and would get all that a restart passes on.
pub(crate) fn is_heard() -> bool {
    let value = std::env::var(VARIABLE).unwrap_or_default();
    let number = value.strip_prefix(CHECK);
    number
        .and_then(|number| number.parse().ok())
        .is_some_and(fd::is_open_number)
}

/// Whether a process that this value was meant for serves a socket that was passed in from outside.
pub(crate) fn has_passed(value: &str) -> bool {
    let all = words::unpack(value);
    let mut keys = all.iter().filter_map(|word| Some(pair(word)?.0));
    !keys.any(|key| key == "address")
}

impl Handover {
    /// The variable, `NAME=value`.
    pub fn to_variable(&self) -> OsString {
        let flag = |on: bool| u8::from(on).to_string();
        let text = |text: String| OsString::from(text);
        let path = |path: &PathBuf| path.clone().into_os_string();
        let Held {
            flags,
            settings,
            place,
            identity,
        } = &self.held;
        let settings = settings.iter().map(|(key, value)| format!("{key}={value}"));
        let mut pairs: Vec<(&str, OsString)> = vec![
            ("pid", text(Pid::own().to_string())),
            ("lock", text(self.lock.to_string())),
            ("listener", text(self.listener.to_string())),
            ("ledger", text(self.ledger.to_string())),
            ("control", text(self.control.to_string())),
            (
                "signals",
                text(format!("{} {}", self.signals[0], self.signals[1])),
            ),
            ("generation", text(self.generation.to_string())),
            ("started", text(millis(self.started))),
            ("asked", text(millis(self.asked))),
            ("is_daemon", text(flag(self.is_daemon))),
            ("hang_up_stops", text(flag(self.hang_up_stops))),
            ("program", path(&self.program)),
            ("flags", text(words::pack(flags))),
            ("settings", text(words::pack(settings))),
            ("base", path(&place.base)),
            ("config", path(&place.config)),
            ("pid_file", path(&place.pid_file)),
            ("log_file", path(&place.log_file)),
            ("socket", path(&place.socket)),
        ];
        match &self.way {
            Way::Onward(ticket) => {
                pairs.push(("executable", text(ticket.executable.to_string())));
                pairs.push(("directory", text(ticket.directory.to_string())));
                pairs.push(("args", text(words::pack(&ticket.args))));
                let environment = ticket.environment.iter();
                pairs.extend(environment.map(|all| ("environment", text(words::pack(all)))));
            }
            Way::Back { why, directory } => {
                pairs.push(("why", text(why.clone())));
                pairs.push(("directory", text(directory.to_string())));
            }
        }
        let identity = identity.iter();
        pairs.extend(identity.map(|identity| ("identity", text(identity.encode()))));
        let address = self.address.iter();
        pairs.extend(address.map(|address| ("address", text(address.clone()))));
        pairs.extend(self.asker.map(|asker| ("asker", text(asker.to_string()))));
        pairs.extend(self.log.map(|log| ("log", text(log.to_string()))));
        for worker in &self.workers {
            let Inherited {
                pid,
                wire,
                bell,
                slot,
                ..
            } = worker;
            let (since, stage) = (millis(worker.since), worker.stage.name());
            let kill_in = worker.kill_in.map_or("-".to_owned(), millis);
            let line = format!("{pid} {wire} {bell} {slot} {since} {stage} {kill_in}");
            pairs.push(("worker", text(line)));
        }
        let pair = |(key, value): (&str, OsString)| [OsStr::new(key), &value].join(OsStr::new("="));
        let line = words::pack(pairs.into_iter().map(pair));
        OsString::from(format!("{VARIABLE}={line}"))
    }

    /// Takes it out of the environment, if it is there and meant for this process.
    pub fn take() -> Option<Handover> {
        let text = std::env::var(VARIABLE).ok()?;
        process::remove_variable(VARIABLE);
        Handover::decode(&text)
    }

    fn decode(text: &str) -> Option<Handover> {
        let all = words::unpack(text);
        let pairs: Vec<(&str, OsString)> = all.iter().filter_map(|word| pair(word)).collect();
        let workers = pairs
            .iter()
            .filter(|(key, _)| *key == "worker")
            .filter_map(|(_, value)| worker(value.to_str()?))
            .collect();
        let map: BTreeMap<&str, &OsString> =
            pairs.iter().map(|(key, value)| (*key, value)).collect();
        let get = |key: &str| map.get(key).and_then(|value| value.to_str());
        let number = |key: &str| get(key)?.parse::<RawFd>().ok();
        let time = |key: &str| get(key).and_then(moment).unwrap_or_default();
        let path = |key: &str| map.get(key).map(PathBuf::from);
        let list = |key: &str| get(key).filter(|line| !line.is_empty()).map(words::unpack);
        let texts = |key: &str| {
            get(key)
                .filter(|line| !line.is_empty())
                .map(words::unpack_text)
        };
        if get("pid")?.parse() != Ok(Pid::own().raw()) {
            return None;
        }
        let directory = number("directory").unwrap_or(-1);
        let way = match get("why") {
            Some(why) => Way::Back {
                why: why.to_owned(),
                directory,
            },
            None => Way::Onward(Ticket {
                executable: number("executable").unwrap_or(-1),
                directory,
                args: list("args").unwrap_or_default(),
                environment: list("environment"),
            }),
        };
        let (read, write) = get("signals")?.split_once(' ')?;
        let settings = texts("settings").unwrap_or_default();
        let settings = settings.iter().filter_map(|word| word.split_once('='));
        Some(Handover {
            way,
            held: Held {
                flags: texts("flags").unwrap_or_default(),
                settings: settings
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
                place: Place {
                    base: path("base")?,
                    config: path("config")?,
                    pid_file: path("pid_file")?,
                    log_file: path("log_file")?,
                    socket: path("socket")?,
                },
                identity: get("identity").and_then(Identity::decode),
            },
            lock: number("lock").unwrap_or(-1),
            listener: number("listener").unwrap_or(-1),
            address: get("address").map(str::to_owned),
            ledger: number("ledger").unwrap_or(-1),
            control: number("control").unwrap_or(-1),
            log: number("log"),
            signals: [read.parse().ok()?, write.parse().ok()?],
            asker: number("asker"),
            workers,
            generation: get("generation")
                .and_then(|value| value.parse().ok())
                .unwrap_or(1),
            started: time("started"),
            asked: time("asked"),
            is_daemon: get("is_daemon") == Some("1"),
            hang_up_stops: get("hang_up_stops") == Some("1"),
            program: path("program")?,
        })
    }

    /// Every descriptor named in it.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let fixed = [self.lock, self.listener, self.ledger, self.control];
        let way = match &self.way {
            Way::Onward(ticket) => vec![ticket.executable, ticket.directory],
            Way::Back { directory, .. } => vec![*directory],
        };
        let workers = self
            .workers
            .iter()
            .flat_map(|worker| [worker.wire, worker.bell]);
        fixed
            .into_iter()
            .chain(self.signals)
            .chain(way)
            .chain(self.log)
            .chain(self.asker)
            .chain(workers)
            .collect()
    }

    /// Makes a descriptor that came through this process's own, and close-on-exec again.
    pub fn adopt(number: RawFd) -> Option<OwnedFd> {
        let found = inherited::adopt(number)?;
        fd::set_cloexec(&found, true).ok()?;
        Some(found)
    }
}

/// `key=value`, of which the value may be any bytes.
fn pair(word: &OsStr) -> Option<(&str, OsString)> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(&bytes[..at]).ok()?;
    Some((key, OsString::from_vec(bytes[at + 1..].to_vec())))
}

fn worker(value: &str) -> Option<Inherited> {
    let words: Vec<&str> = value.split(' ').collect();
    let [pid, wire, bell, slot, since, stage, kill_in] = words[..] else {
        return None;
    };
    Some(Inherited {
        pid: Pid::parse(pid)?,
        wire: wire.parse().ok()?,
        bell: bell.parse().ok()?,
        slot: slot.parse().ok()?,
        since: moment(since)?,
        stage: Stage::ALL.into_iter().find(|one| one.name() == stage)?,
        kill_in: moment(kill_in),
    })
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

fn moment(millis: &str) -> Option<Duration> {
    Some(Duration::from_millis(millis.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn everything_comes_through_and_only_for_this_process() {
        let at = Duration::from_millis(1_234_567);
        let pid = Pid::from_raw(77).unwrap();
        let odd = OsString::from_vec(vec![b'/', 0xff, b'\n', b'=']);
        let inherited = |wire, stage, kill_in| Inherited {
            pid,
            wire,
            bell: wire + 1,
            slot: 3,
            since: at,
            stage,
            kill_in,
        };
        let whole = Handover {
            way: Way::Onward(Ticket {
                executable: 20,
                directory: 21,
                args: vec!["x".into(), odd.clone(), "".into()],
                environment: Some(vec!["A=b\tc".into(), odd.clone()]),
            }),
            held: Held {
                flags: vec!["--set".into(), "a=\t%".into()],
                settings: vec![("app.address".into(), "unix:/a b=c\t%".into())],
                place: Place {
                    base: odd.clone().into(),
                    config: "/etc/a".into(),
                    pid_file: "/run/a=b".into(),
                    log_file: "/run/ü".into(),
                    socket: "/s".into(),
                },
                identity: Identity::decode("33 34 5,6 www"),
            },
            lock: 6,
            listener: 5,
            address: Some("unix:/a b\t%".into()),
            ledger: 7,
            control: 8,
            log: Some(15),
            signals: [16, 17],
            asker: Some(9),
            workers: vec![
                inherited(10, Stage::Draining, Some(at)),
                inherited(12, Stage::Serving, None),
            ],
            generation: 12,
            started: at,
            asked: at,
            is_daemon: true,
            hang_up_stops: false,
            program: "/bin/x".into(),
        };
        let text = |handover: &Handover| {
            let variable = handover.to_variable().into_string().unwrap();
            variable.split_once('=').unwrap().1.to_owned()
        };
        let mut found = whole.descriptors();
        found.sort_unstable();
        assert_eq!(found, [5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 20, 21]);
        assert_eq!(Handover::decode(&text(&whole)), Some(whole.clone()));
        let back = Handover {
            way: Way::Back {
                why: "no\nroom".into(),
                directory: 21,
            },
            log: None,
            asker: None,
            ..whole.clone()
        };
        assert_eq!(Handover::decode(&text(&back)), Some(back));
        let own = format!("pid={}", Pid::own());
        assert_eq!(
            Handover::decode(&text(&whole).replacen(&own, "pid=1", 1)),
            None
        );
        assert_eq!(Handover::decode(&own), None);
    }
}
