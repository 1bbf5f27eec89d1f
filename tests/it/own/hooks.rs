//! Hooks apply to every answer of their paths: handlers, files, 404, 405, 413 and 500. Errors are logged and not shown.

use crate::support::{Answer, Place, Site, Wire, get, run, wait_until};

const LOGIN: &str = "Authorization: Basic dW1hOnNlY3JldA==\r\n";

/// A demo whose every page asks for a password, with files below `/site`.
fn guarded() -> (Place, Site) {
    let place = Place::demo();
    place.write("site/a.txt", "a file\n");
    let mut command = place.command(&["app", "start", "-d", "--address", "127.0.0.1:0"]);
    command.env("DEMO_HOOKS", "1").env("DEMO_FILES", "site");
    let site = Site::of(&run(&mut command).ok());
    (place, site)
}

fn ask(wire: &mut Wire, line: &str, fields: &str) -> Answer {
    wire.send(format!("{line} HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
    match line == "OPTIONS /hello" && fields == LOGIN {
        true => wire.answer_without_body(),
        false => wire.answer(),
    }
}

#[test]
fn no_page_file_or_error_gets_by_them() {
    let (place, site) = guarded();
    let mut wire = site.connect();
    // In the kernel's cache, where the gate could answer by itself.
    for _ in 0..3 {
        let answer = ask(&mut wire, "GET /site/a.txt", LOGIN);
        assert_eq!((answer.status, answer.text().as_str()), (200, "a file\n"));
        assert_eq!(answer.header("X-Hook"), Some("was here"));
    }
    let wrong = "Authorization: Basic dW1hOndyb25n\r\n";
    for line in [
        "GET /site/a.txt",
        "GET /site/%61.txt",
        "GET /site",
        "GET /hello",
        "GET /none",
        "POST /hello",
        "OPTIONS *",
        "OPTIONS /hello",
        "BREW /hello",
        "GET /panic",
    ] {
        for fields in ["", wrong] {
            let answer = ask(&mut wire, line, fields);
            assert_eq!(answer.status, 401, "{line}");
            assert_eq!(answer.header("X-Hook"), Some("was here"), "{line}");
            let asked = answer.header("WWW-Authenticate").unwrap();
            assert_eq!(asked, "Basic realm=\"the demo\", charset=\"UTF-8\"");
        }
    }
    for (line, fields, status) in [
        ("GET /hello", "", 200),
        ("GET /none", "", 404),
        ("POST /hello", "Content-Length: 0\r\n", 405),
        ("OPTIONS /hello", "", 204),
        ("BREW /hello", "", 501),
        ("GET /panic", "", 500),
        ("GET /site/none", "", 404),
        ("POST /small", "Content-Length: 11\r\n", 413),
    ] {
        let mut wire = site.connect();
        let answer = ask(&mut wire, line, &format!("{LOGIN}{fields}"));
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.header("X-Hook"), Some("was here"), "{line}");
        // A body that nobody reads costs the connection.
        assert!(status != 413 || wire.is_closed());
    }
    // hade's own.
    let health = ask(&mut wire, "GET /healthz", "");
    assert_eq!((health.status, health.header("X-Hook")), (200, None));
    assert!(place.app(&["state"]).ok().contains("1 too large"));
}

#[test]
fn a_body_that_is_too_long_in_its_middle_goes_through_them_too() {
    let (_place, site) = guarded();
    let mut wire = site.connect();
    wire.send(format!(
        "POST /small HTTP/1.1\r\nHost: t\r\n{LOGIN}Transfer-Encoding: chunked\r\n\r\n14\r\n{}",
        "x".repeat(20)
    ));
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("X-Hook")),
        (413, Some("was here"))
    );
    assert!(wire.is_closed());
}

#[test]
fn what_a_handler_fails_with_is_logged_and_not_shown() {
    let place = Place::demo();
    let site = place.start(&[]);
    let answer = site.get("/fails");
    let shown = "500 Internal Server Error: this page failed\n";
    assert_eq!((answer.status, answer.text().as_str()), (500, shown));
    place.wait_for_log("error ");
    let log = place.log();
    let words = "GET /fails: No such file or directory (os error 2)\n";
    assert!(log.contains(words), "{log}");
}

#[test]
fn parameters_come_out_of_the_path() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    for (target, status, text) in [
        ("/items/7", 200, "item 7\n"),
        ("/items/%37?x=1", 200, "item 7\n"),
        ("/items/seven", 404, "404 Not Found: no such page\n"),
        ("/items/7/", 404, "404 Not Found: no such page\n"),
        ("/items/", 404, "404 Not Found: no such page\n"),
    ] {
        let answer = wire.get(target);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, text),
            "{target}"
        );
    }
    wire.send("DELETE /items/7 HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Allow")),
        (405, Some("GET, HEAD"))
    );
}

#[test]
fn a_handler_sees_that_its_client_is_gone() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    // And one that has asked for more before it went.
    wire.send(get("/gone") + &get("/hello"));
    wait_until(20, "the handler is at work", || {
        place.path("gone.held").exists()
    });
    assert!(!place.path("gone.seen").exists());
    drop(wire);
    wait_until(20, "it sees that", || place.path("gone.seen").exists());
}
