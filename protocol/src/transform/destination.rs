//! Tokens of a destination: what they call.

use super::{Cut, Part, TransformError};

/// A token of a destination, before the wildcards of its source are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Literal,
    Wildcard(i64),
    Partition { indexes: Vec<i64>, buckets: i32 },
    Random { bound: i32 },
    Split { index: i64, separator: String },
    Cut { index: i64, how: Cut, len: i32 },
}

/// Functions in the order in which nats-server looks for them. A capital stands for either case.
const FUNCTIONS: [(&str, Function); 10] = [
    ("Wildcard", Function::Wildcard),
    ("Partition", Function::Partition),
    ("SplitFromLeft", Function::Cut(Cut::SplitFromLeft)),
    ("SplitFromRight", Function::Cut(Cut::SplitFromRight)),
    ("SliceFromLeft", Function::Cut(Cut::SliceFromLeft)),
    ("SliceFromRight", Function::Cut(Cut::SliceFromRight)),
    ("Right", Function::Cut(Cut::Right)),
    ("Left", Function::Cut(Cut::Left)),
    ("Split", Function::Split),
    ("Random", Function::Random),
];

#[derive(Clone, Copy)]
enum Function {
    Wildcard,
    Partition,
    Cut(Cut),
    Split,
    Random,
}

impl Call {
    pub(super) fn parse(token: &str) -> Result<Self, TransformError> {
        if let Some(index) = token.strip_prefix('$') {
            // Other tokens begin with `$` too.
            return Ok(index.parse().map_or(Self::Literal, Self::Wildcard));
        }
        if !is_call(token) {
            return Ok(Self::Literal);
        }
        let found = FUNCTIONS
            .iter()
            .find_map(|(name, function)| Some((function, arguments(token, name)?)));
        let Some((function, arguments)) = found else {
            return Err(TransformError::UnknownFunction(token.to_owned()));
        };
        let invalid = || TransformError::InvalidArgument(token.to_owned());
        let number = |text: &str| text.trim_matches(' ').parse::<i64>().map_err(|_| invalid());
        // As in nats-server only too large numbers are refused here, others lose their high bits.
        let narrow = |text: &str| match number(text)? {
            large if large > i64::from(i32::MAX) => Err(invalid()),
            #[expect(clippy::cast_possible_truncation, reason = "as the comment says")]
            number => Ok(number as i32),
        };
        match (function, &arguments[..]) {
            (Function::Wildcard, [""]) => Err(TransformError::NotEnoughArguments(token.to_owned())),
            (Function::Wildcard, [index]) => Ok(Self::Wildcard(number(index)?)),
            (Function::Partition, [buckets, indexes @ ..]) => {
                let buckets = narrow(buckets)?;
                let indexes = indexes.iter().map(|index| number(index));
                Ok(Self::Partition {
                    indexes: indexes.collect::<Result<_, _>>()?,
                    buckets,
                })
            }
            (Function::Random, [bound]) => Ok(Self::Random {
                bound: narrow(bound)?,
            }),
            (Function::Split, [index, separator]) => {
                let index = number(index)?;
                if separator.contains([' ', '.']) {
                    return Err(invalid());
                }
                let separator = (*separator).to_owned();
                Ok(Self::Split { index, separator })
            }
            (Function::Cut(how), [index, len]) => {
                let index = number(index)?;
                let len = len.trim_matches(' ').parse().map_err(|_| invalid())?;
                let how = *how;
                Ok(Self::Cut { index, how, len })
            }
            (Function::Random, _) | (_, [] | [_]) => {
                Err(TransformError::NotEnoughArguments(token.to_owned()))
            }
            _ => Err(TransformError::TooManyArguments(token.to_owned())),
        }
    }

    pub(super) fn is_reversible(&self) -> bool {
        matches!(self, Self::Literal | Self::Wildcard(_))
    }

    /// For a source without wildcards.
    pub(super) fn without_wildcards(self, token: &str) -> Result<Part, TransformError> {
        match self {
            Self::Literal | Self::Random { .. } => Ok(self.with_wildcards(token, &[])?.0),
            Self::Partition { buckets, .. } => Ok(Part::Partition {
                tokens: Box::default(),
                buckets: buckets_of(buckets),
            }),
            Self::Wildcard(_) | Self::Split { .. } | Self::Cut { .. } => {
                Err(TransformError::IndexOutOfRange(token.to_owned()))
            }
        }
    }

