//! Programs that a handler starts, and signals that come while handlers work.

use crate::support::{Place, Wire, get, signal, wait_until};

/// The target that runs this line.
fn sh(line: &str) -> String {
    let line = line
        .replace('%', "%25")
        .replace(' ', "+")
        .replace('&', "%26");
    get(&format!("/sh?line={}", line.replace(';', "%3B")))
}

#[test]
fn a_program_that_a_handler_starts_hears_signals() {
    let place = Place::demo();
    let site = place.start(&["--set", "threads=4"]);
    // Several at a time, so that threads are asked that others have started.
    let mut wires: Vec<Wire> = (0..4).map(|_| site.connect()).collect();
    for line in [
        (
            "grep SigBlk /proc/self/status",
            "SigBlk:\t0000000000000000\nexit status: 0\n",
        ),
        ("kill -TERM $$; sleep 60", "signal: 15 (SIGTERM)\n"),
        ("kill -INT $$; sleep 60", "signal: 2 (SIGINT)\n"),
        ("kill -USR1 $$; sleep 60", "signal: 10 (SIGUSR1)\n"),
    ] {
        for wire in &mut wires {
            wire.send(sh(line.0));
        }
        for wire in &mut wires {
            assert_eq!(wire.answer().text(), line.1);
        }
    }
}

#[test]
fn signals_while_handlers_work_break_nothing() {
    let place = Place::demo();
    let site = place.start(&["--set", "threads=4"]);
    let worker = site.worker();
    // One sleeps, one reads a body as it comes, one is answered slowly, one waits for a program.
    let mut held = place.hold(&site, "a");
    let mut upload = site.connect();
    upload.send("POST /count HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n");
    upload.send("b".repeat(100_000));
    let mut program = site.connect();
    program.send(sh("while ! test -e b.go; do sleep 0.01; done"));
    wait_until(20, "three are at work", || place.fact("in_flight") == "3");
    for _ in 0..20 {
        for name in ["HUP", "USR1", "INT", "QUIT"] {
            signal(worker, name);
        }
        assert_eq!(site.get("/slow?ms=5").text(), "slow\n");
    }
    upload.send("b".repeat(100_000));
    assert_eq!(upload.answer().text(), "200000\n");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    place.release("b");
    assert_eq!(program.answer().text(), "exit status: 0\n");
    // It still hears the one that is for it.
    let mut last = place.hold(&site, "c");
    signal(worker, "TERM");
    place.wait_for_log("signal TERM: draining");
    place.release("c");
    assert_eq!(last.answer().text(), "held\n");
}
