//! Mixed load on hade for an hour with a restart a minute: nothing may fail, and nothing may grow. What the clients do
//! is the table `KINDS`; a line per restart says how master and worker are, and each failure has a line of its own.
//!
//! A failure is a request sent whole whose answer did not come whole and right, a connection refused or reset, and a
//! kept connection that the server closes without having said so in its last answer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::{HELLO, Stop, StopLater};
use crate::servers::{Root, Site};
use crate::watch::{self, Footprint};
use crate::wire::{Answer, Wire};
use crate::{Wish, ms, throughput, verdict};

const SECONDS: u64 = 3600;
const QUICK_SECONDS: u64 = 120;
const BETWEEN_RESTARTS: u64 = 60;
const QUICK_BETWEEN_RESTARTS: u64 = 10;
/// Looks between two restarts, and in all, at the least.
const LOOKS: u32 = 6;
const LOOKS_IN_ALL: u32 = 40;
/// Bytes of an upload, at the least and at the most.
const UPLOADS: [usize; 2] = [1000, 500_000];
/// Bytes of an answer that is read slowly: more than the kernel's buffers take.
const BIG: usize = 8_000_000;
const BIG_MIB: f64 = BIG as f64 / 1_048_576.0;
/// Bytes of an answer that nobody reads to the end.
const UNREAD: usize = 300_000;
/// What a slow client takes for it: less than a drain may last.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_PARTS: usize = 10;
/// Requests sent at once.
const PIPELINED: usize = 8;
/// Connections that are used in turn, so that each is idle for most of the time.
const IDLE: usize = 200;
/// Failures that are described.
const NOTES: u64 = 200;

/// What a client does over and over.
struct Kind {
    name: &'static str,
    clients: u32,
    /// Times per second, each client.
    pace: f64,
    /// Whether it asks for little, so that the time is the server's.
    is_short: bool,
    turn: fn(&mut Client) -> Result<(), String>,
}

const fn kind(
    name: &'static str,
    clients: u32,
    pace: f64,
    is_short: bool,
    turn: fn(&mut Client) -> Result<(), String>,
) -> Kind {
    Kind {
        name,
        clients,
        pace,
        is_short,
        turn,
    }
}

/// About 2000 requests per second.
const KINDS: [Kind; 12] = [
    kind("keep-alive", 8, 100.0, true, Client::keep_alive),
    kind("fresh", 4, 75.0, true, Client::fresh),
    kind("pipelined", 2, 25.0, true, Client::pipelined),
    kind("HEAD", 1, 100.0, true, Client::head),
    kind("unknown path", 1, 100.0, true, Client::unknown_path),
    kind("idle keep-alive", 1, 10.0, true, Client::idle),
    kind("upload", 2, 25.0, true, Client::upload),
    kind("chunked upload", 2, 25.0, true, Client::chunked_upload),
    kind("slow upload", 2, 0.5, false, Client::slow_upload),
    kind("slow chunks", 2, 0.5, false, Client::slow_chunks),
    kind("slow reading", 2, 0.5, false, Client::slow_reading),
    kind("aborting", 2, 10.0, false, Client::aborting),
];

/// What all clients know.
struct Shared {
    address: SocketAddr,
    stop: Stop,
    begun: Instant,
    /// The last restart's number and begin, and its end once it is over.
    restart: Mutex<(u64, Instant, Option<Instant>)>,
    requests: [AtomicU64; KINDS.len()],
    failures: AtomicU64,
    /// Of the short ones, since this was last asked.
    longest_micros: AtomicU64,
}

