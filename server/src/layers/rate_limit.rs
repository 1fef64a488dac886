//! How often one may call: by address what needs no credential, by credential the rest.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::auth::limits::Limits;
use crate::call::caller::{CallInfo, Caller};

/// In front of authorization. Services count what is guessable by account, too.
pub(crate) async fn addresses(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if virtualstack_proto::policy(request.uri().path()).is_some_and(|policy| policy.guessable) {
        let client = request.extensions().get::<CallInfo>().and_then(|info| info.client_address);
        if let Err(error) = limits.address(client).await {
            return super::reply(error);
        }
    }
    next.run(request).await
}

/// Behind authorization, which has told who calls; nobody does where everybody may.
pub(crate) async fn principals(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    if let Some(Err(error)) = caller.map(|caller| limits.principal(caller.credential())) {
        return super::reply(error);
    }
    next.run(request).await
}
