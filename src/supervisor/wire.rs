//! What master and worker say to each other, one message each over a socket pair that keeps messages apart. Its end
//! is news too: whoever reads it knows that the other side is gone.
#![forbid(unsafe_code)]

use crate::http::orders::{Drained, Why};
use crate::sys::socket;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// One end.
pub(crate) struct Wire(OwnedFd);

/// Longest message in bytes: the reason why a worker could not start, or what it had to cut.
const LONGEST: usize = 8 * 1024;

/// The longest time that a worker may say it takes to leave; `app.close_wait` is no longer. It may run as somebody whom
/// the master must not believe everything.
const LONGEST_LEAVE: Duration = Duration::from_secs(3600);

/// From the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Take nothing new, finish what is in flight within this time, and leave.
    Drain { why: Why, within: Duration },
    /// A stop is coming: serve as before, and say so.
    Prepare,
    /// Take over the connections that come through the socket beside this message.
    Adopt,
    /// Pass connections on through the socket beside this message from now on; who took them over is gone.
    Inherit,
    /// The log has another file, which comes beside this message.
    Reopen,
    /// The same for the access log.
    ReopenAccess,
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// It serves.
    Ready,
    /// It could not start, and why.
    Failed(String),
    /// Somebody else told it to leave, and it does, within this time.
    Leaves(Duration),
    /// A line of so many bytes would pass the bound of the log.
    LogFull(usize),
    /// The same of the access log.
    AccessLogFull(usize),
    /// It is about to leave, and what the drain came to.
    Drained(Drained),
}

/// What one look at the wire found.
pub(crate) enum Heard<T> {
    Message(T),
    Nothing,
    /// The other side is gone.
    End,
}

impl Wire {
    /// The two ends: the master's and the worker's.
    pub fn pair() -> io::Result<(Wire, Wire)> {
        socket::message_pair().map(|(one, other)| (Wire(one), Wire(other)))
    }

    /// An end that came through an exec.
    pub fn adopt(fd: OwnedFd) -> Wire {
        Wire(fd)
    }

    pub fn order(&self, order: &Order) -> io::Result<()> {
        self.send(&order.encode(), None)
    }

