use std::task::Waker;

use menes_protocol::subject;
use proptest::prelude::*;

use super::description::{
    Audience, Export, ExportKind, Import, ImportKind, ServiceOptions, StreamPlace,
};
use super::*;
use crate::connection::client::{ClientId, Endpoint, Identity, Taken};
use crate::connection::inbox::Inbox;
use crate::connection::output::{BufferPool, ByteQueue};
use crate::routing::Equipment;
use crate::system::Port;

#[test]
fn an_account_is_made_once() {
    let accounts = Accounts::default();
    let first = accounts.get_or_create(&AccountName::from("a"));
    let again = accounts.get_or_create(&AccountName::from("a"));
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(accounts.all().len(), 3);
    assert_ne!(
        first.id(),
        accounts.get_or_create(&AccountName::from("b")).id()
    );
}

#[test]
fn connections_are_limited() {
    let accounts = Accounts::default();
    let mut described = AccountDescription::new(AccountName::from("a"));
    described.limits.max_connections = Some(1);
    accounts.describe([described]);
    let account = accounts.get_or_create(&AccountName::from("a"));
    assert!(account.connected());
    assert!(!account.connected());
    account.disconnected();
    assert!(account.connected());
}

fn batch() -> RouteBatch {
    RouteBatch::new(Equipment {
        counters: Arc::default(),
        pool: BufferPool::default(),
        inboxes: Arc::new([Inbox::default()]),
        home: None,
        ingest: None,
        system: Arc::new(Port::new(Account::for_tests())),
        server_name: "test".into(),
        no_fast_producer_stall: Arc::default(),
    })
}

fn client(id: u64) -> Arc<Client> {
    let client = Client::new(ClientId(id), Endpoint::for_tests(), 1 << 20);
    client.identify(Identity::default(), false, true);
    Arc::new(client)
}

fn subscription(client: &Arc<Client>, sub: &Sub, sid: usize) -> Arc<Subscription> {
    let subscription = Arc::new(Subscription::of_client(
        Arc::clone(client),
        sub.filter.as_bytes(),
        sub.queue.as_deref().map(str::as_bytes),
        sid.to_string().as_bytes(),
        None,
    ));
    assert!(client.add_subscription(&subscription));
    subscription
}

/// Subject and sid of what waits for the client, without replies and in order of their text.
fn received(client: &Client) -> Vec<(String, usize)> {
    let mut queue = ByteQueue::default();
    let mut text = Vec::new();
    if let Taken::Bytes = client.take_output(&mut queue, Waker::noop()) {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = queue.slices(&mut slices);
        text.extend(slices[..count].iter().flat_map(|slice| slice.to_vec()));
        client.wrote(text.len());
    }
    let text = String::from_utf8(text).expect("tests send text");
    let lines = text.lines().filter(|line| line.starts_with("MSG "));
    let mut all: Vec<(String, usize)> = lines
        .map(|line| {
            let mut words = line.split(' ').skip(1);
            let subject = words.next().expect("a subject").to_owned();
            let sid = words.next().expect("a sid").parse().expect("a number");
            (subject, sid)
        })
        .collect();
    all.sort();
    all
}

/// A subscription in account `account`.
#[derive(Clone, Debug)]
struct Sub {
    account: usize,
    filter: String,
    queue: Option<String>,
}

/// What is imported: from whom, which subjects, and where they are here, with `$1` and so on.
#[derive(Clone, Debug)]
struct Link {
    importer: usize,
    exporter: usize,
    there: String,
    here: String,
    is_service: bool,
}

const ACCOUNTS: usize = 3;

fn name(account: usize) -> AccountName {
    AccountName::from(&*format!("N{account}"))
}

/// Everybody exports everything to everybody.
fn describe(links: &[Link]) -> Vec<AccountDescription> {
    let everything = |kind| Export {
        subject: ">".to_owned(),
        kind,
        audience: Audience::Everyone,
        account_token_position: None,
    };
    let own = |account| {
        let mut described = AccountDescription::new(name(account));
        described.exports = vec![
            everything(ExportKind::Stream),
            everything(ExportKind::Service(ServiceOptions::default())),
        ];
        let own = links.iter().filter(|link| link.importer == account);
        described.imports = own
            .map(|link| Import {
                account: name(link.exporter),
                subject: link.there.clone(),
                kind: if link.is_service {
                    ImportKind::Service {
                        to: Some(link.here.clone()),
                        share: false,
                    }
                } else {
                    ImportKind::Stream {
                        place: StreamPlace::To(link.here.clone()),
                        allow_trace: false,
                    }
                },
                token: None,
            })
            .collect();
        described
    };
    (0..ACCOUNTS).map(own).collect()
}

