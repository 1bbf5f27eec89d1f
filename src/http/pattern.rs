//! The paths of routes: plain ones, and those with `{name}` in the place of a name and `{*name}` in that of the rest.
//! Whichever says most about a path has it, from its first name on: a name goes before `{name}`, and that before `{*name}`.
#![forbid(unsafe_code)]

use super::request::Request;
use super::response::Response;
use super::target::normal;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A plain function from request to response, called by several threads at a time.
pub(crate) type Handler = Box<dyn Fn(&mut Request) -> Response + Send + Sync>;

/// What answers a method of a path.
pub(crate) enum Page {
    Handler(Handler),
    /// The same answer each time.
    Fixed(Arc<Response>),
}

/// What answers at one path, by method.
#[derive(Default)]
pub(super) struct Endpoint {
    methods: Vec<(String, Page)>,
    /// The names of its parameters.
    names: Option<Arc<[String]>>,
    /// Longest body, where it has a limit of its own.
    pub limit: Option<u64>,
}

impl Endpoint {
    /// False where the method has one already.
    pub fn add(&mut self, method: &str, page: Page) -> bool {
        let is_new = self.methods.iter().all(|(other, _)| other != method);
        if is_new {
            self.methods.push((method.to_owned(), page));
        }
        is_new
    }

    /// What answers a method, and the names of the path; that of `GET` answers `HEAD` where none does.
    pub fn page(&self, method: &str) -> Option<(&Option<Arc<[String]>>, &Page)> {
        let find = |wanted: &str| self.methods.iter().find(|(method, _)| method == wanted);
        let found = find(method).or_else(|| find("GET").filter(|_| method == "HEAD"));
        found.map(|(_, page)| (&self.names, page))
    }

    /// Its methods, as `Allow` has them.
    pub fn allow(&self) -> String {
        let methods = self.methods.iter().map(|(method, _)| method.as_str());
        let mut allow: Vec<&str> = methods.collect();
        if allow.contains(&"GET") && !allow.contains(&"HEAD") {
            allow.push("HEAD");
        }
        allow.join(", ")
    }
}

/// A path as a program names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// In the form that is compared.
    Path(String),
    /// With parameters, and their names.
    Parts(Vec<Part>, Vec<String>),
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Name(String),
    Any,
    Rest,
}

impl Pattern {
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(path: &str) -> Result<Pattern, String> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err("it does not begin with a slash".to_owned());
        };
        if let Some(sign) = path.chars().find(|c| matches!(c, '?' | '#')) {
            let why = "is not part of a path; Request::param has what stands behind a ?";
            return Err(format!("{sign:?} {why}"));
        }
        let (mut parts, mut names) = (Vec::new(), Vec::new());
        for text in rest.split('/') {
            if parts.last() == Some(&Part::Rest) {
                return Err("{*name} takes all the rest, and is the last".to_owned());
            }
            parts.push(match parameter(text)? {
                None => Part::Name(normal(text)),
                Some((name, is_rest)) => {
                    if names.iter().any(|other| other == name) {
                        return Err(format!("{name:?} is there twice"));
                    }
                    names.push(name.to_owned());
                    if is_rest { Part::Rest } else { Part::Any }
                }
            });
        }
        Ok(match names.is_empty() {
            true => Pattern::Path(normal(path)),
            false => Pattern::Parts(parts, names),
        })
    }
}

/// The name in braces, and whether it takes all the rest; `None` for a name of the path itself.
fn parameter(text: &str) -> Result<Option<(&str, bool)>, String> {
    let bare = |sign: char| text.strip_prefix(sign).filter(|name| is_name(name));
    if let Some(name) = bare(':') {
        return Err(format!("{text:?}: a parameter is {{{name}}}"));
    }
    if text == "*" || bare('*').is_some() {
        return Err(format!("{text:?}: what takes all the rest is {{*name}}"));
    }
    if !text.contains(['{', '}']) {
        return Ok(None);
    }
    let inside = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    let (name, is_rest) = match inside.unwrap_or_default().strip_prefix('*') {
        Some(name) => (name, true),
        None => (inside.unwrap_or_default(), false),
    };
    match is_name(name) {
        true => Ok(Some((name, is_rest))),
        false => Err(format!(
            "{text:?}: a parameter is {{name}} or {{*name}}, alone between two slashes"
        )),
    }
}

fn is_name(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.bytes().all(is_good)
}

/// All paths with parameters: a tree of names.
#[derive(Default)]
pub(super) struct Patterns(Node);

