//! Every error that a person gets to read: one line, and the exit status that goes with it.
//! Low floors return `io::Error`; whoever knows the thing (path, pid, address) words it here.
#![forbid(unsafe_code)]

use std::fmt;

/// Exit statuses of every command; `state` has its own reading of 1, 3 and 4, as init scripts expect.
pub mod exit {
    /// Done; `state`: running and serving.
    pub const DONE: u8 = 0;
    /// Failed; `state`: dead, but the pid file names a pid.
    pub const FAILED: u8 = 1;
    /// Wrong usage: a flag, a command or an environment variable.
    pub const USAGE: u8 = 2;
    /// `state`: not running.
    pub const NOT_RUNNING: u8 = 3;
    /// `state`: cannot tell, for want of permission or of an answer. All commands: in a container with no place to meet.
    pub const UNKNOWN: u8 = 4;
}

/// What failed, on which thing, why, and what to do; with the exit status it causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    text: String,
    code: u8,
}

/// What commands and everything below them return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Something could not be done: exit status 1.
    pub fn failed(text: impl Into<String>) -> Error {
        Error {
            text: text.into(),
            code: exit::FAILED,
        }
    }

    /// The caller's words were wrong: exit status 2.
    pub fn usage(text: impl Into<String>) -> Error {
        Error {
            text: text.into(),
            code: exit::USAGE,
        }
    }

    /// The same words with another exit status.
    pub fn with_code(self, code: u8) -> Error {
        Error { code, ..self }
    }

    /// The exit status.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
