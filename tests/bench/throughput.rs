//! What a request costs: requests per second and the slowest in a hundred as `wrk` sees them, and beside them what all
//! processes of the server use for one, which a busy machine changes far less: processor time, voluntary context switches
//! and system calls. The demo of hade stands there twice, as its own control: where the two differ, other figures that
//! differ by no more say nothing.

use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

use crate::Wish;
use crate::servers::{self, Kind, Root, Server, Site};
use crate::table::Table;
use crate::watch;

const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// Handler threads of plain tiny_http.
const TINY_THREADS: &str = "8";
/// Where the control is off by more than this share, figures are undecided.
const STEADY: f64 = 0.05;

/// A kind of load: its name, connections, and whether each request has one of its own.
const LOADS: [(&str, usize, bool); 5] = [
    ("1 connection", 1, false),
    ("8 connections", 8, false),
    ("64 connections", 64, false),
    ("256 connections", 256, false),
    ("16 at a time, new each", 16, true),
];

const PER_SECOND: &str = "requests/s";
const P99: &str = "p99, ms";
const MICROS: &str = "CPU per request, us";
const SWITCHES: &str = "context switches per request";
const CALLS: &str = "system calls per request";

/// One of Go's own servers, as its documentation has it.
const GO: &str = r#"package main

import (
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("Hello, World!"))
	})
	http.ListenAndServe(os.Args[1], nil)
}
"#;

/// One column.
enum Contender {
    Server(&'static str, Server),
    /// hade with a root and so many workers, asked for the file that nginx and lighttpd are asked for.
    File(&'static str, usize, Server),
    Tiny,
    Go(PathBuf),
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Server(name, _) | Self::File(name, ..) => name,
            Self::Tiny => "tiny_http x8",
            Self::Go(_) => "go",
        }
    }

    fn server(&self) -> Option<&Server> {
        match self {
            Self::Server(_, server) | Self::File(.., server) => Some(server),
            Self::Tiny | Self::Go(_) => None,
        }
    }
}

fn label(load: &str, figure: &str) -> String {
    format!("{load}: {figure}")
}

pub fn run(hade: Option<&Path>, wish: &Wish) -> Result<(), String> {
    let Some(wrk) = servers::find("wrk") else {
        println!("throughput: skipped: needs wrk");
        return Ok(());
    };
    let perf = servers::find("perf").filter(|perf| counts_calls(perf));
    if perf.is_none() {
        println!("system calls: skipped: needs perf, and leave to use its tracepoints");
    }
    let mut contenders = Vec::new();
    if let Some(one) = demo(hade) {
        let again = one.clone();
        contenders.push(Contender::Server("hade", one));
        contenders.push(Contender::Server("hade again", again));
    }
    // As it comes, with one worker as lighttpd; and with as many as nginx has by itself, which is one per core.
    for (name, workers) in [("hade, file", 1), ("hade, file, wide", cores())] {
        contenders.extend(hade.map(|hade| {
            let server = Server {
                name: "hade-file",
                kind: Kind::Hade,
                program: hade.to_owned(),
            };
            Contender::File(name, workers, server)
        }));
    }
    for (name, kind) in [("nginx", Kind::NginxWide), ("lighttpd", Kind::Lighttpd)] {
        let found = servers::installed(name, name, kind, servers::find(name));
        contenders.extend(found.map(|server| Contender::Server(name, server)));
    }
    let root = Root::new(contenders.iter().filter_map(Contender::server))?;
    let written = servers::write_files(&root.path);
    written.map_err(|e| format!("cannot write the files: {e}"))?;
    // Of files that have just been written it is asked each time whether they are hade's own.
    watch::wait_until(|| servers::are_settled(&root.path));
    contenders.extend(go(&root.path).map(Contender::Go));
    contenders.push(Contender::Tiny);
    let rounds = if wish.quick { QUICK_ROUNDS } else { ROUNDS };

    let mut table = Table::new(contenders.iter().map(Contender::name).collect());
    for (load, ..) in LOADS {
        table.row(&label(load, PER_SECOND), 0);
        table.row(&label(load, P99), 2);
        table.row(&label(load, MICROS), 1);
        table.row(&label(load, SWITCHES), 2);
        table.row(&label(load, CALLS), 2);
    }
    let (mut notes, mut threads) = (Vec::new(), vec![(0, 0); contenders.len()]);
    let mut failed = false;
    for (load, connections, is_new) in LOADS {
        for round in 0..rounds {
            for turn in 0..contenders.len() {
                let column = (turn + round) % contenders.len();
                let contender = &contenders[column];
                let load_on = |perf| Load {
                    wrk: &wrk,
                    perf,
                    connections,
                    is_new,
                };
                let seen = measure(contender, &load_on(None), &root.path)
                    .map_err(|reason| format!("{}: {reason}", contender.name()))?;
                table.add(&label(load, PER_SECOND), column, seen.per_second);
                table.add(&label(load, P99), column, seen.p99_ms);
                table.add(&label(load, MICROS), column, seen.micros);
                table.add(&label(load, SWITCHES), column, seen.switches);
                let (processes, most) = &mut threads[column];
                (*processes, *most) = (seen.processes, seen.threads.max(*most));
                for error in seen.errors {
                    failed |= contender.name().starts_with("hade");
                    notes.push(format!("{}, {load}: {error}", contender.name()));
                }
                // Counting slows it down, so that is done by itself, and once is enough.
                if let (Some(perf), 0) = (&perf, round) {
                    let counted = measure(contender, &load_on(Some(perf)), &root.path)
                        .map_err(|reason| format!("{}: {reason}", contender.name()))?;
                    table.add(&label(load, CALLS), column, counted.calls);
                }
            }
        }
    }

    println!(
        "median (min-max) of {rounds} rounds of a second, a fresh server each, servers taken in turn, wrk on the same cores, no access logs"
    );
    table.print(rounds);
    let counts = contenders.iter().zip(threads);
    let counts = counts.map(|(one, (processes, most))| {
        format!("{} {processes} with up to {most} threads", one.name())
    });
    println!("processes: {}", counts.collect::<Vec<_>>().join(", "));
    for (load, ..) in LOADS {
        for figure in [PER_SECOND, MICROS] {
            let off = (table.ratio(&label(load, figure), 1, 0).unwrap_or(1.0) - 1.0).abs();
            let said = match off > STEADY {
                true => "undecided",
                false => "steady",
            };
            println!(
                "{load}: {figure}: {said}, the control is off by {:.1} %",
                off * 100.0
            );
        }
    }
    for note in notes {
        println!("{note}");
    }
    if wish.json {
        println!("{}", table.json());
    }
    match failed {
        true => Err("hade did not answer every request".to_string()),
        false => Ok(()),
    }
}

