//! Sessions.

use tonic::{Request, Response, Status};
use virtualstack_model::Result;
use virtualstack_model::id::{SessionId, TenantId};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_store::iam::sessions::{self, Session};
use virtualstack_store::{AccountTx, ListRequest, Listed, Store};

use crate::call::caller::Caller;
use crate::call::status::from_error;
use crate::generated::virtualstack::iam::v1::session_service_server::SessionService;
use crate::wire;

pub(crate) struct Sessions {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn get_current_session(
        &self,
        request: Request<proto::GetCurrentSessionRequest>,
    ) -> Result<Response<proto::Session>, Status> {
        let caller = Caller::of(&request)?;
        let scope = caller.account();
        // Opening the transaction holds the credential against what is true now.
        let read = async |tx: &mut AccountTx| match scope.session() {
            Some(session) => sessions::get(tx, session).await.map(Some),
            None => Ok(None),
        };
        let session = match self.store.account(&scope, read).await.map_err(from_error)? {
            Some(row) => message(row, &caller),
            None => current(proto::Session::default(), &caller),
        };
        Ok(Response::new(session))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let proto::ListSessionsRequest { page_size, page_token, filter, order_by, show_total } = request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } = self
            .store
            .account(&caller.account(), async |tx| sessions::list(tx, &request).await)
            .await
            .map_err(from_error)?;
        let sessions = rows.into_iter().map(|row| message(row, &caller)).collect();
        Ok(Response::new(proto::ListSessionsResponse { sessions, next_page_token, total_size }))
    }

    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Result<Response<proto::Session>, Status> {
        let caller = Caller::of(&request)?;
        let id = SessionId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let row = self.store.account(&caller.account(), async |tx| sessions::get(tx, id).await).await;
        row.map(|row| Response::new(message(row, &caller))).map_err(from_error)
    }

    async fn delete_session(&self, request: Request<proto::DeleteSessionRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        let id = SessionId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let audit = caller.audit(id.name());
        self.store
            .account(&caller.account(), async |tx| {
                if !sessions::end(tx, id).await? {
                    return Err(sessions::missing(id));
                }
                tx.audit(&audit, &[]).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }
}

/// A session of the caller's account.
fn message(row: Session, caller: &Caller) -> proto::Session {
    let session = proto::Session {
        name: row.id.name(),
        tenant: row.support_tenant_id.map(TenantId::name).unwrap_or_default(),
        credential: if row.support_tenant_id.is_some() { "support_token" } else { "access_token" }.to_owned(),
        create_time: Some(wire::time(row.created_at)),
        expire_time: Some(wire::time(row.expires_at)),
        client_address: row.client_address().map(|address| address.to_string()).unwrap_or_default(),
        support_reason: row.support_reason.unwrap_or_default(),
        ..proto::Session::default()
    };
    if caller.principal.credential.session() == Some(row.id) { current(session, caller) } else { session }
}

/// A session, or API key, with what is known of the one that the call was made with.
fn current(session: proto::Session, caller: &Caller) -> proto::Session {
    let who = &caller.principal;
    let access = &who.access;
    proto::Session {
        name: who.credential.name(),
        user: access.user.name(),
        tenant: access.tenant.name(),
        roles: access.roles.iter().map(|role| role.display_name.clone()).collect(),
        permissions: access.permissions().into_iter().map(str::to_owned).collect(),
        credential: if caller.is_api_key() { "api_key".to_owned() } else { session.credential },
        create_time: session.create_time.or_else(|| Some(wire::time(who.created_at))),
        expire_time: session.expire_time.or_else(|| who.expires_at.map(wire::time)),
        current: true,
        ..session
    }
}
