//! Request bodies that are longer than what is collected before a handler is called: right bytes, limits, deadlines, and
//! what becomes of the connection behind them.

use crate::support::{
    Place, Site, Wire, assert_overloaded, descriptors, finish, get, holds_for, in_time, is_alive,
    look, pattern, post, post_chunked, settled_descriptors, signal, wait_until, was_soon,
};
use std::fs;
use std::net::Shutdown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The head of a request with a body of this length.
fn head(target: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")
}

/// The head of one whose body is chunked.
fn chunked_head(target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
}

/// A chunk of this many bytes.
fn chunk(size: usize) -> String {
    format!("{size:x}\r\n{}\r\n", "c".repeat(size))
}

/// The refusal of a body, which ends its connection.
#[track_caller]
fn assert_refused(wire: &mut Wire, status: u16, what: &str) {
    let answer = wire.read_answer(true);
    let answer = answer.unwrap_or_else(|why| panic!("{what}: {why}"));
    assert_eq!(answer.status, status, "{what}");
    assert_eq!(answer.header("Connection"), Some("close"), "{what}");
    let text = answer.text();
    assert!(text.starts_with(&format!("{status} ")), "{what}: {text}");
    assert!(wire.is_closed(), "{what}");
}

#[test]
fn a_long_body_arrives_byte_for_byte_and_the_connection_goes_on() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    for size in [65_535, 65_536, 65_537, 131_072, 1 << 20] {
        let body = pattern(size);
        wire.send(head("/echo", size));
        wire.send(&body);
        assert!(wire.answer().body == body, "{size} by length");
        assert_eq!(wire.get("/hello").text(), "Hello, World!", "{size}");
        for chunk in [100, 4096, 65_537, 1 << 20] {
            wire.send(post_chunked("/echo", &body, chunk));
            assert!(wire.answer().body == body, "{size} in chunks of {chunk}");
            assert_eq!(
                wire.get("/hello").text(),
                "Hello, World!",
                "{size}, {chunk}"
            );
        }
    }
}

#[test]
fn fifty_megabytes_are_counted_as_they_come_and_never_kept() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    assert_eq!(wire.get("/hello").status, 200);
    let before = resident(site.worker());
    let piece = pattern(500_000);
    wire.send(head("/count", 50_000_000));
    (0..100).for_each(|_| wire.send(&piece));
    assert_eq!(wire.answer().text(), "50000000\n");
    wire.send(chunked_head("/count"));
    for _ in 0..100 {
        wire.send("7a120\r\n");
        wire.send(&piece);
        wire.send("\r\n");
    }
    wire.send("0\r\nTrailer: t\r\n\r\n");
    assert_eq!(wire.answer().text(), "50000000\n");
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
    let grown = resident(site.worker()).saturating_sub(before);
    assert!(grown < 4000, "{grown} kB more than before");
}

