//! What Memphis clients cannot ask for: the broker's own requests about stations, groups, dead
//! letters and schemas, for management and for the REST gateway.
//!
//! A request is a message on a subject below [`PREFIX`] with a JSON object as its body; keys match
//! in any case. Its answer is a JSON object, with `error` holding `description` if it is refused.
//!
//! | Subject | Body | Answer |
//! |---|---|---|
//! | `STATUS` | | how much there is of everything |
//! | `STATION.LIST` | maybe `limit`, `after`, `search`, `figures` | `stations`, `total`, `next` |
//! | `STATION.INFO` | `station`, maybe `figures` | the station with its groups |
//! | `STATION.CREATE` | `station`, and any of what the SDKs send | the station |
//! | `STATION.UPDATE` | `station`, and of `retention_type` and `retention_value`, `replicas`, `partitions_number`, `dls_configuration`, `dls_station` what is to change | the station |
//! | `STATION.PURGE` | `station`, maybe `partition`, `messages` (default true), `dead_letters` | |
//! | `STATION.DELETE` | `station` | |
//! | `GROUP.LIST` | `station` | `groups` with their members, and their lag on each partition |
//! | `GROUP.INFO` | `station`, `group` | one of them |
//! | `GROUP.CREATE` | `station`, `group`, any of `max_ack_time_ms`, `max_msg_deliveries`, `start_consume_from_sequence`, `last_messages` with `first_sequences` | |
//! | `GROUP.UPDATE` | `station`, `group`, any of `max_ack_time_ms`, `max_msg_deliveries` (−1 for no end), `backoff_ms`; or `follow_members` | |
//! | `GROUP.DELETE` | `station`, `group` | |
//! | `GROUP.RESET` | `station`, `group`, one of `sequence`, `time`, `to` (`start`, `end`), maybe `partition` | `sequences` |
//! | `GROUP.PAUSE`, `GROUP.RESUME` | `station`, `group`, `seconds` | |
//! | `PRODUCER.LIST` | `station` | `producers` |
//! | `MESSAGE.LIST` | `station`, maybe `partition`, `after`, `newest_first`, `limit`, `search`, `payload_bytes` | `messages`, `next`, `position` |
//! | `MESSAGE.GET`, `MESSAGE.DELETE` | `station`, `partition`, `sequence` | the message |
//! | `DEAD_LETTER.LIST` | maybe `station` (none for all), `kind`, `group`, `search`, `after`, `limit` | `dead_letters`, `next` |
//! | `DEAD_LETTER.GET` | `id` | the dead letter |
//! | `DEAD_LETTER.RESEND` | `station`, `ids` (none for all), maybe `group`; for one of them another `payload` in base64 or `text` | `resent` |
//! | `DEAD_LETTER.EDIT` | `id`, maybe `payload` in base64 or `text` | |
//! | `DEAD_LETTER.DROP` | `station`, `ids` (none for all), maybe `kind` | `dropped` |
//! | `DEAD_LETTER.RETENTION` | `hours` | |
//! | `SCHEMA.LIST` | | `schemas` |
//! | `SCHEMA.INFO` | `name` | the schema with its versions and stations |
//! | `SCHEMA.CREATE` | `name`, `type`, `content`, maybe `message`, `activate`, `compatible` | `version` |
//! | `SCHEMA.ACTIVATE` | `name`, `version` | |
//! | `SCHEMA.DELETE` | `name` | |
//! | `SCHEMA.ATTACH` | `name`, `station`, maybe `enforce` | |
//! | `SCHEMA.DETACH` | `station` | |
//! | `USER.SELF` | | who asks |
//! | `USER.LIST` | maybe `tenant`, `type`, `after`, `limit` | `users`, those of the configuration among them, `next` |
//! | `USER.INFO` | `user`, maybe `tenant` | the user with its tokens' ids |
//! | `USER.CREATE` | `user`, `type` (`application`, `management`), `password` or `password_hash` (argon2id, bcrypt), maybe `token` (true makes one), `permissions` (`allow_read`, `allow_write`, `deny_read`, `deny_write`), `description`, `full_name`, `team`, `position`, `owner`, `avatar_id`, `tenant` | the user, and `token`, this once |
//! | `USER.UPDATE` | `user`, of `permissions` and what is noted what is to change, maybe `tenant` | the user |
//! | `USER.PASSWORD` | `user`, `password` or `password_hash`, maybe `tenant` | |
//! | `USER.DELETE` | `user`, maybe `tenant` | |
//! | `TOKEN.LIST` | `user`, maybe `tenant` | `tokens` |
//! | `TOKEN.CREATE` | `user`, maybe `description`, `tenant` | the token, this once |
//! | `TOKEN.DELETE` | `user`, `token` (its id), maybe `tenant` | |
//! | `TENANT.LIST` | | `tenants` |
//! | `TENANT.INFO` | `tenant` | the tenant |
//! | `TENANT.CREATE` | `tenant`, maybe `description` | the tenant with its `id` |
//! | `TENANT.DELETE` | `tenant` | |
//!
//! Stations, groups and schemas are shown with an `etag`; what changes one of them may name it in
//! `if_match`. With `dry_run`, a request answers what it would do (`guard`).
//!
//! Application users may not ask for any of this. Tenants, and `tenant` in other requests, are for
//! root alone.

