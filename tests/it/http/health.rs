//! `/healthz` is the gate's own answer, unless the application has one.

use crate::support::{Place, Site, get, run, signal};

#[test]
fn busy_handlers_do_not_make_it_unhealthy() {
    let place = Place::demo();
    let site = place.start(&["--set", "threads=1", "--set", "queue=0"]);
    let mut held = place.hold(&site, "a");
    assert_eq!(site.get("/hello").status, 503);
    for _ in 0..3 {
        assert_eq!(place.app(&["state", "--probe"]).ok(), "demo: healthy\n");
    }
    let mut kept = site.connect();
    for _ in 0..3 {
        let answer = kept.get("/healthz");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        assert_eq!(answer.header("Connection"), None);
        kept.send("HEAD /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = kept.answer_without_body();
        assert_eq!(
            (answer.status, answer.header("Content-Length")),
            (200, Some("3"))
        );
        // A body changes nothing.
        kept.send("GET /healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(kept.answer().text(), "ok\n");
    }
    kept.send("GET /healthz HTTP/1.0\r\nHost: t\r\n\r\n");
    let answer = kept.answer();
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(kept.is_closed());
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    assert_eq!(place.fact("in_flight"), "0");
}

#[test]
fn many_at_once_are_answered_in_order() {
    let place = Place::demo();
    let site = place.start(&[]);
    let before = place.count("requests");
    let mut wire = site.connect();
    let mut text = String::new();
    for number in 0..3000 {
        text += &get(if number % 100 == 99 {
            "/hello"
        } else {
            "/healthz"
        });
    }
    let mut writer = wire.stream.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, text.as_bytes()).expect("it goes out");
    });
    for number in 0..3000 {
        let expected = match number % 100 {
            99 => "Hello, World!",
            _ => "ok\n",
        };
        assert_eq!(wire.answer().text(), expected, "{number}");
    }
    sent.join().unwrap();
    assert_eq!(place.count("requests") - before, 3000);
    assert_eq!(place.fact("in_flight"), "0");
}

#[test]
fn an_application_may_have_its_own() {
    let place = Place::demo();
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0", "--set"];
    let mut command = place.command(&[&args[..], &["threads=1", "--set", "queue=0"]].concat());
    let site = Site::of(&run(command.env("DEMO_HEALTH", "1")).ok());
    assert_eq!(site.get("/healthz").text(), "mine\n");
    // It goes through a handler, and there is none.
    let mut held = place.hold(&site, "a");
    let said = place.app(&["state", "--probe"]).failed(1);
    assert!(said.ends_with("/healthz: status 503\n"), "{said}");
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
}

#[test]
fn a_probe_that_is_not_answered_says_so_in_words() {
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = site.worker();
    signal(worker, "STOP");
    let said = place.app(&["state", "--probe"]).failed(1);
    signal(worker, "CONT");
    assert!(
        said.ends_with("/healthz: no answer within 1.9 s\n"),
        "{said}"
    );
    assert_eq!(place.app(&["state", "--probe"]).ok(), "demo: healthy\n");
}

#[test]
fn a_probe_that_cannot_tell_has_failed() {
    let place = Place::demo();
    std::fs::create_dir_all(place.path("run/app.lock")).unwrap();
    place.app(&["state"]).failed(4);
    place.app(&["state", "--probe"]).failed(1);
}
