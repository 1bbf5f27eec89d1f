//! Request heads: any cut, any limit, what they mean, written again, and what httparse makes of them.
#![forbid(unsafe_code)]

use super::super::head::{Field, Head, Length, Limits, Parser, Refusal, Span};
use super::{Faults, Numbers, has_bare_lf, leading, ways_to_cut};

/// Beyond anything that is tried.
pub(super) const ROOMY: Limits = Limits {
    line: 1 << 20,
    head: 1 << 20,
};
/// Slots for httparse: more than a head may have.
const SLOTS: usize = 128;

type Read = Result<Option<Head>, Refusal>;

/// What comes of an input that arrives up to each of `cuts` in turn.
fn read(input: &[u8], limits: &Limits, cuts: &[usize]) -> Read {
    let mut parser = Parser::new();
    for &cut in cuts {
        let read = parser.advance(&input[..cut], limits);
        if read != Ok(None) {
            return read;
        }
        let empty = empty_lines(&input[..cut]) == cut;
        assert_eq!(parser.is_untouched(), empty, "untouched");
    }
    Ok(None)
}

/// Everything that must be true of the head at the start of this input.
///
/// # Panics
/// When something is not.
pub fn check_head(input: &[u8]) {
    let whole = read(input, &ROOMY, &[input.len()]);
    let decided = decided_after(input, &whole);
    cuts_of_a_head(input, &whole);
    limits_of_a_head(input, &whole, decided);
    seen_bytes_are_not_scanned_again(input, &whole);
    second_opinion_on_a_head(input, &whole, decided);
    if let Ok(Some(head)) = &whole {
        shape_of(input, head);
        head_written_again(input, head);
        head_after_head(input, head);
    }
}

/// The cut makes no difference.
fn cuts_of_a_head(input: &[u8], whole: &Read) {
    for cuts in ways_to_cut(input) {
        assert_eq!(&read(input, &ROOMY, &cuts), whole, "cut at {cuts:?}");
    }
    if let Ok(Some(head)) = whole {
        assert_eq!(read(input, &ROOMY, &[head.size - 1]), Ok(None), "too early");
        assert_eq!(&read(input, &ROOMY, &[head.size]), whole, "too late");
    }
}

/// How many bytes it takes to decide, if they are there.
fn decided_after(input: &[u8], whole: &Read) -> Option<usize> {
    match whole {
        Ok(None) => None,
        Ok(Some(head)) => Some(head.size),
        Err(_) => {
            let mut parser = Parser::new();
            (0..=input.len()).find(|&end| parser.advance(&input[..end], &ROOMY).is_err())
        }
    }
}

/// Limits refuse exactly what does not fit, and the cut makes no difference with them either.
fn limits_of_a_head(input: &[u8], whole: &Read, decided: Option<usize>) {
    let mut numbers = Numbers::of(input);
    let limits = Limits {
        line: numbers.below(input.len() + 2),
        head: numbers.below(input.len() + 2),
    };
    let for_line = limits.line.min(limits.head);
    let empty = empty_lines(input);
    let line = input[empty..].iter().position(|&byte| byte == b'\n');
    let line = line.map_or(usize::MAX, |line| empty + line + 1);
    let decided = decided.unwrap_or(usize::MAX);
    let status = if line.min(decided) > for_line && input.len() >= for_line {
        Some(414)
    } else if decided > limits.head && input.len() >= limits.head {
        Some(431)
    } else {
        None
    };
    for cuts in ways_to_cut(input) {
        let limited = read(input, &limits, &cuts);
        match status {
            None => assert_eq!(&limited, whole, "{limits:?} cut at {cuts:?}"),
            Some(status) => {
                let limited = limited.map_err(|refusal| refusal.status);
                assert_eq!(limited, Err(status), "{limits:?} cut at {cuts:?}");
            }
        }
    }
}

/// Bytes of the empty lines at the start.
fn empty_lines(input: &[u8]) -> usize {
    leading(input, |byte| matches!(byte, b'\r' | b'\n'))
}

