//! Where it listens: each source and each form of an address, against real sockets.

use crate::look::{
    WITHOUT_IPV6, alone, boxed, has_namespaces, is_root, listening, mode, nothing_left, own_address,
};
use crate::support::{Place, Site, has, run, signal, wait_until, workers, working_in};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

/// What `app check` finds the address to be.
#[track_caller]
fn checked(place: &Place, flags: &[&str], variable: &str) -> String {
    let args = [&["app", "check"], flags].concat();
    let text = run(place.command(&args).env("ADDRESS", variable)).ok();
    text.strip_prefix("hade: settings are good, address ")
        .unwrap_or_else(|| panic!("{text}"))
        .trim_end()
        .to_owned()
}

#[test]
fn flag_before_variable_before_file_before_default() {
    let place = Place::new();
    assert_eq!(checked(&place, &[], ""), ":8888");
    place.write("etc/app.conf", "app.address = :1001\n");
    assert_eq!(checked(&place, &[], ""), ":1001");
    assert_eq!(checked(&place, &[], ":1002"), ":1002");
    assert_eq!(checked(&place, &["--address", ":1003"], ":1002"), ":1003");
    assert_eq!(checked(&place, &["--address=:1003"], ""), ":1003");
    assert_eq!(
        checked(&place, &["--set", "address=:1004"], ":1002"),
        ":1004"
    );
}

#[test]
fn the_address_of_each_source_is_the_one_that_answers() {
    let (flag, variable, file) = (own_address(), own_address(), own_address());
    let place = Place::new();
    place.write("etc/app.conf", format!("app.address = {file}\n"));
    for (flags, environment, expected) in [
        (&["--address", flag.as_str()][..], variable.as_str(), &flag),
        (&[], &variable, &variable),
        (&[], "", &file),
    ] {
        let args = [&["app", "start", "-d"], flags].concat();
        let text = run(place.command(&args).env("ADDRESS", environment)).ok();
        let site = Site::of(&text);
        assert_eq!(site.url, format!("http://{expected}"));
        assert_eq!(site.get("/").status, 200);
        place.app(&["stop"]).ok();
    }
}

#[test]
fn the_commands_of_the_readme_work_as_written() {
    if !(has_namespaces() && has("curl")) {
        return;
    }
    let place = Place::new();
    let script = r#"
        ip link set lo up
        exec 2>&1
        "$0" app start --daemon=true
        curl -sS localhost:8888/demo/demo
        "$0" app state
        ADDRESS=:8080 "$0" app restart
        curl -sS localhost:8080/demo/demo
        curl -s localhost:8888/demo/demo || echo refused
        "$0" app stop
    "#;
    let text = run(&mut place.wrapped(&alone(script), &[])).ok();
    let shapes = [
        "hade: started, pid N, on every interface, http://localhost:8888 here",
        "  process  hade app",
        "  base     DIR",
        "  config   etc/app.conf (not there: defaults)",
        "  pid file run/app.pid",
        "  log      run/app.log",
        "\"this is demo for all\"",
        "hade: running, pid N, on http://localhost:8888",
        "  uptime       S s, generation N",
        "  requests     N answered, N in flight",
        "  connections  N open, N accepted, N waiting to be",
        "  worker       N serving, up S s; N answered, N in flight, N connections",
        "hade: restarted, pid N, on every interface, http://localhost:8080 here, worker N → N, in S s; N requests in flight at the switch, N finished since, N cut",
        "\"this is demo for all\"",
        "refused",
        "hade: stopped pid N after S s; N requests finished, N cut",
    ];
    let dir = place.dir.display().to_string();
    let found: Vec<String> = text
        .lines()
        .map(|line| {
            let words = line.replace(&dir, "DIR");
            let words = words.split(' ').map(|word| {
                let digits = word.trim_end_matches(',');
                if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    word.replace(digits, "N")
                } else if digits.parse::<f64>().is_ok() {
                    "S".to_owned()
                } else {
                    word.to_owned()
                }
            });
            words.collect::<Vec<String>>().join(" ")
        })
        .collect();
    assert_eq!(found, shapes);
}

#[test]
fn who_is_reached_from_everywhere_is_told_and_nobody_else() {
    for (address, is_everywhere) in [
        (":0", true),
        ("0.0.0.0:0", true),
        ("[::]:0", true),
        ("localhost:0", false),
        ("127.0.0.1:0", false),
    ] {
        let place = Place::new();
        let said = place.app(&["start", "-d", "--address", address]).ok();
        let (first, _) = said.split_once('\n').unwrap();
        let url = Site::of(&said).url;
        let on = match is_everywhere {
            true => format!(", on every interface, {url} here"),
            false => format!(", on {url}"),
        };
        assert!(first.ends_with(&on), "{address}: {said}");
        assert!(
            place.log().contains(on.trim_start_matches(',')),
            "{address}"
        );
        let said = place.app(&["restart"]).ok();
        assert!(
            said.contains(&format!("{on}, worker ")),
            "{address}: {said}"
        );
        // For programs it is one word.
        let state = place.app(&["state", "--json"]).ok();
        assert!(state.contains(&format!("\"address\":\"{url}\"")), "{state}");
    }
}

