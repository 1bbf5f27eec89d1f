//! A worker that is kept from running for longer than its time-outs (`docker pause`, SIGSTOP, a machine that sleeps).
//! What came meanwhile counts, and nobody's time runs.

use crate::support::{Meanwhile, Place, Wire, get, holds_for, in_time, signal, wait_until};
use std::net::TcpStream;

const LONG: usize = 200_000;

/// Requests of each kind, in two parts.
fn halves() -> Vec<(String, String)> {
    let head = get("/hello").replace("Host: t", "Host: |t");
    let short = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc|def".to_owned();
    let chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc|\r\n0\r\n\r\n";
    let half = "b".repeat(LONG / 2);
    let long =
        format!("POST /count HTTP/1.1\r\nHost: t\r\nContent-Length: {LONG}\r\n\r\n{half}|{half}");
    [head, short, chunked.to_owned(), long]
        .iter()
        .map(|text| text.split_once('|').unwrap())
        .map(|(one, other)| (one.to_owned(), other.to_owned()))
        .collect()
}

#[track_caller]
fn all_are_answered(wires: &mut [Wire]) {
    let got: Vec<_> = wires
        .iter_mut()
        .map(|wire| wire.read_answer(true))
        .collect();
    let codes: Vec<u16> = got.iter().flatten().map(|answer| answer.status).collect();
    assert_eq!(codes, vec![200; wires.len()], "{got:#?}");
}

/// `pause` is in milliseconds, the limits of the worker in seconds.
fn pause(limit: &str, pause: u64, goes_on_later: bool) {
    let place = Place::demo();
    let (head, io) = (
        format!("header_timeout={limit}"),
        format!("io_timeout={limit}"),
    );
    let site = place.start(&["--set", &head, "--set", &io]);
    let mut wires: Vec<Wire> = halves()
        .iter()
        .map(|(one, _)| {
            let mut wire = site.connect();
            wire.send(one);
            wire
        })
        .collect();
    // The worker has read what there was when it has answered somebody who came later.
    assert_eq!(site.get("/hello").status, 200);
    let worker = site.worker();
    signal(worker, "STOP");
    let rest = |wires: &mut Vec<Wire>| {
        for (wire, (_, other)) in wires.iter_mut().zip(halves()) {
            wire.send(other);
        }
    };
    if !goes_on_later {
        rest(&mut wires);
    }
    holds_for(pause, "", || true);
    signal(worker, "CONT");
    if goes_on_later {
        rest(&mut wires);
    }
    all_are_answered(&mut wires);
}

#[test]
fn what_came_during_a_pause_counts() {
    for _ in 0..3 {
        in_time(1000, || pause("1", 1300, false));
    }
}

#[test]
fn what_came_during_a_long_pause_counts() {
    in_time(2000, || pause("2", 4000, false));
}

#[test]
fn who_goes_on_after_a_long_pause_has_time() {
    in_time(4000, || pause("4", 6500, true));
}

#[test]
fn who_is_late_without_a_pause_is_refused() {
    let place = Place::demo();
    let site = place.start(&["--set", "header_timeout=1", "--set", "io_timeout=1"]);
    let mut wires = Vec::new();
    for (one, _) in halves() {
        let mut wire = site.connect();
        wire.send(one);
        wires.push(wire);
    }
    for wire in &mut wires {
        assert_eq!(wire.answer().status, 408);
    }
}

#[test]
fn a_pause_is_no_part_of_a_drain() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=4"]);
    let worker = site.worker();
    let mut held = place.hold(&site, "a");
    let mut stop = Meanwhile::new(place.command(&["app", "stop"]));
    wait_until(20, "the worker has heard it, for nobody listens", || {
        TcpStream::connect(site.address()).is_err()
    });
    for pid in [site.pid, worker] {
        signal(pid, "STOP");
    }
    holds_for(6000, "", || true);
    // The master's patience is another matter.
    signal(worker, "CONT");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    assert!(!stop.is_over());
    signal(site.pid, "CONT");
    stop.end(20);
}
