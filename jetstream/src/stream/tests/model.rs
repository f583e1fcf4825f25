//! The stream against a list of messages, whatever happens to both.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::api::ApiError;
use crate::ports::Table;
use crate::stream::config::{Discard, Retention};
use menes_protocol::subject;

const SUBJECTS: [&str; 7] = ["a", "a.b", "a.c", "b", "b.x.y", "ab", "c"];
const FILTERS: [&[&str]; 9] = [
    &[">"],
    &["a"],
    &["a.*"],
    &["b.>"],
    &["a", "b.>"],
    &["*.b", "a.*"],
    &["none"],
    &["*"],
    &["c", "c", "ab"],
];

/// What is thrown at the stream; numbers are brought into range when it happens.
#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<Draft>),
    Wait(i64),
    Remove(Vec<u64>),
    Purge {
        filter: Option<&'static str>,
        below: Option<u64>,
        keep: Option<u64>,
    },
    Advance,
    Update(Box<StreamConfig>),
    Reload,
    Cache(usize),
    /// The cache keeps rows, and how to read pieces.
    ForgetBytes,
}

#[derive(Clone, Debug)]
struct Draft {
    subject: &'static str,
    payload: usize,
    asks: Vec<Ask>,
}

#[derive(Clone, Debug)]
enum Ask {
    Id(u8),
    ExpectedLast(u64),
    ExpectedInSubject(u64, Option<&'static str>),
    ExpectedId(u8),
    Rollup(bool),
    Ttl(u64),
    NeverOld,
    Nothing,
}

fn asks() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (0u8..5).prop_map(Ask::Id),
        1 => (0u64..3).prop_map(Ask::ExpectedLast),
        2 => (0u64..2, select(vec![None, Some("a.*"), Some(">"), Some("b")]))
            .prop_map(|(off, filter)| Ask::ExpectedInSubject(off, filter)),
        1 => (0u8..5).prop_map(Ask::ExpectedId),
        1 => any::<bool>().prop_map(Ask::Rollup),
        2 => (1u64..4).prop_map(Ask::Ttl),
        1 => Just(Ask::NeverOld),
        1 => Just(Ask::Nothing),
    ]
}

fn drafts() -> impl Strategy<Value = Draft> {
    let asks = prop_oneof![
        3 => Just(Vec::new()),
        2 => proptest::collection::vec(asks(), 1..3),
    ];
    (select(&SUBJECTS[..]), 0usize..30, asks).prop_map(|(subject, payload, asks)| Draft {
        subject,
        payload,
        asks,
    })
}

fn configs() -> impl Strategy<Value = StreamConfig> {
    (
        select(vec![-1i64, -1, 4, 20]),
        select(vec![-1i64, -1, 150, 900]),
        select(vec![-1i64, -1, 1, 2, 5]),
        any::<bool>(),
        any::<bool>(),
        select(vec![0i64, 0, 2 * SECOND, 5 * SECOND]),
        select(vec![0i64, SECOND, 4 * SECOND]),
        select(vec![-1i32, -1, 40]),
    )
        .prop_map(
            |(max_msgs, max_bytes, per, new, new_per, max_age, window, size)| StreamConfig {
                max_msgs,
                max_bytes,
                max_msgs_per_subject: per,
                discard: if new { Discard::New } else { Discard::Old },
                discard_new_per_subject: new && new_per && per > 0,
                max_age,
                duplicate_window: window,
                max_msg_size: size,
                ..config()
            },
        )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => proptest::collection::vec(drafts(), 1..8).prop_map(Step::Publish),
        3 => (0i64..2 * SECOND).prop_map(Step::Wait),
        4 => proptest::collection::vec(any::<u64>(), 1..5).prop_map(Step::Remove),
        2 => (
            select(vec![None, Some(">"), Some("a"), Some("a.*"), Some("*"), Some("b.>")]),
            select(vec![None, Some(0u64), Some(30), Some(60), Some(100), Some(105)]),
            select(vec![None, None, Some(1u64), Some(3)]),
        )
            .prop_map(|(filter, below, keep)| Step::Purge { filter, below, keep }),
        2 => Just(Step::Advance),
        1 => configs().prop_map(|config| Step::Update(Box::new(config))),
        2 => Just(Step::Reload),
        1 => select(vec![0usize, 1000, 1 << 20]).prop_map(Step::Cache),
        4 => Just(Step::ForgetBytes),
    ]
}

