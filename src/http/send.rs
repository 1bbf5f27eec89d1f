//! What goes out by the gate: its own answers, and what a handler's thread could not send at once. It knows one
//! connection at a time and says what is next to do with it ([`Step`]).
#![forbid(unsafe_code)]

use super::bounds::{Bounds, LINGER, LINGER_MOST, LINGER_RATE};
use super::checked::Checked;
use super::connection::{Connection, Step};
use super::exchange::{After, Work};
use super::expire::Phase;
use super::head::Refusal;
use super::output::{Load, Output, Pushed};
use super::record::Entry;
use super::response::refusal;
use super::routes::Ready;
use super::server;
use crate::log;
use crate::sys::epoll::Interest;
use crate::sys::{file, socket};
use std::borrow::Cow;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;

/// Milliseconds without anything to send, after which a client is sent a sign of life: proxies in between close what says
/// nothing for 30 to 60 s.
const SIGN_OF_LIFE: u64 = 15_000;

/// The last answer on a connection, which says why; without its body if that is what HEAD asked for.
pub(super) fn refused(why: Refusal, is_head: bool, mut entry: Option<Box<Entry>>) -> Box<Output> {
    let mut response = refusal(why.status, why.reason);
    if matches!(why.status, 429 | 503) {
        response = response.with_header("Retry-After", "1");
    }
    let mut bytes = Vec::new();
    server::render_head(&response, &mut bytes, 1, false);
    if let Some(entry) = &mut entry {
        entry.head = bytes.len() as u64;
    }
    bytes.extend_from_slice(response.body_for(if is_head { "HEAD" } else { "GET" }));
    let nothing = Load::Bytes(Cow::Borrowed(b""), 0);
    Box::new(Output::new(bytes, nothing, true).recorded(entry))
}

/// Room for what is on its way, one thing at a time: bytes that come in, the head of an answer, a piece of a file.
pub(super) struct Room {
    pub scratch: Vec<u8>,
    head: Vec<u8>,
}

/// Bytes that are read at a time.
const SCRATCH: usize = 64 * 1024;

impl Room {
    pub fn new() -> Room {
        Room {
            scratch: vec![0; SCRATCH],
            head: Vec::new(),
        }
    }
}

/// An answer of the gate's to a whole request. Usually one call sends all of it; a file that is not at hand is for a
/// handler's thread to send.
pub(super) fn at_once(
    connection: &mut Connection,
    response: Ready,
    checked: &Arc<Checked>,
    after: After,
    mut entry: Option<Box<Entry>>,
    room: &mut Room,
) -> Step {
    let (method, minor) = (checked.method(), checked.head.minor);
    let (Room { head, scratch }, close) = (room, after != After::Keep);
    server::render_head(&response, head, minor, !close);
    let mut is_away = false;
    let body: &[u8] = match response.sent_file(method) {
        None => response.body_for(method),
        // A longer one goes out in pieces.
        Some((_, _, length)) if length > scratch.len() as u64 => b"",
        Some((_, _, 0)) => b"",
        Some((file, at, length)) => {
            let piece = &mut scratch[..length as usize];
            match file::read_at_hand(file, piece, at) {
                Some(count) if count == piece.len() => piece,
                // Shorter than it was, or in part: whoever sends it in pieces finds out.
                found => {
                    is_away = found.is_none();
                    b""
                }
            }
        }
    };
    let has_all = response.length().unwrap_or(0) == body.len() as u64 || method == "HEAD";
    let mut sent = 0;
    if has_all {
        let parts = [IoSlice::new(head), IoSlice::new(body)];
        sent = match socket::send_more(connection.client.as_fd(), &parts, close) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return Step::Close,
        };
    }
    if let Some(entry) = &mut entry {
        (entry.head, entry.sent) = (head.len() as u64, sent as u64);
    }
    if has_all && sent == head.len() + body.len() {
        let sent = sent as u64;
        return Step::Answered { after, sent };
    }
    let rest = head.get(sent..).unwrap_or_default().to_vec();
    let mut load = response.into_response().into_load(method, minor);
    let beyond = sent.saturating_sub(head.len());
    match &mut load {
        Load::Bytes(_, at) => *at = beyond,
        Load::File { at, left, .. } => {
            *at += beyond as u64;
            *left -= beyond as u64;
        }
        Load::Stream(_) | Load::Feed(_) => {}
    }
    let mut output = Output::new(rest, load, close).after(sent).recorded(entry);
    output.checked = Some(Arc::clone(checked));
    match is_away {
        true => Step::Fetch(Work::Refill(Box::new(output))),
        false => Step::Answer(Box::new(output)),
    }
}

