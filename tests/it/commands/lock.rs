//! The lock: a file of its own, beside which the pid file is information; what becomes of it when its directory is
//! moved or cleaned away, and where there are no locks at all.

use crate::look::{WITHOUT_LOCKS, mode, nothing_left, sockets};
use crate::support::{Meanwhile, Place, Site, has, run, signal, wait_until, working_in};
use std::fs;

const START: [&str; 5] = ["app", "start", "--daemon", "--address", "127.0.0.1:0"];

/// Who holds a POSIX lock on a file, from `/proc/locks` (`proc(5)`).
fn holders(path: &std::path::Path) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{}", fs::metadata(path).unwrap().ino());
    // The list is read in pieces, and what others lock and unlock meanwhile may hide a line: the union of several looks.
    let looks = (0..5).map(|_| fs::read_to_string("/proc/locks").unwrap());
    let locks: std::collections::BTreeSet<String> = looks
        .flat_map(|look| look.lines().map(drop_number).collect::<Vec<_>>())
        .collect();
    let fields = locks.iter().map(|line| line.split_whitespace().collect());
    fields
        .filter(|line: &Vec<&str>| line[0] == "POSIX" && line[4].ends_with(&inode))
        .map(|line| line[3].parse().unwrap())
        .collect()
}

/// A line without its place in the list.
fn drop_number(line: &str) -> String {
    line.split_once(':')
        .map_or(line, |(_, rest)| rest)
        .to_owned()
}

#[test]
fn the_lock_is_a_file_of_its_own_and_stays_through_every_restart() {
    let place = Place::demo();
    let site = place.start(&[]);
    let lock = place.path("run/app.lock");
    for _ in 0..3 {
        assert_eq!(holders(&lock), [site.pid]);
        assert_eq!(holders(&place.path("run/app.pid")), [0; 0]);
        assert_eq!(
            (mode(&lock), place.read("run/app.lock")),
            (0o600, "".into())
        );
        place.app(&["restart"]).ok();
    }
    place.app(&["stop"]).ok();
    assert!(lock.exists(), "it is never unlinked");
    nothing_left(&place);
}

#[test]
fn the_lock_stands_beside_a_pid_file_that_is_elsewhere() {
    for (pid_file, lock) in [("a/it.pid", "a/it.lock"), ("a/it", "a/it.lock")] {
        let place = Place::new();
        let set = format!("pid_file={pid_file}");
        let site = place.start(&["--set", &set]);
        assert_eq!(holders(&place.path(lock)), [site.pid]);
        place.app(&["stop", "--set", &set]).ok();
        let log = format!("log_file={lock}");
        let said = place.app(&["check", "--set", &set, "--set", &log]);
        assert_eq!(
            said.failed(1),
            format!("hade: {lock} is named for two purposes; each file needs a path of its own\n")
        );
    }
}

/// The lock would be dropped, and another master could take it.
#[test]
fn no_other_file_may_be_the_lock_however_it_is_written() {
    let place = Place::new();
    for is_there in [false, true] {
        if is_there {
            place.write("run/x", "");
            std::os::unix::fs::symlink("run", place.path("run2")).unwrap();
        }
        let by_link = ["log_file=run2/app.lock", "access_log=run2/app.lock"];
        let plain = [
            "log_file=run/../run/app.lock",
            "access_log=./run/../run/app.lock",
        ];
        let values = by_link.iter().filter(|_| is_there).chain(&plain);
        for value in values {
            let said = place.app(&["start", "-d", "--address", "127.0.0.1:0", "--set", value]);
            let said = said.failed(1);
            assert!(
                said.contains("app.lock is named for two purposes"),
                "{said}"
            );
        }
    }
}

