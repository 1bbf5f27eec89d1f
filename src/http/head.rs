//! Bytes of an HTTP/1.x request head to a checked `Head`, or to the refusal that answers it (RFC 9110, RFC 9112).
//! Pure and incremental: no socket and no clock, and each byte is looked at once however the input is cut.
//! Strict on purpose: what two readers could understand in two ways is refused. Bodies belong to `body.rs`,
//! sending the refusal and closing the connection to the gate.
#![forbid(unsafe_code)]

use std::net::Ipv6Addr;

/// Longest method that is read; a longer one is a method nobody here implements (RFC 9112 §3).
const METHOD_BYTES: usize = 32;
/// Most fields in one head.
const FIELDS: usize = 100;
/// Empty lines ignored before a request line, for clients that end a body with one too many (RFC 9112 §2.2).
const EMPTY_LINES: u8 = 2;

/// The classic of request smuggling (RFC 9112 §11.2).
const BOTH_LENGTHS: Refusal = Refusal::bad("both Content-Length and Transfer-Encoding");
const NOT_LAST: Refusal = Refusal::bad("chunked is not the last transfer coding");

/// What a head may grow to, in bytes. The same value goes to every `advance` of one head.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The request line, with its CRLF and any empty lines before it.
    pub line: usize,
    /// The whole head, with the empty line that ends it.
    pub head: usize,
}

/// A piece of the input, by its offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset just after the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes themselves. `input` is what the span was found in.
    pub fn of(self, input: &[u8]) -> &[u8] {
        &input[self.start as usize..self.end as usize]
    }

    /// The same of an input that is known to be text.
    pub fn of_text(self, input: &str) -> &str {
        input
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u32,
            end: end as u32,
        }
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name as the client wrote it.
    pub name: Span,
    /// The value without the blanks around it.
    pub value: Span,
}

/// How the body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Length {
    /// No body.
    #[default]
    None,
    /// `Content-Length` bytes.
    Known(u64),
    /// Chunked transfer coding.
    Chunked,
}

/// A complete, checked request head. Spans point into the input it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method, a token.
    pub method: Span,
    /// The path, still percent-encoded; never empty. `*` for `OPTIONS *`, `/` for an absolute URI without one.
    pub path: Span,
    /// What follows the first `?`, if there is one.
    pub query: Option<Span>,
    /// The host asked for: the authority of an absolute URI, else the `Host` field (RFC 9112 §3.2.2).
    pub host: Option<Span>,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1 and later minor versions.
    pub minor: u8,
    /// Whether an `https` URI was asked for, which only the absolute form can say.
    pub is_https: bool,
    /// Every field, in the order received.
    pub fields: Vec<Field>,
    /// Framing of the body.
    pub length: Length,
    /// Whether the client wants another request on this connection.
    pub keep_alive: bool,
    /// Whether `Expect: 100-continue` was sent, with a body to come or not.
    pub expects_continue: bool,
    /// Bytes of the input the head took, empty lines included; the body or the next head begins here.
    pub size: usize,
}

impl Head {
    /// Whether the target is a whole URI.
    pub fn is_absolute(&self, input: &[u8]) -> bool {
        !matches!(input[self.method.end as usize + 1], b'/' | b'*')
    }

    /// The value of the first field of that name, whatever its case.
    pub fn field<'a>(&self, input: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let found = self
            .fields
            .iter()
            .find(|field| field.name.of(input).eq_ignore_ascii_case(name.as_bytes()));
        found.map(|field| field.value.of(input))
    }
}

/// Why a request is not served. The connection cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: u16,
    /// What was wrong, in a few lower-case words.
    pub reason: &'static str,
}

impl Refusal {
    pub(crate) const fn new(status: u16, reason: &'static str) -> Refusal {
        Refusal { status, reason }
    }

    pub(crate) const fn bad(reason: &'static str) -> Refusal {
        Refusal::new(400, reason)
    }

    /// For a byte where it cannot stand; a lone LF is named, since it is the usual one.
    pub(crate) const fn misplaced(byte: u8, reason: &'static str) -> Refusal {
        match byte {
            b'\n' => Refusal::bad("bare LF"),
            _ => Refusal::bad(reason),
        }
    }
}

