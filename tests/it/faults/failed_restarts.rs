//! Restarts that cannot go well: at every step the old worker goes on, nobody who asks for a page notices, whoever
//! asked for the restart is told which step it was, and the next restart works.

use crate::support::{
    self, Done, Hammer, Meanwhile, Place, Site, Wire, demo, has, has_it, is_alive, is_root, run,
    signal, wait_until, was_soon, worker, workers, working_in,
};
use std::process::Command;
use std::time::{Duration, Instant};

/// A restart that must be given up: hammered meanwhile, exit status 1, the old workers go on; what it said.
#[track_caller]
fn fails(place: &Place, site: &Site, args: &[&str]) -> String {
    let args: Vec<&str> = ["restart"].iter().chain(args).copied().collect();
    fails_by(place, site, || place.app(&args))
}

/// What the master says, asked in a way that a broken settings file does not disturb.
#[track_caller]
fn fact(place: &Place, key: &str) -> String {
    let json = place.app(&["state", "--json"]);
    support::fact(&json.ok(), key)
}

#[track_caller]
fn fails_by(place: &Place, site: &Site, restart: impl FnOnce() -> Done) -> String {
    let before = (
        worker(site.pid),
        fact(place, "generation"),
        fact(place, "address"),
    );
    let hammer = Hammer::easy(site.address());
    let said = restart().failed(1);
    assert!(is_alive(site.pid), "the master is gone: {said}");
    // What there was of a new worker goes.
    assert_eq!(worker(site.pid), before.0, "{said}");
    assert_eq!(site.get("/hello").status, 200);
    hammer.end();
    assert_eq!(
        (fact(place, "generation"), fact(place, "address")),
        (before.1, before.2)
    );
    assert_eq!(fact(place, "restarting"), "false");
    let (start, end) = (
        "demo: restart given up: ",
        format!("; pid {} still serves as before\n", site.pid),
    );
    let why = said
        .strip_prefix(start)
        .and_then(|said| said.strip_suffix(&end));
    let why = why.unwrap_or_else(|| panic!("{said}")).to_owned();
    let state = place.app(&["state"]).ok();
    assert!(state.contains(&format!("given up: {why}")), "{state}");
    assert!(place.log().contains(&format!("restart given up: {why}")));
    why
}

/// A restart that must work: hammered meanwhile.
#[track_caller]
fn works(place: &Place, site: &Site) {
    let before = worker(site.pid);
    let hammer = Hammer::easy(site.address());
    let said = place.app(&["restart"]).ok();
    hammer.end();
    let after = worker(site.pid);
    assert!(
        said.contains(&format!("worker {before} → {after}, ")),
        "{said}"
    );
    assert_eq!(place.pid(), Some(site.pid));
}

/// A program that becomes the demo when it is executed as the new master, after what stands in `start`; its check is
/// the demo's, after what stands in `check`.
fn wrapper(check: &str, start: &str) -> String {
    let demo = demo();
    format!(
        "#!/bin/sh\ncase \"$2\" in\ncheck) {check}\n;;\nstart) {start}\n;;\nesac\nexec '{}' \"$@\"\n",
        demo.display()
    )
}

#[test]
fn the_program_is_missing_or_not_executable_or_not_a_program() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let prog = place.path("prog");
    let prog = prog.to_str().unwrap();

    place.sh("mv prog kept", &[]);
    let why = fails(&place, &site, &[]);
    assert_eq!(
        why,
        format!("cannot run {prog}: No such file or directory (os error 2)")
    );

    place.sh("echo no >prog", &[]);
    let why = fails(&place, &site, &[]);
    assert_eq!(
        why,
        format!("cannot run {prog}: Permission denied (os error 13)")
    );

    place.sh("rm prog && mkdir prog", &[]);
    let why = fails(&place, &site, &[]);
    assert_eq!(
        why,
        format!("cannot run {prog}: Permission denied (os error 13)")
    );
    place.sh("rmdir prog", &[]);

    for garbage in [
        // Something without a shape, and nothing at all.
        "neither this nor that\n",
        "",
    ] {
        place.put_program("prog", garbage);
        let why = fails(&place, &site, &[]);
        assert_eq!(
            why,
            format!("cannot run {prog}: Exec format error (os error 8)")
        );
    }

    // Another machine's: the ELF header says so (e_machine, elf(5)); and the half of a copy that was cut off.
    place.sh(
        r#"cp kept new && printf '\267\000' | dd of=new bs=1 seek=18 conv=notrunc status=none && mv new prog"#,
        &[],
    );
    let why = fails(&place, &site, &[]);
    assert_eq!(
        why,
        format!("cannot run {prog}: Exec format error (os error 8)")
    );
    place.sh(
        "head -c 1000 kept >new && chmod 755 new && mv new prog",
        &[],
    );
    let why = fails(&place, &site, &[]);
    assert!(why.contains(prog), "{why}");

    place.put_program("prog", "#!/no/such/interpreter\n");
    let why = fails(&place, &site, &[]);
    assert!(why.contains(prog), "{why}");

    place.sh("mv kept prog", &[]);
    works(&place, &site);
}

