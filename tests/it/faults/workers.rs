//! Workers that die, and a master that dies before them.

use crate::support::{
    Place, Site, Wire, finish, freeze, get, holds_for, is_alive, signal, wait_until, was_soon,
    workers, working_in,
};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The one worker, once it serves: one that dies before is waited for.
#[track_caller]
fn ready_worker(place: &Place, site: &Site) -> u32 {
    let mut ready = None;
    wait_until(10, "a worker is ready", || {
        let log = place.log();
        let is_ready = |pid: &u32| log.contains(&format!(" {pid} worker ready"));
        ready = workers(site.pid).into_iter().find(is_ready);
        ready.is_some()
    });
    ready.unwrap()
}

#[test]
fn a_killed_worker_is_named_in_the_log_and_replaced_at_once() {
    let place = Place::demo();
    let site = place.start(&[]);
    for (name, how) in [("KILL", "9 (KILL)"), ("SEGV", "11 (SEGV)")] {
        let worker = ready_worker(&place, &site);
        signal(worker, name);
        let new = site.wait_replaced(worker, 1);
        assert_eq!(site.get("/pid").text(), new[0].to_string());
        place.wait_for_log(&format!("worker {worker} killed by signal {how}, up "));
        // At once: where it is waited for, the log says so.
        assert!(!place.log().contains("; the next one starts in "));
    }
    assert_eq!(place.pid(), Some(site.pid));
    assert!(is_alive(site.pid));
}

#[test]
fn a_worker_that_aborts_takes_only_its_own_requests_along() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    let mut idle = site.connect();
    assert_eq!(idle.get("/hello").status, 200);
    let mut held = place.hold(&site, "a");
    let mut deadly = site.connect();
    deadly.send(get("/abort"));
    assert!(deadly.is_gone() && held.is_gone() && idle.is_gone());
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    site.wait_replaced(worker, 1);
    place.wait_for_log(&format!(
        "worker {worker} killed by signal 6 (ABRT), up 0 s\n"
    ));
    assert_eq!(place.pid(), Some(site.pid));
}

#[test]
fn clients_in_the_queue_of_a_dead_worker_are_served_by_the_next() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    // Stopped, it accepts nothing more: these are nobody's yet.
    freeze(worker);
    let mut waiting: Vec<Wire> = (0..200).map(|_| site.connect()).collect();
    for wire in &mut waiting {
        wire.send(get("/hello"));
    }
    signal(worker, "KILL");
    for wire in &mut waiting {
        assert_eq!(wire.answer().text(), "Hello, World!");
    }
}

