//! Who is calling: what the layers found out, for the handlers.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use tonic::Extensions;
use virtualstack_model::credential::Credential;
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::{SessionId, TenantId, UserId};
use virtualstack_model::log::{Actor, Audit, Outcome};
use virtualstack_model::{Error, Result};
use virtualstack_proto::{Policy, Scope};
use virtualstack_store::iam::principals::{self, Principal};
use virtualstack_store::{AccountScope, SystemPurpose, SystemScope, TenantScope, TenantTx, Write};

/// What is known of every call, whoever makes it.
#[derive(Clone, Debug)]
pub(crate) struct CallInfo {
    pub(crate) request_id: String,
    pub(crate) client_address: Option<IpAddr>,
    pub(crate) method: String,
    pub(crate) traceparent: String,
}

impl CallInfo {
    /// A row of what somebody could not do who has not said who they are, or said it wrongly.
    pub(crate) fn failed(&self, reason: impl Into<Cow<'static, str>>) -> Audit {
        Audit { outcome: Outcome::Failed(reason.into()), ..self.audit(Actor::Nobody, "") }
    }

    pub(crate) fn audit(&self, actor: Actor, resource: impl Into<String>) -> Audit {
        Audit {
            action: self.method.clone(),
            actor,
            resource: resource.into(),
            request_id: self.request_id.clone(),
            client_address: self.client_address,
            traceparent: Some(self.traceparent.clone()),
            outcome: Outcome::Done,
        }
    }
}

/// A verified caller whom the policy of the method lets in. Only the authorization layer makes one; what a handler can do
/// for them is said by the type of its call.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) info: CallInfo,
    pub(crate) policy: Policy,
}

impl Caller {
    #[expect(clippy::disallowed_methods, reason = "a Caller exists only after authorization")]
    fn scope(&self) -> TenantScope {
        let Principal { access, credential, epoch, .. } = &*self.principal;
        TenantScope::new(access.tenant, access.account, access.user, credential.clone(), *epoch)
    }

    /// What the caller may do.
    pub(crate) fn access(&self) -> &Access {
        &self.principal.access
    }

    /// The member whom the caller acts for.
    pub(crate) fn user(&self) -> UserId {
        self.principal.access.user
    }

    /// Whether both rest on one decision about the caller's access.
    pub(crate) fn is_as_decided_for(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.principal, &other.principal)
    }

    /// Id of the tenant that the credential is for.
    pub(crate) fn tenant_id(&self) -> TenantId {
        self.principal.access.tenant
    }

    /// The session, which rpcs that API keys may not call rely on.
    pub(crate) fn session(&self) -> Result<SessionId> {
        let none =
            || Error::internal("an rpc that needs a session is open to API keys: set session_only in its policy");
        self.principal.credential.session().ok_or_else(none)
    }

    /// Whether it is an API key, which is good for its own tenant only.
    pub(crate) fn is_api_key(&self) -> bool {
        matches!(self.principal.credential, Credential::ApiKey { .. })
    }

    pub(crate) fn holds(&self, permission: &str) -> bool {
        self.principal.access.allows(permission)
    }

    /// Who acts, for audit and change rows.
    pub(crate) fn actor(&self) -> Actor {
        self.scope().actor()
    }

    /// An audit row of what the caller does.
    pub(crate) fn audit(&self, resource: impl Into<String>) -> Audit {
        self.info.audit(self.actor(), resource)
    }
}

/// The caller of an rpc of scope TENANT.
#[derive(Clone, Debug)]
pub(crate) struct TenantCaller(Caller);

impl TenantCaller {
    /// The caller's tenant.
    pub(crate) fn tenant(&self) -> TenantScope {
        self.0.scope()
    }

    /// Decides anew, in a transaction that changes access: see [`principals::reauthorize`]. The transaction keeps what came of
    /// it.
    pub(crate) async fn decide_again(&self, tx: &mut TenantTx<Write>) -> Result<Access> {
        let access = principals::reauthorize(tx, &self.tenant()).await?;
        access.authorize(self.0.policy.permission)?;
        Ok(access)
    }
}

