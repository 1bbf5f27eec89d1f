//! Where to listen, as people write it: `:8888`, `localhost:8080`, `[::1]:80`, `unix:run/x.sock`.
//! Words to values only; names are looked up and sockets bound by `listener`.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};

use crate::place::{Place, resolved};
use crate::sys::socket::UNIX_PATH_MAX;

/// An address to listen on. Port 0 stands for any free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `:port`, every interface, IPv6 and IPv4.
    Any {
        /// The port.
        port: u16,
    },
    /// `localhost:port`, the loopback interface; never looked up (RFC 6761 §6.3).
    Localhost {
        /// The port.
        port: u16,
    },
    /// `127.0.0.1:port`, `[::1]:port`, or with the number of an interface `[fe80::1%2]:port`.
    Ip(SocketAddr),
    /// `host.example:port`, for the resolver.
    Name {
        /// The name as written, checked for its form only.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:path`, a socket in the file system. Its length is checked when it is bound.
    Unix(PathBuf),
}

/// What hints fill in where no port is given.
const PORT: u16 = 8888;

const NAME: &str = "expected a host name of letters, digits, hyphens and dots before the port";
const NUMBERS: &str = "expected four numbers from 0 to 255, as in \"127.0.0.1:80\"";
const IN_BRACKETS: &str = "expected an IPv6 address in brackets and a port";

/// What was expected, and what may have been meant.
struct Wrong {
    expected: &'static str,
    guesses: Vec<String>,
}

impl Address {
    /// Reads an address as a person writes it.
    ///
    /// # Errors
    /// What was expected instead, to be put behind the flag, variable or key and its value.
    pub fn parse(text: &str) -> Result<Address, String> {
        read(text).map_err(|Wrong { expected, guesses }| {
            match guesses.iter().find(|guess| read(guess).is_ok()) {
                Some(guess) => format!("{expected}; did you mean {guess:?}?"),
                None => expected.to_owned(),
            }
        })
    }

    /// The same address, with the path of a socket read from the base directory.
    pub fn under(self, base: &Path) -> Address {
        match self {
            Address::Unix(path) => Address::Unix(Place::under(base, &path)),
            other => other,
        }
    }

    /// The same address, with the path of a socket made absolute from the current directory of now.
    ///
    /// # Errors
    /// The current directory has been removed or cannot be read.
    pub fn absolute(self) -> io::Result<Address> {
        match self {
            Address::Unix(path) => crate::place::absolute(&path).map(Address::Unix),
            other => Ok(other),
        }
    }
}

impl Address {
    /// Whether it is the same place, if written in another way. Of addresses with port 0 each is another one.
    pub fn is_same(&self, other: &Address) -> bool {
        let plain = |address: &Address| match address {
            Address::Localhost { port } => Address::Ip((Ipv4Addr::LOCALHOST, *port).into()),
            // One path has many names; its directory has one identity.
            Address::Unix(path) => Address::Unix(resolved(path)),
            other => other.clone(),
        };
        self == other || !self.is_any_port() && plain(self) == plain(other)
    }

    /// Whether the kernel is to choose a free port.
    pub fn is_any_port(&self) -> bool {
        match self {
            Address::Any { port } | Address::Localhost { port } | Address::Name { port, .. } => {
                *port == 0
            }
            Address::Ip(ip) => ip.port() == 0,
            Address::Unix(_) => false,
        }
    }

