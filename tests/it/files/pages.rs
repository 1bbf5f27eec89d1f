//! A directory of files as pages: which file answers, with which fields, and what is said where none can.

use crate::support::*;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

/// Long enough ago for a tag to be strong: the moment of the example in RFC 9110.
pub const SECONDS: u64 = 784_111_777;
pub const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

impl Place {
    /// Writes a file that was last changed then.
    pub fn write_at(&self, name: &str, content: impl AsRef<[u8]>, seconds: u64) {
        self.write(name, content);
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(moment).unwrap();
    }

    pub fn link(&self, target: &str, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }
}

impl Site {
    /// One request with these fields, on a connection of its own.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, fields: &[&str]) -> Answer {
        let mut wire = self.connect();
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n");
        for field in fields {
            text += &format!("{field}\r\n");
        }
        wire.send(text + "\r\n");
        wire.read_answer(method != "HEAD").expect("an answer")
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    let lines = answer.head.lines().skip(1);
    lines
        .filter_map(|line| Some(line.split_once(": ")?.0))
        .collect()
}

#[test]
fn a_file_goes_out_with_what_is_known_of_it() {
    let place = Place::new();
    place.write_at("www/a.css", "body{}\n", SECONDS);
    let site = place.start(&["--root", "www"]);
    let answer = site.get("/a.css");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body{}\n"));
    assert_eq!(
        names(&answer),
        [
            "Date",
            "Server",
            "Content-Type",
            "Accept-Ranges",
            "ETag",
            "Last-Modified",
            "Cache-Control",
            "X-Content-Type-Options",
            "Vary",
            "Content-Length",
            "Connection"
        ]
    );
    let tag = answer.header("ETag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{SECONDS:x}.0-7\""));
    for (name, value) in [
        ("Content-Type", "text/css; charset=utf-8"),
        ("Last-Modified", DATE),
        ("Cache-Control", "no-cache"),
        ("X-Content-Type-Options", "nosniff"),
        ("Vary", "Accept-Encoding"),
        ("Accept-Ranges", "bytes"),
        ("Content-Length", "7"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    // The head is the same for HEAD.
    let head = site.ask("HEAD", "/a.css", &[]);
    let undated = |answer: &Answer| answer.head.replace(answer.header("Date").unwrap(), "");
    assert_eq!(undated(&head), undated(&answer));
    // 304 carries what a cache needs, and nothing else.
    let unchanged = site.ask("GET", "/a.css", &[&format!("If-None-Match: {tag}")]);
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(
        names(&unchanged),
        [
            "Date",
            "Server",
            "ETag",
            "Last-Modified",
            "Cache-Control",
            "X-Content-Type-Options",
            "Vary",
            "Connection"
        ]
    );
    let part = site.ask("GET", "/a.css", &["Range: bytes=4-5"]);
    assert_eq!((part.status, part.text().as_str()), (206, "{}"));
    assert_eq!(part.header("Content-Range"), Some("bytes 4-5/7"));
    let none = site.ask("GET", "/a.css", &["Range: bytes=7-"]);
    assert_eq!(
        (none.status, none.header("Content-Range")),
        (416, Some("bytes */7"))
    );
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = site.ask(method, "/a.css", &[]);
        assert_eq!(
            (answer.status, answer.header("Allow")),
            (405, Some("GET, HEAD"))
        );
    }
    // A picture is not packed again, and nothing depends on who asks.
    place.write_at("www/a.png", "png", SECONDS);
    let answer = site.get("/a.png");
    assert_eq!(answer.header("Vary"), None);
    assert_eq!(answer.header("Content-Type"), Some("image/png"));
}

#[test]
fn a_tag_is_weak_while_the_file_is_new_and_dates_of_the_future_are_not_told() {
    let place = Place::new();
    place.write("www/new.txt", "new");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    place.write_at("www/new.txt", "new", now + 100);
    place.write_at("www/old.txt", "old", now - 100);
    let site = place.start(&["--root", "www"]);
    let new = site.get("/new.txt");
    assert!(new.header("ETag").unwrap().starts_with("W/\""));
    assert_eq!(new.header("Last-Modified"), None);
    let old = site.get("/old.txt");
    assert!(old.header("ETag").unwrap().starts_with('"'));
    assert!(old.header("Last-Modified").is_some());
    // One that was changed just now settles; the rest of its tag stays.
    place.write("www/now.txt", "now");
    let changed = fs::metadata(place.path("www/now.txt")).unwrap();
    let changed = changed.modified().unwrap();
    let weak = site.get("/now.txt").header("ETag").unwrap().to_owned();
    wait_until(20, "the tag is strong", || {
        let tag = site.get("/now.txt").header("ETag").unwrap().to_owned();
        assert!(tag == weak || Some(tag.as_str()) == weak.strip_prefix("W/"));
        let age = changed.elapsed().unwrap_or_default();
        assert!(tag.starts_with("W/") || age >= Duration::from_secs(2));
        tag.starts_with('"')
    });
}

