//! `app state`: the lock says who runs, the control socket how it is. For people a screen, for programs JSON, and for
//! health checks in images that hold nothing but this binary a probe.
#![forbid(unsafe_code)]

use super::running::{PATIENCE, has_nowhere, who};
use super::stop::{not_running, unreachable};
use super::{is_unprintable, print, shown, tell};
use crate::address::Address;
use crate::error::{Error, Result, exit};
use crate::http::routes::HEALTH;
use crate::pidfile::{Process, Runs};
use crate::service::Service;
use crate::settings::Settings;
use crate::supervisor::control::{self, Question};
use crate::sys::process::{self, Pid};
use crate::sys::socket;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A probe is over within this time, the question where to probe included.
const PROBE: Duration = Duration::from_millis(1900);

pub fn state(service: &Service, settings: &Settings, json: bool, probe: bool) -> Result<u8> {
    let begun = Instant::now();
    // A health check knows of good and bad alone: what cannot be told is not healthy.
    let code = if probe { exit::FAILED } else { exit::UNKNOWN };
    let runs = match who(settings) {
        Err(_) if probe && has_nowhere(settings) => {
            // A container whose first process cannot be asked where it listens: where the settings say.
            return health(service, &own_address(settings), begun);
        }
        Err(error) if json && !probe => {
            let printed = print(&unknown(exit::UNKNOWN, &error.to_string()));
            printed.map_err(|error| error.with_code(exit::UNKNOWN))?;
            return Ok(exit::UNKNOWN);
        }
        runs => runs.map_err(|error| error.with_code(code))?,
    };
    let (text, code) = match runs {
        Runs::Master(master) => match ask(settings, master) {
            Ok(facts) if probe => {
                let address = told_address(settings, master, &facts);
                return health(service, &address, begun);
            }
            Ok(facts) if json => (facts.json(), exit::DONE),
            Ok(facts) => (facts.shown().screen(&service.name, master.uid), exit::DONE),
            Err(why) => (alive_but(master.pid, &why), exit::UNKNOWN),
        },
        Runs::Nobody => not_running(settings),
        runs => (unreachable(settings, runs), exit::UNKNOWN),
    };
    if probe {
        return Err(Error::failed(text));
    }
    let printed = match (code, json) {
        (exit::DONE, _) => print(&text),
        (_, true) => print(&unknown(code, &text)),
        (exit::UNKNOWN, false) => return Err(Error::failed(text).with_code(code)),
        (_, false) => print(&format!("{}: {text}\n", service.name)),
    };
    printed
        .map(|()| code)
        .map_err(|error| error.with_code(exit::UNKNOWN))
}

/// The object for what is not running, or of which that cannot be told.
fn unknown(code: u8, reason: &str) -> String {
    let running = match code {
        exit::UNKNOWN => "null",
        _ => "false",
    };
    let reason = quoted(reason);
    format!("{{\"running\":{running},\"reason\":{reason}}}\n")
}

fn alive_but(pid: Pid, why: &str) -> String {
    format!("pid {pid} is alive but does not answer: {why}")
}

/// What the master says of itself.
struct Facts(Vec<Vec<String>>);

fn ask(settings: &Settings, master: Process) -> std::result::Result<Facts, String> {
    let path = &settings.place.socket;
    let answer = control::ask_until_heard(path, master, &Question::State, PATIENCE);
    answer
        .map(Facts)
        .map_err(|error| format!("{}: {error}", path.display()))
}

impl Facts {
    fn lines(&self, key: &'static str) -> impl Iterator<Item = &[String]> {
        let lines = self
            .0
            .iter()
            .filter(move |line| line.first().is_some_and(|word| word == key));
        lines.map(|line| &line[1..])
    }

    fn get(&self, key: &'static str) -> &str {
        self.lines(key)
            .next()
            .and_then(|words| words.first())
            .map_or("", String::as_str)
    }

    fn millis(&self, key: &'static str) -> Duration {
        millis(self.get(key))
    }

    /// The same with nothing in it that a terminal would take for more than text.
    fn shown(&self) -> Facts {
        let lines = self.0.iter();
        Facts(
            lines
                .map(|line| line.iter().map(|word| shown(word)).collect())
                .collect(),
        )
    }

    /// A word that is a number or a truth value; anything else is none in JSON either.
    fn plain(word: &str) -> String {
        match word {
            "true" | "false" => word.to_owned(),
            _ => word
                .parse::<u64>()
                .map_or_else(|_| "null".to_owned(), |number| number.to_string()),
        }
    }

