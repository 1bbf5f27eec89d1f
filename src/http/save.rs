//! A body that becomes a file, whole or not at all.
#![forbid(unsafe_code)]

use crate::sys::file;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

/// Names of parts that are tried until one is free.
const TRIES: usize = 100;

/// Writes what there is to read to a file, and that to the disk. Until all of it has come it has no name, where the file
/// system can do that, so that nothing of it is left by a process that is killed.
pub(super) fn save(body: &mut impl Read, path: &Path) -> io::Result<u64> {
    save_by(body, path, file::nameless_in)
}

fn save_by(
    body: &mut impl Read,
    path: &Path,
    nameless: impl FnOnce(&Path) -> Option<File>,
) -> io::Result<u64> {
    if path.file_name().is_none() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "a path without a name",
        ));
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let length = match nameless(directory) {
        Some(mut file) => {
            let length = io::copy(body, &mut file)?;
            file.sync_all()?;
            give_name(&mut file, directory, path)?;
            length
        }
        None => {
            let (part, mut file) = new_part(directory)?;
            let copied = io::copy(body, &mut file);
            let length = copied.and_then(|length| file.sync_all().map(|()| length));
            part.become_file(path, length)?
        }
    };
    // Where the directory may not be read, or cannot be synchronised, the kernel writes its new entry when it does.
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
    Ok(length)
}

/// A file without a name takes this one, by way of a part's where another file has it.
fn give_name(file: &mut File, directory: &Path, path: &Path) -> io::Result<()> {
    if file::give_name(file, path).is_ok() {
        // Some file systems write a file that had no name to the disk as one that is to go.
        return file.sync_all();
    }
    for _ in 0..TRIES {
        let part = Part::new(directory);
        match file::give_name(file, &part.0) {
            Ok(()) => {
                let synced = file.sync_all();
                return part.become_file(path, synced);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(_) => break,
        }
    }
    // Without /proc it cannot get one.
    let (part, mut copy) = new_part(directory)?;
    let copied = file.rewind().and_then(|()| io::copy(file, &mut copy));
    part.become_file(path, copied.and_then(|_| copy.sync_all()))
}

/// The name of a file that is not whole yet, in the directory in which it is to be.
struct Part(PathBuf);

impl Part {
    /// Whoever else writes here, in another container perhaps under the same process id, takes another one.
    fn new(directory: &Path) -> Part {
        let random = RandomState::new().hash_one(std::process::id());
        Part(directory.join(format!(".{random:016x}.part")))
    }

    /// It takes the place of what is there, or is removed if it is not what it should be.
    fn become_file<T>(self, path: &Path, written: io::Result<T>) -> io::Result<T> {
        let done = written.and_then(|done| fs::rename(&self.0, path).map(|()| done));
        if done.is_err() {
            let _ = fs::remove_file(&self.0);
        }
        done
    }
}

fn new_part(directory: &Path) -> io::Result<(Part, File)> {
    for _ in 0..TRIES {
        let part = Part::new(directory);
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).open(&part.0) {
            Ok(file) => return Ok((part, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let name = format!("hade-save-{name}-{}", std::process::id());
            let directory = Directory(std::env::temp_dir().join(name));
            fs::create_dir(&directory.0).unwrap();
            directory
        }

        fn names(&self) -> Vec<String> {
            let found = fs::read_dir(&self.0).unwrap().flatten();
            let mut names: Vec<String> = found
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Some bytes, and then an error.
    struct Broken(&'static [u8]);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.is_empty() {
                true => Err(io::Error::other("broken")),
                false => self.0.read(buffer),
            }
        }
    }

    type Nameless = fn(&Path) -> Option<File>;

    /// The ways: without a name and with one from the beginning.
    const WAYS: [(&str, Nameless); 2] = [("nameless", file::nameless_in), ("named", |_| None)];

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        for (way, nameless) in WAYS {
            let here = Directory::new(way);
            let path = here.0.join("a");
            let save = |mut body: &[u8]| save_by(&mut body, &path, nameless);
            assert_eq!(save(b"first").unwrap(), 5);
            assert_eq!(save(b"second").unwrap(), 6);
            assert!(save_by(&mut Broken(b"thi"), &path, nameless).is_err());
            assert_eq!(fs::read(&path).unwrap(), b"second");
            let usual = here.0.join("usual");
            fs::write(&usual, "").unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&path), mode(&usual), "{way}");
            fs::create_dir(here.0.join("directory")).unwrap();
            for taken in ["directory", "missing/a", ".."] {
                let saved = save_by(&mut &b"x"[..], &here.0.join(taken), nameless);
                assert!(saved.is_err(), "{way} {taken}");
            }
            // A link is replaced, and not what it leads to.
            symlink("usual", here.0.join("link")).unwrap();
            save_by(&mut &b"x"[..], &here.0.join("link"), nameless).unwrap();
            assert_eq!(fs::read(&usual).unwrap(), b"");
            assert_eq!(here.names(), ["a", "directory", "link", "usual"], "{way}");
        }
    }

    #[test]
    fn of_many_at_once_each_is_whole() {
        for (way, nameless) in WAYS {
            let here = Directory::new(&format!("{way}-many"));
            std::thread::scope(|scope| {
                for byte in b'a'..=b'd' {
                    let path = here.0.join("one");
                    scope.spawn(move || {
                        let body = [byte; 5000];
                        for _ in 0..20 {
                            save_by(&mut &body[..], &path, nameless).unwrap();
                        }
                    });
                }
            });
            let found = fs::read(here.0.join("one")).unwrap();
            assert!(found.len() == 5000 && found.iter().all(|byte| *byte == found[0]));
            assert_eq!(here.names(), ["one"], "{way}");
        }
    }
}
