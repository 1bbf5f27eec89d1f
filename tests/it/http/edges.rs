//! Where one hands over to the other: a handler to the gate, the gate to the kernel, the kernel to a slow client. Nothing
//! is lost there, at the limit of connections, of memory and of time neither, and what is cut never looks whole.

use crate::faults::streams::{break_stream, may_trace};
use crate::http::strangers::kilobytes;
use crate::look::has_namespaces;
use crate::support::{
    Place, Site, Wire, freeze, get, holds_for, in_time, post, signal, wait_until, was_soon,
};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Between two requests of a batch a connection has nothing to read and no handler, and is not idle all the same.
#[test]
fn at_max_connections_a_batch_is_answered_whole() {
    const BATCH: usize = 8;
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=16", "--set", "app.threads=4"]);
    // The second batch may find the connection closed, for it was idle in between.
    let batches = || {
        let mut whole = 0;
        for _ in 0..8 {
            let mut wire = site.connect();
            for _ in 0..2 {
                wire.try_send(get("/hello").repeat(BATCH));
                let answers = (0..BATCH).map_while(|_| wire.read_answer(true).ok());
                let count = answers.filter(|answer| answer.status == 200).count();
                assert!(count == 0 || count == BATCH, "{count} of {BATCH} answers");
                whole += count / BATCH;
            }
        }
        whole
    };
    let whole: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..48).map(|_| scope.spawn(batches)).collect();
        let counts = clients.into_iter().map(|client| client.join());
        counts.map(|count| count.expect("no batch is cut")).sum()
    });
    assert!(whole >= 48 * 8 / 2, "{whole} batches");
}

/// Closed on what it still sends, a connection is reset, and with it goes the answer that says why.
#[test]
fn who_still_sends_behind_its_last_answer_makes_room_after_those_who_are_idle() {
    in_time(1500, || {
        let place = Place::demo();
        let site = place.start(&["--set", "app.max_connections=8"]);
        let worker = site.worker();
        let mut idle: Vec<Wire> = (0..7).map(|_| site.connect()).collect();
        for wire in &mut idle {
            assert_eq!(wire.get("/hello").status, 200);
        }
        let mut refused = site.connect();
        refused.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n");
        refused.wait_begun();
        freeze(worker);
        // Whose turn comes first was there first.
        let mut new = site.connect();
        refused.send("x".repeat(1000));
        signal(worker, "CONT");
        assert_eq!(new.get("/hello").status, 200);
        assert_eq!(refused.answer().status, 413);
        assert!(refused.is_closed());
        assert!(idle.remove(0).is_closed());
        assert!(idle.iter_mut().all(Wire::is_quiet));
    });
}

/// What it sends meets a connection that is closed: that is a reset, and the end of its answer comes before.
#[test]
fn who_sends_on_after_its_own_last_word_reads_its_answer_to_the_end() {
    let place = Place::demo();
    let site = place.start(&[]);
    // The first is answered by the gate, the other by a handler.
    for path in ["/healthz", "/hello"] {
        for version in ["1.0", "1.1"] {
            let last = format!("GET {path} HTTP/{version}\r\nHost: t\r\nConnection: close\r\n\r\n");
            for _ in 0..100 {
                let mut wire = site.connect();
                wire.send(&last);
                wire.try_send(get("/hello"));
                assert_eq!(wire.answer().status, 200, "{path}");
                assert!(wire.is_closed(), "{path}");
            }
        }
    }
}

/// Nothing happens that would have the gate look: it has to come back to them by itself.
#[test]
fn connections_that_say_nothing_make_room_within_a_second_or_so() {
    let place = Place::demo();
    let site = place.start(&[
        "--set",
        "app.max_connections=16",
        "--set",
        "app.header_timeout=60",
    ]);
    let mut silent: Vec<Wire> = (0..16).map(|_| site.connect()).collect();
    let mut new = site.connect();
    let begun = Instant::now();
    assert_eq!(new.get("/hello").text(), "Hello, World!");
    was_soon(begun, 5000);
    // Who came first has gone, and nobody else.
    assert!(silent.remove(0).is_closed());
    assert!(silent.iter_mut().all(Wire::is_quiet));
}

/// Whichever thread lets go of it, the gate's or a handler's, has others to serve.
#[test]
fn a_reader_that_panics_when_it_is_dropped_costs_nobody_else_anything() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker().to_string();
    let mut other = place.hold(&site, "other");
    let mut wire = site.connect();
    // Not read at all, and read to its end.
    wire.send("HEAD /brittle?n=5 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.answer_without_body().status, 200);
    wire.send(get("/brittle?status=204"));
    assert_eq!(wire.answer_without_body().status, 204);
    assert_eq!(wire.get("/brittle?n=100000").body.len(), 100_000);
    assert_eq!(wire.get("/brittle?n=9000000").body.len(), 9_000_000);
    assert_eq!(wire.get("/pid").text(), worker);
    // Left in the middle: before anything was read of it, and while it is being read.
    for sips in [0, 3] {
        let mut leaver = site.connect();
        leaver.send(get("/brittle"));
        for _ in 0..sips {
            assert!(leaver.sip(100_000).expect("it goes on") > 0);
        }
    }
    wait_until(10, "the one that is held is all there is", || {
        place.fact("in_flight") == "1" && place.fact("connections") == "2"
    });
    assert_eq!(site.get("/pid").text(), worker);
    place.release("other");
    assert_eq!(other.answer().text(), "held\n");
    wait_until(10, "nothing is in flight", || {
        place.fact("in_flight") == "0"
    });
    assert_eq!(place.fact("worker_deaths"), "0");
}

