//! Files of tickets of all tenants, for operators of the platform.

use tonic::Streaming;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::attachment;
use virtualstack_model::support::id::TicketId;
use virtualstack_proto::google::api::HttpBody;
use virtualstack_proto::virtualstack::support::v1 as proto;
use virtualstack_store::support::attachments::Attachment;
use virtualstack_store::support::staff::{self, Work};
use virtualstack_store::support::staff_files::{self, StaffAttachment};
use virtualstack_store::{Store, SystemTx};

use super::attachments::{Attachments, Coming, Said, Sender};
use super::download;
use super::messages::staff_attachment_message;
use super::names::{find_attachment, find_ticket, read_in, work};
use crate::auth::journal::{Journal, Whose};
use crate::call::caller::PlatformCaller;
use crate::call::list::{List as _, page};
use crate::call::{AnswerStream, PlatformCall};
use crate::generated::virtualstack::support::v1::TenantTicketAttachmentService;
use crate::services::incoming::expect_only_bytes;

/// The service of the provider's staff.
pub(crate) struct OfStaff {
    pub(crate) files: Attachments,
    pub(crate) journal: Journal,
}

impl TenantTicketAttachmentService for OfStaff {
    async fn list_tenant_ticket_attachments(
        &self,
        call: PlatformCall<proto::ListTenantTicketAttachmentsRequest>,
    ) -> Result<proto::ListTenantTicketAttachmentsResponse> {
        let request = call.request.list();
        let list = async |tx: &mut SystemTx| {
            let (tenant, id) = find_ticket(tx, "parent", &call.request.parent, call.tenant_id()).await?;
            staff::get(tx, tenant, id).await?;
            Ok(((tenant, id), staff_files::list(tx, (tenant, id), &request).await?))
        };
        let ((tenant, id), listed) = self.files.store.system(call.platform(), list).await?;
        self.journal.record(Whose::Tenant(tenant), call.audit(id.name()));
        Ok(page(listed, staff_attachment_message))
    }

    async fn get_tenant_ticket_attachment(
        &self,
        call: PlatformCall<proto::GetTenantTicketAttachmentRequest>,
    ) -> Result<proto::TicketAttachment> {
        self.get(&call, &call.request.name).await.map(staff_attachment_message)
    }

    async fn upload_tenant_ticket_attachment(
        &self,
        call: PlatformCall<Streaming<proto::UploadTenantTicketAttachmentRequest>>,
    ) -> Result<proto::TicketAttachment> {
        let Attachments { store, files, .. } = &self.files;
        files.expect_open()?;
        let PlatformCall { request: mut messages, caller, .. } = call;
        let place = files.places.of_member(caller.tenant_id(), caller.user())?;
        let first = files.first(&mut messages).await?;
        let find = async |tx: &mut SystemTx| find_ticket(tx, "parent", &first.parent, caller.tenant_id()).await;
        let (tenant, ticket) = store.system(caller.platform(), find).await?;
        let said = Said {
            ticket,
            file_name: attachment::file_name(&first.file_name)?,
            length: Some(first.content_length).filter(|length| *length > 0),
            validate_only: first.validate_only,
        };
        let sender = Operator { store: store.clone(), caller, tenant, ticket, internal: first.internal };
        let rest = |message: proto::UploadTenantTicketAttachmentRequest| {
            let proto::UploadTenantTicketAttachmentRequest { parent, validate_only, content_length, body, .. } =
                &message;
            expect_only_bytes([
                ("parent", !parent.is_empty()),
                ("validate_only", *validate_only),
                ("content_length", *content_length != 0),
                ("file_name", !message.file_name.is_empty()),
                ("internal", message.internal),
            ])?;
            Ok(body.clone().unwrap_or_default().data)
        };
        let coming = Coming { first: first.body.unwrap_or_default().data, messages, rest };
        self.files.take(sender, said, coming, place).await
    }

    async fn download_tenant_ticket_attachment(
        &self,
        call: PlatformCall<proto::DownloadTenantTicketAttachmentRequest>,
    ) -> Result<AnswerStream<HttpBody>> {
        let place = self.files.downloads.of_member(call.tenant_id(), call.user())?;
        let file = self.get(&call, &call.request.name).await?;
        download::send(&self.files.objects, &file, place).await
    }

    async fn delete_tenant_ticket_attachment(
        &self,
        call: PlatformCall<proto::DeleteTenantTicketAttachmentRequest>,
    ) -> Result<()> {
        let remove = async |tx: &mut SystemTx| {
            let (tenant, ticket, id) = find_attachment(tx, "name", &call.request.name, call.tenant_id()).await?;
            let file = staff_files::get(tx, (tenant, ticket), id).await?;
            let audit = call.audit(name(&file));
            staff_files::remove(tx, &work(&call, tenant, ticket, &audit), id).await.map(|_| ())
        };
        call.write(&self.files.store, remove).await
    }
}

impl OfStaff {
    async fn get<R>(&self, call: &PlatformCall<R>, name: &str) -> Result<StaffAttachment> {
        let own = call.tenant_id();
        let get = async |tx: &mut SystemTx| {
            let (tenant, ticket, id) = find_attachment(tx, "name", name, own).await?;
            staff_files::get(tx, (tenant, ticket), id).await
        };
        let file = self.files.store.system(call.platform(), get).await?;
        read_in(&self.journal, call, (file.tenant_id, file.ticket_id), file.internal);
        Ok(file)
    }
}

/// The name of a file in the log that it stands in: its tenant's, or the provider's.
fn name(file: &StaffAttachment) -> String {
    let name = file.id.name_in(file.ticket_id);
    if file.internal { format!("{}/{name}", file.tenant_id.name()) } else { name }
}

/// A member of the provider's staff.
struct Operator {
    store: Store,
    caller: PlatformCaller,
    tenant: TenantId,
    ticket: TicketId,
    internal: bool,
}

impl Sender for Operator {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    async fn check(&mut self, _: i64) -> Result<()> {
        let (tenant, ticket, internal) = (self.tenant, self.ticket, self.internal);
        let check = async |tx: &mut SystemTx| staff_files::expect_room(tx, tenant, ticket, internal).await;
        self.store.system(self.caller.platform(), check).await
    }

    async fn add(&mut self, file: Attachment) -> Result<proto::TicketAttachment> {
        let Self { caller, tenant, ticket, internal, .. } = self;
        let add = async |tx: &mut SystemTx| {
            let author_name = staff::name_of(tx, caller.tenant_id(), caller.user()).await?;
            let file = StaffAttachment {
                internal: *internal,
                ..StaffAttachment::of(Attachment { author_name, ..file.clone() })
            };
            let audit = caller.audit(name(&file));
            let (operator, provider) = (caller.user(), caller.tenant_id());
            let work = Work { tenant: *tenant, ticket: *ticket, audit: &audit, operator, provider };
            staff_files::add(tx, &work, &file).await?;
            Ok(staff_attachment_message(file))
        };
        self.store.system(caller.platform(), add).await
    }
}
