//! The mail that tells a member of notifications.
//!
//! - What it must never do: go to somebody who does not want it, or is no member any more. So it is read when it is sent.
//! - It may be handed over twice, where a worker dies in between: it is then the same mail, by its Message-ID.

use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::name::quoted;
use virtualstack_model::notifications::jobs::NotificationMail;
use virtualstack_store::SystemTx;
use virtualstack_store::notifications::mails::{self, Content};
use virtualstack_store::notifications::unsubscribe;

use crate::adapters::mail::{Letter, Message, Words};
use crate::engine::mailing::{SEND, hand_over};
use crate::engine::task::{Next, Task, TaskContext};
use crate::reconciler::reconciler;

impl Task for NotificationMail {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let mail = self.mail;
        let content = async |tx: &mut SystemTx| mails::content(tx, mail).await;
        let Some(content) = context.store().system(reconciler(), content).await? else { return Ok(Next::Done) };
        let token = unsubscribe::token(&context.shared.master_key, content.tenant, content.user, content.kind)?;
        let base = context.shared.link_base.trim_end_matches('/');
        let stop = format!("{base}/v1/notifications:unsubscribe?token={token}");
        if let Err(next) = hand_over(context, message(content, stop, mail)).await {
            return Ok(next);
        }
        context.end(SEND, Next::Done, async |tx: &mut SystemTx| mails::sent(tx, mail).await).await
    }
}

/// The mail. `stop` is where its reader asks for no more like it.
pub(super) fn message(content: Content, stop: String, id: Uuid) -> Message {
    let words = Words::of(content.language);
    let tenant = quoted(&content.tenant_name);
    // It comes from the provider's address, so that its reader would take what it says for the provider's word.
    if content.of_tenant {
        let title = content.items.first().map_or_else(String::new, |item| quoted(&item.title));
        let of = [("tenant", tenant.clone().into()), ("title", title.into())];
        let letter = Letter::new(words, words.say("broadcast-subject", &[("tenant", tenant.clone().into())]));
        let letter = letter.text(words.say("hello", &[])).text(words.say("broadcast-of-tenant", &of));
        let letter = letter.text(words.say("notified-by", &[("tenant", tenant.into())]));
        return letter.link(stop.clone()).to(content.email, Some(stop), id);
    }
    let subject = match &*content.items {
        [one] => one.title.clone(),
        _ => words.say("digest-subject", &[("count", content.count.into()), ("tenant", tenant.clone().into())]),
    };
    let mut letter = Letter::new(words, subject).text(words.say("hello", &[]));
    let more = content.count - i64::try_from(content.items.len()).unwrap_or_default();
    for item in content.items {
        letter = letter.item(item.title, item.body);
    }
    if more > 0 {
        letter = letter.text(words.say("digest-more", &[("count", more.into())]));
    }
    letter.text(words.say("notified-by", &[("tenant", tenant.into())])).link(stop.clone()).to(
        content.email,
        Some(stop),
        id,
    )
}

#[cfg(test)]
mod tests {
    use virtualstack_model::id::{TenantId, UserId};
    use virtualstack_model::language::Language;
    use virtualstack_model::notifications::kind::NotificationKind;
    use virtualstack_store::notifications::mails::Item;

    use super::*;

    fn content(count: i64) -> Content {
        let item = |number| Item { title: format!("Ticket {number} was answered"), body: "It hangs".to_owned() };
        Content {
            email: "ada@example.com".to_owned(),
            tenant: TenantId(Uuid::now_v7()),
            tenant_name: "Acme".to_owned(),
            user: UserId(Uuid::now_v7()),
            language: Language::German,
            kind: NotificationKind::TicketAnswered,
            of_tenant: false,
            items: (0..count.min(50)).map(item).collect(),
            count,
        }
    }

    #[test]
    fn one_is_told_by_its_title_and_many_by_their_number() {
        let stop = "https://example.com/stop".to_owned();
        let one = message(content(1), stop.clone(), Uuid::now_v7());
        assert_eq!(one.subject, "Ticket 0 was answered");
        assert!(
            one.text.contains("* Ticket 0 was answered\n  It hangs\n") && one.text.ends_with("/stop\n"),
            "{}",
            one.text
        );
        assert_eq!(one.unsubscribe, Some(stop.clone()));
        let items = vec![Item { title: "Pay at evil.example".to_owned(), body: "https://evil.example".to_owned() }];
        let theirs = message(Content { of_tenant: true, items, ..content(1) }, stop.clone(), Uuid::now_v7());
        assert_eq!(theirs.subject, "Mitteilung in “Acme”");
        assert!(theirs.text.contains("“Pay at evil. example”"), "{}", theirs.text);
        assert!(!theirs.text.contains("evil.example") && !theirs.html.contains("evil.example"), "{}", theirs.html);
        let many = message(content(60), stop, Uuid::now_v7());
        assert_eq!(many.subject, "60 Benachrichtigungen von “Acme”");
        assert!(many.text.contains("Und 10 weitere."), "{}", many.text);
    }
}
