//! Leaving with a connection of every kind that there is, under load: on a stop and on a restart what is in flight is
//! finished, however it is in flight; what takes too long is cut, and named.

use crate::support::{
    Hammer, Meanwhile, Place, Site, Wire, asks_to_the_end, finish, get, holds_for, is_alive,
    pattern, post, post_chunked, wait_until, worker,
};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of every long answer: more than the kernel takes for a client that does not read.
const LONG: usize = 30_000_000;

/// One connection of every kind, on a worker with four threads of which two may read long bodies.
struct Kinds {
    /// Without a request: never used, between two, and after an empty line.
    waiting: Vec<Wire>,
    /// Half of a head.
    head: Wire,
    /// Short bodies of which the end is missing, by length and in chunks.
    bodies: Vec<Wire>,
    /// Long ones that a handler reads, and one that waits until it may be.
    long: Vec<Wire>,
    /// With a handler.
    held: Wire,
    /// Answers that are not read: from memory, streams with and without a length, a file.
    readers: Vec<Wire>,
}

const READERS: [&str; 4] = [
    "/bytes?n=30000000",
    "/stream?pieces=1000&size=30000",
    "/stream?pieces=1000&size=30000&length=30000000",
    "/file?name=f",
];

impl Kinds {
    #[track_caller]
    fn all(place: &Place, site: &Site) -> Kinds {
        place.write("f", pattern(LONG));
        let mut waiting: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
        assert_eq!(waiting[1].get("/hello").status, 200);
        assert_eq!(waiting[2].get("/hello").status, 200);
        waiting[2].send("\r\n");
        let mut head = site.connect();
        head.send("GET /hello HTTP/1.1\r\nHos");
        let mut bodies: Vec<Wire> = (0..2).map(|_| site.connect()).collect();
        bodies[0].send(post("/echo", "abc").trim_end_matches('c'));
        let chunked = post_chunked("/echo", b"abc", 2);
        bodies[1].send(&chunked[..chunked.len() - 11]);
        // The readers first: a stream needs a thread now and then until the kernel takes no more.
        let readers = READERS.map(|target| {
            let mut wire = site.connect();
            wire.send(get(target));
            wire.wait_begun();
            wire
        });
        let held = place.hold(site, "held");
        let mut long: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
        for (number, wire) in long.iter_mut().enumerate() {
            wire.send("POST /count HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n");
            wire.send("b".repeat(100_000));
            // The held one, the readers, and these up to the third.
            let in_flight = 1 + READERS.len() as u64 + (number as u64 + 1).min(2);
            wait_until(20, "a handler reads it", || {
                place.count("in_flight") == in_flight
            });
        }
        // All that was sent is received: the gate takes turns in the order things came.
        assert_eq!(site.get("/hello").status, 200);
        Kinds {
            waiting,
            head,
            bodies,
            long,
            held,
            readers: readers.into(),
        }
    }

    /// How many of them are requests.
    const REQUESTS: u64 = 1 + 2 + 3 + 1 + READERS.len() as u64;

    /// Completes every request and takes every answer, which must be whole; what each says of its connection.
    #[track_caller]
    fn finish(&mut self, place: &Place) -> Vec<Option<String>> {
        let mut said = Vec::new();
        let mut check = |wire: &mut Wire, body: &[u8], what: &str| {
            let answer = wire.read_answer(true);
            let answer = answer.unwrap_or_else(|why| panic!("{what}: {why}"));
            assert_eq!(answer.status, 200, "{what}");
            assert!(answer.body == body, "{what}: {} bytes", answer.body.len());
            said.push(answer.header("Connection").map(str::to_owned));
        };
        self.head.send("t: t\r\n\r\n");
        check(&mut self.head, b"Hello, World!", "half a head");
        self.bodies[0].send("c");
        self.bodies[1].send("1\r\nc\r\n0\r\n\r\n");
        for wire in &mut self.bodies {
            check(wire, b"abc", "half a body");
        }
        place.release("held");
        check(&mut self.held, b"held\n", "held");
        for wire in &mut self.long {
            wire.send("b".repeat(100_000));
        }
        for wire in &mut self.long {
            check(wire, b"200000\n", "a long body");
        }
        let piece = vec![b'p'; LONG];
        let bodies = [vec![b'x'; LONG], piece.clone(), piece, pattern(LONG)];
        for ((wire, body), target) in self.readers.iter_mut().zip(bodies).zip(READERS) {
            check(wire, &body, target);
        }
        said
    }
}

/// Nothing is to end because this test itself is slow.
const SETS: [&str; 8] = [
    "--set",
    "app.threads=4",
    "--set",
    "app.close_wait=600",
    "--set",
    "app.io_timeout=600",
    "--set",
    "app.header_timeout=600",
];

#[test]
fn a_stop_finishes_requests_of_every_kind() {
    let place = Place::demo();
    let site = place.start(&SETS);
    let mut kinds = Kinds::all(&place, &site);
    let clients: Vec<_> = (0..2)
        .map(|_| asks_to_the_end(site.address().to_owned()))
        .collect();
    holds_for(100, "", || true);
    let mut stop = place.begin(&["stop"]);
    site.wait_refused();
    for client in clients {
        let (answers, losses) = client.join().unwrap();
        // One whose request has not come when the stop does is closed, as all that wait are. And whom the kernel lets in
        // between the last look at the queue and the end of the listener is reset by it: TCP knows no other end.
        let is_closed = |loss: &String| {
            ["ended after", "reset by peer"]
                .iter()
                .any(|end| loss.contains(end))
        };
        let closed = losses.len() <= 1 && losses.iter().all(is_closed);
        assert!(answers > 0 && closed, "{losses:?}");
    }
    for wire in &mut kinds.waiting {
        assert!(wire.is_closed());
    }
    holds_for(100, "stop waits", || stop.try_wait().unwrap().is_none());
    let said = kinds.finish(&place);
    // Those whose head was not sent yet, and they are all but the readers.
    let close = Some("close".to_owned());
    assert!(said[..7].iter().all(|said| *said == close), "{said:?}");
    drop(kinds);
    finish(stop).ok();
    assert!(!is_alive(site.pid));
    place.wait_empty(0);
    let log = place.log();
    let line = log.lines().rfind(|line| line.contains("stopped, "));
    let line = line.unwrap_or_default();
    let finished = line.split("stopped, ").nth(1).unwrap_or_default();
    let finished: u64 = finished.split(' ').next().unwrap().parse().unwrap();
    assert!(line.ends_with(" requests finished, 0 cut"), "{line}");
    assert!(finished >= Kinds::REQUESTS, "{line}");
    assert!(!log.contains("cut: "));
}

