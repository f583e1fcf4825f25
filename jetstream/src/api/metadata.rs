//! The metadata keys that servers add to configurations.
//!
//! `_nats.req.level` is stored: the API level that the configuration needs. `_nats.ver` and
//! `_nats.level` are shown in answers and never stored; clients send them back in updates.

use std::collections::BTreeMap;

use crate::consumer::ConsumerConfig;
use crate::consumer::config::AckPolicy;
use crate::stream::StreamConfig;

/// Key of the level a configuration needs.
pub const REQUIRED_LEVEL: &str = "_nats.req.level";
/// Key of the version of the answering server.
pub const SERVER_VERSION: &str = "_nats.ver";
/// Key of the level of the answering server.
pub const SERVER_LEVEL: &str = "_nats.level";

/// Most bytes of all keys and values of one configuration.
pub const MAX_METADATA: usize = 128 * 1024;

type Metadata = BTreeMap<String, String>;

/// What a server says about itself in configurations it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Version of the reference server whose behaviour is kept.
    pub version: String,
    /// API level.
    pub level: u32,
}

impl Identity {
    /// Adds version and level to a configuration that is about to be shown.
    pub fn show(&self, metadata: &mut Metadata) {
        metadata.insert(SERVER_VERSION.to_owned(), self.version.clone());
        metadata.insert(SERVER_LEVEL.to_owned(), self.level.to_string());
    }

    /// Takes them out again, for answers that show what is stored.
    pub fn hide(metadata: &mut Metadata) {
        metadata.remove(SERVER_VERSION);
        metadata.remove(SERVER_LEVEL);
    }
}

/// Bytes of all keys and values.
#[must_use]
pub fn size(metadata: &Metadata) -> usize {
    metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// Writes the level that the stream needs, and takes out what is not stored.
pub fn stamp_stream(config: &mut StreamConfig) {
    let level = if config.allow_batched {
        4
    } else if config.allow_msg_counter
        || config.allow_atomic
        || config.allow_msg_schedules
        || config.persist_mode.is_some()
    {
        2
    } else {
        i32::from(config.allow_msg_ttl || config.subject_delete_marker_ttl > 0)
    };
    stamp(&mut config.metadata, level);
}

/// Writes the level that the consumer needs, and takes out what is not stored.
pub fn stamp_consumer(config: &mut ConsumerConfig) {
    let paused = config
        .pause_until
        .is_some_and(|until| until != crate::time::Timestamp::ZERO);
    let prioritised = config.priority_policy.is_some()
        || config.priority_timeout != 0
        || !config.priority_groups.is_empty();
    let level = if config.ack_policy == AckPolicy::FlowControl {
        4
    } else {
        i32::from(paused || prioritised)
    };
    stamp(&mut config.metadata, level);
}

fn stamp(metadata: &mut Metadata, level: i32) {
    hide(metadata);
    metadata.insert(REQUIRED_LEVEL.to_owned(), level.to_string());
}

/// Removes what [`Identity::show`] adds: what is left is the configuration as it is kept.
pub fn hide(metadata: &mut Metadata) {
    metadata.remove(SERVER_VERSION);
    metadata.remove(SERVER_LEVEL);
}

/// Whether two configurations carry the same metadata, servers' keys aside.
#[must_use]
pub fn same(a: &Metadata, b: &Metadata) -> bool {
    fn own(metadata: &Metadata) -> impl Iterator<Item = (&String, &String)> {
        let servers = [REQUIRED_LEVEL, SERVER_VERSION, SERVER_LEVEL];
        metadata
            .iter()
            .filter(move |(key, _)| !servers.contains(&key.as_str()))
    }
    own(a).eq(own(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_metadata_has_the_level_and_no_version() {
        let identity = Identity {
            version: "2.15.1".into(),
            level: 1,
        };
        let mut config = StreamConfig::default();
        config.metadata.insert("owner".into(), "me".into());
        stamp_stream(&mut config);
        let stored = config.metadata.clone();
        assert_eq!(stored[REQUIRED_LEVEL], "0");
        identity.show(&mut config.metadata);
        assert_eq!(config.metadata[SERVER_VERSION], "2.15.1");
        assert_eq!(config.metadata[SERVER_LEVEL], "1");
        assert!(same(&config.metadata, &stored));
        stamp_stream(&mut config);
        assert_eq!(config.metadata, stored);
        config.metadata.insert("owner".into(), "you".into());
        assert!(!same(&config.metadata, &stored));
    }

    #[test]
    fn features_raise_the_level() {
        let level = |change: fn(&mut StreamConfig)| {
            let mut config = StreamConfig::default();
            change(&mut config);
            stamp_stream(&mut config);
            config.metadata[REQUIRED_LEVEL].clone()
        };
        assert_eq!(level(|config| config.allow_msg_ttl = true), "1");
        assert_eq!(level(|config| config.subject_delete_marker_ttl = 1), "1");
        assert_eq!(level(|config| config.allow_msg_counter = true), "2");
        assert_eq!(
            level(|config| config.persist_mode = Some("async".into())),
            "2"
        );
        assert_eq!(level(|config| config.allow_batched = true), "4");
        let mut config = ConsumerConfig {
            priority_timeout: 1,
            ..ConsumerConfig::default()
        };
        stamp_consumer(&mut config);
        assert_eq!(config.metadata[REQUIRED_LEVEL], "1");
    }
}
