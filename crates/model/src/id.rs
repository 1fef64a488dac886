//! Typed ids and the full names that clients see. Here are those that every transaction, log row and job names; each
//! module has its own.

use uuid::Uuid;

/// Makes a UUIDv7 newtype with the collection it is named in.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $collection:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow))]
        #[cfg_attr(feature = "diesel", diesel(sql_type = diesel::sql_types::Uuid))]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// The collection in full names.
            pub const COLLECTION: &'static str = $collection;

            /// A new id; ids sort by the time they were made.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "two new ids are never equal")]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }

            /// The full name.
            #[must_use]
            pub fn name(self) -> String {
                format!("{}/{}", Self::COLLECTION, self.0)
            }

            /// Reads a full name; `field` is named when it is none.
            pub fn parse(field: &str, name: &str) -> $crate::Result<Self> {
                name.strip_prefix(Self::COLLECTION)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .and_then(|id| uuid::Uuid::try_parse(id).ok())
                    .map(Self)
                    .ok_or_else(|| $crate::Error::invalid(field, format!("must be a full name, {}/{{uuid}}", Self::COLLECTION)))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> std::result::Result<Self, uuid::Error> {
                uuid::Uuid::try_parse(text).map(Self)
            }
        }

        $crate::sql::uuid_column!($name);
    };
}

pub(crate) use id;

/// A full name that is like one of `patterns`, e.g. "vms/{uuid}/snapshots/{uuid}", with its ids as we write them.
#[must_use]
pub fn full_name(patterns: &[&str], name: &str) -> Option<String> {
    let like = |pattern: &&str| {
        let (pattern, name): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), name.split('/').collect());
        let segments = pattern.iter().zip(&name).map(|(pattern, segment)| match *pattern {
            "{uuid}" => Uuid::try_parse(segment).ok().map(|id| id.to_string()),
            word => (word == *segment).then(|| word.to_owned()),
        });
        let segments: Option<Vec<_>> = segments.collect();
        segments.filter(|_| pattern.len() == name.len()).map(|segments| segments.join("/"))
    };
    patterns.iter().find_map(like)
}

id!(/// A tenant.
    TenantId, "tenants");
id!(/// An account: a person, whatever tenants they are in.
    AccountId, "accounts");
id!(/// An account as a member of one tenant; what the contract calls a user.
    UserId, "users");
id!(/// A session, from a login until it ends.
    SessionId, "sessions");
id!(/// An API key.
    ApiKeyId, "apiKeys");
id!(/// A long-running operation.
    OperationId, "operations");
id!(/// A background job.
    JobId, "jobs");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names_are_like_their_patterns() {
        let patterns = ["vms/{uuid}", "vms/{uuid}/snapshots/{uuid}"];
        let id = "0199a000-0000-7000-8000-00000000000a";
        for name in [format!("vms/{id}"), format!("vms/{id}/snapshots/{id}")] {
            assert_eq!(full_name(&patterns, &name), Some(name.clone()));
            assert_eq!(full_name(&patterns, &name.replace("000a", "000A")), Some(name));
        }
        for wrong in [
            "",
            "vms",
            "vms/x",
            &format!("vms/{id}/snapshots"),
            &format!("vms/{id}/disks/{id}"),
            &format!("disks/{id}"),
        ] {
            assert_eq!(full_name(&patterns, wrong), None, "{wrong}");
        }
    }
}
