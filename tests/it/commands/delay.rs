//! A stop that is put off, `app.stop_delay`: everything goes on meanwhile, but for what tells a balancer to look elsewhere.

use crate::support::{
    Foreground, Place, Site, finish, get, has, holds_for, is_alive, run, signal, wait_until,
    workers,
};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// No test lives to see its end.
const LONG: [&str; 2] = ["--set", "stop_delay=600"];

/// Every answer is the last of its connection, and the health path says that a stop is coming.
#[track_caller]
fn says_that_it_stops(site: &Site) {
    wait_until(5, "it is unhealthy", || site.get("/healthz").status == 503);
    for target in ["/healthz", "/hello"] {
        let mut wire = site.connect();
        wire.send(get(target));
        let answer = wire.answer();
        assert_eq!(answer.header("Connection"), Some("close"), "{target}");
        assert!(wire.is_closed());
    }
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    assert_eq!(
        site.get("/healthz").text(),
        "503 Service Unavailable: draining\n"
    );
}

#[test]
fn it_serves_on_says_so_and_a_signal_ends_the_wait() {
    let place = Place::demo();
    let site = place.start(&LONG);
    let mut kept = site.connect();
    assert_eq!(kept.get("/hello").header("Connection"), None);
    let mut held = place.hold(&site, "a");
    signal(site.pid, "TERM");
    says_that_it_stops(&site);
    assert!(place.log().contains(
        "signal TERM: leaving in 600 s, and serving until then; a signal ends the wait\n"
    ));
    // Who was here before may ask once more.
    let answer = kept.get("/hello");
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (200, Some("close"))
    );
    let refused = place.app(&["restart"]).failed(1);
    assert!(refused.contains("it is stopping"), "{refused}");
    assert_eq!(place.fact("generation"), "1");
    assert!(place.app(&["state"]).ok().contains(" serving, up "));
    // The next one ends the wait: what is in flight is still finished.
    signal(site.pid, "TERM");
    site.wait_refused();
    assert!(is_alive(site.pid));
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    place.wait_empty(10);
    assert!(
        place
            .log()
            .contains("stopped, 1 requests finished, 0 cut\n")
    );
}

#[test]
fn the_third_signal_leaves_at_once() {
    let place = Place::demo();
    let site = place.start(&[&LONG[..], &["--set", "close_wait=600"]].concat());
    let _held = place.hold(&site, "a");
    signal(site.pid, "TERM");
    says_that_it_stops(&site);
    signal(site.pid, "TERM");
    site.wait_refused();
    signal(site.pid, "TERM");
    place.wait_empty(10);
    assert!(place.log().contains("cut: GET /hold"));
}

#[test]
fn a_health_path_of_the_program_and_the_next_worker_say_it_too() {
    let place = Place::demo();
    let mut command = place.command(&["app", "start", "-d", "--address", "127.0.0.1:0"]);
    command.args(LONG).env("DEMO_HEALTH", "1");
    let site = Site::of(&run(&mut command).ok());
    assert_eq!(site.get("/healthz").text(), "mine\n");
    signal(site.pid, "TERM");
    says_that_it_stops(&site);
    let worker = site.worker();
    signal(worker, "KILL");
    site.wait_replaced(worker, 1);
    says_that_it_stops(&site);
    signal(site.pid, "TERM");
    place.wait_empty(10);
}

#[test]
fn stop_waits_for_the_delay_of_what_runs() {
    let place = Place::demo();
    // The command itself knows of no delay, and would give up after 2 s.
    let more = ["--set", "stop_delay=4", "--set", "close_wait=0"];
    let site = place.start(&more);
    let begun = Instant::now();
    let stop = place.begin(&["stop"]);
    says_that_it_stops(&site);
    let said = finish(stop).ok();
    assert!(
        said.contains(&format!("stopped pid {} after ", site.pid)),
        "{said}"
    );
    assert!(begun.elapsed() >= Duration::from_secs(4));
}

#[test]
fn a_restart_has_no_delay_and_hands_it_on() {
    let place = Place::demo();
    let site = place.start(&LONG);
    let old = workers(site.pid);
    place.app(&["restart"]).ok();
    assert_ne!(workers(site.pid), old);
    assert_eq!(site.get("/healthz").status, 200);
    signal(site.pid, "TERM");
    says_that_it_stops(&site);
    holds_for(300, "it serves", || site.get("/hello").status == 200);
    signal(site.pid, "TERM");
    place.wait_empty(10);
}

/// Runs a program in a terminal of its own, and types Ctrl-C into that when it is told to.
const TERMINAL: &str = r#"
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
text = b""
while not (text.endswith(b"\n") and b"\n  log " in text):
    text += os.read(fd, 1)
sys.stdout.write(text.decode().replace("\r\n", "\n"))
sys.stdout.flush()
sys.stdin.read(1)
os.write(fd, b"\x03")
os.waitpid(pid, 0)
"#;

#[test]
fn ctrl_c_at_a_terminal_skips_it() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let mut command = place.wrapped(&["python3", "-c", TERMINAL], &args);
    command.args(LONG).args(["--set", "log_file=run/app.log"]);
    command.stdin(Stdio::piped());
    let mut terminal = Foreground::of(command);
    let stdin = terminal.child.stdin.as_mut().unwrap();
    stdin.write_all(b"c").unwrap();
    place.wait_empty(10);
}
