//! What normal clients notice of an attack: `slowhttptest` in its four modes on hade, nginx and plain tiny_http, while
//! 200 paced requests per second are answered, on kept connections and on fresh ones.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::{HELLO, Stop, StopLater};
use crate::contenders::{self, Contender, Running};
use crate::servers::{self, Root, SLOW_READ};
use crate::table::Table;
use crate::watch::{self, Footprint};
use crate::wire::Wire;
use crate::{Wish, ms};

/// Normal clients of each kind: those that keep their connection, and those that take a new one for each request.
const PAIRS: u32 = 4;
/// Between two requests of one of them: 200 requests per second in all.
const STEP: Duration = Duration::from_millis(40);
/// Seconds in which an attack opens its connections.
const RISE: usize = 4;
/// Connections of one slowhttptest: it opens only some hundred a second when it has many, too slow for a server that
/// closes them after ten seconds.
const EACH: usize = 1000;
/// Who ends sooner than this has attacked nobody.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Between two looks at the server.
const LOOK: Duration = Duration::from_secs(1);
/// How many times slower the slowest in a hundred may become.
const SLOWER: f64 = 3.0;
/// Failures that are described, of each run.
const NOTES: usize = 4;

const REQUESTS: [&str; 2] = ["requests before", "requests during"];
const FAILED: [&str; 2] = ["failed before", "failed during"];
const P50: [&str; 2] = ["p50 before, ms", "p50 during, ms"];
const P99: [&str; 2] = ["p99 before, ms", "p99 during, ms"];
const MOST: [&str; 2] = ["longest before, ms", "longest during, ms"];
const RATIO: &str = "p99 during / before";
const OPEN: &str = "open connections, peak";
const THREADS: [&str; 2] = ["worker threads before", "worker threads, peak"];
const RSS: [&str; 2] = ["worker RSS before, MiB", "worker RSS, peak, MiB"];
const KERNEL: [&str; 2] = [
    "kernel's TCP memory before, MiB",
    "kernel's TCP memory, peak, MiB",
];
const DESCRIPTORS: [&str; 2] = ["worker descriptors before", "worker descriptors, peak"];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    SlowHead,
    SlowBody,
    Ranges,
    SlowRead,
}

impl Mode {
    const ALL: [Self; 4] = [Self::SlowHead, Self::SlowBody, Self::Ranges, Self::SlowRead];

    fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "slow heads, -H",
            Self::SlowBody => "slow bodies, -B",
            Self::Ranges => "many ranges, -R",
            Self::SlowRead => "slow reading, -X",
        }
    }

    /// The words for slowhttptest, and what is asked for.
    fn words(self, contender: &Contender) -> (&'static str, String) {
        let path = contender.path().to_string();
        let echo = contender.server().and_then(|server| server.echo());
        match self {
            Self::SlowHead => ("-H -i 5 -x 24 -t GET", path),
            Self::SlowBody => (
                "-B -i 5 -x 10 -s 8192 -t POST",
                echo.map_or(path, str::to_string),
            ),
            Self::Ranges => ("-R -t HEAD -a 10 -b 3000", path),
            Self::SlowRead => (
                "-X -w 512 -y 1024 -n 5 -z 32 -k 3",
                contender.file(SLOW_READ),
            ),
        }
    }

    /// MiB that the answers may take, in the server and in the kernel.
    fn needs_mib(self, connections: usize) -> usize {
        match self {
            Self::SlowRead => connections * 2 * SLOW_READ / (1 << 20),
            _ => 0,
        }
    }
}

struct Plan {
    programs: [PathBuf; 2],
    connections: [usize; 2],
    before: Duration,
    during: Duration,
}

