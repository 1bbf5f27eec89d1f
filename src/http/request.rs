//! What a handler is given: [`Request`]. What it answers with is in `response.rs`.
#![forbid(unsafe_code)]

use super::body::TOO_LARGE;
use super::checked::Checked;
use super::client::Client;
use super::conditions;
use super::cookie;
use super::escape;
use super::failure::Error;
use super::form::{Form, Login};
use super::head::{Limits, Parser};
use super::upload::{Body, Failure};
use crate::sys::socket;
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A request whose head is checked by RFC 9112. A body of up to 64 KiB has arrived with it; what is longer comes while
/// the handler reads it.
///
/// ```
/// use hade::{App, Request};
///
/// fn greet(request: &mut Request) -> String {
///     let name = request.param("name").unwrap_or("World".to_owned());
///     format!("Hello, {name}!\n")
/// }
///
/// let client = App::new("greeter").get("/", greet).test();
/// assert_eq!(client.get("/?name=Uma").into_text(), "Hello, Uma!\n");
/// ```
pub struct Request {
    pub(crate) checked: Arc<Checked>,
    pub(crate) body: Body,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) client: Option<IpAddr>,
    /// `None` until a handler's thread has it.
    pub(crate) worker: Option<Worker>,
    pub(crate) connection: Option<Arc<Client>>,
    /// What the path has in the places that the route names.
    pub(crate) params: Params,
    /// When the first hook was asked.
    pub(crate) since: Option<Instant>,
}

/// Names of a route's parameters, and where in the path their values are. Without any nothing is allocated.
#[derive(Default)]
pub(crate) struct Params {
    pub names: Option<Arc<[String]>>,
    pub places: Vec<Range<usize>>,
}

/// The worker process that answers a request, from [`Request::worker`]. A long answer keeps it, to learn when to end: a
/// restart and a stop wait for `app.close_wait`, and then cut what is not finished.
///
/// ```no_run
/// use hade::{App, Request, Response, Worker};
/// use std::io::{self, Read};
/// use std::time::Duration;
///
/// /// An event a second. A client connects anew where a stream ends, and finds the next worker.
/// struct Ticks(Worker);
///
/// impl Read for Ticks {
///     fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
///         // What waits for events waits no longer than this, so that it looks again.
///         std::thread::sleep(Duration::from_secs(1));
///         if self.0.is_leaving() {
///             return Ok(0);
///         }
///         io::Cursor::new("data: tick\n\n").read(buffer)
///     }
/// }
///
/// fn ticks(request: &mut Request) -> Response {
///     Response::stream("text/event-stream", None, Ticks(request.worker()))
/// }
///
/// App::new("ticker").get("/ticks", ticks).main();
/// ```
#[derive(Debug, Clone, Default)]
pub struct Worker(Arc<Standing>);

/// A program's own settings, by name.
pub(crate) type OwnSettings = Vec<(String, String)>;

/// How a worker stands. But for `closing`, where another worker comes after all, each of these becomes true once and stays so.
#[derive(Debug, Default)]
struct Standing {
    draining: AtomicBool,
    closing: AtomicBool,
    stopping: AtomicBool,
    ending: AtomicBool,
    settings: OwnSettings,
}

impl Worker {
    pub(crate) fn new(settings: OwnSettings) -> Worker {
        Worker(Arc::new(Standing {
            settings,
            ..Standing::default()
        }))
    }

    /// The value of a setting of the program's own, which [`App::setting`](crate::App::setting) has named.
    ///
    /// ```
    /// use hade::App;
    ///
    /// App::new("notes")
    ///     .setting("notes_dir", "notes", "where notes are kept")
    ///     .boot(|worker| std::fs::create_dir_all(worker.setting("notes_dir")));
    /// ```
    ///
    /// # Panics
    /// A name that the program has not named.
    #[track_caller]
    pub fn setting(&self, name: &str) -> &str {
        own_setting(&self.0.settings, name)
    }