pub fn run(hade: Option<&Path>, wish: &Wish) -> Result<(), String> {
    let Some(server) = throughput::demo(hade) else {
        return Ok(());
    };
    let asked = |index: usize, quick, usual| {
        let default = if wish.quick { quick } else { usual };
        wish.seconds.get(index).copied().unwrap_or(default)
    };
    let length = Duration::from_secs(asked(0, QUICK_SECONDS, SECONDS));
    let every = Duration::from_secs(asked(1, QUICK_BETWEEN_RESTARTS, BETWEEN_RESTARTS));
    let root = Root::new([&server])?;
    let mut site = Site::new(&server, &root.path)?;
    site.start()?;
    let now = Instant::now();
    let shared = Arc::new(Shared {
        address: site.address,
        stop: Stop::default(),
        begun: now,
        restart: Mutex::new((0, now, Some(now))),
        requests: Default::default(),
        failures: AtomicU64::new(0),
        longest_micros: AtomicU64::new(0),
    });
    println!(
        "{} s of mixed load, a restart every {} s; memory is RSS/PSS in MiB, longest the longest short request since\n\
         the line before",
        length.as_secs(),
        every.as_secs()
    );
    let seen = thread::scope(|scope| {
        let _stop = StopLater(&shared.stop);
        for (number, kind) in KINDS.iter().enumerate() {
            for client in 0..kind.clients {
                let mut client = Client::new(&shared, number, client);
                scope.spawn(move || client.work());
            }
        }
        supervise(&shared, &mut site, length, every)
    });
    site.stop()?;
    seen.report(&shared)
}

/// One look.
#[derive(Clone, Copy)]
struct Look {
    /// Before it.
    restarts: u64,
    master: Footprint,
    worker: Footprint,
    open: usize,
}

#[derive(Default)]
struct Seen {
    looks: Vec<Look>,
    restarts: u64,
    failed_restarts: u64,
    slowest_restart: Duration,
}

/// Restarts and looks until the time is over. Looks are spread evenly between restarts, none next to one.
fn supervise(shared: &Shared, site: &mut Site, length: Duration, every: Duration) -> Seen {
    let mut seen = Seen::default();
    let step = (every / LOOKS).min(length / LOOKS_IN_ALL);
    let mut next_look = step / 2;
    let mut next_restart = every;
    loop {
        let due = next_look.min(next_restart);
        if due >= length {
            thread::sleep(length.saturating_sub(shared.begun.elapsed()));
            return seen;
        }
        thread::sleep(due.saturating_sub(shared.begun.elapsed()));
        if due == next_look {
            // One that is late takes the place of those it has missed: a restart is not to wait for them.
            next_look = (next_look + step).max(shared.begun.elapsed());
            let worker = site.worker().and_then(watch::footprint);
            if let Some((master, worker)) = watch::footprint(site.master()).zip(worker) {
                let open = watch::open_connections(shared.address);
                seen.looks.push(Look {
                    restarts: seen.restarts,
                    master,
                    worker,
                    open,
                });
            }
            if next_look > next_restart {
                shared.say(&seen);
            }
        } else {
            next_restart += every;
            seen.restart(shared, site);
        }
    }
}

impl Seen {
    fn restart(&mut self, shared: &Shared, site: &mut Site) {
        self.restarts += 1;
        let begun = Instant::now();
        shared.set_restart((self.restarts, begun, None));
        let outcome = site.restart();
        shared.set_restart((self.restarts, begun, Some(Instant::now())));
        self.slowest_restart = self.slowest_restart.max(begun.elapsed());
        let fault = match outcome {
            Ok(Some(_)) => return,
            Ok(None) => "it does not answer".to_string(),
            Err(reason) => reason,
        };
        self.failed_restarts += 1;
        println!("FAILED restart {}: {fault}", self.restarts);
    }

