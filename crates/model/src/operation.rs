//! Long-running operations: the customer's view of work.

use chrono::TimeDelta;

use crate::sql::text_enum;

text_enum! {
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
        /// Resets the VM.
        Reset = "RESET",
        /// Suspends the VM.
        Suspend = "SUSPEND",
        /// Takes back the VM's delete.
        Undelete = "UNDELETE",
        /// Makes a snapshot.
        CreateSnapshot = "CREATE_SNAPSHOT",
        /// Deletes a snapshot.
        DeleteSnapshot = "DELETE_SNAPSHOT",
        /// Puts the VM back to a snapshot.
        RevertSnapshot = "REVERT_SNAPSHOT",
        /// Opens the VM's console.
        OpenConsole = "OPEN_CONSOLE",
    }
}

impl Verb {
    /// How long an operation may take. What is not done by then has failed, and is taken back.
    #[must_use]
    pub const fn time_limit(self) -> TimeDelta {
        match self {
            // Copying disks takes what it takes.
            Self::Create | Self::Update | Self::CreateSnapshot | Self::DeleteSnapshot | Self::RevertSnapshot => {
                TimeDelta::hours(2)
            }
            // A guest may take half an hour to shut down.
            Self::Stop | Self::Restart | Self::Delete => TimeDelta::hours(1),
            Self::Start | Self::Reset | Self::Suspend | Self::Undelete => TimeDelta::minutes(15),
            Self::OpenConsole => TimeDelta::minutes(1),
        }
    }
}

text_enum! {
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
