//! Kernels as old as 3.10, which some boards never leave: what came later is refused here as they refuse it, call by call
//! and all together, for hade, its libraries, and everything that it starts. `seccomp(2)`.

use crate::support::{HADE, Place, Site, has, run, skip, whole_life};
use std::path::Path;
use std::process::Command;

/// The system calls that came after Linux 3.10, each with the release that brought it, and its number on x86-64. From 424
/// on the numbers are the same everywhere. Left out are those of graphics, quotas and other kinds of administration.
const NEWER: [(&str, &str, u32); 40] = [
    ("sched_setattr", "3.14", 314),
    ("sched_getattr", "3.14", 315),
    ("renameat2", "3.15", 316),
    ("seccomp", "3.17", 317),
    ("getrandom", "3.17", 318),
    ("memfd_create", "3.17", 319),
    ("execveat", "3.19", 322),
    ("userfaultfd", "4.3", 323),
    ("membarrier", "4.3", 324),
    ("mlock2", "4.4", 325),
    ("copy_file_range", "4.5", 326),
    ("preadv2", "4.6", 327),
    ("pwritev2", "4.6", 328),
    ("pkey_mprotect", "4.9", 329),
    ("pkey_alloc", "4.9", 330),
    ("pkey_free", "4.9", 331),
    ("statx", "4.11", 332),
    ("io_pgetevents", "4.18", 333),
    ("rseq", "4.18", 334),
    ("pidfd_send_signal", "5.1", 424),
    ("io_uring_setup", "5.1", 425),
    ("io_uring_enter", "5.1", 426),
    ("io_uring_register", "5.1", 427),
    ("pidfd_open", "5.3", 434),
    ("clone3", "5.3", 435),
    ("close_range", "5.9", 436),
    ("openat2", "5.6", 437),
    ("pidfd_getfd", "5.6", 438),
    ("faccessat2", "5.8", 439),
    ("process_madvise", "5.10", 440),
    ("epoll_pwait2", "5.11", 441),
    ("landlock_create_ruleset", "5.13", 444),
    ("process_mrelease", "5.15", 448),
    ("futex_waitv", "5.16", 449),
    ("cachestat", "6.5", 451),
    ("fchmodat2", "6.6", 452),
    ("futex_wake", "6.7", 454),
    ("futex_wait", "6.7", 455),
    ("futex_requeue", "6.7", 456),
    ("mseal", "6.10", 462),
];

/// Those that hade, the C library or Rust's library know how to do without.
const USED: [&str; 14] = [
    "getrandom",
    "memfd_create",
    "execveat",
    "renameat2",
    "copy_file_range",
    "preadv2",
    "statx",
    "rseq",
    "pidfd_send_signal",
    "pidfd_open",
    "clone3",
    "close_range",
    "openat2",
    "faccessat2",
];

/// Words before a program that make these calls unknown to it. The last word has their numbers.
const WITHOUT: [&str; 3] = [
    "python3",
    "-c",
    r#"
import ctypes, os, struct, sys
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
numbers = [int(number) for number in sys.argv[1].split(",")]
steps = [(LOAD, 0, 0, 0)]
steps += [(EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
steps += [(RETURN, 0, 0, 0x7FFF0000), (RETURN, 0, 0, 0x00050000 | 38)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
assert libc.prctl(38, one, zero, zero, zero) == 0
assert libc.prctl(22, ctypes.c_ulong(2), ctypes.c_ulong(ctypes.addressof(program)), zero, zero) == 0
os.execvp(sys.argv[2], sys.argv[2:])
"#,
];

fn lives_without(numbers: &str) {
    let before = [WITHOUT[0], WITHOUT[1], WITHOUT[2], numbers];
    whole_life(Path::new(HADE), &before, &[]);
}

fn can_refuse() -> bool {
    if !cfg!(target_arch = "x86_64") {
        skip("needs x86-64, whose numbers these are");
        return false;
    }
    has("python3")
}

#[test]
fn all_that_is_newer_is_missing() {
    if !can_refuse() {
        return;
    }
    let numbers: Vec<String> = NEWER
        .iter()
        .map(|(.., number)| number.to_string())
        .collect();
    let numbers = numbers.join(",");
    let asks = "import os, sys; sys.exit(0 if hasattr(os, 'memfd_create') and os.memfd_create('x') else 1)";
    let mut command = Command::new(WITHOUT[0]);
    command.args([WITHOUT[1], WITHOUT[2], &numbers, "python3", "-c", asks]);
    let said = run(&mut command);
    assert!(said.err.contains("Function not implemented"), "{said:?}");

    lives_without(&numbers);

    // The way back to a program that is open, and that no call executes by its descriptor.
    let place = Place::demo();
    place.put_demo("prog");
    let program = place.path("prog");
    let before = [WITHOUT[0], WITHOUT[1], WITHOUT[2], &numbers];
    let app = |args: &[&str]| {
        let mut command = Command::new(before[0]);
        command
            .args(&before[1..])
            .arg(&program)
            .arg("app")
            .args(args);
        run(command.current_dir(&place.dir))
    };
    let site = Site::of(&app(&["start", "-d", "--address", "127.0.0.1:0"]).ok());
    place.write("boot", "fail");
    let said = app(&["restart"]).failed(1);
    assert!(said.contains("asked to fail at boot; pid "), "{said}");
    place.write("boot", "");
    assert_eq!(site.get("/hello").status, 200);
    app(&["restart"]).ok();
    assert_eq!(site.get("/hello").status, 200);
    app(&["stop"]).ok();
}

/// Where one is missing and the next one is there: a kernel in between, or a sandbox that knows some of them.
#[test]
fn one_of_them_is_missing() {
    if !can_refuse() {
        return;
    }
    for name in USED {
        let (_, release, number) = NEWER.iter().find(|(other, ..)| *other == name).unwrap();
        println!("{name} of {release}");
        lives_without(&number.to_string());
    }
}
