//! Files under a directory that no link leads out of: `openat2(2)`, and before Linux 5.6 the same walk by hand.
//! Both give the same verdicts, which the tests below hold against each other.

use super::{check, retry};
use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// No link out, by `..`, by an absolute target or by those of `/proc`: `openat2(2)`.
const BENEATH: u64 = 0x08 | 0x02;
/// Only what the kernel has at hand, or EAGAIN.
const CACHED: u64 = 0x20;
/// So often it is asked whether a name is at hand.
const AT_HAND_TRIES: u32 = 4;
/// No other file system, or EXDEV.
const NO_XDEV: u64 = 0x01;
/// Most links that one path may lead through, `path_resolution(7)`.
const LINKS: usize = 40;
/// Longest path, its final NUL included.
const PATH_MAX: usize = 4096;
/// Bytes of a path that needs no memory of its own, the NUL included.
const SHORT: usize = 256;
/// EAGAIN means that something was renamed meanwhile, anywhere in the system. After so many the walk by hand, which
/// need not ask again, is the shorter way.
const AGAIN: usize = 8;

/// `statx(2)`: ask nobody else; the time of the last change; the number of the inode; and that of the mount which no other
/// ever has, since Linux 6.8.
const AT_STATX_DONT_SYNC: i32 = 0x4000;
const STATX_CTIME: libc::c_uint = 0x80;
const STATX_INO: libc::c_uint = 0x100;
const STATX_MNT_ID_UNIQUE: libc::c_uint = 0x4000;

/// The kernel, or what stands before it, does not know `openat2(2)`; it will not learn it.
static IS_OLD: AtomicBool = AtomicBool::new(false);

/// What a path is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To read a file. A FIFO is not waited for, a terminal does not become the controlling one.
    Read,
    /// To read the names in a directory.
    List,
    /// To look at what it is; no right to read is needed.
    Look,
}

/// How long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as the disk takes.
    Wait,
    /// What the kernel does not have at hand is `WouldBlock`.
    Cached,
}

/// Why there is no file to be had, as far as others decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing is there.
    Absent,
    /// Something on the way is no directory.
    NotDirectory,
    /// It leads out, in circles, or to what cannot be opened as a file.
    Unfit,
    /// EACCES.
    Forbidden,
    /// No descriptor is left.
    Exhausted,
    /// It is not at hand, for `Patience::Cached`.
    WouldBlock,
    Other,
}

/// Sorts an error of the calls below.
pub fn cause(error: &io::Error) -> Cause {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENAMETOOLONG) => Cause::Absent,
        Some(libc::ENOTDIR) => Cause::NotDirectory,
        // ENXIO and ENODEV: a socket, or a device without a driver.
        Some(libc::EXDEV | libc::ELOOP | libc::ENXIO | libc::ENODEV) => Cause::Unfit,
        Some(libc::EACCES) => Cause::Forbidden,
        Some(libc::EMFILE | libc::ENFILE) => Cause::Exhausted,
        _ if error.kind() == io::ErrorKind::WouldBlock => Cause::WouldBlock,
        _ => Cause::Other,
    }
}

/// Opens a directory by its path, links in it followed, as a place for [`open_beneath`] to start from.
pub fn open_root(path: &Path, patience: Patience) -> io::Result<OwnedFd> {
    let mut buffer = [0; SHORT];
    let path = c_path(path.as_os_str().as_bytes(), &mut buffer)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    match patience {
        Patience::Wait => openat(libc::AT_FDCWD, &path, flags),
        Patience::Cached => openat2_at_hand(libc::AT_FDCWD, &path, flags, CACHED),
    }
}

/// `openat2(2)` without patience. A name that changes anywhere at this moment has the kernel say that it would have to
/// wait, and on a busy machine there is always one: so it is asked again before that is believed.
fn openat2_at_hand(directory: RawFd, path: &CStr, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    let mut opened = openat2(directory, path, flags, resolve);
    for _ in 1..AT_HAND_TRIES {
        match opened.as_ref().map_err(io::Error::raw_os_error) {
            Err(Some(libc::EAGAIN)) => opened = openat2(directory, path, flags, resolve),
            _ => break,
        }
    }
    opened.map_err(would_block)
}

