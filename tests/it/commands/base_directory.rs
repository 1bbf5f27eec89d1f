//! The base directory while it serves: a link that is turned to a new release, a name that is moved or goes away, a
//! `run/` that something cleans, and a system without `/proc` or with a `/dev/null` that is none.

use crate::support::{
    Hammer, Place, Site, has, is_alive, run, signal, wait_until, worker, workers,
};
use std::fs;
use std::path::PathBuf;

/// Two releases that share `run/`, and `current`, which leads to the first.
fn releases() -> Place {
    let place = Place::demo();
    for number in ["1", "2"] {
        let line = r#"mkdir -p shared/run releases/$1 && echo "release $1" >releases/$1/VERSION &&
            ln -s ../../shared/run releases/$1/run"#;
        place.sh(line, &[number]);
    }
    place.sh("ln -s releases/1 current", &[]);
    place
}

fn turn(place: &Place, number: &str) {
    place.sh("ln -s releases/$1 next && mv -T next current", &[number]);
}

#[track_caller]
fn serves(place: &Place, site: &Site, number: &str) {
    let answer = site.get("/file?name=VERSION");
    assert_eq!(answer.text(), format!("release {number}\n"));
    for pid in workers(site.pid).into_iter().chain([site.pid]) {
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert!(
            directory.ends_with(format!("releases/{number}")),
            "{directory:?}"
        );
    }
    assert_eq!(
        place.read("shared/run/app.pid").trim(),
        site.pid.to_string()
    );
}

/// Through all that may happen to a service whose base directory is a link.
fn through_releases(place: &Place, site: &Site, command: &dyn Fn(&[&str]) -> crate::support::Done) {
    serves(place, site, "1");
    let hammer = Hammer::easy(site.address());
    // Given up: the directory of before.
    turn(place, "2");
    place.write("releases/2/boot", "fail");
    command(&["restart"]).failed(1);
    serves(place, site, "1");
    fs::remove_file(place.path("releases/2/boot")).unwrap();
    command(&["restart"]).ok();
    serves(place, site, "2");
    place.sh("rm -r releases/1", &[]);
    let generation = support_count(command, "generation");
    signal(site.pid, "HUP");
    wait_until(10, "a restart by signal", || {
        support_count(command, "generation") == generation + 1
    });
    serves(place, site, "2");
    hammer.end();
    let old = worker(site.pid);
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    serves(place, site, "2");
    // A link to nowhere: refused in words, and it goes on.
    turn(place, "3");
    let said = place.app(&["restart", "--base-dir", "current"]).failed(1);
    assert!(
        said.contains("cannot enter the base directory current: "),
        "{said}"
    );
    signal(site.pid, "HUP");
    wait_until(10, "the log says so", || {
        let log = place.read("shared/run/app.log");
        log.contains("restart given up: cannot enter the base directory ")
    });
    assert!(!place.path("releases/3").exists());
    serves(place, site, "2");
    let old = worker(site.pid);
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    serves(place, site, "2");
    turn(place, "2");
    command(&["restart"]).ok();
    serves(place, site, "2");
    command(&["stop"]).ok();
    place.wait_empty(5);
}

#[track_caller]
fn support_count(command: &dyn Fn(&[&str]) -> crate::support::Done, key: &str) -> u64 {
    let json = command(&["state", "--json"]).ok();
    crate::support::fact(&json, key).parse().unwrap()
}

#[test]
fn a_link_to_a_release_is_followed_by_a_restart() {
    let place = releases();
    let site = place.start(&["--base-dir", "current"]);
    let command = |args: &[&str]| place.app(&[args, &["--base-dir", "current"]].concat());
    through_releases(&place, &site, &command);
}

#[test]
fn a_link_that_a_shell_stood_in_is_followed_too() {
    let place = releases();
    let in_it = |args: &[&str]| {
        let mut command = place.command(&[&["app"], args].concat());
        let current = place.path("current");
        run(command.current_dir(&current).env("PWD", &current))
    };
    let site = Site::of(&in_it(&["start", "-d", "--address", "127.0.0.1:0"]).ok());
    through_releases(&place, &site, &in_it);
}

/// The name of a directory that is not the one it stands in says nothing.
#[test]
fn a_wrong_word_for_where_it_stands_is_not_believed() {
    let place = releases();
    for wrong in ["/", "/nowhere", "current", "/proc/self/cwd/../.."] {
        let mut command = place.command(&["app", "start", "-d", "--address", "127.0.0.1:0"]);
        let first: PathBuf = place.path("releases/1");
        let site = Site::of(&run(command.current_dir(first).env("PWD", wrong)).ok());
        serves(&place, &site, "1");
        place.app(&["restart", "--base-dir", "releases/1"]).ok();
        serves(&place, &site, "1");
        place.app(&["stop", "--base-dir", "releases/1"]).ok();
    }
}

