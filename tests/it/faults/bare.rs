//! Bare systems: no `/proc`, nothing in `/dev`. What can be done without is done without; of the rest it is said what
//! is missing.

use crate::support::{Place, Site, fact, has, is_root, run, signal, wait_until};
use std::process::Command;

/// Runs a program where these directories are empty.
fn without(place: &Place, hidden: &[&str], name: &str, args: &[&str]) -> Command {
    let script = r#"for hidden in $1; do mount -t tmpfs none "$hidden"; done; shift; exec "$@""#;
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec", script, "sh", &hidden.join(" ")])
        .arg(place.path(name))
        .arg("app")
        .args(args)
        .current_dir(&place.dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(std::process::Stdio::null());
    command
}

#[test]
fn the_whole_cycle_works_without_devices_and_without_proc_but_for_the_way_back() {
    if !(is_root() && has("unshare")) {
        return;
    }
    for hidden in [&["/proc"][..], &["/dev"], &["/proc", "/dev"]] {
        let place = Place::demo();
        place.put_demo("prog");
        let start = ["start", "-d", "--address", "127.0.0.1:0"];
        let said = run(&mut without(&place, hidden, "prog", &start)).ok();
        let site = Site::of(&said);
        assert_eq!(site.get("/hello").text(), "Hello, World!");
        let restarted = run(&mut without(&place, hidden, "prog", &["restart"]));
        if hidden.contains(&"/proc") {
            // The one thing that is promised and cannot be kept without it.
            let why = restarted.failed(1);
            let end = format!("; pid {} still serves as before\n", site.pid);
            assert!(why.contains("a way back, which needs /proc"), "{why}");
            assert!(why.ends_with(&end), "{why}");
            // Nor what the start was given, said before anything is stopped.
            let why = run(&mut without(&place, hidden, "prog", &["restart", "--cold"])).failed(1);
            assert!(why.ends_with("; use stop, then start\n"), "{why}");
            assert_eq!(site.get("/hello").text(), "Hello, World!");
        } else {
            restarted.ok();
            signal(site.pid, "HUP");
            wait_until(20, "it has restarted again", || {
                let json = run(&mut without(&place, hidden, "prog", &["state", "--json"])).ok();
                fact(&json, "generation") == "3" && fact(&json, "restarting") == "false"
            });
            assert_eq!(site.get("/hello").text(), "Hello, World!");
            let said = run(&mut without(&place, hidden, "prog", &["restart", "--cold"])).ok();
            let site = Site::of(said.split_once('\n').unwrap().1);
            assert_eq!(site.get("/hello").text(), "Hello, World!");
        }
        run(&mut without(&place, hidden, "prog", &["stop"])).ok();
        place.wait_empty(2);
    }
}

#[test]
fn a_path_too_long_for_a_socket_needs_proc_and_that_is_said() {
    if !(is_root() && has("unshare")) {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    let long = format!("socket=run/{}/app.sock", "l".repeat(100));
    let args = ["start", "-d", "--address", "127.0.0.1:0", "--set", &long];
    let done = run(&mut without(&place, &["/proc"], "prog", &args));
    assert_eq!(done.code, Some(1));
    let end = ": the address of a socket holds 107 bytes, a longer path needs /proc; mount it, or choose a shorter path\n";
    assert!(done.err.ends_with(end), "{done:?}");
    // With it, it works.
    run(&mut without(&place, &[], "prog", &args)).ok();
}

/// Who opens a FIFO waits for its other end.
#[test]
fn what_stands_in_the_place_of_the_null_device_holds_up_nobody() {
    if !(is_root() && has("unshare")) {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    let script = r#"mount -t tmpfs none /dev; mkfifo /dev/null; exec timeout 20 "$@""#;
    let app = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-ec", script, "sh"]);
        command.arg(place.path("prog")).arg("app").args(args);
        command.current_dir(&place.dir).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        run(command.stdin(std::process::Stdio::null())).ok()
    };
    let site = Site::of(&app(&["start", "-d", "--address", "127.0.0.1:0"]));
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    for args in [&["restart"][..], &["restart", "--cold"], &["stop"]] {
        app(args);
    }
}
