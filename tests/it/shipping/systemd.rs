//! systemd as PID 1, with the unit and the socket of `etc/systemd`.

use crate::load::Load;
use crate::shipping::machine::{INSTALLED, Machine};
use crate::support::{Place, Wire, fact, get, has, run, wait_until};
use std::path::Path;
use std::process::Command;

pub const SYSTEMD: [&str; 3] = [
    "/lib/systemd/systemd",
    "--unit=basic.target",
    "--show-status=0",
];

/// journald is started for the first line of a service.
pub const JOURNAL: &str = r#"
    wants=lib/systemd/system/sockets.target.wants
    mkdir -p "$wants"
    ln -s ../systemd-journald.socket "$wants"
"#;

/// With hade installed.
fn with_systemd(prepare: &str) -> Option<Machine> {
    if !has("systemd") || !has("make") {
        return None;
    }
    let prepare = [INSTALLED, JOURNAL, prepare].concat();
    let machine = Machine::like_this_one(&prepare, &SYSTEMD)?;
    machine.wait_for("systemctl is-active basic.target");
    Some(machine)
}

fn property(machine: &Machine, name: &str) -> String {
    let said = machine
        .run(&["systemctl", "show", "--value", "-p", name, "hade"])
        .ok();
    said.trim_end().to_owned()
}

#[test]
fn the_service_starts_reloads_under_load_fails_well_and_stops() {
    let Some(machine) = with_systemd("") else {
        return;
    };
    // It is active when it serves, not before.
    machine.run(&["systemctl", "start", "hade"]).ok();
    let site = machine.site();
    assert_eq!(property(&machine, "MainPID"), site.pid.to_string());
    assert_eq!(site.get("/demo/demo").status, 200);
    wait_until(10, "its status is told", || {
        property(&machine, "StatusText").contains("serving")
    });
    // Nobody's root, by name.
    let user = machine.sh(&format!(
        "stat -c %U /proc/{} /run/hade/ /var/lib/hade/",
        site.pid
    ));
    assert_eq!(user.ok(), "hade\nhade\nhade\n");

    // Reloads, each done when the command returns, with clients that never stop asking.
    let load = Load::on(site.address(), "/demo/demo");
    for generation in 2..=3 {
        machine.run(&["systemctl", "reload", "hade"]).ok();
        assert_eq!(machine.generation(), generation.to_string());
        load.goes_on();
    }
    // One that cannot be done fails, and changes nothing.
    machine
        .sh("echo 'app.workers = none' >>/etc/hade/app.conf")
        .ok();
    assert_ne!(machine.code("systemctl reload hade"), 0);
    assert_eq!(property(&machine, "ActiveState"), "active");
    load.goes_on();
    assert_eq!(machine.code("sed -i '$d' /etc/hade/app.conf"), 0);
    machine.run(&["systemctl", "reload", "hade"]).ok();
    load.goes_on();
    let (answers, longest) = load.end();
    println!("3 reloads by systemd: {answers} requests, none failed, longest wait {longest:?}");
    assert_eq!(property(&machine, "MainPID"), site.pid.to_string());
    assert_eq!(property(&machine, "NRestarts"), "0");

    // Of a master that is killed systemd starts another.
    machine.sh(&format!("kill -9 {}", site.pid)).ok();
    wait_until(20, "it is started again", || {
        let done = machine.sh("hade app state --probe --config /etc/hade/app.conf");
        done.code == Some(0) && property(&machine, "MainPID") != site.pid.to_string()
    });
    wait_until(10, "it is active", || {
        property(&machine, "ActiveState") == "active"
    });

    // A stop waits for what is in flight.
    let site = machine.site();
    let mut wire = site.connect();
    wire.send(
        "GET /demo/demo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.answer().status, 100);
    machine
        .run(&["systemctl", "stop", "--no-block", "hade"])
        .ok();
    site.wait_refused();
    wire.send("x");
    assert_eq!(wire.answer().status, 200);
    wait_until(10, "it has stopped", || {
        property(&machine, "ActiveState") == "inactive"
    });
    assert_eq!(property(&machine, "Result"), "success");
    let log = machine
        .run(&["journalctl", "--no-pager", "-o", "cat", "-u", "hade"])
        .ok();
    assert!(log.contains("stopped, 1 requests finished, 0 cut"), "{log}");
    assert_eq!(machine.code("ls /run/hade"), 2);
}

#[test]
fn the_socket_holds_the_port_while_the_service_is_started_again() {
    // No other test has this address.
    let number = std::process::id();
    let address = format!("127.{}.{}.77:8888", 1 + number / 256 % 250, number % 256);
    let prepare = format!(
        "sed -i 's/^ListenStream=.*/ListenStream={address}/' usr/lib/systemd/system/hade.socket"
    );
    let Some(machine) = with_systemd(&prepare) else {
        return;
    };
    machine.run(&["systemctl", "start", "hade.socket"]).ok();
    assert_eq!(property(&machine, "ActiveState"), "inactive");
    // The first request starts it.
    let mut wire = Wire::to(&address);
    wire.send(get("/demo/demo"));
    assert_eq!(wire.answer().status, 200);
    let state = machine.state();
    assert_eq!(fact(&state, "address"), format!("http://{address}"));
    // A cold restart: whoever comes meanwhile waits in the queue.
    let load = Load::on(&address, "/demo/demo");
    machine.run(&["systemctl", "reload", "hade"]).ok();
    load.goes_on();
    load.end();
    let begun = machine.command(&["systemctl", "restart", "hade"]).spawn();
    let mut child = begun.expect("systemctl runs");
    while child.try_wait().unwrap().is_none() {
        // Not its health, which is 503 while it leaves.
        let mut wire = Wire::to(&address);
        wire.send("GET /demo/demo HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        assert_eq!(wire.answer().status, 200);
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_units_are_verified_and_exposed_to_little() {
    if !has("systemd-analyze") {
        return;
    }
    let place = Place::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/systemd");
    for file in ["hade.service", "hade.socket"] {
        // The program need not be installed for the words to be right.
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        place.write(file, text.replace("=hade app", "=/bin/true app"));
    }
    let analyze = |words: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        run(command.args(words).current_dir(&place.dir))
    };
    let verified = analyze(&["verify", "--man=no", "./hade.service", "./hade.socket"]);
    let ours = verified.err.lines().filter(|line| line.contains("hade"));
    assert_eq!(ours.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(verified.code, Some(0));
    // In tenths, of ten; the rest is the network, which it is there for.
    let security = analyze(&[
        "security",
        "--offline=true",
        "--threshold=20",
        "./hade.service",
    ]);
    let last = security
        .out
        .trim_end()
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned();
    println!("{last}");
    assert_eq!(security.code, Some(0), "{last}");
}
