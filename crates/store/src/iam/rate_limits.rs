//! Token buckets that all servers share. What is limited, and for whom, is the server's to say.

use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool, Double};
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;

use crate::schema::rate_limits as table;
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

#[diesel::declare_sql_function]
extern "SQL" {
    /// Whether they were taken, the tokens left, and the seconds to wait.
    #[sql_name = "iam.take_tokens"]
    fn take_tokens(
        bucket: Binary,
        rate: Double,
        burst: Double,
        desired: Double,
        spent: Bool,
    ) -> Record<(Bool, Double, Double)>;

    /// The time now, not that of the transaction's start.
    fn clock_timestamp() -> Timestamptz;
}

/// How much a bucket holds, and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub rate: f64,
    pub burst: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Whether the tokens were there, and taken.
    pub granted: bool,
    /// Tokens that are there now; below zero, a debt.
    pub left: f64,
    /// Seconds until the tokens are there, if they were not.
    pub wait: f64,
}

/// Takes one token, if it is there.
pub async fn take(tx: &mut SystemTx, key: &[u8], limit: Limit) -> Result<Taken> {
    call(tx, key, limit, 1.0, false).await
}

/// Takes tokens that are `spent` already; what is not there becomes a debt.
pub async fn settle(tx: &mut SystemTx, key: &[u8], limit: Limit, spent: f64) -> Result<Taken> {
    call(tx, key, limit, spent, true).await
}

async fn call(tx: &mut SystemTx, key: &[u8], limit: Limit, desired: f64, spent: bool) -> Result<Taken> {
    let (granted, left, wait) = diesel::select(take_tokens(key, limit.rate, limit.burst, desired, spent))
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(Taken { granted, left, wait })
}

/// Forgets buckets that are full again: one that is not there is full.
pub async fn prune(tx: &mut SystemTx) -> Result<usize> {
    diesel::delete(table::table.filter(table::full_at.lt(clock_timestamp())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
}