#[test]
fn a_bare_port_answers_on_ipv4_and_ipv6_from_one_listener() {
    let place = Place::new();
    let site = Site::of(&place.app(&["start", "-d", "--address", ":0"]).ok());
    let port = site.port();
    assert_eq!(site.url, format!("http://localhost:{port}"));
    assert_ne!(port, 0);
    for host in ["127.0.0.1", "[::1]", "127.0.0.2"] {
        let site = Site {
            url: format!("http://{host}:{port}"),
            ..site
        };
        assert_eq!(site.get("/").status, 200, "{host}");
    }
    let everywhere = format!("{:032}:{port:04X}", 0);
    assert_eq!(listening(site.pid), [everywhere.as_str()]);
    assert_eq!(listening(workers(site.pid)[0]), [everywhere.as_str()]);
}

#[test]
fn a_bare_port_is_ipv4_alone_where_ipv6_is_switched_off() {
    if !(has_namespaces() && has("curl")) {
        return;
    }
    let place = Place::new();
    let script = r#"
        echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
        ip link set lo up
        "$0" "$@" > /dev/null
        curl -sS http://127.0.0.1:7001/healthz
        curl -s 'http://[::1]:7001/healthz' || echo none
        "$0" app stop > /dev/null
    "#;
    let args = ["app", "start", "-d", "--address", ":7001"];
    let text = run(&mut place.wrapped(&alone(script), &args)).ok();
    assert_eq!(text, "ok\nnone\n");
    nothing_left(&place);
}

#[test]
fn a_bare_port_is_ipv4_alone_where_the_kernel_has_no_ipv6() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    let args = ["app", "start", "-d", "--address", ":0"];
    let site = Site::of(&run(&mut place.wrapped(&WITHOUT_IPV6, &args)).ok());
    let port = site.port();
    assert_eq!(listening(site.pid), [format!("00000000:{port:04X}")]);
    let four = Site {
        url: format!("http://127.0.0.1:{port}"),
        ..site
    };
    assert_eq!(four.get("/").status, 200);
    place.app(&["stop"]).ok();
}

#[test]
fn localhost_is_the_loopback_interface_alone() {
    let place = Place::new();
    let text = place.app(&["start", "-d", "--address", "localhost:0"]).ok();
    let site = Site::of(&text);
    let port = site.port();
    assert_eq!(site.url, format!("http://localhost:{port}"));
    assert_eq!(listening(site.pid), [format!("0100007F:{port:04X}")]);
    let by_number = Site {
        url: format!("http://127.0.0.1:{port}"),
        ..site.clone()
    };
    assert_eq!(by_number.get("/").status, 200);
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn localhost_needs_no_resolver() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    let script = r#"
        mount -t tmpfs none /etc
        ip link set lo up
        "$0" "$@"
        "$0" app stop
    "#;
    let mut words = boxed(script);
    // A network of its own as well.
    words[1] = "-rnmpf";
    let args = ["app", "start", "-d", "--address", "localhost:7001"];
    let text = run(&mut place.wrapped(&words, &args)).ok();
    assert!(text.contains(" on http://localhost:7001\n"), "{text}");
}

#[test]
fn a_number_is_that_interface_alone() {
    for (address, hex) in [
        ("127.0.0.1:0", "0100007F"),
        ("127.0.0.2:0", "0200007F"),
        ("0.0.0.0:0", "00000000"),
        ("[::1]:0", "00000000000000000000000001000000"),
        ("[::]:0", "00000000000000000000000000000000"),
    ] {
        let place = Place::new();
        let text = place.app(&["start", "-d", "--address", address]).ok();
        let site = Site::of(&text);
        let port = site.port();
        let host = address.trim_end_matches(":0");
        assert_eq!(site.url, format!("http://{host}:{port}"));
        assert_eq!(listening(site.pid), [format!("{hex}:{port:04X}")]);
        assert_eq!(site.get("/").status, 200, "{address}");
    }
}

#[test]
fn the_own_address_of_an_interface_can_be_chosen() {
    if !(has_namespaces() && has("curl")) {
        return;
    }
    let place = Place::new();
    let script = r#"
        ip link set lo up
        ip address add 10.11.22.33/32 dev lo
        "$0" "$@"
        curl -sS http://10.11.22.33:7001/healthz
        curl -s http://127.0.0.1:7001/healthz || echo none
        "$0" app stop > /dev/null
    "#;
    let args = ["app", "start", "-d", "--address", "10.11.22.33:7001"];
    let text = run(&mut place.wrapped(&alone(script), &args)).ok();
    assert!(text.contains(", on http://10.11.22.33:7001\n"), "{text}");
    assert!(text.ends_with("\nok\nnone\n"), "{text}");
}

