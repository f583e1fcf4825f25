//! What a consumer tells about itself.

use serde::{Deserialize, Serialize};

use super::config::ConsumerConfig;
use crate::stream::config::{is_false, is_zero};
use crate::time::Timestamp;

/// A position in both countings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceInfo {
    /// Deliveries up to here.
    pub consumer_seq: u64,
    /// Messages of the stream up to here.
    pub stream_seq: u64,
    /// When it last moved on this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active: Option<Timestamp>,
}

/// State of one priority group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorityGroupInfo {
    /// Name.
    pub group: String,
    /// Client that is served alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pinned_client_id: String,
    /// Since when.
    #[serde(default)]
    pub pinned_ts: Timestamp,
}

/// A consumer as `CONSUMER.INFO` and its kin show it; names, order and omissions are nats-server's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumerInfo {
    /// Stream.
    pub stream_name: String,
    /// Consumer.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConsumerConfig>,
    /// What was handed out.
    pub delivered: SequenceInfo,
    /// Below this everything is settled.
    pub ack_floor: SequenceInfo,
    /// Handed out and not settled.
    pub num_ack_pending: u64,
    /// Of those, and of those given up, what was handed out more than once.
    pub num_redelivered: u64,
    /// Waiting pull requests.
    pub num_waiting: u64,
    /// Matching messages not handed out yet.
    pub num_pending: u64,
    /// Where it lives in a cluster; filled in by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<serde_json::Value>,
    /// Whether someone listens on the deliver subject.
    #[serde(default, skip_serializing_if = "is_false")]
    pub push_bound: bool,
    /// Whether deliveries are paused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// For how much longer, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pause_remaining: i64,
    /// When this was gathered.
    pub ts: Timestamp,
    /// Priority groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<PriorityGroupInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nothing_is_left_out() {
        let info = ConsumerInfo {
            stream_name: "S".into(),
            name: "C".into(),
            created: Timestamp::ZERO,
            config: None,
            delivered: SequenceInfo {
                consumer_seq: 2,
                stream_seq: 7,
                last_active: None,
            },
            ack_floor: SequenceInfo::default(),
            num_ack_pending: 2,
            num_redelivered: 0,
            num_waiting: 0,
            num_pending: 9,
            cluster: None,
            push_bound: false,
            paused: false,
            pause_remaining: 0,
            ts: Timestamp::ZERO,
            priority_groups: Vec::new(),
        };
        assert_eq!(
            serde_json::to_string(&info).expect("plain data"),
            concat!(
                r#"{"stream_name":"S","name":"C","created":"0001-01-01T00:00:00Z","#,
                r#""delivered":{"consumer_seq":2,"stream_seq":7},"#,
                r#""ack_floor":{"consumer_seq":0,"stream_seq":0},"#,
                r#""num_ack_pending":2,"num_redelivered":0,"num_waiting":0,"num_pending":9,"#,
                r#""ts":"0001-01-01T00:00:00Z"}"#
            )
        );
    }
}
