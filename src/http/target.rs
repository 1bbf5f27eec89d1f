//! The path of a URL in the one form that is compared, as the names of a file, and names as part of a URL. Pure: what lies
//! on the disk is for `resolve`.
#![forbid(unsafe_code)]

use super::head::{TARGET, is};

/// The one directory of files that are meant for others although its name begins with a dot (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// What a path asks for, below the directory that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Decoded names with a slash between each two of them; nothing for the directory itself.
    pub path: Vec<u8>,
    /// A slash stands behind it.
    pub is_directory: bool,
}

/// Why a path is not looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A `%` without two digits behind it.
    Malformed,
    /// A name that nobody may ask for.
    Unfit,
}

impl Target {
    /// Reads a path from its first slash on, as it was sent; nothing at all is the directory without its slash.
    /// `is_whole`: it is the whole path of the URL, where `.well-known` may come first.
    ///
    /// # Errors
    /// See [`Wrong`]. Names are unfit that are empty, begin with a dot, or hold a NUL or a slash once decoded.
    pub fn parse(sent: &[u8], is_whole: bool) -> Result<Target, Wrong> {
        let mut path = Vec::with_capacity(sent.len());
        let mut is_unfit = false;
        let mut names = sent.split(|&byte| byte == b'/').peekable();
        let before = names.next().unwrap_or_default();
        is_unfit |= !before.is_empty();
        let is_directory = sent.ends_with(b"/");
        let mut is_first = is_whole;
        while let Some(name) = names.next() {
            if name.is_empty() && names.peek().is_none() {
                break;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            let start = path.len();
            decode(name, &mut path)?;
            let name = &path[start..];
            let is_hidden = name.starts_with(b".") && !(is_first && name == WELL_KNOWN);
            is_unfit |= name.is_empty() || is_hidden;
            is_unfit |= name.iter().any(|byte| matches!(byte, 0 | b'/'));
            is_first = false;
        }
        match is_unfit {
            true => Err(Wrong::Unfit),
            false => Ok(Target { path, is_directory }),
        }
    }

    /// The last name; empty behind a slash.
    pub fn name(&self) -> &[u8] {
        match self.is_directory {
            true => b"",
            false => self.path.rsplit(|&byte| byte == b'/').next().unwrap_or(b""),
        }
    }

    /// The path of something in this directory.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        match self.path.is_empty() {
            true => name.to_vec(),
            false => [&self.path, &b"/"[..], name].concat(),
        }
    }
}

/// Two digits.
fn escaped(code: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*code.get(at)?).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

/// Brings a path into the form that all of its spellings have in common, in place, and returns its length: escapes of
/// what needs none are taken off, and the digits of the others become capitals (RFC 3986 §6.2.2). What a path means does
/// not change by it, and one with an escape that is none stays as it is: it means nothing.
pub fn normalize(path: &mut [u8]) -> usize {
    let is_good = |at: usize| path[at] != b'%' || escaped(&path[at + 1..]).is_some();
    if !path.contains(&b'%') || !(0..path.len()).all(is_good) {
        return path.len();
    }
    let (mut from, mut to) = (0, 0);
    while from < path.len() {
        let needless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        let code = match path[from] {
            b'%' => escaped(&path[from + 1..]),
            _ => None,
        };
        match (code, code.filter(needless)) {
            (None, _) => {
                path[to] = path[from];
                (from, to) = (from + 1, to + 1);
            }
            (Some(_), Some(plain)) => {
                path[to] = plain;
                (from, to) = (from + 3, to + 1);
            }
            (Some(_), None) => {
                path.copy_within(from..from + 3, to);
                path[to..to + 3].make_ascii_uppercase();
                (from, to) = (from + 3, to + 3);
            }
        }
    }
    to
}

/// A path that people have written, in that form: what cannot be sent as it is, is escaped.
pub fn normal(path: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if is(byte, TARGET) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    let mut bytes = text.into_bytes();
    let length = normalize(&mut bytes);
    bytes.truncate(length);
    bytes.into_iter().map(char::from).collect()
}

/// Decodes once: what comes out is not looked at again.
fn decode(name: &[u8], out: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        let (byte, length) = match byte {
            b'%' => (escaped(&name[at + 1..]).ok_or(Wrong::Malformed)?, 3),
            _ => (byte, 1),
        };
        out.push(byte);
        at += length;
    }
    Ok(())
}