/// An answer begins, or the gate has it from a handler that could not send all of it.
pub(super) fn start(
    connection: &mut Connection,
    mut output: Box<Output>,
    now: u64,
    bounds: &Bounds,
    room: &mut Room,
) -> Step {
    connection.was_slow(now);
    connection.phase = Phase::Writing;
    connection.begun = now;
    connection.deadline = now + bounds.progress;
    output.start_counting(connection.client.as_fd());
    connection.output = Some(output);
    push(connection, now, bounds, room)
}

/// There is something to send where there was nothing.
pub(super) fn resume(
    connection: &mut Connection,
    now: u64,
    bounds: &Bounds,
    room: &mut Room,
) -> Step {
    connection.phase = Phase::Writing;
    connection.begun = now;
    connection.deadline = now + bounds.progress;
    if let Some(output) = &mut connection.output {
        output.start_counting(connection.client.as_fd());
    }
    push(connection, now, bounds, room)
}

/// Sends on what waits, as far as the socket takes it.
pub(super) fn push(
    connection: &mut Connection,
    now: u64,
    bounds: &Bounds,
    room: &mut Room,
) -> Step {
    let Some(mut output) = connection.output.take() else {
        return Step::Rest;
    };
    let socket = connection.client.as_fd();
    match output.push_at_hand(socket, &mut room.scratch) {
        Ok(Pushed::Whole) => Step::Answered {
            after: match output.close {
                true => After::Linger,
                false => After::Keep,
            },
            sent: output.total(),
        },
        Ok(Pushed::Empty) => match output.is_file() {
            true => Step::Fetch(Work::Refill(output)),
            false => Step::Refill(output),
        },
        Ok(Pushed::Parked) => {
            connection.phase = Phase::Parked;
            connection.deadline = now + SIGN_OF_LIFE;
            connection.output = Some(output);
            Step::Park
        }
        Ok(Pushed::Full | Pushed::Enough) => {
            if output.has_moved(socket) {
                connection.deadline = bounds.transfer(now, connection.begun, output.taken());
            }
            connection.output = Some(output);
            Step::Wait(Interest::WritableOnce)
        }
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            let origin = connection.client.origin();
            log::warn(format_args!(
                "{origin}: its answer broke off: the file is shorter than it was"
            ));
            connection.output = Some(output);
            Step::Cut
        }
        Err(_) => {
            connection.output = Some(output);
            Step::Close
        }
    }
}

/// The time for an answer is over. The new deadline, if its reader has taken some of it meanwhile and so has more time.
pub(super) fn new_deadline(connection: &mut Connection, now: u64, bounds: &Bounds) -> Option<u64> {
    let output = connection.output.as_mut()?;
    let moved = output.has_moved(connection.client.as_fd());
    let deadline = bounds.transfer(now, connection.begun, output.taken());
    if !moved || deadline <= now {
        return None;
    }
    connection.deadline = deadline;
    Some(deadline)
}

/// An answer is out.
pub(super) fn finish(connection: &mut Connection, after: After, now: u64, bounds: &Bounds) -> Step {
    connection.begun = now;
    match after {
        After::Keep => {}
        After::Linger => {
            socket::shutdown_write(connection.client.as_fd());
            connection.phase = Phase::Lingering;
            connection.input = Vec::new();
            connection.deadline = now + LINGER;
            return Step::Wait(Interest::ReadableEdge);
        }
        After::Close => {
            // Should it send something all the same, its end of this comes before the reset.
            socket::shutdown_write(connection.client.as_fd());
            return Step::Close;
        }
    }
    connection.phase = Phase::Idle;
    connection.deadline = now + bounds.idle;
    match connection.input.is_empty() {
        true => Step::Wait(Interest::ReadableEdge),
        false => Step::GoOn,
    }
}

