//! The real binary, from outside.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What a test says, it says on the terminal.

mod address;
mod answers;
mod bodies;
mod bounds;
mod clients;
mod container;
mod control;
mod daemon;
mod drain;
mod every_kind;
mod failures;
mod faults;
mod handover;
mod http;
mod load;
mod logs;
mod look;
mod notify;
mod pid1;
mod pidfile;
mod restart;
mod settings;
mod signals;
mod start;
mod state;
mod status;
mod stop;
mod stream_faults;
mod support;
mod tidy;
mod workers;
