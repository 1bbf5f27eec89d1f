//! Files as those ask for them who want others than they may have: a table of requests, and what changes meanwhile.

use crate::support::*;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const REQUESTS: &str = include_str!("../../fixtures/hostile-files.txt");

/// Lines of one section: number, status, method, target.
fn requests(section: &str) -> Vec<(usize, u16, String, Vec<u8>)> {
    let mut here = "";
    let mut found = Vec::new();
    for (at, line) in REQUESTS.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            here = name.trim_end_matches(']');
        } else if here == section && !line.is_empty() && !line.starts_with('#') {
            let words: Vec<&str> = line.split(' ').collect();
            let (method, target) = match words[..] {
                [_, target] => ("GET", target),
                [_, method, target] => (method, target),
                _ => panic!("line {}: {line}", at + 1),
            };
            let status = words[0].parse().unwrap();
            found.push((at + 1, status, method.to_owned(), bytes(target)));
        }
    }
    found
}

/// Reads `\xNN` and `{x*255}`.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let pair = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let repeated = pair.and_then(|(inside, rest)| {
            let (what, count) = inside.rsplit_once('*')?;
            Some((what, count.parse::<usize>().ok()?, rest))
        });
        if let Some((what, count, after)) = repeated {
            out.extend(what.repeat(count).bytes());
            rest = after;
        } else if let Some(hex) = rest.strip_prefix("\\x").and_then(|rest| rest.get(..2)) {
            out.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &rest[4..];
        } else {
            out.extend(letter.to_string().bytes());
            rest = &rest[letter.len_utf8()..];
        }
    }
    out
}

