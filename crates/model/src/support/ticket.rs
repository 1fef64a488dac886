//! Tickets: states, and what is legal in each.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{Error, Result};
use crate::sql::text_enum;
use crate::support::id::TicketId;

/// Shows its holder the tickets of everybody in the tenant.
pub const MANAGE: &str = "ticket:manage";

text_enum! {
    /// What a ticket is about.
    TicketCategory {
        Incident = "INCIDENT",
        Request = "REQUEST",
        Question = "QUESTION",
        Billing = "BILLING",
    }
}

text_enum! {
    /// How much a ticket matters.
    TicketPriority {
        Low = "LOW",
        Medium = "MEDIUM",
        High = "HIGH",
        Urgent = "URGENT",
    }
}

text_enum! {
    /// Who is to do something about a ticket.
    TicketState {
        /// The provider.
        Open = "OPEN",
        /// The requester.
        Pending = "PENDING",
        /// Nobody, unless the requester disagrees.
        Resolved = "RESOLVED",
        Closed = "CLOSED",
    }
}

text_enum! {
    /// How the provider's desk knows of a ticket.
    DeskState {
        /// There is no other desk.
        Local = "LOCAL",
        /// Something is on its way there.
        Pending = "PENDING",
        Synced = "SYNCED",
        /// The desk has refused something.
        Failed = "FAILED",
    }
}

text_enum! {
    /// Where a comment came from.
    CommentSource {
        Api = "API",
        Desk = "DESK",
    }
}

impl TicketId {
    /// What full names of tickets are like.
    pub const NAMES: &'static str = "tickets/{uuid}";
}

impl TicketState {
    /// Closes it.
    pub fn close(self, ticket: TicketId) -> Result<Self> {
        match self {
            Self::Closed => Err(self.refuse(ticket, "be closed again")),
            _ => Ok(Self::Closed),
        }
    }

    /// Opens it again. `closed_since` is when it was closed, and `limit` how long after that it may be.
    pub fn reopen(self, ticket: TicketId, closed_since: Option<DateTime<Utc>>, limit: TimeDelta) -> Result<Self> {
        match self {
            Self::Open | Self::Pending => Err(self.refuse(ticket, "be reopened")),
            Self::Closed if closed_since.is_some_and(|since| Utc::now() - since > limit) => {
                let message = format!("it was closed more than {} days ago; write a new one", limit.num_days());
                Err(Error::precondition("TICKET_CLOSED_LONG_AGO", ticket.name(), message))
            }
            Self::Resolved | Self::Closed => Ok(Self::Open),
        }
    }

    /// What an operator sets it to. The state that it has is no change.
    pub fn set(self, to: Self, ticket: TicketId) -> Result<Self> {
        match self {
            Self::Closed if to != Self::Closed => Err(self.refuse(ticket, "change its state but by being reopened")),
            _ => Ok(to),
        }
    }

    /// What somebody of the tenant makes of it who comments on it.
    pub fn commented_by_tenant(self, ticket: TicketId) -> Result<Self> {
        self.expect_not_closed(ticket, "take comments").map(|()| Self::Open)
    }

    /// Refuses what a closed ticket does not allow.
    pub fn expect_not_closed(self, ticket: TicketId, work: &str) -> Result<()> {
        if self == Self::Closed { Err(self.refuse(ticket, work)) } else { Ok(()) }
    }

    fn refuse(self, ticket: TicketId, work: &str) -> Error {
        Error::precondition("TICKET_STATE", ticket.name(), format!("a ticket that is {self} cannot {work}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_each_other_as_the_contract_says() {
        use TicketState::{Closed, Open, Pending, Resolved};
        let (id, month) = (TicketId::new(), TimeDelta::days(30));
        for state in TicketState::ALL {
            assert_eq!(state.close(id).ok(), (*state != Closed).then_some(Closed), "{state}");
            let reopened = state.reopen(id, Some(Utc::now()), month).ok();
            assert_eq!(reopened, [Resolved, Closed].contains(state).then_some(Open), "{state}");
            assert_eq!(state.commented_by_tenant(id).ok(), (*state != Closed).then_some(Open), "{state}");
            for to in [Open, Pending, Resolved, Closed] {
                assert_eq!(state.set(to, id).ok(), (*state != Closed || to == Closed).then_some(to), "{state} {to}");
            }
        }
        let long_ago = Closed.reopen(id, Some(Utc::now() - TimeDelta::days(31)), month).expect_err("refused");
        assert_eq!(long_ago.reason(), "TICKET_CLOSED_LONG_AGO");
    }
}