/// A stored message.
#[derive(Clone, Debug, PartialEq)]
struct Message {
    seq: u64,
    subject: String,
    payload: Vec<u8>,
    time: Timestamp,
    size: u64,
    expires: Option<Timestamp>,
    ageless: bool,
}

/// The stream as a list.
struct Model {
    config: StreamConfig,
    messages: Vec<Message>,
    first_when_empty: u64,
    last: u64,
    last_time: Timestamp,
    log_time: Timestamp,
    last_id: String,
    /// Id, sequence and time of what the window still knows.
    ids: Vec<(String, u64, Timestamp)>,
    interest: fn(&[u8]) -> bool,
}

fn limit(value: i64) -> u64 {
    u64::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .unwrap_or(u64::MAX)
}

impl Model {
    fn new(config: StreamConfig, interest: fn(&[u8]) -> bool) -> Self {
        Self {
            messages: Vec::new(),
            first_when_empty: config.first_seq.max(1),
            last: config.first_seq.max(1) - 1,
            last_time: Timestamp::ZERO,
            log_time: Timestamp::ZERO,
            last_id: String::new(),
            ids: Vec::new(),
            config,
            interest,
        }
    }

    fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.size).sum()
    }

    fn first(&self) -> u64 {
        self.messages
            .first()
            .map_or(self.first_when_empty, |message| message.seq)
    }

    fn settle(&mut self) {
        if self.messages.is_empty() {
            self.first_when_empty = self.last + 1;
        }
    }

    fn in_subject(&self, filter: &str) -> Vec<&Message> {
        let matches = |m: &&Message| subject::matches(filter.as_bytes(), m.subject.as_bytes());
        self.messages.iter().filter(matches).collect()
    }

    fn forget_ids(&mut self, now: Timestamp) {
        let window = self.config.duplicate_window;
        self.ids.retain(|(_, _, time)| now.0 - time.0 < window);
    }

    fn is_too_large(&self, proposal: &Proposal) -> bool {
        let body = proposal.header.len() + proposal.payload.len();
        body as u64 > limit(i64::from(self.config.max_msg_size))
    }

    fn publish(&mut self, proposal: &Proposal, draft: &Draft, time: Timestamp) -> PublishOutcome {
        let refused = PublishOutcome::Refused;
        let time = time.max(self.last_time);
        self.log_time = self.log_time.max(time);
        if self.is_too_large(proposal) {
            return refused(ApiError::message_too_large());
        }
        let body = proposal.header.len() + proposal.payload.len();
        let mut id = String::new();
        let (mut rollup, mut expires, mut ageless) = (None, None, false);
        for ask in &draft.asks {
            match ask {
                Ask::Ttl(seconds) => expires = Some(*seconds),
                Ask::NeverOld => ageless = true,
                Ask::Id(number) => id = number.to_string(),
                Ask::Rollup(all) => rollup = Some(*all),
                _ => {}
            }
        }
        if (expires.is_some() || ageless) && !self.config.allow_msg_ttl {
            return refused(ApiError::message_ttl_disabled());
        }
        for ask in &draft.asks {
            if let Ask::ExpectedInSubject(off, filter) = ask {
                let found = self.in_subject(filter.unwrap_or(draft.subject));
                let last = found.last().map_or(0, |message| message.seq);
                if *off > 0 {
                    return refused(ApiError::wrong_last_sequence(last));
                }
            }
        }
        for ask in &draft.asks {
            if let Ask::ExpectedLast(off) = ask
                && *off > 0
            {
                return refused(ApiError::wrong_last_sequence(self.last));
            }
        }
        if !id.is_empty() && self.config.duplicate_window > 0 {
            self.forget_ids(self.log_time);
            if let Some((_, seq, _)) = self.ids.iter().find(|(known, ..)| *known == id) {
                return PublishOutcome::Duplicate {
                    seq: StreamSeq(*seq),
                };
            }
        }
        for ask in &draft.asks {
            if let Ask::ExpectedId(number) = ask
                && self.last_id != number.to_string()
            {
                return refused(ApiError::wrong_last_msg_id(&self.last_id));
            }
        }
        if rollup.is_some() && !self.config.allow_rollup_hdrs {
            return refused(ApiError::rollup("rollup not permitted"));
        }
        if self.config.retention == Retention::Interest
            && !(self.interest)(draft.subject.as_bytes())
        {
            let seq = self.take_seq(&id, time);
            self.roll_up(rollup, draft.subject, seq);
            self.settle();
            return PublishOutcome::NotKept {
                seq: StreamSeq(seq),
            };
        }
        let overhead = match (self.config.storage, proposal.header.len()) {
            (Storage::Memory, _) => 16,
            (Storage::File, 0) => 30,
            (Storage::File, _) => 34,
        };
        let size = (draft.subject.len() + body + overhead) as u64;
        let same: Vec<_> = self
            .in_subject(draft.subject)
            .into_iter()
            .cloned()
            .collect();
        let per_subject = limit(self.config.max_msgs_per_subject);
        if self.config.discard == Discard::New {
            let replaces = same.len() as u64 >= per_subject;
            if replaces && self.config.discard_new_per_subject && rollup.is_none() {
                return refused(ApiError::store("maximum messages per subject exceeded"));
            }
            if self.messages.len() as u64 >= limit(self.config.max_msgs) && !replaces {
                return refused(ApiError::store("maximum messages exceeded"));
            }
            if self.bytes() + size > limit(self.config.max_bytes)
                && (!replaces || same[0].size < size)
            {
                return refused(ApiError::store("maximum bytes exceeded"));
            }
        }
        let previous = StreamSeq(same.last().map_or(0, |message| message.seq));
        let seq = self.take_seq(&id, time);
        self.messages.push(Message {
            seq,
            subject: draft.subject.into(),
            payload: proposal.payload.clone(),
            time,
            size,
            expires: expires
                .filter(|_| !ageless)
                .map(|s| Timestamp(time.0 + s as i64 * SECOND)),
            ageless,
        });
        self.hold_per_subject(draft.subject);
        self.hold_limits();
        self.roll_up(rollup, draft.subject, seq);
        self.settle();
        PublishOutcome::Stored {
            seq: StreamSeq(seq),
            previous,
        }
    }

    fn take_seq(&mut self, id: &str, time: Timestamp) -> u64 {
        self.last += 1;
        self.last_time = time;
        self.last_id = id.into();
        if !id.is_empty() && self.config.duplicate_window > 0 {
            self.ids.push((id.into(), self.last, time));
        }
        self.last
    }

    fn hold_per_subject(&mut self, subject: &str) {
        let per_subject = limit(self.config.max_msgs_per_subject);
        while self.in_subject(subject).len() as u64 > per_subject {
            let seq = self.in_subject(subject)[0].seq;
            self.messages.retain(|message| message.seq != seq);
        }
    }

    fn hold_limits(&mut self) {
        if self.config.discard == Discard::Old {
            while self.messages.len() as u64 > limit(self.config.max_msgs)
                || self.bytes() > limit(self.config.max_bytes)
            {
                self.messages.remove(0);
            }
        }
        self.settle();
    }

    fn roll_up(&mut self, rollup: Option<bool>, subject: &str, seq: u64) {
        match rollup {
            Some(true) => self.messages.retain(|m| m.seq >= seq),
            Some(false) => self
                .messages
                .retain(|m| m.seq >= seq || m.subject != subject),
            None => {}
        }
    }

    fn purge(&mut self, purge: &Purge) {
        let filter = purge.filter.as_deref().filter(|filter| *filter != ">");
        let below = purge.below.map_or(0, |seq| seq.0);
        let keep = purge.keep.unwrap_or(0) as usize;
        let mut boundary = if below == 0 { u64::MAX } else { below };
        if keep > 0 {
            let found = self.in_subject(filter.unwrap_or(">"));
            let kept = if found.len() <= keep {
                0
            } else {
                found[found.len() - keep].seq
            };
            boundary = boundary.min(kept);
        }
        let wanted = filter.unwrap_or(">").as_bytes();
        self.messages
            .retain(|m| m.seq >= boundary || !subject::matches(wanted, m.subject.as_bytes()));
        self.settle();
        if filter.is_none() && boundary != u64::MAX && boundary > self.last + 1 {
            self.first_when_empty = boundary;
            self.last = boundary - 1;
        }
    }

    fn advance(&mut self, now: Timestamp) {
        self.log_time = self.log_time.max(now);
        let now = self.log_time;
        if self.config.duplicate_window > 0 {
            self.forget_ids(now);
        }
        let age = self.config.max_age;
        self.messages.retain(|m| {
            let old = age > 0 && now.0 - m.time.0 >= age && !m.ageless;
            !old && m.expires.is_none_or(|at| at > now)
        });
        self.settle();
    }

    fn update(&mut self, config: StreamConfig, now: Timestamp) {
        self.log_time = self.log_time.max(now);
        if config.duplicate_window != self.config.duplicate_window {
            self.forget_ids(self.log_time);
            if config.duplicate_window <= 0 {
                self.ids.clear();
            }
        }
        let lowered = limit(config.max_msgs_per_subject) < limit(self.config.max_msgs_per_subject);
        self.config = config;
        self.hold_limits();
        if lowered {
            for subject in SUBJECTS {
                self.hold_per_subject(subject);
            }
        }
        self.settle();
        self.advance(now);
    }
}

