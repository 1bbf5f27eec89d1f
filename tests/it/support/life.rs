//! The whole life of a service, as a kernel or a processor other than this one's would see it: every command, requests,
//! files, a restart under load, a log that is reopened, a worker that dies, the end.

use crate::support::{Hammer, Place, Site, run, signal, wait_until};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// More than goes out at once, and no power of two.
const LARGE: usize = 3_000_001;

/// Lives through it. `before` are words that every command of the program stands behind.
#[track_caller]
pub fn whole_life(program: &Path, before: &[&str], more: &[&str]) {
    let place = Place::of(program);
    place.write("public/hello", "Hello, World!");
    place.write("public/large", vec![b'x'; LARGE]);
    place.write("public/page.html", "<p>A page.");
    place.write("public/huge", "");
    let huge = File::options().write(true).open(place.path("public/huge"));
    huge.unwrap().write_all_at(b"end", (5 << 30) - 2).unwrap();
    let app = |args: &[&str]| run(&mut place.wrapped(before, &[&["app"], args].concat()));

    app(&["check", "--root", "public"]).ok();
    assert_eq!(app(&["state"]).code, Some(3));
    let start = [
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--root",
        "public",
    ];
    let site = Site::of(&app(&[&start[..], more].concat()).ok());
    assert!(app(&["state"]).ok().starts_with("hade: running, pid "));
    assert_eq!(app(&["state", "--probe"]).code, Some(0));
    let second = app(&start);
    assert!(second.failed(1).contains(": already running, pid "));

    let page = site.get("/page.html");
    assert_eq!((page.status, page.text().as_str()), (200, "<p>A page."));
    assert_eq!(site.get("/large").body.len(), LARGE);
    // Beyond what 32 bits count.
    let mut end = site.connect();
    end.send("GET /huge HTTP/1.1\r\nHost: t\r\nRange: bytes=5368709118-5368709120\r\n\r\n");
    let end = end.answer();
    assert_eq!((end.status, end.text().as_str()), (206, "end"));
    assert!(
        end.head.contains("bytes 5368709118-5368709120/5368709121"),
        "{}",
        end.head
    );
    assert_eq!(site.get("/none").status, 404);
    assert_eq!(site.get("/../etc/passwd").status, 404);
    assert_eq!(site.get("/healthz").status, 200);

    let hammer = Hammer::easy(site.address());
    for _ in 0..2 {
        let said = app(&["restart"]).ok();
        assert_eq!(Site::after(&said).pid, site.pid, "{said}");
    }
    signal(site.pid, "HUP");
    let generation = |number: u32| {
        let facts = app(&["state", "--json"]).ok();
        facts.contains(&format!("\"generation\":{number}"))
            && facts.contains("\"restarting\":false")
    };
    wait_until(20, "a third restart", || generation(4));
    let tally = hammer.end();
    assert!(tally.answered > 0);

    std::fs::rename(place.path("run/app.log"), place.path("run/app.log.1")).unwrap();
    signal(site.pid, "USR1");
    place.wait_for_log("log reopened");
    let old = crate::support::worker(site.pid);
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    wait_until(20, "the next one serves", || {
        site.get("/hello").status == 200
    });

    let said = app(&["stop"]).ok();
    assert!(
        said.starts_with(&format!("hade: stopped pid {} ", site.pid)),
        "{said}"
    );
    place.wait_empty(20);
    assert_eq!(app(&["stop"]).code, Some(0));
    let log = place.read("run/app.log.1") + &place.log();
    assert!(!log.contains("panic"), "{log}");
}
