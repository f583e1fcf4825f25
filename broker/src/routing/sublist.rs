//! Which subscriptions match a subject.
//!
//! The subscriptions of an account lie in a tree of tokens. Matching walks it under a read lock;
//! whoever matches often keeps the result and asks [`Sublist::generation`] whether it still holds,
//! which takes no lock. A result depends on few of the account's subscriptions: on those whose first
//! token is a wildcard, those that share the first token and have a wildcard or nothing behind it,
//! and those that share the first two tokens. Each of these classes has a counter (hashed into a
//! fixed number of them), so the coming and going of inboxes leaves other results alone.
//!
//! # Invariants
//!
//! 1. A node other than the root has a subscription or a child.
//! 2. A subscription in the tree knows its node and its index there, so removal searches nothing.
//! 3. A counter moves after the tree changed and before the write lock is released: who reads a
//!    counter and then matches may hold a newer result than the counter says, never an older one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use menes_protocol::subject;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::hash::{BytesHash, HashKey};
use super::subscription::Subscription;

/// What matches one subject.
#[derive(Clone, Debug, Default)]
pub struct MatchResult {
    /// Each of these gets a copy.
    pub plain: Vec<Arc<Subscription>>,
    /// One member of each of these gets a copy.
    pub queues: Vec<QueueMatch>,
}

/// A queue group that matches: the members of all its subscriptions' subjects together.
#[derive(Clone, Debug)]
pub struct QueueMatch {
    /// Name of the group.
    pub name: Box<[u8]>,
    /// At least one.
    pub members: Vec<Arc<Subscription>>,
}

impl MatchResult {
    /// Whether nobody is interested.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.queues.clear();
    }
}

/// The subscriptions of one account.
#[derive(Debug)]
pub struct Sublist {
    tree: RwLock<Tree>,
    count: AtomicUsize,
    generations: Box<Generations>,
}

const FIRST_TOKEN_CLASSES: usize = 64;
const TWO_TOKEN_CLASSES: usize = 512;

#[derive(Debug)]
struct Generations {
    key: HashKey,
    any: AtomicU64,
    first: [AtomicU64; FIRST_TOKEN_CLASSES],
    two: [AtomicU64; TWO_TOKEN_CLASSES],
}

/// The classes of subscriptions that a match result depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    first: u16,
    /// `NO_CLASS` for a subject of one token.
    two: u16,
}

const NO_CLASS: u16 = u16::MAX;

/// How many literal tokens, up to two, a filter begins with decides its class.
enum Class {
    Any,
    First(usize),
    Two(usize),
}

impl Generations {
    fn new() -> Self {
        Self {
            key: HashKey::of_process(),
            any: AtomicU64::new(0),
            first: [const { AtomicU64::new(0) }; FIRST_TOKEN_CLASSES],
            two: [const { AtomicU64::new(0) }; TWO_TOKEN_CLASSES],
        }
    }

    fn bucket(&self, prefix: &[u8], buckets: usize) -> usize {
        usize::try_from(self.key.hash(prefix) % (buckets as u64)).expect("below the bucket count")
    }

    fn class(&self, filter: &[u8]) -> Class {
        let mut tokens = subject::tokens(filter);
        let first = tokens.next().unwrap_or_default();
        if is_wildcard(first) {
            return Class::Any;
        }
        match tokens.next() {
            Some(second) if !is_wildcard(second) => {
                let prefix = &filter[..first.len() + 1 + second.len()];
                Class::Two(self.bucket(prefix, TWO_TOKEN_CLASSES))
            }
            _ => Class::First(self.bucket(first, FIRST_TOKEN_CLASSES)),
        }
    }

    fn footprint(&self, literal: &[u8]) -> Footprint {
        let mut tokens = subject::tokens(literal);
        let first = tokens.next().unwrap_or_default();
        let two = tokens.next().map_or(NO_CLASS, |second| {
            let prefix = &literal[..first.len() + 1 + second.len()];
            u16::try_from(self.bucket(prefix, TWO_TOKEN_CLASSES)).expect("few classes")
        });
        let first = u16::try_from(self.bucket(first, FIRST_TOKEN_CLASSES)).expect("few classes");
        Footprint { first, two }
    }

