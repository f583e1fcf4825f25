//! Who writes to a station.

use serde_json::{Value, json};

use super::{Turn, course, ready, station_of};
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    if verb != "LIST" {
        return Err(super::unknown());
    }
    let station = station_of(body)?;
    super::may_read(request, &station)?;
    Ok(course(Vec::new(), move |cx, _| {
        let producers: Vec<Value> = ready(cx, &station)?
            .producers()
            .map(|producer| {
                json!({
                    "name": producer.name,
                    "connection_id": producer.connection,
                    "type": producer.kind,
                    "user": producer.user,
                    "sdk": producer.sdk,
                    "app_id": producer.app_id,
                    "registered": producer.registered,
                    "is_active": cx.presence.is_open(cx.account, &producer.connection),
                })
            })
            .collect();
        Ok(Turn::Done(json!({ "producers": producers })))
    }))
}
