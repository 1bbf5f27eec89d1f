//! The same news for whoever supervises: `sd_notify(3)` datagrams to `$NOTIFY_SOCKET`, and the one newline on a
//! descriptor that s6 and its kin wait for.
#![forbid(unsafe_code)]

use crate::log;
use crate::sys::clock;
use crate::sys::fd;
use crate::sys::process::Pid;
use crate::sys::socket;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Where news go, if anywhere.
#[derive(Default)]
pub struct Notify {
    socket: Option<OsString>,
    ready: Option<OwnedFd>,
    /// How often a sign of life is wanted, halved, and when the next one is due.
    watchdog: Option<(Duration, Instant)>,
}

impl Notify {
    /// From the environment of this process, and a descriptor given with `--ready-fd`.
    pub fn new(ready: Option<OwnedFd>) -> Notify {
        let variable = |name: &str| std::env::var(name).ok();
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let meant = variable("WATCHDOG_PID").is_none_or(|pid| pid == Pid::own().to_string());
        let micros = variable("WATCHDOG_USEC")
            .filter(|_| meant)
            .and_then(|micros| micros.parse().ok());
        let watchdog = micros.filter(|micros| *micros > 0 && socket.is_some());
        let watchdog =
            watchdog.map(|micros: u64| (Duration::from_micros(micros) / 2, Instant::now()));
        Notify {
            socket,
            ready,
            watchdog,
        }
    }

    /// It serves; also after a restart.
    pub fn ready(&mut self, status: &str) {
        self.send(&ready(status));
        if let Some(ready) = self.ready.take() {
            // It serves already, and waits for no reader.
            if let Err(error) = fd::write_at_once(ready.as_raw_fd(), b"\n") {
                log::warn(format_args!("--ready-fd: cannot write to it: {error}"));
            }
        }
    }

    /// A restart begins; [`Notify::ready`] ends it.
    pub fn reloading(&self) {
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=restarting",
            clock::monotonic().as_micros()
        ));
    }

    /// It leaves.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// When the next sign of life is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }

    /// Sends it, if it is due and all is well.
    pub fn tick(&mut self, now: Instant, is_well: bool) {
        if let Some((every, due)) = &mut self.watchdog {
            if *due <= now {
                *due = now + *every;
                if is_well {
                    self.send("WATCHDOG=1");
                }
            }
        }
    }

    /// Nobody waits for these, and a supervisor that does not listen is its own affair.
    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket::send_datagram(socket, text.as_bytes());
        }
    }
}

/// Each line of a message is a field: a reason of several lines, such as a boot function may give, is put into one.
fn ready(status: &str) -> String {
    let status = status.replace(char::is_control, " ");
    format!("READY=1\nMAINPID={}\nSTATUS={status}", Pid::own())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_several_lines_is_one_field() {
        let message = ready("restart given up: no database\nMAINPID=1\r\n");
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2], "STATUS=restart given up: no database MAINPID=1  ");
    }
}
