//! The programs that start hade and look after it, beside systemd: the scripts of sysvinit and OpenRC, the init of
//! busybox, runit, s6; and logrotate.

use crate::load::Load;
use crate::shipping::machine::{INSTALLED, Machine};
use crate::support::{Site, fact, has, wait_until};

/// A PID 1 that collects orphans and starts what `/etc/inittab` says.
pub const INIT: [&str; 2] = ["busybox", "init"];

/// This machine's programs, a PID 1 that only collects orphans, and hade by `make install`.
#[track_caller]
fn with_tools(tools: &[&str], prepare: &str) -> Option<Machine> {
    let needed = ["busybox", "make"].iter().chain(tools);
    if !needed.into_iter().all(|tool| has(tool)) {
        return None;
    }
    Machine::like_this_one(&[INSTALLED, "echo >etc/inittab\n", prepare].concat(), &INIT)
}

/// Its user and its threads' programs are as they should be.
#[track_caller]
fn runs_as_its_user(machine: &Machine, site: &Site) {
    let user = machine.sh(&format!("stat -c %U /proc/{}", site.pid));
    assert_eq!(user.ok(), "hade\n");
    assert_eq!(site.get("/demo/demo").status, 200);
}

/// Something restarts it in place while clients ask, and no request is lost.
#[track_caller]
fn restarts_in_place(machine: &Machine, site: &Site, what: &str) {
    let generation: u32 = machine.generation().parse().unwrap();
    let load = Load::on(site.address(), "/demo/demo");
    machine.sh(what).ok();
    wait_until(20, "it has restarted", || {
        let state = machine.state();
        fact(&state, "generation") == (generation + 1).to_string()
            && fact(&state, "restarting") == "false"
    });
    load.goes_on();
    load.end();
    assert_eq!(machine.site().pid, site.pid);
}

#[test]
fn sysvinit_has_all_actions_and_exit_statuses() {
    let prepare = r#"
        cp root/source/etc/init.d/hade etc/init.d/hade
        echo 'export APP_THREADS=7' >etc/default/hade
    "#;
    let Some(machine) = with_tools(&["setpriv"], prepare) else {
        return;
    };
    let script = |action: &str| machine.code(&format!("/etc/init.d/hade {action} </dev/null"));
    // Not running.
    assert_eq!(script("status"), 3);
    assert_eq!(script("reload"), 7);
    assert_eq!(script("force-reload"), 7);
    assert_eq!(script("try-restart"), 0);
    assert_eq!(script("stop"), 0);
    assert_eq!(script("status"), 3);
    // What it does not know, and nothing.
    assert_eq!(script("dance"), 3);
    assert_eq!(script(""), 2);
    // Only root may, but ask everybody may, to be told that it cannot be told.
    let as_other = "setpriv --reuid 12345 --regid 12345 --clear-groups";
    assert_eq!(
        machine.code(&format!("{as_other} /etc/init.d/hade start")),
        4
    );

    // Running.
    assert_eq!(script("start"), 0);
    let site = machine.site();
    runs_as_its_user(&machine, &site);
    let environment = machine
        .sh(&format!("tr '\\0' '\\n' </proc/{}/environ", site.pid))
        .ok();
    assert!(environment.contains("\nAPP_THREADS=7\n"), "{environment}");
    assert_eq!(script("status"), 0);
    assert_eq!(
        machine.code(&format!("{as_other} /etc/init.d/hade status")),
        4
    );
    assert_eq!(script("start"), 0);
    assert_eq!(machine.site().pid, site.pid);
    assert_eq!(machine.generation(), "1");
    for action in ["restart", "reload", "force-reload", "try-restart"] {
        restarts_in_place(
            &machine,
            &site,
            &format!("/etc/init.d/hade {action} >/dev/null"),
        );
    }
    // Settings that cannot be used.
    machine
        .sh("echo 'app.workers = none' >>/etc/hade/app.conf")
        .ok();
    for action in ["restart", "reload", "force-reload", "try-restart"] {
        assert_eq!(script(action), 1, "{action}");
    }
    assert_eq!(script("stop"), 0);
    assert_eq!(script("start"), 1);
    machine.sh("sed -i '$d' /etc/hade/app.conf").ok();

    // Dead, but the pid file names it.
    assert_eq!(script("restart"), 0);
    let site = machine.site();
    runs_as_its_user(&machine, &site);
    machine.sh(&format!("kill -9 {}", site.pid)).ok();
    machine.wait_for("/etc/init.d/hade status >/dev/null; test $? = 1");
    assert_eq!(script("start"), 0);
    runs_as_its_user(&machine, &machine.site());
    assert_eq!(script("stop"), 0);
    assert_eq!(script("status"), 3);

    // Not configured, not installed.
    machine.sh("mv /etc/hade /etc/hade.not").ok();
    assert_eq!(script("start"), 6);
    machine.sh("rm /usr/bin/hade").ok();
    assert_eq!(script("start"), 5);
    assert_eq!(script("stop"), 0);
}

