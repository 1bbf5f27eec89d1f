//! What a handler sees: [`Request`] in, [`Response`] out. The gate, the server behind it and the routes live in the
//! files beside this one.
#![forbid(unsafe_code)]

pub(crate) mod body;
pub(crate) mod exchange;
pub(crate) mod gate;
pub(crate) mod head;
pub(crate) mod leave;
pub(crate) mod routes;
pub(crate) mod server;

use head::Head;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// The bytes of a checked request head, and where in them everything is.
pub(crate) struct Checked {
    pub bytes: Vec<u8>,
    pub head: Head,
}

impl Checked {
    pub fn method(&self) -> &str {
        text(self.head.method.of(&self.bytes))
    }

    pub fn path(&self) -> &str {
        text(self.head.path.of(&self.bytes))
    }
}

/// Methods and targets are checked to be visible ASCII before anything else sees them.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A request whose head is checked by RFC 9112 and whose body has arrived.
pub struct Request {
    pub(crate) checked: Arc<Checked>,
    pub(crate) body: Vec<u8>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) draining: bool,
}

impl Request {
    /// The method as sent: `GET`, `POST`, or any other token. Methods are case-sensitive.
    pub fn method(&self) -> &str {
        self.checked.method()
    }

    /// The path as sent, from its first `/` to before the `?`; nothing is decoded. `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        self.checked.path()
    }

    /// What stands behind the first `?`, as sent; `None` without one.
    pub fn query(&self) -> Option<&str> {
        self.checked
            .head
            .query
            .map(|query| text(query.of(&self.checked.bytes)))
    }

    /// The first value of a query parameter (`?name=value&…`), percent-decoded, `+` read as a blank; bytes that are
    /// not UTF-8 become U+FFFD. A name without `=` has an empty value.
    pub fn param(&self, name: &str) -> Option<String> {
        self.query()?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key) == name).then(|| percent_decode(value))
        })
    }

    /// The first field of this name, in any case of letters: without surrounding blanks, otherwise as sent, so it may
    /// hold bytes above 127 (RFC 9110 §5.5).
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.checked.head.field(&self.checked.bytes, name)
    }

    /// All fields in the order sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let bytes = &self.checked.bytes;
        self.checked
            .head
            .fields
            .iter()
            .map(|field| (text(field.name.of(bytes)), field.value.of(bytes)))
    }

    /// The whole body, chunked ones put together; empty without one. At most `app.max_body` bytes.
    ///
    /// # Errors
    /// None so far: the body has arrived before the handler is called. A reader that fails or is too slow will be
    /// told here.
    pub fn body(&mut self) -> io::Result<&[u8]> {
        Ok(&self.body)
    }

    /// Where the connection comes from; `None` on a Unix socket. Behind a proxy it is the proxy.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether the service is stopping: what is in flight is finished, and nothing new is taken. A restart is no stop.
    pub fn is_draining(&self) -> bool {
        self.draining
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {})", self.method(), self.path())
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |index: usize| {
            bytes
                .get(index)
                .and_then(|byte| (*byte as char).to_digit(16))
        };
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a handler answers with. `Date`, `Server`, `Content-Length` and `Connection` are hade's to add.
///
/// ```
/// use hade::Response;
/// let made = Response::text("brewing\n").with_status(418).with_header("Retry-After", "120");
/// ```
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
    close: bool,
}

impl Response {
    /// An answer without a body.
    pub fn new(status: u16) -> Response {
        Response {
            status: 200,
            headers: Vec::new(),
            body: Cow::Borrowed(b""),
            close: false,
        }
        .with_status(status)
    }

