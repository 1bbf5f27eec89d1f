//! The calendar: RFC 3339 for the log, IMF-fixdate (RFC 9110 §5.6.7) for HTTP. UTC, no leap seconds, as `time(2)`. And
//! the clock for how long something has lasted: the calendar is set, now and then by decades.
#![forbid(unsafe_code)]

pub use crate::sys::clock::boottime;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago this was by [`boottime`]; nothing, where it is yet to come.
pub fn since(boottime_then: Duration) -> Duration {
    boottime().saturating_sub(boottime_then)
}

/// When something of [`boottime`] was, by the calendar as it is set now: since the start of 1970.
pub fn calendar(boottime_then: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(since(boottime_then))
}

/// A moment in the calendar of UTC.
pub struct Utc {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    weekday: usize,
    millis: u32,
}

impl Utc {
    /// Now; a clock set before 1970 reads as its first second.
    pub fn now() -> Utc {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Utc::at(since.as_secs(), since.subsec_millis())
    }

    /// A moment after the start of 1970.
    pub fn at(seconds: u64, millis: u32) -> Utc {
        let days = seconds / 86400;
        // Years that start in March put the leap day last; 719468 days lie between 0000-03-01 and 1970-01-01.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Utc {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            second_of_day: seconds % 86400,
            weekday: (days % 7) as usize,
            millis,
        }
    }

    fn time(&self) -> (u64, u64, u64) {
        (
            self.second_of_day / 3600,
            self.second_of_day / 60 % 60,
            self.second_of_day % 60,
        )
    }

    /// How far into its second it is.
    pub fn millis(&self) -> u32 {
        self.millis
    }

    /// `06/Nov/1994:08:49:37 +0000`, as the access logs of web servers have it.
    pub fn common(&self) -> String {
        let (hour, minute, second) = self.time();
        let (day, month, year) = (self.day, MONTHS[self.month as usize - 1], self.year);
        format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn http(&self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        let (hour, minute, second) = self.time();
        let mut text = String::with_capacity(29);
        text += DAYS[self.weekday];
        text += ", ";
        push_two(&mut text, self.day);
        text.push(' ');
        text += MONTHS[self.month as usize - 1];
        text.push(' ');
        match self.year {
            0..=9999 => {
                push_two(&mut text, self.year / 100);
                push_two(&mut text, self.year % 100);
            }
            year => text += &year.to_string(),
        }
        for (before, number) in [(' ', hour), (':', minute), (':', second)] {
            text.push(before);
            push_two(&mut text, number);
        }
        text + " GMT"
    }
}

/// Two digits, without the cost of [`fmt`]: each answer with a file has a date.
fn push_two(text: &mut String, number: u64) {
    for digit in [number / 10, number % 10] {
        text.push(char::from(b'0' + digit as u8));
    }
}

pub(crate) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `1994-11-06T08:49:37.000Z`.
impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = self.time();
        let (year, month, day, millis) = (self.year, self.month, self.day, self.millis);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_of_five_digits_has_all_of_them() {
        let far = Utc::at(253_402_300_800, 0).http();
        assert_eq!(far, "Sat, 01 Jan 10000 00:00:00 GMT");
    }

    #[test]
    fn known_moments() {
        for (seconds, rfc3339, http) in [
            (
                0,
                "1970-01-01T00:00:00.007Z",
                "Thu, 01 Jan 1970 00:00:00 GMT",
            ),
            (
                784_111_777,
                "1994-11-06T08:49:37.007Z",
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (
                951_782_400,
                "2000-02-29T00:00:00.007Z",
                "Tue, 29 Feb 2000 00:00:00 GMT",
            ),
            (
                1_709_251_199,
                "2024-02-29T23:59:59.007Z",
                "Thu, 29 Feb 2024 23:59:59 GMT",
            ),
            (
                4_107_542_400,
                "2100-03-01T00:00:00.007Z",
                "Mon, 01 Mar 2100 00:00:00 GMT",
            ),
        ] {
            assert_eq!(Utc::at(seconds, 7).to_string(), rfc3339);
            assert_eq!(Utc::at(seconds, 7).http(), http);
        }
    }
}
