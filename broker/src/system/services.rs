//! What the server does on request.

use data_encoding::BASE64;
use menes_protocol::subject;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::System;
use super::documents::{ErrorDocument, Response, ServerId};
use super::port::Request;
use crate::account::Account;
use crate::auth::Grant;
use crate::config::options::{PermissionOptions, SubjectRules};
use crate::connection::client::{Client, ClientId};
use crate::error::CloseReason;
use crate::monitoring::{DocumentError, Endpoint};
use crate::routing::Target;
use crate::server::Shared;

/// Monitoring documents, by the last token of their subjects, for one server or for all.
const DOCUMENTS: &[(&str, Endpoint)] = &[
    ("VARZ", Endpoint::Varz),
    ("CONNZ", Endpoint::Connz),
    ("SUBSZ", Endpoint::Subsz),
    ("ROUTEZ", Endpoint::Routez),
    ("GATEWAYZ", Endpoint::Gatewayz),
    ("LEAFZ", Endpoint::Leafz),
    ("ACCOUNTZ", Endpoint::Accountz),
    ("JSZ", Endpoint::Jsz),
    ("HEALTHZ", Endpoint::Healthz),
    ("EXPVARZ", Endpoint::Expvarz),
    ("IPQUEUESZ", Endpoint::Ipqueuesz),
    ("RAFTZ", Endpoint::Raftz),
];
/// The same for one account.
const ACCOUNT_DOCUMENTS: &[(&str, Endpoint)] = &[
    ("CONNZ", Endpoint::Connz),
    ("SUBSZ", Endpoint::Subsz),
    ("LEAFZ", Endpoint::Leafz),
    ("JSZ", Endpoint::AccountJsz),
    ("INFO", Endpoint::AccountInfo),
    ("STATZ", Endpoint::AccountStatz),
];
/// What is asked of one server or of all, beside documents.
const SERVER_SERVICES: &[&str] = &["IDZ", "STATSZ", "PROFILEZ"];
/// What can be done to one server.
const COMMANDS: &[&str] = &["RELOAD", "KICK", "LDM"];
/// What the users of every account may ask for: what is theirs.
const OWN_SUBJECTS: &[&str] = &[
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.PING.STATZ",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.USER.INFO",
];
const SUBSCRIBERS: &str = "$SYS.DEBUG.SUBSCRIBERS";
const NUMBER_OF_SUBSCRIBERS: &str = "$SYS.REQ.ACCOUNT.NSUBS";

/// Subscribes to everything that is answered here.
pub(super) fn subscribe(shared: &Shared) {
    shared.accounts().at_birth(subscribe_account);
    let system = shared.accounts().system();
    let id = shared.id();
    system.subscribe_service("$SYS.REQ.SERVER.PING");
    let names = DOCUMENTS.iter().map(|(name, _)| name);
    for name in names.chain(SERVER_SERVICES) {
        system.subscribe_service(&format!("$SYS.REQ.SERVER.{id}.{name}"));
        system.subscribe_service(&format!("$SYS.REQ.SERVER.PING.{name}"));
    }
    for name in COMMANDS {
        system.subscribe_service(&format!("$SYS.REQ.SERVER.{id}.{name}"));
    }
    for (name, _) in ACCOUNT_DOCUMENTS {
        system.subscribe_service(&format!("$SYS.REQ.ACCOUNT.*.{name}"));
    }
    system.subscribe_service("$SYS.REQ.ACCOUNT.*.CONNS");
    system.subscribe_service("$SYS.REQ.USER.*.INFO");
    system.subscribe_service("$SYS.REQ.USER.INFO");
    system.subscribe_service(SUBSCRIBERS);
    system.subscribe_service(NUMBER_OF_SUBSCRIBERS);
}

