//! Programs and libraries that others wrote, a round trip each.

mod curl;
mod languages;
pub mod programs;

use crate::support::Place;
use std::process::Command;

/// The longest that a client may take for anything, as an argument.
pub const CLIENT_SECONDS: &str = "20";

/// A client in the directory, without a proxy between it and the server.
pub fn tool(place: &Place, name: &str) -> Command {
    let mut command = Command::new(name);
    for scheme in ["http", "https", "all", "no"] {
        let name = format!("{scheme}_proxy");
        command.env_remove(name.to_uppercase()).env_remove(name);
    }
    command
        .current_dir(&place.dir)
        .stdin(std::process::Stdio::null());
    command
}

/// After the clients: the site leaves at once, nothing was cut, and nothing went wrong on the way.
#[track_caller]
pub fn leaves_well(place: &Place) {
    place.app(&["stop"]).ok();
    let log = place.log();
    assert_eq!(place.trouble(), "");
    assert!(log.contains(" 0 cut\n"), "{log}");
}
