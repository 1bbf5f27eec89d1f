//! What the master answers to `state`: lines of a key and its values. `app/state.rs` shows them to people and programs.
#![forbid(unsafe_code)]

use super::master::Master;
use crate::clock;
use crate::ledger::Cause;
use crate::sys::process::Pid;
use std::time::Duration;

impl Master {
    /// One line per fact; the worker lines have several values.
    pub(super) fn status(&self) -> Vec<Vec<String>> {
        let holdings = &self.holdings;
        let (listener, ledger) = (&holdings.listener, &holdings.ledger);
        let total = ledger.total();
        let backlog = listener.waiting();
        let mut lines: Vec<Vec<String>> = [
            ("pid", Pid::own().to_string()),
            ("address", listener.url()),
            ("reachable", listener.reachable()),
            (
                "pid_file",
                self.settings.place.pid_file.to_string_lossy().into_owned(),
            ),
            ("daemon", self.is_daemon.to_string()),
            ("uptime", millis_since(self.started)),
            (
                "close_wait",
                self.settings.close_wait.as_millis().to_string(),
            ),
            ("generation", self.generation.to_string()),
            ("connections", total.open.to_string()),
            ("in_flight", total.in_flight.to_string()),
            ("requests", total.requests.to_string()),
            ("accepted", total.accepted.to_string()),
            (
                "backlog",
                backlog.map_or_else(String::new, |waiting| waiting.to_string()),
            ),
            ("worker_deaths", ledger.deaths().to_string()),
            ("restarting", self.restart.is_some().to_string()),
        ]
        .into_iter()
        .map(|(key, value)| vec![key.to_owned(), value])
        .collect();
        let absent = listener.is_not_there_yet();
        lines.extend(absent.map(|what| vec!["absent".to_owned(), what]));
        let is_passed = listener.address().is_none();
        lines.extend(is_passed.then(|| vec!["passed".to_owned(), is_passed.to_string()]));
        let trouble = self.plan.trouble();
        lines.extend(trouble.map(|why| vec!["trouble".to_owned(), why.to_owned()]));
        for worker in self.roster.iter() {
            let count = ledger.slot(worker.slot).count();
            let stage = self.word_for(worker);
            lines.push(vec![
                "worker".to_owned(),
                worker.pid.to_string(),
                stage.to_owned(),
                millis_since(worker.since),
                count.open.to_string(),
                count.in_flight.to_string(),
                count.requests.to_string(),
                count.overdue.to_string(),
                (count.longest.saturating_mul(1000)).to_string(),
            ]);
        }
        for (cause, count) in Cause::ALL.iter().zip(total.refused) {
            lines.push(vec![
                "refused".to_owned(),
                cause.name().to_owned(),
                count.to_string(),
            ]);
        }
        let flags = self.overrides.to_args();
        lines.push(["flags".to_owned()].into_iter().chain(flags).collect());
        if let Some(last) = &self.last_restart {
            let at = clock::calendar(last.at);
            lines.push(vec![
                "last_restart".to_owned(),
                at.as_millis().to_string(),
                last.went_well.to_string(),
                last.text.clone(),
            ]);
        }
        lines
    }
}

fn millis_since(at: Duration) -> String {
    clock::since(at).as_millis().to_string()
}
