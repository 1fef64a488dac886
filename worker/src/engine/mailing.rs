//! Handing mails over, with the patience that relays need.

use chrono::TimeDelta;

use crate::adapters::mail::Message;
use crate::engine::task::{Next, TaskContext};

/// The step in which a mail leaves.
pub(crate) const SEND: &str = "send";

/// Hands a mail over; where that fails, what becomes of the task.
pub(crate) async fn hand_over(context: &TaskContext<'_>, message: Message) -> Result<(), Next> {
    let Err(fault) = context.call(SEND, context.shared.mailer.send(message)).await else { return Ok(()) };
    tracing::warn!(%fault, again = fault.retry, "the mail was not handed over");
    let error = fault.message;
    Err(match fault.retry {
        true => Next::Retry { error, after: Some(patience(context.attempt())) },
        false => Next::DeadLetter { error },
    })
}

/// How long after a try the next one is. Relays are away for minutes, and make strangers wait as long; ten tries are an
/// hour.
fn patience(attempt: i32) -> TimeDelta {
    let exponent = u32::try_from(attempt).unwrap_or_default().min(7);
    TimeDelta::seconds(3_i64.pow(exponent)).min(TimeDelta::minutes(15))
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