/// Kilobytes of memory that a process has in use.
fn resident(pid: u32) -> u64 {
    let text = crate::look::status(pid, "VmRSS");
    text.trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn what_is_pipelined_behind_a_long_body_is_answered() {
    let place = Place::demo();
    let site = place.start(&[]);
    let body = pattern(200_000);
    let mut text = Vec::new();
    for round in 0..5 {
        text.extend(post_chunked("/count", &body, 30_000 + round));
        text.extend(get("/hello").into_bytes());
        text.extend(post("/echo", "between").into_bytes());
        text.extend(head("/count", body.len()).into_bytes());
        text.extend(&body);
        // Two in a row behind it, so that what is over is more than one request.
        text.extend((get("/bytes?n=5") + &get("/pid")).into_bytes());
    }
    let worker = site.worker().to_string();
    // In one piece, and in pieces that end nowhere in particular.
    for size in [text.len(), 99_991, 16_384, 8_191] {
        let mut wire = site.connect();
        for piece in text.chunks(size) {
            wire.send(piece);
        }
        for round in 0..5 {
            assert_eq!(wire.answer().text(), "200000\n", "{size}, {round}");
            assert_eq!(wire.answer().text(), "Hello, World!", "{size}, {round}");
            assert_eq!(wire.answer().text(), "between", "{size}, {round}");
            assert_eq!(wire.answer().text(), "200000\n", "{size}, {round}");
            assert_eq!(wire.answer().text(), "xxxxx", "{size}, {round}");
            assert_eq!(wire.answer().text(), worker, "{size}, {round}");
        }
        assert!(wire.is_quiet());
    }
    // Half of a head comes with the end of the body.
    let mut wire = site.connect();
    wire.send(&post_chunked("/count", &body, 1000)[..]);
    wire.send("GET /he");
    assert_eq!(wire.answer().text(), "200000\n");
    wire.send("llo HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.answer().text(), "Hello, World!");
}

/// What no handler looks at is not read for long; the client is told, and still gets its answer.
#[test]
fn an_ignored_body_costs_the_connection_but_not_the_answer() {
    let place = Place::demo();
    let site = place.start(&[]);
    let stowaway = get("/hold?name=stowaway");
    for (length, sent) in [
        (400_000, 100_000),
        (400_000, 400_000),
        (20_000_000, 20_000_000),
    ] {
        let body = stowaway.repeat(sent / stowaway.len() + 1);
        let body = &body.as_bytes()[..sent];
        let mut wire = site.connect();
        wire.send(head("/ignore", length));
        // All of it before the first look at the answer.
        wire.send(body);
        let answer = wire.answer();
        assert_eq!(answer.text(), "ignored\n", "{sent} of {length}");
        assert_eq!(answer.header("Connection"), Some("close"));
        wire.try_send(get("/hold?name=stowaway"));
        assert_eq!(wire.rest().0, b"", "{sent} of {length}");

        let mut wire = site.connect();
        wire.send(chunked_head("/ignore"));
        wire.send(format!("{length:x}\r\n"));
        wire.send(body);
        let answer = wire.answer();
        assert_eq!(answer.text(), "ignored\n", "{sent} of {length}, chunked");
        assert_eq!(answer.header("Connection"), Some("close"));
        assert_eq!(wire.rest().0, b"", "{sent} of {length}, chunked");
    }
    assert!(!place.path("stowaway.held").exists());
}

#[test]
fn an_ignored_body_that_is_wholly_there_is_never_the_next_request() {
    let place = Place::demo();
    let site = place.start(&[]);
    let stowaway = get("/hold?name=stowaway");
    let body = stowaway.repeat(100_000 / stowaway.len());
    let mut kept = 0;
    for round in 0..40 {
        let mut wire = site.connect();
        let text = match round % 2 {
            0 => head("/ignore", body.len()).into_bytes(),
            _ => post_chunked("/ignore", body.as_bytes(), 10_000),
        };
        wire.send(text);
        if round % 2 == 0 {
            wire.send(&body);
        }
        wire.try_send(get("/hello"));
        let answer = wire.answer();
        assert_eq!(answer.text(), "ignored\n", "round {round}");
        if answer.header("Connection") == Some("close") {
            assert_eq!(wire.rest().0, b"", "round {round}");
        } else {
            assert_eq!(wire.answer().text(), "Hello, World!", "round {round}");
            kept += 1;
        }
    }
    assert!(!place.path("stowaway.held").exists());
    println!("{kept} of 40 connections outlived a body that nobody read");
}

#[test]
fn a_long_body_that_stalls_is_refused_in_time() {
    in_time(1000, || {
        let place = Place::demo();
        let site = place.start(&["--set", "app.io_timeout=1", "--set", "app.max_body=300000"]);
        let mut wires: Vec<(&str, Wire)> = Vec::new();
        for (what, target, begin) in [
            ("counted", "/count", head("/count", 200_000)),
            ("kept", "/echo", head("/echo", 200_000)),
            ("in a chunk", "/count", chunked_head("/count") + "30d40\r\n"),
        ] {
            let mut wire = site.connect();
            wire.send(begin);
            wire.send("b".repeat(100_000));
            wires.push((what, wire));
            // Between two chunks.
            let mut wire = site.connect();
            wire.send(chunked_head(target) + &chunk(100_000));
            wires.push(("between chunks", wire));
        }
        // One that drips from the beginning has no handler yet.
        let mut dripping = site.connect();
        dripping.send(head("/count", 200_000));
        let begun = Instant::now();
        dripping.drip(&"d".repeat(200), 1, 4);
        assert_refused(&mut dripping, 408, "dripping");
        for (what, mut wire) in wires {
            assert_refused(&mut wire, 408, what);
        }
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(800), "{took:?}");
        was_soon(begun, 10000);
        assert_eq!(place.fact("in_flight"), "0");
        // One that is slow but steady is not: 100 kB at once and then 100 bytes now and then.
        let mut slow = site.connect();
        slow.send(head("/count", 120_000));
        slow.send("s".repeat(100_000));
        slow.drip(&"s".repeat(20_000), 200, 2);
        assert_eq!(slow.answer().text(), "120000\n");
        assert_eq!(slow.get("/hello").status, 200);
    });
}

#[test]
fn what_is_wrong_with_the_rest_of_a_body_goes_before_what_the_handler_says() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_body=150000"]);
    let good = chunk(50_000).repeat(2);
    for (status, target, rest) in [
        // /count and /echo answer an error with a 400 and a text of their own.
        (400, "/count", "zz\r\n"),
        (400, "/count", "5\r\nabcdefg\r\n"),
        (400, "/count", "5\r\nabcde\n0\r\n\r\n"),
        (400, "/echo", "-1\r\n"),
        (400, "/echo", "0\r\nBroken trailer\r\n\r\n"),
        (413, "/echo", "c351\r\n"),
        (413, "/echo", "ffffffffffff\r\n"),
        (413, "/count", "ffffffffffff\r\n"),
    ] {
        let mut wire = site.connect();
        wire.send(chunked_head(target) + &good + rest);
        wire.try_send(get("/hello"));
        assert_refused(&mut wire, status, rest);
    }
    // To the byte.
    let mut wire = site.connect();
    wire.send(chunked_head("/echo") + &good + &chunk(50_000) + "0\r\n\r\n");
    assert_eq!(wire.answer().body.len(), 150_000);
    wire.send(head("/echo", 150_001));
    assert_refused(&mut wire, 413, "by its length");
    assert_eq!(place.fact("in_flight"), "0");
}

