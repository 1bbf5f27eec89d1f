//! The listener as the gate has it: watched, or left alone for a while, when connections stay in the kernel's queue.
#![forbid(unsafe_code)]

use super::client::{Client, Token};
use super::exchange::Exchange;
use crate::sys::epoll::Interest;
use crate::sys::{Errno, is_errno, socket};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Milliseconds after which accepting is tried again when the kernel had no descriptor or memory to give.
const PAUSE: u64 = 100;
/// Milliseconds between looks while a place is waited for. One that becomes free tells, but for a moment before it was
/// known that it should.
const PLACE_LOOK: u64 = 1000;
/// Bytes of an answer that the kernel takes before the network does.
const UNSENT: i32 = 128 * 1024;

/// Until when nobody is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    Until(u64),
    /// Until a connection is idle or gone, whose place somebody may have.
    ForPlace,
}

/// Where clients come in.
pub(super) struct Door {
    exchange: Arc<Exchange>,
    /// `None` from when the worker leaves.
    listener: Option<OwnedFd>,
    pause: Option<Pause>,
}

impl Door {
    /// # Errors
    /// Epoll does not take the listener.
    pub fn new(exchange: Arc<Exchange>, listener: OwnedFd) -> io::Result<Door> {
        watch(&exchange, &listener)?;
        socket::limit_unsent(listener.as_fd(), UNSENT);
        socket::send_at_once(listener.as_fd());
        Ok(Door {
            exchange,
            listener: Some(listener),
            pause: None,
        })
    }

    /// Whether somebody waits in the kernel's queue.
    pub fn has_waiting(&self) -> bool {
        let listener = self.listener.as_ref();
        listener.is_some_and(|listener| socket::has_waiting(listener.as_fd()))
    }

    /// The next who waits there.
    ///
    /// # Errors
    /// `WouldBlock` where nobody does; see also [`is_transient`].
    pub fn accept(&self) -> io::Result<Client> {
        let listener = self.listener.as_ref().ok_or(ErrorKind::WouldBlock)?;
        let (fd, peer) = socket::accept(listener.as_fd())?;
        Ok(Client::new(fd, peer))
    }

    /// Accepts nobody for a moment: the kernel has no descriptor or memory to give.
    pub fn pause(&mut self, now: u64) {
        self.pause_for(Pause::Until(now + PAUSE));
    }

    /// Accepts nobody until there is a place. Handlers tell of every connection that they give back from now on.
    pub fn wait_for_place(&mut self) {
        self.exchange.set_crowded(true);
        self.pause_for(Pause::ForPlace);
    }

    fn pause_for(&mut self, pause: Pause) {
        if let (Some(listener), None) = (&self.listener, self.pause) {
            let _ = self.exchange.epoll.remove(listener);
        }
        self.pause = Some(pause);
    }

    /// Whether it is a place that is waited for.
    pub fn waits_for_place(&self) -> bool {
        self.pause == Some(Pause::ForPlace)
    }

    /// Ends a pause that is over, and tries whether there is a place. Returns when to ask again.
    pub fn look(&mut self, now: u64) -> u64 {
        match self.pause {
            Some(Pause::Until(until)) if until <= now => self.resume(now),
            Some(Pause::ForPlace) => {
                self.resume(now);
                return self.due().min(now + PLACE_LOOK);
            }
            _ => {}
        }
        self.due()
    }

    /// When a pause is over that has an end; `u64::MAX` without one.
    pub fn due(&self) -> u64 {
        match self.pause {
            Some(Pause::Until(until)) => until,
            _ => u64::MAX,
        }
    }

    /// Accepts again.
    pub fn resume(&mut self, now: u64) {
        if self.pause.take().is_none() {
            return;
        }
        self.exchange.set_crowded(false);
        if let Some(listener) = &self.listener {
            if watch(&self.exchange, listener).is_err() {
                self.pause(now);
            }
        }
    }

    /// Lets nobody more into the queue. Those who are in it can still be accepted.
    pub fn close_queue(&self) {
        if let Some(listener) = &self.listener {
            socket::close_queue(listener.as_fd());
        }
    }

    /// Lets go of the listener.
    pub fn close(&mut self) {
        if let Some(listener) = self.listener.take() {
            let _ = self.exchange.epoll.remove(&listener);
        }
        self.pause = None;
    }
}

fn watch(exchange: &Exchange, listener: &OwnedFd) -> io::Result<()> {
    let Token(token) = Token::LISTENER;
    exchange
        .epoll
        .add(listener, token, Interest::ReadableExclusive)
}

/// Errors of accept(2) that concern one connection and not the next, the network's own included: the client gave up
/// before its turn, and others wait behind it.
pub(super) fn is_transient(error: &io::Error) -> bool {
    use Errno::{
        ConnectionAborted, HostDown, HostUnreachable, NetDown, NetUnreachable, NotPermitted,
        Protocol,
    };
    [
        ConnectionAborted,
        NetDown,
        Protocol,
        HostDown,
        HostUnreachable,
        NetUnreachable,
        NotPermitted,
    ]
    .into_iter()
    .any(|errno| is_errno(error, errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::epoll::Events;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn door() -> (Door, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new(Exchange::of_nobody(), listener.into()).unwrap();
        (door, address)
    }

    /// Whether epoll reports the listener at once.
    fn rings(door: &Door) -> bool {
        let mut events = Events::with_capacity(4);
        let wait = door.exchange.epoll.wait(&mut events, Some(Duration::ZERO));
        wait.unwrap() > 0 && events.token(0) == Token::LISTENER.0
    }

    #[test]
    fn during_a_pause_the_queue_keeps_who_comes() {
        let (mut door, address) = door();
        assert!(!door.has_waiting());
        assert_eq!(door.accept().err().unwrap().kind(), ErrorKind::WouldBlock);
        let _client = TcpStream::connect(address).unwrap();
        assert!(rings(&door) && door.has_waiting());
        door.pause(1000);
        assert!(!rings(&door) && door.has_waiting());
        assert_eq!((door.look(1050), door.due()), (1100, 1100));
        assert!(!rings(&door));
        assert_eq!((door.look(1100), door.due()), (u64::MAX, u64::MAX));
        assert!(rings(&door) && door.accept().is_ok() && !door.has_waiting());
    }

    #[test]
    fn who_waits_for_a_place_is_looked_for_now_and_then() {
        let (mut door, address) = door();
        let _client = TcpStream::connect(address).unwrap();
        door.wait_for_place();
        assert!(door.waits_for_place() && !rings(&door));
        assert_eq!((door.look(5), door.waits_for_place()), (1005, false));
        assert!(rings(&door));
        door.close();
        assert!(!rings(&door) && !door.has_waiting());
        assert_eq!(door.accept().err().unwrap().kind(), ErrorKind::WouldBlock);
    }
}
