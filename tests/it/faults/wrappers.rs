//! The program on disk turns into a script that executes the real one: what it says, and what it makes of the words.

use crate::support::{Place, demo, is_alive, signal, wait_until, worker};

/// A script in the place of the program, which ends by executing the demo.
fn put_wrapper(place: &Place, before: &str) {
    let demo = demo();
    let demo = demo.display();
    place.put_program(
        "prog",
        &format!("#!/bin/sh\n{before}\nexec {demo} \"$@\"\n"),
    );
}

#[test]
fn a_program_that_says_a_lot_before_its_check_is_one_to_become() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let lines =
        "i=0; while [ $i -lt 200 ]; do echo \"loading part $i ..............\"; i=$((i+1)); done";
    put_wrapper(&place, lines);
    let said = place.app(&["restart"]).ok();
    let expected = format!("demo: restarted, pid {}, ", site.pid);
    assert!(said.starts_with(&expected), "{said}");
}

#[test]
fn a_start_whose_words_are_wrong_after_the_exec_leads_back() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let before = worker(site.pid);
    put_wrapper(&place, "[ \"$2\" = start ] && set -- \"$@\" --nonsense");
    let said = place.app(&["restart"]).failed(1);
    let expected = format!("; pid {} still serves as before\n", site.pid);
    assert!(
        said.starts_with("demo: restart given up: ")
            && said.contains("--nonsense")
            && said.ends_with(&expected),
        "{said}"
    );
    assert_eq!(worker(site.pid), before);
    assert_eq!(site.get("/hello").status, 200);
    place.app(&["stop"]).ok();
}

/// It has all that the program came by: the socket of whoever asked for the restart, and the listener.
#[test]
fn a_child_that_a_wrapper_leaves_behind_holds_up_no_answer_and_is_named_for_what_it_holds() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let child = "if [ \"$2\" = start ]; then sleep 7655 & echo $! >child.pid; fi";
    put_wrapper(&place, child);
    let begun = std::time::Instant::now();
    let said = place.app(&["restart"]).ok();
    assert!(said.starts_with("demo: restarted, pid "), "{said}");
    crate::support::was_soon(begun, 10_000);
    assert_eq!(site.get("/hello").status, 200);
    place.app(&["stop"]).ok();
    let child: u32 = place.read("child.pid").trim().parse().unwrap();
    let why = place
        .app(&["start", "-d", "--address", site.address()])
        .failed(1);
    let named = format!("; pid {child} (sleep) has it; choose another with --address\n");
    assert!(why.ends_with(&named), "{why}");
    signal(child, "KILL");
    wait_until(10, "it is gone", || !is_alive(child));
    place
        .app(&["start", "-d", "--address", site.address()])
        .ok();
    place.app(&["stop"]).ok();
}
