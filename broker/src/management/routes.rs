//! The routes: what they are called, what they ask the broker, and what they take.

use axum::http::Method;
use serde_json::{Map, Value};

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Path below the base; what stands in braces is named by the request.
    pub(super) path: &'static str,
    /// Subject of the broker's interface, without its beginning.
    pub(super) request: &'static str,
    pub(super) about: &'static str,
    pub(super) shape: Shape,
    /// Fields of the body, or parameters of the query where there is no body.
    pub(super) fields: &'static [Field],
}

/// What is answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// What the broker says.
    Object,
    /// The same about something new.
    Created,
    /// Nothing.
    Done,
    /// `items`, the list of this name, and `next_cursor`.
    List(&'static str),
    /// Something that is not one request.
    Own(Own),
}

/// What is not one request of the broker's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Health,
    Document,
    Explain,
    LogIn,
    WhoAmI,
    LogOut,
    Overview,
    Events,
    PutStation,
    Produce,
    Tail,
    Fetch,
    Settle(Settling),
}

impl Own {
    /// Nobody has to be logged in.
    pub(super) fn is_public(self) -> bool {
        matches!(
            self,
            Self::Health | Self::Document | Self::Explain | Self::LogIn
        )
    }
}

/// What becomes of a message that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settling {
    Ack,
    Nack,
    DeadLetter,
}

/// A field of a request.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// What the broker calls it.
    pub(super) request: &'static str,
    /// Its JSON type.
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
    /// There is no request without it.
    pub(super) is_needed: bool,
}

impl Route {
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

const fn field(name: &'static str, kind: &'static str, about: &'static str) -> Field {
    Field {
        name,
        request: name,
        kind,
        about,
        is_needed: false,
    }
}

const fn needed(field: Field) -> Field {
    Field {
        is_needed: true,
        ..field
    }
}

const fn renamed(
    name: &'static str,
    request: &'static str,
    kind: &'static str,
    about: &'static str,
) -> Field {
    Field {
        name,
        request,
        kind,
        about,
        is_needed: false,
    }
}

/// A route that a request matched, and what its path names.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) route: &'static Route,
    named: Vec<(&'static str, String)>,
}

impl Found {
    /// The same names for another route.
    pub(super) fn as_request(&self, request: &str) -> Self {
        let other = ROUTES.iter().find(|route| route.request == request);
        Self {
            route: other.unwrap_or(self.route),
            named: self.named.clone(),
        }
    }

    /// What the path names so.
    pub(super) fn part(&self, name: &str) -> &str {
        let mut parts = self.named.iter().filter(|(part, _)| *part == name);
        parts.next().map_or("", |(_, value)| value.as_str())
    }

    /// What the path names, as fields.
    pub(super) fn named(&self) -> Map<String, Value> {
        let pairs = self.named.iter();
        pairs
            .map(|(name, value)| {
                // Numbers of dead letters are numbers.
                let number = value.parse::<u64>().ok().filter(|_| *name == "id");
                let value = number.map_or_else(|| Value::from(value.as_str()), Value::from);
                ((*name).to_owned(), value)
            })
            .collect()
    }
}

/// What else may be done at a path, if there is anything.
pub(super) fn methods(segments: &[String]) -> Vec<&'static str> {
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let is_known = |method: &&str| {
        Method::from_bytes(method.as_bytes()).is_ok_and(|method| find(&method, segments).is_some())
    };
    methods.into_iter().filter(is_known).collect()
}

/// The route of a request.
pub(super) fn find(method: &Method, segments: &[String]) -> Option<Found> {
    ROUTES
        .iter()
        .filter(|route| route.method == method.as_str())
        .find_map(|route| {
            let pattern: Vec<&'static str> =
                route.path.trim_start_matches('/').split('/').collect();
            if pattern.len() != segments.len() {
                return None;
            }
            let mut named = Vec::new();
            for (part, segment) in pattern.into_iter().zip(segments) {
                match part
                    .strip_prefix('{')
                    .and_then(|part| part.strip_suffix('}'))
                {
                    Some(name) if !segment.is_empty() => named.push((name, segment.clone())),
                    None if part == segment => {}
                    _ => return None,
                }
            }
            Some(Found { route, named })
        })
}

