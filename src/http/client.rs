//! One client's socket: what names it, who it is, and whose it is at the moment. Gate and handlers hand it to each other
//! by its [`Loan`].
#![forbid(unsafe_code)]

use crate::proxies::Origin;
use crate::sys::atomic::AtomicU64;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

/// Names a connection for epoll, for the handlers and for the way back: index in the table of connections and a serial number
/// that tells its successive users apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(pub u64);

impl Token {
    /// What epoll watches beside connections: each of these is above all tokens of the table.
    pub const LISTENER: Token = Token(u64::MAX);
    pub const BELL: Token = Token(u64::MAX - 1);
    /// The private stream to tiny_http.
    pub const STREAM: Token = Token(u64::MAX - 2);
    /// A worker that leaves, and that sends its connections.
    pub const SOURCE: Token = Token(u64::MAX - 3);
    /// The worker that takes connections over from this one.
    pub const HEIR: Token = Token(u64::MAX - 4);

    pub fn new(index: usize, serial: u32) -> Token {
        Token(u64::from(serial) << 32 | index as u64 & 0xffff_ffff)
    }

    pub fn index(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    pub fn serial(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Where a connection stands that was lent to a handler. Times are on the exchange's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loan {
    /// No handler has it yet.
    Waiting,
    /// A handler has had it since then.
    Working(u64),
    /// Answered and given back; the next request may come.
    Idle(u64),
    /// Answered and shut for writing; what still comes is thrown away.
    Closing(u64),
}

impl Loan {
    /// One word: what it is in the lowest two bits, [`SEEN`], [`NOTED`], the time above.
    fn packed(self) -> u64 {
        match self {
            Loan::Waiting => 0,
            Loan::Working(at) => at << 4 | 1,
            Loan::Idle(at) => at << 4 | 2,
            Loan::Closing(at) => at << 4 | 3,
        }
    }

    fn unpacked(word: u64) -> Loan {
        match word & 3 {
            0 => Loan::Waiting,
            1 => Loan::Working(word >> 4),
            2 => Loan::Idle(word >> 4),
            _ => Loan::Closing(word >> 4),
        }
    }
}

/// Epoll has reported something on the connection while it was on loan, and will not report that again: the handler that
/// gives it back is to tell the gate.
const SEEN: u64 = 1 << 2;
/// The handler has given the connection back, and a note says what else is to be known of it: until the gate has that, it
/// lets it alone.
const NOTED: u64 = 1 << 3;

/// What epoll watches a connection for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// It does not know it.
    No,
    /// Input, reported as it comes.
    Input,
    /// Room for output, once.
    Room,
}

/// One client's socket.
pub(crate) struct Client {
    fd: OwnedFd,
    pub peer: Option<SocketAddr>,
    loan: AtomicU64,
    /// Who asks by way of it, where its peer is believed: few are, so it takes no room in the others.
    origin: Mutex<Option<Box<Origin>>>,
}

impl Client {
    pub fn new(fd: OwnedFd, peer: Option<SocketAddr>) -> Client {
        Client {
            fd,
            peer,
            loan: AtomicU64::new(0),
            origin: Mutex::default(),
        }
    }

    /// Where it stands.
    pub fn loan(&self) -> Loan {
        self.standing().0
    }

    /// Both at one moment: where it stands, and whether a note has still to say more.
    pub fn standing(&self) -> (Loan, bool) {
        let word = self.loan.load(Ordering::SeqCst);
        (Loan::unpacked(word), word & NOTED != 0)
    }

    /// Whoever has it alone says so.
    pub fn set_loan(&self, loan: Loan) {
        self.loan.store(loan.packed(), Ordering::SeqCst);
    }

    /// The gate lends it. `is_readable`: there is something on it that epoll will not report again.
    pub fn lend(&self, is_readable: bool) {
        let seen = if is_readable { SEEN } else { 0 };
        self.loan
            .store(Loan::Waiting.packed() | seen, Ordering::SeqCst);
    }

    /// A handler has it, of whom it waited.
    pub fn start_work(&self, at: u64) {
        let working = Loan::Working(at).packed();
        self.loan.fetch_or(working, Ordering::SeqCst);
    }

    /// A handler gives it back. Whether the gate has seen something on it meanwhile, and is to be told.
    pub fn give_back(&self, loan: Loan, is_noted: bool) -> bool {
        let noted = if is_noted { NOTED } else { 0 };
        let old = self.loan.swap(loan.packed() | noted, Ordering::SeqCst);
        old & SEEN != 0
    }

    /// The gate has seen something on it. Where it stood at that moment, as [`Client::standing`] says: a handler that gives
    /// it back later knows.
    pub fn see(&self) -> (Loan, bool) {
        let word = self.loan.fetch_or(SEEN, Ordering::SeqCst);
        (Loan::unpacked(word), word & NOTED != 0)
    }

    /// Where it comes from, for the log; whose request is being answered where a proxy has told.
    pub fn origin(&self) -> Origin {
        let known = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .as_deref()
            .copied()
            .unwrap_or_else(|| Origin::of(self.peer))
    }

    /// The address of who asks.
    pub fn address(&self) -> Option<IpAddr> {
        self.origin().client
    }

    /// Notes for whom the peer asks now; `None` between two requests.
    pub fn set_origin(&self, origin: Option<Origin>) {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = origin.map(Box::new);
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_token_is_its_seat_and_its_serial() {
        for (seat, serial) in [(0, 0), (7, 0x7fff_ffff), (0xffff_ffff, 1)] {
            let token = Token::new(seat, serial);
            assert_eq!((token.index(), token.serial()), (seat, serial));
        }
    }

    #[test]
    fn what_is_seen_while_it_is_on_loan_is_told_by_who_gives_it_back() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let client = Client::new(ours.into(), None);
        for (early, late, told) in [
            (false, false, false),
            (true, false, true),
            (false, true, true),
        ] {
            client.lend(early);
            assert_eq!(client.standing(), (Loan::Waiting, false));
            client.start_work(1 << 50);
            assert_eq!(client.standing(), (Loan::Working(1 << 50), false));
            if late {
                assert_eq!(client.see(), (Loan::Working(1 << 50), false));
            }
            assert_eq!(client.give_back(Loan::Idle(5), false), told);
            // From now on the gate need not be told: it knows that it is back.
            assert_eq!(client.see(), (Loan::Idle(5), false));
        }
        client.lend(false);
        client.start_work(6);
        assert!(!client.give_back(Loan::Idle(7), true));
        assert_eq!(client.see(), (Loan::Idle(7), true));
        client.set_loan(Loan::Closing(8));
        assert_eq!(client.standing(), (Loan::Closing(8), false));
    }
}
