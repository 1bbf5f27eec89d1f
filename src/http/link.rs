//! The link to the handlers: the private stream into tiny_http, and the jobs of this round. Where the stream breaks, or
//! nothing comes through it, a new tiny_http is made behind a new one, and told again that there is work.
#![forbid(unsafe_code)]

use super::client::Token;
use super::exchange::{Exchange, Job, Work};
use super::server::{MESSAGE, Pool, Seen, Watch};
use crate::sys::epoll::Interest;
use std::io::{self, ErrorKind, Write};
use std::mem::take;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Milliseconds after which a new tiny_http is tried again.
const REBUILD_PAUSE: u64 = 1000;

/// What is at the other end. A test has another one than the gate.
pub(super) trait Behind {
    /// Makes it anew.
    fn rebuild(&self) -> io::Result<UnixStream>;
    /// Whether it is to be told that there are jobs: no message is under way to it.
    fn tell(&self) -> bool;
    /// How the jobs fare.
    fn watch(&self, watch: &mut Watch) -> Seen;
}

impl Behind for Arc<Pool> {
    fn rebuild(&self) -> io::Result<UnixStream> {
        Pool::rebuild(self)
    }

    fn tell(&self) -> bool {
        Pool::tell(self)
    }

    fn watch(&self, watch: &mut Watch) -> Seen {
        Pool::watch(self, watch)
    }
}

/// The gate's end of it.
pub(super) struct Link<B = Arc<Pool>> {
    exchange: Arc<Exchange>,
    behind: B,
    /// `None` after it broke, until another one is made.
    stream: Option<UnixStream>,
    /// No other one is made before this time.
    rebuild_at: u64,
    /// It is new, and does not know yet what waits.
    is_rebuilt: bool,
    /// What was lent in this round.
    round: Vec<Job>,
    /// Requests lent since the start.
    lent: u64,
    watch: Watch,
    look_again: Option<Duration>,
}

impl<B: Behind> Link<B> {
    /// # Errors
    /// Epoll does not take the stream.
    pub fn new(exchange: Arc<Exchange>, behind: B, stream: UnixStream) -> io::Result<Link<B>> {
        let mut link = Link {
            exchange,
            behind,
            stream: None,
            rebuild_at: 0,
            is_rebuilt: false,
            round: Vec::new(),
            lent: 0,
            watch: Watch::default(),
            look_again: None,
        };
        link.attach(stream)?;
        Ok(link)
    }

    fn attach(&mut self, stream: UnixStream) -> io::Result<()> {
        let Token(token) = Token::STREAM;
        self.exchange.epoll.add(&stream, token, Interest::Nothing)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Gives work to the handlers, when the round is over.
    pub fn lend(&mut self, job: Job) {
        if let Work::Answer(_) = job.work {
            self.lent += 1;
        }
        self.exchange.add_waiting(&job);
        self.round.push(job);
    }

    /// Requests that handlers have, or that wait for one.
    pub fn in_flight(&self) -> u64 {
        self.lent - self.exchange.done()
    }

    /// The round is over: all of it is said with one message. Who has not taken the last one yet, takes this with it.
    ///
    /// # Errors
    /// The stream is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        let is_rebuilt = take(&mut self.is_rebuilt);
        if self.round.is_empty() && !is_rebuilt {
            return Ok(());
        }
        self.exchange.lend(&mut self.round);
        self.look_again = Some(Duration::ZERO);
        let needs_message = self.behind.tell();
        let Some(mut stream) = self.stream.as_ref().filter(|_| needs_message) else {
            return Ok(());
        };
        loop {
            match stream.write(MESSAGE) {
                Ok(count) if count == MESSAGE.len() => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                // No more than one message is ever in it, so there is room.
                Ok(_) => return Err(ErrorKind::WriteZero.into()),
            }
        }
    }

