//! Uploads: the file of a template, piece by piece. One writer at a time holds it, by a token that runs out unless it is
//! renewed; a piece counts once its row is there, which says in which object its bytes are.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::quota::Amounts;
use virtualstack_model::compute::template::{LEAST_PIECE, SMALL_PIECES, TemplateState};
use virtualstack_model::{Error, Result};

use crate::compute::event::Event;
use crate::compute::quotas;
use crate::compute::user_templates::{self, UserTemplate};
use crate::schema::{template_parts as parts, user_templates as table};
use crate::tx::error::from_diesel;
use crate::tx::{Mode, SystemTx, TenantTx, Write};

/// How long a writer holds an upload that it does not renew.
pub const HELD: TimeDelta = TimeDelta::seconds(30);

/// Bytes of a file that are worth telling whoever watches.
const TOLD: i64 = 64 << 20;

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = parts)]
pub struct Part {
    pub first_byte: i64,
    pub size_bytes: i64,
    /// Where its bytes are in the object store.
    pub object: String,
}

/// What an upload brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    /// Its first byte in the file; None begins the file anew.
    pub first_byte: Option<i64>,
    /// Size of the whole file, where it is known.
    pub total: Option<i64>,
}

/// Bounds of uploads.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Size of a file at most.
    pub max_bytes: i64,
    /// How long a file waits for its next byte.
    pub expiry: TimeDelta,
}

/// An upload that a writer has.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The offset from which bytes are wanted.
    pub there: i64,
    /// What the file was before it begins anew. Nothing refers to the objects any more.
    pub replaced: Vec<Part>,
}

/// Takes a template's upload for a writer.
pub async fn begin(
    tx: &mut TenantTx<Write>,
    id: TemplateId,
    token: Uuid,
    coming: Coming,
    bounds: Bounds,
) -> Result<Begun> {
    let before = user_templates::lock(tx, id).await?;
    before.state.expect(TemplateState::Uploading, id, "an upload")?;
    if before.is_being_written() {
        return Err(Error::aborted("UPLOAD_IN_PROGRESS", "another upload to this template is under way"));
    }
    let mut template = before.clone();
    match coming.first_byte {
        None => (template.uploaded_bytes, template.size_bytes) = (0, 0),
        Some(first) if first > before.uploaded_bytes => {
            return Err(Error::OffsetMismatch { uploaded_bytes: before.uploaded_bytes, first_byte: first });
        }
        Some(_) => {}
    }
    if let Some(total) = coming.total {
        if template.size_bytes != 0 && total != template.size_bytes {
            let wrong = format!("says {total} bytes in all, and an earlier piece said {}", template.size_bytes);
            return Err(Error::invalid("content_range", wrong));
        }
        if total < template.uploaded_bytes {
            let wrong = format!("says {total} bytes in all, and {} are there", template.uploaded_bytes);
            return Err(Error::invalid("content_range", wrong));
        }
        if total > bounds.max_bytes {
            return Err(too_large(bounds.max_bytes));
        }
        template.size_bytes = total;
        // Before a byte comes; each is reserved as it does.
        let missing = Amounts { template_bytes: total - before.uploaded_bytes, ..Amounts::NONE };
        quotas::check(tx, &missing).await?;
    }
    template.upload_token = Some(token);
    template.upload_until = Some(Utc::now() + HELD);
    template.upload_expires_at = Some(Utc::now() + bounds.expiry);
    // It was about the bytes as they were.
    template.state_reason.clear();
    let replaced = if coming.first_byte.is_none() { forget_parts(tx, id).await? } else { Vec::new() };
    user_templates::save(tx, &before, &mut template).await?;
    Ok(Begun { there: template.uploaded_bytes, replaced })
}

