//! `restart --cold`: whatever can be found out before the stop is found out before it, and a service that cannot be
//! started again the same way is not stopped.

use crate::support::{Place, Site, has, run, skip, wait_until};
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// It is refused in these words, and nothing has happened.
#[track_caller]
fn is_refused(place: &Place, site: &Site, args: &[&str], words: &str) {
    let said = place
        .app(&[&["restart", "--cold"], args].concat())
        .failed(1);
    assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    assert_eq!(site.get("/hello").status, 200, "it was stopped: {said}");
    assert_eq!(place.pid(), Some(site.pid));
}

#[test]
fn what_would_keep_it_from_starting_is_found_before_it_is_stopped() {
    let place = Place::demo();
    let site = place.start(&[]);
    place.write("etc/app.conf", "app.close_wait = soon\n");
    is_refused(
        &place,
        &site,
        &[],
        "etc/app.conf:1: app.close_wait \"soon\": expected",
    );
    fs::remove_file(place.path("etc/app.conf")).unwrap();
    is_refused(
        &place,
        &site,
        &["--set", "log_file=/proc/x/log"],
        "cannot make the directory /proc/x: ",
    );
    place.write("run/dir/x", "");
    is_refused(
        &place,
        &site,
        &["--set", "log_file=run/dir"],
        "run/dir: it is a directory",
    );
    is_refused(
        &place,
        &site,
        &["--set", "access_log=run/dir"],
        "run/dir: it is a directory",
    );
    place.write("run/file.sock", "");
    is_refused(
        &place,
        &site,
        &["--address", "unix:run/file.sock"],
        "it exists and is not a socket",
    );
    place.app(&["restart", "--cold"]).ok();
    place.app(&["stop"]).ok();
}

#[test]
fn an_address_that_is_taken_is_found_before_it_is_stopped() {
    let place = Place::demo();
    let site = place.start(&[]);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    is_refused(
        &place,
        &site,
        &["--address", &taken],
        "Address already in use",
    );
}

#[test]
fn a_program_that_cannot_be_run_any_more_is_found_before_it_is_stopped() {
    if !has("bash") {
        return;
    }
    let place = Place::demo();
    let site = place.start_copy(&[]);
    // The program that runs the command, taken away meanwhile: only the start that comes later would notice.
    for content in [
        "#!/nowhere\n",
        "#!/bin/sh\nexit 0\n",
        "#!/bin/sh\nexec sleep 600\n",
    ] {
        let script = r#"
            printf '%s' "$1" >prog.bad && chmod 755 prog.bad
            exec 3<prog
            mv prog.bad prog
            exec -a ./prog /proc/self/fd/3 app restart --cold
        "#;
        let mut command = std::process::Command::new("bash");
        command.args(["-c", script, "bash", content]);
        let said = run(command.current_dir(&place.dir));
        place.put_demo("prog");
        assert_eq!(said.code, Some(1), "{said:?}");
        assert_eq!(site.get("/hello").status, 200, "{said:?}");
        assert_eq!(place.pid(), Some(site.pid));
    }
}

#[test]
fn a_service_in_the_foreground_is_not_made_a_daemon() {
    let place = Place::demo();
    let mut front = place.foreground(&[]);
    let said = place.app(&["restart", "--cold"]).failed(1);
    assert_eq!(
        said,
        format!(
            "demo: no cold restart of pid {}: it runs in the foreground, and whoever started it there would find it gone; use \"app restart\"\n",
            front.site.pid
        )
    );
    assert_eq!(front.site.get("/hello").status, 200);
    // Nor without its word.
    fs::remove_file(place.path("run/app.sock")).unwrap();
    let said = place.app(&["restart", "--cold"]).failed(1);
    assert!(said.contains("it runs in the foreground"), "{said}");
    front.signal("TERM");
    assert_eq!(front.end(), Some(0));
}