/// May stand in a method or a field name (RFC 9110 §5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// May stand in a request target: visible ASCII except `#`.
pub(crate) const TARGET: u8 = 2;
/// May stand in a field value: visible, blank, or above ASCII (RFC 9110 §5.5).
pub(crate) const VALUE: u8 = 4;
/// May stand in a host name (RFC 3986 §3.2.2), where the comma is left out: no real name has one, and a list
/// of hosts would pass for a host.
const HOST: u8 = 8;

static CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let (visible, plain) = (b.is_ascii_graphic(), b.is_ascii_alphanumeric());
        if plain
            || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        {
            table[byte] |= TOKEN;
        }
        if visible && b != b'#' {
            table[byte] |= TARGET;
        }
        if visible || b == b' ' || b == b'\t' || b >= 0x80 {
            table[byte] |= VALUE;
        }
        if plain
            || matches!(
                b,
                b'!' | b'$' | b'&'..=b'+' | b'-' | b'.' | b';' | b'=' | b'_' | b'~'
            )
        {
            table[byte] |= HOST;
        }
        byte += 1;
    }
    table
};

/// Whether a byte belongs to a class.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Where the run of `class` that goes on at `at` ends.
#[inline]
fn run(bytes: &[u8], at: usize, class: u8) -> usize {
    let length = bytes[at..].iter().position(|&byte| !is(byte, class));
    length.map_or(bytes.len(), |length| at + length)
}

/// `run` for field values, which are most of a head: eight bytes at a time while all are plain.
#[inline]
fn value_run(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let delete = word ^ (ONES * 0x7f);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        if (control | (delete.wrapping_sub(ONES) & !delete)) & (ONES * 0x80) == 0 {
            at += 8;
            continue;
        }
        // A control byte among the eight; it may be a tab.
        let stop = run(&bytes[..at + 8], at, VALUE);
        if stop < at + 8 {
            return stop;
        }
        at = stop;
    }
    run(bytes, at, VALUE)
}

/// What the next byte belongs to. The order matters: what stands before `Field` is the request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Default)]
enum Stage {
    #[default]
    Empty,
    EmptyLf,
    Method,
    Target,
    Version,
    LineLf,
    Field,
    Name,
    Value,
    ValueLf,
    EndLf,
}

/// What the transfer codings named so far come to. Several fields are one list (RFC 9110 §5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Codings {
    #[default]
    None,
    /// Some that nobody here knows; what to answer depends on whether `chunked` follows.
    Unknown,
    UnknownThenChunked,
    Chunked,
}

/// Reads one head. It needs no memory of its own before the first field is complete.
#[derive(Debug, Default)]
pub struct Parser {
    stage: Stage,
    empty_lines: u8,
    minor: u8,
    is_https: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    at: usize,
    method: Span,
    /// The whole target, until the request line is complete.
    path: Span,
    query: Option<Span>,
    authority: Option<Span>,
    host: Option<Span>,
    length: Length,
    codings: Codings,
    /// The name of the field being read.
    name: Span,
    fields: Vec<Field>,
}

impl Parser {
    /// A parser at the first byte of a head.
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Whether no request has begun: nothing but empty lines was seen.
    pub fn is_untouched(&self) -> bool {
        self.stage <= Stage::EmptyLf
    }

    /// Reads on in `input`, which is everything received since the first byte of this head, body and later requests
    /// included. `None` means that more is needed. Once it returned a head the parser is ready for the next one,
    /// whose input begins at `size` of this one.
    ///
    /// # Errors
    ///
    /// The refusal to answer with, at the first byte that rules out every good head; for an unknown transfer coding at
    /// the end of the head, where it is known which one it is. The parser is of no use after it.
    pub fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Head>, Refusal> {
        let most = limits.head.min(u32::MAX as usize);
        if self.stage < Stage::Field {
            let most = limits.line.min(most);
            if !self.request_line(&input[..input.len().min(most)])? {
                return match input.len() < most {
                    true => Ok(None),
                    false => Err(Refusal::new(414, "request line too long")),
                };
            }
        }
        if !self.field_lines(&input[..input.len().min(most)])? {
            return match input.len() < most {
                true => Ok(None),
                false => Err(Refusal::new(431, "head too large")),
            };
        }
        let done = std::mem::take(self);
        Ok(Some(Head {
            method: done.method,
            path: done.path,
            query: done.query,
            host: done.authority.or(done.host),
            minor: done.minor,
            is_https: done.is_https,
            fields: done.fields,
            length: done.length,
            keep_alive: !done.close && (done.keep_alive || done.minor == 1),
            expects_continue: done.expects_continue,
            size: done.at,
        }))
    }

