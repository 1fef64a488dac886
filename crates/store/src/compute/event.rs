//! What happened to a VM or a snapshot.

use virtualstack_model::id::OperationId;

/// What happened to a VM or a snapshot, as the change row says it.
#[derive(Clone, Debug)]
pub struct Event {
    /// A stable word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
}