    /// The same address, with the path of a socket as it is seen from the base directory.
    pub fn within(self, base: &Path) -> Address {
        match self {
            Address::Unix(path) => {
                Address::Unix(path.strip_prefix(base).map(Path::to_owned).unwrap_or(path))
            }
            other => other,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any { port } => write!(f, ":{port}"),
            Address::Localhost { port } => write!(f, "localhost:{port}"),
            Address::Ip(ip) => write!(f, "{ip}"),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn wrong<T>(expected: &'static str, guesses: &[String]) -> Result<T, Wrong> {
    Err(Wrong {
        expected,
        guesses: guesses.to_vec(),
    })
}

fn read(text: &str) -> Result<Address, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    if text.contains(char::is_whitespace) {
        let guess = text.chars().filter(|c| !c.is_whitespace()).collect();
        return wrong("expected host:port without blanks", &[guess]);
    }
    if let Some((_, rest)) = text.split_once("://") {
        let guess = rest.split('/').next().unwrap_or(rest).to_owned();
        return wrong("expected host:port without a scheme", &[guess]);
    }
    if text.starts_with('[') {
        return bracketed(text);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let guesses = [format!(":{text}"), format!("{text}:{PORT}")];
        return wrong(
            "expected host:port",
            if text.is_empty() { &[] } else { &guesses },
        );
    };
    if host.contains(':') {
        let guesses = [format!("[{host}]:{port}"), format!("[{text}]:{PORT}")];
        if guesses.iter().any(|guess| read(guess).is_ok()) {
            return wrong(IN_BRACKETS, &guesses);
        }
        return wrong("expected host:port, with one colon", &[]);
    }
    let port = parse_port(port)?;
    if host.is_empty() {
        return Ok(Address::Any { port });
    }
    if host == "*" {
        return wrong("expected host:port", &[format!(":{port}")]);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Address::Ip(SocketAddr::from((ip, port))));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.eq_ignore_ascii_case("localhost") {
        return Ok(Address::Localhost { port });
    }
    check_name(name)?;
    Ok(Address::Name {
        host: host.to_owned(),
        port,
    })
}

fn parse_port(text: &str) -> Result<u16, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits => Ok(port),
        _ => wrong("expected a port from 0 to 65535 after the colon", &[]),
    }
}

fn bracketed(text: &str) -> Result<Address, Wrong> {
    if let Ok(ip) = text.parse::<SocketAddrV6>() {
        return Ok(Address::Ip(SocketAddr::V6(ip)));
    }
    if let Some((_, port)) = text.rsplit_once("]:") {
        parse_port(port)?;
    }
    if text.contains('%') {
        return wrong(
            "expected the interface by its number, as in \"[fe80::1%2]:80\"",
            &[],
        );
    }
    let bare = text.chars().filter(|c| !"[]".contains(*c)).collect();
    wrong(IN_BRACKETS, &[format!("{text}:{PORT}"), bare])
}

