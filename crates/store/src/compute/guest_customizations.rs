//! What guests are told at their first boot: sealed, from the request for a VM until it is made.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::compute::customization::GuestCustomization;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::{Error, Result};

use crate::schema::guest_customizations as table;
use crate::seal::MasterKey;
use crate::tx::error::from_diesel;
use crate::tx::{Mode, TenantTx, Write};

/// What they are sealed for.
fn purpose(vm: VmId) -> String {
    format!("compute.guest_customization {vm}")
}

/// Keeps what a VM's guest is told.
pub async fn put(
    tx: &mut TenantTx<Write>,
    key: &MasterKey,
    vm: VmId,
    customization: &GuestCustomization,
) -> Result<()> {
    let text = serde_json::to_vec(customization).map_err(Error::internal)?;
    let sealed = key.seal(&purpose(vm), &text)?;
    diesel::insert_into(table::table)
        .values((table::tenant_id.eq(tx.tenant()), table::vm_id.eq(vm), table::sealed.eq(sealed)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// What a VM's guest is told, if that was said.
pub async fn get<M: Mode>(tx: &mut TenantTx<M>, key: &MasterKey, vm: VmId) -> Result<Option<GuestCustomization>> {
    let tenant = tx.tenant();
    let sealed: Option<Vec<u8>> = table::table
        .filter(table::tenant_id.eq(tenant).and(table::vm_id.eq(vm)))
        .select(table::sealed)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(sealed) = sealed else { return Ok(None) };
    serde_json::from_slice(&key.open(&purpose(vm), &sealed)?).map(Some).map_err(Error::internal)
}

/// Forgets what a VM's guest is told: the VM has been made.
pub async fn remove(tx: &mut TenantTx<Write>, vm: VmId) -> Result<()> {
    let row = table::table.filter(table::tenant_id.eq(tx.tenant()).and(table::vm_id.eq(vm)));
    diesel::delete(row).execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}
