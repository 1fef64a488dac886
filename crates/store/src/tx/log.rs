//! The two logs that writes append to: who did what (audit), and what happened to each resource (changes).

use chrono::{TimeDelta, Utc};
use diesel::data_types::PgInterval;
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Array, Interval, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::credential::Credential;
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Actor, Audit, Change, Outcome, Tally};

use crate::schema::logs;
use crate::tx::error::from_diesel;

/// For longer than this no row counts on: a count stands for a minute, and what comes late is not told any more.
const COUNTED_FOR: TimeDelta = TimeDelta::seconds(70);

pub(crate) async fn append_audit(
    connection: &AsyncPgConnection,
    tenant: Option<TenantId>,
    audit: &Audit,
    changes: &[Change],
) -> Result<()> {
    append_audit_as(connection, Uuid::now_v7(), tenant, audit, changes).await
}

/// Appends a row that stands for several equal things, or tells how many they are by now. It may be told again.
pub(crate) async fn count_audit(
    connection: &mut AsyncPgConnection,
    tenant: Option<TenantId>,
    audit: &Audit,
    tally: Tally,
) -> Result<()> {
    append_audit_as(connection, tally.id, tenant, audit, &[]).await?;
    if tally.count == 1 {
        return Ok(());
    }
    let span = PgInterval::from_microseconds(tally.span.num_microseconds().unwrap_or(i64::MAX));
    let last = sql::<Nullable<Timestamptz>>("created_at + ").bind::<Interval, _>(span);
    let counting = logs::id.eq(tally.id).and(logs::created_at.gt(Utc::now() - COUNTED_FOR));
    diesel::update(logs::table.filter(counting))
        .set((logs::count.eq(tally.count), logs::last_time.eq(last)))
        .execute(connection)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

async fn append_audit_as(
    mut connection: &AsyncPgConnection,
    id: Uuid,
    tenant: Option<TenantId>,
    audit: &Audit,
    changes: &[Change],
) -> Result<()> {
    let (account, credential) = match &audit.actor {
        Actor::User { account, .. } | Actor::Operator { account, .. } => (Some(account.0), audit.actor.credential()),
        Actor::System(_) | Actor::Nobody => (None, None),
    };
    let (result, reason) = match &audit.outcome {
        Outcome::Done => ("OK", ""),
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
            logs::id.eq(id),
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
        .on_conflict_do_nothing()
        .execute(&mut connection)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Changes of a tenant, numbered on from its head. The head gives the time, too, once it is locked: so times are in the order
/// of positions, however long a transaction has waited and whatever the clock does. Who appends keeps the head until the commit: it comes last in a
/// transaction, so that nobody waits for long.
///
/// A query of its own kind, since every write sends it and `sql_query` is parsed and planned each time.
struct Append<'a> {
    tenant: Uuid,
    actor: &'a str,
    resources: Vec<&'a str>,
    reasons: Vec<&'a str>,
    messages: Vec<&'a str>,
    states: Vec<&'a str>,
    operations: Vec<Option<Uuid>>,
    fields: Vec<Value>,
    kinds: Vec<Option<&'a str>>,
    after: Vec<Option<&'a Value>>,
}

impl QueryId for Append<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for Append<'_> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_sql("WITH said AS (SELECT ");
        pass.push_bind_param::<SqlUuid, _>(&self.tenant)?;
        pass.push_sql(" AS tenant_id, ");
        pass.push_bind_param::<Text, _>(self.actor)?;
        pass.push_sql(" AS actor), told AS (SELECT * FROM unnest(");
        pass.push_bind_param::<Array<Text>, _>(&self.resources)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Array<Text>, _>(&self.reasons)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Array<Text>, _>(&self.messages)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Array<Text>, _>(&self.states)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Array<Nullable<SqlUuid>>, _>(&self.operations)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Array<Jsonb>, _>(&self.fields)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Array<Nullable<Text>>, _>(&self.kinds)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Array<Nullable<Jsonb>>, _>(&self.after)?;
        pass.push_sql(
            ") WITH ORDINALITY AS row (resource, reason, message, state, operation_id, fields, kind, after, number)), \
             head AS ( \
                 INSERT INTO audit.change_heads AS head (tenant_id, position, changed_at) \
                 SELECT tenant_id, (SELECT count(*) FROM told), clock_timestamp() FROM said \
                 ON CONFLICT (tenant_id) DO UPDATE SET position = head.position + excluded.position, \
                     changed_at = greatest(head.changed_at, clock_timestamp()) RETURNING position, changed_at \
             ) \
             INSERT INTO audit.changes \
                 (tenant_id, position, created_at, actor, resource, reason, message, state, operation_id, fields, kind, after) \
             SELECT tenant_id, head.position - (SELECT count(*) FROM told) + number, head.changed_at, actor, \
                 resource, reason, message, state, operation_id, fields, kind, after \
             FROM said, head, told",
        );
        Ok(())
    }
}

pub(crate) async fn append(
    mut connection: &AsyncPgConnection,
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
    let append = Append {
        tenant: tenant.0,
        actor,
        resources: each(rows, |change| change.resource.as_str()),
        reasons: each(rows, |change| change.reason),
        messages: each(rows, |change| change.message.as_str()),
        states: each(rows, |change| change.state),
        operations: each(rows, |change| change.operation.map(|operation| operation.0)),
        fields: each(rows, |change| if change.fields.is_null() { json!({}) } else { change.fields.clone() }),
        kinds: each(rows, |change| change.watched.as_ref().map(|(kind, _)| kind.as_str())),
        after: each(rows, |change| change.watched.as_ref().map(|(_, after)| after)),
    };
    append.execute(&mut connection).await.map_err(from_diesel)?;
    Ok(())
}
