//! What comes in: heads checked, bodies collected, whole requests made. It knows one connection at a time and says what
//! is next to do with it ([`Step`]); what cannot be served is refused as early as it is known.
#![forbid(unsafe_code)]

use super::body::{Chunked, Progress, TOO_LARGE};
use super::bounds::Bounds;
use super::checked::Checked;
use super::connection::{Connection, Incoming, Reading, Step, is_head};
use super::exchange::Work;
use super::expire::Phase;
use super::head::{Length, Parser, Refusal};
use super::numbers::Asked;
use super::permits::Permit;
use super::request::Request;
use super::routes::{Needs, Routes};
use super::upload::{Body, Framing, Rest};
use crate::sys::epoll::Interest;
use crate::sys::socket;
use std::borrow::Cow;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a body that are collected before a thread is used; a longer one is read on by its handler.
const COLLECT: usize = 64 * 1024;

/// By what a request is read.
pub(super) struct Receiver<'a> {
    bounds: &'a Bounds,
    routes: &'a Routes,
    /// The time, on the exchange's clock.
    now: u64,
    /// A stop is coming.
    is_stopping: bool,
}

impl<'a> Receiver<'a> {
    pub fn new(
        bounds: &'a Bounds,
        routes: &'a Routes,
        now: u64,
        is_stopping: bool,
    ) -> Receiver<'a> {
        Receiver {
            bounds,
            routes,
            now,
            is_stopping,
        }
    }

    /// These bytes have come.
    pub fn take(&self, connection: &mut Connection, bytes: &[u8]) -> Step {
        debug_assert!(!connection.has_next(), "it is lost");
        match std::mem::take(&mut connection.reading) {
            Reading::Body(incoming) => self.collect(connection, incoming, bytes),
            // The usual case: a whole head in one piece, looked at where it lies.
            Reading::Nothing => self.parse(connection, Parser::new(), Cow::Borrowed(bytes)),
            Reading::Head(parser) => {
                let mut input = std::mem::take(&mut connection.input);
                input.extend_from_slice(bytes);
                self.parse(connection, *parser, Cow::Owned(input))
            }
        }
    }

    /// Reads on in what came with the last request.
    pub fn go_on(&self, connection: &mut Connection) -> Step {
        let input = std::mem::take(&mut connection.input);
        self.parse(connection, Parser::new(), Cow::Owned(input))
    }

    fn parse(&self, connection: &mut Connection, mut parser: Parser, input: Cow<'_, [u8]>) -> Step {
        if parser.is_untouched() {
            connection.first = self.now;
        }
        let head = parser.advance(&input, &self.bounds.limits);
        if !matches!(head, Ok(Some(_))) {
            self.know_origin(connection, None);
        }
        let head = match head {
            Ok(Some(head)) => head,
            Ok(None) => {
                let deadline = self.now + self.bounds.head;
                connection.input = input.into_owned();
                let is_begun = !parser.is_untouched();
                connection.reading = Reading::Head(Box::new(parser));
                if !is_begun {
                    // An empty line between two requests, which is not worth more than none (RFC 9112 §2.2).
                    if connection.phase == Phase::Lent {
                        connection.phase = Phase::Idle;
                    }
                    return Step::Wait(Interest::ReadableEdge);
                }
                // A new connection has had its time since it was accepted, and a begun head since its first byte.
                if connection.phase == Phase::Idle || connection.phase == Phase::Lent {
                    connection.deadline = deadline;
                }
                connection.phase = Phase::Head;
                return Step::Wait(Interest::ReadableEdge);
            }
            Err(why) => {
                let is_head = is_head(&input);
                connection.input = input.into_owned();
                return Step::Refuse {
                    why,
                    is_head,
                    checked: None,
                };
            }
        };
        let (bytes, rest) = input.split_at(head.size);
        let mut checked = Checked::new(bytes.to_vec(), head);
        checked.begun = connection.first;
        self.know_origin(connection, Some(&checked));
        if checked.head.is_https && !self.trusts(connection) {
            // Only who has taken TLS off in front can know that it was asked for by https (RFC 9110 §7.4).
            let why = Refusal::new(421, "https in the target on a plain connection");
            return refuse(why, checked);
        }
        if matches!(checked.head.length, Length::None | Length::Known(0)) {
            return self.complete(connection, checked, Body::default(), rest.to_vec());
        }
        self.start_body(connection, checked, rest)
    }

    /// Whether the peer is one of those who ask for others.
    fn trusts(&self, connection: &Connection) -> bool {
        let peer = connection.client.peer.map(|peer| peer.ip());
        self.bounds.proxies.trusts(peer)
    }

    /// Notes who asks, where the peer is believed; with a head that is not complete or cannot be read nobody knows.
    fn know_origin(&self, connection: &Connection, checked: Option<&Checked>) {
        let (client, proxies) = (&connection.client, &self.bounds.proxies);
        if self.trusts(connection) {
            let origin = checked.map(|checked| {
                let fields = checked.head.fields.iter().filter(|field| {
                    let name = field.name.of(&checked.bytes);
                    name.eq_ignore_ascii_case(b"X-Forwarded-For")
                });
                let fields = fields.map(|field| field.value.of(&checked.bytes));
                proxies.origin(client.peer, fields)
            });
            client.set_origin(origin);
        }
    }

    /// A head with a body behind it is complete.
    fn start_body(&self, connection: &mut Connection, checked: Checked, rest: &[u8]) -> Step {
        let max = self
            .routes
            .body_limit(checked.method(), checked.path(), self.bounds.max_body);
        let is_long = match checked.head.length {
            Length::Known(length) => {
                if max.is_some_and(|max| length > max) {
                    return self.refuse_body(connection, TOO_LARGE, checked);
                }
                length > COLLECT as u64
            }
            _ => false,
        };
        let expects = checked.head.expects_continue && rest.is_empty();
        if max.is_none() && (expects || is_long) {
            // Nobody takes it, and it is not there yet: the answer need not wait for it (RFC 9110 §10.1.1).
            return self.complete(connection, checked, Body::unwanted(), Vec::new());
        }
        let begun = self.now;
        connection.phase = Phase::Body;
        if expects {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            // Nothing else waits in this socket, so so few bytes fit, or it is of no use.
            if !socket::send(connection.client.as_fd(), &[IoSlice::new(interim)])
                .is_ok_and(|sent| sent == interim.len())
            {
                return Step::Close;
            }
        }
        let incoming = Incoming {
            checked,
            body: Vec::new(),
            chunked: Chunked::new(),
            max,
            begun,
            received: 0,
        };
        self.collect(connection, Box::new(incoming), rest)
    }

    /// Adds to a body, and sends the request on when it is complete, or so long that its handler is to read it.
    fn collect(
        &self,
        connection: &mut Connection,
        mut incoming: Box<Incoming>,
        bytes: &[u8],
    ) -> Step {
        let max = incoming.max.unwrap_or(self.bounds.max_body);
        let (used, done) = match incoming.checked.head.length {
            Length::Chunked => {
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                match incoming.chunked.decode(bytes, &mut incoming.body, max) {
                    Ok((used, progress)) => (used, progress == Progress::Done),
                    Err(why) => {
                        return self.refuse_body(connection, why, incoming.checked);
                    }
                }
            }
            _ => {
                let left = incoming.left();
                let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                incoming.body.extend_from_slice(&bytes[..used]);
                (used, used as u64 == left)
            }
        };
        incoming.received += used as u64;
        if done {
            let Incoming { checked, body, .. } = *incoming;
            let body = Body::new(body, None);
            return self.complete(connection, checked, body, bytes[used..].to_vec());
        }
        let deadline = self
            .bounds
            .transfer(self.now, incoming.begun, incoming.received);
        let is_long = incoming.body.len() > COLLECT;
        if is_long {
            return match incoming.max {
                Some(_) => Step::Upload(incoming),
                None => self.complete(connection, incoming.checked, Body::unwanted(), Vec::new()),
            };
        }
        connection.deadline = deadline;
        connection.reading = Reading::Body(incoming);
        Step::Wait(Interest::ReadableEdge)
    }

    /// A thread may read the rest of a long body: the request goes to a handler as it is.
    pub fn upload(&self, connection: &mut Connection, incoming: Incoming, permit: Permit) -> Step {
        let left = incoming.left();
        let age = Duration::from_millis(self.now.saturating_sub(incoming.begun));
        let Incoming {
            checked,
            body,
            chunked,
            max,
            received,
            ..
        } = incoming;
        let rest = Rest {
            client: Arc::clone(&connection.client),
            framing: match checked.head.length {
                Length::Chunked => Framing::Chunked(chunked),
                _ => Framing::Known(left),
            },
            max: max.unwrap_or(self.bounds.max_body),
            progress: Duration::from_millis(self.bounds.progress),
            since: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            received,
            _permit: permit,
        };
        let body = Body::new(body, Some(Box::new(rest)));
        self.complete(connection, checked, body, Vec::new())
    }

    /// A request is here that can be answered, and `more` behind it.
    fn complete(
        &self,
        connection: &mut Connection,
        checked: Checked,
        body: Body,
        more: Vec<u8>,
    ) -> Step {
        let checked = Arc::new(checked);
        let (method, path) = (checked.method(), checked.path());
        let is_health = self.routes.is_health(method, path, self.is_stopping);
        if is_health && body.is_complete() {
            return Step::Health {
                checked,
                rest: more,
            };
        }
        let asked = Asked::of(self.bounds, self.routes, &connection.client, &checked);
        if let Some(asked) = asked.filter(|_| body.is_complete()) {
            return Step::Numbers {
                asked,
                checked,
                rest: more,
            };
        }
        let needs = match body.is_complete() {
            false => Needs::Handler,
            true => match self.routes.at_once(&checked) {
                Err(needs) => needs,
                Ok(response) => {
                    return Step::Ready {
                        response,
                        checked,
                        rest: more,
                    };
                }
            },
        };
        connection.input = more;
        let (peer, client) = (connection.client.peer, connection.client.address());
        let request = Box::new(Request::of(checked, body, peer, client));
        match needs {
            Needs::Handler => Step::Lend(request),
            Needs::Patience => Step::Fetch(Work::Answer(request)),
        }
    }

    /// A request whose head is good, and whose body is not to be had: its refusal goes through the hooks of its path,
    /// where it has some.
    fn refuse_body(&self, connection: &mut Connection, why: Refusal, checked: Checked) -> Step {
        match self.routes.has_hooks(checked.path()) {
            true => self.complete(connection, checked, Body::refused(why), Vec::new()),
            false => refuse(why, checked),
        }
    }
}

