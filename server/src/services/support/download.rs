//! Files on their way to a client, piece by piece. What is handed out says what it is only where no program runs it.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use virtualstack_model::support::attachment::{self, served_as};
use virtualstack_model::{Error, Result};
use virtualstack_objects::Objects;
use virtualstack_proto::google::api::HttpBody;
use virtualstack_proto::virtualstack::files::v1::File;
use virtualstack_store::support::staff_files::StaffAttachment;

use crate::call::AnswerStream;
use crate::call::message::any;
use crate::services::incoming::of_storage;
use crate::shares::Part;

/// Bytes of a message at most.
const MESSAGE: usize = 256 * 1024;

/// Sends a file. Whether its bytes can be read shows before the answer begins; the place is held until it ends.
pub(super) async fn send(objects: &Objects, file: &StaffAttachment, place: Part) -> Result<AnswerStream<HttpBody>> {
    let about = File { file_name: file.file_name.clone(), size_bytes: file.size_bytes, sha256: file.sha256.clone() };
    let mut data = Box::pin(read(objects.clone(), file));
    let head = data.next().await.transpose()?.unwrap_or_default();
    let first =
        HttpBody { content_type: served_as(&file.content_type).to_owned(), data: head, extensions: vec![any(&about)] };
    let rest = data.map_ok(|data| HttpBody { data, ..HttpBody::default() });
    let all = stream::once(std::future::ready(Ok(first))).chain(rest);
    Ok(Box::pin(all.inspect(move |_| _ = &place)))
}

type Data = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// The bytes of a file, from all its objects.
fn read(objects: Objects, file: &StaffAttachment) -> Data {
    let pieces = attachment::objects(file.tenant_id, file.id, file.size_bytes);
    let open = move |(object, size): (String, u64)| {
        let objects = objects.clone();
        async move {
            let key = object.parse().map_err(Error::internal)?;
            let data = objects.read(&key, 0..size).await.map_err(of_storage)?;
            Ok(data.map_err(of_storage))
        }
    };
    let data = stream::iter(pieces).then(open).try_flatten();
    Box::pin(data.map_ok(|bytes| stream::iter(split(bytes)).map(Ok)).try_flatten())
}

fn split(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(MESSAGE))))
}
