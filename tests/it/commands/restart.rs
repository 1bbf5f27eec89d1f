//! `app restart`: in place, and with `--cold` by stopping and starting. What both have in common, and what is theirs.

use crate::look::{nothing_left, own_address};
use crate::support::{
    Meanwhile, Place, Site, freeze, holds_for, is_alive, run, signal, wait_until, workers,
    working_in,
};
use std::net::TcpStream;

const WAYS: [&[&str]; 2] = [&[], &["--cold"]];

/// Restarts what runs, and reads what is said: who serves now, and where.
#[track_caller]
fn restart(place: &Place, flags: &[&str], environment: &[(&str, &str)]) -> Site {
    let args = [&["app", "restart"], flags].concat();
    let text = run(place.command(&args).envs(environment.iter().copied())).ok();
    if flags.contains(&"--cold") {
        let (report, announcement) = text.split_once('\n').unwrap();
        assert!(report.starts_with("hade: stopped pid "), "{text}");
        return Site::of(announcement);
    }
    let site = text
        .strip_prefix("hade: restarted, pid ")
        .filter(|_| text.lines().count() == 1)
        .and_then(|rest| rest.split_once(", on "))
        .and_then(|(pid, rest)| {
            Some(Site {
                pid: pid.parse().ok()?,
                url: rest.split(", ").next()?.to_owned(),
            })
        });
    site.unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_restart_when_nothing_runs_starts_a_daemon() {
    for way in WAYS {
        let place = Place::new();
        let address = own_address();
        let args = [&["restart", "--address", &address], way].concat();
        let text = place.app(&args).ok();
        let site = Site::of(&text);
        assert_eq!(site.address(), address);
        assert_eq!(text.lines().count(), 6, "what a start says: {text}");
        assert_eq!(place.pid(), Some(site.pid));
        assert_eq!(site.get("/").status, 200);
        // The next one finds a master that was started by a restart, and keeps its address.
        assert_eq!(restart(&place, way, &[]).address(), address);
    }
}

#[test]
fn in_place_the_master_stays_and_the_worker_goes() {
    let place = Place::new();
    let first = place.start(&[]);
    let worker = workers(first.pid)[0];
    let second = restart(&place, &[], &[]);
    assert_eq!((second.pid, &second.url), (first.pid, &first.url));
    assert!(!is_alive(worker));
    assert_eq!(workers(first.pid).len(), 1);
    assert_eq!(place.pid(), Some(first.pid));
    assert_eq!(second.get("/").status, 200);
    place.app(&["stop"]).ok();
    nothing_left(&place);
}

#[test]
fn cold_everything_is_new() {
    let place = Place::new();
    let first = place.start(&[]);
    let worker = workers(first.pid)[0];
    let second = restart(&place, &["--cold"], &[]);
    assert_ne!(second.pid, first.pid);
    assert!(!is_alive(first.pid) && !is_alive(worker));
    assert_eq!(place.pid(), Some(second.pid));
    assert_eq!(second.get("/").status, 200);
}

#[test]
fn a_restart_keeps_the_flags_of_the_start() {
    for way in WAYS {
        let place = Place::new();
        let address = own_address();
        place.write("other.conf", "app.workers = 2\n");
        let flags = [
            "--config=other.conf",
            "--set",
            "threads=3",
            "--address",
            &address,
        ];
        place.app(&[&["start", "-d"], &flags[..]].concat()).ok();
        // Twice: what is kept once may still be lost the next time.
        for _ in 0..2 {
            let site = restart(&place, way, &[]);
            assert_eq!(site.address(), address);
            assert_eq!(workers(site.pid).len(), 2, "from the settings file");
            assert_eq!(site.get("/").status, 200);
        }
    }
}

#[test]
fn a_restart_keeps_the_environment_of_the_start() {
    for way in WAYS {
        let place = Place::new();
        let address = own_address();
        let mut start = place.command(&["app", "start", "-d"]);
        start.env("ADDRESS", &address).env("APP_WORKERS", "2");
        run(start.env("HOME_MADE", "yes")).ok();
        for _ in 0..2 {
            let site = restart(&place, way, &[("HOME_MADE", "no")]);
            assert_eq!(site.address(), address);
            assert_eq!(workers(site.pid).len(), 2);
            let environment = std::fs::read_to_string(format!("/proc/{}/environ", site.pid));
            assert!(
                environment
                    .unwrap()
                    .split('\0')
                    .any(|pair| pair == "HOME_MADE=yes")
            );
        }
    }
}

#[test]
fn flags_and_variables_of_the_restart_win_over_those_of_the_start() {
    let (a, b, c, d) = (own_address(), own_address(), own_address(), own_address());
    // Each way to say it at the start, against each way to say it at the restart.
    for (flag, variable) in [(Some(&a), None), (None, Some(&a)), (Some(&a), Some(&d))] {
        for (new_flag, new_variable, expected) in [
            (Some(&b), None, &b),
            (None, Some(&b), &b),
            (Some(&b), Some(&c), &b),
        ] {
            for way in WAYS {
                let place = Place::new();
                let mut start = place.command(&["app", "start", "-d"]);
                flag.map(|flag| start.args(["--address", flag]));
                variable.map(|variable| start.env("ADDRESS", variable));
                assert_eq!(Site::of(&run(&mut start).ok()).address(), a);
                let mut flags = way.to_vec();
                flags.extend(new_flag.iter().flat_map(|flag| ["--address", flag]));
                let variables: Vec<(&str, &str)> = new_variable
                    .iter()
                    .map(|variable| ("ADDRESS", variable.as_str()))
                    .collect();
                let site = restart(&place, &flags, &variables);
                assert_eq!(site.address(), expected.as_str());
                assert_eq!(site.get("/").status, 200);
                assert!(TcpStream::connect(&a).is_err(), "the old address is free");
                // And what was chosen then stays.
                assert_eq!(restart(&place, way, &[]).address(), expected.as_str());
                place.app(&["stop"]).ok();
            }
        }
    }
}

#[test]
fn bad_new_settings_leave_the_old_one_running() {
    for way in WAYS {
        let place = Place::new();
        let site = place.start(&[]);
        let unharmed = || {
            assert_eq!(place.pid(), Some(site.pid));
            assert_eq!(site.get("/").status, 200);
        };
        let bad = |flags: &[&str]| place.app(&[&["restart"], way, flags].concat());
        assert_eq!(
            bad(&["--set", "threads=many"]).failed(2),
            "hade: --set \"threads=many\": expected a whole number, 1 to 4096\n"
        );
        unharmed();
        let mut restart = place.command(&[&["app", "restart"], way].concat());
        assert_eq!(
            run(restart.env("ADDRESS", "8080")).failed(2),
            "hade: ADDRESS \"8080\": expected host:port; did you mean \":8080\"?\n"
        );
        unharmed();
        assert_eq!(
            bad(&["--config", "none.conf"]).failed(1),
            "hade: cannot read none.conf: No such file or directory (os error 2); named by --config\n"
        );
        unharmed();
        place.write("etc/app.conf", "app.threads = 4\napp.addres = :1\n");
        assert_eq!(
            bad(&[]).failed(1),
            "hade: etc/app.conf:2: unknown key \"app.addres\"; did you mean \"app.address\"?\n"
        );
        unharmed();
    }
}

#[test]
fn a_new_address_that_is_busy_leaves_the_old_one_running() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let place = Place::new();
    let site = place.start(&[]);
    let said = place.app(&["restart", "--address", &address]).failed(1);
    assert!(
        said.contains(&format!(
            "cannot listen on {address}: Address already in use"
        )) && said.ends_with(&format!("; pid {} still serves as before\n", site.pid))
            && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(site.get("/").status, 200);
    assert_eq!(workers(site.pid).len(), 1);
    assert_eq!(restart(&place, &[], &[]).url, site.url);
}

#[test]
fn an_old_one_that_does_not_leave_is_not_joined_by_a_new_one() {
    let place = Place::new();
    let site = place.start(&["--set", "close_wait=0"]);
    freeze(site.pid);
    assert_eq!(
        place
            .app(&["restart", "--cold", "--set", "close_wait=0"])
            .failed(1),
        format!(
            "hade: pid {} still there after 2.0 s; wait, or end it with \"app stop --force\"\n",
            site.pid
        )
    );
    assert_eq!(
        working_in(&place.dir).len(),
        2,
        "master and worker, as before"
    );
    signal(site.pid, "CONT");
}

#[test]
fn one_that_does_not_answer_is_not_waited_for_long() {
    let place = Place::new();
    let site = place.start(&[]);
    freeze(site.pid);
    let said = place.app(&["restart"]).failed(1);
    signal(site.pid, "CONT");
    assert!(
        said.starts_with(&format!(
            "hade: cannot ask pid {} to restart: run/app.sock: ",
            site.pid
        )) && said.ends_with("; \"app restart --cold\" does without\n")
            && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(site.get("/").status, 200);
    // Nobody waits for that restart any more, and it is not done: the next one is the first.
    place.app(&["restart"]).ok();
    assert_eq!(place.fact("generation"), "2");
}

/// For as long as the master has patience, of which the command does not know.
#[test]
fn one_that_is_at_it_is_waited_for() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=300"]);
    let mut wire = place.hold(&site, "h");
    let mut restart = Meanwhile::new(place.command(&["app", "restart"]));
    // Two boots, five seconds of its own close_wait, and some.
    holds_for(35_000, "the restart waits", || !restart.is_over());
    place.release("h");
    assert_eq!(wire.answer().status, 200);
    let said = restart.end(20).ok();
    assert!(said.ends_with(" 1 finished since, 0 cut\n"), "{said}");
}

#[test]
fn one_that_stands_still_amid_a_restart_was_asked_and_may_yet_do_it() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=300"]);
    let mut wire = place.hold(&site, "h");
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(20, "the new worker serves", || workers(site.pid).len() == 2);
    freeze(site.pid);
    let said = restart.end(100).failed(1);
    signal(site.pid, "CONT");
    assert!(
        said.starts_with(&format!(
            "demo: pid {} was asked to restart, and is not done after ",
            site.pid
        )) && said.ends_with(" s; \"app state\" tells how it is\n"),
        "{said}"
    );
    place.release("h");
    assert_eq!(wire.answer().status, 200);
    place.wait_for_log(&format!("restarted, pid {}, ", site.pid));
}

