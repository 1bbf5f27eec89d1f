//! A machine of its own for an init system: in namespaces, with this machine's programs as its own, or with nothing but
//! busybox. What it changes is in memory, and gone with it.

use crate::support::{Done, HADE, Place, Site, fact, is_root, run, skip, wait_until, workers};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The files of this machine below, and changes in memory above.
const LIKE_THIS_ONE: &str = r#"
    mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
    rm -rf root/etc/systemd/system/* root/lib/systemd/system/*.wants root/etc/hade
    grep -q '^hade:' root/etc/passwd || {
        echo 'hade:x:880:880::/var/lib/hade:/usr/sbin/nologin' >>root/etc/passwd
        echo 'hade:x:880:' >>root/etc/group
    }
"#;

/// busybox, and the libraries that it and hade need where these are not static.
const BUSYBOX: &str = r#"
    mount -t tmpfs root root
    cd root
    mkdir -p bin usr/bin etc/init.d dev proc sys run tmp var
    cp "$(command -v busybox)" bin/busybox
    for link in $(busybox --list); do [ -e "bin/$link" ] || ln -s busybox "bin/$link"; done
    for library in $(ldd bin/busybox "$hade" | sed -n 's|^[^/]*\(/[^ ]*\) (.*|\1|p' | sort -u); do
        mkdir -p ".${library%/*}"; cp "$library" ".$library"
    done
    echo 'root:x:0:0::/:/bin/sh' >etc/passwd
    echo 'hade:x:880:880::/:/bin/false' >>etc/passwd
    echo 'hade:x:880:' >etc/group
    cd ..
"#;

/// A new root, and what every Linux system finds in it. A control group of its own comes first, for systemd.
const BOOT: &str = r#"
    mount -t tmpfs none "$dir"
    cd "$dir"
    mkdir up work root groups
    mount -t cgroup2 none groups
    mkdir "groups/$name"
    echo $$ >"groups/$name/cgroup.procs"
    exec unshare --cgroup sh -ec '
        # Nothing that follows can write to this machine, by an absolute link for instance.
        mount -o remount,bind,ro /
        eval "$files"
        mkdir -p root/usr/bin
        cp "$hade" root/usr/bin/hade
        cd root
        mount -t proc proc proc
        mount -o bind proc/sys proc/sys
        mount -o remount,bind,ro proc/sys
        mount -t sysfs -o ro sys sys
        ! [ -d sys/fs/cgroup ] || mount -t cgroup2 none sys/fs/cgroup
        mount -t tmpfs -o mode=755 dev dev
        for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
            mknod -m 666 "dev/${node% *}" c 1 "${node#* }"
        done
        mknod -m 666 dev/tty c 5 0
        mkdir dev/shm dev/pts
        ln -s /proc/self/fd dev/fd
        mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
        ln -s pts/ptmx dev/ptmx
        mount -t tmpfs -o mode=755 run run
        mount -t tmpfs tmp tmp
        [ -z "$network" ] || ip link set lo up
        eval "$prepare"
        mkdir .old
        cd /
        pivot_root "$dir/root" "$dir/root/.old"
        cd /
        umount -l .old
        rmdir .old
        : >/run/is-up
        exec "$@"
    ' sh "$@"
"#;

/// What `make install` puts there, and the settings of this test.
pub const INSTALLED: &str = r#"
    mkdir -p root/source root/var/lib/hade
    cp -R "$source/Makefile" "$source/etc" root/source
    cp "$hade" root/source/hade
    make -s -C root/source install DESTDIR="$PWD" PREFIX=/usr
    echo 'app.address = 127.0.0.1:0' >>etc/hade/app.conf
"#;

/// Whether namespaces, an overlay and control groups can be had, which a container may not be allowed.
fn has_what_it_takes() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let try_it = r#"
            mount -t tmpfs none /tmp
            mkdir /tmp/up /tmp/work /tmp/root /tmp/groups
            mount -t overlay overlay -o lowerdir=/,upperdir=/tmp/up,workdir=/tmp/work /tmp/root
            mount -t cgroup2 none /tmp/groups
        "#;
        let mut command = Command::new("unshare");
        command.args([
            "--mount", "--pid", "--uts", "--ipc", "--fork", "sh", "-ec", try_it,
        ]);
        let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    });
    if !found {
        skip("needs namespaces, an overlay and control groups v2");
    }
    found
}

/// The machine, ended with the test.
pub struct Machine {
    unshare: Child,
    /// Its PID 1.
    pid: u32,
    /// The name of its control group.
    name: String,
    place: Place,
}

impl Machine {
    /// One with the files of this machine. `prepare` is shell, run in the new root's directory; `init` is PID 1.
    #[track_caller]
    pub fn like_this_one(prepare: &str, init: &[&str]) -> Option<Machine> {
        Machine::boot(LIKE_THIS_ONE, prepare, init, false)
    }

    /// The same with a network of its own, where every port is free.
    #[track_caller]
    pub fn apart(prepare: &str, init: &[&str]) -> Option<Machine> {
        Machine::boot(LIKE_THIS_ONE, prepare, init, true)
    }

    /// One with busybox alone, whose init is PID 1.
    #[track_caller]
    pub fn of_busybox(prepare: &str) -> Option<Machine> {
        Machine::boot(BUSYBOX, prepare, &["/bin/init"], false)
    }

    #[track_caller]
    fn boot(files: &str, prepare: &str, init: &[&str], apart: bool) -> Option<Machine> {
        if !is_root() || !has_what_it_takes() {
            return None;
        }
        let place = Place::new();
        let name = place.dir.file_name().unwrap().to_str().unwrap().to_owned();
        place.write("root", "");
        fs::remove_file(place.path("root")).unwrap();
        fs::create_dir(place.path("machine")).unwrap();
        let console = fs::File::create(place.path("console")).unwrap();
        let mut unshare = Command::new("setsid");
        // It ends with the thread that runs the test, however that ends.
        unshare.args(["setpriv", "--pdeathsig", "KILL"]);
        unshare.args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork"]);
        unshare.args(apart.then_some("--net"));
        unshare.env_clear();
        unshare.env("network", if apart { "own" } else { "" });
        unshare.args(["--kill-child", "sh", "-ec", BOOT, "sh"]);
        unshare.args(init);
        unshare.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        unshare.env("container", "hade-it");
        unshare.env("dir", place.path("machine")).env("name", &name);
        unshare.env("source", env!("CARGO_MANIFEST_DIR"));
        unshare
            .env("hade", HADE)
            .env("files", files)
            .env("prepare", prepare);
        unshare
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console);
        let mut machine = Machine {
            unshare: unshare.spawn().expect("unshare runs"),
            pid: 0,
            name,
            place,
        };
        wait_until(20, "the machine is up", || {
            let ended = machine.unshare.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", machine.console());
            machine.pid = workers(machine.unshare.id()).first().copied().unwrap_or(0);
            machine.pid > 1 && Path::new(&format!("/proc/{}/root/run/is-up", machine.pid)).exists()
        });
        Some(machine)
    }

    /// What PID 1 and its children have said.
    pub fn console(&self) -> String {
        self.place.read("console")
    }

    /// A program in it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["300", "nsenter", "--target", &self.pid.to_string()]);
        command.args([
            "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd",
        ]);
        command.args(words).stdin(Stdio::null()).env_clear();
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.env("LANG", "C.UTF-8");
        command
    }

    pub fn run(&self, words: &[&str]) -> Done {
        run(&mut self.command(words))
    }

    /// A line of shell in it.
    pub fn sh(&self, line: &str) -> Done {
        self.run(&["sh", "-c", line])
    }

    /// The exit status of a line of shell, which may say what it likes.
    #[track_caller]
    pub fn code(&self, line: &str) -> i32 {
        self.sh(line).code.expect("an exit status")
    }

    /// Waits until a line of shell succeeds.
    #[track_caller]
    pub fn wait_for(&self, line: &str) {
        let mut last = None;
        let come = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(20, line, || {
                last = Some(self.sh(line));
                last.as_ref().is_some_and(|done| done.code == Some(0))
            });
        }));
        if let Err(panic) = come {
            eprintln!("--- the last answer: {last:?}");
            std::panic::resume_unwind(panic);
        }
    }

    /// The service that runs in it; its pid is the one inside.
    #[track_caller]
    pub fn site(&self) -> Site {
        let state = self.state();
        Site {
            pid: fact(&state, "pid").parse().expect("a pid"),
            url: self.url(&state),
        }
    }

    fn url(&self, state: &str) -> String {
        let at = state.find("\"address\":\"").expect("an address") + "\"address\":\"".len();
        state[at..].split('"').next().unwrap().to_owned()
    }

    /// `state --json` of the service with the settings of /etc/hade.
    #[track_caller]
    pub fn state(&self) -> String {
        let words = [
            "hade",
            "app",
            "state",
            "--json",
            "--config",
            "/etc/hade/app.conf",
        ];
        self.run(&words).ok()
    }

    #[track_caller]
    pub fn generation(&self) -> String {
        fact(&self.state(), "generation")
    }

    /// Waits until its PID 1 has ended.
    #[track_caller]
    pub fn ends(&mut self) {
        wait_until(20, "the machine is off", || {
            self.unshare.try_wait().unwrap().is_some()
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the machine said\n{}---", self.console());
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // The groups that systemd made are emptied by its end, which takes a moment.
        let remove = r#"
            mount -t cgroup2 none "$1" && cd "$1" || exit 1
            for try in 1 2 3 4 5 6 7 8 9 10; do
                ! find "$2" -depth -type d -exec rmdir {} + 2>/dev/null || exit 0
                sleep 0.1
            done
        "#;
        let groups = self.place.path("machine");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", remove, "sh"])
            .arg(groups);
        let _ = command.arg(&self.name).stdin(Stdio::null()).status();
    }
}
