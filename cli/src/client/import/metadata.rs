//! What Memphis keeps in Postgres. It is read in one transaction that cannot write.
//!
//! Every row is read as the JSON that Postgres makes of it, so that tables of older and newer
//! versions, with fewer and more columns, are understood alike.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::{Outcome, Trouble};
use super::postgres::Postgres;

/// Rows of a table that are read at most.
const MAX_ROWS: usize = 2_000_000;
/// Tables that are read.
const TABLES: &[&str] = &[
    "stations",
    "consumers",
    "schemas",
    "schema_versions",
    "users",
    "roles",
    "permissions",
    "dls_messages",
    "configurations",
];

/// A station.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StationRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) retention_type: String,
    pub(super) retention_value: i64,
    pub(super) storage_type: String,
    pub(super) replicas: i64,
    pub(super) is_deleted: bool,
    pub(super) schema_name: String,
    pub(super) schema_version_number: i64,
    pub(super) idempotency_window_ms: i64,
    #[serde(default = "yes")]
    pub(super) is_native: bool,
    pub(super) dls_configuration_poison: bool,
    pub(super) dls_configuration_schemaverse: bool,
    pub(super) tiered_storage_enabled: bool,
    pub(super) partitions: Vec<i64>,
    pub(super) version: i64,
    pub(super) dls_station: String,
}

fn yes() -> bool {
    true
}

/// A member of a group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConsumerRow {
    pub(super) station_id: i64,
    pub(super) consumers_group: String,
    pub(super) max_ack_time_ms: i64,
    pub(super) max_msg_deliveries: i64,
    pub(super) start_consume_from_seq: i64,
    pub(super) last_msgs: i64,
    pub(super) updated_at: String,
}

/// A schema.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SchemaRow {
    pub(super) id: i64,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// A version of a schema.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VersionRow {
    pub(super) schema_id: i64,
    pub(super) version_number: i64,
    pub(super) active: bool,
    pub(super) schema_content: String,
    pub(super) msg_struct_name: String,
}

/// A user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct UserRow {
    pub(super) username: String,
    pub(super) password: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) roles: Vec<i64>,
}

/// What a role may do, or may not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PermissionRow {
    pub(super) role_id: i64,
    pub(super) pattern: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) restriction_type: String,
}

/// A dead letter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LetterRow {
    pub(super) id: i64,
    pub(super) station_id: i64,
    pub(super) message_seq: i64,
    pub(super) poisoned_cgs: Vec<String>,
    pub(super) message_details: Details,
    pub(super) updated_at: String,
    pub(super) message_type: String,
    pub(super) validation_error: String,
    pub(super) partition_number: i64,
}

/// The message of a dead letter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Details {
    pub(super) time_sent: String,
    /// In hex.
    pub(super) data: String,
    pub(super) headers: BTreeMap<String, String>,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub(super) stations: Vec<StationRow>,
    pub(super) consumers: Vec<ConsumerRow>,
    pub(super) schemas: Vec<SchemaRow>,
    pub(super) versions: Vec<VersionRow>,
    pub(super) users: Vec<UserRow>,
    pub(super) permissions: Vec<PermissionRow>,
    pub(super) letters: Vec<LetterRow>,
    /// Hours that dead letters are kept.
    pub(super) dead_letter_hours: Option<i64>,
    /// Rows of tables that are not taken over, by table.
    pub(super) others: BTreeMap<String, u64>,
    /// Tenants there are, with their stations.
    pub(super) tenants: BTreeMap<String, u64>,
    /// Rows that could not be understood, for people.
    pub(super) odd: Vec<String>,
}

