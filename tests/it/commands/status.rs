//! `app state`: the screen, the JSON, the probe, and what it says of a master that cannot answer; the report of `stop`.

use crate::support::{
    Hammer, Meanwhile, Place, Wire, fact, freeze, has, in_time, is_alive, run, signal, wait_until,
    was_soon, worker, workers, working_in,
};
use std::process::Command;
use std::time::Instant;

const KEYS: [&str; 18] = [
    "running",
    "pid",
    "address",
    "address_is_there",
    "daemon",
    "uptime_seconds",
    "generation",
    "restarting",
    "connections",
    "in_flight",
    "requests",
    "accepted",
    "backlog",
    "refused",
    "worker_deaths",
    "trouble",
    "workers",
    "last_restart",
];

/// What a real reader of JSON makes of it.
fn read_json(text: &str, expression: &str) -> String {
    let script = "import json, sys\nd = json.loads(sys.argv[1])\nprint(eval(sys.argv[2]))";
    run(Command::new("python3").args(["-c", script, text, expression])).ok()
}

#[test]
fn one_screen_for_people() {
    let place = Place::demo();
    let site = place.start(&[]);
    assert_eq!(site.get("/hello").status, 200);
    let mut kept = site.connect();
    kept.send("GET /slow?ms=2000 HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until(5, "it is in flight", || place.count("in_flight") == 1);
    let screen = place.app(&["state"]).ok();
    let mut lines = screen.lines();
    assert_eq!(
        lines.next(),
        Some(format!("demo: running, pid {}, on {}", site.pid, site.url).as_str())
    );
    let keys: Vec<&str> = lines
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(keys, ["uptime", "requests", "connections", "worker"]);
    for part in [
        " s, generation 1\n",
        " 1 answered, 1 in flight\n",
        &format!(" {} serving, up ", worker(site.pid)),
    ] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
}

#[test]
fn one_object_for_programs() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let keys = |json: &str| read_json(json, "list(d)");
    let expected = format!("[{}]\n", KEYS.map(|key| format!("'{key}'")).join(", "));
    let json = place.app(&["state", "--json"]);
    assert_eq!(json.code, Some(3));
    assert_eq!(read_json(&json.out, "d['running']"), "False\n");

    let site = place.start(&["--set", "workers=2"]);
    let json = place.app(&["state", "--json"]).ok();
    assert_eq!(keys(&json), expected);
    assert_eq!(
        read_json(
            &json,
            "d['running'], d['pid'], d['address'], d['daemon'], d['generation'], d['restarting'], d['last_restart']"
        ),
        format!(
            "(True, {}, '{}', True, 1, False, None)\n",
            site.pid, site.url
        )
    );
    assert_eq!(
        read_json(&json, "[list(w) for w in d['workers']]"),
        format!(
            "[{0}, {0}]\n",
            "['pid', 'state', 'uptime_seconds', 'connections', 'in_flight', 'requests', 'slow_handlers', 'slowest_seconds']"
        )
    );
    // The same keys after a restart that went well, after one that did not, and while one is under way.
    place.app(&["restart"]).ok();
    let json = place.app(&["state", "--json"]).ok();
    assert_eq!(keys(&json), expected);
    assert_eq!(
        read_json(
            &json,
            "list(d['last_restart']), d['last_restart']['ok'], type(d['last_restart']['at_unix_seconds'])"
        ),
        "(['at_unix_seconds', 'ok', 'text'], True, <class 'float'>)\n"
    );
    place.write("boot", "fail");
    place.app(&["restart"]).failed(1);
    let json = place.app(&["state", "--json"]).ok();
    assert_eq!(keys(&json), expected);
    assert_eq!(read_json(&json, "d['last_restart']['ok']"), "False\n");
    place.write("boot", "wait");
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(5, "new workers start", || {
        place
            .app(&["state", "--json"])
            .ok()
            .contains("\"starting\"")
    });
    let json = place.app(&["state", "--json"]).ok();
    assert_eq!(keys(&json), expected);
    assert_eq!(
        read_json(
            &json,
            "d['restarting'], sorted(w['state'] for w in d['workers'])"
        ),
        "(True, ['serving', 'serving', 'starting', 'starting'])\n"
    );
    place.write("boot", "");
    restart.end(10).ok();

    freeze(site.pid);
    let json = place.app(&["state", "--json"]);
    signal(site.pid, "CONT");
    assert_eq!(json.code, Some(4));
    assert_eq!(
        read_json(&json.out, "d['running'], list(d)"),
        "(None, ['running', 'reason'])\n"
    );
}

