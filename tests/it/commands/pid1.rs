//! PID 1 of a pid namespace, as in a container, without one: seen from outside under another number, and from inside.

use crate::load::Load;
use crate::support::{
    Done, Foreground, Place, Wire, demo, is_alive, run, signal, wait_until, workers,
};
use std::fs::OpenOptions;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

const WARNING: &str = "demo: as PID 1 it stays in the foreground, for leaving would end the container; \
                       --daemon is ignored\n";

/// In a session of its own, so that a hang-up is no terminal's; gone with the test in any case.
const NEW: [&str; 6] = [
    "setsid",
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
];

/// Whether a pid namespace can be had, which takes root; in CI it must.
fn has_namespaces() -> bool {
    let mut command = Command::new(NEW[0]);
    command.args(&NEW[1..]).arg("true").stdin(Stdio::null());
    let status = command.stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "no new pid namespace in CI"
    );
    if !found {
        crate::support::skip("needs a pid namespace of its own, which takes root");
    }
    found
}

/// The application as PID 1.
struct First {
    foreground: Foreground,
    /// Its number outside.
    pid: u32,
    place: Place,
}

impl First {
    fn start(args: &[&str]) -> First {
        let place = Place::demo();
        let args = [&["app", "start", "--address", "127.0.0.1:0"], args].concat();
        let foreground = Foreground::of(place.wrapped(&NEW, &args));
        assert_eq!(foreground.site.pid, 1);
        let children = workers(foreground.child.id());
        let [pid] = children[..] else {
            panic!("not one child: {children:?}")
        };
        First {
            foreground,
            pid,
            place,
        }
    }

    /// Runs a program inside.
    fn run(&self, words: &[&str]) -> Done {
        let mut command = Command::new("timeout");
        command.args([
            "30",
            "nsenter",
            "--pid",
            "--mount",
            "--target",
            &self.pid.to_string(),
        ]);
        command.arg(format!("--wd={}", self.place.dir.display()));
        run(command.args(words).stdin(Stdio::null()))
    }

    fn app(&self, words: &[&str]) -> Done {
        let demo = demo();
        self.run(&[&[demo.to_str().unwrap(), "app"], words].concat())
    }

    #[track_caller]
    fn state_has(&self, words: &str) {
        let state = self.app(&["state", "--json"]).ok();
        assert!(state.contains(words), "no {words} in {state}");
    }

    /// Waits for its end, which is one in good order: what it said on standard output and standard error.
    #[track_caller]
    fn ends_well(&mut self) -> (String, String) {
        assert_eq!(self.foreground.end(), Some(0));
        self.said()
    }

    /// Everything that it says until its end.
    fn said(&mut self) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        let child = &mut self.foreground.child;
        let _ = child.stdout.as_mut().unwrap().read_to_string(&mut out);
        let _ = child.stderr.as_mut().unwrap().read_to_string(&mut err);
        (out, err)
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let _ = self.foreground.child.kill();
        if std::thread::panicking() {
            let (out, err) = self.said();
            eprintln!("--- PID 1 said\n{out}{err}---");
        }
    }
}

/// That a held request was answered, by a server that is about to leave.
#[track_caller]
fn is_answered_and_closed(mut wire: Wire) {
    let answer = wire.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "held\n"));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(wire.is_closed());
}

