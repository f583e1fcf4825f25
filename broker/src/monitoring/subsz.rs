//! `/subsz`: the subscriptions.

use std::sync::Arc;

use menes_jetstream::Timestamp;
use menes_protocol::subject;
use serde::{Deserialize, Serialize};

use super::query::{Query, QueryError, above_zero};
use super::{DEFAULT_LIMIT, Monitor, now};
use crate::account::Account;
use crate::routing::Subscription;

#[derive(Serialize)]
pub(super) struct Subsz<'a> {
    server_id: &'a str,
    now: Timestamp,
    #[serde(flatten)]
    stats: SublistStats,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<SubscriptionDetail>,
}

/// How subscriptions are found. Only their number is counted here; the rest is zero.
#[derive(Default, Serialize)]
pub(super) struct SublistStats {
    num_subscriptions: usize,
    num_cache: u64,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    cache_hit_rate: f64,
    max_fanout: u64,
    avg_fanout: f64,
}

impl SublistStats {
    pub(super) fn of(num_subscriptions: usize) -> Self {
        Self {
            num_subscriptions,
            ..Self::default()
        }
    }
}

/// One subscription.
#[derive(Serialize)]
pub(super) struct SubscriptionDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_tag: Option<String>,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    qgroup: Option<String>,
    sid: String,
    msgs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    cid: u64,
}

impl SubscriptionDetail {
    /// Shows a subscription, with its account where that is not clear.
    pub(super) fn of(subscription: &Subscription, account: Option<&Account>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            account: account.map(|account| account.name().as_str().to_owned()),
            account_tag: account.map(Account::title),
            subject: text(subscription.subject()),
            qgroup: subscription.queue().map(text),
            sid: text(subscription.sid()),
            msgs: subscription.delivered(),
            max: Some(subscription.max()).filter(|max| *max > 0),
            // The server itself has none; its connections are numbered from 1.
            cid: subscription.receiver().map_or(0, |client| client.id().0),
        }
    }
}

/// What is asked for, under the names of a system request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubszOptions {
    offset: i64,
    limit: i64,
    pub(crate) subscriptions: bool,
    pub(crate) account: String,
    test: String,
}

impl SubszOptions {
    pub(super) fn of_query(query: &Query) -> Result<Self, QueryError> {
        Ok(Self {
            subscriptions: query.flag("subs")?,
            offset: query.int("offset")?,
            limit: query.int("limit")?,
            account: query.text("acc").to_owned(),
            test: query.text("test").to_owned(),
        })
    }
}

impl Monitor {
    pub(super) fn subsz(&self, asked: &SubszOptions) -> Result<Subsz<'_>, QueryError> {
        let offset = usize::try_from(asked.offset).unwrap_or(0);
        let limit = above_zero(asked.limit).unwrap_or(DEFAULT_LIMIT);
        let test = asked.test.as_str();
        if !test.is_empty() && !subject::is_literal(test.as_bytes()) {
            let text = format!("invalid test subject, must be valid publish subject: {test}");
            return Err(QueryError::Meaning(text));
        }
        let accounts: Vec<_> = self.shared.accounts().all();
        let wanted = accounts
            .iter()
            .filter(|found| asked.account.is_empty() || asked.account == found.name().as_str());
        let mut count = 0;
        let mut found = Vec::new();
        for account in wanted {
            count += account.sublist().len();
            if asked.subscriptions {
                gather(account, test.as_bytes(), &mut found);
            }
        }
        let page = found.iter().skip(offset).take(limit);
        let list = page
            .map(|(account, s)| SubscriptionDetail::of(s, Some(account)))
            .collect();
        Ok(Subsz {
            server_id: self.shared.id(),
            now: now(),
            stats: SublistStats::of(count),
            total: found.len(),
            offset,
            limit,
            subscriptions_list: list,
        })
    }
}

/// The subscriptions of an account that match a literal subject, or all.
fn gather<'a>(
    account: &'a Account,
    test: &[u8],
    found: &mut Vec<(&'a Account, Arc<Subscription>)>,
) {
    account.sublist().for_each(&mut |subscription| {
        if test.is_empty() || subject::matches(subscription.subject(), test) {
            found.push((account, Arc::clone(subscription)));
        }
    });
}