#[test]
fn a_directory_whose_name_is_not_utf_8_is_come_back_to() {
    let place = Place::demo();
    let dir = place.dir.join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&dir).unwrap();
    let app = |args: &[&str]| run(place.command(&[&["app"], args].concat()).current_dir(&dir));
    let start = app(&["start", "-d", "--address", "127.0.0.1:0"]);
    let site = Site::of(&start.out);
    let warning = "is not UTF-8: \"app restart\" will refuse, \"app restart --cold\" works\n";
    assert!(start.err.ends_with(warning), "{start:?}");
    let said = app(&["restart"]).failed(1);
    assert!(said.contains("is not UTF-8; pid "), "{said}");
    assert_eq!(site.get("/hello").status, 200);
    let said = app(&["restart", "--cold"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let again = Site::of(said.out.split_once('\n').unwrap().1);
    assert_ne!(again.pid, site.pid);
    assert_eq!(again.get("/hello").status, 200);
    assert!(dir.join("run/app.pid").exists());
    app(&["stop"]).ok();
}

#[test]
fn sockets_that_cannot_be_bound_are_found_before_it_is_stopped() {
    let place = Place::demo();
    let site = place.start(&[]);
    fs::create_dir(place.path("dir")).unwrap();
    let long = format!("socket=run/{}", "y".repeat(200));
    for (args, words) in [
        (
            ["--set", "socket=dir"],
            "dir: it exists and is not a socket",
        ),
        (
            ["--set", "socket=/proc/x.sock"],
            "cannot bind /proc/x.sock: ",
        ),
        (["--set", &long], ": a socket's path holds 1 to 107 bytes"),
        (["--address", "unix:nowhere/x.sock"], "nowhere/x.sock: "),
        (["--address", "unix:/proc/x.sock"], "/proc/x.sock: "),
    ] {
        is_refused(&place, &site, &args, words);
    }
    // The port is its own, and the host is not.
    let port = site.port();
    let unknown = format!("no-such-host.invalid:{port}");
    is_refused(
        &place,
        &site,
        &["--address", &unknown],
        "where there is no resolver",
    );
    let other = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
    for taken in [format!(":{port}"), format!("127.0.0.2:{port}")] {
        is_refused(
            &place,
            &site,
            &["--address", &taken],
            "Address already in use",
        );
    }
    drop(other);
    // A command that another test is about to run may have it for a moment yet.
    wait_until(20, "the end of the other listener", || {
        std::net::TcpStream::connect(("127.0.0.2", port)).is_err()
    });
    // Its own, written in another way, will be free.
    for own in [
        format!(":{port}"),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
    ] {
        place.app(&["restart", "--cold", "--address", &own]).ok();
        assert_eq!(site.get("/hello").status, 200);
    }
    place
        .app(&[
            "restart",
            "--cold",
            "--address",
            &format!("localhost:{port}"),
        ])
        .ok();
    // Of IPv6, where only IPv4 is served.
    match std::net::TcpListener::bind(("::1", port)) {
        Ok(_other) => {
            place.app(&["restart", "--cold"]).ok();
            assert_eq!(site.get("/hello").status, 200);
        }
        Err(error) => skip(&format!("needs ::1: {error}")),
    }
    for own in ["unix:run/x.sock", "unix:run/../run/x.sock"] {
        place.app(&["restart", "--cold", "--address", own]).ok();
        assert!(place.path("run/x.sock").exists());
    }
    place.app(&["stop"]).ok();
}

/// A restart of nothing is a start, and its command line says so.
#[test]
fn a_daemon_that_a_restart_began_is_known_without_its_word() {
    let place = Place::demo();
    let site = Site::of(&place.app(&["restart", "--address", "127.0.0.1:0"]).ok());
    fs::remove_file(place.path("run/app.sock")).unwrap();
    let said = place.app(&["restart", "--cold"]).ok();
    let again = Site::of(said.split_once('\n').unwrap().1);
    assert_ne!(again.pid, site.pid);
    assert_eq!(again.get("/hello").status, 200);
    place.app(&["stop"]).ok();
}
