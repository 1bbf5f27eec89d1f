//! What goes wrong inside a worker: the private stream to tiny_http is broken from outside, tiny_http stands still, there
//! is no room to build another, and the clock jumps. Requests are answered all the same.

use crate::look::{Bystander, is_root};
use crate::support::{
    Foreground, Hammer, Place, Site, Wire, again, get, has, holds_for, is_alive, once, post, run,
    settled_descriptors, skip, threads, wait_until, was_soon, worker,
};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Breaks the private stream of a process, at the end named by the third word, as often as the second says, and waits
/// for the next one in between: pidfd_getfd(2) gives a copy of a descriptor, and what is shut is shut for all copies.
const BREAK: &str = r#"
import ctypes, os, socket, sys, time
pid, times, end = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
pidfd = os.pidfd_open(pid)
def find(broken):
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue
        if not link.startswith("socket:") or link in broken:
            continue
        copy = libc.syscall(438, pidfd, int(number), 0)
        if copy < 0:
            error = ctypes.get_errno()
            if error == 9:
                continue
            raise OSError(error, os.strerror(error))
        one = socket.socket(fileno=copy)
        try:
            if one.family == socket.AF_UNIX and one.type == socket.SOCK_STREAM:
                name = one.getpeername() if end == "gate" else one.getsockname()
                one.getpeername()
                # 128 bits in hexadecimal, in the abstract namespace.
                if len(name) == 33 and name[0] == 0:
                    return link, one
        except OSError:
            pass
        one.close()
broken = set()
for _ in range(times):
    until = time.monotonic() + 15
    while not (found := find(broken)):
        assert time.monotonic() < until, "no private stream"
        time.sleep(0.005)
    broken.add(found[0])
    found[1].shutdown(socket.SHUT_RDWR)
    found[1].close()
print("broken")
"#;

/// Stops the threads of a process that have this name, ptrace(2), until its own input ends.
const FREEZE: &str = r#"
import ctypes, os, sys
pid, name = int(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
def ptrace(request, thread):
    if libc.ptrace(request, thread, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
for thread in map(int, os.listdir(f"/proc/{pid}/task")):
    if open(f"/proc/{pid}/task/{thread}/comm").read().strip() == name:
        ptrace(0x4206, thread)  # PTRACE_SEIZE
        ptrace(0x4207, thread)  # PTRACE_INTERRUPT
        os.waitpid(thread, 0x40000000)  # __WALL
print("frozen", flush=True)
sys.stdin.read()
"#;

fn python(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]).args(args);
    command
}

/// Whether this user may look into processes that it has not started: ptrace(2), "access mode checking".
pub fn may_trace() -> bool {
    if !has("python3") {
        return false;
    }
    let other = Bystander::new();
    let pid = other.pid().to_string();
    let mut command = python(FREEZE, &[&pid, "sleep"]);
    let allowed = run(command.stdin(Stdio::null())).code == Some(0);
    if !allowed {
        skip("needs leave to trace processes");
    }
    allowed
}

/// Breaks the stream so many times.
#[track_caller]
pub fn break_stream(worker: u32, times: u32, end: &str) {
    let args = [worker.to_string(), times.to_string(), end.to_owned()];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(run(&mut python(BREAK, &args)).ok(), "broken\n");
}

/// Threads that stand still as long as this lives.
struct Frozen(Child);

