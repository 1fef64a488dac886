//! Keys that access tokens are signed with; private keys are sealed by the server.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;

use crate::schema::signing_keys as table;
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// A key as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = table)]
pub struct SigningKey {
    pub kid: String,
    pub public_key: Vec<u8>,
    pub sealed_key: Vec<u8>,
    pub created_at: DateTime<Utc>,
    pub retired_at: Option<DateTime<Utc>>,
}

/// Keys that tokens may still be signed with or verified by. The first is the one to sign with: the newest of those that
/// are not to be retired, whatever the clocks of those who made them said.
pub async fn list(tx: &mut SystemTx) -> Result<Vec<SigningKey>> {
    table::table
        .filter(table::retired_at.is_null().or(table::retired_at.gt(Utc::now())))
        .order((table::retired_at.desc().nulls_first(), table::created_at.desc()))
        .select(SigningKey::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Puts the first key in; the one that was faster stays.
pub async fn insert_first(tx: &mut SystemTx, key: &SigningKey) -> Result<()> {
    lock(tx).await?;
    if list(tx).await?.is_empty() {
        diesel::insert_into(table::table).values(key).execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    Ok(())
}

/// Puts a new key in, to sign with from now on. The others are retired at `retire_at`, or earlier if they were to be.
pub async fn rotate(tx: &mut SystemTx, key: &SigningKey, retire_at: DateTime<Utc>) -> Result<()> {
    lock(tx).await?;
    diesel::update(table::table.filter(table::retired_at.is_null().or(table::retired_at.gt(retire_at))))
        .set(table::retired_at.eq(retire_at))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::insert_into(table::table).values(key).execute(tx.connection()?).await.map_err(from_diesel)?;
    Ok(())
}

/// One at a time makes keys.
async fn lock(tx: &mut SystemTx) -> Result<()> {
    use diesel_async::SimpleAsyncConnection;
    let lock = "SELECT pg_advisory_xact_lock(hashtext('virtualstack.signing_keys'))";
    tx.connection()?.batch_execute(lock).await.map_err(from_diesel)
}
