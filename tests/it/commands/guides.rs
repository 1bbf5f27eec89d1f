//! The guides of the README, line by line. Their names, ports and places become this test's own.

use crate::support::{Place, run, skip};
use std::fs;
use std::process::{Command, Stdio};

/// The part of the README below a heading.
fn section(heading: &str) -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let after = readme
        .split(&format!("\n{heading}\n"))
        .nth(1)
        .expect(heading);
    after.split("\n#").next().unwrap().to_owned()
}

/// Commands with what they print, as a guide has them: `$ command`, and lines without a dollar.
fn steps(guide: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let lines = guide.lines().filter_map(|line| line.strip_prefix("    "));
    for line in lines {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), String::new())),
            (None, Some((command, _))) if command.ends_with('\\') => {
                *command += &format!("\n{line}")
            }
            (None, Some((_, output))) => *output += &format!("{line}\n"),
            (None, None) => panic!("no command before {line}"),
        }
    }
    steps
}

fn has_engine() -> bool {
    let mut info = Command::new("timeout");
    info.args(["60", "docker", "info"]).stdin(Stdio::null());
    let status = info.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    if !found {
        skip("needs Docker Engine");
    }
    found
}

/// Containers and images of these names go with the test.
struct Leftovers(Vec<String>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for what in [&["rm", "-f"][..], &["image", "rm", "-f"]] {
            let mut remove = Command::new("timeout");
            remove.args(["60", "docker"]).args(what).args(&self.0);
            remove.stdout(Stdio::null()).stderr(Stdio::null());
            let _ = remove.stdin(Stdio::null()).status();
        }
    }
}

/// Runs a guide in a directory beside the sources, by words that are to be other ones here.
fn follow(place: &Place, heading: &str, name: &str, more: &[(&str, &str)]) {
    let hade = format!("hade-{name}");
    let _leftovers = Leftovers(vec![name.to_owned(), hade.clone()]);
    let make = format!("make -C hade image IMAGE={hade} BUILDER='docker build --no-cache'");
    let words = [
        ("make image", make.as_str()),
        ("'FROM hade'", &format!("'FROM {hade}'")),
        ("-p 8080:8888", "-p 127.0.0.1::8888"),
    ];
    fs::create_dir(place.path("work")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_MANIFEST_DIR"), place.path("work/hade")).unwrap();
    let mut here = place.path("work");
    for (command, output) in steps(&section(heading)) {
        let mut line = command.clone();
        for (from, to) in words.iter().chain(more) {
            line = line.replace(from, to);
        }
        if line.contains("localhost:8080") {
            let port = format!("docker port {name} 8888/tcp | sed 's/.*://'");
            line = line.replace("localhost:8080", &format!("127.0.0.1:$({port})"));
        }
        println!("$ {line}");
        let mut shell = Command::new("timeout");
        shell.args(["3600", "sh", "-ec", &line]).current_dir(&here);
        for variable in [
            "CARGO_TARGET_DIR",
            "MAKEFLAGS",
            "MAKELEVEL",
            "MFLAGS",
            "CARGO_MAKEFLAGS",
            "RUSTFLAGS",
        ] {
            shell.env_remove(variable);
        }
        let done = run(shell.stdin(Stdio::null()));
        assert_eq!(done.code, Some(0), "{line}\n{}{}", done.out, done.err);
        if !output.is_empty() {
            assert_eq!(done.out, output, "{line}");
        }
        if let Some((_, directory)) = command.split_once("&& cd ") {
            here = here.join(directory);
        }
        if command.starts_with("cargo add") {
            let readme = section("## Your own application");
            let program = readme.split("```rust\n").nth(1).unwrap();
            let program = program.split("```").next().unwrap();
            fs::write(here.join("src/main.rs"), program).unwrap();
        }
    }
}

#[test]
fn a_site_in_an_image() {
    if !has_engine() {
        return;
    }
    let name = format!("site-{}", std::process::id());
    let words = [
        ("-t site site", format!("-t {name} site")),
        ("--name site", format!("--name {name}")),
        (
            " -e APP_CLOSE_WAIT=20 site",
            format!(" -e APP_CLOSE_WAIT=20 {name}"),
        ),
        ("exec site", format!("exec {name}")),
        ("docker stop site", format!("docker stop {name}")),
        ("docker rm site", format!("docker rm {name}")),
    ];
    let words: Vec<(&str, &str)> = words
        .iter()
        .map(|(from, to)| (*from, to.as_str()))
        .collect();
    follow(&Place::new(), "### A site in an image", &name, &words);
}

#[test]
fn a_program_of_ones_own_static_in_an_image() {
    if !has_engine() {
        return;
    }
    let targets = run(Command::new("rustup").args(["target", "list", "--installed"]));
    if !targets.out.contains("x86_64-unknown-linux-musl") {
        return skip("needs the target x86_64-unknown-linux-musl");
    }
    let name = format!("greeter-{}", std::process::id());
    let words = [
        ("-t greeter image", format!("-t {name} image")),
        ("--name greeter", format!("--name {name}")),
        ("/run greeter", format!("/run {name}")),
        ("rm -f greeter", format!("rm -f {name}")),
        (
            "cd greeter",
            "cd greeter && echo '[workspace]' >> Cargo.toml".to_owned(),
        ),
    ];
    let words: Vec<(&str, &str)> = words
        .iter()
        .map(|(from, to)| (*from, to.as_str()))
        .collect();
    let heading = "### Your own program, static, in an image";
    follow(&Place::new(), heading, &name, &words);
}

/// The lines for init are those that the machine of `make box` boots with.
#[test]
fn the_lines_for_a_box_are_those_of_the_machine_that_boots() {
    let guide = section("### A box");
    let lines = guide.lines().filter_map(|line| line.strip_prefix("    ::"));
    assert_eq!(lines.count(), 3);
    let script = include_str!("../../box/run");
    assert!(script.contains("'s/^    \\(::.*\\)/\\1/p' README.md"));
}

#[test]
fn no_guide_is_longer_than_a_screen() {
    for heading in [
        "### A site in an image",
        "### A box",
        "### Your own program, static, in an image",
    ] {
        assert!(section(heading).lines().count() <= 30, "{heading}");
    }
}