    /// An order with a descriptor beside it.
    pub fn order_with(&self, order: &Order, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&order.encode(), Some(fd))
    }

    pub fn report(&self, report: &Report) -> io::Result<()> {
        self.send(&report.encode(), None)
    }

    fn send(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let ends = 0..=text.len().min(LONGEST);
        let cut = ends
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        socket::send_with_fd(self.0.as_fd(), &text.as_bytes()[..cut], fd)
    }

    /// What the master says next. The spare descriptor makes room for one beside an order where there is no other, and is
    /// had again as soon as there is.
    pub fn next_order(&self, spare: &mut Option<OwnedFd>) -> Heard<(Order, Option<OwnedFd>)> {
        if socket::has_no_room_for_next(self.0.as_fd()) {
            *spare = None;
        }
        let heard = self.receive(Order::decode);
        if spare.is_none() {
            *spare = self.spare();
        }
        heard
    }

    /// A descriptor to have in reserve, unless it were the last one.
    pub fn spare(&self) -> Option<OwnedFd> {
        let spare = self.0.try_clone().ok();
        spare.filter(|_| self.0.try_clone().is_ok())
    }

    pub fn next_report(&self) -> Heard<Report> {
        match self.receive(Report::decode) {
            Heard::Message((report, _)) => Heard::Message(report),
            Heard::Nothing => Heard::Nothing,
            Heard::End => Heard::End,
        }
    }

    fn receive<T>(&self, decode: fn(&str) -> Option<T>) -> Heard<(T, Option<OwnedFd>)> {
        let mut buffer = [0; LONGEST];
        loop {
            return match socket::receive_with_fd(self.0.as_fd(), &mut buffer) {
                Ok((0, _)) => Heard::End,
                Ok((count, fd)) => {
                    match std::str::from_utf8(&buffer[..count]).ok().and_then(decode) {
                        Some(message) => Heard::Message((message, fd)),
                        // Of another version of hade, after a restart with a changed program: not for us.
                        None => continue,
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Nothing,
                // The other side went with a message of ours unread, which is told once, and before what it said last.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
                Err(_) => Heard::End,
            };
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Order {
    fn encode(&self) -> String {
        match self {
            Order::Drain { why, within } => {
                let why = match why {
                    Why::Restart => "restart",
                    Why::Moved => "moved",
                    Why::Stop | Why::Orphaned => "stop",
                };
                format!("drain {why} {}", within.as_millis())
            }
            Order::Prepare => "prepare".to_owned(),
            Order::Adopt => "adopt".to_owned(),
            Order::Inherit => "inherit".to_owned(),
            Order::Reopen => "reopen".to_owned(),
            Order::ReopenAccess => "reopen access".to_owned(),
        }
    }

    fn decode(text: &str) -> Option<Order> {
        match text {
            "prepare" => return Some(Order::Prepare),
            "adopt" => return Some(Order::Adopt),
            "inherit" => return Some(Order::Inherit),
            "reopen" => return Some(Order::Reopen),
            "reopen access" => return Some(Order::ReopenAccess),
            _ => {}
        }
        let (why, within) = text.strip_prefix("drain ")?.split_once(' ')?;
        Some(Order::Drain {
            why: match why {
                "restart" => Why::Restart,
                "moved" => Why::Moved,
                _ => Why::Stop,
            },
            within: Duration::from_millis(within.parse().ok()?),
        })
    }
}

impl Report {
    fn encode(&self) -> String {
        match self {
            Report::Ready => "ready".to_owned(),
            Report::Failed(why) => format!("failed {why}"),
            Report::Leaves(within) => format!("leaves {}", within.as_millis()),
            Report::LogFull(bytes) => format!("log {bytes}"),
            Report::AccessLogFull(bytes) => format!("access {bytes}"),
            Report::Drained(Drained {
                finished,
                cut,
                named,
            }) => {
                format!("drained {finished} {cut}\n{}", named.join("\n"))
            }
        }
    }

    fn decode(text: &str) -> Option<Report> {
        if let Some(why) = text.strip_prefix("failed ") {
            return Some(Report::Failed(why.to_owned()));
        }
        if let Some(millis) = text.strip_prefix("leaves ") {
            let within = Duration::from_millis(millis.parse().ok()?);
            return Some(Report::Leaves(within.min(LONGEST_LEAVE)));
        }
        if let Some(bytes) = text.strip_prefix("log ") {
            return Some(Report::LogFull(bytes.parse().ok()?));
        }
        if let Some(bytes) = text.strip_prefix("access ") {
            return Some(Report::AccessLogFull(bytes.parse().ok()?));
        }
        if let Some((counts, named)) = text
            .strip_prefix("drained ")
            .and_then(|rest| rest.split_once('\n'))
        {
            let (finished, cut) = counts.split_once(' ')?;
            let named = named.lines().map(str::to_owned).collect();
            return Some(Report::Drained(Drained {
                finished: finished.parse().ok()?,
                cut: cut.parse().ok()?,
                named,
            }));
        }
        (text == "ready").then_some(Report::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_one_that_left_an_order_unread_are_heard() {
        let (master, worker) = Wire::pair().unwrap();
        master.order(&Order::Prepare).unwrap();
        worker.report(&Report::Ready).unwrap();
        drop(worker);
        assert!(matches!(
            master.next_report(),
            Heard::Message(Report::Ready)
        ));
        assert!(matches!(master.next_report(), Heard::End));
    }

    #[test]
    fn everything_said_is_heard() {
        let (master, worker) = Wire::pair().unwrap();
        let drain = |why| Order::Drain {
            why,
            within: Duration::from_millis(1500),
        };
        let drains = [Why::Stop, Why::Restart, Why::Moved].map(drain);
        let others = [
            Order::Prepare,
            Order::Adopt,
            Order::Inherit,
            Order::Reopen,
            Order::ReopenAccess,
        ];
        for order in drains.into_iter().chain(others) {
            master.order(&order).unwrap();
            assert!(
                matches!(worker.next_order(&mut None), Heard::Message((heard, None)) if heard == order)
            );
        }
        assert!(matches!(worker.next_order(&mut None), Heard::Nothing));
        let (read, write) = crate::sys::fd::pipe().unwrap();
        master.order_with(&Order::Adopt, write.as_fd()).unwrap();
        drop(write);
        let Heard::Message((Order::Adopt, Some(passed))) = worker.next_order(&mut None) else {
            panic!("no descriptor")
        };
        crate::sys::fd::write(passed.as_fd(), b"x").unwrap();
        assert_eq!(crate::sys::fd::read(read.as_fd(), &mut [0; 2]).unwrap(), 1);
        for report in [
            Report::Ready,
            Report::Failed("no\nroom".into()),
            Report::Leaves(Duration::from_millis(1500)),
            Report::LogFull(80),
            Report::AccessLogFull(80),
            Report::Drained(Drained {
                finished: 3,
                cut: 0,
                named: vec![],
            }),
            Report::Drained(Drained {
                finished: 3,
                cut: 2,
                named: vec!["GET /a, 1.0 s".into(), "b".into()],
            }),
        ] {
            worker.report(&report).unwrap();
            assert!(matches!(master.next_report(), Heard::Message(heard) if heard == report));
        }
        worker.send(&format!("leaves {}", u64::MAX), None).unwrap();
        assert!(
            matches!(master.next_report(), Heard::Message(Report::Leaves(within)) if within == LONGEST_LEAVE)
        );
        worker.send("something newer", None).unwrap();
        worker.report(&Report::Failed("ü".repeat(LONGEST))).unwrap();
        drop(worker);
        assert!(matches!(
            master.next_report(),
            Heard::Message(Report::Failed(_))
        ));
        assert!(matches!(master.next_report(), Heard::End));
    }
}
