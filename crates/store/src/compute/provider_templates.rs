//! Templates of the provider: published by the worker's inventory, granted to tenants by operators.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;
use virtualstack_model::compute::id::{ProviderTemplateId, TemplateId};
use virtualstack_model::compute::template::{Audience, TemplateKind, TemplateState};
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Audit, Change, changed_fields};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{
    provider_template_copies as copies, provider_template_grants as grants, provider_templates as table,
};
use crate::tx::error::from_diesel;
use crate::tx::{SystemTx, etag};

/// A template as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct ProviderTemplate {
    pub id: TemplateId,
    pub display_name: String,
    pub kind: TemplateKind,
    pub state: TemplateState,
    pub guest_os: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub audience: Audience,
    pub version: i64,
}

impl ProviderTemplate {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }
}

/// What a hypervisor has of a template.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = copies)]
pub struct Copy {
    pub template_id: TemplateId,
    pub hypervisor: String,
    pub reference: String,
    pub state: TemplateState,
}

/// A template with its copies, and the tenants that it was granted to.
#[derive(Clone, Debug)]
pub struct Described {
    pub template: ProviderTemplate,
    pub copies: Vec<Copy>,
    pub tenants: Vec<TenantId>,
}

/// What the hypervisor says of a template.
#[derive(Clone, Debug)]
pub struct Seen {
    pub reference: String,
    pub display_name: String,
    pub kind: TemplateKind,
    pub guest_os: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
    pub further_disk_gib: i32,
}

