//! When a scheduled message is due: patterns and what follows from them.
//!
//! ```text
//! @at 2030-01-01T00:00:00Z     once
//! @every 1m30s                 again and again, at least a second apart
//! 0 30 9 * * mon-fri           second, minute, hour, day of month, month, day of week
//! @yearly @monthly @weekly @daily @hourly, @annually, @midnight
//! ```
//!
//! Everything follows from the pattern, the zone and two times that are passed in. Zones are those
//! that the program was built with, so that every server has the same.

use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan, Zoned};

use super::directives::go_duration_nanos;
use crate::time::Timestamp;

/// A pattern that matches at no time within these years is none.
const MAX_YEARS: i16 = 5;
const SECOND: i64 = 1_000_000_000;

/// When a message is produced, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occurrence {
    pub(super) at: Timestamp,
    /// `at` as headers show it: in the zone of the pattern.
    pub(super) text: String,
    pub(super) repeats: bool,
}

/// A time zone by its name, exactly as it is written in the database.
pub(super) fn zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "UTC" | "Local") {
        return Some(TimeZone::UTC);
    }
    let zone = jiff::tz::TimeZoneDatabase::bundled().get(name).ok()?;
    (zone.iana_name() == Some(name)).then_some(zone)
}

/// The occurrence after `last`, or, when that has passed at `now`, the one after `now`: a schedule
/// that was asleep makes up for nothing. `None` when the pattern is none.
pub(super) fn next(
    pattern: &str,
    zone: Option<&TimeZone>,
    last: Timestamp,
    now: Timestamp,
) -> Option<Occurrence> {
    if let Some(time) = pattern.strip_prefix("@at ") {
        let at = zone.is_none().then(|| rfc3339(time)).flatten()?;
        return Some(Occurrence {
            at,
            text: at.to_string(),
            repeats: false,
        });
    }
    if let Some(span) = pattern.strip_prefix("@every ") {
        if zone.is_some() {
            return None;
        }
        let span = i64::try_from(go_duration_nanos(span)?).ok()?;
        if span < SECOND {
            return None;
        }
        let after = |time: Timestamp| Timestamp(rounded(time).saturating_add(span));
        let at = Some(after(last)).filter(|at| *at >= now);
        let at = at.unwrap_or_else(|| after(now));
        return Some(Occurrence {
            at,
            text: at.to_string(),
            repeats: true,
        });
    }
    let cron = Cron::parse(match pattern {
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        "@monthly" => "0 0 0 1 * *",
        "@weekly" => "0 0 0 * * 0",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@hourly" => "0 0 * * * *",
        pattern => pattern,
    })?;
    let zone = zone.cloned().unwrap_or(TimeZone::UTC);
    let mut time = cron.after(last.0, &zone)?;
    if time.timestamp().as_nanosecond() < i128::from(now.0) {
        time = cron.after(rounded(now), &zone)?;
    }
    Some(Occurrence {
        at: Timestamp(i64::try_from(time.timestamp().as_nanosecond()).ok()?),
        text: text_of(&time),
        repeats: true,
    })
}

/// The nearest whole second.
fn rounded(time: Timestamp) -> i64 {
    time.0.saturating_add(SECOND / 2).div_euclid(SECOND) * SECOND
}

/// A time as Go reads it: with `T`, and `Z` or an offset.
pub(super) fn rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let is_shaped = marks.iter().all(|(at, mark)| bytes.get(*at) == Some(mark))
        && bytes.get(..4)?.iter().all(u8::is_ascii_digit)
        && matches!(bytes.get(19), Some(b'.' | b',' | b'Z' | b'+' | b'-'));
    let has_offset = matches!(bytes, [.., b'Z'] | [.., b'+' | b'-', _, _, b':', _, _]);
    if !is_shaped || !has_offset {
        return None;
    }
    let parsed: Instant = text.parse().ok()?;
    i64::try_from(parsed.as_nanosecond()).ok().map(Timestamp)
}

/// RFC 3339 with the offset of the zone.
fn text_of(time: &Zoned) -> String {
    let seconds = time.offset().seconds();
    let civil = time.datetime();
    let text = civil.strftime("%Y-%m-%dT%H:%M:%S");
    if seconds == 0 {
        return format!("{text}Z");
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{text}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// Values of one field, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// It holds any value, in other words.
    is_open: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1u64 << value) != 0)
    }
}