/// Images that are built reproducibly have all their times set to 0 or 1 (caddyserver/caddy#5734): the next image is
/// another one, although nothing in it tells.
#[test]
fn without_times_the_tag_tells_one_start_from_the_next() {
    let place = Place::new();
    for (name, seconds) in [("0.txt", 0), ("1.txt", 1), ("other.txt", 0)] {
        place.write_at(&format!("www/{name}"), "same", seconds);
    }
    let site = place.start(&["--root", "www", "--set", "workers=2"]);
    let tag = |name: &str| {
        let answer = site.get(name);
        assert_eq!(answer.header("Last-Modified"), None);
        answer.header("ETag").unwrap().to_owned()
    };
    let before = tag("/0.txt");
    assert!(before.starts_with('"'), "{before}");
    assert_ne!(before, tag("/other.txt"));
    assert_ne!(before, tag("/1.txt"));
    // The same for every worker, those that follow a crash included.
    let workers = workers(site.pid);
    signal(workers[0], "KILL");
    site.wait_replaced(workers[0], 2);
    for _ in 0..20 {
        assert_eq!(tag("/0.txt"), before);
    }
    let kept = site.ask("GET", "/0.txt", &[&format!("If-None-Match: {before}")]);
    assert_eq!(kept.status, 304);
    place.app(&["restart"]).ok();
    let after = tag("/0.txt");
    assert_ne!(after, before);
    // A date says nothing about such a file.
    let date = "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT";
    assert_eq!(site.ask("GET", "/0.txt", &[date]).status, 200);
}

#[test]
fn directories_are_pages() {
    let place = Place::new();
    place.write("www/index.html", "top");
    place.write("www/d/index.html", "d");
    place.write("www/a:b/x.txt", "x");
    place.write("www/\\\\evil.example/x.txt", "x");
    place.write("www/file", "file");
    place.write("www/index-is-a-directory/index.html/x", "x");
    let site = place.start(&["--root", "www"]);
    assert_eq!(site.get("/").text(), "top");
    assert_eq!(site.get("/d/").text(), "d");
    for (target, location) in [
        ("/d", "d/"),
        ("/d?x=/../y", "d/?x=/../y"),
        ("/%64", "d/"),
        ("/a:b", "./a:b/"),
        ("/index-is-a-directory/index.html", "index.html/"),
        // A browser would take it for //evil.example.
        ("/\\\\evil.example", "%5C%5Cevil.example/"),
    ] {
        let answer = site.get(target);
        assert_eq!(
            (answer.status, answer.header("Location")),
            (301, Some(location)),
            "{target}"
        );
    }
    for target in [
        "/file/",
        "/d/index.html/",
        "/index-is-a-directory/",
        "/a:b/",
        "/none/",
        "/file/x",
    ] {
        assert_eq!(site.get(target).status, 404, "{target}");
    }
}

#[test]
fn what_is_unknown_may_be_a_page_of_the_application() {
    let place = Place::new();
    place.write_at("www/index.html", "<title>app</title>", SECONDS);
    place.write("www/d/x.txt", "x");
    place.link("/etc/passwd", "www/out");
    let html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
    let site = place.start(&[
        "--root",
        "www",
        "--set",
        "fallback=index.html",
        "--set",
        "immutable=/",
        "--set",
        "header.Cache-Control=max-age=60",
    ]);
    for target in ["/users", "/users/7", "/users/", "/a/b/c/d", "/d/"] {
        for fields in [&[html][..], &[]] {
            let answer = site.ask("GET", target, fields);
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "<title>app</title>")
            );
            assert_eq!(answer.header("Cache-Control"), Some("no-cache"), "{target}");
            assert_eq!(answer.header("Vary"), Some("Accept, Accept-Encoding"));
            assert!(answer.header("ETag").is_some());
        }
    }
    let unchanged = site.ask("GET", "/users", &[&format!("If-Modified-Since: {DATE}")]);
    assert_eq!(unchanged.status, 304);
    assert_eq!(unchanged.header("Cache-Control"), Some("no-cache"));
    assert_eq!(unchanged.header("Vary"), Some("Accept, Accept-Encoding"));
    for (target, accept, vary) in [
        ("/app.js", html, None),
        ("/users/a.b", html, None),
        // A cache is not to give this to a browser, nor the other way round.
        ("/users", "Accept: application/json", Some("Accept")),
        ("/users", "Accept: */*, text/html;q=0", Some("Accept")),
        // These are not unknown, they are not to be had.
        ("/.git", html, None),
        ("/../users", html, None),
        ("//users", html, None),
        ("/out", html, None),
        ("/index.html/", html, None),
    ] {
        let answer = site.ask("GET", target, &[accept]);
        assert_eq!(answer.status, 404, "{target} {accept}");
        assert_eq!(answer.header("Cache-Control"), Some("no-cache"), "{target}");
        assert_eq!(answer.header("Vary"), vary, "{target} {accept}");
    }
    assert_eq!(site.ask("POST", "/users", &[html]).status, 405);
    assert_eq!(site.get("/d/x.txt").header("Vary"), Some("Accept-Encoding"));
    place.write("www/404.html", "lost");
    let lost = site.ask("GET", "/users", &["Accept: application/json"]);
    assert_eq!((lost.status, lost.text().as_str()), (404, "lost"));
    assert_eq!(lost.header("Vary"), Some("Accept, Accept-Encoding"));
    // Without its file it is as if it was not set.
    fs::remove_file(place.path("www/index.html")).unwrap();
    assert_eq!(site.ask("GET", "/users", &[html]).status, 404);
}