    fn report(&self, shared: &Shared) -> Result<(), String> {
        // A master that was started is not like one that was restarted.
        let is_usual = |look: &&Look| look.restarts >= self.restarts.min(1);
        let looks = Vec::from_iter(self.looks.iter().filter(is_usual).copied());
        let quarter = looks.len() / 4;
        if quarter == 0 {
            return Err("too short: there are not four looks to compare".to_string());
        }
        let counts = KINDS.iter().zip(&shared.requests);
        let counts = counts.map(|(kind, count)| format!("{} {}", kind.name, count.load(Relaxed)));
        println!("requests: {}", Vec::from_iter(counts).join(", "));
        println!("medians of the first and the last {quarter} looks since the first restart:");
        let (first, last) = (&looks[..quarter], &looks[looks.len() - quarter..]);
        let mut grown = 0;
        for (name, is_steady, slack, value) in MEASURES {
            let sorted = |looks: &[Look]| {
                let mut values = Vec::from_iter(looks.iter().map(value));
                values.sort_by(f64::total_cmp);
                values
            };
            let (first, last) = (sorted(first), sorted(last));
            let judged = if is_steady { quarter / 2 } else { 0 };
            let good = last[judged] <= first[judged] * 1.1 + slack;
            grown += u32::from(!good);
            println!(
                "{} {name}: {:.2}, then {:.2}; the least {:.2}, then {:.2}",
                verdict(good),
                first[quarter / 2],
                last[quarter / 2],
                first[0],
                last[0]
            );
        }
        let open = self.looks.iter().map(|look| look.open);
        let (least, most) = (open.clone().min(), open.max());
        let failed = shared.failures.load(Relaxed);
        println!(
            "open connections: {} to {}; slowest restart {:.0} ms",
            least.unwrap_or_default(),
            most.unwrap_or_default(),
            ms(self.slowest_restart)
        );
        println!(
            "{} {failed} of {} requests failed",
            verdict(failed == 0),
            shared.total()
        );
        println!(
            "{} {} of {} restarts failed",
            verdict(self.failed_restarts == 0),
            self.failed_restarts,
            self.restarts
        );
        match (failed, self.failed_restarts, grown) {
            (0, 0, 0) => Ok(()),
            (failed, restarts, grown) => Err(format!(
                "{failed} requests and {restarts} restarts failed, {grown} measures grew"
            )),
        }
    }
}

