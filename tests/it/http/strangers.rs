//! What a stranger may send who means no good or knows no better: each of these brings plain tiny_http 0.12 down, wedges
//! it, or fools it. Here it costs an answer and a closed connection; the worker goes on, and nothing of it stays. What
//! strangers do by their number, or by being slow, stands in `crowds.rs`.

use crate::look::status;
use crate::support::was_soon;
use crate::support::{
    Place, Site, Wire, descriptors, get, settled_descriptors, threads, wait_until, worker, workers,
};
use std::time::Instant;

/// Handler threads of a site that strangers come to.
pub const THREADS: usize = 4;

/// A site with few handler threads, and what its worker is and has before anybody comes.
pub struct Besieged {
    pub place: Place,
    pub site: Site,
    pub worker: u32,
    /// Threads that are no handlers.
    pub threads: usize,
    pub descriptors: usize,
    peak: u64,
}

/// A size in kB from `/proc/PID/status`: `VmHWM` is the most memory it ever had, `VmRSS` what it has now.
#[track_caller]
pub fn kilobytes(pid: u32, field: &str) -> u64 {
    let text = status(pid, field);
    let number = text.trim_end_matches(" kB").parse();
    number.unwrap_or_else(|_| panic!("{field}: {text}"))
}

impl Besieged {
    pub fn new() -> Besieged {
        Besieged::with(&[])
    }

    pub fn with(more: &[&str]) -> Besieged {
        let place = Place::demo();
        let threads_setting = format!("app.threads={THREADS}");
        let site = place.start(&[&["--set", &threads_setting], more].concat());
        Besieged::at(place, site)
    }

    pub fn at(place: Place, site: Site) -> Besieged {
        let worker = worker(site.pid);
        assert_eq!(site.get("/hello").status, 200);
        let handlers = handlers(worker);
        Besieged {
            threads: threads(worker).len() - handlers,
            descriptors: settled_descriptors(worker),
            peak: kilobytes(worker, "VmHWM"),
            place,
            site,
            worker,
        }
    }

    /// Others are served, and soon.
    #[track_caller]
    pub fn serves_others(&self) {
        let begun = Instant::now();
        let mut wire = self.site.connect();
        for _ in 0..20 {
            assert_eq!(wire.get("/hello").text(), "Hello, World!");
            assert_eq!(self.site.get("/slow?ms=1").text(), "slow\n");
        }
        was_soon(begun, 5000);
    }

    /// The same worker serves, has no thread and no descriptor more than before, needed no more than this much more
    /// memory at any time, and nothing panicked.
    #[track_caller]
    pub fn unharmed(&self, most_kilobytes: u64) {
        self.serves_others();
        assert_eq!(self.site.get("/pid").text(), self.worker.to_string());
        assert_eq!(workers(self.site.pid), [self.worker]);
        wait_until(10, "every connection is closed", || {
            descriptors(self.worker) <= self.descriptors
        });
        let handlers = handlers(self.worker);
        assert!(handlers <= THREADS, "{handlers} handler threads");
        // A thread that has just started has yet to take its own name.
        wait_until(10, "no thread is left over", || {
            let handlers = crate::http::strangers::handlers(self.worker);
            threads(self.worker).len() - handlers <= self.threads
        });
        let grown = kilobytes(self.worker, "VmHWM") - self.peak;
        assert!(grown < most_kilobytes, "it grew by {grown} kB");
        let log = self.place.log();
        let is_error = |line: &str| line.split(' ').nth(1) == Some("error");
        let bad = log.contains("panic") || log.lines().any(is_error);
        assert!(!bad, "{log}");
    }

    /// A request with more behind it, which must neither be answered nor turn the close into a reset.
    #[track_caller]
    fn refuses(&self, status: u16, request: &[u8]) {
        let shown = request[..request.len().min(120)].escape_ascii();
        let mut wire = self.site.connect();
        wire.send([request, get("/hello").as_bytes()].concat());
        let answer = wire
            .read_answer(true)
            .unwrap_or_else(|why| panic!("\"{shown}\": {why}"));
        assert_eq!(answer.status, status, "\"{shown}\"");
        assert_eq!(answer.header("Connection"), Some("close"), "\"{shown}\"");
        let said = answer.text();
        assert!(
            said.starts_with(&format!("{status} ")),
            "\"{shown}\": {said}"
        );
        assert!(wire.is_closed(), "\"{shown}\"");
    }
}

pub fn handlers(worker: u32) -> usize {
    let named = threads(worker).into_iter();
    named
        .filter(|(_, name)| name.starts_with("handler"))
        .count()
}