/// What values a field may have.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const SECONDS: Bounds = Bounds {
    min: 0,
    max: 59,
    names: &[],
};
const HOURS: Bounds = Bounds {
    min: 0,
    max: 23,
    names: &[],
};
const DAYS: Bounds = Bounds {
    min: 1,
    max: 31,
    names: &[],
};
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// A pattern of six fields.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cron {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Cron {
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            second: field(second, &SECONDS)?,
            minute: field(minute, &SECONDS)?,
            hour: field(hour, &HOURS)?,
            day: field(day, &DAYS)?,
            month: field(month, &MONTHS)?,
            weekday: field(weekday, &WEEKDAYS)?,
        })
    }

    /// The first whole second after `nanos` at which a clock in the zone matches.
    fn after(&self, nanos: i64, zone: &TimeZone) -> Option<Zoned> {
        let second = nanos.div_euclid(SECOND) + 1;
        let mut time = Instant::from_second(second).ok()?.to_zoned(zone.clone());
        let last_year = time.year() + MAX_YEARS;
        while time.year() <= last_year {
            let into_hour = i64::from(time.minute()) * 60 + i64::from(time.second());
            let wait = if !self.month.has(time.month()) {
                let next = time.date().first_of_month().checked_add(1.month()).ok()?;
                time = later(&time, &next.to_zoned(zone.clone()).ok()?)?;
                continue;
            } else if !self.matches_day(&time) {
                let next = time.date().tomorrow().ok()?;
                time = later(&time, &next.to_zoned(zone.clone()).ok()?)?;
                continue;
            } else if !self.hour.has(time.hour()) {
                3600 - into_hour
            } else if !self.minute.has(time.minute()) {
                60 - i64::from(time.second())
            } else if !self.second.has(time.second()) {
                1
            } else {
                return Some(time);
            };
            time = time.checked_add(wait.seconds()).ok()?;
        }
        None
    }

    /// Both fields for a day have to match, unless both name days: then one is enough.
    fn matches_day(&self, time: &Zoned) -> bool {
        let day = self.day.has(time.day());
        let weekday = self.weekday.has(time.weekday().to_sunday_zero_offset());
        if self.day.is_open || self.weekday.is_open {
            day && weekday
        } else {
            day || weekday
        }
    }
}

/// `next`, which lies later; where a day begins before it ended, a second on.
fn later(time: &Zoned, next: &Zoned) -> Option<Zoned> {
    if next > time {
        Some(next.clone())
    } else {
        time.checked_add(1.second()).ok()
    }
}

fn field(text: &str, bounds: &Bounds) -> Option<Field> {
    let mut field = Field {
        bits: 0,
        is_open: false,
    };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let part = range(part, bounds)?;
        field.bits |= part.bits;
        field.is_open |= part.is_open;
    }
    // A field without a value would be looked for second by second.
    (field.bits != 0).then_some(field)
}

/// `value`, `value-value`, `*` or `?`, each perhaps with `/step`.
fn range(text: &str, bounds: &Bounds) -> Option<Field> {
    let (values, step) = match text.split_once('/') {
        Some((values, step)) => (values, Some(number(step)?)),
        None => (text, None),
    };
    let (low, high) = match values.split_once('-') {
        Some((low, high)) => (low, Some(high)),
        None => (values, None),
    };
    let is_star = matches!(low, "*" | "?");
    let (start, mut end) = if is_star {
        (bounds.min, bounds.max)
    } else {
        let start = value(low, bounds)?;
        let end = high.map_or(Some(start), |high| value(high, bounds))?;
        (start, end)
    };
    // From a value on.
    if step.is_some() && high.is_none() {
        end = bounds.max;
    }
    let step = step.unwrap_or(1);
    if start < bounds.min || end > bounds.max || start > end || step == 0 {
        return None;
    }
    let values = (start..=end).step_by(usize::try_from(step).ok()?);
    Some(Field {
        bits: values.fold(0, |bits, value| bits | 1 << value),
        is_open: is_star && step == 1,
    })
}

fn value(text: &str, bounds: &Bounds) -> Option<u32> {
    let name = bounds
        .names
        .iter()
        .position(|name| name.eq_ignore_ascii_case(text));
    match name {
        Some(at) => Some(bounds.min + u32::try_from(at).ok()?),
        None => number(text),
    }
}