#[test]
fn openrc_starts_restarts_in_place_and_stops() {
    let prepare = r#"
        rm -rf etc/init.d/* etc/runlevels/*/*
        cp root/source/etc/openrc/hade etc/init.d/hade
        mkdir -p etc/conf.d
        echo 'export APP_THREADS=7' >etc/conf.d/hade
        ln -s /etc/init.d/hade etc/runlevels/default/hade
        echo 'rc_sys="lxc"' >>etc/rc.conf
        {
            echo '::sysinit:/sbin/openrc sysinit'
            echo '::wait:/sbin/openrc default'
        } >etc/inittab
    "#;
    let Some(machine) = with_tools(&["openrc-run", "rc-service"], prepare) else {
        return;
    };
    let service = |action: &str| machine.code(&format!("rc-service hade {action} </dev/null"));
    // It comes with its runlevel.
    machine.wait_for("rc-service hade status");
    let site = machine.site();
    runs_as_its_user(&machine, &site);
    let environment = machine.sh(&format!("tr '\\0' '\\n' </proc/{}/environ", site.pid));
    assert!(environment.ok().contains("APP_THREADS=7\n"));
    assert_eq!(service("start"), 0);
    restarts_in_place(&machine, &site, "rc-service hade reload >/dev/null");
    machine
        .sh("echo 'app.workers = none' >>/etc/hade/app.conf")
        .ok();
    assert_ne!(service("reload"), 0);
    machine.sh("sed -i '$d' /etc/hade/app.conf").ok();
    assert_eq!(service("status"), 0);
    assert_eq!(service("stop"), 0);
    assert_eq!(service("status"), 3);
    assert_eq!(service("stop"), 0);
    assert_eq!(service("restart"), 0);
    let site = machine.site();
    // One that is gone is started again.
    machine.sh(&format!("kill -9 {}", site.pid)).ok();
    machine.wait_for("rc-service hade status; test $? != 0");
    assert_eq!(service("restart"), 0);
    runs_as_its_user(&machine, &machine.site());
    assert_eq!(service("stop"), 0);
}

