//! The control socket: who may ask, and that nobody who does not know how can hold the master up.

use crate::support::{
    Hammer, PATIENCE, Place, descriptors, has, is_root, pause, run, signal, wait_until, was_soon,
    worker, working_in,
};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn it_is_the_owners_alone_and_goes_with_the_master() {
    let place = Place::demo();
    // Whatever the caller's mask is.
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    run(&mut place.wrapped(&["sh", "-c", r#"umask 0; exec "$0" "$@""#], &args)).ok();
    let socket = place.path("run/app.sock");
    let found = fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    place.app(&["restart"]).ok();
    let found = fs::symlink_metadata(&socket).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    place.app(&["stop"]).ok();
    assert!(!socket.exists());
}

#[test]
fn other_users_are_refused() {
    if !(is_root() && has("setpriv") && has("/usr/bin/python3")) {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let old = worker(site.pid);
    let as_nobody = |program: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .args(program)
            .env("PATH", "/usr/bin:/bin")
            .current_dir(&place.dir);
        run(&mut command)
    };
    let ask = "import socket, sys\n\
               s = socket.socket(socket.AF_UNIX)\n\
               s.connect('run/app.sock')\n\
               s.sendall(b'state\\n')\n\
               print(s.recv(100))";
    // By the mode of the file, and of its directory.
    let done = as_nobody(&["python3", "-c", ask]);
    assert!(done.err.contains("PermissionError"), "{done:?}");
    // And where these were loosened, by who they are.
    place.sh("chmod 777 . run run/app.sock", &[]);
    let done = as_nobody(&["python3", "-c", ask]);
    assert!(
        done.out == "b''\n"
            || ["ConnectionResetError", "BrokenPipeError"]
                .iter()
                .any(|name| done.err.contains(name)),
        "{done:?}"
    );
    // The demo itself may stand in a directory that is closed to them.
    place.put_demo("prog");
    let program = place.path("prog");
    let program = program.to_str().unwrap();
    let state = as_nobody(&[program, "app", "state"]);
    assert_eq!(state.code, Some(4), "{state:?}");
    assert!(
        state.err.contains("cannot") || state.err.contains("does not answer"),
        "{state:?}"
    );
    for command in ["restart", "stop"] {
        let done = as_nobody(&[program, "app", command]);
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:?}");
        let why = "cannot read run/app.lock: Permission denied (os error 13); it belongs to uid 0";
        assert!(done.err.contains(why), "{done:?}");
    }
    assert_eq!(worker(site.pid), old);
    assert_eq!(site.get("/hello").status, 200);
}

/// Asks for the state again and again while something goes on: always an answer, and always soon.
#[track_caller]
fn state_is_quick_while(place: &Place, times: u32) {
    for time in 0..times {
        let begun = Instant::now();
        let done = place.app(&["state", "--json"]);
        assert_eq!(done.code, Some(0), "the {time}th time: {done:?}");
        was_soon(begun, 500);
    }
}

#[test]
fn silent_slow_and_garbled_ones_hold_nobody_up() {
    let place = Place::demo();
    let site = place.start(&[]);
    let hammer = Hammer::easy(site.address());
    let socket = place.path("run/app.sock");
    let connect = || UnixStream::connect(&socket).unwrap();

    // A hundred that say nothing, and as many that never finish their line.
    let silent: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
    state_is_quick_while(&place, 3);
    let mut slow: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
    for stream in &mut slow {
        // It may have been dropped already to make room.
        let _ = stream.write_all(b"stat");
    }
    state_is_quick_while(&place, 3);

    // Nonsense of every kind is hung up on without a word.
    let mut huge = vec![b'x'; 1 << 20];
    huge.push(b'\n');
    for nonsense in [
        &b"\n"[..],
        b"STATE\n",
        b"state now\n\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"restart\t--no-such-flag\n",
        b"restart\t--help\n",
        b"restart\t%zz\n",
        b"\xff\xfe\xfd\n",
        b"\0\0\0\0\n",
        &huge,
    ] {
        let mut stream = connect();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(nonsense);
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(
            !said.starts_with("done") && said.len() < 4000,
            "{:?}: {said}",
            String::from_utf8_lossy(&nonsense[..nonsense.len().min(40)])
        );
        state_is_quick_while(&place, 1);
    }
    assert_eq!(place.count("generation"), 1);

    // Those that ask and do not wait for the answer, or do not read it.
    for _ in 0..100 {
        let _ = connect().write_all(b"state\n");
    }
    let deaf: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut stream = connect();
            let _ = stream.write_all(b"state\n");
            stream
        })
        .collect();
    state_is_quick_while(&place, 3);
    drop((silent, slow, deaf));
    // A silent one is hung up on in time.
    let mut one = connect();
    one.set_read_timeout(Some(PATIENCE)).unwrap();
    let begun = Instant::now();
    assert_eq!(one.read(&mut [0]).unwrap_or(0), 0);
    was_soon(begun, 4000);
    wait_until(5, "fewer than 20 descriptors are open", || {
        descriptors(site.pid) < 20
    });
    hammer.end();
}

