//! The examples, as their users run them.

use crate::support::{HADE, Place, Wire, has, run, skip, wait_until};
use std::path::Path;

fn example(name: &str) -> Place {
    let path = Path::new(HADE).with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: \"cargo build --examples\" makes it",
        path.display()
    );
    Place::of(&path)
}

#[test]
fn notes_outlive_a_restart() {
    let place = example("notes");
    let site = place.start(&["--set", "workers=2"]);
    let mut wire = site.connect();
    for number in 1..=5 {
        let body = format!("{{\"text\": \"note {number}\"}}");
        let length = body.len();
        wire.send(format!(
            "POST /notes HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let answer = wire.answer();
        let location = format!("/notes/{number}");
        assert_eq!(
            (answer.status, answer.header("Location")),
            (201, Some(location.as_str()))
        );
    }
    place.app(&["restart"]).ok();
    let answer = site.get("/notes/3");
    assert_eq!(answer.text(), "{\"id\":3,\"text\":\"note 3\"}");
    assert_eq!(site.get("/notes").text().matches("\"id\"").count(), 5);
    for (target, status, text) in [
        ("/notes/9", 404, "{\"error\":\"no such note\"}"),
        ("/notes/x", 404, "{\"error\":\"no such page\"}"),
        ("/none", 404, "{\"error\":\"no such page\"}"),
    ] {
        let answer = site.get(target);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, text),
            "{target}"
        );
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
    }
}

/// Sends firmware; what is said of it.
fn put(wire: &mut Wire, token: &str, digest: &str, body: &[u8]) -> (u16, String) {
    wire.send(format!(
        "PUT /firmware HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\nDigest: {digest}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    wire.try_send(body);
    let answer = wire.answer();
    (answer.status, answer.text())
}

#[test]
fn firmware_counts_only_if_it_is_what_was_meant() {
    if !has("sha256sum") {
        return skip("needs sha256sum");
    }
    let place = example("firmware");
    let refused = place
        .app(&["start", "-d", "--address", "127.0.0.1:0"])
        .failed(1);
    assert!(
        refused.contains("start it with --set token=SECRET"),
        "{refused}"
    );
    let mut command = place.command(&["app", "start", "-d", "--address", "127.0.0.1:0"]);
    let site = crate::support::Site::of(&run(command.env("TOKEN", "s3cret")).ok());
    assert_eq!(site.get("/firmware").status, 404);
    let image: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    place.write("image", &image);
    let digest = place
        .sh("sha256sum image | cut -c-64", &[])
        .trim()
        .to_owned();
    let (status, _) = put(&mut site.connect(), "wrong", &digest, &image);
    assert_eq!(status, 401);
    let (status, _) = put(&mut site.connect(), "s3cret", &"0".repeat(64), &image);
    assert_eq!((status, site.get("/firmware").status), (422, 404));
    let (status, said) = put(&mut site.connect(), "s3cret", &digest, &image);
    assert_eq!(
        (status, said.as_str()),
        (200, "3000000 bytes in slot b, used from the next boot on\n")
    );
    assert_eq!(site.get("/firmware").body, image);
    let mut wire = site.connect();
    wire.send("GET /firmware HTTP/1.1\r\nHost: t\r\nRange: bytes=2999990-\r\n\r\n");
    let part = wire.answer();
    assert_eq!((part.status, &part.body[..]), (206, &image[2_999_990..]));
    assert_eq!(
        part.header("Content-Range"),
        Some("bytes 2999990-2999999/3000000")
    );
    let tag = part.header("ETag").unwrap().to_owned();
    wire.send(format!(
        "GET /firmware HTTP/1.1\r\nHost: t\r\nIf-None-Match: {tag}\r\n\r\n"
    ));
    assert_eq!(wire.answer_without_body().status, 304);
    // The next one goes to the other slot, and a shorter one leaves nothing of what was there.
    place.write("image", "short");
    let digest = place
        .sh("sha256sum image | cut -c-64", &[])
        .trim()
        .to_owned();
    let (_, said) = put(&mut site.connect(), "s3cret", &digest, b"short");
    assert_eq!(said, "5 bytes in slot a, used from the next boot on\n");
    assert_eq!(site.get("/firmware").text(), "short");
    assert!(site.get("/").text().contains("upload.onprogress"));
}

#[test]
fn live_says_what_is_said_and_ends_by_itself() {
    let place = example("live");
    let site = place.start(&["--set", "close_wait=60"]);
    let mut wire = site.connect();
    wire.send("GET /events HTTP/1.1\r\nHost: t\r\n\r\n");
    wire.wait_begun();
    let mut other = site.connect();
    other.send("POST /say HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(other.answer().status, 202);
    let mut clock = site.connect();
    clock.send("GET /events HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until(20, "it says the time", || {
        let heard = clock.gulp(1000).unwrap_or_default();
        String::from_utf8_lossy(&heard).contains("event: time\ndata: ")
    });
    drop(clock);
    let said = place.app(&["restart"]).ok();
    assert!(said.ends_with(" 0 cut\n"), "{said}");
    let text = wire.answer().text();
    assert!(text.contains("event: said\ndata: hello\n\n"), "{text}");
    assert_eq!(wire.get("/").status, 200);
}

#[test]
fn health_goes_through_a_handler() {
    let place = example("health");
    let site = place.start(&[]);
    assert_eq!(place.app(&["state", "--probe"]).ok(), "health: healthy\n");
    std::fs::remove_dir(place.path("data")).unwrap();
    assert_eq!(site.get("/healthz").status, 503);
    place.app(&["state", "--probe"]).failed(1);
    std::fs::create_dir(place.path("data")).unwrap();
    wait_until(20, "it is healthy again", || {
        site.get("/healthz").status == 200
    });
}
