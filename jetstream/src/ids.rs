//! Names and numbers that must not be mixed up.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Name of an account: the tenant that streams, consumers and subjects belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountName(pub Arc<str>);

impl AccountName {
    /// The account used when none is configured, `$G`.
    #[must_use]
    pub fn global() -> Self {
        Self(Arc::from("$G"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for AccountName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The number before this one, or zero.
            #[must_use]
            pub const fn before(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Position of a message in its stream. The first message has 1; 0 means none.
    StreamSeq
}
number! {
    /// Position of a delivery in its consumer, redeliveries counted. The first delivery has 1.
    ConsumerSeq
}
number! {
    /// Identity of one replicated state machine: the metadata, an application, or one incarnation
    /// of a stream. Never used twice, so a stream that is deleted and made again under the same
    /// name has another group.
    GroupId
}

impl GroupId {
    /// The group that orders which streams exist.
    pub const META: Self = Self(0);
    /// The group of the application state that rides beside the streams (stations).
    pub const APPLICATION: Self = Self(1);
    /// The first group given to a stream.
    pub const FIRST_STREAM: Self = Self(16);
}
