//! The contract that clients see: messages, clients, descriptors, and who may call what.
//!
//! Everything here is made from the `.proto` files by `build.rs`. Two things are written by hand: the table of [`vendored`]
//! services, whose files are not ours to annotate, and the [`raw`] codec of those who know no message.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

mod policy;
pub mod raw;
pub mod vendored;

mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::{google, virtualstack};
pub use policy::{Permission, Policy, Scope};

/// Header and metadata key by which a gateway shows the secret that it shares with the server.
pub const GATEWAY_SECRET: &str = "x-virtualstack-gateway";

/// The descriptor set as the compiler wrote it, options and comments included, with a rule for each name of a resource.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// [`DESCRIPTOR_SET`], decoded once.
pub static DESCRIPTOR_POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTOR_SET).expect("the build script decoded these bytes"));

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

/// The policy of the rpc at `path` ("/package.Service/Method"); none for rpcs that nobody may call.
#[must_use]
pub fn policy(path: &str) -> Option<Policy> {
    vendored::policy(path)
        .or_else(|| POLICIES.binary_search_by(|(known, _)| (*known).cmp(path)).ok().map(|index| POLICIES[index].1))
}

/// Whether all that a permission lets one do is for sessions only.
#[must_use]
pub fn session_only(permission: &str) -> bool {
    let mut needing = POLICIES.iter().filter(|(_, policy)| policy.permission == permission).peekable();
    needing.peek().is_some() && needing.all(|(_, policy)| policy.session_only)
}

/// The catalogue of permissions.
pub fn permissions() -> impl Iterator<Item = &'static Permission> {
    PERMISSIONS.iter()
}

/// A text of an error with at most so many bytes, and nothing in it that takes more than twice its room in JSON: what a client sent
/// comes back in part only.
#[must_use]
pub fn bounded(text: &str, most: usize) -> String {
    let mut bounded = String::with_capacity(text.len().min(most));
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if bounded.len() + letter.len_utf8() > most {
            bounded.push('…');
            break;
        }
        bounded.push(letter);
    }
    bounded
}

/// The name of a status code as it stands in JSON and in metrics, e.g. "NOT_FOUND".
#[must_use]
pub fn code_name(code: tonic::Code) -> &'static str {
    google::rpc::Code::try_from(i32::from(code)).unwrap_or(google::rpc::Code::Unknown).as_str_name()
}
