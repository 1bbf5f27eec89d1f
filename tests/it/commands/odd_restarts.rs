//! Restarts into what a service may well meet: other settings of every kind, programs that are older or wrapped, many
//! workers, no time to drain, several orders at once, no descriptors, and a stop at the worst moment.

use crate::support::{
    Hammer, Meanwhile, Place, demo, descriptors, has, is_alive, run, signal, wait_until, was_soon,
    worker, workers, working_in,
};
use std::fs;
use std::process::Command;
use std::time::Instant;

/// A program that becomes the demo after a line of shell at the check, or when it is executed as the new master.
fn wrapper(check: &str, start: &str) -> String {
    let demo = demo();
    let demo = demo.display();
    format!(
        "#!/bin/sh\ncase \"$2\" in\ncheck) {check}\n;;\nstart) {start}\n;;\nesac\nexec '{demo}' \"$@\"\n"
    )
}

#[test]
fn every_setting_changes_or_the_restart_says_why_not() {
    let place = Place::demo();
    let site = place.start(&["--set", "max_body=77"]);
    let hammer = Hammer::easy(site.address());
    for setting in [
        "close_wait=7",
        "workers=3",
        "workers=1",
        "threads=2",
        "queue=9",
        "handler_warn=3",
        "header_timeout=9",
        "idle_timeout=99",
        "io_timeout=9",
        "max_connections=99",
        "max_per_address=99",
        "max_header=4096",
        "max_body=4096",
        "log_level=debug",
        "log_file=run/other/x.log",
        "log_file=run/app.log",
    ] {
        let said = place.app(&["restart", "--set", setting]).ok();
        assert!(said.contains("restarted, pid"), "{setting}: {said}");
    }
    hammer.end();
    assert!(place.read("run/other/x.log").contains("restarted, pid"));
    let generation = place.count("generation");
    let old = worker(site.pid);
    for (name, path) in [("pid_file", "run/x.pid"), ("socket", "run/x.sock")] {
        place.write("etc/app.conf", format!("app.{name} = {path}\n"));
        signal(site.pid, "HUP");
        let line = format!("restart given up: app.{name} is ");
        place.wait_for_log(&line);
        let log = place.log();
        let line = log.lines().find(|text| text.contains(&line)).unwrap();
        assert!(
            line.ends_with("; stop, then start") && line.contains(path),
            "{line}"
        );
        fs::remove_file(place.path("etc/app.conf")).unwrap();
        wait_until(5, "it is over", || place.fact("restarting") == "false");
        assert!(!place.path(path).exists());
    }
    assert_eq!(
        (worker(site.pid), place.count("generation")),
        (old, generation)
    );
}

#[test]
fn programs_that_cannot_take_over_are_refused_by_the_check() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let old = worker(site.pid);
    let demo = demo();
    let demo = demo.display();
    let prog = place.path("prog");
    let hammer = Hammer::easy(site.address());
    let version = format!(
        "{} is of a version that cannot take over from this one, or is started by something that loses the \
         environment or closes descriptors; stop, then start",
        prog.display()
    );
    let mut programs = vec![
        // One of before there was a ticket back.
        (
            "#!/bin/sh\necho 'demo: settings are good'\n".to_owned(),
            version.clone(),
        ),
        (
            format!("#!/bin/sh\nexec env -i '{demo}' \"$@\"\n"),
            version.clone(),
        ),
        (
            "#!/bin/sh\necho 'demo: unknown option --set; try --help' >&2; exit 2\n".to_owned(),
            "unknown option --set; try --help".to_owned(),
        ),
    ];
    if has("python3") {
        let text = format!(
            "#!/usr/bin/env python3\nimport os, sys\nos.closerange(3, 9999)\n\
             os.execv('{demo}', ['{demo}'] + sys.argv[1:])\n"
        );
        programs.push((text, version));
    }
    for (program, expected) in programs {
        place.put_program("prog", &program);
        let said = place.app(&["restart"]).failed(1);
        let end = format!("; pid {} still serves as before\n", site.pid);
        assert_eq!(said, format!("demo: restart given up: {expected}{end}"));
        assert_eq!(worker(site.pid), old);
    }
    hammer.end();
    place.put_demo("prog");
    place.app(&["restart"]).ok();
}

#[test]
fn from_one_worker_to_sixty_four_and_back() {
    let place = Place::demo();
    let site = place.start(&[]);
    let hammer = Hammer::easy(site.address());
    place.app(&["restart", "--set", "workers=64"]).ok();
    assert_eq!(workers(site.pid).len(), 64);
    place.write("boot", "fail");
    place.app(&["restart"]).failed(1);
    place.write("boot", "");
    place.app(&["restart", "--set", "workers=64"]).ok();
    place.app(&["restart", "--set", "workers=1"]).ok();
    worker(site.pid);
    hammer.end();
    assert!(descriptors(site.pid) < 40, "{}", descriptors(site.pid));
}

