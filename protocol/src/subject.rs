//! Subjects: validity, wildcards, and how they relate to each other.
//!
//! A subject is a list of tokens separated by `.`. In a *filter* the token `*` stands for any one
//! token and a last token `>` for one or more; inside a longer token both are ordinary bytes, so
//! `a*b` is literal. Comparison is bytewise and case-sensitive; no encoding is assumed.
//!
//! A published subject may contain tokens `*` and `>` (nats-server routes them outside pedantic
//! mode): as the second argument of [`matches()`] they are plain tokens.
//!
//! An empty token makes a subject malformed. Malformed subjects and filters match nothing, lie in
//! nothing and overlap nothing.

/// The tokens of `subject`, in order; an empty subject has one empty token.
#[must_use]
pub fn tokens(subject: &[u8]) -> Tokens<'_> {
    Tokens {
        rest: Some(subject),
    }
}

/// Iterator over the tokens of a subject.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let end = rest.iter().position(|&byte| byte == b'.');
        let (token, rest) = match end {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        self.rest = rest;
        Some(token)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rest
            .map_or((0, Some(0)), |rest| (1, Some(rest.len() + 1)))
    }
}

/// Number of tokens in `subject`.
#[must_use]
pub fn token_count(subject: &[u8]) -> usize {
    1 + subject.iter().filter(|&&byte| byte == b'.').count()
}

/// Whether `subject` may be subscribed to: no empty token, no space, tab, CR, LF or FF, and `>` as
/// a token only at the end.
#[must_use]
pub fn is_valid(subject: &[u8]) -> bool {
    survey(subject).is_some()
}

/// Whether `subject` is valid and has no wildcard token, so that it names exactly one subject.
#[must_use]
pub fn is_literal(subject: &[u8]) -> bool {
    survey(subject) == Some(false)
}

/// Whether `subject` has a token that is `*`, or ends in a token that is `>`.
#[must_use]
pub fn has_wildcard(subject: &[u8]) -> bool {
    let len = subject.len();
    subject.iter().enumerate().any(|(at, &byte)| {
        let alone =
            (at == 0 || subject[at - 1] == b'.') && (at + 1 == len || subject[at + 1] == b'.');
        alone && (byte == b'*' || (byte == b'>' && at + 1 == len))
    })
}

/// `None` if malformed, else whether a wildcard token occurs.
fn survey(subject: &[u8]) -> Option<bool> {
    let mut wildcard = false;
    let mut start = 0;
    for (at, &byte) in subject.iter().enumerate() {
        match byte {
            b'.' => {
                match &subject[start..at] {
                    b"" | b">" => return None,
                    b"*" => wildcard = true,
                    _ => {}
                }
                start = at + 1;
            }
            b' ' | b'\t' | b'\r' | b'\n' | 0x0c => return None,
            _ => {}
        }
    }
    match &subject[start..] {
        b"" => None,
        b"*" | b">" => Some(true),
        _ => Some(wildcard),
    }
}

/// Whether `filter` (which may have wildcards) matches the published `subject`.
#[must_use]
pub fn matches(filter: &[u8], subject: &[u8]) -> bool {
    let mut wanted = filter;
    let mut given = subject;
    loop {
        match wanted {
            b">" => return !has_empty_token(given),
            [b'*', tail @ ..] if tail.first().is_none_or(|&byte| byte == b'.') => {
                let end = given
                    .iter()
                    .position(|&byte| byte == b'.')
                    .unwrap_or(given.len());
                if end == 0 {
                    return false;
                }
                wanted = tail;
                given = &given[end..];
            }
            _ => {
                let end = wanted
                    .iter()
                    .position(|&byte| byte == b'.')
                    .unwrap_or(wanted.len());
                if end == 0 || given.len() < end || wanted[..end] != given[..end] {
                    return false;
                }
                wanted = &wanted[end..];
                given = &given[end..];
            }
        }
        // Both stand behind a token now: either both go on with a separator, or both are done.
        match (wanted, given) {
            ([], []) => return true,
            ([b'.', next_wanted @ ..], [b'.', next_given @ ..]) => {
                wanted = next_wanted;
                given = next_given;
            }
            _ => return false,
        }
    }
}

fn has_empty_token(subject: &[u8]) -> bool {
    let mut before = b'.';
    for &byte in subject {
        if byte == b'.' && before == b'.' {
            return true;
        }
        before = byte;
    }
    before == b'.'
}

