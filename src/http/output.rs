//! An answer on its way out: bytes from memory, a file, or a stream that is made as it is sent. A handler's thread
//! sends what the socket takes at once; the gate goes on with the rest, and asks for a thread again only where the
//! next piece of a stream is to be made, or of a file is to be fetched from a disk.
#![forbid(unsafe_code)]

use super::checked::Checked;
use super::feed::{Feed, Taken};
use super::record::Entry;
use crate::sys::{file, socket};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a stream that are made at a time, and so the most of it that waits in memory.
const PIECE: usize = 32 * 1024;
/// Bytes of a file that one turn of a thread sends at the most, so that others get a thread, too.
const FILE_TURN: u64 = 1024 * 1024;
/// The same for the gate, where one fast reader must not hold up all others.
const GATE_TURN: u64 = 256 * 1024;
/// Bytes of a file that a thread has fetched beyond what it sent, for the gate to find.
const AHEAD: u64 = 256 * 1024;

/// What follows the head.
pub(crate) enum Load {
    /// Bytes, and how many of them are sent.
    Bytes(Cow<'static, [u8]>, usize),
    /// A file, where in it the next byte is, and how many are left.
    File {
        file: File,
        at: u64,
        left: u64,
    },
    Stream(Flow),
    /// What comes when it comes.
    Feed(Feed),
}

/// How the end of a stream is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes are left.
    Known(u64),
    Chunked,
    /// The end of the connection is the end of the body.
    UntilClose,
}

/// A reader that an application gave. What it does when it is dropped may panic, and that is caught here: it can be
/// any thread, with other work to do, that lets go of it. Nobody waits for the lock, for only its owner reads; it is there
/// so that an answer, which may hold a reader, can be shared where it holds none.
pub(crate) struct Reader(Mutex<Option<Box<dyn Read + Send>>>);

impl Reader {
    pub fn new(reader: impl Read + Send + 'static) -> Reader {
        Reader(Mutex::new(Some(Box::new(reader))))
    }

    fn inner(&mut self) -> &mut Option<Box<dyn Read + Send>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner()
            .as_mut()
            .map_or(Ok(0), |reader| reader.read(buffer))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let reader = self.inner().take();
        contain(|| drop(reader));
    }
}

/// Runs what an application gave; `None` where it panicked, which the panic hook has logged. What a panic carries is the
/// application's, too, and may panic when it is dropped; what that one carries is left where it is.
pub(crate) fn contain<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Some(result),
        Err(carried) => {
            if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(carried))) {
                std::mem::forget(another);
            }
            None
        }
    }
}

/// Sends so many bytes from a place in a file, or less; `None` where somebody else has to.
type SendFile<'a> = dyn FnMut(&File, u64, usize) -> io::Result<Option<usize>> + 'a;

/// A body that is made as it is sent.
pub(crate) struct Flow {
    reader: Reader,
    framing: Framing,
    is_over: bool,
}

/// How far a push came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// All is with the kernel.
    Whole,
    /// The socket takes no more for now.
    Full,
    /// The socket would take more; this was enough for one turn.
    Enough,
    /// The next piece has to be made, or fetched: that may wait, and is for a handler's thread.
    Empty,
    /// Nothing is there to be sent, until somebody has something.
    Parked,
}

/// One answer, or what is left of it.
pub(crate) struct Output {
    /// What goes first: the rest of a head, or of a piece of the stream.
    bytes: Vec<u8>,
    at: usize,
    load: Load,
    /// The connection ends with it.
    pub close: bool,
    /// The request that it answers, where the rest of the body is still to be made.
    pub checked: Option<Arc<Checked>>,
    /// Its line in the access log, if there is to be one.
    entry: Option<Box<Entry>>,
    /// Bytes given to the kernel since the gate has it.
    sent: u64,
    /// Those of before.
    before: u64,
    /// Bytes in the kernel's hands that the client had not taken: when the gate got it, and when last asked. `None`
    /// where the kernel does not tell.
    unread: Option<(u32, u32)>,
    /// What the client had taken when it was last asked.
    seen: u64,
}

impl Output {
    pub fn new(bytes: Vec<u8>, load: Load, close: bool) -> Output {
        Output {
            bytes,
            at: 0,
            load,
            close,
            checked: None,
            entry: None,
            sent: 0,
            before: 0,
            unread: None,
            seen: 0,
        }
    }

    /// The rest of an answer of which so many bytes are out.
    pub fn after(mut self, sent: usize) -> Output {
        self.before = sent as u64;
        self
    }

    /// All bytes of the answer that the kernel has been given.
    pub fn total(&self) -> u64 {
        self.before + self.sent
    }

    /// The same with its line in the access log, which knows of all that was sent before.
    pub fn recorded(self, entry: Option<Box<Entry>>) -> Output {
        Output { entry, ..self }
    }

