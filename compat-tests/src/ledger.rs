//! What a client was promised, and whether the server keeps it.
//!
//! A [`Ledger`] belongs to one stream. Producers tell it what they send and which acks they get,
//! readers tell it what the stream holds; it keeps every promise ever made and lists what breaks
//! one. [`Settlements`] does the same for one durable consumer.
//!
//! # Promises
//!
//! 1. A message that was acknowledged is in the stream, at the acknowledged sequence, for good.
//! 2. A message is in the stream once, however often it was sent (its id is the same).
//! 3. A message has the subject, headers and payload it was sent with.
//! 4. A sequence, once seen, keeps its message and its time; times do not run backwards.
//! 5. Sequences have no gaps: nothing is ever removed from these streams.
//! 6. A message sent after another was acknowledged comes after it.
//! 7. A message that was settled and confirmed is not delivered to that consumer again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use async_nats::HeaderMap;

/// The most violations worth listing; more tell nothing new.
const LISTED: usize = 20;

/// A digest of everything of a message that must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Digests subject, headers except the ignored ones, and payload.
    #[must_use]
    pub fn of(subject: &str, headers: &HeaderMap, payload: &[u8], ignored: &[&str]) -> Self {
        let mut lines: Vec<(&str, Vec<&str>)> = headers
            .iter()
            .map(|(name, values)| {
                let name: &str = name.as_ref();
                (name, values.iter().map(AsRef::as_ref).collect())
            })
            .filter(|(name, _)| !ignored.contains(name))
            .collect();
        // The client keeps headers in a hash map; only the values of one name have an order.
        lines.sort_unstable();
        let mut hasher = DefaultHasher::new();
        (subject, lines, payload).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// One message as a reader got it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Sequence in the stream.
    pub seq: u64,
    /// When the server says it was stored, in nanoseconds since the Unix epoch.
    pub time_ns: i128,
    /// The message id its producer gave it.
    pub id: String,
    /// What it carries.
    pub fingerprint: Fingerprint,
}

#[derive(Debug)]
struct Sent {
    fingerprint: Fingerprint,
    /// The highest sequence acknowledged to the same producer before it first sent this.
    after: u64,
    acked: Acked,
    /// How many acks had come when the first for this message came, itself included.
    acked_turn: u64,
}

