//! A worker that runs wild writes over the memory that it shares with its master.

use crate::support::{Place, fact, signal, wait_until, worker};
use std::os::unix::fs::FileExt;

/// Writes over everything behind the first word, through the master's own descriptor.
fn scribble(master: u32, byte: u8) {
    let names = std::fs::read_dir(format!("/proc/{master}/fd"))
        .unwrap()
        .flatten();
    let path = names
        .map(|name| name.path())
        .find(|path| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("memfd:hade"))
        })
        .expect("the shared memory");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let length = file.metadata().unwrap().len() as usize;
    file.write_all_at(&vec![byte; length - 8], 8).unwrap();
}

#[test]
fn whatever_stands_there_the_master_goes_on_and_says_something_bounded() {
    let place = Place::demo();
    let site = place.start_copy(&["--set", "app.close_wait=1"]);
    for (times, byte) in [0xff, 0x7f, 0x80].into_iter().enumerate() {
        scribble(site.pid, byte);
        let json = place.app(&["state", "--json"]).ok();
        for key in [
            "connections",
            "in_flight",
            "requests",
            "accepted",
            "worker_deaths",
            "slow_handlers",
            "too_many",
        ] {
            let count: u64 = fact(&json, key).parse().unwrap();
            // What every reader of JSON can hold, RFC 8259 §6, by a factor.
            assert!(count <= 1 << 56, "{key}: {json}");
        }
        place.app(&["state"]).ok();
        scribble(site.pid, byte);
        let old = worker(site.pid);
        signal(old, "KILL");
        wait_until(20, "it is replaced", || worker(site.pid) != old);
        scribble(site.pid, byte);
        place.app_of("prog", &["restart"]).ok();
        assert_eq!(place.fact("generation"), (times + 2).to_string());
        assert_eq!(site.get("/hello").status, 200);
    }
    scribble(site.pid, 0xff);
    place.app(&["stop"]).ok();
    assert!(!place.log().contains("panic"));
}
