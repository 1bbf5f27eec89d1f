//! A stream without an end learns that its worker leaves, and ends before it is cut. So does a handler that waits.

use crate::support::{Meanwhile, Place, Wire, get, wait_until};

/// A stream that has begun.
fn events(wire: &mut Wire) {
    wire.send(get("/events"));
    wire.wait_begun();
}

#[test]
fn a_stream_that_ends_itself_loses_nothing_in_a_restart_and_keeps_its_connection() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let before = site.worker();
    let mut wires: Vec<Wire> = (0..5).map(|_| site.connect()).collect();
    wires.iter_mut().for_each(events);
    let said = place.app(&["restart"]).ok();
    assert!(
        said.contains("5 requests in flight at the switch, 5 finished since, 0 cut"),
        "{said}"
    );
    for wire in &mut wires {
        // Whole: its last chunk is there.
        let answer = wire.answer();
        assert!(answer.text().starts_with("data: tick\n\n"), "{answer:?}");
        assert!(answer.text().ends_with("event: bye\n\n"), "{answer:?}");
        let pid = wire.get("/pid").text();
        assert_ne!(pid, before.to_string());
    }
    place.app(&["stop"]).ok();
}

#[test]
fn a_stop_ends_it_as_well() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let mut wire = site.connect();
    events(&mut wire);
    let said = place.app(&["stop"]).ok();
    assert!(said.ends_with("; 1 requests finished, 0 cut\n"), "{said}");
    assert!(wire.answer().text().ends_with("event: bye\n\n"));
    assert!(wire.is_closed());
}

#[test]
fn a_handler_at_work_sees_that_the_worker_leaves_and_whether_the_service_stops() {
    for (command, expected) in [
        ("restart", "false, then false\n"),
        ("stop", "false, then true\n"),
    ] {
        let place = Place::demo();
        let site = place.start(&["--set", "close_wait=60"]);
        let mut wire = site.connect();
        wire.send(get("/leaves"));
        wait_until(10, "the handler is at work", || {
            place.path("leaves.held").exists()
        });
        let done = Meanwhile::new(place.command(&["app", command]));
        assert_eq!(wire.answer().text(), expected, "{command}");
        done.end(60).ok();
    }
}