#[test]
fn a_cold_restart_waits_for_what_is_in_flight() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    wire.send("GET /slow?ms=700 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(site.get("/hello").status, 200);
    let text = place.app(&["restart", "--cold"]).ok();
    assert!(text.starts_with("demo: stopped pid "), "{text}");
    assert_eq!(wire.answer().status, 200);
}

#[test]
fn the_command_line_does_not_grow_with_every_restart() {
    for way in WAYS {
        let place = Place::new();
        let address = own_address();
        place.start(&["--set", "threads=4"]);
        let mut lengths = Vec::new();
        for _ in 0..4 {
            let flags = [way, &["--set", "close_wait=3"]].concat();
            let site = restart(&place, &flags, &[("ADDRESS", &address)]);
            let line = std::fs::read(format!("/proc/{}/cmdline", site.pid)).unwrap();
            lengths.push(line.len());
        }
        assert_eq!(lengths[1..], [lengths[1]; 3], "{way:?} {lengths:?}");
    }
}

/// The process that serves in a directory below the place's, and where it works.
#[track_caller]
fn serves_in(place: &Place, dir: &str) -> u32 {
    let name = format!("{dir}/run/app.pid");
    let pid = place
        .read(&name)
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("nobody in {dir}"));
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        std::fs::canonicalize(place.path(dir)).unwrap()
    );
    pid
}

