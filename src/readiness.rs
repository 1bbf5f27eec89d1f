//! The pipe between the launcher, which has the user's terminal, and the master that it started: one message, "ready"
//! or the reason why not. Only an explicit "ready" counts; the end of the pipe without one is a failure.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::sys::fd;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

const READY: &str = "ready\n";
const FAILED: &str = "failed ";

/// The launcher's end.
pub struct Waiter(OwnedFd);

/// The master's end. Workers must not keep it.
pub struct Reporter(OwnedFd);

/// A new pipe.
pub fn pipe() -> io::Result<(Waiter, Reporter)> {
    fd::pipe().map(|(read, write)| (Waiter(read), Reporter(write)))
}

impl Waiter {
    /// Waits for the message: the text that came with "ready", the reason why not, or `None` when the pipe ended
    /// without either.
    pub fn wait(self) -> Option<Result<String>> {
        let mut message = String::new();
        File::from(self.0).read_to_string(&mut message).ok()?;
        if let Some(text) = message.strip_prefix(READY) {
            return Some(Ok(text.to_owned()));
        }
        let (code, text) = message.strip_prefix(FAILED)?.split_once('\n')?;
        Some(Err(Error::failed(text).with_code(code.parse().ok()?)))
    }
}

impl Reporter {
    /// Says "ready", with what the launcher is to print. An error means that nobody waits any more.
    pub fn ready(self, text: &str) -> io::Result<()> {
        self.say(&format!("{READY}{text}"))
    }

    /// Says why not.
    pub fn failed(self, error: &Error) {
        let _ = self.say(&format!("{FAILED}{}\n{error}", error.code()));
    }

    fn say(&self, message: &str) -> io::Result<()> {
        let mut left = message.as_bytes();
        while !left.is_empty() {
            left = &left[fd::write(self.0.as_fd(), left)?..];
        }
        Ok(())
    }
}

impl AsFd for Reporter {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_explicit_word_counts() {
        for (sent, expected) in [
            ("ready\nhello", Some(Ok("hello".to_owned()))),
            ("failed 2\nwhy not", Some(Err(Error::usage("why not")))),
            ("", None),
            ("rea", None),
            ("failed x\nwhy", None),
        ] {
            let (waiter, reporter) = pipe().unwrap();
            reporter.say(sent).unwrap();
            drop(reporter);
            assert_eq!(waiter.wait(), expected, "{sent:?}");
        }
        let (waiter, reporter) = pipe().unwrap();
        reporter.failed(&Error::usage("two\nlines"));
        assert_eq!(waiter.wait(), Some(Err(Error::usage("two\nlines"))));
    }
}
