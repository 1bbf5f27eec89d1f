//! The access log: a line for every answer, however it ended, in each of its forms and places, and at nobody's cost.

use crate::support::*;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

const TO_FILE: [&str; 4] = [
    "--set",
    "access_log=run/access.log",
    "--set",
    "access_format=combined",
];

impl Place {
    #[track_caller]
    fn start_recorded(&self, more: &[&str]) -> Site {
        self.start(&[&TO_FILE[..], more].concat())
    }

    /// Waits until so many answers are told of in a file.
    #[track_caller]
    fn told_in(&self, name: &str, count: usize) -> Vec<String> {
        let mut text = String::new();
        wait_until(10, &format!("{count} lines in {name}"), || {
            text = self.read(name);
            text.lines().count() >= count && text.ends_with('\n')
        });
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{text}");
        lines
    }

    #[track_caller]
    fn told(&self, count: usize) -> Vec<String> {
        self.told_in("run/access.log", count)
    }
}

/// A line of the form `combined` without what is another every time: the moment, which is looked at, and the seconds.
#[track_caller]
fn constant(line: &str) -> String {
    let (client, rest) = line.split_once(" - - [").expect(line);
    let (time, rest) = rest.split_once("] ").expect(line);
    let (text, seconds) = rest.rsplit_once(' ').expect(line);
    assert!(time.len() == 26 && time.ends_with(" +0000"), "{line}");
    let (_, thousandths) = seconds.split_once('.').expect(line);
    assert!(seconds.parse::<f64>().is_ok() && thousandths.len() == 3);
    format!("{client} {text}")
}

fn constants(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| constant(line)).collect()
}

