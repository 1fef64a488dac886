//! API keys. Of a secret only its SHA-256 is kept.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, Inet, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
pub use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use virtualstack_model::id::{ApiKeyId, TenantId, UserId};
use virtualstack_model::log::{Change, changed_fields};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{api_keys as table, retired_api_keys as retired};
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{SystemTx, TenantTx, Write, etag};

/// A key as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub owner_id: UserId,
    pub public_id: String,
    #[diesel(embed)]
    pub terms: Terms,
    pub previous_expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    last_used_from: Option<IpNetwork>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

/// What the owner of a key sets.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = table, treat_none_as_null = true)]
pub struct Terms {
    pub display_name: String,
    pub permissions: Vec<String>,
    pub allowed_cidrs: Vec<IpNetwork>,
    pub expires_at: Option<DateTime<Utc>>,
}

impl Terms {
    /// As the logs show it.
    fn fields(&self) -> [(&'static str, Value); 4] {
        [
            ("displayName", json!(self.display_name)),
            ("permissions", json!(self.permissions)),
            ("allowedCidrs", json!(self.allowed_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>())),
            ("expireTime", json!(self.expires_at)),
        ]
    }
}

impl ApiKey {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// Address that it was last used from.
    #[must_use]
    pub fn last_used_from(&self) -> Option<IpAddr> {
        self.last_used_from.map(|network| network.ip())
    }
}

/// A key that is not there, or not for the caller.
#[must_use]
pub fn missing(id: ApiKeyId) -> Error {
    Error::not_found("API_KEY_NOT_FOUND", id.name())
}

/// Reads a key.
pub async fn get(reader: &mut impl TenantReader, id: ApiKeyId) -> Result<ApiKey> {
    let tenant = reader.tenant();
    let one = move || table::table.find((tenant.0, id.0)).select(ApiKey::as_select());
    reader.find(one).await?.ok_or_else(|| missing(id))
}

/// Reads a key and locks it until the end of the transaction.
pub async fn lock(tx: &mut TenantTx<Write>, id: ApiKeyId) -> Result<ApiKey> {
    let tenant = tx.tenant();
    let found = table::table.find((tenant.0, id.0)).select(ApiKey::as_select()).for_update();
    let found = found.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    found.ok_or_else(|| missing(id))
}

/// What filters and orders of keys may name.
const LISTING: Listing<table::table> = Listing {
    collection: ApiKeyId::COLLECTION,
    id: Field::id("name", ApiKeyId::COLLECTION, &table::id),
    fields: &[
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::id("owner", UserId::COLLECTION, &table::owner_id).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("expireTime", &table::expires_at).sorted(),
        Field::time("lastUseTime", &table::last_used_at).sorted(),
    ],
};

/// Of which tenant a key is, or was before it was deleted, and which one, by its public part.
pub async fn known_as(tx: &mut SystemTx, public_id: &str) -> Result<Option<(TenantId, ApiKeyId)>> {
    let found = table::table.filter(table::public_id.eq(public_id)).select((table::tenant_id, table::id));
    let found = found.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    if found.is_some() {
        return Ok(found);
    }
    let gone = retired::table.filter(retired::public_id.eq(public_id)).select((retired::tenant_id, retired::id));
    gone.first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// Lists keys: those of `owner`, or all.
pub async fn list(
    reader: &mut impl TenantReader,
    request: &ListRequest,
    owner: Option<UserId>,
) -> Result<Listed<ApiKey>> {
    let tenant = reader.tenant();
    let variant = owner.map(UserId::name).unwrap_or_default();
    let base = move || {
        let keys = table::table.filter(table::tenant_id.eq(tenant.0)).into_boxed();
        match owner {
            None => keys,
            Some(owner) => keys.filter(table::owner_id.eq(owner.0)),
        }
    };
    LISTING.read(reader, request, &variant, base).await
}

/// What a new key is known by: the public part that finds it, and the SHA-256 of its secret.
#[derive(Clone, Copy, Debug)]
pub struct Secret<'a> {
    pub public_id: &'a str,
    pub digest: &'a [u8],
}

/// Puts a new key in.
pub async fn insert(
    tx: &mut TenantTx<Write>,
    id: ApiKeyId,
    owner: UserId,
    secret: Secret<'_>,
    terms: &Terms,
) -> Result<ApiKey> {
    let tenant = tx.tenant();
    let made = diesel::insert_into(table::table)
        .values((
            table::tenant_id.eq(tenant.0),
            table::id.eq(id.0),
            table::owner_id.eq(owner.0),
            table::public_id.eq(secret.public_id),
            table::digest.eq(secret.digest),
            terms,
        ))
        .returning(ApiKey::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let fields = changed_fields(terms.fields().map(|(field, value)| (field, Value::Null, value)));
    let message = format!("{} was created", made.terms.display_name);
    tx.change(Change::of(id.name(), "API_KEY_CREATED", message, fields.into()));
    Ok(made)
}

/// Changes what the owner of a key sets. What is as it was is left alone.
pub async fn update(tx: &mut TenantTx<Write>, before: ApiKey, terms: &Terms) -> Result<ApiKey> {
    let fields = before.terms.fields().into_iter().zip(terms.fields());
    let fields = changed_fields(fields.map(|((field, before), (_, after))| (field, before, after)));
    if fields.is_empty() {
        return Ok(before);
    }
    let tenant = tx.tenant();
    let after = diesel::update(table::table.find((tenant.0, before.id.0)))
        .set((terms, table::version.eq(table::version + 1), table::updated_at.eq(Utc::now())))
        .returning(ApiKey::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    tx.change(Change::update(before.id.name(), "API_KEY_UPDATED", fields));
    Ok(after)
}

/// Gives a key a new secret. The one it had works on for `overlap`; the one before that ends now. Without an end, the
/// digest of the one it had is good for nothing.
pub async fn rotate(tx: &mut TenantTx<Write>, key: &ApiKey, digest: &[u8], overlap: TimeDelta) -> Result<ApiKey> {
    let (tenant, now) = (tx.tenant(), Utc::now());
    let after = diesel::update(table::table.find((tenant.0, key.id.0)))
        .set((
            table::previous_digest.eq(table::digest.nullable()),
            table::previous_expires_at.eq((overlap > TimeDelta::zero()).then(|| now + overlap)),
            table::digest.eq(digest),
            table::generation.eq(table::generation + 1),
            table::version.eq(table::version + 1),
            table::updated_at.eq(now),
        ))
        .returning(ApiKey::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let fields =
        json!({"previousSecretExpireTime": [json!(key.previous_expires_at), json!(after.previous_expires_at)]});
    tx.change(Change::of(key.id.name(), "API_KEY_ROTATED", "It was given a new secret", fields));
    Ok(after)
}

/// Removes a key.
pub async fn delete(tx: &mut TenantTx<Write>, key: &ApiKey) -> Result<()> {
    let tenant = tx.tenant();
    diesel::delete(table::table.find((tenant.0, key.id.0))).execute(tx.connection()?).await.map_err(from_diesel)?;
    let fields = changed_fields(key.terms.fields().map(|(field, value)| (field, value, Value::Null)));
    let message = format!("{} was deleted", key.terms.display_name);
    tx.change(Change::of(key.id.name(), "API_KEY_DELETED", message, fields.into()));
    Ok(())
}

/// A use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub key: ApiKeyId,
    pub at: DateTime<Utc>,
    pub from: Option<IpAddr>,
}

/// Notes when keys were last used, each at most once a minute. It is no change of the key.
pub async fn note_uses(tx: &mut SystemTx, uses: &[Use]) -> Result<()> {
    diesel::sql_query(
        "UPDATE iam.api_keys k SET last_used_at = u.at, last_used_from = u.address \
         FROM unnest($1, $2, $3) AS u (id, at, address) \
         WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at <= u.at - interval '1 minute')",
    )
    .bind::<Array<SqlUuid>, _>(uses.iter().map(|one| one.key.0).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(uses.iter().map(|one| one.at).collect::<Vec<_>>())
    .bind::<Array<Nullable<Inet>>, _>(uses.iter().map(|one| one.from.map(IpNetwork::from)).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    Ok(())
}
