//! What watches read: the resources as they are at one moment, and the change log from a position on.
//!
//! Positions of a tenant have no gaps and follow the order of commits, because the head of the log stays locked until the
//! commit (see `changes`). So whoever has read up to the head has seen all that was committed, and whatever is still under
//! way comes behind it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::TenantId;
use virtualstack_model::log::ChangeKind;
use virtualstack_model::{Error, Result};

use crate::schema::{change_heads, changes};
use crate::seal::MasterKey;
use crate::tx::error::from_diesel;
use crate::tx::{Mode, SystemTx, TenantTx};

/// Changes of one batch at most.
const BATCH: i64 = 200;

/// Rows of one page at most: so many are kept for a client that is slow.
const PAGE: i64 = 500;

/// Positions that one batch looks at, at most: those of other collections are passed over.
const SPAN: i64 = 10_000;

/// A kind of resource that can be watched: its change rows keep what it was after the change. Rows of earlier releases are
/// read, too: a field that joins it needs a default.
pub trait Watched: DeserializeOwned + Send + 'static {
    /// The collection in full names.
    const COLLECTION: &'static str;

    /// Whether members see those that are their own, so that tokens are theirs, too.
    const OWN: bool = false;

    /// Whether who has this access sees it: as in the list.
    fn is_visible(&self, _access: &Access) -> bool {
        true
    }

    /// Its id; what a watch begins with is in their order.
    fn uuid(&self) -> Uuid;

    /// What a watch begins with: so many, of those with greater ids.
    fn page<M: Mode>(
        tx: &mut TenantTx<M>,
        access: &Access,
        after: Uuid,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Self>>> + Send;
}

/// What a read of the log gave.
#[derive(Clone, Debug)]
pub struct Batch<W> {
    /// What became of resources of the collection, in the order of the commits, and where the log stands with that.
    pub changes: Vec<(ChangeKind, Position)>,
    /// What each of them was after that, or last.
    pub resources: Vec<W>,
    /// Up to where they are told; others went by.
    pub position: Position,
    /// Whether more was there already.
    pub more: bool,
}

/// A position in a tenant's change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The position of what was told last.
    pub number: i64,
    /// When that was so, by the clock of the database.
    pub at: DateTime<Utc>,
}

impl Position {
    /// A token to go on by: good for this tenant and collection only, and telling nobody anything.
    pub fn token(self, key: &MasterKey, tenant: TenantId, collection: &str) -> Result<String> {
        let position = [self.number.to_be_bytes(), self.at.timestamp_micros().to_be_bytes()].concat();
        Ok(URL_SAFE_NO_PAD.encode(key.seal(&purpose(tenant, collection), &position)?))
    }

    /// Reads a token.
    pub fn of_token(key: &MasterKey, tenant: TenantId, collection: &str, token: &str) -> Result<Self> {
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let position = key.open(&purpose(tenant, collection), &sealed).map_err(|_| invalid())?;
        let (number, at) = position.split_first_chunk().ok_or_else(invalid)?;
        let at = at.try_into().map(i64::from_be_bytes).map_err(|_| invalid())?;
        let at = DateTime::from_timestamp_micros(at).ok_or_else(invalid)?;
        Ok(Self { number: i64::from_be_bytes(*number), at })
    }
}

pub(super) fn purpose(tenant: TenantId, collection: &str) -> String {
    format!("watch.resume_token {tenant} {}", collection)
}

pub(super) fn invalid() -> Error {
    refuse("RESUME_TOKEN_INVALID", "is not a token of this watch")
}

pub(super) fn expired() -> Error {
    refuse("RESUME_TOKEN_EXPIRED", "is too old")
}

fn refuse(reason: &'static str, what: &str) -> Error {
    Error::precondition(reason, "resumeToken", format!("resumeToken: {what}; begin anew without one"))
}

/// How far a tenant's change log reaches.
#[derive(QueryableByName)]
struct Log {
    #[diesel(sql_type = BigInt)]
    head: i64,
    /// None where nothing is kept.
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
}

impl Log {
    async fn read<M: Mode>(tx: &mut TenantTx<M>) -> Result<Self> {
        let tenant = tx.tenant();
        diesel::sql_query(
            // No earlier than any change that is seen.
            "SELECT coalesce(max(position), 0) AS head, (SELECT min(position) FROM audit.changes WHERE tenant_id = $1) AS oldest, \
                greatest(max(changed_at), clock_timestamp()) AS at FROM audit.change_heads WHERE tenant_id = $1",
        )
        .bind::<SqlUuid, _>(tenant.0)
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)
    }

    /// Whether all that came behind a position is still there.
    fn holds(&self, position: Position, max_age: Duration) -> Result<()> {
        if position.number > self.head {
            return Err(invalid());
        }
        let forgotten = position.number < self.head && self.oldest.is_none_or(|oldest| oldest > position.number + 1);
        if forgotten || (self.at - position.at).to_std().is_ok_and(|age| age > max_age) {
            return Err(expired());
        }
        Ok(())
    }
}

/// A page of what there is.
#[derive(Clone, Debug)]
pub struct Page<W> {
    pub rows: Vec<W>,
    /// The rows have all changes up to here, and none that came later.
    pub position: Position,
    /// Where the next page begins; None on the last one.
    pub next: Option<Uuid>,
}

