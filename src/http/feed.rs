//! A body that comes when it comes: pieces that any thread puts in, and that the gate sends on. While there are none it
//! holds neither a thread nor a place in anybody's loop: who puts one in has the gate woken.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that may wait for one client: one that reads more slowly than they come has its stream ended, and may come again.
const MOST_WAITING: usize = 256 * 1024;
/// Bytes that are put into one chunk at the least, where so many wait.
const PIECE: usize = 16 * 1024;

/// Wakes whoever sends.
type Wake = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Arc<[u8]>>,
    bytes: usize,
    /// Nothing more comes.
    is_over: bool,
    /// Nobody takes anything any more.
    is_gone: bool,
    /// Who sends waits to be woken.
    is_parked: bool,
    wake: Option<Wake>,
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end that pieces are put into. When it is dropped the body is over.
pub(super) struct Source(Arc<Mutex<Queue>>);

/// The end that is sent.
pub(crate) struct Feed {
    queue: Arc<Mutex<Queue>>,
    /// Its end has been written.
    is_ended: bool,
    /// Every piece is a chunk; otherwise the end of the connection is the end of the body.
    pub is_chunked: bool,
}

/// What there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// This, which was appended.
    Something,
    /// Nothing for now.
    Nothing,
    /// Nothing any more.
    Over,
}

/// Both ends of one.
pub(super) fn pair() -> (Source, Feed) {
    let queue: Arc<Mutex<Queue>> = Arc::default();
    let feed = Feed {
        queue: Arc::clone(&queue),
        is_ended: false,
        is_chunked: true,
    };
    (Source(queue), feed)
}

impl Source {
    /// Puts a piece in; false where nobody takes it.
    pub fn put(&self, piece: &Arc<[u8]>) -> bool {
        let mut queue = lock(&self.0);
        if queue.is_gone || queue.is_over {
            return false;
        }
        if queue.bytes + piece.len() > MOST_WAITING && queue.bytes > 0 {
            queue.is_over = true;
        } else {
            queue.bytes += piece.len();
            queue.pieces.push_back(Arc::clone(piece));
        }
        let is_taken = !queue.is_over;
        wake(queue);
        is_taken
    }

    /// Whether somebody still takes what is put in.
    pub fn is_heard(&self) -> bool {
        let queue = lock(&self.0);
        !queue.is_gone && !queue.is_over
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.is_over = true;
        wake(queue);
    }
}

/// Wakes who waits, once it is not in the way.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let wake = match std::mem::take(&mut queue.is_parked) {
        true => queue.wake.clone(),
        false => None,
    };
    drop(queue);
    if let Some(wake) = wake {
        wake();
    }
}

impl Feed {
    /// Appends what is there, framed, or what ends the body.
    pub fn take(&mut self, out: &mut Vec<u8>) -> Taken {
        if self.is_ended {
            return Taken::Over;
        }
        let mut queue = lock(&self.queue);
        let (mut count, mut bytes) = (0, 0);
        for piece in &queue.pieces {
            if bytes >= PIECE {
                break;
            }
            (count, bytes) = (count + 1, bytes + piece.len());
        }
        if count == 0 && !queue.is_over {
            return Taken::Nothing;
        }
        if count == 0 {
            self.is_ended = true;
            if !self.is_chunked {
                return Taken::Over;
            }
            out.extend_from_slice(b"0\r\n\r\n");
            return Taken::Something;
        }
        if self.is_chunked {
            let _ = write!(out, "{bytes:x}\r\n");
        }
        for piece in queue.pieces.drain(..count) {
            out.extend_from_slice(&piece);
        }
        queue.bytes -= bytes;
        if self.is_chunked {
            out.extend_from_slice(b"\r\n");
        }
        Taken::Something
    }

    /// Waits to be woken by this. False where there is something to send already.
    pub fn park(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        let mut queue = lock(&self.queue);
        queue.is_parked = queue.pieces.is_empty() && !queue.is_over;
        if queue.wake.is_none() {
            queue.wake = Some(Arc::new(wake));
        }
        queue.is_parked
    }

    /// Puts a piece in by itself, so that whoever reads is seen to be there.
    pub fn put(&self, piece: &[u8]) {
        let mut queue = lock(&self.queue);
        queue.bytes += piece.len();
        queue.pieces.push_back(piece.into());
    }

    /// Nothing more is taken than what is there.
    pub fn end(&self) {
        lock(&self.queue).is_over = true;
    }

    /// Bytes that wait. What is sent to many is counted for each of them.
    pub fn waiting(&self) -> usize {
        lock(&self.queue).bytes
    }

    /// All that waits, unframed.
    pub fn drain(&self) -> Vec<u8> {
        let mut queue = lock(&self.queue);
        queue.bytes = 0;
        let pieces: Vec<Arc<[u8]>> = queue.pieces.drain(..).collect();
        pieces.concat()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        queue.is_gone = true;
        queue.wake = None;
        queue.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn piece(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    fn taken(feed: &mut Feed) -> (Taken, String) {
        let mut out = Vec::new();
        let taken = feed.take(&mut out);
        (taken, String::from_utf8(out).unwrap())
    }

    #[test]
    fn pieces_come_out_framed_and_in_order_and_then_the_end() {
        let (source, mut feed) = pair();
        assert_eq!(taken(&mut feed), (Taken::Nothing, String::new()));
        assert!(source.put(&piece("a")) && source.put(&piece("bc")));
        let both = "3\r\nabc\r\n".to_owned();
        assert_eq!(taken(&mut feed), (Taken::Something, both));
        assert!(source.put(&piece("d")));
        drop(source);
        let last = "1\r\nd\r\n".to_owned();
        assert_eq!(taken(&mut feed), (Taken::Something, last));
        let end = "0\r\n\r\n".to_owned();
        assert_eq!(taken(&mut feed), (Taken::Something, end));
        assert_eq!(taken(&mut feed), (Taken::Over, String::new()));
        let (source, mut feed) = pair();
        feed.is_chunked = false;
        assert!(source.put(&piece("a")));
        feed.end();
        assert!(!source.put(&piece("b")));
        assert_eq!(taken(&mut feed), (Taken::Something, "a".to_owned()));
        assert_eq!(taken(&mut feed), (Taken::Over, String::new()));
    }

    #[test]
    fn who_waits_is_woken_once_and_never_waits_for_what_is_there() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = || {
            let woken = Arc::clone(&woken);
            move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }
        };
        let (source, mut feed) = pair();
        assert!(feed.park(count()));
        assert!(source.put(&piece("a")) && source.put(&piece("b")));
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(!feed.park(count()));
        taken(&mut feed);
        assert!(feed.park(count()));
        drop(source);
        assert_eq!(woken.load(Ordering::SeqCst), 2);
        let (source, feed) = pair();
        assert!(feed.park(count()) && source.is_heard());
        drop(feed);
        assert!(!source.put(&piece("a")) && !source.is_heard());
    }

    #[test]
    fn who_does_not_read_is_ended_and_keeps_no_more() {
        let (source, mut feed) = pair();
        let large = piece(&"x".repeat(100_000));
        assert!(source.put(&large) && source.put(&large));
        assert!(!source.put(&large) && !source.put(&large));
        let mut length = 0;
        loop {
            match taken(&mut feed) {
                (Taken::Something, text) => length += text.len(),
                (Taken::Over, _) => break,
                (Taken::Nothing, _) => panic!("it is over"),
            }
        }
        assert_eq!(length, 2 * (100_000 + "186a0\r\n\r\n".len()) + 5);
    }
}
