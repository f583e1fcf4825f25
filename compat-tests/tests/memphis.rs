//! The Memphis SDKs memphis-py, memphis-dev (Node), memphis.go and memphis-rust-community; and
//! memphis.java from a checkout, as it was never published: `make memphis-java SDK=<checkout>`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use menes_compat_tests::scenario::{self, Scenario};
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
fn requests_of_every_version() -> Result<()> {
    run("memphis-py/older_requests.py")
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
fn strangers_over_http() -> Result<()> {
    run("memphis-py/strangers.py")
}

#[test]
fn hostile_requests_over_http_and_secrets() -> Result<()> {
    run("memphis-py/hostile_http.py")
}

#[test]
fn management_api_of_memphis() -> Result<()> {
    run("memphis-py/memphis_api.py")
}

#[test]
fn management_api_of_memphis_for_users() -> Result<()> {
    run("memphis-py/memphis_users_api.py")
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
    let server = TestServer::start(ServerOptions::default().with_memphis())?;
    // Some hundred processes, one after the other.
    Scenario::new("menes/commands.sh")
        .limit(Duration::from_secs(400))
        .run(&server)?;
    Ok(())
}

#[test]
fn metrics() -> Result<()> {
    run("memphis-py/metrics.py")
}

fn run_rust(scenario: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_memphis())?;
    Scenario::new("memphis-rust")
        .argument(scenario)
        .run(&server)?;
    Ok(())
}

#[test]
fn memphis_rust_stations() -> Result<()> {
    run_rust("stations")
}

#[test]
fn memphis_rust_dead_letters() -> Result<()> {
    run_rust("dead-letters")
}

#[test]
fn memphis_rust_schemas() -> Result<()> {
    run_rust("schemas")
}

#[test]
fn memphis_rust_logins() -> Result<()> {
    run_rust("logins")
}

#[test]
fn memphis_rust_goes_on_after_a_restart() -> Result<()> {
    goes_on_after_a_restart(Scenario::new("memphis-rust").argument("reconnects"))
}

fn run_java(scenario: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_memphis())?;
    Scenario::new("memphis-java/Scenario.java")
        .argument(scenario)
        // The SDK waits for threads that sleep for ten seconds each.
        .limit(Duration::from_secs(180))
        .run(&server)?;
    Ok(())
}

#[test]
#[ignore = "the SDK was never published: make memphis-java SDK=<checkout>"]
fn memphis_java_logins() -> Result<()> {
    run_java("logins")
}

#[test]
#[ignore = "the SDK was never published: make memphis-java SDK=<checkout>"]
fn memphis_java_messages() -> Result<()> {
    run_java("messages")
}

#[test]
#[ignore = "the SDK was never published: make memphis-java SDK=<checkout>"]
fn memphis_java_dead_letters() -> Result<()> {
    run_java("dead-letters")
}

#[test]
#[ignore = "the SDK was never published: make memphis-java SDK=<checkout>"]
fn memphis_java_goes_on_after_a_restart() -> Result<()> {
    let script = Scenario::new("memphis-java/Scenario.java").argument("reconnects");
    goes_on_after_a_restart(script)
}

/// Ends the server and starts it again once the script says `ready`, and then tells it so.
fn goes_on_after_a_restart(script: Scenario) -> Result<()> {
    let mut server = TestServer::start(ServerOptions::default().with_memphis())?;
    let mut process = script.start(&server, Stdio::piped())?;
    let mut seen = BufReader::new(process.stdout.take().context("a pipe")?);
    let mut line = String::new();
    while line != "ready\n" {
        line.clear();
        if seen.read_line(&mut line)? == 0 {
            break;
        }
    }
    server.stop()?;
    server.restart()?;
    // A script that has ended already says why below.
    let mut input = process.stdin.take().context("a pipe")?;
    let _: std::io::Result<()> = input.write_all(b"\n");
    let status = scenario::wait(&mut process, Duration::from_secs(60))?;
    let mut complaints = String::new();
    if let Some(mut pipe) = process.stderr.take() {
        pipe.read_to_string(&mut complaints)?;
    }
    seen.read_to_string(&mut line)?;
    ensure!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{line}\n{complaints}"
    );
    Ok(())
}
