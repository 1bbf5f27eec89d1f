//! A log with a bound: what is full becomes `NAME.1`, whoever wrote it, and nobody writes on into that.

use crate::support::{
    Hammer, Place, Site, Tally, Wire, freeze, has, holds_for, run, signal, wait_until, workers,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The longest line that these tests bring about, in bytes.
const LINE: u64 = 200;

/// A worker logs a line for each of so many requests, and answers them.
fn panics(site: &Site, count: usize) {
    let mut wire = site.connect();
    for _ in 0..count {
        assert_eq!(wire.get("/panic").status, 500);
    }
}

fn panics_in(place: &Place) -> usize {
    let both = place.read("run/app.log.1") + &place.log();
    assert!(!both.contains(" lost"), "{both}");
    // One that is not whole, or two in one, would not begin or not end like this.
    let mut panics = both.lines().filter(|line| line.contains(" panic in "));
    let is_whole = |line: &str| line.starts_with("20") && line.ends_with(": asked to");
    assert!(
        panics.all(|line| is_whole(line) && line.len() < LINE as usize),
        "{both}"
    );
    both.matches(" panic in ").count()
}

fn length(place: &Place, name: &str) -> u64 {
    fs::metadata(place.path(name)).map_or(0, |found| found.len())
}

/// Whether anybody still has this file open.
fn is_open(site: &Site, name: &str) -> bool {
    let pids = workers(site.pid).into_iter().chain([site.pid]);
    let mut open = pids.flat_map(|pid| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
    });
    open.any(|entry| {
        let path = entry.and_then(|entry| fs::read_link(entry.path()));
        path.is_ok_and(|path| path.ends_with(name))
    })
}

