//! What a daemon is, as the kernel sees it.

use crate::look::{comm, copy, descriptors, group_session_terminal, mode, status, threads};
use crate::support::{HADE, Place, Site, demo, has, run, workers};
use std::fs;
use std::path::Path;
use std::process::Command;

const START: [&str; 5] = ["app", "start", "--daemon", "--address", "127.0.0.1:0"];

#[test]
fn a_daemon_leads_its_own_session_without_a_terminal() {
    let place = Place::new();
    let pid = place.start(&[]).pid;
    assert_eq!(group_session_terminal(pid), (pid, pid, 0));
    let worker = workers(pid)[0];
    assert_eq!(group_session_terminal(worker), (pid, pid, 0));
}

#[test]
fn a_daemon_outlives_the_terminal_it_was_started_from() {
    if !has("script") {
        return;
    }
    let place = Place::new();
    let words = format!("{HADE} {}", START.join(" "));
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &words, "/dev/null"]);
    script
        .current_dir(&place.dir)
        .stdin(std::process::Stdio::null());
    // A terminal ends its lines with a carriage return as well.
    let text = run(&mut script).ok().replace('\r', "");
    let site = Site::of(&text);
    assert_eq!(group_session_terminal(site.pid), (site.pid, site.pid, 0));
    assert_eq!(site.get("/").status, 200);
    let named: Vec<String> = descriptors(site.pid)
        .into_iter()
        .map(|(_, target)| target)
        .collect();
    assert!(
        !named
            .iter()
            .any(|target| target.contains("/dev/pts") || target.contains("tty")),
        "{named:?}"
    );
    // script(1) has ended, and with it the terminal.
    place.app(&["stop"]).ok();
}

#[test]
fn a_daemon_works_in_the_base_directory_with_umask_027() {
    let place = Place::new();
    fs::create_dir(place.path("site")).unwrap();
    let base = ["--base-dir", "site"];
    let script = "umask 000; exec \"$0\" \"$@\"";
    let args = [&START[..], &base].concat();
    let text = run(&mut place.wrapped(&["sh", "-c", script], &args)).ok();
    let pid = Site::of(&text).pid;
    for pid in [pid, workers(pid)[0]] {
        assert_eq!(status(pid, "Umask"), "0027");
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(cwd, fs::canonicalize(place.path("site")).unwrap());
    }
    // It is in another directory than its guard looks at.
    place.app(&[&["stop"], &base[..]].concat()).ok();
}

#[test]
fn what_a_handler_prints_goes_to_the_log_and_input_comes_from_nowhere() {
    let place = Place::new();
    let pid = place.start(&[]).pid;
    let log = place.path("run/app.log").display().to_string();
    for pid in [pid, workers(pid)[0]] {
        let open = descriptors(pid);
        assert_eq!(
            open[..3],
            [
                (0, "/dev/null".to_owned()),
                (1, log.clone()),
                (2, log.clone())
            ]
        );
    }
}

/// Whatever their numbers, however long the kernel's table of descriptors is, and however they were opened.
#[test]
fn a_daemon_keeps_nothing_of_what_its_starter_had_open() {
    const STARTER: &str = "\
import os, sys
for number in sys.argv[1].split(','):
    for way in (os.O_RDONLY, os.O_PATH):
        number = int(number) + 1
        kept = os.open('kept', way)
        if kept != number:
            os.dup2(kept, number)
            os.close(kept)
        os.set_inheritable(number, True)
os.execv(sys.argv[2], sys.argv[2:])
";
    if !has("python3") {
        return;
    }
    for numbers in ["4", "4,30,61", "62", "8,250", "4,900", "5,1000"] {
        let place = Place::new();
        place.write("kept", "kept");
        let mut command = Command::new("python3");
        command.args(["-c", STARTER, numbers, HADE, "app", "start", "-d"]);
        command.args(["--address", "127.0.0.1:0"]);
        let site = Site::of(&run(command.current_dir(&place.dir)).ok());
        for pid in workers(site.pid).into_iter().chain([site.pid]) {
            let held = descriptors(pid);
            let is_kept = |(_, to): &&(u32, String)| to.ends_with("/kept");
            assert_eq!(held.iter().find(is_kept), None, "{numbers}");
        }
    }
}

