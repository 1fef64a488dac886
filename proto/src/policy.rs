//! What the tables of rpcs and permissions are made of.

/// What an rpc works on, and so which credential it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The data of the caller's tenant.
    Tenant,
    /// The caller's own account and sessions.
    Account,
    /// The provider's operators, across tenants.
    Platform,
    /// Everybody; no credential is looked at.
    Public,
}

/// Who may call an rpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What the rpc works on.
    pub scope: Scope,
    /// Code of the permission that the caller needs; empty where the scope alone decides.
    pub permission: &'static str,
    /// Whether API keys may not call it, whatever their permissions.
    pub session_only: bool,
    /// Whether one could guess at passwords or tokens by it, so that calls are counted by address.
    pub guessable: bool,
    /// Whether it only reads.
    pub reads: bool,
    /// The collection that it works on, by its route, e.g. "vms".
    pub collection: &'static str,
}

/// A permission of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    pub code: &'static str,
    /// A few words for people.
    pub title: &'static str,
    /// What the holder can do.
    pub description: &'static str,
    /// The module it belongs to.
    pub module: &'static str,
    /// Keys of the system roles that hold it.
    pub roles: &'static [&'static str],
}
