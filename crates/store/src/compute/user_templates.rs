//! Templates of a tenant's own. What each write makes of the row moves the quota and is told to whoever watches, in the same
//! commit.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::quota::Amounts;
use virtualstack_model::compute::template::{
    DELETE_TIME_LIMIT, IMPORT_TIME_LIMIT, TemplateKind, TemplateScope, TemplateState,
};
use virtualstack_model::compute::vm::VmState;
use virtualstack_model::id::{OperationId, TenantId, UserId};
use virtualstack_model::log::{Change, ChangeKind, changed_fields};
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result, name};

use crate::compute::event::Event;
use crate::compute::quotas;
use crate::compute::templates::{self, Template};
use crate::operations::NewOperation;
use crate::schema::{
    provider_templates, template_images as images, user_templates as table, virtual_machines as machines,
};
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{Mode, SystemTx, TenantTx, Write, etag};

/// A template as it is kept.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset, Serialize, Deserialize)]
#[diesel(table_name = table, primary_key(tenant_id, id), treat_none_as_null = true)]
pub struct UserTemplate {
    pub tenant_id: TenantId,
    pub id: TemplateId,
    pub display_name: String,
    pub name_key: String,
    pub description: String,
    pub labels: Value,
    pub kind: TemplateKind,
    pub state: TemplateState,
    pub state_reason: String,
    pub guest_os: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
    pub further_disk_gib: i32,
    /// Zero until it is known.
    pub size_bytes: i64,
    pub uploaded_bytes: i64,
    pub sha256: String,
    pub upload_expires_at: Option<DateTime<Utc>>,
    pub owner_id: UserId,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
    pub hypervisor: String,
    pub reference: String,
    pub upload_token: Option<Uuid>,
    pub upload_until: Option<DateTime<Utc>>,
}

impl UserTemplate {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// Gives it another name.
    pub fn rename(&mut self, display_name: &str) {
        display_name.clone_into(&mut self.display_name);
        self.name_key = name::key(display_name);
    }

    /// Whether somebody writes its file, as far as is known.
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        self.upload_token.is_some() && self.upload_until.is_some_and(|until| until > Utc::now())
    }

    /// What it counts for in the quota: itself, and the bytes that are kept of its file.
    #[must_use]
    pub const fn quota_usage(&self) -> Amounts {
        Amounts { templates: 1, template_bytes: self.uploaded_bytes, ..Amounts::NONE }
    }

    /// As clients see it.
    #[must_use]
    pub fn seen(self) -> Template {
        Template {
            id: self.id,
            tenant_id: Some(self.tenant_id),
            display_name: self.display_name,
            description: self.description,
            labels: self.labels,
            kind: self.kind,
            scope: TemplateScope::Tenant,
            state: self.state,
            state_reason: self.state_reason,
            guest_os: self.guest_os,
            cpu_count: self.cpu_count,
            memory_mib: self.memory_mib,
            disk_gib: self.disk_gib,
            further_disk_gib: self.further_disk_gib,
            size_bytes: self.size_bytes,
            uploaded_bytes: self.uploaded_bytes,
            sha256: self.sha256,
            upload_expires_at: self.upload_expires_at,
            owner_id: Some(self.owner_id),
            created_at: self.created_at,
            updated_at: self.updated_at,
            version: self.version,
            hypervisor: self.hypervisor,
            reference: self.reference,
        }
    }

    /// The change row of an event, with the template as it is after it.
    fn changed(&self, event: Event, kind: ChangeKind, fields: Value) -> Result<Change> {
        let after = serde_json::to_value(self.clone().seen()).map_err(Error::internal)?;
        Ok(Change {
            state: self.state.as_str(),
            operation: event.operation,
            watched: Some((kind, after)),
            ..Change::of(self.id.name(), event.reason, event.message, fields)
        })
    }
}

/// An operation on a template.
#[must_use]
pub fn operation(id: OperationId, verb: Verb, template: TemplateId) -> NewOperation {
    let time_limit = if verb == Verb::Import { IMPORT_TIME_LIMIT } else { DELETE_TIME_LIMIT };
    NewOperation { id, verb, target: template.name(), slot: template.name(), time_limit }
}

/// Reads a template that may be gone.
pub async fn find(reader: &mut impl TenantReader, id: TemplateId) -> Result<Option<UserTemplate>> {
    let tenant = reader.tenant();
    reader.find(move || table::table.find((tenant, id)).select(UserTemplate::as_select())).await
}

