//! Every rule of the head from both sides, at every byte.
#![forbid(unsafe_code)]

use super::*;
use crate::http::{accept, body, conditions, head, target};

/// Here and not beside `body.rs` or in `tests/it`, since the parsers are private and the fuzzer shares the file.
#[path = "../../../tests/properties/mod.rs"]
mod properties;

type Outcome = Result<Option<Head>, Refusal>;

const ROOMY: Limits = Limits {
    line: 8192,
    head: 32768,
};

fn limits(line: usize, head: usize) -> Limits {
    Limits { line, head }
}

/// What comes of an input that arrives up to each of `cuts` in turn.
fn fed(input: &[u8], limits: &Limits, cuts: impl IntoIterator<Item = usize>) -> Outcome {
    let mut parser = Parser::new();
    for cut in cuts {
        match parser.advance(&input[..cut], limits) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    Ok(None)
}

fn whole(input: &[u8], limits: &Limits) -> Outcome {
    fed(input, limits, [input.len()])
}

/// What comes of an input; the same must come of it in two pieces, wherever cut, and byte by byte.
fn outcome(input: &[u8], limits: &Limits) -> Outcome {
    let (all, shown) = (input.len(), input.escape_ascii());
    let expected = whole(input, limits);
    for cut in 0..=all {
        assert_eq!(
            fed(input, limits, [cut, all]),
            expected,
            "{shown} cut at {cut}"
        );
        if let Ok(Some(head)) = &expected {
            let early = whole(&input[..cut], limits);
            assert_eq!(
                early.is_ok_and(|early| early.is_none()),
                cut < head.size,
                "{shown} at {cut}"
            );
        }
    }
    assert_eq!(
        fed(input, limits, 0..=all),
        expected,
        "{shown} byte by byte"
    );
    expected
}

/// The outcome in one line: `GET /path ?query @host 1.1 None keep`, or `400 bare LF`, or `more`.
fn told(input: &[u8], outcome: Outcome) -> String {
    let text = |span: Span| String::from_utf8_lossy(span.of(input)).into_owned();
    let head = match outcome {
        Ok(Some(head)) => head,
        Ok(None) => return "more".into(),
        Err(refusal) => return format!("{} {}", refusal.status, refusal.reason),
    };
    let query = head
        .query
        .map_or(String::new(), |span| format!(" ?{}", text(span)));
    let host = head
        .host
        .map_or(String::new(), |span| format!(" @{}", text(span)));
    format!(
        "{} {}{query}{host} 1.{} {:?} {}{}",
        text(head.method),
        text(head.path),
        head.minor,
        head.length,
        ["close", "keep"][usize::from(head.keep_alive)],
        ["", " expects"][usize::from(head.expects_continue)],
    )
}

fn check(input: &str, expected: &str) {
    let input = input.as_bytes();
    properties::check_head(input);
    assert_eq!(
        told(input, outcome(input, &ROOMY)),
        expected,
        "{}",
        input.escape_ascii()
    );
}

/// A row of a table: `input => outcome`.
fn row<'a>(row: &&'a str) -> (&'a str, &'a str) {
    row.split_once(" => ").expect("two columns")
}

