//! Files of tickets, for the members of their tenant; and how a file comes, whoever sends it.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use chrono::Utc;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::Instrument as _;
use virtualstack_model::compute::template::PIECE_BYTES;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::attachment::{self, HEAD, MAX_BYTES};
use virtualstack_model::support::id::{TicketAttachmentId, TicketId};
use virtualstack_model::{Error, Result};
use virtualstack_objects::{Key, Objects};
use virtualstack_proto::google::api::HttpBody;
use virtualstack_proto::virtualstack::support::v1 as proto;
use virtualstack_store::iam::users;
use virtualstack_store::support::attachments::{self, Attachment};
use virtualstack_store::support::staff_files::StaffAttachment;
use virtualstack_store::support::tickets::{self, Visible};
use virtualstack_store::{Ending, Read, Store, TenantTx, Write};

use super::download;
use super::messages::attachment_message;
use super::names::{attachment_id, ticket_id, visible};
use crate::call::list::{List as _, page};
use crate::call::{AnswerStream, TenantCall};
use crate::config::Config;
use crate::generated::virtualstack::support::v1::TicketAttachmentService;
use crate::layers::authorize::{Authorizer, StreamAccess};
use crate::services::compute::piece::Piece;
use crate::services::incoming::{self, Files, Incoming, broke_off, expect_only_bytes, of_storage};
use crate::services::parts::Parts;
use crate::shares::{Most, Places};

/// What files of tickets come and go by.
#[derive(Clone)]
pub(crate) struct Attachments {
    pub(super) store: Store,
    pub(super) objects: Objects,
    authorizer: Arc<Authorizer>,
    pub(super) files: Files,
    pub(super) downloads: Arc<Places>,
    /// Bytes of all files of a tenant.
    most_bytes: i64,
}

impl Attachments {
    pub(crate) fn new(parts: &Parts, config: &Config, files: Files) -> Self {
        let most = Most {
            of_all: config.max_downloads,
            of_tenant: config.max_downloads_per_tenant,
            of_member: config.max_downloads_per_principal,
        };
        Self {
            store: parts.store.clone(),
            objects: parts.objects.clone(),
            authorizer: Arc::clone(&parts.authorizer),
            files,
            downloads: Arc::new(Places::new("downloads under way", "TOO_MANY_DOWNLOADS", most)),
            most_bytes: config.max_attachment_bytes_per_tenant,
        }
    }
}

/// The service of a tenant's members.
pub(crate) struct OfTenant(pub(crate) Attachments);

impl TicketAttachmentService for OfTenant {
    async fn list_ticket_attachments(
        &self,
        call: TenantCall<proto::ListTicketAttachmentsRequest>,
    ) -> Result<proto::ListTicketAttachmentsResponse> {
        let (request, ticket) = (call.request.list(), ticket_id("parent", &call.request.parent)?);
        let visible = visible(&call);
        let read = async |tx: &mut TenantTx<Read>| {
            tickets::get(tx, visible, ticket).await?;
            attachments::list(tx, ticket, &request).await
        };
        let listed = self.0.store.read(&call.tenant(), read).await?;
        Ok(page(listed, attachment_message))
    }

    async fn get_ticket_attachment(
        &self,
        call: TenantCall<proto::GetTicketAttachmentRequest>,
    ) -> Result<proto::TicketAttachment> {
        self.get(&call, &call.request.name).await.map(attachment_message)
    }

    async fn upload_ticket_attachment(
        &self,
        call: TenantCall<Streaming<proto::UploadTicketAttachmentRequest>>,
    ) -> Result<proto::TicketAttachment> {
        let Attachments { store, files, most_bytes, .. } = &self.0;
        files.expect_open()?;
        let TenantCall { request: mut messages, caller, metadata } = call;
        let place = files.places.of_member(caller.tenant_id(), caller.user())?;
        let first = files.first(&mut messages).await?;
        let ticket = ticket_id("parent", &first.parent)?;
        let visible = Visible::of(caller.access());
        let access = self.0.authorizer.stream_access(caller, &metadata).await?;
        let sender = Member { store: store.clone(), access, place: (visible, ticket), most_bytes: *most_bytes };
        let said = Said {
            ticket,
            file_name: attachment::file_name(&first.file_name)?,
            length: Some(first.content_length).filter(|length| *length > 0),
            validate_only: first.validate_only,
        };
        let rest = |message: proto::UploadTicketAttachmentRequest| {
            let proto::UploadTicketAttachmentRequest { parent, validate_only, content_length, body, file_name } =
                message;
            expect_only_bytes([
                ("parent", !parent.is_empty()),
                ("validate_only", validate_only),
                ("content_length", content_length != 0),
                ("file_name", !file_name.is_empty()),
            ])?;
            Ok(body.unwrap_or_default().data)
        };
        let coming = Coming { first: first.body.unwrap_or_default().data, messages, rest };
        self.0.take(sender, said, coming, place).await
    }

