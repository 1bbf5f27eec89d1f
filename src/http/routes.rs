//! Method and path → handler, the hooks around it, and the answers that need none: fixed ones, files, 404,
//! 405, 501, `OPTIONS`, health.
#![forbid(unsafe_code)]

use super::checked::Checked;
use super::escape;
use super::files::Files;
use super::head;
use super::output::contain;
use super::pattern::{Endpoint, Handler, Page, Pattern, Patterns};
use super::request::{Params, Request};
use super::response::{Response, not_allowed, refusal};
use super::target::normal;
use super::upload::Failure;
use crate::place::Place;
use crate::settings::Settings;
use crate::sys::file::Patience;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What is asked before a handler, and answers in its place where it has an answer.
pub(crate) type Before = Box<dyn Fn(&mut Request) -> Option<Response> + Send + Sync>;

/// What is made of an answer.
pub(crate) type After = Box<dyn Fn(&Request, Response) -> Response + Send + Sync>;

/// The path that answers 200 while the service serves, and 503 from the moment it stops.
pub(crate) const HEALTH: &str = "/healthz";

/// The methods that everybody knows, whether or not a page takes them: RFC 9110 §9.3, RFC 5789. `CONNECT` never comes
/// so far.
const STANDARD: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];

/// An answer that no handler has made for its request.
pub(crate) enum Ready {
    Made(Response),
    Fixed(Arc<Response>),
}

/// What an answer needs that the gate cannot give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Handler,
    /// A file is not at hand: whoever answers waits for a disk.
    Patience,
}

impl std::ops::Deref for Ready {
    type Target = Response;

    fn deref(&self) -> &Response {
        match self {
            Ready::Made(response) => response,
            Ready::Fixed(response) => response,
        }
    }
}

impl Ready {
    /// The answer, to be sent by somebody else.
    pub fn into_response(self) -> Response {
        match self {
            Ready::Made(response) => response,
            // It was looked at when it was declared.
            Ready::Fixed(response) => response.again().unwrap_or_else(|| Response::new(500)),
        }
    }
}

/// Every route of an application.
#[derive(Default)]
pub(crate) struct Routes {
    paths: BTreeMap<String, Endpoint>,
    /// Those with parameters.
    patterns: Patterns,
    /// Those that stand in while no directory is served.
    stand_ins: BTreeMap<String, Endpoint>,
    /// Every method that some page takes.
    methods: BTreeSet<String>,
    /// What answers for pages that are not there.
    not_found: Option<Handler>,
    before: Vec<Hook<Before>>,
    after: Vec<Hook<After>>,
    /// Longest bodies of paths that were not there yet when they were given, and where that was.
    limits: Vec<(String, u64, String)>,
    /// What cannot have been meant.
    mistakes: Vec<String>,
    /// Directories of files that the program itself serves, by what their paths begin with.
    directories: BTreeMap<String, PathBuf>,
    salt: Salt,
    /// What the settings have made of the directories; the longest prefix first.
    files: OnceLock<Vec<Files>>,
}

/// A function for all paths that begin like this.
struct Hook<T> {
    /// Decoded, without a slash at its end.
    prefix: Vec<u8>,
    run: T,
}

impl<T> Hook<T> {
    fn new(prefix: &str, run: T) -> Hook<T> {
        let prefix = prefix.trim_end_matches('/');
        let prefix = escape::bytes(prefix, false).collect();
        Hook { prefix, run }
    }

    /// Whether the path is this one or below it, however it is escaped: a file is found by any spelling.
    fn covers(&self, path: &str) -> bool {
        let mut path = escape::bytes(path, false);
        let is_below = self.prefix.iter().all(|byte| path.next() == Some(*byte));
        self.prefix.is_empty() || is_below && matches!(path.next(), None | Some(b'/'))
    }
}

/// A number that nobody can foretell, made in each program that is executed: all workers of a generation have the same.
struct Salt(u64);

impl Default for Salt {
    fn default() -> Salt {
        Salt(RandomState::new().hash_one(0))
    }
}

