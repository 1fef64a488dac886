//! Who calls, and may they: the policy of the method decides, and what it does not know nobody may call.
//!
//! It stands in front of the codec, so whoever is not let in learns nothing from validation either.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic_types::StatusExt as _;
use virtualstack_model::credential::Credential;
use virtualstack_model::log::Outcome;
use virtualstack_model::{Error, Result};
use virtualstack_proto::Policy;
use virtualstack_store::iam::principals::Principal;
use virtualstack_store::tx::error::ACCESS_CHANGED;
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{Ending, Read, Store, TenantScope, TenantTx, Write};

use crate::auth::journal::{Journal, Whose};
use crate::auth::last_use::LastUse;
use crate::auth::principals::{Presented, Principals};
use crate::call::caller::{AccountCaller, CallInfo, Caller, TenantCaller};
use crate::generated::CLIENT_STREAMS;
use crate::layers::recognize::{self, Who};

/// How often a call is decided anew when its access changes while it is at work.
const TRIES: u32 = 5;

/// What is waited after a try, and twice after two.
const PAUSE: Duration = Duration::from_millis(5);

/// What decides.
pub(crate) struct Authorizer {
    pub(crate) principals: Principals,
    pub(crate) journal: Journal,
    pub(crate) last_use: LastUse,
}

pub(crate) async fn layer(State(authorizer): State<Arc<Authorizer>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let Some(Who::Known { principal, cached, policy }) = head.extensions.remove::<Who>() else {
        return next.run(Request::from_parts(head, body)).await;
    };
    let Some(info) = head.extensions.get::<CallInfo>().cloned() else {
        return super::reply(Error::internal("the request id layer is missing"));
    };
    let presented = match recognize::credential(&head.headers) {
        Ok(presented) => presented.into_owned(),
        Err(error) => return super::reply(error),
    };
    let known = (principal, cached);
    if CLIENT_STREAMS.contains(&head.uri.path()) {
        // It may have no end, so it is neither kept nor made again: the client repeats it.
        let request = Request::from_parts(head, body);
        return authorizer.let_in_once(known, &presented, &info, policy, request, next).await;
    }
    // Whole already, so that a call whose access has changed can be decided and made again.
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return super::reply(Error::internal(error)),
    };
    let (mut known, mut tries) = (Some(known), 0);
    let (response, caller) = loop {
        tries += 1;
        let caller = match authorizer.decide(known.take(), &presented, &info, policy).await {
            Ok(caller) => caller,
            Err((error, caller)) => break (super::reply(error), caller),
        };
        let mut head = head.clone();
        head.extensions.insert(caller.clone());
        let response = next.clone().run(Request::from_parts(head, Body::from(body.clone()))).await;
        if tries == TRIES || !access_changed(response.headers()) {
            authorizer.note_read(&caller, response.headers());
            break (response, Some(caller));
        }
        // Whoever changes access a lot must not starve the others.
        tokio::time::sleep(PAUSE * tries).await;
    };
    if let Some(caller) = caller {
        authorizer.note_refusal(&caller, response.headers());
    }
    response
}

impl Authorizer {
    /// The caller, or why they are not let in, and who they are if that is known. `known` is whom the headers have told, and
    /// whether that was cached; nobody is refused for what was.
    async fn decide(
        &self,
        known: Option<(Arc<Principal>, bool)>,
        presented: &Presented<'_>,
        info: &CallInfo,
        policy: Policy,
    ) -> Result<Caller, (Error, Option<Caller>)> {
        let Policy { permission, session_only, .. } = policy;
        let lets_in = |principal: &Principal| {
            principal.access.authorize(permission).is_ok() && principal.may_come_from(info.client_address)
        };
        let principal = match known {
            Some((principal, cached)) if !cached || lets_in(&principal) => principal,
            _ => self.principals.read(presented).await.map_err(|error| (error, None))?,
        };
        let caller = Caller { principal: Arc::clone(&principal), info: info.clone(), policy };
        let decided = if let Some(barrier) = principal.access.session_barrier(session_only) {
            Err(Error::denied(barrier.verdict.reason(), barrier.message(permission)))
        } else if !principal.may_come_from(info.client_address) {
            Err(Error::denied("ADDRESS_NOT_ALLOWED", "the API key may not be used from this address"))
        } else {
            principal.access.authorize(permission)
        };
        if let Err(error) = decided {
            return Err((error, Some(caller)));
        }
        if let Credential::ApiKey { id, .. } = &principal.credential {
            self.last_use.note(*id, info.client_address);
        }
        Ok(caller)
    }

    /// Lets a call in whose request is a stream.
    async fn let_in_once(
        &self,
        known: (Arc<Principal>, bool),
        presented: &Presented<'_>,
        info: &CallInfo,
        policy: Policy,
        mut request: Request,
        next: Next,
    ) -> Response {
        let (response, caller) = match self.decide(Some(known), presented, info, policy).await {
            Ok(caller) => {
                request.extensions_mut().insert(caller.clone());
                let response = next.run(request).await;
                self.note_read(&caller, response.headers());
                (response, Some(caller))
            }
            Err((error, caller)) => (super::reply(error), caller),
        };
        if let Some(caller) = caller {
            self.note_refusal(&caller, response.headers());
        }
        response
    }

