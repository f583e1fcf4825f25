use proptest::prelude::*;

use super::*;
use crate::streams::ingest::{IngestKind, IngestTag};

fn subscription(id: u64, subject: &str, queue: Option<&str>) -> Arc<Subscription> {
    let tag = IngestTag {
        kind: IngestKind::Application,
        id,
    };
    Arc::new(Subscription::of_engine(
        tag,
        subject.as_bytes(),
        queue.map(str::as_bytes),
    ))
}

fn id(subscription: &Arc<Subscription>) -> u64 {
    match subscription.target() {
        super::super::Target::Ingest(tag) => tag.id,
        other => unreachable!("tests make engine subscriptions only, not {other:?}"),
    }
}

type Flat = (Vec<u64>, Vec<(Vec<u8>, Vec<u64>)>);

fn flat(result: &MatchResult) -> Flat {
    let ids = |list: &[Arc<Subscription>]| {
        let mut ids: Vec<u64> = list.iter().map(id).collect();
        ids.sort_unstable();
        ids
    };
    let mut queues: Vec<_> = result
        .queues
        .iter()
        .map(|q| (q.name.to_vec(), ids(&q.members)))
        .collect();
    queues.sort();
    (ids(&result.plain), queues)
}

/// What a plain list of all subscriptions says.
fn naive(all: &[Arc<Subscription>], literal: &[u8]) -> Flat {
    let mut result = MatchResult::default();
    for subscription in all {
        if subject::matches(subscription.subject(), literal) {
            match subscription.queue() {
                Some(name) => add_member(&mut result.queues, name, subscription),
                None => result.plain.push(Arc::clone(subscription)),
            }
        }
    }
    flat(&result)
}

#[test]
fn wildcards_match_as_in_the_protocol() {
    let list = Sublist::new();
    let subjects = [
        "a", "a.b", "a.*", "a.>", ">", "*", "*.b", "a.b.c", "*.*", "a*", "a.b*c",
    ];
    for (n, subject) in subjects.iter().enumerate() {
        list.insert(&subscription(n as u64, subject, None));
    }
    let plain = |literal: &str| flat(&list.matches(literal.as_bytes())).0;
    assert_eq!(plain("a"), [0, 4, 5]);
    assert_eq!(plain("a.b"), [1, 2, 3, 4, 6, 8]);
    assert_eq!(plain("a.b.c"), [3, 4, 7]);
    assert_eq!(plain("a*"), [4, 5, 9]);
    assert_eq!(plain("a.b*c"), [2, 3, 4, 8, 10]);
    assert_eq!(plain("a..b"), [] as [u64; 0]);
    assert_eq!(plain(""), [] as [u64; 0]);
    assert_eq!(plain("a."), [] as [u64; 0]);
}

#[test]
fn wildcards_in_a_published_subject_are_plain_tokens() {
    let list = Sublist::new();
    list.insert(&subscription(1, "foo.bar", None));
    list.insert(&subscription(2, "foo.*", None));
    assert_eq!(flat(&list.matches(b"foo.*")).0, [2]);
    assert_eq!(flat(&list.matches(b"foo.>")).0, [2]);
}

#[test]
fn members_of_one_group_under_several_subjects_are_one_group() {
    let list = Sublist::new();
    list.insert(&subscription(1, "foo.bar", Some("q")));
    list.insert(&subscription(2, "foo.*", Some("q")));
    list.insert(&subscription(3, "foo.>", Some("r")));
    let (plain, queues) = flat(&list.matches(b"foo.bar"));
    assert!(plain.is_empty());
    assert_eq!(
        queues,
        [(b"q".to_vec(), vec![1, 2]), (b"r".to_vec(), vec![3])]
    );
    assert!(list.has_interest(b"foo.bar", Some(b"r")));
    assert!(!list.has_interest(b"foo.bar", Some(b"s")));
    assert!(list.has_interest(b"foo.bar", None));
    assert!(!list.has_interest(b"bar", None));
}

