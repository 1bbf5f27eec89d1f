//! Workers that die, or are told to leave, one or many: all are replaced, somebody listens all the while, and the
//! others serve.

use crate::support::{
    Hammer, Meanwhile, Place, Site, holds_for, is_alive, once, signal, wait_until, workers,
};

fn newcomers(site: &Site, count: usize) -> Hammer {
    (0..count).fold(Hammer::new(), |hammer, _| {
        let address = site.address().to_owned();
        hammer.with(move |tally| {
            once(&address, "/hello", tally, b"Hello, World!");
            crate::support::pause();
        })
    })
}

#[track_caller]
fn all_serve(place: &Place, site: &Site, count: usize, without: &[u32]) {
    wait_until(15, "all serve", || {
        let now = workers(site.pid);
        now.len() == count && now.iter().all(|pid| !without.contains(pid)) && {
            let state = place.app(&["state", "--json"]).out;
            state.matches("\"state\":\"serving\"").count() == count
        }
    });
}

#[test]
fn nine_that_are_killed_together_are_all_replaced() {
    let place = Place::demo();
    let site = place.start(&["--set", "workers=9"]);
    let mut old = workers(site.pid);
    for _ in 0..3 {
        place.sh(
            "kill -KILL $1",
            &[&old
                .iter()
                .map(|pid| pid.to_string())
                .collect::<Vec<_>>()
                .join(" ")],
        );
        // Who comes when they are gone waits for the next ones, and is refused by nobody.
        wait_until(5, "they are gone", || old.iter().all(|pid| !is_alive(*pid)));
        let hammer = newcomers(&site, 9);
        all_serve(&place, &site, 9, &old);
        hammer.end();
        old = workers(site.pid);
    }
    assert_eq!(place.count("worker_deaths"), 27);
    assert!(!place.log().contains("giving up"));
    place.app(&["stop"]).ok();
    place.wait_empty(5);
}

#[test]
fn one_that_cannot_be_replaced_for_long_takes_no_other_away() {
    let place = Place::demo();
    let site = place.start(&["--set", "workers=3"]);
    let old = workers(site.pid);
    place.write("boot", "fail");
    let dead = old[0];
    signal(dead, "KILL");
    wait_until(5, "it is gone", || !workers(site.pid).contains(&dead));
    let hammer = newcomers(&site, 2);
    let others = &old[1..];
    let all_there = || others.iter().all(|pid| is_alive(*pid)) && is_alive(site.pid);
    wait_until(40, "the longest wait comes twice", || {
        assert!(all_there());
        let log = place.log();
        log.matches("asked to fail at boot; the next one starts in 8 s")
            .count()
            == 2
    });
    // Somebody serves, so there is no trouble to speak of.
    let state = place.app(&["state"]).ok();
    assert!(!state.contains("no worker serves"), "{state}");
    place.write("boot", "");
    all_serve(&place, &site, 3, &[dead]);
    assert!(all_there());
    hammer.end();
    // And it is no longer waited for at the next death.
    place.app(&["restart"]).ok();
    assert_eq!(workers(site.pid).len(), 3);
}

#[test]
fn a_restart_and_a_stop_are_heard_while_a_worker_is_waited_for() {
    for end in ["restart", "stop"] {
        let place = Place::demo();
        let site = place.start(&["--set", "workers=2"]);
        let old = workers(site.pid);
        place.write("boot", "fail");
        signal(old[0], "KILL");
        place.wait_for_log("asked to fail at boot; the next one starts in 2 s");
        if end == "restart" {
            let said = place.app(&["restart"]).failed(1);
            assert!(said.contains("asked to fail at boot"), "{said}");
            assert!(workers(site.pid).contains(&old[1]));
            place.write("boot", "");
            let said = place.app(&["restart"]).ok();
            assert!(said.contains("restarted, pid"), "{said}");
            all_serve(&place, &site, 2, &old);
            // What was waited for before is not started on top of these.
            holds_for(3000, "two workers", || workers(site.pid).len() == 2);
        }
        let said = place.app(&["stop"]).ok();
        assert!(said.starts_with("demo: stopped pid"), "{said}");
        place.wait_empty(5);
    }
}

