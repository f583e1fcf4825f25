//! Definitions and messages from strangers: whatever they are, they are refused or checked, and
//! nothing panics.

use menes_schemas::{Definition, Format, compatible, compile};

const JSON: &str = r##"{"type":"object","required":["a"],"properties":{"a":{"type":["string","null"]},"b":{"items":{"$ref":"#"}}}}"##;
const PROTOBUF: &str = r#"syntax = "proto2"; message A { required string a = 1; repeated A b = 2; map<string, int32> c = 3; }"#;
const AVRO: &str = r#"{"type":"record","name":"A","fields":[{"name":"a","type":["null","string"]},{"name":"b","type":{"type":"array","items":"A"},"default":[]}]}"#;
const GRAPHQL: &str = "type Query { a(b: Int): Query c: String }";

fn known(format: Format) -> &'static str {
    match format {
        Format::Json => JSON,
        Format::Protobuf => PROTOBUF,
        Format::Avro => AVRO,
        Format::Graphql => GRAPHQL,
    }
}

fn definition(format: Format, content: &str) -> Definition<'_> {
    Definition {
        format,
        content,
        message: "",
        file_name: "a_1.proto",
    }
}

/// The first byte chooses the format and whether the rest is a definition or a message.
pub(crate) fn schema(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else {
        return;
    };
    let format = match kind & 3 {
        0 => Format::Json,
        1 => Format::Protobuf,
        2 => Format::Avro,
        _ => Format::Graphql,
    };
    let content = known(format);
    if kind & 4 == 0 {
        let compiled = compile(&definition(format, content)).expect("a good definition");
        drop(compiled.validator.check(rest));
        return;
    }
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    if let Ok(compiled) = compile(&definition(format, text)) {
        drop(compiled.validator.check(b"{\"a\":\"x\"}"));
        drop(compatible(format, content, text));
        drop(compatible(format, text, text));
    }
}
