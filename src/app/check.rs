//! `app check`: are the settings good? Nothing of a running instance is touched.
#![forbid(unsafe_code)]

use super::{Service, print};
use crate::error::{Result, exit};
use crate::settings::Settings;
use crate::supervisor::handover::VARIABLE;
use crate::supervisor::restart::{CHECK, GOOD, HEARD};

/// Settings that were read are good settings: reading them is the check.
pub fn check(service: &Service, settings: &Settings) -> Result<u8> {
    print(&format!(
        "{}: {GOOD}, address {}\n",
        service.name, settings.address
    ));
    if std::env::var(VARIABLE).is_ok_and(|value| value == CHECK) {
        print(&format!("{}: {HEARD}\n", service.name));
    }
    Ok(exit::DONE)
}
