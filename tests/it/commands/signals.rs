//! Signals from outside, to the master, to the worker, and to everything that runs in the foreground.

use crate::support::{
    Foreground, Place, finish, freeze, has, is_alive, signal, wait_until, was_soon, workers,
};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const IN_FOREGROUND: [&str; 6] = [
    "app",
    "start",
    "--address",
    "127.0.0.1:0",
    "--set",
    "app.log_file=run/app.log",
];

/// A demo in the foreground that leads a process group, as a shell would start it.
fn group(place: &Place) -> Foreground {
    let mut command = place.command(&IN_FOREGROUND);
    command.process_group(0);
    Foreground::of(command)
}

fn signal_group(leader: u32, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.args([&format!("-{name}"), "--", &format!("-{leader}")]);
    assert!(status.status().unwrap().success());
}

#[test]
fn term_int_and_quit_finish_what_is_in_flight_and_leave() {
    for name in ["TERM", "INT", "QUIT"] {
        let place = Place::demo();
        let mut app = place.foreground_with_log(&[]);
        let mut held = place.hold(&app.site, "a");
        app.signal(name);
        app.site.wait_refused();
        place.release("a");
        assert_eq!(held.answer().text(), "held\n");
        drop(held);
        assert_eq!(app.end(), Some(0), "{name}");
        place.wait_empty(0);
        assert_eq!(place.read("run/app.pid"), "");
        let log = place.log();
        assert!(log.contains(&format!("signal {name}: leaving\n")), "{log}");
        assert!(
            log.contains("stopped, 1 requests finished, 0 cut\n"),
            "{log}"
        );
    }
}

/// Ctrl-C and Ctrl-\ reach master and worker alike; so does a `kill` of the whole group.
#[test]
fn a_signal_to_the_whole_group_finishes_what_is_in_flight_too() {
    for name in ["TERM", "INT", "QUIT"] {
        let place = Place::demo();
        let mut app = group(&place);
        let mut held = place.hold(&app.site, "a");
        signal_group(app.child.id(), name);
        app.site.wait_refused();
        place.release("a");
        assert_eq!(held.answer().text(), "held\n", "{name}");
        drop(held);
        assert_eq!(app.end(), Some(0), "{name}");
        place.wait_empty(0);
        let log = place.log();
        assert!(
            log.contains("stopped, 1 requests finished, 0 cut\n"),
            "{log}"
        );
    }
}

#[test]
fn a_signal_to_the_whole_idle_group_starts_no_new_worker() {
    for name in ["TERM", "INT", "TERM", "QUIT", "TERM"] {
        let place = Place::demo();
        let mut app = group(&place);
        signal_group(app.child.id(), name);
        assert_eq!(app.end(), Some(0), "{name}");
        place.wait_empty(1);
        let log = place.log();
        assert_eq!(log.matches("worker ready").count(), 1, "{name}: {log}");
        assert!(!log.contains(" exited, "), "{name}: {log}");
    }
}

/// The worker may be the faster one: then the master learns of both in one look.
#[test]
fn a_worker_that_leaves_before_the_master_looks_is_not_replaced() {
    let place = Place::demo();
    let mut app = group(&place);
    let (master, worker) = (app.child.id(), app.site.worker());
    freeze(master);
    signal_group(master, "TERM");
    wait_until(5, "the worker is gone", || !is_alive(worker));
    signal(master, "CONT");
    assert_eq!(app.end(), Some(0));
    place.wait_empty(1);
    assert_eq!(place.log().matches("worker ready").count(), 1);
}

#[test]
fn a_daemon_survives_a_hang_up() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    signal(worker, "HUP");
    // To the master it means a restart.
    signal(site.pid, "HUP");
    place.wait_for_log(" restarted, ");
    assert!(is_alive(site.pid) && !is_alive(worker));
    assert_eq!(site.get("/hello").text(), "Hello, World!");
}

/// A terminal with the program in it; its hang-up comes with the end of standard input.
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
sys.stdin.read()
os.close(fd)
"#;

#[test]
fn a_hang_up_of_its_terminal_ends_the_one_in_the_foreground() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let mut command = place.wrapped(&["python3", "-c", TERMINAL], &IN_FOREGROUND);
    command.stdin(Stdio::piped());
    let mut terminal = Foreground::of(command);
    let site = terminal.site.clone();
    let mut held = place.hold(&site, "a");
    drop(terminal.child.stdin.take());
    assert_eq!(terminal.end(), Some(0));
    place.wait_for_log("signal HUP: the terminal is gone, leaving");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    drop(held);
    place.wait_empty(5);
    assert!(
        place
            .log()
            .contains("stopped, 1 requests finished, 0 cut\n")
    );
}