    async fn download_ticket_attachment(
        &self,
        call: TenantCall<proto::DownloadTicketAttachmentRequest>,
    ) -> Result<AnswerStream<HttpBody>> {
        let place = self.0.downloads.of_member(call.tenant_id(), call.user())?;
        let file = self.get(&call, &call.request.name).await?;
        download::send(&self.0.objects, &StaffAttachment::of(file), place).await
    }

    async fn delete_ticket_attachment(&self, call: TenantCall<proto::DeleteTicketAttachmentRequest>) -> Result<()> {
        let (ticket, id) = attachment_id("name", &call.request.name)?;
        let visible = visible(&call);
        let remove =
            async |tx: &mut TenantTx<Write>| attachments::remove(tx, (visible, ticket), id, false).await.map(|_| ());
        // Its objects are swept: whoever downloads it now has it to its end.
        call.write(&self.0.store, id.name_in(ticket), remove).await
    }
}

impl OfTenant {
    async fn get<R>(&self, call: &TenantCall<R>, name: &str) -> Result<Attachment> {
        let (ticket, id) = attachment_id("name", name)?;
        let visible = visible(call);
        let read = async |tx: &mut TenantTx<Read>| {
            tickets::get(tx, visible, ticket).await?;
            attachments::get(tx, ticket, id).await
        };
        self.0.store.read(&call.tenant(), read).await
    }
}

/// Who sends a file.
pub(super) trait Sender: Send + 'static {
    /// Whose ticket it is.
    fn tenant(&self) -> TenantId;

    /// Refuses a file of so many bytes, at least, for which there is no room, before it comes.
    fn check(&mut self, size_bytes: i64) -> impl Future<Output = Result<()>> + Send;

    /// Adds a file whose bytes are there, and says who sends it.
    fn add(&mut self, file: Attachment) -> impl Future<Output = Result<proto::TicketAttachment>> + Send;
}

/// A member of the ticket's tenant.
struct Member {
    store: Store,
    access: StreamAccess,
    place: (Visible, TicketId),
    most_bytes: i64,
}

impl Sender for Member {
    fn tenant(&self) -> TenantId {
        self.access.caller.tenant_id()
    }

    async fn check(&mut self, size_bytes: i64) -> Result<()> {
        let (place, most) = (self.place, self.most_bytes);
        let check = async |tx: &mut TenantTx<Write>| {
            attachments::expect_room(tx, place, size_bytes, Some(most)).await.map(|_| ())
        };
        self.access.write(&self.store, (place.1.name(), Ending::of(true)), check).await
    }

    async fn add(&mut self, mut file: Attachment) -> Result<proto::TicketAttachment> {
        let ((visible, _), most, author) = (self.place, self.most_bytes, self.access.caller.user());
        file.author_id = Some(author);
        let add = async |tx: &mut TenantTx<Write>| {
            let author_name = users::get(tx, author).await?.user.display_name;
            let file = Attachment { author_name, ..file.clone() };
            attachments::add(tx, visible, &file, Some(most)).await?;
            Ok(attachment_message(file))
        };
        let resource = file.id.name_in(file.ticket_id);
        self.access.write(&self.store, (resource, Ending::Commit), add).await
    }
}

/// What is said of a file before it comes.
pub(super) struct Said {
    pub(super) ticket: TicketId,
    pub(super) file_name: String,
    pub(super) length: Option<i64>,
    pub(super) validate_only: bool,
}

/// A file that comes: its first bytes, and those of the messages after them.
pub(super) struct Coming<M, F> {
    pub(super) first: Bytes,
    pub(super) messages: Streaming<M>,
    pub(super) rest: F,
}