fn subscribe_account(account: &Account) {
    if !account.is_system() {
        for subject in OWN_SUBJECTS {
            account.subscribe_service(subject);
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked<'a> {
    /// A monitoring document, perhaps of one account.
    Document(Endpoint, Option<&'a str>),
    Statsz,
    Id,
    Profile,
    Reload,
    Kick,
    LameDuck,
    /// How many connections an account has.
    Count(&'a str),
    /// Who the user is that asks.
    User,
    Subscribers,
    NumberOfSubscribers,
}

impl<'a> Asked<'a> {
    /// Reads a subject on which a user of the account of the system asks.
    fn of_system(subject: &'a str) -> Option<Self> {
        if subject == SUBSCRIBERS {
            return Some(Self::Subscribers);
        }
        if subject == NUMBER_OF_SUBSCRIBERS {
            return Some(Self::NumberOfSubscribers);
        }
        let mut tokens = subject.strip_prefix("$SYS.REQ.")?.split('.');
        let (scope, whose, what) = (tokens.next()?, tokens.next()?, tokens.next());
        match (scope, whose, what) {
            ("SERVER", "PING", None) => Some(Self::Statsz),
            ("SERVER", _, Some(what)) => Self::of_server(what),
            ("ACCOUNT", "PING", Some("STATZ")) => {
                Some(Self::Document(Endpoint::AccountStatz, None))
            }
            ("ACCOUNT", account, Some("CONNS")) => Some(Self::Count(account)),
            ("ACCOUNT", account, Some(what)) => {
                let endpoint = named(ACCOUNT_DOCUMENTS, what)?;
                Some(Self::Document(endpoint, Some(account)))
            }
            ("USER", "INFO", None) | ("USER", _, Some("INFO")) => Some(Self::User),
            _ => None,
        }
    }

    fn of_server(what: &str) -> Option<Self> {
        Some(match what {
            "STATSZ" => Self::Statsz,
            "IDZ" => Self::Id,
            "PROFILEZ" => Self::Profile,
            "RELOAD" => Self::Reload,
            "KICK" => Self::Kick,
            "LDM" => Self::LameDuck,
            _ => Self::Document(named(DOCUMENTS, what)?, None),
        })
    }

    /// Reads a subject on which a user of another account asks for what is its own.
    fn of_account(subject: &str, account: &'a str) -> Option<Self> {
        match subject {
            "$SYS.REQ.USER.INFO" => Some(Self::User),
            "$SYS.REQ.ACCOUNT.PING.STATZ" => {
                Some(Self::Document(Endpoint::AccountStatz, Some(account)))
            }
            "$SYS.REQ.ACCOUNT.PING.CONNZ" | "$SYS.REQ.SERVER.PING.CONNZ" => {
                Some(Self::Document(Endpoint::Connz, Some(account)))
            }
            _ => None,
        }
    }
}

fn named(documents: &[(&str, Endpoint)], name: &str) -> Option<Endpoint> {
    let mut documents = documents.iter();
    documents.find_map(|(found, endpoint)| (*found == name).then_some(*endpoint))
}

/// Which servers are asked; a server that is not keeps silent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    server_name: String,
    cluster: String,
    host: String,
    exact_match: bool,
    tags: Vec<String>,
    domain: String,
}

impl Filter {
    fn wants(&self, shared: &Shared) -> bool {
        let options = shared.options();
        let names = [
            (&self.server_name, shared.name()),
            (&self.host, options.host.as_str()),
            (&self.cluster, ""),
        ];
        let is_named = names.iter().all(|(wanted, found)| {
            wanted.is_empty()
                || if self.exact_match {
                    *wanted == found
                } else {
                    found.contains(wanted.as_str())
                }
        });
        is_named
            && self
                .tags
                .iter()
                .all(|tag| options.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)))
            && (self.domain.is_empty() || options.domain.as_deref() == Some(&self.domain))
    }
}

/// Reads options as Go does: nothing is everything left out, and so is `null`.
fn options_of(payload: &[u8]) -> Result<Value, serde_json::Error> {
    if payload.is_empty() {
        return Ok(Value::Null);
    }
    let mut options: Value = serde_json::from_slice(payload)?;
    if let Value::Object(fields) = &mut options {
        fields.retain(|_, value| !value.is_null());
    }
    Ok(options)
}

fn filter_of(options: &Value) -> Result<Filter, String> {
    match options {
        Value::Null => Ok(Filter::default()),
        Value::Object(_) => {
            serde_json::from_value(options.clone()).map_err(|error| error.to_string())
        }
        _ => Err("options are an object".to_owned()),
    }
}

/// A request about one connection.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OfConnection {
    cid: u64,
}

