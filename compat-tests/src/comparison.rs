//! One scenario against two servers, and what differs.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::scenario::Scenario;
use crate::{ServerKind, ServerOptions, TestServer};

/// A difference that is meant: lines that begin like this are not compared.
#[derive(Clone, Copy, Debug)]
pub struct Exclusion {
    /// How the line begins, in the output of either server.
    pub begins: &'static str,
    /// Why the servers may differ there.
    pub reason: &'static str,
}

/// Runs a scenario against the server under test and the reference; both must print the same.
///
/// With the reference under test it runs there twice, which tells whether the scenario itself
/// prints the same every time.
///
/// # Errors
///
/// If it fails on either, or they differ beyond the exclusions; with the differing lines.
pub fn compare(scenario: &Scenario, options: &ServerOptions, excluded: &[Exclusion]) -> Result<()> {
    let print = |kind| -> Result<String> {
        let server = TestServer::start(options.clone().with_kind(kind))?;
        Ok(scenario.run(&server)?.seen)
    };
    let reference = print(ServerKind::Reference)?;
    let tested = print(options.kind)?;
    let differences = differences(&kept(&reference, excluded), &kept(&tested, excluded));
    if !differences.is_empty() {
        bail!(
            "`-` is nats-server, `+` is {}\n{differences}",
            options.kind.name()
        );
    }
    Ok(())
}

fn kept<'a>(printed: &'a str, excluded: &[Exclusion]) -> Vec<&'a str> {
    let is_excluded = |line: &str| excluded.iter().any(|e| line.starts_with(e.begins));
    printed.lines().filter(|line| !is_excluded(line)).collect()
}

/// The lines that are not common to both, in order; empty if there are none.
fn differences(old: &[&str], new: &[&str]) -> String {
    // common[i][j] is the length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = String::new();
    let mut push = |sign: char, line: &str| {
        writeln!(out, "{sign} {line}").expect("writing to a string cannot fail");
    };
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            push('-', old[i]);
            i += 1;
        } else {
            push('+', new[j]);
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_outputs_have_no_differences() {
        assert_eq!(differences(&["a", "b"], &["a", "b"]), "");
    }

    #[test]
    fn a_changed_and_an_extra_line_are_shown() {
        assert_eq!(
            differences(&["a", "b", "c"], &["a", "x", "c", "d"]),
            "- b\n+ x\n+ d\n"
        );
    }

    #[test]
    fn excluded_lines_are_not_compared() {
        let excluded = [Exclusion {
            begins: "version",
            reason: "each has its own",
        }];
        assert_eq!(kept("version: 1\na: 1", &excluded), ["a: 1"]);
    }
}