    /// It has ended, and its line can be written.
    pub fn end_record(&mut self) {
        self.entry = None;
    }

    /// From here on it is the gate that sends, and that minds how the client takes it.
    pub fn start_counting(&mut self, socket: BorrowedFd<'_>) {
        (self.before, self.sent, self.seen) = (self.total(), 0, 0);
        self.unread = socket::unsent(socket).map(|unread| (unread, unread));
    }

    /// Whether the client has taken any of it since this was last asked. What the socket takes is not it: that may be
    /// room that the kernel made.
    pub fn has_moved(&mut self, socket: BorrowedFd<'_>) -> bool {
        if let (Some((_, last)), Some(now)) = (&mut self.unread, socket::unsent(socket)) {
            *last = now;
        }
        let taken = self.taken();
        std::mem::replace(&mut self.seen, taken) < taken
    }

    /// Bytes that the client has taken since the gate has it.
    pub fn taken(&self) -> u64 {
        match self.unread {
            Some((first, last)) => (u64::from(first) + self.sent).saturating_sub(u64::from(last)),
            None => self.sent,
        }
    }

    /// Whether what is left of it has to be fetched from a disk.
    pub fn is_file(&self) -> bool {
        matches!(self.load, Load::File { .. })
    }

    /// Bytes that it holds in memory.
    pub fn held(&self) -> usize {
        let load = match &self.load {
            Load::Bytes(Cow::Owned(bytes), _) => bytes.capacity(),
            Load::Feed(feed) => feed.waiting(),
            _ => 0,
        };
        self.bytes.capacity() + load
    }

    /// Gives the socket what it takes. It waits for the disk that a file is on.
    ///
    /// # Errors
    /// The client is gone, or a file turned out shorter than it was: what is said cannot be kept, and the connection
    /// has to end.
    pub fn push(&mut self, socket: BorrowedFd<'_>) -> io::Result<Pushed> {
        let pushed = self.push_by(socket, FILE_TURN, &mut |file, at, count| {
            socket::send_file(socket, file, at, count).map(Some)
        });
        if let (Ok(Pushed::Full | Pushed::Enough), Load::File { file, at, left }) =
            (&pushed, &self.load)
        {
            file::read_ahead(file, *at, (*left).min(AHEAD));
        }
        pushed
    }

    /// The same for the gate, which waits for nothing: of a file it sends what the kernel has at hand, by way of
    /// `scratch`.
    pub fn push_at_hand(
        &mut self,
        socket: BorrowedFd<'_>,
        scratch: &mut [u8],
    ) -> io::Result<Pushed> {
        self.push_by(socket, GATE_TURN, &mut |file, at, count| {
            let count = count.min(scratch.len());
            match file::read_at_hand(file, &mut scratch[..count], at) {
                None => Ok(None),
                Some(0) => Ok(Some(0)),
                Some(count) => socket::send(socket, &[IoSlice::new(&scratch[..count])]).map(Some),
            }
        })
    }

