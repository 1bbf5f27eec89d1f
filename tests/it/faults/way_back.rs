//! A restart that is given up after the exec changes nothing: the master is the old program again, with its arguments,
//! environment, directory and settings, and so is every worker from then on.

use crate::support::{
    Hammer, Place, Site, demo, fact, is_alive, post, run, signal, wait_until, worker, workers,
};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

/// What can be seen of a process from outside.
#[derive(Debug, PartialEq)]
struct Look {
    /// The identity of the file, whatever has its name by now.
    file: (u64, u64),
    arguments: String,
    environment: BTreeSet<String>,
    directory: PathBuf,
    name: String,
}

impl Look {
    fn at(pid: u32) -> Look {
        let read = |name: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{name}")).expect("it is there");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let file = fs::metadata(format!("/proc/{pid}/exe")).expect("it is there");
        Look {
            file: (file.dev(), file.ino()),
            arguments: read("cmdline"),
            // What an exec was told is there in the kernel's copy, and no more in the process's own.
            environment: read("environ")
                .split('\0')
                .filter(|pair| !pair.starts_with("HADE_HANDOVER="))
                .map(str::to_owned)
                .collect(),
            directory: fs::read_link(format!("/proc/{pid}/cwd")).expect("it is there"),
            name: read("comm"),
        }
    }
}

/// A service whose program is a file of its own, so that it can be told from all others.
struct Old {
    place: Place,
    site: Site,
    worker: u32,
    look: Look,
    facts: Vec<String>,
}

const FACTS: [&str; 5] = ["pid", "address", "generation", "restarting", "daemon"];

impl Old {
    fn start(args: &[&str]) -> Old {
        let all = [
            "start",
            "-d",
            "--address",
            "127.0.0.1:0",
            "--set",
            "max_body=100",
        ];
        Old::start_by(Place::demo(), &[&all, args].concat())
    }

    #[track_caller]
    fn start_by(place: Place, args: &[&str]) -> Old {
        put_copy(&place, "prog");
        let mut command = place.command_of("prog", args);
        let said = run(command.env("DEMO_WORD", "one two\tthree")).ok();
        let site = Site::of(&said);
        let mut old = Old {
            worker: worker(site.pid),
            look: Look::at(site.pid),
            facts: Vec::new(),
            place,
            site,
        };
        old.facts = old.facts();
        old
    }

    fn facts(&self) -> Vec<String> {
        let json = self.place.app(&["state", "--json"]).ok();
        FACTS.map(|key| fact(&json, key)).to_vec()
    }

    /// The limit of the start holds, and not that of what was given up.
    #[track_caller]
    fn has_its_settings(&self) {
        let mut wire = self.site.connect();
        wire.send(post("/echo", &"x".repeat(200)));
        assert_eq!(wire.answer().status, 413);
    }

    /// A restart that must be given up, with a request in flight and others that come; what was said.
    #[track_caller]
    fn gives_up(&self, args: &[&str], undo: impl FnOnce()) -> String {
        let Old { place, site, .. } = self;
        let count = || place.log().matches("restart given up: ").count();
        let (before, number) = (count(), place.log().matches("restarting as ").count());
        let name = format!("held{number}");
        let mut held = place.hold(site, &name);
        let mut kept = site.connect();
        assert_eq!(kept.get("/hello").status, 200);
        let hammer = Hammer::easy(site.address());
        let words = [
            &["restart", "--set", "max_body=1000", "--set", "close_wait=9"],
            args,
        ];
        let done = run(place
            .command(&[&["app"], &words.concat()[..]].concat())
            .env("PWD", "/"));
        undo();
        let said = done.failed(1);
        wait_until(10, "what there was of a new worker is gone", || {
            workers(site.pid) == [self.worker]
        });
        assert_eq!(
            place.log().matches("restarting as ").count(),
            number + 1,
            "it did not come to the exec: {said}"
        );
        hammer.end();
        assert_eq!(count(), before + 1, "said once");
        assert_eq!(said.lines().count(), 1, "{said}");
        let end = format!("; pid {} still serves as before\n", site.pid);
        let why = said.strip_prefix("demo: restart given up: ");
        let why = why.and_then(|why| why.strip_suffix(&end));
        let why = why.unwrap_or_else(|| panic!("{said}")).to_owned();
        assert_eq!(Look::at(site.pid), self.look);
        assert_eq!(self.facts(), self.facts);
        let state = place.app(&["state"]).ok();
        assert!(state.contains(&format!("given up: {why}\n")), "{state}");
        assert_eq!(kept.get("/hello").status, 200, "on the same connection");
        place.release(&name);
        assert_eq!(held.answer().text(), "held\n");
        why
    }

