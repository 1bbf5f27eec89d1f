//! What `/metrics` says, in the text format of Prometheus, version 0.0.4: the counts of all workers, from the page that
//! they share with the master. No label comes from a request, so there are as many lines today as in a year.
#![forbid(unsafe_code)]

use super::response::Response;
use crate::clock;
use crate::ledger::{CLASSES, Cause, LIMITS, Page, STATES};
use crate::memory;
use std::fmt::{Display, Write};
use std::time::Duration;

/// Milliseconds by which the calendar may wander before what it said at the start counts no more: it has been set.
const WANDERS: u64 = 2000;

/// The answer.
pub(super) fn answer(page: Page) -> Response {
    let text = text(page, start(page), resident(page));
    Response::bytes(
        "text/plain; version=0.0.4; charset=utf-8",
        text.into_bytes(),
    )
    .with_header("Cache-Control", "no-store")
}

/// When the service was started, in milliseconds of the calendar: the same number as long as nobody sets the clock.
fn start(page: Page) -> u64 {
    let since = Duration::from_millis(page.reign().started);
    let now = clock::calendar(since).as_millis() as u64;
    let said = page.calendar();
    match now.abs_diff(said) <= WANDERS {
        true => said,
        false => now,
    }
}

/// Bytes of memory that the master and its workers have, what they share counted for each; `None` where nobody tells.
pub(super) fn resident(page: Page) -> Option<u64> {
    let workers = page.workers().into_iter().map(|(pid, _)| pid);
    let all = workers.chain([page.reign().master]);
    all.filter_map(memory::resident).reduce(u64::saturating_add)
}

fn text(page: Page, start: u64, resident: Option<u64>) -> String {
    let (total, answers, workers) = (page.total(), page.answers(), page.workers());
    let mut text = Text(String::with_capacity(5000));
    text.family(
        "hade_requests_total",
        "counter",
        "Answers by the class of their status, refusals included.",
    );
    for (class, count) in CLASSES.iter().zip(answers.codes) {
        text.line(&format!("{{code=\"{class}xx\"}}"), count);
    }
    text.family(
        "hade_response_bytes_total",
        "counter",
        "Bytes of answers that were sent, heads included.",
    );
    text.line("", answers.bytes);
    text.family(
        "hade_request_seconds",
        "histogram",
        "From a whole request to the last byte of its answer.",
    );
    let mut below = 0u64;
    for (limit, count) in LIMITS.iter().zip(answers.times) {
        below = below.saturating_add(count);
        // The limits are whole milliseconds or half ones.
        let limit = *limit as f64 / 1e6;
        text.line(&format!("_bucket{{le=\"{limit}\"}}"), below);
    }
    let all = below.saturating_add(answers.times[LIMITS.len()]);
    text.line("_bucket{le=\"+Inf\"}", all);
    let (seconds, rest) = (answers.micros / 1_000_000, answers.micros % 1_000_000);
    text.line("_sum", format_args!("{seconds}.{rest:06}"));
    text.line("_count", all);
    text.family(
        "hade_requests_in_flight",
        "gauge",
        "Requests with a handler, or with an answer that is not sent whole.",
    );
    text.line("", total.in_flight);
    text.family("hade_connections", "gauge", "Open connections.");
    text.line("", total.open);
    text.family(
        "hade_connections_accepted_total",
        "counter",
        "Connections accepted.",
    );
    text.line("", total.accepted);
    text.family(
        "hade_refused_total",
        "counter",
        "Clients turned away by hade itself.",
    );
    for (cause, count) in Cause::ALL.iter().zip(total.refused) {
        let reason = cause.name().replace(' ', "_");
        text.line(&format!("{{reason=\"{reason}\"}}"), count);
    }
    text.family("hade_workers", "gauge", "Worker processes.");
    for (number, name) in STATES.iter().enumerate() {
        let count = workers.iter().filter(|(_, state)| *state == number).count();
        text.line(&format!("{{state=\"{name}\"}}"), count);
    }
    text.family(
        "hade_worker_deaths_total",
        "counter",
        "Workers that died unasked.",
    );
    text.line("", page.deaths());
    text.family(
        "hade_restarts_total",
        "counter",
        "Restarts in place that went well.",
    );
    text.line("", page.reign().generation.saturating_sub(1));
    text.family(
        "process_start_time_seconds",
        "gauge",
        "When the service was started, since 1970; a restart in place is no start.",
    );
    text.line("", format_args!("{}.{:03}", start / 1000, start % 1000));
    if let Some(bytes) = resident {
        text.family(
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the master and its workers, what they share counted for each.",
        );
        text.line("", bytes);
    }
    text.0
}

