//! What `/status` shows to people: one page without script, from the page of counters that master and workers share. It
//! is for the phone as well, and for the dark.
#![forbid(unsafe_code)]

use super::metrics::resident;
use super::response::Response;
use crate::clock;
use crate::ledger::{CLASSES, Cause, LIMITS, Page, STATES};
use std::fmt::Write;
use std::time::Duration;

const STYLE: &str = ":root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:44rem;margin:1.5rem auto;padding:0 1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.5rem 0 .3rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2rem .6rem .2rem 0;font-weight:400;\
border-bottom:1px solid #8884}td{text-align:right;padding-right:0;font-variant-numeric:tabular-nums}\
svg{width:100%;height:auto}rect{fill:#37c}text{font-size:12px;fill:currentColor}\
@media(prefers-color-scheme:dark){rect{fill:#7af}}";

/// The page; nothing in it comes from a request, and it may load nothing.
pub(super) fn answer(page: Page) -> Response {
    Response::html(html(page, resident(page)))
        .with_header("Cache-Control", "no-store")
        .with_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        )
}

fn html(page: Page, resident: Option<u64>) -> String {
    let (total, answers, reign) = (page.total(), page.answers(), page.reign());
    let workers = page.workers();
    let ago = |millis: u64| duration(clock::since(Duration::from_millis(millis)));
    let mut facts = vec![
        ("up for", ago(reign.started)),
        ("generation", reign.generation.to_string()),
    ];
    facts.push((
        "last restart",
        match (reign.restarted, reign.went_well) {
            (0, _) => "none".to_owned(),
            (at, true) => format!("went well, {} ago", ago(at)),
            (at, false) => format!("given up, {} ago", ago(at)),
        },
    ));
    for (number, state) in STATES.iter().enumerate() {
        let count = workers.iter().filter(|(_, found)| *found == number).count();
        // The usual state is shown in any case.
        if count > 0 || *state == "serving" {
            facts.push(("workers", format!("{count} {state}")));
        }
    }
    facts.extend([
        ("workers that died", page.deaths().to_string()),
        ("connections", total.open.to_string()),
        ("connections accepted", total.accepted.to_string()),
        ("requests in flight", total.in_flight.to_string()),
        ("requests", total.requests.to_string()),
        ("slow handlers", total.overdue.to_string()),
        ("sent", size(answers.bytes)),
    ]);
    facts.extend(resident.map(|bytes| ("memory", size(bytes))));
    let classes = CLASSES.iter().zip(answers.codes);
    let classes = classes.map(|(class, count)| (format!("{class}xx"), count.to_string()));
    let refused = Cause::ALL.iter().zip(total.refused);
    let refused = refused.map(|(cause, count)| (cause.name().to_owned(), count.to_string()));
    let facts = facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><title>Status</title><style>{STYLE}</style>\n\
         <h1>Status</h1>{}<h2>How long requests took</h2>{}<h2>Answers</h2>{}<h2>Refused</h2>{}</html>\n",
        table(facts),
        histogram(&answers.times),
        table(classes),
        table(refused),
    )
}

fn table(rows: impl Iterator<Item = (String, String)>) -> String {
    let mut text = "<table>\n".to_owned();
    for (name, value) in rows {
        let _ = writeln!(text, "<tr><th>{name}<td>{value}");
    }
    text + "</table>\n"
}

/// A row for each part, and the longest bar as long as there is room: on a phone there is less of it across.
fn histogram(times: &[u64]) -> String {
    const ROW: usize = 20;
    const ROOM: u64 = 190;
    let most = times.iter().copied().max().unwrap_or(0).max(1);
    let mut text = format!(
        "<svg viewBox=\"0 0 320 {}\" role=img aria-label=\"Requests by the time they took\">\n",
        ROW * times.len()
    );
    for (part, count) in times.iter().enumerate() {
        // What is not nothing is seen.
        let width = (count.saturating_mul(ROOM) / most).max(u64::from(*count > 0));
        let label = match LIMITS.get(part) {
            Some(limit) if *limit < 1_000_000 => format!("≤ {} ms", *limit as f64 / 1e3),
            Some(limit) => format!("≤ {} s", *limit as f64 / 1e6),
            None => "more".to_owned(),
        };
        let (top, line, end) = (part * ROW + 3, part * ROW + 15, 75 + width);
        let count = short(*count);
        let _ = writeln!(
            text,
            "<text x=0 y={line}>{label}</text><rect x=70 y={top} width={width} height=15 />\
             <text x={end} y={line}>{count}</text>"
        );
    }
    text + "</svg>\n"
}

/// A number that fits behind a bar.
fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{}k", count / 1000),
        10_000_000..10_000_000_000 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    match power {
        0 => format!("{bytes} B"),
        power => format!(
            "{:.1} {}",
            bytes as f64 / f64::from(1u32 << 10).powi(power as i32),
            units[power as usize]
        ),
    }
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Slot;

    #[test]
    fn the_page_has_every_number_and_stays_small() {
        let slot = Slot::of_nobody();
        let empty = html(slot.page, None);
        assert!(empty.contains("<tr><th>last restart<td>none\n"), "{empty}");
        assert!(!empty.contains("memory"));
        slot.add_status(404);
        slot.add_refused(Cause::TooSlow);
        slot.tell(1, "late");
        for _ in 0..200 {
            slot.add_answered(1 << 55, 900);
        }
        slot.add_answered(0, 900_000_000);
        let text = html(slot.page, Some(5 << 20));
        for part in [
            "<tr><th>workers<td>0 serving\n<tr><th>workers<td>1 late\n",
            "<tr><th>requests<td>201\n",
            "<tr><th>memory<td>5.0 MiB\n",
            "<tr><th>4xx<td>1\n",
            "<tr><th>too slow<td>1\n",
            "<text x=0 y=15>≤ 1 ms</text><rect x=70 y=3 width=190 height=15 /><text x=265 y=15>200</text>",
            "<text x=0 y=275>more</text><rect x=70 y=263 width=1 height=15 /><text x=76 y=275>1</text>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.len() < 8_000, "{}", text.len());
        assert!(!text.contains("script") && !text.contains("http"));
    }

    #[test]
    fn times_and_sizes_for_people() {
        let said = [59, 61, 3_700, 90_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(said, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
        let said = [0, 1023, 1 << 20, u64::MAX].map(size);
        assert_eq!(said, ["0 B", "1023 B", "1.0 MiB", "16777216.0 TiB"]);
        let said = [9_999, 10_000, 12_000_000, u64::MAX].map(short);
        assert_eq!(said, ["9999", "10k", "12M", "18446744073G"]);
    }
}
