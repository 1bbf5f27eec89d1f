//! The log's file: how it is opened, and its bound, `app.log_max`: before a line would pass it the file becomes `NAME.1`, of which there is one, and a
//! new one is opened. For whoever may write to its directory; everybody else gets the new file from there.
#![forbid(unsafe_code)]

use crate::owned;
use crate::sys::atomic::AtomicU64;
use crate::sys::fd::{self, Kind};
use crate::sys::{Errno, is_errno};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

/// The mode of the log file, whatever the umask.
pub const MODE: u32 = 0o640;

/// Opens a log for appending. A file is one of hade's own and gets its mode. A device or FIFO is taken as it is, also by
/// way of a link such as `/dev/stdout`; a link to a file is not followed, for another user may have put it there.
pub fn open(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => by_link(path, &found),
        Ok(found) if found.file_type().is_char_device() => as_it_is(path),
        Ok(found) if found.file_type().is_fifo() => {
            owned::is_ours(&found)?;
            as_it_is(path)
        }
        _ => owned::open(path, true, MODE),
    }
}

fn by_link(path: &Path, link: &Metadata) -> io::Result<File> {
    owned::is_ours(link)?;
    let file = as_it_is(path)?;
    let found = file.metadata()?;
    let identity = |found: &Metadata| (found.dev(), found.ino());
    let is_standard = |fd: BorrowedFd<'_>| {
        let file = fd.try_clone_to_owned().map(File::from);
        let there = file.and_then(|file| file.metadata());
        there.is_ok_and(|there| identity(&there) == identity(&found))
    };
    let kind = found.file_type();
    // Whoever sent the standard output to a file meant that file.
    if kind.is_char_device()
        || kind.is_fifo()
        || is_standard(io::stdout().as_fd())
        || is_standard(io::stderr().as_fd())
    {
        return Ok(file);
    }
    let text = "it is a symbolic link, and those are not followed here; name what it leads to";
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn as_it_is(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .custom_flags(fd::O_NOCTTY | fd::O_NONBLOCK)
        .open(path)
        .map_err(|error| {
            let found = fs::metadata(path).map(|found| found.file_type());
            let is_it = is_errno(&error, Errno::NoReader);
            match found {
                Ok(kind) if is_it && kind.is_fifo() => {
                    io::Error::other("nobody reads this FIFO; start its reader first")
                }
                Ok(kind) if is_it && kind.is_socket() => io::Error::other(
                    "it is a socket; for standard output leave the setting out, for /dev/log it is syslog",
                ),
                _ => error,
            }
        })
}

/// How long a file may become, and where it is.
pub struct Bound {
    path: PathBuf,
    most: u64,
    /// One that could not be rotated may become so long before that is tried again.
    again: AtomicU64,
}

impl Bound {
    /// `None` where there is to be none, and for what is no file of its own: a device, a pipe, or a link to the standard
    /// output.
    pub fn new(path: &Path, most: u64) -> Option<Bound> {
        let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        (most > 0 && is_file).then(|| Bound {
            path: path.to_owned(),
            most,
            again: AtomicU64::new(0),
        })
    }

    /// How long it may become.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Whether so many bytes more would be too many. An empty file takes any line.
    pub fn is_passed(&self, number: RawFd, bytes: usize) -> bool {
        self.room(number).is_some_and(|room| bytes as u64 > room)
    }

    /// How many bytes more it takes. An empty file takes any line.
    pub fn room(&self, number: RawFd) -> Option<u64> {
        match fd::kind(number) {
            Kind::File(length) if length > 0 => Some(
                self.most
                    .max(self.again.load(Relaxed))
                    .saturating_sub(length),
            ),
            _ => None,
        }
    }

    /// To be called when the file behind a number was changed for another one, or should have been.
    pub fn settle(&self, number: RawFd) {
        self.again.store(0, Relaxed);
        if let (true, Kind::File(length)) = (self.is_passed(number, 1), fd::kind(number)) {
            self.again.store(length + self.most, Relaxed);
        }
    }

