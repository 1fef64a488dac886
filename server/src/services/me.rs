//! The caller's own account.

use tonic::{Request, Response, Status};
use virtualstack_model::user::MembershipState;
use virtualstack_proto::virtualstack::iam::v1::user::State;
use virtualstack_proto::virtualstack::iam::v1::{GetMeRequest, UpdateMeRequest, User};
use virtualstack_store::Store;
use virtualstack_store::accounts::{self, Member};

use crate::caller::Caller;
use crate::generated::virtualstack::iam::v1::me_service_server::MeService;
use crate::status::from_error;
use crate::wire;

pub(crate) struct Me {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl MeService for Me {
    async fn get_me(&self, request: Request<GetMeRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let scope = caller.account();
        let member =
            self.store.account(&scope, async |tx| accounts::me(tx, scope.tenant()).await).await.map_err(from_error)?;
        Ok(Response::new(user(member, caller)))
    }

    async fn update_me(&self, request: Request<UpdateMeRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.user.unwrap_or_default();
        let fields = wire::update_mask(request.update_mask, &["display_name"], |_| true).map_err(from_error)?;
        let scope = caller.account();
        let audit = caller.audit(scope.user().name());
        let member = self
            .store
            .account(&scope, async |tx| {
                if !fields.is_empty() {
                    accounts::set_display_name(tx, &wanted.display_name).await?;
                    tx.audit(&audit).await?;
                }
                accounts::me(tx, scope.tenant()).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(user(member, caller)))
    }
}

fn user(member: Member, caller: Caller) -> User {
    let state = match member.state {
        MembershipState::Invited => State::Invited,
        MembershipState::Active => State::Active,
        MembershipState::Inactive => State::Inactive,
    };
    User {
        name: member.user.name(),
        email: member.email,
        display_name: member.display_name,
        state: state.into(),
        roles: caller.principal.roles,
        create_time: Some(wire::time(member.created_at)),
        update_time: Some(wire::time(member.updated_at)),
    }
}