#[test]
fn a_directory_that_is_moved_takes_its_lock_with_it() {
    let place = Place::demo();
    fs::create_dir(place.path("old")).unwrap();
    let base = ["--base-dir", "old"];
    let site = place.start(&base);
    fs::rename(place.path("old"), place.path("new")).unwrap();
    let log = || place.read("new/run/app.log");
    for name in ["USR1", "HUP"] {
        signal(site.pid, name);
        wait_until(10, "it is said", || {
            log().contains(
                "/old/run/app.lock has moved: commands find this service at its new place only",
            )
        });
    }
    wait_until(10, "the restart is over", || {
        let state = place.app(&["state", "--json", "--base-dir", "new"]).out;
        state.contains("\"restarting\":false") && !state.contains("\"last_restart\":null")
            || state.contains("\"generation\":2")
    });
    assert_eq!(holders(&place.path("new/run/app.lock")), [site.pid]);
    let state = place.app(&["state", "--base-dir", "new"]).ok();
    assert!(state.contains(&format!("pid {}, ", site.pid)), "{state}");
    assert_eq!(site.get("/hello").status, 200);
    let second = [&START[1..4], &["127.0.0.1:0", "--base-dir", "new"]].concat();
    let said = place.app(&second).failed(1);
    assert!(said.contains("already running, pid"), "{said}");
    place.app(&["stop", "--base-dir", "new"]).ok();
    wait_until(5, "all are gone", || working_in(&place.dir).is_empty());
}

#[test]
fn what_was_cleaned_away_is_made_anew_when_asked() {
    for name in ["USR1", "HUP"] {
        let place = Place::demo();
        let site = place.start(&[]);
        fs::remove_dir_all(place.path("run")).unwrap();
        signal(site.pid, name);
        wait_until(10, "the files are there", || {
            place.pid() == Some(site.pid)
                && sockets(&place.path("run")).contains(&"app.sock".into())
                // Bound first, then for its owner alone, then it listens.
                && mode(&place.path("run/app.sock")) == 0o600
        });
        assert_eq!(holders(&place.path("run/app.lock")), [site.pid]);
        assert_eq!(mode(&place.path("run/app.pid")), 0o664);
        assert_eq!(mode(&place.path("run/app.lock")), 0o600);
        let second = place.app(&START[1..]).failed(1);
        assert!(second.contains("already running, pid"), "{second}");
        let generation = if name == "HUP" { 2 } else { 1 };
        wait_until(10, "the restart by HUP is over", || {
            place.fact("restarting") == "false" && place.count("generation") == generation
        });
        place.app(&["restart"]).ok();
        let said = place.app(&["stop"]).ok();
        assert!(said.starts_with(&format!("demo: stopped pid {} ", site.pid)));
    }
}

#[test]
fn what_is_there_is_left_alone() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::demo();
    let site = place.start(&[]);
    let inodes = || {
        ["run/app.pid", "run/app.lock", "run/app.sock"]
            .map(|name| fs::symlink_metadata(place.path(name)).unwrap().ino())
    };
    let before = inodes();
    signal(site.pid, "USR1");
    wait_until(5, "it is done", || place.log().contains(" log reopened"));
    assert_eq!(inodes(), before);
    assert!(!place.log().contains("made anew"));
}

#[test]
fn where_there_are_no_locks_a_start_is_refused_and_nobody_is_said_not_to_run() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    let app = |args: &[&str]| run(&mut place.wrapped(&WITHOUT_LOCKS, &[&["app"], args].concat()));
    assert_eq!(
        app(&START[1..]).failed(1),
        "hade: cannot lock run/app.lock: No locks available (os error 37); put run/app.pid on a file system that has locks, with app.pid_file\n"
    );
    nothing_left(&place);
    // A file system that has none for the moment.
    let site = place.start(&[]);
    for (command, code) in [("state", 4), ("stop", 1), ("restart", 1)] {
        assert_eq!(
            app(&[command]).failed(code),
            "hade: cannot tell who runs: cannot read run/app.lock: No locks available (os error 37)\n",
            "{command}"
        );
    }
    assert_eq!(site.get("/").status, 200);
    place.app(&["stop"]).ok();
}

/// The launcher of a start is killed while its daemon boots: the daemon, which nobody waits for, leaves as soon as it is
/// ready. The next start must not take it for one that runs.
#[test]
fn a_start_waits_for_what_becomes_of_another_one() {
    let place = Place::demo();
    place.write("boot", "wait");
    let mut first = place.command(&START).spawn().unwrap();
    wait_until(5, "a worker boots", || {
        place.path("run/app.sock").exists() && working_in(&place.dir).len() == 3
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let second = Meanwhile::new(place.command(&START));
    wait_until(5, "the second one waits", || {
        working_in(&place.dir).len() == 4
    });
    place.write("boot", "");
    let site = Site::of(&second.end(10).ok());
    assert_eq!(site.get("/hello").status, 200);
    assert_eq!(place.pid(), Some(site.pid));
}
