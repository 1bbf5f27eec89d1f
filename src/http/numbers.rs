//! Who gets the numbers of the service, and for whom their paths are like any other: everybody whom `app.status_allow`
//! does not name and who is not on this machine, and everybody of whom that is not certain. A proxy on the same machine
//! makes all the world come from there.
#![forbid(unsafe_code)]

use super::bounds::Bounds;
use super::checked::Checked;
use super::client::Client;
use super::metrics;
use super::overview;
use super::response::{Response, not_allowed};
use super::routes::Routes;
use crate::ledger::Page;
use std::net::Ipv4Addr;

/// Where they are.
const METRICS: &str = "/metrics";
const STATUS: &str = "/status";

/// What one who asks for them gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Metrics,
    Status,
    /// By a method that the page does not have.
    Wrongly,
}

impl Asked {
    /// `None` where it is something else that is asked for, or a page of the program's own, or somebody asks who may not
    /// see them: what the program and the files have there, or do not have, is the answer that tells nothing.
    pub fn of(
        bounds: &Bounds,
        routes: &Routes,
        client: &Client,
        checked: &Checked,
    ) -> Option<Asked> {
        let path = checked.path();
        let found = match path {
            METRICS if bounds.metrics => Asked::Metrics,
            STATUS if bounds.status => Asked::Status,
            _ => return None,
        };
        if routes.has_own(path) {
            return None;
        }
        let client = bounds.proxies.certain(client.origin(), checked.fields());
        let may = client.is_some_and(|client| {
            let is_near = client.is_loopback() && !checked.host().is_some_and(is_foreign);
            is_near || bounds.allowed.trusts(Some(client))
        });
        may.then_some(match checked.method() {
            "GET" | "HEAD" => found,
            _ => Asked::Wrongly,
        })
    }

    pub fn answer(self, page: Page) -> Response {
        match self {
            Asked::Metrics => metrics::answer(page),
            Asked::Status => overview::answer(page),
            Asked::Wrongly => not_allowed("GET, HEAD"),
        }
    }
}

/// Whether this host can be of a page on the internet whose name leads to this machine (DNS rebinding): its scripts would
/// ask in the browser of somebody here, and be let read the answer. Addresses and names without a dot are nobody's there,
/// and `localhost` is always here (RFC 6761 §6.3).
fn is_foreign(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_address = host.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    name.contains('.') && !is_address && !name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pattern::Page;
    use crate::settings::{Overrides, Settings};
    use std::os::unix::net::UnixStream;

    #[test]
    fn hosts_that_the_internet_may_have() {
        for host in [
            "evil.example",
            "evil.example:8888",
            "1.2.3.4.example",
            "localhost.example.",
            "127.1",
        ] {
            assert!(is_foreign(host), "{host}");
        }
        let ours = [
            "",
            "localhost",
            "LOCALHOST:8888",
            "a.localhost",
            "localhost.",
            "box",
            "box:80",
            "127.0.0.1:8888",
            "[::1]",
            "[::1]:8888",
            "10.1.2.3",
        ];
        for host in ours {
            assert!(!is_foreign(host), "{host}");
        }
    }

    #[test]
    fn this_machine_and_those_who_are_named_and_nobody_else() {
        let asked = |set: &[(&str, &str)], peer: &str, head: &str| {
            let set = set
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()));
            let overrides = Overrides {
                set: set.collect(),
                ..Overrides::default()
            };
            let settings = Settings::without_file(&overrides, &|_| None).unwrap();
            let mut routes = Routes::default();
            let (head, host) = head.split_once(" of ").unwrap_or((head, "a"));
            let checked = Checked::of_text(&format!("{head} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let (ours, _) = UnixStream::pair().unwrap();
            let client = Client::new(ours.into(), peer.parse().ok());
            let bounds = Bounds::new(&settings);
            let found = Asked::of(&bounds, &routes, &client, &checked);
            // What the program has itself is its own to show.
            for path in [METRICS, STATUS] {
                let page = Page::Handler(Box::new(|_| Response::new(204)));
                routes.add("POST", path, page);
            }
            assert_eq!(Asked::of(&bounds, &routes, &client, &checked), None);
            found
        };
        let on = ("metrics", "true");
        let (near, far) = ("127.0.0.1:9", "192.0.2.7:9");
        let allow = |networks| [on, ("status_allow", networks)];
        let get = "GET /metrics";
        for (set, peer, head, expected) in [
            (&[on][..], near, get, Some(Asked::Metrics)),
            (&[on], "[::1]:9", "HEAD /metrics?a", Some(Asked::Metrics)),
            (&[on], "[::ffff:127.8.0.1]:9", get, Some(Asked::Metrics)),
            (&[on], near, "POST /metrics", Some(Asked::Wrongly)),
            (&[on], near, "GET /metrics/", None),
            (&[], near, get, None),
            (&[on], near, "GET /status", None),
            (
                &[("status", "on")],
                near,
                "GET /status",
                Some(Asked::Status),
            ),
            (&[("status", "on")], far, "GET /status", None),
            (&[("status", "on")], near, get, None),
            (&[on], far, get, None),
            (&[on], near, "GET /metrics of evil.example", None),
            (
                &allow("127.0.0.1"),
                near,
                "GET /metrics of box.example",
                Some(Asked::Metrics),
            ),
            (&[on], far, "POST /metrics", None),
            (&[on], "unix", get, None),
            (&allow("192.0.2.0/24"), far, get, Some(Asked::Metrics)),
            (&allow("192.0.2.0/24"), near, get, Some(Asked::Metrics)),
            (&allow("192.0.2.8"), far, get, None),
        ] {
            assert_eq!(asked(set, peer, head), expected, "{set:?} {peer} {head}");
        }
    }
}
