//! Broadcasts that a tenant's admins tell their tenant.

use virtualstack_model::id::TenantId;
use virtualstack_model::notifications::id::BroadcastId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::notifications::v1 as proto;
use virtualstack_store::iam::tenants::Key;
use virtualstack_store::notifications::broadcasts::{self, Broadcast};
use virtualstack_store::{Read, Store, TenantTx, Write};

use super::audience;
use super::broadcast_messages::{UPDATABLE, draft, merge, message, says};
use crate::call::TenantCall;
use crate::call::list::{List as _, page};
use crate::call::message::update_mask;
use crate::call::write::Answer;
use crate::generated::virtualstack::notifications::v1::TenantBroadcastService;

/// Of one tenant, not of operators.
const PLATFORM: bool = false;

pub(crate) struct TenantBroadcasts {
    pub(crate) store: Store,
}

impl TenantBroadcastService for TenantBroadcasts {
    async fn list_tenant_broadcasts(
        &self,
        call: TenantCall<proto::ListTenantBroadcastsRequest>,
    ) -> Result<proto::ListTenantBroadcastsResponse> {
        let (request, owner) = (call.request.list(), call.tenant_id());
        let listed = broadcasts::list(&mut self.store.single(&call.tenant()), owner, PLATFORM, &request).await?;
        Ok(page(listed, |row| message(row, None)))
    }

    async fn get_tenant_broadcast(
        &self,
        call: TenantCall<proto::GetTenantBroadcastRequest>,
    ) -> Result<proto::Broadcast> {
        let id = broadcast_id("name", &call.request.name, call.tenant_id())?;
        let get = async |tx: &mut TenantTx<Read>| {
            let row = broadcasts::get_own(tx, id).await?;
            Ok(message(row, Some(broadcasts::own_reach(tx, id).await?)))
        };
        self.store.read(&call.tenant(), get).await
    }

    async fn create_tenant_broadcast(
        &self,
        call: TenantCall<proto::CreateTenantBroadcastRequest>,
    ) -> Result<proto::Broadcast> {
        let desired = call.request.broadcast.clone().unwrap_or_default();
        let owner = call.tenant_id();
        let create = async |tx: &mut TenantTx<Write>| {
            let to = audience::of_tenant(tx, desired.audience.as_ref()).await?;
            let mut row = draft(owner, PLATFORM);
            merge(&mut row, &desired, &UPDATABLE, Some(&to))?;
            broadcasts::insert(tx, &row).await?;
            tx.audit_resource(row.name());
            Ok(message(row, None))
        };
        call.write(&self.store, "", create).await
    }

    async fn update_tenant_broadcast(
        &self,
        call: TenantCall<proto::UpdateTenantBroadcastRequest>,
    ) -> Result<proto::Broadcast> {
        let desired = call.request.broadcast.clone().unwrap_or_default();
        let id = broadcast_id("broadcast.name", &desired.name, call.tenant_id())?;
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| says(&desired, field))?;
        let update = async |tx: &mut TenantTx<Write>| {
            let row = broadcasts::get_own(tx, id).await?;
            let to = match fields.contains(&"audience") && desired.audience != message(row, None).audience {
                true => Some(audience::of_tenant(tx, desired.audience.as_ref()).await?),
                // Some of it may be there no more.
                false => None,
            };
            let change = |row: &mut Broadcast| merge(row, &desired, &fields, to.as_ref());
            let why = ("BROADCAST_UPDATED", "The broadcast was changed");
            broadcasts::change(tx, (id, PLATFORM), &desired.etag, why, change).await.map(|row| message(row, None))
        };
        call.write(&self.store, id.name_in(call.tenant_id()), update).await
    }

    async fn delete_tenant_broadcast(&self, call: TenantCall<proto::DeleteTenantBroadcastRequest>) -> Result<()> {
        let id = broadcast_id("name", &call.request.name, call.tenant_id())?;
        let delete = async |tx: &mut TenantTx<Write>| {
            let row = broadcasts::lock(tx, id, PLATFORM).await?;
            Error::check_etag(&call.request.etag, &row.etag())?;
            broadcasts::delete(tx, &row).await
        };
        call.write(&self.store, id.name_in(call.tenant_id()), delete).await
    }

    async fn activate_tenant_broadcast(
        &self,
        call: TenantCall<proto::ActivateTenantBroadcastRequest>,
    ) -> Result<proto::Broadcast> {
        let id = broadcast_id("name", &call.request.name, call.tenant_id())?;
        let why = ("BROADCAST_ACTIVATED", "The broadcast was activated");
        let activate = async |tx: &mut TenantTx<Write>| {
            let row = broadcasts::change(tx, (id, PLATFORM), "", why, broadcasts::activate).await?;
            broadcasts::expect_few_activations(tx).await?;
            Ok(message(row, None))
        };
        call.write(&self.store, id.name_in(call.tenant_id()), activate).await
    }

    async fn deactivate_tenant_broadcast(
        &self,
        call: TenantCall<proto::DeactivateTenantBroadcastRequest>,
    ) -> Result<proto::Broadcast> {
        let id = broadcast_id("name", &call.request.name, call.tenant_id())?;
        let why = ("BROADCAST_DEACTIVATED", "The broadcast was deactivated");
        let deactivate = async |tx: &mut TenantTx<Write>| {
            broadcasts::change(tx, (id, PLATFORM), "", why, broadcasts::deactivate).await.map(|row| message(row, None))
        };
        call.write(&self.store, id.name_in(call.tenant_id()), deactivate).await
    }

    async fn preview_tenant_broadcast(
        &self,
        call: TenantCall<proto::PreviewTenantBroadcastRequest>,
    ) -> Result<proto::PreviewTenantBroadcastResponse> {
        let id = broadcast_id("name", &call.request.name, call.tenant_id())?;
        let preview = async |tx: &mut TenantTx<Read>| {
            broadcasts::get_own(tx, id).await?;
            broadcasts::own_reach(tx, id).await
        };
        let addressed = self.store.read(&call.tenant(), preview).await?.addressed;
        Ok(proto::PreviewTenantBroadcastResponse { addressed: i32::try_from(addressed).unwrap_or(i32::MAX) })
    }
}

/// The broadcast that a tenant names. Another tenant's, and those of operators, are nothing to it.
fn broadcast_id(field: &str, name: &str, own: TenantId) -> Result<BroadcastId> {
    let missing = || Error::not_found("BROADCAST_NOT_FOUND", name);
    let (tenant, id) = name.strip_prefix("tenants/").and_then(|rest| rest.split_once('/')).ok_or_else(missing)?;
    let is_own = tenant == "current" || matches!(Key::parse(tenant), Key::Id(tenant) if tenant == own);
    if is_own { BroadcastId::parse(field, id) } else { Err(missing()) }
}

impl Answer<TenantTx<Write>> for proto::Broadcast {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        let id = name.rsplit_once("broadcasts/").map_or(name, |(_, id)| id);
        let id = BroadcastId::parse("request_id", &format!("broadcasts/{id}"))?;
        broadcasts::get_own(tx, id).await.map(|row| message(row, None))
    }
}