/// Reads a page of what there is, of those with greater ids. In a transaction that sees one moment only.
pub async fn page<W: Watched, M: Mode>(tx: &mut TenantTx<M>, access: &Access, after: Uuid) -> Result<Page<W>> {
    let Log { head, at, .. } = Log::read(tx).await?;
    let rows = W::page(tx, access, after, PAGE).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == PAGE);
    let next = rows.last().filter(|_| full).map(W::uuid);
    Ok(Page { rows, position: Position { number: head, at }, next })
}

/// A change as it is kept.
#[derive(Queryable, Selectable)]
#[diesel(table_name = changes)]
struct Row {
    position: i64,
    created_at: DateTime<Utc>,
    kind: Option<ChangeKind>,
    after: Option<Value>,
}

impl Row {
    const fn position(&self) -> Position {
        Position { number: self.position, at: self.created_at }
    }
}

/// What has changed since. A position that is no longer kept, or never was, is refused as the token that it came in.
pub async fn after<W: Watched, M: Mode>(
    tx: &mut TenantTx<M>,
    access: &Access,
    position: Position,
    max_age: Duration,
) -> Result<Batch<W>> {
    let tenant = tx.tenant();
    let log = Log::read(tx).await?;
    log.holds(position, max_age)?;
    let end = log.head.min(position.number + SPAN);
    let rows: Vec<Row> = if position.number == log.head {
        Vec::new()
    } else {
        changes::table
            .filter(changes::tenant_id.eq(tenant.0).and(changes::position.gt(position.number)))
            .filter(changes::position.le(end).and(changes::kind.is_not_null()))
            .filter(changes::resource.like(format!("{}/%", W::COLLECTION)))
            .order(changes::position)
            .limit(BATCH)
            .select(Row::as_select())
            .load(tx.connection()?)
            .await
            .map_err(from_diesel)?
    };
    let cut = i64::try_from(rows.len()).is_ok_and(|rows| rows == BATCH);
    let last = rows.last().filter(|_| cut).map(Row::position);
    // Where a batch stops short of the head, nobody knows when that was; it is no older than what was told before.
    let at = if end == log.head { log.at } else { position.at };
    let position = last.unwrap_or(Position { number: end, at });
    let (mut changes, mut resources) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        let at = row.position();
        let (Some(kind), Some(after)) = (row.kind, row.after) else { continue };
        let resource: W = serde_json::from_value(after).map_err(Error::internal)?;
        if resource.is_visible(access) {
            changes.push((kind, at));
            resources.push(resource);
        }
    }
    Ok(Batch { changes, resources, position, more: position.number < log.head })
}

/// The heads of several tenants' logs; tenants in whose logs nothing stands yet are left out.
pub async fn heads(tx: &mut SystemTx, tenants: &[TenantId]) -> Result<Vec<(TenantId, i64)>> {
    let ids: Vec<Uuid> = tenants.iter().map(|tenant| tenant.0).collect();
    let rows: Vec<(Uuid, i64)> = change_heads::table
        .filter(change_heads::tenant_id.eq_any(ids))
        .select((change_heads::tenant_id, change_heads::position))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(rows.into_iter().map(|(tenant, position)| (TenantId(tenant), position)).collect())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_token_is_good_for_its_tenant_and_collection_only() {
        let (key, tenant) = (MasterKey::generate().expect("a key"), TenantId::new());
        let at = DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).expect("a time");
        let position = Position { number: 7, at };
        let token = position.token(&key, tenant, "vms").expect("a token");
        assert_eq!(Position::of_token(&key, tenant, "vms", &token).expect("a position"), position);
        let reason = |tenant, collection: &str, token: &str| {
            Position::of_token(&key, tenant, collection, token).expect_err("refused").reason()
        };
        let mut changed = URL_SAFE_NO_PAD.decode(&token).expect("base64");
        for byte in 0..changed.len() {
            changed[byte] ^= 1;
            assert_eq!(reason(tenant, "vms", &URL_SAFE_NO_PAD.encode(&changed)), "RESUME_TOKEN_INVALID");
            changed[byte] ^= 1;
        }
        for (tenant, collection, token) in [
            (TenantId::new(), "vms", token.as_str()),
            (tenant, "operations", token.as_str()),
            (tenant, "vms", "nonsense"),
            (tenant, "vms", "é"),
        ] {
            assert_eq!(reason(tenant, collection, token), "RESUME_TOKEN_INVALID", "{token}");
        }
    }

    #[test]
    fn a_place_is_held_as_long_as_nothing_behind_it_is_forgotten() {
        let at = Utc::now();
        let hour = Duration::from_secs(3600);
        let held = |head, oldest, position, minutes| {
            let position = Position { number: position, at: at - TimeDelta::minutes(minutes) };
            Log { head, oldest, at }.holds(position, hour).map_err(|error| error.reason())
        };
        assert_eq!(held(9, Some(4), 9, 0), Ok(()));
        assert_eq!(held(9, Some(4), 3, 59), Ok(()));
        assert_eq!(held(9, None, 9, 0), Ok(()), "all of it was told");
        assert_eq!(held(0, None, 0, -5), Ok(()), "clocks differ");
        assert_eq!(held(9, Some(4), 2, 0), Err("RESUME_TOKEN_EXPIRED"));
        assert_eq!(held(9, None, 8, 0), Err("RESUME_TOKEN_EXPIRED"));
        assert_eq!(held(9, Some(4), 9, 61), Err("RESUME_TOKEN_EXPIRED"));
        assert_eq!(held(9, Some(4), 10, 0), Err("RESUME_TOKEN_INVALID"));
    }
}
