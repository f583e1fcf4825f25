//! Links to other servers: routes, gateways and leaf nodes. A server alone has none.

use std::collections::BTreeMap;

use menes_jetstream::Timestamp;
use serde::Serialize;

use super::{Monitor, now};

/// Stands in lists that are always empty.
#[derive(Serialize)]
pub(super) enum Nobody {}

#[derive(Serialize)]
pub(super) struct Routez<'a> {
    server_id: &'a str,
    server_name: &'a str,
    now: Timestamp,
    num_routes: u64,
    routes: [Nobody; 0],
}

#[derive(Serialize)]
pub(super) struct Gatewayz<'a> {
    server_id: &'a str,
    now: Timestamp,
    outbound_gateways: BTreeMap<String, Nobody>,
    inbound_gateways: BTreeMap<String, Nobody>,
}

#[derive(Serialize)]
pub(super) struct Leafz<'a> {
    server_id: &'a str,
    now: Timestamp,
    leafnodes: u64,
    leafs: [Nobody; 0],
}

impl Monitor {
    pub(super) fn routez(&self) -> Routez<'_> {
        Routez {
            server_id: self.shared.id(),
            server_name: self.shared.name(),
            now: now(),
            num_routes: 0,
            routes: [],
        }
    }

    pub(super) fn gatewayz(&self) -> Gatewayz<'_> {
        Gatewayz {
            server_id: self.shared.id(),
            now: now(),
            outbound_gateways: BTreeMap::new(),
            inbound_gateways: BTreeMap::new(),
        }
    }

    pub(super) fn leafz(&self) -> Leafz<'_> {
        Leafz {
            server_id: self.shared.id(),
            now: now(),
            leafnodes: 0,
            leafs: [],
        }
    }
}
