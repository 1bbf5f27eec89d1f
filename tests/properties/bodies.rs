//! Chunked bodies: any cut, any limit, written again, and what httparse makes of them.
#![forbid(unsafe_code)]

use super::super::body::{Chunked, Progress};
use super::super::head::{Length, Parser, Refusal};
use super::heads::{ROOMY, is_token};
use super::{Faults, Numbers, has_bare_lf, leading, ways_to_cut};

/// The data, and how far it got, or why not.
type Decoded = (Vec<u8>, Result<(usize, Progress), Refusal>);

/// What comes of a chunked body that arrives in pieces of these ends; with `emptied` the data is taken away after
/// each.
fn decode(input: &[u8], max: usize, cuts: &[usize], emptied: bool) -> Decoded {
    let (mut decoder, mut out, mut all) = (Chunked::new(), Vec::new(), Vec::new());
    let (mut taken, mut progress) = (0, Progress::More);
    for &cut in cuts {
        let piece = &input[taken..cut.max(taken)];
        let before = out.len();
        let decoded = decoder.decode(piece, &mut out, max);
        assert!(out.len() - before <= piece.len(), "data from nowhere");
        if emptied {
            all.append(&mut out);
        }
        assert!(all.len() + out.len() <= max, "more than {max}");
        match decoded {
            Err(refusal) => {
                all.append(&mut out);
                return (all, Err(refusal));
            }
            Ok((more, now)) => {
                // So no byte comes twice, and the work is linear.
                assert!(more == piece.len() || now == Progress::Done && more < piece.len());
                (taken, progress) = (taken + more, now);
            }
        }
    }
    all.append(&mut out);
    (all, Ok((taken, progress)))
}

/// Everything that must be true of the chunked body at the start of this input.
///
/// # Panics
/// When something is not.
pub fn check_body(input: &[u8]) {
    let small = Numbers::of(input).below(input.len() + 2);
    for max in [usize::MAX, small] {
        let whole = decode(input, max, &[input.len()], false);
        for cuts in ways_to_cut(input) {
            assert_eq!(
                decode(input, max, &cuts, false),
                whole,
                "{max} cut at {cuts:?}"
            );
            assert_eq!(
                decode(input, max, &cuts, true),
                whole,
                "{max} emptied at {cuts:?}"
            );
        }
        let decided = match &whole.1 {
            Ok((size, _)) => *size,
            Err(_) => refused_after(input, max),
        };
        second_opinion_on_a_body(&input[..decided], max, &whole);
        if let (data, Ok((size, Progress::Done))) = &whole {
            assert!(input[..*size].ends_with(b"\r\n"));
            assert!(data.len() + 5 <= *size);
            body_written_again(data, Numbers::of(input));
        }
    }
}

/// Written as one chunk, as several, and with `Content-Length`, it has the same bytes, and ends where it ends.
fn body_written_again(data: &[u8], mut numbers: Numbers) {
    for number in [0, 5] {
        let mut text = Vec::new();
        let mut from = 0;
        for cut in numbers.cuts(data.len(), number) {
            if cut > from {
                text.extend(format!("{:x}\r\n", cut - from).bytes());
                text.extend([&data[from..cut], b"\r\n"].concat());
                from = cut;
            }
        }
        text.extend(b"0\r\n\r\n");
        let size = text.len();
        text.extend(b"GET");
        let again = decode(&text, data.len(), &[text.len()], false);
        assert_eq!(
            again,
            (data.to_vec(), Ok((size, Progress::Done))),
            "written again"
        );
        if !data.is_empty() {
            let short = decode(&text, data.len() - 1, &[text.len()], false);
            assert_eq!(short.1.map_err(|refusal| refusal.status), Err(413));
        }
    }
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        data.len()
    );
    let text = [head.as_bytes(), data].concat();
    let Ok(Some(read)) = Parser::new().advance(&text, &ROOMY) else {
        panic!("not a head: {head}");
    };
    assert_eq!(read.length, Length::Known(data.len() as u64));
    assert_eq!(&text[read.size..], data);
}

/// How many bytes it takes to refuse.
fn refused_after(input: &[u8], max: usize) -> usize {
    let (mut decoder, mut out) = (Chunked::new(), Vec::new());
    let refuses = |&at: &usize| decoder.decode(&input[at..at + 1], &mut out, max).is_err();
    (0..input.len()).find(refuses).expect("a refusal") + 1
}

/// A body by httparse's chunk sizes and fields.
struct Other {
    data: Vec<u8>,
    /// How far it got; `None` when it is refused.
    size: Option<(usize, Progress)>,
    /// The reasons to refuse it that httparse does not have, as hade words them. They are all the ways in which
    /// httparse may accept more.
    faults: Faults,
}

