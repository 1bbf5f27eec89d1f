//! Which faults a call can have, and which calls are left out, with the reasons.

use crate::strace::Call;

/// Left out whole: a fault there says nothing about this program.
const NOT_OURS: &[(&[&str], &str)] = &[
    (
        &["mmap", "mremap", "munmap", "mprotect", "brk", "madvise"],
        "the allocator and thread stacks: Rust aborts where memory ends. A worker that aborts is replaced; the master \
         allocates little after its start, and the kernel overcommits, so that it is killed rather than told. Shared \
         memory is not the allocator's: mmap with MAP_SHARED is walked",
    ),
    (
        &[
            "rseq",
            "set_robust_list",
            "set_tid_address",
            "arch_prctl",
            "sched_getaffinity",
            "sigaltstack",
            "gettid",
        ],
        "the start of a process or thread, by libc and std, which both abort or go on without",
    ),
    (
        &["exit", "exit_group"],
        "there is nothing behind it that could fail",
    ),
    (
        &[
            "getpid",
            "getppid",
            "getuid",
            "geteuid",
            "getgid",
            "getegid",
            "umask",
            "rt_sigreturn",
            "restart_syscall",
            "clock_gettime",
            "sched_yield",
        ],
        "cannot fail, and changes nothing that others see",
    ),
    (
        &["rt_sigaction", "rt_sigprocmask"],
        "fails for bad arguments only, which are the same each time",
    ),
    (
        &["futex", "clock_nanosleep", "nanosleep"],
        "waiting between threads: how often is chance, and std panics on what the kernel does not give",
    ),
];

