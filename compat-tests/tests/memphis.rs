//! The Memphis SDKs memphis-py, memphis-dev (Node) and memphis.go.

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

#[test]
fn memphis_py_dead_letters() -> Result<()> {
    run("memphis-py/dead_letters.py")
}

#[test]
fn memphis_py_changing_stations_and_groups() -> Result<()> {
    run("memphis-py/management.py")
}

#[test]
fn memphis_dev_dead_letters() -> Result<()> {
    run("memphis-node/dead_letters.mjs")
}

fn run_go(scenario: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_memphis())?;
    Scenario::new("memphis-go")
        .argument(scenario)
        .run(&server)?;
    Ok(())
}

#[test]
fn memphis_go_stations() -> Result<()> {
    run_go("stations")
}

#[test]
fn memphis_go_dead_letters() -> Result<()> {
    run_go("dead-letters")
}

#[test]
fn memphis_py_schemas() -> Result<()> {
    run("memphis-py/schemas.py")
}

#[test]
fn memphis_dev_schemas() -> Result<()> {
    run("memphis-node/schemas.mjs")
}

#[test]
fn memphis_go_schemas() -> Result<()> {
    run_go("schemas")
}

#[test]
fn rest_gateway() -> Result<()> {
    run("memphis-py/rest.py")
}

#[test]
fn management_api() -> Result<()> {
    run("memphis-py/management_api.py")
}

#[test]
fn management_api_messages_and_live_views() -> Result<()> {
    run("memphis-py/management_http.py")
}

#[test]
fn management_api_of_memphis() -> Result<()> {
    run("memphis-py/memphis_api.py")
}

#[test]
fn users_and_their_tokens() -> Result<()> {
    run("memphis-py/users.py")
}

#[test]
fn permissions_of_application_users() -> Result<()> {
    run("memphis-py/permissions.py")
}

#[test]
fn tenants() -> Result<()> {
    run("memphis-py/tenants.py")
}

#[test]
fn memphis_dev_logins() -> Result<()> {
    run("memphis-node/logins.mjs")
}

#[test]
fn memphis_go_logins() -> Result<()> {
    run_go("logins")
}

#[test]
fn commands_of_menes() -> Result<()> {
    run("menes/commands.sh")
}

#[test]
fn metrics() -> Result<()> {
    run("memphis-py/metrics.py")
}
