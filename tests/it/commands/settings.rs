//! Bad words and bad settings: what is said, with which exit status, and that nothing happened.

use crate::support::{Place, run};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_good_file_is_good() {
    let place = Place::new();
    place.write("etc/app.conf", fixture("good.conf"));
    assert_eq!(
        place.app(&["check"]).ok(),
        "hade: settings are good, address 127.0.0.1:0\n"
    );
    let text = place.app(&["start", "-d"]).ok();
    assert!(text.contains("\n  config   etc/app.conf\n"), "{text}");
    let site = crate::support::Site::of(&text);
    assert_eq!(crate::support::workers(site.pid).len(), 2);
}

#[test]
fn the_file_that_comes_with_it_is_good_and_says_the_defaults() {
    let place = Place::new();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/app.conf");
    let text = fs::read_to_string(ours).unwrap();
    place.write("etc/app.conf", &text);
    place.app(&["check"]).ok();
    // With every comment sign before a key taken away it is still good, and says what the help says.
    let bare = text.replace("#app.", "app.");
    place.write("etc/app.conf", &bare);
    assert_eq!(
        place.app(&["check"]).ok(),
        "hade: settings are good, address :8888\n"
    );
    let help = place.app(&["start", "--help"]).ok();
    let keys: Vec<(&str, &str)> = bare
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" ="))
        .map(|(key, default)| (key, default.trim_start()))
        .collect();
    // Two more have names that go on as one likes, and no default.
    let in_help = |line: &&str| line.starts_with("  app.") && line.contains("; default ");
    assert_eq!(help.lines().filter(in_help).count(), keys.len());
    for (key, default) in keys {
        let line = help
            .lines()
            .find(|line| line.starts_with(&format!("  {key} ")))
            .unwrap_or_else(|| panic!("{key} is not in the help"));
        let default = if default.is_empty() { "none" } else { default };
        assert!(line.ends_with(&format!("; default {default}")), "{line}");
    }
}

#[test]
fn each_mistake_in_the_file_is_said_with_its_line() {
    for (name, line, why) in [
        (
            "unknown-key.conf",
            2,
            "unknown key \"app.clsoe_wait\"; did you mean \"app.close_wait\"?",
        ),
        (
            "missing-equals.conf",
            2,
            "expected key = value, found \"app.close_wait 5\"",
        ),
        (
            "bad-number.conf",
            2,
            "app.close_wait \"5s\": expected whole seconds, 0 to 3600",
        ),
        (
            "out-of-range.conf",
            1,
            "app.workers \"65\": expected a whole number, 1 to 64",
        ),
        (
            "duplicate-key.conf",
            3,
            "duplicate key \"app.workers\"; it is on line 1",
        ),
        ("not-utf-8.conf", 2, "expected UTF-8"),
        (
            "comment-behind.conf",
            1,
            "app.workers \"1 # one\": a comment needs a line of its own",
        ),
        (
            "bad-level.conf",
            1,
            "app.log_level \"loud\": expected error, warn, info or debug",
        ),
        ("no-key.conf", 1, "expected a key before the \"=\""),
        ("control-character.conf", 1, "control character U+0000"),
    ] {
        let place = Place::new();
        place.write("etc/app.conf", fixture(name));
        let expected = format!("hade: etc/app.conf:{line}: {why}\n");
        for command in ["check", "start", "state", "stop", "restart"] {
            assert_eq!(
                place.app(&[command]).failed(1),
                expected,
                "{name} {command}"
            );
        }
        let daemon = place.app(&["start", "--daemon"]).failed(1);
        assert_eq!(daemon, expected);
        // The same file under another name.
        place.write("x.conf", fixture(name));
        let said = place.app(&["check", "--config", "x.conf"]).failed(1);
        assert_eq!(said, format!("hade: x.conf:{line}: {why}\n"));
        assert!(!place.path("run").exists(), "nothing was made");
    }
}

#[test]
fn what_is_no_file_at_all_is_said_with_its_path() {
    let place = Place::new();
    fs::create_dir_all(place.path("etc/app.conf")).unwrap();
    assert_eq!(
        place.app(&["start"]).failed(1),
        "hade: cannot read etc/app.conf: Is a directory (os error 21)\n"
    );
    assert_eq!(
        place.app(&["start", "--config", "/dev/zero"]).failed(1),
        "hade: cannot read /dev/zero: it is not a regular file; named by --config\n"
    );
    assert_eq!(
        run(place.command(&["app", "start"]).env("APP_CONFIG", "none")).failed(1),
        "hade: cannot read none: No such file or directory (os error 2); named by APP_CONFIG\n"
    );
    let place = Place::new();
    fs::create_dir(place.path("etc")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("etc/app.conf")).unwrap();
    assert_eq!(
        place.app(&["start"]).failed(1),
        "hade: cannot read etc/app.conf: No such file or directory (os error 2)\n"
    );
}