/// How far a pass of a reader can be held to account: to the acks that came before it began.
#[derive(Clone, Copy, Debug)]
pub struct Pass(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acked {
    /// No ack came; the message may be stored or not.
    Unknown,
    /// Acknowledged by a client that does not tell the sequence.
    Somewhere,
    At(u64),
}

/// Promises made about one stream.
#[derive(Debug)]
pub struct Ledger {
    name: String,
    allows_duplicates: bool,
    sent: HashMap<String, Sent>,
    /// How many messages were acknowledged.
    acks: u64,
    /// Highest acknowledged sequence, by producer.
    highest: HashMap<String, u64>,
    /// Everything ever seen, by sequence.
    seen: BTreeMap<u64, Stored>,
    seen_ids: HashMap<String, u64>,
    violations: Vec<String>,
}

impl Ledger {
    /// An empty ledger for the stream of that name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            allows_duplicates: false,
            sent: HashMap::new(),
            acks: 0,
            highest: HashMap::new(),
            seen: BTreeMap::new(),
            seen_ids: HashMap::new(),
            violations: Vec::new(),
        }
    }

    /// Gives up promise 2, for a server that does not know the id's header.
    pub fn allow_duplicates(&mut self) {
        self.allows_duplicates = true;
    }

    /// Notes the first sending of a message; later sendings of the same id change nothing.
    pub fn sending(&mut self, producer: &str, id: &str, fingerprint: Fingerprint) {
        let after = self.highest.get(producer).copied().unwrap_or(0);
        let sent = Sent {
            fingerprint,
            after,
            acked: Acked::Unknown,
            acked_turn: 0,
        };
        self.sent.entry(id.to_owned()).or_insert(sent);
    }

    /// Notes an ack that names the sequence.
    pub fn acked(&mut self, producer: &str, id: &str, seq: u64) {
        let Some(sent) = self.sent.get_mut(id) else {
            return self.violation(format!("{id} was acknowledged, but never sent"));
        };
        let former = std::mem::replace(&mut sent.acked, Acked::At(seq));
        let after = sent.after;
        if former == Acked::Unknown {
            self.acks += 1;
            sent.acked_turn = self.acks;
        }
        if let Acked::At(other) = former
            && other != seq
        {
            self.violation(format!(
                "{id} was acknowledged at {other} and again at {seq}"
            ));
        }
        if seq <= after {
            self.violation(format!(
                "{id} is at {seq}, but was sent after the ack of {after}"
            ));
        }
        let highest = self.highest.entry(producer.to_owned()).or_default();
        *highest = seq.max(*highest);
    }

    /// Notes an ack of a client that does not tell the sequence.
    pub fn acked_somewhere(&mut self, id: &str) {
        match self.sent.get_mut(id) {
            Some(sent) => {
                self.acks += 1;
                sent.acked = Acked::Somewhere;
                sent.acked_turn = self.acks;
            }
            None => self.violation(format!("{id} was acknowledged, but never sent")),
        }
    }

    /// How many messages were acknowledged.
    #[must_use]
    pub fn acked_count(&self) -> u64 {
        self.acks
    }

    /// Begins a pass of a reader, before it asks the stream for its last sequence.
    #[must_use]
    pub fn begin_pass(&self) -> Pass {
        Pass(self.acks)
    }

    /// Notes a message a reader or a consumer got.
    pub fn see(&mut self, stored: Stored) {
        let Stored {
            seq,
            time_ns,
            ref id,
            fingerprint,
        } = stored;
        match self.sent.get(id) {
            None => self.violation(format!("{seq} holds {id:?}, which nobody sent")),
            Some(sent) => {
                let (wanted, acked) = (sent.fingerprint, sent.acked);
                if wanted != fingerprint {
                    self.violation(format!("{seq} holds {id} with other content"));
                }
                if let Acked::At(promised) = acked
                    && promised != seq
                {
                    self.violation(format!(
                        "{id} is at {seq}, but was acknowledged at {promised}"
                    ));
                }
            }
        }
        if let Some(&other) = self.seen_ids.get(id)
            && other != seq
            && !self.allows_duplicates
        {
            self.violation(format!("{id} is stored twice, at {other} and {seq}"));
        }
        match self.seen.get(&seq) {
            Some(former) if former.id != *id => {
                let former = former.id.clone();
                self.violation(format!("{seq} held {former} and now holds {id}"));
            }
            Some(former) if former.time_ns != time_ns => {
                let former = former.time_ns;
                self.violation(format!(
                    "the time of {seq} was {former} and is now {time_ns}"
                ));
            }
            Some(_) => {}
            None => {
                self.seen_ids.insert(id.clone(), seq);
                self.seen.insert(seq, stored);
            }
        }
    }

    /// Checks one pass of a reader, which has [seen](Self::see) exactly these sequences in this
    /// order, from `from` to `last`, the last sequence the stream claimed to hold.
    pub fn check_pass(&mut self, pass: Pass, from: u64, last: u64, sequences: &[u64]) {
        let mut expected = from;
        for &seq in sequences {
            if seq != expected {
                self.violation(format!("a reader got {seq} where {expected} belongs"));
            }
            expected = seq + 1;
        }
        if expected != last + 1 {
            self.violation(format!(
                "a reader got up to {}, but the last is {last}",
                expected - 1
            ));
        }
        let lost: Vec<String> = self
            .sent
            .iter()
            .filter(|(_, sent)| sent.acked_turn <= pass.0)
            .filter_map(|(id, sent)| match sent.acked {
                Acked::At(seq) if seq > last => {
                    Some(format!("{id}, acknowledged at {seq}, is lost"))
                }
                Acked::At(seq) if seq < from => None,
                Acked::At(_) | Acked::Somewhere if self.seen_ids.contains_key(id) => None,
                Acked::Unknown => None,
                Acked::At(_) | Acked::Somewhere => Some(format!("{id}, acknowledged, is lost")),
            })
            .collect();
        for line in lost {
            self.violation(line);
        }
        let mut former = i128::MIN;
        let mut backwards = Vec::new();
        for (seq, stored) in self.seen.range(from..=last) {
            if stored.time_ns < former {
                backwards.push(format!(
                    "the time of {seq} is before that of the one before it"
                ));
            }
            former = stored.time_ns;
        }
        for line in backwards {
            self.violation(line);
        }
    }

    /// Everything seen so far, for consumers to be compared with.
    #[must_use]
    pub fn sequences(&self) -> BTreeSet<u64> {
        self.seen.keys().copied().collect()
    }

    /// The broken promises, one a line; empty if there are none.
    #[must_use]
    pub fn report(&self) -> String {
        report(&self.name, &self.violations)
    }

    fn violation(&mut self, line: String) {
        self.violations.push(line);
    }
}