    /// A worker that dies now is followed by one of the old program, and a restart by one of the program on disk.
    #[track_caller]
    fn goes_on(mut self) {
        let site = &self.site;
        signal(self.worker, "KILL");
        let now = site.wait_replaced(self.worker, 1)[0];
        assert_eq!(site.get("/hello").status, 200);
        let file = fs::metadata(format!("/proc/{now}/exe")).unwrap();
        assert_eq!((file.dev(), file.ino()), self.look.file);
        self.has_its_settings();
        assert_eq!(Look::at(site.pid), self.look);
        self.worker = now;
        put_copy(&self.place, "prog");
        let hammer = Hammer::easy(site.address());
        let said = self.place.app(&["restart"]).ok();
        hammer.end();
        assert!(
            said.contains(&format!("restarted, pid {}", site.pid)),
            "{said}"
        );
        let file = fs::metadata(format!("/proc/{}/exe", site.pid)).unwrap();
        assert_ne!((file.dev(), file.ino()), self.look.file, "the new file");
        // What was given up is not asked for again.
        self.has_its_settings();
        assert_eq!(self.place.count("generation"), 2);
        self.place.app(&["stop"]).ok();
        self.place.wait_empty(5);
    }
}

/// A copy of the demo with an identity of its own.
fn put_copy(place: &Place, name: &str) {
    let demo = demo();
    let line = r#"cp "$1" "$2.new" && mv "$2.new" "$2""#;
    place.sh(line, &[demo.to_str().unwrap(), name]);
}

/// A program that becomes the demo after a line of shell, when it is executed as the new master.
fn at_the_exec(line: &str) -> String {
    let demo = demo();
    let demo = demo.display();
    format!("#!/bin/sh\nif [ \"$2\" = start ]; then {line}\nfi\nexec '{demo}' \"$@\"\n")
}

#[test]
fn settings_that_turn_bad_after_the_check() {
    let old = Old::start(&[]);
    old.place.sh("mkdir etc", &[]);
    let line = "echo app.nonsense = 1 >etc/app.conf";
    for _ in 0..2 {
        old.place.put_program("prog", &at_the_exec(line));
        let undo = || drop(fs::remove_file(old.place.path("etc/app.conf")));
        let why = old.gives_up(&[], undo);
        assert!(why.contains("etc/app.conf:1: unknown key"), "{why}");
    }
    old.goes_on();
}

#[test]
fn a_new_worker_that_fails_or_crashes_at_boot() {
    let old = Old::start(&[]);
    for mode in ["fail", "crash", "fail"] {
        old.place.write("boot", mode);
        let why = old.gives_up(&[], || ());
        assert!(why.starts_with("worker "), "{why}");
    }
    old.place.write("boot", "");
    old.goes_on();
}

#[test]
fn a_new_worker_that_hangs_at_boot() {
    let old = Old::start(&[]);
    old.place.write("boot", "hang");
    let why = old.gives_up(&[], || old.place.write("boot", ""));
    assert!(why.ends_with(": not ready after 10 s"), "{why}");
    old.goes_on();
}

