//! An HTTP request's path, query and body → the rpc's request message.

use bytes::Bytes;
use http::HeaderMap;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};

use crate::fill::{self, Path};
use crate::problem::{Problem, Violations};
use crate::rules::{Body, Route};
use crate::{fields, headers, query, scalar, strict};

/// What came in the request's body.
#[derive(Debug)]
pub(crate) enum Content {
    Empty,
    Json(Bytes),
    /// Media type and bytes of a `google.api.HttpBody`.
    Raw(String, Bytes),
}

/// Puts the request together.
pub(crate) fn request(
    route: &Route,
    values: Vec<String>,
    query: Option<&str>,
    content: Content,
    headers: &HeaderMap,
) -> Result<DynamicMessage, Problem> {
    let mut message = DynamicMessage::new(route.rpc.input.clone());
    let mut violations = Violations::default();
    match content {
        Content::Empty => {
            if let Body::Field(field) = &route.body
                && let Kind::Message(kind) = field.kind()
                && !field.is_list()
            {
                message.set_field(field, Value::Message(DynamicMessage::new(kind)));
            }
        }
        Content::Raw(media_type, bytes) => raw(&mut message, &route.body, media_type, bytes),
        Content::Json(text) => {
            let json = strict::parse(&text)
                .map_err(|error| Problem::invalid("MALFORMED_JSON", format!("The body is not valid JSON: {error}.")))?;
            match &route.body {
                Body::Field(field) => {
                    let path = Path::Field(&Path::Root, field.json_name());
                    fill::field(&mut message, field, json, path, &mut violations);
                }
                _ => fill::message(&mut message, json, &mut violations),
            }
        }
    }
    violations.check()?;
    if let Some(query) = query {
        query::apply(query, route, &mut message)?;
    }
    for (path, value) in route.bound.iter().zip(values) {
        bind(&mut message, path, &value)?;
    }
    headers::fill(headers, route.is_upload(), &mut message)?;
    Ok(message)
}

/// Sets a field from the path. A body that says otherwise is refused: one of the two must be a mistake.
fn bind(message: &mut DynamicMessage, path: &[FieldDescriptor], text: &str) -> Result<(), Problem> {
    let (mut violations, name) = (Violations::default(), fields::json_path(path));
    let Some((last, parent)) = path.last().zip(fields::parent(message, path)) else { return Ok(()) };
    match scalar::from_text(&last.kind(), text) {
        None => violations.push(name, scalar::expected(&last.kind())),
        Some(value) if parent.has_field(last) && *parent.get_field(last) != value => {
            violations.push(name, "differs from what the path says");
        }
        Some(value) => parent.set_field(last, value),
    }
    violations.check()
}

fn raw(message: &mut DynamicMessage, body: &Body, media_type: String, bytes: Bytes) {
    let target = match body {
        Body::Field(field) => message.get_field_mut(field).as_message_mut(),
        _ => Some(message),
    };
    if let Some(target) = target {
        target.set_field_by_name("content_type", Value::String(media_type));
        target.set_field_by_name("data", Value::Bytes(bytes));
    }
}
