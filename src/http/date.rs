//! Dates of HTTP, read (RFC 9110 §5.6.7); `clock` writes them. Pure.
#![forbid(unsafe_code)]

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Reads a date of HTTP in any of its three forms (RFC 9110 §5.6.7) as seconds since 1970; the name of the day is not
/// looked at. `None` for what is no date.
pub fn parse(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (day, month, year, time) = match *words.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [_, day, month, year, time, "GMT"] if year.len() == 4 => (day, month, year, time),
        // Sunday, 06-Nov-94 08:49:37 GMT
        [_, date, time, "GMT"] => {
            let mut parts = date.split('-');
            let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() || year.len() != 2 {
                return None;
            }
            (day, month, year, time)
        }
        // Sun Nov  6 08:49:37 1994
        [_, month, day, time, year] if year.len() == 4 => (day, month, year, time),
        _ => return None,
    };
    let number = |text: &str, most: i64| {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<i64>().ok();
        number.filter(|number| is_digits && *number <= most)
    };
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as i64;
    let year = match (number(year, 9999)?, year.len()) {
        // More than fifty years ahead is the past (RFC 9110 §5.6.7); here those years end with 2069.
        (short, 2) if short < 70 => 2000 + short,
        (short, 2) => 1900 + short,
        (year, _) => year,
    };
    let mut parts = time.split(':');
    let mut part = |most| number(parts.next().filter(|part| part.len() == 2)?, most);
    // A leap second is the last one of its minute, or the first of the next.
    let (hour, minute, second) = (part(23)?, part(59)?, part(60)?);
    if parts.next().is_some() {
        return None;
    }
    let day = number(day, 31).filter(|day| *day > 0)?;
    // As in `clock::Utc::at`: years that start in March.
    let from_march = (month + 9) % 12;
    let years = year - i64::from(month <= 2);
    let days = years * 365 + years.div_euclid(4) - years.div_euclid(100)
        + years.div_euclid(400)
        + (153 * from_march + 2) / 5
        + day
        - 1
        - 719_468;
    Some(days * 86400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Utc;

    #[test]
    fn dates_of_http_are_read_back_in_every_form() {
        let mut seconds = 0;
        while seconds < 9_000_000_000_u64 {
            let text = Utc::at(seconds, 0).http();
            assert_eq!(parse(text.as_bytes()), Some(seconds as i64), "{text}");
            seconds += 86400 * 13 + 4567;
        }
        for (text, expected) in [
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun Nov 06 08:49:37 1994", Some(784_111_777)),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_800)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thursday, 01-Jan-70 00:00:00 GMT", Some(0)),
            ("Monday, 01-Jan-69 00:00:00 GMT", Some(3_124_224_000)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            ("", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37:01 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 06 Nov 99999 08:49:37 GMT", None),
            ("Sunday, 06-Nov-1994 08:49:37 GMT", None),
            ("784111777", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse(b"Sun, 06 Nov 1994 08:49:37 GMT\xff"), None);
    }
}
