//! Standard input, output and error: given to the log, or to nothing, also where there is no `/dev/null`.
#![forbid(unsafe_code)]

use crate::sys::fd::{self, O_NONBLOCK, Standard};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

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
    match null(OpenOptions::new().write(true)) {
        Some(null) => Ok(null),
        None => fd::pipe().map(|(_, write)| write),
    }
}

/// An input that is at its end: `/dev/null`, or a pipe that nobody writes to where a bare system does not have it, or
/// has a file there that somebody wrote before the devices came.
pub fn nothing() -> io::Result<OwnedFd> {
    match null(OpenOptions::new().read(true)) {
        Some(null) => Ok(null),
        None => fd::pipe().map(|(read, _)| read),
    }
}

/// The device, and not what may stand in its place: one who opens a FIFO waits for the other end.
fn null(options: &mut OpenOptions) -> Option<OwnedFd> {
    let null = options.custom_flags(O_NONBLOCK).open("/dev/null").ok()?;
    let is_device = null.metadata().ok()?.file_type().is_char_device();
    is_device.then(|| null.into())
}