#[test]
fn a_crowd_does_not_keep_others_from_asking() {
    let place = Place::demo();
    let site = place.start(&[]);
    let hammer = Hammer::easy(site.address());
    let socket = place.path("run/app.sock");
    let stop = AtomicBool::new(false);
    // A hundred at a time that come, and come again as soon as they are hung up on; each tenth goes by itself. They wait
    // for the master, since what is asked here is whose turn it is, and not who gets the processor.
    std::thread::scope(|scope| {
        for number in 0..100 {
            let (stop, socket) = (&stop, &socket);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    if let Ok(mut stream) = UnixStream::connect(socket) {
                        let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                        let _ = stream.write_all(b"sta");
                        if number % 10 > 0 {
                            let _ = stream.read(&mut [0]);
                        }
                    }
                    pause();
                }
            });
        }
        let result = std::panic::catch_unwind(|| state_is_quick_while(&place, 20));
        let restart = place.app(&["restart"]);
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        restart.ok();
    });
    hammer.end();
}

#[test]
fn what_a_dead_master_left_is_replaced_and_what_is_not_a_socket_stays() {
    let place = Place::demo();
    let site = place.start(&[]);
    signal(site.pid, "KILL");
    wait_until(10, "all are gone", || working_in(&place.dir).is_empty());
    assert!(place.path("run/app.sock").exists(), "a stale one is there");
    let site = place.start(&[]);
    assert_eq!(place.fact("pid"), site.pid.to_string());
    place.app(&["stop"]).ok();

    place.write("run/app.sock", "somebody's");
    let args = ["start", "-d", "--address", "127.0.0.1:0"];
    let said = place.app(&args).failed(1);
    assert_eq!(
        said,
        "demo: cannot bind run/app.sock: it exists and is not a socket\n"
    );
    assert_eq!(place.read("run/app.sock"), "somebody's");
    assert_eq!(working_in(&place.dir), []);
}

#[test]
fn a_directory_with_a_long_name() {
    let place = Place::demo();
    let base = format!("{}/{}", "a".repeat(120), "b".repeat(120));
    fs::create_dir_all(place.path(&base)).unwrap();
    let base = place.path(&base);
    let base = base.to_str().unwrap();
    let app = |args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["--base-dir", base]).collect();
        place.app(&args)
    };
    let site = crate::support::Site::of(&app(&["start", "-d", "--address", "127.0.0.1:0"]).ok());
    assert_eq!(site.get("/hello").status, 200);
    assert!(app(&["state"]).ok().contains("generation 1"));
    app(&["restart"]).ok();
    app(&["restart", "--address", "unix:run/http.sock"]).ok();
    assert_eq!(app(&["state", "--probe"]).ok(), "demo: healthy\n");
    app(&["restart"]).ok();
    assert!(app(&["state"]).ok().contains("generation 4"));
    assert!(app(&["stop"]).ok().starts_with("demo: stopped pid "));
    assert_eq!(working_in(std::path::Path::new(base)), []);
    let left: Vec<_> = fs::read_dir(format!("{base}/run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn the_socket_was_removed_by_somebody() {
    let place = Place::demo();
    let site = place.start(&[]);
    place.sh("rm run/app.sock", &[]);
    let said = place.app(&["state"]).failed(4);
    assert!(
        said.starts_with(&format!(
            "demo: pid {} is alive but does not answer: ",
            site.pid
        )),
        "{said}"
    );
    let said = place.app(&["restart"]).failed(1);
    assert!(
        said.contains(&format!("cannot ask pid {} to restart", site.pid))
            && said.contains("restart --cold"),
        "{said}"
    );
    // Signals work without it; and what came of the stop is not known then.
    let old = worker(site.pid);
    signal(site.pid, "HUP");
    wait_until(5, "another worker", || worker(site.pid) != old);
    let said = place.app(&["stop"]).ok();
    assert!(said.starts_with("demo: stopped pid "), "{said}");
}

#[test]
fn a_second_instance_does_not_take_the_socket_of_the_first() {
    let place = Place::demo();
    let site = place.start(&[]);
    let args = [
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--set",
        "pid_file=run/other.pid",
    ];
    let why = place.app(&args).failed(1);
    assert!(
        why.starts_with("demo: cannot bind run/app.sock: Address already in use"),
        "{why}"
    );
    assert!(
        place
            .app(&["state"])
            .ok()
            .contains(&format!("pid {}, ", site.pid))
    );
    place.app(&["restart"]).ok();
}

#[test]
fn who_has_nothing_more_to_say_is_answered() {
    use std::io::{Read, Write};
    let place = Place::demo();
    place.start(&[]);
    let mut stream = std::os::unix::net::UnixStream::connect(place.path("run/app.sock")).unwrap();
    stream.write_all(b"state\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("pid\t"), "{text}");
}