#[test]
fn the_init_of_busybox_starts_it_and_a_power_off_drains_it() {
    if !has("busybox") {
        return;
    }
    let prepare = r#"
        cp "$source/etc/busybox/S50hade" etc/init.d/S50hade
        mkdir -p etc/hade
        echo 'app.pid_file = /run/hade/app.pid' >etc/hade/app.conf
        echo 'app.socket = /run/hade/app.sock' >>etc/hade/app.conf
        echo 'app.address = 127.0.0.1:0' >>etc/hade/app.conf
        {
            echo '::sysinit:/bin/syslogd -O /log'
            echo '::sysinit:/etc/init.d/S50hade start'
            echo '::shutdown:/etc/init.d/S50hade stop'
        } >etc/inittab
    "#;
    let Some(mut machine) = Machine::of_busybox(prepare) else {
        return;
    };
    machine.wait_for("hade app state --probe --config /etc/hade/app.conf");
    let site = machine.site();
    assert_eq!(
        machine.sh(&format!("stat -c %U /proc/{}", site.pid)).ok(),
        "hade\n"
    );
    let script = |action: &str| machine.code(&format!("/etc/init.d/S50hade {action}"));
    assert_eq!(script("status"), 0);
    assert_eq!(script("start"), 0);
    assert_eq!(script("dance"), 2);
    restarts_in_place(&machine, &site, "/etc/init.d/S50hade restart >/dev/null");
    machine.wait_for("grep -q 'restarted, pid' /log");
    assert_eq!(script("stop"), 0);
    assert_eq!(script("status"), 3);
    assert_eq!(script("restart"), 0);
    // A power-off, with a request in flight.
    let site = machine.site();
    let mut wire = site.connect();
    wire.send(
        "GET /demo/demo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.answer().status, 100);
    machine.sh("poweroff").ok();
    site.wait_refused();
    wire.send("x");
    assert_eq!(wire.answer().status, 200);
    machine.ends();
}

#[test]
fn runit_looks_after_it() {
    let prepare = r#"
        mkdir services
        cp -R root/source/etc/runit services/hade
        echo '::respawn:/usr/bin/runsvdir -P /services' >etc/inittab
    "#;
    let Some(machine) = with_tools(&["runsvdir", "sv", "chpst", "svlogd"], prepare) else {
        return;
    };
    let sv = |words: &str| machine.code(&format!("SVDIR=/services sv -w 20 {words}"));
    machine.wait_for("SVDIR=/services sv -w 20 start hade");
    let site = machine.site();
    runs_as_its_user(&machine, &site);
    assert_eq!(sv("check hade"), 0);
    restarts_in_place(&machine, &site, "SVDIR=/services sv hup hade");
    machine.wait_for("grep -q 'restarted, pid' /var/log/hade/current");
    // What is killed comes again, and a stop is one.
    machine.sh(&format!("kill -9 {}", site.pid)).ok();
    machine.wait_for(
        "SVDIR=/services sv -w 20 check hade && hade app state --probe --config /etc/hade/app.conf",
    );
    assert_ne!(machine.site().pid, site.pid);
    assert_eq!(sv("stop hade"), 0);
    assert_eq!(
        machine.code("hade app state --config /etc/hade/app.conf"),
        3
    );
    machine.wait_for("grep -q ' stopped, ' /var/log/hade/current");
}

#[test]
fn s6_is_told_when_it_serves_and_looks_after_it() {
    let prepare = r#"
        mkdir services
        cp -R root/source/etc/s6 services/hade
        echo '::respawn:/usr/bin/s6-svscan /services' >etc/inittab
    "#;
    let tools = ["s6-svscan", "s6-svc", "s6-svwait", "s6-setuidgid", "s6-log"];
    let Some(machine) = with_tools(&tools, prepare) else {
        return;
    };
    machine.wait_for("s6-svwait -U -t 20000 /services/hade");
    let site = machine.site();
    runs_as_its_user(&machine, &site);
    restarts_in_place(&machine, &site, "s6-svc -h /services/hade");
    machine.wait_for("grep -q 'restarted, pid' /var/log/hade/current");
    assert_eq!(
        machine.sh("s6-svstat -o ready /services/hade").ok(),
        "true\n"
    );
    machine.sh(&format!("kill -9 {}", site.pid)).ok();
    machine.wait_for("s6-svwait -U -t 20000 /services/hade && hade app state --probe --config /etc/hade/app.conf");
    assert_ne!(machine.site().pid, site.pid);
    assert_eq!(machine.code("s6-svc -wD -T 20000 -d /services/hade"), 0);
    assert_eq!(
        machine.code("hade app state --config /etc/hade/app.conf"),
        3
    );
}

#[test]
fn logrotate_turns_the_log_of_what_goes_on() {
    let prepare = r#"
        cp root/source/etc/init.d/hade etc/init.d/hade
        rm -rf etc/logrotate.d/*
        cp root/source/etc/logrotate.d/hade etc/logrotate.d/hade
        echo 'app.access_log = /var/log/hade/access.log' >>etc/hade/app.conf
    "#;
    let Some(machine) = with_tools(&["logrotate", "setpriv"], prepare) else {
        return;
    };
    machine.sh("/etc/init.d/hade start >/dev/null").ok();
    let site = machine.site();
    let rotate = "logrotate --force --state /state /etc/logrotate.d/hade";
    let ask = |times: u32| {
        for _ in 0..times {
            assert_eq!(site.get("/demo/demo").status, 200);
        }
    };
    let lines = |count: u32, files: &str| {
        let line = format!("test $(cat {files} | wc -l) = {count}");
        machine.wait_for(&line);
    };
    ask(3);
    lines(3, "/var/log/hade/access.log");
    machine.sh(rotate).ok();
    machine.wait_for("test -e /var/log/hade/access.log && test -e /var/log/hade/app.log");
    ask(4);
    lines(4, "/var/log/hade/access.log");
    lines(3, "/var/log/hade/access.log.1");
    machine.sh(rotate).ok();
    machine.wait_for("test -e /var/log/hade/access.log");
    ask(2);
    lines(2, "/var/log/hade/access.log");
    let files = machine.sh("cd /var/log/hade && stat -c '%U %a %n' *").ok();
    assert_eq!(
        files,
        "hade 640 access.log\nhade 640 access.log.1\nhade 640 access.log.2.gz\n\
         hade 640 app.log\nhade 640 app.log.1\nhade 640 app.log.2.gz\n"
    );
    // A number in the pid file that is another user's is left alone.
    machine.sh("/etc/init.d/hade stop >/dev/null").ok();
    machine
        .sh("sleep 1000 >/dev/null 2>&1 & echo $! >/run/hade/app.pid; echo >>/var/log/hade/app.log")
        .ok();
    machine.sh(rotate).ok();
    // One that is dead and was not waited for has a number, too.
    machine
        .sh("grep '^State:.[^Z]' /proc/$(cat /run/hade/app.pid)/status >/dev/null")
        .ok();
    machine
        .sh(": >/run/hade/app.pid; echo >>/var/log/hade/app.log")
        .ok();
    machine.sh(rotate).ok();
}
