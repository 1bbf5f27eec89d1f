//! Which peers are believed when they say for whom they ask, `app.trusted_proxies`, and the client that comes of it:
//! `X-Forwarded-For` is read from its end, where the nearest proxy has written, and no further than those are trusted
//! who wrote there. Pure.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a setting must be.
pub const EXPECTED: &str =
    "addresses and networks, such as 127.0.0.1,10.0.0.0/8,::1,unix, or nothing";

/// What a list of networks alone must be.
pub const NETWORKS: &str = "addresses and networks, such as 10.0.0.0/8,::1, or nothing";

/// The fields that a proxy adds.
const FIELDS: [&str; 3] = ["X-Forwarded-For", "Forwarded", "Via"];

/// What a proxy calls a client that came to it by a Unix socket, as nginx does.
const UNIX: &[u8] = b"unix:";

/// Those who are believed; nobody by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<Network>,
    /// Whoever may connect to the Unix socket.
    unix: bool,
}

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    start: IpAddr,
    bits: u32,
}

/// Who asks, as far as that can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// `None` for somebody at a Unix socket.
    pub client: Option<IpAddr>,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
}

impl Proxies {
    /// Reads a list with commas.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Proxies, String> {
        let mut found = Proxies::default();
        if text.is_empty() {
            return Ok(found);
        }
        for part in text.split(',').map(str::trim) {
            match part {
                "unix" => found.unix = true,
                part => found.networks.push(Network::parse(part, EXPECTED)?),
            }
        }
        Ok(found)
    }

    /// Reads a list without `unix`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse_networks(text: &str) -> Result<Proxies, String> {
        let mut found = Proxies::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let network = Network::parse(part.trim(), NETWORKS)?;
            found.networks.push(network);
        }
        Ok(found)
    }

    /// The address of who asks, if it is known who does: nobody at a Unix socket, and no client behind a proxy that is not
    /// believed or does not name it.
    pub fn certain<'a>(
        &self,
        origin: Origin,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Option<IpAddr> {
        let is_of_proxy = |name: &str| FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field));
        let fields: Vec<_> = fields.filter(|(name, _)| is_of_proxy(name)).collect();
        let client = origin.client?;
        if fields.is_empty() {
            return Some(client);
        }
        // What somebody whom nobody believes says of himself, and what stands for "unknown", leaves the peer.
        let lists = fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(FIELDS[0]));
        let mut elements = lists.flat_map(|(_, list)| list.split(is_comma));
        let is_named = elements.any(|element| hop(element.trim_ascii()) == Some(Some(client)));
        let peer = origin.peer.map(|peer| peer.ip());
        Some(client).filter(|_| is_named && self.trusts(peer))
    }

    /// Whether such a peer is believed.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|address| address.to_canonical()) {
            Some(address) => self.networks.iter().any(|network| network.has(address)),
            None => self.unix,
        }
    }

    /// Who asks, by the peer and all `X-Forwarded-For` fields in the order sent.
    pub fn origin<'a>(
        &self,
        peer: Option<SocketAddr>,
        fields: impl Iterator<Item = &'a [u8]>,
    ) -> Origin {
        let Origin { mut client, .. } = Origin::of(peer);
        if self.trusts(client) {
            let fields: Vec<&[u8]> = fields.collect();
            let elements = fields.iter().rev().flat_map(|field| field.rsplit(is_comma));
            for element in elements.map(<[u8]>::trim_ascii) {
                // A list may have empty elements (RFC 9110 §5.6.1).
                if element.is_empty() {
                    continue;
                }
                // Whoever wrote what cannot be read is the last one that is known.
                let Some(next) = hop(element) else { break };
                client = next;
                if !self.trusts(client) {
                    break;
                }
            }
        }
        Origin { client, peer }
    }
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}

impl Network {
    fn parse(text: &str, what: &str) -> Result<Network, String> {
        let expected = || format!("{text:?}: expected {what}");
        let (start, bits) = match text.split_once('/') {
            Some((start, bits)) => (start, Some(bits)),
            None => (text, None),
        };
        let start: IpAddr = start.parse().map_err(|_| expected())?;
        let longest = longest(start);
        let bits = match bits {
            None => longest,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let bits = bits.parse().ok().filter(|bits| *bits <= longest);
                bits.ok_or_else(|| format!("{text:?}: expected 0 to {longest} behind the slash"))?
            }
            Some(_) => return Err(expected()),
        };
        // More than is meant may be behind such a thing.
        let first = masked(start, bits);
        if first != start {
            return Err(format!(
                "{text:?}: expected the first address of a network; did you mean \"{first}/{bits}\" or \"{start}\"?"
            ));
        }
        // IPv4 addresses, whatever they are written as, are compared as such.
        Ok(match (start, start.to_canonical()) {
            (IpAddr::V6(_), plain @ IpAddr::V4(_)) if bits >= MAPPED => Network {
                start: plain,
                bits: bits - MAPPED,
            },
            _ => Network { start, bits },
        })
    }

    fn has(&self, address: IpAddr) -> bool {
        let is_same_kind = address.is_ipv4() == self.start.is_ipv4();
        is_same_kind && masked(address, self.bits) == self.start
    }
}

