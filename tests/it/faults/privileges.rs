//! Workers of another user than root: what they may no longer do, that all else goes on, and that nothing which is left to
//! that user makes it root again. Each is done by a real second user.

use crate::look::{copy, is_root, mode, own_address, status};
use crate::support::{
    Done, Hammer, Place, Site, demo, has, run, signal, wait_until, worker, working_in,
};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A user that nobody else is.
fn new_user() -> u32 {
    static USERS: AtomicU32 = AtomicU32::new(32);
    2_000_000_000 + 64 * (std::process::id() % 1_000_000) + USERS.fetch_add(1, Ordering::Relaxed)
}

/// A place of root's, with the demo in it, whose workers are a user of their own.
struct House {
    place: Place,
    user: u32,
}

impl House {
    fn new() -> Option<House> {
        if !(is_root() && has("setpriv")) {
            return None;
        }
        let place = Place::demo();
        copy(&demo(), &place.path("prog"));
        for path in [place.path("prog"), place.dir.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let user = new_user();
        Some(House { place, user })
    }

    fn app(&self, args: &[&str]) -> Done {
        self.place.app_of("prog", args)
    }

    fn setting(&self) -> String {
        format!("user={0}:{0}", self.user)
    }

    /// Starts it as a daemon, with more flags.
    #[track_caller]
    fn start(&self, more: &[&str]) -> Site {
        self.start_at("127.0.0.1:0", more)
    }

    #[track_caller]
    fn start_at(&self, address: &str, more: &[&str]) -> Site {
        let setting = self.setting();
        let args = ["start", "-d", "--address", address, "--set", &setting];
        Site::of(&self.app(&[&args[..], more].concat()).ok())
    }

    /// A line of shell by a handler.
    #[track_caller]
    fn handler(site: &Site, line: &str) -> String {
        let line = line.replace('%', "%25").replace(' ', "%20");
        let line = line.replace('&', "%26").replace('"', "%22");
        site.get(&format!("/sh?line={line}")).text()
    }

    /// A line of shell by a process of that user's.
    fn outside(&self, line: &str) -> Done {
        let user = self.user.to_string();
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "sh",
            "-c",
            line,
        ]);
        run(command.current_dir(&self.place.dir))
    }

    #[track_caller]
    fn is_users(&self, worker: u32) {
        let user = self.user;
        for field in ["Uid", "Gid"] {
            let ids = status(worker, field);
            let ids: Vec<&str> = ids.split_whitespace().collect();
            assert_eq!(ids, [user.to_string().as_str(); 4], "{field}");
        }
        assert_eq!(status(worker, "Groups"), "");
        for field in ["CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(worker, field), "0000000000000000", "{field}");
        }
        assert_eq!(status(worker, "NoNewPrivs"), "1");
    }
}

