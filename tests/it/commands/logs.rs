//! The log is rotated under load: nothing is lost, nothing is torn, and the old file is let go.

use crate::support::{Hammer, Place, Site, Tally, Wire, signal, wait_until, workers};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Whether somebody still has this file open.
fn is_open(master: u32, name: &str) -> bool {
    let mut pids = workers(master);
    pids.push(master);
    pids.iter().any(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        open.flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|path| path.ends_with(name))
    })
}

/// One request that makes the worker log a line.
fn panic(address: &str, wire: &mut Option<Wire>, tally: &mut Tally) {
    let wire = wire.get_or_insert_with(|| Wire::to(address));
    match wire.ask("GET /panic HTTP/1.1\r\nHost: t\r\n\r\n") {
        Ok(answer) if answer.status == 500 => tally.answered += 1,
        answer => tally.failed.push(format!("{answer:?}")),
    }
}

#[test]
fn rotated_under_load_no_line_is_lost_or_torn() {
    let place = Place::demo();
    let site = place.start(&["--set", "workers=2"]);
    let client = |site: &Site| {
        let (address, mut wire) = (site.address().to_owned(), None);
        move |tally: &mut Tally| panic(&address, &mut wire, tally)
    };
    let hammer = Hammer::new().with(client(&site)).with(client(&site));
    let mut names = vec!["run/app.log".to_owned()];
    for round in 0..20 {
        let name = format!("run/app.log.{round}");
        place.sh(r#"mv run/app.log "$1""#, &[&name]);
        signal(site.pid, "USR1");
        wait_until(5, "the old file is let go", || !is_open(site.pid, &name));
        let found = fs::metadata(place.path("run/app.log")).expect("the new file is there");
        assert_eq!(found.permissions().mode() & 0o7777, 0o640);
        let settled = fs::metadata(place.path(&name)).unwrap().len();
        if round % 5 == 4 {
            place.app(&["restart"]).ok();
        }
        assert_eq!(
            fs::metadata(place.path(&name)).unwrap().len(),
            settled,
            "nothing more is written to the old file"
        );
        names.push(name);
    }
    let tally = hammer.end();
    place.app(&["stop"]).ok();

    let mut panics = 0;
    for name in &names {
        let text = place.read(name);
        assert!(text.is_empty() || text.ends_with('\n'), "{name}");
        for line in text.lines() {
            assert!(
                line.len() > 30 && line.starts_with("20") && &line[23..25] == "Z ",
                "{name}: {line}"
            );
            assert!(!line.contains(" lost"), "{name}: {line}");
            // One beginning, one end.
            assert_eq!(
                line.matches("Z error").count()
                    + line.matches("Z info").count()
                    + line.matches("Z warn").count(),
                1,
                "{name}: {line}"
            );
            if line.contains(" panic in ") {
                assert!(line.ends_with(": asked to"), "{name}: {line}");
                panics += 1;
            }
        }
    }
    println!("{panics} lines in {} files", names.len());
    assert_eq!(panics, tally.answered);
}

#[test]
fn what_is_written_to_standard_error_moves_too() {
    let place = Place::demo();
    let site = place.start(&[]);
    place.sh("mv run/app.log run/old.log", &[]);
    signal(site.pid, "USR1");
    wait_until(5, "the old file is let go", || {
        !is_open(site.pid, "run/old.log")
    });
    // Abort is no panic: what the dying say goes where standard error goes.
    let mut wire = site.connect();
    wire.send("GET /abort HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(wire.read_answer(true).is_err());
    wait_until(5, "the log says who died", || {
        place.log().contains("killed by signal 6 (ABRT)")
    });
    wait_until(5, "a new worker", || workers(site.pid).len() == 1);
    assert_eq!(site.get("/panic").status, 500);
    wait_until(5, "it writes to the new one", || {
        place.log().contains(" panic in ")
    });
    assert!(!is_open(site.pid, "run/old.log"));
    assert!(place.log().contains(" log reopened"));
}

#[test]
fn a_log_that_cannot_be_reopened_stays() {
    let place = Place::demo();
    let site = place.start(&[]);
    place.sh("mv run/app.log run/old.log && mkdir run/app.log", &[]);
    signal(site.pid, "USR1");
    wait_until(5, "it says so where it can", || {
        place
            .read("run/old.log")
            .contains("cannot reopen the log: ")
    });
    assert_eq!(site.get("/panic").status, 500);
    wait_until(5, "lines go on", || {
        place.read("run/old.log").contains(" panic in ")
    });
    place.sh("rmdir run/app.log", &[]);
    signal(site.pid, "USR1");
    wait_until(5, "the new one", || place.log().contains("log reopened"));
}