/// Request lines, and what comes of them with `Host: h`.
const LINES: &[&str] = &[
    "GET / HTTP/1.1 => GET / @h 1.1 None keep",
    "GET /a/b%20c?x=1?y=/2 HTTP/1.1 => GET /a/b%20c ?x=1?y=/2 @h 1.1 None keep",
    "GET /? HTTP/1.1 => GET / ? @h 1.1 None keep",
    "GET //x//../y HTTP/1.1 => GET //x//../y @h 1.1 None keep",
    "get /\"<>[]\\^`{|}~ HTTP/1.1 => get /\"<>[]\\^`{|}~ @h 1.1 None keep",
    "!#$%&'*+-.^_`|~09azAZ / HTTP/1.1 => !#$%&'*+-.^_`|~09azAZ / @h 1.1 None keep",
    "\r\nGET / HTTP/1.1 => GET / @h 1.1 None keep",
    "\r\n\r\nGET / HTTP/1.1 => GET / @h 1.1 None keep",
    "\r\n\r\n\r\nGET / HTTP/1.1 => 400 too many empty lines before the request",
    "\rGET / HTTP/1.1 => 400 bare CR",
    "\nGET / HTTP/1.1 => 400 bare LF",
    // Versions.
    "GET / HTTP/1.0 => GET / @h 1.0 None close",
    "GET / HTTP/1.2 => GET / @h 1.1 None keep",
    "GET / HTTP/1.9 => GET / @h 1.1 None keep",
    "GET / HTTP/0.9 => 505 not HTTP/1.x",
    "GET / HTTP/2.0 => 505 not HTTP/1.x",
    "PRI * HTTP/2.0 => 505 not HTTP/1.x",
    "GET / HTTP/2 => 400 malformed version",
    "GET / HTTP/11.1 => 400 malformed version",
    "GET / HTTP/1.10 => 400 malformed version",
    "GET / HTTP/2.0x => 400 malformed version",
    "GET / HTTP/1.1  => 400 malformed version",
    "GET / HTTP/1.x => 400 malformed version",
    "GET / HTTP/+1.1 => 400 malformed version",
    "GET / http/1.1 => 400 malformed version",
    "GET / HTTQ/1.1 => 400 malformed version",
    "GET /  HTTP/1.1 => 400 malformed version",
    "GET /  => 400 malformed version",
    "GET / HTTP/1.1\r => 400 bare CR",
    "GET / HTTP/1.1\n => 400 bare LF",
    "GET / => 400 request line without a version",
    "GET /\n => 400 bare LF",
    // Methods.
    " GET / HTTP/1.1 => 400 malformed method",
    "\tGET / HTTP/1.1 => 400 malformed method",
    "GET\t/ HTTP/1.1 => 400 malformed method",
    "G@T / HTTP/1.1 => 400 malformed method",
    "GET => 400 malformed method",
    "GÉT / HTTP/1.1 => 400 malformed method",
    "\u{16}\u{3}\u{1} => 400 malformed method",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1 => ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / @h 1.1 None keep",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1 => 501 method too long",
    // Targets.
    "GET  / HTTP/1.1 => 400 two spaces before the target",
    "GET /#top HTTP/1.1 => 400 fragment in the target",
    "GET /\u{7f} HTTP/1.1 => 400 forbidden byte in the target",
    "GET /\0 HTTP/1.1 => 400 forbidden byte in the target",
    "GET /\t HTTP/1.1 => 400 forbidden byte in the target",
    "GET /é HTTP/1.1 => 400 forbidden byte in the target",
    "OPTIONS * HTTP/1.1 => OPTIONS * @h 1.1 None keep",
    "OPTIONS /x HTTP/1.1 => OPTIONS /x @h 1.1 None keep",
    "OPTIONS *x HTTP/1.1 => 400 target is neither a path nor an http URI",
    "GET * HTTP/1.1 => 400 target * without OPTIONS",
    "options * HTTP/1.1 => 400 target * without OPTIONS",
    "CONNECT h:443 HTTP/1.1 => 501 CONNECT to a server that is no proxy",
    "CONNECT / HTTP/1.1 => 501 CONNECT to a server that is no proxy",
    "GET h:443 HTTP/1.1 => 400 target is neither a path nor an http URI",
    "GET index.html HTTP/1.1 => 400 target is neither a path nor an http URI",
    "GET ?x HTTP/1.1 => 400 target is neither a path nor an http URI",
    "GET ftp://x/y HTTP/1.1 => 400 target is neither a path nor an http URI",
    "GET http:/x/y HTTP/1.1 => 400 target is neither a path nor an http URI",
    "GET http://x/y?z HTTP/1.1 => GET /y ?z @x 1.1 None keep",
    "GET HTTPS://x:8443/y HTTP/1.1 => GET /y @x:8443 1.1 None keep",
    "GET http://x HTTP/1.1 => GET / @x 1.1 None keep",
    "GET https://x?y/z HTTP/1.1 => GET / ?y/z @x 1.1 None keep",
    "GET http://[::1]:80/ HTTP/1.0 => GET / @[::1]:80 1.0 None close",
    "GET http:///y HTTP/1.1 => 400 malformed authority in the target",
    "GET http://?y HTTP/1.1 => 400 malformed authority in the target",
    "GET http:// HTTP/1.1 => 400 malformed authority in the target",
    "GET http://me@x/y HTTP/1.1 => 400 malformed authority in the target",
    "GET http://x:99999/y HTTP/1.1 => 400 malformed authority in the target",
];

