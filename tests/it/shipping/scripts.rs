//! The shell in what is shipped: read by shellcheck, and run by no more than POSIX asks of a shell.

use crate::support::{has, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// Every file below a directory.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

#[test]
fn shellcheck_has_nothing_to_say() {
    if !has("shellcheck") {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts: Vec<PathBuf> = files(&root.join("etc"))
        .unwrap()
        .into_iter()
        .filter(|path| {
            let text = fs::read(path).unwrap();
            [&b"#!/bin/sh"[..], b"#!/sbin/openrc-run"]
                .iter()
                .any(|first| text.starts_with(first))
        })
        .collect();
    assert!(scripts.len() > 6, "{scripts:?}");
    let mut command = Command::new("shellcheck");
    // Files of the system are not followed; OpenRC reads the variables of its scripts itself.
    command.args(["--shell=sh", "--exclude=SC1091,SC2034,SC2317"]);
    let done = run(command.args(scripts));
    assert_eq!((done.code, done.out.as_str()), (Some(0), ""));
}
