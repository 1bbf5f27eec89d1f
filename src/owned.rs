//! Files that are hade's own, as those in `run/`: opened without following a link, and looked at by their descriptor
//! before anything is changed. Another user who may write the directory could have put anything in their place.
#![forbid(unsafe_code)]

use crate::sys::fd::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use crate::sys::file::is_read_only;
use crate::sys::process::{egid, euid};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode of directories made for the files of `run/`.
const DIRECTORY_MODE: u32 = 0o750;

/// How often a file that comes and goes is tried.
const TRIES: usize = 100;

/// Opens a file to append to, or to read and write, and gives it its mode, whatever the umask; makes it
/// where it is missing. What is there and not to be trusted stays as it is, and is an error.
pub fn open(path: &Path, append: bool, mode: u32) -> io::Result<File> {
    let options = |new: bool| {
        let mut options = OpenOptions::new();
        options
            .read(!append)
            .write(!append)
            .append(append)
            .create_new(new)
            .mode(mode)
            .custom_flags(O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
        options
    };
    for _ in 0..TRIES {
        // Opening alone can do something to a device, so what is no file is not even opened.
        let opened = look(path).and_then(|()| options(false).open(path));
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => options(true).open(path),
            opened => opened,
        };
        match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let found = file.metadata()?;
                trusted(&found)?;
                if found.mode() & 0o7777 != mode {
                    // A file of root's that we may write to keeps its mode.
                    let _ = file.set_permissions(Permissions::from_mode(mode));
                }
                return Ok(file);
            }
        }
    }
    Err(io::Error::other("it is replaced again and again"))
}

/// Opens a file of hade's own, to read alone. Whose it is, is for the caller to judge.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    look(path)?;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    let file = options.open(path)?;
    plain(&file.metadata()?)?;
    Ok(file)
}

/// Whether what is there now is a file to open; an error that says what it is if not.
pub fn look(path: &Path) -> io::Result<()> {
    plain(&fs::symlink_metadata(path)?)
}

/// Whether what is there now would be opened by [`open`]; a missing file is an error of its own kind.
pub fn check(path: &Path) -> io::Result<()> {
    trusted(&fs::symlink_metadata(path)?)
}

/// A regular file, no other name of which leads elsewhere.
fn plain(found: &Metadata) -> io::Result<()> {
    let refused = |text: &str| Err(io::Error::new(ErrorKind::InvalidInput, text));
    if found.is_symlink() {
        return refused("it is a symbolic link, and those are not followed here");
    }
    if found.is_dir() {
        return refused("it is a directory");
    }
    if !found.is_file() {
        return refused("it is not a regular file");
    }
    // One that was removed after it was opened has none.
    match found.nlink() {
        0 | 1 => Ok(()),
        _ => refused("it has another name, a hard link, and may be somebody else's file"),
    }
}

/// The same, of root or of this process's user.
fn trusted(found: &Metadata) -> io::Result<()> {
    plain(found)?;
    is_ours(found)
}

/// Whether it belongs to root or to this process's user; an error that says whose it is if not.
pub fn is_ours(found: &Metadata) -> io::Result<()> {
    let (owner, us) = (found.uid(), euid());
    if owner == 0 || owner == us {
        return Ok(());
    }
    let text = format!("it belongs to uid {owner}, this is uid {us}");
    Err(io::Error::new(ErrorKind::InvalidInput, text))
}

/// Why another user can put what they like into a directory, if one can. In a sticky one they cannot replace what is
/// there (`sticky(7)`); a group is others unless it is this process's own.
pub fn exposure(directory: &Path) -> Option<String> {
    let found = fs::metadata(directory).ok()?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != 0 && owner != euid() {
        return Some(format!("it belongs to uid {owner}, this is uid {}", euid()));
    }
    let by_group = mode & 0o020 != 0 && found.gid() != egid();
    let is_open = (mode & 0o002 != 0 || by_group) && mode & 0o1000 == 0;
    is_open.then(|| format!("its mode is {mode:04o}"))
}

/// Makes a directory and what is missing above it, with exactly its mode whatever the umask.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    let made = fs::create_dir(directory).or_else(|error| match directory.parent() {
        Some(parent) if error.kind() == ErrorKind::NotFound => {
            make_directory(parent)?;
            // Once: there are places, /proc for one, that answer so whatever is above.
            fs::create_dir(directory)
        }
        _ => Err(error),
    });
    match made {
        Ok(()) => give_mode(directory),
        // Another start may have been quicker.
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// By descriptor: where others may write, another thing may stand there by now.
fn give_mode(directory: &Path) -> io::Result<()> {
    let mode = Permissions::from_mode(DIRECTORY_MODE);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    match options.open(directory) {
        Ok(made) => {
            let found = made.metadata()?;
            if found.is_dir() && found.uid() == euid() {
                return made.set_permissions(mode);
            }
            Err(io::Error::other("somebody put something else in its place"))
        }
        // The umask took even its owner's right to read.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            fs::set_permissions(directory, mode)
        }
        Err(error) => Err(error),
    }
}

/// Whether nothing can be made where this file would be, for that is a read-only file system, and the file is not there
/// yet.
pub fn has_no_place(file: &Path) -> bool {
    let above = file.ancestors().skip(1);
    let there = above.filter(|path| !path.as_os_str().is_empty());
    let mut there = there.filter(|path| path.exists());
    let directory = there.next().unwrap_or(Path::new("."));
    fs::symlink_metadata(file).is_err() && is_read_only(directory).unwrap_or(false)
}

/// To go behind an error that says "permission denied": whose the file is, or the directory that it would be in.
pub fn whose(path: &Path, error: &io::Error) -> String {
    if error.kind() != ErrorKind::PermissionDenied {
        return String::new();
    }
    let found = [Some(path), path.parent()]
        .into_iter()
        .flatten()
        .find_map(|path| fs::symlink_metadata(path).ok());
    let found = found.filter(|found| found.uid() != euid());
    found.map_or_else(String::new, |found| {
        format!(
            "; it belongs to uid {}, this is uid {}",
            found.uid(),
            euid()
        )
    })
}

/// Whether a path leads to this very file, without following a link.
pub fn is_same(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let there = fs::symlink_metadata(path).ok().map(identity);
    there.is_some() && file.metadata().ok().map(identity) == there
}
