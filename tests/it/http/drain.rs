//! Leaving: what is in flight is finished, what is idle is closed, what takes too long is cut and named.

use crate::support::{
    Done, Place, Site, Wire, asks_to_the_end, finish, freeze, get, holds_for, is_alive, post,
    signal, wait_until, was_soon, workers,
};
use std::process::Child;
use std::time::{Duration, Instant};

/// Begins `app stop` and waits until nothing new is taken.
#[track_caller]
fn begin_stop(place: &Place, site: &Site) -> Child {
    let stop = place.begin(&["stop"]);
    site.wait_refused();
    stop
}

/// The stop went well, and this many requests were finished and cut.
#[track_caller]
fn assert_stopped(place: &Place, site: &Site, stop: Done, finished: u64, cut: u64) {
    let said = stop.ok();
    let expected = format!("stopped pid {} after ", site.pid);
    assert!(said.contains(&expected), "{said}");
    assert!(!is_alive(site.pid));
    place.wait_empty(0);
    assert_eq!(place.read("run/app.pid"), "");
    let log = place.log();
    let expected = format!("stopped, {finished} requests finished, {cut} cut\n");
    assert!(log.contains(&expected), "not in the log: {expected}");
    assert!(!log.contains("had to be killed"));
}

#[test]
fn a_request_in_flight_survives_stop() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let mut held = [place.hold(&site, "a"), place.hold(&site, "b")];
    let mut stop = begin_stop(&place, &site);
    holds_for(300, "stop waits", || stop.try_wait().unwrap().is_none());
    for (wire, name) in held.iter_mut().zip(["a", "b"]) {
        place.release(name);
        let answer = wire.answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, "held\n"));
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(wire.is_closed());
    }
    assert_stopped(&place, &site, finish(stop), 2, 0);
}

#[test]
fn a_request_whose_last_byte_is_missing_survives_stop() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let mut body = site.connect();
    let text = post("/echo", "abc");
    body.send(&text[..text.len() - 1]);
    let mut head = site.connect();
    head.send("GET /hello HTTP/1.1\r\nHost: t\r\n");
    // Both are read before this one is, for the gate takes them in order.
    assert_eq!(site.get("/hello").status, 200);
    place.wait_in_flight(0);
    let stop = begin_stop(&place, &site);
    body.send("c");
    head.send("\r\n");
    let answer = body.answer();
    assert_eq!(
        (answer.text().as_str(), answer.header("Connection")),
        ("abc", Some("close"))
    );
    let answer = head.answer();
    assert_eq!(answer.text(), "Hello, World!");
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(body.is_closed() && head.is_closed());
    assert_stopped(&place, &site, finish(stop), 2, 0);
}

#[test]
fn health_is_503_from_the_moment_it_drains() {
    let place = Place::new();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let mut wire = site.connect();
    assert_eq!(wire.get("/healthz").status, 200);
    wire.send("GET /healthz HTTP/1.1\r\n");
    assert_eq!(site.get("/healthz").status, 200);
    let stop = begin_stop(&place, &site);
    wire.send("Host: t\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (503, Some("close"))
    );
    assert_eq!(answer.text(), "503 Service Unavailable: draining\n");
    assert!(wire.is_closed());
    assert_stopped(&place, &site, finish(stop), 1, 0);
}

#[test]
fn idle_and_silent_connections_do_not_delay_stop() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=20"]);
    let mut idle: Vec<Wire> = (0..20).map(|_| site.connect()).collect();
    let mut silent: Vec<Wire> = (0..5).map(|_| site.connect()).collect();
    for wire in &mut idle {
        assert_eq!(wire.get("/hello").status, 200);
    }
    place.wait_in_flight(0);
    let begun = Instant::now();
    let stop = place.app(&["stop"]);
    was_soon(begun, 1000);
    for wire in idle.iter_mut().chain(&mut silent) {
        assert!(wire.is_closed());
    }
    assert_stopped(&place, &site, stop, 0, 0);
}

/// Old clients end a body with a CRLF of its own (RFC 9112 §2.2); no request has begun by it.
#[test]
fn an_empty_line_after_a_request_makes_no_connection_busy() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=20"]);
    let mut wire = site.connect();
    wire.send(post("/echo", "abc") + "\r\n");
    assert_eq!(wire.answer().text(), "abc");
    assert_eq!(wire.get("/hello").status, 200);
    wire.send("\r\n");
    assert_eq!(site.get("/hello").status, 200);
    place.wait_in_flight(0);
    let begun = Instant::now();
    let stop = place.app(&["stop"]);
    was_soon(begun, 2000);
    assert_stopped(&place, &site, stop, 0, 0);
}

