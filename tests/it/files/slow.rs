//! Files that are not at hand: a disk that takes its time holds up nobody who asks for something else.

use crate::support::*;
use std::process::Command;

use super::pages::SECONDS;

/// Long enough that nothing waits for its end: the tracer ends it.
const MINUTES: &str = "delay_enter=300000000";

/// A site of which two files are slow: the name of one is not known to the kernel, and what is in the other is not in
/// memory. The calls that may wait wait for minutes, and those that may not are told that they would have to.
struct Slow {
    place: Place,
    site: Site,
    content: Vec<u8>,
    tracer: Option<Meanwhile>,
}

impl Slow {
    fn new(set: &[&str]) -> Option<Slow> {
        if !has("strace") {
            return None;
        }
        let place = Place::demo();
        let content = pattern(100_000);
        for name in ["far.bin", "cold.bin"] {
            place.write_at(&format!("www/{name}"), &content, SECONDS);
        }
        place.write_at("www/near.bin", pattern(1000), SECONDS);
        let site = place.start(&[&["--root", "www"], set].concat());
        // Whether a file that has just changed is hade's own, while run/ has just changed, is told by who may wait.
        let run = place.path("run").metadata().unwrap().modified().unwrap();
        wait_until(20, "what is in run/ has settled", || {
            run.elapsed().is_ok_and(|age| age.as_secs() > 4)
        });
        // Once for each, so that reading them needs no more to be noted.
        for name in ["far.bin", "cold.bin", "near.bin"] {
            assert_eq!(site.get(&format!("/{name}")).status, 200);
        }
        assert_eq!(site.get("/none.bin").status, 404);
        let cold = place.path("www/cold.bin");
        let worker = site.worker();
        let mut strace = Command::new("strace");
        strace.args(["-fqq", "-o", "/dev/null", "-p", &worker.to_string()]);
        strace.args(["-P", "far.bin", "-P", cold.to_str().unwrap()]);
        for inject in [
            "openat2,preadv2:error=EAGAIN",
            &format!("openat,sendfile:{MINUTES}"),
        ] {
            strace.args(["-e", &format!("inject={inject}")]);
        }
        let mut tracer = Meanwhile::new(strace);
        let is_traced = || {
            let tasks = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap();
            let mut tasks = tasks.flatten().map(|task| task.path().join("status"));
            tasks.all(|status| {
                let status = std::fs::read_to_string(status).unwrap_or_default();
                !status.contains("TracerPid:\t0\n")
            })
        };
        wait_until(10, "strace looks on, or may not", || {
            is_traced() || tracer.is_over()
        });
        if tracer.is_over() {
            skip("needs an strace that may attach");
            return None;
        }
        Some(Slow {
            place,
            site,
            content,
            tracer: Some(tracer),
        })
    }

    /// So many requests for each of the two.
    fn ask(&self, count: usize) -> Vec<Wire> {
        let asked = (0..count).flat_map(|_| ["/far.bin", "/cold.bin"]);
        let asked = asked.map(|target| {
            let mut wire = self.site.connect();
            wire.send(get(target));
            wire
        });
        asked.collect()
    }
}

#[test]
fn a_slow_disk_holds_up_nobody() {
    let Some(mut slow) = Slow::new(&["--set", "threads=4", "--set", "io_timeout=300"]) else {
        return;
    };
    let mut waiting = slow.ask(10);
    wait_until(20, "they are all in", || {
        slow.place.count("in_flight") >= 10
    });
    let mut wire = slow.site.connect();
    for _ in 0..250 {
        for (target, size) in [("/near.bin", 1000), ("/hello", 13), ("/healthz", 3)] {
            assert_eq!(wire.get(target).body.len(), size, "{target}");
        }
        assert_eq!(wire.get("/none.bin").status, 404);
    }
    // Of the others the head may be out.
    let mut far = waiting.iter_mut().step_by(2);
    assert!(far.all(Wire::is_quiet), "it was not slow");
    // The disk is quick again.
    slow.tracer.take();
    for wire in &mut waiting {
        let answer = wire.answer();
        assert!(answer.status == 200 && answer.body == slow.content);
        assert_eq!(wire.get("/near.bin").status, 200);
    }
}

#[test]
fn who_waits_too_long_for_a_disk_is_told() {
    // One thread of the two may wait.
    let set = ["--set", "threads=2", "--set", "io_timeout=1"];
    let Some(mut slow) = Slow::new(&set) else {
        return;
    };
    let mut first = slow.site.connect();
    first.send(get("/far.bin"));
    wait_until(20, "it is in", || slow.place.count("in_flight") == 1);
    let answer = slow.site.get("/far.bin");
    let said = "503 Service Unavailable: too many files are waited for at once\n";
    assert_eq!((answer.status, answer.text().as_str()), (503, said));
    // Nothing of the answer was out, and still it is one that had begun.
    let mut cold = slow.site.connect();
    cold.send(get("/cold.bin"));
    assert!(cold.read_answer(true).is_err());
    assert_eq!(slow.site.get("/hello").status, 200);
    slow.tracer.take();
    assert!(first.answer().body == slow.content);
    assert!(slow.site.get("/cold.bin").body == slow.content);
    assert_eq!(slow.place.count("in_flight"), 0);
}
