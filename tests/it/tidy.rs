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

#[test]
fn imports_go_down() {
    /// Floors from the ground up; a file may use its own floor and those below.
    const FLOORS: [&[&str]; 6] = [
        &["sys"],
        &[
            "address", "clock", "conf", "error", "log", "place", "settings",
        ],
        &[
            "daemon",
            "http",
            "ledger",
            "listener",
            "notify",
            "pidfile",
            "readiness",
            "signals",
        ],
        &["supervisor"],
        &["app"],
        &["cli", "lib", "main"],
    ];
    // Decided so: the floor below may name these. app::Service is what master and workers serve; commands are read
    // by app from cli; the log gives its descriptor to standard output by daemon.
    const DECIDED: [(&str, &str); 3] = [("supervisor", "app"), ("app", "cli"), ("log", "daemon")];
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let mut strays = Vec::new();
    for (name, text) in sources("src") {
        let room = name.split(['/', '.']).next().unwrap();
        let Some(here) = floor(room) else {
            panic!("src/{name}: on which floor is it?");
        };
        let own = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code(own) {
            for rest in line.split("crate::").skip(1) {
                let used = rest
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                // A type that lib.rs gives out, or a group in braces, which rustfmt keeps to one room each.
                let Some(there) = floor(used) else { continue };
                if there > here && !DECIDED.contains(&(room, used)) {
                    strays.push(format!("src/{name}:{number}: {}", line.trim()));
                }
            }
        }
    }
    assert_eq!(strays, [""; 0]);
    // The ground floor knows nothing but itself.
    let sys = sources("src")
        .into_iter()
        .filter(|(name, _)| name.starts_with("sys/"));
    for (name, text) in sys {
        for (number, line) in code(&text) {
            let outward = line
                .split("crate::")
                .skip(1)
                .any(|rest| !rest.starts_with("sys"));
            assert!(!outward, "src/{name}:{number}: {line}");
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
        crate::support::skip("git does not answer");
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
    for target in ["run", "build", "test", "check", "install", "clean", "help"] {
        assert!(targets.contains(target), "{target}: {targets:?}");
    }
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY: "))
        .unwrap();
    let phony: BTreeSet<&str> = phony.split(' ').collect();
    assert_eq!(phony, targets);
    assert!(makefile.lines().count() <= 60);
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

#[test]
fn no_secret_sleep_and_no_room_called_util() {
    for (name, text) in sources("tests/it") {
        if name == "support.rs" {
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
