//! What the application group is told to do. Commands travel as JSON in the log.

use std::collections::BTreeSet;

use bytes::Bytes;
use menes_jetstream::{AccountName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::group::{Group, Member};
use crate::name::{ConsumerName, GroupName, ProducerName, SchemaName, StationName};
use crate::producer::Producer;
use crate::schema::{SchemaKind, SchemaVersion};
use crate::station::Station;
use crate::user::{PasswordHash, Tenant, Token, User, UserChange, UserName};

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Takes the name for a station whose streams are about to be made.
    StationPlanned {
        /// Owner.
        account: AccountName,
        /// The station.
        station: Box<Station>,
    },
    /// All streams of a planned station exist.
    StationCreated {
        /// Owner.
        account: AccountName,
        /// Which one.
        station: StationName,
    },
    /// The streams of a station are about to be removed.
    StationRemoving {
        /// Owner.
        account: AccountName,
        /// Which one.
        station: StationName,
    },
    /// The streams of a station are gone; so are its groups, members and producers.
    StationRemoved {
        /// Owner.
        account: AccountName,
        /// Which one.
        station: StationName,
    },
    /// A producer registers.
    ProducerRegistered {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// Who; its count of registrations is ignored.
        producer: Box<Producer>,
    },
    /// Every registration of a producer goes.
    ProducerRemoved {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// Its name.
        producer: ProducerName,
        /// From which connection; none for all of them.
        connection: Option<String>,
    },
    /// Takes the name for a group whose durables are about to be made.
    GroupPlanned {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// The group.
        group: Box<Group>,
    },
    /// All durables of a planned group exist; nobody is in it yet.
    GroupCreated {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// Which one.
        group: GroupName,
    },
    /// All durables of a group are as `group` says, and a member joins it.
    MemberJoined {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// The group.
        group: Box<Group>,
        /// Who; its count of registrations is ignored.
        member: Box<Member>,
    },
    /// One registration of a member goes.
    MemberLeft {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// From which group.
        group: GroupName,
        /// Its name.
        consumer: ConsumerName,
        /// Its connection.
        connection: String,
        /// No active member remains: the durables are about to be removed.
        remove_group: bool,
    },
    /// The durables of a group are about to be removed.
    GroupRemoving {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// Which one.
        group: GroupName,
    },
    /// The durables of a group are gone; so are its members.
    GroupRemoved {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// Which one.
        group: GroupName,
    },
    /// Registrations from connections that did not come back.
    RegistrationsExpired {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// The connections.
        connections: BTreeSet<String>,
    },
    /// What may change about a station changes; its streams are so already.
    StationChanged {
        /// Owner.
        account: AccountName,
        /// The station as it is to be; its condition is ignored.
        station: Box<Station>,
    },
    /// What may change about a group changes; its durables are so already.
    GroupChanged {
        /// Owner.
        account: AccountName,
        /// Where.
        station: StationName,
        /// The group as it is to be; its condition is ignored.
        group: Box<Group>,
    },
    /// A version joins a schema; the first one makes the schema.
    SchemaVersionAdded {
        /// Owner.
        account: AccountName,
        /// Name of the schema.
        schema: SchemaName,
        /// What it is written in; the same for all versions.
        kind: SchemaKind,
        /// The version; its number follows the last one.
        version: Box<SchemaVersion>,
        /// Make it the active one. The first version always is.
        activate: bool,
    },
    /// Another version of a schema becomes the active one.
    SchemaActivated {
        /// Owner.
        account: AccountName,
        /// Name of the schema.
        schema: SchemaName,
        /// Number of the version.
        version: u32,
    },
    /// A schema goes, and with it its place at every station.
    SchemaRemoved {
        /// Owner.
        account: AccountName,
        /// Name of the schema.
        schema: SchemaName,
    },
    /// A user is made. Passwords were hashed before.
    UserCreated {
        /// Account of its tenant.
        account: AccountName,
        /// The user.
        user: Box<User>,
    },
    /// What may change about a user changes.
    UserChanged {
        /// Account of its tenant.
        account: AccountName,
        /// Which one.
        user: UserName,
        /// To what.
        change: Box<UserChange>,
    },
    /// A user has another password.
    UserPasswordChanged {
        /// Account of its tenant.
        account: AccountName,
        /// Which one.
        user: UserName,
        /// The hash of the password.
        password: PasswordHash,
    },
    /// A user has one more connection token.
    UserTokenAdded {
        /// Account of its tenant.
        account: AccountName,
        /// Which one.
        user: UserName,
        /// The token.
        token: Box<Token>,
    },
    /// A connection token does not hold any more.
    UserTokenRemoved {
        /// Account of its tenant.
        account: AccountName,
        /// Whose.
        user: UserName,
        /// Its id.
        token: String,
    },
    /// A user goes, with its tokens.
    UserRemoved {
        /// Account of its tenant.
        account: AccountName,
        /// Which one.
        user: UserName,
    },
    /// A tenant is made.
    TenantCreated {
        /// The tenant; its id is given when the command is applied.
        tenant: Box<Tenant>,
    },
    /// A tenant goes, with its users. It has no station and no schema any more.
    TenantRemoved {
        /// Which one.
        tenant: UserName,
    },
}

impl Command {
    /// Whether it changes who may log in, or what somebody may do.
    #[must_use]
    pub fn is_about_people(&self) -> bool {
        matches!(
            self,
            Self::UserCreated { .. }
                | Self::UserChanged { .. }
                | Self::UserPasswordChanged { .. }
                | Self::UserTokenAdded { .. }
                | Self::UserTokenRemoved { .. }
                | Self::UserRemoved { .. }
                | Self::TenantCreated { .. }
                | Self::TenantRemoved { .. }
        )
    }

    /// The command as it is written to the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("commands hold only strings and numbers"))
    }

    /// Reads a command from the log.
    ///
    /// # Errors
    /// The payload is not a command that this version knows.
    pub fn decode(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// Who registers, from which connection and when.
    pub(crate) fn registration(&self) -> Option<(&AccountName, &str, Timestamp)> {
        match self {
            Self::ProducerRegistered {
                account, producer, ..
            } => Some((account, &producer.connection, producer.registered)),
            Self::MemberJoined {
                account, member, ..
            } => Some((account, &member.connection, member.joined)),
            _ => None,
        }
    }
}

/// How a command ended. A refusal changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked, or it was so already.
    Done,
    /// The name is taken.
    StationExists,
    /// No such station, or not in the right condition.
    StationMissing,
    /// The name is taken.
    GroupExists,
    /// No such group, or not in the right condition.
    GroupMissing,
    /// No such member.
    MemberMissing,
    /// No such schema or version.
    SchemaMissing,
    /// The schema is not as its change expects: another one came first.
    SchemaChanged,
    /// The name is taken.
    UserExists,
    /// No such user.
    UserMissing,
    /// Root cannot be removed.
    RootStays,
    /// The user has too many tokens, or the token is known already.
    TokenRefused,
    /// The name is taken.
    TenantExists,
    /// No such tenant.
    TenantMissing,
    /// Something is left of the tenant.
    TenantInUse,
}

/// A row of [`menes_jetstream::ports::Table::Application`] to write, or with no value to remove.
pub type RowChange = (Vec<u8>, Option<Vec<u8>>);

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// How it ended.
    pub outcome: Outcome,
    /// Rows to write in the atomic step that also writes the applied position.
    pub rows: Vec<RowChange>,
}