/// Reads and locks a template that may be gone.
pub async fn find_locked(tx: &mut TenantTx<Write>, id: TemplateId) -> Result<Option<UserTemplate>> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq(id)))
        .select(UserTemplate::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Reads a template and locks it until the end of the transaction. The provider's are not the tenant's to change.
pub async fn lock(tx: &mut TenantTx<Write>, id: TemplateId) -> Result<UserTemplate> {
    if let Some(own) = find_locked(tx, id).await? {
        return Ok(own);
    }
    let of_provider = provider_templates::table.filter(provider_templates::id.eq(id)).count();
    match of_provider.get_result::<i64>(tx.connection()?).await.map_err(from_diesel)? {
        0 => Err(templates::missing(id)),
        _ => Err(Error::denied("TEMPLATE_OF_PROVIDER", format!("{} is the provider's", id.name()))),
    }
}

/// Puts a new template in, within the quota.
pub async fn insert(tx: &mut TenantTx<Write>, template: &UserTemplate) -> Result<()> {
    diesel::insert_into(table::table).values(template).execute(tx.connection()?).await.map_err(from_diesel)?;
    quotas::reserve(tx, &template.quota_usage()).await?;
    let event = Event { reason: "TEMPLATE_CREATED", message: "The template was created".to_owned(), operation: None };
    let fields = json!({"displayName": template.display_name, "kind": template.kind});
    let change = template.changed(event, ChangeKind::Created, fields)?;
    tx.change(change);
    Ok(())
}

/// Writes a template that has changed, with the change that says why. What grows is taken within the quota.
pub async fn update(
    tx: &mut TenantTx<Write>,
    before: &UserTemplate,
    template: &mut UserTemplate,
    event: Event,
) -> Result<()> {
    save(tx, before, template).await?;
    let fields = changed_fields([
        ("displayName", json!(before.display_name), json!(template.display_name)),
        ("description", json!(before.description), json!(template.description)),
        ("labels", before.labels.clone(), template.labels.clone()),
        ("state", json!(before.state), json!(template.state)),
        ("uploadedBytes", json!(before.uploaded_bytes), json!(template.uploaded_bytes)),
    ]);
    let change = template.changed(event, ChangeKind::Updated, fields.into())?;
    tx.change(change);
    Ok(())
}

/// Writes a template that has changed, and tells nobody.
pub(crate) async fn save(tx: &mut TenantTx<Write>, before: &UserTemplate, template: &mut UserTemplate) -> Result<()> {
    // Clocks differ, and the order of a template's changes is that of its row.
    template.updated_at = Utc::now().max(before.updated_at);
    template.version = before.version + 1;
    diesel::update(table::table.filter(table::tenant_id.eq(template.tenant_id).and(table::id.eq(template.id))))
        .set(&*template)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    quotas::reserve(tx, &template.quota_usage().since(&before.quota_usage())).await
}

/// Puts a template in the state that a delete begins with: nobody may use it any more.
pub async fn start_delete(
    tx: &mut TenantTx<Write>,
    before: UserTemplate,
    message: &str,
    operation: OperationId,
) -> Result<()> {
    let mut template = before.clone();
    template.state = TemplateState::Deleting;
    (template.upload_token, template.upload_until, template.upload_expires_at) = (None, None, None);
    let event = Event { reason: "TEMPLATE_DELETE_REQUESTED", message: message.to_owned(), operation: Some(operation) };
    update(tx, &before, &mut template, event).await
}

/// Reads a template that a VM is to be made from, and keeps it from being deleted until the end of the transaction.
pub async fn hold(tx: &mut TenantTx<Write>, id: TemplateId) -> Result<Option<UserTemplate>> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq(id)))
        .select(UserTemplate::as_select())
        .for_share()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Removes a template, with all that is kept of it here; its objects are removed before.
pub async fn remove(tx: &mut TenantTx<Write>, template: &UserTemplate, event: Event) -> Result<()> {
    let row = table::table.filter(table::tenant_id.eq(template.tenant_id).and(table::id.eq(template.id)));
    if diesel::delete(row).execute(tx.connection()?).await.map_err(from_diesel)? == 0 {
        return Ok(());
    }
    quotas::adjust(tx, &Amounts::NONE.since(&template.quota_usage())).await?;
    let change = template.changed(event, ChangeKind::Deleted, json!({"state": template.state}))?;
    tx.change(change);
    Ok(())
}

/// Whether a VM is being created from a template.
pub async fn is_in_use<M: Mode>(tx: &mut TenantTx<M>, id: TemplateId) -> Result<bool> {
    let tenant = tx.tenant();
    let created = machines::table
        .filter(machines::tenant_id.eq(tenant).and(machines::template_id.eq(id)))
        .filter(machines::state.eq(VmState::Provisioning));
    diesel::select(diesel::dsl::exists(created)).get_result(tx.connection()?).await.map_err(from_diesel)
}

/// Keeps what was found in a template's file.
pub async fn set_image(tx: &mut TenantTx<Write>, id: TemplateId, image: &Value) -> Result<()> {
    let values = (images::tenant_id.eq(tx.tenant()), images::template_id.eq(id), images::image.eq(image));
    diesel::insert_into(images::table)
        .values(values)
        .on_conflict((images::tenant_id, images::template_id))
        .do_update()
        .set(images::image.eq(image))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// What was found in a template's file, if it was in order.
pub async fn image(reader: &mut impl TenantReader, id: TemplateId) -> Result<Option<Value>> {
    let tenant = reader.tenant();
    reader.find(move || images::table.find((tenant, id)).select(images::image)).await
}

/// Templates of all tenants whose upload was left: at most so many.
pub async fn expired(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, TemplateId)>> {
    table::table
        .filter(table::state.eq(TemplateState::Uploading).and(table::upload_expires_at.lt(diesel::dsl::now)))
        .order(table::upload_expires_at)
        .limit(limit)
        .select((table::tenant_id, table::id))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Templates of a tenant that are not being deleted yet: at most so many.
pub async fn of_tenant(tx: &mut SystemTx, tenant: TenantId, limit: i64) -> Result<Vec<TemplateId>> {
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::state.ne(TemplateState::Deleting)))
        .limit(limit)
        .select(table::id)
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Whether a tenant has any template.
pub async fn any_of_tenant(tx: &mut SystemTx, tenant: TenantId) -> Result<bool> {
    let any = table::table.filter(table::tenant_id.eq(tenant));
    diesel::select(diesel::dsl::exists(any)).get_result(tx.connection()?).await.map_err(from_diesel)
}
