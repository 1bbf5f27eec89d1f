//! A directory of files as pages: which file answers, in which coding, under which conditions, and with which fields.
//! Where the file comes from is in `resolve`; what a request may ask for in `target`, `conditions` and `accept`.
#![forbid(unsafe_code)]

use super::accept::{self, Coding};
use super::checked::Checked;
use super::conditions::{self, Decision, Validators};
use super::listing;
use super::resolve::{Directory, Found, Miss, Opened, Root};
use super::response::{Response, not_allowed, refusal};
use super::target::{Target, Wrong, link};
use super::types;
use crate::clock::Utc;
use crate::log;
use crate::serving::Serving;
use crate::settings::Settings;
use crate::sys::file::Patience;
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What answers for a directory.
const INDEX: &[u8] = b"index.html";
/// What answers for what is not there.
const NOT_FOUND: &[u8] = b"404.html";
/// A file that changed less than this many nanoseconds ago may change again without its time telling.
const UNSETTLED: i128 = 2_000_000_000;
/// A time of change that says nothing: images that are built reproducibly set all of them to 0 or 1.
const TIMELESS: i64 = 1;

const REVALIDATE: &str = "no-cache";
const FOREVER: &str = "public, max-age=31536000, immutable";

/// A directory that is served, and how.
pub(crate) struct Files {
    /// What the paths of its files begin with: nothing, or a slash and names without one at the end.
    prefix: String,
    directory: Directory,
    how: Serving,
    salt: u64,
    /// It was gone when last asked, and that is in the log.
    is_gone: AtomicBool,
}

/// One answer on its way: everything but the file.
struct Draft<'a> {
    request: &'a Checked,
    /// What is said of keeping it, where `app.header.Cache-Control` has no say.
    cache: Option<&'static str>,
    /// It depends on `Accept-Encoding`.
    varies: bool,
    /// It depends on `Accept`.
    varies_by_type: bool,
}

/// A file, and how it is to be sent.
struct Chosen {
    opened: Opened,
    /// The type of the original.
    kind: Cow<'static, str>,
    coding: Option<Coding>,
    /// There is no original for those who do not take this coding.
    is_alone: bool,
}

impl Files {
    pub fn new(prefix: &str, directory: PathBuf, settings: &Settings, salt: u64) -> Files {
        Files {
            prefix: prefix.trim_end_matches('/').to_owned(),
            directory: Directory::new(directory, settings.own_files()),
            how: settings.serving.clone(),
            salt,
            is_gone: AtomicBool::new(false),
        }
    }

    /// Whether this path is one of its own.
    pub fn has(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.prefix);
        path.starts_with('/') && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What the paths of its files begin with: the longest one that fits is to answer.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Answers; `None` where that takes more patience.
    pub fn answer(&self, request: &Checked, patience: Patience) -> Option<Response> {
        let mut draft = Draft {
            request,
            cache: None,
            varies: false,
            varies_by_type: false,
        };
        let response = match self.find(&mut draft, patience) {
            Ok(response) => response,
            Err(Miss::WouldBlock) => return None,
            // What is out of order is said by who has tried everything.
            Err(Miss::Busy | Miss::NoRoot(_) | Miss::Broken(_)) if patience == Patience::Cached => {
                return None;
            }
            Err(miss) => self.refuse(&mut draft, miss),
        };
        Some(self.finish(&draft, response))
    }

    fn find(&self, draft: &mut Draft<'_>, patience: Patience) -> Result<Response, Miss> {
        if !matches!(draft.request.method(), "GET" | "HEAD") {
            return Ok(not_allowed("GET, HEAD"));
        }
        let sent = &draft.request.path()[self.prefix.len()..];
        let target = match Target::parse(sent.as_bytes(), self.prefix.is_empty()) {
            Err(Wrong::Malformed) => return Ok(refusal(400, "malformed escape in the path")),
            Err(Wrong::Unfit) => None,
            Ok(target) => Some(target),
        };
        let root = self.directory.open(patience)?;
        if self.is_gone.load(Ordering::Relaxed) {
            self.is_gone.store(false, Ordering::Relaxed);
        }
        let Some(target) = target else {
            return self.not_found(draft, &root);
        };
        let chosen = if target.is_directory {
            match self.choose(draft, &root, &target.join(INDEX)) {
                // Of a directory an index that is no file is none; behind a file there is nothing at all.
                Err(Miss::Unfit) => match root.look(&target.path)? {
                    Found::Directory => Err(Miss::Absent),
                    Found::File(_) => Err(Miss::Unfit),
                },
                chosen => chosen,
            }
        } else {
            match root.find(&target.path) {
                Ok(Found::Directory) => return Ok(self.redirect(draft, &target)),
                Ok(Found::File(opened)) => self.choose_coding(draft, &root, &target.path, opened),
                Err(miss) => self.choose_packed(draft, &root, &target.path, miss),
            }
        };
        match chosen {
            Ok(chosen) => {
                let cache = self.is_immutable(&target).then_some(FOREVER);
                self.send(draft, chosen, cache)
            }
            Err(Miss::Absent) if target.is_directory && self.how.listing => {
                let above = !target.path.is_empty();
                match listing::page(&root, &target, &self.shown(&target), above) {
                    Ok(page) => Ok(Response::html(page)),
                    Err(Miss::Absent) => self.unknown(draft, &root, &target),
                    Err(miss) => Err(miss),
                }
            }
            Err(Miss::Absent) => self.unknown(draft, &root, &target),
            Err(Miss::Unfit) => self.not_found(draft, &root),
            Err(miss) => Err(miss),
        }
    }

