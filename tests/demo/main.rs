//! An application for tests and measurements: answers that are slow, large, wrong or deadly on demand.

use hade::{App, Request, Response};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
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

fn main() -> ExitCode {
    App::new("demo")
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
        .get("/panic", |_| panic!("asked to"))
        .get("/abort", |_| std::process::abort())
        // A stream of so many bytes, or endless, with a reader that panics when it is dropped.
        .get("/brittle", |request| {
            let length = request.param("n").and_then(|text| text.parse().ok());
            let status = request.param("status").and_then(|text| text.parse().ok());
            Response::stream("application/octet-stream", length, Brittle)
                .with_status(status.unwrap_or(200))
        })
        .boot(|| match boot_mode().as_str() {
            "fail" => Err("asked to fail at boot".to_owned()),
            "crash" => std::process::abort(),
            "hang" => loop {
                std::thread::park();
            },
            "wait" => {
                while boot_mode() == "wait" {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }
            _ => Ok(()),
        })
        .main()
}
