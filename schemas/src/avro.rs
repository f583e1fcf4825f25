//! Avro. Messages are JSON texts; a value of a union may be written plainly or, as Avro's JSON
//! encoding has it, as an object that names its branch.

use std::collections::BTreeMap;

use apache_avro::Schema as Avro;
use apache_avro::schema::Name;
use apache_avro::schema_compatibility::SchemaCompatibility;
use serde_json::Value;

use crate::{MAX_MESSAGE_DEPTH, SchemaError, Violation};

/// Most steps of one check; alternatives of unions may multiply.
const MAX_STEPS: u32 = 10_000_000;

/// A parsed Avro schema.
#[derive(Debug)]
pub(crate) struct Schema {
    root: Avro,
    /// Named types by their full names.
    names: BTreeMap<String, Avro>,
}

fn parse(content: &str) -> Result<Avro, SchemaError> {
    Avro::parse_str(content).map_err(|error| SchemaError::Avro(error.to_string()))
}

impl Schema {
    pub(crate) fn compile(content: &str) -> Result<Self, SchemaError> {
        let root = parse(content)?;
        let mut names = BTreeMap::new();
        collect(&root, None, &mut names);
        Ok(Self { root, names })
    }

    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), Violation> {
        let message = crate::message(payload)?;
        let mut check = Check {
            names: &self.names,
            steps: 0,
        };
        check
            .value(&self.root, &message, None, 0)
            .map_err(|wrong| Violation::new(wrong.text()))
    }
}

/// The namespace part of a full name.
fn namespace(full_name: &str) -> Option<&str> {
    full_name.rsplit_once('.').map(|(namespace, _)| namespace)
}

/// A name with its namespace, which may be that of what stands around it.
fn full_name(name: &Name, enclosing: Option<&str>) -> String {
    name.fullname(enclosing.map(str::to_owned))
}

fn collect(schema: &Avro, enclosing: Option<&str>, names: &mut BTreeMap<String, Avro>) {
    match schema {
        Avro::Record(record) => {
            let full = full_name(&record.name, enclosing);
            names.insert(full.clone(), schema.clone());
            for field in &record.fields {
                collect(&field.schema, namespace(&full), names);
            }
        }
        Avro::Enum(of) => {
            names.insert(full_name(&of.name, enclosing), schema.clone());
        }
        Avro::Fixed(fixed) => {
            names.insert(full_name(&fixed.name, enclosing), schema.clone());
        }
        Avro::Array(array) => collect(&array.items, enclosing, names),
        Avro::Map(map) => collect(&map.types, enclosing, names),
        Avro::Union(union) => {
            for variant in union.variants() {
                collect(variant, enclosing, names);
            }
        }
        _ => {}
    }
}

/// What is wrong, and where.
struct Wrong {
    place: Vec<String>,
    what: String,
}

impl Wrong {
    fn new(what: impl Into<String>) -> Self {
        Self {
            place: Vec::new(),
            what: what.into(),
        }
    }

    fn at(mut self, place: impl Into<String>) -> Self {
        self.place.push(place.into());
        self
    }

    fn text(mut self) -> String {
        if self.place.is_empty() {
            return self.what;
        }
        self.place.reverse();
        format!("{} at {}", self.what, self.place.join("."))
    }
}

struct Check<'a> {
    names: &'a BTreeMap<String, Avro>,
    steps: u32,
}

