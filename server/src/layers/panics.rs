//! A panic costs one call, not the connection: it is logged and answered as INTERNAL.

use std::any::Any;

use axum::response::Response;
use virtualstack_model::Error;

/// For tower-http's catch-panic layer.
pub(crate) fn reply(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default();
    super::reply(Error::internal(format!("panic: {text}")))
}
