//! Readiness for others: systemd's datagrams and passed sockets, the newline that s6 waits for, and a master that
//! sleeps when nothing happens.

use crate::support::{
    Foreground, Hammer, Meanwhile, PATIENCE, Place, Site, fact, freeze, has, run, signal,
    wait_until, was_soon, worker, workers, working_in,
};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// systemd's side of `$NOTIFY_SOCKET`.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn at(socket: std::io::Result<UnixDatagram>) -> Supervisor {
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Supervisor(socket)
    }

    /// The next message, as its lines.
    #[track_caller]
    fn hear(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let count = loop {
            match self.0.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                count => break count.expect("a message in time"),
            }
        };
        let text = std::str::from_utf8(&buffer[..count]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Nothing comes for a while.
    #[track_caller]
    fn hears_nothing(&self, within: Duration) {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 4096];
        let heard = self.0.recv(&mut buffer);
        assert!(heard.is_err(), "{:?}", String::from_utf8_lossy(&buffer));
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

/// The value of a field; a message has each of them once.
#[track_caller]
fn field(message: &[String], name: &str) -> String {
    let mut found = message
        .iter()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = found
        .next()
        .unwrap_or_else(|| panic!("{name}: {message:?}"));
    assert_eq!(found.next(), None, "{name}: {message:?}");
    value.to_owned()
}

/// CLOCK_MONOTONIC, as `clock_gettime(2)` has it; `/proc/uptime` counts the time asleep too, and is 10 ms coarse.
fn monotonic_micros() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    (seconds * 1e6) as u64
}

#[track_caller]
fn is_reloading_since(message: &[String], since: u64) {
    assert_eq!(field(message, "RELOADING"), "1");
    let at: u64 = field(message, "MONOTONIC_USEC").parse().unwrap();
    assert!(
        at + 20_000 >= since && at <= monotonic_micros() + 20_000,
        "{since} {message:?}"
    );
}

