//! Templates.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use tonic::Streaming;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::jobs::{TemplateDelete, TemplateImport};
use virtualstack_model::compute::template::{TemplateKind, TemplateState};
use virtualstack_model::id::OperationId;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result, name};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_proto::virtualstack::compute::v1::template::Kind;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::templates;
use virtualstack_store::compute::user_templates::{self, UserTemplate};
use virtualstack_store::{Store, TenantTx, Write, operations};

use super::messages::template_message;
use super::uploads::Uploads;
use crate::call::TenantCall;
use crate::call::caller::TenantCaller;
use crate::call::codec;
use crate::call::list::{List as _, page};
use crate::call::message::update_mask;
use crate::call::write::Answer;
use crate::config::Config;
use crate::generated::virtualstack::compute::v1::TemplateService;
use crate::services::incoming::Files;
use crate::services::mutations::start;
use crate::services::parts::Parts;

const UPDATABLE: [&str; 3] = ["display_name", "description", "labels"];

pub(crate) struct Templates {
    store: Store,
    uploads: Uploads,
    /// How long a new template waits for its file.
    expiry: TimeDelta,
}

impl Templates {
    pub(crate) fn new(parts: &Parts, config: &Config, files: Files) -> Self {
        Self { store: parts.store.clone(), uploads: Uploads::new(parts, config, files), expiry: config.upload_expiry() }
    }
}

impl TemplateService for Templates {
    async fn list_templates(
        &self,
        call: TenantCall<proto::ListTemplatesRequest>,
    ) -> Result<proto::ListTemplatesResponse> {
        let request = call.request.list();
        let listed = templates::list(&mut self.store.single(&call.tenant()), &request).await?;
        Ok(page(listed, template_message))
    }

    async fn get_template(&self, call: TenantCall<proto::GetTemplateRequest>) -> Result<proto::Template> {
        let id = TemplateId::parse("name", &call.request.name)?;
        templates::get(&mut self.store.single(&call.tenant()), id).await.map(template_message)
    }

    async fn create_template(&self, call: TenantCall<proto::CreateTemplateRequest>) -> Result<proto::Template> {
        let desired = call.request.template.clone().unwrap_or_default();
        let template = new_template(&call, &desired, self.expiry)?;
        let create = async |tx: &mut TenantTx<Write>| {
            user_templates::insert(tx, &template).await?;
            tx.audit_resource(template.id.name());
            Ok(template_message(template.clone().seen()))
        };
        call.write(&self.store, "", create).await
    }

    async fn update_template(&self, call: TenantCall<proto::UpdateTemplateRequest>) -> Result<proto::Template> {
        let desired = call.request.template.clone().unwrap_or_default();
        let id = TemplateId::parse("template.name", &desired.name)?;
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| match field {
            "display_name" => !desired.display_name.is_empty(),
            "description" => !desired.description.is_empty(),
            _ => !desired.labels.is_empty(),
        })?;
        let update = async |tx: &mut TenantTx<Write>| {
            let before = user_templates::lock(tx, id).await?;
            Error::check_etag(&desired.etag, &before.etag())?;
            let mut template = before.clone();
            merge(&mut template, &desired, &fields)?;
            if template != before {
                let message = "The template was changed".to_owned();
                let event = Event { reason: "TEMPLATE_UPDATED", message, operation: None };
                user_templates::update(tx, &before, &mut template, event).await?;
            }
            Ok(template_message(template.seen()))
        };
        call.write(&self.store, id.name(), update).await
    }

    async fn upload_template(
        &self,
        call: TenantCall<Streaming<proto::UploadTemplateRequest>>,
    ) -> Result<proto::UploadTemplateResponse> {
        self.uploads.take(call).await
    }

    async fn import_template(&self, call: TenantCall<proto::ImportTemplateRequest>) -> Result<Operation> {
        let target = TemplateId::parse("name", &call.request.name)?;
        let operation = OperationId::new();
        let job = TemplateImport { template: target, operation, sha256: call.request.sha256.clone() };
        let import = async |tx: &mut TenantTx<Write>| {
            let before = user_templates::lock(tx, target).await?;
            let new = user_templates::operation(operation, Verb::Import, target);
            let started = operations::start(tx, new, &job).await?;
            before.state.expect(TemplateState::Uploading, target, "an import")?;
            check_complete(&before)?;
            tx.audit_resource(target.name());
            let mut template = before.clone();
            template.state = TemplateState::Validating;
            template.state_reason = String::new();
            (template.upload_expires_at, template.upload_token) = (None, None);
            let message = "The import was requested".to_owned();
            let event = Event { reason: "TEMPLATE_IMPORT_REQUESTED", message, operation: Some(operation) };
            user_templates::update(tx, &before, &mut template, event).await?;
            Ok(started)
        };
        start(&call, &self.store, operation, import).await
    }

    async fn delete_template(&self, call: TenantCall<proto::DeleteTemplateRequest>) -> Result<Operation> {
        let request = &call.request;
        let target = TemplateId::parse("name", &request.name)?;
        let operation = OperationId::new();
        let delete = async |tx: &mut TenantTx<Write>| {
            let before = user_templates::lock(tx, target).await?;
            Error::check_etag(&request.etag, &before.etag())?;
            if user_templates::is_in_use(tx, target).await? {
                let message = "a VM is being created from the template; wait for that, or delete the VM";
                return Err(Error::precondition("TEMPLATE_IN_USE", target.name(), message));
            }
            let job = TemplateDelete { template: target, operation };
            let new = user_templates::operation(operation, Verb::Delete, target);
            let started = operations::start_delete(tx, new, &job).await?;
            tx.audit_resource(target.name());
            user_templates::start_delete(tx, before, "Deletion was requested", operation).await?;
            Ok(started)
        };
        start(&call, &self.store, operation, delete).await
    }
}