    /// A file by its name, with all that may stand beside it.
    fn choose(&self, draft: &mut Draft<'_>, root: &Root<'_>, path: &[u8]) -> Result<Chosen, Miss> {
        match root.find(path) {
            Ok(Found::File(opened)) => self.choose_coding(draft, root, path, opened),
            Ok(Found::Directory) => Err(Miss::Unfit),
            Err(miss) => self.choose_packed(draft, root, path, miss),
        }
    }

    /// The original is there: it goes out itself, or what is packed beside it.
    fn choose_coding(
        &self,
        draft: &mut Draft<'_>,
        root: &Root<'_>,
        path: &[u8],
        opened: Opened,
    ) -> Result<Chosen, Miss> {
        let kind = types::of(path, &self.how.types);
        draft.varies = types::is_compressible(&kind);
        let mut chosen = Chosen {
            opened,
            kind,
            coding: None,
            is_alone: false,
        };
        if !draft.varies {
            return Ok(chosen);
        }
        for coding in draft.codings() {
            match root.find(&[path, coding.extension().as_bytes()].concat()) {
                Ok(Found::File(opened)) if opened.modified >= chosen.opened.modified => {
                    (chosen.opened, chosen.coding) = (opened, Some(coding));
                    break;
                }
                Err(Miss::WouldBlock) => return Err(Miss::WouldBlock),
                // Nothing beside a file makes it unavailable.
                _ => {}
            }
        }
        Ok(chosen)
    }

    /// The original is not there: a box that saves flash has it packed alone.
    fn choose_packed(
        &self,
        draft: &mut Draft<'_>,
        root: &Root<'_>,
        path: &[u8],
        miss: Miss,
    ) -> Result<Chosen, Miss> {
        let kind = types::of(path, &self.how.types);
        if !matches!(miss, Miss::Absent) || !types::is_compressible(&kind) {
            return Err(miss);
        }
        match root.find(&[path, Coding::Gzip.extension().as_bytes()].concat()) {
            Ok(Found::File(opened)) => {
                draft.varies = true;
                Ok(Chosen {
                    opened,
                    kind,
                    coding: Some(Coding::Gzip),
                    is_alone: true,
                })
            }
            Err(Miss::WouldBlock) => Err(Miss::WouldBlock),
            _ => Err(miss),
        }
    }

    /// Nothing is there: where the application has pages that the server does not know, it gets to show them.
    fn unknown(
        &self,
        draft: &mut Draft<'_>,
        root: &Root<'_>,
        target: &Target,
    ) -> Result<Response, Miss> {
        let Some(fallback) = &self.how.fallback else {
            return self.not_found(draft, root);
        };
        // From here on the answer is for those who accept what this one does, whichever it is (RFC 9110 §12.5.5).
        draft.varies_by_type = !target.name().contains(&b'.');
        if !draft.varies_by_type || !accept::admits_html(draft.field("Accept").as_deref()) {
            return self.not_found(draft, root);
        }
        match self.choose(draft, root, fallback.as_bytes()) {
            Ok(chosen) => self.send(draft, chosen, Some(REVALIDATE)),
            Err(Miss::Absent | Miss::Unfit) => self.not_found(draft, root),
            Err(miss) => Err(miss),
        }
    }

