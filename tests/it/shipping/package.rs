//! The Debian package: made, looked at by lintian, installed, upgraded under load, removed and purged, under systemd and
//! under sysvinit.

use crate::load::Load;
use crate::shipping::machine::Machine;
use crate::shipping::supervisors::INIT;
use crate::shipping::systemd::{JOURNAL, SYSTEMD};
use crate::support::{HADE, Place, fact, has, run, wait_until};
use std::path::Path;
use std::process::Command;

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Packages of two versions that are the same but for that.
fn packages() -> Place {
    let place = Place::new();
    let make = source().join("etc/debian/make");
    let line = r#"
        strip -o hade "$1"
        for version in 0.1.0 0.1.1; do VERSION=$version COMPRESS=-Znone "$2" hade x86_64-any >/dev/null; done
    "#;
    place.sh(line, &[HADE, make.to_str().unwrap()]);
    place
}

const TOOLS: [&str; 5] = [
    "dpkg-deb",
    "adduser",
    "deb-systemd-helper",
    "strip",
    "busybox",
];

/// Nothing of hade's, and the packages.
fn prepare(packages: &Place) -> String {
    format!(
        "sed -i '/^hade:/d' etc/passwd etc/group etc/shadow etc/gshadow
        rm -rf usr/bin/hade var/lib/hade etc/hade usr/sbin/policy-rc.d
        sed -i '/ man-db$/d; / runit$/d' var/lib/dpkg/triggers/File
        cp '{}'/*.deb .\n",
        packages.dir.display()
    )
}

/// From the installation to the purge, with `start` and `stop` as an operator has them.
#[track_caller]
fn lives_well(machine: &Machine, stop: &str, start: &str) {
    let install = |version: &str| {
        machine.sh(&format!("dpkg -i /hade_{version}_amd64.deb >/dpkg.log 2>&1 || {{ cat /dpkg.log >&2; exit 1; }}")).ok();
    };
    let is_serving = "hade app state --probe --config /etc/hade/app.conf";

    // It is there and serves, as a user of its own.
    install("0.1.0");
    machine.wait_for(is_serving);
    let site = machine.site();
    let owners = machine.sh(&format!(
        "stat -c %U /proc/{} /var/lib/hade /var/log/hade",
        site.pid
    ));
    assert_eq!(owners.ok(), "hade\nhade\nhade\n");
    assert_eq!(site.get("/demo/demo").status, 200);

    // An upgrade is a restart in place.
    let load = Load::on(site.address(), "/demo/demo");
    install("0.1.1");
    wait_until(20, "it is the new one", || {
        let state = machine.state();
        fact(&state, "generation") == "2" && fact(&state, "restarting") == "false"
    });
    load.goes_on();
    let (answers, longest) = load.end();
    println!("an upgrade: {answers} requests, none failed, longest wait {longest:?}");
    assert_eq!(machine.site().pid, site.pid);
    let program = machine.sh(&format!("readlink /proc/{}/exe", site.pid)).ok();
    assert_eq!(program, "/usr/bin/hade\n");

    // With settings that cannot be used the upgrade is one, and the program of before serves on.
    machine
        .sh("echo 'app.workers = none' >>/etc/hade/app.conf")
        .ok();
    install("0.1.0");
    assert_eq!(site.get("/demo/demo").status, 200);
    assert_eq!(machine.generation(), "2");
    let said = machine.sh("cat /dpkg.log").ok();
    assert!(said.contains("still the version of before"), "{said}");
    machine.sh("sed -i '$d' /etc/hade/app.conf").ok();

    // What was stopped stays so, and what was written into the settings too.
    machine.sh(stop).ok();
    machine
        .sh("echo 'app.threads = 5' >>/etc/hade/app.conf")
        .ok();
    install("0.1.1");
    assert_eq!(machine.code(is_serving), 1);
    machine.sh(start).ok();
    machine.wait_for(is_serving);
    assert_eq!(
        machine.code("grep -q 'app.threads = 5' /etc/hade/app.conf"),
        0
    );

    // Removed, with the settings left; installed again; purged.
    let site = machine.site();
    machine.sh("dpkg -r hade >/dpkg.log 2>&1").ok();
    site.wait_refused();
    assert_eq!(
        machine.sh("ls /etc/hade /usr/bin/hade").out,
        "/etc/hade:\napp.conf\n"
    );
    install("0.1.1");
    machine.wait_for(is_serving);
    machine.sh("dpkg -P hade >/dpkg.log 2>&1").ok();
    let left = "find /etc /usr /var/lib /var/log /run -xdev \\( -name hade -o -name 'hade[._]*' -o -name _hade \\) \
                -not -path '/var/lib/docker/*' -not -path '/etc/default/*' -not -path '*/hade.service.d*'";
    assert_eq!(machine.sh(left).ok(), "");
    assert_eq!(machine.code("dpkg -s hade"), 1);
    assert_eq!(machine.sh("ps ax | grep '[h]ade app'").out, "");
}

#[test]
fn under_systemd_it_is_installed_upgraded_under_load_removed_and_purged() {
    if !TOOLS.iter().all(|tool| has(tool)) || !has("systemd") {
        return;
    }
    let packages = packages();
    let address = "
        mkdir -p etc/systemd/system/hade.service.d
        printf '[Service]\\nEnvironment=ADDRESS=127.0.0.1:0\\n' >etc/systemd/system/hade.service.d/address.conf
    ";
    let prepare = [JOURNAL, &prepare(&packages), address].concat();
    let Some(machine) = Machine::like_this_one(&prepare, &SYSTEMD) else {
        return;
    };
    machine.wait_for("systemctl is-active basic.target");
    lives_well(&machine, "systemctl stop hade", "systemctl start hade");
}

#[test]
fn under_sysvinit_it_is_installed_upgraded_under_load_removed_and_purged() {
    if !TOOLS.iter().all(|tool| has(tool)) || !has("setpriv") {
        return;
    }
    let packages = packages();
    // The one of sysvinit says so.
    let address = "printf '#!/bin/sh\\necho N 2\\n' >sbin/runlevel.new; chmod 755 sbin/runlevel.new
        mv sbin/runlevel.new sbin/runlevel; echo >etc/inittab; echo 'export ADDRESS=127.0.0.1:0' >etc/default/hade\n";
    let prepare = [&prepare(&packages), address].concat();
    let Some(machine) = Machine::like_this_one(&prepare, &INIT) else {
        return;
    };
    lives_well(
        &machine,
        "/etc/init.d/hade stop",
        "/etc/init.d/hade start >/dev/null",
    );
}

/// The real one: static, and of the version that the program has.
#[test]
fn lintian_has_nothing_to_say() {
    if !has("lintian") || !has("make") {
        return;
    }
    let place = Place::new();
    let mut make = Command::new("make");
    make.args(["--silent", "deb"]).current_dir(source());
    for name in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CARGO_MAKEFLAGS"] {
        make.env_remove(name);
    }
    let made = run(make.env("DIRECTORY", &place.dir));
    assert_eq!(made.code, Some(0), "{made:?}");
    let name = place.sh("ls", &[]);
    let version = env!("CARGO_PKG_VERSION");
    assert!(name.starts_with(&format!("hade_{version}_")), "{name}");
    let changes = std::fs::read_to_string(source().join("etc/debian/changelog")).unwrap();
    assert!(changes.starts_with(&format!("hade ({version}) ")));
    let mut lintian = Command::new("lintian");
    lintian.args([
        "--allow-root",
        "--fail-on",
        "error,warning",
        name.trim_end(),
    ]);
    let done = run(lintian.current_dir(&place.dir));
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), ""),
        "{}",
        done.err
    );
}