    fn advance(&self, filter: &[u8]) {
        let counter = match self.class(filter) {
            Class::Any => &self.any,
            Class::First(class) => &self.first[class],
            Class::Two(class) => &self.two[class],
        };
        counter.fetch_add(1, Ordering::Release);
    }

    /// The counters only rise, so two equal sums mean that none of them moved in between.
    #[inline]
    fn sum(&self, footprint: Footprint) -> u64 {
        let two = self.two.get(usize::from(footprint.two));
        self.any.load(Ordering::Acquire)
            + self.first[usize::from(footprint.first)].load(Ordering::Acquire)
            + two.map_or(0, |counter| counter.load(Ordering::Acquire))
    }
}

fn is_wildcard(token: &[u8]) -> bool {
    matches!(token, b"*" | b">")
}

impl Default for Sublist {
    fn default() -> Self {
        Self::new()
    }
}

impl Sublist {
    /// A list without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tree: RwLock::new(Tree::new()),
            count: AtomicUsize::new(0),
            generations: Box::new(Generations::new()),
        }
    }

    /// Adds a subscription, whose subject must be valid. It must not be in any list yet.
    pub fn insert(&self, subscription: &Arc<Subscription>) {
        debug_assert!(subject::is_valid(subscription.subject()));
        let mut tree = self.tree.write();
        tree.insert(subscription);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.generations.advance(subscription.subject());
    }

    /// Removes a subscription. False when it is not in this list.
    pub fn remove(&self, subscription: &Arc<Subscription>) -> bool {
        let mut tree = self.tree.write();
        let removed = tree.remove(subscription);
        if removed {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.generations.advance(subscription.subject());
        }
        removed
    }

    /// What matches `literal`, in which `*` and `>` are plain tokens. A malformed subject matches
    /// nothing. Subscriptions whose owner may not receive the subject are left out.
    #[must_use]
    pub fn matches(&self, literal: &[u8]) -> MatchResult {
        let mut result = MatchResult::default();
        self.match_into(literal, &mut result);
        result
    }

    /// As [`Sublist::matches`], into a result that is overwritten.
    pub fn match_into(&self, literal: &[u8], result: &mut MatchResult) {
        result.clear();
        let mut tokens: SmallVec<[&[u8]; 16]> = SmallVec::new();
        for token in subject::tokens(literal) {
            if token.is_empty() {
                return;
            }
            tokens.push(token);
        }
        let tree = self.tree.read();
        tree.visit(ROOT, &tokens, &mut |node| {
            for subscription in &node.plain {
                if subscription.may_receive(literal) {
                    result.plain.push(Arc::clone(subscription));
                }
            }
            for group in &node.queues {
                for member in &group.members {
                    if member.may_receive(literal) {
                        add_member(&mut result.queues, &group.name, member);
                    }
                }
            }
            true
        });
    }

    /// Whether anyone subscribes to `literal`; with a `queue`, only members of that group count.
    #[must_use]
    pub fn has_interest(&self, literal: &[u8], queue: Option<&[u8]>) -> bool {
        let mut tokens: SmallVec<[&[u8]; 16]> = SmallVec::new();
        for token in subject::tokens(literal) {
            if token.is_empty() {
                return false;
            }
            tokens.push(token);
        }
        let takes = |list: &[Arc<Subscription>]| list.iter().any(|s| s.may_receive(literal));
        let mut found = false;
        self.tree.read().visit(ROOT, &tokens, &mut |node| {
            found |= match queue {
                Some(name) => node
                    .queues
                    .iter()
                    .any(|group| *group.name == *name && takes(&group.members)),
                None => takes(&node.plain) || node.queues.iter().any(|group| takes(&group.members)),
            };
            !found
        });
        found
    }

    /// Visits every subscription, in no particular order, under the lock: `visit` must be short.
    pub fn for_each(&self, visit: &mut dyn FnMut(&Arc<Subscription>)) {
        let tree = self.tree.read();
        for node in &tree.nodes {
            node.plain.iter().for_each(&mut *visit);
            for group in &node.queues {
                group.members.iter().for_each(&mut *visit);
            }
        }
    }

    /// Forgets all subscriptions, at the end of a server.
    pub(crate) fn clear(&self) {
        let old = std::mem::replace(&mut *self.tree.write(), Tree::new());
        self.count.store(0, Ordering::Relaxed);
        // Without the lock: what they hold may hold other accounts.
        drop(old);
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn footprint(&self, literal: &[u8]) -> Footprint {
        self.generations.footprint(literal)
    }

    /// Moves when a subscription comes or goes that could match a subject with this footprint.
    #[inline]
    pub(super) fn generation(&self, footprint: Footprint) -> u64 {
        self.generations.sum(footprint)
    }
}

