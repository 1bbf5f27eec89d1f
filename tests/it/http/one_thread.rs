//! `app.threads = 1` and a client that sends its long body slowly.

use crate::support::{Place, wait_until};

#[test]
fn a_stalled_upload_does_not_block_everybody_else() {
    let place = Place::demo();
    let site = place.start(&["--set", "threads=1", "--set", "io_timeout=300"]);
    let begin = "POST /count HTTP/1.1\r\nHost: t\r\nContent-Length: 150000\r\n\r\n";
    let mut stalled = site.connect();
    stalled.send(begin);
    stalled.send("b".repeat(100_000));
    wait_until(20, "a handler reads", || place.fact("in_flight") == "1");
    for _ in 0..50 {
        assert_eq!(site.get("/hello").text(), "Hello, World!");
    }
    // A second one waits for the first, and blocks nobody either.
    let mut second = site.connect();
    second.send(begin);
    second.send("b".repeat(150_000));
    for _ in 0..50 {
        assert_eq!(site.get("/hello").text(), "Hello, World!");
    }
    assert!(second.is_quiet());
    stalled.send("b".repeat(50_000));
    assert_eq!(stalled.answer().text(), "150000\n");
    assert_eq!(second.answer().text(), "150000\n");
}
