//! What a user may publish and subscribe to.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use menes_protocol::subject;
use menes_stations::user::Access;

use crate::config::options::PermissionOptions;
use crate::routing::hash::{BytesHash, HashKey};

/// Compiled permissions of a user.
#[derive(Debug)]
pub struct Permissions {
    publish: Rules,
    subscribe: Rules,
    responses: Option<ResponseLimits>,
    options: PermissionOptions,
    /// In place of all that: what an application user may do.
    stations: Option<Access>,
}

/// How often and how long a receiver may publish to the reply subject of a message it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Messages per reply subject; `None` is unlimited.
    pub max: Option<u32>,
    /// Time since the delivery; `None` is unlimited.
    pub ttl: Option<Duration>,
}

impl Default for ResponseLimits {
    fn default() -> Self {
        Self {
            max: Some(1),
            ttl: Some(Duration::from_secs(120)),
        }
    }
}

/// Subjects allowed and denied. A deny wins.
#[derive(Debug, Default)]
struct Rules {
    /// `None` allows everything.
    allow: Option<Vec<Rule>>,
    deny: Vec<Rule>,
}

/// `subject` or `subject queue`.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    subject: Box<[u8]>,
    queue: Option<Box<[u8]>>,
}

impl Rule {
    fn parse(text: &str) -> Self {
        let mut parts = text.split_ascii_whitespace();
        let subject = parts.next().unwrap_or_default().as_bytes().into();
        Self {
            subject,
            queue: parts.next().map(|queue| queue.as_bytes().into()),
        }
    }

    /// Whether this rule names `queue`; a rule for subjects alone names none.
    fn names(&self, queue: &[u8]) -> bool {
        self.queue
            .as_ref()
            .is_some_and(|filter| subject::matches(filter, queue))
    }
}

impl Rules {
    fn new(allow: Option<&[String]>, deny: &[String]) -> Self {
        let parse = |list: &[String]| list.iter().map(|text| Rule::parse(text)).collect();
        Self {
            allow: allow.map(parse),
            deny: parse(deny),
        }
    }

    fn allows_publish(&self, literal: &[u8]) -> bool {
        let covers = |rule: &Rule| subject::matches(&rule.subject, literal);
        self.allow
            .as_ref()
            .is_none_or(|rules| rules.iter().any(covers))
            && !self.deny.iter().any(covers)
    }

    fn allows_subscription(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        self.allow
            .as_ref()
            .is_none_or(|rules| is_allowed(rules, filter, queue))
            && !self
                .deny
                .iter()
                .any(|rule| subject::is_subset(filter, &rule.subject) && denies_queue(rule, queue))
    }

    fn denies_delivery(&self, literal: &[u8], queue: Option<&[u8]>) -> bool {
        self.deny
            .iter()
            .any(|rule| denies_queue(rule, queue) && subject::matches(&rule.subject, literal))
    }

    fn has_deny_inside(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        self.deny
            .iter()
            .any(|rule| denies_queue(rule, queue) && subject::overlaps(filter, &rule.subject))
    }
}

/// A plain rule covers every queue, unless rules with queues cover the subject too: then the queue
/// must be one of theirs.
fn is_allowed(rules: &[Rule], filter: &[u8], queue: Option<&[u8]>) -> bool {
    let mut plain = false;
    let mut by_queue = None;
    for rule in rules
        .iter()
        .filter(|rule| subject::is_subset(filter, &rule.subject))
    {
        if rule.queue.is_none() {
            plain = true;
        } else if let Some(queue) = queue {
            by_queue = Some(by_queue == Some(true) || rule.names(queue));
        }
    }
    by_queue.unwrap_or(plain)
}

fn denies_queue(rule: &Rule, queue: Option<&[u8]>) -> bool {
    rule.queue.is_none() || queue.is_some_and(|queue| rule.names(queue))
}

impl Permissions {
    /// Permissions as configured.
    #[must_use]
    pub fn new(options: &PermissionOptions) -> Self {
        // Whoever may answer and has no list of its own may do nothing but answer.
        let nothing: &[String] = &[];
        let publish_allow = match (&options.publish.allow, options.responses) {
            (None, Some(_)) => Some(nothing),
            (allow, _) => allow.as_deref(),
        };
        Self {
            publish: Rules::new(publish_allow, &options.publish.deny),
            subscribe: Rules::new(options.subscribe.allow.as_deref(), &options.subscribe.deny),
            responses: options.responses,
            options: options.clone(),
            stations: None,
        }
    }

    /// Permissions of an application user.
    #[must_use]
    pub fn of_application(access: Access) -> Self {
        Self {
            stations: Some(access),
            ..Self::new(&PermissionOptions::default())
        }
    }

    /// Of an application user: which stations it may use.
    #[must_use]
    pub fn stations(&self) -> Option<&Access> {
        self.stations.as_ref()
    }

    /// Whether `reply` may be where answers go. Of others than application users the server asks
    /// nothing.
    #[must_use]
    pub fn may_hear_on(&self, reply: &[u8]) -> bool {
        let mut stations = self.stations.iter();
        stations.all(|access| access.may_hear_on(reply))
    }

