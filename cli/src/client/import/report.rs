//! What an import found, did, and could not do.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::super::output::Output;
use super::super::{Outcome, Trouble};

/// Everything there is to say about an import.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Nothing was changed.
    pub(super) dry_run: bool,
    pub(super) tenant: String,
    pub(super) found: Found,
    /// What was or would be taken over, by kind.
    pub(super) done: BTreeMap<&'static str, Done>,
    pub(super) stations: Vec<Station>,
    /// What is other than one may expect.
    pub(super) notes: Vec<String>,
    /// What was not taken over although it should have been.
    pub(super) stops: Vec<String>,
}

/// What there is.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found {
    pub(super) stations: u64,
    pub(super) partitions: u64,
    pub(super) other_streams: u64,
    pub(super) groups: u64,
    pub(super) schemas: u64,
    pub(super) schema_versions: u64,
    pub(super) users: u64,
    pub(super) dead_letters: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// How many of a kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Done {
    /// Taken over now, or ready to be in a dry run.
    pub(super) new: u64,
    /// There before.
    pub(super) there: u64,
}

/// One station.
#[derive(Debug, Default, Serialize)]
pub(super) struct Station {
    pub(super) name: String,
    pub(super) partitions: Vec<Partition>,
    pub(super) groups: Vec<String>,
}

/// One stream.
#[derive(Debug, Default, Serialize)]
pub(super) struct Partition {
    pub(super) stream: String,
    pub(super) messages: u64,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
}

impl Report {
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(super) fn stop(&mut self, text: impl Into<String>) {
        self.stops.push(text.into());
    }

    pub(super) fn count(&mut self, kind: &'static str, is_new: bool) {
        let done = self.done.entry(kind).or_default();
        if is_new {
            done.new += 1;
        } else {
            done.there += 1;
        }
    }

    /// Prints it, for a person or a program.
    pub(super) fn print(&self, output: &Output) -> Outcome {
        if output.is_document() {
            return output.document(&json!(self));
        }
        let found = &self.found;
        output.line(&format!(
            "found   {} stations ({} partitions) · {} other streams · {} groups · {} schemas ({} \
             versions) · {} users · {} dead letters · {} messages, {}",
            found.stations,
            found.partitions,
            found.other_streams,
            found.groups,
            found.schemas,
            found.schema_versions,
            found.users,
            found.dead_letters,
            found.messages,
            size(found.bytes),
        ))?;
        let word = if self.dry_run { "ready" } else { "done" };
        for (kind, done) in &self.done {
            let there = match done.there {
                0 => String::new(),
                count => format!(" ({count} there already)"),
            };
            output.line(&format!("{word:7} {} {kind}{there}", done.new))?;
        }
        for note in &self.notes {
            output.line(&format!("note    {note}"))?;
        }
        for stop in &self.stops {
            output.line(&format!("stop    {stop}"))?;
        }
        if self.stops.is_empty() {
            output.line("stop    none")?;
        }
        if self.dry_run {
            output.remark(
                "nothing was changed; without --dry-run it is, and can be interrupted and repeated",
            );
        }
        Ok(())
    }

    /// What the command comes to.
    pub(super) fn outcome(&self) -> Outcome {
        match self.stops.len() {
            0 => Ok(()),
            count => Err(Trouble::Failed(format!(
                "{count} things could not be taken over, see above"
            ))),
        }
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let power = bytes.max(1).ilog2() / 10;
    let unit = usize::try_from(power)
        .ok()
        .and_then(|power| UNITS.get(power.min(4).checked_sub(1)?));
    match unit {
        None => format!("{bytes} B"),
        Some(unit) => {
            let tenths = (u128::from(bytes) * 10) >> (10 * power.min(4));
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }
}