#[test]
fn an_answered_client_that_does_not_close_delays_stop_by_less_than_a_second() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=20"]);
    let mut held = place.hold(&site, "a");
    let mut refused = site.connect();
    refused.send("nonsense\r\n\r\n");
    assert_eq!(refused.answer().status, 400);
    let stop = begin_stop(&place, &site);
    let begun = Instant::now();
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    let stop = finish(stop);
    was_soon(begun, 1500);
    assert!(held.is_closed());
    assert_stopped(&place, &site, stop, 1, 0);
}

#[test]
fn connections_not_yet_accepted_are_served_before_it_leaves() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let worker = site.worker();
    // A worker that is stopped accepts nothing: what comes now is in the kernel's queue for a fact.
    freeze(worker);
    let mut waiting: Vec<Wire> = (0..200).map(|_| site.connect()).collect();
    for wire in &mut waiting {
        wire.send(get("/hello"));
    }
    let stop = place.begin(&["stop"]);
    place.wait_for_log("signal TERM: leaving");
    signal(worker, "CONT");
    for wire in &mut waiting {
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.header("Connection")),
            (200, Some("close"))
        );
    }
    drop(waiting);
    assert_stopped(&place, &site, finish(stop), 200, 0);
}

#[test]
fn connections_that_wait_for_a_free_place_are_served_before_it_leaves() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=2"]);
    let mut busy = [place.hold(&site, "0"), place.hold(&site, "1")];
    let mut waiting: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    for wire in &mut waiting {
        wire.send(get("/hello"));
    }
    holds_for(50, "they wait", || waiting.iter_mut().all(Wire::is_quiet));
    let stop = begin_stop(&place, &site);
    place.release("0");
    place.release("1");
    for wire in &mut busy {
        assert_eq!(wire.answer().text(), "held\n");
    }
    for wire in &mut waiting {
        assert_eq!(wire.read_answer(true).map(|answer| answer.status), Ok(200));
    }
    drop((busy, waiting));
    assert_stopped(&place, &site, finish(stop), 5, 0);
}

#[test]
fn what_is_pipelined_behind_a_request_in_flight_ends_with_its_answer_in_good_order() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let mut wire = site.connect();
    wire.send(get("/hold?name=a") + &get("/hello") + &get("/hello"));
    place.wait_held("a");
    let stop = begin_stop(&place, &site);
    place.release("a");
    let answer = wire.answer();
    // "close" tells the client that the rest is its own to repeat (RFC 9112 §9.3.2).
    assert_eq!(
        (answer.text().as_str(), answer.header("Connection")),
        ("held\n", Some("close"))
    );
    assert!(wire.is_closed());
    drop(wire);
    assert_stopped(&place, &site, finish(stop), 1, 0);
}

#[test]
fn a_slow_reader_gets_all_of_its_answer_before_it_leaves() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let mut wire = site.connect();
    wire.send(get("/bytes?n=30000000"));
    wire.sip(1000).unwrap();
    let mut stop = begin_stop(&place, &site);
    holds_for(100, "stop waits", || stop.try_wait().unwrap().is_none());
    let mut text = 1000;
    loop {
        match wire.sip(1 << 20).expect("the answer goes on") {
            0 => break,
            count => text += count,
        }
    }
    assert!((30_000_000..30_001_000).contains(&text), "{text} bytes");
    assert_stopped(&place, &site, finish(stop), 1, 0);
}

#[test]
fn after_close_wait_the_rest_is_cut_and_named() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=1"]);
    let mut slow = site.connect();
    slow.send(get("/slow?ms=20000"));
    let mut held = place.hold(&site, "a");
    let mut body = site.connect();
    let text = post("/echo", "abc");
    body.send(&text[..text.len() - 1]);
    let mut head = site.connect();
    head.send("GET /hello");
    let mut reader = site.connect();
    reader.send(get("/bytes?n=30000000"));
    reader.sip(1).unwrap();
    let begun = Instant::now();
    let stop = place.app(&["stop"]);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    was_soon(begun, 3000);
    let log = place.log();
    for name in [
        "cut: GET /slow, ",
        "cut: GET /hold, ",
        "cut: POST /echo, body not complete, from 127.0.0.1:",
        "cut: a request whose head is not complete, from 127.0.0.1:",
        "cut: GET /bytes, ",
    ] {
        assert_eq!(log.matches(name).count(), 1, "{name}");
    }
    let port = slow.stream.local_addr().unwrap().port();
    assert!(log.contains(&format!(" s, from 127.0.0.1:{port}\n")));
    assert!(slow.is_gone() && held.is_gone() && body.is_gone() && head.is_gone());
    assert_stopped(&place, &site, stop, 0, 5);
}