impl Attachments {
    /// Takes a file. A task does, which outlives its call: what was put when the client broke off is removed in any case.
    pub(super) async fn take<S, M, F>(
        &self,
        mut sender: S,
        said: Said,
        coming: Coming<M, F>,
        place: crate::shares::Part,
    ) -> Result<proto::TicketAttachment>
    where
        S: Sender,
        M: Default + Send + 'static,
        F: Fn(M) -> Result<Bytes> + Send + 'static,
    {
        if said.length.is_some_and(|length| length > MAX_BYTES) {
            return Err(too_large());
        }
        sender.check(said.length.unwrap_or(1)).await?;
        if said.validate_only {
            return Ok(proto::TicketAttachment::default());
        }
        let gone = CancellationToken::new();
        let Coming { first, messages, rest } = coming;
        let incoming = self.files.rest(messages, gone.clone());
        let mut writer = Writer::new(self.objects.clone(), sender.tenant());
        let work = async move {
            let _place = place;
            if let Err(error) = writer.receive(first, incoming, rest, said.length).await {
                incoming::remove(&writer.objects, &writer.put).await;
                return Err(error);
            }
            let added = sender.add(writer.file(&said)).await;
            if added.as_ref().is_err_and(incoming::is_refused) {
                incoming::remove(&writer.objects, &writer.put).await;
            }
            added
        };
        let work = tokio::spawn(work.in_current_span());
        // A call that is given up drops this.
        let _gone = gone.drop_guard();
        work.await.map_err(Error::internal)?
    }
}

/// Puts the bytes of a file into the store as they come.
struct Writer {
    objects: Objects,
    tenant: TenantId,
    id: TicketAttachmentId,
    piece: Piece,
    put: Vec<Key>,
    size: i64,
    head: Vec<u8>,
    sum: Sha256,
}

impl Writer {
    fn new(objects: Objects, tenant: TenantId) -> Self {
        Self {
            objects,
            tenant,
            id: TicketAttachmentId::new(),
            piece: Piece::default(),
            put: Vec::new(),
            size: 0,
            head: Vec::new(),
            sum: Sha256::new(),
        }
    }

    async fn receive<M>(
        &mut self,
        first: Bytes,
        mut incoming: Incoming<M>,
        rest: impl Fn(M) -> Result<Bytes>,
        length: Option<i64>,
    ) -> Result<()> {
        incoming.count(first.len())?;
        self.put_in(first).await?;
        while let Some(message) = incoming.next().await? {
            let data = rest(message)?;
            incoming.count(data.len())?;
            self.put_in(data).await?;
        }
        self.keep().await?;
        match length {
            Some(length) if length > self.size => Err(broke_off("bytes that were announced did not come")),
            Some(length) if length < self.size => Err(Error::invalid("body", "has more bytes than were announced")),
            _ if self.size == 0 => Err(Error::invalid("body", "is empty")),
            _ => Ok(()),
        }
    }

    async fn put_in(&mut self, mut data: Bytes) -> Result<()> {
        self.size += i64::try_from(data.len()).map_err(Error::internal)?;
        if self.size > MAX_BYTES {
            return Err(too_large());
        }
        let head = data.len().min(HEAD.saturating_sub(self.head.len()));
        self.head.extend_from_slice(&data[..head]);
        self.sum.update(&data);
        while !data.is_empty() {
            data = self.piece.fill(data);
            if self.piece.is_full() {
                self.keep().await?;
            }
        }
        Ok(())
    }

    async fn keep(&mut self) -> Result<()> {
        let Some(bytes) = self.piece.take() else { return Ok(()) };
        let object = attachment::object(self.tenant, self.id, self.put.len() * PIECE_BYTES);
        let key: Key = object.parse().map_err(Error::internal)?;
        // It may be there even where the store says nothing.
        self.put.push(key.clone());
        self.objects.put(&key, vec![bytes]).await.map_err(of_storage)
    }

    fn file(&mut self, said: &Said) -> Attachment {
        Attachment {
            tenant_id: self.tenant,
            id: self.id,
            ticket_id: said.ticket,
            file_name: said.file_name.clone(),
            size_bytes: self.size,
            content_type: attachment::sniff(&self.head).to_owned(),
            sha256: format!("{:x}", Bytes::copy_from_slice(&self.sum.finalize_reset())),
            author_id: None,
            author_name: String::new(),
            created_at: Utc::now(),
        }
    }
}

fn too_large() -> Error {
    let message = format!("a file may have {MAX_BYTES} bytes at most");
    Error::ResourceExhausted { reason: "ATTACHMENT_TOO_LARGE", message, retry_after: None }
}
