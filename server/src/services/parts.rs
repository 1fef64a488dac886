//! What the server hands to its services.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use virtualstack_objects::Objects;
use virtualstack_store::{MasterKey, Store};

use crate::auth::journal::Journal;
use crate::auth::limits::Limits;
use crate::auth::passwords::Passwords;
use crate::auth::tokens::Tokens;
use crate::changes::Changes;
use crate::config::DeskWebhook;
use crate::layers::authorize::Authorizer;

/// What services are made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    /// Where files of templates are kept.
    pub(crate) objects: Objects,
    /// What console tickets and first-boot settings are sealed with.
    pub(crate) master_key: MasterKey,
    pub(crate) tokens: Tokens,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
    pub(crate) journal: Journal,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) changes: Changes,
    /// Of what members are told.
    pub(crate) told: Changes,
    pub(crate) desk_webhook: Option<Arc<DeskWebhook>>,
    /// Cancelled when the server begins to stop.
    pub(crate) stopping: CancellationToken,
}
