//! Docker Swarm and Compose on one real engine, with the files of `etc/docker`; the manifest for Kubernetes by its schemas.

use crate::commands::container::{Image, docker, has_engine};
use crate::support::{Done, Place, has, pause, run, wait_until};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("etc/docker")
        .join(name);
    path.to_str().unwrap().to_owned()
}

/// A command of the engine's that must go well.
#[track_caller]
fn engine(words: &[&str]) -> String {
    let done = run(&mut docker(words));
    assert_eq!(done.code, Some(0), "{words:?}: {}{}", done.out, done.err);
    done.out.trim_end().to_owned()
}

/// One that may fail, when things are put away.
fn quietly(words: &[&str]) -> Done {
    run(&mut docker(words))
}

/// A swarm of this engine alone, for the time of a test.
struct Swarm {
    name: String,
    is_ours: bool,
}

impl Swarm {
    #[track_caller]
    fn new() -> Swarm {
        let name = format!("hade-it-{}", std::process::id());
        let is_ours = engine(&["info", "--format", "{{.Swarm.LocalNodeState}}"]) != "active";
        if is_ours {
            let at = [
                "--advertise-addr",
                "127.0.0.1",
                "--listen-addr",
                "127.0.0.1:2377",
            ];
            engine(&[&["swarm", "init"], &at[..]].concat());
        }
        Swarm { name, is_ours }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        quietly(&["stack", "rm", &self.name]);
        // Tasks go in the background, and the network when they are gone.
        let until = Instant::now() + Duration::from_secs(30);
        let filter = format!("label=com.docker.stack.namespace={}", self.name);
        while Instant::now() < until {
            let tasks = quietly(&["ps", "--all", "--quiet", "--filter", &filter]).out;
            let networks = quietly(&["network", "ls", "--quiet", "--filter", &filter]).out;
            if tasks.is_empty() && networks.is_empty() {
                break;
            }
            pause();
        }
        if self.is_ours {
            quietly(&["swarm", "leave", "--force"]);
            quietly(&["network", "rm", "docker_gwbridge"]);
        }
    }
}

/// Clients that ask for the name anew for each connection, until their standard input ends.
const CLIENTS: &str = r#"
import http.client, random, socket, sys, threading
over, answered, failed, seen = threading.Event(), [0] * 4, [], set()
def client(number):
    kept = None
    while not over.is_set():
        try:
            if kept is None:
                found = socket.getaddrinfo('hade', 8888, socket.AF_INET, socket.SOCK_STREAM)
                at = random.choice(found)[4][0]
                seen.add(at)
                kept = http.client.HTTPConnection(at, 8888, timeout=30)
            kept.request('GET', '/', headers={} if number % 2 else {'Connection': 'close'})
            answer = kept.getresponse()
            body = answer.read()
            if answer.status != 200 or not body.rstrip().endswith(b'</html>'):
                failed.append('%d %r' % (answer.status, body))
            answered[number] += 1
            if answer.will_close:
                kept.close()
                kept = None
        except Exception as error:
            failed.append(repr(error))
            kept = None
        over.wait(0.005)
threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
print('asking', flush=True)
sys.stdin.read()
over.set()
for thread in threads: thread.join()
print(sum(answered), len(seen), len(failed), failed[:9])
"#;

struct Clients(Child);

impl Clients {
    /// In a container with nothing of its own but this machine's Python, on the network of the service.
    #[track_caller]
    fn on(network: &str, image: &str) -> Clients {
        let empty = r#"
            root=$(mktemp -d)
            trap 'rm -rf "$root"' EXIT
            mkdir "$root/usr" "$root/etc" "$root/tmp"
            for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
            tar -C "$root" -c . | docker import - "$1"
        "#;
        let made = run(Command::new("sh").args(["-ec", empty, "sh", image]));
        assert_eq!(made.code, Some(0), "{made:?}");
        let mut command = Command::new("timeout");
        command.args(["300", "docker"]);
        command.args(["run", "--rm", "--interactive", "--network", network]);
        command.args(["--volume", "/usr:/usr:ro", image]);
        command.args(["/usr/bin/python3", "-c", CLIENTS]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        Clients(command.spawn().expect("docker runs"))
    }

    /// Ends them: how many requests were answered, by how many addresses.
    #[track_caller]
    fn end(mut self) -> (u64, u64) {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or_default();
        let fields: Vec<&str> = last.splitn(4, ' ').collect();
        assert_eq!(fields.get(2), Some(&"0"), "failed: {text}");
        (fields[0].parse().unwrap(), fields[1].parse().unwrap())
    }
}

#[test]
fn a_swarm_service_is_rolled_over_without_losing_a_request() {
    if !has_engine() || !Path::new("/usr/bin/python3").exists() {
        return;
    }
    let image = Image::make("swarm");
    let clients_image = Image(format!("hade-it-{}-clients", std::process::id()));
    let swarm = Swarm::new();
    let stack = file("stack.yml");
    let mut deploy = docker(&["stack", "deploy", "--resolve-image", "never"]);
    deploy
        .args(["--compose-file", &stack, &swarm.name])
        .env("IMAGE", &image.0);
    let done = run(&mut deploy);
    assert_eq!(done.code, Some(0), "{done:?}");
    let service = format!("{}_hade", swarm.name);
    wait_until(60, "both replicas are healthy", || {
        let replicas = "{{.Replicas}}";
        let filter = format!("name={service}");
        engine(&["service", "ls", "--filter", &filter, "--format", replicas]) == "2/2"
    });
    let clients = Clients::on(&format!("{}_front", swarm.name), &clients_image.0);
    // Each replica by another one, which is healthy before the one of before is told to leave.
    let mut update = Command::new("timeout");
    update.args([
        "200",
        "docker",
        "service",
        "update",
        "--quiet",
        "--detach=false",
    ]);
    update.args([
        "--env-add",
        "APP_THREADS=8",
        "--update-monitor",
        "1s",
        &service,
    ]);
    let done = run(update.stdin(Stdio::null()));
    assert_eq!(done.code, Some(0), "{done:?}");
    let state = "{{.UpdateStatus.State}}";
    assert_eq!(
        engine(&["service", "inspect", "--format", state, &service]),
        "completed"
    );
    let (answers, addresses) = clients.end();
    println!("a rolling update: {answers} requests to {addresses} addresses, none failed");
    assert!(answers > 100 && addresses >= 3, "{answers} {addresses}");
}

/// A project of Compose, taken down with the test.
struct Project<'a>(String, &'a Image);

