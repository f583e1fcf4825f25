//! Subject transforms: a published subject that matches a source becomes another subject.
//!
//! Account mappings, imports and streams (transforms, sources, republishing) share these rules:
//! the destination takes over tokens of the published subject that the wildcards of the source
//! stand for, as they are or through a function.
//!
//! | In the destination | Becomes |
//! |---|---|
//! | `$n`, `{{wildcard(n)}}` | the token of the n-th `*` of the source |
//! | `{{partition(b)}}`, `{{partition(b,i,j…)}}` | a number below `b`, from the subject or those tokens |
//! | `{{random(b)}}` | a number below `b` |
//! | `{{split(i,s)}}` | the token cut at every `s`, empty pieces left out |
//! | `{{splitFromLeft(i,n)}}`, `{{splitFromRight(i,n)}}` | the token cut once, `n` bytes from that end |
//! | `{{sliceFromLeft(i,n)}}`, `{{sliceFromRight(i,n)}}` | the token cut every `n` bytes |
//! | `{{left(i,n)}}`, `{{right(i,n)}}` | the first or last `n` bytes of the token |
//! | a last `>` | what the last `>` of the source stands for |
//!
//! Where a number does not fit the token, the token stays whole. Numbers and texts are those of
//! nats-server, corner cases included: an index of 0 is the first token of the subject, wildcard
//! or not.

mod destination;

use smallvec::SmallVec;

use self::destination::{Call, index_of};
pub use self::destination::{number_wildcards, wildcards_of};
use crate::subject;

/// Why a source and a destination make no transform. The texts are those of nats-server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// Source or destination is no subject, the destination has a `*`, or only one of them ends in
    /// `>`.
    #[error("invalid subject")]
    InvalidSubject,
    /// A token of a mapping's destination is empty, holds blanks, or stands behind `>`.
    #[error("invalid mapping destination: invalid transform{}", place(.0))]
    InvalidDestination(String),
    /// A function that does not exist.
    #[error("invalid mapping destination: unknown function in {0}")]
    UnknownFunction(String),
    /// The source has fewer wildcards.
    #[error("invalid mapping destination: wildcard index out of range in {0}")]
    IndexOutOfRange(String),
    /// The function needs more arguments.
    #[error("invalid mapping destination: not enough arguments passed to the function in {0}")]
    NotEnoughArguments(String),
    /// An argument is no number, or no separator.
    #[error(
        "invalid mapping destination: function argument is invalid or in the wrong format in {0}"
    )]
    InvalidArgument(String),
    /// The function takes fewer arguments.
    #[error("invalid mapping destination: too many arguments passed to the function in {0}")]
    TooManyArguments(String),
    /// A strict transform must use every wildcard of its source.
    #[error("invalid mapping destination: not using all of the token wildcard(s) in {0}")]
    UnusedWildcard(String),
    /// A strict transform must be reversible.
    #[error(
        "invalid mapping destination: the only mapping function allowed for import transforms is \
         {{{{Wildcard()}}}} in {0}"
    )]
    NotReversible(String),
}

fn place(token: &str) -> String {
    if token.is_empty() {
        String::new()
    } else {
        format!(" in {token}")
    }
}

/// A source and what its subjects become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    source: Box<str>,
    destination: Box<str>,
    parts: Box<[Part]>,
    /// Number of source tokens before its last `>`, when source and destination end in one.
    rest: Option<usize>,
}

/// What one token of the destination becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Token(usize),
    /// No tokens: the whole subject.
    Partition {
        tokens: Box<[usize]>,
        buckets: u32,
    },
    Random {
        bound: u32,
    },
    Split {
        token: usize,
        separator: Box<[u8]>,
    },
    Cut {
        token: usize,
        how: Cut,
        len: usize,
    },
}

/// Ways to cut a token by length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    SplitFromLeft,
    SplitFromRight,
    SliceFromLeft,
    SliceFromRight,
    Left,
    Right,
}

impl Transform {
    /// The transform of subjects that match `source` (an empty one is `>`) to `destination`.
    /// Wildcards that the destination does not use are left out of the result.
    ///
    /// # Errors
    /// What is wrong with the two, see [`TransformError`]. An empty destination is refused: where
    /// it means "no transform", ask before.
    pub fn new(source: &str, destination: &str) -> Result<Self, TransformError> {
        Self::compile(source, destination, false)
    }