#[test]
fn ctrl_c_in_a_terminal_ends_the_one_in_the_foreground() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    // The terminal itself turns the byte into a signal to the group.
    let script = TERMINAL.replace(
        "sys.stdin.read()",
        "sys.stdin.read(1); os.write(fd, b'\\x03')\nprint(os.waitpid(pid, 0)[1])",
    );
    let mut command = place.wrapped(&["python3", "-c", &script], &IN_FOREGROUND);
    command.stdin(Stdio::piped());
    let mut terminal = Foreground::of(command);
    let mut held = place.hold(&terminal.site, "a");
    terminal
        .child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"c")
        .unwrap();
    terminal.site.wait_refused();
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    drop(held);
    assert_eq!(terminal.end(), Some(0));
    let mut status = String::new();
    terminal
        .child
        .stdout
        .as_mut()
        .unwrap()
        .read_to_string(&mut status)
        .unwrap();
    assert_eq!(status, "0\n");
    place.wait_empty(1);
    assert!(place.log().contains("signal INT: leaving"));
}

#[test]
fn under_nohup_a_hang_up_is_nothing() {
    if !has("nohup") {
        return;
    }
    let place = Place::demo();
    let mut app = Foreground::of(place.wrapped(&["nohup"], &IN_FOREGROUND));
    let worker = app.site.worker();
    for _ in 0..3 {
        signal(app.site.pid, "HUP");
        signal(worker, "HUP");
        assert_eq!(app.site.get("/hello").status, 200);
    }
    assert_eq!(app.site.get("/pid").text(), worker.to_string());
    app.signal("TERM");
    assert_eq!(app.end(), Some(0));
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn usr1_reopens_the_log_and_no_line_is_lost() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.workers=2"]);
    let over = AtomicBool::new(false);
    let panics = std::thread::scope(|scope| {
        let load = || {
            let mut count = 0;
            while !over.load(Ordering::SeqCst) {
                assert_eq!(site.get("/panic").status, 500);
                count += 1;
            }
            count
        };
        let loads = [scope.spawn(load), scope.spawn(load)];
        for round in 1..=5 {
            let old = place.path(&format!("run/app.log.{round}"));
            std::fs::rename(place.path("run/app.log"), &old).unwrap();
            signal(site.pid, "USR1");
            let mut all = workers(site.pid);
            all.push(site.pid);
            // Once each process has the new file open, nobody can write to the old one.
            wait_until(5, "everybody has the new file", || {
                all.iter().all(|pid| {
                    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
                    let mut links = files
                        .flatten()
                        .filter_map(|fd| std::fs::read_link(fd.path()).ok());
                    links.all(|link| link != old)
                })
            });
            let before = old.metadata().unwrap().len();
            let new = place.log().matches("asked to").count();
            wait_until(5, "lines come into the new file", || {
                place.log().matches("asked to").count() > new + 10
            });
            assert_eq!(old.metadata().unwrap().len(), before);
            assert_eq!(mode(&place.path("run/app.log")), 0o640);
        }
        over.store(true, Ordering::SeqCst);
        loads
            .into_iter()
            .map(|load| load.join().unwrap())
            .sum::<usize>()
    });
    let mut text = place.log();
    (1..=5).for_each(|round| text += &place.read(&format!("run/app.log.{round}")));
    assert_eq!(text.matches("asked to").count(), panics);
    assert_eq!(text.matches("log reopened").count(), 5);
    assert!(!text.contains("lost") && text.lines().all(|line| line.starts_with("20")));
}

#[test]
fn usr1_in_the_foreground_without_a_log_file_is_harmless() {
    let place = Place::demo();
    let mut app = place.foreground(&[]);
    signal(app.site.pid, "USR1");
    signal(app.site.worker(), "USR1");
    assert_eq!(app.site.get("/hello").status, 200);
    app.signal("TERM");
    assert_eq!(app.end(), Some(0));
    assert!(!place.path("run/app.log").exists());
}