impl Project<'_> {
    fn compose(&self, words: &[&str]) -> Done {
        let mut command = Command::new("timeout");
        command.args(["120", "docker-compose", "--project-name", &self.0]);
        command.args(["--file", &file("compose.yml")]).args(words);
        command
            .env("IMAGE", &self.1.0)
            .env("PORT", "")
            .stdin(Stdio::null());
        run(&mut command)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--volumes", "--timeout", "20"]);
    }
}

#[test]
fn by_compose_what_needs_it_waits_until_it_is_healthy() {
    if !has_engine() || !has("docker-compose") {
        return;
    }
    let image = Image::make("compose");
    let project = Project(format!("hade-it-{}", std::process::id()), &image);
    let up = project.compose(&["up", "--detach"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let container = |service: &str| {
        let found = project.compose(&["ps", "--quiet", service]).out;
        found.trim().to_owned()
    };
    let (api, web) = (container("api"), container("web"));
    let health = |of: &str| engine(&["inspect", "--format", "{{.State.Health.Status}}", of]);
    assert_eq!(health(&api), "healthy");
    wait_until(60, "the other one is healthy too", || {
        health(&web) == "healthy"
    });
    let down = project.compose(&["stop", "--timeout", "20"]);
    assert_eq!(down.code, Some(0), "{down:?}");
    for one in [&api, &web] {
        assert_eq!(
            engine(&["inspect", "--format", "{{.State.ExitCode}}", one]),
            "0"
        );
    }
}

/// The settings of the manifest, where Kubernetes puts them: in a directory whose content is a link that is swapped.
#[test]
fn settings_of_a_config_map_are_read_through_its_links_and_again_after_a_swap() {
    let manifest = std::fs::read_to_string(file("../kubernetes/hade.yaml")).unwrap();
    let (_, rest) = manifest.split_once("  app.conf: |\n").unwrap();
    let lines = rest.lines().map_while(|line| line.strip_prefix("    "));
    let settings: String = lines.map(|line| format!("{line}\n")).collect();
    let value = |key: &str| -> u64 {
        let line = settings
            .lines()
            .find_map(|line| line.strip_prefix(&format!("app.{key} = ")));
        line.unwrap().parse().unwrap()
    };
    let grace = manifest
        .split_once("terminationGracePeriodSeconds: ")
        .unwrap()
        .1;
    let grace: u64 = grace.lines().next().unwrap().parse().unwrap();
    assert!(grace > value("stop_delay") + value("close_wait"));

    let place = Place::new();
    let here = settings
        .replace("/run/hade", &format!("{}/run/hade", place.dir.display()))
        .replace("= :8888", "= 127.0.0.1:0")
        .replace("stop_delay = 10", "stop_delay = 0");
    place.write("settings/..1/app.conf", &here);
    place.sh(
        "cd settings && ln -s ..1 ..data && ln -s ..data/app.conf app.conf",
        &[],
    );
    let app = |words: &[&str]| {
        let mut command = place.command(&[&["app"], words].concat());
        run(command.env("APP_CONFIG", "settings/app.conf"))
    };
    app(&["start", "--daemon"]).ok();
    let workers = |state: Done| {
        state
            .ok()
            .lines()
            .filter(|line| line.contains(" serving, "))
            .count()
    };
    assert_eq!(workers(app(&["state"])), 1);
    place.write(
        "settings/..2/app.conf",
        [&here, "app.workers = 2\n"].concat(),
    );
    place.sh(
        "cd settings && ln -s ..2 ..new && mv -T ..new ..data && rm -r ..1",
        &[],
    );
    app(&["restart"]).ok();
    assert_eq!(workers(app(&["state"])), 2);
    app(&["state", "--probe"]).ok();
    app(&["stop"]).ok();
}

#[test]
fn kubernetes_knows_every_word_of_the_manifest() {
    if !has("kubernetes-validate") {
        return;
    }
    let mut command = Command::new("kubernetes-validate");
    command.args(["--strict", "--quiet", &file("../kubernetes/hade.yaml")]);
    let done = run(&mut command);
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), ""),
        "{}",
        done.err
    );
}
