//! Typed ids and the full names that clients see.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::error::{Error, Result};

/// Makes a UUIDv7 newtype with the collection it is named in.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $collection:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow))]
        #[cfg_attr(feature = "diesel", diesel(sql_type = diesel::sql_types::Uuid))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The collection in full names.
            pub const COLLECTION: &'static str = $collection;

            /// A new id; ids sort by the time they were made.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "two new ids are never equal")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The full name.
            #[must_use]
            pub fn name(self) -> String {
                format!("{}/{}", Self::COLLECTION, self.0)
            }

            /// Reads a full name; `field` is named when it is none.
            pub fn parse(field: &str, name: &str) -> Result<Self> {
                name.strip_prefix(Self::COLLECTION)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .and_then(|id| Uuid::try_parse(id).ok())
                    .map(Self)
                    .ok_or_else(|| Error::invalid(field, format!("must be a full name, {}/{{uuid}}", Self::COLLECTION)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> std::result::Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }

        $crate::sql::uuid_column!($name);
    };
}

id!(/// A tenant.
    TenantId, "tenants");
id!(/// An account: a person, whatever tenants they are in.
    AccountId, "accounts");
id!(/// An account as a member of one tenant; what the contract calls a user.
    UserId, "users");
id!(/// A role of a tenant.
    RoleId, "roles");
id!(/// A session, from a login until it ends.
    SessionId, "sessions");
id!(/// An API key.
    ApiKeyId, "apiKeys");
id!(/// An invitation to a tenant.
    InvitationId, "invitations");
id!(/// A virtual machine.
    VmId, "vms");
id!(/// A snapshot of a virtual machine; its full name stands below the VM's.
    SnapshotId, "snapshots");
id!(/// A template.
    TemplateId, "templates");
id!(/// A long-running operation.
    OperationId, "operations");
id!(/// A background job.
    JobId, "jobs");
