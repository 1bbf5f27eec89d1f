//! What goes wrong in life: full disks, read-only ones, closed outputs, files in the way.

use crate::look::{boxed, has_namespaces, nothing_left, own_address};
use crate::support::{Place, Site, run};
use std::fs;
use std::net::TcpListener;

const START: [&str; 5] = ["app", "start", "--daemon", "--address", "127.0.0.1:0"];

/// Both ways to start fail with this line, and leave nothing.
#[track_caller]
fn start_fails(place: &Place, line: &str) {
    let address = own_address();
    for daemon in ["--daemon=true", "--daemon=false"] {
        let said = place
            .app(&["start", daemon, "--address", &address])
            .failed(1);
        assert_eq!(said, format!("hade: {line}\n"), "{daemon}");
        assert_eq!(crate::support::working_in(&place.dir), []);
        TcpListener::bind(&address).expect("the port is free");
    }
}

#[test]
fn a_file_where_a_directory_should_be() {
    let place = Place::new();
    place.write("run", "");
    start_fails(
        &place,
        "cannot make the directory run: File exists (os error 17)",
    );
    assert_eq!(fs::read_dir(&place.dir).unwrap().count(), 1);
}

#[test]
fn a_directory_where_a_file_should_be() {
    let place = Place::new();
    fs::create_dir_all(place.path("run/app.pid")).unwrap();
    start_fails(&place, "cannot write run/app.pid: it is a directory");

    let place = Place::new();
    fs::create_dir_all(place.path("run/app.log")).unwrap();
    let said = place.app(&START[1..]).failed(1);
    assert_eq!(said, "hade: cannot write run/app.log: it is a directory\n");
    nothing_left(&place);
}

#[test]
fn a_base_directory_that_is_not_there() {
    let place = Place::new();
    let base = ["--base-dir", "none"];
    assert_eq!(
        place.app(&[&START[1..], &base].concat()).failed(1),
        "hade: cannot enter the base directory none: No such file or directory (os error 2)\n"
    );
    assert!(!place.path("none").exists());
}

#[test]
fn a_run_directory_that_may_not_be_written_to() {
    if !(crate::look::is_root() && crate::support::has("setpriv")) {
        return;
    }
    let place = crate::look::open_to_all();
    let nobody = |args: &[&str]| {
        let mut command = std::process::Command::new(crate::look::AS_NOBODY[0]);
        command
            .args(&crate::look::AS_NOBODY[1..])
            .arg(place.path("hade"));
        run(command.args(args).current_dir(&place.dir))
    };
    assert_eq!(
        nobody(&START).failed(1),
        "hade: cannot make the directory run: Permission denied (os error 13)\n"
    );
    crate::commands::state::make_public(&place);
    assert_eq!(
        nobody(&START).failed(1),
        "hade: cannot write run/app.lock: Permission denied (os error 13); it belongs to uid 0, this is uid 65534\n"
    );
    nothing_left(&place);
}

#[test]
fn a_read_only_file_system() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("site")).unwrap();
    // Nobody is left, says ps, but the shell and itself; the last word is the exit status.
    let script = r#"
        mount -t tmpfs none site
        mkdir site/run
        mount -o remount,ro site
        for daemon in true false; do
            "$0" "$@" --daemon=$daemon && exit 9 || echo "exit $?"
        done
        ps -eo comm= | grep -c hade || true
    "#;
    let args = [
        "app",
        "start",
        "--address",
        "127.0.0.1:0",
        "--base-dir",
        "site",
    ];
    let said = run(&mut place.wrapped(&boxed(script), &args));
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "exit 1\nexit 1\n0\n"),
        "{}",
        said.err
    );
    let line = "hade: cannot write site/run/app.lock: Read-only file system (os error 30)\n";
    assert_eq!(said.err, line.repeat(2));
}