#[test]
fn without_its_run_directory_it_serves_and_is_mended() {
    let place = Place::demo();
    let site = place.start(&[]);
    place.sh("rm -r run", &[]);
    for _ in 0..3 {
        let old = worker(site.pid);
        signal(old, "KILL");
        site.wait_replaced(old, 1);
        assert_eq!(site.get("/hello").status, 200);
    }
    let old = worker(site.pid);
    signal(old, "TERM");
    site.wait_replaced(old, 1);
    assert_eq!(site.get("/hello").status, 200);
    signal(site.pid, "HUP");
    wait_until(10, "the restart is over", || {
        let state = place.app(&["state", "--json"]);
        state.code == Some(0) && state.out.contains("\"generation\":2")
    });
    assert_eq!(place.pid(), Some(site.pid));
    place.sh("rm -r run", &[]);
    signal(site.pid, "USR1");
    wait_until(10, "it is found again", || {
        place.app(&["state"]).code == Some(0)
    });
    place.app(&["restart"]).ok();
    assert_eq!(place.count("generation"), 3);
    // And with no word to it: the stop that nobody can ask for by a file comes by a signal.
    place.sh("rm -r run", &[]);
    signal(site.pid, "TERM");
    place.wait_empty(10);
}

#[test]
fn one_that_was_moved_takes_nothing_from_the_one_in_its_place() {
    let place = Place::demo();
    place.sh("mkdir one", &[]);
    let moved = place.start(&["--base-dir", "one"]);
    place.sh("mv one two && mkdir one", &[]);
    let new = place.start(&["--base-dir", "one"]);
    let is_well = || {
        let state = place.app(&["state", "--base-dir", "one"]).ok();
        assert!(state.contains(&format!("pid {}, ", new.pid)), "{state}");
        assert_eq!(place.read("one/run/app.pid").trim(), new.pid.to_string());
    };
    // A restart and a reopened log of the one that was moved leave all of it alone as well.
    signal(moved.pid, "USR1");
    wait_until(10, "it is said", || {
        ["one", "two"].iter().any(|base| {
            place
                .read(&format!("{base}/run/app.log"))
                .contains("has moved")
        })
    });
    is_well();
    signal(moved.pid, "TERM");
    wait_until(10, "it is gone", || !is_alive(moved.pid));
    is_well();
    place.app(&["restart", "--base-dir", "one"]).ok();
    is_well();
}

/// Starts in namespaces of its own, after a line of shell.
fn start_after(place: &Place, line: &str) -> Option<Site> {
    if !has("unshare") {
        return None;
    }
    let script = format!("{line}\nexec \"$@\"");
    let before = ["unshare", "-rm", "sh", "-ec", &script, "sh"];
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let done = run(&mut place.wrapped(&before, &args));
    if done.code != Some(0) && done.err.contains("unshare") {
        crate::support::skip("needs namespaces");
        return None;
    }
    Some(Site::of(&done.ok()))
}

#[test]
fn without_proc_a_restart_is_refused_and_it_goes_on() {
    let place = Place::demo();
    let Some(site) = start_after(&place, "mount -t tmpfs none /proc") else {
        return;
    };
    let old = worker(site.pid);
    let hammer = Hammer::easy(site.address());
    signal(site.pid, "HUP");
    place.wait_for_log("restart given up: ");
    hammer.end();
    let log = place.log();
    let why = log.lines().find(|line| line.contains("given up")).unwrap();
    assert!(why.contains("/proc"), "{why}");
    assert_eq!(worker(site.pid), old);
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    assert_eq!(site.get("/hello").status, 200);
    signal(site.pid, "TERM");
    place.wait_empty(10);
}

#[test]
fn where_dev_null_is_a_file_with_words_in_it() {
    let place = Place::demo();
    place.write("null", "app.nonsense = 1\nno settings at all\n");
    let line = "mount --bind null /dev/null";
    let Some(site) = start_after(&place, line) else {
        return;
    };
    // Commands in the same place: there it is a file as well.
    let inside = |args: &[&str]| {
        let script = format!("{line}\nexec \"$@\"");
        let before = ["unshare", "-rm", "sh", "-ec", &script, "sh"];
        run(&mut place.wrapped(&before, &[&["app"], args].concat()))
    };
    for _ in 0..2 {
        let said = inside(&["restart"]).ok();
        assert!(
            said.contains(&format!("restarted, pid {}", site.pid)),
            "{said}"
        );
    }
    signal(site.pid, "HUP");
    wait_until(10, "a restart by signal", || place.count("generation") == 4);
    // A settings file that is broken hides nothing, whatever is in there.
    place.write("etc/app.conf", "app.nonsense = 1\n");
    assert_eq!(inside(&["state"]).code, Some(0));
    let said = inside(&["stop"]);
    assert!(said.out.starts_with("demo: stopped pid "), "{said:?}");
    place.wait_empty(5);
}
