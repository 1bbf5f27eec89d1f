//! The real binary, from outside.
//!
//! | where is the test of … | |
//! |---|---|
//! | a command: what it says, its exit status, its flags | `commands/`: `help`, `start`, `left`, `state` and `status`, `stop`, `restart` |
//! | a restart that goes well: in place, under load, to another address, `--cold` | `commands/`: `handover`, `odd_restarts`, `moves`, `same_port`, `cold`, `checks` |
//! | a restart that cannot go well | `faults/`: `failed_restarts`, `way_back` |
//! | the guides of the README | `commands/guides`, and `make box` |
//! | settings, addresses, passed sockets | `commands/`: `settings`, `misspelled`, `address`, `absent`, `notify` |
//! | the files in `run/`: pid file, lock, control socket, log; the commands where these are missing or odd | `commands/`: `pidfile`, `lock`, `control`, `logs`, `syslog`, `found`, `base_directory` |
//! | signals; what a daemon is; PID 1; the image; `make install`; other processors; programs that handlers start | `commands/`: `signals`, `signal_table`, `daemon`, `pid1`, `container`, `install`, `targets`, `children` |
//! | a request as it is written: each raw request of a table, beside nginx | `http/requests` |
//! | answers, bodies, deadlines, `/healthz` | `http/`: `exchange`, `answers`, `bodies`, `one_thread`, `edges`, `health` |
//! | behind a proxy | `http/behind` |
//! | what is bounded, and clients that mean no good | `http/`: `bounds`, `strangers`, `crowds` |
//! | what becomes of connections on a stop or a restart | `http/`: `drain`, `long_streams`, `every_kind`, `passed_on`; `commands/delay` |
//! | the private stream to tiny_http | `http/private_stream`, `faults/streams` |
//! | a directory of files as pages | `files/`: `pages`, `hostile`, `nginx`, `clients` |
//! | curl, wget, browsers, the libraries of other languages | `clients/`: `curl`, `programs`, `languages` |
//! | disks, log files that cannot be written | `faults/`: `disks`, `log_writing`, `rotation` |
//! | workers that die, hang, panic or run wild; memory | `faults/`: `workers`, `respawn`, `heartbeat`, `paused`, `panics`, `bombs`, `scribble`, `memory` |
//! | other users of the machine, workers of another user | `faults/`: `trust`, `privileges` |
//! | old kernels, systems without `/proc`, with few descriptors, with a clock that is set | `faults/`: `old_kernels`, `bare`, `foreign`, `descriptors`, `uptime` |
//! | what is shipped: files for init systems, each run by it; packages, the manual, clusters | `shipping/` |
//! | an application of one's own: hooks, state, settings, commands, events, the examples | `own/` |
//! | the rules of the house | `tidy` |
//!
//! What the tests are made with is in `support/`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What a test says, it says on the terminal.

mod clients;
mod commands;
mod faults;
mod files;
mod http;
mod own;
mod shipping;
mod support;
mod tidy;

use support::{load, look};
