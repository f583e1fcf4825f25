use proptest::prelude::*;

use super::*;

fn apply(source: &str, destination: &str, subject: &str) -> Option<String> {
    let transform = Transform::new(source, destination).expect("a transform");
    let result = transform.apply(subject.as_bytes(), 7)?;
    Some(String::from_utf8(result).expect("text from text"))
}

#[track_caller]
fn becomes(source: &str, destination: &str, subject: &str, expected: &str) {
    let result = apply(source, destination, subject);
    assert_eq!(
        result.as_deref(),
        Some(expected),
        "{source} -> {destination}"
    );
}

#[track_caller]
fn refused(source: &str, destination: &str, text: &str) {
    let error = Transform::new(source, destination).expect_err("no transform");
    assert_eq!(error.to_string(), text, "{source} -> {destination}");
}

#[test]
fn tokens_move() {
    becomes("foo", "bar", "foo", "bar");
    becomes("foo.*.*", "bar.$2.$1", "foo.a.b", "bar.b.a");
    becomes("foo.*.*", "bar.{{wildcard(2)}}", "foo.a.b", "bar.b");
    becomes("foo.*.*", "{{ Wildcard( 1 ) }}.x", "foo.a.b", "a.x");
    becomes("foo.*", "bar.$1.$JS.$", "foo.a", "bar.a.$JS.$");
    becomes("*.>", "x.>", "a.b.c", "x.b.c");
    becomes(">", "x.>", "a.b.c", "x.a.b.c");
    becomes("x.>", ">", "x.a.b", "a.b");
    becomes(">", ">", "a.b.c", "a.b.c");
    becomes("", "x.>", "a", "x.a");
    becomes("a.*.>", "{{wildcard(1)}}.>", "a.b.c.d", "b.c.d");
    becomes("foo.*", "bar.$0.{{wildcard(-3)}}", "foo.a", "bar.foo.foo");
}

#[test]
fn what_does_not_match_is_left_alone() {
    assert_eq!(apply("foo.*", "bar.$1", "foo.a.b"), None);
    assert_eq!(apply("foo.*", "bar.$1", "foo."), None);
    assert_eq!(apply("foo.*", "bar.$1", "foo.*"), None);
    assert_eq!(apply("foo", "bar", "baz"), None);
}

#[test]
fn tokens_are_cut() {
    let cuts = [
        ("{{splitFromLeft(1,3)}}", "123.456789"),
        ("{{SplitFromRight(1,3)}}", "123456.789"),
        ("{{splitfromleft(1,9)}}", "123456789"),
        ("{{sliceFromLeft(1,4)}}", "1234.5678.9"),
        ("{{sliceFromLeft(1,3)}}", "123.456.789"),
        ("{{sliceFromLeft(1,20)}}", "123456789"),
        ("{{SliceFromRight(1,4)}}", "1.2345.6789"),
        ("{{slicefromright(1,3)}}", "123.456.789"),
        ("{{left(1,2)}}", "12"),
        ("{{Right(1,2)}}", "89"),
        ("{{right(1,9)}}", "123456789"),
        ("{{left(1,-2)}}", "123456789"),
    ];
    for (call, expected) in cuts {
        becomes("*", call, "123456789", expected);
    }
}

#[test]
fn tokens_are_split_without_empty_pieces() {
    for (token, expected) in [
        ("-abc-def--ghi-", "abc.def.ghi"),
        ("abc", "abc"),
        ("a-b", "a.b"),
        ("-", ""),
    ] {
        becomes("*", "{{split(1,-)}}", token, expected);
    }
    becomes("*", "{{split(1, ab)}}", "1ab2aab3", "1.2a.3");
    becomes("*", "{{split(1,)}}", "a\u{e9}b", "a.\u{e9}.b");
}

#[test]
fn partitions_are_those_of_fnv_1a() {
    assert_eq!(fnv1a(FNV_START, b""), 0x811c_9dc5);
    assert_eq!(fnv1a(FNV_START, b"foobar"), 0xbf9c_f968);
    becomes(
        "foo.*.*",
        "{{partition(5,1,2)}}",
        "foo.foo.bar",
        &(0xbf9c_f968_u32 % 5).to_string(),
    );
    becomes("foo", "{{partition(0)}}", "foo", "0");
    let huge = (fnv1a(FNV_START, b"foo") % u32::MAX).to_string();
    becomes("foo", "{{partition(-1)}}", "foo", &huge);
}

