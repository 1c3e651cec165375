//! `--bwlimit` in rclone's grammar: one limit, or a weekly timetable of limits.

use std::num::NonZeroU64;
use std::str::FromStr;

use jiff::Zoned;
use ringlift::Bandwidth;

use super::values::Size;

/// Bandwidth limits by the minute of the week, in local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timetable {
    /// Sorted by time; never empty.
    entries: Vec<TimetableEntry>,
}

/// A limit and the minute from which it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TimetableEntry {
    from: Minute,
    limit: Limit,
}

/// Bytes per second; `None` is no limit.
type Limit = Option<NonZeroU64>;

/// A minute of the week, counted from Monday 00:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Minute(u32);

impl Timetable {
    /// Sets `bandwidth` to the limit for the current time.
    pub(super) fn apply(&self, bandwidth: &Bandwidth) {
        let limit = match self.entries.as_slice() {
            // One limit needs neither the clock nor the time zone.
            [only] => only.limit,
            _ => self.at(Minute::of(&Zoned::now())),
        };
        // Called ten times a second: only a change is logged.
        if limit != bandwidth.limit() {
            let bytes_per_s = limit.map_or(0, NonZeroU64::get);
            tracing::info!(bytes_per_s, "bandwidth limit changed");
            bandwidth.set(limit);
        }
    }

    /// Returns the lowest limit.
    pub(super) fn least(&self) -> Limit {
        // `off` is no limit, and so never the lowest one.
        self.entries.iter().filter_map(|entry| entry.limit).min()
    }

    /// Returns the limit of the latest entry that has started. Before the first entry of the week, that is
    /// the last entry of the previous week.
    fn at(&self, minute: Minute) -> Limit {
        let started = self.entries.iter().rfind(|entry| entry.from <= minute);
        started.or(self.entries.last()).and_then(|entry| entry.limit)
    }
}

impl FromStr for Timetable {
    type Err = String;

    fn from_str(text: &str) -> Result<Timetable, String> {
        let words: Vec<&str> = text.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        let mut entries = match words.as_slice() {
            [] => return Err(GRAMMAR.to_owned()),
            [only] if !only.contains(',') => vec![TimetableEntry { from: Minute(0), limit: limit(only)? }],
            _ => words.into_iter().map(entries).collect::<Result<Vec<_>, _>>()?.concat(),
        };
        // The sort is stable: of two entries for the same minute, the later one in the text wins.
        entries.sort_by_key(|entry| entry.from);
        Ok(Timetable { entries })
    }
}

/// Parses `08:00,512k` (every day) or `Mon-08:00,512k`.
fn entries(word: &str) -> Result<Vec<TimetableEntry>, String> {
    let (when, how_much) = word.split_once(',').ok_or_else(|| format!("`{word}`: {GRAMMAR}"))?;
    let limit = limit(how_much)?;
    let (days, time) = match when.split_once('-') {
        None => (0..DAYS.len() as u32, when),
        Some((name, time)) => {
            let day = day(name).ok_or_else(|| format!("`{name}` is no day of the week: use Mon, Tue..."))?;
            (day..day + 1, time)
        }
    };
    let minute = minute_of_day(time).ok_or_else(|| format!("`{time}` is no time of day: use HH:MM"))?;
    Ok(days.map(|day| TimetableEntry { from: Minute(day * MINUTES_A_DAY + minute), limit }).collect())
}

/// Parses `10M`, `off` or `UP:DOWN`, and returns the limit for uploads.
fn limit(text: &str) -> Result<Limit, String> {
    // rclone limits both directions. There is only one here, but the other has to be a limit too.
    let (up, down) = text.split_once(':').unwrap_or((text, "off"));
    one_way(down)?;
    one_way(up)
}

fn one_way(text: &str) -> Result<Limit, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    // rclone's default unit for this flag is KiB; every other size here defaults to bytes.
    let unit = if text.ends_with(|c: char| c.is_ascii_digit()) { "K" } else { "" };
    let Size(bytes) = format!("{text}{unit}").parse().map_err(|_| format!("`{text}`: {GRAMMAR}"))?;
    // 0 is `off`, as for rclone.
    Ok(NonZeroU64::new(bytes))
}

fn day(name: &str) -> Option<u32> {
    let name = name.to_ascii_lowercase();
    let position = DAYS.iter().position(|day| name == *day || name == day[..3])?;
    Some(position as u32)
}