/// Work is linear: what was seen is not scanned again when more arrives. So it can be spoiled meanwhile, and nobody
/// notices.
fn seen_bytes_are_not_scanned_again(input: &[u8], whole: &Read) {
    let mut numbers = Numbers::of(input);
    for _ in 0..3 {
        let (mut parser, mut shown, mut read) = (Parser::new(), input.to_vec(), Ok(None));
        for cut in numbers.cuts(input.len(), 4) {
            read = parser.advance(&shown[..cut], &ROOMY);
            if read != Ok(None) {
                break;
            }
            let line = start_of_last_line(&input[..cut]);
            shown[..line].fill(0);
            for (at, byte) in shown.iter_mut().enumerate().take(cut).skip(line) {
                if is_of_no_more_use(input, line, at) {
                    *byte = 1;
                }
            }
        }
        assert_eq!(&read, whole, "with seen bytes spoiled");
    }
}

fn start_of_last_line(input: &[u8]) -> usize {
    let end = input.iter().rposition(|&byte| byte == b'\n');
    end.map_or(0, |end| end + 1)
}

/// Whether nobody needs the byte at `at` again, though its line, which starts at `line`, is not complete. When it is,
/// it is taken apart: the blanks around values are needed then, the fields that matter to the connection, and all of
/// the request line but the inside of a path.
fn is_of_no_more_use(input: &[u8], line: usize, at: usize) -> bool {
    if line > empty_lines(input) {
        let name = leading(&input[line..], is_token);
        let name = &input[line..line + name];
        let known = [
            "host",
            "expect",
            "connection",
            "content-length",
            "transfer-encoding",
        ];
        let mut known = known.iter().map(|known| known.as_bytes());
        return !known.any(|known| name.eq_ignore_ascii_case(known))
            && !matches!(input[at], b' ' | b'\t' | b'\r');
    }
    let mut words = input[line..at].splitn(2, |&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    method != b"CONNECT"
        && target.starts_with(b"/")
        && !target.contains(&b' ')
        && !matches!(input[at], b'?' | b' ')
}

/// The parts of the request line make it up, and the spans lie in the head in order. What bytes they may hold is for
/// httparse and `faults_of` to say.
fn shape_of(input: &[u8], head: &Head) {
    let text = &input[..head.size];
    assert!(text.ends_with(b"\r\n\r\n"));
    assert_eq!(head.method.start as usize, empty_lines(text));
    let (method, target, path) = (
        head.method.of(text),
        target_of(text, head),
        head.path.of(text),
    );
    let mut at = head.method.end as usize + 1 + target.len();
    let version = &text[at..at + 11];
    assert!(version.starts_with(b" HTTP/1.") && version.ends_with(b"\r\n"));
    assert_eq!(head.minor, u8::from(version[8] != b'0'));

    assert!(path.starts_with(b"/") || path == b"*" && method == b"OPTIONS");
    assert!(!path.contains(&b'?'));
    let query = head.query.map(|query| query.of(text));
    let query = query.map_or(vec![], |query| [b"?", query].concat());
    let origin = [path, &query].concat();
    let https = target.to_ascii_lowercase().starts_with(b"https:");
    assert_eq!(head.is_https, https);
    assert_eq!(head.is_absolute(text), absolute(text, head).is_some());
    match absolute(text, head) {
        None => assert_eq!(target, origin),
        Some(authority) => {
            let scheme = if target[4] == b':' { 7 } else { 8 };
            let name = ["http://", "https://"][scheme - 7].as_bytes();
            assert!(target[..scheme].eq_ignore_ascii_case(name));
            let rest = target[scheme..].strip_prefix(authority).expect("the host");
            assert!(rest == origin || path == b"/" && rest == query);
        }
    }

    for Field { name, value } in &head.fields {
        for span in [name, value] {
            assert!(at < span.start as usize && span.start <= span.end);
            at = span.end as usize;
        }
        assert_eq!(text[name.end as usize], b':');
    }
    assert!(at < head.size && head.fields.len() <= 100);
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The target as sent: between the method and the blank before the version.
fn target_of<'a>(text: &'a [u8], head: &Head) -> &'a [u8] {
    let rest = &text[head.method.end as usize + 1..];
    rest.split(|&byte| byte == b' ').next().unwrap_or_default()
}

