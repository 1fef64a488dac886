//! Uploads: the file of a template on its way from a client to the object store.
//!
//! A task takes the bytes, and outlives its call: what had come when the client broke off is still kept, so that it goes on from
//! there, at any server. The task holds one piece, and reads no further while that is written. A piece counts once its row is
//! there, which comes after its object; an object without a row is swept.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use tracing::Instrument as _;
use uuid::Uuid;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::error::Violation;
use virtualstack_model::{Error, Result};
use virtualstack_objects::{Class, Fault, Key, Objects};
use virtualstack_proto::virtualstack::compute::v1::{UploadTemplateRequest, UploadTemplateResponse};
use virtualstack_store::compute::template_uploads::{self, Begun, Bounds, Part};
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{Ending, Store, TenantTx, Write};

use super::announced::Announced;
use super::piece::Piece;
use crate::call::TenantCall;
use crate::config::Config;
use crate::layers::authorize::{Authorizer, StreamAccess};
use crate::services::parts::Parts;
use crate::shares::{Most, Places};

/// Bytes a second in the long run, at least, once an upload has lasted as long as it may be idle.
const LEAST_RATE: u64 = 16 * 1024;

/// How often an upload is held on to while its bytes are slow.
const RENEWAL: Duration = Duration::from_secs(10);

pub(crate) struct Uploads {
    store: Store,
    objects: Objects,
    authorizer: Arc<Authorizer>,
    stopping: CancellationToken,
    places: Places,
    bounds: Bounds,
    /// How long the first message may take.
    patience: Duration,
    /// How long a client may send nothing after it.
    idle: Duration,
}

impl Uploads {
    pub(crate) fn new(parts: &Parts, config: &Config) -> Self {
        let most = Most {
            of_all: config.max_uploads,
            of_tenant: config.max_uploads_per_tenant,
            of_member: config.max_uploads_per_principal,
        };
        Self {
            store: parts.store.clone(),
            objects: parts.objects.clone(),
            authorizer: Arc::clone(&parts.authorizer),
            stopping: parts.stopping.clone(),
            places: Places::new("uploads under way", "TOO_MANY_UPLOADS", most),
            bounds: Bounds { max_bytes: config.max_template_bytes, expiry: config.upload_expiry() },
            patience: Duration::from_secs(config.request_body_seconds),
            idle: Duration::from_secs(config.upload_idle_seconds),
        }
    }

    /// Takes a file, or a piece of it.
    pub(crate) async fn take(
        &self,
        call: TenantCall<Streaming<UploadTemplateRequest>>,
    ) -> Result<UploadTemplateResponse> {
        if self.stopping.is_cancelled() {
            return Err(stopping());
        }
        let TenantCall { request: mut messages, caller, metadata } = call;
        // Before anything is read: what has come of a message is kept until the rest has.
        let place = self.places.of_member(caller.tenant_id(), caller.user())?;
        let first = timeout(self.patience, messages.message()).await.map_err(|_| stalled(self.patience))?;
        let first = first.map_err(|status| of_status(&status))?.unwrap_or_default();
        let id = TemplateId::parse("name", &first.name)?;
        let announced = Announced::of(&first.content_range, first.content_length)?;
        let mut access = self.authorizer.stream_access(caller, &metadata).await?;
        let (token, bounds) = (Uuid::now_v7(), self.bounds);
        let begin =
            async |tx: &mut TenantTx<Write>| template_uploads::begin(tx, id, token, announced.coming, bounds).await;
        let Begun { there, replaced } =
            access.write(&self.store, (id.name(), Ending::of(first.validate_only)), begin).await?;
        if first.validate_only {
            return Ok(UploadTemplateResponse { received_bytes: there });
        }
        // Now, and not by the sweep: who begins anew all the time would fill the store beyond any quota.
        remove(&self.objects, &replaced).await;
        let gone = CancellationToken::new();
        let writer = Writer {
            store: self.store.clone(),
            objects: self.objects.clone(),
            access,
            id,
            token,
            bounds,
            idle: self.idle,
            announced,
            there,
            known: announced.coming.first_byte.map_or(0, |first| there - first),
            left: announced.length,
            piece: Piece::default(),
            renewed: Instant::now(),
        };
        let ends = Ends { stopping: self.stopping.clone(), gone: gone.clone() };
        let work = async move {
            let _place = place;
            writer.run(messages, first.body.unwrap_or_default().data, ends).await
        };
        let work = tokio::spawn(work.in_current_span());
        // A call that is given up drops this.
        let _gone = gone.drop_guard();
        let received_bytes = work.await.map_err(Error::internal)??;
        Ok(UploadTemplateResponse { received_bytes })
    }
}

