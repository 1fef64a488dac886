//! Claiming jobs and keeping them.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use uuid::Uuid;

use crate::clock::Clock;

/// A claimed job, and the token that its holder writes with.
#[derive(Clone, Debug, QueryableByName)]
pub struct Lease {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// What kind of work it is.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// The queue it came from.
    #[diesel(sql_type = Text)]
    pub queue: String,
    /// The group it belongs to.
    #[diesel(sql_type = Text)]
    pub group_key: String,
    /// What the handler needs to know.
    #[diesel(sql_type = Jsonb)]
    pub payload: Value,
    /// Where the workflow is; none before its first step.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub progress: Option<Value>,
    /// The fencing token of this claim.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
    /// Which try of this step it is, from 1.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    /// Tries that a step has.
    #[diesel(sql_type = Integer)]
    pub max_attempts: i32,
    /// How long it was due before it was claimed, in seconds.
    #[diesel(sql_type = Double)]
    pub overdue_seconds: f64,
    /// The database's clock, as the claim told it.
    #[diesel(sql_type = Timestamptz)]
    pub clock: Clock,
    /// What the last try said.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
    /// W3C trace context to carry on.
    #[diesel(sql_type = Nullable<Text>)]
    pub traceparent: Option<String>,
}

/// What a claimant asks for.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    pub queues: &'a [String],
    /// Jobs that it has room for.
    pub limit: i64,
    /// Name of the worker, for operators.
    pub worker: &'a str,
    /// Milliseconds that the claim holds.
    pub lease_ms: i64,
    /// Jobs that it may hold of one group.
    pub group_share: i64,
    /// The group of each job that it holds already.
    pub held_groups: &'a [String],
}

// Groups take turns: first comes who has least at work at this claimant, then who has waited longest. Where all that is due
// fits, there is no need to look at each group. That is most claims, and looking costs an index probe for each open group.
//
// The backoff of a failed step is written here, with full jitter: from 1 s, doubled by each attempt, at most 60 s.
const CLAIM: &str = "WITH RECURSIVE oldest AS MATERIALIZED ( \
        SELECT id, group_key, available_at FROM background_jobs.jobs \
        WHERE queue = ANY ($1) AND state IN ('available', 'running') AND available_at <= now() \
        ORDER BY available_at LIMIT $2 + 1 \
    ), crowd AS MATERIALIZED (SELECT count(*) > $2 AS is_there FROM oldest), \
    open_groups (queue, group_key) AS ( \
        SELECT asked.queue, (SELECT min(job.group_key) FROM background_jobs.jobs job \
            WHERE job.queue = asked.queue AND job.state IN ('available', 'running')) \
        FROM unnest($1) AS asked (queue), crowd WHERE crowd.is_there \
        UNION ALL \
        SELECT before.queue, (SELECT min(job.group_key) FROM background_jobs.jobs job \
            WHERE job.queue = before.queue AND job.state IN ('available', 'running') AND job.group_key > before.group_key) \
        FROM open_groups before WHERE before.group_key IS NOT NULL \
    ), waiting AS ( \
        SELECT oldest.id, oldest.group_key, oldest.available_at FROM oldest, crowd WHERE NOT crowd.is_there \
        UNION ALL \
        SELECT job.id, job.group_key, job.available_at FROM open_groups CROSS JOIN LATERAL ( \
            SELECT id, group_key, available_at FROM background_jobs.jobs \
            WHERE queue = open_groups.queue AND group_key = open_groups.group_key \
            AND state IN ('available', 'running') AND available_at <= now() ORDER BY available_at LIMIT $2) job \
    ), held AS ( \
        SELECT group_key, count(*) AS jobs FROM unnest($6) AS held (group_key) GROUP BY group_key \
    ), turns AS ( \
        SELECT waiting.id, coalesce(held.jobs, 0) \
            + row_number() OVER (PARTITION BY waiting.group_key ORDER BY waiting.available_at) AS turn \
        FROM waiting LEFT JOIN held ON held.group_key = waiting.group_key \
    ), due AS ( \
        SELECT job.id, job.available_at FROM turns JOIN background_jobs.jobs job ON job.id = turns.id \
        WHERE turns.turn <= $5 AND job.state IN ('available', 'running') AND job.available_at <= now() \
        ORDER BY turns.turn, job.available_at LIMIT $2 FOR UPDATE OF job SKIP LOCKED \
    ) \
    UPDATE background_jobs.jobs job SET \
        state = 'running', worker = $3, attempt = job.attempt + 1, fencing_token = job.fencing_token + 1, \
        available_at = now() + $4 * interval '1 millisecond', \
        retry_at = now() + random() * least(60, power(2, least(job.attempt, 10))) * interval '1 second' \
    FROM due WHERE job.id = due.id \
    RETURNING job.id, job.kind, job.queue, job.group_key, job.payload, job.progress, job.fencing_token AS token, \
        job.attempt, job.max_attempts, job.last_error, job.traceparent, \
        extract(epoch FROM now() - due.available_at)::double precision AS overdue_seconds, clock_timestamp() AS clock";

/// Claims due jobs, in turns of their groups.
pub async fn claim(connection: &mut AsyncPgConnection, claim: &Claim<'_>) -> QueryResult<Vec<Lease>> {
    diesel::sql_query(CLAIM)
        .bind::<Array<Text>, _>(claim.queues)
        .bind::<BigInt, _>(claim.limit)
        .bind::<Text, _>(claim.worker)
        .bind::<BigInt, _>(claim.lease_ms)
        .bind::<BigInt, _>(claim.group_share)
        .bind::<Array<Text>, _>(claim.held_groups)
        .load(connection)
        .await
}

/// How long until a job is due that this claimant may have, and that nobody has to be woken for; none where there is none.
pub(crate) async fn next_due(connection: &mut AsyncPgConnection, claim: &Claim<'_>) -> QueryResult<Option<Duration>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Nullable<Double>)]
        seconds: Option<f64>,
    }
    let row: Row = diesel::sql_query(
        "SELECT extract(epoch FROM min(available_at) - clock_timestamp())::double precision AS seconds \
         FROM background_jobs.jobs WHERE queue = ANY ($1) AND state IN ('available', 'running') \
         AND available_at < 'infinity' AND group_key <> ALL ( \
            SELECT group_key FROM unnest($2) AS held (group_key) GROUP BY group_key HAVING count(*) >= $3)",
    )
    .bind::<Array<Text>, _>(claim.queues)
    .bind::<Array<Text>, _>(claim.held_groups)
    .bind::<BigInt, _>(claim.group_share)
    .get_result(connection)
    .await?;
    Ok(row.seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.005))))
}

/// Renews the leases of all held jobs in one statement; those that are still held.
pub async fn renew(connection: &mut AsyncPgConnection, held: &[(Uuid, i64)], lease_ms: i64) -> QueryResult<Vec<Uuid>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    let (ids, tokens): (Vec<_>, Vec<_>) = held.iter().copied().unzip();
    let rows: Vec<Row> = diesel::sql_query(
        "UPDATE background_jobs.jobs job SET available_at = now() + $3 * interval '1 millisecond' \
         FROM unnest($1, $2) AS held (id, token) \
         WHERE job.id = held.id AND job.fencing_token = held.token AND job.state = 'running' RETURNING job.id",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<BigInt>, _>(tokens)
    .bind::<BigInt, _>(lease_ms)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
