//! What the tests are made with: a directory of their own with the real binary in it, processes, connections, loads,
//! and conditions to wait for.

mod hammer;
mod life;
pub mod load;
pub mod look;
mod needs;
mod place;
mod process;
mod site;
mod waiting;
mod wire;

pub use hammer::{Hammer, Tally, again, asks_to_the_end, once};
pub use life::whole_life;
pub use needs::{has, is_root, skip};
pub use place::{HADE, Place, demo, fact};
pub use process::{
    Done, Foreground, Meanwhile, descriptors, finish, freeze, has_it, is_alive, run,
    settled_descriptors, signal, sleeps, threads, wait_asleep, worker, workers, working_in,
};
pub use site::Site;
pub use waiting::{PATIENCE, holds_for, in_time, is_short, pause, wait_until, was_soon};
pub use wire::{Answer, Wire, assert_overloaded, get, pattern, post, post_chunked};
