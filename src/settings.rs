//! The settings: flag over environment over file over default, as plain final values.
//! One table, `KEYS`, says what there is; the file, the environment, `--set` and help all read it.
//! What the values do is no matter here; of the file system only the settings file is touched.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;
use crate::conf;
use crate::error::{Error, Result};
use crate::place::Place;

/// How much the log says; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What failed.
    Error,
    /// What may become a failure.
    Warn,
    /// What an operator wants to find the next day.
    Info,
    /// What a developer wants to see.
    Debug,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Level {
    const ALL: [Level; 4] = [Level::Error, Level::Warn, Level::Info, Level::Debug];

    /// The word for it in settings and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// What the command line asks for, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--base-dir`
    pub base_dir: Option<String>,
    /// `--config`
    pub config: Option<String>,
    /// `--address`; it wins over an address among `set`.
    pub address: Option<String>,
    /// `--set KEY=VALUE`, in order; the last one of a key wins.
    pub set: Vec<(String, String)>,
}

impl Overrides {
    /// The settings that are in the environment, as if they had been flags.
    ///
    /// # Errors
    /// A variable that is not UTF-8: exit status 2.
    pub fn from_environment(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Overrides> {
        let mut found = Overrides {
            config: variable(env, "APP_CONFIG")?,
            ..Overrides::default()
        };
        for key in KEYS {
            if let Some(value) = variable(env, key.variable)? {
                found.set.push((key.name.to_owned(), value));
            }
        }
        Ok(found)
    }

    /// These, where `later` does not say otherwise. An address in `later` wins however it is put.
    pub fn then(self, later: Overrides) -> Overrides {
        let key = |name: &str| find(name).map(|key| key.name);
        let is_said = |name: &str| {
            later.set.iter().any(|(other, _)| {
                other == name || key(other).is_some_and(|other| key(name) == Some(other))
            })
        };
        let address = if is_said(ADDRESS) { None } else { self.address };
        let kept = self.set.into_iter().filter(|(name, _)| !is_said(name));
        let set: Vec<(String, String)> = kept.collect();
        Overrides {
            base_dir: later.base_dir.or(self.base_dir),
            config: later.config.or(self.config),
            address: later.address.or(address),
            set: [set, later.set].concat(),
        }
    }

    /// Whether an address is among them.
    pub fn names_address(&self) -> bool {
        let is_address = |name: &str| find(name).is_some_and(|key| key.name == ADDRESS);
        self.address.is_some() || self.set.iter().any(|(name, _)| is_address(name))
    }

    /// What [`Overrides::to_args`] made, read back.
    ///
    /// # Errors
    /// A word that is none of those: exit status 2.
    pub fn from_args(args: Vec<String>) -> Result<Overrides> {
        let mut found = Overrides::default();
        let mut words = args.into_iter();
        while let Some(flag) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| Error::usage(format!("{flag} has no value")))?;
            match (flag.as_str(), value.split_once('=')) {
                ("--base-dir", _) => found.base_dir = Some(value),
                ("--config", _) => found.config = Some(value),
                ("--address", _) => found.address = Some(value),
                ("--set", Some((key, value))) => found.set.push((key.to_owned(), value.to_owned())),
                _ => return Err(Error::usage(format!("{flag} {value:?} is no setting"))),
            }
        }
        Ok(found)
    }

    /// The words that say the same on a command line.
    pub fn to_args(&self) -> Vec<String> {
        let options = [
            ("--base-dir", &self.base_dir),
            ("--config", &self.config),
            ("--address", &self.address),
        ];
        let options = options
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value.clone()?)));
        let set = self
            .set
            .iter()
            .map(|(name, value)| ("--set", format!("{name}={value}")));
        options
            .chain(set)
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }
}

