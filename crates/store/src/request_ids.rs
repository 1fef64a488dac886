//! Request ids: a repeat within 24 hours gets the answer of the first.

use chrono::{TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use virtualstack_model::id::{AccountId, TenantId};
use virtualstack_model::{Error, Result};

use crate::schema::request_ids as table;
use crate::tx::error::{CONFLICT, from_diesel};
use crate::tx::scope::TenantScope;
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

/// Who a request id belongs to: nobody else's repeats meet it.
#[derive(Clone, Copy)]
struct Asker {
    tenant: TenantId,
    account: AccountId,
}

impl Asker {
    fn of(tx: &TenantTx<Write>) -> Option<Self> {
        tx.account.map(|account| Self { tenant: tx.tenant(), account })
    }
}

/// The resource that the first call with this request id gave, if this is a repeat.
pub async fn answered(tx: &mut TenantTx<Write>, request: &Request) -> Result<Option<String>> {
    let Some(asker) = Asker::of(tx) else { return Ok(None) };
    find(tx.connection()?, asker, request).await
}

/// Remembers what a request id was answered with. An answer older than 24 hours makes room.
pub async fn remember(tx: &mut TenantTx<Write>, request: &Request, resource: &str) -> Result<()> {
    let Some(asker) = Asker::of(tx) else { return Ok(()) };
    insert(tx.connection()?, asker, request, resource).await
}

/// The same for an operator's request, of which `resource` is the answer unless it is a repeat: the first one's, then.
pub async fn answered_or_remember(
    tx: &mut SystemTx,
    scope: &TenantScope,
    request: &Request,
    resource: &str,
) -> Result<Option<String>> {
    let asker = Asker { tenant: scope.tenant, account: scope.account };
    let answered = find(tx.connection()?, asker, request).await?;
    if answered.is_none() {
        insert(tx.connection()?, asker, request, resource).await?;
    }
    Ok(answered)
}

async fn find(connection: &mut AsyncPgConnection, asker: Asker, request: &Request) -> Result<Option<String>> {
    let Some(id) = request.id else { return Ok(None) };
    let found: Option<(String, Vec<u8>, String)> = table::table
        .filter(table::tenant_id.eq(asker.tenant.0).and(table::account_id.eq(asker.account.0)))
        .filter(table::request_id.eq(id).and(table::created_at.gt(Utc::now() - MEMORY)))
        .select((table::method, table::body_digest, table::resource))
        .first(connection)
        .await
        .optional()
        .map_err(from_diesel)?;
    match found {
        None => Ok(None),
        Some((method, digest, resource)) if method == request.method && digest == request.digest => Ok(Some(resource)),
        Some(_) => Err(Error::invalid("request_id", "was used for another request; take a new UUID for each")),
    }
}

async fn insert(connection: &mut AsyncPgConnection, asker: Asker, request: &Request, resource: &str) -> Result<()> {
    let Some(id) = request.id else { return Ok(()) };
    let answer = (
        table::method.eq(request.method),
        table::body_digest.eq(&request.digest),
        table::resource.eq(resource),
        table::created_at.eq(Utc::now()),
    );
    let key = (table::tenant_id.eq(asker.tenant.0), table::account_id.eq(asker.account.0), table::request_id.eq(id));
    let upsert = diesel::insert_into(table::table)
        .values((key, answer))
        .on_conflict((table::tenant_id, table::account_id, table::request_id))
        .do_update()
        .set(answer);
    let stale = table::created_at.lt(Utc::now() - MEMORY);
    let written =
        diesel::query_dsl::methods::FilterDsl::filter(upsert, stale).execute(connection).await.map_err(from_diesel)?;
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
