//! Which consumers of a stream may want a message.
//!
//! Where a stream has many consumers, most want one subject each: those are found by it. The others
//! are asked one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::stream::Filters;

/// The consumers of a stream, by what they want.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    /// Those whose filters have no wildcard, by each of them.
    literal: BTreeMap<Box<[u8]>, Vec<u32>>,
    /// The others.
    others: BTreeSet<u32>,
}

impl Audience {
    pub(super) fn insert(&mut self, id: u32, filters: &Filters) {
        let Some(subjects) = filters.literals() else {
            self.others.insert(id);
            return;
        };
        for subject in subjects {
            self.literal.entry(subject.into()).or_default().push(id);
        }
    }

    /// Takes out a consumer that was put in with these filters.
    pub(super) fn remove(&mut self, id: u32, filters: &Filters) {
        self.others.remove(&id);
        for subject in filters.literals().into_iter().flatten() {
            if let Some(ids) = self.literal.get_mut(subject) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.literal.remove(subject);
                }
            }
        }
    }

    /// Those that may want a message on `subject`; all others do not.
    pub(super) fn of(&self, subject: &[u8]) -> impl Iterator<Item = u32> + use<'_> {
        let by_subject = self.literal.get(subject).into_iter().flatten();
        by_subject.chain(&self.others).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_are_found_by_what_they_want() {
        let filters = [
            Filters::new(["a"]),
            Filters::new(["a", "b"]),
            Filters::new(["a.*"]),
            Filters::all(),
        ];
        let mut audience = Audience::default();
        for (id, filters) in (1..).zip(&filters) {
            audience.insert(id, filters);
        }
        let of = |audience: &Audience, subject: &str| -> Vec<u32> {
            audience.of(subject.as_bytes()).collect()
        };
        assert_eq!(of(&audience, "a"), [1, 2, 3, 4]);
        assert_eq!(of(&audience, "b"), [2, 3, 4]);
        assert_eq!(of(&audience, "c"), [3, 4]);
        audience.remove(2, &filters[1]);
        audience.remove(3, &filters[2]);
        assert_eq!(of(&audience, "a"), [1, 4]);
        assert_eq!(of(&audience, "b"), [4]);
    }
}
