//! The authorization epoch of a tenant: every decision rests on it, so a higher one makes all of them be made again.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;

use crate::schema::tenants as table;
use crate::tx::error::from_diesel;
use crate::tx::{TenantTx, Write};

/// Makes changes of access in the tenant wait for one another, until the end of the transaction.
pub(crate) async fn lock(tx: &mut TenantTx<Write>) -> Result<()> {
    let row = table::table.find(tx.tenant()).select(table::id).for_no_key_update();
    row.execute(tx.connection()?).await.map_err(from_diesel)?;
    Ok(())
}

/// Invalidates every decision about access in the tenant, from the next request on.
pub(crate) async fn raise(tx: &mut TenantTx<Write>) -> Result<()> {
    let tenant = tx.tenant();
    diesel::update(table::table.find(tenant))
        .set(table::authz_epoch.eq(table::authz_epoch + 1))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
