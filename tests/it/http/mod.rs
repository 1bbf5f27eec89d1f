//! What a client gets for what it sends: answers, refusals, deadlines, limits, and what becomes of them on leaving.

mod access;
mod answers;
mod behind;
mod bodies;
mod bounds;
mod crowds;
mod drain;
mod edges;
mod every_kind;
mod exchange;
mod health;
mod long_streams;
mod meaning;
mod metrics;
mod one_thread;
mod passed_on;
mod private_stream;
mod requests;
pub mod strangers;
