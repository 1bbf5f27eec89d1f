//! `make install` and `make uninstall`: what is built, to where it is told, and away again.

use crate::support::{Done, Place, has, run};
use std::path::Path;
use std::process::Command;

/// The Makefile and what it installs, in a directory of their own.
fn source() -> Place {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Place::new();
    let root = root.to_str().unwrap();
    place.sh(r#"cp -R "$1/Makefile" "$1/etc" ."#, &[root]);
    place
}

fn make(place: &Place, target: &str) -> Done {
    let mut command = Command::new("make");
    command.args(["--silent", target, "DESTDIR=a root", "PREFIX=/opt/my hade"]);
    command.args(["SYSCONFDIR=/my etc", "CARGO=./no-cargo"]);
    run(command.current_dir(&place.dir))
}

#[test]
fn it_takes_what_is_built_without_cargo_and_blanks_in_a_path_are_no_matter() {
    if !has("make") || !has("install") {
        return;
    }
    let place = source();
    // Where nothing is built, it is built first, which needs cargo.
    assert!(make(&place, "install").err.contains("no-cargo"));
    place.put_program("hade", "#!/bin/sh\n");
    assert_eq!(make(&place, "install").ok(), "");
    let there = |name: &str| place.read(&format!("a root/opt/my hade/{name}"));
    assert_eq!(there("bin/hade"), "#!/bin/sh\n");
    assert_eq!(there("share/doc/hade/app.conf"), place.read("etc/app.conf"));
    let unit = there("lib/systemd/system/hade.service");
    assert_eq!(unit, place.read("etc/systemd/hade.service"));
    assert_eq!(there("share/man/man8/hade.8"), place.read("etc/man/hade.8"));
    let completion = there("share/bash-completion/completions/hade");
    assert_eq!(completion, place.read("etc/completions/hade.bash"));
    let places = place.sh(
        "cd etc && find init.d openrc busybox runit s6 logrotate.d -type f | sort",
        &[],
    );
    for file in places.lines() {
        let installed = there(&format!("share/doc/hade/{file}"));
        assert_eq!(installed, place.read(&format!("etc/{file}")), "{file}");
    }

    // Settings where the services read them, and where they are good.
    let settings = place.read("a root/my etc/hade/app.conf");
    let given: Vec<&str> = settings
        .lines()
        .filter(|line| line.starts_with("app."))
        .collect();
    let run = [
        "app.pid_file = /run/hade/app.pid",
        "app.socket = /run/hade/app.sock",
    ];
    assert_eq!(given, run);
    place
        .app(&["check", "--config", "a root/my etc/hade/app.conf"])
        .ok();

    // Twice is once; what was written into the settings stays.
    let path = "a root/my etc/hade/app.conf";
    place.write(path, [&settings, "app.workers = 2\n"].concat());
    assert_eq!(make(&place, "install").ok(), "");
    assert!(place.read(path).ends_with("app.workers = 2\n"));
    let said = make(&place, "uninstall").ok();
    assert_eq!(said, "a root/my etc/hade/app.conf was changed, and stays\n");
    place.write(path, &settings);
    assert_eq!(make(&place, "uninstall").ok(), "");
    assert_eq!(place.sh("find 'a root' ! -type d", &[]), "");
    assert_eq!(make(&place, "uninstall").ok(), "");
}
