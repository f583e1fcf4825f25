//! What is printed: tables for people, JSON for programs.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::Value;

use super::{Outcome, Trouble};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) is_json: bool,
    /// Nothing has to be asked.
    pub(super) is_sure: bool,
}

impl Output {
    /// One line on standard output. A reader that has gone ends the command in peace.
    pub(super) fn line(&self, text: &str) -> Outcome {
        match writeln!(io::stdout(), "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            outcome => outcome.map_err(|error| Trouble::Failed(error.to_string())),
        }
    }

    /// A remark for the person, never for a program.
    pub(super) fn remark(&self, text: &str) {
        if !self.is_json {
            eprintln!("{text}");
        }
    }

    /// A document as JSON.
    pub(super) fn json(&self, value: &Value) -> Outcome {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Trouble::Failed(error.to_string()))?;
        self.line(&text)
    }

    /// Rows of a list under these headings, or the list itself as JSON.
    pub(super) fn table(
        &self,
        list: &Value,
        headings: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Outcome {
        if self.is_json {
            return self.json(list);
        }
        let headings = headings.iter().map(|text| (*text).to_owned()).collect();
        let mut rows: Vec<Vec<String>> = vec![headings];
        rows.extend(list.as_array().into_iter().flatten().map(row));
        let columns = rows[0].len();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            self.line(line.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// The fields of a document, one to a line.
    pub(super) fn fields(&self, value: &Value) -> Outcome {
        if self.is_json {
            return self.json(value);
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            self.line(&format!("{:20} {}", name.replace('_', " "), cell(value)))?;
        }
        Ok(())
    }

    /// Says that something is done.
    pub(super) fn done(&self, text: &str, answer: &Value) -> Outcome {
        if self.is_json {
            self.json(answer)
        } else {
            self.line(text)
        }
    }

    /// Asks before something that cannot be undone.
    pub(super) fn sure(&self, what: &str) -> Outcome {
        if self.is_sure {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Trouble::Usage(format!("{what}: say --yes to do so")));
        }
        eprint!("{what}? [y/N] ");
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        match (read, answer.trim()) {
            (Ok(_), "y" | "Y" | "yes") => Ok(()),
            _ => Err(Trouble::Failed("nothing was done".to_owned())),
        }
    }
}

/// A value in a table.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => shown(text),
        other => other.to_string(),
    }
}

/// A text that cannot play tricks on a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}

/// The beginning of a text, on one line.
pub(super) fn beginning(text: &str, most: usize) -> String {
    let mut letters = text.chars();
    let mut begun: String = letters.by_ref().take(most).collect();
    if letters.next().is_some() {
        begun.push('…');
    }
    shown(&begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_cannot_play_tricks_on_a_terminal() {
        assert_eq!(beginning("a\u{1b}[2Jb\nc", 99), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(beginning("äöü", 2), "äö…");
        assert_eq!(cell(&Value::Null), "–");
    }
}