/// What nats-server 2.15.1 delivered under mappings of `p10.*` and so on to `out.` and these.
#[test]
fn results_are_those_of_nats_server() {
    let cases = [
        ("p10.*", "p10.{{partition(10,1)}}", "p10.a", "p10.0"),
        ("p10.*", "p10.{{partition(10,1)}}", "p10.b", "p10.7"),
        ("p10.*", "p10.{{partition(10,1)}}", "p10.hello", "p10.3"),
        ("p3.*.*", "p3.{{partition(3,1,2)}}", "p3.a.b", "p3.0"),
        ("p3.*.*", "p3.{{partition(3,1,2)}}", "p3.b.a", "p3.2"),
        ("p3.*.*", "p3.{{partition(3,1,2)}}", "p3.foo.bar", "p3.1"),
        ("pw.*.*", "pw.{{partition(1000)}}", "pw.a.b", "pw.677"),
        ("pw.*.*", "pw.{{partition(1000)}}", "pw.x.yz", "pw.963"),
        ("pn.*", "pn.{{partition(-1,1)}}", "pn.foo", "pn.2851307223"),
        ("lit", "lit.{{partition(7)}}", "lit", "lit.4"),
        (
            "sp.*",
            "sp.{{split(1,-)}}",
            "sp.-abc-def--ghi-",
            "sp.abc.def.ghi",
        ),
        ("se.*", "se.{{split(1,)}}", "se.a\u{e9}b", "se.a.\u{e9}.b"),
        (
            "sfl.*",
            "sfl.{{splitFromLeft(1,3)}}",
            "sfl.123456789",
            "sfl.123.456789",
        ),
        (
            "sfr.*",
            "sfr.{{SplitFromRight(1,3)}}",
            "sfr.123456789",
            "sfr.123456.789",
        ),
        (
            "sl.*",
            "sl.{{SliceFromLeft(1,4)}}",
            "sl.123456789",
            "sl.1234.5678.9",
        ),
        (
            "sl.*",
            "sl.{{SliceFromLeft(1,4)}}",
            "sl.12345678",
            "sl.1234.5678",
        ),
        (
            "sr.*",
            "sr.{{SliceFromRight(1,4)}}",
            "sr.123456789",
            "sr.1.2345.6789",
        ),
        (
            "sr.*",
            "sr.{{SliceFromRight(1,4)}}",
            "sr.12345678",
            "sr.1234.5678",
        ),
        ("z.*", "z.$0.{{wildcard(-2)}}", "z.q", "z.z.z"),
        ("r.*.>", "r.{{wildcard(1)}}.>", "r.a.b.c", "r.a.b.c"),
        ("e.*.*", "e.$2", "e.1.2", "e.2"),
    ];
    for (source, destination, subject, expected) in cases {
        becomes(source, destination, subject, expected);
    }
}

#[test]
fn random_numbers_are_below_the_bound() {
    let transform = Transform::new("*", "a.{{random(10)}}.{{random(10)}}").expect("a transform");
    assert!(transform.is_random());
    let mut seen = std::collections::BTreeSet::new();
    for random in 0..1000_u32 {
        let result = transform.rewrite(b"x", random.wrapping_mul(0x9e37_79b9));
        let text = String::from_utf8(result).expect("text");
        let numbers: Vec<u32> = text
            .split('.')
            .skip(1)
            .map(|n| n.parse().expect("one"))
            .collect();
        assert!(numbers.iter().all(|&n| n < 10), "{text}");
        seen.insert(numbers);
    }
    assert_eq!(seen.len(), 100);
    becomes("*", "{{random(0)}}", "x", "0");
    becomes("foo", "{{random(1)}}", "foo", "0");
}

#[test]
fn mistakes_have_the_texts_of_nats_server() {
    for (source, destination) in [
        ("foo", "bar.*"),
        ("foo", "bar.>"),
        ("foo.>", "bar"),
        ("foo..a", "bar"),
        ("foo", ""),
        ("foo", "a..b"),
        (">.a", ">"),
    ] {
        refused(source, destination, "invalid subject");
    }
    let cases = [
        ("foo.*", "b.$2", "wildcard index out of range in $2: [2]"),
        ("foo", "b.$1", "wildcard index out of range in $1"),
        (
            ">",
            "{{wildcard(1)}}.>",
            "wildcard index out of range in {{wildcard(1)}}: [1]",
        ),
        (
            "*",
            "{{wildcard()}}",
            "not enough arguments passed to the function in {{wildcard()}}",
        ),
        (
            "*",
            "{{wildcard(1,2)}}",
            "too many arguments passed to the function in {{wildcard(1,2)}}",
        ),
        (
            "*",
            "{{wildcard(a)}}",
            "function argument is invalid or in the wrong format in {{wildcard(a)}}",
        ),
        (
            "*",
            "{{partition()}}",
            "function argument is invalid or in the wrong format in {{partition()}}",
        ),
        (
            "*",
            "{{partition(2147483648)}}",
            "function argument is invalid or in the wrong format in {{partition(2147483648)}}",
        ),
        (
            "*",
            "{{split(1)}}",
            "not enough arguments passed to the function in {{split(1)}}",
        ),
        (
            "*",
            "{{split(1,a,b)}}",
            "too many arguments passed to the function in {{split(1,a,b)}}",
        ),
        (
            "*",
            "{{split(1,a b)}}",
            "function argument is invalid or in the wrong format in {{split(1,a b)}}",
        ),
        (
            "*",
            "{{left(1)}}",
            "not enough arguments passed to the function in {{left(1)}}",
        ),
        (
            "*",
            "{{left(1,x)}}",
            "function argument is invalid or in the wrong format in {{left(1,x)}}",
        ),
        (
            "*",
            "{{right(1,2,3)}}",
            "too many arguments passed to the function in {{right(1,2,3)}}",
        ),
        (
            "*",
            "{{random(1,2)}}",
            "not enough arguments passed to the function in {{random(1,2)}}",
        ),
        ("*", "{{unknown(1)}}", "unknown function in {{unknown(1)}}"),
        (
            "*",
            "{{WILDCARD(1)}}",
            "unknown function in {{WILDCARD(1)}}",
        ),
        (
            "*",
            "{{wildcard(1)}}{{wildcard(1)}}",
            "function argument is invalid or in the wrong format in {{wildcard(1)}}{{wildcard(1)}}",
        ),
    ];
    for (source, destination, text) in cases {
        let text = format!("invalid mapping destination: {text}");
        refused(source, destination, &text);
    }
}

