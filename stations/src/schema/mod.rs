//! Schemas: named definitions in versions, one of which is active.
//!
//! What a definition means is none of this crate's business: a driver checks it
//! ([`crate::Step::CheckSchema`]) and tells what came of it. A station that is given a schema always
//! follows the active version, so activating an older one is the way back.

mod plans;

use menes_jetstream::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use plans::{announce, attachment, detachment};

use crate::name::SchemaName;

/// Longest definition, bytes.
pub const MAX_CONTENT: usize = 256 * 1024;
/// Most versions of a schema.
pub const MAX_VERSIONS: usize = 1_000;

/// How many definitions an account may have before somebody is refused another: they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Schemas.
    pub schemas: usize,
    /// Bytes of all their versions, with what they were compiled to.
    pub bytes: usize,
}

impl Room {
    /// For application users, who leave the rest to those who manage.
    pub const APPLICATION: Self = Self {
        schemas: 1_000,
        bytes: 16 * 1024 * 1024,
    };
    /// For everybody else.
    pub const MANAGEMENT: Self = Self {
        schemas: 10_000,
        bytes: 256 * 1024 * 1024,
    };
}

/// What a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchemaKind {
    /// Protocol Buffers.
    Protobuf,
    /// JSON Schema.
    Json,
    /// GraphQL; messages are documents.
    Graphql,
    /// Avro; messages are JSON.
    Avro,
}

impl SchemaKind {
    /// The kind with this name, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_lowercase().as_str() {
            "protobuf" => Some(Self::Protobuf),
            "json" => Some(Self::Json),
            "graphql" => Some(Self::Graphql),
            "avro" => Some(Self::Avro),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Protobuf => "protobuf",
            Self::Json => "json",
            Self::Graphql => "graphql",
            Self::Avro => "avro",
        }
    }
}

/// What the check of a definition gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedSchema {
    /// Root message of a Protobuf definition, without its package; empty for other kinds.
    pub message: String,
    /// Protobuf: the compiled file, base64; empty for other kinds.
    pub descriptor: String,
}

/// One version of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaVersion {
    /// Number, from 1.
    pub number: u32,
    /// The definition as it came.
    pub content: String,
    /// Root message of a Protobuf definition.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Protobuf: the compiled file, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub descriptor: String,
    /// User who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
}

/// A schema. Its versions are rows of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Name, unique in its account.
    pub name: SchemaName,
    /// What it is written in.
    pub kind: SchemaKind,
    /// Number of the active version.
    pub active: u32,
    #[serde(skip)]
    versions: Vec<SchemaVersion>,
}

impl Schema {
    /// Bytes of its versions.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let each = self.versions.iter();
        each.map(|version| version.content.len() + version.descriptor.len())
            .sum()
    }

    pub(crate) fn new(name: SchemaName, kind: SchemaKind) -> Self {
        Self {
            name,
            kind,
            active: 0,
            versions: Vec::new(),
        }
    }

    /// Its versions, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = &SchemaVersion> {
        self.versions.iter()
    }

    /// The version with this number.
    #[must_use]
    pub fn version(&self, number: u32) -> Option<&SchemaVersion> {
        self.versions
            .iter()
            .find(|version| version.number == number)
    }

    /// The version that stations follow.
    #[must_use]
    pub fn active(&self) -> Option<&SchemaVersion> {
        self.version(self.active)
    }

    /// The newest version.
    #[must_use]
    pub fn latest(&self) -> Option<&SchemaVersion> {
        self.versions.last()
    }

    pub(crate) fn last_number(&self) -> u32 {
        self.latest().map_or(0, |version| version.number)
    }

    pub(crate) fn add(&mut self, version: SchemaVersion, activate: bool) {
        if activate || self.versions.is_empty() {
            self.active = version.number;
        }
        self.versions.push(version);
    }

    /// Puts back a version from its row; rows come in any order.
    pub(crate) fn restore(&mut self, version: SchemaVersion) {
        let at = self
            .versions
            .partition_point(|known| known.number < version.number);
        self.versions.insert(at, version);
    }
}
