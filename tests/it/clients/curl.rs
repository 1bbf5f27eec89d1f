//! curl, in most of the ways it is used: methods, framings, versions, limits, and giving up.

use crate::clients::{CLIENT_SECONDS, tool};
use crate::support::{
    Done, Meanwhile, Place, Site, finish, has, run, settled_descriptors, wait_until, worker,
};
use std::process::{Command, Stdio};

/// More than the socket buffers of both ends hold.
const SEVERAL_MB: usize = 8_000_000;

/// `curl -sS <args>` in the directory, with a limit on its time.
fn curl(place: &Place, args: &[&str]) -> Command {
    let mut command = tool(place, "curl");
    command.args(["--silent", "--show-error", "--max-time", CLIENT_SECONDS]);
    command.args(args);
    command
}

/// The same to its end, with what it shall read on its standard input.
fn fed(place: &Place, input: impl AsRef<[u8]>, args: &[&str]) -> Done {
    place.write("input", input);
    let input = std::fs::File::open(place.path("input")).unwrap();
    run(curl(place, args).stdin(input))
}

/// The lines of a `--verbose` trace that show headers: `> ` what was sent, `< ` what came.
fn trace(done: &Done) -> Vec<&str> {
    let shown = |line: &&str| line.starts_with(['<', '>']);
    done.err.lines().filter(shown).map(str::trim_end).collect()
}

/// Uploads to `/echo` and compares what comes back. The answer's status, and what was sent as headers.
#[track_caller]
fn echo(place: &Place, site: &Site, content: &[u8], args: &[&str]) -> Done {
    let url = format!("{}/echo", site.url);
    let more = [
        "--verbose",
        "--output",
        "back",
        "--write-out",
        "%{http_code}",
        &url,
    ];
    let done = fed(place, content, &[args, &more].concat());
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), "200"),
        "{args:?}: {}",
        done.err
    );
    let back = std::fs::read(place.path("back")).unwrap_or_default();
    assert!(
        back == content,
        "{args:?}: {} of {} bytes, or others",
        back.len(),
        content.len()
    );
    done
}

#[test]
fn curl_stays_on_one_connection() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let urls = ["/hello", "/nowhere", "/hello"].map(|target| format!("{}{target}", site.url));
    let urls = urls.each_ref().map(String::as_str);
    let said = |args: &[&str]| {
        let show = ["--write-out", " %{num_connects}\n"];
        run(&mut curl(&place, &[&show, args, &urls].concat())).ok()
    };
    let expected = |counts: [u8; 3]| {
        let [a, b, c] = counts;
        format!("Hello, World! {a}\n404 Not Found: no such page\n {b}\nHello, World! {c}\n")
    };
    assert_eq!(said(&[]), expected([1, 0, 0]));
    assert_eq!(said(&["--http1.0"]), expected([1, 1, 1]));
    let keep = ["--http1.0", "--header", "Connection: keep-alive"];
    assert_eq!(said(&keep), expected([1, 0, 0]));
    assert_eq!(
        said(&["--header", "Connection: close"]),
        expected([1, 1, 1])
    );
    // An offer of HTTP/2 is not taken up, and costs nothing.
    assert_eq!(said(&["--http2"]), expected([1, 0, 0]));
    // Different methods, bodies up and down, a HEAD in between.
    let (hello, echo) = (urls[0], format!("{}/echo", site.url));
    let next = ["--next", "--silent", "--write-out", " %{num_connects}\n"];
    let words = [
        &["--data", "abc", &echo, "--write-out", " %{num_connects}\n"][..],
        &next,
        &["--head", "--output", "/dev/null", hello],
        &next,
        &["--data-binary", "d", "--http1.0", &echo],
        &next,
        &[
            "--request",
            "PUT",
            "--data",
            "no",
            "--output",
            "/dev/null",
            hello,
        ],
    ]
    .concat();
    // --http1.0 closes after its answer.
    assert_eq!(run(&mut curl(&place, &words)).ok(), "abc 1\n 0\nd 0\n 1\n");
}

