//! A JSON Schema that a set of messages keeps.
//!
//! What is found is what the samples have in common, and no more: a field is required if every
//! object at its place has it, a number is an integer if all of them are. Every sample keeps the
//! schema, which the tests hold against the checker of this crate.
//!
//! ```text
//!   {"id": 1, "tags": ["a"]}   {"id": 2.5}
//!        └────────────┬─────────────┘
//!   {"type": "object", "required": ["id"],
//!    "properties": {"id": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}}}
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Most fields that are listed of an object; one with more is a map with any keys.
const MAX_FIELDS: usize = 200;

/// What the samples had in common so far. Samples may be added in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inferred {
    /// Samples that were added.
    count: u64,
    kinds: BTreeSet<&'static str>,
    /// Objects among them.
    objects: u64,
    /// Values of each field, and how many objects have it is their count.
    fields: BTreeMap<String, Self>,
    /// More fields came than are listed.
    is_map: bool,
    /// Elements of all lists.
    items: Option<Box<Self>>,
}

impl Inferred {
    /// Adds a sample.
    pub fn add(&mut self, sample: &Value) {
        self.count += 1;
        self.kinds.insert(match sample {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            // A checker takes 1.0 for an integer, too.
            Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
        match sample {
            Value::Object(fields) => self.add_fields(fields),
            Value::Array(items) => {
                for item in items {
                    self.items.get_or_insert_default().add(item);
                }
            }
            _ => {}
        }
    }

    fn add_fields(&mut self, fields: &Map<String, Value>) {
        self.objects += 1;
        for (name, value) in fields {
            if self.is_map {
                return;
            }
            self.fields.entry(name.clone()).or_default().add(value);
            if self.fields.len() > MAX_FIELDS {
                self.is_map = true;
                self.fields.clear();
            }
        }
    }

    /// Samples that were added.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.count
    }

    /// The schema, without a word about its draft.
    fn definition(&self) -> Value {
        let mut kinds: Vec<&str> = self.kinds.iter().copied().collect();
        if kinds.contains(&"number") {
            // Whatever is an integer is a number.
            kinds.retain(|kind| *kind != "integer");
        }
        let mut schema = match kinds[..] {
            [] => return json!({}),
            [kind] => json!({ "type": kind }),
            _ => json!({ "type": kinds }),
        };
        if self.objects > 0 && !self.is_map {
            let properties: Map<String, Value> = self
                .fields
                .iter()
                .map(|(name, field)| (name.clone(), field.definition()))
                .collect();
            let everywhere = self.fields.iter();
            let everywhere = everywhere.filter(|(_, field)| field.count == self.objects);
            let required: Vec<&str> = everywhere.map(|(name, _)| name.as_str()).collect();
            if !properties.is_empty() {
                schema["properties"] = properties.into();
            }
            if !required.is_empty() {
                schema["required"] = required.into();
            }
        }
        if let Some(items) = &self.items {
            schema["items"] = items.definition();
        }
        schema
    }

    /// The schema of all samples, as a document of its own.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut schema = self.definition();
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Definition, Format, compile};

    fn inferred(samples: &[Value]) -> Inferred {
        let mut inferred = Inferred::default();
        for sample in samples {
            inferred.add(sample);
        }
        inferred
    }

    #[test]
    fn a_field_is_required_if_every_object_has_it() {
        let schema = inferred(&[
            json!({"id": 1, "tags": ["a"]}),
            json!({"id": 2.5, "note": null}),
        ]);
        assert_eq!(
            schema.definition(),
            json!({
                "type": "object",
                "properties": {
                    "id": {"type": "number"},
                    "note": {"type": "null"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["id"],
            })
        );
        assert_eq!(schema.samples(), 2);
    }

    #[test]
    fn an_object_with_very_many_fields_is_a_map() {
        let fields: Map<String, Value> = (0..=MAX_FIELDS)
            .map(|n| (format!("k{n}"), n.into()))
            .collect();
        let schema = inferred(&[Value::Object(fields), json!({"other": "x"})]);
        assert_eq!(schema.definition(), json!({"type": "object"}));
    }

    #[test]
    fn of_nothing_nothing_is_known() {
        assert_eq!(Inferred::default().definition(), json!({}));
        assert_eq!(
            inferred(&[json!([])]).definition(),
            json!({"type": "array"})
        );
    }

    fn sample() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            "[a-z$\"/~]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-c$/~]{0,2}", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_sample_keeps_what_was_inferred(samples in proptest::collection::vec(sample(), 1..6)) {
            let content = inferred(&samples).schema().to_string();
            let definition = Definition { format: Format::Json, content: &content, message: "", file_name: "" };
            let compiled = compile(&definition).expect("it is a schema");
            for sample in &samples {
                prop_assert_eq!(compiled.validator.check(sample.to_string().as_bytes()), Ok(()), "{}", content);
            }
            let mut backwards = samples.clone();
            backwards.reverse();
            prop_assert_eq!(inferred(&backwards), inferred(&samples));
        }
    }
}
