//! Ids of notifications.

use crate::id::id;

id!(/// Something that a member is told.
    NotificationId, "notifications");
