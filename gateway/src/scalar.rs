//! Single values: JSON or text → what a field holds.

use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, Kind, MapKey, Value};
use serde_json::Value as Json;

/// Converts the JSON of a field that is no plain message; none if it does not fit, see [`expected`].
pub(crate) fn from_json(kind: &Kind, json: Json) -> Option<Value> {
    Some(match (kind, json) {
        (Kind::Bool, Json::Bool(value)) => Value::Bool(value),
        (Kind::String, Json::String(value)) => Value::String(value),
        (Kind::Bytes, Json::String(value)) => Value::Bytes(base64(&value)?.into()),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, json) => Value::I32(integer(&json)?),
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, json) => Value::I64(integer(&json)?),
        (Kind::Uint32 | Kind::Fixed32, json) => Value::U32(integer(&json)?),
        (Kind::Uint64 | Kind::Fixed64, json) => Value::U64(integer(&json)?),
        (Kind::Double, json) => Value::F64(float(&json)?),
        (Kind::Float, json) => Value::F32(narrow(float(&json)?)?),
        (Kind::Enum(_), Json::Null) => Value::EnumNumber(0),
        (Kind::Enum(kind), Json::String(name)) => Value::EnumNumber(kind.get_value_by_name(&name)?.number()),
        (Kind::Enum(_), json @ Json::Number(_)) => Value::EnumNumber(integer(&json)?),
        (Kind::Message(kind), Json::String(mask)) if kind.full_name() == "google.protobuf.FieldMask" => {
            let mut message = DynamicMessage::new(kind.clone());
            let paths = mask.split(',').filter(|path| !path.is_empty()).map(|path| Value::String(snake(path.trim())));
            message.set_field_by_name("paths", Value::List(paths.collect()));
            Value::Message(message)
        }
        (Kind::Message(kind), json) => Value::Message(DynamicMessage::deserialize(kind.clone(), json).ok()?),
        _ => return None,
    })
}

/// Converts text from a path or a query, where everything is a string.
pub(crate) fn from_text(kind: &Kind, text: &str) -> Option<Value> {
    let is_bool = match kind {
        Kind::Message(message) => message.full_name() == "google.protobuf.BoolValue",
        kind => *kind == Kind::Bool,
    };
    let json = match kind {
        _ if is_bool => Json::Bool(text.parse().ok()?),
        Kind::Enum(_) => text.parse::<i32>().map_or_else(|_| Json::from(text), Json::from),
        _ => Json::from(text),
    };
    from_json(kind, json)
}

/// Converts a map's key.
pub(crate) fn key(kind: &Kind, text: &str) -> Option<MapKey> {
    Some(match from_text(kind, text)? {
        Value::Bool(value) => MapKey::Bool(value),
        Value::I32(value) => MapKey::I32(value),
        Value::I64(value) => MapKey::I64(value),
        Value::U32(value) => MapKey::U32(value),
        Value::U64(value) => MapKey::U64(value),
        Value::String(value) => MapKey::String(value),
        _ => return None,
    })
}

/// What to tell a caller whose value did not fit. The value is not repeated: it may be a secret.
pub(crate) fn expected(kind: &Kind) -> String {
    let form = match kind {
        Kind::Bool => "true or false",
        Kind::String => "a string",
        Kind::Bytes => "base64",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit integer",
        Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit integer",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a 64-bit integer",
        Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit integer",
        Kind::Double | Kind::Float => "a number",
        Kind::Enum(kind) => {
            let names: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
            return format!("must be one of {}", names.join(", "));
        }
        Kind::Message(kind) => match kind.full_name() {
            "google.protobuf.Timestamp" => "an RFC 3339 time such as 2026-01-31T12:00:00Z",
            "google.protobuf.Duration" => "a duration in seconds such as 3.5s",
            "google.protobuf.FieldMask" => "field names joined by commas",
            "google.protobuf.Any" => "an object with @type and the fields of that type",
            "google.protobuf.BoolValue" => "true or false",
            "google.protobuf.StringValue" => "a string",
            "google.protobuf.BytesValue" => "base64",
            name if name.ends_with("Value") && name != "google.protobuf.ListValue" => "a number",
            "google.protobuf.ListValue" => "a list",
            _ => "an object",
        },
    };
    format!("must be {form}")
}

/// Numbers may be strings, and whole floats integers: proto3 JSON allows both.
fn integer<T: TryFrom<i128>>(json: &Json) -> Option<T> {
    let whole = |value: f64| (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128);
    let wide = match json {
        Json::Number(number) => {
            let exact = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            exact.or_else(|| number.as_f64().and_then(whole))
        }
        Json::String(text) => text.parse().ok().or_else(|| f64::from_str(text).ok().and_then(whole)),
        _ => None,
    };
    T::try_from(wide?).ok()
}

fn float(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|value: &f64| value.is_finite()),
        },
        _ => None,
    }
}

fn narrow(wide: f64) -> Option<f32> {
    let narrow = wide as f32;
    (narrow.is_finite() || !wide.is_finite()).then_some(narrow)
}

/// Both alphabets, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, lenient.with_decode_allow_trailing_bits(true)).decode(text).ok()
}

/// The paths of a mask are lowerCamel in JSON; those that are not are let pass.
fn snake(path: &str) -> String {
    let mut snake = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
