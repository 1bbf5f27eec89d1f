//! The settings of what is served from the disk: those with names of their own, and `app.header.*` and `app.type.*`, whose
//! names go on as whoever sets them likes. The table of the former is in `settings`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

/// What is served from the disk, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// The directory; without one there are the pages of the program alone.
    pub root: Option<PathBuf>,
    /// The file under it that answers for pages which are not there.
    pub fallback: Option<String>,
    /// What the paths of files begin with that never change.
    pub immutable: Vec<String>,
    /// More fields for every answer, `Cache-Control` for pages alone, by name; no name is there twice.
    pub headers: Vec<(String, String)>,
    /// Types by extension, in lower case, before those that are built in.
    pub types: Vec<(String, String)>,
    /// Whether a directory without an index is listed.
    pub listing: bool,
}

/// Settings whose names go on as whoever sets them likes; their names do not survive as variables.
const HEADER: &str = "app.header.";
const TYPE: &str = "app.type.";
/// What the command line may leave out of them.
const PREFIX: &str = "app.";

/// The fields that hade sets, or whose meaning is its own affair.
const OWN_FIELDS: [&str; 21] = [
    "Accept-Ranges",
    "Allow",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Keep-Alive",
    "Last-Modified",
    "Location",
    "Proxy-Connection",
    "Retry-After",
    "Server",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Vary",
    "X-Content-Type-Options",
];

impl Serving {
    /// One of `app.header.*` and `app.type.*`; `None` when the name is not one of them.
    pub fn put(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
        let full = full_name(name)?;
        let (list, put) = match full.strip_prefix(HEADER) {
            Some(field) => (&mut self.headers, field_line(field, value)),
            None => (&mut self.types, media_type(full.strip_prefix(TYPE)?, value)),
        };
        Some(put.map(|(name, value)| {
            list.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
            list.push((name, value));
        }))
    }
}

/// The name of such a setting with its prefix, and in the case of letters that it is compared in.
pub fn full_name(name: &str) -> Option<String> {
    [HEADER, TYPE].into_iter().find_map(|prefix| {
        let bare = prefix.strip_prefix(PREFIX).unwrap_or(prefix);
        let rest = name
            .strip_prefix(prefix)
            .or_else(|| name.strip_prefix(bare));
        rest.map(|rest| prefix.to_owned() + rest)
    })
}

fn is_token(text: &str) -> bool {
    let is_sign = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || is_sign(byte);
    !text.is_empty() && text.bytes().all(is_good)
}

fn is_one_line(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() && c != '\t')
}

/// A field for every answer.
fn field_line(name: &str, value: &str) -> Result<(String, String), String> {
    if !is_token(name) {
        return Err("expected the name of a header field behind app.header.".to_owned());
    }
    if OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!("the field {name} is set by hade"));
    }
    match is_one_line(value) {
        true => Ok((name.to_owned(), value.to_owned())),
        false => Err("expected the value of a header field".to_owned()),
    }
}

/// A type for an extension.
fn media_type(extension: &str, value: &str) -> Result<(String, String), String> {
    if extension.is_empty() || extension.contains(['.', '/']) {
        return Err("expected one extension behind app.type., without its dot".to_owned());
    }
    let mut parts = value.split(';').next().unwrap_or("").trim_end().split('/');
    let is_type = parts.next().is_some_and(is_token) && parts.next().is_some_and(is_token);
    match is_type && parts.next().is_none() && is_one_line(value) {
        true => Ok((extension.to_lowercase(), value.to_owned())),
        false => Err("expected a media type such as text/plain".to_owned()),
    }
}
