//! Mails with a token. Jobs carry ids only: the worker makes the token, commits what it hashes to, and only then sends,
//! so neither the queue nor the database ever holds one that could be read. Each try to invite makes another token, and the one
//! before is worth nothing; a reset has one as long as it goes on, kept sealed.

use std::future::Future;

use chrono::{DateTime, TimeDelta, Utc};
use virtualstack_model::Result;
use virtualstack_model::jobs::Job;
use virtualstack_store::iam::mail_tokens::MailToken;

use crate::adapters::mail::Message;
use crate::engine::context::Shared;
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

/// Steps of such a task.
pub(super) const MINT: &str = "mint";
pub(super) const SEND: &str = "send";

impl<M: TokenMail> Task for M {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let new = MailToken::mint(M::PREFIX)?;
        let Some((message, token)) = self.mint(context, new).await? else { return Ok(Next::Done) };
        match context.call(SEND, context.shared.mailer.send(message)).await {
            Ok(()) => self.sent(context, &token).await,
            Err(fault) => {
                tracing::warn!(%fault, again = fault.retry, "the mail was not handed over");
                let error = fault.message;
                Ok(match fault.retry {
                    true => Next::Retry { error, after: Some(patience(context.attempt())) },
                    false => Next::DeadLetter { error },
                })
            }
        }
    }
}

/// How long after a try the next one is. Relays are away for minutes, and make strangers wait as long; ten tries are an
/// hour.
fn patience(attempt: i32) -> TimeDelta {
    let exponent = u32::try_from(attempt).unwrap_or_default().min(7);
    TimeDelta::seconds(3_i64.pow(exponent)).min(TimeDelta::minutes(15))
}

/// What stands where a reader is to use a token: a link, and the token by itself.
pub(super) fn ways(link: &str, token: &MailToken) -> String {
    let token = token.text();
    // Behind a #, it is in no request, and so in no log on the way.
    format!("{link}#token={token}\n\nOr give this token where you are asked for it:\n\n{token}\n")
}

/// A page of the console.
pub(super) fn link(shared: &Shared, page: &str) -> String {
    format!("{}/{page}", shared.link_base.trim_end_matches('/'))
}

pub(super) fn moment(time: DateTime<Utc>) -> String {
    time.format("%-d %B %Y, %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tries_are_an_hour() {
        assert_eq!(patience(1), TimeDelta::seconds(3));
        let all: TimeDelta = (1..10).map(patience).sum();
        assert!((TimeDelta::minutes(55)..TimeDelta::minutes(70)).contains(&all), "{all}");
    }
}