/// The bits before an IPv4 address in an IPv6 one, `::ffff:0:0/96`.
const MAPPED: u32 = 96;

fn longest(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits behind the first so many cleared.
fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            Ipv4Addr::from(u32::from(v4) & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            Ipv6Addr::from(u128::from(v6) & mask).into()
        }
    }
}

/// One element: an address, perhaps with brackets and port. `Some(None)` for a Unix socket, `None` for anything else:
/// `unknown`, a name, an interface, what somebody made up.
fn hop(element: &[u8]) -> Option<Option<IpAddr>> {
    if element == UNIX {
        return Some(None);
    }
    let text = std::str::from_utf8(element).ok()?;
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']')?;
                let is_whole = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
                let address = address.parse::<Ipv6Addr>().ok()?;
                is_whole.then_some(address.into())?
            }
            None => {
                let (address, port) = text.split_once(':')?;
                let address = address.parse::<Ipv4Addr>().ok()?;
                is_port(port).then_some(address.into())?
            }
        },
    };
    Some(Some(address.to_canonical()))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

impl Origin {
    /// Somebody who asks for himself.
    pub fn of(peer: Option<SocketAddr>) -> Origin {
        let client = peer.map(|peer| peer.ip().to_canonical());
        Origin { client, peer }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = Origin::of(self.peer).client;
        let peer = self
            .peer
            .map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
        match self.client.filter(|_| self.client != own) {
            Some(client) => write!(f, "{client} by way of {peer}"),
            None => f.write_str(&peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_have_their_addresses() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7/32", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::/0", "fe80::1", "127.0.0.1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::ffff:0:0/96", "10.1.2.3", "::1"),
            (" 10.0.0.0/31 ,\t::1", "10.0.0.1", "10.0.0.2"),
        ] {
            let proxies = Proxies::parse(text).unwrap();
            assert!(proxies.trusts(Some(inside.parse().unwrap())), "{text}");
            assert!(!proxies.trusts(Some(outside.parse().unwrap())), "{text}");
            assert!(!proxies.trusts(None), "{text}");
        }
        assert_eq!(Proxies::parse(""), Ok(Proxies::default()));
        assert!(Proxies::parse("unix").unwrap().trusts(None));
        assert!(!Proxies::default().trusts(None));
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_reason() {
        for (text, expected) in [
            (",", "\"\": expected addresses"),
            ("10.0.0.0/8,", "\"\": expected addresses"),
            ("localhost", "\"localhost\": expected addresses"),
            ("10.0.0.0/", "\"10.0.0.0/\": expected 0 to 32"),
            ("10.0.0.0/33", "expected 0 to 32 behind the slash"),
            ("::/129", "expected 0 to 128 behind the slash"),
            ("10.0.0.0/+8", "expected addresses"),
            ("10.0.0.0/255.0.0.0", "expected addresses"),
            ("10.0.0.1:80", "expected addresses"),
            ("[::1]", "expected addresses"),
            ("10.0.0.1/8", "did you mean \"10.0.0.0/8\" or \"10.0.0.1\"?"),
            ("2001:db8::1/32", "did you mean \"2001:db8::/32\""),
            ("UNIX", "expected addresses"),
        ] {
            let error = Proxies::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// Who asks, where the fields are divided by `|`.
    fn client(trusted: &str, peer: &str, fields: &str) -> String {
        let proxies = Proxies::parse(trusted).unwrap();
        let peer = (peer != "unix").then(|| peer.parse().unwrap());
        let fields = fields.split('|').map(str::as_bytes);
        let origin = proxies.origin(peer, fields);
        origin
            .client
            .map_or_else(|| "unix".to_owned(), |address| address.to_string())
    }

    #[test]
    fn the_walk_ends_at_the_first_who_is_not_trusted() {
        let trusted = "127.0.0.1,10.0.0.0/8,::1,unix";
        for (peer, fields, expected) in [
            ("127.0.0.1:9", "203.0.113.5", "203.0.113.5"),
            ("[::ffff:127.0.0.1]:9", "203.0.113.5", "203.0.113.5"),
            ("unix", "203.0.113.5", "203.0.113.5"),
            ("127.0.0.1:9", "", "127.0.0.1"),
            ("unix", "", "unix"),
            // Nobody else is asked.
            ("203.0.113.9:9", "203.0.113.5", "203.0.113.9"),
            (
                "127.0.0.1:9",
                "1.1.1.1, 203.0.113.5, 10.1.1.1",
                "203.0.113.5",
            ),
            (
                "127.0.0.1:9",
                "1.1.1.1|203.0.113.5,10.1.1.1|10.2.2.2",
                "203.0.113.5",
            ),
            ("127.0.0.1:9", "10.3.3.3, 10.1.1.1", "10.3.3.3"),
            ("127.0.0.1:9", " \t203.0.113.5 ,, ,", "203.0.113.5"),
            ("127.0.0.1:9", "203.0.113.5,unix:", "203.0.113.5"),
            // Garbage.
            ("127.0.0.1:9", "203.0.113.5, unknown", "127.0.0.1"),
            ("127.0.0.1:9", "203.0.113.5, x, 10.1.1.1", "10.1.1.1"),
            ("127.0.0.1:9", "203.0.113.5, 10.1.1.1 10.1.1.2", "127.0.0.1"),
            ("127.0.0.1:9", "203.0.113.5|\u{fc}", "127.0.0.1"),
            ("127.0.0.1:9", "\"203.0.113.5\"", "127.0.0.1"),
            // Ports, brackets, and IPv4 in IPv6.
            ("127.0.0.1:9", "203.0.113.5:4711", "203.0.113.5"),
            ("127.0.0.1:9", "203.0.113.5:", "127.0.0.1"),
            ("127.0.0.1:9", "203.0.113.5:65536", "127.0.0.1"),
            ("127.0.0.1:9", "203.0.113.5:+1", "127.0.0.1"),
            ("127.0.0.1:9", "2001:db8::5", "2001:db8::5"),
            ("127.0.0.1:9", "[2001:db8::5]", "2001:db8::5"),
            ("127.0.0.1:9", "[2001:db8::5]:80", "2001:db8::5"),
            ("127.0.0.1:9", "[2001:db8::5]80", "127.0.0.1"),
            ("127.0.0.1:9", "[2001:db8::5]:x]", "127.0.0.1"),
            ("127.0.0.1:9", "[203.0.113.5]:80", "127.0.0.1"),
            ("127.0.0.1:9", "[fe80::1%2]:80", "127.0.0.1"),
            (
                "127.0.0.1:9",
                "203.0.113.5,[::ffff:10.1.1.1]:80",
                "203.0.113.5",
            ),
            ("127.0.0.1:9", "::ffff:203.0.113.5", "203.0.113.5"),
        ] {
            assert_eq!(client(trusted, peer, fields), expected, "{peer} {fields}");
        }
        assert_eq!(client("", "127.0.0.1:9", "203.0.113.5"), "127.0.0.1");
        assert_eq!(client("", "unix", "203.0.113.5"), "unix");
        assert_eq!(client("127.0.0.1", "127.0.0.1:9", "unix:"), "unix");
    }

    #[test]
    fn a_client_is_certain_who_asks_without_a_proxy_or_is_named_by_a_trusted_one() {
        let certain = |peer: &str, name: &'static str, value: &'static str| {
            let proxies = Proxies::parse("127.0.0.1,unix").unwrap();
            let peer = (peer != "unix").then(|| peer.parse().unwrap());
            let list = (name == "x-forwarded-for").then_some(value.as_bytes());
            let origin = proxies.origin(peer, list.into_iter());
            let fields = [("Host", &b"a"[..]), (name, value.as_bytes())];
            let client = proxies.certain(origin, fields.into_iter());
            client.map_or_else(|| "nobody".to_owned(), |client| client.to_string())
        };
        for (peer, name, value, expected) in [
            ("127.0.0.1:9", "Accept", "*", "127.0.0.1"),
            ("127.0.0.1:9", "x-forwarded-for", "10.0.0.1", "10.0.0.1"),
            ("127.0.0.1:9", "x-forwarded-for", "127.0.0.1", "127.0.0.1"),
            ("127.0.0.1:9", "x-forwarded-for", "unknown", "nobody"),
            ("127.0.0.1:9", "x-forwarded-for", "unix:", "nobody"),
            ("127.0.0.1:9", "x-forwarded-for", "", "nobody"),
            ("127.0.0.1:9", "Forwarded", "for=10.0.0.1", "nobody"),
            ("127.0.0.1:9", "Via", "1.1 a", "nobody"),
            ("127.0.0.2:9", "Accept", "*", "127.0.0.2"),
            ("127.0.0.2:9", "VIA", "1.1 a", "nobody"),
            ("127.0.0.2:9", "x-forwarded-for", "127.0.0.2", "nobody"),
            ("unix", "Accept", "*", "nobody"),
            ("unix", "x-forwarded-for", "10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(
                certain(peer, name, value),
                expected,
                "{peer} {name} {value}"
            );
        }
    }

    #[test]
    fn the_log_names_both() {
        let proxies = Proxies::parse("127.0.0.1,unix").unwrap();
        let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let said = |peer, field: &'static str| {
            let fields = [field.as_bytes()];
            proxies.origin(peer, fields.into_iter()).to_string()
        };
        assert_eq!(said(Some(peer), "1.2.3.4"), "1.2.3.4 by way of 127.0.0.1:9");
        assert_eq!(said(Some(peer), ""), "127.0.0.1:9");
        assert_eq!(said(None, "1.2.3.4"), "1.2.3.4 by way of unix");
        assert_eq!(said(None, ""), "unix");
    }
}
