//! `app restart`: a new generation takes over and nobody notices.

use crate::support::{
    Foreground, Hammer, Meanwhile, Place, Site, Tally, Wire, again, is_alive, once, run, signal,
    wait_until, was_soon, worker, workers, working_in,
};
use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;
const SLOW: usize = 4 << 20;
const BODY: usize = 3000;

/// How the program on disk changes between restarts.
#[derive(Clone, Copy, PartialEq)]
enum Program {
    Stays,
    Changes,
}

#[test]
fn twenty_restarts_in_place_lose_nothing() {
    storm(Program::Stays, 1);
}

#[test]
fn twenty_restarts_with_a_changed_program_lose_nothing() {
    storm(Program::Changes, 1);
}

#[test]
fn twenty_restarts_with_two_workers_lose_nothing() {
    storm(Program::Stays, 2);
}

/// Every kind of client, through restarts back to back.
fn storm(program: Program, count: usize) {
    let place = Place::demo();
    let workers_flag = format!("workers={count}");
    let site = place.start_copy(&["--set", &workers_flag, "--set", "close_wait=20"]);
    if program == Program::Changes {
        // Two builds that differ, each of which becomes the file that the other one was.
        place.sh("cp prog other && echo other >>other", &[]);
    }
    let sent = Arc::new(AtomicU64::new(0));
    let asked = |number: u64| {
        let sent = Arc::clone(&sent);
        move || sent.fetch_add(number, Ordering::SeqCst)
    };
    let address = || site.address().to_owned();

    let (to, count_one) = (address(), asked(1));
    let fresh = Hammer::new().with(move |tally| {
        count_one();
        once(&to, "/hello", tally, b"Hello, World!");
    });
    let (to, count_one, mut wire) = (address(), asked(1), None);
    let kept = Hammer::new().with(move |tally| {
        count_one();
        again(&mut wire, &to, tally);
    });
    let (to, count_eight, mut wire) = (address(), asked(8), site.connect());
    let pipelined = Hammer::new().with(move |tally| {
        count_eight();
        pipeline(&mut wire, &to, tally);
    });
    let (to, count_one) = (address(), asked(1));
    let downloads = Hammer::new().with(move |tally| {
        count_one();
        download(&to, tally);
    });
    let (to, count_one, mut wire) = (address(), asked(1), site.connect());
    let uploads = Hammer::new().with(move |tally| {
        count_one();
        upload(&mut wire, &to, tally);
    });

    // Connections that are known to be in a certain state while a restart happens.
    let mut held = site.connect();
    let mut begun = site.connect();
    let mut silent: Vec<Wire> = (0..ROUNDS).map(|_| site.connect()).collect();
    let mut old = workers(site.pid);
    assert_eq!(old.len(), count);
    for round in 1..=ROUNDS {
        let mut young = site.connect();
        hold_post(&mut held);
        begun.send("GET /hello HT");
        if program == Program::Changes {
            place.sh("mv prog third && mv other prog && mv third other", &[]);
        }
        let mut restart = Meanwhile::new(place.command(&["app", "restart"]));
        wait_until(20, "the new workers are ready", || {
            place.log().matches("worker ready").count() >= (round + 1) * count
        });
        assert!(
            !restart.is_over(),
            "a restart ended before the requests of the old worker did"
        );
        held.send("!");
        begun.send("TP/1.1\r\nHost: t\r\n\r\n");
        let answer = held.answer();
        assert_eq!((answer.status, answer.body.len()), (200, BODY), "{round}");
        assert_eq!(answer.header("Connection"), None, "{}", answer.head);
        assert_eq!(begun.answer().text(), "Hello, World!", "{round}");
        let said = restart.end(20).ok();
        assert!(
            said.starts_with(&format!(
                "demo: restarted, pid {}, on {}",
                site.pid, site.url
            )),
            "{said}"
        );
        assert!(said.ends_with(" 0 cut\n"), "{said}");
        let new = workers(site.pid);
        assert_eq!(new.len(), count, "{new:?}");
        assert!(new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
        old = new;
        // Those who had said nothing so far.
        for wire in [&mut young, &mut silent[round - 1]] {
            wire.send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(wire.answer().text(), "Hello, World!", "{round}");
        }
        sent.fetch_add(4, Ordering::SeqCst);
    }
    // All connections ever made are still good.
    for wire in &mut silent {
        wire.send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(wire.answer().text(), "Hello, World!");
        sent.fetch_add(1, Ordering::SeqCst);
    }

    for (kind, hammer) in [
        ("new connections", fresh),
        ("a kept connection", kept),
        ("a pipelined connection", pipelined),
        ("slow downloads", downloads),
        ("uploads", uploads),
    ] {
        let Tally { answered, gap, .. } = hammer.end();
        println!(
            "{kind}: {answered} answered, longest gap {gap:.1?}, {ROUNDS} restarts, {count} workers"
        );
    }
    assert_eq!(place.pid(), Some(site.pid));
    assert_eq!(place.count("generation"), ROUNDS as u64 + 1);
    assert_eq!(place.count("worker_deaths"), 0);
    let expected = sent.load(Ordering::SeqCst);
    let mut counted = 0;
    wait_until(5, "all requests are counted, each of them once", || {
        counted = place.count("requests");
        counted == expected || {
            println!("{counted} of {expected}");
            false
        }
    });
    assert_eq!(place.count("in_flight"), 0);
    assert!(
        place.app(&["stop"]).ok().contains("0 cut"),
        "nothing was left"
    );
}

fn hold_post(wire: &mut Wire) {
    wire.send(format!(
        "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {BODY}\r\n\r\n{}",
        "x".repeat(BODY - 1)
    ));
}

/// Eight requests in one piece.
fn pipeline(wire: &mut Wire, address: &str, tally: &mut Tally) {
    let requests = (0..8).map(|n| format!("GET /bytes?n={n} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let mut answer = wire.ask(&requests.collect::<String>());
    for n in 0..8 {
        let failed = answer.is_err();
        tally.count(answer, &vec![b'x'; n]);
        if failed {
            *wire = Wire::to(address);
            return;
        }
        if n < 7 {
            answer = wire.read_answer(true);
        } else {
            return;
        }
    }
}

/// Four megabytes, read slowly, on a connection of their own.
fn download(address: &str, tally: &mut Tally) {
    let mut wire = Wire::to(address);
    wire.send(format!(
        "GET /bytes?n={SLOW} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    ));
    let mut received = Vec::with_capacity(SLOW + 1024);
    loop {
        match wire.gulp(200_000) {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => received.extend(piece),
            Err(why) => return tally.failed.push(format!("download: {why}")),
        }
    }
    let head = received.windows(4).position(|four| four == b"\r\n\r\n");
    let body = head.map_or(0, |head| received.len() - head - 4);
    if body == SLOW && received.starts_with(b"HTTP/1.1 200 ") {
        tally.answered += 1;
    } else {
        tally.failed.push(format!("download: {body} of {SLOW}"));
    }
}

/// A body that comes in two pieces, on a connection that stays.
fn upload(wire: &mut Wire, address: &str, tally: &mut Tally) {
    let first = format!(
        "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n {}",
        "th"
    );
    wire.send(first);
    std::thread::yield_now();
    let answer = wire.ask("ere\r\n0\r\n\r\n");
    if answer.is_err() {
        *wire = Wire::to(address);
    }
    tally.count(answer, b"hello there");
}

/// Restarts, and the workers are other ones.
#[track_caller]
fn restart_with(place: &Place, site: &Site, args: &[&str], environment: &[(&str, &str)]) -> Site {
    let old = worker(site.pid);
    let mut command = place.command(&["app", "restart"]);
    command.args(args).envs(environment.iter().copied());
    let said = run(&mut command).ok();
    assert_ne!(worker(site.pid), old);
    let now = Site::after(&said);
    assert_eq!((now.pid, place.pid()), (site.pid, Some(site.pid)), "{said}");
    now
}

/// A master's command line.
fn words(pid: u32) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    line.split_terminator('\0').map(str::to_owned).collect()
}

#[track_caller]
fn is_refused(address: &str) {
    let error = std::net::TcpStream::connect(address).expect_err("nobody listens there any more");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_address_changes_and_what_is_in_flight_at_the_old_one_is_finished() {
    let place = Place::demo();
    place.write("etc/app.conf", "app.address = 127.0.0.1:0\n");
    let daemon = place.app(&["start", "--daemon"]).ok();
    let site = Site::of(&daemon);

    // By the file, by the environment, by a flag; every one of these is a port of its own.
    let mut now = site.clone();
    for (content, args, environment) in [
        ("app.address = localhost:0\n", vec![], vec![]),
        (
            "app.address = localhost:0\n",
            vec![],
            vec![("ADDRESS", "127.0.0.2:0")],
        ),
        (
            "app.address = localhost:0\n",
            vec!["--address", "127.0.0.3:0"],
            vec![("ADDRESS", "127.0.0.2:0")],
        ),
    ] {
        place.write("etc/app.conf", content);
        let before = now.clone();
        let mut held = before.connect();
        hold_post(&mut held);
        let mut idle = before.connect();
        let old = worker(site.pid);
        let mut command = place.command(&["app", "restart"]);
        command.args(args).envs(environment);
        let ready = place.log().matches("worker ready").count();
        let mut restart = Meanwhile::new(command);
        wait_until(10, "the new worker is ready", || {
            place.log().matches("worker ready").count() > ready
        });
        // The old one still has its request, and whoever comes to the new address is served.
        assert!(!restart.is_over());
        held.send("!");
        assert_eq!(held.answer().body.len(), BODY);
        now = Site::after(&restart.end(10).ok());
        assert_ne!(now.address(), before.address());
        assert_ne!(worker(site.pid), old);
        is_refused(before.address().replace("localhost", "127.0.0.1").as_str());
        assert_eq!(now.get("/hello").status, 200);
        assert_eq!(place.fact("address"), now.url);
        // A connection of before is as good as ever.
        idle.send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(idle.answer().text(), "Hello, World!");
    }
    assert!(now.url.starts_with("http://127.0.0.3:"), "{now:?}");
    // Said once, it stays so: a restart without a word changes nothing.
    assert_eq!(restart_with(&place, &site, &[], &[]).url, now.url);
    signal(site.pid, "HUP");
    wait_until(10, "one more generation", || place.count("generation") == 6);
    assert_eq!(now.get("/hello").status, 200);
    assert_eq!(place.fact("address"), now.url);
}

#[test]
fn from_tcp_to_a_unix_socket_and_back() {
    let place = Place::demo();
    let site = place.start(&[]);
    let said = place
        .app(&["restart", "--address", "unix:run/http.sock"])
        .ok();
    is_refused(site.address());
    assert!(said.contains("on unix:"), "{said}");
    let ask = || {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(place.path("run/http.sock")).unwrap();
        stream
            .write_all(b"GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(ask().ends_with("Hello, World!"));
    assert_eq!(place.app(&["state", "--probe"]).ok(), "demo: healthy\n");
    place.app(&["restart"]).ok();
    assert!(ask().ends_with("Hello, World!"));
    let back = Site::after(&place.app(&["restart", "--address", "127.0.0.1:0"]).ok());
    assert_eq!(back.get("/hello").status, 200);
    assert!(!place.path("run/http.sock").exists());
    assert_eq!(place.pid(), Some(site.pid));
    place.app(&["stop"]).ok();
    assert_eq!(working_in(&place.dir), []);
}

#[test]
fn the_flags_of_the_start_stay_through_every_kind_of_restart() {
    let place = Place::demo();
    let mut command = place.command(&["app", "start", "-d", "--set", "close_wait=3"]);
    command.env("ADDRESS", "127.0.0.1:0");
    let site = Site::of(&run(&mut command).ok());
    for _ in 0..3 {
        assert_eq!(restart_with(&place, &site, &[], &[]).url, site.url);
    }
    signal(site.pid, "HUP");
    wait_until(10, "one more generation", || place.count("generation") == 5);
    assert_eq!(place.fact("address"), site.url);
    // Told otherwise, it is otherwise, and stays so.
    restart_with(&place, &site, &["--set", "close_wait=2"], &[]);
    restart_with(&place, &site, &[], &[]);
    assert_eq!(site.get("/hello").status, 200);
    let mut slow = site.connect();
    slow.send("GET /slow?ms=9000 HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until(5, "it is in flight", || place.count("in_flight") == 1);
    let begun = Instant::now();
    let said = place.app(&["restart"]).ok();
    assert!(said.contains(" 1 cut"), "{said}");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1900), "{took:?}");
    was_soon(begun, 2900);
    // The cold way too.
    let said = place.app(&["restart", "--cold"]).ok();
    assert!(said.contains("demo: stopped pid "), "{said}");
    let cold = Site::of(said.split_once('\n').unwrap().1);
    assert_ne!(cold.pid, site.pid);
    assert!(!is_alive(site.pid));
    assert!(cold.url.starts_with("http://127.0.0.1:"), "{cold:?}");
    let words = words(cold.pid);
    assert!(words.contains(&"close_wait=2".to_owned()), "{words:?}");
}

#[test]
fn what_a_restart_is_told_does_not_pile_up_on_the_command_line() {
    let place = Place::demo();
    let mut command = place.command(&["app", "start", "-d"]);
    command.env("ADDRESS", "127.0.0.1:0");
    let site = Site::of(&run(&mut command).ok());
    let told = [("ADDRESS", "127.0.0.1:0"), ("APP_CLOSE_WAIT", "4")];
    restart_with(&place, &site, &["--set", "threads=9"], &told);
    let once = words(site.pid);
    for _ in 0..3 {
        restart_with(&place, &site, &["--set", "threads=9"], &told);
    }
    assert_eq!(words(site.pid), once);
}

#[test]
fn restart_of_what_does_not_run_starts_it() {
    let place = Place::demo();
    let site = Site::of(&place.app(&["restart", "--address", "127.0.0.1:0"]).ok());
    assert_eq!(place.pid(), Some(site.pid));
    assert_eq!(site.get("/hello").status, 200);
    restart_with(&place, &site, &[], &[]);
}

#[test]
fn another_base_directory_and_relative_settings() {
    let place = Place::demo();
    place.write("base/etc/other.conf", "app.address = 127.0.0.1:0\n");
    place.write("boot", "");
    let args = ["--base-dir", "base", "--config", "etc/other.conf"];
    let app = |command: &str, more: &[&str]| {
        let words: Vec<&str> = [command].iter().chain(&args).chain(more).copied().collect();
        place.app(&words)
    };
    let site = Site::of(&app("start", &["--daemon"]).ok());
    // From elsewhere, by another name of the same directory.
    let absolute = place.path("base");
    let absolute = absolute.to_str().unwrap();
    for base in ["base", "./base/../base", absolute] {
        let said = place.app(&["restart", "--base-dir", base]).ok();
        assert_eq!(Site::after(&said).url, site.url);
        assert_eq!(site.get("/hello").status, 200);
    }
    place.write("base/etc/other.conf", "app.address = localhost:0\n");
    let said = place.app(&["restart", "--base-dir", "base"]).ok();
    assert_ne!(Site::after(&said).url, site.url, "the file is read again");
    assert!(app("stop", &[]).ok().starts_with("demo: stopped pid "));
    assert_eq!(working_in(&place.path("base")), []);
    assert!(!place.path("base/run/app.sock").exists());
}

#[test]
fn a_program_behind_a_link_that_is_turned() {
    let place = Place::demo();
    fs::create_dir(place.path("one")).unwrap();
    fs::create_dir(place.path("two")).unwrap();
    place.put_demo("one/prog");
    place.put_demo("two/prog");
    place.sh("echo 2 | cat two/prog - >two/p && chmod 755 two/p && mv two/p two/prog && ln -s one current", &[]);
    let started = place.app_of("current/prog", &["start", "-d", "--address", "127.0.0.1:0"]);
    let site = Site::of(&started.ok());
    let runs = || fs::read_link(format!("/proc/{}/exe", site.pid)).unwrap();
    assert!(runs().ends_with("one/prog"));
    for turn in ["two", "one", "two"] {
        place.sh(r#"ln -s "$1" new && mv -T new current"#, &[turn]);
        restart_with(&place, &site, &[], &[]);
        assert!(runs().ends_with(format!("{turn}/prog")), "{:?}", runs());
    }
    fs::remove_dir_all(place.path("one")).unwrap();
    restart_with(&place, &site, &[], &[]);
}

#[test]
fn a_program_found_in_path() {
    let place = Place::demo();
    fs::create_dir(place.path("bin")).unwrap();
    place.put_demo("bin/prog");
    // By an entry of PATH that is relative, which is allowed and unwise.
    let path = format!("bin:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = std::process::Command::new("env");
    command
        .args([&format!("PATH={path}"), "prog", "app", "start", "-d"])
        .args(["--address", "127.0.0.1:0"])
        .current_dir(&place.dir);
    let site = Site::of(&run(&mut command).ok());
    place.sh(
        "cp bin/prog bin/new && echo new >>bin/new && mv bin/new bin/prog",
        &[],
    );
    restart_with(&place, &site, &[], &[]);
    let runs = fs::read_link(format!("/proc/{}/exe", site.pid)).unwrap();
    assert!(runs.ends_with("bin/prog"), "{runs:?}");
}

#[test]
fn in_the_foreground_too() {
    let place = Place::demo();
    let mut running = place.foreground(&[]);
    let site = running.site.clone();
    assert_eq!(site.pid, running.child.id());
    let hammer = Hammer::easy(site.address());
    restart_with(&place, &site, &[], &[]);
    running.signal("HUP");
    wait_until(10, "one more generation", || place.count("generation") == 3);
    hammer.end();
    running.signal("TERM");
    assert_eq!(running.end(), Some(0));
    assert_eq!(working_in(&place.dir), []);
}

#[test]
fn hang_ups_are_ignored_under_nohup() {
    let place = Place::demo();
    let args = ["app", "start", "--address", "127.0.0.1:0"];
    let running = Foreground::of(place.wrapped(&["env", "--ignore-signal=HUP"], &args));
    let old = worker(running.site.pid);
    running.signal("HUP");
    restart_with(&place, &running.site, &[], &[]);
    running.signal("HUP");
    assert_eq!(place.app(&["state", "--probe"]).ok(), "demo: healthy\n");
    assert_eq!(place.count("generation"), 2);
    assert_ne!(worker(running.site.pid), old);
}

#[test]
fn the_request_in_flight_is_named_when_it_is_cut() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=4"]);
    let old = worker(site.pid);
    let mut slow = place.hold(&site, "slow");
    let mut quick = place.hold(&site, "quick");
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(5, "the new worker serves", || {
        site.get("/pid").text() != old.to_string()
    });
    place.release("quick");
    let said = restart.end(20).ok();
    // Those who asked for the pid may be among the finished.
    assert!(
        said.contains(" finished since, 1 cut (GET /hold, "),
        "{said}"
    );
    let log = place.log();
    assert!(
        log.contains(" cut: GET /hold, "),
        "what was cut is not named"
    );
    assert_eq!(quick.answer().text(), "held\n");
    assert!(slow.read_answer(true).is_err());
    // And the kept connection goes on at the new worker.
    quick.send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(quick.answer().text(), "Hello, World!");
}

/// A client that asks again as soon as it is answered is never without a request when the old worker looks. It is passed
/// on all the same, with the request that has just come, and is not cut when the old worker's time is over.
#[test]
fn who_asks_without_a_pause_is_served_by_the_new_worker() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let old = worker(site.pid).to_string();
    // Keeps the old worker from leaving.
    let held = place.hold(&site, "a");
    let stop = Arc::new(AtomicU64::new(0));
    let changed = Arc::new(AtomicU64::new(0));
    let (address, told) = (site.address().to_owned(), Arc::clone(&stop));
    let seen = Arc::clone(&changed);
    let asking = std::thread::spawn(move || {
        let mut wire = Wire::to(&address);
        let mut last = String::new();
        while told.load(Ordering::SeqCst) == 0 {
            wire.send("GET /pid HTTP/1.1\r\nHost: t\r\n\r\n");
            let pid = wire.answer().text();
            seen.fetch_add(u64::from(pid != last), Ordering::SeqCst);
            last = pid;
        }
        last
    });
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    wait_until(20, "the connection has moved", || {
        let state = place.app(&["state", "--json"]).ok();
        let of_old = state
            .split(&format!("\"pid\":{old},\"state\":\"draining\""))
            .nth(1);
        of_old.is_some_and(|rest| {
            rest.split("\"connections\":")
                .nth(1)
                .is_some_and(|rest| rest.starts_with("1,"))
        })
    });
    wait_until(20, "the new worker answers", || {
        changed.load(Ordering::SeqCst) > 1
    });
    stop.store(1, Ordering::SeqCst);
    let last = asking.join().unwrap();
    assert_ne!(last, old);
    let changes = changed.load(Ordering::SeqCst);
    assert_eq!(changes, 2, "the old one, then the new one");
    place.release("a");
    drop(held);
    restart.end(20).ok();
}