/// What filters and orders of the provider's templates may name.
const LISTING: Listing<table::table> = Listing {
    collection: ProviderTemplateId::COLLECTION,
    id: Field::id("name", ProviderTemplateId::COLLECTION, &table::id),
    fields: &[
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::words("kind", TemplateKind::WORDS, &table::kind).sorted(),
        Field::words("state", TemplateState::WORDS, &table::state).sorted(),
        Field::text("guestOs", &table::guest_os).sorted().searched(),
        Field::int32("minCpuCount", &table::cpu_count).sorted(),
        Field::int32("minMemoryMib", &table::memory_mib).sorted(),
        Field::int32("minDiskGib", &table::disk_gib).sorted(),
        Field::words("audience", Audience::WORDS, &table::audience).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists the provider's templates.
pub async fn list(tx: &mut SystemTx, request: &ListRequest) -> Result<Listed<Described>> {
    let Listed { rows, next_page_token, total_size } =
        LISTING.read(tx, request, "", || table::table.into_boxed()).await?;
    Ok(Listed { rows: describe(tx, rows).await?, next_page_token, total_size })
}

/// Reads one of the provider's templates.
pub async fn get(tx: &mut SystemTx, id: ProviderTemplateId) -> Result<Described> {
    let one = table::table.filter(table::id.eq(TemplateId(id.0))).select(ProviderTemplate::as_select());
    let row = one.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    described(tx, id, row).await
}

/// Reads one of the provider's templates and locks it until the end of the transaction.
pub async fn lock(tx: &mut SystemTx, id: ProviderTemplateId) -> Result<Described> {
    let one = table::table.filter(table::id.eq(TemplateId(id.0))).select(ProviderTemplate::as_select());
    let row = one.for_update().first(tx.connection()?).await.optional().map_err(from_diesel)?;
    described(tx, id, row).await
}

async fn described(tx: &mut SystemTx, id: ProviderTemplateId, row: Option<ProviderTemplate>) -> Result<Described> {
    let row = row.ok_or_else(|| Error::not_found("PROVIDER_TEMPLATE_NOT_FOUND", id.name()))?;
    describe(tx, vec![row]).await?.pop().ok_or_else(|| Error::internal("a template was not described"))
}

async fn describe(tx: &mut SystemTx, rows: Vec<ProviderTemplate>) -> Result<Vec<Described>> {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let found: Vec<Copy> = copies::table
        .filter(copies::template_id.eq_any(&ids))
        .order((copies::hypervisor, copies::reference))
        .select(Copy::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let granted: Vec<(TemplateId, TenantId)> = grants::table
        .filter(grants::template_id.eq_any(&ids))
        .order(grants::tenant_id)
        .select((grants::template_id, grants::tenant_id))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let described = rows.into_iter().map(|template| Described {
        copies: found.iter().filter(|copy| copy.template_id == template.id).cloned().collect(),
        tenants: granted.iter().filter(|(of, _)| *of == template.id).map(|(_, tenant)| *tenant).collect(),
        template,
    });
    Ok(described.collect())
}

/// Says who may use a template, with the audit row. `tenants` of an audience of all are none.
pub async fn set_audience(
    tx: &mut SystemTx,
    (audit, provider): (&Audit, TenantId),
    before: &Described,
    audience: Audience,
    tenants: &[TenantId],
) -> Result<()> {
    let id = before.template.id;
    let row = table::table.filter(table::id.eq(id));
    diesel::update(row)
        .set((table::audience.eq(audience), table::updated_at.eq(Utc::now()), table::version.eq(table::version + 1)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let of_template = grants::table.filter(grants::template_id.eq(id));
    diesel::delete(of_template).execute(tx.connection()?).await.map_err(from_diesel)?;
    let rows: Vec<_> =
        tenants.iter().map(|tenant| (grants::tenant_id.eq(tenant), grants::template_id.eq(id))).collect();
    diesel::insert_into(grants::table).values(rows).execute(tx.connection()?).await.map_err(from_diesel)?;
    let fields = changed_fields([
        ("audience", json!(before.template.audience), json!(audience)),
        ("tenants", json!(before.tenants), json!(tenants)),
    ]);
    let change = Change::update(ProviderTemplateId(id.0).name(), "PROVIDER_TEMPLATE_UPDATED", fields);
    tx.log(provider, audit, &[change]).await
}

/// Makes the catalogue say what one hypervisor has: new ones come in, known ones follow, missing ones become unavailable.
pub async fn publish(tx: &mut SystemTx, hypervisor: &str, seen: &[Seen]) -> Result<()> {
    for template in seen {
        let id = identify(tx, template).await?;
        let facts = (
            copies::template_id.eq(id),
            copies::state.eq(TemplateState::Ready),
            copies::cpu_count.eq(template.cpu_count),
            copies::memory_mib.eq(template.memory_mib),
            copies::disk_gib.eq(template.disk_gib),
            copies::further_disk_gib.eq(template.further_disk_gib),
            copies::updated_at.eq(Utc::now()),
        );
        diesel::insert_into(copies::table)
            .values((copies::hypervisor.eq(hypervisor), copies::reference.eq(&template.reference), facts))
            .on_conflict((copies::hypervisor, copies::reference))
            .do_update()
            .set(facts)
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
    }
    let references: Vec<_> = seen.iter().map(|template| &template.reference).collect();
    let missing = copies::hypervisor.eq(hypervisor).and(copies::reference.ne_all(references));
    diesel::update(copies::table.filter(missing.and(copies::state.eq(TemplateState::Ready))))
        .set((copies::state.eq(TemplateState::Unavailable), copies::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    follow_copies(tx).await
}

/// Makes templates unavailable that only hypervisors have that are not among these any more.
pub async fn withdraw_others(tx: &mut SystemTx, hypervisors: &[&str]) -> Result<()> {
    let others = copies::hypervisor.ne_all(hypervisors).and(copies::state.eq(TemplateState::Ready));
    diesel::update(copies::table.filter(others))
        .set((copies::state.eq(TemplateState::Unavailable), copies::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    follow_copies(tx).await
}

/// The template that a copy is one of; made where there is none yet.
async fn identify(tx: &mut SystemTx, seen: &Seen) -> Result<TemplateId> {
    let now = Utc::now();
    diesel::insert_into(table::table)
        .values((
            table::id.eq(TemplateId::new()),
            table::display_name.eq(&seen.display_name),
            table::kind.eq(seen.kind),
            table::state.eq(TemplateState::Ready),
            table::guest_os.eq(&seen.guest_os),
            table::cpu_count.eq(seen.cpu_count),
            table::memory_mib.eq(seen.memory_mib),
            table::disk_gib.eq(seen.disk_gib),
            table::further_disk_gib.eq(seen.further_disk_gib),
            table::created_at.eq(now),
            table::updated_at.eq(now),
        ))
        .on_conflict((table::display_name, table::kind, table::guest_os))
        .do_nothing()
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    table::table
        .filter(table::display_name.eq(&seen.display_name).and(table::kind.eq(seen.kind)))
        .filter(table::guest_os.eq(&seen.guest_os))
        .select(table::id)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// A template is what its copies are: ready where one is, and as large as the largest that is ready, or was.
async fn follow_copies(tx: &mut SystemTx) -> Result<()> {
    diesel::sql_query(
        "UPDATE compute.provider_templates t SET state = c.state, cpu_count = c.cpu_count, memory_mib = c.memory_mib, \
            disk_gib = c.disk_gib, further_disk_gib = c.further_disk_gib, updated_at = now(), version = version + 1 \
         FROM (SELECT t.id, CASE WHEN bool_or(c.state = 'READY') THEN 'READY' ELSE 'UNAVAILABLE' END AS state, \
                coalesce(max(c.cpu_count), t.cpu_count) AS cpu_count, coalesce(max(c.memory_mib), t.memory_mib) AS memory_mib, \
                coalesce(max(c.disk_gib), t.disk_gib) AS disk_gib, \
                coalesce(max(c.further_disk_gib), t.further_disk_gib) AS further_disk_gib \
            FROM compute.provider_templates t LEFT JOIN compute.provider_template_copies c ON c.template_id = t.id \
                AND (c.state = 'READY' OR NOT EXISTS (SELECT FROM compute.provider_template_copies o \
                    WHERE o.template_id = t.id AND o.state = 'READY')) \
            GROUP BY t.id) c \
         WHERE t.id = c.id AND (t.state, t.cpu_count, t.memory_mib, t.disk_gib, t.further_disk_gib) \
            IS DISTINCT FROM (c.state, c.cpu_count, c.memory_mib, c.disk_gib, c.further_disk_gib)",
    )
    .execute(tx.connection()?)
    .await
    .map_err(from_diesel)
    .map(|_| ())
}