#[test]
fn the_program_is_another_one() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    place.sh("mv prog kept && cp /bin/true prog", &[]);
    let prog = place.path("prog");
    let prog = prog.to_str().unwrap();
    let why = fails(&place, &site, &[]);
    assert_eq!(
        why,
        format!("{prog} is not a program of this kind: its check did not say that it is")
    );
    for (program, expected) in [
        (
            "#!/bin/sh\nexit 3\n",
            format!("the check of {prog} exited, status 3"),
        ),
        (
            "#!/bin/sh\nkill -SEGV $$\n",
            format!("the check of {prog} killed by signal 11 (SEGV)"),
        ),
        (
            "#!/bin/sh\necho 'demo: no library libx' >&2; exit 127\n",
            "no library libx".to_owned(),
        ),
    ] {
        place.put_program("prog", program);
        assert_eq!(fails(&place, &site, &[]), expected);
    }
    // One that talks without end has its say, too, and no more.
    place.put_program("prog", "#!/bin/sh\nexec yes\n");
    let begun = Instant::now();
    let why = fails(&place, &site, &[]);
    was_soon(begun, 15000);
    assert!(why.len() < 1000, "{why}");
    place.sh("mv kept prog", &[]);
    works(&place, &site);
}

/// Both take ten seconds to find out.
#[test]
fn what_hangs_is_given_up_in_time() {
    std::thread::scope(|scope| {
        scope.spawn(the_check_does_not_end);
        scope.spawn(the_new_worker_hangs_at_boot);
    });
}

fn the_check_does_not_end() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    place.sh("mv prog kept && mkfifo never", &[]);
    place.put_program("prog", "#!/bin/sh\nread line <never\n");
    let begun = Instant::now();
    let mut first = None;
    let why = fails_by(&place, &site, || {
        let restart = Meanwhile::new(place.command(&["app", "restart"]));
        wait_until(5, "a restart is under way", || {
            place.fact("restarting") == "true"
        });
        // A second one is told so, by any way.
        first = Some(place.app(&["restart"]));
        signal(site.pid, "HUP");
        was_soon(begun, 5000);
        restart.end(20)
    });
    assert_eq!(
        first.unwrap().failed(1),
        format!(
            "demo: no restart of pid {}: a restart is under way\n",
            site.pid
        )
    );
    assert_eq!(
        why,
        "the check of the program on disk did not end within 10 s"
    );
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9), "{took:?}");
    was_soon(begun, 12000);
    place.sh("mv kept prog", &[]);
    works(&place, &site);
}