/// The authority of an absolute target: the host, when it stands before the fields.
fn absolute<'a>(text: &'a [u8], head: &Head) -> Option<&'a [u8]> {
    let target = target_of(text, head);
    (!target.starts_with(b"/") && target != b"*").then(|| head.host.expect("a host").of(text))
}

/// What the fields mean, by the rules in other words and from the fields as httparse sees them.
fn meaning_of(input: &[u8], head: &Head, fields: &[httparse::Header]) {
    let all = |name| values(fields, name);
    for field in fields {
        let first = all(field.name)[0];
        assert_eq!(head.field(input, field.name), Some(first));
    }
    let host = head.host.map(|host| host.of(input));
    assert_eq!(host, absolute(input, head).or(all("host").first().copied()));

    let length = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Length::None,
        ([length], []) => {
            let digits = std::str::from_utf8(length).expect("digits");
            Length::Known(digits.parse().expect("64 bits"))
        }
        ([], [_]) => Length::Chunked,
        both => panic!("ambiguous framing: {both:?}"),
    };
    assert_eq!(head.length, length);

    let expects = head.minor == 1
        && all("expect")
            .iter()
            .flat_map(|value| members(value))
            .count()
            > 0;
    assert_eq!(head.expects_continue, expects);
    let options = all("connection").join(&b","[..]).to_ascii_lowercase();
    let has = |option: &[u8]| {
        let mut options = options.split(|&byte| byte == b',');
        options.any(|one| one.trim_ascii() == option)
    };
    let keep_alive = !has(b"close") && (head.minor == 1 || has(b"keep-alive"));
    assert_eq!(head.keep_alive, keep_alive);
}

/// The values of all fields of that name.
fn values<'a>(fields: &[httparse::Header<'a>], name: &str) -> Vec<&'a [u8]> {
    let named = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| field.value).collect()
}

/// What a head says, without where it says so.
#[derive(Debug, PartialEq)]
struct Said<'a> {
    method: &'a [u8],
    path: &'a [u8],
    query: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    fields: Vec<(&'a [u8], &'a [u8])>,
    rest: (u8, Length, bool, bool),
}

fn said<'a>(input: &'a [u8], head: &Head) -> Said<'a> {
    let of = |span: Span| span.of(input);
    let fields = head.fields.iter();
    Said {
        method: of(head.method),
        path: of(head.path),
        query: head.query.map(of),
        host: head.host.map(of),
        fields: fields
            .map(|field| (of(field.name), of(field.value)))
            .collect(),
        rest: (
            head.minor,
            head.length,
            head.keep_alive,
            head.expects_continue,
        ),
    }
}

/// Written in canonical form and read again, it says the same.
fn head_written_again(input: &[u8], head: &Head) {
    let before = said(input, head);
    let mut text = [before.method, b" "].concat();
    if let Some(authority) = absolute(input, head) {
        text.extend([b"http://", authority].concat());
    }
    text.extend(before.path);
    if let Some(query) = before.query {
        text.extend([b"?", query].concat());
    }
    text.extend(format!(" HTTP/1.{}\r\n", head.minor).bytes());
    for (name, value) in &before.fields {
        text.extend([name, &b": "[..], value, b"\r\n"].concat());
    }
    text.extend(b"\r\n");
    let again = read(&text, &ROOMY, &[text.len()]);
    let Ok(Some(again)) = again else {
        panic!("written again: {again:?} for {}", text.escape_ascii());
    };
    assert_eq!(again.size, text.len());
    assert_eq!(said(&text, &again), before, "{}", text.escape_ascii());
}

/// A parser that has given a head out reads the next one as a new parser does.
fn head_after_head(input: &[u8], head: &Head) {
    let mut parser = Parser::new();
    assert!(parser.advance(input, &ROOMY).is_ok());
    let rest = &input[head.size..];
    let next = parser.advance(rest, &ROOMY);
    assert_eq!(next, read(rest, &ROOMY, &[rest.len()]), "the next head");
}