/// Both, side by side.
struct Pair {
    world: World,
    model: Model,
    /// Messages before the step, to check what is reported as removed.
    before: Vec<Message>,
}

impl Pair {
    fn new(config: StreamConfig) -> Self {
        let interest: fn(&[u8]) -> bool = |subject| subject != b"c";
        let mut world = World::new(config.clone());
        world.interest = interest;
        Self {
            world,
            model: Model::new(config, interest),
            before: Vec::new(),
        }
    }

    fn proposal(&self, draft: &Draft) -> Proposal {
        let mut fields = Vec::new();
        for ask in &draft.asks {
            fields.extend(match ask {
                Ask::Id(id) => vec![format!("Nats-Msg-Id: {id}")],
                Ask::ExpectedLast(off) => {
                    vec![format!(
                        "Nats-Expected-Last-Sequence: {}",
                        self.model.last + off
                    )]
                }
                Ask::ExpectedInSubject(off, filter) => {
                    let found = self.model.in_subject(filter.unwrap_or(draft.subject));
                    let last = found.last().map_or(0, |message| message.seq) + off;
                    let name = "Nats-Expected-Last-Subject-Sequence";
                    let mut fields = vec![format!("{name}: {last}")];
                    fields.extend(filter.map(|filter| format!("{name}-Subject: {filter}")));
                    fields
                }
                Ask::ExpectedId(id) => vec![format!("Nats-Expected-Last-Msg-Id: {id}")],
                Ask::Rollup(true) => vec!["Nats-Rollup: all".to_owned()],
                Ask::Rollup(false) => vec!["Nats-Rollup: sub".to_owned()],
                Ask::Ttl(seconds) => vec![format!("Nats-TTL: {seconds}")],
                Ask::NeverOld => vec!["Nats-TTL: never".to_owned()],
                Ask::Nothing => vec!["Color: blue".to_owned()],
            });
        }
        let header = if fields.is_empty() {
            String::new()
        } else {
            format!("NATS/1.0\r\n{}\r\n\r\n", fields.join("\r\n"))
        };
        let payload = vec![b'a' + (self.world.index % 26) as u8; draft.payload];
        Proposal {
            subject: draft.subject.into(),
            header,
            payload,
        }
    }

