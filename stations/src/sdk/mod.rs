//! The contract of the Memphis SDKs: control subjects, request bodies, replies.
//!
//! One file for each kind of request. A request is opened at once: its body is decoded and
//! checked as far as that needs no state. What remains is a job that plans from the state.

pub(crate) mod body;
mod consumer;
pub(crate) mod dead_letter;
mod producer;
pub(crate) mod reply;
pub(crate) mod schema;
pub(crate) mod station;

use menes_jetstream::{AccountName, Timestamp};

use crate::api;
use crate::name::StationName;
use crate::sdk::body::{Body, BodyError};
use crate::task::Job;
use crate::user::{Access, Role, connection_id, display_name};

/// Makes a station.
pub const STATION_CREATIONS: &str = "$memphis_station_creations";
/// Removes a station.
pub const STATION_DESTRUCTIONS: &str = "$memphis_station_destructions";
/// Registers a producer.
pub const PRODUCER_CREATIONS: &str = "$memphis_producer_creations";
/// Removes a producer's registrations.
pub const PRODUCER_DESTRUCTIONS: &str = "$memphis_producer_destructions";
/// Registers a consumer and makes its group.
pub const CONSUMER_CREATIONS: &str = "$memphis_consumer_creations";
/// Removes a consumer, and its group with the last active member.
pub const CONSUMER_DESTRUCTIONS: &str = "$memphis_consumer_destructions";
/// Makes a schema, or a version of one.
pub const SCHEMA_CREATIONS: &str = "$memphis_schema_creations";
/// Attaches a schema to a station.
pub const SCHEMA_ATTACHMENTS: &str = "$memphis_schema_attachments";
/// Detaches a station's schema.
pub const SCHEMA_DETACHMENTS: &str = "$memphis_schema_detachments";
/// An alert for people, from a client.
pub const NOTIFICATIONS: &str = "$memphis_notifications";
/// A message that a producer found to violate the schema.
pub const SCHEMA_DEAD_LETTERS: &str = "$memphis_schemaverse_dls";
/// A message that a consumer gave up.
pub const NACKED_DEAD_LETTERS: &str = "$memphis_nacked_dls";
/// A resent dead letter was settled.
pub const DEAD_LETTER_ACKS: &str = "$memphis_pm_acks";

/// Every subject to subscribe to in each account that Memphis clients use, before any of them is
/// let in. A message there without a reply subject is served all the same.
pub const CONTROL_SUBJECTS: [&str; 13] = [
    STATION_CREATIONS,
    STATION_DESTRUCTIONS,
    PRODUCER_CREATIONS,
    PRODUCER_DESTRUCTIONS,
    CONSUMER_CREATIONS,
    CONSUMER_DESTRUCTIONS,
    SCHEMA_CREATIONS,
    SCHEMA_ATTACHMENTS,
    SCHEMA_DETACHMENTS,
    NOTIFICATIONS,
    SCHEMA_DEAD_LETTERS,
    NACKED_DEAD_LETTERS,
    DEAD_LETTER_ACKS,
];

/// Who sends a request, as the server knows it, whatever the body says.
#[derive(Clone, Copy, Debug)]
pub struct ClientIdentity<'a> {
    /// The authenticated user, with or without `$<account id>`; empty when the user is not known
    /// to the account.
    pub user: &'a str,
    /// Connection id: the first half of an SDK's connection name, or for other clients the id
    /// given to [`crate::Stations::connection_opened`].
    pub connection_id: &'a str,
    /// `lang` of the CONNECT.
    pub lang: &'a str,
    /// The connection name marks it as an SDK.
    pub native: bool,
    /// What the user may touch.
    pub access: &'a Access,
    /// What the user may ask of the broker itself.
    pub role: Role,
}

/// A message on one of the [`CONTROL_SUBJECTS`], or below [`api::PREFIX`].
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Account of the connection.
    pub account: &'a AccountName,
    /// Subject.
    pub subject: &'a [u8],
    /// Body.
    pub payload: &'a [u8],
    /// Sender.
    pub client: ClientIdentity<'a>,
    /// Time of arrival.
    pub now: Timestamp,
}

/// What a request comes to.
pub(crate) enum Opened {
    /// Needs the state.
    Job {
        job: Box<dyn Job>,
        /// Registers something from this connection.
        registers_from: Option<String>,
        /// Works on another account than that of the request.
        account: Option<AccountName>,
    },
    /// Answered.
    Reply(Vec<u8>),
}

/// The text that answers a request which is not served.
pub(crate) struct Refused(pub(crate) String);

impl<E: std::error::Error> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Opened {
    pub(crate) fn job(job: impl Job + 'static) -> Self {
        Self::Job {
            job: Box::new(job),
            registers_from: None,
            account: None,
        }
    }
}