#[test]
fn inboxes_leave_other_results_alone() {
    let list = Sublist::new();
    let orders = list.footprint(b"orders.eu.new");
    let single = list.footprint(b"orders");
    let before = (list.generation(orders), list.generation(single));
    for n in 0..100 {
        let inbox = subscription(n, &format!("_INBOX.x{n}.*"), None);
        list.insert(&inbox);
        list.remove(&inbox);
    }
    // Classes are hashed, so a few of a hundred inboxes may share one with `orders.eu`.
    assert!(list.generation(orders) - before.0 <= 10);
    assert_eq!(list.generation(single), before.1);
}

#[test]
fn every_kind_of_overlap_moves_the_generation() {
    for filter in [
        "a.b.c", "a.b", "a.b.*", "a.*", "a.>", "a", ">", "*.b.c", "a.*.c",
    ] {
        let list = Sublist::new();
        let footprint = list.footprint(b"a.b.c");
        let before = list.generation(footprint);
        let subscription = subscription(1, filter, None);
        list.insert(&subscription);
        let matched = subject::matches(filter.as_bytes(), b"a.b.c");
        assert!(
            !matched || list.generation(footprint) > before,
            "insert {filter}"
        );
        let before = list.generation(footprint);
        assert!(list.remove(&subscription));
        assert!(
            !matched || list.generation(footprint) > before,
            "remove {filter}"
        );
        assert!(!list.remove(&subscription));
    }
}

#[test]
fn an_emptied_list_keeps_no_nodes() {
    let list = Sublist::new();
    let all: Vec<_> = (0..2000)
        .map(|n| subscription(n, &format!("a.{n}.*.c.>"), None))
        .collect();
    all.iter().for_each(|s| list.insert(s));
    assert_eq!(list.len(), 2000);
    all.iter().for_each(|s| assert!(list.remove(s)));
    assert!(list.is_empty());
    assert_eq!(list.tree.read().nodes.len(), 1);
}

fn token(wild: bool) -> impl Strategy<Value = &'static str> {
    let tokens = if wild {
        vec!["a", "b", "c", "*", "a*"]
    } else {
        vec!["a", "b", "c", "a*"]
    };
    prop::sample::select(tokens)
}

fn filter() -> impl Strategy<Value = String> {
    (prop::collection::vec(token(true), 1..5), any::<bool>()).prop_map(|(mut tokens, rest)| {
        if rest {
            tokens.push(">");
        }
        tokens.join(".")
    })
}

fn literal() -> impl Strategy<Value = String> {
    prop::collection::vec(token(false), 1..6).prop_map(|tokens| tokens.join("."))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String, Option<&'static str>),
    Remove(prop::sample::Index),
    Match(String),
}

fn step() -> impl Strategy<Value = Step> {
    let queue = prop::option::of(prop::sample::select(vec!["q", "r"]));
    prop_oneof![
        3 => (filter(), queue).prop_map(|(subject, queue)| Step::Insert(subject, queue)),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
        4 => literal().prop_map(Step::Match),
    ]
}

proptest! {
    /// The tree agrees with a plain list, and a kept result is right as long as its generation
    /// stands.
    #[test]
    fn agrees_with_a_plain_list(steps in prop::collection::vec(step(), 1..120)) {
        let list = Sublist::new();
        let mut all: Vec<Arc<Subscription>> = Vec::new();
        let mut kept: HashMap<String, (u64, Flat)> = HashMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(subject, queue) => {
                    let subscription = subscription(n as u64, &subject, queue);
                    list.insert(&subscription);
                    all.push(subscription);
                }
                Step::Remove(index) => {
                    if !all.is_empty() {
                        let gone = all.swap_remove(index.index(all.len()));
                        prop_assert!(list.remove(&gone));
                    }
                }
                Step::Match(literal) => {
                    let generation = list.generation(list.footprint(literal.as_bytes()));
                    let result = flat(&list.matches(literal.as_bytes()));
                    prop_assert_eq!(&result, &naive(&all, literal.as_bytes()));
                    kept.insert(literal, (generation, result));
                }
            }
            prop_assert_eq!(list.len(), all.len());
            for (literal, (generation, result)) in &kept {
                if list.generation(list.footprint(literal.as_bytes())) == *generation {
                    prop_assert_eq!(result, &naive(&all, literal.as_bytes()));
                }
            }
        }
    }
}
