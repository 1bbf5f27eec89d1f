//! How long hade's commands take, beside lighttpd and nginx on the same machine in the same minutes.
//!
//! `cargo bench --bench peers`, or `-- commands`, measures starting, stopping and memory; `-- throughput` measures
//! what a request costs beside nginx, lighttpd, Go and plain tiny_http, with `--json` for programs, too; `-- restart` measures what clients notice of a restart, beside nginx,
//! unicorn and puma; `-- attack` what they notice of slowhttptest, and `-- idle` what idle connections cost, both beside
//! nginx and plain tiny_http, or without them by the word `alone`; `-- soak [SECONDS [SECONDS BETWEEN RESTARTS]]` puts
//! mixed load on hade for an hour with a restart a minute, and `-- chaos [SECONDS [SEED]]` makes all kinds of trouble
//! under load. `quick`, alone or with one of these, is shorter. No speed is asserted: the exit status is 1 only when
//! something did not work, or grew. Loopback only; every process and file it makes is gone afterwards, after Ctrl-C too.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod attack;
mod chaos;
mod clients;
mod contenders;
mod idle;
mod restart;
mod servers;
mod soak;
mod table;
mod throughput;
mod watch;
mod wire;

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use servers::{Kind, Server, Site};
use table::Table;

const ROUNDS: usize = 20;
const QUICK_ROUNDS: usize = 3;
/// After so many waits that reached the cap, a situation is not tried again on that server.
const CAPPED_ENOUGH: usize = 3;

const FIRST_ANSWER: &str = "start: first 200 received";
const START_COMMAND: &str = "start: command returns";
const STATE_COMMAND: &str = "state: command returns";
const RSS: &str = "idle: RSS of all processes, MiB";
const PSS: &str = "idle: PSS of all processes, MiB";

/// What the clients are doing when the server is told to stop.
#[derive(Clone, Copy, PartialEq)]
enum Situation {
    Idle,
    KeepAlive,
    Silent,
}

impl Situation {
    const ALL: [Self; 3] = [Self::Idle, Self::KeepAlive, Self::Silent];

    fn gone(self) -> &'static str {
        match self {
            Self::Idle => "stop, idle: process gone",
            Self::KeepAlive => "stop, 20 keep-alive: process gone",
            Self::Silent => "stop, 5 silent: process gone",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Idle => "stop, idle: command returns",
            Self::KeepAlive => "stop, 20 keep-alive: command returns",
            Self::Silent => "stop, 5 silent: command returns",
        }
    }

    /// Opens the connections. The server has accepted them all when this returns: it has answered one that came later.
    fn connect(self, site: &Site) -> io::Result<Vec<TcpStream>> {
        let open = match self {
            Self::Idle => Vec::new(),
            Self::KeepAlive => (0..20)
                .map(|_| site.connect_and_get())
                .collect::<io::Result<_>>()?,
            Self::Silent => (0..5).map(|_| site.connect()).collect::<io::Result<_>>()?,
        };
        drop(site.connect_and_get()?);
        Ok(open)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--serve-tiny", port, threads] => return throughput::serve_tiny(port, threads),
        ["--broom", root, programs @ ..] => return servers::broom(root, programs),
        _ => {}
    }
    let mut part = Part::Commands;
    let mut wish = Wish::default();
    for word in words {
        match word {
            "--bench" => {}
            "quick" => wish.quick = true,
            "alone" => wish.alone = true,
            "--json" => wish.json = true,
            "commands" => part = Part::Commands,
            "throughput" => part = Part::Throughput,
            "restart" => part = Part::Restart,
            "attack" => part = Part::Attack,
            "idle" => part = Part::Idle,
            "soak" => part = Part::Soak,
            "chaos" => part = Part::Chaos,
            other => match other.parse() {
                Ok(seconds) if matches!(part, Part::Soak | Part::Chaos) && seconds > 0 => {
                    wish.seconds.push(seconds)
                }
                _ => {
                    eprintln!(
                        "peers: unknown argument \"{other}\"; there are \"quick\", \"commands\", \"throughput\", \"restart\", \
                         \"attack\", \"idle\", \"soak\", \"chaos\", \"alone\" and \"--json\""
                    );
                    return ExitCode::from(2);
                }
            },
        }
    }
    if cfg!(debug_assertions) {
        println!("skipped: needs an optimised build; use \"cargo bench --bench peers\"");
        return ExitCode::SUCCESS;
    }
    match run(&wish, part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("peers: {reason}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Commands,
    Throughput,
    Restart,
    Attack,
    Idle,
    Soak,
    Chaos,
}

#[derive(Default)]
struct Wish {
    quick: bool,
    /// Without the peers, where that can be chosen.
    alone: bool,
    /// The samples of the throughput at its end, for programs.
    json: bool,
    /// Of the soak, and between its restarts; of the chaos, and its seed.
    seconds: Vec<u64>,
}

fn run(wish: &Wish, part: Part) -> Result<(), String> {
    if matches!(part, Part::Attack | Part::Idle) {
        servers::raise_file_limit()?;
    }
    println!("{}", machine());
    let hade = std::env::var_os("HADE")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_hade").map(PathBuf::from));
    match part {
        Part::Commands => {}
        Part::Throughput => return throughput::run(hade.as_deref(), wish),
        Part::Restart => return restart::run(hade.as_deref(), wish.quick),
        Part::Attack => return attack::run(hade.as_deref(), wish),
        Part::Idle => return idle::run(hade.as_deref(), wish),
        Part::Soak => return soak::run(hade.as_deref(), wish),
        Part::Chaos => return chaos::run(hade.as_deref(), wish),
    }
    let servers = present(hade);
    if servers.is_empty() {
        return Ok(());
    }
    commands(&servers, if wish.quick { QUICK_ROUNDS } else { ROUNDS })
}

/// Parts 1 to 4: a round is one start, stop and look at memory of each server in each situation.
fn commands(servers: &[Server], rounds: usize) -> Result<(), String> {
    let root = servers::Root::new(servers)?;
    let nothing = servers::find("true").ok_or("cannot find true")?;
    let mut table = Table::new(servers.iter().map(|server| server.name).collect());
    for label in [FIRST_ANSWER, START_COMMAND, STATE_COMMAND] {
        table.row(label, 2);
    }
    for situation in Situation::ALL {
        table.row(situation.gone(), 2);
        table.row(situation.command(), 2);
    }
    for label in [RSS, PSS] {
        table.row(label, 2);
    }
    let mut floor = Vec::new();
    let mut processes = vec![0; servers.len()];
    let mut failures: Vec<Option<String>> = vec![None; servers.len()];

    for round in 0..rounds {
        progress(round, rounds);
        for situation in Situation::ALL {
            let alone = watch::run(Command::new(&nothing), &root.path.join("true.out"))?;
            floor.push(ms(alone));
            for turn in 0..servers.len() {
                let column = (turn + round) % servers.len();
                let over = table.capped(situation.gone(), column) >= CAPPED_ENOUGH;
                if failures[column].is_some() || over {
                    continue;
                }
                match measure(&servers[column], &root.path, situation, column, &mut table) {
                    Ok(count) => processes[column] = count,
                    Err(reason) => {
                        failures[column] = Some(format!("{}: {reason}", servers[column].name));
                    }
                }
            }
        }
    }
    progress(rounds, rounds);

    println!(
        "median (min-max) of {rounds} rounds, servers taken in turn; ms where no unit is named, polled every 0.1 ms"
    );
    table.print(rounds);
    let alone = table::cell(&floor, 2, 3 * rounds);
    println!("the floor, `true` spawned and waited for: {alone} ms");
    let counts = servers.iter().zip(processes);
    let counts: Vec<String> = counts
        .map(|(server, count)| format!("{} {count}", server.name))
        .collect();
    println!("processes when idle: {}", counts.join(", "));
    println!(
        "only hade's stop command waits for the end; the others return when the signal is sent"
    );
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("; "))
}

