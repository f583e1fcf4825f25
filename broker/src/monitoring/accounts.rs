//! `/accountz` and `/accstatz`: the accounts.

use menes_jetstream::{AccountName, Timestamp};
use serde::Serialize;

use super::query::{Query, QueryError};
use super::subsz::SublistStats;
use super::{Monitor, now};
use crate::account::{Account, SYSTEM_ACCOUNT};
use crate::connection::client::TrafficCount;

#[derive(Serialize)]
pub(super) struct Accountz<'a> {
    server_id: &'a str,
    now: Timestamp,
    system_account: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_detail: Option<AccountDetail>,
}

#[derive(Serialize)]
struct AccountDetail {
    account_name: String,
    update_time: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_system: bool,
    expired: bool,
    complete: bool,
    jetstream_enabled: bool,
    leafnode_connections: u64,
    client_connections: u32,
    subscriptions: usize,
    name_tag: String,
    sublist_stats: SublistStats,
}

#[derive(Serialize)]
pub(super) struct Accstatz<'a> {
    server_id: &'a str,
    now: Timestamp,
    account_statz: Vec<AccountStat>,
}

#[derive(Serialize)]
struct AccountStat {
    acc: String,
    name: String,
    conns: u32,
    leafnodes: u64,
    total_conns: u32,
    num_subscriptions: usize,
    sent: DataStats,
    received: DataStats,
    slow_consumers: u64,
}

/// Messages and bytes, those of links between servers apart.
#[derive(Serialize)]
struct DataStats {
    msgs: u64,
    bytes: u64,
    gateways: Count,
    routes: Count,
    leafs: Count,
}

#[derive(Default, Serialize)]
struct Count {
    msgs: u64,
    bytes: u64,
}

impl DataStats {
    fn new(msgs: u64, bytes: u64) -> Self {
        Self {
            msgs,
            bytes,
            gateways: Count::default(),
            routes: Count::default(),
            leafs: Count::default(),
        }
    }
}

impl Monitor {
    pub(super) fn accountz(&self, query: &Query) -> Result<Accountz<'_>, QueryError> {
        let mut document = Accountz {
            server_id: self.shared.id(),
            now: now(),
            system_account: SYSTEM_ACCOUNT,
            accounts: Vec::new(),
            account_detail: None,
        };
        match query.text("acc") {
            "" => {
                let all = self.shared.accounts().all();
                document.accounts = all
                    .iter()
                    .map(|account| account.name().as_str().to_owned())
                    .collect();
            }
            name => {
                let found = self.shared.accounts().get(&AccountName::from(name));
                let Some(account) = found else {
                    return Err(QueryError::Meaning(format!(
                        "Account {name} does not exist"
                    )));
                };
                document.account_detail = Some(self.account_detail(&account));
            }
        }
        Ok(document)
    }

    fn account_detail(&self, account: &Account) -> AccountDetail {
        let subscriptions = account.sublist().len();
        AccountDetail {
            account_name: account.name().as_str().to_owned(),
            update_time: self.started,
            is_system: account.is_system(),
            expired: false,
            complete: true,
            jetstream_enabled: self.jetstream.is_some() && !account.is_system(),
            leafnode_connections: 0,
            client_connections: account.connections(),
            subscriptions,
            name_tag: account.name().as_str().to_owned(),
            sublist_stats: SublistStats::of(subscriptions),
        }
    }

    pub(super) fn accstatz(&self, query: &Query) -> Result<Accstatz<'_>, QueryError> {
        let with_unused = query.flag("unused")?;
        let mut traffic = self.shared.traffic_by_account();
        let mut stats = Vec::new();
        for account in self.shared.accounts().all() {
            if with_unused || account.connections() > 0 {
                let traffic = traffic.remove(account.name()).unwrap_or_default();
                stats.push(account_stat(&account, traffic));
            }
        }
        Ok(Accstatz {
            server_id: self.shared.id(),
            now: now(),
            account_statz: stats,
        })
    }
}

fn account_stat(account: &Account, traffic: TrafficCount) -> AccountStat {
    AccountStat {
        acc: account.name().as_str().to_owned(),
        name: account.name().as_str().to_owned(),
        conns: account.connections(),
        leafnodes: 0,
        total_conns: account.connections(),
        num_subscriptions: account.sublist().len(),
        sent: DataStats::new(traffic.out_msgs, traffic.out_bytes),
        received: DataStats::new(traffic.in_msgs, traffic.in_bytes),
        slow_consumers: 0,
    }
}
