//! Commands of a program's own, which stand beside `app`.
#![forbid(unsafe_code)]

use super::print;
use crate::error::{Error, Result, exit};
use crate::http::request::own_setting;
use crate::log;
use crate::settings::{Overrides, Settings};
use std::ffi::OsString;
use std::path::Path;

/// A command that the program has added.
pub(super) struct Command {
    pub name: String,
    pub help: String,
    pub run: Box<Run>,
}

type Run = dyn Fn(&Call) -> std::result::Result<(), String>;

/// How a command of the program's own was called; see [`App::command`](crate::App::command).
///
/// ```
/// use hade::{App, Call};
///
/// fn greet(call: &Call) -> hade::Result<()> {
///     for name in call.args() {
///         println!("{}, {name}!", call.setting("greeting"));
///     }
///     Ok(())
/// }
///
/// App::new("greeter")
///     .setting("greeting", "Hello", "how to greet")
///     .command("greet", "greet people by name", greet);
/// ```
#[derive(Debug)]
pub struct Call {
    args: Vec<String>,
    settings: Settings,
}

impl Call {
    /// The words behind the command, without those that are for the settings.
    ///
    /// ```
    /// use hade::{App, Call};
    /// App::new("notes").command("import", "read notes from files", |call: &Call| match call.args() {
    ///     [] => Err("import: which files?"),
    ///     files => {
    ///         hade::log::info(format_args!("{} files", files.len()));
    ///         Ok(())
    ///     }
    /// });
    /// ```
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// The value of a setting of the program's own.
    ///
    /// ```
    /// use hade::{App, Call};
    /// use std::fs;
    ///
    /// App::new("notes")
    ///     .setting("notes_dir", "notes", "where notes are kept")
    ///     .command("count", "how many notes there are", |call: &Call| -> hade::Result<()> {
    ///         println!("{}", fs::read_dir(call.setting("notes_dir"))?.count());
    ///         Ok(())
    ///     });
    /// ```
    ///
    /// # Panics
    /// A name that the program has not named.
    #[track_caller]
    pub fn setting(&self, name: &str) -> &str {
        own_setting(&self.settings.own, name)
    }

    /// Where the service runs, and its relative paths start: `--base-dir`, or the current directory. A command stays where
    /// it was called.
    ///
    /// ```
    /// use hade::{App, Call};
    /// App::new("notes").command("where", "where the notes are", |call: &Call| -> hade::Result<()> {
    ///     println!("{}", call.base_dir().join("notes").display());
    ///     Ok(())
    /// });
    /// ```
    pub fn base_dir(&self) -> &Path {
        &self.settings.place.base
    }
}

/// Runs the command that the words name; `None` where it is none of these.
pub(super) fn run(
    program: &str,
    commands: &[Command],
    words: impl Iterator<Item = OsString>,
) -> Option<Result<u8>> {
    let words: Vec<String> = words
        .map(|word| word.into_string().ok())
        .collect::<Option<_>>()?;
    if commands.is_empty() {
        return None;
    }
    if let [] | ["-h" | "--help" | "help"] =
        words.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        return None;
    }
    let (overrides, rest) = match split(words) {
        Ok(split) => split,
        Err(error) => return Some(Err(error)),
    };
    let (name, args) = rest.split_first()?;
    let command = commands.iter().find(|command| command.name == *name)?;
    if let [word] = args {
        if ["-h", "--help"].contains(&word.as_str()) {
            let text = format!("Usage: {program} {name} [<words>]\n\n{}\n", command.help);
            return Some(print(&text).map(|()| exit::DONE));
        }
    }
    let settings = Settings::load(&overrides, &|name| std::env::var_os(name));
    Some(settings.and_then(|settings| {
        log::to_standard_error();
        let args = args.to_vec();
        let call = Call { args, settings };
        let done = (command.run)(&call);
        done.map(|()| exit::DONE).map_err(Error::failed)
    }))
}

/// The words that are for the settings, and the others; behind `--` are none of the former.
fn split(words: Vec<String>) -> Result<(Overrides, Vec<String>)> {
    let (mut flags, mut rest) = (Vec::new(), Vec::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.extend(words);
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        if !["--base-dir", "--config", "--set"].contains(&name.as_str()) {
            rest.push(word);
            continue;
        }
        let value = value.or_else(|| words.next());
        flags.push(name);
        flags.extend(value);
    }
    Ok((Overrides::from_args(flags)?, rest))
}

/// The list of them, for help.
pub(super) fn list(program: &str, commands: &[Command]) -> String {
    let mut text = String::new();
    if !commands.is_empty() {
        text += &format!("\nCommands of {program} itself:\n");
    }
    for Command { name, help, .. } in commands {
        text += &format!("  {name:<16}  {help}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_settings_are_taken_out() {
        let of = |line: &str| split(line.split_whitespace().map(str::to_owned).collect());
        let (overrides, rest) =
            of("import a --set=x=1 --base-dir /b --set y=2 c -- --set z=3").unwrap();
        assert_eq!(rest, ["import", "a", "c", "--set", "z=3"]);
        assert_eq!(overrides.base_dir.as_deref(), Some("/b"));
        assert_eq!(overrides.set.len(), 2);
        assert_eq!(
            of("import --config").unwrap_err().to_string(),
            "--config has no value"
        );
        assert!(of("import --set x").is_err());
    }
}
