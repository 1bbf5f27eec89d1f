//! The limits and deadlines that the settings come to, and what follows from them by arithmetic.
#![forbid(unsafe_code)]

use super::head::Limits;
use super::upload::LEAST_RATE;
use crate::log;
use crate::proxies::Proxies;
use crate::settings::Settings;
use crate::sys::fd::{hard_file_limit, raise_file_limit};
use std::time::Duration;

/// Milliseconds that a client has to read the last answer and close (RFC 9112 §9.6).
pub(super) const LINGER: u64 = 2000;
/// The most that it can make of them by what it still sends, which buys a second for every so many bytes.
pub(super) const LINGER_MOST: u64 = 30_000;
pub(super) const LINGER_RATE: u64 = 16 * 1024;
/// Descriptors kept for everything that is not a client.
const RESERVE: usize = 64;
/// Clients may hold a quarter of the memory by what they have sent or not yet read, and never less than this.
const LEAST_MEMORY: usize = 4 << 20;

/// The settings the gate works by; times in milliseconds.
pub(crate) struct Bounds {
    pub limits: Limits,
    pub max_body: u64,
    pub max_connections: usize,
    pub max_per_address: usize,
    /// Those who ask for others.
    pub proxies: Proxies,
    /// Whether `/metrics` and `/status` are answered, and to whom beside this machine.
    pub metrics: bool,
    pub status: bool,
    pub allowed: Proxies,
    /// Requests that handlers may have or that may wait for one.
    pub room: u64,
    pub head: u64,
    pub idle: u64,
    pub progress: u64,
    /// `u64::MAX` for never.
    pub handler_warn: u64,
    pub memory: usize,
}

impl Bounds {
    /// Raises the descriptor limit as far as it goes and needs to, and takes connections within it.
    pub fn new(settings: &Settings) -> Bounds {
        raise_file_limit(descriptors(settings.max_connections));
        Bounds::within(settings, hard_file_limit(), crate::memory::there_is())
    }

    /// The same where so many files may be open and there are so many bytes of memory.
    fn within(settings: &Settings, open_files: u64, memory: usize) -> Bounds {
        let millis = |time: Duration| time.as_millis() as u64;
        Bounds {
            // A target may fill most of the head, but not all of it.
            limits: Limits {
                line: settings.max_header / 4 * 3,
                head: settings.max_header,
            },
            max_body: settings.max_body as u64,
            max_connections: settings
                .max_connections
                .min(connections_allowed(open_files)),
            max_per_address: match settings.max_per_address {
                0 => usize::MAX,
                most => most,
            },
            proxies: settings.trusted_proxies.clone(),
            metrics: settings.metrics,
            status: settings.status,
            allowed: settings.status_allow.clone(),
            room: (settings.threads + settings.queue) as u64,
            head: millis(settings.header_timeout),
            idle: millis(settings.idle_timeout),
            progress: millis(settings.io_timeout),
            handler_warn: match settings.handler_warn {
                Duration::ZERO => u64::MAX,
                time => millis(time),
            },
            memory: (memory / 4 / settings.workers).max(LEAST_MEMORY),
        }
    }

    /// When a transfer that began then, and has come so far, is over for want of progress: after `app.io_timeout`
    /// without any, and sooner if it is slower on the whole than the least rate.
    pub fn transfer(&self, now: u64, begun: u64, bytes: u64) -> u64 {
        let bought = bytes.saturating_mul(1000) / LEAST_RATE;
        (now + self.progress).min((begun + self.progress).saturating_add(bought))
    }
}

/// Descriptors for so many connections: a download of a file that is read slowly holds two.
fn descriptors(connections: usize) -> u64 {
    (2 * connections + RESERVE) as u64
}

/// Connections that this limit of open files allows, and a few where it allows none.
fn connections_allowed(open_files: u64) -> usize {
    let limit = usize::try_from(open_files).unwrap_or(usize::MAX);
    (limit.saturating_sub(RESERVE) / 2).max(16)
}

/// Says where somebody has asked for more connections than there will be.
pub(crate) fn warn_of_file_limit(settings: &Settings) {
    let limit = hard_file_limit();
    let (asked, allowed) = (settings.max_connections, connections_allowed(limit));
    if settings.max_connections_is_set && allowed < asked {
        log::warn(format_args!(
            "at most {allowed} connections per worker instead of {asked}: the limit of open files is {limit}, and a connection may hold two"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Overrides;

    fn bounds(set: &[(&str, &str)], open_files: u64, memory: usize) -> Bounds {
        let mut overrides = Overrides::default();
        for (key, value) in set {
            let pair = ((*key).to_owned(), (*value).to_owned());
            overrides.set.push(pair);
        }
        let settings = Settings::without_file(&overrides, &|_| None).unwrap();
        Bounds::within(&settings, open_files, memory)
    }

    #[test]
    fn settings_become_numbers_to_compare_with() {
        let set = [
            ("threads", "3"),
            ("queue", "5"),
            ("max_header", "8192"),
            ("io_timeout", "10"),
        ];
        let bounds = bounds(&set, 1 << 20, 1 << 30);
        assert_eq!((bounds.room, bounds.progress), (8, 10_000));
        assert_eq!((bounds.limits.line, bounds.limits.head), (6144, 8192));
    }

    #[test]
    fn none_is_without_end() {
        let none = bounds(&[("max_per_address", "0"), ("handler_warn", "0")], 0, 0);
        assert_eq!(
            (none.max_per_address, none.handler_warn),
            (usize::MAX, u64::MAX)
        );
        let some = bounds(&[("max_per_address", "7"), ("handler_warn", "2")], 0, 0);
        assert_eq!((some.max_per_address, some.handler_warn), (7, 2000));
    }

    #[test]
    fn a_connection_may_hold_two_files_and_some_are_kept_back() {
        for (open_files, most) in [
            (0, 16),
            (64, 16),
            (1024, 480),
            (1064, 500),
            (1066, 500),
            (u64::MAX, 500),
        ] {
            let set = [("max_connections", "500")];
            assert_eq!(
                bounds(&set, open_files, 0).max_connections,
                most,
                "{open_files}"
            );
        }
        assert!(connections_allowed(descriptors(500)) == 500);
    }

    #[test]
    fn clients_have_a_quarter_of_the_memory_and_no_less_than_the_least() {
        for (workers, memory, most) in [
            ("1", 1 << 30, 1 << 28),
            ("4", 1 << 30, 1 << 26),
            ("2", 1 << 20, LEAST_MEMORY),
        ] {
            assert_eq!(bounds(&[("workers", workers)], 0, memory).memory, most);
        }
    }

    #[test]
    fn a_transfer_has_its_time_and_what_its_bytes_buy() {
        let bounds = bounds(&[("io_timeout", "10")], 0, 0);
        for (now, bytes, over) in [
            // It has just begun; nothing has come for long; a little has; it drips; it is quick.
            (0, 0, 10_000),
            (9000, 0, 10_000),
            (9000, 500, 11_000),
            (50_000, 500, 11_000),
            (50_000, 1 << 30, 60_000),
            (50_000, u64::MAX, 60_000),
        ] {
            assert_eq!(bounds.transfer(now, 0, bytes), over, "{now}, {bytes}");
        }
    }
}
