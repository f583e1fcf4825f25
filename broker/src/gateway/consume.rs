//! Messages of stations for HTTP.

use std::sync::Arc;
use std::time::Duration;

use menes_stations::name::{GroupName, StationName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::produce::{register, shown_headers};
use super::{Answer, Call};
use crate::http;
use crate::http::pulling::Pulling;
use crate::http::session::Route;
use crate::inside::{Inside, Received, RequestError};

/// Group of those who name none, and what the names of the others end with.
const GROUP: &str = "rest-gateway";
const DEFAULT_BATCH: i64 = 10;
const MAX_BATCH: i64 = 5_000;
const DEFAULT_WAIT_MS: i64 = 5_000;
const MIN_WAIT_MS: i64 = 100;
/// Longest wait: five minutes.
const MAX_WAIT_MS: i64 = 300_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConsumeBody {
    consumer_name: Option<String>,
    consumer_group: Option<String>,
    batch_size: Option<i64>,
    batch_max_wait_time_ms: Option<i64>,
}

/// What is asked for.
struct Wanted {
    count: usize,
    wait: Duration,
}

impl ConsumeBody {
    fn wanted(&self) -> Result<Wanted, String> {
        let count = match self.batch_size {
            None | Some(0) => DEFAULT_BATCH,
            Some(count) if (1..=MAX_BATCH).contains(&count) => count,
            Some(_) => {
                return Err(format!(
                    "Batch size can not be greater than {MAX_BATCH} or less than 1"
                ));
            }
        };
        let wait = match self.batch_max_wait_time_ms {
            None | Some(0) => DEFAULT_WAIT_MS,
            Some(wait) => wait.clamp(MIN_WAIT_MS, MAX_WAIT_MS),
        };
        Ok(Wanted {
            count: usize::try_from(count).unwrap_or(1),
            wait: Duration::from_millis(wait.unsigned_abs()),
        })
    }
}

fn pulling<'a>(inside: &'a Inside, route: &'a Route, wanted: &Wanted) -> Pulling<'a> {
    Pulling {
        inside,
        route,
        count: wanted.count,
        acknowledges: true,
        fills: true,
    }
}

impl Call<'_> {
    /// Takes messages, acknowledges them, and gives them.
    pub(super) async fn consume_batch(&self, body: &[u8]) -> Result<Answer, Answer> {
        let asked: ConsumeBody =
            http::object(body).map_err(|_| Answer::failed(400, "Invalid request body"))?;
        let name = asked.consumer_name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(Answer::failed(400, "Consumer name is required"));
        }
        let wanted = asked.wanted().map_err(|text| Answer::failed(400, text))?;
        let group = match asked.consumer_group.as_deref() {
            None | Some("") => GROUP.to_owned(),
            Some(group) => format!("{group}-{GROUP}"),
        };
        let inside = self.session.inside(&self.gateway.sessions).await?;
        let messages = self
            .take(&inside, &name, &group, &wanted)
            .await
            .map_err(|text| Answer::failed(400, text))?;
        let shown: Vec<Value> = messages
            .iter()
            .map(|message| {
                json!({
                    "message": String::from_utf8_lossy(&message.payload),
                    "headers": shown_headers(&message.header),
                })
            })
            .collect();
        Ok(Answer::json(200, Value::from(shown)))
    }

    async fn take(
        &self,
        inside: &Inside,
        name: &str,
        group: &str,
        wanted: &Wanted,
    ) -> Result<Vec<Received>, String> {
        let end = Instant::now() + wanted.wait;
        let mut route = self.consumer(inside, name, group).await?;
        let failed = |error: RequestError| error.to_string();
        let mut taken = match pulling(inside, &route, wanted).take_there().await {
            // The group or the station was removed meanwhile.
            Err(RequestError::NoResponders) => {
                self.session.forget(&self.station);
                route = self.consumer(inside, name, group).await?;
                let again = pulling(inside, &route, wanted).take_there().await;
                again.map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        if taken.is_empty() {
            let waited = pulling(inside, &route, wanted).wait(end).await;
            taken = waited.map_err(failed)?;
        }
        inside.flush().await.map_err(failed)?;
        Ok(taken)
    }

    /// The station's partitions; the caller is a member of the group from then on.
    async fn consumer(
        &self,
        inside: &Inside,
        name: &str,
        group: &str,
    ) -> Result<Arc<Route>, String> {
        let key = [self.station.clone(), name.to_owned(), group.to_owned()];
        if let Some(known) = self.session.consumer(&key) {
            return Ok(known);
        }
        let station = StationName::parse(&self.station).map_err(|error| error.to_string())?;
        let internal = GroupName::parse(group).map_err(|error| error.to_string())?;
        let request = json!({
            "name": name,
            "station_name": self.station,
            "connection_id": self.session.connection_id,
            "consumer_type": "application",
            "consumers_group": group,
            "max_ack_time_ms": 30_000,
            "max_msg_deliveries": 1,
            "start_consume_from_sequence": 1,
            "last_messages": -1,
            "req_version": 4,
            "username": self.session.user,
            "app_id": self.session.connection_id,
            "sdk_lang": "rest",
        });
        let partitions = register(inside, "$memphis_consumer_creations", &request).await?;
        let route = Route::new(station.internal(), internal.internal(), partitions);
        let route = Arc::new(route);
        self.session.remember_consumer(key, &route);
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_bounded() {
        let wanted = |batch: Option<i64>, wait: Option<i64>| {
            let body = ConsumeBody {
                batch_size: batch,
                batch_max_wait_time_ms: wait,
                ..ConsumeBody::default()
            };
            body.wanted()
                .map(|wanted| (wanted.count, wanted.wait.as_millis()))
        };
        assert_eq!(wanted(None, None), Ok((10, 5_000)));
        assert_eq!(wanted(Some(5_000), Some(1)), Ok((5_000, 100)));
        assert_eq!(wanted(Some(1), Some(i64::MAX)), Ok((1, 300_000)));
        assert!(wanted(Some(5_001), None).is_err());
        assert!(wanted(Some(-1), None).is_err());
    }
}
