//! What every write says of itself: an audit row and change rows.

use serde_json::Value;

use crate::id::{AccountId, OperationId, SessionId, UserId};

/// Who does something.
#[derive(Clone, Debug)]
pub enum Actor {
    /// A member of a tenant, or an account outside of one.
    User {
        /// The account.
        account: AccountId,
        /// The membership through which it acts.
        user: Option<UserId>,
        /// The session it was authenticated by.
        session: Option<SessionId>,
    },
    /// The system itself, e.g. a workflow or a reconciler.
    System(&'static str),
}

impl Actor {
    /// Full name of the user, or "system".
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::User { user: Some(user), .. } => user.name(),
            Self::User { account, .. } => account.name(),
            Self::System(_) => "system".to_owned(),
        }
    }
}

/// What is done, by whom and from where: a row of the audit log, written in the commit that does it.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The rpc or workflow.
    pub action: String,
    /// Who.
    pub actor: Actor,
    /// Full name of the resource; may be set once it is known.
    pub resource: String,
    /// Id of the request, or of the job.
    pub request_id: String,
    /// Address of the client, if there is one.
    pub client_address: Option<std::net::IpAddr>,
    /// W3C trace context, which jobs of this write carry on.
    pub traceparent: Option<String>,
}

/// Something that happened to a resource: a row of the change log, read by event lists, watches and webhooks.
#[derive(Clone, Debug)]
pub struct Change {
    /// Full name of the resource.
    pub resource: String,
    /// What happened, as a stable word.
    pub reason: &'static str,
    /// What happened, for people.
    pub message: String,
    /// State of the resource after it.
    pub state: &'static str,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
    /// Changed fields, before and after, without secrets.
    pub fields: Value,
}