    /// Reads up to the end of the request line; false when `seen` ends before it.
    fn request_line(&mut self, seen: &[u8]) -> Result<bool, Refusal> {
        let mut at = self.at;
        while let Some(&byte) = seen.get(at) {
            match self.stage {
                Stage::Empty if byte != b'\r' => {
                    self.method.start = at as u32;
                    self.stage = Stage::Method;
                    continue;
                }
                Stage::Empty if self.empty_lines == EMPTY_LINES => {
                    return Err(Refusal::bad("too many empty lines before the request"));
                }
                Stage::Empty => {
                    self.empty_lines += 1;
                    self.stage = Stage::EmptyLf;
                }
                Stage::Method => {
                    let start = self.method.start as usize;
                    at = run(seen, at, TOKEN);
                    if at - start > METHOD_BYTES {
                        return Err(Refusal::new(501, "method too long"));
                    }
                    match seen.get(at) {
                        None => break,
                        Some(b' ') if at > start => self.method = Span::new(start, at),
                        Some(&byte) => return Err(Refusal::misplaced(byte, "malformed method")),
                    }
                    self.path.start = at as u32 + 1;
                    self.stage = Stage::Target;
                }
                Stage::Target => {
                    let start = self.path.start as usize;
                    at = run(seen, at, TARGET);
                    match seen.get(at) {
                        None => break,
                        Some(b' ') if at > start => self.path = Span::new(start, at),
                        Some(&byte) => return Err(wrong_in_target(byte)),
                    }
                    self.stage = Stage::Version;
                }
                Stage::Version => {
                    let start = self.path.end as usize + 1;
                    let fits = match at - start {
                        place @ 0..=4 => byte == b"HTTP/"[place],
                        5 | 7 => byte.is_ascii_digit(),
                        6 => byte == b'.',
                        _ => byte == b'\r',
                    };
                    if !fits {
                        return Err(Refusal::misplaced(byte, "malformed version"));
                    }
                    if byte == b'\r' {
                        if seen[start + 5] != b'1' {
                            return Err(Refusal::new(505, "not HTTP/1.x"));
                        }
                        // A higher minor version is answered as the highest known one (RFC 9110 §2.5).
                        self.minor = u8::from(seen[start + 7] != b'0');
                        self.stage = Stage::LineLf;
                    }
                }
                _ if byte != b'\n' => return Err(Refusal::bad("bare CR")),
                Stage::EmptyLf => self.stage = Stage::Empty,
                _ => {
                    self.resolve_target(seen)?;
                    self.at = at + 1;
                    self.stage = Stage::Field;
                    return Ok(true);
                }
            }
            at += 1;
        }
        self.at = at;
        Ok(false)
    }

    /// Takes the target apart (RFC 9112 §3.2): `path` is the whole of it before, the path alone after.
    fn resolve_target(&mut self, input: &[u8]) -> Result<(), Refusal> {
        let method = self.method.of(input);
        let target = self.path.of(input);
        let (start, end) = (self.path.start as usize, self.path.end as usize);
        if method == b"CONNECT" {
            return Err(Refusal::new(501, "CONNECT to a server that is no proxy"));
        }
        if target == b"*" {
            return match method {
                b"OPTIONS" => Ok(()),
                _ => Err(Refusal::bad("target * without OPTIONS")),
            };
        }
        let scheme = scheme_length(target);
        let mut path = start;
        if scheme > 0 {
            let authority = target[scheme..]
                .iter()
                .position(|b| matches!(b, b'/' | b'?'));
            path = authority.map_or(end, |length| start + scheme + length);
            let authority = Span::new(start + scheme, path);
            if !is_authority(authority.of(input)) {
                return Err(Refusal::bad("malformed authority in the target"));
            }
            self.authority = Some(authority);
            self.is_https = scheme == b"https://".len();
        } else if target[0] != b'/' {
            return Err(Refusal::bad("target is neither a path nor an http URI"));
        }
        let mark = input[path..end].iter().position(|&b| b == b'?');
        self.query = mark.map(|mark| Span::new(path + mark + 1, end));
        self.path = Span::new(path, mark.map_or(end, |mark| path + mark));
        if self.path.start == self.path.end {
            // An empty path means "/", and the scheme's "//" has one to point at.
            self.path = Span::new(start + scheme - 1, start + scheme);
        }
        Ok(())
    }