fn follow(place: &Place, supervisor: &Supervisor, name: &str) {
    let mut command = place.command(&["app", "start", "--address", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", name);
    let mut running = Foreground::of(command);
    let site = running.site.clone();
    let ready = supervisor.hear();
    assert_eq!(field(&ready, "READY"), "1");
    assert_eq!(field(&ready, "MAINPID"), site.pid.to_string());
    assert!(field(&ready, "STATUS").contains(&site.url), "{ready:?}");

    for by_signal in [false, true] {
        let since = monotonic_micros();
        if by_signal {
            running.signal("HUP");
        } else {
            place.app(&["restart"]).ok();
        }
        is_reloading_since(&supervisor.hear(), since);
        let ready = supervisor.hear();
        assert_eq!(field(&ready, "READY"), "1");
        assert_eq!(field(&ready, "MAINPID"), site.pid.to_string());
    }

    let mut held = place.hold(&site, "a");
    running.signal("TERM");
    let stopping = supervisor.hear();
    assert_eq!(field(&stopping, "STOPPING"), "1");
    assert!(
        running.child.try_wait().unwrap().is_none(),
        "it says so before it leaves"
    );
    place.release("a");
    assert_eq!(held.answer().text(), "held\n");
    assert_eq!(running.end(), Some(0));
    supervisor.hears_nothing(Duration::from_millis(50));
}

#[test]
fn systemd_is_told_at_a_path() {
    let place = Place::demo();
    let path = place.path("notify");
    let supervisor = Supervisor::at(UnixDatagram::bind(&path));
    follow(&place, &supervisor, path.to_str().unwrap());
}

#[test]
fn systemd_is_told_at_an_abstract_name() {
    let place = Place::demo();
    let name = format!("hade{}", place.dir.display());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let supervisor = Supervisor::at(UnixDatagram::bind_addr(&address));
    follow(&place, &supervisor, &format!("@{name}"));
}

#[test]
fn a_reload_that_fails_is_a_reload_that_ends() {
    let place = Place::demo();
    let path = place.path("notify");
    let supervisor = Supervisor::at(UnixDatagram::bind(&path));
    let mut command = place.command(&["app", "start", "--address", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path);
    let running = Foreground::of(command);
    assert_eq!(field(&supervisor.hear(), "READY"), "1");
    // `systemctl reload` of a Type=notify-reload service waits for both, in this order (systemd.service(5)): where the
    // check fails, and where the new worker does.
    for (file, content) in [("boot", "fail"), ("etc/app.conf", "app.nonsense = 1\n")] {
        place.write(file, content);
        let since = monotonic_micros();
        running.signal("HUP");
        is_reloading_since(&supervisor.hear(), since);
        let ready = supervisor.hear();
        assert_eq!(field(&ready, "READY"), "1");
        assert!(
            field(&ready, "STATUS").contains("restart given up: "),
            "{ready:?}"
        );
        place.sh(r#"rm "$1""#, &[file]);
    }
    supervisor.hears_nothing(Duration::from_millis(100));
}

#[test]
fn a_start_that_fails_is_not_ready() {
    let place = Place::demo();
    let path = place.path("notify");
    let supervisor = Supervisor::at(UnixDatagram::bind(&path));
    place.write("boot", "fail");
    let mut command = place.command(&["app", "start", "--address", "127.0.0.1:0"]);
    let done = run(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(done.code, Some(1), "{done:?}");
    supervisor.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(count) = supervisor.0.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..count]);
        assert!(!text.contains("READY=1"), "{text}");
    }
}

/// Throws away what has come.
fn drained(supervisor: &Supervisor) {
    supervisor.0.set_nonblocking(true).unwrap();
    while supervisor.0.recv(&mut [0; 4096]).is_ok() {}
    supervisor.0.set_nonblocking(false).unwrap();
}

#[test]
fn signs_of_life_when_asked_and_only_then() {
    let place = Place::demo();
    let path = place.path("notify");
    let supervisor = Supervisor::at(UnixDatagram::bind(&path));
    let start = |environment: &[(&str, &str)]| {
        let mut command = place.command(&["app", "start", "--address", "127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", &path);
        Foreground::of({
            command.envs(environment.iter().copied());
            command
        })
    };
    let mut running = start(&[("WATCHDOG_USEC", "400000")]);
    let pid = running.site.pid;
    // One at every half of the time, also across a restart.
    let sign = || while supervisor.hear() != ["WATCHDOG=1"] {};
    for _ in 0..2 {
        sign();
        let begun = Instant::now();
        for _ in 0..6 {
            let last = Instant::now();
            sign();
            was_soon(last, 350);
        }
        // One that comes late is followed by another sooner, but more than six in this time are too many.
        assert!(begun.elapsed() > Duration::from_millis(900));
        place.app(&["restart"]).ok();
        drained(&supervisor);
    }
    // A master that stands still gives none.
    freeze(pid);
    drained(&supervisor);
    supervisor.hears_nothing(Duration::from_millis(300));
    signal(pid, "CONT");
    running.signal("TERM");
    assert_eq!(running.end(), Some(0));
    drained(&supervisor);

    // Not asked, or somebody else asked.
    for environment in [
        &[][..],
        &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")],
        &[("WATCHDOG_USEC", "0")],
        &[("WATCHDOG_USEC", "soon")],
    ] {
        let mut running = start(environment);
        assert_eq!(field(&supervisor.hear(), "READY"), "1");
        supervisor.hears_nothing(Duration::from_millis(150));
        running.signal("TERM");
        assert_eq!(running.end(), Some(0));
        drained(&supervisor);
    }
}

#[test]
fn a_supervisor_that_does_not_listen_is_its_own_affair() {
    let place = Place::demo();
    let full = place.path("full");
    let _supervisor = Supervisor::at(UnixDatagram::bind(&full));
    let long = format!("/{}", "x".repeat(200));
    for name in [
        "/no/such/socket",
        "@nobody-here",
        "relative",
        "",
        &long,
        full.to_str().unwrap(),
    ] {
        let mut command = place.command(&["app", "start", "-d", "--address", "127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", name);
        let site = Site::of(&run(&mut command).ok());
        for _ in 0..3 {
            place.app(&["restart"]).ok();
        }
        assert_eq!(site.get("/hello").status, 200);
        place.app(&["stop"]).ok();
    }
}

/// What comes through a FIFO until everybody has closed it, and when it did.
fn watch(place: &Place, name: &str) -> mpsc::Receiver<(Vec<u8>, Instant)> {
    place.sh(r#"mkfifo "$1""#, &[name]);
    let path = place.path(name);
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || {
        let mut content = Vec::new();
        File::open(path).unwrap().read_to_end(&mut content).unwrap();
        let _ = to.send((content, Instant::now()));
    });
    from
}

#[test]
fn a_newline_when_it_is_ready() {
    for daemon in [false, true] {
        let place = Place::demo();
        place.write("boot", "wait");
        let said = watch(&place, "ready");
        let mut args = vec![
            "app",
            "start",
            "--address",
            "127.0.0.1:0",
            "--ready-fd",
            "7",
        ];
        args.extend(daemon.then_some("--daemon"));
        let command = place.wrapped(&["bash", "-c", r#"exec "$0" "$@" 7>ready"#], &args);
        let starting = Meanwhile::new(command);
        wait_until(5, "a worker starts", || {
            working_in(&place.dir).iter().any(|pid| {
                workers(*pid)
                    .iter()
                    .any(|child| !workers(*pid).is_empty() && comm(*child).ends_with("worker"))
            })
        });
        assert!(said.try_recv().is_err(), "not before it is ready");
        let let_go = Instant::now();
        place.write("boot", "");
        let (content, at) = said
            .recv_timeout(PATIENCE)
            .expect("the descriptor is closed by all");
        assert_eq!(content, b"\n", "daemon: {daemon}");
        assert!(at >= let_go);
        wait_until(5, "it serves", || {
            place.app(&["state", "--probe"]).code == Some(0)
        });
        // A restart says nothing more there; nobody has it any more.
        place.app(&["restart"]).ok();
        place.app(&["stop"]).ok();
        assert_eq!(starting.end(5).code, Some(0));
    }
}

fn comm(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[test]
fn no_newline_when_it_fails_and_no_descriptor_that_is_not_there() {
    let place = Place::demo();
    place.write("boot", "fail");
    let said = watch(&place, "ready");
    let args = [
        "app",
        "start",
        "-d",
        "--address",
        "127.0.0.1:0",
        "--ready-fd",
        "7",
    ];
    let failed = run(&mut place.wrapped(&["bash", "-c", r#"exec "$0" "$@" 7>ready"#], &args));
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let (content, _) = said.recv_timeout(PATIENCE).unwrap();
    assert_eq!(content, b"");
    let said = run(&mut place.command(&args)).failed(2);
    assert!(
        said.starts_with("demo: --ready-fd 7: this descriptor is not open"),
        "{said}"
    );
}

/// Executes what follows with a socket at descriptor 3, as `systemd.socket(5)` has it.
const PASS: &str = "import os, socket, sys\n\
    s = socket.socket()\n\
    s.bind(('127.0.0.1', 0))\n\
    s.listen(5)\n\
    if s.fileno() != 3: os.dup2(s.fileno(), 3)\n\
    os.set_inheritable(3, True)\n\
    os.environ['LISTEN_FDS'] = '1'\n\
    os.environ['LISTEN_PID'] = str(os.getpid())\n\
    exec(sys.argv[1])\n\
    os.execv(sys.argv[2], sys.argv[2:])";

/// The demo, behind that, with one thing done differently.
fn passed(place: &Place, different: &str, args: &[&str]) -> Command {
    place.wrapped(&["python3", "-c", PASS, different], args)
}

#[test]
fn a_socket_that_is_passed_in() {
    if !has("python3") {
        return;
    }
    for daemon in [false, true] {
        let place = Place::demo();
        let mut args = vec!["app", "start"];
        args.extend(daemon.then_some("--daemon"));
        let command = passed(&place, "", &args);
        let mut foreground = None;
        let site = if daemon {
            let mut command = command;
            Site::of(&run(&mut command).ok())
        } else {
            let running = Foreground::of(command);
            let site = running.site.clone();
            foreground = Some(running);
            site
        };
        assert!(site.url.starts_with("http://127.0.0.1:"), "{site:?}");
        let hammer = Hammer::easy(site.address());
        for _ in 0..3 {
            let old = worker(site.pid);
            place.app(&["restart"]).ok();
            assert_ne!(worker(site.pid), old);
        }
        signal(worker(site.pid), "KILL");
        wait_until(5, "another worker", || place.count("worker_deaths") == 1);
        // The kill alone may cost the clients that it met an answer.
        let tally = hammer.end_with_failures();
        assert!(tally.answered > 0 && tally.failed.len() <= 2, "{tally:?}");
        wait_until(5, "it serves", || {
            place.app(&["state", "--probe"]).code == Some(0)
        });
        // With its word and without it.
        for socket in ["run/app.sock", "run/away.sock"] {
            let why = place.app(&["restart", "--cold"]).failed(1);
            let words = if daemon {
                "its socket was passed to it"
            } else {
                "in the foreground"
            };
            assert!(why.contains(words), "{why}");
            if socket == "run/app.sock" {
                fs::rename(place.path(socket), place.path("run/away.sock")).unwrap();
            } else {
                fs::rename(place.path(socket), place.path("run/app.sock")).unwrap();
            }
        }
        assert_eq!(site.get("/hello").status, 200);
        let environment = fs::read(format!("/proc/{}/environ", worker(site.pid))).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(!environment.contains("LISTEN_"), "{environment}");
        place.app(&["stop"]).ok();
        if let Some(mut running) = foreground {
            assert_eq!(running.end(), Some(0));
        }
    }
}

#[test]
fn wrong_sockets_are_refused() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    for (different, code, expected) in [
        (
            "os.environ['LISTEN_FDS'] = '2'",
            2,
            "demo: LISTEN_FDS \"2\": expected 1, for one socket is served",
        ),
        (
            "os.environ['LISTEN_FDS'] = 'one'",
            2,
            "demo: LISTEN_FDS \"one\": expected 1, for one socket is served",
        ),
        (
            "os.close(3)",
            2,
            "demo: LISTEN_FDS \"1\": descriptor 3 is not open",
        ),
        (
            "os.dup2(os.open('/dev/null', os.O_RDONLY), 3)",
            1,
            "demo: the socket that was passed in: it is not a stream socket that listens",
        ),
        (
            "t = socket.socket(); t.bind(('127.0.0.1', 0)); os.dup2(t.fileno(), 3)",
            1,
            "demo: the socket that was passed in: it is not a stream socket that listens",
        ),
        (
            "t = socket.socket(type=socket.SOCK_DGRAM); t.bind(('127.0.0.1', 0)); os.dup2(t.fileno(), 3)",
            1,
            "demo: the socket that was passed in: it is not a stream socket that listens",
        ),
    ] {
        for args in [&["app", "start"][..], &["app", "start", "--daemon"]] {
            let said = run(&mut passed(&place, different, args)).failed(code);
            assert_eq!(said.lines().next(), Some(expected), "{different}");
        }
    }
    assert_eq!(working_in(&place.dir), []);

    // What is meant for another process is none of ours.
    let different = "os.environ['LISTEN_PID'] = '1'";
    let args = ["app", "start", "-d", "--address", "127.0.0.1:0"];
    let said = run(&mut passed(&place, different, &args)).ok();
    let port = |url: &str| url.rsplit(':').next().unwrap().to_owned();
    let site = Site::of(&said);
    assert_eq!(site.get("/hello").status, 200);
    assert_ne!(port(&site.url), "0");
}

#[test]
fn one_descriptor_is_not_the_socket_and_the_place_for_the_word() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let args = ["app", "start", "--daemon", "--ready-fd", "3"];
    assert_eq!(
        run(&mut passed(&place, "", &args)).failed(2),
        "demo: --ready-fd 3: this descriptor is the socket that LISTEN_FDS passes\n"
    );
    assert_eq!(working_in(&place.dir), []);
}

#[test]
fn another_address_for_a_socket_that_is_passed_in() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let site = Site::of(&run(&mut passed(&place, "", &["app", "start", "-d"])).ok());
    let done = place.app(&["restart", "--address", "127.0.0.1:0"]);
    // Either it goes there or it says why not; to say "restarted" and stay is neither.
    let now = fact(&place.app(&["state", "--json"]).ok(), "address");
    assert!(done.code == Some(1) || now != site.url, "{done:?}");
}

#[test]
fn systemds_own_socket_activation() {
    // Where it is missing, the test above stands in for it.
    if !std::path::Path::new("/usr/bin/systemd-socket-activate").exists() {
        crate::support::skip("needs systemd-socket-activate");
        return;
    }
    use std::io::Write;
    let place = Place::demo();
    let path = place.path("http.sock");
    let args = ["app", "start", "--set", "log_file=run/app.log"];
    let before = ["systemd-socket-activate", "-l", path.to_str().unwrap()];
    let running = Meanwhile::new(place.wrapped(&before, &args));
    let ask = || {
        // Its file is there a moment before it listens.
        let mut stream = None;
        wait_until(5, "somebody listens", || {
            stream = std::os::unix::net::UnixStream::connect(&path).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream
            .write_all(b"GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("Hello, World!"), "{text}");
    };
    // It is the first connection that starts it.
    ask();
    assert_eq!(place.app(&["state", "--probe"]).ok(), "demo: healthy\n");
    for _ in 0..2 {
        place.app(&["restart"]).ok();
        ask();
    }
    place.app(&["stop"]).ok();
    assert_eq!(running.end(5).code, Some(0));
    assert!(path.exists(), "it is systemd's");
}

#[test]
fn an_idle_master_sleeps() {
    if !has("strace") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    place.app(&["restart"]).ok();
    assert_eq!(site.get("/hello").status, 200);
    let kept = site.connect();
    wait_until(5, "it is open", || place.count("connections") == 1);
    let watched = [("master", site.pid), ("worker", worker(site.pid))].map(|(name, pid)| {
        let (calls, pid) = (format!("{name}.strace"), pid.to_string());
        let mut strace = Command::new("timeout");
        strace
            .args(["3", "strace", "-qq", "-f", "-o", &calls, "-p", &pid])
            .current_dir(&place.dir);
        (name, calls, Meanwhile::new(strace))
    });
    for (name, calls, strace) in watched {
        let done = strace.end(10);
        if done.err.contains("ptrace") || done.err.contains("attach") {
            crate::support::skip(&format!("needs an strace that may attach: {}", done.err));
            continue;
        }
        // What a thread was in when strace came is seen, and goes on; a futex it interrupts returns once more.
        let text = place.read(&calls);
        let made: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("<detached ...>") && !line.ends_with("<unfinished ...>"))
            .filter(|line| !line.contains("restart_syscall") && !line.contains("futex"))
            .collect();
        // The worker may have had a last look at a connection that was closed shortly before.
        let most = if name == "master" { 0 } else { 8 };
        assert!(made.len() <= most, "{name}: {text}");
    }
    drop(kept);
}

/// Executes what follows with a pipe that is full and that nobody reads in the place of standard output, or as the
/// descriptor that a newline goes to; until its own input ends.
const FULL: &str = "import os, subprocess, sys\n\
    read, write = os.pipe()\n\
    os.set_blocking(write, False)\n\
    try:\n\
    \twhile True: os.write(write, b'x' * 4096)\n\
    except BlockingIOError: os.set_blocking(write, True)\n\
    more = ['--ready-fd', str(write)] if sys.argv[1] == 'ready' else []\n\
    out = subprocess.DEVNULL if more else write\n\
    child = subprocess.Popen(sys.argv[2:] + more, stdout=out, pass_fds=(write,), stdin=subprocess.DEVNULL)\n\
    sys.stdin.read()\n\
    sys.exit(child.wait())\n";

#[test]
fn who_does_not_read_that_it_serves_holds_up_nobody() {
    if !has("python3") {
        return;
    }
    for (where_to, daemon) in [("out", false), ("ready", false), ("ready", true)] {
        let place = Place::demo();
        let mut args = vec!["app", "start", "--address", "127.0.0.1:0"];
        args.extend(["--set", "log_file=run/app.log"]);
        args.extend(daemon.then_some("-d"));
        let mut command = place.wrapped(&["python3", "-c", FULL, where_to], &args);
        let mut parent = command.stdin(Stdio::piped()).spawn().unwrap();
        wait_until(20, "it is answered", || {
            place.app(&["state"]).code == Some(0)
        });
        if where_to == "ready" {
            place.wait_for_log(" --ready-fd: cannot write to it: ");
        }
        place.app(&["restart"]).ok();
        place.app(&["stop"]).ok();
        drop(parent.stdin.take());
        assert!(parent.wait().unwrap().success());
    }
}
