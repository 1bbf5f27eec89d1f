//! What a handler answers with, and how its head is written.
#![forbid(unsafe_code)]

use super::conditions::{self, Decision, Validators};
use super::cookie::Cookie;
use super::escape;
use super::failure::Error;
use super::feed::Feed;
use super::head;
use super::output::{Flow, Framing, Load, Reader};
use super::request::Request;
use super::upload::GONE;
use crate::clock::Utc;
use crate::log;
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a handler returns that can fail: anything that becomes a response, or an [`Error`].
///
/// ```
/// use hade::{Request, Response};
///
/// fn report(_: &mut Request) -> hade::Result {
///     let text = std::fs::read_to_string("report.txt")?;
///     Ok(Response::text(text))
/// }
/// ```
pub type Result<T = Response, E = Error> = std::result::Result<T, E>;

/// Fields of answers whose value is no list, so that two would leave the choice to whoever reads them (RFC 9110 §5.3).
const SINGLE: [&str; 10] = [
    "Age",
    "Content-Disposition",
    "Content-Location",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Expires",
    "Last-Modified",
    "Location",
    "Retry-After",
];

/// An answer with a file has as many.
const FIELDS: usize = 8;

/// Those that are hade's to set.
const OWN: [&str; 5] = [
    "Content-Length",
    "Transfer-Encoding",
    "Date",
    "Server",
    "Connection",
];

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
    /// What it says, where it is a refusal; and the reason for the log.
    refusal: Option<Box<Refused>>,
}

#[derive(Debug)]
struct Refused {
    shown: Cow<'static, str>,
    cause: Option<String>,
}

/// Where the body comes from.
enum Content {
    Bytes(Cow<'static, [u8]>),
    /// From a place in it, so many bytes.
    File(File, u64, u64),
    Stream(Reader, Option<u64>),
    Feed(Feed),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Content::File(file, _, length) => write!(f, "File({file:?}, {length})"),
            Content::Stream(_, length) => write!(f, "Stream({length:?})"),
            Content::Feed(_) => f.write_str("Feed"),
        }
    }
}

impl Response {
    /// An answer without a body.
    ///
    /// ```
    /// assert_eq!(hade::Response::new(204).status(), 204);
    /// ```
    ///
    /// # Panics
    /// Outside 200 to 599.
    #[track_caller]
    pub fn new(status: u16) -> Response {
        Response {
            status: 200,
            headers: Vec::new(),
            content: Content::Bytes(Cow::Borrowed(b"")),
            close: false,
            refusal: None,
        }
        .with_status(status)
    }

    /// 200 with a body of this `Content-Type`. What the client does not take at once stays in memory, of which
    /// all clients together may have a quarter of what there is: beyond it those who read least are cut off, first of
    /// all one whose answer alone is more. [`Response::file`] and [`Response::stream`] need no memory.
    ///
    /// ```
    /// use hade::Response;
    /// let pixel = Response::bytes("image/gif", &b"GIF89a"[..]);
    /// let csv = Response::bytes("text/csv", "a,b\n".to_owned().into_bytes());
    /// ```
    ///
    /// # Panics
    /// A type with control bytes in it, as for [`Response::with_header`].
    #[track_caller]
    pub fn bytes(
        kind: impl Into<Cow<'static, str>>,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Response {
        Response::of(kind.into(), Content::Bytes(body.into()))
    }

    #[track_caller]
    fn of(kind: Cow<'static, str>, content: Content) -> Response {
        Response {
            content,
            ..Response::new(200)
        }
        .with_header("Content-Type", kind)
    }

    /// 200, `text/plain; charset=utf-8`.
    ///
    /// ```
    /// let answer = hade::Response::text(format!("Hello, {}!\n", "World"));
    /// assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
    /// ```
    pub fn text(body: impl Into<Cow<'static, str>>) -> Response {
        Response::bytes("text/plain; charset=utf-8", into_bytes(body.into()))
    }

    /// 200, `text/html; charset=utf-8`.
    ///
    /// ```
    /// let answer = hade::Response::html("<!doctype html><title>Hello</title>");
    /// assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
    /// ```
    pub fn html(body: impl Into<Cow<'static, str>>) -> Response {
        Response::bytes("text/html; charset=utf-8", into_bytes(body.into()))
    }

