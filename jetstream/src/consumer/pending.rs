//! Deliveries that are not settled, in stream order.

use std::collections::VecDeque;

/// One delivery that is not settled.
///
/// `deliveries` and `logged_due` follow the log and are the same on every replica; `sent` and `due`
/// belong to the server that hands messages out and may run ahead of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Sequence in the stream.
    pub(super) seq: u64,
    /// Consumer sequence of the first delivery; redeliveries do not change it.
    pub(super) first: u64,
    /// Deliveries recorded in the log.
    pub(super) deliveries: u32,
    /// Deliveries this server knows of, at least `deliveries`.
    pub(super) sent: u32,
    /// When it is due again, as recorded in the log, ns since the epoch.
    pub(super) logged_due: i64,
    /// When it is due again for this server, ns since the epoch.
    pub(super) due: i64,
    /// How many proposed events move `logged_due`; until they are applied `due` knows better.
    pub(super) moving: u32,
    /// An event that settles it is proposed and not applied yet.
    settling: bool,
    /// It waits in the redelivery queue.
    pub(super) queued: bool,
    /// It is gone; the slot stays until the window is tidied.
    dead: bool,
}

impl Delivery {
    /// A first delivery, sent and not yet recorded.
    pub(super) fn sent(seq: u64, first: u64, due: i64) -> Self {
        Self {
            seq,
            first,
            deliveries: 0,
            sent: 1,
            logged_due: due,
            due,
            moving: 0,
            settling: false,
            queued: false,
            dead: false,
        }
    }

    /// A delivery as the log or the store knows it.
    pub(super) fn recorded(seq: u64, first: u64, deliveries: u32, due: i64) -> Self {
        Self {
            deliveries,
            sent: deliveries,
            ..Self::sent(seq, first, due)
        }
    }

    /// Whether the log knows of it.
    pub(super) fn is_recorded(&self) -> bool {
        self.deliveries > 0
    }

    /// Whether an event that settles it is under way.
    pub(super) fn is_settling(&self) -> bool {
        self.settling
    }
}

