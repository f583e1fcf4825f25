//! Users and tenants, asked for as clients do.

use menes_jetstream::AccountName;
use menes_stations::sdk::{ClientIdentity, Request};
use menes_stations::user::{ConfiguredUser, PasswordHash, Role, UserName};
use menes_stations::{Progress, Stations};
use serde_json::{Value, json};

use crate::bench::{Bench, Client};

/// Who asks, from which account.
struct Asker<'a> {
    account: &'a str,
    user: &'a str,
    role: Role,
}

const ROOT: Asker<'_> = Asker {
    account: "$G",
    user: "root",
    role: Role::Root,
};

fn ask(bench: &mut Bench, who: &Asker<'_>, what: &str, body: Value) -> Value {
    let client = Client::sdk("c");
    let task = bench.stations.begin(&Request {
        account: &AccountName::from(who.account),
        subject: format!("$MENES.API.{what}").as_bytes(),
        payload: body.to_string().as_bytes(),
        client: ClientIdentity {
            user: who.user,
            connection_id: &client.connection,
            lang: &client.lang,
            native: false,
            access: &client.access,
            role: who.role,
        },
        now: bench.now,
    });
    bench.drain();
    bench.settle();
    let reply = bench.replies.remove(&task).expect("a reply");
    serde_json::from_slice(&reply).expect("JSON")
}

fn error(answer: &Value) -> &str {
    answer["error"]["description"].as_str().unwrap_or_default()
}

fn with_root() -> Bench {
    let mut bench = Bench::default();
    let hash = PasswordHash::parse("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA").expect("a hash");
    bench.stations.make_root(hash, bench.now);
    bench.drain();
    bench.settle();
    bench
}

#[test]
fn a_user_is_made_shown_changed_and_removed_without_its_secrets() {
    let mut bench = with_root();
    let made = ask(
        &mut bench,
        &ROOT,
        "USER.CREATE",
        json!({
            "user": "Ada", "password": "Secret-1", "token": true, "team": "core",
            "permissions": {"allow_read": ["orders.*"], "deny_write": ["audit"]},
        }),
    );
    assert_eq!(made["name"], "ada");
    assert_eq!(made["type"], "application");
    let token = made["token"].as_str().expect("shown once").to_owned();
    let taken = json!({"user": "ada", "password": "Secret-1"});
    let again = ask(&mut bench, &ROOT, "USER.CREATE", taken);
    assert_eq!(error(&again), "user ada exists already");
    let changed = ask(
        &mut bench,
        &ROOT,
        "USER.UPDATE",
        json!({"user": "ada", "permissions": {"allow_write": ["x"]}, "description": "d"}),
    );
    // Lists that are not mentioned stay, and a misspelt one is no list.
    assert_eq!(changed["permissions"]["allow_read"], json!(["orders.*"]));
    assert_eq!(changed["permissions"]["allow_write"], json!(["x"]));
    assert_eq!(changed["permissions"]["deny_write"], json!(["audit"]));
    for misspelt in ["deny-write", "deny_reads"] {
        let wrong = json!({"user": "ada", "permissions": {misspelt: ["x"]}});
        assert!(error(&ask(&mut bench, &ROOT, "USER.UPDATE", wrong)).contains(misspelt));
    }
    assert_eq!(
        (&changed["team"], &changed["description"]),
        (&json!("core"), &json!("d"))
    );
    let new = json!({"user": "ada", "password": "Secret-2"});
    assert_eq!(ask(&mut bench, &ROOT, "USER.PASSWORD", new), json!({}));
    let second = ask(
        &mut bench,
        &ROOT,
        "TOKEN.CREATE",
        json!({"user": "ada", "description": "ci"}),
    );
    let id = second["id"].as_str().expect("an id").to_owned();
    let tokens = ask(&mut bench, &ROOT, "TOKEN.LIST", json!({"user": "ada"}));
    assert_eq!(tokens["tokens"].as_array().map(Vec::len), Some(2));
    let drop = json!({"user": "ada", "token": id});
    assert_eq!(
        ask(&mut bench, &ROOT, "TOKEN.DELETE", drop.clone()),
        json!({})
    );
    assert!(error(&ask(&mut bench, &ROOT, "TOKEN.DELETE", drop)).contains("does not exist"));
    // What is stored and what is shown hold neither.
    let list = ask(&mut bench, &ROOT, "USER.LIST", json!({})).to_string();
    let rows = format!("{:?}", bench.stations.state().people());
    for secret in [token.as_str(), "Secret-1", "Secret-2", "argon2"] {
        assert!(!list.contains(secret) && !rows.contains(secret), "{secret}");
    }
    assert_eq!(
        ask(&mut bench, &ROOT, "USER.DELETE", json!({"user": "ada"})),
        json!({})
    );
    let gone = ask(&mut bench, &ROOT, "USER.INFO", json!({"user": "ada"}));
    assert_eq!(error(&gone), "user ada does not exist");
}

