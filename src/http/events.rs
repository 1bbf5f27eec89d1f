//! Server-sent events: what happens in the program, to everybody who listens. No thread waits for any of them.
#![forbid(unsafe_code)]

use super::feed::{self, Source};
use super::response::Response;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Listeners, to whom any thread can send [`Event`]s: `text/event-stream`, which `EventSource` in a browser reads.
///
/// It belongs into the state of an application. A listener costs a connection and no thread, however many there are. When
/// nothing is sent for a while, a comment is, so that whoever is gone is noticed and nobody in between gets impatient.
/// Streams end whole, by themselves, when their worker leaves for a restart or a stop: a browser connects anew within a
/// second or so, and finds the next worker. One that reads too slowly, so that 256 KiB wait for it, has its stream ended
/// too.
///
/// Each worker has listeners of its own: with more than one (`app.workers`), and while one leaves, what happens in one has
/// to reach the others by a way of the program's own, such as a database that all of them watch.
///
/// ```
/// use hade::{App, Event, Events, Request};
///
/// let client = App::new("chat")
///     .with_state(|_| Events::new())
///     .get("/events", |_, events| events.subscribe())
///     .post("/say", |request, events| -> hade::Result<String> {
///         let heard = events.send(Event::new(request.text()?).named("said"));
///         Ok(format!("{heard} heard it\n"))
///     })
///     .test();
/// let stream = client.get("/events");
/// client.send(Request::new("POST", "/say").with_body("hello"));
/// assert!(stream.into_text().ends_with("event: said\ndata: hello\n\n"));
/// ```
///
/// Events for one client alone are those of `Events` that it alone listens to. What takes long can tell how it goes:
///
/// ```
/// use hade::{App, Event, Events};
/// use std::thread;
///
/// App::new("jobs").get("/run", |_| -> hade::Result {
///     let events = Events::new();
///     let stream = events.subscribe();
///     thread::Builder::new().spawn(move || {
///         for done in 0..100 {
///             // Works. Nobody listens any more: stops.
///             if events.send(Event::new(done.to_string())) == 0 {
///                 return;
///             }
///         }
///         // The last one is dropped here, and the stream ends.
///     })?;
///     Ok(stream)
/// });
/// ```
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Listeners>>);

#[derive(Default)]
struct Listeners {
    all: Vec<Source>,
    /// At so many those that are gone are looked for.
    look_at: usize,
}

/// The fewest for which those that are gone are looked for.
const FEW: usize = 64;
/// The first that a client is sent: when to come again after an end, in milliseconds.
const RETRY: &[u8] = b"retry: 1000\n\n";

impl Events {
    /// Nobody listens yet.
    ///
    /// ```
    /// assert_eq!(hade::Events::new().send(hade::Event::new("hello")), 0);
    /// ```
    pub fn new() -> Events {
        Events::default()
    }

    /// Sends an event to everybody who listens, and returns how many that are. Nobody is waited for.
    ///
    /// ```
    /// use hade::{Event, Events};
    /// let events = Events::new();
    /// let stream = events.subscribe();
    /// assert_eq!(events.send(Event::new("hello")), 1);
    /// drop(stream);
    /// assert_eq!(events.send(Event::new("anybody?")), 0);
    /// ```
    pub fn send(&self, event: Event) -> usize {
        let piece: Arc<[u8]> = event.0.into_bytes().into();
        let mut listeners = self.lock();
        listeners.all.retain(|listener| listener.put(&piece));
        listeners.all.len()
    }

    /// The answer by which a client listens.
    ///
    /// ```
    /// let stream = hade::Events::new().subscribe();
    /// assert_eq!(stream.header("Content-Type"), Some("text/event-stream"));
    /// ```
    pub fn subscribe(&self) -> Response {
        self.subscribe_with([])
    }

