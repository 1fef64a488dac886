//! Snapshots of virtual machines.

use chrono::Utc;
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::jobs::VmSnapshot;
use virtualstack_model::compute::snapshot::{SnapshotState, work};
use virtualstack_model::compute::vm::Size;
use virtualstack_model::id::OperationId;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::snapshots::{self, Snapshot};
use virtualstack_store::compute::vms;
use virtualstack_store::{Read, Store, TenantTx, Write, operations};

use super::messages::snapshot_message;
use crate::call::TenantCall;
use crate::call::list::{List as _, page};
use crate::call::write::Mutation;
use crate::generated::virtualstack::compute::v1::SnapshotService;
use crate::services::mutations::{enter, start};

pub(crate) struct Snapshots {
    pub(crate) store: Store,
}

impl SnapshotService for Snapshots {
    async fn list_snapshots(
        &self,
        call: TenantCall<proto::ListSnapshotsRequest>,
    ) -> Result<proto::ListSnapshotsResponse> {
        let vm = VmId::parse("parent", &call.request.parent)?;
        let request = call.request.list();
        let read = async |tx: &mut TenantTx<Read>| {
            vms::get(tx, vm).await?;
            snapshots::list(tx, vm, &request).await
        };
        let listed = self.store.read(&call.tenant(), read).await?;
        Ok(page(listed, snapshot_message))
    }

    async fn get_snapshot(&self, call: TenantCall<proto::GetSnapshotRequest>) -> Result<proto::Snapshot> {
        let (vm, id) = SnapshotId::parse_in("name", &call.request.name)?;
        let read = async |tx: &mut TenantTx<Read>| {
            vms::get(tx, vm).await?;
            snapshots::get(tx, vm, id).await
        };
        self.store.read(&call.tenant(), read).await.map(snapshot_message)
    }

    async fn create_snapshot(&self, call: TenantCall<proto::CreateSnapshotRequest>) -> Result<Operation> {
        let parent = VmId::parse("parent", &call.request.parent)?;
        let desired = call.request.snapshot.clone().unwrap_or_default();
        let operation = OperationId::new();
        let create = async |tx: &mut TenantTx<Write>| {
            let mut vm = vms::lock(tx, parent).await?;
            let now = Utc::now();
            let snapshot = Snapshot {
                tenant_id: vm.tenant_id,
                id: SnapshotId::new(),
                vm_id: vm.id,
                display_name: desired.display_name.clone(),
                description: desired.description.clone(),
                state: SnapshotState::Creating,
                state_reason: String::new(),
                cpu_count: vm.cpu_count,
                memory_mib: vm.memory_mib,
                creator: tx.actor(),
                created_at: now,
                updated_at: now,
                version: 1,
            };
            let job = VmSnapshot { vm: vm.id, operation, snapshot: snapshot.id, verb: Verb::Create };
            let new = snapshots::operation(operation, job.verb, vm.id, snapshot.id);
            let started = operations::start(tx, new, &job).await?;
            let state = vm.state.begin_on_snapshot(job.verb, vm.id)?;
            let message = "A snapshot was requested".to_owned();
            let event = Event { reason: "VM_SNAPSHOT_REQUESTED", message, operation: Some(operation) };
            enter(tx, &mut vm, state, event).await?;
            snapshots::insert(tx, &snapshot, operation).await?;
            tx.audit_resource(snapshot.name());
            Ok(started)
        };
        start(&call, &self.store, operation, create).await
    }

    async fn delete_snapshot(&self, call: TenantCall<proto::DeleteSnapshotRequest>) -> Result<Operation> {
        let proto::DeleteSnapshotRequest { name, etag, .. } = &call.request;
        self.start_on(&call, name, etag, Verb::Delete).await
    }

    async fn revert_snapshot(&self, call: TenantCall<proto::RevertSnapshotRequest>) -> Result<Operation> {
        self.start_on(&call, &call.request.name, "", Verb::Revert).await
    }
}

impl Snapshots {
    /// Starts an operation on a snapshot that there is.
    async fn start_on<R: Mutation>(
        &self,
        call: &TenantCall<R>,
        name: &str,
        etag: &str,
        verb: Verb,
    ) -> Result<Operation> {
        let (vm, id) = SnapshotId::parse_in("name", name)?;
        let operation = OperationId::new();
        let change = async |tx: &mut TenantTx<Write>| {
            let mut vm = vms::lock(tx, vm).await?;
            let snapshot = snapshots::get(tx, vm.id, id).await?;
            Error::check_etag(etag, &snapshot.etag())?;
            let job = VmSnapshot { vm: vm.id, operation, snapshot: id, verb };
            let started = operations::start(tx, snapshots::operation(operation, verb, vm.id, id), &job).await?;
            usable(&snapshot, verb)?;
            let state = vm.state.begin_on_snapshot(verb, vm.id)?;
            if verb == Verb::Delete {
                let message = "Deletion of a snapshot was requested".to_owned();
                let event = Event { reason: "VM_SNAPSHOT_DELETE_REQUESTED", message, operation: Some(operation) };
                enter(tx, &mut vm, state, event).await?;
                let message = "Deletion was requested".to_owned();
                let event = Event { reason: "SNAPSHOT_DELETE_REQUESTED", message, operation: Some(operation) };
                snapshots::update_state(tx, id, SnapshotState::Deleting, "", &event).await?;
            } else {
                // With its settings the VM gets back its size of then, which the quota must have room for.
                let Snapshot { cpu_count, memory_mib, .. } = snapshot;
                let size = Size { cpu_count, memory_mib, disk_gib: vm.disk_gib };
                let message = "Going back to a snapshot was requested".to_owned();
                let event = Event { reason: "VM_REVERT_REQUESTED", message, operation: Some(operation) };
                vms::set_desired_size(tx, &mut vm, state, size, event).await?;
            }
            tx.audit_resource(snapshot.name());
            Ok(started)
        };
        start(call, &self.store, operation, change).await
    }
}

/// Whether a snapshot can be deleted or gone back to.
fn usable(snapshot: &Snapshot, verb: Verb) -> Result<()> {
    match (snapshot.state, verb) {
        (SnapshotState::Ready, _) | (SnapshotState::Error, Verb::Delete) => Ok(()),
        (state, verb) => {
            let message = format!("a snapshot that is {state} does not allow {}", work(verb));
            Err(Error::precondition("SNAPSHOT_STATE", snapshot.name(), message))
        }
    }
}
