//! Whether a full name, of whatever collection, names something of a tenant.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::{AccountId, SessionId, TenantId};

use crate::tx::error::from_diesel;
use crate::tx::{Mode, SystemTx, TenantTx};

/// What there is in a VM, in a tenant and in a ticket.
const SNAPSHOTS: &str = "vms/snapshots";
const QUOTA: &str = "tenants/quota";
const COMMENTS: &str = "tickets/comments";
const ATTACHMENTS: &str = "tickets/attachments";
const BROADCASTS: &str = "tenants/broadcasts";

/// Each collection, and the rows of it that have the id `$2`, or key `$3`, in the tenant `$1`. Snapshots have the id and the
/// VM `$3`, comments and files the ticket, broadcasts the tenant. A test holds them against the resources of the contract.
pub const ROWS: &[(&str, &str)] = &[
    ("apiKeys", "iam.api_keys WHERE tenant_id = $1 AND id = $2"),
    ("invitations", "iam.invitations WHERE tenant_id = $1 AND id = $2"),
    ("operations", "compute.operations WHERE tenant_id = $1 AND id = $2"),
    ("roles", "iam.tenant_roles WHERE tenant_id = $1 AND (id = $2 OR system AND display_name = $3)"),
    ("templates", "compute.templates WHERE coalesce(tenant_id, $1) = $1 AND id = $2"),
    ("tenants", "iam.tenants WHERE id = $1 AND (id = $2 OR slug = $3)"),
    (ATTACHMENTS, "support.ticket_attachments WHERE tenant_id = $1 AND id = $2 AND ticket_id::text = lower($3)"),
    (COMMENTS, "support.ticket_comments WHERE tenant_id = $1 AND id = $2 AND ticket_id::text = lower($3)"),
    ("tickets", "support.tickets WHERE tenant_id = $1 AND id = $2"),
    ("users", "iam.memberships WHERE tenant_id = $1 AND id = $2 AND state <> 'REMOVED'"),
    (
        BROADCASTS,
        "notifications.broadcasts WHERE tenant_id = $1 AND id = $2 AND NOT platform AND tenant_id::text = lower($3)",
    ),
    (QUOTA, "iam.tenants WHERE id = $1 AND (id = $2 OR slug = $3)"),
    (SNAPSHOTS, "compute.snapshots WHERE tenant_id = $1 AND id = $2 AND vm_id::text = lower($3)"),
    ("vms", "compute.virtual_machines WHERE tenant_id = $1 AND id = $2"),
];

/// Sessions belong to accounts: those of `$1` count.
const SESSIONS: &str = "iam.sessions s WHERE account_id = $1 AND id = $2 AND iam.goes_on(s)";

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Whether `name` is the full name of something of the tenant, or of a session of `account`.
pub async fn exists<M: Mode>(tx: &mut TenantTx<M>, account: AccountId, name: &str) -> Result<bool> {
    let segments: Vec<_> = name.split('/').collect();
    let (collection, id, key) = match segments[..] {
        ["vms", vm, "snapshots", id] => (SNAPSHOTS, id, vm),
        ["tickets", ticket, "comments", id] => (COMMENTS, id, ticket),
        ["tickets", ticket, "attachments", id] => (ATTACHMENTS, id, ticket),
        [TenantId::COLLECTION, tenant, "quota"] => (QUOTA, tenant, tenant),
        [TenantId::COLLECTION, tenant, "broadcasts", id] => (BROADCASTS, id, tenant),
        [collection, id] => (collection, id, id),
        _ => return Ok(false),
    };
    // PostgreSQL has no text with a NUL in it.
    if name.contains('\0') {
        return Ok(false);
    }
    let count = |rows: &str, owner: Uuid| {
        diesel::sql_query(format!("SELECT count(*) AS count FROM {rows}"))
            .bind::<SqlUuid, _>(owner)
            .bind::<Nullable<SqlUuid>, _>(Uuid::try_parse(id).ok())
            .bind::<Text, _>(key.to_owned())
    };
    let found: Count = if collection == SessionId::COLLECTION {
        let read = async |system: &mut SystemTx| {
            count(SESSIONS, account.0).get_result(system.connection()?).await.map_err(from_diesel)
        };
        tx.as_system(read).await?
    } else if let Some((_, rows)) = ROWS.iter().find(|(known, _)| *known == collection) {
        count(rows, tx.tenant().0).get_result(tx.connection()?).await.map_err(from_diesel)?
    } else {
        return Ok(false);
    };
    Ok(found.count > 0)
}
