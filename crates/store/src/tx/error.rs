//! diesel → [`Error`], in one place: by kind, constraint name, and the words that our own SQL raises.
//!
//! diesel does not hand out the SQLSTATE, so what has no kind of its own is told by its message. Ours are stable words;
//! those of PostgreSQL are in English, because the login has `lc_messages = C`: see [`Store::check_language`].
//!
//! [`Store::check_language`]: crate::tx::store::Store::check_language

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use virtualstack_model::Error;

/// Reason of errors that a repeat of the whole transaction may cure.
pub(crate) const CONFLICT: &str = "TRANSACTION_CONFLICT";

/// Reason of an access that changed since it was decided; the caller decides again.
pub const ACCESS_CHANGED: &str = "ACCESS_CHANGED";

/// Reason of a fenced write whose job was claimed by somebody else.
pub const LEASE_LOST: &str = "LEASE_LOST";

/// Reason of a write that the database has no room for.
pub(crate) const FULL: &str = "DATABASE_FULL";

/// Reason of a write that the database does not take now.
pub(crate) const READ_ONLY: &str = "DATABASE_READ_ONLY";

/// What a client is told when a constraint stands in the way, by the constraint's name. Any other is a mistake of ours.
pub type Constraints = &'static [(&'static str, fn() -> Error)];

/// Unique indexes that clients can run into. A test holds the names against the schema.
pub const UNIQUE: Constraints = &[
    ("virtual_machines_display_name", || {
        Error::exists("VM_NAME_TAKEN", "vms", "vm.displayName: a VM of this name exists in the tenant")
    }),
    ("snapshots_display_name", || {
        Error::exists("SNAPSHOT_NAME_TAKEN", "snapshots", "snapshot.displayName: the VM has a snapshot of this name")
    }),
    ("user_templates_name_key", || {
        Error::exists("TEMPLATE_EXISTS", "templates", "template.displayName: the tenant has a template of this name")
    }),
    ("operations_open", || {
        Error::aborted(
            "OPERATION_IN_PROGRESS",
            "another operation of this resource is in progress; wait for it or cancel it",
        )
    }),
    ("operations_queued", delete_in_progress),
    ("tenant_roles_tenant_id_display_name_key", || {
        Error::exists("ROLE_NAME_TAKEN", "roles", "role.displayName: a role of this name exists in the tenant")
    }),
    ("tenant_roles_name_key", || {
        Error::exists("ROLE_NAME_TAKEN", "roles", "role.displayName: a role of this name exists in the tenant")
    }),
    // Somebody accepted an invitation meanwhile.
    ("memberships_tenant_id_account_id_key", || {
        Error::exists("USER_EXISTS", "users", "user.email: is a member of the tenant already")
    }),
    ("tenants_slug_key", || Error::exists("TENANT_SLUG_TAKEN", "tenants", "tenant.slug: a tenant of this slug exists")),
];

/// Foreign keys that clients can run into: somebody began to use what was being deleted, or deleted what was being used.
pub const FOREIGN_KEYS: Constraints =
    &[("user_tenant_roles_tenant_id_role_id_fkey", role_in_use), ("invitations_tenant_id_role_id_fkey", role_in_use)];

fn role_in_use() -> Error {
    Error::precondition("ROLE_IN_USE", "roles", "the role is in use, or was deleted meanwhile")
}

fn told(constraints: Constraints, name: Option<&str>) -> Option<Error> {
    constraints.iter().find(|(known, _)| Some(*known) == name).map(|(_, told)| told())
}

