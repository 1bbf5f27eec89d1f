//! `app state`: what it says, and the exit status that goes with it.

use crate::look::{AS_NOBODY, boxed, has_namespaces, is_root, open_to_all};
use crate::support::{Place, freeze, has, run, signal, wait_until, working_in};

#[test]
fn running_is_0_and_not_running_is_3() {
    let place = Place::new();
    let said = place.app(&["state"]);
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (
            Some(3),
            "hade: not running; no pid file and no socket in run/\n",
            ""
        )
    );
    assert!(!place.path("run").exists(), "a look makes nothing");
    let site = place.start(&[]);
    let running = format!("hade: running, pid {}, on {}\n", site.pid, site.url);
    let said = place.app(&["state"]).ok();
    assert!(said.starts_with(&running), "{said}");
    place.app(&["stop"]).ok();
    let said = place.app(&["state"]);
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (Some(3), "hade: not running\n", "")
    );
}

#[test]
fn dead_with_its_number_in_the_file_is_1() {
    let place = Place::new();
    let site = place.start(&[]);
    signal(site.pid, "KILL");
    wait_until(5, "the worker leaves", || working_in(&place.dir).is_empty());
    let said = place.app(&["state"]);
    assert_eq!(
        (said.code, said.out, said.err.as_str()),
        (
            Some(1),
            format!(
                "hade: not running; run/app.pid names pid {}, which is not it\n",
                site.pid
            ),
            ""
        )
    );
}

#[test]
fn a_file_that_cannot_be_read_is_4_and_not_said_to_be_not_running() {
    if !(is_root() && has("setpriv")) {
        return;
    }
    let place = open_to_all();
    place.start(&[]);
    let program = place.path("hade");
    let before = [&AS_NOBODY[..], &[program.to_str().unwrap()]].concat();
    // run/ is 0750: nobody else may even look.
    for (command, code) in [("state", 4), ("stop", 1), ("restart", 1)] {
        let said = run(std::process::Command::new(before[0])
            .args(&before[1..])
            .args(["app", command])
            .current_dir(&place.dir))
        .failed(code);
        assert_eq!(
            said,
            "hade: cannot tell who runs: cannot read run/app.lock: Permission denied (os error 13); it belongs to uid 0, this is uid 65534\n",
            "{command}"
        );
    }
    place.app(&["stop"]).ok();
}

#[test]
fn whether_somebody_elses_master_runs_cannot_be_told() {
    if !(is_root() && has("setpriv")) {
        return;
    }
    let place = open_to_all();
    make_public(&place);
    place.start(&[]);
    let program = place.path("hade");
    let said = run(std::process::Command::new(AS_NOBODY[0])
        .args(&AS_NOBODY[1..])
        .arg(program)
        .args(["app", "state"])
        .current_dir(&place.dir));
    assert_eq!(
        said.failed(4),
        "hade: cannot tell who runs: cannot read run/app.lock: Permission denied (os error 13); it belongs to uid 0, this is uid 65534\n"
    );
}

#[test]
fn a_master_that_does_not_answer_is_4() {
    let place = Place::new();
    let site = place.start(&[]);
    freeze(site.pid);
    let said = place.app(&["state"]).failed(4);
    signal(site.pid, "CONT");
    assert!(
        said.starts_with(&format!(
            "hade: pid {} is alive but does not answer: run/app.sock: ",
            site.pid
        )) && said.lines().count() == 1,
        "{said}"
    );
    place.app(&["state"]).ok();
}

/// A `run/` that everybody may enter.
pub fn make_public(place: &Place) {
    use std::os::unix::fs::PermissionsExt;
    let run = place.path("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_runs_in_another_pid_namespace_is_4_and_never_signalled() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    let site = place.start(&[]);
    let hidden = "hade: run/app.lock is locked by a process that cannot be seen from here (another container or host); ask there\n";
    for (command, code) in [("state", 4), ("stop", 1), ("restart", 1)] {
        let mut inside = place.wrapped(&boxed("exec \"$0\" \"$@\""), &["app", command]);
        assert_eq!(run(&mut inside).failed(code), hidden, "{command}");
    }
    let start = ["app", "start", "--address", "127.0.0.1:0"];
    let mut inside = place.wrapped(&boxed("\"$0\" \"$@\"; exit $?"), &start);
    assert_eq!(
        run(&mut inside).failed(1),
        "hade: already running: run/app.lock is locked by a process that cannot be seen from here (another container or host)\n"
    );
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn a_path_that_is_no_file_is_4() {
    let place = Place::new();
    place.write("run", "");
    let said = place.app(&["state"]).failed(4);
    assert_eq!(
        said,
        "hade: cannot tell who runs: cannot read run/app.lock: Not a directory (os error 20)\n"
    );
}
