//! What crosses the `execve(2)` of a restart: descriptors by number and what belongs to them, in one environment
//! variable that carries the pid, so that nobody but this very process takes it for its own.
#![forbid(unsafe_code)]

use super::words;
use crate::sys::fd;
use crate::sys::process::{self, Pid};
use std::collections::BTreeMap;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The variable's name.
pub(crate) const VARIABLE: &str = "HADE_HANDOVER";

/// A worker that goes on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inherited {
    pub pid: Pid,
    pub wire: RawFd,
    pub slot: usize,
    pub since: SystemTime,
    /// In which state it is, in [`super::plan::Plan::stage`]'s word.
    pub stage: String,
}

/// All of it. Times are those of the calendar, since no other clock's zero is known to both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handover {
    pub listener: RawFd,
    /// The address as the settings had it; `None` for a socket that was passed in from outside.
    pub address: Option<String>,
    pub pid_file: RawFd,
    pub is_locked: bool,
    pub ledger: RawFd,
    pub control: RawFd,
    /// Who waits for the outcome.
    pub asker: Option<RawFd>,
    pub workers: Vec<Inherited>,
    pub generation: u64,
    pub started: SystemTime,
    /// When this restart was asked for.
    pub asked: SystemTime,
    pub is_daemon: bool,
    pub hang_up_stops: bool,
    pub close_wait: Duration,
    /// The flags of before, for when this restart is given up.
    pub flags: Vec<String>,
    /// What was started, and is to be executed by the next restart.
    pub program: PathBuf,
    pub base: PathBuf,
    pub pid_path: PathBuf,
    pub log_path: PathBuf,
    pub socket_path: PathBuf,
}

impl Handover {
    /// The variable's name and value.
    pub fn to_variable(&self) -> (&'static str, String) {
        let flag = |on: bool| u8::from(on).to_string();
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut pairs = vec![
            ("pid", Pid::own().to_string()),
            ("listener", self.listener.to_string()),
            ("pid_file", self.pid_file.to_string()),
            ("is_locked", flag(self.is_locked)),
            ("ledger", self.ledger.to_string()),
            ("control", self.control.to_string()),
            ("generation", self.generation.to_string()),
            ("started", millis(self.started)),
            ("asked", millis(self.asked)),
            ("is_daemon", flag(self.is_daemon)),
            ("hang_up_stops", flag(self.hang_up_stops)),
            ("close_wait", self.close_wait.as_millis().to_string()),
            ("flags", words::pack(&self.flags)),
            ("program", path(&self.program)),
            ("base", path(&self.base)),
            ("pid_path", path(&self.pid_path)),
            ("log_path", path(&self.log_path)),
            ("socket_path", path(&self.socket_path)),
        ];
        pairs.extend(
            self.address
                .iter()
                .map(|address| ("address", address.clone())),
        );
        pairs.extend(self.asker.iter().map(|asker| ("asker", asker.to_string())));
        for worker in &self.workers {
            let Inherited {
                pid,
                wire,
                slot,
                since,
                stage,
            } = worker;
            pairs.push((
                "worker",
                format!("{pid} {wire} {slot} {} {stage}", millis(*since)),
            ));
        }
        (
            VARIABLE,
            words::pack(
                pairs
                    .into_iter()
                    .map(|(key, value)| format!("{key}={value}")),
            ),
        )
    }

    /// Takes it out of the environment, if it is there and meant for this process.
    pub fn take() -> Option<Handover> {
        let text = std::env::var(VARIABLE).ok()?;
        process::remove_variable(VARIABLE);
        Handover::decode(&text)
    }

