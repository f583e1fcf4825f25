//! Durations as the reference server prints them in its texts.

use std::fmt;

/// Nanoseconds, printed as `1h2m3.5s`, `90ms` or `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nanoseconds(pub i64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => fraction(f, nanos, 1_000, "µs"),
            1_000_000..SECOND => fraction(f, nanos, 1_000_000, "ms"),
            _ => {
                let (hours, minutes) = (nanos / (3600 * SECOND), nanos / (60 * SECOND) % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                fraction(f, nanos % (60 * SECOND), SECOND, "s")
            }
        }
    }
}

fn fraction(f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    let (whole, part) = (nanos / unit, nanos % unit);
    if part == 0 {
        return write!(f, "{whole}{name}");
    }
    let width = usize::try_from(unit.ilog10()).expect("at most nine digits");
    let digits = format!("{part:0width$}");
    write!(f, "{whole}.{}{name}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (90_000_000, "90ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
            (-2_000_000, "-2ms"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(Nanoseconds(nanos).to_string(), text);
        }
    }
}
