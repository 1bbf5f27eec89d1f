//! What clients get for what they send: answers, refusals, deadlines and limits.

use crate::support::{
    Place, Site, Wire, descriptors, get, holds_for, in_time, post, settled_descriptors, sleeps,
    threads, wait_until, was_soon,
};
use std::net::Shutdown;
use std::time::{Duration, Instant};

const NO_SUCH_PAGE: &str = "404 Not Found: no such page\n";

#[test]
fn the_pages_of_the_binary_are_served() {
    let place = Place::new();
    let site = place.start(&[]);
    let demo = site.get("/demo/demo");
    assert_eq!(
        (demo.status, demo.header("Content-Type")),
        (200, Some("application/json"))
    );
    assert_eq!(demo.text(), "\"this is demo for all\"\n");
    assert_eq!(demo.header("Server"), Some("hade"));
    assert!(demo.header("Date").is_some_and(|date| date.len() == 29));
    assert_eq!(demo.header("Connection"), Some("close"));
    let page = site.get("/");
    assert_eq!(
        page.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text().contains("<h1>It works</h1>"));
    let health = site.get("/healthz");
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    assert_eq!(health.header("Cache-Control"), Some("no-store"));
    for target in ["/nowhere", "/demo", "/demo/demo/", "//", "/../etc/passwd"] {
        let answer = site.get(target);
        assert_eq!((answer.status, answer.text().as_str()), (404, NO_SUCH_PAGE));
    }
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    for (method, path, allow) in [
        ("POST", "/hello", "GET, HEAD"),
        ("DELETE", "/hello", "GET, HEAD"),
        ("GET", "/echo", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ] {
        wire.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = wire.answer();
        assert_eq!((answer.status, answer.header("Allow")), (405, Some(allow)));
    }
    // Those that no page has are unknown to the server as a whole.
    for (method, path) in [("get", "/hello"), ("BREW", "/echo"), ("BREW", "/nowhere")] {
        wire.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = wire.answer();
        assert_eq!((answer.status, answer.header("Allow")), (501, None));
    }
    wire.send("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Content-Length")),
        (204, None)
    );
    wire.send("GET http://t/hello HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(wire.answer().text(), "Hello, World!");
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    for (target, status, length) in [
        ("/hello", 200, "13"),
        ("/bytes?n=1000000", 200, "1000000"),
        ("/nowhere", 404, "28"),
        ("/echo", 405, "60"),
    ] {
        wire.send(format!("HEAD {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = wire.answer_without_body();
        assert_eq!(
            (answer.status, answer.header("Content-Length")),
            (status, Some(length)),
            "{target}"
        );
    }
    // Had a body followed, it would be taken for this answer.
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
}

#[test]
fn a_panic_is_answered_500_and_the_same_worker_lives_on() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    let mut wire = site.connect();
    for _ in 0..20 {
        assert_eq!(wire.get("/panic").status, 500);
        assert_eq!(wire.get("/pid").text(), worker.to_string());
    }
    let log = place.log();
    assert_eq!(log.matches("panic in handler").count(), 20);
    assert!(log.contains("asked to"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    let mut text = String::new();
    for round in 0..30 {
        text += &get("/slow?ms=3");
        text += &post("/echo", &format!("body {round}"));
        text += &format!("HEAD /bytes?n={} HTTP/1.1\r\nHost: t\r\n\r\n", round + 1);
        text += "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
        text += &format!(
            "3\r\nabc\r\n{:x}\r\n{round}\r\n0\r\n\r\n",
            round.to_string().len()
        );
        text += "\r\n";
        text += &get(&format!("/bytes?n={}", round * 1000));
    }
    wire.send(text);
    for round in 0..30usize {
        assert_eq!(wire.answer().text(), "slow\n");
        assert_eq!(wire.answer().text(), format!("body {round}"));
        let head = wire.answer_without_body();
        assert_eq!(
            head.header("Content-Length"),
            Some(&*(round + 1).to_string())
        );
        assert_eq!(wire.answer().text(), format!("abc{round}"));
        assert_eq!(wire.answer().body.len(), round * 1000);
    }
    assert!(wire.is_quiet());
}

#[test]
fn what_is_pipelined_behind_a_refusal_or_a_close_is_not_answered() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    wire.send(get("/slow?ms=20") + "GET / HTTP/9.9\r\n\r\n" + &get("/hello"));
    assert_eq!(wire.answer().text(), "slow\n");
    assert_eq!(wire.answer().status, 505);
    assert!(wire.is_closed());
    let mut wire = site.connect();
    let last = "GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    wire.send(get("/hello") + last + &get("/hello"));
    assert_eq!(wire.answer().header("Connection"), None);
    assert_eq!(wire.answer().header("Connection"), Some("close"));
    assert!(wire.is_closed());
}

#[test]
fn http_1_0_closes_unless_it_asks_to_stay() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    wire.send("GET /hello HTTP/1.0\r\n\r\n");
    let answer = wire.answer();
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(wire.is_closed());
    let mut wire = site.connect();
    for _ in 0..3 {
        wire.send("GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert_eq!(wire.answer().header("Connection"), Some("keep-alive"));
    }
    wire.send("GET /hello HTTP/1.0\r\n\r\n");
    assert_eq!(wire.answer().text(), "Hello, World!");
    assert!(wire.is_closed());
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let place = Place::demo();
    let site = place.start(&[]);
    for (text, answers) in [
        (get("/hello"), 1),
        (get("/slow?ms=50"), 1),
        (get("/bytes?n=5000000"), 1),
        (post("/echo", "abc"), 1),
        (
            get("/slow?ms=50") + &get("/hello") + &get("/bytes?n=3000000"),
            3,
        ),
    ] {
        let mut wire = site.connect();
        wire.send(&text);
        wire.stream.shutdown(Shutdown::Write).unwrap();
        for _ in 0..answers {
            assert_eq!(wire.answer().status, 200, "{text}");
        }
        assert!(wire.is_closed(), "{text}");
    }
}

#[test]
fn a_half_closed_client_keeps_nobody_busy_while_it_waits() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = place.hold(&site, "a");
    wire.stream.shutdown(Shutdown::Write).unwrap();
    let before = sleeps(site.worker(), "gate");
    holds_for(300, "", || true);
    let rounds = sleeps(site.worker(), "gate") - before;
    assert!(rounds < 20, "{rounds} rounds of the gate in 300 ms");
    place.release("a");
    assert_eq!(wire.answer().text(), "held\n");
}

#[test]
fn a_body_may_have_its_limit_and_not_a_byte_more() {
    let place = Place::demo();
    let site = place.start(&["--set", "max_body=65536"]);
    let mut wire = site.connect();
    for size in [0, 1, 1023, 1024, 1025, 16384, 65535, 65536] {
        let body = "b".repeat(size);
        wire.send(post("/echo", &body));
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.text() == body),
            (200, true),
            "{size}"
        );
    }
    // Refused by the length alone, before any of the body.
    let mut wire = site.connect();
    wire.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 65537\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (413, Some("close"))
    );
    assert!(wire.is_closed());
    // A client that sends it all before it reads still finds the answer.
    let mut wire = site.connect();
    wire.try_send(post("/echo", &"b".repeat(1 << 20)));
    assert_eq!(wire.answer().status, 413);
    assert!(wire.is_closed());
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn chunked_bodies_are_put_together() {
    let place = Place::demo();
    let site = place.start(&["--set", "max_body=65536"]);
    let head = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = site.connect();
    wire.send(format!(
        "{head}5\r\nhello\r\n1;x=y\r\n \r\n0005\r\nworld\r\n0\r\nTrailer: t\r\n\r\n"
    ));
    assert_eq!(wire.answer().text(), "hello world");
    let chunk = format!("1000\r\n{}\r\n", "c".repeat(4096));
    wire.send(format!("{head}{}0\r\n\r\n", chunk.repeat(16)));
    assert_eq!(wire.answer().body.len(), 65536);
    wire.send(format!("{head}{}1\r\n", chunk.repeat(16)));
    assert_eq!(wire.answer().status, 413);
    assert!(wire.is_closed());
    let mut wire = site.connect();
    wire.send(format!("{head}5\r\nhello0\r\n\r\n"));
    assert_eq!(wire.answer().status, 400);
    assert!(wire.is_closed());
}

