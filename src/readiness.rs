//! The pipe between the launcher, which has the user's terminal, and the master that it started: one message, "ready"
//! or the reason why not. Only an explicit "ready" counts; the end of the pipe without one is a failure.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::sys::fd::{self, Wait};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const READY: &str = "ready\n";
const FAILED: &str = "failed ";

/// The launcher's end.
pub struct Waiter(OwnedFd);

/// How a master tells how its start went. Workers must not keep it.
pub enum Reporter {
    /// By the pipe, to the launcher.
    Pipe(OwnedFd),
    /// It has the user's terminal itself.
    Terminal,
}

/// A new pipe.
pub fn pipe() -> io::Result<(Waiter, Reporter)> {
    fd::pipe().map(|(read, write)| (Waiter(read), Reporter::Pipe(write)))
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
    /// Whether nobody waits any more: the launcher was interrupted.
    pub fn is_alone(&self) -> bool {
        match self {
            Reporter::Pipe(pipe) => {
                // Of a pipe's write end nothing but its reader's end is news here.
                let mut wait = [Wait::readable(pipe)];
                fd::poll(&mut wait, Some(Duration::ZERO)).is_ok() && wait[0].ready
            }
            Reporter::Terminal => false,
        }
    }

    /// Says "ready", with what is to be printed. An error means that nobody waits any more.
    pub fn ready(self, text: &str) -> io::Result<()> {
        match self {
            Reporter::Pipe(pipe) => say(&pipe, &format!("{READY}{text}")),
            Reporter::Terminal => {
                // A standard output that is closed is the caller's choice, and so is one that nobody reads: it serves
                // already, and waits for no reader.
                let _ = fd::write_at_once(1, text.as_bytes());
                Ok(())
            }
        }
    }

    /// Says why not. At the terminal that is the error's own way.
    pub fn failed(self, error: &Error) {
        if let Reporter::Pipe(pipe) = self {
            let _ = say(&pipe, &format!("{FAILED}{}\n{error}", error.code()));
        }
    }
}

fn say(pipe: &OwnedFd, message: &str) -> io::Result<()> {
    let mut left = message.as_bytes();
    while !left.is_empty() {
        left = &left[fd::write(pipe.as_fd(), left)?..];
    }
    Ok(())
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
            let Reporter::Pipe(pipe) = reporter else {
                panic!("not a pipe")
            };
            say(&pipe, sent).unwrap();
            drop(pipe);
            assert_eq!(waiter.wait(), expected, "{sent:?}");
        }
        let (waiter, reporter) = pipe().unwrap();
        reporter.failed(&Error::usage("two\nlines"));
        assert_eq!(waiter.wait(), Some(Err(Error::usage("two\nlines"))));
    }
}
