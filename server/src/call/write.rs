//! Writes: what a request does, once however often it comes, or not at all.
//!
//! Four things go together in one transaction. Whoever changes access is **decided again**, behind all others who do. A
//! **repeat** of a request is answered as the first one was. A **dry run** does everything, every check with it, and is
//! rolled back. And what was done is **audited**. Whether a request can be repeated or tried out is told by the fields of
//! its message, for which `build.rs` implements [`Mutation`].

use virtualstack_model::Result;
use virtualstack_store::request_ids::{self, Request as RequestId};
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{AccountTx, Ending, Store, SystemTx, TenantTx, Write};

use crate::call::{AccountCall, Call, PlatformCall, TenantCall};

/// A request that may change something.
pub(crate) trait Mutation: prost::Message {
    /// Whether it has a request id.
    const REPEATABLE: bool;

    /// The id that makes a repeat one; empty where every call is a new one.
    fn request_id(&self) -> &str;

    /// What it says besides that.
    fn said(&self) -> Vec<u8>;

    /// Whether it is a dry run.
    fn validate_only(&self) -> bool;
}

/// What a write is answered with, and so what a repeat finds again.
pub(crate) trait Answer<Tx>: Send + Sized {
    /// Whether a dry run is answered by a plan. It is one whatever its request id says.
    const PLANNED: bool = false;

    /// Full name of the resource; none where the answer is empty.
    fn name(&self) -> Option<&str>;

    /// The resource of this name, as it is now.
    fn find(tx: &mut Tx, name: &str) -> impl Future<Output = Result<Self>> + Send;
}

impl<Tx: Send> Answer<Tx> for () {
    fn name(&self) -> Option<&str> {
        None
    }

    async fn find(_: &mut Tx, _: &str) -> Result<Self> {
        Ok(())
    }
}

impl<R: Mutation> TenantCall<R> {
    /// Does `f` to the resource of this name; where the name comes of it, `f` says it to the transaction.
    pub(crate) async fn write<T, F>(&self, store: &Store, resource: impl Into<String>, f: F) -> Result<T>
    where
        T: Answer<TenantTx<Write>>,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        self.write_once(store, resource.into(), false, f).await
    }

    /// The same for what changes access. The transaction knows the access that was decided again.
    pub(crate) async fn change_access<T, F>(&self, store: &Store, resource: impl Into<String>, f: F) -> Result<T>
    where
        T: Answer<TenantTx<Write>>,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        self.write_once(store, resource.into(), true, f).await
    }

    async fn write_once<T, F>(&self, store: &Store, resource: String, decide_again: bool, f: F) -> Result<T>
    where
        T: Answer<TenantTx<Write>>,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let repeat = self.repeat(T::PLANNED)?;
        let scope = self.tenant();
        let write = async |tx: &mut TenantTx<Write>| {
            if decide_again {
                self.decide_again(tx).await?;
            }
            let Some(repeat) = &repeat else { return f(tx).await };
            if let Some(first) = request_ids::take(tx, &scope, repeat, &resource).await? {
                tx.audit_resource(&first);
                return T::find(tx, &first).await;
            }
            let answer = f(tx).await?;
            if let Some(name) = answer.name().filter(|name| *name != resource) {
                request_ids::answer(tx, &scope, repeat, name).await?;
            }
            Ok(answer)
        };
        store.write(&scope, self.audit(&resource), self.ending(), write).await
    }
}

impl<R: Mutation> PlatformCall<R> {
    /// Does `f`, which writes the audit row of the tenant that it is about.
    pub(crate) async fn write<T, F>(&self, store: &Store, f: F) -> Result<T>
    where
        T: Answer<SystemTx>,
        F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
    {
        let repeat = self.repeat(T::PLANNED)?;
        let asker = self.asker();
        let write = async |tx: &mut SystemTx| {
            let Some(repeat) = &repeat else { return f(tx).await };
            if let Some(first) = request_ids::take(tx, &asker, repeat, "").await? {
                return T::find(tx, &first).await;
            }
            let answer = f(tx).await?;
            request_ids::answer(tx, &asker, repeat, answer.name().unwrap_or_default()).await?;
            Ok(answer)
        };
        store.system_ending(self.platform(), self.ending(), write).await
    }
}

impl<R: Mutation> AccountCall<R> {
    /// Does `f`, which writes its audit row.
    pub(crate) async fn write<T, F>(&self, store: &Store, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut AccountTx) -> Result<T> + for<'r> TxFn<&'r mut AccountTx, Result<T>>,
    {
        const { assert!(!R::REPEATABLE, "request ids of accounts are not kept") };
        store.account_ending(&self.account(), self.ending(), f).await
    }
}

impl<C, R: Mutation> Call<C, R> {
    fn ending(&self) -> Ending {
        Ending::of(self.request.validate_only())
    }
}

impl<C: std::ops::Deref<Target = super::caller::Caller>, R: Mutation> Call<C, R> {
    /// What tells a repeat of the request from a new one: its id, and that it says the same.
    fn repeat(&self, planned: bool) -> Result<Option<RequestId>> {
        if !R::REPEATABLE || (planned && self.request.validate_only()) {
            return Ok(None);
        }
        let method = self.caller.info.method.rsplit('.').next().unwrap_or_default();
        RequestId::new(method, self.request.request_id(), self.request.said(), self.request.encode_to_vec()).map(Some)
    }
}