const PARTITION: Field = field("partition", "integer", "Only this partition.");
const RETENTION_TYPE: Field = field(
    "retention_type",
    "string",
    "message_age_sec, messages, bytes or ack_based.",
);
const RETENTION_VALUE: Field = field("retention_value", "integer", "Seconds, messages or bytes.");
const REPLICAS: Field = field("replicas", "integer", "Copies.");
const PARTITIONS: Field = renamed("partitions", "partitions_number", "integer", "How many.");
const DEAD_LETTERS: Field = renamed(
    "dead_letters",
    "dls_configuration",
    "object",
    "Which dead letters are kept: {poison, schemaverse}.",
);
const DEAD_LETTER_STATION: Field = renamed(
    "dead_letter_station",
    "dls_station",
    "string",
    "A station that receives copies of dead letters; empty for none.",
);
const KIND: Field = field("kind", "string", "poison or schema.");
const MAX_AGE: Field = field(
    "max_age",
    "string",
    "Keep messages for so long, as 7d or 12h.",
);
const MAX_AGE_MS: Field = field("max_age_ms", "integer", "The same in milliseconds.");
const MAX_MESSAGES: Field = field("max_messages", "integer", "Keep so many on each partition.");
const MAX_BYTES: Field = field(
    "max_bytes",
    "size",
    "Keep so much on each partition, as 200GiB.",
);
const UNTIL_ACKED: Field = field(
    "until_acked",
    "boolean",
    "Keep messages until every group has acknowledged them.",
);
const STORAGE: Field = renamed("storage", "storage_type", "string", "file or memory.");
const ID_WINDOW: Field = renamed(
    "idempotency_window_ms",
    "idempotency_window_in_ms",
    "integer",
    "How long message ids are remembered.",
);
const SCHEMA: Field = renamed(
    "schema",
    "schema_name",
    "string",
    "A schema for its messages.",
);

const FIGURES: Field = field("figures", "boolean", "With how much each holds.");
const SEARCH: Field = field("search", "string", "Only those with this text in them.");
const LIMIT: Field = field("limit", "integer", "How many of a page.");
const WAIT: Field = field(
    "wait_ms",
    "integer",
    "How long to wait for the first, at most 60000.",
);
const ACKS: Field = needed(field(
    "acks",
    "texts",
    "The acks of messages that were fetched.",
));
const CURSOR: Field = renamed("cursor", "after", "string", "Where the last answer ended.");
const GROUP: Field = field("group", "string", "Only those of this group.");
const PAYLOAD: Field = field("payload", "string", "Another payload, in base64.");
const TEXT: Field = field("text", "string", "Another payload, as text.");
const IDS: Field = field("ids", "array", "Numbers of dead letters; none for all.");
const EVERY: Field = field(
    "all",
    "boolean",
    "Those of every station; has to be said where there are no ids.",
);

const TENANT: Field = field(
    "tenant",
    "string",
    "Another tenant than one's own; for root.",
);
const PASSWORD: Field = field(
    "password",
    "string",
    "8 to 20 letters, digits and !?-@#$%, with one of each kind and both cases.",
);
const PASSWORD_HASH: Field = field(
    "password_hash",
    "string",
    "The password as an argon2id or bcrypt hash, in place of it.",
);
const PERMISSIONS: Field = field(
    "permissions",
    "object",
    "Patterns of stations: {allow_read, allow_write, deny_read, deny_write}.",
);
const DESCRIPTION: Field = field("description", "string", "At most 100 characters.");
const FULL_NAME: Field = field("full_name", "string", "At most 30 characters.");
const TEAM: Field = field("team", "string", "At most 20 characters.");
const POSITION: Field = field("position", "string", "At most 30 characters.");
const OWNER: Field = field("owner", "string", "At most 60 characters.");
const AVATAR: Field = field("avatar_id", "integer", "Number of a picture.");

