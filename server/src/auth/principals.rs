//! Who a credential is, cached. Every transaction checks again what a decision rests on, so nothing here is the truth:
//! an entry that has become wrong costs a second look, never a wrong answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use quick_cache::sync::Cache;
use virtualstack_model::Result;
use virtualstack_model::credential::Credential;
use virtualstack_model::id::{SessionId, TenantId};
use virtualstack_store::changes::notify::AccessEvent;
use virtualstack_store::iam::principals;
pub(crate) use virtualstack_store::iam::principals::Principal;
use virtualstack_store::{Store, SystemPurpose, SystemScope};

use crate::auth::key_format;
use crate::auth::tokens::Tokens;

/// Principals kept at most.
const CAPACITY: usize = 10_000;

/// How long one is kept at most, whatever we hear.
const TTL: Duration = Duration::from_secs(60);

/// What a request is authenticated by.
pub(crate) enum Presented<'h> {
    Token(Cow<'h, str>),
    Key(key_format::Presented),
}

impl Presented<'_> {
    /// The same, for a call that outlives its headers.
    pub(crate) fn into_owned(self) -> Presented<'static> {
        match self {
            Self::Token(token) => Presented::Token(token.into_owned().into()),
            Self::Key(key) => Presented::Key(key),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Session(SessionId, TenantId),
    ApiKey(key_format::Presented),
}

/// Resolves credentials.
#[derive(Clone)]
pub(crate) struct Principals {
    store: Store,
    tokens: Tokens,
    cache: Arc<Cache<Key, (Arc<Principal>, Instant)>>,
}

impl Principals {
    pub(crate) fn new(store: Store, tokens: Tokens) -> Self {
        Self { store, tokens, cache: Arc::new(Cache::new(CAPACITY)) }
    }

    /// Who it is as far as that is known here; None where the database has to tell.
    pub(crate) async fn cached(&self, presented: &Presented<'_>) -> Result<Option<Arc<Principal>>> {
        let cached = self.cache.get(&self.key(presented).await?);
        Ok(cached.filter(|(_, kept)| kept.elapsed() < TTL).map(|(principal, _)| principal))
    }

    /// Who it is, as the database says now.
    pub(crate) async fn read(&self, presented: &Presented<'_>) -> Result<Arc<Principal>> {
        let key = self.key(presented).await?;
        // Taken out before it is read: what is heard meanwhile must not be undone.
        self.cache.remove(&key);
        let kept = Instant::now();
        let read = self.store.system(system(), async |tx| match &key {
            Key::Session(session, tenant) => principals::of_session(tx, *session, *tenant).await,
            Key::ApiKey(key) => principals::of_key(tx, &key.public_id, &key.digest).await,
        });
        let principal = Arc::new(read.await?);
        self.cache.insert(key, (Arc::clone(&principal), kept));
        Ok(principal)
    }

    async fn key(&self, presented: &Presented<'_>) -> Result<Key> {
        Ok(match presented {
            Presented::Token(token) => {
                let claims = self.tokens.verify(token).await?;
                Key::Session(claims.sid, claims.tid)
            }
            Presented::Key(key) => Key::ApiKey(key.clone()),
        })
    }

    /// When a credential ends by what it says itself: an access token does, an API key does not.
    pub(crate) async fn expires_at(&self, presented: &Presented<'_>) -> Result<Option<DateTime<Utc>>> {
        match presented {
            Presented::Token(token) => Ok(Some(self.tokens.verify(token).await?.expires_at())),
            Presented::Key(_) => Ok(None),
        }
    }

    /// Forgets what may have changed.
    pub(crate) fn forget(&self, event: AccessEvent) {
        let changed = |principal: &Principal| match event {
            AccessEvent::Tenant(tenant) => principal.access.tenant == tenant,
            AccessEvent::Session(session) => principal.credential.session() == Some(session),
            AccessEvent::Key(key) => matches!(principal.credential, Credential::ApiKey { id, .. } if id == key),
            AccessEvent::SigningKeys | AccessEvent::Unknown => true,
        };
        self.cache.retain(|_, (principal, _)| !changed(principal));
    }
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "nobody is known before a principal is found")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::Authenticate)
}
