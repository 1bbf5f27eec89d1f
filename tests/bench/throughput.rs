//! Requests per second and the slowest in a hundred, as `wrk` sees them: hade's `/hello` beside plain tiny_http.

use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

use crate::servers::{self, Kind, Root, Server, Site};
use crate::table::Table;
use crate::watch;

const ROUNDS: usize = 3;
const CONNECTIONS: [usize; 4] = [1, 8, 64, 256];

/// One column.
enum Contender {
    Hade(Server),
    /// With this many handler threads.
    Tiny(&'static str),
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Hade(server) => server.name,
            Self::Tiny("8") => "tiny_http x8",
            Self::Tiny(_) => "tiny_http x4",
        }
    }

    fn server(&self) -> Option<&Server> {
        match self {
            Self::Hade(server) => Some(server),
            Self::Tiny(_) => None,
        }
    }
}

pub fn run(hade: Option<&Path>, quick: bool) -> Result<(), String> {
    let Some(wrk) = servers::find("wrk") else {
        println!("throughput: skipped: needs wrk");
        return Ok(());
    };
    let mut contenders = Vec::new();
    contenders.extend(demo(hade).map(Contender::Hade));
    contenders.push(Contender::Tiny("8"));
    contenders.push(Contender::Tiny("4"));
    let root = Root::new(contenders.iter().filter_map(Contender::server))?;
    let seconds = if quick { "1" } else { "5" };

    let mut table = Table::new(contenders.iter().map(Contender::name).collect());
    for connections in CONNECTIONS {
        table.row(&per_second(connections), 0);
        table.row(&slowest(connections), 2);
    }
    let mut notes = Vec::new();
    let mut failed = false;
    for connections in CONNECTIONS {
        for round in 0..ROUNDS {
            for turn in 0..contenders.len() {
                let column = (turn + round) % contenders.len();
                let contender = &contenders[column];
                let load = Load {
                    wrk: &wrk,
                    connections,
                    seconds,
                };
                let seen = measure(contender, &load, &root.path)
                    .map_err(|reason| format!("{}: {reason}", contender.name()))?;
                table.add(&per_second(connections), column, seen.per_second);
                table.add(&slowest(connections), column, seen.p99_ms);
                for error in seen.errors {
                    failed |= matches!(contender, Contender::Hade(_));
                    notes.push(format!(
                        "{} at {connections} connections: {error}",
                        contender.name()
                    ));
                }
            }
        }
    }

    println!(
        "median (min-max) of {ROUNDS} rounds of {seconds} s, servers taken in turn, wrk on the same cores"
    );
    table.print(ROUNDS);
    for note in notes {
        println!("{note}");
    }
    if failed {
        return Err("hade did not answer every request".to_string());
    }
    Ok(())
}

fn per_second(connections: usize) -> String {
    format!("{connections} connections: requests/s")
}

fn slowest(connections: usize) -> String {
    format!("{connections} connections: p99, ms")
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
    connections: usize,
    seconds: &'a str,
}

struct Seen {
    per_second: f64,
    p99_ms: f64,
    /// Answers other than 2xx, and connections or requests that failed.
    errors: Vec<String>,
}

/// A fresh server, so that no round pays for the one before.
fn measure(contender: &Contender, load: &Load, root: &Path) -> Result<Seen, String> {
    match contender {
        Contender::Hade(server) => {
            let mut site = Site::new(server, root)?;
            site.start()?;
            let seen = load.put_on(site.address, server.path())?;
            site.stop()?;
            Ok(seen)
        }
        Contender::Tiny(threads) => {
            let tiny = Tiny::start(threads)?;
            load.put_on(tiny.address, "/hello")
        }
    }
}

impl Load<'_> {
    fn put_on(&self, address: SocketAddr, path: &str) -> Result<Seen, String> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let output = Command::new(self.wrk)
            .arg("--latency")
            .arg(format!("-t{}", cores.min(self.connections)))
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .arg(format!("http://{address}{path}"))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("cannot run wrk: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        read_report(&text).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("wrk: {}: {} {}", output.status, text.trim(), said.trim())
        })
    }
}

fn read_report(text: &str) -> Option<Seen> {
    let after = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(str::trim)
    };
    Some(Seen {
        per_second: after("Requests/sec:")?.parse().ok()?,
        p99_ms: milliseconds(after("99%")?)?,
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
        let child = Command::new(this)
            .args(["--serve-tiny", &address.port().to_string(), threads])
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
