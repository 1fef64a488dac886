//! Access tokens (Ed25519 JWTs) and refresh tokens (opaque).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use virtualstack_model::iam::user::SUPPORT;
use virtualstack_model::id::{AccountId, SessionId, TenantId};
use virtualstack_model::{Error, Result};

use crate::auth::signing_keys::Keys;
use crate::config::Config;

/// Type of our access tokens (RFC 9068), so that no other token of ours is ever taken for one.
const TYPE: &str = "at+jwt";

/// What an access token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    aud: String,
    exp: i64,
    iat: i64,
    jti: Uuid,
    sub: AccountId,
    pub(crate) sid: SessionId,
    pub(crate) tid: TenantId,
    /// Who really acts, where the tenant is not theirs (RFC 8693, section 4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act: Option<Act>,
    /// The role that they have there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
}

impl Claims {
    /// When the token ends.
    pub(crate) fn expires_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.exp, 0).unwrap_or_default()
    }
}

/// Who really acts.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Act {
    sub: AccountId,
}

/// What an access token is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    pub(crate) tenant: TenantId,
    /// Whether it is an operator's in a tenant that is not theirs.
    pub(crate) support: bool,
}

/// Makes and verifies tokens.
#[derive(Clone)]
pub(crate) struct Tokens {
    keys: Keys,
    issuer: String,
    audience: String,
    seconds: i64,
    /// Tokens whose signature was good, by digest, with the id of the key.
    seen: Arc<Cache<[u8; 32], (Claims, String)>>,
}

/// Verified tokens kept at most.
const SEEN: usize = 10_000;

impl Tokens {
    pub(crate) fn new(keys: Keys, config: &Config) -> Self {
        Self {
            keys,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            seconds: config.access_token_seconds,
            seen: Arc::new(Cache::new(SEEN)),
        }
    }

    /// Seconds that an access token is good for.
    pub(crate) fn seconds(&self) -> i64 {
        self.seconds
    }

    /// An access token of a session for a tenant.
    pub(crate) fn sign(&self, grant: Grant) -> Result<String> {
        let Grant { account, session, tenant, support } = grant;
        let (kid, key) = self.keys.signing();
        let now = Utc::now().timestamp();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            exp: now + self.seconds,
            iat: now,
            jti: Uuid::now_v7(),
            sub: account,
            sid: session,
            tid: tenant,
            act: support.then_some(Act { sub: account }),
            role: support.then(|| SUPPORT.to_owned()),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(kid);
        jsonwebtoken::encode(&header, &claims, &key).map_err(Error::internal)
    }

    /// What a token says, if it is one of ours and still good. Its signature is looked at once, as long as the key is
    /// good that made it.
    pub(crate) async fn verify(&self, token: &str) -> Result<Claims> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some((claims, kid)) = self.seen.get(&digest)
            && claims.exp > Utc::now().timestamp()
            && self.keys.knows(&kid)
        {
            return Ok(claims);
        }
        let (claims, kid) = self.check(token).await?;
        self.seen.insert(digest, (claims.clone(), kid));
        Ok(claims)
    }

    async fn check(&self, token: &str) -> Result<(Claims, String)> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) {
            return Err(invalid());
        }
        let kid = header.kid.ok_or_else(invalid)?;
        let key = self.keys.verifying(&kid).await?.ok_or_else(invalid)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        // The others, jti among them, are required by their types.
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        validation.leeway = 0;
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &validation);
        decoded.map(|token| (token.claims, kid)).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => expired(),
            _ => invalid(),
        })
    }
}

/// A token that was good.
pub(crate) fn expired() -> Error {
    Error::unauthenticated("TOKEN_EXPIRED", "the access token has expired; refresh it")
}

fn invalid() -> Error {
    Error::unauthenticated("TOKEN_INVALID", "the access token is not valid")
}

/// A new refresh token: 256 random bits behind a prefix that secret scanners can know.
pub(crate) fn refresh_token() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    Ok(format!("vsr_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is kept of a refresh token.
pub(crate) fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}
