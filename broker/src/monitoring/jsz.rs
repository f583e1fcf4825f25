//! `/jsz`: the streams.

use menes_jetstream::api::metadata;
use menes_jetstream::api::response::{AccountLimits, ClusterInfo};
use menes_jetstream::consumer::ConsumerInfo;
use menes_jetstream::engine::{AccountFigures, Figures, StreamFigures};
use menes_jetstream::stream::{StreamConfig, StreamState};
use menes_jetstream::{AccountName, Timestamp};
use serde::{Deserialize, Serialize};

use super::query::{Query, QueryError, above_zero};
use super::varz::{Config, Limits, Stats};
use super::{DEFAULT_LIMIT, Monitor, now};
use crate::streams::status::StreamsStatus;

#[derive(Serialize)]
pub(super) struct Jsz<'a> {
    #[serde(flatten)]
    stats: Stats,
    server_id: &'a str,
    now: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    config: Config,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    streams: u64,
    #[serde(skip_serializing_if = "is_zero")]
    streams_leader: u64,
    consumers: u64,
    #[serde(skip_serializing_if = "is_zero")]
    consumers_leader: u64,
    messages: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    account_details: Vec<AccountDetail>,
    total: u64,
}

#[derive(Serialize)]
pub(super) struct AccountDetail {
    name: String,
    id: String,
    #[serde(flatten)]
    stats: Stats,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stream_detail: Vec<StreamDetail>,
}

#[derive(Serialize)]
struct StreamDetail {
    name: String,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<StreamConfig>,
    state: StreamState,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumer_detail: Vec<ConsumerInfo>,
}

/// What is asked for, under the names of a system request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct JszOptions {
    pub(crate) account: String,
    accounts: bool,
    streams: bool,
    consumer: bool,
    direct_consumer: bool,
    config: bool,
    leader_only: bool,
    offset: i64,
    limit: i64,
    raft: bool,
    stream_leader_only: bool,
}

impl JszOptions {
    pub(super) fn of_query(query: &Query) -> Result<Self, QueryError> {
        Ok(Self {
            account: query.text("acc").to_owned(),
            accounts: query.flag("accounts")?,
            streams: query.flag("streams")?,
            consumer: query.flag("consumers")?,
            direct_consumer: query.flag("direct-consumers")?,
            config: query.flag("config")?,
            leader_only: query.flag("leader-only")?,
            offset: query.int("offset")?,
            limit: query.int("limit")?,
            raft: query.flag("raft")?,
            stream_leader_only: query.flag("stream-leader-only")?,
        })
    }

    fn depth(&self) -> Depth {
        // A server alone leads everything: what only a leader is asked for is always shown.
        let consumers = self.consumer || self.direct_consumer;
        let streams = self.streams || consumers;
        Depth {
            accounts: self.accounts || streams || !self.account.is_empty(),
            streams,
            consumers,
            config: self.config,
        }
    }
}

/// How deep the answer goes.
#[derive(Clone, Copy)]
struct Depth {
    accounts: bool,
    streams: bool,
    consumers: bool,
    config: bool,
}