/// A moment in a consumer's life, for telling what was settled before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Counts up over the consumer's life; good for varying what it does.
    #[must_use]
    pub fn turn(self) -> u64 {
        self.0
    }
}

/// Promises made to one durable consumer.
#[derive(Debug)]
pub struct Settlements {
    name: String,
    now: u64,
    /// When each sequence was confirmed as settled.
    settled: HashMap<u64, Moment>,
    /// Everything up to here was confirmed with one ack.
    floors: Vec<(u64, Moment)>,
    delivered: BTreeSet<u64>,
    /// The last before the first that was not delivered.
    complete: u64,
    allows_repeats: bool,
    violations: Vec<String>,
}

impl Settlements {
    /// Nothing is settled yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            now: 0,
            settled: HashMap::new(),
            floors: Vec::new(),
            delivered: BTreeSet::new(),
            complete: 0,
            allows_repeats: false,
            violations: Vec::new(),
        }
    }

    /// Gives up promise 7, for a server that writes settlements down later than it confirms them.
    pub fn allow_repeats(&mut self) {
        self.allows_repeats = true;
    }

    /// The moment a pull request is made; pass it with everything that request delivers.
    pub fn asking(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    /// Notes a delivery, at the end of a request made at `asked`.
    pub fn delivered(&mut self, seq: u64, asked: Moment) {
        self.delivered.insert(seq);
        while self.delivered.contains(&(self.complete + 1)) {
            self.complete += 1;
        }
        // What was settled after the request may have been on its way.
        let alone = self
            .settled
            .get(&seq)
            .is_some_and(|settled| *settled < asked);
        let together = self
            .floors
            .iter()
            .any(|(floor, settled)| seq <= *floor && *settled < asked);
        if (alone || together) && !self.allows_repeats {
            self.violations
                .push(format!("{seq} was settled and is delivered again"));
        }
    }

    /// Up to where everything was delivered. To acknowledge all up to a later message would settle
    /// some that a kill, or a timeout of the client, has swallowed.
    #[must_use]
    pub fn complete_up_to(&self) -> u64 {
        self.complete
    }

    /// Notes that the server confirmed the ack of one message.
    pub fn settled(&mut self, seq: u64) {
        self.now += 1;
        self.settled.entry(seq).or_insert(Moment(self.now));
    }

    /// Notes that the server confirmed an ack of everything up to a message.
    pub fn settled_up_to(&mut self, seq: u64) {
        self.now += 1;
        if self.floors.last().is_none_or(|(floor, _)| *floor < seq) {
            self.floors.push((seq, Moment(self.now)));
        }
    }

    /// How many settlements the server has confirmed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.settled.len() + self.floors.len()
    }

    /// At the end: every message of the stream must have been delivered.
    pub fn check_all_delivered(&mut self, sequences: &BTreeSet<u64>) {
        for seq in sequences.difference(&self.delivered) {
            self.violations.push(format!("{seq} was never delivered"));
        }
    }

    /// The broken promises, one a line; empty if there are none.
    #[must_use]
    pub fn report(&self) -> String {
        report(&self.name, &self.violations)
    }
}