/// Opens what lies under `root` by this path, which does not begin with a slash. Links are followed as long as they
/// lead nowhere out of it: relative ones, and `..` no higher than `root`. What is opened need not be a file. Without
/// patience nothing is opened on another file system than that of `root`, which is known to be [`Volume::is_at_hand`].
pub fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    purpose: Purpose,
    patience: Patience,
) -> io::Result<File> {
    let mut buffer = [0; SHORT];
    let named = c_path(path, &mut buffer)?;
    if patience == Patience::Cached {
        let resolve = BENEATH | CACHED | NO_XDEV;
        let opened = openat2_at_hand(root.as_raw_fd(), &named, flags(purpose), resolve);
        return opened.map(File::from);
    }
    for _ in 0..AGAIN {
        if IS_OLD.load(Ordering::Relaxed) {
            break;
        }
        let opened = openat2(root.as_raw_fd(), &named, flags(purpose), BENEATH);
        match opened.as_ref().map_err(io::Error::raw_os_error) {
            Err(Some(libc::EAGAIN)) => continue,
            Err(Some(libc::ENOSYS)) => IS_OLD.store(true, Ordering::Relaxed),
            // What sandboxes say that do not know the call. The walk by hand tells whether it was meant.
            Err(Some(libc::EPERM)) => break,
            _ => return opened.map(File::from),
        }
    }
    walk(root, path, purpose, || {}).map(File::from)
}

/// Who a file is, and since when it is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Device and inode.
    pub number: (u64, u64),
    /// When it last changed, in any way: seconds since 1970, and the nanoseconds above them. A directory does when a name
    /// in it comes, goes or becomes another file's.
    pub changed: (i64, i64),
}

/// Who is at the end of a path.
pub fn identity(path: &Path, patience: Patience) -> io::Result<Identity> {
    let found = match patience {
        Patience::Wait => std::fs::metadata(path)?,
        Patience::Cached => {
            let path = CString::new(path.as_os_str().as_bytes())?;
            let flags = libc::O_PATH | libc::O_CLOEXEC;
            let opened = openat2_at_hand(libc::AT_FDCWD, &path, flags, CACHED)?;
            let found = known(opened.as_fd())?;
            let device = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
            return Ok(Identity {
                number: (device, found.stx_ino),
                changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec.into()),
            });
        }
    };
    Ok(Identity {
        number: (found.dev(), found.ino()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// What the kernel has of an open file, without a question to a file server: `statx(2)`.
fn known(fd: BorrowedFd<'_>) -> io::Result<libc::statx> {
    // SAFETY: statx is plain data for which all zeros is a value.
    let mut found: libc::statx = unsafe { zeroed() };
    let (number, path, out) = (fd.as_raw_fd(), c"".as_ptr(), &raw mut found);
    let flags = AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH;
    let wanted = STATX_INO | STATX_CTIME | STATX_MNT_ID_UNIQUE;
    // SAFETY: the path is NUL-terminated, `out` points to a statx; both live through the call, which writes to that alone.
    check(unsafe { libc::syscall(libc::SYS_statx, number, path, flags, wanted, out) })?;
    Ok(found)
}

/// What the kernel does not know how to do without waiting might wait.
fn would_block(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(
            libc::EAGAIN
            | libc::ENOSYS
            | libc::EOPNOTSUPP
            | libc::EINVAL
            | libc::EPERM
            | libc::EXDEV,
        ) => io::ErrorKind::WouldBlock.into(),
        _ => error,
    }
}

fn flags(purpose: Purpose) -> i32 {
    let reading = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_LARGEFILE;
    libc::O_CLOEXEC
        | match purpose {
            Purpose::Read => reading,
            Purpose::List => reading | libc::O_DIRECTORY,
            Purpose::Look => libc::O_PATH,
        }
}

/// The path for the kernel; nothing is the directory itself. A short one lies in the buffer, which is of zeros.
fn c_path<'a>(path: &[u8], buffer: &'a mut [u8; SHORT]) -> io::Result<Cow<'a, CStr>> {
    let path = if path.is_empty() { b"." } else { path };
    if path.len() >= PATH_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    if path.len() >= SHORT {
        return Ok(CString::new(path)?.into());
    }
    buffer[..path.len()].copy_from_slice(path);
    let path = CStr::from_bytes_with_nul(&buffer[..=path.len()]);
    Ok(path.map_err(|_| io::ErrorKind::InvalidInput)?.into())
}

