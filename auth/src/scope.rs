//! Templates of scoped signing keys: `{{name()}}`, `{{tag(region)}}`, filled in for one user.

use menes_protocol::subject;
use thiserror::Error;

use crate::claims::user::{Permission, UserPermissionLimits};

/// Subjects that one list of a template may become.
const MAX_SUBJECTS: usize = 4096;

/// Why a template cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// A deny names a tag that the user does not have.
    #[error("generated invalid subject {subject:?}: {tag:?} is not defined")]
    MissingTag {
        /// The entry.
        subject: String,
        /// The tag.
        tag: String,
    },
    /// A deny becomes something that is no subject.
    #[error("generated invalid subject")]
    InvalidSubject,
    /// No such operation.
    #[error("template operation in {subject:?}: {operation:?} is not defined")]
    UnknownOperation {
        /// The entry.
        subject: String,
        /// The operation.
        operation: String,
    },
    /// More combinations of tags than can be meant.
    #[error("template expands to more than {MAX_SUBJECTS} subjects")]
    TooMany,
}

/// What templates are filled in with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    pub(crate) name: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) tags: &'a [String],
    pub(crate) account_name: &'a str,
    pub(crate) account_subject: &'a str,
    pub(crate) account_tags: &'a [String],
}

/// Fills in a template.
///
/// An allow that cannot be filled in is left out, and if that leaves none, everything is denied; a
/// deny that cannot be filled in fails.
pub(crate) fn fill(
    template: &UserPermissionLimits,
    values: Values<'_>,
) -> Result<UserPermissionLimits, ScopeError> {
    let mut filled = template.clone();
    for rules in [
        &mut filled.permissions.subscribe,
        &mut filled.permissions.publish,
    ] {
        *rules = fill_rules(rules, values)?;
    }
    Ok(filled)
}

fn fill_rules(rules: &Permission, values: Values<'_>) -> Result<Permission, ScopeError> {
    let allow = fill_list(&rules.allow, values, false)?;
    let mut deny = fill_list(&rules.deny, values, true)?;
    let everything = ">".to_owned();
    if allow.is_empty() && !rules.allow.is_empty() && !deny.contains(&everything) {
        deny.push(everything);
    }
    Ok(Permission { allow, deny })
}

fn fill_list(
    list: &[String],
    values: Values<'_>,
    must_succeed: bool,
) -> Result<Vec<String>, ScopeError> {
    if !list.iter().any(|entry| has_operation(entry)) {
        return Ok(list.to_vec());
    }
    let mut filled = Vec::new();
    for entry in list {
        for text in fill_entry(entry, values, must_succeed)? {
            let is_subject =
                subject::is_valid(text.as_bytes()) && !text.contains(char::is_whitespace);
            if is_subject {
                filled.push(text);
            } else if must_succeed {
                return Err(ScopeError::InvalidSubject);
            }
            if filled.len() > MAX_SUBJECTS {
                return Err(ScopeError::TooMany);
            }
        }
    }
    Ok(filled)
}

fn has_operation(entry: &str) -> bool {
    next_operation(entry).is_some()
}

/// What stands before the first operation, the operation, and what stands behind it.
fn next_operation(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find("{{")?;
    let inner = text.get(start + 2..)?;
    let end = inner.find("}}")?;
    // At least one character, as in the reference: `{{}}` is no operation.
    let end = if end == 0 { return None } else { end };
    Some((&text[..start], &inner[..end], &inner[end + 2..]))
}

fn fill_entry(
    entry: &str,
    values: Values<'_>,
    must_succeed: bool,
) -> Result<Vec<String>, ScopeError> {
    let mut texts = vec![String::new()];
    let mut rest = entry;
    while let Some((before, operation, behind)) = next_operation(rest) {
        let alternatives = evaluate(entry, operation.trim(), values, must_succeed)?;
        if texts.len().saturating_mul(alternatives.len()) > MAX_SUBJECTS {
            return Err(ScopeError::TooMany);
        }
        texts = texts
            .iter()
            .flat_map(|text| {
                alternatives
                    .iter()
                    .map(move |alternative| format!("{text}{before}{alternative}"))
            })
            .collect();
        rest = behind;
    }
    for text in &mut texts {
        text.push_str(rest);
    }
    Ok(texts)
}