#[test]
fn the_probe() {
    let place = Place::demo();
    let probe = || {
        let begun = Instant::now();
        let done = place.app(&["state", "--probe"]);
        was_soon(begun, 2200);
        done
    };
    assert_eq!(
        probe().failed(1),
        "demo: not running; no pid file and no socket in run/\n"
    );
    let site = place.start(&["--set", "close_wait=20"]);
    assert_eq!(probe().ok(), "demo: healthy\n");

    // A worker that stands still: its kernel takes the connection, and nobody answers.
    let stopped = worker(site.pid);
    freeze(stopped);
    let said = probe().failed(1);
    assert!(said.starts_with("demo: not healthy: "), "{said}");
    signal(stopped, "CONT");
    wait_until(5, "it is healthy again", || probe().code == Some(0));

    // A master that stands still cannot be asked where.
    freeze(site.pid);
    let said = probe().failed(1);
    assert!(said.contains("does not answer"), "{said}");
    signal(site.pid, "CONT");
    assert_eq!(probe().ok(), "demo: healthy\n");

    // During a restart somebody serves all the time.
    let mut held = held_post(&place, site.address());
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(5, "the old worker drains", || {
        place
            .app(&["state", "--json"])
            .ok()
            .contains("\"draining\"")
    });
    assert_eq!(probe().ok(), "demo: healthy\n");
    held.send("y");
    assert_eq!(held.answer().text(), "xy");
    restart.end(5).ok();

    // Leaving.
    let mut held = held_post(&place, site.address());
    let stop = Meanwhile::new(place.command(&["app", "stop"]));
    wait_until(5, "it drains", || {
        place
            .app(&["state", "--json"])
            .ok()
            .contains("\"draining\"")
    });
    let said = probe().failed(1);
    assert!(
        said.starts_with("demo: not healthy: ") && said.contains("stopping"),
        "it should say that it is stopping: {said}"
    );
    held.send("y");
    assert_eq!(held.answer().text(), "xy");
    stop.end(5).ok();
    assert_eq!(probe().failed(1), "demo: not running\n");
}

/// A request whose last byte is withheld, and which has arrived otherwise.
fn held_post(place: &Place, address: &str) -> Wire {
    let before = place.count("connections");
    let mut wire = Wire::to(address);
    wire.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nx");
    wait_until(5, "its head arrived", || {
        place.count("connections") > before
    });
    wire
}

#[test]
fn a_master_that_stands_still() {
    let place = Place::demo();
    let site = place.start(&[]);
    freeze(site.pid);
    let begun = Instant::now();
    let said = place.app(&["state"]).failed(4);
    was_soon(begun, 4500);
    assert_eq!(
        said,
        format!(
            "demo: pid {} is alive but does not answer: run/app.sock: no answer within 3 s\n",
            site.pid
        )
    );
    // Requests go on.
    assert_eq!(site.get("/hello").status, 200);
    signal(site.pid, "CONT");
    place.app(&["state"]).ok();
}

#[test]
fn exit_statuses() {
    let place = Place::demo();
    assert_eq!(place.app(&["state"]).code, Some(3));
    let site = place.start(&[]);
    assert_eq!(place.app(&["state"]).code, Some(0));
    signal(site.pid, "KILL");
    wait_until(5, "it is gone", || !is_alive(site.pid));
    let dead = place.app(&["state"]);
    assert_eq!(dead.code, Some(1));
    assert_eq!(
        dead.out,
        format!(
            "demo: not running; run/app.pid names pid {}, which is not it\n",
            site.pid
        )
    );
    wait_until(5, "its worker too", || working_in(&place.dir).is_empty());
    place.start(&[]);
    place.app(&["stop"]).ok();
    assert_eq!(place.app(&["state"]).code, Some(3));
}

