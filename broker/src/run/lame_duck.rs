//! Leaving slowly: clients are told to go elsewhere, then closed over some time, so that a cluster
//! or a successor is not run over by all of them at once.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::config::settings::LameDuck;
use crate::error::CloseReason;
use crate::server::ServerHandle;

/// Longest pause between two clients that are closed.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether all clients have left by themselves.
const LOOK: Duration = Duration::from_millis(200);

/// Stops accepting, tells every client, and closes them after the grace period. Ends when nobody is
/// left.
pub(super) async fn run(server: &ServerHandle, times: LameDuck) {
    tracing::info!("Entering lame duck mode, stop accepting new clients");
    server.stop_accepting();
    server.announce_lame_duck();
    let closing = Instant::now() + times.grace;
    while Instant::now() < closing {
        if server.connection_count() == 0 {
            return;
        }
        sleep_until(closing.min(Instant::now() + LOOK)).await;
    }
    tracing::info!("Closing existing clients");
    let mut clients = server.clients();
    let end = Instant::now() + times.duration.saturating_sub(times.grace);
    while let Some(client) = clients.pop() {
        client.close(CloseReason::ServerShutdown);
        let left = end.saturating_duration_since(Instant::now());
        let pause = pause(left, clients.len());
        // Below the resolution of the timer several are closed at once.
        if pause >= Duration::from_millis(1) || clients.len().is_multiple_of(64) {
            sleep(pause).await;
        }
    }
}

fn pause(left: Duration, clients: usize) -> Duration {
    let clients = u32::try_from(clients).unwrap_or(u32::MAX);
    if clients == 0 {
        Duration::ZERO
    } else {
        (left / clients).min(MAX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_shared_out_among_the_clients() {
        assert_eq!(
            pause(Duration::from_secs(110), 1000),
            Duration::from_millis(110)
        );
        assert_eq!(pause(Duration::from_secs(110), 3), MAX_PAUSE);
        assert_eq!(pause(Duration::from_secs(110), 0), Duration::ZERO);
        assert_eq!(pause(Duration::ZERO, 5), Duration::ZERO);
    }
}
