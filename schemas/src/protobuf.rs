//! Protocol Buffers, compiled from their text without an outside program.

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage,
};
use protox::Compiler;
use protox::file::{File, FileResolver};

use crate::{SchemaError, Violation};

/// Deepest nesting of braces in a definition.
const MAX_DEPTH: usize = 64;

/// A compiled file and its root message.
#[derive(Debug)]
pub(crate) struct Schema(MessageDescriptor);

/// The one file there is.
struct OneFile {
    name: String,
    content: String,
}

impl FileResolver for OneFile {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.name {
            File::from_source(name, &self.content)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

fn refused(text: impl Into<String>) -> SchemaError {
    SchemaError::Protobuf(text.into())
}

fn pool(content: &str, file_name: &str) -> Result<(DescriptorPool, Vec<u8>), SchemaError> {
    let mut depth = 0_usize;
    for byte in content.bytes() {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(refused(format!("it is nested deeper than {MAX_DEPTH}")));
        }
    }
    let mut compiler = Compiler::with_file_resolver(OneFile {
        name: file_name.to_owned(),
        content: content.to_owned(),
    });
    compiler
        .include_imports(false)
        .include_source_info(false)
        .open_file(file_name)
        .map_err(|error| refused(error.to_string()))?;
    let descriptor = compiler.encode_file_descriptor_set();
    Ok((compiler.descriptor_pool(), descriptor))
}

/// Top-level messages in the order of the file.
fn roots(pool: &DescriptorPool, file_name: &str) -> Vec<MessageDescriptor> {
    pool.files()
        .filter(|file| file.name() == file_name)
        .flat_map(|file| file.messages().collect::<Vec<_>>())
        .collect()
}

impl Schema {
    pub(crate) fn compile(
        content: &str,
        message: &str,
        file_name: &str,
    ) -> Result<(Self, Vec<u8>), SchemaError> {
        let (pool, descriptor) = pool(content, file_name)?;
        let roots = roots(&pool, file_name);
        let root = if message.is_empty() {
            roots.into_iter().next()
        } else {
            let mut roots = roots.into_iter();
            roots.find(|root| root.name() == message || root.full_name() == message)
        };
        match root {
            Some(root) => Ok((Self(root), descriptor)),
            None if message.is_empty() => Err(refused("it has no message")),
            None => Err(refused(format!("it has no message {message}"))),
        }
    }

    pub(crate) fn message(&self) -> &str {
        self.0.name()
    }

    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), Violation> {
        let message = DynamicMessage::decode(self.0.clone(), payload)
            .map_err(|error| Violation::new(error.to_string()))?;
        required(&message, 0)
    }
}

/// Fields that a `proto2` file requires are there.
fn required(message: &DynamicMessage, depth: usize) -> Result<(), Violation> {
    if depth > crate::MAX_MESSAGE_DEPTH {
        return Err(Violation::new("the message is nested too deeply"));
    }
    for field in message.descriptor().fields() {
        if field.cardinality() == Cardinality::Required && !message.has_field(&field) {
            let text = format!("required field {} is missing", field.full_name());
            return Err(Violation::new(text));
        }
    }
    for (_, value) in message.fields() {
        values(value, depth)?;
    }
    Ok(())
}

fn values(value: &prost_reflect::Value, depth: usize) -> Result<(), Violation> {
    match value {
        prost_reflect::Value::Message(message) => required(message, depth + 1),
        prost_reflect::Value::List(items) => items.iter().try_for_each(|item| values(item, depth)),
        prost_reflect::Value::Map(entries) => {
            entries.values().try_for_each(|item| values(item, depth))
        }
        _ => Ok(()),
    }
}

/// Messages of the old file keep their meaning: what bears a number keeps its type.
pub(crate) fn compatible(old: &str, new: &str) -> Result<(), SchemaError> {
    let (old, _) = pool(old, "schema.proto")?;
    let (new, _) = pool(new, "schema.proto")?;
    for before in old.all_messages() {
        let Some(after) = new.get_message_by_name(before.full_name()) else {
            let text = format!("message {} is gone", before.full_name());
            return Err(SchemaError::Incompatible(text));
        };
        same_fields(&before, &after).map_err(SchemaError::Incompatible)?;
    }
    Ok(())
}

fn same_fields(before: &MessageDescriptor, after: &MessageDescriptor) -> Result<(), String> {
    for field in after.fields() {
        let Some(known) = before
            .fields()
            .find(|known| known.number() == field.number())
        else {
            if field.cardinality() == Cardinality::Required {
                return Err(format!("required field {} is new", field.full_name()));
            }
            continue;
        };
        let same_list = known.is_list() == field.is_list() && known.is_map() == field.is_map();
        if !same_list || wire(&known.kind()) != wire(&field.kind()) {
            return Err(format!(
                "field {} has the number {} of another type",
                field.full_name(),
                field.number()
            ));
        }
        if field.cardinality() == Cardinality::Required
            && known.cardinality() != Cardinality::Required
        {
            return Err(format!("field {} is required now", field.full_name()));
        }
    }
    Ok(())
}

/// Kinds that read each other's values without loss have the same word.
fn wire(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(of) => of.full_name().to_owned(),
        other => format!("{other:?}"),
    }
}
