//! The mail of an invitation.

use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::iam::jobs::InvitationMail;
use virtualstack_model::language::Language;
use virtualstack_model::name::quoted;
use virtualstack_store::iam::invitations::{self, MailContent};
use virtualstack_store::iam::mail_tokens::MailToken;

use crate::adapters::mail::{Letter, Message, Words};
use crate::engine::mailing::SEND;
use crate::engine::task::{Next, TaskContext};
use crate::iam::token_mail::{MINT, TokenMail, link, ways};

impl TokenMail for InvitationMail {
    const PREFIX: &'static str = "vsi_";

    async fn mint(&self, context: &TaskContext<'_>, token: MailToken) -> Result<Option<(Message, MailToken)>> {
        let id = self.invitation;
        let set = async |tx: &mut _| invitations::set_token(tx, id, token.digest()).await;
        let content = context.commit_in_tenant(MINT, set).await?;
        Ok(content.map(|content| {
            (
                message(Words::of(Language::default()), content, &link(context.shared, "accept-invitation"), &token),
                token,
            )
        }))
    }

    async fn sent(&self, context: &TaskContext<'_>, token: &MailToken) -> Result<Next> {
        let id = self.invitation;
        let set = async |tx: &mut _| invitations::set_sent(tx, id, token.digest()).await;
        context.end_in_tenant(SEND, Next::Done, set).await
    }
}

pub(crate) fn message(words: &'static Words, content: MailContent, link: &str, token: &MailToken) -> Message {
    let tenant = quoted(&content.tenant);
    let invites = match &content.inviter {
        Some(inviter) => {
            words.say("invitation-by", &[("inviter", quoted(inviter).into()), ("tenant", tenant.clone().into())])
        }
        None => words.say("invitation-by-nobody", &[("tenant", tenant.clone().into())]),
    };
    let letter = Letter::new(words, words.say("invitation-subject", &[("tenant", tenant.into())]))
        .text(words.say("hello", &[]))
        .text(invites)
        .text(words.say("invitation-link", &[]));
    ways(letter, words, link, token)
        .text(words.say("invitation-end", &[("time", words.moment(content.expires_at).into())]))
        .to(content.email, None, Uuid::now_v7())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_mail_says_who_invites_to_what_and_until_when() {
        let words = Words::of(Language::English);
        let token = MailToken::mint(InvitationMail::PREFIX).expect("a token");
        let letter = MailContent {
            email: "ada@example.com".to_owned(),
            tenant: "Acme\r\nInc.".to_owned(),
            inviter: Some("Bob\nthe Boss".to_owned()),
            expires_at: DateTime::from_timestamp(1_800_000_000, 0).expect("a time"),
        };
        let mail = message(words, letter.clone(), "https://example.com/accept-invitation", &token);
        assert_eq!(mail.subject, "Invitation to “Acme Inc.”");
        let lines: Vec<_> = mail.text.lines().collect();
        assert!(lines.contains(&"“Bob the Boss” invites you to “Acme Inc.”."), "{}", mail.text);
        assert!(lines.contains(&&*format!("https://example.com/accept-invitation#token={}", token.text())));
        assert!(lines.contains(&token.text()));
        assert!(mail.text.contains("ends on 15 January 2027, 08:00 UTC."), "{}", mail.text);
        let mail = message(words, MailContent { inviter: None, ..letter }, "", &token);
        assert!(mail.text.contains("You are invited to “Acme Inc.”."), "{}", mail.text);
    }
}
