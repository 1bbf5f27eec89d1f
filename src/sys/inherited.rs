//! What was there before the program's first line: descriptors from whoever executed it, and threads of an emulator. It
//! is looked at when the C library has started and nothing else has, so that nobody's own is taken for it later.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

/// A bit per descriptor that was inherited and that nobody has claimed.
static UNCLAIMED: [AtomicU32; 2048] = [const { AtomicU32::new(0) }; 2048];
/// How many threads there were; 0 where nobody can tell.
static THREADS: AtomicUsize = AtomicUsize::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look;

/// Called by the C library before `main`: system calls and static memory only. Every command goes through here, so it
/// asks in `/proc`, which costs more than all else, only where there is something to be found.
extern "C" fn look() {
    THREADS.store(threads(), SeqCst);
    if !has_place_for(SMALL) {
        (3..SMALL).for_each(note);
        return;
    }
    // SAFETY: the path is a NUL-terminated string, which the call does not keep.
    let directory = unsafe { libc::opendir(c"/proc/self/fd".as_ptr()) };
    if directory.is_null() {
        (3..1024).for_each(note);
        return;
    }
    loop {
        // SAFETY: the directory is open, and one thread reads it.
        let entry = unsafe { libc::readdir(directory) };
        if entry.is_null() {
            break;
        }
        // SAFETY: the entry is valid until the next call, and its name ends with NUL.
        let name = unsafe { std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()) };
        let number = name.to_str().ok().and_then(|name| name.parse().ok());
        number
            .filter(|number| *number > 2)
            .into_iter()
            .for_each(note);
    }
    // SAFETY: it was opened above, and this is its end.
    unsafe { libc::closedir(directory) };
}

/// How many places the kernel's table of descriptors begins with, on 64 bits.
const SMALL: RawFd = 64;

/// Whether the table of descriptors has, or may have, a place for this number. The kernel overlooks what a set of
/// select(2) has beyond the table's end, and fails with EBADF for what is within and not open.
fn has_place_for(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } != -1 {
        return true;
    }
    // SAFETY: fd_set is plain integers, for which all zeros is the empty set.
    let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
    // SAFETY: the set has room for numbers below 1024.
    unsafe { libc::FD_SET(number, &mut set) };
    let mut at_once = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let none = std::ptr::null_mut();
    // SAFETY: the set and the time live through the call, and what is null is not looked at.
    unsafe { libc::select(number + 1, &mut set, none, none, &mut at_once) != 0 }
}

/// Notes a number, if it is open without close-on-exec. With it, it cannot have come through an `execve(2)`.
fn note(number: RawFd) {
    if is_plain(number) {
        if let Some((word, bit)) = place(number) {
            word.fetch_or(bit, SeqCst);
        }
    }
}

/// Whether a number is open, and without close-on-exec.
fn is_plain(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory, and a number that is not open is an error and nothing more.
    unsafe { libc::fcntl(number, libc::F_GETFD) == 0 }
}

fn place(number: RawFd) -> Option<(&'static AtomicU32, u32)> {
    let number = usize::try_from(number).ok()?;
    Some((UNCLAIMED.get(number / 32)?, 1 << (number % 32)))
}

/// Makes a descriptor above 2 that this process inherited, and was told the number of, its own. `None` for a number
/// that was not inherited, is closed by now, or was claimed before. Who claims inherited descriptors in other ways,
/// before [`crate::App::main`], is to set close-on-exec on them, which std's own functions do.
pub fn adopt(number: RawFd) -> Option<OwnedFd> {
    let (word, bit) = place(number)?;
    let was_unclaimed = word.fetch_and(!bit, SeqCst) & bit != 0;
    // SAFETY: the number was open when the program started, so nobody in it opened it; it is open now, without the
    // close-on-exec that everything opened since has; and it is given out once.
    (was_unclaimed && is_plain(number)).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes what this process inherited and nobody has claimed. What was opened since is left alone.
pub fn close_unclaimed() {
    let numbers = (0..UNCLAIMED.len()).filter(|word| UNCLAIMED[*word].load(SeqCst) != 0);
    for number in numbers.flat_map(|word| word * 32..(word + 1) * 32) {
        drop(adopt(number as RawFd));
    }
}

/// Whether this process has no threads but those that were there at its start: under qemu-user the emulator has one,
/// which holds no lock of this program.
pub fn is_single_threaded() -> bool {
    threads() <= THREADS.load(SeqCst).max(1)
}

/// How many threads there are: each is a directory in `/proc/self/task`, and counts as a link to it. 0 without `/proc`.
fn threads() -> usize {
    // SAFETY: takes a number. Of a process with one thread this changes nothing, and of any other it is refused.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return 1;
    }
    // SAFETY: stat is plain integers, for which all zeros is a value.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a NUL-terminated string, and the other pointer to one stat; both live through the call.
    let result = unsafe { libc::stat(c"/proc/self/task".as_ptr(), &mut found) };
    if result == 0 {
        (found.st_nlink as usize).saturating_sub(2)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    /// As a C library opens what it opens.
    fn plain() -> OwnedFd {
        let (read, _) = std::io::pipe().unwrap();
        // SAFETY: F_DUPFD touches no memory.
        let number = unsafe { libc::fcntl(read.as_raw_fd(), libc::F_DUPFD, 600) };
        assert!(number >= 600);
        // SAFETY: it is new, and nobody else's.
        unsafe { OwnedFd::from_raw_fd(number) }
    }

    #[test]
    fn what_was_opened_since_the_start_is_nobodys_to_adopt_or_close() {
        let own = plain();
        assert!(adopt(own.as_raw_fd()).is_none());
        close_unclaimed();
        assert!(is_plain(own.as_raw_fd()));
    }

    #[test]
    fn what_was_inherited_is_given_out_once() {
        let number = std::os::fd::IntoRawFd::into_raw_fd(plain());
        note(number);
        let adopted = adopt(number).unwrap();
        assert!(adopt(number).is_none());
        close_unclaimed();
        assert!(is_plain(number));
        drop(adopted);
        for number in [-1, 0, 2, 65_536, i32::MAX] {
            assert!(adopt(number).is_none(), "{number}");
        }
    }

    #[test]
    fn a_thread_of_the_programs_own_is_counted() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(!is_single_threaded());
        drop(stop);
        let _ = thread.join();
    }
}
