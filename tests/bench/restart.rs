//! What clients notice of a restart: hade's `app restart` beside nginx's reload and upgrade, unicorn and puma.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::{Client, Stop, StopLater, Tally, Work};
use crate::servers::{self, Kind, Root, Server, Site};
use crate::table::Table;
use crate::{QUICK_ROUNDS, ROUNDS, ms, throughput};

/// Restarts of one server before the next has its turn.
const IN_A_ROW: usize = 5;
/// The gaps of a restart are those within this time of its begin, or until it is over. The longest of a longer time
/// would be longer, whatever the server does. The same time without a restart is looked at first.
const WINDOW: Duration = Duration::from_millis(400);
/// After each restart at the least, so that every client has asked again.
const AFTER: Duration = Duration::from_millis(50);
const WRK_SECONDS: u32 = 8;
const WRK_CONNECTIONS: usize = 16;
const KEPT: usize = 20;
/// After so many failed restarts a server is left alone, in each part.
const ENOUGH: usize = 3;

const WALL: &str = "restart, ms";
const GAP: &str = "longest gap, ms";
const GAP_WITHOUT: &str = "longest gap without a restart, ms";
const REQUESTS: &str = "requests";
const SHORT: &str = "short answers";
const TOLD: &str = "keep-alive closed, announced";
const UNTOLD: &str = "keep-alive closed, unannounced";
const FAILED_RESTARTS: &str = "restarts that failed";
const WRK_ERRORS: [&str; 5] = [
    "connect errors",
    "read errors",
    "write errors",
    "timeouts",
    "answers other than 2xx",
];
const IDLE: &str = "restart, idle";
const KEEP_ALIVE: &str = "restart, 20 idle keep-alive";
const STATE_IDLE: &str = "state, idle";
const STATE_KEEP_ALIVE: &str = "state, 20 idle keep-alive";
const STATE: &str = "state, ms";

/// One column.
struct Contender<'a> {
    server: &'a Server,
    site: Site<'a>,
    tally: Tally,
    wrk_requests: f64,
    wrk_errors: f64,
    notes: Vec<String>,
}

