use std::sync::Arc;

use menes_jetstream::AccountName;
use serde_json::Value;

use super::*;
use crate::config::options::{AuthOptions, Options, UserOptions};
use crate::config::settings::Address;
use crate::routing::Subscription;
use crate::server::{Hooks, Server};
use crate::streams::status::StreamsStatus;

fn server() -> Server {
    let users = vec![UserOptions {
        user: "ada".to_owned(),
        password: "canary-password".to_owned(),
        account: Some("A".to_owned()),
        ..Default::default()
    }];
    let auth = AuthOptions {
        users,
        token: Some("canary-token".to_owned()),
        ..Default::default()
    };
    let host = "127.0.0.1".to_owned();
    let mut server = Server::new(
        Options {
            host,
            ports: vec![0],
            auth,
            ..Options::default()
        },
        Hooks::default(),
    );
    server.bind().expect("a free port");
    server
}

fn monitor(server: &Server, status: Option<Arc<Status>>) -> Monitor {
    let settings = Settings {
        monitor: Some(Address {
            host: "127.0.0.1".to_owned(),
            port: 0,
        }),
        jetstream: status.as_ref().map(|_| JetStreamSettings::default()),
        ..Settings::default()
    };
    Monitor::new(server.shared(), &settings, status)
}

async fn get(monitor: &Monitor, url: &str) -> (u16, String) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let answer = monitor.answer(path, query).await;
    (answer.status, String::from_utf8(answer.body).expect("text"))
}

async fn document(monitor: &Monitor, url: &str) -> Value {
    let (status, body) = get(monitor, url).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("a document")
}

/// The keys of the outermost object, in their order.
fn keys(body: &str) -> Vec<&str> {
    body.lines()
        .filter_map(|line| line.strip_prefix("  \"")?.split_once('"'))
        .map(|(key, _)| key)
        .collect()
}

#[tokio::test]
async fn varz_has_the_fields_of_nats_server_in_their_order() {
    let server = server();
    let (_, body) = get(&monitor(&server, None), "/varz").await;
    let order = "server_id server_name version menes_version proto go host port auth_required max_connections \
                 ping_interval ping_max http_host http_port http_base_path https_port \
                 auth_timeout max_control_line max_payload max_pending cluster gateway leaf mqtt \
                 websocket jetstream tls_timeout write_deadline start now uptime mem cores \
                 gomaxprocs cpu connections total_connections routes remotes leafnodes in_msgs \
                 in_bytes in_client_msgs in_client_bytes out_msgs out_bytes out_client_msgs \
                 out_client_bytes slow_consumers stale_connections stalled_clients subscriptions \
                 http_req_stats config_load_time config_digest system_account \
                 slow_consumer_stats stale_connection_stats disk_io_wait_stats";
    assert_eq!(keys(&body), order.split_whitespace().collect::<Vec<_>>());
    let document: Value = serde_json::from_str(&body).expect("a document");
    assert_eq!(document["version"], "2.14.6");
    assert_eq!(document["ping_interval"], 120_000_000_000_u64);
    assert_eq!(document["jetstream"], serde_json::json!({}));
    assert_eq!(document["http_req_stats"]["/varz"], 1);
    assert_ne!(document["port"], 0);
}

#[tokio::test]
async fn no_document_holds_a_secret() {
    let server = server();
    let monitor = monitor(&server, Some(Arc::default()));
    for (path, _) in PAGES {
        for query in ["", "auth=1&subs=detail&state=any&acc=A", "unused=1"] {
            let answer = monitor.answer(path, query).await;
            let body = String::from_utf8(answer.body).expect("text");
            assert!(!body.contains("canary"), "{path}?{query}: {body}");
        }
    }
}

