//! Tells members what has happened.
//!
//! - What it does: it reads the change log of each tenant from where it stood, API keys that end soon, and quotas that are nearly used,
//!   and makes notifications of them; of those that are to be mailed, a mail for all of a kind that have come since the last; and of
//!   broadcasts a mail for each account.
//! - What it must never do: tell one thing twice, or miss one: where the log stands is written in the commit that makes the
//!   notifications, and of one source a member has one.
//! - When it is activated: by its timer, `worker.notify_seconds`.

use virtualstack_model::Result;
use virtualstack_model::id::{ApiKeyId, TenantId, UserId};
use virtualstack_model::notifications::jobs::Notify;
use virtualstack_model::notifications::kind::NotificationKind;
use virtualstack_store::SystemTx;
use virtualstack_store::notifications::mails;
use virtualstack_store::notifications::sources::{self, ExpiringKey, NearlyUsed, NewNotification, Told};

use super::said::{self, Said};
use crate::adapters::mail::Words;
use crate::engine::task::{Next, Task, TaskContext};
use crate::reconciler::reconciler;

/// Tenants, keys, amounts, mails and old notifications of one run at most; the next goes on.
const TENANTS: i64 = 500;
const KEYS: i64 = 500;
const AMOUNTS: i64 = 200;
const MAILS: i64 = 1_000;
const OLD: i64 = 1_000;

/// Seconds between looks for those whom a broadcast is for by now and who have no mail of it.
const AGAIN_SECONDS: i64 = 300;

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
                for change in &told {
                    tell_change(tx, tenant, change).await?;
                }
                sources::remember(tx, tenant, until).await
            };
            context.commit("changes", tell).await?;
        }
        let keys = async |tx: &mut SystemTx| {
            for key in sources::expiring_keys(tx, KEY_DAYS, KEYS).await? {
                tell_key(tx, &key).await?;
            }
            Ok(())
        };
        context.commit("keys", keys).await?;
        let quotas = async |tx: &mut SystemTx| {
            for found in sources::nearly_used(tx, AMOUNTS).await? {
                if sources::mark(tx, &found).await? {
                    tell_quota(tx, &found).await?;
                }
            }
            Ok(())
        };
        context.commit("quotas", quotas).await?;
        let pause = context.shared.config.mail_pause_seconds.into();
        context.commit("mails", async |tx: &mut SystemTx| mails::begin(tx, pause, MAILS).await).await?;
        mail_broadcasts(context).await?;
        let forget = async |tx: &mut SystemTx| sources::forget(tx, KEPT_DAYS, OLD).await;
        context.commit("forget", forget).await?;
        Ok(Next::Done)
    }
}

/// Makes mails of broadcasts, each in a commit of its own: one that has very many, or fails, keeps no other waiting.
async fn mail_broadcasts(context: &TaskContext<'_>) -> Result<()> {
    let due = async |tx: &mut SystemTx| mails::broadcasts_to_mail(tx, AGAIN_SECONDS).await;
    let due = context.store().system(reconciler(), due).await?;
    let share = MAILS / i64::try_from(due.len()).unwrap_or(MAILS).max(1);
    for (owner, broadcast) in due {
        let begin = async |tx: &mut SystemTx| mails::begin_broadcast(tx, owner, broadcast, share).await;
        if let Err(error) = context.commit("broadcast", begin).await {
            tracing::warn!(%broadcast, %error, "a broadcast cannot be mailed now");
            context.commit("put_off", async |tx: &mut SystemTx| mails::mailed(tx, owner, broadcast).await).await?;
        }
    }
    Ok(())
}

/// Tells of a change whom it concerns.
async fn tell_change(tx: &mut SystemTx, tenant: TenantId, change: &Told) -> Result<()> {
    let after = change.after.clone().unwrap_or_default();
    let text = |field: &str| short(after[field].as_str().unwrap_or_default());
    let user = match &*change.reason {
        "TICKET_ANSWERED" => text("requester_id").parse().ok().map(UserId),
        "OPERATION_FAILED" => UserId::parse("actor", &text("actor")).ok(),
        _ => match change.resource.rsplit('/').next().and_then(|id| id.parse().ok()) {
            Some(invitation) => sources::inviter(tx, tenant, invitation).await?,
            None => None,
        },
    };
    let Some(user) = user else { return Ok(()) };
    let Some(to) = sources::recipient(tx, tenant, user).await? else { return Ok(()) };
    let words = Words::of(to.language());
    let (kind, Said { title, body }) = match &*change.reason {
        "TICKET_ANSWERED" => {
            let said = said::ticket_answered(words, after["number"].to_string(), text("subject"));
            (NotificationKind::TicketAnswered, said)
        }
        "OPERATION_FAILED" => {
            let said = said::operation_failed(words, text("verb"), text("target"), text("error_message"));
            (NotificationKind::OperationFailed, said)
        }
        _ => (NotificationKind::InvitationAccepted, said::invitation_accepted(words, short(&change.message))),
    };
    let (source, resource) = (format!("change {}", change.position), change.resource.clone());
    sources::make(tx, &to, &NewNotification { kind, source, title, body, resource }).await
}

/// Tells the owner of a key that it ends.
async fn tell_key(tx: &mut SystemTx, key: &ExpiringKey) -> Result<()> {
    let Some(to) = sources::recipient(tx, TenantId(key.tenant_id), UserId(key.owner_id)).await? else { return Ok(()) };
    let Said { title, body } = said::key_expiring(Words::of(to.language()), &key.display_name, key.expires_at);
    let (source, resource) = (key.source.clone(), ApiKeyId(key.id).name());
    sources::make(tx, &to, &NewNotification { kind: NotificationKind::KeyExpiring, source, title, body, resource })
        .await
}

/// Tells those who can change a quota that it is nearly used.
async fn tell_quota(tx: &mut SystemTx, found: &NearlyUsed) -> Result<()> {
    let tenant = TenantId(found.tenant_id);
    let source = format!("quota {} {}", found.amount, uuid::Uuid::now_v7());
    for user in sources::holders(tx, tenant, "quota:update").await? {
        let Some(to) = sources::recipient(tx, tenant, user).await? else { continue };
        let words = Words::of(to.language());
        let Said { title, body } = said::quota_nearly_used(words, found.used, found.limit, &found.amount);
        let (kind, source) = (NotificationKind::QuotaNearlyUsed, source.clone());
        let resource = format!("{}/quota", tenant.name());
        sources::make(tx, &to, &NewNotification { kind, source, title, body, resource }).await?;
    }
    Ok(())
}

fn short(text: &str) -> String {
    text.chars().take(TEXT).collect()
}