    /// One screen for people.
    fn screen(&self, name: &str, uid: u32) -> String {
        let mut text = format!(
            "{name}: running, pid {}, on {}\n",
            self.get("pid"),
            self.get("address")
        );
        let mut fact = |key: &str, value: String| text += &format!("  {key:<12} {value}\n");
        if let Some([what]) = self.lines("absent").next() {
            fact("address", what.clone());
        }
        if uid != process::euid() {
            fact("user", format!("uid {uid}"));
        }
        let note = if self.get("restarting") == "true" {
            ", a restart is under way"
        } else {
            ""
        };
        fact(
            "uptime",
            format!(
                "{}, generation {}{note}",
                span(self.millis("uptime")),
                self.get("generation")
            ),
        );
        fact(
            "requests",
            format!(
                "{} answered, {} in flight",
                self.get("requests"),
                self.get("in_flight")
            ),
        );
        let backlog = match self.get("backlog") {
            "" => String::new(),
            count => format!(", {count} waiting to be"),
        };
        fact(
            "connections",
            format!(
                "{} open, {} accepted{backlog}",
                self.get("connections"),
                self.get("accepted")
            ),
        );
        if let Some([why]) = self.lines("trouble").next() {
            fact("trouble", format!("no worker serves: {why}"));
        }
        let refused: Vec<String> = self
            .lines("refused")
            .filter_map(|words| match words {
                [cause, count] if count != "0" => Some(format!("{count} {cause}")),
                _ => None,
            })
            .collect();
        if !refused.is_empty() {
            fact("refused", refused.join(", "));
        }
        for words in self.lines("worker") {
            let [pid, stage, uptime, open, in_flight, requests, slow @ ..] = words else {
                continue;
            };
            let up = span(millis(uptime));
            let counts = format!("{requests} answered, {in_flight} in flight, {open} connections");
            fact("worker", format!("{pid} {stage}, up {up}; {counts}"));
            if let [count, longest] = slow {
                if count != "0" {
                    let longest = span(millis(longest));
                    let text = format!("{count} handlers of {pid}, the longest for {longest}");
                    fact("slow", text);
                }
            }
        }
        if self.get("worker_deaths") != "0" {
            fact(
                "deaths",
                format!("{} workers died unasked", self.get("worker_deaths")),
            );
        }
        if let Some([at, went_well, how]) = self.lines("last_restart").next() {
            let ago = span(since(at));
            let given_up = if went_well == "true" {
                ""
            } else {
                "given up: "
            };
            fact("last restart", format!("{ago} ago: {given_up}{how}"));
        }
        text
    }

    /// One object for programs; the README has its keys.
    fn json(&self) -> String {
        let number = |key: &'static str| Facts::plain(self.get(key));
        let seconds =
            |millis: &str| format!("{:.3}", millis.parse::<u64>().unwrap_or(0) as f64 / 1000.0);
        let none = "0".to_owned();
        let workers: Vec<String> = self
            .lines("worker")
            .filter_map(|words| {
                let [pid, stage, uptime, open, in_flight, requests, slow @ ..] = words else { return None };
                // A master of an earlier version does not tell.
                let (overdue, longest) = match slow {
                    [count, longest] => (count, seconds(longest)),
                    _ => (&none, seconds("0")),
                };
                let [pid, open, in_flight, requests, overdue] =
                    [pid, open, in_flight, requests, overdue].map(|word| Facts::plain(word));
                let (stage, uptime) = (quoted(stage), seconds(uptime));
                Some(format!(
                    "{{\"pid\":{pid},\"state\":{stage},\"uptime_seconds\":{uptime},\"connections\":{open},\
                     \"in_flight\":{in_flight},\"requests\":{requests},\"slow_handlers\":{overdue},\
                     \"slowest_seconds\":{longest}}}"
                ))
            })
            .collect();
        let refused: Vec<String> = self
            .lines("refused")
            .filter_map(|words| {
                let [cause, count] = words else { return None };
                let cause = quoted(&cause.replace(' ', "_"));
                Some(format!("{cause}:{}", Facts::plain(count)))
            })
            .collect();
        let last = self.lines("last_restart").next().and_then(|words| {
            let [at, went_well, how] = words else {
                return None;
            };
            Some(format!(
                "{{\"at_unix_seconds\":{},\"ok\":{},\"text\":{}}}",
                seconds(at),
                Facts::plain(went_well),
                quoted(how)
            ))
        });
        let pairs = [
            ("running", "true".to_owned()),
            ("pid", number("pid")),
            ("address", quoted(self.get("address"))),
            (
                "address_is_there",
                self.lines("absent").next().is_none().to_string(),
            ),
            ("daemon", number("daemon")),
            ("uptime_seconds", seconds(self.get("uptime"))),
            ("generation", number("generation")),
            ("restarting", number("restarting")),
            ("connections", number("connections")),
            ("in_flight", number("in_flight")),
            ("requests", number("requests")),
            ("accepted", number("accepted")),
            ("backlog", number("backlog")),
            ("refused", format!("{{{}}}", refused.join(","))),
            ("worker_deaths", number("worker_deaths")),
            (
                "trouble",
                match self.get("trouble") {
                    "" => "null".to_owned(),
                    why => quoted(why),
                },
            ),
            ("workers", format!("[{}]", workers.join(","))),
            ("last_restart", last.unwrap_or_else(|| "null".to_owned())),
        ];
        let pairs: Vec<String> = pairs
            .into_iter()
            .map(|(key, value)| format!("\"{key}\":{value}"))
            .collect();
        format!("{{{}}}\n", pairs.join(","))
    }
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap_or(0))
}

fn since(unix_millis: &str) -> Duration {
    let at = Duration::from_millis(unix_millis.parse().unwrap_or(0));
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH + at)
        .unwrap_or_default()
}