mod dead_letter;
mod group;
mod guard;
mod message;
mod producer;
mod schema;
mod station;
mod status;
mod tenant;
mod user;

use menes_jetstream::{AccountName, Timestamp};
use serde_json::{Value, json};

use crate::lock::{Hold, LockKey, LockName};
use crate::name::{GroupName, StationName};
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::state::StationEntry;
use crate::task::{Context, Failure, Job, Message, Next, Plan, StepResult};
use crate::upkeep::{Standing, standing};
use crate::user::{PasswordHash, Role, display_name};

/// What every subject begins with.
pub const PREFIX: &str = "$MENES.API.";
/// The subjects to subscribe to.
pub const SUBJECTS: &str = "$MENES.API.>";

/// Whom permissions limit does not make others whom nothing limits.
fn may_ask(what: &str, request: &Request<'_>) -> Result<(), Refused> {
    let (family, _) = what.split_once('.').unwrap_or((what, ""));
    let is_about_users = matches!(family, "USER" | "TOKEN" | "TENANT") && what != "USER.SELF";
    if is_about_users && request.client.role < Role::Management {
        let user = display_name(request.client.user);
        return Err(Refused(format!(
            "user {user} is not allowed to manage users: it has permissions of its own"
        )));
    }
    Ok(())
}

/// Reads a request.
pub(crate) fn open(request: &Request<'_>, subject: &str) -> Opened {
    if request.client.role < Role::Limited {
        let user = display_name(request.client.user);
        let text = format!("user {user} is not allowed to use the management interface");
        return Opened::Reply(refusal(&text));
    }
    let mut is_rehearsal = false;
    let opened = match Body::parse(request.payload) {
        // A question may come without a body.
        Err(_) if request.payload.is_empty() => Ok(Body::default()),
        other => other.map_err(Refused::from),
    }
    .and_then(|body| {
        is_rehearsal = body.flag("dry_run")?;
        let what = subject.strip_prefix(PREFIX).unwrap_or(subject);
        may_ask(what, request)?;
        match what.split_once('.').unwrap_or((what, "")) {
            ("STATUS", "") => Ok(status::open()),
            ("STATION", verb) => station::open(verb, &body, request),
            ("GROUP", verb) => group::open(verb, &body, request),
            ("PRODUCER", verb) => producer::open(verb, &body, request),
            ("MESSAGE", verb) => message::open(verb, &body, request),
            ("DEAD_LETTER", verb) => dead_letter::open(verb, &body, request),
            ("SCHEMA", verb) => schema::open(verb, &body, request),
            ("USER", verb) => user::open(verb, &body, request),
            ("TOKEN", verb) => user::open_token(verb, &body, request),
            ("TENANT", verb) => tenant::open(verb, &body, request),
            _ => Err(unknown()),
        }
    });
    match opened {
        Ok(opened) if is_rehearsal => guard::rehearsed(opened),
        Ok(opened) => opened,
        Err(Refused(text)) => Opened::Reply(refusal(&text)),
    }
}

/// Makes root, unless there is one.
pub(crate) fn first_root(password: PasswordHash, now: Timestamp) -> Box<dyn Job> {
    user::first_root(password, now)
}

pub(crate) fn refusal(text: &str) -> Vec<u8> {
    json!({"error": {"description": text}})
        .to_string()
        .into_bytes()
}

fn unknown() -> Refused {
    Refused("there is no such request".to_owned())
}

/// What a request wants next.
enum Turn {
    Run(Plan),
    Done(Value),
    /// An answer that is JSON already: what is long is written without a tree of values.
    Written(Vec<u8>),
}

