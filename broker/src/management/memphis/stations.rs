//! `/api/stations/…`.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::{Call, Outcome, Refusal, hex, number_of, shown_headers};
use crate::management::messages::Place;

/// Stations of one page of the broker's list.
const PAGE: u64 = 500;
/// Most copies of a message that one request stores.
const MAX_AMOUNT: i64 = 1_000;
/// How long a station keeps messages unless asked otherwise, seconds.
const DEFAULT_AGE_SECS: i64 = 3_600;
/// Dead letters that are counted of one station.
pub(super) const MAX_COUNTED: u64 = 256;

impl Call<'_> {
    pub(super) async fn stations(
        &self,
        method: &str,
        route: &str,
    ) -> Result<Option<Value>, Refusal> {
        Ok(Some(match (method, route) {
            ("GET", "getStation") => {
                let station = self.station().await?;
                shown(&station)
            }
            ("GET", "getStations") => self.overview_of_stations().await?,
            ("GET", "getAllStations") => self.all_stations().await?,
            ("POST", "createStation") => self.create_station().await?,
            ("DELETE", "removeStation") => {
                for name in self.fields.texts("station_names")? {
                    self.ask("STATION.DELETE", json!({"station": name})).await?;
                }
                json!({})
            }
            ("GET", "getMessageDetails") => self.message_details().await?,
            ("GET", "getPoisonMessageJourney") => {
                let id = self.fields.number("message_id")?;
                self.dead_letter(id.ok_or_else(|| Refusal::field("message_id", "required"))?)
                    .await?
            }
            ("POST", "resendPoisonMessages") => {
                let ids = self.fields.list("poison_message_ids")?;
                let station = self.fields.needed("station_name")?;
                let body = json!({"station": station, "ids": ids});
                self.ask("DEAD_LETTER.RESEND", body).await?;
                json!({})
            }
            ("POST", "dropDlsMessages") => self.drop_dead_letters().await?,
            ("DELETE", "purgeStation") => self.purge().await?,
            ("DELETE", "removeMessages") => {
                let station = self.fields.needed("station_name")?;
                for message in self.fields.list("messages")? {
                    let body = json!({
                        "station": station,
                        "partition": partition(message["partition_number"].as_i64()),
                        "sequence": message["message_seq"],
                    });
                    self.ask("MESSAGE.DELETE", body).await?;
                }
                json!({})
            }
            ("POST", "produce") => self.produce().await?,
            ("POST", "useSchema") => self.use_schema().await?,
            ("DELETE", "removeSchemaFromStation") => {
                let station = self.fields.needed("station_name")?;
                self.ask("SCHEMA.DETACH", json!({"station": station}))
                    .await?;
                json!({})
            }
            ("GET", "getUpdatesForSchemaByStation") => {
                let station = self.station().await?;
                match station["schema"]["name"].as_str() {
                    Some(name) => self.schema_details(name).await?,
                    None => return Err(Refusal::shown("the station has no schema")),
                }
            }
            ("PUT", "updateDlsConfig") => {
                let station = self.fields.needed("station_name")?;
                let switches = json!({
                    "poison": self.fields.flag("poison")?.unwrap_or(false),
                    "schemaverse": self.fields.flag("schemaverse")?.unwrap_or(false),
                });
                let body = json!({"station": station, "dls_configuration": switches});
                self.ask("STATION.UPDATE", body).await?;
                switches
            }
            ("POST", "attachDlsStation") => {
                let target = self.fields.needed("name")?;
                self.set_dead_letter_station(&target).await?
            }
            ("DELETE", "detachDlsStation") => self.set_dead_letter_station("").await?,
            _ => return Ok(None),
        }))
    }

    /// The station that a request names.
    pub(super) async fn station(&self) -> Outcome {
        let name = self.fields.needed("station_name")?;
        self.ask("STATION.INFO", json!({"station": name, "figures": true}))
            .await
    }

    /// Every station with its figures.
    pub(super) async fn every_station(&self) -> Result<Vec<Value>, Refusal> {
        let mut stations = Vec::new();
        let mut after = Value::from("");
        loop {
            let body = json!({"figures": true, "limit": PAGE, "after": after});
            let mut page = self.ask("STATION.LIST", body).await?;
            if let Value::Array(found) = page["stations"].take() {
                stations.extend(found);
            }
            after = page["next"].take();
            if after.is_null() {
                return Ok(stations);
            }
        }
    }

    /// Dead letters of a station, those that are counted.
    async fn count_dead_letters(&self, station: &Value) -> Result<usize, Refusal> {
        if station["figures"]["has_dead_letters"] != true {
            return Ok(0);
        }
        let body = json!({"station": station["name"], "limit": MAX_COUNTED});
        let letters = self.ask("DEAD_LETTER.LIST", body).await?;
        Ok(letters["dead_letters"].as_array().map_or(0, Vec::len))
    }

    async fn overview_of_stations(&self) -> Outcome {
        let mut shown = Vec::new();
        for station in self.every_station().await? {
            shown.push(json!({
                "station": inner(&station),
                "total_messages": station["figures"]["messages"].as_u64().unwrap_or(0),
                "posion_messages": self.count_dead_letters(&station).await?,
                "tags": [],
                "has_dls_messages": station["figures"]["has_dead_letters"] == true,
                "activity": is_active(&station),
            }));
        }
        Ok(json!({ "stations": shown }))
    }

    pub(super) async fn all_stations(&self) -> Outcome {
        let stations = self.every_station().await?;
        Ok(stations.iter().map(with_totals).collect())
    }

    async fn create_station(&self) -> Outcome {
        let fields = &self.fields;
        let name = fields.needed("name")?;
        let switches = fields.object("dls_configuration");
        let (retention_type, retention) = match (
            fields.text("retention_type")?,
            fields.number("retention_value")?,
        ) {
            (kind, value) if kind == "ack_based" => (kind, value.unwrap_or(0)),
            (kind, Some(value @ 1..)) => (kind, value),
            _ => ("message_age_sec".to_owned(), DEFAULT_AGE_SECS),
        };
        let made = self
            .ask(
                "STATION.CREATE",
                json!({
                    "station": name,
                    "retention_type": retention_type,
                    "retention_value": retention,
                    "storage_type": fields.text("storage_type")?,
                    "replicas": fields.number("replicas")?.unwrap_or(1),
                    "schema_name": fields.text("schema_name")?,
                    "idempotency_window_in_ms": fields.number("idempotency_window_in_ms")?.unwrap_or(0),
                    "dls_configuration": {
                        "poison": switches.flag("poison")?.unwrap_or(false),
                        "schemaverse": switches.flag("schemaverse")?.unwrap_or(false),
                    },
                    "tiered_storage_enabled": fields.flag("tiered_storage_enabled")?.unwrap_or(false),
                    // The old command line tool knows no partitions.
                    "partitions_number": fields.number("partitions_number")?.unwrap_or(1).max(1),
                    "dls_station": fields.text("dls_station")?,
                }),
            )
            .await?;
        let mut answer = inner(&made);
        answer["last_update"] = answer["updated_at"].take();
        answer["schema_version_number"] = answer["schema_vesrion_number"].take();
        let kept = [
            "id",
            "name",
            "retention_type",
            "retention_value",
            "storage_type",
            "replicas",
            "created_by_username",
            "created_at",
            "last_update",
            "is_deleted",
            "idempotency_window_in_ms",
            "dls_configuration_poison",
            "dls_configuration_schemaverse",
            "tiered_storage_enabled",
            "resend_disabled",
            "dls_station",
        ];
        let with_schema = ["schema_name", "schema_version_number"];
        let has_schema = answer["schema_name"] != "";
        let kept = kept.iter().chain(with_schema.iter().filter(|_| has_schema));
        Ok(kept
            .map(|key| ((*key).to_owned(), answer[*key].clone()))
            .collect::<Map<_, _>>()
            .into())
    }

    async fn message_details(&self) -> Outcome {
        let fields = &self.fields;
        if fields.flag("is_dls")? == Some(true) {
            let id = fields.number("message_id")?;
            return self
                .dead_letter(id.ok_or_else(|| Refusal::field("message_id", "required"))?)
                .await;
        }
        let station = fields.needed("station_name")?;
        let sequence = fields.number("message_seq")?;
        let sequence = sequence.ok_or_else(|| Refusal::field("message_seq", "required"))?;
        let body = json!({
            "station": station,
            "partition": partition(fields.number("partition_number")?),
            "sequence": sequence,
        });
        let message = self.ask("MESSAGE.GET", body).await?;
        let producer = message["headers"]["$memphis_producedBy"].as_str();
        let connection = message["headers"]["$memphis_connectionId"].as_str();
        let producers = self
            .ask("PRODUCER.LIST", json!({"station": station}))
            .await?;
        let mut known = producers["producers"].as_array().into_iter().flatten();
        let is_active = known
            .any(|one| one["connection_id"].as_str() == connection && one["is_active"] == true);
        Ok(json!({
            "message_seq": sequence,
            "producer": {"name": producer.unwrap_or_default(), "is_active": is_active},
            "poisoned_cgs": [],
            "message": {
                "time_sent": message["time"],
                "size": message["size"],
                "data": hex(&message["payload"]),
                "headers": shown_headers(&message["headers"]),
            },
        }))
    }

    /// A dead letter with the group that failed it.
    async fn dead_letter(&self, id: i64) -> Outcome {
        let letter = self.ask("DEAD_LETTER.GET", json!({"id": id})).await?;
        let mut groups = Vec::new();
        if let Some(group) = letter["group"].as_str() {
            let body = json!({"station": letter["station"], "group": group});
            match self.ask("GROUP.INFO", body).await {
                Ok(group) => groups.push(failed_group(&group)),
                // It was removed since.
                Err(Refusal { status: 406, .. }) => {
                    groups.push(json!({"cg_name": group, "is_active": false, "is_deleted": true}));
                }
                Err(other) => return Err(other),
            }
        }
        let kind = if letter["kind"] == "schema" {
            "schema"
        } else {
            "poison"
        };
        Ok(json!({
            "id": id,
            "station_name": letter["station"],
            "schema_type": "",
            "message_seq": letter["sequence"].as_u64().unwrap_or(0),
            "producer": {"name": letter["producer"], "is_active": false},
            "poisoned_cgs": groups,
            "message": message_of(&letter),
            "updated_at": letter["time_failed"],
            "validation_error": if kind == "schema" { letter["reason"].clone() } else { "".into() },
            "function_name": "",
        }))
    }

    async fn drop_dead_letters(&self) -> Outcome {
        let kind = self.fields.text("dls_type")?;
        if kind == "functions" {
            return Err(Refusal::shown("there are no functions"));
        }
        let ids = self.fields.list("dls_message_ids")?;
        if ids.is_empty() {
            return Err(Refusal::field("dls_message_ids", "required"));
        }
        let body = json!({
            "station": self.fields.needed("station_name")?,
            "ids": ids,
            "kind": kind,
        });
        self.ask("DEAD_LETTER.DROP", body).await?;
        Ok(json!({}))
    }

    async fn purge(&self) -> Outcome {
        let station = self.fields.needed("station_name")?;
        let messages = self.fields.flag("purge_station")?.unwrap_or(false);
        let dead_letters = self.fields.flag("purge_dls")?.unwrap_or(false);
        let named = self.fields.list("partitions_list")?.iter();
        let partitions: Vec<i64> = named
            .filter_map(Value::as_i64)
            .filter(|one| *one > 0)
            .collect();
        if !messages || partitions.is_empty() {
            let body =
                json!({"station": station, "messages": messages, "dead_letters": dead_letters});
            self.ask("STATION.PURGE", body).await?;
            return Ok(json!({}));
        }
        for (index, partition) in partitions.into_iter().enumerate() {
            let dead_letters = dead_letters && index == 0;
            let body =
                json!({"station": station, "partition": partition, "dead_letters": dead_letters});
            self.ask("STATION.PURGE", body).await?;
        }
        Ok(json!({}))
    }

    async fn produce(&self) -> Outcome {
        let fields = &self.fields;
        let place = Place::new(
            self.management,
            self.session,
            &fields.needed("station_name")?,
        )?;
        let payload = fields.text("message_payload")?;
        let amount = fields.number("amount")?.unwrap_or(1);
        if !(1..=MAX_AMOUNT).contains(&amount) {
            return Err(Refusal::field("amount", "1 to 1000"));
        }
        let wanted = fields.number("partition_number")?;
        let wanted = wanted
            .and_then(|number| u64::try_from(number).ok())
            .filter(|n| *n > 0);
        let mut headers = Vec::new();
        for (name, value) in fields.object("message_headers").0 {
            let value = value.as_str().map(str::to_owned);
            let value = value.ok_or_else(|| Refusal::field("message_headers", "strings"))?;
            headers.push((name, value));
        }
        for _ in 0..amount {
            place.store(wanted, &headers, payload.as_bytes()).await?;
        }
        Ok(json!({}))
    }

    async fn use_schema(&self) -> Outcome {
        let schema = self.fields.needed("schema_name")?;
        for station in self.fields.texts("station_names")? {
            let body = json!({"station": station, "name": schema});
            self.ask("SCHEMA.ATTACH", body).await?;
        }
        let info = self.ask("SCHEMA.INFO", json!({"name": schema})).await?;
        Ok(json!({
            "name": info["name"],
            "schema_type": info["type"],
            "version_number": info["active"],
            "updates_available": false,
        }))
    }

    async fn set_dead_letter_station(&self, target: &str) -> Outcome {
        for station in self.fields.texts("station_names")? {
            let body = json!({"station": station, "dls_station": target});
            self.ask("STATION.UPDATE", body).await?;
        }
        Ok(json!({}))
    }

    /// Routes about producers and consumers that the old command line tool calls.
    pub(super) async fn clients(
        &self,
        method: &str,
        family: &str,
        route: &str,
    ) -> Result<Option<Value>, Refusal> {
        let stations = match (method, family, route) {
            ("GET", "producers", "getAllProducers") | ("GET", "consumers", "getAllConsumers") => {
                self.every_station().await?
            }
            ("GET", "producers", "getAllProducersByStation")
            | ("GET", "consumers", "getAllConsumersByStation") => vec![self.station().await?],
            _ => return Ok(None),
        };
        let mut connected = Vec::new();
        let mut disconnected = Vec::new();
        for station in stations.iter().filter(|one| one["is_native"] != false) {
            let body = json!({"station": station["name"]});
            let clients: Vec<Value> = if family == "producers" {
                let list = self.ask("PRODUCER.LIST", body).await?;
                let found = list["producers"].as_array().into_iter().flatten();
                found.map(|one| producer(one, station)).collect()
            } else {
                let list = self.ask("GROUP.LIST", body).await?;
                let groups = list["groups"].as_array().into_iter().flatten();
                groups
                    .flat_map(|group| {
                        let members = group["members"].as_array().into_iter().flatten();
                        members.map(|member| consumer(member, group, station))
                    })
                    .collect()
            };
            for client in clients {
                if client["is_active"] == true {
                    connected.push(client);
                } else {
                    disconnected.push(client);
                }
            }
        }
        let all: Vec<&Value> = connected.iter().chain(&disconnected).collect();
        Ok(Some(if route.ends_with("ByStation") {
            let names =
                ["connected", "disconnected", "deleted"].map(|word| format!("{word}_{family}"));
            let [first, second, third] = names;
            json!({first: connected, second: disconnected, third: []})
        } else {
            json!(all)
        }))
    }
}

