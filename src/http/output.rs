//! An answer on its way out: bytes from memory, a file, or a stream that is made as it is sent. A handler's thread
//! sends what the socket takes at once; the gate goes on with the rest, and asks for a thread again only where the
//! next piece of a stream is to be made.
#![forbid(unsafe_code)]

use crate::sys::socket;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of a stream that are made at a time, and so the most of it that waits in memory.
const PIECE: usize = 32 * 1024;
/// Bytes of a file that one turn sends at the most, so that one fast reader does not hold up all others.
const FILE_TURN: u64 = 1024 * 1024;

/// What follows the head.
pub(crate) enum Load {
    /// Bytes, and how many of them are sent.
    Bytes(Cow<'static, [u8]>, usize),
    /// A file from where it stands, and how many bytes of it are left.
    File(File, u64),
    Stream(Flow),
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
/// any thread, with other work to do, that lets go of it.
pub(crate) struct Reader(Option<Box<dyn Read + Send>>);

impl Reader {
    pub fn new(reader: impl Read + Send + 'static) -> Reader {
        Reader(Some(Box::new(reader)))
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |reader| reader.read(buffer))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let reader = self.0.take();
        // The panic hook logs it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(reader)));
    }
}

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
    /// The next piece of the stream has to be made.
    Empty,
}

/// One answer, or what is left of it.
pub(crate) struct Output {
    /// What goes first: the rest of a head, or of a piece of the stream.
    bytes: Vec<u8>,
    at: usize,
    load: Load,
    /// The connection ends with it.
    pub close: bool,
    /// Bytes given to the kernel since the gate has it.
    sent: u64,
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
            sent: 0,
            unread: None,
            seen: 0,
        }
    }

    /// From here on it is the gate that sends, and that minds how the client takes it.
    pub fn start_counting(&mut self, socket: BorrowedFd<'_>) {
        (self.sent, self.seen) = (0, 0);
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

    /// Bytes that it holds in memory.
    pub fn held(&self) -> usize {
        let load = match &self.load {
            Load::Bytes(Cow::Owned(bytes), _) => bytes.capacity(),
            _ => 0,
        };
        self.bytes.capacity() + load
    }

    /// Gives the socket what it takes.
    ///
    /// # Errors
    /// The client is gone, or a file turned out shorter than it was: what is said cannot be kept, and the connection
    /// has to end.
    pub fn push(&mut self, socket: BorrowedFd<'_>) -> io::Result<Pushed> {
        let mut turn = FILE_TURN;
        loop {
            let first = &self.bytes[self.at..];
            let pushed = match &mut self.load {
                Load::Bytes(bytes, at) => {
                    let then = &bytes[*at..];
                    if first.is_empty() && then.is_empty() {
                        return Ok(Pushed::Whole);
                    }
                    let pushed = socket::send(socket, &[IoSlice::new(first), IoSlice::new(then)]);
                    *at += pushed
                        .as_ref()
                        .map_or(0, |count| count.saturating_sub(first.len()));
                    pushed
                }
                Load::File(_, left) if !first.is_empty() => {
                    socket::send_more(socket, first, *left > 0)
                }
                Load::File(_, 0) => return Ok(Pushed::Whole),
                Load::File(_, _) if turn == 0 => return Ok(Pushed::Enough),
                Load::File(file, left) => {
                    let count = usize::try_from((*left).min(turn)).unwrap_or(usize::MAX);
                    match socket::send_file(socket, file, count) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(count) => {
                            *left -= count as u64;
                            turn -= count as u64;
                            self.sent += count as u64;
                            continue;
                        }
                        // Some file systems have no sendfile(2): it is read then, as a stream is.
                        Err(error) if socket::cannot_send_file(&error) => {
                            let nothing = Load::Bytes(Cow::Borrowed(b""), 0);
                            if let Load::File(file, left) =
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
                Load::Stream(_) if !first.is_empty() => socket::send_more(socket, first, false),
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
                    self.at = (self.at + count).min(self.bytes.len());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Pushed::Full),
                Err(error) => return Err(error),
            }
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
