//! `menes import memphis`: from a real Postgres, and from stores that real nats-servers wrote, the
//! one that Memphis contained and the newest.

use std::time::Duration;

use anyhow::Result;
use menes_compat_tests::scenario::{Scenario, build_go_package};
use menes_compat_tests::{ServerOptions, TestServer, Tools};

fn run(nats_server: &str, script: &str) -> Result<()> {
    let tools = Tools::find()?;
    let postgres = tools.path("postgres")?.display().to_string();
    let node = tools.path("node")?.display().to_string();
    let server = TestServer::start(ServerOptions::default().with_memphis())?;
    Scenario::new(script)
        .variable("OLD_SERVER", nats_server)
        .variable("POSTGRES", &postgres)
        .variable("NODE", &node)
        .limit(Duration::from_secs(240))
        .run(&server)?;
    Ok(())
}

fn old_server() -> Result<String> {
    let tools = Tools::find()?;
    let package = "github.com/nats-io/nats-server/v2";
    let built = build_go_package(&tools, "nats-server-2.9", package)?;
    Ok(built.display().to_string())
}

#[test]
fn memphis_is_taken_over_with_a_store_of_nats_server_2_9() -> Result<()> {
    run(&old_server()?, "memphis-py/importing.py")
}

#[test]
fn memphis_is_taken_over_with_a_store_of_the_newest_nats_server() -> Result<()> {
    let newest = Tools::find()?.path("nats_server")?.display().to_string();
    run(&newest, "memphis-py/importing.py")
}