/// What ends an upload beside its client.
struct Ends {
    stopping: CancellationToken,
    gone: CancellationToken,
}

/// The task that takes the bytes.
struct Writer {
    store: Store,
    objects: Objects,
    access: StreamAccess,
    id: TemplateId,
    token: Uuid,
    bounds: Bounds,
    idle: Duration,
    announced: Announced,
    /// Bytes of the file that are there.
    there: i64,
    /// How many of those that come are among them.
    known: i64,
    /// How many are still to come, where that is known.
    left: Option<i64>,
    piece: Piece,
    /// When the upload was last held on to.
    renewed: Instant,
}

impl Writer {
    /// Takes bytes until something ends that, and keeps what has come in any case.
    async fn run(mut self, messages: Streaming<UploadTemplateRequest>, first: Bytes, ends: Ends) -> Result<i64> {
        let ended = self.receive(messages, first, ends).await;
        let kept = self.keep().await;
        if let Err(error) = ended.and(kept) {
            let (id, token) = (self.id, self.token);
            let release = async |tx: &mut TenantTx<Write>| template_uploads::release(tx, id, token).await;
            if let Err(error) = self.write(release).await {
                tracing::info!("an upload that broke off is held until its time runs out: {error}");
            }
            return Err(error);
        }
        let whole = self.announced.coming.first_byte.is_none();
        let (id, token, total) = (self.id, self.token, Some(self.there).filter(|_| whole));
        self.write(async |tx: &mut TenantTx<Write>| template_uploads::end(tx, id, token, total).await).await
    }

    async fn receive(
        &mut self,
        mut messages: Streaming<UploadTemplateRequest>,
        first: Bytes,
        ends: Ends,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut heard = begun;
        let mut received = first.len() as u64;
        self.put_in(first).await?;
        loop {
            let message = tokio::select! {
                biased;
                () = ends.stopping.cancelled() => return Err(stopping()),
                () = ends.gone.cancelled() => return Err(broke_off("the call was given up")),
                () = sleep_until(self.renewed + RENEWAL) => {
                    self.renew().await?;
                    continue;
                }
                () = sleep_until(heard + self.idle) => return Err(stalled(self.idle)),
                message = messages.message() => message.map_err(|status| of_status(&status))?,
            };
            let Some(message) = message else { return self.check_end() };
            heard = Instant::now();
            check_later(&message)?;
            let data = message.body.unwrap_or_default().data;
            received += data.len() as u64;
            if heard - begun > self.idle + Duration::from_secs(received / LEAST_RATE) {
                return Err(too_slow());
            }
            self.put_in(data).await?;
        }
    }

    /// Takes the next bytes that have come.
    async fn put_in(&mut self, mut data: Bytes) -> Result<()> {
        let count = i64::try_from(data.len()).map_err(Error::internal)?;
        if let Some(left) = &mut self.left {
            *left -= count;
            if *left < 0 {
                return Err(Error::invalid("body", "has more bytes than were announced"));
            }
        }
        let known = self.known.min(count);
        self.known -= known;
        let mut rest = data.split_off(usize::try_from(known).map_err(Error::internal)?);
        while !rest.is_empty() {
            rest = self.piece.fill(rest);
            if self.piece.is_full() {
                self.keep().await?;
            }
        }
        Ok(())
    }

    /// Puts what was taken into the store, and behind what there is of the file.
    async fn keep(&mut self) -> Result<()> {
        let Some(bytes) = self.piece.take() else { return Ok(()) };
        let size_bytes = i64::try_from(bytes.len()).map_err(Error::internal)?;
        let (id, token, bounds) = (self.id, self.token, self.bounds);
        let object = format!("{}-{}", self.there, Uuid::now_v7().simple());
        let tenant = self.access.caller.tenant_id().to_string();
        let key = Key::new(["templates", &tenant, &id.to_string(), &object]).map_err(Error::internal)?;
        let objects = self.objects.clone();
        self.while_held(objects.put(&key, vec![bytes])).await?.map_err(of_storage)?;
        let part = Part { first_byte: self.there, size_bytes, object: key.to_string() };
        let append = async |tx: &mut TenantTx<Write>| template_uploads::append(tx, id, token, &part, bounds).await;
        if let Err(error) = self.write(append).await {
            if is_beyond_a_bound(&error) {
                remove(&self.objects, &[part]).await;
            }
            return Err(error);
        }
        self.there += size_bytes;
        Ok(())
    }