    /// 404, with the page for it if there is one: always whole, and nothing to compare it by.
    fn not_found(&self, draft: &mut Draft<'_>, root: &Root<'_>) -> Result<Response, Miss> {
        match self.choose(draft, root, NOT_FOUND) {
            Ok(chosen) if chosen.is_admitted(draft) => {
                let size = chosen.opened.size;
                Ok(chosen.into_response(404, 0, size))
            }
            Err(Miss::WouldBlock) => Err(Miss::WouldBlock),
            _ => {
                draft.varies = false;
                Ok(refusal(404, "no such page"))
            }
        }
    }

    /// Relative, so that it is right behind any proxy.
    fn redirect(&self, draft: &Draft<'_>, target: &Target) -> Response {
        let mut location = match target.path.is_empty() {
            false => link(target.name()),
            true => {
                let name = self.prefix.rsplit('/').next().unwrap_or("");
                let dot = if name.contains(':') { "./" } else { "" };
                dot.to_owned() + name
            }
        };
        location.push('/');
        if let Some(query) = draft.request.query() {
            location.push('?');
            location += query;
        }
        Response::new(301).with_header("Location", location)
    }

    /// The path of a URL as people read it, with a slash at its end.
    fn shown(&self, target: &Target) -> Vec<u8> {
        let slash: &[u8] = if target.path.is_empty() { b"" } else { b"/" };
        [self.prefix.as_bytes(), b"/", &target.path, slash].concat()
    }

    fn is_immutable(&self, target: &Target) -> bool {
        if self.how.immutable.is_empty() {
            return false;
        }
        let mut path = self.shown(target);
        if !target.is_directory {
            path.pop();
        }
        let mut prefixes = self.how.immutable.iter();
        prefixes.any(|prefix| path.starts_with(prefix.as_bytes()))
    }

    /// All of it, a part, or word that it has not changed, to be kept as `cache` says; or why not, which is never kept
    /// for long.
    fn send(
        &self,
        draft: &mut Draft<'_>,
        chosen: Chosen,
        cache: Option<&'static str>,
    ) -> Result<Response, Miss> {
        if !chosen.is_admitted(draft) {
            return Ok(refusal(406, "this page is there in gzip alone"));
        }
        let validators = self.validators(&chosen, SystemTime::now());
        let size = chosen.opened.size;
        let is_get = draft.request.method() == "GET";
        let decision = conditions::decide(is_get, &validators, size, &|name| draft.field(name));
        let mut response = match decision {
            Decision::Failed => return Ok(refusal(412, "the file is another one than expected")),
            Decision::Unsatisfiable => {
                let range = format!("bytes */{size}");
                return Ok(refusal(416, "the file is shorter").with_header("Content-Range", range));
            }
            Decision::NotModified => Response::new(304),
            Decision::Whole => {
                let mut response = chosen.into_response(200, 0, size);
                response.set("Accept-Ranges", "bytes");
                response
            }
            Decision::Part { start, length } => {
                let range = format!("bytes {start}-{}/{size}", start + length - 1);
                let response = chosen.into_response(206, start, length);
                response.with_header("Content-Range", range)
            }
        };
        draft.cache = cache;
        response.set("ETag", validators.tag);
        if let Some(seconds) = validators.modified {
            let date = Utc::at(seconds.unsigned_abs(), 0).http();
            response.set("Last-Modified", date);
        }
        Ok(response)
    }

    fn validators(&self, chosen: &Chosen, now: SystemTime) -> Validators {
        let Opened {
            size,
            modified: (seconds, nanos),
            identity,
            ..
        } = chosen.opened;
        let coding = chosen.coding.map_or("", Coding::token);
        let dash = if coding.is_empty() { "" } else { "-" };
        if seconds <= TIMELESS {
            // Nobody is to read an inode out of it, or to know it in advance.
            let mut hash = DefaultHasher::new();
            (self.salt, identity, size).hash(&mut hash);
            return Validators {
                tag: format!("\"{:016x}{dash}{coding}\"", hash.finish()),
                modified: None,
            };
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX)
            - i128::from(seconds) * 1_000_000_000
            - i128::from(nanos);
        let mut tag = String::with_capacity(48);
        tag += if age < UNSETTLED { "W/\"" } else { "\"" };
        push_hex(&mut tag, seconds.unsigned_abs());
        tag.push('.');
        push_hex(&mut tag, nanos.into());
        tag.push('-');
        push_hex(&mut tag, size);
        for part in [dash, coding, "\""] {
            tag += part;
        }
        Validators {
            tag,
            modified: (age >= 0).then_some(seconds),
        }
    }