fn report(name: &str, violations: &[String]) -> String {
    let mut out = String::new();
    for line in violations.iter().take(LISTED) {
        writeln!(out, "{name}: {line}").expect("writing to a string cannot fail");
    }
    if violations.len() > LISTED {
        let rest = violations.len() - LISTED;
        writeln!(out, "{name}: and {rest} more").expect("writing to a string cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(payload: &str) -> Fingerprint {
        Fingerprint::of("subject", &HeaderMap::new(), payload.as_bytes(), &[])
    }

    fn stored(seq: u64, id: &str) -> Stored {
        Stored {
            seq,
            time_ns: i128::from(seq),
            id: id.into(),
            fingerprint: fingerprint(id),
        }
    }

    /// A ledger where `a`, `b` and `c` were acknowledged as 1, 2 and 3.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new("s");
        for (n, id) in (1..).zip(["a", "b", "c"]) {
            ledger.sending("p", id, fingerprint(id));
            ledger.acked("p", id, n);
        }
        ledger
    }

    fn pass(ledger: &mut Ledger, messages: &[Stored], last: u64) {
        let sequences: Vec<u64> = messages.iter().map(|stored| stored.seq).collect();
        for message in messages {
            ledger.see(message.clone());
        }
        ledger.check_pass(ledger.begin_pass(), 1, last, &sequences);
    }

    #[test]
    fn a_kept_stream_has_no_violations() {
        let mut ledger = ledger();
        ledger.sending("p", "unknown", fingerprint("unknown"));
        for _ in 0..2 {
            pass(
                &mut ledger,
                &[stored(1, "a"), stored(2, "b"), stored(3, "c")],
                3,
            );
        }
        assert_eq!(ledger.report(), "");
    }

    #[test]
    fn a_lost_tail_is_found() {
        let mut ledger = ledger();
        pass(&mut ledger, &[stored(1, "a"), stored(2, "b")], 2);
        assert_eq!(ledger.report(), "s: c, acknowledged at 3, is lost\n");
    }

    #[test]
    fn a_gap_is_found() {
        let mut ledger = ledger();
        pass(&mut ledger, &[stored(1, "a"), stored(3, "c")], 3);
        assert!(
            ledger.report().contains("got 3 where 2 belongs"),
            "{}",
            ledger.report()
        );
        assert!(
            ledger.report().contains("b, acknowledged, is lost"),
            "{}",
            ledger.report()
        );
    }

    #[test]
    fn a_message_at_another_sequence_is_found() {
        let mut ledger = ledger();
        ledger.see(stored(2, "c"));
        assert!(
            ledger
                .report()
                .contains("c is at 2, but was acknowledged at 3")
        );
    }

    #[test]
    fn a_reused_sequence_is_found() {
        let mut ledger = Ledger::new("s");
        for id in ["a", "b"] {
            ledger.sending("p", id, fingerprint(id));
            ledger.see(stored(1, id));
        }
        assert!(
            ledger.report().contains("1 held a and now holds b"),
            "{}",
            ledger.report()
        );
    }

    #[test]
    fn a_duplicate_is_found_unless_allowed() {
        for (allowed, expected) in [(false, "s: a is stored twice, at 1 and 2\n"), (true, "")] {
            let mut ledger = Ledger::new("s");
            if allowed {
                ledger.allow_duplicates();
            }
            ledger.sending("p", "a", fingerprint("a"));
            ledger.see(stored(1, "a"));
            ledger.see(stored(2, "a"));
            assert_eq!(ledger.report(), expected);
        }
    }

    #[test]
    fn changed_content_is_found() {
        let mut ledger = ledger();
        ledger.see(Stored {
            fingerprint: fingerprint("x"),
            ..stored(1, "a")
        });
        assert_eq!(ledger.report(), "s: 1 holds a with other content\n");
    }

    #[test]
    fn a_changed_time_and_times_running_backwards_are_found() {
        let mut ledger = ledger();
        ledger.see(stored(1, "a"));
        ledger.see(Stored {
            time_ns: 7,
            ..stored(1, "a")
        });
        assert_eq!(ledger.report(), "s: the time of 1 was 1 and is now 7\n");
        let mut ledger = self::ledger();
        let late = Stored {
            time_ns: 9,
            ..stored(1, "a")
        };
        pass(&mut ledger, &[late, stored(2, "b"), stored(3, "c")], 3);
        assert!(
            ledger.report().contains("the time of 2 is before"),
            "{}",
            ledger.report()
        );
    }

    #[test]
    fn a_message_nobody_sent_is_found() {
        let mut ledger = ledger();
        ledger.see(stored(4, "ghost"));
        assert!(ledger.report().contains("which nobody sent"));
    }

    #[test]
    fn an_overtaking_message_is_found() {
        let mut ledger = Ledger::new("s");
        ledger.sending("p", "a", fingerprint("a"));
        ledger.acked("p", "a", 5);
        ledger.sending("p", "b", fingerprint("b"));
        ledger.acked("p", "b", 4);
        assert!(
            ledger
                .report()
                .contains("b is at 4, but was sent after the ack of 5")
        );
    }

    #[test]
    fn an_ack_without_a_sequence_is_a_promise_too() {
        let mut ledger = Ledger::new("s");
        ledger.sending("p", "a", fingerprint("a"));
        ledger.acked_somewhere("a");
        ledger.check_pass(ledger.begin_pass(), 1, 0, &[]);
        assert_eq!(ledger.report(), "s: a, acknowledged, is lost\n");
    }

    #[test]
    fn an_ack_that_came_during_a_pass_is_left_to_the_next() {
        let mut ledger = Ledger::new("s");
        ledger.sending("p", "a", fingerprint("a"));
        ledger.sending("p", "b", fingerprint("b"));
        let pass = ledger.begin_pass();
        ledger.acked("p", "a", 1);
        ledger.acked_somewhere("b");
        ledger.check_pass(pass, 1, 0, &[]);
        assert_eq!(ledger.report(), "");
    }

    #[test]
    fn a_settled_message_must_not_come_again() {
        let mut settlements = Settlements::new("c");
        let asked = settlements.asking();
        settlements.delivered(1, asked);
        settlements.settled(1);
        settlements.delivered(1, asked);
        assert_eq!(settlements.report(), "", "it was on its way");
        let asked = settlements.asking();
        settlements.delivered(1, asked);
        assert_eq!(
            settlements.report(),
            "c: 1 was settled and is delivered again\n"
        );
    }

    #[test]
    fn everything_below_an_ack_of_all_is_settled() {
        let mut settlements = Settlements::new("c");
        settlements.settled_up_to(5);
        let asked = settlements.asking();
        settlements.delivered(6, asked);
        assert_eq!(settlements.report(), "");
        settlements.delivered(3, asked);
        assert_eq!(
            settlements.report(),
            "c: 3 was settled and is delivered again\n"
        );
    }

    #[test]
    fn an_undelivered_message_is_found() {
        let mut settlements = Settlements::new("c");
        let asked = settlements.asking();
        settlements.delivered(1, asked);
        settlements.check_all_delivered(&BTreeSet::from([1, 2]));
        assert_eq!(settlements.report(), "c: 2 was never delivered\n");
    }

    #[test]
    fn what_was_swallowed_is_not_complete() {
        let mut settlements = Settlements::new("s");
        let asked = settlements.asking();
        assert_eq!(settlements.complete_up_to(), 0);
        for (seq, complete) in [(1, 1), (3, 1), (4, 1), (2, 4)] {
            settlements.delivered(seq, asked);
            assert_eq!(settlements.complete_up_to(), complete);
        }
        assert_eq!(settlements.report(), "");
    }
}