/// Fields that making and changing something share, and more.
macro_rules! fields {
    (station; $($more:expr),* $(,)?) => {
        &[
            PARTITIONS,
            MAX_AGE,
            MAX_AGE_MS,
            MAX_MESSAGES,
            MAX_BYTES,
            UNTIL_ACKED,
            REPLICAS,
            DEAD_LETTERS,
            DEAD_LETTER_STATION,
            $($more),*
        ]
    };
    (user; $($more:expr),* $(,)?) => {
        &[
            PERMISSIONS,
            DESCRIPTION,
            FULL_NAME,
            TEAM,
            POSITION,
            OWNER,
            AVATAR,
            TENANT,
            $($more),*
        ]
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/health",
        request: "HEALTH",
        about: "Says that the server is there",
        shape: Shape::Own(Own::Health),
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/openapi.json",
        request: "DOCUMENT",
        about: "This document",
        shape: Shape::Own(Own::Document),
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/errors/{code}",
        request: "EXPLAIN",
        about: "What a code of an error means",
        shape: Shape::Own(Own::Explain),
        fields: &[],
    },
    Route {
        method: "POST",
        path: "/sessions",
        request: "SESSION.CREATE",
        about: "Logs a user in: a bearer token, and the same as a cookie",
        shape: Shape::Own(Own::LogIn),
        fields: &[
            needed(field("username", "string", "The user.")),
            field("password", "string", "The password."),
            field(
                "token",
                "string",
                "A connection token in place of a password.",
            ),
        ],
    },
    Route {
        method: "GET",
        path: "/sessions/current",
        request: "SESSION.INFO",
        about: "Who is logged in",
        shape: Shape::Own(Own::WhoAmI),
        fields: &[],
    },
    Route {
        method: "DELETE",
        path: "/sessions/current",
        request: "SESSION.DELETE",
        about: "Logs out",
        shape: Shape::Own(Own::LogOut),
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/overview",
        request: "OVERVIEW",
        about: "Counts, what moves, and the server",
        shape: Shape::Own(Own::Overview),
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/events",
        request: "EVENTS",
        about: "Live views as server-sent events: what it is at first, then every change",
        shape: Shape::Own(Own::Events),
        fields: &[needed(field(
            "topics",
            "string",
            "overview, stations, station:NAME, groups:NAME, dead-letters, dead-letters:NAME; with commas between.",
        ))],
    },
    Route {
        method: "GET",
        path: "/stations/{station}/messages",
        request: "MESSAGE.LIST",
        about: "Messages, page by page; no group moves",
        shape: Shape::List("messages"),
        fields: &[
            PARTITION,
            CURSOR,
            LIMIT,
            SEARCH,
            field("newest_first", "boolean", "From the end backwards."),
            field(
                "payload_bytes",
                "integer",
                "Bytes of each payload, at most 65536; 1024 unless said otherwise.",
            ),
        ],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/messages",
        request: "MESSAGE.CREATE",
        about: "Stores the body as a message, or every line of application/x-ndjson as one; headers that begin with Menes-Header- are headers of it",
        shape: Shape::Own(Own::Produce),
        fields: &[
            field(
                "partition",
                "integer",
                "On this partition; otherwise on any.",
            ),
            field(
                "id",
                "string",
                "Of messages with the same id, one is stored.",
            ),
        ],
    },
    Route {
        method: "GET",
        path: "/stations/{station}/messages/{partition}/{sequence}",
        request: "MESSAGE.GET",
        about: "One message, whole",
        shape: Shape::Object,
        fields: &[],
    },
    Route {
        method: "DELETE",
        path: "/stations/{station}/messages/{partition}/{sequence}",
        request: "MESSAGE.DELETE",
        about: "Removes one message",
        shape: Shape::Done,
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/stations/{station}/tail",
        request: "MESSAGE.TAIL",
        about: "Messages as they come, as server-sent events; no group moves",
        shape: Shape::Own(Own::Tail),
        fields: &[
            PARTITION,
            SEARCH,
            field("from", "string", "end, or start for all that are there."),
        ],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/groups/{group}/fetch",
        request: "GROUP.FETCH",
        about: "Takes messages for a group; one that does not exist is made and begins at the first message",
        shape: Shape::Own(Own::Fetch),
        fields: &[
            field(
                "max",
                "integer",
                "How many, at most 1000; 10 unless said otherwise.",
            ),
            WAIT,
            PARTITION,
        ],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/groups/{group}/ack",
        request: "GROUP.ACK",
        about: "Messages are done",
        shape: Shape::Own(Own::Settle(Settling::Ack)),
        fields: &[ACKS],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/groups/{group}/nack",
        request: "GROUP.NACK",
        about: "Messages are to be delivered again",
        shape: Shape::Own(Own::Settle(Settling::Nack)),
        fields: &[
            ACKS,
            field(
                "delay_ms",
                "integer",
                "After so long; at once unless said otherwise.",
            ),
        ],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/groups/{group}/dead-letter",
        request: "GROUP.DEAD_LETTER",
        about: "Messages are given up and become dead letters",
        shape: Shape::Own(Own::Settle(Settling::DeadLetter)),
        fields: &[ACKS, field("reason", "string", "Why.")],
    },
    Route {
        method: "GET",
        path: "/dead-letters",
        request: "DEAD_LETTER.LIST",
        about: "Dead letters of every station, oldest first",
        shape: Shape::List("dead_letters"),
        fields: &[
            KIND,
            GROUP,
            SEARCH,
            renamed("cursor", "after", "integer", "Where the last answer ended."),
            LIMIT,
        ],
    },
    Route {
        method: "POST",
        path: "/dead-letters/resend",
        request: "DEAD_LETTER.RESEND",
        about: "Sends dead letters to the groups that failed, again, whatever their station",
        shape: Shape::Object,
        fields: &[IDS, GROUP, PAYLOAD, TEXT, EVERY],
    },
    Route {
        method: "POST",
        path: "/dead-letters/drop",
        request: "DEAD_LETTER.DROP",
        about: "Removes dead letters, whatever their station",
        shape: Shape::Object,
        fields: &[IDS, KIND, GROUP, EVERY],
    },
    Route {
        method: "GET",
        path: "/status",
        request: "STATUS",
        about: "How much there is of everything",
        shape: Shape::Object,
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/stations",
        request: "STATION.LIST",
        about: "Stations, and streams of NATS clients",
        shape: Shape::List("stations"),
        fields: &[CURSOR, LIMIT, SEARCH, FIGURES],
    },
    Route {
        method: "POST",
        path: "/stations",
        request: "STATION.CREATE",
        about: "Makes a station",
        shape: Shape::Created,
        fields: fields![station;
            needed(renamed("name", "station", "string", "Its name.")),
            RETENTION_TYPE,
            RETENTION_VALUE,
            STORAGE,
            field("storage_type", "string", "The same."),
            renamed(
                "tiered_storage",
                "tiered_storage_enabled",
                "boolean",
                "Kept as it is said; nothing is moved.",
            ),
            ID_WINDOW,
            SCHEMA,
        ],
    },
    Route {
        method: "GET",
        path: "/stations/{station}",
        request: "STATION.INFO",
        about: "One station with its groups",
        shape: Shape::Object,
        fields: &[FIGURES],
    },
    Route {
        method: "PATCH",
        path: "/stations/{station}",
        request: "STATION.UPDATE",
        about: "Changes a living station",
        shape: Shape::Object,
        fields: fields![station; RETENTION_TYPE, RETENTION_VALUE],
    },
    Route {
        method: "PUT",
        path: "/stations/{station}",
        request: "STATION.PUT",
        about: "Makes a station, or changes the one that is there to what is asked for",
        shape: Shape::Own(Own::PutStation),
        fields: fields![station; STORAGE, ID_WINDOW, SCHEMA],
    },
    Route {
        method: "DELETE",
        path: "/stations/{station}",
        request: "STATION.DELETE",
        about: "Removes a station with its messages, groups and dead letters",
        shape: Shape::Done,
        fields: &[],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/purge",
        request: "STATION.PURGE",
        about: "Removes messages",
        shape: Shape::Done,
        fields: &[
            PARTITION,
            field(
                "messages",
                "boolean",
                "Messages go; true unless said otherwise.",
            ),
            field("dead_letters", "boolean", "Dead letters go."),
        ],
    },
    Route {
        method: "PUT",
        path: "/stations/{station}/schema",
        request: "SCHEMA.ATTACH",
        about: "Gives a station a schema",
        shape: Shape::Done,
        fields: &[
            needed(field("name", "string", "The schema.")),
            field(
                "enforce",
                "boolean",
                "The broker checks every message; true unless said otherwise.",
            ),
        ],
    },
    Route {
        method: "DELETE",
        path: "/stations/{station}/schema",
        request: "SCHEMA.DETACH",
        about: "Takes the schema of a station away",
        shape: Shape::Done,
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/stations/{station}/producers",
        request: "PRODUCER.LIST",
        about: "Who writes, or wrote",
        shape: Shape::List("producers"),
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/stations/{station}/groups",
        request: "GROUP.LIST",
        about: "Groups with members and lag",
        shape: Shape::List("groups"),
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/stations/{station}/groups/{group}",
        request: "GROUP.INFO",
        about: "One group with its members, and its lag on each partition",
        shape: Shape::Object,
        fields: &[],
    },
    Route {
        method: "PATCH",
        path: "/stations/{station}/groups/{group}",
        request: "GROUP.UPDATE",
        about: "Decides how messages are tried again",
        shape: Shape::Done,
        fields: &[
            field("max_ack_time_ms", "integer", "Time to acknowledge."),
            field(
                "max_msg_deliveries",
                "integer",
                "Most deliveries; −1 for no end.",
            ),
            field(
                "backoff_ms",
                "array",
                "Waits before the second delivery, the third and so on.",
            ),
            field(
                "follow_members",
                "boolean",
                "What its members ask for holds again.",
            ),
        ],
    },
    Route {
        method: "DELETE",
        path: "/stations/{station}/groups/{group}",
        request: "GROUP.DELETE",
        about: "Removes a group with its position and its dead letters",
        shape: Shape::Done,
        fields: &[],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/groups/{group}/reset",
        request: "GROUP.RESET",
        about: "Lets a group go on elsewhere",
        shape: Shape::Object,
        fields: &[
            field("sequence", "integer", "At this sequence."),
            field(
                "time",
                "string",
                "At the first message from this RFC 3339 time on.",
            ),
            field("to", "string", "start or end."),
            PARTITION,
        ],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/groups/{group}/pause",
        request: "GROUP.PAUSE",
        about: "Hands out nothing for a time",
        shape: Shape::Done,
        fields: &[needed(field("seconds", "integer", "For how long."))],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/groups/{group}/resume",
        request: "GROUP.RESUME",
        about: "Ends a pause",
        shape: Shape::Done,
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/stations/{station}/dead-letters",
        request: "DEAD_LETTER.LIST",
        about: "Dead letters, oldest first",
        shape: Shape::List("dead_letters"),
        fields: &[
            KIND,
            GROUP,
            field(
                "search",
                "string",
                "Only those with this text in headers, payload or reason.",
            ),
            renamed("cursor", "after", "integer", "Where the last answer ended."),
            field("limit", "integer", "How many, at most 256."),
        ],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/dead-letters/resend",
        request: "DEAD_LETTER.RESEND",
        about: "Sends dead letters to the groups that failed, again",
        shape: Shape::Object,
        fields: &[IDS, GROUP, PAYLOAD, TEXT],
    },
    Route {
        method: "POST",
        path: "/stations/{station}/dead-letters/drop",
        request: "DEAD_LETTER.DROP",
        about: "Removes dead letters",
        shape: Shape::Object,
        fields: &[IDS, KIND, GROUP],
    },
    Route {
        method: "GET",
        path: "/dead-letters/{id}",
        request: "DEAD_LETTER.GET",
        about: "One dead letter",
        shape: Shape::Object,
        fields: &[],
    },
    Route {
        method: "POST",
        path: "/dead-letters/{id}/edit",
        request: "DEAD_LETTER.EDIT",
        about: "Publishes a dead letter again, perhaps with another payload",
        shape: Shape::Done,
        fields: &[PAYLOAD, TEXT],
    },
    Route {
        method: "GET",
        path: "/schemas",
        request: "SCHEMA.LIST",
        about: "Schemas and the stations that have them",
        shape: Shape::List("schemas"),
        fields: &[],
    },
    Route {
        method: "POST",
        path: "/schemas",
        request: "SCHEMA.CREATE",
        about: "Makes a schema, or a version of one",
        shape: Shape::Created,
        fields: &[
            needed(field("name", "string", "Its name.")),
            needed(field("type", "string", "json, protobuf, avro or graphql.")),
            needed(field("content", "string", "The definition.")),
            field(
                "message",
                "string",
                "Protobuf: the root message; the first one otherwise.",
            ),
            field("activate", "boolean", "Stations follow it at once."),
            field(
                "compatible",
                "boolean",
                "Refuse it unless messages of the active version fit.",
            ),
        ],
    },
    Route {
        method: "GET",
        path: "/schemas/{name}",
        request: "SCHEMA.INFO",
        about: "One schema with its versions",
        shape: Shape::Object,
        fields: &[],
    },
    Route {
        method: "POST",
        path: "/schemas/{name}/activate",
        request: "SCHEMA.ACTIVATE",
        about: "Makes a version the one that stations follow",
        shape: Shape::Done,
        fields: &[needed(field("version", "integer", "Its number."))],
    },
    Route {
        method: "DELETE",
        path: "/schemas/{name}",
        request: "SCHEMA.DELETE",
        about: "Removes a schema and takes it from every station",
        shape: Shape::Done,
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/me",
        request: "USER.SELF",
        about: "Who asks",
        shape: Shape::Object,
        fields: &[],
    },
    Route {
        method: "GET",
        path: "/users",
        request: "USER.LIST",
        about: "Users, those of the configuration among them",
        shape: Shape::List("users"),
        fields: &[
            TENANT,
            field("type", "string", "application, management or root."),
            renamed("cursor", "after", "string", "Where the last page ended."),
            field("limit", "integer", "Most users in the answer, 500 at most."),
        ],
    },
    Route {
        method: "POST",
        path: "/users",
        request: "USER.CREATE",
        about: "Makes a user; a token is told this once",
        shape: Shape::Created,
        fields: fields![user;
            needed(renamed(
                "name",
                "user",
                "string",
                "1 to 60 of a-z, 0-9, _, -, and the dot.",
            )),
            field("type", "string", "application (the default) or management."),
            PASSWORD,
            PASSWORD_HASH,
            field("token", "boolean", "Make a connection token as well."),
        ],
    },
    Route {
        method: "GET",
        path: "/users/{user}",
        request: "USER.INFO",
        about: "One user with the ids of its tokens",
        shape: Shape::Object,
        fields: &[TENANT],
    },
    Route {
        method: "PATCH",
        path: "/users/{user}",
        request: "USER.UPDATE",
        about: "Changes what a user may do, and what is noted about it; connections follow at once",
        shape: Shape::Object,
        fields: fields![user;],
    },
    Route {
        method: "PUT",
        path: "/users/{user}/password",
        request: "USER.PASSWORD",
        about: "Sets another password; who logged in with the old one is disconnected",
        shape: Shape::Done,
        fields: &[PASSWORD, PASSWORD_HASH, TENANT],
    },
    Route {
        method: "DELETE",
        path: "/users/{user}",
        request: "USER.DELETE",
        about: "Removes a user and ends its connections",
        shape: Shape::Done,
        fields: &[TENANT],
    },
    Route {
        method: "GET",
        path: "/users/{user}/tokens",
        request: "TOKEN.LIST",
        about: "Connection tokens of a user, without the tokens themselves",
        shape: Shape::List("tokens"),
        fields: &[TENANT],
    },
    Route {
        method: "POST",
        path: "/users/{user}/tokens",
        request: "TOKEN.CREATE",
        about: "Makes a connection token, which is told this once",
        shape: Shape::Created,
        fields: &[field("description", "string", "What it is for."), TENANT],
    },
    Route {
        method: "DELETE",
        path: "/users/{user}/tokens/{token}",
        request: "TOKEN.DELETE",
        about: "Ends a connection token and the connections that came with it",
        shape: Shape::Done,
        fields: &[TENANT],
    },
    Route {
        method: "GET",
        path: "/tenants",
        request: "TENANT.LIST",
        about: "Tenants; for root",
        shape: Shape::List("tenants"),
        fields: &[],
    },
    Route {
        method: "POST",
        path: "/tenants",
        request: "TENANT.CREATE",
        about: "Makes a tenant; for root",
        shape: Shape::Created,
        fields: &[
            needed(renamed(
                "name",
                "tenant",
                "string",
                "1 to 60 of a-z, 0-9, _, -, and the dot.",
            )),
            DESCRIPTION,
        ],
    },
    Route {
        method: "GET",
        path: "/tenants/{tenant}",
        request: "TENANT.INFO",
        about: "One tenant; for root",
        shape: Shape::Object,
        fields: &[],
    },
    Route {
        method: "DELETE",
        path: "/tenants/{tenant}",
        request: "TENANT.DELETE",
        about: "Removes a tenant that has no stations, with its users; for root",
        shape: Shape::Done,
        fields: &[],
    },
];