    fn refuse(&self, draft: &mut Draft<'_>, miss: Miss) -> Response {
        draft.varies = false;
        let directory = self.directory.path.display();
        match miss {
            Miss::Absent | Miss::Unfit => refusal(404, "no such page"),
            Miss::Forbidden => refusal(403, "this page may not be read"),
            Miss::Busy | Miss::WouldBlock => {
                refusal(503, "the file cannot be opened just now").with_header("Retry-After", "1")
            }
            Miss::NoRoot(error) => {
                if !self.is_gone.swap(true, Ordering::Relaxed) {
                    log::error(format_args!(
                        "cannot serve {directory}: {error}; until it is back every answer is 503"
                    ));
                }
                refusal(503, "the files are away").with_header("Retry-After", "1")
            }
            Miss::Broken(error) => {
                let path = draft.request.path();
                log::error(format_args!(
                    "cannot serve {path} from {directory}: {error}"
                ));
                refusal(500, "the file cannot be read")
            }
        }
    }

    /// A round of the gate is over.
    pub fn end_round(&self) {
        self.directory.end_round();
    }

    /// What every answer has, whatever it is. How long a page may be kept says nothing of an outage, which a cache would
    /// keep as long (RFC 9111 §3).
    fn finish(&self, draft: &Draft<'_>, mut response: Response) -> Response {
        let is_cache = |name: &str| name.eq_ignore_ascii_case("Cache-Control");
        let is_page = matches!(response.status(), 200 | 206 | 304);
        let mut headers = self.how.headers.iter();
        let own = headers.find(|(name, _)| is_page && is_cache(name));
        match (draft.cache, own) {
            (None, Some((_, value))) => response.set("Cache-Control", value.clone()),
            (cache, _) => response.set("Cache-Control", cache.unwrap_or(REVALIDATE)),
        }
        response.set("X-Content-Type-Options", "nosniff");
        let varies = match (draft.varies_by_type, draft.varies) {
            (true, true) => Some("Accept, Accept-Encoding"),
            (true, false) => Some("Accept"),
            (false, true) => Some("Accept-Encoding"),
            (false, false) => None,
        };
        if let Some(fields) = varies {
            response.set("Vary", fields);
        }
        let others = self.how.headers.iter().filter(|(name, _)| !is_cache(name));
        others.fold(response, |response, (name, value)| {
            response.with_header(name.clone(), value.clone())
        })
    }
}

impl Draft<'_> {
    /// The value of a field, several lines of it as one list (RFC 9110 §5.3).
    fn field(&self, name: &str) -> Option<Vec<u8>> {
        let mut values = self.request.values(name);
        let first = values.next()?.to_vec();
        Some(values.fold(first, |all, value| [&all, &b", "[..], value].concat()))
    }

    fn codings(&self) -> Vec<Coding> {
        accept::codings(self.field("Accept-Encoding").as_deref())
    }
}

impl Chosen {
    fn is_admitted(&self, draft: &Draft<'_>) -> bool {
        let accepted = || draft.field("Accept-Encoding");
        !self.is_alone || accept::admits(accepted().as_deref(), Coding::Gzip)
    }

    /// So many bytes of it, from this place on.
    fn into_response(self, status: u16, start: u64, length: u64) -> Response {
        let mut response = Response::of_file(status, self.opened.file, start, length);
        response.set("Content-Type", self.kind);
        if let Some(coding) = self.coding {
            response.set("Content-Encoding", coding.token());
        }
        response
    }
}

