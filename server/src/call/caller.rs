//! Who is calling: what the layers found out, for the handlers.

use std::net::IpAddr;
use std::sync::Arc;

use tonic::{Request, Status};
use uuid::Uuid;
use virtualstack_model::credential::Credential;
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::{SessionId, TenantId};
use virtualstack_model::log::{Actor, Audit, Outcome};
use virtualstack_model::{Error, Result};
use virtualstack_store::iam::principals::{self, Principal};
use virtualstack_store::{AccountScope, SystemPurpose, TenantScope, TenantTx, Write};

use crate::call::status;

/// What is known of every call, whoever makes it.
#[derive(Clone, Debug)]
pub(crate) struct CallInfo {
    pub(crate) request_id: String,
    pub(crate) client_address: Option<IpAddr>,
    pub(crate) method: String,
    pub(crate) traceparent: String,
}

impl CallInfo {
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let info = request.extensions().get::<Self>().cloned();
        info.ok_or_else(|| status::from_error(Error::internal("the request id layer is missing")))
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

/// A verified caller whom the policy of the method lets in. Only the authorization layer makes one.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) info: CallInfo,
    /// What the policy of the method asks for.
    pub(crate) permission: &'static str,
}

impl Caller {
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| status::from_error(Error::internal("the authorization layer has let nobody in")))
    }

    /// The caller's tenant, for rpcs of scope TENANT.
    #[expect(clippy::disallowed_methods, reason = "a Caller exists only after authorization")]
    pub(crate) fn tenant(&self) -> TenantScope {
        let Principal { access, credential, epoch, .. } = &*self.principal;
        TenantScope::new(access.tenant, access.account, access.user, credential.clone(), *epoch)
    }

    /// Id of the tenant that the credential is for.
    pub(crate) fn tenant_id(&self) -> TenantId {
        self.principal.access.tenant
    }

    /// The caller's account, for rpcs of scope ACCOUNT.
    #[expect(clippy::disallowed_methods, reason = "a Caller exists only after authorization")]
    pub(crate) fn account(&self) -> AccountScope {
        AccountScope::new(self.tenant())
    }

    /// The session, which rpcs that API keys may not call rely on.
    pub(crate) fn session(&self) -> Result<SessionId> {
        let none =
            || Error::internal("an rpc that needs a session is open to API keys: set session_only in its policy");
        self.principal.credential.session().ok_or_else(none)
    }

    /// Whose calls are counted together: those of one session or one API key.
    pub(crate) fn credential(&self) -> Uuid {
        match &self.principal.credential {
            Credential::Session(session) | Credential::Support { session, .. } => session.0,
            Credential::ApiKey { id, .. } => id.0,
        }
    }

    /// Decides anew, in a transaction that changes access: see [`principals::relook`].
    pub(crate) async fn decide_again(&self, tx: &mut TenantTx<Write>) -> Result<Access> {
        let access = principals::relook(tx, &self.tenant()).await?;
        access.authorize(self.permission)?;
        Ok(access)
    }

    /// Whether it is an API key, which is good for its own tenant only.
    pub(crate) fn is_api_key(&self) -> bool {
        matches!(self.principal.credential, Credential::ApiKey { .. })
    }

    /// The platform, for rpcs of scope PLATFORM.
    pub(crate) fn platform(&self) -> SystemPurpose {
        SystemPurpose::Platform(self.tenant())
    }

    pub(crate) fn holds(&self, permission: &str) -> bool {
        self.principal.access.allows(permission)
    }

    /// An audit row of what the caller does.
    pub(crate) fn audit(&self, resource: impl Into<String>) -> Audit {
        self.info.audit(self.tenant().actor(), resource)
    }

    /// An audit row of what the caller does to a tenant as an operator of the platform.
    pub(crate) fn platform_audit(&self, resource: impl Into<String>) -> Audit {
        let Principal { access, credential, .. } = &*self.principal;
        let (account, user, credential) = (access.account, access.user, credential.clone());
        self.info.audit(Actor::Operator { account, user, credential }, resource)
    }
}
