//! Sessions.

use virtualstack_model::Result;
use virtualstack_model::id::{SessionId, TenantId};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_store::iam::sessions::{self, Session};
use virtualstack_store::{AccountTx, Store};

use crate::call::AccountCall;
use crate::call::caller::AccountCaller;
use crate::call::list::{List as _, page};
use crate::call::message::time;
use crate::generated::virtualstack::iam::v1::SessionService;

pub(crate) struct Sessions {
    pub(crate) store: Store,
}

impl SessionService for Sessions {
    async fn get_current_session(&self, call: AccountCall<proto::GetCurrentSessionRequest>) -> Result<proto::Session> {
        let scope = call.account();
        // Opening the transaction holds the credential against what is true now.
        let read = async |tx: &mut AccountTx| match scope.session() {
            Some(session) => sessions::get(tx, session).await.map(Some),
            None => Ok(None),
        };
        Ok(match self.store.account(&scope, read).await? {
            Some(row) => message(row, &call),
            None => current(proto::Session::default(), &call),
        })
    }

    async fn list_sessions(
        &self,
        call: AccountCall<proto::ListSessionsRequest>,
    ) -> Result<proto::ListSessionsResponse> {
        let request = call.request.list();
        let listed = self.store.account(&call.account(), async |tx| sessions::list(tx, &request).await).await?;
        Ok(page(listed, |row| message(row, &call)))
    }

    async fn get_session(&self, call: AccountCall<proto::GetSessionRequest>) -> Result<proto::Session> {
        let id = SessionId::parse("name", &call.request.name)?;
        let row = self.store.account(&call.account(), async |tx| sessions::get(tx, id).await).await?;
        Ok(message(row, &call))
    }

    async fn delete_session(&self, call: AccountCall<proto::DeleteSessionRequest>) -> Result<()> {
        let id = SessionId::parse("name", &call.request.name)?;
        let end = async |tx: &mut AccountTx| {
            if !sessions::end(tx, id).await? {
                return Err(sessions::missing(id));
            }
            tx.audit(&call.audit(id.name()), &[]).await
        };
        call.write(&self.store, end).await
    }
}

/// A session of the caller's account.
fn message(row: Session, caller: &AccountCaller) -> proto::Session {
    let session = proto::Session {
        name: row.id.name(),
        tenant: row.support_tenant_id.map(TenantId::name).unwrap_or_default(),
        credential: if row.support_tenant_id.is_some() { "support_token" } else { "access_token" }.to_owned(),
        create_time: Some(time(row.created_at)),
        expire_time: Some(time(row.expires_at)),
        client_address: row.client_address().map(|address| address.to_string()).unwrap_or_default(),
        support_reason: row.support_reason.unwrap_or_default(),
        ..proto::Session::default()
    };
    if caller.principal.credential.session() == Some(row.id) { current(session, caller) } else { session }
}

/// A session, or API key, with what is known of the one that the call was made with.
fn current(session: proto::Session, caller: &AccountCaller) -> proto::Session {
    let who = &caller.principal;
    let access = &who.access;
    proto::Session {
        name: who.credential.name(),
        user: access.user.name(),
        tenant: access.tenant.name(),
        roles: access.roles.iter().map(|role| role.display_name.clone()).collect(),
        permissions: access.permissions().into_iter().map(str::to_owned).collect(),
        credential: if caller.is_api_key() { "api_key".to_owned() } else { session.credential },
        create_time: session.create_time.or_else(|| Some(time(who.created_at))),
        expire_time: session.expire_time.or_else(|| who.expires_at.map(time)),
        current: true,
        ..session
    }
}
