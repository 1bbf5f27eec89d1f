//! What `--help` says: the commands, examples that work, exit statuses, and the settings where somebody looks for them.

use crate::support::{Place, run};

const COMMANDS: [&str; 5] = ["start", "state", "stop", "restart", "check"];

/// What stands below a title, line by line.
fn below<'a>(help: &'a str, title: &str) -> Vec<&'a str> {
    let (_, rest) = help.split_once(&format!("\n{title}:\n")).expect(title);
    let lines = rest.lines().take_while(|line| line.starts_with("  "));
    lines.map(str::trim).collect()
}

#[test]
fn the_first_help_has_the_commands_examples_and_exit_statuses() {
    let place = Place::new();
    let help = run(&mut place.command(&["--help"])).ok();
    let commands = below(&help, "Commands");
    for command in COMMANDS {
        let is_there = |line: &&str| line.starts_with(&format!("{command} "));
        assert!(commands.iter().any(is_there), "{help}");
        let example = format!("hade app {command} ");
        let is_there = |line: &&str| line.starts_with(&example);
        assert!(below(&help, "Examples").iter().any(is_there), "{help}");
    }
    assert_eq!(below(&help, "Exit status").len(), 4, "{help}");
}

#[test]
fn the_help_of_a_command_has_the_same_and_settings_where_they_help() {
    let place = Place::new();
    for command in COMMANDS {
        let help = place.app(&[command, "--help"]).ok();
        assert!(below(&help, "Exit status")[0].starts_with("0 "), "{help}");
        assert_eq!(
            help.contains("\n  app.close_wait "),
            ["start", "restart", "check"].contains(&command),
            "{help}"
        );
        for option in ["--base-dir <dir>", "--config <file>", "--set <key=value>"] {
            let lines = below(&help, "Options");
            assert!(lines.iter().any(|line| line.starts_with(option)), "{help}");
        }
        for example in below(&help, "Examples") {
            let words = example.split("  ").next().unwrap();
            let mut words: Vec<&str> = words.split(' ').collect();
            assert_eq!(words[..3], ["hade", "app", command], "{example}");
            // That these are options of the command, the command itself says.
            words.push("--help");
            run(&mut place.command(&words[1..])).ok();
        }
    }
}

#[test]
fn what_other_programs_call_a_port_has_a_hint() {
    let place = Place::new();
    for words in [&["--port", "80"][..], &["--port=80"], &["-p", "80"]] {
        let said = place.app(&[&["start"], words].concat()).failed(2);
        let hint = "; did you mean \"--address :PORT\"?";
        assert!(said.lines().next().unwrap().ends_with(hint), "{said}");
    }
}
