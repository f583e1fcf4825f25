//! `/connz`: the connections, open and closed.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use menes_jetstream::Timestamp;
use serde::Serialize;

use super::query::{Query, QueryError};
use super::subsz::SubscriptionDetail;
use super::text::{go_duration, uptime};
use super::{DEFAULT_LIMIT, Monitor, now, timestamp};
use crate::connection::client::{Client, Transport};
use crate::connection::closed::Closed;

#[derive(Serialize)]
pub(super) struct Connz<'a> {
    server_id: &'a str,
    now: Timestamp,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<Connection>,
}

/// One connection.
#[derive(Serialize)]
struct Connection {
    cid: u64,
    kind: &'static str,
    #[serde(rename = "type")]
    transport: &'static str,
    ip: String,
    port: u16,
    start: Timestamp,
    last_activity: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    uptime: String,
    idle: String,
    pending_bytes: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stalls: u64,
    subscriptions: usize,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<SubscriptionDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_tag: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What was asked for.
struct Options<'q> {
    sort: Sort,
    with_auth: bool,
    list: List,
    offset: usize,
    limit: usize,
    cid: Option<u64>,
    state: State,
    user: &'q str,
    account: &'q str,
}

/// Which subscriptions are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    Subjects,
    Details,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Cid,
    Start,
    Subs,
    Pending,
    MsgsTo,
    MsgsFrom,
    BytesTo,
    BytesFrom,
    Last,
    Idle,
    Uptime,
    Stop,
    Reason,
    Rtt,
}

impl<'q> Options<'q> {
    fn read(query: &'q Query) -> Result<Self, QueryError> {
        let list = match query.text("subs") {
            "detail" => List::Details,
            _ if query.flag("subs")? => List::Subjects,
            _ => List::None,
        };
        let state = match query.text("state").to_ascii_lowercase().as_str() {
            "" | "open" => State::Open,
            "closed" => State::Closed,
            "any" | "all" => State::Any,
            _ => {
                let text = format!("Error decoding state for {}", query.text("state"));
                return Err(QueryError::Meaning(text));
            }
        };
        let sort = Sort::read(query.text("sort"))?;
        if matches!(sort, Sort::Stop | Sort::Reason) && state != State::Closed {
            let text = format!(
                "sort by {} only valid on closed connections",
                query.text("sort")
            );
            return Err(QueryError::Meaning(text));
        }
        Ok(Self {
            sort,
            with_auth: query.flag("auth")?,
            list,
            offset: query.count("offset")?.unwrap_or(0),
            limit: query.count("limit")?.unwrap_or(DEFAULT_LIMIT),
            cid: query.id("cid")?,
            state,
            user: query.text("user"),
            account: query.text("acc"),
        })
    }

    fn wants(&self, connection: &Source) -> bool {
        let identity = connection.client().identity();
        let is_user = || identity.user.as_deref() == Some(self.user);
        (self.user.is_empty() || is_user())
            && (self.account.is_empty() || connection.account() == self.account)
            && self.cid.is_none_or(|cid| connection.client().id().0 == cid)
    }
}

impl Sort {
    fn read(text: &str) -> Result<Self, QueryError> {
        Ok(match text {
            "" | "cid" => Self::Cid,
            "start" => Self::Start,
            "subs" => Self::Subs,
            "pending" => Self::Pending,
            "msgs_to" => Self::MsgsTo,
            "msgs_from" => Self::MsgsFrom,
            "bytes_to" => Self::BytesTo,
            "bytes_from" => Self::BytesFrom,
            "last" => Self::Last,
            "idle" => Self::Idle,
            "uptime" => Self::Uptime,
            "stop" => Self::Stop,
            "reason" => Self::Reason,
            "rtt" => Self::Rtt,
            other => {
                return Err(QueryError::Meaning(format!(
                    "invalid sorting option: {other}"
                )));
            }
        })
    }

    /// Sorts, the largest first but for what grows with the age of a connection.
    fn sort(self, all: &mut [Source]) {
        let traffic = |s: &Source| s.client().traffic().count();
        match self {
            Self::Cid => all.sort_by_key(|s| s.client().id()),
            Self::Start => all.sort_by_key(|s| (s.client().started(), s.client().id())),
            Self::Subs => all.sort_by_key(|s| Reverse(s.subscription_count())),
            Self::Pending => all.sort_by_key(|s| Reverse(s.client().pending_bytes())),
            Self::MsgsTo => all.sort_by_key(|s| Reverse(traffic(s).out_msgs)),
            Self::MsgsFrom => all.sort_by_key(|s| Reverse(traffic(s).in_msgs)),
            Self::BytesTo => all.sort_by_key(|s| Reverse(traffic(s).out_bytes)),
            Self::BytesFrom => all.sort_by_key(|s| Reverse(traffic(s).in_bytes)),
            Self::Last => all.sort_by_key(|s| Reverse(s.last_activity())),
            Self::Idle => all.sort_by_cached_key(|s| Reverse(s.idle())),
            Self::Uptime => all.sort_by_cached_key(|s| Reverse(s.uptime())),
            Self::Stop => all.sort_by_key(|s| Reverse(s.stop())),
            Self::Reason => all.sort_by_cached_key(|s| s.reason().unwrap_or_default()),
            Self::Rtt => all.sort_by_key(|s| Reverse(s.client().rtt())),
        }
    }
}

