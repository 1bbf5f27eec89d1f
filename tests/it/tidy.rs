//! The house rules that a program can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory: its name from there on, and its text.
fn sources(dir: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    let dir = root().join(dir);
    let mut found = Vec::new();
    walk(&dir, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&dir).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The lines of code: no comments, numbered from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or(line)))
}

/// Where a word stands in code outside the files that may have it.
fn strays(word: &str, may: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources("src") {
        if may(&name) {
            continue;
        }
        for (number, line) in code(&text) {
            if line.contains(word) {
                found.push(format!("src/{name}:{number}: {line}"));
            }
        }
    }
    found
}

#[test]
fn unsafe_and_libc_are_in_sys_alone() {
    let in_sys = |name: &str| name.starts_with("sys/");
    assert_eq!(strays("libc::", in_sys), [""; 0]);
    for word in ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"] {
        assert_eq!(strays(word, in_sys), [""; 0]);
    }
    for (name, text) in sources("src") {
        let forbids = text.contains("#![forbid(unsafe_code)]");
        let may =
            in_sys(&name) || name == "lib.rs" || name == "main.rs" || name.ends_with("/tests.rs");
        assert!(forbids || may, "src/{name} does not forbid unsafe code");
    }
}

#[test]
fn each_dependency_is_known_to_one_file() {
    assert_eq!(
        strays("tiny_http::", |name| name == "http/server.rs"),
        [""; 0]
    );
    assert_eq!(strays("argh::", |name| name == "cli.rs"), [""; 0]);
    assert_eq!(strays("FromArgs", |name| name == "cli.rs"), [""; 0]);
}

#[test]
fn no_chain_of_lets_for_older_compilers() {
    assert_eq!(strays("&& let ", |_| false), [""; 0]);
}

#[test]
fn every_file_says_what_it_is_for() {
    for dir in ["src", "tests"] {
        for (name, text) in sources(dir) {
            let lines = text.lines().take_while(|line| line.starts_with("//!"));
            assert!(lines.count() >= 1, "{dir}/{name}");
        }
    }
}

/// The rooms of a floor in an order in which each names only those before it: nothing upwards, and no circle. `path` is
/// what a room is named by from elsewhere.
fn names_those_before_it(dir: &str, paths: &[&str], order: &[&str]) {
    let place = |room: &str| order.iter().position(|other| *other == room);
    let (mut found, mut strays) = (BTreeSet::new(), Vec::new());
    for (name, text) in sources(dir) {
        // What lies in a folder belongs to the room of its name.
        let room = name.split(['/', '.']).next().unwrap();
        if room == "mod" {
            continue;
        }
        let Some(here) = place(room) else {
            panic!("{dir}/{name}: where does it stand?");
        };
        found.insert(room.to_owned());
        if name.ends_with("/tests.rs") || name.ends_with("/world.rs") {
            continue;
        }
        let own = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code(own) {
            for rest in paths.iter().flat_map(|path| line.split(path).skip(1)) {
                // One name, or a group of them in braces.
                let names = match rest.strip_prefix('{') {
                    Some(group) => group.split(", ").collect(),
                    None => vec![rest],
                };
                let end = |c: char| !c.is_alphanumeric() && c != '_';
                let mut used = names.iter().map(|name| name.split(end).next().unwrap());
                // A type that lib.rs gives out is named without its room; a file may name what is in its own folder.
                let is_upwards =
                    |used| place(used).is_some_and(|there| there >= here && used != room);
                if used.any(is_upwards) {
                    strays.push(format!("{dir}/{name}:{number}: {}", line.trim()));
                }
            }
        }
    }
    assert_eq!(strays, [""; 0]);
    let ordered = order.iter().map(|room| (*room).to_owned()).collect();
    assert_eq!(found, ordered);
}

#[test]
fn imports_go_down() {
    let order = [
        "sys",
        "error",
        "level",
        "clock",
        "spelling",
        "memory",
        "conf",
        "owned",
        "user",
        "stdio",
        "logfile",
        "syslog",
        "log",
        "place",
        "address",
        "proxies",
        "serving",
        "access",
        "settings",
        "readiness",
        "daemon",
        "ledger",
        "listener",
        "notify",
        "pidfile",
        "signals",
        "cli",
        "http",
        "service",
        "supervisor",
        "app",
        "house",
        "lib",
        "main",
    ];
    names_those_before_it("src", &["crate::"], &order);
    let supervisor = [
        "words", "wire", "plan", "control", "handover", "check", "restart", "holdings", "roster",
        "worker", "master", "exec", "resume", "status",
    ];
    let paths = ["super::", "crate::supervisor::"];
    names_those_before_it("src/supervisor", &paths, &supervisor);
    let http = [
        "head",
        "body",
        "accept",
        "date",
        "conditions",
        "escape",
        "failure",
        "cookie",
        "form",
        "target",
        "types",
        "checked",
        "access",
        "record",
        "client",
        "refusals",
        "permits",
        "upload",
        "save",
        "feed",
        "output",
        "request",
        "response",
        "events",
        "own",
        "resolve",
        "listing",
        "files",
        "pattern",
        "routes",
        "bounds",
        "metrics",
        "overview",
        "numbers",
        "orders",
        "exchange",
        "server",
        "expire",
        "connection",
        "table",
        "link",
        "door",
        "leave",
        "receive",
        "send",
        "sweep",
        "desk",
        "gate",
    ];
    names_those_before_it("src/http", &["super::", "crate::http::"], &http);
    // The ground floor knows nothing but itself. What a macro names it names for who uses it.
    for (name, text) in sources("src/sys") {
        for (number, line) in code(&text) {
            let line = line.replace("$crate::", "");
            let mut named = line.split("crate::").skip(1);
            assert!(
                named.all(|rest| rest.starts_with("sys")),
                "src/sys/{name}:{number}: {line}"
            );
        }
    }
}

