//! What it costs to hold one message against its schema: 300 bytes, 10 fields. At most 5 microseconds
//! are wanted of each. Documents of GraphQL differ in their values, as those of one producer do.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use menes_schemas::{Definition, Format, compile};

const JSON: &str = r#"{"type":"object","additionalProperties":false,
    "required":["id","customer","email","currency","total","count","paid","status","note","tags"],
    "properties":{
        "id":{"type":"integer","minimum":1},
        "customer":{"type":"string","maxLength":64},
        "email":{"type":"string","pattern":"^[^@]+@[^@]+$"},
        "currency":{"enum":["EUR","USD","GBP"]},
        "total":{"type":"number","minimum":0},
        "count":{"type":"integer"},
        "paid":{"type":"boolean"},
        "status":{"type":"string"},
        "note":{"type":"string"},
        "tags":{"type":"array","items":{"type":"string"},"maxItems":8}}}"#;

const AVRO: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"customer","type":"string"},
    {"name":"email","type":"string"},
    {"name":"currency","type":{"type":"enum","name":"Currency","symbols":["EUR","USD","GBP"]}},
    {"name":"total","type":"double"},{"name":"count","type":"int"},
    {"name":"paid","type":"boolean"},{"name":"status","type":["null","string"]},
    {"name":"note","type":"string"},{"name":"tags","type":{"type":"array","items":"string"}}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3"; message Order {
    int64 id = 1; string customer = 2; string email = 3; string currency = 4; double total = 5;
    int32 count = 6; bool paid = 7; string status = 8; string note = 9; repeated string tags = 10; }"#;

const GRAPHQL: &str = "enum Currency { EUR USD GBP } type Query { order(id: Int!, customer: String, \
    email: String, currency: Currency, total: Float, count: Int, paid: Boolean, status: String, \
    note: String, tags: [String!]): String }";

const CUSTOMER: &str = "A customer with a name of usual length";
const EMAIL: &str = "somebody@somewhere.example";
const STATUS: &str = "waiting for the courier";
const NOTE: &str = "please ring twice, the bell is hard to hear from the garden in summer; thanks";
const TAGS: [&str; 3] = ["first", "fragile", "express"];

fn json_message() -> Vec<u8> {
    let tags = TAGS.map(|tag| format!("{tag:?}")).join(",");
    format!(
        r#"{{"id":88120,"customer":"{CUSTOMER}","email":"{EMAIL}","currency":"EUR","total":129.95,"count":3,"paid":true,"status":"{STATUS}","note":"{NOTE}","tags":[{tags}]}}"#
    )
    .into_bytes()
}

fn graphql_message(id: usize) -> Vec<u8> {
    let tags = TAGS.map(|tag| format!("{tag:?}")).join(",");
    format!(
        r#"{{order(id:{id},customer:"{CUSTOMER}",email:"{EMAIL}",currency:EUR,total:{id}.95,count:3,paid:true,status:"{STATUS}",note:"{NOTE}",tags:[{tags}])}}"#
    )
    .into_bytes()
}

fn protobuf_message() -> Vec<u8> {
    let mut message = vec![0x08, 0xb8, 0xb0, 0x05];
    let mut text = |number: u8, text: &str| {
        let length = u8::try_from(text.len()).expect("short");
        message.extend([number << 3 | 2, length]);
        message.extend(text.as_bytes());
    };
    for (number, value) in [
        (2, CUSTOMER),
        (3, EMAIL),
        (4, "EUR"),
        (8, STATUS),
        (9, NOTE),
    ] {
        text(number, value);
    }
    for tag in TAGS {
        text(10, tag);
    }
    message.push(0x29);
    message.extend(129.95_f64.to_le_bytes());
    message.extend([0x30, 3, 0x38, 1]);
    // Three texts more, so that the message weighs what the others do.
    message.extend([0x52, 100]);
    message.extend([b'x'; 100]);
    message
}

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check");
    let queries = (88_120..88_220).map(graphql_message).collect();
    for (name, format, content, messages) in [
        ("json", Format::Json, JSON, vec![json_message()]),
        (
            "protobuf",
            Format::Protobuf,
            PROTOBUF,
            vec![protobuf_message()],
        ),
        ("avro", Format::Avro, AVRO, vec![json_message()]),
        ("graphql", Format::Graphql, GRAPHQL, queries),
    ] {
        let definition = Definition {
            format,
            content,
            message: "",
            file_name: "order_1.proto",
        };
        let schema = compile(&definition).expect("a good definition").validator;
        for message in &messages {
            schema.check(message).expect("a good message");
        }
        group.throughput(Throughput::Bytes(messages[0].len() as u64));
        let mut turn = messages.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| turn.next().map(|message| schema.check(black_box(message))));
        });
    }
    group.finish();
}

criterion_group!(benches, check);
criterion_main!(benches);
