//! How much memory there is, by the machine and by every control group above this process (`cgroups(7)`), and what
//! happens when there is no more: a worker offers itself to the kernel, and the master can tell that it was taken.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// How much more willingly than the rest of its service a worker is killed, of 1000.
const OFFER: i32 = 500;
/// The score of what is never killed, which somebody has decided.
const NEVER: i32 = -1000;

/// Bytes of memory of the machine, or of the tightest control group that this process is in.
pub fn there_is() -> usize {
    let machine = crate::sys::memory::of_machine();
    let root = Path::new("/");
    usize::try_from(least(root, machine).min(said(root))).unwrap_or(usize::MAX)
}

/// What `/proc/meminfo` says where something else stands there than the kernel's: lxcfs tells what a container may have.
/// The kernel's own says what sysinfo(2) does, and counts much else for it.
fn said(root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let (proc, path) = (root.join("proc"), root.join("proc/meminfo"));
    let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
    let is_kernels = device(&proc) == device(&path);
    let text = (!is_kernels).then(|| read(&path)).flatten();
    let kilobytes = text.and_then(|text| field(&text, "MemTotal:"));
    kilobytes.map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024))
}

/// Bytes of memory that a process has in use, its part of shared ones included.
pub fn resident(pid: u64) -> Option<u64> {
    let text = read(&PathBuf::from(format!("/proc/{pid}/status")))?;
    field(&text, "VmRSS:")?.checked_mul(1024)
}

fn least(root: &Path, machine: u64) -> u64 {
    let limits = groups(root).into_iter().flat_map(|group| {
        // A limit holds for all groups below. "max" is no number, and no limit.
        group
            .directory
            .ancestors()
            .take_while(|directory| directory.starts_with(&group.base))
            .filter_map(|directory| read(&directory.join(group.limit))?.trim().parse().ok())
            .collect::<Vec<u64>>()
    });
    limits.fold(machine, u64::min)
}

/// A control group that this process is in.
struct Group {
    /// Where the whole tree is mounted.
    base: PathBuf,
    directory: PathBuf,
    limit: &'static str,
    events: &'static str,
}

/// The groups of both versions; where nothing is known of one, the root of its tree, which in a container is its own.
fn groups(root: &Path) -> [Group; 2] {
    let text = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    // Lines of "number:controllers:path"; version 2 has the number 0 and names no controllers.
    let path = |wanted: fn(&str, &str) -> bool| {
        let found = text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers) = (parts.next()?, parts.next()?);
            wanted(number, controllers).then(|| parts.next()).flatten()
        });
        found.unwrap_or("/").to_owned()
    };
    let within = |base: PathBuf, path: String| {
        let below = path.trim_start_matches('/');
        // A process that was moved out of its namespace's root, or a container that shares the host's: what the path
        // names is not to be seen from here.
        let seen = !below.split('/').any(|part| part == "..") && base.join(below).is_dir();
        if seen { base.join(below) } else { base }
    };
    let (v2, v1) = (
        root.join("sys/fs/cgroup"),
        root.join("sys/fs/cgroup/memory"),
    );
    [
        Group {
            directory: within(
                v2.clone(),
                path(|number, names| number == "0" && names.is_empty()),
            ),
            base: v2,
            limit: "memory.max",
            events: "memory.events",
        },
        Group {
            directory: within(
                v1.clone(),
                path(|_, names| names.split(',').any(|name| name == "memory")),
            ),
            base: v1,
            limit: "memory.limit_in_bytes",
            events: "memory.oom_control",
        },
    ]
}