#[test]
fn a_disk_that_is_full_at_start_is_said_before_detaching() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("site")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=8k none site
        head -c 8192 /dev/zero > site/fill
        for daemon in true false; do
            "$0" "$@" --daemon=$daemon && exit 9 || echo "exit $?"
            "$0" app state --base-dir site || echo "state $?"
        done
        ps -eo comm= | grep -c hade || true
        ls site/run
        rm site/fill
        "$0" "$@" --daemon > /dev/null
        "$0" app stop --base-dir site > /dev/null
    "#;
    let args = [
        "app",
        "start",
        "--address",
        "127.0.0.1:0",
        "--base-dir",
        "site",
    ];
    let said = run(&mut place.wrapped(&boxed(script), &args));
    let line = "hade: start failed: cannot write site/run/app.pid: No space left on device (os error 28)\n";
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(0), line.repeat(2).as_str()),
        "{}",
        said.out
    );
    // The log of the foreground is the standard output.
    let lines: Vec<&str> = said
        .out
        .lines()
        .filter(|line| !line.contains("Z "))
        .collect();
    assert_eq!(
        lines,
        [
            "exit 1",
            "hade: not running",
            "state 3",
            "exit 1",
            "hade: not running",
            "state 3",
            "0",
            "app.lock",
            "app.log",
            "app.pid"
        ]
    );
}

#[test]
fn a_full_log_does_not_stop_the_service() {
    let place = Place::new();
    let site = place.start(&["--set", "log_file=/dev/full"]);
    for _ in 0..3 {
        assert_eq!(site.get("/demo/demo").status, 200);
    }
    place.app(&["stop"]).ok();
    nothing_left(&place);

    let mut front = place.foreground(&["--set", "log_file=/dev/full"]);
    assert_eq!(front.site.get("/").status, 200);
    front.signal("TERM");
    assert_eq!(front.end(), Some(0));
}

#[test]
fn a_disk_that_fills_up_later_does_not_stop_the_service_and_the_loss_is_counted() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("site")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=64k none site
        "$0" "$@" > /dev/null
        pid=$(cat site/run/app.pid)
        cat /dev/zero > site/fill 2> /dev/null || true
        # What is left of the log's last block has to be filled too: a hang-up is a line in the log.
        for round in $(seq 100); do kill -HUP $pid; "$0" app state --base-dir site > /dev/null; done
        rm site/fill
        kill -HUP $pid
        "$0" app stop --base-dir site
        cat site/run/app.log
    "#;
    let args = [
        "app",
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--base-dir",
        "site",
    ];
    let text = run(&mut place.wrapped(&boxed(script), &args)).ok();
    assert!(text.starts_with("hade: stopped pid "), "{text}");
    assert!(
        text.contains(" log lines before this one were lost\n"),
        "{text}"
    );
    assert!(
        text.ends_with(" stopped, 0 requests finished, 0 cut\n"),
        "{text}"
    );
}

#[test]
fn closed_outputs_are_the_callers_choice() {
    let place = Place::new();
    let shell = |script: &str, args: &[&str]| run(&mut place.wrapped(&["sh", "-c", script], args));
    // Started with nothing open at all.
    let said = shell("exec \"$0\" \"$@\" <&- >&- 2>&-", &START);
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (Some(0), "", "")
    );
    let pid = place.pid().unwrap();
    let log = place.path("run/app.log").display().to_string();
    let open = crate::look::descriptors(pid);
    assert_eq!(
        open[..3],
        [(0, "/dev/null".to_owned()), (1, log.clone()), (2, log)]
    );
    for script in ["exec \"$0\" \"$@\" >&-", "\"$0\" \"$@\" | true"] {
        shell(script, &["app", "state"]).ok();
        shell(script, &["app", "check"]).ok();
        shell(script, &["--help"]).ok();
    }
    // A full disk is nobody's choice. What was asked for is missing then; what was to be done is done.
    let full = "exec \"$0\" \"$@\" >/dev/full";
    let why = "hade: cannot write to the standard output: No space left on device (os error 28)\n";
    assert_eq!(shell(full, &["app", "state"]).failed(4), why);
    assert_eq!(shell(full, &["app", "state", "--json"]).failed(4), why);
    assert_eq!(shell(full, &["app", "check"]).failed(1), why);
    assert_eq!(shell(full, &["--help"]).failed(1), why);
    for action in [
        &["app", "state", "--probe"][..],
        &["app", "restart"],
        &["app", "stop"],
        &START,
    ] {
        let said = shell(full, action);
        assert_eq!((said.code, said.err.as_str()), (Some(0), why), "{action:?}");
    }
    for script in ["exec \"$0\" \"$@\" 2>&-", "exec \"$0\" \"$@\" 2>/dev/full"] {
        let said = shell(script, &START);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{script}");
        let said = shell(script, &["app", "none"]);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{script}");
    }
    let said = shell("exec \"$0\" \"$@\" >&- 2>&-", &["app", "stop"]);
    assert_eq!(said.code, Some(0));
    nothing_left(&place);
}