#[test]
fn a_client_that_goes_in_the_middle_of_its_body_leaves_nothing() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=8"]);
    let worker = site.worker();
    assert_eq!(site.get("/hello").status, 200);
    let before = settled_descriptors(worker);
    for round in 0..10 {
        let part = "b".repeat(70_000 + round * 10_000);
        for begin in [
            head("/count", 200_000),
            head("/echo", 200_000),
            head("/ignore", 200_000),
            chunked_head("/count") + "30d40\r\n",
            chunked_head("/echo") + "30d40\r\n",
        ] {
            let mut wire = site.connect();
            wire.send(begin);
            wire.send(&part);
            if round % 2 == 0 {
                wire.stream.shutdown(Shutdown::Write).unwrap();
            }
        }
    }
    wait_until(10, "every lost connection is closed", || {
        descriptors(worker) <= before
    });
    wait_until(10, "every thread is free again", || {
        place.fact("in_flight") == "0"
    });
    // The threads that may read long bodies are there as before.
    let mut wires: Vec<Wire> = (0..6).map(|_| site.connect()).collect();
    for wire in &mut wires {
        wire.send(head("/count", 100_000));
        wire.send("b".repeat(100_000));
    }
    for wire in &mut wires {
        assert_eq!(wire.answer().text(), "100000\n");
    }
    assert_eq!(site.get("/pid").text(), worker.to_string());
    assert!(!place.log().contains("panic"));
}

#[test]
fn a_path_may_have_a_limit_of_its_own() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_body=1000"]);
    let mut wire = site.connect();
    wire.send(post("/small", "0123456789"));
    assert_eq!(wire.answer().text(), "small\n");
    wire.send(post_chunked("/small", b"0123456789", 3));
    assert_eq!(wire.answer().text(), "small\n");
    // More than others may have.
    wire.send(head("/count", 2_000_000));
    wire.send(pattern(2_000_000));
    assert_eq!(wire.answer().text(), "2000000\n");
    wire.send(post("/echo", &"e".repeat(1000)));
    assert_eq!(wire.answer().body.len(), 1000);
    for text in [
        post("/small", "0123456789a").into_bytes(),
        post_chunked("/small", b"0123456789a", 3),
        post("/small?query", "0123456789a").into_bytes(),
        post("/echo", &"e".repeat(1001)).into_bytes(),
        post_chunked("/echo", &[b'e'; 1001], 500),
        head("/count", (1 << 30) + 1).into_bytes(),
    ] {
        let mut wire = site.connect();
        wire.send(&text);
        assert_refused(&mut wire, 413, &String::from_utf8_lossy(&text[..60]));
    }
}