/// Whether every subject matched by `narrow` is matched by `wide`.
#[must_use]
pub fn is_subset(narrow: &[u8], wide: &[u8]) -> bool {
    if has_empty_token(narrow) || has_empty_token(wide) {
        return false;
    }
    let mut narrow = Cursor::new(narrow);
    let mut wide = Cursor::new(wide);
    loop {
        match (narrow.next(), wide.next()) {
            (None, None) => return true,
            (Some(_), Some(Token::Rest)) => return true,
            (Some(Token::Literal(_) | Token::Any), Some(Token::Any)) => {}
            (Some(Token::Literal(a)), Some(Token::Literal(b))) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both `a` and `b`.
#[must_use]
pub fn overlaps(a: &[u8], b: &[u8]) -> bool {
    if has_empty_token(a) || has_empty_token(b) {
        return false;
    }
    let mut a = Cursor::new(a);
    let mut b = Cursor::new(b);
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(Token::Rest), Some(_)) | (Some(_), Some(Token::Rest)) => return true,
            (Some(Token::Literal(a)), Some(Token::Literal(b))) if a != b => return false,
            _ => {}
        }
    }
}

/// The filter that matches what both `a` and `b` match; `None` when they have nothing in common.
#[must_use]
pub fn intersection(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    if !overlaps(a, b) {
        return None;
    }
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut left, mut right) = (Cursor::new(a), Cursor::new(b));
    loop {
        let rest_behind = |out: &mut Vec<u8>, first: Token<'_>, rest: &Cursor<'_>| {
            put(out, first);
            if let Some(rest) = rest.0.rest {
                out.push(b'.');
                out.extend_from_slice(rest);
            }
        };
        match (left.next(), right.next()) {
            (Some(Token::Rest), Some(other)) => rest_behind(&mut out, other, &right),
            (Some(other), Some(Token::Rest)) => rest_behind(&mut out, other, &left),
            (Some(Token::Any), Some(other)) | (Some(other), Some(_)) => {
                put(&mut out, other);
                out.push(b'.');
                continue;
            }
            // They overlap, so both end here.
            (None, _) | (_, None) => {
                out.pop();
            }
        }
        return Some(out);
    }
}

fn put(out: &mut Vec<u8>, token: Token<'_>) {
    out.extend_from_slice(match token {
        Token::Literal(token) => token,
        Token::Any => b"*",
        Token::Rest => b">",
    });
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Literal(&'a [u8]),
    /// `*`
    Any,
    /// `>` at the end
    Rest,
}

struct Cursor<'a>(Tokens<'a>);

impl<'a> Cursor<'a> {
    fn new(subject: &'a [u8]) -> Self {
        Self(tokens(subject))
    }

