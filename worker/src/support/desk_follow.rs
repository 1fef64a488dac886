//! Takes over state and priority of a ticket that were changed in the provider's desk.
//!
//! - What it must never do: undo what a member did later. The later one by the desk's clock stays; and who has said something since is
//!   not told that all is resolved.
//!
//! It is a part of [`super::desk_sync`], and runs before anything is sent, too.

use virtualstack_model::Result;
use virtualstack_model::support::ticket::{TicketPriority, TicketState};
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk::{self as store, TwinKey};
use virtualstack_store::support::tickets;

use super::desk_files::audit;
use crate::adapters::desk::{Desk, Remote};
use crate::engine::task::TaskContext;

/// Takes over state and priority where the desk has changed them, unless they were changed here later.
pub(super) async fn follow(
    context: &TaskContext<'_>,
    desk: &dyn Desk,
    key: TwinKey<'_>,
    remote: &Remote,
) -> Result<()> {
    let (audit, skew) = (audit(key.ticket), desk.skew());
    let follow = async |tx: &mut SystemTx| {
        let (ours, mut twin, said_at) = store::lock(tx, key).await?;
        // All that is known of when it was changed there is when anything of it was.
        let theirs_later = remote.updated_at >= ours.updated_at + skew;
        let mut state: Option<TicketState> = None;
        if remote.raw_state != twin.remote_state {
            let changed_here = ours.state.as_str() != twin.state;
            let said_since = said_at.is_some_and(|at| at + skew > remote.updated_at);
            if theirs_later || !(changed_here || said_since) {
                // A word that we do not know is kept, and changes nothing here.
                state = remote.state;
                twin.state = state.unwrap_or(ours.state).to_string();
            } else {
                // What it is here is sent.
                twin.state = String::new();
                tickets::unsent(tx, key.tenant, key.ticket).await?;
            }
            twin.remote_state.clone_from(&remote.raw_state);
        }
        let mut priority: Option<TicketPriority> = None;
        let theirs = remote.priority.map(|priority| priority.to_string()).unwrap_or_default();
        if !theirs.is_empty() && theirs != twin.priority {
            if theirs_later || ours.priority.as_str() == twin.priority {
                (priority, twin.priority) = (remote.priority, theirs);
            } else {
                twin.priority = theirs;
                tickets::unsent(tx, key.tenant, key.ticket).await?;
            }
        }
        store::save_common(tx, key, &twin).await?;
        if state.is_some() || priority.is_some() {
            store::follow(tx, &audit, key, state, priority).await?;
        }
        Ok(())
    };
    context.commit("follow", follow).await
}
