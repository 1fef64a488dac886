//! What operations work on, and what they answer with.

use futures::future::BoxFuture;
use prost_types::Any;
use serde_json::Value;
use virtualstack_model::Result;
use virtualstack_model::id::OperationId;
use virtualstack_model::operation::Verb;
use virtualstack_store::{MasterKey, Read, TenantTx, Write};

type ReadNamed = for<'t> fn(&'t mut TenantTx<Read>, Vec<String>) -> BoxFuture<'t, Result<Vec<(String, Any)>>>;

type TakeOnce =
    for<'t> fn(&'t mut TenantTx<Write>, &'t MasterKey, OperationId, &'t str) -> BoxFuture<'t, Result<Option<Any>>>;

/// What operations work on, as they answer with it. A module has a row for each kind of its own.
pub(crate) struct Target {
    /// What its full names are like.
    pub(crate) names: &'static str,
    /// For what answers with something else than its target: the one verb that does.
    pub(crate) verb: Option<Verb>,
    /// Reads those of these names that are there, packed.
    pub(crate) read: ReadNamed,
    /// Packs one that is gone: by its name, and as it was when it ceased to be, if that was kept.
    pub(crate) last: fn(&str, Option<Value>) -> Any,
    /// An answer that is given once.
    pub(crate) once: Option<Once>,
}

/// An answer that is given once, and only to who asked for the operation.
pub(crate) struct Once {
    /// What the caller must hold, still.
    pub(crate) permission: &'static str,
    /// Whether that of an operation waits to be fetched.
    pub(crate) waits: for<'t> fn(&'t mut TenantTx<Read>, OperationId) -> BoxFuture<'t, Result<bool>>,
    /// Fetches that of an operation on the target of this name, which is gone with that.
    pub(crate) take: TakeOnce,
}
