//! Lists of words in one line, tabs between them: what goes over the control socket and across an exec. Any text can
//! be a word; `%`, tabs and line ends in it are written as `%XX`.
#![forbid(unsafe_code)]

/// One line without its end.
pub(crate) fn pack<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let mut line = String::new();
    for word in words {
        for c in word.as_ref().chars() {
            match c {
                '%' | '\t' | '\n' | '\r' => line += &format!("%{:02X}", c as u32),
                c => line.push(c),
            }
        }
        line.push('\t');
    }
    line.pop();
    line
}

/// The words of a line that [`pack`] made. Of anything else it makes what it can.
pub(crate) fn unpack(line: &str) -> Vec<String> {
    line.split('\t').map(unescape).collect()
}

fn unescape(word: &str) -> String {
    let mut parts = word.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                text.push(byte as char);
                text += &part[2..];
            }
            None => {
                text.push('%');
                text += part;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_words_come_back() {
        for words in [
            vec!["a", "b c", ""],
            vec!["50%\t%0A", "zwei\r\nZeilen", "ü%"],
            vec![""],
        ] {
            let line = pack(&words);
            assert!(!line.contains(['\n', '\r']));
            assert_eq!(unpack(&line), words);
        }
        assert_eq!(unpack("%zz\t%4"), ["%zz", "%4"]);
    }
}
