//! What answers look like: the schemas of the OpenAPI document. What is listed here stays, with its
//! type; more may come.

use serde_json::{Map, Value, json};

/// A field of an answer: its name, with a `?` behind it if it is not always there, and its type.
type Shown = (&'static str, Kind);

/// The type of a field.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    Time,
    /// Base64.
    Bytes,
    /// Texts by name.
    Headers,
    /// One of [`SCHEMAS`].
    One(&'static str),
    Many(&'static str),
    Texts,
    Numbers,
    /// A text or nothing.
    MaybeText,
    /// A number or nothing.
    MaybeNumber,
    /// A time or nothing.
    MaybeTime,
}

use Kind::{
    Bytes, Flag, Headers, Many, MaybeNumber, MaybeText, MaybeTime, Number, Numbers, One, Text,
    Texts, Time,
};

const MESSAGE: &[Shown] = &[
    ("partition", Number),
    ("sequence", Number),
    ("time", Time),
    ("size", Number),
    ("headers", Headers),
    ("payload", Bytes),
];

/// Every kind of thing that is answered.
const SCHEMAS: &[(&str, &[Shown])] = &[
    (
        "Problem",
        &[
            ("type", Text),
            ("title", Text),
            ("status", Number),
            ("code", Text),
            ("detail", Text),
            ("instance", Text),
            ("fix?", Text),
            ("request_id", Text),
        ],
    ),
    ("Step", &[("does", Text), ("what", Text)]),
    ("Steps", &[("dry_run", Flag), ("steps", Many("Step"))]),
    ("Health", &[("status", Text)]),
    (
        "Code",
        &[
            ("code", Text),
            ("what", Text),
            ("cause", Text),
            ("fix", Text),
        ],
    ),
    (
        "Session",
        &[
            ("username", Text),
            ("token?", Text),
            ("expires_in_ms?", Number),
        ],
    ),
    (
        "Status",
        &[
            ("stations", Number),
            ("partitions", Number),
            ("groups", Number),
            ("members", Number),
            ("producers", Number),
            ("schemas", Number),
            ("dead_letters", Number),
            ("server?", One("Server")),
            ("traffic?", One("Traffic")),
        ],
    ),
    (
        "Server",
        &[("name", Text), ("version", Text), ("uptime_ms", Number)],
    ),
    (
        "Traffic",
        &[
            ("in_msgs", Number),
            ("in_bytes", Number),
            ("out_msgs", Number),
            ("out_bytes", Number),
        ],
    ),
    // Streams of NATS clients have a name and nothing else.
    (
        "Station",
        &[
            ("name", Text),
            ("is_native?", Flag),
            ("partitions?", Number),
            ("replicas?", Number),
            ("storage?", Text),
            ("status?", Text),
            ("retention?", One("Retention")),
            ("max_age_ms?", Number),
            ("max_messages?", Number),
            ("max_bytes?", Number),
            ("idempotency_window_ms?", Number),
            ("dead_letters?", One("DeadLetterSwitches")),
            ("dead_letter_station?", MaybeText),
            ("schema?", One("StationSchema")),
            ("tiered_storage?", Flag),
            ("created_at?", Time),
            ("created_by?", Text),
            ("producers?", Number),
            ("groups?", Many("StationGroup")),
            ("figures?", One("Figures")),
            ("etag?", Text),
        ],
    ),
    ("Retention", &[("type", Text), ("value", Number)]),
    (
        "DeadLetterSwitches",
        &[("poison", Flag), ("schemaverse", Flag)],
    ),
    ("StationSchema", &[("name", Text), ("is_enforced", Flag)]),
    ("StationGroup", &[("members", Number)]),
    (
        "Figures",
        &[
            ("messages", Number),
            ("bytes", Number),
            ("stored", Number),
            ("has_dead_letters", Flag),
            ("partitions?", Many("PartitionFigures")),
        ],
    ),
    (
        "PartitionFigures",
        &[
            ("partition", Number),
            ("messages", Number),
            ("bytes", Number),
            ("first_sequence", Number),
            ("last_sequence", Number),
            ("last_time", MaybeTime),
        ],
    ),
    ("Message", MESSAGE),
    (
        "Fetched",
        &[
            ("partition", Number),
            ("sequence", Number),
            ("time", Time),
            ("size", Number),
            ("headers", Headers),
            ("payload", Bytes),
            ("deliveries", Number),
            ("ack", Text),
        ],
    ),
    (
        "Stored",
        &[
            ("station", Text),
            ("partition", Number),
            ("sequence", Number),
            ("duplicate", Flag),
            ("stored_on", Number),
            ("replicas", Number),
        ],
    ),
    (
        "Producer",
        &[
            ("name", Text),
            ("connection_id", Text),
            ("is_active", Flag),
            ("user?", Text),
        ],
    ),
    (
        "Group",
        &[
            ("group", Text),
            ("lag", Number),
            ("in_process", Number),
            ("is_paused", Flag),
            ("max_ack_time_ms", Number),
            ("max_msg_deliveries", Number),
            ("has_policy", Flag),
            ("backoff_ms", Numbers),
            ("members", Many("Member")),
            ("partitions", Many("GroupPartition")),
            ("etag", Text),
        ],
    ),
    (
        "Member",
        &[
            ("name", Text),
            ("connection_id", Text),
            ("is_active", Flag),
            ("joined", Time),
            ("sdk", Text),
            ("user", Text),
        ],
    ),
    (
        "GroupPartition",
        &[
            ("partition", Number),
            ("lag", Number),
            ("in_process", Number),
            ("ack_floor", Number),
            ("delivered", Number),
            ("redelivered", Number),
            ("waiting", Number),
            ("is_paused", Flag),
        ],
    ),
    ("Reset", &[("sequences", Many("Place"))]),
    ("Place", &[("partition", Number), ("sequence", Number)]),
    (
        "DeadLetter",
        &[
            ("id", Number),
            ("station", Text),
            ("kind", Text),
            ("group", MaybeText),
            ("partition", MaybeNumber),
            ("sequence", MaybeNumber),
            ("deliveries", MaybeNumber),
            ("reason", Text),
            ("producer", Text),
            ("time_sent", Time),
            ("time_failed", Time),
            ("size", Number),
            ("headers", Headers),
            ("payload", Bytes),
        ],
    ),
    ("Resent", &[("resent", Number)]),
    ("Dropped", &[("dropped", MaybeNumber)]),
    (
        "Schema",
        &[
            ("name", Text),
            ("type", Text),
            ("active", Number),
            ("latest", Number),
            ("stations", Texts),
            ("versions?", Many("Version")),
            ("etag", Text),
        ],
    ),
    (
        "Version",
        &[
            ("number", Number),
            ("content", Text),
            ("created", Time),
            ("created_by", Text),
        ],
    ),
    ("MadeVersion", &[("version", Number)]),
    // Those of the configuration have the first four alone.
    (
        "User",
        &[
            ("name", Text),
            ("type", Text),
            ("origin", Text),
            ("tenant", Text),
            ("permissions?", One("Permissions")),
            ("has_password?", Flag),
            ("description?", Text),
            ("created?", Time),
            ("created_by?", Text),
            ("tokens?", Many("Token")),
            ("token?", Text),
        ],
    ),
    (
        "Permissions",
        &[
            ("allow_read", Texts),
            ("allow_write", Texts),
            ("deny_read", Texts),
            ("deny_write", Texts),
        ],
    ),
    (
        "Token",
        &[
            ("id", Text),
            ("description", Text),
            ("created", Time),
            ("token?", Text),
        ],
    ),
    (
        "Tenant",
        &[
            ("id", Number),
            ("name", Text),
            ("stations", Number),
            ("users", Number),
            ("created?", Time),
        ],
    ),
];

/// What a request of the broker's interface is answered, or one thing of the list.
const ANSWERS: &[(&str, &str)] = &[
    ("HEALTH", "Health"),
    ("EXPLAIN", "Code"),
    ("SESSION.CREATE", "Session"),
    ("SESSION.INFO", "Session"),
    ("OVERVIEW", "Status"),
    ("STATUS", "Status"),
    ("MESSAGE.LIST", "Message"),
    ("MESSAGE.GET", "Message"),
    ("MESSAGE.CREATE", "Stored"),
    ("GROUP.FETCH", "Fetched"),
    ("STATION.LIST", "Station"),
    ("STATION.CREATE", "Station"),
    ("STATION.INFO", "Station"),
    ("STATION.UPDATE", "Station"),
    ("STATION.PUT", "Station"),
    ("PRODUCER.LIST", "Producer"),
    ("GROUP.LIST", "Group"),
    ("GROUP.INFO", "Group"),
    ("GROUP.RESET", "Reset"),
    ("DEAD_LETTER.LIST", "DeadLetter"),
    ("DEAD_LETTER.GET", "DeadLetter"),
    ("DEAD_LETTER.RESEND", "Resent"),
    ("DEAD_LETTER.DROP", "Dropped"),
    ("SCHEMA.LIST", "Schema"),
    ("SCHEMA.INFO", "Schema"),
    ("SCHEMA.CREATE", "MadeVersion"),
    ("USER.SELF", "User"),
    ("USER.LIST", "User"),
    ("USER.INFO", "User"),
    ("USER.CREATE", "User"),
    ("USER.UPDATE", "User"),
    ("TOKEN.LIST", "Token"),
    ("TOKEN.CREATE", "Token"),
    ("TENANT.LIST", "Tenant"),
    ("TENANT.CREATE", "Tenant"),
    ("TENANT.INFO", "Tenant"),
];

/// A reference to a schema.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// What a request is answered, or one thing of the list it is answered with.
pub(super) fn of(request: &str) -> Value {
    let known = ANSWERS.iter().find(|(asked, _)| *asked == request);
    known.map_or_else(|| json!({"type": "object"}), |(_, name)| named(name))
}

/// All of them, by name.
pub(super) fn schemas() -> Map<String, Value> {
    let schemas = SCHEMAS.iter();
    schemas
        .map(|(name, fields)| ((*name).to_owned(), object(fields)))
        .collect()
}

fn object(fields: &[Shown]) -> Value {
    let plain = |name: &'static str| name.trim_end_matches('?');
    let needed: Vec<&str> = fields
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !name.ends_with('?'))
        .collect();
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(name, kind)| (plain(name).to_owned(), schema(*kind)))
        .collect();
    json!({"type": "object", "required": needed, "properties": properties})
}

fn schema(kind: Kind) -> Value {
    match kind {
        Text => json!({"type": "string"}),
        Number => json!({"type": "integer"}),
        Flag => json!({"type": "boolean"}),
        Time => json!({"type": "string", "format": "date-time"}),
        Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Headers => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        One(name) => named(name),
        Many(name) => json!({"type": "array", "items": named(name)}),
        Texts => json!({"type": "array", "items": {"type": "string"}}),
        Numbers => json!({"type": "array", "items": {"type": "integer"}}),
        MaybeText => json!({"type": ["string", "null"]}),
        MaybeNumber => json!({"type": ["integer", "null"]}),
        MaybeTime => json!({"type": ["string", "null"], "format": "date-time"}),
    }
}