/// Asks for each line, and nothing from outside may come.
fn ask_all(site: &Site, section: &str) -> usize {
    let requests = requests(section);
    let mut wrong = Vec::new();
    for (line, status, method, target) in &requests {
        let mut wire = site.connect();
        let start = format!("{method} ").into_bytes();
        let end = b" HTTP/1.1\r\nHost: example.org\r\nAccept-Encoding: br, gzip\r\nConnection: close\r\n\r\n";
        // Those that are refused before their end are closed before it, too.
        wire.try_send([&start, &target[..], end].concat());
        let answer = match wire.read_answer(method != "HEAD") {
            Ok(answer) => answer,
            Err(why) => {
                wrong.push(format!("line {line}: {status} expected, {why}"));
                continue;
            }
        };
        let (text, head) = (answer.text(), &answer.head);
        if answer.status != *status {
            wrong.push(format!("line {line}: {status} expected, {}", answer.status));
        }
        if text.contains("outside") || text.contains("root:") || head.contains("Set-Cookie") {
            wrong.push(format!("line {line}: {head}\n{text}"));
        }
        if *status == 200 && method == "GET" && !text.contains("inside") {
            wrong.push(format!("line {line}: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{section}: {wrong:#?}");
    requests.len()
}

fn no_fault_in_the_log(place: &Place) {
    let log = place.log();
    let is_fault = |line: &&str| line.contains(" error ") || line.contains("panic");
    assert_eq!(log.lines().find(is_fault), None);
}

fn tree(place: &Place) -> UnixListener {
    for name in [
        "www/index.html",
        "www/file.txt",
        "www/a/b/c/deep.txt",
        "www/a/b/c/d.txt",
        "www/.well-known/acme",
        "www/back\\slash.txt",
        "www/cfg/..2024/key.txt",
        "www/directory-index/index.html/x",
        "www/packed-out.css",
        "www/packed-fifo.css",
    ] {
        place.write(name, "inside");
    }
    for name in [
        "outside/secret.txt",
        "outside/index.html",
        "www-twin/secret.txt",
        "www/.env",
        "www/.git/config",
        "www/.git/HEAD",
        "www/.htpasswd",
        "www/.well-known/.hidden",
        "www/a/.hidden/file.txt",
        "www/a/.well-known/acme",
    ] {
        place.write(name, "outside");
    }
    fs::create_dir(place.path("www/empty")).unwrap();
    let inside = place.path("www/file.txt");
    let inside = fs::canonicalize(inside).unwrap();
    for (name, target) in [
        ("in.txt", "file.txt"),
        ("a/in.txt", "../file.txt"),
        ("a/b/c/in.txt", "../../../file.txt"),
        ("in-dir", "a"),
        ("self", "."),
        ("chain-0", "file.txt"),
        ("cfg/..data", "..2024"),
        ("cfg/key.txt", "..data/key.txt"),
        ("in-index/index.html", "../index.html"),
        ("out.txt", "../outside/secret.txt"),
        ("a/out.txt", "../../outside/secret.txt"),
        ("a/b/out.txt", "../../../outside/secret.txt"),
        ("a/b/c/out.txt", "../../../../outside/secret.txt"),
        ("out-dir", "../outside"),
        ("a/out-dir", "../../outside"),
        ("a/b/out-dir", "../../../outside"),
        ("a/b/c/out-dir", "../../../../outside"),
        ("to-out.txt", "out.txt"),
        ("to-to-out.txt", "a/../to-out.txt"),
        ("twin", "../www-twin"),
        ("in-and-out.txt", "../www/file.txt"),
        ("absolute.txt", "/etc/passwd"),
        ("absolute-inside.txt", inside.to_str().unwrap()),
        ("absolute-dir", "/etc"),
        ("slash", "/"),
        ("parent", ".."),
        ("environ", "/proc/self/environ"),
        ("proc-root", "/proc/self/root"),
        ("proc-cwd", "/proc/self/cwd"),
        ("proc-fd", "/proc/self/fd"),
        ("out-index/index.html", "../../outside/index.html"),
        ("loop", "loop"),
        ("loop-1", "loop-2"),
        ("loop-2", "loop-1"),
        ("broken", "nowhere"),
        ("in-fifo", "fifo"),
        ("packed-out.css.gz", "../outside/secret.txt"),
        ("packed-out.css.br", "/etc/passwd"),
        ("packed-alone-out.css.gz", "../outside/secret.txt"),
    ] {
        place.link(target, &format!("www/{name}"));
    }
    for number in 1..=40 {
        place.link(
            &format!("chain-{}", number - 1),
            &format!("www/chain-{number}"),
        );
    }
    fs::create_dir(place.path("www/fifo-index")).unwrap();
    place.sh(
        "cd www && mkfifo fifo fifo-index/index.html packed-fifo.css.gz packed-fifo-alone.css.gz",
        &[],
    );
    if is_root() {
        place.sh("mknod www/device c 1 5", &[]);
    }
    UnixListener::bind(place.path("www/socket")).unwrap()
}

#[test]
fn hostile_requests_get_nothing_but_their_status() {
    let place = Place::new();
    let _socket = tree(&place);
    let site = place.start(&["--root", "www"]);
    let count = ask_all(&site, "www");
    assert!(count >= 200, "{count}");
    // With everything switched on that could show more.
    place.app(&["restart", "--set", "immutable=/"]).ok();
    ask_all(&site, "www");
    no_fault_in_the_log(&place);
    if has("python3") {
        let other = Place::new();
        let _socket = tree(&other);
        let args = [
            "app",
            "start",
            "-d",
            "--address",
            "127.0.0.1:0",
            "--root",
            "www",
        ];
        let command = &mut other.wrapped(&crate::look::WITHOUT_OPENAT2, &args);
        ask_all(&Site::of(&run(command).ok()), "www");
        no_fault_in_the_log(&other);
    }
}

#[test]
fn hades_own_files_are_nobodys_business() {
    let place = Place::new();
    place.write("etc/app.conf", "# outside\napp.root = .\n");
    for name in [
        "www/file.txt",
        "other/readme.txt",
        "other/app.conf",
        "logs/site.log_format.txt",
        "logs/my-site.log.txt",
        "logs/readme.txt",
    ] {
        place.write(name, "inside");
    }
    for name in [
        "run/app.log",
        "run/app.log.1",
        "run/app.log.2",
        "run/app.log-20261126",
        "run/app.log-20261126.gz",
        // Of an access log that was another one once.
        "run/access.log",
        "run/access.log.2",
        "run/access.log.2.gz",
        "run/notes.txt",
        "logs/site.log.3.gz",
        "logs/site.log-old",
    ] {
        place.write(name, "outside\n");
    }
    place.link("../www/file.txt", "run/link-to-a-page");
    for (name, target) in [
        ("link-to-the-log", "../run/app.log"),
        ("link-to-the-settings", "../etc/app.conf"),
        ("link-to-run", "../run"),
        ("link-to-etc", "../etc"),
        // Not for those who take it packed, either.
        ("log.css.gz", "../run/app.log"),
        ("link-to-an-old-log", "../run/app.log.2"),
        ("old-log.css.gz", "../logs/site.log.3.gz"),
        ("link-to-a-page", "../run/link-to-a-page"),
    ] {
        place.link(target, &format!("other/{name}"));
    }
    let second = |name: &str, of: &str| {
        fs::hard_link(place.path(of), place.path(&format!("other/{name}"))).unwrap();
    };
    second("second-name-of-the-settings", "etc/app.conf");
    second("second-name-of-an-old-log", "logs/site.log-old");
    let site = place.start(&["--set", "access_log=logs/site.log"]);
    // It would not have started with such a log.
    second("second-name-of-the-log", "run/app.log");
    ask_all(&site, ".");
    // A new log and new settings are as much its own as the old ones.
    fs::rename(place.path("run/app.log"), place.path("run/app.log.1")).unwrap();
    place.write("new.conf", "# outside\napp.root = .\n");
    fs::rename(place.path("new.conf"), place.path("etc/app.conf")).unwrap();
    signal(site.pid, "USR1");
    wait_until(10, "a new log", || place.path("run/app.log").exists());
    for target in [
        "/run/app.log",
        "/run/app.log.1",
        "/etc/app.conf",
        "/other/link-to-the-log",
    ] {
        assert_eq!(site.get(target).status, 404, "{target}");
    }
    // So is what a log becomes meanwhile, from the first moment on.
    fs::rename(
        place.path("run/app.log.1"),
        place.path("run/app.log-20261127"),
    )
    .unwrap();
    fs::rename(
        place.path("logs/site.log.3.gz"),
        place.path("logs/site.log.4.gz"),
    )
    .unwrap();
    for target in [
        "/run/app.log-20261127",
        "/logs/site.log.4.gz",
        "/other/second-name-of-the-log",
    ] {
        assert_eq!(site.get(target).status, 404, "{target}");
    }
    no_fault_in_the_log(&place);
}

/// Where the directory of hade's files is the one that is served, only they are its own.
#[test]
fn the_root_may_hold_hades_own_files_beside_pages() {
    let place = Place::new();
    for name in ["index.html", "app.html", "app.logo.txt"] {
        place.write(name, "inside");
    }
    place.write("app.log.7", "outside");
    place.link(".", "root");
    for root in [".", "root"] {
        let site = place.start(&[
            "--root",
            root,
            "--set",
            "pid_file=app.pid",
            "--set",
            "socket=app.sock",
            "--set",
            "log_file=app.log",
        ]);
        for target in ["/", "/app.html", "/app.logo.txt"] {
            assert_eq!(site.get(target).text(), "inside", "{root} {target}");
        }
        for target in [
            "/app.pid",
            "/app.lock",
            "/app.log",
            "/app.log.7",
            "/app.sock",
        ] {
            assert_eq!(site.get(target).status, 404, "{root} {target}");
        }
        place
            .app(&[
                "stop",
                "--set",
                "pid_file=app.pid",
                "--set",
                "socket=app.sock",
            ])
            .ok();
    }
}

/// Any name that a file system can hold can be asked for, and nothing else answers for it.
#[test]
fn names_with_every_byte() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    fs::create_dir(place.path("www")).unwrap();
    for byte in 1..=255_u8 {
        if byte != b'/' {
            let name = [b'n', byte, b'.', b't'];
            let path = place.path("www").join(OsStr::from_bytes(&name));
            fs::write(path, [byte]).unwrap();
        }
    }
    let site = place.start(&["--root", "www", "--set", "listing=true"]);
    let mut wire = site.connect();
    for byte in 0..=255_u8 {
        let answer = wire.get(&format!("/n%{byte:02x}.t"));
        let expected = if byte == 0 || byte == b'/' { 404 } else { 200 };
        assert_eq!(answer.status, expected, "{byte}");
        assert!(expected == 404 || answer.body == [byte], "{byte}");
    }
    // The listing has a link to each of them.
    let page = wire.get("/").text();
    let links: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(links.len(), 254);
    for link in links {
        let target = format!("/{}", link.strip_prefix("./").unwrap_or(link));
        let target = target.replace("&amp;", "&");
        assert_eq!(wire.get(&target).body.len(), 1, "{link}");
    }
}

/// Somebody who may write into the root turns a name into a link out and back, as fast as it goes.
#[test]
fn a_link_that_is_swapped_while_it_is_asked_for_gives_nothing_away() {
    let place = Place::new();
    place.write("www/d/file.txt", "inside");
    place.write("outside/file.txt", "outside");
    place.link("../../outside/file.txt", "www/d/link");
    place.link("../outside", "www/way-out");
    let site = place.start(&["--root", "www"]);
    let over = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (over, www) = (Arc::clone(&over), place.path("www"));
        std::thread::spawn(move || {
            let rename = |from: &str, to: &str| fs::rename(www.join(from), www.join(to)).unwrap();
            let mut times = 0;
            while !over.load(Ordering::SeqCst) {
                for (one, other) in [("d/file.txt", "d/link"), ("d", "way-out")] {
                    for _ in 0..2 {
                        rename(one, "kept");
                        rename(other, one);
                        rename("kept", other);
                    }
                }
                times += 1;
            }
            times
        })
    };
    let mut wire = site.connect();
    let mut counts = [0, 0];
    for _ in 0..5000 {
        let answer = wire.get("/d/file.txt");
        match answer.status {
            200 => {
                assert_eq!(answer.text(), "inside");
                counts[0] += 1;
            }
            404 => counts[1] += 1,
            status => panic!("{status}: {}", answer.text()),
        }
    }
    over.store(true, Ordering::SeqCst);
    assert!(swapping.join().unwrap() > 0);
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    no_fault_in_the_log(&place);
}

#[test]
fn a_file_that_changes_while_it_is_sent() {
    const SIZE: usize = 40_000_000;
    let place = Place::new();
    let content = pattern(SIZE);
    let new = |name: &str| place.write(&format!("www/{name}"), &content);
    ["shrinks", "grows", "goes", "is-replaced"]
        .into_iter()
        .for_each(new);
    let site = place.start(&["--root", "www"]);
    let begin = |name: &str| {
        let mut wire = site.connect();
        wire.send(get(&format!("/{name}")));
        wire.wait_begun();
        wire
    };
    let open = |name: &str| {
        File::options()
            .append(true)
            .open(place.path(&format!("www/{name}")))
    };

    // It has promised more than there is: the connection breaks, so that nobody takes it for whole.
    let mut wire = begin("shrinks");
    open("shrinks").unwrap().set_len(10).unwrap();
    let (bytes, in_order) = wire.rest();
    assert!(!in_order && bytes.len() < SIZE);

    let mut wire = begin("grows");
    open("grows").unwrap().write_all(&[b'!'; 100_000]).unwrap();
    let answer = wire.answer();
    assert!(answer.body == content, "as long as it said");
    assert_eq!(wire.get("/grows").body.len(), SIZE + 100_000);

    let mut wire = begin("goes");
    fs::remove_file(place.path("www/goes")).unwrap();
    assert!(wire.answer().body == content);
    assert_eq!(wire.get("/goes").status, 404);

    let mut wire = begin("is-replaced");
    place.write("www/new", "new");
    fs::rename(place.path("www/new"), place.path("www/is-replaced")).unwrap();
    assert!(wire.answer().body == content, "not a mixture");
    assert_eq!(wire.get("/is-replaced").text(), "new");
}

#[test]
fn five_gigabytes_of_nothing_with_something_in_it() {
    const SIZE: u64 = 5 << 30;
    let place = Place::new();
    place.write("www/sparse.bin", "");
    let path = place.path("www/sparse.bin");
    let file = File::options().write(true).open(&path).unwrap();
    if let Err(error) = file.set_len(SIZE) {
        return skip(&format!("needs a file system with sparse files: {error}"));
    }
    for (at, text) in [(0, "begin"), ((4 << 30) - 2, "over"), (SIZE - 3, "end")] {
        file.write_all_at(text.as_bytes(), at).unwrap();
    }
    assert!(path.metadata().unwrap().blocks() < 1000);
    let site = place.start(&["--root", "www"]);
    let head = {
        let mut wire = site.connect();
        wire.send("HEAD /sparse.bin HTTP/1.1\r\nHost: t\r\n\r\n");
        wire.answer_without_body()
    };
    assert_eq!(head.header("Content-Length"), Some("5368709120"));
    let mut wire = site.connect();
    for (range, expected) in [
        ("0-4", "begin"),
        ("4294967294-4294967297", "over"),
        ("4294967296-4294967297", "er"),
        ("5368709117-", "end"),
        ("-3", "end"),
        ("5368709119-9999999999", "d"),
    ] {
        wire.send(format!(
            "GET /sparse.bin HTTP/1.1\r\nHost: t\r\nRange: bytes={range}\r\n\r\n"
        ));
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (206, expected),
            "{range}"
        );
        let size = answer.header("Content-Range").unwrap().rsplit('/').next();
        assert_eq!(size, Some("5368709120"));
    }
    wire.send("GET /sparse.bin HTTP/1.1\r\nHost: t\r\nRange: bytes=5368709120-\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.header("Content-Range"), Some("bytes */5368709120"));
    // Across the border of 32 bits in one go.
    wire.send("GET /sparse.bin HTTP/1.1\r\nHost: t\r\nRange: bytes=4290000000-4300000000\r\n\r\n");
    let body = wire.answer().body;
    assert_eq!(body.len(), 10_000_001);
    let over = body.iter().position(|&byte| byte != 0).unwrap();
    assert_eq!(over, (4_294_967_294_u64 - 4_290_000_000) as usize);
    assert_eq!(&body[over..over + 5], b"over\0");
    // A whole answer of it begins as it should, and nobody has to wait for its end.
    wire.send("GET /sparse.bin HTTP/1.1\r\nHost: t\r\n\r\n");
    let begin = wire.gulp(4096).unwrap();
    assert!(begin.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// A FIFO that nobody writes to and directories of twenty thousand hold up nobody else.
#[test]
fn what_takes_long_holds_up_nobody_else() {
    let place = Place::new();
    fs::create_dir_all(place.path("www/many")).unwrap();
    place.write("www/x.txt", "x");
    place.sh(
        "mkfifo www/fifo && cd www/many && seq -f '%06g' 1 20000 | xargs -n 1000 touch",
        &[],
    );
    let site = place.start(&["--root", "www", "--set", "listing=true"]);
    let lists: Vec<Wire> = (0..4)
        .map(|_| {
            let mut wire = site.connect();
            wire.send(get("/many/") + &get("/fifo"));
            wire
        })
        .collect();
    let mut wire = site.connect();
    let begun = Instant::now();
    assert_eq!(wire.get("/x.txt").text(), "x");
    crate::support::was_soon(begun, 10000);
    for mut wire in lists {
        assert_eq!(wire.answer().status, 200);
        assert_eq!(wire.answer().status, 404);
    }
}
