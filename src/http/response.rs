//! What a handler answers with, and how its head is written.
#![forbid(unsafe_code)]

use super::head;
use super::output::{Flow, Framing, Load, Reader};
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};

/// What a handler answers with. `Date`, `Server`, `Content-Length` and `Connection` are hade's to add.
///
/// ```
/// use hade::Response;
/// let made = Response::text("brewing\n").with_status(418).with_header("Retry-After", "120");
/// ```
#[derive(Debug)]
pub struct Response {
    status: u16,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    content: Content,
    close: bool,
}

/// Where the body comes from.
enum Content {
    Bytes(Cow<'static, [u8]>),
    File(File, u64),
    Stream(Reader, Option<u64>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Content::File(file, length) => write!(f, "File({file:?}, {length})"),
            Content::Stream(_, length) => write!(f, "Stream({length:?})"),
        }
    }
}

impl Response {
    /// An answer without a body.
    pub fn new(status: u16) -> Response {
        Response {
            status: 200,
            headers: Vec::new(),
            content: Content::Bytes(Cow::Borrowed(b"")),
            close: false,
        }
        .with_status(status)
    }

    /// 200 with a body of this `Content-Type`. What the client does not take at once stays in memory, of which
    /// all clients together may have a quarter of what there is: beyond it those who read least are cut off, first of
    /// all one whose answer alone is more. [`Response::file`] and [`Response::stream`] need no memory.
    pub fn bytes(kind: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Response {
        Response::of(kind, Content::Bytes(body.into()))
    }

    fn of(kind: &'static str, content: Content) -> Response {
        Response {
            content,
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

    /// 200 with what is left of a file, from where it stands. The kernel sends it straight from the page cache
    /// (`sendfile(2)`), and a client that reads slowly holds neither a thread nor memory.
    ///
    /// # Errors
    /// Not a regular file, or its length cannot be read.
    pub fn file(kind: &'static str, mut file: File) -> io::Result<Response> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let length = metadata.len().saturating_sub(file.stream_position()?);
        Ok(Response::of(kind, Content::File(file, length)))
    }

    /// 200 with a body that is made while it is sent: what one `read` returns goes out at once, and the next follows
    /// when the client has taken that, so no more than 32 KiB wait in memory. With a length exactly so many bytes are
    /// sent; without one the body is chunked, or ends with the connection for a client of HTTP/1.0. A reader that
    /// fails, ends early or panics has the connection reset, so that the client knows (on a Unix socket a client of
    /// HTTP/1.0 cannot know). The reader may be dropped by a thread that serves others, so that must not take long.
    pub fn stream(
        kind: &'static str,
        length: Option<u64>,
        reader: impl Read + Send + 'static,
    ) -> Response {
        Response::of(kind, Content::Stream(Reader::new(reader), length))
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

    /// The body, where it is in memory; empty for a file and a stream.
    pub fn body(&self) -> &[u8] {
        match &self.content {
            Content::Bytes(bytes) => bytes,
            _ => b"",
        }
    }

    /// Bytes of the body; `None` where it ends when it ends.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes.len() as u64),
            Content::File(_, length) => Some(*length),
            Content::Stream(_, length) => *length,
        }
    }

    /// Whether the body is there, so that one call may send all.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.content, Content::Bytes(_))
    }

    /// What follows the head in answer to this method.
    pub(crate) fn into_load(self, method: &str, minor: u8) -> Load {
        if method == "HEAD" || self.is_bodiless() {
            return Load::Bytes(Cow::Borrowed(b""), 0);
        }
        match self.content {
            Content::Bytes(bytes) => Load::Bytes(bytes, 0),
            Content::File(file, length) => Load::File(file, length),
            Content::Stream(reader, length) => {
                let framing = match (length, minor) {
                    (Some(length), _) => Framing::Known(length),
                    (None, 0) => Framing::UntilClose,
                    (None, _) => Framing::Chunked,
                };
                Load::Stream(Flow::new(reader, framing))
            }
        }
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
        match self.length() {
            _ if self.is_bodiless() => {}
            Some(length) => {
                out.extend_from_slice(b"Content-Length: ");
                let _ = write!(out, "{length}\r\n");
            }
            None if minor > 0 => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            None => {}
        }
        // HTTP/1.1 keeps a connection unless told otherwise, HTTP/1.0 closes it unless told otherwise.
        match (keep_alive, minor) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The bytes in memory that follow the head in answer to this method.
    pub(crate) fn body_for(&self, method: &str) -> &[u8] {
        if method == "HEAD" || self.is_bodiless() {
            b""
        } else {
            self.body()
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
}
