//! The sequences of one subject in one block, with the size each counts for.

use std::collections::VecDeque;

use super::codec::{Reader, put_varint};

/// Sequences in a row that count for the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First sequence.
    pub(super) start: u64,
    /// How many, at least one.
    pub(super) len: u32,
    /// Bytes each counts for in stream limits.
    pub(super) size: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}

/// Sequences in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    runs: VecDeque<Run>,
    count: u64,
}

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.start)
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.runs.back().map(|run| run.end() - 1)
    }

    /// Adds a sequence above all others.
    pub(super) fn push(&mut self, seq: u64, size: u64) {
        debug_assert!(self.last().is_none_or(|last| last < seq));
        self.count += 1;
        match self.runs.back_mut() {
            Some(run) if run.end() == seq && run.size == size && run.len < u32::MAX => run.len += 1,
            _ => self.runs.push_back(Run {
                start: seq,
                len: 1,
                size,
            }),
        }
    }

    /// Removes a sequence and returns its size; `None` when it is not here.
    pub(super) fn remove(&mut self, seq: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.end() <= seq);
        let run = self.runs.get_mut(at)?;
        if seq < run.start {
            return None;
        }
        let size = run.size;
        self.count -= 1;
        let end = run.end();
        if run.len == 1 {
            self.runs.remove(at);
        } else if seq == run.start {
            run.start += 1;
            run.len -= 1;
        } else {
            run.len = to_len(seq - run.start);
            if seq + 1 < end {
                self.runs.insert(
                    at + 1,
                    Run {
                        start: seq + 1,
                        len: to_len(end - seq - 1),
                        size,
                    },
                );
            }
        }
        Some(size)
    }

    /// Takes out the first run, cut off at `below`; `None` when nothing lies below.
    pub(super) fn take_run_below(&mut self, below: u64) -> Option<Run> {
        let run = self.runs.front_mut().filter(|run| run.start < below)?;
        let mut taken = *run;
        if run.end() <= below {
            self.runs.pop_front();
        } else {
            taken.len = to_len(below - run.start);
            run.start = below;
            run.len -= taken.len;
        }
        self.count -= u64::from(taken.len);
        Some(taken)
    }

    /// Size of a sequence that is here.
    pub(super) fn size_of(&self, seq: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.end() <= seq);
        self.runs
            .get(at)
            .filter(|run| run.start <= seq)
            .map(|run| run.size)
    }

    /// The first sequence at or after `from`.
    pub(super) fn at_or_after(&self, from: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.end() <= from);
        self.runs.get(at).map(|run| run.start.max(from))
    }

    /// The last sequence at or before `to`.
    pub(super) fn at_or_before(&self, to: u64) -> Option<u64> {
        let behind = self.runs.partition_point(|run| run.start <= to);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        Some(to.min(run.end() - 1))
    }

    /// How many sequences lie at or after `from`.
    pub(super) fn count_from(&self, from: u64) -> u64 {
        let at = self.runs.partition_point(|run| run.end() <= from);
        self.runs
            .range(at..)
            .map(|run| run.end() - run.start.max(from))
            .sum()
    }

    /// Appends the value of a row: how many, then the runs as gap, length and size. Sequences are
    /// relative to that of the block.
    pub(super) fn encode(&self, block_first: u64, out: &mut Vec<u8>) {
        put_varint(out, self.count);
        let mut at = block_first;
        for run in &self.runs {
            put_varint(out, run.start - at);
            put_varint(out, u64::from(run.len));
            put_varint(out, run.size);
            at = run.end();
        }
    }

    pub(super) fn decode(block_first: u64, value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        let declared = reader.varint()?;
        let mut runs = VecDeque::new();
        let mut at = block_first;
        let mut count = 0;
        while !reader.is_empty() {
            let start = at.checked_add(reader.varint()?)?;
            let len = reader.varint_u32()?;
            let size = reader.varint()?;
            at = start.checked_add(u64::from(len))?;
            count += u64::from(len);
            if len == 0 {
                return None;
            }
            runs.push_back(Run { start, len, size });
        }
        (count == declared).then_some(Self { runs, count })
    }

    /// How many sequences a row holds, without reading them.
    pub(super) fn peek_count(value: &[u8]) -> Option<u64> {
        Reader(value).varint()
    }
}

fn to_len(span: u64) -> u32 {
    u32::try_from(span).expect("a part of a run is no longer than the run")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn build(model: &BTreeMap<u64, u64>) -> Runs {
        let mut runs = Runs::default();
        for (seq, size) in model {
            runs.push(*seq, *size);
        }
        runs
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(
            model in proptest::collection::btree_map(100u64..200, 1u64..3, 0..80),
            gone in proptest::collection::vec(100u64..200, 0..60),
            probe in 95u64..205,
        ) {
            let mut model = model;
            let mut runs = build(&model);
            for seq in gone {
                prop_assert_eq!(runs.remove(seq), model.remove(&seq));
            }
            prop_assert_eq!(runs.count(), model.len() as u64);
            prop_assert_eq!(runs.first(), model.keys().next().copied());
            prop_assert_eq!(runs.last(), model.keys().next_back().copied());
            prop_assert_eq!(runs.at_or_after(probe), model.range(probe..).next().map(|(s, _)| *s));
            prop_assert_eq!(runs.at_or_before(probe), model.range(..=probe).next_back().map(|(s, _)| *s));
            prop_assert_eq!(runs.count_from(probe), model.range(probe..).count() as u64);
            let mut value = Vec::new();
            runs.encode(100, &mut value);
            prop_assert_eq!(Runs::peek_count(&value), Some(runs.count()));
            prop_assert_eq!(Runs::decode(100, &value), Some(runs.clone()));
            let mut taken = BTreeMap::new();
            while let Some(run) = runs.take_run_below(probe) {
                for seq in run.start..run.end() {
                    taken.insert(seq, run.size);
                }
            }
            let below: BTreeMap<u64, u64> = model.range(..probe).map(|(s, z)| (*s, *z)).collect();
            prop_assert_eq!(taken, below);
            prop_assert_eq!(runs.count(), model.range(probe..).count() as u64);
        }
    }

    #[test]
    fn equal_messages_in_a_row_cost_a_few_bytes() {
        let mut runs = Runs::default();
        for seq in 1..=500 {
            runs.push(seq, 166);
        }
        let mut value = Vec::new();
        runs.encode(1, &mut value);
        assert!(value.len() <= 8, "{} bytes", value.len());
    }
}