#[test]
fn counters_survive_restarts_and_the_death_of_workers() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut sent = 0;
    for deaths in 1..=2 {
        for _ in 0..7 {
            assert_eq!(site.get("/hello").status, 200);
            sent += 1;
        }
        wait_until(5, "all are counted", || place.count("requests") == sent);
        let old = worker(site.pid);
        signal(old, "KILL");
        wait_until(5, "another one serves", || {
            let now = workers(site.pid);
            now.len() == 1 && now[0] != old && place.count("worker_deaths") == deaths
        });
        assert_eq!(site.get("/hello").status, 200);
        sent += 1;
        place.app(&["restart"]).ok();
        wait_until(5, "all are counted", || place.count("requests") == sent);
        assert_eq!(place.count("accepted"), sent);
        assert_eq!(place.count("in_flight"), 0);
        wait_until(5, "nothing is open", || place.count("connections") == 0);
    }
    // A crash in the middle of a request leaves none in flight.
    let mut wire = site.connect();
    wire.send("GET /abort HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(wire.read_answer(true).is_err());
    wait_until(5, "the third death", || place.count("worker_deaths") == 3);
    wait_until(5, "another one serves", || workers(site.pid).len() == 1);
    assert_eq!(place.count("in_flight"), 0);
    assert_eq!(place.count("generation"), 3);
}

#[test]
fn the_backlog_is_told() {
    let place = Place::demo();
    let site = place.start(&[]);
    let stopped = worker(site.pid);
    freeze(stopped);
    let waiting: Vec<Wire> = (0..5).map(|_| site.connect()).collect();
    wait_until(5, "they wait", || {
        ["5", "4"].contains(&place.fact("backlog").as_str())
    });
    signal(stopped, "CONT");
    wait_until(5, "they are accepted", || place.count("connections") == 5);
    assert_eq!(place.count("backlog"), 0);
    drop(waiting);
}

#[test]
fn state_is_right_at_any_moment_of_a_restart() {
    let place = Place::demo();
    let site = place.start(&["--set", "workers=2"]);
    let hammer = Hammer::easy(site.address());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut asked, mut requests) = (0, 0);
                    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                        let json = place.app(&["state", "--json"]).ok();
                        assert_eq!(fact(&json, "pid"), site.pid.to_string());
                        assert!(json.contains("\"serving\""), "{json}");
                        let now: u64 = fact(&json, "requests").parse().unwrap();
                        assert!(now >= requests, "counters go up: {requests} {now}");
                        requests = now;
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for _ in 0..15 {
            place.app(&["restart"]).ok();
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let asked: u32 = asking
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        println!("{asked} states during 15 restarts");
    });
    hammer.end();
}

#[test]
fn the_report_of_a_stop() {
    in_time(1000, report_of_a_stop);
}

/// So many seconds stand behind this.
fn seconds_after(said: &str, before: &str) -> f64 {
    let rest = said.split(before).nth(1).unwrap_or_default();
    let number = rest.split(' ').next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("{said}"))
}

fn report_of_a_stop() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=1"]);
    let slow = |millis: u32| {
        let mut wire = site.connect();
        wire.send(format!("GET /slow?ms={millis} HTTP/1.1\r\nHost: t\r\n\r\n"));
        wire
    };
    let mut cut = slow(9000);
    let mut finished = [slow(500), slow(600)];
    wait_until(5, "all are in flight", || place.count("in_flight") == 3);
    let said = place.app(&["stop"]).ok();
    let start = format!("demo: stopped pid {} after ", site.pid);
    assert!(said.starts_with(&start), "{said}");
    let cut_after = " s; 2 requests finished, 1 cut (GET /slow, ";
    // No sooner than it may be.
    for before in [&start, cut_after] {
        assert!(seconds_after(&said, before) >= 1.0, "{said}");
    }
    for wire in &mut finished {
        assert_eq!(wire.answer().text(), "slow\n");
    }
    assert!(cut.read_answer(true).is_err());
    assert!(!is_alive(site.pid));

    // Nothing to do.
    let site = place.start(&[]);
    let said = place.app(&["stop"]).ok();
    let start = format!("demo: stopped pid {} after 0.", site.pid);
    let end = " s; 0 requests finished, 0 cut\n";
    assert!(said.starts_with(&start) && said.ends_with(end), "{said}");
    assert_eq!(place.app(&["stop"]).ok(), "demo: not running\n");
    // Several workers, and two who ask.
    let site = place.start(&["--set", "workers=2"]);
    let mut slow = site.connect();
    slow.send("GET /slow?ms=700 HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until(5, "it is in flight", || place.count("in_flight") == 1);
    let first = Meanwhile::new(place.command(&["app", "stop"]));
    wait_until(5, "it drains", || {
        place.app(&["state", "--json"]).out.contains("\"draining\"")
    });
    assert_eq!(slow.answer().text(), "slow\n");
    let said = first.end(5).ok();
    assert!(said.ends_with("; 1 requests finished, 0 cut\n"), "{said}");
}