/// A time span as people say it: `4.2 s`, `12 min`, `3 h 20 min`, `9 d 4 h`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, seconds / 3600, seconds / 60) {
        (0, 0, 0..2) => format!("{:.1} s", time.as_secs_f64()),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A JSON string, RFC 8259 §7.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_unprintable(c) => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A real request to the health path.
fn health(service: &Service, address: &str, begun: Instant) -> Result<u8> {
    let failed = |why: String| Error::failed(format!("not healthy: {address}{HEALTH}: {why}"));
    if address.is_empty() {
        return Err(Error::failed("not healthy: it is stopping"));
    }
    let status = match address.strip_prefix("unix:") {
        Some(path) => socket::connect_unix(Path::new(path)).and_then(|fd| {
            let stream = UnixStream::from(fd);
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(left(begun)))?;
            stream.set_write_timeout(Some(left(begun)))?;
            status_of(stream)
        }),
        None => address.to_socket_addrs().and_then(|mut addresses| {
            let address = addresses
                .next()
                .ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            let stream = TcpStream::connect_timeout(&address, left(begun))?;
            stream.set_read_timeout(Some(left(begun)))?;
            status_of(stream)
        }),
    };
    let worded = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("no answer within {} s", PROBE.as_secs_f64())
        }
        _ => error.to_string(),
    };
    match status.map_err(|error| failed(worded(error)))? {
        200 => {
            // Whoever probes looks at the exit status.
            tell(&service.name, &format!("{}: healthy\n", service.name));
            Ok(exit::DONE)
        }
        status => Err(failed(format!("status {status}"))),
    }
}

fn left(begun: Instant) -> Duration {
    PROBE
        .saturating_sub(begun.elapsed())
        .max(Duration::from_millis(1))
}

/// Where the master says that it listens. No path is taken from the process of another user.
fn told_address(settings: &Settings, master: Process, facts: &Facts) -> String {
    let told = facts.get("reachable");
    match master.uid == process::euid() || !told.starts_with("unix:") {
        true => told.to_owned(),
        false => settings.address.to_string(),
    }
}

/// Where the settings say, as it is reached from this machine.
fn own_address(settings: &Settings) -> String {
    match &settings.address {
        Address::Any { port } | Address::Localhost { port } => format!("127.0.0.1:{port}"),
        Address::Ip(address) if address.ip().is_unspecified() => {
            format!("127.0.0.1:{}", address.port())
        }
        address => address.to_string(),
    }
}

/// Asks on a fresh connection, and reads no further than the status.
fn status_of(mut stream: impl Read + Write) -> std::io::Result<u16> {
    write!(
        stream,
        "GET {HEALTH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    let text = std::str::from_utf8(&start).unwrap_or_default();
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("it does not speak HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let lines = [
            "pid 7",
            "address http://localhost:8888",
            "uptime 61500",
            "generation 2",
            "restarting false",
            "daemon true",
            "connections 3",
            "in_flight 1",
            "requests 10",
            "accepted 5",
            "backlog ",
            "worker_deaths 1",
            "worker 9 serving 5000 3 1 4 2 12000",
            "refused malformed 7",
            "refused too_slow 0",
        ];
        let lines = lines
            .into_iter()
            .map(|line| line.split(' ').map(str::to_owned).collect());
        let last = ["last_restart", "0", "false", "say \"no\"\n"]
            .map(str::to_owned)
            .to_vec();
        Facts(lines.chain([last]).collect())
    }

    #[test]
    fn for_people() {
        let screen = facts().screen("hade", process::euid());
        let expected = "hade: running, pid 7, on http://localhost:8888\n  uptime       61.5 s, generation 2\n  \
                        requests     10 answered, 1 in flight\n  connections  3 open, 5 accepted\n  \
                        refused      7 malformed\n  \
                        worker       9 serving, up 5.0 s; 4 answered, 1 in flight, 3 connections\n  \
                        slow         2 handlers of 9, the longest for 12.0 s\n  \
                        deaths       1 workers died unasked\n  last restart ";
        assert!(screen.starts_with(expected), "{screen}");
    }

    #[test]
    fn for_programs() {
        let expected = r#"{"running":true,"pid":7,"address":"http://localhost:8888","address_is_there":true,"daemon":true,"uptime_seconds":61.500,"generation":2,"restarting":false,"connections":3,"in_flight":1,"requests":10,"accepted":5,"backlog":null,"refused":{"malformed":7,"too_slow":0},"worker_deaths":1,"trouble":null,"workers":[{"pid":9,"state":"serving","uptime_seconds":5.000,"connections":3,"in_flight":1,"requests":4,"slow_handlers":2,"slowest_seconds":12.000}],"last_restart":{"at_unix_seconds":0.000,"ok":false,"text":"say \"no\"\u000a"}}"#;
        assert_eq!(facts().json().trim_end(), expected);
    }

    #[test]
    fn spans() {
        for (seconds, text) in [
            (0, "0.0 s"),
            (119, "119.0 s"),
            (120, "2 min"),
            (3600, "1 h 0 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
