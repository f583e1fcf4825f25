use super::*;

fn compiled(format: Format, content: &str) -> Result<Compiled, SchemaError> {
    compile(&Definition {
        format,
        content,
        message: "",
        file_name: "s_1.proto",
    })
}

fn validator(format: Format, content: &str) -> Validator {
    compiled(format, content)
        .expect("a good definition")
        .validator
}

fn refusal(format: Format, content: &str) -> String {
    compiled(format, content)
        .map(|_| ())
        .expect_err("refused")
        .to_string()
}

const PERSON: &str = r#"{"type":"object","properties":{"f":{"type":"string"}},"required":["f"]}"#;

#[test]
fn json_messages_are_held_against_their_schema() {
    let schema = validator(Format::Json, PERSON);
    assert_eq!(schema.check(br#"{"f":"x"}"#), Ok(()));
    let text = |payload: &[u8]| schema.check(payload).expect_err("violates").to_string();
    assert!(text(br#"{"g":1}"#).contains("\"f\" is a required property"));
    assert!(text(br#"{"f":1}"#).ends_with("at /f"));
    assert!(text(b"{").contains("EOF"));
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    assert!(text(deep.as_bytes()).contains("nested deeper"));
}

#[test]
fn a_json_schema_refers_to_nothing_outside() {
    for reference in [
        "http://localhost/x",
        "file:///etc/passwd",
        "other.json",
        "#anchor",
        "#/no",
    ] {
        let schema = format!(r#"{{"properties":{{"a":{{"$ref":"{reference}"}}}}}}"#);
        assert!(
            refusal(Format::Json, &schema).contains("leads out of it"),
            "{reference}"
        );
    }
    let tree = r##"{"properties":{"l":{"$ref":"#"},"r":{"$ref":"#"},"v":{"$ref":"#/$defs/a~1b%20"}},
        "$defs":{"a/b ":{"type":"integer"}}}"##;
    let schema = validator(Format::Json, tree);
    assert_eq!(schema.check(br#"{"l":{"r":{"v":1}},"v":2}"#), Ok(()));
    assert!(schema.check(br#"{"l":{"r":{"v":"x"}}}"#).is_err());
}

#[test]
fn a_json_schema_without_an_end_is_refused() {
    for schema in [
        r##"{"$ref":"#"}"##,
        r##"{"allOf":[{"not":{"$ref":"#"}}]}"##,
        r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
    ] {
        assert!(refusal(Format::Json, schema).contains("without an end"));
    }
    let twice =
        r##"{"anyOf":[{"properties":{"x":{"$ref":"#"}}},{"properties":{"x":{"$ref":"#"}}}]}"##;
    assert!(refusal(Format::Json, twice).contains("multiply"));
    let levels: Vec<String> = (0..40)
        .map(|n| {
            let next = n + 1;
            format!(r##""d{n}":{{"anyOf":[{{"$ref":"#/$defs/d{next}"}},{{"$ref":"#/$defs/d{next}"}}]}}"##)
        })
        .collect();
    let fan = format!(
        r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d40":false}}}}"##,
        levels.join(",")
    );
    assert!(refusal(Format::Json, &fan).contains("multiply"));
    for no_schema in ["", "[]", "1", "{\"type\":7}"] {
        assert!(refusal(Format::Json, no_schema).starts_with("your json schema is invalid"));
    }
}

#[test]
fn patterns_take_linear_time_or_are_refused() {
    let schema = validator(Format::Json, r#"{"pattern":"^(a+)+$"}"#);
    let payload = format!("\"{}b\"", "a".repeat(100_000));
    assert!(schema.check(payload.as_bytes()).is_err());
    assert!(compiled(Format::Json, r#"{"pattern":"(?=a)b"}"#).is_err());
}

const PROTO: &str = r#"
syntax = "proto3";
package shop;
message Order { string id = 1; repeated Item items = 2; }
message Item { int32 count = 1; }
"#;

#[test]
fn protobuf_is_compiled_from_its_text() {
    let order = compiled(Format::Protobuf, PROTO).expect("a good file");
    assert_eq!(order.message, "Order");
    let text = String::from_utf8_lossy(&order.descriptor);
    assert!(text.contains("s_1.proto"));
    // id = "a", items = [{count: 1}]
    assert_eq!(order.validator.check(b"\x0a\x01a\x12\x02\x08\x01"), Ok(()));
    assert!(order.validator.check(b"\x0a\x05a").is_err());
    assert!(order.validator.check(b"not protobuf").is_err());
    let item = Definition {
        format: Format::Protobuf,
        content: PROTO,
        message: "shop.Item",
        file_name: "s_2.proto",
    };
    assert_eq!(compile(&item).expect("a good file").message, "Item");
}

#[test]
fn protobuf_that_is_wrong_or_reaches_out_is_refused() {
    assert!(refusal(Format::Protobuf, "message").starts_with("your Proto file is invalid: "));
    assert!(refusal(Format::Protobuf, "syntax = \"proto3\";").contains("no message"));
    let import = "syntax = \"proto3\"; import \"google/protobuf/any.proto\"; message A {}";
    assert!(refusal(Format::Protobuf, import).contains("any.proto"));
    let deep = "message A {".repeat(100_000);
    assert!(refusal(Format::Protobuf, &deep).contains("nested deeper"));
    let required = validator(
        Format::Protobuf,
        "syntax = \"proto2\"; message A { required int32 a = 1; }",
    );
    assert!(required.check(b"").is_err());
    assert_eq!(required.check(b"\x08\x01"), Ok(()));
}

const AVRO: &str = r#"{"type":"record","name":"User","namespace":"a.b","fields":[
    {"name":"name","type":"string"},
    {"name":"age","type":["null","int"]},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]},"default":"A"},
    {"name":"friends","type":{"type":"array","items":"User"},"default":[]}]}"#;

#[test]
fn avro_messages_are_json() {
    let schema = validator(Format::Avro, AVRO);
    for good in [
        r#"{"name":"n","age":1}"#,
        r#"{"name":"n","age":null,"kind":"B"}"#,
        r#"{"name":"n","age":{"int":7}}"#,
        r#"{"name":"n"}"#,
        r#"{"name":"n","friends":[{"name":"m","age":2}]}"#,
    ] {
        assert_eq!(schema.check(good.as_bytes()), Ok(()), "{good}");
    }
    let text = |payload: &str| {
        schema
            .check(payload.as_bytes())
            .expect_err("violates")
            .to_string()
    };
    assert_eq!(text(r#"{"age":1}"#), "field name is missing");
    assert_eq!(
        text(r#"{"name":"n","age":"x"}"#),
        "one of null, int expected at age"
    );
    assert_eq!(text(r#"{"name":"n","kind":"C"}"#), "enum expected at kind");
    assert_eq!(
        text(r#"{"name":"n","friends":[{"name":1}]}"#),
        "string expected at friends.0.name"
    );
    assert!(refusal(Format::Avro, "{}").starts_with("your Avro file is invalid: "));
}

#[test]
fn graphql_messages_are_documents() {
    let schema = validator(
        Format::Graphql,
        "type Query { greet(name: String!): String }",
    );
    assert_eq!(schema.check(b"query { greet(name: \"x\") }"), Ok(()));
    assert!(schema.check(b"{ greet }").is_err());
    assert!(schema.check(b"{ other }").is_err());
    assert!(schema.check(b"{").is_err());
    assert!(schema.check("{ a ".repeat(10_000).as_bytes()).is_err());
    assert!(compiled(Format::Graphql, "type {").is_err());
}

#[test]
fn a_compatible_version_reads_what_was_written_before() {
    let fits = |format, old, new| compatible(format, old, new).map_err(|error| error.to_string());
    let optional = r#"{"type":"object","required":["f"],"additionalProperties":false,
        "properties":{"f":{"type":"string"},"g":{"type":"integer"}}}"#;
    let closed = r#"{"type":"object","required":["f"],"additionalProperties":false,
        "properties":{"f":{"type":"string"}}}"#;
    assert_eq!(fits(Format::Json, closed, optional), Ok(()));
    assert!(fits(Format::Json, optional, closed).is_err());
    let narrower = closed.replace("\"string\"", "\"integer\"");
    assert!(fits(Format::Json, closed, &narrower).is_err());
    assert!(fits(Format::Json, "{}", PERSON).is_err());

    let more = PROTO.replace("string id = 1;", "string id = 1; int64 at = 9;");
    assert_eq!(fits(Format::Protobuf, PROTO, &more), Ok(()));
    let other = PROTO.replace("string id = 1;", "int64 id = 1;");
    assert!(fits(Format::Protobuf, PROTO, &other).is_err());

    let with_default = AVRO.replace(
        r#"{"name":"name","type":"string"},"#,
        r#"{"name":"name","type":"string"},{"name":"city","type":"string","default":""},"#,
    );
    assert_eq!(fits(Format::Avro, AVRO, &with_default), Ok(()));
    let without = with_default.replace(r#","default":"""#, "");
    assert!(fits(Format::Avro, AVRO, &without).is_err());

    let query = "type Query { a: Int }";
    assert_eq!(
        fits(Format::Graphql, query, "type Query { a: Int, b: Int }"),
        Ok(())
    );
    assert!(fits(Format::Graphql, query, "type Query { b: Int }").is_err());
}

proptest::proptest! {
    #[test]
    fn no_definition_or_message_panics(content in ".{0,200}", payload in proptest::collection::vec(0u8..255, 0..200)) {
        for format in [Format::Json, Format::Protobuf, Format::Avro, Format::Graphql] {
            if let Ok(compiled) = compiled(format, &content) {
                let _: Result<(), Violation> = compiled.validator.check(&payload);
            }
        }
        for (format, content) in [(Format::Json, PERSON), (Format::Protobuf, PROTO), (Format::Avro, AVRO)] {
            let _: Result<(), Violation> = validator(format, content).check(&payload);
        }
    }
}