/// Turns a database error into ours.
pub(crate) fn from_diesel(error: DieselError) -> Error {
    let DieselError::DatabaseError(kind, info) = &error else {
        return Error::internal(error);
    };
    match kind {
        DatabaseErrorKind::UniqueViolation => match told(UNIQUE, info.constraint_name()) {
            Some(told) => told,
            None => Error::internal(error),
        },
        DatabaseErrorKind::ForeignKeyViolation => match told(FOREIGN_KEYS, info.constraint_name()) {
            Some(told) => told,
            None => Error::internal(error),
        },
        DatabaseErrorKind::SerializationFailure => {
            Error::aborted(CONFLICT, "the transaction met another one; repeat it")
        }
        DatabaseErrorKind::ReadOnlyTransaction => refused_write(READ_ONLY, error),
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => unavailable(error),
        _ => match info.message() {
            "SESSION_ENDED" => session_ended(),
            "KEY_INVALID" => key_invalid(),
            "TENANT_DELETED" => Error::denied("TENANT_DELETED", "the tenant is deleted"),
            "TENANT_SUSPENDED" => Error::denied("TENANT_SUSPENDED", "the tenant is suspended"),
            "MEMBERSHIP_INACTIVE" => {
                Error::denied("MEMBERSHIP_INACTIVE", "the membership in this tenant is not active")
            }
            "ACCESS_CHANGED" => Error::aborted(ACCESS_CHANGED, "permissions have changed meanwhile; repeat the call"),
            "LEASE_LOST" => Error::aborted(LEASE_LOST, "another worker has claimed the job"),
            "deadlock detected" => Error::aborted(CONFLICT, "the transaction met another one; repeat it"),
            message if message.starts_with("canceling statement due to") => Error::DeadlineExceeded {
                reason: "STATEMENT_TIMEOUT",
                message: "the database did not answer in time".to_owned(),
            },
            message if is_full(message) => refused_write(FULL, error),
            message
                if [
                    "terminating connection",
                    "the database system is",
                    "sorry, too many clients",
                    "remaining connection slots",
                ]
                .iter()
                .any(|start| message.starts_with(start)) =>
            {
                unavailable(error)
            }
            _ => Error::internal(error),
        },
    }
}

/// Whether a message is one of those that PostgreSQL has for class 53 (insufficient resources) where it is about space. The
/// first ones end in the words of the operating system.
fn is_full(message: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|words| message.ends_with(words))
        || ["could not extend file", "temporary file size exceeds"].iter().any(|words| message.starts_with(words))
}

/// The database answers, and takes no writes.
pub(crate) fn refused_write(reason: &'static str, source: impl Into<virtualstack_model::error::Source>) -> Error {
    let message = match reason {
        FULL => "the database has no room for this: its disk is full; try again later",
        _ => "the database is read-only now; try again later",
    };
    Error::unavailable(reason, message, source)
}

/// The session has ended, or nobody knows it.
pub(crate) fn session_ended() -> Error {
    Error::unauthenticated("SESSION_ENDED", "the session has ended; sign in again")
}

/// Nobody knows the API key, its secret is another one, or it has ended: which one, is not told.
pub(crate) fn key_invalid() -> Error {
    Error::unauthenticated("KEY_INVALID", "the API key is not valid")
}

/// The database does not answer.
pub(crate) fn unavailable(source: impl Into<virtualstack_model::error::Source>) -> Error {
    Error::unavailable("DATABASE_UNAVAILABLE", "the database is not reachable; try again", source)
}

/// Why a second delete is refused.
pub(crate) fn delete_in_progress() -> Error {
    Error::aborted("DELETE_IN_PROGRESS", "the resource is being deleted already")
}

/// Whether the connection is of no use any more.
pub(crate) fn is_fatal(error: &Error) -> bool {
    error.reason() == "DATABASE_UNAVAILABLE"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: DatabaseErrorKind, message: &str) -> Error {
        from_diesel(DieselError::DatabaseError(kind, Box::new(message.to_owned())))
    }

    #[test]
    fn what_the_database_has_no_room_for_is_told_apart() {
        for message in [
            r#"could not extend file "base/16384/16390": No space left on device"#,
            r#"could not extend file "base/16384/16390": wrote only 4096 of 8192 bytes at block 7"#,
            r#"could not write to file "base/pgsql_tmp/pgsql_tmp7.0": No space left on device"#,
            r#"could not write block 7 of relation base/16384/16390: Disk quota exceeded"#,
            "temporary file size exceeds temp_file_limit (1024kB)",
        ] {
            let error = told(DatabaseErrorKind::Unknown, message);
            assert!(matches!(error, Error::Unavailable { reason: FULL, .. }), "{message}: {error:?}");
            assert!(!is_fatal(&error), "the connection is as good as before");
        }
        let error = told(DatabaseErrorKind::ReadOnlyTransaction, "cannot execute INSERT in a read-only transaction");
        assert!(matches!(error, Error::Unavailable { reason: READ_ONLY, .. }), "{error:?}");
        let error = told(DatabaseErrorKind::Unknown, "division by zero");
        assert!(matches!(error, Error::Internal { .. }), "{error:?}");
    }
}