#[derive(Default)]
struct Node {
    names: BTreeMap<String, Node>,
    any: Option<Box<Node>>,
    rest: Option<Endpoint>,
    here: Option<Endpoint>,
}

impl Patterns {
    /// The handlers of a path, made if they are not there.
    ///
    /// # Errors
    /// They are there under other names of parameters: these.
    pub fn endpoint(&mut self, parts: &[Part], names: &[String]) -> Result<&mut Endpoint, String> {
        let mut node = &mut self.0;
        for part in parts {
            node = match part {
                Part::Name(name) => node.names.entry(name.clone()).or_default(),
                Part::Any => node.any.get_or_insert_default(),
                Part::Rest => {
                    return named(node.rest.get_or_insert_default(), names);
                }
            };
        }
        named(node.here.get_or_insert_default(), names)
    }

    /// The handlers of a path, if they are there.
    pub fn get_mut(&mut self, parts: &[Part]) -> Option<&mut Endpoint> {
        let mut node = &mut self.0;
        for part in parts {
            node = match part {
                Part::Name(name) => node.names.get_mut(name)?,
                Part::Any => node.any.as_deref_mut()?,
                Part::Rest => return node.rest.as_mut(),
            };
        }
        node.here.as_mut()
    }

    /// The handlers that a path means, and where in it the values of their parameters are.
    pub fn find(&self, path: &str) -> Option<(&Endpoint, Vec<Range<usize>>)> {
        if self.0.names.is_empty() && self.0.any.is_none() && self.0.rest.is_none() {
            return None;
        }
        let mut places = Vec::new();
        let start = path.starts_with('/').then_some(1)?;
        let endpoint = self.0.find(path, start, &mut places)?;
        Some((endpoint, places))
    }
}

fn named<'a>(endpoint: &'a mut Endpoint, names: &[String]) -> Result<&'a mut Endpoint, String> {
    let there = endpoint.names.get_or_insert_with(|| names.into());
    if **there != *names {
        let there: Vec<String> = there.iter().map(|name| format!("{{{name}}}")).collect();
        return Err(there.join(" and "));
    }
    Ok(endpoint)
}

impl Node {
    fn find(&self, path: &str, start: usize, places: &mut Vec<Range<usize>>) -> Option<&Endpoint> {
        // The tree is as deep as the longest route, however many slashes were sent.
        let end = path[start..].find('/').map_or(path.len(), |at| start + at);
        let name = &path[start..end];
        if let Some(node) = self.names.get(name) {
            if let Some(found) = node.go_on(path, end, places) {
                return Some(found);
            }
        }
        if let Some(node) = self.any.as_deref().filter(|_| fits(name)) {
            places.push(start..end);
            if let Some(found) = node.go_on(path, end, places) {
                return Some(found);
            }
            places.pop();
        }
        let rest = self.rest.as_ref()?;
        let names = path[start..].strip_suffix('/').unwrap_or(&path[start..]);
        if !names.split('/').all(fits) {
            return None;
        }
        places.push(start..path.len());
        Some(rest)
    }

    /// What this node has for a path from the end of a name on.
    fn go_on(&self, path: &str, end: usize, places: &mut Vec<Range<usize>>) -> Option<&Endpoint> {
        match end == path.len() {
            true => self.here.as_ref(),
            false => self.find(path, end + 1, places),
        }
    }
}