/// A partition as Memphis numbers them; stations without partitions have one here.
fn partition(number: Option<i64>) -> i64 {
    number.filter(|number| *number > 0).unwrap_or(1)
}

/// A producer of a station.
pub(super) fn producer(one: &Value, station: &Value) -> Value {
    let is_active = one["is_active"] == true;
    json!({
        "id": number_of(&format!("{}{}", one["name"], one["connection_id"])),
        "name": one["name"],
        "type": one["type"],
        "connection_id": one["connection_id"],
        "created_by_username": one["user"],
        "created_at": one["registered"],
        "updated_at": one["registered"],
        "station_name": station["name"],
        "is_active": is_active,
        "is_deleted": false,
        "connected_producers_count": u8::from(is_active),
        "disconnected_producers_count": u8::from(!is_active),
        "sdk_language": one["sdk"],
        "update_available": false,
    })
}

/// A member of a group.
pub(super) fn consumer(member: &Value, group: &Value, station: &Value) -> Value {
    json!({
        "id": number_of(&format!("{}{}", member["name"], member["connection_id"])),
        "name": member["name"],
        "updated_at": member["joined"],
        "created_at": member["joined"],
        "created_by_username": member["user"],
        "is_active": member["is_active"],
        "is_deleted": false,
        "consumers_group": group["group"],
        "max_ack_time_ms": group["max_ack_time_ms"],
        "max_msg_deliveries": group["max_msg_deliveries"],
        "station_name": station["name"],
        "partitions_list": partitions(station),
        "count": 1,
        "sdk_language": member["sdk"],
        "update_available": false,
    })
}

