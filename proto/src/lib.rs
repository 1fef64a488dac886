//! The contract that clients see: messages, clients, descriptors, and who may call what.
//!
//! Everything here is made from the `.proto` files by `build.rs`; nothing is written by hand but the table of
//! [`vendored`] services, whose files are not ours to annotate.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub mod vendored;

#[expect(missing_docs, clippy::large_enum_variant, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::{google, virtualstack};

/// The descriptor set as the compiler wrote it, options and comments included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// [`DESCRIPTOR_SET`], decoded once.
pub static DESCRIPTOR_POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTOR_SET).expect("the build script decoded these bytes"));

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
}

/// A permission of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Code, "module:action".
    pub code: &'static str,
    /// A few words for people.
    pub title: &'static str,
    /// What the holder can do.
    pub description: &'static str,
    /// The module it belongs to.
    pub module: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

/// The policy of the rpc at `path` ("/package.Service/Method"); none for rpcs that nobody may call.
#[must_use]
pub fn policy(path: &str) -> Option<Policy> {
    vendored::policy(path)
        .or_else(|| POLICIES.binary_search_by(|(known, _)| (*known).cmp(path)).ok().map(|index| POLICIES[index].1))
}

/// The catalogue of permissions.
pub fn permissions() -> impl Iterator<Item = &'static Permission> {
    PERMISSIONS.iter()
}
