//! The same scenario against nats-server and Menes must print the same.
//!
//! Scenarios replace times, ids and addresses by their kind before printing; what differs beyond
//! that is a difference of the servers, and either a fault or listed here with its reason.

use anyhow::Result;
use menes_compat_tests::ServerOptions;
use menes_compat_tests::comparison::{Exclusion, compare};
use menes_compat_tests::scenario::Scenario;

/// Differences that are meant.
const EXCLUDED: &[Exclusion] = &[];

fn same(script: &str) -> Result<()> {
    compare(&Scenario::new(script), &ServerOptions::default(), EXCLUDED)
}

#[test]
fn api_answers() -> Result<()> {
    same("nats-py/raw_api.py")
}

#[test]
fn nats_py_streams() -> Result<()> {
    same("nats-py/streams.py")
}

#[test]
fn nats_py_consumers() -> Result<()> {
    same("nats-py/consumers.py")
}

#[test]
fn nats_py_buckets() -> Result<()> {
    same("nats-py/key_value.py")
}

#[test]
fn nats_py_subjects() -> Result<()> {
    same("nats-py/subjects.py")
}

#[test]
fn nats_py_origins() -> Result<()> {
    same("nats-py/origins.py")
}

#[test]
fn nats_py_advisories() -> Result<()> {
    same("nats-py/advisories.py")
}

#[test]
fn nats_command_core() -> Result<()> {
    same("nats-cli/core.sh")
}

#[test]
fn nats_command_streams() -> Result<()> {
    same("nats-cli/streams.sh")
}

#[test]
fn nats_command_buckets() -> Result<()> {
    same("nats-cli/buckets.sh")
}