/// Starts, looks at and stops one server. Returns how many processes it had.
fn measure(
    server: &Server,
    root: &Path,
    situation: Situation,
    column: usize,
    table: &mut Table,
) -> Result<usize, String> {
    let mut site = Site::new(server, root)?;
    let start = site.start()?;
    let clients = situation
        .connect(&site)
        .map_err(|e| format!("cannot connect the clients: {e}"))?;
    // What the server does after its first answer belongs to neither the start nor the stop.
    thread::sleep(Duration::from_millis(20));
    let family = site.family();
    if situation == Situation::Idle {
        table.add(FIRST_ANSWER, column, start.event.map_or(f64::INFINITY, ms));
        table.add(START_COMMAND, column, ms(start.command));
        let (rss, pss) = watch::memory_mib(&family)?;
        table.add(RSS, column, rss);
        table.add(PSS, column, pss);
        if server.kind == Kind::Hade {
            table.add(STATE_COMMAND, column, ms(site.state()?));
        }
    }
    let stop = site.stop()?;
    drop(clients);
    table.add(
        situation.gone(),
        column,
        stop.event.map_or(f64::INFINITY, ms),
    );
    table.add(situation.command(), column, ms(stop.command));
    Ok(family.len())
}

/// The servers that can be run here; says which cannot.
fn present(hade: Option<PathBuf>) -> Vec<Server> {
    let hade = hade.filter(|path| path.is_file());
    let lighttpd = servers::find("lighttpd");
    let nginx = servers::find("nginx");
    [
        ("hade", "the hade binary", Kind::Hade, hade),
        ("lighttpd", "lighttpd", Kind::Lighttpd, lighttpd),
        ("nginx", "nginx", Kind::Nginx, nginx),
    ]
    .into_iter()
    .filter_map(|(name, needs, kind, program)| servers::installed(name, needs, kind, program))
    .collect()
}

fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'))
        .map_or("model unknown", |(_, model)| model.trim());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = kernel.trim();
    format!("machine: {cores} cores, {model}, Linux {kernel}, load {load} before")
}

/// A counter on the terminal, if there is one, that erases itself at the end.
fn progress(round: usize, rounds: usize) {
    use std::io::IsTerminal;
    let mut stderr = io::stderr();
    if !stderr.is_terminal() {
        return;
    }
    let _ = match round {
        _ if round == rounds => write!(stderr, "\r\x1b[K"),
        _ => write!(stderr, "\rround {} of {rounds}", round + 1),
    };
}

fn verdict(good: bool) -> &'static str {
    if good { "PASS" } else { "FAIL" }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
