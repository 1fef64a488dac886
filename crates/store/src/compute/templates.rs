//! Templates of the provider: published by the worker's inventory, read by every tenant.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::template::{TemplateKind, TemplateState};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::provider_templates as table;
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;

/// A template as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = table)]
pub struct Template {
    pub id: TemplateId,
    pub reference: String,
    pub display_name: String,
    pub kind: TemplateKind,
    pub state: TemplateState,
    pub guest_os: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub hypervisor: String,
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
}

/// Reads a template.
pub async fn get(reader: &mut impl TenantReader, id: TemplateId) -> Result<Template> {
    find(reader, id).await?.ok_or_else(|| Error::not_found("TEMPLATE_NOT_FOUND", id.name()))
}

/// Reads a template that may not be there.
pub async fn find(reader: &mut impl TenantReader, id: TemplateId) -> Result<Option<Template>> {
    reader.find(move || table::table.find(id).select(Template::as_select())).await
}

/// What filters and orders of templates may name.
const LISTING: Listing<table::table> = Listing {
    collection: TemplateId::COLLECTION,
    id: Field::id("name", TemplateId::COLLECTION, &table::id),
    fields: &[
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::words("kind", TemplateKind::WORDS, &table::kind).sorted(),
        Field::words("state", TemplateState::WORDS, &table::state).sorted(),
        Field::text("guestOs", &table::guest_os).sorted().searched(),
        Field::int32("minCpuCount", &table::cpu_count).sorted(),
        Field::int32("minMemoryMib", &table::memory_mib).sorted(),
        Field::int32("minDiskGib", &table::disk_gib).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists templates.
pub async fn list(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Template>> {
    LISTING.read(reader, request, "", || table::table.into_boxed()).await
}

/// Makes the catalogue say what one hypervisor has: new ones come in, known ones follow, missing ones become unavailable.
pub async fn publish(tx: &mut SystemTx, hypervisor: &str, seen: &[Seen]) -> Result<()> {
    for template in seen {
        let now = Utc::now();
        let row = Template {
            id: TemplateId::new(),
            reference: template.reference.clone(),
            display_name: template.display_name.clone(),
            kind: template.kind,
            state: TemplateState::Ready,
            guest_os: template.guest_os.clone(),
            cpu_count: template.cpu_count,
            memory_mib: template.memory_mib,
            disk_gib: template.disk_gib,
            created_at: now,
            updated_at: now,
            hypervisor: hypervisor.to_owned(),
        };
        let facts = (
            table::display_name.eq(&row.display_name),
            table::kind.eq(row.kind),
            table::state.eq(row.state),
            table::guest_os.eq(&row.guest_os),
            table::cpu_count.eq(row.cpu_count),
            table::memory_mib.eq(row.memory_mib),
            table::disk_gib.eq(row.disk_gib),
            table::updated_at.eq(now),
            table::hypervisor.eq(hypervisor),
        );
        diesel::insert_into(table::table)
            .values(&row)
            .on_conflict(table::reference)
            .do_update()
            .set(facts)
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
    }
    let references: Vec<_> = seen.iter().map(|template| &template.reference).collect();
    let missing = table::hypervisor.eq(hypervisor).and(table::reference.ne_all(references));
    diesel::update(table::table.filter(missing.and(table::state.eq(TemplateState::Ready))))
        .set((table::state.eq(TemplateState::Unavailable), table::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Makes templates unavailable whose hypervisor is not among these any more.
pub async fn withdraw_others(tx: &mut SystemTx, hypervisors: &[&str]) -> Result<()> {
    let others = table::hypervisor.ne_all(hypervisors).and(table::state.eq(TemplateState::Ready));
    diesel::update(table::table.filter(others))
        .set((table::state.eq(TemplateState::Unavailable), table::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
