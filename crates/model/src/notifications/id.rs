//! Ids of notifications.

use crate::id::id;

id!(/// Something that a member is told.
    NotificationId, "notifications");

impl NotificationId {
    /// One of a time: those of a list sort by it.
    #[must_use]
    pub fn at(time: chrono::DateTime<chrono::Utc>) -> Self {
        let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
        Self(uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, time.timestamp_subsec_nanos())))
    }
}

id!(/// Something that many are told.
    BroadcastId, "broadcasts");

impl BroadcastId {
    /// Full name of one that a tenant's admins tell their tenant.
    #[must_use]
    pub fn name_in(self, tenant: crate::id::TenantId) -> String {
        format!("{}/{}", tenant.name(), self.name())
    }
}
