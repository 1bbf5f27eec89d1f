//! Where `run/` was cleaned away and a second master has its files there now, the first one leaves them alone.

use crate::support::{Place, signal, wait_until};
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn a_master_whose_files_were_taken_touches_none_of_the_next_one() {
    let place = Place::demo();
    let first = place.start(&[]);
    fs::remove_dir_all(place.path("run")).unwrap();
    let second = place.start(&[]);
    let is_whole = |after: &str| {
        assert_eq!(place.pid(), Some(second.pid), "{after}");
        let state = place.app(&["state"]).ok();
        let running = format!("demo: running, pid {}, ", second.pid);
        assert!(state.starts_with(&running), "{after}: {state}");
    };
    signal(first.pid, "USR1");
    place.wait_for_log("holds another one at the same path");
    is_whole("USR1");
    signal(first.pid, "HUP");
    place.wait_for_log(&format!("restarted, pid {}, ", first.pid));
    is_whole("HUP");
    signal(first.pid, "TERM");
    wait_until(20, "the first one is gone", || {
        !crate::support::is_alive(first.pid)
    });
    is_whole("TERM");
    place.app(&["stop"]).ok();
    assert!(!place.path("run/app.sock").exists());
}

#[test]
fn files_of_a_start_that_failed_are_in_nobodys_way() {
    let place = Place::demo();
    let site = place.start(&[]);
    fs::remove_dir_all(place.path("run")).unwrap();
    place
        .app(&["start", "-d", "--address", site.address()])
        .failed(1);
    // It takes away what it has made; somebody else may be slower.
    place.write("run/app.lock", "");
    signal(site.pid, "USR1");
    wait_until(20, "all is there again", || {
        place.pid() == Some(site.pid) && place.path("run/app.sock").exists()
    });
    place.wait_for_log("app.lock was gone: made anew");
    place.app(&["stop"]).ok();
    assert_eq!(place.read("run/app.pid"), "");
    assert!(!place.path("run/app.sock").exists());
}

/// A start that is about to fail, which takes what is in `run/` for nobody's, may have it just then.
#[test]
fn files_that_somebody_holds_for_a_moment_are_made_anew_after_it() {
    const HOLDER: &str = "import fcntl, sys
file = open('run/app.lock', 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
open('held', 'w').close()
sys.stdin.read()
";
    let place = Place::demo();
    let site = place.start(&[]);
    fs::remove_dir_all(place.path("run")).unwrap();
    fs::create_dir(place.path("run")).unwrap();
    let mut holder = Command::new("python3");
    holder.args(["-c", HOLDER]).current_dir(&place.dir);
    let mut holder = holder.stdin(Stdio::piped()).spawn().unwrap();
    wait_until(20, "somebody has the lock", || place.path("held").exists());
    signal(site.pid, "USR1");
    place.wait_for_log("cannot renew ");
    assert!(!place.path("run/app.sock").exists());
    drop(holder.stdin.take());
    holder.wait().unwrap();
    wait_until(20, "all is there again", || {
        place.pid() == Some(site.pid) && place.path("run/app.sock").exists()
    });
    assert_eq!(place.log().matches("cannot renew ").count(), 1);
    let said = place.app(&["restart"]).ok();
    assert!(
        said.contains(&format!("restarted, pid {}", site.pid)),
        "{said}"
    );
    place.app(&["stop"]).ok();
}

#[test]
fn what_a_hang_up_makes_anew_is_said_where_somebody_looks() {
    let place = Place::demo();
    let site = place.start(&[]);
    fs::remove_dir_all(place.path("run")).unwrap();
    signal(site.pid, "HUP");
    place.wait_for_log("restarted, pid ");
    let log = place.log();
    for name in ["app.lock", "app.pid", "app.sock"] {
        assert!(
            log.contains(&format!("run/{name} was gone: made anew")),
            "{log}"
        );
    }
    place.app(&["stop"]).ok();
}
