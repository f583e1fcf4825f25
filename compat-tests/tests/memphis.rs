//! The Memphis SDKs memphis-py and memphis-dev (Node).

use anyhow::Result;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{ServerOptions, TestServer};

fn run(script: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_memphis())?;
    Scenario::new(script).run(&server)?;
    Ok(())
}

#[test]
fn memphis_py_logins_and_stations() -> Result<()> {
    run("memphis-py/stations.py")
}

#[test]
fn memphis_py_producing() -> Result<()> {
    run("memphis-py/producing.py")
}

#[test]
fn memphis_py_consuming() -> Result<()> {
    run("memphis-py/consuming.py")
}

#[test]
fn memphis_dev_stations_and_producing() -> Result<()> {
    run("memphis-node/producing.mjs")
}

#[test]
fn memphis_dev_consuming() -> Result<()> {
    run("memphis-node/consuming.mjs")
}