#[test]
fn a_service_at_port_80_has_workers_that_are_not_root() {
    let Some(house) = House::new() else { return };
    let place = &house.place;
    let address = own_address();
    let address = format!("{}:80", address.split(':').next().unwrap());
    place.write("secret", "s3cret");
    fs::set_permissions(place.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(place.path("public")).unwrap();
    place.write("public/open", "open");
    place.write("public/closed", "closed");
    fs::set_permissions(
        place.path("public/closed"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();

    // As root a handler may do all of this.
    let deeds = |site: &Site| {
        let master = site.pid;
        [
            "cat secret".to_owned(),
            "touch mine && rm mine".to_owned(),
            "touch run/mine && rm run/mine".to_owned(),
            "ls run".to_owned(),
            format!("kill -0 {master}"),
            format!("head -c 1 /proc/{master}/environ"),
            format!("ls /proc/{master}/fd"),
            "chown 1 open".to_owned(),
            "setpriv --reuid 0 true".to_owned(),
        ]
    };
    place.write("open", "");
    let site = place.start_copy(&["--root", "public"]);
    for deed in deeds(&site) {
        let said = House::handler(&site, &deed);
        assert!(said.ends_with("exit status: 0\n"), "{deed}: {said}");
    }
    assert!(place.log().contains(" warn ") && place.log().contains("workers run as root"));
    assert_eq!(site.get("/closed").status, 200);
    house.app(&["stop"]).ok();

    let site = house.start_at(&address, &["--root", "public"]);
    assert_eq!(site.address(), address);
    assert_eq!(status(site.pid, "Uid").split_whitespace().next(), Some("0"));
    assert_eq!(mode(&place.path("run")), 0o750);
    let is_kept = |site: &Site| {
        house.is_users(worker(site.pid));
        for deed in deeds(site) {
            let said = House::handler(site, &deed);
            assert!(!said.ends_with("exit status: 0\n"), "{deed}: {said}");
        }
        assert_eq!(site.get("/open").status, 200);
        assert_eq!(site.get("/closed").status, 403);
    };
    is_kept(&site);
    // It offers itself to the kernel, which only root may do to it from then on.
    let score = |pid: u32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let master = score(site.pid);
    assert!(master == -1000 || score(worker(site.pid)) == (master + 500).min(1000));

    // A restart, and a worker that dies, make another one of the same user.
    let hammer = Hammer::easy(&address);
    for _ in 0..3 {
        house.app(&["restart"]).ok();
    }
    hammer.end();
    is_kept(&site);
    let old = worker(site.pid);
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    wait_until(10, "the next one serves", || {
        site.get("/hello").status == 200
    });
    is_kept(&site);

    // The log goes on in another file, where that user may not open one.
    fs::rename(place.path("run/app.log"), place.path("run/app.log.1")).unwrap();
    signal(site.pid, "USR1");
    place.wait_for_log("log reopened");
    let last = worker(site.pid);
    signal(last, "TERM");
    place.wait_for_log(&format!(" {last} signal TERM: draining"));
    house.app(&["stop"]).ok();
    place.wait_empty(5);
}

#[test]
fn the_user_may_be_named_and_changed_by_a_restart() {
    let Some(house) = House::new() else { return };
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let nobody = passwd.lines().find(|line| line.starts_with("nobody:"));
    let ids: Vec<&str> = nobody
        .unwrap_or_default()
        .split(':')
        .skip(2)
        .take(2)
        .collect();
    let [uid, gid] = ids[..] else {
        return crate::support::skip("needs a user nobody");
    };
    let site = house.start(&[]);
    house.is_users(site.worker());
    let hammer = Hammer::easy(site.address());
    house.app(&["restart", "--set", "user=nobody"]).ok();
    hammer.end();
    let first = |field| {
        let ids = status(site.worker(), field);
        ids.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(
        (first("Uid"), first("Gid")),
        (uid.to_owned(), gid.to_owned())
    );
    // What cannot be changes nothing.
    let said = house
        .app(&["restart", "--set", "user=no-such-user"])
        .failed(1);
    assert_eq!(
        said,
        format!(
            "demo: restart given up: app.user no-such-user: there is no such user in /etc/passwd; pid {} still serves as before\n",
            site.pid
        )
    );
    assert_eq!(first("Uid"), uid);
    // And what fails behind the exec leads back to whom the workers were.
    house.place.write("boot", "fail");
    let setting = house.setting();
    house.app(&["restart", "--set", &setting]).failed(1);
    house.place.write("boot", "");
    let old = site.worker();
    assert_eq!(first("Uid"), uid);
    signal(old, "KILL");
    site.wait_replaced(old, 1);
    wait_until(10, "the next one serves", || {
        site.get("/hello").status == 200
    });
    assert_eq!(first("Uid"), uid);
    house.app(&["restart"]).ok();
    assert_eq!(first("Uid"), uid);
    house.app(&["stop"]).ok();
}

#[test]
fn who_is_not_root_has_no_other_user_to_give() {
    let Some(house) = House::new() else { return };
    house.outside("true").ok();
    let user = house.user;
    chown(&house.place.dir, Some(user), Some(user)).unwrap();
    for command in ["start", "start -d", "check"] {
        let said = house.outside(&format!("./prog app {command} --set user=1:1"));
        assert_eq!(
            said.failed(1),
            format!(
                "demo: app.user 1:1: only root can give its workers another user, and this is uid {user}\n"
            )
        );
    }
    assert!(!house.place.path("run").exists());
    // Root with its hands tied: it is said at the start, by the worker that tried.
    chown(&house.place.dir, Some(0), Some(0)).unwrap();
    let bound = [
        "setpriv",
        "--bounding-set=-setuid,-setgid",
        "--inh-caps=-setuid,-setgid",
    ];
    let setting = house.setting();
    let start_by = |wrapper: &[&str]| {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(house.place.path("prog"));
        command.args(["app", "start", "-d", "--address", "127.0.0.1:0"]);
        command.args(["--set", &setting]);
        run(command.current_dir(&house.place.dir)).failed(1)
    };
    let said = start_by(&bound);
    assert!(said.starts_with("demo: start failed: worker "), "{said}");
    assert!(
        said.ends_with(&format!(
            ": cannot become {0}:{0} (uid {0}, gid {0}): setgroups: Operation not permitted (os error 1); root needs its capabilities SETUID and SETGID for that\n",
            house.user
        )),
        "{said}"
    );
    // Capabilities that would outlive the change are a way back.
    let locked = ["setpriv", "--securebits=+no_setuid_fixup"];
    let said = start_by(&locked);
    assert!(
        said.contains(": there is a way back to root, by its securebits"),
        "{said}"
    );
    assert_eq!(working_in(&house.place.dir), []);
}

/// What the workers' user may change of what root executes, reads or makes files in.
#[test]
fn what_would_make_the_user_root_is_refused() {
    let Some(_) = House::new() else { return };
    for (what, script) in [
        ("prog", "chown $1 prog"),
        ("prog", "chmod 757 prog"),
        ("prog", "chgrp $1 prog; chmod 775 prog"),
        // By a list, whoever is on it.
        ("prog", "setfacl -m u:$1:rwx prog"),
        ("", "chown $1 ."),
        ("", "chmod 777 ."),
        ("etc", "mkdir etc; chown $1 etc"),
        ("etc", "mkdir etc; chmod 1777 etc"),
        (
            "etc/app.conf",
            "mkdir etc; touch etc/app.conf; chown $1 etc/app.conf",
        ),
        (
            "other",
            "mkdir other; touch other/c; chown $1 other; mkdir etc; ln -s ../other/c etc/app.conf",
        ),
        (
            "etc",
            "mkdir etc; ln -s /dev/null etc/app.conf; chmod 777 etc",
        ),
        ("run", "mkdir run; chown $1 run"),
        ("run", "mkdir run; chgrp $1 run; chmod 770 run"),
        ("var", "mkdir -p var/run; chmod 777 var; ln -s var/run run"),
    ] {
        let Some(house) = House::new() else { return };
        if script.starts_with("setfacl") && !has("setfacl") {
            continue;
        }
        let user = house.user.to_string();
        house.place.sh(script, &[&user]);
        let had_run = house.place.path("run").exists();
        let setting = house.setting();
        let thing = match what {
            "" => house.place.dir.clone(),
            what => house.place.path(what),
        };
        let begins = format!(
            "demo: app.user {user}:{user} may change {} (of uid ",
            thing.display()
        );
        for command in [
            &["start", "-d", "--address", "127.0.0.1:0"][..],
            &["start", "--address", "127.0.0.1:0"],
            &["restart", "--address", "127.0.0.1:0"],
            &["check"],
        ] {
            let said = house
                .app(&[command, &["--set", &setting]].concat())
                .failed(1);
            assert!(said.starts_with(&begins), "{script}: {said}");
            assert!(
                said.ends_with(", and could become root: make that root's alone\n"),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1);
        }
        assert_eq!(house.place.path("run").exists(), had_run, "{script}");
        assert!(!house.place.path("run/app.log").exists());
    }
    // What is root's, or is safe by the sticky bit, does not matter; nor what is only served.
    for script in [
        "mkdir -m 1777 run",
        "mkdir public; chown $1 public",
        "mkdir run; chgrp $1 run; chmod 750 run",
        "mkdir etc; touch etc/app.conf; chgrp $1 etc/app.conf; chmod 640 etc/app.conf",
        "ln -s prog link; chown -h $1 link",
    ] {
        let Some(house) = House::new() else { return };
        house.place.sh(script, &[&house.user.to_string()]);
        house.start(&[]);
        house.app(&["stop"]).ok();
    }
}

#[test]
fn a_program_that_the_user_could_replace_is_not_even_tried_by_root() {
    let Some(house) = House::new() else { return };
    let site = house.start(&[]);
    let place = &house.place;
    let evil = "#!/bin/sh\ntouch \"$(dirname \"$0\")/was-run\"\n";
    place.put_program("evil", evil);
    fs::rename(place.path("evil"), place.path("prog")).unwrap();
    chown(place.path("prog"), Some(house.user), None).unwrap();
    let said = place.app(&["restart"]).failed(1);
    let begins = format!(
        "demo: restart given up: app.user {0}:{0} may change ",
        house.user
    );
    assert!(
        said.starts_with(&begins) && said.contains("where root has its program"),
        "{said}"
    );
    signal(site.pid, "HUP");
    place.wait_for_log("signal HUP: restarting");
    wait_until(10, "it is given up", || {
        place.log().matches("restart given up: ").count() == 2
    });
    assert!(!place.path("was-run").exists());
    house.is_users(site.worker());
    // With the settings it is the same.
    place.put_demo("prog");
    place.write("etc/app.conf", "app.threads = 8\n");
    chown(place.path("etc"), Some(house.user), None).unwrap();
    let said = place.app(&["restart"]).failed(1);
    assert!(said.contains("where root has its settings"), "{said}");
    chown(place.path("etc"), Some(0), None).unwrap();
    place.app(&["restart"]).ok();
    house.is_users(site.worker());
    place.app(&["stop"]).ok();
}

#[test]
fn a_worker_of_another_user_leaves_when_its_master_is_killed() {
    for boot in ["", "wait"] {
        let Some(house) = House::new() else { return };
        let place = &house.place;
        place.write("boot", boot);
        let setting = house.setting();
        let words = ["start", "-d", "--address", "127.0.0.1:0", "--set", &setting];
        let mut start = place.command_of("prog", &words);
        start
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut start = start.spawn().unwrap();
        let mut pids = (0, 0);
        wait_until(20, "a worker of that user", || {
            let ours = working_in(&place.dir);
            let is_users = |pid: &u32| {
                let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                text.contains(&format!("\nUid:\t{}", house.user))
            };
            let Some(worker) = ours.iter().copied().find(is_users) else {
                return false;
            };
            let text = fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
            let parent = text.lines().find_map(|line| line.strip_prefix("PPid:"));
            pids = (parent.map_or(0, |pid| pid.trim().parse().unwrap()), worker);
            pids.0 > 1
        });
        let (master, worker) = pids;
        if boot.is_empty() {
            assert!(start.wait().unwrap().success());
            // One that is stopped at that moment would not notice by itself.
            crate::support::freeze(worker);
        }
        signal(master, "KILL");
        place.wait_empty(10);
        let _ = start.wait();
    }
}

/// What was tried on `run/` by strangers is tried by the user of the workers.
#[test]
fn the_user_of_the_workers_has_no_hold_on_the_master() {
    let Some(house) = House::new() else { return };
    let place = &house.place;
    let site = house.start(&["--set", "access_log=run/access.log"]);
    for line in [
        "cat run/app.pid",
        "echo x > run/app.pid",
        "ln -s ../secret run/app.sock.new",
        "rm -f run/app.log && false",
        "echo x >> run/app.log",
        "echo x >> run/access.log",
        &format!("kill -TERM {}", site.pid),
        &format!("ls -l /proc/{}/fd", worker(site.pid)),
        &format!("cat /proc/{}/environ", worker(site.pid)),
        &format!("echo 0 > /proc/{}/oom_score_adj", worker(site.pid)),
    ] {
        assert_ne!(house.outside(line).code, Some(0), "{line}");
    }
    for command in ["state", "stop", "stop --force", "restart", "restart --cold"] {
        let said = house.outside(&format!("./prog app {command}"));
        assert_ne!(said.code, Some(0), "{command}: {said:?}");
    }
    // Where everybody may read the directory the lock and the socket are still root's alone.
    fs::set_permissions(place.path("run"), fs::Permissions::from_mode(0o755)).unwrap();
    house.outside("cat run/app.pid").ok();
    for line in [
        "cat run/app.lock",
        "echo x > run/app.pid",
        "cat run/app.log",
    ] {
        assert_ne!(house.outside(line).code, Some(0), "{line}");
    }
    for command in ["stop", "stop --force", "restart", "restart --cold"] {
        let said = house.outside(&format!("./prog app {command}"));
        assert_ne!(said.code, Some(0), "{command}: {said:?}");
    }
    assert_eq!(place.pid(), Some(site.pid));
    house.is_users(site.worker());
    // A cold restart by root takes its flags from a master of root's.
    let said = house.app(&["restart", "--cold"]).ok();
    let site = Site::after(&said.lines().skip(1).collect::<Vec<_>>().join("\n"));
    house.is_users(site.worker());
    house.app(&["stop"]).ok();
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_said() {
    let Some(house) = House::new() else { return };
    fs::create_dir(house.place.path("closed")).unwrap();
    house.place.write("closed/page", "page");
    fs::set_permissions(
        house.place.path("closed"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    let site = house.start(&["--root", "closed"]);
    house
        .place
        .wait_for_log("/closed, and answers 403: Permission denied");
    assert_eq!(site.get("/page").status, 403);
    symlink("closed", house.place.path("link")).unwrap();
    house.app(&["stop"]).ok();
}
