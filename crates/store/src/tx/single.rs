//! Reads of one query, each in a transaction of its own.

use diesel_async::AsyncPgConnection;
use diesel_async::methods::LoadQuery;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;

use crate::digest::DigestKeys;
use crate::tx::reader::{Reader, TenantReader};
use crate::tx::scope::TenantScope;
use crate::tx::statement::Cost;
use crate::tx::store::Store;

impl Store {
    /// Reads a tenant's data with one query, in one round trip: `vms::get(&mut store.single(&scope), id)`.
    #[must_use]
    pub fn single<'s>(&'s self, scope: &'s TenantScope) -> Single<'s> {
        Single { store: self, scope }
    }
}

/// Reads each query in a transaction of its own, which takes one round trip; where a connection has not prepared the
/// query yet, two.
pub struct Single<'s> {
    pub(crate) store: &'s Store,
    pub(crate) scope: &'s TenantScope,
}

impl Reader for Single<'_> {
    fn scope(&self) -> String {
        self.scope.tenant.name()
    }

    fn digests(&self) -> Result<DigestKeys> {
        Ok(self.store.digests().clone())
    }

    fn load<T, Q>(
        &mut self,
        cost: Cost,
        query: impl Fn() -> Result<Q> + Send,
    ) -> impl Future<Output = Result<Vec<T>>> + Send
    where
        T: Send,
        Q: for<'c> LoadQuery<'static, &'c AsyncPgConnection, T> + Send + 'static,
    {
        self.store.read_one(self.scope, cost, query)
    }
}

impl TenantReader for Single<'_> {
    fn tenant(&self) -> TenantId {
        self.scope.tenant
    }
}