pub fn run(hade: Option<&Path>, wish: &Wish) -> Result<(), String> {
    let Some(slow) = servers::find("slowhttptest") else {
        println!("attack: skipped: needs slowhttptest");
        return Ok(());
    };
    let chrt = servers::find("chrt").ok_or("cannot find chrt")?;
    let seconds = Duration::from_secs;
    let plan = Plan {
        programs: [chrt, slow],
        connections: if wish.quick { [200, 0] } else { [1000, 5000] },
        before: seconds(if wish.quick { 3 } else { 10 }),
        during: seconds(if wish.quick { 10 } else { 60 }),
    };
    let contenders = contenders::present(hade, wish.alone);
    let root = Root::new(contenders.iter().filter_map(Contender::server))?;
    println!(
        "one run each: {} s without, {} s with the attack, which begins anew whenever the server has closed all of its\n\
         connections, and has the processor when nobody else wants it, as if it came from elsewhere; 200 paced requests per\n\
         second from {PAIRS} clients that keep their connection and {PAIRS} with fresh ones",
        plan.before.as_secs(),
        plan.during.as_secs()
    );
    let mut verdicts = Vec::new();
    let mut failed = 0;
    for mode in Mode::ALL {
        for connections in plan.connections.into_iter().filter(|n| *n > 0) {
            let case = format!("{connections} connections, {}", mode.name());
            let available = available_mib();
            if mode.needs_mib(connections) > available {
                println!("\n{case}: skipped: {available} MiB of memory are not enough");
                continue;
            }
            let mut table = new_table(&contenders);
            let mut notes = Vec::new();
            for (column, contender) in contenders.iter().enumerate() {
                let seen = plan.measure(contender, &root.path, mode, connections);
                match seen {
                    Ok(seen) => {
                        seen.put_in(&mut table, column);
                        let lines = seen.client.iter().flat_map(|seen| &seen.notes);
                        notes.extend(lines.map(|note| format!("{}: {note}", contender.name())));
                        // What asks for many ranges is answered and over.
                        if mode != Mode::Ranges && seen.open * 10 < connections * 9 {
                            notes.push(format!(
                                "{}: weaker than meant, {} connections at the peak",
                                contender.name(),
                                seen.open
                            ));
                        }
                        if contender.is_hade() {
                            failed += seen.client.iter().map(|seen| seen.failed).sum::<u64>();
                            verdicts.extend(seen.verdicts(&case));
                        }
                    }
                    Err(reason) if contender.is_hade() => return Err(reason),
                    Err(reason) => notes.push(reason),
                }
            }
            println!("\n{case}");
            table.print(1);
            notes.iter().for_each(|note| println!("{note}"));
        }
    }
    println!(
        "\nthe kernel's TCP memory is the whole machine's; from {} MiB on no socket of anybody gets any more",
        watch::tcp_memory_limit_mib()
    );
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    match failed {
        0 => Ok(()),
        failed => Err(format!("hade: {failed} requests failed")),
    }
}

fn new_table(contenders: &[Contender]) -> Table {
    let mut table = Table::new(contenders.iter().map(Contender::name).collect());
    let mut declare = |labels: &[&str], decimals| {
        labels.iter().for_each(|label| table.sum(label, decimals));
    };
    declare(&REQUESTS, 0);
    declare(&FAILED, 0);
    for labels in [P50, P99, MOST] {
        declare(&labels, 2);
    }
    declare(&[RATIO], 2);
    declare(&[OPEN], 0);
    declare(&THREADS, 0);
    declare(&RSS, 2);
    declare(&DESCRIPTORS, 0);
    declare(&KERNEL, 0);
    table
}

/// Of this machine; without a limit where it is not told.
fn available_mib() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map_or(usize::MAX, |kib: usize| kib / 1024)
}

/// One run; where there are two, before the attack and during it.
struct Seen {
    client: [Client; 2],
    cost: [Footprint; 2],
    kernel_mib: [f64; 2],
    open: usize,
}

impl Plan {
    fn measure(
        &self,
        contender: &Contender,
        root: &Path,
        mode: Mode,
        connections: usize,
    ) -> Result<Seen, String> {
        let running = contender.start(root, &[])?;
        let address = running.address();
        let before = normal_clients(address, contender.path(), || {
            thread::sleep(self.before);
        });
        let mut seen = Seen {
            client: [before, Client::default()],
            cost: [Footprint::default(); 2],
            kernel_mib: [watch::tcp_memory_mib(); 2],
            open: 0,
        };
        if let Some(cost) = running.worker().and_then(watch::footprint) {
            seen.cost = [cost; 2];
        }
        let mut outcome = Ok(());
        let (cost, open) = (&mut seen.cost[1], &mut seen.open);
        let kernel_mib = &mut seen.kernel_mib[1];
        seen.client[1] = normal_clients(address, contender.path(), || {
            outcome = self.attack(contender, &running, mode, connections, |now, count| {
                cost.rss_mib = cost.rss_mib.max(now.rss_mib);
                cost.threads = cost.threads.max(now.threads);
                cost.descriptors = cost.descriptors.max(now.descriptors);
                *kernel_mib = kernel_mib.max(watch::tcp_memory_mib());
                *open = (*open).max(count);
            });
        });
        outcome.map(|()| seen)
    }

