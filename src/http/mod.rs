//! What a handler is given: [`Request`]. What it answers with is in `response.rs`; the gate, the server behind it and
//! the routes live in the files beside this one.
#![forbid(unsafe_code)]

pub(crate) mod body;
pub(crate) mod exchange;
pub(crate) mod gate;
pub(crate) mod head;
mod leave;
mod output;
mod receive;
mod refusals;
pub(crate) mod response;
pub(crate) mod routes;
mod send;
pub(crate) mod server;
mod upload;

use head::Head;
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use upload::Body;

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

/// A request whose head is checked by RFC 9112. A body of up to 64 KiB has arrived with it; what is longer comes while
/// the handler reads it.
pub struct Request {
    pub(crate) checked: Arc<Checked>,
    pub(crate) body: Body,
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

    /// The whole body, chunked ones put together; empty without one. At most `app.max_body` bytes, or what
    /// `App::max_body` allows this path, and all of it in memory: [`Request::body_reader`] is for long ones. What was
    /// read there is not here.
    ///
    /// # Errors
    /// As [`Request::body_reader`] says; none for a body of up to 64 KiB, which has arrived before the handler is called.
    pub fn body(&mut self) -> io::Result<&[u8]> {
        self.body.whole()
    }

    /// The body as it arrives, chunked ones put together. A body that is not read to its end costs the connection.
    ///
    /// # Errors
    /// - `TimedOut`: no more came for `app.io_timeout`, or less than 500 bytes per second over a longer time.
    /// - `InvalidData`: malformed, or longer than allowed.
    /// - `UnexpectedEof`: the client is gone.
    ///
    /// After an error the client is answered 408, 400 or 413, if it is still there, whatever the handler returns.
    pub fn body_reader(&mut self) -> impl Read {
        &mut self.body
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

#[cfg(test)]
mod tests {
    use super::*;

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