/// A number in hexadecimal, without the cost of [`std::fmt`]: each answer with a file has three in its tag.
fn push_hex(text: &mut String, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (4 * place)) as u32 & 15;
        text.extend(char::from_digit(digit, 16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Limits, Parser};
    use crate::settings::Overrides;
    use std::fs;
    use std::time::Duration;

    fn request(target: &str) -> Checked {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        let bytes = bytes.into_bytes();
        let roomy = Limits {
            line: 1000,
            head: 1000,
        };
        let head = Parser::new().advance(&bytes, &roomy).unwrap().unwrap();
        Checked::new(bytes, head)
    }

    #[test]
    fn numbers_of_a_tag_are_those_of_fmt() {
        let powers = (0..64).map(|power| 1 << power);
        for number in powers
            .flat_map(|power: u64| [power - 1, power])
            .chain([u64::MAX])
        {
            let mut text = String::new();
            push_hex(&mut text, number);
            assert_eq!(text, format!("{number:x}"));
        }
    }

    /// What is answered without patience is what is answered with it; and what was just answered is at hand, where
    /// the kernel can say so.
    #[test]
    fn patience_changes_no_answer() {
        let top = std::env::temp_dir().join(format!("hade-patience-{}", std::process::id()));
        fs::create_dir_all(top.join("d/e")).unwrap();
        const NAMES: [&str; 5] = ["a.css", "a.css.gz", "b.css.gz", "d/index.html", "d/e/x"];
        for name in NAMES {
            fs::write(top.join(name), name).unwrap();
            let file = fs::File::options().write(true).open(top.join(name));
            // Long ago, for a tag that does not change.
            file.unwrap()
                .set_modified(UNIX_EPOCH + Duration::from_secs(9))
                .unwrap();
        }
        std::os::unix::fs::symlink("../d", top.join("d/link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", top.join("out")).unwrap();
        let mut overrides = Overrides::default();
        overrides
            .set
            .push(("listing".to_owned(), "true".to_owned()));
        overrides.base_dir = top.to_str().map(str::to_owned);
        let settings = Settings::load(&overrides, &|_| None).unwrap();
        let files = Files::new("/f/", top.clone(), &settings, 1);
        assert!(files.has("/f") && files.has("/f/x") && !files.has("/fx") && !files.has("f/x"));
        for (target, status) in [
            ("/f/a.css", 200),
            ("/f/b.css", 200),
            ("/f/d/", 200),
            ("/f/d/link/e/x", 200),
            ("/f", 301),
            ("/f/d", 301),
            ("/f/d/e/", 200),
            ("/f/none", 404),
            ("/f/out", 404),
            ("/f/.x", 404),
            ("/f/%", 400),
        ] {
            let request = request(target);
            let waited = files.answer(&request, Patience::Wait).unwrap();
            assert_eq!(waited.status(), status, "{target}");
            let mut at_once = None;
            // What was at hand may be taken away at any moment, and comes back by an answer that waits.
            for _ in 0..100 {
                at_once = at_once.or_else(|| {
                    let _ = files.answer(&request, Patience::Wait);
                    // The first time that a file is read may have to be noted.
                    NAMES.iter().for_each(|name| drop(fs::read(top.join(name))));
                    files.answer(&request, Patience::Cached)
                });
            }
            // Reading names is never at hand, and whether a link leads out is not told without waiting.
            let may_wait = ["/f/d/e/", "/f/out"].contains(&target);
            let knows = crate::sys::file::open_root(&top, Patience::Cached).is_ok();
            assert!(at_once.is_some() || may_wait || !knows, "{target}");
            if let Some(at_once) = at_once {
                let head = |response: &Response| {
                    let mut head = Vec::new();
                    response.render_head(&mut head, "D", 1, true);
                    String::from_utf8(head).unwrap()
                };
                assert_eq!(head(&at_once), head(&waited), "{target}");
            }
        }
        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn a_directory_that_is_turned_is_seen_in_the_next_round() {
        let top = std::env::temp_dir().join(format!("hade-round-{}", std::process::id()));
        for release in ["1", "2"] {
            fs::create_dir_all(top.join(release)).unwrap();
            let path = top.join(release).join(release);
            fs::write(&path, release).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(9))
                .unwrap();
        }
        let turn = |release: &str| {
            std::os::unix::fs::symlink(release, top.join("new")).unwrap();
            fs::rename(top.join("new"), top.join("www")).unwrap();
        };
        turn("1");
        let overrides = Overrides {
            base_dir: top.to_str().map(str::to_owned),
            ..Overrides::default()
        };
        let settings = Settings::load(&overrides, &|_| None).unwrap();
        let files = Files::new("/", top.join("www"), &settings, 1);
        let status = |target: &str, patience| {
            let answer = files.answer(&request(target), patience);
            answer.map(|answer| answer.status())
        };
        let at_once = |target: &str| {
            (0..100).find_map(|_| {
                status(target, Patience::Wait);
                // The first time that a file is read may have to be noted.
                for name in ["1/1", "2/2"] {
                    let _ = fs::read(top.join(name));
                }
                status(target, Patience::Cached)
            })
        };
        if crate::sys::file::open_root(&top, Patience::Cached).is_ok() {
            assert_eq!(at_once("/1"), Some(200));
            turn("2");
            assert_eq!(status("/1", Patience::Wait), Some(404));
            assert_eq!(at_once("/1"), Some(200), "this round began before");
            files.end_round();
            assert_eq!(at_once("/1"), Some(404));
            assert_eq!(at_once("/2"), Some(200));
        }
        fs::remove_dir_all(&top).unwrap();
    }
}
