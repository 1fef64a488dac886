//! What callers share: places for calls, waits and watches, and bytes. Each has a part, so that nobody takes what is there
//! from everybody else.

use std::net::IpAddr;
use std::time::Duration;

use virtualstack_connections::{Share, Shares, network};
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::{Error, Result};

/// Whose parts are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    All,
    /// Whom nobody knows yet.
    Strangers,
    Network(Option<IpAddr>),
    Tenant(TenantId),
    Member(UserId),
}

impl Holder {
    /// Whoever is at an address.
    pub(crate) fn network(client: Option<IpAddr>) -> Self {
        Self::Network(client.map(network))
    }
}

/// What somebody has of it.
pub(crate) type Part = Share<Holder>;

/// The reason where there are too many calls.
const CALLS: &str = "TOO_MANY_CALLS";

/// When it is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Places for something that is at work for a while.
#[derive(Clone)]
pub(crate) struct Places {
    shares: Shares<Holder>,
    most: Most,
    what: &'static str,
    reason: &'static str,
}

/// How many places there are at most.
#[derive(Clone, Copy)]
pub(crate) struct Most {
    pub(crate) of_all: usize,
    pub(crate) of_tenant: usize,
    pub(crate) of_member: usize,
}

impl Places {
    /// `what` they are for, in messages, and the reason of errors.
    pub(crate) fn new(what: &'static str, reason: &'static str, most: Most) -> Self {
        Self { shares: Shares::default(), most, what, reason }
    }

    /// Places for calls: a member has an eighth and a tenant a quarter.
    pub(crate) fn for_calls(most: usize) -> Self {
        let part = |of: usize| (most / of).max(1);
        let most = Most { of_all: most, of_tenant: part(4), of_member: part(8) };
        Self::new("calls at work", CALLS, most)
    }

    /// One of a member's.
    pub(crate) fn of_member(&self, tenant: TenantId, member: UserId) -> Result<Part> {
        let Most { of_all, of_tenant, of_member } = self.most;
        let (tenant, member) = (Holder::Tenant(tenant), Holder::Member(member));
        let taken = self.shares.take([(member, of_member), (tenant, of_tenant), (Holder::All, of_all)]);
        taken.map_err(|full| match full {
            0 => self.exhausted("you have"),
            1 => self.exhausted("the tenant has"),
            _ => self.full(),
        })
    }

    /// One of those of whom nobody knows anything but the address: a sixteenth each, and a quarter together.
    pub(crate) fn of_stranger(&self, client: Option<IpAddr>) -> Result<Part> {
        let part = |of: usize| (self.most.of_all / of).max(1);
        let place = Holder::network(client);
        let taken =
            self.shares.take([(place, part(16)), (Holder::Strangers, part(4)), (Holder::All, self.most.of_all)]);
        taken.map_err(|full| if full == 0 { self.exhausted("your address has") } else { self.full() })
    }

    /// Nobody gets one now.
    fn full(&self) -> Error {
        if self.reason == CALLS { overloaded() } else { self.exhausted("the server has") }
    }

    fn exhausted(&self, who: &str) -> Error {
        Error::ResourceExhausted {
            reason: self.reason,
            message: format!("{who} as many {} as may be; try again", self.what),
            retry_after: Some(RETRY_AFTER),
        }
    }
}

fn overloaded() -> Error {
    Error::Unavailable {
        reason: "OVERLOADED",
        message: "the server is at its limit; try again".to_owned(),
        retry_after: RETRY_AFTER,
        source: None,
    }
}

/// Bytes that are kept for callers: of requests that are not whole, and of replies that are not read.
#[derive(Clone, Default)]
pub(crate) struct Bytes(Shares<Holder>);

/// Bytes that may be kept for one member.
const MOST_BYTES: usize = 32 << 20;

impl Bytes {
    /// None yet, for a member. Refused where too many are kept already.
    pub(crate) fn of_member(&self, member: UserId) -> Result<Part> {
        let holder = Holder::Member(member);
        if self.0.held(&holder) >= MOST_BYTES {
            return Err(too_many_bytes());
        }
        Ok(self.0.none(holder))
    }
}

/// Keeps more.
pub(crate) fn keep(part: &mut Part, bytes: usize) -> Result<()> {
    if part.grow(bytes) > MOST_BYTES { Err(too_many_bytes()) } else { Ok(()) }
}

pub(crate) fn too_many_bytes() -> Error {
    Error::ResourceExhausted {
        reason: "REPLIES_UNREAD",
        message: "too much of your requests and replies is on its way; send what was begun, and read what was answered"
            .to_owned(),
        retry_after: Some(RETRY_AFTER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_less_than_a_tenant_and_a_tenant_less_than_there_is() {
        let places = Places::new("watches open", "WATCHES_EXHAUSTED", Most { of_all: 4, of_tenant: 3, of_member: 2 });
        let [ada, ben, eve] = [UserId::new(), UserId::new(), UserId::new()];
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let refused = |tenant, member| places.of_member(tenant, member).expect_err("refused").to_string();
        let (first, _second) =
            (places.of_member(tenant, ada).expect("a place"), places.of_member(tenant, ada).expect("a place"));
        assert!(refused(tenant, ada).starts_with("you have as many watches open"));
        let _third = places.of_member(tenant, ben).expect("a place");
        assert!(refused(tenant, ben).starts_with("the tenant has"));
        let _fourth = places.of_member(other, eve).expect("a place");
        assert!(refused(other, eve).starts_with("the server has as many watches"));
        drop(first);
        places.of_member(tenant, ada).expect("room again");
    }

    #[test]
    fn strangers_have_a_part_by_address_and_leave_the_rest() {
        let places = Places::for_calls(64);
        let from = |address: &str| places.of_stranger(Some(address.parse().expect("an address")));
        let held: Vec<_> = std::iter::from_fn(|| from("192.0.2.1").ok()).take(100).collect();
        assert_eq!(held.len(), 4);
        assert_eq!(from("192.0.2.1").expect_err("refused").reason(), "TOO_MANY_CALLS");
        assert_eq!(from("::ffff:192.0.2.1").expect_err("the same").reason(), "TOO_MANY_CALLS");
        let rest: Vec<_> = (0..100).filter_map(|host| from(&format!("198.51.100.{host}")).ok()).collect();
        assert_eq!(held.len() + rest.len(), 16, "a quarter is all that strangers have");
        places.of_member(TenantId::new(), UserId::new()).expect("members have theirs");
    }
}
