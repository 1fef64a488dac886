//! Mails with a token. Jobs carry ids only: the worker makes the token, commits what it hashes to, and only then sends,
//! so neither the queue nor the database ever holds one. A try that dies in between leaves a token that nobody has; the
//! next one makes another, and the one before is worth nothing.

use std::future::Future;

use chrono::{DateTime, TimeDelta, Utc};
use virtualstack_model::jobs::Job;
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::iam::mail_tokens::MailToken;

use crate::adapters::mail::Message;
use crate::engine::context::{Shared, StepContext};
use crate::engine::probe::Point;

/// A job that sends one.
pub(crate) trait TokenMail: Job {
    /// What its tokens begin with.
    const PREFIX: &'static str;

    /// Commits what a token hashes to; the mail to send then. None where there is nothing to send any more: the job is
    /// done.
    fn commit(
        &self,
        context: &StepContext<'_>,
        token: &MailToken,
    ) -> impl Future<Output = Result<Option<Message>>> + Send;

    /// Ends the job with its mail handed over.
    fn conclude(&self, context: &StepContext<'_>, token: &MailToken) -> impl Future<Output = Result<()>> + Send;
}

/// Works on a claimed job: one try.
pub(crate) async fn send<M: TokenMail>(shared: &Shared, lease: &Lease) -> Result<()> {
    let job: M = serde_json::from_value(lease.payload.clone()).map_err(Error::internal)?;
    if lease.attempt > lease.max_attempts {
        let last = lease.last_error.as_deref().unwrap_or("the worker died each time");
        return settle(shared, lease, Outcome::Discard { error: last.to_owned() }).await;
    }
    let context = |step: &str| StepContext::new(shared, lease, format!("{}.{step}", M::KIND));
    let token = MailToken::mint(M::PREFIX)?;
    let (mint, send) = (context("mint"), context("send"));
    let Some(message) = job.commit(&mint, &token).await? else { return Ok(()) };
    shared.probe.pass(&mint.label, Point::AfterCommit).await;
    match send.call(shared.mailer.send(message)).await {
        Ok(()) => {
            job.conclude(&send, &token).await?;
            shared.probe.pass(&send.label, Point::AfterCommit).await;
            Ok(())
        }
        Err(fault) => {
            let again = fault.retry && lease.attempt < lease.max_attempts;
            tracing::warn!(%fault, again, "the mail was not handed over");
            let error = fault.message;
            let outcome = match again {
                true => Outcome::Retry { error, after: Some(patience(lease.attempt)), within: None },
                false => Outcome::Discard { error },
            };
            settle(shared, lease, outcome).await
        }
    }
}

/// How long after a try the next one is. Relays are away for minutes, and make strangers wait as long; ten tries are an
/// hour.
fn patience(attempt: i32) -> TimeDelta {
    let exponent = u32::try_from(attempt).unwrap_or_default().min(7);
    TimeDelta::seconds(3_i64.pow(exponent)).min(TimeDelta::minutes(15))
}

async fn settle(shared: &Shared, lease: &Lease, outcome: Outcome) -> Result<()> {
    shared.store.system_for_job(lease, async |_| Ok(((), outcome.clone()))).await
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

/// A name that somebody chose, on one line.
pub(super) fn line(name: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    name.split(|c: char| breaks(c) || c == ' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

pub(super) fn moment(time: DateTime<Utc>) -> String {
    time.format("%-d %B %Y, %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_on_its_line() {
        assert_eq!(line(" Acme\r\nBcc: eve@example.com\u{2028}\tInc. "), "Acme Bcc: eve@example.com Inc.");
    }

    #[test]
    fn ten_tries_are_an_hour() {
        assert_eq!(patience(1), TimeDelta::seconds(3));
        let all: TimeDelta = (1..10).map(patience).sum();
        assert!((TimeDelta::minutes(55)..TimeDelta::minutes(70)).contains(&all), "{all}");
    }
}