#[test]
fn the_page_for_what_is_not_there() {
    let place = Place::new();
    place.write_at("www/404.html", "<h1>lost</h1>", SECONDS);
    place.write("www/index.html", "top");
    place.write("www/x.css.gz", "packed");
    let site = place.start(&["--root", "www"]);
    let date = format!("If-Modified-Since: {DATE}");
    for (target, fields) in [
        ("/none", &[][..]),
        ("/none", &["If-None-Match: *", "Range: bytes=0-1", &date]),
        ("/.git/config", &[]),
        ("/../x", &[]),
        ("/index.html/", &[]),
    ] {
        let answer = site.ask("GET", target, fields);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (404, "<h1>lost</h1>"),
            "{target}"
        );
        assert_eq!(
            answer.header("Content-Type"),
            Some("text/html; charset=utf-8")
        );
        for name in ["ETag", "Last-Modified", "Accept-Ranges", "Content-Range"] {
            assert_eq!(answer.header(name), None, "{target}");
        }
    }
    assert_eq!(
        site.ask("HEAD", "/none", &[]).header("Content-Length"),
        Some("13")
    );
    assert_eq!(site.get("/404.html").status, 200);
    // Only for 404.
    assert!(site.get("/%zz").text().starts_with("400 "));
    assert!(site.get("/x.css").text().starts_with("406 "));
    assert!(site.ask("PUT", "/none", &[]).text().starts_with("405 "));
    // Packed like any other.
    place.write("www/404.html.gz", "packed");
    let answer = site.ask("GET", "/none", &["Accept-Encoding: gzip"]);
    assert_eq!((answer.status, answer.text().as_str()), (404, "packed"));
    assert_eq!(answer.header("Content-Encoding"), Some("gzip"));
    assert_eq!(answer.header("Vary"), Some("Accept-Encoding"));
    fs::remove_file(place.path("www/404.html")).unwrap();
    for accepted in ["gzip", "gzip;q=0.5, identity"] {
        let field = format!("Accept-Encoding: {accepted}");
        assert_eq!(site.ask("GET", "/none", &[&field]).text(), "packed");
    }
    assert_eq!(site.get("/none").text(), "404 Not Found: no such page\n");
}

