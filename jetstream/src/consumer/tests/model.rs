//! Random lives of a consumer against a naive model of what it must do.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const ACK_WAIT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Pull {
        inbox: u8,
        batch: u8,
        no_wait: bool,
        expires_s: u8,
    },
    Ack(Index),
    Nak(Index, u8),
    Progress(Index),
    Term(Index),
    Advance(u16),
    /// Applies the first events proposed.
    Apply(u8),
    ApplyAll,
    Remove(Index),
    PurgeBelow(Index),
    PurgeSubject(u8, Index),
    FlushStore,
    Crash,
    /// The log refuses what was proposed.
    Lose,
    /// Someone stops or begins to listen on an inbox.
    Listen(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        6 => (0u8..3).prop_map(Step::Publish),
        4 => (0u8..3, 1u8..6, any::<bool>(), 0u8..20).prop_map(
            |(inbox, batch, no_wait, expires_s)| Step::Pull { inbox, batch, no_wait, expires_s }
        ),
        6 => index().prop_map(Step::Ack),
        2 => (index(), 0u8..15).prop_map(|(which, delay)| Step::Nak(which, delay)),
        1 => index().prop_map(Step::Progress),
        1 => index().prop_map(Step::Term),
        3 => (0u16..12_000).prop_map(Step::Advance),
        3 => (1u8..4).prop_map(Step::Apply),
        3 => Just(Step::ApplyAll),
        1 => index().prop_map(Step::Remove),
        1 => index().prop_map(Step::PurgeBelow),
        1 => (0u8..3, index()).prop_map(|(subject, below)| Step::PurgeSubject(subject, below)),
        1 => Just(Step::FlushStore),
        1 => Just(Step::Crash),
        1 => Just(Step::Lose),
        1 => (0u8..3, any::<bool>()).prop_map(|(inbox, listens)| Step::Listen(inbox, listens)),
    ]
}

fn configuration() -> impl Strategy<Value = ConsumerConfig> {
    let filters = prop_oneof![
        Just(vec![]),
        Just(vec!["a".to_owned()]),
        Just(vec!["a".to_owned(), "c".to_owned()])
    ];
    let max_deliver = prop_oneof![Just(-1), Just(1), Just(2), Just(3)];
    let max_ack_pending = prop_oneof![Just(-1), Just(1), Just(3), Just(100)];
    let policy = prop_oneof![4 => Just(AckPolicy::Explicit), 2 => Just(AckPolicy::All), 1 => Just(AckPolicy::None)];
    let start = prop_oneof![
        3 => Just(config::DeliverPolicy::All),
        1 => Just(config::DeliverPolicy::New),
        1 => Just(config::DeliverPolicy::LastPerSubject)
    ];
    (filters, max_deliver, max_ack_pending, policy, start).prop_map(
        |(filter_subjects, max_deliver, max_ack_pending, ack_policy, deliver_policy)| {
            ConsumerConfig {
                filter_subjects,
                max_deliver,
                max_ack_pending,
                ack_policy,
                deliver_policy,
                ack_wait: 10_000_000_000,
                ..pull_config()
            }
        },
    )
}

/// A delivery that is not settled: how often it was made, and when it is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    deliveries: u64,
    due: Timestamp,
}

/// One view of the consumer: what the log knows, or what its server knows.
#[derive(Clone, Debug, Default)]
struct View {
    last: u64,
    consumer_seq: u64,
    open: BTreeMap<u64, Open>,
}

struct Model {
    world: World,
    config: ConsumerConfig,
    filters: Filters,
    /// What the applied events say.
    log: View,
    /// What was sent and asked for.
    live: View,
    /// How often this server sent what the log does not know to be settled.
    sent: BTreeMap<u64, u64>,
    /// Acked, terminated or gone according to the log.
    settled: BTreeSet<u64>,
    exhausted: BTreeSet<u64>,
    /// First messages of a last-per-subject consumer, and where they end.
    first: Option<(BTreeSet<u64>, u64)>,
    seen_applied: usize,
    /// Acks were lost, so more may be open than is allowed to be handed out.
    has_lost: bool,
    floor: Position,
}

