//! Ids of roles and invitations.

use crate::id::id;

id!(/// A role of a tenant.
    RoleId, "roles");
id!(/// An invitation to a tenant.
    InvitationId, "invitations");