#[test]
fn a_new_address_that_is_taken_or_cannot_be_served() {
    let old = Old::start(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let why = old.gives_up(&["--address", &taken], || ());
    assert!(
        why.starts_with(&format!("cannot listen on {taken}")),
        "{why}"
    );
    old.place.write("boot", "fail");
    let why = old.gives_up(&["--address", "unix:run/x.sock"], || ());
    assert!(why.ends_with("asked to fail at boot"), "{why}");
    assert!(!old.place.path("run/x.sock").exists());
    let why = old.gives_up(&["--address", "localhost:0"], || ());
    assert!(why.ends_with("asked to fail at boot"), "{why}");
    old.place.write("boot", "");
    old.goes_on();
}

#[test]
fn a_log_that_cannot_be_opened_any_more() {
    let old = Old::start(&["--set", "log_level=debug"]);
    old.place
        .put_program("prog", &at_the_exec("mkdir run/other.log"));
    let why = old.gives_up(&["--set", "log_file=run/other.log"], || ());
    assert!(why.contains("run/other.log"), "{why}");
    old.goes_on();
}

#[test]
fn a_base_directory_that_goes_after_the_check() {
    let place = Place::demo();
    place.sh("mkdir real && ln -s real base && mkdir real/run", &[]);
    put_copy(&place, "prog");
    let args = [
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--base-dir",
        "base",
    ];
    let said = place.app_of("prog", &args).ok();
    let site = Site::of(&said);
    let (look, old) = (Look::at(site.pid), worker(site.pid));
    place.put_program("prog", &at_the_exec("rm ../base"));
    let hammer = Hammer::easy(site.address());
    let restart = ["restart", "--base-dir", "base"];
    let said = place.app(&restart).failed(1);
    hammer.end();
    assert!(said.contains("cannot enter the base directory "), "{said}");
    assert!(said.ends_with("still serves as before\n"), "{said}");
    assert_eq!((Look::at(site.pid), worker(site.pid)), (look, old));
    assert!(!place.path("base").exists(), "nobody makes it anew");
    // With the directory still away the next one comes to nothing, in words; a worker that dies is replaced.
    signal(site.pid, "HUP");
    wait_until(10, "it is given up, too", || {
        let log = place.read("real/run/app.log");
        log.matches("restart given up: cannot enter the base")
            .count()
            == 2
    });
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    assert_eq!(site.get("/hello").status, 200);
    place.sh("ln -s real base", &[]);
    put_copy(&place, "prog");
    place.app(&restart).ok();
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn the_old_program_is_gone_from_the_disk() {
    let old = Old::start(&[]);
    // Replaced, deleted, and its directory's name given to another one: it is its descriptor that leads back.
    old.place.sh("rm prog", &[]);
    old.place.write("boot", "fail");
    old.place.put_program("prog", &at_the_exec(":"));
    old.gives_up(&[], || ());
    old.gives_up(&[], || ());
    old.place.write("boot", "");
    old.goes_on();
}

#[test]
fn what_a_restart_started_comes_back_too() {
    let place = Place::demo();
    put_copy(&place, "prog");
    // Nothing runs, so this restart is a start; its words are the master's.
    let words = [
        "restart",
        "--address",
        "127.0.0.1:0",
        "--set",
        "max_body=100",
    ];
    let old = Old::start_by(place, &words);
    old.place.write("boot", "fail");
    let why = old.gives_up(&[], || ());
    assert!(why.ends_with("asked to fail at boot"), "{why}");
    old.place.write("boot", "");
    old.goes_on();
}

#[test]
fn a_unix_socket_stays() {
    let place = Place::demo();
    let said = place.app(&["start", "-d", "--address", "unix:run/http.sock"]);
    let site = Site::of(&said.ok());
    let ask = || {
        let mut stream = UnixStream::connect(place.path("run/http.sock")).expect("it is there");
        let request = "GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("Hello, World!"), "{text}");
    };
    let old = worker(site.pid);
    place.write("boot", "fail");
    for address in [
        "unix:run/http.sock",
        "unix:run/../run/http.sock",
        "unix:run/other.sock",
        "127.0.0.1:0",
    ] {
        let said = place.app(&["restart", "--address", address]).failed(1);
        assert!(said.contains("asked to fail at boot"), "{address}: {said}");
        assert_eq!(worker(site.pid), old);
        ask();
        assert_eq!(place.fact("address"), "unix:run/http.sock");
        assert!(!place.path("run/other.sock").exists());
    }
    place.write("boot", "");
    place.app(&["restart"]).ok();
    ask();
    place.app(&["stop"]).ok();
    assert!(!place.path("run/http.sock").exists());
}

#[test]
fn more_workers_that_cannot_start_take_none_away() {
    for (before, after) in [(1, 2), (2, 1)] {
        let place = Place::demo();
        let site = place.start_copy(&["--set", &format!("workers={before}")]);
        let old = workers(site.pid);
        assert_eq!(old.len(), before);
        place.write("boot", "fail");
        let hammer = Hammer::easy(site.address());
        let said = place.app(&["restart", "--set", &format!("workers={after}")]);
        assert!(said.failed(1).ends_with("still serves as before\n"));
        // Those that failed, or were still starting, are killed and collected.
        wait_until(10, "the new ones are gone", || workers(site.pid) == old);
        // It is the old program again, which wants no more than what it has: nothing is tried, nothing waited for.
        crate::support::holds_for(2500, "the old workers are the ones", || {
            is_alive(site.pid) && workers(site.pid) == old
        });
        hammer.end();
        let log = place.log();
        let since = log.rsplit_once("restart given up").unwrap().1;
        assert!(!since.contains("the next one starts"), "{since}");
        let state = place.app(&["state"]).ok();
        assert!(state.contains("given up: worker "), "{state}");
        place.write("boot", "");
        let said = place.app(&["restart", "--set", &format!("workers={after}")]);
        said.ok();
        assert_eq!(workers(site.pid).len(), after);
    }
}

/// Nothing that is a device is taken away, and nothing is looked for in it.
#[test]
fn a_log_that_is_a_device_or_a_pipe() {
    for log in ["/dev/null", "run/fifo", "/dev/stderr"] {
        let place = Place::demo();
        place.sh("mkdir run && mkfifo -m 600 run/fifo", &[]);
        // Both ends, so that somebody has it open to read from the first moment on; what is written fits into it.
        let mut both = fs::File::options();
        let reader = both
            .read(true)
            .write(true)
            .open(place.path("run/fifo"))
            .unwrap();
        place.put_demo("prog");
        let log_file = format!("log_file={log}");
        let mut start = place.command_of("prog", &["start", "--address", "127.0.0.1:0", "-d"]);
        start.args(["--set", &log_file]);
        start.stdout(fs::File::create(place.path("said")).unwrap());
        start.stderr(fs::File::create(place.path("errors")).unwrap());
        let status = start.status().unwrap();
        assert!(status.success(), "{log}: {}", place.read("errors"));
        let site = Site::of(&place.read("said"));
        let hammer = Hammer::easy(site.address());
        for _ in 0..2 {
            let said = place.app(&["restart"]).ok();
            assert!(said.contains("restarted, pid"), "{log}: {said}");
        }
        let generation = place.count("generation");
        signal(site.pid, "HUP");
        wait_until(10, "a restart by signal", || {
            place.count("generation") == generation + 1
        });
        place.write("boot", "fail");
        let said = place.app(&["restart"]).failed(1);
        assert!(said.contains("asked to fail at boot"), "{log}: {said}");
        signal(site.pid, "USR1");
        place.write("boot", "");
        place.app(&["restart"]).ok();
        hammer.end();
        assert_eq!(site.get("/hello").status, 200);
        place.app(&["stop"]).ok();
        place.wait_empty(5);
        drop(reader);
    }
}

#[test]
fn no_settings_and_no_log_are_the_same_device() {
    let place = Place::demo();
    let device = ["--config", "/dev/null", "--set", "log_file=/dev/null"];
    let site = place.start_copy(&device);
    let hammer = Hammer::easy(site.address());
    place.app(&[&["restart"][..], &device].concat()).ok();
    signal(site.pid, "HUP");
    wait_until(10, "a restart by signal", || place.count("generation") == 3);
    hammer.end();
    place.app(&["stop"]).ok();
    place.wait_empty(5);
}

/// What stands in for a settings file with a mistake must not clash with what is a device.
#[test]
fn a_broken_settings_file_and_no_log() {
    let place = Place::demo();
    let site = place.start_copy(&["--set", "log_file=/dev/null"]);
    place.write("etc/app.conf", "app.nonsense = 1\n");
    for _ in 0..2 {
        let run = |word: &str| {
            let mut command = place.command(&["app", word]);
            crate::support::run(command.env("APP_LOG_FILE", "/dev/null"))
        };
        assert_eq!(run("state").code, Some(0));
        assert_eq!(run("restart").code, Some(1));
        signal(site.pid, "HUP");
        wait_until(10, "it is given up", || {
            run("state").out.contains("given up: ") && is_alive(site.pid)
        });
        assert_eq!(site.get("/hello").status, 200);
    }
    fs::remove_file(place.path("etc/app.conf")).unwrap();
    // What was given up may have been the one before, and that of the signal be under way.
    wait_until(10, "it is restarted", || {
        place.app(&["restart"]).code == Some(0)
    });
    place.write("etc/app.conf", "app.nonsense = 1\n");
    let mut stop = place.command(&["app", "stop"]);
    let done = run(stop.env("APP_LOG_FILE", "/dev/null"));
    assert_eq!(done.code, Some(0), "{done:?}");
    place.wait_empty(5);
}

#[test]
fn the_log_of_before_is_the_log_again() {
    let old = Old::start(&[]);
    old.place.write("boot", "fail");
    for log in ["run/other.log", "/dev/null", "run/app.log"] {
        let why = old.gives_up(&["--set", &format!("log_file={log}")], || ());
        assert!(why.ends_with("asked to fail at boot"), "{why}");
        let path = format!("/proc/{}/fd/2", old.site.pid);
        assert!(fs::read_link(path).unwrap().ends_with("run/app.log"));
        signal(old.site.pid, "USR1");
        let place = &old.place;
        wait_until(5, "it is reopened", || {
            place.log().ends_with("log reopened\n")
        });
        place.sh(": >run/app.log", &[]);
    }
    assert_eq!(old.place.read("run/other.log"), "");
    old.place.write("boot", "");
    old.goes_on();
}

/// What one string of an exec holds is bounded, and is no bound for the environment of a service.
#[test]
fn a_long_environment_comes_back_too() {
    for value in ["ä".repeat(22_000), "x".repeat(47_000), "%".repeat(90_000)] {
        let place = Place::demo();
        let words = ["start", "-d", "--address", "127.0.0.1:0"];
        let mut start = place.command_of("prog", &words);
        put_copy(&place, "prog");
        let site = Site::of(&run(start.env("DEMO_LONG", &value)).ok());
        let (look, old) = (Look::at(site.pid), worker(site.pid));
        place.write("boot", "fail");
        let said = place.app(&["restart"]).failed(1);
        assert!(said.contains("asked to fail at boot"), "{said}");
        assert_eq!((Look::at(site.pid), worker(site.pid)), (look, old));
        place.write("boot", "");
        let said = place.app(&["restart"]).ok();
        assert!(said.contains("restarted, pid"), "{said}");
        let environment = Look::at(site.pid).environment;
        assert!(environment.contains(&format!("DEMO_LONG={value}")));
    }
}

#[test]
fn a_socket_that_was_passed_in_stays() {
    let place = Place::demo();
    if !crate::support::has("python3") {
        return;
    }
    put_copy(&place, "prog");
    let code = "import os, socket, sys\n\
                s = socket.create_server(('127.0.0.1', 0))\n\
                os.dup2(s.fileno(), 3)\n\
                os.set_inheritable(3, True)\n\
                os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n\
                os.execv('./prog', ['./prog', 'app', 'start', '--set', 'log_file=run/app.log'])\n";
    let mut command = Command::new("python3");
    command.args(["-c", code]).current_dir(&place.dir);
    let running = crate::support::Foreground::of(command);
    let site = running.site.clone();
    let old = worker(site.pid);
    place.write("boot", "fail");
    let hammer = Hammer::easy(site.address());
    for args in [&["restart"][..], &["restart", "--address", "localhost:0"]] {
        let said = place.app(args).failed(1);
        assert!(said.contains("asked to fail at boot"), "{said}");
        assert_eq!(
            (place.fact("address"), worker(site.pid)),
            (site.url.clone(), old)
        );
    }
    place.write("boot", "");
    place.app(&["restart"]).ok();
    hammer.end();
    assert_eq!(place.fact("address"), site.url);
    assert_eq!(site.get("/hello").status, 200);
}

/// The new program goes on, with the workers of before for as long as they live.
#[test]
fn where_nothing_leads_back_it_is_said_and_it_goes_on() {
    if !crate::support::has("unshare") {
        return;
    }
    let place = Place::demo();
    let demo = demo();
    let script = r#"
        mkdir own && mount -t tmpfs none own && cp "$1" own/prog
        exec own/prog app start -d --address 127.0.0.1:0
    "#;
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-ec", script, "sh"]).arg(&demo);
    let done = run(command.current_dir(&place.dir));
    if done.code != Some(0) && done.err.contains("unshare") {
        return crate::support::skip("needs namespaces");
    }
    let site = Site::of(&done.ok());
    let old = worker(site.pid);
    // The disk that the old program is on may not execute any more when the new one has begun.
    let line = "mount -o remount,noexec own";
    let (pid, text) = (site.pid.to_string(), at_the_exec(line));
    let mut inside = Command::new("nsenter");
    let script = r#"rm own/prog && printf '%s' "$1" >own/prog && chmod 755 own/prog"#;
    inside.args(["-t", &pid, "-U", "-m", "--preserve-credentials"]);
    let line = format!("cd '{}' && {script}", place.dir.display());
    run(inside.args(["sh", "-ec", &line, "sh", &text])).ok();
    place.write("boot", "fail");
    let hammer = Hammer::easy(site.address());
    let said = place.app(&["restart"]).failed(1);
    let words = "the program of before cannot be executed again: Permission denied (os error 13)";
    assert!(said.contains(words), "{said}");
    hammer.end();
    assert_eq!(worker(site.pid), old);
    let state = place.app(&["state"]).ok();
    assert!(
        state.contains(words) && state.contains("generation 1"),
        "{state}"
    );
    place.write("boot", "");
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    assert_eq!(site.get("/hello").status, 200);
    place.app(&["stop"]).ok();
    place.wait_empty(5);
}
