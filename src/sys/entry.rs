//! The way into a program without Rust's runtime, which prepares a word about a stack overflow before `main`, and with
//! the GNU library asks `/proc` for that: a tenth of what a short command takes.

use super::fd::is_open_number;
use std::panic::{UnwindSafe, catch_unwind};

/// Defines `main` for the program that a function makes: with the GNU library the one that the C library calls, for which
/// the program is to be `#![no_main]`.
#[doc(hidden)]
#[macro_export]
macro_rules! bare_main {
    ($app:ident) => {
        #[cfg(all(target_env = "gnu", not(test)))]
        #[unsafe(no_mangle)]
        #[allow(unsafe_code)]
        extern "C" fn main() -> i32 {
            $crate::enter(|| $app().run())
        }

        #[cfg(not(all(target_env = "gnu", not(test))))]
        fn main() -> std::process::ExitCode {
            $app().main()
        }
    };
}

/// Runs a program with what else Rust's runtime sees to: three standard descriptors that are open, no SIGPIPE, and an end
/// with a status when it panics, with everything written out. What is not there is the word about a stack overflow, of
/// any thread: SIGSEGV has to say it. A program with handlers of its own has its own `main`.
#[doc(hidden)]
pub fn enter(run: impl FnOnce() -> u8 + UnwindSafe) -> ! {
    open_standard();
    // SAFETY: the disposition is a constant, and there is one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let status = catch_unwind(run).map_or(101, i32::from);
    std::process::exit(status)
}

/// Opens what is closed of the first three, so that no file that is opened later is taken for one of them.
fn open_standard() {
    for number in 0..3 {
        if is_open_number(number) {
            continue;
        }
        // SAFETY: the path is a NUL-terminated string. What is open below has been seen to, so the number is this one.
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != number {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// The test below is run once more by itself, in a process that this variable tells what to do.
    const TOLD: &str = "HADE_TEST_ENTRY";

    #[test]
    fn a_program_ends_with_its_status_its_output_and_open_descriptors() {
        let run = || {
            let are_open = (0..3).all(super::is_open_number);
            let _ = write!(std::io::stdout(), "{are_open} without an end");
            7
        };
        match std::env::var(TOLD).as_deref() {
            Ok("run") => {
                // SAFETY: nobody reads it here.
                unsafe { libc::close(0) };
                super::enter(run)
            }
            Ok(_) => super::enter(|| panic!("as told")),
            Err(_) => {}
        }
        let name =
            "sys::entry::tests::a_program_ends_with_its_status_its_output_and_open_descriptors";
        let told = |what| {
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["--exact", name, "--nocapture"]).env(TOLD, what);
            test.stdin(Stdio::null()).output().unwrap()
        };
        let (ran, panicked) = (told("run"), told("panic"));
        let printed = String::from_utf8_lossy(&ran.stdout);
        assert!(printed.ends_with("true without an end"), "{printed}");
        assert_eq!(
            (ran.status.code(), panicked.status.code()),
            (Some(7), Some(101))
        );
    }
}
