//! Guessing is slowed down: who failed how often, and from where.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::password;

/// An address with this many failures within [`WINDOW`] is refused before more hashes are computed
/// for it, so that guessing cannot use up the processor; a user who failed as often from there is
/// refused whatever it brings, so that guessing does not get anywhere.
pub(super) const MAX_FAILURES: u32 = 10;
/// How long failures count.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses and users remembered at most.
const MAX_REMEMBERED: usize = 4096;

/// Where somebody comes from: an address, or the network that one customer of a provider has.
pub(crate) fn origin(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let network = u128::from(ip) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        ip => ip,
    }
}

/// Failed logins.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: Mutex<HashMap<Failing, Failures>>,
}

/// Who fails: an origin, and one user from there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Failing {
    origin: IpAddr,
    user: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Failures {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

impl Throttle {
    /// Counts a wrong password, for the address and for the user from there.
    pub(super) fn failed(&self, address: IpAddr, user: Option<&str>, now: Instant) {
        if let Some(user) = user.filter(|user| user.len() <= password::MAX_BYTES) {
            self.count(address, Some(user), now);
        }
        self.count(address, None, now);
    }

    fn count(&self, address: IpAddr, user: Option<&str>, now: Instant) {
        let mut failures = self.failures.lock();
        if failures.len() >= MAX_REMEMBERED {
            failures.retain(|_, entry| !entry.is_over(now));
            if failures.len() >= MAX_REMEMBERED {
                failures.clear();
            }
        }
        let failing = Failing {
            origin: origin(address),
            user: user.map(Into::into),
        };
        let none = Failures {
            since: now,
            count: 0,
        };
        let entry = failures.entry(failing).or_insert(none);
        if entry.is_over(now) {
            *entry = none;
        }
        entry.count += 1;
    }

    /// Failures that count now, of an address or of a user from there.
    pub(super) fn failures(&self, address: IpAddr, user: Option<&str>, now: Instant) -> u32 {
        let failing = Failing {
            origin: origin(address),
            user: user.map(Into::into),
        };
        let failures = self.failures.lock();
        let entry = failures.get(&failing).filter(|entry| !entry.is_over(now));
        entry.map_or(0, |entry| entry.count)
    }

    /// Whether this user is refused from there, whatever it brings.
    pub(super) fn refuses_user(&self, address: IpAddr, user: Option<&str>, now: Instant) -> bool {
        user.is_some() && self.failures(address, user, now) >= MAX_FAILURES
    }

    /// Whether no more hashes are computed for this address.
    pub(super) fn refuses_hashes(&self, address: IpAddr, now: Instant) -> bool {
        self.failures(address, None, now) >= MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_network_fail_together() {
        let throttle = Throttle::default();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let now = Instant::now();
        for n in 0..MAX_FAILURES {
            throttle.failed(ip(&format!("2001:db8::{n:x}")), Some("ada"), now);
        }
        let near = ip("2001:db8::ffff:1");
        assert!(throttle.refuses_hashes(near, now));
        assert!(throttle.refuses_user(near, Some("ada"), now));
        assert!(!throttle.refuses_user(near, Some("eve"), now));
        assert!(!throttle.refuses_hashes(ip("2001:db8:0:1::1"), now));
        assert!(!throttle.refuses_hashes(near, now + WINDOW));
        throttle.failed(ip("::ffff:192.0.2.1"), None, now);
        assert_eq!(throttle.failures(ip("192.0.2.1"), None, now), 1);
    }
}