#[test]
fn what_is_packed_beside_a_file_goes_to_those_who_take_it() {
    let place = Place::new();
    for (name, content, seconds) in [
        ("a.js", "original", SECONDS),
        ("a.js.gz", "gzip", SECONDS),
        ("a.js.br", "brotli", SECONDS + 1),
        ("a.js.zst", "zstd", SECONDS - 1),
        ("a.png", "original", SECONDS),
        ("a.png.gz", "gzip", SECONDS),
        ("alone.css.gz", "gzip", SECONDS),
        ("alone.png.gz", "gzip", SECONDS),
        ("alone.txt.br", "brotli", SECONDS),
        ("d/index.html.gz", "index", SECONDS),
    ] {
        place.write_at(&format!("www/{name}"), content, seconds);
    }
    fs::create_dir(place.path("www/odd.css.gz")).unwrap();
    place.write_at("www/odd.css", "original", SECONDS);
    place.write_at("outside", "outside", SECONDS);
    place.write_at("www/out.css", "original", SECONDS);
    place.link("../outside", "www/out.css.gz");
    place.link("../outside", "www/out-alone.css.gz");
    let site = place.start(&["--root", "www"]);
    for (target, accepted, status, body, coding, varies) in [
        ("/a.js", "", 200, "original", None, true),
        ("/a.js", "gzip", 200, "gzip", Some("gzip"), true),
        ("/a.js", "gzip, br", 200, "brotli", Some("br"), true),
        ("/a.js", "gzip, br;q=0.5", 200, "gzip", Some("gzip"), true),
        // Older than what it was made from.
        ("/a.js", "zstd", 200, "original", None, true),
        ("/a.js", "zstd, gzip;q=0.1", 200, "gzip", Some("gzip"), true),
        ("/a.js", "identity, gzip;q=0", 200, "original", None, true),
        ("/a.png", "gzip", 200, "original", None, false),
        ("/alone.css", "gzip", 200, "gzip", Some("gzip"), true),
        // Weights rank what is there, which is this alone.
        (
            "/alone.css",
            "gzip;q=0.5, identity",
            200,
            "gzip",
            Some("gzip"),
            true,
        ),
        (
            "/alone.css",
            "*;q=0.5, identity;q=1",
            200,
            "gzip",
            Some("gzip"),
            true,
        ),
        (
            "/a.js",
            "*;q=0.5, identity;q=1",
            200,
            "original",
            None,
            true,
        ),
        ("/d/", "gzip", 200, "index", Some("gzip"), true),
        ("/a.js.gz", "gzip", 200, "gzip", None, false),
        ("/odd.css", "gzip", 200, "original", None, true),
        ("/out.css", "gzip", 200, "original", None, true),
    ] {
        let field = format!("Accept-Encoding: {accepted}");
        let answer = site.ask("GET", target, &[&field]);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, body),
            "{target} {accepted}"
        );
        assert_eq!(
            answer.header("Content-Encoding"),
            coding,
            "{target} {accepted}"
        );
        assert_eq!(
            answer.header("Vary").is_some(),
            varies,
            "{target} {accepted}"
        );
        let length = body.len().to_string();
        assert_eq!(answer.header("Content-Length"), Some(length.as_str()));
        // Each has its own tag, and its own ranges; the type is that of the original.
        let tag = answer.header("ETag").unwrap();
        assert_eq!(
            tag.trim_end_matches('"').ends_with("-gzip"),
            coding == Some("gzip")
        );
        let unchanged = site.ask("GET", target, &[&field, &format!("If-None-Match: {tag}")]);
        assert_eq!(
            (unchanged.status, unchanged.header("Vary").is_some()),
            (304, varies)
        );
        let part = site.ask("GET", target, &[&field, "Range: bytes=1-2"]);
        assert_eq!(part.text(), body[1..3], "{target} {accepted}");
        if target == "/a.js" {
            let kind = Some("text/javascript; charset=utf-8");
            assert_eq!(answer.header("Content-Type"), kind);
        }
    }
    for (target, accepted, status) in [
        ("/alone.css", "identity", 406),
        ("/alone.css", "br", 406),
        ("/alone.css", "gzip;q=0", 406),
        ("/d/", "br", 406),
        ("/alone.png", "gzip", 404),
        ("/alone.txt", "br", 404),
        ("/none.css", "gzip", 404),
        ("/out-alone.css", "gzip", 404),
    ] {
        let field = format!("Accept-Encoding: {accepted}");
        let answer = site.ask("GET", target, &[&field]);
        assert_eq!(answer.status, status, "{target} {accepted}");
        assert_eq!(
            answer.header("Vary").is_some(),
            status == 406,
            "{target} {accepted}"
        );
    }
    assert_eq!(site.get("/alone.css").status, 406);
}

