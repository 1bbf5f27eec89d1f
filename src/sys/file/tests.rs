//! Paths that lead in, out and in circles, by the kernel and by hand.

use super::*;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, thread};

/// A directory of its own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("hade-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What came of it: who it is, or why not.
type Verdict = Result<(u64, u64), Option<i32>>;

fn verdict(opened: io::Result<OwnedFd>) -> Verdict {
    let found = opened.map_err(|error| error.raw_os_error())?;
    let found = File::from(found).metadata().unwrap();
    Ok((found.dev(), found.ino()))
}

fn by_kernel(root: BorrowedFd<'_>, path: &[u8], purpose: Purpose) -> Verdict {
    let mut buffer = [0; SHORT];
    let named = match c_path(path, &mut buffer) {
        Ok(named) => named,
        Err(error) => return Err(error.raw_os_error()),
    };
    loop {
        let found = verdict(openat2(root.as_raw_fd(), &named, flags(purpose), BENEATH));
        // Another test renames something.
        if found != Err(Some(libc::EAGAIN)) {
            return found;
        }
    }
}

fn has_openat2() -> bool {
    openat2(libc::AT_FDCWD, c".", libc::O_PATH, 0).is_ok()
}

const PURPOSES: [Purpose; 3] = [Purpose::Read, Purpose::List, Purpose::Look];

