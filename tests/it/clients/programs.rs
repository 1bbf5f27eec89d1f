//! Programs that others wrote, a round trip each: wget, busybox, ab, wrk and a browser. curl has a file of its own, and
//! so have the libraries of other languages. What a client sends and whether it keeps its connection is seen by its own
//! report, or by the counters of the server.

use crate::clients::{CLIENT_SECONDS, leaves_well, tool};
use crate::support::{Meanwhile, Place, has, run};
use std::process::Command;

#[test]
fn wget_downloads_uploads_and_stays() {
    if !has("wget") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let wget = |args: &[&str]| {
        let mut command = tool(&place, "wget");
        command.args([
            "--no-config",
            "--no-hsts",
            "--timeout",
            CLIENT_SECONDS,
            "--tries=1",
        ]);
        run(command.args(args))
    };
    let [hello, echo, large, nowhere] =
        ["/hello", "/echo", "/bytes?n=5000000", "/nowhere"].map(|at| format!("{}{at}", site.url));
    let quiet = ["--quiet", "--output-document", "-"];
    let said = |args: &[&str]| wget(&[&quiet, args].concat());
    assert_eq!(said(&[&hello]).ok(), "Hello, World!");
    let body = "line\r\n".repeat(10_000);
    place.write("body", &body);
    assert!(said(&["--post-file", "body", &echo]).ok() == body);
    assert_eq!(said(&["--post-data", "", &echo]).ok(), "");
    assert_eq!(wget(&["--quiet", "--spider", &large]).ok(), "");
    // It exits with 8 for an error answer.
    assert_eq!(said(&[&nowhere]).code, Some(8));
    assert_eq!(wget(&["--quiet", "--spider", &nowhere]).code, Some(8));

    let before = place.count("accepted");
    wget(&[
        "--output-file",
        "trace",
        "--output-document",
        "all",
        &hello,
        &large,
        &hello,
    ])
    .ok();
    let trace = place.read("trace");
    let reused = trace.matches("Reusing existing connection to 127.0.0.1:");
    assert_eq!(reused.count(), 2, "{trace}");
    assert_eq!(place.count("accepted"), before + 1);
    let all = place.read("all");
    assert!(all.len() == 5_000_026 && all.ends_with("xHello, World!"));
    leaves_well(&place);
}

/// The small one that embedded systems have; and with `nc` a request typed by hand.
#[test]
fn busybox_has_two_clients() {
    if !has("busybox") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let busybox = |args: &[&str]| run(tool(&place, "busybox").args(args));
    let wget = |args: &[&str], target: &str| {
        let url = format!("{}{target}", site.url);
        busybox(&[&["wget", "-q", "-O", "-"], args, &[&url]].concat())
    };
    assert_eq!(wget(&[], "/hello").ok(), "Hello, World!");
    assert_eq!(wget(&["--post-data", "a=b"], "/echo").ok(), "a=b");
    assert_eq!(wget(&["--spider"], "/hello").ok(), "");
    assert_eq!(wget(&[], "/bytes?n=3000000").ok().len(), 3_000_000);
    let refused = wget(&[], "/nowhere");
    assert_eq!(
        refused.err,
        "wget: server returned error: HTTP/1.1 404 Not Found\n"
    );

    let (host, port) = site.address().split_once(':').unwrap();
    for (typed, ends) in [
        (
            "GET /hello HTTP/1.1\r\nHost: t\r\n\r\n",
            "\r\n\r\nHello, World!",
        ),
        (
            "GET /hello HTTP/1.0\r\n\r\n",
            "Connection: close\r\n\r\nHello, World!",
        ),
        (
            "GET /hello\r\n",
            "\r\n\r\n400 Bad Request: request line without a version\n",
        ),
    ] {
        // Its input ends with the request, and with that its half of the connection.
        place.write("typed", typed);
        let input = std::fs::File::open(place.path("typed")).unwrap();
        let said = run(tool(&place, "busybox")
            .args(["nc", host, port])
            .stdin(input))
        .ok();
        assert!(
            said.starts_with("HTTP/1.1 ") && said.ends_with(ends),
            "{typed:?}: {said}"
        );
    }
    leaves_well(&place);
}

/// The number behind a name in a report.
#[track_caller]
fn count(report: &str, name: &str) -> u64 {
    let rest = report.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{name}: {report}"))
}