#[test]
fn nobody_is_told_to_go_on_with_a_body_that_is_not_wanted() {
    let place = Place::demo();
    let site = place.start(&[]);
    for (status, target, length) in [
        (404, "/nowhere", 3),
        (404, "/nowhere", 1_000_000),
        (404, "/nowhere", 1 << 40),
        (405, "/hello", 3),
        (405, "/hello", 1_000_000),
        (413, "/echo", (1 << 20) + 1),
        (413, "/small", 11),
        (413, "/count", (1 << 30) + 1),
    ] {
        let mut wire = site.connect();
        wire.send(head(target, length).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
        let answer = wire.answer();
        assert_eq!(answer.status, status, "{target} {length}");
        assert_eq!(answer.header("Connection"), Some("close"), "{target}");
        assert!(wire.is_closed(), "{target} {length}");
    }
    let mut wire = site.connect();
    wire.send(chunked_head("/nowhere").replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(wire.answer().status, 404);
    assert!(wire.is_closed());
    // Where it is wanted, it is asked for once, by length and in chunks, and the connection goes on.
    let mut wire = site.connect();
    let body = pattern(1_000_000);
    for (begin, text) in [
        (head("/count", body.len()), body.clone()),
        (chunked_head("/count"), {
            let whole = post_chunked("/count", &body, 70_000);
            whole[chunked_head("/count").len()..].to_vec()
        }),
    ] {
        wire.send(begin.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(wire.answer().head, "HTTP/1.1 100 Continue");
        holds_for(20, "nothing more is said", || wire.is_quiet());
        wire.send(text);
        assert_eq!(wire.answer().text(), "1000000\n");
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    // A long body for nobody, from somebody who does not ask first: answered before it is all there.
    let mut wire = site.connect();
    wire.send(head("/nowhere", 900_000));
    assert_eq!(wire.answer().status, 404);
    assert!(wire.is_closed());
}

#[test]
fn long_bodies_take_half_of_the_threads_at_most() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=4"]);
    let mut stalled: Vec<Wire> = (0..2).map(|_| site.connect()).collect();
    let begin = |wire: &mut Wire| {
        wire.send(head("/count", 150_000));
        wire.send("b".repeat(100_000));
    };
    stalled.iter_mut().for_each(begin);
    wait_until(10, "two handlers read", || place.count("in_flight") == 2);
    let mut queued: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    queued.iter_mut().for_each(begin);
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(site.get("/hello").text(), "Hello, World!");
    }
    was_soon(begun, 5000);
    // Short bodies are no long ones.
    let mut wire = site.connect();
    wire.send(post("/echo", "abc"));
    assert_eq!(wire.answer().text(), "abc");
    // All the rest of the waiting is there; none is read while both stall.
    for wire in &mut queued {
        wire.send("b".repeat(50_000));
    }
    holds_for(200, "the others wait", || {
        queued.iter_mut().all(Wire::is_quiet)
    });
    assert_eq!(place.count("in_flight"), 2);
    // One ends, and they follow one after the other.
    let mut first = stalled.remove(0);
    first.send("b".repeat(50_000));
    assert_eq!(first.answer().text(), "150000\n");
    for wire in &mut queued {
        assert_eq!(wire.answer().text(), "150000\n");
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    assert!(stalled[0].is_quiet());
    stalled[0].send("b".repeat(50_000));
    assert_eq!(stalled[0].answer().text(), "150000\n");
}

/// A reader that gives up makes room as well as one that ends; who waits in vain is told to come again.
#[test]
fn who_waits_too_long_for_a_reader_is_sent_away() {
    in_time(1000, || {
        let place = Place::demo();
        let sets = ["--set", "app.threads=2", "--set", "app.io_timeout=1"];
        let site = place.start(&sets);
        let mut reading = site.connect();
        reading.send(head("/count", 200_000));
        reading.send("b".repeat(100_000));
        wait_until(10, "one handler reads", || place.count("in_flight") == 1);
        let mut queued: Vec<Wire> = (0..2).map(|_| site.connect()).collect();
        for wire in &mut queued {
            wire.send(head("/count", 100_000));
            wire.send("b".repeat(70_000));
        }
        // Goes on, and so keeps the one thread, until the others are told.
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 100_000;
                while !over.load(std::sync::atomic::Ordering::SeqCst) && sent < 199_900 {
                    reading.drip("b", 1, 3);
                    sent += 1;
                }
                reading.send("b".repeat(200_000 - sent));
                reading.answer()
            });
            for wire in &mut queued {
                assert_overloaded(wire);
            }
            over.store(true, std::sync::atomic::Ordering::SeqCst);
            assert_eq!(sender.join().unwrap().text(), "200000\n");
        });
        // A stalled one in front: it is refused after a second, and the next has a second of its own.
        let mut stalled = site.connect();
        stalled.send(head("/count", 200_000));
        stalled.send("b".repeat(100_000));
        wait_until(10, "one handler reads", || place.count("in_flight") == 1);
        let mut next = site.connect();
        next.send(head("/count", 100_000));
        next.send("b".repeat(100_000));
        assert_refused(&mut stalled, 408, "stalled");
        let answer = next.answer();
        assert!([200, 503].contains(&answer.status), "{}", answer.head);
        assert_eq!(place.fact("in_flight"), "0");
    });
}

