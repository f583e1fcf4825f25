//! `/api/usermgmt/…` behind the login.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::ask;
use super::{Call, Outcome, Refusal, number_of};

/// Users of one page of the broker's list.
const PAGE: u64 = 500;
/// What is noted of a user and passed on as it is.
const NOTES: [&str; 6] = [
    "full_name",
    "team",
    "position",
    "owner",
    "description",
    "avatar_id",
];
const LISTS: [&str; 4] = ["allow_read", "allow_write", "deny_read", "deny_write"];

impl Call<'_> {
    pub(super) async fn users(&self, method: &str, route: &str) -> Result<Option<Value>, Refusal> {
        Ok(Some(match (method, route) {
            ("POST", "addUser") => self.add_user().await?,
            ("GET", "getAllUsers") => {
                let users = self.every_user().await?;
                let (applications, managers): (Vec<&Value>, Vec<&Value>) =
                    users.iter().partition(|user| user["type"] == "application");
                let managers: Vec<Value> = managers.into_iter().map(manager).collect();
                let applications: Vec<Value> = applications.into_iter().map(application).collect();
                json!({"application_users": applications, "management_users": managers})
            }
            ("GET", "getApplicationUsers") => {
                let users = self.every_user().await?;
                let users = users.iter().filter(|user| user["type"] == "application");
                let shown = users.map(|user| {
                    json!({
                        "id": number_of(user["name"].as_str().unwrap_or_default()),
                        "username": user["name"],
                        "created_at": user["created"],
                    })
                });
                shown.collect()
            }
            ("DELETE", "removeUser") => {
                let name = self.fields.needed("username")?.to_lowercase();
                if name == menes_stations::user::display_name(&self.session.user) {
                    return Err(Refusal::shown("nobody removes themselves"));
                }
                self.ask("USER.DELETE", json!({"user": name})).await?;
                json!({})
            }
            ("DELETE", "removeMyUser") => {
                return Err(Refusal::shown(
                    "this would remove everything: remove stations and users one by one",
                ));
            }
            ("PUT", "changePassword") => {
                let body = json!({
                    "user": self.fields.needed("username")?.to_lowercase(),
                    "password": self.fields.needed("password")?,
                });
                self.ask("USER.PASSWORD", body).await?;
                json!({})
            }
            ("PUT", "editAvatar") => {
                let avatar = self.fields.number("avatar_id")?.unwrap_or(1);
                let name = menes_stations::user::display_name(&self.session.user);
                let body = json!({"user": name, "avatar_id": avatar});
                let user = self.ask("USER.UPDATE", body).await?;
                let shown = manager(&user);
                json!({
                    "id": shown["id"],
                    "username": shown["username"],
                    "user_type": shown["user_type"],
                    "created_at": shown["created_at"],
                    "already_logged_in": true,
                    "avatar_id": shown["avatar_id"],
                })
            }
            // Nothing is sent to anyone, and nothing has to be skipped.
            ("PUT", "editAnalytics")
            | ("POST", "doneNextSteps" | "skipGetStarted" | "sendTrace") => {
                json!({})
            }
            ("GET", "getFilterDetails") => self.filter_details().await?,
            ("GET", "getCompanyLogo") => json!({"image": ""}),
            ("DELETE", "removeCompanyLogo") => json!({}),
            ("PUT", "editCompanyLogo") => {
                return Err(Refusal::shown("there are no logos here, and none is kept"));
            }
            _ => return Ok(None),
        }))
    }

    /// Who is logged in, as far as the broker knows; `None` for whoever may not ask it anything, as
    /// applications may not.
    pub(super) async fn whoever(&self) -> Option<Value> {
        let asked = ask::broker(self.management, self.session, "USER.SELF", json!({})).await;
        match asked {
            Ok(user) if user["type"] == "application" => None,
            Ok(user) => Some(user),
            Err(problem) if problem.status == StatusCode::FORBIDDEN => None,
            // Users of the configuration of a server without stations are not known to it.
            Err(_) => Some(Value::Null),
        }
    }

    async fn every_user(&self) -> Result<Vec<Value>, Refusal> {
        let mut users = Vec::new();
        let mut after = Value::from("");
        loop {
            let body = json!({"limit": PAGE, "after": after});
            let mut page = self.ask("USER.LIST", body).await?;
            if let Value::Array(found) = page["users"].take() {
                users.extend(found);
            }
            after = page["next"].take();
            if after.is_null() {
                return Ok(users);
            }
        }
    }

    pub(super) async fn count_users(&self) -> Result<usize, Refusal> {
        Ok(self.every_user().await?.len())
    }

    async fn add_user(&self) -> Outcome {
        let fields = &self.fields;
        let kind = fields.needed("user_type")?;
        let mut body = Map::new();
        let name = fields.needed("username")?.to_lowercase();
        body.insert("user".to_owned(), name.into());
        body.insert("type".to_owned(), kind.into());
        body.insert("password".to_owned(), fields.text("password")?.into());
        for note in NOTES {
            if let Some(value) = fields.0.get(note) {
                body.insert(note.to_owned(), value.clone());
            }
        }
        let mut permissions = Map::new();
        for list in LISTS {
            let given = fields.texts(&format!("{list}_permissions"))?;
            if !given.is_empty() {
                permissions.insert(list.to_owned(), given.into());
            }
        }
        if !permissions.is_empty() {
            body.insert("permissions".to_owned(), permissions.into());
        }
        let user = self.ask("USER.CREATE", body.into()).await?;
        let mut shown = application(&user);
        shown["already_logged_in"] = false.into();
        // A password is not shown, not even the one just given.
        shown["broker_connection_creds"] = "".into();
        Ok(shown)
    }

    async fn filter_details(&self) -> Outcome {
        let users = self.every_user().await?;
        let names: Vec<&Value> = users.iter().map(|user| &user["name"]).collect();
        Ok(match self.fields.text("route")?.as_str() {
            "stations" => json!({"tags": [], "users": names, "storage": ["memory", "disk"]}),
            "schemaverse" => json!({
                "tags": [], "users": names, "type": ["protobuf", "json", "graphql", "avro"],
                "usage": ["used", "not used"],
            }),
            // Logs are not kept here.
            "syslogs" => json!({"type": [], "source": []}),
            _ => {
                let text = "route can be stations, schemaverse or syslogs";
                return Err(Refusal::shown(text));
            }
        })
    }
}