#[test]
fn orphans_are_collected() {
    if !has_namespaces() {
        return;
    }
    let first = First::start(&[]);
    let fifo = first.place.path("fifo");
    let fifo = fifo.to_str().unwrap();
    run(Command::new("mkfifo").arg(fifo)).ok();

    // One that lives until this test lets it go, and then many that die at once.
    let worker = workers(first.pid);
    assert_eq!(worker.len(), 1);
    first.run(&["sh", "-c", "(cat fifo) >cat.out 2>&1 &"]).ok();
    wait_until(10, "the orphan is PID 1's child", || {
        workers(first.pid).len() == 2
    });
    drop(OpenOptions::new().write(true).open(fifo).unwrap());
    wait_until(10, "the orphan is collected", || {
        workers(first.pid) == worker
    });
    let many = "for i in 1 2 3 4 5 6 7 8 9; do (sh -c 'exit 1' & sh -c 'kill -9 $$' &) >/dev/null 2>&1; done";
    first.run(&["sh", "-c", many]).ok();
    wait_until(10, "all orphans are collected", || {
        workers(first.pid) == worker
    });
    // Nobody took them for workers.
    first.state_has(r#","worker_deaths":0,"#);
    assert_eq!(first.foreground.site.get("/hello").status, 200);
}

#[test]
fn term_from_outside_drains_and_ends_it() {
    if !has_namespaces() {
        return;
    }
    let mut first = First::start(&[]);
    let site = &first.foreground.site;
    let wire = first.place.hold(site, "one");
    signal(first.pid, "TERM");
    site.wait_refused();
    first.place.release("one");
    is_answered_and_closed(wire);
    let (out, err) = first.ends_well();
    let end = " info 1 stopped, 1 requests finished, 0 cut\n";
    assert!(out.ends_with(end), "{out}");
    assert_eq!(err, "");
    assert_eq!(first.place.read("run/app.pid"), "");
}

#[test]
fn it_restarts_in_place() {
    if !has_namespaces() {
        return;
    }
    let mut first = First::start(&[]);
    let load = Load::on(first.foreground.site.address(), "/hello");
    let said = first.app(&["restart"]).ok();
    let beginning = format!("demo: restarted, pid 1, on {}", first.foreground.site.url);
    assert!(said.starts_with(&beginning), "{said}");
    load.goes_on();

    // The kernel keeps signals from a PID 1 that has no handler for them.
    let before = workers(first.pid);
    first.run(&["sh", "-c", "kill -HUP 1"]).ok();
    wait_until(10, "there is another worker, and no other", || {
        let now = workers(first.pid);
        now.len() == 1 && now != before
    });
    load.goes_on();
    let (answers, longest) = load.end();
    println!("2 restarts of PID 1: {answers} requests, none failed, longest wait {longest:?}");
    first.state_has(r#","generation":3,"#);
    first.state_has(r#"{"running":true,"pid":1,"#);

    // What the one before obeyed, the one after does. Everything inside ends with PID 1, this shell too.
    let _ = first.run(&["sh", "-c", "kill -TERM 1"]);
    let (out, err) = first.ends_well();
    assert!(out.contains(" signal HUP: restarting\n"), "{out}");
    assert_eq!(err, "");
}

#[test]
fn stop_from_inside_drains_and_ends_it() {
    if !has_namespaces() {
        return;
    }
    let mut first = First::start(&[]);
    let site = &first.foreground.site;
    let wire = first.place.hold(site, "one");
    thread::scope(|scope| {
        // This command may have no time to say anything.
        scope.spawn(|| first.app(&["stop"]));
        site.wait_refused();
        first.place.release("one");
    });
    is_answered_and_closed(wire);
    let (out, err) = first.ends_well();
    assert!(out.contains(" asked to stop: leaving\n"), "{out}");
    let end = " info 1 stopped, 1 requests finished, 0 cut\n";
    assert!(out.ends_with(end), "{out}");
    assert_eq!(err, "");
}

#[test]
fn it_stays_in_the_foreground() {
    if !has_namespaces() {
        return;
    }
    let mut first = First::start(&["--daemon"]);
    assert!(is_alive(first.foreground.child.id()));
    assert_eq!(first.foreground.site.get("/hello").text(), "Hello, World!");
    first.state_has(r#","daemon":false,"#);
    signal(first.pid, "TERM");
    let (out, err) = first.ends_well();
    assert!(out.contains(" signal TERM: leaving\n"), "{out}");
    assert_eq!(err, WARNING);
    // There was no need for a log file.
    assert!(!first.place.path("run/app.log").exists());
}
