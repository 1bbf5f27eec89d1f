//! The check of the program on disk that a restart begins with: it hangs, it is a wrapper with children of its own, and
//! nothing of it is left behind.

use crate::support::{Place, fact, finish, is_alive, wait_until, working_in};
use std::ffi::OsStr;
use std::fs;
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

#[test]
fn a_check_that_says_something_else_is_named() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    place.put_program("prog", "#!/bin/sh\necho y\nexit 1\n");
    let said = place.app(&["restart"]).failed(1);
    let words = format!(
        "the check of {} failed: y; pid ",
        place.path("prog").display()
    );
    assert!(said.contains(&words), "{said}");
    assert_eq!(site.get("/hello").status, 200);
    place.app(&["stop"]).ok();
}

#[test]
fn what_a_start_would_miss_is_no_good_setting() {
    let place = Place::demo();
    for (args, words) in [
        (
            &["--base-dir", "nowhere", "--address", "127.0.0.1:0"][..],
            "cannot enter the base directory nowhere: ",
        ),
        (
            &["--address", "unix:nowhere/x.sock"],
            "cannot listen on unix:nowhere/x.sock: ",
        ),
        (
            &["--address", "no-such-host.invalid:80"],
            "where there is no resolver",
        ),
    ] {
        let said = place.app(&[&["check"], args].concat()).failed(1);
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        let args = [&["start", "-d"], args].concat();
        let started = place.app(&args).failed(1);
        assert!(started.contains(words), "{started}");
    }
    // What may come later is said.
    fs::create_dir(place.path("www")).unwrap();
    let args = ["check", "--root", "www", "--set", "fallback=app.html"];
    let said = place.app(&args).ok();
    assert!(
        said.ends_with("\ndemo: app.fallback app.html is not in www yet\n"),
        "{said}"
    );
    for name in ["www/app.html.gz", "www/app.html"] {
        place.write(name, "");
        assert_eq!(place.app(&args).ok().lines().count(), 1);
    }
    // A directory that a start makes need not be there.
    place.app(&["check", "--address", "unix:run/x.sock"]).ok();
    let long = format!("unix:{}", "x".repeat(108));
    let said = place.app(&["check", "--address", &long]).failed(2);
    assert!(
        said.contains("expected unix: and a path whose last name"),
        "{said}"
    );
}
