//! `app check`: are the settings good? Nothing of a running instance is touched.
#![forbid(unsafe_code)]

use super::print;
use crate::error::{Result, exit};
use crate::listener;
use crate::service::Service;
use crate::settings::Settings;
use crate::supervisor::handover::{self, GOOD, HEARD};

/// Settings that were read are good settings: reading them is the check.
pub fn check(service: &Service, settings: &Settings) -> Result<u8> {
    print(&format!(
        "{}: {GOOD}, address {}\n",
        service.name, settings.address
    ))?;
    if let Some(text) = listener::is_not_there_yet(&settings.address) {
        print(&format!("{}: {text}\n", service.name))?;
    }
    if handover::is_heard() {
        print(&format!("{}: {HEARD}\n", service.name))?;
    }
    Ok(exit::DONE)
}