#[test]
fn a_log_that_cannot_be_reopened_is_said_in_the_old_one() {
    let place = Place::demo();
    let site = place.start(&[]);
    std::fs::rename(place.path("run/app.log"), place.path("old")).unwrap();
    std::fs::create_dir(place.path("run/app.log")).unwrap();
    signal(site.pid, "USR1");
    wait_until(5, "the master says so", || {
        place.read("old").contains("cannot reopen the log: ")
    });
    // It alone opens files; the worker goes on in the old one.
    assert_eq!(site.get("/panic").status, 500);
    place.app(&["stop"]).ok();
    let old = place.read("old");
    assert_eq!(old.matches("cannot reopen the log: ").count(), 1, "{old}");
    assert!(
        old.contains(" panic in ") && old.contains(" stopped, "),
        "{old}"
    );
    std::fs::remove_dir(place.path("run/app.log")).unwrap();
}

#[test]
fn a_broken_pipe_is_ignored() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    signal(site.pid, "PIPE");
    signal(worker, "PIPE");
    for pid in [site.pid, worker] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let ignored = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:\t"))
            .unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        assert_eq!(ignored & 1 << 12, 1 << 12, "SIGPIPE is bit 12");
        assert!(is_alive(pid));
    }
    assert_eq!(site.get("/pid").text(), worker.to_string());
}

/// The reader of its standard output goes away, as `hade app start | head -1` has it.
#[test]
fn a_closed_standard_output_ends_nothing() {
    let place = Place::demo();
    let mut app = place.foreground(&[]);
    drop(app.child.stdout.take());
    drop(app.child.stderr.take());
    assert_eq!(app.site.get("/panic").status, 500);
    assert_eq!(app.site.get("/hello").status, 200);
    app.signal("TERM");
    assert_eq!(app.end(), Some(0));
}

#[test]
fn a_thousand_usr1_do_not_lose_a_term() {
    let place = Place::demo();
    let site = place.start(&[]);
    let script = "i=0; while [ $i -lt 1000 ]; do kill -USR1 $0; i=$((i+1)); done; kill -TERM $0";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, &site.pid.to_string()]);
    assert!(shell.status().unwrap().success());
    wait_until(5, "it is gone", || !is_alive(site.pid));
    place.wait_empty(1);
    assert!(
        place
            .log()
            .contains("stopped, 0 requests finished, 0 cut\n")
    );
}

#[test]
fn a_stop_reaches_a_worker_that_slept_through_many_reopened_logs() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=2"]);
    let worker = site.worker();
    let mut held = place.hold(&site, "a");
    freeze(worker);
    for round in 1..=400 {
        signal(site.pid, "USR1");
        wait_until(5, "the master has reopened it", || {
            place.log().matches("log reopened").count() >= round
        });
    }
    signal(site.pid, "TERM");
    place.wait_for_log("signal TERM: leaving");
    signal(worker, "CONT");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    drop(held);
    wait_until(5, "it is gone", || !is_alive(site.pid));
    assert!(!place.log().contains("had to be killed"));
}

#[test]
fn a_worker_that_does_not_hear_is_killed_a_little_after_close_wait() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=1"]);
    let worker = site.worker();
    let mut wire = site.connect();
    assert_eq!(wire.get("/hello").status, 200);
    freeze(worker);
    let begun = Instant::now();
    let said = finish(place.begin(&["stop"])).ok();
    let took = begun.elapsed();
    assert!(
        said.starts_with(&format!("demo: stopped pid {} after ", site.pid)),
        "{said}"
    );
    assert!(took > Duration::from_secs(1), "{took:?}");
    was_soon(begun, 3000);
    place.wait_empty(0);
    assert!(place.log().contains(&format!(
        "worker {worker} did not leave in time and was killed\n"
    )));
    assert!(wire.is_gone());
}

/// A TERM to a worker alone is the operator's way to replace it.
#[test]
fn a_worker_told_to_leave_finishes_its_requests_and_is_replaced() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    let mut held = place.hold(&site, "a");
    signal(worker, "TERM");
    place.wait_for_log("signal TERM: draining");
    place.wait_for_log(&format!("worker {worker} was told to leave\n"));
    // The next one serves while this one is still at it.
    for _ in 0..10 {
        assert_eq!(site.get("/hello").text(), "Hello, World!");
    }
    assert!(is_alive(worker));
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    drop(held);
    site.wait_replaced(worker, 1);
    let state = place.app(&["state", "--json"]).ok();
    assert!(state.contains("\"worker_deaths\":0"), "{state}");
}