impl Frozen {
    #[track_caller]
    fn new(pid: u32, name: &str) -> Frozen {
        let mut command = python(FREEZE, &[&pid.to_string(), name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let mut text = [0; 7];
        let out = child.stdout.as_mut().unwrap();
        let read = std::io::Read::read_exact(out, &mut text);
        let frozen = Frozen(child);
        read.expect("the threads are frozen");
        assert_eq!(&text, b"frozen\n");
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

const BROKEN: &str = "the private stream to tiny_http broke, a new one is made";

#[test]
fn a_stream_that_breaks_under_load_loses_no_request() {
    if !may_trace() {
        return;
    }
    let place = Place::demo();
    let sets = ["--set", "app.threads=8", "--set", "app.io_timeout=600"];
    let site = place.start(&sets);
    let worker = site.worker();
    assert_eq!(site.get("/hello").status, 200);
    let descriptors = settled_descriptors(worker);
    let count = threads(worker).len();
    let mut held: Vec<Wire> = (0..3).map(|n| place.hold(&site, &format!("{n}"))).collect();
    // A body that a handler reads, one that is not there yet, and an answer that is not read.
    let mut long = site.connect();
    long.send("POST /count HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n");
    long.send("b".repeat(100_000));
    let mut short = site.connect();
    short.send(post("/echo", "abc").trim_end_matches('c'));
    let mut stream = site.connect();
    stream.send(get("/stream?pieces=1000&size=30000"));
    stream.wait_begun();
    let (one, other) = (site.address().to_owned(), site.address().to_owned());
    let mut kept = None;
    let hammer = Hammer::easy(site.address())
        .with(move |tally| again(&mut kept, &one, tally))
        .with(move |tally| once(&other, "/slow?ms=3", tally, b"slow\n"));
    break_stream(worker, 10, "gate");
    break_stream(worker, 10, "tiny");
    holds_for(100, "", || true);
    hammer.end();
    long.send("b".repeat(100_000));
    assert_eq!(long.answer().text(), "200000\n");
    short.send("c");
    assert_eq!(short.answer().text(), "abc");
    assert_eq!(stream.answer().body.len(), 30_000_000);
    for (number, wire) in held.iter_mut().enumerate() {
        assert!(wire.is_quiet());
        place.release(&number.to_string());
        assert_eq!(wire.answer().text(), "held\n");
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    assert_eq!(place.fact("in_flight"), "0");
    drop((held, long, short, stream));
    // Said once, and no more than that is left of it: the threads of the old ones go after some seconds.
    assert_eq!(place.log().matches(BROKEN).count(), 1);
    wait_until(20, "the old ones are gone", || {
        let tiny = threads(worker);
        let tiny = tiny.iter().filter(|(_, name)| name == "tiny_http").count();
        threads(worker).len() <= count + 8 && tiny <= 5
    });
    wait_until(10, "so are their descriptors", || {
        settled_descriptors(worker) <= descriptors
    });
    assert_eq!(site.get("/pid").text(), worker.to_string());
    assert!(!place.log().contains("panic"));
}

#[test]
fn a_tiny_http_that_stands_still_is_replaced() {
    if !may_trace() {
        return;
    }
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=4"]);
    let worker = site.worker();
    let mut held = place.hold(&site, "a");
    // Another thread has come for this, and waits for the next: who is at work needs no tiny_http for what has come meanwhile.
    assert_eq!(site.get("/hello").status, 200);
    let frozen = Frozen::new(worker, "tiny_http");
    let begun = Instant::now();
    let mut waiting: Vec<Wire> = (0..5).map(|_| site.connect()).collect();
    for wire in &mut waiting {
        wire.send(get("/pid"));
    }
    for wire in &mut waiting {
        assert_eq!(wire.answer().text(), worker.to_string());
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3), "{took:?}");
    was_soon(begun, 15000);
    // The new one is as good as the old one was.
    for wire in &mut waiting {
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    assert!(
        place
            .log()
            .contains(&format!("{BROKEN}: requests do not get through"))
    );
    // What the old one has still to say when it moves again is said already.
    drop(frozen);
    holds_for(300, "nobody gets a second answer", || {
        waiting.iter_mut().all(Wire::is_quiet)
    });
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    for wire in waiting.iter_mut().chain([&mut held]) {
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    assert_eq!(place.fact("in_flight"), "0");
    assert!(is_alive(worker) && !place.log().contains("panic"));
}

#[test]
fn a_stream_that_breaks_while_there_are_no_descriptors_is_made_when_there_are() {
    if !(may_trace() && has("prlimit")) {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    let limit = |soft: &str| {
        let pid = worker.to_string();
        run(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")])).ok()
    };
    let mut kept: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    for wire in &mut kept {
        assert_eq!(wire.get("/hello").status, 200);
    }
    let mut held = place.hold(&site, "a");
    // Another thread has come for this, and waits for the next.
    assert_eq!(site.get("/hello").status, 200);
    let before = settled_descriptors(worker);
    limit("3");
    break_stream(worker, 1, "gate");
    for wire in &mut kept {
        wire.send(get("/hello"));
    }
    // Long enough for more than one attempt.
    holds_for(1500, "nobody is answered or lost", || {
        kept.iter_mut().all(Wire::is_quiet)
    });
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    limit("1024");
    for wire in &mut kept {
        assert_eq!(wire.answer().text(), "Hello, World!");
    }
    assert_eq!(site.get("/pid").text(), worker.to_string());
    assert_eq!(held.get("/hello").status, 200);
    wait_until(10, "nothing is left of it", || {
        settled_descriptors(worker) <= before
    });
    assert!(place.log().contains(BROKEN));
}

#[test]
fn a_stream_that_breaks_while_there_are_no_threads_is_made_when_there_are() {
    if !(is_root() && has("prlimit") && has("setpriv") && may_trace()) {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    let as_user = place.as_new_user();
    let mut command = as_user();
    command
        .arg(place.path("prog"))
        .args(["app", "start", "-d", "--address", "127.0.0.1:0"])
        .args(["--set", "app.threads=2"])
        .current_dir(&place.dir);
    let site = Site::of(&run(&mut command).ok());
    let worker = site.worker();
    let limit = |most: usize| {
        let most = format!("--nproc={most}:");
        run(as_user().args(["prlimit", "--pid", &worker.to_string(), &most])).ok()
    };
    let mut kept: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    for wire in &mut kept {
        assert_eq!(wire.get("/hello").status, 200);
    }
    let before = threads(worker).len();
    // None at all, and fewer than tiny_http wants.
    for more in [0, 2, 4] {
        limit(threads(worker).len() + threads(site.pid).len() + more);
        break_stream(worker, 1, "gate");
        for wire in &mut kept {
            wire.send(get("/hello"));
        }
        holds_for(1500, "", || true);
        limit(10_000);
        for wire in &mut kept {
            assert_eq!(wire.answer().text(), "Hello, World!", "room for {more}");
        }
        assert_eq!(site.get("/pid").text(), worker.to_string());
    }
    // An attempt a second, each with a panic or two of tiny_http's.
    let panics = place.log().matches("panic in ").count();
    assert!(panics < 25, "{panics} attempts in some seconds");
    wait_until(20, "no threads are left of it", || {
        threads(worker).len() <= before + 2
    });
    assert!(is_alive(worker));
}

/// The library that `faketime` puts before a program, which is to be given without its other variables: these would
/// fix the time for good.
fn faketime_library() -> String {
    let mut ask = Command::new("faketime");
    ask.args(["-f", "+0", "sh", "-c", "echo $LD_PRELOAD"]);
    run(&mut ask).ok().trim().to_owned()
}

#[test]
fn a_clock_that_jumps_closes_nothing_and_refuses_nobody() {
    if !has("faketime") {
        return;
    }
    let place = Place::demo();
    let jump = |days: i32| {
        place.write("time.new", format!("{:+}", days * 86_400));
        std::fs::rename(place.path("time.new"), place.path("time")).unwrap();
    };
    jump(0);
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let sets = ["--set", "app.log_file=run/app.log"];
    // The only clock that is to end anything here is the one that jumps.
    let times = [
        "header_timeout",
        "idle_timeout",
        "io_timeout",
        "handler_warn",
    ]
    .map(|name| format!("--set=app.{name}=3600"));
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let mut command = place.command(&[&args[..], &sets, &times].concat());
    command
        .env("LD_PRELOAD", faketime_library())
        .env("FAKETIME_TIMESTAMP_FILE", place.path("time"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    let app = Foreground::of(command);
    let site = &app.site;
    let year = |wire: &mut Wire| -> i32 {
        let answer = wire.get("/hello");
        assert_eq!(answer.text(), "Hello, World!");
        assert_eq!(answer.header("Connection"), None);
        let date = answer.header("Date").unwrap();
        date.split(' ').nth(3).unwrap().parse().unwrap()
    };
    let old = worker(site.pid);
    let mut idle: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    for wire in &mut idle {
        assert_eq!(wire.get("/hello").status, 200);
    }
    let now = year(&mut idle[0]);
    let mut silent = site.connect();
    let mut held = place.hold(site, "a");
    let mut body = site.connect();
    body.send(post("/echo", "abc").trim_end_matches('c'));
    let mut long = site.connect();
    long.send("POST /count HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n");
    long.send("b".repeat(100_000));
    let mut head = site.connect();
    head.send("GET /hello HTTP/1.1\r\nHo");
    let mut reader = site.connect();
    reader.send(get("/stream?pieces=1000&size=30000"));
    reader.wait_begun();
    let mut queue = [-400, 400, 0].into_iter();
    for days in [400, -400, 800] {
        jump(days);
        // The date is made anew once a second.
        let (least, most) = match days {
            400 => (now + 1, now + 2),
            -400 => (now - 2, now - 1),
            _ => (now + 2, now + 3),
        };
        wait_until(10, "Date follows", || {
            (least..=most).contains(&year(&mut idle[0]))
        });
        holds_for(200, "nothing is closed", || {
            let all = idle.iter_mut().chain([&mut silent, &mut held]);
            all.chain([&mut body, &mut long, &mut head])
                .all(Wire::is_quiet)
        });
        // Then back, or on, at once.
        jump(queue.next().unwrap());
        assert_eq!(site.get("/hello").status, 200);
        assert!(idle[1].is_quiet());
        assert_eq!(idle[1].get("/hello").status, 200);
    }
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    body.send("c");
    assert_eq!(body.answer().text(), "abc");
    long.send("b".repeat(100_000));
    assert_eq!(long.answer().text(), "200000\n");
    head.send("st: t\r\n\r\n");
    assert_eq!(head.answer().text(), "Hello, World!");
    assert_eq!(reader.answer().body.len(), 30_000_000);
    assert_eq!(silent.get("/hello").text(), "Hello, World!");
    assert_eq!(worker(site.pid), old);
    assert_eq!(place.fact("connections"), "9");
    let log = place.log();
    for word in ["refused with", "closed:", "panic", "a handler has been"] {
        assert!(!log.contains(word), "{word}");
    }
}