/// What `given` becomes, if it matches `from`, whose n-th `*` is `$n` in `to`.
fn naive_rewrite(from: &str, to: &str, given: &str) -> Option<String> {
    if !subject::matches(from.as_bytes(), given.as_bytes()) {
        return None;
    }
    let given: Vec<&str> = given.split('.').collect();
    let stars: Vec<&str> = from
        .split('.')
        .zip(&given)
        .filter_map(|(filter, token)| (filter == "*").then_some(*token))
        .collect();
    let count = from.split('.').count();
    let mut out: Vec<String> = Vec::new();
    for token in to.split('.') {
        match token.strip_prefix('$') {
            Some(n) => out.push(stars[n.parse::<usize>().expect("an index") - 1].to_owned()),
            None if token == ">" => out.extend(given[count - 1..].iter().map(ToString::to_string)),
            None => out.push(token.to_owned()),
        }
    }
    Some(out.join("."))
}

/// The way back: what in the exporter leads to `given` here.
fn naive_back(there: &str, here: &str, given: &str) -> Option<String> {
    let stars = there.split('.').filter(|token| *token == "*").count();
    // Turn `$n` into `*`, and the `*` of the other side into the place of its `$n`.
    let mut order = Vec::new();
    let filter: Vec<&str> = here
        .split('.')
        .map(|token| match token.strip_prefix('$') {
            Some(n) => {
                order.push(n.parse::<usize>().expect("an index"));
                "*"
            }
            None => token,
        })
        .collect();
    let mut next = 0;
    let target: Vec<String> = there
        .split('.')
        .map(|token| {
            if token == "*" {
                next += 1;
                let at = order.iter().position(|n| *n == next).expect("all are used");
                format!("${}", at + 1)
            } else {
                token.to_owned()
            }
        })
        .collect();
    assert_eq!(order.len(), stars);
    naive_rewrite(&filter.join("."), &target.join("."), given)
}

/// Who gets a message, as an import would be explained to a person: the plain ones, and the
/// candidates of every queue group. A subscription is named by its number.
#[derive(Debug, Default)]
struct Expected {
    plain: Vec<(String, usize)>,
    groups: Vec<Vec<(String, usize)>>,
}

fn naive_route(
    subs: &[Sub],
    links: &[&Link],
    account: usize,
    given: &str,
    passed: &mut Vec<usize>,
    out: &mut Expected,
) {
    let mut groups: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    let mut reach = |place: &str, in_account: usize| {
        for (sid, sub) in subs.iter().enumerate() {
            if sub.account == in_account
                && subject::matches(sub.filter.as_bytes(), place.as_bytes())
            {
                let found = (place.to_owned(), sid);
                match &sub.queue {
                    None => out.plain.push(found),
                    Some(queue) => groups.entry(queue.clone()).or_default().push(found),
                }
            }
        }
    };
    reach(given, account);
    let streams = links
        .iter()
        .filter(|l| !l.is_service && l.exporter == account);
    for link in streams.filter(|_| passed.is_empty()) {
        if let Some(place) = naive_rewrite(&link.there, &link.here, given) {
            reach(&place, link.importer);
        }
    }
    out.groups.extend(groups.into_values());
    let services = links
        .iter()
        .filter(|l| l.is_service && l.importer == account);
    for link in services {
        // Every account has one service export, so passing it twice is a circle.
        if let Some(place) = naive_back(&link.there, &link.here, given)
            && !passed.contains(&link.exporter)
        {
            passed.push(link.exporter);
            naive_route(subs, links, link.exporter, &place, passed, out);
            passed.pop();
        }
    }
}

fn token() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

fn literal() -> impl Strategy<Value = String> {
    proptest::collection::vec(token(), 1..5).prop_map(|tokens| tokens.join("."))
}

fn filter() -> impl Strategy<Value = String> {
    let inner = prop_oneof![2 => token(), 1 => Just("*")];
    let tokens = proptest::collection::vec(inner, 1..4);
    (tokens, any::<bool>()).prop_map(|(mut tokens, rest)| {
        if rest {
            tokens.push(">");
        }
        tokens.join(".")
    })
}

