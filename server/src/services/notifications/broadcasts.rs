//! Broadcasts of the provider, for its operators.

use virtualstack_model::notifications::id::BroadcastId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::notifications::v1 as proto;
use virtualstack_store::notifications::broadcasts::{self, Broadcast};
use virtualstack_store::{Store, SystemTx, TenantTx, Write};

use super::audience;
use super::broadcast_messages::{UPDATABLE, draft, merge, message, says};
use crate::call::PlatformCall;
use crate::call::list::{List as _, page};
use crate::call::message::update_mask;
use crate::call::write::{Answer, Mutation};
use crate::generated::virtualstack::notifications::v1::BroadcastService;

/// Of operators, not of one tenant.
const PLATFORM: bool = true;

pub(crate) struct Broadcasts {
    pub(crate) store: Store,
}

impl BroadcastService for Broadcasts {
    async fn list_broadcasts(
        &self,
        call: PlatformCall<proto::ListBroadcastsRequest>,
    ) -> Result<proto::ListBroadcastsResponse> {
        let (request, owner) = (call.request.list(), call.tenant_id());
        let list = async |tx: &mut SystemTx| broadcasts::list(tx, owner, PLATFORM, &request).await;
        Ok(page(self.store.system(call.platform(), list).await?, |row| message(row, None)))
    }

    async fn get_broadcast(&self, call: PlatformCall<proto::GetBroadcastRequest>) -> Result<proto::Broadcast> {
        let (id, owner) = (BroadcastId::parse("name", &call.request.name)?, call.tenant_id());
        let get = async |tx: &mut SystemTx| {
            let row = broadcasts::get(tx, owner, id, PLATFORM).await?;
            Ok(message(row, Some(broadcasts::reach(tx, owner, id).await?)))
        };
        self.store.system(call.platform(), get).await
    }

    async fn create_broadcast(&self, call: PlatformCall<proto::CreateBroadcastRequest>) -> Result<proto::Broadcast> {
        let desired = call.request.broadcast.clone().unwrap_or_default();
        let owner = call.tenant_id();
        let create = async |tx: &mut SystemTx| {
            let to = audience::of_platform(tx, desired.audience.as_ref()).await?;
            let mut row = draft(owner, PLATFORM);
            merge(&mut row, &desired, &UPDATABLE, Some(&to))?;
            let insert = async |inside: &mut TenantTx<Write>| broadcasts::insert(inside, &row).await;
            broadcasts::within(tx, owner, &call.audit(row.name()), insert).await?;
            Ok(message(row, None))
        };
        call.write(&self.store, create).await
    }

    async fn update_broadcast(&self, call: PlatformCall<proto::UpdateBroadcastRequest>) -> Result<proto::Broadcast> {
        let desired = call.request.broadcast.clone().unwrap_or_default();
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| says(&desired, field))?;
        let (id, owner) = (BroadcastId::parse("broadcast.name", &desired.name)?, call.tenant_id());
        let update = async |tx: &mut SystemTx| {
            let row = broadcasts::get(tx, owner, id, PLATFORM).await?;
            let to = match fields.contains(&"audience") && desired.audience != message(row, None).audience {
                true => Some(audience::of_platform(tx, desired.audience.as_ref()).await?),
                // Some of it may be there no more.
                false => None,
            };
            let change = |row: &mut Broadcast| merge(row, &desired, &fields, to.as_ref());
            let why = ("BROADCAST_UPDATED", "The broadcast was changed");
            self.change(tx, &call, ("broadcast.name", &desired.name, &desired.etag), why, change).await
        };
        call.write(&self.store, update).await
    }

    async fn delete_broadcast(&self, call: PlatformCall<proto::DeleteBroadcastRequest>) -> Result<()> {
        let (id, owner) = (BroadcastId::parse("name", &call.request.name)?, call.tenant_id());
        let delete = async |tx: &mut SystemTx| {
            let delete = async |inside: &mut TenantTx<Write>| {
                let row = broadcasts::lock(inside, id, PLATFORM).await?;
                Error::check_etag(&call.request.etag, &row.etag())?;
                broadcasts::delete(inside, &row).await
            };
            broadcasts::within(tx, owner, &call.audit(id.name()), delete).await
        };
        call.write(&self.store, delete).await
    }

    async fn activate_broadcast(
        &self,
        call: PlatformCall<proto::ActivateBroadcastRequest>,
    ) -> Result<proto::Broadcast> {
        let why = ("BROADCAST_ACTIVATED", "The broadcast was activated");
        let activate = async |tx: &mut SystemTx| {
            self.change(tx, &call, ("name", &call.request.name, ""), why, broadcasts::activate).await
        };
        call.write(&self.store, activate).await
    }

    async fn deactivate_broadcast(
        &self,
        call: PlatformCall<proto::DeactivateBroadcastRequest>,
    ) -> Result<proto::Broadcast> {
        let why = ("BROADCAST_DEACTIVATED", "The broadcast was deactivated");
        let deactivate = async |tx: &mut SystemTx| {
            self.change(tx, &call, ("name", &call.request.name, ""), why, broadcasts::deactivate).await
        };
        call.write(&self.store, deactivate).await
    }

    async fn preview_broadcast(
        &self,
        call: PlatformCall<proto::PreviewBroadcastRequest>,
    ) -> Result<proto::PreviewBroadcastResponse> {
        let (id, owner) = (BroadcastId::parse("name", &call.request.name)?, call.tenant_id());
        let preview = async |tx: &mut SystemTx| {
            broadcasts::get(tx, owner, id, PLATFORM).await?;
            broadcasts::reach(tx, owner, id).await
        };
        let addressed = self.store.system(call.platform(), preview).await?.addressed;
        Ok(proto::PreviewBroadcastResponse { addressed: i32::try_from(addressed).unwrap_or(i32::MAX) })
    }
}

impl Broadcasts {
    /// Changes the broadcast of this name, if it still has this etag.
    async fn change<R: Mutation>(
        &self,
        tx: &mut SystemTx,
        call: &PlatformCall<R>,
        (field, name, etag): (&str, &str, &str),
        why: (&'static str, &'static str),
        f: impl Fn(&mut Broadcast) -> Result<()> + Send + Sync,
    ) -> Result<proto::Broadcast> {
        let (id, owner) = (BroadcastId::parse(field, name)?, call.tenant_id());
        let change =
            async |inside: &mut TenantTx<Write>| broadcasts::change(inside, (id, PLATFORM), etag, why, &f).await;
        let row = broadcasts::within(tx, owner, &call.audit(id.name()), change).await?;
        Ok(message(row, None))
    }
}

impl Answer<SystemTx> for proto::Broadcast {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut SystemTx, name: &str) -> Result<Self> {
        let row = broadcasts::find(tx, BroadcastId::parse("request_id", name)?).await?;
        Ok(message(row, None))
    }
}