fn failed_group(group: &Value) -> Value {
    let members: Vec<Value> = group["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|member| {
            json!({
                "name": member["name"],
                // Written so.
                "Connection_id": member["connection_id"],
                "is_active": member["is_active"],
                "max_msg_deliveries": group["max_msg_deliveries"],
                "max_ack_time_ms": group["max_ack_time_ms"],
                "partitions_list": [],
                "count": 1,
            })
        })
        .collect();
    let is_active = members.iter().any(|member| member["is_active"] == true);
    json!({
        "cg_name": group["group"],
        "unprocessed_messages": group["lag"],
        "max_ack_time_ms": group["max_ack_time_ms"],
        "in_process_messages": group["in_process"],
        "total_poison_messages": 0,
        "max_msg_deliveries": group["max_msg_deliveries"],
        "cg_members": members,
        "is_active": is_active,
        "is_deleted": false,
    })
}

/// The message in a dead letter.
pub(super) fn message_of(letter: &Value) -> Value {
    json!({
        "time_sent": letter["time_sent"],
        "size": letter["size"],
        "data": hex(&letter["payload"]),
        "headers": shown_headers(&letter["headers"]),
    })
}

fn retention(station: &Value) -> (Value, Value) {
    let kind = station["retention"]["type"].as_str();
    let kind = kind.unwrap_or("message_age_sec");
    let value = station["retention"]["value"].as_i64().unwrap_or(0);
    (kind.into(), value.into())
}

