//! What a master holds for as long as it lives: the lock, the listener, the counters, and the socket that commands ask
//! at. A start acquires them, in the order that leaves nothing behind when one is not to be had; behind an exec they are
//! adopted, and whatever did not come through is acquired anew.
#![forbid(unsafe_code)]

use super::control::Control;
use super::handover::Handover;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::http::record;
use crate::ledger::Ledger;
use crate::listener::{self, Listener};
use crate::log::{self, Sink};
use crate::logfile::Bound;
use crate::owned;
use crate::pidfile::{Acquired, Content, Lock, PidFile, Process, Runs, Standing};
use crate::place::Place;
use crate::service::Service;
use crate::settings::Settings;
use crate::sys::lock::is_unavailable;
use crate::sys::process::Pid;
use crate::syslog::{Syslog, is_system_log};
use crate::user::{Identity, Use};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a start waits for what becomes of another one that has just begun, or of a master that is about to be gone.
const UNDECIDED: Duration = Duration::from_secs(5);

/// How long the workers of a master that was killed may take to notice it.
const LEFT_BEHIND: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(5);

pub(super) struct Holdings {
    pub lock: Lock,
    pub pid_file: PidFile,
    pub listener: Listener,
    /// During a restart to another address: the one that the old workers still serve.
    pub old_listener: Option<Listener>,
    pub ledger: Ledger,
    pub control: Control,
}

/// What came through an exec, each as this process's own; `None` where a number was not open.
pub(super) struct Adopted {
    pub lock: Option<OwnedFd>,
    pub listener: Option<OwnedFd>,
    pub ledger: Option<OwnedFd>,
    pub control: Option<OwnedFd>,
}

impl Holdings {
    /// For a start. `shown` has the paths as the user named them. The log, which has its place in the order, is
    /// opened where a file is wanted.
    pub fn acquire(
        name: &str,
        settings: &Settings,
        shown: &Place,
        passed: Option<OwnedFd>,
        with_log: bool,
    ) -> Result<(Holdings, Option<File>)> {
        // 1. The lock. Until it is held nothing of a running instance may be touched.
        let place = &settings.place;
        let (lock, pid_file) = match has_no_place(&place.lock_file()) {
            true => {
                let lock = Lock::nowhere(&place.lock_file())
                    .map_err(|error| cannot("stand in for", &shown.lock_file(), &error))?;
                (lock, PidFile::adopt(&place.pid_file))
            }
            false => {
                make_directory(&place.pid_file, &shown.pid_file)?;
                lock(name, &place.pid_file, shown)?
            }
        };

        // 2. The logs.
        let access_log = as_given(settings, shown).map(|(path, seen)| open_log(path, &seen));
        record::init(access_log.transpose()?, settings);
        let log_file = match with_log {
            true => Some(open_log(&settings.place.log_file, &shown.log_file)?),
            false => None,
        };

        // 3. The address, or the socket that was passed in; short paths, for their addresses hold 107 bytes.
        let mut listener = match passed {
            Some(fd) => Listener::adopt(fd, None)?,
            None => bind(
                &settings.address.clone().within(&settings.place.base),
                pid_file.was_left,
            )?,
        };

        // 4. Counters, and the socket that commands ask at.
        let directory = settings.place.pid_file.parent().unwrap_or(Path::new("/"));
        let ledger = Ledger::new(directory).map_err(|error| {
            Error::failed(format!(
                "cannot make shared memory for the counters: {error}"
            ))
        })?;
        let made = match has_no_place(&place.socket) {
            true => Ok(true),
            false => make_directory(&place.socket, &shown.socket).map(|()| false),
        };
        let control = made.and_then(|is_nowhere| {
            let control = match is_nowhere {
                true => Control::nowhere(&place.socket),
                false => Control::bind(&place.socket),
            };
            control.map_err(|error| cannot("bind", &shown.socket, &error))
        });
        let control = match control {
            Ok(control) => control,
            Err(error) => {
                listener.close();
                return Err(error);
            }
        };
        let holdings = Holdings {
            lock,
            pid_file,
            listener,
            old_listener: None,
            ledger,
            control,
        };
        Ok((holdings, log_file))
    }

