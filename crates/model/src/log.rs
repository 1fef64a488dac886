//! What every write says of itself: an audit row and change rows.

use std::borrow::Cow;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::credential::Credential;
use crate::id::{AccountId, OperationId, UserId};
use crate::sql::text_enum;

/// Who does something.
#[derive(Clone, Debug)]
pub enum Actor {
    /// A member of a tenant, or an account outside of one.
    User {
        account: AccountId,
        /// The membership through which it acts.
        user: Option<UserId>,
        /// What it was authenticated by.
        credential: Option<Credential>,
    },
    /// A member of the provider's tenant at work on a tenant from outside.
    Operator {
        account: AccountId,
        /// The membership in the provider's tenant.
        user: UserId,
        /// What it was authenticated by.
        credential: Credential,
    },
    /// The system itself, e.g. a workflow or a reconciler.
    System(&'static str),
    /// Somebody who has not said who they are, e.g. with a token from a mail, or a wrong password.
    Nobody,
}

impl Actor {
    /// What it was authenticated by, if it was.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        match self {
            Self::User { credential, .. } => credential.as_ref(),
            Self::Operator { credential, .. } => Some(credential),
            Self::System(_) | Self::Nobody => None,
        }
    }

    /// Full name of the user, or "system".
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            // Not a member of the tenant: it must see at once that it was the platform.
            Self::User { user: Some(user), credential: Some(Credential::Support { .. }), .. } => {
                format!("platform/{}", user.name())
            }
            Self::Operator { user, .. } => format!("platform/{}", user.name()),
            Self::User { user: Some(user), .. } => user.name(),
            Self::User { account, .. } => account.name(),
            Self::System(_) => "system".to_owned(),
            Self::Nobody => "nobody".to_owned(),
        }
    }
}

/// What is done, by whom and from where: a row of the audit log, written in the commit that does it.
#[derive(Clone, Debug)]
pub struct Audit {
    pub action: String,
    pub actor: Actor,
    /// Full name of the resource; may be set once it is known.
    pub resource: String,
    /// Id of the request, or of the job.
    pub request_id: String,
    /// Address of the client, if there is one.
    pub client_address: Option<std::net::IpAddr>,
    /// W3C trace context, which jobs of this write carry on.
    pub traceparent: Option<String>,
    pub outcome: Outcome,
}

/// How many equal things one row of the audit log stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The row.
    pub id: Uuid,
    pub count: i64,
    /// From the first of them to the last.
    pub span: TimeDelta,
}

/// What came of something that is audited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    #[default]
    Done,
    /// It was not allowed, for this reason.
    Denied(Cow<'static, str>),
    /// Somebody failed to show who they are, for this reason.
    Failed(Cow<'static, str>),
}

/// Something that happened to a resource: a row of the change log, read by event lists, watches and webhooks.
#[derive(Clone, Debug)]
pub struct Change {
    /// Full name of the resource.
    pub resource: String,
    /// What happened, as a stable word.
    pub reason: &'static str,
    pub message: String,
    /// State of the resource after it.
    pub state: &'static str,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
    /// Changed fields, before and after, without secrets. Null where the audit log need not tell them again.
    pub fields: Value,
    /// For resources that can be watched: what became of it, and what it is after that, or was last.
    pub watched: Option<(ChangeKind, Value)>,
}

text_enum! {
    /// What became of a resource.
    ChangeKind {
        Created = "CREATED",
        Updated = "UPDATED",
        Deleted = "DELETED",
    }
}

impl Change {
    /// What happened to a resource that has no states and no operations.
    pub fn of(resource: String, reason: &'static str, message: impl Into<String>, fields: Value) -> Self {
        Self { resource, reason, message: message.into(), state: "", operation: None, fields, watched: None }
    }

    /// An update of such a resource; `fields` as [`changed_fields`] gives them.
    #[must_use]
    pub fn update(resource: String, reason: &'static str, fields: Map<String, Value>) -> Self {
        let message = format!("Changed: {}", fields.keys().cloned().collect::<Vec<_>>().join(", "));
        Self::of(resource, reason, message, fields.into())
    }
}

/// Fields that differ, each with its value before and after.
#[must_use]
pub fn changed_fields(fields: impl IntoIterator<Item = (&'static str, Value, Value)>) -> Map<String, Value> {
    let differing = fields.into_iter().filter(|(_, before, after)| before != after);
    differing.map(|(field, before, after)| (field.to_owned(), json!([before, after]))).collect()
}
