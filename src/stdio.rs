//! Standard input, output and error: given to the log, or to nothing, also where there is no `/dev/null`.
#![forbid(unsafe_code)]

use crate::sys::fd::{self, Standard};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

/// Gives standard output and error to the log; without one nobody hears of what is written there.
pub fn redirect(log: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let nowhere;
    let log = match log {
        Some(log) => log,
        None => {
            nowhere = nowhere_to_write()?;
            nowhere.as_fd()
        }
    };
    fd::redirect(Standard::Output, log)?;
    fd::redirect(Standard::Error, log)
}

/// An output that takes everything: `/dev/null`, or a pipe that nobody reads, which takes nothing.
fn nowhere_to_write() -> io::Result<OwnedFd> {
    let null = File::options().write(true).open("/dev/null");
    match null.and_then(|null| Ok((null.metadata()?.file_type(), null))) {
        Ok((kind, null)) if kind.is_char_device() => Ok(null.into()),
        _ => fd::pipe().map(|(_, write)| write),
    }
}

/// An input that is at its end: `/dev/null`, or a pipe that nobody writes to where a bare system does not have it, or
/// has a file there that somebody wrote before the devices came.
pub fn nothing() -> io::Result<OwnedFd> {
    let null = File::open("/dev/null").and_then(|null| Ok((null.metadata()?.file_type(), null)));
    match null {
        Ok((kind, null)) if kind.is_char_device() => Ok(null.into()),
        _ => fd::pipe().map(|(read, _)| read),
    }
}
