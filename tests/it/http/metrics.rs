//! `/metrics` and `/status`: what any worker says of all of them, and whom it says it to.

use crate::support::{Place, Site, get, has, run, signal, skip, wait_until, workers};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const ON: [&str; 2] = ["--set", "metrics=true"];

/// The number behind a name with its labels.
#[track_caller]
fn number(text: &str, name: &str) -> f64 {
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let line = lines.find(|(found, _)| *found == name);
    let (_, value) = line.unwrap_or_else(|| panic!("{name}: {text}"));
    value.parse().unwrap()
}

#[track_caller]
fn scrape(site: &Site) -> String {
    let answer = site.get("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// A request for the numbers, with these fields before the others.
fn asking(fields: &str) -> String {
    get("/metrics").replacen("\r\n", &format!("\r\n{fields}"), 1)
}

#[test]
fn any_worker_counts_for_all_and_neither_a_death_nor_a_restart_begins_anew() {
    let place = Place::demo();
    let mut site = place.start(&[&ON[..], &["--set", "workers=2"]].concat());
    let started = number(&scrape(&site), "process_start_time_seconds");
    // Scrapes are answers, too.
    let (mut good, mut wrong) = (1.0, 0.0);
    for round in 0..3 {
        for _ in 0..20 {
            assert_eq!(site.get("/hello").status, 200);
            assert_eq!(site.get("/nowhere").status, 404);
        }
        let mut wire = site.connect();
        wire.send("GET nowhere HTTP/1.1\r\n\r\n");
        assert_eq!(wire.answer().status, 400);
        (good, wrong) = (good + 20.0, wrong + 21.0);
        for _ in 0..4 {
            let text = scrape(&site);
            assert_eq!(number(&text, "hade_requests_total{code=\"2xx\"}"), good);
            assert_eq!(number(&text, "hade_requests_total{code=\"4xx\"}"), wrong);
            let malformed = number(&text, "hade_refused_total{reason=\"malformed\"}");
            assert_eq!(malformed, f64::from(round + 1));
            good += 1.0;
        }
        // A worker that is killed between an answer and its count would take that along.
        wait_until(10, "all is counted", || place.fact("in_flight") == "0");
        match round {
            0 => {
                let old = workers(site.pid);
                signal(old[0], "KILL");
                site.wait_replaced(old[0], 2);
                wait_until(10, "both serve", || {
                    let state = place.app(&["state", "--json"]).ok();
                    state.matches("\"serving\"").count() == 2
                });
            }
            1 => site = Site::after(&place.app(&["restart"]).ok()),
            _ => {}
        }
    }
    wait_until(10, "the old workers are gone", || {
        workers(site.pid).len() == 2
    });
    let text = scrape(&site);
    for (name, expected) in [
        ("hade_worker_deaths_total", 1.0),
        ("hade_restarts_total", 1.0),
        ("hade_requests_in_flight", 0.0),
        ("hade_workers{state=\"serving\"}", 2.0),
        ("hade_workers{state=\"starting\"}", 0.0),
        ("process_start_time_seconds", started),
    ] {
        assert_eq!(number(&text, name), expected, "{name}");
    }
    let accepted = number(&text, "hade_connections_accepted_total");
    assert_eq!(accepted, good + wrong + 1.0);
    assert!(number(&text, "hade_connections") >= 1.0);
    assert!(number(&text, "process_resident_memory_bytes") > 3e6);
    // All but those that were refused, and this one.
    let timed = number(&text, "hade_request_seconds_count");
    assert_eq!(timed, good + wrong - 3.0);
}

#[test]
fn what_a_request_takes_is_counted_when_it_is_over() {
    let place = Place::demo();
    let site = place.start(&ON);
    let mut held = place.hold(&site, "a");
    let before = scrape(&site);
    assert_eq!(number(&before, "hade_requests_in_flight"), 1.0);
    // Longer than the first part of the histogram by far, however fast the machine is.
    wait_until(10, "its time goes by", || {
        place.app(&["state"]).ok().contains("serving")
    });
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    let fast = "hade_request_seconds_bucket{le=\"0.001\"}";
    let mut after = String::new();
    wait_until(10, "it is counted", || {
        after = scrape(&site);
        number(&after, "hade_requests_in_flight") == 0.0
    });
    let gained = |name: &str| number(&after, name) - number(&before, name);
    assert!(gained("hade_request_seconds_count") > gained(fast));
    assert!(gained("hade_request_seconds_sum") > 0.001);
    // By a handler's thread at once, and by the gate as its reader takes it.
    let mut sum = number(&after, "hade_response_bytes_total");
    for size in [1000, 20_000_000] {
        let answer = site.get(&format!("/bytes?n={size}"));
        assert_eq!(answer.body.len(), size);
        let least = sum + size as f64;
        wait_until(10, "the bytes are counted", || {
            sum = number(&scrape(&site), "hade_response_bytes_total");
            sum > least
        });
        assert!(sum < least + 1_000_000.0, "{sum} {least}");
    }
}

#[test]
fn it_is_off_by_default_and_no_page_like_others() {
    let place = Place::demo();
    let site = place.start(&[]);
    let answer = site.get("/metrics");
    assert_eq!(
        (answer.status, answer.text()),
        (404, site.get("/no").text())
    );
    place.write(
        "etc/app.conf",
        "app.metrics = true\napp.status_allow = unix\n",
    );
    let said = place.app(&["check"]).failed(1);
    assert!(
        said.contains("app.conf:2: app.status_allow \"unix\""),
        "{said}"
    );
    place.write("etc/app.conf", "app.metrics = true\n");
    let site = Site::after(&place.app(&["restart"]).ok());
    let mut wire = site.connect();
    let answer = wire.get("/metrics");
    let kind = Some("text/plain; version=0.0.4; charset=utf-8");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, kind));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    wire.send("HEAD /metrics HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.answer_without_body().status, 200);
    wire.send("POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("Allow")),
        (405, Some("GET, HEAD"))
    );
}

#[test]
fn who_may_come_from_elsewhere_learns_nothing() {
    let place = Place::new();
    place.write("public/metrics", "a file");
    let root = ["--root", "public"];
    // While they are off a file has its name for everybody.
    let site = place.start(&root);
    assert_eq!(site.get("/metrics").text(), "a file");
    place.app(&["stop"]).ok();
    let trusted = ["--set", "trusted_proxies=127.0.0.1"];
    let allowed = ["--set", "status_allow=203.0.113.0/24"];
    let own = [&root[..], &ON].concat();
    let (behind, open) = ([&own[..], &trusted].concat(), [&own[..], &allowed].concat());
    let both = [&behind[..], &allowed].concat();
    // Who may not see them is at a path like any other, which has a file here.
    for (set, fields, sees) in [
        (&own, "", true),
        (&own, "X-Forwarded-For: 127.0.0.1\r\n", false),
        (&own, "forwarded: for=127.0.0.1\r\n", false),
        (&own, "Via: 1.1 a\r\n", false),
        (&open, "X-Forwarded-For: 203.0.113.5\r\n", false),
        (&behind, "", true),
        (&behind, "X-Forwarded-For: 203.0.113.5\r\n", false),
        (&behind, "X-Forwarded-For: 127.0.0.1\r\n", true),
        (&behind, "X-Forwarded-For: unknown\r\n", false),
        (&behind, "Via: 1.1 a\r\n", false),
        (
            &both,
            "Via: 1.1 a\r\nX-Forwarded-For: 203.0.113.5\r\n",
            true,
        ),
        (&both, "X-Forwarded-For: 203.0.112.5\r\n", false),
    ] {
        let site = place.start(set);
        let mut wire = site.connect();
        for _ in 0..2 {
            wire.send(asking(fields));
            let answer = wire.answer();
            assert_eq!(answer.status, 200, "{set:?} {fields}");
            assert_eq!(answer.text() != "a file", sees, "{set:?} {fields}");
        }
        place.app(&["stop"]).ok();
    }
}

/// Whoever may not see the numbers cannot tell that there are any, by no method and no setting.
#[test]
fn to_strangers_their_paths_are_like_any_other() {
    let place = Place::new();
    place.write("public/index.html", "the application");
    let set = ["--set", "status=true", "--set", "header.X-One=1"];
    let set = [&["--root", "public"], &ON[..], &set].concat();
    let with_page = [&set[..], &["--set", "fallback=index.html"]].concat();
    for (set, has_page) in [(&set, false), (&set, true), (&with_page, false)] {
        if has_page {
            place.write("public/404.html", "lost");
        }
        let site = place.start(set);
        assert!(scrape(&site).contains("hade_requests_total"));
        for method in ["GET", "HEAD", "POST", "OPTIONS", "BREW"] {
            for accept in ["*/*", "application/json"] {
                let told = |path: &str| {
                    let mut wire = site.connect();
                    wire.send(format!(
                        "{method} {path} HTTP/1.1\r\nHost: t\r\nVia: 1.1 a\r\nAccept: {accept}\r\n\r\n"
                    ));
                    let answer = wire.read_answer(method != "HEAD").unwrap();
                    // No other field: the page may be as old as the answer.
                    let date = format!("\r\nDate: {}", answer.header("Date").unwrap());
                    (answer.head.replace(&date, ""), answer.text())
                };
                let other = told("/nowhere");
                for path in ["/metrics", "/status", "/%6detrics"] {
                    assert_eq!(told(path), other, "{method} {path} {accept} {set:?}");
                }
            }
        }
        place.app(&["stop"]).ok();
    }
}

#[test]
fn at_a_unix_socket_nobody_is_near() {
    let allowed = "status_allow=203.0.113.5";
    for (trusted, fields, expected) in [
        ("", "", 404),
        ("unix", "", 404),
        ("", "X-Forwarded-For: 203.0.113.5\r\n", 404),
        ("unix", "X-Forwarded-For: 203.0.113.5\r\n", 200),
        ("unix", "X-Forwarded-For: 203.0.113.6\r\n", 404),
    ] {
        let place = Place::demo();
        let set = format!("trusted_proxies={trusted}");
        let mut args = vec!["start", "-d", "--address", "unix:run/http.sock"];
        args.extend(ON);
        args.extend(["--set", &set, "--set", allowed]);
        place.app(&args).ok();
        let mut stream = UnixStream::connect(place.path("run/http.sock")).unwrap();
        let request = asking(&format!("Connection: close\r\n{fields}"));
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = format!("HTTP/1.1 {expected} ");
        assert!(answer.starts_with(&status), "{trusted} {fields}: {answer}");
    }
}

const PARSER: &str = r#"
import sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families as parse
text = urllib.request.urlopen(sys.argv[1] + "/metrics", timeout=20).read().decode()
families = {family.name: family for family in parse(text)}
kinds = {name: family.type for name, family in families.items()}
assert kinds == {
    "hade_requests": "counter", "hade_response_bytes": "counter", "hade_request_seconds": "histogram",
    "hade_requests_in_flight": "gauge", "hade_connections": "gauge", "hade_connections_accepted": "counter",
    "hade_refused": "counter", "hade_workers": "gauge", "hade_worker_deaths": "counter", "hade_restarts": "counter",
    "process_start_time_seconds": "gauge", "process_resident_memory_bytes": "gauge",
}, kinds
assert all(family.documentation for family in families.values())
samples = families["hade_request_seconds"].samples
buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
assert buckets == sorted(buckets) and buckets[-1][0] == float("inf") and len(buckets) == 14
values = [value for _, value in buckets]
assert values == sorted(values)
assert [s.value for s in samples if s.name.endswith("_count")] == [values[-1]]
print("ok")
"#;

#[test]
fn the_client_library_of_prometheus_reads_it() {
    let place = Place::demo();
    let has_it = |python: &&str| {
        let mut import = std::process::Command::new("sh");
        let line = "exec \"$0\" -c 'import prometheus_client' 2>&-";
        run(import.args(["-c", line, python])).code == Some(0)
    };
    let pythons = ["/usr/bin/python3", "python3"];
    let Some(python) = pythons.into_iter().find(has_it) else {
        return skip("needs python3-prometheus-client");
    };
    let site = place.start(&ON);
    assert_eq!(site.get("/hello").status, 200);
    let mut command = std::process::Command::new(python);
    assert_eq!(run(command.args(["-c", PARSER, &site.url])).ok(), "ok\n");
}

#[test]
fn promtool_finds_nothing_to_say_of_it() {
    if !has("promtool") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&ON);
    assert_eq!(site.get("/hello").status, 200);
    place.write("metrics", site.get("/metrics").body);
    assert_eq!(place.sh("promtool check metrics <metrics 2>&1", &[]), "");
}

