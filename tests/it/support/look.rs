//! What can be seen of a process from outside, and the wrappers that give a test a world of its own.

use crate::support::{HADE, Place, has, run, working_in};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The name of a process or of a thread, as the kernel has it.
pub fn comm(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8(name)
        .expect("a name cut between two characters")
        .trim_end_matches('\n')
        .to_owned()
}

/// The names of all threads of a process, in order.
pub fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut names: Vec<String> = tasks
        .map(|task| fs::read_to_string(task.path().join("comm")).unwrap_or_default())
        .map(|name| name.trim_end().to_owned())
        .collect();
    names.sort();
    names
}

/// A line of `/proc/PID/status`.
#[track_caller]
pub fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("a field of /proc/PID/status").trim().to_owned()
}

/// Group, session and terminal of a process, `proc(5)`.
pub fn group_session_terminal(pid: u32) -> (u32, u32, i32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    (
        fields[2].parse().unwrap(),
        fields[3].parse().unwrap(),
        fields[4].parse().unwrap(),
    )
}

/// What the descriptors of a process name, by number.
pub fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let mut found: Vec<(u32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect();
    found.sort();
    found
}

/// The listening TCP sockets of a process, as `/proc/net/tcp` writes their addresses.
pub fn listening(pid: u32) -> Vec<String> {
    let ours: Vec<String> = descriptors(pid)
        .iter()
        .filter_map(|(_, target)| {
            Some(
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN; the tenth field is the inode.
            if fields.get(3) == Some(&"0A") && ours.iter().any(|inode| inode == fields[9]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

/// The permission bits.
#[track_caller]
pub fn mode(path: &Path) -> u32 {
    let data = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    data.permissions().mode() & 0o7777
}

/// An address on this machine that no other test and no other run of the tests has.
pub fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!(
        "127.{}.{}.{}:{}",
        64 + (pid >> 16) % 128,
        (pid >> 8) % 256,
        pid % 256,
        7000 + number
    )
}

/// After a start that failed: no process, no locked file, no socket.
#[track_caller]
pub fn nothing_left(place: &Place) {
    assert_eq!(working_in(&place.dir), [], "a process is left");
    let state = place.app(&["state"]);
    assert!(
        matches!(state.code, Some(1 | 3)) && state.err.is_empty(),
        "{state:?}"
    );
    assert_eq!(sockets(&place.path("run")), [""; 0]);
}

/// After a master that could not clean up: no process; its control socket is there, and in nobody's way.
#[track_caller]
pub fn only_a_stale_socket_left(place: &Place) {
    assert_eq!(working_in(&place.dir), [], "a process is left");
    assert_eq!(sockets(&place.path("run")), ["app.sock"]);
}

/// The names of the sockets in a directory.
pub fn sockets(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

pub use crate::support::is_root;

/// Whether this user may have namespaces of its own: `unshare -r`.
pub fn has_namespaces() -> bool {
    let allowed =
        has("unshare") && run(Command::new("unshare").args(["-rn", "true"])).code == Some(0);
    if !allowed {
        crate::support::skip("needs namespaces");
    }
    allowed
}

/// Words before a program that give it a network of its own, with nothing but its loopback interface, and run a
/// shell script in it: `$0` is the program, `$@` its arguments.
pub fn alone(script: &str) -> [&str; 5] {
    ["unshare", "-rn", "sh", "-ec", script]
}

/// The same with mounts and process numbers of its own; nothing in it survives the script.
pub fn boxed(script: &str) -> [&str; 7] {
    [
        "unshare",
        "-rmpf",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-ec",
        script,
    ]
}

/// A process that has nothing to do with hade and would die of most signals.
pub struct Bystander(Child);

impl Bystander {
    pub fn new() -> Bystander {
        Bystander::of(Path::new("sleep"))
    }

    pub fn of(sleep: &Path) -> Bystander {
        let mut command = Command::new(sleep);
        Bystander(command.arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    #[track_caller]
    pub fn is_unharmed(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "the bystander was killed");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of a program under another name. By `cp`, since a file that this process has open for writing while
/// another test forks could not be executed.
pub fn copy(program: &Path, to: &Path) {
    let status = Command::new("cp").arg(program).arg(to).status().unwrap();
    assert!(status.success());
}

/// A copy of hade that every user may execute, in a directory that every user may enter.
pub fn open_to_all() -> Place {
    let place = Place::new();
    let program = place.path("hade");
    copy(Path::new(HADE), &program);
    for (path, mode) in [(&program, 0o755), (&place.dir, 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    place
}

/// Words before a program that make it somebody else's.
pub const AS_NOBODY: [&str; 6] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--",
];

/// Words before a program in which some system calls fail, in everything it starts too: `seccomp(2)`. The last word
/// names the call, the argument and its values that count, and the error.
const DENYING: [&str; 3] = [
    "python3",
    "-c",
    r#"
import ctypes, os, platform, struct, sys
NUMBERS = {
    "x86_64": {"socket": 41, "fcntl": 72, "sendfile": 40, "memfd_create": 319},
    "aarch64": {"socket": 198, "fcntl": 25, "sendfile": 71, "memfd_create": 279},
}[platform.machine()] | {"pidfd_send_signal": 424, "pidfd_open": 434, "openat2": 437}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
call, argument, values, error = sys.argv[1].split(":")
values = [int(value) for value in values.split(",") if value]
# Another call, or no value that counts: on to the step that allows, which stands before the last, which denies.
tests = [(EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
tests = [(LOAD, 0, 0, 16 + 8 * int(argument))] + tests if values else [(EQUAL, 1, 0, NUMBERS[call])]
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, len(tests) if values else 0, NUMBERS[call])] + tests
steps += [(RETURN, 0, 0, 0x7FFF0000), (RETURN, 0, 0, 0x00050000 | int(error))]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
assert libc.prctl(38, one, zero, zero, zero) == 0
assert libc.prctl(22, ctypes.c_ulong(2), ctypes.c_ulong(ctypes.addressof(program)), zero, zero) == 0
os.execvp(sys.argv[2], sys.argv[2:])
"#,
];

const fn denying(what: &str) -> [&str; 4] {
    [DENYING[0], DENYING[1], DENYING[2], what]
}

/// `fcntl` with F_GETLK, F_SETLK and F_SETLKW fails with ENOLCK, as where a file system has no locks.
pub const WITHOUT_LOCKS: [&str; 4] = denying("fcntl:1:5,6,7:37");
/// `socket` with AF_INET6 fails with EAFNOSUPPORT, as where the kernel was built without it.
pub const WITHOUT_IPV6: [&str; 4] = denying("socket:0:10:97");
/// `memfd_create` fails with ENOSYS, as before Linux 3.17.
pub const WITHOUT_MEMFD: [&str; 4] = denying("memfd_create:0::38");
/// `pidfd_open` fails with ENOSYS, as before Linux 5.3.
pub const WITHOUT_PIDFD: [&str; 4] = denying("pidfd_open:0::38");
/// `pidfd_open` fails with EPERM, as in some sandboxes.
pub const FORBIDDEN_PIDFD: [&str; 4] = denying("pidfd_open:0::1");
/// `pidfd_send_signal` fails with ENOSYS.
pub const WITHOUT_PIDFD_SIGNALS: [&str; 4] = denying("pidfd_send_signal:0::38");
/// `openat2` fails with ENOSYS, as before Linux 5.6.
pub const WITHOUT_OPENAT2: [&str; 4] = denying("openat2:0::38");
/// `openat2` fails with EIO, as on a disk that is broken.
pub const BROKEN_OPENAT2: [&str; 4] = denying("openat2:0::5");
/// `openat2` fails with EPERM, as in some sandboxes.
pub const FORBIDDEN_OPENAT2: [&str; 4] = denying("openat2:0::1");
/// `sendfile` fails with EINVAL, as for files on some file systems.
pub const WITHOUT_SENDFILE: [&str; 4] = denying("sendfile:0::22");
