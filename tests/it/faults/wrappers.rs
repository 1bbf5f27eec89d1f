//! The program on disk turns into a script that executes the real one: what it says, and what it makes of the words.

use crate::support::{Place, demo, worker};

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