/// Whether it may be the name of a file once it is decoded: nothing that leads elsewhere. Escapes of dots were taken off.
fn fits(name: &str) -> bool {
    if name.is_empty() || matches!(name, "." | "..") {
        return false;
    }
    if !name.contains('%') {
        return true;
    }
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, behind @ ..] = rest {
        if *first != b'%' {
            decoded.push(*first);
            rest = behind;
            continue;
        }
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return false;
        };
        decoded.push((high * 16 + low) as u8);
        rest = &behind[2..];
    }
    let is_bad = decoded.iter().any(|byte| matches!(byte, 0 | b'/'));
    !is_bad && std::str::from_utf8(&decoded).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(paths: &[&str]) -> Patterns {
        let mut all = Patterns::default();
        for path in paths {
            let Ok(Pattern::Parts(parts, names)) = Pattern::parse(path) else {
                panic!("{path}");
            };
            let endpoint = all.endpoint(&parts, &names).unwrap();
            let answer = (*path).to_owned();
            let handler = Box::new(move |_: &mut Request| Response::text(answer.clone()));
            assert!(endpoint.add("GET", Page::Handler(handler)));
        }
        all
    }

    /// Which of them answers, and the values of its parameters.
    fn found(patterns: &Patterns, path: &str) -> Option<String> {
        let (endpoint, places) = patterns.find(path)?;
        let Some((names, Page::Handler(handler))) = endpoint.page("HEAD") else {
            panic!("{path}");
        };
        let answer = handler(&mut Request::new("GET", "/")).into_text();
        let values: Vec<&str> = places.into_iter().map(|place| &path[place]).collect();
        assert_eq!(names.as_ref().unwrap().len(), values.len());
        Some(format!("{answer} {}", values.join(" ")))
    }

    #[test]
    fn the_most_specific_has_it() {
        let all = patterns(&[
            "/users/{id}",
            "/users/{id}/posts/{post}",
            "/users/me/{what}",
            "/{*rest}",
            "/files/{*path}",
            "/files/{name}/info",
            "/{a}/b/",
        ]);
        for (path, expected) in [
            ("/users/7", "/users/{id} 7"),
            ("/users/7/posts/9", "/users/{id}/posts/{post} 7 9"),
            ("/users/me/posts", "/users/me/{what} posts"),
            // Nothing under "me" fits, and one step back it does.
            ("/users/me/posts/9", "/users/{id}/posts/{post} me 9"),
            ("/users/7/likes", "/{*rest} users/7/likes"),
            ("/files/a", "/files/{*path} a"),
            ("/files/a/info", "/files/{name}/info a"),
            ("/files/a/b/info", "/files/{*path} a/b/info"),
            ("/files/a/", "/files/{*path} a/"),
            ("/x/b/", "/{a}/b/ x"),
            ("/users/a%20b", "/users/{id} a%20b"),
        ] {
            assert_eq!(found(&all, path).as_deref(), Some(expected), "{path}");
        }
        let all = patterns(&["/users/{id}", "/files/{*path}"]);
        for path in [
            "/",
            "*",
            "/users",
            "/users/",
            "/users/7/",
            "/users//",
            "/users/..",
            "/users/.",
            "/users/a%2Fb",
            "/users/a%00b",
            "/users/%FF",
            "/users/%",
            "/users/%4",
            "/files",
            "/files/",
            "/files//a",
            "/files/a//b",
            "/files/a/../b",
            "/files/../b",
            "/files/a%2F..%2Fb",
            "/files/..",
        ] {
            assert_eq!(found(&all, path), None, "{path}");
        }
    }

    #[test]
    fn paths_that_cannot_be_meant() {
        for (path, why) in [
            ("noslash", "it does not begin with a slash"),
            ("", "it does not begin with a slash"),
            (
                "/q?x=1",
                "'?' is not part of a path; Request::param has what stands behind a ?",
            ),
            ("/todo/:id", "\":id\": a parameter is {id}"),
            ("/files/*", "\"*\": what takes all the rest is {*name}"),
            (
                "/files/*rest",
                "\"*rest\": what takes all the rest is {*name}",
            ),
            ("/{*rest}/x", "{*name} takes all the rest, and is the last"),
            ("/{a}/{a}", "\"a\" is there twice"),
            (
                "/a{b}",
                "\"a{b}\": a parameter is {name} or {*name}, alone between two slashes",
            ),
            (
                "/{}",
                "\"{}\": a parameter is {name} or {*name}, alone between two slashes",
            ),
            (
                "/{a-b}",
                "\"{a-b}\": a parameter is {name} or {*name}, alone between two slashes",
            ),
        ] {
            assert_eq!(Pattern::parse(path), Err(why.to_owned()), "{path}");
        }
        let plain = |path: &str| Pattern::Path(path.to_owned());
        assert_eq!(Pattern::parse("/"), Ok(plain("/")));
        assert_eq!(Pattern::parse("/%7e\u{e9}:x"), Ok(plain("/~%C3%A9:x")));
        let mut all = patterns(&["/users/{id}"]);
        let other = all.endpoint(&[Part::Name("users".into()), Part::Any], &["name".into()]);
        assert_eq!(other.err().as_deref(), Some("{id}"));
    }

    #[test]
    fn many_slashes_are_soon_read() {
        let all = patterns(&["/a/{b}/c/{d}/e", "/{*rest}"]);
        let path = "/a/b".repeat(50_000);
        assert_eq!(all.find(&path).map(|(_, places)| places.len()), Some(1));
        assert!(all.find(&"/".repeat(100_000)).is_none());
    }
}