#[test]
fn the_settings_are_broken() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let old = worker(site.pid);
    place.write("etc/app.conf", "# fine so far\napp.close_wait = 5s\n");
    let wrong = "etc/app.conf:2: app.close_wait \"5s\": expected whole seconds, 0 to 3600\n";
    let hammer = Hammer::easy(site.address());
    // The command reads the file before it asks anybody.
    assert_eq!(place.app(&["restart"]).failed(1), format!("demo: {wrong}"));
    // A signal asks the master, which has nobody to tell but the log.
    signal(site.pid, "HUP");
    wait_until(5, "the log says so", || {
        let log = place.log();
        log.contains("restart given up: ") && log.contains(wrong)
    });
    place.sh("rm etc/app.conf", &[]);
    // A flag of the command's own.
    let said = place.app(&["restart", "--set", "close_wait=much"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert_eq!(worker(site.pid), old);
    hammer.end();
    assert!(place.app(&["state"]).ok().contains(" ago: given up: "));
    works(&place, &site);
}

#[test]
fn broken_settings_do_not_hide_what_runs() {
    let place = Place::demo();
    place.start(&[]);
    place.write("etc/app.conf", "app.nonsense = 1\n");
    // 1 would be: dead, but the pid file is there.
    let state = place.app(&["state"]);
    assert!(matches!(state.code, Some(0 | 4)), "{state:?}");
    // A health check that says "unhealthy" here has the service killed for a slip in a file that it does not use.
    let probe = place.app(&["state", "--probe"]);
    assert_eq!(probe.code, Some(0), "{probe:?}");
}

#[test]
fn the_new_address_is_taken() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let expected = format!(
        "cannot listen on {taken}: Address already in use (os error 98){}; choose another with --address",
        has_it()
    );

    let why = fails(&place, &site, &["--address", &taken]);
    assert_eq!(why, expected);
    // What was given up with the restart is not asked for again by the next one.
    works(&place, &site);
    assert_eq!(place.fact("address"), site.url);

    let why = fails_by(&place, &site, || {
        run(place.command(&["app", "restart"]).env("ADDRESS", &taken))
    });
    assert_eq!(why, expected);
    works(&place, &site);
    assert_eq!(place.fact("address"), site.url);

    let why = fails(&place, &site, &["--address", "192.0.2.1:80"]);
    assert!(why.contains("cannot listen on 192.0.2.1:80: "), "{why}");
    works(&place, &site);

    place.write("file", "somebody's");
    let why = fails(&place, &site, &["--address", "unix:file"]);
    assert!(why.contains("file: it exists and is not a socket"), "{why}");
    assert_eq!(place.read("file"), "somebody's");
    works(&place, &site);
}

#[test]
fn the_new_worker_fails_or_crashes_at_boot() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    for (mode, expected) in [
        ("fail", "asked to fail at boot"),
        ("crash", "killed by signal 6 (ABRT) before it was ready"),
    ] {
        place.write("boot", mode);
        let why = fails(&place, &site, &[]);
        assert!(
            why.starts_with("worker ") && why.ends_with(&format!(": {expected}")),
            "{why}"
        );
        // Twice, for the program that gives it up the second time is not the one that was started.
        let why = fails(&place, &site, &["--set", "threads=7"]);
        assert!(why.ends_with(&format!(": {expected}")), "{why}");
        place.write("boot", "");
        works(&place, &site);
    }
    let words = std::fs::read_to_string(format!("/proc/{}/cmdline", site.pid)).unwrap();
    assert!(!words.contains("threads=7"), "it was given up: {words}");
}

#[test]
fn one_of_two_new_workers_fails_at_boot() {
    let place = Place::demo();
    let site = place.start_copy(&["--set", "workers=2"]);
    let before = workers(site.pid);
    // The demo runs the boot function in each worker: the first takes the file away, the second fails.
    place.write("boot", "fail");
    let hammer = Hammer::easy(site.address());
    let why = place.app(&["restart"]).failed(1);
    assert!(why.contains("asked to fail at boot"), "{why}");
    wait_until(5, "only the old ones are left", || {
        workers(site.pid) == before
    });
    hammer.end();
    place.write("boot", "");
    place.app(&["restart"]).ok();
    wait_until(5, "two new ones", || {
        let now = workers(site.pid);
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
}

fn the_new_worker_hangs_at_boot() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    place.write("boot", "hang");
    let begun = Instant::now();
    let why = fails(&place, &site, &[]);
    assert!(
        why.starts_with("worker ") && why.ends_with(": not ready after 10 s"),
        "{why}"
    );
    was_soon(begun, 12000);
    place.write("boot", "");
    works(&place, &site);
}

#[test]
fn the_program_goes_between_the_check_and_the_exec() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    // The check of this one is good, and takes away what would be executed.
    place.put_program("prog", &wrapper("mv prog gone", ""));
    let why = fails(&place, &site, &[]);
    assert_eq!(
        why,
        format!(
            "cannot execute {}: No such file or directory (os error 2)",
            place.path("prog").display()
        )
    );
    place.put_program("prog", &wrapper("rm prog && mkdir prog", ""));
    let why = fails(&place, &site, &[]);
    assert!(why.contains("cannot execute "), "{why}");
    // Signals work as before, although they were blocked for a moment.
    place.sh("rmdir prog", &[]);
    place.put_demo("prog");
    signal(site.pid, "HUP");
    wait_until(5, "a restart by signal", || place.count("generation") == 2);
    works(&place, &site);
}

