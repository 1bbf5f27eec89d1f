//! `app stop`.

use crate::commands::state::make_public;
use crate::look::{
    AS_NOBODY, FORBIDDEN_PIDFD, WITHOUT_PIDFD, WITHOUT_PIDFD_SIGNALS, is_root, nothing_left,
    open_to_all, own_address,
};
use crate::support::{
    Place, Site, freeze, has, is_alive, run, signal, wait_until, was_soon, workers, working_in,
};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Instant;

/// "hade: stopped pid 4711 after 0.0 s; 0 requests finished, 0 cut", or "hade: killed pid 4711 after 2.0 s", and
/// nothing else.
#[track_caller]
fn is_report(said: &str, how: &str, pid: u32) {
    let start = format!("hade: {how} pid {pid} after ");
    let rest = said
        .strip_prefix(&start)
        .and_then(|rest| rest.strip_suffix('\n'));
    let rest = match how {
        "killed" => rest,
        _ => rest.and_then(|rest| rest.strip_suffix(" requests finished, 0 cut")),
    };
    let seconds = rest
        .and_then(|rest| rest.split_once(" s"))
        .map(|(seconds, _)| seconds);
    assert!(
        seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok()) && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn stop_returns_when_the_process_is_gone_and_not_before() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    wire.send("GET /slow?ms=400 HTTP/1.1\r\nHost: x\r\n\r\n");
    // In flight, once a handler has it.
    let worker = workers(site.pid)[0];
    wait_until(5, "the request is read", || {
        let mut probe = site.connect();
        probe.send("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        probe.answer().status == 200
    });
    let mut stop = place
        .command(&["app", "stop"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(5, "draining", || place.log().contains("leaving"));
    if is_alive(site.pid) {
        assert_eq!(
            place.pid(),
            Some(site.pid),
            "the file is the master's to empty"
        );
    }
    assert_eq!(wire.answer().status, 200);
    assert!(stop.wait().unwrap().success());
    assert!(!is_alive(site.pid) && !is_alive(worker));
    assert_eq!(place.read("run/app.pid"), "");
    nothing_left(&place);
}

#[test]
fn nothing_to_stop_is_success() {
    let place = Place::new();
    for flags in [&["stop"][..], &["stop", "--force"]] {
        assert_eq!(
            place.app(flags).ok(),
            "hade: not running; no pid file and no socket in run/\n"
        );
    }
    assert!(!place.path("run").exists());
}

#[test]
fn stop_ends_a_start_in_the_foreground() {
    let place = Place::new();
    let mut front = place.foreground(&[]);
    is_report(&place.app(&["stop"]).ok(), "stopped", front.child.id());
    assert_eq!(front.end(), Some(0));
}

#[test]
fn two_stops_at_the_same_moment_both_succeed() {
    for _ in 0..10 {
        let place = Place::new();
        place.start(&[]);
        let stops = [(); 2].map(|()| {
            place
                .command(&["app", "stop"])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        for stop in stops {
            let output = stop.wait_with_output().unwrap();
            assert_eq!(
                (output.status.code(), String::from_utf8(output.stderr)),
                (Some(0), Ok(String::new()))
            );
        }
        nothing_left(&place);
    }
}

#[test]
fn a_dead_master_that_its_parent_has_not_collected_counts_as_gone() {
    for before in [&[][..], &WITHOUT_PIDFD] {
        if !(before.is_empty() || has("python3")) {
            return;
        }
        let place = Place::new();
        // This process is the parent, and does not look.
        let front = place.foreground(&[]);
        let pid = front.child.id();
        let begun = Instant::now();
        let said = run(&mut place.wrapped(before, &["app", "stop"])).ok();
        is_report(&said, "stopped", pid);
        was_soon(begun, 5000);
        // Its lock is free a moment before it is dead altogether.
        wait_until(5, "it is a zombie", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.contains(") Z ")
        });
        assert_eq!(place.app(&["state"]).code, Some(3));
        assert_eq!(place.app(&["stop"]).ok(), "hade: not running\n");
        let args = ["app", "restart", "--address", "127.0.0.1:0"];
        let text = run(&mut place.wrapped(before, &args)).ok();
        assert_ne!(Site::of(&text).pid, pid);
    }
}

#[test]
fn an_old_kernel_without_pidfd_will_do() {
    if !has("python3") {
        return;
    }
    for before in [WITHOUT_PIDFD, FORBIDDEN_PIDFD, WITHOUT_PIDFD_SIGNALS] {
        let place = Place::demo();
        let first = place.start(&[]);
        let mut wire = first.connect();
        wire.send("GET /slow?ms=200 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(first.get("/hello").status, 200);
        let text = run(&mut place.wrapped(&before, &["app", "restart", "--cold"])).ok();
        assert_eq!(wire.answer().status, 200);
        assert!(text.starts_with(&format!("demo: stopped pid {} after ", first.pid)));
        let pid = place.pid().unwrap();
        let said = run(&mut place.wrapped(&before, &["app", "stop"])).ok();
        is_report(&said.replace("demo", "hade"), "stopped", pid);
        // Without a pidfd its end is seen by its lock, which is free a moment before it is dead altogether.
        place.wait_empty(5);
        nothing_left(&place);
    }
}

#[test]
fn an_old_kernel_waits_no_longer_than_a_new_one_and_kills_when_told() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    let site = place.start(&["--set", "close_wait=0"]);
    freeze(site.pid);
    let args = ["app", "stop", "--force", "--set", "close_wait=0"];
    let said = run(&mut place.wrapped(&WITHOUT_PIDFD, &args)).ok();
    is_report(&said, "killed", site.pid);
    assert!(!is_alive(site.pid));
}

#[test]
fn a_master_that_does_not_leave_is_named_and_force_kills_it() {
    let place = Place::new();
    let address = own_address();
    let text = place
        .app(&[
            "start",
            "-d",
            "--address",
            &address,
            "--set",
            "close_wait=0",
        ])
        .ok();
    let site = Site::of(&text);
    let worker = workers(site.pid)[0];
    freeze(site.pid);
    assert_eq!(
        place.app(&["stop", "--set", "close_wait=0"]).failed(1),
        format!(
            "hade: pid {} still there after 2.0 s; wait, or end it with \"app stop --force\"\n",
            site.pid
        )
    );
    assert!(is_alive(site.pid));
    let said = place
        .app(&["stop", "--force", "--set", "close_wait=0"])
        .ok();
    is_report(&said, "killed", site.pid);
    assert!(!is_alive(site.pid));
    wait_until(5, "the worker leaves", || !is_alive(worker));
    assert_eq!(working_in(&place.dir), []);
    TcpListener::bind(&address).expect("the port is free");
    assert_eq!(place.app(&["state"]).code, Some(1));
    place.app(&["start", "-d", "--address", &address]).ok();
}

#[test]
fn a_signal_to_every_process_is_a_stop_and_no_crash() {
    // As systemd sends it (KillMode=control-group), and a shutdown: master and worker hear it
    // at the same moment.
    for _ in 0..20 {
        let place = Place::new();
        let site = place.start(&[]);
        let mut kill = std::process::Command::new("kill");
        kill.args(["-TERM", "--", &format!("-{}", site.pid)]);
        assert!(kill.status().unwrap().success());
        wait_until(5, "the master leaves", || !is_alive(site.pid));
        assert_eq!(working_in(&place.dir), [], "it waits for its workers");
        let log = place.log();
        assert_eq!(place.trouble(), "");
        assert_eq!(log.matches("worker ready").count(), 1, "{log}");
        nothing_left(&place);
    }
}

#[test]
fn after_a_forced_stop_the_port_is_free_at_once() {
    let place = Place::new();
    let address = own_address();
    let args = [
        "start",
        "-d",
        "--address",
        &address,
        "--set",
        "close_wait=0",
    ];
    let site = Site::of(&place.app(&args).ok());
    freeze(site.pid);
    place
        .app(&["stop", "--force", "--set", "close_wait=0"])
        .ok();
    place.app(&args).ok();
}

#[test]
fn a_master_that_was_stopped_leaves_as_soon_as_it_goes_on() {
    let place = Place::new();
    let site = place.start(&[]);
    freeze(site.pid);
    let stop = place
        .command(&["app", "stop"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Pending, for a stopped process cannot take it: bit 14 is TERM.
    wait_until(5, "TERM is pending", || {
        let pending = crate::look::status(site.pid, "ShdPnd");
        u64::from_str_radix(&pending, 16).unwrap() & (1 << 14) != 0
    });
    signal(site.pid, "CONT");
    let output = stop.wait_with_output().unwrap();
    assert!(output.status.success());
    is_report(
        &String::from_utf8(output.stdout).unwrap(),
        "stopped",
        site.pid,
    );
}

#[test]
fn somebody_elses_master_is_alive_and_cannot_be_stopped() {
    if !(is_root() && has("setpriv")) {
        return;
    }
    let place = open_to_all();
    make_public(&place);
    let site = place.start(&[]);
    let program = place.path("hade");
    let as_nobody = |args: &[&str]| {
        run(std::process::Command::new(AS_NOBODY[0])
            .args(&AS_NOBODY[1..])
            .arg(&program)
            .args(args)
            .current_dir(&place.dir))
    };
    for flags in [
        &["app", "stop"][..],
        &["app", "stop", "--force"],
        &["app", "restart"],
        &["app", "restart", "--cold"],
    ] {
        assert_eq!(
            as_nobody(flags).failed(1),
            "hade: cannot tell who runs: cannot read run/app.lock: Permission denied (os error 13); it belongs to uid 0, this is uid 65534\n"
        );
    }
    let said = as_nobody(&["app", "start", "-d", "--address", "127.0.0.1:0"]).failed(1);
    assert_eq!(
        said,
        "hade: cannot write run/app.lock: Permission denied (os error 13); it belongs to uid 0, this is uid 65534\n"
    );
    assert_eq!(site.get("/").status, 200);
    assert_eq!(place.pid(), Some(site.pid));
}
