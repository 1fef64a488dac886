//! Tells members what has happened.
//!
//! - What it does: it reads the change log of each tenant from where it stood, API keys that end soon, and quotas that are nearly used,
//!   and makes notifications of them.
//! - What it must never do: tell one thing twice, or miss one: where the log stands is written in the commit that makes the
//!   notifications, and of one source a member has one.
//! - When it is activated: by its timer, `worker.notify_seconds`.

use virtualstack_model::Result;
use virtualstack_model::id::{ApiKeyId, TenantId, UserId};
use virtualstack_model::notifications::jobs::Notify;
use virtualstack_model::notifications::kind::NotificationKind;
use virtualstack_store::SystemTx;
use virtualstack_store::notifications::sources::{self, ExpiringKey, NearlyUsed, NewNotification, Told};

use crate::engine::task::{Next, Task, TaskContext};
use crate::reconciler::reconciler;

/// Tenants, keys, amounts and old notifications of one run at most; the next goes on.
const TENANTS: i64 = 500;
const KEYS: i64 = 500;
const AMOUNTS: i64 = 200;
const OLD: i64 = 1_000;

/// Days before the end of a key at which its owner is told.
const KEY_DAYS: i64 = 7;

/// Days that a notification is kept.
const KEPT_DAYS: i64 = 180;

/// Characters of a text that is taken from elsewhere.
const TEXT: usize = 500;

impl Task for Notify {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let grown = async |tx: &mut _| sources::grown(tx, TENANTS).await;
        for (tenant, read, head) in context.store().system(reconciler(), grown).await? {
            let tell = async |tx: &mut SystemTx| {
                let (told, until) = sources::read(tx, tenant, read, head).await?;
                let mut new = Vec::new();
                for change in &told {
                    new.extend(of_change(tx, tenant, change).await?);
                }
                sources::tell(tx, tenant, &new, until).await
            };
            context.commit("changes", tell).await?;
        }
        let keys = async |tx: &mut SystemTx| {
            let keys = sources::expiring_keys(tx, KEY_DAYS, KEYS).await?;
            sources::make(tx, &keys.into_iter().map(of_key).collect::<Vec<_>>()).await
        };
        context.commit("keys", keys).await?;
        let quotas = async |tx: &mut SystemTx| {
            for found in sources::nearly_used(tx, AMOUNTS).await? {
                if sources::mark(tx, &found).await? {
                    let holders = sources::holders(tx, TenantId(found.tenant_id), "quota:update").await?;
                    sources::make(tx, &of_quota(&found, &holders)).await?;
                }
            }
            Ok(())
        };
        context.commit("quotas", quotas).await?;
        let forget = async |tx: &mut SystemTx| sources::forget(tx, KEPT_DAYS, OLD).await.map(|_| ());
        context.commit("forget", forget).await?;
        Ok(Next::Done)
    }
}

/// What is told of a change, and to whom.
async fn of_change(tx: &mut SystemTx, tenant: TenantId, change: &Told) -> Result<Option<NewNotification>> {
    let after = change.after.clone().unwrap_or_default();
    let text = |field: &str| after[field].as_str().unwrap_or_default().chars().take(TEXT).collect::<String>();
    let (user, kind, title, body) = match &*change.reason {
        "TICKET_ANSWERED" => {
            let user = text("requester_id").parse().ok().map(UserId);
            let title = format!("Ticket {} was answered", after["number"]);
            (user, NotificationKind::TicketAnswered, title, text("subject"))
        }
        "OPERATION_FAILED" => {
            let user = UserId::parse("actor", &text("actor")).ok();
            let title = format!("{} of {} failed", text("verb"), text("target"));
            (user, NotificationKind::OperationFailed, title, text("error_message"))
        }
        "INVITATION_ACCEPTED" => {
            let id = change.resource.rsplit('/').next().and_then(|id| id.parse().ok());
            let user = match id {
                Some(id) => sources::inviter(tx, tenant, id).await?,
                None => None,
            };
            let title = "An invitation was accepted".to_owned();
            (user, NotificationKind::InvitationAccepted, title, change.message.chars().take(TEXT).collect())
        }
        _ => return Ok(None),
    };
    let source = format!("change {}", change.position);
    let resource = change.resource.clone();
    Ok(user.map(|user| NewNotification { tenant, user, kind, source, title, body, resource }))
}

fn of_key(key: ExpiringKey) -> NewNotification {
    NewNotification {
        tenant: TenantId(key.tenant_id),
        user: UserId(key.owner_id),
        kind: NotificationKind::KeyExpiring,
        source: key.source,
        title: "An API key ends soon".to_owned(),
        body: format!("{} ends on {}.", key.display_name, key.expires_at.format("%-d %B %Y, %H:%M UTC")),
        resource: ApiKeyId(key.id).name(),
    }
}

fn of_quota(found: &NearlyUsed, holders: &[UserId]) -> Vec<NewNotification> {
    let tenant = TenantId(found.tenant_id);
    let crossing = uuid::Uuid::now_v7();
    let new = |user: &UserId| NewNotification {
        tenant,
        user: *user,
        kind: NotificationKind::QuotaNearlyUsed,
        source: format!("quota {} {crossing}", found.amount),
        title: "A quota is nearly used".to_owned(),
        body: format!("{} of {} {} are used.", found.used, found.limit, found.amount),
        resource: format!("{}/quota", tenant.name()),
    };
    holders.iter().map(new).collect()
}
