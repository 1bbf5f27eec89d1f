//! Where things are: the base directory, and the files in its `etc/` and `run/`.
//! Names only: nothing is opened or made here.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Component, Path, PathBuf};

/// The paths of one application, as its user should read them: relative ones from the current
/// directory, with the base directory in front. [`Place::absolute`] makes them fit for a process
/// that changes its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The base directory as given; `.` unless told otherwise.
    pub base: PathBuf,
    /// `etc/app.conf` under the base directory.
    pub config: PathBuf,
    /// `run/app.pid` under the base directory.
    pub pid_file: PathBuf,
    /// `run/app.log` under the base directory.
    pub log_file: PathBuf,
    /// The control socket, `run/app.sock` under the base directory.
    pub socket: PathBuf,
}

impl Place {
    /// The base directory where none is given.
    pub const BASE: &'static str = ".";
    /// The settings file where none is given.
    pub const CONFIG: &'static str = "etc/app.conf";

    /// A path as given, read from the base directory: `run/app.pid` is itself under `.` and
    /// `/srv/run/app.pid` under `/srv`. An absolute path stays.
    pub fn under(base: &Path, path: &Path) -> PathBuf {
        if base == Path::new(Self::BASE) {
            path.to_owned()
        } else {
            base.join(path)
        }
    }

    /// The file that is locked while the master lives, beside the pid file: `run/app.lock` for `run/app.pid`.
    pub fn lock_file(&self) -> PathBuf {
        Place::lock_of(&self.pid_file)
    }

    /// The lock that belongs to a pid file: `X.lock` for `X.pid`, and for any other name the name with `.lock` behind.
    pub fn lock_of(pid_file: &Path) -> PathBuf {
        let mut name = pid_file.as_os_str().to_owned();
        match pid_file.extension() {
            Some(end) if end == "pid" => pid_file.with_extension("lock"),
            _ => {
                name.push(".lock");
                name.into()
            }
        }
    }

    /// Every file that is read or made here.
    pub fn files(&self) -> [PathBuf; 5] {
        [
            self.config.clone(),
            self.pid_file.clone(),
            self.lock_file(),
            self.log_file.clone(),
            self.socket.clone(),
        ]
    }

    /// A path that is named for two purposes, if there is one: the lock would be dropped, and a log lose its lines. In
    /// `/dev/null`, which stands for "no settings" and "no log", there is nothing to lose.
    pub fn clash(&self) -> Option<PathBuf> {
        let files = self.files();
        let mut all = files.iter().enumerate();
        let twice = all.find(|(index, file)| is_among(file, &files[..*index]));
        twice.map(|(_, file)| file.clone())
    }

    /// The same files by absolute paths, from the current directory of now. Symbolic links and
    /// `..` are left alone.
    ///
    /// # Errors
    /// The current directory has been removed or cannot be read.
    pub fn absolute(self) -> io::Result<Place> {
        let here = here_by_name();
        let absolute = |path: &Path| absolute_from(here.as_deref(), path);
        Ok(Place {
            base: absolute(&self.base)?,
            config: absolute(&self.config)?,
            pid_file: absolute(&self.pid_file)?,
            log_file: absolute(&self.log_file)?,
            socket: absolute(&self.socket)?,
        })
    }
}

/// Whether a path leads to one of these files, however it is written. `/dev/null` is never meant.
pub fn is_among(path: &Path, files: &[PathBuf]) -> bool {
    // Most differ by their names, and nothing has to be looked up.
    let mut alike = files
        .iter()
        .filter(|file| file.file_name() == path.file_name())
        .peekable();
    if path == Path::new("/dev/null") || alike.peek().is_none() {
        return false;
    }
    let path = resolved(path);
    alike.any(|file| resolved(file) == path)
}

/// A path with the links followed that lead to its directory: two people write it alike who mean the same file. What is not
/// there yet is taken by its name.
pub fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let above = path.ancestors().skip(1);
    let mut there = above.filter_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, mut found)) = there.next() else {
        return path;
    };
    for part in path.strip_prefix(above).unwrap_or(&path).components() {
        match part {
            Component::ParentDir => drop(found.pop()),
            part => found.push(part),
        }
    }
    found
}

/// A path from the root on. A relative one starts at the current directory by the name under which the user's shell
/// entered it (`$PWD`), if it has one: behind `cd /srv/current`, which is a link, a restart follows that link.
///
/// # Errors
/// The current directory has been removed or cannot be read.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match path.is_absolute() {
        true => std::path::absolute(path),
        false => absolute_from(here_by_name().as_deref(), path),
    }
}

/// `here` is the current directory by a name of its own, if it has one.
fn absolute_from(here: Option<&Path>, path: &Path) -> io::Result<PathBuf> {
    match here {
        Some(here) => std::path::absolute(here.join(path)),
        None => std::path::absolute(path),
    }
}

/// `$PWD`, where it is a name of the current directory.
fn here_by_name() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let pwd = std::env::var_os("PWD").map(PathBuf::from)?;
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    // The shell's own form: no dots, which would lead elsewhere once a link among them is turned.
    let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !(pwd.is_absolute() && pwd.components().all(is_plain)) {
        return None;
    }
    let here = identity(Path::new("."))?;
    (identity(&pwd) == Some(here)).then_some(pwd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_well_under_their_base() {
        for (base, path, expected) in [
            (".", "run/app.pid", "run/app.pid"),
            ("./", "run/app.pid", "run/app.pid"),
            (".", "../run/app.pid", "../run/app.pid"),
            ("srv", "run/app.pid", "srv/run/app.pid"),
            ("/srv/", "run/app.pid", "/srv/run/app.pid"),
            ("/", "run/app.pid", "/run/app.pid"),
            (".", "/var/run/x", "/var/run/x"),
            ("/srv", "/var/run/x", "/var/run/x"),
        ] {
            let found = Place::under(Path::new(base), Path::new(path));
            assert_eq!(found.to_str(), Some(expected), "{base} {path}");
        }
    }

    #[test]
    fn the_lock_stands_beside_the_pid_file() {
        for (pid_file, expected) in [
            ("run/app.pid", "run/app.lock"),
            ("/run/x.y.pid", "/run/x.y.lock"),
            ("run/app", "run/app.lock"),
            ("run/app.lock", "run/app.lock.lock"),
            ("run/.pid", "run/.pid.lock"),
        ] {
            let found = Place::lock_of(Path::new(pid_file));
            assert_eq!(found.to_str(), Some(expected), "{pid_file}");
        }
    }

    #[test]
    fn absolute_starts_from_the_current_directory() {
        let place = Place {
            base: ".".into(),
            config: "etc/app.conf".into(),
            pid_file: "/var/run/x.pid".into(),
            log_file: "../app.log".into(),
            socket: "./run/app.sock".into(),
        };
        let here = std::env::current_dir().unwrap();
        let place = place.absolute().unwrap();
        assert_eq!(place.base, here);
        assert_eq!(place.config, here.join("etc/app.conf"));
        assert_eq!(place.pid_file, Path::new("/var/run/x.pid"));
        assert_eq!(place.log_file, here.join("../app.log"));
        assert_eq!(place.socket, here.join("run/app.sock"));
    }
}
