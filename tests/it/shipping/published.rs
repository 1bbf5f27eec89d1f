//! What is published as a crate, and under which licences the executable is.

use crate::support::run;
use std::path::Path;
use std::process::Command;

fn cargo(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(words)
        .args(["--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let done = run(&mut command);
    assert_eq!(done.code, Some(0), "{}", done.err);
    done.out
}

/// Patterns without a slash in front exclude at every depth.
#[test]
fn the_crate_has_all_that_make_needs() {
    let list = cargo(&["package", "--list", "--allow-dirty"]);
    let mut files = run(Command::new("find")
        .args(["etc", "Makefile", "-type", "f"])
        .current_dir(env!("CARGO_MANIFEST_DIR")))
    .ok();
    files += "README.md\nLICENSE\nCargo.lock\n";
    for file in files.lines() {
        assert!(
            list.lines().any(|line| line == file),
            "{file} is not in the crate"
        );
    }
}

#[test]
fn the_debian_package_names_everybody_whose_work_is_linked() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/debian/copyright");
    let copyright = std::fs::read_to_string(path).unwrap();
    // What only builds, such as a macro and what that is made of, is not linked.
    let tree = cargo(&[
        "tree",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    assert!(tree.contains("tiny_http v"), "{tree}");
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(copyright.contains(name), "{name}");
    }
}
