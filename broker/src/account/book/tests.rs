use super::super::description::{RESPONSE_THRESHOLD, StreamPlace};
use super::*;

fn account(name: &str) -> AccountDescription {
    AccountDescription::new(AccountName::from(name))
}

fn stream(subject: &str) -> Export {
    Export {
        subject: subject.to_owned(),
        kind: ExportKind::Stream,
        audience: Audience::Everyone,
        account_token_position: None,
    }
}

fn service(subject: &str) -> Export {
    Export {
        kind: ExportKind::Service(ServiceOptions::default()),
        ..stream(subject)
    }
}

fn from_stream(account: &str, subject: &str, place: StreamPlace) -> Import {
    Import {
        account: AccountName::from(account),
        subject: subject.to_owned(),
        kind: ImportKind::Stream {
            place,
            allow_trace: false,
        },
        token: None,
    }
}

fn to_service(account: &str, subject: &str, to: Option<&str>) -> Import {
    Import {
        kind: ImportKind::Service {
            to: to.map(str::to_owned),
            share: false,
        },
        ..from_stream(account, subject, StreamPlace::Same)
    }
}

fn prefix(text: &str) -> StreamPlace {
    StreamPlace::Prefix(text.to_owned())
}

fn to(text: &str) -> StreamPlace {
    StreamPlace::To(text.to_owned())
}

/// A that exports these, and B that imports that; what B has, or why not.
fn between(exports: Vec<Export>, import: Import) -> Result<Book, String> {
    let mut a = account("A");
    a.exports = exports;
    let mut b = account("B");
    b.imports = vec![import];
    let mut book = Book::default();
    let (_, refusals) = book.describe([a, b]);
    match refusals.first() {
        None => Ok(book),
        Some(refusal) => Err(refusal.error.to_string()),
    }
}

fn streams_of_b(exports: Vec<Export>, import: Import) -> (String, String) {
    let book = between(exports, import).expect("it holds");
    let agreement = &book.streams(&AccountName::from("B"))[0];
    (agreement.from.clone(), agreement.to.clone())
}

#[test]
fn streams_appear_where_they_are_wanted() {
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let exports = || vec![stream("a.>"), stream("x.*.y")];
    for (import, expected) in [
        (
            from_stream("A", "a.>", StreamPlace::Same),
            pair("a.>", "a.>"),
        ),
        (
            from_stream("A", "a.b.*", prefix("p.q")),
            pair("a.b.*", "p.q.a.b.*"),
        ),
        (from_stream("A", "a.b", prefix("p.")), pair("a.b", "p.a.b")),
        (from_stream("A", "x.*.y", to("y.$1")), pair("x.*.y", "y.*")),
        (from_stream("A", "x.*.y", to("y.*")), pair("x.*.y", "y.*")),
        (from_stream("A", "x.z.y", to("w")), pair("x.z.y", "w")),
    ] {
        assert_eq!(streams_of_b(exports(), import), expected);
    }
}

#[test]
fn imports_need_an_export_for_them() {
    let refused = |exports: Vec<Export>, import| {
        between(exports, import)
            .map(drop)
            .expect_err("it does not hold")
    };
    let same = |subject| from_stream("A", subject, StreamPlace::Same);
    let not_authorized = "stream import not authorized";
    assert_eq!(refused(vec![], same("a")), not_authorized);
    assert_eq!(refused(vec![service("a")], same("a")), not_authorized);
    assert_eq!(refused(vec![stream("a.b")], same("a.*")), not_authorized);
    assert_eq!(refused(vec![stream("a")], same("a b")), not_authorized);
    let others = BTreeSet::from([AccountName::from("C")]);
    let private = Export {
        audience: Audience::Accounts(others),
        ..stream("a")
    };
    assert_eq!(refused(vec![private], same("a")), not_authorized);
    assert_eq!(
        refused(vec![stream("a")], from_stream("Z", "a", StreamPlace::Same)),
        "account missing"
    );
    assert_eq!(
        refused(vec![stream("a")], from_stream("A", "a", prefix("p.*"))),
        "stream import prefix can not contain wildcard tokens"
    );
    assert_eq!(
        refused(vec![], to_service("A", "a", None)),
        "service import not authorized"
    );
    assert_eq!(
        refused(vec![service("a.*")], to_service("A", "a.*", Some("b"))),
        "failed to create mapping transform for service import subject from \"b\" to \"a.*\": \
         invalid mapping destination: not using all of the token wildcard(s) in b"
    );
    let activated = Export {
        audience: Audience::Activated,
        ..stream("a")
    };
    assert_eq!(refused(vec![activated], same("a")), not_authorized);
}

#[test]
fn the_token_at_the_position_is_the_importers_name() {
    let export = || Export {
        account_token_position: Some(2),
        ..stream("a.*.b")
    };
    let same = |subject| from_stream("A", subject, StreamPlace::Same);
    assert!(between(vec![export()], same("a.B.b")).is_ok());
    assert!(between(vec![export()], same("a.C.b")).is_err());
    assert!(between(vec![export()], same("a.*.b")).is_err());
    let mut a = account("A");
    a.exports = vec![export()];
    assert_eq!(check_export(&a, &a.exports[0]), Ok(()));
    a.exports[0].account_token_position = Some(1);
    let error = check_export(&a, &a.exports[0]);
    assert_eq!(error, Err(ExportError::InvalidSubject));
}

