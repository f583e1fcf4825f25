//! What the transcript of the reference server cannot show: bounds of our own, limits of servers
//! and accounts, names that are taken, and properties of every configuration.

use proptest::prelude::*;

use super::*;
use crate::api::json;
use crate::api::metadata::Identity;
use crate::consumer::config::ReplayPolicy;
use crate::stream::config::ConsumerLimits;
use crate::time::Timestamp;

type Others = BTreeMap<String, ConsumerConfig>;

fn stream(retention: Retention) -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        num_replicas: 1,
        retention,
        ..StreamConfig::default()
    }
}

fn request(config: &str) -> ConsumerRequest {
    let body = format!(r#"{{"stream_name":"S","config":{config}}}"#);
    ConsumerRequest::parse(body.as_bytes()).expect("a request")
}

fn decide(
    stream: &StreamConfig,
    others: &Others,
    request: ConsumerRequest,
    bounds: &Bounds,
) -> Result<Decision, ApiError> {
    let name = request
        .config
        .durable_name
        .clone()
        .or_else(|| request.config.name.clone());
    let endpoint = match &name {
        Some(name) => Endpoint::Named {
            consumer: name,
            filter: None,
        },
        None => Endpoint::Unnamed,
    };
    create(request, "S", endpoint, Some((stream, others)), bounds, 0)
}

fn made(config: &str, bounds: &Bounds) -> Result<ConsumerConfig, ApiError> {
    match decide(
        &stream(Retention::Limits),
        &Others::new(),
        request(config),
        bounds,
    )? {
        Decision::Create { config, .. } => Ok(*config),
        other => panic!("nothing was there to make it {other:?}"),
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let body = br#"{"stream_name":"S","config":{"sourcing":true}}"#;
    let error = ConsumerRequest::parse(body).expect_err("sourcing");
    let text = "sourcing consumers are not supported by this version";
    assert_eq!(error, ApiError::invalid_json(text));
    assert!(
        made(
            r#"{"sourcing":false,"priority_policy":"none"}"#,
            &Bounds::default()
        )
        .is_ok()
    );
}

#[test]
fn nulls_are_nothing() {
    let all = r#"{"durable_name":null,"name":null,"description":null,"deliver_policy":null,
        "opt_start_seq":null,"opt_start_time":null,"ack_policy":null,"ack_wait":null,
        "max_deliver":null,"backoff":null,"filter_subject":null,"filter_subjects":null,
        "replay_policy":null,"rate_limit_bps":null,"sample_freq":null,"max_waiting":null,
        "max_ack_pending":null,"flow_control":null,"headers_only":null,"max_batch":null,
        "max_expires":null,"max_bytes":null,"deliver_subject":null,"deliver_group":null,
        "idle_heartbeat":null,"inactive_threshold":null,"num_replicas":null,"mem_storage":null,
        "direct":null,"sourcing":null,"metadata":null,"pause_until":null,"priority_groups":null,
        "priority_policy":null,"priority_timeout":null}"#;
    assert_eq!(request(all), request("{}"));
    assert_eq!(request(r#"{"name":"","durable_name":""}"#), request("{}"));
}

#[test]
fn servers_and_accounts_limit_unsettled_deliveries() {
    let explicit = r#"{"ack_policy":"explicit"}"#;
    let bounds = Bounds {
        server_max_ack_pending: 50,
        account_max_ack_pending: 40,
        ..Bounds::default()
    };
    assert_eq!(
        made(explicit, &bounds).expect("a consumer").max_ack_pending,
        40
    );
    assert_eq!(
        made(r#"{"ack_policy":"explicit","max_ack_pending":45}"#, &bounds),
        Err(ApiError::max_ack_pending_exceeds_limit(40))
    );
    assert_eq!(
        made(r#"{"ack_policy":"explicit","max_ack_pending":51}"#, &bounds),
        Err(ApiError::max_ack_pending_exceeds_limit(50))
    );
}

#[test]
fn servers_limit_the_batch_of_a_pull() {
    let bounds = Bounds {
        max_request_batch: 10,
        ..Bounds::default()
    };
    assert_eq!(made("{}", &bounds).expect("a consumer").max_batch, 10);
    assert_eq!(
        made(r#"{"max_batch":11}"#, &bounds),
        Err(ApiError::max_batch_exceeds_limit(10))
    );
    assert_eq!(
        made(r#"{"deliver_subject":"out"}"#, &bounds)
            .expect("a consumer")
            .max_batch,
        0
    );
}

#[test]
fn the_tighter_limit_on_consumers_counts() {
    let mut stream = stream(Retention::Limits);
    let mut others = Others::new();
    others.insert("a".into(), ConsumerConfig::default());
    others.insert(
        "m".into(),
        ConsumerConfig {
            direct: true,
            ..Default::default()
        },
    );
    let mut full = |of_stream, of_bounds| {
        stream.max_consumers = of_stream;
        let bounds = Bounds {
            max_consumers: of_bounds,
            ..Bounds::default()
        };
        decide(&stream, &others, request(r#"{"name":"b"}"#), &bounds)
            == Err(ApiError::consumer_limit_reached())
    };
    assert!(full(1, 0) && full(-1, 1) && full(5, 1) && full(1, 5));
    assert!(!full(2, 0) && !full(-1, 2) && !full(-1, -1) && !full(0, 0));
}

#[test]
fn many_filters_are_refused() {
    let many = |count: usize| {
        let mut request = request(r#"{"name":"c"}"#);
        request.config.filter_subjects = (0..count).map(|n| format!("s.{n}")).collect();
        decide(
            &stream(Retention::Limits),
            &Others::new(),
            request,
            &Bounds::default(),
        )
    };
    assert!(many(MAX_FILTERS).is_ok());
    assert_eq!(many(10_000).expect_err("too many").err_code, 10012);
}

#[test]
fn generated_names_avoid_those_that_are_taken() {
    let mut others = Others::new();
    let named = |others: &Others| match decide(
        &stream(Retention::Limits),
        others,
        request("{}"),
        &Bounds::default(),
    ) {
        Ok(Decision::Create { name, config }) => {
            assert_eq!(config.name, None);
            name
        }
        other => panic!("it has to be made, not {other:?}"),
    };
    for _ in 0..10 {
        let name = named(&others);
        assert!(others.insert(name, ConsumerConfig::default()).is_none());
    }
}

#[test]
fn long_names_are_refused_whether_durable_or_not() {
    let name = "n".repeat(256);
    for config in [
        format!(r#"{{"name":"{name}"}}"#),
        format!(r#"{{"durable_name":"{name}"}}"#),
    ] {
        assert_eq!(
            made(&config, &Bounds::default()),
            Err(ApiError::consumer_name_too_long(255))
        );
    }
}

#[test]
fn a_work_queue_gives_nobody_the_messages_of_another() {
    let queue = stream(Retention::WorkQueue);
    let mut others = Others::new();
    let bounds = Bounds::default();
    let ask = |others: &Others, name: &str, filter: &str| {
        let config = format!(
            r#"{{"durable_name":"{name}","ack_policy":"explicit","filter_subject":"{filter}"}}"#
        );
        decide(&queue, others, request(&config), &bounds)
    };
    for (name, filter) in [("a", "s.a"), ("b", "s.b.>")] {
        let Ok(Decision::Create { config, .. }) = ask(&others, name, filter) else {
            panic!("{name} takes what nobody takes");
        };
        others.insert(name.into(), *config);
    }
    assert_eq!(
        ask(&others, "c", "s.b.c"),
        Err(ApiError::work_queue_filter_not_unique())
    );
    assert_eq!(
        ask(&others, "c", ""),
        Err(ApiError::work_queue_multiple_unfiltered())
    );
    assert_eq!(
        ask(&others, "a", "s.b.c"),
        Err(ApiError::work_queue_filter_not_unique())
    );
    assert_eq!(
        ask(&others, "a", ""),
        Err(ApiError::work_queue_filter_not_unique())
    );
    assert!(matches!(
        ask(&others, "a", "s.c"),
        Ok(Decision::Update { .. })
    ));
}

#[test]
fn a_bound_push_consumer_stays_with_its_listener() {
    let current = ConsumerConfig {
        deliver_subject: "out".into(),
        ..Default::default()
    };
    let wanted = ConsumerConfig {
        deliver_subject: "else".into(),
        ..Default::default()
    };
    assert_eq!(
        check_change(&current, &wanted, true),
        Err(ApiError::consumer_name_in_use())
    );
    assert_eq!(check_change(&current, &wanted, false), Ok(()));
    assert_eq!(check_change(&current, &current, true), Ok(()));
}

#[test]
fn a_pause_survives_a_second_create() {
    let until = Some(Timestamp(9_000_000_000_000_000_000));
    let stream = stream(Retention::Limits);
    let mut others = Others::new();
    let mut config = made(r#"{"durable_name":"d"}"#, &Bounds::default()).expect("a consumer");
    config.pause_until = until;
    metadata::stamp_consumer(&mut config);
    others.insert("d".into(), config);
    let again = |config: &str| decide(&stream, &others, request(config), &Bounds::default());
    assert_eq!(
        again(r#"{"durable_name":"d"}"#),
        Ok(Decision::Keep { name: "d".into() })
    );
    match again(r#"{"durable_name":"d","description":"x","pause_until":"2030-01-01T00:00:00Z"}"#) {
        Ok(Decision::Update { config, .. }) => assert_eq!(config.pause_until, until),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_info_shows_can_be_sent_back() {
    let identity = Identity {
        version: "2.15.1".into(),
        level: 1,
    };
    let stream = stream(Retention::Limits);
    let config = made(
        r#"{"durable_name":"d","ack_policy":"explicit","filter_subjects":["s.a","s.b"],"metadata":{"k":"v"}}"#,
        &Bounds::default(),
    )
    .expect("a consumer");
    let mut shown = config.clone();
    identity.show(&mut shown.metadata);
    let body = String::from_utf8(json::to_vec(&shown)).expect("text");
    let others = Others::from([("d".to_owned(), config)]);
    for action in [Action::CreateOrUpdate, Action::Create, Action::Update] {
        let request = ConsumerRequest {
            action,
            ..request(&body)
        };
        assert_eq!(
            decide(&stream, &others, request, &Bounds::default()),
            Ok(Decision::Keep { name: "d".into() })
        );
    }
}

#[test]
fn only_calls_that_create_a_consumer_have_an_endpoint() {
    let call = Call::parse(b"$JS.API.CONSUMER.CREATE.S.c.s.a");
    let named = Endpoint::Named {
        consumer: "c",
        filter: Some("s.a"),
    };
    assert_eq!(Endpoint::of(call), Some(("S", named)));
    assert_eq!(Endpoint::of(Call::StreamNames), None);
}

prop_compose! {
    fn any_config()(
        numbers in proptest::collection::vec(prop_oneof![Just(0_i64), -3..5_i64, any::<i64>()], 9),
        backoff in proptest::collection::vec(-1..5_i64, 0..3),
        start_seq in 0..3_u64,
        start_time in proptest::option::of(any::<i64>()),
        policy in 0..6_usize,
        ack in 0..3_usize,
        flags in proptest::collection::vec(any::<bool>(), 5),
        push in any::<bool>(),
        filters in proptest::collection::vec("[a-b*>.]{0,3}", 0..3),
        sample in "[0-9x%]{0,3}",
    ) -> ConsumerConfig {
        use DeliverPolicy::{All, ByStartSequence, ByStartTime, Last, LastPerSubject, New};
        ConsumerConfig {
            name: Some("c".into()),
            durable_name: flags[0].then(|| "c".into()),
            deliver_policy: [All, Last, New, ByStartSequence, ByStartTime, LastPerSubject][policy],
            ack_policy: [AckPolicy::None, AckPolicy::All, AckPolicy::Explicit][ack],
            replay_policy: if flags[1] { ReplayPolicy::Instant } else { ReplayPolicy::Original },
            opt_start_seq: start_seq,
            opt_start_time: start_time.map(|time| Timestamp(time / 4)),
            ack_wait: numbers[0],
            max_deliver: numbers[1],
            max_waiting: if push { 0 } else { numbers[2] },
            max_ack_pending: numbers[3],
            max_batch: numbers[4],
            max_expires: numbers[5],
            max_bytes: numbers[6],
            idle_heartbeat: if push { numbers[7] } else { 0 },
            inactive_threshold: numbers[8],
            flow_control: push && flags[2],
            headers_only: flags[3],
            mem_storage: flags[4],
            deliver_subject: if push { "out".into() } else { String::new() },
            filter_subjects: filters,
            sample_freq: sample,
            backoff,
            ..ConsumerConfig::default()
        }
    }
}

proptest! {
    #[test]
    fn a_normalised_config_is_left_alone(config in any_config(), limit in 0..4_i64) {
        let limits = ConsumerLimits { max_ack_pending: limit, inactive_threshold: limit };
        let stream = StreamConfig { consumer_limits: limits, ..stream(Retention::Limits) };
        if let Ok(once) = validate(config, false, &stream, &Bounds::default()) {
            let twice = validate(once.clone(), false, &stream, &Bounds::default());
            prop_assert_eq!(twice.as_ref(), Ok(&once));
            let text = String::from_utf8(json::to_vec(&once)).expect("text");
            prop_assert_eq!(request(&text).config, once);
        }
    }
}
