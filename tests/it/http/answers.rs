//! Answers that are made or read while they are sent: streams and files, their framing, slow and lost readers, and what
//! is said when they cannot be completed.

use crate::look::{WITHOUT_SENDFILE, status};
use crate::support::{
    Answer, Place, Site, Wire, descriptors, get, has, holds_for, in_time, pattern, run,
    settled_descriptors, threads, wait_until, was_soon,
};
use std::time::Instant;

/// Kilobytes of memory that a process has in use.
fn resident(pid: u32) -> u64 {
    let text = status(pid, "VmRSS");
    text.trim_end_matches(" kB").parse().unwrap()
}

fn handlers(pid: u32) -> usize {
    let threads = threads(pid);
    let handlers = threads
        .iter()
        .filter(|(_, name)| name.starts_with("handler"));
    handlers.count()
}

/// Some answers, quickly, while something else is under way.
#[track_caller]
fn serves_others(site: &Site) {
    let begun = Instant::now();
    let mut wire = site.connect();
    for _ in 0..30 {
        assert_eq!(wire.get("/hello").text(), "Hello, World!");
    }
    was_soon(begun, 5000);
}

/// The head of an answer, whatever comes of its body.
#[track_caller]
fn head_of(wire: &mut Wire) -> Answer {
    wire.answer_without_body()
}

#[test]
fn a_stream_is_framed_as_its_client_understands_it() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    for pieces in [0, 1, 31, 33, 700] {
        let count = pieces * 1000;
        let is_right = |body: &[u8]| body.len() == count && body.iter().all(|byte| *byte == b'p');
        // Without a length: chunked for HTTP/1.1, and up to the end of the connection for HTTP/1.0.
        let answer = wire.get(&format!("/stream?pieces={pieces}"));
        assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!(answer.header("Content-Length"), None);
        assert_eq!(answer.header("Connection"), None);
        assert!(is_right(&answer.body), "{pieces} chunked");
        for keep_alive in ["", "Connection: keep-alive\r\n"] {
            let mut old = site.connect();
            old.send(format!(
                "GET /stream?pieces={pieces} HTTP/1.0\r\n{keep_alive}\r\n"
            ));
            let answer = head_of(&mut old);
            for name in ["Transfer-Encoding", "Content-Length"] {
                assert_eq!(answer.header(name), None, "{pieces}");
            }
            assert_eq!(answer.header("Connection"), Some("close"));
            let (body, in_order) = old.rest();
            assert!(is_right(&body) && in_order, "{pieces} up to the end");
        }
        // With one: the same for both, and both may stay.
        let target = format!("/stream?pieces={pieces}&length={count}");
        let answer = wire.get(&target);
        assert_eq!(answer.header("Transfer-Encoding"), None);
        assert_eq!(answer.header("Content-Length"), Some(&*count.to_string()));
        assert!(is_right(&answer.body), "{pieces} by length");
        let mut old = site.connect();
        for _ in 0..2 {
            old.send(format!(
                "GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ));
            let answer = old.answer();
            assert_eq!(answer.header("Connection"), Some("keep-alive"));
            assert!(is_right(&answer.body), "{pieces} by length for HTTP/1.0");
        }
        assert!(wire.is_quiet() && old.is_quiet());
    }
    // More than was said is not sent.
    let answer = wire.get("/stream?pieces=50&length=1500");
    assert_eq!(answer.body.len(), 1500);
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
}

#[test]
fn heads_of_streams_and_files_are_told_without_the_body() {
    let place = Place::demo();
    let site = place.start(&[]);
    place.write("f", pattern(100_000));
    let mut wire = site.connect();
    for (target, name, value) in [
        ("/stream?pieces=100", "Transfer-Encoding", "chunked"),
        (
            "/stream?pieces=100&length=100000",
            "Content-Length",
            "100000",
        ),
        ("/stream?pieces=3&length=100000", "Content-Length", "100000"),
        ("/stream?pieces=0&fails=1", "Transfer-Encoding", "chunked"),
        ("/file?name=f", "Content-Length", "100000"),
    ] {
        wire.send(format!("HEAD {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = head_of(&mut wire);
        assert_eq!(
            (answer.status, answer.header(name)),
            (200, Some(value)),
            "{target}"
        );
        assert_eq!(answer.header("Connection"), None, "{target}");
        // A body would be taken for this.
        assert_eq!(wire.get("/hello").text(), "Hello, World!", "{target}");
    }
}

#[test]
fn a_stream_that_breaks_off_is_never_taken_for_whole() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.log_level=debug"]);
    let mut broken = 0;
    for target in [
        "/stream?pieces=0&fails=1",
        "/stream?pieces=3&fails=1",
        "/stream?pieces=100&fails=1",
        "/stream?pieces=300&size=30000&fails=1",
        "/stream?pieces=0&length=1",
        "/stream?pieces=3&length=5000",
        "/stream?pieces=300&size=30000&length=9000001",
        "/stream?pieces=3&length=5000&fails=1",
    ] {
        for version in ["1.1\r\nHost: t", "1.0", "1.0\r\nConnection: keep-alive"] {
            let mut wire = site.connect();
            wire.send(format!("GET {target} HTTP/{version}\r\n\r\n"));
            // An end in good order is the end of the body to HTTP/1.0.
            let (bytes, in_order) = wire.rest();
            assert!(!in_order, "{target} {version}: looks complete");
            assert!(!bytes.ends_with(b"\r\n0\r\n\r\n"), "{target} {version}");
            broken += 1;
        }
    }
    wait_until(5, "each is in the log", || {
        place.log().matches(": its answer broke off: ").count() == broken
    });
    assert!(place.log().contains("its answer broke off: asked to fail"));
    assert_eq!(place.fact("in_flight"), "0");
    assert_eq!(site.get("/hello").status, 200);
}

#[test]
fn slow_readers_of_streams_hold_neither_thread_nor_memory() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=1", "--set", "app.io_timeout=300"]);
    let worker = site.worker();
    serves_others(&site);
    // Room that every connection takes the first time, and the allocator's own.
    drop(site.get("/stream?pieces=1000"));
    let before = resident(worker);
    let mut readers: Vec<Wire> = (0..10).map(|_| site.connect()).collect();
    for (number, reader) in readers.iter_mut().enumerate() {
        let length = if number % 2 == 0 {
            ""
        } else {
            "&length=100000000"
        };
        reader.send(get(&format!("/stream?pieces=5000&size=20000{length}")));
        reader.wait_begun();
    }
    serves_others(&site);
    assert_eq!(handlers(worker), 1);
    // What the kernel holds for them is full by now, or soon; then nothing moves.
    let mut last = resident(worker);
    wait_until(10, "nothing grows", || {
        let now = resident(worker);
        let same = now <= last;
        last = now;
        same
    });
    let grown = last.saturating_sub(before);
    assert!(grown < 1000, "{grown} kB more than before");
    serves_others(&site);
    drop(readers);
    wait_until(10, "they are forgotten", || place.fact("in_flight") == "0");
}

#[test]
fn a_file_is_sent_byte_for_byte_to_many_slow_readers_by_no_thread() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.threads=1", "--set", "app.io_timeout=300"]);
    let worker = site.worker();
    let content = pattern(20_000_000);
    place.write("f", &content);
    place.write("empty", "");
    let mut wire = site.connect();
    assert_eq!(
        wire.get("/file?name=empty").header("Content-Length"),
        Some("0")
    );
    assert!(wire.get("/file?name=f").body == content);
    let before = resident(worker);
    let mut readers: Vec<Wire> = (0..20).map(|_| site.connect()).collect();
    for reader in &mut readers {
        reader.send(get("/file?name=f") + &get("/hello"));
        reader.wait_begun();
    }
    serves_others(&site);
    assert_eq!(handlers(worker), 1);
    let grown = resident(worker).saturating_sub(before);
    assert!(grown < 1000, "{grown} kB more than before");
    // A change in place is what a reader gets; what it must not get is a mixture of answers.
    for reader in readers.iter_mut().take(5) {
        assert!(reader.answer().body == content);
        assert_eq!(reader.answer().text(), "Hello, World!");
    }
    assert!(wire.get("/file?name=f").body == content);
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
    let mut old = site.connect();
    old.send("GET /file?name=f HTTP/1.0\r\n\r\n");
    assert!(old.answer().body == content);
    assert!(old.is_closed());
    drop(readers);
    wait_until(10, "they are forgotten", || place.fact("in_flight") == "0");
}