fn openat2(directory: RawFd, path: &CStr, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    /// `struct open_how`.
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let how = How {
        flags: flags as u64,
        mode: 0,
        resolve,
    };
    let (path, size) = (path.as_ptr(), size_of::<How>());
    let call = || {
        // SAFETY: the path is NUL-terminated, pointer and size describe `how`; both live through the call, which only
        // reads.
        check(unsafe { libc::syscall(libc::SYS_openat2, directory, path, &raw const how, size) })
    };
    let opened = retry(call)?;
    // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(opened as RawFd) })
}

fn openat(directory: RawFd, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the path is NUL-terminated and lives through the call, which only reads it; no mode is needed without
    // O_CREAT.
    let opened = retry(|| check(unsafe { libc::openat(directory, path.as_ptr(), flags) }))?;
    // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Where the link leads that this descriptor, opened by `O_PATH | O_NOFOLLOW`, stands for.
fn readlink(link: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut target = vec![0; PATH_MAX];
    let (pointer, size) = (target.as_mut_ptr().cast(), target.len());
    // SAFETY: the empty path is NUL-terminated, pointer and size describe `target`, which lives through the call.
    let count = check(unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), pointer, size) })?;
    target.truncate(count as usize);
    Ok(target)
}

/// The way of `openat2(2)` with `BENEATH`, a step at a time. Each step opens one name in a directory that is held open,
/// without following it, and asks what it got: nobody can swap anything between the look and the step.
/// `between` is called where somebody might try.
fn walk(
    root: BorrowedFd<'_>,
    path: &[u8],
    purpose: Purpose,
    mut between: impl FnMut(),
) -> io::Result<OwnedFd> {
    let fail = |errno: i32| Err(io::Error::from_raw_os_error(errno));
    c_path(path, &mut [0; SHORT])?;
    // The directories that lead from the root to where the walk is, and the names that are still to come, last first.
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut must_be_directory = push_names(&mut names, path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        let here = above.last().map_or(root, AsFd::as_fd).as_raw_fd();
        let is_last = names.is_empty();
        if name == b"." || name == b".." {
            // Only who may search a directory may name it by a dot in it.
            openat(here, c".", libc::O_PATH | libc::O_CLOEXEC)?;
            if name == b".." && above.pop().is_none() {
                return fail(libc::EXDEV);
            }
            continue;
        }
        let c_name = CString::new(name.as_slice())?;
        let look = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let found = File::from(openat(here, &c_name, look)?);
        let kind = found.metadata()?.file_type();
        let found = OwnedFd::from(found);
        between();
        if kind.is_symlink() {
            links += 1;
            if links > LINKS {
                return fail(libc::ELOOP);
            }
            let target = readlink(&found)?;
            if target.starts_with(b"/") {
                return fail(libc::EXDEV);
            }
            must_be_directory |= push_names(&mut names, &target) && is_last;
            continue;
        }
        if !is_last || kind.is_dir() {
            if !kind.is_dir() {
                return fail(libc::ENOTDIR);
            }
            above.push(found);
            continue;
        }
        if must_be_directory || purpose == Purpose::List {
            return fail(libc::ENOTDIR);
        }
        if purpose == Purpose::Look {
            return Ok(found);
        }
        match openat(here, &c_name, flags(purpose) | libc::O_NOFOLLOW) {
            // By now it is a link.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) && links < LINKS => {
                links += 1;
                names.push(name);
            }
            opened => return opened,
        }
    }
    let here = above.last().map_or(root, AsFd::as_fd).as_raw_fd();
    match (purpose, above.pop()) {
        (Purpose::Look, Some(directory)) => Ok(directory),
        _ => openat(here, c".", flags(purpose)),
    }
}

