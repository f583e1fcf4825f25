//! Scripts of requests: valid, odd and malformed.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

/// One thing a client does.
#[derive(Clone, Debug)]
pub enum Op {
    /// Sends a request and awaits one answer.
    Request {
        /// Where to.
        subject: String,
        /// Header, without its version line; empty for none.
        header: String,
        /// Its body.
        body: String,
    },
    /// Asks a consumer for messages, without waiting for new ones.
    Pull {
        /// Where to.
        subject: String,
        /// How many.
        batch: usize,
        /// The request.
        body: String,
    },
    /// Settles a message that was delivered, the `which`th from the last.
    Settle {
        /// Which one.
        which: usize,
        /// What to say.
        body: String,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request {
                subject,
                header,
                body,
            } => write!(f, "{subject} [{}] {body}", header.escape_debug()),
            Self::Pull { subject, body, .. } => write!(f, "{subject} {body}"),
            Self::Settle { which, body } => write!(f, "settle {which}: {body}"),
        }
    }
}

/// Operations, one after the other.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it was made from.
    pub seed: u64,
    /// What is done.
    pub ops: Vec<Op>,
}

impl Script {
    /// The script of a seed.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut source = Source(StdRng::seed_from_u64(seed));
        let mut ops = vec![source.create_stream()];
        for _ in 0..source.0.random_range(6..40) {
            ops.push(source.op());
        }
        Self { seed, ops }
    }

    /// The script without one operation.
    #[must_use]
    pub fn without(&self, op: usize) -> Self {
        let mut less = self.clone();
        less.ops.remove(op);
        less
    }
}

struct Source(StdRng);

/// Streams and consumers in use: few, so that they meet.
const STREAMS: &[&str] = &["A", "A", "A", "B"];
const CONSUMERS: &[&str] = &["c", "c", "d", "e"];

