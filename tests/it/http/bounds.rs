//! What is bounded so that some clients cannot take everything from the others: requests that wait, connections per
//! address and in all, memory; and what is counted and said of those who were turned away.

use crate::look::{has_namespaces, status};
use crate::support::{
    Place, Site, Wire, assert_overloaded, fact, get, has, holds_for, post, run, wait_until,
    was_soon, worker,
};
use std::process::Command;
use std::time::{Duration, Instant};

/// How many were refused for this cause since the start.
#[track_caller]
fn refused(place: &Place, cause: &str) -> u64 {
    place.count(cause)
}

#[test]
fn requests_beyond_the_queue_are_turned_away_at_once_and_the_others_are_answered_in_order() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=1", "--set", "app.queue=2"]);
    let mut first = place.hold(&site, "first");
    let mut waiting: Vec<Wire> = (0..2).map(|_| site.connect()).collect();
    for (number, wire) in waiting.iter_mut().enumerate() {
        wire.send(get(&format!("/hold?name={number}")));
        wait_until(10, "it waits", || {
            place.count("in_flight") == number as u64 + 2
        });
    }
    let begun = Instant::now();
    for text in [get("/hello"), get("/pid"), post("/echo", "abc")] {
        let mut late = site.connect();
        late.send(text);
        assert_overloaded(&mut late);
    }
    let mut late = site.connect();
    late.send("HEAD /hello HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(late.answer_without_body().status, 503);
    assert!(late.is_closed());
    // What needs no handler is there for everybody.
    assert_eq!(site.get("/nowhere").status, 404);
    let fixed = site.get("/fixed");
    assert_eq!((fixed.status, fixed.text().as_str()), (200, "fixed\n"));
    assert_eq!(fixed.header("X-Kind"), Some("fixed"));
    was_soon(begun, 2000);
    assert!(waiting.iter_mut().all(Wire::is_quiet));
    assert_eq!(refused(&place, "overloaded"), 4);
    // In the order they came.
    place.release("first");
    assert_eq!(first.answer().text(), "held\n");
    place.wait_held("0");
    assert!(!place.path("1.held").exists());
    // There is room for one now, on a connection of before, too.
    first.send(get("/hello"));
    wait_until(10, "it waits", || place.count("in_flight") == 3);
    place.release("0");
    assert_eq!(waiting[0].answer().text(), "held\n");
    place.wait_held("1");
    place.release("1");
    assert_eq!(waiting[1].answer().text(), "held\n");
    assert_eq!(first.answer().text(), "Hello, World!");
    // Nothing is left of it.
    for wire in waiting.iter_mut().chain([&mut first]) {
        assert_eq!(wire.get("/hello").status, 200);
    }
    assert_eq!(place.fact("in_flight"), "0");
}

#[test]
fn without_a_queue_nobody_waits() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=2", "--set", "app.queue=0"]);
    let mut held = [place.hold(&site, "0"), place.hold(&site, "1")];
    for _ in 0..3 {
        let mut late = site.connect();
        late.send(get("/hello"));
        assert_overloaded(&mut late);
    }
    for (number, wire) in held.iter_mut().enumerate() {
        place.release(&number.to_string());
        assert_eq!(wire.answer().text(), "held\n");
    }
    // One after the other is never too many.
    for _ in 0..200 {
        assert_eq!(held[0].get("/hello").status, 200);
    }
}

