//! Mails with a token. Jobs carry ids only: the worker makes the token, commits what it hashes to, and only then sends,
//! so neither the queue nor the database ever holds one that could be read. Each try to invite makes another token, and the one
//! before is worth nothing; a reset has one as long as it goes on, kept sealed.

use std::future::Future;

use virtualstack_model::Result;
use virtualstack_model::jobs::Job;
use virtualstack_store::iam::mail_tokens::MailToken;

use crate::adapters::mail::{Letter, Message, Words};
use crate::engine::context::Shared;
use crate::engine::mailing::hand_over;
use crate::engine::task::{Next, Task, TaskContext};

/// A task that sends one.
pub(super) trait TokenMail: Job {
    /// What its tokens begin with.
    const PREFIX: &'static str;

    /// Commits what a new token hashes to; the mail to send then, and the token in it, which may be one of before. None where
    /// there is nothing to send any more.
    fn mint(
        &self,
        context: &TaskContext<'_>,
        new: MailToken,
    ) -> impl Future<Output = Result<Option<(Message, MailToken)>>> + Send;

    /// Ends the job with its mail handed over.
    fn sent(&self, context: &TaskContext<'_>, token: &MailToken) -> impl Future<Output = Result<Next>> + Send;
}

/// The step in which the token is made.
pub(super) const MINT: &str = "mint";

impl<M: TokenMail> Task for M {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let new = MailToken::mint(M::PREFIX)?;
        let Some((message, token)) = self.mint(context, new).await? else { return Ok(Next::Done) };
        match hand_over(context, message).await {
            Ok(()) => self.sent(context, &token).await,
            Err(next) => Ok(next),
        }
    }
}

/// Says how a reader uses a token: by a link, or by itself.
pub(super) fn ways(letter: Letter, words: &Words, link: &str, token: &MailToken) -> Letter {
    let token = token.text();
    // Behind a #, it is in no request, and so in no log on the way.
    letter.link(format!("{link}#token={token}")).text(words.say("token", &[])).code(token.to_owned())
}

/// A page of the console.
pub(super) fn link(shared: &Shared, page: &str) -> String {
    format!("{}/{page}", shared.link_base.trim_end_matches('/'))
}