pub fn run(hade: Option<&Path>, quick: bool) -> Result<(), String> {
    let servers = present(hade);
    if servers.is_empty() {
        return Ok(());
    }
    let wrk = servers::find("wrk");
    let root = Root::new(&servers)?;
    let mut contenders = Vec::new();
    let mut failures = Vec::new();
    for server in &servers {
        let started = Site::new(server, &root.path).and_then(|mut site| {
            site.start()?;
            Ok(site)
        });
        match started {
            Ok(site) => contenders.push(Contender {
                server,
                site,
                tally: Tally::default(),
                wrk_requests: 0.0,
                wrk_errors: 0.0,
                notes: Vec::new(),
            }),
            Err(reason) => failures.push(format!("{}: {reason}", server.name)),
        }
    }

    under_clients(&mut contenders, if quick { QUICK_ROUNDS } else { ROUNDS });
    match wrk {
        Some(wrk) => under_wrk(&wrk, &mut contenders, if quick { 1 } else { 4 }),
        None => println!("wrk: skipped: needs wrk"),
    }
    calm(&mut contenders, if quick { QUICK_ROUNDS } else { ROUNDS });
    per_million(&contenders);

    for mut contender in contenders {
        let name = contender.server.name;
        if let Err(reason) = contender.site.stop() {
            contender.notes.push(reason);
        }
        for note in contender.tally.notes().iter().chain(&contender.notes) {
            println!("{name}: {note}");
        }
        if contender.server.kind == Kind::Demo {
            failures.extend(contender.notes);
            match contender.tally.missed() as f64 + contender.wrk_errors {
                0.0 => {}
                missed => failures.push(format!("hade: {missed} requests failed")),
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("; "))
}

fn present(hade: Option<&Path>) -> Vec<Server> {
    let ruby = |script: &str| servers::find(script).and_then(|_| servers::find("ruby"));
    let nginx = servers::find("nginx");
    let peers = [
        ("nginx-reload", "nginx", Kind::Nginx, nginx.clone()),
        ("nginx-USR2", "nginx", Kind::NginxUsr2, nginx),
        ("unicorn", "unicorn", Kind::Unicorn, ruby("unicorn")),
        ("puma", "puma", Kind::Puma, ruby("puma")),
    ];
    let mut servers = Vec::from_iter(throughput::demo(hade));
    servers.extend(
        peers
            .into_iter()
            .filter_map(|(name, needs, kind, program)| {
                servers::installed(name, needs, kind, program)
            }),
    );
    servers
}

/// The columns in another order each round.
fn turns(round: usize, columns: usize) -> impl Iterator<Item = usize> {
    (0..columns).map(move |turn| (turn + round) % columns)
}

fn table(contenders: &[Contender]) -> Table {
    Table::new(contenders.iter().map(|c| c.server.name).collect())
}

impl Contender<'_> {
    /// One restart. False when the server is not worth another try in this part.
    fn restart(&mut self, table: &mut Table, label: &str, column: usize) -> bool {
        match self.site.restart() {
            Ok(took) => table.add(label, column, took.map_or(f64::INFINITY, ms)),
            Err(reason) => {
                table.add(FAILED_RESTARTS, column, 1.0);
                self.notes.push(format!("restart: {reason}"));
            }
        }
        table.count(FAILED_RESTARTS, column) + table.capped(label, column) < ENOUGH
    }

    fn state(&mut self, table: &mut Table, label: &str, column: usize) {
        if self.server.kind == Kind::Demo {
            match self.site.state() {
                Ok(took) => table.add(label, column, ms(took)),
                Err(reason) => self.notes.push(format!("state: {reason}")),
            }
        }
    }
}

fn under_clients(contenders: &mut [Contender], rounds: usize) {
    let mut table = table(contenders);
    for label in [WALL, GAP, GAP_WITHOUT] {
        table.row(label, 1);
    }
    table.sum(FAILED_RESTARTS, 0);
    table.sum(REQUESTS, 0);
    for work in Work::ALL {
        table.sum(&failed(work), 0);
    }
    for label in [SHORT, TOLD, UNTOLD] {
        table.sum(label, 0);
    }
    let in_a_row = rounds.min(IN_A_ROW);
    let blocks = rounds / in_a_row;
    for block in 0..blocks {
        crate::progress(block, blocks);
        for column in turns(block, contenders.len()) {
            let contender = &mut contenders[column];
            let tally = std::mem::take(&mut contender.tally);
            let stop = Stop::default();
            let client = Client {
                server: contender.server,
                address: contender.site.address,
                tally: &tally,
                stop: &stop,
            };
            thread::scope(|scope| {
                let _stop = StopLater(&stop);
                client.spawn_all(scope);
                thread::sleep(AFTER);
                tally.take_gap();
                thread::sleep(WINDOW);
                table.add(GAP_WITHOUT, column, tally.take_gap());
                for _ in 0..in_a_row {
                    let begun = Instant::now();
                    let again = contender.restart(&mut table, WALL, column);
                    thread::sleep(WINDOW.saturating_sub(begun.elapsed()).max(AFTER));
                    table.add(GAP, column, tally.take_gap());
                    if !again {
                        break;
                    }
                }
            });
            contender.tally = tally;
        }
    }
    crate::progress(blocks, blocks);
    for (column, contender) in contenders.iter().enumerate() {
        let tally = &contender.tally;
        let mut add = |label: &str, count: u64| table.add(label, column, count as f64);
        add(REQUESTS, tally.asked());
        for work in Work::ALL {
            if tally.requests[work as usize].load(Relaxed) > 0 {
                add(&failed(work), tally.failed[work as usize].load(Relaxed));
            }
        }
        add(SHORT, tally.short.load(Relaxed));
        add(TOLD, tally.closed_told.load(Relaxed));
        add(UNTOLD, tally.closed_untold.load(Relaxed));
        add(FAILED_RESTARTS, 0);
    }
    println!(
        "\n{rounds} restarts, {in_a_row} in a row, servers taken in turn, under 10 clients that pause 1 ms between \
         requests: 4 with new connections,\n4 with keep-alive, 1 with POST bodies in parts, 1 with downloads of 2 and \
         16 MB in 0.3 s; median (min-max) where there are several.\nRestart: hade's command; for the others until the \
         old processes are gone and the new ones answer. Gaps are those of the first 8 clients, pause included,\n\
         within 0.4 s of the begin of a restart, or until it is over."
    );
    table.print(rounds);
}

fn failed(work: Work) -> String {
    format!("failed, {}", work.name())
}

fn under_wrk(wrk: &Path, contenders: &mut [Contender], runs: usize) {
    let mut table = table(contenders);
    table.row(WALL, 1);
    table.row(STATE, 1);
    table.sum(FAILED_RESTARTS, 0);
    table.sum(REQUESTS, 0);
    for label in WRK_ERRORS {
        table.sum(label, 0);
    }
    for run in 0..runs {
        crate::progress(run, runs);
        for column in turns(run, contenders.len()) {
            let contender = &mut contenders[column];
            let address = contender.site.address;
            let path = contender.server.path();
            let report = thread::scope(|scope| {
                let load = scope.spawn(|| put_on(wrk, &format!("http://{address}{path}")));
                let begun = Instant::now();
                for turn in 0..IN_A_ROW {
                    let due = Duration::from_millis(500) + Duration::from_secs(turn as u64);
                    thread::sleep(due.saturating_sub(begun.elapsed()));
                    // Those for which there is no time left are missing from the count.
                    if load.is_finished() || !contender.restart(&mut table, WALL, column) {
                        break;
                    }
                    contender.state(&mut table, STATE, column);
                }
                load.join()
            });
            match report {
                Ok(Ok((requests, errors))) => {
                    table.add(REQUESTS, column, requests);
                    contender.wrk_requests += requests;
                    for (label, count) in WRK_ERRORS.into_iter().zip(errors) {
                        table.add(label, column, count);
                        contender.wrk_errors += count;
                    }
                }
                Ok(Err(reason)) => contender.notes.push(reason),
                Err(_) => contender.notes.push("wrk: its thread panicked".to_string()),
            }
            table.add(FAILED_RESTARTS, column, 0.0);
        }
    }
    crate::progress(runs, runs);
    println!(
        "\n{runs} runs of wrk -c{WRK_CONNECTIONS} -t1 -d{WRK_SECONDS}s, each across {IN_A_ROW} restarts; errors as wrk counts them"
    );
    table.print(IN_A_ROW * runs);
}

/// The requests, and the errors in the order of `WRK_ERRORS`.
fn put_on(wrk: &Path, url: &str) -> Result<(f64, [f64; 5]), String> {
    let output = Command::new(wrk)
        .arg(format!("-c{WRK_CONNECTIONS}"))
        .args(["-t1", &format!("-d{WRK_SECONDS}s"), url])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run wrk: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    read_report(&text).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("wrk: {}: {} {}", output.status, text.trim(), said.trim())
    })
}

