//! `/api/configurations/…`, and the families that have nothing behind them here.

use serde_json::{Value, json};

use super::{Call, Outcome, Refusal};
use crate::management::ask::ANSWER_TIMEOUT;

/// Hours that dead letters are kept until somebody says otherwise.
const DEAD_LETTER_HOURS: i64 = menes_stations::dead_letter::DEFAULT_RETENTION_HOURS;

impl Call<'_> {
    pub(super) async fn settings(
        &self,
        method: &str,
        family: &str,
        route: &str,
    ) -> Result<Option<Value>, Refusal> {
        Ok(Some(match (method, family, route) {
            ("GET", "configurations", "getClusterConfig") => self.cluster_config().await?,
            ("PUT", "configurations", "editClusterConfig") => self.edit_cluster_config().await?,
            // What is asked for is done before it is answered: nothing goes on behind it.
            ("GET", "asyncTasks", "getAsyncTasks") => json!({"async_tasks": []}),
            ("GET", "functions", "getAllFunctions") => json!({
                "scm_integrated": false, "other": [], "installed": [], "connected_repos": [],
            }),
            ("GET", "tags", "getTags" | "getUsedTags") => json!([]),
            (_, "tags", _) => {
                return Err(Refusal::shown(
                    "there are no tags here: name stations with dots, as shop.orders",
                ));
            }
            ("GET", "integrations", "getAllIntegrations") => json!([]),
            (_, "integrations", _) => {
                return Err(Refusal::shown(
                    "there are no integrations here: forward dead letters to a station (dls_station) and consume it",
                ));
            }
            _ => return Ok(None),
        }))
    }

    /// Settings of the server under Memphis's names; only those that mean something here change.
    pub(super) async fn cluster_config(&self) -> Outcome {
        let hours = self.dead_letter_hours().await?;
        let shared = self.management.sessions.shared();
        let max_payload = shared.options().limits.max_payload;
        let rest = self.management.rest.as_ref();
        let (rest_port, rest) = rest.map_or((0, ""), |(port, url)| (*port, url.as_str()));
        let websocket = shared.websocket_address();
        let scheme = if self.management.is_secure {
            "https"
        } else {
            "http"
        };
        Ok(json!({
            "dls_retention": hours,
            "logs_retention": 0,
            "broker_host": "localhost",
            "ui_host": format!("{scheme}://localhost:{}", self.management.port),
            "rest_gw_host": rest,
            "rest_gw_port": rest_port,
            "ws_host": websocket.map_or_else(String::new, |at| format!("localhost:{}", at.port())),
            "tiered_storage_time_sec": 0,
            "max_msg_size_mb": max_payload / (1024 * 1024),
            "gc_producer_consumer_retention_hours": 0,
        }))
    }

    /// How long dead letters are kept: the stream of theirs knows.
    async fn dead_letter_hours(&self) -> Result<i64, Refusal> {
        let open = self.session.inside(&self.management.sessions).await;
        let inside = open.map_err(crate::management::Problem::from)?;
        let subject = format!(
            "$JS.API.STREAM.INFO.{}",
            menes_stations::dead_letter::STREAM
        );
        let answer = inside.request(&subject, b"", b"", ANSWER_TIMEOUT).await;
        let Ok(answer) = answer else {
            // A user who may not look at streams.
            return Ok(DEAD_LETTER_HOURS);
        };
        let info: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
        let age = info["config"]["max_age"].as_i64();
        Ok(age.map_or(DEAD_LETTER_HOURS, |ns| ns / 3_600_000_000_000))
    }

    async fn edit_cluster_config(&self) -> Outcome {
        let now = self.cluster_config().await?;
        for (key, value) in &self.fields.0 {
            let known = now.get(key).ok_or_else(|| Refusal::field(key, "unknown"))?;
            if key != "dls_retention" && known != value {
                return Err(Refusal::shown(format!(
                    "{key} cannot be changed here: it is set in the configuration of the server, or means nothing here"
                )));
            }
        }
        if let Some(hours) = self.fields.number("dls_retention")? {
            self.ask("DEAD_LETTER.RETENTION", json!({"hours": hours}))
                .await?;
        }
        self.cluster_config().await
    }
}
