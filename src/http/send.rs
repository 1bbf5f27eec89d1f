//! What goes out by the gate: refusals, what a handler's thread could not send at once, and the end of a connection.
#![forbid(unsafe_code)]

use super::exchange::{Note, Token, Work};
use super::gate::{Gate, LINGER, LINGER_MOST, LINGER_RATE, Phase, Reading};
use super::head::{Parser, Refusal};
use super::output::{Load, Output, Pushed};
use super::routes::refusal;
use super::server;
use crate::sys::epoll::Interest;
use crate::sys::socket;
use std::borrow::Cow;
use std::io::ErrorKind;
use std::os::fd::AsFd;

impl Gate {
    pub(super) fn take_note(&mut self, note: Note) {
        match note {
            Note::Back {
                token,
                is_more,
                surplus,
            } => {
                // One that was armed may have been lent again meanwhile, and be on its way back with a note of its own.
                let is_old = self
                    .connection(token)
                    .is_some_and(|connection| connection.client.is_being_armed() && !is_more);
                if !is_old {
                    self.take_surplus(token, surplus);
                    self.come_back(token, false);
                }
            }
            Note::Rest {
                token,
                output,
                surplus,
            } => {
                self.take_surplus(token, surplus);
                self.answer(token, output);
            }
            Note::Broken(token) => {
                if let Some(connection) = self.connection(token) {
                    connection.phase = Phase::Writing;
                    self.cut(token);
                }
            }
            Note::Permit => self.next_upload(),
        }
    }

    /// What a handler received beyond its body is the beginning of the next request.
    fn take_surplus(&mut self, token: Token, surplus: Vec<u8>) {
        if surplus.is_empty() {
            return;
        }
        if let Some(connection) = self.connection(token) {
            connection.input = surplus;
        }
    }

    /// Answers with a refusal, without its body if that is what HEAD asked for, and closes.
    pub(super) fn refuse(&mut self, token: Token, why: Refusal, is_head: bool) {
        if let Some(connection) = self.connection(token) {
            connection.input = Vec::new();
            connection.reading = Reading::Nothing;
            let client = std::sync::Arc::clone(&connection.client);
            let (slot, refusals) = (self.exchange.slot, &self.exchange.refusals);
            refusals.answered(slot, &client, why);
            let mut response = refusal(why.status, why.reason);
            if matches!(why.status, 429 | 503) {
                response = response.with_header("Retry-After", "1");
            }
            let bytes = server::render(&response, is_head);
            let output = Output::new(bytes, Load::Bytes(Cow::Borrowed(b""), 0), true);
            self.answer(token, Box::new(output));
        }
    }

    fn answer(&mut self, token: Token, mut output: Box<Output>) {
        let now = self.now;
        let deadline = now + self.bounds.progress;
        let held = output.held();
        let Some(connection) = self.connection(token) else {
            return;
        };
        Gate::was_slow(connection, now);
        connection.phase = Phase::Writing;
        connection.begun = now;
        connection.deadline = deadline;
        output.start_counting(connection.client.as_fd());
        connection.output = Some(output);
        self.due(deadline);
        self.write(token);
        self.waited += held;
        self.keep(held);
    }

    /// Sends on what waits, as far as the socket takes it.
    pub(super) fn write(&mut self, token: Token) {
        let now = self.now;
        let Some(connection) = self.connection(token) else {
            return;
        };
        let Some(mut output) = connection.output.take() else {
            return;
        };
        let socket = connection.client.as_fd();
        let pushed = match output.push(socket) {
            Ok(pushed) => pushed,
            Err(error) => {
                if error.kind() == ErrorKind::UnexpectedEof {
                    crate::log::warn(format_args!(
                        "{}: its answer broke off: the file is shorter than it was",
                        connection.client.origin()
                    ));
                    return self.cut(token);
                }
                return self.close(token);
            }
        };
        match pushed {
            Pushed::Whole => self.finish(token, output.close),
            Pushed::Empty => {
                let more = !connection.input.is_empty();
                self.send_on(token, Work::Refill(output), more, 0);
            }
            Pushed::Full | Pushed::Enough => {
                let (moved, begun) = (output.has_moved(socket), connection.begun);
                let taken = output.taken();
                connection.output = Some(output);
                if moved {
                    let deadline = self.bounds.transfer(now, begun, taken);
                    if let Some(connection) = self.connection(token) {
                        connection.deadline = deadline;
                    }
                    self.due(deadline);
                }
                self.arm(token, Interest::WritableOnce);
            }
        }
    }

    /// Closes a connection in the middle of an answer, which must not look complete then: the end of the connection
    /// can be the end of the answer.
    pub(super) fn cut(&mut self, token: Token) {
        if let Some(connection) = self.connection(token) {
            socket::reset_on_close(connection.client.as_fd());
        }
        self.close(token);
    }

    /// An answer is out.
    fn finish(&mut self, token: Token, close: bool) {
        let (now, idle) = (self.now, self.now + self.bounds.idle);
        let drain = self.drain.is_some();
        let Some(connection) = self.connection(token) else {
            return;
        };
        let answered = connection.current.take().is_some();
        if answered {
            self.exchange.slot.add_answered();
            self.drained.finished += u64::from(drain);
        }
        let Some(connection) = self.connection(token) else {
            return;
        };
        connection.begun = now;
        if close {
            socket::shutdown_write(connection.client.as_fd());
            connection.phase = Phase::Lingering;
            connection.input = Vec::new();
            connection.deadline = now + LINGER;
            self.due(now + LINGER);
        } else {
            connection.phase = Phase::Idle;
            connection.deadline = idle;
            let input = std::mem::take(&mut connection.input);
            self.due(idle);
            if !input.is_empty() {
                return self.parse(token, Parser::new(), Cow::Owned(input));
            }
        }
        self.arm(token, Interest::ReadableOnce);
    }

    /// Reads and forgets until the client closes, so that the answer before is not lost to a reset.
    pub(super) fn discard(&mut self, token: Token) {
        let now = self.now;
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.connection(token) {
            match socket::receive(connection.client.as_fd(), &mut scratch) {
                Ok(count) if count > 0 => {
                    let bought = count as u64 * 1000 / LINGER_RATE;
                    let most = (now + LINGER).min(connection.begun + LINGER_MOST);
                    connection.deadline = (connection.deadline + bought).min(most);
                    self.arm(token, Interest::ReadableOnce)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.arm(token, Interest::ReadableOnce)
                }
                _ => self.close(token),
            }
        }
        self.scratch = scratch;
    }
}
