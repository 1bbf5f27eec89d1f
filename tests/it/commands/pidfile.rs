//! The pid file and the log file: modes, contents, and numbers that are not to be believed.

use crate::look::{Bystander, mode, nothing_left};
use crate::support::{Place, Site, has, run, signal, wait_until, working_in};
use std::fs;

const START: [&str; 5] = ["app", "start", "--daemon", "--address", "127.0.0.1:0"];

#[test]
fn the_modes_are_exact_whatever_the_umask() {
    for umask in ["077", "000", "777"] {
        let place = Place::new();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        run(&mut place.wrapped(&["sh", "-c", &script], &START)).ok();
        assert_eq!(mode(&place.path("run")), 0o750, "{umask}");
        assert_eq!(mode(&place.path("run/app.pid")), 0o664, "{umask}");
        assert_eq!(mode(&place.path("run/app.lock")), 0o600, "{umask}");
        assert_eq!(mode(&place.path("run/app.log")), 0o640, "{umask}");
        place.app(&["stop"]).ok();
        assert_eq!(mode(&place.path("run/app.pid")), 0o664, "{umask}");
    }
}

#[test]
fn the_modes_are_exact_in_the_foreground_too() {
    for umask in ["077", "000"] {
        let place = Place::new();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let args = [
            "app",
            "start",
            "--address",
            "127.0.0.1:0",
            "--set",
            "log_file=run/app.log",
        ];
        let command = place.wrapped(&["sh", "-c", &script], &args);
        let _front = crate::support::Foreground::of(command);
        assert_eq!(mode(&place.path("run/app.pid")), 0o664, "{umask}");
        assert_eq!(mode(&place.path("run/app.log")), 0o640, "{umask}");
        assert_eq!(mode(&place.path("run")), 0o750, "{umask}");
    }
}

#[test]
fn files_that_are_there_get_the_right_mode() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    for name in ["run/app.pid", "run/app.log"] {
        place.write(name, "");
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    place.start(&[]);
    assert_eq!(mode(&place.path("run/app.pid")), 0o664);
    assert_eq!(mode(&place.path("run/app.log")), 0o640);
}

#[test]
fn each_file_can_be_put_elsewhere_and_its_directories_are_made() {
    let place = Place::new();
    let elsewhere = [
        "--set",
        "pid_file=a/b/it.pid",
        "--set",
        "socket=e/it.sock",
        "--set",
        "log_file=c/d/it.log",
    ];
    let site = place.start(&elsewhere);
    assert_eq!(place.read("a/b/it.pid"), format!("{}\n", site.pid));
    assert!(place.read("c/d/it.log").contains(" started on http://"));
    assert!(!place.path("run").exists());
    for dir in ["a", "a/b", "c", "c/d", "e"] {
        assert_eq!(mode(&place.path(dir)), 0o750, "{dir}");
    }
    let args = [&["state"], &elsewhere[..4]].concat();
    assert!(
        place
            .app(&args)
            .ok()
            .starts_with(&format!("hade: running, pid {}, on ", site.pid))
    );
    place.app(&[&["stop"], &elsewhere[..4]].concat()).ok();
    assert_eq!(place.read("a/b/it.pid"), "");
}

#[test]
fn the_pid_file_holds_the_number_of_the_master_and_is_emptied_at_the_end() {
    let place = Place::new();
    place.write("run/app.pid", "something much longer than any number\n");
    let site = place.start(&[]);
    assert_eq!(place.read("run/app.pid"), format!("{}\n", site.pid));
    place.app(&["stop"]).ok();
    assert_eq!(place.read("run/app.pid"), "");
    assert!(place.path("run/app.pid").exists());
}

#[test]
fn one_file_for_pid_and_log_is_refused() {
    // It would lose its lock when the log is reopened, and its number at the first line.
    let place = Place::new();
    let same = ["--set", "pid_file=run/x", "--set", "log_file=run/x"];
    let said = place.app(&[&["start", "-d", "--address", "127.0.0.1:0"], &same[..]].concat());
    assert_ne!(said.code, Some(0), "{said:?}");
}

#[test]
fn a_log_line_is_time_level_pid_event() {
    let place = Place::new();
    let site = place.start(&[]);
    place.app(&["stop"]).ok();
    let log = place.log();
    for line in log.lines() {
        let mut words = line.splitn(4, ' ');
        let (time, level, pid, event) = (
            words.next().unwrap(),
            words.next().unwrap(),
            words.next().unwrap(),
            words.next().unwrap(),
        );
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line}");
        assert!(
            ["error", "warn", "info", "debug"].contains(&level),
            "{line}"
        );
        assert!(
            pid.parse::<u32>().is_ok_and(|pid| pid >= site.pid),
            "{line}"
        );
        assert!(!event.is_empty(), "{line}");
    }
    let first = log
        .lines()
        .find(|line| line.contains(" started on "))
        .unwrap();
    assert!(
        first.contains(&format!(" info {} started on {}, ", site.pid, site.url)),
        "{first}"
    );
    // The clock of the log is the clock of everybody, in UTC.
    if has("date") {
        let now = run(std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H"])).ok();
        let day = now.trim_end().split('T').next().unwrap();
        assert!(log.starts_with(day) || now.ends_with("T00\n"), "{now}{log}");
    }
}

