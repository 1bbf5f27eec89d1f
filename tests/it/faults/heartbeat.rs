//! Workers that make no progress are noticed, said, killed and replaced while the others serve; and those that only
//! seem to are left alone. Most of these wait for half a minute, for that is what they are about.

use crate::support::{
    Foreground, Hammer, Meanwhile, Place, Site, freeze, has, holds_for, is_alive, is_short, once,
    signal, wait_until, was_soon, workers, working_in,
};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

/// New connections alone: those that a worker has which is stopped are lost with it. Several clients, for the kernel may
/// wake the stopped one for the first who comes; the next one wakes another worker, which takes both.
fn newcomers(site: &Site) -> Hammer {
    (0..4).fold(Hammer::new(), |hammer, _| {
        let address = site.address().to_owned();
        hammer.with(move |tally| {
            once(&address, "/hello", tally, b"Hello, World!");
            crate::support::pause();
        })
    })
}

#[test]
fn a_worker_that_stands_still_is_late_and_then_replaced() {
    let place = Place::demo();
    let path = place.path("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    let limit = Some(Duration::from_millis(50));
    supervisor.set_read_timeout(limit).unwrap();
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let more = ["--set", "log_file=run/app.log", "--set", "workers=2"];
    let mut command = place.command(&[&args[..], &more].concat());
    command.env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "200000");
    let mut running = Foreground::of(command);
    let site = running.site.clone();
    let both = workers(site.pid);
    freeze(both[0]);
    let hammer = newcomers(&site);
    let begun = Instant::now();
    let mut late_for = 0;
    let mut beats_while_late = 0;
    let mut buffer = [0; 4096];
    wait_until(60, "it is noticed", || {
        // All that has come: on a busy machine it waits here while the state is asked for.
        let mut beat = false;
        while let Ok(count) = supervisor.recv(&mut buffer) {
            let mut lines = buffer[..count].split(|byte| *byte == b'\n');
            beat |= lines.any(|line| line == b"WATCHDOG=1");
        }
        let before = late_for;
        let state = place.app(&["state", "--json"]).out;
        let is_late = state.contains("\"state\":\"late\"");
        late_for += usize::from(is_late);
        // The first may have been on its way, and the last may come when the late one is gone.
        beats_while_late += usize::from(beat && before > 10 && is_late);
        !workers(site.pid).contains(&both[0])
    });
    was_soon(begun, 55_000);
    assert!(late_for > 10, "seen late {late_for} times");
    assert_eq!(beats_while_late, 0);
    wait_until(10, "the watchdog is fed again", || {
        supervisor
            .recv(&mut buffer)
            .is_ok_and(|count| buffer[..count].starts_with(b"WATCHDOG=1"))
    });
    let tally = hammer.end();
    is_short(tally.gap, 5000);
    let line = format!("worker {} has not moved for ", both[0]);
    let log = place.log();
    let said: Vec<&str> = log.lines().filter(|text| text.contains(&line)).collect();
    assert!(
        said.len() == 1 && said[0].ends_with(" s, it is killed"),
        "{log}"
    );
    let now = site.wait_replaced(both[0], 2);
    assert!(now.contains(&both[1]), "the other one is left alone");
    assert_eq!(place.count("worker_deaths"), 1);
    running.signal("TERM");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn who_is_looked_at_with_a_debugger_is_not_late() {
    if !has("strace") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    let mut tracer = Command::new("strace");
    tracer.args(["-f", "-o", "/dev/null", "-p", &worker.to_string()]);
    let mut tracer = Meanwhile::new(tracer);
    let is_traced = || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    };
    wait_until(10, "it is traced", || tracer.is_over() || is_traced());
    if tracer.is_over() {
        crate::support::skip("needs to be allowed to trace");
        return;
    }
    signal(worker, "STOP");
    holds_for(45_000, "the same worker", || workers(site.pid) == [worker]);
    assert!(is_traced());
    signal(worker, "CONT");
    drop(tracer);
    wait_until(10, "it is let go", || !is_traced());
    signal(worker, "CONT");
    assert_eq!(site.get("/hello").status, 200);
    assert_eq!(workers(site.pid), [worker]);
    assert_eq!(place.count("worker_deaths"), 0);
}

#[test]
fn after_a_sleep_of_the_master_or_of_all_nobody_is_late() {
    std::thread::scope(|scope| {
        scope.spawn(|| sleeps(false, false));
        scope.spawn(|| sleeps(true, false));
        scope.spawn(|| sleeps(true, true));
    });
}

