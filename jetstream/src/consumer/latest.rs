//! The messages that a consumer of the last message per subject begins with.

use crate::StreamSeq;
use crate::consumer::source::MessageSource;
use crate::ports::StoreError;

/// Set on a sequence whose message is gone; no stream gets that long.
const GONE: u64 = 1 << 63;

/// Sequences to hand out before the consumer follows the stream.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    /// Rising; with [`GONE`] set where the message was removed since.
    seqs: Vec<u64>,
    /// Everything after this is handed out in the ordinary way.
    pub(super) through: u64,
    /// Position of the first sequence not below the last one asked for.
    hint: usize,
    /// Read back from the store, which does not know what was removed.
    unverified: bool,
}

impl Latest {
    /// A list; `None` when it is empty.
    pub(super) fn new(seqs: &[StreamSeq], through: StreamSeq) -> Option<Self> {
        if seqs.is_empty() {
            return None;
        }
        let seqs = seqs.iter().map(|seq| seq.0).collect();
        Some(Self {
            seqs,
            through: through.0,
            hint: 0,
            unverified: false,
        })
    }

    /// A list as the store kept it.
    pub(super) fn stored(seqs: Vec<u64>, through: u64) -> Self {
        Self {
            seqs,
            through,
            hint: 0,
            unverified: true,
        }
    }

    /// Every sequence the list began with.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = u64> {
        self.seqs.iter().map(|seq| seq & !GONE)
    }

    /// The highest sequence the list began with.
    pub(super) fn last(&self) -> Option<u64> {
        self.seqs.last().map(|seq| seq & !GONE)
    }

    /// The first sequence at or after `from` that is still there.
    pub(super) fn next(&mut self, from: u64) -> Option<u64> {
        self.hint = self.position(from);
        while self.seqs.get(self.hint).is_some_and(|seq| seq & GONE != 0) {
            self.hint += 1;
        }
        self.seqs.get(self.hint).copied()
    }

    /// Whether `seq` is in the list and still there.
    pub(super) fn contains(&self, seq: u64) -> bool {
        let at = self.seqs.partition_point(|other| other & !GONE < seq);
        self.seqs.get(at) == Some(&seq)
    }

    /// How many at or after `from` are still there.
    pub(super) fn remaining(&self, from: u64) -> u64 {
        let at = self.position(from);
        let left = self.seqs.get(at..).unwrap_or(&[]);
        left.iter().map(|seq| u64::from(seq & GONE == 0)).sum()
    }

    /// Forgets `seq`; true when it was there.
    pub(super) fn remove(&mut self, seq: u64) -> bool {
        let at = self.seqs.partition_point(|other| other & !GONE < seq);
        match self.seqs.get_mut(at) {
            Some(slot) if *slot == seq => {
                *slot |= GONE;
                true
            }
            _ => false,
        }
    }

    /// Forgets everything below `seq`.
    pub(super) fn remove_below(&mut self, seq: u64) {
        for slot in self.seqs.iter_mut().take_while(|slot| **slot & !GONE < seq) {
            *slot |= GONE;
        }
    }

    /// Notes that messages may have gone.
    pub(super) fn distrust(&mut self) {
        self.unverified = true;
    }

    /// Looks up what is still there, unless that is known.
    pub(super) fn verify(
        &mut self,
        from: u64,
        source: &mut dyn MessageSource,
    ) -> Result<(), StoreError> {
        if !self.unverified {
            return Ok(());
        }
        for slot in self
            .seqs
            .iter_mut()
            .filter(|slot| **slot >= from && **slot & GONE == 0)
        {
            if source.message(StreamSeq(*slot))?.is_none() {
                *slot |= GONE;
            }
        }
        self.unverified = false;
        Ok(())
    }

    fn position(&self, from: u64) -> usize {
        let near = |at: usize| {
            let below = at.checked_sub(1).and_then(|before| self.seqs.get(before));
            at <= self.seqs.len()
                && below.is_none_or(|seq| seq & !GONE < from)
                && self.seqs.get(at).is_none_or(|seq| seq & !GONE >= from)
        };
        // The usual question is for the one after the last answer.
        [self.hint, self.hint + 1]
            .into_iter()
            .find(|at| near(*at))
            .unwrap_or_else(|| self.seqs.partition_point(|seq| seq & !GONE < from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Latest {
        Latest::new(&[StreamSeq(3), StreamSeq(7), StreamSeq(9)], StreamSeq(9)).expect("not empty")
    }

    #[test]
    fn it_is_walked_in_order_without_what_is_gone() {
        let mut latest = list();
        assert_eq!(latest.next(1), Some(3));
        assert!(latest.remove(7));
        assert!(!latest.remove(7));
        assert!(!latest.remove(8));
        assert_eq!(latest.next(4), Some(9));
        assert_eq!(latest.next(10), None);
        assert_eq!(latest.next(1), Some(3));
    }

    #[test]
    fn it_knows_how_many_are_left() {
        let mut latest = list();
        assert_eq!(latest.remaining(0), 3);
        assert_eq!(latest.remaining(4), 2);
        latest.remove_below(9);
        assert_eq!(latest.remaining(0), 1);
        assert!(latest.contains(9));
        assert!(!latest.contains(7));
    }
}
