//! What every signal does to master and workers, before a restart and behind it, and what programs started by handlers
//! inherit.

use crate::support::{
    Foreground, Place, finish, has, holds_for, is_alive, signal, wait_until, workers,
};
use std::process::{Command, Stdio};

/// What `/proc/PID/status` says of a set of signals.
fn set(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    u64::from_str_radix(line.unwrap().trim_start_matches(":\t"), 16).unwrap()
}

/// Those that mean nothing: said once by each process that they reach.
const NOTHING: [&str; 9] = [
    "ALRM", "VTALRM", "PROF", "IO", "XCPU", "TTIN", "TTOU", "RTMIN", "RTMAX-1",
];
/// A failed write is news enough.
const SILENT: [&str; 2] = ["XFSZ", "PIPE"];

/// `kill(1)` of util-linux and procps differ in what real-time signals they know; bash's knows all.
fn kill(pid: u32, name: &str) {
    let line = format!("kill -{name} {pid}");
    let status = Command::new("bash").args(["-c", &line]).status().unwrap();
    assert!(status.success(), "{line}");
}

#[test]
fn what_means_nothing_ends_nobody_and_is_said_once() {
    if !has("bash") {
        return;
    }
    let place = Place::demo();
    let site = place.start_copy(&[]);
    for round in 0..2 {
        let worker = site.worker();
        for pid in [site.pid, worker] {
            for name in NOTHING.iter().chain(&SILENT) {
                // More than once: it is said once all the same.
                (0..3).for_each(|_| kill(pid, name));
            }
        }
        for name in NOTHING {
            let name = match name {
                "RTMIN" => "RTMIN+0",
                "RTMAX-1" => "RTMIN+29",
                name => name,
            };
            for pid in [site.pid, worker] {
                let words = format!(" warn {pid} signal {name}: means nothing here");
                place.wait_for_log(&words);
                // A restart executes another program in the master's place, which has said nothing yet.
                let times = if pid == site.pid { round + 1 } else { 1 };
                let log = place.log();
                assert_eq!(log.matches(&words).count(), times, "{words}: {log}");
            }
        }
        assert_eq!(site.get("/pid").text(), worker.to_string());
        assert!(is_alive(site.pid));
        let log = place.log();
        assert!(!log.contains("XFSZ") && !log.contains("PIPE"), "{log}");
        if round == 0 {
            place.app_of("prog", &["restart"]).ok();
        }
    }
}

#[test]
fn usr2_restarts_and_a_worker_does_not_mind() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    for _ in 0..2 {
        let worker = site.worker();
        signal(worker, "USR2");
        assert_eq!(site.get("/pid").text(), worker.to_string());
        let before = place.log().matches(" restarted, ").count();
        signal(site.pid, "USR2");
        wait_until(20, "another worker", || {
            place.log().matches(" restarted, ").count() > before && !is_alive(worker)
        });
        assert!(place.log().contains("signal USR2: restarting"));
    }
    assert_eq!(site.get("/hello").text(), "Hello, World!");
}

#[test]
fn power_fails_and_systemd_says_stop() {
    if !has("bash") {
        return;
    }
    for name in ["PWR", "RTMIN+3"] {
        let place = Place::demo();
        let mut app = place.foreground_with_log(&[]);
        // Whatever reaches the whole group reaches the worker too.
        kill(app.site.worker(), name);
        let mut held = place.hold(&app.site, "a");
        kill(app.child.id(), name);
        app.site.wait_refused();
        place.wait_for_log(&format!("signal {name}: leaving\n"));
        place.wait_for_log(
            "1 request in flight, waited for 5 s at most; a second signal cuts them\n",
        );
        place.release("a");
        assert_eq!(held.answer().text(), "held\n");
        drop(held);
        assert_eq!(app.end(), Some(0), "{name}");
        place.wait_empty(1);
    }
}

#[test]
fn a_second_one_of_another_name_leaves_at_once() {
    let place = Place::demo();
    let mut app = place.foreground_with_log(&["--set", "app.close_wait=3600"]);
    let held = place.hold(&app.site, "a");
    app.signal("PWR");
    app.site.wait_refused();
    app.signal("INT");
    assert_eq!(app.end(), Some(0));
    place.wait_for_log("stopped, 0 requests finished, 1 cut");
    drop(held);
}

/// A program in a terminal of its own that stays there until standard input ends.
const TERMINAL: &str = r#"
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
text = b""
def until(end):
    global text
    while end not in text:
        text += os.read(fd, 4096)
until(b"\n  log ")
sys.stdout.write(text.decode().replace("\r\n", "\n") + "\n  log \n")
sys.stdout.flush()
"#;

#[test]
fn a_hang_up_restarts_while_the_terminal_is_there() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    let prog = place.path("prog");
    let script = format!("{TERMINAL}sys.stdin.read()\nos.close(fd)\n");
    let mut command = Command::new("python3");
    command
        .args(["-c", &script, prog.to_str().unwrap(), "app", "start"])
        .args(["--address", "127.0.0.1:0"])
        .args(["--set", "app.log_file=run/app.log"])
        .current_dir(&place.dir)
        .stdin(Stdio::piped());
    let mut terminal = Foreground::of(command);
    let site = terminal.site.clone();
    for times in 1..=2 {
        signal(site.pid, "HUP");
        wait_until(20, "it has restarted", || {
            place.log().matches(" restarted, ").count() == times
        });
    }
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    // And then it hangs up.
    drop(terminal.child.stdin.take());
    assert_eq!(terminal.end(), Some(0));
    place.wait_for_log("signal HUP: the terminal is gone, leaving");
    place.wait_empty(5);
}