#[test]
fn nobody_is_refused_while_workers_die_under_load() {
    let place = Place::demo();
    let site = place.start(&[]);
    let over = AtomicBool::new(false);
    let (answers, losses) = std::thread::scope(|scope| {
        let hammer = || {
            let (mut answers, mut losses) = (0, 0);
            while !over.load(Ordering::SeqCst) {
                let stream = TcpStream::connect(site.address()).expect("it is not refused");
                let mut wire = Wire::from(stream);
                wire.try_send(get("/hello"));
                match wire.read_answer(true) {
                    Ok(answer) => {
                        assert_eq!(answer.text(), "Hello, World!");
                        answers += 1;
                    }
                    Err(_) => losses += 1,
                }
            }
            (answers, losses)
        };
        let hammers: Vec<_> = (0..4).map(|_| scope.spawn(hammer)).collect();
        for _ in 0..4 {
            let worker = ready_worker(&place, &site);
            holds_for(100, "", || true);
            signal(worker, "KILL");
            site.wait_replaced(worker, 1);
        }
        holds_for(100, "", || true);
        over.store(true, Ordering::SeqCst);
        let sums = hammers.into_iter().map(|hammer| hammer.join().unwrap());
        sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    // Lost is what the dead worker had accepted: one connection for each hammer and each death.
    assert!(
        losses <= 16 && answers > 100,
        "{answers} answers, {losses} lost"
    );
}

#[track_caller]
fn boot(place: &Place, how: &str, more: &[&str], millis: u64) -> (Option<i32>, String) {
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let mut command = place.command(&[&args[..], more].concat());
    command.env("DEMO_BOOT", how);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let done = finish(command.spawn().unwrap());
    was_soon(begun, millis);
    // Without a file of its own the log goes to standard output, and nothing else does.
    let logged = !more.contains(&"--daemon");
    let is_expected = |line: &str| line.contains(" error ") || line.contains("workers run as root");
    let fits = |line: &str| logged && line.starts_with("20") && is_expected(line);
    assert!(done.out.lines().all(fits), "{}", done.out);
    place.wait_empty(1);
    assert_eq!(place.read("run/app.pid"), "");
    let left = std::fs::read_dir(place.path("run")).unwrap().flatten();
    let mut left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    left.retain(|name| name != "app.pid" && name != "app.lock" && name != "app.log");
    assert_eq!(left, [""; 0], "what is left in run/");
    (done.code, done.err)
}

#[test]
fn a_worker_that_cannot_start_fails_the_start_with_its_reason() {
    for more in [&["--daemon"][..], &[], &["--set", "app.workers=3"]] {
        let place = Place::demo();
        let (code, said) = boot(&place, "fail", more, 2000);
        assert_eq!(code, Some(1));
        assert!(said.starts_with("demo: start failed: worker "), "{said}");
        assert!(said.ends_with(": asked to fail at boot\n"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let (code, said) = boot(&place, "crash", more, 2000);
        assert_eq!(code, Some(1));
        let expected = ": killed by signal 6 (ABRT) before it was ready\n";
        assert!(
            said.ends_with(expected) && said.lines().count() == 1,
            "{said}"
        );
        // Nothing stands in the way of the next one.
        let site = place.start(&[]);
        assert_eq!(site.get("/hello").status, 200);
    }
}

#[test]
fn a_worker_that_hangs_at_its_start_fails_the_start_after_ten_seconds() {
    let place = Place::demo();
    let (code, said) = boot(&place, "hang", &["--daemon"], 12_000);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("demo: start failed: worker "), "{said}");
    assert!(said.ends_with(": not ready after 10 s\n"), "{said}");
}

#[test]
fn workers_that_keep_dying_are_waited_for_longer_and_never_given_up() {
    let place = Place::demo();
    let mut app = place.foreground_with_log(&[]);
    let mut dead = Vec::new();
    let waits = |log: &str, wait: u32| {
        let line = format!("; the next one starts in {wait} s\n");
        log.matches(&line).count()
    };
    // After 1, 2, 4, 8 s, and 8 again.
    wait_until(60, "the longest wait comes twice", || {
        let log = place.log();
        for worker in workers(app.site.pid) {
            let ready = log.contains(&format!(" {worker} worker ready"));
            if ready && !dead.contains(&worker) {
                signal(worker, "KILL");
                dead.push(worker);
            }
        }
        waits(&log, 8) == 2
    });
    assert_eq!([1, 2, 4].map(|wait| waits(&place.log(), wait)), [1, 1, 1]);
    let state = place.app(&["state"]).ok();
    let last = dead.last().unwrap();
    assert!(
        // It has said in the log that it is ready, which the master may not have heard.
        ["", ":"].iter().any(|before_it_was_ready| {
            let words =
                format!("no worker serves: worker {last}{before_it_was_ready} killed by signal 9");
            state.contains(&words)
        }),
        "{state}"
    );
    // Whoever comes meanwhile waits, and is served.
    assert_eq!(app.site.get("/hello").status, 200);
    app.signal("TERM");
    assert_eq!(app.end(), Some(0));
    place.wait_empty(1);
}

#[test]
fn a_stop_while_a_worker_is_waited_for_is_not_delayed() {
    let place = Place::demo();
    let site = place.start(&[]);
    for _ in 0..5 {
        let worker = ready_worker(&place, &site);
        signal(worker, "KILL");
        place.wait_for_log(&format!("worker {worker} killed by signal 9"));
    }
    place.wait_for_log("the next one starts in 1 s");
    let begun = Instant::now();
    place.app(&["stop"]).ok();
    was_soon(begun, 900);
    place.wait_empty(0);
}

#[test]
fn a_worker_outlives_its_master_only_to_finish_what_is_in_flight() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    let mut idle = site.connect();
    assert_eq!(idle.get("/hello").status, 200);
    let mut held = place.hold(&site, "a");
    signal(site.pid, "KILL");
    assert!(idle.is_closed());
    // The port is free while the old worker is still at work, and so is the lock.
    site.wait_refused();
    let args = ["start", "--daemon", "--address", site.address()];
    let next = Site::of(&place.app(&args).ok());
    assert_eq!(next.address(), site.address());
    assert_eq!(next.get("/hello").status, 200);
    place.release("a");
    let answer = held.answer();
    assert_eq!(
        (answer.text().as_str(), answer.header("Connection")),
        ("held\n", Some("close"))
    );
    drop(held);
    wait_until(2, "the old worker leaves", || !is_alive(worker));
    assert!(place.log().contains("the master is gone: draining"));
    assert_eq!(next.get("/hello").status, 200);
}

#[test]
fn after_its_master_a_worker_is_gone_by_close_wait() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=1"]);
    let worker = site.worker();
    let mut held = place.hold(&site, "a");
    let begun = Instant::now();
    signal(site.pid, "KILL");
    wait_until(5, "the worker is gone", || !is_alive(worker));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    was_soon(begun, 3000);
    assert!(held.is_gone());
    assert!(place.log().contains("cut: GET /hold, "));
}

/// Whoever restarts it does not look at the clock first.
#[test]
fn a_start_right_after_a_killed_master_gets_the_port() {
    let place = Place::demo();
    let mut site = place.start(&[]);
    for _ in 0..5 {
        signal(site.pid, "KILL");
        wait_until(5, "the master is dead", || !is_alive(site.pid));
        let args = ["start", "--daemon", "--address", site.address()];
        site = Site::of(&place.app(&args).ok());
        assert_eq!(site.get("/hello").status, 200);
    }
}

#[test]
fn a_worker_that_still_starts_does_not_outlive_its_master() {
    let place = Place::demo();
    let mut command = place.command(&["app", "start", "--address", "127.0.0.1:0"]);
    command.env("DEMO_BOOT", "hang");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut master = command.spawn().unwrap();
    let mut worker = 0;
    wait_until(5, "its worker is starting", || {
        let named = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name == "demo worker\n")
        };
        let found = workers(master.id()).into_iter().find(named);
        worker = found.unwrap_or_default();
        found.is_some()
    });
    master.kill().unwrap();
    master.wait().unwrap();
    wait_until(5, "the worker is gone", || !is_alive(worker));
}

