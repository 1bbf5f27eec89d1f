//! Connections that go from one worker to the next, and what happens to them where that one is told to leave before it has
//! read them, or dies while the one before it still leaves.

use crate::look::{comm, descriptors};
use crate::support::{
    Meanwhile, Place, Site, Wire, freeze, get, has, holds_for, in_time, is_alive, pattern, run,
    settled_descriptors, signal, wait_asleep, wait_until, worker, workers,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

const ROUNDS: usize = 5;

/// A service with connections between two requests.
fn with_idle(place: &Place, close_wait: u32) -> (Site, Vec<Wire>) {
    place.write("boot", "");
    let site = place.start_copy(&["--set", &format!("close_wait={close_wait}")]);
    let mut wires: Vec<Wire> = (0..8).map(|_| site.connect()).collect();
    for wire in &mut wires {
        wire.send(get("/hello"));
        assert_eq!(wire.answer().text(), "Hello, World!");
    }
    (site, wires)
}

/// A restart whose new worker boots for as long as `boot` says so.
fn booting(place: &Place, site: &Site, old: u32) -> (Meanwhile, u32) {
    place.write("boot", "wait");
    let restart = Meanwhile::new(place.command_of("prog", &["restart"]));
    let mut new = 0;
    wait_until(20, "a new worker boots", || {
        // The check of the program on disk is a child, too.
        let mut others = workers(site.pid).into_iter();
        let found = others.find(|pid| *pid != old && comm(*pid).ends_with(" worker"));
        found.inspect(|pid| new = *pid).is_some()
    });
    (restart, new)
}

/// Lets the new worker boot to its end.
fn boot(place: &Place) {
    let ready = place.log().matches("worker ready").count();
    place.write("boot", "");
    wait_until(20, "it is ready", || {
        place.log().matches("worker ready").count() > ready
    });
}

/// A worker that stands still and has been passed these connections, whose requests have come since.
fn passed(place: &Place) -> (Site, u32, Vec<Wire>) {
    let (site, mut wires) = with_idle(place, 20);
    let old = site.worker();
    let (restart, new) = booting(place, &site, old);
    // The master must not see that the new one is ready before that one stands still.
    signal(site.pid, "STOP");
    boot(place);
    signal(new, "STOP");
    signal(site.pid, "CONT");
    let said = restart.end(20).ok();
    assert!(said.ends_with(" 0 cut\n"), "{said}");
    assert!(!is_alive(old));
    for wire in &mut wires {
        wire.send(get("/pid"));
    }
    (site, new, wires)
}

#[test]
fn what_was_passed_on_and_not_yet_read_is_answered_on_a_stop() {
    for round in 0..ROUNDS {
        let place = Place::demo();
        let (site, new, mut wires) = passed(&place);
        let stop = Meanwhile::new(place.command_of("prog", &["stop"]));
        place.wait_for_log(": leaving");
        signal(new, "CONT");
        for wire in &mut wires {
            assert_eq!(wire.answer().text(), new.to_string(), "{round}");
        }
        stop.end(20).ok();
        assert!(!is_alive(site.pid));
    }
}

#[test]
fn what_was_passed_on_and_not_yet_read_is_answered_on_a_signal() {
    for round in 0..ROUNDS {
        let place = Place::demo();
        let (_site, new, mut wires) = passed(&place);
        signal(new, "TERM");
        signal(new, "CONT");
        for wire in &mut wires {
            assert_eq!(wire.answer().text(), new.to_string(), "{round}");
        }
    }
}

#[test]
fn what_was_passed_on_and_not_yet_read_is_passed_on_again() {
    for round in 0..ROUNDS {
        let place = Place::demo();
        let (site, new, mut wires) = passed(&place);
        let restart = Meanwhile::new(place.command_of("prog", &["restart"]));
        let told = format!("\"pid\":{new},\"state\":\"draining\"");
        wait_until(20, "the orders are on their way", || {
            let state = place.app_of("prog", &["state", "--json"]);
            state.out.contains(&told)
        });
        signal(new, "CONT");
        let mut by = Vec::new();
        for wire in &mut wires {
            // Whichever was first to see that there is something to read.
            by.push(wire.answer().text());
            // Nothing was closed on the way.
            wire.send(get("/hello"));
            assert_eq!(wire.answer().text(), "Hello, World!", "{round}");
        }
        assert!(restart.end(20).ok().ends_with(" 0 cut\n"));
        let third = worker(site.pid);
        assert_ne!(third, new);
        let known = [third.to_string(), new.to_string()];
        assert!(by.iter().all(|pid| known.contains(pid)), "{by:?}");
    }
}

/// A process has room for so many descriptors more than it has.
fn room_for(pid: u32, more: usize) {
    // A master looks at files of the kernel's while a worker boots: what is open for a moment makes room later.
    settled_descriptors(pid);
    let open: Vec<u32> = descriptors(pid).iter().map(|(number, _)| *number).collect();
    let mut free = (0..).filter(|number| !open.contains(number));
    let limit = free.nth(more).expect("a number");
    limit_files(pid, &limit.to_string());
}

fn limit_files(pid: u32, soft: &str) {
    let (pid, soft) = (pid.to_string(), format!("--nofile={soft}:"));
    run(Command::new("prlimit").args(["--pid", &pid, &soft])).ok();
}

/// An application that has used up its descriptors is what a restart is for.
#[test]
fn a_worker_without_descriptors_passes_its_connections_on() {
    if !has("prlimit") {
        return;
    }
    let place = Place::demo();
    let (site, mut wires) = with_idle(&place, 60);
    room_for(site.worker(), 0);
    let said = place.app_of("prog", &["restart"]).ok();
    assert!(said.ends_with(" 0 cut\n"), "{said}");
    let new = site.worker();
    for wire in &mut wires {
        assert_eq!(wire.get("/pid").text(), new.to_string());
    }
}

#[test]
fn what_finds_no_descriptor_in_the_new_worker_waits_for_one() {
    if !has("prlimit") {
        return;
    }
    for (room, leaves) in [(0, false), (3, false), (0, true)] {
        let place = Place::demo();
        let (_site, new, mut wires) = passed(&place);
        room_for(new, room);
        signal(new, "CONT");
        place.wait_for_log("connections of the old worker have to wait: Too many open files");
        if leaves {
            signal(new, "TERM");
            place.wait_for_log("signal TERM: draining");
        }
        let is_quiet = |wire: &mut Wire| wire.is_quiet();
        assert!(
            wires
                .iter_mut()
                .map(is_quiet)
                .filter(|quiet| *quiet)
                .count()
                >= 8 - room
        );
        limit_files(new, "1000");
        for wire in &mut wires {
            assert_eq!(wire.answer().text(), new.to_string());
        }
    }
}

#[test]
fn where_the_master_has_no_descriptors_connections_are_passed_on_when_it_has() {
    if !has("prlimit") {
        return;
    }
    let place = Place::demo();
    let (site, mut wires) = with_idle(&place, 60);
    let old = site.worker();
    let (restart, new) = booting(&place, &site, old);
    let before = descriptors(old).len();
    room_for(site.pid, 0);
    boot(&place);
    wait_until(20, "the old one lets go of the listener", || {
        descriptors(old).len() < before
    });
    // It answers whoever asks meanwhile, and for the last time.
    let answer = wires.remove(0).get("/pid");
    assert_eq!(answer.header("Connection"), Some("close"));
    assert_eq!(answer.text(), old.to_string());
    limit_files(site.pid, "1000");
    assert!(restart.end(20).ok().ends_with(" 0 cut\n"));
    for wire in &mut wires {
        assert_eq!(wire.get("/pid").text(), new.to_string());
    }
}

/// A restart whose old worker has been told to leave, and the new one.
fn leaving(place: &Place, site: &Site, old: u32) -> (Meanwhile, u32) {
    let restart = Meanwhile::new(place.command(&["app", "restart"]));
    let told = format!("\"pid\":{old},\"state\":\"draining\"");
    wait_until(20, "the old one leaves", || {
        place.app(&["state", "--json"]).out.contains(&told)
    });
    let others = workers(site.pid);
    let new = *others.iter().find(|pid| **pid != old).expect("a new one");
    (restart, new)
}

/// It would be cut with the old one, which is out of time soon.
#[test]
fn what_comes_while_the_last_request_is_answered_is_the_next_workers() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let old = site.worker();
    let names: Vec<String> = (0..8).map(|number| format!("h{number}")).collect();
    let mut wires: Vec<Wire> = names.iter().map(|_| site.connect()).collect();
    for (name, wire) in names.iter().zip(&mut wires) {
        // One that has waited for a request is watched while the next is answered.
        wire.get("/hello");
        wire.send(get(&format!("/hold?name={name}")));
        place.wait_held(name);
    }
    let (restart, new) = leaving(&place, &site, old);
    for wire in &mut wires {
        wire.send(get("/pid"));
    }
    // By then the old one's gate has seen all of them.
    holds_for(200, "they are held", || is_alive(old));
    for (name, wire) in names.iter().zip(&mut wires) {
        place.release(name);
        assert_eq!(wire.answer().status, 200);
        assert_eq!(wire.answer().text(), new.to_string());
    }
    assert!(restart.end(60).ok().ends_with(" 0 cut\n"));
}