    /// 200 with a body of this `Content-Type`.
    pub fn bytes(kind: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Response {
        Response {
            body: body.into(),
            ..Response::new(200)
        }
        .with_header("Content-Type", kind)
    }

    /// 200, `text/plain; charset=utf-8`.
    pub fn text(body: impl Into<Cow<'static, str>>) -> Response {
        Response::bytes("text/plain; charset=utf-8", into_bytes(body.into()))
    }

    /// 200, `text/html; charset=utf-8`.
    pub fn html(body: impl Into<Cow<'static, str>>) -> Response {
        Response::bytes("text/html; charset=utf-8", into_bytes(body.into()))
    }

    /// 200, `application/json`.
    pub fn json(body: impl Into<Cow<'static, str>>) -> Response {
        Response::bytes("application/json", into_bytes(body.into()))
    }

    /// The same with another status.
    ///
    /// # Panics
    /// Outside 200 to 599: interim answers are not a handler's to send.
    pub fn with_status(mut self, status: u16) -> Response {
        assert!(
            (200..600).contains(&status),
            "status {status} is not one of 200 to 599"
        );
        self.status = status;
        self
    }

    /// The same with one more header field. `Connection: close` closes the connection after this answer.
    ///
    /// # Panics
    /// When the name is not a token or the value has control bytes (RFC 9110 §5.1, §5.5), and for the fields that
    /// hade sets itself: `Content-Length`, `Transfer-Encoding`, `Date`, `Server`, and `Connection` but for `close`.
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        let (name, value) = (name.into(), value.into());
        assert!(
            !name.is_empty() && name.bytes().all(|byte| head::is(byte, head::TOKEN)),
            "header name {name:?} is not a token"
        );
        let clean = value.bytes().all(|byte| head::is(byte, head::VALUE));
        assert!(clean, "header {name} has control bytes in its value");
        if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            self.close = true;
            return self;
        }
        for own in [
            "Content-Length",
            "Transfer-Encoding",
            "Date",
            "Server",
            "Connection",
        ] {
            assert!(
                !name.eq_ignore_ascii_case(own),
                "header {own} is set by hade"
            );
        }
        self.headers.push((name, value));
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the connection is to be closed after it.
    pub(crate) fn closes(&self) -> bool {
        self.close
    }

    /// 204 and 304 have no body by definition (RFC 9110 §6.4.1), and 204 no `Content-Length` (§8.6) either.
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// Writes the head to `out`, replacing what is there.
    pub(crate) fn render_head(&self, out: &mut Vec<u8>, date: &str, minor: u8, keep_alive: bool) {
        use std::io::Write;
        out.clear();
        out.extend_from_slice(b"HTTP/1.1 ");
        let _ = write!(out, "{} ", self.status);
        for part in [
            reason(self.status),
            "\r\nDate: ",
            date,
            "\r\nServer: hade\r\n",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
        for (name, value) in &self.headers {
            for part in [name.as_ref(), ": ", value.as_ref(), "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        if !self.is_bodiless() {
            out.extend_from_slice(b"Content-Length: ");
            let _ = write!(out, "{}\r\n", self.body.len());
        }
        // HTTP/1.1 keeps a connection unless told otherwise, HTTP/1.0 closes it unless told otherwise.
        match (keep_alive, minor) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The bytes that follow the head in answer to this method.
    pub(crate) fn body_for(&self, method: &str) -> &[u8] {
        if method == "HEAD" || self.is_bodiless() {
            b""
        } else {
            &self.body
        }
    }
}

fn into_bytes(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The phrase behind a status: RFC 9110 §15, RFC 6585.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(response: &Response, minor: u8, keep_alive: bool) -> String {
        let mut out = b"left over".to_vec();
        response.render_head(&mut out, "D", minor, keep_alive);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads_as_the_rfc_wants_them() {
        let hello = Response::text("hi");
        let start = "HTTP/1.1 200 OK\r\nDate: D\r\nServer: hade\r\nContent-Type: text/plain; charset=utf-8\r\n";
        let length = "Content-Length: 2\r\n";
        assert_eq!(rendered(&hello, 1, true), format!("{start}{length}\r\n"));
        assert_eq!(
            rendered(&hello, 0, true),
            format!("{start}{length}Connection: keep-alive\r\n\r\n")
        );
        assert_eq!(
            rendered(&hello, 1, false),
            format!("{start}{length}Connection: close\r\n\r\n")
        );
        assert_eq!(
            (hello.body_for("GET"), hello.body_for("HEAD")),
            (&b"hi"[..], &b""[..])
        );
        for status in [204, 304] {
            let empty = Response::text("no").with_status(status);
            assert!(
                !rendered(&empty, 1, true).contains("Content-Length")
                    && empty.body_for("GET").is_empty()
            );
        }
        assert!(
            Response::new(200)
                .with_header("connection", "Close")
                .closes()
        );
    }

    #[test]
    fn headers_that_would_break_the_framing_are_the_handlers_fault() {
        for (name, value) in [
            ("A b", "c"),
            ("", "c"),
            ("A", "b\r\nC: d"),
            ("A", "b\0"),
            ("content-length", "3"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "keep-alive"),
        ] {
            let built = std::panic::catch_unwind(|| Response::new(200).with_header(name, value));
            assert!(built.is_err(), "{name:?}: {value:?}");
        }
        for status in [0, 100, 101, 199, 600] {
            assert!(
                std::panic::catch_unwind(|| Response::new(status)).is_err(),
                "{status}"
            );
        }
    }

    #[test]
    fn percent_decoding() {
        for (from, to) in [
            ("a+b%20c", "a b c"),
            ("%e2%82%AC", "€"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(percent_decode(from), to);
        }
    }
}