/// The caller of an rpc of scope ACCOUNT.
#[derive(Clone, Debug)]
pub(crate) struct AccountCaller(Caller);

impl AccountCaller {
    /// The caller's account.
    pub(crate) fn account(&self) -> AccountScope {
        #[expect(clippy::disallowed_methods, reason = "a Caller exists only after authorization")]
        AccountScope::new(self.0.scope())
    }

    /// The tenant that the credential is for: it is the caller's own, too.
    pub(crate) fn own_tenant(&self) -> TenantScope {
        self.0.scope()
    }

    /// The caller as an operator of the platform, if they hold a permission of the platform's.
    pub(crate) fn as_operator(&self, permission: &'static str) -> Option<PlatformCaller> {
        let of_platform = permission.starts_with("platform:");
        (of_platform && self.0.holds(permission)).then(|| PlatformCaller(self.0.clone()))
    }
}

/// The caller of an rpc of scope PLATFORM.
#[derive(Clone, Debug)]
pub(crate) struct PlatformCaller(Caller);

impl PlatformCaller {
    /// Leave to work across tenants.
    #[expect(clippy::disallowed_methods, reason = "the policy of the rpc has let an operator in")]
    pub(crate) fn platform(&self) -> SystemScope {
        SystemScope::new(SystemPurpose::Platform(self.0.scope()))
    }

    /// Who asks, for the ids of their requests.
    pub(crate) fn asker(&self) -> TenantScope {
        self.0.scope()
    }

    /// An audit row of what the caller does to a tenant as an operator of the platform.
    pub(crate) fn audit(&self, resource: impl Into<String>) -> Audit {
        let Principal { access, credential, .. } = &*self.0.principal;
        let (account, user, credential) = (access.account, access.user, credential.clone());
        self.0.info.audit(Actor::Operator { account, user, credential }, resource)
    }
}

/// Whoever calls an rpc that needs no credential.
#[derive(Clone, Debug)]
pub(crate) struct PublicCaller {
    pub(crate) info: CallInfo,
}

impl PublicCaller {
    /// Leave to work across tenants: nobody is known, so there is no scope to work in.
    #[expect(clippy::disallowed_methods, reason = "the policy of the rpc lets everybody in")]
    pub(crate) fn system(&self, purpose: SystemPurpose) -> SystemScope {
        SystemScope::new(purpose)
    }
}

macro_rules! known {
    ($($caller:ident: $scope:ident;)*) => {
        $(impl Deref for $caller {
            type Target = Caller;

            fn deref(&self) -> &Caller {
                &self.0
            }
        }

        impl Entry for $caller {
            fn enter(extensions: &Extensions) -> Result<Self> {
                let caller = extensions.get::<Caller>().cloned();
                Self::let_in(caller.ok_or_else(|| Error::internal("the authorization layer has let nobody in"))?)
            }
        }

        impl $caller {
            /// The caller of an rpc of this scope.
            pub(crate) fn let_in(caller: Caller) -> Result<Self> {
                if caller.policy.scope == Scope::$scope {
                    Ok(Self(caller))
                } else {
                    Err(Error::internal("the authorization layer has let the caller in for another scope"))
                }
            }
        })*
    };
}

known! {
    TenantCaller: Tenant;
    AccountCaller: Account;
    PlatformCaller: Platform;
}

/// What the layers leave with a request.
pub(crate) trait Entry: Sized {
    /// Who makes the call.
    fn enter(extensions: &Extensions) -> Result<Self>;
}

impl Entry for PublicCaller {
    fn enter(extensions: &Extensions) -> Result<Self> {
        let info = extensions.get::<CallInfo>().cloned();
        Ok(Self { info: info.ok_or_else(|| Error::internal("the request id layer is missing"))? })
    }
}