#[test]
fn one_announces_a_terabyte() {
    let besieged = Besieged::new();
    for length in [
        "1099511627776",
        "9223372036854775807",
        "18446744073709551615",
    ] {
        for more in ["", "Expect: 100-continue\r\n"] {
            for (path, status) in [("/echo", 413), ("/hello", 405), ("/nowhere", 404)] {
                let mut wire = besieged.site.connect();
                wire.send(format!(
                    "POST {path} HTTP/1.1\r\nHost: t\r\n{more}Content-Length: {length}\r\n\r\nabc"
                ));
                assert_eq!(wire.answer().status, status, "{length} {more}");
                assert!(wire.is_closed());
            }
        }
    }
    for length in ["18446744073709551616", "99999999999999999999999999"] {
        let head = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
        besieged.refuses(400, head.as_bytes());
    }
    let chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    besieged.refuses(413, format!("{chunked}10000000000\r\n").as_bytes());
    besieged.refuses(
        413,
        format!("{chunked}3\r\nabc\r\nffffffffffffffff\r\n").as_bytes(),
    );
    besieged.unharmed(2000);
}

#[test]
fn one_speaks_another_version() {
    let besieged = Besieged::new();
    for version in ["2.0", "3.0", "0.9", "9.9"] {
        let head = format!("GET / HTTP/{version}\r\nHost: t\r\n\r\n");
        besieged.refuses(505, head.as_bytes());
    }
    besieged.refuses(505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    for version in [
        "1", "11", "1.10", "01.1", "1.1 ", "1.1 x", "-1.1", "http/1.1",
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: t\r\n\r\n");
        besieged.refuses(400, head.as_bytes());
    }
    // They stay and never close; the connections go all the same.
    let mut wires: Vec<Wire> = (0..100).map(|_| besieged.site.connect()).collect();
    for wire in &mut wires {
        wire.send("GET / HTTP/2.0\r\nHost: t\r\n\r\n");
        assert_eq!(wire.answer().status, 505);
    }
    besieged.unharmed(2000);
    drop(wires);
}

/// Each is cut off after some kB, and goes on for 64 MB all the same.
#[test]
fn one_sends_a_line_without_end() {
    let besieged = Besieged::new();
    let get = "GET / HTTP/1.1\r\nHost: t\r\n";
    let chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (status, begin, on) in [
        (431, format!("{get}A: "), "a"),
        (431, format!("{get}A:"), " "),
        (431, get.to_owned(), "a"),
        (431, get.to_owned(), "A: b\r\n"),
        (414, "GET /".to_owned(), "a"),
        (414, "GET /?".to_owned(), "%41"),
        (501, String::new(), "A"),
        (400, String::new(), "\r\n"),
        (400, "GET / ".to_owned(), " "),
        (400, chunked.to_owned(), "0"),
        (400, format!("{chunked}1"), " "),
        (400, format!("{chunked}1;"), "a"),
        (400, format!("{chunked}1;a=\""), "b;"),
        (431, format!("{chunked}0\r\nA: "), "a"),
        (431, format!("{chunked}0\r\n"), "A: b\r\n"),
        (413, chunked.to_owned(), "1\r\na\r\n"),
    ] {
        let mut wire = besieged.site.connect();
        wire.send(&begin);
        let piece = on.repeat((1 << 20) / on.len());
        // It does not read before it has sent all it wants.
        for _ in 0..64 {
            wire.try_send(&piece);
        }
        let answer = wire.read_answer(true).unwrap_or_else(|why| {
            panic!("{begin:?} and {on:?} for ever: {why}");
        });
        assert_eq!(answer.status, status, "{begin:?} and {on:?} for ever");
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(wire.is_closed(), "{begin:?} and {on:?} for ever");
    }
    besieged.unharmed(2000);
}

#[test]
fn one_sends_what_can_be_understood_in_two_ways() {
    let besieged = Besieged::new();
    let (get, post) = (
        "GET / HTTP/1.1\r\nHost: t\r\n",
        "POST /echo HTTP/1.1\r\nHost: t\r\n",
    );
    let length = |value: &str| format!("{post}Content-Length:{value}\r\n\r\na");
    let coded = |value: &str| format!("{post}Transfer-Encoding:{value}\r\n\r\n0\r\n\r\n");
    let both = |one: &str, other: &str| format!("{post}{one}\r\n{other}\r\n\r\n0\r\n\r\n");
    let (one, chunked) = ("Content-Length: 1", "Transfer-Encoding: chunked");
    let big = "a".repeat(40_000);
    let many: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    let table: Vec<(u16, String)> = vec![
        (400, length("")),
        (400, length(" +1")),
        (400, length(" -1")),
        (400, length(" 1, 1")),
        (400, length(" 1,2")),
        (400, length(" 0x1")),
        (400, length(" 1 1")),
        (400, length(" 1.0")),
        (400, length(" \u{661}")),
        (400, both(one, one)),
        (400, both(one, "content-length: 2")),
        (400, both(one, chunked)),
        (400, both(chunked, one)),
        (400, both(chunked, chunked)),
        (400, both("Content-Length: 0", chunked)),
        (400, format!("{post}Content-Length : 1\r\n\r\na")),
        (
            400,
            format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ),
        (400, format!("{post}A: b\r\n Content-Length: 1\r\n\r\na")),
        (400, format!("{post}Content-Length:\r\n 1\r\n\r\na")),
        (400, coded(" chunked").replace("1.1", "1.0")),
        (501, coded(" gzip, chunked")),
        (400, coded(" chunked, gzip")),
        (400, coded(" identity")),
        (400, coded(" xchunked")),
        (400, format!("{get}A : b\r\n\r\n")),
        (400, format!("{get}A: b\r\n c\r\n\r\n")),
        (400, format!("{get}A: b\r\n\tc\r\n\r\n")),
        (400, "GET / HTTP/1.1\r\n Host: t\r\n\r\n".into()),
        (400, format!("{get}A: b\0c\r\n\r\n")),
        (400, format!("{get}A: b\rc\r\n\r\n")),
        (400, format!("{get}A: b\nC: d\r\n\r\n")),
        (400, format!("{get}A: b\x7f\r\n\r\n")),
        (400, format!("{get}A\r\n\r\n")),
        (400, format!("{get}: b\r\n\r\n")),
        (400, format!("{get}A(b): c\r\n\r\n")),
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into()),
        (400, format!("{get}Host: t\r\n\r\n")),
        (400, "GET  / HTTP/1.1\r\nHost: t\r\n\r\n".into()),
        (400, "GET /a b HTTP/1.1\r\nHost: t\r\n\r\n".into()),
        (400, "GET / HTTP/1.1 more\r\nHost: t\r\n\r\n".into()),
        (400, "GET /\r\n\r\n".into()),
        (400, "GET hello HTTP/1.1\r\nHost: t\r\n\r\n".into()),
        (400, "GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n".into()),
        (501, "CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n".into()),
        (
            501,
            format!("{} / HTTP/1.1\r\nHost: t\r\n\r\n", "M".repeat(33)),
        ),
        (414, format!("GET /{big} HTTP/1.1\r\nHost: t\r\n\r\n")),
        (431, format!("{get}A: {big}\r\n\r\n")),
        (431, format!("{get}{many}\r\n")),
        (417, format!("{post}Expect: tea\r\n{one}\r\n\r\na")),
    ];
    for (status, request) in &table {
        besieged.refuses(*status, request.as_bytes());
    }
    besieged.unharmed(2000);
}