#[test]
fn fields_and_types_of_ones_own() {
    let place = Place::new();
    place.write(
        "etc/app.conf",
        "app.root = www\napp.header.X-One = 1\napp.header.Content-Security-Policy = default-src 'self'\n\
         app.type.dat = text/plain\napp.type.html = text/x-own; charset=latin1\n\
         app.immutable = /assets/, /_app/\n",
    );
    for name in [
        "a.dat",
        "a.html",
        "assets/x.js",
        "assets/index.html",
        "_app/x",
        "assets.js",
    ] {
        place.write(&format!("www/{name}"), "x");
    }
    let site = place.start(&["--set", "header.x-one=2"]);
    let cache = |answer: &Answer| answer.header("Cache-Control").unwrap().to_owned();
    for (target, status) in [
        ("/a.dat", 200),
        ("/none", 404),
        ("/%zz", 400),
        ("/assets", 301),
        ("/assets/none.js", 404),
    ] {
        let answer = site.get(target);
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.header("X-One"), Some("2"), "{target}");
        let policy = answer.header("Content-Security-Policy");
        assert_eq!(policy, Some("default-src 'self'"), "{target}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(cache(&answer), "no-cache", "{target}");
    }
    let not_allowed = site.ask("PUT", "/a.dat", &[]);
    assert_eq!(
        (not_allowed.status, not_allowed.header("X-One")),
        (405, Some("2"))
    );
    // What is not from the root has none of it.
    assert_eq!(site.get("/healthz").header("X-One"), None);
    let kind = |target: &str| site.get(target).header("Content-Type").unwrap().to_owned();
    assert_eq!(kind("/a.dat"), "text/plain; charset=utf-8");
    assert_eq!(kind("/a.html"), "text/x-own; charset=latin1");
    for (target, is_immutable) in [
        ("/assets/x.js", true),
        ("/assets/", true),
        ("/%61ssets/x.js", true),
        ("/_app/x", true),
        ("/assets.js", false),
        ("/a.dat", false),
    ] {
        let forever = "public, max-age=31536000, immutable";
        let expected = if is_immutable { forever } else { "no-cache" };
        assert_eq!(cache(&site.get(target)), expected, "{target}");
    }
    place
        .app(&["restart", "--set", "header.cache-control=max-age=5"])
        .ok();
    assert!(cache(&site.get("/_app/x")).contains("immutable"));
    for (status, fields) in [
        (200, &[][..]),
        (206, &["Range: bytes=0-0"]),
        (304, &["If-None-Match: *"]),
    ] {
        let answer = site.ask("GET", "/a.dat", fields);
        assert_eq!(
            (answer.status, cache(&answer).as_str()),
            (status, "max-age=5")
        );
    }
    // What is wrong now is not to be kept as long as a page, nor for a year. The other fields are the same.
    place.write("www/404.html", "lost");
    place.write("www/alone.css.gz", "packed");
    let away = |site: &Site| {
        fs::rename(place.path("www"), place.path("away")).unwrap();
        let answer = site.get("/a.dat");
        fs::rename(place.path("away"), place.path("www")).unwrap();
        answer
    };
    for (status, answer) in [
        (301, site.get("/assets")),
        (400, site.get("/%zz")),
        (404, site.get("/none")),
        (405, site.ask("PUT", "/a.dat", &[])),
        (406, site.get("/alone.css")),
        (412, site.ask("GET", "/_app/x", &["If-Match: \"y\""])),
        (416, site.ask("GET", "/_app/x", &["Range: bytes=5-"])),
        (503, away(&site)),
    ] {
        assert_eq!(
            (answer.status, cache(&answer).as_str()),
            (status, "no-cache")
        );
        assert_eq!(answer.header("X-One"), Some("2"), "{status}");
    }
}

#[test]
fn settings_that_cannot_be_served_are_refused_and_named() {
    let place = Place::new();
    place.write("file", "");
    place.write("www/index.html", "top");
    let by = "app.root (--root, APP_ROOT) names it";
    let none = format!("hade: cannot serve none: No such file or directory (os error 2); {by}\n");
    let file = format!("hade: cannot serve file: not a directory; {by}\n");
    for command in [&["start"][..], &["start", "-d"], &["check"], &["restart"]] {
        let with = |root| [command, &["--root", root]].concat();
        assert_eq!(place.app(&with("none")).failed(1), none, "{command:?}");
        assert_eq!(place.app(&with("file")).failed(1), file, "{command:?}");
        assert!(!place.path("run").exists(), "{command:?}");
    }
    let site = place.start(&["--root", "www"]);
    // A restart that would not find it changes nothing.
    let said = place.app(&["restart", "--root", "none"]).failed(1);
    assert!(
        said.starts_with("hade: restart given up: cannot serve "),
        "{said}"
    );
    assert!(said.contains(&format!(
        "/none: No such file or directory (os error 2); {by}; pid "
    )));
    let said = place
        .app(&["restart", "--cold", "--root", "file"])
        .failed(1);
    assert!(
        said.ends_with(&format!("file: not a directory; {by}\n")),
        "{said}"
    );
    assert_eq!(site.get("/").text(), "top");
    for (pair, why) in [
        ("header.Server=me", "the field Server is set by hade"),
        ("header.etag=x", "the field etag is set by hade"),
        (
            "header.a b=x",
            "expected the name of a header field behind app.header.",
        ),
        ("type.dat=text", "expected a media type such as text/plain"),
        (
            "fallback=../x",
            "expected a file under app.root, or nothing",
        ),
        (
            "immutable=assets",
            "expected beginnings of paths, such as /assets/,/_app/",
        ),
        ("listing=perhaps", "expected true or false"),
    ] {
        let said = place.app(&["check", "--set", pair]).failed(2);
        assert_eq!(said, format!("hade: --set {pair:?}: {why}\n"));
    }
    let line_break = "header.X=a\r\nSet-Cookie: b";
    assert!(place.app(&["check", "--set", line_break]).code == Some(2));
    // Neither comes from the environment.
    let mut command = place.command(&["app", "check"]);
    command
        .env("APP_HEADER_SERVER", "me")
        .env("APP_TYPE_DAT", "text");
    run(&mut command).ok();
    let mut command = place.command(&["app", "check"]);
    assert_eq!(run(command.env("APP_ROOT", "none")).failed(1), none);
}