/// Puts a piece behind what there is, whose bytes are in the object store already, within the quota. Only its writer can.
pub async fn append(tx: &mut TenantTx<Write>, id: TemplateId, token: Uuid, part: &Part, bounds: Bounds) -> Result<()> {
    let before = held(tx, id, token).await?;
    if before.uploaded_bytes != part.first_byte {
        return Err(lost());
    }
    let mut template = before.clone();
    template.uploaded_bytes += part.size_bytes;
    if template.uploaded_bytes > bounds.max_bytes {
        return Err(too_large(bounds.max_bytes));
    }
    template.upload_until = Some(Utc::now() + HELD);
    template.upload_expires_at = Some(Utc::now() + bounds.expiry);
    if part.size_bytes < LEAST_PIECE {
        check_pieces(tx, &before).await?;
    }
    diesel::insert_into(parts::table)
        .values((
            parts::tenant_id.eq(tx.tenant()),
            parts::template_id.eq(id),
            parts::first_byte.eq(part.first_byte),
            parts::size_bytes.eq(part.size_bytes),
            parts::object.eq(&part.object),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if before.uploaded_bytes / TOLD == template.uploaded_bytes / TOLD {
        return user_templates::save(tx, &before, &mut template).await;
    }
    let message = format!("{} bytes of the file have come", template.uploaded_bytes);
    let event = Event { reason: "TEMPLATE_UPLOADED", message, operation: None };
    user_templates::update(tx, &before, &mut template, event).await
}

/// Refuses one more small piece of a file that has come in too many for its size.
async fn check_pieces(tx: &mut TenantTx<Write>, template: &UserTemplate) -> Result<()> {
    let of_template = parts::table.filter(parts::tenant_id.eq(tx.tenant()).and(parts::template_id.eq(template.id)));
    let pieces: i64 = of_template.count().get_result(tx.connection()?).await.map_err(from_diesel)?;
    if pieces < SMALL_PIECES + template.uploaded_bytes / LEAST_PIECE {
        return Ok(());
    }
    let message = format!("the file has come in {pieces} pieces already; send pieces of at least {LEAST_PIECE} bytes");
    Err(Error::precondition("TOO_MANY_PIECES", template.id.name(), message))
}

/// Holds an upload on whose bytes are slow to come.
pub async fn renew(tx: &mut TenantTx<Write>, id: TemplateId, token: Uuid) -> Result<()> {
    held(tx, id, token).await?;
    set_until(tx, id, Some(Utc::now() + HELD)).await
}

/// Lets another writer at an upload. `total` is the size of the file, where all of it has come.
pub async fn end(tx: &mut TenantTx<Write>, id: TemplateId, token: Uuid, total: Option<i64>) -> Result<i64> {
    let before = held(tx, id, token).await?;
    let mut template = before.clone();
    (template.upload_token, template.upload_until) = (None, None);
    template.size_bytes = total.unwrap_or(before.size_bytes);
    let message = format!("{} bytes of the file have come", template.uploaded_bytes);
    let event = Event { reason: "TEMPLATE_UPLOADED", message, operation: None };
    user_templates::update(tx, &before, &mut template, event).await?;
    Ok(template.uploaded_bytes)
}

/// Gives an upload up that nothing more is known of, if it is still held by this writer.
pub async fn release(tx: &mut TenantTx<Write>, id: TemplateId, token: Uuid) -> Result<()> {
    match held(tx, id, token).await {
        Ok(_) => set_until(tx, id, None).await,
        Err(_) => Ok(()),
    }
}

async fn set_until(tx: &mut TenantTx<Write>, id: TemplateId, until: Option<DateTime<Utc>>) -> Result<()> {
    diesel::update(table::table.filter(table::tenant_id.eq(tx.tenant()).and(table::id.eq(id))))
        .set(table::upload_until.eq(until))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// The template whose upload a writer holds. One whose time ran out does not: its objects may be swept.
async fn held(tx: &mut TenantTx<Write>, id: TemplateId, token: Uuid) -> Result<UserTemplate> {
    let template = user_templates::find_locked(tx, id).await?.ok_or_else(lost)?;
    let holds = template.state == TemplateState::Uploading
        && template.upload_token == Some(token)
        && template.upload_until.is_some_and(|until| until > Utc::now());
    if holds { Ok(template) } else { Err(lost()) }
}

fn lost() -> Error {
    Error::aborted("UPLOAD_IN_PROGRESS", "the upload was taken over, or the template is not being uploaded any more")
}

fn too_large(most: i64) -> Error {
    let message = format!("the file is larger than {most} bytes");
    Error::ResourceExhausted { reason: "TEMPLATE_TOO_LARGE", message, retry_after: None }
}

/// The pieces of a file, in order.
pub async fn parts<M: Mode>(tx: &mut TenantTx<M>, id: TemplateId) -> Result<Vec<Part>> {
    parts::table
        .filter(parts::tenant_id.eq(tx.tenant()).and(parts::template_id.eq(id)))
        .order(parts::first_byte)
        .select(Part::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Forgets the pieces of a file, and gives them. Their objects are swept, unless somebody removes them.
pub async fn forget_parts(tx: &mut TenantTx<Write>, id: TemplateId) -> Result<Vec<Part>> {
    let of_template = parts::table.filter(parts::tenant_id.eq(tx.tenant()).and(parts::template_id.eq(id)));
    diesel::delete(of_template).returning(Part::as_returning()).get_results(tx.connection()?).await.map_err(from_diesel)
}

/// Which of these objects a row knows, of whatever tenant.
pub async fn known(tx: &mut SystemTx, objects: &[String]) -> Result<Vec<String>> {
    parts::table
        .filter(parts::object.eq_any(objects))
        .select(parts::object)
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}
