//! Writes down who is turned away for calling too often, or with a token from a mail that is worth nothing. What a caller may
//! not do stands where that is decided, a login that fails where the account is known.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use tonic::Status;
use tonic_types::StatusExt as _;
use virtualstack_model::Error;
use virtualstack_model::log::{Audit, Outcome};

use crate::auth::journal::{Journal, Whose};
use crate::call::caller::CallInfo;
use crate::layers::recognize::Who;

/// Reasons of refusals that are told here, by their codes: FAILED_PRECONDITION and RESOURCE_EXHAUSTED.
const TOLD: [(&str, &[&str]); 2] =
    [("9", &["INVITATION_INVALID", "RESET_TOKEN_INVALID"]), ("8", &["RATE_LIMITED", "TOO_MANY_CALLS"])];

pub(crate) async fn layer(State(journal): State<Journal>, request: Request, next: Next) -> Response {
    let Some(info) = request.extensions().get::<CallInfo>().cloned() else {
        return super::reply(Error::internal("the request id layer is missing"));
    };
    let known = match request.extensions().get::<Who>() {
        Some(Who::Known { principal, .. }) => Some(principal.clone()),
        _ => None,
    };
    let response = next.run(request).await;
    if let Some(reason) = told(response.headers()) {
        match known {
            Some(known) => {
                let audit = info.audit(known.actor(), "");
                let audit = Audit { outcome: Outcome::Denied(reason.into()), ..audit };
                journal.record(Whose::Tenant(known.access.tenant), audit);
            }
            None => journal.record(Whose::Nobody, info.failed(reason)),
        }
    }
    response
}

fn told(headers: &HeaderMap) -> Option<String> {
    let code = headers.get(Status::GRPC_STATUS)?;
    let (_, reasons) = TOLD.iter().find(|(told, _)| code == told)?;
    let reason = Status::from_header_map(headers)?.get_details_error_info()?.reason;
    reasons.contains(&reason.as_str()).then_some(reason)
}
