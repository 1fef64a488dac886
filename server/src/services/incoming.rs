//! What comes of a file, message by message: how long its client may say nothing or be slow, and what ends it otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use virtualstack_model::error::Violation;
use virtualstack_model::{Error, Result};
use virtualstack_objects::{Class, Fault, Key, Objects};

use crate::config::Config;
use crate::services::parts::Parts;
use crate::shares::{Most, Places};

/// Bytes a second in the long run, at least, once a file has been on its way as long as it may be idle.
const LEAST_RATE: u64 = 16 * 1024;

/// Files on their way from clients: all kinds share their places.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) places: Arc<Places>,
    stopping: CancellationToken,
    /// How long the first message may take.
    patience: Duration,
    /// How long a client may send nothing after it.
    idle: Duration,
}

impl Files {
    pub(crate) fn new(parts: &Parts, config: &Config) -> Self {
        let most = Most {
            of_all: config.max_uploads,
            of_tenant: config.max_uploads_per_tenant,
            of_member: config.max_uploads_per_principal,
        };
        Self {
            places: Arc::new(Places::new("uploads under way", "TOO_MANY_UPLOADS", most)),
            stopping: parts.stopping.clone(),
            patience: Duration::from_secs(config.request_body_seconds),
            idle: Duration::from_secs(config.upload_idle_seconds),
        }
    }

    /// Refuses a file that begins while the server stops.
    pub(crate) fn expect_open(&self) -> Result<()> {
        if self.stopping.is_cancelled() { Err(stopping()) } else { Ok(()) }
    }

    /// The first message of a file. Its place is taken before anything is read: what has come of a message is kept until the rest
    /// has.
    pub(crate) async fn first<M: Default>(&self, messages: &mut Streaming<M>) -> Result<M> {
        let first = timeout(self.patience, messages.message()).await.map_err(|_| stalled(self.patience))?;
        Ok(first.map_err(|status| of_status(&status))?.unwrap_or_default())
    }

    /// What comes after the first message, until `gone`.
    pub(crate) fn rest<M>(&self, messages: Streaming<M>, gone: CancellationToken) -> Incoming<M> {
        let now = Instant::now();
        let (stopping, idle) = (self.stopping.clone(), self.idle);
        Incoming { messages, stopping, gone, idle, begun: now, heard: now, received: 0 }
    }
}

/// A file that comes.
pub(crate) struct Incoming<M> {
    messages: Streaming<M>,
    stopping: CancellationToken,
    /// Cancelled when the call is given up.
    gone: CancellationToken,
    idle: Duration,
    begun: Instant,
    heard: Instant,
    received: u64,
}

impl<M> Incoming<M> {
    /// The next message; None at the end. Nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<M>> {
        let message = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return Err(stopping()),
            () = self.gone.cancelled() => return Err(broke_off("the call was given up")),
            () = sleep_until(self.heard + self.idle) => return Err(stalled(self.idle)),
            message = self.messages.message() => message.map_err(|status| of_status(&status))?,
        };
        self.heard = Instant::now();
        Ok(message)
    }

    /// Counts bytes that have come. Too few in the time are refused.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<()> {
        self.received += bytes as u64;
        if self.heard - self.begun > self.idle + Duration::from_secs(self.received / LEAST_RATE) {
            return Err(too_slow());
        }
        Ok(())
    }
}

/// Refuses a later message that says what the first one has to say: fields, and whether they are set.
pub(crate) fn expect_only_bytes<const N: usize>(said: [(&str, bool); N]) -> Result<()> {
    let said = said.into_iter().filter(|(_, is_said)| *is_said);
    let violations: Vec<_> = said.map(|(field, _)| Violation::new(field, "is for the first message")).collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::invalid_all(violations)) }
}

/// Whether bytes were refused for good, so that no row can refer to their objects. Of any other error that is not known: the sweep finds
/// them where none does.
pub(super) fn is_refused(error: &Error) -> bool {
    matches!(error, Error::QuotaExceeded { .. } | Error::ResourceExhausted { .. } | Error::FailedPrecondition { .. })
}

/// Removes objects that no row refers to. What is left of them is swept.
pub(crate) async fn remove(objects: &Objects, keys: &[Key]) {
    if let Err(fault) = objects.delete(keys).await {
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

/// The file did not come to its end.
pub(crate) fn broke_off(how: &str) -> Error {
    Error::aborted("UPLOAD_INCOMPLETE", format!("the upload broke off: {how}"))
}

fn stalled(patience: Duration) -> Error {
    let message = format!("no byte of the upload came for {} s", patience.as_secs());
    Error::DeadlineExceeded { reason: "UPLOAD_STALLED", message }
}

fn too_slow() -> Error {
    let message = format!("the upload is slower than {LEAST_RATE} bytes a second");
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
pub(crate) fn of_storage(fault: Fault) -> Error {
    tracing::warn!(class = ?fault.class, "the object store does not do what a call needs: {}", fault.detail);
    let message = fault.message.to_owned();
    let retry_after = Duration::from_secs(10);
    match fault.class {
        Class::Full => Error::ResourceExhausted { reason: "STORAGE_FULL", message, retry_after: Some(retry_after) },
        Class::Retry | Class::Missing | Class::Permanent => {
            Error::Unavailable { reason: "STORAGE_UNAVAILABLE", message, retry_after, source: None }
        }
    }
}
