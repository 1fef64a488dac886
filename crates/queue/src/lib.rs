//! How work waits: a job queue in PostgreSQL that knows queues, kinds, groups and JSON, not tenants and VMs.
//!
//! A claim is a visibility timeout: `available_at` of a running job is the end of its lease, so a job whose worker died
//! is claimed again without anybody rescuing it. Each claim raises the job's fencing token, and every write of a step
//! first locks the job by that token ([`settle`] in the same transaction), so a worker that was taken for dead cannot
//! write.

mod claim;
mod clock;
mod jobs;
mod runner;
mod wake;

pub use claim::{Claim, Lease, claim, renew};
pub use clock::Clock;
pub use jobs::{NewJob, Outcome, activate, insert, insert_unique, prune, prune_abandoned, release, settle};
pub use runner::{Config, Handler, Runner};
pub use wake::{Notification, listen};