    /// Whether it leaves, for a restart or for a stop: what is in flight is finished, and a worker that comes after it, if
    /// there is one, has what is new. Once true it stays so. During `app.stop_delay` it is not yet. A thread that
    /// [`App::boot`](crate::App::boot) started ends by it:
    ///
    /// ```
    /// use hade::App;
    /// use std::thread;
    /// use std::time::Duration;
    ///
    /// App::new("cleaner").boot(|worker| {
    ///     let worker = worker.clone();
    ///     thread::Builder::new().name("cleaner".into()).spawn(move || {
    ///         while !worker.is_leaving() {
    ///             // Cleans.
    ///             thread::sleep(Duration::from_secs(1));
    ///         }
    ///     })
    /// });
    /// ```
    pub fn is_leaving(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Whether every answer is the last on its connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::SeqCst) || self.is_stopping()
    }

    /// Whether it is about to leave for good, and serves until then.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    /// Whether it leaves for good, or is about to: not for a restart.
    pub(crate) fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::SeqCst) || self.is_stopping()
    }

    /// It leaves for good.
    pub(crate) fn set_ending(&self) {
        self.0.ending.store(true, Ordering::SeqCst);
    }

    /// A stop is coming.
    pub(crate) fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }

    /// It leaves; connections end with their answers, or go to another worker.
    pub(crate) fn set_leaving(&self, closing: bool) {
        self.0.closing.store(closing, Ordering::SeqCst);
        self.0.draining.store(true, Ordering::SeqCst);
    }
}

/// The value of a setting that the program has named.
#[track_caller]
pub(crate) fn own_setting<'a>(settings: &'a OwnSettings, name: &str) -> &'a str {
    match settings.iter().find(|(own, _)| own == name) {
        Some((_, value)) => value,
        None => panic!("{name:?} is no setting of this program: App::setting names them"),
    }
}

impl Request {
    pub(crate) fn of(
        checked: Arc<Checked>,
        body: Body,
        peer: Option<SocketAddr>,
        client: Option<IpAddr>,
    ) -> Request {
        Request {
            checked,
            body,
            peer,
            client,
            worker: None,
            connection: None,
            params: Params::default(),
            since: None,
        }
    }

    /// A request for a test, which [`TestClient::send`](crate::TestClient::send) takes. The target is a path, with a query
    /// where there is one.
    ///
    /// ```
    /// use hade::Request;
    /// let request = Request::new("POST", "/notes?draft=1")
    ///     .with_header("Content-Type", "text/plain")
    ///     .with_body("buy milk");
    /// assert_eq!((request.path(), request.param("draft")), ("/notes", Some("1".to_owned())));
    /// ```
    ///
    /// # Panics
    /// What no client could send.
    #[track_caller]
    pub fn new(method: &str, target: &str) -> Request {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Request::of(read_head(text.into_bytes()), Body::default(), None, None)
    }

    /// The same with one more field; `Host` replaces the one that is there. For tests.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("Accept", "text/html");
    /// assert_eq!(request.header_text("accept"), Some("text/html"));
    /// ```
    ///
    /// # Panics
    /// What no client could send.
    #[track_caller]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        let is_host = name.eq_ignore_ascii_case("host");
        let query = self.query().map(|query| format!("?{query}"));
        let mut head = format!(
            "{} {}{} HTTP/1.1\r\n",
            self.method(),
            self.path(),
            query.unwrap_or_default()
        )
        .into_bytes();
        let fields = self.headers().map(|(name, value)| (name.to_owned(), value));
        let kept = fields.filter(|(name, _)| !(is_host && name.eq_ignore_ascii_case("host")));
        let more = (name.to_owned(), value.as_ref());
        for (name, value) in kept.chain([more]) {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        self.checked = read_head(head);
        self
    }

