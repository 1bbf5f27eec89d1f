//! Server-sent events: everybody who has the page open sees what is said, and the time. Thousands may listen; none of them
//! holds a thread, and a restart has them all connect anew by themselves.
//!
//!     curl -N localhost:8888/events
//!     curl -d 'hello' localhost:8888/say

use hade::{App, Error, Event, Events, Request, With, Worker};
use std::io;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Live</title>
<p id="time"></p><ul id="said"></ul><input onchange="fetch('/say', {method: 'POST', body: value}); value = ''">
<script>
const events = new EventSource("/events");
events.addEventListener("time", event => document.getElementById("time").textContent = event.data);
events.addEventListener("said", event => {
  const line = document.createElement("li");
  line.textContent = event.data;
  document.getElementById("said").append(line);
});
</script>
"#;

/// How many lines are kept for those who come later.
const KEPT: usize = 100;

struct Live {
    events: Events,
    /// What was said last, each with a name that grows.
    lines: Mutex<Vec<(u128, String)>>,
}

impl Live {
    fn start(worker: &Worker) -> io::Result<Live> {
        let live = Live {
            events: Events::new(),
            lines: Mutex::default(),
        };
        let (events, worker) = (live.events.clone(), worker.clone());
        let clock = move || {
            while !worker.is_leaving() {
                let seconds = now().as_secs();
                events.send(Event::new(seconds.to_string()).named("time"));
                thread::sleep(Duration::from_secs(1));
            }
        };
        thread::Builder::new()
            .name("clock".to_owned())
            .spawn(clock)?;
        Ok(live)
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn said(id: u128, line: &str) -> Event {
    Event::new(line).named("said").with_id(id.to_string())
}

fn say(request: &mut Request, live: &Live) -> hade::Result<(u16, &'static str)> {
    let text = request.text()?.trim().to_owned();
    if text.is_empty() {
        return Err(Error::new(422, "nothing was said"));
    }
    let mut lines = live
        .lines
        .lock()
        .map_err(|_| Error::new(500, "a line broke"))?;
    let id = now()
        .as_nanos()
        .max(lines.last().map_or(0, |(last, _)| last + 1));
    live.events.send(said(id, &text));
    lines.push((id, text));
    let many = lines.len().saturating_sub(KEPT);
    lines.drain(..many);
    Ok((202, "said\n"))
}

fn app() -> App<With<Live>> {
    App::new("live")
        .boot(Live::start)
        .get("/", |_, _| hade::Response::html(PAGE))
        .post("/say", say)
        .get("/events", |request, live| -> hade::Result {
            let seen: u128 = request
                .header_text("Last-Event-ID")
                .and_then(|id| id.parse().ok())
                .unwrap_or(0);
            // Held until this client listens, and by say until it has sent: nobody misses a line.
            let lines = live
                .lines
                .lock()
                .map_err(|_| Error::new(500, "a line broke"))?;
            let missed = lines.iter().filter(|(id, _)| *id > seen);
            let missed = missed.map(|(id, line)| said(*id, line));
            Ok(live.events.subscribe_with(missed))
        })
}

fn main() -> ExitCode {
    app().main()
}

#[test]
fn who_comes_later_hears_what_was_said_before() {
    let client = app().test();
    for line in ["one", "two"] {
        let request = Request::new("POST", "/say").with_body(line);
        assert_eq!(client.send(request).status(), 202);
    }
    let heard = client.get("/events").into_text();
    let ids: Vec<&str> = heard
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .collect();
    assert!(
        heard.contains("data: one\n") && heard.contains("data: two\n"),
        "{heard}"
    );
    let again = Request::new("GET", "/events").with_header("Last-Event-ID", ids[0]);
    let heard = client.send(again).into_text();
    assert!(
        !heard.contains("data: one\n") && heard.contains("data: two\n"),
        "{heard}"
    );
}
