//! Files as real programs fetch them, and a whole site while everything around it changes.

use crate::clients::programs::{browser, shown};
use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::pages::SECONDS;

fn tool(place: &Place, name: &str, args: &[&str]) -> Done {
    let mut command = Command::new(name);
    command.args(args).current_dir(&place.dir);
    command.env("HOME", &place.dir).env("LC_ALL", "C");
    run(&mut command)
}

/// Half of a download is there, and the rest is asked for.
#[test]
fn curl_and_wget_go_on_where_they_stopped() {
    let place = Place::new();
    let content = pattern(3_000_000);
    place.write_at("www/f.bin", &content, SECONDS);
    let site = place.start(&["--root", "www"]);
    let url = format!("{}/f.bin", site.url);
    if has("curl") {
        place.write("f.bin", &content[..1_000_000]);
        tool(&place, "curl", &["-sS", "-C", "-", "-O", &url]).ok();
        assert!(fs::read(place.path("f.bin")).unwrap() == content);
        // One that is whole already has nothing to come.
        let again = tool(
            &place,
            "curl",
            &["-s", "-C", "-", "-O", "-w", "%{http_code}", &url],
        );
        assert_eq!(again.out, "416");
        assert!(fs::read(place.path("f.bin")).unwrap() == content);
        let part = tool(&place, "curl", &["-sS", "-r", "10-19", &url]).ok();
        assert_eq!(part.as_bytes(), &content[10..20]);
        // What has not changed is not fetched again: by tag, and by date.
        for (keeps, asks) in [
            (["--etag-save", "tag"], ["--etag-compare", "tag"]),
            (["-R", "-s"], ["-z", "g.bin"]),
        ] {
            let fetch = |more: [&str; 2]| {
                let all = ["-sS", "-o", "g.bin", "-w", "%{http_code}"];
                let args = [&all[..], &more, &[&url]].concat();
                tool(&place, "curl", &args).ok()
            };
            assert_eq!(fetch(keeps), "200");
            assert_eq!(fetch(asks), "304");
        }
        let packed = [
            "-sS",
            "--compressed",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ];
        assert_eq!(
            tool(&place, "curl", &[&packed[..], &[&url]].concat()).ok(),
            "200"
        );
        fs::remove_file(place.path("f.bin")).unwrap();
    }
    if has("wget") {
        place.write("f.bin", &content[..1_000_000]);
        tool(&place, "wget", &["-q", "-c", &url]).ok();
        assert!(fs::read(place.path("f.bin")).unwrap() == content);
        tool(&place, "wget", &["-q", "-c", &url]).ok();
        assert!(fs::read(place.path("f.bin")).unwrap() == content);
        // It keeps the date, and asks with it the next time.
        place.write("f.bin", "");
        fs::remove_file(place.path("f.bin")).unwrap();
        tool(&place, "wget", &["-q", "-N", &url]).ok();
        let said = tool(&place, "wget", &["-N", &url]);
        assert!(
            said.code == Some(0) && said.err.contains("304"),
            "{}",
            said.err
        );
    }
}

/// The statuses in a log of the form `combined`, for one path.
fn statuses(place: &Place, target: &str) -> Vec<String> {
    let log = place.read("run/access.log");
    let asked = format!("\"GET {target} HTTP/1.1\" ");
    let told = log.lines().filter_map(|line| line.split_once(&asked));
    told.map(|(_, rest)| rest[..3].to_owned()).collect()
}

const RECORDED: [&str; 6] = [
    "--root",
    "www",
    "--set",
    "access_log=run/access.log",
    "--set",
    "access_format=combined",
];

#[test]
fn aria2_fetches_with_several_connections_at_once() {
    if !has("aria2c") {
        return;
    }
    let place = Place::new();
    let content = pattern(20_000_000);
    place.write_at("www/f.bin", &content, SECONDS);
    let site = place.start(&RECORDED);
    let url = format!("{}/f.bin", site.url);
    let quiet = [
        "--no-conf",
        "--quiet",
        "--async-dns=false",
        "--file-allocation=none",
    ];
    let split = [
        "--split=4",
        "--max-connection-per-server=4",
        "--min-split-size=1M",
    ];
    tool(&place, "aria2c", &[&quiet[..], &split, &[&url]].concat()).ok();
    assert!(fs::read(place.path("f.bin")).unwrap() == content);
    wait_until(10, "several parts in the log", || {
        let told = statuses(&place, "/f.bin");
        told.iter().filter(|status| *status == "206").count() >= 3
    });
}

