//! Numbers of 64 bits that several threads or processes change: those of the processor, and what stands in for them where
//! it has none, as ARMv5 and MIPS. With `--cfg hade_halves` these are built everywhere, as `make check` does.

#[cfg(all(target_has_atomic = "64", not(hade_halves)))]
pub use std::sync::atomic::{AtomicU64, AtomicU64 as Word};

#[cfg(any(not(target_has_atomic = "64"), hade_halves))]
pub use halves::{AtomicU64, Word};

#[cfg(any(test, not(target_has_atomic = "64"), hade_halves))]
mod halves {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Of one process: whole at any moment, by a lock.
    pub struct AtomicU64(Mutex<u64>);

    impl AtomicU64 {
        pub const fn new(number: u64) -> AtomicU64 {
            AtomicU64(Mutex::new(number))
        }

        fn own(&self) -> MutexGuard<'_, u64> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub fn load(&self, _: Ordering) -> u64 {
            *self.own()
        }

        pub fn store(&self, number: u64, _: Ordering) {
            *self.own() = number;
        }

        pub fn swap(&self, number: u64, _: Ordering) -> u64 {
            std::mem::replace(&mut *self.own(), number)
        }

        pub fn fetch_add(&self, more: u64, _: Ordering) -> u64 {
            let mut own = self.own();
            let before = *own;
            *own = before.wrapping_add(more);
            before
        }

        pub fn fetch_or(&self, bits: u64, _: Ordering) -> u64 {
            let mut own = self.own();
            let before = *own;
            *own |= bits;
            before
        }
    }

    /// Of memory that processes share, in which one may die at any moment and must leave no lock behind: two halves. What is
    /// added is never lost; who reads while it passes 2^32 may see a count that is off for that moment.
    #[repr(C, align(8))]
    pub struct Word {
        low: AtomicU32,
        high: AtomicU32,
    }

    impl Word {
        #[cfg(test)]
        pub const fn new(number: u64) -> Word {
            Word {
                low: AtomicU32::new(number as u32),
                high: AtomicU32::new((number >> 32) as u32),
            }
        }

        pub fn load(&self, order: Ordering) -> u64 {
            u64::from(self.high.load(order)) << 32 | u64::from(self.low.load(order))
        }

        pub fn store(&self, number: u64, order: Ordering) {
            self.high.store((number >> 32) as u32, order);
            self.low.store(number as u32, order);
        }

        pub fn swap(&self, number: u64, order: Ordering) -> u64 {
            let high = self.high.swap((number >> 32) as u32, order);
            u64::from(high) << 32 | u64::from(self.low.swap(number as u32, order))
        }

        pub fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
            let low = self.low.fetch_add(more as u32, order);
            let carry = u32::from(low.checked_add(more as u32).is_none());
            let above = ((more >> 32) as u32).wrapping_add(carry);
            let high = match above {
                0 => self.high.load(order),
                above => self.high.fetch_add(above, order),
            };
            u64::from(high) << 32 | u64::from(low)
        }

        /// Where both numbers are below 2^32.
        pub fn fetch_max(&self, number: u64, order: Ordering) -> u64 {
            u64::from(self.low.fetch_max(number as u32, order))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::halves;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    #[test]
    fn halves_count_as_a_whole_does() {
        let (whole, number, word) = (
            AtomicU64::new(7),
            halves::AtomicU64::new(7),
            halves::Word::new(7),
        );
        for more in [
            1,
            0xffff_fff0,
            9,
            1 << 32,
            u64::MAX,
            1 << 40,
            0xffff_ffff_0000,
        ] {
            let before = whole.fetch_add(more, SeqCst);
            assert_eq!(number.fetch_add(more, SeqCst), before);
            assert_eq!(word.fetch_add(more, SeqCst), before);
            let now = whole.load(SeqCst);
            assert_eq!((number.load(SeqCst), word.load(SeqCst)), (now, now));
        }
        for new in [0, 1 << 33 | 5] {
            assert_eq!(word.swap(new, SeqCst), whole.swap(new, SeqCst));
            number.store(new, SeqCst);
            assert_eq!((number.load(SeqCst), word.load(SeqCst)), (new, new));
        }
        assert_eq!(number.swap(2, SeqCst), 1 << 33 | 5);
        assert_eq!(number.fetch_or(5, SeqCst), 2);
        assert_eq!(number.load(SeqCst), 7);
        word.store(3, SeqCst);
        assert_eq!(word.load(SeqCst), 3);
        for (more, most) in [(2, 3), (9, 9), (8, 9)] {
            word.fetch_max(more, SeqCst);
            assert_eq!(word.load(SeqCst), most);
        }
        assert_eq!(size_of::<halves::Word>(), 8);
    }

    #[test]
    fn what_many_add_to_halves_is_not_lost() {
        static WORD: halves::Word = halves::Word::new(u32::MAX as u64 - 1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        WORD.fetch_add(3, SeqCst);
                    }
                });
            }
        });
        assert_eq!(WORD.load(SeqCst), u64::from(u32::MAX) - 1000 + 120_000);
    }
}
