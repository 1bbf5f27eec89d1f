//! What the log says of a panic: in which thread, over which request, and on which line of the program.

use crate::support::{Place, Site, get, run, wait_until};

/// The panics in the log, from the thread on.
fn panics(place: &Place) -> Vec<String> {
    let log = place.log();
    let lines = log.lines().filter_map(|line| line.split_once(" panic in "));
    lines.map(|(_, rest)| rest.to_owned()).collect()
}

#[test]
fn a_panic_in_a_handler_is_said_with_the_request() {
    let place = Place::demo();
    let site = place.start(&[]);
    let targets = ["/panic?secret=1", "/thread", "/thread?name=mine", "/bombs"];
    for (said, target) in targets.into_iter().enumerate() {
        let mut wire = site.connect();
        wire.send(get(target));
        // "/bombs" breaks its connection off.
        wait_until(10, target, || panics(&place).len() > said);
    }
    let found = panics(&place);
    let at = " at tests/demo/main.rs:";
    let expected = [
        ("handler ", ", GET /panic at tests/demo/main.rs:"),
        ("a thread of the program", at),
        ("mine", at),
        ("handler ", ", GET /bombs at tests/demo/main.rs:"),
    ];
    for (line, (thread, rest)) in found.iter().zip(expected) {
        assert!(
            line.starts_with(thread)
                && line.contains(rest)
                && line.contains("GET") == rest.contains("GET"),
            "{found:?}"
        );
    }
    assert!(!place.log().contains("secret"));
}

#[test]
fn a_panic_in_a_thread_that_boot_started_is_not_in_tiny_http() {
    let place = Place::demo();
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    Site::of(&run(place.command(&args).env("DEMO_BOOT", "thread")).ok());
    let found = panics(&place);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("a thread of the program at tests/demo/main.rs:"),
        "{found:?}"
    );
}

#[test]
fn an_answer_that_cannot_be_is_said_with_the_line_that_made_it() {
    let place = Place::demo();
    let site = place.start(&[]);
    for how in ["status", "new", "header"] {
        assert_eq!(site.get(&format!("/wrong?how={how}")).status, 500, "{how}");
    }
    let found = panics(&place);
    assert_eq!(found.len(), 3, "{found:?}");
    for line in &found {
        assert!(
            line.contains(", GET /wrong at tests/demo/main.rs:"),
            "{line}"
        );
    }
}
