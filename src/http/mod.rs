//! The inside of a worker: what happens between a client's first byte and the last byte of its answer.
//!
//! # The life of a request
//!
//! `gate` is the loop; it has `desk` take each step for a connection that is named here. All of this happens on the
//! gate's thread, but for 4 and 5, which a handler's thread does.
//!
//! 1. `door`: epoll reports the listener. The gate accepts the connection, and `table` gives it an entry and a token. Its
//!    phase is `Fresh`. It is read from at the end of the round; if nothing has come by then, epoll waits for its bytes.
//! 2. `receive`: bytes have come. `head` and `body` check them, in as many pieces as they come (`Head`, `Body`). What
//!    cannot be served is refused here.
//!    What needs no code of the program's and no patience is answered here: files that the kernel has at hand, fixed answers,
//!    404 (`routes` decides, `send` sends). What the socket does not take of it is `Writing`, as in 6.
//! 3. `link`: the request is whole, or its body so long that a handler is to read it (`Queued` until there is a permit;
//!    so is a file that is not at hand, and may have to be waited for).
//!    The connection goes on loan (`Lent`, `Waiting`). At the end of the round its job and all others are put into
//!    `exchange`. Where a handler's thread waits for tiny_http, one message on the private stream tells that of them.
//! 4. `server`: tiny_http gives the message to the handler's thread that waits, and this takes jobs from `exchange`
//!    (`Lent`, `Working`) until there are none left. One that is at work, or was a moment ago, takes them without it.
//! 5. `routes` finds the handler, `response` renders its answer, and the thread sends it. Where the socket takes all of
//!    it, the thread gives the connection back (`Lent`, `Idle` or `Closing`). Usually nobody tells the gate, which learns
//!    of it by the next thing that the client does.
//! 6. `send`: where the socket did not take all, a note gives the rest to the gate (`Writing`). When a stream needs its
//!    next piece, or that of a file is not at hand, the connection goes on loan again, and 4 follows.
//! 7. The next request may come (`Idle`), or the connection is shut for writing and its input thrown away until the
//!    client closes, too (`Lingering`).
//!
//! # Who may touch a connection
//!
//! The phase is the gate's word and changes on its thread alone. The loan is one atomic word that both sides write: the
//! gate before it lends, the handler's thread from then until it has given the connection back. In all phases but `Lent`
//! the loan says nothing.
//!
//! | phase | loan | who may touch it | what ends it |
//! |---|---|---|---|
//! | `Fresh` | | gate | its first bytes; `header_timeout`; another that needs its place, after a second; 100 ms where the worker stops |
//! | `Idle` | | gate | its next request; `idle_timeout`; another that needs its place; the drain, by closing it or passing it on |
//! | `Head` | | gate | its last byte; `header_timeout` |
//! | `Body` | | gate | its last byte, or more than 64 KiB; `io_timeout`, and sooner for those that drip |
//! | `Queued` | | gate | a permit; `io_timeout` |
//! | `Lent` | `Waiting` | nobody; its job waits for a thread | a thread takes the job |
//! | `Lent` | `Working` | handler | the handler's answer; nothing else can: the log names it after `handler_warn` |
//! | `Lent` | `Idle`, noted | nobody; a note says that more input is here | the gate takes the note |
//! | `Lent` | `Idle` | gate | as `Idle` |
//! | `Lent` | `Closing` | gate | as `Lingering` |
//! | `Writing` | | gate | its reader takes the last byte; `io_timeout` without any, and sooner for those that drip |
//! | `Parked` | | gate | something to send, which any thread may have; a sign of life is sent after 15 s; the client closes; the drain, by ending it whole |
//! | `Lingering` | | gate | the client closes; 2 s, and up to 30 s for what it still sends; 500 ms where the worker leaves |
//!
//! The end of the drain ends every row. A client that closes ends those in which the gate reads or writes.
//!
//! # What epoll reports
//!
//! A connection is watched for input from when the gate has found none on it, or a handler gives it back for the first time,
//! and then for good. Input is reported once, when it comes (`EPOLLET`). So who does not read it to its end has to remember
//! it (`is_readable`): a read that fills the buffer, an end that was reported and not met yet, and what comes while the
//! connection is on loan. Of the last the loan's own word knows (`SEEN`), and the handler that gives it back says so by a note.
//!
//! # The files
//!
//! Each imports only what stands before it; `tests/it/tidy.rs` has the order.
#![forbid(unsafe_code)]

mod accept;
mod access;
pub(crate) mod body;
pub(crate) mod bounds;
mod checked;
mod client;
mod conditions;
mod connection;
pub(crate) mod cookie;
mod date;
mod desk;
mod door;
mod escape;
pub(crate) mod events;
pub(crate) mod exchange;
mod expire;
pub(crate) mod failure;
mod feed;
mod files;
pub(crate) mod form;
pub(crate) mod gate;
pub(crate) mod head;
mod leave;
mod link;
mod listing;
mod metrics;
mod numbers;
pub(crate) mod orders;
pub(crate) mod output;
mod overview;
mod own;
pub(crate) mod pattern;
mod permits;
mod receive;
pub(crate) mod record;
mod refusals;
pub(crate) mod request;
mod resolve;
pub(crate) mod response;
pub(crate) mod routes;
mod save;
mod send;
pub(crate) mod server;
mod sweep;
mod table;
mod target;
mod types;
mod upload;