#[test]
fn what_breaks_the_rules_is_refused_with_a_reason() {
    let mut bench = with_root();
    let refused = |bench: &mut Bench, what: &str, body: Value| {
        let answer = ask(bench, &ROOT, what, body);
        error(&answer).to_owned()
    };
    for (body, reason) in [
        (json!({"user": ""}), "username can not be empty"),
        (json!({"user": "a b"}), "username has to include"),
        (
            json!({"user": "a", "password": "short"}),
            "password must be 8 to 20",
        ),
        (
            json!({"user": "a", "password_hash": "x"}),
            "password_hash has to be",
        ),
        (json!({"user": "a", "type": "root"}), "type can be one of"),
        (
            json!({"user": "a", "type": "management"}),
            "needs a password",
        ),
        (
            json!({"user": "a", "permissions": {"allow_read": ["a>"]}}),
            "station pattern",
        ),
        (
            json!({"user": "a", "team": "t".repeat(21)}),
            "team should be",
        ),
        (
            json!({"user": "a", "tenant": "none"}),
            "tenant none does not exist",
        ),
    ] {
        let text = refused(&mut bench, "USER.CREATE", body.clone());
        assert!(text.contains(reason), "{body}: {text}");
    }
    assert!(refused(&mut bench, "USER.DELETE", json!({"user": "root"})).contains("not allowed"));
    assert!(refused(&mut bench, "USER.PASSWORD", json!({"user": "root"})).contains("is needed"));
}

#[test]
fn users_of_the_configuration_are_shown_and_left_alone() {
    let mut bench = with_root();
    bench.stations.set_configured_users(vec![ConfiguredUser {
        account: AccountName::global(),
        name: "ops".to_owned(),
        role: Role::Root,
    }]);
    let list = ask(&mut bench, &ROOT, "USER.LIST", json!({}));
    let names: Vec<(&Value, &Value)> = list["users"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|user| (&user["name"], &user["origin"]))
        .collect();
    assert_eq!(
        names,
        [
            (&json!("ops"), &json!("configuration")),
            (&json!("root"), &json!("stored")),
        ]
    );
    let page = ask(&mut bench, &ROOT, "USER.LIST", json!({"limit": 1}));
    assert_eq!(page["next"], "ops");
    let rest = ask(&mut bench, &ROOT, "USER.LIST", json!({"after": "ops"}));
    assert_eq!(rest["users"].as_array().map(Vec::len), Some(1));
    for what in ["USER.DELETE", "USER.UPDATE", "TOKEN.CREATE"] {
        let answer = ask(&mut bench, &ROOT, what, json!({"user": "ops"}));
        assert!(error(&answer).contains("configuration"), "{what}: {answer}");
    }
}

