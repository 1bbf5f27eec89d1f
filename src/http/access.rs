//! One answer as a line of the access log. Pure: what a client sent is escaped so that it can end no line and no field of
//! it, and cut so that the line stays within what one write to a pipe keeps together.
#![forbid(unsafe_code)]

use crate::access::Format;
use crate::clock::Utc;
use std::fmt::Write;
use std::net::IpAddr;

/// The longest line in bytes, its end included: `PIPE_BUF`, `pipe(7)`.
pub(crate) const LONGEST: usize = 4096;

/// What is known of an answer that ended.
pub(crate) struct Answered<'a> {
    pub at: Utc,
    /// `None` for somebody at a Unix socket.
    pub client: Option<IpAddr>,
    pub asked: Asked<'a>,
    pub status: u16,
    /// Bytes of the body that went out.
    pub bytes: u64,
    /// From the first byte in to the last byte out.
    pub millis: u64,
    pub referer: Option<&'a [u8]>,
    pub agent: Option<&'a [u8]>,
}

/// What was asked for, as far as it was read.
pub(crate) enum Asked<'a> {
    Request {
        method: &'a str,
        target: &'a str,
        minor: u8,
    },
    /// What has come of a request that cannot be read.
    Line(&'a [u8]),
}

/// The line, with its end.
pub(crate) fn line(format: Format, answered: &Answered<'_>) -> String {
    let target = match &answered.asked {
        Asked::Request { target, .. } => target.as_bytes(),
        Asked::Line(line) => line,
    };
    let texts = [Some(target), answered.referer, answered.agent];
    let whole = texts.map(|text| text.map(|text| escaped(text, format, LONGEST)));
    let made = render(format, answered, &whole);
    if made.len() <= LONGEST {
        return made;
    }
    // The target has what it needs as far as there is room, and the other two have half of the rest each, or what the other
    // one leaves.
    let [target, referer, agent] = whole.each_ref().map(|t| t.as_ref().map_or(0, String::len));
    let room = (LONGEST + target + referer + agent).saturating_sub(made.len());
    let rest = room.saturating_sub(target);
    let for_referer = referer.min((rest / 2).max(rest.saturating_sub(agent)));
    let rooms = [room, for_referer, rest - for_referer];
    let cut = [0, 1, 2].map(|at| texts[at].map(|text| escaped(text, format, rooms[at])));
    render(format, answered, &cut)
}

fn render(format: Format, answered: &Answered<'_>, texts: &[Option<String>; 3]) -> String {
    let Answered {
        at,
        client,
        status,
        bytes,
        millis,
        ..
    } = answered;
    let [target, referer, agent] = texts.each_ref().map(Option::as_deref);
    let target = target.unwrap_or_default();
    let seconds = *millis as f64 / 1000.0;
    let mut out = String::with_capacity(256);
    let client = client.map_or_else(|| "unix:".to_owned(), |address| address.to_string());
    // Writing to a string does not fail.
    let _ = match (format, &answered.asked) {
        (Format::Short, Asked::Request { method, .. }) => {
            write!(out, "{at} {method} {target} {status} {millis} ms")
        }
        (Format::Short, Asked::Line([])) => {
            write!(out, "{at} - - {status} {millis} ms")
        }
        (Format::Short, Asked::Line(_)) => {
            write!(out, "{at} - \"{target}\" {status} {millis} ms")
        }
        (Format::Combined, asked) => {
            let _ = write!(out, "{client} - - [{}] \"", at.common());
            let _ = match asked {
                Asked::Request { method, minor, .. } => {
                    write!(out, "{method} {target} HTTP/1.{minor}")
                }
                Asked::Line([]) => write!(out, "-"),
                Asked::Line(_) => write!(out, "{target}"),
            };
            let (referer, agent) = (referer.unwrap_or("-"), agent.unwrap_or("-"));
            write!(
                out,
                "\" {status} {bytes} \"{referer}\" \"{agent}\" {seconds:.3}"
            )
        }
        (Format::Json, asked) => {
            let _ = write!(out, "{{\"time\":\"{at}\",\"client\":\"{client}\",");
            let _ = match asked {
                Asked::Request { method, minor, .. } => {
                    // A method is a token, of which JSON takes every letter as it is.
                    write!(
                        out,
                        "\"method\":\"{method}\",\"target\":\"{target}\",\"version\":\"HTTP/1.{minor}\","
                    )
                }
                Asked::Line(_) => write!(out, "\"line\":\"{target}\","),
            };
            let _ = write!(
                out,
                "\"status\":{status},\"bytes\":{bytes},\"seconds\":{seconds:.3}"
            );
            for (name, text) in [("referer", referer), ("agent", agent)] {
                if let Some(text) = text {
                    let _ = write!(out, ",\"{name}\":\"{text}\"");
                }
            }
            write!(out, "}}")
        }
    };
    out.push('\n');
    out
}