#[test]
fn the_root_may_be_turned_and_may_be_away_for_a_while() {
    let place = Place::new();
    for release in ["one", "two"] {
        place.write(&format!("{release}/index.html"), release);
    }
    place.link("one", "current");
    let site = place.start(&["--root", "current", "--set", "listing=true"]);
    assert_eq!(site.get("/").text(), "one");
    place.link("two", "next");
    fs::rename(place.path("next"), place.path("current")).unwrap();
    assert_eq!(site.get("/").text(), "two");
    for _ in 0..2 {
        fs::rename(place.path("current"), place.path("away")).unwrap();
        for target in ["/", "/index.html", "/none", "/.git"] {
            let answer = site.get(target);
            assert_eq!(
                (answer.status, answer.header("Retry-After")),
                (503, Some("1")),
                "{target}"
            );
        }
        assert_eq!(site.get("/healthz").status, 200);
        fs::rename(place.path("away"), place.path("current")).unwrap();
        assert_eq!(site.get("/").text(), "two");
    }
    let said =
        "/current: No such file or directory (os error 2); until it is back every answer is 503";
    assert_eq!(place.log().matches(said).count(), 2, "one line each time");
    // A link to nowhere, and a file, are no directory either.
    fs::remove_file(place.path("current")).unwrap();
    place.write("current", "");
    assert_eq!(site.get("/").status, 503);
}

#[test]
fn what_may_not_be_read_and_what_cannot_be_opened() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.write("www/secret.txt", "secret");
    place.write("www/a.css", "original");
    place.write("www/a.css.gz", "secret");
    place.write("www/locked/x.txt", "secret");
    place.write("www/unlisted/x.txt", "x");
    place.write("www/404.html", "lost");
    for (name, mode) in [
        ("www/secret.txt", 0o600),
        ("www/a.css.gz", 0o600),
        ("www/locked", 0o700),
        ("www/unlisted", 0o711),
    ] {
        fs::set_permissions(place.path(name), Permissions::from_mode(mode)).unwrap();
    }
    place.sh("chmod 711 . && mkdir home && chmod 777 home", &[]);
    let root = place.path("www");
    let root = root.to_str().unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let home = place.path("home");
    let args = [
        "app",
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--root",
        root,
    ];
    let args = [
        &args[..],
        &[
            "--base-dir",
            home.to_str().unwrap(),
            "--set",
            "listing=true",
        ],
    ];
    command.arg(HADE).args(args.concat()).current_dir("/");
    let site = Site::of(&run(&mut command).ok());
    for (target, status) in [
        ("/secret.txt", 403),
        ("/locked/x.txt", 403),
        ("/locked/none", 403),
        ("/locked", 403),
        ("/locked/", 403),
        ("/unlisted/", 403),
        ("/unlisted/x.txt", 200),
        ("/a.css", 200),
        ("/none", 404),
    ] {
        let answer = site.ask("GET", target, &["Accept-Encoding: gzip"]);
        assert_eq!(answer.status, status, "{target}");
        assert!(!answer.text().contains("secret"), "{target}");
        assert_eq!(answer.header("Content-Encoding"), None);
    }
    let listed = site.get("/").text();
    assert!(
        listed.contains("secret.txt") && listed.contains("locked/"),
        "{listed}"
    );
}