/// What is read in one piece and fills it leaves open whether there is more.
#[test]
fn what_stands_behind_a_body_that_fills_the_buffer_is_the_next_workers() {
    /// As much as is read at a time.
    const FULL: usize = 64 * 1024;
    let place = Place::demo();
    // A socket that holds all of it: that of TCP has a window.
    let listen = ["--address", "unix:run/http.sock", "--set", "close_wait=60"];
    let site = Site::of(&place.app(&[&["start", "-d"], &listen[..]].concat()).ok());
    let old = site.worker();
    let mut wire = UnixStream::connect(place.path("run/http.sock")).unwrap();
    wire.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let head = format!("POST /hello HTTP/1.1\r\nHost: t\r\nContent-Length: {FULL}\r\n\r\n");
    wire.write_all(head.as_bytes()).unwrap();
    wait_asleep(old);
    let (restart, new) = leaving(&place, &site, old);
    freeze(old);
    wire.write_all(&pattern(FULL)).unwrap();
    wire.write_all(b"GET /pid HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    signal(old, "CONT");
    let mut answers = String::new();
    wire.read_to_string(&mut answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 405 "), "{answers}");
    assert!(answers.ends_with(&format!("\r\n\r\n{new}")), "{answers}");
    assert!(restart.end(60).ok().ends_with(" 0 cut\n"));
}

/// The workers that are in this state.
fn workers_that_are(place: &Place, state: &str) -> Vec<String> {
    let json = place.app_of("prog", &["state", "--json"]).out;
    let end = format!(",\"state\":\"{state}\"");
    let before = json
        .split(&end)
        .filter_map(|text| text.rsplit_once("\"pid\":"));
    let pids = before.map(|(_, pid)| pid.to_owned());
    pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

/// A restart whose old workers have these requests in hand, one of them with half of its body, when all new ones serve.
fn amid_restart(
    place: &Place,
    wanted: usize,
    close_wait: u32,
) -> (Vec<Wire>, Vec<u8>, Meanwhile, Vec<String>) {
    place.write("boot", "");
    let sets = [
        format!("workers={wanted}"),
        format!("close_wait={close_wait}"),
    ];
    let site = place.start_copy(&["--set", &sets[0], "--set", &sets[1]]);
    let mut wires: Vec<Wire> = (0..4)
        .map(|number| place.hold(&site, &number.to_string()))
        .collect();
    let body = pattern(300_000);
    let mut upload = site.connect();
    upload.send(format!(
        "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    upload.send(&body[..150_000]);
    wires.push(upload);
    wait_until(20, "all are in hand", || {
        let json = place.app_of("prog", &["state", "--json"]).out;
        json.contains("\"in_flight\":5,")
    });
    let old = workers_that_are(place, "serving");
    assert_eq!(old.len(), wanted);
    let restart = Meanwhile::new(place.command_of("prog", &["restart"]));
    // One that has nothing in hand is gone already.
    wait_until(20, "the old ones leave", || {
        !workers_that_are(place, "draining").is_empty()
    });
    (wires, body, restart, old)
}

fn kill(pid: &str) {
    signal(pid.parse().unwrap(), "KILL");
}

fn lets_keep_alive(wire: &mut Wire, target: &str) -> String {
    let answer = wire.get(target);
    assert_eq!(answer.header("Connection"), None, "{}", answer.head);
    answer.text()
}

#[test]
fn where_the_new_worker_dies_the_next_one_takes_over_what_the_old_one_still_has() {
    let place = Place::demo();
    let (mut wires, body, restart, old) = amid_restart(&place, 1, 60);
    let new = workers_that_are(&place, "serving");
    place.write("boot", "wait");
    kill(&new[0]);
    wait_until(20, "nobody serves", || {
        workers_that_are(&place, "serving").is_empty()
    });
    // For the time being the old one goes on, for as many requests as there are.
    for number in [0, 1] {
        place.release(&number.to_string());
        assert_eq!(wires[number].answer().text(), "held\n");
        for _ in 0..2 {
            assert_eq!(lets_keep_alive(&mut wires[number], "/pid"), old[0]);
        }
    }
    place.write("boot", "");
    wait_until(20, "another one serves", || {
        workers_that_are(&place, "serving").len() == 1
    });
    let next = workers_that_are(&place, "serving");
    assert!(next != new && next != old);
    place.release("2");
    place.release("3");
    for wire in &mut wires[2..4] {
        assert_eq!(wire.answer().text(), "held\n");
    }
    wires[4].send(&body[150_000..]);
    assert!(wires[4].answer().body == body);
    for wire in &mut wires {
        assert_eq!(lets_keep_alive(wire, "/pid"), next[0]);
    }
    assert!(restart.end(20).ok().contains(" 0 cut\n"));
}

#[test]
fn where_one_of_the_new_workers_dies_another_takes_over_for_it() {
    for which in [0, 1] {
        let place = Place::demo();
        let (mut wires, body, restart, old) = amid_restart(&place, 2, 60);
        let new = workers_that_are(&place, "serving");
        // That it is replaced is not waited for.
        place.write("boot", "wait");
        kill(&new[which]);
        wait_until(20, "the other one serves alone", || {
            workers_that_are(&place, "serving") == new[1 - which..2 - which]
        });
        for (number, wire) in wires[..4].iter_mut().enumerate() {
            place.release(&number.to_string());
            assert_eq!(wire.answer().text(), "held\n");
        }
        wires[4].send(&body[150_000..]);
        assert!(wires[4].answer().body == body);
        for wire in &mut wires {
            assert_eq!(lets_keep_alive(wire, "/pid"), new[1 - which]);
        }
        assert!(restart.end(20).ok().contains(" 0 cut\n"));
        assert!(old.iter().all(|pid| !is_alive(pid.parse().unwrap())));
        place.write("boot", "");
    }
}

/// What begins in the last moment would be cut.
#[test]
fn where_no_other_comes_connections_end_with_their_answers_before_the_old_worker_does() {
    let place = Place::demo();
    let (mut wires, _, restart, old) = amid_restart(&place, 1, 15);
    let new = workers_that_are(&place, "serving");
    place.write("boot", "wait");
    kill(&new[0]);
    // What is passed to one that is about to die goes with it.
    wait_until(20, "nobody serves", || {
        workers_that_are(&place, "serving").is_empty()
    });
    (0..4).for_each(|number| place.release(&number.to_string()));
    for wire in &mut wires[..4] {
        assert_eq!(wire.answer().text(), "held\n");
    }
    assert_eq!(lets_keep_alive(&mut wires[1], "/pid"), old[0]);
    wait_until(20, "an answer is the last", || {
        let answer = wires[0].get("/pid");
        assert_eq!(answer.text(), old[0]);
        answer.header("Connection") == Some("close")
    });
    assert!(wires[0].is_closed());
    // It is no stop.
    let answer = wires[1].get("/healthz");
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (200, Some("close"))
    );
    // The upload, which nobody has sent on.
    assert!(restart.end(20).ok().contains(" 1 cut"));
    place.write("boot", "");
}

/// Who asks for more on a connection that the old worker has not passed on when it ends would find it closed.
#[test]
fn what_is_answered_at_the_last_moment_is_the_last_on_its_connection() {
    in_time(200, || {
        let place = Place::demo();
        let site = place.start_copy(&["--set", "close_wait=3"]);
        let old = site.worker();
        let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let mut wires: Vec<Wire> = names.iter().map(|name| place.hold(&site, name)).collect();
        let restart = Meanwhile::new(place.command_of("prog", &["restart"]));
        let new = || {
            workers_that_are(&place, "serving")
                .into_iter()
                .find(|pid| *pid != old.to_string())
        };
        wait_until(20, "a new worker serves", || new().is_some());
        let new = new();
        let mut is_last = false;
        for (name, wire) in names.iter().zip(&mut wires) {
            place.release(name);
            let answer = wire.answer();
            assert_eq!(answer.text(), "held\n");
            is_last = answer.header("Connection") == Some("close");
            if is_last {
                break;
            }
            assert_eq!(Some(lets_keep_alive(wire, "/pid")), new);
            holds_for(75, "it has time left", || is_alive(old));
        }
        assert!(is_last);
        drop(wires);
        restart.end(20).ok();
    });
}
