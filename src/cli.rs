//! The command line: words to values, no action. argh does the reading; this file brings the words
//! into the form it knows, and what it says into one clear line with the usage below it.
#![forbid(unsafe_code)]

mod help;

use std::ffi::OsString;

use argh::{FromArgs, SubCommands};

use crate::error::{Error, Result};
use crate::settings::{Overrides, Settings};
use crate::spelling::nearest;

/// A value, or the line that says what is wrong with the words.
type Read<T> = std::result::Result<T, String>;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `app start`
    Start {
        /// In the background.
        daemon: bool,
        /// Where to write a newline when it serves.
        ready_fd: Option<i32>,
    },
    /// `app state`
    State {
        /// For programs.
        json: bool,
        /// Ask the health path instead.
        probe: bool,
    },
    /// `app stop`
    Stop {
        /// Kill what is still there after the wait.
        force: bool,
    },
    /// `app restart`
    Restart {
        /// Stop, then start, instead of a handover.
        cold: bool,
    },
    /// `app check`
    Check,
}

/// A command and the settings named beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cli {
    /// What to do.
    pub command: Command,
    /// The settings named by flags.
    pub overrides: Overrides,
}

/// What the words ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A command to run.
    Run(Cli),
    /// A text for stdout, ending in a newline; exit status 0.
    Help(String),
    /// The version is asked for.
    Version,
}

/// For commands that find what runs by its directory.
const NO_ADDRESS: &str =
    "no address is needed here: what runs is found by its directory, --base-dir or the current one";

/// What other programs call it.
const ADDRESS_ELSEWHERE: [&str; 7] = ["--port", "-p", "--listen", "-l", "--bind", "-b", "--host"];

const HELP: [&str; 3] = ["-h", "--help", "help"];
const VALUED: [&str; 6] = [
    "--address",
    "--base-dir",
    "--config",
    "--set",
    "--ready-fd",
    "--root",
];
const SWITCHES: [&str; 5] = ["--daemon", "--force", "--cold", "--json", "--probe"];

