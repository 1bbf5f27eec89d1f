//! An HTTP application that manages its own process.
//!
//! Give [`App`] your handlers, and your program has the commands `app start`, `app state`, `app stop`, `app restart`
//! and `app check`, a daemon mode, a pid file, a log file, a graceful drain, and a restart that loses no request. This is
//! a whole one:
//!
//! ```no_run
//! use hade::App;
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     App::new("greeter")
//!         .get("/", |_| "Hello, World!\n")
//!         .get("/hello/{name}", |request| -> hade::Result<String> {
//!             let name: String = request.path_param("name")?;
//!             Ok(format!("Hello, {name}!\n"))
//!         })
//!         .main()
//! }
//! ```
//!
//! `greeter app start` serves on port 8888 until Ctrl-C, `greeter app start --daemon` in the background, and `greeter
//! --help` has the rest. The README tells what each command does, and all settings.
//!
//! Four programs to begin with are in `tests/examples` of the source: a JSON API (`notes`), uploads and downloads
//! (`firmware`), events (`live`), and a health check of one's own (`health`).
//!
//! # Routes
//!
//! [`App::get`], `post`, `put`, `patch`, `delete`, and [`App::route`] for any other method, take a path and a handler.
//! `{name}` in a path stands for one name, `{*name}` at its end for the rest; [`Request::path_param`] reads them. The most
//! specific route has a path. `HEAD` and `OPTIONS` are answered without being written; so are 404 ([`App::not_found`] says
//! it in your words), 405 and 501. [`App::files`] serves a directory, and [`App::fixed`] what is always the same. What cannot have been meant does not start:
//!
//! ```text
//! greeter: src/main.rs:7: path "/todo/:id" of GET: ":id": a parameter is {id}
//! ```
//!
//! # Answers
//!
//! A handler returns what [becomes a response](IntoResponse): text, a [`Response`], a status with either, or a `Result` of
//! them. [`Response::json`] and its like make one; `with_status`, `with_header`, `with_cookie` and `with_etag` change it;
//! [`Response::redirect`], [`Response::not_modified`] and [`Response::unauthorized`] are for what they say.
//!
//! # State
//!
//! What a handler needs is made by [`App::boot`] in each worker, after the fork: a pool, a database, a cache, threads.
//! Handlers after it get it as a reference beside the request, typed, from several threads at a time. An error is the
//! reason why the start fails, or why a restart is given up.
//!
//! ```
//! use hade::{App, Error, Request, With, Worker};
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//!
//! struct Stock(Mutex<HashMap<String, u32>>);
//!
//! fn boot(worker: &Worker) -> hade::Result<Stock> {
//!     let first: u32 = worker.setting("first_stock").parse()?;
//!     Ok(Stock(Mutex::new([("tea".to_owned(), first)].into())))
//! }
//!
//! fn take(request: &mut Request, stock: &Stock) -> hade::Result<String> {
//!     let name: String = request.path_param("name")?;
//!     let mut stock = stock.0.lock().map_err(|_| Error::new(500, "a lock broke"))?;
//!     let left = stock.get_mut(&name).ok_or(Error::new(404, "we never have that"))?;
//!     *left = left.checked_sub(1).ok_or(Error::new(409, "none is left"))?;
//!     Ok(format!("{left} left\n"))
//! }
//!
//! fn app() -> App<With<Stock>> {
//!     App::new("shop")
//!         .setting("first_stock", "2", "how much of everything there is at first")
//!         .boot(boot)
//!         .post("/take/{name}", take)
//! }
//!
//! let client = app().test();
//! let take = |name: &str| client.send(Request::new("POST", &format!("/take/{name}")));
//! assert_eq!(take("tea").into_text(), "1 left\n");
//! assert_eq!(take("tea").status(), 200);
//! assert_eq!(take("tea").status(), 409);
//! assert_eq!(take("gold").into_text(), "404 Not Found: we never have that\n");
//! ```
//!
//! [`App::on_stop`] is called when a worker has answered its last request; then the state is dropped. During a restart the
//! old workers finish beside the new ones, so that there are two of everything for a moment: what must be the same for all
//! is in a database or in files.
//!
//! # Errors
//!
//! In a function that returns [`hade::Result`](Result) every error goes by `?`: the client gets 500 and a line that says
//! nothing, the log the reason with method and path. [`Error::new`] makes one that the client is to know. An error type of
//! your own implements [`IntoResponse`]. A closure has to say what it returns, as `|request| -> hade::Result`, for `?` says
//! only half of it. A panic is 500, and costs nobody else anything. [`App::after`] gives all errors another form.
//!
//! # Hooks
//!
//! [`App::before`] is asked before every handler of a path and what is below it: for logins ([`Request::basic_auth`]),
//! tokens ([`Request::has_bearer`]) and the like. [`App::after`] gets every answer: for fields that all have, times, errors in
//! another form. Neither can be got by: files, 404 and 413 go through them as well. hade's own `/healthz`, `/metrics` and
//! `/status` do not.
//!
//! # What was sent
//!
//! [`Request::param`] reads the query, [`Request::form`] a form, [`Request::text`] and [`Request::body`] a body,
//! [`Request::cookie`] and [`Request::header_text`] what they are called. Who asks is [`Request::client`], also behind a proxy
//! that `app.trusted_proxies` names.
//!
//! # Files and long bodies
//!
//! [`Response::file_for`] sends a file, a part of it, or word that it has not changed, and no thread waits while a client
//! reads. [`Request::save_body`] puts what is sent into a file, whole or not at all; [`Request::body_reader`] has it as it
//! comes, for a digest or a partition. Neither needs memory. `app.max_body` is 1 MiB, and [`App::max_body`] changes it for a
//! path.
//!
//! # Streams and events
//!
//! [`Response::stream`] sends what a [`Read`](std::io::Read) makes while it is sent. [`Events`] are for what happens when it
//! happens: thousands may listen, and none holds a thread. They end by themselves when their worker leaves; a stream of
//! yours, and a handler that takes long, ask [`Worker::is_leaving`] and [`Request::is_client_gone`]. A restart and a stop
//! wait for `app.close_wait`, and then cut what is not finished. A handler that waits holds one of `app.threads`, 64 unless
//! set, and when all wait nobody else is answered: a long poll needs a bound of its own, or is better an event.
//!
//! # Settings, commands, the log
//!
//! [`App::setting`] adds a setting of your own, by file, variable and `--set` like those of hade; [`App::command`] a command
//! beside `app`; [`App::version`] is what `--version` says. [`log`] writes into the log of the service.
//!
//! # Tests
//!
//! [`App::test`] gives a [`TestClient`]: a [`Request`] that you build goes through hooks, routes and state, without a socket
//! or a process. Put the application into a function of its own for that, as above.
//!
//! # Shipping it
//!
//! A static executable of about two megabytes, for an image that has nothing else in it:
//!
//! ```text
//! RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target x86_64-unknown-linux-gnu
//! ```
//!
//! `opt-level = "s"`, `lto = "fat"`, `codegen-units = 1` and `strip = true` under `[profile.release]` make it small. `panic`
//! has to stay `"unwind"`: with `"abort"` a panic in a handler ends the worker.
//!
//! # Versions
//!
//! Methods and settings may be added in a minor version. [`IntoResponse`] is the one trait that is yours to implement; types
//! have no public fields, and are made by their functions alone.
//!
//! # What is refused
//!
//! What two readers could understand in two ways is refused, and so is what no grammar of HTTP has: a proxy in front and
//! the program behind it must not see different requests. An answer of 400 says in a line what was wrong, and closes the
//! connection. Where others are more lenient:
//!
//! - Blanks behind a chunk size or at the end of a chunk extension, and extensions that are not `;name` or `;name=value`:
//!   400 (RFC 9112 §7.1.1 has blanks around `;` and `=` alone). Where such lines end, readers have been of two minds.
//! - Bytes above 127 in a target: 400 (RFC 3986 §2). Proxies escape them or not, so that rules and caches in front see
//!   another path than the program. Browsers escape them; by hand it is `/caf%C3%A9`.
//! - A fragment in a target: 400 (RFC 9112 §3.2). Some cut it off and some take it for a part of the path.
//! - More than 100 fields: 431. `app.max_header` limits their bytes.
//! - `Transfer-Encoding` with more than `chunked`: 501, or 400 where `chunked` is not the last. Several such fields are one
//!   list.
//! - A target of `https://`: 421, unless one of `app.trusted_proxies` sends it (RFC 9110 §7.4).
//! - A method that no page of the program has and that is no standard one: 501 (RFC 9110 §9.1).
//!
//! An escape that is not needed is no reason: `/%68ello` is `/hello` (RFC 3986 §6.2.2.2), for routes as for files. A proxy
//! that keeps people from some paths has to compare them decoded, as nginx does; one that compares what was sent (HAProxy
//! without `http-request normalize-uri percent-decode-unreserved`) lets the other spellings pass. What an escape could
//! change stays escaped: `%2F` is no slash, and `..` is not resolved.

mod access;
mod address;
mod app;
mod cli;
mod clock;
mod conf;
mod daemon;
mod error;
mod house;
mod http;
mod ledger;
mod level;
mod listener;
pub mod log;
mod logfile;
mod memory;
mod notify;
mod owned;
mod pidfile;
mod place;
mod proxies;
mod readiness;
mod service;
mod serving;
mod settings;
mod signals;
mod spelling;
mod stdio;
mod supervisor;
mod sys;
mod syslog;
mod user;

pub use app::build::{App, With, Without};
pub use app::call::Call;
pub use app::testing::TestClient;
pub use http::cookie::Cookie;
pub use http::events::{Event, Events};
pub use http::failure::Error;
pub use http::form::{Form, Login, is_secret};
pub use http::request::{Request, Worker};
pub use http::response::{IntoResponse, Response, Result};
#[doc(hidden)]
pub use sys::entry::enter;