#[test]
fn a_restart_finishes_requests_of_every_kind_and_closes_none_that_waits() {
    let place = Place::demo();
    let site = place.start(&SETS);
    let old = worker(site.pid);
    let mut kinds = Kinds::all(&place, &site);
    let hammer = Hammer::easy(site.address());
    let mut restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(20, "the new worker serves", || {
        site.get("/pid").text() != old.to_string()
    });
    let new = site.get("/pid").text();
    // Those without a request are its by now, or soon.
    for wire in &mut kinds.waiting {
        wait_until(10, "it is with the new worker", || {
            wire.get("/pid").text() == new
        });
    }
    assert!(!restart.is_over(), "it waits for the old one");
    kinds.finish(&place);
    let said = restart.end(20).ok();
    hammer.end();
    assert!(said.ends_with(" 0 cut\n"), "{said}");
    let finished = said.split(" at the switch, ").nth(1).unwrap_or_default();
    let finished: u64 = finished.split(' ').next().unwrap().parse().unwrap();
    // One of the load's clients may have been in flight as well.
    assert!(finished >= Kinds::REQUESTS, "{said}");
    assert!(!is_alive(old));
    // Each connection goes on as if nothing had happened.
    let Kinds {
        waiting,
        head,
        bodies,
        long,
        held,
        readers,
    } = kinds;
    let all = waiting.into_iter().chain([head, held]);
    for mut wire in all.chain(bodies).chain(long).chain(readers) {
        assert_eq!(wire.get("/pid").text(), new);
    }
    assert!(!place.log().contains("cut: "));
}

/// Everything that is cut after `close_wait`, by its name in the log.
const NAMES: [(&str, usize); 9] = [
    ("cut: GET /hold, ", 1),
    ("cut: GET /bytes, ", 1),
    ("cut: GET /stream, ", 2),
    ("cut: GET /file, ", 1),
    // Two with a handler, and one that waits for one.
    ("cut: POST /count, ", 3),
    ("cut: POST /count, body not complete, from 127.0.0.1:", 1),
    ("cut: POST /echo, body not complete, from 127.0.0.1:", 1),
    (
        "cut: a request whose head is not complete, from 127.0.0.1:",
        1,
    ),
    ("cut: ", 10),
];

#[test]
fn what_a_stop_or_a_restart_cuts_is_named_whatever_its_kind() {
    for restarts in [false, true] {
        let place = Place::demo();
        let sets = [&SETS[..], &["--set", "app.close_wait=1"]].concat();
        let site = place.start(&sets);
        let old = worker(site.pid);
        let mut kinds = Kinds::all(&place, &site);
        // Ten are named one by one.
        let open = place.count("connections");
        kinds.bodies.pop();
        wait_until(10, "one is gone", || place.count("connections") < open);
        let said = place.app(if restarts { &["restart"] } else { &["stop"] });
        let said = said.ok();
        assert!(said.contains(" 10 cut"), "{said}");
        wait_until(5, "the worker is gone", || !is_alive(old));
        let log = place.log();
        for (name, count) in NAMES {
            assert_eq!(log.matches(name).count(), count, "{name}");
        }
        assert!(log.contains("worker leaves, 0 requests finished, 10 cut\n"));
        // Nothing of it looks complete.
        let quiet = [&mut kinds.head, &mut kinds.held].into_iter();
        for wire in quiet.chain(&mut kinds.bodies).chain(&mut kinds.long) {
            assert!(wire.is_gone());
        }
        for wire in &mut kinds.readers {
            assert!(wire.read_answer(true).is_err());
        }
        for wire in &mut kinds.waiting {
            match restarts {
                true => assert_eq!(wire.get("/hello").status, 200),
                false => assert!(wire.is_gone()),
            }
        }
    }
}

/// What a handler has received behind its body is the next request, which must not stay behind when the connection goes
/// to the new worker.
#[test]
fn what_is_pipelined_behind_a_long_body_survives_restarts() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut text = post_chunked("/count", &pattern(300_000), 300_000);
    text.extend(get("/hello").into_bytes());
    let over = AtomicBool::new(false);
    let pairs: usize = std::thread::scope(|scope| {
        let client = || {
            let (mut wire, mut pairs) = (site.connect(), 0);
            while !over.load(Ordering::SeqCst) {
                wire.send(&text);
                assert_eq!(wire.answer().text(), "300000\n");
                assert_eq!(wire.answer().text(), "Hello, World!", "after {pairs}");
                pairs += 1;
            }
            pairs
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        for _ in 0..60 {
            let restarted = place.app(&["restart"]);
            let is_over = clients.iter().any(|client| client.is_finished());
            if restarted.code != Some(0) || is_over {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    println!("{pairs} pairs of requests");
    assert!(pairs > 0);
}
