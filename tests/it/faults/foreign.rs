//! What stands in a process before the program's first line, and is not the program's.

use crate::support::{Place, Site, has, run, skip, threads, worker};
use std::process::Command;

/// An emulator has a thread in the process that it runs (qemu-user does), and so has what is loaded before a program.
const THREAD: &str = r#"
#include <pthread.h>
#include <unistd.h>
static void *wait_for_ever(void *nothing) { for (;;) pause(); return nothing; }
__attribute__((constructor)) static void start(void) { pthread_t thread; pthread_create(&thread, 0, wait_for_ever, 0); }
"#;

#[test]
fn a_foreign_thread_from_the_start_forbids_nothing() {
    if !has("cc") {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    place.write("thread.c", THREAD);
    let library = place.path("thread.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-pthread", "-o"])
        .arg(&library);
    run(cc.arg(place.path("thread.c"))).ok();
    let mut start = place.command_of("prog", &["start", "-d", "--address", "127.0.0.1:0"]);
    let site = Site::of(&run(start.env("LD_PRELOAD", &library)).ok());
    let environment = std::fs::read(format!("/proc/{}/environ", site.pid)).unwrap();
    assert!(environment.windows(10).any(|some| some == b"LD_PRELOAD"));
    if !std::fs::read_to_string(format!("/proc/{}/maps", site.pid))
        .unwrap()
        .contains("thread.so")
    {
        return skip("needs a program that is linked dynamically");
    }
    assert_eq!(site.get("/hello").status, 200);
    place.app_of("prog", &["restart"]).ok();
    // The master that was executed has that thread, too, and forks workers.
    assert_eq!(threads(site.pid).len(), 2);
    let old = worker(site.pid);
    crate::support::signal(old, "KILL");
    crate::support::wait_until(20, "it is replaced", || {
        let now = crate::support::workers(site.pid);
        now.len() == 1 && now[0] != old
    });
    assert_eq!(site.get("/hello").status, 200);
    place.app(&["stop"]).ok();
}
