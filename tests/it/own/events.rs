//! Server-sent events: no thread waits for them, they end whole when their worker leaves, and who is gone is forgotten.

use crate::look;
use crate::support::{Place, Site, Wire, post, wait_until, worker};

/// The number of threads that a worker has.
fn threads(site: &Site) -> usize {
    look::threads(worker(site.pid)).len()
}

fn listen(site: &Site) -> Wire {
    let mut wire = site.connect();
    wire.send("GET /feed HTTP/1.1\r\nHost: t\r\n\r\n");
    wire.wait_begun();
    wire
}

/// Sends an event; how many were there to hear it.
fn tell(site: &Site, text: &str) -> usize {
    let mut wire = site.connect();
    wire.send(post("/tell", text));
    wire.answer().text().trim().parse().unwrap()
}

#[test]
fn many_listen_and_nobody_waits_for_them() {
    let place = Place::demo();
    let site = place.start(&["--set", "threads=2"]);
    let mut listeners: Vec<Wire> = (0..100).map(|_| listen(&site)).collect();
    assert!(threads(&site) < 20);
    // All handlers are free.
    assert_eq!(site.get("/hello").status, 200);
    for text in ["one", "two"] {
        assert_eq!(tell(&site, text), 100);
    }
    let first = listeners.pop().unwrap();
    drop(first);
    wait_until(20, "who is gone is forgotten", || {
        tell(&site, "three") == 99
    });
    let said = place.app(&["stop"]).ok();
    assert!(said.contains(" 0 cut"), "{said}");
    for wire in &mut listeners {
        let answer = wire.answer();
        let text = answer.text();
        assert_eq!(answer.header("Content-Type"), Some("text/event-stream"));
        assert!(
            text.starts_with("retry: 1000\n\ndata: one\n\ndata: two\n\n"),
            "{text}"
        );
        assert!(text.ends_with("data: three\n\n"), "{text}");
        assert!(wire.is_closed());
    }
}

#[test]
fn a_restart_ends_them_whole_and_keeps_their_connections() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let before = site.worker();
    let mut listeners: Vec<Wire> = (0..20).map(|_| listen(&site)).collect();
    assert_eq!(tell(&site, "old"), 20);
    let said = place.app(&["restart"]).ok();
    assert!(said.contains("20 finished since, 0 cut"), "{said}");
    for wire in &mut listeners {
        assert_eq!(wire.answer().text(), "retry: 1000\n\ndata: old\n\n");
        assert_ne!(wire.get("/pid").text(), before.to_string());
        wire.send("GET /feed HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    wait_until(20, "all listen again", || tell(&site, "new") == 20);
    place.app(&["stop"]).ok();
    for wire in &mut listeners {
        assert!(wire.answer().text().ends_with("data: new\n\n"));
    }
}

#[test]
fn who_does_not_read_is_ended_and_who_asks_for_more_meanwhile_is_answered_then() {
    let place = Place::demo();
    let site = place.start(&["--set", "io_timeout=60"]);
    let mut eager = site.connect();
    eager.send("GET /feed HTTP/1.1\r\nHost: t\r\n\r\nGET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
    eager.wait_begun();
    let lazy = listen(&site);
    let text = "x".repeat(60_000);
    assert_eq!(tell(&site, &text), 2);
    // One reads and one does not.
    let mut sent = 1;
    wait_until(
        60,
        "the one that does not read has its stream ended",
        || {
            sent += 1;
            let heard = tell(&site, &text);
            let _ = eager.gulp(60_000);
            heard < 2
        },
    );
    drop(lazy);
    place.app(&["stop"]).ok();
}

#[test]
fn a_client_of_http_1_0_hears_them_to_the_end_of_its_connection() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    wire.send("GET /feed HTTP/1.0\r\nHost: t\r\n\r\n");
    wire.wait_begun();
    assert_eq!(tell(&site, "hello"), 1);
    place.app(&["stop"]).ok();
    let (bytes, _) = wire.rest();
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.ends_with("\r\n\r\nretry: 1000\n\ndata: hello\n\n"),
        "{text}"
    );
}
