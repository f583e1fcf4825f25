//! GraphQL: a message is a document, valid for the schema.

use apollo_compiler::parser::Parser;
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::{DiagnosticList, Valid};

use crate::{SchemaError, Violation};

/// Deepest nesting of a schema or a document.
const MAX_DEPTH: usize = 64;
/// Most tokens of a schema or a document.
const MAX_TOKENS: usize = 100_000;

/// A schema that was found valid.
#[derive(Debug)]
pub(crate) struct Schema(Valid<apollo_compiler::Schema>);

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
            .map(Self)
            .map_err(|with| invalid(&with.errors))
    }

    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), Violation> {
        let text = std::str::from_utf8(payload)
            .map_err(|_| Violation::new("the document is not UTF-8"))?;
        let invalid = |errors: &DiagnosticList| Violation::new(first(errors));
        let document = parser()
            .parse_executable(&self.0, text, "message.graphql")
            .map_err(|with| invalid(&with.errors))?;
        document
            .validate(&self.0)
            .map(|_| ())
            .map_err(|with| invalid(&with.errors))
    }
}

/// Whether documents for the old schema stay valid for the new one.
pub(crate) fn compatible(old: &str, new: &str) -> Result<(), SchemaError> {
    let (old, new) = (Schema::compile(old)?, Schema::compile(new)?);
    for (name, before) in &old.0.types {
        let Some(after) = new.0.types.get(name) else {
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
