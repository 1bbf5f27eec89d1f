//! Another user of the machine gains nothing: not by what it plants in `run/`, not by what it locks or listens at, not
//! by what it answers. Each is done by a real second user, and in every way that service, directory and file can belong
//! to somebody.

use crate::look::{AS_NOBODY, Bystander, WITHOUT_MEMFD, copy, is_root, mode};
use crate::support::{
    HADE, Meanwhile, Place, Site, has, run, signal, skip, wait_until, worker, working_in,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// One that is open to every user.
const PYTHON: &str = "/usr/bin/python3";

/// A user that nobody else is.
fn new_user() -> u32 {
    static USERS: AtomicU32 = AtomicU32::new(0);
    2_000_000_000 + 64 * (std::process::id() % 1_000_000) + USERS.fetch_add(1, Ordering::Relaxed)
}

/// A place that everybody may enter, with a copy of hade that everybody may run.
struct Town {
    place: Place,
}

impl Town {
    fn new() -> Option<Town> {
        if !(is_root() && has("setpriv")) {
            return None;
        }
        if !Path::new(PYTHON).exists() {
            skip("needs a python3 that every user may run");
            return None;
        }
        let place = Place::new();
        copy(Path::new(HADE), &place.path("hade"));
        for path in [place.path("hade"), place.dir.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Town { place })
    }

    /// A `run/` of this owner and mode.
    fn make_run(&self, owner: u32, mode: u32) {
        let run = self.place.path("run");
        fs::create_dir_all(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(mode)).unwrap();
        chown(&run, Some(owner), Some(owner)).unwrap();
    }

    /// The program as this user; 0 is root itself.
    fn command(&self, uid: u32, args: &[&str]) -> Command {
        let mut command = as_user(uid, self.place.path("hade").to_str().unwrap());
        command.arg("app").args(args).current_dir(&self.place.dir);
        command.env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    fn app(&self, uid: u32, args: &[&str]) -> crate::support::Done {
        run(&mut self.command(uid, args))
    }

    fn start(&self, uid: u32) -> Site {
        Site::of(
            &self
                .app(uid, &["start", "-d", "--address", "127.0.0.1:0"])
                .ok(),
        )
    }

    /// A file of root's that must stay as it is.
    fn victim(&self) -> Victim {
        let path = self.place.path("victim");
        fs::write(&path, "precious\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        Victim(path)
    }
}

fn as_user(uid: u32, program: &str) -> Command {
    if uid == 0 {
        return Command::new(program);
    }
    let uid = uid.to_string();
    let mut command = Command::new(AS_NOBODY[0]);
    command.args([
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
        "--",
        program,
    ]);
    command
}

struct Victim(std::path::PathBuf);

impl Victim {
    #[track_caller]
    fn is_unharmed(&self) {
        assert_eq!(fs::read_to_string(&self.0).unwrap(), "precious\n");
        let found = fs::metadata(&self.0).unwrap();
        assert_eq!((found.uid(), mode(&self.0)), (0, 0o604));
    }
}

/// A process of some user that runs a script, and has said that it is ready.
struct Actor(Child);

impl Actor {
    fn new(uid: u32, dir: &Path, script: &str) -> Actor {
        let script =
            format!("{script}\nprint('ready', flush=True)\nimport time\ntime.sleep(600)\n");
        let mut command = as_user(uid, PYTHON);
        command
            .args(["-c", &script])
            .current_dir(dir)
            .stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let actor = Actor(child);
        assert_eq!(line, "ready\n");
        actor
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    #[track_caller]
    fn is_unharmed(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "it was killed");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Locks a file: `LOCK_EX` or `LOCK_SH` as `fcntl(2)` has it.
fn locks(path: &str, how: &str) -> String {
    let open = if how == "LOCK_EX" {
        "O_RDWR"
    } else {
        "O_RDONLY"
    };
    format!(
        "import fcntl, os\nlocked = os.open('{path}', os.{open})\nfcntl.lockf(locked, fcntl.{how} | fcntl.LOCK_NB)"
    )
}

/// Listens at a path and says the same to whoever asks.
fn answers(path: &str, answer: &str) -> String {
    let answer = answer.as_bytes();
    format!(
        "import socket, threading\n\
         listener = socket.socket(socket.AF_UNIX)\n\
         listener.bind('{path}')\n\
         listener.listen(16)\n\
         def serve():\n    \
             while True:\n        \
                 stream, _ = listener.accept()\n        \
                 try:\n            \
                     stream.recv(4096)\n            \
                     stream.sendall(bytes({answer:?}))\n        \
                 except OSError:\n            \
                     pass\n        \
                 stream.close()\n\
         threading.Thread(target=serve, daemon=True).start()"
    )
}

/// Everything that a link in the place of a file could do.
const PLANTS: [&str; 4] = ["link", "hard link", "fifo", "directory"];

fn plant(town: &Town, what: &str, name: &str, owner: u32) -> Victim {
    let victim = town.victim();
    let path = town.place.path(name);
    match what {
        "link" => {
            symlink(&victim.0, &path).unwrap();
            std::os::unix::fs::lchown(&path, Some(owner), Some(owner)).unwrap();
        }
        "hard link" => fs::hard_link(&victim.0, &path).unwrap(),
        "fifo" => {
            town.place.sh(
                "mkfifo \"$1\" && chown \"$2\" \"$1\"",
                &[name, &owner.to_string()],
            );
        }
        _ => {
            fs::create_dir(&path).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
    }
    victim
}

#[test]
fn what_is_planted_in_run_is_neither_followed_nor_changed() {
    for name in ["run/app.lock", "run/app.pid", "run/app.log"] {
        for what in PLANTS {
            let Some(town) = Town::new() else { return };
            let stranger = new_user();
            town.make_run(stranger, 0o777);
            let victim = plant(&town, what, name, stranger);
            let before = fs::symlink_metadata(town.place.path(name)).unwrap();
            for command in [
                &["start", "-d", "--address", "127.0.0.1:0"][..],
                &[
                    "start",
                    "--address",
                    "127.0.0.1:0",
                    "--set",
                    "log_file=run/app.log",
                ],
                &["restart", "--address", "127.0.0.1:0"],
            ] {
                let said = town.app(0, command);
                assert_eq!(said.code, Some(1), "{what} as {name}: {said:?}");
                let line = said.err.lines().last().unwrap_or_default();
                assert!(
                    line.starts_with(&format!("hade: cannot write {name}: it "))
                        || line.starts_with(&format!(
                            "hade: cannot tell who runs: cannot read {name}: it "
                        )),
                    "{what} as {name}: {said:?}"
                );
            }
            victim.is_unharmed();
            let after = fs::symlink_metadata(town.place.path(name)).unwrap();
            assert_eq!(
                (before.ino(), before.uid(), before.mode()),
                (after.ino(), after.uid(), after.mode())
            );
            assert_eq!(working_in(&town.place.dir), [], "{what} as {name}");
        }
    }
}

#[test]
fn a_file_of_somebody_else_is_refused_and_one_of_roots_or_ones_own_is_not() {
    let Some(_) = Town::new() else { return };
    let (us, other) = (new_user(), new_user());
    for name in ["run/app.lock", "run/app.pid", "run/app.log"] {
        for (caller, owner) in [(0, other), (us, other), (us, us), (0, 0), (us, 0)] {
            let Some(town) = Town::new() else { return };
            town.make_run(caller, 0o755);
            town.place.write(name, "");
            let path = town.place.path(name);
            // Only what one may write to anyway is of interest.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
            let said = town.app(caller, &["start", "-d", "--address", "127.0.0.1:0"]);
            // The lock is for its owner alone; of the others root may have made what its user writes to.
            if owner == other || (owner != caller && name == "run/app.lock") {
                assert_eq!(
                    said.failed(1),
                    format!(
                        "hade: cannot write {name}: it belongs to uid {owner}, this is uid {caller}\n"
                    )
                );
                assert_eq!(mode(&path), 0o666, "it is left alone");
                continue;
            }
            said.ok();
            assert!(town.app(0, &["state"]).ok().contains(" serving, "));
            town.app(caller, &["stop"]).ok();
        }
    }
}

/// Sockets are bound, which follows no link; and what is in the way is not removed unless it is one.
#[test]
fn what_is_planted_in_the_place_of_a_socket_stays_there() {
    for (name, address) in [
        ("run/app.sock", "127.0.0.1:0"),
        ("run/http.sock", "unix:run/http.sock"),
    ] {
        for what in PLANTS {
            let Some(town) = Town::new() else { return };
            let stranger = new_user();
            town.make_run(stranger, 0o777);
            let victim = plant(&town, what, name, stranger);
            let before = fs::symlink_metadata(town.place.path(name)).unwrap();
            let said = town.app(0, &["start", "-d", "--address", address]);
            assert_eq!(said.code, Some(1), "{what} as {name}: {said:?}");
            assert!(
                said.err.contains("it exists and is not a socket"),
                "{what} as {name}: {said:?}"
            );
            victim.is_unharmed();
            let after = fs::symlink_metadata(town.place.path(name)).unwrap();
            assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
        }
    }
}

/// On kernels without `memfd_create` the counters begin their life as a file.
#[test]
fn the_counters_are_not_written_to_what_is_planted_in_their_place() {
    if !has("python3") {
        return;
    }
    for what in ["link", "hard link", "fifo"] {
        let Some(town) = Town::new() else { return };
        let stranger = new_user();
        town.make_run(stranger, 0o777);
        let victim = plant(&town, what, "run/.ledger", stranger);
        let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
        let said = run(&mut town.place.wrapped(&WITHOUT_MEMFD, &args));
        assert_eq!(said.code, Some(0), "{what}: {said:?}");
        assert_eq!(Site::of(&said.out).get("/").status, 200);
        victim.is_unharmed();
        assert!(fs::symlink_metadata(town.place.path("run/.ledger")).is_err());
        town.app(0, &["stop"]).ok();
    }
}

#[test]
fn who_may_ask_and_stop_whose_service() {
    let Some(_) = Town::new() else { return };
    let (user, other) = (new_user(), new_user());
    for service in [0, user] {
        for caller in [0, user, other] {
            let Some(town) = Town::new() else { return };
            town.make_run(service, 0o755);
            let site = town.start(service);
            let may = caller == 0 || caller == service;
            let state = town.app(caller, &["state"]);
            let cold = town.app(caller, &["restart", "--cold"]);
            if !may {
                let text = format!(
                    "hade: cannot tell who runs: cannot read run/app.lock: Permission denied (os error 13); it belongs to uid {service}, this is uid {caller}\n"
                );
                assert_eq!(state.failed(4), text);
                let json = town.app(caller, &["state", "--json"]);
                assert_eq!(json.code, Some(4));
                assert!(
                    json.out
                        .starts_with("{\"running\":null,\"reason\":\"cannot tell who runs: "),
                    "{json:?}"
                );
                assert_eq!(cold.failed(1), text);
                assert_eq!(town.app(caller, &["state", "--probe"]).failed(1), text);
                for command in ["stop", "restart"] {
                    assert_eq!(town.app(caller, &[command]).failed(1), text);
                }
                assert_eq!(site.get("/").status, 200);
                town.app(0, &["stop"]).ok();
                continue;
            }
            let shown = state.ok();
            assert!(
                shown.starts_with(&format!("hade: running, pid {}, on ", site.pid)),
                "{shown}"
            );
            let user_line = format!("\n  user         uid {service}\n");
            assert_eq!(shown.contains(&user_line), caller != service, "{shown}");
            if caller == service {
                cold.ok();
            } else {
                assert_eq!(
                    cold.failed(1),
                    format!(
                        "hade: no cold restart of pid {}: it runs as uid {service}, and what this command starts would run as uid 0; use \"app restart\", or be that user\n",
                        site.pid
                    )
                );
                assert_eq!(town.place.pid(), Some(site.pid));
            }
            let pid = town.place.pid().unwrap();
            let before = worker(pid);
            town.app(caller, &["restart"]).ok();
            assert_ne!(worker(pid), before);
            assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), service);
            town.app(caller, &["state", "--probe"]).ok();
            let said = town.app(caller, &["stop"]).ok();
            assert!(
                said.starts_with(&format!("hade: stopped pid {pid} ")),
                "{said}"
            );
        }
    }
}

/// The attack with `app.pid` of many a daemon, here on the lock: a link to a file that a process of root's has locked.
#[test]
fn a_process_of_roots_is_not_killed_by_way_of_what_it_locked() {
    for what in ["link", "hard link"] {
        let Some(town) = Town::new() else { return };
        let stranger = new_user();
        town.make_run(stranger, 0o755);
        let victim = plant(&town, what, "run/app.lock", stranger);
        let mut locker = Actor::new(0, &town.place.dir, &locks("victim", "LOCK_EX"));
        for command in [
            &["stop"][..],
            &["stop", "--force"],
            &["restart"],
            &["restart", "--cold"],
        ] {
            let said = town.app(0, command).failed(1);
            assert!(
                said.starts_with("hade: cannot tell who runs: cannot read run/app.lock: it "),
                "{said}"
            );
        }
        locker.is_unharmed();
        victim.is_unharmed();
    }
    // A file of the stranger's own that a process of root's locks, as a mail spool is.
    let Some(town) = Town::new() else { return };
    let stranger = new_user();
    town.make_run(stranger, 0o755);
    town.place.write("run/app.lock", "");
    chown(town.place.path("run/app.lock"), Some(stranger), None).unwrap();
    let mut locker = Actor::new(0, &town.place.dir, &locks("run/app.lock", "LOCK_EX"));
    let text = format!(
        "hade: run/app.lock is locked by pid {} of uid 0, which is no master of this service\n",
        locker.pid()
    );
    assert_eq!(town.app(0, &["stop"]).failed(1), text);
    assert_eq!(town.app(0, &["state"]).failed(4), text);
    locker.is_unharmed();
}

#[test]
fn a_read_lock_of_a_stranger_is_named_and_never_taken_for_a_master() {
    let Some(town) = Town::new() else { return };
    let (user, stranger) = (new_user(), new_user());
    town.make_run(user, 0o755);
    // As hade makes it nobody else can open it.
    town.start(user);
    let tries = as_user(stranger, PYTHON)
        .args(["-c", &locks("run/app.lock", "LOCK_SH")])
        .current_dir(&town.place.dir)
        .stderr(Stdio::null())
        .status();
    assert!(!tries.unwrap().success(), "a stranger could lock it");
    town.app(user, &["stop"]).ok();
    // Somebody made it readable, and a stranger was there.
    fs::set_permissions(
        town.place.path("run/app.lock"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let mut reader = Actor::new(stranger, &town.place.dir, &locks("run/app.lock", "LOCK_SH"));
    for caller in [user, 0] {
        assert_eq!(town.app(caller, &["state"]).code, Some(3));
        let said = town.app(caller, &["stop", "--force"]).ok();
        assert_eq!(said, "hade: not running\n");
        reader.is_unharmed();
    }
    let named = format!(
        "hade: cannot lock run/app.lock: pid {} of uid {stranger} has it locked, which is no master of this service; end it\n",
        reader.pid()
    );
    for command in ["start", "restart"] {
        let args = [command, "-d", "--address", "127.0.0.1:0"];
        let args: Vec<&str> = args
            .into_iter()
            .filter(|word| command == "start" || *word != "-d")
            .collect();
        assert_eq!(town.app(user, &args).failed(1), named);
    }
    assert_eq!(
        mode(&town.place.path("run/app.lock")),
        0o600,
        "the next one cannot"
    );
    reader.is_unharmed();
}

#[test]
fn a_read_lock_on_the_pid_file_is_in_nobodys_way() {
    let Some(town) = Town::new() else { return };
    let (user, stranger) = (new_user(), new_user());
    town.make_run(user, 0o755);
    let site = town.start(user);
    let mut reader = Actor::new(stranger, &town.place.dir, &locks("run/app.pid", "LOCK_SH"));
    town.app(user, &["restart"]).ok();
    let said = town.app(user, &["restart", "--cold"]).ok();
    assert!(
        said.starts_with(&format!("hade: stopped pid {} ", site.pid)),
        "{said}"
    );
    town.app(user, &["stop"]).ok();
    assert_eq!(town.app(user, &["state"]).code, Some(3));
    town.start(user);
    reader.is_unharmed();
    town.app(0, &["stop"]).ok();
    reader.is_unharmed();
}

/// A stranger's own directory, with everything there that makes a master.
fn impostor(town: &Town, stranger: u32, answer: &str) -> Actor {
    town.make_run(stranger, 0o755);
    town.place.write("run/app.lock", "");
    let lock = town.place.path("run/app.lock");
    chown(&lock, Some(stranger), Some(stranger)).unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
    let script = [
        locks("run/app.lock", "LOCK_EX"),
        answers("run/app.sock", answer),
    ]
    .join("\n");
    Actor::new(stranger, &town.place.dir, &script)
}

#[test]
fn root_takes_neither_flags_nor_environment_from_an_impostor() {
    let Some(town) = Town::new() else { return };
    let stranger = new_user();
    let victim = town.victim();
    let answer = format!(
        "daemon\ttrue\nflags\t--set\tlog_file={}\t--set\tapp.config=x\n",
        victim.0.display()
    );
    let mut impostor = impostor(&town, stranger, &answer);
    let said = town.app(0, &["restart", "--cold"]).failed(1);
    assert!(
        said.starts_with(&format!(
            "hade: no cold restart of pid {}: it runs as uid {stranger}, ",
            impostor.pid()
        )),
        "{said}"
    );
    victim.is_unharmed();
    impostor.is_unharmed();
    // Nor may it have the files of its directory written by root.
    let said = town
        .app(0, &["start", "-d", "--address", "127.0.0.1:0"])
        .failed(1);
    assert_eq!(
        said,
        format!("hade: cannot write run/app.lock: it belongs to uid {stranger}, this is uid 0\n")
    );
}

#[test]
fn what_an_impostor_says_is_text_and_json_stays_json() {
    let Some(town) = Town::new() else { return };
    let stranger = new_user();
    let evil = "\u{1b}]0;owned\u{7}\u{202e}";
    let answer = format!(
        "pid\t7,\"x\":1\naddress\t{evil}%0Ahade: stopped\nreachable\t\ngeneration\t{evil}\nrestarting\tmaybe\ndaemon\t{{\n\
         connections\t1]\nin_flight\t-\nrequests\t01\naccepted\t1e9\nbacklog\t{evil}\nworker_deaths\t[\n\
         worker\t{{\t{evil}\tx\t]\t}}\t\"\t,\t1\nrefused\t\"a\t{{\nlast_restart\t0\tno\t{evil}\n"
    );
    let impostor = impostor(&town, stranger, &answer);
    let clean =
        |text: &str| !text.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}'));
    let screen = town.app(0, &["state"]).ok();
    assert!(clean(&screen), "{screen:?}");
    assert!(
        screen.contains("\\u{1b}]0;owned\\u{7}\\u{202e}"),
        "{screen}"
    );
    assert!(
        !screen.lines().any(|line| line.starts_with("hade: stopped")),
        "{screen}"
    );
    let json = town.app(0, &["state", "--json"]).ok();
    assert!(clean(&json), "{json:?}");
    let parsed = run(Command::new(PYTHON).args([
        "-c",
        "import json, sys; found = json.loads(sys.argv[1]); print(found['requests'], found['pid'], found['daemon'])",
        &json,
    ]));
    assert_eq!(parsed.ok(), "1 None None\n");
    drop(impostor);
    for (word, start) in [
        ("done", "hade: "),
        ("failed", "hade: restart given up: "),
        ("refused", "hade: no restart of pid "),
    ] {
        let Some(town) = Town::new() else { return };
        let _impostor = self::impostor(
            &town,
            stranger,
            &format!("{word}\t{evil}%0A{evil}\ncut\t{evil}\n"),
        );
        let said = town.app(0, &["restart"]);
        let text = format!("{}{}", said.out, said.err);
        assert!(
            text.starts_with(start) && text.lines().count() == 1 && clean(&text),
            "{text:?}"
        );
    }
}

#[test]
fn who_answers_at_the_socket_must_be_the_master() {
    let Some(town) = Town::new() else { return };
    let stranger = new_user();
    // Root's own service, in a directory where the stranger could take its socket away.
    town.make_run(stranger, 0o777);
    let args = ["start", "-d", "--address", "127.0.0.1:0"];
    let said = town.app(0, &args);
    assert_eq!(said.code, Some(0), "{said:?}");
    let warning = format!(
        "others may write to run/, and could put a file of theirs in the place of one there: it belongs to uid {stranger}, this is uid 0\n"
    );
    assert_eq!(said.err, format!("hade: {warning}"));
    assert!(
        town.place
            .log()
            .contains(&format!(" warn {} {warning}", town.place.pid().unwrap()))
    );
    let site = Site::of(&said.out);
    fs::remove_file(town.place.path("run/app.sock")).unwrap();
    let mut actor = Actor::new(
        stranger,
        &town.place.dir,
        &answers("run/app.sock", "done\tall well\n"),
    );
    let text = format!(
        "run/app.sock: it is pid {} of uid {stranger} that listens there, and not the master",
        actor.pid()
    );
    assert_eq!(
        town.app(0, &["state"]).failed(4),
        format!(
            "hade: pid {} is alive but does not answer: {text}\n",
            site.pid
        )
    );
    let said = town.app(0, &["restart"]).failed(1);
    assert!(said.contains(&text), "{said}");
    // It is stopped by its lock, and the stranger's word on it is not heard.
    let said = town.app(0, &["stop"]).ok();
    assert!(
        said.starts_with(&format!("hade: stopped pid {} ", site.pid)) && !said.contains("all well"),
        "{said}"
    );
    actor.is_unharmed();
    // Nor is the stranger's socket taken for a master's when nobody runs.
    let said = town.app(0, &["stop"]);
    assert!(
        said.err.contains("which is no master") || said.out.contains("not running"),
        "{said:?}"
    );
    actor.is_unharmed();
}

#[test]
fn a_log_that_was_replaced_by_a_link_is_not_opened_anew() {
    let Some(town) = Town::new() else { return };
    let stranger = new_user();
    let victim = town.victim();
    town.make_run(stranger, 0o777);
    let said = town.app(0, &["start", "-d", "--address", "127.0.0.1:0"]);
    let site = Site::of(&said.out);
    fs::rename(
        town.place.path("run/app.log"),
        town.place.path("run/old.log"),
    )
    .unwrap();
    as_user(stranger, "ln")
        .args(["-s", "../victim", "run/app.log"])
        .current_dir(&town.place.dir)
        .status()
        .unwrap();
    signal(site.pid, "USR1");
    wait_until(10, "it is said", || {
        town.place
            .read("run/old.log")
            .contains("cannot reopen the log: it belongs to uid ")
    });
    assert_eq!(site.get("/").status, 200);
    town.app(0, &["restart"]);
    victim.is_unharmed();
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn a_run_directory_that_others_may_write_to_is_said_at_the_start() {
    let Some(_) = Town::new() else { return };
    let (user, other) = (new_user(), new_user());
    for (caller, owner, mode, is_said) in [
        (user, user, 0o755, false),
        (user, user, 0o777, true),
        (user, user, 0o775, false),
        (user, user, 0o1777, false),
        (user, 0, 0o1777, false),
        (user, other, 0o1777, true),
        (0, 0, 0o777, true),
        (0, user, 0o755, true),
        (0, 0, 0o1777, false),
    ] {
        let Some(town) = Town::new() else { return };
        town.make_run(owner, mode);
        let said = town.app(caller, &["start", "-d", "--address", "127.0.0.1:0"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let case = format!("{caller} {owner} {mode:o}: {said:?}");
        assert_eq!(
            said.err.contains("others may write to run/"),
            is_said,
            "{case}"
        );
        assert_eq!(
            town.place.log().contains("others may write to run/"),
            is_said,
            "{case}"
        );
        town.app(caller, &["stop"]).ok();
    }
}

#[test]
fn a_bystander_under_the_number_in_the_pid_file_is_left_alone_by_root() {
    let Some(town) = Town::new() else { return };
    let stranger = new_user();
    let mut bystander = Bystander::new();
    town.make_run(stranger, 0o755);
    town.place
        .write("run/app.pid", format!("{}\n", bystander.pid()));
    town.app(0, &["stop", "--force"]).ok();
    bystander.is_unharmed();
}

#[test]
fn an_impostor_that_talks_without_end_is_not_listened_to_for_ever() {
    let Some(town) = Town::new() else { return };
    let stranger = new_user();
    town.make_run(stranger, 0o755);
    town.place.write("run/app.lock", "");
    chown(
        town.place.path("run/app.lock"),
        Some(stranger),
        Some(stranger),
    )
    .unwrap();
    let listens = "import socket, threading\n\
         listener = socket.socket(socket.AF_UNIX)\n\
         listener.bind('run/app.sock')\n\
         listener.listen(16)\n\
         def talk(stream):\n    \
             try:\n        \
                 while True:\n            \
                     stream.sendall(b'close_wait\\t99999999999999999999\\n' * 1000)\n    \
             except OSError:\n        \
                 pass\n\
         def serve():\n    \
             while True:\n        \
                 stream, _ = listener.accept()\n        \
                 threading.Thread(target=talk, args=[stream], daemon=True).start()\n\
         threading.Thread(target=serve, daemon=True).start()";
    let script = [&locks("run/app.lock", "LOCK_EX"), listens].join("\n");
    let actor = Actor::new(stranger, &town.place.dir, &script);
    for command in ["state", "restart"] {
        let said = Meanwhile::new(town.command(0, &[command])).end(20);
        assert!(
            said.err.contains("it does not come to an end"),
            "{command}: {said:?}"
        );
    }
    let said = Meanwhile::new(town.command(0, &["stop"])).end(20).ok();
    assert!(
        said.starts_with(&format!("hade: stopped pid {} ", actor.pid())),
        "{said}"
    );
}

/// It would be stopped, and not start again.
#[test]
fn what_may_not_be_written_any_more_is_found_before_a_cold_restart_stops_it() {
    let Some(town) = Town::new() else { return };
    let user = new_user();
    town.make_run(user, 0o755);
    let site = town.start(user);
    let (run, pid_file) = (town.place.path("run"), town.place.path("run/app.pid"));
    let refused = |words: &str| {
        let said = town.app(user, &["restart", "--cold"]).failed(1);
        assert!(said.contains(words), "{said}");
        assert_eq!(site.get("/demo/demo").status, 200, "{said}");
    };
    let give_mode = |mode| fs::set_permissions(&run, fs::Permissions::from_mode(mode)).unwrap();
    give_mode(0o555);
    refused("run/app.sock: Permission denied (os error 13)\n");
    give_mode(0o755);
    chown(&pid_file, Some(0), Some(0)).unwrap();
    fs::set_permissions(&pid_file, fs::Permissions::from_mode(0o644)).unwrap();
    refused("run/app.pid: Permission denied (os error 13); it belongs to uid 0, this is uid ");
    chown(&pid_file, Some(user), Some(user)).unwrap();
    town.app(user, &["restart", "--cold"]).ok();
    town.app(user, &["stop"]).ok();
}

/// As for a proxy of another group: it is not to be connected to by the one who made it, and goes with it all the same.
#[test]
fn a_socket_that_was_given_to_others_goes_and_comes_with_the_service() {
    let Some(town) = Town::new() else { return };
    let user = new_user();
    town.make_run(user, 0o755);
    let socket = town.place.path("run/http.sock");
    let give_away = || chown(&socket, Some(new_user()), Some(new_user())).unwrap();
    let start = ["start", "-d", "--address", "unix:run/http.sock"];
    for goes in [&["stop"][..], &["restart", "--address", "127.0.0.1:0"]] {
        town.app(user, &start).ok();
        give_away();
        town.app(user, &["restart", "--cold"]).ok();
        give_away();
        town.app(user, goes).ok();
        assert!(!socket.exists(), "{goes:?}");
        town.app(user, &["stop"]).ok();
    }
}

/// Nobody has to list what is entered.
#[test]
fn a_base_directory_that_is_not_to_be_read_is_entered() {
    let Some(town) = Town::new() else { return };
    let user = new_user();
    town.make_run(user, 0o755);
    let base = &town.place.dir;
    fs::set_permissions(base, fs::Permissions::from_mode(0o711)).unwrap();
    let site = town.start(user);
    town.app(user, &["check", "--address", "unix:./x.sock"])
        .ok();
    for args in [&["restart"][..], &["restart", "--cold"]] {
        town.app(user, args).ok();
    }
    assert!(!crate::support::is_alive(site.pid));
    town.app(user, &["stop"]).ok();
}
