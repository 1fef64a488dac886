//! Reads what has changed in the provider's desk.
//!
//! - What it does: it reads the tickets that have changed since the last time, with an overlap, and takes over what was said there, and
//!   the state and priority that they were given.
//! - What it must never do: take over what we have put there, anything twice, or a ticket that is not ours. Comments only come; of a state
//!   that both sides have changed, the later one by the desk's clock stays.
//!
//! It is a part of [`super::desk_sync`].

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::{TicketPriority, TicketState};
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk::{self as store, Received, Twin};
use virtualstack_store::support::tickets;

use super::desk_files::{self as files, audit};
use super::desk_problem::Problem;
use crate::adapters::desk::{Desk, Remote};
use crate::engine::task::TaskContext;
use crate::reconciler::reconciler;

/// How far back each read begins behind the end of the one before: a change may show later than its time says.
const OVERLAP: TimeDelta = TimeDelta::minutes(2);

/// Times of a desk have seconds: what was read in the second of a change may have changed once more in it.
const SETTLED: TimeDelta = TimeDelta::seconds(2);

/// How far back the first read begins.
const FIRST: TimeDelta = TimeDelta::days(1);

/// Reads what has changed since the end of the read before.
pub(super) async fn run(
    context: &TaskContext<'_>,
    desk: &dyn Desk,
    until: Option<DateTime<Utc>>,
) -> Result<(), Problem> {
    let name = desk.name().to_owned();
    let begun = context.now();
    let mut read_until = until.unwrap_or_else(|| begun + desk.skew() - FIRST);
    let changed = context.call("changed", desk.changed_since(read_until - OVERLAP)).await?;
    for remote in changed {
        take(context, desk, &remote).await?;
        read_until = read_until.max(remote.updated_at);
    }
    let remember = async |tx: &mut SystemTx| store::set_cursor(tx, &name, read_until, begun).await;
    Ok(context.commit("read", remember).await?)
}

/// Takes over what has changed of a ticket, if it is one of ours.
async fn take(context: &TaskContext<'_>, desk: &dyn Desk, remote: &Remote) -> Result<(), Problem> {
    let find = async |tx: &mut _| store::find(tx, &remote.id).await;
    let Some((tenant, id, mut twin)) = context.store().system(reconciler(), find).await? else { return Ok(()) };
    if twin.remote_updated_at == Some(remote.updated_at) && !remote.deleted {
        return Ok(());
    }
    if remote.deleted {
        let failed = async |tx: &mut SystemTx| store::failed(tx, tenant, id, "the desk has deleted the ticket").await;
        return Ok(context.commit("deleted", failed).await?);
    }
    let read_at = context.now() + desk.skew();
    hear(context, desk, (tenant, id), &remote.id).await?;
    // As it is now: it may have changed since the list was made.
    let remote = context.call("read", desk.read(&remote.id)).await?;
    follow(context, desk, (tenant, id), &mut twin, &remote).await?;
    twin.remote_updated_at = Some(remote.updated_at).filter(|at| *at + SETTLED < read_at);
    let save = async |tx: &mut SystemTx| store::save_read(tx, tenant, id, &twin).await;
    Ok(context.commit("taken", save).await?)
}

/// Takes over what was said there.
async fn hear(
    context: &TaskContext<'_>,
    desk: &dyn Desk,
    (tenant, id): (TenantId, TicketId),
    remote_id: &str,
) -> Result<(), Problem> {
    let said = context.call("said", desk.comments(remote_id)).await?;
    let ids: Vec<_> = said.iter().map(|comment| comment.id.clone()).collect();
    let known = async |tx: &mut _| store::known(tx, &ids).await;
    let known: HashSet<_> = context.store().system(reconciler(), known).await?.into_iter().collect();
    for comment in said.into_iter().filter(|comment| !known.contains(&comment.id)) {
        if let Some(ours) = comment.ours {
            let pair = async |tx: &mut SystemTx| store::pair(tx, (tenant, id), ours, &comment.id).await;
            context.commit("heard", pair).await?;
            continue;
        }
        // First its files: once the comment is known, nobody looks for them.
        for file in &comment.files {
            files::take(context, desk, (tenant, id), file, comment.internal).await?;
        }
        let body = if comment.body.is_empty() { "(no text)".to_owned() } else { comment.body };
        let received = Received {
            remote_id: comment.id,
            author_name: context.shared.desk_staff_name.clone(),
            body,
            internal: comment.internal,
            by_requester: comment.by_requester,
        };
        let audit = audit(id);
        let receive = async |tx: &mut SystemTx| store::receive(tx, &audit, (tenant, id), &received).await;
        context.commit("heard", receive).await?;
    }
    Ok(())
}

/// Takes over state and priority where the desk has changed them, unless they were changed here later.
async fn follow(
    context: &TaskContext<'_>,
    desk: &dyn Desk,
    (tenant, id): (TenantId, TicketId),
    twin: &mut Twin,
    remote: &Remote,
) -> Result<(), Problem> {
    let audit = audit(id);
    let (skew, remote) = (desk.skew(), remote.clone());
    let before = twin.clone();
    let follow = async |tx: &mut SystemTx| {
        let mut twin = before.clone();
        let ours = store::ticket(tx, tenant, id).await?;
        let theirs_later = remote.updated_at >= ours.updated_at + skew;
        let mut state: Option<TicketState> = None;
        if remote.raw_state != twin.remote_state {
            let changed_here = ours.state.as_str() != twin.state;
            if !changed_here || theirs_later {
                // A word that we do not know is kept, and changes nothing here.
                state = remote.state;
                twin.state = state.unwrap_or(ours.state).to_string();
            } else {
                // What it is here is sent.
                twin.state = String::new();
                tickets::unsent(tx, tenant, id).await?;
            }
            twin.remote_state.clone_from(&remote.raw_state);
        }
        let mut priority: Option<TicketPriority> = None;
        let theirs = remote.priority.map(|priority| priority.to_string()).unwrap_or_default();
        if !theirs.is_empty() && theirs != twin.priority {
            if ours.priority.as_str() == twin.priority || theirs_later {
                (priority, twin.priority) = (remote.priority, theirs);
            } else {
                twin.priority = theirs;
                tickets::unsent(tx, tenant, id).await?;
            }
        }
        store::save_read(tx, tenant, id, &twin).await?;
        if state.is_some() || priority.is_some() {
            store::follow(tx, &audit, (tenant, id), state, priority).await?;
        }
        Ok(twin)
    };
    *twin = context.commit("follow", follow).await?;
    Ok(())
}
