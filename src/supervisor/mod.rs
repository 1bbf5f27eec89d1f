//! The process model: a master that decides (`plan`) and does (`master`, `restart`, `status`), workers that serve
//! (`worker`), and the words between all of them (`wire`, `control`, `handover`).
#![forbid(unsafe_code)]

pub(crate) mod control;
pub(crate) mod handover;
pub(crate) mod master;
pub(crate) mod plan;
pub(crate) mod restart;
pub(crate) mod status;
pub(crate) mod wire;
pub(crate) mod words;
pub(crate) mod worker;
