//! The real binary, from outside.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What a test says, it says on the terminal.

mod address;
mod clients;
mod container;
mod control;
mod crowds;
mod curl;
mod daemon;
mod drain;
mod edges;
mod failures;
mod faults;
mod handover;
mod http;
mod languages;
mod load;
mod logs;
mod look;
mod notify;
mod pid1;
mod pidfile;
mod requests;
mod restart;
mod settings;
mod signals;
mod start;
mod state;
mod status;
mod stop;
mod strangers;
mod support;
mod tidy;
mod workers;
