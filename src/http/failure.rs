//! What a handler fails with: [`Error`]. The client is told what it may know, the log the rest.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

/// Why a request fails: a status, and what the client is told.
///
/// Every error of the standard library's kind becomes one by `?`: 500, with a line of text that says nothing about the
/// reason, which goes to the log. [`Error::new`] is for what the client is to know.
///
/// ```
/// use hade::{App, Error};
///
/// App::new("notes").get("/notes/{id}", |request| -> hade::Result<String> {
///     // Not a number: 404.
///     let id: u32 = request.path_param("id")?;
///     if id > 1000 {
///         return Err(Error::new(404, "no such note"));
///     }
///     // A file that cannot be read: 500, and the log says why.
///     Ok(std::fs::read_to_string(format!("notes/{id}"))?)
/// });
/// ```
pub struct Error {
    status: u16,
    shown: Cow<'static, str>,
    cause: Option<String>,
}

impl Error {
    /// One that is answered with this status and this line of text.
    ///
    /// ```
    /// let error = hade::Error::new(409, "somebody else has changed it");
    /// assert_eq!(error.to_string(), "409: somebody else has changed it");
    /// ```
    ///
    /// # Panics
    /// Outside 400 to 599.
    #[track_caller]
    pub fn new(status: u16, shown: impl Into<Cow<'static, str>>) -> Error {
        assert!(
            (400..600).contains(&status),
            "status {status} of an error is not one of 400 to 599"
        );
        Error {
            status,
            shown: shown.into(),
            cause: None,
        }
    }

    /// The same with a reason for the log, which the client is not shown.
    ///
    /// ```
    /// use hade::Error;
    /// let open = |name: &str| {
    ///     let opened = std::fs::File::open(name);
    ///     opened.map_err(|error| Error::new(503, "try again later").because(error))
    /// };
    /// assert!(open("none").is_err());
    /// ```
    pub fn because(mut self, cause: impl fmt::Display) -> Error {
        self.cause = Some(cause.to_string());
        self
    }

    /// The status that it is answered with.
    ///
    /// ```
    /// assert_eq!(hade::Error::new(404, "no such note").status(), 404);
    /// ```
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What the client is told, and what the log is.
    pub(crate) fn parts(self) -> (u16, Cow<'static, str>, Option<String>) {
        (self.status, self.shown, self.cause)
    }
}

/// Not shown to the client: 500. What stands behind an error is part of the reason.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(behind) = source {
            let text = behind.to_string();
            if !cause.ends_with(&text) {
                cause += ": ";
                cause += &text;
            }
            source = behind.source();
        }
        Error::new(500, "this page failed").because(cause)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) if self.status == 500 => f.write_str(cause),
            Some(cause) => write!(f, "{}: {}: {cause}", self.status, self.shown),
            None => write!(f, "{}: {}", self.status, self.shown),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}