#[tokio::test]
async fn wrong_queries_are_refused_in_the_words_of_nats_server() {
    let server = server();
    let monitor = monitor(&server, None);
    for (url, text) in [
        (
            "/connz?limit=x",
            "Error decoding int for 'limit': strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            "/connz?subs=x",
            "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        ("/connz?sort=foo", "invalid sorting option: foo"),
        (
            "/connz?sort=stop",
            "sort by stop only valid on closed connections",
        ),
        ("/connz?state=foo", "Error decoding state for foo"),
        (
            "/subsz?test=foo.*",
            "invalid test subject, must be valid publish subject: foo.*",
        ),
        ("/accountz?acc=NOPE", "Account NOPE does not exist"),
    ] {
        assert_eq!(get(&monitor, url).await, (400, text.to_owned()), "{url}");
    }
    assert_eq!(get(&monitor, "/nosuch").await.0, 404);
    let (status, vars) = get(&monitor, "/debug/vars").await;
    assert_eq!(status, 200);
    assert!(vars.contains("\"memstats\""), "{vars}");
}

#[tokio::test]
async fn a_base_path_stands_before_every_page() {
    let server = server();
    let settings = Settings {
        http_base_path: "/menes".to_owned(),
        ..Settings::default()
    };
    let monitor = Monitor::new(server.shared(), &settings, None);
    assert_eq!(get(&monitor, "/menes/healthz").await.0, 200);
    assert_eq!(get(&monitor, "/menes").await.0, 200);
    assert_eq!(get(&monitor, "/healthz").await.0, 404);
}

#[tokio::test]
async fn subscriptions_are_found_by_account_and_subject() {
    let server = server();
    let tag = |id| crate::streams::ingest::IngestTag {
        kind: crate::streams::ingest::IngestKind::Stream,
        id,
    };
    let subscribe = |account: &str, subject: &str| -> Arc<Subscription> {
        let account = server.accounts().get_or_create(&AccountName::from(account));
        account.subscribe_engine(tag(1), subject.as_bytes(), None)
    };
    let _kept = [
        subscribe("A", "orders.*"),
        subscribe("A", "x"),
        subscribe("$G", "orders.>"),
    ];
    let monitor = monitor(&server, None);
    assert_eq!(document(&monitor, "/subsz").await["num_subscriptions"], 3);
    assert_eq!(document(&monitor, "/subsz?subs=1&acc=A").await["total"], 2);
    let found = document(&monitor, "/subscriptionsz?subs=1&test=orders.7&limit=1").await;
    assert_eq!(found["total"], 2);
    assert_eq!(
        found["subscriptions_list"].as_array().map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn accounts_are_listed_from_the_start() {
    let server = server();
    let monitor = monitor(&server, None);
    let all = document(&monitor, "/accountz").await;
    assert_eq!(all["accounts"], serde_json::json!(["$G", "$SYS", "A"]));
    let stats = document(&monitor, "/accstatz").await;
    assert_eq!(stats["account_statz"], serde_json::json!([]));
    let stats = document(&monitor, "/accstatz?unused=1").await;
    assert_eq!(stats["account_statz"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn streams_that_are_off_are_healthy_and_disabled() {
    let server = server();
    let monitor = monitor(&server, None);
    assert_eq!(get(&monitor, "/healthz?js-enabled-only=1").await.0, 200);
    let jsz = document(&monitor, "/jsz?streams=1").await;
    assert_eq!(jsz["disabled"], true);
    assert_eq!(
        jsz["config"],
        serde_json::json!({"max_memory": 0, "max_storage": 0})
    );
}

#[tokio::test(start_paused = true)]
async fn health_follows_the_streams() {
    let server = server();
    let status = Arc::new(Status::default());
    let monitor = monitor(&server, Some(Arc::clone(&status)));
    let recovering = (
        503,
        "{\"status\":\"unavailable\",\"error\":\"JetStream is still recovering meta layer\"}"
            .to_owned(),
    );
    assert_eq!(get(&monitor, "/healthz").await, recovering);
    // A server that recovers must not be restarted for it.
    assert_eq!(get(&monitor, "/healthz?js-enabled-only=true").await.0, 200);
    status.publish(StreamsStatus {
        is_ready: true,
        ..StreamsStatus::default()
    });
    assert_eq!(
        get(&monitor, "/healthz").await,
        (200, "{\"status\":\"ok\"}".to_owned())
    );
    status.publish(StreamsStatus {
        is_ready: true,
        damage: Some("a segment is damaged".to_owned()),
        ..StreamsStatus::default()
    });
    assert_eq!(
        get(&monitor, "/healthz").await,
        (
            200,
            "{\"status\":\"degraded\",\"error\":\"a segment is damaged\"}".to_owned()
        )
    );
    assert_eq!(get(&monitor, "/healthz?account=X").await.0, 404);
    assert_eq!(get(&monitor, "/healthz?stream=X").await.0, 400);
    let poisoned = Some("sync failed: no space".to_owned());
    status.publish(StreamsStatus {
        is_ready: true,
        poisoned,
        ..StreamsStatus::default()
    });
    for url in [
        "/healthz",
        "/healthz?js-enabled-only=true",
        "/healthz?js-server-only=true",
    ] {
        let (code, body) = get(&monitor, url).await;
        assert_eq!(
            (code, body.contains("sync failed: no space")),
            (503, true),
            "{url}"
        );
    }
    let details = get(&monitor, "/healthz?details=1").await.1;
    assert!(
        details.contains("\"errors\":[{\"type\":\"JETSTREAM\""),
        "{details}"
    );
}
