//! Bounds how many calls are at work: altogether, and of each member, tenant and address. More are asked to come back at once
//! instead of waiting until nobody is served.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::call::caller::CallInfo;
use crate::layers::recognize::Who;
use crate::shares::{Part, Places};

/// Whether the server can serve does not depend on how many ask it to.
const FREE: &str = "/grpc.health.v1.Health/Check";

pub(crate) async fn layer(State(places): State<Places>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<CallInfo>().and_then(|info| info.client_address);
    let place = match request.extensions().get::<Who>() {
        _ if request.uri().path() == FREE => return next.run(request).await,
        // Streams of members have places of their own.
        Some(Who::Known { principal, .. }) => places.of_member(principal.access.tenant, principal.access.user),
        Some(Who::Anybody) | None => match places.of_stranger(client) {
            Ok(place) => return next.run(request).await.map(|body| Body::new(Held { body, _place: place })),
            Err(error) => Err(error),
        },
    };
    match place {
        Ok(_place) => next.run(request).await,
        Err(error) => super::reply(error),
    }
}

/// A reply to a stranger, who has a place until it has ended: it may be a stream, such as that of a health watch.
struct Held {
    body: Body,
    _place: Part,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