#[test]
fn links_inside_work_and_links_out_do_not() {
    let scratch = Scratch::new("beneath");
    let top = &scratch.0;
    fs::create_dir_all(top.join("root/a/b/c")).unwrap();
    fs::create_dir_all(top.join("root2")).unwrap();
    fs::write(top.join("secret"), "secret").unwrap();
    fs::write(top.join("root2/secret"), "secret").unwrap();
    fs::write(top.join("root/file"), "file").unwrap();
    fs::write(top.join("root/a/b/c/deep"), "deep").unwrap();
    let inside = fs::canonicalize(top).unwrap().join("root/file");
    let fifo = CString::new(top.join("root/fifo").as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is NUL-terminated and lives through the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let _socket = std::os::unix::net::UnixListener::bind(top.join("root/socket")).unwrap();
    for (at, target) in [
        ("to-file", "file"),
        ("to-dir", "a/b"),
        ("to-dir-slash", "a/b/"),
        ("to-file-slash", "file/"),
        ("a/up", "../file"),
        ("a/b/c/up", "../../../file"),
        ("a/b/c/out", "../../../../secret"),
        ("a/b/c/in-and-out", "../../../../root/file"),
        ("out", "../secret"),
        ("twin", "../root2/secret"),
        ("absolute", "/etc/passwd"),
        ("absolute-inside", inside.to_str().unwrap()),
        ("parent", ".."),
        ("self", "."),
        ("root-slash", "/"),
        ("loop", "loop"),
        ("loop-1", "loop-2"),
        ("loop-2", "loop-1"),
        ("broken", "nowhere"),
        ("chain-0", "file"),
        ("proc", "/proc/self/root/etc/passwd"),
        ("to-out", "out"),
        ("to-fifo", "fifo"),
    ] {
        symlink(target, top.join("root").join(at)).unwrap();
    }
    for number in 1..=45 {
        let (at, to) = (
            format!("root/chain-{number}"),
            format!("chain-{}", number - 1),
        );
        symlink(to, top.join(at)).unwrap();
    }
    let root = open_root(&top.join("root"), Patience::Wait).unwrap();
    let (found, out, looped) = ("found", Some(libc::EXDEV), Some(libc::ELOOP));
    let (absent, not) = (Some(libc::ENOENT), Some(libc::ENOTDIR));
    let long = "n".repeat(256);
    let longer = "n/".repeat(2100);
    for (path, expected) in [
        ("file", Ok(found)),
        ("", Ok(found)),
        (".", Ok(found)),
        ("a/b/c/deep", Ok(found)),
        ("a/./b//c/deep", Ok(found)),
        ("a/../file", Ok(found)),
        ("to-file", Ok(found)),
        ("to-dir/c/deep", Ok(found)),
        ("to-dir-slash/c/deep", Ok(found)),
        ("to-dir-slash", Ok(found)),
        ("a/up", Ok(found)),
        ("a/b/c/up", Ok(found)),
        ("to-dir/c/up", Ok(found)),
        ("self/self/self/file", Ok(found)),
        ("chain-39", Ok(found)),
        ("to-fifo", Ok(found)),
        ("a/", Ok(found)),
        ("chain-40", Err(looped)),
        ("loop", Err(looped)),
        ("loop-1", Err(looped)),
        ("out", Err(out)),
        ("to-out", Err(out)),
        ("twin", Err(out)),
        ("a/b/c/out", Err(out)),
        ("a/b/c/in-and-out", Err(out)),
        ("absolute", Err(out)),
        ("absolute-inside", Err(out)),
        ("root-slash", Err(out)),
        ("root-slash/etc/passwd", Err(out)),
        ("proc", Err(out)),
        ("parent", Err(out)),
        ("parent/root/file", Err(out)),
        ("..", Err(out)),
        ("../root/file", Err(out)),
        ("a/../../root/file", Err(out)),
        ("none", Err(absent)),
        ("broken", Err(absent)),
        ("none/file", Err(absent)),
        ("file/more", Err(not)),
        ("file/", Err(not)),
        ("to-file/", Err(not)),
        ("to-file-slash", Err(not)),
        ("file/..", Err(not)),
        ("file/.", Err(not)),
        (&long, Err(Some(libc::ENAMETOOLONG))),
        (&longer, Err(Some(libc::ENAMETOOLONG))),
    ] {
        let walked = verdict(walk(root.as_fd(), path.as_bytes(), Purpose::Look, || {}));
        assert_eq!(walked.map(|_| found), expected, "{path}");
        for purpose in PURPOSES {
            let walked = verdict(walk(root.as_fd(), path.as_bytes(), purpose, || {}));
            if has_openat2() {
                let kernel = by_kernel(root.as_fd(), path.as_bytes(), purpose);
                assert_eq!(walked, kernel, "{path} to {purpose:?}");
            }
        }
    }
    let socket = walk(root.as_fd(), b"socket", Purpose::Read, || {}).unwrap_err();
    assert_eq!(cause(&socket), Cause::Unfit);
    // Whoever has just opened it has it at hand; whoever has not may wait, which is no other error.
    for path in ["file", "to-dir/c/deep"] {
        let at_hand = open_beneath(
            root.as_fd(),
            path.as_bytes(),
            Purpose::Read,
            Patience::Cached,
        );
        assert!(at_hand.map_or_else(|error| cause(&error) == Cause::WouldBlock, |_| true));
    }
}

/// The same for trees and paths that nobody thought of.
#[test]
fn the_walk_by_hand_is_the_walk_of_the_kernel() {
    if !has_openat2() {
        return;
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % end
    };
    let names = ["a", "b", "c", "d"];
    let (mut opened, mut refused) = (0, 0);
    for tree in 0..25 {
        let scratch = Scratch::new(&format!("tree-{tree}"));
        let root = scratch.0.join("root");
        fs::create_dir_all(&root).unwrap();
        let mut path = |most: usize, dots: usize| -> String {
            let mut path = String::new();
            for _ in 0..1 + below(most) {
                let part = match below(10) {
                    0..=2 if dots > 0 => "..",
                    3 if dots > 0 => ".",
                    _ => names[below(names.len())],
                };
                path += part;
                path += ["/", "/", "/", "//"][below(4)];
            }
            match below(5) {
                0 => path,
                1 if dots > 0 => format!("/{path}"),
                _ => path.trim_end_matches('/').to_owned(),
            }
        };
        for number in 0..40 {
            let at = root.join(path(3, 0).trim_end_matches('/'));
            let _ = match number % 4 {
                0 => fs::create_dir_all(&at),
                1 => fs::write(&at, "x"),
                _ => symlink(path(4, 1), &at),
            };
        }
        let root = open_root(&root, Patience::Wait).unwrap();
        for _ in 0..400 {
            let path = path(5, 1);
            let path = path.trim_start_matches('/').as_bytes();
            for purpose in PURPOSES {
                let kernel = by_kernel(root.as_fd(), path, purpose);
                let walked = verdict(walk(root.as_fd(), path, purpose, || {}));
                assert_eq!(walked, kernel, "{} to {purpose:?}", path.escape_ascii());
                *(if kernel.is_ok() {
                    &mut opened
                } else {
                    &mut refused
                }) += 1;
            }
        }
    }
    assert!(opened > 2000 && refused > 2000, "{opened} {refused}");
}

/// Somebody turns a name into a link out and back, and a directory likewise, as fast as it goes.
#[test]
fn what_is_swapped_between_look_and_step_leads_nowhere_out() {
    let scratch = Scratch::new("swapped");
    let top = scratch.0.clone();
    for dir in ["root/dir", "outside/dir"] {
        fs::create_dir_all(top.join(dir)).unwrap();
        fs::write(top.join(dir).join("file"), &dir[..1]).unwrap();
    }
    symlink("../../outside/dir/file", top.join("root/dir/link")).unwrap();
    symlink("../outside/dir", top.join("root/way-out")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (over, root) = (Arc::clone(&over), top.join("root"));
        thread::spawn(move || {
            let exchange = |one: &str, other: &str| {
                let name = |path: &str| CString::new(root.join(path).as_os_str().as_bytes());
                let (one, other) = (name(one).unwrap(), name(other).unwrap());
                // SAFETY: both paths are NUL-terminated and live through the call. RENAME_EXCHANGE is 2.
                unsafe {
                    libc::syscall(
                        libc::SYS_renameat2,
                        libc::AT_FDCWD,
                        one.as_ptr(),
                        libc::AT_FDCWD,
                        other.as_ptr(),
                        2,
                    )
                }
            };
            while !over.load(Ordering::Relaxed) {
                assert_eq!(exchange("dir/file", "dir/link"), 0);
                assert_eq!(exchange("dir/file", "dir/link"), 0);
                assert_eq!(exchange("dir", "way-out"), 0);
                assert_eq!(exchange("dir", "way-out"), 0);
            }
        })
    };
    let root = open_root(&top.join("root"), Patience::Wait).unwrap();
    let mut counts = [0, 0];
    for round in 0..6000 {
        let opened = match round % 2 {
            0 => walk(root.as_fd(), b"dir/file", Purpose::Read, || {}).map(File::from),
            _ => open_beneath(root.as_fd(), b"dir/file", Purpose::Read, Patience::Wait),
        };
        match opened {
            Ok(file) => {
                assert_eq!(io::read_to_string(file).unwrap(), "r", "round {round}");
                counts[0] += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "round {round}");
                counts[1] += 1;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// The same, once, in the very moment between the look and the step.
#[test]
fn what_is_swapped_in_that_very_moment_is_looked_at_again() {
    let scratch = Scratch::new("moment");
    let top = &scratch.0;
    for dir in ["root/dir", "outside"] {
        fs::create_dir_all(top.join(dir)).unwrap();
        fs::write(top.join(dir).join("file"), &dir[..1]).unwrap();
    }
    let root = open_root(&top.join("root"), Patience::Wait).unwrap();
    let put = |target: &str, name: &str| {
        symlink(target, top.join("new")).unwrap();
        let _ = fs::rename(top.join(name), top.join("old"));
        fs::rename(top.join("new"), top.join(name)).unwrap();
    };
    let back = |name: &str| {
        fs::remove_file(top.join(name)).unwrap();
        fs::rename(top.join("old"), top.join(name)).unwrap();
    };
    // At the look number so many this name becomes a link to there; what comes of it.
    let swapped = |at: usize, name: &str, target: &str, purpose| {
        let mut looks = 0;
        let opened = walk(root.as_fd(), b"dir/file", purpose, || {
            looks += 1;
            if looks == at {
                put(target, name);
            }
        });
        back(name);
        opened.map(|fd| io::read_to_string(File::from(fd)).unwrap_or_default())
    };
    let (file, dir) = ("root/dir/file", "root/dir");
    let out = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
    out(swapped(2, file, "../../outside/file", Purpose::Read).unwrap_err());
    out(swapped(2, file, "/etc/passwd", Purpose::Read).unwrap_err());
    // What was looked at is held: it stays where it was found.
    assert_eq!(swapped(1, dir, "../outside", Purpose::Read).unwrap(), "r");
    assert_eq!(swapped(2, dir, "../outside", Purpose::Read).unwrap(), "r");
    let circles = swapped(2, file, "file", Purpose::Read).unwrap_err();
    assert_eq!(cause(&circles), Cause::Unfit);
    // A link inside is followed.
    fs::write(top.join("root/dir/other"), "other").unwrap();
    assert_eq!(swapped(2, file, "other", Purpose::Read).unwrap(), "other");
    assert!(swapped(2, file, "../../outside/file", Purpose::Look).is_ok());
}

#[test]
fn names_of_a_directory() {
    let scratch = Scratch::new("names");
    for number in 0..3000 {
        fs::write(scratch.0.join(format!("file-{number:05}")), "").unwrap();
    }
    fs::create_dir(scratch.0.join("dir")).unwrap();
    symlink("dir", scratch.0.join("link")).unwrap();
    let root = open_root(&scratch.0, Patience::Wait).unwrap();
    let open = || open_beneath(root.as_fd(), b"", Purpose::List, Patience::Wait).unwrap();
    let mut found = Vec::new();
    names(&open(), |name, kind| {
        found.push((String::from_utf8(name.to_vec()).unwrap(), kind));
        true
    })
    .unwrap();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found.len(), 3002);
    let is = |at: usize, name: &str, kinds: [Kind; 2]| {
        assert!(
            found[at].0 == name && kinds.contains(&found[at].1),
            "{:?}",
            found[at]
        );
    };
    is(0, "dir", [Kind::Directory, Kind::Unknown]);
    is(1, "file-00000", [Kind::File, Kind::Unknown]);
    is(3001, "link", [Kind::Unknown, Kind::Unknown]);
    let mut count = 0;
    names(&open(), |_, _| {
        count += 1;
        count < 10
    })
    .unwrap();
    assert_eq!(count, 10);
}

#[test]
fn a_path_is_the_same_for_the_kernel_however_long_it_is() {
    for length in [1, SHORT - 2, SHORT - 1, SHORT, SHORT + 1, PATH_MAX - 1] {
        let path = vec![b'x'; length];
        let mut buffer = [0; SHORT];
        assert_eq!(c_path(&path, &mut buffer).unwrap().to_bytes(), path);
        let mut with_nul = path;
        with_nul[length - 1] = 0;
        let error = c_path(&with_nul, &mut [0; SHORT]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{length}");
    }
    let error = c_path(&[b'x'; PATH_MAX], &mut [0; SHORT]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
}
