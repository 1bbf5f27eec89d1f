//! How a gate leaves, and how it takes over from one that leaves. A restart closes no connection: those without a
//! request go to the new worker, sockets and all (SCM_RIGHTS, `unix(7)`), the others when they are answered.
#![forbid(unsafe_code)]

use super::exchange::{Client, Loan, Token};
use super::gate::{Drain, Gate, HEIR, Leave, Order, Phase, Reading, SOURCE, Why};
use crate::sys::epoll::Interest;
use crate::sys::socket;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::Instant;

/// Milliseconds after which passing connections on is tried again.
const AGAIN: u64 = 100;
/// Cut requests that the log names one by one; the rest is counted.
const NAMED_CUTS: usize = 10;

impl Gate {
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Leave(leave) => self.start_drain(leave),
            Order::Adopt(source) => {
                if self
                    .exchange
                    .epoll
                    .add(&source, SOURCE, Interest::Readable)
                    .is_ok()
                {
                    self.sources.push(source);
                }
            }
        }
    }

    fn start_drain(&mut self, leave: Leave) {
        let Leave {
            deadline,
            why,
            heir,
        } = leave;
        self.drain = Some(Drain {
            deadline,
            why,
            since: self.now,
        });
        self.heir = heir.filter(|heir| {
            self.exchange
                .epoll
                .add(heir, HEIR, Interest::Nothing)
                .is_ok()
        });
        self.exchange.set_draining(self.heir.is_none());
        if why != Why::Restart {
            // What the kernel has accepted on our behalf was promised to be served.
            self.resume();
            self.accept(usize::MAX);
        }
        if let Some(listener) = self.listener.take() {
            let _ = self.exchange.epoll.remove(&listener);
        }
        self.paused = None;
    }

    /// Passes a connection without a request on to the next worker.
    pub(super) fn bequeath(&mut self, token: Token) {
        let Some(connection) = self.connection(token) else {
            return;
        };
        let client = std::sync::Arc::clone(&connection.client);
        let Some(heir) = &self.heir else { return };
        match socket::send_with_fd(heir.as_fd(), b"c", Some(client.as_fd())) {
            Ok(()) => self.close(token),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.heir_is_full = self
                    .exchange
                    .epoll
                    .modify(heir, HEIR, Interest::WritableOnce)
                    .is_ok();
            }
            // Too many descriptors under way between processes (unix(7), ETOOMANYREFS): they are fewer soon.
            Err(error) if socket::is_too_many_refs(&error) => self.due(self.now + AGAIN),
            Err(error) => {
                self.warn(format_args!(
                    "the new worker takes no connections, they are closed after an answer: {error}"
                ));
                self.heir = None;
                self.exchange.set_draining(true);
            }
        }
    }

    /// Takes over what workers that leave have sent.
    pub(super) fn adopt(&mut self) {
        let mut sources = std::mem::take(&mut self.sources);
        sources.retain(|source| {
            loop {
                match socket::receive_with_fd(source.as_fd(), &mut [0; 1]) {
                    Ok((0, _)) => return false,
                    Ok((_, Some(fd))) => {
                        if self.open >= self.bounds.max_connections {
                            self.close_longest_idle(&mut None);
                        }
                        let peer = socket::peer_ip(fd.as_fd());
                        self.take_in(
                            Client::new(fd, peer),
                            Phase::Idle,
                            self.now + self.bounds.idle,
                        );
                    }
                    // The kernel had no descriptor to give us for it.
                    Ok((_, None)) => self.warn(format_args!(
                        "a connection of the old worker was lost: no descriptors"
                    )),
                    Err(error) => return error.kind() == ErrorKind::WouldBlock,
                }
            }
        });
        self.sources = sources;
    }

    /// Whether the drain is over. What is left then is counted as cut.
    pub(super) fn is_drained(&mut self, drain: &Drain) -> bool {
        if self.open == 0 {
            return true;
        }
        if Instant::now() < drain.deadline {
            return false;
        }
        for place in &self.places {
            let Some(connection) = &place.connection else {
                continue;
            };
            let since = match connection.phase {
                Phase::Head | Phase::Body | Phase::Queued => self.now,
                // Not a refusal.
                Phase::Writing if connection.current.is_some() => self.now,
                Phase::Lent
                    if matches!(connection.client.loan(), Loan::Waiting | Loan::Working(_)) =>
                {
                    self.now
                }
                _ => continue,
            };
            if connection.current.is_some() {
                // The process ends, and with it the connection: not so that a part looks like the whole.
                socket::reset_on_close(connection.client.as_fd());
            }
            let name = match (&connection.current, &connection.reading) {
                (Some((checked, at)), _) => {
                    let seconds = since.saturating_sub(*at) as f64 / 1000.0;
                    format!("{} {}, {seconds:.1} s", checked.method(), checked.path())
                }
                (None, Reading::Body(incoming)) => {
                    format!(
                        "{} {}, body not complete",
                        incoming.checked.method(),
                        incoming.checked.path()
                    )
                }
                _ => "a request whose head is not complete".to_owned(),
            };
            self.drained.cut += 1;
            if self.drained.named.len() < NAMED_CUTS {
                self.drained
                    .named
                    .push(format!("{name}, from {}", connection.client.origin()));
            }
        }
        true
    }
}
