//! The process model: a master that decides (`plan`) and does (`master`, with its `holdings` and its `roster`), the way
//! through an exec (`check`, `restart`, `exec`, `resume`; `handover` is what crosses it), workers that serve (`worker`),
//! and the words between all of them (`wire`, `control`, `status`).
#![forbid(unsafe_code)]

mod check;
pub(crate) mod control;
mod exec;
pub(crate) mod handover;
pub(crate) mod holdings;
pub(crate) mod master;
pub(crate) mod plan;
mod restart;
pub(crate) mod resume;
mod roster;
mod status;
mod wire;
mod words;
mod worker;
