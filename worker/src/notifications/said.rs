//! What notifications say.

use chrono::{DateTime, Utc};
use virtualstack_model::name::quoted;

use crate::adapters::mail::Words;

/// Title and body.
pub(super) struct Said {
    pub(super) title: String,
    pub(super) body: String,
}

pub(super) fn ticket_answered(words: &Words, number: String, subject: String) -> Said {
    Said { title: words.say("ticket-answered", &[("number", number.into())]), body: subject }
}

pub(super) fn operation_failed(words: &Words, verb: String, target: String, error: String) -> Said {
    Said { title: words.say("operation-failed", &[("verb", verb.into()), ("target", target.into())]), body: error }
}

pub(super) fn invitation_accepted(words: &Words, what: String) -> Said {
    Said { title: words.say("invitation-accepted", &[]), body: what }
}

pub(super) fn key_expiring(words: &Words, name: &str, ends: DateTime<Utc>) -> Said {
    let of = [("name", quoted(name).into()), ("time", words.moment(ends).into())];
    Said { title: words.say("key-expiring", &[]), body: words.say("key-expiring-body", &of) }
}

pub(super) fn quota_nearly_used(words: &Words, used: i64, limit: i64, amount: &str) -> Said {
    let of =
        [("used", used.to_string().into()), ("limit", limit.to_string().into()), ("amount", amount.to_owned().into())];
    Said { title: words.say("quota-nearly-used", &[]), body: words.say("quota-nearly-used-body", &of) }
}