/// What may stand in a pid file when nobody runs, and what is said of it.
fn odd_contents(bystander: u32) -> Vec<(String, i32, String)> {
    let garbage = "not running; run/app.pid holds no pid";
    let mut all: Vec<(String, i32, String)> = [
        "garbage",
        "0\n",
        "1\n",
        "-1\n",
        "0",
        "1",
        "-1",
        "+5",
        "4711 4712",
        "99999999999999999999",
        "4294967297",
        "-9223372036854775808",
        "\0",
        "0x10",
        "1.0",
        "\u{fffd}",
    ]
    .map(|text| (text.to_owned(), 3, garbage.to_owned()))
    .into();
    all.push((String::new(), 3, "not running".to_owned()));
    all.push((
        format!("{bystander}\n"),
        1,
        format!("not running; run/app.pid names pid {bystander}, which is not it"),
    ));
    all
}

#[test]
fn a_pid_file_that_nobody_holds_never_gets_anybody_signalled() {
    let mut bystander = Bystander::new();
    let traced = has("strace");
    for (content, code, text) in odd_contents(bystander.pid()) {
        let place = Place::new();
        place.write("run/app.pid", &content);
        for (command, code) in [("state", code), ("stop", 0)] {
            // Should it try after all, nothing is sent; what was tried is in the trace.
            let before = [
                "strace",
                "-fqqo",
                "trace",
                "-e",
                "trace=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo",
                "-e",
                "inject=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo:retval=0",
            ];
            let before = if traced { &before[..] } else { &[] };
            let said = run(&mut place.wrapped(before, &["app", command]));
            assert_eq!(
                (said.code, said.out, said.err),
                (Some(code), format!("hade: {text}\n"), String::new()),
                "{content:?}"
            );
            assert_eq!(place.read("trace"), "", "{content:?}");
        }
        assert_eq!(
            place.read("run/app.pid"),
            content,
            "it is the master's to empty"
        );
    }
    bystander.is_unharmed();
}

#[test]
fn a_restart_with_an_odd_pid_file_starts_and_harms_nobody() {
    let mut bystander = Bystander::new();
    for (content, ..) in odd_contents(bystander.pid()) {
        let place = Place::new();
        place.write("run/app.pid", &content);
        let text = place.app(&["restart", "--address", "127.0.0.1:0"]).ok();
        let site = Site::of(&text);
        assert_eq!(place.pid(), Some(site.pid), "{content:?}");
        assert_eq!(site.get("/").status, 200);
    }
    bystander.is_unharmed();
}

#[test]
fn a_number_that_went_to_a_stranger_is_not_the_master() {
    // The master was killed; its number is in the file, and now somebody else has it.
    let place = Place::new();
    let site = place.start(&[]);
    signal(site.pid, "KILL");
    wait_until(5, "the worker leaves", || working_in(&place.dir).is_empty());
    assert_eq!(place.read("run/app.pid"), format!("{}\n", site.pid));
    let said = place.app(&["state"]);
    assert_eq!(
        (said.code, said.out),
        (
            Some(1),
            format!(
                "hade: not running; run/app.pid names pid {}, which is not it\n",
                site.pid
            )
        )
    );
    let mut bystander = Bystander::new();
    place.write("run/app.pid", format!("{}\n", bystander.pid()));
    place.app(&["stop"]).ok();
    bystander.is_unharmed();
    place.start(&[]);
    bystander.is_unharmed();
}

#[test]
fn the_lock_names_the_master_whatever_the_file_says() {
    let mut bystander = Bystander::new();
    for content in ["", "garbage", "1\n", &format!("{}\n", bystander.pid())] {
        let place = Place::new();
        let site = place.start(&[]);
        place.write("run/app.pid", content);
        let said = place.app(&["state"]).ok();
        assert!(
            said.starts_with(&format!("hade: running, pid {}, on ", site.pid)),
            "{content:?}: {said}"
        );
        let said = place
            .app(&["start", "-d", "--address", "127.0.0.1:0"])
            .failed(1);
        assert!(
            said.starts_with(&format!("hade: already running, pid {}; ", site.pid)),
            "{said}"
        );
        let said = place.app(&["stop"]).ok();
        assert!(
            said.starts_with(&format!("hade: stopped pid {} after ", site.pid)),
            "{said}"
        );
        nothing_left(&place);
    }
    bystander.is_unharmed();
}