/// Puts the names of a path on the pile; whether the path ends with a slash.
fn push_names(names: &mut Vec<Vec<u8>>, path: &[u8]) -> bool {
    let parts = path.split(|&byte| byte == b'/').rev();
    names.extend(parts.filter(|part| !part.is_empty()).map(<[u8]>::to_vec));
    path.ends_with(b"/")
}

/// A file system, as far as it matters for what can be done there without waiting: `fstatfs(2)`.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    key: (u32, u32, u64),
    kind: u32,
    flags: libc::c_ulong,
}

/// Those that are there in this machine, and whose `open` does nothing but open (`statfs(2)`). Those in user space and those
/// of the network ask somebody at every turn; some of the others may.
const AT_HAND: [u32; 13] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xf2f5_2010, // f2fs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
    0x2405_1905, // ubifs
    0x0000_72b6, // jffs2
    0x0000_9660, // iso9660
    0x0000_4d44, // vfat
];
/// How it is mounted, `statfs(2)`.
const ST_RDONLY: libc::c_ulong = 1;
const ST_NOATIME: libc::c_ulong = 1024;
const ST_RELATIME: libc::c_ulong = 4096;
/// Seconds after which a reading is noted again where not each of them is: `mount(8)`, relatime.
const DAY: i64 = 24 * 60 * 60;

impl Volume {
    /// That of an open file. It may have to be waited for.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Volume> {
        let key = Volume::key(fd)?;
        // SAFETY: both are plain data for which all zeros is a value.
        let (mut system, mut mount): (libc::statfs, libc::statvfs) = unsafe { zeroed() };
        // SAFETY: the pointer is to a statfs that lives through the call, which writes no more than that.
        retry(|| check(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut system) }))?;
        // SAFETY: the same for a statvfs.
        retry(|| check(unsafe { libc::fstatvfs(fd.as_raw_fd(), &raw mut mount) }))?;
        Ok(Volume {
            key,
            kind: system.f_type as u32,
            flags: mount.f_flag,
        })
    }

    /// What tells it from others: device and, where there are such numbers, mount.
    fn key(fd: BorrowedFd<'_>) -> io::Result<(u32, u32, u64)> {
        let found = known(fd)?;
        let mount = match found.stx_mask & STATX_MNT_ID_UNIQUE {
            0 => 0,
            _ => found.stx_mnt_id,
        };
        Ok((found.stx_dev_major, found.stx_dev_minor, mount))
    }

    /// Whether this lies on it.
    pub fn has(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(Volume::key(fd)? == self.key)
    }

    /// Whether opening what the kernel has found there waits for nobody.
    pub fn is_at_hand(&self) -> bool {
        AT_HAND.contains(&self.kind)
    }

    /// Whether it is to be noted in this file that it is read, for which there may be a journal to be waited for.
    pub fn notes_reading(&self, found: &Metadata) -> bool {
        if self.flags & (ST_RDONLY | ST_NOATIME) != 0 {
            return false;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(i64::MAX, |now| now.as_secs() as i64);
        let read = (found.atime(), found.atime_nsec());
        self.flags & ST_RELATIME == 0
            || read <= (found.mtime(), found.mtime_nsec())
            || read <= (found.ctime(), found.ctime_nsec())
            || now.saturating_sub(read.0) >= DAY
    }
}

/// Whether the file system that a path is on takes no changes; `statvfs(3)`.
pub fn is_read_only(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: statvfs is plain data for which all zeros is a value.
    let mut found: libc::statvfs = unsafe { zeroed() };
    // SAFETY: the path is NUL-terminated, the pointer is to a statvfs; both live through the call.
    retry(|| check(unsafe { libc::statvfs(path.as_ptr(), &raw mut found) }))?;
    Ok(found.f_flag & ST_RDONLY != 0)
}

/// Whether this process may write to a file, or make files in a directory; faccessat(2) with AT_EACCESS. What says no is the
/// error: its mode, its being immutable, or its file system.
pub fn may_write(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let way = libc::W_OK;
    // SAFETY: the path is NUL-terminated and lives through the call.
    let answer = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), way, libc::AT_EACCESS) };
    check(answer).map(drop)
}