#[test]
fn the_top_of_the_tree_is_as_agreed() {
    if !root().join(".git").exists() {
        crate::support::skip("needs a git checkout");
        return;
    }
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached"])
        .current_dir(root())
        .output();
    let Ok(output) = output else {
        crate::support::skip("needs git");
        return;
    };
    let listed = String::from_utf8(output.stdout).unwrap();
    if listed.is_empty() {
        crate::support::skip("needs a git that answers");
        return;
    }
    let found: BTreeSet<&str> = listed
        .lines()
        .map(|line| line.split('/').next().unwrap())
        .collect();
    let may = [
        ".ci",
        ".gitignore",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "Makefile",
        "README.md",
        "etc",
        "run",
        "src",
        "tests",
    ];
    for name in &found {
        assert!(may.contains(name), "{name} is not one of the agreed");
    }
    for name in [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "etc",
        "run",
        "src",
        "tests",
    ] {
        assert!(found.contains(name), "{name} is missing");
    }
}

#[test]
fn there_are_three_dependencies() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = |title: &str| -> Option<Vec<&str>> {
        let rest = text.split(&format!("\n[{title}]\n")).nth(1)?;
        let lines = rest.lines().take_while(|line| !line.starts_with('['));
        Some(
            lines
                .filter_map(|line| Some(line.split_once('=')?.0.trim()))
                .collect(),
        )
    };
    assert_eq!(
        section("dependencies"),
        Some(vec!["argh", "libc", "tiny_http"])
    );
    assert!(!text.contains("[dependencies."));
    assert!(!text.contains("build-dependencies") && !text.contains("[target."));
}

#[test]
fn the_targets_that_readme_and_ci_name_are_in_the_makefile() {
    let Ok(makefile) = fs::read_to_string(root().join("Makefile")) else {
        crate::support::skip("needs a Makefile");
        return;
    };
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.', ' ']))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .filter(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        })
        .collect();
    for target in [
        "run", "build", "test", "quick", "check", "install", "clean", "help",
    ] {
        assert!(targets.contains(target), "{target}: {targets:?}");
    }
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY: "))
        .unwrap();
    let phony: BTreeSet<&str> = phony.split(' ').collect();
    assert_eq!(phony, targets);
    assert!(makefile.lines().count() <= 100);
    for file in ["README.md", ".ci/run", "src/lib.rs", "tests/bench/main.rs"] {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let words: Vec<&str> = text
            .split(|c: char| c.is_whitespace() || c == '`')
            .collect();
        for pair in words.windows(2).filter(|pair| pair[0] == "make") {
            let target = pair[1].trim_end_matches(['.', ',', ';', ')', ':']);
            // "make" is an English word too: only where the next one looks like a target.
            if file == "README.md"
                && !text.contains(&format!("make {target}`"))
                && !text.contains(&format!("\n    make {target}"))
            {
                continue;
            }
            assert!(
                file != "README.md" || targets.contains(target),
                "{file}: make {target}"
            );
        }
    }
}

/// A busy machine is slower than any limit: `support::was_soon` knows how much.
#[test]
fn no_limit_on_time_that_a_busy_machine_does_not_keep() {
    let mut strays = Vec::new();
    for (name, text) in sources("tests/it") {
        for (number, line) in code(&text) {
            let measured = [
                "elapsed() < Duration::",
                "took < Duration::",
                "gap < Duration::",
            ];
            let is_limit = measured.iter().any(|words| line.contains(words));
            let may = name == "tidy.rs" || name.starts_with("support/");
            if is_limit && !may && !line.trim_start().starts_with("while ") {
                strays.push(format!("tests/it/{name}:{number}: {}", line.trim()));
            }
        }
    }
    assert_eq!(strays, [""; 0]);
}

#[test]
fn no_secret_sleep_and_no_room_called_util() {
    for (name, text) in sources("tests/it") {
        if name == "support/waiting.rs" {
            continue;
        }
        let word = ["thread::", "sleep"].concat();
        assert!(!text.contains(&word), "{name} sleeps");
    }
    for (name, _) in sources("src") {
        for room in ["util", "common", "helper", "manager", "misc"] {
            assert!(!name.contains(room), "src/{name}");
        }
    }
}

/// The map of the source names every file; for the commands it says that there is one for each.
#[test]
fn every_file_is_on_the_map() {
    let map = fs::read_to_string(root().join("src/house.rs")).unwrap();
    for directory in ["src", "src/supervisor", "src/http"] {
        for (name, _) in sources(directory) {
            let name = name.trim_end_matches(".rs");
            let is_plain = !name.contains('/') && !["lib", "main", "mod", "house"].contains(&name);
            let named = format!("`{name}`");
            assert!(!is_plain || map.contains(&named), "{directory}/{name}.rs");
        }
    }
}