/// A place for a filter: its wildcards in some order behind a token, or the filter itself.
fn place_for(there: &str, turn: usize, moves: bool) -> String {
    let stars = there.split('.').filter(|token| *token == "*").count();
    if !moves {
        return number_all(there);
    }
    let mut tokens = vec!["c".to_owned()];
    let mut marks: Vec<String> = (1..=stars).map(|n| format!("${n}")).collect();
    if stars > 0 {
        marks.rotate_left(turn % stars);
    }
    tokens.extend(marks);
    if there.ends_with('>') {
        tokens.push(">".to_owned());
    }
    tokens.join(".")
}

fn number_all(filter: &str) -> String {
    menes_protocol::transform::number_wildcards(filter)
}

fn link() -> impl Strategy<Value = Link> {
    let ends = (0..ACCOUNTS, 1..ACCOUNTS);
    (ends, filter(), 0..3_usize, any::<bool>(), any::<bool>()).prop_map(
        |((importer, step), there, turn, moves, is_service)| Link {
            importer,
            exporter: (importer + step) % ACCOUNTS,
            here: place_for(&there, turn, moves),
            there,
            is_service,
        },
    )
}

fn sub() -> impl Strategy<Value = Sub> {
    let queue =
        proptest::option::weighted(0.3, prop_oneof![Just("q".to_owned()), Just("r".to_owned())]);
    (0..ACCOUNTS, filter(), queue).prop_map(|(account, filter, queue)| Sub {
        account,
        filter,
        queue,
    })
}

/// Delivers a message and compares with the naive way.
fn check(
    accounts: &Accounts,
    receiver: &Arc<Client>,
    subs: &[Sub],
    links: &[&Link],
    (account, subject): &(usize, String),
) {
    let mut expected = Expected::default();
    naive_route(
        subs,
        links,
        *account,
        subject,
        &mut Vec::new(),
        &mut expected,
    );
    let mut batch = batch();
    let from = accounts.get_or_create(&name(*account));
    let message = Message::new(subject.as_bytes(), b"");
    let count = from.route(&mut batch, &message, None);
    batch.flush();
    let mut got = received(receiver);
    assert_eq!(count, got.len());
    for group in &expected.groups {
        let at = got.iter().position(|found| group.contains(found));
        let at = at.unwrap_or_else(|| panic!("nobody of {group:?} in {got:?}"));
        got.remove(at);
    }
    expected.plain.sort();
    assert_eq!(got, expected.plain, "{subject} in {account}");
}

/// The links that the book accepts.
fn holding<'l>(links: &'l [Link], refusals: &[Refusal]) -> Vec<&'l Link> {
    let mut counts = [0; ACCOUNTS];
    let mut kept = Vec::new();
    for link in links {
        let at = counts[link.importer];
        counts[link.importer] += 1;
        let is_refused = refusals
            .iter()
            .any(|refusal| refusal.importer == name(link.importer) && refusal.import == at);
        if !is_refused {
            kept.push(link);
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Exports and imports deliver what a naive reading of them says, whether subscriptions or
    /// imports come first, and after the imports changed.
    #[test]
    fn imports_agree_with_a_naive_model(
        links in proptest::collection::vec(link(), 0..4),
        later in proptest::collection::vec(link(), 0..4),
        subs in proptest::collection::vec(sub(), 0..8),
        early in 0..8_usize,
        messages in proptest::collection::vec((0..ACCOUNTS, literal()), 1..6),
    ) {
        let accounts = Accounts::default();
        let receiver = client(1);
        let add = |(sid, sub): (usize, &Sub)| {
            let subscription = subscription(&receiver, sub, sid);
            accounts.get_or_create(&name(sub.account)).subscribe(&subscription);
            subscription
        };
        let numbered: Vec<_> = subs.iter().enumerate().collect();
        let early = early.min(subs.len());
        let mut all: Vec<_> = numbered[..early].iter().copied().map(add).collect();
        let refusals = accounts.describe_all(describe(&links));
        all.extend(numbered[early..].iter().copied().map(add));
        let kept = holding(&links, &refusals);
        for message in &messages {
            check(&accounts, &receiver, &subs, &kept, message);
        }
        let refusals = accounts.describe_all(describe(&later));
        let kept = holding(&later, &refusals);
        for message in &messages {
            check(&accounts, &receiver, &subs, &kept, message);
        }
        for (subscription, sub) in all.iter().zip(&subs) {
            accounts.get_or_create(&name(sub.account)).unsubscribe(subscription);
        }
        for account in accounts.all() {
            let services = account.services.lock().len();
            prop_assert_eq!(account.sublist().len(), services);
            prop_assert!(account.shadows.lock().is_empty());
        }
    }
}