/// A file for writing and reading in this directory that has no name, `O_TMPFILE` of open(2). `None` where the kernel or
/// the file system has none, where the directory is not to be written to, which whoever tries the other way is told, and
/// where its mode is not to be had: kernels and C libraries have overlooked the umask or the mode.
pub fn nameless_in(directory: &Path) -> Option<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    // Linux 4.7.
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let umask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    let mode = 0o666 & !u32::from_str_radix(umask.trim(), 8).ok()?;
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .mode(mode)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
        .ok()?;
    let found = file.metadata().ok()?.permissions().mode() & 0o777;
    (found == mode).then_some(file)
}

/// Gives a file without a name one that is free, linkat(2) by way of `/proc`.
pub fn give_name(file: &File, path: &Path) -> io::Result<()> {
    let way = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both are NUL-terminated strings that live through the call.
    let result = unsafe { libc::linkat(here, way.as_ptr(), here, path.as_ptr(), follow) };
    check(result).map(drop)
}

/// Reads from a place in a file, as far as the kernel has it in memory: `preadv2(2)` with RWF_NOWAIT. `None` where the
/// disk would have to be waited for, or where nobody can say whether it would: file systems that do not know, and kernels
/// before 4.14. 0 is the end of the file.
pub fn read_at_hand(file: &File, buffer: &mut [u8], at: u64) -> Option<usize> {
    let part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let number = file.as_raw_fd();
    // The halves of the place, of which the kernel of 64 bit takes the lower one alone: it is all there.
    let (low, high) = (at as libc::c_ulong, (at >> 32) as libc::c_ulong);
    let (parts, count, flags) = (&raw const part, 1 as libc::c_ulong, libc::RWF_NOWAIT);
    let call = || {
        // SAFETY: pointer and count describe one part, and that describes `buffer`; both live through the call, which
        // writes to the buffer alone.
        check(unsafe { libc::syscall(libc::SYS_preadv2, number, parts, count, low, high, flags) })
    };
    // What goes wrong is met again, and said, by who has the patience to read it.
    retry(call).ok().map(|count| count as usize)
}

/// Has the kernel fetch so much of a file, from this place on, for somebody who will want it soon (`posix_fadvise(2)`).
/// It may wait for the disk, and cannot fail in a way that matters.
pub fn read_ahead(file: &File, at: u64, count: u64) {
    let number = file.as_raw_fd();
    let (at, count) = (at as libc::off64_t, count as libc::off64_t);
    // SAFETY: takes numbers and touches no memory.
    unsafe { libc::posix_fadvise64(number, at, count, libc::POSIX_FADV_WILLNEED) };
}

/// Whether a name in a directory needs another look to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    /// A link, or the file system does not say.
    Unknown,
    /// A FIFO, a socket or a device.
    Other,
}

/// Calls `each` with the names in a directory that was opened to be listed, in the order of the file system, without
/// `.` and `..`, until it says that it is enough (`getdents64(2)`).
pub fn names(directory: &File, mut each: impl FnMut(&[u8], Kind) -> bool) -> io::Result<()> {
    /// Where the name begins in `struct linux_dirent64`.
    const NAME: usize = 19;
    let mut buffer = vec![0_u8; 32 * 1024];
    loop {
        let (number, pointer, size) = (directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
        // SAFETY: pointer and size describe `buffer`, which lives through the call.
        let count =
            retry(|| check(unsafe { libc::syscall(libc::SYS_getdents64, number, pointer, size) }))?
                as usize;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while rest.len() > NAME {
            let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let Some((entry, next)) = rest.split_at_checked(length.max(NAME)) else {
                break;
            };
            rest = next;
            let name = &entry[NAME..];
            let end = name.iter().position(|&byte| byte == 0);
            let name = &name[..end.unwrap_or(name.len())];
            let kind = match entry[NAME - 1] {
                libc::DT_DIR => Kind::Directory,
                libc::DT_REG => Kind::File,
                libc::DT_LNK | libc::DT_UNKNOWN => Kind::Unknown,
                _ => Kind::Other,
            };
            if name != b"." && name != b".." && !each(name, kind) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