#[test]
fn everyone_stays_in_the_own_tenant_but_root() {
    let mut bench = with_root();
    let made = ask(
        &mut bench,
        &ROOT,
        "TENANT.CREATE",
        json!({"tenant": "acme"}),
    );
    assert_eq!((&made["name"], &made["id"]), (&json!("acme"), &json!(2)));
    let body =
        json!({"user": "boss", "type": "management", "password": "Secret-1", "tenant": "acme"});
    let boss = ask(&mut bench, &ROOT, "USER.CREATE", body);
    assert_eq!(boss["tenant"], "acme");
    let boss = Asker {
        account: "acme",
        user: "boss",
        role: Role::Management,
    };
    let list = ask(&mut bench, &boss, "USER.LIST", json!({}));
    assert_eq!(list["users"].as_array().map(Vec::len), Some(1));
    for (what, body) in [
        ("USER.LIST", json!({"tenant": "$memphis"})),
        ("USER.DELETE", json!({"user": "root", "tenant": "$memphis"})),
        ("TENANT.LIST", json!({})),
        ("TENANT.CREATE", json!({"tenant": "other"})),
        ("TENANT.DELETE", json!({"tenant": "acme"})),
    ] {
        let answer = ask(&mut bench, &boss, what, body);
        assert!(error(&answer).contains("not allowed"), "{what}: {answer}");
    }
    let other = Asker {
        account: "$G",
        user: "ops",
        role: Role::Management,
    };
    let body = json!({"user": "root", "password": "Secret-9"});
    let answer = ask(&mut bench, &other, "USER.PASSWORD", body);
    assert!(error(&answer).contains("not allowed"), "{answer}");
    let app = Asker {
        account: "acme",
        user: "app",
        role: Role::Application,
    };
    for what in ["STATUS", "USER.LIST", "STATION.LIST"] {
        let answer = ask(&mut bench, &app, what, json!({}));
        assert!(error(&answer).contains("not allowed"), "{what}: {answer}");
    }
    let answer = ask(&mut bench, &boss, "USER.DELETE", json!({"user": "boss"}));
    assert!(error(&answer).contains("itself"), "{answer}");
}

#[test]
fn a_tenant_goes_when_nothing_is_left_of_it_and_its_users_with_it() {
    let mut bench = with_root();
    ask(
        &mut bench,
        &ROOT,
        "TENANT.CREATE",
        json!({"tenant": "acme"}),
    );
    ask(
        &mut bench,
        &ROOT,
        "USER.CREATE",
        json!({"user": "app", "token": true, "tenant": "acme"}),
    );
    let acme = Asker {
        account: "acme",
        user: "boss",
        role: Role::Management,
    };
    let made = ask(
        &mut bench,
        &acme,
        "STATION.CREATE",
        json!({"station": "s", "partitions_number": 1}),
    );
    assert!(made["error"].is_null(), "{made}");
    let answer = ask(
        &mut bench,
        &ROOT,
        "TENANT.DELETE",
        json!({"tenant": "acme"}),
    );
    assert!(error(&answer).contains("in use: 1 stations"), "{answer}");
    ask(&mut bench, &acme, "STATION.DELETE", json!({"station": "s"}));
    assert_eq!(
        ask(
            &mut bench,
            &ROOT,
            "TENANT.DELETE",
            json!({"tenant": "acme"})
        ),
        json!({})
    );
    let app = UserName::parse("app").expect("a name");
    let people = bench.stations.state().people();
    assert!(people.user(&AccountName::from("acme"), &app).is_none());
    let reloaded = bench.engine.reload(bench.now);
    assert_eq!(reloaded.state(), bench.state());
}

#[test]
fn root_is_made_once() {
    let mut bench = with_root();
    let hash = PasswordHash::parse("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$b3RoZXI").expect("a hash");
    bench.stations.make_root(hash.clone(), bench.now);
    bench.drain();
    bench.settle();
    let root = UserName::parse("root").expect("a name");
    let global = AccountName::global();
    let user = bench.state().people().user(&global, &root).expect("root");
    assert_ne!(user.password, Some(hash));
    let mut empty = Stations::load([], bench.now).expect("nothing to load");
    assert!(empty.take_people_change() && !empty.take_people_change());
    assert!(!matches!(empty.poll(), Some((_, Progress::Run(_)))));
}
