//! Which subjects a reader wants.

use menes_protocol::subject;
use smallvec::SmallVec;

/// A set of subject filters; none means every subject.
///
/// ```
/// use menes_jetstream::stream::Filters;
///
/// let filters = Filters::new(["orders.*", "returns.eu"]);
/// assert!(filters.matches(b"orders.1"));
/// assert!(!filters.matches(b"returns.us"));
/// assert!(Filters::all().matches(b"anything"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    list: SmallVec<[Filter; 1]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pattern: Box<[u8]>,
    /// How much of the pattern comes before its first wildcard; all of it in a literal.
    prefix: usize,
}

impl Filter {
    fn new(pattern: &[u8]) -> Self {
        let mut prefix = 0;
        for token in subject::tokens(pattern) {
            if token == b"*" || token == b">" {
                break;
            }
            prefix = (prefix + token.len() + 1).min(pattern.len());
        }
        Self {
            pattern: pattern.into(),
            prefix,
        }
    }

    pub(super) fn is_literal(&self) -> bool {
        self.prefix == self.pattern.len()
    }

    pub(super) fn matches(&self, subject: &[u8]) -> bool {
        if self.is_literal() {
            *self.pattern == *subject
        } else {
            subject::matches(&self.pattern, subject)
        }
    }

    /// The prefix, where every subject that begins with it matches, of those that can be stored.
    pub(super) fn everything_below(&self) -> Option<&[u8]> {
        (&self.pattern[self.prefix..] == b">").then(|| self.prefix())
    }

    /// What every matching subject begins with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.pattern[..self.prefix]
    }
}

impl Filters {
    /// Every subject.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Subjects that match one of `filters`; no filter, an empty one or `>` means every subject.
    pub fn new<'a>(filters: impl IntoIterator<Item = &'a str>) -> Self {
        let mut list = SmallVec::new();
        for filter in filters {
            if filter.is_empty() || filter == ">" {
                return Self::all();
            }
            list.push(Filter::new(filter.as_bytes()));
        }
        Self { list }
    }

    /// Whether every subject matches.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.list.is_empty()
    }

    /// The subjects that are wanted, if they are a list without wildcards.
    pub(crate) fn literals(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let is_list = !self.list.is_empty() && self.list.iter().all(Filter::is_literal);
        is_list.then(|| self.list.iter().map(|filter| &*filter.pattern))
    }

    /// Whether a subject is wanted.
    #[must_use]
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.list.is_empty() || self.list.iter().any(|filter| filter.matches(subject))
    }

    /// Whether everything wanted matches `wider`.
    #[must_use]
    pub fn are_within(&self, wider: &[u8]) -> bool {
        let is_within = |filter: &Filter| subject::is_subset(&filter.pattern, wider);
        wider == b">" || (!self.is_all() && self.list.iter().all(is_within))
    }

    /// Whether something of what one of the filters wants lies within `wider`, and all of it.
    #[must_use]
    pub fn overlap(&self, wider: &[u8]) -> bool {
        let is_within = |filter: &Filter| subject::is_subset(&filter.pattern, wider);
        self.list.iter().any(is_within)
    }

    /// Whether everything that matches `narrower` is wanted.
    #[must_use]
    pub fn reach_into(&self, narrower: &[u8]) -> bool {
        let covers = |filter: &Filter| subject::is_subset(narrower, &filter.pattern);
        self.is_all() || self.list.iter().any(covers)
    }

    pub(super) fn list(&self) -> &[Filter] {
        &self.list
    }

    /// Whether `subject`, found through filter number `at`, was found through an earlier one.
    pub(super) fn seen_before(&self, at: usize, subject: &[u8]) -> bool {
        self.list[..at].iter().any(|filter| filter.matches(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_ends_before_the_first_wildcard() {
        for (pattern, prefix) in [
            ("a.b", "a.b"),
            ("a.*", "a."),
            ("a.>", "a."),
            ("*.b", ""),
            ("a*.b", "a*.b"),
            (">", ""),
        ] {
            assert_eq!(
                Filter::new(pattern.as_bytes()).prefix(),
                prefix.as_bytes(),
                "{pattern}"
            );
        }
    }

    #[test]
    fn only_a_full_wildcard_behind_the_prefix_takes_everything_below_it() {
        for (pattern, below) in [
            ("a.>", Some("a.")),
            ("a.*", None),
            ("a.*.>", None),
            ("a", None),
        ] {
            let filter = Filter::new(pattern.as_bytes());
            assert_eq!(
                filter.everything_below(),
                below.map(str::as_bytes),
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_full_wildcard_anywhere_means_all() {
        assert!(Filters::new(["a", ">"]).is_all());
        assert!(Filters::new([]).is_all());
        assert!(Filters::new([""]).is_all());
        assert!(!Filters::new(["a"]).is_all());
    }
}