/// What must not grow by more than a tenth and a slack for small numbers: the median of what is steady. A worker's
/// memory goes up and down with the big answers; there it is the least, for what leaks does not go away again.
type Measure = (&'static str, bool, f64, fn(&Look) -> f64);
const MEASURES: [Measure; 8] = [
    ("master RSS, MiB", true, 0.25, |look| look.master.rss_mib),
    ("master PSS, MiB", true, 0.25, |look| look.master.pss_mib),
    ("master descriptors", true, 0.0, |look| {
        look.master.descriptors as f64
    }),
    ("master threads", true, 0.0, |look| {
        look.master.threads as f64
    }),
    ("worker RSS, MiB", false, BIG_MIB / 2.0, |look| {
        look.worker.rss_mib
    }),
    ("worker PSS, MiB", false, BIG_MIB / 2.0, |look| {
        look.worker.pss_mib
    }),
    ("worker descriptors", true, 5.0, |look| {
        look.worker.descriptors as f64
    }),
    ("worker threads", true, 2.0, |look| {
        look.worker.threads as f64
    }),
];

impl Shared {
    fn total(&self) -> u64 {
        self.requests.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn set_restart(&self, restart: (u64, Instant, Option<Instant>)) {
        if let Ok(mut last) = self.restart.lock() {
            *last = restart;
        }
    }

    fn say(&self, seen: &Seen) {
        let Some(look) = seen.looks.last() else {
            return;
        };
        let process = |cost: &Footprint| {
            format!(
                "{:.2}/{:.2}, {} descriptors, {} threads",
                cost.rss_mib, cost.pss_mib, cost.descriptors, cost.threads
            )
        };
        println!(
            "{:5.0} s: {} requests, {} failed, {} restarts, longest {:.1} ms, {} open; master {}; worker {}",
            self.begun.elapsed().as_secs_f64(),
            self.total(),
            self.failures.load(Relaxed),
            seen.restarts,
            self.longest_micros.swap(0, Relaxed) as f64 / 1000.0,
            look.open,
            process(&look.master),
            process(&look.worker)
        );
    }

    fn count_failure(&self, name: &str, from: Instant, fault: &str) {
        if self.failures.fetch_add(1, Relaxed) >= NOTES {
            return;
        }
        let (number, begun, ended) = self.restart.lock().map_or((0, from, None), |last| *last);
        let since = |then: Instant, now: Instant| {
            let sign = if then > now { "-" } else { "+" };
            let time = now.max(then).duration_since(now.min(then));
            format!("{sign}{:.1} ms", ms(time))
        };
        let now = Instant::now();
        let end = ended.map_or_else(
            || "not over yet".to_string(),
            |ended| format!("over at {}", since(begun, ended)),
        );
        println!(
            "FAILED at {:.3} s: {name}: {fault}; from {} to {} of restart {number}, {end}",
            self.begun.elapsed().as_secs_f64(),
            since(begun, from),
            since(begun, now)
        );
    }
}

/// One client.
struct Client {
    shared: Arc<Shared>,
    kind: usize,
    /// Connections kept, the one used next in front.
    kept: Vec<Wire>,
    turns: usize,
    random: u64,
    body: Vec<u8>,
}

impl Client {
    fn new(shared: &Arc<Shared>, kind: usize, number: u32) -> Self {
        let seed = 1 + kind as u64 * 1000 + u64::from(number);
        Self {
            shared: Arc::clone(shared),
            kind,
            kept: Vec::new(),
            turns: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            body: (0..UPLOADS[1]).map(|n| b'a' + (n % 23) as u8).collect(),
        }
    }

    fn work(&mut self) {
        let kind = &KINDS[self.kind];
        let step = Duration::from_secs_f64(1.0 / kind.pace);
        let mut due = Instant::now() + step.mul_f64(self.below(1000) as f64 / 1000.0);
        while !self.shared.stop.is_set() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let from = Instant::now();
            // Who was late does not hurry afterwards.
            due = from.max(due) + step;
            self.turns += 1;
            let outcome = (kind.turn)(self);
            if kind.is_short {
                let micros = from.elapsed().as_micros() as u64;
                self.shared.longest_micros.fetch_max(micros, Relaxed);
            }
            if let Err(fault) = outcome {
                self.shared.count_failure(kind.name, from, &fault);
            }
        }
    }

    /// A number below this one, of xorshift's.
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % limit
    }

    fn connect(&self) -> Result<Wire, String> {
        Wire::to(self.shared.address)
    }

    /// The connection kept longest, or a new one.
    fn wire(&mut self) -> Result<Wire, String> {
        match self.kept.is_empty() {
            true => self.connect(),
            false => Ok(self.kept.remove(0)),
        }
    }

    /// Counts a request that is about to be sent whole.
    fn count(&self) {
        self.shared.requests[self.kind].fetch_add(1, Relaxed);
    }

    /// Looks at an answer, and keeps the connection unless it was said that it will be closed.
    fn check(&mut self, wire: Wire, answer: &Answer, expected: &[u8]) -> Result<(), String> {
        right(answer, 200, expected)?;
        if !answer.closes {
            self.kept.push(wire);
        }
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), String> {
        let wire = self.wire()?;
        self.hello(wire)
    }

    fn hello(&mut self, mut wire: Wire) -> Result<(), String> {
        self.count();
        wire.send(get("/hello", ""))?;
        let answer = wire.answer()?;
        self.check(wire, &answer, HELLO)
    }

    fn fresh(&mut self) -> Result<(), String> {
        self.count();
        let mut wire = self.connect()?;
        wire.send(get("/hello", "Connection: close\r\n"))?;
        right(&wire.answer()?, 200, HELLO)
    }

    /// An answer that announces the end of the connection may be the last one: the requests behind it count no more.
    fn pipelined(&mut self) -> Result<(), String> {
        let mut wire = self.wire()?;
        let mut requests = String::new();
        let sizes: Vec<usize> = (0..PIPELINED).map(|_| self.below(3000)).collect();
        for size in &sizes {
            requests += &get(&format!("/bytes?n={size}"), "");
        }
        wire.send(&requests)?;
        for (number, size) in sizes.into_iter().enumerate() {
            self.count();
            let answer = wire
                .answer()
                .map_err(|e| format!("{e}, {number} answered before"))?;
            right(&answer, 200, &vec![b'x'; size])?;
            if answer.closes {
                return Ok(());
            }
        }
        self.kept.push(wire);
        Ok(())
    }

    fn head(&mut self) -> Result<(), String> {
        self.count();
        let mut wire = self.wire()?;
        wire.send("HEAD /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
        let answer = wire.bodiless_answer()?;
        if answer.length != HELLO.len() {
            return Err(format!("HEAD was answered with length {}", answer.length));
        }
        self.check(wire, &answer, b"")
    }

    fn unknown_path(&mut self) -> Result<(), String> {
        self.count();
        let mut wire = self.wire()?;
        wire.send(get("/nowhere", ""))?;
        let answer = wire.answer()?;
        if answer.status != 404 {
            return Err(format!("answered {} instead of 404", answer.status));
        }
        if !answer.closes {
            self.kept.push(wire);
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), String> {
        // All of them at first: a connection may be silent for long only after a request.
        while self.kept.len() < IDLE {
            let wire = self.connect()?;
            self.hello(wire)?;
        }
        self.keep_alive()
    }

    fn upload(&mut self) -> Result<(), String> {
        self.send_body(false, Duration::ZERO)
    }

    fn chunked_upload(&mut self) -> Result<(), String> {
        self.send_body(true, Duration::ZERO)
    }

    fn slow_upload(&mut self) -> Result<(), String> {
        self.send_body(false, SLOW)
    }

    fn slow_chunks(&mut self) -> Result<(), String> {
        self.send_body(true, SLOW)
    }

    /// Every fourth body comes on a connection of its own.
    fn send_body(&mut self, chunked: bool, time: Duration) -> Result<(), String> {
        let size = UPLOADS[0] + self.below(UPLOADS[1] - UPLOADS[0]);
        let (head, message) = (post(chunked, size), &self.body[..size]);
        let mut parts = vec![head.into_bytes()];
        for part in message.chunks((size / SLOW_PARTS).max(1)) {
            parts.push(match chunked {
                true => [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat(),
                false => part.to_vec(),
            });
        }
        if chunked {
            parts.push(b"0\r\n\r\n".to_vec());
        }
        self.count();
        let mut wire = match self.turns % 4 {
            0 => self.connect()?,
            _ => self.wire()?,
        };
        if time.is_zero() {
            wire.send(parts.concat())?;
        } else {
            for part in &parts {
                wire.send(part)?;
                thread::sleep(time / SLOW_PARTS as u32);
            }
        }
        let answer = wire.answer()?;
        right(&answer, 200, &self.body[..size])?;
        if !answer.closes && self.kept.is_empty() {
            self.kept.push(wire);
        }
        Ok(())
    }

    fn slow_reading(&mut self) -> Result<(), String> {
        self.count();
        let mut wire = self.wire()?;
        wire.send(get(&format!("/bytes?n={BIG}"), ""))?;
        let answer = wire.slow_answer(SLOW)?;
        let all_right = answer.body.iter().all(|byte| *byte == b'x');
        if (answer.status, answer.length, all_right) != (200, BIG, true) {
            return Err(format!("{} with {} bytes", answer.status, answer.length));
        }
        if !answer.closes {
            self.kept.push(wire);
        }
        Ok(())
    }

    /// Goes away in the middle of something. Only a connection that cannot be made is a failure.
    fn aborting(&mut self) -> Result<(), String> {
        self.count();
        let mut wire = self.connect()?;
        let big = get(&format!("/bytes?n={UNREAD}"), "");
        let half = [post(false, 2000).as_bytes(), &self.body[..1000]].concat();
        let sent: &[u8] = match self.turns % 6 {
            0 => b"",
            1 => b"GET /hello HTTP/1.1\r\nHost: 127.",
            2 => b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            3 => &half,
            _ => big.as_bytes(),
        };
        // What becomes of it is not this client's business any more.
        let _ = wire.send(sent);
        if self.turns % 6 == 5 {
            wire.sip(1000);
        }
        Ok(())
    }
}

fn right(answer: &Answer, status: u16, expected: &[u8]) -> Result<(), String> {
    if answer.status != status {
        return Err(format!("answered {} instead of {status}", answer.status));
    }
    if answer.body != expected {
        let (came, due) = (answer.body.len(), expected.len());
        return Err(format!("another body: {came} bytes, {due} expected"));
    }
    Ok(())
}

fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n")
}

fn post(chunked: bool, size: usize) -> String {
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_string(),
        false => format!("Content-Length: {size}"),
    };
    format!("POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n")
}
