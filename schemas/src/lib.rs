//! Schemas of messages: definitions are checked, compiled, compared, and held against payloads.
//!
//! | Format | A definition is | A message is |
//! |---|---|---|
//! | [`Format::Json`] | a JSON Schema of any draft, references only within it | a JSON text |
//! | [`Format::Protobuf`] | one file without imports and its root message | that message, encoded |
//! | [`Format::Avro`] | an Avro schema in JSON | a JSON text, as the SDKs send it |
//! | [`Format::Graphql`] | a schema | a document that is valid for it |
//!
//! # Invariants
//!
//! 1. Nothing leaves the process: no file is opened and no address asked, whatever a definition
//!    refers to.
//! 2. Neither a definition nor a message can exhaust the stack, and the work a message causes is
//!    bounded by its size and by what the definition was measured to cost.
//!
//! Checking a definition takes time that grows with it; it belongs on a thread that may be late.

mod avro;
mod graphql;
mod infer;
mod json;
mod protobuf;

pub use self::infer::Inferred;

use thiserror::Error;

/// Deepest nesting of a JSON message.
pub const MAX_MESSAGE_DEPTH: usize = 64;
/// Longest text of a violation, bytes.
const MAX_VIOLATION: usize = 1_024;

/// What a definition is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON Schema.
    Json,
    /// Protocol Buffers.
    Protobuf,
    /// Avro.
    Avro,
    /// GraphQL.
    Graphql,
}

/// Why a definition is refused. The beginnings of the texts are what Memphis clients are told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// No JSON Schema.
    #[error("your json schema is invalid: {0}")]
    Json(String),
    /// No Protobuf file.
    #[error("your Proto file is invalid: {0}")]
    Protobuf(String),
    /// No Avro schema.
    #[error("your Avro file is invalid: {0}")]
    Avro(String),
    /// No GraphQL schema.
    #[error("{0}")]
    Graphql(String),
    /// Messages of the older definition would not be understood, or not be allowed.
    #[error("the schema is not compatible with the active version: {0}")]
    Incompatible(String),
}

/// Why a message violates a schema, for people; at most 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Violation(String);

impl Violation {
    fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX_VIOLATION {
            let mut end = MAX_VIOLATION;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        Self(text)
    }
}

/// A definition to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    /// What it is written in.
    pub format: Format,
    /// Its text.
    pub content: &'a str,
    /// Protobuf: root message, with or without its package; empty for the first one of the file.
    pub message: &'a str,
    /// Protobuf: name of the file inside the descriptor.
    pub file_name: &'a str,
}

/// A compiled definition.
#[derive(Debug)]
pub struct Compiled {
    /// Protobuf: root message without its package; otherwise empty.
    pub message: String,
    /// Protobuf: a serialised `FileDescriptorSet` of this one file; otherwise empty.
    pub descriptor: Vec<u8>,
    /// Holds messages against it.
    pub validator: Validator,
}

/// Holds messages against a definition. Any number of threads may use it at a time.
#[derive(Debug)]
pub struct Validator(Kind);

#[derive(Debug)]
enum Kind {
    Json(json::Schema),
    Protobuf(protobuf::Schema),
    Avro(avro::Schema),
    Graphql(graphql::Schema),
}

impl Validator {
    /// Checks one message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, payload: &[u8]) -> Result<(), Violation> {
        match &self.0 {
            Kind::Json(schema) => schema.check(payload),
            Kind::Protobuf(schema) => schema.check(payload),
            Kind::Avro(schema) => schema.check(payload),
            Kind::Graphql(schema) => schema.check(payload),
        }
    }
}

/// Checks a definition and makes ready to check messages against it.
///
/// # Errors
/// What is wrong with it.
pub fn compile(definition: &Definition<'_>) -> Result<Compiled, SchemaError> {
    let plain = |kind| Compiled {
        message: String::new(),
        descriptor: Vec::new(),
        validator: Validator(kind),
    };
    let content = definition.content;
    Ok(match definition.format {
        Format::Json => plain(Kind::Json(json::Schema::compile(content)?)),
        Format::Avro => plain(Kind::Avro(avro::Schema::compile(content)?)),
        Format::Graphql => plain(Kind::Graphql(graphql::Schema::compile(content)?)),
        Format::Protobuf => {
            let (schema, descriptor) =
                protobuf::Schema::compile(content, definition.message, definition.file_name)?;
            Compiled {
                message: schema.message().to_owned(),
                descriptor,
                validator: Validator(Kind::Protobuf(schema)),
            }
        }
    })
}

/// Whether messages written for `old` are understood by whoever knows `new`: what a consumer needs
/// that is brought up to date first.
///
/// # Errors
/// The first thing found that stands against it, or that cannot be shown not to.
pub fn compatible(format: Format, old: &str, new: &str) -> Result<(), SchemaError> {
    match format {
        Format::Json => json::compatible(old, new),
        Format::Protobuf => protobuf::compatible(old, new),
        Format::Avro => avro::compatible(old, new),
        Format::Graphql => graphql::compatible(old, new),
    }
}

/// Reads a JSON message that is not nested too deeply.
fn message(payload: &[u8]) -> Result<serde_json::Value, Violation> {
    // The parser of the library stops at 128 by itself.
    let value: serde_json::Value =
        serde_json::from_slice(payload).map_err(|error| Violation::new(error.to_string()))?;
    if depth(&value) > MAX_MESSAGE_DEPTH {
        let text = format!("the message is nested deeper than {MAX_MESSAGE_DEPTH}");
        return Err(Violation::new(text));
    }
    Ok(value)
}

fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
