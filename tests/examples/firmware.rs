//! Firmware of a device with two slots: what is sent goes to the one that is not in use, and is used from the next boot on
//! only if it is what was meant. Uploads of any length need no memory; downloads can be taken up again.
//!
//!     firmware app start --set token=s3cret
//!     curl -T new.img -H 'Authorization: Bearer s3cret' -H "Digest: $(sha256sum new.img | cut -c-64)" localhost:8888/firmware

use hade::{App, Error, Request, Response, With, Worker};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, TryLockError};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Firmware</title>
<input id="token" placeholder="token"> <input id="digest" placeholder="sha256"> <input id="file" type="file">
<button onclick="send()">Send</button> <progress id="bar" value="0"></progress> <p id="said"></p>
<script>
function send() {
  const get = id => document.getElementById(id), ask = new XMLHttpRequest();
  ask.upload.onprogress = event => { get("bar").max = event.total; get("bar").value = event.loaded; };
  ask.onloadend = () => { get("said").textContent = ask.responseText || "the connection broke"; };
  ask.open("PUT", "/firmware");
  ask.setRequestHeader("Authorization", "Bearer " + get("token").value);
  ask.setRequestHeader("Digest", get("digest").value);
  ask.send(get("file").files[0]);
}
</script>
"#;

struct Slots {
    directory: PathBuf,
    /// One upload at a time.
    writing: Mutex<()>,
}

impl Slots {
    fn open(worker: &Worker) -> hade::Result<Slots> {
        if worker.setting("token").is_empty() {
            return Err(Error::new(
                500,
                "start it with --set token=SECRET, or TOKEN=SECRET",
            ));
        }
        let directory = PathBuf::from(worker.setting("slots_dir"));
        fs::create_dir_all(&directory)?;
        let writing = Mutex::default();
        Ok(Slots { directory, writing })
    }

    /// The slot that is in use, `a` until anything else is known.
    fn active(&self) -> &'static str {
        match fs::read_to_string(self.directory.join("active")).as_deref() {
            Ok("b") => "b",
            _ => "a",
        }
    }

    /// From the next boot on it is this one, or the one of before if the power fails just now.
    fn activate(&self, slot: &str) -> io::Result<()> {
        let new = self.directory.join("active.new");
        let mut file = File::create(&new)?;
        file.write_all(slot.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, self.directory.join("active"))?;
        File::open(&self.directory)?.sync_all()
    }
}

/// What is on the disk, and not what was sent: flash may be worn out.
fn digest(path: &Path) -> io::Result<String> {
    let sums = Command::new("sha256sum")
        .stdin(File::open(path)?)
        .output()?;
    let sums = String::from_utf8_lossy(&sums.stdout);
    Ok(sums.chars().take(64).collect())
}

fn upload(request: &mut Request, slots: &Slots) -> hade::Result<String> {
    let wanted = request.header_text("Digest").map(str::to_ascii_lowercase);
    let wanted = wanted.ok_or(Error::new(400, "send the SHA-256 as Digest"))?;
    let _alone = match slots.writing.try_lock() {
        Err(TryLockError::WouldBlock) => {
            return Err(Error::new(409, "another upload is under way"));
        }
        lock => lock,
    };
    let slot = if slots.active() == "a" { "b" } else { "a" };
    let path = slots.directory.join(slot);
    // As a partition, it is not made anew: what was in it is overwritten, and cut off behind.
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    let length = io::copy(&mut request.body_reader(), &mut file)?;
    let end = file.stream_position()?;
    file.set_len(end)?;
    file.sync_all()?;
    if digest(&path)? != wanted {
        return Err(Error::new(
            422,
            "this is not what the digest says; nothing is changed",
        ));
    }
    slots.activate(slot)?;
    hade::log::info(format_args!("{length} bytes of firmware in slot {slot}"));
    Ok(format!(
        "{length} bytes in slot {slot}, used from the next boot on\n"
    ))
}

fn download(request: &mut Request, slots: &Slots) -> hade::Result {
    let file = File::open(slots.directory.join(slots.active()));
    let file = file.map_err(|_| Error::new(404, "no firmware yet"))?;
    Ok(Response::file_for(
        request,
        "application/octet-stream",
        file,
    )?)
}

fn app() -> App<With<Slots>> {
    App::new("firmware")
        .setting("token", "", "what those have to send who may write")
        .setting("slots_dir", "slots", "where the slots are")
        .boot(Slots::open)
        .get("/", |_, _| Response::html(PAGE))
        .before("/firmware", |request, _| {
            let may = request.method() != "PUT" || request.has_bearer(request.setting("token"));
            if may {
                Ok(())
            } else {
                Err(Error::new(401, "a token is asked for"))
            }
        })
        .get("/firmware", download)
        .put("/firmware", upload)
        .max_body("/firmware", 1 << 30)
}

fn main() -> ExitCode {
    app().main()
}