#[test]
fn strict_transforms_are_reversible() {
    let transform =
        Transform::strict("foo.*.*.*.>", "b.$2.{{wildcard(3)}}.c.$1.>").expect("strict");
    let reverse = transform.reverse().expect("reversible");
    let subject = b"foo.x.y.z.w";
    let there = transform.rewrite(subject, 0);
    assert_eq!(there, b"b.y.z.c.x.w");
    assert_eq!(reverse.apply(&there, 0).as_deref(), Some(&subject[..]));
    let literal = Transform::strict("foo", "bar").expect("strict");
    assert_eq!(literal.reverse(), Transform::strict("bar", "foo").ok());
    let error = |source, destination| {
        let error = Transform::strict(source, destination).expect_err("not strict");
        error.to_string()
    };
    assert_eq!(
        error("foo.*.*", "bar.$1"),
        "invalid mapping destination: not using all of the token wildcard(s) in bar.$1"
    );
    assert_eq!(
        error("foo.*", "bar.{{split(1,-)}}"),
        "invalid mapping destination: the only mapping function allowed for import transforms is \
         {{Wildcard()}} in {{split(1,-)}}"
    );
}

#[test]
fn mappings_are_checked_more_closely() {
    let error = |destination| {
        let error = Transform::mapping("*", destination).expect_err("no mapping");
        error.to_string()
    };
    let prefix = "invalid mapping destination:";
    assert_eq!(error("a b"), format!("{prefix} invalid transform"));
    assert_eq!(error(">.a"), format!("{prefix} invalid transform in a"));
    assert_eq!(
        error("{{left(1,1)}}"),
        format!("{prefix} unknown function in {{{{left(1,1)}}}}")
    );
    assert!(Transform::mapping("*", "a.{{ wildcard( 1 ) }}").is_ok());
}

#[test]
fn wildcards_and_marks_change_places() {
    assert_eq!(number_wildcards("foo.*.*.>"), "foo.$1.$2.>");
    assert_eq!(number_wildcards("foo"), "foo");
    let (filter, marks) = wildcards_of("foo.$2.{{wildcard(1)}}.$JS.{{split(1,-)}}");
    assert_eq!(filter, "foo.*.*.$JS.{{split(1,-)}}");
    assert_eq!(marks, ["$2", "{{wildcard(1)}}"]);
}

fn filter() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*")], 1..6)
}

proptest! {
    /// Whatever is accepted gives a subject for every subject that matches, and strict ones lead
    /// back.
    #[test]
    fn strict_ones_lead_there_and_back(
        source in filter(), order in any::<u64>(), tokens in proptest::collection::vec("[a-z]{1,3}", 6),
    ) {
        let wildcards = source.iter().filter(|t| **t == "*").count();
        let mut marks: Vec<String> = (1..=wildcards).map(|n| format!("${n}")).collect();
        if wildcards > 0 {
            let by = usize::try_from(order % wildcards as u64).expect("small");
            marks.rotate_left(by);
        }
        marks.push("end".to_owned());
        let transform = Transform::strict(&source.join("."), &marks.join(".")).expect("strict");
        let subject: Vec<&str> = source
            .iter()
            .zip(&tokens)
            .map(|(filter, token)| if *filter == "*" { token.as_str() } else { filter })
            .collect();
        let subject = subject.join(".");
        let there = transform.apply(subject.as_bytes(), 0).expect("it matches");
        let back = transform.reverse().expect("reversible").apply(&there, 0);
        prop_assert_eq!(back, Some(subject.into_bytes()));
    }

    #[test]
    fn no_text_panics(
        source in "[a*>.$]{0,6}",
        destination in "(\\{\\{|\\}\\}|[a*>.$,() 0-9-]|wildcard|split|left|partition|random|\u{e9}){0,8}",
        subject in "[a.*\u{e9}-]{0,8}",
        random in any::<u32>(),
    ) {
        let made = [
            Transform::new(&source, &destination),
            Transform::strict(&source, &destination),
            Transform::mapping(&source, &destination),
        ];
        for transform in made.into_iter().flatten() {
            let subject = subject.as_bytes();
            if let Some(applied) = transform.apply(subject, random) {
                prop_assert_eq!(transform.rewrite(subject, random), applied);
            }
            let _ = transform.reverse();
        }
    }
}
