//! Who calls, and may they: the policy of the method decides, and what it does not know nobody may call.
//!
//! It stands in front of the codec, so whoever is not let in learns nothing from validation either.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::request::Parts;
use virtualstack_model::access::Credential;
use virtualstack_model::{Error, Result};
use virtualstack_proto::Scope;
use virtualstack_store::principals::{self, Principal};
use virtualstack_store::{Store, SystemPurpose};

use crate::api_keys;
use crate::caller::{CallInfo, Caller};
use crate::keys::JWKS_PATH;
use crate::last_use::LastUse;
use crate::tokens::Tokens;

/// Plain HTTP paths beside the rpcs; public by nature.
const PUBLIC_DOCUMENTS: [&str; 1] = [JWKS_PATH];

/// Header and metadata key of API keys.
const API_KEY: &str = "x-api-key";

/// What decides.
#[derive(Clone)]
pub(crate) struct Authority {
    pub(crate) store: Store,
    pub(crate) tokens: Tokens,
    pub(crate) last_use: LastUse,
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
        if policy.session_only && matches!(principal.credential, Credential::ApiKey { .. }) {
            return Err(Error::denied("SESSION_NEEDED", "API keys cannot do this; sign in"));
        }
        if !principal.may_come_from(info.client_address) {
            return Err(Error::denied("ADDRESS_NOT_ALLOWED", "the API key may not be used from this address"));
        }
        principal.access.authorize(policy.permission)?;
        if let Credential::ApiKey { id, .. } = &principal.credential {
            self.last_use.note(*id, info.client_address);
        }
        Ok(Some(Caller { principal, info }))
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>> {
        let principal = match credential(headers)? {
            Presented::Token(token) => {
                let claims = self.tokens.verify(token).await?;
                self.store
                    .system(SystemPurpose::Authenticate, async |tx| {
                        principals::of_session(tx, claims.sid, claims.tid).await
                    })
                    .await?
            }
            Presented::Key(key) => {
                self.store
                    .system(SystemPurpose::Authenticate, async |tx| {
                        principals::of_key(tx, &key.public_id, &key.digest).await
                    })
                    .await?
            }
        };
        Ok(Arc::new(principal))
    }
}

/// What a request is authenticated by.
enum Presented<'h> {
    Token(&'h str),
    Key(api_keys::Presented),
}

/// The one credential of a request: `authorization: Bearer …` or `x-api-key: vsk_…`.
fn credential(headers: &HeaderMap) -> Result<Presented<'_>> {
    let missing = || {
        Error::unauthenticated(
            "CREDENTIALS_MISSING",
            "an access token (authorization: Bearer …) or an API key (x-api-key: vsk_…) is needed",
        )
    };
    let tokens = headers.get_all(http::header::AUTHORIZATION).iter().map(|value| (false, value));
    let mut sent = tokens.chain(headers.get_all(API_KEY).iter().map(|value| (true, value)));
    let (is_key, value) = sent.next().ok_or_else(missing)?;
    if sent.next().is_some() {
        return Err(Error::unauthenticated("CREDENTIALS_AMBIGUOUS", "there is more than one credential; send one"));
    }
    let value = value.to_str().map_err(|_| missing())?;
    if is_key {
        let invalid = || Error::unauthenticated("KEY_INVALID", "the API key is not valid");
        return api_keys::parse(value.trim()).map(Presented::Key).ok_or_else(invalid);
    }
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(Presented::Token(token.trim()))
}