#[test]
fn one_ends_lines_otherwise_or_writes_other_bytes() {
    let besieged = Besieged::new();
    for request in [
        &b"GET / HTTP/1.1\nHost: t\n\n"[..],
        b"GET / HTTP/1.1\r\nHost: t\n\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n\n",
        b"\nGET / HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET / HTTP/1.1\rHost: t\r\r",
        b"GET /\xe9 HTTP/1.1\r\nHost: t\r\n\r\n",
        b"G\xc9T / HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET / HTTP/1.1\xff\r\nHost: t\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nX\xe9: b\r\n\r\n",
        b"\xff\xff\xff\xff\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0",
        b"\x04\x01\0\x50\x7f\0\0\x01\0",
        b"SSH-2.0-client\r\n",
    ] {
        besieged.refuses(400, request);
    }
    // In a value they are text (RFC 9110 §5.5).
    let mut wire = besieged.site.connect();
    wire.send(b"GET /hello HTTP/1.1\r\nHost: t\r\nX: \xe9\xff\x80\r\n\r\n");
    assert_eq!(wire.answer().text(), "Hello, World!");
    drop(wire);
    besieged.unharmed(2000);
}

#[test]
fn answers_are_framed_so_that_nobody_can_mistake_them() {
    let besieged = Besieged::new();
    let mut wire = besieged.site.connect();
    wire.send("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Content-Length")),
        (204, None)
    );
    for size in [0, 1023, 1024, 32_767, 32_768, 40_000, 1_000_000] {
        let answer = wire.get(&format!("/bytes?n={size}"));
        assert_eq!(answer.header("Content-Length"), Some(&*size.to_string()));
        assert_eq!(answer.header("Transfer-Encoding"), None);
        assert_eq!(answer.header("Connection"), None);
        assert_eq!(answer.body.len(), size);
    }
    for asked in ["close", "Close", "keep-alive, close", "close, x"] {
        let mut wire = besieged.site.connect();
        wire.send(format!(
            "GET /bytes?n=40000 HTTP/1.1\r\nHost: t\r\nConnection: {asked}\r\n\r\n"
        ));
        let answer = wire.answer();
        assert_eq!(answer.header("Connection"), Some("close"), "{asked}");
        assert_eq!(answer.body.len(), 40_000);
        assert!(wire.is_closed(), "{asked}");
    }
    drop(wire);
    besieged.unharmed(4000);
}