fn decode_with_httparse(input: &[u8], max: usize) -> Other {
    use httparse::Status::{Complete, Partial};
    let more = Some((input.len(), Progress::More));
    let mut other = Other {
        data: Vec::new(),
        size: None,
        faults: Faults::default(),
    };
    let (mut at, mut left, mut extensions) = (0, max as u64, 0);
    loop {
        let rest = &input[at..];
        extensions += faults_of_size_line(rest, &mut other.faults);
        // It leaves limits to its caller.
        other
            .faults
            .add(extensions > 4096, "too much chunk extension");
        let size = match httparse::parse_chunk_size(rest) {
            Err(_) => return other,
            Ok(Partial) => {
                return Other {
                    size: more,
                    ..other
                };
            }
            Ok(Complete((line, size))) => {
                at += line;
                size
            }
        };
        if size == 0 {
            break;
        }
        if size > left {
            return other;
        }
        left -= size;
        let rest = &input[at..];
        let length = rest.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        other.data.extend(&rest[..length]);
        let end = &rest[length..];
        if !b"\r\n".starts_with(&end[..end.len().min(2)]) {
            return other;
        }
        if end.len() < 2 {
            return Other {
                size: more,
                ..other
            };
        }
        at += length + 2;
    }
    let rest = &input[at..];
    // The shortest field that httparse knows is `a:\n`.
    let mut slots = vec![httparse::EMPTY_HEADER; rest.len() / 3 + 1];
    let (length, size) = match httparse::parse_headers(rest, &mut slots) {
        Err(_) => return other,
        Ok(Partial) => (rest.len(), more),
        Ok(Complete((length, _))) => (length, Some((at + length, Progress::Done))),
    };
    // It takes LF for a line end.
    other.faults.add(has_bare_lf(&rest[..length]), "bare LF");
    other.faults.add(length > 8192, "trailers too large");
    Other { size, ..other }
}

/// What httparse does not mind in the size line at the start of `rest`, which may be cut off; and the bytes of its
/// extension.
fn faults_of_size_line(rest: &[u8], faults: &mut Faults) -> usize {
    let end = rest.iter().position(|&byte| byte == b'\n');
    let line = &rest[..end.unwrap_or(rest.len())];
    let ended = line.ends_with(b"\r");
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let digits = leading(line, |byte| byte.is_ascii_hexdigit());
    let after = &line[digits..];
    let blanks = leading(after, |byte| matches!(byte, b' ' | b'\t'));
    // It skips extensions unread, an LF in them included.
    faults.add(end.is_some() && !ended, "bare LF");
    let text = after.trim_ascii_start();
    faults.add(
        text.first().is_some_and(|&byte| byte == b';') && !are_extensions(text, ended),
        "malformed chunk extension",
    );
    // It takes no digits for 0.
    faults.add(
        digits == 0 && (ended || !after.is_empty()),
        "chunk without a size",
    );
    // It takes blanks without an extension.
    faults.add(
        blanks > 0 && blanks == after.len() && ended,
        "malformed chunk size",
    );
    // The byte that begins the extension is not counted, the one that ends it is: the CR, or an LF without it.
    match after.len() {
        0 => 0,
        length => length - 1 + usize::from(ended || end.is_some()),
    }
}

/// Whether this is a list of extensions by RFC 9112 §7.1.1 or, where the line has not ended, may become one.
fn are_extensions(text: &[u8], ended: bool) -> bool {
    let token = |text: &[u8]| leading(text, is_token);
    let after_blanks = |text: &[u8]| leading(text, |byte| matches!(byte, b' ' | b'\t'));
    let mut rest = text;
    while let Some(name) = rest.strip_prefix(b";") {
        let name = &name[after_blanks(name)..];
        if name.is_empty() {
            return !ended;
        }
        rest = &name[token(name)..];
        if rest.len() == name.len() {
            return false;
        }
        let value = &rest[after_blanks(rest)..];
        if let Some(value) = value.strip_prefix(b"=") {
            let value = &value[after_blanks(value)..];
            let length = match value.first() {
                None => return !ended,
                Some(b'"') => match quoted(value) {
                    Ok(length) => length,
                    Err(is_begun) => return is_begun && !ended,
                },
                Some(_) => token(value),
            };
            if length == 0 {
                return false;
            }
            rest = &value[length..];
        }
        let next = &rest[after_blanks(rest)..];
        match next.first() {
            Some(b';') => rest = next,
            Some(_) => return false,
            None => return rest.is_empty() || !ended,
        }
    }
    rest.is_empty()
}

/// The length of a quoted string; or whether this may be the begin of one.
fn quoted(text: &[u8]) -> Result<usize, bool> {
    let mut pair = false;
    for (at, &byte) in text.iter().enumerate().skip(1) {
        if byte.is_ascii_control() && byte != b'\t' {
            return Err(false);
        }
        if byte == b'"' && !pair {
            return Ok(at + 1);
        }
        pair = byte == b'\\' && !pair;
    }
    Err(true)
}

/// Whatever is accepted, httparse accepts with the same data and the same end, chunk for chunk, and there is no other
/// fault in it. Whatever is refused, httparse refuses at the same byte, or it is one of the faults that it does not
/// mind.
fn second_opinion_on_a_body(input: &[u8], max: usize, whole: &Decoded) {
    let other = decode_with_httparse(input, max);
    match whole {
        (data, Ok(size)) => {
            assert_eq!(other.size.as_ref(), Some(size), "httparse");
            assert_eq!(other.faults.0, [""; 0]);
            assert_eq!(&other.data, data, "httparse");
        }
        (data, Err(refusal)) => {
            let faults = &other.faults.0;
            let same = other.size.is_none() || faults.contains(&refusal.reason);
            assert!(
                same,
                "{refusal:?}, httparse: {:?}, faults: {faults:?}",
                other.size
            );
            // Not a byte later than need be.
            let before = input.len() - 1;
            let so_far = (data.clone(), Ok((before, Progress::More)));
            second_opinion_on_a_body(&input[..before], max, &so_far);
        }
    }
}
