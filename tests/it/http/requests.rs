//! Every raw request of `tests/fixtures/requests.txt`: in one piece, byte by byte and cut in two at every place, each
//! on a connection of its own; and the same table against nginx. The format is explained in that file.

use crate::look::own_address;
use crate::support::{Meanwhile, Place, Site, Wire, get, has, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const THREADS: usize = 4;
/// Longest body, for both servers.
const MAX_BODY: usize = 1000;
/// A long input is cut at the places near its start and near its end alone.
const NEAR_START: usize = 160;
const NEAR_END: usize = 60;
/// What `Wire` says of a connection that ended in good order behind the last answer.
const ENDED: &str = "the connection ended after \"\"";

struct Case {
    name: String,
    /// What is sent; before each piece but the first the client waits for a 100.
    pieces: Vec<Vec<u8>>,
    hade: Outcome,
    /// Where it is not the same; several where versions differ.
    nginx: Vec<Outcome>,
    because: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    answers: Vec<Expected>,
    fate: Fate,
}

#[derive(Debug, Clone, PartialEq)]
struct Expected {
    /// 0 for bytes without a status line.
    status: u16,
    body: Option<Vec<u8>>,
    /// An answer to HEAD.
    without_body: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Kept,
    Closed,
    Waits,
}

/// How the bytes of a case are given to the server.
#[derive(Debug, Clone, Copy)]
enum How {
    Whole,
    Dripped,
    Cut(usize),
}

// The table.

/// Bytes by their readable form.
fn bytes(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let out = sequence(&mut rest);
    assert!(rest.is_empty(), "a brace too many in {text}");
    out
}

/// Reads up to the end, or up to a brace that was not opened here.
fn sequence(rest: &mut &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = match rest {
            [] | [b'}', ..] => return out,
            [byte, after @ ..] => {
                *rest = after;
                *byte
            }
        };
        match byte {
            b'\\' => out.push(escape(rest)),
            b'{' => out.extend(braces(rest)),
            plain => out.push(plain),
        }
    }
}

fn escape(rest: &mut &[u8]) -> u8 {
    let (byte, length) = match rest {
        [b'r', ..] => (b'\r', 1),
        [b'n', ..] => (b'\n', 1),
        [b't', ..] => (b'\t', 1),
        [b'\\', ..] => (b'\\', 1),
        [b'x', high, low, ..] => {
            let digits = [*high, *low];
            let digits = std::str::from_utf8(&digits).unwrap();
            (u8::from_str_radix(digits, 16).expect("two digits"), 3)
        }
        _ => panic!("not an escape: \\{}", rest.escape_ascii()),
    };
    *rest = &rest[length..];
    byte
}

/// What stands for the words or the repetition behind an open brace.
fn braces(rest: &mut &[u8]) -> Vec<u8> {
    let words = [
        ("get}", "GET /hello HTTP/1.1\r\nHost: h\r\n"),
        ("post}", "POST /echo HTTP/1.1\r\nHost: h\r\n"),
        (
            "chunked}",
            "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n",
        ),
    ];
    for (word, meaning) in words {
        if let Some(after) = rest.strip_prefix(word.as_bytes()) {
            *rest = after;
            return meaning.into();
        }
    }
    let inner = sequence(rest);
    let star = inner.iter().rposition(|byte| *byte == b'*').expect("X*N");
    let times = std::str::from_utf8(&inner[star + 1..]).unwrap();
    *rest = rest.strip_prefix(b"}").expect("a closing brace");
    inner[..star].repeat(times.parse().expect("a number"))
}

impl Outcome {
    fn of(text: &str) -> Outcome {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let fate = match words.pop() {
            Some("kept") => Fate::Kept,
            Some("closed") => Fate::Closed,
            Some("waits") => Fate::Waits,
            _ => panic!("no fate in {text:?}"),
        };
        let answers = words.into_iter().map(|word| {
            let (status, body) = match word.split_once('=') {
                Some((status, body)) => (status, Some(bytes(body))),
                None => (word, None),
            };
            let bare = status.trim_end_matches('-');
            Expected {
                status: match bare {
                    "bare" => 0,
                    digits => digits.parse().expect("a status"),
                },
                body,
                without_body: bare != status,
            }
        });
        Outcome {
            answers: answers.collect(),
            fate,
        }
    }
}

