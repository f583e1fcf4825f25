//! `/connz`: the connections, open and closed.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use menes_jetstream::Timestamp;
use menes_protocol::subject;
use serde::{Deserialize, Serialize};

use super::query::{Query, QueryError, above_zero};
use super::subsz::SubscriptionDetail;
use super::text::{go_duration, uptime};
use super::{DEFAULT_LIMIT, Monitor, now, timestamp};
use crate::account::GLOBAL_ACCOUNT;
use crate::auth::Grant;
use crate::connection::client::{Client, Transport};
use crate::connection::closed::Closed;
use crate::tls::PeerCertificate;

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

impl Connz<'_> {
    /// The numbers above the list, and sums over it.
    pub(super) fn sums(&self) -> [(&'static str, u64); 10] {
        let all = &self.connections;
        let sum = |of: fn(&Connection) -> u64| all.iter().map(of).sum();
        [
            ("num_connections", self.num_connections as u64),
            ("total", self.total as u64),
            ("offset", self.offset as u64),
            ("limit", self.limit as u64),
            ("pending_bytes", sum(|one| one.pending_bytes as u64)),
            ("subscriptions", sum(|one| one.subscriptions as u64)),
            ("in_bytes", sum(|one| one.in_bytes)),
            ("out_bytes", sum(|one| one.out_bytes)),
            ("in_msgs", sum(|one| one.in_msgs)),
            ("out_msgs", sum(|one| one.out_msgs)),
        ]
    }
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
    rtt: String,
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
    tls_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher_suite: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_peer_certs: Vec<PeerCertificate>,
    #[serde(skip_serializing_if = "is_false")]
    tls_first: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<SubscriptionDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_tag: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyKey>,
}

/// A trusted proxy.
#[derive(Serialize)]
pub(super) struct ProxyKey {
    key: String,
}