#[test]
fn an_expectant_client_is_told_to_go_on_before_its_body() {
    let place = Place::demo();
    let site = place.start(&["--set", "max_body=65536"]);
    let mut wire = site.connect();
    for _ in 0..2 {
        let head = "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n";
        wire.send(format!("{head}Content-Length: 3\r\n\r\n"));
        assert_eq!(wire.answer().head, "HTTP/1.1 100 Continue");
        wire.send("abc");
        assert_eq!(wire.answer().text(), "abc");
        // With the body already there nobody needs to be told.
        wire.send(format!("{head}Content-Length: 3\r\n\r\nabc"));
        assert_eq!(wire.answer().text(), "abc");
        // Nor without any.
        wire.send(format!("{head}\r\n"));
        assert_eq!(wire.answer().status, 200);
    }
    wire.send(
        "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 65537\r\n\r\n",
    );
    assert_eq!(wire.answer().status, 413);
    assert!(wire.is_closed());
}

#[test]
fn requests_may_come_in_pieces_of_any_size() {
    let place = Place::demo();
    let site = place.start(&[]);
    let one = post("/echo", "0123456789");
    let text = one.clone()
        + "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
        + &get("/hello");
    let mut wire = site.connect();
    for size in [1, 2, 3, 7, 13, 31, 64, 100] {
        wire.drip(&text, size, 0);
        assert_eq!(wire.answer().text(), "0123456789");
        assert_eq!(wire.answer().text(), "abcd");
        assert_eq!(wire.answer().text(), "Hello, World!");
    }
    // Two pieces that surely do not arrive as one.
    for cut in (1..one.len()).step_by(5) {
        wire.drip(&one, cut, 1);
        assert_eq!(wire.answer().text(), "0123456789", "cut at {cut}");
    }
}

