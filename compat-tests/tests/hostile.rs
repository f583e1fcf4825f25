//! Clients that mean no good: each is dealt with, and nobody else notices.

use std::time::Duration;

use anyhow::Result;
use menes_compat_tests::ServerOptions;
use menes_compat_tests::comparison::compare;
use menes_compat_tests::scenario::Scenario;

/// Limits that are reached quickly.
const CONFIG: &str = r#"
max_pending: 1MB
write_deadline: "1s"
authorization { user: root, password: menes-compat, timeout: 1 }
"#;

#[test]
fn hostile_clients_are_dealt_with_as_nats_server_does() -> Result<()> {
    let scenario = Scenario::new("nats-py/hostile.py")
        .variable("SCENARIO_LIMIT", "110")
        .limit(Duration::from_secs(120));
    compare(
        &scenario,
        &ServerOptions::default().with_config(CONFIG),
        &[],
    )
}
