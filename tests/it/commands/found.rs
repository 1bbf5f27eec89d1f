//! What the commands find where files are missing, odd or not theirs: the service that runs, or words that say why not.

use crate::look::{AS_NOBODY, boxed, has_namespaces, is_root, open_to_all};
use crate::support::{Meanwhile, Place, Site, has, run, signal, wait_until, worker, working_in};
use std::fs;

fn remove(place: &Place, names: &[&str]) {
    for name in names {
        fs::remove_file(place.path(name)).unwrap();
    }
}

#[test]
fn what_runs_is_found_by_its_lock_or_by_its_socket() {
    for gone in [
        &["run/app.pid"][..],
        &["run/app.lock"],
        &["run/app.pid", "run/app.lock"],
    ] {
        let place = Place::demo();
        let site = place.start(&[]);
        remove(&place, gone);
        let state = place.app(&["state"]).ok();
        assert!(
            state.starts_with(&format!("demo: running, pid {}, ", site.pid)),
            "{gone:?}: {state}"
        );
        place.app(&["state", "--probe"]).ok();
        let before = worker(site.pid);
        place.app(&["restart"]).ok();
        assert_ne!(worker(site.pid), before, "{gone:?}");
        let said = place.app(&["stop"]).ok();
        assert!(
            said.starts_with(&format!("demo: stopped pid {} ", site.pid)),
            "{gone:?}: {said}"
        );
        wait_until(5, "it is gone", || working_in(&place.dir).is_empty());
    }
    // The socket gone: the lock names it, and signals reach it.
    let place = Place::demo();
    let site = place.start(&[]);
    remove(&place, &["run/app.sock", "run/app.pid"]);
    let said = place.app(&["stop"]).ok();
    assert!(
        said.starts_with(&format!("demo: stopped pid {} ", site.pid)),
        "{said}"
    );
}

#[test]
fn where_there_is_neither_pid_file_nor_socket_that_is_said() {
    let place = Place::new();
    for (command, code) in [("state", 3), ("stop", 0)] {
        let said = place.app(&[command]);
        assert_eq!(
            (said.code, said.out.as_str(), said.err.as_str()),
            (
                Some(code),
                "hade: not running; no pid file and no socket in run/\n",
                ""
            )
        );
        let apart = place.app(&[command, "--set", "pid_file=x.pid"]);
        assert_eq!(
            apart.out,
            "hade: not running; no x.pid and no run/app.sock\n"
        );
    }
}

#[test]
fn one_socket_for_two_pid_files_stops_nobody_by_mistake() {
    let place = Place::demo();
    let site = place.start(&[]);
    let other = ["--set", "pid_file=run/other.pid"];
    for (command, code) in [("stop", 1), ("state", 4)] {
        let said = place.app(&[&[command], &other[..]].concat()).failed(code);
        let why = format!(
            "run/app.sock is that of pid {}, whose pid file is ",
            site.pid
        );
        assert!(said.contains(&why), "{said}");
    }
    assert_eq!(site.get("/hello").status, 200);
}

/// As versions from before the lock's own file do.
#[test]
fn a_master_that_does_not_name_its_pid_file_is_told_of() {
    use std::io::{BufRead, BufReader, Write};
    let place = Place::new();
    std::fs::create_dir(place.path("run")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(place.path("run/app.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = BufReader::new(&stream).read_line(&mut String::new());
            let _ = stream.write_all(b"pid\t1\ngeneration\t1\n");
        }
    });
    let own = std::process::id();
    let why = format!(
        "hade: cannot tell who runs: run/app.sock is that of pid {own}, which does not name its pid file; \
         if that is an earlier version, its own \"app stop\" ends it, or TERM\n"
    );
    for (command, code) in [("state", 4), ("restart", 1), ("stop", 1)] {
        assert_eq!(place.app(&[command]).failed(code), why);
    }
}

