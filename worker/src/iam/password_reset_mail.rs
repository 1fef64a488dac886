//! The mail to who has forgotten their password.

use chrono::{DateTime, Utc};
use virtualstack_model::Result;
use virtualstack_model::iam::jobs::PasswordResetMail;
use virtualstack_model::name::quoted;
use virtualstack_store::iam::mail_tokens::MailToken;
use virtualstack_store::iam::password_resets::{self, Holder, Right};

use crate::adapters::mail::Message;
use crate::engine::task::{Next, TaskContext};
use crate::iam::token_mail::{MINT, SEND, TokenMail, link, moment, ways};

impl TokenMail for PasswordResetMail {
    const PREFIX: &'static str = "vsp_";

    async fn mint(&self, context: &TaskContext<'_>, new: MailToken) -> Result<Option<(Message, MailToken)>> {
        let (account, key) = (self.account, &context.shared.master_key);
        let begin = async |tx: &mut _| password_resets::begin(tx, account, key, &new).await;
        let begun = context.commit(MINT, begin).await?;
        Ok(begun.map(|Right { holder, token, ends }| {
            (message(holder, ends, &link(context.shared, "reset-password"), &token), token)
        }))
    }

    async fn sent(&self, context: &TaskContext<'_>, _: &MailToken) -> Result<Next> {
        context.end(SEND, Next::Done, async |_| Ok(())).await
    }
}

fn message(holder: Holder, ends: DateTime<Utc>, link: &str, token: &MailToken) -> Message {
    let text = format!(
        "Hello {},\n\nsomebody, hopefully you, asked for a new password for this address.\n\nTo choose one, open this \
         link:\n\n{}\n\
         This works once, until {}. If it was not you who asked, you need not do anything: your password stays as it \
         is.\n",
        quoted(&holder.display_name),
        ways(link, token),
        moment(ends),
    );
    Message { to: holder.email, subject: "Your new password".to_owned(), text }
}
