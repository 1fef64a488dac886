//! The two logs that writes append to: who did what (audit), and what happened to each resource (changes).

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use ipnetwork::IpNetwork;
use serde_json::json;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::access::Credential;
use virtualstack_model::audit::{Actor, Audit, Change, Outcome};
use virtualstack_model::id::TenantId;

use crate::error::from_diesel;
use crate::schema::{changes, logs};

pub(crate) async fn append_audit(
    connection: &mut AsyncPgConnection,
    tenant: Option<TenantId>,
    audit: &Audit,
    changes: &[Change],
) -> Result<()> {
    let (account, credential) = match &audit.actor {
        Actor::User { account, credential, .. } => (Some(account.0), credential.as_ref()),
        Actor::Operator { account, credential, .. } => (Some(account.0), Some(credential)),
        Actor::System(_) | Actor::Nobody => (None, None),
    };
    let (result, reason) = match &audit.outcome {
        Outcome::Done => ("OK", ""),
        Outcome::Denied(reason) => ("DENIED", reason.as_ref()),
        Outcome::Failed(reason) => ("FAILED", reason.as_ref()),
    };
    let fields = changes
        .iter()
        .map(|change| (change.resource.clone(), change.fields.clone()))
        .collect::<serde_json::Map<_, _>>();
    diesel::insert_into(logs::table)
        .values((
            logs::id.eq(Uuid::now_v7()),
            logs::tenant_id.eq(tenant.map(|tenant| tenant.0)),
            logs::action.eq(&audit.action),
            logs::actor.eq(audit.actor.name()),
            logs::account_id.eq(account),
            logs::session_id.eq(credential.and_then(Credential::session).map(|session| session.0)),
            logs::credential.eq(credential.map(Credential::name).unwrap_or_default()),
            logs::support_reason.eq(credential.and_then(Credential::support_reason)),
            logs::result.eq(result),
            logs::reason.eq(reason),
            logs::resource.eq(&audit.resource),
            logs::request_id.eq(&audit.request_id),
            logs::client_address.eq(audit.client_address.map(IpNetwork::from)),
            logs::fields.eq(json!(fields)),
        ))
        .execute(connection)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

pub(crate) async fn append(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    actor: &str,
    rows: &[Change],
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|change| {
            (
                changes::tenant_id.eq(tenant.0),
                changes::resource.eq(&change.resource),
                changes::reason.eq(change.reason),
                changes::message.eq(&change.message),
                changes::state.eq(change.state),
                changes::operation_id.eq(change.operation.map(|operation| operation.0)),
                changes::actor.eq(actor),
                changes::fields.eq(&change.fields),
            )
        })
        .collect();
    diesel::insert_into(changes::table).values(rows).execute(connection).await.map_err(from_diesel)?;
    Ok(())
}