#[test]
fn no_port_can_be_chosen_on_another_machine() {
    let place = Place::new();
    assert_eq!(
        place
            .app(&["start", "-d", "--address", "192.0.2.1:0"])
            .failed(1),
        "hade: cannot listen on 192.0.2.1:0: Cannot assign requested address (os error 99); \
         no interface of this machine has that address\n"
    );
    nothing_left(&place);
}

#[test]
fn a_name_that_nobody_can_look_up_is_refused_with_advice() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    let args = ["app", "start", "-d", "--address", "host.invalid:7001"];
    let err = run(&mut place.wrapped(&alone("exec \"$0\" \"$@\""), &args)).failed(1);
    assert!(
        err.starts_with("hade: cannot listen on host.invalid:7001: ")
            && err.ends_with("; where there is no resolver, give the number instead of the name\n")
            && err.lines().count() == 1,
        "{err}"
    );
    nothing_left(&place);
}

#[test]
fn a_low_port_is_refused_to_ordinary_users_with_the_reason() {
    if !(is_root() && has_namespaces() && has("setpriv")) {
        return;
    }
    let place = Place::new();
    // In its own namespaces it is root of nothing outside; without capabilities it is nobody there too.
    let script = "exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \"$0\" \"$@\"";
    let args = ["app", "start", "-d", "--address", "127.0.0.1:80"];
    assert_eq!(
        run(&mut place.wrapped(&alone(script), &args)).failed(1),
        "hade: cannot listen on 127.0.0.1:80: Permission denied (os error 13); \
         ports below 1024 need root or CAP_NET_BIND_SERVICE\n"
    );
    nothing_left(&place);
}

