//! What every call is made of: who calls, its request, and what its answer becomes.
//!
//! The scope of an rpc is the type of its call, which `build.rs` reads from the rpc's policy. A handler can do what its
//! call gives leave for, and no more: a [`TenantCall`] opens transactions of the caller's tenant, an [`AccountCall`] those
//! of the caller's account, a [`PlatformCall`] works across tenants, and a [`PublicCall`] knows nobody.

pub(crate) mod caller;
pub(crate) mod codec;
pub(crate) mod list;
pub(crate) mod message;
pub(crate) mod status;
mod texts;
pub(crate) mod write;

use std::ops::Deref;
use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use virtualstack_model::Result;

use self::caller::{AccountCaller, Entry, PlatformCaller, PublicCaller, TenantCaller};
use self::status::from_error;

/// A call: the request, and who makes it.
pub(crate) struct Call<C, R> {
    pub(crate) request: R,
    pub(crate) caller: C,
    pub(crate) metadata: MetadataMap,
}

/// A call on the data of the caller's tenant.
pub(crate) type TenantCall<R> = Call<TenantCaller, R>;
/// A call on what is the caller's own.
pub(crate) type AccountCall<R> = Call<AccountCaller, R>;
/// A call by an operator of the platform, across tenants.
pub(crate) type PlatformCall<R> = Call<PlatformCaller, R>;
/// A call that needs no credential.
pub(crate) type PublicCall<R> = Call<PublicCaller, R>;

impl<C: Entry, R> Call<C, R> {
    /// Takes a request apart, as the layers have let it in.
    pub(crate) fn of(request: Request<R>) -> Result<Self, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = C::enter(&extensions).map_err(from_error)?;
        Ok(Self { request, caller, metadata })
    }
}

impl<C, R> Deref for Call<C, R> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.caller
    }
}

/// Makes a service of ours one of tonic's; `build.rs` writes how.
pub(crate) struct Served<T>(pub(crate) T);

/// What a handler answers with that answers by a stream.
pub(crate) type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// The same as tonic wants it.
pub(crate) type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The reply to a call.
pub(crate) fn reply<T>(answer: Result<T>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(from_error)
}

/// The reply to a call that is answered by a stream.
pub(crate) fn reply_by_stream<T: 'static>(answer: Result<AnswerStream<T>>) -> Result<Response<ReplyStream<T>>, Status> {
    reply(answer.map(|stream| Box::pin(stream.map(|item| item.map_err(from_error))) as ReplyStream<T>))
}

#[cfg(test)]
mod tests {
    use crate::generated::{CLIENT_STREAMS, SCOPES};

    #[test]
    fn a_call_has_the_scope_that_its_policy_says() {
        assert!(SCOPES.len() > 60, "{}", SCOPES.len());
        for (path, scope) in SCOPES {
            assert_eq!(virtualstack_proto::policy(path).map(|policy| policy.scope), Some(*scope), "{path}");
        }
        assert!(CLIENT_STREAMS.iter().all(|path| SCOPES.iter().any(|(known, _)| known == path)));
    }
}