impl Model {
    fn new(config: ConsumerConfig) -> Self {
        let mut before = World::new(pull_config());
        for number in 0..8 {
            before.publish(["a", "b", "c", "a"][number % 4], "");
        }
        let world = World::over(before.stream, config.clone());
        let filters = Filters::new(config.filters());
        let mut first = None;
        if config.deliver_policy == config::DeliverPolicy::LastPerSubject {
            let mut last: BTreeMap<&[u8], u64> = BTreeMap::new();
            for (seq, message) in &world.stream.messages {
                if filters.matches(message.subject()) {
                    last.insert(message.subject(), *seq);
                }
            }
            first = Some((last.into_values().collect(), world.stream.last));
        }
        let last = world.consumer.delivered().stream.0;
        let view = View {
            last,
            ..View::default()
        };
        let floor = world.consumer.ack_floor();
        Self {
            world,
            config,
            filters,
            log: view.clone(),
            live: view,
            sent: BTreeMap::new(),
            settled: BTreeSet::new(),
            exhausted: BTreeSet::new(),
            first,
            seen_applied: 0,
            has_lost: false,
            floor,
        }
    }

    /// Sequences still to be sent for the first time.
    fn unsent(&self) -> Vec<u64> {
        let rest = self.world.stream.messages.range(self.live.last + 1..);
        rest.filter(|(seq, message)| {
            let is_listed = self
                .first
                .as_ref()
                .is_none_or(|(list, end)| **seq > *end || list.contains(seq));
            is_listed && self.filters.matches(message.subject())
        })
        .map(|(seq, _)| *seq)
        .collect()
    }

