//! What must be true of the parsers whatever they are fed: for the fuzz targets in `tests/fuzz/`, and for
//! `cargo test`, which tries the seeds of the fuzzer and some thousands of spoiled ones. httparse is the second opinion.
#![forbid(unsafe_code)]

mod bodies;
mod files;
mod heads;

pub use bodies::check_body;
pub use files::check_files;
pub use heads::check_head;

/// Longest input that is also fed byte by byte.
const SLOW: usize = 600;

/// Numbers that are the same for the same input: where to cut, which limits to set.
struct Numbers(u64);

impl Numbers {
    /// FNV-1a of the input as the start.
    fn of(input: &[u8]) -> Numbers {
        let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Numbers(hash | 1)
    }

    /// The next one, below `end`, by xorshift.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    /// Ascending places to cut an input of this length at, the last one its end; some may be equal.
    fn cuts(&mut self, length: usize, number: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (0..number).map(|_| self.below(length + 1)).collect();
        cuts.push(length);
        cuts.sort_unstable();
        cuts
    }
}

/// The ways to cut an input that each check tries against the whole: in two, in a few, and byte by byte.
fn ways_to_cut(input: &[u8]) -> Vec<Vec<usize>> {
    let (mut numbers, all) = (Numbers::of(input), input.len());
    let mut ways = [1, 1, 1, 3, 9]
        .map(|number| numbers.cuts(all, number))
        .to_vec();
    // Just before and after a line end is where parsers go wrong.
    let ends = input.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
    ways.push(ends.flat_map(|(at, _)| [at, at + 1]).chain([all]).collect());
    if all <= SLOW {
        ways.push((0..=all).collect());
    }
    ways
}

/// Whether an LF stands without its CR.
fn has_bare_lf(text: &[u8]) -> bool {
    let mut lines = text.split_inclusive(|&byte| byte == b'\n');
    lines.any(|line| line.ends_with(b"\n") && !line.ends_with(b"\r\n"))
}

/// How many bytes at the start are such ones.
fn leading(text: &[u8], such: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|&&byte| such(byte)).count()
}

/// A list of reasons, to be added to where something is found.
#[derive(Default)]
struct Faults(Vec<&'static str>);

impl Faults {
    fn add(&mut self, found: bool, reason: &'static str) {
        if found {
            self.0.push(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Spoiled inputs for each of them.
    const SPOILED: usize = 5000;

    /// The seeds of a fuzz target, in an order that stays: those picked by hand, and those that the fuzzer found, which
    /// it names by their SHA-1. They are not in the packaged crate.
    fn seeds(target: &str) -> [Vec<Vec<u8>>; 2] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = root.join("tests/fuzz/corpus").join(target);
        let Ok(entries) = fs::read_dir(&dir) else {
            let may_be_missing = std::env::var_os("CI").is_none();
            assert!(may_be_missing, "{} is missing", dir.display());
            return Default::default();
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let name = |path: &PathBuf| path.file_name().map_or(0, |name| name.len());
        let (found, picked): (Vec<_>, Vec<_>) = paths.iter().partition(|path| name(path) == 40);
        [picked, found].map(|paths| paths.iter().map(|path| fs::read(path).unwrap()).collect())
    }

    /// The check holds for the seeds, and for what is made from those picked by hand by a few cuts, spoiled bytes and
    /// words of the trade each; the same ones every time.
    fn hold_for_all(check: fn(&[u8]), target: &str, words: &[&str]) {
        const BYTES: &[u8] = b"\r\n\r\n \t:;/?#*,@[]%+-\0\x01\x1f\x7f\x80\xff019afFgHA";
        let seeds = seeds(target);
        seeds.iter().flatten().for_each(|seed| hold(check, seed));
        // Long seeds are there for the limits, and tried as they are.
        let short: Vec<&Vec<u8>> = seeds[0].iter().filter(|seed| seed.len() < 300).collect();
        if short.is_empty() {
            return;
        }
        let mut numbers = Numbers(1);
        for _ in 0..SPOILED {
            let mut input = short[numbers.below(short.len())].clone();
            for _ in 0..1 + numbers.below(4) {
                let at = numbers.below(input.len() + 1);
                let end = (at + numbers.below(20)).min(input.len());
                let byte = BYTES[numbers.below(BYTES.len())];
                match numbers.below(6) {
                    0 if at < input.len() => input[at] = byte,
                    1 => input.insert(at, byte),
                    2 => drop(input.drain(at..end)),
                    3 => drop(input.splice(at..at, input[at..end].to_vec())),
                    4 => drop(input.splice(at..at, words[numbers.below(words.len())].bytes())),
                    _ => {
                        let other = short[numbers.below(short.len())];
                        let from = numbers.below(other.len());
                        input.truncate(at);
                        input.extend(&other[from..]);
                    }
                }
            }
            hold(check, &input);
        }
    }

    /// Says for which input something does not hold.
    fn hold(check: fn(&[u8]), input: &[u8]) {
        let held = std::panic::catch_unwind(|| check(input));
        assert!(held.is_ok(), "for {}", input.escape_ascii());
    }

    #[test]
    fn hold_for_the_seeds_of_heads_and_spoiled_ones() {
        let words = [
            "Host: h\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: x\r\n",
            "Connection: close\r\n",
            "Expect: 100-continue\r\n",
            "A: b\r\n",
            "http://h",
            "chunked, ",
            "close,",
            ":65536",
            "[::1]",
            "\r\n\r\n",
            "HTTP/1.2\r\n",
            "18446744073709551615",
        ];
        hold_for_all(check_head, "head", &words);
    }

    #[test]
    fn hold_for_the_seeds_of_requests_for_files_and_spoiled_ones() {
        let words = [
            "/",
            "..",
            "%2e",
            "%2f",
            "%68",
            "%%3",
            "%c3%A9",
            "%00",
            ".well-known",
            "\nRange: bytes=",
            "\nIf-None-Match: ",
            "\nIf-Range: ",
            "\nAccept-Encoding: ",
            "\"a-1\"",
            "W/",
            "*",
            ";q=0",
            "gzip, ",
            "18446744073709551615",
            "Sun, 06 Nov 1994 08:49:37 GMT",
        ];
        hold_for_all(check_files, "files", &words);
    }

    #[test]
    fn hold_for_the_seeds_of_bodies_and_spoiled_ones() {
        let words = [
            "0\r\n",
            "0\r\n\r\n",
            "1\r\nx\r\n",
            "A: b\r\n",
            ";a=b",
            " \t;",
            ";a",
            "=\"\\\"\"",
            "00000000",
            "ffffffff",
        ];
        hold_for_all(check_body, "body", &words);
    }
}
