//! A restart from one address to another one that shares its port, or is the same place by another name.

use crate::support::{
    Hammer, Meanwhile, Place, Site, freeze, once, signal, wait_until, worker, workers,
};
use std::net::TcpListener;

/// Nobody else may have the port.
#[track_caller]
fn is_taken(port: u16) {
    for host in ["127.0.0.1", "0.0.0.0"] {
        assert!(
            TcpListener::bind((host, port)).is_err(),
            "{host}:{port} is free"
        );
    }
}

fn newcomers(port: u16) -> Hammer {
    (0..4).fold(Hammer::new(), |hammer, _| {
        hammer.with(move |tally| {
            once(
                &format!("127.0.0.1:{port}"),
                "/hello",
                tally,
                b"Hello, World!",
            );
            crate::support::pause();
        })
    })
}

#[track_caller]
fn starts_at(place: &Place, host: &str) -> Site {
    let address = format!("{host}:0");
    Site::of(&place.app(&["start", "-d", "--address", &address]).ok())
}

fn moves(from: &str, to: &[&str]) {
    let place = Place::demo();
    let site = starts_at(&place, from);
    let port = site.port();
    let url = place.fact("address");
    for to in to {
        let to = format!("{to}:{port}");
        let old = worker(site.pid);
        place.write("boot", "fail");
        let hammer = newcomers(port);
        for _ in 0..3 {
            let said = place.app(&["restart", "--address", &to]).failed(1);
            assert!(
                said.contains("asked to fail at boot"),
                "{from} {to}: {said}"
            );
        }
        let tally = hammer.end_with_failures();
        assert!(tally.failed.is_empty(), "{from} → {to}: {tally:?}");
        assert_eq!(
            (place.fact("address"), worker(site.pid)),
            (url.clone(), old)
        );
        is_taken(port);
        place.write("boot", "");
        let said = place.app(&["restart", "--address", &to]).ok();
        assert!(said.contains("restarted, pid"), "{from} → {to}: {said}");
        is_taken(port);
        let back = Site::after(&said);
        assert_eq!(back.port(), port);
        assert_eq!(site.get("/hello").status, 200);
        let generation = place.count("generation");
        signal(site.pid, "HUP");
        wait_until(10, "a restart by signal", || {
            place.count("generation") == generation + 1
        });
        let from = format!("{from}:{port}");
        place.app(&["restart", "--address", &from]).ok();
        assert_eq!(site.get("/hello").status, 200);
        is_taken(port);
    }
    place.app(&["stop"]).ok();
    drop(TcpListener::bind(("127.0.0.1", port)).expect("it is free now"));
}

#[test]
fn from_every_interface_to_one() {
    moves("", &["localhost", "127.0.0.1"]);
}

#[test]
fn from_every_interface_to_every_interface() {
    moves("", &["0.0.0.0", "[::]"]);
}

#[test]
fn from_one_interface_to_every_one() {
    moves("localhost", &["", "0.0.0.0", "[::]", "127.0.0.1"]);
}

#[test]
fn from_ipv4_to_all() {
    moves("0.0.0.0", &["", "localhost", "[::]"]);
}

/// One of the new workers serves at the new address already when the other one fails.
fn given_up_halfway(from: &str, to: &str) {
    let place = Place::demo();
    let args = ["start", "-d", "--set", "workers=2", "--address", from];
    let site = Site::of(&place.app(&args).ok());
    let old = workers(site.pid);
    let url = place.fact("address");
    let is_there = || from.starts_with("unix:") == place.path("run/a.sock").exists();
    place.write("boot", "wait");
    let to = to.replace("PORT", url.rsplit(':').next().unwrap());
    let restart = Meanwhile::new(place.command(&["app", "restart", "--address", &to]));
    let count = |stage: &str| {
        let state = place.app(&["state", "--json"]).out;
        state.matches(&format!("\"state\":\"{stage}\"")).count()
    };
    wait_until(10, "two start", || count("starting") == 2);
    let new = workers(site.pid);
    let new: Vec<u32> = new.into_iter().filter(|pid| !old.contains(pid)).collect();
    freeze(new[1]);
    place.write("boot", "");
    wait_until(10, "one of them serves", || count("serving") == 3);
    signal(new[1], "KILL");
    let said = restart.end(20).failed(1);
    assert!(said.contains("killed by signal 9"), "{said}");
    wait_until(10, "only the old ones are left", || {
        workers(site.pid) == old
    });
    assert_eq!(place.fact("address"), url);
    assert!(is_there() && !place.path("run/b.sock").exists());
    // And so it is for those that come after them.
    for pid in &old {
        signal(*pid, "KILL");
        wait_until(10, "it is replaced", || {
            let now = workers(site.pid);
            now.len() == 2 && !now.contains(pid)
        });
    }
    assert_eq!(place.app(&["state", "--probe"]).code, Some(0));
    if !from.starts_with("unix:") {
        assert_eq!(site.get("/hello").status, 200);
    }
    place.app(&["restart"]).ok();
    assert_eq!(place.fact("address"), url);
    assert!(is_there());
    assert_eq!(place.app(&["state", "--probe"]).code, Some(0));
}

#[test]
fn given_up_when_one_new_worker_serves_already() {
    for (from, to) in [
        ("127.0.0.1:0", "localhost:0"),
        (":0", "localhost:PORT"),
        ("unix:run/a.sock", "unix:run/b.sock"),
        ("127.0.0.1:0", "unix:run/b.sock"),
    ] {
        given_up_halfway(from, to);
    }
}
