//! What a test needs and not every machine has. Without it the test is skipped, and says so; in CI nothing is skipped.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

/// Says that a test is skipped and why, past the test runner, which keeps the output of tests that pass to itself. In
/// CI nothing is skipped.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Whether a tool is installed; says out loud what is skipped where it is not. In CI nothing is.
pub fn has(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    if !found {
        skip(&format!("needs {tool}"));
    }
    found
}

/// The effective user of this process.
pub fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0);
    if !root {
        skip("needs root");
    }
    root
}
