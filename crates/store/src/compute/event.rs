//! What happened to a VM, a snapshot or a template.

use virtualstack_model::id::OperationId;

/// What happened to a VM, a snapshot or a template, as the change row says it.
#[derive(Clone, Debug)]
pub struct Event {
    pub reason: &'static str,
    pub message: String,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
}
