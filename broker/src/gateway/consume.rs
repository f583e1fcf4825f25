//! Messages of stations for HTTP.

use std::sync::Arc;
use std::time::Duration;

use menes_stations::name::{GroupName, StationName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::produce::{ANSWER_TIMEOUT, register, shown_headers};
use super::{Answer, Call};
use crate::http;
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
/// Longest wait at one partition of several, so that the others have their turn.
const TURN: Duration = Duration::from_millis(250);
/// What the messages of one pull may weigh, unless `max_payload` allows more for one.
const MAX_BYTES: usize = 16 * 1024 * 1024;

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
        let mut route = self.consumer(inside, name, group).await?;
        let mut taken = Vec::new();
        let end = Instant::now() + wanted.wait;
        // Every message that can be stored has to fit.
        let max_bytes = MAX_BYTES.max(2 * inside.max_payload());
        // First whatever is there, at every partition.
        for turn in 0..route.partitions() {
            let count = wanted.count - taken.len();
            let pull = json!({"batch": count, "no_wait": true, "max_bytes": max_bytes});
            match self.pull(inside, &route, &pull, Duration::ZERO).await {
                Ok(more) => taken.extend(more),
                // The group or the station was removed meanwhile.
                Err(RequestError::NoResponders) if turn == 0 => {
                    self.session.forget(&self.station);
                    route = self.consumer(inside, name, group).await?;
                }
                Err(error) => return Err(error.to_string()),
            }
            if taken.len() >= wanted.count {
                break;
            }
        }
        while taken.is_empty() {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            let wait = if route.partitions() == 1 {
                rest
            } else {
                rest.min(TURN)
            };
            let expires = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
            let pull = json!({
                "batch": wanted.count,
                "expires": expires.max(1_000_000),
                "max_bytes": max_bytes,
            });
            let came = self.pull(inside, &route, &pull, wait).await;
            taken.extend(came.map_err(|error| error.to_string())?);
        }
        inside.flush().await.map_err(|error| error.to_string())?;
        Ok(taken)
    }

    /// Takes what comes until the pull is over, and acknowledges it.
    async fn pull(
        &self,
        inside: &Inside,
        route: &Route,
        pull: &Value,
        wait: Duration,
    ) -> Result<Vec<Received>, RequestError> {
        let stream = route.next_stream();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", route.group);
        let wanted = pull["batch"].as_u64().unwrap_or(1);
        let mut answers = inside.pull(&subject, pull.to_string().as_bytes()).await?;
        let end = Instant::now() + wait + ANSWER_TIMEOUT;
        let mut taken = Vec::new();
        while (taken.len() as u64) < wanted {
            let message = answers.next(end).await?;
            match message.status() {
                None => {
                    let reply = String::from_utf8_lossy(&message.reply).into_owned();
                    inside.send(&reply, None, b"", b"").await?;
                    taken.push(message);
                }
                // Says that it is there.
                Some(100) => {}
                Some(503) if taken.is_empty() => return Err(RequestError::NoResponders),
                // No messages, or no more of them.
                Some(_) => break,
            }
        }
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