fn table() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/requests.txt");
    let text = fs::read_to_string(path).expect("the table");
    let mut cases: Vec<Case> = Vec::new();
    let (mut sent, mut names) = (String::new(), BTreeSet::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, cases.last_mut()) {
            ("" | "#" | "==", _) => {}
            ("case", _) => {
                assert!(names.insert(rest.to_owned()), "two cases {rest:?}");
                sent.clear();
                cases.push(Case {
                    name: rest.to_owned(),
                    pieces: Vec::new(),
                    hade: Outcome::of("waits"),
                    nginx: Vec::new(),
                    because: String::new(),
                });
            }
            ("send", Some(case)) => {
                sent += rest;
                case.pieces = sent.split("{100}").map(bytes).collect();
            }
            ("hade", Some(case)) => case.hade = Outcome::of(rest),
            ("nginx", Some(case)) => case.nginx = rest.split(" or ").map(Outcome::of).collect(),
            ("because", Some(case)) => case.because = format!("{} {rest}", case.because),
            _ => panic!("requests.txt:{}: {line}", index + 1),
        }
    }
    for case in &cases {
        let name = &case.name;
        assert!(!case.pieces.is_empty(), "{name}: nothing is sent");
        assert_eq!(
            case.nginx.is_empty(),
            case.because.is_empty(),
            "{name}: nginx needs a because, and the other way round"
        );
        let same = std::slice::from_ref(&case.hade);
        assert_ne!(case.nginx, same, "{name}: no difference");
    }
    cases
}

// One case on one connection.

/// What came back: the answers, the last one's fate and how the connection ended.
struct Seen {
    answers: Vec<(u16, Vec<u8>)>,
    says_close: bool,
    kept: bool,
    end: String,
}

impl Seen {
    fn is(&self, expected: &Outcome) -> bool {
        let fits = |(seen, wanted): (&(u16, Vec<u8>), &Expected)| {
            seen.0 == wanted.status && wanted.body.as_ref().is_none_or(|body| *body == seen.1)
        };
        self.answers.len() == expected.answers.len()
            && self.kept == (expected.fate == Fate::Kept)
            && self.answers.iter().zip(&expected.answers).all(fits)
    }

    /// In the words of the table.
    fn told(&self) -> String {
        let mut text = String::new();
        for (status, body) in &self.answers {
            let body = &body[..body.len().min(60)];
            text += &format!("{status}={} ", body.escape_ascii());
        }
        let fate = if self.kept { "kept" } else { "closed" };
        format!("{text}{fate} ({})", self.end)
    }
}

/// Where an input of this length is cut.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (1..length).filter(move |at| *at <= NEAR_START || *at + NEAR_END >= length)
}

fn parts(piece: &[u8], how: How) -> Vec<&[u8]> {
    let mut ends: Vec<usize> = match how {
        How::Whole => Vec::new(),
        How::Dripped => cuts(piece.len()).collect(),
        How::Cut(at) => vec![at],
    };
    ends.push(piece.len());
    let starts = std::iter::once(0).chain(ends.clone());
    starts
        .zip(ends)
        .map(|(from, to)| &piece[from..to])
        .collect()
}

