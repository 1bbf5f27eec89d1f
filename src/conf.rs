//! The text of `etc/app.conf`: lines of `key = value`, and `#` comments on lines of their own.
//! Pure: bytes in, entries with their line numbers out. What a key means is for `settings` to say.
#![forbid(unsafe_code)]

/// One `key = value` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Left of the first `=`, without the blanks around it; never empty.
    pub key: &'a str,
    /// Right of it, without the blanks around it; may be empty.
    pub value: &'a str,
    /// Counted from 1.
    pub line: usize,
}

/// What is wrong, and on which line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line at fault.
    pub line: usize,
    /// What is wrong with it.
    pub text: String,
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Reads a whole file. A byte order mark at its start and CRLF line ends are tolerated.
///
/// # Errors
/// The first line that is not UTF-8, not `key = value`, has an empty key, a key seen before, a
/// control character, or a comment behind its value.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry<'_>>, Problem> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| Problem {
        line: 1 + bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
        text: "expected UTF-8".to_owned(),
    })?;
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for (index, row) in text.split('\n').enumerate() {
        let line = index + 1;
        let problem = |text| Problem { line, text };
        let row = row.strip_suffix('\r').unwrap_or(row).trim_matches(BLANKS);
        if row.is_empty() || row.starts_with('#') {
            continue;
        }
        if let Some(odd) = row.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(problem(format!(
                "control character U+{:04X}",
                u32::from(odd)
            )));
        }
        let Some((key, value)) = row.split_once('=') else {
            return Err(problem(format!("expected key = value, found {row:?}")));
        };
        let (key, value) = (key.trim_matches(BLANKS), value.trim_matches(BLANKS));
        if key.is_empty() {
            return Err(problem("expected a key before the \"=\"".to_owned()));
        }
        if value.starts_with('#') || value.contains(" #") || value.contains("\t#") {
            return Err(problem(format!(
                "{key} {value:?}: a comment needs a line of its own"
            )));
        }
        if let Some(first) = entries.iter().find(|entry| entry.key == key) {
            return Err(problem(format!(
                "duplicate key {key:?}; it is on line {}",
                first.line
            )));
        }
        entries.push(Entry { key, value, line });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        for (text, expected) in [
            ("", vec![]),
            ("\n \t\r\n# a = 1\n  # b\n\t#c", vec![]),
            ("a=1", vec![("a", "1", 1)]),
            (
                "\u{feff}a = 1\r\nb\t=\t2 3 \r\n",
                vec![("a", "1", 1), ("b", "2 3", 2)],
            ),
            ("\n#\na = x=y#z\nb =", vec![("a", "x=y#z", 3), ("b", "", 4)]),
            ("a = \"quoted\"", vec![("a", "\"quoted\"", 1)]),
            ("naïve key = grün", vec![("naïve key", "grün", 1)]),
        ] {
            let entries = parse(text.as_bytes()).unwrap();
            let found: Vec<_> = entries.iter().map(|e| (e.key, e.value, e.line)).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn names_the_line_at_fault() {
        for (text, expected) in [
            ("a = 1||b 2|", "3: expected key = value, found \"b 2\""),
            ("[app]", "1: expected key = value, found \"[app]\""),
            ("#| = 5", "2: expected a key before the \"=\""),
            (
                "a=1\r|b=2\r|a = 3",
                "3: duplicate key \"a\"; it is on line 1",
            ),
            ("a = 1\0", "1: control character U+0000"),
            ("a = 1\rb = 2", "1: control character U+000D"),
            (
                "a = 2 # x",
                "1: a \"2 # x\": a comment needs a line of its own",
            ),
            ("a = # x", "1: a \"# x\": a comment needs a line of its own"),
        ] {
            let text = text.replace('|', "\n");
            let Problem { line, text } = parse(text.as_bytes()).unwrap_err();
            assert_eq!(format!("{line}: {text}"), expected);
        }
        for (bytes, line) in [
            (&b"a = 1\nb = \xff\n"[..], 2),
            (b"\xff\xfea\0", 1),
            (b"\xef\xbb\xbf\n\n# \xe9\n", 3),
        ] {
            let text = "expected UTF-8".to_owned();
            assert_eq!(parse(bytes), Err(Problem { line, text }));
        }
    }
}
