//! Request ids: a repeat within 24 hours gets the answer of the first.

use chrono::{TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use virtualstack_model::{Error, Result};

use crate::error::{CONFLICT, from_diesel};
use crate::schema::request_ids as table;
use crate::tx::{SystemTx, TenantTx, Write};

/// How long an answer is remembered.
const MEMORY: TimeDelta = TimeDelta::hours(24);

/// A request that may be a repeat.
#[derive(Clone, Debug)]
pub struct Request {
    id: Option<Uuid>,
    method: &'static str,
    digest: Vec<u8>,
}

impl Request {
    /// `id` may be empty: then every call is a new one. `body` is the request as it was sent.
    pub fn new(method: &'static str, id: &str, body: &[u8]) -> Result<Self> {
        let id = match id {
            "" => None,
            id => Some(Uuid::try_parse(id).map_err(|_| Error::invalid("request_id", "must be a UUID"))?),
        };
        Ok(Self { id, method, digest: Sha256::digest(body).to_vec() })
    }
}

/// The resource that the first call with this request id gave, if this is a repeat.
pub async fn answered(tx: &mut TenantTx<Write>, request: &Request) -> Result<Option<String>> {
    let (Some(id), Some(account)) = (request.id, tx.account) else { return Ok(None) };
    let tenant = tx.tenant();
    let found: Option<(String, Vec<u8>, String)> = table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::account_id.eq(account.0)).and(table::request_id.eq(id)))
        .filter(table::created_at.gt(Utc::now() - MEMORY))
        .select((table::method, table::body_digest, table::resource))
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    match found {
        None => Ok(None),
        Some((method, digest, resource)) if method == request.method && digest == request.digest => Ok(Some(resource)),
        Some(_) => Err(Error::invalid("request_id", "was used for another request; take a new UUID for each")),
    }
}

/// Remembers what a request id was answered with. An answer older than 24 hours makes room.
pub async fn remember(tx: &mut TenantTx<Write>, request: &Request, resource: &str) -> Result<()> {
    let (Some(id), Some(account)) = (request.id, tx.account) else { return Ok(()) };
    let answer = (
        table::method.eq(request.method),
        table::body_digest.eq(&request.digest),
        table::resource.eq(resource),
        table::created_at.eq(Utc::now()),
    );
    let key = (table::tenant_id.eq(tx.tenant().0), table::account_id.eq(account.0), table::request_id.eq(id));
    let upsert = diesel::insert_into(table::table)
        .values((key, answer))
        .on_conflict((table::tenant_id, table::account_id, table::request_id))
        .do_update()
        .set(answer);
    let stale = table::created_at.lt(Utc::now() - MEMORY);
    let written = diesel::query_dsl::methods::FilterDsl::filter(upsert, stale)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    // Two calls with the same request id at once: the slower one starts over, and finds the faster one's answer.
    if written == 0 {
        return Err(Error::aborted(CONFLICT, "the same request is being handled"));
    }
    Ok(())
}

/// Forgets answers older than 24 hours.
pub async fn prune(tx: &mut SystemTx) -> Result<usize> {
    diesel::delete(table::table.filter(table::created_at.lt(Utc::now() - MEMORY)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
}