fn sleeps(with_worker: bool, master_first: bool) {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let worker = site.worker();
    let held = place.hold(&site, "a");
    if with_worker {
        freeze(worker);
    }
    freeze(site.pid);
    let until = Instant::now() + Duration::from_secs(35);
    while Instant::now() < until {
        crate::support::pause();
    }
    let order = match (with_worker, master_first) {
        (false, _) => vec![site.pid],
        (true, true) => vec![site.pid, worker],
        (true, false) => vec![worker, site.pid],
    };
    for pid in order {
        signal(pid, "CONT");
        holds_for(1500, "the same worker", || workers(site.pid) == [worker]);
    }
    holds_for(12_000, "the same worker", || workers(site.pid) == [worker]);
    assert_eq!(place.count("worker_deaths"), 0);
    assert!(!place.log().contains("has not moved"), "{}", place.log());
    place.release("a");
    let mut held = held;
    assert_eq!(held.answer().text(), "held\n");
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn stopped_workers_of_a_killed_master_do_not_keep_the_port() {
    let place = Place::demo();
    let site = place.start(&["--set", "workers=3", "--set", "close_wait=3"]);
    let old = workers(site.pid);
    for pid in &old {
        freeze(*pid);
    }
    signal(site.pid, "KILL");
    wait_until(5, "the master is gone", || !is_alive(site.pid));
    let args = ["start", "-d", "--address", site.address()];
    let again = Site::of(&place.app(&args).ok());
    assert_eq!(again.get("/hello").status, 200);
    wait_until(10, "the old ones are gone", || {
        old.iter().all(|pid| !is_alive(*pid))
    });
    assert_eq!(working_in(&place.dir).len(), 2);
}

/// One that has stopped and is then replaced in a restart needs no heartbeat to be got rid of.
#[test]
fn a_restart_gets_rid_of_a_worker_that_stands_still() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=1"]);
    let old = site.worker();
    freeze(old);
    let hammer = newcomers(&site);
    let said = place.app(&["restart"]).ok();
    assert!(said.contains("restarted, pid"), "{said}");
    let tally = hammer.end();
    is_short(tally.gap, 10_000);
    assert!(!is_alive(old));
    place.wait_for_log(&format!(
        "worker {old} did not leave in time and was killed"
    ));
}

/// A place whose workers' gates hang for ever once the file `hang` has their number in it. Needs a C compiler, and a
/// demo that is linked dynamically.
fn place_with_gates_that_hang() -> Option<Place> {
    if !has("cc") {
        return None;
    }
    let place = Place::demo();
    let code = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        #include <sys/epoll.h>
        #include <unistd.h>
        int epoll_wait(int fd, struct epoll_event *events, int most, int timeout) {
            int (*real)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");
            int count = real(fd, events, most, timeout), pid = 0;
            FILE *file = fopen("hang", "r");
            if (file) {
                if (fscanf(file, "%d", &pid) == 1 && pid == getpid()) for (;;) pause();
                fclose(file);
            }
            return count;
        }
    "#;
    place.write("hang.c", code);
    place.sh("cc -shared -fPIC -o hang.so hang.c -ldl", &[]);
    Some(place)
}

/// Starts the demo with that, and waits until the gate of one worker hangs.
fn start_and_hang(place: &Place, more: &[&str]) -> Option<(Site, u32)> {
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let mut command = place.command(&[&args[..], more].concat());
    command.env("LD_PRELOAD", place.path("hang.so"));
    let site = Site::of(&crate::support::run(&mut command).ok());
    let pid = workers(site.pid)[0];
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    if !maps.contains("hang.so") {
        crate::support::skip("needs a program that is linked dynamically");
        return None;
    }
    place.write("hang", pid.to_string());
    Some((site, pid))
}

#[test]
fn a_gate_that_hangs_is_late_and_its_worker_replaced() {
    let Some(place) = place_with_gates_that_hang() else {
        return;
    };
    let Some((site, hung)) = start_and_hang(&place, &["--set", "workers=2"]) else {
        return;
    };
    wait_until(60, "it is noticed", || !workers(site.pid).contains(&hung));
    place.wait_for_log(&format!("worker {hung} has not moved for "));
    let now = site.wait_replaced(hung, 2);
    assert_eq!(now.len(), 2);
    assert_eq!(site.get("/hello").status, 200);
    assert_eq!(place.count("worker_deaths"), 1);
}

#[test]
fn a_worker_leaves_in_time_without_its_gate() {
    let Some(place) = place_with_gates_that_hang() else {
        return;
    };
    for end in ["stop", "restart", "TERM", "KILL"] {
        let Some((site, hung)) = start_and_hang(&place, &["--set", "close_wait=1"]) else {
            return;
        };
        // The gate is woken, and does not come back.
        let mut lost = site.connect();
        lost.try_send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
        let begun = Instant::now();
        match end {
            "stop" | "restart" => drop(place.app(&[end]).ok()),
            "TERM" => signal(hung, "TERM"),
            _ => signal(site.pid, "KILL"),
        }
        wait_until(10, "it is gone", || !is_alive(hung));
        was_soon(begun, 8000);
        if end == "restart" || end == "TERM" {
            site.wait_replaced(hung, 1);
            assert_eq!(site.get("/hello").status, 200, "{end}");
            place.app(&["stop"]).ok();
        }
        let log = place.log();
        let line = "the gate does not leave in time: ending without it";
        assert!(log.contains(line), "{end}: {log}");
        wait_until(10, "all are gone", || {
            working_in(&place.dir).iter().all(|pid| !is_alive(*pid))
        });
        place.sh(": >run/app.log", &[]);
    }
}