#[test]
fn wrong_words_are_usage_and_exit_2() {
    let place = Place::new();
    for (args, line, usage) in [
        (&[][..], "no command given", "app <command> [<options>]"),
        (
            &["ap"],
            "unknown command \"ap\"",
            "app <command> [<options>]",
        ),
        (
            &["start"],
            "unknown command \"start\"; did you mean \"app start\"?",
            "app <command> [<options>]",
        ),
        (&["app"], "no command given", "app <command> [<options>]"),
        (
            &["app", "strat"],
            "unknown command \"strat\"; did you mean \"start\"?",
            "app <command> [<options>]",
        ),
        (
            &["app", "start", "--deamon"],
            "unknown option \"--deamon\"; did you mean \"--daemon\"?",
            "app start [-d]",
        ),
        (
            &["app", "start", "--daemon=maybe"],
            "--daemon \"maybe\": expected true or false",
            "app start [-d]",
        ),
        (
            &["app", "start", "--address"],
            "option \"--address\" needs a value",
            "app start [-d]",
        ),
        (
            &["app", "start", ":8080"],
            "unexpected argument \":8080\"",
            "app start [-d]",
        ),
        (
            &["app", "stop", "--daemon"],
            "unknown option \"--daemon\"",
            "app stop [--force]",
        ),
        (
            &["app", "state", "--set", "close_wait"],
            "--set \"close_wait\": expected KEY=VALUE",
            "app state",
        ),
        (
            &["app", "restart", "--force"],
            "unknown option \"--force\"",
            "app restart [--cold]",
        ),
    ] {
        let said = run(&mut place.command(args)).failed(2);
        assert!(
            said.starts_with(&format!("hade: {line}\nUsage: hade {usage}")) && said.ends_with('\n'),
            "{args:?}: {said}"
        );
    }
    assert_eq!(fs::read_dir(&place.dir).unwrap().count(), 0);
}

#[test]
fn bad_values_of_flags_and_variables_are_one_line_and_exit_2() {
    let place = Place::new();
    for (name, value, why) in [
        ("close_wait", "5s", "expected whole seconds, 0 to 3600"),
        ("close_wait", "-1", "expected whole seconds, 0 to 3600"),
        ("workers", "0", "expected a whole number, 1 to 64"),
        ("max_body", "1M", "expected whole bytes, 0 to 1073741824"),
        ("log_level", "loud", "expected error, warn, info or debug"),
        ("pid_file", "run/", "expected the path of a file"),
    ] {
        let pair = format!("{name}={value}");
        assert_eq!(
            place.app(&["start", "--set", &pair]).failed(2),
            format!("hade: --set {pair:?}: {why}\n")
        );
        let variable = format!("APP_{}", name.to_uppercase());
        let mut command = place.command(&["app", "start"]);
        assert_eq!(
            run(command.env(&variable, value)).failed(2),
            format!("hade: {variable} {value:?}: {why}\n")
        );
    }
    assert_eq!(
        place.app(&["start", "--set", "adress=:1"]).failed(2),
        "hade: --set \"adress=:1\": unknown key \"adress\"; did you mean \"app.address\"?\n"
    );
    assert_eq!(
        place.app(&["start", "--base-dir", ""]).failed(2),
        "hade: --base-dir \"\": expected a path\n"
    );
}

#[test]
fn what_is_not_utf_8_is_said_so() {
    let place = Place::new();
    let odd = OsStr::from_bytes(b"\xff:80");
    let mut command = place.command(&["app", "start", "--address"]);
    let said = run(command.arg(odd)).failed(2);
    assert!(
        said.starts_with("hade: argument \"\u{fffd}:80\" is not UTF-8\nUsage: hade app start "),
        "{said}"
    );
    let mut command = place.command(&["app", "start"]);
    assert_eq!(
        run(command.env("ADDRESS", odd)).failed(2),
        "hade: ADDRESS \"\u{fffd}:80\": expected UTF-8\n"
    );
}

#[test]
fn help_and_version_go_to_standard_output_and_exit_0() {
    let place = Place::new();
    for (args, start) in [
        (&["--help"][..], "Usage: hade app <command>"),
        (&["help"], "Usage: hade app <command>"),
        (&["app", "--help"], "Usage: hade app <command>"),
        (&["app", "start", "-h"], "Usage: hade app start [-d]"),
        (&["app", "stop", "--help"], "Usage: hade app stop [--force]"),
        (
            &["--version"],
            concat!("hade ", env!("CARGO_PKG_VERSION"), "\n"),
        ),
    ] {
        let text = run(&mut place.command(args)).ok();
        assert!(text.starts_with(start), "{args:?}: {text}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let place = Place::new();
    let mut command = place.command(&["app", "check"]);
    let command = command
        .env("ADDRESS", "")
        .env("APP_CLOSE_WAIT", "")
        .env("APP_CONFIG", "");
    assert_eq!(
        run(command).ok(),
        "hade: settings are good, address :8888\n"
    );
}
