//! `app start`.

use crate::look::{
    boxed, comm, has_namespaces, listening, nothing_left, only_a_stale_socket_left, own_address,
    sockets,
};
use crate::support::{
    Foreground, Place, Site, has, has_it, is_alive, run, signal, wait_until, workers, working_in,
};
use std::net::TcpListener;
use std::process::Stdio;

#[test]
fn a_daemon_starts_serves_and_stops() {
    let place = Place::new();
    let site = place.start(&[]);
    assert_eq!(place.pid(), Some(site.pid));
    assert_eq!(site.get("/demo/demo").status, 200);
    assert!(
        place
            .app(&["state"])
            .ok()
            .starts_with(&format!("hade: running, pid {}, on ", site.pid))
    );
    assert!(
        place
            .app(&["stop"])
            .ok()
            .starts_with(&format!("hade: stopped pid {} after ", site.pid))
    );
    assert!(!is_alive(site.pid));
    assert_eq!(working_in(&place.dir), []);
    assert_eq!(place.read("run/app.pid"), "");
    assert_eq!(sockets(&place.path("run")), [""; 0]);
}

#[test]
fn start_says_what_runs_and_where_its_files_are() {
    let place = Place::new();
    let text = place.app(&["start", "-d", "--address=127.0.0.1:0"]).ok();
    let site = Site::of(&text);
    let (pid, url, dir) = (site.pid, &site.url, place.dir.display());
    assert_eq!(
        text,
        format!(
            "hade: started, pid {pid}, on {url}\n  process  hade app\n  base     {dir}\n  \
             config   etc/app.conf (not there: defaults)\n  pid file run/app.pid\n  log      run/app.log\n"
        )
    );
}

#[test]
fn every_way_to_say_daemon_is_understood() {
    for flag in ["-d", "--daemon", "--daemon=true", "-d=1", "--daemon=yes"] {
        let place = Place::new();
        let site = Site::of(&place.app(&["start", flag, "--address", "127.0.0.1:0"]).ok());
        assert_eq!(site.get("/").status, 200, "{flag}");
        place.app(&["stop"]).ok();
    }
}

#[test]
fn without_daemon_or_with_daemon_false_the_process_itself_serves() {
    for flags in [&[][..], &["--daemon=false"], &["-d", "--daemon=no"]] {
        let place = Place::new();
        let mut front = place.foreground(flags);
        assert_eq!(front.site.pid, front.child.id());
        assert_eq!(place.pid(), Some(front.child.id()));
        assert_eq!(comm(front.child.id()), "hade app");
        assert_eq!(front.site.get("/").status, 200);
        front.signal("TERM");
        assert_eq!(front.end(), Some(0));
        nothing_left(&place);
        assert_eq!(place.read("run/app.pid"), "");
    }
}

