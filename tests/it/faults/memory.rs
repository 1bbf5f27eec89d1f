//! Memory that runs out: the worker goes, by the kernel, and the log says so; the master stays.

use crate::support::{Place, Site, is_root, run, signal, skip, wait_until, worker, workers};
use std::fs;
use std::path::PathBuf;

/// A control group with this limit, if it may be made here.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Option<Group> {
        for (base, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = Group(PathBuf::from(base).join(format!("hade-it-{}", std::process::id())));
            let swap = ["memory.memsw.limit_in_bytes", "memory.swap.max"];
            if fs::create_dir(&group.0).is_ok()
                && fs::write(group.0.join(limit), bytes.to_string()).is_ok()
            {
                for (name, most) in swap.iter().zip([bytes, 0]) {
                    let _ = fs::write(group.0.join(name), most.to_string());
                }
                return Some(group);
            }
        }
        skip("needs a control group of its own");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_worker_killed_for_want_of_memory_is_named_and_the_master_stays() {
    if !is_root() {
        return;
    }
    let Some(group) = Group::new(64 << 20) else {
        return;
    };
    let place = Place::demo();
    let script = r#"echo $$ >"$1/cgroup.procs"; shift; exec "$@""#;
    let before = ["sh", "-c", script, "sh", group.0.to_str().unwrap()];
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let site = Site::of(&run(&mut place.wrapped(&before, &args)).ok());
    let old = site.worker();
    // What somebody else kills is not put down to the kernel.
    signal(old, "KILL");
    place.wait_for_log(&format!("worker {old} killed by signal 9 (KILL), up "));
    let next = worker(site.pid);
    wait_until(10, "the next one serves", || {
        site.get("/pid").text() == next.to_string()
    });
    let mut wire = site.connect();
    wire.send("GET /bytes?n=200000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(wire.is_gone());
    place.wait_for_log(&format!(
        "worker {next} killed by signal 9 (KILL), by the kernel for want of memory, up "
    ));
    wait_until(10, "another one serves", || {
        site.get("/hello").status == 200
    });
    assert_eq!(place.pid(), Some(site.pid));
    place.app(&["stop"]).ok();
    place.wait_empty(2);
}

#[test]
fn workers_are_offered_to_the_kernel_and_masters_are_not() {
    let score = |pid: u32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let own = score(std::process::id());
    if own == -1000 {
        return skip("needs to be one whom the kernel may kill");
    }
    let place = Place::demo();
    let site = place.start_copy(&["--set", "app.workers=2"]);
    for _ in 0..2 {
        assert_eq!(score(site.pid), own);
        let all = workers(site.pid);
        assert_eq!(all.len(), 2);
        // Neither a restart nor a respawn adds to it.
        assert!(all.iter().all(|pid| score(*pid) == (own + 500).min(1000)));
        place.app_of("prog", &["restart"]).ok();
    }
}