    /// The same with a body. For tests.
    ///
    /// ```
    /// let mut request = hade::Request::new("PUT", "/notes/7").with_body("buy milk");
    /// assert_eq!(request.body().unwrap(), b"buy milk");
    /// ```
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Body::new(body.into(), None);
        self
    }

    /// Refuses a body that is longer than this many bytes, as the gate does.
    pub(crate) fn bound_body(&mut self, most: u64) {
        if self.body.held() as u64 > most {
            self.body = Body::refused(TOO_LARGE);
        }
    }

    /// Whether the client has gone away in the middle of its body.
    pub(crate) fn is_broken_off(&self) -> bool {
        matches!(self.body.failure(), Some(Failure::Gone))
    }

    /// The same from a client of this address. For tests.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_client([192, 0, 2, 7]);
    /// assert_eq!(request.client().unwrap().to_string(), "192.0.2.7");
    /// ```
    pub fn with_client(mut self, client: impl Into<IpAddr>) -> Request {
        self.client = Some(client.into());
        self
    }

    /// The method as sent: `GET`, `POST`, or any other token. Methods are case-sensitive.
    ///
    /// ```
    /// assert_eq!(hade::Request::new("GET", "/").method(), "GET");
    /// ```
    pub fn method(&self) -> &str {
        self.checked.method()
    }

    /// The path, from its first `/` to before the `?`; `*` for `OPTIONS *`. It is not decoded, but all of its spellings
    /// have one form, in which routes are compared: escapes of letters, digits and `-._~` are taken off (`/%68ello` is
    /// `/hello`), and the digits of the others are capitals (RFC 3986 §6.2.2).
    ///
    /// ```
    /// assert_eq!(hade::Request::new("GET", "/%68ello%2f?x=1").path(), "/hello%2F");
    /// ```
    pub fn path(&self) -> &str {
        self.checked.path()
    }

    /// What the path has at `{name}` or `{*name}` of the route, percent-decoded, as any type that can be read from text.
    ///
    /// A route takes a path only where each part that stands for a `{name}` is one name of a file: it is not empty and
    /// neither `.` nor `..`, and when it is decoded there is no slash and no NUL in it. What stands for `{*name}` is one
    /// or more of these with slashes between them, and perhaps one at the end. So a path made of them and of a directory leads nowhere above that
    /// directory; symbolic links are another matter.
    ///
    /// ```
    /// use hade::App;
    ///
    /// let client = App::new("shop")
    ///     .get("/users/{id}/tags/{tag}", |request| -> hade::Result<String> {
    ///         let id: u32 = request.path_param("id")?;
    ///         let tag: String = request.path_param("tag")?;
    ///         Ok(format!("{id} {tag}"))
    ///     })
    ///     .test();
    /// assert_eq!(client.get("/users/7/tags/red%20wine").into_text(), "7 red wine");
    /// assert_eq!(client.get("/users/me/tags/red").status(), 404);
    /// ```
    ///
    /// # Errors
    /// 404 for text that the type cannot be read from: there is no such page. 500 where the route has no such name, which
    /// the log says.
    pub fn path_param<T: FromStr>(&self, name: &str) -> Result<T, Error> {
        let Params { names, places } = &self.params;
        let mut names = names.iter().flat_map(|names| names.iter());
        let Some(place) = names.position(|own| own == name) else {
            let why = format!("the route has no {{{name}}}");
            return Err(Error::new(500, "this page failed").because(why));
        };
        let text = escape::decode(&self.path()[places[place].clone()], false);
        let read = text.parse();
        read.map_err(|_| Error::new(404, "no such page"))
    }

    /// The host asked for, with `:` and a port where one was sent, as sent: the one in the target, where that is a whole
    /// URI, or else the `Host` field (RFC 9112 §3.2.2); [`Request::header`] says the same. It may be empty, and is
    /// `None` in requests of HTTP/1.0 without it. Anybody may ask for any host: compare before use.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("Host", "example.org:8080");
    /// assert_eq!(request.host(), Some("example.org:8080"));
    /// ```
    pub fn host(&self) -> Option<&str> {
        self.checked.host()
    }

    /// What stands behind the first `?`, as sent; `None` without one.
    ///
    /// ```
    /// assert_eq!(hade::Request::new("GET", "/?a=1&b").query(), Some("a=1&b"));
    /// ```
    pub fn query(&self) -> Option<&str> {
        self.checked.query()
    }

    /// The first value of a query parameter (`?name=value&…`), percent-decoded, `+` read as a blank; bytes that are
    /// not UTF-8 become U+FFFD. A name without `=` has an empty value.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/?q=red+wine&page=2");
    /// assert_eq!(request.param("q").as_deref(), Some("red wine"));
    /// let page: u32 = request.param("page").and_then(|text| text.parse().ok()).unwrap_or(1);
    /// assert_eq!(page, 2);
    /// ```
    pub fn param(&self, name: &str) -> Option<String> {
        let mut pairs = escape::pairs(self.query()?);
        pairs.find_map(|(found, value)| (found == name).then_some(value))
    }

    /// The first field of this name, in any case of letters: without surrounding blanks, otherwise as sent, so it may
    /// hold bytes above 127 (RFC 9110 §5.5).
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("X-Name", b"\xe9");
    /// assert_eq!(request.header("x-name"), Some(&b"\xe9"[..]));
    /// ```
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.checked.head.field(&self.checked.bytes, name)
    }

    /// The same as text; `None` as well where it is not UTF-8.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("Accept-Language", "de");
    /// assert_eq!(request.header_text("Accept-Language"), Some("de"));
    /// ```
    pub fn header_text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// All fields in the order sent.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("Accept", "*/*");
    /// assert_eq!(request.headers().last(), Some(("Accept", &b"*/*"[..])));
    /// ```
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.checked.fields()
    }

    /// The lines of a field as one list (RFC 9110 §5.3).
    pub(crate) fn joined(&self, name: &str) -> Option<Vec<u8>> {
        let lines = self.headers();
        let mut values = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let first = values.next()?.1.to_vec();
        Some(values.fold(first, |all, (_, value)| [&all, &b", "[..], value].concat()))
    }

    /// The value of a cookie, with what [`Cookie`](crate::Cookie) escapes taken off. Clients can send what they like.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("Cookie", "theme=dark; lang=de");
    /// assert_eq!(request.cookie("lang").as_deref(), Some("de"));
    /// ```
    pub fn cookie(&self, name: &str) -> Option<String> {
        let mut fields = self
            .headers()
            .filter(|(field, _)| field.eq_ignore_ascii_case("cookie"));
        fields.find_map(|(_, value)| cookie::find(std::str::from_utf8(value).ok()?, name))
    }

    /// Whether the client has the state of this tag already, by `If-None-Match`: [`Response::not_modified`] is enough
    /// for it then. `with_etag` tells it the tag.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("If-None-Match", "\"41\", W/\"42\"");
    /// assert!(request.knows("42") && !request.knows("43"));
    /// ```
    ///
    /// [`Response::not_modified`]: crate::Response::not_modified
    pub fn knows(&self, tag: impl AsRef<str>) -> bool {
        let tag = format!("\"{}\"", tag.as_ref());
        let is_read = matches!(self.method(), "GET" | "HEAD");
        is_read
            && self
                .joined("If-None-Match")
                .is_some_and(|known| conditions::is_known(&known, &tag))
    }

    /// Name and password of the client (`Authorization: Basic`, RFC 7617), which are in the clear without TLS in front.
    /// [`Response::unauthorized`](crate::Response::unauthorized) has a browser ask for them.
    ///
    /// ```
    /// let request = hade::Request::new("GET", "/").with_header("Authorization", "Basic dW1hOmE6Yg==");
    /// let login = request.basic_auth().unwrap();
    /// assert!(login.is("uma", "a:b") && !login.is("uma", "a"));
    /// ```
    pub fn basic_auth(&self) -> Option<Login> {
        Login::parse(self.header_text("Authorization")?)
    }

    /// Whether the client has sent this token (`Authorization: Bearer`, RFC 6750). How long that takes to say does not
    /// depend on how much of it was right. No token at all is never right.
    ///
    /// ```
    /// let request = hade::Request::new("PUT", "/").with_header("Authorization", "Bearer s3cret");
    /// assert!(request.has_bearer("s3cret") && !request.has_bearer("") && !request.has_bearer("s3creT"));
    /// ```
    pub fn has_bearer(&self, token: &str) -> bool {
        let field = self.header_text("Authorization").unwrap_or_default();
        let sent = match field.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => "",
        };
        !token.is_empty() && super::form::is_same(sent.as_bytes(), token.as_bytes())
    }

    /// The whole body, chunked ones put together; empty without one. At most `app.max_body` bytes, or what
    /// `App::max_body` allows this path, and all of it in memory: [`Request::body_reader`] is for long ones. What was
    /// read there is not here.
    ///
    /// ```
    /// use hade::{App, Request};
    ///
    /// let client = App::new("echo")
    ///     .post("/echo", |request| -> hade::Result<String> {
    ///         Ok(String::from_utf8(request.body()?.to_vec())?)
    ///     })
    ///     .test();
    /// assert_eq!(client.send(Request::new("POST", "/echo").with_body("hi")).into_text(), "hi");
    /// ```
    ///
    /// # Errors
    /// As [`Request::body_reader`] says; none for a body of up to 64 KiB, which has arrived before the handler is called.
    pub fn body(&mut self) -> io::Result<&[u8]> {
        self.body.whole()
    }

    /// The whole body as text.
    ///
    /// ```
    /// let mut request = hade::Request::new("POST", "/").with_body("buy milk");
    /// assert_eq!(request.text().unwrap(), "buy milk");
    /// ```
    ///
    /// # Errors
    /// 400 where it is not UTF-8, and those of [`Request::body`].
    pub fn text(&mut self) -> Result<&str, Error> {
        let text = std::str::from_utf8(self.body.whole()?);
        text.map_err(|_| Error::new(400, "the body is not UTF-8"))
    }

    /// The fields of an HTML form (`application/x-www-form-urlencoded`), which are in the body.
    ///
    /// ```
    /// let mut request = hade::Request::new("POST", "/")
    ///     .with_header("Content-Type", "application/x-www-form-urlencoded")
    ///     .with_body("name=Uma&likes=tea&likes=red+wine");
    /// let form = request.form().unwrap();
    /// assert_eq!(form.get("name"), Some("Uma"));
    /// assert_eq!(form.all("likes").collect::<Vec<_>>(), ["tea", "red wine"]);
    /// ```
    ///
    /// # Errors
    /// 415 for another type of body, and those of [`Request::body`].
    pub fn form(&mut self) -> Result<Form, Error> {
        let kind = self.header_text("Content-Type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Error::new(415, "the body is not a form"));
        }
        Ok(Form::parse(self.text()?))
    }

    /// The body as it arrives, chunked ones put together. A body that is not read to its end costs the connection.
    ///
    /// ```
    /// use hade::App;
    /// use std::io::Read;
    ///
    /// App::new("count").post("/count", |request| -> hade::Result<String> {
    ///     let (mut piece, mut lines) = ([0; 16 * 1024], 0);
    ///     let mut body = request.body_reader();
    ///     loop {
    ///         match body.read(&mut piece)? {
    ///             0 => return Ok(format!("{lines} lines\n")),
    ///             count => lines += piece[..count].iter().filter(|byte| **byte == b'\n').count(),
    ///         }
    ///     }
    /// });
    /// ```
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

    /// Writes the body to a file, whole or not at all, and returns its length: it takes the place of what is there when all
    /// of it has come and is on the disk. Nothing of it is kept in memory.
    ///
    /// Until then it has no name, so that nothing is left of it whatever ends the program. Where there is a file of that
    /// name already, it has a name of its own, `.RANDOM.part`, for the moment that it takes to change places with it. File
    /// systems that cannot do without (`O_TMPFILE` in `open(2)`; NFS and older overlays among them, and any on Linux before
    /// 4.7) have it under such a name from the beginning: there a program that is killed, or a worker that is cut at the end
    /// of `app.close_wait`, leaves it.
    ///
    /// ```
    /// use hade::App;
    ///
    /// App::new("share")
    ///     .route("PUT", "/files/{name}", |request| -> hade::Result<(u16, &str)> {
    ///         let name: String = request.path_param("name")?;
    ///         request.save_body(format!("files/{name}"))?;
    ///         Ok((201, "kept\n"))
    ///     })
    ///     .max_body("/files/{name}", 1 << 30);
    /// ```
    ///
    /// # Errors
    /// Those of [`Request::body_reader`] and of the disk; what had come is removed then, and what was there stays.
    pub fn save_body(&mut self, path: impl AsRef<Path>) -> io::Result<u64> {
        super::save::save(&mut self.body_reader(), path.as_ref())
    }

    /// Where the connection comes from; `None` on a Unix socket. Behind a proxy it is the proxy.
    ///
    /// ```
    /// assert_eq!(hade::Request::new("GET", "/").peer(), None);
    /// ```
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The address of who asks: that of the peer or, where it is one of `app.trusted_proxies`, what these say in
    /// `X-Forwarded-For`. `None` for somebody at a Unix socket. IPv4 addresses are always of that kind.
    ///
    /// ```
    /// use hade::App;
    /// App::new("you").get("/", |request| match request.client() {
    ///     Some(address) => format!("you are {address}\n"),
    ///     None => "you are on this machine\n".to_owned(),
    /// });
    /// ```
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Whether the client has closed the connection, at this moment: what takes long can stop, for nobody gets it. A client
    /// that has only shut its sending half looks the same; few do.
    ///
    /// ```
    /// use hade::{App, Response};
    /// App::new("sums").get("/sum", |request| {
    ///     let mut sum = 0_u64;
    ///     for number in 0..1_000_000_000 {
    ///         if number % 1_000_000 == 0 && request.is_client_gone() {
    ///             break;
    ///         }
    ///         sum = sum.wrapping_add(number);
    ///     }
    ///     Response::text(format!("{sum}\n"))
    /// });
    /// ```
    pub fn is_client_gone(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|client| socket::is_gone(client.as_fd()))
    }

    /// Whether the service is stopping, at this moment: what is in flight is finished, and nothing new is taken. A restart
    /// is no stop; [`Worker::is_leaving`] knows of both.
    ///
    /// ```
    /// assert!(!hade::Request::new("GET", "/").is_draining());
    /// ```
    pub fn is_draining(&self) -> bool {
        self.worker.as_ref().is_some_and(Worker::is_ending)
    }

    /// The worker that answers this request, for an answer that takes long and is to end when the worker leaves.
    ///
    /// ```
    /// use hade::App;
    /// App::new("wait").get("/wait", |request| {
    ///     let worker = request.worker();
    ///     while !worker.is_leaving() && !request.is_client_gone() {
    ///         std::thread::sleep(std::time::Duration::from_millis(100));
    ///     }
    ///     "done\n"
    /// });
    /// ```
    pub fn worker(&self) -> Worker {
        self.worker.clone().unwrap_or_default()
    }

    /// The value of a setting of the program's own; see [`App::setting`](crate::App::setting).
    ///
    /// ```
    /// use hade::App;
    ///
    /// let app = App::new("greeter")
    ///     .setting("greeting", "Hello", "how to greet")
    ///     .get("/", |request| format!("{}!\n", request.setting("greeting")));
    /// assert_eq!(app.test().get("/").into_text(), "Hello!\n");
    /// ```
    ///
    /// # Panics
    /// A name that the program has not named: 500.
    #[track_caller]
    pub fn setting(&self, name: &str) -> &str {
        static NONE: OwnSettings = OwnSettings::new();
        let settings = self.worker.as_ref().map(|worker| &worker.0.settings);
        own_setting(settings.unwrap_or(&NONE), name)
    }

    /// How long it has been answered, from when the first hook was asked; nothing where no hook applies to the path.
    ///
    /// ```
    /// use hade::App;
    ///
    /// App::new("site").after("/", |request, response| {
    ///     let millis = request.elapsed().as_secs_f64() * 1000.0;
    ///     response.with_header("Server-Timing", format!("app;dur={millis:.1}"))
    /// });
    /// ```
    pub fn elapsed(&self) -> Duration {
        self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

/// A head that a test has made.
#[track_caller]
fn read_head(bytes: Vec<u8>) -> Arc<Checked> {
    let limits = Limits {
        line: 1 << 20,
        head: 1 << 20,
    };
    match Parser::new().advance(&bytes, &limits) {
        Ok(Some(head)) if head.size == bytes.len() => Arc::new(Checked::new(bytes, head)),
        Err(why) => panic!("no client could send this: {}", why.reason),
        Ok(_) => panic!("no client could send this: a blank line, or none"),
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {})", self.method(), self.path())
    }
}