fn minute_of_day(time: &str) -> Option<u32> {
    let (hours, minutes) = time.split_once(':')?;
    let number = |digits: &str, below: u32| {
        let is_plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|number: &u32| is_plain && *number < below)
    };
    Some(number(hours, 24)? * 60 + number(minutes, 60)?)
}

impl Minute {
    fn of(now: &Zoned) -> Minute {
        let day = now.weekday().to_monday_zero_offset() as u32;
        Minute(day * MINUTES_A_DAY + now.hour() as u32 * 60 + now.minute() as u32)
    }
}

const GRAMMAR: &str = "use a limit like 10M, 512k or off, or a timetable like \"08:00,512k Sat-10:00,10M\"";

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

const MINUTES_A_DAY: u32 = 24 * 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str) -> Timetable {
        text.parse().unwrap()
    }

    /// In KiB a second; 0 is none.
    fn kib_at(text: &str, when: &str) -> u64 {
        let TimetableEntry { from, .. } = entries(&format!("{when},off")).unwrap()[0];
        table(text).at(from).map_or(0, NonZeroU64::get) / 1024
    }

    #[test]
    fn a_plain_limit_is_in_kib_a_second_and_its_suffixes_are_powers_of_1024() {
        let bytes = |text: &str| table(text).at(Minute(5000)).map(NonZeroU64::get);
        for (text, expected) in [
            ("512", 512 << 10),
            ("1.5", 1536),
            ("100B", 100),
            ("512k", 512 << 10),
            ("10M", 10 << 20),
            ("10MiB", 10 << 20),
            ("10Mi", 10 << 20),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("1P", 1 << 50),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["off", "OFF", "0", "off:1M"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(bytes("10M:1M"), Some(10 << 20), "only uploads count");
    }

    #[test]
    fn timetable_without_days_applies_to_every_day() {
        let daily = "08:00,512k 12:00,10M 13:00,512k 18:00,30M 23:00,off";
        for day in ["Mon", "Wed", "Sun"] {
            for (time, kib) in [
                ("00:00", 0),
                ("07:59", 0),
                ("08:00", 512),
                ("12:30", 10 << 10),
                ("17:59", 512),
                ("22:59", 30 << 10),
                ("23:00", 0),
            ] {
                assert_eq!(kib_at(daily, &format!("{day}-{time}")), kib, "{day} {time}");
            }
        }
        assert_eq!(table(daily).least().map(NonZeroU64::get), Some(512 << 10));
    }

    #[test]
    fn timetable_with_days_wraps_around_the_week() {
        let weekly = "Mon-00:00,512 Fri-23:59,10M Sat-10:00,1M Sun-20:00,off";
        for (when, kib) in [
            ("Mon-00:00", 512),
            ("Fri-23:58", 512),
            ("Fri-23:59", 10 << 10),
            ("Saturday-09:59", 10 << 10),
            ("sat-10:00", 1 << 10),
            ("Sun-19:59", 1 << 10),
            ("Sun-20:00", 0),
        ] {
            assert_eq!(kib_at(weekly, when), kib, "{when}");
        }
        assert_eq!(kib_at("Tue-10:00,7;Thu-10:00,9", "Mon-12:00"), 9);
        assert_eq!(kib_at("08:00,7 Wed-08:00,9", "Wed-09:00"), 9, "the last word counts");
    }

    #[test]
    fn invalid_limit_is_refused_with_the_grammar() {
        for text in [
            "",
            "bad",
            "1000X",
            "-1",
            "bad,bad",
            "bad bad",
            "2401,666",
            "1061,666",
            "24:00,1",
            "10:60,1",
            "1:00,1",
            "+1:00,1",
            "bad-10:20,666",
            "Mon-bad,666",
            "Mon-10:20,bad",
            "10M 08:00,1M",
            "10M:bad",
        ] {
            assert!(!text.parse::<Timetable>().unwrap_err().is_empty(), "{text}");
        }
    }

    #[test]
    fn local_time_maps_to_the_minute_of_the_week() {
        let at = |text: &str| Minute::of(&text.parse().unwrap());
        assert_eq!(at("2025-03-03T00:00:00+01:00[Europe/Paris]"), Minute(0));
        assert_eq!(at("2025-03-09T23:59:59+01:00[Europe/Paris]"), Minute(7 * MINUTES_A_DAY - 1));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = text.parse::<Timetable>();
        }
    }
}