#[test]
fn fifty_megabytes_of_a_file_arrive() {
    let place = Place::demo();
    let site = place.start(&[]);
    let content = pattern(50_000_000);
    place.write("f", &content);
    let mut wire = site.connect();
    let answer = wire.get("/file?name=f");
    assert_eq!(answer.header("Content-Length"), Some("50000000"));
    assert!(answer.body == content);
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
}

/// Some file systems do not know sendfile(2); EINVAL is what they say.
#[test]
fn where_the_kernel_cannot_send_files_they_are_read() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let set = ["--set", "app.threads=1"];
    let command = [&args[..], &set].concat();
    let site = Site::of(&run(&mut place.wrapped(&WITHOUT_SENDFILE, &command)).ok());
    let content = pattern(5_000_000);
    place.write("f", &content);
    let mut slow = site.connect();
    slow.send(get("/file?name=f") + &get("/hello"));
    slow.wait_begun();
    let mut wire = site.connect();
    assert!(wire.get("/file?name=f").body == content);
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
    assert!(slow.answer().body == content);
    assert_eq!(slow.answer().text(), "Hello, World!");
    // One that is cut shorter meanwhile is cut here, too: more of it than the sockets hold.
    let content = pattern(30_000_000);
    place.write("f", &content);
    slow.send(get("/file?name=f"));
    slow.wait_begun();
    let file = std::fs::File::options().write(true).open(place.path("f"));
    file.unwrap().set_len(10).unwrap();
    let (bytes, in_order) = slow.rest();
    assert!(!in_order && bytes.len() < content.len());
}

