//! Connections that ended.

use std::sync::Arc;
use std::time::SystemTime;

use super::client::Client;
use crate::error::CloseReason;
use crate::routing::Subscription;

/// Subscriptions remembered of one connection.
const MAX_LISTED: usize = 64;

/// A connection that ended, and how.
#[derive(Debug)]
pub(crate) struct Closed {
    /// As it was. It has no subscriptions any more.
    pub(crate) client: Arc<Client>,
    /// Why it ended.
    pub(crate) reason: CloseReason,
    /// When it ended.
    pub(crate) at: SystemTime,
    /// How many subscriptions it had.
    pub(crate) subscription_count: usize,
    /// The first of them.
    pub(crate) subscriptions: Vec<Arc<Subscription>>,
}

impl Closed {
    /// Notes how a connection is that ends now, before its subscriptions are dropped.
    pub(crate) fn now(client: &Arc<Client>, reason: CloseReason) -> Self {
        let mut subscriptions = client.subscriptions();
        let subscription_count = subscriptions.len();
        subscriptions.truncate(MAX_LISTED);
        subscriptions.shrink_to_fit();
        let client = Arc::clone(client);
        Self {
            client,
            reason,
            at: SystemTime::now(),
            subscription_count,
            subscriptions,
        }
    }
}