type Work = Box<dyn FnMut(&Context<'_>, Vec<StepResult>) -> Result<Turn, String> + Send>;

/// A request whose course is a closure: it is called with the results of its last plan.
struct Course {
    locks: Vec<(LockName, Hold)>,
    work: Work,
    results: Vec<StepResult>,
}

/// A request that holds `locks` and follows `work`.
fn course(
    locks: Vec<(LockName, Hold)>,
    work: impl FnMut(&Context<'_>, Vec<StepResult>) -> Result<Turn, String> + Send + 'static,
) -> Opened {
    Opened::job(Course::new(locks, work))
}

/// The same, about another account than that of the request.
fn course_in(
    account: AccountName,
    locks: Vec<(LockName, Hold)>,
    work: impl FnMut(&Context<'_>, Vec<StepResult>) -> Result<Turn, String> + Send + 'static,
) -> Opened {
    Opened::Job {
        job: Box::new(Course::new(locks, work)),
        registers_from: None,
        account: Some(account),
    }
}

impl Course {
    fn new(
        locks: Vec<(LockName, Hold)>,
        work: impl FnMut(&Context<'_>, Vec<StepResult>) -> Result<Turn, String> + Send + 'static,
    ) -> Self {
        Self {
            locks,
            work: Box::new(work),
            results: Vec::new(),
        }
    }
}

impl Job for Course {
    fn locks(&self, account: &AccountName, _stations: Hold) -> Vec<(LockKey, Hold)> {
        self.locks
            .iter()
            .map(|(name, hold)| {
                let account = account.clone();
                let name = name.clone();
                (LockKey { account, name }, *hold)
            })
            .collect()
    }

    fn starts_shared(&self) -> bool {
        !self.locks.iter().any(|(_, hold)| *hold == Hold::Exclusive)
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        let results = std::mem::take(&mut self.results);
        match (self.work)(cx, results) {
            Ok(Turn::Run(plan)) => Next::Run(plan),
            Ok(Turn::Done(value)) => Next::Reply(value.to_string().into_bytes()),
            Ok(Turn::Written(answer)) => Next::Reply(answer),
            Err(text) => Next::Reply(refusal(&text)),
        }
    }

    fn absorb(&mut self, results: &[StepResult]) {
        self.results = results.to_vec();
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        let text = match failure {
            Failure::Engine(error) if error.err_code == 0 => error.description.clone(),
            Failure::Engine(error) => error.to_string(),
            Failure::Record(outcome) => format!("it was changed by another request: {outcome:?}"),
        };
        Some(refusal(&text))
    }
}

/// The one lock of a request about a station.
fn station_lock(station: &StationName, hold: Hold) -> Vec<(LockName, Hold)> {
    vec![(LockName::Station(station.clone()), hold)]
}

fn station_of(body: &Body) -> Result<StationName, Refused> {
    Ok(StationName::parse(&body.text("station")?)?)
}

fn group_of(body: &Body) -> Result<GroupName, Refused> {
    Ok(GroupName::parse(&body.text("group")?)?)
}

/// The station, if clients may use it.
fn ready<'a>(cx: &Context<'a>, station: &StationName) -> Result<&'a StationEntry, String> {
    match standing(cx, station) {
        Standing::Ready(entry) => Ok(entry),
        Standing::Missing | Standing::Unfinished(_) => {
            Err(format!("station {station} does not exist"))
        }
    }
}

fn may_read(request: &Request<'_>, station: &StationName) -> Result<(), Refused> {
    if request.client.access.may_read(station) {
        Ok(())
    } else {
        Err(Refused(format!(
            "user {} is not allowed to access station {station}",
            request.client.user
        )))
    }
}

/// Who may write to a station may know what it is.
fn may_see(request: &Request<'_>, station: &StationName) -> Result<(), Refused> {
    may_write(request, station).or_else(|_| may_read(request, station))
}

fn may_write(request: &Request<'_>, station: &StationName) -> Result<(), Refused> {
    if request.client.access.may_write(station) {
        Ok(())
    } else {
        Err(Refused(format!(
            "user {} is not allowed to change station {station}",
            request.client.user
        )))
    }
}

/// The messages among results.
fn messages(results: Vec<StepResult>) -> Vec<Message> {
    results
        .into_iter()
        .flat_map(|result| match result {
            StepResult::Messages(messages) => messages,
            _ => Vec::new(),
        })
        .collect()
}

fn done() -> Turn {
    Turn::Done(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdk::ClientIdentity;
    use crate::user::Access;

    /// What is said at once, if anything is.
    fn refused(role: Role, what: &str, body: &Value) -> Option<String> {
        let payload = body.to_string();
        let subject = format!("{PREFIX}{what}");
        let request = Request {
            account: &AccountName::global(),
            subject: subject.as_bytes(),
            payload: payload.as_bytes(),
            client: ClientIdentity {
                user: "ops",
                connection_id: "c",
                lang: "rust",
                native: false,
                access: &Access::default(),
                role,
            },
            now: Timestamp(0),
        };
        match open(&request, &subject) {
            Opened::Reply(reply) => Some(String::from_utf8_lossy(&reply).into_owned()),
            Opened::Job { .. } => None,
        }
    }

    #[test]
    fn whom_permissions_limit_manages_no_users() {
        let boss = json!({"user": "eve", "type": "management", "password": "Secret-1!"});
        for (what, body) in [
            ("USER.CREATE", boss),
            ("USER.LIST", json!({})),
            ("USER.INFO", json!({"user": "root"})),
            (
                "USER.PASSWORD",
                json!({"user": "root", "password": "Secret-9!"}),
            ),
            ("USER.DELETE", json!({"user": "ada"})),
            ("TOKEN.CREATE", json!({"user": "root"})),
            ("TENANT.CREATE", json!({"tenant": "acme"})),
            ("TENANT.LIST", json!({})),
        ] {
            let text = refused(Role::Limited, what, &body).unwrap_or_default();
            assert!(
                text.contains("not allowed to manage users"),
                "{what}: {text}"
            );
            assert_eq!(refused(Role::Root, what, &body), None, "{what}");
        }
        for what in ["USER.SELF", "STATUS", "STATION.LIST"] {
            assert_eq!(refused(Role::Limited, what, &json!({})), None, "{what}");
            let text = refused(Role::Application, what, &json!({})).unwrap_or_default();
            assert!(text.contains("not allowed"), "{what}: {text}");
        }
    }
}