#[test]
fn the_settings_break_between_the_check_and_the_exec() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    place.sh("mkdir etc", &[]);
    place.put_program("prog", &wrapper("", "echo app.nonsense = 1 >etc/app.conf"));
    let why = fails(&place, &site, &[]);
    assert!(why.contains("etc/app.conf:1: "), "{why}");
    place.sh("rm etc/app.conf", &[]);
    place.put_demo("prog");
    works(&place, &site);
}

#[test]
fn the_new_program_dies_before_it_is_a_master() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    // Nothing can save this one: the process is gone. What it was doing is finished, and a start finds nothing in
    // its way.
    place.put_program("prog", &wrapper("", "exit 5"));
    let mut held = site.connect();
    held.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nx");
    wait_until(5, "its head arrived", || place.count("connections") == 1);
    place.app(&["restart"]).failed(1);
    held.send("y");
    assert_eq!(held.answer().text(), "xy");
    wait_until(10, "all are gone", || working_in(&place.dir).is_empty());
    place.put_demo("prog");
    let again = Site::of(
        &place
            .app(&["start", "-d", "--address", site.address()])
            .ok(),
    );
    assert_eq!(again.get("/hello").status, 200);
}

#[test]
fn a_wrapper_that_clears_the_environment() {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let text = format!("#!/bin/sh\nexec env -i '{}' \"$@\"\n", demo().display());
    place.put_program("prog", &text);
    let hammer = Hammer::easy(site.address());
    let done = place.app(&["restart"]);
    wait_until(15, "one master serves with one worker", || {
        place.app(&["state", "--probe"]).code == Some(0)
            && place.pid().is_some_and(|pid| workers(pid).len() == 1)
    });
    hammer.end();
    assert!(done.code == Some(0) || done.code == Some(1), "{done:?}");
    assert_eq!(place.pid(), Some(site.pid));
    assert_eq!(working_in(&place.dir).len(), 2, "a master and a worker");
}

/// A program that closes what came through under this name, or says that it did.
fn damaging(name: &str) -> String {
    format!(
        "#!/usr/bin/env python3\n\
         import os, sys\n\
         if sys.argv[2] == 'start':\n    \
             for pair in os.environ['HADE_HANDOVER'].split('\\t'):\n        \
                 key, value = pair.split('=', 1)\n        \
                 if key == '{name}':\n            \
                     os.close(int(value.split(' ')[1] if key == 'worker' else value))\n\
         os.execv('{0}', ['{0}'] + sys.argv[1:])\n",
        demo().display()
    )
}

#[track_caller]
fn goes_on_without(name: &str) {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let old = worker(site.pid);
    place.put_program("prog", &damaging(name));
    let hammer = Hammer::easy(site.address());
    let done = place.app(&["restart"]);
    assert!(is_alive(site.pid), "the master is gone: {done:?}");
    match name {
        // Nothing that a service could not do without.
        "ledger" => assert_eq!(done.code, Some(0), "{done:?}"),
        // The one who asked cannot be told.
        "asker" => assert_eq!(done.code, Some(1), "{done:?}"),
        // The connection of the one who asked came through: it is told what did not.
        _ => assert!(
            done.code == Some(1) && done.err.contains("did not come through the restart"),
            "{done:?}"
        ),
    }
    wait_until(5, "the restart is over", || {
        place
            .app(&["state", "--json"])
            .out
            .contains("\"restarting\":false")
    });
    let now = worker(site.pid);
    assert_eq!(now == old, !["ledger", "asker"].contains(&name));
    assert_eq!(place.pid(), Some(site.pid));
    // There is one master, and whoever wants to be another is told so.
    let second = place.app(&["start", "-d", "--address", "127.0.0.1:0"]);
    assert!(second.err.contains("already running, pid"), "{second:?}");
    hammer.end();
    if name == "listener" {
        // Without a listener there can be no new worker. The old one has it, and goes on.
        let why = place.app(&["restart"]).failed(1);
        assert!(why.contains("listener"), "{why}");
        assert_eq!(site.get("/hello").status, 200);
    } else {
        // The wrapper is still what was started, and would do it again.
        place.put_demo("prog");
        works(&place, &site);
    }
    let stopped = place.app(&["stop"]).ok();
    assert!(stopped.starts_with("demo: stopped pid "), "{stopped}");
    wait_until(5, "all are gone", || working_in(&place.dir).is_empty());
    assert!(!place.path("run/app.sock").exists());
    assert_eq!(place.read("run/app.pid"), "");
}