    /// 200, `application/json`.
    ///
    /// ```
    /// let answer = hade::Response::json("[1, 2, 3]");
    /// assert_eq!(answer.header("Content-Type"), Some("application/json"));
    /// ```
    pub fn json(body: impl Into<Cow<'static, str>>) -> Response {
        Response::bytes("application/json", into_bytes(body.into()))
    }

    /// 200 with what is left of a file, from where it stands. The kernel sends it straight from the page cache
    /// (`sendfile(2)`), and a client that reads slowly holds neither a thread nor memory.
    /// [`Response::file_for`] does what a browser wants of a download as well.
    ///
    /// ```
    /// use hade::{App, Response};
    /// use std::fs::File;
    ///
    /// App::new("logo").get("/logo", |_| Response::file("image/svg+xml", File::open("logo.svg")?));
    /// ```
    ///
    /// # Errors
    /// Not a regular file, or its length cannot be read.
    pub fn file(kind: impl Into<Cow<'static, str>>, mut file: File) -> io::Result<Response> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let start = file.stream_position()?;
        let length = metadata.len().saturating_sub(start);
        Ok(Response::of(
            kind.into(),
            Content::File(file, start, length),
        ))
    }

    /// A whole file, or what this request wants of it: the part that it asks for (206), or word that it has not changed
    /// (304), by RFC 9110 §13 and §14. The file's time and size tell one state of it from the next (`ETag`,
    /// `Last-Modified`); of one that was written less than two seconds ago the `ETag` is weak, and a part of it is not to
    /// be had by that. So a download that broke off is taken up again, and a video can be moved in. What others have
    /// uploaded is best served with `X-Content-Type-Options: nosniff`, as [`App::files`](crate::App::files) does.
    ///
    /// ```
    /// use hade::{App, Error, Response};
    /// use std::fs::File;
    ///
    /// App::new("share").get("/files/{name}", |request| -> hade::Result {
    ///     let name: String = request.path_param("name")?;
    ///     let file = File::open(format!("files/{name}")).map_err(|_| Error::new(404, "no such file"))?;
    ///     Ok(Response::file_for(request, "application/octet-stream", file)?)
    /// });
    /// ```
    ///
    /// # Errors
    /// As for [`Response::file`].
    pub fn file_for(
        request: &Request,
        kind: impl Into<Cow<'static, str>>,
        mut file: File,
    ) -> io::Result<Response> {
        file.rewind()?;
        let metadata = file.metadata()?;
        let changed = metadata.modified()?;
        let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        let size = metadata.len();
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        // One that has just changed may change again without its time telling.
        let is_settled = SystemTime::now()
            .duration_since(changed)
            .is_ok_and(|age| age.as_secs() >= 2);
        let weak = if is_settled { "" } else { "W/" };
        // Images that are built reproducibly set all times to 0 or 1, which says nothing; nor does a time to come.
        let is_dated = seconds > 1 && changed <= SystemTime::now();
        let validators = match is_dated {
            true => Validators {
                tag: format!("{weak}\"{seconds:x}.{nanos:x}-{size:x}\""),
                modified: Some(seconds as i64),
            },
            false => Validators {
                tag: String::new(),
                modified: None,
            },
        };
        let is_get = request.method() == "GET";
        let field = |name: &str| request.joined(name);
        let decision = conditions::decide(is_get, &validators, size, &field);
        let whole = Response::file(kind, file)?;
        let response = match decision {
            Decision::Failed => {
                return Ok(refusal(412, "the file is another one than expected"));
            }
            Decision::Unsatisfiable => {
                let range = format!("bytes */{size}");
                return Ok(refusal(416, "the file is shorter").with_header("Content-Range", range));
            }
            Decision::NotModified => Response::new(304),
            Decision::Whole => whole,
            Decision::Part { start, length } => whole.part(start, length, size),
        };
        let response = response.with_header("Accept-Ranges", "bytes");
        Ok(match is_dated {
            true => response
                .with_header("Last-Modified", Utc::at(seconds, 0).http())
                .with_header("ETag", validators.tag),
            false => response,
        })
    }