fn partitions(station: &Value) -> Vec<u64> {
    (1..=station["partitions"].as_u64().unwrap_or(0)).collect()
}

pub(super) fn is_active(station: &Value) -> bool {
    let members = station["groups"].as_array().into_iter().flatten();
    let members: u64 = members.filter_map(|group| group["members"].as_u64()).sum();
    members + station["producers"].as_u64().unwrap_or(0) > 0
}

/// A station as `getStation` has it.
fn shown(station: &Value) -> Value {
    let inner = inner(station);
    let mut shown = inner.clone();
    if let Some(fields) = shown.as_object_mut() {
        for extra in [
            "updated_at",
            "schema_name",
            "schema_vesrion_number",
            "dls_configuration_poison",
            "dls_configuration_schemaverse",
            "tenant_name",
            "version",
        ] {
            fields.remove(extra);
        }
    }
    shown["last_update"] = inner["updated_at"].clone();
    shown["tags"] = json!([]);
    shown["dls_configuration"] = json!({
        "poison": inner["dls_configuration_poison"],
        "schemaverse": inner["dls_configuration_schemaverse"],
    });
    shown["partitions_number"] = station["partitions"].clone();
    shown
}

/// A station inside of lists. Streams that NATS clients made are "not native".
pub(super) fn inner(station: &Value) -> Value {
    let name = station["name"].as_str().unwrap_or_default();
    let (retention_type, retention_value) = retention(station);
    let letters = &station["dead_letters"];
    json!({
        "id": number_of(name),
        "name": name,
        "retention_type": retention_type,
        "retention_value": retention_value,
        "storage_type": station["storage"].as_str().unwrap_or("file"),
        "replicas": station["replicas"].as_i64().unwrap_or(1),
        "created_by": number_of(station["created_by"].as_str().unwrap_or_default()),
        "created_by_username": station["created_by"].as_str().unwrap_or_default(),
        "created_at": station["created"],
        "updated_at": station["created"],
        "is_deleted": false,
        "schema_name": station["schema"]["name"].as_str().unwrap_or_default(),
        "schema_vesrion_number": 0,
        "idempotency_window_in_ms": station["idempotency_window_ms"].as_i64().unwrap_or(0),
        "is_native": station["is_native"] != false,
        "dls_configuration_poison": letters["poison"] == true,
        "dls_configuration_schemaverse": letters["schemaverse"] == true,
        "tiered_storage_enabled": station["tiered_storage"] == true,
        "tenant_name": "$memphis",
        "resend_disabled": false,
        "partitions_list": partitions(station),
        "version": 2,
        "dls_station": station["dead_letter_station"].as_str().unwrap_or_default(),
        "functions_lock_held": false,
        "functions_locked_at": "0001-01-01T00:00:00Z",
    })
}