    /// For a source with wildcards at these places; also how many indexes are used.
    pub(super) fn with_wildcards(
        self,
        token: &str,
        places: &[usize],
    ) -> Result<(Part, usize), TransformError> {
        let place = |index: i64| match usize::try_from(index) {
            // As in nats-server, what is no index is the first token.
            Ok(0) | Err(_) => Ok(0),
            Ok(number) => places
                .get(number - 1)
                .copied()
                .ok_or_else(|| TransformError::IndexOutOfRange(format!("{token}: [{index}]"))),
        };
        Ok(match self {
            Self::Literal => (Part::Literal(token.as_bytes().into()), 0),
            Self::Wildcard(index) => (Part::Token(place(index)?), 1),
            Self::Partition { indexes, buckets } => {
                let tokens = indexes.iter().map(|&index| place(index));
                let part = Part::Partition {
                    tokens: tokens.collect::<Result<_, _>>()?,
                    buckets: buckets_of(buckets),
                };
                (part, indexes.len())
            }
            Self::Random { bound } => {
                let bound = bound.unsigned_abs();
                (Part::Random { bound }, 0)
            }
            Self::Split { index, separator } => {
                let separator = separator.into_bytes().into();
                let token = place(index)?;
                (Part::Split { token, separator }, 1)
            }
            Self::Cut { index, how, len } => {
                let len = usize::try_from(len).unwrap_or(0);
                let token = place(index)?;
                (Part::Cut { token, how, len }, 1)
            }
        })
    }
}

/// nats-server divides by the number's bits, whatever its sign.
fn buckets_of(number: i32) -> u32 {
    number.cast_unsigned()
}

/// The index that a mark found by [`wildcards_of`] names.
pub(super) fn index_of(mark: &str) -> Option<usize> {
    match Call::parse(mark) {
        Ok(Call::Wildcard(index)) => usize::try_from(index).ok(),
        _ => None,
    }
}

fn is_call(token: &str) -> bool {
    token.len() > 4 && token.starts_with("{{") && token.ends_with("}}")
}

const BLANK: [char; 5] = [' ', '\t', '\n', '\x0c', '\r'];

/// What stands in the brackets of `{{name(…)}}` somewhere in `token`, separated by commas.
fn arguments<'t>(token: &'t str, name: &str) -> Option<Vec<&'t str>> {
    let inside = token
        .match_indices("{{")
        .find_map(|(at, _)| arguments_at(&token[at + 2..], name))?;
    let mut arguments = inside.split(',');
    let first = arguments.next()?;
    let others = arguments.map(|argument| argument.trim_start_matches(BLANK));
    Some(std::iter::once(first).chain(others).collect())
}

/// As [`arguments`], for a text that begins behind the `{{`. As much as possible is inside.
fn arguments_at<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let text = text.trim_start_matches(BLANK);
    let given = text.get(..name.len())?;
    let is_name = name.bytes().zip(given.bytes()).all(|(name, given)| {
        name == given || (name.is_ascii_uppercase() && name.eq_ignore_ascii_case(&given))
    });
    if !is_name {
        return None;
    }
    let inside = text[name.len()..]
        .trim_start_matches(BLANK)
        .strip_prefix('(')?;
    inside
        .rmatch_indices(')')
        .find(|(at, _)| inside[at + 1..].trim_start_matches(BLANK).starts_with("}}"))
        .map(|(at, _)| &inside[..at])
        .filter(|inside| !inside.contains('\n'))
}

/// The stricter rules for destinations of mappings.
pub(super) fn check_mapping(destination: &str) -> Result<(), TransformError> {
    let invalid = |token: &str| Err(TransformError::InvalidDestination(token.to_owned()));
    let mut behind_rest = false;
    for token in destination.split('.') {
        if token.is_empty() || behind_rest {
            return invalid(token);
        }
        if is_call(token) {
            let is_known = FUNCTIONS.iter().any(|(name, function)| {
                !matches!(function, Function::Cut(Cut::Left | Cut::Right))
                    && arguments(token, name).is_some()
            });
            if !is_known {
                return Err(TransformError::UnknownFunction(token.to_owned()));
            }
        } else if token == ">" {
            behind_rest = true;
        } else if token.contains(BLANK) {
            return invalid("");
        }
    }
    Ok(())
}

/// A destination that leads to the same subjects: every token `*` becomes `$1`, `$2` and so on.
#[must_use]
pub fn number_wildcards(filter: &str) -> String {
    let mut count = 0;
    let tokens = filter.split('.').map(|token| {
        if token == "*" {
            count += 1;
            format!("${count}")
        } else {
            token.to_owned()
        }
    });
    tokens.collect::<Vec<_>>().join(".")
}

/// The filter that matches what `destination` leads to, `foo.$2.$1` say, which is `foo.*.*`; and
/// the tokens that became `*`, in order.
#[must_use]
pub fn wildcards_of(destination: &str) -> (String, Vec<&str>) {
    let mut marks = Vec::new();
    let tokens = destination.split('.').map(|token| {
        let is_mark = match token.as_bytes() {
            [b'$', b'1'..=b'9', ..] => true,
            _ => arguments(token, "Wildcard")
                .is_some_and(|arguments| arguments.len() == 1 && !arguments[0].is_empty()),
        };
        if is_mark {
            marks.push(token);
            "*"
        } else {
            token
        }
    });
    let filter = tokens.collect::<Vec<_>>().join(".");
    (filter, marks)
}