    fn step(&mut self, step: &Step) {
        self.before.clone_from(&self.model.messages);
        self.world.removed.clear();
        match step {
            Step::Publish(drafts) => self.publish(drafts),
            Step::Wait(nanos) => self.world.wait(*nanos),
            Step::Remove(picks) => {
                let seqs: Vec<_> = picks
                    .iter()
                    .map(|pick| StreamSeq(pick % (self.model.last + 2)))
                    .collect();
                self.world.apply(&Operation::Remove(seqs.clone()));
                self.model
                    .messages
                    .retain(|m| !seqs.contains(&StreamSeq(m.seq)));
                self.model.settle();
            }
            Step::Purge {
                filter,
                below,
                keep,
            } => {
                let span = self.model.last + 1 - self.model.first();
                let purge = Purge {
                    filter: filter.map(str::to_owned),
                    below: below.map(|b| StreamSeq(self.model.first() + span * b / 100)),
                    keep: *keep,
                    ..Purge::default()
                };
                let before = self.model.messages.len();
                let purged = self.world.purge(purge.clone());
                self.model.purge(&purge);
                assert_eq!(purged, (before - self.model.messages.len()) as u64);
            }
            Step::Advance => {
                let now = self.world.time();
                self.world.advance();
                self.model.advance(now);
            }
            Step::Update(config) => {
                let config = StreamConfig {
                    storage: self.model.config.storage,
                    retention: self.model.config.retention,
                    allow_msg_ttl: self.model.config.allow_msg_ttl,
                    allow_rollup_hdrs: self.model.config.allow_rollup_hdrs,
                    ..(**config).clone()
                };
                let now = self.world.time();
                self.world.update(config.clone());
                self.model.update(config, now);
            }
            Step::Reload => {
                if self.model.config.storage == Storage::File {
                    self.world.reload();
                }
            }
            Step::Cache(limit) => self.world.cache.set_limit(*limit),
            Step::ForgetBytes => self.world.cache.forget_bytes(),
        }
        self.compare();
    }

