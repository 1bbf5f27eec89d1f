//! The system's own log: a datagram per line to whoever listens at `/dev/log` (`syslog(3)`, RFC 3164). Nobody waits for
//! it, and one that comes, goes and comes again is found again.
#![forbid(unsafe_code)]

use crate::level::Level;
use crate::sys::clock::{Local, local};
use crate::sys::process::Pid;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where it listens, and so what `app.log_file = syslog` stands for.
pub const PATH: &str = "/dev/log";

/// Whether the log of this path is no file, but the system's.
pub fn is_system_log(path: &Path) -> bool {
    path == Path::new(PATH)
}

/// The facility of daemons, as the priority has it.
const DAEMON: u8 = 3 << 3;

/// The way there.
pub struct Syslog {
    path: PathBuf,
    name: String,
    socket: Mutex<Option<UnixDatagram>>,
}

impl Syslog {
    /// For a program of this name.
    pub fn new(path: &Path, name: &str) -> Syslog {
        Syslog {
            path: path.to_owned(),
            name: name.to_owned(),
            socket: Mutex::default(),
        }
    }

    /// Whether a line was taken.
    pub fn send(&self, level: Level, text: &str) -> bool {
        let line = render(level, &self.name, Pid::own(), &local(), text);
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = socket.as_ref().map(|socket| socket.send(line.as_bytes()));
        match sent {
            Some(Ok(_)) => return true,
            // It is there and has no room now.
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // It went, and another one may have come.
            Some(Err(_)) | None => {}
        }
        *socket = connect(&self.path).ok();
        socket
            .as_ref()
            .is_some_and(|socket| socket.send(line.as_bytes()).is_ok())
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

/// `<30>Nov  5 18:42:07 hade[4711]: text`
fn render(level: Level, name: &str, pid: Pid, at: &Local, text: &str) -> String {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug => 7,
    };
    let Local {
        month,
        day,
        hour,
        minute,
        second,
    } = at;
    let month = crate::clock::MONTHS.get(*month).unwrap_or(&"Jan");
    let priority = DAEMON | severity;
    format!("<{priority}>{month} {day:>2} {hour:02}:{minute:02}:{second:02} {name}[{pid}]: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_syslogds_read_it() {
        let at = Local {
            month: 10,
            day: 5,
            hour: 8,
            minute: 2,
            second: 7,
        };
        let pid = Pid::from_raw(4711).unwrap();
        let line = |level| render(level, "hade", pid, &at, "started");
        assert_eq!(line(Level::Info), "<30>Nov  5 08:02:07 hade[4711]: started");
        assert!(line(Level::Error).starts_with("<27>"));
        assert!(line(Level::Warn).starts_with("<28>"));
        assert!(line(Level::Debug).starts_with("<31>"));
    }

    #[test]
    fn one_that_comes_and_goes_is_found_again_and_never_waited_for() {
        let path = std::env::temp_dir().join(format!("hade-syslog-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let syslog = Syslog::new(&path, "hade");
        assert!(!syslog.send(Level::Info, "nobody is there"));
        for _ in 0..2 {
            let listener = UnixDatagram::bind(&path).unwrap();
            assert!(syslog.send(Level::Info, "one"));
            let mut buffer = [0; 200];
            let count = listener.recv(&mut buffer).unwrap();
            assert!(buffer[..count].ends_with(b": one"));
            // It does not read, until no more fits.
            let taken = (0..1_000_000).take_while(|_| syslog.send(Level::Info, "more"));
            assert!(taken.count() < 1_000_000);
            listener.recv(&mut buffer).unwrap();
            assert!(syslog.send(Level::Info, "room again"));
            drop(listener);
            assert!(!syslog.send(Level::Info, "gone"));
            std::fs::remove_file(&path).unwrap();
        }
    }
}
