//! A health check of one's own. hade's answers as long as the worker lives; this one goes through a handler, so that a
//! program whose handlers are all busy, or whose disk is full, is not healthy.
//!
//!     health app start --daemon && health app state --probe

use hade::{App, Response, With, Worker};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

struct Disk(PathBuf);

impl Disk {
    fn open(worker: &Worker) -> io::Result<Disk> {
        let directory = PathBuf::from(worker.setting("data_dir"));
        fs::create_dir_all(&directory)?;
        Ok(Disk(directory))
    }

    /// Whether something can be written, which is what this program is there for.
    fn try_out(&self) -> io::Result<()> {
        let path = self.0.join(format!(".probe-{}", std::process::id()));
        fs::write(&path, b"probe")?;
        fs::remove_file(path)
    }
}

fn app() -> App<With<Disk>> {
    App::new("health")
        .setting("data_dir", "data", "where data is kept")
        .boot(Disk::open)
        .get("/healthz", |_, disk| {
            let answer = match disk.try_out() {
                Ok(()) => Response::text("ok\n"),
                Err(error) => Response::text(format!("{error}\n")).with_status(503),
            };
            answer.with_header("Cache-Control", "no-store")
        })
}

fn main() -> ExitCode {
    app().main()
}

#[test]
fn it_is_healthy_while_it_can_write() {
    let directory = std::env::temp_dir().join(format!("health-{}", std::process::id()));
    let client = app().test_with(&[("data_dir", directory.to_str().unwrap())]);
    assert_eq!(client.get("/healthz").into_text(), "ok\n");
    fs::remove_dir_all(directory).unwrap();
    assert_eq!(client.get("/healthz").status(), 503);
}
