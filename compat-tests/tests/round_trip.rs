//! One message through several clients: every face is one broker.

use anyhow::Result;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{ServerOptions, TestServer};

#[test]
fn a_message_is_the_same_through_every_client() -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_memphis().with_websocket())?;
    let step = |script: &str, place: &str, text: &str| -> Result<()> {
        Scenario::new(&format!("round-trip/{script}"))
            .argument(place)
            .argument(text)
            .run(&server)?;
        Ok(())
    };
    step("memphis_py_produces.py", "trip", "from memphis-py")?;
    step("nats_command_fetches.sh", "trip$1", "from memphis-py")?;
    step("nats_py_fetches.py", "trip$1", "from memphis-py")?;
    step("browser_consumes.mjs", "trip$1", "from memphis-py")?;
    step("nats_command_publishes.sh", "trip$1.final", "from nats pub")?;
    step("memphis_dev_consumes.mjs", "trip", "from nats pub")
}