    /// Publishes drafts. What a draft expects is taken from the state before the whole block, so
    /// later ones of a block may turn out wrong; the model decides on the header that was sent.
    fn publish(&mut self, drafts: &[Draft]) {
        let proposals: Vec<_> = drafts.iter().map(|draft| self.proposal(draft)).collect();
        let base = self.world.time();
        let outcomes = self.world.publish(&proposals);
        for (n, (draft, proposal)) in drafts.iter().zip(&proposals).enumerate() {
            let time = Timestamp(base.0 + n as i64);
            let draft = self.as_sent(draft, proposal);
            let expected = if conflicts(proposal) && !self.model.is_too_large(proposal) {
                self.model.log_time = self.model.log_time.max(time.max(self.model.last_time));
                PublishOutcome::Refused(ApiError::bad_request())
            } else {
                self.model.publish(proposal, &draft, time)
            };
            assert_eq!(outcomes[n], expected, "record {n}: {draft:?}");
        }
    }

    /// The draft with offsets relative to what the model has now.
    fn as_sent(&self, draft: &Draft, proposal: &Proposal) -> Draft {
        let mut draft = draft.clone();
        let filter = draft.asks.iter().find_map(|ask| match ask {
            Ask::ExpectedInSubject(_, filter) => *filter,
            _ => None,
        });
        let found = self.model.in_subject(filter.unwrap_or(draft.subject));
        let last = found.last().map_or(0, |message| message.seq);
        for ask in &mut draft.asks {
            match ask {
                Ask::ExpectedLast(off) => {
                    let sent = field(proposal, "Nats-Expected-Last-Sequence");
                    *off = u64::from(sent != Some(self.model.last));
                }
                Ask::ExpectedInSubject(off, of) => {
                    let sent = field(proposal, "Nats-Expected-Last-Subject-Sequence");
                    (*off, *of) = (u64::from(sent != Some(last)), filter);
                }
                _ => {}
            }
        }
        draft
    }

