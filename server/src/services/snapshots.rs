//! Snapshots of virtual machines.

use tonic::{Request, Response, Status};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::Store;

use crate::generated::virtualstack::compute::v1::snapshot_service_server::SnapshotService;

pub(crate) struct Snapshots {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl SnapshotService for Snapshots {
    async fn list_snapshots(
        &self,
        _request: Request<proto::ListSnapshotsRequest>,
    ) -> Result<Response<proto::ListSnapshotsResponse>, Status> {
        let _ = &self.store;
        Err(Status::unimplemented("placeholder"))
    }

    async fn get_snapshot(
        &self,
        _request: Request<proto::GetSnapshotRequest>,
    ) -> Result<Response<proto::Snapshot>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn create_snapshot(
        &self,
        _request: Request<proto::CreateSnapshotRequest>,
    ) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn delete_snapshot(
        &self,
        _request: Request<proto::DeleteSnapshotRequest>,
    ) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn revert_snapshot(
        &self,
        _request: Request<proto::RevertSnapshotRequest>,
    ) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("placeholder"))
    }
}