#[test]
fn many_cut_requests_are_counted_beyond_the_first_ten() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=0"]);
    let long = "l".repeat(5000);
    let mut wires: Vec<Wire> = (0..15)
        .map(|n| place.hold(&site, &format!("{n}")))
        .collect();
    let mut wire = site.connect();
    // A name too long for one message between processes.
    let text = format!("POST /{long} HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n");
    wire.send(text.clone());
    wires.push(wire);
    assert_eq!(site.get("/hello").status, 200);
    place.wait_in_flight(15);
    let stop = place.app(&["stop"]);
    assert_eq!(place.log().matches("cut: GET /hold, ").count(), 10);
    assert_stopped(&place, &site, stop, 0, 16);
    assert!(wires.iter_mut().all(Wire::is_gone));
}

#[test]
fn cut_requests_with_long_names_are_still_counted() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=0"]);
    let long = "l".repeat(20_000);
    let mut wires: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    for wire in &mut wires {
        wire.send(format!(
            "POST /{long} HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n"
        ));
    }
    assert_eq!(site.get("/hello").status, 200);
    place.wait_in_flight(0);
    let stop = place.app(&["stop"]);
    assert_eq!(place.log().matches("cut: POST /llll").count(), 3);
    assert_stopped(&place, &site, stop, 0, 3);
}

#[test]
fn a_second_term_leaves_at_once() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let mut held = place.hold(&site, "a");
    signal(site.pid, "TERM");
    site.wait_refused();
    let begun = Instant::now();
    signal(site.pid, "TERM");
    wait_until(5, "it is gone", || !is_alive(site.pid));
    was_soon(begun, 2000);
    place.wait_empty(2);
    assert!(held.is_gone());
    assert_eq!(place.read("run/app.pid"), "");
    let log = place.log();
    assert!(
        log.contains("cut: GET /hold, ") && log.contains("stopped, 0 requests finished, 1 cut")
    );
}

#[test]
fn a_stop_during_the_start_ends_it() {
    let place = Place::demo();
    let args = [
        "app",
        "start",
        "--address",
        "127.0.0.1:0",
        "--set",
        "app.close_wait=0",
    ];
    for daemon in [&["--daemon"][..], &[]] {
        let mut command = place.command(&[&args[..], daemon].concat());
        command.env("DEMO_BOOT", "hang");
        command.stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        // The master is whoever has a child that is named a worker.
        let mut master = 0;
        wait_until(5, "a worker is starting", || {
            let all = crate::support::working_in(&place.dir);
            let named = |pid: &u32| {
                std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name == "demo worker\n")
            };
            let found = all.into_iter().find(|pid| workers(*pid).iter().any(named));
            master = found.unwrap_or_default();
            found.is_some()
        });
        let begun = Instant::now();
        signal(master, "TERM");
        let done = finish(child);
        was_soon(begun, 3000);
        if daemon.is_empty() {
            assert_eq!(done.code, Some(0), "{done:?}");
            assert_eq!(done.err, "");
        } else {
            assert_eq!(
                done.failed(1),
                "demo: start failed: it was told to stop before it was ready\n"
            );
        }
        place.wait_empty(2);
        assert_eq!(place.read("run/app.pid"), "");
    }
}

/// A client that keeps asking until it is refused loses nothing: each connection is answered or never taken.
#[test]
fn a_client_that_hammers_through_a_stop_loses_nothing() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.close_wait=60"]);
    let hammers: Vec<_> = (0..4)
        .map(|_| asks_to_the_end(site.address().to_owned()))
        .collect();
    holds_for(200, "", || true);
    place.app(&["stop"]).ok();
    for hammer in hammers {
        let (answers, losses) = hammer.join().unwrap();
        // At the very end one may be connected when the listener closes: no server can tell it from a later one.
        assert!(
            answers > 0 && losses.len() <= 1,
            "{answers} answers, lost: {losses:?}"
        );
    }
    place.wait_empty(1);
}