#[test]
fn a_second_start_is_refused_and_touches_nothing() {
    let place = Place::new();
    let site = place.start(&[]);
    let log = place.log();
    let refusal = format!(
        "hade: already running, pid {}; use \"hade app restart\" or \"hade app stop\"\n",
        site.pid
    );
    for flags in [&["--daemon"][..], &[]] {
        let args = [&["start", "--address", "127.0.0.1:0"], flags].concat();
        assert_eq!(place.app(&args).failed(1), refusal);
    }
    assert_eq!(place.pid(), Some(site.pid));
    assert_eq!(place.log(), log);
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn a_start_in_the_foreground_takes_the_lock_too() {
    let place = Place::new();
    let front = place.foreground(&[]);
    let refusal = format!(
        "hade: already running, pid {}; use \"hade app restart\" or \"hade app stop\"\n",
        front.child.id()
    );
    for flags in [&["--daemon"][..], &[]] {
        let args = [&["start", "--address", "127.0.0.1:0"], flags].concat();
        assert_eq!(place.app(&args).failed(1), refusal);
    }
}

#[test]
fn of_two_starts_at_the_same_moment_exactly_one_serves() {
    let place = Place::new();
    let address = own_address();
    let args = ["app", "start", "--daemon", "--address", &address];
    for round in 0..50 {
        let racers = [(); 2].map(|()| {
            place
                .command(&args)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let mut ends = racers.map(|racer| {
            let output = racer.wait_with_output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (
                output.status.code(),
                text(output.stdout),
                text(output.stderr),
            )
        });
        ends.sort();
        let [winner, loser] = ends;
        assert_eq!((winner.0, winner.2.as_str()), (Some(0), ""), "{round}");
        let site = Site::of(&winner.1);
        assert_eq!(
            loser,
            (
                Some(1),
                String::new(),
                format!(
                    "hade: already running, pid {}; use \"hade app restart\" or \"hade app stop\"\n",
                    site.pid
                )
            ),
            "{round}"
        );
        assert_eq!(site.get("/").status, 200);
        place.app(&["stop"]).ok();
        assert_eq!(working_in(&place.dir), []);
    }
}

#[test]
fn a_busy_port_is_said_before_detaching() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    for flags in [&["--daemon"][..], &[]] {
        let place = Place::new();
        let args = [&["start", "--address", &address], flags].concat();
        assert_eq!(
            place.app(&args).failed(1),
            format!(
                "hade: cannot listen on {address}: Address already in use (os error 98){}; choose another with --address\n",
                has_it()
            )
        );
        nothing_left(&place);
    }
}

/// And not another that has the same port elsewhere.
#[test]
fn who_is_in_the_way_is_named() {
    let place = Place::new();
    let args = ["start", "-d", "--address", "127.0.0.2:0"];
    let (site, _busy) = loop {
        let site = Site::of(&place.app(&args).ok());
        // Another test may have its port on this address.
        match TcpListener::bind(("127.0.0.1", site.port())) {
            Ok(busy) => break (site, busy),
            Err(_) => place.app(&["stop"]).ok(),
        };
    };
    let address = format!("127.0.0.1:{}", site.port());
    let said = Place::new().app(&["start", "-d", "--address", &address]);
    let said = said.failed(1);
    assert!(said.contains(&has_it()), "{said}");
    place.app(&["stop"]).ok();
}

#[test]
fn a_port_busy_on_one_interface_is_busy_for_all() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!(":{}", busy.local_addr().unwrap().port());
    let place = Place::new();
    assert_eq!(
        place.app(&["start", "-d", "--address", &address]).failed(1),
        format!(
            "hade: cannot listen on {address}: Address already in use (os error 98){}; choose another with --address\n",
            has_it()
        )
    );
    nothing_left(&place);
}

#[test]
fn the_daemon_listens_where_the_flag_says() {
    let place = Place::new();
    let address = own_address();
    let text = place.app(&["start", "-d", "--address", &address]).ok();
    let site = Site::of(&text);
    assert_eq!(site.address(), address);
    assert_eq!(listening(site.pid).len(), 1);
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn a_port_can_be_taken_again_right_after_a_stop() {
    let place = Place::new();
    let address = own_address();
    for _ in 0..3 {
        let text = place.app(&["start", "-d", "--address", &address]).ok();
        // The server closes first, so that its side of the connection stays behind for a while.
        assert_eq!(Site::of(&text).get("/").status, 200);
        place.app(&["stop"]).ok();
        TcpListener::bind(&address).expect("the port is free");
    }
}

#[test]
fn a_worker_that_cannot_boot_fails_the_start_with_its_reason() {
    for flags in [&["--daemon"][..], &[]] {
        let place = Place::demo();
        let address = own_address();
        let args = [&["app", "start", "--address", &address], flags].concat();
        let said = run(place.command(&args).env("DEMO_BOOT", "fail"));
        let (code, err) = (said.code, said.err);
        assert_eq!(code, Some(1), "{err}");
        let (front, pid) = err.split_once("worker ").unwrap();
        assert_eq!(front, "demo: start failed: ");
        assert!(pid.ends_with(": asked to fail at boot\n"), "{err}");
        assert_eq!(err.lines().count(), 1);
        nothing_left(&place);
        TcpListener::bind(&address).expect("the port is free");
        // And so again and again: nothing of the last one is in the way of the next.
        place.app(&["start", "-d", "--address", &address]).ok();
    }
}

#[test]
fn a_worker_that_crashes_at_boot_fails_the_start() {
    let place = Place::demo();
    let said = run(place
        .command(&["app", "start", "-d", "--address", "127.0.0.1:0"])
        .env("DEMO_BOOT", "crash"));
    let err = said.failed(1);
    assert!(
        err.starts_with("demo: start failed: worker ")
            && err.ends_with(": killed by signal 6 (ABRT) before it was ready\n"),
        "{err}"
    );
    nothing_left(&place);
}

#[test]
fn failed_starts_in_a_row_say_the_same_each_time() {
    let place = Place::demo();
    for _ in 0..20 {
        let err = run(place
            .command(&["app", "start", "-d", "--address", "127.0.0.1:0"])
            .env("DEMO_BOOT", "fail"))
        .failed(1);
        assert!(err.ends_with(": asked to fail at boot\n"), "{err}");
    }
}

#[test]
fn a_start_that_is_told_to_stop_before_it_is_ready_fails() {
    let place = Place::demo();
    let launcher = place
        .command(&[
            "app",
            "start",
            "-d",
            "--address",
            "127.0.0.1:0",
            "--set",
            "close_wait=1",
        ])
        .env("DEMO_BOOT", "hang")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log_is_there = || place.path("run/app.log").exists();
    wait_until(5, "the log", log_is_there);
    let master = working_in(&place.dir)
        .into_iter()
        .filter(|pid| *pid != launcher.id())
        .min()
        .unwrap();
    wait_until(5, "the master's name", || comm(master) == "demo app");
    wait_until(5, "the worker", || working_in(&place.dir).len() == 3);
    place.app(&["stop"]).ok();
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "demo: start failed: it was told to stop before it was ready\n"
    );
    nothing_left(&place);
}

#[test]
fn a_master_killed_before_it_is_ready_fails_the_start() {
    let place = Place::demo();
    let launcher = place
        .command(&["app", "start", "-d", "--address", "127.0.0.1:0"])
        .env("DEMO_BOOT", "hang")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(5, "the worker", || working_in(&place.dir).len() == 3);
    let state = place.app(&["state"]).ok();
    let pid = state
        .split("pid ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let master: u32 = pid.unwrap().parse().unwrap();
    signal(master, "KILL");
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "demo: start failed: pid {master} died before it was ready; run/app.log may say why\n"
        )
    );
    // Its worker, in the middle of its boot, must not be left behind for good.
    wait_until(12, "the worker leaves", || {
        working_in(&place.dir).is_empty()
    });
    only_a_stale_socket_left(&place);
}

