//! Jobs of notifications.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::iam::jobs::MAIL_QUEUE;
use crate::jobs::{Job, scheduled_jobs};

/// Sends a mail that tells of notifications.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NotificationMail {
    pub mail: Uuid,
}

impl Job for NotificationMail {
    const KIND: &'static str = "notification_mail";
    const QUEUE: &'static str = MAIL_QUEUE;
    const MAX_ATTEMPTS: i32 = 10;
}

scheduled_jobs! {
    /// Tells members what has happened.
    Notify = "notify",
}