fn ask(path: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(path).expect("a connection");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

const UNIX: [&str; 4] = ["start", "-d", "--address", "unix:run/http.sock"];

#[test]
fn a_unix_socket_is_served_for_owner_and_group_and_removed_at_the_end() {
    let place = Place::new();
    let path = place.path("run/http.sock");
    let script = "umask 077; exec \"$0\" \"$@\"";
    let args = [&["app"], &UNIX[..]].concat();
    let text = run(&mut place.wrapped(&["sh", "-c", script], &args)).ok();
    assert_eq!(Site::of(&text).url, "unix:run/http.sock");
    assert_eq!(mode(&path), 0o660);
    assert!(ask(&path).starts_with("HTTP/1.1 200 OK\r\n"));
    if has("curl") {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--unix-socket"]).arg(&path);
        assert_eq!(run(curl.arg("http://x/healthz")).ok(), "ok\n");
    }
    place.app(&["stop"]).ok();
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_is_read_from_the_base_directory() {
    let place = Place::new();
    fs::create_dir(place.path("site")).unwrap();
    let base = ["--base-dir", "site"];
    place.app(&[&UNIX[..], &base].concat()).ok();
    assert!(ask(&place.path("site/run/http.sock")).starts_with("HTTP/1.1 200 OK\r\n"));
    place.app(&[&["stop"], &base[..]].concat()).ok();
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let place = Place::new();
    let path = place.path("run/http.sock");
    place.write("run/x", "");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    place.app(&UNIX).ok();
    assert!(ask(&path).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn the_unix_socket_of_a_master_that_was_killed_is_replaced() {
    let place = Place::new();
    let site = Site::of(&place.app(&UNIX).ok());
    signal(site.pid, "KILL");
    wait_until(5, "the worker leaves", || working_in(&place.dir).is_empty());
    place.app(&UNIX).ok();
    assert!(ask(&place.path("run/http.sock")).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_unix_socket_that_somebody_serves_is_left_alone() {
    let place = Place::new();
    let path = place.path("run/http.sock");
    place.write("run/x", "");
    let _foreign = UnixListener::bind(&path).unwrap();
    assert_eq!(
        place.app(&UNIX).failed(1),
        format!(
            "hade: cannot listen on unix:run/http.sock: Address already in use (os error 98): pid {} of uid {} listens there; choose another with --address\n",
            std::process::id(),
            std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap())
        )
    );
    UnixStream::connect(&path).expect("the other one still serves");
}

#[test]
fn a_unix_socket_whose_server_is_stuck_is_refused_too() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    place.write("run/x", "");
    // Nobody accepts, and there is no room for another connection: connecting would wait for ever.
    let script = "import socket, sys\n\
        a, b = [socket.socket(socket.AF_UNIX) for _ in 'ab']\n\
        a.bind('run/http.sock')\na.listen(0)\nb.connect('run/http.sock')\nprint(flush=True)\nsys.stdin.read()";
    let mut stuck = std::process::Command::new("python3")
        .args(["-c", script])
        .current_dir(&place.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0];
    stuck
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    let args = [&["app"], &UNIX[..]].concat();
    let mut start = place.command(&args);
    start.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut start = start.spawn().unwrap();
    let mut ended = None;
    wait_until(5, "the start gives up", || {
        ended = start.try_wait().unwrap();
        ended.is_some()
    });
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    let mut said = String::new();
    let mut err = start.stderr.take().unwrap();
    err.read_to_string(&mut said).unwrap();
    assert_eq!(ended.unwrap().code(), Some(1), "{said}");
    assert!(
        said.starts_with("hade: cannot listen on unix:run/http.sock: "),
        "{said}"
    );
}

#[test]
fn what_is_no_socket_is_never_replaced_by_one() {
    let place = Place::new();
    place.write("run/http.sock", "precious");
    assert_eq!(
        place.app(&UNIX).failed(1),
        "hade: cannot listen on unix:run/http.sock: it exists and is not a socket\n"
    );
    assert_eq!(place.read("run/http.sock"), "precious");
    assert!(
        !fs::metadata(place.path("run/http.sock"))
            .unwrap()
            .file_type()
            .is_socket()
    );
    nothing_left(&place);
}

#[test]
fn a_unix_path_that_is_too_long_is_said_with_its_length() {
    let place = Place::new();
    let path = format!("run/{}", "x".repeat(104));
    let address = format!("unix:{path}");
    assert_eq!(
        place.app(&["start", "-d", "--address", &address]).failed(1),
        format!(
            "hade: cannot listen on {address}: a socket's path holds 1 to 107 bytes, this one has 108\n"
        )
    );
    nothing_left(&place);
    // One byte less, and it fits, however deep the base directory is.
    let fits = &address[..address.len() - 1];
    place.app(&["start", "-d", "--address", fits]).ok();
}

#[test]
fn a_unix_socket_in_a_directory_that_is_missing_is_refused() {
    let place = Place::new();
    let address = ["--address", "unix:none/http.sock"];
    assert_eq!(
        place
            .app(&[&["start", "-d"], &address[..]].concat())
            .failed(1),
        "hade: cannot listen on unix:none/http.sock: No such file or directory (os error 2)\n"
    );
    nothing_left(&place);
}

/// As people write them, and what is said of them.
const BAD: [(&str, &str); 10] = [
    ("8888", "expected host:port; did you mean \":8888\"?"),
    ("host", "expected host:port; did you mean \"host:8888\"?"),
    (":99999", "expected a port from 0 to 65535 after the colon"),
    (":-1", "expected a port from 0 to 65535 after the colon"),
    (
        "localhost:",
        "expected a port from 0 to 65535 after the colon",
    ),
    ("1.2.3.4:80:90", "expected host:port, with one colon"),
    (
        "::1:80",
        "expected an IPv6 address in brackets and a port; did you mean \"[::1]:80\"?",
    ),
    (
        "http://localhost:80",
        "expected host:port without a scheme; did you mean \"localhost:80\"?",
    ),
    (
        "1.2.3:80",
        "expected four numbers from 0 to 255, as in \"127.0.0.1:80\"",
    ),
    ("unix:", "expected unix: and the path of a socket"),
];

#[test]
fn a_bad_address_is_one_clear_line_and_wrong_usage_for_a_flag_or_variable() {
    let place = Place::new();
    for (address, why) in BAD {
        for daemon in ["--daemon=true", "--daemon=false"] {
            let args = ["app", "start", daemon, "--address", address];
            let said = run(&mut place.command(&args)).failed(2);
            assert_eq!(said, format!("hade: --address {address:?}: {why}\n"));
            let said = run(place.command(&args[..3]).env("ADDRESS", address)).failed(2);
            assert_eq!(said, format!("hade: ADDRESS {address:?}: {why}\n"));
        }
    }
    assert_eq!(
        fs::read_dir(&place.dir).unwrap().count(),
        0,
        "nothing was made"
    );
}

#[test]
fn a_bad_address_in_the_file_is_said_with_its_line() {
    let place = Place::new();
    for (address, why) in BAD {
        place.write(
            "etc/app.conf",
            format!("# where\n\napp.address = {address}\n"),
        );
        for command in ["start", "check", "state", "stop", "restart"] {
            assert_eq!(
                place.app(&[command]).failed(1),
                format!("hade: etc/app.conf:3: app.address {address:?}: {why}\n"),
                "{command}"
            );
        }
    }
    assert!(!place.path("run").exists());
}
