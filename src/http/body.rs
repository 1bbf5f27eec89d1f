//! The chunked transfer coding, taken off (RFC 9112 §7.1). A body of known length needs no decoder.
//! Pure and incremental, as strict as `head.rs`: whoever reads from the socket keeps the bytes that are
//! not consumed, and the deadline.
#![forbid(unsafe_code)]

use super::head::{Refusal, TOKEN, VALUE, is};

/// Most digits of a chunk size, leading zeros included; what they say fits into 64 bits.
const SIZE_DIGITS: u32 = 16;
/// Most bytes of chunk extensions in one body, blanks and semicolons included.
const EXTENSION_BYTES: u32 = 4 * 1024;
/// Most bytes of trailers, line ends and the empty line after them included.
const TRAILER_BYTES: u32 = 8 * 1024;

/// The refusal of a body that is longer than it may be.
pub(crate) const TOO_LARGE: Refusal = Refusal::new(413, "body too large");

/// Whether a body is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More input is needed.
    More,
    /// The body has ended; what was not consumed belongs to the next request.
    Done,
}

/// What the next byte belongs to. The order matters: from `Trailer` on it is the trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Default)]
enum Stage {
    #[default]
    Size,
    /// After a blank that may only lead to an extension. From here to `SizeLf` it is extensions (RFC 9112 §7.1.1).
    Blank,
    /// Before a name, where blanks may stand.
    Extension,
    ExtensionName,
    /// After a blank behind a name.
    NameBlank,
    /// Before a value, where blanks may stand.
    Equals,
    ExtensionValue,
    Quoted,
    QuotedPair,
    QuoteEnd,
    /// After a blank behind a value.
    ValueBlank,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    Name,
    Value,
    TrailerLf,
    EndLf,
    Done,
}

/// Decodes one chunked body.
#[derive(Debug, Clone, Default)]
pub struct Chunked {
    stage: Stage,
    /// Digits of the chunk size so far.
    digits: u32,
    /// Bytes of this chunk that are still to come.
    left: u64,
    /// Bytes of all chunks so far, this one included.
    total: u64,
    extensions: u32,
    trailers: u32,
}

impl Chunked {
    /// A decoder at the first chunk size.
    pub fn new() -> Chunked {
        Chunked::default()
    }

    /// Takes what it can from `input`, appends the data to `out` and returns how many bytes it took: all of them, or
    /// those up to the end of the body. `max` is for the whole body, so `out` may be emptied between calls; it stays
    /// the same for one body. Extensions and trailers are checked and dropped.
    ///
    /// # Errors
    ///
    /// 413 as soon as a chunk size leads beyond `max`, 431 for too much trailer, 400 for anything malformed. The
    /// decoder is of no use after it, and `out` holds what came before.
    pub fn decode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<(usize, Progress), Refusal> {
        let mut at = 0;
        while self.stage != Stage::Done {
            let Some(&byte) = input.get(at) else {
                return Ok((at, Progress::More));
            };
            if self.stage == Stage::Data {
                let rest = &input[at..];
                let length = rest
                    .len()
                    .min(usize::try_from(self.left).unwrap_or(usize::MAX));
                out.extend_from_slice(&rest[..length]);
                at += length;
                self.left -= length as u64;
                if self.left == 0 {
                    self.stage = Stage::DataCr;
                }
            } else {
                self.stage = self.step(byte, max)?;
                at += 1;
            }
        }
        Ok((at, Progress::Done))
    }