/// "812 requests in 6.00s, …"; lines of errors are there only when there are errors.
fn read_report(text: &str) -> Option<(f64, [f64; 5])> {
    let mut lines = text.lines().map(str::trim);
    let requests = lines
        .clone()
        .find_map(|line| line.split_once(" requests in "))?;
    let mut errors = [0.0; 5];
    if let Some(line) = lines
        .clone()
        .find_map(|line| line.strip_prefix("Socket errors:"))
    {
        for (error, word) in errors.iter_mut().zip(line.split(',')) {
            *error = word.split_whitespace().last()?.parse().ok()?;
        }
    }
    if let Some(count) = lines.find_map(|line| line.strip_prefix("Non-2xx or 3xx responses:")) {
        errors[4] = count.trim().parse().ok()?;
    }
    Some((requests.0.parse().ok()?, errors))
}

/// Restarts with nothing else to do.
fn calm(contenders: &mut [Contender], rounds: usize) {
    let mut table = table(contenders);
    for label in [IDLE, KEEP_ALIVE, STATE_IDLE, STATE_KEEP_ALIVE] {
        table.row(label, 2);
    }
    table.sum(FAILED_RESTARTS, 0);
    for round in 0..rounds {
        crate::progress(round, rounds);
        for column in turns(round, contenders.len()) {
            let contender = &mut contenders[column];
            contender.state(&mut table, STATE_IDLE, column);
            contender.restart(&mut table, IDLE, column);
            if table.capped(KEEP_ALIVE, column) >= ENOUGH {
                continue;
            }
            let kept: Result<Vec<TcpStream>, _> = (0..KEPT)
                .map(|_| contender.site.connect_and_get())
                .collect();
            match kept {
                Ok(kept) => {
                    contender.state(&mut table, STATE_KEEP_ALIVE, column);
                    contender.restart(&mut table, KEEP_ALIVE, column);
                    drop(kept);
                }
                Err(e) => contender.notes.push(format!("20 keep-alive: {e}")),
            }
        }
    }
    crate::progress(rounds, rounds);
    println!("\nnobody else there; ms");
    for column in 0..contenders.len() {
        table.add(FAILED_RESTARTS, column, 0.0);
    }
    table.print(rounds);
}

/// Both kinds of load together.
fn per_million(contenders: &[Contender]) {
    let shares = contenders.iter().map(|contender| {
        let missed = contender.tally.missed() as f64 + contender.wrk_errors;
        let asked = contender.tally.asked() as f64 + contender.wrk_requests;
        let name = contender.server.name;
        format!(
            "{name} {:.2} ({missed} of {asked})",
            missed * 1e6 / asked.max(1.0)
        )
    });
    let shares: Vec<String> = shares.collect();
    println!(
        "\nfailures per million requests, the clients' and wrk's together: {}",
        shares.join(", ")
    );
}
