//! VMs, their events and their snapshots as clients see them: by themselves, and as what operations answer with.

use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::snapshot::SnapshotState;
use virtualstack_model::compute::vm::{PowerState, VmState};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_proto::virtualstack::compute::v1::{snapshot, vm};
use virtualstack_store::changes::events::RecordedEvent;
use virtualstack_store::compute::snapshots::Snapshot;
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