#[test]
fn without_descriptors_left_it_says_so_and_recovers() {
    if !has("prlimit") {
        return;
    }
    let place = Place::new();
    place.write("www/index.html", "top");
    let site = place.start(&["--root", "www"]);
    let mut wire = site.connect();
    assert_eq!(wire.get("/").text(), "top");
    let worker = site.worker().to_string();
    place.sh(r#"prlimit --pid "$1" --nofile=3:"#, &[&worker]);
    for target in ["/", "/none", "/.git"] {
        let answer = wire.get(target);
        assert_eq!(
            (answer.status, answer.header("Retry-After")),
            (503, Some("1")),
            "{target}"
        );
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    }
    place.sh(r#"prlimit --pid "$1" --nofile=1024:"#, &[&worker]);
    assert_eq!(wire.get("/").text(), "top");
}

/// Another program has a lease on a file, as a file server takes for its clients.
#[test]
fn a_file_with_a_lease_on_it_is_busy() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    place.write("www/a.css", "a");
    place.write("www/b.css", "b");
    place.write("www/b.css.gz", "packed");
    let script = r#"
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
files = [open(name) for name in sys.argv[1:]]
for file in files:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open("leased", "w")
signal.pause()
"#;
    let site = place.start(&["--root", "www"]);
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", script, "www/a.css", "www/b.css.gz"])
        .current_dir(&place.dir);
    let leases = Meanwhile::new(command);
    wait_until(20, "the leases", || place.path("leased").exists());
    let answer = site.get("/a.css");
    assert_eq!(
        (answer.status, answer.header("Retry-After")),
        (503, Some("1"))
    );
    // What is beside a file does not make it unavailable.
    assert_eq!(
        site.ask("GET", "/b.css", &["Accept-Encoding: gzip"]).text(),
        "b"
    );
    drop(leases);
    assert_eq!(site.get("/a.css").text(), "a");
    assert_eq!(
        site.ask("GET", "/b.css", &["Accept-Encoding: gzip"]).text(),
        "packed"
    );
}

#[test]
fn a_program_serves_directories_beside_its_handlers() {
    let place = Place::demo();
    place.write("assets/x.txt", "x");
    place.write("assets/index.html", "assets");
    place.write("assets/.well-known/x", "x");
    place.write("www/index.html", "top");
    place.write("www/assets/y.txt", "y");
    place.write("www/hello", "a file");
    let with_assets = ["env", "DEMO_FILES=assets"];
    let args = [
        "app",
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--root",
        "www",
    ];
    let command = [&args[..], &["--set", "header.X-One=1"]].concat();
    let site = Site::of(&run(&mut place.wrapped(&with_assets, &command)).ok());
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    assert_eq!(site.get("/").text(), "top");
    assert_eq!(site.get("/assets/x.txt").text(), "x");
    assert_eq!(site.get("/%61ssets/%78.txt").text(), "x");
    assert_eq!(site.get("/assets/x.txt").header("X-One"), Some("1"));
    assert_eq!(site.get("/assets/").text(), "assets");
    let moved = site.get("/assets?q");
    assert_eq!(
        (moved.status, moved.header("Location")),
        (301, Some("assets/?q"))
    );
    // The longer beginning has it, and what begins like it by chance is not below it.
    for target in [
        "/assets/y.txt",
        "/assetsx",
        "/assets/.well-known/x",
        "/assets/../index.html",
    ] {
        assert_eq!(site.get(target).status, 404, "{target}");
    }
    // Without its directory it does not start.
    fs::remove_dir_all(place.path("assets")).unwrap();
    let said = run(&mut place.wrapped(&with_assets, &["app", "check"])).failed(1);
    let expected = "demo: cannot serve assets: No such file or directory (os error 2); the program serves it at /assets/\n";
    assert_eq!(said, expected);
}

#[test]
fn listings_are_safe_to_show_and_bounded() {
    let place = Place::new();
    for name in [
        "b.txt",
        "a.txt",
        "Z.txt",
        "<b>&'\".txt",
        "a:b",
        "dir/x",
        ".hidden",
        "ü.txt",
    ] {
        place.write(&format!("www/{name}"), "12345");
    }
    place.write("outside/x", "x");
    place.link("../outside", "www/out");
    place.link("../outside/x", "www/out.txt");
    place.link("a.txt", "www/in.txt");
    place.link("dir", "www/in");
    place.link("nowhere", "www/broken");
    place.sh("mkfifo www/fifo", &[]);
    let site = place.start(&["--root", ".", "--set", "listing=true"]);
    let page = site.get("/www/");
    assert_eq!(
        page.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!((page.header("ETag"), page.header("Vary")), (None, None));
    let text = page.text();
    let links: Vec<&str> = text
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let expected = [
        "../",
        "dir/",
        "in/",
        // `--root .` is above it: nothing of that leads out.
        "out/",
        "%3Cb%3E%26%27%22.txt",
        "Z.txt",
        "a.txt",
        "./a:b",
        "b.txt",
        "in.txt",
        "out.txt",
        "%C3%BC.txt",
    ];
    assert_eq!(links, expected);
    assert!(
        text.contains(">&lt;b&gt;&amp;&#39;&quot;.txt</a></td><td>5</td><td>20"),
        "{text}"
    );
    assert!(!text.contains("<b>") && !text.contains("more"));
    for link in &links {
        // As a browser puts them together.
        let target = format!("/www/{}", link.strip_prefix("./").unwrap_or(link));
        assert_eq!(site.get(&target).status == 200, *link != "../", "{link}");
    }
    // What is hade's own is not on it.
    let run = site.get("/run/").text();
    assert!(!run.contains("app."), "{run}");
    assert!(!site.get("/").text().contains("../"));
    place.app(&["restart", "--root", "www"]).ok();
    let text = site.get("/").text();
    assert!(text.contains("in.txt") && !text.contains("out"), "{text}");
    place.app(&["restart", "--set", "listing=false"]).ok();
    assert_eq!(site.get("/").status, 404);
}

#[test]
fn a_directory_of_a_hundred_thousand_is_cut() {
    let place = Place::new();
    fs::create_dir(place.path("www")).unwrap();
    place.sh(
        "cd www && seq -f '%06g' 1 100000 | xargs -n 1000 touch",
        &[],
    );
    let site = place.start(&["--root", "www", "--set", "listing=true"]);
    let page = site.get("/");
    assert_eq!(page.status, 200);
    let text = page.text();
    assert_eq!(text.matches("<tr>").count(), 10_000);
    assert!(text.contains("There is more; 10000 names are shown."));
    assert!(text.len() < 2_000_000, "{}", text.len());
    assert_eq!(site.get("/100000").status, 200);
}

#[test]
fn what_is_broken_is_said_and_logged() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    place.write("www/index.html", "top");
    let args = [
        "app",
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--root",
        "www",
    ];
    let site = Site::of(&run(&mut place.wrapped(&crate::look::BROKEN_OPENAT2, &args)).ok());
    for target in ["/", "/x.txt", "/d/x.css"] {
        let answer = site.get(target);
        let said = "500 Internal Server Error: the file cannot be read\n";
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (500, said),
            "{target}"
        );
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        let directory = place.path("www");
        let line = format!(
            " cannot serve {target} from {}: Input/output error (os error 5)\n",
            directory.display()
        );
        place.wait_for_log(&line);
    }
    assert_eq!(site.get("/.git").status, 404);
}