impl Source {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.0).expect("not empty")
    }

    fn chance(&mut self, of: f64) -> bool {
        self.0.random_bool(of)
    }

    fn number(&mut self, from: &[i64]) -> i64 {
        *from.choose(&mut self.0).expect("not empty")
    }

    fn op(&mut self) -> Op {
        match self.0.random_range(0..100) {
            0..4 => self.create_stream(),
            4..8 => self.update_stream(),
            8..38 => self.publish(),
            38..50 => self.create_consumer(),
            50..64 => self.pull(),
            64..76 => self.settle(),
            76..79 => self.purge(),
            79..84 => self.get(),
            84..87 => self.delete_message(),
            87..96 => self.ask(),
            96..98 => self.remove(),
            _ => self.odd(),
        }
    }

    fn request(subject: String, body: String) -> Op {
        Op::Request {
            subject,
            header: String::new(),
            body,
        }
    }

    fn subject(&mut self, stream: &str) -> String {
        let stream = stream.to_lowercase();
        match self.0.random_range(0..6) {
            0 => format!("{stream}.x.y"),
            1..4 => format!("{stream}.x"),
            _ => format!("{stream}.y"),
        }
    }

    fn filter(&mut self, stream: &str) -> String {
        let stream = stream.to_lowercase();
        let tail = self.pick(&["x", "x", "y", "*", ">", "x.*", "nothing"]);
        if self.chance(0.03) {
            return self.pick(&["z.>", "a..b", ">", ""]).to_owned();
        }
        format!("{stream}.{tail}")
    }

    fn stream_config(&mut self, stream: &str) -> Map<String, Value> {
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
        set("name", json!(stream));
        set("subjects", json!([format!("{}.>", stream.to_lowercase())]));
        set("storage", json!(self.pick(&["memory", "memory", "file"])));
        if self.chance(0.4) {
            set(
                "retention",
                json!(self.pick(&["limits", "interest", "workqueue"])),
            );
        }
        if self.chance(0.3) {
            set("max_msgs", json!(self.number(&[-1, 0, 1, 3, 5])));
        }
        if self.chance(0.3) {
            set("max_msgs_per_subject", json!(self.number(&[-1, 0, 1, 2])));
        }
        if self.chance(0.15) {
            set("max_bytes", json!(self.number(&[-1, 0, 100, 300])));
        }
        if self.chance(0.3) {
            set("discard", json!(self.pick(&["old", "new"])));
        }
        if self.chance(0.1) {
            set("discard_new_per_subject", json!(true));
        }
        if self.chance(0.1) {
            set("max_msg_size", json!(self.number(&[-1, 3, 100])));
        }
        if self.chance(0.3) {
            set("allow_direct", json!(self.chance(0.7)));
        }
        if self.chance(0.3) {
            set("allow_rollup_hdrs", json!(self.chance(0.8)));
        }
        if self.chance(0.1) {
            set("deny_delete", json!(true));
        }
        if self.chance(0.1) {
            set("deny_purge", json!(true));
        }
        if self.chance(0.1) {
            set(
                "duplicate_window",
                json!(self.number(&[0, 1_000_000, 60_000_000_000, 1])),
            );
        }
        if self.chance(0.1) {
            set(
                "max_age",
                json!(self.number(&[0, 3_600_000_000_000, 1, -1])),
            );
        }
        if self.chance(0.1) {
            set("max_consumers", json!(self.number(&[-1, 0, 1, 2])));
        }
        if self.chance(0.1) {
            set("first_seq", json!(self.number(&[0, 1, 100])));
        }
        if self.chance(0.1) {
            set("description", json!("some"));
        }
        if self.chance(0.1) {
            set("metadata", json!({"k": "v"}));
        }
        if self.chance(0.05) {
            set("num_replicas", json!(self.number(&[0, 1, 2, 3, 6])));
        }
        if self.chance(0.05) {
            set("no_ack", json!(true));
        }
        if self.chance(0.05) {
            set("sealed", json!(true));
        }
        if self.chance(0.05) {
            set("compression", json!(self.pick(&["none", "s2", "zip"])));
        }
        if self.chance(0.05) {
            set(
                "consumer_limits",
                json!({"max_ack_pending": 5, "inactive_threshold": 3_600_000_000_000_i64}),
            );
        }
        if self.chance(0.05) {
            set(
                "subjects",
                json!(self.pick(&["", ">", "b.>", "a.x", "$JS.x", "a..b"])),
            );
        }
        if self.chance(0.05) {
            let stream = stream.to_lowercase();
            set(
                "subjects",
                json!([format!("{stream}.x"), format!("{stream}.y")]),
            );
        }
        config
    }

    fn create_stream(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let config = self.stream_config(stream);
        let name = if self.chance(0.03) { "other" } else { stream };
        Self::request(
            format!("$JS.API.STREAM.CREATE.{name}"),
            Value::from(config).to_string(),
        )
    }

    fn update_stream(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let config = self.stream_config(stream);
        Self::request(
            format!("$JS.API.STREAM.UPDATE.{stream}"),
            Value::from(config).to_string(),
        )
    }

    fn publish(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let subject = self.subject(stream);
        let mut header = String::new();
        if self.chance(0.15) {
            header += self.pick(&[
                "Nats-Msg-Id: 1\r\n",
                "Nats-Msg-Id: 2\r\n",
                "Nats-Msg-Id: \r\n",
            ]);
        }
        if self.chance(0.08) {
            let sequence = self.0.random_range(0..8);
            header += &match self.0.random_range(0..4) {
                0 => format!("Nats-Expected-Last-Sequence: {sequence}\r\n"),
                1 => format!("Nats-Expected-Last-Subject-Sequence: {sequence}\r\n"),
                2 => "Nats-Expected-Last-Msg-Id: 1\r\n".to_owned(),
                _ => format!(
                    "Nats-Expected-Last-Subject-Sequence: {sequence}\r\nNats-Expected-Last-Subject-Sequence-Subject: {}\r\n",
                    self.filter(stream)
                ),
            };
        }
        if self.chance(0.05) {
            header += self.pick(&["Nats-Expected-Stream: A\r\n", "Nats-Expected-Stream: B\r\n"]);
        }
        if self.chance(0.05) {
            header += self.pick(&[
                "Nats-Rollup: sub\r\n",
                "Nats-Rollup: all\r\n",
                "Nats-Rollup: x\r\n",
            ]);
        }
        if self.chance(0.04) {
            header += self.pick(&[
                "Nats-TTL: 1h\r\n",
                "Nats-TTL: 0\r\n",
                "Nats-TTL: never\r\n",
                "Nats-TTL: x\r\n",
                "Nats-Expected-Last-Sequence: x\r\n",
                "nats-msg-id: 1\r\n",
                "Nats-Incr: +1\r\n",
                "Nats-Required-Api-Level: 99\r\n",
                "Nats-Required-Api-Level: 1\r\n",
            ]);
        }
        if self.chance(0.2) {
            header += "K: v\r\n";
        }
        let body = self.pick(&[
            "",
            "1",
            "22",
            "4444",
            "a longer body that takes some bytes of the limit",
        ]);
        Op::Request {
            subject,
            header,
            body: body.to_owned(),
        }
    }

    fn create_consumer(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let consumer = self.pick(CONSUMERS);
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
        set("name", json!(consumer));
        set(
            "ack_policy",
            json!(self.pick(&["explicit", "explicit", "explicit", "none", "all"])),
        );
        if self.chance(0.6) {
            set("durable_name", json!(consumer));
        }
        if self.chance(0.4) {
            let policy = self.pick(&[
                "all",
                "last",
                "new",
                "last_per_subject",
                "by_start_sequence",
                "by_start_time",
                "x",
            ]);
            set("deliver_policy", json!(policy));
            if policy == "by_start_sequence" && self.chance(0.9) {
                set("opt_start_seq", json!(self.number(&[0, 1, 2, 5, 1000])));
            }
        }
        if self.chance(0.4) {
            let filter = self.filter(stream);
            set("filter_subject", json!(filter));
        } else if self.chance(0.2) {
            let filters: Vec<String> = (0..2).map(|_| self.filter(stream)).collect();
            set("filter_subjects", json!(filters));
        }
        if self.chance(0.2) {
            set("max_deliver", json!(self.number(&[-1, 0, 1, 2])));
        }
        if self.chance(0.2) {
            set("max_ack_pending", json!(self.number(&[-1, 0, 1, 2])));
        }
        if self.chance(0.1) {
            set("max_waiting", json!(self.number(&[0, 1, 5])));
        }
        if self.chance(0.1) {
            set("headers_only", json!(true));
        }
        if self.chance(0.1) {
            set("max_batch", json!(self.number(&[0, 1, 3])));
        }
        if self.chance(0.05) {
            set(
                "max_expires",
                json!(self.number(&[0, 1_000_000, 1_000_000_000])),
            );
        }
        if self.chance(0.05) {
            set("max_bytes", json!(self.number(&[0, 100])));
        }
        if self.chance(0.1) {
            set(
                "ack_wait",
                json!(self.number(&[0, 30_000_000_000, 60_000_000_000, -1])),
            );
        }
        if self.chance(0.1) {
            set("backoff", json!([60_000_000_000_i64, 120_000_000_000_i64]));
        }
        if self.chance(0.1) {
            set("replay_policy", json!(self.pick(&["instant", "x"])));
        }
        if self.chance(0.1) {
            set(
                "inactive_threshold",
                json!(self.number(&[0, 3_600_000_000_000, -1])),
            );
        }
        if self.chance(0.1) {
            set("description", json!("some"));
        }
        if self.chance(0.1) {
            set("metadata", json!({"k": "v"}));
        }
        if self.chance(0.05) {
            set("sample_freq", json!(self.pick(&["100", "50%", "x"])));
        }
        if self.chance(0.05) {
            set("mem_storage", json!(true));
        }
        if self.chance(0.05) {
            set("num_replicas", json!(self.number(&[0, 1, 3])));
        }
        if self.chance(0.04) {
            set("flow_control", json!(true));
        }
        if self.chance(0.04) {
            set(
                "idle_heartbeat",
                json!(self.number(&[1, 3_600_000_000_000])),
            );
        }
        if self.chance(0.04) {
            set("deliver_group", json!("g"));
        }
        if self.chance(0.04) {
            set("rate_limit_bps", json!(1000));
        }
        if self.chance(0.05) {
            set(
                "priority_policy",
                json!(self.pick(&["none", "overflow", "pinned_client", "prioritized"])),
            );
            if self.chance(0.7) {
                set("priority_groups", json!(["g"]));
            }
        }
        let filter = config
            .get("filter_subject")
            .and_then(Value::as_str)
            .filter(|filter| !filter.is_empty())
            .map(str::to_owned);
        let mut request = Map::new();
        request.insert(
            "stream_name".to_owned(),
            json!(if self.chance(0.02) { "B" } else { stream }),
        );
        request.insert("config".to_owned(), Value::from(config));
        if self.chance(0.3) {
            request.insert(
                "action".to_owned(),
                json!(self.pick(&["create", "update", "", "x"])),
            );
        }
        let subject = match (self.0.random_range(0..6), filter) {
            (0, _) => format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}"),
            (1, Some(filter)) if filter != "a..b" => {
                format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{filter}")
            }
            _ => format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}"),
        };
        Self::request(subject, Value::from(request).to_string())
    }

    fn pull(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let consumer = self.pick(CONSUMERS);
        let batch = self.0.random_range(1..5);
        let mut body = Map::new();
        body.insert("batch".to_owned(), json!(batch));
        body.insert("no_wait".to_owned(), json!(true));
        if self.chance(0.1) {
            body.insert("max_bytes".to_owned(), json!(self.number(&[1, 60, 1000])));
        }
        if self.chance(0.05) {
            body.insert("group".to_owned(), json!(self.pick(&["g", "h", ""])));
        }
        if self.chance(0.05) {
            body.insert("min_pending".to_owned(), json!(2));
        }
        if self.chance(0.05) {
            body.insert("priority".to_owned(), json!(self.number(&[0, 5, 10])));
        }
        if self.chance(0.03) {
            body.insert("idle_heartbeat".to_owned(), json!(1_000_000_000));
        }
        Op::Pull {
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            batch,
            body: Value::from(body).to_string(),
        }
    }

    fn settle(&mut self) -> Op {
        let which = *[0, 0, 0, 1, 2, 3].choose(&mut self.0).expect("not empty");
        let body = self.pick(&[
            "+ACK",
            "+ACK",
            "",
            "-NAK",
            "-NAK {\"delay\": 3600000000000}",
            "+TERM",
            "+TERM because",
            "+WPI",
            "+NXT {\"batch\": 1, \"no_wait\": true}",
        ]);
        Op::Settle {
            which,
            body: body.to_owned(),
        }
    }

    fn purge(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let mut body = Map::new();
        if self.chance(0.4) {
            body.insert("filter".to_owned(), json!(self.filter(stream)));
        }
        if self.chance(0.3) {
            body.insert("seq".to_owned(), json!(self.0.random_range(0..6)));
        }
        if self.chance(0.3) {
            body.insert("keep".to_owned(), json!(self.0.random_range(0..3)));
        }
        let body = if body.is_empty() && self.chance(0.5) {
            String::new()
        } else {
            Value::from(body).to_string()
        };
        Self::request(format!("$JS.API.STREAM.PURGE.{stream}"), body)
    }

    fn get(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let subject = self.subject(stream);
        let body = match self.0.random_range(0..6) {
            0 => json!({"seq": self.0.random_range(0..8)}),
            1 => json!({"last_by_subj": subject}),
            2 => json!({"last_by_subj": self.filter(stream)}),
            3 => json!({"seq": self.0.random_range(0..5), "next_by_subj": self.filter(stream)}),
            4 => json!({}),
            _ => json!({"seq": 1, "last_by_subj": subject}),
        };
        match self.0.random_range(0..4) {
            0 => Self::request(
                format!("$JS.API.DIRECT.GET.{stream}.{subject}"),
                String::new(),
            ),
            1 => Self::request(format!("$JS.API.DIRECT.GET.{stream}"), body.to_string()),
            _ => Self::request(format!("$JS.API.STREAM.MSG.GET.{stream}"), body.to_string()),
        }
    }

    fn delete_message(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let seq: u64 = self.0.random_range(0..8);
        let body = match self.0.random_range(0..3) {
            0 => json!({"seq": seq, "no_erase": true}),
            _ => json!({"seq": seq}),
        };
        Self::request(
            format!("$JS.API.STREAM.MSG.DELETE.{stream}"),
            body.to_string(),
        )
    }

    fn ask(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let consumer = self.pick(CONSUMERS);
        let (subject, body) = match self.0.random_range(0..9) {
            0 | 1 => (format!("STREAM.INFO.{stream}"), String::new()),
            2 => (
                format!("STREAM.INFO.{stream}"),
                json!({"subjects_filter": self.filter(stream), "deleted_details": true})
                    .to_string(),
            ),
            3 => (
                "STREAM.NAMES".to_owned(),
                json!({"subject": self.filter(stream)}).to_string(),
            ),
            4 => (
                "STREAM.LIST".to_owned(),
                json!({"offset": self.number(&[0, 1, -1, 9])}).to_string(),
            ),
            5 => (format!("CONSUMER.NAMES.{stream}"), String::new()),
            6 => (format!("CONSUMER.LIST.{stream}"), String::new()),
            _ => (format!("CONSUMER.INFO.{stream}.{consumer}"), String::new()),
        };
        Self::request(format!("$JS.API.{subject}"), body)
    }

    fn remove(&mut self) -> Op {
        let stream = self.pick(STREAMS);
        let consumer = self.pick(CONSUMERS);
        let subject = match self.0.random_range(0..4) {
            0 => format!("STREAM.DELETE.{stream}"),
            1 => {
                let until = self.pick(&[
                    "",
                    "{\"pause_until\":\"2100-01-01T00:00:00Z\"}",
                    "{\"pause_until\":\"x\"}",
                ]);
                return Self::request(
                    format!("$JS.API.CONSUMER.PAUSE.{stream}.{consumer}"),
                    until.to_owned(),
                );
            }
            _ => format!("CONSUMER.DELETE.{stream}.{consumer}"),
        };
        Self::request(format!("$JS.API.{subject}"), String::new())
    }

    fn odd(&mut self) -> Op {
        let subject = self.pick(&[
            "STREAM.CREATE.A",
            "STREAM.UPDATE.A",
            "STREAM.INFO.A",
            "STREAM.NAMES",
            "STREAM.LIST",
            "STREAM.DELETE.A",
            "STREAM.PURGE.A",
            "STREAM.MSG.GET.A",
            "STREAM.MSG.DELETE.A",
            "CONSUMER.CREATE.A",
            "CONSUMER.CREATE.A.c",
            "CONSUMER.DURABLE.CREATE.A.c",
            "CONSUMER.INFO.A.c",
            "CONSUMER.NAMES.A",
            "CONSUMER.LIST.A",
            "CONSUMER.DELETE.A.c",
            "CONSUMER.PAUSE.A.c",
            "CONSUMER.UNPIN.A.c",
            "DIRECT.GET.A",
            "STREAM.INFO.a b",
            "STREAM.INFO.nothing",
            "CONSUMER.INFO.A.nothing",
        ]);
        let body = self.pick(&[
            "",
            "{",
            "[]",
            "null",
            "{}",
            "x",
            "{\"a\":1}",
            "{\"name\":5}",
            "{\"config\":{}}",
            "{\"seq\":\"1\"}",
            "{\"offset\":\"x\"}",
        ]);
        // To the reference this is a purge of everything, here it is refused on purpose.
        let body = match (subject, body) {
            ("STREAM.PURGE.A", "x") => "[]",
            _ => body,
        };
        Self::request(
            format!("$JS.API.{}", subject.replace(' ', "_")),
            body.to_owned(),
        )
    }
}