#[test]
fn what_is_odd_but_legal_is_served() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    let long = format!("/{}", "p".repeat(24_000));
    for (status, line) in [
        (501, "!#$%&'*+-.^_`|~09AZaz /hello HTTP/1.1"),
        (501, "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM /hello HTTP/1.1"),
        (404, &format!("GET {long} HTTP/1.1")),
        (
            404,
            "GET /%00%ff%zz\"<>[]{}|\\^`;?a=?&&=#".trim_end_matches('#'),
        ),
        (404, "GET http://t?hello HTTP/1.1"),
        (200, "GET /hello? HTTP/1.1"),
        (200, &format!("GET /hello?{long} HTTP/1.1")),
        (200, "GET /hello HTTP/1.9"),
        (200, "\r\nGET /hello HTTP/1.1"),
    ] {
        let line = if line.contains(" HTTP/") {
            line.to_owned()
        } else {
            format!("{line} HTTP/1.1")
        };
        wire.send(format!("{line}\r\nhOsT:\tt \t\r\nX:\r\nY: \u{e9}\r\n\r\n"));
        assert_eq!(
            wire.answer().status,
            status,
            "{}",
            &line[..line.len().min(100)]
        );
    }
    // A body that no handler asked for is not the next request.
    for method in ["GET", "DELETE", "POST"] {
        let body = get("/panic");
        let length = body.len();
        wire.send(format!(
            "{method} /pid HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        assert!([200, 405].contains(&wire.answer().status));
    }
    assert!(wire.is_quiet());
    assert!(!place.log().contains("panic"));
}

#[test]
fn a_large_answer_reaches_its_reader_whole() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    let answer = wire.get("/bytes?n=50000000");
    assert_eq!(answer.header("Content-Length"), Some("50000000"));
    assert_eq!(answer.header("Transfer-Encoding"), None);
    assert!(answer.body.len() == 50_000_000 && answer.body.iter().all(|byte| *byte == b'x'));
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
}

