//! The mail to who has forgotten their password.

use chrono::{DateTime, Utc};
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::iam::jobs::PasswordResetMail;
use virtualstack_model::language::Language;
use virtualstack_model::name::quoted;
use virtualstack_store::iam::mail_tokens::MailToken;
use virtualstack_store::iam::password_resets::{self, Holder, Right};

use crate::adapters::mail::{Letter, Message, Words};
use crate::engine::mailing::SEND;
use crate::engine::task::{Next, TaskContext};
use crate::iam::token_mail::{MINT, TokenMail, link, ways};

impl TokenMail for PasswordResetMail {
    const PREFIX: &'static str = "vsp_";

    async fn mint(&self, context: &TaskContext<'_>, new: MailToken) -> Result<Option<(Message, MailToken)>> {
        let (account, key) = (self.account, &context.shared.master_key);
        let begin = async |tx: &mut _| password_resets::begin(tx, account, key, &new).await;
        let begun = context.commit(MINT, begin).await?;
        Ok(begun.map(|Right { holder, token, ends }| {
            (
                message(Words::of(Language::default()), holder, ends, &link(context.shared, "reset-password"), &token),
                token,
            )
        }))
    }

    async fn sent(&self, context: &TaskContext<'_>, _: &MailToken) -> Result<Next> {
        context.end(SEND, Next::Done, async |_| Ok(())).await
    }
}

pub(crate) fn message(
    words: &'static Words,
    holder: Holder,
    ends: DateTime<Utc>,
    link: &str,
    token: &MailToken,
) -> Message {
    let letter = Letter::new(words, words.say("password-reset-subject", &[]))
        .text(words.say("hello-name", &[("name", quoted(&holder.display_name).into())]))
        .text(words.say("password-reset-asked", &[]))
        .text(words.say("password-reset-link", &[]));
    ways(letter, words, link, token).text(words.say("password-reset-end", &[("time", words.moment(ends).into())])).to(
        holder.email,
        None,
        Uuid::now_v7(),
    )
}