impl Monitor {
    pub(super) async fn jsz(&self, asked: &JszOptions) -> Option<Jsz<'_>> {
        let depth = asked.depth();
        let offset = usize::try_from(asked.offset).unwrap_or(0);
        let limit = above_zero(asked.limit).unwrap_or(DEFAULT_LIMIT);
        let Some(status) = self.details().await else {
            return (!asked.leader_only).then(|| self.jsz_off());
        };
        let mut details = Vec::new();
        let accounts = self.accounts_of(&status);
        if depth.accounts {
            let wanted = |name: &str| asked.account.is_empty() || asked.account == name;
            let named = accounts
                .iter()
                .filter(|found| wanted(found.account.as_str()));
            let view = self.view(depth);
            let page = named.skip(offset).take(limit);
            details.extend(page.map(|account| view.account(account)));
        }
        let mut document = self.jsz_of(&status.figures, details);
        document.total = accounts.len() as u64;
        document.stats.set_accounts(accounts.len() as u64);
        if asked.raft {
            document.streams_leader = document.streams;
            document.consumers_leader = document.consumers;
        }
        Some(document)
    }

    /// What one account keeps.
    pub(super) async fn account_jsz(
        &self,
        asked: &JszOptions,
    ) -> Result<AccountDetail, QueryError> {
        let name = asked.account.as_str();
        let refused = |text: String| Err(QueryError::Meaning(text));
        let Some(status) = self.details().await else {
            return refused("jetstream not enabled".to_owned());
        };
        if self
            .shared
            .accounts()
            .get(&AccountName::from(name))
            .is_none()
        {
            return refused(format!("account {name:?} not found"));
        }
        let accounts = self.accounts_of(&status);
        let found = accounts.iter().find(|found| found.account.as_str() == name);
        match found {
            Some(account) => Ok(self.view(asked.depth()).account(account)),
            None => refused(format!("account {name:?} not jetstream enabled")),
        }
    }

    fn view(&self, depth: Depth) -> View<'_> {
        View {
            depth,
            server: self.shared.name(),
        }
    }

    /// The accounts that may have streams, by name, with what they have.
    fn accounts_of(&self, status: &StreamsStatus) -> Vec<AccountFigures> {
        self.accounts_with_streams()
            .into_iter()
            .map(|account| {
                let mut all = status.accounts.iter();
                let found = all.find(|found| found.account == *account.name()).cloned();
                found.unwrap_or_else(|| AccountFigures {
                    account: account.name().clone(),
                    figures: Figures::default(),
                    limits: AccountLimits::default(),
                    streams: Vec::new(),
                })
            })
            .collect()
    }

    fn jsz_off(&self) -> Jsz<'_> {
        let mut document = self.jsz_of(&Figures::default(), Vec::new());
        document.stats = Stats::default();
        document.disabled = true;
        document.config = Config::default();
        document.limits = None;
        document
    }

    fn jsz_of(&self, figures: &Figures, account_details: Vec<AccountDetail>) -> Jsz<'_> {
        Jsz {
            stats: Stats::of(figures),
            server_id: self.shared.id(),
            now: now(),
            disabled: false,
            config: self
                .loaded
                .load()
                .jetstream
                .as_ref()
                .map(Config::of)
                .unwrap_or_default(),
            limits: Some(Limits {}),
            streams: figures.streams,
            streams_leader: 0,
            consumers: figures.consumers,
            consumers_leader: 0,
            messages: figures.messages,
            bytes: figures.bytes,
            account_details,
            total: figures.accounts,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The shape of an answer and who gives it.
#[derive(Clone, Copy)]
struct View<'a> {
    depth: Depth,
    server: &'a str,
}

impl View<'_> {
    fn account(&self, account: &AccountFigures) -> AccountDetail {
        let streams = account.streams.iter().filter(|_| self.depth.streams);
        AccountDetail {
            name: account.account.as_str().to_owned(),
            id: account.account.as_str().to_owned(),
            stats: Stats::of_account(&account.figures, 0).with_limits(&account.limits),
            stream_detail: streams.map(|stream| self.stream(stream)).collect(),
        }
    }

    fn stream(&self, stream: &StreamFigures) -> StreamDetail {
        let info = &stream.info;
        let consumers = stream.consumers.iter().filter(|_| self.depth.consumers);
        let cluster = info.cluster.clone().unwrap_or_else(|| ClusterInfo {
            leader: Some(self.server.to_owned()),
            ..ClusterInfo::default()
        });
        let mut config = self.depth.config.then(|| info.config.clone());
        if let Some(config) = &mut config {
            metadata::hide(&mut config.metadata);
        }
        StreamDetail {
            name: info.config.name.clone(),
            created: info.created,
            cluster: Some(cluster),
            config,
            state: info.state.clone(),
            consumer_detail: consumers.map(|consumer| self.consumer(consumer)).collect(),
        }
    }

    fn consumer(&self, consumer: &ConsumerInfo) -> ConsumerInfo {
        let mut config = consumer.config.clone().filter(|_| self.depth.config);
        if let Some(config) = &mut config {
            metadata::hide(&mut config.metadata);
        }
        ConsumerInfo {
            config,
            ..consumer.clone()
        }
    }
}
