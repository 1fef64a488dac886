//! Bounds how many calls are at work. More are told to come back at once instead of waiting until nobody is served.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;
use virtualstack_model::Error;

pub(crate) async fn layer(State(slots): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_slot) = slots.try_acquire() else {
        return super::reply(Error::Unavailable {
            reason: "OVERLOADED",
            message: "the server is at its limit; try again".to_owned(),
            retry_after: Duration::from_secs(1),
            source: None,
        });
    };
    next.run(request).await
}
