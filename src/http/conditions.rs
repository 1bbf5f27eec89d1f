//! What a request makes its answer depend on: preconditions (RFC 9110 §13) and a range (§14). Pure.
#![forbid(unsafe_code)]

use super::date;

/// What tells one state of a file from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validators {
    /// As it is sent: quoted, with `W/` before it where it is weak.
    pub tag: String,
    /// The second that `Last-Modified` says, where it is sent.
    pub modified: Option<i64>,
}

/// What a file is to be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// 200 with all of it.
    Whole,
    /// 206 with `length` bytes from `start` on.
    Part { start: u64, length: u64 },
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    Unsatisfiable,
}

/// Decides in the order of §13.2.2. `field` gives the value of a field, several lines of it put together.
pub fn decide(
    is_get: bool,
    validators: &Validators,
    size: u64,
    field: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Decision {
    let Validators { tag, modified } = validators;
    if let Some(tags) = field("If-Match") {
        if !is_any(&tags) && !names(&tags, tag, true) {
            return Decision::Failed;
        }
    } else if let Some((limit, modified)) = both(moment(field, "If-Unmodified-Since"), *modified) {
        if modified > limit {
            return Decision::Failed;
        }
    }
    if let Some(tags) = field("If-None-Match") {
        if is_known(&tags, tag) {
            return Decision::NotModified;
        }
    } else if let Some((known, modified)) = both(moment(field, "If-Modified-Since"), *modified) {
        // Equal, and not merely no newer: files are rolled back, and clocks jump.
        if known == modified {
            return Decision::NotModified;
        }
    }
    // A range has no meaning but for GET (§14.2).
    let Some(range) = field("Range").filter(|_| is_get) else {
        return Decision::Whole;
    };
    let is_current = field("If-Range").is_none_or(|value| match value.as_slice() {
        [b'"', ..] => value == tag.as_bytes(),
        // A date is a strong validator where the tag is: nothing changed twice in its second, as far as one can know.
        _ => !is_weak(tag) && modified.is_some() && date::parse(&value) == *modified,
    });
    match is_current {
        true => cut(&range, size),
        false => Decision::Whole,
    }
}

fn both<A, B>(one: Option<A>, other: Option<B>) -> Option<(A, B)> {
    one.zip(other)
}

fn moment(field: &dyn Fn(&str) -> Option<Vec<u8>>, name: &str) -> Option<i64> {
    field(name).and_then(|value| date::parse(&value))
}

fn is_any(tags: &[u8]) -> bool {
    tags.trim_ascii() == b"*"
}

/// Whether a list of `If-None-Match` has this tag, or stands for any.
pub fn is_known(list: &[u8], tag: &str) -> bool {
    is_any(list) || names(list, tag, false)
}

fn is_weak(tag: &str) -> bool {
    tag.starts_with("W/")
}

/// Whether the list has the tag (§8.8.3.2). What stands in it behind a mistake does not count.
fn names(list: &[u8], tag: &str, strongly: bool) -> bool {
    if strongly && is_weak(tag) {
        return false;
    }
    let opaque = tag.trim_start_matches("W/").as_bytes();
    let mut rest = list;
    loop {
        let skipped = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b','));
        rest = &rest[skipped.count()..];
        let (is_weak, quoted) = match rest {
            [b'W', b'/', quoted @ ..] => (true, quoted),
            _ => (false, rest),
        };
        let Some(inside) = quoted.strip_prefix(b"\"") else {
            return false;
        };
        let Some(end) = inside.iter().position(|&byte| byte == b'"') else {
            return false;
        };
        if quoted[..end + 2] == *opaque && !(strongly && is_weak) {
            return true;
        }
        rest = &inside[end + 1..];
    }
}

/// One range of bytes is cut out; several, other units and what cannot be read count as not said.
fn cut(field: &[u8], size: u64) -> Decision {
    let unit = field.split_at_checked(6);
    let Some((_, set)) = unit.filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes=")) else {
        return Decision::Whole;
    };
    let ranges = set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let mut ranges = ranges.filter(|range| !range.is_empty());
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Decision::Whole;
    };
    let Some(dash) = range.iter().position(|&byte| byte == b'-') else {
        return Decision::Whole;
    };
    let (first, last) = (number(&range[..dash]), number(&range[dash + 1..]));
    let (first, last) = match (first, last) {
        (Some(first), Some(last)) => (first, last),
        _ => return Decision::Whole,
    };
    let (start, end) = match (first, last) {
        (None, None) => return Decision::Whole,
        (None, Some(0)) => return Decision::Unsatisfiable,
        // The end of nothing is nothing, for which 206 has no words.
        (None, Some(_)) if size == 0 => return Decision::Whole,
        (None, Some(count)) => (size.saturating_sub(count), size),
        (Some(first), Some(last)) if last < first => return Decision::Whole,
        (Some(first), _) if first >= size => return Decision::Unsatisfiable,
        (Some(first), last) => (
            first,
            last.map_or(size, |last| last.saturating_add(1).min(size)),
        ),
    };
    Decision::Part {
        start,
        length: end - start,
    }
}

