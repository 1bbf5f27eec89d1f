//! Behind proxies: who asks is whom those name that are trusted, and nobody else's word counts.

use crate::support::{Place, Wire, get};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// A request for the address of who asks, with these fields before the others.
fn asking(fields: &str) -> String {
    get("/client").replacen("\r\n", &format!("\r\n{fields}"), 1)
}

#[test]
fn the_client_is_whom_a_trusted_proxy_names() {
    let place = Place::demo();
    place.write(
        "etc/app.conf",
        "app.trusted_proxies = 127.0.0.0/8, 10.0.0.0/8\n",
    );
    let mut wire = place.start(&[]).connect();
    for (fields, expected) in [
        ("", "127.0.0.1\n"),
        ("X-Forwarded-For: 203.0.113.5\r\n", "203.0.113.5\n"),
        // Kept alive, for somebody else.
        (
            "x-forwarded-for: 198.51.100.1, 203.0.113.6\r\n",
            "203.0.113.6\n",
        ),
        (
            "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 10.1.1.1, 10.2.2.2\r\n",
            "203.0.113.7\n",
        ),
        ("X-Forwarded-For: 203.0.113.7, nobody\r\n", "127.0.0.1\n"),
        ("", "127.0.0.1\n"),
    ] {
        wire.send(asking(fields));
        assert_eq!(wire.answer().text(), expected, "{fields}");
    }
}

#[test]
fn by_default_nobody_is_believed() {
    let place = Place::demo();
    let mut wire = place.start(&[]).connect();
    wire.send(asking("X-Forwarded-For: 203.0.113.5\r\n"));
    assert_eq!(wire.answer().text(), "127.0.0.1\n");
}

#[test]
fn a_proxy_at_the_unix_socket_is_believed_where_it_is_named() {
    for (trusted, expected) in [("", "nobody knows\n"), ("unix", "203.0.113.5\n")] {
        let place = Place::demo();
        let set = format!("trusted_proxies={trusted}");
        let args = [
            "start",
            "-d",
            "--address",
            "unix:run/http.sock",
            "--set",
            &set,
        ];
        place.app(&args).ok();
        let mut stream = UnixStream::connect(place.path("run/http.sock")).unwrap();
        let request = asking("Connection: close\r\nX-Forwarded-For: 203.0.113.5\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(expected), "{trusted}: {answer}");
    }
}

#[test]
fn the_log_names_the_client_and_the_proxy() {
    let place = Place::demo();
    let site = place.start(&["--set", "trusted_proxies=127.0.0.1"]);
    let mut wire = site.connect();
    wire.send(asking("X-Forwarded-For: 203.0.113.5\r\n"));
    assert_eq!(wire.answer().text(), "203.0.113.5\n");
    // Too large a body is refused by its head: for the one who asks now.
    wire.send("POST /small HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.6\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(wire.answer().status, 413);
    place.wait_for_log("203.0.113.6 by way of 127.0.0.1:");
    // Of a head that cannot be read only the peer is known, and not the client of before.
    let mut wire = site.connect();
    wire.send(asking("X-Forwarded-For: 203.0.113.7\r\n"));
    assert_eq!(wire.answer().text(), "203.0.113.7\n");
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For : 203.0.113.7\r\n\r\n");
    assert_eq!(wire.answer().status, 400);
    place.wait_for_log("refused with 400");
    let log = place.log();
    let line = log
        .lines()
        .find(|line| line.contains("refused with 400"))
        .unwrap();
    assert!(line.contains(" 127.0.0.1:"), "{line}");
}

#[test]
fn a_trusted_proxy_may_have_any_number_of_connections() {
    let with = |more: &[&str]| {
        let place = Place::demo();
        let set = ["--set", "max_per_address=2"];
        let site = place.start(&[&set, more].concat());
        let mut wires: Vec<Wire> = (0..4).map(|_| site.connect()).collect();
        let statuses = wires.iter_mut().map(|wire| {
            wire.send(get("/hello"));
            wire.answer().status
        });
        statuses.collect::<Vec<u16>>()
    };
    assert_eq!(with(&["--set", "trusted_proxies=127.0.0.1"]), [200; 4]);
    assert_eq!(
        with(&["--set", "trusted_proxies=127.0.0.2"]),
        [200, 200, 429, 429]
    );
}

#[test]
fn networks_that_are_none_are_refused_by_every_command() {
    let place = Place::new();
    place.write("etc/app.conf", "app.trusted_proxies = 10.0.0.1/8\n");
    for command in ["check", "start"] {
        let said = place.app(&[command]).failed(1);
        assert!(
            said.contains("etc/app.conf:1: app.trusted_proxies \"10.0.0.1/8\"")
                && said.contains("did you mean \"10.0.0.0/8\""),
            "{said}"
        );
    }
    place.write("etc/app.conf", "");
    let mut command = place.command(&["app", "check", "--set", "trusted_proxies=here"]);
    let said = crate::support::run(&mut command);
    assert_eq!(said.code, Some(2), "{}", said.err);
    let mut command = place.command(&["app", "check"]);
    command.env("APP_TRUSTED_PROXIES", "::1,127.0.0.1,unix");
    crate::support::run(&mut command).ok();
}