#[test]
fn slow_readers_hold_no_thread_and_cost_no_turns() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=2", "--set", "app.io_timeout=300"]);
    let mut readers: Vec<Wire> = (0..24).map(|_| site.connect()).collect();
    for reader in &mut readers {
        reader.send(get("/bytes?n=12000000") + &get("/hello"));
    }
    let begun = Instant::now();
    let mut wire = site.connect();
    for _ in 0..50 {
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    was_soon(begun, 5000);
    let handlers = threads(site.worker());
    let handlers = handlers
        .iter()
        .filter(|(_, name)| name.starts_with("handler"));
    assert!(handlers.count() <= 2);
    let before = sleeps(site.worker(), "gate");
    holds_for(300, "", || true);
    let rounds = sleeps(site.worker(), "gate") - before;
    assert!(rounds < 20, "{rounds} rounds of the gate in 300 ms");
    for mut reader in readers {
        assert_eq!(reader.answer().body.len(), 12_000_000);
        assert_eq!(reader.answer().text(), "Hello, World!");
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    assert_eq!(site.get("/hello").status, 200);
    let before = settled_descriptors(worker);
    for round in 0..10 {
        // In the middle of a large answer: what is unread makes it a reset.
        let mut wire = site.connect();
        wire.send(get("/bytes?n=10000000"));
        wire.sip(1000).unwrap();
        // Before the answer, in the middle of a head, of a body, and with more to come.
        let _ = place.hold(&site, &format!("h{round}"));
        site.connect().send("GET /hel");
        site.connect().send(&post("/echo", "abc")[..50]);
        site.connect().send(get("/slow?ms=20").repeat(50));
        drop(site.connect());
    }
    for round in 0..10 {
        place.release(&format!("h{round}"));
    }
    wait_until(10, "every lost connection is closed", || {
        descriptors(worker) <= before
    });
    assert_eq!(site.get("/pid").text(), worker.to_string());
    assert!(!place.log().contains("panic"));
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    wire.send("HEAD /hello HTTP/1.1\r\nHost: t\r\nContent-Length: 1048577\r\n\r\n");
    assert_eq!(wire.answer_without_body().status, 413);
    assert!(wire.is_closed());
}

/// How long something takes that a limit of one second ends.
#[track_caller]
fn takes_a_second<T>(what: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = what();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    was_soon(begun, 4000);
    result
}

#[test]
fn a_head_must_come_within_its_time() {
    in_time(1000, || {
        let place = Place::demo();
        let site = place.start(&["--set", "app.header_timeout=1"]);
        let mut silent = site.connect();
        let mut half = site.connect();
        let mut second = site.connect();
        assert_eq!(second.get("/hello").status, 200);
        takes_a_second(|| {
            half.send("GET /hello HTTP/1.1\r\nHost:");
            second.send("GET /hel");
            for wire in [&mut half, &mut second] {
                let answer = wire.answer();
                assert_eq!(
                    (answer.status, answer.header("Connection")),
                    (408, Some("close"))
                );
                assert!(wire.is_closed());
            }
            assert!(silent.is_closed());
        });
        // A byte now and then buys no time.
        takes_a_second(|| {
            let mut dripping = site.connect();
            dripping.drip(&get(&format!("/{}", "a".repeat(300))), 1, 2);
            assert_eq!(dripping.answer().status, 408);
        });
        assert_eq!(site.get("/hello").status, 200);
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.idle_timeout=1"]);
    let mut small = site.connect();
    let mut large = site.connect();
    let mut busy = site.connect();
    takes_a_second(|| {
        assert_eq!(small.get("/hello").status, 200);
        assert_eq!(large.get("/bytes?n=9000000").status, 200);
        busy.send(get("/slow?ms=2000"));
        assert!(small.is_closed() && large.is_closed());
    });
    assert_eq!(busy.answer().text(), "slow\n");
}

#[test]
fn a_body_that_stalls_or_drips_is_refused_and_one_that_trickles_is_not() {
    in_time(1000, || {
        let place = Place::demo();
        let site = place.start(&["--set", "app.io_timeout=1"]);
        let mut stalled = site.connect();
        let mut chunked = site.connect();
        let mut trickling = site.connect();
        takes_a_second(|| {
            let text = post("/echo", "abc");
            stalled.send(&text[..text.len() - 1]);
            chunked.send(
                "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            );
            for wire in [&mut stalled, &mut chunked] {
                let answer = wire.answer();
                assert_eq!(
                    (answer.status, answer.header("Connection")),
                    (408, Some("close"))
                );
                assert!(wire.is_closed());
            }
        });
        // Beyond the first second it takes 500 bytes per second: here are 2000, and then some 20.
        let body = "t".repeat(4000);
        let text = post("/echo", &body);
        trickling.send(&text[..text.len() - body.len()]);
        trickling.drip(&body, 100, 5);
        assert_eq!(trickling.answer().text(), body);
        let mut dripping = site.connect();
        takes_a_second(|| {
            dripping.send(&text[..text.len() - body.len()]);
            dripping.drip(&body[..100], 1, 5);
            assert_eq!(dripping.answer().status, 408);
            assert!(dripping.is_closed());
        });
    });
}

#[test]
fn a_reader_that_is_slow_but_steady_gets_everything() {
    in_time(1000, || {
        let place = Place::demo();
        let site = place.start(&["--set", "app.io_timeout=1"]);
        let mut slow = site.connect();
        let mut text = 0;
        slow.send(get("/bytes?n=20000000"));
        // Some 500 kB a second for three seconds, then the rest at once.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            text += slow.sip(5000).expect("it is not dropped");
        }
        while text < 20_000_000 {
            let count = slow.sip(1 << 20).expect("it is not dropped");
            assert!(count > 0, "the answer ends after {text} bytes");
            text += count;
        }
    });
}

/// So many connections that are idle, each opened and used before the next.
fn full_house(site: &Site, count: usize) -> Vec<Wire> {
    let connect = |_| {
        let mut wire = site.connect();
        assert_eq!(wire.get("/hello").status, 200);
        wire
    };
    (0..count).map(connect).collect()
}

#[test]
fn as_many_connections_as_allowed_may_stay() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=20"]);
    let mut wires = full_house(&site, 20);
    for (index, wire) in wires.iter_mut().enumerate() {
        assert!(
            wire.is_quiet(),
            "the {index}th is closed with nobody waiting"
        );
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
}

#[test]
fn beyond_max_connections_the_longest_idle_goes_first() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=20"]);
    let mut wires: Vec<Wire> = (0..20).map(|_| site.connect()).collect();
    for wire in &mut wires {
        assert_eq!(wire.get("/hello").status, 200);
    }
    // All but the eighth are used once more, each some milliseconds later.
    for (index, wire) in wires.iter_mut().enumerate() {
        if index != 7 {
            assert_eq!(wire.get("/slow?ms=3").status, 200);
        }
    }
    let mut new = site.connect();
    assert_eq!(new.get("/hello").text(), "Hello, World!");
    assert!(wires.remove(7).is_closed());
    for wire in &mut wires {
        assert!(wire.is_quiet());
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
}

#[test]
fn with_every_connection_busy_new_ones_wait_until_one_is_closed() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=4"]);
    let mut busy: Vec<Wire> = (0..4).map(|n| place.hold(&site, &format!("{n}"))).collect();
    let mut new: Vec<Wire> = (0..4).map(|_| site.connect()).collect();
    for wire in &mut new {
        wire.send("GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    }
    let before = sleeps(site.worker(), "gate");
    holds_for(200, "new connections wait", || {
        new.iter_mut().all(Wire::is_quiet)
    });
    let rounds = sleeps(site.worker(), "gate") - before;
    assert!(rounds < 20, "{rounds} rounds of the gate in 200 ms");
    drop(busy.pop());
    place.release("3");
    for wire in &mut new {
        assert_eq!(wire.answer().text(), "Hello, World!");
    }
    for (number, wire) in busy.iter_mut().enumerate() {
        place.release(&number.to_string());
        assert_eq!(wire.answer().text(), "held\n");
    }
}

#[test]
fn with_every_connection_busy_new_ones_wait_until_one_is_idle() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_connections=2"]);
    let mut busy = [place.hold(&site, "0"), place.hold(&site, "1")];
    let mut new = site.connect();
    new.send(get("/hello"));
    holds_for(100, "the new connection waits", || new.is_quiet());
    place.release("0");
    place.release("1");
    for wire in &mut busy {
        assert_eq!(wire.answer().text(), "held\n");
    }
    let begun = Instant::now();
    assert_eq!(new.answer().text(), "Hello, World!");
    was_soon(begun, 5000);
}

#[test]
fn with_every_handler_busy_requests_wait_in_line_and_the_gate_sleeps() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=2"]);
    let mut held = [place.hold(&site, "0"), place.hold(&site, "1")];
    let mut waiting: Vec<Wire> = (0..6).map(|_| site.connect()).collect();
    for wire in &mut waiting {
        wire.send(get("/slow?ms=20") + &get("/hello"));
    }
    let before = sleeps(site.worker(), "gate");
    holds_for(500, "requests wait", || {
        waiting.iter_mut().all(Wire::is_quiet)
    });
    let rounds = sleeps(site.worker(), "gate") - before;
    place.release("0");
    place.release("1");
    for wire in &mut waiting {
        assert_eq!(wire.answer().text(), "slow\n");
        assert_eq!(wire.answer().text(), "Hello, World!");
    }
    for wire in &mut held {
        assert_eq!(wire.answer().text(), "held\n");
    }
    assert!(rounds < 60, "{rounds} rounds of the gate in 500 ms");
}

#[test]
fn a_hundred_slow_requests_at_once_take_little_longer_than_one() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wires: Vec<Wire> = (0..100).map(|_| site.connect()).collect();
    let begun = Instant::now();
    for wire in &mut wires {
        wire.send(get("/slow?ms=300"));
    }
    for wire in &mut wires {
        assert_eq!(wire.answer().text(), "slow\n");
    }
    // One after the other would be 30 s; with 64 threads it is two rounds.
    was_soon(begun, 4000);
}

#[test]
fn one_stuck_handler_delays_nobody_else() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut held = place.hold(&site, "a");
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(site.get("/hello").text(), "Hello, World!");
    }
    was_soon(begun, 3000);
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
}

/// A thread that is not woken makes no system call.
#[test]
fn idle_costs_nothing() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    assert_eq!(wire.get("/hello").status, 200);
    let (master, worker) = (site.pid, site.worker());
    let mut since = Instant::now();
    let mut last = (sleeps(master, ""), sleeps(worker, ""));
    let first = last.0;
    // Threads that the start made and nobody needs may leave, each once; nothing may tick.
    wait_until(20, "two seconds without a single turn", || {
        let now = (sleeps(master, ""), sleeps(worker, ""));
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(2)
    });
    assert_eq!(sleeps(master, ""), first, "the master was not woken once");
    assert_eq!(wire.get("/hello").status, 200);
}
