//! Putting jobs in, and saying where one stands.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use uuid::Uuid;

use crate::claim::Lease;

/// A job to put in.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id, made by the caller.
    pub id: Uuid,
    /// The queue it waits in.
    pub queue: &'static str,
    /// What kind of work it is.
    pub kind: &'static str,
    /// The group it shares capacity with.
    pub group_key: String,
    /// What the handler needs to know.
    pub payload: Value,
    pub max_attempts: i32,
    /// Whether it waits until it is [`release`]d.
    pub held: bool,
    /// At most one live job has this key.
    pub unique_key: Option<String>,
    /// W3C trace context to carry on.
    pub traceparent: Option<String>,
}

/// Where a job stands after a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The next step follows at once, under the same lease.
    Next(Value),
    /// The same step goes on, under the same lease and attempt: it has more to write.
    Stay,
    /// The next step follows later; the slot is given back.
    Wait(Value, TimeDelta),
    /// The step failed; it is tried again when the claim said, or after this long.
    Retry {
        /// What went wrong, for the operator.
        error: String,
        after: Option<TimeDelta>,
        /// But then at the latest, whatever the backoff says.
        within: Option<TimeDelta>,
    },
    Done,
    /// It is given up: the dead letter.
    Discard {
        /// What went wrong, for the operator.
        error: String,
    },
}

/// A new job; `or` says what is done where one with its key lives. A query of its own kind, since operations send it, and
/// `sql_query` is parsed and planned each time.
struct Insert<'a> {
    job: &'a NewJob,
    or: &'static str,
}

impl QueryId for Insert<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for Insert<'_> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let job = self.job;
        pass.push_sql(
            "INSERT INTO background_jobs.jobs \
             (id, queue, kind, group_key, payload, max_attempts, available_at, unique_key, traceparent) VALUES (",
        );
        pass.push_bind_param::<SqlUuid, _>(&job.id)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Text, _>(job.queue)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Text, _>(job.kind)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Text, _>(&job.group_key)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Jsonb, _>(&job.payload)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Integer, _>(&job.max_attempts)?;
        pass.push_sql(", CASE WHEN ");
        pass.push_bind_param::<Bool, _>(&job.held)?;
        pass.push_sql(" THEN 'infinity' ELSE now() END, ");
        pass.push_bind_param::<Nullable<Text>, _>(&job.unique_key)?;
        pass.push_sql(", ");
        pass.push_bind_param::<Nullable<Text>, _>(&job.traceparent)?;
        pass.push_sql(")");
        pass.push_sql(self.or);
        Ok(())
    }
}

/// Puts a job in, in the caller's transaction.
pub async fn insert(connection: &mut AsyncPgConnection, job: &NewJob) -> QueryResult<()> {
    Insert { job, or: "" }.execute(connection).await?;
    Ok(())
}

/// Puts a job in unless a live one has its key; whether it did.
pub async fn insert_unique(connection: &mut AsyncPgConnection, job: &NewJob) -> QueryResult<bool> {
    let insert = Insert { job, or: " ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING" };
    insert.execute(connection).await.map(|rows| rows == 1)
}

/// Makes a job due that waits, for something or for its next try.
pub async fn release(connection: &mut AsyncPgConnection, job: Uuid) -> QueryResult<()> {
    const RELEASE: &str = "UPDATE background_jobs.jobs SET available_at = now() \
        WHERE id = $1 AND state = 'available' AND available_at > now()";
    diesel::sql_query(RELEASE).bind::<SqlUuid, _>(job).execute(connection).await?;
    Ok(())
}

