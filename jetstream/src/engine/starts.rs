//! Which streams may overlap: those whose subjects begin with the same word, or with a wildcard.
//! With many streams in an account, nearly all of them are out of the question for a new one.

use std::collections::BTreeMap;

use crate::ids::{AccountName, GroupId};

/// What subjects begin with that may begin with anything.
const ANY: &str = "";

/// The streams of every account by the first word of their subjects.
#[derive(Debug, Default)]
pub(super) struct Starts(BTreeMap<AccountName, BTreeMap<Box<str>, Vec<GroupId>>>);

impl Starts {
    /// Notes the subjects of a stream.
    pub(super) fn note(&mut self, account: &AccountName, group: GroupId, subjects: &[String]) {
        let words = self.0.entry(account.clone()).or_default();
        for subject in subjects {
            let groups = words.entry(first_word(subject).into()).or_default();
            if groups.last() != Some(&group) {
                groups.push(group);
            }
        }
    }

    /// Forgets them; they are those that were noted.
    pub(super) fn forget(&mut self, account: &AccountName, group: GroupId, subjects: &[String]) {
        let Some(words) = self.0.get_mut(account) else {
            return;
        };
        for subject in subjects {
            let word = first_word(subject);
            if let Some(groups) = words.get_mut(word) {
                groups.retain(|known| *known != group);
                if groups.is_empty() {
                    words.remove(word);
                }
            }
        }
    }

    /// Whether `check` holds for any stream that may overlap with these subjects; it may be asked
    /// about one several times.
    pub(super) fn any(
        &self,
        account: &AccountName,
        subjects: &[String],
        mut check: impl FnMut(GroupId) -> bool,
    ) -> bool {
        let Some(words) = self.0.get(account) else {
            return false;
        };
        let mut all = |groups: &Vec<GroupId>| groups.iter().any(|group| check(*group));
        if subjects.iter().any(|subject| first_word(subject) == ANY) {
            return words.values().any(all);
        }
        let own = subjects.iter().map(|subject| first_word(subject));
        own.chain([ANY])
            .filter_map(|word| words.get(word))
            .any(&mut all)
    }
}

fn first_word(subject: &str) -> &str {
    match subject.split_once('.').map_or(subject, |(first, _)| first) {
        "*" | ">" => ANY,
        word => word,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject() -> impl Strategy<Value = String> {
        let word = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("*")];
        let words = prop::collection::vec(word, 1..4);
        (words, any::<bool>()).prop_map(|(words, is_open)| {
            let end = if is_open { ".>" } else { "" };
            words.join(".") + end
        })
    }

    proptest! {
        #[test]
        fn every_stream_that_overlaps_is_asked_about(
            streams in prop::collection::vec(prop::collection::vec(subject(), 0..3), 1..8),
            gone in any::<prop::sample::Index>(),
            wanted in prop::collection::vec(subject(), 1..3),
        ) {
            let account = AccountName::global();
            let mut starts = Starts::default();
            for (group, subjects) in (0..).zip(&streams) {
                starts.note(&account, GroupId(group), subjects);
            }
            let gone = gone.index(streams.len());
            starts.forget(&account, GroupId(gone as u64), &streams[gone]);
            let overlaps = |group: usize| streams[group].iter().any(|theirs| {
                wanted.iter().any(|ours| {
                    menes_protocol::subject::overlaps(ours.as_bytes(), theirs.as_bytes())
                })
            });
            let expected = (0..streams.len()).any(|group| group != gone && overlaps(group));
            let found = starts.any(&account, &wanted, |group| {
                let group = usize::try_from(group.0).expect("few");
                assert_ne!(group, gone);
                overlaps(group)
            });
            prop_assert_eq!(found, expected);
        }
    }
}
