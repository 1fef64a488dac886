//! Background jobs: what a kind of job says of itself. Payloads carry ids, never secrets; each module has its own.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::OperationId;

/// The queue of scheduled work.
pub const TASK_QUEUE: &str = "tasks";

/// Queues of earlier versions, which only workers of those claim from. Nothing else is left of their kinds of jobs: a worker
/// of today must not take a job that it cannot do.
pub const RETIRED_QUEUES: &[&str] = &["periodic"];

/// A kind of job.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Stable name.
    const KIND: &'static str;
    /// Queue it waits in.
    const QUEUE: &'static str;
    /// Tries of one step before the job gives up.
    const MAX_ATTEMPTS: i32;
}

/// A job that does an operation.
pub trait OperationJob: Job {
    /// The operation that the customer sees.
    fn operation(&self) -> OperationId;
}

/// Declares kinds of scheduled work: they take no input, and each waits for its timer in [`TASK_QUEUE`].
macro_rules! scheduled_jobs {
    ($($(#[$about:meta])* $job:ident = $kind:literal,)+) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
        pub struct $job {}

        impl $crate::jobs::Job for $job {
            const KIND: &'static str = $kind;
            const QUEUE: &'static str = $crate::jobs::TASK_QUEUE;
            const MAX_ATTEMPTS: i32 = 3;
        }
    )+};
}

pub(crate) use scheduled_jobs;

scheduled_jobs! {
    /// Forgets request ids that nobody repeats any more.
    RequestIdCleanup = "request_id_cleanup",
    /// Forgets jobs that were completed long ago, and those that workers of earlier versions left.
    JobCleanup = "job_cleanup",
    /// Removes objects of the object store that no row knows.
    ObjectSweep = "object_sweep",
    /// Goes on with purges of tenants that are due.
    TenantPurge = "tenant_purge",
}
