//! Ids of notifications.

use crate::id::id;

id!(/// Something that a member is told.
    NotificationId, "notifications");

id!(/// Something that many are told.
    BroadcastId, "broadcasts");

impl BroadcastId {
    /// Full name of one that a tenant's admins tell their tenant.
    #[must_use]
    pub fn name_in(self, tenant: crate::id::TenantId) -> String {
        format!("{}/{}", tenant.name(), self.name())
    }
}
