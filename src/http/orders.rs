//! What the worker's main thread says to the gate, and what it hears from it in the end.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::time::Instant;

/// What the worker's main thread tells the gate.
#[derive(Debug)]
pub(crate) enum Order {
    Leave(Leave),
    /// Take over the connections that come through this socket, from a worker that leaves.
    Adopt(OwnedFd),
    /// Pass connections on through this one from now on: who took them over is gone, and another has come.
    Inherit(OwnedFd),
}

/// Why a worker leaves, and so what becomes of connections without a request, and of those in the kernel's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// They are closed at once; those in the queue are served first.
    Stop,
    /// They go to the next worker by way of the heir, or stay for one more request where there is none; the queue is
    /// left to the next worker.
    Restart,
    /// As on a restart, but to another address: nobody else will accept those in the queue, so this worker does. Then it
    /// lets go of the listener.
    Moved,
    /// The master is gone, and no other worker comes: as on a stop, but a connection that has not yet sent anything
    /// keeps its time for the first request.
    Orphaned,
}

/// How the worker is to leave.
#[derive(Debug)]
pub(crate) struct Leave {
    /// When what is left is cut.
    pub deadline: Instant,
    pub why: Why,
    /// Who takes connections without a request over, on a restart.
    pub heir: Option<OwnedFd>,
}

/// A drain under way; times on the exchange's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub deadline: u64,
    pub why: Why,
}

/// What a drain came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Requests that were in flight when it began, or came on open connections, and were answered.
    pub finished: u64,
    /// Requests that were cut, and the first few of them by name.
    pub cut: u64,
    pub named: Vec<String>,
}