    /// The same with events for this client alone before the others: how things stand, or what it has missed since the one
    /// that `Last-Event-ID` names. Where what there is to miss has a lock, and that is held both here and by whoever adds
    /// to it and sends, nobody misses an event or gets one twice.
    ///
    /// ```
    /// use hade::{App, Event, Events, Response};
    /// use std::sync::Mutex;
    ///
    /// struct Log { lines: Mutex<Vec<String>>, events: Events }
    ///
    /// fn event((at, line): (usize, &String)) -> Event {
    ///     Event::new(line).with_id(at.to_string())
    /// }
    ///
    /// App::new("log")
    ///     .with_state(|_| Log { lines: Mutex::default(), events: Events::new() })
    ///     .get("/events", |request, log| {
    ///         let last = request.header_text("Last-Event-ID").and_then(|id| id.parse().ok());
    ///         let seen = last.map_or(0, |last: usize| last + 1);
    ///         let lines = log.lines.lock().unwrap();
    ///         log.events.subscribe_with(lines.iter().enumerate().skip(seen).map(event))
    ///     })
    ///     .post("/lines", |request, log| -> hade::Result {
    ///         let line = request.text()?.to_owned();
    ///         let mut lines = log.lines.lock().unwrap();
    ///         log.events.send(event((lines.len(), &line)));
    ///         lines.push(line);
    ///         Ok(Response::new(204))
    ///     });
    /// ```
    pub fn subscribe_with(&self, first: impl IntoIterator<Item = Event>) -> Response {
        let (source, feed) = feed::pair();
        feed.put(RETRY);
        // Before the listeners are locked: whatever makes these may send some itself.
        for event in first {
            feed.put(event.0.as_bytes());
        }
        let mut listeners = self.lock();
        if listeners.all.len() >= listeners.look_at.max(FEW) {
            listeners.all.retain(Source::is_heard);
            listeners.look_at = 2 * listeners.all.len();
        }
        listeners.all.push(source);
        drop(listeners);
        Response::fed("text/event-stream", feed)
            .with_header("Cache-Control", "no-cache")
            .with_header("X-Accel-Buffering", "no")
    }

    /// How many listen at this moment.
    ///
    /// ```
    /// let events = hade::Events::new();
    /// let stream = events.subscribe();
    /// assert_eq!(events.count(), 1);
    /// ```
    pub fn count(&self) -> usize {
        let mut listeners = self.lock();
        listeners.all.retain(Source::is_heard);
        listeners.all.len()
    }

    /// Ends all streams. Browsers come again after a while.
    ///
    /// ```
    /// use hade::{Event, Events};
    /// let events = Events::new();
    /// let stream = events.subscribe();
    /// events.close();
    /// assert_eq!(events.send(Event::new("hello")), 0);
    /// ```
    pub fn close(&self) {
        let all = std::mem::take(&mut self.lock().all);
        drop(all);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({})", self.lock().all.len())
    }
}

/// Something that happened, for [`Events`].
///
/// ```
/// use hade::{Event, Events};
/// let events = Events::new();
/// events.send(Event::new("21.5").named("temperature").with_id("4711"));
/// ```
#[derive(Debug, Clone)]
pub struct Event(String);

impl Event {
    /// Any text, of several lines if need be: `event.data` in the browser.
    ///
    /// ```
    /// let event = hade::Event::new("{\"temperature\": 21.5}");
    /// ```
    pub fn new(data: impl AsRef<str>) -> Event {
        let data = data.as_ref().replace("\r\n", "\n").replace('\r', "\n");
        let mut text = String::with_capacity(data.len() + 8);
        for line in data.split('\n') {
            let _ = writeln!(text, "data: {line}");
        }
        text.push('\n');
        Event(text)
    }

    /// The same of a kind of its own, which the browser listens for by this name.
    ///
    /// ```
    /// let event = hade::Event::new("21.5").named("temperature");
    /// ```
    pub fn named(self, name: impl AsRef<str>) -> Event {
        self.with("event", name.as_ref())
    }

    /// The same with a name that the browser sends as `Last-Event-ID` when it comes again.
    ///
    /// ```
    /// let event = hade::Event::new("21.5").with_id("4711");
    /// ```
    pub fn with_id(self, id: impl AsRef<str>) -> Event {
        self.with("id", id.as_ref())
    }

    fn with(self, field: &str, value: &str) -> Event {
        let clean = value.replace(['\r', '\n', '\0'], " ");
        Event(format!("{field}: {clean}\n{}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_browsers_read_them() {
        let event = Event::new("a\r\nb\rc").named("x\ny").with_id("7");
        assert_eq!(event.0, "id: 7\nevent: x y\ndata: a\ndata: b\ndata: c\n\n");
        assert_eq!(Event::new("").0, "data: \n\n");
    }

    #[test]
    fn those_that_are_gone_are_forgotten_though_nothing_is_sent() {
        let events = Events::new();
        for _ in 0..1000 {
            drop(events.subscribe());
        }
        assert!(events.lock().all.len() <= FEW + 1);
        let kept: Vec<Response> = (0..200).map(|_| events.subscribe()).collect();
        assert_eq!(events.send(Event::new("x")), 200);
        let first = kept.into_iter().next().unwrap();
        assert_eq!(first.into_text(), "retry: 1000\n\ndata: x\n\n");
        assert_eq!(events.send(Event::new("y")), 0);
    }
}
