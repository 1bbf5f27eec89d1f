//! The limit of open files: raised for what connections may hold, and said once where it is too low for what was asked.

use crate::support::{Place, Site, Wire, get, run, signal, wait_until};

const DOWNLOADS: usize = 95;

/// Starts with these limits of open files, soft and hard.
fn start(place: &Place, soft: &str, hard: &str, more: &[&str]) -> Site {
    let limits = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let args = [&args[..], more].concat();
    Site::of(&run(&mut place.wrapped(&["sh", "-c", &limits], &args)).ok())
}

fn soft_limit(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let word = line.and_then(|line| line.split_whitespace().nth(3));
    word.and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn slow_downloads_of_files_have_descriptors_for_both_ends() {
    let place = Place::demo();
    std::fs::File::create(place.path("large"))
        .and_then(|file| file.set_len(64 << 20))
        .unwrap();
    let site = start(&place, "40", "1000", &["--set", "max_connections=100"]);
    let worker = site.worker();
    assert_eq!(soft_limit(worker), 264);
    let mut wires: Vec<Wire> = (0..DOWNLOADS).map(|_| site.connect()).collect();
    for wire in &mut wires {
        wire.send(get("/file?name=large"));
    }
    for wire in &mut wires {
        let head = wire.gulp(15).expect("an answer begins");
        assert_eq!(String::from_utf8_lossy(&head), "HTTP/1.1 200 OK");
    }
    // None of them is over: both ends of each are open.
    wait_until(10, "all are with the gate", || {
        crate::look::descriptors(worker).len() > 2 * DOWNLOADS
    });
}

#[test]
fn where_the_hard_limit_is_low_there_are_fewer_connections() {
    let place = Place::demo();
    std::fs::File::create(place.path("large"))
        .and_then(|file| file.set_len(64 << 20))
        .unwrap();
    let site = start(&place, "100", "164", &["--set", "max_connections=100"]);
    let words = "at most 50 connections per worker instead of 100: the limit of open files is 164, and a connection may hold two";
    assert!(place.log().contains(words));
    assert_eq!(soft_limit(site.worker()), 164);
    let mut wires: Vec<Wire> = (0..DOWNLOADS).map(|_| site.connect()).collect();
    for wire in &mut wires {
        wire.send(get("/file?name=large"));
    }
    // As many as may, and those that wait for a place have theirs when one of them is gone.
    for wire in &mut wires[..50] {
        assert_eq!(wire.gulp(15).as_deref(), Ok(&b"HTTP/1.1 200 OK"[..]));
    }
    let mut rest = wires.split_off(50);
    drop(wires);
    for wire in &mut rest {
        assert_eq!(wire.gulp(15).as_deref(), Ok(&b"HTTP/1.1 200 OK"[..]));
    }
}

#[test]
fn a_low_limit_is_said_once_and_only_to_who_asked_for_more() {
    let place = Place::demo();
    let site = start(&place, "100", "200", &["--set", "workers=2"]);
    assert!(!place.log().contains(" instead of "));
    drop(site);
    let place = Place::demo();
    let more = ["--set", "max_connections=5000", "--set", "workers=2"];
    let site = start(&place, "100", "200", &more);
    for pid in crate::support::workers(site.pid) {
        signal(pid, "KILL");
    }
    wait_until(20, "four have been ready", || {
        place.log().matches("worker ready").count() == 4
    });
    assert_eq!(place.log().matches(" instead of 5000").count(), 1);
}
