//! What goes wrong around hade and inside it: disks, memory, processes, kernels, other users, clocks.

mod bare;
mod bombs;
mod descriptors;
mod disks;
mod failed_restarts;
mod foreign;
mod heartbeat;
mod log_writing;
mod memory;
mod old_kernels;
mod panics;
mod paused;
mod privileges;
mod respawn;
mod rotation;
mod scribble;
pub mod streams;
mod trust;
mod uptime;
mod way_back;
mod workers;
mod wrappers;