/// Makes the job with this key due now, ahead of its timer; one that is at work runs again when this run has ended.
pub async fn activate(connection: &mut AsyncPgConnection, unique_key: &str) -> QueryResult<()> {
    // `retry_at` of a job at work is the claim's to write, and never this: so it tells [`settle`] that somebody waits.
    const ACTIVATE: &str = "UPDATE background_jobs.jobs SET \
        available_at = CASE WHEN state = 'running' THEN available_at ELSE least(available_at, now()) END, \
        retry_at = CASE WHEN state = 'running' THEN '-infinity' ELSE retry_at END \
        WHERE unique_key = $1 AND state IN ('available', 'running')";
    diesel::sql_query(ACTIVATE).bind::<Text, _>(unique_key).execute(connection).await?;
    Ok(())
}

/// Writes where a job stands. The caller's transaction has locked it by its fencing token.
pub async fn settle(connection: &mut AsyncPgConnection, lease: &Lease, outcome: &Outcome) -> QueryResult<()> {
    // A failed step waits as long as its claim said, which grows with the attempt; a new step starts afresh, and where the
    // claim goes on with it, that is its first attempt.
    const SETTLE: &str = "UPDATE background_jobs.jobs SET \
        state = $3, progress = coalesce($4, progress), last_error = coalesce($5, last_error), \
        attempt = CASE WHEN $6 THEN attempt WHEN $3 = 'running' THEN 1 ELSE 0 END, \
        available_at = CASE \
            WHEN $3 = 'running' THEN available_at \
            WHEN $6 THEN least(greatest(retry_at, now() + $7 * interval '1 millisecond'), now() + $8 * interval '1 millisecond') \
            WHEN retry_at = '-infinity' THEN now() \
            ELSE now() + $7 * interval '1 millisecond' END, \
        finished_at = CASE WHEN $3 IN ('completed', 'discarded') THEN now() END, \
        unique_key = CASE WHEN $3 IN ('completed', 'discarded') THEN NULL ELSE unique_key END \
        WHERE id = $1 AND fencing_token = $2";
    let (state, progress, error, same_step, delay) = match outcome {
        Outcome::Next(progress) => ("running", Some(progress), None, false, TimeDelta::zero()),
        Outcome::Stay => ("running", None, None, true, TimeDelta::zero()),
        Outcome::Wait(progress, delay) => ("available", Some(progress), None, false, *delay),
        Outcome::Retry { error, after, .. } => ("available", None, Some(error), true, after.unwrap_or_default()),
        Outcome::Done => ("completed", None, None, false, TimeDelta::zero()),
        Outcome::Discard { error } => ("discarded", None, Some(error), true, TimeDelta::zero()),
    };
    let within = match outcome {
        Outcome::Retry { within: Some(within), .. } => Some(within.num_milliseconds().max(0)),
        _ => None,
    };
    diesel::sql_query(SETTLE)
        .bind::<SqlUuid, _>(lease.id)
        .bind::<BigInt, _>(lease.token)
        .bind::<Text, _>(state)
        .bind::<Nullable<Jsonb>, _>(progress)
        .bind::<Nullable<Text>, _>(error)
        .bind::<Bool, _>(same_step)
        .bind::<BigInt, _>(delay.num_milliseconds())
        .bind::<Nullable<BigInt>, _>(within)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes jobs that were completed before `before`; discarded ones stay for the operator.
pub async fn prune(connection: &mut AsyncPgConnection, before: DateTime<Utc>) -> QueryResult<usize> {
    diesel::sql_query("DELETE FROM background_jobs.jobs WHERE state = 'completed' AND finished_at < $1")
        .bind::<Timestamptz, _>(before)
        .execute(connection)
        .await
}

/// Removes open jobs of these queues that have been due since before `before`: nobody claims from them any more.
pub async fn prune_abandoned(
    connection: &mut AsyncPgConnection,
    queues: &[&str],
    before: DateTime<Utc>,
) -> QueryResult<usize> {
    const PRUNE: &str = "DELETE FROM background_jobs.jobs \
        WHERE queue = ANY ($1) AND state IN ('available', 'running') AND available_at < $2";
    diesel::sql_query(PRUNE).bind::<Array<Text>, _>(queues).bind::<Timestamptz, _>(before).execute(connection).await
}
