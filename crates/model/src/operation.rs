//! Long-running operations: the customer's view of work.

use crate::sql::words;

words! {
    /// What an operation does to its target.
    Verb {
        /// Creates it.
        Create = "CREATE",
        /// Changes it.
        Update = "UPDATE",
        /// Deletes it.
        Delete = "DELETE",
        /// Starts the VM.
        Start = "START",
        /// Stops the VM.
        Stop = "STOP",
        /// Restarts the VM.
        Restart = "RESTART",
    }
}

words! {
    /// Where an operation is.
    OperationState {
        /// Waits or runs.
        Open = "OPEN",
        /// A delete that waits behind another operation of its target.
        Queued = "QUEUED",
        /// Done, and it worked.
        Succeeded = "SUCCEEDED",
        /// Done, and it did not.
        Failed = "FAILED",
        /// Ended because somebody asked for it.
        Cancelled = "CANCELLED",
    }
}

impl OperationState {
    /// Whether nothing more happens.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}