    /// Reads up to the end of the head; false when `seen` ends before it.
    fn field_lines(&mut self, seen: &[u8]) -> Result<bool, Refusal> {
        let mut at = self.at;
        while let Some(&byte) = seen.get(at) {
            match self.stage {
                Stage::Field if byte == b'\r' => self.stage = Stage::EndLf,
                Stage::Field => {
                    if !is(byte, TOKEN) {
                        return Err(wrong_before_name(byte));
                    }
                    if self.fields.len() == FIELDS {
                        return Err(Refusal::new(431, "too many fields"));
                    }
                    self.name.start = at as u32;
                    self.stage = Stage::Name;
                }
                Stage::Name => {
                    at = run(seen, at, TOKEN);
                    match seen.get(at) {
                        None => break,
                        Some(b':') => self.name.end = at as u32,
                        Some(&byte) => return Err(wrong_in_name(byte)),
                    }
                    self.stage = Stage::Value;
                }
                Stage::Value => {
                    at = value_run(seen, at);
                    match seen.get(at) {
                        None => break,
                        Some(b'\r') => self.stage = Stage::ValueLf,
                        Some(&byte) => {
                            return Err(Refusal::misplaced(byte, "control byte in a field value"));
                        }
                    }
                }
                _ if byte != b'\n' => return Err(Refusal::bad("bare CR")),
                Stage::ValueLf => {
                    self.add_field(seen, at - 1)?;
                    self.stage = Stage::Field;
                }
                _ if self.minor == 1 && self.host.is_none() => {
                    return Err(Refusal::bad("no Host field"));
                }
                _ => {
                    match self.codings {
                        Codings::None => {}
                        Codings::Chunked => self.length = Length::Chunked,
                        // Nobody knows where the body ends (RFC 9112 §6.3).
                        Codings::Unknown => return Err(NOT_LAST),
                        Codings::UnknownThenChunked => {
                            return Err(Refusal::new(501, "unknown transfer coding"));
                        }
                    }
                    self.at = at + 1;
                    return Ok(true);
                }
            }
            at += 1;
        }
        self.at = at;
        Ok(false)
    }

    /// Keeps the field whose value ends before `end`, and learns from it what the connection must know.
    fn add_field(&mut self, input: &[u8], end: usize) -> Result<(), Refusal> {
        let start = self.name.end as usize + 1;
        let value = input[start..end].trim_ascii_start();
        let start = end - value.len();
        let value = value.trim_ascii_end();
        let span = Span::new(start, start + value.len());
        let name = self.name.of(input);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.replace(span).is_some() {
                    return Err(Refusal::bad("two Host fields"));
                }
                if !value.is_empty() && !is_authority(value) {
                    return Err(Refusal::bad("malformed Host"));
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") && self.minor == 1 => {
                // A list, and empty members of lists count for nothing (RFC 9110 §10.1.1, §5.6.1.2).
                let members = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
                for member in members.filter(|member| !member.is_empty()) {
                    if !member.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::new(417, "unknown expectation"));
                    }
                    self.expects_continue = true;
                }
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.codings != Codings::None {
                    return Err(BOTH_LENGTHS);
                }
                if self.length != Length::None {
                    return Err(Refusal::bad("two Content-Length fields"));
                }
                self.length = content_length(value)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.minor == 0 {
                    return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
                }
                if self.length != Length::None {
                    return Err(BOTH_LENGTHS);
                }
                self.codings = self.codings.followed_by(value)?;
            }
            _ => {}
        }
        if self.fields.capacity() == 0 {
            self.fields = Vec::with_capacity(8);
        }
        self.fields.push(Field {
            name: self.name,
            value: span,
        });
        Ok(())
    }
}