/// A connection that is open or was.
enum Source {
    Open(Arc<Client>),
    Closed(Arc<Closed>),
}

impl Source {
    fn client(&self) -> &Client {
        match self {
            Self::Open(client) => client,
            Self::Closed(closed) => &closed.client,
        }
    }

    fn account(&self) -> String {
        self.client().info().account.as_str().to_owned()
    }

    fn subscription_count(&self) -> usize {
        match self {
            Self::Open(client) => client.subscription_count(),
            Self::Closed(closed) => closed.subscription_count,
        }
    }

    fn stop(&self) -> Option<Timestamp> {
        match self {
            Self::Open(_) => None,
            Self::Closed(closed) => Some(timestamp(closed.at)),
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Open(_) => None,
            Self::Closed(closed) => Some(closed.reason.to_string()),
        }
    }

    fn start(&self) -> Timestamp {
        timestamp(self.client().started())
    }

    fn last_activity(&self) -> Timestamp {
        self.start().plus(self.client().active_for())
    }

    fn idle(&self) -> Duration {
        self.stop().unwrap_or_else(now).since(self.last_activity())
    }

    fn uptime(&self) -> Duration {
        self.stop().unwrap_or_else(now).since(self.start())
    }

    fn show(&self, options: &Options<'_>) -> Connection {
        let client = self.client();
        let identity = client.identity();
        let traffic = client.traffic().count();
        let account = self.account();
        let subscriptions = || match self {
            Self::Open(client) => client.subscriptions(),
            Self::Closed(closed) => closed.subscriptions.clone(),
        };
        let mut subjects = Vec::new();
        let mut details = Vec::new();
        match options.list {
            List::None => {}
            List::Subjects => subjects.extend(
                subscriptions()
                    .iter()
                    .map(|s| String::from_utf8_lossy(s.subject()).into_owned()),
            ),
            List::Details => {
                details.extend(
                    subscriptions()
                        .iter()
                        .map(|s| SubscriptionDetail::of(s, None)),
                );
            }
        }
        Connection {
            cid: client.id().0,
            kind: "Client",
            transport: match client.transport() {
                Transport::Nats => "nats",
                Transport::WebSocket => "websocket",
            },
            ip: client.address().ip().to_canonical().to_string(),
            port: client.address().port(),
            start: self.start(),
            last_activity: self.last_activity(),
            stop: self.stop(),
            reason: self.reason(),
            rtt: client.rtt().map(go_duration),
            uptime: uptime(self.uptime()),
            idle: uptime(self.idle()),
            pending_bytes: client.pending_bytes(),
            in_msgs: traffic.in_msgs,
            out_msgs: traffic.out_msgs,
            in_bytes: traffic.in_bytes,
            out_bytes: traffic.out_bytes,
            stalls: client.stalls(),
            subscriptions: self.subscription_count(),
            name: identity.name.clone(),
            lang: identity.lang.clone(),
            version: identity.version.clone(),
            authorized_user: options
                .with_auth
                .then(|| identity.user.as_deref().map(ToOwned::to_owned))
                .flatten(),
            account: options.with_auth.then(|| account.clone()),
            subscriptions_list: subjects,
            subscriptions_list_detail: details,
            name_tag: options.with_auth.then_some(account),
        }
    }
}

impl Monitor {
    pub(super) fn connz(&self, query: &Query) -> Result<Connz<'_>, QueryError> {
        let options = Options::read(query)?;
        let mut all = Vec::new();
        if options.state != State::Closed {
            all.extend(self.shared.clients().into_iter().map(Source::Open));
        }
        if options.state != State::Open {
            all.extend(self.shared.closed_clients().into_iter().map(Source::Closed));
        }
        let known = all.len();
        all.retain(|connection| options.wants(connection));
        // A filter by number does not change how many there are.
        let total = if options.cid.is_some() {
            known
        } else {
            all.len()
        };
        options.sort.sort(&mut all);
        let limit = if options.cid.is_some() {
            1
        } else {
            options.limit
        };
        let page = all.iter().skip(options.offset).take(limit);
        let connections: Vec<_> = page.map(|connection| connection.show(&options)).collect();
        Ok(Connz {
            server_id: self.shared.id(),
            now: now(),
            num_connections: connections.len(),
            total,
            offset: options.offset,
            limit,
            connections,
        })
    }
}