    fn run(&mut self, step: Step) {
        let pick = |index: Index, from: Vec<u64>| (!from.is_empty()).then(|| *index.get(&from));
        let delivered: Vec<u64> = (1..=self.live.last).collect();
        let stored: Vec<u64> = self.world.stream.messages.keys().copied().collect();
        match step {
            Step::Publish(subject) => {
                self.world
                    .publish(["a", "b", "c"][usize::from(subject)], "");
            }
            Step::Pull {
                inbox,
                batch,
                no_wait,
                expires_s,
            } => {
                let expires = u64::from(expires_s) * 1_000_000_000;
                let request =
                    format!(r#"{{"batch":{batch},"no_wait":{no_wait},"expires":{expires}}}"#);
                self.world.pull(&format!("inbox{inbox}"), &request);
            }
            Step::Ack(which) => {
                if let Some(seq) = pick(which, delivered) {
                    self.world.ack(seq);
                    self.settle(seq);
                }
            }
            Step::Term(which) => {
                if let Some(seq) = pick(which, delivered) {
                    self.world.ack_with(seq, "+TERM", "");
                    self.settle(seq);
                }
            }
            Step::Nak(which, delay_s) => {
                if let Some(seq) = pick(which, delivered) {
                    self.world.ack_with(seq, &format!("-NAK {delay_s}s"), "");
                    let due = self.world.now.plus(Duration::from_secs(u64::from(delay_s)));
                    self.reschedule(seq, due);
                }
            }
            Step::Progress(which) => {
                if let Some(seq) = pick(which, delivered) {
                    self.world.ack_with(seq, "+WPI", "");
                    let due = self.world.now.plus(ACK_WAIT);
                    self.reschedule(seq, due);
                }
            }
            Step::Advance(millis) => {
                self.world.advance(Duration::from_millis(u64::from(millis)));
            }
            Step::Apply(count) => self.world.apply_first(usize::from(count)),
            Step::ApplyAll => self.world.apply(),
            Step::Remove(which) => {
                if let Some(seq) = pick(which, stored) {
                    self.world.remove(seq);
                    self.forget(|other| other == seq);
                }
            }
            Step::PurgeBelow(which) => {
                if let Some(seq) = pick(which, stored) {
                    self.world.purge_below(seq);
                    self.forget(|other| other < seq);
                    self.log.last = self.log.last.max(seq - 1);
                    self.live.last = self.live.last.max(seq - 1);
                }
            }
            Step::PurgeSubject(subject, which) => {
                if let Some(below) = pick(which, stored) {
                    let subject = ["a", "b", "c"][usize::from(subject)];
                    self.world.purge_subject(subject, below);
                    self.world.advance(Duration::ZERO);
                }
            }
            Step::FlushStore => self.world.flush_store(),
            Step::Crash => {
                self.world.crash();
                self.world.advance(Duration::ZERO);
                self.world.sent();
                self.live = self.log.clone();
                self.sent = self
                    .log
                    .open
                    .iter()
                    .map(|(s, open)| (*s, open.deliveries))
                    .collect();
            }
            Step::Lose => {
                self.world.turn(|consumer, turn| consumer.flush(turn));
                self.world.proposed.clear();
                self.has_lost = true;
                let now = self.world.now;
                self.world.consumer.proposals_lost(now);
                // What the log does not know to be settled is open again, and due.
                let (settled, exhausted) = (&self.settled, &self.exhausted);
                self.sent
                    .retain(|seq, _| !settled.contains(seq) && !exhausted.contains(seq));
                for (seq, deliveries) in &self.sent {
                    let open = Open {
                        deliveries: *deliveries,
                        due: now.plus(SECOND),
                    };
                    self.live.open.entry(*seq).or_insert(open);
                }
            }
            Step::Listen(inbox, listens) => {
                let inbox = format!("inbox{inbox}");
                if listens {
                    self.world.net.deaf.remove(&inbox);
                } else {
                    self.world.net.deaf.insert(inbox);
                }
            }
        }
        self.world.deliver();
        self.observe();
        self.follow_proposals();
        self.follow_log();
        self.compare();
    }

    fn settle(&mut self, seq: u64) {
        match self.config.ack_policy {
            AckPolicy::None => {}
            AckPolicy::Explicit => {
                self.live.open.remove(&seq);
            }
            AckPolicy::All | AckPolicy::FlowControl => {
                self.live.open.retain(|other, _| *other > seq)
            }
        }
    }

    fn reschedule(&mut self, seq: u64, due: Timestamp) {
        if let Some(open) = self.live.open.get_mut(&seq) {
            // A delivery that is due stays due when asked for at once.
            if open.due > self.world.now || due > self.world.now {
                open.due = due;
            }
        }
    }

    fn forget(&mut self, is_gone: impl Fn(u64) -> bool) {
        self.log.open.retain(|seq, _| !is_gone(*seq));
        self.live.open.retain(|seq, _| !is_gone(*seq));
        self.exhausted.retain(|seq| !is_gone(*seq));
        self.sent.retain(|seq, _| !is_gone(*seq));
    }

    /// Checks what was sent since the last step.
    fn observe(&mut self) {
        let times = std::mem::take(&mut self.world.net.times);
        let sent = self.world.sent();
        for (sent, at) in sent.iter().zip(times).filter(|(sent, _)| sent.is_message()) {
            let token = sent.token();
            let seq = token.stream_seq.0;
            assert!(
                self.world.stream.messages.contains_key(&seq),
                "{seq} is not in the stream"
            );
            assert!(!self.settled.contains(&seq), "{seq} was settled");
            assert!(!self.exhausted.contains(&seq), "{seq} was given up");
            assert_eq!(token.consumer_seq.0, self.live.consumer_seq + 1);
            self.live.consumer_seq += 1;
            let due = at.plus(ACK_WAIT);
            if self.config.ack_policy != AckPolicy::None {
                self.sent.insert(seq, token.deliveries);
            }
            if seq > self.live.last {
                let unsent = self.unsent();
                assert_eq!(
                    unsent.first(),
                    Some(&seq),
                    "first deliveries follow the stream"
                );
                assert_eq!(token.deliveries, 1);
                self.live.last = seq;
                if self.config.ack_policy != AckPolicy::None {
                    self.live.open.insert(seq, Open { deliveries: 1, due });
                }
                assert_eq!(token.pending, unsent.len() as u64 - 1);
                continue;
            }
            let limit = self.config.max_deliver;
            let open = self
                .live
                .open
                .get_mut(&seq)
                .expect("only what is open is sent again");
            assert!(open.due <= at, "{seq} was not due");
            assert_eq!(token.deliveries, open.deliveries + 1);
            assert!(
                limit < 1 || token.deliveries <= limit as u64,
                "{seq} was sent too often"
            );
            *open = Open {
                deliveries: token.deliveries,
                due,
            };
        }
    }

    /// Takes note of what the consumer gave up by itself.
    fn follow_proposals(&mut self) {
        for proposed in &self.world.proposed {
            match *proposed.event.change() {
                Change::Exhausted {
                    stream_seq,
                    deliveries,
                } => {
                    if let Some(open) = self.live.open.remove(&stream_seq.0) {
                        assert_eq!(open.deliveries, u64::from(deliveries));
                        assert_eq!(i64::from(deliveries), self.config.max_deliver);
                        assert!(open.due <= self.world.now, "given up too early");
                    }
                }
                Change::Gone { stream_seq } => {
                    assert!(!self.world.stream.messages.contains_key(&stream_seq.0));
                    self.live.open.remove(&stream_seq.0);
                }
                Change::Delivered { .. }
                | Change::Redelivered { .. }
                | Change::Acked { .. }
                | Change::AckedAll { .. }
                | Change::Rescheduled { .. }
                | Change::Terminated { .. } => {}
            }
        }
    }

    /// Applies to the model what was applied to the consumer.
    fn follow_log(&mut self) {
        let log = &mut self.log;
        for event in self.world.applied.iter().skip(self.seen_applied) {
            match *event.change() {
                Change::Delivered {
                    at,
                    consumer_seq,
                    stream_seq,
                    count,
                } => {
                    for offset in 0..u64::from(count) {
                        let seq = stream_seq.0 + offset;
                        if seq <= log.last {
                            continue;
                        }
                        if self.config.ack_policy == AckPolicy::None {
                            self.settled.insert(seq);
                        } else {
                            let due = at.plus(ACK_WAIT);
                            log.open.insert(seq, Open { deliveries: 1, due });
                        }
                    }
                    log.last = log.last.max(stream_seq.0 + u64::from(count) - 1);
                    log.consumer_seq = log.consumer_seq.max(consumer_seq.0 + u64::from(count) - 1);
                }
                Change::Redelivered {
                    at,
                    consumer_seq,
                    stream_seq,
                    deliveries,
                } => {
                    log.consumer_seq = log.consumer_seq.max(consumer_seq.0);
                    if let Some(open) = log.open.get_mut(&stream_seq.0) {
                        let due = at.plus(ACK_WAIT);
                        *open = Open {
                            deliveries: u64::from(deliveries),
                            due,
                        };
                    }
                }
                Change::Acked { stream_seq } | Change::Terminated { stream_seq } => {
                    log.open.remove(&stream_seq.0);
                    self.exhausted.remove(&stream_seq.0);
                    self.settled.insert(stream_seq.0);
                }
                Change::AckedAll { stream_seq } => {
                    let settled: Vec<_> = log
                        .open
                        .range(..=stream_seq.0)
                        .map(|(seq, _)| *seq)
                        .collect();
                    for seq in settled {
                        log.open.remove(&seq);
                        self.settled.insert(seq);
                    }
                    let later = self.exhausted.split_off(&(stream_seq.0 + 1));
                    self.settled
                        .extend(std::mem::replace(&mut self.exhausted, later));
                }
                Change::Rescheduled {
                    stream_seq,
                    deliveries,
                    due,
                } => {
                    if let Some(open) = log.open.get_mut(&stream_seq.0)
                        && open.deliveries == u64::from(deliveries)
                    {
                        open.due = due;
                    }
                }
                Change::Exhausted { stream_seq, .. } => {
                    if log.open.remove(&stream_seq.0).is_some() {
                        self.exhausted.insert(stream_seq.0);
                    }
                }
                Change::Gone { stream_seq } => {
                    log.open.remove(&stream_seq.0);
                    self.exhausted.remove(&stream_seq.0);
                    self.sent.remove(&stream_seq.0);
                }
            }
        }
        self.seen_applied = self.world.applied.len();
    }

    fn compare(&mut self) {
        let info = self.world.info();
        assert_eq!(
            info.num_pending,
            self.unsent().len() as u64,
            "num_pending is exact"
        );
        // A message removed between sending and recording stays until it is found to be gone.
        let stored = &self.world.stream.messages;
        let is_stored = |seq: &&u64| stored.contains_key(seq);
        let fewest = self.live.open.keys().filter(is_stored).count();
        let gone = self
            .log
            .open
            .keys()
            .filter(|seq| !stored.contains_key(seq))
            .count();
        let most = self.live.open.len() + gone;
        assert!(
            (fewest..=most).contains(&(info.num_ack_pending as usize)),
            "{} pending, but open are {:?}",
            info.num_ack_pending,
            self.live.open
        );
        let open: Vec<_> = self.log.open.keys().filter(is_stored).copied().collect();
        let floor = self.world.consumer.ack_floor();
        assert!(floor.stream >= self.floor.stream && floor.consumer >= self.floor.consumer);
        self.floor = floor;
        for seq in open {
            assert!(
                seq > floor.stream.0,
                "the floor {} passed the open {seq}",
                floor.stream
            );
        }
        for (seq, message) in &self.world.stream.messages {
            if *seq <= floor.stream.0 {
                continue;
            }
            let is_settled = self.settled.contains(seq);
            let is_wanted = self
                .world
                .consumer
                .wants(StreamSeq(*seq), message.subject());
            assert!(
                !(is_settled && is_wanted),
                "{seq} is settled and still wanted"
            );
        }
        if self.config.max_ack_pending > 0 && !self.has_lost {
            let limit = self.config.max_ack_pending as u64 + gone as u64;
            assert!(
                info.num_ack_pending <= limit,
                "more pending than max_ack_pending"
            );
        }
    }

    /// Everything is well again: whatever is not settled must arrive, and end.
    fn heal(&mut self) {
        self.world.net.deaf.clear();
        let mut settled_before = BTreeSet::new();
        for round in 0.. {
            assert!(round < 60, "it never ends: {:?}", self.world.info());
            self.run(Step::ApplyAll);
            let info = self.world.info();
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                break;
            }
            self.run(Step::Pull {
                inbox: 0,
                batch: 50,
                no_wait: false,
                expires_s: 0,
            });
            self.run(Step::Advance(15_000));
            for seq in self.live.open.keys().copied().collect::<Vec<_>>() {
                settled_before.insert(seq);
                self.world.ack(seq);
                self.settle(seq);
            }
        }
        self.run(Step::ApplyAll);
        let consumer = &self.world.consumer;
        assert_eq!(
            consumer.ack_floor(),
            consumer.delivered(),
            "nothing is open"
        );
        for (seq, message) in &self.world.stream.messages {
            let is_wanted = consumer.wants(StreamSeq(*seq), message.subject());
            assert_eq!(
                is_wanted,
                self.exhausted.contains(seq),
                "only what was given up stays"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_consumer_keeps_its_promises(
        config in configuration(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(config);
        for step in steps {
            model.run(step);
        }
        model.heal();
    }
}
