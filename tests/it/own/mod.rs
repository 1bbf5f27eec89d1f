//! What the crate gives an application of one's own.

mod events;
mod examples;
mod hooks;
mod settings;
mod stopping;
