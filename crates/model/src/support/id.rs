//! Ids of tickets and what belongs to them.
//!
//! What is in a tenant has two names: a short one for the tenant, and one that begins with the tenant for operators.

use crate::error::{Error, Result};
use crate::id::{TenantId, id};

id!(/// A ticket.
    TicketId, "tickets");
id!(/// A comment; its full name stands below the ticket's.
    TicketCommentId, "comments");

id!(/// A file of a ticket; its full name stands below the ticket's.
    TicketAttachmentId, "attachments");

impl TicketId {
    /// The name that operators know it by.
    #[must_use]
    pub fn name_in(self, tenant: TenantId) -> String {
        format!("{}/{}", tenant.name(), self.name())
    }
}

/// Names below a ticket's.
macro_rules! below_ticket {
    ($($id:ident)*) => {
        $(impl $id {
            /// The full name.
            #[must_use]
            pub fn name_in(self, ticket: TicketId) -> String {
                format!("{}/{}", ticket.name(), self.name())
            }

            /// Reads a full name; `field` is named when it is none.
            pub fn parse_in(field: &str, name: &str) -> Result<(TicketId, Self)> {
                let form = format!("must be a full name, tickets/{{uuid}}/{}/{{uuid}}", Self::COLLECTION);
                let wrong = || Error::invalid(field, form.clone());
                let (ticket, own) = split(name, 2).ok_or_else(wrong)?;
                Ok((TicketId::parse(field, ticket).map_err(|_| wrong())?, Self::parse(field, own).map_err(|_| wrong())?))
            }
        })*
    };
}

below_ticket! { TicketCommentId TicketAttachmentId }

/// Takes the name that an operator writes apart: the tenant, by id or slug, and the name within it.
#[must_use]
pub fn split_tenant(name: &str) -> Option<(&str, &str)> {
    split(name, 2).filter(|(tenant, _)| tenant.starts_with(TenantId::COLLECTION))
}

/// What stands before and behind a slash, counted from 1.
fn split(name: &str, slash: usize) -> Option<(&str, &str)> {
    name.match_indices('/').nth(slash - 1).map(|(slash, _)| (&name[..slash], &name[slash + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let (tenant, ticket, comment) = (TenantId::new(), TicketId::new(), TicketCommentId::new());
        let name = comment.name_in(ticket);
        assert_eq!(TicketCommentId::parse_in("name", &name).expect("a name"), (ticket, comment));
        assert_eq!(split_tenant(&ticket.name_in(tenant)), Some((&*tenant.name(), &*ticket.name())));
        assert_eq!(split_tenant(&format!("tenants/acme/{name}")), Some(("tenants/acme", &*name)));
        for wrong in ["", "tickets/x", &ticket.name(), &format!("{}/notes/{comment}", ticket.name())] {
            assert!(TicketCommentId::parse_in("name", wrong).is_err(), "{wrong}");
            assert_eq!(split_tenant(wrong), None, "{wrong}");
        }
    }
}
