//! The map of the source, for those who work on it.
//!
//! From the door down; each floor uses the ones below it and none above:
//!
//! - `app` has a file per command, what a program is put together with (`build`), its own commands (`call`), and the way in
//!   for tests (`testing`); `cli` turns words into values.
//! - `supervisor` has the process model: `plan` decides, `master` does, by way of its `holdings` and its `roster` of
//!   workers, which has their heartbeat; `worker` serves, and `wire` is what these two say to each other; `control` is where
//!   commands ask, in `words`, `status` what they are told; `check`, `restart`, `exec` and `resume` are the way through an
//!   exec, and `handover` what crosses it.
//! - `http` has the worker's inside; its own head tells the life of a request. `gate` is the loop: `door` has the
//!   listener, `desk` what is done for connections, `leave` the end. `table` has the connections, `link` the way to the
//!   handlers; `receive` and `send` say the next step for one `connection`, `sweep` looks at all, `expire` judges whose
//!   time is over by `bounds`, `orders` come from the main thread.
//!   `server` has tiny_http and the handler threads, `exchange` is where gate and handlers lend each other a `client`,
//!   `permits` are for long bodies and slow disks, `record` keeps the access log, whose lines `access` makes, `refusals`
//!   counts what was turned away. `head` and `body` check what comes in, `checked`, `request` and `upload` are what came,
//!   `form`, `cookie` and `escape` read what is in it, `save` makes it a file; `output` and `response` are what goes out,
//!   `failure` what went wrong, `feed` and `events` what comes when it comes; `routes` finds handlers by `pattern`, and
//!   asks the hooks around them;
//!   `numbers` says who may see `metrics` and the `overview`;
//!   `files` answers from a directory, where `resolve` opens what `target` allows and is not hade's `own`, `conditions`,
//!   `accept` and `date` read the fields, `types` names the type, and `listing` shows what is there.
//! - `service` is what a master and its workers know of an application.
//! - `listener`, `pidfile`, `ledger`, `readiness`, `notify`, `daemon`, `signals`: one mechanism of Unix each.
//! - `settings`, `serving`, `access` (of the log: `http` has its lines), `conf`, `spelling`, `address`, `place`, `proxies`,
//!   `level`, `clock`, `memory`, `error`: values and words; `user` is whom workers become. `owned`, `logfile`, `syslog`, `stdio` and `log`: the files that hade
//!   writes, and what it says in them.
//! - `sys` has every system call and all of the `unsafe`.
#![forbid(unsafe_code)]