    /// For a program that was just executed by a master of before. What is missing, which a check before the exec makes
    /// as good as impossible, is told by `missing` and acquired anew.
    ///
    /// # Errors
    /// Something is missing and cannot be had again: there is nothing to be a master with.
    pub fn adopt(
        adopted: Adopted,
        handover: &Handover,
        missing: &mut dyn FnMut(&str),
    ) -> Result<Holdings> {
        let place = &handover.held.place;
        let pid_file = PidFile::adopt(&place.pid_file);
        let lock = match adopted.lock {
            Some(fd) => Lock::adopt(fd, &place.lock_file()),
            None => {
                missing("the lock");
                let (lock, pid_file) = lock("it", &place.pid_file, place)?;
                // What cannot be written now is at the next USR1 or HUP.
                let _ = pid_file.publish();
                lock
            }
        };
        let control = match adopted.control {
            Some(fd) => Control::adopt(fd, &place.socket),
            None => {
                missing("the control socket");
                Control::bind(&place.socket)
                    .map_err(|error| cannot("bind", &place.socket, &error))?
            }
        };
        // Counters of another version, or none: they begin anew.
        let directory = place.pid_file.parent().unwrap_or(&place.base);
        let ledger = adopted.ledger.and_then(|fd| Ledger::adopt(fd).ok());
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => {
                log::warn(format_args!(
                    "the counters begin anew: those of before are another version's, or lost"
                ));
                Ledger::new(directory)
                    .map_err(|error| Error::failed(format!("cannot make shared memory: {error}")))?
            }
        };
        let address = handover.address.as_deref();
        let address = address.and_then(|text| Address::parse(text).ok());
        let listener = adopted
            .listener
            .and_then(|fd| Listener::adopt(fd, address.clone()).ok());
        // Old workers have it, and go on.
        let listener = listener.unwrap_or_else(|| {
            missing("the listener");
            Listener::lost(address)
        });
        Ok(Holdings {
            lock,
            pid_file,
            listener,
            old_listener: None,
            ledger,
            control,
        })
    }

    /// Makes anew what something deleted from `run/` while the service went on. Nothing that serves depends on it, but
    /// without it no command finds the service. Says what was made anew, and, unless this is another try, what could not
    /// be. True where another process holds the lock there, which may be a start about to find its address taken.
    pub fn renew(&mut self, place: &Place, is_again: bool) -> bool {
        let lock_file = place.lock_file();
        match self.lock.standing() {
            Standing::Moved => {
                log::warn(format_args!(
                    "{} has moved: commands find this service at its new place only",
                    lock_file.display()
                ));
                return false;
            }
            Standing::Lost => {
                log::error(format_args!(
                    "another process holds the lock of {}: commands find that one",
                    lock_file.display()
                ));
                return false;
            }
            Standing::There | Standing::Removed | Standing::Replaced => {}
        }
        let said = |file: &Path, made: io::Result<bool>| match made {
            // Said at the start.
            Err(_) if is_again || has_no_place(file) => {}
            Ok(true) => log::warn(format_args!("{} was gone: made anew", file.display())),
            Ok(false) => {}
            Err(error) => log::error(format_args!("cannot renew {}: {error}", file.display())),
        };
        self.make_directories(place);
        said(&lock_file, self.lock.renew());
        if self.lock.standing() == Standing::Replaced {
            // Another master has its pid file and its socket there now.
            return true;
        }
        said(&place.pid_file, self.pid_file.renew());
        said(&place.socket, self.control.renew());
        false
    }

    /// Makes the directories of these files anew, unless they have moved: whoever moved one did not mean to have it made
    /// a second time at its old place.
    pub fn make_directories(&self, place: &Place) {
        if self.lock.standing() == Standing::Moved {
            return;
        }
        let files = [&place.lock_file(), &place.socket, &place.log_file];
        for file in files.into_iter().filter(|file| !has_no_place(file)) {
            if let Err(error) = make_directory(file, file) {
                log::error(format_args!("{error}"));
            }
        }
    }

    /// The address changes with this restart: from now on `listener` is for the new one, the old one waits for its end.
    pub fn move_to(&mut self, new: Listener) {
        self.old_listener = Some(std::mem::replace(&mut self.listener, new));
    }

    /// The restart is given up: the address of before, which never was closed, is the one again.
    pub fn move_back(&mut self) {
        if let Some(old) = self.old_listener.take() {
            std::mem::replace(&mut self.listener, old).close();
            self.listener.keep_port();
        }
    }

    /// Nothing new is to be accepted from here on. Workers have copies of their own, and serve who is in the queue.
    pub fn unlisten(&mut self) {
        self.close_old();
        self.listener.close();
    }

    /// The old workers accept who waits at the old address, and nobody after that: this process lets go of it. False
    /// where there is none.
    pub fn close_old(&mut self) -> bool {
        let Some(mut old) = self.old_listener.take() else {
            return false;
        };
        old.close_beside(&self.listener);
        self.listener.keep_port();
        true
    }
}