fn worker_of(site: &Site) -> u32 {
    site.get("/pid").text().parse().unwrap()
}

#[test]
fn three_workers_share_the_listener_and_each_is_replaced() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.workers=3"]);
    let first = workers(site.pid);
    assert_eq!(first.len(), 3);
    assert!(place.log().contains(", 3 workers, in "));
    // Whoever is alone must serve: two are stopped in turn.
    for alone in &first {
        let others = || first.iter().filter(|worker| *worker != alone);
        others().for_each(|worker| freeze(*worker));
        for _ in 0..5 {
            assert_eq!(worker_of(&site), *alone);
        }
        others().for_each(|worker| signal(*worker, "CONT"));
    }
    for worker in &first {
        signal(*worker, "KILL");
        site.wait_replaced(*worker, 3);
    }
    let second = workers(site.pid);
    assert!(second.iter().all(|worker| !first.contains(worker)));
    // In flight in several of them at once.
    let mut held: Vec<Wire> = (0..6).map(|n| place.hold(&site, &format!("{n}"))).collect();
    let stop = place.begin(&["stop"]);
    site.wait_refused();
    for (number, wire) in held.iter_mut().enumerate() {
        place.release(&number.to_string());
        assert_eq!(wire.answer().text(), "held\n");
    }
    drop(held);
    finish(stop).ok();
    assert!(second.iter().all(|worker| !is_alive(*worker)));
    assert!(
        place
            .log()
            .contains("stopped, 6 requests finished, 0 cut\n")
    );
}

/// One must not be forgotten over the other.
#[test]
fn two_workers_that_die_at_the_same_moment_are_both_replaced() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.workers=3"]);
    for _ in 0..3 {
        let worker = workers(site.pid)[0];
        signal(worker, "KILL");
        site.wait_replaced(worker, 3);
    }
    let all = workers(site.pid);
    wait_until(5, "all are ready", || {
        place.log().matches("worker ready").count() == 6
    });
    // Both deaths are news at once for a master that was stopped.
    freeze(site.pid);
    signal(all[0], "KILL");
    signal(all[1], "KILL");
    wait_until(5, "both are dead", || {
        !is_alive(all[0]) && !is_alive(all[1])
    });
    signal(site.pid, "CONT");
    wait_until(5, "three workers again", || workers(site.pid).len() == 3);
}

/// The master learns of a death and of its own end in one look.
#[test]
fn a_worker_that_dies_as_the_stop_comes_is_not_replaced() {
    for count in [1, 3] {
        let place = Place::demo();
        let site = place.start(&["--set", &format!("app.workers={count}")]);
        let worker = workers(site.pid)[0];
        freeze(site.pid);
        signal(worker, "KILL");
        wait_until(5, "it is dead", || !is_alive(worker));
        signal(site.pid, "TERM");
        signal(site.pid, "CONT");
        let begun = Instant::now();
        wait_until(10, "it has stopped", || !is_alive(site.pid));
        was_soon(begun, 2000);
        assert_eq!(
            working_in(&place.dir),
            [],
            "left behind with {count} workers"
        );
        let log = place.log();
        assert_eq!(log.matches("worker ready").count(), count, "{log}");
        assert!(!log.contains("had to be killed"));
    }
}
