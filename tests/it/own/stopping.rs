//! What a worker does when it has answered its last request, and how long it may.

use crate::support::{Place, Site, run, signal, wait_until};

/// A demo that does this when a worker leaves.
fn demo(how: &str, more: &[&str]) -> (Place, Site) {
    let place = Place::demo();
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let mut command = place.command(&[&args[..], more].concat());
    let site = Site::of(&run(command.env("DEMO_STOP", how)).ok());
    (place, site)
}

#[test]
fn a_worker_that_leaves_lets_go_of_what_it_has() {
    let (place, site) = demo("left", &[]);
    let left = place.path("left");
    let forget = || {
        wait_until(20, "it was let go of", || place.read("left") == "let go\n");
        std::fs::remove_file(&left).unwrap();
    };
    place.app(&["restart"]).ok();
    forget();
    let worker = site.worker();
    signal(worker, "TERM");
    forget();
    site.wait_replaced(worker, 1);
    place.app(&["stop"]).ok();
    assert_eq!(place.read("left"), "let go\n");
}

#[test]
fn requests_leave_it_a_part_of_the_time() {
    let (place, site) = demo("left", &["--set", "close_wait=2"]);
    let _held = place.hold(&site, "a");
    let said = place.app(&["stop"]).ok();
    assert!(
        said.contains("; 0 requests finished, 1 cut (GET /hold, "),
        "{said}"
    );
    assert_eq!(place.read("left"), "let go\n");
}

#[test]
fn what_hangs_or_panics_there_holds_nobody_up() {
    for (how, words) in [
        ("hang", "cut: what the application does at a stop, after "),
        ("panic", "panic in stop at "),
    ] {
        let (place, _) = demo(how, &["--set", "close_wait=1"]);
        place.app(&["stop"]).ok();
        let log = place.log();
        // On a busy machine the master may lose its patience first.
        let is_late = how == "hang" && log.contains("did not leave in time and was killed");
        assert!(log.contains(words) || is_late, "{log}");
    }
}
