//! Lengths of time and sizes as people write them: `7d`, `90s`, `200GiB`.

use std::time::Duration;

/// A length of time: a whole number and `ms`, `s`, `m` or `min`, `h`, `d` or `w`, several of them
/// if wanted (`1h30m`); a bare number is seconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, behind) = leading_number(rest)?;
        let unit_end = behind
            .find(|letter: char| letter.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit_end);
        let unit_ms: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return None,
        };
        let part = Duration::from_millis(number.checked_mul(unit_ms)?);
        total = total.checked_add(part)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// A size: a whole number and `B`, `KB`, `KiB` and so on up to `TiB`, in any case; a bare number is
/// bytes.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text.trim())?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// A length of time in words: `7 days`, `2 h 5 min`, `300 ms`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0 s".to_owned();
    }
    if ms < 1_000 {
        return format!("{ms} ms");
    }
    let seconds = duration.as_secs();
    let parts = [
        (
            seconds / 86_400,
            if seconds / 86_400 == 1 { "day" } else { "days" },
        ),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let mut shown = parts.iter().skip_while(|(count, _)| *count == 0).take(2);
    let shown: Vec<String> = shown
        .by_ref()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    shown.join(" ")
}

/// A size with a unit of 1024s and one decimal: `23 B`, `1.4 GiB`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = if bytes < 1_024 { 0 } else { bytes.ilog2() / 10 };
    let unit = usize::try_from(power)
        .ok()
        .and_then(|power| UNITS.get(power.checked_sub(1)?));
    match unit {
        None => format!("{bytes} B"),
        Some(unit) => {
            let tenths = (u128::from(bytes) * 10) >> (10 * power);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

/// A count or a rate: `184 k`, `1.2 k`, `12.3 M`; below 1,000 as it is.
#[must_use]
pub fn show_count(count: u64) -> String {
    const UNITS: [&str; 4] = ["k", "M", "G", "T"];
    let mut scaled = count;
    let mut rest = 0;
    let mut unit = None;
    for name in UNITS {
        if scaled < 1_000 {
            break;
        }
        rest = scaled % 1_000 / 100;
        scaled /= 1_000;
        unit = Some(name);
    }
    match unit {
        None => count.to_string(),
        Some(unit) if scaled >= 100 => format!("{scaled} {unit}"),
        Some(unit) => format!("{scaled}.{rest} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in [
            ("7d", 604_800_000),
            ("90", 90_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("2w", 1_209_600_000),
            (" 5 min ", 300_000),
        ] {
            let read = parse_duration(text).map(|time| time.as_millis());
            assert_eq!(read, Some(ms), "{text}");
        }
        for bad in [
            "",
            "d",
            "7x",
            "-1s",
            "1.5h",
            "7d!",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("200GiB", 200 << 30),
            ("1kb", 1_000),
            ("1 K", 1_024),
            ("7", 7),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "GiB", "1.5G", "1XB", "99999999999999T"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn figures_are_shown_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (7_500, "2 h 5 min"),
            (604_800, "7 days"),
            (86_400, "1 day"),
            (90_061, "1 day 1 h"),
            (3_605, "1 h"),
        ] {
            assert_eq!(show_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(show_duration(Duration::from_millis(300)), "300 ms");
        for (bytes, text) in [
            (23, "23 B"),
            (1_536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(show_bytes(bytes), text);
        }
        for (count, text) in [
            (999, "999"),
            (1_200, "1.2 k"),
            (184_321, "184 k"),
            (12_345_678, "12.3 M"),
        ] {
            assert_eq!(show_count(count), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_much(text in ".{0,40}") {
            let is_read = parse_duration(&text).is_some() || parse_bytes(&text).is_some();
            proptest::prop_assert!(!is_read || text.contains(|letter: char| letter.is_ascii_digit()));
        }

        #[test]
        fn what_is_shown_of_any_figure_is_short(number in proptest::num::u64::ANY) {
            proptest::prop_assert!(show_bytes(number).len() <= 12);
            proptest::prop_assert!(show_count(number).len() <= 14);
            proptest::prop_assert!(show_duration(Duration::from_secs(number)).len() <= 30);
        }
    }
}
