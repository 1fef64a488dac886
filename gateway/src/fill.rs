//! JSON tree → message. Everything that does not fit is reported with its path, not only the first.

use std::fmt;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};
use serde_json::Value as Json;

use crate::fields;
use crate::problem::Violations;
use crate::scalar;

/// Where in the request a value stands. Written out only when there is something to report.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Index(above, index) => write!(f, "{above}[{index}]"),
            Self::Key(above, key) => write!(f, "{above}[{}]", Json::from(*key)),
        }
    }
}

/// Sets one field, whatever its shape. Null leaves it unset.
pub(crate) fn field(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    json: Json,
    at: Path<'_>,
    out: &mut Violations,
) {
    if json.is_null() && !takes_null(&field.kind()) {
        return;
    }
    let value = if field.is_map() {
        map(field, json, at, out)
    } else if field.is_list() {
        list(field, json, at, out)
    } else {
        single(&field.kind(), json, at, out)
    };
    if let Some(value) = value {
        message.set_field(field, value);
    }
}

fn object(message: &mut DynamicMessage, json: Json, at: Path<'_>, out: &mut Violations) {
    let Json::Object(entries) = json else {
        return out.push(at, "must be an object");
    };
    let descriptor = message.descriptor();
    let mut seen = Vec::with_capacity(entries.len().min(descriptor.fields().len()));
    for (name, json) in entries {
        let path = Path::Field(&at, &name);
        let Some(known) = fields::by_name(&descriptor, &name) else {
            out.push(path, "is not a field");
            continue;
        };
        let oneof = known.containing_oneof().filter(|oneof| oneof.fields().len() > 1 && !json.is_null());
        if seen.contains(&known.number()) {
            out.push(path, "is given twice, by both its names");
        } else if oneof.is_some_and(|oneof| oneof.fields().any(|other| message.has_field(&other))) {
            out.push(path, "excludes another field that is given too");
        } else {
            seen.push(known.number());
            field(message, &known, json, path, out);
        }
    }
}

fn single(kind: &Kind, json: Json, at: Path<'_>, out: &mut Violations) -> Option<Value> {
    if let Kind::Message(descriptor) = kind
        && fields::is_plain(descriptor)
    {
        let mut message = DynamicMessage::new(descriptor.clone());
        object(&mut message, json, at, out);
        return Some(Value::Message(message));
    }
    let value = scalar::from_json(kind, json);
    if value.is_none() {
        out.push(at, scalar::expected(kind));
    }
    value
}

fn list(field: &FieldDescriptor, json: Json, at: Path<'_>, out: &mut Violations) -> Option<Value> {
    let Json::Array(items) = json else {
        out.push(at, "must be a list");
        return None;
    };
    let kind = field.kind();
    let items = items.into_iter().enumerate();
    Some(Value::List(items.filter_map(|(index, item)| single(&kind, item, Path::Index(&at, index), out)).collect()))
}

fn map(field: &FieldDescriptor, json: Json, at: Path<'_>, out: &mut Violations) -> Option<Value> {
    let (Json::Object(entries), Kind::Message(entry)) = (json, field.kind()) else {
        out.push(at, "must be an object");
        return None;
    };
    let (key_kind, value_kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
    let pairs = entries.into_iter().filter_map(|(text, json)| {
        let at = Path::Key(&at, &text);
        let key = scalar::key(&key_kind, &text);
        if key.is_none() {
            out.push(at, format_args!("as a key {}", scalar::expected(&key_kind)));
        }
        Some((key?, single(&value_kind, json, at, out)?))
    });
    Some(Value::Map(pairs.collect()))
}

/// The two types for which null is a value.
fn takes_null(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value",
        Kind::Enum(kind) => kind.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

/// Fills a message that is the whole body.
pub(crate) fn message(message: &mut DynamicMessage, json: Json, out: &mut Violations) {
    if fields::is_plain(&message.descriptor()) {
        return object(message, json, Path::Root, out);
    }
    let kind = Kind::Message(message.descriptor());
    match scalar::from_json(&kind, json) {
        Some(Value::Message(filled)) => *message = filled,
        _ => out.push(Path::Root, scalar::expected(&kind)),
    }
}