#[test]
fn a_socket_that_does_not_answer_is_not_said_to_be_not_running() {
    let place = Place::demo();
    let site = place.start(&[]);
    remove(&place, &["run/app.lock"]);
    crate::support::freeze(site.pid);
    let state = place.app(&["state"]).failed(4);
    let stop = place.app(&["stop"]).failed(1);
    signal(site.pid, "CONT");
    for said in [state, stop] {
        assert!(
            said.starts_with(
                "demo: cannot tell who runs: nobody holds the lock, and run/app.sock: no answer"
            ),
            "{said}"
        );
    }
    place.app(&["stop"]).ok();
}

#[test]
fn where_run_is_gone_and_the_port_is_taken_it_is_said_who_serves_there() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=1"]);
    fs::remove_dir_all(place.path("run")).unwrap();
    let address = site.address();
    for command in [
        &["restart", "--address", address][..],
        &["start", "-d", "--address", address],
    ] {
        let said = place.app(command).failed(1);
        assert_eq!(
            said,
            format!(
                "demo: cannot listen on {address}: Address already in use (os error 98); pid {} serves there, a master of this kind; end it, or choose another with --address\n",
                site.pid
            )
        );
    }
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn a_settings_file_that_is_no_file_hangs_nobody() {
    let place = Place::new();
    place.sh("mkdir etc && mkfifo etc/app.conf", &[]);
    for (command, code) in [
        ("start", 1),
        ("check", 1),
        ("restart", 1),
        ("state", 1),
        ("stop", 1),
    ] {
        let done = Meanwhile::new(place.command(&["app", command])).end(10);
        assert_eq!(
            done.failed(code),
            "hade: cannot read etc/app.conf: it is not a regular file\n",
            "{command}"
        );
    }
    // A link is followed.
    place.sh("rm etc/app.conf && ln -s ../real.conf etc/app.conf && echo 'app.address = 127.0.0.1:0' >real.conf", &[]);
    Site::of(&place.app(&["start", "-d"]).ok());
    // With what runs a broken file is in nobody's way, a FIFO included.
    place.sh("rm etc/app.conf && mkfifo etc/app.conf", &[]);
    let state = Meanwhile::new(place.command(&["app", "state"])).end(10);
    state.ok();
    Meanwhile::new(place.command(&["app", "stop"])).end(10).ok();
}

#[test]
fn a_broken_settings_file_and_no_log_do_not_hide_what_runs() {
    for broken in ["app.nonsense = 1\n", "\0", "app.workers"] {
        let place = Place::demo();
        let with_log = |args: &[&str]| {
            let mut command = place.command(&[&["app"], args].concat());
            command.env("APP_LOG_FILE", "/dev/null");
            run(&mut command)
        };
        with_log(&["start", "-d", "--address", "127.0.0.1:0"]).ok();
        place.write("etc/app.conf", broken);
        with_log(&["state"]).ok();
        with_log(&["stop"]).ok();
    }
}

#[test]
fn what_runs_is_found_by_the_good_lines_of_a_file_with_mistakes() {
    let place = Place::demo();
    let good = "app.pid_file = run/other.pid\napp.socket = run/other.sock\n";
    place.write("etc/app.conf", good);
    place.start(&[]);
    for broken in [
        "app.nonsense = 1\n",
        "\0\n",
        "app.workers\n",
        "app.pid_file = run/third.pid\n",
        "app.socket = /dev/null #\n",
    ] {
        place.write("etc/app.conf", [good, broken].concat());
        place.app(&["state"]).ok();
        // What changes something reads all of it.
        let said = place.app(&["restart"]).failed(1);
        assert!(said.starts_with("demo: etc/app.conf:3: "), "{said}");
    }
    place.app(&["stop"]).ok();
}

