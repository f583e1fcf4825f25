//! GraphQL: a message is a document, valid for the schema.
//!
//! To parse and validate a document takes ten times what the other formats take. Publishers send
//! documents of few shapes that differ in their values, so the shapes that were found valid are
//! kept ([`shape`]).

mod shape;

use std::collections::HashSet;

use apollo_compiler::parser::Parser;
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::{DiagnosticList, Valid};

use parking_lot::RwLock;

use crate::{SchemaError, Violation};

/// Deepest nesting of a schema or a document.
const MAX_DEPTH: usize = 64;
/// Most tokens of a schema or a document.
const MAX_TOKENS: usize = 100_000;
/// Most shapes that are kept of one schema; of at most [`shape::MAX_BYTES`] each.
const MAX_SHAPES: usize = 256;

/// A schema that was found valid.
#[derive(Debug)]
pub(crate) struct Schema {
    schema: Valid<apollo_compiler::Schema>,
    /// Shapes of documents that were found valid.
    valid: RwLock<HashSet<Box<[u8]>>>,
}

fn parser() -> Parser {
    Parser::new()
        .recursion_limit(MAX_DEPTH)
        .token_limit(MAX_TOKENS)
}

/// The first of the problems found, without the picture of where it is.
fn first(errors: &DiagnosticList) -> String {
    errors
        .iter()
        .next()
        .map_or_else(|| "it is not valid".to_owned(), |one| one.error.to_string())
}

impl Schema {
    pub(crate) fn compile(content: &str) -> Result<Self, SchemaError> {
        let invalid = |errors: &DiagnosticList| SchemaError::Graphql(first(errors));
        let schema = parser()
            .parse_schema(content, "schema.graphql")
            .map_err(|with| invalid(&with.errors))?;
        schema
            .validate()
            .map(|schema| Self {
                schema,
                valid: RwLock::default(),
            })
            .map_err(|with| invalid(&with.errors))
    }

    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), Violation> {
        let text = std::str::from_utf8(payload)
            .map_err(|_| Violation::new("the document is not UTF-8"))?;
        let Some(shape) = shape::of(text) else {
            return self.check_whole(text);
        };
        if self.valid.read().contains(&shape[..]) {
            return Ok(());
        }
        self.check_whole(text)?;
        let mut valid = self.valid.write();
        // Whoever sends as many shapes gains nothing by any of them.
        if valid.len() >= MAX_SHAPES {
            valid.clear();
        }
        valid.insert(shape.into_boxed_slice());
        Ok(())
    }

    /// Parses and validates a document.
    fn check_whole(&self, text: &str) -> Result<(), Violation> {
        let invalid = |errors: &DiagnosticList| Violation::new(first(errors));
        let document = parser()
            .parse_executable(&self.schema, text, "message.graphql")
            .map_err(|with| invalid(&with.errors))?;
        document
            .validate(&self.schema)
            .map(|_| ())
            .map_err(|with| invalid(&with.errors))
    }
}

/// Whether documents for the old schema stay valid for the new one.
pub(crate) fn compatible(old: &str, new: &str) -> Result<(), SchemaError> {
    let (old, new) = (Schema::compile(old)?, Schema::compile(new)?);
    for (name, before) in &old.schema.types {
        let Some(after) = new.schema.types.get(name) else {
            return Err(SchemaError::Incompatible(format!("type {name} is gone")));
        };
        same_type(before, after)
            .map_err(|what| SchemaError::Incompatible(format!("{what} of type {name}")))?;
    }
    Ok(())
}

fn same_type(before: &ExtendedType, after: &ExtendedType) -> Result<(), String> {
    match (before, after) {
        (ExtendedType::Object(before), ExtendedType::Object(after)) => before
            .fields
            .iter()
            .try_for_each(|(name, field)| same_field(name, field, after.fields.get(name))),
        (ExtendedType::Interface(before), ExtendedType::Interface(after)) => before
            .fields
            .iter()
            .try_for_each(|(name, field)| same_field(name, field, after.fields.get(name))),
        (ExtendedType::InputObject(before), ExtendedType::InputObject(after)) => {
            for (name, field) in &before.fields {
                let stays = after.fields.get(name).is_some_and(|new| new.ty == field.ty);
                if !stays {
                    return Err(format!("field {name} is not the same"));
                }
            }
            let new = after
                .fields
                .iter()
                .find(|(name, field)| !before.fields.contains_key(*name) && field.is_required());
            new.map_or(Ok(()), |(name, _)| {
                Err(format!("required field {name} is new"))
            })
        }
        (ExtendedType::Enum(before), ExtendedType::Enum(after)) => {
            let gone = before
                .values
                .keys()
                .find(|value| !after.values.contains_key(*value));
            gone.map_or(Ok(()), |value| Err(format!("value {value} is gone")))
        }
        (ExtendedType::Union(before), ExtendedType::Union(after)) => {
            let gone = before
                .members
                .iter()
                .find(|member| !after.members.contains(*member));
            gone.map_or(Ok(()), |member| {
                Err(format!("member {} is gone", member.name))
            })
        }
        (ExtendedType::Scalar(_), ExtendedType::Scalar(_)) => Ok(()),
        _ => Err("the kind is not the same".to_owned()),
    }
}

type Field = apollo_compiler::schema::Component<apollo_compiler::schema::FieldDefinition>;

