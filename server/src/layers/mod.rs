//! What stands in front of every rpc, one file per layer. The order is in [`crate::server`].

pub(crate) mod admission;
pub(crate) mod authorize;
pub(crate) mod body;
pub(crate) mod broken_off;
pub(crate) mod call_info;
pub(crate) mod deadline;
pub(crate) mod panics;
pub(crate) mod rate_limit;
pub(crate) mod recognize;
pub(crate) mod refusals;
mod unread;
pub(crate) mod web_text;

use axum::response::Response;
use virtualstack_model::Error;

use crate::call::status;

/// An error as a gRPC reply.
pub(crate) fn reply(error: Error) -> Response {
    status::from_error(error).into_http()
}
