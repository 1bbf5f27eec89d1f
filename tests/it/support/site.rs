//! A running application, as its start announced it.

use crate::support::{Answer, Wire, threads, wait_until, workers};
use std::io::ErrorKind::ConnectionRefused;
use std::net::TcpStream;

/// A running application, as its start announced it.
#[derive(Debug, Clone)]
pub struct Site {
    pub pid: u32,
    /// What stands behind "on": `http://127.0.0.1:4711`.
    pub url: String,
}

/// What an announcement has behind "on": the URL, which stands between other words where it is every interface.
fn url_of(place: &str) -> String {
    let place = place.strip_prefix("every interface, ").unwrap_or(place);
    place.strip_suffix(" here").unwrap_or(place).to_owned()
}

impl Site {
    #[track_caller]
    pub fn of(announcement: &str) -> Site {
        // In the foreground the first lines of the log stand before it.
        let mut lines = announcement.lines();
        let line = lines.clone().find(|line| line.contains(": started, pid "));
        let line = line.or_else(|| lines.next()).unwrap_or_default();
        let pid = line
            .split("pid ")
            .nth(1)
            .and_then(|rest| rest.split(',').next()?.parse().ok());
        let url = line.split(" on ").nth(1).map(url_of);
        let (Some(pid), Some(url)) = (pid, url) else {
            panic!("not an announcement: {announcement}")
        };
        Site { pid, url }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub fn port(&self) -> u16 {
        self.url
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .expect("a port")
    }

    #[track_caller]
    pub fn connect(&self) -> Wire {
        Wire::to(self.address())
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        let mut wire = self.connect();
        wire.send(format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        ));
        wire.answer()
    }

    /// As a restart announced it; or a start, for what did not run.
    #[track_caller]
    pub fn after(said: &str) -> Site {
        let line = said.lines().next().unwrap_or_default();
        let Some((_, rest)) = line.split_once(": restarted, pid ") else {
            return Site::of(said);
        };
        let (pid, rest) = rest.split_once(", on ").expect("an announcement");
        let (url, _) = rest.split_once(", worker ").expect("an announcement");
        Site {
            pid: pid.parse().expect("a pid"),
            url: url_of(url),
        }
    }

    /// The worker, where there is one.
    #[track_caller]
    pub fn worker(&self) -> u32 {
        let workers = workers(self.pid);
        assert_eq!(workers.len(), 1, "one worker");
        workers[0]
    }

    /// Waits until new connections are refused, which is what a drain begins with.
    #[track_caller]
    pub fn wait_refused(&self) {
        wait_until(10, "new connections are refused", || {
            TcpStream::connect(self.address()).is_err_and(|error| error.kind() == ConnectionRefused)
        });
    }

    /// Waits until this worker is replaced, and all that are there are ready: what a worker begins with is over when it
    /// has its gate. The new ones.
    #[track_caller]
    pub fn wait_replaced(&self, dead: u32, wanted: usize) -> Vec<u32> {
        let mut now = Vec::new();
        let is_ready = |pid: &u32| threads(*pid).iter().any(|(_, name)| name == "gate");
        wait_until(10, &format!("worker {dead} is replaced"), || {
            now = workers(self.pid);
            !now.contains(&dead) && now.len() == wanted && now.iter().all(is_ready)
        });
        now
    }
}