/// Every setting, final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The base directory and the files under it.
    pub place: Place,
    /// Where to listen; the path of a socket is read from the base directory.
    pub address: Address,
    /// Longest drain; zero cuts at once.
    pub close_wait: Duration,
    /// A request head must arrive within this.
    pub header_timeout: Duration,
    /// A keep-alive connection may stay without a request this long.
    pub idle_timeout: Duration,
    /// A body read or response write may make no progress this long.
    pub io_timeout: Duration,
    /// Worker processes.
    pub workers: usize,
    /// Most handler threads of a worker.
    pub threads: usize,
    /// Requests that may wait for a handler thread.
    pub queue: usize,
    /// A handler that takes longer is named in the log; zero for never.
    pub handler_warn: Duration,
    /// Most open connections of a worker.
    pub max_connections: usize,
    /// Most connections from one address; zero for no bound.
    pub max_per_address: usize,
    /// Longest request head, in bytes.
    pub max_header: usize,
    /// Longest request body, in bytes.
    pub max_body: usize,
    /// How much the log says.
    pub log_level: Level,
    /// Whether the log file was named by anyone, or is the default.
    pub log_file_is_set: bool,
}

/// What a value must be, and where it goes.
enum Rule {
    Address(fn(&mut Settings, Address)),
    Seconds(RangeInclusive<u64>, fn(&mut Settings, Duration)),
    Number(RangeInclusive<usize>, fn(&mut Settings, usize)),
    Bytes(RangeInclusive<usize>, fn(&mut Settings, usize)),
    Level(fn(&mut Settings, Level)),
    Path(fn(&mut Settings, PathBuf)),
}

struct Key {
    name: &'static str,
    variable: &'static str,
    default: &'static str,
    help: &'static str,
    rule: Rule,
}

const PREFIX: &str = "app.";
const ADDRESS: &str = "app.address";

macro_rules! keys {
    ($($name:literal $variable:literal $default:literal $help:literal $rule:expr;)*) => {
        static KEYS: &[Key] = &[$(Key {
            name: $name,
            variable: $variable,
            default: $default,
            help: $help,
            rule: $rule,
        }),*];
    };
}

keys! {
    "app.address" "ADDRESS" ":8888" "where to listen"
        Rule::Address(|s, v| s.address = v.under(&s.place.base));
    "app.close_wait" "APP_CLOSE_WAIT" "5" "longest drain, then the rest is cut"
        Rule::Seconds(0..=3600, |s, v| s.close_wait = v);
    "app.workers" "APP_WORKERS" "1" "worker processes"
        Rule::Number(1..=64, |s, v| s.workers = v);
    "app.threads" "APP_THREADS" "64" "most handler threads per worker"
        Rule::Number(1..=4096, |s, v| s.threads = v);
    "app.queue" "APP_QUEUE" "1024" "requests that may wait for a handler thread"
        Rule::Number(0..=1_000_000, |s, v| s.queue = v);
    "app.handler_warn" "APP_HANDLER_WARN" "10" "a handler that takes longer is named in the log, 0 for none"
        Rule::Seconds(0..=86400, |s, v| s.handler_warn = v);
    "app.header_timeout" "APP_HEADER_TIMEOUT" "10" "a request head must arrive within"
        Rule::Seconds(1..=3600, |s, v| s.header_timeout = v);
    "app.idle_timeout" "APP_IDLE_TIMEOUT" "60" "a connection may stay without a request for"
        Rule::Seconds(1..=86400, |s, v| s.idle_timeout = v);
    "app.io_timeout" "APP_IO_TIMEOUT" "30" "a body or response may make no progress for"
        Rule::Seconds(1..=3600, |s, v| s.io_timeout = v);
    "app.max_connections" "APP_MAX_CONNECTIONS" "10000" "most open connections per worker"
        Rule::Number(1..=1_000_000, |s, v| s.max_connections = v);
    "app.max_per_address" "APP_MAX_PER_ADDRESS" "0" "most connections from one address, 0 for any number"
        Rule::Number(0..=1_000_000, |s, v| s.max_per_address = v);
    "app.max_header" "APP_MAX_HEADER" "32768" "longest request head"
        Rule::Bytes(1024..=1_048_576, |s, v| s.max_header = v);
    "app.max_body" "APP_MAX_BODY" "1048576" "longest request body"
        Rule::Bytes(0..=1_073_741_824, |s, v| s.max_body = v);
    "app.log_level" "APP_LOG_LEVEL" "info" "how much the log says"
        Rule::Level(|s, v| s.log_level = v);
    "app.pid_file" "APP_PID_FILE" "run/app.pid" "pid file"
        Rule::Path(|s, v| s.place.pid_file = Place::under(&s.place.base, &v));
    "app.log_file" "APP_LOG_FILE" "run/app.log" "log file"
        Rule::Path(|s, v| {
            s.place.log_file = Place::under(&s.place.base, &v);
            s.log_file_is_set = true;
        });
    "app.socket" "APP_SOCKET" "run/app.sock" "control socket"
        Rule::Path(|s, v| s.place.socket = Place::under(&s.place.base, &v));
}