/// A request for the number of subscriptions that match.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OfSubscribers {
    acc: String,
    subj: String,
    /// In base64.
    queue: String,
}

/// Who a user is and what it may do.
#[derive(Serialize)]
struct UserInfo {
    user: String,
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    account_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<PermissionsDocument>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

#[derive(Serialize)]
struct PermissionsDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<RulesDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<RulesDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responses: Option<ResponsesDocument>,
}

#[derive(Serialize)]
struct RulesDocument {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

#[derive(Serialize)]
struct ResponsesDocument {
    max: i64,
    ttl: i64,
}

impl PermissionsDocument {
    fn of(options: &PermissionOptions) -> Self {
        let responses = options.responses.map(|limits| ResponsesDocument {
            max: limits.max.map_or(-1, i64::from),
            ttl: limits
                .ttl
                .map_or(-1, |ttl| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX)),
        });
        Self {
            publish: RulesDocument::of(&options.publish),
            subscribe: RulesDocument::of(&options.subscribe),
            responses,
        }
    }
}

impl RulesDocument {
    fn of(rules: &SubjectRules) -> Option<Self> {
        let document = Self {
            allow: rules.allow.clone().unwrap_or_default(),
            deny: rules.deny.clone(),
        };
        (!document.allow.is_empty() || !document.deny.is_empty()).then_some(document)
    }
}

/// An answer: data or nothing to say, or what is wrong.
type Answer = Result<Option<Box<RawValue>>, ErrorDocument>;

fn mistake(text: impl ToString) -> ErrorDocument {
    ErrorDocument {
        code: 400,
        description: text.to_string(),
    }
}

fn failure(text: impl ToString) -> ErrorDocument {
    ErrorDocument {
        code: 500,
        description: text.to_string(),
    }
}

fn document(data: &impl Serialize) -> Answer {
    serde_json::value::to_raw_value(data)
        .map(Some)
        .map_err(failure)
}

impl System {
    /// Does what a request asks for and answers it.
    pub(super) async fn answer(&self, request: Request) {
        let asked = if request.account.is_system() {
            Asked::of_system(&request.subject)
        } else {
            Asked::of_account(&request.subject, request.account.name().as_str())
        };
        let Some(asked) = asked else { return };
        let options = match options_of(&request.payload) {
            Ok(options) => options,
            // This one is no JSON.
            Err(_) if asked == Asked::Subscribers => Value::Null,
            Err(error) => return self.respond(&request, Err(mistake(error))),
        };
        match filter_of(&options) {
            Ok(filter) if filter.wants(&self.shared) => {}
            Ok(_) => return,
            Err(error) => return self.respond(&request, Err(mistake(error))),
        }
        match asked {
            Asked::Statsz => self.answer_statsz(&request),
            Asked::Id => {
                let options = self.shared.options();
                let document = ServerId {
                    name: self.shared.name(),
                    host: &options.host,
                    id: self.shared.id(),
                };
                self.reply(&request, &document);
            }
            Asked::Count(account) => self.answer_count(&request, account),
            Asked::Subscribers => self.answer_subscribers(&request),
            Asked::NumberOfSubscribers => self.answer_number(&request, options),
            Asked::Document(endpoint, account) => {
                let answer = self.monitor.document(endpoint, options, account).await;
                match answer {
                    Ok(None) => {}
                    Ok(Some(data)) => self.respond(&request, Ok(Some(data))),
                    Err(DocumentError::Options(error)) => {
                        self.respond(&request, Err(mistake(error)));
                    }
                    Err(error) => self.respond_null(&request, failure(error)),
                }
            }
            Asked::Profile => {
                let text = "profiles of Go's runtime do not exist here";
                let answer = document(&serde_json::json!({"profile": null, "error": text}));
                self.respond(&request, answer);
            }
            Asked::Reload => {
                let outcome = self.reload().await;
                self.respond(&request, outcome.map(|()| None).map_err(failure));
            }
            Asked::Kick => {
                let outcome =
                    self.of_connection(options, "no such client or leafnode id", |client| {
                        client.close(CloseReason::Kicked);
                    });
                self.respond(&request, outcome);
            }
            Asked::LameDuck => {
                let outcome = self.of_connection(options, "no such client id", |client| {
                    self.shared.announce_lame_duck_to(client);
                });
                self.respond(&request, outcome);
            }
            Asked::User => {
                let answer = request
                    .origin
                    .as_ref()
                    .map_or(Ok(None), |client| document(&user_info(client)));
                self.respond(&request, answer);
            }
        }
    }