impl Routes {
    /// Adds one. Paths are compared byte by byte, in the form that all their spellings have.
    #[track_caller]
    pub fn add(&mut self, method: &str, path: &str, page: Page) {
        let is_token = !method.is_empty() && method.bytes().all(|byte| head::is(byte, head::TOKEN));
        if !is_token || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let upper = method.to_ascii_uppercase();
            let why = format!("method {method:?} of {path}: methods are in capitals, as {upper:?}");
            return self.mistake(why);
        }
        let pattern = match Pattern::parse(path) {
            Ok(pattern) => pattern,
            Err(why) => return self.mistake(format!("path {path:?} of {method}: {why}")),
        };
        let endpoint = match &pattern {
            Pattern::Path(path) => Ok(self.paths.entry(path.clone()).or_default()),
            Pattern::Parts(parts, names) => self.patterns.endpoint(parts, names),
        };
        let why = match endpoint.map(|endpoint| endpoint.add(method, page)) {
            Ok(true) => {
                self.methods.insert(method.to_owned());
                return;
            }
            Ok(false) => format!("{method} {path} is there twice"),
            Err(names) => format!("path {path:?} of {method}: another route has {names} there"),
        };
        self.mistake(why);
    }

    /// Notes what cannot have been meant, and where it stands in the program.
    #[track_caller]
    pub fn mistake(&mut self, why: String) {
        let place = std::panic::Location::caller();
        self.mistakes
            .push(format!("{}:{}: {why}", place.file(), place.line()));
    }

    /// What answers for pages that are not there.
    pub fn set_not_found(&mut self, handler: Handler) {
        self.not_found = Some(handler);
    }

    /// Asks this before every handler below a path.
    #[track_caller]
    pub fn add_before(&mut self, prefix: &str, hook: Before) {
        if self.is_prefix(prefix) {
            self.before.push(Hook::new(prefix, hook));
        }
    }

    /// Has every answer below a path go through this.
    #[track_caller]
    pub fn add_after(&mut self, prefix: &str, hook: After) {
        if self.is_prefix(prefix) {
            self.after.push(Hook::new(prefix, hook));
        }
    }

    #[track_caller]
    fn is_prefix(&mut self, path: &str) -> bool {
        match Pattern::parse(path) {
            Ok(Pattern::Path(_)) => return true,
            Ok(_) => self.mistake(format!(
                "path {path:?}: this is for all that begins like it, and takes no parameters"
            )),
            Err(why) => self.mistake(format!("path {path:?}: {why}")),
        }
        false
    }

    /// Whether a hook covers this path: then what the program answers there comes from a handler's thread.
    pub fn has_hooks(&self, path: &str) -> bool {
        self.before.iter().any(|hook| hook.covers(path))
            || self.after.iter().any(|hook| hook.covers(path))
    }

    /// All is said. What cannot have been meant, with the place in the program.
    pub fn finish(&mut self) -> Vec<String> {
        for (path, bytes, place) in std::mem::take(&mut self.limits) {
            if !self.put_limit(&path, bytes) {
                let why = "max_body, and no route has that path";
                self.mistakes.push(format!("{place}: path {path:?}: {why}"));
            }
        }
        std::mem::take(&mut self.mistakes)
    }

    /// Turns all there are so far into those that stand in while no directory is served.
    pub fn let_stand_in(&mut self) {
        self.stand_ins.append(&mut self.paths);
    }

    /// Answers with the files of a directory what begins like this.
    #[track_caller]
    pub fn add_files(&mut self, prefix: &str, directory: PathBuf) {
        if !self.is_prefix(prefix) {
            return;
        }
        let prefix = normal(prefix.trim_end_matches('/'));
        if let Some(other) = self.directories.insert(prefix.clone(), directory) {
            let other = other.display();
            self.mistake(format!("{prefix}/ has the files of {other} already"));
        }
    }

    /// Every directory that is to be served: what its paths begin with, where it is, and who named it.
    fn all_files(&self, settings: &Settings) -> Vec<(String, PathBuf, String)> {
        let base = &settings.place.base;
        let own = self.directories.iter().map(|(prefix, directory)| {
            let by = format!("the program serves it at {prefix}/");
            (prefix.clone(), Place::under(base, directory), by)
        });
        let root = settings.serving.root.iter().map(|root| {
            let by = "app.root (--root, APP_ROOT) names it".to_owned();
            (String::new(), root.clone(), by)
        });
        own.filter(|(prefix, ..)| !prefix.is_empty() || settings.serving.root.is_none())
            .chain(root)
            .collect()
    }

    /// Whether what is to be served is there.
    ///
    /// # Errors
    /// The first that is no directory, for people.
    pub fn check_files(&self, settings: &Settings) -> Result<(), String> {
        for (_, directory, by) in self.all_files(settings) {
            let shown = directory.display();
            match directory.metadata() {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(format!("cannot serve {shown}: not a directory; {by}")),
                Err(error) => return Err(format!("cannot serve {shown}: {error}; {by}")),
            }
        }
        Ok(())
    }

    /// Those of them that this process may not enter.
    pub fn closed_files(&self, settings: &Settings) -> Vec<(PathBuf, std::io::Error)> {
        let all = self.all_files(settings).into_iter();
        all.filter_map(|(_, directory, _)| {
            let error = directory.join(".").metadata().err()?;
            let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
            is_denied.then_some((directory, error))
        })
        .collect()
    }

    /// Serves them from here on, as the settings say; paths are absolute by now. Once in a process.
    pub fn open_files(&self, settings: &Settings) {
        let mut all: Vec<Files> = self
            .all_files(settings)
            .into_iter()
            .map(|(prefix, directory, _)| Files::new(&prefix, directory, settings, self.salt.0))
            .collect();
        all.sort_by_key(|files| std::cmp::Reverse(files.prefix().len()));
        let _ = self.files.set(all);
    }

    /// A round of the gate is over.
    pub fn end_round(&self) {
        let all = self.files.get().into_iter().flatten();
        all.for_each(Files::end_round);
    }

    /// The directory that has this path.
    fn files(&self, path: &str) -> Option<&Files> {
        self.files.get()?.iter().find(|files| files.has(path))
    }

    /// The handlers of a path, and what it has in the places of parameters: the most specific counts.
    fn find(&self, path: &str) -> Option<(&Endpoint, Vec<Range<usize>>)> {
        let exact = self.paths.get(path).or_else(|| {
            let stand_in = self.stand_ins.get(path)?;
            self.files(path).is_none().then_some(stand_in)
        });
        match exact {
            Some(endpoint) => Some((endpoint, Vec::new())),
            // A pattern that takes everything does not mean this one.
            None if path == HEALTH => None,
            None => self.patterns.find(path),
        }
    }

    /// Gives a path a limit of its own for its bodies, in bytes.
    #[track_caller]
    pub fn limit(&mut self, path: &str, bytes: u64) {
        if !self.put_limit(path, bytes) {
            let place = std::panic::Location::caller();
            let place = format!("{}:{}", place.file(), place.line());
            self.limits.push((path.to_owned(), bytes, place));
        }
    }

    fn put_limit(&mut self, path: &str, bytes: u64) -> bool {
        let endpoint = match Pattern::parse(path) {
            Ok(Pattern::Path(path)) => match self.paths.get_mut(&path) {
                None => self.stand_ins.get_mut(&path),
                found => found,
            },
            Ok(Pattern::Parts(parts, _)) => self.patterns.get_mut(&parts),
            Err(_) => None,
        };
        let Some(endpoint) = endpoint else {
            return false;
        };
        endpoint.limit = Some(bytes);
        true
    }

    /// Most bytes of a body in such a request, `otherwise` where the path has no limit of its own; `None` where no
    /// handler takes it.
    pub fn body_limit(&self, method: &str, path: &str, otherwise: u64) -> Option<u64> {
        let Some((endpoint, _)) = self.find(path) else {
            return self.not_found.as_ref().map(|_| otherwise);
        };
        endpoint.page(method)?;
        Some(endpoint.limit.unwrap_or(otherwise))
    }

    /// Whether such a request asks for the health path, which is hade's own where the application has no route there,
    /// and in any case when a stop is coming: balancers are to send nobody any more, whatever the application thinks.
    pub fn is_health(&self, method: &str, path: &str, is_stopping: bool) -> bool {
        let is_ours = || is_stopping || !self.paths.contains_key(HEALTH);
        path == HEALTH && matches!(method, "GET" | "HEAD") && is_ours()
    }

    /// Whether the program has a route of its own here, whatever is served.
    pub fn has_own(&self, path: &str) -> bool {
        self.paths.contains_key(path)
    }

    /// Answers, hooks included. What a handler or a hook does by a panic is a refusal, which the other hooks get to see.
    pub fn answer(&self, request: &mut Request) -> Response {
        let has_hooks = !(self.before.is_empty() && self.after.is_empty());
        if has_hooks {
            request.since = Some(Instant::now());
        }
        let failed = || refusal(500, "this page failed");
        let mut response = match request.body.failure() {
            // It came so far for its refusal to go through the hooks.
            Some(Failure::Refused(why)) => refusal(why.status, why.reason),
            _ => contain(|| self.ask_all(request)).unwrap_or_else(failed),
        };
        if let Some(Failure::Refused(why)) = request.body.failure() {
            response = refusal(why.status, why.reason);
        }
        response.log_cause(request);
        for hook in &self.after {
            if hook.covers(request.path()) {
                let made = contain(|| (hook.run)(request, response));
                response = made.unwrap_or_else(failed);
                response.log_cause(request);
            }
        }
        response
    }

    /// Asks the hooks, and then the handler if none of them has answered.
    fn ask_all(&self, request: &mut Request) -> Response {
        for hook in &self.before {
            if hook.covers(request.path()) {
                if let Some(response) = (hook.run)(request) {
                    return response;
                }
            }
        }
        self.ask(request)
    }

    /// The answer to a whole request that the gate may give by itself, for no code of the program's has a say in it and
    /// nothing about it can wait; or why a handler's thread is to give it. The one place that decides that of pages and
    /// files; hade's own pages, the health and, for those who may see them, the numbers, are decided on before, and no hook
    /// covers them.
    pub fn at_once(&self, request: &Checked) -> Result<Ready, Needs> {
        if self.has_hooks(request.path()) {
            return Err(Needs::Handler);
        }
        let endpoint = self.find(request.path()).map(|(endpoint, _)| endpoint);
        match endpoint.and_then(|endpoint| endpoint.page(request.method())) {
            Some((_, Page::Handler(_))) => Err(Needs::Handler),
            Some((_, Page::Fixed(response))) => Ok(Ready::Fixed(Arc::clone(response))),
            None => self.without_page(request, endpoint, Patience::Cached),
        }
    }

    /// Finds the handler and asks it. `HEAD` is answered by the handler of `GET`.
    fn ask(&self, request: &mut Request) -> Response {
        let found = self.find(request.path());
        let endpoint = found.as_ref().map(|(endpoint, _)| *endpoint);
        if let Some((names, page)) = endpoint.and_then(|it| it.page(request.method())) {
            let handler = match page {
                Page::Handler(handler) => handler,
                Page::Fixed(response) => return Ready::Fixed(Arc::clone(response)).into_response(),
            };
            if let Some((_, places)) = found.filter(|(_, places)| !places.is_empty()) {
                let names = names.clone();
                request.params = Params { names, places };
            }
            return handler(request);
        }
        match self.without_page(&request.checked, endpoint, Patience::Wait) {
            Ok(ready) => ready.into_response(),
            Err(_) if self.is_health(request.method(), request.path(), false) => {
                health(request.is_draining())
            }
            Err(_) => match &self.not_found {
                Some(handler) => handler(request),
                None => refusal(404, "no such page"),
            },
        }
    }

    /// Answers what the program has no page for, or says what that needs.
    fn without_page(
        &self,
        request: &Checked,
        endpoint: Option<&Endpoint>,
        patience: Patience,
    ) -> Result<Ready, Needs> {
        let (method, path) = (request.method(), request.path());
        let response = match (endpoint, path, method) {
            (Some(endpoint), _, "OPTIONS") => {
                Response::new(204).with_header("Allow", endpoint.allow())
            }
            // Of the server, not of the page: there is nothing that it could allow (RFC 9110 §9.1).
            _ if !self.knows(method) => refusal(501, "unknown method"),
            (Some(endpoint), ..) => not_allowed(&endpoint.allow()),
            // How the worker is, is not for here.
            (None, HEALTH, "GET" | "HEAD") => return Err(Needs::Handler),
            (None, HEALTH, _) => not_allowed("GET, HEAD"),
            (None, "*", _) => Response::new(204)
                .with_header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            _ => match (self.files(path), &self.not_found) {
                (Some(files), _) => files.answer(request, patience).ok_or(Needs::Patience)?,
                (None, Some(_)) => return Err(Needs::Handler),
                (None, None) => refusal(404, "no such page"),
            },
        };
        Ok(Ready::Made(response))
    }

    /// Whether it is a standard method, or one that some page takes.
    fn knows(&self, method: &str) -> bool {
        STANDARD.contains(&method) || self.methods.contains(method)
    }
}

