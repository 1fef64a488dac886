//! Where a broadcast stands.

use chrono::{DateTime, Utc};

use crate::sql::text_enum;
use crate::{Error, Result};

text_enum! {
    /// Whom a broadcast is for.
    AudienceKind {
        All = "ALL",
        Tenants = "TENANTS",
        Roles = "ROLES",
        Users = "USERS",
    }
}

text_enum! {
    /// Where a broadcast stands.
    BroadcastState {
        Draft = "DRAFT",
        Scheduled = "SCHEDULED",
        Active = "ACTIVE",
        Ended = "ENDED",
    }
}

/// When a broadcast is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub active: bool,
    /// None for as soon as it is activated.
    pub start: Option<DateTime<Utc>>,
    /// None for as long as it is active.
    pub end: Option<DateTime<Utc>>,
}

impl Window {
    /// Where it stands at a time.
    #[must_use]
    pub fn state(self, now: DateTime<Utc>) -> BroadcastState {
        match self {
            Self { active: false, .. } => BroadcastState::Draft,
            Self { end: Some(end), .. } if end <= now => BroadcastState::Ended,
            Self { start: Some(start), .. } if start > now => BroadcastState::Scheduled,
            _ => BroadcastState::Active,
        }
    }

    /// Whether it is told, or will be.
    #[must_use]
    pub fn is_live(self, now: DateTime<Utc>) -> bool {
        matches!(self.state(now), BroadcastState::Scheduled | BroadcastState::Active)
    }

    /// Refuses one that would not be told when it is activated.
    pub fn expect_not_over(self, name: &str, now: DateTime<Utc>) -> Result<()> {
        match self.end {
            Some(end) if end <= now => {
                Err(Error::precondition("BROADCAST_ENDED", name, "its endTime is over; change that first"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn where_it_stands_follows_from_the_window() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let at = |minutes| Some(now + TimeDelta::minutes(minutes));
        let window = |active, start, end| Window { active, start, end };
        for (window, state) in [
            (window(false, at(-1), at(1)), BroadcastState::Draft),
            (window(true, None, None), BroadcastState::Active),
            (window(true, at(-1), at(1)), BroadcastState::Active),
            (window(true, at(0), None), BroadcastState::Active),
            (window(true, at(1), at(2)), BroadcastState::Scheduled),
            (window(true, at(-2), at(0)), BroadcastState::Ended),
            (window(true, None, at(-1)), BroadcastState::Ended),
        ] {
            assert_eq!(window.state(now), state, "{window:?}");
            let live = [BroadcastState::Scheduled, BroadcastState::Active].contains(&state);
            assert_eq!(window.is_live(now), live, "{window:?}");
        }
        assert!(window(false, None, at(0)).expect_not_over("broadcasts/x", now).is_err());
        assert!(window(false, None, at(1)).expect_not_over("broadcasts/x", now).is_ok());
    }
}
