//! Files that come from the provider's desk.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use virtualstack_model::compute::template::PIECE_BYTES;
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Actor, Audit, Outcome};
use virtualstack_model::support::attachment::{self, HEAD, MAX_BYTES};
use virtualstack_model::support::id::{TicketAttachmentId, TicketId};
use virtualstack_model::{Error, Result};
use virtualstack_objects::Key;
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk::{self as store, Author, TwinKey};
use virtualstack_store::support::staff_files::StaffAttachment;

use super::desk_problem::Problem;
use crate::adapters::desk::{Class, Desk, Fault, RemoteFile};
use crate::engine::task::TaskContext;
use crate::reconciler::reconciler;

/// Takes a file over, once. One that cannot be is told to the operator, and not asked for again.
pub(super) async fn take(
    context: &TaskContext<'_>,
    desk: &dyn Desk,
    key: TwinKey<'_>,
    remote: &RemoteFile,
    (author, internal): (&Author, bool),
) -> Result<(), Problem> {
    let TwinKey { tenant, ticket, .. } = key;
    let remote_id = format!("file {}", remote.id);
    let ids = [remote_id.clone()];
    let known = async |tx: &mut SystemTx| store::known(tx, desk.name(), &ids).await;
    if !context.store().system(reconciler(), known).await?.is_empty() {
        return Ok(());
    }
    let id = TicketAttachmentId::new();
    let bytes = match context.call("fetch", desk.fetch(remote, MAX_BYTES.unsigned_abs())).await {
        Ok(bytes) => bytes,
        Err(Fault { class: Class::Refused | Class::Missing, message }) => {
            return leave(context, key, id, &remote_id, &message).await;
        }
        Err(fault) => return Err(Problem::Desk(fault)),
    };
    if bytes.is_empty() {
        return leave(context, key, id, &remote_id, "it is empty").await;
    }
    let keys = put(context, (tenant, id), &bytes).await?;
    let file = StaffAttachment {
        tenant_id: tenant,
        id,
        ticket_id: ticket,
        file_name: attachment::file_name(&remote.name).unwrap_or_else(|_| "file".to_owned()),
        size_bytes: i64::try_from(bytes.len()).map_err(Error::internal)?,
        content_type: attachment::sniff(&bytes[..bytes.len().min(HEAD)]).to_owned(),
        sha256: format!("{:x}", Bytes::copy_from_slice(&Sha256::digest(&bytes))),
        author_id: author.user,
        author_name: author.name.clone(),
        internal,
        created_at: context.now(),
    };
    let audit = audit(ticket);
    let receive = async |tx: &mut SystemTx| store::receive_file(tx, &audit, key, &remote_id, &file).await;
    match context.commit("file", receive).await {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        // The ticket is closed, or has as many files as it may have.
        Err(Error::FailedPrecondition { message, .. }) => {
            leave(context, key, id, &remote_id, &message).await?;
        }
        Err(error) => return Err(Problem::Here(error)),
    }
    if let Err(fault) = context.shared.objects.delete(&keys).await {
        tracing::info!("objects are left to be swept: {}", fault.detail);
    }
    Ok(())
}

/// Leaves a file where it is, for good.
async fn leave(
    context: &TaskContext<'_>,
    key: TwinKey<'_>,
    id: TicketAttachmentId,
    remote_id: &str,
    why: &str,
) -> Result<(), Problem> {
    tracing::warn!(ticket = %key.ticket, why, "a file of the desk's is left there");
    let pair = async |tx: &mut SystemTx| store::pair(tx, key, id.0, remote_id).await;
    context.commit("file", pair).await?;
    Ok(())
}

/// Puts the bytes of a file into the object store.
async fn put(
    context: &TaskContext<'_>,
    (tenant, id): (TenantId, TicketAttachmentId),
    bytes: &Bytes,
) -> Result<Vec<Key>, Problem> {
    let mut keys = Vec::new();
    for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        let object = attachment::object(tenant, id, number * PIECE_BYTES);
        let key: Key = object.parse().map_err(Error::internal)?;
        let unkept = |fault: virtualstack_objects::Fault| {
            Problem::Desk(Fault { class: Class::Retry, message: fault.to_string() })
        };
        context.shared.objects.put(&key, vec![bytes.slice_ref(piece)]).await.map_err(unkept)?;
        keys.push(key);
    }
    Ok(keys)
}

/// What the desk does here.
pub(super) fn audit(id: TicketId) -> Audit {
    Audit {
        action: "desk_sync".to_owned(),
        actor: Actor::System("desk"),
        resource: id.name(),
        request_id: String::new(),
        client_address: None,
        traceparent: None,
        outcome: Outcome::Done,
    }
}
