//! Watches: streams of changes, read from the change log.

use futures::stream::BoxStream;
use tonic::{Request, Response, Status};
use virtualstack_proto::virtualstack::watch::v1 as proto;
use virtualstack_store::Store;

use crate::generated::virtualstack::watch::v1::watch_service_server::WatchService;

pub(crate) struct Watches {
    pub(crate) store: Store,
}

type Messages = BoxStream<'static, Result<proto::WatchMessage, Status>>;

#[tonic::async_trait]
impl WatchService for Watches {
    type WatchVmsStream = Messages;
    type WatchOperationsStream = Messages;

    async fn watch_vms(&self, _request: Request<proto::WatchVmsRequest>) -> Result<Response<Messages>, Status> {
        let _ = &self.store;
        Err(Status::unimplemented("placeholder"))
    }

    async fn watch_operations(
        &self,
        _request: Request<proto::WatchOperationsRequest>,
    ) -> Result<Response<Messages>, Status> {
        Err(Status::unimplemented("placeholder"))
    }
}