    /// Waits for something, and holds on to the upload meanwhile.
    async fn while_held<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = sleep_until(self.renewed + RENEWAL) => self.renew().await?,
            }
        }
    }

    async fn renew(&mut self) -> Result<()> {
        let (id, token) = (self.id, self.token);
        self.write(async |tx: &mut TenantTx<Write>| template_uploads::renew(tx, id, token).await).await
    }

    /// Writes as the caller, as a part of the call that was audited when it began.
    async fn write<T, F>(&mut self, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let write = async |tx: &mut TenantTx<Write>| {
            tx.continue_audited();
            f(tx).await
        };
        let done = self.access.write(&self.store, (self.id.name(), Ending::Commit), write).await?;
        self.renewed = Instant::now();
        Ok(done)
    }

    /// Whether all has come that was announced.
    fn check_end(&self) -> Result<()> {
        match self.left {
            Some(left) if left > 0 => Err(broke_off(&format!("{left} bytes that were announced did not come"))),
            _ => Ok(()),
        }
    }
}

/// Refuses a later message that says what the first one has to say.
fn check_later(message: &UploadTemplateRequest) -> Result<()> {
    let UploadTemplateRequest { name, validate_only, content_range, content_length, body: _ } = message;
    let said = [
        ("name", !name.is_empty()),
        ("validate_only", *validate_only),
        ("content_range", !content_range.is_empty()),
        ("content_length", *content_length != 0),
    ];
    let violations = said.into_iter().filter(|(_, is_said)| *is_said);
    let violations: Vec<_> = violations.map(|(field, _)| Violation::new(field, "is for the first message")).collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::invalid_all(violations)) }
}

/// Whether a piece was refused for good, so that no row can refer to its object. Of any other error that is not known.
fn is_beyond_a_bound(error: &Error) -> bool {
    matches!(error, Error::QuotaExceeded { .. } | Error::ResourceExhausted { .. } | Error::FailedPrecondition { .. })
}

/// Removes objects that no row refers to. What is left of them is swept.
async fn remove(objects: &Objects, parts: &[Part]) {
    let keys: Vec<Key> = parts.iter().filter_map(|part| part.object.parse().ok()).collect();
    if let Err(fault) = objects.delete(&keys).await {
        tracing::info!("{} objects are left to be swept: {}", keys.len(), fault.detail);
    }
}

/// What is wrong with a message of the stream, or with the stream.
fn of_status(status: &Status) -> Error {
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    match status.code() {
        Code::InvalidArgument if !violations.is_empty() => {
            let violations = violations.into_iter().map(|of| Violation::new(&of.field, of.description));
            Error::invalid_all(violations.collect())
        }
        Code::OutOfRange | Code::ResourceExhausted => {
            Error::invalid("body", "comes in messages that are too large; send several")
        }
        _ => broke_off(status.message()),
    }
}

fn broke_off(how: &str) -> Error {
    Error::aborted("UPLOAD_INCOMPLETE", format!("the upload broke off: {how}; what came is kept"))
}

fn stalled(patience: Duration) -> Error {
    let message = format!("no byte of the upload came for {} s; what came is kept", patience.as_secs());
    Error::DeadlineExceeded { reason: "UPLOAD_STALLED", message }
}

fn too_slow() -> Error {
    let message = format!("the upload is slower than {LEAST_RATE} bytes a second; what came is kept");
    Error::DeadlineExceeded { reason: "UPLOAD_TOO_SLOW", message }
}

fn stopping() -> Error {
    Error::Unavailable {
        reason: "SERVER_STOPPING",
        message: "this server is stopping; go on at another".to_owned(),
        retry_after: Duration::from_secs(1),
        source: None,
    }
}

/// A fault of the store as the client hears it. What the store says is for the operator.
fn of_storage(fault: Fault) -> Error {
    tracing::warn!(class = ?fault.class, "the object store does not take a piece: {}", fault.detail);
    let message = fault.message.to_owned();
    let retry_after = Duration::from_secs(10);
    match fault.class {
        Class::Full => Error::ResourceExhausted { reason: "STORAGE_FULL", message, retry_after: Some(retry_after) },
        Class::Retry | Class::Missing | Class::Permanent => {
            Error::Unavailable { reason: "STORAGE_UNAVAILABLE", message, retry_after, source: None }
        }
    }
}
