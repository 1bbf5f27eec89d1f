//! The image of `make image` on a real Docker Engine, locked in as tightly as that can.

use crate::load::Load;
use crate::support::{Done, Wire, is_alive, run, wait_until};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What hade promises to live with.
const LOCKED_IN: [&str; 9] = [
    "--read-only",
    "--tmpfs",
    "/run",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--memory",
    "16m",
];

/// Whether an engine answers; in CI one has to.
fn has_engine() -> bool {
    let mut info = docker(&["info"]);
    let status = info.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "no Docker Engine in CI"
    );
    if !found {
        crate::support::skip("needs Docker Engine");
    }
    found
}

/// The client, which waits for its engine for ever if it is let.
fn docker(args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "docker"]).args(args);
    command.stdin(Stdio::null());
    command
}

/// An image of this test's own; what was built for it goes with it.
struct Image(String);

impl Image {
    fn make() -> Image {
        let image = Image(format!("hade-it-{}", std::process::id()));
        let mut make = Command::new("make");
        make.arg("image")
            .arg(format!("IMAGE={image}", image = image.0));
        // Layers that another test has made would go when that one ends.
        make.arg("BUILDER=docker build --no-cache");
        make.current_dir(env!("CARGO_MANIFEST_DIR"));
        // What a make above, or cargo, has told its children is not for this one.
        for name in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CARGO_MAKEFLAGS"] {
            make.env_remove(name);
        }
        let made = run(make.stdin(Stdio::null()));
        assert_eq!(made.code, Some(0), "{}{}", made.out, made.err);
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let mut remove = docker(&["image", "rm", "--force", &self.0]);
        let _ = remove.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

struct Container(String);

impl Container {
    fn run(image: &Image, name: &str, args: &[&str]) -> Container {
        let container = Container(format!("{}-{name}", image.0));
        let mut words = vec!["run", "--detach", "--name", &container.0];
        words.extend(LOCKED_IN);
        words.extend(["--publish", "127.0.0.1::8888", "--health-interval", "1s"]);
        words.push(&image.0);
        words.extend(args);
        let done = run(&mut docker(&words));
        assert_eq!(done.code, Some(0), "{}", done.err);
        container
    }

    /// Runs a program in it.
    fn exec(&self, words: &[&str]) -> Done {
        run(docker(&["exec", &self.0]).args(words))
    }

    fn logs(&self) -> Done {
        run(&mut docker(&["logs", &self.0]))
    }

    #[track_caller]
    fn inspect(&self, format: &str) -> String {
        let text = run(&mut docker(&["inspect", "--format", format, &self.0])).ok();
        text.trim_end().to_owned()
    }

    /// The number of its PID 1 outside.
    #[track_caller]
    fn master(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().expect("a pid")
    }

    /// Where its port 8888 is on this machine.
    #[track_caller]
    fn address(&self) -> String {
        let text = run(&mut docker(&["port", &self.0, "8888/tcp"])).ok();
        text.trim_end().to_owned()
    }

    #[track_caller]
    fn becomes_healthy(&self) {
        wait_until(30, "the container is healthy", || {
            let (running, health) = (
                self.inspect("{{.State.Running}}"),
                self.inspect("{{.State.Health.Status}}"),
            );
            assert_eq!(running, "true", "{:?}", self.logs());
            health == "healthy"
        });
    }

    /// Has it stopped, as an operator does; to be waited for.
    fn stop(&self) -> Child {
        let mut stop = docker(&["stop", &self.0]);
        stop.stdout(Stdio::null()).spawn().expect("docker runs")
    }

    /// That it ended by itself, in good order and within its memory.
    #[track_caller]
    fn has_ended_well(&self) {
        let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";
        assert_eq!(self.inspect(state), "exited 0 false");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- logs of {}: {:#?}", self.0, self.logs());
        }
        let mut remove = docker(&["rm", "--force", "--volumes", &self.0]);
        let _ = remove.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_container_becomes_healthy_restarts_under_load_and_stops_in_good_order() {
    if !has_engine() {
        return;
    }
    let image = Image::make();
    let container = Container::run(&image, "life", &[]);
    container.becomes_healthy();
    let address = container.address();

    // PID 1, and nobody's root.
    let state = container.exec(&["/hade", "app", "state", "--json"]).ok();
    let beginning = r#"{"running":true,"pid":1,"address":"http://localhost:8888","daemon":false,"#;
    assert!(state.starts_with(beginning), "{state}");
    let health = container.exec(&["/hade", "app", "state", "--probe"]).ok();
    assert_eq!(health, "hade: healthy\n");
    let master = container.master();
    let status = std::fs::read_to_string(format!("/proc/{master}/status")).unwrap();
    for line in [
        "Uid:\t65532\t",
        "CapEff:\t0000000000000000\n",
        "NoNewPrivs:\t1\n",
    ] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }

    // Restarts, with clients that never stop asking.
    let load = Load::on(&address, "/demo/demo");
    for _ in 0..3 {
        let said = container.exec(&["/hade", "app", "restart"]).ok();
        let beginning = "hade: restarted, pid 1, on http://localhost:8888, worker ";
        assert!(said.starts_with(beginning), "{said}");
        assert!(said.ends_with(" 0 cut\n"), "{said}");
        load.goes_on();
    }
    let (answers, longest) = load.end();
    println!(
        "3 restarts in a container: {answers} requests, none failed, longest wait {longest:?}"
    );
    assert_eq!(container.master(), master);
    let state = container.exec(&["/hade", "app", "state", "--json"]).ok();
    assert!(state.contains(r#","generation":4,"#), "{state}");
    assert!(state.contains(r#","worker_deaths":0,"#), "{state}");

    // A stop, with a request under way that only this test can complete.
    let mut wire = Wire::to(&address);
    wire.send(
        "GET /demo/demo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.answer().status, 100);
    let mut stop = container.stop();
    wait_until(10, "it is told to stop", || {
        container.logs().out.contains("signal TERM: leaving")
    });
    assert!(
        stop.try_wait().unwrap().is_none(),
        "it waits for the request"
    );
    let begun = Instant::now();
    wire.send("x");
    let answer = wire.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Connection"), Some("close"));
    assert_eq!(answer.text(), "\"this is demo for all\"\n");
    assert!(wire.is_closed());
    drop(wire);
    // The engine has some clearing up to do, and its ten seconds are not over. Nor are the five that a drain may take.
    wait_until(3, "it leaves when the request is answered", || {
        !is_alive(master)
    });
    println!("it left {:?} after the answer", begun.elapsed());
    assert!(stop.wait().unwrap().success());
    container.has_ended_well();

    // All of this was on the standard output, and nothing else was.
    let logs = container.logs();
    assert_eq!(logs.err, "");
    for words in [
        "started on http://localhost:8888, 1 worker",
        "restarted, pid 1",
    ] {
        assert!(logs.out.contains(words), "no {words:?} in {}", logs.out);
    }
    let last = logs.out.lines().last().unwrap();
    assert!(
        last.ends_with(" info 1 stopped, 1 requests finished, 0 cut"),
        "{last}"
    );

    // What a container must not do is go into the background.
    let container = Container::run(&image, "daemon", &["app", "start", "--daemon"]);
    container.becomes_healthy();
    let warning = "hade: as PID 1 it stays in the foreground, for leaving would end the container; \
                   --daemon is ignored\n";
    assert_eq!(container.logs().err, warning);
    assert!(container.stop().wait().unwrap().success());
    container.has_ended_well();
}
