//! Accounts, memberships and the roles that every tenant has.

use unicode_normalization::UnicodeNormalization;

use crate::sql::words;

words! {
    /// Whether an account can sign in.
    AccountState {
        /// It can.
        Active = "ACTIVE",
        /// It cannot.
        Inactive = "INACTIVE",
    }
}

words! {
    /// State of a membership.
    MembershipState {
        /// Invited; has not signed in yet.
        Invited = "INVITED",
        /// Can work.
        Active = "ACTIVE",
        /// Cannot enter the tenant.
        Inactive = "INACTIVE",
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
    /// Key and display name.
    pub key: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// Whether only the provider tenant has it.
    pub platform: bool,
    /// Whether the role holds a permission.
    pub grants: fn(code: &str) -> bool,
}

/// The system roles, the one list they are made from.
pub const SYSTEM_ROLES: &[SystemRole] = &[
    SystemRole {
        key: "platform_admin",
        description: "Everything an operator of the platform does.",
        platform: true,
        grants: |code| code.starts_with("platform:"),
    },
    SystemRole {
        key: "platform_support",
        description: "Sees every tenant, changes none.",
        platform: true,
        grants: |code| code.starts_with("platform:") && code.ends_with(":read"),
    },
    SystemRole {
        key: "tenant_admin",
        description: "Everything in the tenant.",
        platform: false,
        grants: |code| !code.starts_with("platform:"),
    },
    SystemRole {
        key: "user",
        description: "Makes and runs VMs.",
        platform: false,
        grants: |code| ["vm:", "operation:"].iter().any(|module| code.starts_with(module)) || code == "template:read",
    },
    SystemRole {
        key: "viewer",
        description: "Sees VMs, templates and operations.",
        platform: false,
        grants: |code| matches!(code, "vm:read" | "template:read" | "operation:read"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_look_the_same_are_the_same() {
        assert_eq!(normalize_email(" Ada@Example.COM "), "ada@example.com");
        assert_eq!(normalize_email("ａda@example.com"), "ada@example.com");
    }

    #[test]
    fn only_platform_roles_hold_platform_permissions() {
        for role in SYSTEM_ROLES {
            assert_eq!((role.grants)("platform:tenant:read"), role.platform, "{}", role.key);
        }
    }
}