#[test]
fn a_full_log_becomes_the_old_one_and_no_line_is_lost() {
    let place = Place::demo();
    let site = place.start(&["--set", "log_max=16384"]);
    panics(&site, 200);
    wait_until(5, "all is written", || panics_in(&place) == 200);
    // One rotation: half of them are there, and nothing was cut.
    for name in ["run/app.log", "run/app.log.1"] {
        let found = fs::metadata(place.path(name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o640, "{name}");
        assert!(found.len() <= 16384, "{name}: {}", found.len());
    }
    assert!(length(&place, "run/app.log.1") + LINE > 16384);
    wait_until(5, "the old file is let go", || {
        !is_open(&site, "run/app.log.1")
    });
    // Many more, of which the newest are kept.
    panics(&site, 1000);
    wait_until(5, "the old file is let go", || {
        !is_open(&site, "run/app.log.1")
    });
    // A handler may have written at the moment at which the file was exchanged.
    for name in ["run/app.log", "run/app.log.1"] {
        assert!(length(&place, name) <= 16384 + 3 * LINE, "{name}");
    }
    assert!(panics_in(&place) > 100);
    place.app(&["stop"]).ok();
    assert!(place.log().contains(" stopped, "));
}

#[test]
fn by_default_there_is_no_bound() {
    let place = Place::demo();
    let site = place.start(&[]);
    panics(&site, 200);
    wait_until(5, "all is written", || panics_in(&place) == 200);
    assert!(!place.path("run/app.log.1").exists());
}

#[test]
fn under_load_by_two_workers_and_a_restart_no_line_is_lost() {
    let place = Place::demo();
    let most = 256 * 1024;
    let site = place.start(&["--set", "workers=2", "--set", &format!("log_max={most}")]);
    let client = || {
        let (address, mut wire) = (site.address().to_owned(), None);
        let old = place.path("run/app.log.1");
        move |tally: &mut Tally| {
            // Of a second exchange the first lines would be the victims.
            if old.exists() {
                return holds_for(10, "", || true);
            }
            let wire = wire.get_or_insert_with(|| Wire::to(&address));
            match wire.ask("GET /panic HTTP/1.1\r\nHost: t\r\n\r\n") {
                Ok(answer) if answer.status == 500 => tally.answered += 1,
                answer => tally.failed.push(format!("{answer:?}")),
            }
        }
    };
    let hammer = Hammer::new().with(client()).with(client()).with(client());
    wait_until(60, "it is half full", || {
        length(&place, "run/app.log") > most / 2
    });
    place.app(&["restart"]).ok();
    wait_until(60, "it is full", || place.path("run/app.log.1").exists());
    let tally = hammer.end();
    let answered = tally.answered as usize;
    wait_until(5, "all is written", || panics_in(&place) == answered);
    // Each of the two, and the master, may have written at the same moment.
    assert!(length(&place, "run/app.log.1") <= most + 3 * LINE);
    wait_until(5, "the old file is let go", || {
        !is_open(&site, "run/app.log.1")
    });
}

#[test]
fn a_log_that_was_renamed_by_hand_is_reopened_and_has_its_bound() {
    let place = Place::demo();
    let site = place.start(&["--set", "log_max=8192"]);
    panics(&site, 20);
    fs::rename(place.path("run/app.log"), place.path("run/kept")).unwrap();
    signal(site.pid, "USR1");
    wait_until(5, "it is reopened", || {
        place.log().contains(" log reopened") && !is_open(&site, "run/kept")
    });
    let kept = place.read("run/kept");
    panics(&site, 100);
    wait_until(5, "the old file is let go", || {
        length(&place, "run/app.log.1") > 0 && !is_open(&site, "run/app.log.1")
    });
    assert_eq!(place.read("run/kept"), kept);
    // Renamed, and full before anybody says so: what has its place is taken as it is.
    fs::rename(place.path("run/app.log"), place.path("run/kept")).unwrap();
    let old = place.read("run/app.log.1");
    panics(&site, 100);
    wait_until(5, "a new one is there", || {
        length(&place, "run/app.log") > 0
    });
    assert_eq!(place.read("run/app.log.1"), old);
}

#[test]
fn what_stands_at_the_old_name_is_replaced_or_the_log_begins_anew() {
    let place = Place::demo();
    place.write("run/theirs", "theirs");
    std::os::unix::fs::symlink("theirs", place.path("run/app.log.1")).unwrap();
    let site = place.start(&["--set", "log_max=4096"]);
    panics(&site, 60);
    wait_until(5, "it is full", || {
        fs::symlink_metadata(place.path("run/app.log.1")).is_ok_and(|found| found.is_file())
    });
    assert_eq!(place.read("run/theirs"), "theirs");
    // A directory cannot be replaced.
    fs::remove_file(place.path("run/app.log.1")).unwrap();
    place.write("run/app.log.1/in_it", "");
    for _ in 0..10 {
        panics(&site, 60);
        assert!(length(&place, "run/app.log") <= 4096 + LINE);
    }
    wait_until(5, "it is said", || {
        place.log().contains("app.log as ") && place.log().contains(", its lines are gone: ")
    });
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn a_start_goes_on_where_the_last_one_broke_off() {
    let place = Place::demo();
    // Renamed, and not yet opened anew.
    place.write("run/app.log.1", "old\n");
    let site = place.start(&["--set", "log_max=4096"]);
    assert!(place.log().contains(" started on "));
    signal(site.pid, "KILL");
    place.wait_empty(10);
    // Longer than the bound is now.
    place.write("run/app.log", "x\n".repeat(4000));
    place.start(&["--set", "log_max=4096"]);
    assert!(place.read("run/app.log.1").starts_with("x\nx\n"));
    assert!(place.log().contains(" started on ") && !place.log().contains("x\n"));
}

#[test]
fn a_master_that_does_not_answer_holds_nobody_up() {
    let place = Place::demo();
    let site = place.start(&["--set", "log_max=4096"]);
    freeze(site.pid);
    panics(&site, 1000);
    assert!(length(&place, "run/app.log") <= 4096);
    signal(site.pid, "CONT");
    let both = || place.read("run/app.log.1") + &place.log();
    wait_until(5, "it is said what was lost", || {
        panics(&site, 1);
        both().contains(" log lines before this one were lost")
    });
    assert!(length(&place, "run/app.log") <= 4096);
}

#[test]
fn a_worker_whose_master_is_gone_says_the_rest() {
    let place = Place::demo();
    let site = place.start(&["--set", "log_max=4096"]);
    freeze(site.pid);
    panics(&site, 60);
    signal(site.pid, "KILL");
    place.wait_empty(10);
    let log = place.log();
    assert_eq!(log.matches(" panic in ").count(), 60, "{log}");
    assert!(log.contains("the master is gone: draining"), "{log}");
}

/// The numbers of the requests that an access log and the one before tell of. A line that is being written is none yet.
fn told_in(place: &Place, names: &[&str]) -> Vec<Option<usize>> {
    let text: String = names.iter().map(|name| place.read(name)).collect();
    let number = |line: &str| {
        let (_, rest) = line
            .strip_prefix("127.0.0.1 - - [")?
            .split_once("/hello?n=")?;
        rest.split_once(" HTTP/1.1\" 200 13 ")?.0.parse().ok()
    };
    text.lines().map(number).collect()
}

#[test]
fn the_access_log_has_the_same_bound() {
    const MOST: u64 = 65536;
    for count in ["1", "2"] {
        let place = Place::demo();
        let site = place.start(&[
            "--set",
            &format!("workers={count}"),
            "--set",
            &format!("log_max={MOST}"),
            "--set",
            "access_log=run/access.log",
            "--set",
            "access_format=combined",
        ]);
        let names = ["run/access.log.1", "run/access.log"];
        let told = || {
            let there = names.into_iter().filter(|name| place.path(name).exists());
            told_in(&place, &there.collect::<Vec<_>>())
        };
        // One file and a half.
        for round in 1..=6 {
            let mut wire = site.connect();
            for number in (round - 1) * 200..round * 200 {
                assert_eq!(wire.get(&format!("/hello?n={number}")).status, 200);
            }
            // At the moment of the change a line may be in neither.
            wait_until(10, "all are told of", || told().len() == round * 200);
        }
        let mut numbers = told();
        numbers.sort_unstable();
        assert!(numbers == (0..1200).map(Some).collect::<Vec<_>>());
        for name in names {
            let found = fs::metadata(place.path(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o640, "{name}");
            // Two may write at once what they have collected.
            let most = if count == "1" { MOST } else { 2 * MOST };
            assert!(found.len() <= most, "{name}: {}", found.len());
        }
        assert!(length(&place, names[0]) + LINE > MOST);
        let is_open = || {
            let pids = workers(site.pid).into_iter().chain([site.pid]);
            let mut files = pids.flat_map(crate::look::descriptors);
            files.any(|(_, path)| path.ends_with("run/access.log.1"))
        };
        wait_until(5, "the old file is let go", || !is_open());
        assert!(!place.log().contains(" lost"), "{}", place.log());
        // A restart goes on in it, and a stop writes the rest.
        place.app(&["restart"]).ok();
        let mut wire = site.connect();
        for _ in 0..100 {
            assert_eq!(wire.get("/hello?n=5").status, 200);
        }
        place.app(&["stop"]).ok();
        assert_eq!(told().len(), 1300);
    }
}

#[test]
fn devices_and_pipes_have_no_bound() {
    let place = Place::demo();
    let site = place.start(&["--set", "log_max=4096", "--set", "log_file=/dev/null"]);
    panics(&site, 100);
    assert_eq!(site.get("/hello").status, 200);
    assert!(!std::path::Path::new("/dev/null.1").exists());
    place.app(&["stop"]).ok();
    if !has("mkfifo") {
        return;
    }
    place.sh("mkfifo run/fifo", &[]);
    // Somebody has it open, and does not read.
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    let _reader = options.open(place.path("run/fifo")).unwrap();
    let site = place.start(&["--set", "log_max=4096", "--set", "log_file=run/fifo"]);
    panics(&site, 100);
    assert_eq!(site.get("/hello").status, 200);
    assert!(!place.path("run/fifo.1").exists());
}

#[test]
fn a_bound_that_is_no_number_of_bytes_is_refused() {
    let place = Place::new();
    for value in ["1", "4095", "64k", "-1"] {
        let mut command = place.command(&["app", "check", "--set", &format!("log_max={value}")]);
        let said = run(&mut command).failed(2);
        assert!(
            said.contains("expected whole bytes, 4096 to 1073741824, or 0 for none"),
            "{said}"
        );
    }
}