    /// One byte of what is not data.
    fn step(&mut self, byte: u8, max: usize) -> Result<Stage, Refusal> {
        match self.stage {
            stage if (Stage::Blank..Stage::SizeLf).contains(&stage) => {
                self.extensions += 1;
                if self.extensions > EXTENSION_BYTES {
                    return Err(Refusal::bad("too much chunk extension"));
                }
            }
            stage if stage >= Stage::Trailer => {
                self.trailers += 1;
                if self.trailers > TRAILER_BYTES {
                    return Err(Refusal::new(431, "trailers too large"));
                }
            }
            _ => {}
        }
        match (self.stage, byte) {
            (Stage::Size, _) if byte.is_ascii_hexdigit() => self.digit(byte),
            (Stage::Size, _) if self.digits == 0 => {
                Err(Refusal::misplaced(byte, "chunk without a size"))
            }
            (Stage::Size, b'\r') => Ok(Stage::SizeLf),
            (Stage::Size | Stage::Blank, b';') => Ok(Stage::Extension),
            (Stage::Size | Stage::Blank, b' ' | b'\t') => Ok(Stage::Blank),
            (Stage::Size | Stage::Blank, _) => {
                Err(Refusal::misplaced(byte, "malformed chunk size"))
            }
            (stage, _) if stage < Stage::SizeLf => extension(stage, byte)
                .ok_or_else(|| Refusal::misplaced(byte, "malformed chunk extension")),
            (Stage::SizeLf, b'\n') => self.start_chunk(max),
            (Stage::DataCr, b'\r') => Ok(Stage::DataLf),
            (Stage::DataCr, _) => Err(Refusal::misplaced(byte, "chunk longer than its size")),
            (Stage::DataLf, b'\n') => Ok(Stage::Size),
            (Stage::Trailer, b'\r') => Ok(Stage::EndLf),
            (Stage::Trailer | Stage::Name, _) if is(byte, TOKEN) => Ok(Stage::Name),
            (Stage::Name, b':') => Ok(Stage::Value),
            (Stage::Trailer | Stage::Name, _) => Err(Refusal::misplaced(byte, "malformed trailer")),
            (Stage::Value, b'\r') => Ok(Stage::TrailerLf),
            (Stage::Value, _) if is(byte, VALUE) => Ok(Stage::Value),
            (Stage::Value, _) => Err(Refusal::misplaced(byte, "control byte in a trailer")),
            (Stage::TrailerLf, b'\n') => Ok(Stage::Trailer),
            (Stage::EndLf, b'\n') => Ok(Stage::Done),
            _ => Err(Refusal::bad("bare CR")),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<Stage, Refusal> {
        if self.digits == SIZE_DIGITS {
            return Err(Refusal::bad("chunk size out of range"));
        }
        self.digits += 1;
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.left = self.left << 4 | u64::from(digit);
        Ok(Stage::Size)
    }

    /// A size line is complete; size 0 is the last chunk, and trailers follow.
    fn start_chunk(&mut self, max: usize) -> Result<Stage, Refusal> {
        if self.left > (max as u64).saturating_sub(self.total) {
            return Err(TOO_LARGE);
        }
        self.total += self.left;
        self.digits = 0;
        match self.left {
            0 => Ok(Stage::Trailer),
            _ => Ok(Stage::Data),
        }
    }
}

/// One byte of an extension, `;name`, `;name=value` or `;name="value"`; `None` where it cannot stand.
fn extension(stage: Stage, byte: u8) -> Option<Stage> {
    let (is_token, is_blank) = (is(byte, TOKEN), matches!(byte, b' ' | b'\t'));
    Some(match (stage, byte) {
        (Stage::Extension, _) if is_blank => Stage::Extension,
        (Stage::Extension | Stage::ExtensionName, _) if is_token => Stage::ExtensionName,
        (Stage::ExtensionName | Stage::NameBlank, b'=') => Stage::Equals,
        (Stage::ExtensionName | Stage::NameBlank, _) if is_blank => Stage::NameBlank,
        (Stage::Equals, _) if is_blank => Stage::Equals,
        (Stage::Equals, b'"') => Stage::Quoted,
        (Stage::Equals | Stage::ExtensionValue, _) if is_token => Stage::ExtensionValue,
        (Stage::Quoted, b'"') => Stage::QuoteEnd,
        (Stage::Quoted, b'\\') => Stage::QuotedPair,
        (Stage::Quoted | Stage::QuotedPair, _) if is(byte, VALUE) => Stage::Quoted,
        (Stage::ExtensionValue | Stage::QuoteEnd | Stage::ValueBlank, _) if is_blank => {
            Stage::ValueBlank
        }
        (Stage::Extension | Stage::Equals | Stage::Quoted | Stage::QuotedPair, _) => return None,
        (_, b';') => Stage::Extension,
        (Stage::ExtensionName | Stage::ExtensionValue | Stage::QuoteEnd, b'\r') => Stage::SizeLf,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    /// Data, bytes consumed and progress; or the data before the refusal, and it.
    type Outcome = (Vec<u8>, Result<(usize, Progress), Refusal>);

    /// What comes of an input that arrives in pieces of these ends.
    fn fed(input: &[u8], max: usize, cuts: impl IntoIterator<Item = usize>) -> Outcome {
        let (mut decoder, mut out) = (Chunked::new(), Vec::new());
        let mut taken = 0;
        let mut progress = Progress::More;
        for cut in cuts {
            match decoder.decode(&input[taken..cut.max(taken)], &mut out, max) {
                Ok((more, now)) => (taken, progress) = (taken + more, now),
                Err(refusal) => return (out, Err(refusal)),
            }
            assert!(
                taken == cut || progress == Progress::Done,
                "all is taken until the end"
            );
        }
        (out, Ok((taken, progress)))
    }

    /// What comes of an input; the same must come of it in two pieces, wherever cut, and byte by byte.
    fn outcome(input: &[u8], max: usize) -> Outcome {
        let (all, shown) = (input.len(), input.escape_ascii());
        let expected = fed(input, max, [all]);
        for cut in 0..=all {
            assert_eq!(
                fed(input, max, [cut, all]),
                expected,
                "{shown} cut at {cut}"
            );
        }
        assert_eq!(fed(input, max, 0..=all), expected, "{shown} byte by byte");
        expected
    }

    /// Input, its data, what is left over of it.
    const GOOD: &[&str] = &[
        "0\r\n\r\n =>  => ",
        "0000\r\n\r\nGET / =>  => GET /",
        "5\r\nhello\r\n0\r\n\r\n0 => hello => 0",
        "1\r\na\r\n2\r\n\r\n\r\n000\r\n\r\n => a\r\n => ",
        "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n => 01234567890123456789 => ",
        "0000000000000001\r\nx\r\n0000000000000000\r\n\r\n => x => ",
        "1;a=b;c=\"d;e\"\r\nx\r\n0;a=\"\u{e9}\t\"\r\n\r\n => x => ",
        "1 \t;\ta\r\nx\r\n0\t; a = b ;c=\"\" \t;d\r\n\r\n => x => ",
        "1;a=\"\\\"\\\\\"\r\nx\r\n0;!#$=~\r\n\r\n => x => ",
        "0\r\nA: b\r\nB:\r\nC:\t\u{e9} ~\r\n\r\nrest =>  => rest",
        "0\r\nContent-Length: 5\r\n\r\n =>  => ",
    ];

    /// Input and refusal.
    const BAD: &[&str] = &[
        "\r\n => 400 chunk without a size",
        "\n => 400 bare LF",
        ";a\r\n => 400 chunk without a size",
        " 1\r\n => 400 chunk without a size",
        "g\r\n => 400 chunk without a size",
        "-1\r\n => 400 chunk without a size",
        "+1\r\n => 400 chunk without a size",
        "1g\r\n => 400 malformed chunk size",
        "0x1\r\n => 400 malformed chunk size",
        "1_0\r\n => 400 malformed chunk size",
        "1,\r\n => 400 malformed chunk size",
        "1 \r\n => 400 malformed chunk size",
        "1 1\r\n => 400 malformed chunk size",
        "1\0\r\n => 400 malformed chunk size",
        "1\u{661}\r\n => 400 malformed chunk size",
        "1\nx => 400 bare LF",
        "1 \nx => 400 bare LF",
        "1;a\nx => 400 bare LF",
        "1\rx => 400 bare CR",
        "1;a\rb => 400 bare CR",
        "1;\0\r\n => 400 malformed chunk extension",
        "1;\u{7f}\r\n => 400 malformed chunk extension",
        "1;\r\n => 400 malformed chunk extension",
        "1; \r\n => 400 malformed chunk extension",
        "1;;;=\r\n => 400 malformed chunk extension",
        "1;a;\r\n => 400 malformed chunk extension",
        "1;=b\r\n => 400 malformed chunk extension",
        "1;a=\r\n => 400 malformed chunk extension",
        "1;a= \r\n => 400 malformed chunk extension",
        "1;a \r\n => 400 malformed chunk extension",
        "1;a b\r\n => 400 malformed chunk extension",
        "1;a=b \r\n => 400 malformed chunk extension",
        "1;a=b c\r\n => 400 malformed chunk extension",
        "1;a=b=c\r\n => 400 malformed chunk extension",
        "1;a=\"b\r\n => 400 malformed chunk extension",
        "1;a=\"b\\\r\n => 400 malformed chunk extension",
        "1;a=\"b\"c\r\n => 400 malformed chunk extension",
        "1;a=\"b\" \r\n => 400 malformed chunk extension",
        "1;a=\"\0\"\r\n => 400 malformed chunk extension",
        "1;\u{e9}\r\n => 400 malformed chunk extension",
        "1;a=b,c\r\n => 400 malformed chunk extension",
        "00000000000000001\r\n => 400 chunk size out of range",
        "FFFFFFFFFFFFFFFFF\r\n => 400 chunk size out of range",
        "FFFFFFFFFFFFFFFF\r\n => 413 body too large",
        "1\r\nx\r\nffffffffffffffff\r\n => 413 body too large",
        "100001\r\n => 413 body too large",
        "1\r\nxy\r\n => 400 chunk longer than its size",
        "1\r\nx0\r\n => 400 chunk longer than its size",
        "1\r\nx\n0\r\n\r\n => 400 bare LF",
        "1\r\nx\r0\r\n\r\n => 400 bare CR",
        "1\r\nx\r\n\r\n => 400 chunk without a size",
        "0\r\n\n => 400 bare LF",
        "0\r\n\rx => 400 bare CR",
        "0\r\nA: b\n => 400 bare LF",
        "0\r\nA\n => 400 bare LF",
        "0\r\nA: b\rc => 400 bare CR",
        "0\r\nA: b\0\r\n => 400 control byte in a trailer",
        "0\r\nA: b\r\n c\r\n => 400 malformed trailer",
        "0\r\n: b\r\n => 400 malformed trailer",
        "0\r\nA : b\r\n => 400 malformed trailer",
        "0\r\nA\r\n => 400 malformed trailer",
        "0\r\n\u{e9}: b\r\n => 400 malformed trailer",
    ];

    fn refusal(outcome: Outcome) -> String {
        let refusal = outcome.1.expect_err("a refusal");
        format!("{} {}", refusal.status, refusal.reason)
    }

    #[test]
    fn every_rule_from_both_sides() {
        for row in GOOD {
            let mut columns = row.split(" => ");
            let [input, data, rest] = [(); 3].map(|()| columns.next().expect("three columns"));
            let end = input.len() - rest.len();
            let expected = (data.as_bytes().to_vec(), Ok((end, Progress::Done)));
            assert_eq!(outcome(input.as_bytes(), MAX), expected, "{input:?}");
            for cut in 0..end {
                let early = fed(&input.as_bytes()[..cut], MAX, [cut]).1;
                assert_eq!(early, Ok((cut, Progress::More)), "{input:?} up to {cut}");
            }
        }
        for row in BAD {
            let (input, expected) = row.split_once(" => ").expect("two columns");
            let outcome = outcome(input.as_bytes(), MAX);
            assert_eq!(refusal(outcome), expected, "{input:?}");
        }
    }

    #[test]
    fn after_the_end_nothing_is_taken() {
        let (mut decoder, mut out) = (Chunked::default(), Vec::new());
        assert_eq!(
            decoder.decode(b"0\r\n\r\n1", &mut out, 0),
            Ok((5, Progress::Done))
        );
        assert_eq!(
            decoder.decode(b"1\r\nx", &mut out, 0),
            Ok((0, Progress::Done))
        );
    }

    #[test]
    fn limits_hold_to_the_byte() {
        // The body as a whole, refused by the size line and not by the data.
        let input = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(
            outcome(input, 5),
            (b"abcde".to_vec(), Ok((input.len(), Progress::Done)))
        );
        assert_eq!(
            outcome(&input[..11], 4),
            (b"abc".to_vec(), Err(Refusal::new(413, "body too large")))
        );
        assert_eq!(
            outcome(&input[..3], 2),
            (vec![], Err(Refusal::new(413, "body too large")))
        );
        // `max` counts what was taken out of `out` as well.
        let (mut decoder, mut out) = (Chunked::new(), Vec::new());
        assert!(decoder.decode(&input[..8], &mut out, 4).is_ok());
        out.clear();
        assert!(decoder.decode(&input[8..], &mut out, 4).is_err());

        // Extensions of all chunks together.
        let half = ";".to_owned() + &"a".repeat(EXTENSION_BYTES as usize / 2 - 1);
        let extensions = |more| format!("1{half}\r\nx\r\n0{half}{more}\r\n\r\n");
        let decoded = |input: String| fed(input.as_bytes(), MAX, 0..=input.len());
        assert!(matches!(
            decoded(extensions("")),
            (_, Ok((_, Progress::Done)))
        ));
        assert_eq!(
            refusal(decoded(extensions("a"))),
            "400 too much chunk extension"
        );

        let trailer = |length: u32| format!("0\r\nA:{}\r\n\r\n", "x".repeat(length as usize - 6));
        assert!(matches!(
            decoded(trailer(TRAILER_BYTES)),
            (_, Ok((_, Progress::Done)))
        ));
        assert_eq!(
            refusal(decoded(trailer(TRAILER_BYTES + 1))),
            "431 trailers too large"
        );
    }

    /// Spoiled bodies: no panic, and no difference between one piece, two and many.
    #[test]
    fn cuts_make_no_difference_to_damaged_bodies() {
        let sample =
            b"5;a=b\r\nhello\r\n1c\r\n0123456789abcdefghijklmnopqr\r\n0\r\nA: b\r\nC: d\r\n\r\nGET";
        let spoilers = b"\r\n\r\n \t:;0019afFg\0\x7f\x80";
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for _ in 0..5000 {
            let mut input = sample.to_vec();
            for _ in 0..1 + random(3) {
                let (place, spoiler) = (random(input.len()), spoilers[random(spoilers.len())]);
                match random(3) {
                    0 => input[place] = spoiler,
                    1 => input.insert(place, spoiler),
                    _ => drop(input.remove(place)),
                }
            }
            let (all, cut, max) = (input.len(), random(input.len() + 1), random(60));
            let expected = fed(&input, max, [all]);
            assert!(expected.0.len() <= max);
            assert_eq!(
                fed(&input, max, [cut, all]),
                expected,
                "{} cut at {cut}",
                input.escape_ascii()
            );
            assert_eq!(
                fed(&input, max, 0..=all),
                expected,
                "{} byte by byte",
                input.escape_ascii()
            );
        }
    }
}