/// The file of the access log, if it has one of its own, and how its user would name it.
fn as_given<'a>(settings: &'a Settings, shown: &Place) -> Option<(&'a PathBuf, PathBuf)> {
    let path = settings.access_log.file()?;
    let from_base = path.strip_prefix(&settings.place.base);
    let seen = from_base.map_or(path.clone(), |path| Place::under(&shown.base, path));
    Some((path, seen))
}

/// What is to be said of directories in which another user could put something in the place of a file.
pub(super) fn exposed(settings: &Settings, shown: &Place) -> Vec<String> {
    let place = &settings.place;
    let access_log = as_given(settings, shown);
    let files = [
        (&place.pid_file, &shown.pid_file),
        (&place.log_file, &shown.log_file),
        (&place.socket, &shown.socket),
    ];
    let access_log = access_log.as_ref().map(|(path, seen)| (*path, seen));
    let mut found = Vec::new();
    for (file, shown) in files.into_iter().chain(access_log) {
        let (Some(directory), Some(shown)) = (file.parent(), shown.parent()) else {
            continue;
        };
        // A device stands where everybody's do.
        let is_ours = file.is_file() || file == &place.socket;
        if let Some(why) = owned::exposure(directory).filter(|_| is_ours) {
            let shown = shown.display();
            let text = format!(
                "others may write to {shown}/, and could put a file of theirs in the place of one there: {why}"
            );
            if !found.contains(&text) {
                found.push(text);
            }
        }
    }
    found
}

/// What would let the user of the workers become root: something that root executes or reads, or a directory where it
/// makes its files, that this user may change. The first of them, for people.
pub(crate) fn danger(identity: &Identity, program: &Path, settings: &Settings) -> Option<String> {
    let place = &settings.place;
    let is_log = |path: &&PathBuf| !is_system_log(path);
    let read = [("its program", program), ("its settings", &place.config)];
    let made = [&place.pid_file, &place.socket];
    let made = made.into_iter().chain(Some(&place.log_file).filter(is_log));
    let made = made.chain(settings.access_log.file());
    let read = read.map(|(what, path)| (what, path, Use::Reads));
    let made = made.map(|path| ("its files", path.as_path(), Use::Makes));
    read.into_iter().chain(made).find_map(|(what, path, used)| {
        let thing = identity.may_change(path, used)?;
        Some(format!(
            "app.user {} may change {thing}, where root has {what}, and could become root: make that root's alone",
            identity.user
        ))
    })
}

/// Whether this is the first process of a container in which there is no place for this file: it serves all the same, and
/// is stopped by its engine.
fn has_no_place(file: &Path) -> bool {
    Pid::own().is_init() && owned::has_no_place(file)
}

/// Whether there is none for the files of `run/`.
pub(super) fn is_nowhere(place: &Place) -> bool {
    has_no_place(&place.lock_file())
}

/// What is to be said where commands cannot find this service, neither by its lock nor by its socket.
pub(super) fn nowhere(place: &Place, shown: &Place) -> Option<String> {
    let file = shown.lock_file();
    (is_nowhere(place) && has_no_place(&place.socket)).then(|| {
        let directory = file.parent().unwrap_or(Path::new("/")).display();
        format!(
            "{directory}/ is read-only: it serves all the same, but commands have nowhere to meet it; for them mount a tmpfs there"
        )
    })
}

/// Where the log goes, with its file where it has one.
pub(super) fn sink(service: &Service, settings: &Settings, file: Option<File>) -> Sink {
    let path = &settings.place.log_file;
    match file {
        Some(file) => Sink::File(file, Bound::new(path, settings.log_max)),
        None if settings.log_file_is_set && is_system_log(path) => {
            Sink::System(Syslog::new(path, &service.name))
        }
        None => Sink::Output,
    }
}

