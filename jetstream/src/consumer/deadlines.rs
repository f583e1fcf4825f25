//! Which delivery is due next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Due times of deliveries, earliest first.
///
/// With one ack wait the times come in rising order and queue up; those out of order (a delayed
/// nak, a longer backoff) go to a heap. Nothing is taken out when a delivery is settled or moved:
/// whoever takes a time checks that it still holds. [`Deadlines::tidy`] bounds what stays behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    rising: VecDeque<(i64, u64)>,
    others: BinaryHeap<Reverse<(i64, u64)>>,
}

impl Deadlines {
    /// Notes that `seq` is due at `due`.
    pub(super) fn push(&mut self, due: i64, seq: u64) {
        if self.rising.back().is_none_or(|(last, _)| *last <= due) {
            self.rising.push_back((due, seq));
        } else {
            self.others.push(Reverse((due, seq)));
        }
    }

    /// The earliest time noted, which may hold no more.
    pub(super) fn earliest(&self) -> Option<i64> {
        let rising = self.rising.front().map(|(due, _)| *due);
        let other = self.others.peek().map(|Reverse((due, _))| *due);
        match (rising, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes the earliest one that is not after `now`.
    pub(super) fn pop_due(&mut self, now: i64) -> Option<(i64, u64)> {
        let rising = self.rising.front().copied().filter(|(due, _)| *due <= now);
        let other = self
            .others
            .peek()
            .map(|Reverse(next)| *next)
            .filter(|(due, _)| *due <= now);
        match (rising, other) {
            (Some(a), Some(b)) if b < a => self.others.pop().map(|Reverse(next)| next),
            (Some(_), _) => self.rising.pop_front(),
            (None, Some(_)) => self.others.pop().map(|Reverse(next)| next),
            (None, None) => None,
        }
    }

    /// Drops what holds no more once it outweighs `live`, the number that may hold.
    pub(super) fn tidy(&mut self, live: usize, mut holds: impl FnMut(i64, u64) -> bool) {
        if self.rising.len() > 2 * live + 256 {
            self.rising.retain(|(due, seq)| holds(*due, *seq));
        }
        if self.others.len() > 2 * live + 256 {
            self.others.retain(|Reverse((due, seq))| holds(*due, *seq));
        }
    }

    pub(super) fn clear(&mut self) {
        self.rising.clear();
        self.others.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_out_in_order_of_time() {
        let mut deadlines = Deadlines::default();
        for (due, seq) in [(10, 1), (20, 2), (5, 3), (15, 4), (20, 5)] {
            deadlines.push(due, seq);
        }
        assert_eq!(deadlines.earliest(), Some(5));
        let mut out = Vec::new();
        while let Some(next) = deadlines.pop_due(20) {
            out.push(next);
        }
        assert_eq!(out, [(5, 3), (10, 1), (15, 4), (20, 2), (20, 5)]);
        assert_eq!(deadlines.earliest(), None);
    }

    #[test]
    fn nothing_comes_out_before_its_time() {
        let mut deadlines = Deadlines::default();
        deadlines.push(10, 1);
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(10), Some((10, 1)));
    }

    #[test]
    fn what_holds_no_more_is_dropped_in_time() {
        let mut deadlines = Deadlines::default();
        for seq in 0..10_000 {
            deadlines.push(i64::try_from(seq).expect("small"), seq);
            deadlines.tidy(1, |_, seq| seq == 9_999);
        }
        assert!(deadlines.rising.len() <= 300);
    }
}
