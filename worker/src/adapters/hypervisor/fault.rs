//! What goes wrong with a hypervisor: classified by the adapter, so that workflows do not guess.

use std::time::Duration;

/// What a workflow does about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// Nothing happened; try the same again later.
    Retry,
    /// It may have happened; ask again, the adapter reconciles by marker.
    Unknown,
    /// The VM is gone from the hypervisor.
    Lost,
    /// The VM must be off for it.
    PowerOff,
    /// The guest cannot be asked: it has no tools, or they do not run.
    Guest,
    /// Something else stands in the way, e.g. a foreign VM of that name.
    Conflict,
    /// There is no room for it.
    Capacity,
    /// What a tenant gave cannot be used, e.g. the hypervisor refuses a descriptor.
    Invalid,
    /// It can never work as it is.
    Permanent,
}

/// A fault of a hypervisor, classified.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message} ({detail})")]
pub struct Fault {
    /// What to do about it.
    pub class: FaultClass,
    pub reason: &'static str,
    /// What a tenant may read: what happened and what they can do.
    pub message: String,
    /// What only the operator reads, in the log.
    pub detail: String,
    /// When it is worth another try, where the hypervisor says so.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A classified fault.
    pub fn new(
        class: FaultClass,
        reason: &'static str,
        message: impl Into<String>,
        detail: impl std::fmt::Display,
    ) -> Self {
        Self { class, reason, message: message.into(), detail: detail.to_string(), retry_after: None }
    }
}