fn unix(path: &str) -> Result<Address, Wrong> {
    if path.is_empty() || path.ends_with('/') || path.contains(char::is_control) {
        return wrong("expected unix: and the path of a socket", &[]);
    }
    if Path::new(path)
        .file_name()
        .is_some_and(|name| name.len() > UNIX_PATH_MAX)
    {
        return wrong(
            "expected unix: and a path whose last name has at most 107 bytes",
            &[],
        );
    }
    if path.starts_with("//") {
        let guess = format!("unix:/{}", path.trim_start_matches('/'));
        return wrong(
            "expected unix: and at most one slash before the path",
            &[guess],
        );
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

/// Letters, digits and hyphens, as RFC 1123 §2.1 has them. A last label that is a number cannot be
/// a name; resolvers read such things as IPv4 addresses in old notations ("127.1", "0x7f000001").
fn check_name(name: &str) -> Result<(), Wrong> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|byte| byte.is_ascii_digit()) && !last.is_empty()
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return wrong(NUMBERS, &[]);
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(());
    }
    wrong(NAME, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_and_writes_them_back() {
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        let host = |text: &str| text.to_owned();
        let name = |text: &str| Address::Name {
            host: host(text),
            port: 80,
        };
        let unix = |path: &str| Address::Unix(PathBuf::from(path));
        for (text, expected) in [
            (":8888", Address::Any { port: 8888 }),
            (":0", Address::Any { port: 0 }),
            ("localhost:80", Address::Localhost { port: 80 }),
            ("127.0.0.1:80", ip("127.0.0.1:80")),
            ("0.0.0.0:65535", ip("0.0.0.0:65535")),
            ("[::1]:80", ip("[::1]:80")),
            ("[::]:80", ip("[::]:80")),
            ("[fe80::1%2]:80", ip("[fe80::1%2]:80")),
            ("host.example:80", name("host.example")),
            ("Host.:80", name("Host.")),
            ("1and1.example:80", name("1and1.example")),
            ("xn--bcher-kva.de:80", name("xn--bcher-kva.de")),
            ("unix:run/http.sock", unix("run/http.sock")),
            ("unix:/run/a b:80", unix("/run/a b:80")),
        ] {
            assert_eq!(Address::parse(text).as_ref(), Ok(&expected), "{text}");
            assert_eq!(expected.to_string(), text);
        }
        for (text, shown) in [
            (":080", ":80"),
            ("LocalHost:1", "localhost:1"),
            ("LOCALHOST.:1", "localhost:1"),
            ("[0:0::01]:80", "[::1]:80"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn says_what_was_expected() {
        let cases = r#"
            8888 => host:port; did you mean ":8888"?
            99999 => host:port
            host => host:port; did you mean "host:8888"?
            10.0.0.1 => host:port; did you mean "10.0.0.1:8888"?
            *:80 => host:port; did you mean ":80"?
            a b => host:port without blanks
            local host:80 => host:port without blanks; did you mean "localhost:80"?
            http://x:80 => host:port without a scheme; did you mean "x:80"?
            http://x:80/y => host:port without a scheme; did you mean "x:80"?
            http://x => host:port without a scheme
            1.2.3.4:80:90 => host:port, with one colon
            a:]b:c:80 => host:port, with one colon
            : => PORT
            :99999 => PORT
            :+80 => PORT
            host:http => PORT
            host:80/ => PORT
            [::1]: => PORT
            [::1]:99999 => PORT
            ::1:80 => SIX; did you mean "[::1]:80"?
            ::1 => SIX; did you mean "[::1]:8888"?
            fe80::1%2:80 => SIX; did you mean "[fe80::1%2]:80"?
            [::1] => SIX; did you mean "[::1]:8888"?
            [127.0.0.1]:80 => SIX; did you mean "127.0.0.1:80"?
            [::1 => SIX
            [ => SIX
            [x]y => SIX
            [fe80::1%eth0]:80 => the interface by its number, as in "[fe80::1%2]:80"
            1.2.3:80 => FOUR
            1.2.3.4.5:80 => FOUR
            1.2.3.256:80 => FOUR
            127.0.0.01:80 => FOUR
            127.0.0.1.:80 => FOUR
            2130706433:80 => FOUR
            0x7f000001:80 => FOUR
            host.7:80 => FOUR
            .:80 => NAME
            a..b:80 => NAME
            -a:80 => NAME
            a-.b:80 => NAME
            a_b:80 => NAME
            bücher:80 => NAME
            user@host:80 => NAME
            unix: => SOCKET
            unix:run/ => SOCKET
            unix:///run/x => unix: and at most one slash before the path; did you mean "unix:/run/x"?
        "#;
        let cases = cases
            .replace("PORT", "a port from 0 to 65535 after the colon")
            .replace("SIX", IN_BRACKETS.trim_start_matches("expected "))
            .replace(
                "FOUR",
                r#"four numbers from 0 to 255, as in "127.0.0.1:80""#,
            )
            .replace("NAME", NAME.trim_start_matches("expected "))
            .replace("SOCKET", "unix: and the path of a socket");
        for row in cases.trim().lines() {
            let (text, expected) = row.trim().split_once(" => ").unwrap();
            let expected = Err(format!("expected {expected}"));
            assert_eq!(Address::parse(text), expected, "{text}");
        }
        let long_label = format!("{}:80", "a".repeat(64));
        let long_name = format!("{}a:80", "a.".repeat(127));
        for text in [
            "",
            " :80",
            "\t",
            "unix:a\0b",
            "a\0b:80",
            &long_label,
            &long_name,
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_socket_is_read_from_the_base_directory() {
        for (text, expected) in [
            ("unix:run/http.sock", "unix:/srv/run/http.sock"),
            ("unix:/run/http.sock", "unix:/run/http.sock"),
            (":80", ":80"),
        ] {
            let address = Address::parse(text).unwrap().under(Path::new("/srv"));
            assert_eq!(address.to_string(), expected);
        }
    }
}