    /// Refuses, with data that are there and nothing, as nats-server does where there is no document.
    fn respond_null(&self, request: &Request, error: ErrorDocument) {
        let response = Response {
            server: self.info(),
            data: Some(RawValue::NULL.to_owned()),
            error: Some(error),
        };
        self.reply(request, &response);
    }

    fn respond(&self, request: &Request, answer: Answer) {
        let (data, error) = match answer {
            Ok(data) => (data, None),
            Err(error) => (None, Some(error)),
        };
        let response = Response {
            server: self.info(),
            data,
            error,
        };
        self.reply(request, &response);
    }

    fn reply(&self, request: &Request, document: &impl Serialize) {
        match serde_json::to_vec(document) {
            Ok(body) => self.reply_bytes(request, &body),
            Err(error) => tracing::error!("an answer cannot be written: {error}"),
        }
    }

    fn reply_bytes(&self, request: &Request, body: &[u8]) {
        if !request.reply.is_empty() {
            self.send_bytes(&request.account, &request.reply, body);
        }
    }

    fn answer_statsz(&self, request: &Request) {
        match std::str::from_utf8(&request.reply) {
            // Whoever asks without saying where to answer wants everyone to be told.
            Ok("") => self.announce_statsz(),
            Ok(reply) => self.send_statsz(reply),
            Err(_) => {}
        }
    }

    fn answer_count(&self, request: &Request, name: &str) {
        let account = self.shared.accounts().get(&name.into());
        if let Some(account) = account.filter(|account| account.connections() > 0) {
            if request.reply.is_empty() {
                self.announce_count(&account);
            } else {
                self.reply(request, &self.count_document(&account));
            }
        }
    }