#[test]
fn the_listener_does_not_come_through() {
    goes_on_without("listener");
}

#[test]
fn the_lock_does_not_come_through() {
    goes_on_without("lock");
}

#[test]
fn the_control_socket_does_not_come_through() {
    goes_on_without("control");
}

#[test]
fn the_counters_do_not_come_through() {
    goes_on_without("ledger");
}

#[test]
fn the_one_who_asked_does_not_come_through() {
    goes_on_without("asker");
}

#[test]
fn the_wire_to_the_old_worker_is_cut() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let old = worker(site.pid);
    place.put_program("prog", &damaging("worker"));
    let hammer = Hammer::new().with({
        let address = site.address().to_owned();
        move |tally| crate::support::once(&address, "/hello", tally, b"Hello, World!")
    });
    let done = place.app(&["restart"]);
    // The old worker takes that for the master's death, and drains. There must be another one.
    wait_until(10, "a worker serves", || {
        !is_alive(old)
            && place.app(&["state", "--probe"]).code == Some(0)
            && workers(site.pid).len() == 1
    });
    hammer.end();
    println!("{done:?}");
    place.put_demo("prog");
    works(&place, &site);
}

#[test]
fn no_descriptors() {
    if !has("prlimit") {
        return;
    }
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let old = worker(site.pid);
    let limit = |soft: &str| {
        let pid = site.pid.to_string();
        run(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")])).ok()
    };
    let before = std::fs::read_to_string(format!("/proc/{}/limits", site.pid)).unwrap();
    let before = before
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next())
        .unwrap()
        .to_owned();
    let given_up = || place.log().matches("restart given up").count();
    let open = std::fs::read_dir(format!("/proc/{}/fd", site.pid)).unwrap();
    let highest = open
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        })
        .max()
        .unwrap();
    let hammer = Hammer::easy(site.address());
    // From no room at all to almost enough.
    for more in 0..5 {
        let count = given_up();
        limit(&(highest + 1 + more).to_string());
        signal(site.pid, "HUP");
        wait_until(12, "the restart is over", || {
            given_up() > count || worker(site.pid) != old
        });
        limit(&before);
        wait_until(5, "the master answers", || {
            place.app(&["state"]).code == Some(0)
        });
        assert_eq!(place.fact("restarting"), "false", "{more} more descriptors");
        if worker(site.pid) != old {
            break;
        }
    }
    hammer.end();
    works(&place, &site);
}

#[test]
fn a_master_without_descriptors_does_not_spin() {
    if !has("prlimit") {
        return;
    }
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let limit = |soft: &str| {
        let pid = site.pid.to_string();
        run(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")])).ok()
    };
    // Hundredths of a second of processor time, its own and the kernel's for it.
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", site.pid)).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        fields
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum()
    };
    limit("4");
    let before = ticks();
    // It takes its second to find out that there is no answer.
    place.app(&["state"]).failed(4);
    assert_eq!(site.get("/hello").status, 200, "the worker has its own");
    let used = ticks() - before;
    assert!(used < 20, "{used} ticks in a second");
    limit("1024");
    wait_until(5, "the master answers", || {
        place.app(&["state"]).code == Some(0)
    });
}

