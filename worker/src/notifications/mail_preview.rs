//! Each mail as its reader would get it, with made-up contents.

use chrono::DateTime;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::{AccountId, TenantId, UserId};
pub use virtualstack_model::language::Language;
use virtualstack_model::notifications::kind::NotificationKind;
use virtualstack_store::iam::invitations::MailContent;
use virtualstack_store::iam::mail_tokens::MailToken;
use virtualstack_store::iam::password_resets::Holder;
use virtualstack_store::notifications::mails::{Content, Item};

use super::notification_mail;
use super::said::{self, Said};
use crate::adapters::mail::{Message, Words};
use crate::iam::{invitation_mail, password_reset_mail};

/// The mails there are.
pub const MAILS: [&str; 10] = [
    "invitation",
    "password_reset",
    "operation_failed",
    "quota_nearly_used",
    "ticket_answered",
    "invitation_accepted",
    "key_expiring",
    "digest",
    "broadcast",
    "broadcast_of_tenant",
];

/// A mail of [`MAILS`], in a language; none if there is no such mail. Links begin with `base`.
pub fn preview(mail: &str, language: Language, base: &str) -> Result<Option<Message>> {
    let words = Words::of(language);
    let email = "ada@example.com".to_owned();
    let soon = DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default();
    let one = |kind, said: Said| notifications(language, (kind, false), vec![said], 1, base);
    Ok(Some(match mail {
        "invitation" => {
            let token = MailToken::mint("vsi_")?;
            let (tenant, inviter) = ("Example Inc.".to_owned(), Some("Grace Hopper".to_owned()));
            let content = MailContent { email, tenant, inviter, expires_at: soon };
            invitation_mail::message(words, content, &format!("{base}/accept-invitation"), &token)
        }
        "password_reset" => {
            let (token, display_name) = (MailToken::mint("vsp_")?, "Ada Lovelace".to_owned());
            let holder = Holder { id: AccountId(Uuid::now_v7()), email, display_name };
            let link = format!("{base}/reset-password");
            password_reset_mail::message(words, holder, soon, &link, &token)
        }
        "operation_failed" => one(NotificationKind::OperationFailed, {
            let (verb, target) = ("CREATE".to_owned(), format!("vms/{}", Uuid::now_v7()));
            said::operation_failed(words, verb, target, "No datastore has 40 GiB free.".to_owned())
        }),
        "quota_nearly_used" => {
            one(NotificationKind::QuotaNearlyUsed, said::quota_nearly_used(words, 91, 100, "memoryMib"))
        }
        "ticket_answered" => one(NotificationKind::TicketAnswered, answered(words, 7)),
        "invitation_accepted" => one(NotificationKind::InvitationAccepted, {
            said::invitation_accepted(words, "grace@example.com is a member now".to_owned())
        }),
        "key_expiring" => one(NotificationKind::KeyExpiring, said::key_expiring(words, "ci", soon)),
        "digest" => {
            let said = (1..=50).map(|number| answered(words, number)).collect();
            notifications(language, (NotificationKind::TicketAnswered, false), said, 60, base)
        }
        "broadcast" => broadcast(language, false, base),
        "broadcast_of_tenant" => broadcast(language, true, base),
        _ => return Ok(None),
    }))
}

fn answered(words: &Words, number: u32) -> Said {
    said::ticket_answered(words, number.to_string(), "The VM hangs at boot".to_owned())
}

fn broadcast(language: Language, of_tenant: bool, base: &str) -> Message {
    let (title, body) = ("Work on storage 7".to_owned(), "VMs may be slow from 22:00 to 23:00 UTC.".to_owned());
    notifications(language, (NotificationKind::Broadcast, of_tenant), vec![Said { title, body }], 1, base)
}

fn notifications(
    language: Language,
    (kind, of_tenant): (NotificationKind, bool),
    said: Vec<Said>,
    count: i64,
    base: &str,
) -> Message {
    let item = |Said { title, body }| Item { title, body };
    let content = Content {
        email: "ada@example.com".to_owned(),
        tenant: TenantId(Uuid::now_v7()),
        tenant_name: "Example Inc.".to_owned(),
        user: UserId(Uuid::now_v7()),
        language,
        kind,
        of_tenant,
        items: said.into_iter().map(item).collect(),
        count,
    };
    notification_mail::message(content, format!("{base}/v1/notifications:unsubscribe?token=…"), Uuid::now_v7())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mail_can_be_seen_in_each_language() {
        for mail in MAILS {
            for language in Language::ALL {
                let message = preview(mail, *language, "https://example.com").expect("made").expect("a mail");
                assert!(!message.subject.is_empty() && !message.text.contains("{ $"), "{mail}: {}", message.text);
                assert!(message.html.contains(&format!("<html lang=\"{language}\">")), "{mail}");
            }
        }
        assert!(preview("nothing", Language::English, "").expect("made").is_none());
    }
}
