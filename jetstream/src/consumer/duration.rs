//! Durations as Go writes them, in which NATS clients and texts speak.

use std::time::Duration;

const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 6e10),
    ("h", 3.6e12),
];

/// Reads a duration such as `1h2m3.5s`, `-1.5ms` or `0`, in nanoseconds; `None` when it is none or
/// does not fit.
#[must_use]
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let number_len = rest
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.')
            .count();
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .bytes()
            .take_while(|b| !b.is_ascii_digit() && *b != b'.')
            .count();
        let (unit, tail) = tail.split_at(unit_len);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(nanoseconds(number, *scale)?)?;
        rest = tail;
    }
    Some(if negative { -total } else { total })
}

/// `number` times `scale`: whole part exact, fraction as precise as a double.
fn nanoseconds(number: &str, scale: f64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let whole = whole.checked_mul(scale as i64)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let part: f64 = format!("0.{fraction}").parse().ok()?;
    whole.checked_add((part * scale) as i64)
}

/// Writes a duration as Go prints it: `1h0m0s`, `1.5s`, `250ms`, `0s`.
#[must_use]
pub fn format_go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", decimal(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 6)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = decimal(nanos % 60_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value` divided by ten to the `digits`, without trailing zeros.
fn decimal(value: u128, digits: u32) -> String {
    let scale = 10u128.pow(digits);
    let (whole, part) = (value / scale, value % scale);
    if part == 0 {
        return whole.to_string();
    }
    let part = format!("{part:0width$}", width = digits as usize);
    format!("{whole}.{}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("-1.5ms", -1_500_000),
            ("+2us", 2_000),
            ("3\u{b5}s", 3_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ns", 100),
        ] {
            assert_eq!(parse_go_duration(text), Some(nanos), "{text}");
        }
        for text in [
            "",
            "-",
            "5",
            "s",
            "1x",
            ".s",
            "1..5s",
            "1s2",
            "99999999999h",
            "1 s",
        ] {
            assert_eq!(parse_go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn prints_what_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
        ] {
            assert_eq!(format_go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in ".{0,20}") {
            let _ = parse_go_duration(&text);
        }

        #[test]
        fn what_is_printed_is_read_back(millis in 0u64..1_000_000_000_000) {
            let text = format_go_duration(Duration::from_millis(millis));
            let nanos = i64::try_from(millis).expect("small") * 1_000_000;
            prop_assert!((parse_go_duration(&text).expect("valid") - nanos).abs() <= 1);
        }
    }
}
