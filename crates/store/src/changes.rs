//! The two logs that writes append to: who did what (audit), and what happened to each resource (changes).

use diesel::prelude::*;
use diesel::sql_types::{Array, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use ipnetwork::IpNetwork;
use serde_json::json;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::access::Credential;
use virtualstack_model::audit::{Actor, Audit, Change, Outcome};
use virtualstack_model::id::TenantId;

use crate::error::from_diesel;
use crate::schema::logs;

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
        Outcome::Done | Outcome::Rehearsed => ("OK", ""),
        Outcome::Denied(reason) => ("DENIED", reason.as_ref()),
        Outcome::Failed(reason) => ("FAILED", reason.as_ref()),
    };
    let fields = changes
        .iter()
        .filter(|change| !change.fields.is_null())
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

// Who appends keeps the head until the commit: it comes last in a transaction, so that nobody waits for long.
const APPEND: &str = "WITH head AS ( \
        INSERT INTO audit.change_heads AS head (tenant_id, position) VALUES ($1, cardinality($3)) \
        ON CONFLICT (tenant_id) DO UPDATE SET position = head.position + excluded.position RETURNING position \
    ) \
    INSERT INTO audit.changes \
        (tenant_id, position, actor, resource, reason, message, state, operation_id, fields, kind, after) \
    SELECT $1, head.position - cardinality($3) + number, $2, resource, reason, message, state, operation, fields, kind, after \
    FROM head, unnest($3, $4, $5, $6, $7, $8, $9, $10) WITH ORDINALITY \
        AS row (resource, reason, message, state, operation, fields, kind, after, number)";

pub(crate) async fn append(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    actor: &str,
    rows: &[Change],
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    fn each<'a, T>(rows: &'a [Change], of: impl Fn(&'a Change) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }
    diesel::sql_query(APPEND)
        .bind::<SqlUuid, _>(tenant.0)
        .bind::<Text, _>(actor)
        .bind::<Array<Text>, _>(each(rows, |change| &change.resource))
        .bind::<Array<Text>, _>(each(rows, |change| change.reason))
        .bind::<Array<Text>, _>(each(rows, |change| &change.message))
        .bind::<Array<Text>, _>(each(rows, |change| change.state))
        .bind::<Array<Nullable<SqlUuid>>, _>(each(rows, |change| change.operation.map(|operation| operation.0)))
        .bind::<Array<Jsonb>, _>(each(
            rows,
            |change| if change.fields.is_null() { json!({}) } else { change.fields.clone() },
        ))
        .bind::<Array<Nullable<Text>>, _>(each(rows, |change| change.watched.as_ref().map(|(kind, _)| kind.as_str())))
        .bind::<Array<Nullable<Jsonb>>, _>(each(rows, |change| change.watched.as_ref().map(|(_, after)| after)))
        .execute(connection)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
