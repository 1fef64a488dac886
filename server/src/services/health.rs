//! grpc.health.v1: whether the server can serve, which is whether its database answers.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as Contract, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use virtualstack_store::Store;

/// How often a watch looks.
const INTERVAL: Duration = Duration::from_secs(2);

pub(crate) struct Health {
    store: Store,
}

pub(crate) fn service(store: Store) -> HealthServer<Health> {
    HealthServer::new(Health { store })
}

#[tonic::async_trait]
impl Contract for Health {
    /// A server that is not serving says why in the metadata `reason`.
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.get_ref().service)?;
        let (status, reason) = look(&self.store).await;
        let mut response = Response::new(HealthCheckResponse { status: status.into() });
        if let Ok(reason) = MetadataValue::try_from(reason) {
            response.metadata_mut().insert("reason", reason);
        }
        Ok(response)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        known(&request.get_ref().service)?;
        let store = self.store.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = None;
            loop {
                let (status, _) = look(&store).await;
                let changed = last.replace(status) != Some(status);
                if changed && sender.send(Ok(HealthCheckResponse { status: status.into() })).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }
}

async fn look(store: &Store) -> (ServingStatus, String) {
    match store.ping().await {
        Ok(()) => (ServingStatus::Serving, String::new()),
        Err(error) => (ServingStatus::NotServing, error.to_string()),
    }
}

fn known(service: &str) -> Result<(), Status> {
    let known = service.is_empty() || virtualstack_proto::DESCRIPTOR_POOL.get_service_by_name(service).is_some();
    if known { Ok(()) } else { Err(Status::not_found("there is no such service")) }
}
