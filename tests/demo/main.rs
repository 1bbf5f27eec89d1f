//! An application for tests and measurements: answers that are slow, large, wrong or deadly on demand.
#![allow(clippy::print_stdout)] // What its command says, it says there.

use hade::{App, Call, Event, Events, Request, Response, Worker};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::Builder;
use std::time::Duration;

fn number(request: &Request, name: &str) -> u64 {
    request
        .param(name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

/// How to start: what the environment says, which is fixed for the life of a master, or else a file in the base
/// directory, which is not.
fn boot_mode() -> String {
    let from_file = |_| std::fs::read_to_string("boot").unwrap_or_default();
    std::env::var("DEMO_BOOT").unwrap_or_else(from_file)
}

/// Makes pieces of one size, one per read.
struct Pieces {
    left: u64,
    size: usize,
    fails: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return match self.fails {
                true => Err(io::Error::other("asked to fail")),
                false => Ok(0),
            };
        }
        self.left -= 1;
        let count = buffer.len().min(self.size);
        buffer[..count].fill(b'p');
        Ok(count)
    }
}

/// Ticks until the worker leaves, and a last event.
struct Ticks {
    worker: Worker,
    is_over: bool,
}

impl Read for Ticks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_millis(5));
        self.is_over = self.worker.is_leaving();
        let text = match self.is_over {
            true => "event: bye\n\n",
            false => "data: tick\n\n",
        };
        text.as_bytes().read(buffer)
    }
}

/// Endless, and it panics when it is let go of.
struct Brittle;

impl Read for Brittle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::repeat(b'b').read(buffer)
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        panic!("a reader that panics when it is dropped");
    }
}

/// What a panic may carry.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::panic::panic_any(Bomb);
    }
}

/// Panics with a bomb once it has made a piece.
struct Bombs(bool);

impl Read for Bombs {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            std::panic::panic_any(Bomb);
        }
        buffer.fill(b'b');
        Ok(buffer.len())
    }
}

/// Answers that cannot be.
fn wrong(request: &mut Request) -> Response {
    let response = Response::new(200);
    match request.param("how").as_deref() {
        Some("status") => response.with_status(42),
        Some("new") => Response::new(42),
        _ => response.with_header("not a token", ""),
    }
}

/// What is done when the worker has answered its last request: hang, panic, or write a file of that name.
fn at_stop(how: &str) {
    match how {
        "hang" => loop {
            std::thread::park();
        },
        "panic" => panic!("asked to, at the stop"),
        name => std::fs::write(name, "let go\n").unwrap(),
    }
}

