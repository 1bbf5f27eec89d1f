//! Handlers whose panics carry what panics when it is dropped, and so on without an end. The connection comes back, the
//! thread goes on, and the counts are right.

use crate::support::{Place, get, wait_until};

#[test]
fn a_panic_that_carries_a_panic_is_answered_like_any_other() {
    let place = Place::demo();
    let site = place.start(&["--set", "threads=1", "--set", "queue=4"]);
    let mut kept = site.connect();
    for _ in 0..20 {
        kept.send(get("/bomb"));
        let answer = kept.answer();
        assert_eq!(answer.status, 500);
        assert_eq!(
            answer.text(),
            "500 Internal Server Error: this page failed\n"
        );
    }
    kept.send(get("/hello"));
    assert_eq!(kept.answer().text(), "Hello, World!");
    assert_eq!(place.fact("in_flight"), "0");
    assert_eq!(place.fact("worker_deaths"), "0");
}

#[test]
fn a_stream_that_panics_so_ends_its_connection_alone() {
    let place = Place::demo();
    let site = place.start(&["--set", "threads=1", "--set", "queue=4"]);
    let mut kept = site.connect();
    for _ in 0..20 {
        let mut wire = site.connect();
        wire.send(get("/bombs"));
        let (got, is_whole) = wire.rest();
        assert!(got.len() < 1 << 20 && !is_whole, "{}", got.len());
        kept.send(get("/hello"));
        assert_eq!(kept.answer().text(), "Hello, World!");
    }
    wait_until(10, "nothing is in flight, nobody else connected", || {
        place.fact("in_flight") == "0" && place.fact("connections") == "1"
    });
}

#[test]
fn a_boot_that_panics_so_is_a_start_that_failed() {
    let place = Place::demo();
    place.write("boot", "bomb");
    let said = place
        .app(&["start", "-d", "--address", "127.0.0.1:0"])
        .failed(1);
    assert!(said.contains("panic: no message"), "{said}");
    place.wait_empty(10);
}