#[test]
fn every_answer_on_a_connection_is_a_line() {
    let place = Place::new();
    place.write("www/a.txt", "hello\n");
    let site = place.start_recorded(&["--root", "www"]);
    let mut wire = site.connect();
    let fields = "Referer: http://r/?\"x\"\r\nUser-Agent: Mozilla/5.0 \u{fc}\r\n";
    wire.send(format!(
        "GET /a.txt?q=1 HTTP/1.1\r\nHost: t\r\n{fields}\r\n"
    ));
    let modified = wire.answer().header("Last-Modified").unwrap().to_owned();
    wire.send("HEAD /a.txt HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.answer_without_body().status, 200);
    let since = format!("If-Modified-Since: {modified}");
    wire.send(format!("GET /a.txt HTTP/1.1\r\nHost: t\r\n{since}\r\n\r\n"));
    assert_eq!(wire.answer_without_body().status, 304);
    // Two at once, of which one is nobody's business.
    wire.send([get("/healthz"), get("/none")].concat());
    assert_eq!((wire.answer().status, wire.answer().status), (200, 404));
    wire.send("GET /a.txt HTTP/1.0\r\nRange: bytes=1-2\r\n\r\n");
    assert_eq!(wire.answer().text(), "el");
    let lines = constants(&place.told(5));
    let none = site.get("/none").body.len();
    assert_eq!(
        lines,
        [
            r#"127.0.0.1 "GET /a.txt?q=1 HTTP/1.1" 200 6 "http://r/?\x22x\x22" "Mozilla/5.0 \xC3\xBC""#.to_owned(),
            r#"127.0.0.1 "HEAD /a.txt HTTP/1.1" 200 0 "-" "-""#.to_owned(),
            r#"127.0.0.1 "GET /a.txt HTTP/1.1" 304 0 "-" "-""#.to_owned(),
            format!(r#"127.0.0.1 "GET /none HTTP/1.1" 404 {none} "-" "-""#),
            r#"127.0.0.1 "GET /a.txt HTTP/1.0" 206 2 "-" "-""#.to_owned(),
        ]
    );
    let mode = fs::metadata(place.path("run/access.log")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o7777, 0o640);
}

#[test]
fn the_time_is_from_the_first_byte_in_to_the_last_byte_out() {
    let place = Place::demo();
    let site = place.start_recorded(&[]);
    let mut wire = site.connect();
    // A connection that says nothing yet costs nobody time.
    holds_for(300, "nothing", || true);
    wire.send("GET /slow?ms=100 HT");
    holds_for(400, "half a request", || true);
    wire.send("TP/1.1\r\nHost: t\r\n\r\n");
    wire.answer();
    let begun = std::time::Instant::now();
    wire.get("/hello");
    let most = begun.elapsed().as_secs_f64() + 0.01;
    let seconds = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    let lines = place.told(2);
    assert!(seconds(&lines[0]) >= 0.49, "{}", lines[0]);
    assert!(seconds(&lines[1]) <= most, "{}", lines[1]);
}

#[test]
fn short_lines_and_json_are_as_they_are_said_to_be() {
    let place = Place::demo();
    let site = place.start(&["--set", "access_log=run/access.log"]);
    site.get("/hello?x=1");
    let line = &place.told(1)[0];
    let words: Vec<&str> = line.split(' ').collect();
    assert!(
        words[0].len() == 24 && words[0].ends_with('Z'),
        "RFC 3339: {line}"
    );
    assert_eq!(words[1..4], ["GET", "/hello?x=1", "200"]);
    assert!(
        words[4].parse::<u32>().is_ok() && words[5..] == ["ms"],
        "{line}"
    );

    let json = [
        "--set",
        "access_log=run/json",
        "--set",
        "access_format=json",
    ];
    place.app(&[&["restart"], &json[..]].concat()).ok();
    let mut wire = site.connect();
    wire.send("GET /hello HTTP/1.1\r\nHost: t\r\nUser-Agent: a\"b\\c\td\r\n\r\n");
    wire.answer();
    let line = &place.told_in("run/json", 1)[0];
    for (key, value) in [
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("target", "/hello"),
        ("version", "HTTP/1.1"),
        ("status", "200"),
        ("bytes", "13"),
    ] {
        assert_eq!(fact(line, key), value, "{line}");
    }
    assert!(line.contains(r#""agent":"a\"b\\c\u0009d"}"#), "{line}");
}

#[test]
fn what_is_refused_is_told_with_what_is_known_of_it() {
    let place = Place::demo();
    let site = place.start_recorded(&[
        "--set",
        "header_timeout=1",
        "--set",
        "max_per_address=1",
        "--set",
        "max_body=10",
    ]);
    let large = "POST /echo HTTP/1.1\r\nHost: t\r\nUser-Agent: me\r\nContent-Length: 11\r\n\r\n";
    let chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx";
    let mut count = 0;
    for (sent, status, expected) in [
        (&b"\x16\x03\x01\x02"[..], 400, r#"\x16\x03\x01\x02" 400"#),
        (b"GET a b HTTP/1.1\r\n", 400, r#""GET a b HTTP/1.1" 400"#),
        (b"\r\nGET /half", 408, r#""GET /half" 408"#),
        (large.as_bytes(), 413, r#""POST /echo HTTP/1.1" 413"#),
        (chunked.as_bytes(), 400, r#""POST /echo HTTP/1.1" 400"#),
        (b"HEAD / HTTP/9.9\r\n", 505, r#""HEAD / HTTP/9.9" 505 0 "#),
    ] {
        let mut wire = site.connect();
        wire.send(sent);
        let has_body = !sent.starts_with(b"HEAD");
        assert_eq!(wire.read_answer(has_body).unwrap().status, status);
        drop(wire);
        count += 1;
        let lines = place.told(count);
        let line = constant(&lines[count - 1]);
        assert!(line.contains(expected), "{line}");
        assert_eq!(line.ends_with("\"me\""), status == 413, "{line}");
    }
    let _first = site.connect();
    let mut second = site.connect();
    assert_eq!(second.answer().status, 429);
    let line = constant(&place.told(count + 1)[count]);
    assert!(line.starts_with(r#"127.0.0.1 "-" 429 "#), "{line}");
}

#[test]
fn a_download_that_breaks_off_is_told_with_what_went_out() {
    const SIZE: u64 = 64 << 20;
    let place = Place::demo();
    fs::create_dir_all(place.path("run")).unwrap();
    let file = fs::File::create(place.path("large")).unwrap();
    file.set_len(SIZE).unwrap();
    let site = place.start_recorded(&[]);
    for target in [
        "/bytes?n=67108864",
        "/file?name=large",
        "/stream?pieces=67109&length=67109000",
    ] {
        let mut wire = site.connect();
        wire.send(get(target));
        let mut taken = 0;
        while taken < 1000 {
            taken += wire.sip(1000).expect("an answer begins");
        }
        drop(wire);
    }
    for line in place.told(3) {
        let words: Vec<&str> = line.split(' ').collect();
        let (status, bytes): (&str, u64) = (words[8], words[9].parse().unwrap());
        assert!(status == "200" && bytes > 0 && bytes < SIZE, "{line}");
    }
    // One that goes out whole by way of the gate, and one that its reader breaks off.
    let mut wire = site.connect();
    wire.get("/file?name=large");
    wire.send(get("/stream?pieces=2&length=5000&fails=1"));
    assert!(wire.read_answer(true).is_err());
    let lines = place.told(5);
    assert!(lines[3].contains(&format!(" 200 {SIZE} ")), "{}", lines[3]);
    assert!(lines[4].contains("\" 200 2000 "), "{}", lines[4]);
}

#[test]
fn what_is_cut_by_a_stop_is_told_before_the_end() {
    // Half a second after its time is up, the worker is killed with all that it has not told.
    in_time(500, || {
        let place = Place::demo();
        let site = place.start_recorded(&["--set", "close_wait=0"]);
        let mut wire = site.connect();
        wire.send(get("/bytes?n=67108864"));
        wire.wait_begun();
        site.get("/hello");
        // Its handler has left the rest to the gate.
        wait_asleep(site.worker());
        place.app(&["stop"]).ok();
        let lines = place.read("run/access.log");
        assert!(lines.contains("/hello "), "{lines}");
        assert!(
            lines.contains("/bytes?n=67108864 HTTP/1.1\" 200 "),
            "{lines}"
        );
    });
}

#[test]
fn usr1_opens_it_anew_in_every_worker_and_a_restart_goes_on_in_it() {
    let place = Place::demo();
    let site = place.start_recorded(&["--set", "workers=2"]);
    site.get("/hello?before");
    place.told(1);
    let log = place.path("run/access.log");
    fs::rename(&log, place.path("run/old")).unwrap();
    signal(site.pid, "USR1");
    place.wait_for_log("access log reopened");
    let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let wanted = inode(log.to_str().unwrap());
    let is_new = |pid: &u32| {
        let found = look::descriptors(*pid);
        let mut logs = found
            .iter()
            .filter(|(_, to)| to.ends_with("/run/access.log"));
        logs.any(|(number, _)| inode(&format!("/proc/{pid}/fd/{number}")) == wanted)
    };
    wait_until(10, "the new file in every worker", || {
        workers(site.pid).iter().all(is_new)
    });
    for _ in 0..20 {
        site.get("/hello?after");
    }
    let lines = place.told(20);
    assert!(lines.iter().all(|line| line.contains("/hello?after ")));
    assert_eq!(place.read("run/old").lines().count(), 1);
    let mode = fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    place.app(&["restart"]).ok();
    site.get("/hello?restarted");
    assert!(place.told(21)[20].contains("/hello?restarted "));
    assert_eq!(place.read("run/old").lines().count(), 1);
}

#[test]
fn nobody_waits_for_a_reader_that_does_not_read() {
    if !has("mkfifo") {
        return;
    }
    let place = Place::demo();
    fs::create_dir_all(place.path("run")).unwrap();
    place.sh("mkfifo run/access.log", &[]);
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    let mut reader = options.open(place.path("run/access.log")).unwrap();
    let site = place.start_recorded(&[]);
    let agent = "a".repeat(3000);
    let mut wire = site.connect();
    for _ in 0..200 {
        wire.send(format!(
            "GET /hello HTTP/1.1\r\nHost: t\r\nUser-Agent: {agent}\r\n\r\n"
        ));
        assert_eq!(wire.answer().status, 200);
    }
    place.wait_for_log(" lines of the access log were lost: they are not taken in time");
    // Whoever reads after all gets whole lines.
    let mut bytes = vec![0; 65536];
    let count = reader.read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    let mut whole = text.lines().filter(|line| line.contains(&agent));
    assert!(whole.all(|line| constant(line).ends_with(&format!("{agent}\""))));
    drop(wire);
    place.app(&["stop"]).ok();
    let log = place.log();
    let said = log
        .lines()
        .filter(|line| line.contains("of the access log were lost"));
    let number = |line: &str| line.split(' ').nth(3)?.parse::<u64>().ok();
    let lost: u64 = said.map(|line| number(line).expect(line)).sum();
    assert!((100..=200).contains(&lost), "{lost}: {log}");
}

#[test]
fn it_goes_where_the_log_goes_or_nowhere() {
    let place = Place::demo();
    let site = place.start(&[]);
    site.get("/hello?unseen");
    place.app(&["restart", "--set", "access_log=on"]).ok();
    site.get("/hello?seen");
    place.wait_for_log(" GET /hello?seen 200 ");
    let threads = threads(workers(site.pid)[0]);
    assert!(
        threads.iter().any(|(_, name)| name == "access log"),
        "{threads:?}"
    );
    place.app(&["restart", "--set", "access_log=off"]).ok();
    site.get("/hello?off");
    let threads = crate::support::threads(workers(site.pid)[0]);
    assert!(
        threads.iter().all(|(_, name)| name != "access log"),
        "{threads:?}"
    );
    place.app(&["stop"]).ok();
    let log = place.log();
    assert!(!log.contains("unseen") && !log.contains("?off"), "{log}");

    // In the foreground without a terminal there is none; on one it is short.
    let mut service = place.foreground(&[]);
    service.site.get("/hello?pipe");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let mut text = String::new();
    let output = service.child.stdout.as_mut().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert!(!text.contains("/hello?pipe"), "{text}");
    if !has("script") {
        return;
    }
    let words = format!("{} app start --address 127.0.0.1:0", demo().display());
    let mut script = Command::new("script");
    script.args(["-qec", &words, "/dev/null"]);
    script.current_dir(&place.dir).stdin(Stdio::null());
    let mut service = Foreground::of(script);
    service.site.get("/hello?terminal");
    signal(service.site.pid, "TERM");
    let mut text = String::new();
    let output = service.child.stdout.as_mut().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert!(text.contains("Z GET /hello?terminal 200 "), "{text}");
}

#[test]
fn who_asks_is_told_as_handlers_are() {
    let place = Place::demo();
    let trusts = ["--set", "trusted_proxies=127.0.0.1,unix"];
    let site = place.start_recorded(&trusts);
    let mut wire = site.connect();
    wire.send("GET /client HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n");
    assert_eq!(wire.answer().text(), "192.0.2.9\n");
    assert!(place.told(1)[0].starts_with("192.0.2.9 - - "));
    place
        .app(&["restart", "--address", "unix:run/http.sock"])
        .ok();
    let mut stream = UnixStream::connect(place.path("run/http.sock")).unwrap();
    let request = "GET /client HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    assert!(place.told(2)[1].starts_with("unix: - - "));
}

#[test]
fn the_file_is_hades_own() {
    let place = Place::new();
    let site = place.start_recorded(&["--root", "."]);
    assert_eq!(site.get("/run/access.log").status, 404);
    place.app(&["stop"]).ok();
    for (value, words) in [
        ("access_log=run/app.log", "named for two purposes"),
        (
            "access_log=run/",
            "expected auto, off, on or the path of a file",
        ),
        (
            "access_log=syslog",
            "expected on, which with app.log_file = syslog",
        ),
        ("access_format=long", "expected short, combined or json"),
    ] {
        let said = place.app(&["start", "-d", "--set", value]);
        let code = if value.ends_with(".log") { 1 } else { 2 };
        let said = said.failed(code);
        assert!(said.contains(words), "{said}");
    }
    // One that cannot be written keeps the service from starting, and says which.
    fs::create_dir_all(place.path("run/dir")).unwrap();
    let said = place.app(&["start", "-d", "--set", "access_log=run/dir"]);
    let said = said.failed(1);
    assert_eq!(said, "hade: cannot write run/dir: it is a directory\n");
    place.wait_empty(10);
}

/// Requests with everything in them that could break a line.
fn ask_oddly(site: &Site) -> usize {
    let mut wire = site.connect();
    for agent in [
        "Mozilla/5.0 (X11)",
        "a\"b\\c\td",
        "\u{fc}",
        "' OR 1=1",
        "%s%n",
        "\\x22",
    ] {
        for target in ["/hello", "/hello?a=%22&b=\"c\"", "/none\\x"] {
            wire.send(format!(
                "GET {target} HTTP/1.1\r\nHost: t\r\nUser-Agent: {agent}\r\nReferer: http://{agent}/\r\n\r\n"
            ));
            wire.answer();
        }
    }
    18
}

#[test]
fn goaccess_reads_every_line() {
    if !has("goaccess") {
        return;
    }
    let place = Place::demo();
    let site = place.start_recorded(&[]);
    let count = ask_oddly(&site);
    place.told(count);
    let format = r#"%h %^[%d:%t %^] "%r" %s %b "%R" "%u" %T"#;
    let line = r#"goaccess run/access.log --no-global-config --log-format="$1" \
        --date-format=%d/%b/%Y --time-format=%T --output=run/report.json 2>run/goaccess"#;
    place.sh(line, &[format]);
    let report: String = place.read("run/report.json").split_whitespace().collect();
    for (key, value) in [
        ("total_requests", count),
        ("valid_requests", count),
        ("failed_requests", 0),
    ] {
        assert_eq!(fact(&report, key), value.to_string(), "{key}");
    }
}

/// With the filter that comes with it for nginx.
#[test]
fn fail2ban_finds_who_looks_for_holes() {
    if !has("fail2ban-regex") {
        return;
    }
    let place = Place::new();
    place.write("www/a.txt", "hello\n");
    let site = place.start_recorded(&["--root", "www", "--set", "trusted_proxies=127.0.0.1"]);
    let holes = [
        "/wp-login.php",
        "/phpMyAdmin/scripts/setup.php",
        "/cgi-bin/x?a=b",
    ];
    for (number, target) in ["/a.txt", "/none"].iter().chain(&holes).enumerate() {
        let client = ["192.0.2.7", "2001:db8::7"][number % 2];
        let fields = [
            &format!("X-Forwarded-For: {client}"),
            "User-Agent: x \"y\" [z]",
        ];
        site.ask("GET", target, &fields);
    }
    place.told(2 + holes.len());
    let line = "fail2ban-regex run/access.log /etc/fail2ban/filter.d/nginx-botsearch.conf";
    let said = place.sh(line, &[]);
    let expected = "Lines: 5 lines, 0 ignored, 3 matched, 2 missed";
    assert!(said.contains(expected), "{said}");
    // It bans by the address, and within a time.
    let said = place.sh(&line.replace("regex ", "regex --print-all-matched "), &[]);
    for word in [
        "|  192.0.2.7 - - [",
        "|  2001:db8::7 - - [",
        "Day(?P<_sep>[-/])MON(?P=_sep)ExYear",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn another_reader_of_json_gets_back_what_was_sent() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let json = [
        "--set",
        "access_log=run/json",
        "--set",
        "access_format=json",
    ];
    let site = place.start(&json);
    let count = ask_oddly(&site);
    place.told_in("run/json", count);
    let script = "import json\nfor line in open('run/json', encoding='utf-8'):\n    print(ascii(json.loads(line)['agent']))";
    let said = place.sh("python3 -c \"$1\"", &[script]);
    let expected = [
        r"'Mozilla/5.0 (X11)'",
        r#"'a"b\\c\td'"#,
        r"'\xfc'",
        r#""' OR 1=1""#,
        "'%s%n'",
        r"'\\x22'",
    ];
    let agents: Vec<&str> = said.lines().step_by(3).collect();
    assert_eq!(agents, expected);
}

#[test]
fn a_restart_to_one_that_cannot_be_written_is_given_up_and_lines_go_on() {
    let place = Place::demo();
    let site = place.start_recorded(&[]);
    fs::create_dir_all(place.path("run/dir")).unwrap();
    let said = place.app(&["restart", "--set", "access_log=run/dir"]);
    let said = said.failed(1);
    assert!(said.contains("run/dir: it is a directory"), "{said}");
    site.get("/hello?on");
    assert!(place.told(1)[0].contains("/hello?on "));
    // Nor does one that is gone keep the next restart from going on.
    fs::remove_file(place.path("run/access.log")).unwrap();
    place.app(&["restart"]).ok();
    site.get("/hello?new");
    assert!(place.told(1)[0].contains("/hello?new "));
}

#[test]
fn a_directory_that_others_may_write_to_is_named() {
    let place = Place::demo();
    fs::create_dir_all(place.path("logs")).unwrap();
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(place.path("logs"), open).unwrap();
    let args = ["start", "-d", "--address", "127.0.0.1:0"];
    let said = place.app(&[&args[..], &["--set", "access_log=logs/access.log"]].concat());
    let words = "demo: others may write to logs/, and could put a file of theirs";
    assert!(said.err.starts_with(words), "{}", said.err);
}