#[test]
fn all_of_several_that_are_told_to_leave_are_replaced() {
    let place = Place::demo();
    let site = place.start(&["--set", "workers=3", "--set", "close_wait=60"]);
    let old = workers(site.pid);
    let mut held = place.hold(&site, "a");
    let hammer = newcomers(&site, 3);
    for pid in &old {
        signal(*pid, "TERM");
    }
    wait_until(20, "three others serve", || {
        let state = place.app(&["state", "--json"]).out;
        state.matches("\"state\":\"serving\"").count() == 3
            && workers(site.pid)
                .iter()
                .filter(|pid| !old.contains(pid))
                .count()
                == 3
    });
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    drop(held);
    all_serve(&place, &site, 3, &old);
    hammer.end();
    assert_eq!(place.count("worker_deaths"), 0);
}

#[test]
fn told_to_leave_twice_it_leaves_at_once_and_is_replaced_once() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let old = site.worker();
    let _held = place.hold(&site, "a");
    signal(old, "TERM");
    place.wait_for_log("signal TERM: draining");
    signal(old, "TERM");
    let now = site.wait_replaced(old, 1);
    assert_eq!(site.get("/hello").status, 200);
    holds_for(1500, "one worker", || workers(site.pid) == now);
    assert_eq!(place.count("worker_deaths"), 0);
}

#[test]
fn told_to_leave_while_it_starts() {
    let place = Place::demo();
    let site = place.start(&[]);
    let old = site.worker();
    place.write("boot", "wait");
    signal(old, "KILL");
    wait_until(5, "the next one starts", || {
        let now = workers(site.pid);
        now.len() == 1 && now[0] != old
    });
    let starting = workers(site.pid)[0];
    let handles = || {
        let status = std::fs::read_to_string(format!("/proc/{starting}/comm")).unwrap_or_default();
        status.contains("worker")
    };
    wait_until(5, "it is a worker", handles);
    signal(starting, "TERM");
    let mut waiting = site.connect();
    waiting.send(crate::support::get("/hello"));
    place.write("boot", "");
    assert_eq!(waiting.answer().status, 200);
    let now = site.wait_replaced(starting, 1);
    holds_for(1000, "one worker", || workers(site.pid) == now);
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn an_old_worker_that_is_told_to_leave_in_a_restart_is_not_replaced() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let old = site.worker();
    let mut held = place.hold(&site, "a");
    place.write("boot", "wait");
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(10, "the new one starts", || {
        place.app(&["state", "--json"]).out.contains("\"starting\"")
    });
    signal(old, "TERM");
    place.wait_for_log(&format!("worker {old} was told to leave"));
    assert_eq!(
        workers(site.pid).len(),
        2,
        "the one that starts is the next one"
    );
    let mut waiting = site.connect();
    waiting.send(crate::support::get("/hello"));
    place.write("boot", "");
    assert_eq!(waiting.answer().status, 200);
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    drop(held);
    let said = restart.end(20).ok();
    assert!(said.contains("restarted, pid"), "{said}");
    holds_for(1000, "one worker", || workers(site.pid).len() == 1);
}

#[test]
fn the_only_worker_is_told_to_leave_and_the_new_one_cannot_start() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let old = site.worker();
    let mut held = place.hold(&site, "a");
    place.write("boot", "wait");
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(10, "the new one starts", || {
        place.app(&["state", "--json"]).out.contains("\"starting\"")
    });
    signal(old, "TERM");
    place.wait_for_log(&format!("worker {old} was told to leave"));
    let new = workers(site.pid).into_iter().find(|pid| *pid != old);
    signal(new.expect("a new one"), "KILL");
    let said = restart.end(20).failed(1);
    assert!(said.contains("given up"), "{said}");
    // Nobody accepts now; the one who waits is served when a worker can start again.
    let mut waiting = site.connect();
    waiting.send(crate::support::get("/hello"));
    place.write("boot", "");
    assert_eq!(waiting.answer().status, 200);
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    assert_eq!(place.count("generation"), 1);
}