/// No settings file is longer than this, in bytes; it bounds what a wrong path can do.
const LONGEST: u64 = 1 << 20;

impl Settings {
    /// Reads everything there is. `env` looks up one variable; an empty one counts as unset.
    ///
    /// # Errors
    /// A flag or variable that cannot be used: exit status 2. A settings file that was named and
    /// is missing, cannot be read, or has a line that cannot be used: exit status 1.
    pub fn load(overrides: &Overrides, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings> {
        // 1. Where things are: by flag or environment, since the file is one of them.
        let base = path(&overrides.base_dir, "--base-dir", env, "APP_BASE_DIR")?;
        let base = PathBuf::from(base.map_or(Place::BASE.to_owned(), |(base, _)| base));
        let config = path(&overrides.config, "--config", env, "APP_CONFIG")?;
        let named_by = config.as_ref().map(|(_, by)| *by);
        let config = config.map_or(Place::CONFIG.to_owned(), |(config, _)| config);
        let config = Place::under(&base, Path::new(&config));

        // 2. Every key by its rank: default, file, environment, flag.
        let mut settings = Settings::defaults(base, config)?;
        if let Some(bytes) = read_file(&settings.place.config, named_by)? {
            settings.put_file(&bytes)?;
        }
        for key in KEYS {
            if let Some(value) = variable(env, key.variable)? {
                let expected = key.put(&mut settings, &value);
                expected.map_err(|e| Error::usage(format!("{} {value:?}: {e}", key.variable)))?;
            }
        }
        for (name, value) in &overrides.set {
            settings
                .put_pair(name, value)
                .map_err(|e| Error::usage(format!("--set {:?}: {e}", format!("{name}={value}"))))?;
        }
        if let Some(address) = &overrides.address {
            settings
                .put_pair("app.address", address)
                .map_err(|e| Error::usage(format!("--address {address:?}: {e}")))?;
        }
        match settings.place.clash() {
            Some(path) => Err(clash(path)),
            None => Ok(settings),
        }
    }

    /// The same settings with absolute paths, for a process that changes its directory.
    ///
    /// # Errors
    /// The current directory has been removed or cannot be read.
    pub fn absolute(self) -> io::Result<Settings> {
        let place = self.place.absolute()?;
        let address = self.address.absolute()?;
        Ok(Settings {
            place,
            address,
            ..self
        })
    }

    /// Whether `--set` knows the key, which may come without its prefix.
    pub fn has_key(name: &str) -> bool {
        find(name).is_some()
    }

    /// A line for every key, for people.
    pub fn help() -> String {
        let mut text = String::new();
        for Key {
            name,
            default,
            help,
            rule,
            ..
        } in KEYS
        {
            text += &format!(
                "  {name:<19} {help}: {}; default {default}\n",
                rule.expected()
            );
        }
        text
    }

    fn defaults(base: PathBuf, config: PathBuf) -> Result<Settings> {
        let unset = PathBuf::new;
        let mut settings = Settings {
            place: Place {
                base,
                config,
                pid_file: unset(),
                log_file: unset(),
                socket: unset(),
            },
            address: Address::Any { port: 0 },
            close_wait: Duration::ZERO,
            header_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            io_timeout: Duration::ZERO,
            workers: 0,
            threads: 0,
            queue: 0,
            handler_warn: Duration::ZERO,
            max_connections: 0,
            max_per_address: 0,
            max_header: 0,
            max_body: 0,
            log_level: Level::Info,
            log_file_is_set: false,
        };
        for key in KEYS {
            key.put(&mut settings, key.default)
                .map_err(|e| Error::failed(format!("default of {}: {e}", key.name)))?;
        }
        settings.log_file_is_set = false;
        Ok(settings)
    }

    fn put_file(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.place.config.display().to_string();
        let at = |line, text| Error::failed(format!("{file}:{line}: {text}"));
        for entry in conf::parse(bytes).map_err(|problem| at(problem.line, problem.text))? {
            let conf::Entry {
                key: name,
                value,
                line,
            } = entry;
            let key = KEYS.iter().find(|key| key.name == name);
            let key = key.ok_or_else(|| at(line, unknown(name)))?;
            key.put(self, value)
                .map_err(|e| at(line, format!("{name} {value:?}: {e}")))?;
        }
        Ok(())
    }

    fn put_pair(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        find(name).ok_or_else(|| unknown(name))?.put(self, value)
    }
}

impl Key {
    /// Gives the setting its value, or says what was expected.
    fn put(&self, settings: &mut Settings, value: &str) -> std::result::Result<(), String> {
        let expected = || format!("expected {}", self.rule.expected());
        match &self.rule {
            Rule::Address(set) => set(settings, Address::parse(value)?),
            Rule::Seconds(range, set) => {
                let seconds = whole(value, range).ok_or_else(expected)?;
                set(settings, Duration::from_secs(seconds));
            }
            Rule::Number(range, set) | Rule::Bytes(range, set) => {
                set(settings, whole(value, range).ok_or_else(expected)?);
            }
            Rule::Level(set) => {
                let level = Level::ALL
                    .into_iter()
                    .find(|level| level.name().eq_ignore_ascii_case(value));
                set(settings, level.ok_or_else(expected)?);
            }
            Rule::Path(set) => {
                if value.is_empty() || value.ends_with('/') {
                    return Err(expected());
                }
                set(settings, PathBuf::from(value));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn expected(&self) -> String {
        let span = |range: &RangeInclusive<usize>| format!("{} to {}", range.start(), range.end());
        match self {
            Rule::Address(_) => "host:port, :port or unix:path".to_owned(),
            Rule::Seconds(range, _) => {
                format!("whole seconds, {} to {}", range.start(), range.end())
            }
            Rule::Number(range, _) => format!("a whole number, {}", span(range)),
            Rule::Bytes(range, _) => format!("whole bytes, {}", span(range)),
            Rule::Level(_) => "error, warn, info or debug".to_owned(),
            Rule::Path(_) => "the path of a file".to_owned(),
        }
    }
}

/// The words for two purposes and one path.
pub fn clash(path: &Path) -> Error {
    let path = path.display();
    Error::failed(format!(
        "{path} is named for two purposes; each file needs a path of its own"
    ))
}

/// Digits alone, within the range; no sign, unit or point.
fn whole<T>(text: &str, range: &RangeInclusive<T>) -> Option<T>
where
    T: std::str::FromStr + PartialOrd,
{
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| is_digits && range.contains(number))
}

/// A key as the command line has it, with its prefix or without.
fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.name == name || key.name.strip_prefix(PREFIX) == Some(name))
}

fn unknown(name: &str) -> String {
    match nearest(name, KEYS.iter().map(|key| key.name)) {
        Some(key) => format!("unknown key {name:?}; did you mean {key:?}?"),
        None => format!("unknown key {name:?}"),
    }
}

/// A path from a flag or else a variable, with the name of what gave it.
fn path(
    flag: &Option<String>,
    flag_name: &'static str,
    env: &dyn Fn(&str) -> Option<OsString>,
    name: &'static str,
) -> Result<Option<(String, &'static str)>> {
    match flag {
        Some(path) if path.is_empty() => Err(Error::usage(format!(
            "{flag_name} {path:?}: expected a path"
        ))),
        Some(path) => Ok(Some((path.clone(), flag_name))),
        None => Ok(variable(env, name)?.map(|path| (path, name))),
    }
}

fn variable(env: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>> {
    match env(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) if value.is_empty() => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(value)) => Err(Error::usage(format!(
            "{name} {:?}: expected UTF-8",
            value.to_string_lossy()
        ))),
    }
}