#[derive(FromArgs)]
/// An HTTP application that manages its own process.
#[argh(
    usage = "app <command> [<options>]",
    help_triggers("-h", "--help", "help")
)]
struct Program {
    /// print the version
    #[argh(switch, short = 'V')]
    version: bool,
    #[argh(subcommand)]
    group: Option<Group>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Group {
    App(App),
}

#[derive(FromArgs)]
/// start, look at, stop, restart or check the application
#[argh(
    subcommand,
    name = "app",
    usage = "<command> [<options>]",
    help_triggers("-h", "--help", "help")
)]
struct App {
    #[argh(subcommand)]
    action: Option<Action>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Action {
    Start(Start),
    State(State),
    Stop(Stop),
    Restart(Restart),
    Check(Check),
}

/// A command with its own options and those that all have.
macro_rules! command {
    ($(#[$($about:tt)*])* struct $name:ident { $($own:tt)* }) => {
        #[derive(FromArgs)]
        $(#[$($about)*])*
        struct $name {
            $($own)*
            /// directory that relative paths start from, the current one by default
            /// (environment APP_BASE_DIR)
            #[argh(option, arg_name = "dir")]
            base_dir: Option<String>,
            /// settings file, etc/app.conf by default (environment APP_CONFIG)
            #[argh(option, arg_name = "file")]
            config: Option<String>,
            /// any other setting, as "close_wait=5"; may be repeated
            #[argh(option, arg_name = "key=value")]
            set: Vec<String>,
        }

        impl $name {
            fn overrides(self) -> Read<Overrides> {
                let $name { base_dir, config, set, .. } = self;
                let set = set.iter().map(|text| pair(text)).collect::<Read<_>>()?;
                Ok(Overrides { base_dir, config, address: None, set })
            }
        }
    };
}

/// One that has to do with where to listen. The others find what runs by its directory.
macro_rules! listening_command {
    ($(#[$($about:tt)*])* struct $name:ident { $($own:tt)* }) => {
        command! {
            $(#[$($about)*])*
            struct $name {
                $($own)*
                /// where to listen, as ":8888", "localhost:8080" or "unix:run/http.sock"
                /// (environment ADDRESS)
                #[argh(option, arg_name = "where")]
                address: Option<String>,
            }
        }

        impl $name {
            fn with_address(mut self) -> Read<Overrides> {
                let address = self.address.take();
                Ok(Overrides { address, ..self.overrides()? })
            }
        }
    };
}

listening_command! {
    /// start serving, in the foreground unless told otherwise
    #[argh(subcommand, name = "start", help_triggers("-h", "--help", "help"))]
    struct Start {
        /// serve in the background; return once it is ready
        #[argh(switch, short = 'd')]
        daemon: bool,
        /// write a newline to this descriptor, 3 or above, once it is ready
        #[argh(option, arg_name = "fd")]
        ready_fd: Option<String>,
        /// directory whose files are served (environment APP_ROOT)
        #[argh(option, arg_name = "dir")]
        root: Option<String>,
    }
}

command! {
    /// tell whether it is running, and how it is doing
    #[argh(subcommand, name = "state", help_triggers("-h", "--help", "help"))]
    struct State {
        /// one JSON object instead of a text
        #[argh(switch)]
        json: bool,
        /// a health check: ask for /healthz, exit status 0 or 1 within 2 s
        #[argh(switch)]
        probe: bool,
    }
}

command! {
    /// finish the requests in flight, then leave
    #[argh(subcommand, name = "stop", help_triggers("-h", "--help", "help"))]
    struct Stop {
        /// kill it if it is still there after the wait
        #[argh(switch)]
        force: bool,
    }
}

listening_command! {
    /// replace it by a new generation without losing a request; start it in
    /// the background if it is not running
    #[argh(subcommand, name = "restart", help_triggers("-h", "--help", "help"))]
    struct Restart {
        /// stop it, then start it
        #[argh(switch)]
        cold: bool,
        /// directory whose files are served (environment APP_ROOT)
        #[argh(option, arg_name = "dir")]
        root: Option<String>,
    }
}

listening_command! {
    /// try the settings without touching what is running
    #[argh(subcommand, name = "check", help_triggers("-h", "--help", "help"))]
    struct Check {
        /// directory whose files are served (environment APP_ROOT)
        #[argh(option, arg_name = "dir")]
        root: Option<String>,
    }
}

/// Reads the words behind the program's name.
///
/// # Errors
/// Words that are no command or option: exit status 2. The text is one line that says which, and
/// below it the usage of the command at hand.
pub fn parse(program: &str, args: impl Iterator<Item = OsString>) -> Result<Parsed> {
    let mut words = Words::default();
    words
        .read(args)
        .and_then(|()| understand(program, &words))
        .map_err(|text| refusal(program, &words.list, &text))
}

fn understand(program: &str, words: &Words) -> Read<Parsed> {
    let list: Vec<&str> = words.list.iter().map(String::as_str).collect();
    let top = match Program::from_args(&[program], &list) {
        Ok(top) => top,
        Err(exit) => {
            let (command, help) = help(program, &words.list);
            // "app start --help --daemon": argh minds the order, people do not.
            if exit.status.is_ok() || exit.output.starts_with("Trailing arguments") {
                let text = help::complete(program, command, &help);
                return Ok(Parsed::Help(text));
            }
            return Err(reworded(&exit.output, &help));
        }
    };
    if top.version {
        return Ok(Parsed::Version);
    }
    let action = top.group.and_then(|Group::App(app)| app.action);
    let is_on = |switch| !words.off.contains(&switch);
    let (command, overrides) = match action.ok_or("no command given")? {
        Action::Start(it) => {
            let daemon = it.daemon && is_on("--daemon");
            (
                Command::Start {
                    daemon,
                    ready_fd: it.ready_fd.as_deref().map(descriptor).transpose()?,
                },
                rooted(it.root.clone(), it.with_address()),
            )
        }
        Action::State(it) => {
            let json = it.json && is_on("--json");
            let probe = it.probe && is_on("--probe");
            (Command::State { json, probe }, it.overrides())
        }
        Action::Stop(it) => {
            let force = it.force && is_on("--force");
            (Command::Stop { force }, it.overrides())
        }
        Action::Restart(it) => {
            let cold = it.cold && is_on("--cold");
            let root = it.root.clone();
            (Command::Restart { cold }, rooted(root, it.with_address()))
        }
        Action::Check(it) => (Command::Check, rooted(it.root.clone(), it.with_address())),
    };
    let overrides = overrides?;
    let looks_for_it = matches!(command, Command::State { .. } | Command::Stop { .. });
    if looks_for_it && overrides.names_address() {
        return Err(NO_ADDRESS.to_owned());
    }
    Ok(Parsed::Run(Cli { command, overrides }))
}

/// `--root` is the flag of a setting, and wins over one among `--set`.
fn rooted(root: Option<String>, overrides: Read<Overrides>) -> Read<Overrides> {
    let mut overrides = overrides?;
    overrides
        .set
        .extend(root.map(|root| ("app.root".to_owned(), root)));
    Ok(overrides)
}

/// A descriptor's number; the standard three are taken.
fn descriptor(text: &str) -> Read<i32> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (3..1 << 20).contains(number));
    number.ok_or_else(|| {
        format!("--ready-fd {text:?}: expected the number of an open descriptor, 3 or above")
    })
}

/// The words in the form that argh knows.
#[derive(Default)]
struct Words {
    list: Vec<String>,
    /// Switches last seen with "=false"; argh gets to see that they are there, so that it can tell
    /// whether the command has them.
    off: Vec<&'static str>,
}

impl Words {
    /// `--flag=value` becomes two words, `--switch=true` one; up to `--`, and not where the word is
    /// the value of the flag before it.
    fn read(&mut self, args: impl Iterator<Item = OsString>) -> Read<()> {
        let mut is_over = false;
        let mut is_value = false;
        for arg in args {
            let word = arg
                .into_string()
                .map_err(|arg| format!("argument {:?} is not UTF-8", arg.to_string_lossy()))?;
            if is_over || is_value || !word.starts_with('-') {
                is_value = false;
                self.list.push(word);
                continue;
            }
            is_over = word == "--";
            is_value = VALUED.contains(&word.as_str());
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if !matches!(name, "-" | "--") => (name, Some(value)),
                _ => (word.as_str(), None),
            };
            self.list.push(name.to_owned());
            let long = if name == "-d" { "--daemon" } else { name };
            if let Some(switch) = SWITCHES.into_iter().find(|switch| *switch == long) {
                self.off.retain(|off| *off != switch);
                if !truth(name, value.unwrap_or("true"))? {
                    self.off.push(switch);
                }
            } else if let Some(value) = value {
                self.list.push(value.to_owned());
            }
        }
        Ok(())
    }
}

fn truth(name: &str, text: &str) -> Read<bool> {
    let is_one_of = |words: [&str; 4]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_one_of(["true", "1", "yes", "on"]) {
        Ok(true)
    } else if is_one_of(["false", "0", "no", "off"]) {
        Ok(false)
    } else {
        Err(format!("{name} {text:?}: expected true or false"))
    }
}

fn pair(text: &str) -> Read<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("--set {text:?}: expected KEY=VALUE")),
    }
}

