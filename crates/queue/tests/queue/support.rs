//! A queue of a test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use uuid::Uuid;
use virtualstack_postgres::PrivatePostgres;
use virtualstack_queue::{Claim, Lease, NewJob, Outcome, claim, insert, settle};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A lease that outlasts every test.
pub(crate) const LONG: i64 = 600_000;

static POSTGRES: OnceCell<PrivatePostgres> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A queue that nobody else uses, and a connection to it.
pub(crate) struct Queue {
    pub(crate) name: &'static str,
    pub(crate) connection: AsyncPgConnection,
}

/// How a job stands in its table.
#[derive(Debug, QueryableByName)]
pub(crate) struct Row {
    #[diesel(sql_type = Text)]
    pub(crate) state: String,
    #[diesel(sql_type = Integer)]
    pub(crate) attempt: i32,
    #[diesel(sql_type = BigInt)]
    pub(crate) fencing_token: i64,
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub(crate) progress: Option<Value>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) last_error: Option<String>,
    #[diesel(sql_type = Bool)]
    pub(crate) finished: bool,
    /// When it may be claimed, in seconds from now.
    #[diesel(sql_type = Double)]
    pub(crate) due_in: f64,
    /// The same as a time.
    #[diesel(sql_type = Double)]
    pub(crate) due_at: f64,
}

impl Queue {
    pub(crate) async fn new() -> Self {
        let name = format!("queue-{}", NUMBER.fetch_add(1, Ordering::Relaxed)).leak();
        Self { name, connection: connect().await }
    }

    /// A job that is due now.
    pub(crate) fn job(&self) -> NewJob {
        NewJob {
            id: Uuid::now_v7(),
            queue: self.name,
            kind: "test",
            group_key: "tests".to_owned(),
            payload: json!({"of": "a test"}),
            max_attempts: 5,
            held: false,
            unique_key: None,
            traceparent: None,
        }
    }

    /// Puts a job in; its id.
    pub(crate) async fn put(&mut self) -> Uuid {
        self.put_of("tests").await
    }

    /// Puts a job of a group in; its id.
    pub(crate) async fn put_of(&mut self, group: &str) -> Uuid {
        let job = NewJob { group_key: group.to_owned(), ..self.job() };
        insert(&mut self.connection, &job).await.expect("put in");
        job.id
    }

    /// Lets a job be due since so many seconds: one that waits, or one whose lease has run out.
    pub(crate) async fn due_since(&mut self, job: Uuid, seconds: i32) {
        self.set("available_at", job, seconds).await;
    }

    /// Lets a job have ended so many seconds ago.
    pub(crate) async fn finished_since(&mut self, job: Uuid, seconds: i32) {
        self.set("finished_at", job, seconds).await;
    }

    async fn set(&mut self, column: &str, job: Uuid, seconds_ago: i32) {
        let set = format!("UPDATE background_jobs.jobs SET {column} = now() - $2 * interval '1 second' WHERE id = $1");
        let set = diesel::sql_query(set).bind::<SqlUuid, _>(job).bind::<Integer, _>(seconds_ago);
        assert_eq!(set.execute(&mut self.connection).await.expect("set"), 1);
    }

    /// Does as another worker would that has claimed a job since its lease ran out.
    pub(crate) async fn steal(&mut self, job: Uuid) {
        let steal = "UPDATE background_jobs.jobs SET fencing_token = fencing_token + 1, \
            available_at = now() + interval '1 hour' WHERE id = $1 AND state = 'running'";
        let steal = diesel::sql_query(steal).bind::<SqlUuid, _>(job);
        assert_eq!(steal.execute(&mut self.connection).await.expect("stolen"), 1);
    }

    /// What the database's clock says.
    pub(crate) async fn time(&mut self) -> DateTime<Utc> {
        let time = diesel::dsl::sql::<Timestamptz>("clock_timestamp()");
        diesel::select(time).get_result(&mut self.connection).await.expect("a time")
    }

    /// Claims up to `limit` jobs.
    pub(crate) async fn claim(&mut self, limit: i64) -> Vec<Lease> {
        self.claim_with(limit, limit, &[]).await
    }

    /// Claims up to `limit` jobs as one that may hold so many of a group, and holds these already.
    pub(crate) async fn claim_with(&mut self, limit: i64, group_share: i64, held: &[&str]) -> Vec<Lease> {
        let queues = [self.name.to_owned()];
        let held: Vec<_> = held.iter().map(|group| (*group).to_owned()).collect();
        let asked = Claim { queues: &queues, limit, worker: "a test", lease_ms: LONG, group_share, held_groups: &held };
        claim(&mut self.connection, &asked).await.expect("a claim")
    }

    /// Claims the one job that is due.
    pub(crate) async fn claim_one(&mut self) -> Lease {
        let mut leases = self.claim(10).await;
        assert_eq!(leases.len(), 1, "{leases:?}");
        leases.remove(0)
    }

    pub(crate) async fn settle(&mut self, lease: &Lease, outcome: &Outcome) {
        settle(&mut self.connection, lease, outcome).await.expect("settled");
    }

    /// Whether the fence lets the holder of a lease write.
    pub(crate) async fn may_write(&mut self, lease: &Lease) -> bool {
        let fence = diesel::sql_query("SELECT background_jobs.fence($1, $2)");
        let fence = fence.bind::<SqlUuid, _>(lease.id).bind::<BigInt, _>(lease.token);
        match fence.execute(&mut self.connection).await {
            Ok(_) => true,
            Err(error) if error.to_string().contains("LEASE_LOST") => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn row(&mut self, job: Uuid) -> Row {
        self.find(job).await.expect("a job")
    }

    pub(crate) async fn find(&mut self, job: Uuid) -> Option<Row> {
        let row = "SELECT state, attempt, fencing_token, progress, last_error, finished_at IS NOT NULL AS finished, \
            extract(epoch FROM available_at - now())::double precision AS due_in, \
            extract(epoch FROM available_at)::double precision AS due_at FROM background_jobs.jobs WHERE id = $1";
        let row = diesel::sql_query(row).bind::<SqlUuid, _>(job);
        row.get_result(&mut self.connection).await.optional().expect("a look")
    }
}

/// Where the queue's database is.
pub(crate) async fn url() -> String {
    let make = || async {
        let postgres = tokio::task::spawn_blocking(PrivatePostgres::temporary).await.expect("no panic");
        let postgres = postgres.expect("a PostgreSQL");
        let mut connection = AsyncPgConnection::establish(&postgres.admin_url("postgres")).await.expect("a connection");
        for script in scripts() {
            let text = fs::read_to_string(&script).expect("a script");
            connection.batch_execute(&text).await.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        }
        postgres
    };
    POSTGRES.get_or_init(make).await.admin_url("postgres")
}

/// All that makes the product's schema: a migration makes the queue's table, and any later one may change it.
fn scripts() -> Vec<PathBuf> {
    let folders = fs::read_dir(format!("{ROOT}/migrations")).expect("migrations");
    let mut scripts: Vec<_> = folders.map(|folder| folder.expect("an entry").path().join("up.sql")).collect();
    scripts.retain(|script| script.is_file());
    scripts.sort();
    scripts.insert(0, format!("{ROOT}/crates/store/src/schema/database_roles.sql").into());
    scripts
}

pub(crate) async fn connect() -> AsyncPgConnection {
    AsyncPgConnection::establish(&url().await).await.expect("a connection")
}