/// A station with what it holds.
pub(super) fn with_totals(station: &Value) -> Value {
    let mut shown = inner(station);
    shown["total_messages"] = station["figures"]["messages"].as_u64().unwrap_or(0).into();
    shown["tags"] = json!([]);
    shown["has_dls_messages"] = (station["figures"]["has_dead_letters"] == true).into();
    shown["activity"] = is_active(station).into();
    shown
}

/// The first bytes of a payload, as lists show it.
pub(super) fn preview(payload: &Value) -> String {
    let text = payload.as_str().unwrap_or_default();
    let bytes = BASE64.decode(text.as_bytes()).unwrap_or_default();
    data_encoding::HEXLOWER.encode(&bytes[..bytes.len().min(40)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_shown_in_the_words_of_memphis() {
        let station = json!({
            "name": "a.b", "retention": {"type": "messages", "value": 5}, "storage": "memory",
            "replicas": 1, "partitions": 2, "created": "t", "created_by": "root",
            "dead_letters": {"poison": true, "schemaverse": false},
            "figures": {"messages": 7, "has_dead_letters": true}, "groups": [{"members": 1}],
        });
        let shown = shown(&station);
        assert_eq!(
            shown["dls_configuration"],
            json!({"poison": true, "schemaverse": false})
        );
        assert_eq!(shown["partitions_list"], json!([1, 2]));
        assert!(shown.get("schema_vesrion_number").is_none());
        let total = with_totals(&station);
        assert_eq!(
            (&total["total_messages"], &total["activity"]),
            (&json!(7), &json!(true))
        );
        assert_eq!(
            inner(&json!({"name": "s", "is_native": false}))["is_native"],
            false
        );
    }

    #[test]
    fn numbers_of_partitions_begin_at_one() {
        assert_eq!(
            [None, Some(-1), Some(0), Some(3)].map(partition),
            [1, 1, 1, 3]
        );
        assert_eq!(preview(&json!("AAEC")), "000102");
    }
}
