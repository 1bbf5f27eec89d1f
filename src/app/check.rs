//! `app check`: are the settings good? Nothing of a running instance is touched.
#![forbid(unsafe_code)]

use super::{cannot_enter, print};
use crate::error::{Result, exit};
use crate::listener;
use crate::service::Service;
use crate::settings::Settings;
use crate::supervisor::handover::{self, GOOD, HEARD};
use std::path::Path;

/// Settings that were read are good settings: reading them is the check. Beside that it is looked whether what a start needs
/// is there.
pub fn check(service: &Service, settings: &Settings) -> Result<u8> {
    let place = &settings.place;
    // Where there is none, there are no settings to be read either.
    let base = place.base.join(".").metadata();
    base.map_err(|error| cannot_enter(&place.base, &error))?;
    let is_heard = handover::is_heard();
    // One that restarts may stay at its address, whatever has become of its name or directory.
    if !is_heard {
        let files = [&place.pid_file, &place.log_file].into_iter();
        let files = files.chain(settings.access_log.file());
        let made: Vec<&Path> = files.filter_map(|file| file.parent()).collect();
        listener::check(&settings.address, &made)?;
    }
    print(&format!(
        "{}: {GOOD}, address {}\n",
        service.name, settings.address
    ))?;
    if let Some(text) = listener::is_not_there_yet(&settings.address) {
        print(&format!("{}: {text}\n", service.name))?;
    }
    let serving = &settings.serving;
    if let (Some(root), Some(page)) = (&serving.root, &serving.fallback) {
        let is_there = |page: &str| root.join(page).is_file();
        if !(is_there(page) || is_there(&format!("{page}.gz"))) {
            let root = root.display();
            print(&format!(
                "{}: app.fallback {page} is not in {root} yet\n",
                service.name
            ))?;
        }
    }
    if is_heard {
        print(&format!("{}: {HEARD}\n", service.name))?;
    }
    Ok(exit::DONE)
}
