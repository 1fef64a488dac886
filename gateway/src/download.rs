//! Downloads: a file that comes from the server as the messages of a stream, each a piece of it.
//!
//! What the file is stands in its first message, as a `virtualstack.files.v1.File`. Whatever it is, no browser opens it by itself. One that
//! breaks off ends the connection or the stream: no client takes it for whole.

use std::fmt::Write as _;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost_reflect::{DescriptorPool, DynamicMessage};
use tokio::time::{Instant, timeout_at};

use crate::app::{App, within};
use crate::body::{self, Reply};
use crate::places::Place;
use crate::problem::Problem;
use crate::rules::Rpc;
use crate::sent::Broken;
use crate::{fields, headers, render, status};

/// What says what a file is.
const FILE: &str = "virtualstack.files.v1.File";

impl App {
    /// Relays a download. How it begins is its answer: an error before the first message is one like any other.
    pub(crate) async fn download<S>(
        &self,
        rpc: &Rpc,
        call: tonic::Request<S>,
        deadline: Option<Instant>,
        place: Place,
    ) -> Result<Reply, Problem>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        let response = within(deadline, self.upstream.streaming(&rpc.path, call)).await?;
        let response = response.map_err(|status| status::problem(&status, &self.pool))?;
        let shown = headers::to_client(response.metadata());
        let mut messages = response.into_inner();
        let first =
            within(deadline, messages.message()).await?.map_err(|status| status::problem(&status, &self.pool))?;
        let first = render::decode(&rpc.output, first.unwrap_or_default())?;
        let (head, media_type) = (data(&first), fields::text(&first, "content_type"));
        let output = rpc.output.clone();
        let rest = stream::unfold(Some(messages), move |messages| {
            let output = output.clone();
            async move {
                let mut messages = messages?;
                let next = match deadline {
                    Some(deadline) => timeout_at(deadline, messages.next()).await.map_err(|_| Broken),
                    None => Ok(messages.next().await),
                };
                let wire = match next {
                    Ok(None) => return None,
                    Ok(Some(Ok(wire))) => wire,
                    Ok(Some(Err(_))) | Err(Broken) => return Some((Err(Broken), None)),
                };
                let piece = render::decode(&output, wire).map(|message| data(&message)).map_err(|_| Broken);
                Some((piece, Some(messages)))
            }
        });
        // The place is held until the last byte is read, or nobody reads any more.
        let pieces = stream::once(std::future::ready(Ok(head))).chain(rest).inspect(move |_| _ = &place);
        let frames = pieces.map(|piece| piece.map(Frame::data));
        let mut reply = http::Response::new(StreamBody::new(frames).boxed_unsync());
        *reply.status_mut() = StatusCode::OK;
        let media_type = HeaderValue::from_str(&media_type).ok().filter(|value| !value.is_empty());
        body::head(reply.headers_mut(), media_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
        reply.headers_mut().extend(shown);
        describe(reply.headers_mut(), file(&first, &self.pool).as_ref());
        Ok(reply)
    }
}

fn data(message: &DynamicMessage) -> Bytes {
    message.get_field_by_name("data").and_then(|data| data.as_bytes().cloned()).unwrap_or_default()
}

/// What the first message says of the file.
fn file(first: &DynamicMessage, pool: &DescriptorPool) -> Option<DynamicMessage> {
    let extensions = first.get_field_by_name("extensions")?;
    let any = extensions.as_list()?.iter().filter_map(|any| any.as_message()).find(|any| {
        let url = fields::text(any, "type_url");
        url.rsplit('/').next() == Some(FILE)
    })?;
    let descriptor = pool.get_message_by_name(FILE)?;
    let value = any.get_field_by_name("value")?;
    DynamicMessage::decode(descriptor, value.as_bytes()?.clone()).ok()
}

/// Says what comes, and that nobody runs it.
fn describe(headers: &mut HeaderMap, file: Option<&DynamicMessage>) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    let name = file.map(|file| fields::text(file, "file_name")).unwrap_or_default();
    if let Ok(disposition) = HeaderValue::from_str(&disposition(&name)) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    let size =
        file.and_then(|file| file.get_field_by_name("size_bytes")?.as_i64()).and_then(|size| u64::try_from(size).ok());
    if let Some(size) = size {
        headers.insert(CONTENT_LENGTH, size.into());
    }
}

/// `Content-Disposition` of a file, as RFC 6266 has it: a name in ASCII for old clients, and the whole one.
fn disposition(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && !"\"\\%;".contains(c) || c == ' ' { c } else { '_' }).collect();
    let mut whole = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            whole.push(char::from(byte));
        } else {
            // A String takes everything.
            let _ = write!(whole, "%{byte:02X}");
        }
    }
    if name.is_empty() {
        "attachment".to_owned()
    } else {
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}")
    }
}

#[cfg(test)]
mod tests {
    use super::disposition;

    #[test]
    fn a_name_is_no_header_of_its_own() {
        assert_eq!(disposition("log 1.txt"), "attachment; filename=\"log 1.txt\"; filename*=UTF-8''log%201.txt");
        assert_eq!(
            disposition("ä\"\\;.png"),
            "attachment; filename=\"____.png\"; filename*=UTF-8''%C3%A4%22%5C%3B.png"
        );
        assert_eq!(disposition("a\r\nb%41"), "attachment; filename=\"a__b_41\"; filename*=UTF-8''a%0D%0Ab%2541");
        assert_eq!(disposition(""), "attachment");
    }
}