    /// As [`Transform::new`] for one that must be reversible, as imports must be: it uses every
    /// wildcard of its source and no other function.
    ///
    /// # Errors
    /// As [`Transform::new`], and what makes it irreversible.
    pub fn strict(source: &str, destination: &str) -> Result<Self, TransformError> {
        Self::compile(source, destination, true)
    }

    /// As [`Transform::new`] for the destination of an account mapping: these may not hold blanks,
    /// and nats-server knows `left` and `right` in streams only.
    ///
    /// # Errors
    /// As [`Transform::new`].
    pub fn mapping(source: &str, destination: &str) -> Result<Self, TransformError> {
        destination::check_mapping(destination)?;
        Self::new(source, destination)
    }

    fn compile(source: &str, destination: &str, strict: bool) -> Result<Self, TransformError> {
        let source = if source.is_empty() { ">" } else { source };
        let from = Survey::of(source).ok_or(TransformError::InvalidSubject)?;
        let to = Survey::of(destination).ok_or(TransformError::InvalidSubject)?;
        if !to.wildcards.is_empty() || from.has_rest != to.has_rest {
            return Err(TransformError::InvalidSubject);
        }
        let mut parts = Vec::new();
        let mut used = 0;
        for token in destination.split('.') {
            let call = Call::parse(token)?;
            let is_literal_source = from.wildcards.is_empty() && !from.has_rest;
            if strict && !is_literal_source && !call.is_reversible() {
                return Err(TransformError::NotReversible(token.to_owned()));
            }
            let (part, uses) = if is_literal_source {
                (call.without_wildcards(token)?, 0)
            } else {
                call.with_wildcards(token, &from.wildcards)?
            };
            used += uses;
            parts.push(part);
        }
        if strict && used < from.wildcards.len() {
            return Err(TransformError::UnusedWildcard(destination.to_owned()));
        }
        if to.has_rest {
            parts.pop();
        }
        Ok(Self {
            source: source.into(),
            destination: destination.into(),
            parts: parts.into(),
            rest: from.has_rest.then_some(from.tokens - 1),
        })
    }

    /// The subjects it applies to.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The destination as it was given.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Whether `random` occurs in the destination.
    #[must_use]
    pub fn is_random(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Random { .. }))
    }

    /// What the published `subject` becomes; `None` when it does not match the source or is
    /// malformed. `random` is any number for `{{random()}}`: the same number gives the same
    /// result.
    #[must_use]
    pub fn apply(&self, subject: &[u8], random: u32) -> Option<Vec<u8>> {
        if self.is_identity() {
            return Some(subject.to_vec());
        }
        let is_plain = subject::tokens(subject).all(|token| !matches!(token, b"" | b"*" | b">"));
        (is_plain && subject::matches(self.source.as_bytes(), subject))
            .then(|| self.rewrite(subject, random))
    }

    /// As [`Transform::apply`] for a subject that is known to match: a token that it lacks is empty
    /// in the result.
    #[must_use]
    pub fn rewrite(&self, subject: &[u8], random: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(subject.len() + self.destination.len());
        self.rewrite_into(subject, random, &mut out);
        out
    }

    /// As [`Transform::rewrite`], appended to `out`.
    pub fn rewrite_into(&self, subject: &[u8], random: u32, out: &mut Vec<u8>) {
        let tokens: SmallVec<[&[u8]; 16]> = subject::tokens(subject).collect();
        let token = |at: usize| tokens.get(at).copied().unwrap_or_default();
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                out.push(b'.');
            }
            match part {
                Part::Literal(literal) => out.extend_from_slice(literal),
                Part::Token(at) => out.extend_from_slice(token(*at)),
                Part::Partition {
                    tokens: chosen,
                    buckets,
                } => {
                    let hash = if chosen.is_empty() {
                        fnv1a(FNV_START, subject)
                    } else {
                        chosen
                            .iter()
                            .fold(FNV_START, |hash, &at| fnv1a(hash, token(at)))
                    };
                    put_number(out, hash.checked_rem(*buckets).unwrap_or(0));
                }
                Part::Random { bound } => {
                    let number = spread(random, at) & 0x7fff_ffff;
                    put_number(out, number.checked_rem(*bound).unwrap_or(0));
                }
                Part::Split {
                    token: at,
                    separator,
                } => split(out, token(*at), separator),
                Part::Cut {
                    token: at,
                    how,
                    len,
                } => how.apply(out, token(*at), *len),
            }
        }
        if let Some(before) = self.rest {
            for (at, token) in tokens.iter().enumerate().skip(before) {
                if at > before || !self.parts.is_empty() {
                    out.push(b'.');
                }
                out.extend_from_slice(token);
            }
        }
    }

    /// The transform from its destination back to its source; `None` unless it could have been made
    /// by [`Transform::strict`] in both directions.
    #[must_use]
    pub fn reverse(&self) -> Option<Self> {
        let (source, marks) = wildcards_of(&self.destination);
        let indexes: Vec<Option<usize>> = marks.iter().map(|mark| index_of(mark)).collect();
        let mut wildcard = 0;
        let mut back = |token: &str| {
            if token != "*" {
                return Some(token.to_owned());
            }
            wildcard += 1;
            let at = indexes.iter().position(|&index| index == Some(wildcard))?;
            Some(format!("${}", at + 1))
        };
        let tokens: Option<Vec<String>> = self.source.split('.').map(&mut back).collect();
        Self::strict(&source, &tokens?.join(".")).ok()
    }

    fn is_identity(&self) -> bool {
        &*self.source == ">" && &*self.destination == ">"
    }
}