    /// So many bytes of its file, from there.
    fn part(mut self, start: u64, length: u64, size: u64) -> Response {
        if let Content::File(_, at, left) = &mut self.content {
            (*at, *left) = (start, length);
        }
        let range = format!("bytes {start}-{}/{size}", start + length - 1);
        self.with_status(206).with_header("Content-Range", range)
    }

    /// So many bytes of a regular file, from this place on.
    pub(crate) fn of_file(status: u16, file: File, start: u64, length: u64) -> Response {
        Response {
            content: Content::File(file, start, length),
            ..Response::new(status)
        }
    }

    /// 200 with a body that is made while it is sent: what one `read` returns goes out at once, and the next follows
    /// when the client has taken that, so no more than 32 KiB wait in memory. With a length exactly so many bytes are
    /// sent; without one the body is chunked, or ends with the connection for a client of HTTP/1.0. A reader that
    /// fails, ends early or panics has the connection reset, so that the client knows (on a Unix socket a client of
    /// HTTP/1.0 cannot know). The reader may be dropped by a thread that serves others, so that must not take long.
    ///
    /// A reader that waits holds a thread of `app.threads`; [`Events`](crate::Events) are for what is sent when it happens.
    ///
    /// ```
    /// use hade::Response;
    /// use std::io::{self, Read};
    ///
    /// let zeros = Response::stream("application/octet-stream", Some(1 << 30), io::repeat(0).take(1 << 30));
    /// ```
    ///
    /// # Panics
    /// A type with control bytes in it.
    #[track_caller]
    pub fn stream(
        kind: impl Into<Cow<'static, str>>,
        length: Option<u64>,
        reader: impl Read + Send + 'static,
    ) -> Response {
        Response::of(kind.into(), Content::Stream(Reader::new(reader), length))
    }

    /// 200 with what is put into the other end of this.
    pub(super) fn fed(kind: &'static str, feed: Feed) -> Response {
        Response::of(Cow::Borrowed(kind), Content::Feed(feed))
    }

    /// Sends the client to another place, which it is to `GET`: 303. `with_status(308)` is for good, and keeps the method.
    /// What cannot stand in a URL is escaped, so that the place may come from outside; but compare it then, for it may be
    /// anybody's.
    ///
    /// ```
    /// use hade::Response;
    /// let answer = Response::redirect("/notes/7");
    /// assert_eq!((answer.status(), answer.header("Location")), (303, Some("/notes/7")));
    /// ```
    pub fn redirect(to: impl AsRef<str>) -> Response {
        let mut location = String::with_capacity(to.as_ref().len());
        for byte in to.as_ref().bytes() {
            match byte {
                b'!'..=b'~' => location.push(char::from(byte)),
                _ => location += &format!("%{byte:02X}"),
            }
        }
        Response::new(303).with_header("Location", location)
    }

    /// 304: the client has the state of that tag already, as [`Request::knows`] says.
    ///
    /// ```
    /// use hade::{App, Response};
    ///
    /// App::new("feed").get("/feed", |request| {
    ///     let version = "42";
    ///     match request.knows(version) {
    ///         true => Response::not_modified(version),
    ///         false => Response::json("[]").with_etag(version),
    ///     }
    /// });
    /// ```
    pub fn not_modified(tag: impl AsRef<str>) -> Response {
        Response::new(304).with_etag(tag)
    }

    /// 401, which has a browser ask for name and password: [`Request::basic_auth`] has what it was told then.
    ///
    /// ```
    /// use hade::{App, Response};
    ///
    /// App::new("site").before("/admin", |request| match request.basic_auth() {
    ///     Some(login) if login.is("admin", "secret") => Ok(()),
    ///     _ => Err(Response::unauthorized("the admin pages")),
    /// });
    /// ```
    pub fn unauthorized(realm: &str) -> Response {
        let clean: String = realm
            .chars()
            .map(|c| match c {
                '"' | '\\' => '\'',
                ' '..='~' => c,
                _ => '?',
            })
            .collect();
        refusal(401, "name and password are asked for").with_header(
            "WWW-Authenticate",
            format!("Basic realm=\"{clean}\", charset=\"UTF-8\""),
        )
    }