impl Answer<TenantTx<Write>> for proto::Template {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        templates::get(tx, TemplateId::parse("request_id", name)?).await.map(template_message)
    }
}

/// Whether all of a template's file is there, and nobody writes it any more.
fn check_complete(template: &UserTemplate) -> Result<()> {
    let (there, size, name) = (template.uploaded_bytes, template.size_bytes, template.id.name());
    if size == 0 {
        let message = format!("the size of the file is not known, and {there} bytes are there; upload it to its end");
        return Err(Error::precondition("UPLOAD_INCOMPLETE", name, message));
    }
    if there < size {
        let message = format!("{there} of {size} bytes of the file are there; upload the rest");
        return Err(Error::precondition("UPLOAD_INCOMPLETE", name, message));
    }
    if template.is_being_written() {
        return Err(Error::aborted("UPLOAD_IN_PROGRESS", "an upload to this template is under way"));
    }
    Ok(())
}

/// Puts the fields that an update names into a template. The rules hold for what comes of it, not for the part that was sent.
fn merge(template: &mut UserTemplate, desired: &proto::Template, fields: &[&str]) -> Result<()> {
    for field in fields {
        match *field {
            "display_name" => template.rename(&desired.display_name),
            "description" => template.description.clone_from(&desired.description),
            _ => template.labels = json!(desired.labels),
        }
    }
    let merged = template_message(template.clone().seen());
    codec::validate(&proto::CreateTemplateRequest { template: Some(merged), ..Default::default() })
}

/// The template that a request makes.
fn new_template(caller: &TenantCaller, desired: &proto::Template, expiry: TimeDelta) -> Result<UserTemplate> {
    let kind = match desired.kind() {
        Kind::Ova => TemplateKind::Ova,
        Kind::Iso => TemplateKind::Iso,
        Kind::Unspecified => return Err(Error::invalid("template.kind", "is required: OVA or ISO")),
    };
    let now = Utc::now();
    Ok(UserTemplate {
        tenant_id: caller.tenant_id(),
        id: TemplateId::new(),
        display_name: desired.display_name.clone(),
        name_key: name::key(&desired.display_name),
        description: desired.description.clone(),
        labels: json!(desired.labels),
        kind,
        state: TemplateState::Uploading,
        state_reason: String::new(),
        guest_os: String::new(),
        cpu_count: 0,
        memory_mib: 0,
        disk_gib: 0,
        further_disk_gib: 0,
        size_bytes: 0,
        uploaded_bytes: 0,
        sha256: String::new(),
        upload_expires_at: Some(now + expiry),
        owner_id: caller.user(),
        created_at: now,
        updated_at: now,
        version: 1,
        hypervisor: String::new(),
        reference: String::new(),
        upload_token: None,
        upload_until: None,
    })
}
