//! Lists of words in one line, tabs between them: what goes over the control socket and across an exec. Any bytes can
//! be a word; `%`, control bytes and bytes above 126 in it are written as `%XX`.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

/// One line without its end.
pub(crate) fn pack<T: AsRef<OsStr>>(words: impl IntoIterator<Item = T>) -> String {
    let mut line = String::new();
    for word in words {
        for byte in word.as_ref().as_encoded_bytes() {
            match byte {
                b'%' | 0..=31 | 127.. => line += &format!("%{byte:02X}"),
                byte => line.push(char::from(*byte)),
            }
        }
        line.push('\t');
    }
    line.pop();
    line
}

/// The words of a line that [`pack`] made. Of anything else it makes what it can.
pub(crate) fn unpack(line: &str) -> Vec<OsString> {
    line.split('\t').map(unescape).collect()
}

/// The same for words that are text.
pub(crate) fn unpack_text(line: &str) -> Vec<String> {
    let text = |word: &str| match word.contains('%') {
        true => unescape(word).to_string_lossy().into_owned(),
        false => word.to_owned(),
    };
    line.split('\t').map(text).collect()
}

fn unescape(word: &str) -> OsString {
    let mut parts = word.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    OsString::from_vec(bytes)
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
            assert!(
                line.bytes()
                    .all(|byte| byte == b'\t' || (32..127).contains(&byte))
            );
            assert_eq!(unpack_text(&line), words);
        }
        let bytes = OsString::from_vec((0..=255).collect());
        assert_eq!(unpack(&pack([&bytes])), [bytes]);
        assert_eq!(unpack_text("%zz\t%4"), ["%zz", "%4"]);
    }
}
