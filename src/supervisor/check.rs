//! The child that tries the program on disk before a master becomes it: `<program> app check`, in a process group of its
//! own, with all that a restart passes on.
#![forbid(unsafe_code)]

use super::handover::{self, GOOD, HEARD, VARIABLE};
use crate::settings::Overrides;
use crate::stdio;
use crate::sys::fd;
use crate::sys::process::{self, Ended, Pid};
use crate::sys::signal::Signal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

/// What a pipe holds, `pipe(7)`.
const PIPE: usize = 64 * 1024;

/// A check that runs.
pub(super) struct Check {
    pub pid: Pid,
    output: OwnedFd,
}

impl Check {
    /// Runs `<program> app check` in the base directory, with the flags of the next start.
    pub fn start(program: &Path, base: &Path, overrides: &Overrides) -> Result<Check, String> {
        let pipe = || -> io::Result<_> {
            // The check's words come by a pipe that nobody reads before it is over: what it says is short.
            let (output, input) = fd::pipe_nonblocking()?;
            let (error, witness) = (input.try_clone()?, input.try_clone()?);
            Ok((output, input, error, witness, stdio::nothing()?))
        };
        let (output, input, error, witness, nothing) =
            pipe().map_err(|error| format!("cannot make a pipe for the check: {error}"))?;
        let mut command = Command::new(program);
        let (shown, variables) = overrides.hidden();
        command
            .args(["app", "check", "--base-dir"])
            .arg(base)
            .args(shown.to_args())
            .envs(variables)
            // By name: a link that was turned to a new release leads there.
            .current_dir(base)
            .process_group(0)
            .stdin(nothing)
            .stdout(input)
            .stderr(error)
            .env(VARIABLE, handover::for_a_check(witness.as_raw_fd()));
        let cannot = |error: io::Error| match base.is_dir() {
            true => format!("cannot run {}: {error}", program.display()),
            false => format!(
                "cannot enter the base directory {}: {error}",
                base.display()
            ),
        };
        // One more descriptor comes along, for the check to see that it does.
        fd::set_cloexec(&witness, false).map_err(cannot)?;
        // It panics where the kernel does not let it read how the child fares, which must not end a master.
        let spawned = catch_unwind(AssertUnwindSafe(|| command.spawn()));
        let child = spawned.unwrap_or_else(|_| Err(io::Error::other("it cannot be watched")));
        let _ = fd::set_cloexec(&witness, true);
        let child = child.map_err(cannot)?;
        // Collected with all other children.
        match Pid::from_raw(child.id() as i32) {
            Some(pid) => Ok(Check { pid, output }),
            None => Err("the check has no pid".to_owned()),
        }
    }

    /// Ends it, and whatever it started: a wrapper's program, say. For one that has not been collected, whose number is
    /// nobody else's.
    pub fn kill(&self) {
        let _ = process::kill_group(self.pid, Signal::Kill);
    }

    /// What one that ended this way found.
    pub fn outcome(&self, ended: Ended, program: &Path) -> Result<(), String> {
        // A program may say a lot before it says that all is well. Of one that got away, and goes on talking, no more is
        // heard than a pipe holds.
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        while bytes.len() < PIPE {
            match fd::read(self.output.as_fd(), &mut buffer) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        judge(&String::from_utf8_lossy(&bytes), ended, program)
    }
}

/// What a check that ended this way, with these words, means.
fn judge(text: &str, ended: Ended, program: &Path) -> Result<(), String> {
    let is_good = ended == Ended::Exited(0) && text.contains(GOOD);
    if is_good && text.contains(HEARD) {
        return Ok(());
    }
    let program = program.display();
    let said = text.lines().next().unwrap_or_default();
    // Of this kind they begin with the program's name.
    let ours = said.split_once(": ").map(|(_, said)| said);
    Err(match (ended, said) {
        _ if is_good => format!(
            "{program} is of a version that cannot take over from this one, or is started by something that loses \
             the environment or closes descriptors; stop, then start"
        ),
        (Ended::Exited(0), _) => {
            format!("{program} is not a program of this kind: its check did not say that it is")
        }
        (_, "") => format!("the check of {program} {ended}"),
        (_, said) => ours.map_or_else(
            || format!("the check of {program} failed: {said}"),
            str::to_owned,
        ),
    })
}
