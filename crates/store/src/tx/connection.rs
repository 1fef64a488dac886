//! A connection in an open transaction, and how it gets back to the pool.

use std::time::Duration;

use diesel_async::methods::LoadQuery;
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use virtualstack_model::{Error, Result};

use crate::digest::DigestKeys;
use crate::tx::ending::Ending;
use crate::tx::error::{from_diesel, is_fatal, unavailable};
use crate::tx::opening::Opening;
use crate::tx::shares::Share;
use crate::tx::statement::{self, Cost};

/// How long a statement that nobody waits for any more may go on before it is cancelled, …
const PATIENCE: Duration = Duration::from_millis(100);

/// … and how long the connection may take after that, before it is closed.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection of the pool, and the share of the pool that it is taken from.
pub(crate) struct Leased {
    connection: Object<AsyncPgConnection>,
    share: Option<Share>,
    digests: Option<DigestKeys>,
}

impl Leased {
    pub(crate) fn new(connection: Object<AsyncPgConnection>, share: Option<Share>) -> Self {
        Self { connection, share, digests: None }
    }

    /// For transactions that make digests.
    pub(crate) fn keyed(self, digests: &DigestKeys) -> Self {
        Self { digests: Some(digests.clone()), ..self }
    }

    /// Closes it, and gives the share back to be tried with another one.
    fn close(self) -> Option<Share> {
        drop(Object::take(self.connection));
        self.share
    }

    /// Ends whatever was going on, and gives it back to the pool.
    async fn clean(mut self) {
        let cancel = self.connection.cancel_token();
        let clean = {
            let mut rollback = Box::pin(self.connection.batch_execute("ROLLBACK"));
            match tokio::time::timeout(PATIENCE, &mut rollback).await {
                Ok(done) => done.is_ok(),
                Err(_) => {
                    // The end comes after the statement, which goes on although nobody waits for it.
                    let ended = async {
                        let cancelled = cancel.cancel_query(tokio_postgres::NoTls).await;
                        cancelled.is_ok() && rollback.await.is_ok()
                    };
                    tokio::time::timeout(LIMIT, ended).await.unwrap_or(false)
                }
            }
        };
        let outcome = if clean { "rolled_back" } else { "closed" };
        metrics::counter!("virtualstack_database_dropped_total", "outcome" => outcome).increment(1);
        if !clean {
            self.close();
        }
    }
}

/// A connection in an open transaction. Dropped without an end, as when its caller goes away, it is rolled back in the
/// background: nobody inherits its role, and nobody waits for a new connection.
pub(crate) struct Connection {
    open: Option<Leased>,
}

impl Connection {
    /// Begins a transaction and enters its role, in one round trip. Where the connection turns out to be dead, its share is
    /// good for another one.
    pub(crate) async fn open(leased: Leased, opening: &Opening) -> Result<Self, (Error, Option<Share>)> {
        let mut opened = Self { open: Some(leased) };
        let sent = opened.shared().map_err(|error| (error, None))?;
        let (began, entered) = futures::join!(opening.begin(sent), opening.enter(sent));
        match began.and(entered) {
            Ok(()) => Ok(opened),
            Err(error) if is_fatal(&error) => Err((error, opened.close())),
            Err(error) => {
                opened.rollback().await;
                Err((error, None))
            }
        }
    }

    /// Reads one query: opening, query and end go out together.
    pub(crate) async fn read_one<T, Q>(leased: Leased, opening: &Opening, cost: Cost, query: Q) -> Result<Vec<T>>
    where
        T: Send,
        Q: for<'c> LoadQuery<'static, &'c AsyncPgConnection, T> + Send + 'static,
    {
        let mut opened = Self { open: Some(leased) };
        let sent = opened.shared()?;
        let (began, entered, bounded, rows, ended) = futures::join!(
            opening.begin(sent),
            opening.enter(sent),
            cost.send(sent),
            statement::rows(query, sent),
            Ending::Commit.send(sent)
        );
        // Of what failed, the first is the cause.
        opened.ended(began.and(entered).and(bounded).and(rows), ended)
    }

    pub(crate) fn get(&mut self) -> Result<&mut AsyncPgConnection> {
        let leased = self.open.as_mut().ok_or_else(|| unavailable("the connection is gone"))?;
        Ok(&mut leased.connection)
    }

    /// What digests are keyed with.
    pub(crate) fn digests(&self) -> Result<DigestKeys> {
        let keys = self.open.as_ref().and_then(|leased| leased.digests.clone());
        keys.ok_or_else(|| Error::internal("the connection is gone, or makes no digests"))
    }

    /// For statements that do not wait for one another: polled by `futures::join!`, they go out in its order.
    pub(crate) fn shared(&mut self) -> Result<&AsyncPgConnection> {
        self.get().map(|connection| &*connection)
    }

    pub(crate) async fn end(mut self, ending: Ending) -> Result<()> {
        let ended = ending.send(self.shared()?).await;
        self.ended(Ok(()), ended)
    }

    /// What became of the last statements, whose end went out with them. Where one of them failed, PostgreSQL has rolled back
    /// instead.
    pub(crate) fn ended<T>(mut self, last: Result<T>, ended: Result<()>) -> Result<T> {
        if ended.is_ok() {
            self.release();
        }
        last.and_then(|value| ended.map(|()| value))
    }

    pub(crate) async fn rollback(mut self) {
        if let Ok(connection) = self.get()
            && connection.batch_execute("ROLLBACK").await.is_ok()
        {
            self.release();
        }
    }

    /// Hands the open transaction on, with its role switched by `statements`. It must come back by [`Self::resume`]:
    /// without it the transaction is lost.
    pub(crate) async fn switch(&mut self, statements: &str) -> Result<Self> {
        self.get()?.batch_execute(statements).await.map_err(from_diesel)?;
        Ok(self.take())
    }

    /// Hands the open transaction on, in its role.
    pub(crate) fn take(&mut self) -> Self {
        Self { open: self.open.take() }
    }

    /// Goes on with a transaction that was handed on, in `role` again, also when what was done in it failed: who handles
    /// that error must not go on in the other role. Where the transaction itself has failed, it can only be rolled back.
    pub(crate) async fn resume<T>(&mut self, inner: Self, role: &str, done: Result<T>) -> Result<T> {
        *self = inner;
        let back = self.get()?.batch_execute(&format!("SET LOCAL ROLE {role}")).await.map_err(from_diesel);
        done.and_then(|value| back.map(|()| value))
    }

    /// Closes a connection that is of no use any more; the share is kept for another one.
    pub(crate) fn close(mut self) -> Option<Share> {
        self.open.take().and_then(Leased::close)
    }

    /// Back to the pool.
    fn release(&mut self) {
        drop(self.open.take());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(leased) = self.open.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(leased.clean())),
            Err(_) => drop(leased.close()),
        }
    }
}