/// The text so far.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family that was named last.
    fn line(&mut self, rest: &str, value: impl Display) {
        let name = self.0.rsplit("# TYPE ").next().unwrap_or_default();
        let name = name.split(' ').next().unwrap_or_default().to_owned();
        let _ = writeln!(self.0, "{name}{rest} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Reign, Slot};

    #[test]
    fn every_number_has_its_line_and_every_family_its_type() {
        let slot = Slot::of_nobody();
        for (status, micros) in [(200, 900), (204, 1_000), (404, 2_600), (503, 11_000_000)] {
            slot.add_lent();
            slot.add_status(status);
            slot.add_answered(100, micros);
        }
        slot.add_lent();
        slot.add_accepted();
        slot.set_open(3);
        slot.add_refused(Cause::TooLarge);
        slot.tell(1, "serving");
        slot.page.slot(7).tell(2, "draining");
        slot.page.slot(8).tell(3, "serving");
        let text = text(slot.page, 1_700_000_000_007, Some(4096));
        for line in [
            "hade_requests_total{code=\"2xx\"} 2",
            "hade_requests_total{code=\"3xx\"} 0",
            "hade_requests_total{code=\"5xx\"} 1",
            "hade_response_bytes_total 400",
            "hade_request_seconds_bucket{le=\"0.001\"} 2",
            "hade_request_seconds_bucket{le=\"0.0025\"} 2",
            "hade_request_seconds_bucket{le=\"0.005\"} 3",
            "hade_request_seconds_bucket{le=\"10\"} 3",
            "hade_request_seconds_bucket{le=\"+Inf\"} 4",
            "hade_request_seconds_sum 11.004500",
            "hade_request_seconds_count 4",
            "hade_requests_in_flight 1",
            "hade_connections 3",
            "hade_connections_accepted_total 1",
            "hade_refused_total{reason=\"too_large\"} 1",
            "hade_workers{state=\"serving\"} 2",
            "hade_workers{state=\"draining\"} 1",
            "hade_workers{state=\"late\"} 0",
            "hade_worker_deaths_total 0",
            "hade_restarts_total 0",
            "process_start_time_seconds 1700000000.007",
            "process_resident_memory_bytes 4096",
        ] {
            assert_eq!(
                text.lines().filter(|found| *found == line).count(),
                1,
                "{line}: {text}"
            );
        }
        let starts = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!((starts("# HELP "), starts("# TYPE ")), (12, 12));
        assert!(text.ends_with('\n') && text.is_ascii());
    }

    #[test]
    fn the_start_stands_until_somebody_sets_the_clock() {
        let now = clock::calendar(clock::boottime()).as_millis() as u64;
        for (off, stands) in [(1000, true), (60_000, false)] {
            let ledger = crate::ledger::Ledger::new(&std::env::temp_dir()).unwrap();
            let reign = Reign {
                master: 1,
                generation: 1,
                started: clock::boottime().as_millis() as u64,
                ..Reign::default()
            };
            ledger.tell(reign, now - off);
            assert_eq!(start(*ledger) == now - off, stands);
        }
    }
}
