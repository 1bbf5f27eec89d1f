//! A directory of its own for every test, and the real binary in it.

use crate::support::{
    Done, Foreground, Site, Wire, get, is_alive, pause, run, wait_until, working_in,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The ready binary.
pub const HADE: &str = env!("CARGO_BIN_EXE_hade");

/// The application with handlers that are slow, large, wrong or deadly.
pub fn demo() -> PathBuf {
    let path = Path::new(HADE).with_file_name("examples").join("demo");
    assert!(
        path.exists(),
        "{} is missing: \"cargo test\" builds it, a single target does not",
        path.display()
    );
    path
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory. When it goes, what still runs in it is stopped, by TERM, then by KILL; where the test
/// failed, the log is shown first.
pub struct Place {
    pub dir: PathBuf,
    program: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        Place::of(Path::new(HADE))
    }

    pub fn demo() -> Place {
        Place::of(&demo())
    }

    pub fn of(program: &Path) -> Place {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hade-it-{}-{number}", std::process::id()));
        fs::create_dir(&dir).expect("a fresh directory");
        Place {
            dir,
            program: program.to_owned(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        self.read("run/app.log")
    }

    /// Lines of the log that say that something is wrong. That workers run as root is no matter here.
    pub fn trouble(&self) -> String {
        let log = self.log();
        let is_bad = |line: &&str| {
            [" error ", " warn ", "panic"]
                .iter()
                .any(|word| line.contains(word))
                && !line.contains("workers run as root")
        };
        log.lines().filter(is_bad).collect()
    }

    /// The program with nothing of this process's environment but PATH.
    pub fn command(&self, args: &[&str]) -> Command {
        self.wrapped(&[], args)
    }

    /// The program behind others that execute it: `unshare`, `strace`, a shell.
    pub fn wrapped(&self, before: &[&str], args: &[&str]) -> Command {
        let program = self.program.to_str().unwrap();
        let mut words = before
            .iter()
            .copied()
            .chain([program])
            .chain(args.iter().copied());
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(&self.dir).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null());
        command
    }

    /// Runs `<program> app <args>` to its end.
    pub fn app(&self, args: &[&str]) -> Done {
        let args: Vec<&str> = ["app"].into_iter().chain(args.iter().copied()).collect();
        run(&mut self.command(&args))
    }

    /// Starts a daemon on a free port of 127.0.0.1, with more flags; where it is.
    #[track_caller]
    pub fn start(&self, more: &[&str]) -> Site {
        let args: Vec<&str> = ["start", "--daemon", "--address", "127.0.0.1:0"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        Site::of(&self.app(&args).ok())
    }

    /// The number in the pid file.
    pub fn pid(&self) -> Option<u32> {
        self.read("run/app.pid").trim().parse().ok()
    }

    /// Starts `<program> app start <args>` in the foreground and waits for its word.
    #[track_caller]
    pub fn foreground(&self, args: &[&str]) -> Foreground {
        let args: Vec<&str> = ["app", "start", "--address", "127.0.0.1:0"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        Foreground::of(self.command(&args))
    }

    /// Waits for these words in the log.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) {
        wait_until(20, &format!("{words:?} in the log"), || {
            self.log().contains(words)
        });
    }

    /// Starts the demo in the foreground with its log in `run/app.log`.
    #[track_caller]
    pub fn foreground_with_log(&self, args: &[&str]) -> Foreground {
        self.foreground(&[&["--set", "app.log_file=run/app.log"], args].concat())
    }

    /// A request that its handler has and will not answer before [`Place::release`].
    #[track_caller]
    pub fn hold(&self, site: &Site, name: &str) -> Wire {
        let mut wire = site.connect();
        wire.send(get(&format!("/hold?name={name}")));
        self.wait_held(name);
        wire
    }

    #[track_caller]
    pub fn wait_held(&self, name: &str) {
        let held = self.path(&format!("{name}.held"));
        wait_until(20, &format!("{name} reaches its handler"), || held.exists());
    }

    pub fn release(&self, name: &str) {
        self.write(&format!("{name}.go"), "");
    }

    /// Begins `<program> app <args>`; [`finish`] waits for its end.
    pub fn begin(&self, args: &[&str]) -> Child {
        let args: Vec<&str> = ["app"].into_iter().chain(args.iter().copied()).collect();
        let mut command = self.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it can be run")
    }

    /// Waits until no process of this test is left.
    #[track_caller]
    pub fn wait_empty(&self, seconds: u64) {
        wait_until(seconds, "no process is left behind", || {
            working_in(&self.dir).into_iter().all(|pid| !is_alive(pid))
        });
    }

    /// Puts a copy of the demo into the directory, and starts it from there as [`Place::start`] does. Commands go on
    /// to be those of the demo that nobody touches.
    #[track_caller]
    pub fn start_copy(&self, more: &[&str]) -> Site {
        self.put_demo("prog");
        let args: Vec<&str> = ["start", "--daemon", "--address", "127.0.0.1:0"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        Site::of(&self.app_of("prog", &args).ok())
    }

    /// Runs `<dir>/<name> app <args>` to its end.
    pub fn app_of(&self, name: &str, args: &[&str]) -> Done {
        run(&mut self.command_of(name, args))
    }

    pub fn command_of(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.path(name));
        command
            .arg("app")
            .args(args)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    /// Starts the demo where there seems to be so much memory; a quarter of it is what clients may make it keep. Needs
    /// namespaces.
    #[track_caller]
    pub fn start_with_memory(&self, bytes: usize, more: &[&str]) -> Site {
        let script = r#"
            bytes=$1; shift
            mount -t tmpfs none /sys/fs/cgroup
            echo "$bytes" >/sys/fs/cgroup/memory.max
            exec "$@"
        "#;
        let bytes = bytes.to_string();
        let before = ["unshare", "-rm", "sh", "-ec", script, "sh", &bytes];
        let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
        Site::of(&run(&mut self.wrapped(&before, &[&args[..], more].concat())).ok())
    }

    /// Gives the directory to a user that nobody else is, and commands that run as that user: a limit of threads counts
    /// all that a user has.
    pub fn as_new_user(&self) -> impl Fn() -> Command + use<> {
        static USERS: AtomicU32 = AtomicU32::new(0);
        let number = USERS.fetch_add(1, Ordering::Relaxed);
        let user = (1_000_000 + 16 * std::process::id() + number).to_string();
        self.sh(r#"chown "$1" ."#, &[&user]);
        move || {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
            command
        }
    }

    /// Puts the demo under this name in one step, as `mv` does.
    pub fn put_demo(&self, name: &str) {
        let new = self.path(&format!("{name}.new"));
        if fs::hard_link(demo(), &new).is_err() {
            fs::copy(demo(), &new).unwrap();
        }
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Puts an executable file with this content there, in one step. It is a process of its own that writes it: a
    /// file that this process has open for writing may be open in a child of another test's at the same moment, and
    /// could not be executed then (ETXTBSY).
    pub fn put_program(&self, name: &str, content: &str) {
        self.sh(
            r#"printf '%s' "$2" >"$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#,
            &[name, content],
        );
    }

    /// Runs a line of shell in the directory.
    #[track_caller]
    pub fn sh(&self, line: &str, args: &[&str]) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh"]).args(args);
        run(command.current_dir(&self.dir)).ok()
    }

    /// What `state --json` says under a key; of a list or an object the beginning.
    #[track_caller]
    pub fn fact(&self, key: &str) -> String {
        let json = self.app(&["state", "--json"]).ok();
        fact(&json, key)
    }

    /// Waits until so many requests are in flight: one whose answer is here may still be for a moment.
    #[track_caller]
    pub fn wait_in_flight(&self, number: u64) {
        let what = format!("{number} in flight");
        wait_until(20, &what, || self.count("in_flight") == number);
    }

    #[track_caller]
    pub fn count(&self, key: &str) -> u64 {
        let fact = self.fact(key);
        fact.parse().unwrap_or_else(|_| panic!("{key}: {fact}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- run/app.log in {}\n{}---",
                self.dir.display(),
                self.log()
            );
        }
        // Whatever works in this directory is this test's: masters, workers, and what they left behind.
        for signal in ["-TERM", "-KILL"] {
            let ours = working_in(&self.dir);
            if ours.is_empty() {
                break;
            }
            let _ = Command::new("kill")
                .arg(signal)
                .args(ours.iter().map(u32::to_string))
                .stderr(Stdio::null())
                .status();
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until && !working_in(&self.dir).is_empty() {
                pause();
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The value of a key in one object of JSON.
#[track_caller]
pub fn fact(json: &str, key: &str) -> String {
    let name = format!("\"{key}\":");
    let at = json.find(&name).unwrap_or_else(|| panic!("{key}: {json}"));
    json[at + name.len()..]
        .split([',', '}', '\n'])
        .next()
        .unwrap()
        .trim_matches('"')
        .to_owned()
}
