//! `/accountz` and `/accstatz`: the accounts.

use std::collections::BTreeMap;

use menes_jetstream::{AccountName, Timestamp};
use serde::{Deserialize, Serialize};

use super::query::{Query, QueryError};
use super::sharing::{self, ExportDocument, ImportDocument, MapDestination};
use super::subsz::SublistStats;
use super::{Monitor, now};
use crate::account::Account;
use crate::connection::client::TrafficCount;

#[derive(Serialize)]
pub(super) struct Accountz<'a> {
    server_id: &'a str,
    now: Timestamp,
    system_account: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_detail: Option<AccountDetail>,
}

#[derive(Serialize)]
pub(super) struct AccountDetail {
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mappings: BTreeMap<String, Vec<MapDestination>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exports: Vec<ExportDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    imports: Vec<ImportDocument>,
    name_tag: String,
    sublist_stats: SublistStats,
}

#[derive(Serialize)]
pub(super) struct Accstatz<'a> {
    server_id: &'a str,
    now: Timestamp,
    account_statz: Vec<AccountStat>,
}

/// One account in figures.
#[derive(Serialize)]
pub(crate) struct AccountStat {
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
#[derive(Default, Serialize)]
pub(crate) struct DataStats {
    msgs: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateways: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leafs: Option<Count>,
}

#[derive(Default, Serialize)]
struct Count {
    msgs: u64,
    bytes: u64,
}

impl DataStats {
    /// Messages and bytes where links between servers are not told apart.
    pub(crate) fn plain(msgs: u64, bytes: u64) -> Self {
        Self {
            msgs,
            bytes,
            ..Self::default()
        }
    }

    fn of_account(msgs: u64, bytes: u64) -> Self {
        Self {
            msgs,
            bytes,
            gateways: Some(Count::default()),
            routes: Some(Count::default()),
            leafs: Some(Count::default()),
        }
    }
}

/// What is asked for, under the names of a system request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AccountzOptions {
    account: String,
}

impl AccountzOptions {
    pub(super) fn of_query(query: &Query) -> Self {
        Self {
            account: query.text("acc").to_owned(),
        }
    }
}

/// What is asked for, under the names of a system request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AccstatzOptions {
    /// Only these; all for none.
    pub(crate) accounts: Vec<String>,
    /// Those without connections too.
    pub(crate) include_unused: bool,
}

impl AccstatzOptions {
    pub(super) fn of_query(query: &Query) -> Result<Self, QueryError> {
        Ok(Self {
            accounts: Vec::new(),
            include_unused: query.flag("unused")?,
        })
    }

    fn wants(&self, account: &Account) -> bool {
        (self.include_unused || account.connections() > 0)
            && (self.accounts.is_empty()
                || self
                    .accounts
                    .iter()
                    .any(|name| name == account.name().as_str()))
    }
}

impl Accstatz<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.account_statz.is_empty()
    }
}

impl Monitor {
    pub(super) fn accountz(&self, asked: &AccountzOptions) -> Result<Accountz<'_>, QueryError> {
        let accounts = self.shared.accounts();
        let mut document = Accountz {
            server_id: self.shared.id(),
            now: now(),
            system_account: accounts.system().name().as_str(),
            accounts: Vec::new(),
            account_detail: None,
        };
        if asked.account.is_empty() {
            let names = accounts.all().into_iter();
            document.accounts = names.map(|a| a.name().as_str().to_owned()).collect();
        } else {
            document.account_detail = Some(self.account_info(&asked.account)?);
        }
        Ok(document)
    }

    /// All about one account.
    pub(super) fn account_info(&self, name: &str) -> Result<AccountDetail, QueryError> {
        match self.shared.accounts().get(&AccountName::from(name)) {
            Some(account) => Ok(self.account_detail(&account)),
            None => Err(QueryError::Meaning(format!(
                "Account {name} does not exist"
            ))),
        }
    }

    fn account_detail(&self, account: &Account) -> AccountDetail {
        let subscriptions = account.sublist().len();
        let description = account.description();
        let description = description.as_deref();
        AccountDetail {
            account_name: account.name().as_str().to_owned(),
            update_time: self.started,
            is_system: account.is_system(),
            expired: false,
            complete: true,
            jetstream_enabled: self.streams().is_some() && self.may_have_streams(account),
            leafnode_connections: 0,
            client_connections: account.connections(),
            subscriptions,
            mappings: description.map(sharing::mappings).unwrap_or_default(),
            exports: description.map(sharing::exports).unwrap_or_default(),
            imports: description.map(sharing::imports).unwrap_or_default(),
            name_tag: account.title(),
            sublist_stats: SublistStats::of(subscriptions),
        }
    }

    pub(super) fn accstatz(&self, asked: &AccstatzOptions) -> Accstatz<'_> {
        let mut traffic = self.shared.traffic_by_account();
        let accounts = self.shared.accounts().all();
        let stats = accounts.iter().filter(|account| asked.wants(account));
        let stats = stats.map(|account| {
            let traffic = traffic.remove(account.name()).unwrap_or_default();
            account_stat(account, traffic)
        });
        Accstatz {
            server_id: self.shared.id(),
            now: now(),
            account_statz: stats.collect(),
        }
    }

    /// One account in figures.
    pub(crate) fn account_stat(&self, account: &Account) -> AccountStat {
        let mut traffic = self.shared.traffic_by_account();
        account_stat(account, traffic.remove(account.name()).unwrap_or_default())
    }
}

fn account_stat(account: &Account, traffic: TrafficCount) -> AccountStat {
    AccountStat {
        acc: account.name().as_str().to_owned(),
        name: account.title(),
        conns: account.connections(),
        leafnodes: 0,
        total_conns: account.connections(),
        num_subscriptions: account.sublist().len(),
        sent: DataStats::of_account(traffic.out_msgs, traffic.out_bytes),
        received: DataStats::of_account(traffic.in_msgs, traffic.in_bytes),
        slow_consumers: account.slow_consumers(),
    }
}
