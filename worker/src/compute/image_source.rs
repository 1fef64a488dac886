//! The file of a template, as it lies in the object store in pieces.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use virtualstack_objects::{Class, Key, Objects};
use virtualstack_store::compute::template_uploads::Part;

use crate::adapters::hypervisor::import::ImageSource;
use crate::adapters::hypervisor::{Fault, FaultClass};

/// A file in the object store.
#[derive(Clone)]
pub(crate) struct StoredImage {
    objects: Objects,
    pieces: Arc<[Piece]>,
}

/// Bytes of the file, and the object that they are in.
#[derive(Debug)]
struct Piece {
    range: Range<u64>,
    key: Key,
}

impl StoredImage {
    /// The file of these parts, in order.
    pub(crate) fn new(objects: &Objects, parts: &[Part]) -> Result<Self, Fault> {
        let pieces = parts.iter().map(|part| {
            let (first, size) = (u64::try_from(part.first_byte), u64::try_from(part.size_bytes));
            let (Ok(first), Ok(size), Ok(key)) = (first, size, part.object.parse()) else {
                return Err(lost(format!("no such piece: {part:?}")));
            };
            Ok(Piece { range: first..first + size, key })
        });
        Ok(Self { objects: objects.clone(), pieces: pieces.collect::<Result<_, _>>()? })
    }
}

#[async_trait]
impl ImageSource for StoredImage {
    async fn read(&self, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        let Self { objects, pieces } = self.clone();
        let first = pieces.partition_point(|piece| piece.range.end <= range.start);
        let wanted = (first..pieces.len()).map(move |index| (Arc::clone(&pieces), index));
        let end = range.end;
        let wanted = stream::iter(wanted)
            .take_while(move |(pieces, index)| std::future::ready(pieces[*index].range.start < end));
        let bytes = wanted.then(move |(pieces, index)| {
            let (objects, range) = (objects.clone(), range.clone());
            async move {
                let piece = &pieces[index];
                let start = range.start.max(piece.range.start) - piece.range.start;
                let end = range.end.min(piece.range.end) - piece.range.start;
                let read = objects.read(&piece.key, start..end).await.map_err(of_storage)?;
                Ok::<_, Fault>(complete(read.map_err(of_storage).boxed(), end - start))
            }
        });
        Ok(bytes.try_flatten().boxed())
    }
}

/// Bytes that are as many as were asked for.
fn complete(bytes: BoxStream<'static, Result<Bytes, Fault>>, size: u64) -> BoxStream<'static, Result<Bytes, Fault>> {
    stream::try_unfold((bytes, size), |(mut bytes, left)| async move {
        match bytes.try_next().await? {
            Some(chunk) => {
                let left = left.saturating_sub(chunk.len() as u64);
                Ok(Some((chunk, (bytes, left))))
            }
            None if left > 0 => Err(lost(format!("{left} bytes of a piece are missing"))),
            None => Ok(None),
        }
    })
    .boxed()
}

/// A fault of the object store.
pub(crate) fn of_storage(fault: virtualstack_objects::Fault) -> Fault {
    match fault.class {
        Class::Missing => lost(fault.detail),
        Class::Full => Fault::new(FaultClass::Capacity, "STORAGE_FULL", fault.message, fault.detail),
        Class::Retry | Class::Permanent => {
            Fault::new(FaultClass::Retry, "STORAGE_UNAVAILABLE", fault.message, fault.detail)
        }
    }
}

/// It may be there again: a folder that is not mounted looks like that.
fn lost(detail: impl std::fmt::Display) -> Fault {
    let message = "a part of the file is not in the storage; it is tried again, ask the provider if it lasts";
    Fault::new(FaultClass::Retry, "STORAGE_UNAVAILABLE", message, detail)
}