fn evaluate(
    entry: &str,
    operation: &str,
    values: Values<'_>,
    must_succeed: bool,
) -> Result<Vec<String>, ScopeError> {
    let lower = operation.to_ascii_lowercase();
    let single = match lower.as_str() {
        "name()" => Some(values.name),
        "subject()" => Some(values.subject),
        "account-name()" => Some(values.account_name),
        "account-subject()" => Some(values.account_subject),
        _ => None,
    };
    if let Some(value) = single {
        return Ok(vec![value.to_owned()]);
    }
    let argument = |prefix: &str| {
        lower
            .strip_prefix(prefix)?
            .strip_suffix(')')
            .map(str::to_owned)
    };
    let (tags, tag) = if let Some(tag) = argument("tag(") {
        (values.tags, tag)
    } else if let Some(tag) = argument("account-tag(") {
        (values.account_tags, tag)
    } else {
        return Err(ScopeError::UnknownOperation {
            subject: entry.to_owned(),
            operation: operation.to_owned(),
        });
    };
    let prefix = format!("{tag}:");
    let found: Vec<_> = tags
        .iter()
        .filter_map(|text| text.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if must_succeed {
        return Err(ScopeError::MissingTag {
            subject: entry.to_owned(),
            tag,
        });
    }
    // No subject has a space: the entry is left out.
    Ok(vec![" ".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(allow: &[&str], deny: &[&str], tags: &[&str]) -> Result<Permission, ScopeError> {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let tags: Vec<String> = strings(tags);
        let values = Values {
            name: "ada",
            subject: "UADA",
            tags: &tags,
            account_name: "acme",
            account_subject: "AACME",
            account_tags: &["plan:gold".to_owned()],
        };
        let rules = Permission {
            allow: strings(allow),
            deny: strings(deny),
        };
        fill_rules(&rules, values)
    }

    #[test]
    fn operations_stand_for_what_the_user_is() {
        let got = filled(
            &[
                "{{name()}}.{{Subject()}}",
                "{{account-name()}}.{{ account-subject() }}.>",
                "plain",
            ],
            &["no.{{account-tag(plan)}}"],
            &[],
        )
        .expect("known operations");
        assert_eq!(got.allow, ["ada.UADA", "acme.AACME.>", "plain"]);
        assert_eq!(got.deny, ["no.gold"]);
    }

    #[test]
    fn several_values_of_a_tag_multiply() {
        let tags = ["dept:a", "dept:b", "region:x", "region:y"];
        let got = filled(&["{{tag(dept)}}.{{tag(region)}}"], &[], &tags).expect("known");
        assert_eq!(got.allow, ["a.x", "a.y", "b.x", "b.y"]);
    }

    #[test]
    fn a_missing_tag_drops_an_allow_and_fails_a_deny() {
        let got = filled(&["{{tag(no)}}.x"], &[], &[]).expect("an allow is dropped");
        assert_eq!((got.allow.len(), got.deny), (0, vec![">".to_owned()]));
        assert!(filled(&[], &["{{tag(no)}}.x"], &[]).is_err());
        assert!(filled(&["{{evil()}}"], &[], &[]).is_err());
        // A value that would add tokens is a value; one with spaces or holes is no subject.
        let got = filled(&["{{tag(a)}}.x", "y"], &[], &["a:b c", "a:", "a:ok"]).expect("dropped");
        assert_eq!(got.allow, ["ok.x", "y"]);
    }

    #[test]
    fn combinations_are_bounded() {
        let tags: Vec<_> = (0..100).map(|n| format!("t:{n}")).collect();
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        let entry = "{{tag(t)}}.{{tag(t)}}.{{tag(t)}}.{{tag(t)}}";
        assert_eq!(filled(&[entry], &[], &tags), Err(ScopeError::TooMany));
    }
}
