//! The manual: mdoc(7) without a complaint, and all that `--help` has.

use crate::support::{Place, has, run};
use std::path::Path;
use std::process::Command;

const COMMANDS: [&str; 5] = ["start", "state", "stop", "restart", "check"];

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/man/hade.8");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn mandoc_has_no_complaint() {
    if !has("mandoc") {
        return;
    }
    let mut command = Command::new("mandoc");
    command.args(["-T", "lint", "-W", "warning", "etc/man/hade.8"]);
    let done = run(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    assert_eq!((done.code, done.out.as_str()), (Some(0), ""));
}

/// What is missing is said as it has to be written, so that it can be pasted.
#[test]
fn every_setting_is_in_it_in_the_words_of_the_help() {
    let page = page();
    let place = Place::new();
    let help = place.app(&["start", "--help"]).ok();
    let (mut known, mut missing) = (Vec::new(), Vec::new());
    for line in help.lines().filter_map(|line| line.strip_prefix("  app.")) {
        let (name, meaning) = line.split_once(' ').unwrap();
        let meaning = meaning.trim_start();
        let text = format!("{}{}.", meaning[..1].to_uppercase(), &meaning[1..]);
        let item = format!(".It Ic app.{name}\n");
        let after = page.split_once(&item).map(|(_, after)| after);
        let lines = after.map(|text| text.lines().take_while(|line| !line.starts_with('.')));
        let told = lines.map(|lines| lines.collect::<Vec<_>>().join(" "));
        if told.as_deref() != Some(text.as_str()) {
            missing.push(format!("{item}{text}\n"));
        }
        known.push(item);
    }
    assert!(known.len() > 25);
    assert!(
        missing.is_empty(),
        "etc/man/hade.8 needs\n{}",
        missing.concat()
    );
    let items = page.lines().filter(|line| line.starts_with(".It Ic app."));
    assert_eq!(items.count(), known.len(), "a setting that is none");
}

#[test]
fn every_option_is_in_it_and_no_other() {
    let page = page();
    let place = Place::new();
    let mut helps = String::new();
    for command in COMMANDS {
        assert!(page.contains(&format!("\n.It Cm {command}\n")), "{command}");
        helps += &place.app(&[command, "--help"]).ok();
    }
    helps += &run(&mut place.command(&["--help"])).ok();
    let long = |word: &str| -> String {
        let rest = word.trim_start_matches('-');
        rest.split(|c: char| c != '-' && !c.is_ascii_lowercase())
            .next()
            .unwrap()
            .to_owned()
    };
    let options = helps
        .split_whitespace()
        .filter(|word| word.starts_with("--") && word.len() > 3);
    for option in options {
        let item = page.lines().any(|line| {
            let is_item = line.starts_with(".It Fl ");
            is_item
                && line.split(' ').any(|word| {
                    long(word.trim_start_matches('\\')) == long(option) && word.starts_with('\\')
                })
        });
        assert!(item, "no {option}");
    }
    let told = page.lines().filter(|line| line.starts_with(".It Fl "));
    for word in told
        .flat_map(|line| line.split(' '))
        .filter(|word| word.starts_with("\\-"))
    {
        let option = format!("--{}", word.trim_start_matches("\\-"));
        assert!(helps.contains(&option), "{option} is none");
    }
}