    /// Whether a subscription to `filter` may be handed what is on `literal`, where that depends on
    /// both.
    #[must_use]
    pub fn may_overhear(&self, filter: &[u8], literal: &[u8]) -> bool {
        self.stations.is_none() || Access::may_overhear(filter, literal)
    }

    /// Whether a message of this subject may be handed out, under whatever subject it comes.
    #[must_use]
    pub fn may_see(&self, subject: &[u8]) -> bool {
        let mut stations = self.stations.iter();
        stations.all(|access| access.may_receive(subject))
    }

    /// What they were made from.
    #[must_use]
    pub fn options(&self) -> &PermissionOptions {
        &self.options
    }

    /// Whether `literal` may be published to. Wildcards in it are plain tokens.
    #[must_use]
    pub fn may_publish(&self, literal: &[u8]) -> bool {
        match &self.stations {
            Some(stations) => stations.may_publish(literal),
            None => self.publish.allows_publish(literal),
        }
    }

    /// Whether `filter` may be subscribed to. A filter that is wider than a denied subject is
    /// accepted; see [`Permissions::needs_filter`].
    #[must_use]
    pub fn may_subscribe(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        match &self.stations {
            Some(stations) => stations.may_subscribe(filter),
            None => self.subscribe.allows_subscription(filter, queue),
        }
    }

    /// Whether deliveries to this subscription must be checked one by one, because some of what it
    /// matches is denied.
    #[must_use]
    pub fn needs_filter(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        match &self.stations {
            Some(stations) => stations.needs_filter(filter),
            None => self.subscribe.has_deny_inside(filter, queue),
        }
    }

    /// Whether a message on `literal` may be delivered to a subscription of this user.
    #[must_use]
    pub fn may_receive(&self, literal: &[u8], queue: Option<&[u8]>) -> bool {
        match &self.stations {
            Some(stations) => stations.may_receive(literal),
            None => !self.subscribe.denies_delivery(literal, queue),
        }
    }

    /// The permission to answer, if there is one.
    #[must_use]
    pub fn responses(&self) -> Option<ResponseLimits> {
        self.responses
    }
}

/// Remembers the answers of [`Permissions::may_publish`]: a subject to a slot, a later one with the
/// same slot takes its place, so its size is bounded whatever is published.
#[derive(Debug, Default)]
pub(crate) struct PublishCache {
    slots: Vec<Option<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    subject: Box<[u8]>,
    allowed: bool,
}

const CACHE_SLOTS: usize = 256;

impl PublishCache {
    /// As [`Permissions::may_publish`].
    pub(crate) fn may_publish(&mut self, permissions: &Permissions, literal: &[u8]) -> bool {
        if self.slots.is_empty() {
            self.slots.resize_with(CACHE_SLOTS, || None);
        }
        let hash = HashKey::of_process().hash(literal) % CACHE_SLOTS as u64;
        let slot = &mut self.slots[usize::try_from(hash).expect("below the number of slots")];
        if let Some(known) = slot.as_ref().filter(|known| *known.subject == *literal) {
            return known.allowed;
        }
        let allowed = permissions.may_publish(literal);
        *slot = Some(Remembered {
            subject: literal.into(),
            allowed,
        });
        allowed
    }
}

/// The reply subjects a client may answer to.
#[derive(Debug)]
pub(crate) struct ResponseGrants {
    limits: ResponseLimits,
    grants: HashMap<Box<[u8]>, Grant, BytesHash>,
    /// Look for expired grants when there are this many.
    prune_at: usize,
    /// When all places were taken: not to look again before this.
    full_until: Option<Instant>,
}

#[derive(Debug)]
struct Grant {
    left: Option<u32>,
    granted: Instant,
}

/// Grants are never more than this, however long they live.
const MAX_GRANTS: usize = 65_536;
const FIRST_PRUNE: usize = 256;
/// Pause between two searches for expired grants when all places are taken.
const FULL_PAUSE: Duration = Duration::from_secs(1);

impl ResponseGrants {
    pub(crate) fn new(limits: ResponseLimits) -> Self {
        Self {
            limits,
            grants: HashMap::default(),
            prune_at: FIRST_PRUNE,
            full_until: None,
        }
    }

    /// A message with this reply subject was delivered.
    pub(crate) fn grant(&mut self, reply: &[u8], now: Instant) {
        if self.grants.len() >= self.prune_at {
            if self.full_until.is_some_and(|until| now < until) {
                return;
            }
            let ttl = self.limits.ttl;
            self.grants.retain(|_, grant| !grant.is_expired(ttl, now));
            self.prune_at = (self.grants.len() * 2).clamp(FIRST_PRUNE, MAX_GRANTS);
            let is_full = self.grants.len() >= MAX_GRANTS;
            self.full_until = is_full.then(|| now + FULL_PAUSE);
            if is_full {
                return;
            }
        }
        self.grants.insert(
            reply.into(),
            Grant {
                left: self.limits.max,
                granted: now,
            },
        );
    }