/// Whatever is accepted, httparse accepts and understands the same way, and `faults_of` finds nothing wrong with it.
/// Whatever is refused, httparse refuses at the same byte, or it is one of the faults that it does not mind.
fn second_opinion_on_a_head(input: &[u8], whole: &Read, decided: Option<usize>) {
    let (text, unfinished) = with_known_version(&input[..decided.unwrap_or(input.len())]);
    let mut slots = [httparse::EMPTY_HEADER; SLOTS];
    let mut request = httparse::Request::new(&mut slots);
    let other = request.parse(&text);
    match whole {
        Ok(Some(head)) => {
            assert_eq!(other, Ok(httparse::Status::Complete(head.size)));
            let (method, target) = (head.method.of(input), target_of(input, head));
            assert_eq!(request.method.map(str::as_bytes), Some(method));
            assert_eq!(request.path.map(str::as_bytes), Some(target));
            assert_eq!(request.version, Some(head.minor));
            let fields = request.headers.iter();
            let fields = fields.map(|field| (field.name.as_bytes(), field.value));
            assert_eq!(fields.collect::<Vec<_>>(), said(input, head).fields);
            meaning_of(input, head, request.headers);
            assert_eq!(faults_of(&text), [""; 0]);
        }
        Ok(None) => {
            // httparse knows a wrong version from its first byte, hade waits for the end of the line and says 505.
            let early = unfinished && other == Err(httparse::Error::Version);
            assert!(
                early || other == Ok(httparse::Status::Partial),
                "more, httparse: {other:?}"
            );
            assert_eq!(faults_of(&text), [""; 0]);
        }
        Err(refusal) => {
            let faults = faults_of(&text);
            let same = other.is_err() || faults.contains(&refusal.reason);
            assert!(same, "{refusal:?}, httparse: {other:?}, faults: {faults:?}");
            // Not a byte later than need be.
            let before = &text[..text.len() - 1];
            second_opinion_on_a_head(before, &Ok(None), None);
        }
    }
}

/// The input with a minor version above 1 written as 1: httparse knows two versions, and hade answers any 1.x as
/// RFC 9110 §2.5 asks. Also whether the input ends within the version.
fn with_known_version(input: &[u8]) -> (Vec<u8>, bool) {
    let mut text = input.to_vec();
    let words = text.iter().enumerate().skip(empty_lines(input));
    let mut blanks = words.filter(|&(_, &byte)| byte == b' ');
    let Some((blank, _)) = blanks.nth(1) else {
        return (text, false);
    };
    let version = blank + 1;
    let unfinished = !text[version..].contains(&b'\r');
    let minor = text.get(version + 7).copied();
    if text[version..].starts_with(b"HTTP/1.") && minor.is_some_and(|minor| minor.is_ascii_digit())
    {
        text[version + 7] = text[version + 7].min(b'1');
    }
    (text, unfinished)
}