/// Unsettled deliveries ordered by stream sequence.
///
/// New deliveries come in rising order, so this is a queue: adding costs nothing, finding is an
/// index in the common case of consecutive sequences and a binary search else, and the oldest
/// one, which decides the ack floor, is always in front.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    slots: VecDeque<Delivery>,
    live: usize,
    settling: usize,
    redelivered: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Those that no proposed event settles.
    pub(super) fn unsettled(&self) -> usize {
        self.live - self.settling
    }

    /// Those delivered more than once.
    pub(super) fn redelivered(&self) -> usize {
        self.redelivered
    }

    /// The one with the lowest sequence.
    pub(super) fn oldest(&self) -> Option<&Delivery> {
        self.slots.front()
    }

    /// The lowest one that no proposed event settles.
    pub(super) fn oldest_unsettled(&self) -> Option<&Delivery> {
        self.iter().find(|delivery| !delivery.settling)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.slots.iter().filter(|delivery| !delivery.dead)
    }

    /// Those with `from <= seq < to`.
    pub(super) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = &Delivery> {
        let start = self.slots.partition_point(|delivery| delivery.seq < from);
        self.slots
            .range(start..)
            .take_while(move |delivery| delivery.seq < to)
            .filter(|delivery| !delivery.dead)
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.find(seq).is_some()
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Delivery> {
        self.find(seq).and_then(|at| self.slots.get(at))
    }

    /// For changes of `due`, `logged_due`, `deliveries` and `queued`; the other fields are counted
    /// and have methods of their own.
    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Delivery> {
        self.find(seq).and_then(|at| self.slots.get_mut(at))
    }

    /// Adds a delivery, nearly always at the end. One with the same sequence is replaced.
    pub(super) fn insert(&mut self, delivery: Delivery) {
        self.live += 1;
        self.settling += usize::from(delivery.settling);
        self.redelivered += usize::from(delivery.sent > 1);
        if self.slots.back().is_none_or(|last| last.seq < delivery.seq) {
            self.slots.push_back(delivery);
            return;
        }
        self.remove(delivery.seq);
        let at = self.slots.partition_point(|other| other.seq < delivery.seq);
        match self.slots.get_mut(at) {
            Some(slot) if slot.seq == delivery.seq => *slot = delivery,
            _ => self.slots.insert(at, delivery),
        }
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Delivery> {
        let at = self.find(seq)?;
        let slot = self.slots.get_mut(at)?;
        slot.dead = true;
        let removed = slot.clone();
        self.live -= 1;
        self.settling -= usize::from(removed.settling);
        self.redelivered -= usize::from(removed.sent > 1);
        self.tidy();
        Some(removed)
    }

    /// Marks it as about to be settled; false when it is not there or already marked.
    pub(super) fn mark_settling(&mut self, seq: u64) -> bool {
        let Some(delivery) = self.get_mut(seq).filter(|delivery| !delivery.settling) else {
            return false;
        };
        delivery.settling = true;
        self.settling += 1;
        true
    }

    /// Forgets what was proposed and returns the sequences that were marked as settling.
    pub(super) fn forget_proposals(&mut self) -> Vec<u64> {
        self.settling = 0;
        let mut marked = Vec::new();
        for delivery in self.slots.iter_mut().filter(|delivery| !delivery.dead) {
            delivery.moving = 0;
            if std::mem::replace(&mut delivery.settling, false) {
                marked.push(delivery.seq);
            }
        }
        marked
    }

    /// Raises what this server knows of its deliveries.
    pub(super) fn set_sent(&mut self, seq: u64, sent: u32) {
        let Some(delivery) = self.get_mut(seq) else {
            return;
        };
        let was = delivery.sent > 1;
        delivery.sent = sent;
        let is = sent > 1;
        self.redelivered = self.redelivered + usize::from(is) - usize::from(was);
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn find(&self, seq: u64) -> Option<usize> {
        let first = self.slots.front()?.seq;
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        let at = match self.slots.get(guess) {
            Some(delivery) if delivery.seq == seq => guess,
            // With gaps before it, it lies at or before the guess.
            _ => self
                .slots
                .binary_search_by_key(&seq, |delivery| delivery.seq)
                .ok()?,
        };
        self.slots
            .get(at)
            .filter(|delivery| !delivery.dead)
            .map(|_| at)
    }

    fn tidy(&mut self) {
        while self.slots.front().is_some_and(|delivery| delivery.dead) {
            self.slots.pop_front();
        }
        while self.slots.back().is_some_and(|delivery| delivery.dead) {
            self.slots.pop_back();
        }
        if self.slots.len() > 2 * self.live + 64 {
            self.slots.retain(|delivery| !delivery.dead);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_is_in_front_whatever_goes_first() {
        let mut pending = Pending::default();
        for seq in [3, 5, 9] {
            pending.insert(Delivery::sent(seq, seq, 0));
        }
        pending.remove(5);
        assert_eq!(pending.oldest().map(|d| d.seq), Some(3));
        pending.remove(3);
        assert_eq!(pending.oldest().map(|d| d.seq), Some(9));
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn gone_slots_do_not_pile_up_behind_an_old_delivery() {
        let mut pending = Pending::default();
        pending.insert(Delivery::sent(1, 1, 0));
        for seq in 2..10_000 {
            pending.insert(Delivery::sent(seq, seq, 0));
            pending.insert(Delivery::sent(seq + 1, seq + 1, 0));
            pending.remove(seq);
        }
        assert_eq!(pending.len(), 2);
        assert!(pending.slots.len() <= 70, "{} slots", pending.slots.len());
    }

    proptest! {
        #[test]
        fn it_behaves_like_an_ordered_map(
            steps in proptest::collection::vec((0u8..4, 0u64..60, 1u32..4), 0..300)
        ) {
            let mut pending = Pending::default();
            let mut model: BTreeMap<u64, (u32, bool)> = BTreeMap::new();
            for (what, seq, sent) in steps {
                match what {
                    0 => {
                        pending.insert(Delivery::recorded(seq, seq, sent, 0));
                        model.insert(seq, (sent, false));
                    }
                    1 => {
                        let removed = pending.remove(seq).is_some();
                        prop_assert_eq!(removed, model.remove(&seq).is_some());
                    }
                    2 => {
                        let marked = pending.mark_settling(seq);
                        let expected = model.get_mut(&seq).is_some_and(|entry| {
                            !std::mem::replace(&mut entry.1, true)
                        });
                        prop_assert_eq!(marked, expected);
                    }
                    _ => {
                        pending.set_sent(seq, sent);
                        if let Some(entry) = model.get_mut(&seq) {
                            entry.0 = sent;
                        }
                    }
                }
                prop_assert_eq!(pending.len(), model.len());
                prop_assert_eq!(
                    pending.iter().map(|d| (d.seq, (d.sent, d.is_settling()))).collect::<Vec<_>>(),
                    model.iter().map(|(seq, entry)| (*seq, *entry)).collect::<Vec<_>>()
                );
                prop_assert_eq!(pending.oldest().map(|d| d.seq), model.keys().next().copied());
                prop_assert_eq!(
                    pending.unsettled(),
                    model.values().filter(|(_, settling)| !settling).count()
                );
                prop_assert_eq!(
                    pending.redelivered(),
                    model.values().filter(|(sent, _)| *sent > 1).count()
                );
                prop_assert!(pending.range(20, 40).map(|d| d.seq).eq(
                    model.range(20..40).map(|(seq, _)| *seq)
                ));
            }
        }
    }
}
