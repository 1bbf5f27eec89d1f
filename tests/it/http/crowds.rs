//! What strangers do by their number, by being slow, or by leaving: what plain tiny_http 0.12 does not survive, as in
//! `strangers.rs`. And what the kernel does on such a day: no descriptor, no thread, no connection to be had.

use crate::http::strangers::{Besieged, THREADS, handlers, kilobytes};
use crate::support::{
    Place, Site, Wire, descriptors, freeze, get, has, holds_for, is_root, post, run, signal, skip,
    sleeps, threads, wait_until, workers,
};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Connects, asks, and resets the connection at once, as often as it is told.
const RESETS: &str = r#"
import socket, struct, sys
host, port = sys.argv[1].split(":")
for n in range(int(sys.argv[2])):
    s = socket.create_connection((host, int(port)))
    s.sendall(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n" * (1 + n % 3))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
"#;

#[test]
fn three_thousand_are_gone_before_they_are_accepted() {
    if !has("python3") {
        return;
    }
    let besieged = Besieged::new();
    let resets = || {
        let mut python = Command::new("python3");
        python.args(["-c", RESETS, besieged.site.address(), "500"]);
        run(&mut python).ok();
    };
    for round in 0..6 {
        // Nobody accepts meanwhile; in every third round they race with it instead.
        if round % 3 != 2 {
            freeze(besieged.worker);
        }
        resets();
        signal(besieged.worker, "CONT");
        assert_eq!(besieged.site.get("/hello").status, 200);
    }
    assert!(besieged.place.count("accepted") >= 3000);
    besieged.unharmed(4000);
}

/// Opens many connections and says so; holds them until its input ends. A third of them says nothing, a third begins a
/// head, a third has had an answer.
const CROWD: &str = r#"
import resource, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
host, port = sys.argv[1].split(":")
crowd = []
for n in range(int(sys.argv[2])):
    s = socket.create_connection((host, int(port)))
    crowd.append(s)
    if n % 3 == 1:
        s.sendall(b"GET /hello HTTP/1.1\r\nHost:")
    if n % 3 == 2:
        s.sendall(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n")
        assert s.recv(1000).endswith(b"Hello, World!")
print("open", flush=True)
sys.stdin.read()
s = crowd[2]
s.sendall(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n")
assert s.recv(1000).endswith(b"Hello, World!")
"#;

/// When their time is over stands in `http.rs`, with the other deadlines.
#[test]
fn five_thousand_come_and_say_nothing() {
    const COUNT: usize = 5000;
    if !has("python3") {
        return;
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let open = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = open.and_then(|line| line.split_whitespace().nth(4)?.parse::<usize>().ok());
    if hard.is_some_and(|hard| hard < COUNT + 100) {
        return skip("needs a limit of 5100 open files");
    }
    // On a busy machine it takes them some seconds to come.
    let besieged = Besieged::with(&["--set", "app.header_timeout=120"]);
    let before = kilobytes(besieged.worker, "VmRSS");
    let mut python = Command::new("python3");
    python.args(["-c", CROWD, besieged.site.address(), &COUNT.to_string()]);
    python.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let mut said = String::new();
    let mut out = BufReader::new(python.stdout.take().unwrap());
    out.read_line(&mut said).unwrap();
    assert_eq!(said, "open\n");
    wait_until(10, "all are accepted", || {
        besieged.place.count("connections") >= COUNT as u64
    });
    let now = kilobytes(besieged.worker, "VmRSS");
    assert!(now - before < 8000, "{before} kB before, {now} kB now");
    assert!(handlers(besieged.worker) <= THREADS);
    // Some of tiny_http's leave after a while, since they are not needed.
    assert!(threads(besieged.worker).len() - handlers(besieged.worker) <= besieged.threads);
    besieged.serves_others();
    let turns = sleeps(besieged.worker, "gate");
    holds_for(300, "it is the same worker", || {
        workers(besieged.site.pid) == [besieged.worker]
    });
    let turns = sleeps(besieged.worker, "gate") - turns;
    assert!(turns < 20, "{turns} turns of the gate in 300 ms");
    drop(python.stdin.take());
    assert!(python.wait().unwrap().success());
    besieged.unharmed(16_000);
}

#[test]
fn some_stall_their_uploads_and_one_asks_for_everything_at_once() {
    let besieged = Besieged::new();
    let site = &besieged.site;
    let chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n";
    let mut stalled: Vec<Wire> = Vec::new();
    for size in [1, 5000, 5000, 5000, 5000, 60_000] {
        let whole = post("/echo", &"u".repeat(size));
        for begun in [&whole[..whole.len() - 1], chunked] {
            let mut wire = site.connect();
            wire.send(begun);
            stalled.push(wire);
        }
    }
    besieged.serves_others();
    // A handler that does not read a body leaves it to nobody else.
    for path in ["/hello", "/nowhere"] {
        let whole = post(path, &"u".repeat(5000));
        let mut wire = site.connect();
        wire.send(&whole[..whole.len() - 1]);
        stalled.push(wire);
    }
    besieged.serves_others();
    assert!(stalled.iter_mut().all(Wire::is_quiet));
    // One at a time of a pipeline, whoever sends it, so that it never has more than one thread.
    let mut greedy = site.connect();
    greedy.send(get("/slow?ms=300").repeat(500));
    besieged.serves_others();
    assert!(besieged.place.count("in_flight") <= 2);
    // And one whose answers wait for it to read has none.
    let mut deaf = site.connect();
    deaf.send(get("/bytes?n=9000000").repeat(500));
    besieged.serves_others();
    assert_eq!(greedy.answer().text(), "slow\n");
    for wire in &mut stalled[..2] {
        wire.send("u");
    }
    assert_eq!(stalled[0].answer().text(), "u");
    drop((greedy, deaf, stalled));
    wait_until(10, "nothing is in flight", || {
        besieged.place.count("in_flight") == 0
    });
    // One answer that waits for its reader, and its copy on the way to the gate.
    besieged.unharmed(40_000);
}

fn limit(pid: u32, what: &str) {
    let pid = pid.to_string();
    run(Command::new("prlimit").args(["--pid", &pid, what])).ok();
}

/// Each of these connections is served once there is a place for it, and ends.
#[track_caller]
fn all_are_served(site: &Site, count: usize) {
    let mut wires: Vec<Wire> = (0..count).map(|_| site.connect()).collect();
    for wire in &mut wires {
        wire.send("GET /slow?ms=5 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    }
    for mut wire in wires {
        assert_eq!(wire.answer().text(), "slow\n");
        assert!(wire.is_closed());
    }
}

#[test]
fn more_come_than_there_are_descriptors() {
    let place = Place::demo();
    let limited = ["sh", "-c", "ulimit -n 40; exec \"$0\" \"$@\""];
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0", "--set"];
    let threads = format!("app.threads={THREADS}");
    let args = [&args[..], &[&threads]].concat();
    let site = Site::of(&run(&mut place.wrapped(&limited, &args)).ok());
    let besieged = Besieged::at(place, site);
    all_are_served(&besieged.site, 80);
    besieged.unharmed(2000);
}

/// The limit comes down while it serves, so that it cannot know before `accept` fails.
#[test]
fn descriptors_run_out_and_come_back() {
    if !has("prlimit") {
        return;
    }
    let besieged = Besieged::new();
    let numbers = crate::look::descriptors(besieged.worker);
    let most = numbers.last().unwrap().0 as usize + 6;
    limit(besieged.worker, &format!("--nofile={most}:"));
    let room = most - numbers.len();
    let mut kept: Vec<Wire> = (0..room).map(|_| besieged.site.connect()).collect();
    for wire in &mut kept {
        assert_eq!(wire.get("/hello").status, 200);
    }
    let mut new: Vec<Wire> = (0..40).map(|_| besieged.site.connect()).collect();
    for wire in &mut new {
        wire.send("GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    }
    besieged
        .place
        .wait_for_log("cannot accept connections for now");
    let turns = sleeps(besieged.worker, "gate");
    holds_for(300, "who has no place waits", || {
        new.iter_mut().all(Wire::is_quiet)
    });
    let turns = sleeps(besieged.worker, "gate") - turns;
    assert!(turns < 20, "{turns} turns of the gate in 300 ms");
    for wire in &mut kept {
        assert_eq!(wire.get("/hello").status, 200);
    }
    drop(kept);
    for mut wire in new {
        assert_eq!(wire.answer().text(), "Hello, World!");
        assert!(wire.is_closed());
    }
    limit(besieged.worker, "--nofile=1024:");
    besieged.unharmed(2000);
}

#[test]
fn threads_run_out_and_come_back() {
    if !(is_root() && has("prlimit") && has("setpriv")) {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    let as_user = place.as_new_user();
    let mut command = as_user();
    command.arg(place.path("prog"));
    command.args(["app", "start", "-d", "--address", "127.0.0.1:0", "--set"]);
    command
        .arg(format!("app.threads={THREADS}"))
        .current_dir(&place.dir);
    let site = Site::of(&run(&mut command).ok());
    let besieged = Besieged::at(place, site);
    let limit = |most| {
        let pid = besieged.worker.to_string();
        run(as_user().args(["prlimit", "--pid", &pid, most])).ok()
    };
    limit("--nproc=1:");
    // The threads that there are have a request each, and the next ones wait in line.
    let held = handlers(besieged.worker);
    let mut held: Vec<Wire> = (0..held)
        .map(|number| besieged.place.hold(&besieged.site, &number.to_string()))
        .collect();
    let mut waiting: Vec<Wire> = (0..20).map(|_| besieged.site.connect()).collect();
    for wire in &mut waiting {
        wire.send(get("/hello"));
    }
    besieged
        .place
        .wait_for_log("cannot start another handler thread");
    assert!(waiting.iter_mut().all(Wire::is_quiet));
    limit("--nproc=10000:");
    for wire in &mut waiting {
        assert_eq!(wire.answer().text(), "Hello, World!");
    }
    for (number, wire) in held.iter_mut().enumerate() {
        besieged.place.release(&number.to_string());
        assert_eq!(wire.answer().text(), "held\n");
    }
    drop((held, waiting));
    besieged.unharmed(2000);
}

/// Lets go of what it traces when it is told to end; killed, it might not.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

#[test]
fn accepting_fails_in_every_way() {
    if !has("strace") {
        return;
    }
    let besieged = Besieged::new();
    let all = threads(besieged.worker);
    let (gate, _) = all.iter().find(|(_, name)| name == "gate").expect("a gate");
    for errno in [
        "ECONNABORTED",
        "EPROTO",
        "EPERM",
        "ENETDOWN",
        "EHOSTUNREACH",
        "EINTR",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "ENOBUFS",
        "EIO",
    ] {
        let inject = format!("inject=accept4,accept:error={errno}:when=1..2");
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", "/dev/null", "-e", &inject]);
        strace.args(["-p", &gate.to_string()]);
        let mut strace = Tracer(strace.stderr(Stdio::null()).spawn().unwrap());
        let mut is_traced = false;
        wait_until(10, "strace looks on, or may not", || {
            let path = format!("/proc/{}/task/{gate}/status", besieged.worker);
            let text = std::fs::read_to_string(path).unwrap();
            is_traced = !text.contains("TracerPid:\t0\n");
            is_traced || strace.0.try_wait().unwrap().is_some()
        });
        if !is_traced {
            return skip("needs an strace that may attach");
        }
        all_are_served(&besieged.site, 5);
        let pid = besieged.site.get("/pid").text();
        assert_eq!(pid, besieged.worker.to_string(), "{errno}");
    }
    let log = besieged.place.log();
    assert!(log.contains("cannot accept connections for now"), "{log}");
    besieged.unharmed(2000);
}

/// What it reads after it was given up is the beginning of one answer, and never the next one in the middle of it.
#[test]
fn one_reads_nothing_until_it_is_given_up() {
    let besieged = Besieged::with(&["--set", "app.io_timeout=1"]);
    let mut wire = besieged.site.connect();
    wire.send(get("/bytes?n=30000000") + &get("/hello").repeat(3));
    wait_until(10, "it is accepted", || {
        descriptors(besieged.worker) > besieged.descriptors
    });
    wait_until(20, "it is given up", || {
        descriptors(besieged.worker) == besieged.descriptors
    });
    let mut all = Vec::new();
    while let Ok(more) = wire.gulp(1 << 20) {
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(all.len() - end < 30_000_000);
    assert!(all[end..].iter().all(|byte| *byte == b'x'));
    besieged.unharmed(100_000);
}
