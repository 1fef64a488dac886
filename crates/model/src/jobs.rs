//! Background jobs: what a kind of job says of itself. Payloads carry ids, never secrets; each module has its own.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The queue of periodic work.
pub const PERIODIC_QUEUE: &str = "periodic";

/// A kind of job.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Stable name.
    const KIND: &'static str;
    /// Queue it waits in.
    const QUEUE: &'static str;
    /// Tries of one step before the job gives up.
    const MAX_ATTEMPTS: i32;
}

/// Purges deleted VMs whose time has come, and forgets what nobody asks for any more. Periodic: takes no input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Housekeeping {}

impl Job for Housekeeping {
    const KIND: &'static str = "housekeeping";
    const QUEUE: &'static str = PERIODIC_QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
}