impl ProxyKey {
    pub(super) fn of(key: &str) -> Self {
        Self {
            key: key.to_owned(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What is asked for, under the names of a system request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConnzOptions {
    sort: String,
    auth: bool,
    subscriptions: bool,
    subscriptions_detail: bool,
    offset: i64,
    limit: i64,
    cid: u64,
    mqtt_client: String,
    /// 0 open, 1 closed, 2 all.
    state: u8,
    user: String,
    #[serde(rename = "acc")]
    pub(crate) account: String,
    filter_subject: String,
}

/// [`ConnzOptions`], understood.
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
    mqtt_client: &'q str,
    filter: Option<&'q str>,
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

impl ConnzOptions {
    pub(super) fn of_query(query: &Query) -> Result<Self, QueryError> {
        let auth = query.flag("auth")?;
        let (subscriptions, subscriptions_detail) = query.subscriptions()?;
        let state = match query.text("state").to_ascii_lowercase().as_str() {
            "" | "open" => 0,
            "closed" => 1,
            "any" | "all" => 2,
            _ => {
                let text = format!("Error decoding state for {}", query.text("state"));
                return Err(QueryError::Meaning(text));
            }
        };
        Ok(Self {
            sort: query.text("sort").to_owned(),
            auth,
            subscriptions,
            subscriptions_detail,
            offset: query.int("offset")?,
            limit: query.int("limit")?,
            cid: query.id("cid")?.unwrap_or(0),
            mqtt_client: query.text("mqtt_client").to_owned(),
            state,
            user: query.text("user").to_owned(),
            account: query.text("acc").to_owned(),
            filter_subject: String::new(),
        })
    }
}

impl<'q> Options<'q> {
    fn read(asked: &'q ConnzOptions) -> Result<Self, QueryError> {
        let list = match (asked.subscriptions_detail, asked.subscriptions) {
            (true, _) => List::Details,
            (false, true) => List::Subjects,
            (false, false) => List::None,
        };
        let state = match asked.state {
            0 => State::Open,
            1 => State::Closed,
            _ => State::Any,
        };
        let sort = Sort::read(&asked.sort)?;
        if matches!(sort, Sort::Stop | Sort::Reason) && state != State::Closed {
            let text = format!("sort by {} only valid on closed connections", asked.sort);
            return Err(QueryError::Meaning(text));
        }
        let filter = Some(asked.filter_subject.as_str()).filter(|f| !f.is_empty() && *f != ">");
        if filter.is_some() && asked.account.is_empty() {
            let text = "filter by subject only valid with account filtering";
            return Err(QueryError::Meaning(text.to_owned()));
        }
        let cid = Some(asked.cid).filter(|cid| *cid > 0);
        Ok(Self {
            sort,
            with_auth: asked.auth,
            list,
            offset: usize::try_from(asked.offset).unwrap_or(0),
            limit: match cid {
                Some(_) => 1,
                None => above_zero(asked.limit).unwrap_or(DEFAULT_LIMIT),
            },
            cid,
            state,
            user: &asked.user,
            account: &asked.account,
            mqtt_client: &asked.mqtt_client,
            filter,
        })
    }

    fn wants(&self, connection: &Source) -> bool {
        if let Some(cid) = self.cid {
            return connection.client().id().0 == cid;
        }
        let identity = connection.client().identity();
        (self.user.is_empty() || identity.shown_user.as_deref() == Some(self.user))
            // Nobody speaks MQTT here.
            && self.mqtt_client.is_empty()
            && self.filter.is_none_or(|filter| connection.wants_some_of(filter))
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

/// Round trips of more than a microsecond are shown without parts of one.
fn whole_micros(time: Duration) -> Duration {
    if time.as_micros() > 1 && time.as_millis() < 1 {
        Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(0))
    } else {
        time
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

    /// Whether one of its subscriptions overlaps with `filter`. Of closed connections nothing is
    /// asked.
    fn wants_some_of(&self, filter: &str) -> bool {
        match self {
            Self::Open(client) => client
                .subscriptions()
                .iter()
                .any(|s| subject::overlaps(s.subject(), filter.as_bytes())),
            Self::Closed(_) => true,
        }
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
        let grant = identity.grant.as_deref().filter(|_| options.with_auth);
        let traffic = client.traffic().count();
        let account = self.account();
        let secured = client.secured();
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
                let own = identity.account.as_deref();
                let shown = own.filter(|_| self.stop().is_some());
                let all = subscriptions();
                details.extend(all.iter().map(|s| SubscriptionDetail::of(s, shown)));
            }
        }
        Connection {
            cid: client.id().0,
            kind: "Client",
            transport: match client.transport() {
                Transport::Nats => "nats",
                Transport::WebSocket => "websocket",
            },
            ip: client.shown_ip().to_string(),
            port: client.address().port(),
            start: self.start(),
            last_activity: self.last_activity(),
            stop: self.stop(),
            reason: self.reason(),
            rtt: go_duration(client.rtt().map(whole_micros).unwrap_or_default()),
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
            tls_version: secured.map(|tls| tls.version),
            tls_cipher_suite: secured.map(|tls| tls.cipher_suite),
            tls_peer_certs: secured
                .filter(|_| options.with_auth)
                .map(|tls| tls.certificates.clone())
                .unwrap_or_default(),
            tls_first: secured.is_some_and(|tls| tls.is_first),
            authorized_user: options
                .with_auth
                .then(|| identity.shown_user.as_deref().map(ToOwned::to_owned))
                .flatten(),
            account: options
                .with_auth
                .then(|| account.clone())
                .filter(|account| account != GLOBAL_ACCOUNT),
            subscriptions_list: subjects,
            subscriptions_list_detail: details,
            jwt: grant.and_then(Grant::shown_token).map(ToOwned::to_owned),
            issuer_key: grant.map(|grant| grant.issuer.clone()),
            name_tag: options
                .with_auth
                .then_some(account)
                // As in nats-server, which remembers less of what is over.
                .filter(|account| self.stop().is_none() || account != GLOBAL_ACCOUNT)
                .map(|name| identity.account.as_ref().map_or(name, |a| a.title())),
            tags: grant.map_or_else(Vec::new, |grant| grant.admission.tags.clone()),
            proxy: identity.proxy.as_deref().map(ProxyKey::of),
        }
    }
}

impl Monitor {
    pub(super) fn connz(&self, asked: &ConnzOptions) -> Result<Connz<'_>, QueryError> {
        let options = Options::read(asked)?;
        let mut all = Vec::new();
        if options.state != State::Closed {
            all.extend(self.shared.clients().into_iter().map(Source::Open));
        }
        if options.state != State::Open {
            all.extend(self.shared.closed_clients().into_iter().map(Source::Closed));
        }
        if !options.account.is_empty() {
            all.retain(|connection| connection.account() == options.account);
        }
        // Other filters do not change how many there are.
        let total = all.len();
        all.retain(|connection| options.wants(connection));
        options.sort.sort(&mut all);
        let page = all.iter().skip(options.offset).take(options.limit);
        let connections: Vec<_> = page.map(|connection| connection.show(&options)).collect();
        Ok(Connz {
            server_id: self.shared.id(),
            now: now(),
            num_connections: connections.len(),
            total,
            offset: options.offset,
            limit: options.limit,
            connections,
        })
    }
}
