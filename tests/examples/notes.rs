//! A JSON API over a small store. Each note is a file, so that any number of workers may be at it, in a restart too.
//!
//!     curl -d '{"text": "buy milk"}' localhost:8888/notes
//!     curl localhost:8888/notes/1

use hade::{App, Error, Request, Response, With, Worker};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

struct Notes {
    directory: PathBuf,
}

impl Notes {
    fn open(worker: &Worker) -> io::Result<Notes> {
        let directory = PathBuf::from(worker.setting("notes_dir"));
        fs::create_dir_all(&directory)?;
        Ok(Notes { directory })
    }

    fn path(&self, id: u64) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn ids(&self) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(id.and_then(|id| id.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn get(&self, id: u64) -> hade::Result<Value> {
        let bytes = fs::read(self.path(id)).map_err(absent)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn add(&self, text: &str) -> hade::Result<Value> {
        let mut id = self.ids()?.last().map_or(1, |last| last + 1);
        loop {
            let note = json!({ "id": id, "text": text });
            match self.create(id, &note.to_string()) {
                // Somebody else was faster.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => id += 1,
                created => return Ok(created.map(|()| note)?),
            }
        }
    }

    /// Under a name that nobody reads, until all of it is on the disk.
    fn create(&self, id: u64, text: &str) -> io::Result<()> {
        let name = format!("{id}.{}.draft", std::process::id());
        let draft = self.directory.join(name);
        let mut file = File::create_new(&draft)?;
        let kept = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        let kept = kept.and_then(|()| fs::hard_link(&draft, self.path(id)));
        fs::remove_file(draft)?;
        kept
    }

    fn remove(&self, id: u64) -> hade::Result<()> {
        fs::remove_file(self.path(id)).map_err(absent)
    }
}

/// What is not there is 404; anything else is for the log.
fn absent(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(404, "no such note"),
        _ => error.into(),
    }
}

fn add(request: &mut Request, notes: &Notes) -> hade::Result {
    let asked: Value = serde_json::from_slice(request.body()?)
        .map_err(|error| Error::new(400, format!("not JSON: {error}")))?;
    let text = asked["text"].as_str();
    let note = notes.add(text.ok_or(Error::new(422, "a note needs a text"))?)?;
    let location = format!("/notes/{}", note["id"]);
    Ok(Response::json(note.to_string())
        .with_status(201)
        .with_header("Location", location))
}

fn app() -> App<With<Notes>> {
    App::new("notes")
        .setting("notes_dir", "notes", "where notes are kept")
        .boot(Notes::open)
        .get("/notes", |_, notes| -> hade::Result {
            let all = notes.ids()?.into_iter().filter_map(|id| notes.get(id).ok());
            Ok(Response::json(all.collect::<Value>().to_string()))
        })
        .post("/notes", add)
        .get("/notes/{id}", |request, notes| -> hade::Result {
            let note = notes.get(request.path_param("id")?)?;
            Ok(Response::json(note.to_string()))
        })
        .delete("/notes/{id}", |request, notes| -> hade::Result {
            notes.remove(request.path_param("id")?)?;
            Ok(Response::new(204))
        })
        // Every error is JSON, those of hade included.
        .after("/", |_, response, _| match response.refusal() {
            Some(why) => {
                let body = json!({ "error": why }).to_string();
                response.with_body("application/json", body.into_bytes())
            }
            None => response,
        })
}

fn main() -> ExitCode {
    app().main()
}

#[test]
fn notes_are_kept_and_removed() {
    let directory = std::env::temp_dir().join(format!("notes-{}", std::process::id()));
    let client = app().test_with(&[("notes_dir", directory.to_str().unwrap())]);
    let post = |body: &str| client.send(Request::new("POST", "/notes").with_body(body));
    assert_eq!(
        post(r#"{"text": "buy milk"}"#).header("Location"),
        Some("/notes/1")
    );
    assert_eq!(
        client.get("/notes/1").into_text(),
        r#"{"id":1,"text":"buy milk"}"#
    );
    assert_eq!(post("{}").into_text(), r#"{"error":"a note needs a text"}"#);
    assert_eq!(
        client.get("/none").into_text(),
        r#"{"error":"no such page"}"#
    );
    assert_eq!(
        client.send(Request::new("DELETE", "/notes/1")).status(),
        204
    );
    assert_eq!(client.get("/notes").into_text(), "[]");
    fs::remove_dir_all(directory).unwrap();
}