    async fn reload(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let stopping = || "the server is stopping".to_owned();
        self.reloads.send(answer).map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    fn of_connection(&self, options: Value, missing: &str, act: impl FnOnce(&Client)) -> Answer {
        let asked: OfConnection = if options.is_null() {
            OfConnection::default()
        } else {
            serde_json::from_value(options).map_err(mistake)?
        };
        match self.shared.client(ClientId(asked.cid)) {
            Some(client) => {
                act(&client);
                Ok(None)
            }
            None => Err(failure(missing)),
        }
    }

    /// How many subscriptions of clients a subject has, asked for as plain text.
    fn answer_subscribers(&self, request: &Request) {
        // Whose subscriptions: the asker's own, also where the request came through an import. No
        // header is asked, for a client can write any.
        let origin = request.origin.as_ref().map(|client| client.identity());
        let account = origin
            .as_ref()
            .and_then(|identity| identity.account.as_ref())
            .unwrap_or(&request.account);
        let text = String::from_utf8_lossy(&request.payload);
        let mut words = text.split_whitespace();
        let subject = words.next().unwrap_or_default();
        let count = count_subscribers(account, subject.as_bytes(), words.next().map(str::as_bytes));
        self.reply_bytes(request, count.to_string().as_bytes());
    }

    /// The same, asked for by another server.
    fn answer_number(&self, request: &Request, options: Value) {
        let Ok(asked) = serde_json::from_value::<OfSubscribers>(options) else {
            return;
        };
        let account = self.shared.accounts().get(&asked.acc.as_str().into());
        if let Some(account) = account.filter(|account| account.connections() > 0) {
            let queue = BASE64.decode(asked.queue.as_bytes()).unwrap_or_default();
            let queue = Some(queue.as_slice()).filter(|queue| !queue.is_empty());
            let count = count_subscribers(&account, asked.subj.as_bytes(), queue);
            self.reply_bytes(request, count.to_string().as_bytes());
        }
    }
}

fn count_subscribers(account: &Account, filter: &[u8], queue: Option<&[u8]>) -> usize {
    let is_literal = subject::is_literal(filter);
    let mut count = 0;
    account.sublist().for_each(&mut |subscription| {
        let matches = if is_literal {
            subject::matches(subscription.subject(), filter)
        } else {
            subject::is_subset(subscription.subject(), filter)
        };
        let is_of_client = matches!(subscription.target(), Target::Client(_));
        let is_of_queue = queue.is_none_or(|name| subscription.queue() == Some(name));
        count += usize::from(matches && is_of_client && is_of_queue);
    });
    count
}

fn user_info(client: &Client) -> UserInfo {
    let info = client.info();
    let identity = &info.identity;
    let account = info.account.as_str().to_owned();
    let grant = identity.grant.as_deref();
    UserInfo {
        user: identity
            .shown_user
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        account_name: identity
            .account
            .as_ref()
            .map_or_else(|| account.clone(), |account| account.title()),
        account,
        user_name: grant
            .map(|grant| grant.admission.name.clone())
            .filter(|name| !name.is_empty()),
        expires: grant.and_then(Grant::nanoseconds_left),
        permissions: identity
            .permissions
            .as_ref()
            .map(|permissions| PermissionsDocument::of(permissions.options())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_that_is_subscribed_to_is_understood() {
        for (name, endpoint) in DOCUMENTS {
            for whose in ["PING", "NAAA"] {
                let subject = format!("$SYS.REQ.SERVER.{whose}.{name}");
                let asked = Asked::of_system(&subject);
                assert_eq!(asked, Some(Asked::Document(*endpoint, None)));
            }
        }
        for name in SERVER_SERVICES.iter().chain(COMMANDS) {
            let subject = format!("$SYS.REQ.SERVER.NAAA.{name}");
            assert!(Asked::of_system(&subject).is_some(), "{subject}");
        }
        for (name, endpoint) in ACCOUNT_DOCUMENTS {
            let subject = format!("$SYS.REQ.ACCOUNT.A.{name}");
            let asked = Asked::of_system(&subject);
            assert_eq!(asked, Some(Asked::Document(*endpoint, Some("A"))));
        }
        for subject in OWN_SUBJECTS {
            assert!(Asked::of_account(subject, "A").is_some(), "{subject}");
        }
        for other in [
            "$SYS.REQ.SERVER.PING.FOO",
            "$SYS.REQ.SERVER",
            "$SYS",
            "",
            "$SYS.REQ.A.B.C",
        ] {
            assert_eq!(Asked::of_system(other), None, "{other}");
        }
    }

    #[test]
    fn options_are_read_as_go_reads_them() {
        let read = |text: &str| options_of(text.as_bytes()).expect("JSON");
        assert_eq!(read(""), Value::Null);
        let options = read(r#"{"tags":null,"server_name":"x"}"#);
        let filter: Filter = serde_json::from_value(options).expect("a filter");
        assert_eq!(filter.server_name, "x");
        assert!(options_of(b"{").is_err());
    }
}
