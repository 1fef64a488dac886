//! Bounds how many calls are at work: altogether, and of each member, tenant and address. More are asked to come back at once
//! instead of waiting until nobody is served.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::call::caller::CallInfo;
use crate::layers::recognize::Who;
use crate::shares::Places;

/// Whether the server can serve does not depend on how many ask it to.
const FREE: &str = "/grpc.health.v1.Health/Check";

pub(crate) async fn layer(State(places): State<Places>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<CallInfo>().and_then(|info| info.client_address);
    let place = match request.extensions().get::<Who>() {
        _ if request.uri().path() == FREE => return next.run(request).await,
        Some(Who::Known { principal, .. }) => places.of_member(principal.access.tenant, principal.access.user),
        Some(Who::Anybody) | None => places.of_stranger(client),
    };
    match place {
        Ok(_place) => next.run(request).await,
        Err(error) => super::reply(error),
    }
}