    fn compare(&mut self) {
        let Self {
            world,
            model,
            before,
        } = self;
        let state = world.state();
        let expected = StreamState {
            messages: model.messages.len() as u64,
            bytes: model.bytes(),
            first_seq: if (model.first(), model.last) == (1, 0) {
                0
            } else {
                model.first()
            },
            first_ts: model
                .messages
                .first()
                .map_or(Timestamp::ZERO, |message| message.time),
            last_seq: model.last,
            last_ts: model.last_time,
            num_subjects: counts(model, ">").len() as u64,
            num_deleted: model.last + 1 - model.first() - model.messages.len() as u64,
            ..StreamState::default()
        };
        assert_eq!(state, expected);

        let mut from = 0;
        for message in &model.messages {
            let found = world
                .read(|s, v| s.next_message(StreamSeq(from), &Filters::all(), v))
                .expect("readable")
                .expect("there is one more");
            assert_eq!(found.seq.0, message.seq);
            assert_eq!(found.subject(), message.subject.as_bytes());
            assert_eq!(found.payload(), message.payload);
            assert_eq!(found.time(), message.time);
            from = message.seq + 1;
        }
        assert!(
            world
                .read(|s, v| s.next_message(StreamSeq(from), &Filters::all(), v))
                .expect("readable")
                .is_none()
        );

        let there: BTreeSet<u64> = model.messages.iter().map(|message| message.seq).collect();
        let deleted: Vec<u64> = (model.first()..=model.last)
            .filter(|seq| !there.contains(seq))
            .collect();
        assert_eq!(
            world
                .read(|s, v| s.deleted(usize::MAX, v))
                .expect("readable"),
            deleted
        );
        for seq in model.first().saturating_sub(2)..=model.last + 1 {
            assert_eq!(
                world.message(seq).is_some(),
                there.contains(&seq),
                "sequence {seq}"
            );
        }

        for filters in FILTERS {
            compare_filters(world, model, filters);
        }
        for nanos in [0, SECOND, world.now / 2, world.now, world.now + 1] {
            let time = Timestamp(START + nanos);
            let expected = model.messages.iter().find(|m| m.time >= time);
            let found = world.read(|s, v| s.seq_at_time(time, v)).expect("readable");
            assert_eq!(found, expected.map(|m| StreamSeq(m.seq)), "at {nanos}");
        }
        compare_expiry(world, model);
        compare_removed(world, model, before);
        let segments: u64 = (1..1000).map(|segment| world.segments.live(segment)).sum();
        if model.config.storage == Storage::File {
            assert_eq!(segments, world.state.row_count(Table::Block) as u64);
        } else {
            assert_eq!(
                world.stream.memory.len(),
                world.state.row_count(Table::Block)
            );
        }
    }
}

fn field(proposal: &Proposal, name: &str) -> Option<u64> {
    let line = proposal
        .header
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line?.parse().ok()
}

/// Whether a header has two different values for one field.
fn conflicts(proposal: &Proposal) -> bool {
    let mut fields = BTreeMap::new();
    proposal
        .header
        .lines()
        .filter_map(|line| line.split_once(": "))
        .any(|(name, value)| {
            fields
                .insert(name, value)
                .is_some_and(|other| other != value)
        })
}

fn counts(model: &Model, filter: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for message in model.in_subject(filter) {
        *counts.entry(message.subject.clone()).or_insert(0) += 1;
    }
    counts
}

