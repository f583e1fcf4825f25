//! Subjects of the API and what they ask for.

/// What every subject of the API begins with.
pub const PREFIX: &str = "$JS.API.";

/// What a request on `$JS.API.>` asks for. Names come as the subject has them, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// `INFO`: the account's usage and limits.
    AccountInfo,
    /// `STREAM.CREATE.<stream>`
    StreamCreate {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.UPDATE.<stream>`
    StreamUpdate {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.INFO.<stream>`
    StreamInfo {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.NAMES`
    StreamNames,
    /// `STREAM.LIST`
    StreamList,
    /// `STREAM.DELETE.<stream>`
    StreamDelete {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.PURGE.<stream>`
    StreamPurge {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.MSG.GET.<stream>`
    MessageGet {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.MSG.DELETE.<stream>`
    MessageDelete {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.SNAPSHOT.<stream>`
    StreamSnapshot {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.RESTORE.<stream>`
    StreamRestore {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.PEER.REMOVE.<stream>`
    StreamPeerRemove {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.PEER.EVACUATE.<stream>`
    StreamPeerEvacuate {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.CANCEL_MOVE.<stream>`
    StreamCancelMove {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `STREAM.LEADER.STEPDOWN.<stream>`
    StreamLeaderStepDown {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `CONSUMER.CREATE.<stream>[.<consumer>[.<filter>]]`
    ConsumerCreate {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer, none on the endpoint of old for ephemeral consumers.
        consumer: Option<&'a str>,
        /// Filter, all tokens that follow the name.
        filter: Option<&'a str>,
    },
    /// `CONSUMER.DURABLE.CREATE.<stream>.<consumer>`, the endpoint of old for durable consumers.
    ConsumerDurableCreate {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.NAMES.<stream>`
    ConsumerNames {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `CONSUMER.LIST.<stream>`
    ConsumerList {
        /// Name of the stream.
        stream: &'a str,
    },
    /// `CONSUMER.INFO.<stream>.<consumer>`
    ConsumerInfo {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.DELETE.<stream>.<consumer>`
    ConsumerDelete {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.PAUSE.<stream>.<consumer>`
    ConsumerPause {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.UNPIN.<stream>.<consumer>`
    ConsumerUnpin {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.RESET.<stream>.<consumer>`
    ConsumerReset {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.LEADER.STEPDOWN.<stream>.<consumer>`
    ConsumerLeaderStepDown {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.PEER.REMOVE.<stream>.<consumer>`
    ConsumerPeerRemove {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.PEER.EVACUATE.<stream>.<consumer>`
    ConsumerPeerEvacuate {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `CONSUMER.MSG.NEXT.<stream>.<consumer>`: a pull request. It is answered with messages, or
    /// not at all, never with JSON.
    MessageNext {
        /// Name of the stream.
        stream: &'a str,
        /// Name of the consumer.
        consumer: &'a str,
    },
    /// `DIRECT.GET.<stream>[.<subject>]`. Answered with messages or a status, never with JSON.
    DirectGet {
        /// Name of the stream.
        stream: &'a str,
        /// The subject whose last message is wanted; none if the body says what is.
        subject: Option<&'a str>,
    },
    /// `META.LEADER.STEPDOWN`, system account only.
    MetaLeaderStepDown,
    /// `SERVER.REMOVE`, system account only.
    ServerRemove,
    /// `SERVER.EVACUATE`, system account only.
    ServerEvacuate,
    /// `META.RESCUE`, system account only.
    MetaRescue,
    /// `ACCOUNT.PURGE.<account>`, system account only.
    AccountPurge {
        /// Name of the account.
        account: &'a str,
    },
    /// `ACCOUNT.STREAM.MOVE.<account>.<stream>`, system account only.
    AccountStreamMove {
        /// Name of the account.
        account: &'a str,
        /// Name of the stream.
        stream: &'a str,
    },
    /// `ACCOUNT.STREAM.CANCEL_MOVE.<account>.<stream>`, system account only.
    AccountStreamCancelMove {
        /// Name of the account.
        account: &'a str,
        /// Name of the stream.
        stream: &'a str,
    },
    /// Anything else. The reference server stays silent; an error of the system's own type tells
    /// the asker sooner.
    Unknown,
}

impl<'a> Call<'a> {
    /// Reads a subject, which begins with [`PREFIX`]. Every subject gives an answer.
    #[must_use]
    pub fn parse(subject: &'a [u8]) -> Self {
        let Ok(subject) = std::str::from_utf8(subject) else {
            return Self::Unknown;
        };
        match subject.strip_prefix(PREFIX) {
            Some(rest) if rest.split('.').all(|token| !token.is_empty()) => Self::of(rest),
            Some(_) | None => Self::Unknown,
        }
    }

    fn of(rest: &'a str) -> Self {
        let (family, rest) = split(rest);
        match (family, rest) {
            ("INFO", None) => Self::AccountInfo,
            ("STREAM", Some(rest)) => Self::of_stream(rest),
            ("CONSUMER", Some(rest)) => Self::of_consumer(rest),
            ("DIRECT", Some(rest)) => match rest.strip_prefix("GET.").map(split) {
                Some((stream, subject)) => Self::DirectGet { stream, subject },
                None => Self::Unknown,
            },
            ("META", Some("LEADER.STEPDOWN")) => Self::MetaLeaderStepDown,
            ("META", Some("RESCUE")) => Self::MetaRescue,
            ("SERVER", Some("REMOVE")) => Self::ServerRemove,
            ("SERVER", Some("EVACUATE")) => Self::ServerEvacuate,
            ("ACCOUNT", Some(rest)) => Self::of_account(rest),
            _ => Self::Unknown,
        }
    }

    fn of_stream(rest: &'a str) -> Self {
        match rest {
            "NAMES" => return Self::StreamNames,
            "LIST" => return Self::StreamList,
            _ => {}
        }
        let (verb, stream) = split_last(rest);
        match verb {
            "CREATE" => Self::StreamCreate { stream },
            "UPDATE" => Self::StreamUpdate { stream },
            "INFO" => Self::StreamInfo { stream },
            "DELETE" => Self::StreamDelete { stream },
            "PURGE" => Self::StreamPurge { stream },
            "MSG.GET" => Self::MessageGet { stream },
            "MSG.DELETE" => Self::MessageDelete { stream },
            "SNAPSHOT" => Self::StreamSnapshot { stream },
            "RESTORE" => Self::StreamRestore { stream },
            "PEER.REMOVE" => Self::StreamPeerRemove { stream },
            "PEER.EVACUATE" => Self::StreamPeerEvacuate { stream },
            "CANCEL_MOVE" => Self::StreamCancelMove { stream },
            "LEADER.STEPDOWN" => Self::StreamLeaderStepDown { stream },
            _ => Self::Unknown,
        }
    }

    fn of_consumer(rest: &'a str) -> Self {
        if let Some(rest) = rest.strip_prefix("CREATE.") {
            let (stream, rest) = split(rest);
            let (consumer, filter) = match rest.map(split) {
                Some((consumer, filter)) => (Some(consumer), filter),
                None => (None, None),
            };
            return Self::ConsumerCreate {
                stream,
                consumer,
                filter,
            };
        }
        let (before, last) = split_last(rest);
        match before {
            "NAMES" => return Self::ConsumerNames { stream: last },
            "LIST" => return Self::ConsumerList { stream: last },
            _ => {}
        }
        let (verb, stream) = split_last(before);
        let consumer = last;
        match verb {
            "DURABLE.CREATE" => Self::ConsumerDurableCreate { stream, consumer },
            "INFO" => Self::ConsumerInfo { stream, consumer },
            "DELETE" => Self::ConsumerDelete { stream, consumer },
            "PAUSE" => Self::ConsumerPause { stream, consumer },
            "UNPIN" => Self::ConsumerUnpin { stream, consumer },
            "RESET" => Self::ConsumerReset { stream, consumer },
            "LEADER.STEPDOWN" => Self::ConsumerLeaderStepDown { stream, consumer },
            "PEER.REMOVE" => Self::ConsumerPeerRemove { stream, consumer },
            "PEER.EVACUATE" => Self::ConsumerPeerEvacuate { stream, consumer },
            "MSG.NEXT" => Self::MessageNext { stream, consumer },
            _ => Self::Unknown,
        }
    }

    fn of_account(rest: &'a str) -> Self {
        let (before, last) = split_last(rest);
        if before == "PURGE" {
            return Self::AccountPurge { account: last };
        }
        let (verb, account) = split_last(before);
        let stream = last;
        match verb {
            "STREAM.MOVE" => Self::AccountStreamMove { account, stream },
            "STREAM.CANCEL_MOVE" => Self::AccountStreamCancelMove { account, stream },
            _ => Self::Unknown,
        }
    }

    /// The `type` of the JSON answer. Pull requests and direct gets have none; the system's own
    /// type stands in.
    #[must_use]
    pub const fn response_type(&self) -> &'static str {
        macro_rules! kind {
            ($name:literal) => {
                concat!("io.nats.jetstream.api.v1.", $name, "_response")
            };
        }
        match self {
            Self::AccountInfo => kind!("account_info"),
            Self::StreamCreate { .. } => kind!("stream_create"),
            Self::StreamUpdate { .. }
            | Self::AccountStreamMove { .. }
            | Self::AccountStreamCancelMove { .. } => kind!("stream_update"),
            Self::StreamInfo { .. } => kind!("stream_info"),
            Self::StreamNames => kind!("stream_names"),
            Self::StreamList => kind!("stream_list"),
            Self::StreamDelete { .. } => kind!("stream_delete"),
            Self::StreamPurge { .. } => kind!("stream_purge"),
            Self::MessageGet { .. } => kind!("stream_msg_get"),
            Self::MessageDelete { .. } => kind!("stream_msg_delete"),
            Self::StreamSnapshot { .. } => kind!("stream_snapshot"),
            Self::StreamRestore { .. } => kind!("stream_restore"),
            Self::StreamPeerRemove { .. } => kind!("stream_remove_peer"),
            Self::StreamPeerEvacuate { .. } => kind!("stream_evacuate_peer"),
            Self::StreamCancelMove { .. } => kind!("stream_cancel_move"),
            Self::StreamLeaderStepDown { .. } => kind!("stream_leader_stepdown"),
            Self::ConsumerCreate { .. } | Self::ConsumerDurableCreate { .. } => {
                kind!("consumer_create")
            }
            Self::ConsumerNames { .. } => kind!("consumer_names"),
            Self::ConsumerList { .. } => kind!("consumer_list"),
            Self::ConsumerInfo { .. } => kind!("consumer_info"),
            Self::ConsumerDelete { .. } => kind!("consumer_delete"),
            Self::ConsumerPause { .. } => kind!("consumer_pause"),
            Self::ConsumerUnpin { .. } => kind!("consumer_unpin"),
            Self::ConsumerReset { .. } => kind!("consumer_reset"),
            Self::ConsumerLeaderStepDown { .. } => kind!("consumer_leader_stepdown"),
            Self::ConsumerPeerRemove { .. } => kind!("consumer_remove_peer"),
            Self::ConsumerPeerEvacuate { .. } => kind!("consumer_evacuate_peer"),
            Self::MetaLeaderStepDown => kind!("meta_leader_stepdown"),
            Self::ServerRemove => kind!("meta_server_remove"),
            Self::ServerEvacuate => kind!("meta_server_evacuate"),
            Self::MetaRescue => kind!("meta_rescue"),
            Self::AccountPurge { .. } => kind!("account_purge"),
            Self::MessageNext { .. } | Self::DirectGet { .. } | Self::Unknown => kind!("system"),
        }
    }

    /// Whether only the system account may ask this.
    #[must_use]
    pub const fn is_for_system_account(&self) -> bool {
        matches!(
            self,
            Self::MetaLeaderStepDown
                | Self::ServerRemove
                | Self::ServerEvacuate
                | Self::MetaRescue
                | Self::AccountPurge { .. }
                | Self::AccountStreamMove { .. }
                | Self::AccountStreamCancelMove { .. }
        )
    }
}

/// First token, and what follows it.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    }
}

/// What comes before the last token, and that token. A single token has nothing before it, which
/// no verb equals.
fn split_last(text: &str) -> (&str, &str) {
    text.rsplit_once('.').unwrap_or(("", text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(rest: &str) -> String {
        let subject = format!("{PREFIX}{rest}");
        let call = Call::parse(subject.as_bytes());
        let kind = call.response_type();
        let kind = kind
            .strip_prefix("io.nats.jetstream.api.v1.")
            .expect("common start");
        format!(
            "{call:?} {}",
            kind.strip_suffix("_response").expect("common end")
        )
    }

    #[test]
    fn every_subject_of_the_table_is_known() {
        for (rest, call) in [
            ("INFO", "AccountInfo account_info"),
            (
                "STREAM.CREATE.S",
                "StreamCreate { stream: \"S\" } stream_create",
            ),
            (
                "STREAM.UPDATE.S",
                "StreamUpdate { stream: \"S\" } stream_update",
            ),
            ("STREAM.INFO.S", "StreamInfo { stream: \"S\" } stream_info"),
            ("STREAM.NAMES", "StreamNames stream_names"),
            ("STREAM.LIST", "StreamList stream_list"),
            (
                "STREAM.DELETE.S",
                "StreamDelete { stream: \"S\" } stream_delete",
            ),
            (
                "STREAM.PURGE.S",
                "StreamPurge { stream: \"S\" } stream_purge",
            ),
            (
                "STREAM.MSG.GET.S",
                "MessageGet { stream: \"S\" } stream_msg_get",
            ),
            (
                "STREAM.MSG.DELETE.S",
                "MessageDelete { stream: \"S\" } stream_msg_delete",
            ),
            (
                "STREAM.SNAPSHOT.S",
                "StreamSnapshot { stream: \"S\" } stream_snapshot",
            ),
            (
                "STREAM.RESTORE.S",
                "StreamRestore { stream: \"S\" } stream_restore",
            ),
            (
                "STREAM.PEER.REMOVE.S",
                "StreamPeerRemove { stream: \"S\" } stream_remove_peer",
            ),
            (
                "STREAM.PEER.EVACUATE.S",
                "StreamPeerEvacuate { stream: \"S\" } stream_evacuate_peer",
            ),
            (
                "STREAM.CANCEL_MOVE.S",
                "StreamCancelMove { stream: \"S\" } stream_cancel_move",
            ),
            (
                "STREAM.LEADER.STEPDOWN.S",
                "StreamLeaderStepDown { stream: \"S\" } stream_leader_stepdown",
            ),
            (
                "CONSUMER.CREATE.S",
                "ConsumerCreate { stream: \"S\", consumer: None, filter: None } consumer_create",
            ),
            (
                "CONSUMER.CREATE.S.C",
                "ConsumerCreate { stream: \"S\", consumer: Some(\"C\"), filter: None } consumer_create",
            ),
            (
                "CONSUMER.CREATE.S.C.a.*.>",
                "ConsumerCreate { stream: \"S\", consumer: Some(\"C\"), filter: Some(\"a.*.>\") } consumer_create",
            ),
            (
                "CONSUMER.DURABLE.CREATE.S.C",
                "ConsumerDurableCreate { stream: \"S\", consumer: \"C\" } consumer_create",
            ),
            (
                "CONSUMER.NAMES.S",
                "ConsumerNames { stream: \"S\" } consumer_names",
            ),
            (
                "CONSUMER.LIST.S",
                "ConsumerList { stream: \"S\" } consumer_list",
            ),
            (
                "CONSUMER.INFO.S.C",
                "ConsumerInfo { stream: \"S\", consumer: \"C\" } consumer_info",
            ),
            (
                "CONSUMER.DELETE.S.C",
                "ConsumerDelete { stream: \"S\", consumer: \"C\" } consumer_delete",
            ),
            (
                "CONSUMER.PAUSE.S.C",
                "ConsumerPause { stream: \"S\", consumer: \"C\" } consumer_pause",
            ),
            (
                "CONSUMER.UNPIN.S.C",
                "ConsumerUnpin { stream: \"S\", consumer: \"C\" } consumer_unpin",
            ),
            (
                "CONSUMER.RESET.S.C",
                "ConsumerReset { stream: \"S\", consumer: \"C\" } consumer_reset",
            ),
            (
                "CONSUMER.LEADER.STEPDOWN.S.C",
                "ConsumerLeaderStepDown { stream: \"S\", consumer: \"C\" } consumer_leader_stepdown",
            ),
            (
                "CONSUMER.PEER.REMOVE.S.C",
                "ConsumerPeerRemove { stream: \"S\", consumer: \"C\" } consumer_remove_peer",
            ),
            (
                "CONSUMER.PEER.EVACUATE.S.C",
                "ConsumerPeerEvacuate { stream: \"S\", consumer: \"C\" } consumer_evacuate_peer",
            ),
            (
                "CONSUMER.MSG.NEXT.S.C",
                "MessageNext { stream: \"S\", consumer: \"C\" } system",
            ),
            (
                "DIRECT.GET.S",
                "DirectGet { stream: \"S\", subject: None } system",
            ),
            (
                "DIRECT.GET.S.a.b",
                "DirectGet { stream: \"S\", subject: Some(\"a.b\") } system",
            ),
            (
                "META.LEADER.STEPDOWN",
                "MetaLeaderStepDown meta_leader_stepdown",
            ),
            ("META.RESCUE", "MetaRescue meta_rescue"),
            ("SERVER.REMOVE", "ServerRemove meta_server_remove"),
            ("SERVER.EVACUATE", "ServerEvacuate meta_server_evacuate"),
            (
                "ACCOUNT.PURGE.A",
                "AccountPurge { account: \"A\" } account_purge",
            ),
            (
                "ACCOUNT.STREAM.MOVE.A.S",
                "AccountStreamMove { account: \"A\", stream: \"S\" } stream_update",
            ),
            (
                "ACCOUNT.STREAM.CANCEL_MOVE.A.S",
                "AccountStreamCancelMove { account: \"A\", stream: \"S\" } stream_update",
            ),
        ] {
            assert_eq!(parse(rest), call);
        }
    }

    #[test]
    fn names_may_equal_verbs() {
        assert_eq!(
            parse("STREAM.INFO.NAMES"),
            "StreamInfo { stream: \"NAMES\" } stream_info"
        );
        assert_eq!(
            parse("CONSUMER.CREATE.DURABLE.CREATE"),
            "ConsumerCreate { stream: \"DURABLE\", consumer: Some(\"CREATE\"), filter: None } consumer_create"
        );
        assert_eq!(
            parse("CONSUMER.NAMES.NAMES"),
            "ConsumerNames { stream: \"NAMES\" } consumer_names"
        );
        assert_eq!(
            parse("CONSUMER.INFO.LIST.NAMES"),
            "ConsumerInfo { stream: \"LIST\", consumer: \"NAMES\" } consumer_info"
        );
    }

    #[test]
    fn anything_else_is_unknown() {
        for rest in [
            "",
            "NOPE",
            "INFO.X",
            "info",
            "STREAM",
            "STREAM.CREATE",
            "STREAM.CREATE.",
            "STREAM.CREATE.A.B",
            "STREAM.NAMES.A",
            "STREAM.MSG.GET",
            "STREAM..A",
            "CONSUMER",
            "CONSUMER.CREATE",
            "CONSUMER.CREATE.S.C.",
            "CONSUMER.INFO.S",
            "CONSUMER.INFO.S.C.D",
            "CONSUMER.NAMES",
            "CONSUMER.DURABLE.CREATE.S",
            "CONSUMER.DURABLE.CREATE.S.C.D",
            "DIRECT",
            "DIRECT.GET",
            "DIRECT.GET.S.",
            "META.LEADER",
            "SERVER",
            "ACCOUNT.PURGE",
            "ACCOUNT.PURGE.A.B",
            "ACCOUNT.INFO",
        ] {
            assert_eq!(parse(rest), "Unknown system", "{rest}");
        }
        for subject in [
            b"$JS.API".as_slice(),
            b"$JS.X.API.INFO",
            b"",
            b"$JS.API.STREAM.INFO.\xff",
        ] {
            assert_eq!(Call::parse(subject), Call::Unknown);
        }
    }

    #[test]
    fn some_calls_are_for_the_system_account() {
        assert!(Call::parse(b"$JS.API.ACCOUNT.PURGE.A").is_for_system_account());
        assert!(!Call::parse(b"$JS.API.INFO").is_for_system_account());
    }

    proptest! {
        #[test]
        fn any_subject_gives_an_answer(tail in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut subject = PREFIX.as_bytes().to_vec();
            subject.extend_from_slice(&tail);
            prop_assert!(Call::parse(&subject).response_type().ends_with("_response"));
        }

        #[test]
        fn names_come_back_as_they_were_sent(stream in "[^.\\s]{1,20}", consumer in "[^.\\s]{1,20}") {
            let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}");
            prop_assert_eq!(
                Call::parse(subject.as_bytes()),
                Call::ConsumerInfo { stream: &stream, consumer: &consumer }
            );
        }
    }
}