impl Check<'_> {
    fn value(
        &mut self,
        schema: &Avro,
        value: &Value,
        enclosing: Option<&str>,
        depth: usize,
    ) -> Result<(), Wrong> {
        self.steps += 1;
        // References in place end: a record or a union stands between.
        if self.steps > MAX_STEPS || depth > 4 * MAX_MESSAGE_DEPTH {
            return Err(Wrong::new("the message takes too long to check"));
        }
        let fits = match schema {
            Avro::Null => value.is_null(),
            Avro::Boolean => value.is_boolean(),
            Avro::Int | Avro::Date | Avro::TimeMillis => value
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok()),
            Avro::Long
            | Avro::TimeMicros
            | Avro::TimestampMillis
            | Avro::TimestampMicros
            | Avro::TimestampNanos
            | Avro::LocalTimestampMillis
            | Avro::LocalTimestampMicros
            | Avro::LocalTimestampNanos => value.is_i64(),
            Avro::Float | Avro::Double => value.is_number(),
            Avro::String | Avro::Bytes | Avro::BigDecimal | Avro::Uuid => value.is_string(),
            Avro::Decimal(_) | Avro::Duration => value.is_string() || value.is_number(),
            Avro::Fixed(fixed) => value
                .as_str()
                .is_some_and(|text| text.chars().count() == fixed.size),
            Avro::Enum(of) => value
                .as_str()
                .is_some_and(|text| of.symbols.iter().any(|symbol| symbol == text)),
            Avro::Ref { name } => {
                let full = full_name(name, enclosing);
                let names = self.names;
                let Some(target) = names.get(&full) else {
                    return Err(Wrong::new(format!("type {full} is not known")));
                };
                return self.value(target, value, enclosing, depth + 1);
            }
            Avro::Array(array) => return self.items(&array.items, value, enclosing, depth),
            Avro::Map(map) => return self.entries(&map.types, value, enclosing, depth),
            Avro::Union(union) => return self.union(union.variants(), value, enclosing, depth),
            Avro::Record(record) => {
                let full = full_name(&record.name, enclosing);
                return self.record(&record.fields, value, namespace(&full), depth);
            }
        };
        if fits {
            Ok(())
        } else {
            Err(Wrong::new(format!("{} expected", word(schema))))
        }
    }

    fn items(
        &mut self,
        schema: &Avro,
        value: &Value,
        enclosing: Option<&str>,
        depth: usize,
    ) -> Result<(), Wrong> {
        let items = value
            .as_array()
            .ok_or_else(|| Wrong::new("array expected"))?;
        items.iter().enumerate().try_for_each(|(index, item)| {
            self.value(schema, item, enclosing, depth + 1)
                .map_err(|wrong| wrong.at(index.to_string()))
        })
    }

    fn entries(
        &mut self,
        schema: &Avro,
        value: &Value,
        enclosing: Option<&str>,
        depth: usize,
    ) -> Result<(), Wrong> {
        let entries = value
            .as_object()
            .ok_or_else(|| Wrong::new("map expected"))?;
        entries.iter().try_for_each(|(key, entry)| {
            self.value(schema, entry, enclosing, depth + 1)
                .map_err(|wrong| wrong.at(key))
        })
    }

    fn record(
        &mut self,
        fields: &[apache_avro::schema::RecordField],
        value: &Value,
        enclosing: Option<&str>,
        depth: usize,
    ) -> Result<(), Wrong> {
        let object = value
            .as_object()
            .ok_or_else(|| Wrong::new("record expected"))?;
        for field in fields {
            match object.get(&field.name) {
                Some(value) => self
                    .value(&field.schema, value, enclosing, depth + 1)
                    .map_err(|wrong| wrong.at(&field.name))?,
                None if field.default.is_some() => {}
                // Absent is as good as null where null is allowed.
                None => self
                    .value(&field.schema, &Value::Null, enclosing, depth + 1)
                    .map_err(|_| Wrong::new(format!("field {} is missing", field.name)))?,
            }
        }
        Ok(())
    }

    fn union(
        &mut self,
        variants: &[Avro],
        value: &Value,
        enclosing: Option<&str>,
        depth: usize,
    ) -> Result<(), Wrong> {
        if let Value::Object(object) = value
            && object.len() == 1
            && let Some((branch, inner)) = object.iter().next()
        {
            let named = variants
                .iter()
                .find(|variant| is_called(variant, branch, enclosing));
            if let Some(variant) = named
                && self.value(variant, inner, enclosing, depth + 1).is_ok()
            {
                return Ok(());
            }
        }
        for variant in variants {
            if self.value(variant, value, enclosing, depth + 1).is_ok() {
                return Ok(());
            }
        }
        let words: Vec<&str> = variants.iter().map(word).collect();
        Err(Wrong::new(format!("one of {} expected", words.join(", "))))
    }
}

fn is_called(variant: &Avro, branch: &str, enclosing: Option<&str>) -> bool {
    let name = match variant {
        Avro::Record(record) => &record.name,
        Avro::Enum(of) => &of.name,
        Avro::Fixed(fixed) => &fixed.name,
        Avro::Ref { name } => name,
        other => return word(other) == branch,
    };
    name.name == branch || full_name(name, enclosing) == branch
}

fn word(schema: &Avro) -> &'static str {
    match schema {
        Avro::Null => "null",
        Avro::Boolean => "boolean",
        Avro::Int | Avro::Date | Avro::TimeMillis => "int",
        Avro::Float => "float",
        Avro::Double => "double",
        Avro::Bytes | Avro::Decimal(_) | Avro::BigDecimal => "bytes",
        Avro::String | Avro::Uuid => "string",
        Avro::Array(_) => "array",
        Avro::Map(_) => "map",
        Avro::Union(_) => "union",
        Avro::Record(_) => "record",
        Avro::Enum(_) => "enum",
        Avro::Fixed(_) | Avro::Duration => "fixed",
        Avro::Ref { .. } => "named type",
        _ => "long",
    }
}

pub(crate) fn compatible(old: &str, new: &str) -> Result<(), SchemaError> {
    let (old, new) = (parse(old)?, parse(new)?);
    SchemaCompatibility::can_read(&old, &new)
        .map_err(|error| SchemaError::Incompatible(error.to_string()))
}