#[test]
fn a_file_that_is_cut_while_it_is_sent_cuts_the_answer() {
    let place = Place::demo();
    let site = place.start(&[]);
    let content = pattern(30_000_000);
    place.write("f", &content);
    let mut readers: Vec<Wire> = (0..3).map(|_| site.connect()).collect();
    for reader in &mut readers {
        reader.send(get("/file?name=f"));
        reader.wait_begun();
    }
    holds_for(50, "", || true);
    let file = std::fs::File::options().write(true).open(place.path("f"));
    file.unwrap().set_len(1000).unwrap();
    for reader in &mut readers {
        let (bytes, in_order) = reader.rest();
        assert!(!in_order, "it looks complete after {} bytes", bytes.len());
        assert!(bytes.len() < content.len());
    }
    place.wait_for_log(": its answer broke off: the file is shorter than it was");
    wait_until(5, "none is in flight", || place.fact("in_flight") == "0");
    assert_eq!(site.get("/file?name=f").body.len(), 1000);
}

#[test]
fn what_is_no_file_or_an_odd_one_is_answered_or_cut_and_never_hangs() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    // Made as it is read, it says that it is empty.
    let answer = wire.get("/file?name=/proc/version");
    assert_eq!(
        (answer.status, answer.header("Content-Length")),
        (200, Some("0"))
    );
    for name in ["none", "/", "/dev/zero", "/dev/null"] {
        assert_eq!(
            wire.get(&format!("/file?name={name}")).status,
            404,
            "{name}"
        );
    }
    assert_eq!(wire.get("/hello").text(), "Hello, World!");
    // One that says it is longer than it is.
    let odd = "/sys/kernel/uevent_seqnum";
    if std::fs::metadata(odd).is_ok_and(|found| found.len() > 100) {
        let mut wire = site.connect();
        wire.send(get(&format!("/file?name={odd}")));
        let (bytes, in_order) = wire.rest();
        assert!(!in_order && bytes.len() < 1000, "{}", bytes.escape_ascii());
    }
}

const LONG: [&str; 4] = [
    "/bytes?n=30000000",
    "/stream?pieces=1000&size=30000",
    "/stream?pieces=1000&size=30000&length=30000000",
    "/file?name=f",
];

#[test]
fn readers_that_stop_or_drip_are_closed_whatever_they_read() {
    let place = Place::demo();
    let site = place.start(&["--set", "app.io_timeout=1", "--set", "app.threads=4"]);
    let worker = site.worker();
    place.write("f", pattern(30_000_000));
    assert_eq!(site.get("/hello").status, 200);
    let before = settled_descriptors(worker);
    let begin = |target: &&str| {
        let mut wire = site.connect();
        wire.send(get(target));
        wire.wait_begun();
        wire
    };
    let mut stopped: Vec<Wire> = LONG.iter().map(begin).collect();
    let mut dripping: Vec<Wire> = LONG.iter().map(begin).collect();
    // A few bytes now and then are not worth the wait.
    wait_until(30, "all are closed", || {
        for wire in &mut dripping {
            let _ = wire.gulp(1);
        }
        descriptors(worker) <= before
    });
    let refused = place.app(&["state", "--json"]).ok();
    assert!(refused.contains("\"too_slow\":8"), "{refused}");
    assert_eq!(place.fact("in_flight"), "0");
    for wire in stopped.iter_mut().chain(&mut dripping) {
        assert!(wire.rest().0.len() < 30_000_000);
    }
}

/// Whether a client moves is asked of the kernel each time that it takes more; what it has been given meanwhile must not
/// hide what it took.
#[test]
fn readers_that_are_slow_but_steady_get_everything() {
    in_time(5000, || {
        let place = Place::demo();
        let site = place.start(&["--set", "app.io_timeout=5"]);
        place.write("f", pattern(30_000_000));
        let mut readers = LONG.map(|target| {
            let mut wire = site.connect();
            wire.send(get(target));
            (target, wire, 0)
        });
        // Quickly at first, by which the kernel learns to keep much for it.
        for (_, wire, count) in &mut readers {
            while *count < 8_000_000 {
                *count += wire.sip(1_000_000).expect("it has just begun");
            }
        }
        for _ in 0..3 {
            // So much at a time that the other side is told of the room.
            holds_for(2800, "", || true);
            for (target, wire, count) in &mut readers {
                let more = wire.sip(2_000_000).unwrap_or(0);
                assert!(more > 0, "{target} ends after {count} bytes");
                *count += more;
            }
        }
        // The rest in turns, since none of them may wait for the others for long.
        while readers.iter().any(|(_, _, count)| *count < 30_000_000) {
            for (target, wire, count) in &mut readers {
                if *count < 30_000_000 {
                    let more = wire.sip(3_000_000).unwrap_or(0);
                    assert!(more > 0, "{target} ends after {count} bytes");
                    *count += more;
                }
            }
        }
        assert_eq!(place.fact("too_slow"), "0");
    });
}
