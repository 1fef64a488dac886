//! Uploads: the file of a template on its way from a client to the object store.
//!
//! A task takes the bytes, and outlives its call: what had come when the client broke off is still kept, so that it goes on from
//! there, at any server. The task holds one piece, and reads no further while that is written. A piece counts once its row is
//! there, which comes after its object; an object without a row is swept.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::Instrument as _;
use uuid::Uuid;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::{Error, Result};
use virtualstack_objects::{Key, Objects};
use virtualstack_proto::virtualstack::compute::v1::{UploadTemplateRequest, UploadTemplateResponse};
use virtualstack_store::compute::template_uploads::{self, Begun, Bounds, Part};
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{Ending, Store, TenantTx, Write};

use super::announced::Announced;
use super::piece::Piece;
use crate::call::TenantCall;
use crate::config::Config;
use crate::layers::authorize::{Authorizer, StreamAccess};
use crate::services::incoming::{self, Files, Incoming, broke_off, expect_only_bytes, of_storage};
use crate::services::parts::Parts;

/// How often an upload is held on to while its bytes are slow.
const RENEWAL: Duration = Duration::from_secs(10);

pub(crate) struct Uploads {
    store: Store,
    objects: Objects,
    authorizer: Arc<Authorizer>,
    files: Files,
    bounds: Bounds,
}

impl Uploads {
    pub(crate) fn new(parts: &Parts, config: &Config, files: Files) -> Self {
        Self {
            store: parts.store.clone(),
            objects: parts.objects.clone(),
            authorizer: Arc::clone(&parts.authorizer),
            files,
            bounds: Bounds { max_bytes: config.max_template_bytes, expiry: config.upload_expiry() },
        }
    }

    /// Takes a file, or a piece of it.
    pub(crate) async fn take(
        &self,
        call: TenantCall<Streaming<UploadTemplateRequest>>,
    ) -> Result<UploadTemplateResponse> {
        self.files.expect_open()?;
        let TenantCall { request: mut messages, caller, metadata } = call;
        let place = self.files.places.of_member(caller.tenant_id(), caller.user())?;
        let first = self.files.first(&mut messages).await?;
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
            announced,
            there,
            known: announced.coming.first_byte.map_or(0, |first| there - first),
            left: announced.length,
            piece: Piece::default(),
            renewed: Instant::now(),
        };
        let rest = self.files.rest(messages, gone.clone());
        let work = async move {
            let _place = place;
            writer.run(rest, first.body.unwrap_or_default().data).await
        };
        let work = tokio::spawn(work.in_current_span());
        // A call that is given up drops this.
        let _gone = gone.drop_guard();
        let received_bytes = work.await.map_err(Error::internal)??;
        Ok(UploadTemplateResponse { received_bytes })
    }
}

/// The task that takes the bytes.
struct Writer {
    store: Store,
    objects: Objects,
    access: StreamAccess,
    id: TemplateId,
    token: Uuid,
    bounds: Bounds,
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
    async fn run(mut self, rest: Incoming<UploadTemplateRequest>, first: Bytes) -> Result<i64> {
        let ended = self.receive(rest, first).await;
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

    async fn receive(&mut self, mut rest: Incoming<UploadTemplateRequest>, first: Bytes) -> Result<()> {
        rest.count(first.len())?;
        self.put_in(first).await?;
        loop {
            let message = tokio::select! {
                biased;
                () = sleep_until(self.renewed + RENEWAL) => {
                    self.renew().await?;
                    continue;
                }
                message = rest.next() => message?,
            };
            let Some(message) = message else { return self.check_end() };
            let UploadTemplateRequest { name, validate_only, content_range, content_length, body } = message;
            expect_only_bytes([
                ("name", !name.is_empty()),
                ("validate_only", validate_only),
                ("content_range", !content_range.is_empty()),
                ("content_length", content_length != 0),
            ])?;
            let data = body.unwrap_or_default().data;
            rest.count(data.len())?;
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
            if incoming::is_refused(&error) {
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

/// Removes objects that no row refers to.
async fn remove(objects: &Objects, parts: &[Part]) {
    let keys: Vec<Key> = parts.iter().filter_map(|part| part.object.parse().ok()).collect();
    incoming::remove(objects, &keys).await;
}