#[test]
fn curl_asks_for_heads_and_odd_targets() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    for version in ["--http1.1", "--http1.0"] {
        let url = format!("{}/bytes?n=70000", site.url);
        let head = run(&mut curl(&place, &[version, "--head", &url])).ok();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Length: 70000\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }
    let status = |args: &[&str], target: &str| {
        let url = format!("{}{target}", site.url);
        let show = ["--output", "body", "--write-out", "%{http_code}", &url];
        run(&mut curl(&place, &[args, &show].concat())).ok()
    };
    for (target, as_is, tidied) in [
        ("/hello", "200", "200"),
        ("/hello?", "200", "200"),
        ("/hello?a=/../b", "200", "200"),
        ("/hello#part", "200", "200"),
        ("/nowhere/../hello", "404", "200"),
        ("/./hello", "404", "200"),
        ("/../../../etc/passwd", "404", "404"),
        ("/..%2f..%2fetc/passwd", "404", "404"),
        ("//hello", "404", "404"),
        ("/hello/", "404", "404"),
        ("/caf\u{e9}", "404", "404"),
        ("/a\\b^c|d`e\"f<g>", "404", "404"),
    ] {
        let plain = ["--globoff", "--path-as-is"];
        assert_eq!(status(&plain, target), as_is, "{target} as it is");
        assert_eq!(status(&plain[..1], target), tidied, "{target}");
    }
    // As a proxy would be asked, with the whole URL.
    let whole = ["--proxy", &site.url];
    assert_eq!(status(&whole, "/hello"), "200");
    let options = ["--request", "OPTIONS", "--request-target", "*"];
    assert_eq!(status(&options, ""), "204");
    // What is encoded into the query comes out of it: the handler makes a file of that name.
    let name = "\u{e4}=b&c +%41;d";
    place.write(&format!("{name}.go"), "");
    let data = format!("name={name}");
    assert_eq!(
        status(&["--get", "--data-urlencode", &data], "/hold"),
        "200"
    );
    assert_eq!(place.read("body"), "held\n");
    assert!(place.path(&format!("{name}.held")).exists());
    assert!(!place.log().contains("panic"));
}

#[test]
fn curl_uploads_in_every_framing() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let full: Vec<u8> = (0..65536u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let file = ["--request", "POST", "--upload-file", "input"];
    let piped = ["--request", "POST", "--upload-file", "-"];
    let expect = [
        "--header",
        "Expect: 100-continue",
        "--expect100-timeout",
        "5",
    ];
    for content in [&b""[..], b"a", b"a line\r\nand a half", &full] {
        echo(&place, &site, content, &["--data-binary", "@input"]);
        echo(
            &place,
            &site,
            content,
            &["--data-binary", "@input", "--http1.0"],
        );
        let sized = echo(&place, &site, content, &file);
        let length = format!("> Content-Length: {}", content.len());
        assert!(trace(&sized).contains(&length.as_str()), "{}", sized.err);
        let chunked = echo(&place, &site, content, &piped);
        let sent = trace(&chunked);
        assert!(sent.contains(&"> Transfer-Encoding: chunked"), "{sent:?}");
        // It waits to be told to go on, and is told; at the limit of its patience it would say so and go on.
        for way in [&file, &piped] {
            let done = echo(&place, &site, content, &[&way[..], &expect].concat());
            let seen = trace(&done);
            let asked = seen.contains(&"> Expect: 100-continue");
            let told = seen.contains(&"< HTTP/1.1 100 Continue");
            // Where the length says that no body follows nobody needs to be told.
            assert!(asked && (told || content.is_empty()), "{}", done.err);
            assert!(!done.err.contains("Done waiting"), "{}", done.err);
        }
    }
    let form = [
        "--form",
        "field=value",
        "--form",
        "file=@input;type=text/plain",
        &format!("{}/echo", site.url),
    ];
    let said = fed(&place, "file's content", &form).ok();
    assert!(said.contains("name=\"field\"\r\n\r\nvalue\r\n--"), "{said}");
    assert!(said.contains("\r\n\r\nfile's content\r\n--"), "{said}");
}