    fn push_by(
        &mut self,
        socket: BorrowedFd<'_>,
        mut turn: u64,
        send_file: &mut SendFile<'_>,
    ) -> io::Result<Pushed> {
        loop {
            if let (Load::Feed(feed), true) = (&mut self.load, self.at == self.bytes.len()) {
                self.bytes.clear();
                self.at = 0;
                match feed.take(&mut self.bytes) {
                    Taken::Something => {}
                    Taken::Nothing => return Ok(Pushed::Parked),
                    Taken::Over => return Ok(Pushed::Whole),
                }
            }
            let first = &self.bytes[self.at..];
            let pushed = match &mut self.load {
                Load::Bytes(bytes, at) => {
                    let then = &bytes[*at..];
                    if first.is_empty() && then.is_empty() {
                        return Ok(Pushed::Whole);
                    }
                    let pushed = socket::send_more(
                        socket,
                        &[IoSlice::new(first), IoSlice::new(then)],
                        self.close,
                    );
                    *at += pushed
                        .as_ref()
                        .map_or(0, |count| count.saturating_sub(first.len()));
                    pushed
                }
                Load::File { left, .. } if !first.is_empty() => {
                    socket::send_more(socket, &[IoSlice::new(first)], *left > 0)
                }
                Load::File { left: 0, .. } => return Ok(Pushed::Whole),
                Load::File { .. } if turn == 0 => return Ok(Pushed::Enough),
                Load::File { file, at, left } => {
                    let count = usize::try_from((*left).min(turn)).unwrap_or(usize::MAX);
                    match send_file(file, *at, count) {
                        Ok(None) => return Ok(Pushed::Empty),
                        Ok(Some(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(Some(count)) => {
                            let count = count as u64;
                            *at += count;
                            *left -= count;
                            turn -= count;
                            self.sent += count;
                            if let Some(entry) = &mut self.entry {
                                entry.sent += count;
                            }
                            continue;
                        }
                        // Some file systems have no sendfile(2): it is read then, as a stream is.
                        Err(error) if socket::cannot_send_file(&error) => {
                            file.seek(SeekFrom::Start(*at))?;
                            let nothing = Load::Bytes(Cow::Borrowed(b""), 0);
                            if let Load::File { file, left, .. } =
                                std::mem::replace(&mut self.load, nothing)
                            {
                                let flow = Flow::new(Reader::new(file), Framing::Known(left));
                                self.load = Load::Stream(flow);
                            }
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
                Load::Feed(_) => socket::send(socket, &[IoSlice::new(first)]),
                Load::Stream(_) if !first.is_empty() => {
                    socket::send(socket, &[IoSlice::new(first)])
                }
                Load::Stream(flow) => {
                    return Ok(match flow.is_over {
                        true => Pushed::Whole,
                        false => Pushed::Empty,
                    });
                }
            };
            match pushed {
                Ok(count) => {
                    self.sent += count as u64;
                    if let Some(entry) = &mut self.entry {
                        entry.sent += count as u64;
                    }
                    self.at = (self.at + count).min(self.bytes.len());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Pushed::Full),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for something to send, and is woken by this. False where something is there already.
    pub fn park(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        match &self.load {
            Load::Feed(feed) => feed.park(wake),
            _ => false,
        }
    }

    /// Puts a comment in where nothing has been sent for a while (server-sent events, HTML standard §9.2.7).
    pub fn sign_of_life(&self) {
        if let Load::Feed(feed) = &self.load {
            feed.put(b":\n\n");
        }
    }

    /// What comes when it comes comes no more.
    pub fn end_feed(&self) {
        if let Load::Feed(feed) = &self.load {
            feed.end();
        }
    }

    /// Makes the next piece of a stream. For a handler's thread alone: it takes as long as its reader takes.
    ///
    /// # Errors
    /// Those of the reader; or it ended before the length that was promised.
    pub fn refill(&mut self) -> io::Result<()> {
        let Load::Stream(flow) = &mut self.load else {
            return Ok(());
        };
        self.at = 0;
        self.bytes.clear();
        flow.next(&mut self.bytes)
    }
}

impl Flow {
    pub fn new(reader: Reader, framing: Framing) -> Flow {
        Flow {
            reader,
            framing,
            is_over: framing == Framing::Known(0),
        }
    }

    /// Appends the next piece, framed; nothing, or what ends the body, when it is over.
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        /// Room for the size line of a chunk, which is known when its bytes are there: four digits hold `PIECE`.
        const SIZE_LINE: usize = 6;
        let (start, most) = match self.framing {
            Framing::Known(left) => (0, usize::try_from(left).unwrap_or(PIECE).min(PIECE)),
            Framing::Chunked => (SIZE_LINE, PIECE),
            Framing::UntilClose => (0, PIECE),
        };
        out.resize(start + most, 0);
        let count = loop {
            match self.reader.read(&mut out[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?.min(most),
            }
        };
        out.truncate(start + count);
        match &mut self.framing {
            Framing::Known(_) if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Framing::Known(left) => {
                *left -= count as u64;
                self.is_over = *left == 0;
            }
            Framing::UntilClose => self.is_over = count == 0,
            Framing::Chunked if count == 0 => {
                self.is_over = true;
                out.clear();
                out.extend_from_slice(b"0\r\n\r\n");
            }
            Framing::Chunked => {
                write!(&mut out[..SIZE_LINE], "{count:04x}\r\n")?;
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every piece of a stream in a row.
    fn pieces(bytes: &'static [u8], framing: Framing) -> io::Result<Vec<String>> {
        let mut flow = Flow::new(Reader::new(bytes), framing);
        let mut pieces = Vec::new();
        while !flow.is_over {
            let mut out = Vec::new();
            flow.next(&mut out)?;
            pieces.push(String::from_utf8(out).unwrap());
        }
        Ok(pieces)
    }

    #[test]
    fn streams_are_framed_as_their_length_allows() {
        assert_eq!(
            pieces(b"hello", Framing::Chunked).unwrap(),
            ["0005\r\nhello\r\n", "0\r\n\r\n"]
        );
        assert_eq!(pieces(b"hello", Framing::Known(5)).unwrap(), ["hello"]);
        assert_eq!(pieces(b"hello", Framing::Known(4)).unwrap(), ["hell"]);
        assert!(pieces(b"hello", Framing::Known(6)).is_err());
        assert!(pieces(b"", Framing::Known(0)).unwrap().is_empty());
        assert_eq!(
            pieces(b"hello", Framing::UntilClose).unwrap(),
            ["hello", ""]
        );
        let long: &[u8] = Box::leak(vec![b'x'; PIECE + 1].into_boxed_slice());
        let made = pieces(long, Framing::Chunked).unwrap();
        assert!(made[0].starts_with("8000\r\nx") && made[1] == "0001\r\nx\r\n");
    }
}
