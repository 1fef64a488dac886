//! What the provider's desk says of changes there. It is a hint, whoever says it and however often: the worker then reads the desk
//! sooner than it would have, and not more often than it may.

use std::sync::Arc;

use virtualstack_model::Result;
use virtualstack_proto::google::api::HttpBody;
use virtualstack_proto::virtualstack::support::v1::ReceiveDeskWebhookRequest;
use virtualstack_store::support::desk;
use virtualstack_store::{Store, SystemPurpose, SystemTx};

use crate::call::PublicCall;
use crate::config::DeskWebhook;
use crate::generated::virtualstack::support::v1::DeskWebhookService;

pub(crate) struct DeskWebhooks {
    pub(crate) store: Store,
    pub(crate) webhook: Option<Arc<DeskWebhook>>,
}

impl DeskWebhookService for DeskWebhooks {
    async fn receive_desk_webhook(&self, call: PublicCall<ReceiveDeskWebhookRequest>) -> Result<HttpBody> {
        let shown = |webhook: &Arc<DeskWebhook>| webhook.is(&call.request.secret, call.metadata.as_ref());
        if self.webhook.as_ref().is_some_and(shown) {
            let ask = async |tx: &mut SystemTx| desk::ask(tx).await;
            if let Err(error) = self.store.system(call.system(SystemPurpose::DeskWebhook), ask).await {
                tracing::debug!(%error, "a hint of the desk is lost: it is read by its timer");
            }
        }
        // Whoever guesses learns nothing, and the desk has nothing to repeat.
        Ok(HttpBody::default())
    }
}