#[test]
fn a_long_body_that_is_being_read_or_waits_for_it_survives_stop() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=2", "--set", "app.close_wait=20"]);
    let mut reading = site.connect();
    reading.send(head("/count", 200_000));
    reading.send("b".repeat(100_000));
    wait_until(10, "one handler reads", || place.count("in_flight") == 1);
    let mut queued = site.connect();
    queued.send(post_chunked("/count", &pattern(150_000), 9000));
    let mut early = site.connect();
    early.send(head("/count", 200_000));
    early.send("b".repeat(10_000));
    assert_eq!(site.get("/hello").status, 200);
    place.wait_in_flight(1);
    let mut stop = place.begin(&["stop"]);
    site.wait_refused();
    holds_for(100, "stop waits", || stop.try_wait().unwrap().is_none());
    reading.send("b".repeat(100_000));
    early.send("b".repeat(190_000));
    for (wire, text) in [
        (&mut reading, "200000\n"),
        (&mut queued, "150000\n"),
        (&mut early, "200000\n"),
    ] {
        let answer = wire.answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(wire.is_closed());
    }
    finish(stop).ok();
    assert!(!is_alive(site.pid));
    let log = place.log();
    assert!(log.contains("stopped, 3 requests finished, 0 cut\n"));
}

/// A directory in memory, whose file system has files without a name. It is removed in the end.
struct Memory(PathBuf);

impl Memory {
    fn of(place: &Place) -> Memory {
        let name = place.dir.file_name().unwrap().to_str().unwrap();
        let memory = Memory(PathBuf::from(format!("/dev/shm/{name}")));
        fs::create_dir(&memory.0).unwrap();
        place.link(memory.0.to_str().unwrap(), "saved");
        memory
    }

    fn names(&self) -> Vec<String> {
        let found = fs::read_dir(&self.0).unwrap().flatten();
        found
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }

    /// Whether a process has a file open here that is to become one.
    fn is_written_by(&self, pid: u32) -> bool {
        let here = format!("{}/", self.0.display());
        look::descriptors(pid)
            .iter()
            .any(|(_, to)| to.starts_with(&here))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(name: &str, length: usize) -> String {
    format!("PUT /saved/{name} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn a_body_becomes_a_file_whole_or_not_at_all() {
    const SIZE: usize = 1_000_000;
    let place = Place::demo();
    let memory = Memory::of(&place);
    let site = place.start(&["--set", "close_wait=1"]);
    // As long as a name may be.
    let long = "n".repeat(255);
    for (name, body) in [("a", pattern(SIZE)), (&long, pattern(10)), ("a", vec![])] {
        let mut wire = site.connect();
        wire.send(put(name, body.len()));
        wire.send(&body);
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("{}\n", body.len()))
        );
        assert_eq!(fs::read(memory.0.join(name)).unwrap(), body);
    }
    let whole = memory.names();
    assert_eq!(whole.len(), 2, "{whole:?}");

    let halves = |site: &Site| {
        let mut wire = site.connect();
        wire.send(put("a", SIZE));
        wire.send(pattern(SIZE / 2));
        wait_until(10, "it is written", || memory.is_written_by(site.worker()));
        wire
    };
    // The client goes, which is no fault of the program.
    drop(halves(&site));
    wait_until(10, "it is not written any more", || {
        !memory.is_written_by(site.worker())
    });
    // It is cut by the end of its time, and then killed.
    let wire = halves(&site);
    let old = site.worker();
    place.app(&["restart"]).ok();
    wait_until(20, "it is cut", || !is_alive(old));
    drop(wire);
    let wire = halves(&site);
    let old = site.worker();
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    drop(wire);
    assert_eq!(memory.names(), whole);
    assert_eq!(fs::read(memory.0.join("a")).unwrap(), b"");
    let log = place.log();
    assert!(
        !log.contains(" error ") && !log.contains("/saved/a: "),
        "{log}"
    );
}
