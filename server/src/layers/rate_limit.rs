//! How often one may call: by address what needs no credential, by credential the rest.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::auth::limits::Limits;
use crate::call::caller::{CallInfo, Caller};

/// Public rpcs by which one could guess at passwords and tokens. Their services count them by account, too.
const GUESSES: [&str; 6] = [
    "/virtualstack.iam.v1.AuthService/Login",
    "/virtualstack.iam.v1.AuthService/Refresh",
    "/virtualstack.iam.v1.AuthService/RequestPasswordReset",
    "/virtualstack.iam.v1.AuthService/ResetPassword",
    "/virtualstack.iam.v1.InvitationService/AcceptInvitation",
    "/virtualstack.iam.v1.InvitationService/VerifyInvitation",
];

/// In front of authorization.
pub(crate) async fn addresses(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if GUESSES.contains(&request.uri().path()) {
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