/// Reads and forgets until the client closes, so that the answer before is not lost to a reset.
pub(super) fn discard(connection: &mut Connection, scratch: &mut [u8], now: u64) -> Step {
    match socket::receive(connection.client.as_fd(), scratch) {
        Ok(count) if count > 0 => {
            let bought = count as u64 * 1000 / LINGER_RATE;
            let most = (now + LINGER).min(connection.begun + LINGER_MOST);
            connection.deadline = (connection.deadline + bought).min(most);
            connection.is_readable = true;
            Step::Wait(Interest::ReadableEdge)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            connection.is_readable = false;
            Step::Wait(Interest::ReadableEdge)
        }
        _ => Step::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client::Client;
    use crate::settings::{Overrides, Settings};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn bounds() -> Bounds {
        let settings = Settings::without_file(&Overrides::default(), &|_| None).unwrap();
        Bounds::new(&settings)
    }

    fn connection() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let client = Client::new(ours.into(), None);
        (Connection::new(client, Phase::Body, 0, 5, None), theirs)
    }

    #[test]
    fn an_answer_that_fits_is_out_at_once() {
        let (mut connection, mut theirs) = connection();
        let why = Refusal::new(503, "no room");
        let step = start(
            &mut connection,
            refused(why, false, None),
            100,
            &bounds(),
            &mut Room::new(),
        );
        assert!(matches!(
            step,
            Step::Answered {
                after: After::Linger,
                ..
            }
        ));
        let mut heard = [0; 1000];
        let count = theirs.read(&mut heard).unwrap();
        let heard = String::from_utf8_lossy(&heard[..count]);
        assert!(
            heard.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{heard}"
        );
        assert!(heard.contains("\r\nRetry-After: 1\r\n") && heard.ends_with(": no room\n"));
    }

    #[test]
    fn an_answer_that_does_not_fit_waits_as_long_as_its_reader_reads() {
        let (mut connection, mut theirs) = connection();
        let bounds = bounds();
        let nothing = Load::Bytes(Cow::Borrowed(b""), 0);
        let output = Box::new(Output::new(vec![b'x'; 4 << 20], nothing, false));
        let step = start(&mut connection, output, 100, &bounds, &mut Room::new());
        assert!(matches!(step, Step::Wait(Interest::WritableOnce)));
        assert_eq!(connection.phase, Phase::Writing);
        assert!(new_deadline(&mut connection, 200, &bounds).is_none());
        let mut room = vec![0; 4 << 20];
        let mut heard = theirs.read(&mut room).unwrap();
        let step = loop {
            match push(&mut connection, 300, &bounds, &mut Room::new()) {
                Step::Wait(Interest::WritableOnce) => heard += theirs.read(&mut room).unwrap(),
                step => break step,
            }
        };
        assert!(
            matches!(
                step,
                Step::Answered {
                    after: After::Keep,
                    ..
                }
            ) && heard > 1 << 20
        );
    }

    #[test]
    fn whose_client_is_gone_is_closed() {
        let (mut connection, theirs) = connection();
        drop(theirs);
        let why = Refusal::new(400, "bad");
        let step = start(
            &mut connection,
            refused(why, false, None),
            100,
            &bounds(),
            &mut Room::new(),
        );
        assert!(matches!(step, Step::Close));
    }

    #[test]
    fn after_an_answer_the_next_request_is_read_or_the_connection_lingers() {
        let bounds = bounds();
        let (mut idle, _theirs) = connection();
        assert!(matches!(
            finish(&mut idle, After::Keep, 100, &bounds),
            Step::Wait(_)
        ));
        assert_eq!(
            (idle.phase, idle.deadline),
            (Phase::Idle, 100 + bounds.idle)
        );
        idle.input = b"GET".to_vec();
        assert!(matches!(
            finish(&mut idle, After::Keep, 100, &bounds),
            Step::GoOn
        ));
        let (mut last, mut theirs) = connection();
        last.input = b"GET".to_vec();
        assert!(matches!(
            finish(&mut last, After::Linger, 100, &bounds),
            Step::Wait(_)
        ));
        assert_eq!(
            (last.phase, last.deadline),
            (Phase::Lingering, 100 + LINGER)
        );
        assert!(last.input.is_empty() && theirs.read(&mut [0]).unwrap() == 0);
        // What it still sends is thrown away, and buys a little time.
        let mut scratch = [0; 16 * 1024];
        assert!(matches!(
            discard(&mut last, &mut scratch, 500),
            Step::Wait(_)
        ));
        assert_eq!(last.deadline, 100 + LINGER);
        theirs.write_all(&[0; 8192]).unwrap();
        assert!(matches!(
            discard(&mut last, &mut scratch, 700),
            Step::Wait(_)
        ));
        assert_eq!(last.deadline, 100 + LINGER + 500);
        drop(theirs);
        assert!(matches!(discard(&mut last, &mut scratch, 800), Step::Close));
        let (mut over, _theirs) = connection();
        let step = finish(&mut over, After::Close, 100, &bounds);
        assert!(matches!(step, Step::Close));
    }
}
