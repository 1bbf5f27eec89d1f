//! The image of `make image` on a real Docker Engine, locked in as tightly as that can.

use crate::load::Load;
use crate::support::{Done, Place, Wire, get, is_alive, run, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
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
pub fn has_engine() -> bool {
    let mut info = docker(&["info"]);
    let status = info.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    if !found {
        crate::support::skip("needs Docker Engine");
    }
    found
}

/// The client, which waits for its engine for ever if it is let.
pub fn docker(args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "docker"]).args(args);
    command.stdin(Stdio::null());
    command
}

/// An image of this test's own; what was built for it goes with it.
pub struct Image(pub String);

impl Image {
    pub fn make(name: &str) -> Image {
        let image = Image(format!("hade-it-{}-{name}", std::process::id()));
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

impl Image {
    /// One of a site's own, by a Dockerfile of two lines.
    fn with_site(&self, place: &Place) -> Image {
        let image = Image(format!("{}-site", self.0));
        place.write("Dockerfile", format!("FROM {}\nCOPY site/ /www/\n", self.0));
        let directory = place.dir.to_str().unwrap();
        let mut build = docker(&["build", "--no-cache", "-t", &image.0, directory]);
        let built = run(&mut build);
        assert_eq!(built.code, Some(0), "{}{}", built.out, built.err);
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
    /// With the pages of the program, which a site takes the place of.
    fn run(image: &Image, name: &str, args: &[&str]) -> Container {
        let flags = [&LOCKED_IN[..], &["--env", "APP_ROOT="]].concat();
        Container::run_with(image, name, &flags, args)
    }

    /// With these flags for the engine.
    fn run_with(image: &Image, name: &str, flags: &[&str], args: &[&str]) -> Container {
        let container = Container(format!("{}-{name}", image.0));
        let mut words = vec!["run", "--detach", "--name", &container.0];
        words.extend(flags);
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
        let mut stop = docker(&["stop", "--time", "60", &self.0]);
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
    let image = Image::make("life");
    let container = Container::run(&image, "life", &[]);
    container.becomes_healthy();
    let address = container.address();

    // PID 1, and nobody's root.
    let state = container.exec(&["/hade", "app", "state", "--json"]).ok();
    let beginning = r#"{"running":true,"pid":1,"address":"http://localhost:8888","address_is_there":true,"daemon":false,"#;
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
        let beginning =
            "hade: restarted, pid 1, on every interface, http://localhost:8888 here, worker ";
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
    // The engine takes connections for it all the same, and ends them.
    wait_until(10, "its worker takes nobody new", || {
        let mut wire = TcpStream::connect(&address).unwrap();
        let asked = wire.write_all(get("/demo/demo").as_bytes());
        let answered = asked.and_then(|()| wire.read(&mut [0; 100]));
        answered.map_or(true, |count| count == 0)
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
    // The engine has some clearing up to do, and its patience is not over. Nor are the five seconds that a drain may take.
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
        "started on every interface, http://localhost:8888 here, 1 worker",
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

    // With a terminal, which stays when HUP is sent; and then the stop that systemd's and Podman's containers know.
    let before = ["--tty", "--stop-signal", "RTMIN+3"];
    let before = [&LOCKED_IN[..], &before].concat();
    let container = Container::run_with(&image, "terminal", &before, &[]);
    container.becomes_healthy();
    let master = container.master();
    for generation in 2..=3 {
        run(&mut docker(&["kill", "--signal", "HUP", &container.0])).ok();
        wait_until(10, "it has restarted", || {
            let state = container.exec(&["/hade", "app", "state", "--json"]).ok();
            state.contains(&format!(
                r#","generation":{generation},"restarting":false,"#
            ))
        });
        assert_eq!(container.master(), master);
    }
    assert!(container.stop().wait().unwrap().success());
    container.has_ended_well();
    let logs = container.logs().out;
    assert!(logs.contains("signal RTMIN+3: leaving"), "{logs}");
    assert!(!logs.contains("was gone"), "{logs}");
}

#[test]
fn a_site_is_two_lines_and_needs_no_place_to_write_to() {
    if !has_engine() {
        return;
    }
    let image = Image::make("site");
    let container = Container::run_with(&image, "page", &LOCKED_IN, &[]);
    container.becomes_healthy();
    let page = Wire::to(container.address()).get("/");
    assert!(page.status == 200 && page.text().contains("<h1>It works</h1>"));
    drop(container);

    let place = Place::new();
    place.write("site/index.html", "<h1>mine</h1>\n");
    place.write("site/a/b.txt", "b\n");
    let site = image.with_site(&place);
    // Read-only, and without a tmpfs: commands have nowhere to meet it.
    let flags = ["--read-only", "--cap-drop", "ALL"];
    let container = Container::run_with(&site, "site", &flags, &[]);
    container.becomes_healthy();
    let mut wire = Wire::to(container.address());
    assert_eq!(wire.get("/").text(), "<h1>mine</h1>\n");
    assert_eq!(wire.get("/a/b.txt").text(), "b\n");
    assert_eq!(wire.get("/none").status, 404);
    let warning = "run/ is read-only: it serves all the same, but commands have nowhere to meet it; for them mount a tmpfs there";
    assert_eq!(container.logs().out.matches(warning).count(), 1);
    for command in ["state", "stop", "restart"] {
        let done = container.exec(&["/hade", "app", command]);
        let said = "hade: cannot tell who runs: run/ is read-only, and there is nowhere to meet; mount a tmpfs there\n";
        assert_eq!((done.code, done.err.as_str()), (Some(4), said), "{command}");
    }
    let json = container.exec(&["/hade", "app", "state", "--json"]);
    assert!(json.code == Some(4) && json.out.starts_with("{\"running\":null,"));
    let probe = container.exec(&["/hade", "app", "state", "--probe"]).ok();
    assert_eq!(probe, "hade: healthy\n");
    // The engine can do it all: a restart in place, and a stop.
    let master = container.master();
    run(&mut docker(&["kill", "--signal", "HUP", &container.0])).ok();
    wait_until(20, "it has restarted", || {
        container.logs().out.contains("restarted, pid 1")
    });
    assert_eq!(container.master(), master);
    assert_eq!(Wire::to(container.address()).get("/").status, 200);
    assert!(container.stop().wait().unwrap().success());
    container.has_ended_well();
    let logs = container.logs();
    assert!(!logs.out.contains(" error "), "{}", logs.out);
    assert_eq!(logs.out.matches(warning).count(), 1);
}
