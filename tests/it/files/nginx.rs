//! What hade answers where a request depends on conditions, ranges and codings, beside what nginx does. The table says
//! each difference and why.

use crate::look::own_address;
use crate::support::*;
use std::net::TcpStream;
use std::process::Command;

use super::pages::{DATE, SECONDS};

const TABLE: &str = include_str!("../../fixtures/nginx-files.txt");

struct Case {
    line: usize,
    method: &'static str,
    target: &'static str,
    fields: Vec<&'static str>,
    hade: u16,
    /// The status, where something is different on purpose.
    nginx: Option<u16>,
}

fn cases() -> Vec<Case> {
    let mut found = Vec::new();
    for (at, text) in TABLE.lines().enumerate() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (request, outcome) = text.split_once(" => ").expect("an outcome");
        let mut parts = request.split(" | ");
        let (method, target) = parts.next().unwrap().split_once(' ').unwrap();
        let (hade, nginx) = match outcome.split_once(", nginx ") {
            None => (outcome, None),
            Some((hade, rest)) => {
                let (status, why) = rest.split_once(": ").expect("a reason");
                assert!(why.len() > 10, "line {}", at + 1);
                (hade, Some(status.parse().unwrap()))
            }
        };
        found.push(Case {
            line: at + 1,
            method,
            target,
            fields: parts.collect(),
            hade: hade.parse().unwrap(),
            nginx,
        });
    }
    found
}

fn site(place: &Place) {
    let large = pattern(3_000_000);
    let text = pattern(100);
    for (name, content, seconds) in [
        ("a.txt", &text[..], SECONDS),
        ("a.css", b"body{}", SECONDS),
        ("a.js", b"let x", SECONDS),
        ("a.json", b"{}", SECONDS),
        ("a.svg", b"<svg/>", SECONDS),
        ("a.png", b"png", SECONDS),
        ("a.bin", b"bin", SECONDS),
        ("a.wasm", b"wasm", SECONDS),
        ("noextension", b"x", SECONDS),
        ("empty.txt", b"", SECONDS),
        ("index.html", b"top", SECONDS),
        ("404.html", b"lost", SECONDS),
        ("d/index.html", b"index", SECONDS),
        ("e/x.txt", b"x", SECONDS),
        ("with blank.txt", b"blank", SECONDS),
        ("ü.txt", b"umlaut", SECONDS),
        ("percent%.txt", b"percent", SECONDS),
        (".hidden", b"hidden", SECONDS),
        (".well-known/x.txt", b"known", SECONDS),
        ("large.bin", &large, SECONDS),
        ("p.css", b"plain of which there is more", SECONDS),
        ("p.css.gz", b"packed with gzip", SECONDS),
        ("old.css", b"plain", SECONDS),
        ("old.css.gz", b"packed", SECONDS - 1),
        ("p.png", b"plain", SECONDS),
        ("p.png.gz", b"packed", SECONDS),
        ("alone.css.gz", b"packed", SECONDS),
        ("packed/index.html", b"plain", SECONDS),
        ("packed/index.html.gz", b"packed", SECONDS),
    ] {
        place.write_at(&format!("www/{name}"), content, seconds);
    }
    // nginx's worker is another user where its master is root.
    place.sh("chmod -R a+rX . && chmod a+rx .", &[]);
}

/// Configured to do what hade does by itself.
fn nginx(place: &Place, address: &str) -> Meanwhile {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {name};\n"))
        .collect();
    let text = format!(
        r#"daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ worker_connections 256; }}
http {{
access_log off;
{temporary}
default_type application/octet-stream;
types {{
    text/html html; text/plain txt; text/css css; text/javascript js; application/json json;
    image/svg+xml svg; image/png png; application/wasm wasm; application/gzip gz;
}}
charset utf-8;
charset_types text/css text/plain text/javascript;
server {{
    listen {address};
    root www;
    absolute_redirect off;
    gzip_static on;
    error_page 404 /404.html;
}}
}}
"#
    );
    place.write("nginx.conf", text);
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&place.dir).arg("-c");
    command.arg(place.path("nginx.conf"));
    command.args(["-e", "error.log"]).current_dir(&place.dir);
    let mut running = Meanwhile::new(command);
    wait_until(10, "nginx listens", || {
        running.is_over() || TcpStream::connect(address).is_ok()
    });
    assert!(
        !running.is_over(),
        "nginx does not run: {:?}",
        running.end(1)
    );
    running
}

/// Asks this server, with its own tag put in.
fn ask(address: &str, case: &Case) -> Answer {
    let send = |method: &str, fields: &[String]| {
        let mut wire = Wire::to(address);
        let mut text = format!("{method} {} HTTP/1.1\r\nHost: t\r\n", case.target);
        for field in fields {
            text += &format!("{field}\r\n");
        }
        wire.send(text + "Connection: close\r\n\r\n");
        wire.read_answer(method != "HEAD").expect("an answer")
    };
    let is_coding = |field: &&&str| field.starts_with("Accept-Encoding:");
    let coding = case
        .fields
        .iter()
        .find(is_coding)
        .map(|field| (*field).to_owned());
    let known = send("GET", coding.as_slice());
    let tag = known.header("ETag").unwrap_or("\"none\"").to_owned();
    let fields: Vec<String> = case
        .fields
        .iter()
        .map(|field| {
            let field = field.replace("ETAG", &tag).replace("DATE", DATE);
            let field = field.replace("EARLIER", &DATE.replace(":37", ":36"));
            field.replace("LATER", &DATE.replace(":37", ":38"))
        })
        .collect();
    send(case.method, &fields)
}

/// What both must have alike. What a page says that is no success is each one's own.
fn essence(answer: &Answer) -> Vec<String> {
    let names: &[&str] = match answer.status {
        200 | 206 => &[
            "Content-Type",
            "Content-Encoding",
            "Content-Range",
            "Content-Length",
            "Last-Modified",
        ],
        304 => &["Last-Modified"],
        416 => &["Content-Range"],
        _ => &["Location"],
    };
    let value = |name: &&str| format!("{name}: {}", answer.header(name).unwrap_or("-"));
    let mut all: Vec<String> = names.iter().map(value).collect();
    all.insert(0, answer.status.to_string());
    if matches!(answer.status, 200 | 206 | 404) {
        all.push(answer.text());
    }
    all
}

#[test]
fn hade_and_nginx_differ_where_the_table_says_so_and_nowhere_else() {
    let cases = cases();
    assert!(cases.len() >= 150, "{}", cases.len());
    let place = Place::new();
    site(&place);
    let hade = place.start(&["--root", "www"]);
    let address = own_address();
    let running = has("nginx").then(|| nginx(&place, &address));
    let mut wrong = Vec::new();
    for case in &cases {
        let name = format!(
            "line {}: {} {} {:?}",
            case.line, case.method, case.target, case.fields
        );
        let ours = ask(hade.address(), case);
        if ours.status != case.hade {
            wrong.push(format!("{name}: hade {}", ours.status));
        }
        if running.is_none() {
            continue;
        }
        let theirs = ask(&address, case);
        if theirs.status != case.nginx.unwrap_or(case.hade) {
            wrong.push(format!("{name}: nginx {}", theirs.status));
        }
        let (ours, theirs) = (essence(&ours), essence(&theirs));
        if (ours == theirs) != case.nginx.is_none() {
            let cut = |essence: &[String]| essence.join("; ").chars().take(300).collect::<String>();
            wrong.push(format!(
                "{name}:\n   hade {}\n  nginx {}",
                cut(&ours),
                cut(&theirs)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
