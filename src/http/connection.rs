//! A connection as the gate has it: where it stands between two bytes of a client's, and what has come of a request.
#![forbid(unsafe_code)]

use super::body::Chunked;
use super::checked::Checked;
use super::client::{Client, Watched};
use super::exchange::{After, Work};
use super::expire::{Phase, Standing};
use super::head::{Length, Parser, Refusal};
use super::numbers::Asked;
use super::output::Output;
use super::request::Request;
use super::routes::Ready;
use crate::log;
use crate::sys::epoll::Interest;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) struct Connection {
    pub client: Arc<Client>,
    pub phase: Phase,
    /// When this phase is over, on the exchange's clock; `u64::MAX` for never.
    pub deadline: u64,
    /// When it was accepted, or writing or lingering began.
    pub begun: u64,
    /// When the first byte of its request came, or it was accepted.
    pub first: u64,
    /// What was received and not yet sent on.
    pub input: Vec<u8>,
    pub reading: Reading,
    /// The request being answered, and since when.
    pub current: Option<(Arc<Checked>, u64)>,
    /// When it was here, by the exchange's microseconds.
    pub asked: u64,
    pub output: Option<Box<Output>>,
    /// The log has said that its handler takes long.
    pub is_named: bool,
    /// The address among whose connections the table counts it.
    pub counted_by: Option<IpAddr>,
    pub watched: Watched,
    /// There may be something on the socket that epoll will not report again.
    pub is_readable: bool,
    /// Epoll has reported the end of what the client sends: reading goes on until that is met.
    pub is_ended: bool,
}

impl Connection {
    pub fn new(
        client: Client,
        phase: Phase,
        now: u64,
        deadline: u64,
        counted_by: Option<IpAddr>,
    ) -> Connection {
        Connection {
            client: Arc::new(client),
            phase,
            deadline,
            begun: now,
            first: now,
            input: Vec::new(),
            reading: Reading::Nothing,
            current: None,
            asked: 0,
            output: None,
            is_named: false,
            counted_by,
            watched: Watched::No,
            is_readable: false,
            is_ended: false,
        }
    }

    /// Where it stands, to judge what is due. The loan is read once: a handler's thread may change it meanwhile.
    pub fn standing(&self) -> Standing {
        let (loan, is_noted) = self.client.standing();
        Standing {
            phase: self.phase,
            loan,
            is_noted,
            begun: self.begun,
            deadline: self.deadline,
            has_input: self.has_unseen(),
        }
    }

    /// Whether there is input that no parser has seen: where one has, it is an empty line at the most.
    fn has_unseen(&self) -> bool {
        !self.input.is_empty() && matches!(self.reading, Reading::Nothing)
    }

    /// Whether its next request, or the beginning of it, is here.
    pub fn has_next(&self) -> bool {
        self.phase == Phase::Idle && self.has_unseen()
    }

    /// Whether what has come of its request asks for the head of the answer alone.
    pub fn asks_for_head(&self) -> bool {
        match &self.reading {
            Reading::Body(incoming) => incoming.checked.method() == "HEAD",
            _ => is_head(&self.input),
        }
    }

    /// Says that its handler takes long. It cannot be stopped, but it can be known.
    pub fn name_slow(&mut self, seconds: u64) {
        self.is_named = true;
        if let Some((checked, _)) = &self.current {
            log::warn(format_args!(
                "a handler has been at {} {} for {seconds} s, for {}",
                checked.method(),
                checked.path(),
                self.client.origin()
            ));
        }
    }

    /// Its handler was done at this time: the end of what `name_slow` said, if it did.
    pub fn was_slow(&mut self, until: u64) {
        if !std::mem::take(&mut self.is_named) {
            return;
        }
        if let Some((checked, since)) = &self.current {
            log::info(format_args!(
                "the handler at {} {} is done after {:.1} s",
                checked.method(),
                checked.path(),
                until.saturating_sub(*since) as f64 / 1000.0
            ));
        }
    }

    /// Bytes of memory that it holds by what its client has sent, or has not read. What waits for a handler is
    /// counted where it waits.
    pub fn held(&self) -> usize {
        if self.phase == Phase::Lent {
            return 0;
        }
        let body = match &self.reading {
            Reading::Body(incoming) => incoming.body.capacity(),
            _ => 0,
        };
        let output = self.output.as_ref().map_or(0, |output| output.held());
        self.input.capacity() + body + output
    }
}

/// A request that is not complete.
#[derive(Default)]
pub(super) enum Reading {
    #[default]
    Nothing,
    Head(Box<Parser>),
    Body(Box<Incoming>),
}

/// A request whose body is not complete.
pub(super) struct Incoming {
    pub checked: Checked,
    pub body: Vec<u8>,
    pub chunked: Chunked,
    /// Most bytes of the body; `None` where nobody takes a request like this one.
    pub max: Option<u64>,
    /// When it began, on the exchange's clock, and how many bytes of it have come.
    pub begun: u64,
    pub received: u64,
}

impl Incoming {
    /// Bytes that are still to come of a body whose length is known.
    pub fn left(&self) -> u64 {
        match self.checked.head.length {
            Length::Known(length) => length.saturating_sub(self.body.len() as u64),
            _ => 0,
        }
    }
}

/// Whether a head that cannot be served, perhaps for being cut, asks for HEAD: its refusal has no body then.
pub(super) fn is_head(input: &[u8]) -> bool {
    let start = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    start.is_some_and(|start| input[start..].starts_with(b"HEAD "))
}

/// What is to be done next with a connection. The files that read and send know one connection and say this; the gate,
/// which knows them all, does it.
pub(super) enum Step {
    /// Nothing now: it is not its socket that it waits for.
    Rest,
    /// To wait until the socket is ready for this, or the deadline is over.
    Wait(Interest),
    /// To read on in what is here already: the beginning of the next request.
    GoOn,
    /// To answer with a refusal, without its body if `is_head`, and close. `checked`: the request, where it could be read;
    /// what has come of another one is in the connection.
    Refuse {
        why: Refusal,
        is_head: bool,
        checked: Option<Arc<Checked>>,
    },
    /// To answer for the worker as a whole; what came behind the request is `rest`.
    Health {
        checked: Arc<Checked>,
        rest: Vec<u8>,
    },
    /// To answer for all workers together, in the same way.
    Numbers {
        asked: Asked,
        checked: Arc<Checked>,
        rest: Vec<u8>,
    },
    /// To answer without a handler, in the same way.
    Ready {
        response: Ready,
        checked: Arc<Checked>,
        rest: Vec<u8>,
    },
    /// To give a request to a handler.
    Lend(Box<Request>),
    /// To find a thread for a body that is longer than what is collected.
    Upload(Box<Incoming>),
    /// To send this.
    Answer(Box<Output>),
    /// To wait until there is something to send.
    Park,
    /// To have a handler make the next piece of this.
    Refill(Box<Output>),
    /// The same for what may have to wait for a disk: an answer from a file, or the next piece of one.
    Fetch(Work),
    /// To go on after an answer that is out whole, with so many bytes.
    Answered {
        after: After,
        sent: u64,
    },
    /// To close it in the middle of an answer.
    Cut,
    Close,
}
