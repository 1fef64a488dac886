//! Sessions.

use tonic::{Request, Response, Status};
use virtualstack_model::access::Credential;
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_proto::virtualstack::iam::v1::{GetCurrentSessionRequest, Session};

use crate::caller::Caller;
use crate::generated::virtualstack::iam::v1::session_service_server::SessionService;
use crate::wire;

pub(crate) struct Sessions;

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn get_current_session(
        &self,
        request: Request<GetCurrentSessionRequest>,
    ) -> Result<Response<Session>, Status> {
        let who = Caller::of(&request)?.principal;
        let access = &who.access;
        let credential = match &who.credential {
            Credential::Session(_) => "access_token",
            Credential::Support { .. } => "support_token",
            Credential::ApiKey { .. } => "api_key",
        };
        Ok(Response::new(Session {
            name: who.credential.name(),
            user: access.user.name(),
            tenant: access.tenant.name(),
            roles: access.roles.iter().map(|role| role.display_name.clone()).collect(),
            permissions: access.permissions().into_iter().map(str::to_owned).collect(),
            credential: credential.to_owned(),
            create_time: Some(wire::time(who.created_at)),
            expire_time: who.expires_at.map(wire::time),
            support_reason: who.credential.support_reason().unwrap_or_default().to_owned(),
            current: true,
            ..Session::default()
        }))
    }
    async fn list_sessions(
        &self,
        _: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn get_session(&self, _: Request<proto::GetSessionRequest>) -> Result<Response<proto::Session>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn delete_session(&self, _: Request<proto::DeleteSessionRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }
}