/// The last of the commands that the words have come to, and argh's help for it.
fn help<'a>(program: &str, words: &'a [String]) -> (&'a str, String) {
    let words = words.iter().map(String::as_str);
    let words = words.filter(|word| !HELP.contains(word));
    let words = words.take_while(|word| !word.starts_with('-'));
    let mut path: Vec<&str> = words.take(2).collect();
    let of = |path: &[&str]| {
        let asked = [path, &["--help"]].concat();
        let exit = Program::from_args(&[program], &asked).err()?;
        exit.status.is_ok().then_some(exit.output)
    };
    loop {
        match of(&path) {
            Some(top) if path.is_empty() => {
                let group = of(&["app"]).unwrap_or_default();
                return ("", help::with_commands(&top, &group));
            }
            Some(text) => return (path[path.len() - 1], help::name_values(&text)),
            None if path.pop().is_none() => return ("", String::new()),
            None => {}
        }
    }
}

/// One clear line for what argh does not like.
fn reworded(output: &str, help: &str) -> String {
    let output = output.trim_end_matches('\n');
    if let Some(word) = output.strip_prefix("Unrecognized argument: ") {
        return unrecognized(word, help);
    }
    if let Some(name) = output.strip_prefix("No value provided for option '") {
        let name = name.trim_end_matches(['.', '\'']);
        return format!("option {name:?} needs a value");
    }
    // The options are plain strings, so a value can only be wrong for being the second one.
    if let Some(rest) = output.strip_prefix("Error parsing option '") {
        let name = rest.split('\'').next().unwrap_or(rest);
        return format!("option {name:?} given twice");
    }
    output.replace('\n', " ")
}

