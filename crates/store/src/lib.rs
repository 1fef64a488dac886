//! How things are kept: scopes, transactions, and one file of queries per aggregate.
//!
//! [`Store`] gives a connection only inside a transaction that has switched to the role of its scope: tenant code runs
//! behind row-level security, and cannot name a query that works across tenants, because that takes a [`SystemTx`].

pub mod access_events;
pub mod accounts;
pub mod api_keys;
mod changes;
pub mod cluster;
pub mod console_tickets;
pub mod db;
pub mod error;
pub mod invitations;
pub mod listing;
pub mod mail_tokens;
pub mod migrate;
pub mod operations;
mod page;
pub mod password_resets;
pub mod principals;
pub mod quotas;
pub mod rate_limits;
pub mod request_ids;
pub mod resources;
pub mod roles;
pub mod schema;
pub mod scope;
pub mod seal;
pub mod sessions;
pub mod signing_keys;
pub mod simulated;
pub mod snapshots;
pub mod templates;
pub mod tenants;
pub mod tx;
pub mod users;
pub mod vm_events;
pub mod vms;
pub mod watches;

pub use db::{Config, Store};
pub use listing::{ListRequest, Listed};
pub use scope::{AccountScope, SystemPurpose, TenantScope};
pub use seal::MasterKey;
pub use tx::{AccountTx, Mode, Read, SystemTx, TenantTx, Write};
pub use virtualstack_queue as queue;
