//! An application: its handlers, and the commands that every one has. One file per command, told top to bottom.
#![forbid(unsafe_code)]

mod check;
mod restart;
mod running;
mod start;
mod state;
mod stop;

use crate::cli::{self, Command, Parsed};
use crate::error::{Error, Result, exit};
use crate::http::Request;
use crate::http::response::Response;
use crate::http::routes::Routes;
use crate::settings::Settings;
use crate::supervisor::handover::Handover;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Runs in every new worker before it says that it is ready.
type Boot = Box<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// What a master and its workers need to know of an application.
#[derive(Clone)]
pub(crate) struct Service {
    pub name: String,
    pub routes: Arc<Routes>,
    pub boot: Option<Arc<Boot>>,
    /// The program's path as it was started, so that a file put in its place is found at a restart.
    pub program: PathBuf,
}

impl Service {
    /// The executable's base name with a suffix, in the 15 bytes that the kernel keeps: it is the base that is cut.
    pub fn title(&self, suffix: &str) -> String {
        let executable = std::env::current_exe().ok();
        let base = executable
            .as_deref()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy());
        // What the kernel adds when the file was replaced.
        let base = base
            .as_deref()
            .unwrap_or(&self.name)
            .trim_end_matches(" (deleted)");
        let room = 15usize.saturating_sub(suffix.len());
        let cut = (0..=base.len().min(room))
            .rev()
            .find(|at| base.is_char_boundary(*at))
            .unwrap_or(0);
        format!("{}{suffix}", &base[..cut])
    }
}

/// An HTTP application: handlers in, the commands `start`, `state`, `stop`, `restart` and `check` out.
///
/// ```no_run
/// use hade::{App, Response};
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     App::new("greeter").get("/hello", |_| Response::text("Hello, World!")).main()
/// }
/// ```
pub struct App {
    name: String,
    routes: Routes,
    boot: Option<Boot>,
}

impl App {
    /// An application without routes of its own. The name is what its messages begin with. `/healthz` is there
    /// from the start: 200 while the service serves, restarts included, 503 from the moment it stops.
    pub fn new(name: impl Into<String>) -> App {
        App {
            name: name.into(),
            routes: Routes::default(),
            boot: None,
        }
    }

    /// Answers `GET` and `HEAD` of this path. Handlers are called by several threads at a time; one that panics is
    /// answered 500.
    pub fn get(
        self,
        path: &str,
        handler: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> App {
        self.route("GET", path, handler)
    }

    /// Answers `POST` of this path.
    pub fn post(
        self,
        path: &str,
        handler: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> App {
        self.route("POST", path, handler)
    }

    /// Answers any other method of this path. A path is compared byte by byte as it is sent, without the query;
    /// the last handler given for a method and path counts.
    pub fn route(
        mut self,
        method: &str,
        path: &str,
        handler: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> App {
        self.routes.add(method, path, Box::new(handler));
        self
    }

    /// Gives the bodies of this path's requests a limit of their own, in bytes, instead of `app.max_body`. Longer ones
    /// are answered 413 before they are read.
    pub fn max_body(mut self, path: &str, bytes: u64) -> App {
        self.routes.limit(path, bytes);
        self
    }

    /// Runs in every new worker before it takes requests: the place to open connections and to start threads, which
    /// must not exist before (a process with threads cannot fork safely). An error, or more than ten seconds, and
    /// the worker counts as failed: the start fails with these words.
    pub fn boot(
        mut self,
        boot: impl Fn() -> std::result::Result<(), String> + Send + Sync + 'static,
    ) -> App {
        self.boot = Some(Box::new(boot));
        self
    }

    /// Does what the command line says, prints the one error if there is one, and returns the exit status.
    pub fn main(self) -> ExitCode {
        let App { name, routes, boot } = self;
        let service = Service {
            name,
            routes: Arc::new(routes),
            boot: boot.map(Arc::new),
            program: program_path(),
        };
        let name = service.name.clone();
        ExitCode::from(
            run(service, std::env::args_os().skip(1)).unwrap_or_else(|error| {
                // A closed standard error must not turn an error into a panic.
                let _ = writeln!(std::io::stderr(), "{name}: {error}");
                error.code()
            }),
        )
    }
}

fn run(service: Service, args: impl Iterator<Item = OsString>) -> Result<u8> {
    let cli = match cli::parse(&service.name, args)? {
        Parsed::Help(text) => {
            print(&text);
            return Ok(exit::DONE);
        }
        Parsed::Run(cli) => cli,
    };
    let settings = Settings::load(&cli.overrides, &|name| std::env::var_os(name));
    let is_start = matches!(cli.command, Command::Start { .. });
    if let Some(handover) = is_start.then(Handover::take).flatten() {
        return crate::supervisor::restart::resume(service, settings, cli.overrides, handover)
            .map(|()| exit::DONE);
    }
    let settings = match (settings, cli.command) {
        // To look at what runs, and to stop it, needs no more of the settings than where it is.
        (Err(wrong), Command::State { .. } | Command::Stop { .. }) => {
            running::settings_of_what_runs(&cli.overrides).ok_or(wrong)?
        }
        (settings, _) => settings?,
    };
    match cli.command {
        Command::Start { daemon, ready_fd } => {
            start::start(service, settings, cli.overrides, daemon, ready_fd)
        }
        Command::State { json, probe } => state::state(&service, &settings, json, probe),
        Command::Stop { force } => stop::stop(&service, &settings, force),
        Command::Restart { cold } => self::restart::restart(service, settings, cli.overrides, cold),
        Command::Check => check::check(&service, &settings),
    }
}

/// The path that this program was started by: as given with a slash in it, found in PATH otherwise. Symbolic links
/// stay, so that one that is turned to a new release is followed; but it must lead to the program that runs here.
fn program_path() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let running = std::env::current_exe().unwrap_or_default();
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let itself = identity(Path::new("/proc/self/exe"));
    let given = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let candidates: Vec<PathBuf> = if given.as_os_str().as_encoded_bytes().contains(&b'/') {
        vec![given]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|directory| directory.join(&given))
            .collect()
    };
    let found = candidates
        .into_iter()
        .find(|path| itself.is_some() && identity(path) == itself);
    found
        .and_then(|path| std::path::absolute(path).ok())
        .unwrap_or(running)
}

/// Prints a result. A standard output that is closed is the caller's choice.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Asks who runs; an error names the file.
fn who(settings: &Settings) -> Result<crate::pidfile::Runs> {
    let path = &settings.place.pid_file;
    crate::pidfile::who(path).map_err(|error| {
        Error::failed(format!(
            "cannot tell who runs: cannot read {}: {error}",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_fit_into_15_bytes_and_keep_their_suffix() {
        let service = Service {
            name: "hade".into(),
            routes: Arc::default(),
            boot: None,
            program: PathBuf::new(),
        };
        // The name of a test executable is long.
        for suffix in [" app", " worker"] {
            let title = service.title(suffix);
            assert!(
                title.len() <= 15 && title.ends_with(suffix) && !title.starts_with(suffix),
                "{title}"
            );
        }
    }
}
