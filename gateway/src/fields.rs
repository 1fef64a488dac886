//! Fields by name: the proto's own and the lowerCamel one of JSON, alone or joined by dots.

use std::time::Duration;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};

/// A field by either name.
pub(crate) fn by_name(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// The fields along a dotted path; none unless all but the last hold a message of their own.
pub(crate) fn resolve(message: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let mut message = Some(message.clone());
    let mut fields = Vec::new();
    for name in path.split('.') {
        let field = by_name(&message?, name)?;
        message = match field.kind() {
            Kind::Message(inner) if is_plain(&inner) && !field.is_list() && !field.is_map() => Some(inner),
            _ => None,
        };
        fields.push(field);
    }
    Some(fields)
}

/// Whether a message is a JSON object of its fields, and not one of the types with a JSON form of their own.
pub(crate) fn is_plain(message: &MessageDescriptor) -> bool {
    message.package_name() != "google.protobuf"
}

/// The message that holds the last of `fields`, made on the way where it was not there.
pub(crate) fn parent<'a>(
    message: &'a mut DynamicMessage,
    fields: &[FieldDescriptor],
) -> Option<&'a mut DynamicMessage> {
    let (_, above) = fields.split_last()?;
    above.iter().try_fold(message, |message, field| message.get_field_mut(field).as_message_mut())
}

/// Their dotted path, in the names of JSON.
pub(crate) fn json_path(fields: &[FieldDescriptor]) -> String {
    fields.iter().map(FieldDescriptor::json_name).collect::<Vec<_>>().join(".")
}

/// A string field; empty when there is none.
pub(crate) fn text(message: &DynamicMessage, name: &str) -> String {
    message.get_field_by_name(name).as_deref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The type of a field that is neither list nor map.
pub(crate) fn kind(message: &DynamicMessage, name: &str) -> Option<Kind> {
    let field = message.descriptor().get_field_by_name(name)?;
    (!field.is_list() && !field.is_map()).then(|| field.kind())
}

/// A `google.protobuf.Duration` that is set and not negative.
pub(crate) fn duration(message: &DynamicMessage, name: &str) -> Option<Duration> {
    let value = message.get_field_by_name(name).filter(|_| message.has_field_by_name(name))?;
    let part = |name| value.as_message()?.get_field_by_name(name);
    let seconds = part("seconds")?.as_i64()?.try_into().ok()?;
    Some(Duration::new(seconds, part("nanos")?.as_i32()?.try_into().ok()?))
}