#[test]
fn no_processes() {
    if !(is_root() && has("prlimit") && has("setpriv")) {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    let prog = place.path("prog");
    let as_user = place.as_new_user();
    let mut command = as_user();
    command
        .arg(&prog)
        .args(["app", "start", "-d", "--address", "127.0.0.1:0"])
        .current_dir(&place.dir);
    let site = Site::of(&run(&mut command).ok());
    let tasks = |pid: u32| {
        std::fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .count()
    };
    let limit = |most: usize| {
        let pid = site.pid.to_string();
        let most = format!("--nproc={most}:");
        run(as_user().args(["prlimit", "--pid", &pid, &most])).ok()
    };
    let now = tasks(site.pid) + tasks(worker(site.pid));
    limit(now);
    let why = fails(&place, &site, &[]);
    assert!(
        why.contains("cannot run ") && why.contains("Resource temporarily unavailable"),
        "{why}"
    );
    // Room for a process, but not for its threads.
    let now = tasks(site.pid) + tasks(worker(site.pid));
    limit(now + 1);
    let why = fails(&place, &site, &[]);
    // Which one is refused depends on how soon the kernel forgets the last process.
    let reasons = [
        "Resource temporarily unavailable",
        "its threads may not have started",
        "it cannot start a thread",
    ];
    assert!(reasons.iter().any(|reason| why.contains(reason)), "{why}");
    limit(10_000);
    works(&place, &site);
}

// Deaths.

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Checking,
    Booting,
    Draining,
}

/// Brings a restart into a stage and holds it there; what holds it is let go by the function that comes back.
fn hold<'a>(
    place: &'a Place,
    site: &Site,
    stage: Stage,
) -> (Meanwhile, u32, Option<Wire>, Box<dyn Fn() + 'a>) {
    let old = worker(site.pid);
    let mut held = None;
    let letting_go: Box<dyn Fn() + 'a> = match stage {
        Stage::Checking => {
            place.sh("mkfifo hold", &[]);
            place.put_program("prog", &wrapper("read line <hold", ""));
            Box::new(|| {
                // A check that is gone does not read any more.
                place.sh("timeout 1 sh -c 'echo go >hold' || :", &[]);
            })
        }
        Stage::Booting => {
            place.write("boot", "wait");
            Box::new(|| place.write("boot", ""))
        }
        Stage::Draining => {
            let mut wire = site.connect();
            wire.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nx");
            wait_until(5, "its head arrived", || place.count("connections") >= 1);
            held = Some(wire);
            Box::new(|| {})
        }
    };
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    let reached = |json: &str| match stage {
        Stage::Checking => json.contains("\"restarting\":true"),
        Stage::Booting => json.contains("\"state\":\"starting\""),
        Stage::Draining => json.contains("\"state\":\"draining\""),
    };
    wait_until(10, "the restart comes to its stage", || {
        reached(&place.app(&["state", "--json"]).out)
    });
    assert!(workers(site.pid).contains(&old));
    (restart, old, held, letting_go)
}

#[track_caller]
fn ends_serving(place: &Place, site: &Site) {
    wait_until(15, "one worker serves, and no restart is under way", || {
        let state = place.app(&["state", "--json"]);
        state.code == Some(0)
            && state.out.contains("\"restarting\":false")
            && state.out.matches("\"state\":\"serving\"").count() == 1
            && workers(site.pid).len() == 1
    });
    assert_eq!(site.get("/hello").status, 200);
    place.put_demo("prog");
    works(place, site);
}

fn old_worker_dies(stage: Stage) {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let (restart, old, held, let_go) = hold(&place, &site, stage);
    signal(old, "KILL");
    wait_until(5, "it is gone", || !workers(site.pid).contains(&old));
    // New ones wait for whoever comes next, and are not refused.
    let mut waiting = site.connect();
    waiting.send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
    let_go();
    drop(held);
    assert_eq!(waiting.answer().status, 200);
    let done = restart.end(15);
    println!("{stage:?}: {done:?}");
    assert!(
        done.out.contains("restarted") || done.err.contains("given up"),
        "{done:?}"
    );
    ends_serving(&place, &site);
    assert!(stage == Stage::Draining || place.count("worker_deaths") == 1);
}

