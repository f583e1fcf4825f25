//! `/api/monitoring/…`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::stations::{MAX_COUNTED, consumer, message_of, preview, producer, with_totals};
use super::{Call, Outcome, Refusal, number_of, shown_headers};

/// Messages of the overview of a station at most.
const MAX_MESSAGES: usize = 1_000;
/// Messages of one page.
const PAGE: usize = 100;

impl Call<'_> {
    pub(super) async fn monitoring(
        &self,
        method: &str,
        route: &str,
    ) -> Result<Option<Value>, Refusal> {
        Ok(Some(match (method, route) {
            ("GET", "getMainOverviewData") => self.main_overview().await?,
            ("GET", "getStationOverviewData") => self.station_overview().await?,
            // One server.
            ("GET", "getAvailableReplicas") => json!({"available_replicas": 1}),
            ("GET", "getSystemGeneralInfo") => {
                let status = self.ask("STATUS", json!({})).await?;
                let users = self.count_users().await?;
                json!({
                    "total_amount_brokers": 1,
                    "total_stations": status["stations"],
                    "total_users": users,
                    "total_schemas": status["schemas"],
                })
            }
            ("GET", "getSystemLogs" | "downloadSystemLogs") => {
                return Err(Refusal::shown(
                    "logs are not kept here: the server writes them to its log file or to the service manager",
                ));
            }
            _ => return Ok(None),
        }))
    }

    async fn main_overview(&self) -> Outcome {
        let status = self.ask("STATUS", json!({})).await?;
        let stations = self.every_station().await?;
        let messages = stations
            .iter()
            .filter_map(|one| one["figures"]["messages"].as_u64());
        let total: u64 = messages.sum();
        let mut delayed = Vec::new();
        for station in stations.iter().filter(|one| one["groups"][0].is_object()) {
            let list = self
                .ask("GROUP.LIST", json!({"station": station["name"]}))
                .await?;
            let groups = list["groups"].as_array().into_iter().flatten();
            let behind: Vec<Value> = groups
                .filter(|group| group["lag"].as_u64().unwrap_or(0) > 0 && is_alive(group))
                .map(
                    |group| json!({"cg_name": group["group"], "num_of_delayed_msgs": group["lag"]}),
                )
                .collect();
            if !behind.is_empty() {
                delayed.push(json!({"station_name": station["name"], "cgs": behind}));
            }
        }
        let stations: Vec<Value> = stations.iter().map(with_totals).collect();
        Ok(json!({
            "total_stations": status["stations"],
            "total_messages": total,
            "total_dls_messages": status["dead_letters"],
            "system_components": [],
            "stations": stations,
            "k8s_env": false,
            "brokers_throughput": [],
            "metrics_enabled": false,
            "delayed_cgs": delayed,
        }))
    }

    /// The newest messages of a station, at most a thousand.
    async fn newest(&self, station: &Value, partition: Option<i64>) -> Result<Vec<Value>, Refusal> {
        let mut messages = Vec::new();
        let mut after = Value::from("");
        while messages.len() < MAX_MESSAGES {
            let body = json!({
                "station": station["name"],
                "partition": partition,
                "newest_first": true,
                "limit": PAGE,
                "after": after,
                "payload_bytes": 40,
            });
            let mut page = self.ask("MESSAGE.LIST", body).await?;
            if let Value::Array(found) = page["messages"].take() {
                messages.extend(found);
            }
            after = page["next"].take();
            if after.is_null() {
                break;
            }
        }
        messages.truncate(MAX_MESSAGES);
        Ok(messages)
    }

    async fn station_overview(&self) -> Outcome {
        let station = self.station().await?;
        let partition = self
            .fields
            .number("partition_number")?
            .filter(|one| *one > 0);
        let name = json!({"station": station["name"]});
        let producers = self.ask("PRODUCER.LIST", name.clone()).await?;
        let groups = self.ask("GROUP.LIST", name).await?;
        let letters = self
            .ask(
                "DEAD_LETTER.LIST",
                json!({"station": station["name"], "limit": MAX_COUNTED}),
            )
            .await?;
        let (connected, disconnected): (Vec<Value>, Vec<Value>) = producers["producers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| producer(one, &station))
            .partition(|one| one["is_active"] == true);
        let (live, idle): (Vec<Value>, Vec<Value>) = groups["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|group| overview_of_group(group, &station))
            .partition(|group| group["is_active"] == true);
        let of_kind = |kind: &str| -> Vec<Value> {
            let all = letters["dead_letters"].as_array().into_iter().flatten();
            let mut known = HashSet::new();
            all.filter(|letter| letter["kind"] == kind)
                // One that several groups failed is shown once.
                .filter(|letter| {
                    letter["sequence"].is_null()
                        || known.insert(format!("{}:{}", letter["partition"], letter["sequence"]))
                })
                .map(|letter| {
                    let mut message = message_of(letter);
                    message["data"] = preview(&letter["payload"]).into();
                    json!({
                        "message_seq": letter["sequence"].as_u64().unwrap_or(0),
                        "id": letter["id"],
                        "message": message,
                    })
                })
                .collect()
        };
        let messages: Vec<Value> = self
            .newest(&station, partition)
            .await?
            .iter()
            .map(|message| {
                json!({
                    "message_seq": message["sequence"],
                    "produced_by": message["headers"]["$memphis_producedBy"].as_str().unwrap_or_default(),
                    "data": preview(&message["payload"]),
                    "created_at": message["time"],
                    "connection_id": message["headers"]["$memphis_connectionId"].as_str().unwrap_or_default(),
                    "size": message["size"],
                    "headers": shown_headers(&message["headers"]),
                    "partition": message["partition"],
                })
            })
            .collect();
        let figures = &station["figures"];
        let count = figures["messages"].as_u64().unwrap_or(0);
        let bytes = figures["bytes"].as_u64().unwrap_or(0);
        let schema = match station["schema"]["name"].as_str() {
            Some(name) => {
                let info = self.ask("SCHEMA.INFO", json!({"name": name})).await?;
                json!({
                    "name": name,
                    "schema_type": info["type"],
                    "version_number": info["active"],
                    "updates_available": false,
                })
            }
            None => json!({}),
        };
        let letters_count = letters["dead_letters"].as_array().map_or(0, Vec::len);
        let shared = self.management.sessions.shared();
        Ok(json!({
            "connected_producers": connected,
            "disconnected_producers": disconnected,
            "deleted_producers": [],
            "connected_cgs": live,
            "disconnected_cgs": idle,
            "deleted_cgs": [],
            "total_messages": count,
            "average_message_size": bytes.checked_div(count).unwrap_or(0),
            "audit_logs": [],
            "messages": messages,
            "poison_messages": of_kind("poison"),
            "schema_failed_messages": of_kind("schema"),
            "functions_failed_messages": [],
            "tags": [],
            "leader": shared.name(),
            "followers": [],
            "schema": schema,
            "idempotency_window_in_ms": station["idempotency_window_ms"],
            "dls_configuration_poison": station["dead_letters"]["poison"],
            "dls_configuration_schemaverse": station["dead_letters"]["schemaverse"],
            "total_dls_messages": letters_count,
            "tiered_storage_enabled": station["tiered_storage"] == true,
            "created_by_username": station["created_by"],
            "resend_disabled": false,
            "functions_enabled": false,
            "max_amount_of_allowed_producers": -1,
            "source_connectors": [],
            "sink_connectors": [],
            "act_as_dls_station_in_stations": [],
        }))
    }
}

fn is_alive(group: &Value) -> bool {
    let mut members = group["members"].as_array().into_iter().flatten();
    members.any(|member| member["is_active"] == true)
}

fn overview_of_group(group: &Value, station: &Value) -> Value {
    let members = group["members"].as_array().into_iter().flatten();
    let (live, idle): (Vec<Value>, Vec<Value>) = members
        .map(|member| consumer(member, group, station))
        .partition(|member| member["is_active"] == true);
    let sdk = live
        .iter()
        .chain(&idle)
        .next()
        .map(|one| one["sdk_language"].clone());
    let numbers = group["partitions"].as_array().into_iter().flatten();
    let numbers: Vec<Value> = numbers.map(|one| one["partition"].clone()).collect();
    json!({
        "id": number_of(group["group"].as_str().unwrap_or_default()),
        "name": group["group"],
        "unprocessed_messages": group["lag"],
        "poison_messages": 0,
        "is_active": !live.is_empty(),
        "in_process_messages": group["in_process"],
        "max_ack_time_ms": group["max_ack_time_ms"],
        "max_msg_deliveries": group["max_msg_deliveries"],
        "connected_consumers": live,
        "disconnected_consumers": idle,
        "deleted_consumers": [],
        "last_status_change_date": "0001-01-01T00:00:00Z",
        "partitions_list": numbers,
        "sdk_language": sdk,
        "update_available": false,
    })
}
