//! A mistake in a configuration, shown where it stands.
//!
//! ```text
//! error: unknown field "max_paylod"
//!   menes.conf:14:1
//!    14 │ max_paylod: 128MB
//!       │ ^^^^^^^^^^
//!   fix: did you mean "max_payload"? `menes config explain max_payload` says what it does
//! ```

use std::fmt::Write;
use std::fs;

use super::grammar::ConfigError;
use super::reference;

/// Longest line of a file that is shown.
const MAX_LINE: usize = 200;

/// The mistake with the line it stands in, and what to do if that can be told.
#[must_use]
pub fn explain(error: &ConfigError) -> String {
    let text = fs::read_to_string(&*error.place.file).ok();
    let line = text
        .as_deref()
        .and_then(|text| text.lines().nth(error.place.line.checked_sub(1)?));
    explain_in(error, line)
}

fn explain_in(error: &ConfigError, line: Option<&str>) -> String {
    let mut shown = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        shown
            .write_fmt(format_args!("{line}\n"))
            .expect("a string takes everything");
    };
    put(format_args!("error: {}", error.what));
    put(format_args!("  {}", error.place));
    if let Some(line) = line.filter(|line| line.len() <= MAX_LINE) {
        let number = error.place.line.to_string();
        let gap = " ".repeat(number.len());
        let before: String = line
            .chars()
            .take(error.place.column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let len = token(line, error.place.column).chars().count().max(1);
        put(format_args!("   {number} │ {line}"));
        put(format_args!("   {gap} │ {before}{}", "^".repeat(len)));
    }
    if let Some(fix) = fix(error) {
        put(format_args!("  fix: {fix}"));
    }
    shown
}

/// The word that begins in this column, counted from 1.
fn token(line: &str, column: usize) -> &str {
    let start = line
        .char_indices()
        .nth(column.saturating_sub(1))
        .map_or(line.len(), |(at, _)| at);
    let rest = &line[start..];
    let end = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map_or(rest.len(), |at| at + 2),
        Some('{' | '[' | '(') => 1,
        _ => rest
            .find(|c: char| {
                c.is_whitespace() || matches!(c, ':' | '=' | ',' | ';' | '{' | '}' | ']' | '#')
            })
            .unwrap_or(rest.len()),
    };
    &rest[..end]
}

fn fix(error: &ConfigError) -> Option<String> {
    let unknown = error
        .what
        .split("unknown field \"")
        .nth(1)?
        .split('"')
        .next()?;
    let known = reference::closest(unknown)?;
    Some(format!(
        "did you mean {known:?}? `menes config explain {known}` says what it does"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::grammar::Place;
    use super::*;

    fn error(what: &str, line: usize, column: usize) -> ConfigError {
        ConfigError {
            place: Place {
                file: Arc::from("a.conf"),
                line,
                column,
            },
            what: what.to_owned(),
        }
    }

    #[test]
    fn the_place_is_underlined() {
        let shown = explain_in(
            &error("expected a whole number, found text", 14, 7),
            Some("port: foo # x"),
        );
        assert_eq!(
            shown,
            "error: expected a whole number, found text\n  a.conf:14:7\n   14 │ port: foo # x\n      │       ^^^\n"
        );
        let shown = explain_in(&error("x", 1, 4), Some("\té: \"a b\""));
        assert!(
            shown.ends_with("   1 │ \té: \"a b\"\n     │ \t  ^\n"),
            "{shown}"
        );
    }

    #[test]
    fn a_key_that_is_nearly_right_is_told() {
        let shown = explain_in(&error("unknown field \"max_paylod\"", 1, 1), None);
        assert!(shown.contains("did you mean \"max_payload\"?"), "{shown}");
        let shown = explain_in(&error("unknown field \"zzzzzzzz\"", 1, 1), None);
        assert!(!shown.contains("fix"), "{shown}");
    }

    #[test]
    fn any_place_can_be_shown() {
        for column in 0..10 {
            for line in ["", "a", "é{", "\"", "ab cd"] {
                explain_in(&error("x", 1, column), Some(line));
            }
        }
    }
}
