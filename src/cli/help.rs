//! What a help text has beside the options that argh lists: the commands, the settings, examples, and what an exit status
//! means.
#![forbid(unsafe_code)]

use crate::settings::Settings;

/// What belongs to one command, or to the whole, whose name is empty.
struct Page {
    command: &'static str,
    /// Words behind the program's name, and what they do.
    examples: &'static [(&'static str, &'static str)],
    /// Exit statuses, and what they mean.
    statuses: &'static [(&'static str, &'static str)],
    has_settings: bool,
}

const PAGES: [Page; 6] = [
    Page {
        command: "",
        examples: &[
            ("app start", "serve until Ctrl-C"),
            (
                "app start -d --address :8080 --root public",
                "in the background, the files of a directory",
            ),
            ("app state", "how is it?"),
            (
                "app restart",
                "a new program or new settings, nobody notices",
            ),
            ("app check", "are the settings good?"),
            ("app stop", "finish what is in flight, then leave"),
            ("app start --help", "its options and all settings"),
        ],
        statuses: &[
            ("0", "done"),
            ("1", "failed"),
            ("2", "wrong usage"),
            ("3, 4", "of \"state\" alone: not running, cannot tell"),
        ],
        has_settings: false,
    },
    Page {
        command: "start",
        examples: &[
            ("app start", "in the foreground, on every interface"),
            (
                "app start --address localhost:8080",
                "for this machine alone",
            ),
            (
                "app start -d --root public --set close_wait=30",
                "in the background, the files of a directory",
            ),
        ],
        statuses: &[
            (
                "0",
                "with --daemon: it serves; else: it has served, and left",
            ),
            ("1", "failed, and nothing is left running"),
            ("2", "wrong usage: an option, a variable or its value"),
        ],
        has_settings: true,
    },
    Page {
        command: "state",
        examples: &[
            ("app state", "for people"),
            ("app state --json", "for programs"),
            ("app state --probe", "for the health check of a container"),
        ],
        statuses: &[
            ("0", "running; with --probe: healthy"),
            (
                "1",
                "dead, but the pid file names a pid; with --probe: not healthy",
            ),
            ("2", "wrong usage"),
            ("3", "not running"),
            ("4", "cannot tell: no answer, no permission, or no locks"),
        ],
        has_settings: false,
    },
    Page {
        command: "stop",
        examples: &[
            ("app stop", "wait until it is gone"),
            ("app stop --force", "and kill it if it does not go"),
            (
                "app stop --base-dir /srv/site",
                "the one of another directory",
            ),
        ],
        statuses: &[
            ("0", "it is gone, or nothing ran"),
            ("1", "failed: it is still there, or cannot be reached"),
            ("2", "wrong usage"),
        ],
        has_settings: false,
    },
    Page {
        command: "restart",
        examples: &[
            ("app restart", "the program and the settings on disk"),
            ("app restart --address :8080", "and to another address"),
            ("app restart --set workers=2", "and with another setting"),
        ],
        statuses: &[
            ("0", "the new generation serves, or it was started"),
            (
                "1",
                "failed; who served before still does, if it was there and --cold did not stop it",
            ),
            ("2", "wrong usage: an option, a variable or its value"),
        ],
        has_settings: true,
    },
    Page {
        command: "check",
        examples: &[
            ("app check", "before a restart"),
            ("app check --config new.conf", "a file that is not used yet"),
        ],
        statuses: &[
            ("0", "the settings are good"),
            (
                "1",
                "the settings file has a mistake, or what is to be served is not there",
            ),
            ("2", "wrong usage: an option, a variable or its value"),
        ],
        has_settings: true,
    },
];

/// The same text with all of that. `command` is empty, or "app", for the help of the whole program.
pub(super) fn complete(program: &str, command: &str, help: &str) -> String {
    let page = PAGES.iter().find(|page| page.command == command);
    let page = page.unwrap_or(&PAGES[0]);
    let mut text = help.to_owned();
    if page.has_settings {
        text += "\nSettings, for --set KEY=VALUE and the settings file:\n";
        text += &Settings::help();
        text += "In the environment app.close_wait is APP_CLOSE_WAIT and so on; ";
        text += "app.address is ADDRESS.\n";
    }
    text += "\nExamples:\n";
    let width = page.examples.iter().map(|(words, _)| words.len()).max();
    let width = width.unwrap_or(0);
    for (words, what) in page.examples {
        text += &format!("  {program} {words:<width$}  {what}\n");
    }
    text += "\nExit status:\n";
    for (status, meaning) in page.statuses {
        text += &format!("  {status:<5} {meaning}\n");
    }
    text
}

/// argh lists options without their values' names, and has them in the usage line alone.
pub(super) fn name_values(help: &str) -> String {
    let usage = help.lines().next().unwrap_or_default();
    let mut text = help.to_owned();
    for option in usage.split('[').skip(1) {
        let Some((name, value)) = option
            .split_once(']')
            .and_then(|(it, _)| it.split_once(' '))
        else {
            continue;
        };
        // The one that may be repeated.
        let value = value.replace("...", "");
        let (bare, named) = (format!("\n  {name:<18}"), format!("{name} {value}"));
        text = text.replace(&bare, &format!("\n  {named:<17} "));
    }
    text
}

/// The help of the whole with the commands of its only group, which are what people look for.
pub(super) fn with_commands(top: &str, group: &str) -> String {
    let mark = "\nCommands:\n";
    match (top.split_once(mark), group.split_once(mark)) {
        (Some((head, _)), Some((_, commands))) => format!("{head}{mark}{commands}"),
        _ => top.to_owned(),
    }
}
