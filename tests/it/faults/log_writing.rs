//! What a log meets: a disk that fills up in the middle of a line, and a reader that does not read.

use crate::support::{Foreground, Place, Site, has, run, signal, wait_until, workers};
use std::fs;
use std::process::Stdio;

/// Limits the files of a running process, as a full disk would.
fn limit_files(place: &Place, pid: u32, bytes: &str) {
    let limit = format!("{bytes}:unlimited");
    place.sh(
        r#"prlimit --pid "$1" --fsize="$2""#,
        &[&pid.to_string(), &limit],
    );
}

/// Every line is whole, or was torn and then ended.
fn is_clean(log: &str) -> bool {
    log.lines().all(|line| {
        line.matches("Z error ").count()
            + line.matches("Z info ").count()
            + line.matches("Z warn ").count()
            <= 1
    })
}

/// Whoever tore the line, the next one of any process stands on a line of its own; before a restart and behind it.
#[test]
fn a_torn_line_is_ended_before_the_next_one() {
    if !has("prlimit") {
        return;
    }
    for in_foreground in [false, true] {
        let place = Place::demo();
        place.put_demo("prog");
        let args = ["start", "--address", "127.0.0.1:0"];
        let (mut app, mut site) = (None, None);
        if in_foreground {
            // Its standard output is the file: by the shell's `>>`, and not opened by hade.
            fs::create_dir(place.path("run")).unwrap();
            let mut options = fs::OpenOptions::new();
            let file = options
                .append(true)
                .create(true)
                .open(place.path("run/app.log"));
            let file = file.unwrap();
            let mut command = place.command_of("prog", &args);
            let child = command.stdout(file).stderr(Stdio::null()).spawn().unwrap();
            wait_until(20, "it is started", || place.log().contains("\n  log "));
            site = Some(Site::of(&place.log()));
            app = Some(Child(child));
        } else {
            let mut command = place.command_of("prog", &[&args[..], &["-d"]].concat());
            site.replace(Site::of(&run(&mut command).ok()));
        }
        let site = site.unwrap();
        for (who, next) in [
            ("worker", "master"),
            ("master", "worker"),
            ("worker", "restart"),
        ] {
            let worker = site.worker();
            let torn = if who == "worker" { worker } else { site.pid };
            let length = place.log().len();
            limit_files(&place, torn, &(length + 30).to_string());
            match who {
                "worker" => assert_eq!(site.get("/panic").status, 500),
                _ => signal(site.pid, "ALRM"),
            }
            wait_until(10, "a line is torn", || place.log().len() == length + 30);
            limit_files(&place, torn, "unlimited");
            match next {
                "master" => signal(site.pid, "PROF"),
                "worker" => assert_eq!(site.get("/panic").status, 500),
                _ => {
                    place.app_of("prog", &["restart"]).ok();
                }
            }
            wait_until(10, "there are more lines", || {
                place.log().len() > length + 60
            });
            let log = place.log();
            assert_eq!(log.as_bytes()[length + 30], b'\n', "{log}");
            assert_ne!(log.as_bytes()[length + 31], b'\n', "{log}");
            assert!(is_clean(&log), "{log}");
        }
        signal(site.pid, "TERM");
        place.wait_empty(5);
        drop(app);
    }
}

struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The flags of each descriptor of a process that leads to what its standard output leads to.
fn outputs(pid: u32) -> Vec<(u32, bool)> {
    let link = |number: u32| fs::read_link(format!("/proc/{pid}/fd/{number}")).ok();
    let output = link(1).unwrap();
    let names = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let numbers = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
    let mut found: Vec<(u32, bool)> = numbers
        .filter(|number| *number != 2 && link(*number).as_ref() == Some(&output))
        .map(|number| {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
            (number, flags & 0o4000 != 0)
        })
        .collect();
    found.sort_unstable();
    found
}

/// Where others share the pipe it may fill up between any question and the write. So the log has a descriptor of its
/// own that never waits, and the one that is shared waits as before.
#[test]
fn a_full_pipe_holds_nobody_up_and_nobody_else_notices() {
    let place = Place::demo();
    place.put_demo("prog");
    let args = ["start", "--address", "127.0.0.1:0"];
    let mut app = Foreground::of(place.command_of("prog", &args));
    for times in 1..=2 {
        for pid in [app.site.pid, app.site.worker()] {
            // What it said when it had started went out by one of its own that was for that alone.
            wait_until(20, "one is for the log", || {
                let found = outputs(pid);
                assert_eq!(found[0], (1, false), "{found:?}");
                found[1..].iter().map(|(_, own)| *own).eq([true])
            });
        }
        // Nobody reads: more than the 64 KiB that a pipe holds.
        for _ in 0..1000 {
            assert_eq!(app.site.get("/panic").status, 500);
        }
        signal(app.site.pid, "USR1");
        let old = app.site.worker();
        signal(app.site.pid, "HUP");
        wait_until(20, "it has restarted", || {
            let now = workers(app.site.pid);
            now.len() == 1 && now[0] != old
        });
        assert_eq!(app.site.get("/hello").status, 200, "{times}");
    }
    // What the reader finds in the end is whole.
    let out = app.child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(out).unwrap());
    app.signal("TERM");
    assert_eq!(app.end(), Some(0));
    let text = reader.join().unwrap();
    assert!(is_clean(&text) && text.ends_with('\n'));
    assert!(
        text.contains(" log lines before this one were lost\n"),
        "{}",
        text.len()
    );
}