fn unrecognized(word: &str, help: &str) -> String {
    let is_group = help.contains("\nCommands:");
    let has_address = help.contains("--address");
    if ADDRESS_ELSEWHERE.contains(&word) && has_address {
        return format!("unknown option {word:?}; did you mean \"--address :PORT\"?");
    }
    if word == "--address" && !is_group {
        return NO_ADDRESS.to_owned();
    }
    let is_option = word.starts_with('-');
    if !is_option && !is_group {
        return format!("unexpected argument {word:?}");
    }
    let options = || VALUED.into_iter().chain(SWITCHES);
    if is_group && options().chain(["-d"]).any(|name| name == word) {
        return format!("option {word:?} goes behind the command");
    }
    let key = word.trim_start_matches('-').replace('-', "_");
    let meant = if !is_option {
        let before = if help.contains("--version") {
            "app "
        } else {
            ""
        };
        let names = Action::COMMANDS.iter().map(|command| command.name);
        nearest(word, names).map(|name| format!("{before}{name}"))
    } else if !is_group && Settings::has_key(&key) {
        Some(format!("--set {key}=VALUE"))
    } else {
        let names = options().filter(|name| *name != word && help.contains(*name));
        nearest(word, names).map(str::to_owned)
    };
    let kind = if is_option { "option" } else { "command" };
    match meant {
        Some(meant) => format!("unknown {kind} {word:?}; did you mean {meant:?}?"),
        None => format!("unknown {kind} {word:?}"),
    }
}