    /// Goes on until the time is over, looking at the server meanwhile.
    fn attack(
        &self,
        contender: &Contender,
        running: &Running,
        mode: Mode,
        connections: usize,
        mut look: impl FnMut(Footprint, usize),
    ) -> Result<(), String> {
        let (words, path) = mode.words(contender);
        let url = format!("http://{}{path}", running.address());
        let begun = Instant::now();
        let mut next_look = begun;
        let count = connections.div_ceil(EACH);
        let mut attackers: Vec<Option<Attacker>> = (0..count).map(|_| None).collect();
        while begun.elapsed() < self.during {
            if Instant::now() >= next_look {
                next_look += LOOK;
                let open = watch::open_connections(running.address());
                if let Some(now) = running.worker().and_then(watch::footprint) {
                    look(now, open);
                }
            }
            for attacker in &mut attackers {
                if let Some(running) = attacker {
                    let ended = running.child.try_wait().map_err(|e| e.to_string())?;
                    match ended {
                        None => continue,
                        Some(status) if running.since.elapsed() < AT_ONCE => {
                            return Err(format!("slowhttptest: {status} at once"));
                        }
                        Some(_) => {}
                    }
                }
                let left = self.during.saturating_sub(begun.elapsed());
                let mut command = Command::new(&self.programs[0]);
                command.args(["--idle", "0"]).arg(&self.programs[1]);
                command.args(["-c", &(connections / count).to_string()]);
                command.args(["-r", &(connections / count / RISE).to_string()]);
                command.args(["-l", &(left.as_secs() + 1).to_string()]);
                command.args(["-p", "5", "-u", &url]).args(words.split(' '));
                command.stdin(Stdio::null()).stdout(Stdio::null());
                let child = command.stderr(Stdio::null()).spawn();
                *attacker = Some(Attacker {
                    child: child.map_err(|e| format!("cannot run slowhttptest: {e}"))?,
                    since: Instant::now(),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Killed when dropped; by itself it ends a second after the attack.
struct Attacker {
    child: Child,
    since: Instant,
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the normal clients met.
#[derive(Default)]
struct Client {
    /// Of answered requests, in ms, the shortest first once all have ended.
    times: Vec<f64>,
    failed: u64,
    notes: Vec<String>,
}

/// The normal clients, at work while something is done.
fn normal_clients(address: SocketAddr, path: &str, meanwhile: impl FnOnce()) -> Client {
    let stop = Stop::default();
    let mut sum = Client::default();
    thread::scope(|scope| {
        let clients = (0..2 * PAIRS).map(|number| {
            let stop = &stop;
            scope.spawn(move || client(address, path, number, stop))
        });
        let clients = Vec::from_iter(clients);
        let stopper = StopLater(&stop);
        meanwhile();
        drop(stopper);
        for client in clients {
            let seen = client.join().expect("a client does not panic");
            sum.times.extend(seen.times);
            sum.failed += seen.failed;
            sum.notes.extend(seen.notes);
        }
    });
    sum.times.sort_by(f64::total_cmp);
    sum.notes.truncate(NOTES);
    sum
}

fn client(address: SocketAddr, path: &str, number: u32, stop: &Stop) -> Client {
    let connection = ["keep-alive", "close"][number as usize % 2];
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {connection}\r\n\r\n");
    let mut seen = Client::default();
    let mut kept: Option<Wire> = None;
    let begun = Instant::now();
    let mut due = begun + STEP * number / (2 * PAIRS);
    while !stop.is_set() {
        // Who waited for an answer beyond the time of the next request counts from then: the server kept it waiting.
        // Who woke late does not: that was the processor.
        let wait = due.saturating_duration_since(Instant::now());
        thread::sleep(wait);
        let from = if wait.is_zero() { due } else { Instant::now() };
        due += STEP;
        let mut ask = || {
            let mut wire = kept.take().map_or_else(|| Wire::to(address), Ok)?;
            wire.send(&request)?;
            let answer = wire.answer()?;
            if (answer.status, answer.body.as_slice()) != (200, HELLO) {
                return Err(format!("answered {}", answer.status));
            }
            kept = (connection == "keep-alive" && !answer.closes).then_some(wire);
            Ok(())
        };
        match ask() {
            Ok(()) => seen.times.push(ms(from.elapsed())),
            Err(fault) => {
                seen.failed += 1;
                let (at, took) = (begun.elapsed().as_secs_f64(), ms(from.elapsed()));
                seen.notes.push(format!(
                    "{connection}: {fault} (at {at:.1} s, after {took:.0} ms)"
                ));
            }
        }
    }
    seen
}

impl Client {
    /// The time within which this share of the answers came.
    fn within(&self, share: f64) -> f64 {
        let index = (self.times.len() as f64 * share).ceil() as usize;
        let time = self.times.get(index.saturating_sub(1));
        time.copied().unwrap_or(f64::INFINITY)
    }
}

impl Seen {
    fn ratio(&self) -> f64 {
        self.client[1].within(0.99) / self.client[0].within(0.99)
    }

    fn put_in(&self, table: &mut Table, column: usize) {
        for when in 0..2 {
            let (client, cost) = (&self.client[when], &self.cost[when]);
            let asked = client.times.len() as u64 + client.failed;
            for (label, value) in [
                (REQUESTS, asked as f64),
                (FAILED, client.failed as f64),
                (P50, client.within(0.5)),
                (P99, client.within(0.99)),
                (MOST, client.within(1.0)),
                (THREADS, cost.threads as f64),
                (RSS, cost.rss_mib),
                (DESCRIPTORS, cost.descriptors as f64),
                (KERNEL, self.kernel_mib[when]),
            ] {
                table.add(label[when], column, value);
            }
        }
        table.add(RATIO, column, self.ratio());
        table.add(OPEN, column, self.open as f64);
    }

    fn verdicts(&self, case: &str) -> [String; 2] {
        let failed = self.client[0].failed + self.client[1].failed;
        let asked = self.client[1].times.len() as u64 + self.client[1].failed;
        let ratio = self.ratio();
        [
            format!(
                "{} {case}: {failed} requests failed, {asked} during the attack",
                crate::verdict(failed == 0)
            ),
            format!(
                "{} {case}: p99 {ratio:.2} times of that without it, at most {SLOWER}",
                crate::verdict(ratio <= SLOWER)
            ),
        ]
    }
}