#[test]
fn curl_uploads_500_kb() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let content: Vec<u8> = (0..500_000u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let expect = [
        "--header",
        "Expect: 100-continue",
        "--expect100-timeout",
        "5",
    ];
    for way in ["input", "-"] {
        let way = ["--request", "POST", "--upload-file", way];
        echo(&place, &site, &content, &way);
        let done = echo(&place, &site, &content, &[&way[..], &expect].concat());
        let seen = trace(&done);
        assert!(seen.contains(&"< HTTP/1.1 100 Continue"), "{}", done.err);
        assert!(!done.err.contains("Done waiting"), "{}", done.err);
    }
    echo(
        &place,
        &site,
        &content,
        &["--data-binary", "@input", "--http1.0"],
    );
    echo(
        &place,
        &site,
        &content,
        &["--data-binary", "@input", "--limit-rate", "1M"],
    );
}

#[test]
fn curl_reads_why_its_upload_is_refused() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&["--set", "app.max_body=65536"]);
    let worker = site.worker();
    place.write("over", vec![b'o'; SEVERAL_MB]);
    let url = format!("{}/echo", site.url);
    for way in [
        &["--data-binary", "@over"][..],
        &["--request", "POST", "--upload-file", "over"],
        &["--request", "POST", "--upload-file", "-"],
        &["--data-binary", "@over", "--http1.0"],
    ] {
        for expect in ["Expect:", "Expect: 100-continue"] {
            let over = std::fs::File::open(place.path("over")).unwrap();
            let more = [
                "--verbose",
                "--header",
                expect,
                "--expect100-timeout",
                "5",
                &url,
            ];
            let done = run(curl(&place, &[way, &more].concat()).stdin(over));
            assert_eq!(done.code, Some(0), "{way:?} {expect}: {}", done.err);
            assert_eq!(
                done.out, "413 Content Too Large: body too large\n",
                "{way:?} {expect}"
            );
            let seen = trace(&done);
            assert!(seen.contains(&"< Connection: close"), "{}", done.err);
            assert!(!done.err.contains("Done waiting"), "{}", done.err);
            // The length alone says that it is too much; a chunked body has to come first.
            let told = seen.contains(&"< HTTP/1.1 100 Continue");
            let chunked = seen.contains(&"> Transfer-Encoding: chunked");
            let asked = seen.contains(&"> Expect: 100-continue");
            assert_eq!(told, chunked && asked, "{}", done.err);
        }
    }
    assert_eq!(site.get("/pid").text(), worker.to_string());
}

#[test]
fn curl_on_ipv6_and_on_a_unix_socket() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let said = place
        .app(&["start", "--daemon", "--address", "[::1]:0"])
        .ok();
    let site = Site::of(&said);
    assert!(site.url.starts_with("http://[::1]:"), "{}", site.url);
    let hello = format!("{}/hello", site.url);
    let show = [
        "--globoff",
        "--write-out",
        " %{num_connects}\n",
        &hello,
        &hello,
    ];
    let twice = "Hello, World! 1\nHello, World! 0\n";
    assert_eq!(run(&mut curl(&place, &show)).ok(), twice);
    echo(
        &place,
        &site,
        b"over IPv6",
        &["--globoff", "--data-binary", "@input"],
    );
    // A zone is no part of the Host it sends; a name that curl resolves itself is.
    let port = site.port();
    let resolve = format!("some.name:{port}:[::1]");
    let named = format!("http://some.name:{port}/hello");
    let said = run(&mut curl(&place, &["--resolve", &resolve, &named])).ok();
    assert_eq!(said, "Hello, World!");
    place.app(&["stop"]).ok();

    let place = Place::demo();
    let said = place.app(&["start", "--daemon", "--address", "unix:run/http.sock"]);
    assert_eq!(Site::of(&said.ok()).url, "unix:run/http.sock");
    let site = Site {
        pid: place.pid().unwrap(),
        url: "http://localhost".to_owned(),
    };
    let socket = ["--unix-socket", "run/http.sock"];
    let hello = "http://localhost/hello";
    let show = ["--write-out", " %{num_connects}\n", hello, hello];
    let said = run(&mut curl(&place, &[&socket[..], &show].concat())).ok();
    assert_eq!(said, twice);
    let upload = ["--request", "POST", "--upload-file", "-"];
    echo(
        &place,
        &site,
        &[b'u'; 60_000],
        &[&socket[..], &upload].concat(),
    );
    let large = "http://localhost/bytes?n=20000000";
    let size = ["--output", "body", "--write-out", "%{size_download}", large];
    let said = run(&mut curl(&place, &[&socket[..], &size].concat())).ok();
    assert_eq!(said, "20000000");
}

