//! Sessions.

use tonic::{Request, Response, Status};
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
        Ok(Response::new(Session {
            name: who.session.name(),
            user: who.user.name(),
            tenant: who.tenant.name(),
            roles: who.roles,
            permissions: who.permissions,
            credential: "access_token".to_owned(),
            create_time: Some(wire::time(who.created_at)),
            expire_time: Some(wire::time(who.expires_at)),
        }))
    }
}