/// Digits, perhaps with a plus.
fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        rfc3339(text).expect("a time")
    }

    fn after(pattern: &str, name: &str, time: &str) -> Option<String> {
        let zone = (!name.is_empty()).then(|| zone(name).expect("a zone"));
        next(pattern, zone.as_ref(), at(time), at(time)).map(|next| next.text)
    }

    #[test]
    fn a_time_is_read_as_go_reads_it() {
        assert_eq!(at("1970-01-01T00:00:01Z"), Timestamp(SECOND));
        assert_eq!(at("1970-01-01T01:00:01.5+01:00"), Timestamp(3 * SECOND / 2));
        for bad in [
            "",
            "1970-01-01",
            "1970-01-01 00:00:01Z",
            "1970-01-01t00:00:01z",
            "1970-01-01T00:00:01",
            "1970-01-01T00:00:01+0100",
            "1970-13-01T00:00:01Z",
            "later",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_span_is_counted_from_the_nearest_second() {
        let next = |last: i64, now: i64| {
            let every = next("@every 1.5s", None, Timestamp(last), Timestamp(now));
            every.expect("a pattern").at.0
        };
        assert_eq!(next(10 * SECOND, 0), 11 * SECOND + SECOND / 2);
        assert_eq!(next(10 * SECOND + SECOND / 2, 0), 12 * SECOND + SECOND / 2);
        assert_eq!(next(0, 100 * SECOND + 1), 101 * SECOND + SECOND / 2);
        for bad in [
            "@every 999ms",
            "@every -5s",
            "@every 5",
            "@every ",
            "@every",
        ] {
            assert_eq!(after(bad, "", "2030-01-01T00:00:00Z"), None, "{bad}");
        }
    }

    #[test]
    fn patterns_say_when_they_match_next() {
        let time = "2026-11-22T10:20:30.5Z";
        for (pattern, expected) in [
            ("* * * * * *", "2026-11-22T10:20:31Z"),
            ("*/20 * * * * *", "2026-11-22T10:20:40Z"),
            ("5/20 * * * * *", "2026-11-22T10:20:45Z"),
            ("0 0 9 * * mon-fri", "2026-11-23T09:00:00Z"),
            ("0 0 0 29 feb *", "2028-02-29T00:00:00Z"),
            ("0 0 0 1 * 0", "2026-11-29T00:00:00Z"),
            ("0 0 0 1-7 * 0", "2026-11-29T00:00:00Z"),
            ("0 0 0 ? * 1,3", "2026-11-23T00:00:00Z"),
            ("@hourly", "2026-11-22T11:00:00Z"),
            ("@daily", "2026-11-23T00:00:00Z"),
            ("@weekly", "2026-11-29T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z"),
            ("@annually", "2027-01-01T00:00:00Z"),
            ("@at 2001-02-03T04:05:06Z", "2001-02-03T04:05:06Z"),
        ] {
            assert_eq!(
                after(pattern, "", time).as_deref(),
                Some(expected),
                "{pattern}"
            );
        }
        for bad in [
            "",
            "* * * * *",
            "* * * * * * *",
            "60 * * * * *",
            "* * 24 * * *",
            "* * * 0 * *",
            "* * * * 13 *",
            "* * * * * 7",
            "*/0 * * * * *",
            "5-1 * * * * *",
            "1-2-3 * * * * *",
            "1/2/3 * * * * *",
            "a * * * * *",
            "0 0 0 30 2 *",
            ", * * * * *",
            "@never",
        ] {
            assert_eq!(after(bad, "", time), None, "{bad}");
        }
    }

    #[test]
    fn zones_move_with_the_seasons() {
        let next = |pattern: &str, time: &str| after(pattern, "Europe/Berlin", time);
        assert_eq!(
            next("0 30 9 * * *", "2026-03-28T09:00:00Z").as_deref(),
            Some("2026-03-29T09:30:00+02:00")
        );
        // This hour is left out on that day, and there twice on the other.
        assert_eq!(
            next("0 30 2 * * *", "2026-03-28T09:00:00Z").as_deref(),
            Some("2026-03-30T02:30:00+02:00")
        );
        assert_eq!(
            next("0 30 2 * * *", "2026-10-24T23:00:00Z").as_deref(),
            Some("2026-10-25T02:30:00+02:00")
        );
        assert_eq!(
            next("0 30 2 * * *", "2026-10-25T00:30:00Z").as_deref(),
            Some("2026-10-25T02:30:00+01:00")
        );
        assert_eq!(
            after("@hourly", "UTC", "2026-10-25T00:30:00Z").as_deref(),
            Some("2026-10-25T01:00:00Z")
        );
        for bad in ["", "europe/berlin", "Mars/Olympus", "../etc/passwd"] {
            assert!(zone(bad).is_none(), "{bad}");
        }
        let berlin = zone("Europe/Berlin");
        for pattern in ["@every 5s", "@at 2030-01-01T00:00:00Z"] {
            let time = at("2026-01-01T00:00:00Z");
            assert_eq!(super::next(pattern, berlin.as_ref(), time, time), None);
        }
    }

    proptest! {
        #[test]
        fn the_next_time_is_the_first_that_matches(
            second in prop::sample::subsequence((0..60).collect::<Vec<u32>>(), 1..4),
            minute in prop::sample::subsequence((0..60).collect::<Vec<u32>>(), 1..4),
            start in 1_770_000_000i64..1_800_000_000,
            name in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"]),
        ) {
            let list = |values: &[u32]| {
                values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            };
            let pattern = format!("{} {} * * * *", list(&second), list(&minute));
            let zone = zone(name).expect("a zone");
            let time = Timestamp(start * SECOND);
            let found = next(&pattern, Some(&zone), time, time).expect("a pattern").at;
            prop_assert!(found > time);
            // No second in between does.
            let mut at = start + 1;
            loop {
                let civil = Instant::from_second(at).expect("in range").to_zoned(zone.clone());
                let matches = second.contains(&(civil.second() as u32))
                    && minute.contains(&(civil.minute() as u32));
                if matches {
                    break;
                }
                at += 1;
            }
            prop_assert_eq!(found, Timestamp(at * SECOND));
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,40}", start in any::<i64>()) {
            let _ = next(&text, None, Timestamp(start), Timestamp(start));
            let _ = zone(&text);
        }
    }
}
