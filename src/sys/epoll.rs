//! `epoll(7)` and `eventfd(2)`.

use super::fd::millis;
use super::{Errno, check, fd, is_errno};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What a descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Readable, until removed.
    Readable,
    /// Readable, in one of the processes that watch the same listener (Linux 4.5; before that, in all of them).
    ReadableExclusive,
    /// Readable or hung up, until removed; told at the beginning, and then only when something more has come.
    ReadableEdge,
    /// Writable, once; then to be armed again.
    WritableOnce,
    /// Nothing for the moment; it stays known.
    Nothing,
}

impl Interest {
    fn bits(self) -> u32 {
        (match self {
            Interest::Readable => libc::EPOLLIN,
            Interest::ReadableExclusive => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
            Interest::ReadableEdge => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET,
            Interest::WritableOnce => libc::EPOLLOUT | libc::EPOLLONESHOT,
            Interest::Nothing => libc::EPOLLONESHOT,
        }) as u32
    }
}

/// One `epoll(7)` instance. Descriptors are known by the token given with them.
pub struct Epoll(OwnedFd);

/// Room for the events of one round.
pub struct Events(Vec<libc::epoll_event>);

impl Events {
    /// Room for so many at once.
    pub fn with_capacity(count: usize) -> Events {
        Events(Vec::with_capacity(count))
    }

    /// The token of the event at this place of the last round.
    pub fn token(&self, index: usize) -> u64 {
        self.0[index].u64
    }

    /// Whether it says that the peer sends no more, or is gone.
    pub fn is_end(&self, index: usize) -> bool {
        let end = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
        self.0[index].events & end as u32 != 0
    }
}

impl Epoll {
    /// `epoll_create1(2)`, close-on-exec.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: takes a number and touches no memory.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn control(
        &self,
        operation: i32,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest.bits(),
            u64: token,
        };
        // SAFETY: the pointer is to one event that lives through the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) })
            .map(drop)
    }

    /// Starts to watch a descriptor.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, interest) {
            Err(error)
                if interest == Interest::ReadableExclusive
                    && is_errno(&error, Errno::InvalidArgument) =>
            {
                self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, Interest::Readable)
            }
            result => result,
        }
    }

    /// Arms a descriptor again, or changes what it is watched for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), token, interest)
    }

    /// Stops watching a descriptor.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, Interest::Nothing)
    }

    /// Waits for events and returns how many there are; none when the time is up or a signal came.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map_or(-1, millis);
        let room = events.0.capacity() as i32;
        // SAFETY: pointer and count describe the vector's own room, which lives through the call.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.0.as_mut_ptr(), room, timeout) };
        let count = match check(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel filled in the first `count` events, no more than there is room for.
        unsafe { events.0.set_len(count) };
        Ok(count)
    }
}

/// An `eventfd(2)` that one thread waits on and others ring.
pub struct Bell(OwnedFd);

impl Bell {
    /// A silent one, non-blocking and close-on-exec.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: takes two numbers and touches no memory.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
        Ok(Bell(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// One that came through an exec.
    pub fn adopt(fd: OwnedFd) -> Bell {
        Bell(fd)
    }

    /// Another descriptor of the same bell.
    pub fn try_clone(&self) -> io::Result<Bell> {
        self.0.try_clone().map(Bell)
    }

    /// Wakes whoever waits; a full counter means that it already rings.
    pub fn ring(&self) {
        let _ = fd::write(self.0.as_fd(), &1u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
