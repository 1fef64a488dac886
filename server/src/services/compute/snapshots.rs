//! Snapshots of virtual machines.

use chrono::Utc;
use tonic::{Request, Response, Status};
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::jobs::VmSnapshot;
use virtualstack_model::compute::snapshot::{SnapshotState, work};
use virtualstack_model::compute::vm::Size;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::snapshots::{self, Snapshot};
use virtualstack_store::compute::vms;
use virtualstack_store::{ListRequest, Listed, Store, operations};

use crate::call::caller::Caller;
use crate::call::status::from_error;
use crate::generated::virtualstack::compute::v1::snapshot_service_server::SnapshotService;
use crate::services::mutations::{Mutation, enter};
use crate::wire::vm::snapshot_message;

pub(crate) struct Snapshots {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl SnapshotService for Snapshots {
    async fn list_snapshots(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Result<Response<proto::ListSnapshotsResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let proto::ListSnapshotsRequest { parent, page_size, page_token, filter, order_by, show_total } =
            request.into_inner();
        let vm = VmId::parse("parent", &parent).map_err(from_error)?;
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } = self
            .store
            .read(&scope, async |tx| {
                vms::get(tx, vm).await?;
                snapshots::list(tx, vm, &request).await
            })
            .await
            .map_err(from_error)?;
        let snapshots = rows.into_iter().map(snapshot_message).collect();
        Ok(Response::new(proto::ListSnapshotsResponse { snapshots, next_page_token, total_size }))
    }

    async fn get_snapshot(
        &self,
        request: Request<proto::GetSnapshotRequest>,
    ) -> Result<Response<proto::Snapshot>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let (vm, id) = SnapshotId::parse_in("name", &request.get_ref().name).map_err(from_error)?;
        let row = self
            .store
            .read(&scope, async |tx| {
                vms::get(tx, vm).await?;
                snapshots::get(tx, vm, id).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(snapshot_message(row)))
    }

    async fn create_snapshot(
        &self,
        request: Request<proto::CreateSnapshotRequest>,
    ) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("CreateSnapshot", &request, |it| (&it.request_id, it.validate_only))?;
        let proto::CreateSnapshotRequest { parent, snapshot, .. } = request.into_inner();
        let parent = VmId::parse("parent", &parent).map_err(from_error)?;
        let wanted = snapshot.unwrap_or_default();
        let operation = mutation.operation;
        mutation
            .make(&self.store, async |tx| {
                let mut vm = vms::lock(tx, parent).await?;
                let now = Utc::now();
                let snapshot = Snapshot {
                    tenant_id: vm.tenant_id,
                    id: SnapshotId::new(),
                    vm_id: vm.id,
                    display_name: wanted.display_name.clone(),
                    description: wanted.description.clone(),
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
            })
            .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("DeleteSnapshot", &request, |it| (&it.request_id, it.validate_only))?;
        let proto::DeleteSnapshotRequest { name, etag, .. } = request.into_inner();
        self.begin(&mutation, &name, &etag, Verb::Delete).await
    }

    async fn revert_snapshot(
        &self,
        request: Request<proto::RevertSnapshotRequest>,
    ) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("RevertSnapshot", &request, |it| (&it.request_id, it.validate_only))?;
        self.begin(&mutation, &request.get_ref().name, "", Verb::Revert).await
    }
}

impl Snapshots {
    /// Starts an operation on a snapshot that there is.
    async fn begin(
        &self,
        mutation: &Mutation,
        name: &str,
        etag: &str,
        verb: Verb,
    ) -> Result<Response<Operation>, Status> {
        let (vm, id) = SnapshotId::parse_in("name", name).map_err(from_error)?;
        let operation = mutation.operation;
        mutation
            .make(&self.store, async |tx| {
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
                    vms::want_size(tx, &mut vm, state, size, event).await?;
                }
                tx.audit_resource(snapshot.name());
                Ok(started)
            })
            .await
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
