//! What is printed: tables for people, JSON for programs.

use std::io::{self, BufRead, IsTerminal, Write};

use jiff::{Timestamp, Zoned};
use serde_json::Value;

use super::{Format, Outcome, Trouble};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) format: Format,
    /// Nothing has to be asked.
    pub(super) is_sure: bool,
    /// Nothing but data.
    pub(super) is_quiet: bool,
}

impl Output {
    /// Whether programs get whole documents.
    pub(super) fn is_document(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// What is said is for a person to read.
    pub(super) fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// One line on standard output. A reader that has gone ends the command in peace.
    pub(super) fn line(&self, text: &str) -> Outcome {
        match writeln!(io::stdout(), "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            outcome => outcome.map_err(|error| Trouble::Failed(error.to_string())),
        }
    }

    /// A remark for the person, never for a program.
    pub(super) fn remark(&self, text: &str) {
        if self.is_for_people() && !self.is_quiet {
            eprintln!("{text}");
        }
    }

    /// A document for a program.
    pub(super) fn document(&self, value: &Value) -> Outcome {
        if self.format == Format::Yaml {
            return self.line(yaml(value)?.trim_end());
        }
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Trouble::Failed(error.to_string()))?;
        self.line(&text)
    }

    /// One of many documents, each read as it comes: a line of JSON, or a document of a YAML stream.
    pub(super) fn record(&self, value: &Value) -> Outcome {
        if self.format == Format::Yaml {
            return self.line(&format!("---\n{}", yaml(value)?.trim_end()));
        }
        self.line(&value.to_string())
    }

    /// Rows of a list under these headings, or the list itself as a document.
    pub(super) fn table(
        &self,
        list: &Value,
        headings: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Outcome {
        if self.is_document() {
            return self.document(list);
        }
        if !self.is_for_people() {
            return self.plain_rows(list, headings, row);
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

    /// The rows of a list for programs that know no JSON.
    fn plain_rows(
        &self,
        list: &Value,
        headings: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Outcome {
        if self.format == Format::Csv {
            let names: Vec<String> = headings.iter().map(|text| quoted(text)).collect();
            self.line(&names.join(","))?;
        }
        for one in list.as_array().into_iter().flatten() {
            let cells = row(one);
            if self.format == Format::Csv {
                let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
                self.line(&cells.join(","))?;
            } else {
                self.line(cells.first().map_or("", String::as_str))?;
            }
        }
        Ok(())
    }

    /// The fields of a document, one to a line.
    pub(super) fn fields(&self, value: &Value) -> Outcome {
        if self.is_document() {
            return self.document(value);
        }
        if self.format == Format::Csv {
            let fields = value.as_object().into_iter().flatten();
            let (names, cells): (Vec<String>, Vec<String>) = fields
                .map(|(name, value)| (quoted(name), quoted(&cell(value))))
                .unzip();
            self.line(&names.join(","))?;
            return self.line(&cells.join(","));
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            self.line(&format!("{:20} {}", name.replace('_', " "), cell(value)))?;
        }
        Ok(())
    }

    /// Says that something is done.
    pub(super) fn done(&self, text: &str, answer: &Value) -> Outcome {
        if self.is_document() {
            self.document(answer)
        } else if self.is_quiet {
            Ok(())
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

fn yaml(value: &Value) -> Outcome<String> {
    serde_saphyr::to_string(value).map_err(|error| Trouble::Failed(error.to_string()))
}

/// A cell as RFC 4180 has it. What a spreadsheet would take for a formula stays a text.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '@', '\t']);
    let cell = if is_formula {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
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

/// The time of day of an RFC 3339 time, here; with the date if it is not of today.
pub(super) fn clock(time: &Value) -> String {
    let text = time.as_str().unwrap_or_default();
    match text.parse::<Timestamp>() {
        Ok(time) => shown_at(time, &Zoned::now()),
        Err(_) => cell(time),
    }
}

/// The same of a moment.
pub(super) fn shown_at(time: Timestamp, now: &Zoned) -> String {
    let local = time.to_zoned(now.time_zone().clone());
    let form = if local.date() == now.date() {
        "%H:%M:%S%.3f"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    local.strftime(form).to_string()
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_cannot_play_tricks_on_a_terminal() {
        assert_eq!(beginning("a\u{1b}[2Jb\nc", 99), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(beginning("äöü", 2), "äö…");
        assert_eq!(cell(&Value::Null), "–");
    }

    #[test]
    fn times_of_today_have_no_date() {
        let now: Zoned = "2026-11-22T15:00:00+01:00[Europe/Berlin]"
            .parse()
            .expect("a time");
        let shown = |text: &str| shown_at(text.parse().expect("a time"), &now);
        assert_eq!(shown("2026-11-22T13:02:11.204567Z"), "14:02:11.204");
        assert_eq!(shown("2026-11-21T13:02:11Z"), "2026-11-21 14:02:11");
        assert_eq!(clock(&Value::Null), "–");
    }

    #[test]
    fn yaml_says_the_same_as_json() {
        let document = json!({
            "name": "no", "list": [1, {"a": null}, []], "text": "two\nlines: # and more",
            "empty": {}, "number": "1.0", "big": 9_007_199_254_740_993_u64, "odd": "\u{1b}[2J",
        });
        let text = yaml(&document).expect("YAML");
        let again: Value = serde_saphyr::from_str(&text).expect("it can be read");
        assert_eq!(again, document, "{text}");
    }

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        for (cell, written) in [
            ("a", "a"),
            ("a,b", "\"a,b\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("=1+1", "'=1+1"),
        ] {
            assert_eq!(quoted(cell), written);
        }
    }
}