    /// The same with another status. With 204, 205 and 304 no body is sent (RFC 9110 §6.4.1).
    ///
    /// ```
    /// let created = hade::Response::json("{\"id\": 7}").with_status(201);
    /// ```
    ///
    /// # Panics
    /// Outside 200 to 599: interim answers are not a handler's to send.
    #[track_caller]
    pub fn with_status(mut self, status: u16) -> Response {
        assert!(
            (200..600).contains(&status),
            "status {status} is not one of 200 to 599"
        );
        self.status = status;
        self
    }

    /// The same with one more header field. Those that RFC 9110 and RFC 9111 have once alone, such as `Content-Type`
    /// and `Location`, replace the one that is there. `Connection: close` closes the connection after this answer.
    ///
    /// ```
    /// use hade::Response;
    /// let problem = Response::json("{}").with_header("Content-Type", "application/problem+json");
    /// assert_eq!(problem.header("Content-Type"), Some("application/problem+json"));
    /// ```
    ///
    /// # Panics
    /// When the name is not a token or the value has control bytes (RFC 9110 §5.1, §5.5), and for the fields that
    /// hade sets itself: `Content-Length`, `Transfer-Encoding`, `Date`, `Server`, and `Connection` but for `close`.
    /// [`Response::try_header`] is for what comes from outside.
    #[track_caller]
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        if let Err(why) = self.put(name.into(), value.into()) {
            panic!("{why}");
        }
        self
    }

    /// The same as [`Response::with_header`] for a name or value that comes from outside.
    ///
    /// ```
    /// use hade::Response;
    /// let made = Response::text("hi").try_header("X-Name", "a\r\nSet-Cookie: b=c");
    /// assert!(made.is_err());
    /// ```
    ///
    /// # Errors
    /// Where `with_header` panics: 500, and the log says why.
    pub fn try_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Response, Error> {
        match self.put(name.into(), value.into()) {
            Ok(()) => Ok(self),
            Err(why) => Err(Error::new(500, "this page failed").because(why)),
        }
    }

    fn put(&mut self, name: Cow<'static, str>, value: Cow<'static, str>) -> Result<(), String> {
        if name.is_empty() || !name.bytes().all(|byte| head::is(byte, head::TOKEN)) {
            return Err(format!("header name {name:?} is not a token"));
        }
        if !value.bytes().all(|byte| head::is(byte, head::VALUE)) {
            return Err(format!("header {name} has control bytes in its value"));
        }
        if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            self.close = true;
            return Ok(());
        }
        let mut own = OWN.iter();
        if let Some(own) = own.find(|own| name.eq_ignore_ascii_case(own)) {
            return Err(format!("header {own} is set by hade"));
        }
        self.set(name, value);
        Ok(())
    }

    /// Sets a field that needs no check.
    pub(crate) fn set(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) {
        let (name, value) = (name.into(), value.into());
        let is_single = || SINGLE.iter().any(|one| name.eq_ignore_ascii_case(one));
        if self.headers.is_empty() {
            self.headers.reserve(FIELDS);
        }
        let mut there = self.headers.iter_mut();
        match there.find(|(there, _)| there.eq_ignore_ascii_case(&name)) {
            Some(there) if is_single() => *there = (name, value),
            _ => self.headers.push((name, value)),
        }
    }

    /// The same with an `ETag`, which is quoted here; what does not fit into one is left out of it. The next request for
    /// the same page names it, and [`Request::knows`] says so.
    ///
    /// ```
    /// let answer = hade::Response::json("[]").with_etag("42");
    /// assert_eq!(answer.header("ETag"), Some("\"42\""));
    /// ```
    pub fn with_etag(self, tag: impl AsRef<str>) -> Response {
        self.with_header("ETag", quoted(tag.as_ref()))
    }

    /// The same with a cookie for the client to keep; see [`Cookie`].
    ///
    /// ```
    /// use hade::{Cookie, Response};
    /// let answer = Response::redirect("/").with_cookie(Cookie::new("theme", "dark"));
    /// ```
    pub fn with_cookie(self, cookie: Cookie) -> Response {
        self.with_header("Set-Cookie", cookie.to_string())
    }

    /// The same, for a browser to keep under this name rather than to show (RFC 6266).
    ///
    /// ```
    /// let answer = hade::Response::text("a,b\n").as_attachment("Bücher.csv");
    /// let field = answer.header("Content-Disposition").unwrap();
    /// assert_eq!(field, "attachment; filename=\"B_cher.csv\"; filename*=UTF-8''B%C3%BCcher.csv");
    /// ```
    pub fn as_attachment(self, name: &str) -> Response {
        let is_plain = |c: char| c.is_ascii() && !c.is_ascii_control() && !"\"\\%/".contains(c);
        let plain = name.replace(|c: char| !is_plain(c), "_");
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let escaped = escape::encode(name, unreserved);
        let value = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{escaped}");
        self.with_header("Content-Disposition", value)
    }

    /// The same status and fields with another body: what a hook makes of an answer that is there.
    ///
    /// ```
    /// use hade::{App, Response};
    ///
    /// // Every error as JSON, those of hade included.
    /// App::new("api").after("/", |_, response| match response.refusal() {
    ///     Some(why) => {
    ///         let why = why.replace('\\', "\\\\").replace('"', "\\\"");
    ///         let body = format!("{{\"error\": \"{why}\"}}");
    ///         response.with_body("application/json", body.into_bytes())
    ///     }
    ///     None => response,
    /// });
    /// ```
    ///
    /// # Panics
    /// A type with control bytes in it.
    #[track_caller]
    pub fn with_body(
        self,
        kind: impl Into<Cow<'static, str>>,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Response {
        let content = Content::Bytes(body.into());
        Response { content, ..self }.with_header("Content-Type", kind)
    }

    /// What an error says: a refusal of hade's own, such as 404 where there is no route or 500 after a panic, or an
    /// [`Error`]. `None` for what a handler has made itself, whatever its status.
    ///
    /// ```
    /// use hade::{App, Request};
    /// let client = App::new("site").test();
    /// assert_eq!(client.get("/none").refusal(), Some("no such page"));
    /// ```
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref().map(|refused| &*refused.shown)
    }

    /// The first field of this name.
    ///
    /// ```
    /// assert_eq!(hade::Response::json("[]").header("content-type"), Some("application/json"));
    /// ```
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        let found = fields.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value)
    }

    /// All of the body, of a file and a stream as well; of [`Events`](crate::Events) what has been sent so far. For tests.
    ///
    /// ```
    /// use hade::Response;
    /// let stream = Response::stream("text/plain", None, &b"hello"[..]);
    /// assert_eq!(stream.into_text(), "hello");
    /// ```
    ///
    /// # Panics
    /// Where the file or the reader fails.
    #[track_caller]
    pub fn into_text(self) -> String {
        let bytes = self.into_bytes().expect("a body that can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The same as bytes.
    ///
    /// ```
    /// assert_eq!(hade::Response::text("hi").into_bytes().unwrap(), b"hi");
    /// ```
    ///
    /// # Errors
    /// Those of the file or the reader.
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.is_bodiless() {
            return Ok(bytes);
        }
        match self.content {
            Content::Bytes(body) => return Ok(body.into_owned()),
            Content::File(mut file, start, length) => {
                file.seek(SeekFrom::Start(start))?;
                file.take(length).read_to_end(&mut bytes)?;
            }
            Content::Stream(mut reader, _) => {
                reader.read_to_end(&mut bytes)?;
            }
            Content::Feed(feed) => bytes = feed.drain(),
        }
        Ok(bytes)
    }

    /// Tells the log why it is an error, where there is more to know than the client is told.
    pub(crate) fn log_cause(&mut self, request: &Request) {
        let refused = self.refusal.as_deref_mut();
        if let Some(cause) = refused.and_then(|refused| refused.cause.take()) {
            let (method, path) = (request.method(), request.path());
            let text = format_args!("{method} {path}: {cause}");
            // Whoever goes away in the middle of a body makes its handler fail, and that is all there is to it.
            match request.is_broken_off() && cause.ends_with(GONE) {
                true => log::debug(text),
                false => log::error(text),
            }
        }
    }

    /// The status.
    ///
    /// ```
    /// assert_eq!(hade::Response::text("hi").status(), 200);
    /// ```
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body, where it is in memory; empty for a file and a stream, of which [`Response::into_bytes`] has it.
    ///
    /// ```
    /// assert_eq!(hade::Response::text("hi").body(), b"hi");
    /// ```
    pub fn body(&self) -> &[u8] {
        match &self.content {
            Content::Bytes(bytes) => bytes,
            _ => b"",
        }
    }

    /// Bytes of the body; `None` where it ends when it ends.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.content {
            _ if self.is_bodiless() => Some(0),
            Content::Bytes(bytes) => Some(bytes.len() as u64),
            Content::File(.., length) => Some(*length),
            Content::Stream(_, length) => *length,
            Content::Feed(_) => None,
        }
    }

    /// Whether the body is there, so that one call may send all.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.content, Content::Bytes(_))
    }

    /// The file that follows the head in answer to this method, from where on, and how many bytes of it.
    pub(crate) fn sent_file(&self, method: &str) -> Option<(&File, u64, u64)> {
        match &self.content {
            Content::File(file, start, length) if method != "HEAD" && !self.is_bodiless() => {
                Some((file, *start, *length))
            }
            _ => None,
        }
    }

    /// The same once more; `None` where the body is not in memory, and so there is only one of it.
    pub(crate) fn again(&self) -> Option<Response> {
        match &self.content {
            Content::Bytes(bytes) => Some(Response {
                status: self.status,
                headers: self.headers.clone(),
                content: Content::Bytes(bytes.clone()),
                close: self.close,
                refusal: None,
            }),
            _ => None,
        }
    }

    /// What follows the head in answer to this method.
    pub(crate) fn into_load(self, method: &str, minor: u8) -> Load {
        if method == "HEAD" || self.is_bodiless() {
            return Load::Bytes(Cow::Borrowed(b""), 0);
        }
        match self.content {
            Content::Bytes(bytes) => Load::Bytes(bytes, 0),
            Content::File(file, at, left) => Load::File { file, at, left },
            Content::Stream(reader, length) => {
                let framing = match (length, minor) {
                    (Some(length), _) => Framing::Known(length),
                    (None, 0) => Framing::UntilClose,
                    (None, _) => Framing::Chunked,
                };
                Load::Stream(Flow::new(reader, framing))
            }
            Content::Feed(mut feed) => {
                feed.is_chunked = minor > 0;
                Load::Feed(feed)
            }
        }
    }

    /// Whether the connection is to be closed after it.
    pub(crate) fn closes(&self) -> bool {
        self.close
    }

    /// 204, 205 and 304 have no body by definition (RFC 9110 §6.4.1, §15.3.6).
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 205 | 304)
    }

    /// Writes the head to `out`, replacing what is there.
    pub(crate) fn render_head(&self, out: &mut Vec<u8>, date: &str, minor: u8, keep_alive: bool) {
        out.clear();
        out.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(out, self.status.into());
        for part in [
            " ",
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
            // 204 must not have a length (RFC 9110 §8.6), and that of 304 would be that of 200.
            _ if matches!(self.status, 204 | 304) => {}
            Some(length) => {
                out.extend_from_slice(b"Content-Length: ");
                push_decimal(out, length);
                out.extend_from_slice(b"\r\n");
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

/// A number, without the cost of [`std::fmt`]: each answer has two.
fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 || at == digits.len() {
        at -= 1;
        digits[at] += (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

fn into_bytes(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// A tag as it is sent.
fn quoted(tag: &str) -> String {
    let fit = |byte: &u8| matches!(byte, b'!' | b'#'..=b'~');
    let inside = tag.bytes().filter(fit).map(char::from);
    format!("\"{}\"", inside.collect::<String>())
}

/// A refusal that says in one line what was wrong.
pub(crate) fn refusal(status: u16, why: impl Into<Cow<'static, str>>) -> Response {
    let shown = why.into();
    let text = format!("{status} {}: {shown}\n", reason(status));
    let mut response = Response::text(text).with_status(status);
    let cause = None;
    response.refusal = Some(Box::new(Refused { shown, cause }));
    response
}

/// What a handler may return. Implement it for the errors of your own program, and `?` in a handler makes answers of them.
///
/// | what | is answered |
/// |---|---|
/// | [`Response`] | as it is |
/// | `&'static str`, `String` | 200, `text/plain; charset=utf-8` |
/// | `(u16, T)` | as `T`, with that status |
/// | `Result<T, E>` | as `T` or `E` |
/// | [`Error`], [`std::io::Error`] | 4xx or 5xx; what the client need not know goes to the log |
///
/// ```
/// use hade::{App, IntoResponse, Response};
///
/// enum Problem {
///     Unknown(String),
///     Full,
/// }
///
/// impl IntoResponse for Problem {
///     fn into_response(self) -> Response {
///         match self {
///             Problem::Unknown(name) => (404, format!("no {name} here\n")).into_response(),
///             Problem::Full => (507, "no room\n").into_response(),
///         }
///     }
/// }
///
/// App::new("shop").get("/tea", |_| -> Result<&'static str, Problem> { Err(Problem::Full) });
/// ```
pub trait IntoResponse {
    /// The answer.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Response {
        let (status, response) = self;
        response.into_response().with_status(status)
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, shown, cause) = self.parts();
        let mut response = refusal(status, shown);
        if let Some(refused) = &mut response.refusal {
            refused.cause = cause;
        }
        response
    }
}

impl IntoResponse for io::Error {
    fn into_response(self) -> Response {
        Error::from(self).into_response()
    }
}

/// The refusal of a method, where these are allowed.
pub(crate) fn not_allowed(allow: &str) -> Response {
    refusal(405, "this page does not take that method").with_header("Allow", allow.to_owned())
}

/// The phrase behind a status: RFC 9110 §15, RFC 6585.
fn reason(status: u16) -> &'static str {
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
    fn numbers_are_written_as_std_writes_them() {
        let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
        let around = powers.flat_map(|power| [power - 1, power, power + 1]);
        for number in around.chain([404, u64::MAX - 1, u64::MAX]) {
            let mut out = b"before ".to_vec();
            push_decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), format!("before {number}"));
        }
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
        let stream = || Response::stream("text/plain", None, &b"no"[..]);
        for (status, length) in [(204, None), (205, Some("0")), (304, None)] {
            for made in [Response::text("no"), stream()] {
                let empty = made.with_status(status);
                let head = rendered(&empty, 1, true);
                let mut lines = head.lines();
                let told = lines.find_map(|line| line.strip_prefix("Content-Length: "));
                assert_eq!(told, length, "{status}");
                assert!(!head.contains("Transfer-Encoding"), "{status}");
                assert!(empty.body_for("GET").is_empty());
                let load = empty.into_load("GET", 1);
                assert!(matches!(load, Load::Bytes(bytes, 0) if bytes.is_empty()));
            }
        }
        assert!(
            Response::new(200)
                .with_header("connection", "Close")
                .closes()
        );
    }

    #[test]
    fn a_field_that_is_there_once_alone_is_replaced_and_others_are_added() {
        let made = Response::text("{}")
            .with_header("Vary", "A")
            .with_header("content-type", "application/problem+json")
            .with_header("Vary", "B")
            .with_header("Set-Cookie", "a=1")
            .with_header("Location", "/old")
            .with_header("Set-Cookie", "b=2")
            .with_header("LOCATION", "/new");
        let head = rendered(&made, 1, true);
        let fields: Vec<&str> = head.lines().skip(3).collect();
        assert_eq!(
            fields,
            [
                "content-type: application/problem+json",
                "Vary: A",
                "Vary: B",
                "Set-Cookie: a=1",
                "LOCATION: /new",
                "Set-Cookie: b=2",
                "Content-Length: 2",
                "",
            ]
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