fn wrong_in_target(byte: u8) -> Refusal {
    match byte {
        b' ' => Refusal::bad("two spaces before the target"),
        b'#' => Refusal::bad("fragment in the target"),
        b'\r' => Refusal::bad("request line without a version"),
        _ => Refusal::misplaced(byte, "forbidden byte in the target"),
    }
}

fn wrong_before_name(byte: u8) -> Refusal {
    match byte {
        b' ' | b'\t' => Refusal::bad("folded field or blank before a field"),
        b':' => Refusal::bad("field without a name"),
        _ => Refusal::misplaced(byte, "forbidden byte in a field name"),
    }
}

fn wrong_in_name(byte: u8) -> Refusal {
    match byte {
        b' ' | b'\t' => Refusal::bad("blank in or after a field name"),
        b'\r' => Refusal::bad("field without a colon"),
        _ => Refusal::misplaced(byte, "forbidden byte in a field name"),
    }
}

/// Bytes of `http://` or `https://` at the start of a target, 0 when neither is there.
fn scheme_length(target: &[u8]) -> usize {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let starts = schemes.iter().filter(|scheme| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    starts.map(|scheme| scheme.len()).sum()
}

/// Whether this is `uri-host [ ":" port ]` with a host in it (RFC 9110 §7.2, RFC 3986 §3.2).
fn is_authority(text: &[u8]) -> bool {
    let after = |stop: u8, bytes: &[u8]| bytes.iter().position(|&byte| byte == stop);
    let (good, port) = if let Some(rest) = text.strip_prefix(b"[") {
        let (address, port) = rest.split_at(after(b']', rest).unwrap_or(0));
        let address = std::str::from_utf8(address).map(str::parse::<Ipv6Addr>);
        (matches!(address, Ok(Ok(_))), &port[port.len().min(1)..])
    } else {
        let (name, port) = text.split_at(after(b':', text).unwrap_or(text.len()));
        (!name.is_empty() && is_host_name(name), port)
    };
    good && match port {
        [b':', digits @ ..] => number(digits).is_some_and(|port| port <= 65535),
        _ => port.is_empty(),
    }
}

fn is_host_name(name: &[u8]) -> bool {
    let is_code = |code: &[u8]| code.iter().all(u8::is_ascii_hexdigit);
    name.iter().enumerate().all(|(place, &byte)| match byte {
        b'%' => name.get(place + 1..place + 3).is_some_and(is_code),
        _ => is(byte, HOST),
    })
}

/// A number of digits alone that fits; no digits are 0.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |sum, &digit| {
        let digit = char::from(digit).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn content_length(value: &[u8]) -> Result<Length, Refusal> {
    match number(value) {
        Some(length) if !value.is_empty() => Ok(Length::Known(length)),
        _ => Err(Refusal::bad("malformed Content-Length")),
    }
}

impl Codings {
    /// Only `chunked` alone is understood. The rest sorts the others into wrong and unknown: without `chunked` at the
    /// end nobody knows where the body ends (RFC 9112 §6.3), with it at least the codings have names (§6.1).
    fn followed_by(mut self, list: &[u8]) -> Result<Codings, Refusal> {
        for coding in list.split(|&b| b == b',') {
            let mut parts = coding.split(|&b| b == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            if matches!(self, Codings::Chunked | Codings::UnknownThenChunked) {
                return Err(NOT_LAST);
            }
            if name.is_empty() || !name.iter().all(|&b| is(b, TOKEN)) {
                return Err(Refusal::bad("malformed Transfer-Encoding"));
            }
            let is_chunked = name.eq_ignore_ascii_case(b"chunked");
            if is_chunked && parts.next().is_some() {
                return Err(Refusal::bad("parameter of the chunked coding"));
            }
            self = match (self, is_chunked) {
                (Codings::None, true) => Codings::Chunked,
                (_, true) => Codings::UnknownThenChunked,
                (_, false) => Codings::Unknown,
            };
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
