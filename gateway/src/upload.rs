//! Uploads: bodies of any size that go to the server as they come, as the messages of one call.
//!
//! The server is asked first, by the same call with `validate_only`, whether it would take the upload: a client that waits for
//! "100 Continue" hears of an error before it has sent anything. An upload may take as long as its client goes on sending. When
//! the gateway stops, no new ones begin; those at work have the drain time like any call, and are cut then, which the server sees as
//! broken off.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};
use tokio::time::Instant;

use crate::app::{App, within};
use crate::body::{self, Reply};
use crate::envelope::{self, Envelope};
use crate::problem::Problem;
use crate::relay::Relay;
use crate::rules::Route;
use crate::sent::Sent;
use crate::transcode::{self, Content};

/// What forms and pages are sent as: somebody took this for something else.
const NO_FILES: [&str; 3] = ["application/json", "application/x-www-form-urlencoded", "text/html"];

/// An upload that begins.
pub(crate) struct Upload<'a> {
    pub(crate) route: &'a Route,
    pub(crate) envelope: Envelope,
    /// Of the path's variables.
    pub(crate) values: Vec<String>,
    pub(crate) parts: &'a Parts,
    pub(crate) body: &'a Sent,
    pub(crate) client: IpAddr,
    pub(crate) start: Instant,
    /// Only what the client itself asked for: nobody knows how long a file takes.
    pub(crate) deadline: Option<Instant>,
}

impl App {
    /// Relays an upload, and answers it.
    pub(crate) async fn upload(&self, upload: Upload<'_>) -> Result<Reply, Problem> {
        let Upload { route, parts, client, deadline, .. } = upload;
        if self.stopping.is_cancelled() {
            return Err(Problem::stopping());
        }
        let content = Content::Raw(media_type(parts)?, Bytes::new());
        let place = self.uploads.take(client)?;
        let first = transcode::request(route, upload.values, parts.uri.query(), content, &parts.headers)?;
        if let Some((question, is_all)) = question(&first) {
            let deadline = deadline.unwrap_or(upload.start + self.config.default_timeout);
            let question = futures::stream::iter([question.encode_to_vec().into()]);
            let reply =
                self.unary(&route.rpc, self.call(parts, client, Some(deadline), question), Some(deadline)).await?;
            if is_all {
                return Ok(reply);
            }
        }
        let first = envelope::whole(&first.encode_to_vec());
        let patience = self.config.upload_idle_timeout;
        let (relay, cut) = Relay::new(first, upload.body.lend(), upload.envelope, patience);
        // Its deadline is kept here alone: tonic would drop the call at it, and the server take what has come for all.
        let call = self.upstream.upload(&route.rpc.path, self.call(parts, client, None, ()), relay);
        // Whoever gives up leaves the call to itself, until the server has seen that the body broke off. It has its place until then.
        let call = tokio::spawn(async move {
            let _place = place;
            call.await
        });
        tokio::select! {
            // What the call makes of a cut upload is of no interest.
            biased;
            Ok(cut) = cut => Err(cut.problem(patience)),
            response = within(deadline, call) => self.reply(&route.rpc, response?.map_err(|_| Problem::panicked())?),
        }
    }
}

/// The request that has the server check everything and take nothing; and whether that is all that is wanted. None where the
/// request has no such mode.
fn question(first: &DynamicMessage) -> Option<(DynamicMessage, bool)> {
    let field = first.descriptor().get_field_by_name("validate_only").filter(|field| field.kind() == Kind::Bool)?;
    let is_all = first.get_field(&field).as_bool().unwrap_or_default();
    let mut question = first.clone();
    question.set_field(&field, Value::Bool(true));
    Some((question, is_all))
}

/// What the file is, as its client says.
fn media_type(parts: &Parts) -> Result<String, Problem> {
    let given = parts.headers.get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let name = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if NO_FILES.contains(&name.as_str()) || name.starts_with("multipart/") || body::is_encoded(&parts.headers) {
        return Err(Problem::media_type(
            "The body must be the file itself, not compressed, and neither a form, nor JSON, nor a page: \
             send it with Content-Type: application/octet-stream.",
        ));
    }
    Ok(given.to_owned())
}