/// What one call can really answer, by its name and, where that decides, by a part of its arguments; the first line
/// that fits counts. An empty list: it cannot fail with good arguments, or an error injected would not be one of the
/// kernel's (strace does not carry out a call that is to fail: a descriptor that was not closed is still open, while
/// Linux closes it and then reports).
const ERRORS: &[(&str, &str, &[&str])] = &[
    ("poll", "", &["EINTR", "ENOMEM"]),
    ("ppoll", "", &["EINTR", "ENOMEM"]),
    ("epoll_wait", "", &["EINTR"]),
    ("epoll_pwait", "", &["EINTR"]),
    ("close", "", &[]),
    ("fcntl", "F_SETLK", &["ENOLCK", "EINTR"]),
    ("fcntl", "F_GETLK", &["ENOLCK"]),
    ("fcntl", "F_OFD_", &["ENOLCK"]),
    ("fcntl", "F_DUPFD", &["EMFILE"]),
    ("fcntl", "", &[]),
    ("flock", "", &["ENOLCK", "EINTR"]),
    ("ioctl", "", &[]),
    ("prctl", "", &[]),
    // Of a process with more than one thread, or in a sandbox.
    ("unshare", "", &["EINVAL", "EPERM"]),
    ("lseek", "", &[]),
    ("fstat", "", &[]),
    ("newfstatat", "AT_EMPTY_PATH", &[]),
    ("statx", "AT_EMPTY_PATH", &[]),
    // std looks at what mkdir(2) says is there, and keeps to that answer.
    ("statx", "S_IFDIR", &[]),
    ("newfstatat", "", &["EACCES", "ENOMEM"]),
    ("statx", "", &["EACCES", "ENOMEM"]),
    ("access", "", &["EACCES"]),
    ("faccessat", "", &["EACCES"]),
    ("faccessat2", "", &["EACCES"]),
    ("openat", "O_CREAT", &["EMFILE", "ENOSPC", "EACCES"]),
    // Who may not look at a process is somebody else, and that is an answer.
    ("openat", "\"/proc/", &["EMFILE", "EINTR"]),
    ("openat", "", &["EMFILE", "EACCES", "EINTR"]),
    ("open", "", &["EMFILE", "EACCES"]),
    // What proc(5) shows is in memory.
    ("read", "</proc/", &["EINTR"]),
    ("getdents64", "</proc/", &[]),
    ("read", "<pipe:", &["EINTR"]),
    ("read", "<anon_inode:", &["EINTR"]),
    ("read", "", &["EIO", "EINTR"]),
    ("pread64", "", &["EIO"]),
    ("getdents64", "", &["EIO"]),
    ("readlink", "", &["ENOENT", "EACCES"]),
    ("readlinkat", "", &["ENOENT"]),
    ("getcwd", "", &["ENOENT"]),
    // The wake-up of the self-pipe never waits, so nothing interrupts it.
    ("write", "\"!\", 1)", &[]),
    // That nobody reads any more is what happens when the reader is killed, which has its own turn.
    ("write", "<pipe:", &["EINTR"]),
    ("write", "<anon_inode:", &["EINTR"]),
    ("write", "", &["ENOSPC", "EIO", "EINTR"]),
    ("pwrite64", "", &["ENOSPC"]),
    ("writev", "", &["ENOSPC", "EINTR"]),
    ("fsync", "", &["EIO"]),
    ("ftruncate", "", &["EIO", "ENOSPC"]),
    ("fchmod", "", &["EPERM", "EROFS"]),
    ("chmod", "", &["EPERM", "EROFS"]),
    ("fchmodat", "", &["EPERM", "EROFS"]),
    ("fchown", "", &["EPERM"]),
    ("mkdir", "", &["ENOSPC", "EACCES"]),
    ("unlink", "", &["EACCES", "EROFS"]),
    ("unlinkat", "", &["EACCES"]),
    ("rename", "", &["ENOSPC"]),
    ("chdir", "", &["EACCES", "ENOENT"]),
    ("fchdir", "", &["EACCES"]),
    ("pipe2", "", &["EMFILE", "ENFILE"]),
    ("eventfd2", "", &["EMFILE"]),
    ("epoll_create1", "", &["EMFILE"]),
    ("epoll_ctl", "EPOLL_CTL_DEL", &[]),
    ("epoll_ctl", "", &["ENOSPC", "ENOMEM"]),
    ("memfd_create", "", &["EMFILE", "ENOSYS"]),
    ("mmap", "MAP_SHARED", &["ENOMEM"]),
    ("dup", "", &["EMFILE"]),
    ("dup2", "", &["EINTR", "EBUSY"]),
    ("dup3", "", &["EINTR", "EBUSY"]),
    ("socket", "AF_INET6", &["EAFNOSUPPORT", "EMFILE"]),
    ("socket", "", &["EMFILE", "ENOBUFS"]),
    ("socketpair", "", &["EMFILE"]),
    ("bind", "sun_path", &["EADDRINUSE", "ENOSPC", "EACCES"]),
    ("bind", "", &["EADDRINUSE", "EACCES"]),
    ("listen", "", &["EADDRINUSE"]),
    ("connect", "", &["ECONNREFUSED", "EAGAIN", "EINTR"]),
    ("accept4", "<UNIX", &["EMFILE", "ENOMEM"]),
    ("accept4", "", &["EMFILE", "ECONNABORTED", "ENOBUFS"]),
    ("accept", "", &["EMFILE", "ECONNABORTED"]),
    ("getsockname", "", &[]),
    ("getsockopt", "", &[]),
    ("setsockopt", "", &["ENOMEM"]),
    ("getpeername", "", &["ENOTCONN"]),
    ("shutdown", "", &["ENOTCONN"]),
    // Reset is a connection whose other end is gone, and that end is killed in its own turn.
    ("sendto", "<UNIX", &["ENOBUFS", "EINTR"]),
    ("sendto", "", &["EPIPE", "ENOBUFS", "EINTR"]),
    ("sendmsg", "<UNIX", &["ENOBUFS", "EINTR"]),
    ("recvfrom", "<UNIX", &["EINTR"]),
    ("recvmsg", "<UNIX", &["EINTR"]),
    ("recvfrom", "", &["ECONNRESET", "EINTR"]),
    ("sendmsg", "", &["EPIPE", "ETOOMANYREFS", "EINTR"]),
    ("recvmsg", "", &["ECONNRESET", "EINTR"]),
    ("sendfile", "", &["EIO", "EINTR"]),
    ("clone", "", &["EAGAIN", "ENOMEM"]),
    ("clone3", "", &["EAGAIN", "EPERM"]),
    ("fork", "", &["EAGAIN"]),
    ("vfork", "", &["EAGAIN", "ENOMEM"]),
    ("execve", "", &["ENOENT", "ETXTBSY", "ENOMEM"]),
    ("execveat", "", &["ENOENT", "ENOSYS"]),
    ("wait4", "", &["EINTR"]),
    ("waitid", "", &["EINTR"]),
    ("kill", "", &["EPERM"]),
    ("tgkill", "", &["EPERM"]),
    ("pidfd_open", "", &["ENOSYS", "EMFILE"]),
    ("pidfd_send_signal", "", &["EPERM"]),
    ("setsid", "", &["EPERM"]),
    ("setpgid", "", &["EPERM"]),
    ("prlimit64", "", &["EPERM"]),
    ("getrlimit", "", &[]),
    ("setrlimit", "", &["EPERM"]),
    ("getrandom", "", &["ENOSYS", "EINTR"]),
    ("sysinfo", "", &[]),
    ("uname", "", &[]),
    ("statfs", "", &["EACCES"]),
    ("fstatfs", "", &["EIO"]),
];

