//! Wire bytes → JSON. The one place that knows how replies are printed, so that a faster way than through
//! [`DynamicMessage`] can take its place.

use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value as Json;
use tonic::Code;

use crate::problem::Problem;

/// proto3 JSON with zero values, empty lists and maps, and false printed.
const OPTIONS: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// Prints a reply on one line.
pub(crate) fn to_json(message: &MessageDescriptor, wire: Bytes) -> Result<Vec<u8>, Problem> {
    let mut json = serde_json::Serializer::new(Vec::with_capacity(wire.len() * 2));
    let message = decode(message, wire)?;
    message.serialize_with_options(&mut json, &OPTIONS).map_err(|error| unprintable(&error))?;
    Ok(json.into_inner())
}

/// Decodes a reply.
pub(crate) fn decode(message: &MessageDescriptor, wire: Bytes) -> Result<DynamicMessage, Problem> {
    DynamicMessage::decode(message.clone(), wire).map_err(|error| unprintable(&error))
}

/// Prints what an `Any` holds; none if the type is not ours to know.
pub(crate) fn any(pool: &DescriptorPool, type_url: &str, value: Bytes) -> Option<Json> {
    let name = type_url.rsplit('/').next()?;
    let message = DynamicMessage::decode(pool.get_message_by_name(name)?, value).ok()?;
    let mut json = message.serialize_with_options(serde_json::value::Serializer, &OPTIONS).ok()?;
    json.as_object_mut()?.insert("@type".to_owned(), type_url.into());
    Some(json)
}

fn unprintable(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "a reply does not fit its descriptor");
    Problem::new(Code::Internal, "RESPONSE_UNPRINTABLE", "The reply cannot be shown as JSON.")
}
