//! The guides in the README, line by line, on machines where nothing of hade's was before.

use crate::shipping::machine::{INSTALLED, Machine};
use crate::shipping::supervisors::INIT;
use crate::shipping::systemd::{JOURNAL, SYSTEMD};
use crate::support::{HADE, Meanwhile, Place, has};
use std::path::Path;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).unwrap()
}

/// The blocks of code of a guide.
#[track_caller]
fn blocks(title: &str) -> Vec<String> {
    let readme = readme();
    let (_, rest) = readme.split_once(&format!("\n### {title}\n")).expect(title);
    let guide = rest
        .split("\n## ")
        .next()
        .unwrap()
        .split("\n### ")
        .next()
        .unwrap();
    assert!(guide.lines().count() <= 48, "{title} is more than a screen");
    let mut found = vec![String::new()];
    for line in guide.lines() {
        match line.strip_prefix("    ") {
            Some(code) => *found.last_mut().unwrap() += &format!("{code}\n"),
            None if found.last().unwrap().is_empty() => {}
            None => found.push(String::new()),
        }
    }
    found.retain(|block| !block.is_empty());
    found
}

#[test]
fn a_debian_service() {
    let tools = [
        "dpkg-deb",
        "adduser",
        "deb-systemd-helper",
        "strip",
        "systemd",
        "make",
        "curl",
        "ip",
    ];
    if !tools.iter().all(|tool| has(tool)) {
        return;
    }
    // Beside the source is what "make build" has built, which in truth needs cargo.
    let built = Place::new();
    built.sh(r#"strip -o hade "$1""#, &[HADE]);
    let prepare = format!(
        r#"
        sed -i '/^hade:/d' etc/passwd etc/group etc/shadow etc/gshadow
        sed -i '/ man-db$/d; / runit$/d' var/lib/dpkg/triggers/File
        rm -rf usr/bin/hade var/lib/hade srv/www usr/sbin/policy-rc.d
        mkdir -p root/source/target/x86_64-unknown-linux-gnu/release
        cp -R "$source/Makefile" "$source/Cargo.toml" "$source/LICENSE" "$source/etc" root/source
        cp {}/hade root/source/target/x86_64-unknown-linux-gnu/release
        "#,
        built.dir.display()
    );
    let Some(machine) = Machine::apart(&[JOURNAL, &prepare].concat(), &SYSTEMD) else {
        return;
    };
    machine.wait_for("systemctl is-active basic.target");
    let mut said = String::new();
    for line in blocks("A Debian service").concat().lines() {
        let line = line.replace(
            "make deb",
            "COMPRESS=-Znone make deb STATIC=true TARGET=x86_64-unknown-linux-gnu",
        );
        let done = machine.sh(&format!("cd /root/source && {line}"));
        assert_eq!(done.code, Some(0), "{line}: {done:?}");
        said += &done.out;
    }
    for words in [
        "hade: running, pid ",
        "\"this is demo for all\"\n",
        "\nhello\n",
        "restarted, pid ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn behind_a_proxy_or_a_balancer() {
    let tools = ["nginx", "ab", "busybox", "make", "curl", "ip", "setpriv"];
    if !tools.iter().all(|tool| has(tool)) {
        return;
    }
    let guide = blocks("Behind a proxy or a balancer");
    let [nginx, settings] = &guide[..] else {
        panic!("{guide:?}")
    };
    let prepare = format!(
        r#"
        echo >etc/inittab
        cp root/source/etc/init.d/hade etc/init.d
        sed -i '/^app.address/d' etc/hade/app.conf
        cat >>etc/hade/app.conf <<'end'
{settings}app.access_log = /var/log/hade/access.log
app.access_format = combined
end
        mkdir -p etc/nginx/conf.d var/log/nginx var/lib/nginx
        rm -rf etc/nginx/sites-enabled/* etc/nginx/conf.d/* etc/nginx/modules-enabled/*
        cat >etc/nginx/conf.d/hade.conf <<'end'
{nginx}end
        "#
    );
    let Some(machine) = Machine::apart(&[INSTALLED, &prepare].concat(), &INIT) else {
        return;
    };
    machine.sh("/etc/init.d/hade start >/dev/null").ok();
    machine.sh("nginx").ok();
    let page = machine.sh("curl -sS -H 'X-Forwarded-For: 192.0.2.9' http://localhost/demo/demo");
    assert_eq!(page.ok(), "\"this is demo for all\"\n");
    machine.wait_for(
        "grep -q '^192.0.2.9 - - .*\"GET /demo/demo HTTP/1.1\" 200 ' /var/log/hade/access.log",
    );

    // Restarts, which the proxy does not notice.
    let mut load = Meanwhile::new(machine.command(&[
        "ab",
        "-q",
        "-k",
        "-c",
        "4",
        "-n",
        "5000",
        "http://127.0.0.1/demo/demo",
    ]));
    let mut restarts = 0;
    while restarts < 3 || (!load.is_over() && restarts < 50) {
        machine.sh("/etc/init.d/hade reload >/dev/null").ok();
        restarts += 1;
    }
    let report = load.end(60).ok();
    println!("{restarts} restarts behind nginx");
    let has = |words: &str| report.lines().any(|line| line.starts_with(words));
    assert!(
        has("Complete requests:      5000") && has("Failed requests:        0"),
        "{report}"
    );
    assert!(!has("Non-2xx responses"), "{report}");
}

/// There is no cluster to run it in; what it names is there.
#[test]
fn what_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(blocks("In Kubernetes").len(), 1);
    let readme = readme();
    let words = readme.split(|c: char| c.is_whitespace() || "`,;()".contains(c));
    let ours = [
        "etc/kubernetes",
        "etc/docker",
        "etc/openwrt",
        "etc/buildroot",
    ];
    for word in words.filter(|word| ours.iter().any(|start| word.starts_with(start))) {
        let word = word.trim_end_matches('.');
        assert!(root.join(word).exists(), "{word}");
    }
    for file in [
        "systemd/hade.service",
        "systemd/hade.socket",
        "init.d/hade",
        "openrc/hade",
        "busybox/S50hade",
        "runit/run",
        "s6/run",
        "logrotate.d/hade",
        "docker/stack.yml",
        "docker/compose.yml",
    ] {
        assert!(root.join("etc").join(file).exists(), "{file}");
        let name = file
            .trim_start_matches("systemd/")
            .trim_start_matches("docker/")
            .trim_end_matches("/run");
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}
