//! From where and when a user may be connected.

use std::net::IpAddr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan, Zoned};

use crate::claims::user::UserPermissionLimits;

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// `192.168.0.0/16`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let is_plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u32 = prefix.parse().ok().filter(|_| is_plain)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { address, prefix })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// Whether a user may come from `address`. A network that cannot be read lets nobody in.
pub(crate) fn may_come_from(limits: &UserPermissionLimits, address: IpAddr) -> bool {
    let address = address.to_canonical();
    if limits.sources.is_empty() {
        return true;
    }
    for text in &limits.sources {
        match Network::parse(text) {
            None => return false,
            Some(network) if network.contains(address) => return true,
            Some(_) => {}
        }
    }
    false
}

/// A time of day as `15:04:05`.
pub(crate) fn clock(text: &str) -> Option<Time> {
    let parts: Vec<_> = text.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else {
        return None;
    };
    let number = |part: &str, digits: std::ops::RangeInclusive<usize>| {
        let is_plain = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<i8>().ok().filter(|_| is_plain)
    };
    Time::new(
        number(hour, 1..=2)?,
        number(minute, 2..=2)?,
        number(second, 2..=2)?,
        0,
    )
    .ok()
}

/// A zone by its IANA name, from the tables that are compiled in.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// For how long the user may still be connected from `now` on: `Some(None)` without end, `None`
/// not at all. `local` is the zone of tokens that name none.
pub(crate) fn remaining(
    limits: &UserPermissionLimits,
    now: Timestamp,
    local: &TimeZone,
) -> Option<Option<Duration>> {
    if limits.times.is_empty() {
        return Some(None);
    }
    let zone = if limits.times_location.is_empty() {
        local.clone()
    } else {
        zone(&limits.times_location)?
    };
    let now = now.to_zoned(zone);
    let mut longest = None;
    for range in &limits.times {
        let (start, end) = (clock(&range.start)?, clock(&range.end)?);
        longest = longest.max(left(&now, start, end)?);
    }
    longest.map(Some)
}

/// The time left in a daily range, `Some(None)` outside it, `None` if the calendar ends.
fn left(now: &Zoned, start: Time, end: Time) -> Option<Option<Duration>> {
    let at = |time: Time| now.with().time(time).build().ok();
    let until = |end: &Zoned| Duration::try_from(now.duration_until(end)).ok();
    let (start, end) = (at(start)?, at(end)?);
    if start < *now && end > *now {
        return Some(until(&end));
    }
    if start > end {
        // Midnight lies in the range.
        if end > *now {
            return Some(until(&end));
        }
        let end = end.checked_add(1.day()).ok()?;
        if start < *now && end > *now {
            return Some(until(&end));
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::user::TimeRange;

    fn network(text: &str, address: &str) -> bool {
        let limits = UserPermissionLimits {
            sources: vec![text.to_owned()],
            ..Default::default()
        };
        may_come_from(&limits, address.parse().expect("an address"))
    }

    #[test]
    fn networks_contain_what_shares_their_prefix() {
        assert!(network("192.168.0.0/16", "192.168.7.9"));
        assert!(!network("192.168.0.0/16", "192.169.7.9"));
        assert!(network("0.0.0.0/0", "8.8.8.8"));
        assert!(!network("0.0.0.0/0", "::1"));
        assert!(network("::1/128", "::1"));
        assert!(network("::/0", "fe80::1"));
        assert!(network("127.0.0.1/32", "::ffff:127.0.0.1"));
        for broken in [
            "127.0.0.1",
            "127.0.0.1/33",
            "x/8",
            "127.0.0.1/+8",
            "/",
            "::/129",
        ] {
            assert!(!network(broken, "127.0.0.1"), "{broken}");
        }
    }

    fn hours(start: &str, end: &str, zone: &str, now: &str) -> Option<Option<u64>> {
        let limits = UserPermissionLimits {
            times: vec![TimeRange {
                start: start.to_owned(),
                end: end.to_owned(),
            }],
            times_location: zone.to_owned(),
            ..Default::default()
        };
        let now = now.parse().expect("a time");
        remaining(&limits, now, &TimeZone::UTC).map(|left| left.map(|left| left.as_secs()))
    }

    #[test]
    fn hours_are_those_of_the_zone_named() {
        let at = |now| hours("08:00:00", "18:00:00", "", now);
        assert_eq!(at("2026-01-05T12:00:00Z"), Some(Some(6 * 3600)));
        assert_eq!(at("2026-01-05T07:00:00Z"), None);
        assert_eq!(at("2026-01-05T18:00:01Z"), None);
        let in_new_york = |now| hours("08:00:00", "18:00:00", "America/New_York", now);
        assert_eq!(in_new_york("2026-01-05T12:00:00Z"), None);
        assert_eq!(
            in_new_york("2026-01-05T13:30:00Z"),
            Some(Some(9 * 3600 + 1800))
        );
        // Summer time.
        assert_eq!(
            in_new_york("2026-07-06T12:30:00Z"),
            Some(Some(9 * 3600 + 1800))
        );
    }

    #[test]
    fn a_range_may_cross_midnight() {
        let at = |now| hours("22:00:00", "06:00:00", "", now);
        assert_eq!(at("2026-01-05T23:30:00Z"), Some(Some(6 * 3600 + 1800)));
        assert_eq!(at("2026-01-05T05:00:00Z"), Some(Some(3600)));
        assert_eq!(at("2026-01-05T12:00:00Z"), None);
    }

    #[test]
    fn what_cannot_be_read_lets_nobody_in() {
        let now = "2026-01-05T12:00:00Z";
        assert_eq!(hours("08:00", "18:00:00", "", now), None);
        assert_eq!(hours("08:00:00", "25:00:00", "", now), None);
        assert_eq!(hours("08:00:00", "18:00:00", "No/Where", now), None);
    }
}