#[test]
fn without_time_to_drain_what_is_in_flight_is_cut_and_named() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=0"]);
    let mut held = place.hold(&site, "a");
    let old = worker(site.pid);
    let begun = Instant::now();
    let done = place.app(&["restart"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    was_soon(begun, 5000);
    assert!(done.out.contains(" 1 cut (GET /hold, "), "{done:?}");
    assert!(held.is_gone() && !is_alive(old));
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn of_many_restarts_at_once_each_has_one_answer() {
    let place = Place::demo();
    let site = place.start(&[]);
    let hammer = Hammer::easy(site.address());
    let all: Vec<Meanwhile> = (0..8)
        .map(|number| {
            if number % 3 == 0 {
                signal(site.pid, "HUP");
            }
            Meanwhile::new(place.command(&["app", "restart"]))
        })
        .collect();
    let mut good = 0;
    for restart in all {
        let done = restart.end(30);
        match done.code {
            Some(0) => good += 1,
            _ => {
                let expected = format!(
                    "demo: no restart of pid {}: a restart is under way\n",
                    site.pid
                );
                assert_eq!(done.failed(1), expected);
            }
        }
    }
    wait_until(10, "no restart is under way", || {
        place.fact("restarting") == "false"
    });
    hammer.end();
    assert!(place.count("generation") > good, "{good}");
    place.app(&["restart"]).ok();
    assert_eq!(worker(site.pid), workers(site.pid)[0]);
}

#[test]
fn descriptors_that_run_out_after_the_check() {
    if !has("prlimit") {
        return;
    }
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let old = worker(site.pid);
    let numbers = fs::read_dir(format!("/proc/{}/fd", site.pid)).unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse());
    let highest: u32 = numbers.map(Result::unwrap).max().unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", site.pid)).unwrap();
    let before = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let before = before.unwrap().split_whitespace().nth(3).unwrap();
    let limit = |soft: &str| {
        let (pid, soft) = (site.pid.to_string(), format!("--nofile={soft}:"));
        run(Command::new("prlimit").args(["--pid", &pid, &soft])).ok()
    };
    let hammer = Hammer::easy(site.address());
    for more in 0..8 {
        let line = format!("prlimit --pid $PPID --nofile={}:", highest + 1 + more);
        place.put_program("prog", &wrapper(&line, ""));
        let done = place.app(&["restart"]);
        limit(before);
        assert!(is_alive(site.pid), "{more}: {done:?}");
        wait_until(10, "it is over", || place.fact("restarting") == "false");
        if done.code == Some(0) {
            break;
        }
        assert!(done.err.contains("os error 24"), "{more}: {done:?}");
        assert_eq!(worker(site.pid), old, "{more}: {done:?}");
    }
    hammer.end();
    place.put_demo("prog");
    place.app(&["restart"]).ok();
}

#[test]
fn told_to_stop_between_the_exec_and_the_way_back() {
    for signals in [&["TERM"][..], &["INT", "HUP", "USR1"]] {
        let place = Place::demo();
        let site = place.start_copy(&[]);
        place.sh("mkdir etc && mkfifo hold", &[]);
        let line = "echo app.nonsense = 1 >etc/app.conf; : >reached; read line <hold";
        place.put_program("prog", &wrapper("", line));
        let restart = Meanwhile::new(place.command(&["app", "restart"]));
        wait_until(10, "it is executed", || place.path("reached").exists());
        for name in signals {
            signal(site.pid, name);
        }
        place.sh("echo go >hold", &[]);
        let done = restart.end(20);
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:?}");
        place.wait_empty(10);
        assert_eq!(place.read("run/app.pid"), "");
        assert!(place.log().contains("stopped, 0 requests finished, 0 cut"));
    }
}

/// Whether a process was called with this word among others.
fn has_word(pid: u32, word: &str) -> bool {
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split('\0').any(|found| found == word)
}

/// A check that does not end, and what it has started, do not outlive it, whatever ends it.
#[test]
fn nothing_of_a_check_is_left() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    place.sh("mkfifo never", &[]);
    for end in ["killed", "over", "stop"] {
        // A child beside the check, which has no place in a pipe of it.
        let beside = "(: >beside; : >there; exec sleep 7654) </dev/null >/dev/null 2>&1 &";
        let line = match end {
            "over" => format!("{beside} until [ -e there ]; do sleep 0.01; done"),
            _ => format!("{beside} read line <never"),
        };
        place.put_program("prog", &wrapper(&line, ""));
        place.sh("rm -f there", &[]);
        let mut restart = Meanwhile::new(place.command(&["app", "restart"]));
        wait_until(10, "it has a child, or is over", || {
            place.path("beside").exists() || restart.is_over()
        });
        place.sh("rm -f beside", &[]);
        match end {
            "stop" => drop(place.app(&["stop"]).ok()),
            "over" => {}
            _ => {
                let check = workers(site.pid);
                let check = check.iter().find(|pid| has_word(**pid, "check"));
                signal(*check.expect("a check"), "KILL");
            }
        }
        let done = restart.end(20);
        assert_eq!(done.code == Some(0), end == "over", "{end}: {done:?}");
        wait_until(5, "nothing of the check is left", || {
            working_in(&place.dir)
                .iter()
                .all(|pid| !is_alive(*pid) || !(has_word(*pid, "7654") || has_word(*pid, "check")))
        });
    }
    place.wait_empty(5);
}