/// What a subject is made of.
struct Survey {
    tokens: usize,
    /// Places of the tokens `*`.
    wildcards: Vec<usize>,
    has_rest: bool,
}

impl Survey {
    /// `None` for an empty token and for a `>` before the end. Blanks are let through.
    fn of(subject: &str) -> Option<Self> {
        let mut survey = Self {
            tokens: 0,
            wildcards: Vec::new(),
            has_rest: false,
        };
        for token in subject.split('.') {
            if token.is_empty() || survey.has_rest {
                return None;
            }
            match token {
                "*" => survey.wildcards.push(survey.tokens),
                ">" => survey.has_rest = true,
                _ => {}
            }
            survey.tokens += 1;
        }
        Some(survey)
    }
}

fn put_number(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

const FNV_START: u32 = 0x811c_9dc5;

/// FNV-1a, 32 bits.
fn fnv1a(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// A number for the token at this place, so that several in one subject differ.
fn spread(random: u32, at: usize) -> u32 {
    let place = u32::try_from(at).unwrap_or(u32::MAX);
    let mut mixed = random ^ place.wrapping_mul(0x9e37_79b9);
    for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
        mixed = (mixed ^ (mixed >> 16)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 16)
}

/// The pieces between separators, but for empty ones.
fn split(out: &mut Vec<u8>, token: &[u8], separator: &[u8]) {
    let pieces = pieces(token, separator);
    for (at, piece) in pieces.iter().enumerate() {
        out.extend_from_slice(piece);
        let next_counts = pieces.get(at + 1).is_some_and(|next| !next.is_empty());
        if next_counts && !(at == 0 && piece.is_empty()) {
            out.push(b'.');
        }
    }
}

fn pieces<'t>(token: &'t [u8], separator: &[u8]) -> Vec<&'t [u8]> {
    let mut pieces = Vec::new();
    let mut rest = token;
    if separator.is_empty() {
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(character_len(rest));
            pieces.push(piece);
            rest = behind;
        }
        return pieces;
    }
    while let Some(at) = memchr::memmem::find(rest, separator) {
        pieces.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    pieces.push(rest);
    pieces
}

/// Bytes of the first UTF-8 character; 1 where there is none.
fn character_len(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(4))
        .find(|&len| std::str::from_utf8(&bytes[..len]).is_ok())
        .unwrap_or(1)
}

impl Cut {
    fn apply(self, out: &mut Vec<u8>, token: &[u8], len: usize) {
        if len == 0 || len >= token.len() {
            return out.extend_from_slice(token);
        }
        let from_right = token.len() - len;
        match self {
            Self::SplitFromLeft => join(out, [&token[..len], &token[len..]]),
            Self::SplitFromRight => join(out, [&token[..from_right], &token[from_right..]]),
            Self::SliceFromLeft => join(out, token.chunks(len)),
            Self::SliceFromRight => {
                let (first, rest) = token.split_at(token.len() % len);
                let first = (!first.is_empty()).then_some(first);
                join(out, first.into_iter().chain(rest.chunks(len)));
            }
            Self::Left => out.extend_from_slice(&token[..len]),
            Self::Right => out.extend_from_slice(&token[from_right..]),
        }
    }
}

fn join<'t>(out: &mut Vec<u8>, pieces: impl IntoIterator<Item = &'t [u8]>) {
    for (at, piece) in pieces.into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests;
