//! Accounts, memberships and the roles that every tenant has.

use unicode_normalization::UnicodeNormalization;

use crate::sql::text_enum;

text_enum! {
    /// Whether an account can sign in.
    AccountState {
        Active = "ACTIVE",
        Inactive = "INACTIVE",
    }
}

text_enum! {
    /// State of a membership.
    MembershipState {
        /// Invited; has not signed in yet.
        Invited = "INVITED",
        Active = "ACTIVE",
        Inactive = "INACTIVE",
        /// Taken out of the tenant. The row stays for what they made to refer to.
        Removed = "REMOVED",
    }
}

impl MembershipState {
    /// The words that clients see: who was taken out is no member.
    pub const SHOWN: &'static [&'static str] =
        &[Self::Invited.as_str(), Self::Active.as_str(), Self::Inactive.as_str()];
}

text_enum! {
    /// Where an invitation stands.
    InvitationState {
        Pending = "PENDING",
        Accepted = "ACCEPTED",
        Revoked = "REVOKED",
        /// Its time has run out. It is kept as pending: nothing happens at that time.
        Expired = "EXPIRED",
    }
}

/// The form in which addresses are compared and kept: NFKC, lower case, no space around.
#[must_use]
pub fn normalize_email(email: &str) -> String {
    email.trim().nfkc().collect::<String>().to_lowercase()
}

/// A role that every tenant, or the provider, has and nobody changes.
#[derive(Clone, Copy, Debug)]
pub struct SystemRole {
    pub key: &'static str,
    pub description: &'static str,
    /// Whether only the provider tenant has it.
    pub platform: bool,
}

/// Key of the role that administers a tenant; somebody active always holds it.
pub const TENANT_ADMIN: &str = "tenant_admin";

/// Key of the role that administers the platform.
pub const PLATFORM_ADMIN: &str = "platform_admin";

/// The system roles. What each holds stands beside the permission, in the contract.
pub const SYSTEM_ROLES: &[SystemRole] = &[
    SystemRole { key: PLATFORM_ADMIN, description: "Everything an operator of the platform does.", platform: true },
    SystemRole {
        key: "platform_support",
        description: "Sees every tenant and enters it to help; changes none.",
        platform: true,
    },
    SystemRole { key: TENANT_ADMIN, description: "Everything in the tenant.", platform: false },
    SystemRole { key: "user", description: "Makes and runs VMs, and has API keys.", platform: false },
    SystemRole { key: "viewer", description: "Sees VMs, templates, operations and the quota.", platform: false },
];

/// The permission to enter tenants that are not one's own.
pub const ENTER_TENANTS: &str = "platform:tenant:enter";

/// Display name of the role that an operator has in a tenant that is not theirs.
pub const SUPPORT: &str = "support";

/// Whether the support role holds a permission: it sees everything and runs what is there; it makes, changes and
/// deletes nothing and nobody.
#[must_use]
pub fn support_grants(code: &str) -> bool {
    let (module, action) = code.rsplit_once(':').unwrap_or_default();
    !code.starts_with("platform:")
        // The sessions are the operator's own, and of no concern to the tenant.
        && ((action == "read" && module != "session")
            || (module == "vm" && matches!(action, "start" | "stop" | "restart" | "suspend"))
            || matches!(code, "operation:cancel" | "access:explain"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_look_the_same_are_the_same() {
        assert_eq!(normalize_email(" Ada@Example.COM "), "ada@example.com");
        assert_eq!(normalize_email("ａda@example.com"), "ada@example.com");
    }

    #[test]
    fn support_changes_nothing() {
        for code in ["vm:read", "audit:read", "vm:stop", "operation:cancel"] {
            assert!(support_grants(code), "{code}");
        }
        for code in [
            "session:read",
            "vm:create",
            "vm:delete",
            "vm:console",
            "user:update",
            "role:assign",
            "platform:tenant:read",
        ] {
            assert!(!support_grants(code), "{code}");
        }
    }
}