/// As much of it as has room, and never a part of what stands for one letter.
fn escaped(text: &[u8], format: Format, most: usize) -> String {
    // No letter becomes shorter.
    let text = &text[..text.len().min(most)];
    let mut out = String::with_capacity(text.len());
    let mut unit = String::new();
    let mut push = |escape: &dyn Fn(&mut String)| {
        unit.clear();
        escape(&mut unit);
        let fits = out.len() + unit.len() <= most;
        if fits {
            out.push_str(&unit);
        }
        fits
    };
    match format {
        // What is no UTF-8 cannot be in JSON: U+FFFD stands for it.
        Format::Json => {
            let text = String::from_utf8_lossy(text);
            let _ = text.chars().all(|letter| {
                push(&|unit| match letter {
                    '"' | '\\' => unit.extend(['\\', letter]),
                    letter if letter.is_control() => {
                        let _ = write!(unit, "\\u{:04x}", u32::from(letter));
                    }
                    letter => unit.push(letter),
                })
            });
        }
        Format::Short | Format::Combined => {
            let _ = text.iter().all(|byte| {
                push(&|unit| match byte {
                    b'"' | b'\\' | ..0x20 | 127.. => {
                        let _ = write!(unit, "\\x{byte:02X}");
                    }
                    byte => unit.push(char::from(*byte)),
                })
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered<'a>(target: &'a str, agent: Option<&'a [u8]>) -> Answered<'a> {
        Answered {
            at: Utc::at(1_795_632_127, 80),
            client: Some([192, 0, 2, 7].into()),
            asked: Asked::Request {
                method: "GET",
                target,
                minor: 1,
            },
            status: 200,
            bytes: 1234,
            millis: 4,
            referer: None,
            agent,
        }
    }

    fn of_line(line: &[u8]) -> Answered<'_> {
        Answered {
            asked: Asked::Line(line),
            status: 400,
            client: None,
            ..answered("", None)
        }
    }

    #[test]
    fn the_three_formats() {
        let mut asked = answered("/a?b", Some(b"curl"));
        assert_eq!(
            line(Format::Short, &asked),
            "2026-11-25T18:42:07.080Z GET /a?b 200 4 ms\n"
        );
        assert_eq!(
            line(Format::Combined, &asked),
            "192.0.2.7 - - [25/Nov/2026:18:42:07 +0000] \"GET /a?b HTTP/1.1\" 200 1234 \"-\" \"curl\" 0.004\n"
        );
        asked.referer = Some(b"http://r/");
        assert_eq!(
            line(Format::Json, &asked),
            "{\"time\":\"2026-11-25T18:42:07.080Z\",\"client\":\"192.0.2.7\",\"method\":\"GET\",\"target\":\"/a?b\",\"version\":\"HTTP/1.1\",\"status\":200,\"bytes\":1234,\"seconds\":0.004,\"referer\":\"http://r/\",\"agent\":\"curl\"}\n"
        );
    }

    #[test]
    fn what_could_not_be_read_is_told_as_it_came() {
        let tls = of_line(b"\x16\x03\x01");
        assert_eq!(
            line(Format::Combined, &tls),
            "unix: - - [25/Nov/2026:18:42:07 +0000] \"\\x16\\x03\\x01\" 400 1234 \"-\" \"-\" 0.004\n"
        );
        assert!(line(Format::Short, &tls).contains("Z - \"\\x16\\x03\\x01\" 400 4 ms"));
        assert!(line(Format::Json, &tls).contains(r#""line":"\u0016\u0003\u0001","status":400"#));
        let nothing = of_line(b"");
        assert!(line(Format::Combined, &nothing).contains("] \"-\" 400 "));
        assert!(line(Format::Short, &nothing).contains("Z - - 400 4 ms"));
    }

    #[test]
    fn nothing_that_a_client_sends_ends_a_field_or_a_line() {
        let agent = b"a\"b\\c\nd\x1b\x7f\xc3\xbc\xff ~";
        let asked = answered("/", Some(agent));
        let hex = r#" "a\x22b\x5Cc\x0Ad\x1B\x7F\xC3\xBC\xFF ~" "#;
        assert!(line(Format::Combined, &asked).contains(hex));
        let json = "\"agent\":\"a\\\"b\\\\c\\u000ad\\u001b\\u007fü\u{fffd} ~\"";
        assert!(line(Format::Json, &asked).contains(json));
    }

    #[test]
    fn a_long_line_loses_its_agent_and_referer_first() {
        let long = vec![b'"'; 5000];
        let target = format!("/{}", "t".repeat(3500));
        for format in [Format::Combined, Format::Json] {
            for (target, referer, agent) in [
                ("/", &long[..], &long[..]),
                ("/", b"", &long),
                ("/", &long, b"me"),
                (&target, &long, &long),
            ] {
                let mut asked = answered(target, Some(agent));
                asked.referer = Some(referer);
                let text = line(format, &asked);
                // Whole letters, so that a few bytes may be left.
                let range = LONGEST - 8..=LONGEST;
                assert!(range.contains(&text.len()), "{}", text.len());
                let end = match format {
                    Format::Json => "\"}\n",
                    _ => "\" 0.004\n",
                };
                assert!(text.contains(target) && text.ends_with(end), "{text}");
                assert!(agent.len() > 2 || text.contains("me\""), "{text}");
            }
            let target = "t".repeat(9000);
            let text = line(format, &answered(&target, Some(b"curl")));
            assert_eq!(text.len(), LONGEST);
            assert!(text.contains(&"t".repeat(3800)) && !text.contains("curl"));
        }
    }
}