fn new_worker_dies(stage: Stage) {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let (restart, old, held, let_go) = hold(&place, &site, stage);
    // While it is checked, the new one is the check.
    let new = workers(site.pid).into_iter().find(|pid| *pid != old);
    signal(new.expect("a new one"), "KILL");
    if stage == Stage::Draining {
        wait_until(5, "another new one", || {
            workers(site.pid)
                .iter()
                .any(|pid| *pid != old && Some(*pid) != new)
        });
    }
    if let Some(mut wire) = held {
        wire.send("y");
        assert_eq!(wire.answer().text(), "xy");
    }
    let done = restart.end(15);
    println!("{stage:?}: {done:?}");
    if stage == Stage::Draining {
        assert!(done.out.contains("restarted"), "{done:?}");
    } else {
        assert!(done.err.contains("killed by signal 9 (KILL)"), "{done:?}");
        assert_eq!(worker(site.pid), old);
    }
    let_go();
    ends_serving(&place, &site);
}

fn master_dies(stage: Stage) {
    let place = Place::demo();
    let site = place.start_copy(&[]);
    let (restart, _, held, let_go) = hold(&place, &site, stage);
    signal(site.pid, "KILL");
    // Whoever asked is told that it does not know.
    let done = restart.end(5);
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:?}");
    let name = format!("pid {}", site.pid);
    assert!(done.err.contains(&name), "{done:?}");
    if let Some(mut wire) = held {
        wire.send("y");
        assert_eq!(wire.answer().text(), "xy", "what is in flight is finished");
    }
    let code = place.app(&["state"]).code;
    assert_eq!(code, Some(1), "dead, and the pid file names it");
    if stage == Stage::Checking {
        // It is somebody else's program, and nobody waits for it any more.
        let_go();
    }
    // Nobody lets the others go: a worker does not outlive its master for long, in whatever state it is.
    wait_until(9, "no worker is left", || working_in(&place.dir).is_empty());
    place.write("boot", "");
    let again = place.app(&["start", "-d", "--address", site.address()]);
    let again = Site::of(&again.ok());
    assert_eq!(again.url, site.url);
    assert_eq!(again.get("/hello").status, 200);
    assert_eq!(place.pid(), Some(again.pid));
    let now = working_in(&place.dir);
    assert_eq!(now.len(), 2, "{now:?}: a master and a worker");
}

#[test]
fn the_old_worker_is_killed_while_the_program_is_checked() {
    old_worker_dies(Stage::Checking);
}

#[test]
fn the_old_worker_is_killed_while_the_new_one_boots() {
    old_worker_dies(Stage::Booting);
}

#[test]
fn the_old_worker_is_killed_while_it_drains() {
    old_worker_dies(Stage::Draining);
}

#[test]
fn the_check_is_killed() {
    new_worker_dies(Stage::Checking);
}

#[test]
fn the_new_worker_is_killed_while_it_boots() {
    new_worker_dies(Stage::Booting);
}

#[test]
fn the_new_worker_is_killed_while_the_old_one_drains() {
    new_worker_dies(Stage::Draining);
}

#[test]
fn the_master_is_killed_while_the_program_is_checked() {
    master_dies(Stage::Checking);
}

#[test]
fn the_master_is_killed_while_the_new_worker_boots() {
    master_dies(Stage::Booting);
}

#[test]
fn the_master_is_killed_while_the_old_worker_drains() {
    master_dies(Stage::Draining);
}

#[test]
fn told_to_stop_in_the_middle_of_a_restart() {
    for stage in [Stage::Checking, Stage::Booting, Stage::Draining] {
        let place = Place::demo();
        let site = place.start_copy(&[]);
        let (restart, _, held, let_go) = hold(&place, &site, stage);
        let stop = Meanwhile::new(place.command(&["app", "stop"]));
        if let Some(mut wire) = held {
            wire.send("y");
            assert_eq!(wire.answer().text(), "xy");
        }
        let said = stop.end(8).ok();
        assert!(said.starts_with("demo: stopped pid "), "{stage:?}: {said}");
        let done = restart.end(5);
        assert!(
            done.code == Some(1) || stage == Stage::Draining,
            "{stage:?}: {done:?}"
        );
        let_go();
        wait_until(9, "all are gone", || working_in(&place.dir).is_empty());
        assert_eq!(place.read("run/app.pid"), "");
        assert!(!place.path("run/app.sock").exists());
    }
}
