//! `app.log_file = syslog`: the log of the system, in a `/dev` of the test's own.

use crate::look::{boxed, has_namespaces};
use crate::support::{Place, has, run};

/// What `syslogd` does: every datagram is a line of a file.
const SYSLOGD: &str = "
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('/dev/log')
with open('received', 'ab', buffering=0) as out:
    while True:
        out.write(s.recv(9000) + b'\\n')
";

/// The shape of one line, with `9` for a digit and `a` for a letter.
fn shape(line: &str) -> String {
    let start: String = line.chars().take(20).collect();
    let plain = start.chars().map(|c| match c {
        '0'..='9' => '9',
        'A'..='Z' | 'a'..='z' => 'a',
        c => c,
    });
    plain.collect()
}

#[test]
fn every_line_goes_to_the_log_of_the_system() {
    if !(has_namespaces() && has("python3")) {
        return;
    }
    let place = Place::new();
    let script = r#"
        mkdir dev
        mount --rbind /dev dev
        mount -t tmpfs none /dev
        touch /dev/null
        mount --bind dev/null /dev/null
        syslogd() {
            python3 -c "$1" &
            until [ -S /dev/log ]; do sleep 0.01; done
        }
        # Nobody listens yet, which is no reason not to start.
        "$0" app start -d --address 127.0.0.1:0 --set log_file=syslog > started
        syslogd "$1"
        "$0" app restart > restarted
        until grep -q ']: worker ready, ' received; do sleep 0.01; done
        kill $!
        wait $! 2> /dev/null || rm /dev/log
        "$0" app restart >> restarted
        syslogd "$1"
        "$0" app stop
        until grep -q ' stopped, ' received; do sleep 0.01; done
    "#;
    let said = run(&mut place.wrapped(&boxed(script), &[SYSLOGD])).ok();
    assert!(said.starts_with("hade: stopped pid "), "{said}");
    assert!(place.read("started").contains("\n  log      /dev/log\n"));
    assert_eq!(place.read("restarted").lines().count(), 2);
    let received = place.read("received");
    for line in received.lines() {
        let day = if shape(line).contains("  ") {
            " 9"
        } else {
            "99"
        };
        assert_eq!(shape(line), format!("<99>aaa {day} 99:99:99 "), "{line}");
        assert!(line[20..].starts_with("hade["), "{line}");
        assert!(!line.ends_with('\n') && line.contains("]: "), "{line}");
    }
    let has = |text: &str| assert!(received.contains(text), "{text}: {received}");
    has("<30>");
    has(" log lines before this one were lost");
    has("]: restarting as ");
    has("]: worker ready, ");
    has("]: stopped, 0 requests finished, 0 cut");
    assert!(received.matches(" were lost").count() >= 2, "{received}");
    assert!(!place.path("run/app.log").exists());
}

#[test]
fn what_is_printed_does_not_hold_the_terminal() {
    let place = Place::demo();
    // The output of the start ends with the start, although the daemon has no file to print to.
    let text = place.app(&[
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--set",
        "log_file=syslog",
    ]);
    let text = text.ok();
    assert!(text.contains("\n  log      /dev/log\n"), "{text}");
    let set = ["restart", "--set", "log_file=run/other.log"];
    place.app(&set).ok();
    assert!(place.read("run/other.log").contains(" restarted, "));
    place.app(&["restart", "--set", "log_file=syslog"]).ok();
    place
        .app(&["restart", "--cold", "--set", "log_file=syslog"])
        .ok();
    place.app(&["stop"]).ok();
    assert!(!place.path("run/app.log").exists());
}
