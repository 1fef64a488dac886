//! Quotas: members see theirs, operators of the platform set them.

use tonic::{Request, Response, Status};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::Store;

use crate::generated::virtualstack::compute::v1::quota_service_server::QuotaService;

pub(crate) struct Quotas {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl QuotaService for Quotas {
    async fn get_quota(&self, _request: Request<proto::GetQuotaRequest>) -> Result<Response<proto::Quota>, Status> {
        let _ = &self.store;
        Err(Status::unimplemented("placeholder"))
    }

    async fn get_tenant_quota(
        &self,
        _request: Request<proto::GetTenantQuotaRequest>,
    ) -> Result<Response<proto::Quota>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn update_tenant_quota(
        &self,
        _request: Request<proto::UpdateTenantQuotaRequest>,
    ) -> Result<Response<proto::Quota>, Status> {
        Err(Status::unimplemented("placeholder"))
    }
}