#[test]
fn requests_lead_to_the_export() {
    let agreement = |export, import| {
        let book = between(vec![service(export)], import).expect("it holds");
        book.services(&AccountName::from("B"))[0].clone()
    };
    let same = agreement("a.*", to_service("A", "a.*", None));
    assert_eq!((&*same.from, &same.way), ("a.*", &Way::Same));
    let fixed = agreement("a.>", to_service("A", "a.b", Some("x")));
    assert_eq!((&*fixed.from, &fixed.way), ("x", &Way::Fixed));
    assert_eq!(fixed.options.threshold, RESPONSE_THRESHOLD);
    let through = agreement("a.*.*.*", to_service("A", "a.*.*.*", Some("x.$3.$1.$2")));
    let Way::Through(way) = through.way else {
        panic!("a transform, not {:?}", through.way);
    };
    // $3 is what stands third at the exporter.
    assert_eq!(through.from, "x.*.*.*");
    assert_eq!(way.apply(b"x.c.a.b", 0).as_deref(), Some(&b"a.a.b.c"[..]));
}

#[test]
fn circles_are_refused() {
    let (mut a, mut b, mut c) = (account("A"), account("B"), account("C"));
    for described in [&mut a, &mut b, &mut c] {
        described.exports = vec![service("help"), stream("news.>")];
    }
    let services = |account: &str| to_service(account, "help", None);
    a.imports = vec![services("B")];
    b.imports = vec![services("C")];
    c.imports = vec![services("A")];
    let mut book = Book::default();
    let (_, refusals) = book.describe([a.clone(), b.clone(), c.clone()]);
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].importer, c.name);
    assert_eq!(refusals[0].error.to_string(), "import forms a cycle");
    let streams = |account: &str| from_stream(account, "news.>", StreamPlace::Same);
    a.imports = vec![streams("B")];
    b.imports = vec![streams("C")];
    c.imports = vec![streams("A")];
    let mut book = Book::default();
    let (_, refusals) = book.describe([a, b, c]);
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].error, ImportError::Cycle);
}

#[test]
fn an_exporter_that_comes_later_makes_imports_hold() {
    let mut b = account("B");
    b.imports = vec![from_stream("A", "a", StreamPlace::Same)];
    let mut book = Book::default();
    let (_, refusals) = book.describe([b.clone()]);
    assert_eq!(refusals[0].error, ImportError::NoExporter);
    let mut a = account("A");
    a.exports = vec![stream("a")];
    let (touched, refusals) = book.describe([a.clone()]);
    assert!(refusals.is_empty() && touched.contains(&b.name));
    assert_eq!(book.streams(&b.name).len(), 1);
    let (touched, refusals) = book.remove(&a.name);
    assert!(touched.contains(&b.name));
    assert_eq!(refusals[0].error, ImportError::NoExporter);
    assert!(book.streams(&b.name).is_empty());
}

#[test]
fn what_is_imported_twice_is_refused() {
    let twice = |import: Import| {
        let mut a = account("A");
        a.exports = vec![stream("a"), service("s"), service("t")];
        let mut b = account("B");
        b.imports = vec![import.clone(), import];
        let (_, refusals) = Book::default().describe([a, b]);
        refusals[0].error.to_string()
    };
    let import = from_stream("A", "a", StreamPlace::Same);
    assert_eq!(twice(import), "stream import already exists");
    assert_eq!(
        twice(to_service("A", "s", Some("x"))),
        "duplicate service import subject \"x\", previously used in import for account \"A\", \
         subject \"s\""
    );
}

#[test]
fn only_single_responses_are_measured_and_not_into_themselves() {
    let check = |latency: &str, response, sampling| {
        let mut a = account("A");
        a.exports = vec![Export {
            kind: ExportKind::Service(ServiceOptions {
                response,
                latency: Some(LatencyOptions {
                    sampling,
                    subject: latency.to_owned(),
                }),
                ..ServiceOptions::default()
            }),
            ..stream("s.>")
        }];
        check_export(&a, &a.exports[0])
    };
    let all = Sampling::Percent(100);
    let single = ResponseKind::Singleton;
    assert_eq!(check("l", single, all), Ok(()));
    assert_eq!(check("l", single, Sampling::Headers), Ok(()));
    assert_eq!(check("l.*", single, all), Err(ExportError::LatencySubject));
    assert_eq!(check("s.l", single, all), Err(ExportError::LatencySubject));
    assert_eq!(
        check("l", ResponseKind::Stream, all),
        Err(ExportError::LatencyOfMany)
    );
    let none = Sampling::Percent(0);
    assert_eq!(check("l", single, none), Err(ExportError::Sampling));
}