#[test]
fn an_address_may_have_so_many_connections_and_others_are_not_its_business() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_per_address=3"]);
    let full = |site: &Site| {
        for _ in 0..2 {
            let mut wire = site.connect();
            let answer = wire.answer();
            assert_eq!(
                (answer.status, answer.header("Retry-After")),
                (429, Some("1"))
            );
            assert_eq!(answer.header("Connection"), Some("close"));
            assert!(wire.is_closed());
        }
        // It may have sent its request already.
        let mut wire = site.connect();
        wire.try_send(get("/hello"));
        assert_eq!(wire.answer().status, 429);
        let url = format!("{}/hello", site.url);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--interface", "127.0.0.2", &url]);
        assert_eq!(run(&mut curl).ok(), "Hello, World!");
    };
    let frees = |wires: &mut Vec<Wire>| {
        drop(wires.remove(0));
        wait_until(10, "there is room for one more", || {
            let mut wire = site.connect();
            wire.try_send(get("/hello"));
            let is_in = wire
                .read_answer(true)
                .is_ok_and(|answer| answer.status == 200);
            if is_in {
                wires.push(wire);
            }
            is_in
        });
    };
    let mut wires: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    full(&site);
    for wire in &mut wires {
        assert_eq!(wire.get("/hello").status, 200);
    }
    full(&site);
    frees(&mut wires);
    full(&site);
    // The new worker counts those that it takes over, and forgets them as they go.
    place.app(&["restart"]).ok();
    wait_until(10, "it has them", || place.count("connections") == 3);
    full(&site);
    for wire in &mut wires {
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    frees(&mut wires);
    frees(&mut wires);
    full(&site);
    // Twelve, give or take those that came too early.
    assert!(refused(&place, "too_many") >= 12);
    assert_eq!(
        place.log().matches("refused with 429").count(),
        2,
        "sampled"
    );
}

#[test]
fn a_handler_that_takes_long_is_named_once_and_shown_until_it_is_done() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.handler_warn=1"]);
    let begun = Instant::now();
    let mut held = place.hold(&site, "a");
    let port = held.stream.local_addr().unwrap().port();
    let line = format!("a handler has been at GET /hold for 1 s, for 127.0.0.1:{port}\n");
    assert_eq!(place.fact("slow_handlers"), "0");
    place.wait_for_log(&line);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    was_soon(begun, 6000);
    wait_until(10, "it is counted", || place.fact("slow_handlers") == "1");
    wait_until(10, "its time goes on", || {
        place.fact("slowest_seconds").parse::<f64>().unwrap() >= 2.0
    });
    let screen = place.app(&["state"]).ok();
    let words = format!(
        "  slow         1 handlers of {}, the longest for ",
        site.worker()
    );
    assert!(screen.contains(&words), "{screen}");
    // Others are served, and are not slow.
    assert_eq!(site.get("/slow?ms=20").status, 200);
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    wait_until(10, "it is no longer counted", || {
        place.fact("slow_handlers") == "0"
    });
    assert_eq!(place.fact("slowest_seconds"), "0.000");
    assert!(!place.app(&["state"]).ok().contains("  slow "));
    assert_eq!(held.get("/hello").status, 200);
    place.wait_for_log("the handler at GET /hold is done after ");
    let log = place.log();
    assert_eq!(log.matches(&line).count(), 1);
    assert_eq!(log.matches("is done after ").count(), 1);
}

#[test]
fn without_handler_warn_nobody_is_named() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.handler_warn=0"]);
    let mut held = place.hold(&site, "a");
    holds_for(1500, "", || true);
    assert_eq!(place.fact("slow_handlers"), "0");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    assert!(!place.log().contains("a handler has been"));
}

