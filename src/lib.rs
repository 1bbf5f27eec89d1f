//! An HTTP application that manages its own process.
//!
//! Give [`App`] your handlers, and your program has the commands `app start`, `app state`, `app stop`, `app restart`
//! and `app check`, a daemon mode, a pid file, a log file and a graceful drain:
//!
//! ```no_run
//! use hade::{App, Response};
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     App::new("greeter").get("/hello", |_| Response::text("Hello, World!")).main()
//! }
//! ```
//!
//! The house, from the door down; each floor uses the ones below it and none above:
//!
//! - `app` has a file per command; `cli` turns words into values.
//! - `supervisor` has the process model: `plan` decides, `master` does, `worker` serves, and `wire` is what these two
//!   say to each other; `control` is where commands ask, `status` what they are told, `restart` and `handover` the way
//!   through an exec.
//! - `http` has the worker's inside: `gate` owns the sockets, `receive` and `send` are its two directions, `leave` its
//!   end; `head` and `body` check what comes in, `upload` and `output` are what is longer than one piece, `refusals`
//!   counts what was turned away; `server` has tiny_http and the handler threads behind it, `exchange` is where gate and
//!   handlers meet, `routes` finds handlers, `response` is what they answer.
//! - `listener`, `pidfile`, `ledger`, `readiness`, `notify`, `daemon`, `signals`: one mechanism of Unix each.
//! - `settings`, `conf`, `address`, `place`, `log`, `clock`, `error`: values and words.
//! - `sys` has every system call and all of the `unsafe`.

mod address;
mod app;
mod cli;
mod clock;
mod conf;
mod daemon;
mod error;
mod http;
mod ledger;
mod listener;
mod log;
mod notify;
mod pidfile;
mod place;
mod readiness;
mod settings;
mod signals;
mod supervisor;
mod sys;

pub use app::App;
pub use http::Request;
pub use http::response::Response;