#[test]
fn a_daemon_whose_launcher_was_killed_does_not_stay() {
    if !has("strace") {
        return;
    }
    let place = Place::new();
    // Only the worker makes an epoll instance; meanwhile the launcher waits for the word.
    let slow = "inject=epoll_create1:delay_enter=500000";
    let mut strace = place
        .wrapped(
            &["strace", "-fqqo", "/dev/null", "-e", slow],
            &["app", "start", "-d", "--address", "127.0.0.1:0"],
        )
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(10, "the worker", || {
        working_in(&place.dir)
            .into_iter()
            .any(|pid| comm(pid) == "hade worker")
    });
    let launcher = workers(strace.id())[0];
    assert_eq!(comm(launcher), "hade");
    signal(launcher, "KILL");
    // strace ends with the last process that it watches.
    wait_until(10, "the daemon leaves", || {
        strace.try_wait().unwrap().is_some()
    });
    nothing_left(&place);
    assert!(
        place
            .log()
            .contains("the start command was interrupted: leaving\n")
    );
}

#[test]
fn the_port_of_a_master_that_was_killed_is_free_for_the_next_start() {
    let place = Place::new();
    let address = own_address();
    let args = ["start", "-d", "--address", address.as_str()];
    let site = Site::of(&place.app(&args).ok());
    signal(site.pid, "KILL");
    wait_until(5, "the worker leaves", || working_in(&place.dir).is_empty());
    only_a_stale_socket_left(&place);
    let next = Site::of(&place.app(&args).ok());
    assert_ne!(next.pid, site.pid);
    assert_eq!(next.get("/").status, 200);
}

#[test]
fn as_pid_1_it_stays_in_the_foreground_whatever_it_is_told() {
    if !(has("unshare") && has_namespaces()) {
        return;
    }
    let place = Place::new();
    // The shell is replaced by hade, which so becomes the first process of its namespace.
    let mut command = place.wrapped(
        &boxed("exec \"$0\" \"$@\""),
        &["app", "start", "--daemon", "--address", "127.0.0.1:0"],
    );
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut front = Foreground::of(command);
    assert_eq!(front.site.pid, 1);
    assert_eq!(place.read("run/app.pid"), "1\n");
    assert_eq!(front.site.get("/").status, 200);
    let outside = place.app(&["state"]);
    assert_eq!(outside.code, Some(0), "{outside:?}");
    place.app(&["stop"]).ok();
    assert_eq!(front.end(), Some(0));
    let mut err = String::new();
    std::io::Read::read_to_string(front.child.stderr.as_mut().unwrap(), &mut err).unwrap();
    assert_eq!(
        err,
        "hade: as PID 1 it stays in the foreground, for leaving would end the container; --daemon is ignored\n"
    );
}

#[test]
fn it_starts_from_anywhere_with_a_base_directory_however_deep() {
    let place = Place::new();
    let deep = ["a-directory-with-a-long-name"; 6].join("/");
    std::fs::create_dir_all(place.path(&deep)).unwrap();
    let text = place
        .app(&["start", "-d", "--address=127.0.0.1:0", "--base-dir", &deep])
        .ok();
    let site = Site::of(&text);
    assert_eq!(site.get("/").status, 200);
    assert!(
        text.contains(&format!("\n  pid file {deep}/run/app.pid\n")),
        "{text}"
    );
    let said = place.app(&["stop", "--base-dir", &deep]).ok();
    assert!(said.starts_with(&format!("hade: stopped pid {} ", site.pid)));
    assert_eq!(place.read(&format!("{deep}/run/app.pid")), "");
}