/// Decodes a request and checks what can be checked without the state.
pub(crate) fn open(request: &Request<'_>) -> Opened {
    let subject = std::str::from_utf8(request.subject).unwrap_or_default();
    let opened = match subject {
        STATION_CREATIONS => station::open_creation(request),
        STATION_DESTRUCTIONS => station::open_destruction(request),
        PRODUCER_CREATIONS => producer::open_creation(request),
        PRODUCER_DESTRUCTIONS => producer::open_destruction(request),
        CONSUMER_CREATIONS => consumer::open_creation(request),
        CONSUMER_DESTRUCTIONS => consumer::open_destruction(request),
        // Nobody is there to be alerted yet.
        NOTIFICATIONS => Ok(Opened::Reply(Vec::new())),
        SCHEMA_DEAD_LETTERS => dead_letter::open_violation(request),
        NACKED_DEAD_LETTERS => dead_letter::open_nacked(request),
        DEAD_LETTER_ACKS => dead_letter::open_settled(request),
        SCHEMA_CREATIONS => schema::open_creation(request),
        SCHEMA_ATTACHMENTS => schema::open_attachment(request),
        SCHEMA_DETACHMENTS => schema::open_detachment(request),
        _ if subject.starts_with(api::PREFIX) => return api::open(request, subject),
        _ => Err(Refused(format!("nothing is served on {subject}"))),
    };
    opened.unwrap_or_else(|Refused(text)| Opened::Reply(refusal(request.subject, &text)))
}

/// An error reply in the style that the clients of `subject` understand.
pub(crate) fn refusal(subject: &[u8], text: &str) -> Vec<u8> {
    let unanswered = [
        NOTIFICATIONS,
        SCHEMA_DEAD_LETTERS,
        NACKED_DEAD_LETTERS,
        DEAD_LETTER_ACKS,
    ];
    if unanswered.iter().any(|known| known.as_bytes() == subject) {
        tracing::debug!("a message on {} is ignored: {text}", subject.escape_ascii());
        Vec::new()
    } else if subject.starts_with(api::PREFIX.as_bytes()) {
        api::refusal(text)
    } else if subject == PRODUCER_CREATIONS.as_bytes() {
        reply::producer_error(text)
    } else if subject == SCHEMA_CREATIONS.as_bytes() {
        reply::error(text)
    } else {
        text.as_bytes().to_vec()
    }
}

/// The user behind a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// For texts and records; what the body claims if the account does not know the user.
    pub(crate) name: String,
    known: bool,
}

impl Caller {
    fn read(body: &Body, client: &ClientIdentity<'_>) -> Result<Self, BodyError> {
        Self::of(body, client, "username")
    }

    fn of(
        body: &Body,
        client: &ClientIdentity<'_>,
        field: &'static str,
    ) -> Result<Self, BodyError> {
        let claimed = body.text(field)?;
        Ok(match display_name(client.user) {
            "" => Self {
                name: display_name(&claimed).to_owned(),
                known: false,
            },
            user => Self {
                name: user.to_owned(),
                known: true,
            },
        })
    }
}

/// Who registers, as far as a creation request and its connection tell.
#[derive(Clone, Debug)]
struct Registrant {
    caller: Caller,
    connection: String,
    app_id: String,
    sdk: String,
    version: i64,
}

impl Registrant {
    fn read(body: &Body, client: &ClientIdentity<'_>) -> Result<Self, BodyError> {
        let version = body.number("req_version")?;
        let sent = body.short_text("connection_id")?;
        let connection = match connection_id(&sent) {
            "" => client.connection_id.to_owned(),
            id => id.to_owned(),
        };
        let (app_id, sdk) = (body.short_text("app_id")?, body.short_text("sdk_lang")?);
        let (app_id, sdk) = if version < 4 {
            (connection.clone(), sdk_of_lang(client.lang).to_owned())
        } else {
            (app_id, sdk)
        };
        Ok(Self {
            caller: Caller::read(body, client)?,
            connection,
            app_id,
            sdk,
            version,
        })
    }
}

/// Whose registration a destruction means: that of one connection, or with none of any.
fn meant_connection(body: &Body, client: &ClientIdentity<'_>) -> Result<Option<String>, BodyError> {
    let sent = body.short_text("connection_id")?;
    Ok(match (body.number("req_version")?, connection_id(&sent)) {
        (1.., id) if !id.is_empty() => Some(id.to_owned()),
        _ if client.native => Some(client.connection_id.to_owned()),
        _ => None,
    })
}

/// Whose registrations alone an application user may remove, whatever connection it names: its own.
/// None for those who manage.
fn owner(client: &ClientIdentity<'_>) -> Option<String> {
    (client.role == Role::Application).then(|| display_name(client.user).to_owned())
}

/// The refusal to touch a station.
fn not_allowed_to_access(user: &str, station: &StationName) -> String {
    format!("user {user} is not allowed to access station {station}")
}

/// Requests before version 4 do not name their SDK; the NATS library underneath gives it away.
fn sdk_of_lang(lang: &str) -> &str {
    match lang {
        "nats.js" => "node.js",
        "python3" => "python",
        other => other,
    }
}
