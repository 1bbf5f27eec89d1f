//! Method and path → handler, and the answers that need none: 404, 405, `OPTIONS *`, health.
#![forbid(unsafe_code)]

use super::Request;
use super::response::{Response, reason};
use std::collections::BTreeMap;

/// A plain function from request to response, called by several threads at a time.
pub(crate) type Handler = Box<dyn Fn(&mut Request) -> Response + Send + Sync>;

/// The path that answers 200 while the service serves, and 503 from the moment it stops.
pub(crate) const HEALTH: &str = "/healthz";

/// Every route of an application.
#[derive(Default)]
pub(crate) struct Routes {
    paths: BTreeMap<String, Vec<(String, Handler)>>,
    /// Longest bodies of paths that have a limit of their own.
    limits: BTreeMap<String, u64>,
}

impl Routes {
    /// Adds or replaces one. The path is compared as it is sent, byte by byte.
    pub fn add(&mut self, method: &str, path: &str, handler: Handler) {
        let methods = self.paths.entry(path.to_owned()).or_default();
        methods.retain(|(other, _)| other != method);
        methods.push((method.to_owned(), handler));
    }

    /// Gives a path a limit of its own for its bodies, in bytes.
    pub fn limit(&mut self, path: &str, bytes: u64) {
        self.limits.insert(path.to_owned(), bytes);
    }

    /// Most bytes of a body in such a request, `otherwise` where the path has no limit of its own; `None` where no
    /// handler takes it.
    pub fn body_limit(&self, method: &str, path: &str, otherwise: u64) -> Option<u64> {
        let methods = self.paths.get(path)?;
        find(methods, method)?;
        Some(self.limits.get(path).copied().unwrap_or(otherwise))
    }

    /// Finds the handler and asks it. `HEAD` is answered by the handler of `GET`.
    pub fn answer(&self, request: &mut Request) -> Response {
        let Some(methods) = self.paths.get(request.path()) else {
            return match (request.path(), request.method()) {
                (HEALTH, "GET" | "HEAD") => health(request),
                (HEALTH, _) => not_allowed("GET, HEAD"),
                ("*", _) => Response::new(204)
                    .with_header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                _ => refusal(404, "no such page"),
            };
        };
        match find(methods, request.method()) {
            Some(handler) => handler(request),
            None => {
                let mut allow: Vec<&str> =
                    methods.iter().map(|(method, _)| method.as_str()).collect();
                if allow.contains(&"GET") && !allow.contains(&"HEAD") {
                    allow.push("HEAD");
                }
                not_allowed(&allow.join(", "))
            }
        }
    }
}

/// The handler of a method; that of `GET` answers `HEAD` where none does.
fn find<'a>(methods: &'a [(String, Handler)], method: &str) -> Option<&'a Handler> {
    let find = |wanted: &str| methods.iter().find(|(method, _)| method == wanted);
    let found = find(method).or_else(|| find("GET").filter(|_| method == "HEAD"));
    found.map(|(_, handler)| handler)
}

fn health(request: &Request) -> Response {
    let answer = if request.is_draining() {
        refusal(503, "draining")
    } else {
        Response::text("ok\n")
    };
    answer.with_header("Cache-Control", "no-store")
}

fn not_allowed(allow: &str) -> Response {
    refusal(405, "this page does not take that method").with_header("Allow", allow.to_owned())
}

/// A refusal that says in one line what was wrong.
pub(crate) fn refusal(status: u16, why: &str) -> Response {
    Response::text(format!("{status} {}: {why}\n", reason(status))).with_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Checked;
    use crate::http::head::{Limits, Parser};
    use std::sync::Arc;

    fn request(method: &str, path: &str, draining: bool) -> Request {
        let bytes = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let head = Parser::new()
            .advance(
                &bytes,
                &Limits {
                    line: 1000,
                    head: 1000,
                },
            )
            .unwrap()
            .unwrap();
        Request {
            checked: Arc::new(Checked { bytes, head }),
            body: Default::default(),
            peer: None,
            draining,
        }
    }

    #[test]
    fn every_answer_without_a_socket() {
        let mut routes = Routes::default();
        routes.add("GET", "/a", Box::new(|_| Response::text("old")));
        routes.add(
            "GET",
            "/a",
            Box::new(|request| Response::text(request.param("x").unwrap_or_default())),
        );
        routes.add("PUT", "/a", Box::new(|_| Response::new(201)));
        routes.add("POST", "/b", Box::new(|_| Response::new(202)));
        for (method, path, draining, status, body) in [
            ("GET", "/a?y=1&x=2%203", false, 200, "2 3"),
            ("HEAD", "/a?x=1", false, 200, "1"),
            ("PUT", "/a", false, 201, ""),
            (
                "DELETE",
                "/a",
                false,
                405,
                "405 Method Not Allowed: this page does not take that method\n",
            ),
            (
                "HEAD",
                "/b",
                false,
                405,
                "405 Method Not Allowed: this page does not take that method\n",
            ),
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
            (
                "POST",
                "/healthz",
                false,
                405,
                "405 Method Not Allowed: this page does not take that method\n",
            ),
            ("OPTIONS", "*", false, 204, ""),
        ] {
            let answer = routes.answer(&mut request(method, path, draining));
            assert_eq!(
                (answer.status(), answer.body()),
                (status, body.as_bytes()),
                "{method} {path}"
            );
        }
        for (path, allow) in [
            ("/a", "Allow: GET, PUT, HEAD\r\n"),
            ("/b", "Allow: POST\r\n"),
        ] {
            let mut head = Vec::new();
            routes
                .answer(&mut request("TRACE", path, false))
                .render_head(&mut head, "D", 1, true);
            assert!(String::from_utf8(head).unwrap().contains(allow), "{path}");
        }
    }
}
