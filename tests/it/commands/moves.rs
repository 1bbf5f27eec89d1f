//! An address that is left: who waits in its queue is answered, who comes later is turned away at once, and nobody
//! hangs while the old worker finishes what it has.

use crate::support::{
    Meanwhile, PATIENCE, Place, Site, freeze, get, holds_for, is_alive, signal, wait_until,
};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection to the address as `start` has said it.
fn connect(place: &Place, url: &str) -> std::io::Result<Box<dyn Stream>> {
    let limit = Some(PATIENCE);
    match url.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(place.path(path))?;
            stream.set_read_timeout(limit)?;
            Ok(Box::new(stream))
        }
        None => {
            let stream = TcpStream::connect(url.trim_start_matches("http://"))?;
            stream.set_read_timeout(limit)?;
            Ok(Box::new(stream))
        }
    }
}

fn first_bytes(stream: &mut dyn Stream) -> String {
    let mut bytes = [0; 15];
    let count = stream.read(&mut bytes).expect("an answer");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn move_away(before: &str, after: &str) {
    let place = Place::demo();
    let args = ["start", "-d", "--address", before];
    let limits = ["--set", "close_wait=60", "--set", "workers=2"];
    let site = Site::of(&place.app(&[&args[..], &limits].concat()).ok());
    let old = crate::support::workers(site.pid);
    let mut held = connect(&place, &site.url).unwrap();
    held.write_all(get("/hold?name=a").as_bytes()).unwrap();
    place.wait_held("a");
    for pid in &old {
        freeze(*pid);
    }
    let mut waiting: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = connect(&place, &site.url).unwrap();
            stream.write_all(get("/hello").as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut restart = Meanwhile::new(place.command(&["app", "restart", "--address", after]));
    wait_until(20, "the old ones are told to leave", || {
        place
            .app(&["state", "--json"])
            .out
            .matches("\"state\":\"draining\"")
            .count()
            == 2
    });
    for pid in &old {
        signal(*pid, "CONT");
    }
    for stream in &mut waiting {
        assert_eq!(first_bytes(stream), "HTTP/1.1 200 OK");
    }
    wait_until(20, "the old address is nobody's", || {
        matches!(connect(&place, &site.url), Err(error)
            if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound))
    });
    assert!(!restart.is_over(), "the old worker has still a request");
    place.release("a");
    assert_eq!(first_bytes(&mut held), "HTTP/1.1 200 OK");
    let said = restart.end(20).ok();
    assert!(said.ends_with(" 0 cut\n"), "{said}");
    assert!(old.iter().all(|pid| !is_alive(*pid)));
    let new = Site::after(&said);
    let mut stream = connect(&place, &new.url).unwrap();
    stream.write_all(get("/hello").as_bytes()).unwrap();
    assert_eq!(first_bytes(&mut stream), "HTTP/1.1 200 OK");
}

#[test]
fn who_waits_at_a_port_that_is_left_is_answered() {
    move_away("127.0.0.1:0", "localhost:0");
}

#[test]
fn who_waits_at_a_unix_socket_that_is_left_is_answered() {
    move_away("unix:run/a.sock", "unix:run/b.sock");
}

/// Connects to the address over and over; how many were answered, and each other end that took long or was none.
fn knock(address: String, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut answered, mut hung) = (0, Vec::new());
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let outcome = TcpStream::connect(&address).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(get("/hello").as_bytes())?;
            stream.read(&mut [0; 15])
        });
        match outcome {
            Ok(15) => answered += 1,
            other if begun.elapsed() > PATIENCE / 2 => hung.push(format!("{other:?}")),
            _ => holds_for(1, "", || true),
        }
    }
    (answered, hung)
}

#[test]
fn nobody_hangs_at_an_address_that_is_left_or_comes_back() {
    let place = Place::demo();
    let site = place.start(&["--set", "close_wait=60"]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, stop) = (site.address().to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || knock(address, stop))
        })
        .collect();
    for round in 0..4 {
        let name = format!("{round}");
        let mut held = place.hold(&site, &name);
        let restart = Meanwhile::new(place.command(&["app", "restart", "--address=localhost:0"]));
        wait_until(20, "the old address is nobody's", || {
            matches!(TcpStream::connect(site.address()), Err(error)
                if error.kind() == ErrorKind::ConnectionRefused)
        });
        place.release(&name);
        assert_eq!(held.answer().text(), "held\n");
        restart.end(20).ok();
        place.app(&["restart", "--address", site.address()]).ok();
        place.app(&["restart", "--cold"]).ok();
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let (answered, hung) = client.join().unwrap();
        assert!(answered > 0 && hung.is_empty(), "{answered}, {hung:#?}");
    }
}

#[test]
fn who_has_just_come_when_it_stops_has_a_moment_to_ask() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    freeze(worker);
    let mut silent = site.connect();
    let mut stop = Meanwhile::new(place.command(&["app", "stop"]));
    place.wait_for_log(": leaving");
    assert!(!stop.is_over());
    let begun = Instant::now();
    signal(worker, "CONT");
    assert!(silent.is_closed());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(50), "{took:?}");
    stop.end(20).ok();
}
