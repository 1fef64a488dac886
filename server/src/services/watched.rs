//! Collections that can be watched, as clients see them.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use virtualstack_model::Result;
use virtualstack_model::log::ChangeKind;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Resource;
use virtualstack_store::changes::watch::{self, Batch, Position, Watched};
use virtualstack_store::{Read, TenantTx};

/// What is to be told of a read of the log.
pub(crate) struct Reported {
    pub(crate) changes: Vec<(ChangeKind, Resource, Position)>,
    /// Up to where it is told with them.
    pub(crate) position: Position,
    pub(crate) more: bool,
}

type ReadAll = for<'t> fn(&'t mut TenantTx<Read>) -> BoxFuture<'t, Result<(Vec<Resource>, Position)>>;

/// A collection that can be watched. A module has one for each of its own.
pub(crate) struct Collection {
    pub(crate) name: &'static str,
    pub(crate) snapshot: ReadAll,
    pub(crate) after: for<'t> fn(&'t mut TenantTx<Read>, Position, Duration) -> BoxFuture<'t, Result<Reported>>,
}

/// What can be watched, and how clients see it: as in every other call.
pub(crate) trait Packed: Watched {
    /// Packs rows, each to one resource.
    fn pack(tx: &mut TenantTx<Read>, rows: Vec<Self>) -> impl Future<Output = Result<Vec<Resource>>> + Send;
}

impl Collection {
    pub(crate) const fn of<W: Packed>() -> Self {
        Self {
            name: W::COLLECTION,
            snapshot: |tx| Box::pin(snapshot::<W>(tx)),
            after: |tx, position, max_age| Box::pin(after::<W>(tx, position, max_age)),
        }
    }
}

async fn snapshot<W: Packed>(tx: &mut TenantTx<Read>) -> Result<(Vec<Resource>, Position)> {
    let (rows, position) = watch::snapshot::<W, _>(tx).await?;
    Ok((W::pack(tx, rows).await?, position))
}

async fn after<W: Packed>(tx: &mut TenantTx<Read>, position: Position, max_age: Duration) -> Result<Reported> {
    let Batch { changes, resources, position, more } = watch::after::<W, _>(tx, position, max_age).await?;
    let resources = W::pack(tx, resources).await?;
    let changes = changes.into_iter().zip(resources).map(|((kind, position), resource)| (kind, resource, position));
    Ok(Reported { changes: changes.collect(), position, more })
}