/// ab speaks HTTP/1.0, with `-k` as one that asks to stay.
#[test]
fn ab_sees_no_error() {
    if !has("ab") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    place.write("body", "b".repeat(20_000));
    let post = ["-p", "body", "-T", "text/plain"];
    let kept_post = [&["-k"], &post[..]].concat();
    for (args, target, size, is_kept) in [
        (&[][..], "/hello", 13, false),
        (&["-k"], "/hello", 13, true),
        (&post, "/echo", 20_000, false),
        (&kept_post, "/echo", 20_000, true),
        (&["-i"], "/hello", 0, false),
        (&["-k", "-i"], "/bytes?n=100000", 0, true),
        (&["-k"], "/bytes?n=100000", 100_000, true),
    ] {
        let accepted = place.count("accepted");
        let mut ab = tool(&place, "ab");
        ab.args(["-q", "-n", "600", "-c", "16", "-s", "20"])
            .args(args);
        let said = run(ab.arg(format!("{}{target}", site.url))).ok();
        assert_eq!(count(&said, "Complete requests"), 600, "{args:?}: {said}");
        assert_eq!(count(&said, "Failed requests"), 0, "{args:?}: {said}");
        assert!(!said.contains("Non-2xx responses"), "{args:?}: {said}");
        let html = said
            .lines()
            .find(|line| line.starts_with("HTML transferred:"));
        let bytes = html.and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
        assert_eq!(bytes, Some(600 * size), "{args:?}: {said}");
        let connections = place.count("accepted") - accepted;
        if is_kept {
            assert_eq!(count(&said, "Keep-Alive requests"), 600, "{args:?}: {said}");
            assert_eq!(connections, 16, "{args:?}");
        } else {
            // It may open one more for each at a time, and leave it when it has all answers.
            assert!(
                (600..=616).contains(&connections),
                "{args:?}: {connections}"
            );
        }
    }
    leaves_well(&place);
}

#[test]
fn wrk_sees_no_error() {
    if !has("wrk") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    place.write(
        "pipeline.lua",
        "init = function(args)\n  local r = {}\n  for i = 1, 16 do r[i] = wrk.format('GET', '/hello') end\n  all = table.concat(r)\nend\nrequest = function() return all end\n",
    );
    place.write(
        "post.lua",
        "wrk.method = 'POST'\nwrk.path = '/echo'\nwrk.body = string.rep('b', 3000)\n",
    );
    place.write("close.lua", "wrk.headers['Connection'] = 'close'\n");
    // All at once: each runs for a second, which is the least it can.
    let runs = [
        ("-c1", None),
        ("-c64", None),
        ("-c32", Some("pipeline.lua")),
        ("-c32", Some("post.lua")),
        ("-c32", Some("close.lua")),
    ]
    .map(|(connections, script)| {
        let mut command = tool(&place, "wrk");
        command.args(["-t1", connections, "-d1s"]);
        command.args(script.into_iter().flat_map(|name| ["-s", name]));
        command.arg(format!("{}/hello", site.url));
        (script, Meanwhile::new(command))
    });
    for (script, run) in runs {
        let said = run.end(20).ok();
        assert!(said.contains(" requests in "), "{script:?}: {said}");
        for bad in ["Socket errors", "Non-2xx", "\n  0 requests in "] {
            assert!(!said.contains(bad), "{script:?}: {said}");
        }
    }
    leaves_well(&place);
}

/// A browser without a window.
pub fn browser(place: &Place) -> Command {
    let mut browser = tool(place, "chromium");
    browser.env("HOME", &place.dir).env("TMPDIR", &place.dir);
    browser.arg(format!(
        "--user-data-dir={}",
        place.path("profile").display()
    ));
    // It talks to this machine alone, and to nobody of its own accord.
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--enable-logging=stderr",
        "--autoplay-policy=no-user-gesture-required",
    ]);
    browser
}

/// The document that it makes of a page, once that and all in it is loaded; and what its console says.
pub fn shown(place: &Place, url: &str) -> (String, Vec<String>) {
    let done = run(browser(place).args(["--timeout=20000", "--dump-dom", url]));
    assert_eq!(done.code, Some(0), "{}", done.err);
    let console = done.err.lines().filter(|line| line.contains("CONSOLE"));
    (done.out, console.map(str::to_owned).collect())
}

#[test]
fn chromium_shows_the_page() {
    if !has("chromium") {
        return;
    }
    let place = Place::new();
    let site = place.start(&[]);
    let (page, console) = shown(&place, &format!("{}/", site.url));
    // There is no icon, which the browser asks for by itself.
    assert!(
        console.iter().all(|line| line.contains("favicon")),
        "{console:?}"
    );
    assert!(page.contains("<title>hade</title>"), "{page}");
    assert!(page.contains("<h1>It works</h1>"), "{page}");
    assert!(page.trim_end().ends_with("</html>"), "{page}");
    assert!(place.count("requests") >= 1);
    leaves_well(&place);
}
