//! The private stream into tiny_http: it needs no directory, leaves no file, and lets nobody else in.

use crate::support::{Place, get, has, is_alive, signal, wait_until, worker};
use std::fs;
use std::process::{Child, Command, Stdio};

/// Connects to every name in the abstract namespace that the kernel shows, all the while; says so when it has begun.
const STRANGER: &str = r#"
import socket
print("here", flush=True)
while True:
    for line in open("/proc/net/unix", "rb"):
        name = line.rstrip(b"\n").rpartition(b" ")[2]
        if name.startswith(b"@"):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            try:
                one.connect(b"\0" + name[1:])
                one.send(b"GET /abort HTTP/1.1\r\nPlace: 0\r\n\r\n")
            except OSError:
                pass
            one.close()
"#;

/// One that runs as long as this lives.
struct Stranger(Child);

impl Stranger {
    fn new() -> Stranger {
        let mut command = Command::new("python3");
        command.args(["-c", STRANGER]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let mut word = [0; 5];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut word).expect("it begins");
        Stranger(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pid_file_with_a_long_path_elsewhere_is_no_hindrance() {
    let (place, other) = (Place::demo(), Place::new());
    let directory = other.path(&"d".repeat(90));
    fs::create_dir(&directory).unwrap();
    let pid_file = format!("app.pid_file={}", directory.join("app.pid").display());
    let site = place.start(&["--set", &pid_file]);
    assert_eq!(site.get("/hello").text(), "Hello, World!");
    place.app(&["stop", "--set", &pid_file]).ok();
}

#[test]
fn a_worker_starts_and_serves_without_the_run_directory() {
    let place = Place::demo();
    let site = place.start(&[]);
    let old = site.worker();
    let mut names: Vec<_> = fs::read_dir(place.path("run")).unwrap().flatten().collect();
    names.retain(|entry| entry.file_name().to_string_lossy().starts_with("http"));
    assert!(names.is_empty(), "{names:?}");
    fs::remove_dir_all(place.path("run")).unwrap();
    signal(old, "KILL");
    wait_until(10, "another worker", || {
        !is_alive(old) && worker(site.pid) != old
    });
    // The client waits in the queue until it is there.
    assert_eq!(site.get("/hello").text(), "Hello, World!");
}

#[test]
fn a_stranger_who_connects_to_every_name_gets_nowhere() {
    if !has("python3") {
        return;
    }
    let _stranger = Stranger::new();
    let place = Place::demo();
    let site = place.start(&["--set", "workers=4"]);
    for _ in 0..5 {
        place.app(&["restart"]).ok();
        for _ in 0..20 {
            let mut wire = site.connect();
            wire.send(get("/hello"));
            assert_eq!(wire.answer().text(), "Hello, World!");
        }
    }
    assert_eq!(place.fact("worker_deaths"), "0");
    let log = place.log();
    for word in ["broke", "panic", " error "] {
        assert!(!log.contains(word), "{word}");
    }
}
