//! Long-running operations: the customer's view of work.

use crate::sql::text_enum;

text_enum! {
    /// What an operation does to its target. Change rows and jobs of before 2026-11-28 also say in it that the target is a
    /// snapshot.
    Verb {
        Create = "CREATE" | "CREATE_SNAPSHOT",
        Update = "UPDATE",
        Delete = "DELETE" | "DELETE_SNAPSHOT",
        Start = "START",
        Stop = "STOP",
        Restart = "RESTART",
        Reset = "RESET",
        Suspend = "SUSPEND",
        /// Takes back the VM's delete.
        Undelete = "UNDELETE",
        /// Puts the VM back to its target, a snapshot.
        Revert = "REVERT" | "REVERT_SNAPSHOT",
        OpenConsole = "OPEN_CONSOLE",
        /// Checks the file of its target, a template, and imports it.
        Import = "IMPORT",
    }
}

text_enum! {
    /// Where an operation is.
    OperationState {
        Open = "OPEN",
        /// A delete that waits behind another operation of its target.
        Queued = "QUEUED",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_words_of_verbs_are_read_and_no_longer_written() {
        for (old, verb) in
            [("CREATE_SNAPSHOT", Verb::Create), ("DELETE_SNAPSHOT", Verb::Delete), ("REVERT_SNAPSHOT", Verb::Revert)]
        {
            assert_eq!(serde_json::from_value::<Verb>(old.into()).expect("a verb"), verb);
            assert_eq!(Verb::from_word(old), None);
        }
        assert_eq!(serde_json::to_value(Verb::Create).expect("a word"), "CREATE");
    }
}