/// The outer `None` is for what is no number, the inner one for nothing. A number that is too large for 64 bits is as
/// good as the largest one.
fn number(digits: &[u8]) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    let sum = digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = char::from(byte).to_digit(10)?;
        Some(sum.saturating_mul(10).saturating_add(u64::from(digit)))
    });
    sum.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRONG: &str = "\"a-1\"";
    const WEAK: &str = "W/\"a-1\"";
    /// What `Last-Modified` says.
    const AT: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn decided(
        method: &str,
        tag: &str,
        modified: Option<i64>,
        size: u64,
        fields: &str,
    ) -> Decision {
        let fields = fields
            .replace("DATE", DATE)
            .replace("BEFORE", BEFORE)
            .replace("AFTER", AFTER);
        let validators = Validators {
            tag: tag.to_owned(),
            modified,
        };
        decide(method == "GET", &validators, size, &|name| {
            let lines = fields.split('|').filter_map(|line| line.split_once(": "));
            let values: Vec<&str> = lines
                .filter(|(found, _)| *found == name)
                .map(|(_, value)| value)
                .collect();
            (!values.is_empty()).then(|| values.join(", ").into_bytes())
        })
    }

    #[test]
    fn preconditions_in_their_order() {
        use Decision::{Failed, NotModified, Whole};
        let part = Decision::Part {
            start: 0,
            length: 5,
        };
        for (tag, fields, expected) in [
            (STRONG, "", Whole),
            (STRONG, "If-None-Match: \"a-1\"", NotModified),
            (STRONG, "If-None-Match: W/\"a-1\"", NotModified),
            (WEAK, "If-None-Match: \"a-1\"", NotModified),
            (STRONG, "If-None-Match: \"b\", \"a-1\"", NotModified),
            (
                STRONG,
                "If-None-Match: \"b\"|If-None-Match: \"a-1\"",
                NotModified,
            ),
            (STRONG, "If-None-Match: \"b,\\\",W/\"a-1\"", NotModified),
            (STRONG, "If-None-Match: ,, \"a-1\" ,", NotModified),
            (STRONG, "If-None-Match: *", NotModified),
            (STRONG, "If-None-Match: \"b\"", Whole),
            (STRONG, "If-None-Match: \"A-1\"", Whole),
            (STRONG, "If-None-Match: a-1", Whole),
            (STRONG, "If-None-Match: \"a-1", Whole),
            (STRONG, "If-None-Match: w/\"a-1\"", Whole),
            (STRONG, "If-None-Match: x, \"a-1\"", Whole),
            (
                STRONG,
                "If-None-Match: \"b\"|If-Modified-Since: DATE",
                Whole,
            ),
            (STRONG, "If-Modified-Since: DATE", NotModified),
            (
                STRONG,
                "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT",
                NotModified,
            ),
            (
                STRONG,
                "If-Modified-Since: Sun Nov  6 08:49:37 1994",
                NotModified,
            ),
            (STRONG, "If-Modified-Since: AFTER", Whole),
            (STRONG, "If-Modified-Since: BEFORE", Whole),
            (STRONG, "If-Modified-Since: yesterday", Whole),
            (
                STRONG,
                "If-Modified-Since: DATE|If-Modified-Since: DATE",
                Whole,
            ),
            (STRONG, "If-Match: \"a-1\"", Whole),
            (STRONG, "If-Match: *", Whole),
            (STRONG, "If-Match: W/\"a-1\"", Failed),
            (WEAK, "If-Match: \"a-1\"", Failed),
            (WEAK, "If-Match: W/\"a-1\"", Failed),
            (STRONG, "If-Match: \"b\"", Failed),
            (STRONG, "If-Match: ", Failed),
            (STRONG, "If-Match: \"b\"|If-None-Match: \"a-1\"", Failed),
            (
                STRONG,
                "If-Match: \"a-1\"|If-None-Match: \"a-1\"",
                NotModified,
            ),
            (
                STRONG,
                "If-Match: \"a-1\"|If-Unmodified-Since: BEFORE",
                Whole,
            ),
            (STRONG, "If-Unmodified-Since: BEFORE", Failed),
            (STRONG, "If-Unmodified-Since: DATE", Whole),
            (STRONG, "If-Unmodified-Since: AFTER", Whole),
            (STRONG, "If-Unmodified-Since: never", Whole),
            (STRONG, "Range: bytes=0-4", part),
            (
                STRONG,
                "Range: bytes=0-4|If-None-Match: \"a-1\"",
                NotModified,
            ),
            (STRONG, "Range: bytes=0-4|If-Match: \"b\"", Failed),
            (STRONG, "Range: bytes=0-4|If-Range: \"a-1\"", part),
            (STRONG, "Range: bytes=0-4|If-Range: \"b\"", Whole),
            (STRONG, "Range: bytes=0-4|If-Range: W/\"a-1\"", Whole),
            (WEAK, "Range: bytes=0-4|If-Range: \"a-1\"", Whole),
            (WEAK, "Range: bytes=0-4|If-Range: W/\"a-1\"", Whole),
            (STRONG, "Range: bytes=0-4|If-Range: DATE", part),
            (WEAK, "Range: bytes=0-4|If-Range: DATE", Whole),
            (STRONG, "Range: bytes=0-4|If-Range: AFTER", Whole),
            (STRONG, "Range: bytes=0-4|If-Range: x", Whole),
            (STRONG, "Range: bytes=900-|If-Range: \"b\"", Whole),
            (STRONG, "If-Range: \"b\"", Whole),
        ] {
            let found = decided("GET", tag, Some(AT), 100, fields);
            assert_eq!(found, expected, "{tag} {fields}");
        }
        // Nothing that a date could be compared with.
        for fields in [
            "If-Modified-Since: DATE",
            "If-Unmodified-Since: BEFORE",
            "Range: bytes=0-4|If-Range: DATE",
        ] {
            assert_eq!(decided("GET", STRONG, None, 100, fields), Whole, "{fields}");
        }
        assert_eq!(
            decided("HEAD", STRONG, Some(AT), 100, "Range: bytes=0-4"),
            Whole
        );
        let fields = "If-None-Match: \"a-1\"";
        assert_eq!(decided("HEAD", STRONG, Some(AT), 100, fields), NotModified);
    }

    #[test]
    fn ranges() {
        use Decision::{Unsatisfiable, Whole};
        let part = |start, end: u64| Decision::Part {
            start,
            length: end - start,
        };
        for (size, range, expected) in [
            (100, "bytes=0-0", part(0, 1)),
            (100, "bytes=0-99", part(0, 100)),
            (100, "bytes=0-100", part(0, 100)),
            (100, "bytes=0-", part(0, 100)),
            (100, "bytes=99-", part(99, 100)),
            (100, "bytes=100-", Unsatisfiable),
            (100, "bytes=100-200", Unsatisfiable),
            (100, "bytes=-1", part(99, 100)),
            (100, "bytes=-100", part(0, 100)),
            (100, "bytes=-101", part(0, 100)),
            (100, "bytes=-0", Unsatisfiable),
            (100, "Bytes=1-2", part(1, 3)),
            (100, "bytes= 1-2 ", part(1, 3)),
            (100, "bytes=,1-2,", part(1, 3)),
            (100, "bytes=007-08", part(7, 9)),
            (100, "bytes=1-18446744073709551615", part(1, 100)),
            (100, "bytes=1-99999999999999999999999", part(1, 100)),
            (100, "bytes=99999999999999999999999-", Unsatisfiable),
            (100, "bytes=-99999999999999999999999", part(0, 100)),
            (100, "bytes=5-2", Whole),
            (100, "bytes=-", Whole),
            (100, "bytes=", Whole),
            (100, "bytes", Whole),
            (100, "", Whole),
            (100, "bytes=a-b", Whole),
            (100, "bytes=1", Whole),
            (100, "bytes=1-2-3", Whole),
            (100, "bytes=+1-2", Whole),
            (100, "bytes=1 - 2", Whole),
            (100, "bytes=0x1-2", Whole),
            (100, "bytes=0-1,3-4", Whole),
            (100, "bytes=0-1, 900-", Whole),
            (100, "lines=0-1", Whole),
            (100, "bytes 0-1", Whole),
            (0, "bytes=0-", Unsatisfiable),
            (0, "bytes=0-0", Unsatisfiable),
            (0, "bytes=-5", Whole),
            (0, "bytes=-0", Unsatisfiable),
            (5 << 30, "bytes=5368709119-", part((5 << 30) - 1, 5 << 30)),
            (u64::MAX, "bytes=0-18446744073709551615", part(0, u64::MAX)),
        ] {
            let found = decided("GET", STRONG, None, size, &format!("Range: {range}"));
            assert_eq!(found, expected, "{range} of {size}");
        }
    }
}
