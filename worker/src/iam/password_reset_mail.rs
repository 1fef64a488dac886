//! The mail to who has forgotten their password.

use chrono::{DateTime, Utc};
use virtualstack_model::Result;
use virtualstack_model::iam::jobs::PasswordResetMail;
use virtualstack_queue::Outcome;
use virtualstack_store::iam::mail_tokens::MailToken;
use virtualstack_store::iam::password_resets::{self, Holder};

use crate::adapters::mail::Message;
use crate::engine::context::StepContext;
use crate::engine::probe::Point;
use crate::iam::token_mail::{TokenMail, line, link, moment, ways};

impl TokenMail for PasswordResetMail {
    const PREFIX: &'static str = "vsp_";

    async fn commit(&self, context: &StepContext<'_>, token: &MailToken) -> Result<Option<Message>> {
        let (account, shared) = (self.account, context.shared);
        let begun = shared
            .store
            .system_for_job(context.lease, async |tx| {
                let begun = password_resets::begin(tx, account, token.digest()).await?;
                shared.probe.pass(&context.label, Point::BeforeCommit).await;
                let outcome = if begun.is_some() { Outcome::Stay } else { Outcome::Done };
                Ok((begun, outcome))
            })
            .await?;
        Ok(begun.map(|(holder, ends)| message(holder, ends, &link(shared, "reset-password"), token)))
    }

    async fn conclude(&self, context: &StepContext<'_>, _: &MailToken) -> Result<()> {
        let shared = context.shared;
        let done = shared.store.system_for_job(context.lease, async |_| {
            shared.probe.pass(&context.label, Point::BeforeCommit).await;
            Ok(((), Outcome::Done))
        });
        done.await
    }
}

fn message(holder: Holder, ends: DateTime<Utc>, link: &str, token: &MailToken) -> Message {
    let text = format!(
        "Hello {},\n\nsomebody, hopefully you, asked for a new password for this address.\n\nTo choose one, open this \
         link:\n\n{}\n\
         This works once, until {}. If it was not you who asked, you need not do anything: your password stays as it \
         is.\n",
        line(&holder.display_name),
        ways(link, token),
        moment(ends),
    );
    Message { to: holder.email, subject: "Your new password".to_owned(), text }
}
