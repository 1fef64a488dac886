//! What an S3 answers when it does not do what it was asked for.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use object_store::client::{HttpError, HttpErrorKind};

/// Bytes of an answer that are looked at. A proxy may answer with a page.
const MAX_READ: usize = 16 << 10;

/// An answer that is no success. object_store tells of one in words only; this is how its status and code come through.
#[derive(Debug, thiserror::Error)]
#[error("HTTP {status} {code} {message}")]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The word that S3 has for what is wrong; empty where it says none, as proxies do.
    pub(super) code: String,
    message: String,
}

impl Answer {
    /// Reads what comes with a status.
    pub(super) async fn read(status: u16, body: impl Stream<Item = Result<Bytes, HttpError>>) -> Self {
        let mut body = Box::pin(body);
        let mut read = Vec::new();
        while let Some(Ok(bytes)) = body.next().await {
            read.extend_from_slice(&bytes);
            if read.len() >= MAX_READ {
                break;
            }
        }
        let text = String::from_utf8_lossy(&read);
        let between = |start, end| text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map(|(it, _)| it);
        let code = between("<Code>", "</Code>").unwrap_or_default().trim().to_owned();
        let message = between("<Message>", "</Message>").unwrap_or_default().trim().to_owned();
        Self { status, code, message }
    }

    /// As an error that says whether to try again at once.
    pub(super) fn into_error(self) -> HttpError {
        let again = matches!(self.status, 408 | 429 | 500..=506 | 508..600);
        HttpError::new(if again { HttpErrorKind::Request } else { HttpErrorKind::Unknown }, self)
    }
}
