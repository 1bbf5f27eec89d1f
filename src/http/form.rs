//! What clients fill in: the fields of a form, and names with passwords.
#![forbid(unsafe_code)]

use super::escape;
use std::fmt;

/// The fields of a form, in the order sent; from [`Request::form`](crate::Request::form).
///
/// ```
/// use hade::{App, Request};
///
/// let client = App::new("notes")
///     .post("/", |request| -> hade::Result<String> {
///         let form = request.form()?;
///         Ok(form.get("title").unwrap_or("no title").to_owned())
///     })
///     .test();
/// let request = Request::new("POST", "/")
///     .with_header("Content-Type", "application/x-www-form-urlencoded")
///     .with_body("title=To+do");
/// assert_eq!(client.send(request).into_text(), "To do");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn parse(text: &str) -> Form {
        Form(escape::pairs(text).collect())
    }

    /// The first value of a name.
    ///
    /// ```
    /// use hade::App;
    /// App::new("notes").post("/notes", |request| -> hade::Result<String> {
    ///     let form = request.form()?;
    ///     let title = form.get("title").unwrap_or("no title");
    ///     Ok(format!("{title}\n"))
    /// });
    /// ```
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.iter();
        pairs.find_map(|(found, value)| (found == name).then_some(value))
    }

    /// All values of a name, such as those of boxes that were ticked.
    ///
    /// ```
    /// use hade::App;
    /// App::new("shop").post("/order", |request| -> hade::Result<String> {
    ///     let form = request.form()?;
    ///     Ok(format!("{} things\n", form.all("thing").count()))
    /// });
    /// ```
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.0.iter().filter(move |(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All names and values.
    ///
    /// ```
    /// use hade::App;
    /// App::new("mirror").post("/", |request| -> hade::Result<String> {
    ///     let form = request.form()?;
    ///     Ok(form.iter().map(|(name, value)| format!("{name}: {value}\n")).collect())
    /// });
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The name and the password that a client has sent; from [`Request::basic_auth`](crate::Request::basic_auth).
///
/// ```
/// let request = hade::Request::new("GET", "/").with_header("Authorization", "Basic dW1hOmE6Yg==");
/// let login = request.basic_auth().unwrap();
/// assert_eq!((login.user(), login.password()), ("uma", "a:b"));
/// ```
pub struct Login {
    user: String,
    password: String,
}

impl Login {
    /// The value of an `Authorization` field.
    pub(super) fn parse(field: &str) -> Option<Login> {
        let (scheme, code) = field.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(decode_base64(code.trim())?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Login {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// The name.
    ///
    /// ```
    /// use hade::App;
    /// App::new("site").get("/me", |request| match request.basic_auth() {
    ///     Some(login) => format!("you say that you are {}\n", login.user()),
    ///     None => "you say nothing\n".to_owned(),
    /// });
    /// ```
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, to be compared with a hash of it. Not with `==`: how long that takes tells how much of it was right.
    ///
    /// ```
    /// fn is_right(login: &hade::Login, hash_is_of: impl Fn(&str) -> bool) -> bool {
    ///     hash_is_of(login.password())
    /// }
    /// ```
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Whether they are these. How long that takes to say does not depend on how much of them was right.
    ///
    /// ```
    /// use hade::{App, Response};
    /// App::new("site").before("/", |request| match request.basic_auth() {
    ///     Some(login) if login.is("admin", "secret") => Ok(()),
    ///     _ => Err(Response::unauthorized("this site")),
    /// });
    /// ```
    pub fn is(&self, user: &str, password: &str) -> bool {
        let same_user = is_same(self.user.as_bytes(), user.as_bytes());
        let same_password = is_same(self.password.as_bytes(), password.as_bytes());
        same_user & same_password
    }
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.user)
    }
}

/// Whether what a client sent is the secret, a token in a cookie for one, compared in a time that tells nothing of how
/// much of it was right. [`Login::is`] and [`Request::has_bearer`](crate::Request::has_bearer) compare so too. Nothing is
/// an empty secret, which is one that somebody forgot to set.
///
/// ```
/// assert!(hade::is_secret("kHb7...", "kHb7..."));
/// assert!(!hade::is_secret("kHb7", "kHb7..."));
/// assert!(!hade::is_secret("", ""));
/// ```
pub fn is_secret(sent: impl AsRef<[u8]>, secret: impl AsRef<[u8]>) -> bool {
    let secret = secret.as_ref();
    !secret.is_empty() && is_same(sent.as_ref(), secret)
}

/// Compares in a time that depends on the length of what was sent alone.
pub(super) fn is_same(sent: &[u8], right: &[u8]) -> bool {
    let mut differ = usize::from(sent.len() != right.len());
    for (at, byte) in sent.iter().enumerate() {
        let other = right.get(at % right.len().max(1)).copied().unwrap_or(0);
        differ |= usize::from(std::hint::black_box(byte ^ other));
    }
    std::hint::black_box(differ) == 0
}

/// RFC 4648 §4; the filling at the end may be missing.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if digits.len() % 4 == 1 || text.len() - digits.len() > 2 {
        return None;
    }
    let (mut out, mut bits, mut count) = (Vec::with_capacity(digits.len()), 0_u32, 0);
    for byte in digits.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_read_as_they_are_sent() {
        for (field, user, password) in [
            ("Basic dW1hOmE6Yg==", "uma", "a:b"),
            ("basic dW1hOmE6Yg", "uma", "a:b"),
            ("BASIC Og==", "", ""),
            ("Basic w6k6w6k=", "\u{e9}", "\u{e9}"),
        ] {
            let login = Login::parse(field).unwrap();
            assert!(login.is(user, password), "{field}");
            assert!(!login.is(user, "x") && !login.is("x", password));
        }
        for field in [
            "Basic",
            "Basic x",
            "Basic !!!!",
            "Bearer dW1hOmE6Yg==",
            "Basic dW1h",
            "",
        ] {
            assert!(Login::parse(field).is_none(), "{field}");
        }
    }

    #[test]
    fn only_the_same_bytes_are_the_same() {
        for (one, other, same) in [
            ("", "", true),
            ("a", "", false),
            ("", "a", false),
            ("abab", "ab", false),
            ("ab", "abab", false),
            ("secret", "secret", true),
            ("secreT", "secret", false),
        ] {
            assert_eq!(
                is_same(one.as_bytes(), other.as_bytes()),
                same,
                "{one} {other}"
            );
        }
    }
}
