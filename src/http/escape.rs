//! Percent-encoding (RFC 3986 §2.1), of text that people or programs made. Pure.
#![forbid(unsafe_code)]

/// Decoded once; `plus`: `+` is a blank, as in forms. What is no escape stays, and bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(text: &str, plus: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    String::from_utf8_lossy(&bytes(text, plus).collect::<Vec<u8>>()).into_owned()
}

/// The decoded bytes of a path, one after the other.
pub(super) fn bytes(text: &str, plus: bool) -> impl Iterator<Item = u8> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        let hex = |index: usize| char::from(*bytes.get(index)?).to_digit(16);
        let (byte, length) = match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            (b'+', ..) if plus => (b' ', 1),
            (byte, ..) => (byte, 1),
        };
        at += length;
        Some(byte)
    })
}

/// Escapes every byte that may not stand as it is.
pub(super) fn encode(text: &str, may_stand: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match may_stand(byte) {
            true => out.push(char::from(byte)),
            false => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// The pairs of a form or a query, decoded; a name without `=` has an empty value.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name, true), decode(value, true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding() {
        for (from, to) in [
            ("a+b%20c", "a b c"),
            ("%e2%82%AC", "€"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode(from, true), to);
        }
        assert_eq!(decode("a+b", false), "a+b");
        assert_eq!(
            encode("a b/€", |byte| byte.is_ascii_alphanumeric()),
            "a%20b%2F%E2%82%AC"
        );
        let found: Vec<_> = pairs("a=1&b&&c=x%26y").collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(found, [pair("a", "1"), pair("b", ""), pair("c", "x&y")]);
    }
}
