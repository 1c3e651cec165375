//! The date in the `Expires` attribute of a cookie.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses the date of a cookie. `None` if it is none. Dates before 1970 count as the first moment of that year.
///
/// Servers write dates in more forms than HTTP has, such as `Thu, 01-Jan-1970 00:00:00 GMT`. RFC 6265, section 5.1.1,
/// takes a time, a day, a month and a year in any order, and ignores the weekday and the zone.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        // The order of the attempts is the RFC's: `06` is a day first, and a year of two digits afterwards.
        if time.is_none() && time_of(token).is_some() {
            time = time_of(token);
        } else if day.is_none() && number(token, 1..=2).is_some() {
            day = number(token, 1..=2);
        } else if month.is_none() && month_of(token).is_some() {
            month = month_of(token);
        } else if year.is_none() {
            year = number(token, 2..=4);
        }
    }
    let ((hour, minute, second), day, month) = (time?, day?, month?);
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let is_date = (1..=31).contains(&day) && year >= 1601 && hour <= 23 && minute <= 59 && second <= 59;
    if !is_date {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    let days = u64::try_from(days_since_1970(year, month, day)).ok();
    let since_1970 = days.map_or(0, |days| days * 24 * 3600 + u64::from(seconds));
    Some(UNIX_EPOCH + Duration::from_secs(since_1970))
}

fn is_delimiter(c: char) -> bool {
    matches!(c, '\t' | ' '..='/' | ';'..='@' | '['..='`' | '{'..='~')
}

/// Parses `8:49:37` into hours, minutes and seconds.
fn time_of(token: &str) -> Option<(u32, u32, u32)> {
    let mut parts = token.splitn(3, ':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = is_whole(hour) && is_whole(minute);
    is_time.then_some((number(hour, 1..=2)?, number(minute, 1..=2)?, number(second, 1..=2)?))
}

/// Parses the digits at the start of a token if their number is within `digits`. Other text may follow them.
fn number(token: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let end = token.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(token.len());
    digits.contains(&end).then(|| token[..end].parse().ok())?
}

/// Returns the number of the month, from 1. Only the first three letters count.
fn month_of(token: &str) -> Option<u32> {
    let name = token.get(..3)?.to_ascii_lowercase();
    let index = MONTHS.iter().position(|month| **month == *name)?;
    u32::try_from(index + 1).ok()
}

/// Returns the days from 1970-01-01 to a day of the Gregorian calendar; negative before it.
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    // Years that begin in March have the leap day at their end, so that the days before a month do not depend on it.
    let (year, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    // Months from March on have 31, 30, 31, 30, 31 days, repeatedly: 153 days in five months.
    let days = year * 365 + leap_days + (months * 153 + 2) / 5 + (day - 1);
    // 719,468 days lie between the first of March of the year 0 and 1970.
    i64::from(days) - 719_468
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse(text).map(|date| date.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn every_form_that_servers_write_is_the_same_moment() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "6 november 1994 8:49:37",
            "08:49:37 Nov/6/94 +0200",
            "Mon, 06 Nov 1994 08:49:37 (the weekday is wrong)",
        ] {
            assert_eq!(seconds(text), Some(784_111_777), "{text}");
        }
        for past in ["Thu, 01-Jan-1970 00:00:00 GMT", "Mon, 01 Jan 1900 00:00:00 GMT"] {
            assert_eq!(seconds(past), Some(0), "{past}");
        }
        assert_eq!(seconds("Tue, 19 Jan 2038 03:14:08 GMT"), Some(1 << 31));
    }

    #[test]
    fn a_text_that_lacks_a_part_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Session",
            "06 Nov 1994",
            "06 1994 08:49:37",
            "Nov 1994 08:49:37",
            "06 Nov 08:49:37",
            "32 Nov 1994 08:49:37",
            "00 Nov 1994 08:49:37",
            "06 Nov 1994 24:00:00",
            "06 Nov 1994 08:60:00",
            "06 Nov 1500 08:49:37",
            "06 Nov 19944 08:49:37",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_of_http_are_read_as_they_were_written(seconds_since in 0u64..253_402_300_800) {
            let date = UNIX_EPOCH + Duration::from_secs(seconds_since);
            prop_assert_eq!(parse(&httpdate::fmt_http_date(date)), Some(date));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", digits in "[0-9:. JanNov-]{0,40}") {
            let _ = (parse(&text), parse(&digits));
        }
    }
}
