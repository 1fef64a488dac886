//! Request ids: a repeat within 24 hours gets the answer of the first.

use chrono::{TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use virtualstack_model::id::{AccountId, TenantId};
use virtualstack_model::{Error, Result};

use crate::digest::{Digest, DigestKeys, Purpose};
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
    method: String,
    said: Vec<u8>,
    sent: Vec<u8>,
}

impl Request {
    /// `id` may be empty: then every call is a new one. `said` is the request without the id, `sent` with it.
    pub fn new(method: &str, id: &str, said: Vec<u8>, sent: Vec<u8>) -> Result<Self> {
        let id = match id {
            "" => None,
            id => match Uuid::try_parse(id) {
                // What programs send that have forgotten to make one.
                Ok(id) if id.is_nil() => return Err(Error::invalid("request_id", "must not be the nil UUID")),
                Ok(id) => Some(id),
                Err(_) => return Err(Error::invalid("request_id", "must be a UUID")),
            },
        };
        Ok(Self { id, method: method.to_owned(), said, sent })
    }

    fn digest(&self, keys: &DigestKeys) -> Digest {
        keys.digest(Purpose::Request, &[&self.said])
    }

    /// Whether it says what a request of this digest said. The release before has kept digests without a key.
    fn is(&self, digest: &[u8], keys: &DigestKeys) -> bool {
        keys.is(digest, Purpose::Request, &[&self.said]) || Sha256::digest(&self.sent)[..] == *digest
    }
}

/// Who a request id belongs to: nobody else's repeats meet it.
#[derive(Clone, Copy)]
struct Asker {
    tenant: TenantId,
    account: AccountId,
}

/// A transaction that request ids are kept in: a tenant's, or the system's on an operator's behalf.
pub trait Asked: Send {
    /// The connection, for this module alone.
    #[doc(hidden)]
    fn request_ids(&mut self) -> Result<RequestIds<'_>>;
}

/// The connection of a transaction, for the functions of this module.
pub struct RequestIds<'t>(&'t mut AsyncPgConnection, DigestKeys);

impl Asked for TenantTx<Write> {
    fn request_ids(&mut self) -> Result<RequestIds<'_>> {
        let keys = self.connection.digests()?;
        self.connection().map(|connection| RequestIds(connection, keys))
    }
}

impl Asked for SystemTx {
    fn request_ids(&mut self) -> Result<RequestIds<'_>> {
        let keys = self.connection.digests()?;
        self.connection().map(|connection| RequestIds(connection, keys))
    }
}

/// The resource that the first call with this request id gave, if this is a repeat. Otherwise the request id is taken,
/// before anything else is written: of two calls at once the slower one waits here, starts over, and then finds the
/// faster one's answer instead of what the faster one made. An answer older than 24 hours makes room.
pub async fn take(
    tx: &mut impl Asked,
    scope: &TenantScope,
    request: &Request,
    resource: &str,
) -> Result<Option<String>> {
    let asker = Asker { tenant: scope.tenant, account: scope.account };
    let RequestIds(connection, keys) = tx.request_ids()?;
    let answered = find(connection, &keys, asker, request).await?;
    if answered.is_none() {
        insert(connection, &keys, asker, request, resource).await?;
    }
    Ok(answered)
}

/// Remembers what a request id that this transaction took is answered with, where [`take`] did not know it yet.
pub async fn answer(tx: &mut impl Asked, scope: &TenantScope, request: &Request, resource: &str) -> Result<()> {
    let Some(id) = request.id else { return Ok(()) };
    let RequestIds(connection, _) = tx.request_ids()?;
    diesel::update(table::table.find((scope.tenant.0, scope.account.0, id)))
        .set(table::resource.eq(resource))
        .execute(connection)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

async fn find(
    connection: &mut AsyncPgConnection,
    keys: &DigestKeys,
    asker: Asker,
    request: &Request,
) -> Result<Option<String>> {
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
        Some((method, digest, resource)) if method == request.method && request.is(&digest, keys) => Ok(Some(resource)),
        Some(_) => Err(Error::invalid("request_id", "was used for another request; take a new UUID for each")),
    }
}

async fn insert(
    connection: &mut AsyncPgConnection,
    keys: &DigestKeys,
    asker: Asker,
    request: &Request,
    resource: &str,
) -> Result<()> {
    let Some(id) = request.id else { return Ok(()) };
    let digest = request.digest(keys);
    let answer = (
        table::method.eq(&request.method),
        table::body_digest.eq(&digest[..]),
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