/// Whether perf may count the system calls of other processes.
fn counts_calls(perf: &Path) -> bool {
    let mut command = Command::new(perf);
    command.args(["stat", "-x,", "-e", TRACEPOINT, "true"]);
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| counted(&String::from_utf8_lossy(&output.stderr)).is_some())
}

const TRACEPOINT: &str = "raw_syscalls:sys_enter";

fn counted(report: &str) -> Option<f64> {
    let line = report.lines().find(|line| line.contains(TRACEPOINT))?;
    line.split(',').next()?.parse().ok()
}

/// A server of Go's, compiled here.
fn go(root: &Path) -> Option<PathBuf> {
    let Some(compiler) = servers::find("go") else {
        println!("go: skipped: needs go");
        return None;
    };
    let (source, program) = (root.join("hello.go"), root.join("go-hello"));
    let version = Command::new(&compiler).arg("version").output().ok()?;
    fs::write(&source, GO).ok()?;
    let mut build = Command::new(&compiler);
    build.arg("build").arg("-o").arg(&program).arg(&source);
    build
        .env("GOCACHE", root.join("go-cache"))
        .env("HOME", root);
    let built = build.stdin(Stdio::null()).output().ok()?;
    if !built.status.success() {
        let why = String::from_utf8_lossy(&built.stderr);
        println!("go: skipped: cannot build: {}", why.trim());
        return None;
    }
    println!("go: {}", String::from_utf8_lossy(&version.stdout).trim());
    Some(program)
}

/// The example program cargo puts in `examples/` beside the binary.
pub fn demo(hade: Option<&Path>) -> Option<Server> {
    let program = hade
        .map(|hade| hade.with_file_name("examples").join("demo"))
        .and_then(|demo| fs::canonicalize(demo).ok());
    let Some(program) = program else {
        println!(
            "hade: skipped: needs examples/demo beside the hade binary; \
             \"cargo build --release --example demo\" makes it"
        );
        return None;
    };
    println!("hade: {}", program.display());
    Some(Server {
        name: "hade",
        kind: Kind::Demo,
        program,
    })
}

struct Load<'a> {
    wrk: &'a Path,
    /// Counts system calls, where it is there.
    perf: Option<&'a PathBuf>,
    connections: usize,
    /// A connection for each request.
    is_new: bool,
}

struct Seen {
    requests: f64,
    per_second: f64,
    p99_ms: f64,
    micros: f64,
    switches: f64,
    calls: f64,
    processes: usize,
    threads: usize,
    /// Answers other than 2xx, and connections or requests that failed.
    errors: Vec<String>,
}

