//! What servers hear of changed access: hints to forget what they have cached. The check that opens each transaction is
//! the truth; without these hints caches are merely wrong more often, and found out.

use tokio_util::sync::CancellationToken;
use virtualstack_model::id::{ApiKeyId, SessionId, TenantId};

use crate::db::Store;

/// Something that may be cached has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessEvent {
    /// Roles, memberships or the state of a tenant.
    Tenant(TenantId),
    /// A session has ended.
    Session(SessionId),
    /// An API key.
    Key(ApiKeyId),
    /// The keys that access tokens are signed with.
    SigningKeys,
    /// Some of these, unheard: the connection was down, or a newer version speaks.
    Unknown,
}

impl AccessEvent {
    fn parse(payload: &str) -> Self {
        match payload.split_once(' ') {
            Some(("tenant", id)) => id.parse().map_or(Self::Unknown, Self::Tenant),
            Some(("session", id)) => id.parse().map_or(Self::Unknown, Self::Session),
            Some(("key", id)) => id.parse().map_or(Self::Unknown, Self::Key),
            None if payload == "signing_keys" => Self::SigningKeys,
            _ => Self::Unknown,
        }
    }
}

impl Store {
    /// Tells `on` of changed access until `stop`.
    pub async fn listen_for_access(&self, stop: CancellationToken, mut on: impl FnMut(AccessEvent) + Send) {
        let tell = |payload: Option<&str>| on(payload.map_or(AccessEvent::Unknown, AccessEvent::parse));
        virtualstack_queue::listen(self.listen_url(), "virtualstack_access", stop, tell).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_unknown() {
        let tenant = TenantId::new();
        assert_eq!(AccessEvent::parse(&format!("tenant {tenant}")), AccessEvent::Tenant(tenant));
        assert_eq!(AccessEvent::parse("signing_keys"), AccessEvent::SigningKeys);
        for other in ["", "tenant", "tenant x", "role 1"] {
            assert_eq!(AccessEvent::parse(other), AccessEvent::Unknown, "{other}");
        }
    }
}
