//! What TAB does, in the shells themselves.

use crate::support::{HADE, Place, has, run};
use std::path::Path;
use std::process::Command;

const COMMANDS: [&str; 5] = ["check", "restart", "start", "state", "stop"];

fn completions() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/completions");
    path.to_str().unwrap().to_owned()
}

/// `hade` first in PATH: helps as it does, and otherwise writes down what it was told.
fn recorder() -> Place {
    let place = Place::new();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--help*) exec {HADE} \"$@\" ;; *) echo \"$@\" >>\"{}/told\" ;; esac\n",
        place.dir.display()
    );
    place.sh("mkdir bin files", &[]);
    place.put_program("bin/hade", &script);
    place
}

/// A shell with `hade` in its path.
fn shell(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("60")
        .args(words)
        .current_dir(&place.dir)
        .env_clear();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}/bin:{path}", place.dir.display()));
    command.env("HOME", &place.dir).env("TERM", "xterm");
    command
}

/// The long options of a command, as its help has them.
fn options(place: &Place, command: &str) -> Vec<String> {
    let help = place.app(&[command, "--help"]).ok();
    let lines = help.lines().filter(|line| line.starts_with("  -"));
    let words = lines.flat_map(|line| line.split([' ', ',']).filter(|word| word.starts_with("--")));
    let mut found: Vec<String> = words.map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

fn sorted(text: &str) -> Vec<String> {
    let words = text.lines().map(|line| line.split('\t').next().unwrap());
    let mut found: Vec<String> = words.map(str::to_owned).collect();
    found.sort();
    found
}

/// Every question that has an answer known from the help, to a shell that is asked by a function.
#[track_caller]
fn answers_well(place: &Place, ask: impl Fn(&[&str]) -> Vec<String>) {
    assert!(ask(&["hade", ""]).contains(&"app".to_owned()));
    assert_eq!(ask(&["hade", "app", ""]), COMMANDS);
    assert_eq!(ask(&["hade", "app", "st"]), ["start", "state", "stop"]);
    for command in COMMANDS {
        assert_eq!(
            ask(&["hade", "app", command, "--"]),
            options(place, command),
            "{command}"
        );
    }
    assert_eq!(
        ask(&["hade", "app", "start", "--set", "clo"]),
        ["close_wait="]
    );
    assert!(ask(&["hade", "app", "start", "--set", ""]).len() > 25);
    let root = ask(&["hade", "app", "start", "--root", "fi"]);
    assert_eq!(root[0].trim_end_matches('/'), "files");
}

#[test]
fn in_bash() {
    if !has("bash") {
        return;
    }
    let place = recorder();
    // Readline calls the function so; compopt is for it alone.
    let script = r#"
        source "$0/hade.bash"
        compopt() { :; }
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _hade hade
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    answers_well(&place, |words| {
        let mut command = shell(&place, &["bash", "--norc", "-c", script, &completions()]);
        sorted(&run(command.args(words)).ok())
    });
}

#[test]
fn in_fish() {
    if !has("fish") {
        return;
    }
    let place = recorder();
    let file = format!("{}/hade.fish", completions());
    answers_well(&place, |words| {
        let line = words.join(" ");
        let script = format!("source '{file}'; complete -C '{line}'");
        sorted(&run(&mut shell(&place, &["fish", "--no-config", "-c", &script])).ok())
    });
}

/// Typed at a terminal of its own, since zsh completes nowhere else.
#[test]
fn in_zsh() {
    if !has("zsh") {
        return;
    }
    let place = recorder();
    let script = r#"
        zmodload zsh/zpty
        zpty z "zsh -f -i"
        zpty -w z "fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D"
        zpty -w z $'hade ap\tres\t--col\t'
        zpty -w z $'hade app start --set clo\t5'
        zpty -w z $'hade app check --ro\tfi\t'
        zpty -w z $'hade app stop --for\t--base\tfi\t'
        zpty -w z $'hade app state --pro\t'
        zpty -w z exit
        while zpty -r z line 2>/dev/null; do :; done
    "#;
    run(&mut shell(
        &place,
        &["zsh", "-f", "-c", script, "zsh", &completions()],
    ))
    .ok();
    assert_eq!(
        place.read("told").replace("files/", "files"),
        "app restart --cold\napp start --set close_wait=5\napp check --root files\n\
         app stop --force --base-dir files\napp state --probe\n"
    );
}