fn compare_filters(world: &mut World, model: &Model, names: &[&str]) {
    let filters = Filters::new(names.iter().copied());
    let found: Vec<&Message> = model
        .messages
        .iter()
        .filter(|m| filters.matches(m.subject.as_bytes()))
        .collect();
    let seqs: Vec<u64> = found.iter().map(|m| m.seq).collect();
    assert_eq!(world.walk(&filters), seqs, "{names:?}");
    let last = world
        .read(|s, v| s.last_sequence_for(&filters, v))
        .expect("readable");
    assert_eq!(last.0, seqs.last().copied().unwrap_or(0), "{names:?}");
    let span = model.last + 2 - model.first();
    for part in 0..4 {
        let at = model.first() + span * part / 3;
        let count = world.read(|s, v| s.count_matching(StreamSeq(at), &filters, v));
        let expected = seqs.iter().filter(|seq| **seq >= at).count() as u64;
        assert_eq!(count.expect("readable"), expected, "{names:?} from {at}");
        let mut newest = BTreeMap::new();
        for message in found.iter().filter(|m| m.seq <= at) {
            newest.insert(message.subject.as_str(), StreamSeq(message.seq));
        }
        let mut newest: Vec<_> = newest.into_values().collect();
        newest.sort_unstable();
        let up_to = Some(StreamSeq(at));
        let last = world.read(|s, v| s.last_per_subject(&filters, up_to, usize::MAX, v));
        assert_eq!(last.expect("readable"), newest, "{names:?} up to {at}");
    }
    if let [name] = names {
        let (subjects, total) = world
            .read(|s, v| s.subjects(name, 0, usize::MAX, v))
            .expect("readable");
        assert_eq!(subjects, counts(model, name));
        assert_eq!(total, subjects.len());
    }
}

/// The next expiry may be announced early, never late.
fn compare_expiry(world: &World, model: &Model) {
    let age = model.config.max_age;
    let due = model.messages.iter().flat_map(|m| {
        let by_age = (age > 0 && !m.ageless).then(|| Timestamp(m.time.0 + age));
        by_age.into_iter().chain(m.expires)
    });
    if let Some(due) = due.min() {
        let announced = world.stream.next_expiry();
        assert!(
            announced.is_some_and(|at| at <= due),
            "{announced:?} for {due:?}"
        );
    }
}

/// What is gone was reported, and what was reported is gone.
fn compare_removed(world: &World, model: &Model, before: &[Message]) {
    let there: BTreeSet<u64> = model.messages.iter().map(|m| m.seq).collect();
    let reported = |m: &Message| {
        world.removed.iter().any(|removed| match removed {
            Removed::Message { seq, subject } => seq.0 == m.seq && *subject == m.subject.as_bytes(),
            Removed::Below(below) => m.seq < below.0,
            Removed::Purged { .. } => false,
            Removed::Matching { filter, below } => {
                m.seq < below.0 && subject::matches(filter, m.subject.as_bytes())
            }
        })
    };
    for message in before {
        let is_gone = !there.contains(&message.seq);
        assert_eq!(
            reported(message),
            is_gone,
            "{message:?} {:?}",
            world.removed
        );
    }
    for message in &model.messages {
        assert!(
            !reported(message),
            "{message:?} is there; {:?}",
            world.removed
        );
    }
}

fn run(config: StreamConfig, steps: &[Step]) {
    let mut pair = Pair::new(config.clone());
    for step in steps {
        pair.step(step);
    }
    // The same entries give the same stream, with nothing in the cache on the way.
    let Pair { world, model, .. } = pair;
    let mut again = World::with_cache(config, BlockCache::new(0));
    again.log = world.log.clone();
    again.interest = world.interest;
    for operation in &world.history {
        again.apply(operation);
    }
    again.now = world.now;
    let mut pair = Pair {
        before: model.messages.clone(),
        world: again,
        model,
    };
    pair.world.removed.clear();
    pair.compare();
}

proptest! {
    #[test]
    fn a_stream_is_a_list_of_messages(
        first in configs(),
        (memory, interest, ttl, rollup) in any::<(bool, bool, bool, bool)>(),
        steps in proptest::collection::vec(steps(), 1..60),
    ) {
        run(
            StreamConfig {
                storage: if memory { Storage::Memory } else { Storage::File },
                retention: if interest { Retention::Interest } else { Retention::Limits },
                allow_msg_ttl: ttl,
                allow_rollup_hdrs: rollup,
                ..first
            },
            &steps,
        );
    }
}
