//! The settings: flag over environment over file over default, as plain final values.
//! One table, `KEYS`, says what there is; the file, the environment, `--set` and help all read it.
//! What the values do is no matter here; of the file system only the settings file is touched.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::access::{AccessLog, Format};
use crate::address::Address;
use crate::conf;
use crate::error::{Error, Result};
use crate::level::Level;
use crate::place::{Place, is_among};
use crate::proxies::{self, Proxies};
use crate::serving::{Serving, full_name};
use crate::spelling::{distance, nearest};
use crate::sys::fd::{O_NOCTTY, O_NONBLOCK};
use crate::syslog;
use crate::user::User;

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
        for key in keys() {
            if let Some(value) = variable(env, key.variable)? {
                found.set.push((key.name.to_owned(), value));
            }
        }
        Ok(found)
    }

    /// These, where `later` does not say otherwise. An address in `later` wins however it is put.
    pub fn then(self, later: Overrides) -> Overrides {
        let key = |name: &str| {
            let one = find(name).map(|key| key.name.to_owned());
            one.or_else(|| full_name(name).map(|name| name.to_lowercase()))
        };
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

    /// The same without settings of the program's own, and these as variables: what is in a command line anybody on the
    /// machine can read, and they may be secrets. An empty value has no variable.
    pub fn hidden(&self) -> (Overrides, Vec<(&'static str, String)>) {
        let own = |name: &str| {
            let mut own = OWN.get().into_iter().flatten();
            own.find(|key| key.name == name).map(|key| key.variable)
        };
        let (mut shown, mut variables) = (self.clone(), Vec::new());
        shown.set.retain(|(name, value)| match own(name) {
            Some(variable) if !value.is_empty() => {
                variables.push((variable, value.clone()));
                false
            }
            _ => true,
        });
        (shown, variables)
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

/// hade's own files, which nobody gets to see.
pub struct OwnFiles {
    /// Those whose paths are known.
    pub paths: Vec<PathBuf>,
    /// Directories that have more of them: all files, or what a log of this name has become, `app.log.2` or
    /// `app.log-20261126.gz`.
    pub directories: Vec<(PathBuf, Option<OsString>)>,
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
    /// How long it serves on when it is told to stop.
    pub stop_delay: Duration,
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
    /// Whether anyone has named that number, or it is the default.
    pub max_connections_is_set: bool,
    /// Most connections from one address; zero for no bound.
    pub max_per_address: usize,
    /// Who is believed when it says for whom it asks.
    pub trusted_proxies: Proxies,
    /// Whether `/metrics` is answered.
    pub metrics: bool,
    /// Whether `/status` is answered.
    pub status: bool,
    /// Who may ask for them beside this machine.
    pub status_allow: Proxies,
    /// Longest request head, in bytes.
    pub max_header: usize,
    /// Longest request body, in bytes.
    pub max_body: usize,
    /// How much the log says.
    pub log_level: Level,
    /// Longest log file, in bytes; zero for no bound.
    pub log_max: u64,
    /// Whether the log file was named by anyone, or is the default.
    pub log_file_is_set: bool,
    /// Where answers are told of.
    pub access_log: AccessLog,
    /// How one of them is.
    pub access_format: Format,
    /// Whom workers become, in a service of root's.
    pub user: Option<User>,
    /// What is served from the disk, and how.
    pub serving: Serving,
    /// Those of the program itself, by name.
    pub own: Vec<(String, String)>,
    /// What is not the default, key and value as written.
    given: Vec<(String, String)>,
}

/// What a value must be, and where it goes.
enum Rule {
    Address(fn(&mut Settings, Address)),
    Seconds(RangeInclusive<u64>, fn(&mut Settings, Duration)),
    Number(RangeInclusive<usize>, fn(&mut Settings, usize)),
    Bytes(RangeInclusive<usize>, fn(&mut Settings, usize)),
    /// Zero stands for none.
    Bound(RangeInclusive<usize>, fn(&mut Settings, usize)),
    Level(fn(&mut Settings, Level)),
    Path(fn(&mut Settings, PathBuf)),
    Directory(fn(&mut Settings, Option<PathBuf>)),
    Page(fn(&mut Settings, Option<String>)),
    Prefixes(fn(&mut Settings, Vec<String>)),
    Switch(fn(&mut Settings, bool)),
    Proxies(fn(&mut Settings, Proxies)),
    Networks(fn(&mut Settings, Proxies)),
    AccessLog(fn(&mut Settings, AccessLog)),
    Format(fn(&mut Settings, Format)),
    User(fn(&mut Settings, Option<User>)),
    /// Text, of a setting of the program's own.
    Own,
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
    "app.stop_delay" "APP_STOP_DELAY" "0" "serve on when told to stop, with /healthz 503, before the drain"
        Rule::Seconds(0..=3600, |s, v| s.stop_delay = v);
    "app.workers" "APP_WORKERS" "1" "worker processes"
        Rule::Number(1..=64, |s, v| s.workers = v);
    "app.user" "APP_USER" "" "the user that workers become, where root starts it"
        Rule::User(|s, v| s.user = v);
    "app.threads" "APP_THREADS" "64" "most handler threads per worker"
        Rule::Number(1..=4096, |s, v| s.threads = v);
    "app.queue" "APP_QUEUE" "1024" "requests that may wait for a handler thread"
        Rule::Number(0..=1_000_000, |s, v| s.queue = v);
    "app.handler_warn" "APP_HANDLER_WARN" "10" "a handler that takes longer is named in the log, 0 for none"
        Rule::Seconds(0..=86400, |s, v| s.handler_warn = v);
    "app.header_timeout" "APP_HEADER_TIMEOUT" "10" "a request head must arrive within"
        Rule::Seconds(1..=3600, |s, v| s.header_timeout = v);
    "app.idle_timeout" "APP_IDLE_TIMEOUT" "75" "a connection may stay without a request for"
        Rule::Seconds(1..=86400, |s, v| s.idle_timeout = v);
    "app.io_timeout" "APP_IO_TIMEOUT" "30" "a body or response may make no progress for"
        Rule::Seconds(1..=3600, |s, v| s.io_timeout = v);
    "app.max_connections" "APP_MAX_CONNECTIONS" "10000" "most open connections per worker"
        Rule::Number(1..=1_000_000, |s, v| {
            s.max_connections = v;
            s.max_connections_is_set = true;
        });
    "app.max_per_address" "APP_MAX_PER_ADDRESS" "0" "most connections from one address, 0 for any number"
        Rule::Number(0..=1_000_000, |s, v| s.max_per_address = v);
    "app.trusted_proxies" "APP_TRUSTED_PROXIES" "" "whose X-Forwarded-For is believed"
        Rule::Proxies(|s, v| s.trusted_proxies = v);
    "app.metrics" "APP_METRICS" "false" "whether /metrics answers with numbers for Prometheus"
        Rule::Switch(|s, v| s.metrics = v);
    "app.status" "APP_STATUS" "false" "whether /status answers with a page of numbers for people"
        Rule::Switch(|s, v| s.status = v);
    "app.status_allow" "APP_STATUS_ALLOW" "" "who may ask for the numbers, beside this machine"
        Rule::Networks(|s, v| s.status_allow = v);
    "app.max_header" "APP_MAX_HEADER" "32768" "longest request head"
        Rule::Bytes(1024..=1_048_576, |s, v| s.max_header = v);
    "app.max_body" "APP_MAX_BODY" "1048576" "longest request body"
        Rule::Bytes(0..=1_073_741_824, |s, v| s.max_body = v);
    "app.root" "APP_ROOT" "" "the directory whose files are served"
        Rule::Directory(|s, v| {
            s.serving.root = v.map(|path| Place::under(&s.place.base, &path));
        });
    "app.fallback" "APP_FALLBACK" "" "what answers for unknown pages of a single-page application"
        Rule::Page(|s, v| s.serving.fallback = v);
    "app.immutable" "APP_IMMUTABLE" "" "what the paths of files begin with that never change"
        Rule::Prefixes(|s, v| s.serving.immutable = v);
    "app.listing" "APP_LISTING" "false" "whether a directory without index.html is listed"
        Rule::Switch(|s, v| s.serving.listing = v);
    "app.log_level" "APP_LOG_LEVEL" "info" "how much the log says"
        Rule::Level(|s, v| s.log_level = v);
    "app.pid_file" "APP_PID_FILE" "run/app.pid" "pid file"
        Rule::Path(|s, v| s.place.pid_file = Place::under(&s.place.base, &v));
    "app.log_max" "APP_LOG_MAX" "0" "longest log file, also of the access log, then it becomes NAME.1"
        Rule::Bound(4096..=1_073_741_824, |s, v| s.log_max = v as u64);
    "app.log_file" "APP_LOG_FILE" "run/app.log" "log file, or syslog for the log of the system"
        Rule::Path(|s, v| {
            s.place.log_file = match v == Path::new("syslog") {
                true => syslog::PATH.into(),
                false => Place::under(&s.place.base, &v),
            };
            s.log_file_is_set = true;
        });
    "app.access_log" "APP_ACCESS_LOG" "auto" "a line for every answer"
        Rule::AccessLog(|s, v| {
            let under = v.map(|path| Ok::<_, Error>(Place::under(&s.place.base, &path)));
            s.access_log = under.unwrap_or_default();
        });
    "app.access_format" "APP_ACCESS_FORMAT" "short" "what such a line looks like"
        Rule::Format(|s, v| s.access_format = v);
    "app.socket" "APP_SOCKET" "run/app.sock" "control socket"
        Rule::Path(|s, v| s.place.socket = Place::under(&s.place.base, &v));
}

/// Those of the program itself, once it has named them.
static OWN: OnceLock<Vec<Key>> = OnceLock::new();

/// All there are.
fn keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(OWN.get().into_iter().flatten())
}

/// A setting of the program's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub name: String,
    pub default: String,
    pub help: String,
}

/// Variables that mean something to the system, or to whoever starts the program.
const TAKEN: [&str; 23] = [
    "ADDRESS",
    "CREDENTIALS_DIRECTORY",
    "DISPLAY",
    "EDITOR",
    "GID",
    "HOME",
    "HOSTNAME",
    "IFS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LANG",
    "LOGNAME",
    "MAIL",
    "MAINPID",
    "OLDPWD",
    "PAGER",
    "PATH",
    "PWD",
    "SHELL",
    "TERM",
    "TZ",
    "UID",
    "USER",
];
const TAKEN_PREFIXES: [&str; 6] = ["APP_", "HADE_", "LC_", "LD_", "LISTEN_", "NOTIFY_"];

impl Own {
    fn variable(&self) -> String {
        self.name.to_uppercase().replace('.', "_")
    }

    /// Why it cannot be had beside these, for people.
    pub fn problem(&self, others: &[Own]) -> Option<String> {
        let (name, variable) = (&self.name, self.variable());
        let is_good =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.bytes().all(is_good) {
            return Some(format!(
                "setting {name:?}: expected small letters, digits, dots and underscores"
            ));
        }
        let is_hades = name.starts_with(PREFIX) || name == "app" || full_name(name).is_some();
        if is_hades
            || KEYS
                .iter()
                .any(|key| key.name.strip_prefix(PREFIX) == Some(name))
        {
            return Some(format!("setting {name:?}: hade has one of that name"));
        }
        let mut prefixes = TAKEN_PREFIXES.iter();
        if TAKEN.contains(&variable.as_str()) || prefixes.any(|prefix| variable.starts_with(prefix))
        {
            return Some(format!(
                "setting {name:?}: the variable {variable} means something else"
            ));
        }
        let is_there = others.iter().any(|other| other.variable() == variable);
        is_there.then(|| format!("setting {name:?} is there twice"))
    }
}

/// The program has these of its own. Once in a process, before any settings are read.
pub fn name_own(own: &[Own]) {
    let keys = own.iter().map(|own| Key {
        name: String::leak(own.name.clone()),
        variable: String::leak(own.variable()),
        default: String::leak(own.default.clone()),
        help: String::leak(own.help.clone()),
        rule: Rule::Own,
    });
    let _ = OWN.set(keys.collect());
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
        Settings::read(overrides, env, read_file)
    }

    /// The same with those lines of the settings file that are good, for where it has a mistake: what runs may be where
    /// they say.
    ///
    /// # Errors
    /// A flag or variable that cannot be used: exit status 2. A file that cannot be read: exit status 1.
    pub fn from_good_lines(
        overrides: &Overrides,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Settings> {
        Settings::read(overrides, env, |path, named_by| {
            let bytes = read_file(path, named_by)?.unwrap_or_default();
            let mut tried = Settings::defaults(Place::BASE.into(), Place::CONFIG.into())?;
            let (mut good, mut keys) = (Vec::new(), Vec::new());
            for line in bytes.split(|byte| *byte == b'\n') {
                let entries = conf::parse(line).unwrap_or_default();
                let Some(entry) = entries.first() else {
                    continue;
                };
                // Where a key comes twice the first one counts.
                if !keys.contains(&entry.key) && tried.put_file(line).is_ok() {
                    keys.push(entry.key);
                    good.extend_from_slice(line);
                    good.push(b'\n');
                }
            }
            Ok(Some(good))
        })
    }

    /// The same without the settings file, for where it cannot be read or counts no more.
    ///
    /// # Errors
    /// A flag or variable that cannot be used: exit status 2.
    pub fn without_file(
        overrides: &Overrides,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Settings> {
        Settings::read(overrides, env, |_, _| Ok(None))
    }

    fn read(
        overrides: &Overrides,
        env: &dyn Fn(&str) -> Option<OsString>,
        read_file: impl Fn(&Path, Option<&str>) -> Result<Option<Vec<u8>>>,
    ) -> Result<Settings> {
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
        for key in keys() {
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
        match settings.clash() {
            Some(path) => Err(clash(&path)),
            None => Ok(settings),
        }
    }

    /// A path that is named for two purposes, if there is one.
    pub fn clash(&self) -> Option<PathBuf> {
        let files = self.place.files();
        let of_access_log = self.access_log.file();
        let of_access_log = of_access_log.filter(|path| is_among(path, &files));
        self.place.clash().or_else(|| of_access_log.cloned())
    }

    /// Every setting that is not the default, as written: enough for [`Settings::hold`].
    pub fn given(&self) -> Vec<(String, String)> {
        self.given.clone()
    }

    /// The settings that [`Settings::given`] told of, without a look at any file or variable. What is not known here,
    /// for it is another version's, is left out.
    pub fn hold(place: Place, given: &[(String, String)]) -> Settings {
        let (base, config) = (place.base.clone(), place.config.clone());
        // The defaults are good values, which a test sees to.
        let mut settings = Settings::defaults(base.clone(), config.clone())
            .unwrap_or_else(|_| Settings::unset(base, config));
        for (name, value) in given {
            let _ = settings.put_pair(name, value);
        }
        Settings { place, ..settings }
    }

    /// The same settings with absolute paths, for a process that changes its directory.
    ///
    /// # Errors
    /// The current directory has been removed or cannot be read.
    pub fn absolute(self) -> io::Result<Settings> {
        let place = self.place.absolute()?;
        let address = self.address.absolute()?;
        let mut serving = self.serving;
        serving.root = serving.root.map(std::path::absolute).transpose()?;
        Ok(Settings {
            place,
            address,
            serving,
            access_log: self.access_log.map(std::path::absolute)?,
            ..self
        })
    }

    /// Whether `--set` knows the key, which may come without its prefix.
    pub fn has_key(name: &str) -> bool {
        find(name).is_some() || full_name(name).is_some()
    }

    /// hade's own files, which it never serves: the settings, all that it makes, and what has become of it by the hand of
    /// others, who turn logs and pack them. Its sockets are no files that anybody could be sent.
    pub fn own_files(&self) -> OwnFiles {
        let place = &self.place;
        let logs = [Some(&place.log_file), self.access_log.file()];
        let logs: Vec<&PathBuf> = logs.into_iter().flatten().collect();
        let mut paths = vec![
            place.config.clone(),
            place.pid_file.clone(),
            place.lock_file(),
        ];
        paths.extend(logs.iter().map(|log| log.to_path_buf()));
        let parent = |path: &PathBuf| path.parent().map(Path::to_owned);
        let mut directories: Vec<_> = [&place.pid_file, &place.socket]
            .into_iter()
            .filter_map(|path| Some((parent(path)?, None)))
            .collect();
        directories.dedup();
        directories.extend(logs.into_iter().filter_map(|log| {
            let name = log.file_name()?.to_owned();
            Some((parent(log)?, Some(name)))
        }));
        OwnFiles { paths, directories }
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
            let default = if default.is_empty() { "none" } else { default };
            text += &format!(
                "  {name:<19} {help}: {}; default {default}\n",
                rule.expected()
            );
        }
        text += "  app.header.NAME     one more field for all that app.root answers, Cache-Control for 200, 206 and 304 alone; not in the environment\n";
        text += "  app.type.EXT        the type of files that end in .EXT, as text/plain; not in the environment\n";
        for Key {
            name,
            variable,
            default,
            help,
            ..
        } in OWN.get().into_iter().flatten()
        {
            let default = if default.is_empty() { "none" } else { default };
            text +=
                &format!("  {name:<19} {help}, {variable} in the environment; default {default}\n");
        }
        text
    }

    fn unset(base: PathBuf, config: PathBuf) -> Settings {
        let unset = PathBuf::new;
        Settings {
            place: Place {
                base,
                config,
                pid_file: unset(),
                log_file: unset(),
                socket: unset(),
            },
            address: Address::Any { port: 0 },
            close_wait: Duration::ZERO,
            stop_delay: Duration::ZERO,
            header_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            io_timeout: Duration::ZERO,
            workers: 0,
            threads: 0,
            queue: 0,
            handler_warn: Duration::ZERO,
            max_connections: 0,
            max_connections_is_set: false,
            max_per_address: 0,
            trusted_proxies: Proxies::default(),
            metrics: false,
            status: false,
            status_allow: Proxies::default(),
            max_header: 0,
            max_body: 0,
            log_level: Level::Info,
            log_max: 0,
            log_file_is_set: false,
            access_log: AccessLog::Auto,
            access_format: Format::Short,
            user: None,
            serving: Serving::default(),
            own: Vec::new(),
            given: Vec::new(),
        }
    }

    fn defaults(base: PathBuf, config: PathBuf) -> Result<Settings> {
        let mut settings = Settings::unset(base, config);
        for key in keys() {
            key.set(&mut settings, key.default)
                .map_err(|e| Error::failed(format!("default of {}: {e}", key.name)))?;
        }
        settings.log_file_is_set = false;
        settings.max_connections_is_set = false;
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
            let dynamic = name
                .starts_with(PREFIX)
                .then(|| self.serving.put(name, value));
            if let Some(put) = dynamic.flatten() {
                put.map_err(|e| at(line, format!("{name} {value:?}: {e}")))?;
                self.give(name, value);
                continue;
            }
            let key = keys().find(|key| key.name == name);
            let key = key.ok_or_else(|| at(line, unknown(name)))?;
            key.put(self, value)
                .map_err(|e| at(line, format!("{name} {value:?}: {e}")))?;
        }
        Ok(())
    }

    /// Notes what was given last.
    fn give(&mut self, name: &str, value: &str) {
        self.given.retain(|(other, _)| other != name);
        self.given.push((name.to_owned(), value.to_owned()));
    }

    fn put_pair(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        if let Some(put) = self.serving.put(name, value) {
            put?;
            self.give(name, value);
            return Ok(());
        }
        find(name).ok_or_else(|| unknown(name))?.put(self, value)
    }
}

impl Key {
    /// Gives the setting its value, and notes that, or says what was expected.
    fn put(&self, settings: &mut Settings, value: &str) -> std::result::Result<(), String> {
        self.set(settings, value)?;
        settings.give(self.name, value);
        Ok(())
    }

    fn set(&self, settings: &mut Settings, value: &str) -> std::result::Result<(), String> {
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
            Rule::Bound(range, set) => {
                let bytes = whole(value, &(0..=*range.end()));
                let bytes = bytes.filter(|bytes| *bytes == 0 || range.contains(bytes));
                set(settings, bytes.ok_or_else(expected)?);
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
            Rule::Directory(set) => {
                set(settings, (!value.is_empty()).then(|| PathBuf::from(value)));
            }
            Rule::Page(set) => {
                let page = value.strip_prefix('/').unwrap_or(value);
                let is_name = |name: &str| !name.is_empty() && !name.starts_with('.');
                if !value.is_empty() && !page.split('/').all(is_name) {
                    return Err(expected());
                }
                set(settings, (!page.is_empty()).then(|| page.to_owned()));
            }
            Rule::Prefixes(set) => {
                let parts = value.split(',').map(str::trim);
                let prefixes: Vec<String> = parts.map(str::to_owned).collect();
                match prefixes.iter().all(|prefix| prefix.starts_with('/')) {
                    true => set(settings, prefixes),
                    false if value.is_empty() => set(settings, Vec::new()),
                    false => return Err(expected()),
                }
            }
            Rule::Switch(set) => match value {
                "true" | "yes" | "on" | "1" => set(settings, true),
                "false" | "no" | "off" | "0" => set(settings, false),
                _ => return Err(expected()),
            },
            Rule::Proxies(set) => set(settings, Proxies::parse(value)?),
            Rule::Networks(set) => set(settings, Proxies::parse_networks(value)?),
            Rule::AccessLog(_) if value == "syslog" => {
                let text = "expected on, which with app.log_file = syslog is the system log";
                return Err(text.to_owned());
            }
            Rule::AccessLog(set) => set(settings, AccessLog::parse(value).ok_or_else(expected)?),
            Rule::Format(set) => set(settings, Format::parse(value).ok_or_else(expected)?),
            Rule::User(set) if value.is_empty() => set(settings, None),
            Rule::User(set) => set(settings, Some(User::parse(value).ok_or_else(expected)?)),
            Rule::Own => {
                settings.own.retain(|(name, _)| name != self.name);
                settings.own.push((self.name.to_owned(), value.to_owned()));
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
            Rule::Bound(range, _) => format!("whole bytes, {}, or 0 for none", span(range)),
            Rule::Level(_) => "error, warn, info or debug".to_owned(),
            Rule::Path(_) => "the path of a file".to_owned(),
            Rule::Directory(_) => "a directory, or nothing".to_owned(),
            Rule::Page(_) => "a file under app.root, or nothing".to_owned(),
            Rule::Prefixes(_) => "beginnings of paths, such as /assets/,/_app/".to_owned(),
            Rule::Switch(_) => "true or false".to_owned(),
            Rule::Proxies(_) => proxies::EXPECTED.to_owned(),
            Rule::Networks(_) => proxies::NETWORKS.to_owned(),
            Rule::AccessLog(_) => "auto, off, on or the path of a file".to_owned(),
            Rule::Format(_) => "short, combined or json".to_owned(),
            Rule::User(_) => "NAME, NAME:GROUP, numbers such as 65534:65534, or nothing".to_owned(),
            Rule::Own => "text".to_owned(),
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
    keys().find(|key| key.name == name || key.name.strip_prefix(PREFIX) == Some(name))
}

fn unknown(name: &str) -> String {
    match nearest(name, keys().map(|key| key.name)) {
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
    let read = open_plain(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    match read {
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

/// Opens a file, or where a link leads to, without waiting for whoever writes into a FIFO.
fn open_plain(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open(path)?;
    let found = file.metadata()?;
    // The null device says "nothing" wherever a file is asked for: 1,3 in null(4).
    let is_null = found.file_type().is_char_device() && found.rdev() == 0x103;
    // Reading a directory is an error with better words.
    match found.is_file() || found.is_dir() || is_null {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Variables that nobody reads and somebody may have meant for hade, each with the one that was meant: within two letters
/// of it, and of a short one within fewer. Others have an `APP_PORT` or `APP_SECRET` of their own.
pub fn misspelled<'a>(
    variables: impl Iterator<Item = &'a OsString>,
) -> Vec<(String, &'static str)> {
    let known = || {
        let keys = keys().map(|key| key.variable);
        keys.chain(["APP_BASE_DIR", "APP_CONFIG"])
            .filter(|name| name.starts_with("APP_"))
    };
    let letters = |name: &str| name.chars().skip("APP_".len()).collect::<Vec<char>>();
    let meant = |name: &str| {
        let word = letters(name);
        let near = known().map(|known| {
            let wanted = letters(known);
            let most = (word.len().max(wanted.len()) / 4).min(2);
            let far = distance(&word, &wanted);
            (far, far <= most, known)
        });
        let near = near.filter(|(_, is_near, _)| *is_near);
        near.min_by_key(|(far, ..)| *far).map(|(_, _, known)| known)
    };
    let names = variables.filter_map(|name| name.to_str());
    let mut found: Vec<(String, &'static str)> = names
        .filter(|name| name.starts_with("APP_") && name.len() <= 64)
        .filter(|name| !["APP_ENV", "APP_NAME"].contains(name))
        .filter(|name| known().all(|known| known != *name))
        .filter_map(|name| meant(name).map(|meant| (name.to_owned(), meant)))
        .collect();
    found.sort();
    found
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
        assert_eq!(settings.idle_timeout, Duration::from_secs(75));
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
            let name = setting.split_once(" =").unwrap().0;
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
        assert!(std::mem::take(&mut read.max_connections_is_set));
        assert_eq!(read.given().len(), KEYS.len());
        let held = Settings::hold(read.place.clone(), &read.given());
        assert_eq!(
            held,
            Settings {
                log_file_is_set: true,
                max_connections_is_set: true,
                ..read.clone()
            }
        );
        read.given.clear();
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
            ("app.stop_delay", "3600", "3601"),
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
            ("app.log_max", "0", "4095"),
            ("app.log_max", "1073741824", "1073741825"),
            ("app.pid_file", "/run/x.pid", ""),
            ("app.socket", "x", "run/"),
            ("app.fallback", "/a/index.html", "../index.html"),
            ("app.fallback", "", "a//b"),
            ("app.immutable", "/a/, /b", "/a/,b"),
            ("app.immutable", "", "/a/,"),
            ("app.listing", "true", "maybe"),
            ("app.trusted_proxies", "unix, ::1", "localhost"),
            ("app.metrics", "on", "maybe"),
            ("app.status", "on", "maybe"),
            ("app.status_allow", "10.0.0.0/8, ::1", "unix"),
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
            app.header.X = => 1: app.header.X "": expected the value of a header field
            app.header.A B = c => 1: app.header.A B "c": expected the name of a header field behind app.header.
            app.header. = c => 1: app.header. "c": expected the name of a header field behind app.header.
            app.header.etag = "x" => 1: app.header.etag "\"x\"": the field etag is set by hade
            |app.header.Vary = * => 2: app.header.Vary "*": the field Vary is set by hade
            app.type.tar.gz = a/b => 1: app.type.tar.gz "a/b": expected one extension behind app.type., without its dot
            app.type.dat = text => 1: app.type.dat "text": expected a media type such as text/plain
            app.typ.dat = a/b => 1: unknown key "app.typ.dat"
            header.X = y => 1: unknown key "header.X"
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
        scratch.write("long", &"#".repeat(LONGEST as usize + 1));
        let cases = r#"
            --config=x => @/x: No such file or directory (os error 2); named by --config
            APP_CONFIG=/dev/null/x => /dev/null/x: Not a directory (os error 20); named by APP_CONFIG
            --config=etc => @/etc: Is a directory (os error 21); named by --config
            --config=/dev/zero => /dev/zero: it is not a regular file; named by --config
            --config=long => @/long: longer than 1048576 bytes
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
            ("log_file=syslog", true),
            ("APP_LOG_FILE=x.log", true),
            ("APP_LOG_FILE= APP_PID_FILE=x.pid", false),
        ] {
            let settings = scratch.load(words).unwrap();
            assert_eq!(settings.log_file_is_set, expected, "{words}");
        }
    }

    #[test]
    fn fields_and_types_are_named_by_whoever_sets_them() {
        let scratch = Scratch::new("named");
        scratch.write(
            "etc/app.conf",
            "app.header.X-One = 1\napp.header.Cache-Control = no-store\napp.type.dat = text/plain\n",
        );
        let serving = scratch.load("").unwrap().serving;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = [pair("X-One", "1"), pair("Cache-Control", "no-store")];
        assert_eq!(serving.headers, headers);
        assert_eq!(serving.types, [pair("dat", "text/plain")]);
        let words = "app.header.x-one=2 header.X-Two=3 type.DAT=a/b type.x=a/b;c=d";
        let serving = scratch.load(words).unwrap().serving;
        assert_eq!(
            serving.headers,
            [
                pair("Cache-Control", "no-store"),
                pair("x-one", "2"),
                pair("X-Two", "3")
            ]
        );
        assert_eq!(serving.types, [pair("dat", "a/b"), pair("x", "a/b;c=d")]);
        let (code, text) = scratch.error("header.Server=me");
        assert_eq!(code, exit::USAGE);
        assert_eq!(
            text,
            "--set \"header.Server=me\": the field Server is set by hade"
        );
        // What is said later goes before what was said earlier, however it is spelled.
        let said = |name: &str| Overrides {
            set: vec![pair(name, "1")],
            ..Overrides::default()
        };
        let both = said("header.X-A").then(said("app.header.x-a"));
        assert_eq!(both.set, [pair("app.header.x-a", "1")]);
        let both = said("header.X-A").then(said("header.X-B"));
        assert_eq!(both.set.len(), 2);
    }

    #[test]
    fn the_root_is_under_the_base_directory() {
        let scratch = Scratch::new("root");
        let found = |words| scratch.load(words).unwrap().serving.root;
        assert_eq!(found(""), None);
        assert_eq!(found("APP_ROOT=public"), Some(scratch.0.join("public")));
        assert_eq!(found("APP_ROOT=public root=/srv"), Some("/srv".into()));
        assert_eq!(found("APP_ROOT=public root="), None);
    }

    #[test]
    fn variables_that_were_misspelled_are_found_and_others_let_alone() {
        let found = |name: &str| {
            let found = misspelled([OsString::from(name)].iter());
            found.first().map(|(_, meant)| *meant)
        };
        for (name, meant) in [
            ("APP_WORKRS", "APP_WORKERS"),
            ("APP_WORKER", "APP_WORKERS"),
            ("APP_CLOSEWAIT", "APP_CLOSE_WAIT"),
            ("APP_LOGLEVLE", "APP_LOG_LEVEL"),
            ("APP_TREADS", "APP_THREADS"),
            ("APP_BASEDIR", "APP_BASE_DIR"),
            ("APP_CONFG", "APP_CONFIG"),
            ("APP_ROT", "APP_ROOT"),
        ] {
            assert_eq!(found(name), Some(meant), "{name}");
        }
        for name in [
            "APP_ENV",
            "APP_NAME",
            "APP_PORT",
            "APP_HOST",
            "APP_KEY",
            "APP_DEBUG",
            "APP_URL",
            "APP_VERSION",
            "APP_SECRET",
            "APP_MODE",
            "APP_WORKERS",
            "APP_BASE_DIR",
            "APP_",
            "MYAPP_WORKRS",
            "app_workrs",
        ] {
            assert_eq!(found(name), None, "{name}");
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
