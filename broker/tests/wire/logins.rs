//! Credentials and permissions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Running, eventually, options, user, with_users};
use menes_broker::auth::permissions::ResponseLimits;
use menes_broker::config::options::{
    AuthOptions, Options, PermissionOptions, SubjectRules, UserOptions,
};
use menes_broker::connection::client::{ClientInfo, ConnectionObserver};
use menes_broker::error::CloseReason;
use menes_broker::server::Hooks;

const VIOLATION: &str = "-ERR 'Authorization Violation'\r\n";

fn rules(allow: Option<&[&str]>, deny: &[&str]) -> SubjectRules {
    let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    SubjectRules {
        allow: allow.map(own),
        deny: own(deny),
    }
}

fn limited(publish: SubjectRules, subscribe: SubjectRules) -> UserOptions {
    let permissions = PermissionOptions {
        publish,
        subscribe,
        responses: None,
    };
    UserOptions {
        permissions: Some(permissions),
        ..user("limited", "p")
    }
}

const LIMITED: &str = ",\"user\":\"limited\",\"pass\":\"p\"";
const ADMIN: &str = ",\"user\":\"admin\",\"pass\":\"p\"";

#[test]
fn wrong_credentials_get_one_answer() {
    let server = Running::new(with_users(vec![user("ada", "secret")]));
    assert!(server.silent().info.contains("\"auth_required\":true"));
    for json in [
        "{}",
        "{\"user\":\"ada\",\"pass\":\"wrong\"}",
        "{\"user\":\"eve\",\"pass\":\"secret\"}",
        "{\"auth_token\":\"secret\"}",
        "{\"user\":\"ada\",\"pass\":\"secret\",\"account\":\"other\"}",
    ] {
        let mut peer = server.silent();
        peer.say(&format!("CONNECT {json}\r\nPING\r\n"));
        peer.expect(VIOLATION);
        peer.expect_closed();
    }
    let long = "x".repeat(2000);
    let mut peer = server.silent();
    peer.say(&format!(
        "CONNECT {{\"user\":\"ada\",\"pass\":\"{long}\"}}\r\n"
    ));
    peer.expect(VIOLATION);
    server
        .client_with(",\"user\":\"ada\",\"pass\":\"secret\"")
        .sync();
}

#[test]
fn nothing_comes_before_login() {
    let server = Running::new(with_users(vec![user("ada", "secret")]));
    for bytes in [
        "PUB a 1\r\nx\r\n",
        "SUB a 1\r\n",
        "PING\r\n",
        "PUB a 1000000\r\n",
    ] {
        let mut peer = server.silent();
        peer.say(bytes);
        peer.expect(VIOLATION);
        peer.expect_closed();
    }
}

#[test]
fn hashed_passwords_work_and_do_not_block_others() {
    let hash = bcrypt::hash("secret", 6).expect("a cost in range");
    let server = Running::new(with_users(vec![user("ada", &hash), user("bob", "b")]));
    let mut peer = server.silent();
    // What follows CONNECT waits for the check and is then handled.
    peer.say("CONNECT {\"verbose\":false,\"user\":\"ada\",\"pass\":\"secret\"}\r\n");
    peer.say("SUB a 1\r\nPUB a 1\r\nx\r\nPING\r\n");
    peer.expect("MSG a 1 1\r\nx\r\nPONG\r\n");
    for name in ["ada", "nobody"] {
        let mut peer = server.silent();
        peer.say(&format!(
            "CONNECT {{\"user\":\"{name}\",\"pass\":\"wrong\"}}\r\nPING\r\n"
        ));
        peer.expect(VIOLATION);
        peer.expect_closed();
    }
}

#[test]
fn a_token_is_enough_where_one_is_set() {
    let auth = AuthOptions {
        token: Some("tok".to_owned()),
        ..AuthOptions::default()
    };
    let server = Running::new(Options { auth, ..options() });
    server.client_with(",\"auth_token\":\"tok\"").sync();
    server.client_with(",\"auth_token\":\"root::tok\"").sync();
    let mut peer = server.silent();
    peer.say("CONNECT {\"auth_token\":\"no\"}\r\n");
    peer.expect(VIOLATION);
}

