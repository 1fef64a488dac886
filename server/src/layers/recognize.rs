//! Who calls, by what the headers say: before a place is taken, and before the body is read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use virtualstack_model::{Error, Result};
use virtualstack_proto::{Policy, Scope};

use crate::auth::journal::{Journal, Whose};
use crate::auth::key_format;
use crate::auth::limits::Limits;
use crate::auth::principals::{Presented, Principal, Principals};
use crate::auth::signing_keys::JWKS_PATH;
use crate::call::caller::CallInfo;

/// Plain HTTP paths beside the rpcs; public by nature.
const PUBLIC_DOCUMENTS: [&str; 1] = [JWKS_PATH];

/// Header and metadata key of API keys.
const API_KEY: &str = "x-api-key";

/// Who calls, for the layers behind; they decide whether that is enough.
#[derive(Clone)]
pub(crate) enum Who {
    /// Somebody of whom nothing is asked.
    Anybody,
    /// A principal, perhaps as it was cached.
    Known { principal: Arc<Principal>, cached: bool, policy: Policy },
}

/// What recognizes.
pub(crate) struct Recognizer {
    pub(crate) principals: Principals,
    pub(crate) limits: Limits,
    pub(crate) journal: Journal,
}

pub(crate) async fn layer(State(recognizer): State<Arc<Recognizer>>, mut request: Request, next: Next) -> Response {
    let Some(info) = request.extensions().get::<CallInfo>() else {
        return super::reply(Error::internal("the request id layer is missing"));
    };
    let who = match policy(request.uri().path()) {
        Ok(None) => Who::Anybody,
        Ok(Some(policy)) => match recognizer.recognize(request.headers(), info.client_address, policy).await {
            Ok(known) => known,
            Err(error) => {
                recognizer.note(request.headers(), info, &error);
                return super::reply(error);
            }
        },
        Err(error) => return super::reply(error),
    };
    request.extensions_mut().insert(who);
    next.run(request).await
}

/// The policy of a method; None for what is public. What nobody knows nobody may call.
fn policy(path: &str) -> Result<Option<Policy>> {
    if PUBLIC_DOCUMENTS.contains(&path) {
        return Ok(None);
    }
    let policy = virtualstack_proto::policy(path).ok_or_else(|| Error::Unimplemented {
        reason: "METHOD_UNKNOWN",
        message: "there is no such method".to_owned(),
    })?;
    Ok(Some(policy).filter(|policy| policy.scope != Scope::Public))
}

impl Recognizer {
    /// Writes down what was no credential of anybody: where a key is, or was, a tenant's, in its log. Calls without a credential
    /// and tokens that have run out are nothing to tell.
    fn note(&self, headers: &HeaderMap, info: &CallInfo, error: &Error) {
        if !["KEY_INVALID", "TOKEN_INVALID", "RATE_LIMITED"].contains(&error.reason()) {
            return;
        }
        let key = match credential(headers) {
            Ok(Presented::Key(key)) => Some(key.public_id),
            _ => None,
        };
        self.journal.record(key.map_or(Whose::Nobody, Whose::Key), info.failed(error.reason()));
    }

    async fn recognize(&self, headers: &HeaderMap, client: Option<std::net::IpAddr>, policy: Policy) -> Result<Who> {
        let presented = credential(headers)?;
        let cached = self.principals.cached(&presented).await;
        if let Ok(Some(principal)) = cached {
            return Ok(Who::Known { principal, cached: true, policy });
        }
        // Whoever makes credentials up is stopped before the database has to tell.
        let guess = self.limits.credential(client)?;
        cached?;
        let principal = self.principals.read(&presented).await?;
        guess.was_right();
        Ok(Who::Known { principal, cached: false, policy })
    }
}

/// The one credential of a request: `authorization: Bearer …` or `x-api-key: vsk_…`.
pub(crate) fn credential(headers: &HeaderMap) -> Result<Presented<'_>> {
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
        return key_format::parse(value.trim()).map(Presented::Key).ok_or_else(invalid);
    }
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(Presented::Token(token.trim().into()))
}