#[test]
fn a_restart_from_elsewhere_finds_the_base_directory_by_flag() {
    for way in WAYS {
        let place = Place::new();
        place.write("site/etc/app.conf", "app.close_wait = 1\n");
        let args = [
            "start",
            "-d",
            "--address",
            "127.0.0.1:0",
            "--base-dir",
            "site",
        ];
        place.app(&args).ok();
        // By another name, from another directory.
        let site = place.path("site");
        let args = ["app", "restart", "--base-dir", site.to_str().unwrap()];
        let mut elsewhere = place.command(&[&args[..], way].concat());
        run(elsewhere.current_dir("/")).ok();
        serves_in(&place, "site");
        place.app(&["stop", "--base-dir", "site"]).ok();
    }
}

#[test]
fn a_restart_finds_the_base_directory_by_variable() {
    for way in WAYS {
        let place = Place::new();
        std::fs::create_dir(place.path("site")).unwrap();
        let site = place.path("site");
        // The start was told nothing: it was there.
        let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
        run(place.command(&args).current_dir(&site)).ok();
        let mut command = place.command(&[&["app", "restart"], way].concat());
        let said = run(command.env("APP_BASE_DIR", &site));
        let again = place.path("run").exists();
        let pid = (said.code == Some(0) && !again).then(|| serves_in(&place, "site"));
        place.app(&["stop", "--base-dir", "site"]).ok();
        assert!(!again, "a second instance was made: {said:?}");
        assert!(pid.is_some(), "{said:?}");
    }
}

