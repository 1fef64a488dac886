//! All that a tenant can make VMs from: its own templates and those of the provider that it may use, as one list.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::template::{TemplateKind, TemplateScope, TemplateState};
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::{Error, Result};

use crate::changes::watch::Watched;
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::templates as table;
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{Mode, TenantTx, etag};

/// A template, whosever it is.
#[derive(Clone, Debug, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = table)]
pub struct Template {
    pub id: TemplateId,
    /// None for the provider's.
    pub tenant_id: Option<TenantId>,
    pub display_name: String,
    pub description: String,
    pub labels: Value,
    pub kind: TemplateKind,
    pub scope: TemplateScope,
    pub state: TemplateState,
    pub state_reason: String,
    pub guest_os: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
    pub further_disk_gib: i32,
    pub size_bytes: i64,
    pub uploaded_bytes: i64,
    pub sha256: String,
    pub upload_expires_at: Option<DateTime<Utc>>,
    pub owner_id: Option<UserId>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
    /// Where VMs are made from it, and how that refers to it; empty where they cannot be.
    pub hypervisor: String,
    pub reference: String,
}

impl Template {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        serde_json::from_value(self.labels.clone()).unwrap_or_default()
    }
}

/// A template that is not there.
pub(crate) fn missing(id: TemplateId) -> Error {
    Error::not_found("TEMPLATE_NOT_FOUND", id.name())
}

/// Reads a template.
pub async fn get(reader: &mut impl TenantReader, id: TemplateId) -> Result<Template> {
    find(reader, id).await?.ok_or_else(|| missing(id))
}

/// Reads a template that may not be there.
pub async fn find(reader: &mut impl TenantReader, id: TemplateId) -> Result<Option<Template>> {
    reader.find(move || table::table.filter(table::id.eq(id)).select(Template::as_select())).await
}

/// Reads several templates at once; those that are gone are left out.
pub async fn get_many<M: Mode>(tx: &mut TenantTx<M>, ids: &[TemplateId]) -> Result<Vec<Template>> {
    table::table
        .filter(table::id.eq_any(ids))
        .select(Template::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// What filters and orders of templates may name.
const LISTING: Listing<table::table> = Listing {
    collection: TemplateId::COLLECTION,
    id: Field::id("name", TemplateId::COLLECTION, &table::id),
    fields: &[
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::text("description", &table::description).searched(),
        Field::words("kind", TemplateKind::WORDS, &table::kind).sorted(),
        Field::words("scope", TemplateScope::WORDS, &table::scope).sorted(),
        Field::words("state", TemplateState::WORDS, &table::state).sorted(),
        Field::text("guestOs", &table::guest_os).sorted().searched(),
        Field::int32("minCpuCount", &table::cpu_count).sorted(),
        Field::int32("minMemoryMib", &table::memory_mib).sorted(),
        Field::int32("minDiskGib", &table::disk_gib).sorted(),
        Field::int64("sizeBytes", &table::size_bytes).sorted(),
        Field::map("labels", &table::labels),
        Field::id("owner", UserId::COLLECTION, &table::owner_id),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists templates.
pub async fn list(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Template>> {
    LISTING.read(reader, request, "", || table::table.into_boxed()).await
}

impl Watched for Template {
    const COLLECTION: &'static str = TemplateId::COLLECTION;

    fn uuid(&self) -> Uuid {
        self.id.0
    }

    /// The provider's too.
    async fn page<M: Mode>(tx: &mut TenantTx<M>, _: &Access, after: Uuid, limit: i64) -> Result<Vec<Self>> {
        table::table
            .filter(table::id.gt(TemplateId(after)))
            .order(table::id)
            .limit(limit)
            .select(Self::as_select())
            .load(tx.connection()?)
            .await
            .map_err(from_diesel)
    }
}
