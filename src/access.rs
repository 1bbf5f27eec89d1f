//! What the access log is to be: where its lines go, and what they look like. The lines themselves are `http`'s.
#![forbid(unsafe_code)]

use std::path::PathBuf;

/// Where the lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// To the terminal that the log is on, or else nowhere.
    #[default]
    Auto,
    Off,
    /// Where the log goes.
    On,
    /// To a file of their own.
    File(PathBuf),
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Time, method, target, status, milliseconds.
    #[default]
    Short,
    /// What Apache and nginx call so, with the seconds behind it.
    Combined,
    Json,
}

impl AccessLog {
    /// `None` for what cannot be a path.
    pub fn parse(text: &str) -> Option<AccessLog> {
        Some(match text {
            "auto" => AccessLog::Auto,
            "off" => AccessLog::Off,
            "on" => AccessLog::On,
            path if path.is_empty() || path.ends_with('/') => return None,
            path => AccessLog::File(path.into()),
        })
    }

    /// The file, where it is one of its own.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            AccessLog::File(path) => Some(path),
            _ => None,
        }
    }

    /// The same with another path, where there is one.
    pub fn map<E>(self, change: impl FnOnce(PathBuf) -> Result<PathBuf, E>) -> Result<Self, E> {
        Ok(match self {
            AccessLog::File(path) => AccessLog::File(change(path)?),
            other => other,
        })
    }
}

impl Format {
    /// `None` where it is no name of one.
    pub fn parse(text: &str) -> Option<Format> {
        Some(match text {
            "short" => Format::Short,
            "combined" => Format::Combined,
            "json" => Format::Json,
            _ => return None,
        })
    }
}
