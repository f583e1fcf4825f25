//! Keys, tokens and auth callout, with nats.go and the official modules for tokens and keys.
//!
//! The script makes operators, accounts and users, configures servers with them and starts them
//! itself; set `MENES_TEST_SERVER=nats-server` to see that the reference does the same.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use menes_compat_tests::scenario::{build_go, build_go_package};
use menes_compat_tests::{ServerKind, Tools, menes_binary};

fn run(scenario: &str) -> Result<()> {
    run_with(scenario, &[])
}

fn run_with(scenario: &str, variables: &[(&str, &Path)]) -> Result<()> {
    let tools = Tools::find()?;
    let server = match ServerKind::under_test() {
        ServerKind::Menes => menes_binary()?,
        ServerKind::Reference => tools.path("nats_server")?.to_owned(),
    };
    let folder = tempfile::tempdir()?;
    let output = Command::new(build_go(&tools, "nats-go")?)
        .arg(scenario)
        .env("SERVER", server)
        .env("SCENARIO_DIR", folder.path())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{scenario} failed ({})\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn users_sign_with_their_keys() -> Result<()> {
    run("signing")
}

#[test]
fn accounts_and_users_are_what_tokens_say() -> Result<()> {
    run("operator")
}

#[test]
fn tokens_limit_accounts_and_share_between_them() -> Result<()> {
    run("accounts")
}

#[test]
fn accounts_are_fetched_over_https() -> Result<()> {
    run("resolver")
}

#[test]
fn nsc_administers_the_accounts_of_a_server() -> Result<()> {
    let nsc = build_go_package(&Tools::find()?, "nsc", "github.com/nats-io/nsc/v2")?;
    run_with("nsc", &[("NSC", &nsc)])
}

#[test]
fn a_service_decides_who_may_connect() -> Result<()> {
    run("callout")
}
