//! Clients that others wrote.

use crate::support::{Place, Site, has, run};
use std::process::Command;

fn curl(site: &Site, target: &str, args: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--noproxy",
        "*",
    ]);
    command.args(args).arg(format!("{}{target}", site.url));
    run(&mut command).ok()
}

#[test]
fn curl_gets_posts_and_expects() {
    if !has("curl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    assert_eq!(curl(&site, "/hello", &[]), "Hello, World!");
    assert_eq!(curl(&site, "/hello", &["--http1.0"]), "Hello, World!");
    let head = curl(&site, "/bytes?n=70000", &["--head"]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Length: 70000\r\n"), "{head}");
    let code = [
        "--output",
        "body",
        "--write-out",
        "%{http_code} %{size_download}",
    ];
    let into = |args: &[&str], target| {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ]);
        command
            .args(code)
            .args(args)
            .arg(format!("{}{target}", site.url));
        run(command.current_dir(&place.dir)).ok()
    };
    assert_eq!(into(&[], "/bytes?n=20000000"), "200 20000000");
    place.write("full", "f".repeat(65536));
    place.write("over", "o".repeat(3_000_000));
    for (args, expected) in [
        (&[][..], "200 65536"),
        (&["--header", "Expect: 100-continue"], "200 65536"),
        (&["--header", "Transfer-Encoding: chunked"], "200 65536"),
        (&["--http1.0"], "200 65536"),
    ] {
        let args = [&["--data-binary", "@full"], args].concat();
        assert_eq!(into(&args, "/echo"), expected, "{args:?}");
        assert_eq!(place.read("body"), place.read("full"));
    }
    for args in [
        &[][..],
        &["--header", "Expect: 100-continue"],
        &["--header", "Expect:"],
        &["--header", "Transfer-Encoding: chunked"],
    ] {
        let args = [&["--data-binary", "@over"], args].concat();
        assert!(into(&args, "/echo").starts_with("413 "), "{args:?}");
    }
    // One connection for all three.
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--noproxy",
        "*",
        "--write-out",
        " %{num_connects}\n",
    ]);
    command.args(["/hello", "/nowhere", "/hello"].map(|target| format!("{}{target}", site.url)));
    let said = run(&mut command).ok();
    let expected = "Hello, World! 1\n404 Not Found: no such page\n 0\nHello, World! 0\n";
    assert_eq!(said, expected);
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
    for script in [
        None,
        Some("pipeline.lua"),
        Some("post.lua"),
        Some("close.lua"),
    ] {
        let mut command = Command::new("wrk");
        command
            .args(["-t1", "-c32", "-d1s"])
            .current_dir(&place.dir);
        command.args(script.into_iter().flat_map(|name| ["-s", name]));
        let said = run(command.arg(format!("{}/hello", site.url))).ok();
        assert!(said.contains(" requests in "), "{script:?}: {said}");
        for bad in ["Socket errors", "Non-2xx", "\n  0 requests in "] {
            assert!(!said.contains(bad), "{script:?}: {said}");
        }
    }
    place.app(&["stop"]).ok();
    let log = place.log();
    assert!(!log.contains("error") && log.contains(" 0 cut\n"), "{log}");
}

const PYTHON: &str = r#"
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], timeout=20)
def ask(method, path, *args, **more):
    c.request(method, path, *args, **more)
    answer = c.getresponse()
    return answer.status, answer.read(), answer
c.connect()
sock = c.sock
assert ask("GET", "/hello")[:2] == (200, b"Hello, World!")
status, body, answer = ask("HEAD", "/bytes?n=123")
assert (status, body, answer.headers["Content-Length"]) == (200, b"", "123")
assert ask("POST", "/echo", b"x" * 65536)[1] == b"x" * 65536
assert ask("POST", "/echo", iter([b"a", b"bc" * 1000]), encode_chunked=True,
           headers={"Transfer-Encoding": "chunked"})[1] == b"a" + b"bc" * 1000
assert ask("GET", "/nowhere")[0] == 404
assert ask("PUT", "/hello", b"body")[0] == 405
assert ask("GET", "/panic")[0] == 500
assert len(ask("GET", "/bytes?n=5000000")[1]) == 5000000
assert c.sock is sock, "all on one connection"
assert ask("GET", "/hello", headers={"Connection": "close"})[0] == 200
assert c.sock is None
print("ok")
"#;

#[test]
fn pythons_http_client_keeps_its_connection() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON, site.address()]);
    assert_eq!(run(&mut command).ok(), "ok\n");
}
