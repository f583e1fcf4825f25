//! Sees to requests whose responses never come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::latency::Outcome;
use crate::routing::RouteBatch;
use crate::server::Shared;

/// Time between two looks at responses that are expected.
const INTERVAL: Duration = Duration::from_millis(250);

/// Forgets responses that did not come in time, and reports them where that is wanted, until told
/// to stop. Sleeps while no response is expected.
pub(crate) async fn watch_over(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut batch = shared.route_batch(None, shared.add_counters());
    let desk = Arc::clone(shared.accounts().desk());
    loop {
        tokio::select! {
            () = desk.news() => {}
            // An error means that nobody can stop it any more.
            _ = stop.wait_for(|stop| *stop) => return,
        }
        while look(&shared, &mut batch) {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

/// True when responses are still expected.
fn look(shared: &Shared, batch: &mut RouteBatch) -> bool {
    let desk = shared.accounts().desk();
    for pending in desk.take_left() {
        batch.end(&pending, Outcome::RequesterLeft);
    }
    let (expired, owed) = desk.take_expired(Instant::now());
    for pending in expired {
        batch.end(&pending, Outcome::TimedOut);
    }
    batch.flush();
    owed
}
