//! The static executables of `make build`, for this processor and for others, each through a whole life. `make targets`
//! says by TARGETS which, and has built them; otherwise it is the one that these tests are built with.

use crate::support::{HADE, has, run, skip, whole_life};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a program behind an emulator for its processor that the kernel calls by itself, as a restart needs it: in a user
/// namespace of its own, which has its own `binfmt_misc` since Linux 6.7.
const EMULATED: [&str; 5] = [
    "unshare",
    "-rm",
    "sh",
    "-ec",
    r#"
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
        printf %s "$0" >/proc/sys/fs/binfmt_misc/register
        exec "$@"
    "#,
];

/// The words before it; `None` where it cannot be run here.
fn before(target: &str, program: &Path) -> Option<Vec<String>> {
    let mut version = Command::new(program);
    let native = version.arg("--version").stdout(Stdio::null()).status();
    if native.is_ok_and(|status| status.success()) {
        return Some(Vec::new());
    }
    let processor = match target.split('-').next().unwrap() {
        "i686" => "i386",
        "riscv64gc" => "riscv64",
        arm if arm.starts_with("arm") => "arm",
        other => other,
    };
    let emulator = format!("qemu-{processor}-static");
    if !has(&emulator) || !has("unshare") {
        return None;
    }
    let escaped =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect() };
    // What the file begins with: its class, byte order and processor, elf(5).
    let head = fs::read(program).unwrap();
    let mut mask = [0xff; 20];
    (mask[7], mask[16]) = (0, 0xfe);
    let line = format!(
        ":hade:M::{}:{}:/usr/bin/{emulator}:F",
        escaped(&head[..20]),
        escaped(&mask)
    );
    let words = EMULATED.iter().map(|word| (*word).to_owned());
    let words: Vec<String> = words.chain([line]).collect();
    let mut command = Command::new(&words[0]);
    let done = run(command.args(&words[1..]).arg(program).arg("--version"));
    if done.code != Some(0) {
        skip(&format!(
            "{target} needs binfmt_misc in a user namespace: {}",
            done.err
        ));
        return None;
    }
    Some(words)
}

/// Those to be tried: the name of each, and where it is.
fn programs() -> Vec<(String, PathBuf)> {
    let Ok(targets) = std::env::var("TARGETS") else {
        return vec![("this one".to_owned(), HADE.into())];
    };
    let built = Path::new(HADE).ancestors().nth(2).unwrap();
    let path = |target: &str| built.join(target).join("release/hade");
    targets
        .split_whitespace()
        .map(|target| (target.to_owned(), path(target)))
        .collect()
}

#[test]
fn every_target_lives_its_whole_life() {
    for (target, program) in programs() {
        if target != "this one" {
            let bytes = fs::read(&program).unwrap();
            // No interpreter, so no shared library.
            let has = |text: &str| bytes.windows(text.len()).any(|at| at == text.as_bytes());
            assert!(
                !has("/lib/ld-") && !has("/lib64/ld-"),
                "{target} is not static"
            );
            println!("{target}: {} bytes", bytes.len());
        }
        let Some(before) = before(&target, &program) else {
            continue;
        };
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        whole_life(&program, &before, &[]);
    }
}