/// A name as one segment of a URL: everything is encoded that could mean something there, or to somebody on the way.
pub fn encode(name: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(name.len());
    for &byte in name {
        let is_plain = byte.is_ascii_alphanumeric();
        // RFC 3986 §2.3, and of §3.3 what no program is known to trip over.
        if is_plain || b"-._~!$()*+,;=@:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// A link to a name beside the page: the colon of a first segment would make it a scheme (RFC 3986 §4.2).
pub fn link(name: &[u8]) -> String {
    let dot = if name.contains(&b':') { "./" } else { "" };
    dot.to_owned() + &encode(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_cut_at_slashes_that_were_sent() {
        let long = format!("/{}", "n".repeat(5000));
        for (sent, expected) in [
            ("/", Ok("/")),
            ("", Ok("")),
            ("/a", Ok("a")),
            ("/a/", Ok("a/")),
            ("/a/b.html", Ok("a/b.html")),
            ("/%61%2Eb", Ok("a.b")),
            ("/a%20b+c", Ok("a b+c")),
            ("/%25", Ok("%")),
            ("/%252e%252e/x", Ok("%2e%2e/x")),
            ("/a\\..\\b", Ok("a\\..\\b")),
            ("/..a", Err(Wrong::Unfit)),
            ("/a..", Ok("a..")),
            ("/a...b", Ok("a...b")),
            ("/...", Err(Wrong::Unfit)),
            ("/~x/;y=1", Ok("~x/;y=1")),
            ("/.well-known/a", Ok(".well-known/a")),
            ("/.well-known", Ok(".well-known")),
            ("/%2Ewell-known/a", Ok(".well-known/a")),
            ("/.well-known/.a", Err(Wrong::Unfit)),
            ("/a/.well-known/b", Err(Wrong::Unfit)),
            ("/.Well-Known/a", Err(Wrong::Unfit)),
            ("//", Err(Wrong::Unfit)),
            ("//a", Err(Wrong::Unfit)),
            ("/a//b", Err(Wrong::Unfit)),
            ("/a//", Err(Wrong::Unfit)),
            ("/.", Err(Wrong::Unfit)),
            ("/./a", Err(Wrong::Unfit)),
            ("/..", Err(Wrong::Unfit)),
            ("/a/../b", Err(Wrong::Unfit)),
            ("/%2e%2E/b", Err(Wrong::Unfit)),
            ("/%2e", Err(Wrong::Unfit)),
            ("/a%2fb", Err(Wrong::Unfit)),
            ("/a%2F", Err(Wrong::Unfit)),
            ("/%2F", Err(Wrong::Unfit)),
            ("/a%00", Err(Wrong::Unfit)),
            ("/.git/config", Err(Wrong::Unfit)),
            ("/a/.env", Err(Wrong::Unfit)),
            ("a", Err(Wrong::Unfit)),
            ("/%", Err(Wrong::Malformed)),
            ("/%4", Err(Wrong::Malformed)),
            ("/%4/41", Err(Wrong::Malformed)),
            ("/%g1", Err(Wrong::Malformed)),
            ("/%-1", Err(Wrong::Malformed)),
            ("/../%zz", Err(Wrong::Malformed)),
            ("/.git/%", Err(Wrong::Malformed)),
            (&long, Ok(&long[1..])),
        ] {
            let found = Target::parse(sent.as_bytes(), true).map(|found| {
                let slash: &[u8] = if found.is_directory { b"/" } else { b"" };
                String::from_utf8([&found.path, slash].concat()).unwrap()
            });
            assert_eq!(found, expected.map(str::to_owned), "{sent}");
        }
        let found = Target::parse(b"/.well-known/a", false);
        assert_eq!(
            found,
            Err(Wrong::Unfit),
            "below a prefix it is not the first"
        );
        let odd = Target::parse(b"/%ff%fe\xc3", true).unwrap();
        assert_eq!(odd.path, b"\xff\xfe\xc3");
    }

    #[test]
    fn all_spellings_of_a_path_have_one_form() {
        for (sent, expected) in [
            ("/hello", "/hello"),
            ("/%68ello", "/hello"),
            ("/%68%65%6C%6c%6F", "/hello"),
            ("/%2d%2E%5f%7E%30", "/-._~0"),
            // What means something, or could to somebody on the way, stays.
            ("/a%2fb%3F%23%25%20%5c%00", "/a%2Fb%3F%23%25%20%5C%00"),
            ("/caf%c3%A9", "/caf%C3%A9"),
            // Decoded once: what comes out is no escape.
            ("/%2568ello", "/%2568ello"),
            ("/%25%36%38", "/%2568"),
            // Nothing becomes an escape that was none.
            ("/%%36%38", "/%%36%38"),
            ("/%6%38ello", "/%6%38ello"),
            ("/%68%", "/%68%"),
            ("/%68%6", "/%68%6"),
            ("/%68%6g", "/%68%6g"),
            ("*", "*"),
        ] {
            let mut path = sent.as_bytes().to_vec();
            let length = normalize(&mut path);
            assert_eq!(
                path[..length].escape_ascii().to_string(),
                expected.escape_default().to_string(),
                "{sent}"
            );
        }
        assert_eq!(normal("/caf\u{e9}/%61 b#"), "/caf%C3%A9/a%20b%23");
    }

    #[test]
    fn names_survive_a_url() {
        assert_eq!(
            encode(b"a b/c?d#e%\\\"<\xff:"),
            "a%20b%2Fc%3Fd%23e%25%5C%22%3C%FF:"
        );
        assert_eq!(link(b"a:b"), "./a:b");
        assert_eq!(link(b"\\\\evil.example"), "%5C%5Cevil.example");
        for byte in 1..=255_u8 {
            let name = [b'x', byte];
            let back = Target::parse(format!("/{}", encode(&name)).as_bytes(), true);
            assert_eq!(back.is_ok(), byte != b'/', "{byte}");
            assert!(back.map_or(byte == b'/', |back| back.path == name));
        }
    }
}
