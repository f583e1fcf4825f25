//! What is announced: clients that come and go, accounts, and the server itself.

use std::time::SystemTime;

use serde::Serialize;

use super::System;
use super::documents::{Advisory, ClientDocument, ServerInfo};
use super::port::{Event, EventKind, count_subjects, event_subject};
use crate::account::Account;
use crate::connection::client::TrafficCount;
use crate::monitoring::{AccountStat, DataStats, ServerStats};

const CONNECTED: &str = "io.nats.server.advisory.v1.client_connect";
const DISCONNECTED: &str = "io.nats.server.advisory.v1.client_disconnect";
const COUNTED: &str = "io.nats.server.advisory.v1.account_connections";

#[derive(Serialize)]
struct Connected {
    client: ClientDocument,
}

/// A client that is gone. `sent` is what it sent.
#[derive(Serialize)]
struct Disconnected {
    client: ClientDocument,
    sent: DataStats,
    received: DataStats,
    reason: String,
}

impl Disconnected {
    fn new(client: ClientDocument, traffic: TrafficCount, reason: String) -> Self {
        Self {
            client,
            sent: DataStats::plain(traffic.in_msgs, traffic.in_bytes),
            received: DataStats::plain(traffic.out_msgs, traffic.out_bytes),
            reason,
        }
    }
}

/// The server in figures.
#[derive(Serialize)]
struct Statsz<'a> {
    server: ServerInfo<'a>,
    statsz: ServerStats,
}

impl System {
    /// Announces what happened to a client.
    pub(super) fn announce(&self, event: &Event) {
        let subject = event_subject(event.client.account.as_str(), &event.kind);
        match &event.kind {
            EventKind::Connected => {
                let body = Connected {
                    client: ClientDocument::of(event, false),
                };
                let document = Advisory::new(CONNECTED, self.info(), event.at, body);
                self.say(&subject, &document);
            }
            EventKind::Disconnected(reason) => {
                let client = ClientDocument::of(event, true);
                let body = Disconnected::new(client, event.traffic, reason.to_string());
                let document = Advisory::new(DISCONNECTED, self.info(), event.at, body);
                self.say(&subject, &document);
            }
            EventKind::Refused { account, reason } => {
                let document = |wanted: Option<&Account>| {
                    let client = ClientDocument::of(event, true).in_account(wanted);
                    let body = Disconnected::new(client, event.traffic, reason.clone());
                    Advisory::new(DISCONNECTED, self.info(), event.at, body)
                };
                let subject = format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", self.shared.id());
                if self.is_heard(&subject) {
                    self.say(&subject, &document(None));
                }
                if let Some(account) = account {
                    let own = "$SYS.ACCOUNT.CLIENT.AUTH.ERR";
                    if account.has_interest(own.as_bytes(), None) {
                        self.send(account, own, &document(Some(account)));
                    }
                }
            }
        }
    }

    /// Announces how many connections an account has.
    pub(super) fn announce_count(&self, account: &Account) {
        for subject in count_subjects(account) {
            if self.is_heard(&subject) {
                self.say(&subject, &self.count_document(account));
            }
        }
    }

    /// How many connections an account has, and what they did.
    pub(super) fn count_document(&self, account: &Account) -> Advisory<'_, AccountStat> {
        let stat = self.monitor.account_stat(account);
        Advisory::new(COUNTED, self.info(), SystemTime::now(), stat)
    }

    /// The same for all accounts that have any.
    pub(super) fn announce_all_counts(&self) {
        for account in self.shared.accounts().all() {
            if account.connections() > 0 && self.shared.system().wants_counts(&account) {
                self.announce_count(&account);
            }
        }
    }

    /// Announces the figures of the server.
    pub(super) fn announce_statsz(&self) {
        let subject = self.statsz_subject();
        if self.is_heard(&subject) {
            self.send_statsz(&subject);
        }
    }

    /// Where the figures of the server are announced.
    pub(super) fn statsz_subject(&self) -> String {
        format!("$SYS.SERVER.{}.STATSZ", self.shared.id())
    }

    /// Sends the figures of the server.
    pub(super) fn send_statsz(&self, subject: &str) {
        let document = Statsz {
            server: self.info(),
            statsz: self.monitor.server_stats(),
        };
        self.say(subject, &document);
    }

    /// Announces that the server leaves.
    pub(super) fn announce_end(&self, how: &str) {
        let subject = format!("$SYS.SERVER.{}.{how}", self.shared.id());
        if self.is_heard(&subject) {
            self.say(&subject, &self.info());
        }
    }
}