#[test]
fn a_foreground_whose_output_nobody_reads_any_more_goes_on() {
    let place = Place::new();
    let mut front = place.foreground(&[]);
    drop((front.child.stdout.take(), front.child.stderr.take()));
    for _ in 0..3 {
        assert_eq!(front.site.get("/").status, 200);
    }
    place.app(&["stop"]).ok();
    assert_eq!(front.end(), Some(0));
}

#[test]
fn a_foreground_with_every_output_closed_serves() {
    let place = Place::new();
    let address = own_address();
    let args = ["app", "start", "--address", &address];
    let script = "exec \"$0\" \"$@\" <&- >&- 2>&-";
    let mut child = place.wrapped(&["sh", "-c", script], &args).spawn().unwrap();
    crate::support::wait_until(5, "the pid file", || place.pid() == Some(child.id()));
    let site = Site {
        pid: child.id(),
        url: format!("http://{address}"),
    };
    assert_eq!(site.get("/").status, 200);
    place.app(&["stop"]).ok();
    assert!(child.wait().unwrap().success());
}

#[test]
fn few_descriptors_are_an_error_or_enough_and_never_a_hang() {
    for limit in [3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 24, 32] {
        let place = Place::new();
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let said = run(&mut place.wrapped(&["sh", "-c", &script], &START));
        match said.code {
            Some(0) => {
                assert_eq!(Site::of(&said.out).get("/").status, 200, "{limit}");
                place.app(&["stop"]).ok();
            }
            // Where the program itself cannot be loaded the loader says so, with 127.
            Some(127) => {}
            code => {
                assert_eq!(
                    (code, said.out.as_str()),
                    (Some(1), ""),
                    "{limit}: {said:?}"
                );
                assert!(
                    said.err.starts_with("hade: ") && said.err.lines().count() == 1,
                    "{limit}: {said:?}"
                );
            }
        }
        nothing_left(&place);
    }
}

#[test]
fn a_log_that_is_a_socket_is_said_at_start() {
    let place = Place::new();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    std::os::unix::fs::symlink("socket", place.path("log")).unwrap();
    let args = [&START[1..], &["--set", "log_file=log"]].concat();
    let said = place.app(&args).failed(1);
    assert!(
        said.starts_with("hade: cannot write log: it is a socket; "),
        "{said}"
    );
}

#[test]
fn a_log_that_is_a_pipe_without_a_reader_is_said_at_start() {
    if !crate::support::has("mkfifo") {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("run")).unwrap();
    let fifo = place.path("run/app.log");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        place.app(&START[1..]).failed(1),
        "hade: cannot write run/app.log: nobody reads this FIFO; start its reader first\n"
    );
    nothing_left(&place);
}

#[test]
fn a_device_as_pid_file_is_refused_and_keeps_its_mode() {
    let place = Place::new();
    let device = std::path::Path::new("/dev/full");
    let before = crate::look::mode(device);
    let device_as_pid_file = ["--set", "pid_file=/dev/full"];
    assert_eq!(
        place
            .app(&[&START[1..], &device_as_pid_file].concat())
            .failed(1),
        "hade: cannot write /dev/full: it is not a regular file\n"
    );
    assert_eq!(crate::look::mode(device), before);
    assert!(!std::path::Path::new("/dev/full.lock").exists());
}

#[test]
fn a_removed_working_directory_is_an_error_in_words() {
    let place = Place::new();
    fs::create_dir(place.path("gone")).unwrap();
    let script = "cd gone && rmdir ../gone && exec \"$0\" \"$@\"";
    let said = run(&mut place.wrapped(&["sh", "-c", script], &START)).failed(1);
    assert_eq!(
        said,
        "hade: cannot find .: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_log_that_is_removed_or_cannot_be_opened_anew_does_not_stop_the_service() {
    let place = Place::new();
    let site = place.start(&[]);
    fs::remove_dir_all(place.path("run")).unwrap();
    place.write("run", "in the way");
    crate::support::signal(site.pid, "USR1");
    for _ in 0..3 {
        assert_eq!(site.get("/").status, 200);
    }
    fs::remove_file(place.path("run")).unwrap();
    // The pid file is gone and with it the way to find the master; it still hears signals.
    crate::support::signal(site.pid, "TERM");
    crate::support::wait_until(5, "it leaves", || {
        crate::support::working_in(&place.dir).is_empty()
    });
}
