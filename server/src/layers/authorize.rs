//! Who calls, and may they: the policy of the method decides, and what it does not know nobody may call.
//!
//! It stands in front of the codec, so whoever is not let in learns nothing from validation either.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::request::Parts;
use virtualstack_model::{Error, Result};
use virtualstack_proto::Scope;
use virtualstack_store::sessions::{self, Principal};
use virtualstack_store::{Store, SystemPurpose};

use crate::caller::{CallInfo, Caller};
use crate::keys::JWKS_PATH;
use crate::tokens::Tokens;

/// Plain HTTP paths beside the rpcs; public by nature.
const PUBLIC_DOCUMENTS: [&str; 1] = [JWKS_PATH];

/// What decides.
#[derive(Clone)]
pub(crate) struct Authority {
    pub(crate) store: Store,
    pub(crate) tokens: Tokens,
}

pub(crate) async fn layer(State(authority): State<Authority>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match authority.decide(&head).await {
        Ok(caller) => {
            if let Some(caller) = caller {
                head.extensions.insert(caller);
            }
        }
        Err(error) => return super::reply(error),
    }
    next.run(Request::from_parts(head, body)).await
}

impl Authority {
    /// The caller, or nobody for what is public.
    async fn decide(&self, request: &Parts) -> Result<Option<Caller>> {
        let path = request.uri.path();
        if PUBLIC_DOCUMENTS.contains(&path) {
            return Ok(None);
        }
        let policy = virtualstack_proto::policy(path).ok_or_else(|| Error::Unimplemented {
            reason: "METHOD_UNKNOWN",
            message: "there is no such method".to_owned(),
        })?;
        if policy.scope == Scope::Public {
            return Ok(None);
        }
        let info = request.extensions.get::<CallInfo>().cloned();
        let info = info.ok_or_else(|| Error::internal("the request id layer is missing"))?;
        let principal = self.authenticate(&request.headers).await?;
        let caller = Caller { principal, info };
        if policy.permission.is_empty() || caller.holds(policy.permission) {
            return Ok(Some(caller));
        }
        Err(Error::denied("PERMISSION_MISSING", format!("this needs the permission {}", policy.permission)))
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal> {
        let claims = self.tokens.verify(bearer(headers)?).await?;
        self.store
            .system(SystemPurpose::Authenticate, async |tx| sessions::principal(tx, claims.sid, claims.tid).await)
            .await
    }
}

/// The access token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let missing =
        || Error::unauthenticated("CREDENTIALS_MISSING", "an access token is needed: authorization: Bearer …");
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(Error::unauthenticated("CREDENTIALS_AMBIGUOUS", "there is more than one authorization header"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(token.trim())
}