    /// Lets go of the stream, and makes another one. One that breaks as soon as it is made, for want of threads perhaps, is
    /// not made over and over: [`Link::rebuild_due`] says when.
    ///
    /// # Errors
    /// There is none for now.
    pub fn rebuild(&mut self, now: u64) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            let _ = self.exchange.epoll.remove(&stream);
        }
        if now < self.rebuild_at {
            return Ok(());
        }
        self.rebuild_at = now + REBUILD_PAUSE;
        let stream = self.behind.rebuild()?;
        self.attach(stream)?;
        self.is_rebuilt = true;
        Ok(())
    }

    /// When the next stream is to be tried, where there is none.
    pub fn rebuild_due(&self) -> Option<u64> {
        self.stream.is_none().then_some(self.rebuild_at)
    }

    /// Looks after what was lent. True where nothing gets through.
    pub fn is_stuck(&mut self) -> bool {
        if self.look_again.is_none() {
            return false;
        }
        let seen = self.behind.watch(&mut self.watch);
        self.look_again = match seen {
            Seen::Nothing => None,
            Seen::Waiting(time) => Some(time),
            Seen::Stuck => {
                self.watch = Watch::default();
                Some(Duration::ZERO)
            }
        };
        seen == Seen::Stuck
    }

    /// After which time it is to be looked after again.
    pub fn look_again(&self) -> Option<Duration> {
        self.look_again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::io::Read;
    use std::rc::Rc;

    /// Makes pairs of sockets and keeps the other ends.
    struct Fake {
        theirs: RefCell<Vec<UnixStream>>,
        fails: Cell<bool>,
        is_told: Cell<bool>,
        seen: Cell<Seen>,
    }

    impl Fake {
        fn stream(&self) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            self.theirs.borrow_mut().push(theirs);
            ours
        }

        /// How many messages have come at the end that was made last.
        fn heard(&self) -> usize {
            let mut text = Vec::new();
            let _ = self.theirs.borrow().last().unwrap().read_to_end(&mut text);
            assert_eq!(text, MESSAGE.repeat(text.len() / MESSAGE.len()));
            text.len() / MESSAGE.len()
        }
    }

    impl Behind for Rc<Fake> {
        fn rebuild(&self) -> io::Result<UnixStream> {
            self.is_told.set(false);
            match self.fails.get() {
                true => Err(io::Error::other("no threads")),
                false => Ok(self.stream()),
            }
        }

        fn tell(&self) -> bool {
            !self.is_told.replace(true)
        }

        fn watch(&self, _: &mut Watch) -> Seen {
            self.seen.get()
        }
    }

    fn link() -> (Link<Rc<Fake>>, Rc<Fake>) {
        let fake = Rc::new(Fake {
            theirs: RefCell::default(),
            fails: Cell::new(false),
            is_told: Cell::new(false),
            seen: Cell::new(Seen::Nothing),
        });
        let stream = fake.stream();
        let link = Link::new(Exchange::of_nobody(), Rc::clone(&fake), stream).unwrap();
        (link, fake)
    }

    /// The seats of the connections whose jobs wait, in the order in which they are taken.
    fn taken(link: &Link<Rc<Fake>>) -> Vec<usize> {
        let jobs = std::iter::from_fn(|| link.exchange.take());
        jobs.map(|(job, _)| job.loaned.token.index()).collect()
    }

    #[test]
    fn what_is_lent_in_a_round_is_told_with_one_message() {
        let (mut link, fake) = link();
        link.lend(Job::of_nobody(3));
        link.lend(Job::of_nobody(0));
        assert_eq!((fake.heard(), taken(&link).len()), (0, 0));
        link.flush().unwrap();
        assert_eq!((fake.heard(), taken(&link)), (1, vec![3, 0]));
        link.flush().unwrap();
        assert_eq!(fake.heard(), 0);
        // Nobody has picked up the first message: it stands for these, too.
        link.lend(Job::of_nobody(5));
        link.flush().unwrap();
        assert_eq!(fake.heard(), 0);
        fake.is_told.set(false);
        link.lend(Job::of_nobody(6));
        link.flush().unwrap();
        assert_eq!((fake.heard(), taken(&link)), (1, vec![5, 6]));
    }

    #[test]
    fn a_broken_stream_is_replaced_and_told_again_that_there_is_work() {
        let (mut link, fake) = link();
        link.lend(Job::of_nobody(1));
        fake.theirs.borrow_mut().clear();
        assert!(link.flush().is_err());
        link.rebuild(5000).unwrap();
        assert_eq!(link.rebuild_due(), None);
        // Nothing new was lent, and still somebody has to see that it gets through.
        fake.seen.set(Seen::Waiting(Duration::from_millis(1)));
        link.flush().unwrap();
        assert!(!link.is_stuck() && link.look_again() == Some(Duration::from_millis(1)));
        assert_eq!((fake.heard(), taken(&link)), (1, vec![1]));
    }

    #[test]
    fn streams_that_break_or_cannot_be_had_are_made_once_a_second() {
        let (mut link, fake) = link();
        link.rebuild(0).unwrap();
        assert_eq!(link.rebuild_due(), None);
        // It breaks at once.
        link.rebuild(1).unwrap();
        assert_eq!(link.rebuild_due(), Some(REBUILD_PAUSE));
        // What is lent meanwhile waits for the next one.
        link.lend(Job::of_nobody(2));
        assert!(link.flush().is_ok());
        fake.fails.set(true);
        assert!(link.rebuild(1000).is_err());
        assert_eq!(link.rebuild_due(), Some(2000));
        fake.fails.set(false);
        link.rebuild(2000).unwrap();
        link.flush().unwrap();
        assert_eq!((fake.heard(), taken(&link)), (1, vec![2]));
    }

    #[test]
    fn what_does_not_get_through_is_told_once_and_watched_anew() {
        let (mut link, fake) = link();
        fake.seen.set(Seen::Stuck);
        assert!(!link.is_stuck(), "nothing was lent");
        link.lend(Job::of_nobody(0));
        link.flush().unwrap();
        assert!(link.is_stuck() && link.look_again() == Some(Duration::ZERO));
        fake.seen.set(Seen::Nothing);
        assert!(!link.is_stuck() && link.look_again().is_none());
    }
}