#[test]
fn where_dev_null_is_a_file_with_something_in_it_commands_work() {
    if !has_namespaces() {
        return;
    }
    let place = Place::demo();
    let script = r#"
        echo 'app.nonsense = here' >junk
        mount --bind junk /dev/null
        "$0" "$@"
        echo 'app.other = nonsense' >etc/app.conf
        "$0" app state
        "$0" app restart || echo "restart $?"
        rm etc/app.conf
        "$0" app restart
        "$0" app state --probe
        "$0" app stop
    "#;
    fs::create_dir(place.path("etc")).unwrap();
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let said = run(&mut place.wrapped(&boxed(script), &args));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out.contains("restart 1\n") && said.out.contains("demo: healthy\n"),
        "{said:?}"
    );
    assert!(
        said.out.contains("demo: restarted, pid ") && said.out.contains("demo: stopped pid "),
        "{said:?}"
    );
}

#[test]
fn a_probe_by_another_user_cannot_tell_and_is_1() {
    if !(is_root() && has("setpriv")) {
        return;
    }
    for is_open in [false, true] {
        let place = open_to_all();
        if is_open {
            crate::commands::state::make_public(&place);
        }
        place.start(&[]);
        let said = run(std::process::Command::new(AS_NOBODY[0])
            .args(&AS_NOBODY[1..])
            .arg(place.path("hade"))
            .args(["app", "state", "--probe"])
            .current_dir(&place.dir));
        let said = said.failed(1);
        assert!(
            said.starts_with(
                "hade: cannot tell who runs: cannot read run/app.lock: Permission denied"
            ),
            "{said}"
        );
        place.app(&["stop"]).ok();
    }
}

#[test]
fn an_address_finds_nobody() {
    let place = Place::demo();
    let site = place.start(&[]);
    for command in ["stop", "state"] {
        for flag in ["--address=127.0.0.1:1", "--set=app.address=127.0.0.1:1"] {
            let said = place.app(&[command, flag]);
            assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
            assert!(said.err.starts_with("demo: no address is needed here: what runs is found by its directory, --base-dir or the current one\n"), "{said:?}");
        }
    }
    // That of the environment is for the next start.
    let mut command = place.command(&["app", "state"]);
    run(command.env("ADDRESS", "127.0.0.1:1")).ok();
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn a_log_may_be_a_device_or_a_link_to_one_and_no_link_to_a_file() {
    let place = Place::demo();
    let mode = crate::look::mode(std::path::Path::new("/dev/null"));
    place.sh(
        "mkdir run && ln -s /dev/null run/null && ln -s ../other run/link && touch other",
        &[],
    );
    for log in ["log_file=/dev/null", "log_file=run/null"] {
        let site = place.start(&["--set", log]);
        assert_eq!(site.get("/hello").status, 200);
        place.app(&["restart"]).ok();
        place.app(&["stop"]).ok();
    }
    assert_eq!(crate::look::mode(std::path::Path::new("/dev/null")), mode);
    let said = place
        .app(&[
            "start",
            "-d",
            "--address",
            "127.0.0.1:0",
            "--set",
            "log_file=run/link",
        ])
        .failed(1);
    assert_eq!(
        said,
        "demo: cannot write run/link: it is a symbolic link, and those are not followed here; name what it leads to\n"
    );
    // Whoever sent the standard output to a file meant that file.
    let script = "\"$0\" \"$@\" >>out && cat out";
    let args = [
        "app",
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--set",
        "log_file=/dev/stdout",
    ];
    let said = run(&mut place.wrapped(&["sh", "-c", script], &args)).ok();
    assert!(said.contains(" started on http://"), "{said}");
}

#[test]
fn without_proc_what_runs_is_found_all_the_same() {
    if !has_namespaces() {
        return;
    }
    let place = Place::demo();
    let script = r#"
        mount -t tmpfs none /proc
        "$0" "$@"
        "$0" app state
        "$0" app state --probe
        "$0" app stop
    "#;
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let said = run(&mut place.wrapped(&boxed(script), &args));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert!(
        said.out.contains("demo: running, pid ") && said.out.contains("demo: stopped pid "),
        "{said:?}"
    );
}