/// The reasons to refuse this start of a head that httparse does not have, as hade words them. They are all the ways
/// in which httparse may accept more; it leaves limits and the meaning of targets and fields to its caller.
fn faults_of(text: &[u8]) -> Vec<&'static str> {
    let mut faults = Faults::default();
    // It takes LF for a line end, and skips any number of empty lines.
    faults.add(has_bare_lf(text), "bare LF");
    let many = text.starts_with(b"\r\n\r\n\r");
    faults.add(many, "too many empty lines before the request");
    // The request line may be cut off.
    let rest = &text[empty_lines(text)..];
    let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    faults.add(method.len() > 32, "method too long");
    let target = words.next().unwrap_or_default();
    faults.add(target.contains(&b'#'), "fragment in the target");
    // It takes UTF-8 there.
    faults.add(!target.is_ascii(), "forbidden byte in the target");
    if !rest.contains(&b'\n') {
        return faults.0;
    }
    faults.add(method == b"CONNECT", "CONNECT to a server that is no proxy");
    let lower = target.to_ascii_lowercase();
    let absolute = lower
        .strip_prefix(b"http://")
        .or(lower.strip_prefix(b"https://"));
    if target == b"*" {
        faults.add(method != b"OPTIONS", "target * without OPTIONS");
    } else if let Some(absolute) = absolute {
        let authority = absolute.split(|byte| matches!(byte, b'/' | b'?')).next();
        let good = authority.is_some_and(is_authority);
        faults.add(!good, "malformed authority in the target");
    } else {
        faults.add(
            !target.starts_with(b"/"),
            "target is neither a path nor an http URI",
        );
    }

    // The fields that are complete.
    let lines = [&text[..start_of_last_line(text)], b"\r\n"].concat();
    let mut slots = [httparse::EMPTY_HEADER; SLOTS];
    let mut request = httparse::Request::new(&mut slots);
    if request.parse(&lines).is_err() {
        return faults.0;
    }
    let fields = &*request.headers;
    let begun = !text.ends_with(b"\n") && !text.ends_with(b"\r\n\r");
    faults.add(fields.len() + usize::from(begun) > 100, "too many fields");
    let old = request.version == Some(0);
    let hosts = values(fields, "host");
    let complete = text.ends_with(b"\r\n\r\n");
    faults.add(complete && !old && hosts.is_empty(), "no Host field");
    faults.add(hosts.len() > 1, "two Host fields");
    let bad = hosts
        .iter()
        .any(|host| !host.is_empty() && !is_authority(host));
    faults.add(bad, "malformed Host");
    let expects = values(fields, "expect");
    let other = |value: &[u8]| !value.eq_ignore_ascii_case(b"100-continue");
    let is_unknown = expects.iter().flat_map(|value| members(value)).any(other);
    faults.add(!old && is_unknown, "unknown expectation");
    let lengths = values(fields, "content-length");
    faults.add(lengths.len() > 1, "two Content-Length fields");
    let bad = lengths.iter().any(|length| !is_number(length));
    faults.add(bad, "malformed Content-Length");
    let codings = values(fields, "transfer-encoding");
    let both = !lengths.is_empty() && !codings.is_empty();
    faults.add(both, "both Content-Length and Transfer-Encoding");
    faults.add(old && !codings.is_empty(), "Transfer-Encoding in HTTP/1.0");
    if codings.is_empty() {
        return faults.0;
    }
    // Several fields are one list.
    let coding = codings.join(&b","[..]);
    let name = |part: &[u8]| {
        let name = part.split(|&byte| byte == b';').next().unwrap_or_default();
        name.trim_ascii().to_ascii_lowercase()
    };
    let parts = || coding.split(|&byte| byte == b',');
    let names: Vec<Vec<u8>> = parts().map(name).collect();
    let is_chunked = |name: &Vec<u8>| name == b"chunked";
    let (last, before) = names
        .split_last()
        .expect("splitting gives one at the least");
    let early = before.iter().any(is_chunked);
    let open = complete && !is_chunked(last);
    let bad = names
        .iter()
        .any(|name| name.is_empty() || !name.iter().all(|&byte| is_token(byte)));
    let with = parts().any(|part| is_chunked(&name(part)) && part.contains(&b';'));
    let known = coding.eq_ignore_ascii_case(b"chunked");
    faults.add(early || open, "chunked is not the last transfer coding");
    faults.add(bad, "malformed Transfer-Encoding");
    faults.add(with, "parameter of the chunked coding");
    let fine = complete && !early && !open && !bad && !with;
    faults.add(fine && !known, "unknown transfer coding");
    faults.0
}

/// What a list holds; empty members count for nothing (RFC 9110 §5.6.1.2).
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// Digits alone, at least one, that fit into 64 bits.
fn is_number(text: &[u8]) -> bool {
    let number = std::str::from_utf8(text).map(str::parse::<u64>);
    matches!(number, Ok(Ok(_))) && text[0] != b'+'
}

/// `host`, or `host:port`, by RFC 3986 §3.2 without the comma: a list of hosts is no host.
fn is_authority(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let plain = |piece: &str| {
        let mut chars = piece.chars();
        chars.all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()*+;=".contains(c))
    };
    let (good, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return false,
        Some(Some((address, port))) => (address.parse::<std::net::Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            // Behind each % two digits, and what follows it.
            let mut pieces = name.split('%');
            let good = pieces.next().is_some_and(plain)
                && pieces.all(|piece| {
                    let code = piece.bytes().take(2).filter(u8::is_ascii_hexdigit);
                    code.count() == 2 && plain(piece)
                });
            (good && !name.is_empty(), port)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or_default();
    let number = digits.trim_start_matches('0');
    good && (port.is_empty() || port.starts_with(':'))
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (number.is_empty() || number.parse::<u16>().is_ok())
}
