//! Query parameters → fields of the request.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};

use crate::problem::{Problem, Violations};
use crate::rules::{Body, Route};
use crate::template::decode;
use crate::{fields, scalar};

/// Names under which people put credentials where logs and histories keep them; compared without case, `-` and `_`.
const CREDENTIALS: [&str; 9] =
    ["accesstoken", "apikey", "authorization", "auth", "key", "password", "refreshtoken", "token", "xapikey"];

/// Splits and decodes a query string.
fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let decoded = |text: &str| {
        decode(&text.replace('+', " "), false)
            .ok_or_else(|| Problem::invalid("MALFORMED_QUERY", "A percent escape in the query is malformed."))
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// Refuses credentials, without repeating them.
pub(crate) fn refuse_credentials(query: &str) -> Result<(), Problem> {
    pairs(query)?.iter().try_for_each(|(name, _)| refuse_credential(name))
}

fn refuse_credential(name: &str) -> Result<(), Problem> {
    if !CREDENTIALS.contains(&name.to_lowercase().replace(['-', '_'], "").as_str()) {
        return Ok(());
    }
    let message = format!("{name} is not taken from the query: send credentials in headers.");
    Err(Problem::invalid("CREDENTIAL_IN_QUERY", message))
}

/// Sets the fields that a query names. Those that the path fills are left to it.
pub(crate) fn apply(query: &str, route: &Route, message: &mut DynamicMessage) -> Result<(), Problem> {
    let mut violations = Violations::default();
    let mut given: Vec<Vec<FieldDescriptor>> = Vec::new();
    for (name, value) in pairs(query)? {
        let Some(path) = fields::resolve(&message.descriptor(), &name) else {
            refuse_credential(&name)?;
            violations.push(name, "is not a parameter of this call");
            continue;
        };
        if route.bound.contains(&path) {
            continue;
        }
        let repeats = given.contains(&path);
        match set(message, &path, &value, repeats, &route.body) {
            Ok(()) if repeats => {}
            Ok(()) => given.push(path),
            Err(description) => violations.push(name, description),
        }
    }
    violations.check()
}

fn set(
    message: &mut DynamicMessage,
    path: &[FieldDescriptor],
    text: &str,
    repeats: bool,
    body: &Body,
) -> Result<(), String> {
    let (Some(first), Some(last)) = (path.first(), path.last()) else { return Ok(()) };
    match body {
        Body::All => return Err("belongs in the body".to_owned()),
        Body::Field(field) if field == first => return Err("belongs in the body".to_owned()),
        _ => {}
    }
    let kind = last.kind();
    if last.is_map() || matches!(&kind, Kind::Message(message) if fields::is_plain(message)) {
        return Err("cannot stand in the query".to_owned());
    }
    if repeats && !last.is_list() {
        return Err("is given twice".to_owned());
    }
    let value = scalar::from_text(&kind, text).ok_or_else(|| scalar::expected(&kind))?;
    let parent = fields::parent(message, path).ok_or("cannot stand in the query")?;
    if let Some(oneof) = last.containing_oneof()
        && oneof.fields().any(|other| other != *last && parent.has_field(&other))
    {
        return Err("excludes another parameter that is given too".to_owned());
    }
    match parent.get_field_mut(last) {
        Value::List(list) => list.push(value),
        single => *single = value,
    }
    Ok(())
}