/// Plays a case, and behind it one more request, the last on its connection, whose answer has the body `mark`.
/// `between` is called between any two parts.
fn play(
    mut wire: Wire,
    case: &Case,
    expected: &Outcome,
    how: How,
    mark: &str,
    mut between: impl FnMut(),
) -> Seen {
    let probe = b"GET /pid HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let mut seen = Seen {
        answers: Vec::new(),
        says_close: false,
        kept: false,
        end: String::new(),
    };
    for (index, piece) in case.pieces.iter().enumerate() {
        let is_last = index + 1 == case.pieces.len();
        let parts = parts(piece, how);
        for part in &parts[..parts.len() - 1] {
            wire.try_send(part);
            between();
        }
        let mut part = parts[parts.len() - 1].to_vec();
        if is_last && matches!(how, How::Whole) && expected.fate != Fate::Waits {
            // In one write with what came before, where it would be met by whoever lost count.
            part.extend_from_slice(probe);
        }
        wire.try_send(part);
        if !is_last {
            // Answers to what is complete come before the next 100.
            loop {
                match wire.read_answer(true) {
                    Ok(answer) => seen.answers.push((answer.status, answer.body)),
                    Err(why) => {
                        seen.end = why;
                        return seen;
                    }
                }
                if seen.answers.last().is_some_and(|answer| answer.0 == 100) {
                    break;
                }
            }
            continue;
        }
        match (expected.fate, how) {
            (Fate::Waits, _) => drop(wire.stream.shutdown(Shutdown::Write)),
            (_, How::Whole) => {}
            _ => wire.try_send(probe),
        }
    }
    let lists_interim = case.pieces.len() > 1;
    seen.end = loop {
        let wanted = expected.answers.get(seen.answers.len());
        match wire.read_answer(!wanted.is_some_and(|wanted| wanted.without_body)) {
            Ok(answer) if answer.status < 200 && !lists_interim => {}
            Ok(answer) => {
                seen.says_close = answer.header("Connection") == Some("close");
                seen.answers.push((answer.status, answer.body));
            }
            Err(why) => break why,
        }
    };
    if expected.fate != Fate::Waits {
        let probed = seen.answers.last();
        seen.kept = probed.is_some_and(|(status, body)| *status == 200 && body == mark.as_bytes());
        seen.answers
            .truncate(seen.answers.len() - usize::from(seen.kept));
    }
    seen
}

/// Has each case worked on by one of a few threads; what they found wrong.
fn each(cases: &[Case], work: impl Fn(&Case, &mut Vec<String>) + Sync) -> Vec<String> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut wrong = Vec::new();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(case, &mut wrong);
                }
                found.lock().unwrap().append(&mut wrong);
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn the_table_is_large_and_its_bytes_are_read_right() {
    let cases = table();
    assert!(cases.len() >= 170, "{} cases", cases.len());
    assert_eq!(bytes(r"a\r\n\t\\\x7b\xff"), b"a\r\n\t\\{\xff");
    assert_eq!(bytes("-{ab*2}{{x*2}y*2}{z*0}*"), b"-ababxxyxxy*");
    assert_eq!(bytes("{get}").len(), 30);
    let outcome = Outcome::of("200=a\\x20b 404- closed");
    assert_eq!(outcome.answers[0].body.as_deref(), Some(&b"a b"[..]));
    assert!(outcome.answers[1].without_body && outcome.fate == Fate::Closed);
    let shown = parts(b"abcd", How::Dripped);
    assert_eq!(shown, [b"a", b"b", b"c", b"d"]);
    assert_eq!(parts(b"abcd", How::Cut(1)), [&b"a"[..], b"bcd"]);
}

#[test]
fn hade_answers_every_request_of_the_table_as_the_rfc_asks() {
    let place = Place::demo();
    let max_body = format!("app.max_body={MAX_BODY}");
    let site = place.start(&["--set", &max_body]);
    let (worker, cases) = (site.worker(), table());
    let wrong = each(&cases, |case, wrong| {
        let cut = cuts(case.pieces[0].len()).map(How::Cut);
        let cut = cut.filter(|_| case.pieces.len() == 1);
        let mut pacer = site.connect();
        // Each is opened before the one ahead of it is played, so it is accepted when its turn comes: otherwise the
        // server could meet both parts of a cut at once.
        let mut next = site.connect();
        pacer.get("/hello");
        for how in [How::Whole, How::Dripped].into_iter().chain(cut) {
            let wire = std::mem::replace(&mut next, site.connect());
            if let Err(why) = try_hade(wire, worker, case, how, &mut pacer) {
                // The other cuts would most likely say the same.
                return wrong.push(format!("{}, {how:?}: {why}", case.name));
            }
        }
        assert_eq!(site.get("/hello").status, 200, "after {}", case.name);
    });
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    assert_eq!(site.worker(), worker, "the same worker to the end");
    let log = place.log();
    let as_root = "workers run as root; with app.user they would not";
    let mut lines = log.lines().filter(|line| !line.ends_with(as_root));
    assert!(lines.all(|line| line.contains("Z info ")), "{log}");
}

