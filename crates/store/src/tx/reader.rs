//! Where a query is read: in a transaction that is open, or in one of its own.

use std::pin::Pin;

use diesel_async::AsyncPgConnection;
use diesel_async::methods::LoadQuery;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;

use crate::digest::DigestKeys;
use crate::tx::statement::{Cost, rows};
use crate::tx::{AccountTx, Connection, Mode, SystemTx, TenantTx};

/// Somewhere to read in.
pub trait Reader: Send {
    /// Whose data is seen; page tokens are bound to it.
    fn scope(&self) -> String;

    /// What page tokens are keyed with.
    fn digests(&self) -> Result<DigestKeys>;

    /// All rows of a query, which is made anew where its connection turns out to be dead.
    fn load<T, Q>(
        &mut self,
        cost: Cost,
        query: impl Fn() -> Result<Q> + Send,
    ) -> impl Future<Output = Result<Vec<T>>> + Send
    where
        T: Send,
        Q: for<'c> LoadQuery<'static, &'c AsyncPgConnection, T> + Send + 'static;

    /// The one row of a query, if there is one.
    ///
    /// Boxed, since from outside the compiler does not see that a future over such queries is `Send`.
    fn find<'r, T, Q>(
        &'r mut self,
        query: impl Fn() -> Q + Send + Sync + 'r,
    ) -> Pin<Box<dyn Future<Output = Result<Option<T>>> + Send + 'r>>
    where
        T: Send + 'r,
        Q: for<'c> LoadQuery<'static, &'c AsyncPgConnection, T> + Send + 'static,
    {
        Box::pin(async move { Ok(self.load(Cost::Usual, || Ok(query())).await?.pop()) })
    }
}

/// Somewhere to read the data of a tenant in.
pub trait TenantReader: Reader {
    /// The tenant.
    fn tenant(&self) -> TenantId;
}

async fn load<T, Q>(connection: &mut Connection, cost: Cost, query: impl Fn() -> Result<Q> + Send) -> Result<Vec<T>>
where
    T: Send,
    Q: for<'c> LoadQuery<'static, &'c AsyncPgConnection, T> + Send + 'static,
{
    let query = query()?;
    let sent = connection.shared()?;
    let (bounded, rows) = futures::join!(cost.send(sent), rows(query, sent));
    bounded.and(rows)
}

macro_rules! reads {
    ($([$($mode:tt)*] $tx:ty: $scope:expr;)*) => {
        $(impl $($mode)* Reader for $tx {
            fn scope(&self) -> String {
                let scope: fn(&$tx) -> String = $scope;
                scope(self)
            }

            fn digests(&self) -> Result<DigestKeys> {
                self.connection.digests()
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
                load(&mut self.connection, cost, query)
            }
        })*
    };
}

reads! {
    [<M: Mode>] TenantTx<M>: |tx| tx.tenant.name();
    [] AccountTx: |tx| tx.account.name();
    [] SystemTx: |_| "system".to_owned();
}

impl<M: Mode> TenantReader for TenantTx<M> {
    fn tenant(&self) -> TenantId {
        self.tenant
    }
}
