//! A server stream → NDJSON or server-sent events, one message at a time.
//!
//! The status of HTTP is gone by the time a stream fails, so its last record is the error. Dropping the
//! stream, because the client went away, cancels the call.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{HeaderMap, header::ACCEPT};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::places::Place;
use crate::problem::Problem;
use crate::{fields, render, status};

/// Proxies and browsers give up connections on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// "No deadline", for a timer that needs one.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ndjson,
    Events,
}

impl Format {
    /// What the client asked for.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut types = accepts.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
        match types.any(|range| range.trim().eq_ignore_ascii_case("text/event-stream")) {
            true => Self::Events,
            false => Self::Ndjson,
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }

    fn message(self, output: &MessageDescriptor, wire: Bytes) -> Result<Bytes, Problem> {
        let json = render::to_json(output, wire.clone())?;
        Ok(match self {
            Self::Ndjson => [json.as_slice(), b"\n"].concat().into(),
            Self::Events => {
                let head = event_head(&render::decode(output, wire)?);
                [head.as_bytes(), b"data: ", &json, b"\n\n"].concat().into()
            }
        })
    }

    fn problem(self, problem: &Problem) -> Bytes {
        let (before, after): (&[u8], &[u8]) = match self {
            Self::Ndjson => (b"", b"\n"),
            Self::Events => (b"event: error\ndata: ", b"\n\n"),
        };
        [before, &problem.body(), after].concat().into()
    }
}

/// The `id:` and `event:` lines, from the fields `resume_token` and `type` where a message has them.
fn event_head(message: &DynamicMessage) -> String {
    let mut head = String::new();
    let token = fields::text(message, "resume_token");
    if !token.is_empty() && !token.contains(['\r', '\n', '\0']) {
        head = format!("id: {token}\n");
    }
    if let Some(Kind::Enum(kind)) = fields::kind(message, "type")
        && let Some(Value::EnumNumber(number)) = message.get_field_by_name("type").as_deref()
        && let Some(value) = kind.get_value(*number)
    {
        head += &format!("event: {}\n", value.name().to_lowercase());
    }
    head
}

/// A stream on its way to a client.
pub(crate) struct Relay {
    pub(crate) messages: Streaming<Bytes>,
    pub(crate) output: MessageDescriptor,
    pub(crate) pool: DescriptorPool,
    pub(crate) format: Format,
    pub(crate) deadline: Option<Instant>,
    pub(crate) stopping: CancellationToken,
    /// Held as long as the stream lasts.
    pub(crate) _place: Place,
}

impl Relay {
    pub(crate) fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(Some(self), |relay| async { relay?.record().await })
    }

    /// The next record, and the relay unless that was the last one.
    async fn record(mut self) -> Option<(Bytes, Option<Self>)> {
        let now = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(Problem::stopping()),
            () = sleep_until(self.deadline.unwrap_or(now + FAR)) => Err(Problem::deadline()),
            next = self.messages.next() => self.message(next?),
            () = sleep_until(now + KEEP_ALIVE), if self.format == Format::Events => Ok(Bytes::from_static(b": keep-alive\n\n")),
        };
        Some(match result {
            Ok(record) => (record, Some(self)),
            Err(problem) => (self.format.problem(&problem), None),
        })
    }

    fn message(&self, next: Result<Bytes, Status>) -> Result<Bytes, Problem> {
        let wire = next.map_err(|status| status::problem(&status, &self.pool))?;
        self.format.message(&self.output, wire)
    }
}