/// What the health path answers.
pub(crate) fn health(is_draining: bool) -> Response {
    let answer = if is_draining {
        refusal(503, "draining")
    } else {
        Response::text("ok\n")
    };
    answer.with_header("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::checked::Checked;
    use crate::http::request::Worker;
    use std::sync::Arc;

    fn request(method: &str, path: &str, draining: bool) -> Request {
        let text = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let worker = Worker::default();
        if draining {
            worker.set_ending();
        }
        let checked = Arc::new(Checked::of_text(&text));
        let mut request = Request::of(checked, Default::default(), None, None);
        request.worker = Some(worker);
        request
    }

    #[test]
    fn every_answer_without_a_socket() {
        let mut routes = Routes::default();
        let mut add = |method: &str, path: &str, handler: Handler| {
            routes.add(method, path, Page::Handler(handler));
        };
        add(
            "GET",
            "/a",
            Box::new(|request| Response::text(request.param("x").unwrap_or_default())),
        );
        add("PUT", "/a", Box::new(|_| Response::new(201)));
        add("POST", "/b", Box::new(|_| Response::new(202)));
        add("POST", "/\u{e9}%7e", Box::new(|_| Response::new(202)));
        add("COPY", "/c", Box::new(|_| Response::new(201)));
        let same = Arc::new(Response::text("same"));
        routes.add("GET", "/d", Page::Fixed(same));
        let wrong = "405 Method Not Allowed: this page does not take that method\n";
        let unknown = "501 Not Implemented: unknown method\n";
        for (method, path, draining, status, body) in [
            ("GET", "/a?y=1&x=2%203", false, 200, "2 3"),
            ("HEAD", "/a?x=1", false, 200, "1"),
            ("PUT", "/a", false, 201, ""),
            ("DELETE", "/a", false, 405, wrong),
            ("HEAD", "/b", false, 405, wrong),
            ("GET", "/A", false, 404, "404 Not Found: no such page\n"),
            ("GET", "/a/", false, 404, "404 Not Found: no such page\n"),
            ("GET", "/healthz", false, 200, "ok\n"),
            (
                "GET",
                "/healthz",
                true,
                503,
                "503 Service Unavailable: draining\n",
            ),
            ("POST", "/healthz", false, 405, wrong),
            ("GET", "/%61?x=%61", false, 200, "a"),
            ("POST", "/%c3%A9%7e", false, 202, ""),
            ("GET", "/%68ealthz", false, 200, "ok\n"),
            ("BREW", "/a", false, 501, unknown),
            ("BREW", "/none", false, 501, unknown),
            ("get", "/a", false, 501, unknown),
            ("get", "/healthz", false, 501, unknown),
            // Some page takes it, or everybody knows it.
            ("COPY", "/a", false, 405, wrong),
            ("COPY", "/none", false, 404, "404 Not Found: no such page\n"),
            (
                "PATCH",
                "/none",
                false,
                404,
                "404 Not Found: no such page\n",
            ),
            ("OPTIONS", "*", false, 204, ""),
            ("GET", "/d?x", false, 200, "same"),
            ("HEAD", "/d", false, 200, "same"),
            ("POST", "/d", false, 405, wrong),
        ] {
            let mut request = request(method, path, draining);
            // The gate says the same as a thread, or nothing where it is a handler that answers.
            let at_once = routes.at_once(&request.checked);
            let handled = ["/a", "/b", "/%61", "/%c3%A9%7e", HEALTH, "/%68ealthz"];
            let is_handled = handled.contains(&path.split('?').next().unwrap());
            let is_refused = [405, 501].contains(&status);
            assert_eq!(at_once.is_err(), is_handled && !is_refused, "{path}");
            if let Ok(at_once) = at_once {
                assert_eq!(
                    (at_once.status(), at_once.body()),
                    (status, body.as_bytes())
                );
            }
            let answer = routes.answer(&mut request);
            assert_eq!(
                (answer.status(), answer.body()),
                (status, body.as_bytes()),
                "{method} {path}"
            );
        }
        for (path, allow) in [
            ("/a", "Allow: GET, PUT, HEAD\r\n"),
            ("/b", "Allow: POST\r\n"),
            ("/d", "Allow: GET, HEAD\r\n"),
        ] {
            let mut head = Vec::new();
            routes
                .answer(&mut request("TRACE", path, false))
                .render_head(&mut head, "D", 1, true);
            assert!(String::from_utf8(head).unwrap().contains(allow), "{path}");
        }
    }

    #[test]
    fn a_hook_covers_a_path_and_all_below_it_in_any_spelling() {
        for (prefix, path, covers) in [
            ("/", "/", true),
            ("/", "*", true),
            ("/", "/a/b", true),
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a", "/", false),
            ("/a/b", "/a", false),
            ("/@a", "/%40a/x", true),
            ("/@a", "/@a", true),
            ("/%40a", "/@a/x", true),
            ("/\u{e9}", "/%C3%A9/x", true),
            // Whatever that is, it is better covered.
            ("/a", "/a%2Fb", true),
            ("/a", "/%", false),
        ] {
            assert_eq!(
                Hook::new(prefix, ()).covers(path),
                covers,
                "{prefix} {path}"
            );
        }
    }

    #[test]
    fn hooks_see_everything_in_order_and_a_panic_is_only_a_refusal() {
        let mut routes = Routes::default();
        let panics: Handler = Box::new(|_| panic!("asked to"));
        routes.add("GET", "/panics", Page::Handler(panics));
        let side = Arc::new(Response::text("side"));
        routes.add("GET", "/in/side", Page::Fixed(side));
        routes.add_before(
            "/in",
            Box::new(|request| request.query().map(|_| Response::new(403))),
        );
        routes.add_before("/in/side", Box::new(|_| None));
        for word in ["a", "b"] {
            let hook = move |_: &Request, response: Response| response.with_header("X", word);
            routes.add_after("/", Box::new(hook));
        }
        routes.add_after("/in/panic", Box::new(|_, _| panic!("asked to")));
        assert!(routes.finish().is_empty());
        for (path, status, shown) in [
            ("/in/side", 200, None),
            ("/in/side?no", 403, None),
            ("/in/none?no", 403, None),
            ("/in/none", 404, Some("no such page")),
            ("/panics", 500, Some("this page failed")),
            ("/in/panic", 500, Some("this page failed")),
        ] {
            let mut request = request("GET", path, false);
            assert_eq!(routes.at_once(&request.checked).err(), Some(Needs::Handler));
            let answer = routes.answer(&mut request);
            assert_eq!(
                (answer.status(), answer.refusal()),
                (status, shown),
                "{path}"
            );
            let mut head = Vec::new();
            answer.render_head(&mut head, "D", 1, true);
            let head = String::from_utf8(head).unwrap();
            let marks = head.lines().filter(|line| line.starts_with("X: "));
            let marks: Vec<&str> = marks.collect();
            // What a hook panicked over is lost.
            let expected = if path == "/in/panic" {
                &[][..]
            } else {
                &["X: a", "X: b"]
            };
            assert_eq!(marks, expected, "{path}");
        }
        assert!(routes.has_hooks("/x"));
        assert!(!Routes::default().has_hooks("/x"));
    }

    #[test]
    fn what_cannot_have_been_meant_is_said_with_its_line() {
        let mut routes = Routes::default();
        let answer = || Page::Handler(Box::new(|_| Response::new(204)));
        routes.add("GET", "/a", answer());
        routes.limit("/later/{x}", 1);
        routes.add("POST", "/later/{y}", answer());
        routes.add("get", "/a", answer());
        routes.add("GET", "/a", answer());
        routes.add("GET", "/later/{x}", answer());
        routes.add("", "/a", answer());
        routes.limit("/none", 1);
        routes.limit("/a", 7);
        routes.add_before("/a/{b}", Box::new(|_| None));
        routes.add_after("a", Box::new(|_, response| response));
        routes.add_files("/f/", "one".into());
        routes.add_files("/f", "two".into());
        let said: Vec<String> = routes
            .finish()
            .into_iter()
            .map(|line| {
                let (place, why) = line.split_once(": ").unwrap();
                assert!(place.starts_with("src/http/routes.rs:"), "{place}");
                why.to_owned()
            })
            .collect();
        assert_eq!(
            said,
            [
                "method \"get\" of /a: methods are in capitals, as \"GET\"",
                "GET /a is there twice",
                "path \"/later/{x}\" of GET: another route has {y} there",
                "method \"\" of /a: methods are in capitals, as \"\"",
                "path \"/a/{b}\": this is for all that begins like it, and takes no parameters",
                "path \"a\": it does not begin with a slash",
                "/f/ has the files of one already",
                "path \"/none\": max_body, and no route has that path",
            ]
        );
        assert_eq!(routes.body_limit("GET", "/a", 1), Some(7));
        assert_eq!(routes.body_limit("POST", "/later/5", 9), Some(1));
        assert_eq!(routes.body_limit("GET", "/none", 9), None);
    }
}
