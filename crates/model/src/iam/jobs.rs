//! Jobs that send mail with a token.

use serde::{Deserialize, Serialize};

use crate::iam::id::InvitationId;
use crate::id::AccountId;
use crate::jobs::{Job, scheduled_jobs};

/// The queue of mail.
pub const MAIL_QUEUE: &str = "mail";

/// Sends an invitation. The worker makes the token, so that no job ever holds one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InvitationMail {
    pub invitation: InvitationId,
}

impl Job for InvitationMail {
    const KIND: &'static str = "invitation_mail";
    const QUEUE: &'static str = MAIL_QUEUE;
    const MAX_ATTEMPTS: i32 = 10;
}

/// Sends a token to set a new password with. The account may be one that nobody has: the answer, and the work, are
/// the same for an address that nobody knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasswordResetMail {
    pub account: AccountId,
}

impl Job for PasswordResetMail {
    const KIND: &'static str = "password_reset_mail";
    const QUEUE: &'static str = MAIL_QUEUE;
    const MAX_ATTEMPTS: i32 = 10;
}

scheduled_jobs! {
    /// Forgets tokens of password resets that have run out.
    PasswordResetCleanup = "password_reset_cleanup",
    /// Forgets sessions that ended long ago.
    SessionCleanup = "session_cleanup",
    /// Forgets buckets of rate limits that are full again.
    RateLimitCleanup = "rate_limit_cleanup",
}