/// Reads what is there, up to a moment without anything; how much it was.
fn take_all(stream: &mut UnixStream) -> usize {
    let (mut sum, mut buffer) = (0, vec![0; 1 << 20]);
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => sum += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("after {sum} bytes: {error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    sum
}

/// Asks for so much, and takes what there is whenever a bit more than half of `app.io_timeout`, which is 2 s, is over;
/// in the end the rest. How much it was, and the longest time that it let pass.
fn come_now_and_then(place: &Place, worker: u32, length: usize) -> (usize, Duration) {
    let mut stream = UnixStream::connect(place.path("run/http.sock")).unwrap();
    let limit = Some(crate::support::PATIENCE);
    stream.set_read_timeout(limit).unwrap();
    let (mut taken, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    let request = get(&format!("/bytes?n={length}"));
    stream.write_all(request.as_bytes()).unwrap();
    for _ in 0..3 {
        holds_for(1100, "", || true);
        // So that the worker finds it all taken at once, and none of it while it sends on.
        freeze(worker);
        taken += take_all(&mut stream);
        signal(worker, "CONT");
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    let mut buffer = vec![0; 1 << 16];
    while taken < length {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => taken += count,
        }
    }
    (taken, longest)
}

/// What it takes counts when it is next asked about, however long ago that was; not only while it is being asked.
#[test]
fn a_reader_that_comes_now_and_then_gets_everything() {
    const LENGTH: usize = 3_000_000;
    let place = Place::demo();
    let address = ["--address", "unix:run/http.sock"];
    let more = ["--set", "app.io_timeout=2"];
    let args = [&["start", "--daemon"][..], &address, &more].concat();
    let site = Site::of(&place.app(&args).ok());
    let worker = site.worker();
    let mut tries = 0;
    let (taken, longest) = loop {
        let (taken, longest) = come_now_and_then(&place, worker, LENGTH);
        tries += 1;
        // On a machine that is very busy it may have come too late itself.
        if longest < Duration::from_millis(1900) || tries == 5 {
            break (taken, longest);
        }
    };
    assert!(taken >= LENGTH, "{taken} bytes, at most {longest:?} apart");
}

/// Reads to the end: how much there was, and whether the end was a reset.
fn read_out(wire: &mut Wire) -> (usize, bool) {
    let (mut sum, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match wire.stream.read(&mut buffer) {
            Ok(0) => return (sum, false),
            Ok(count) => sum += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                return (sum, true);
            }
        }
    }
}

/// Begins to get a stream that ends where the connection ends, as a client of HTTP/1.0 does, and stops reading.
#[track_caller]
fn begin_old_stream(site: &Site) -> Wire {
    let mut wire = site.connect();
    wire.send("GET /stream?pieces=100000 HTTP/1.0\r\n\r\n");
    assert!(wire.sip(1000).expect("it begins") > 0);
    wire
}

#[test]
fn a_stream_without_a_length_that_is_not_read_never_looks_whole() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.io_timeout=1"]);
    let mut wire = begin_old_stream(&site);
    place.wait_for_log("does not read its answer");
    let (count, is_reset) = read_out(&mut wire);
    assert!(is_reset && count > 0, "a clean end after {count} bytes");
}

#[test]
fn a_stream_without_a_length_that_a_stop_cuts_never_looks_whole() {
    for _ in 0..5 {
        let place = Place::demo();
        let site = place.start(&["--set", "app.close_wait=1"]);
        let mut wire = begin_old_stream(&site);
        let said = place.app(&["stop"]).ok();
        assert!(said.contains("0 requests finished, 1 cut"), "{said}");
        // On a machine that is very busy the worker may come too late to cut anything, and nobody can do it then.
        if place.log().contains("cut: GET /stream, ") {
            let (count, is_reset) = read_out(&mut wire);
            return assert!(is_reset && count > 0, "a clean end after {count} bytes");
        }
    }
    panic!("no worker leaves in time");
}