const GOOD_HOSTS: &str = "example.org|localhost:8888|10.0.0.1:0|x:65535|x:00080|x:||a_b-c~!$&'()*+;=|\
        x%2dy|[::1]|[2001:db8::1]:443|[::ffff:1.2.3.4]:1";

const BAD_HOSTS: &str = ":80|x:65536|x:99999999999999999999|x:+1|x:8a|x:80:80|x%2|x%zzy|me@x|x/|a b|\
        a\tb|a,b|é|a?b|a#b|::1|[::1|[]|[::1]80|[::1]]|[fe80::1%25eth0]|[1.2.3.4]|[:::]";

/// Fields after `Host: h` of a 1.1 request, and what comes of them.
const FIELDS_1_1: &[&str] = &[
    " => GET / @h 1.1 None keep",
    "A: b\r\nA: c\r\n => GET / @h 1.1 None keep",
    "A:\r\nB: \t \r\nC:x\r\nD:\t x\ty \t\r\n => GET / @h 1.1 None keep",
    "A: \u{e9}\u{ff}~!\"#{}\r\n => GET / @h 1.1 None keep",
    "A: a value of more than eight\tplain bytes, twice\r\n => GET / @h 1.1 None keep",
    // Shape of a line.
    "A: b\n => 400 bare LF",
    "A\n => 400 bare LF",
    "A: b\r\n\n => 400 bare LF",
    "A: b\rc\r\n => 400 bare CR",
    "\rA: b\r\n => 400 bare CR",
    "A: b\r\r\n => 400 bare CR",
    "A: b\0c\r\n => 400 control byte in a field value",
    "A: \u{1}\r\n => 400 control byte in a field value",
    "A: b\u{7f}\r\n => 400 control byte in a field value",
    "A : b\r\n => 400 blank in or after a field name",
    "A\t: b\r\n => 400 blank in or after a field name",
    "A b: c\r\n => 400 blank in or after a field name",
    "A: b\r\n c\r\n => 400 folded field or blank before a field",
    "A: b\r\n\tc\r\n => 400 folded field or blank before a field",
    ": b\r\n => 400 field without a name",
    "A\r\n => 400 field without a colon",
    "A\0: b\r\n => 400 forbidden byte in a field name",
    "A(: b\r\n => 400 forbidden byte in a field name",
    "é: b\r\n => 400 forbidden byte in a field name",
    "[A]: b\r\n => 400 forbidden byte in a field name",
    "hOST: h\r\n => 400 two Host fields",
    // Framing.
    "Content-Length: 0\r\n => GET / @h 1.1 Known(0) keep",
    "content-LENGTH:\t42 \r\n => GET / @h 1.1 Known(42) keep",
    "Content-Length: 007\r\n => GET / @h 1.1 Known(7) keep",
    "Content-Length: 18446744073709551615\r\n => GET / @h 1.1 Known(18446744073709551615) keep",
    "Content-Length: 18446744073709551616\r\n => 400 malformed Content-Length",
    "Content-Length: 99999999999999999999999\r\n => 400 malformed Content-Length",
    "Content-Length:\r\n => 400 malformed Content-Length",
    "Content-Length: +5\r\n => 400 malformed Content-Length",
    "Content-Length: -1\r\n => 400 malformed Content-Length",
    "Content-Length: 5, 5\r\n => 400 malformed Content-Length",
    "Content-Length: 5 5\r\n => 400 malformed Content-Length",
    "Content-Length: 0x5\r\n => 400 malformed Content-Length",
    "Content-Length: 5.0\r\n => 400 malformed Content-Length",
    "Content-Length: \u{665}\r\n => 400 malformed Content-Length",
    "Content-Length: 5\r\nContent-Length: 5\r\n => 400 two Content-Length fields",
    "Content-Length: 5\r\nContent-length: 6\r\n => 400 two Content-Length fields",
    "Content-Length: 5\r\n 5\r\n => 400 folded field or blank before a field",
    "Transfer-Encoding: chunked\r\n => GET / @h 1.1 Chunked keep",
    "TRANSFER-encoding: CHUNKed\t\r\n => GET / @h 1.1 Chunked keep",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n => 400 both Content-Length and Transfer-Encoding",
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n => 400 both Content-Length and Transfer-Encoding",
    "Content-Length: 5\r\nTransfer-Encoding: gzip\r\n => 400 both Content-Length and Transfer-Encoding",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: gzip\r\nA: b\r\nTransfer-Encoding: chunked\r\n => 501 unknown transfer coding",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: x\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: gzip, chunked\r\nTransfer-Encoding: chunked\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding:\r\n => 400 malformed Transfer-Encoding",
    "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n => 400 both Content-Length and Transfer-Encoding",
    "Transfer-Encoding: chunked, chunked\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: chunked, gzip\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: chunked,\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: ,chunked\r\n => 400 malformed Transfer-Encoding",
    "Transfer-Encoding:\r\n => 400 malformed Transfer-Encoding",
    "Transfer-Encoding: \"chunked\"\r\n => 400 malformed Transfer-Encoding",
    "Transfer-Encoding: chunked gzip\r\n => 400 malformed Transfer-Encoding",
    "Transfer-Encoding: gzip\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: gzip, chunked\r\n => 501 unknown transfer coding",
    "Transfer-Encoding: x;q=1, identity, Chunked\r\n => 501 unknown transfer coding",
    "Transfer-Encoding: gzip, chunked;x=y\r\n => 400 parameter of the chunked coding",
    "Transfer-Encoding: gzip, x\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: x;q=\"1\"\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: identity\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: xchunked\r\n => 400 chunked is not the last transfer coding",
    "Transfer-Encoding: chunked;x=y\r\n => 400 parameter of the chunked coding",
    // The connection.
    "Connection: close\r\n => GET / @h 1.1 None close",
    "Connection: keep-alive\r\n => GET / @h 1.1 None keep",
    "connection: Upgrade,\tCLOSE ,x\r\n => GET / @h 1.1 None close",
    "Connection: close\r\nConnection: keep-alive\r\n => GET / @h 1.1 None close",
    "Connection: keep-alive\r\nConnection: x, close\r\n => GET / @h 1.1 None close",
    "Connection: closed, x-close, clos e\r\nConnection:\r\n => GET / @h 1.1 None keep",
    "Expect: 100-continue\r\n => GET / @h 1.1 None keep expects",
    "expect: 100-Continue\r\nContent-Length: 5\r\nConnection: close\r\n => GET / @h 1.1 Known(5) close expects",
    "Expect: 200-ok\r\n => 417 unknown expectation",
    "Expect:\r\n => GET / @h 1.1 None keep",
    "Expect: ,100-continue\t,, 100-CONTINUE\r\n => GET / @h 1.1 None keep expects",
    "Expect: 100-continue;x=y\r\n => 417 unknown expectation",
    "Expect: 100-continue, x\r\n => 417 unknown expectation",
    "Expect: 100-continue\r\nExpect: x\r\n => 417 unknown expectation",
];

