//! What the master answers to `state`: lines of a key and its values. `app/state.rs` shows them to people and programs.
#![forbid(unsafe_code)]

use super::master::Master;
use crate::ledger::Cause;
use crate::listener::Listener;
use crate::sys::process::Pid;
use std::time::{SystemTime, UNIX_EPOCH};

impl Master {
    /// One line per fact; the worker lines have several values.
    pub(super) fn status(&self) -> Vec<Vec<String>> {
        let total = self
            .ledger
            .as_ref()
            .map(|ledger| ledger.total())
            .unwrap_or_default();
        let waiting = self.listener.as_ref().and_then(Listener::waiting);
        let mut lines = vec![
            ("pid", Pid::own().to_string()),
            (
                "address",
                self.listener
                    .as_ref()
                    .map(Listener::url)
                    .unwrap_or_default(),
            ),
            (
                "reachable",
                self.listener
                    .as_ref()
                    .map(Listener::reachable)
                    .unwrap_or_default(),
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
                waiting.map_or_else(String::new, |waiting| waiting.to_string()),
            ),
            (
                "worker_deaths",
                self.ledger
                    .as_ref()
                    .map_or(0, |ledger| ledger.deaths())
                    .to_string(),
            ),
            ("restarting", self.restart.is_some().to_string()),
        ]
        .into_iter()
        .map(|(key, value)| vec![key.to_owned(), value])
        .collect::<Vec<_>>();
        for worker in &self.workers {
            let count = self
                .ledger
                .as_ref()
                .map(|ledger| ledger.slot(worker.slot).count())
                .unwrap_or_default();
            lines.push(vec![
                "worker".to_owned(),
                worker.pid.to_string(),
                self.plan.stage(worker.pid).to_owned(),
                millis_since(worker.since),
                count.open.to_string(),
                count.in_flight.to_string(),
                count.requests.to_string(),
                count.overdue.to_string(),
                (count.longest * 1000).to_string(),
            ]);
        }
        let refused = Cause::ALL.iter().zip(total.refused);
        for (cause, count) in refused {
            lines.push(vec![
                "refused".to_owned(),
                cause.name().to_owned(),
                count.to_string(),
            ]);
        }
        lines.push(
            ["flags".to_owned()]
                .into_iter()
                .chain(self.overrides.to_args())
                .collect(),
        );
        if let Some(last) = &self.last_restart {
            let at = last
                .at
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis();
            lines.push(vec![
                "last_restart".to_owned(),
                at.to_string(),
                last.went_well.to_string(),
                last.text.clone(),
            ]);
        }
        lines
    }
}

fn millis_since(time: SystemTime) -> String {
    SystemTime::now()
        .duration_since(time)
        .unwrap_or_default()
        .as_millis()
        .to_string()
}
