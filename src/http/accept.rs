//! What a client admits: `Accept-Encoding` and `Accept`, by token and weight (RFC 9110 §12.4, §12.5). Pure.
#![forbid(unsafe_code)]

/// A content coding that files may be stored in beside the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Brotli,
    Zstandard,
    Gzip,
}

impl Coding {
    /// The densest first, which is taken where the client does not care.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstandard, Coding::Gzip];

    /// Its name in HTTP.
    pub fn token(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstandard => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What its file's name ends in.
    pub fn extension(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstandard => ".zst",
            Coding::Gzip => ".gz",
        }
    }
}

/// The codings that a client would rather have than none, the best first. Without the field there is none: what is
/// said to take anything (§12.5.3) is mostly a program that decodes nothing.
pub fn codings(field: Option<&[u8]>) -> Vec<Coding> {
    let Some(field) = field else {
        return Vec::new();
    };
    // Whoever does not name it takes it rather than nothing.
    let plain = named(field, "identity").unwrap_or(0);
    let mut better: Vec<(u16, Coding)> = Coding::ALL
        .into_iter()
        .map(|coding| (weight(field, coding), coding))
        .filter(|(weight, _)| *weight > 0 && *weight >= plain)
        .collect();
    better.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    better.into_iter().map(|(_, coding)| coding).collect()
}

/// Whether a client takes this coding where there is nothing else: weights rank what is there, and none but 0 refuses
/// (§12.5.3). Without the field it does not, as above.
pub fn admits(field: Option<&[u8]>, coding: Coding) -> bool {
    field.is_some_and(|field| weight(field, coding) > 0)
}

/// The weight of a coding, by its own name or by `*`.
fn weight(field: &[u8], coding: Coding) -> u16 {
    let old = (coding == Coding::Gzip).then_some("x-gzip");
    let names = [Some(coding.token()), old, Some("*")];
    let mut weights = names.into_iter().flatten().map(|name| named(field, name));
    weights.find_map(|weight| weight).unwrap_or(0)
}

/// The weight behind a name.
fn named(field: &[u8], name: &str) -> Option<u16> {
    let mut found =
        elements(field).filter(|(token, _)| token.eq_ignore_ascii_case(name.as_bytes()));
    found.next().map(|(_, weight)| weight)
}

/// Whether a client would take a page of HTML: without the field it would (§12.5.1), otherwise the most exact range
/// that matches decides.
pub fn admits_html(field: Option<&[u8]>) -> bool {
    let Some(field) = field else {
        return true;
    };
    let ranges: [&[u8]; 3] = [b"text/html", b"text/*", b"*/*"];
    ranges
        .into_iter()
        .find_map(|range| {
            let weights = elements(field).filter(|(found, _)| found.eq_ignore_ascii_case(range));
            weights.map(|(_, weight)| weight).max()
        })
        .is_some_and(|weight| weight > 0)
}

/// The elements of a list, each without its parameters, with its weight in thousandths. One whose weight cannot be
/// read has none.
fn elements(field: &[u8]) -> impl Iterator<Item = (&[u8], u16)> {
    field.split(|&byte| byte == b',').filter_map(|element| {
        let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let token = parts.next().filter(|token| !token.is_empty())?;
        let weight = parts.find_map(|part| match part {
            [b'q' | b'Q', rest @ ..] => rest.trim_ascii_start().strip_prefix(b"="),
            _ => None,
        });
        let weight = weight.map_or(1000, |text| {
            thousandths(text.trim_ascii_start()).unwrap_or(0)
        });
        Some((token, weight))
    })
}

/// `0.125` is 125 (§12.4.2).
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, digits) = match text {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let digit = |at: usize| match digits.get(at) {
        None => Some(0),
        Some(byte) => char::from(*byte).to_digit(10),
    };
    let part = digit(0)? * 100 + digit(1)? * 10 + digit(2)?;
    let all = u32::from(whole - b'0') * 1000 + part;
    u16::try_from(all).ok().filter(|all| *all <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_by_weight_then_density() {
        for (field, expected) in [
            ("", ""),
            ("gzip", "gzip"),
            ("gzip, br", "br gzip"),
            ("gzip, deflate, br, zstd", "br zstd gzip"),
            ("GZIP;q=1.0,br;Q=0.5", "gzip br"),
            ("x-gzip", "gzip"),
            ("*", "br zstd gzip"),
            ("*;q=0.1, br;q=0", "zstd gzip"),
            ("*;q=0", ""),
            ("identity", ""),
            ("identity, gzip", "gzip"),
            ("identity;q=1, gzip;q=0.5", ""),
            ("identity;q=0, gzip;q=0.1", "gzip"),
            ("gzip;q=0", ""),
            ("gzip;q=0.000", ""),
            ("gzip;q=0.001", "gzip"),
            ("gzip;q=1.001", ""),
            ("gzip;q=2", ""),
            ("gzip;q=", ""),
            ("gzip;q=.5", ""),
            ("gzip;q=0.1234", ""),
            ("gzip ; q=0.5 , , br ;q = 0.7", "br gzip"),
            ("gzipped, brotli", ""),
            ("gzip;level=9", "gzip"),
            ("gzip;level=9;q=0", ""),
            ("deflate", ""),
        ] {
            let found: Vec<_> = codings(Some(field.as_bytes()))
                .into_iter()
                .map(Coding::token)
                .collect();
            assert_eq!(found.join(" "), expected, "{field}");
        }
        assert!(codings(None).is_empty());
    }

    #[test]
    fn any_weight_but_none_admits_what_is_alone() {
        for (field, expected) in [
            ("gzip", true),
            ("gzip;q=0.5, identity", true),
            ("*;q=0.5, identity;q=1", true),
            ("x-gzip;q=0.001, identity", true),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("br", false),
            ("*;q=0", false),
            ("", false),
        ] {
            let found = admits(Some(field.as_bytes()), Coding::Gzip);
            assert_eq!(found, expected, "{field}");
        }
        assert!(!admits(None, Coding::Gzip));
    }

    #[test]
    fn html_by_the_most_exact_range() {
        for (field, expected) in [
            ("text/html", true),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("*/*", true),
            ("TEXT/*", true),
            ("text/*;q=0, */*", false),
            ("text/html;q=0, */*", false),
            ("text/html;level=1", true),
            ("application/json", false),
            ("application/json, */*;q=0", false),
            ("text/htm", false),
            ("image/*", false),
            ("", false),
        ] {
            assert_eq!(admits_html(Some(field.as_bytes())), expected, "{field}");
        }
        assert!(admits_html(None));
    }
}