/// The line, and below it what the help says on usage and commands.
fn refusal(program: &str, words: &[String], line: &str) -> Error {
    let (_, help) = help(program, words);
    let is_wanted = |part: &&str| part.starts_with("Usage:") || part.starts_with("Commands:");
    let parts = help.split("\n\n").filter(is_wanted).map(str::trim_end);
    let text: Vec<&str> = std::iter::once(line).chain(parts).collect();
    Error::usage(text.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit;
    use std::os::unix::ffi::OsStringExt;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split(' ')
            .filter(|word| !word.is_empty())
            .map(OsString::from)
    }

    fn run(line: &str) -> (Command, Overrides) {
        match parse("hade", words(line)) {
            Ok(Parsed::Run(Cli { command, overrides })) => (command, overrides),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn help(line: &str) -> String {
        match parse("hade", words(line)) {
            Ok(Parsed::Help(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// The first line of a refusal, and those below it.
    fn refused(args: impl Iterator<Item = OsString>) -> (String, String) {
        let error = parse("hade", args).unwrap_err();
        assert_eq!(error.code(), exit::USAGE);
        let text = error.to_string();
        let (line, usage) = text.split_once('\n').unwrap();
        (line.to_owned(), usage.to_owned())
    }

    #[test]
    fn commands_and_their_switches() {
        let start = |daemon| Command::Start {
            daemon,
            ready_fd: None,
        };
        for (line, expected) in [
            ("app start", start(false)),
            ("app start -d", start(true)),
            ("app start --daemon", start(true)),
            ("app start --daemon=true", start(true)),
            ("app start -d=YES", start(true)),
            ("app start --daemon=1 -d", start(true)),
            ("app start --daemon=false", start(false)),
            ("app start -d=off", start(false)),
            ("app start -d --daemon=no", start(false)),
            ("app start --daemon=0 -d=on", start(true)),
            (
                "app state",
                Command::State {
                    json: false,
                    probe: false,
                },
            ),
            (
                "-- app state --",
                Command::State {
                    json: false,
                    probe: false,
                },
            ),
            ("app stop", Command::Stop { force: false }),
            ("app stop --force", Command::Stop { force: true }),
            ("app stop --force=no", Command::Stop { force: false }),
            ("app restart", Command::Restart { cold: false }),
            ("app restart --cold=true", Command::Restart { cold: true }),
            ("app check", Command::Check),
        ] {
            assert_eq!(run(line), (expected, Overrides::default()), "{line}");
        }
    }

    #[test]
    fn every_command_has_the_common_options() {
        let expected = Overrides {
            base_dir: Some("/srv".to_owned()),
            config: Some("a=b".to_owned()),
            address: Some(":80".to_owned()),
            set: vec![
                ("x".to_owned(), "y=z".to_owned()),
                ("app.log_file".to_owned(), String::new()),
            ],
        };
        for command in Action::COMMANDS {
            if ["state", "stop"].contains(&command.name) {
                let without = Overrides {
                    address: None,
                    ..expected.clone()
                };
                let options = "--base-dir /srv --config a=b --set x=y=z --set app.log_file=";
                assert_eq!(run(&format!("app {} {options}", command.name)).1, without);
                continue;
            }
            for options in [
                "--address :80 --base-dir /srv --config a=b --set x=y=z --set app.log_file=",
                "--address=:80 --base-dir=/srv --config=a=b --set=x=y=z --set=app.log_file=",
            ] {
                assert_eq!(run(&format!("app {} {options}", command.name)).1, expected);
            }
        }
        // What follows an option is its value, whatever it looks like.
        let (command, overrides) = run("app start --config --daemon=x --set --a=b");
        assert_eq!(
            command,
            Command::Start {
                daemon: false,
                ready_fd: None
            }
        );
        assert_eq!(overrides.config.as_deref(), Some("--daemon=x"));
        assert_eq!(overrides.set, [("--a".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn refusals_are_one_clear_line_and_the_usage() {
        const START: &str =
            "Usage: hade app start [-d] [--ready-fd <fd>] [--root <dir>] [--address <where>]";
        const STOP: &str = "Usage: hade app stop [--force]";
        const GROUP: &str = "Usage: hade app <command> [<options>]\nCommands:\n  start  ";
        const TOP: &str = GROUP;
        let cases = r#"
            TOP: => no command given
            TOP: foo => unknown command "foo"
            TOP: start -d => unknown command "start"; did you mean "app start"?
            TOP: --foo => unknown option "--foo"
            TOP: -d app start => option "-d" goes behind the command
            GROUP: app => no command given
            GROUP: app foo => unknown command "foo"
            GROUP: app strat => unknown command "strat"; did you mean "start"?
            GROUP: app --config x start => option "--config" goes behind the command
            START: app start foo => unexpected argument "foo"
            START: app start -d true => unexpected argument "true"
            START: app start --foo=bar => unknown option "--foo"
            START: app start --=x => unknown option "--=x"
            START: app start -dx => unknown option "-dx"
            START: app start --deamon => unknown option "--deamon"; did you mean "--daemon"?
            START: app start --port=80 => unknown option "--port"; did you mean "--address :PORT"?
            START: app start -p 80 => unknown option "-p"; did you mean "--address :PORT"?
            STOP: app stop --port 80 => unknown option "--port"
            START: app start --threads=5 => unknown option "--threads"; did you mean "--set threads=VALUE"?
            START: app start --daemon=maybe => --daemon "maybe": expected true or false
            START: app start -d= => -d "": expected true or false
            START: app start --set foo => --set "foo": expected KEY=VALUE
            START: app start --set==1 => --set "=1": expected KEY=VALUE
            STOP: app stop --config => option "--config" needs a value
            STOP: app stop --config a --config b => option "--config" given twice
            STOP: app stop --daemon=false => unknown option "--daemon"
            STOP: app stop --address :80 => no address is needed here: what runs is found by its directory, --base-dir or the current one
            STOP: app stop --address=:80 => no address is needed here: what runs is found by its directory, --base-dir or the current one
            STOP: app stop --set address=:80 => no address is needed here: what runs is found by its directory, --base-dir or the current one
            STOP: app stop -- foo => unexpected argument "foo"
        "#;
        for row in cases.trim().lines() {
            let (level, row) = row.trim().split_once(':').unwrap();
            let (line, expected) = row.split_once("=> ").unwrap();
            let usage = match level {
                "TOP" => TOP,
                "GROUP" => GROUP,
                "START" => START,
                _ => STOP,
            };
            let (found, below) = refused(words(line));
            assert_eq!(found, expected, "{line}");
            assert!(below.starts_with(usage), "{line}: {below}");
        }
        let odd = OsString::from_vec(b"--config=\xff".to_vec());
        let (line, usage) = refused(words("app start").chain([odd]));
        assert_eq!(line, "argument \"--config=\u{fffd}\" is not UTF-8");
        assert!(usage.starts_with(START));
        let (line, _) = refused([OsString::new()].into_iter());
        assert_eq!(line, "unknown command \"\"");
    }

    #[test]
    fn help_is_there_at_each_level() {
        for (usage, lines) in [
            (
                "app <command>",
                "-h; --help; help; app -h; app --help; help app; app help",
            ),
            (
                "app stop",
                "app stop -h; help app stop; app stop --help --force",
            ),
            (
                "app start [-d]",
                "app start help; app help start; app start -d -h",
            ),
        ] {
            for line in lines.split(';') {
                let text = help(line);
                assert!(
                    text.starts_with(&format!("Usage: hade {usage}")),
                    "{line}: {text}"
                );
                assert!(text.ends_with('\n'), "{line}: {text}");
                assert_eq!(text.contains("app.close_wait"), line.contains("start"));
            }
        }
        for command in Action::COMMANDS {
            let text = help(&format!("app {} --help", command.name));
            let has_settings = ["start", "restart", "check"].contains(&command.name);
            assert_eq!(text.contains("app.close_wait"), has_settings, "{text}");
            let example = format!("\nExamples:\n  hade app {} ", command.name);
            assert!(text.contains(&example), "{text}");
            assert!(text.contains("\nExit status:\n  0     "), "{text}");
            assert!(text.contains("\n  --set <key=value> any other"), "{text}");
            assert!(text.contains("\n  --base-dir <dir>  directory"), "{text}");
            let where_to = "\n  --address <where> where to listen";
            assert_eq!(text.contains(where_to), has_settings, "{text}");
            let whole = help("--help");
            assert!(
                whole.contains(&format!(
                    "\n  {:<18}{}",
                    command.name,
                    &command.description[..20]
                )),
                "{whole}"
            );
        }
        for line in ["--version", "-V", "--version app start"] {
            assert_eq!(parse("hade", words(line)), Ok(Parsed::Version));
        }
    }
}