#[test]
fn bodies_that_wait_for_a_busy_handler_fill_no_memory() {
    const EACH: usize = 60_000;
    if !has_namespaces() {
        return;
    }
    let place = Place::demo();
    // A quarter is 8 MB, or some 130 bodies.
    let site = place.start_with_memory(32 << 20, &["--set", "app.threads=1"]);
    let worker = site.worker();
    let mut held = place.hold(&site, "a");
    let before = kilobytes(worker, "VmHWM");
    let body = "b".repeat(EACH);
    let mut wires: Vec<Wire> = (0..400).map(|_| site.connect()).collect();
    for wire in &mut wires {
        wire.send(post("/echo", &body));
    }
    wait_until(20, "each waits or is refused", || {
        place.count("in_flight") + place.count("overloaded") == 401
    });
    let grown = kilobytes(worker, "VmHWM") - before;
    assert!(grown < 16_000, "it grew by {grown} kB");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    let mut answered = 0;
    for wire in &mut wires {
        let answer = wire.answer();
        match answer.status {
            200 => assert!(answer.text() == body),
            status => assert_eq!((status, answer.header("Retry-After")), (503, Some("1"))),
        }
        answered += usize::from(answer.status == 200);
    }
    assert!((100..140).contains(&answered), "{answered} of 400");
    assert_eq!(site.get("/pid").text(), worker.to_string());
}

#[test]
fn one_answer_that_is_too_large_does_not_take_the_others_with_it() {
    const EACH: usize = 12_000_000;
    if !has_namespaces() {
        return;
    }
    let place = Place::demo();
    // A quarter is 32 MB. What the kernel has of an answer already counts as well.
    let site = place.start_with_memory(128 << 20, &[]);
    let mut others: Vec<Wire> = (0..2).map(|_| site.connect()).collect();
    for wire in &mut others {
        wire.send(get(&format!("/bytes?n={EACH}")));
        wait_until(10, "it begins", || !wire.is_quiet());
    }
    let mut large = site.connect();
    large.send(get("/bytes?n=40000000"));
    wait_until(10, "it is cut", || place.count("overloaded") > 0);
    for wire in &mut others {
        assert_eq!(wire.answer().body.len(), EACH);
    }
    assert_eq!(place.fact("overloaded"), "1");
    let (count, is_reset) = read_out(&mut large);
    assert!(is_reset && count > 0, "a clean end after {count} bytes");
}

#[test]
fn a_head_request_that_is_never_complete_gets_no_body() {
    if !has_namespaces() {
        return;
    }
    let place = Place::demo();
    // A quarter is 4 MB, which is less than what comes: some have to go at once, the others when their time is over.
    let limits = ["app.io_timeout=2", "app.header_timeout=2"];
    let limits = limits.map(|limit| ["--set", limit]);
    let site = place.start_with_memory(16 << 20, limits.as_flattened());
    let mut wires: Vec<Wire> = (0..160).map(|_| site.connect()).collect();
    let head = "HEAD /hello HTTP/1.1\r\nHost: t\r\n";
    for (number, wire) in wires.iter_mut().enumerate() {
        wire.send(match number % 2 {
            0 => format!("{head}A: {}", "a".repeat(30_000)),
            _ => format!("{head}Content-Length: 60001\r\n\r\n{}", "b".repeat(60_000)),
        });
    }
    let mut counts = [0; 2];
    for wire in &mut wires {
        let answer = wire.answer_without_body();
        assert_ne!(answer.header("Content-Length"), Some("0"));
        assert!(wire.is_closed(), "a body follows {}", answer.head);
        match answer.status {
            408 => counts[0] += 1,
            503 => counts[1] += 1,
            _ => panic!("{}", answer.head),
        }
    }
    assert!(!counts.contains(&0), "{counts:?}");
}

#[test]
fn a_private_stream_that_was_full_and_then_breaks_is_made_anew() {
    if !may_trace() {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    let mut wires: Vec<Wire> = (0..60).map(|_| site.connect()).collect();
    for wire in &mut wires {
        assert_eq!(wire.get("/hello").status, 200);
    }
    // 1.2 MB in one round of the gate, which is more than the kernel takes.
    freeze(worker);
    for wire in &mut wires {
        wire.send(get(&format!("/{}", "x".repeat(20_000))));
    }
    signal(worker, "CONT");
    for wire in &mut wires {
        assert_eq!(wire.answer().status, 404);
    }
    // Noticed at once, and not when the next request does not get through.
    break_stream(worker, 1, "gate");
    place.wait_for_log("the private stream to tiny_http broke");
    // Some come in the same round as it breaks again: they are served side by side.
    freeze(worker);
    for (number, wire) in wires[..4].iter_mut().enumerate() {
        wire.send(get(&format!("/hold?name={number}")));
    }
    break_stream(worker, 1, "gate");
    signal(worker, "CONT");
    (0..4).for_each(|number| place.wait_held(&number.to_string()));
    for (number, wire) in wires[..4].iter_mut().enumerate() {
        place.release(&number.to_string());
        assert_eq!(wire.answer().text(), "held\n");
    }
    assert_eq!(place.fact("worker_deaths"), "0");
}
