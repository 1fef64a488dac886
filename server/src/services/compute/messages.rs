//! VMs, their events and their snapshots, and templates as clients see them: by themselves, and as what operations answer with.

use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::snapshot::SnapshotState;
use virtualstack_model::compute::template::{TemplateKind, TemplateScope, TemplateState};
use virtualstack_model::compute::vm::{PowerState, VmState};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_proto::virtualstack::compute::v1::{snapshot, template, vm};
use virtualstack_store::changes::events::RecordedEvent;
use virtualstack_store::compute::snapshots::Snapshot;
use virtualstack_store::compute::templates::Template;
use virtualstack_store::compute::vms::Vm;

use crate::call::message::time;

/// A VM as clients see it.
pub(crate) fn vm_message(row: Vm) -> proto::Vm {
    let power = row.observed_power_state.map_or(vm::PowerState::Unspecified, |power| match power {
        PowerState::On => vm::PowerState::On,
        PowerState::Off => vm::PowerState::Off,
        PowerState::Paused => vm::PowerState::Paused,
    });
    proto::Vm {
        name: row.id.name(),
        uid: row.id.to_string(),
        etag: row.etag(),
        labels: row.labels().into_iter().collect(),
        display_name: row.display_name,
        description: row.description,
        state: state(row.state).into(),
        state_reason: row.state_reason,
        cpu_count: row.cpu_count,
        memory_mib: row.memory_mib,
        disk_gib: row.disk_gib,
        template: row.template_id.name(),
        template_display_name: row.template_display_name,
        guest_os: row.guest_os,
        ip_addresses: row.ip_addresses,
        owner: row.owner_id.name(),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        observe_time: row.observed_at.map(time),
        observed_power_state: power.into(),
        delete_time: row.deleted_at.map(time),
        purge_time: row.purge_at.map(time),
        // Never told.
        guest_customization: None,
    }
}

fn state(state: VmState) -> vm::State {
    match state {
        VmState::Provisioning => vm::State::Provisioning,
        VmState::Running => vm::State::Running,
        VmState::Stopped => vm::State::Stopped,
        VmState::Suspended => vm::State::Suspended,
        VmState::Starting => vm::State::Starting,
        VmState::Stopping => vm::State::Stopping,
        VmState::Updating => vm::State::Updating,
        VmState::Deleting => vm::State::Deleting,
        VmState::Deleted => vm::State::Deleted,
        VmState::Error => vm::State::Error,
    }
}

/// An event as clients see it.
pub(crate) fn event_message(vm: VmId, row: RecordedEvent) -> proto::VmEvent {
    proto::VmEvent {
        name: format!("{}/events/{}", vm.name(), row.position),
        create_time: Some(time(row.created_at)),
        state: VmState::from_word(&row.state).map_or(vm::State::Unspecified, state).into(),
        reason: row.reason,
        message: row.message,
        operation: row.operation_id.map(|id| id.name()).unwrap_or_default(),
        actor: row.actor,
    }
}

/// A snapshot as clients see it.
pub(crate) fn snapshot_message(row: Snapshot) -> proto::Snapshot {
    let state = match row.state {
        SnapshotState::Creating => snapshot::State::Creating,
        SnapshotState::Ready => snapshot::State::Ready,
        SnapshotState::Deleting => snapshot::State::Deleting,
        SnapshotState::Error => snapshot::State::Error,
    };
    proto::Snapshot {
        name: row.name(),
        uid: row.id.to_string(),
        etag: row.etag(),
        display_name: row.display_name,
        description: row.description,
        state: state.into(),
        state_reason: row.state_reason,
        creator: row.creator,
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
    }
}

/// A template as clients see it.
pub(crate) fn template_message(row: Template) -> proto::Template {
    let scope = match row.scope {
        TemplateScope::Provider => template::Scope::Provider,
        TemplateScope::Tenant => template::Scope::Tenant,
    };
    proto::Template {
        name: row.id.name(),
        uid: row.id.to_string(),
        // The provider's are not the tenant's to change.
        etag: if row.scope == TemplateScope::Tenant { row.etag() } else { String::new() },
        labels: row.labels().into_iter().collect(),
        display_name: row.display_name,
        description: row.description,
        kind: template_kind(row.kind).into(),
        scope: scope.into(),
        state: template_state(row.state).into(),
        state_reason: row.state_reason,
        guest_os: row.guest_os,
        min_cpu_count: row.cpu_count,
        min_memory_mib: row.memory_mib,
        min_disk_gib: row.disk_gib,
        size_bytes: row.size_bytes,
        uploaded_bytes: row.uploaded_bytes,
        sha256: row.sha256,
        upload_expire_time: row.upload_expires_at.map(time),
        owner: row.owner_id.map(|owner| owner.name()).unwrap_or_default(),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
    }
}

pub(crate) fn template_kind(kind: TemplateKind) -> template::Kind {
    match kind {
        TemplateKind::Ova => template::Kind::Ova,
        TemplateKind::Iso => template::Kind::Iso,
    }
}

pub(crate) fn template_state(state: TemplateState) -> template::State {
    match state {
        TemplateState::Ready => template::State::Ready,
        TemplateState::Unavailable => template::State::Unavailable,
        TemplateState::Uploading => template::State::Uploading,
        TemplateState::Validating => template::State::Validating,
        TemplateState::Importing => template::State::Importing,
        TemplateState::Failed => template::State::Failed,
        TemplateState::Deleting => template::State::Deleting,
    }
}