/// Fields of a 1.0 request, and what comes of them.
const FIELDS_1_0: &[&str] = &[
    " => GET / 1.0 None close",
    "Host: x\r\n => GET / @x 1.0 None close",
    "Host:\r\n => GET / @ 1.0 None close",
    "Host: x\r\nHost: x\r\n => 400 two Host fields",
    "Host: x y\r\n => 400 malformed Host",
    "Connection: Keep-Alive\r\n => GET / 1.0 None keep",
    "Connection: keep-alive, close\r\n => GET / 1.0 None close",
    "Content-Length: 3\r\n => GET / 1.0 Known(3) close",
    "Transfer-Encoding: chunked\r\n => 400 Transfer-Encoding in HTTP/1.0",
    "Expect: 100-continue\r\n => GET / 1.0 None close",
    "Expect: x\r\n => GET / 1.0 None close",
];

#[test]
fn every_rule_from_both_sides() {
    for (line, expected) in LINES.iter().map(row) {
        check(&format!("{line}\r\nHost: h\r\n\r\n"), expected);
    }
    for host in GOOD_HOSTS.split('|') {
        let expected = format!("GET / @{host} 1.1 None keep");
        let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        check(&input, &expected);
    }
    for host in BAD_HOSTS.split('|') {
        let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        check(&input, "400 malformed Host");
    }
    for (fields, expected) in FIELDS_1_1.iter().map(row) {
        let input = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        check(&input, expected);
    }
    for (fields, expected) in FIELDS_1_0.iter().map(row) {
        check(&format!("GET / HTTP/1.0\r\n{fields}\r\n"), expected);
    }
    check("GET / HTTP/1.1\r\n\r\n", "400 no Host field");
    check("GET http://h/ HTTP/1.1\r\n\r\n", "400 no Host field");
    check(
        "GET http://h/ HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / @h 1.1 None keep",
    );
    check("GET / HTTP/1.1\r\nHost: h\r\n", "more");
    check("", "more");
}

