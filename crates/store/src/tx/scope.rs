//! Who a transaction works for.
//!
//! A scope can be made only from a verified credential or for a purpose that is written down: its constructors are
//! disallowed methods, and the few places that may call them say why.

use virtualstack_model::credential::Credential;
use virtualstack_model::id::{AccountId, SessionId, TenantId, UserId};
use virtualstack_model::log::Actor;

/// A member at work in their tenant, and the decision this rests on.
#[derive(Clone, Debug)]
pub struct TenantScope {
    pub(crate) tenant: TenantId,
    pub(crate) account: AccountId,
    pub(crate) user: UserId,
    pub(crate) credential: Credential,
    pub(crate) epoch: i64,
}

impl TenantScope {
    /// For the layer that has verified the credential and decided the access, which rests on `epoch`.
    #[must_use]
    pub fn new(tenant: TenantId, account: AccountId, user: UserId, credential: Credential, epoch: i64) -> Self {
        Self { tenant, account, user, credential, epoch }
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The member.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user
    }

    /// The member, for audit and change rows.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::User { account: self.account, user: Some(self.user), credential: Some(self.credential.clone()) }
    }
}

/// An account at work on what is its own. It rests on the same decision as a [`TenantScope`], since every access token
/// belongs to a tenant.
#[derive(Clone, Debug)]
pub struct AccountScope {
    pub(crate) access: TenantScope,
}

impl AccountScope {
    /// For the layer that has verified the credential.
    #[must_use]
    pub fn new(access: TenantScope) -> Self {
        Self { access }
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.access.account
    }

    /// The session; none where the credential is an API key.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.access.credential.session()
    }

    /// The tenant that the access token is for.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.access.tenant
    }

    /// The account as a member of that tenant.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.access.user
    }

    /// The member, for audit rows.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.access.actor()
    }
}

/// Leave to work across tenants. Without one there is no transaction that does.
#[derive(Clone, Debug)]
pub struct SystemScope {
    pub(crate) purpose: SystemPurpose,
}

impl SystemScope {
    /// For the few places that work across tenants: calls that the policy of their rpc lets do so, and the background
    /// parts of a server or worker.
    #[must_use]
    pub fn new(purpose: SystemPurpose) -> Self {
        Self { purpose }
    }
}

/// Why something is done across tenants.
#[derive(Clone, Debug)]
pub enum SystemPurpose {
    /// Sign in, refresh, resolve a principal: nobody is known yet.
    Authenticate,
    /// Count calls against what all servers share.
    RateLimit,
    /// Read and make signing keys.
    SigningKeys,
    /// Accept an invitation: who has its token is not a member yet.
    AcceptInvitation,
    /// Note when API keys of any tenant were last used.
    KeyUse,
    /// Set a new password by a token from a mail.
    ResetPassword,
    /// End mails of a kind by a token from a mail.
    Unsubscribe,
    /// Have the desk read, since it says that something has changed there.
    DeskWebhook,
    /// Write down who was turned away.
    Audit,
    /// Operators at work on the platform; the access is checked again as for a tenant's.
    Platform(TenantScope),
    /// The first admin, from the command line or the first start.
    Bootstrap,
    /// Look which tenants' change logs have grown, to wake their watches.
    Watch,
    /// The worker publishes what the hypervisor has.
    Inventory,
    /// The worker looks for what is due: purges, old request ids.
    Reconcile,
}

impl SystemPurpose {
    /// What metrics call it, where no call is at work.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::RateLimit => "rate_limit",
            Self::SigningKeys => "signing_keys",
            Self::AcceptInvitation => "accept_invitation",
            Self::KeyUse => "key_use",
            Self::ResetPassword => "reset_password",
            Self::Unsubscribe => "unsubscribe",
            Self::DeskWebhook => "desk_webhook",
            Self::Audit => "audit",
            Self::Platform(_) => "platform",
            Self::Bootstrap => "bootstrap",
            Self::Watch => "watch",
            Self::Inventory => "inventory",
            Self::Reconcile => "reconcile",
        }
    }
}