    fn decode(text: &str) -> Option<Handover> {
        let words = words::unpack(text);
        let pairs: Vec<(&str, &str)> = words
            .iter()
            .filter_map(|word| word.split_once('='))
            .collect();
        let workers = pairs
            .iter()
            .filter(|(key, _)| *key == "worker")
            .filter_map(|(_, value)| worker(value))
            .collect();
        let map: BTreeMap<&str, &str> = pairs.into_iter().collect();
        let number = |key: &str| map.get(key)?.parse::<RawFd>().ok();
        let time = |key: &str| map.get(key).and_then(|value| moment(value));
        let path = |key: &str| map.get(key).map(PathBuf::from);
        let flag = |key: &str| map.get(key) == Some(&"1");
        if map.get("pid")?.parse() != Ok(Pid::own().raw()) {
            return None;
        }
        Some(Handover {
            listener: number("listener").unwrap_or(-1),
            address: map.get("address").map(|address| (*address).to_owned()),
            pid_file: number("pid_file").unwrap_or(-1),
            is_locked: flag("is_locked"),
            ledger: number("ledger").unwrap_or(-1),
            control: number("control").unwrap_or(-1),
            asker: number("asker"),
            workers,
            generation: map
                .get("generation")
                .and_then(|value| value.parse().ok())
                .unwrap_or(1),
            started: time("started").unwrap_or(UNIX_EPOCH),
            asked: time("asked").unwrap_or_else(SystemTime::now),
            is_daemon: flag("is_daemon"),
            hang_up_stops: flag("hang_up_stops"),
            close_wait: Duration::from_millis(
                map.get("close_wait")
                    .and_then(|value| value.parse().ok())
                    .unwrap_or(5000),
            ),
            flags: map
                .get("flags")
                .filter(|flags| !flags.is_empty())
                .map_or_else(Vec::new, |flags| words::unpack(flags)),
            program: path("program")?,
            base: path("base")?,
            pid_path: path("pid_path")?,
            log_path: path("log_path")?,
            socket_path: path("socket_path")?,
        })
    }

    /// Every descriptor named in it.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let fixed = [self.listener, self.pid_file, self.ledger, self.control];
        let workers = self.workers.iter().map(|worker| worker.wire);
        fixed.into_iter().chain(self.asker).chain(workers).collect()
    }

    /// Makes a descriptor that came through this process's own, and close-on-exec again.
    pub fn adopt(number: RawFd) -> Option<OwnedFd> {
        let found = fd::adopt(number)?;
        fd::set_cloexec(&found, true).ok()?;
        Some(found)
    }
}

fn worker(value: &str) -> Option<Inherited> {
    let mut parts = value.split(' ');
    let pid = Pid::parse(parts.next()?)?;
    let (wire, slot) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Inherited {
        pid,
        wire,
        slot,
        since: moment(parts.next()?)?,
        stage: parts.next()?.to_owned(),
    })
}

fn millis(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
        .to_string()
}

fn moment(millis: &str) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Duration::from_millis(millis.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_through_and_only_for_this_process() {
        let at = UNIX_EPOCH + Duration::from_millis(1_234_567);
        let pid = Pid::from_raw(77).unwrap();
        let whole = Handover {
            listener: 5,
            address: Some("unix:/a b\t%".into()),
            pid_file: 6,
            is_locked: true,
            ledger: 7,
            control: 8,
            asker: Some(9),
            workers: vec![
                Inherited {
                    pid,
                    wire: 10,
                    slot: 3,
                    since: at,
                    stage: "draining".into(),
                },
                Inherited {
                    pid,
                    wire: 11,
                    slot: 4,
                    since: at,
                    stage: "draining".into(),
                },
            ],
            generation: 12,
            started: at,
            asked: at,
            is_daemon: true,
            hang_up_stops: false,
            close_wait: Duration::from_millis(2500),
            flags: vec!["--set".into(), "a=\t%".into()],
            program: "/bin/x".into(),
            base: "/".into(),
            pid_path: "/run/a=b".into(),
            log_path: "/run/ü".into(),
            socket_path: "/s".into(),
        };
        let text = whole.to_variable().1;
        assert_eq!(whole.descriptors(), [5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(Handover::decode(&text), Some(whole));
        let own = format!("pid={}", Pid::own());
        assert_eq!(Handover::decode(&text.replacen(&own, "pid=1", 1)), None);
        assert_eq!(Handover::decode(&own), None);
    }
}
