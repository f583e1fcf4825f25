//! `/jsz`: the streams.

use menes_jetstream::Timestamp;
use menes_jetstream::api::response::ClusterInfo;
use menes_jetstream::consumer::ConsumerInfo;
use menes_jetstream::engine::{AccountFigures, Figures, StreamFigures};
use menes_jetstream::stream::{StreamConfig, StreamState};
use serde::Serialize;

use super::query::{Query, QueryError};
use super::varz::{Config, Stats};
use super::{DEFAULT_LIMIT, Monitor, now};

#[derive(Serialize)]
pub(super) struct Jsz<'a> {
    #[serde(flatten)]
    stats: Stats,
    server_id: &'a str,
    now: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    config: Config,
    streams: u64,
    consumers: u64,
    messages: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    account_details: Vec<AccountDetail>,
    total: u64,
}

#[derive(Serialize)]
struct AccountDetail {
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

/// How deep the answer goes.
#[derive(Clone, Copy)]
struct Depth {
    accounts: bool,
    streams: bool,
    consumers: bool,
    config: bool,
}

impl Depth {
    fn read(query: &Query) -> Result<Self, QueryError> {
        let consumers = query.flag("consumers")? | query.flag("direct-consumers")?;
        let streams = query.flag("streams")? | consumers;
        let accounts = query.flag("accounts")? | streams | !query.text("acc").is_empty();
        // A server alone leads everything and has no Raft groups to show.
        query.flag("leader-only")?;
        query.flag("stream-leader-only")?;
        query.flag("raft")?;
        Ok(Self {
            accounts,
            streams,
            consumers,
            config: query.flag("config")?,
        })
    }
}

impl Monitor {
    pub(super) async fn jsz(&self, query: &Query) -> Result<Jsz<'_>, QueryError> {
        let depth = Depth::read(query)?;
        let offset = query.count("offset")?.unwrap_or(0);
        let limit = query.count("limit")?.unwrap_or(DEFAULT_LIMIT);
        let status = match (&self.status, depth.accounts) {
            (Some(status), false) => Some(status.load()),
            _ => self.details().await,
        };
        let Some(status) = status else {
            return Ok(self.jsz_off());
        };
        let account = query.text("acc");
        let mut details = Vec::new();
        if depth.accounts {
            let named = status
                .accounts
                .iter()
                .filter(|found| account.is_empty() || found.account.as_str() == account);
            details.extend(
                named
                    .skip(offset)
                    .take(limit)
                    .map(|account| show(account, depth)),
            );
        }
        Ok(self.jsz_of(&status.figures, details))
    }

    fn jsz_off(&self) -> Jsz<'_> {
        let mut document = self.jsz_of(&Figures::default(), Vec::new());
        document.stats = Stats::default();
        document.disabled = true;
        document.config = Config::default();
        document
    }

    fn jsz_of(&self, figures: &Figures, account_details: Vec<AccountDetail>) -> Jsz<'_> {
        Jsz {
            stats: Stats::of(figures),
            server_id: self.shared.id(),
            now: now(),
            disabled: false,
            config: self.jetstream.as_ref().map(Config::of).unwrap_or_default(),
            streams: figures.streams,
            consumers: figures.consumers,
            messages: figures.messages,
            bytes: figures.bytes,
            account_details,
            total: figures.accounts,
        }
    }
}

fn show(account: &AccountFigures, depth: Depth) -> AccountDetail {
    let streams = account.streams.iter().filter(|_| depth.streams);
    AccountDetail {
        name: account.account.as_str().to_owned(),
        id: account.account.as_str().to_owned(),
        stats: Stats::of_account(&account.figures, 0),
        stream_detail: streams.map(|stream| show_stream(stream, depth)).collect(),
    }
}

fn show_stream(stream: &StreamFigures, depth: Depth) -> StreamDetail {
    let info = &stream.info;
    let consumers = stream.consumers.iter().filter(|_| depth.consumers);
    StreamDetail {
        name: info.config.name.clone(),
        created: info.created,
        cluster: info.cluster.clone(),
        config: depth.config.then(|| info.config.clone()),
        state: info.state.clone(),
        consumer_detail: consumers
            .map(|consumer| ConsumerInfo {
                config: consumer.config.clone().filter(|_| depth.config),
                ..consumer.clone()
            })
            .collect(),
    }
}