#[test]
fn whoever_reads_the_output_of_start_sees_its_end_while_the_daemon_runs() {
    // The daemon must not keep the caller's pipe: "hade app start -d | cat" would hang.
    let place = Place::new();
    let script = "\"$0\" \"$@\" 2>&1 | cat";
    let text = run(&mut place.wrapped(&["sh", "-c", script], &START)).ok();
    assert_eq!(Site::of(&text).get("/").status, 200);
}

/// Starts it with every signal blocked and ignored that can be.
const DEAF: &str = r#"
import os, signal, sys
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_daemon_hears_signals_that_its_caller_blocked_or_ignored() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    let text = run(&mut place.wrapped(&["python3", "-c", DEAF], &START)).ok();
    let site = Site::of(&text);
    let worker = workers(site.pid)[0];
    for pid in [site.pid, worker] {
        assert_eq!(status(pid, "SigBlk"), "0000000000000000");
        // PIPE, number 13, alone; 32 and 33 belong to the C library, which lets nobody touch them.
        let ignored = u64::from_str_radix(&status(pid, "SigIgn"), 16).unwrap();
        assert_eq!(ignored & !(3 << 31), 1 << 12, "{ignored:x}");
    }
    // HUP, INT, QUIT, USR1, TERM, CHLD.
    let caught = u64::from_str_radix(&status(site.pid, "SigCgt"), 16).unwrap();
    for number in [1, 2, 3, 10, 15, 17] {
        assert_ne!(caught & (1 << (number - 1)), 0, "{number}: {caught:x}");
    }
    place.app(&["stop"]).ok();
}

#[test]
fn the_foreground_hears_what_was_blocked_and_leaves_an_ignored_hangup_ignored() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let command = place.wrapped(&["python3", "-c", DEAF], &args);
    let mut front = crate::support::Foreground::of(command);
    let pid = front.child.id();
    assert_eq!(status(pid, "SigBlk"), "0000000000000000");
    let ignored = u64::from_str_radix(&status(pid, "SigIgn"), 16).unwrap();
    // As nohup(1) asks.
    assert_eq!(ignored & 1, 1, "{ignored:x}");
    for number in [2, 3, 10, 15, 17] {
        assert_eq!(ignored & (1 << (number - 1)), 0, "{number}: {ignored:x}");
    }
    front.signal("TERM");
    assert_eq!(front.end(), Some(0));
}

#[test]
fn processes_and_threads_have_names_that_read_well() {
    let place = Place::new();
    let site = place.start(&[]);
    let worker = workers(site.pid)[0];
    site.get("/");
    assert_eq!(comm(site.pid), "hade app");
    assert_eq!(threads(site.pid), ["hade app"], "a master has one thread");
    assert_eq!(comm(worker), "hade worker");
    let names = threads(worker);
    for name in ["hade worker", "gate", "handler 1", "tiny_http"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    for name in names {
        let known = ["hade worker", "gate", "tiny_http"].contains(&name.as_str());
        assert!(known || name.starts_with("handler "), "{name}");
    }
}

#[test]
fn threads_are_numbered_as_they_come() {
    let place = Place::of(&demo());
    let site = place.start(&[]);
    let worker = workers(site.pid)[0];
    let busy = ["a", "b", "c"].map(|name| (name, place.hold(&site, name)));
    let found = threads(worker);
    for name in ["handler 1", "handler 2", "handler 3"] {
        assert!(found.contains(&name.to_owned()), "{found:?}");
    }
    for (name, mut wire) in busy {
        place.release(name);
        assert_eq!(wire.answer().status, 200);
    }
}

#[test]
fn a_long_name_is_cut_where_the_suffix_still_fits() {
    for (name, master, worker) in [
        (
            "abcdefghijklmnopqrstuvwxyz1234",
            "abcdefghijk app",
            "abcdefgh worker",
        ),
        // Never in the middle of a character: 11 and 8 bytes would be.
        ("日本語サーバー", "日本語 app", "日本 worker"),
        ("größenwahnsinn", "größenwah app", "größen worker"),
    ] {
        let place = Place::new();
        let program = place.path(name);
        copy(Path::new(HADE), &program);
        assert_eq!(mode(&program) & 0o111, 0o111);
        let place = Place::of(&program);
        let text = place.app(&START[1..]).ok();
        let site = Site::of(&text);
        assert_eq!(comm(site.pid), master);
        assert_eq!(comm(workers(site.pid)[0]), worker);
        assert!(text.contains(&format!("\n  process  {master}\n")), "{text}");
        place.app(&["stop"]).ok();
    }
}