/// How often a wait of an event loop is made to fail: how many there are is chance.
const WAITS: usize = 2;

/// The faults of a call, the `number`th of its name in its process: error names, and `KILL`. None: it is left out.
pub fn of(call: &Call, number: usize) -> Option<Vec<&'static str>> {
    let name = call.name.as_str();
    let is_shared = call.args.contains("MAP_SHARED");
    let left_out = NOT_OURS.iter().any(|(names, _)| names.contains(&name));
    if left_out && !is_shared {
        return None;
    }
    let is_wait = matches!(name, "poll" | "ppoll" | "epoll_wait" | "epoll_pwait");
    if is_wait && number > WAITS {
        return None;
    }
    let entry = ERRORS
        .iter()
        .find(|(known, part, _)| *known == name && call.args.contains(part));
    // A call that nobody has looked at yet is an error of this table, and shows as one.
    let mut faults = entry.map_or(vec!["EIO"], |(_, _, errors)| errors.to_vec());
    if name == "fcntl" && faults.is_empty() {
        // std asks for the flags of what it is about to close, in debug builds; the close has its own turn.
        return None;
    }
    faults.push("KILL");
    Some(faults)
}

/// Names that the table does not have.
pub fn is_known(name: &str) -> bool {
    ERRORS.iter().any(|(known, _, _)| *known == name)
}

/// Calls of tiny_http's own threads in a worker: where one fails it panics or says nothing, and hade can only say that
/// no request comes through. That it does say so, and that nothing is left, is walked all the same.
pub fn is_silent(is_worker: bool, name: &str) -> bool {
    is_worker && matches!(name, "clone3" | "accept4")
}

/// Error number and the kernel's words for it, as a message shows them.
pub fn cause(error: &str) -> (i32, &'static str) {
    match error {
        "EPERM" => (1, "Operation not permitted"),
        "ENOENT" => (2, "No such file"),
        "ESRCH" => (3, "No such process"),
        "EINTR" => (4, "Interrupted"),
        "EIO" => (5, "Input/output"),
        "EAGAIN" => (11, "temporarily unavailable"),
        "ENOMEM" => (12, "Cannot allocate"),
        "EACCES" => (13, "Permission denied"),
        "EBUSY" => (16, "busy"),
        "ENFILE" => (23, "Too many open files"),
        "EMFILE" => (24, "Too many open files"),
        "ETXTBSY" => (26, "Text file busy"),
        "ENOSPC" => (28, "No space left"),
        "EROFS" => (30, "Read-only"),
        "EPIPE" => (32, "Broken pipe"),
        "ENOLCK" => (37, "No locks"),
        "ENOSYS" => (38, "not implemented"),
        "EAFNOSUPPORT" => (97, "Address family"),
        "EADDRINUSE" => (98, "Address already in use"),
        "ECONNABORTED" => (103, "abort"),
        "ECONNRESET" => (104, "reset"),
        "ENOBUFS" => (105, "No buffer space"),
        "ENOTCONN" => (107, "not connected"),
        "ETOOMANYREFS" => (109, "Too many references"),
        "ECONNREFUSED" => (111, "refused"),
        _ => (0, "?"),
    }
}