fn refuse(why: Refusal, checked: Checked) -> Step {
    Step::Refuse {
        why,
        is_head: checked.method() == "HEAD",
        checked: Some(Arc::new(checked)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client::Client;
    use crate::http::pattern::Page;
    use crate::http::response::Response;
    use crate::settings::{Overrides, Settings};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    const NOW: u64 = 50_000;

    fn rules() -> (Bounds, Routes) {
        let settings = Settings::without_file(&Overrides::default(), &|_| None).unwrap();
        let mut routes = Routes::default();
        let take = Page::Handler(Box::new(|_| Response::new(204)));
        routes.add("POST", "/take", take);
        for path in ["/a", "/b"] {
            let page = Page::Handler(Box::new(|_| Response::new(200)));
            routes.add("GET", path, page);
        }
        routes.limit("/take", 100_000);
        (Bounds::new(&settings), routes)
    }

    /// A connection that was accepted at the time 0, and its client's end.
    fn fresh() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = Client::new(ours.into(), None);
        (
            Connection::new(client, Phase::Fresh, 0, 60_000, None),
            theirs,
        )
    }

    /// What comes of these pieces, the last step, in a few words.
    fn outcome(connection: &mut Connection, pieces: &[&[u8]]) -> String {
        let (bounds, routes) = rules();
        let receiver = Receiver::new(&bounds, &routes, NOW, false);
        let mut said = String::new();
        for piece in pieces {
            said = match receiver.take(connection, piece) {
                Step::Wait(interest) => format!("wait {interest:?}, {:?}", connection.phase),
                Step::Refuse { why, is_head, .. } => format!("refuse {} {is_head}", why.status),
                Step::Ready { response, rest, .. } => {
                    format!("{}, {} more", response.status(), rest.len())
                }
                Step::Health { rest, .. } => format!("health, {} more", rest.len()),
                Step::Lend(request) => {
                    let (method, path) = (request.method().to_owned(), request.path().to_owned());
                    let body = request.body.held();
                    let is_whole = request.body.is_complete();
                    let more = connection.input.len();
                    format!("lend {method} {path}, body {body} {is_whole}, {more} more")
                }
                Step::Upload(incoming) => format!("upload after {}", incoming.received),
                Step::Close => "close".to_owned(),
                _ => "another step".to_owned(),
            };
        }
        said
    }

    #[test]
    fn every_way_that_bytes_can_take() {
        let long = [b'x'; COLLECT + 1];
        let waits = "wait ReadableEdge";
        let table: [(&[&[u8]], String); 16] = [
            // What has no handler is answered at once.
            (
                &[b"GET /none HTTP/1.1\r\nHost: t\r\n\r\nGET"],
                "404, 3 more".into(),
            ),
            (
                &[b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx"],
                "405, 0 more".into(),
            ),
            (
                &[b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"],
                "lend GET /a, body 0 true, 0 more".into(),
            ),
            (
                &[b"GET /a HTTP/1.1\r\n", b"Host: t\r\n\r\nGET"],
                "lend GET /a, body 0 true, 3 more".into(),
            ),
            (&[b"GET /a"], format!("{waits}, Head")),
            (&[b"\r\n"], format!("{waits}, Fresh")),
            (&[b"GET a"], format!("{waits}, Head")),
            (
                &[b"GET /a HTTP/3.0\r\nHost: t\r\n\r\n"],
                "refuse 505 false".into(),
            ),
            (
                &[b"HEAD /a HTTP/3.0\r\nHost: t\r\n\r\n"],
                "refuse 505 true".into(),
            ),
            (
                &[b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\nGET"],
                "health, 3 more".into(),
            ),
            (
                &[
                    b"POST /take HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n",
                    b"hel",
                ],
                format!("{waits}, Body"),
            ),
            (
                &[
                    b"POST /take HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhel",
                    b"loGE",
                ],
                "lend POST /take, body 5 true, 2 more".into(),
            ),
            (
                &[b"POST /take HTTP/1.1\r\nHost: t\r\nContent-Length: 100001\r\n\r\n"],
                "refuse 413 false".into(),
            ),
            (
                &[
                    b"POST /take HTTP/1.1\r\nHost: t\r\nContent-Length: 99999\r\n\r\n",
                    &long,
                ],
                format!("upload after {}", COLLECT + 1),
            ),
            (
                &[b"POST /take HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx"],
                "refuse 400 false".into(),
            ),
            // Nobody takes it, and it is long: it is answered unread.
            (
                &[b"POST /none HTTP/1.1\r\nHost: t\r\nContent-Length: 99999\r\n\r\n"],
                "lend POST /none, body 0 false, 0 more".into(),
            ),
        ];
        for (pieces, expected) in table {
            let (mut connection, _theirs) = fresh();
            let first = String::from_utf8_lossy(pieces[0]);
            assert_eq!(outcome(&mut connection, pieces), expected, "{first}");
        }
    }

    #[test]
    fn a_begun_head_has_its_time_from_its_first_byte_and_a_new_connection_since_it_came() {
        let (bounds, routes) = rules();
        let receiver = Receiver::new(&bounds, &routes, NOW, false);
        for (phase, deadline) in [(Phase::Fresh, 60_000), (Phase::Idle, NOW + bounds.head)] {
            let (mut connection, _theirs) = fresh();
            connection.phase = phase;
            for _ in 0..2 {
                receiver.take(&mut connection, b"G");
                assert_eq!(
                    (connection.phase, connection.deadline),
                    (Phase::Head, deadline)
                );
            }
        }
    }

    #[test]
    fn what_came_with_the_last_request_is_read_on() {
        let (bounds, routes) = rules();
        let receiver = Receiver::new(&bounds, &routes, NOW, false);
        let (mut connection, _theirs) = fresh();
        connection.phase = Phase::Lent;
        connection.input = b"\r\n".to_vec();
        // An empty line is no request: the connection is the gate's, and idle.
        assert!(matches!(receiver.go_on(&mut connection), Step::Wait(_)));
        assert_eq!(
            (connection.phase, connection.deadline),
            (Phase::Idle, 60_000)
        );
        let rest = b"GET /b HTTP/1.1\r\nHost: t\r\n\r\n";
        assert!(matches!(
            receiver.take(&mut connection, rest),
            Step::Lend(_)
        ));
    }

    #[test]
    fn who_waits_to_be_told_to_go_on_is_told_if_the_body_is_wanted() {
        for (path, told) in [("/take", "HTTP/1.1 100 Continue\r\n\r\n"), ("/none", "")] {
            let (mut connection, mut theirs) = fresh();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
            );
            outcome(&mut connection, &[head.as_bytes()]);
            drop(connection);
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, told);
        }
        let (mut connection, theirs) = fresh();
        drop(theirs);
        let head =
            b"POST /take HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(outcome(&mut connection, &[head]), "close");
    }
}