/// The bytes of the settings file; `None` where nobody named one and there is none. A symbolic link
/// to nowhere is not "none": somebody meant something by it.
fn read_file(path: &Path, named_by: Option<&str>) -> Result<Option<Vec<u8>>> {
    let shown = path.display();
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes)) {
        Ok(read) if read as u64 <= LONGEST => Ok(Some(bytes)),
        Ok(_) => Err(Error::failed(format!(
            "cannot read {shown}: longer than {LONGEST} bytes"
        ))),
        Err(error) => {
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            let by = match named_by {
                Some(by) => format!("; named by {by}"),
                None if is_missing && fs::symlink_metadata(path).is_err() => return Ok(None),
                None => String::new(),
            };
            Err(Error::failed(format!("cannot read {shown}: {error}{by}")))
        }
    }
}

/// The name that someone may have meant by `word`, if one is close. Case, the `app.` in front, and
/// `-` for `_` do not count.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| {
        let text = text.to_lowercase().replace('-', "_");
        let bare = text
            .strip_prefix(PREFIX)
            .or_else(|| text.strip_prefix("app_"));
        bare.unwrap_or(&text).chars().collect::<Vec<char>>()
    };
    let word = plain(word);
    if word.len() > 64 {
        return None;
    }
    names
        .map(|name| {
            let plain = plain(name);
            (distance(&word, &plain), plain.len().max(word.len()), name)
        })
        .filter(|(distance, length, _)| distance * 3 <= *length)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, name)| name)
}