/// What a browser plays it need not have loaded: it asks for the part where it is to go on.
#[test]
fn chromium_seeks_in_what_it_plays() {
    if !has("chromium") {
        return;
    }
    let place = Place::new();
    // 500 MB of silence: 16 bits, two channels.
    let (size, rate) = (500_000_000_u32, 44_100_u32);
    let mut head = b"RIFF".to_vec();
    head.extend((size + 36).to_le_bytes());
    head.extend(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    head.extend(rate.to_le_bytes());
    head.extend((rate * 4).to_le_bytes());
    head.extend(b"\x04\0\x10\0data");
    head.extend(size.to_le_bytes());
    place.write("www/a.wav", head);
    let file = fs::File::options()
        .write(true)
        .open(place.path("www/a.wav"));
    file.unwrap().set_len(u64::from(size) + 44).unwrap();
    place.write(
        "www/index.html",
        r#"<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>t</title><body><video></video>
<script type="module">
const video = document.querySelector("video");
const next = name => new Promise((done, failed) => {
    video.addEventListener(name, done, { once: true });
    video.addEventListener("error", () => failed(video.error.message));
});
const loaded = next("loadedmetadata");
video.src = "a.wav";
await loaded;
const sought = next("seeked");
video.currentTime = 2800;
await sought;
fetch(`at-${video.currentTime}-of-${Math.round(video.duration)}`);
</script></body></html>
"#,
    );
    let site = place.start(&RECORDED);
    let mut seeks = browser(&place);
    seeks.args(["--remote-debugging-port=0", &format!("{}/", site.url)]);
    let browser = Meanwhile::new(seeks);
    // The page says where it is.
    wait_until(40, "it is where it should go on", || {
        place
            .read("run/access.log")
            .contains("\"GET /at-2800-of-2834 HTTP/1.1\" 404 ")
    });
    drop(browser);
    place.app(&["stop"]).ok();
    let told = statuses(&place, "/a.wav");
    // It knows parts of it already, and asks whether they changed.
    let (parts, others): (Vec<_>, Vec<_>) = told.iter().partition(|status| *status == "206");
    let is_unchanged = |status: &&String| *status == "304";
    assert!(
        parts.len() >= 2 && others.iter().all(is_unchanged),
        "{told:?}"
    );
}

#[test]
fn apt_installs_from_a_mirror() {
    if !has("apt-get") || !has("dpkg-deb") {
        return;
    }
    let place = Place::new();
    let make = r#"
        mkdir -p deb/DEBIAN deb/usr/share/hello www/pool
        printf 'Package: hello-hade\nVersion: 1.0+x~1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' >deb/DEBIAN/control
        head -c 300000 /dev/urandom >deb/usr/share/hello/data
        dpkg-deb --root-owner-group --build deb 'www/pool/hello-hade_1.0+x~1_all.deb' >/dev/null
        cd www
        file=$(echo pool/*.deb)
        { cat ../deb/DEBIAN/control; printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' "$file" "$(stat -c %s "$file")" \
            "$(sha256sum "$file" | cut -d' ' -f1)"; } >Packages
        gzip -k9 Packages
        mkdir -p ../apt/lists/partial ../apt/archives/partial && : >../apt/status
    "#;
    place.sh(make, &[]);
    let site = place.start(&RECORDED);
    let dir = place.path("apt").display().to_string();
    place.write(
        "apt/sources.list",
        format!("deb [trusted=yes] {}/ /\n", site.url),
    );
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(&place.dir).env("LC_ALL", "C");
        for (key, value) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "-"),
            ("Dir::Etc", &dir),
            ("Dir::State", &dir),
            ("Dir::State::status", "status"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", &dir),
            ("Dir::Log", &dir),
            ("APT::Sandbox::User", ""),
            ("Acquire::http::Proxy", "DIRECT"),
            ("Acquire::Languages", "none"),
        ] {
            command.args(["-o", &format!("{key}={value}")]);
        }
        let done = run(command.args(words));
        assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
        done.out
    };
    let said = apt(&["update"]);
    assert!(
        said.contains("Get:") && said.contains(" Packages"),
        "{said}"
    );
    apt(&["download", "hello-hade"]);
    let deb = fs::read(place.path("www/pool/hello-hade_1.0+x~1_all.deb")).unwrap();
    assert!(fs::read(place.path("hello-hade_1.0+x~1_all.deb")).unwrap() == deb);
    // The next time it asks whether it changed.
    apt(&["update"]);
    place.app(&["stop"]).ok();
    let told = statuses(&place, "/Packages.gz");
    assert_eq!(told, ["200", "304"], "{}", place.read("run/access.log"));
}

#[test]
fn wget_mirrors_a_listing() {
    if !has("wget") {
        return;
    }
    let place = Place::new();
    for name in [
        "a.txt",
        "b c.txt",
        "ü.txt",
        "d/e/f.txt",
        "100%.txt",
        "a+b&c;d.txt",
    ] {
        place.write(&format!("www/{name}"), name);
    }
    let site = place.start(&["--root", "www", "--set", "listing=true"]);
    let args = [
        "-q",
        "-r",
        "-np",
        "-nH",
        "-l",
        "inf",
        "-e",
        "robots=off",
        "-P",
        "got",
    ];
    let unescaped = ["--restrict-file-names=nocontrol"];
    let url = format!("{}/", site.url);
    tool(&place, "wget", &[&args[..], &unescaped, &[&url]].concat()).ok();
    for name in [
        "a.txt",
        "b c.txt",
        "ü.txt",
        "d/e/f.txt",
        "100%.txt",
        "a+b&c;d.txt",
    ] {
        assert_eq!(place.read(&format!("got/{name}")), name);
    }
}

#[test]
fn git_clones_what_is_only_files() {
    if !has("git") {
        return;
    }
    let place = Place::new();
    let script = r#"
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
        git init -q -b main work && cd work
        git config user.name x && git config user.email x@example.org
        for n in 1 2 3 4 5 6 7 8 9; do
            mkdir -p "d$n" && seq 1 "${n}00" >"d$n/f.txt" && git add . && git commit -q -m "$n"
        done
        git gc -q
        seq 1 50 >loose.txt && git add . && git commit -q -m loose
        cd .. && mkdir www && git clone -q --bare work www/r.git && git -C www/r.git update-server-info
    "#;
    place.sh(script, &[]);
    let site = place.start(&["--root", "www"]);
    let url = format!("{}/r.git", site.url);
    let mut command = Command::new("git");
    command
        .args(["clone", "-q", &url, "cloned"])
        .current_dir(&place.dir);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    command.env("GIT_TERMINAL_PROMPT", "0");
    run(&mut command).ok();
    place.sh(
        "diff -r -x .git work cloned && git -C cloned fsck --strict 2>/dev/null",
        &[],
    );
}

/// Every file of two releases, byte for byte: while the root is turned from one to the other, and while the service
/// is restarted five times.
#[test]
fn a_whole_site_through_restarts_and_releases() {
    const FILES: usize = 2000;
    let place = Place::new();
    let content = |release: usize, number: usize| {
        let mut bytes = format!("release {release} file {number}\n").into_bytes();
        bytes.extend(pattern(number * 7919 % 60_000));
        bytes
    };
    let name = |number: usize| {
        let (dir, end) = (number % 40, ["html", "css", "js", "png", "bin"][number % 5]);
        format!("d{dir}/deep{}/f {number}ü.{end}", number % 7)
    };
    for release in 0..2 {
        for number in 0..FILES {
            place.write(
                &format!("r{release}/{}", name(number)),
                content(release, number),
            );
        }
    }
    place.link("r0", "current");
    let site = place.start(&["--root", "current"]);
    let (next, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let seen: Arc<Mutex<BTreeMap<usize, [u32; 2]>>> = Arc::default();
    let crawlers: Vec<_> = (0..3)
        .map(|_| {
            let (next, over, seen) = (Arc::clone(&next), Arc::clone(&over), Arc::clone(&seen));
            let site = site.clone();
            std::thread::spawn(move || {
                let mut wire = site.connect();
                // At least once around, and as long as anything changes.
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    if at >= FILES && over.load(Ordering::SeqCst) {
                        return;
                    }
                    let number = at % FILES;
                    let target = name(number).replace(' ', "%20").replace('ü', "%c3%bc");
                    let answer = wire.get(&format!("/{target}"));
                    assert_eq!(answer.status, 200, "{target}");
                    let release = [0, 1]
                        .into_iter()
                        .find(|r| answer.body == content(*r, number));
                    let release = release.unwrap_or_else(|| panic!("{target} is of no release"));
                    seen.lock().unwrap().entry(number).or_default()[release] += 1;
                    if answer.header("Connection") == Some("close") {
                        wire = site.connect();
                    }
                }
            })
        })
        .collect();
    let turn = |release: usize| {
        let _ = fs::remove_file(place.path("next"));
        place.link(&format!("r{release}"), "next");
        fs::rename(place.path("next"), place.path("current")).unwrap();
    };
    for round in 0..5 {
        turn(1 - round % 2);
        let before = next.load(Ordering::SeqCst);
        place.app(&["restart"]).ok();
        wait_until(60, "some more files", || {
            next.load(Ordering::SeqCst) > before + 200
        });
    }
    wait_until(120, "all files", || next.load(Ordering::SeqCst) > FILES);
    over.store(true, Ordering::SeqCst);
    for crawler in crawlers {
        crawler.join().expect("every file is as it should be");
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), FILES);
    let both: [u32; 2] = seen
        .values()
        .fold([0, 0], |all, one| [all[0] + one[0], all[1] + one[1]]);
    assert!(both[0] > 0 && both[1] > 0, "{both:?}");
}

/// The documentation of this crate, as cargo makes it: once, for whoever looks at half of it finds half of it.
fn documentation() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(make_documentation).clone()
}

/// In a directory of its own: what somebody has made before may be without the private half.
fn make_documentation() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or(manifest.join("target"), PathBuf::from);
    let served = target.join("served");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["doc", "--locked", "--no-deps", "--document-private-items"]);
    cargo.args(["--quiet", "--target-dir"]).arg(&served);
    let done = run(cargo.current_dir(manifest));
    assert_eq!(done.code, Some(0), "{}", done.err);
    served.join("doc")
}

/// Every file under a directory, by the path that it has there.
fn all_files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap();
            if path.is_dir() {
                open.push(path);
            } else if !name.starts_with('.') {
                found.insert(format!("/{name}"), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What a page refers to on its own site, as paths.
fn links(at: &str, page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for attribute in [" href=\"", " src=\""] {
        for rest in page.split(attribute).skip(1) {
            let link = rest.split('"').next().unwrap();
            let link = link.split(['#', '?']).next().unwrap();
            if link.is_empty() || link.contains(':') || link.starts_with("//") {
                continue;
            }
            let mut parts: Vec<&str> = match link.starts_with('/') {
                true => Vec::new(),
                false => at.split('/').skip(1).collect(),
            };
            parts.pop();
            for part in link.split('/') {
                match part {
                    ".." => drop(parts.pop()),
                    "." => {}
                    part => parts.push(part),
                }
            }
            found.push(format!("/{}", parts.join("/")));
        }
    }
    found
}

/// From the front page on, and then every file, byte for byte: while the service is restarted twenty times and its root,
/// a link, is turned each time.
#[test]
fn the_documentation_of_this_crate_has_no_broken_link() {
    let made = documentation();
    let files = all_files(&made);
    assert!(files.len() > 1000, "{}", files.len());
    let place = Place::new();
    for name in ["r0", "r1"] {
        place.link(made.to_str().unwrap(), name);
    }
    place.link("r0", "current");
    let site = place.start(&["--root", "current"]);
    let over = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let crawler = scope.spawn(|| {
            let mut wire = site.connect();
            while !over.load(Ordering::SeqCst) || rounds.load(Ordering::SeqCst) == 0 {
                let mut seen = BTreeSet::from(["/hade/index.html".to_owned()]);
                let mut open: Vec<String> = seen.iter().cloned().collect();
                let all = files.keys().cloned().collect::<Vec<String>>();
                let mut rest = all.iter();
                while let Some(target) = open.pop().or_else(|| rest.next().cloned()) {
                    let answer = wire.get(&target);
                    let path = match target.ends_with('/') {
                        true => format!("{target}index.html"),
                        false => target.clone(),
                    };
                    // Of a list of all crates there are links, and no page where there is one crate.
                    if path == "/index.html" && !files.contains_key(&path) {
                        assert_eq!(answer.status, 404);
                        continue;
                    }
                    assert_eq!(answer.status, 200, "{target}");
                    assert!(files.get(&path) == Some(&answer.body), "{target}");
                    let is_page = path.ends_with(".html");
                    let found = match is_page {
                        true => links(&path, &answer.text()),
                        false => Vec::new(),
                    };
                    for link in found {
                        if seen.insert(link.clone()) {
                            open.push(link);
                        }
                    }
                    if answer.header("Connection") == Some("close") {
                        wire = site.connect();
                    }
                    if over.load(Ordering::SeqCst) && rounds.load(Ordering::SeqCst) > 0 {
                        break;
                    }
                }
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        for round in 0..20 {
            let _ = fs::remove_file(place.path("next"));
            place.link(["r1", "r0"][round % 2], "next");
            fs::rename(place.path("next"), place.path("current")).unwrap();
            place.app(&["restart"]).ok();
        }
        over.store(true, Ordering::SeqCst);
        crawler.join().expect("no broken link");
    });
}

#[test]
fn chromium_shows_the_documentation_of_this_crate() {
    if !has("chromium") {
        return;
    }
    let place = Place::new();
    place.link(documentation().to_str().unwrap(), "www");
    let site = place.start(&["--root", "www"]);
    let (page, console) = shown(&place, &format!("{}/hade/index.html", site.url));
    assert!(
        page.contains("An HTTP application that manages its own process"),
        "{page}"
    );
    // What rustdoc asks for too early is its own affair.
    let mut errors = console
        .iter()
        .filter(|line| !line.contains("A preload for"));
    assert_eq!(errors.next(), None);
}
