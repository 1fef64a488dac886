//! Quotas as clients see them.

use virtualstack_model::compute::quota::{Amounts, Limits};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::compute::quotas::Quota;

use super::time;

/// A tenant's quota.
pub(crate) fn quota_message(row: &Quota) -> proto::Quota {
    proto::Quota {
        name: Quota::name(row.tenant_id),
        limits: Some(limits_message(&row.limits)),
        usage: Some(usage_message(&row.usage)),
        update_time: Some(time(row.updated_at)),
        etag: row.etag(),
    }
}

/// Limits: those that there are.
pub(crate) fn limits_message(limits: &Limits) -> proto::QuotaAmounts {
    proto::QuotaAmounts {
        vms: limits.vms.map(count),
        vcpus: limits.vcpus.map(count),
        memory_mib: limits.memory_mib.map(count),
        disk_gib: limits.disk_gib.map(count),
        snapshots: limits.snapshots.map(count),
        templates: limits.templates.map(count),
        template_bytes: limits.template_bytes,
    }
}

/// Usage: all that is counted.
pub(crate) fn usage_message(usage: &Amounts) -> proto::QuotaAmounts {
    proto::QuotaAmounts {
        vms: Some(count(usage.vms)),
        vcpus: Some(count(usage.vcpus)),
        memory_mib: Some(count(usage.memory_mib)),
        disk_gib: Some(count(usage.disk_gib)),
        snapshots: Some(count(usage.snapshots)),
        templates: Some(count(usage.templates)),
        template_bytes: Some(usage.template_bytes),
    }
}

/// Limits that a request gives.
pub(crate) fn limits(message: &proto::QuotaAmounts) -> Limits {
    Limits {
        vms: message.vms.map(i64::from),
        vcpus: message.vcpus.map(i64::from),
        memory_mib: message.memory_mib.map(i64::from),
        disk_gib: message.disk_gib.map(i64::from),
        snapshots: message.snapshots.map(i64::from),
        templates: message.templates.map(i64::from),
        template_bytes: message.template_bytes,
    }
}

/// The contract counts in 32 bits: what is more is told as the most there is.
fn count(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