#[test]
fn people_have_a_page_of_their_own() {
    // The demo has such a page of its own.
    let place = Place::new();
    let site = place.start(&["--set", "status=true"]);
    assert_eq!(site.get("/metrics").status, 404);
    assert_eq!(site.get("/nowhere").status, 404);
    let site = Site::after(&place.app(&["restart"]).ok());
    let mut wire = site.connect();
    let answer = wire.get("/status");
    let kind = Some("text/html; charset=utf-8");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, kind));
    let policy = answer.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    let parts = [
        "<tr><th>generation<td>2\n",
        "<tr><th>last restart<td>went well, ",
        "<tr><th>workers<td>1 serving\n",
        "<tr><th>4xx<td>2\n",
        "<tr><th>memory<td>",
        "</svg>",
    ];
    // The worker of before may still be on its way out when the restart has said that it is done.
    let mut text = answer.text();
    wait_until(10, &format!("all of {parts:?}"), || {
        text = wire.get("/status").text();
        parts.iter().all(|part| text.contains(part))
    });
    assert!(text.len() < 20_000 && !text.contains("script"), "{text}");
    wire.send(asking("Via: 1.1 a\r\n").replacen("/metrics", "/status", 1));
    assert_eq!(wire.answer().status, 404);
    place.write("etc/app.conf", "app.workers = 0\n");
    signal(site.pid, "HUP");
    let said = "<tr><th>last restart<td>given up, ";
    wait_until(10, "the page tells of the restart", || {
        wire.get("/status").text().contains(said)
    });
}
