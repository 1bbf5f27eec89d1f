//! Cookies: RFC 6265. What a client is given to keep, and how it is read from what it sends.
#![forbid(unsafe_code)]

use super::escape;
use std::fmt;
use std::time::Duration;

/// Something small for the client to keep and to send with each request.
///
/// It is for every path of the site, scripts cannot read it (`HttpOnly`), and other sites cannot send it along but by a
/// link (`SameSite=Lax`). It ends with the browser, unless [`Cookie::for_time`] says when. A name or value of any kind will
/// do: what cannot stand in a cookie is escaped, and [`Request::cookie`](crate::Request::cookie) takes that off.
///
/// ```
/// use hade::{App, Cookie, Response};
/// use std::time::Duration;
///
/// App::new("site")
///     .post("/theme", |request| -> hade::Result {
///         let form = request.form()?;
///         let theme = form.get("theme").unwrap_or("light");
///         let cookie = Cookie::new("theme", theme).for_time(Duration::from_secs(365 * 24 * 3600));
///         Ok(Response::redirect("/").with_cookie(cookie))
///     })
///     .get("/", |request| format!("theme {:?}", request.cookie("theme")));
/// ```
#[derive(Debug, Clone)]
pub struct Cookie {
    name: String,
    value: String,
    age: Option<u64>,
    is_secure: bool,
    is_for_scripts: bool,
    is_strict: bool,
}

impl Cookie {
    /// A cookie that ends with the browser.
    ///
    /// ```
    /// let cookie = hade::Cookie::new("theme", "dark");
    /// assert_eq!(cookie.to_string(), "theme=dark; Path=/; HttpOnly; SameSite=Lax");
    /// ```
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Cookie {
        Cookie {
            name: name.into(),
            value: value.into(),
            age: None,
            is_secure: false,
            is_for_scripts: false,
            is_strict: false,
        }
    }

    /// Has the client forget the one of this name.
    ///
    /// ```
    /// use hade::{Cookie, Response};
    /// let answer = Response::redirect("/").with_cookie(Cookie::gone("session"));
    /// ```
    pub fn gone(name: impl Into<String>) -> Cookie {
        Cookie::new(name, "").for_time(Duration::ZERO)
    }

    /// The same for so long, in whole seconds.
    ///
    /// ```
    /// use std::time::Duration;
    /// let cookie = hade::Cookie::new("seen", "1").for_time(Duration::from_secs(60));
    /// ```
    pub fn for_time(self, time: Duration) -> Cookie {
        Cookie {
            age: Some(time.as_secs()),
            ..self
        }
    }

    /// The same for HTTPS alone, which a proxy in front has to do.
    ///
    /// ```
    /// let cookie = hade::Cookie::new("session", "x7").secure();
    /// ```
    pub fn secure(self) -> Cookie {
        Cookie {
            is_secure: true,
            ..self
        }
    }

    /// The same, and other sites cannot have it sent even by a link (`SameSite=Strict`).
    ///
    /// ```
    /// let cookie = hade::Cookie::new("session", "x7").strict();
    /// ```
    pub fn strict(self) -> Cookie {
        Cookie {
            is_strict: true,
            ..self
        }
    }

    /// The same, and scripts of the page can read it.
    ///
    /// ```
    /// let cookie = hade::Cookie::new("language", "de").for_scripts();
    /// ```
    pub fn for_scripts(self) -> Cookie {
        Cookie {
            is_for_scripts: true,
            ..self
        }
    }
}

/// What `Set-Cookie` has.
impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        let may_be_value = |byte: u8| is_plain(byte) || b"/:=?@()[]{}<>".contains(&byte);
        let (name, value) = (
            escape::encode(&self.name, is_plain),
            escape::encode(&self.value, may_be_value),
        );
        write!(f, "{name}={value}; Path=/")?;
        if let Some(age) = self.age {
            write!(f, "; Max-Age={age}")?;
        }
        if self.is_secure {
            f.write_str("; Secure")?;
        }
        if !self.is_for_scripts {
            f.write_str("; HttpOnly")?;
        }
        f.write_str(match self.is_strict {
            true => "; SameSite=Strict",
            false => "; SameSite=Lax",
        })
    }
}

/// The value of a cookie in a `Cookie` field (RFC 6265 §4.2); the first of its name.
pub(super) fn find(field: &str, name: &str) -> Option<String> {
    let mut pairs = field.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(found, _)| escape::decode(found.trim(), false) == name)?;
    let value = value.trim();
    let bare = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    Some(escape::decode(bare.unwrap_or(value), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_read() {
        for value in [
            "plain",
            "a b;c",
            "\u{e9}\r\nX: y",
            "100%",
            "\"q\"",
            "a=b",
            "",
        ] {
            let cookie = Cookie::new("the name", value).to_string();
            let (pair, rest) = cookie.split_once("; ").unwrap();
            assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
            let sent = format!("other=1; {pair}; last=2");
            assert_eq!(find(&sent, "the name").as_deref(), Some(value), "{cookie}");
            assert!(cookie.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
        assert_eq!(find("a=\"1\"", "a").as_deref(), Some("1"));
        assert_eq!(find("a; b=1", "a"), None);
    }
}