#[test]
fn refused_at_the_byte_that_is_wrong() {
    // The last byte of each is the wrong one.
    let hopeless: &[&[u8]] = &[
        b"\x16",
        b"\n",
        b"\x80",
        b" ",
        b"GET\r",
        b"GET / HTTP/1.1\n",
        b"GET /\n",
        b"GET  ",
        b"SSH-2.0-OpenSSH_9.9\r",
        b"GET / HTTX",
        b"GET / HTTP/2.0\r",
        b"GET * HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n\n",
        b"GET / HTTP/1.1\r\n ",
        b"GET / HTTP/1.1\r\nHost ",
        b"GET / HTTP/1.1\r\nHost: x\n",
        b"GET / HTTP/1.1\r\nHost: \0",
        b"GET / HTTP/1.1\r\nHost: a b\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for input in hopeless {
        let shown = input.escape_ascii();
        let before = &input[..input.len() - 1];
        assert_eq!(whole(before, &ROOMY), Ok(None), "{shown}");
        assert!(outcome(input, &ROOMY).is_err(), "{shown}");
    }
}

/// Each byte in each place, by other words than the table's.
#[test]
fn every_byte_in_every_place() {
    let good = |before: &str, byte: u8, after: &str| {
        let input = [before.as_bytes(), &[byte], after.as_bytes()].concat();
        whole(&input, &ROOMY).is_ok_and(|head| head.is_some())
    };
    let end = " HTTP/1.1\r\nHost: h\r\n\r\n";
    let tokens = b"!#$%&'*+-.^_`|~";
    for byte in 0..=255_u8 {
        let token = byte.is_ascii_alphanumeric() || tokens.contains(&byte);
        assert_eq!(
            good("G", byte, &format!("T /{end}")),
            token,
            "method {byte}"
        );
        assert_eq!(
            good("GET /a", byte, &format!("b{end}")),
            (0x21..0x7f).contains(&byte) && byte != b'#',
            "target {byte}"
        );
        let name = good("GET / HTTP/1.0\r\nA", byte, "B: c\r\n\r\n");
        assert_eq!(name, token || byte == b':', "name {byte}");
        let host = good("GET / HTTP/1.1\r\nHost: a", byte, "1\r\n\r\n");
        let marks = b"-._~!$&'()*+;=:";
        assert_eq!(
            host,
            byte.is_ascii_alphanumeric() || marks.contains(&byte),
            "host {byte}"
        );
        for place in 0..20 {
            let (before, after) = ("x".repeat(place), "x".repeat(20 - place));
            let value = good(
                &format!("GET / HTTP/1.0\r\nA:{before}"),
                byte,
                &format!("{after}\r\n\r\n"),
            );
            assert_eq!(
                value,
                byte == b'\t' || byte >= 0x20 && byte != 0x7f,
                "value {byte} at {place}"
            );
        }
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let input = b"GET /0123456789 HTTP/1.1\r\nHost: h\r\n\r\nbody";
    let (line, head) = (26, 37);
    let status = |line, head| outcome(input, &limits(line, head)).map_err(|refusal| refusal.status);
    assert!(status(line, head).is_ok_and(|head| head.is_some_and(|head| head.size == 37)));
    assert_eq!(status(line - 1, head), Err(414));
    assert_eq!(status(line, head - 1), Err(431));
    assert_eq!(
        status(1000, line - 1),
        Err(414),
        "the line alone is more than a head may be"
    );
    assert_eq!(status(line, line), Err(431));
    for most in 0..head {
        assert!(status(most, 1000).is_err() == (most < line), "line {most}");
        assert!(status(1000, most).is_err(), "head {most}");
    }
    assert_eq!(
        whole(&input[..line - 1], &limits(line - 1, head)),
        Err(Refusal::new(414, "request line too long"))
    );
    assert_eq!(whole(&input[..line - 2], &limits(line - 1, head)), Ok(None));

    let fields = |number| {
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "A: b\r\n".repeat(number - 1)
        )
    };
    check(&fields(FIELDS), "GET / @h 1.1 None keep");
    check(&fields(FIELDS + 1), "431 too many fields");
}

