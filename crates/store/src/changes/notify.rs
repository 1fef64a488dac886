//! What servers hear: of changed access, hints to forget what they have cached, and of grown change logs and of what members
//! are told, hints for watches to look. The check that opens each transaction is the truth; without these hints caches are merely wrong more often, and
//! found out, and watches a little later.

use tokio_util::sync::CancellationToken;
use virtualstack_model::id::{ApiKeyId, SessionId, TenantId};
use virtualstack_queue::Notification;

use crate::tx::store::Store;

/// Channels that triggers notify.
const ACCESS: &str = "virtualstack_access";
const CHANGES: &str = "virtualstack_changes";
const TOLD: &str = "virtualstack_told";

/// Something that may be cached has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessEvent {
    /// Roles, memberships or the state of a tenant.
    Tenant(TenantId),
    Session(SessionId),
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

/// Something that servers hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Access(AccessEvent),
    /// A tenant's change log has grown; that of any tenant, where it is not known which.
    Changes(Option<TenantId>),
    /// Members of a tenant, or of any, are told something else.
    Told(Option<TenantId>),
}

impl Heard {
    fn parse(channel: &str, payload: &str) -> Self {
        match channel {
            CHANGES => Self::Changes(payload.parse().ok()),
            TOLD => Self::Told(payload.parse().ok()),
            _ => Self::Access(AccessEvent::parse(payload)),
        }
    }
}

impl Store {
    /// Tells `on` of changed access and grown change logs until `stop`, all over one connection.
    pub async fn listen(&self, stop: CancellationToken, mut on: impl FnMut(Heard) + Send) {
        let tell = |heard: Option<Notification<'_>>| match heard {
            Some((channel, payload)) => on(Heard::parse(channel, payload)),
            None => {
                let all = [Heard::Access(AccessEvent::Unknown), Heard::Changes(None), Heard::Told(None)];
                all.into_iter().for_each(&mut on);
            }
        };
        virtualstack_queue::listen(self.listen_url(), &[ACCESS, CHANGES, TOLD], stop, tell).await;
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
        assert_eq!(Heard::parse(CHANGES, &tenant.to_string()), Heard::Changes(Some(tenant)));
        assert_eq!(Heard::parse(CHANGES, "of whom"), Heard::Changes(None));
        assert_eq!(Heard::parse(TOLD, &tenant.to_string()), Heard::Told(Some(tenant)));
        assert_eq!(Heard::parse(TOLD, ""), Heard::Told(None));
        assert_eq!(Heard::parse(ACCESS, "signing_keys"), Heard::Access(AccessEvent::SigningKeys));
    }
}