/// Each old kernel, and each sandbox that does not know the call, goes the way by hand.
#[test]
fn without_openat2_the_verdicts_are_the_same() {
    if !has("python3") {
        return;
    }
    for refusal in [crate::look::WITHOUT_OPENAT2, crate::look::FORBIDDEN_OPENAT2] {
        let place = Place::new();
        place.write("www/index.html", "top");
        place.write("www/d/x.txt", "x");
        place.write("outside", "outside");
        place.link("../outside", "www/out");
        place.link("d/x.txt", "www/in");
        place.link("/etc", "www/etc");
        let args = [
            "app",
            "start",
            "-d",
            "--address",
            "127.0.0.1:0",
            "--root",
            "www",
        ];
        let site = Site::of(&run(&mut place.wrapped(&refusal, &args)).ok());
        for (target, status) in [
            ("/", 200),
            ("/d/x.txt", 200),
            ("/in", 200),
            ("/d", 301),
            ("/out", 404),
            ("/etc/passwd", 404),
            ("/none", 404),
            ("/d/x.txt/", 404),
        ] {
            assert_eq!(site.get(target).status, status, "{target}");
        }
    }
}

#[test]
fn slow_readers_of_files_hold_no_thread() {
    let place = Place::new();
    let content = pattern(20_000_000);
    place.write("www/large.bin", &content);
    place.write("www/small.txt", "small");
    let site = place.start(&[
        "--root",
        "www",
        "--set",
        "threads=1",
        "--set",
        "io_timeout=600",
    ]);
    let ask = |range: &str| {
        let mut wire = site.connect();
        wire.send(format!(
            "GET /large.bin HTTP/1.1\r\nHost: t\r\nRange: bytes={range}\r\n\r\n"
        ));
        wire.wait_begun();
        wire
    };
    let ranges = ["0-", "1-", "-19999998", "5000000-19000000"];
    let slow: Vec<Wire> = (0..20).map(|at| ask(ranges[at % ranges.len()])).collect();
    for _ in 0..20 {
        assert_eq!(site.get("/small.txt").text(), "small");
    }
    for (at, mut wire) in slow.into_iter().enumerate() {
        let answer = wire.answer();
        let expected = match at % ranges.len() {
            0 => &content[..],
            1 => &content[1..],
            2 => &content[2..],
            _ => &content[5_000_000..19_000_001],
        };
        assert!(answer.body == expected, "{at}");
        // The connection goes on behind a part as behind a whole.
        assert_eq!(wire.get("/small.txt").text(), "small");
    }
}

#[test]
fn the_root_is_read_from_the_base_directory() {
    let place = Place::new();
    place.write("base/www/index.html", "relative");
    place.write("www/index.html", "elsewhere");
    let base = ["--base-dir", "base"];
    let site = place.start(&[&base[..], &["--root", "www"]].concat());
    assert_eq!(site.get("/").text(), "relative");
    let absolute = place.path("www");
    let flags = ["--root", absolute.to_str().unwrap()];
    place.app(&[&["restart"], &base[..], &flags].concat()).ok();
    assert_eq!(site.get("/").text(), "elsewhere");
    // Nothing is served that nobody named: without a root there are the demonstration's pages.
    place
        .app(&[&["restart"], &base[..], &["--root", ""]].concat())
        .ok();
    assert_eq!(site.get("/demo/demo").status, 200);
    assert_eq!(site.get("/index.html").status, 404);
    place.app(&[&["stop"], &base[..]].concat()).ok();
}