#[test]
fn fields_are_kept_in_order_and_found_by_name() {
    let input = b"GET / HTTP/1.1\r\nHost: h\r\nX-A:  one, two\t\r\nx-a: three\r\nEmpty: \r\n\r\n";
    let head = whole(input, &ROOMY).unwrap().unwrap();
    let fields = head
        .fields
        .iter()
        .map(|field| (field.name.of(input), field.value.of(input)));
    let expected: [(&[u8], &[u8]); 4] = [
        (b"Host", b"h"),
        (b"X-A", b"one, two"),
        (b"x-a", b"three"),
        (b"Empty", b""),
    ];
    assert!(fields.eq(expected));
    assert_eq!(head.field(input, "x-A"), Some(&b"one, two"[..]));
    assert_eq!(head.field(input, "empty"), Some(&b""[..]));
    assert_eq!(head.field(input, "X-"), None);
}

#[test]
fn one_parser_reads_one_head_after_the_other() {
    let input =
        b"\r\nPOST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /b HTTP/1.0\r\n\r\n";
    let mut parser = Parser::new();
    for cut in 1..=2 {
        assert_eq!(parser.advance(&input[..cut], &ROOMY), Ok(None));
    }
    assert_eq!(parser.advance(&input[..3], &ROOMY), Ok(None));
    let first = parser.advance(input, &ROOMY).unwrap().unwrap();
    let rest = &input[first.size..];
    let second = parser.advance(rest, &ROOMY);
    assert_eq!(told(rest, second), "GET /b 1.0 None close");
}

/// Spoiled heads: no panic, and no difference between one piece, two and many.
#[test]
fn cuts_make_no_difference_to_damaged_heads() {
    let start = "POST http://h:80/a?b HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n";
    let rest = [
        "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
        "Transfer-Encoding: chunked\r\nA: b\r\n\r\n",
    ];
    let spoilers = b"\r\n\r\n \t:/?#*,;@[]%\0\x7f\x80a19H";
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    for _ in 0..5000 {
        let mut input = [start, rest[random(2)]].concat().into_bytes();
        for _ in 0..1 + random(3) {
            let place = random(input.len());
            match random(3) {
                0 => input[place] = spoilers[random(spoilers.len())],
                1 => input.insert(place, spoilers[random(spoilers.len())]),
                _ => drop(input.drain(place..(place + random(30)).min(input.len()))),
            }
        }
        let small = limits(1 + random(60), 1 + random(200));
        for limits in [ROOMY, small] {
            let (all, cut) = (input.len(), random(input.len() + 1));
            let expected = whole(&input, &limits);
            assert_eq!(
                fed(&input, &limits, [cut, all]),
                expected,
                "{} cut at {cut}",
                input.escape_ascii()
            );
            assert_eq!(
                fed(&input, &limits, 0..=all),
                expected,
                "{} byte by byte",
                input.escape_ascii()
            );
        }
    }
}