/// Reads what belongs to these tenants.
pub(super) async fn read(url: &str, tenants: &[&str]) -> Outcome<Metadata> {
    let mut postgres = Postgres::connect(url).await?;
    postgres
        .query(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            |_| Ok(()),
        )
        .await?;
    let mut tables = Vec::new();
    let sql = "SELECT table_name::text FROM information_schema.tables \
               WHERE table_schema = 'public' ORDER BY 1";
    postgres
        .query(sql, |name| {
            tables.push(name.to_owned());
            Ok(())
        })
        .await?;
    if !tables.iter().any(|table| table == "stations") {
        let text = "the database has no table stations: it is none of Memphis";
        return Err(Trouble::NotFound(text.to_owned()));
    }
    let mut found: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut metadata = Metadata::default();
    for table in &tables {
        match TABLES.iter().find(|known| *known == table) {
            Some(known) => {
                let rows = rows_of(&mut postgres, known, &mut metadata, tenants).await?;
                found.insert(known, rows);
            }
            None => {
                let quoted = table.replace('"', "\"\"");
                let sql = format!("SELECT count(*)::text FROM \"{quoted}\"");
                let mut count = 0;
                postgres
                    .query(&sql, |text| {
                        count = text.parse().unwrap_or(0);
                        Ok(())
                    })
                    .await?;
                if count > 0 {
                    metadata.others.insert(table.clone(), count);
                }
            }
        }
    }
    postgres.close().await;
    let mut take = |table: &str| found.remove(table).unwrap_or_default();
    let odd = &mut metadata.odd;
    metadata.stations = understood("stations", take("stations"), odd);
    metadata.consumers = understood("consumers", take("consumers"), odd);
    metadata.schemas = understood("schemas", take("schemas"), odd);
    metadata.versions = understood("schema_versions", take("schema_versions"), odd);
    metadata.users = understood("users", take("users"), odd);
    metadata.permissions = understood("permissions", take("permissions"), odd);
    metadata.letters = understood("dls_messages", take("dls_messages"), odd);
    for row in take("configurations") {
        if row["key"] == "dls_retention" {
            let hours = row["value"].as_str().and_then(|text| text.parse().ok());
            metadata.dead_letter_hours = hours;
        }
    }
    Ok(metadata)
}

/// The rows of a table that belong to the tenants.
async fn rows_of(
    postgres: &mut Postgres,
    table: &str,
    metadata: &mut Metadata,
    tenants: &[&str],
) -> Outcome<Vec<Value>> {
    let sql = format!("SELECT to_json(row)::text FROM \"{table}\" AS row");
    let mut rows = Vec::new();
    postgres
        .query(&sql, |text| {
            let Ok(Value::Object(mut row)) = serde_json::from_str::<Value>(text) else {
                metadata.odd.push(format!("{table}: a row is no JSON"));
                return Ok(());
            };
            // What is not there is as what is nothing.
            row.retain(|_, value| !value.is_null());
            let tenant = row.get("tenant_name").and_then(Value::as_str);
            if table == "stations" {
                let name = tenant.unwrap_or("$memphis").to_owned();
                *metadata.tenants.entry(name).or_default() += 1;
            }
            if tenant.is_some_and(|tenant| !tenants.contains(&tenant)) {
                return Ok(());
            }
            if rows.len() == MAX_ROWS {
                return Err(format!("{table} has more than {MAX_ROWS} rows"));
            }
            rows.push(Value::Object(row));
            Ok(())
        })
        .await?;
    Ok(rows)
}

fn understood<T: DeserializeOwned>(table: &str, rows: Vec<Value>, odd: &mut Vec<String>) -> Vec<T> {
    let mut understood = Vec::new();
    for mut row in rows {
        if let Some(details) = row.get_mut("message_details") {
            // Kept as text by some versions.
            if let Some(text) = details.as_str() {
                *details = serde_json::from_str(text).unwrap_or_default();
            }
            without_nulls(details);
        }
        let id = row["id"].clone();
        match serde_json::from_value(row) {
            Ok(row) => understood.push(row),
            Err(error) => odd.push(format!("{table} {id}: {error}")),
        }
    }
    understood
}

fn without_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        let kept = std::mem::take(fields).into_iter();
        *fields = kept
            .filter(|(_, value)| !value.is_null())
            .collect::<Map<_, _>>();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_of_older_and_newer_versions_are_understood() {
        let mut odd = Vec::new();
        let rows = vec![
            json!({"id": 1, "name": "old", "retention_type": "messages", "retention_value": 7}),
            json!({"id": 2, "name": "new", "partitions": [1, 2], "version": 2, "unheard_of": {}}),
            json!({"id": 3, "name": 7}),
        ];
        let stations: Vec<StationRow> = understood("stations", rows, &mut odd);
        assert_eq!(stations.len(), 2);
        assert!(stations[0].is_native && stations[0].partitions.is_empty());
        assert_eq!(stations[1].partitions, [1, 2]);
        assert_eq!(odd.len(), 1);
        assert!(odd[0].starts_with("stations 3: "), "{odd:?}");
    }

    #[test]
    fn the_message_of_a_dead_letter_may_lack_anything() {
        let mut odd = Vec::new();
        let rows = vec![json!({"id": 1, "message_details": {"data": "00", "headers": null}})];
        let letters: Vec<LetterRow> = understood("dls_messages", rows, &mut odd);
        assert_eq!(letters[0].message_details.data, "00");
        assert!(odd.is_empty());
    }
}
