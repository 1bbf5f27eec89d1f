//! Leave to do what may take long for no fault of a handler's: to read a long body, to wait for a disk. Those who send
//! slowly, and files that are far away, must not take all handler threads from the others.
#![forbid(unsafe_code)]

use crate::sys::epoll::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many threads may do it at once.
pub(crate) struct Permits {
    most: usize,
    taken: AtomicUsize,
    bell: Arc<Bell>,
}

impl Permits {
    /// For so many handler threads. The bell is the gate's, which is woken when one comes back and there was none.
    pub fn new(threads: usize, bell: Arc<Bell>) -> Arc<Permits> {
        Arc::new(Permits {
            most: (threads / 2).max(1),
            taken: AtomicUsize::new(0),
            bell,
        })
    }

    /// One of them; `None` while there is none. For the gate's thread alone.
    pub fn take(self: &Arc<Permits>) -> Option<Permit> {
        // Only the gate adds to it, so that nobody comes between the question and the answer.
        if self.taken() >= self.most {
            return None;
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        Some(Permit(Arc::clone(self)))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

/// One permit; it is given back by being dropped, and the gate is woken to see who waits for it.
pub(crate) struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        // Whoever waits was told that all are taken, and the first one that comes back after that is this.
        if self.0.taken.fetch_sub(1, Ordering::SeqCst) == self.0.most {
            self.0.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd::{self, Wait};
    use std::time::Duration;

    #[test]
    fn half_of_the_threads_and_one_at_the_least() {
        for (threads, most) in [(1, 1), (2, 1), (3, 1), (8, 4)] {
            let bell = Arc::new(Bell::new().unwrap());
            let permits = Permits::new(threads, bell);
            let taken: Vec<Permit> = std::iter::from_fn(|| permits.take()).collect();
            assert_eq!((taken.len(), permits.taken()), (most, most));
        }
    }

    #[test]
    fn one_that_comes_back_rings_and_can_be_had_again() {
        let bell = Arc::new(Bell::new().unwrap());
        let permits = Permits::new(2, Arc::clone(&bell));
        let rings = || {
            let mut waits = [Wait::readable(&*bell)];
            fd::poll(&mut waits, Some(Duration::ZERO)).unwrap();
            waits[0].ready
        };
        let permit = permits.take().unwrap();
        assert!(permits.take().is_none() && !rings());
        drop(permit);
        assert!(rings() && permits.take().is_some());
    }
}