/// Opens the log, with its directory.
pub(crate) fn open_log(path: &Path, shown: &Path) -> Result<File> {
    make_directory(path, shown)?;
    crate::logfile::open(path).map_err(|error| cannot("write", shown, &error))
}

/// Binds. The workers of a master that was killed let go of the address as soon as they notice; that is waited for.
fn bind(address: &Address, was_left: bool) -> Result<Listener> {
    let first = Listener::bind(address);
    if first.is_ok() || !was_left {
        return first;
    }
    let until = Instant::now() + LEFT_BEHIND;
    while Instant::now() < until && listener::is_taken(address) {
        std::thread::sleep(STEP);
    }
    // Once more in any case: it may have been let go of while the error's words were found.
    Listener::bind(address)
}

pub(crate) fn make_directory(file: &Path, shown: &Path) -> Result<()> {
    let Some(directory) = file.parent() else {
        return Ok(());
    };
    owned::make_directory(directory).map_err(|error| {
        let shown = shown.parent().unwrap_or(shown);
        Error::failed(format!(
            "cannot make the directory {}: {error}",
            shown.display()
        ))
    })
}

pub(crate) fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    let whose = owned::whose(path, error);
    Error::failed(format!("cannot {what} {}: {error}{whose}", path.display()))
}

/// Takes the lock, and then the pid file. What stands in the place of the pid file is looked at before, so that nothing
/// is made beside what is refused.
fn lock(name: &str, pid_file: &Path, shown: &Place) -> Result<(Lock, PidFile)> {
    let of_pid_file = |error| cannot("write", &shown.pid_file, &error);
    match owned::look(pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(of_pid_file(error)),
        _ => {}
    }
    let lock_file = shown.lock_file();
    let until = Instant::now() + UNDECIDED;
    let acquired = loop {
        match Lock::acquire(&Place::lock_of(pid_file)) {
            // A master that has not published its pid, or has taken it back: it starts, and may yet fail, or it leaves.
            Ok(Acquired::Held(Runs::Master(_))) if is_empty(pid_file) && Instant::now() < until => {
                std::thread::sleep(UNDECIDED / 500)
            }
            acquired => break acquired,
        }
    };
    match acquired {
        Ok(Acquired::Ours(lock)) => Ok((lock, PidFile::open(pid_file).map_err(of_pid_file)?)),
        Ok(Acquired::Held(runs)) => Err(already_running(name, &lock_file, runs)),
        Err(error) if is_unavailable(&error) => {
            let (file, lock) = (shown.pid_file.display(), lock_file.display());
            Err(Error::failed(format!(
                "cannot lock {lock}: {error}; put {file} on a file system that has locks, with app.pid_file"
            )))
        }
        Err(error) => Err(cannot("write", &lock_file, &error)),
    }
}

/// Whether the pid file is there and says nothing.
fn is_empty(pid_file: &Path) -> bool {
    pid_file.exists() && PidFile::read(pid_file).is_ok_and(|content| content == Content::Empty)
}

fn already_running(name: &str, lock_file: &Path, runs: Runs) -> Error {
    let file = lock_file.display();
    Error::failed(match runs {
        Runs::Master(Process { pid, .. }) => {
            format!("already running, pid {pid}; use \"{name} app restart\" or \"{name} app stop\"")
        }
        Runs::Stranger(pid, uid) => {
            let whose = uid.map_or_else(String::new, |uid| format!(" of uid {uid}"));
            format!(
                "cannot lock {file}: pid {pid}{whose} has it locked, which is no master of this service; end it"
            )
        }
        _ => format!(
            "already running: {file} is locked by a process that cannot be seen from here (another container or host)"
        ),
    })
}

impl Adopted {
    pub fn new(handover: &Handover) -> Adopted {
        Adopted {
            lock: Handover::adopt(handover.lock),
            listener: Handover::adopt(handover.listener),
            ledger: Handover::adopt(handover.ledger),
            control: Handover::adopt(handover.control),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_address_that_is_let_go_of_at_any_moment_is_had() {
        for micros in (0..6000).step_by(500) {
            let holder = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = Address::Ip(holder.local_addr().unwrap());
            let letting_go = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(micros));
                drop(holder);
            });
            bind(&address, true).unwrap_or_else(|error| panic!("{micros}: {error}"));
            letting_go.join().unwrap();
        }
    }
}
