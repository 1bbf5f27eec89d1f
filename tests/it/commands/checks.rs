//! The check of the program on disk that a restart begins with: it hangs, it is a wrapper with children of its own, and
//! nothing of it is left behind.

use crate::support::{Place, fact, finish, is_alive, wait_until, working_in};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A program that hangs, with a child that hangs too; both write their numbers into files.
const HANGS: &str =
    "#!/bin/sh\necho $$ >check.pid\nsh -c 'echo $$ >child.pid; exec sleep 7654' &\nwait\n";

fn pid(place: &Place, name: &str) -> u32 {
    let mut pid = 0;
    wait_until(20, name, || {
        pid = place.read(name).trim().parse().unwrap_or(0);
        pid > 0
    });
    pid
}

#[test]
fn a_stop_leaves_nothing_of_a_check_behind() {
    let place = Place::demo();
    place.start_copy(&[]);
    place.put_program("prog", HANGS);
    let restart = place.begin(&["restart"]);
    let all = [pid(&place, "check.pid"), pid(&place, "child.pid")];
    place.app(&["stop"]).ok();
    wait_until(5, "the check and its child are gone", || {
        all.iter().all(|pid| !is_alive(*pid))
    });
    assert_eq!(finish(restart).code, Some(1));
    place.wait_empty(2);
}

#[test]
fn a_check_that_hangs_is_killed_with_its_children() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    place.put_program("prog", HANGS);
    let restart = place.begin(&["restart"]);
    let all = [pid(&place, "check.pid"), pid(&place, "child.pid")];
    let said = finish(restart).failed(1);
    assert!(said.contains("still serves as before"), "{said}");
    wait_until(5, "the check and its child are gone", || {
        all.iter().all(|pid| !is_alive(*pid))
    });
    assert_eq!(site.get("/hello").status, 200);
}

/// One that cannot be read is not taken out of the environment at the start.
#[test]
fn a_variable_of_somebody_elses_restart_is_not_passed_on() {
    let place = Place::demo();
    place.put_demo("prog");
    let mut start = place.command_of("prog", &["start", "-d", "--address", "127.0.0.1:0"]);
    start.env("HADE_HANDOVER", OsStr::from_bytes(b"pid=1\tbase=\xff"));
    crate::support::run(&mut start).ok();
    let master = place.pid().unwrap();
    for generation in 2..=3 {
        place.app_of("prog", &["restart"]).ok();
        let json = place.app(&["state", "--json"]).ok();
        assert_eq!(fact(&json, "generation"), generation.to_string());
        let environment = std::fs::read(format!("/proc/{master}/environ")).unwrap();
        let variables = environment.split(|byte| *byte == 0);
        let count = variables
            .filter(|variable| variable.starts_with(b"HADE_HANDOVER="))
            .count();
        assert_eq!(count, 1, "{}", String::from_utf8_lossy(&environment));
    }
    assert!(!working_in(Path::new(&place.dir)).is_empty());
}