fn same_field(name: &str, before: &Field, after: Option<&Field>) -> Result<(), String> {
    let Some(after) = after else {
        return Err(format!("field {name} is gone"));
    };
    if after.ty != before.ty {
        return Err(format!("field {name} has another type"));
    }
    for argument in &before.arguments {
        let new = after.arguments.iter().find(|new| new.name == argument.name);
        if new.is_none_or(|new| new.ty != argument.ty) {
            return Err(format!(
                "argument {} of field {name} is not the same",
                argument.name
            ));
        }
    }
    let new = after.arguments.iter().find(|argument| {
        argument.is_required() && before.arguments.iter().all(|old| old.name != argument.name)
    });
    new.map_or(Ok(()), |argument| {
        Err(format!(
            "required argument {} of field {name} is new",
            argument.name
        ))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORDERS: &str = "enum Currency { EUR USD } input Place { x: Int, y: Float, on: Boolean } \
        type Order { id: ID, total(in: Currency, scale: Int): Float, next(n: Int): Order } \
        type Query { order(id: Int!, key: ID, name: String, at: Place, tags: [String!], \
        amounts: [Float!]): Order, name(of: String, by: Float): String }";

    fn compiled() -> Schema {
        Schema::compile(ORDERS).expect("a good schema")
    }

    #[test]
    fn documents_of_a_known_shape_are_checked_by_it() {
        let schema = compiled();
        for id in 0..5_000 {
            let text = format!("{{order(id:{id},name:\"n{id}\",amounts:[1.5,{id}.25]){{id}}}}");
            schema.check(text.as_bytes()).expect("a good document");
        }
        // How many digits a number has says that it fits, not which shape it is.
        assert_eq!(schema.valid.read().len(), 1);
        for bad in [
            "{order(id:99999999999){id}}",
            "{order(id:\"1\"){id}}",
            "{order(id:1,name:2){id}}",
            "{order(id:1){nothing}}",
            "{order(id:1){id}",
        ] {
            schema.check(bad.as_bytes()).expect_err(bad);
        }
    }

    #[test]
    fn what_has_to_be_equal_is_compared() {
        let schema = compiled();
        let both = |a: &str, b: &str| {
            let text = format!("{{name(of:{a}) name(of:{b})}}");
            schema.check(text.as_bytes())
        };
        both("\"a\"", "\"a\"").expect("the same field twice");
        both("\"a\"", "\"b\"").expect_err("two fields of one name");
        both("\"c\"", "\"c\"").expect("the same field twice");
        let floats = |a: &str, b: &str| {
            let text = format!("{{name(by:{a}) name(by:{b})}}");
            (
                schema.check(text.as_bytes()).is_ok(),
                schema.check_whole(&text).is_ok(),
            )
        };
        for (a, b) in [
            ("1.0", "1.0"),
            ("1.0", "1.00"),
            ("1.0", "2.0"),
            ("2.0", "2.0"),
        ] {
            let (seen, meant) = floats(a, b);
            assert_eq!(seen, meant, "{a} {b}");
        }
    }

    #[test]
    fn shapes_are_not_kept_without_end() {
        let schema = compiled();
        for n in 0..2 * MAX_SHAPES {
            let text = format!("{{a{n}:order(id:1){{id}}}}");
            schema.check(text.as_bytes()).expect("a good document");
        }
        assert!(schema.valid.read().len() <= MAX_SHAPES);
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            (-9_i8..9).prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| format!("{n:?}")),
            (0_u8..3).prop_map(|n| format!("{n}.50")),
            "[a-c ]{0,3}".prop_map(|text| format!("{text:?}")),
            Just("\"\"\"block \"text\" \"\"\"".to_owned()),
            Just("\"\\u0041\"".to_owned()),
            Just("EUR".to_owned()),
            Just("USD".to_owned()),
            Just("OTHER".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just("$v".to_owned()),
            Just("[1, 2.5]".to_owned()),
            Just("{x: 1, y: 2.0}".to_owned()),
            Just("01".to_owned()),
            Just("1a".to_owned()),
            Just("-0".to_owned()),
        ]
    }

    fn field() -> impl Strategy<Value = String> {
        prop_oneof![
            (value(), value()).prop_map(|(a, b)| format!("order(id: {a}, name: {b}) {{ id }}")),
            (value(), value()).prop_map(|(a, b)| format!("order(id:1,key:{a},at:{{x:{b}}}){{id}}")),
            (value(), value()).prop_map(|(a, b)| format!("order(id:1){{total(in:{a},scale:{b})}}")),
            (value(), value()).prop_map(|(a, b)| format!("name(of: {a}, by: {b})")),
            value().prop_map(|a| format!("order(id: 1, amounts: [{a}], tags: [\"t\"]) {{ id }}")),
            value().prop_map(|a| format!("name @include(if: {a})")),
        ]
    }

    fn document() -> impl Strategy<Value = String> {
        (
            prop_oneof![
                Just(""),
                Just("query Q($v: Int) "),
                Just("# remark\n"),
                Just("mutation ")
            ],
            proptest::collection::vec(field(), 1..4),
            prop_oneof![Just(""), Just("}"), Just("\u{feff}"), Just(" x")],
        )
            .prop_map(|(head, fields, tail)| format!("{head}{{ {} }}{tail}", fields.join(" ")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        /// Whatever was seen before, a document is valid exactly if it is by itself.
        #[test]
        fn shapes_change_no_verdict(documents in proptest::collection::vec(document(), 1..12)) {
            let schema = compiled();
            for text in documents {
                let seen = schema.check(text.as_bytes()).is_ok();
                prop_assert_eq!(seen, schema.check_whole(&text).is_ok(), "{}", text);
            }
        }
    }
}
