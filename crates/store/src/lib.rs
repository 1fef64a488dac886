//! How things are kept: scopes, transactions, and one file of queries per aggregate, in a folder per module.
//!
//! [`Store`] gives a connection only inside a transaction that has switched to the role of its scope: tenant code runs
//! behind row-level security, and cannot name a query that works across tenants, because that takes a [`SystemTx`].

pub mod changes;
pub mod digest;
pub mod listing;
pub mod operations;
pub mod request_ids;
pub mod resources;
pub mod schema;
pub mod seal;
pub mod tx;

pub mod iam;

pub mod compute;

pub mod support;

pub mod notifications;

mod targets;
pub mod tenant_life;

pub use digest::DigestKeys;
pub use listing::{ListRequest, Listed};
pub use seal::MasterKey;
pub use tx::scope::{AccountScope, SystemPurpose, SystemScope, TenantScope};
pub use tx::store::{Config, Store};
pub use tx::{AccountTx, Ending, Mode, Read, SystemTx, TenantTx, Write};
pub use virtualstack_queue as queue;