/// Letters to add, drop, change or swap with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_later_wins_and_reads_back_as_flags() {
        let set = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let then = Overrides {
            base_dir: Some("a".into()),
            address: Some(":1".into()),
            set: set(&[("threads", "3")]),
            ..Overrides::default()
        };
        let env = |name: &str| (name == "ADDRESS").then(|| OsString::from(":2"));
        let environment = Overrides::from_environment(&env).unwrap();
        assert_eq!(environment.set, set(&[("app.address", ":2")]));
        let both = then.clone().then(environment);
        assert_eq!(
            both.to_args(),
            [
                "--base-dir",
                "a",
                "--set",
                "threads=3",
                "--set",
                "app.address=:2"
            ]
        );
        assert_eq!(Overrides::from_args(both.to_args()), Ok(both.clone()));
        let again = both.clone().then(both.clone());
        assert_eq!(again, both, "it does not grow");
        assert_eq!(both.then(then.clone()).address, Some(":1".into()));
        assert_eq!(then.clone().then(Overrides::default()), then);
    }
    use crate::error::exit;
    use std::os::unix::ffi::OsStringExt;

    const FILE: &str = include_str!("../etc/app.conf");

    fn defaults() -> Settings {
        Settings::defaults(Place::BASE.into(), Place::CONFIG.into()).unwrap()
    }

    fn from_file(text: &str) -> Result<Settings> {
        let mut settings = defaults();
        settings.put_file(text.as_bytes()).map(|()| settings)
    }

    /// A directory of its own for a test, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("hade-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("etc")).unwrap();
            Scratch(path)
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.0.join(path), text).unwrap();
        }

        /// Loads what the words say: `--flag=value`, `VARIABLE=value` or the pair of a `--set`.
        fn load(&self, words: &str) -> Result<Settings> {
            let (mut variables, mut flags) = (Vec::new(), Overrides::default());
            flags.base_dir = self.0.to_str().map(str::to_owned);
            for word in words.split_whitespace() {
                let (name, value) = word.split_once('=').unwrap();
                let (name, value) = (name.to_owned(), value.to_owned());
                match name.as_str() {
                    "--address" => flags.address = Some(value),
                    "--base-dir" => flags.base_dir = Some(value),
                    "--config" => flags.config = Some(value),
                    _ if name == name.to_uppercase() => variables.push((name, value)),
                    _ => flags.set.push((name, value)),
                }
            }
            Settings::load(&flags, &|name| {
                let found = variables.iter().find(|(variable, _)| variable == name);
                found.map(|(_, value)| OsString::from(value))
            })
        }

        /// The exit status and the text, where this directory is `@`.
        fn error(&self, words: &str) -> (u8, String) {
            let error = self.load(words).unwrap_err();
            let text = error.to_string();
            (error.code(), text.replace(self.0.to_str().unwrap(), "@"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let settings = defaults();
        assert_eq!(settings.address, Address::Any { port: 8888 });
        assert_eq!(settings.close_wait, Duration::from_secs(5));
        assert_eq!(settings.header_timeout, Duration::from_secs(10));
        assert_eq!(settings.idle_timeout, Duration::from_secs(60));
        assert_eq!(settings.io_timeout, Duration::from_secs(30));
        assert_eq!(
            (settings.workers, settings.threads, settings.queue),
            (1, 64, 1024)
        );
        assert_eq!(settings.handler_warn, Duration::from_secs(10));
        assert_eq!(
            (settings.max_connections, settings.max_per_address),
            (10_000, 0)
        );
        assert_eq!(
            (settings.max_header, settings.max_body),
            (32 << 10, 1 << 20)
        );
        assert_eq!(
            (settings.log_level, settings.log_file_is_set),
            (Level::Info, false)
        );
        let place = &settings.place;
        assert_eq!(place.pid_file, Path::new("run/app.pid"));
        assert_eq!(place.log_file, Path::new("run/app.log"));
        assert_eq!(place.socket, Path::new("run/app.sock"));
    }

    #[test]
    fn the_shipped_file_is_the_table() {
        let mut uncommented = String::new();
        let mut about = "";
        for row in FILE.lines() {
            let Some(setting) = row.strip_prefix('#').filter(|row| row.starts_with(PREFIX)) else {
                assert!(row.is_empty() || row.starts_with("# "), "{row}");
                about = row;
                continue;
            };
            uncommented += &format!("{setting}\n");
            let name = setting.split_once(" = ").unwrap().0;
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            assert_eq!(about, format!("# {}: {}", key.help, key.rule.expected()));
        }
        let entries = conf::parse(uncommented.as_bytes()).unwrap();
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (entry.key, entry.value))
            .collect();
        let expected: Vec<_> = KEYS.iter().map(|key| (key.name, key.default)).collect();
        assert_eq!(found, expected);
        let mut read = from_file(&uncommented).unwrap();
        assert!(std::mem::take(&mut read.log_file_is_set));
        assert_eq!(read, defaults());
        assert_eq!(from_file(FILE), Ok(defaults()));
    }

    #[test]
    fn variables_follow_the_names_of_their_keys() {
        assert_eq!(KEYS[0].variable, "ADDRESS");
        for key in &KEYS[1..] {
            assert_eq!(key.variable, key.name.to_uppercase().replace('.', "_"));
        }
    }

    #[test]
    fn every_value_has_its_bounds() {
        for (name, good, bad) in [
            ("app.close_wait", "0", "3601"),
            ("app.close_wait", "3600", "-1"),
            ("app.close_wait", "007", "+5"),
            ("app.workers", "64", "65"),
            ("app.threads", "4096", "0"),
            ("app.header_timeout", "3600", "1.5"),
            ("app.idle_timeout", "86400", "1m"),
            ("app.io_timeout", "1", ""),
            ("app.max_connections", "1000000", "1e4"),
            ("app.max_header", "1024", "1023"),
            ("app.max_body", "0", "1073741825"),
            ("app.max_body", "1073741824", "99999999999999999999999"),
            ("app.queue", "0", "1000001"),
            ("app.handler_warn", "0", "86401"),
            ("app.max_per_address", "0", "1000001"),
            ("app.log_level", "Debug", "verbose"),
            ("app.pid_file", "/run/x.pid", ""),
            ("app.socket", "x", "run/"),
            ("app.address", "localhost:80", "localhost"),
        ] {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            assert_eq!(key.put(&mut defaults(), good), Ok(()), "{name} {good}");
            assert!(key.put(&mut defaults(), bad).is_err(), "{name} {bad}");
        }
    }

    #[test]
    fn the_file_is_told_what_is_wrong_with_it() {
        let cases = r#"
            |app.adress = :1 => 2: unknown key "app.adress"; did you mean "app.address"?
            close_wait = 5 => 1: unknown key "close_wait"; did you mean "app.close_wait"?
            APP_CLOSE_WAIT=5 => 1: unknown key "APP_CLOSE_WAIT"; did you mean "app.close_wait"?
            app.colour = red => 1: unknown key "app.colour"
            #||app.close_wait = 5s => 3: app.close_wait "5s": expected whole seconds, 0 to 3600
            app.workers = 0 => 1: app.workers "0": expected a whole number, 1 to 64
            app.max_body = 1M => 1: app.max_body "1M": expected whole bytes, 0 to 1073741824
            app.log_level = => 1: app.log_level "": expected error, warn, info or debug
            app.log_file = => 1: app.log_file "": expected the path of a file
            app.address = 80 => 1: app.address "80": expected host:port; did you mean ":80"?
            app.workers 2 => 1: expected key = value, found "app.workers 2"
            app.workers=2|app.workers=2 => 2: duplicate key "app.workers"; it is on line 1
        "#;
        for row in cases.trim().lines() {
            let (text, expected) = row.trim().split_once(" => ").unwrap();
            let error = from_file(&text.replace('|', "\n")).unwrap_err();
            assert_eq!(error.to_string(), format!("etc/app.conf:{expected}"));
            assert_eq!(error.code(), exit::FAILED);
        }
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let scratch = Scratch::new("precedence");
        let found = |words| {
            let settings = scratch.load(words).unwrap();
            format!("{} {}", settings.address, settings.workers)
        };
        assert_eq!(found(""), ":8888 1");
        scratch.write("etc/app.conf", "app.address = :2\napp.workers = 2\n");
        for (words, expected) in [
            ("", ":2 2"),
            ("ADDRESS=", ":2 2"),
            ("ADDRESS=:3 APP_WORKERS=3", ":3 3"),
            ("ADDRESS=:3 --address=:4 address=:5", ":4 2"),
            (
                "ADDRESS=:3 app.address=:6 APP_WORKERS=3 workers=4 app.workers=5",
                ":6 5",
            ),
        ] {
            assert_eq!(found(words), expected, "{words}");
        }
    }

    #[test]
    fn flags_and_variables_are_named_when_wrong() {
        let scratch = Scratch::new("usage");
        let cases = r#"
            --address=88 => --address "88": expected host:port; did you mean ":88"?
            ADDRESS=88 => ADDRESS "88": expected host:port; did you mean ":88"?
            APP_MAX_HEADER=1 => APP_MAX_HEADER "1": expected whole bytes, 1024 to 1048576
            threads=5k => --set "threads=5k": expected a whole number, 1 to 4096
            worker=5 => --set "worker=5": unknown key "worker"; did you mean "app.workers"?
            --base-dir= => --base-dir "": expected a path
            --config= => --config "": expected a path
        "#;
        for row in cases.trim().lines() {
            let (words, expected) = row.trim().split_once(" => ").unwrap();
            assert_eq!(scratch.error(words), (exit::USAGE, expected.to_owned()));
        }
        let odd = |name: &str| (name == "APP_SOCKET").then(|| OsString::from_vec(vec![b'a', 0xff]));
        let error = Settings::load(&Overrides::default(), &odd).unwrap_err();
        let expected = "APP_SOCKET \"a\u{fffd}\": expected UTF-8";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_file_may_be_missing_unless_it_was_named() {
        let scratch = Scratch::new("missing");
        assert!(scratch.load("").is_ok());
        let cases = r#"
            --config=x => @/x: No such file or directory (os error 2); named by --config
            APP_CONFIG=/dev/null/x => /dev/null/x: Not a directory (os error 20); named by APP_CONFIG
            --config=etc => @/etc: Is a directory (os error 21); named by --config
            --config=/dev/zero => /dev/zero: longer than 1048576 bytes
        "#;
        for row in cases.trim().lines() {
            let (words, expected) = row.trim().split_once(" => ").unwrap();
            let expected = format!("cannot read {expected}");
            assert_eq!(scratch.error(words), (exit::FAILED, expected));
        }
        let config = scratch.0.join("etc/app.conf");
        std::os::unix::fs::symlink("nowhere", &config).unwrap();
        let expected = "cannot read @/etc/app.conf: No such file or directory (os error 2)";
        assert_eq!(scratch.error("").1, expected);
        fs::remove_file(&config).unwrap();
        fs::create_dir(&config).unwrap();
        let expected = "cannot read @/etc/app.conf: Is a directory (os error 21)";
        assert_eq!(scratch.error("").1, expected);
    }

    #[test]
    fn everything_is_under_the_base_directory() {
        let scratch = Scratch::new("base");
        let text = "app.address = unix:run/http.sock\napp.socket = /run/x.sock\n";
        scratch.write("other.conf", text);
        let base = scratch.0.to_str().unwrap();
        let env = |name: &str| match name {
            "APP_BASE_DIR" => Some(OsString::from(base)),
            "APP_CONFIG" => Some(OsString::from("other.conf")),
            _ => None,
        };
        let settings = Settings::load(&Overrides::default(), &env).unwrap();
        assert_eq!(settings.place.base, scratch.0);
        assert_eq!(settings.place.config, scratch.0.join("other.conf"));
        assert_eq!(settings.place.pid_file, scratch.0.join("run/app.pid"));
        assert_eq!(settings.place.socket, Path::new("/run/x.sock"));
        assert_eq!(
            settings.address,
            Address::Unix(scratch.0.join("run/http.sock"))
        );
        assert_eq!(settings.clone().absolute().unwrap(), settings);

        let here = std::env::current_dir().unwrap();
        for (base, under) in [(".", ""), ("no-such", "no-such")] {
            let mut settings = Settings::defaults(base.into(), "app.conf".into()).unwrap();
            settings.put_pair("address", "unix:http.sock").unwrap();
            let settings = settings.absolute().unwrap();
            let expected = Address::Unix(here.join(under).join("http.sock"));
            assert_eq!(settings.address, expected);
            assert_eq!(
                settings.place.log_file,
                here.join(under).join("run/app.log")
            );
        }
    }

    #[test]
    fn the_log_file_is_known_to_be_set() {
        let scratch = Scratch::new("log");
        for (words, expected) in [
            ("", false),
            ("log_file=run/app.log", true),
            ("APP_LOG_FILE=x.log", true),
            ("APP_LOG_FILE= APP_PID_FILE=x.pid", false),
        ] {
            let settings = scratch.load(words).unwrap();
            assert_eq!(settings.log_file_is_set, expected, "{words}");
        }
    }

    #[test]
    fn near_misses_find_their_name() {
        let names = ["app.address", "app.close_wait", "start", "--daemon"];
        for (word, expected) in [
            ("adress", Some("app.address")),
            ("app.addresses", Some("app.address")),
            ("close-wiat", Some("app.close_wait")),
            ("APP.CLOSE_WAIT", Some("app.close_wait")),
            ("strat", Some("start")),
            ("--deamon", Some("--daemon")),
            ("", None),
            ("stop it now", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), names.into_iter()), None);
    }
}
