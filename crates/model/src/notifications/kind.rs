//! What members are told of, and how much it matters.

use crate::sql::text_enum;

text_enum! {
    /// What a notification is about.
    NotificationKind {
        Broadcast = "BROADCAST",
        OperationFailed = "OPERATION_FAILED",
        QuotaNearlyUsed = "QUOTA_NEARLY_USED",
        TicketAnswered = "TICKET_ANSWERED",
        InvitationAccepted = "INVITATION_ACCEPTED",
        KeyExpiring = "KEY_EXPIRING",
    }
}

text_enum! {
    /// How much a notification matters.
    Severity {
        Info = "INFO",
        Warning = "WARNING",
        Critical = "CRITICAL",
        Maintenance = "MAINTENANCE",
    }
}

impl NotificationKind {
    /// How much it matters.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::OperationFailed | Self::QuotaNearlyUsed | Self::KeyExpiring => Severity::Warning,
            Self::Broadcast | Self::TicketAnswered | Self::InvitationAccepted => Severity::Info,
        }
    }
}

text_enum! {
    /// A way in which somebody is told.
    Channel {
        InApp = "IN_APP",
        Email = "EMAIL",
    }
}