fn add_member(queues: &mut Vec<QueueMatch>, name: &[u8], member: &Arc<Subscription>) {
    if let Some(group) = queues.iter_mut().find(|group| *group.name == *name) {
        group.members.push(Arc::clone(member));
    } else {
        queues.push(QueueMatch {
            name: name.into(),
            members: vec![Arc::clone(member)],
        });
    }
}

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// Nodes by number; freed numbers are used again.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// The token that leads here from the parent.
    token: Box<[u8]>,
    literals: Children,
    /// Child for `*`.
    any: u32,
    /// Child for `>`.
    rest: u32,
    plain: Vec<Arc<Subscription>>,
    queues: Vec<QueueNode>,
}

#[derive(Debug)]
struct QueueNode {
    name: Box<[u8]>,
    members: Vec<Arc<Subscription>>,
}

/// Children by literal token. Most nodes have none or one; a few have very many.
#[derive(Debug)]
#[expect(
    clippy::box_collection,
    reason = "a map is three times as large as a list, in every node"
)]
enum Children {
    Few(Vec<(Box<[u8]>, u32)>),
    Many(Box<HashMap<Box<[u8]>, u32, BytesHash>>),
}

const FEW: usize = 8;

impl Children {
    const fn new() -> Self {
        Self::Few(Vec::new())
    }

    fn find(&self, token: &[u8]) -> Option<u32> {
        match self {
            Self::Few(list) => list
                .iter()
                .find(|(key, _)| **key == *token)
                .map(|(_, node)| *node),
            Self::Many(map) => map.get(token).copied(),
        }
    }

