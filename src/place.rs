//! Where things are: the base directory, and the files in its `etc/` and `run/`.
//! Names only: nothing is opened, made or looked up here.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

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

    /// A path that is named for two purposes, if there is one: the pid file would lose its lock, and a log its lines.
    pub fn clash(&self) -> Option<&Path> {
        let files = [&self.config, &self.pid_file, &self.log_file, &self.socket];
        let twice = files
            .iter()
            .enumerate()
            .find(|(index, file)| files[..*index].contains(file));
        twice.map(|(_, file)| file.as_path())
    }

    /// The same files by absolute paths, from the current directory of now. Symbolic links and
    /// `..` are left alone.
    ///
    /// # Errors
    /// The current directory has been removed or cannot be read.
    pub fn absolute(self) -> io::Result<Place> {
        Ok(Place {
            base: std::path::absolute(self.base)?,
            config: std::path::absolute(self.config)?,
            pid_file: std::path::absolute(self.pid_file)?,
            log_file: std::path::absolute(self.log_file)?,
            socket: std::path::absolute(self.socket)?,
        })
    }
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