    fn next(&mut self) -> Option<Token<'a>> {
        Some(match self.0.next()? {
            b"*" => Token::Any,
            b">" if self.0.rest.is_none() => Token::Rest,
            literal => Token::Literal(literal),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subscribable_subjects_follow_the_token_rules() {
        for good in [
            "a", "a.b", "*", ">", "a.*", "a.>", "*.*.>", "a*b", "a.b>", ">x.y", "\u{e9}.1",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ".", ".a", "a.", "a..b", ">.a", "a.>.b", "a b", "a\tb", "a\r", "a\n", "\x0c",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad:?}");
            assert!(!is_literal(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn wildcard_bytes_inside_a_token_are_literal() {
        assert!(is_literal(b"a*b.c>"));
        assert!(!has_wildcard(b"a*b.c>"));
        assert!(matches(b"a*b", b"a*b"));
        assert!(!matches(b"a*b", b"axb"));
        assert!(!is_literal(b"a.*"));
        assert!(has_wildcard(b"a.*.b") && has_wildcard(b"a.>") && has_wildcard(b">"));
    }

    #[test]
    fn the_last_wildcard_needs_one_token() {
        assert!(matches(b"a.>", b"a.b"));
        assert!(matches(b"a.>", b"a.b.c"));
        assert!(!matches(b"a.>", b"a"));
        assert!(!matches(b"a.>", b"a."));
        assert!(!matches(b">", b""));
    }

    #[test]
    fn wildcards_of_a_published_subject_are_plain_tokens() {
        assert!(matches(b"a.*", b"a.*"));
        assert!(matches(b"a.*", b"a.>"));
        assert!(!matches(b"a.b", b"a.*"));
        assert!(!matches(b"a.b", b"a.>"));
    }

    #[test]
    fn empty_tokens_match_nothing() {
        for subject in ["", ".", "a.", ".a", "a..b"] {
            assert!(!matches(b">", subject.as_bytes()), "{subject:?}");
            assert!(
                !matches(subject.as_bytes(), subject.as_bytes()),
                "{subject:?}"
            );
            assert!(!is_subset(subject.as_bytes(), b">"), "{subject:?}");
            assert!(!overlaps(subject.as_bytes(), b">"), "{subject:?}");
        }
        assert!(!matches(b"a.*.b", b"a..b"));
    }

    #[test]
    fn subsets_and_overlaps_of_wildcards() {
        assert!(is_subset(b"a.*", b"a.>"));
        assert!(is_subset(b"*.>", b">"));
        assert!(!is_subset(b">", b"*.>"));
        assert!(!is_subset(b"a.>", b"a.*"));
        assert!(overlaps(b"a.*", b"*.b"));
        assert!(overlaps(b"a.>", b"*.b.c"));
        assert!(!overlaps(b"a.>", b"a"));
        assert!(!overlaps(b"a.b", b"a.c"));
    }

    fn naive_match(filter: &[u8], subject: &[u8]) -> bool {
        let filter: Vec<&[u8]> = filter.split(|&byte| byte == b'.').collect();
        let subject: Vec<&[u8]> = subject.split(|&byte| byte == b'.').collect();
        if filter.iter().chain(&subject).any(|token| token.is_empty()) {
            return false;
        }
        for (at, token) in filter.iter().enumerate() {
            if *token == b">" && at + 1 == filter.len() {
                return subject.len() > at;
            }
            match subject.get(at) {
                Some(given) if *token == b"*" || token == given => {}
                _ => return false,
            }
        }
        filter.len() == subject.len()
    }

    /// All literal subjects of up to four tokens over three letters: enough to tell filters of up
    /// to three tokens over two letters apart, because one letter occurs in no filter and one
    /// length exceeds all of them.
    fn universe() -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = vec![b"a".to_vec(), b"b".to_vec(), b"z".to_vec()];
        let mut layer = all.clone();
        for _ in 0..3 {
            layer = layer
                .iter()
                .flat_map(|prefix| {
                    [b'a', b'b', b'z'].map(|letter| {
                        let mut subject = prefix.clone();
                        subject.extend([b'.', letter]);
                        subject
                    })
                })
                .collect();
            all.extend(layer.clone());
        }
        all
    }

    #[test]
    fn relations_agree_with_brute_force() {
        let mut filters: Vec<Vec<u8>> = Vec::new();
        let inner = ["a", "b", "*"];
        let last = ["a", "b", "*", ">"];
        for c in last {
            filters.push(c.into());
            for b in inner {
                filters.push(format!("{b}.{c}").into());
                for a in inner {
                    filters.push(format!("{a}.{b}.{c}").into());
                }
            }
        }
        let universe = universe();
        let sets: Vec<Vec<bool>> = filters
            .iter()
            .map(|f| universe.iter().map(|s| matches(f, s)).collect())
            .collect();
        for (f, set_f) in filters.iter().zip(&sets) {
            for (g, set_g) in filters.iter().zip(&sets) {
                let both = || set_f.iter().zip(set_g);
                assert_eq!(
                    is_subset(f, g),
                    both().all(|(f, g)| !f || *g),
                    "{f:?} in {g:?}"
                );
                assert_eq!(
                    overlaps(f, g),
                    both().any(|(f, g)| *f && *g),
                    "{f:?} and {g:?}"
                );
                let common = intersection(f, g);
                let in_common = |s: &Vec<u8>| common.as_ref().is_some_and(|c| matches(c, s));
                for ((f_has, g_has), subject) in both().zip(&universe) {
                    assert_eq!(in_common(subject), *f_has && *g_has, "{f:?} and {g:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn matches_agrees_with_a_naive_matcher(
            filter in "[ab*>.]{0,8}", subject in "[ab*>.]{0,8}",
        ) {
            let (filter, subject) = (filter.as_bytes(), subject.as_bytes());
            prop_assert_eq!(matches(filter, subject), naive_match(filter, subject));
        }

        #[test]
        fn a_literal_matches_itself_alone(
            subject in "[a-c*>]{1,2}(\\.[a-c*>]{1,2}){0,4}", other in "[a-c](\\.[a-c]){0,4}",
        ) {
            let (subject, other) = (subject.as_bytes(), other.as_bytes());
            prop_assume!(is_literal(subject));
            prop_assert!(matches(subject, subject));
            prop_assert_eq!(matches(subject, other), subject == other);
        }

        #[test]
        fn no_bytes_panic(
            a in proptest::collection::vec(any::<u8>(), 0..12),
            b in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let subset = is_subset(&a, &b);
            prop_assert!(!subset || overlaps(&a, &b));
            prop_assert_eq!(overlaps(&a, &b), overlaps(&b, &a));
            prop_assert_eq!(is_literal(&a), is_valid(&a) && !has_wildcard(&a));
            prop_assert_eq!(matches(&a, &b), naive_match(&a, &b));
            prop_assert_eq!(tokens(&a).count(), token_count(&a));
        }
    }
}