    fn add(&mut self, token: Box<[u8]>, node: u32) {
        match self {
            Self::Few(list) if list.len() < FEW => list.push((token, node)),
            Self::Few(list) => {
                let mut map: HashMap<_, _, BytesHash> = list.drain(..).collect();
                map.insert(token, node);
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => {
                map.insert(token, node);
            }
        }
    }

    fn remove(&mut self, token: &[u8]) {
        match self {
            Self::Few(list) => {
                list.retain(|(key, _)| **key != *token);
                if list.is_empty() {
                    *list = Vec::new();
                }
            }
            Self::Many(map) => {
                map.remove(token);
                if map.len() <= FEW / 2 {
                    *self = Self::Few(map.drain().collect());
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(map) => map.is_empty(),
        }
    }
}

impl Node {
    fn new(parent: u32, token: &[u8]) -> Self {
        Self {
            parent,
            token: token.into(),
            literals: Children::new(),
            any: NONE,
            rest: NONE,
            plain: Vec::new(),
            queues: Vec::new(),
        }
    }

    fn is_unused(&self) -> bool {
        self.plain.is_empty()
            && self.queues.is_empty()
            && self.any == NONE
            && self.rest == NONE
            && self.literals.is_empty()
    }

    fn child(&self, token: &[u8]) -> Option<u32> {
        let wildcard = match token {
            b"*" => self.any,
            b">" => self.rest,
            _ => return self.literals.find(token),
        };
        (wildcard != NONE).then_some(wildcard)
    }

    fn set_child(&mut self, token: &[u8], node: u32) {
        match token {
            b"*" => self.any = node,
            b">" => self.rest = node,
            _ if node == NONE => self.literals.remove(token),
            _ => self.literals.add(token.into(), node),
        }
    }

    fn existing_list_of(&mut self, queue: Option<&[u8]>) -> Option<&mut Vec<Arc<Subscription>>> {
        match queue {
            None => Some(&mut self.plain),
            Some(name) => self
                .queues
                .iter_mut()
                .find(|group| *group.name == *name)
                .map(|group| &mut group.members),
        }
    }

    fn list_of(&mut self, queue: Option<&[u8]>) -> &mut Vec<Arc<Subscription>> {
        let Some(name) = queue else {
            return &mut self.plain;
        };
        let at = self.queues.iter().position(|group| *group.name == *name);
        let at = at.unwrap_or_else(|| {
            self.queues.push(QueueNode {
                name: name.into(),
                members: Vec::new(),
            });
            self.queues.len() - 1
        });
        &mut self.queues[at].members
    }
}

impl Tree {
    fn new() -> Self {
        Self {
            nodes: vec![Node::new(NONE, b"")],
            free: Vec::new(),
        }
    }

    fn insert(&mut self, subscription: &Arc<Subscription>) {
        let mut node = ROOT;
        for token in subject::tokens(subscription.subject()) {
            node = match self.nodes[node as usize].child(token) {
                Some(child) => child,
                None => self.add_node(node, token),
            };
        }
        let list = self.nodes[node as usize].list_of(subscription.queue());
        let slot = u32::try_from(list.len()).expect("memory ends before 4 G subscriptions");
        subscription.place.node.store(node, Ordering::Relaxed);
        subscription.place.slot.store(slot, Ordering::Relaxed);
        list.push(Arc::clone(subscription));
    }

    fn add_node(&mut self, parent: u32, token: &[u8]) -> u32 {
        let node = Node::new(parent, token);
        let number = if let Some(number) = self.free.pop() {
            self.nodes[number as usize] = node;
            number
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("memory ends before 4 G nodes")
        };
        self.nodes[parent as usize].set_child(token, number);
        number
    }

    fn remove(&mut self, subscription: &Arc<Subscription>) -> bool {
        let number = subscription.place.node.load(Ordering::Relaxed);
        let slot = subscription.place.slot.load(Ordering::Relaxed) as usize;
        let queue = subscription.queue();
        let node = self.nodes.get_mut(number as usize);
        let Some(list) = node.and_then(|node| node.existing_list_of(queue)) else {
            return false;
        };
        if !list
            .get(slot)
            .is_some_and(|found| Arc::ptr_eq(found, subscription))
        {
            return false;
        }
        list.swap_remove(slot);
        if let Some(moved) = list.get(slot) {
            let slot = u32::try_from(slot).expect("it was stored as 32 bits");
            moved.place.slot.store(slot, Ordering::Relaxed);
        }
        if list.is_empty() {
            *list = Vec::new();
            if let Some(name) = queue {
                self.nodes[number as usize]
                    .queues
                    .retain(|group| *group.name != *name);
            }
        }
        subscription.place.node.store(NONE, Ordering::Relaxed);
        self.prune(number);
        true
    }

    /// Frees `number` and its ancestors as far as they are of no use any more.
    fn prune(&mut self, mut number: u32) {
        while number != ROOT && self.nodes[number as usize].is_unused() {
            let parent = self.nodes[number as usize].parent;
            let token = std::mem::take(&mut self.nodes[number as usize].token);
            self.nodes[parent as usize].set_child(&token, NONE);
            self.free.push(number);
            number = parent;
        }
        if self.free.len() == self.nodes.len() - 1 && self.free.len() > 1024 {
            *self = Self::new();
        }
    }

    /// Visits the nodes whose subject matches `tokens`, until `visit` returns false.
    fn visit<'a>(
        &'a self,
        number: u32,
        tokens: &[&[u8]],
        visit: &mut dyn FnMut(&'a Node) -> bool,
    ) -> bool {
        let node = &self.nodes[number as usize];
        let Some((token, behind)) = tokens.split_first() else {
            return visit(node);
        };
        if node.rest != NONE && !visit(&self.nodes[node.rest as usize]) {
            return false;
        }
        if node.any != NONE && !self.visit(node.any, behind, visit) {
            return false;
        }
        match node.literals.find(token) {
            Some(child) => self.visit(child, behind, visit),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