    /// Uses up one answer to `subject`. False when there is none left.
    pub(crate) fn answer(&mut self, subject: &[u8], now: Instant) -> bool {
        let Some(grant) = self.grants.get_mut(subject) else {
            return false;
        };
        if grant.is_expired(self.limits.ttl, now) {
            self.grants.remove(subject);
            return false;
        }
        if let Some(left) = &mut grant.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.grants.remove(subject);
            }
        }
        true
    }
}

impl Grant {
    fn is_expired(&self, ttl: Option<Duration>, now: Instant) -> bool {
        self.left == Some(0)
            || ttl.is_some_and(|ttl| now.saturating_duration_since(self.granted) > ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::SubjectRules;

    fn rules(allow: Option<&[&str]>, deny: &[&str]) -> SubjectRules {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        SubjectRules {
            allow: allow.map(own),
            deny: own(deny),
        }
    }

    fn publish(allow: Option<&[&str]>, deny: &[&str]) -> Permissions {
        Permissions::new(&PermissionOptions {
            publish: rules(allow, deny),
            ..Default::default()
        })
    }

    fn subscribe(allow: Option<&[&str]>, deny: &[&str]) -> Permissions {
        Permissions::new(&PermissionOptions {
            subscribe: rules(allow, deny),
            ..Default::default()
        })
    }

    #[test]
    fn deny_wins_over_allow() {
        let permissions = publish(Some(&["a.>"]), &["a.secret"]);
        assert!(permissions.may_publish(b"a.b"));
        assert!(!permissions.may_publish(b"a.secret"));
        assert!(!permissions.may_publish(b"b"));
        assert!(publish(None, &[]).may_publish(b"anything"));
        assert!(!publish(Some(&[]), &[]).may_publish(b"anything"));
    }

    #[test]
    fn a_wildcard_wider_than_a_deny_is_accepted_and_filtered() {
        let permissions = subscribe(None, &["*.secret"]);
        assert!(permissions.may_subscribe(b"foo.*", None));
        assert!(permissions.needs_filter(b"foo.*", None));
        assert!(!permissions.may_receive(b"foo.secret", None));
        assert!(permissions.may_receive(b"foo.open", None));
        assert!(!permissions.may_subscribe(b"foo.secret", None));
        assert!(!permissions.needs_filter(b"bar", None));
    }

    #[test]
    fn an_unrelated_queue_deny_does_not_lift_a_plain_deny() {
        let permissions = subscribe(Some(&[">"]), &["admin.>", "admin.> other"]);
        assert!(!permissions.may_subscribe(b"admin.x", None));
        assert!(!permissions.may_subscribe(b"admin.x", Some(b"q")));
        assert!(!permissions.may_subscribe(b"admin.x", Some(b"other")));
    }

    #[test]
    fn queue_rules_follow_the_table() {
        let any = subscribe(Some(&["foo"]), &[]);
        assert!(any.may_subscribe(b"foo", None) && any.may_subscribe(b"foo", Some(b"v9")));
        let only = subscribe(Some(&["foo v1"]), &[]);
        assert!(!only.may_subscribe(b"foo", None));
        assert!(
            only.may_subscribe(b"foo", Some(b"v1")) && !only.may_subscribe(b"foo", Some(b"v2"))
        );
        let both = subscribe(Some(&["foo", "foo v1.*"]), &[]);
        assert!(both.may_subscribe(b"foo", None) && both.may_subscribe(b"foo", Some(b"v1.a")));
        assert!(!both.may_subscribe(b"foo", Some(b"v2")));
        let deny = subscribe(None, &["foo v1"]);
        assert!(deny.may_subscribe(b"foo", None) && !deny.may_subscribe(b"foo", Some(b"v1")));
    }

    #[test]
    fn wildcards_in_a_published_subject_widen_nothing() {
        let permissions = publish(Some(&["foo.bar"]), &[]);
        assert!(!permissions.may_publish(b"foo.*"));
        assert!(!permissions.may_publish(b">"));
    }

    #[test]
    fn an_answer_is_allowed_once_and_not_for_ever() {
        let now = Instant::now();
        let mut grants = ResponseGrants::new(ResponseLimits::default());
        grants.grant(b"r.1", now);
        assert!(grants.answer(b"r.1", now));
        assert!(!grants.answer(b"r.1", now));
        grants.grant(b"r.2", now);
        assert!(!grants.answer(b"r.2", now + Duration::from_secs(121)));
        for n in 0..100_000_u32 {
            grants.grant(&n.to_le_bytes(), now);
        }
        assert!(grants.grants.len() <= MAX_GRANTS);
    }

    #[test]
    fn the_cache_is_bounded_and_agrees() {
        let permissions = publish(Some(&["a.*"]), &["a.7"]);
        let mut cache = PublishCache::default();
        for round in 0..3 {
            for n in 0..2000 {
                let subject = format!("a.{n}");
                let allowed = cache.may_publish(&permissions, subject.as_bytes());
                assert_eq!(allowed, n != 7, "round {round}");
            }
        }
        assert_eq!(cache.slots.len(), CACHE_SLOTS);
    }
}