/// The text of a small file. The kernel does not know how long such a file is, and to ask in small pieces costs a call
/// for each.
fn read(path: &Path) -> Option<String> {
    let mut text = String::with_capacity(4096);
    let file = fs::File::open(path).ok()?;
    file.take(1 << 20).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

/// Lets the kernel, when memory runs out, kill this process rather than one that nobody would replace. Its children
/// are offered with it. Does nothing where `/proc` is missing, or where the service was told to be spared.
pub fn offer_oneself() {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/oom_score_adj");
    let Ok(mut file) = file else { return };
    let mut bytes = [0; 16];
    let length = file.read(&mut bytes).unwrap_or(0);
    let score = std::str::from_utf8(&bytes[..length]).ok();
    let score = score.and_then(|text| text.trim().parse().ok());
    if let Some(more) = score.and_then(offered) {
        let _ = file.write(more.to_string().as_bytes());
    }
}

fn offered(score: i32) -> Option<i32> {
    let more = (score + OFFER).min(1000);
    (score != NEVER && more > score).then_some(more)
}

/// Tells whether the kernel has killed for want of memory: it counts that, per control group. Where a program that a
/// worker has started was killed so, and then the worker by somebody's hand, that is put down to the kernel too.
pub struct OomWatch {
    root: PathBuf,
    before: Option<u64>,
}

impl OomWatch {
    /// Counts from here on.
    #[allow(clippy::new_without_default)] // It reads files.
    pub fn new() -> OomWatch {
        OomWatch::under("/".into())
    }

    fn under(root: PathBuf) -> OomWatch {
        let before = kills(&root);
        OomWatch { root, before }
    }

    /// Whether there were such kills since the last time; asked when a child was killed by KILL, which the kernel and
    /// everybody else can send.
    pub fn has_killed(&mut self) -> bool {
        let now = kills(&self.root);
        let before = std::mem::replace(&mut self.before, now);
        matches!((before, now), (Some(before), Some(now)) if now > before)
    }
}

/// How often it was done in this process's group, or without control groups on the machine: `oom_kill`, Linux 4.13.
fn kills(root: &Path) -> Option<u64> {
    let counted = groups(root)
        .map(|group| group.directory.join(group.events))
        .into_iter()
        .chain([root.join("proc/vmstat")]);
    counted
        .into_iter()
        .find_map(|path| field(&read(&path)?, "oom_kill"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A machine of files.
    struct Machine(PathBuf);

    impl Machine {
        fn new(files: &[(&str, &str)]) -> Machine {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("hade-memory-{}-{number}", std::process::id());
            let machine = Machine(std::env::temp_dir().join(name));
            for (path, text) in files {
                machine.write(path, text);
            }
            machine
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_least_of_all_groups_above_counts() {
        const MACHINE: u64 = 1_024_000;
        let cgroup = "proc/self/cgroup";
        let v1 = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        for (files, expected) in [
            (vec![], MACHINE),
            // Version 2, as systemd has it: the slice, its service, and a group of the service's own.
            (
                vec![
                    (cgroup, "0::/system.slice/a.service/b\n"),
                    ("sys/fs/cgroup/system.slice/memory.max", "700000\n"),
                    (
                        "sys/fs/cgroup/system.slice/a.service/memory.max",
                        "600000\n",
                    ),
                    ("sys/fs/cgroup/system.slice/a.service/b/memory.max", "max\n"),
                    ("sys/fs/cgroup/other/memory.max", "5\n"),
                ],
                600_000,
            ),
            (
                vec![
                    (cgroup, "0::/a/b\n"),
                    ("sys/fs/cgroup/a/memory.max", "700000\n"),
                    ("sys/fs/cgroup/a/b/memory.max", "800000\n"),
                ],
                700_000,
            ),
            // A container's own tree, with a name of its own for the root, the host's name, or none.
            (
                vec![(cgroup, "0::/\n"), ("sys/fs/cgroup/memory.max", "1\n")],
                1,
            ),
            (
                vec![
                    (cgroup, "0::/docker/x\n"),
                    ("sys/fs/cgroup/memory.max", "2\n"),
                ],
                2,
            ),
            (
                vec![(cgroup, "0::/../y\n"), ("sys/fs/cgroup/memory.max", "3\n")],
                3,
            ),
            (vec![("sys/fs/cgroup/memory.max", "4\n")], 4),
            // Version 1, whose word for no limit is a large number; together with an empty version 2.
            (
                vec![
                    (cgroup, "9:cpu,memory:/a:b/c\n1:name=systemd:/a\n0::/a\n"),
                    (v1, "9223372036854771712\n"),
                    ("sys/fs/cgroup/memory/a:b/memory.limit_in_bytes", "500000\n"),
                    (
                        "sys/fs/cgroup/memory/a:b/c/memory.limit_in_bytes",
                        "900000\n",
                    ),
                ],
                500_000,
            ),
            (vec![(v1, "9223372036854771712\n")], MACHINE),
            (vec![("sys/fs/cgroup/memory.max", "99999999999\n")], MACHINE),
        ] {
            let machine = Machine::new(&files);
            assert_eq!(least(&machine.0, MACHINE), expected, "{files:?}");
        }
    }

    #[test]
    fn what_stands_in_the_place_of_the_kernels_word_is_believed() {
        let text = "MemFree: 1 kB\nMemTotal:       1000 kB\n";
        let machine = Machine::new(&[("proc/meminfo", text)]);
        assert_eq!(said(&machine.0), u64::MAX);
        let name = machine.0.file_name().unwrap().to_owned();
        // On another file system, as lxcfs is.
        let other = Path::new("/dev/shm").join(name);
        fs::rename(machine.0.join("proc/meminfo"), machine.0.join("meminfo")).unwrap();
        fs::copy(machine.0.join("meminfo"), &other).unwrap();
        std::os::unix::fs::symlink(&other, machine.0.join("proc/meminfo")).unwrap();
        let found = said(&machine.0);
        fs::remove_file(&other).unwrap();
        assert_eq!(found, 1_024_000);
    }

    #[test]
    fn the_kernels_kills_are_told_from_others() {
        let (v2, v1) = (
            "sys/fs/cgroup/a/memory.events",
            "sys/fs/cgroup/memory/a/memory.oom_control",
        );
        for (groups, file, text) in [
            (
                "0::/a\n",
                v2,
                "low 0\noom 7\noom_kill N\noom_group_kill 9\n",
            ),
            (
                "3:memory:/a\n0::/a\n",
                v1,
                "oom_kill_disable 0\nunder_oom 0\noom_kill N\n",
            ),
            ("", "proc/vmstat", "nr_free 1\noom_kill N\n"),
        ] {
            let machine = Machine::new(&[("proc/self/cgroup", groups)]);
            let set = |count: &str| machine.write(file, &text.replace('N', count));
            set("3");
            let mut watch = OomWatch::under(machine.0.clone());
            assert!(!watch.has_killed(), "{file}");
            set("4");
            assert!(watch.has_killed(), "{file}");
            assert!(!watch.has_killed(), "{file}");
        }
        // Where nobody counts, nobody can tell.
        let machine = Machine::new(&[]);
        assert!(!OomWatch::under(machine.0.clone()).has_killed());
    }

    #[test]
    fn a_score_only_rises_and_who_is_spared_stays_so() {
        for (score, expected) in [
            (0, Some(500)),
            (-997, Some(-497)),
            (900, Some(1000)),
            (1000, None),
            (NEVER, None),
        ] {
            assert_eq!(offered(score), expected);
        }
    }
}
