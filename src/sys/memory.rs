//! Memory that a master and its workers share, and that outlives an `execve(2)` by its descriptor.

use super::atomic::Word;
use super::check;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// How many numbers the region holds.
pub const WORDS: usize = 8704;

/// The region: zeroed when new, and never unmapped.
pub type Region = &'static [Word; WORDS];

/// A new region: `memfd_create(2)`, or before Linux 3.17 a file under `fallback` that loses its name at once.
pub fn new_region(fallback: &std::path::Path) -> io::Result<(OwnedFd, Region)> {
    let file = match nameless_file() {
        Ok(file) => file,
        Err(_) => {
            // One that a start of before left there, or somebody else put there, is not to be written to.
            let _ = std::fs::remove_file(fallback);
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(fallback)?;
            std::fs::remove_file(fallback)?;
            file
        }
    };
    file.set_len((WORDS * 8) as u64)?;
    let fd = OwnedFd::from(file);
    map(fd)
}

/// An empty file that nobody else can find: `memfd_create(2)`.
pub fn nameless_file() -> io::Result<File> {
    // SAFETY: the name is a NUL-terminated string, which the call copies.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_memfd_create, c"hade".as_ptr(), libc::MFD_CLOEXEC)
    })?;
    // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// A region that came through an `execve(2)`; an error when the descriptor is not one.
pub fn adopt_region(fd: OwnedFd) -> io::Result<(OwnedFd, Region)> {
    let file = File::from(fd);
    // Reading beyond a shorter file would be a SIGBUS.
    if file.metadata()?.len() != (WORDS * 8) as u64 {
        return Err(io::Error::other("it has another size"));
    }
    map(OwnedFd::from(file))
}

fn map(fd: OwnedFd) -> io::Result<(OwnedFd, Region)> {
    let (access, number) = (libc::PROT_READ | libc::PROT_WRITE, fd.as_raw_fd());
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            WORDS * 8,
            access,
            libc::MAP_SHARED,
            number,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, as long as the file, stays for the life of the process, and is only ever
    // used through atomics, here and in the other processes.
    Ok((fd, unsafe { &*address.cast::<[Word; WORDS]>() }))
}

/// Bytes of memory of the machine, `sysinfo(2)`.
pub fn of_machine() -> u64 {
    // SAFETY: sysinfo is plain integers, for which all zeros is a value.
    let mut found: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one sysinfo that lives through the call.
    match unsafe { libc::sysinfo(&mut found) } {
        0 => (found.totalram as u64).saturating_mul(u64::from(found.mem_unit.max(1))),
        _ => u64::MAX,
    }
}

/// Has what is large come from the kernel, and go back there as soon as it is freed, and lets threads share as many arenas
/// as there are processors, `mallopt(3)`. The GNU library would otherwise keep what its many threads have freed, and make
/// an arena for each of them, which takes five system calls; others do not. Where the environment says how many arenas
/// there are to be, it has its way.
pub fn be_thrifty() {
    #[cfg(target_env = "gnu")]
    {
        let tunables = std::env::var_os("GLIBC_TUNABLES").unwrap_or_default();
        let is_tuned = tunables.to_string_lossy().contains("malloc.arena_max")
            || std::env::var_os("MALLOC_ARENA_MAX").is_some();
        // SAFETY: mallopt takes two numbers, and concerns allocations that are yet to be made.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
            if !is_tuned {
                libc::mallopt(libc::M_ARENA_MAX, processors());
            }
        }
    }
}

/// How many processors this process may use, 1 where the kernel does not say or has more than the set has room for.
#[cfg(target_env = "gnu")]
fn processors() -> i32 {
    // SAFETY: cpu_set_t is plain integers, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives through both calls, and its size is told.
    unsafe {
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        libc::CPU_COUNT(&set).max(1)
    }
}

/// Gives memory that was freed back to the kernel, `malloc_trim(3)`. Only the GNU library keeps so much that it is
/// worth asking for.
pub fn trim() {
    // SAFETY: takes a number, and concerns memory that nobody uses.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
