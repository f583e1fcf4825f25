//! What an account is, in data: whatever says so, the configuration or a JWT, says it like this.
//!
//! A description holds no connections and no subscriptions. Putting a new one in force while the
//! server runs changes what the account exports, imports, maps and may hold, and leaves everyone
//! connected whom its limits allow.

use std::collections::BTreeSet;
use std::time::Duration;

use menes_jetstream::ids::AccountName;

use crate::config::options::PermissionOptions;
use crate::system::TraceDestination;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDescription {
    /// Its identity: the name in the configuration, or the public key of a JWT account.
    pub name: AccountName,
    /// What people call it, where that is not its identity.
    pub title: Option<String>,
    /// What other accounts may import, in the order in which it is looked through.
    pub exports: Vec<Export>,
    /// What it takes from other accounts.
    pub imports: Vec<Import>,
    /// What subjects its clients publish to become. The first mapping that matches applies.
    pub mappings: Vec<MappingDescription>,
    /// How much its connections may hold.
    pub limits: AccountLimits,
    /// Where messages are traced that carry a sampled `traceparent`. Default nowhere.
    pub trace: Option<TraceDestination>,
    /// For users without permissions of their own. Default everything.
    pub default_permissions: Option<PermissionOptions>,
}

impl AccountDescription {
    /// An account that shares nothing and has no limits.
    #[must_use]
    pub fn new(name: AccountName) -> Self {
        Self {
            name,
            title: None,
            exports: Vec::new(),
            imports: Vec::new(),
            mappings: Vec::new(),
            limits: AccountLimits::default(),
            trace: None,
            default_permissions: None,
        }
    }
}

/// Something that other accounts may import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The subjects, wildcards allowed.
    pub subject: String,
    /// What is exported.
    pub kind: ExportKind,
    /// Who may import it.
    pub audience: Audience,
    /// Number, from 1, of a token `*` of the subject that must be the importer's name. When set, it
    /// decides alone who may import.
    pub account_token_position: Option<usize>,
}

/// What an export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// Messages flow to the importer.
    Stream,
    /// Requests flow from the importer, responses back.
    Service(ServiceOptions),
}

/// How a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    /// How many messages a response has.
    pub response: ResponseKind,
    /// Time after which a response does not find its way back any more. Default 2 min.
    pub threshold: Duration,
    /// Whether it is measured how long responses take.
    pub latency: Option<LatencyOptions>,
    /// Whether importers are told what becomes of a traced request. Default false.
    pub allow_trace: bool,
}

/// [`ServiceOptions::threshold`] unless something else is said.
pub const RESPONSE_THRESHOLD: Duration = Duration::from_secs(120);

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            response: ResponseKind::Singleton,
            threshold: RESPONSE_THRESHOLD,
            latency: None,
            allow_trace: false,
        }
    }
}

/// Kinds of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseKind {
    /// One message.
    #[default]
    Singleton,
    /// Many messages; an empty one is the last.
    Stream,
    /// One message in several pieces; an empty one is the last.
    Chunked,
}

/// Measuring how long a service takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyOptions {
    /// Which requests are measured.
    pub sampling: Sampling,
    /// Where results are published, in the exporting account.
    pub subject: String,
}

/// Which requests are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// So many in a hundred, 1 to 100.
    Percent(u8),
    /// Those whose tracing headers ask for it.
    Headers,
}

/// Who may import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Every account.
    #[default]
    Everyone,
    /// These accounts.
    Accounts(BTreeSet<AccountName>),
    /// Whoever brings an activation token, see
    /// [`ActivationCheck`](super::ActivationCheck).
    Activated,
}

/// Something that is taken from another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The exporter.
    pub account: AccountName,
    /// The subject in the exporting account.
    pub subject: String,
    /// What is imported.
    pub kind: ImportKind,
    /// The activation token, for exports that want one.
    pub token: Option<String>,
}

/// What an import is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// Messages of the exporter.
    Stream {
        /// Where they appear here. Default the subject in the exporting account.
        place: StreamPlace,
        /// Whether the exporter is told what becomes of a traced message. Default false.
        allow_trace: bool,
    },
    /// Requests to the exporter.
    Service {
        /// Where requests are sent to here, with `$1` for the first wildcard. Default the subject
        /// in the exporting account.
        to: Option<String>,
        /// Whether the exporter learns who asks. Default false.
        share: bool,
    },
}

/// Where the messages of an imported stream appear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StreamPlace {
    /// Under their subjects.
    #[default]
    Same,
    /// Behind these tokens, which have no wildcards.
    Prefix(String),
    /// Under this subject, with `$1` for the first wildcard, or `*` for the next.
    To(String),
}

/// A subject and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingDescription {
    /// Subject that clients publish to, wildcards allowed.
    pub source: String,
    /// What it becomes, by chance; what is missing to 100 stays as it is, unless `source` is among
    /// the destinations: then it is lost.
    pub destinations: Vec<Destination>,
}

/// One of the subjects that a mapping leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A destination of [`Transform`](menes_protocol::transform::Transform).
    pub subject: String,
    /// How many in a hundred messages go here, at most 100.
    pub weight: u8,
    /// The cluster in which it holds; there it replaces those that hold everywhere.
    pub cluster: Option<String>,
}

/// How much the connections of an account may hold. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Client connections.
    pub max_connections: Option<u32>,
    /// Leafnode connections.
    pub max_leafnodes: Option<u32>,
    /// Subscriptions of each connection.
    pub max_subscriptions: Option<usize>,
    /// Bytes of a message, headers included.
    pub max_payload: Option<usize>,
}