#[test]
fn no_auth_user_speaks_at_once() {
    let guest = UserOptions {
        account: Some("GUESTS".to_owned()),
        ..user("guest", "g")
    };
    let mut options = with_users(vec![guest, user("ada", "p")]);
    options.auth.no_auth_user = Some("guest".to_owned());
    let server = Running::new(options);
    let mut peer = server.silent();
    assert!(!peer.info.contains("auth_required"));
    peer.say("SUB a 1\r\nPUB a 1\r\nx\r\n");
    peer.expect("+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\n");
    let mut peer = server.silent();
    peer.say("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    peer.expect("PONG\r\n");
    assert!(peer.line().contains("\"remote_account\":\"GUESTS\""));
    let mut peer = server.silent();
    peer.say("CONNECT {\"user\":\"ada\",\"pass\":\"x\"}\r\n");
    peer.expect(VIOLATION);
}

#[test]
fn accounts_do_not_meet() {
    let with_account = |name: &str| UserOptions {
        account: Some(name.to_owned()),
        ..user(name, "p")
    };
    let server = Running::new(with_users(vec![with_account("A"), with_account("B")]));
    let mut a = server.client_with(",\"user\":\"A\",\"pass\":\"p\"");
    let mut b = server.client_with(",\"user\":\"B\",\"pass\":\"p\"");
    b.say("SUB > 1\r\n");
    b.sync();
    a.say("SUB x 1\r\nPUB x 1\r\ny\r\n");
    a.expect("MSG x 1 1\r\ny\r\n");
    b.sync();
}

#[test]
fn publishing_is_limited() {
    let server = Running::new(with_users(vec![limited(
        rules(Some(&["ok.*", "also"]), &["ok.not"]),
        SubjectRules::default(),
    )]));
    let mut peer = server.client_with(LIMITED);
    peer.say("SUB > 1\r\nPUB ok.a 1\r\nx\r\n");
    peer.expect("MSG ok.a 1 1\r\nx\r\n");
    for subject in ["ok.not", "other", "ok.a.b"] {
        for _ in 0..2 {
            peer.say(&format!("PUB {subject} 1\r\nx\r\n"));
            peer.expect(&format!(
                "-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n"
            ));
        }
    }
    peer.sync();
}

#[test]
fn denied_subscriptions_are_refused_with_any_queue() {
    let deny = rules(Some(&[">"]), &["admin.>", "admin.> other"]);
    let server = Running::new(with_users(vec![limited(SubjectRules::default(), deny)]));
    let mut peer = server.client_with(LIMITED);
    peer.say("SUB admin.x 1\r\nSUB admin.x q 2\r\nSUB admin.x other 3\r\n");
    peer.expect("-ERR 'Permissions Violation for Subscription to \"admin.x\"'\r\n");
    for queue in ["q", "other"] {
        peer.expect(&format!(
            "-ERR 'Permissions Violation for Subscription to \"admin.x\" using queue \"{queue}\"'\r\n"
        ));
    }
    peer.sync();
}

#[test]
fn a_wildcard_over_a_denied_subject_is_filtered() {
    let deny = rules(None, &["*.secret"]);
    let server = Running::new(with_users(vec![
        limited(SubjectRules::default(), deny),
        user("admin", "p"),
    ]));
    let mut peer = server.client_with(LIMITED);
    peer.say("SUB foo.* 1\r\nSUB foo.> g 2\r\n");
    peer.sync();
    let mut admin = server.client_with(ADMIN);
    admin.say("SUB foo.> g 3\r\n");
    admin.sync();
    // The member that may not have it is passed over.
    for _ in 0..20 {
        admin.say("PUB foo.secret 1\r\nx\r\n");
        admin.expect("MSG foo.secret 3 1\r\nx\r\n");
    }
    peer.sync();
    admin.say("UNSUB 3\r\nPUB foo.open 1\r\ny\r\n");
    peer.expect("MSG foo.open 1 1\r\ny\r\nMSG foo.open 2 1\r\ny\r\n");
}

#[test]
fn a_service_may_answer_what_it_was_asked() {
    let service = UserOptions {
        permissions: Some(PermissionOptions {
            responses: Some(ResponseLimits {
                max: Some(1),
                ttl: Some(Duration::from_secs(60)),
            }),
            ..PermissionOptions::default()
        }),
        ..user("limited", "p")
    };
    let server = Running::new(with_users(vec![service, user("admin", "p")]));
    let mut service = server.client_with(LIMITED);
    service.say("SUB svc 1\r\n");
    service.sync();
    let mut admin = server.client_with(ADMIN);
    admin.say("SUB r 1\r\nPUB svc r 1\r\n?\r\n");
    service.expect("MSG svc 1 r 1\r\n?\r\n");
    service.say("PUB r 1\r\n!\r\n");
    admin.expect("MSG r 1 1\r\n!\r\n");
    for subject in ["r", "other"] {
        service.say(&format!("PUB {subject} 1\r\n!\r\n"));
        service.expect(&format!(
            "-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n"
        ));
    }
}

#[test]
fn users_that_change_are_disconnected() {
    let server = Running::new(with_users(vec![user("ada", "a"), user("bob", "b")]));
    let mut ada = server.client_with(",\"user\":\"ada\",\"pass\":\"a\"");
    let mut bob = server.client_with(",\"user\":\"bob\",\"pass\":\"b\"");
    let users = vec![user("ada", "a")];
    server.handle().update_auth(AuthOptions {
        users,
        ..AuthOptions::default()
    });
    bob.expect("-ERR 'User Authentication Revoked'\r\n");
    bob.expect_closed();
    ada.sync();
}

#[test]
fn new_permissions_take_effect_without_a_new_connection() {
    let with = |deny: &[&str]| AuthOptions {
        users: vec![limited(rules(None, deny), rules(None, deny))],
        ..AuthOptions::default()
    };
    let server = Running::new(Options {
        auth: with(&[]),
        ..options()
    });
    let mut peer = server.client_with(LIMITED);
    peer.say("SUB a 1\r\nSUB b q 2\r\nSUB c.* 3\r\nUNSUB 3 2\r\nPUB c.open 1\r\n1\r\n");
    peer.expect("MSG c.open 3 1\r\n1\r\n");
    server.handle().update_auth(with(&["a", "c.secret"]));
    peer.expect("-ERR 'Permissions Violation for Subscription to \"a\" (sid \"1\")'\r\n");
    peer.say("PUB a 1\r\nx\r\n");
    peer.expect("-ERR 'Permissions Violation for Publish to \"a\"'\r\n");
    let mut other = server.client_with(LIMITED);
    server.handle().update_auth(with(&["b", "c.secret"]));
    peer.expect(
        "-ERR 'Permissions Violation for Subscription to \"b\" using queue \"q\" (sid \"2\")'\r\n",
    );
    other.say("PUB a 1\r\nx\r\nPUB c.other 1\r\n2\r\nPUB c.open 1\r\n3\r\n");
    other.sync();
    // It was told to end after two messages, one of which came before.
    peer.expect("MSG c.other 3 1\r\n2\r\n");
    peer.sync();
}

#[test]
fn a_requester_hears_that_nobody_listens_where_messages_are_denied() {
    let user = limited(rules(None, &[]), rules(None, &["r.secret"]));
    let server = Running::new(with_users(vec![user]));
    let mut peer = server.client_with(
        ",\"user\":\"limited\",\"pass\":\"p\",\"headers\":true,\"no_responders\":true",
    );
    peer.say("SUB r.* 1\r\nPUB svc r.secret 0\r\n\r\n");
    peer.expect("HMSG r.secret 1 35 35\r\nNATS/1.0 503\r\nNats-Subject: svc\r\n\r\n\r\n");
    peer.sync();
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl ConnectionObserver for Log {
    fn connected(&self, client: &ClientInfo) {
        let id = client.identity.connection_id().unwrap_or("-");
        let user = client.identity.user.as_deref().unwrap_or("-");
        self.0
            .lock()
            .expect("no panics")
            .push(format!("+{id} {user} {}", client.identity.lang));
    }

    fn disconnected(&self, client: &ClientInfo, reason: CloseReason) {
        let id = client.identity.connection_id().unwrap_or("-");
        self.0
            .lock()
            .expect("no panics")
            .push(format!("-{id} {reason}"));
    }
}

#[test]
fn observers_see_connections_come_and_go() {
    let log = Arc::new(Log::default());
    let hooks = Hooks {
        observer: Some(Arc::clone(&log) as Arc<dyn ConnectionObserver>),
        ..Hooks::default()
    };
    let server = Running::with_hooks(with_users(vec![user("root", "p")]), hooks);
    let mut refused = server.silent();
    refused.say("CONNECT {}\r\n");
    refused.expect(VIOLATION);
    let sdk = ",\"user\":\"root$1\",\"pass\":\"p\",\"name\":\"abc::root\",\"lang\":\"go\"";
    drop(server.client_with(sdk));
    let seen = || log.0.lock().expect("no panics").clone();
    eventually("the end of the client", || seen().len() == 2);
    assert_eq!(seen(), ["+abc root go", "-abc Client Closed"]);
}