#[test]
fn curl_downloads_what_is_large_slow_or_many() {
    if !(has("curl") && has("sha256sum")) {
        return;
    }
    let place = Place::demo();
    // One handler thread: whoever waited for a reader would hold everybody up.
    let site = place.start(&["--set", "app.threads=1"]);
    let slow = format!("{}/bytes?n=12000000", site.url);
    let slow = ["--limit-rate", "10M", "--output", "slow", &slow];
    let slow = Meanwhile::new(curl(&place, &slow));
    wait_until(10, "the slow download begins", || {
        place
            .path("slow")
            .metadata()
            .is_ok_and(|file| file.len() > 0)
    });
    let sum = |line: &str, args: &[&str]| place.sh(&format!("{line} | sha256sum"), args);
    let line = "curl -sS --noproxy '*' --max-time 20 \"$1\"";
    assert_eq!(
        sum(line, &[&format!("{}/bytes?n=50000000", site.url)]),
        sum("head -c 50000000 /dev/zero | tr '\\0' x", &[])
    );
    let many = format!("{}/bytes?n=[100001-100020]", site.url);
    let many = [
        "--parallel",
        "--parallel-immediate",
        "--no-progress-meter",
        "--output",
        "part-#1",
        &many,
    ];
    run(&mut curl(&place, &many)).ok();
    for size in 100_001..=100_020 {
        let part = std::fs::read(place.path(&format!("part-{size}"))).unwrap_or_default();
        assert!(part == vec![b'x'; size], "{} of {size} bytes", part.len());
    }
    assert_eq!(slow.end(20).ok(), "");
    assert_eq!(place.path("slow").metadata().unwrap().len(), 12_000_000);
}

#[test]
fn curl_gives_up_and_leaves_nothing_behind() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let worker = worker(site.pid);
    assert_eq!(site.get("/hello").status, 200);
    let before = settled_descriptors(worker);
    // In the middle of an answer that it reads slowly; before any answer; and in the middle of its own upload.
    for (args, target) in [
        (&["--limit-rate", "1k"][..], "/bytes?n=30000000"),
        (&[], "/hold?name=a"),
        (&["--upload-file", "-", "--request", "POST"], "/echo"),
    ] {
        let url = format!("{}{target}", site.url);
        let more = ["--output", "body", "--max-time", "0.4", &url];
        let mut command = curl(&place, &[args, &more].concat());
        // An open pipe that nothing comes through.
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let open = child.stdin.take();
        let done = finish(child);
        assert_eq!(done.code, Some(28), "{target}: {}", done.err);
        drop(open);
    }
    // It begins HTTP/2 without asking; no answer can be read by it.
    let url = format!("{}/hello", site.url);
    let done = run(&mut curl(&place, &["--http2-prior-knowledge", &url]));
    assert!(done.code != Some(0) && done.out.is_empty(), "{done:?}");
    place.release("a");
    wait_until(10, "every connection is closed", || {
        crate::support::descriptors(worker) <= before
    });
    assert_eq!(site.get("/pid").text(), worker.to_string());
    let log = place.log();
    assert!(!log.contains("error") && !log.contains("panic"), "{log}");
}