fn main() -> ExitCode {
    let mut app = App::new("demo");
    // Files below a path of the same name.
    if let Ok(name) = std::env::var("DEMO_FILES") {
        app = app.files(&format!("/{name}/"), name);
    }
    // Something that cannot have been meant.
    if let Ok(path) = std::env::var("DEMO_MISTAKE") {
        app = app.get(&path, |_| "never\n");
    }
    // Nobody gets anything without a password, and every answer says that it went through a hook.
    if std::env::var_os("DEMO_HOOKS").is_some() {
        app = app
            .before("/", |request| match request.basic_auth() {
                Some(login) if login.is("uma", "secret") => Ok(()),
                _ => Err(Response::unauthorized("the demo")),
            })
            .after("/", |_, response| {
                response.with_header("X-Hook", "was here")
            });
    }
    let app = match std::env::var_os("DEMO_HEALTH") {
        // A health of its own, which goes through a handler.
        Some(_) => app.get("/healthz", |_| Response::text("mine\n")),
        None => app,
    };
    let app = app
        .fixed(
            "/fixed",
            Response::text("fixed\n").with_header("X-Kind", "fixed"),
        )
        .get("/hello", |_| Response::text("Hello, World!"))
        .get("/slow", |request| {
            std::thread::sleep(Duration::from_millis(number(request, "ms")));
            Response::text("slow\n")
        })
        // Says by a file that it has the request, and answers when another file allows it.
        .get("/hold", |request| {
            let name = request.param("name").unwrap_or_default();
            let _ = std::fs::write(format!("{name}.held"), "");
            while !Path::new(&format!("{name}.go")).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Response::text("held\n")
        })
        // Events until the worker leaves.
        .get("/events", |request| {
            let worker = request.worker();
            let ticks = Ticks {
                worker,
                is_over: false,
            };
            Response::stream("text/event-stream", None, ticks)
        })
        // Answers when the worker leaves; whether the service does.
        .get("/leaves", |request| {
            let (worker, before) = (request.worker(), request.is_draining());
            let _ = std::fs::write("leaves.held", "");
            while !worker.is_leaving() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Response::text(format!("{before}, then {}\n", request.is_draining()))
        })
        // Who asks.
        .get("/client", |request| match request.client() {
            Some(address) => Response::text(format!("{address}\n")),
            None => Response::text("nobody knows\n"),
        })
        // The host asked for, and the field of that name.
        .get("/host", |request| {
            let field = request.header("Host").map(String::from_utf8_lossy);
            Response::text(format!("{:?} {field:?}\n", request.host()))
        })
        // Words of another status.
        .get("/status", |request| {
            Response::text("words\n").with_status(number(request, "is") as u16)
        })
        .get("/pid", |_| Response::text(std::process::id().to_string()))
        .post("/echo", |request| match request.body() {
            Ok(body) => Response::bytes("application/octet-stream", body.to_vec()),
            Err(error) => Response::text(format!("{error}\n")).with_status(400),
        })
        .get("/bytes", |request| {
            Response::bytes(
                "application/octet-stream",
                vec![b'x'; number(request, "n") as usize],
            )
        })
        // Reads as it comes, whatever its length, and counts.
        .post("/count", |request| {
            match io::copy(&mut request.body_reader(), &mut io::sink()) {
                Ok(count) => Response::text(format!("{count}\n")),
                Err(error) => Response::text(format!("{error}\n")).with_status(400),
            }
        })
        .max_body("/count", 1 << 30)
        .route("PUT", "/saved/{name}", |request| -> hade::Result<String> {
            let name: String = request.path_param("name")?;
            let length = request.save_body(format!("saved/{name}"))?;
            Ok(format!("{length}\n"))
        })
        .max_body("/saved/{name}", 1 << 30)
        // Never looks at the body.
        .post("/ignore", |_| Response::text("ignored\n"))
        .max_body("/ignore", 1 << 30)
        .max_body("/small", 10)
        .post("/small", |_| Response::text("small\n"))
        // So many pieces of 1000 bytes, or of `size`, of a length that is said with `length`; or a failure after them.
        .get("/stream", |request| {
            let pieces = number(request, "pieces");
            let length = request.param("length").and_then(|text| text.parse().ok());
            Response::stream(
                "application/octet-stream",
                length,
                Pieces {
                    left: pieces,
                    size: request
                        .param("size")
                        .map_or(1000, |_| number(request, "size") as usize),
                    fails: request.param("fails").is_some(),
                },
            )
        })
        .get("/file", |request| {
            let name = request.param("name").unwrap_or_default();
            let opened = File::open(name);
            match opened.and_then(|file| Response::file("application/octet-stream", file)) {
                Ok(response) => response,
                Err(error) => Response::text(format!("{error}\n")).with_status(404),
            }
        })
        .get("/panic", |_| -> Response { panic!("asked to") })
        // In threads that the program starts itself, with a name and without.
        .get("/thread", |request| {
            let name = request.param("name");
            let builder = name.map_or_else(Builder::new, |name| Builder::new().name(name));
            let ended = builder.spawn(|| panic!("asked to, in a thread"));
            let _ = ended.map(|thread| thread.join());
            Response::text("it panicked\n")
        })
        .get("/wrong", wrong)
        .get("/bomb", |_| -> Response { std::panic::panic_any(Bomb) })
        .get("/bombs", |_| {
            Response::stream("application/octet-stream", Some(1 << 20), Bombs(false))
        })
        // Runs a line of shell: what it printed, and how it ended.
        .get("/sh", |request| {
            let line = request.param("line").unwrap_or_default();
            match Command::new("sh").args(["-c", &line]).output() {
                Ok(done) => Response::text(format!(
                    "{}{}\n",
                    String::from_utf8_lossy(&done.stdout),
                    done.status
                )),
                Err(error) => Response::text(format!("{error}\n")).with_status(500),
            }
        })
        .get("/abort", |_| -> Response { std::process::abort() })
        // A stream of so many bytes, or endless, with a reader that panics when it is dropped.
        .get("/brittle", |request| {
            let length = request.param("n").and_then(|text| text.parse().ok());
            let status = request.param("status").and_then(|text| text.parse().ok());
            Response::stream("application/octet-stream", length, Brittle)
                .with_status(status.unwrap_or(200))
        })
        .boot(|_| match boot_mode().as_str() {
            "fail" => Err("asked to fail at boot".to_owned()),
            "thread" => {
                let ended = std::thread::spawn(|| panic!("asked to, in a thread of boot")).join();
                ended.map_or(Ok(Events::new()), |()| Err("it did not panic".to_owned()))
            }
            "crash" => std::process::abort(),
            "bomb" => std::panic::panic_any(Bomb),
            "hang" => loop {
                std::thread::park();
            },
            "wait" => {
                while boot_mode() == "wait" {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(Events::new())
            }
            _ => Ok(Events::new()),
        })
        .get("/feed", |_, events| events.subscribe())
        .post("/tell", |request, events| -> hade::Result<String> {
            let event = Event::new(request.text()?);
            Ok(format!("{}\n", events.send(event)))
        })
        // Says by a file that it has the request, and answers when its client is gone.
        .get("/gone", |request, _| {
            let _ = std::fs::write("gone.held", "");
            while !request.is_client_gone() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = std::fs::write("gone.seen", "");
            "gone\n"
        })
        .get("/items/{id}", |request, _| -> hade::Result<String> {
            let id: u32 = request.path_param("id")?;
            Ok(format!("item {id}\n"))
        })
        .get("/greeting", |request, _| {
            format!("{}\n", request.setting("greeting"))
        })
        .get("/fails", |_, _| {
            Response::file("text/plain", File::open("no/such/file")?)
        })
        .setting("greeting", "Hello", "how to greet")
        .command("greet", "greet somebody", |call: &Call| match call.args() {
            [name] => {
                hade::log::info("greeting");
                println!("{}, {name}", call.setting("greeting"));
                Ok(())
            }
            _ => Err("greet: whom?"),
        });
    // What it does when its worker leaves.
    match std::env::var("DEMO_STOP") {
        Ok(how) => app.on_stop(move |_| at_stop(&how)),
        Err(_) => app,
    }
    .main()
}