    /// Puts a full file aside; the new one.
    ///
    /// # Errors
    /// It cannot be put aside, or no new one opened: then its lines are gone, for there is no room for more, unless it is
    /// not the one at its path any more.
    pub fn next(&self, full: &File) -> io::Result<File> {
        let there = fs::symlink_metadata(&self.path);
        let here = full.metadata()?;
        if !there.is_ok_and(|there| identity(&there) == identity(&here)) {
            // Somebody has renamed or removed it, and may be about to say so by USR1.
            return open(&self.path);
        }
        let old = old_name(&self.path);
        // Whatever is at that name goes, and is not followed if it is a link.
        let moved = fs::rename(&self.path, &old);
        moved
            .and_then(|()| {
                open(&self.path).inspect_err(|_| {
                    let _ = fs::rename(&old, &self.path);
                })
            })
            .inspect_err(|_| {
                let _ = full.set_len(0);
            })
    }

    /// The words for that.
    pub fn failure(&self, error: &io::Error) -> String {
        let (path, old) = (self.path.display(), old_name(&self.path));
        format!(
            "cannot keep {path} as {}, its lines are gone: {error}",
            old.display()
        )
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// What a log is called when it is full.
pub fn old_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("hade-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        /// A file with ten bytes, a bound of as many, and the name of the old one.
        fn full(&self) -> (File, Bound, PathBuf) {
            let path = self.0.join("a.log");
            let mut file = open(&path).unwrap();
            file.write_all(b"123456789\n").unwrap();
            let bound = Bound::new(&path, 10).unwrap();
            (file, bound, old_name(&path))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_full_file_becomes_the_old_one_whatever_was_there() {
        let scratch = Scratch::new("rotate");
        let other = scratch.0.join("other");
        fs::write(&other, "mine").unwrap();
        for plant in 0..4 {
            let (file, bound, old) = scratch.full();
            assert!(!bound.is_passed(file.as_raw_fd(), 0));
            assert!(bound.is_passed(file.as_raw_fd(), 1));
            match plant {
                1 => std::os::unix::fs::symlink(&other, &old).unwrap(),
                2 => fs::hard_link(&other, &old).unwrap(),
                3 => fs::write(&old, "older").unwrap(),
                _ => {}
            }
            let new = bound.next(&file).unwrap();
            bound.settle(new.as_raw_fd());
            assert!(!bound.is_passed(new.as_raw_fd(), 4096), "it is empty");
            assert_eq!(fs::read(&old).unwrap(), b"123456789\n");
            assert_eq!(fs::read(&other).unwrap(), b"mine");
            fs::remove_file(&old).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_put_aside_begins_anew() {
        let scratch = Scratch::new("rotate-not");
        let (file, bound, old) = scratch.full();
        fs::create_dir(&old).unwrap();
        let error = bound.next(&file).unwrap_err();
        assert!(
            bound
                .failure(&error)
                .contains("a.log.1, its lines are gone: Is a directory")
        );
        assert_eq!(file.metadata().unwrap().len(), 0);
        bound.settle(file.as_raw_fd());
        assert!(!bound.is_passed(file.as_raw_fd(), 11));
    }

    #[test]
    fn one_that_was_renamed_keeps_its_lines() {
        let scratch = Scratch::new("rotate-renamed");
        let (file, bound, old) = scratch.full();
        let kept = scratch.0.join("kept");
        fs::rename(scratch.0.join("a.log"), &kept).unwrap();
        let new = bound.next(&file).unwrap();
        assert_eq!(new.metadata().unwrap().len(), 0);
        // And where nothing can be opened in its place.
        fs::remove_file(scratch.0.join("a.log")).unwrap();
        fs::create_dir(scratch.0.join("a.log")).unwrap();
        bound.next(&file).unwrap_err();
        assert_eq!(fs::read(&kept).unwrap(), b"123456789\n");
        assert!(!old.exists());
        // Not tried again at every line.
        assert!(bound.is_passed(file.as_raw_fd(), 1));
        bound.settle(file.as_raw_fd());
        assert!(!bound.is_passed(file.as_raw_fd(), 10));
        assert!(bound.is_passed(file.as_raw_fd(), 11));
    }

    #[test]
    fn only_a_file_has_a_bound() {
        let scratch = Scratch::new("rotate-file");
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
        for path in [Path::new("/dev/null"), &link, &scratch.0] {
            assert!(Bound::new(path, 10).is_none(), "{}", path.display());
        }
        let (_file, _, _) = scratch.full();
        assert!(Bound::new(&scratch.0.join("a.log"), 0).is_none());
    }
}
