//! The clocks that nobody sets: `clock_gettime(2)`.

use super::check;
use std::io;
use std::time::Duration;

/// Since the machine was started, time asleep included, the same in every process: CLOCK_BOOTTIME. Before Linux 2.6.39,
/// and where a sandbox does not let it through, time asleep is not counted.
pub fn boottime() -> Duration {
    now(libc::CLOCK_BOOTTIME).unwrap_or_else(|_| monotonic())
}

/// CLOCK_MONOTONIC, which `sd_notify(3)` counts by.
pub fn monotonic() -> Duration {
    now(libc::CLOCK_MONOTONIC).unwrap_or_default()
}

fn now(clock: libc::clockid_t) -> io::Result<Duration> {
    // SAFETY: timespec is plain integers, for which all zeros is a value.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one timespec that lives through the call.
    check(unsafe { libc::clock_gettime(clock, &mut now) })?;
    Ok(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}

/// A moment on the wall clock of this place, as far as `syslog(3)` tells it: the month and the rest from 0 on, the day
/// from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Local {
    pub month: usize,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
}

/// Now, by `localtime_r(3)`, which knows the time zone as far as the system does.
pub fn local() -> Local {
    // SAFETY: a null pointer is allowed, and nothing is written then.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    // SAFETY: tm is plain integers and a pointer, for which all zeros is a value.
    let mut found: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live through the call. It reads TZ, which nothing here changes once there
    // are threads.
    unsafe { libc::localtime_r(&now, &mut found) };
    let number = |value: i32| u32::try_from(value).unwrap_or_default();
    Local {
        month: number(found.tm_mon) as usize,
        day: number(found.tm_mday).max(1),
        hour: number(found.tm_hour),
        minute: number(found.tm_min),
        second: number(found.tm_sec),
    }
}
