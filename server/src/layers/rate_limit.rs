//! How often one may call: a member as such, whatever they may do; an address where no credential is needed and something
//! can be guessed.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::auth::limits::Limits;
use crate::call::caller::CallInfo;
use crate::layers::recognize::Who;

pub(crate) async fn layer(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let counted = match request.extensions().get::<Who>() {
        Some(Who::Known { principal, .. }) => limits.member(principal.access.user),
        // Services count what is guessable by account, too.
        _ if virtualstack_proto::policy(request.uri().path()).is_some_and(|policy| policy.guessable) => {
            let client = request.extensions().get::<CallInfo>().and_then(|info| info.client_address);
            limits.address(client).await
        }
        _ => Ok(()),
    };
    match counted {
        Ok(()) => next.run(request).await,
        Err(error) => super::reply(error),
    }
}
