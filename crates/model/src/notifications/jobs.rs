//! Jobs of notifications.

use crate::jobs::scheduled_jobs;

scheduled_jobs! {
    /// Tells members what has happened.
    Notify = "notify",
}