#[test]
fn who_was_turned_away_is_counted_by_cause_over_deaths_and_restarts() {
    let place = Place::demo();
    let sets = [
        "app.header_timeout=1",
        "app.threads=1",
        "app.queue=0",
        "app.max_per_address=6",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let site = place.start(&sets);
    let refuse = |status: u16, text: String| {
        let mut wire = site.connect();
        wire.send(text);
        assert_eq!(wire.answer().status, status);
        assert!(wire.is_closed());
    };
    assert!(!place.app(&["state"]).ok().contains("  refused "));
    refuse(400, "nonsense\r\n\r\n".into());
    refuse(
        413,
        "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1048577\r\n\r\n".into(),
    );
    refuse(
        431,
        format!(
            "GET / HTTP/1.1\r\nHost: t\r\nA: {}\r\n\r\n",
            "a".repeat(40_000)
        ),
    );
    refuse(505, "GET / HTTP/2.0\r\nHost: t\r\n\r\n".into());
    refuse(408, "GET /hello HTTP/1.1\r\n".into());
    let mut held = place.hold(&site, "a");
    refuse(503, get("/hello"));
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    drop(held);
    wait_until(10, "all are gone", || place.fact("connections") == "0");
    let wires: Vec<Wire> = (0..6).map(|_| site.connect()).collect();
    let mut seventh = site.connect();
    assert_eq!(seventh.answer().status, 429);
    drop((wires, seventh));
    // Pages that are not there, and what a handler says, are answers like others.
    wait_until(10, "all are gone", || place.fact("connections") == "0");
    assert_eq!(site.get("/nowhere").status, 404);
    let expected = r#""refused":{"malformed":1,"too_large":2,"unsupported":1,"too_slow":1,"overloaded":1,"too_many":1},"#;
    let screen = "  refused      1 malformed, 2 too large, 1 unsupported, 1 too slow, 1 overloaded, 1 too many\n";
    let check = |when: &str| {
        let json = place.app(&["state", "--json"]).ok();
        assert!(json.contains(expected), "{when}: {json}");
        let text = place.app(&["state"]).ok();
        assert!(text.contains(screen), "{when}: {text}");
    };
    check("at first");
    place.app(&["restart"]).ok();
    check("after a restart");
    let old = worker(site.pid);
    crate::support::signal(old, "KILL");
    site.wait_replaced(old, 1);
    check("after a worker's death");
}

#[test]
fn a_burst_of_refusals_is_one_line_in_the_log() {
    for (level, lines) in [("info", 1), ("debug", 100)] {
        let place = Place::demo();
        let site = place.start(&["--set", &format!("app.log_level={level}")]);
        let begun = Instant::now();
        for _ in 0..100 {
            let mut wire = site.connect();
            wire.send("nonsense\r\n\r\n");
            assert_eq!(wire.answer().status, 400);
        }
        // Another cause has its own line.
        for _ in 0..3 {
            let mut wire = site.connect();
            wire.send("GET / HTTP/9.9\r\nHost: t\r\n\r\n");
            assert_eq!(wire.answer().status, 505);
        }
        if begun.elapsed() > Duration::from_secs(9) {
            // Too slow a machine for what is said once in ten seconds.
            return;
        }
        let log = place.log();
        let count = |words: &str| log.matches(words).count();
        assert_eq!(count(": refused with 400: "), lines, "{level}");
        assert_eq!(count(": refused with 505: "), lines.min(3), "{level}");
        assert!(log.contains(" info ") && log.contains("127.0.0.1:"));
        let json = place.app(&["state", "--json"]).ok();
        assert_eq!(
            (fact(&json, "unsupported"), fact(&json, "malformed")),
            ("3".to_owned(), "100".to_owned())
        );
    }
}

/// The most memory that a process ever had in use, in kilobytes.
fn peak(pid: u32) -> u64 {
    let text = status(pid, "VmHWM");
    text.trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn unread_answers_and_unfinished_requests_fill_no_memory() {
    if !has_namespaces() {
        return;
    }
    let place = Place::demo();
    let sets = ["--set", "app.threads=4", "--set", "app.max_header=65536"];
    let site = place.start_with_memory(64 << 20, &sets);
    let worker = site.worker();
    assert_eq!(site.get("/hello").status, 200);
    let before = peak(worker);
    // Some of it is with the kernel, which has bounds of its own; 20 MB are more than it takes.
    let mut readers: Vec<Wire> = Vec::new();
    for _ in 0..40 {
        let mut wire = site.connect();
        wire.send(get("/bytes?n=3000000") + &get("/bytes?n=3000000").repeat(5));
        wire.wait_begun();
        readers.push(wire);
    }
    wait_until(10, "some are closed", || refused(&place, "overloaded") > 0);
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    let after_readers = peak(worker);
    // Those who do read get what they ask for meanwhile.
    let mut wire = site.connect();
    for _ in 0..5 {
        assert_eq!(wire.get("/bytes?n=3000000").body.len(), 3_000_000);
    }
    drop(readers);
    wait_until(10, "they are forgotten", || place.fact("in_flight") == "0");
    // Bodies and heads that never end, each as long as it may be before somebody is called.
    let mut unfinished: Vec<Wire> = Vec::new();
    for number in 0..600 {
        let mut wire = site.connect();
        wire.try_send(match number % 2 {
            0 => format!("GET / HTTP/1.1\r\nHost: t\r\nA: {}", "a".repeat(60_000)),
            _ => post("/echo", &"b".repeat(60_001))[..60_000].to_owned(),
        });
        unfinished.push(wire);
    }
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
    drop(unfinished);
    assert_eq!(site.get("/pid").text(), worker.to_string());
    println!(
        "peaks: {before} kB, {after_readers} kB, {} kB",
        peak(worker)
    );
    // A quarter, the eighth of it that may come before it is looked at, and what handlers have in hand.
    assert!(peak(worker) < before + 48_000, "{} kB", peak(worker));
    assert_eq!(place.fact("worker_deaths"), "0");
}

#[test]
fn connections_that_are_answered_and_about_to_go_make_room_at_once() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=3"]);
    for _ in 0..3 {
        let mut gone: Vec<Wire> = Vec::new();
        for _ in 0..3 {
            let mut wire = site.connect();
            wire.send("nonsense\r\n\r\n");
            assert_eq!(wire.answer().status, 400);
            gone.push(wire);
        }
        // They linger for two seconds.
        let begun = Instant::now();
        let mut new: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
        for wire in &mut new {
            assert_eq!(wire.get("/hello").text(), "Hello, World!");
        }
        was_soon(begun, 1500);
    }
}

#[test]
fn silent_connections_make_room_after_a_second() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=4"]);
    let mut silent: Vec<Wire> = (0..4).map(|_| site.connect()).collect();
    wait_until(10, "they are accepted", || place.count("connections") == 4);
    let begun = Instant::now();
    let mut new = site.connect();
    new.send(get("/hello"));
    assert_eq!(new.answer().text(), "Hello, World!");
    was_soon(begun, 6000);
    // The one who came first, and only that one.
    assert!(silent.remove(0).is_closed());
    assert!(silent.iter_mut().all(Wire::is_quiet));
    for wire in &mut silent {
        assert_eq!(wire.get("/hello").status, 200);
    }
}

#[test]
fn connections_whose_last_answer_is_out_make_room_at_once() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=3"]);
    let mut busy = place.hold(&site, "a");
    let mut closing: Vec<Wire> = (0..2).map(|_| site.connect()).collect();
    for wire in &mut closing {
        wire.send("GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        assert_eq!(wire.answer().status, 200);
    }
    let begun = Instant::now();
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    was_soon(begun, 1500);
    place.release("a");
    assert_eq!(busy.answer().text(), "held\n");
}

/// Whatever its client does next, or does not.
#[test]
fn a_handler_that_took_long_is_said_to_be_done_when_it_is() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.handler_warn=1"]);
    let mut held = place.hold(&site, "a");
    place.wait_for_log("a handler has been at GET /hold for 1 s");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    place.wait_for_log("the handler at GET /hold is done after ");
    assert!(held.is_quiet());
}

/// The last byte of an answer may be there before its handler has put down the pen.
#[test]
fn without_a_queue_one_client_never_meets_itself() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=1", "--set", "app.queue=0"]);
    let mut wires = [site.connect(), site.connect()];
    for round in 0..1000 {
        assert_eq!(wires[round % 2].get("/hello").status, 200, "{round}");
    }
}