#[test]
fn a_base_directory_in_the_environment_of_the_start_is_not_read_from_elsewhere() {
    for way in WAYS {
        let place = Place::new();
        std::fs::create_dir(place.path("site")).unwrap();
        let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
        run(place.command(&args).env("APP_BASE_DIR", "site")).ok();
        // Somebody who is in the directory needs no flag.
        let mut command = place.command(&[&["app", "restart"], way].concat());
        let said = run(command.current_dir(place.path("site")));
        let again = place.path("site/site").exists();
        let pid = (said.code == Some(0)).then(|| serves_in(&place, "site"));
        place.app(&["stop", "--base-dir", "site"]).ok();
        assert!(!again, "a second instance was made: {said:?}");
        assert!(pid.is_some(), "{way:?}: {said:?}");
    }
}

#[test]
fn a_foreground_start_stays_in_the_foreground_until_it_is_stopped() {
    let place = Place::new();
    let mut front = place.foreground(&[]);
    let site = restart(&place, &[], &[]);
    assert_eq!(site.pid, front.child.id());
    assert_eq!(front.child.try_wait().unwrap(), None);
    place.app(&["stop"]).ok();
    assert_eq!(front.end(), Some(0));
    nothing_left(&place);
}

#[test]
fn a_restart_takes_the_program_that_is_on_disk_now() {
    for way in WAYS {
        let place = crate::look::open_to_all();
        let program = place.path("hade");
        let app = |args: &[&str]| {
            run(std::process::Command::new(&program)
                .args(args)
                .current_dir(&place.dir))
        };
        app(&["app", "start", "-d", "--address", "127.0.0.1:0"]).ok();
        // An upgrade puts a new file in its place.
        crate::look::copy(
            std::path::Path::new(crate::support::HADE),
            &place.path("new"),
        );
        std::fs::rename(place.path("new"), &program).unwrap();
        app(&[&["app", "restart"], way].concat()).ok();
        let pid = place.pid().unwrap();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(exe, program, "and not what was deleted");
        let comm = crate::look::comm(pid);
        assert_eq!(comm, "hade app");
    }
}

#[test]
fn a_restart_does_not_make_the_pid_file_the_log() {
    let place = Place::new();
    let site = place.start(&[]);
    let said = place.app(&["restart", "--set", "log_file=run/app.pid"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("run/app.pid is named for two purposes"),
        "{said:?}"
    );
    assert_eq!(place.pid(), Some(site.pid));
    crate::support::signal(site.pid, "USR1");
    assert!(place.app(&["state"]).ok().starts_with("hade: running, "));
}

#[test]
fn a_log_that_cannot_be_opened_gives_the_restart_up() {
    let place = Place::new();
    let site = place.start(&[]);
    place.write("file", "");
    let said = place
        .app(&["restart", "--set", "log_file=file/app.log"])
        .failed(1);
    assert!(
        said.contains("restart given up: cannot make the directory "),
        "{said}"
    );
    assert!(
        said.ends_with(&format!("; pid {} still serves as before\n", site.pid)),
        "{said}"
    );
    place.app(&["restart"]).ok();
}
