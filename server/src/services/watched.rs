//! Collections that can be watched, as clients see them.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::UserId;
use virtualstack_model::log::ChangeKind;
use virtualstack_proto::virtualstack::watch::v1::WatchMessage;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Resource;
use virtualstack_store::changes::seen::Digest;
use virtualstack_store::changes::watch::{self, Batch, Position, Watched};
use virtualstack_store::{Read, TenantTx};

/// A change that is to be told.
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    /// The resource's id, and what it was after that.
    pub(crate) id: Uuid,
    pub(crate) resource: Resource,
    pub(crate) position: Position,
}

/// What is to be told of a read of the log.
pub(crate) struct Reported {
    pub(crate) changes: Vec<Change>,
    /// Up to where it is told with them.
    pub(crate) position: Position,
    pub(crate) more: bool,
}

/// A page of what there is.
pub(crate) struct Page {
    pub(crate) resources: Vec<Resource>,
    /// It has all changes up to here, and none that came later.
    pub(crate) position: Position,
    /// Where the next one begins.
    pub(crate) next: Option<Uuid>,
}

/// A collection that can be watched. A module has one for each of its own.
pub(crate) struct Collection {
    pub(crate) name: &'static str,
    /// Reads a page of those with greater ids.
    pub(crate) page: for<'t> fn(&'t mut TenantTx<Read>, &'t Access, Uuid) -> BoxFuture<'t, Result<Page>>,
    pub(crate) after: After,
    /// Whether members see those that are their own.
    own: bool,
}

type After = for<'t> fn(&'t mut TenantTx<Read>, &'t Access, Position, Duration) -> BoxFuture<'t, Result<Reported>>;

/// What a member is told, of which there is no log: it is read anew, and compared.
pub(crate) struct Compared {
    pub(crate) name: &'static str,
    /// Reads what there is, by rising ids.
    pub(crate) read: ReadItems,
    /// One that is there no more.
    pub(crate) gone: fn(Uuid) -> Resource,
}

type ReadItems = for<'t> fn(&'t mut TenantTx<Read>, &'t Access) -> BoxFuture<'t, Result<Vec<Item>>>;

impl Compared {
    /// What tokens are bound to, besides the tenant.
    pub(crate) fn topic(&self, user: UserId) -> String {
        format!("{} {}", self.name, user.name())
    }
}

/// Something that is compared.
pub(crate) struct Item {
    pub(crate) id: Uuid,
    pub(crate) resource: Resource,
    pub(crate) digest: Digest,
}

impl Item {
    pub(crate) fn new(id: Uuid, resource: Resource) -> Self {
        let told = WatchMessage { resource: Some(resource.clone()), ..Default::default() };
        let digest = Sha256::digest(told.encode_to_vec());
        Self { id, resource, digest: std::array::from_fn(|index| digest[index]) }
    }
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
            page: |tx, access, after| Box::pin(page::<W>(tx, access, after)),
            after: |tx, access, position, max_age| Box::pin(after::<W>(tx, access, position, max_age)),
            own: W::OWN,
        }
    }

    /// What tokens are bound to, besides the tenant.
    pub(crate) fn topic(&self, user: UserId) -> String {
        if self.own { format!("{} {}", self.name, user.name()) } else { self.name.to_owned() }
    }
}

async fn page<W: Packed>(tx: &mut TenantTx<Read>, access: &Access, after: Uuid) -> Result<Page> {
    let watch::Page { rows, position, next } = watch::page::<W, _>(tx, access, after).await?;
    Ok(Page { resources: W::pack(tx, rows).await?, position, next })
}

async fn after<W: Packed>(
    tx: &mut TenantTx<Read>,
    access: &Access,
    position: Position,
    max_age: Duration,
) -> Result<Reported> {
    let Batch { changes, resources, position, more } = watch::after::<W, _>(tx, access, position, max_age).await?;
    let ids: Vec<_> = resources.iter().map(W::uuid).collect();
    let resources = W::pack(tx, resources).await?;
    let changes = changes.into_iter().zip(ids).zip(resources);
    let change = |(((kind, position), id), resource)| Change { kind, id, resource, position };
    Ok(Reported { changes: changes.map(change).collect(), position, more })
}