/// A user as lists of those who manage show it.
fn manager(user: &Value) -> Value {
    let name = user["name"].as_str().unwrap_or_default();
    let text = |key: &str| user[key].as_str().unwrap_or_default().to_owned();
    json!({
        "id": number_of(name),
        "username": name,
        "user_type": user["type"],
        "created_at": user["created"],
        "avatar_id": user["avatar_id"].as_i64().unwrap_or(1),
        "full_name": text("full_name"),
        "pending": false,
        "position": text("position"),
        "team": text("team"),
        "owner": text("owner"),
        "description": text("description"),
        "last_login": null,
        "role_id": null,
    })
}

/// A user as lists of applications show it.
fn application(user: &Value) -> Value {
    let mut shown = manager(user);
    if let Some(fields) = shown.as_object_mut() {
        for extra in ["last_login", "role_id"] {
            fields.remove(extra);
        }
    }
    let permissions: Map<String, Value> = LISTS
        .iter()
        .map(|list| {
            let given = user["permissions"][*list].as_array().cloned();
            (
                format!("{list}_permissions"),
                given.unwrap_or_default().into(),
            )
        })
        .collect();
    shown["permissions"] = permissions.into();
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_shown_with_what_they_may() {
        let user =
            json!({"name": "a", "type": "application", "permissions": {"deny_read": ["x.*"]}});
        let shown = application(&user);
        assert_eq!(
            shown["permissions"]["deny_read_permissions"],
            json!(["x.*"])
        );
        assert_eq!(shown["permissions"]["allow_write_permissions"], json!([]));
        assert!(shown.get("role_id").is_none() && manager(&user).get("permissions").is_none());
    }
}