    /// Writes down a refusal, whoever made it.
    fn note_refusal(&self, caller: &Caller, headers: &HeaderMap) {
        if headers.get(Status::GRPC_STATUS).is_none_or(|code| code != "7") {
            return;
        }
        let reason = Status::from_header_map(headers).and_then(|status| Some(status.get_details_error_info()?.reason));
        self.record(caller, reason.unwrap_or_default().into());
    }

    /// Writes down what an operator reads in a tenant that is not theirs. What they do there has a row of its own.
    fn note_read(&self, caller: &Caller, headers: &HeaderMap) {
        let operates = matches!(caller.principal.credential, Credential::Support { .. });
        if operates && caller.policy.reads && headers.get(Status::GRPC_STATUS).is_none_or(|code| code == "0") {
            self.journal.record(Whose::Tenant(caller.tenant_id()), caller.audit(caller.policy.collection));
        }
    }

    fn record(&self, caller: &Caller, reason: Cow<'static, str>) {
        let mut audit = caller.audit("");
        audit.outcome = Outcome::Denied(reason);
        self.journal.record(Whose::Tenant(caller.tenant_id()), audit);
    }

    /// The standing of a call that goes on after it was let in: a stream.
    pub(crate) async fn stream_access<C: StreamCaller>(
        self: &Arc<Self>,
        caller: C,
        metadata: &MetadataMap,
    ) -> Result<StreamAccess<C>> {
        let presented = recognize::credential(metadata.as_ref())?.into_owned();
        let expires_at = self.principals.expires_at(&presented).await?;
        Ok(StreamAccess { authorizer: Arc::clone(self), presented, caller, expires_at })
    }
}

/// Who can make a call that goes on.
pub(crate) trait StreamCaller: Deref<Target = Caller> + Clone + Send + Sync + 'static {
    /// The tenant that they read in.
    fn within(&self) -> TenantScope;

    /// Whom the policy of their call lets in.
    fn let_in(caller: Caller) -> Result<Self>;
}

impl StreamCaller for TenantCaller {
    fn within(&self) -> TenantScope {
        self.tenant()
    }

    fn let_in(caller: Caller) -> Result<Self> {
        Self::let_in(caller)
    }
}

impl StreamCaller for AccountCaller {
    fn within(&self) -> TenantScope {
        self.own_tenant()
    }

    fn let_in(caller: Caller) -> Result<Self> {
        Self::let_in(caller)
    }
}

/// Who makes a call that goes on, and whether they still may.
pub(crate) struct StreamAccess<C = TenantCaller> {
    authorizer: Arc<Authorizer>,
    presented: Presented<'static>,
    pub(crate) caller: C,
    /// When the credential ends by itself.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

impl<C: StreamCaller> StreamAccess<C> {
    /// Reads as the caller, of whom the database says that they still may, what is there at one moment. Where their access has changed, it is decided
    /// anew, as for a new call.
    pub(crate) async fn read<T, F>(&mut self, store: &Store, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Read>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Read>, Result<T>>,
    {
        let mut tries = 0;
        loop {
            match store.read_consistently(&self.caller.within(), &f).await {
                Err(error) => self.again(&mut tries, error).await?,
                done => return done,
            }
        }
    }

    /// Writes as the caller, in the same way.
    pub(crate) async fn write<T, F>(&mut self, store: &Store, (resource, ending): (String, Ending), f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let mut tries = 0;
        loop {
            let audit = self.caller.audit(&resource);
            match store.write(&self.caller.within(), audit, ending, &f).await {
                Err(error) => self.again(&mut tries, error).await?,
                done => return done,
            }
        }
    }

    /// Decides anew where the access has changed, so that it can be tried again; any other error is given back.
    async fn again(&mut self, tries: &mut u32, error: Error) -> Result<()> {
        *tries += 1;
        if error.reason() != ACCESS_CHANGED || *tries == TRIES {
            return Err(error);
        }
        tokio::time::sleep(PAUSE * *tries).await;
        self.decide_again().await
    }

    async fn decide_again(&mut self) -> Result<()> {
        let Caller { info, policy, .. } = &*self.caller;
        let decided = self.authorizer.decide(None, &self.presented, info, *policy).await;
        self.caller = C::let_in(decided.map_err(|(error, _)| error)?)?;
        Ok(())
    }

    /// Writes down that the caller was turned away, if that is what the error says.
    pub(crate) fn note(&self, error: &Error) {
        if let Error::PermissionDenied { reason, .. } = error {
            self.authorizer.record(&self.caller, (*reason).into());
        }
    }
}

/// Whether a call was turned back by the check that opens its transaction, as its decision had become old.
fn access_changed(headers: &HeaderMap) -> bool {
    headers.get(Status::GRPC_STATUS).is_some_and(|code| code == "10")
        && Status::from_header_map(headers)
            .and_then(|status| status.get_details_error_info())
            .is_some_and(|info| info.reason == ACCESS_CHANGED)
}