/// A fresh server, so that no round pays for the one before.
fn measure(contender: &Contender, load: &Load, root: &Path) -> Result<Seen, String> {
    match contender {
        Contender::Server(_, server) => {
            let mut site = Site::for_many(server, root, &[])?;
            site.start()?;
            if server.kind == Kind::NginxWide {
                // It answers before all of its workers are there.
                watch::wait_until(|| site.family().len() > cores());
            }
            let seen = load.put_on(site.address, site.path, &site.family())?;
            site.stop()?;
            Ok(seen)
        }
        Contender::File(_, workers, server) => {
            let files = format!("root={}", root.join("www").display());
            let settings = [&files, &format!("workers={workers}")];
            let mut site = Site::for_many(server, root, &settings.map(String::as_str))?;
            site.path = "/hello.txt";
            site.start()?;
            watch::wait_until(|| site.family().len() > *workers);
            let seen = load.put_on(site.address, site.path, &site.family())?;
            site.stop()?;
            Ok(seen)
        }
        Contender::Tiny => {
            let tiny = Tiny::start(TINY_THREADS)?;
            load.put_on(tiny.address, "/hello", &[tiny.pid()])
        }
        Contender::Go(program) => {
            let address = servers::free_address()?;
            let mut command = Command::new(program);
            let go = Tiny::spawn(command.arg(address.to_string()), address)?;
            load.put_on(address, "/hello", &[go.pid()])
        }
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Load<'_> {
    /// One second of it, on these processes.
    fn put_on(&self, address: SocketAddr, path: &str, pids: &[u32]) -> Result<Seen, String> {
        let mut command = match self.perf {
            None => Command::new(self.wrk),
            Some(perf) => {
                let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
                let mut command = Command::new(perf);
                command.args(["stat", "-x,", "-e", TRACEPOINT, "-p", &pids.join(","), "--"]);
                command.arg(self.wrk);
                command
            }
        };
        command.arg("--latency").arg("-d1s");
        command.arg(format!("-t{}", cores().min(self.connections)));
        command.arg(format!("-c{}", self.connections));
        if self.is_new {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{address}{path}"));
        let before = watch::used(pids);
        let output = command.stdin(Stdio::null()).output();
        let after = watch::used(pids);
        let output = output.map_err(|e| format!("cannot run wrk: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        let mut seen = read_report(&text)
            .ok_or_else(|| format!("wrk: {}: {} {}", output.status, text.trim(), said.trim()))?;
        seen.micros = (after.seconds - before.seconds) * 1e6 / seen.requests;
        seen.switches = (after.switches - before.switches) / seen.requests;
        seen.calls = counted(&said).unwrap_or(f64::NAN) / seen.requests;
        (seen.processes, seen.threads) = (pids.len(), after.threads);
        Ok(seen)
    }
}

fn read_report(text: &str) -> Option<Seen> {
    let after = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(str::trim)
    };
    let total = text.lines().find(|line| line.contains(" requests in "))?;
    Some(Seen {
        requests: total.split_whitespace().next()?.parse().ok()?,
        per_second: after("Requests/sec:")?.parse().ok()?,
        p99_ms: milliseconds(after("99%")?)?,
        micros: 0.0,
        switches: 0.0,
        calls: 0.0,
        processes: 0,
        threads: 0,
        errors: ["Socket errors:", "Non-2xx or 3xx responses:"]
            .iter()
            .filter_map(|key| after(key).map(|rest| format!("{key} {rest}")))
            .collect(),
    })
}

/// wrk's times: "87.00us", "1.20ms", "2.00s", "1.10m".
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}

/// This program again, as a plain tiny_http server.
pub struct Tiny {
    child: Child,
    pub address: SocketAddr,
}

impl Tiny {
    pub fn start(threads: &str) -> Result<Self, String> {
        let address = servers::free_address()?;
        let this = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(this);
        command.args(["--serve-tiny", &address.port().to_string(), threads]);
        Self::spawn(&mut command, address)
    }

    /// Another program that serves at this address, and that is killed when this is dropped.
    fn spawn(command: &mut Command, address: SocketAddr) -> Result<Self, String> {
        let child = command
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run: {e}"))?;
        let tiny = Self { child, address };
        match watch::wait_until(|| watch::answers(address, "/hello")) {
            true => Ok(tiny),
            false => Err(format!("no answer from {address} within the cap")),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves, `/bytes?n=` and bodies like the demo, until standard input ends, that is until the process that started it is gone.
pub fn serve_tiny(port: &str, threads: &str) -> ExitCode {
    let server = match tiny_http::Server::http(format!("127.0.0.1:{port}")) {
        Ok(server) => Arc::new(server),
        Err(e) => {
            eprintln!("peers: cannot listen on 127.0.0.1:{port}: {e}");
            return ExitCode::FAILURE;
        }
    };
    for _ in 0..threads.parse().unwrap_or(8) {
        let server = Arc::clone(&server);
        thread::spawn(move || {
            while let Ok(mut request) = server.recv() {
                let size = request.url().strip_prefix("/bytes?n=");
                let answer = match size.and_then(|size| size.parse().ok()) {
                    Some(size) => tiny_http::Response::from_data(vec![b'x'; size]),
                    None if *request.method() == tiny_http::Method::Post => {
                        let mut body = Vec::new();
                        let _ = request.as_reader().read_to_end(&mut body);
                        tiny_http::Response::from_data(body)
                    }
                    None => tiny_http::Response::from_string("Hello, World!"),
                };
                let _ = request.respond(answer);
            }
        });
    }
    let _ = io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}
