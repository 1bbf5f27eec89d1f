//! The log: one line per event, `time level pid event`, one `write(2)` each, so that lines of several processes and
//! threads never mix. A line that cannot be written (disk full, reader gone or stuck) is dropped and counted;
//! the next one that can be written says how many are missing. Nothing here ever stops or delays the service.
#![forbid(unsafe_code)]

use crate::clock::Utc;
use crate::daemon;
use crate::settings::Level;
use crate::sys::fd;
use crate::sys::process::Pid;
use std::fmt::{Arguments, Write};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The mode of the log file, whatever the umask.
pub const MODE: u32 = 0o640;

/// The longest line in bytes: what one write to a pipe keeps together (`PIPE_BUF`, `pipe(7)`).
const LONGEST: usize = 4096;

static LOST: AtomicU32 = AtomicU32::new(0);
static TO: OnceLock<To> = OnceLock::new();

struct To {
    level: Level,
    file: Option<File>,
    /// Standard output and error go to the same file.
    with_stdio: bool,
}

/// Opens a log file for appending and gives it its mode. Devices and FIFOs are taken as they are.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(fd::O_NOCTTY | fd::O_NONBLOCK);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        // Somebody else's file that we may write to keeps its mode.
        let _ = file.set_permissions(Permissions::from_mode(MODE));
    }
    Ok(file)
}

/// Says where lines go from here on: to the file, or to standard output without one; and whether standard output and
/// error were given to that file too. The first call counts.
pub fn init(level: Level, file: Option<File>, with_stdio: bool) {
    let _ = TO.set(To {
        level,
        file,
        with_stdio,
    });
}

/// Puts a newly opened file in the place of the old one, in one step for every thread. False where there is none.
pub fn reopen(path: &Path) -> io::Result<bool> {
    let Some(To {
        file: Some(file),
        with_stdio,
        ..
    }) = TO.get()
    else {
        return Ok(false);
    };
    let new = open(path)?;
    fd::dup3_cloexec(new.as_fd(), file.as_raw_fd())?;
    if *with_stdio {
        daemon::redirect(Some(&new))?;
    }
    Ok(true)
}

/// Something broke, and somebody has to act.
pub fn error(event: Arguments<'_>) {
    line(Level::Error, event);
}

/// Something broke, and hade goes on.
pub fn warn(event: Arguments<'_>) {
    line(Level::Warn, event);
}

/// A step in the life of the service.
pub fn info(event: Arguments<'_>) {
    line(Level::Info, event);
}

/// For those who look into hade itself.
pub fn debug(event: Arguments<'_>) {
    line(Level::Debug, event);
}

fn line(level: Level, event: Arguments<'_>) {
    let Some(to) = TO.get() else { return };
    if level > to.level {
        return;
    }
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0
        && !write(
            to,
            &render(
                Level::Warn,
                format_args!("{lost} log lines before this one were lost"),
            ),
        )
    {
        LOST.fetch_add(lost, Ordering::Relaxed);
    }
    if !write(to, &render(level, event)) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

fn render(level: Level, event: Arguments<'_>) -> String {
    let mut line = String::with_capacity(160);
    let _ = write!(line, "{} {level} {} ", Utc::now(), Pid::own());
    let start = line.len();
    let _ = line.write_fmt(event);
    if line[start..].contains(|c: char| c.is_control()) {
        let clean: String = line[start..]
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        line.replace_range(start.., &clean);
    }
    if line.len() >= LONGEST {
        let cut = (0..LONGEST)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        line.truncate(cut);
    }
    line.push('\n');
    line
}

/// Whether the whole line went out.
fn write(to: &To, line: &str) -> bool {
    let number = to.file.as_ref().map_or(1, File::as_raw_fd);
    fd::is_writable_number(number)
        && fd::write_to(number, line.as_bytes()).is_ok_and(|count| count == line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_bounded() {
        let text = render(
            Level::Warn,
            format_args!("GET /a\r\nfake {}", "ü".repeat(5000)),
        );
        assert!(text.len() <= LONGEST && text.ends_with('\n'));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(
            text.contains(&format!(" warn {} GET /a  fake ü", Pid::own())),
            "{text}"
        );
        assert_eq!(&text[23..25], "Z ");
    }
}