fn try_hade(
    wire: Wire,
    worker: u32,
    case: &Case,
    how: How,
    pacer: &mut Wire,
) -> Result<(), String> {
    // One thread of the server takes care of all connections, in the order in which something comes: with this
    // answered, it has accepted and read what came before.
    let mut answered = || {
        pacer.send(get("/hello"));
        pacer.answer().status == 200
    };
    let mut serves = true;
    let mark = worker.to_string();
    let seen = play(wire, case, &case.hade, how, &mark, || {
        serves &= answered();
    });
    let told = seen.told();
    if !serves {
        return Err(format!("it no longer answers others: {told}"));
    }
    if !seen.is(&case.hade) {
        return Err(told);
    }
    if seen.end != ENDED {
        return Err(format!("the connection does not end in good order: {told}"));
    }
    // RFC 9112 §9.6: who is going to close says so in the last answer.
    if case.hade.fate == Fate::Closed && !seen.says_close {
        return Err(format!("closed without a word: {told}"));
    }
    Ok(())
}

/// A real nginx on an address of its own. It answers /hello itself, so that what it thinks of the fields is its own
/// opinion, and gives bodies on without them, so that hade behind it never sees what it would refuse.
fn nginx(place: &Place, hade: &Site, address: &str) -> Meanwhile {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {name};\n"))
        .collect();
    let echo = hade.url.clone() + "/echo";
    let text = format!(
        r#"daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ worker_connections 256; }}
http {{
access_log off;
{temporary}
client_header_buffer_size 1k;
large_client_header_buffers 4 32k;
client_max_body_size {MAX_BODY};
lingering_timeout 1s;
map $request_method $reads {{ GET 1; HEAD 1; }}
server {{
    listen {address};
    location / {{ return 404; }}
    location = /hello {{
        if ($reads = "") {{ return 405; }}
        return 200 "Hello, World!";
    }}
    location = /echo {{
        if ($request_method != POST) {{ return 405; }}
        proxy_pass_request_headers off;
        proxy_pass {echo};
    }}
    location = /pid {{ return 200 "nginx"; }}
}}
}}
"#
    );
    place.write("nginx.conf", text);
    let mut command = std::process::Command::new("nginx");
    command.arg("-p").arg(&place.dir).arg("-c");
    command.arg(place.path("nginx.conf"));
    // Without it the log compiled in is opened before the configuration is read.
    command.args(["-e", "error.log"]).current_dir(&place.dir);
    let mut running = Meanwhile::new(command);
    wait_until(10, "nginx listens", || {
        running.is_over() || TcpStream::connect(address).is_ok()
    });
    if running.is_over() {
        panic!("nginx does not run: {:?}", running.end(1));
    }
    running
}

#[test]
fn nginx_differs_from_hade_where_the_table_says_so_and_nowhere_else() {
    if !has("nginx") {
        return;
    }
    let place = Place::demo();
    let (site, address) = (place.start(&[]), own_address());
    let _running = nginx(&place, &site, &address);
    let cases = table();
    let wrong = each(&cases, |case, wrong| {
        let may = match case.nginx.as_slice() {
            [] => std::slice::from_ref(&case.hade),
            noted => noted,
        };
        let mut told = String::new();
        let noted = may.iter().any(|expected| {
            let wire = Wire::to(&address);
            let mut seen = play(wire, case, expected, How::Whole, "nginx", || {});
            // HTTP/0.9 has no heads. What nginx does not read turns its close into a reset.
            let bare = seen.end.contains("after \"Hello, World!");
            if bare {
                seen.answers.push((0, Vec::new()));
            }
            told = seen.told();
            let ended = bare || seen.end == ENDED || seen.end.contains("reset");
            ended && seen.is(expected)
        });
        if !noted {
            wrong.push(format!("{}: {told}", case.name));
        }
    });
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}