#[test]
fn ctrl_c_with_requests_in_flight_says_what_is_waited_for() {
    if !has("python3") {
        return;
    }
    for log in [None, Some("app.log_file=run/app.log")] {
        let place = Place::demo();
        let script = format!(
            "{TERMINAL}sys.stdin.read(1); os.write(fd, b'\\x03')\nuntil(b'cuts them')\n\
             sys.stdout.write(text.decode()); sys.stdout.flush()\nprint(os.waitpid(pid, 0)[1])"
        );
        let mut args = vec!["app", "start", "--address", "127.0.0.1:0"];
        args.extend(log.iter().flat_map(|log| ["--set", log]));
        let mut command = place.wrapped(&["python3", "-c", &script], &args);
        command.stdin(Stdio::piped());
        let mut terminal = Foreground::of(command);
        let held = place.hold(&terminal.site, "a");
        use std::io::{Read, Write};
        terminal
            .child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"c")
            .unwrap();
        terminal.site.wait_refused();
        place.release("a");
        let mut text = String::new();
        terminal
            .child
            .stdout
            .as_mut()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        drop(held);
        assert!(text.ends_with("\n0\n"), "{text}");
        let words = "1 request in flight, waited for 5 s at most; a second signal cuts them\r\n";
        assert_eq!(text.matches(words).count(), 1, "{text}");
        assert_eq!(terminal.end(), Some(0));
    }
}

#[test]
fn a_stop_in_the_first_moments_of_a_start_is_heard() {
    if !has("strace") {
        return;
    }
    let place = Place::new();
    place.write("etc/app.conf", "app.close_wait = 1\n");
    // The signal comes while the settings are read.
    let conf = place.path("etc/app.conf");
    let trace = ["strace", "-f", "-o", "trace", "-P", conf.to_str().unwrap()];
    let inject = ["-e", "inject=openat,open,read:signal=TERM:when=1"];
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let before = [&trace[..], &inject[..]].concat();
    let mut command = place.wrapped(&before, &args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = finish(command.spawn().unwrap());
    let trace = place.read("trace");
    assert!(trace.contains("SIGTERM"), "{trace}");
    assert_eq!(done.code, Some(0), "{done:?} {trace}");
    assert!(done.out.contains("signal TERM: leaving"), "{done:?}");
    place.wait_empty(1);
}

/// What a file's size is limited to is a failed write of the log, for whoever makes it.
#[test]
fn a_limit_of_file_sizes_ends_nobody() {
    if !has("prlimit") {
        return;
    }
    let place = Place::demo();
    let args = ["app", "start", "--daemon", "--address", "127.0.0.1:0"];
    let mut command = place.wrapped(&["prlimit", "--fsize=131072"], &args);
    let site = crate::support::Site::of(&crate::support::run(&mut command).ok());
    let worker = site.worker();
    place.sh(
        "head -c 131072 /dev/zero | tr '\\0' '\\n' >>run/app.log",
        &[],
    );
    signal(site.pid, "HUP");
    wait_until(20, "it has restarted", || {
        !is_alive(worker) && workers(site.pid).len() == 1
    });
    assert_eq!(site.get("/panic").status, 500);
    assert_eq!(site.get("/hello").status, 200);
    assert!(is_alive(site.pid));
    place.app(&["stop"]).ok();
}

/// What the processes catch or ignore is not what the programs are to begin with that they start.
#[test]
fn no_signal_but_a_broken_pipe_is_ignored() {
    let place = Place::demo();
    let site = place.start(&[]);
    for pid in [site.pid, site.worker()] {
        let (ignored, caught) = (set(pid, "SigIgn"), set(pid, "SigCgt"));
        // 32, 33 and, for musl, 34 belong to the C library.
        let bit = |number: u32| 1 << (number - 1);
        assert_eq!(ignored & !(7 << 31), bit(13), "{ignored:x}");
        for number in [
            1, 2, 3, 10, 12, 14, 15, 21, 22, 24, 25, 26, 27, 29, 30, 35, 64,
        ] {
            assert_ne!(caught & bit(number), 0, "{number}: {caught:x}");
        }
        // Real faults, TSTP, CONT, WINCH.
        for number in [5, 6, 18, 20, 23, 28, 31] {
            assert_eq!(caught & bit(number), 0, "{number}: {caught:x}");
        }
    }
}

/// A terminal with `tostop` set sends TTOU to the whole group of who writes to it from the background; caught and
/// made again the write would come back for ever.
#[test]
fn in_the_background_of_a_terminal_it_writes_and_goes_on() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let script = r#"
import os, pty, sys, termios
pid, fd = pty.fork()
if pid == 0:
    settings = termios.tcgetattr(1)
    settings[3] |= termios.TOSTOP
    termios.tcsetattr(1, termios.TCSANOW, settings)
    # The leader of the session keeps the terminal's foreground.
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.execv(sys.argv[1], sys.argv[1:])
    os.waitpid(child, 0)
    os._exit(0)
while True:
    try:
        sys.stdout.write(os.read(fd, 4096).decode().replace("\r\n", "\n"))
        sys.stdout.flush()
    except OSError:
        break
"#;
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let mut command = place.wrapped(&["python3", "-c", script], &args);
    command.stderr(Stdio::null());
    let mut app = Foreground::of(command);
    assert_eq!(app.site.get("/hello").status, 200);
    assert_eq!(app.site.get("/panic").status, 500);
    holds_for(100, "it runs", || is_alive(app.site.pid));
    signal(app.site.pid, "TERM");
    assert_eq!(app.end(), Some(0));
}
