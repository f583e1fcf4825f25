//! `/api/schemas/…`.

use data_encoding::HEXLOWER;
use rand::Rng;
use serde_json::{Value, json};

use super::{Call, Outcome, Refusal, number_of};

/// Longest name of a schema.
const MAX_NAME: usize = 32;

impl Call<'_> {
    pub(super) async fn schemas(
        &self,
        method: &str,
        route: &str,
    ) -> Result<Option<Value>, Refusal> {
        Ok(Some(match (method, route) {
            ("POST", "createNewSchema") => self.create_schema().await?,
            ("GET", "getAllSchemas") => self.all_schemas().await?,
            ("GET", "getSchemaDetails") => {
                let name = self.fields.needed("schema_name")?;
                self.schema_details(&name).await?
            }
            ("POST", "createNewVersion") => {
                let name = self.fields.needed("schema_name")?;
                let known = self.ask("SCHEMA.INFO", json!({"name": name})).await?;
                self.add_version(&name, &known["type"], false).await?;
                self.schema_details(&name).await?
            }
            ("PUT", "rollBackVersion") => {
                let name = self.fields.needed("schema_name")?;
                let version = self.fields.number("version_number")?;
                let version =
                    version.ok_or_else(|| Refusal::field("version_number", "required"))?;
                let body = json!({"name": name, "version": version});
                self.ask("SCHEMA.ACTIVATE", body).await?;
                self.schema_details(&name).await?
            }
            ("POST", "validateSchema") => {
                let kind = self.fields.needed("schema_type")?;
                // A name that nobody has; nothing comes of it.
                let name = format!(
                    "check-{}",
                    HEXLOWER.encode(&rand::rng().random::<[u8; 8]>())
                );
                self.add_version(&name, &kind.into(), true).await?;
                json!({"is_valid": true})
            }
            ("DELETE", "removeSchema") => {
                for name in self.fields.texts("schema_names")? {
                    self.ask("SCHEMA.DELETE", json!({"name": name})).await?;
                }
                json!({})
            }
            _ => return Ok(None),
        }))
    }

    /// A definition that is wrong has a status of its own.
    async fn add_version(&self, name: &str, kind: &Value, dry_run: bool) -> Result<Value, Refusal> {
        let body = json!({
            "name": name,
            "type": kind,
            "content": self.fields.needed("schema_content")?,
            "message": self.fields.text("message_struct_name")?,
            "dry_run": dry_run,
        });
        let made = self.ask("SCHEMA.CREATE", body).await;
        made.map_err(|refusal| match refusal.message.as_str() {
            Some(text)
                if refusal.status == 406
                    && !text.contains("already exist")
                    && !text.contains("not allowed")
                    && !text.contains("unsupported schema type") =>
            {
                Refusal::new(555, text)
            }
            _ => refusal,
        })
    }

    async fn create_schema(&self) -> Outcome {
        let name = self.fields.needed("name")?.to_lowercase();
        if name.chars().count() > MAX_NAME {
            return Err(Refusal::shown(format!(
                "the name of a schema has at most {MAX_NAME} characters"
            )));
        }
        if self.ask("SCHEMA.INFO", json!({"name": name})).await.is_ok() {
            return Err(Refusal::shown(format!("Schema {name} already exists")));
        }
        let kind = Value::from(self.fields.needed("type")?);
        self.add_version(&name, &kind, false).await?;
        Ok(json!({
            "id": number_of(&name),
            "name": name,
            "type": kind,
            "created_by_username": self.session.user,
            "tenant_name": "$memphis",
        }))
    }

    async fn all_schemas(&self) -> Outcome {
        let list = self.ask("SCHEMA.LIST", json!({})).await?;
        let mut shown = Vec::new();
        for schema in list["schemas"].as_array().into_iter().flatten() {
            let info = self
                .ask("SCHEMA.INFO", json!({"name": schema["name"]}))
                .await?;
            let first = &info["versions"][0];
            let name = schema["name"].as_str().unwrap_or_default();
            let creator = first["created_by"].as_str().unwrap_or_default();
            let used = schema["stations"].as_array();
            shown.push(json!({
                "id": number_of(name),
                "name": name,
                "type": schema["type"],
                "created_by": number_of(creator),
                "created_by_username": creator,
                "created_at": first["created"],
                "active_version_number": schema["active"],
                "used": used.is_some_and(|stations| !stations.is_empty()),
                "tags": [],
            }));
        }
        Ok(shown.into())
    }

    pub(super) async fn schema_details(&self, name: &str) -> Outcome {
        let info = self.ask("SCHEMA.INFO", json!({"name": name})).await?;
        let id = number_of(info["name"].as_str().unwrap_or_default());
        let versions: Vec<Value> = info["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|version| {
                let creator = version["created_by"].as_str().unwrap_or_default();
                json!({
                    "id": number_of(&format!("{name} {}", version["number"])),
                    "version_number": version["number"],
                    "active": version["number"] == info["active"],
                    "created_by": number_of(creator),
                    "created_by_username": creator,
                    "created_at": version["created"],
                    "schema_content": version["content"],
                    "schema_id": id,
                    "message_struct_name": version["message"].as_str().unwrap_or_default(),
                    "descriptor": version["descriptor"].as_str().unwrap_or_default(),
                    "tenant_name": "$memphis",
                })
            })
            .collect();
        let creator = versions
            .first()
            .map(|first| first["created_by_username"].clone());
        Ok(json!({
            "id": id,
            "schema_name": info["name"],
            "type": info["type"],
            "versions": versions,
            "used_stations": info["stations"],
            "tags": [],
            "created_by_username": creator,
        }))
    }
}
